//! The outside world of a live machine: its network and its consoles.

use crate::network::NetworkAttachment;
use machine::input::{Console, Input};
use machine::output::Output;
use std::fs::File;
use std::io::{self, Write};

/// Frames taken from the network in one go, so that a flood leaves time for everything else.
const FRAMES_A_TURN: usize = 256;

/// Where console output goes.
#[derive(Debug, Default)]
pub struct ConsoleSink {
    /// Standard output as well.
    pub to_stdout: bool,
    /// A file.
    pub file: Option<File>,
}

impl ConsoleSink {
    /// Prints bytes. A full disk or a closed terminal must not stop the machine.
    pub fn print(&mut self, bytes: &[u8]) {
        if self.to_stdout {
            let mut stdout = io::stdout().lock();
            let _printed = stdout.write_all(bytes).and_then(|()| stdout.flush());
        }
        if let Some(file) = &mut self.file {
            let _printed = file.write_all(bytes);
        }
    }
}

/// The outside of one machine.
#[derive(Default)]
pub struct Outside {
    /// The network, if there is one and it is connected.
    pub network: Option<NetworkAttachment>,
    /// The consoles' output.
    pub console: ConsoleSink,
}

impl Outside {
    /// Lets an output out. An error means that the network has gone.
    pub fn emit(&mut self, output: &Output) -> io::Result<()> {
        match output {
            Output::NetworkFrame { frame, .. } => match &mut self.network {
                Some(network) => network.send(frame),
                None => Ok(()),
            },
            Output::ConsoleBytes { bytes, .. } => {
                self.console.print(bytes);
                Ok(())
            }
            Output::Disk(_) | Output::EntropyRequest { .. } | Output::Finish(_) => Ok(()),
        }
    }

    /// Takes frames from the network.
    pub fn receive(&mut self, mut give: impl FnMut(Input)) -> io::Result<()> {
        let Some(network) = &mut self.network else {
            return Ok(());
        };
        for _ in 0..FRAMES_A_TURN {
            match network.receive()? {
                Some(frame) => give(Input::NetworkFrame { device: 0, frame }),
                None => break,
            }
        }
        Ok(())
    }

    /// Tells the network where the guest is now: a reverse ARP request from its address, which
    /// every switch learns from and no station answers (RFC 903; as hypervisors do).
    pub fn announce(&mut self, mac: [u8; 6]) -> io::Result<()> {
        match &mut self.network {
            Some(network) => network.send(&rarp_announcement(mac)),
            None => Ok(()),
        }
    }
}

/// Typed bytes as an input.
pub fn typed(bytes: Vec<u8>) -> Input {
    Input::ConsoleBytes { console: Console::Uart, bytes }
}

fn rarp_announcement(mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(0x8035u16.to_be_bytes()); // RARP
    frame.extend([0, 1, 8, 0, 6, 4]); // Ethernet, IPv4, address lengths
    frame.extend(3u16.to_be_bytes()); // request reverse
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.resize(60, 0); // least length of an Ethernet frame without FCS
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc903_request_reverse_is_a_broadcast_from_the_guest() {
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        let frame = rarp_announcement(mac);
        assert_eq!(frame.len(), 60);
        assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &mac[..]));
        assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    }
}
