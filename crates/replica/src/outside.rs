//! The outside world of a live machine: its network and its consoles.

use crate::config::{Attachment, NetworkEnd};
use environment::frames::FramePort;
use keys::{Keys, KeysError, LetIn, Purpose};
use machine::input::{Console, Input};
use machine::output::Output;
use network::{NetworkAttachment, PollSet};
use std::fs::File;
use std::io::{self, Write};
use thiserror::Error;

/// Frames taken from the network in one go, so that a flood leaves time for everything else.
const FRAMES_A_TURN: usize = 256;
/// Between two attempts to reach a network that has gone, in nanoseconds.
const RETRY_NS: u64 = 200_000_000;
/// A switch that does not answer for this long is tried anew, in nanoseconds.
const ANSWER_NS: u64 = 5_000_000_000;

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

/// The guest's network: an attachment that is made again when it breaks.
#[derive(Debug)]
pub struct Network {
    end: NetworkEnd,
    /// For a switch of another host.
    keys: Option<Keys>,
    attachment: Option<Attached>,
    /// An attachment that the other side has not taken yet, and when it is given up.
    attempt: Option<(NetworkAttachment, u64)>,
    retry_at_ns: u64,
}

/// What the other end is.
#[derive(Debug)]
enum Attached {
    /// A switch or a device.
    Host(NetworkAttachment),
    /// A world, which takes and gives frames as wholes.
    Simulated(Box<dyn FramePort>),
}

impl Attached {
    fn has_frame(&self) -> bool {
        match self {
            Attached::Host(attachment) => attachment.has_frame(),
            Attached::Simulated(port) => port.has_frame(),
        }
    }

    fn wants_write(&self) -> bool {
        match self {
            Attached::Host(attachment) => attachment.wants_write(),
            Attached::Simulated(_) => false,
        }
    }

    fn enqueue(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            Attached::Host(attachment) => attachment.enqueue(frame),
            Attached::Simulated(port) => {
                port.send(frame);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Attached::Host(attachment) => attachment.flush(),
            Attached::Simulated(_) => Ok(()),
        }
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Attached::Host(attachment) => attachment.receive(),
            Attached::Simulated(port) => Ok(port.receive()),
        }
    }
}

/// The network cannot be reached.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The switch does not take this machine.
    #[error("network.switch: {0}")]
    Switch(io::Error),
    /// The keys for a switch of another host.
    #[error("network.switch: {0}")]
    Keys(#[from] KeysError),
    /// The TAP device cannot be used.
    #[error("network.tap: {0}")]
    Tap(io::Error),
}

impl Network {
    /// Connects as configured, and waits for that: five seconds at most. Later attempts, those of
    /// [`Network::reconnect`], wait for nothing.
    pub fn connect(end: &NetworkEnd) -> Result<Network, NetworkError> {
        let keys = match &end.attachment {
            Attachment::RemoteSwitch(switch) => {
                let let_in = LetIn::Hosts([switch.host.clone()].into());
                Some(Keys::open(&switch.keys, Purpose::Switch, let_in)?)
            }
            Attachment::Switch(_) | Attachment::Tap(_) => None,
        };
        let serves = Some(end.mac);
        let on_host = NetworkError::Switch;
        let attachment = match (&end.attachment, environment::current()) {
            (_, Some(simulation)) => Attached::Simulated(simulation.attach(end.mac)),
            (Attachment::Switch(address), None) => {
                let attachment = NetworkAttachment::switch(address, serves, None);
                Attached::Host(attachment.map_err(on_host)?)
            }
            (Attachment::RemoteSwitch(switch), None) => {
                let attachment = NetworkAttachment::switch(&switch.address, serves, keys.as_ref());
                Attached::Host(attachment.map_err(on_host)?)
            }
            (Attachment::Tap(name), None) => {
                Attached::Host(NetworkAttachment::tap(name).map_err(NetworkError::Tap)?)
            }
        };
        Ok(Network {
            end: end.clone(),
            keys,
            attachment: Some(attachment),
            attempt: None,
            retry_at_ns: 0,
        })
    }

    /// Adds what to wait for, connected or on the way there.
    pub fn interests<'fd, Token>(&'fd self, set: &mut PollSet<'fd, Token>, token: Token) {
        match (&self.attachment, &self.attempt) {
            (Some(Attached::Host(attachment)), _) => {
                set.add(attachment.fd(), token, true, attachment.wants_write());
            }
            // The loop asks it whether it has a frame.
            (Some(Attached::Simulated(_)), _) => {}
            (None, Some((attempt, _))) => {
                set.add(attempt.fd(), token, true, attempt.wants_write());
            }
            (None, None) => {}
        }
    }

    /// The keys for a switch of another host.
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Whether a frame waits in this process, so that polling would not tell.
    pub fn has_frame(&self) -> bool {
        self.attachment.as_ref().is_some_and(Attached::has_frame)
    }

    /// When [`Network::reconnect`] should be called, on the monotonic clock.
    pub fn retry_at_ns(&self) -> Option<u64> {
        let next = self.attempt.as_ref().map(|(_, until_ns)| *until_ns);
        let next = next.unwrap_or(self.retry_at_ns);
        self.attachment.is_none().then_some(next)
    }

    /// Goes on with connecting, or tries again when it is time to; it never waits. True when it is
    /// connected again. To be called whenever the event loop has turned.
    pub fn reconnect(&mut self, now_ns: u64) -> bool {
        if self.attachment.is_some() {
            return false;
        }
        if self.attempt.is_none() {
            if now_ns < self.retry_at_ns {
                return false;
            }
            self.retry_at_ns = now_ns + RETRY_NS;
            let attempt = begin(&self.end, self.keys.as_ref()).ok();
            self.attempt = attempt.map(|attempt| (attempt, now_ns + ANSWER_NS));
        }
        let Some((mut attempt, until_ns)) = self.attempt.take() else {
            return false;
        };
        match attempt.is_connected() {
            Ok(true) => self.attachment = Some(Attached::Host(attempt)),
            Ok(false) if now_ns < until_ns => self.attempt = Some((attempt, until_ns)),
            // Refused, or no answer: again when it is time to.
            Ok(false) | Err(_) => {}
        }
        self.attachment.is_some()
    }

    /// Sends a frame with the next [`Network::flush`]; it is lost while the network is.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match &mut self.attachment {
            Some(attachment) => {
                let sent = attachment.enqueue(frame);
                self.check(sent)
            }
            None => Ok(()),
        }
    }

    /// Writes what was sent, as far as the other side takes it: all of it with one system call.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.attachment {
            Some(attachment) if attachment.wants_write() => {
                let flushed = attachment.flush();
                self.check(flushed)
            }
            _ => Ok(()),
        }
    }

    /// Takes frames, and writes what waited. An error means that the network has gone.
    pub fn serve(&mut self, mut give: impl FnMut(Vec<u8>)) -> io::Result<()> {
        let Some(attachment) = &mut self.attachment else {
            return Ok(());
        };
        let mut result = attachment.flush();
        for _ in 0..FRAMES_A_TURN {
            match attachment.receive() {
                Ok(Some(frame)) => give(frame),
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.check(result)
    }

    /// Tells the network where the guest is now: a reverse ARP request from its address, which
    /// every switch learns from and no station answers (RFC 903; as hypervisors do).
    pub fn announce(&mut self) -> io::Result<()> {
        self.send(&rarp_announcement(self.end.mac))
    }

    fn check(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.attachment = None;
            self.retry_at_ns = 0;
        }
        result
    }
}

/// Begins to attach, without waiting.
fn begin(end: &NetworkEnd, keys: Option<&Keys>) -> io::Result<NetworkAttachment> {
    let serves = Some(end.mac);
    match &end.attachment {
        Attachment::Switch(address) => NetworkAttachment::begin_switch(address, serves, None),
        Attachment::RemoteSwitch(switch) => {
            NetworkAttachment::begin_switch(&switch.address, serves, keys)
        }
        Attachment::Tap(name) => NetworkAttachment::tap(name),
    }
}

/// The outside of one machine.
#[derive(Debug, Default)]
pub struct Outside {
    /// The network, if the machine has one.
    pub network: Option<Network>,
    /// The consoles' output.
    pub console: ConsoleSink,
}

impl Outside {
    /// Writes the frames that were emitted. An error means that the network has gone.
    pub fn flush(&mut self) -> io::Result<()> {
        self.network.as_mut().map_or(Ok(()), Network::flush)
    }

    /// Lets an output out: a frame with the next [`Outside::flush`]. An error means that the network
    /// has gone.
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
            Output::Disk(_)
            | Output::EntropyRequest { .. }
            | Output::Finish(_)
            | Output::Reboot
            | Output::Trouble(_) => Ok(()),
        }
    }

    /// Takes frames from the network as inputs.
    pub fn serve(&mut self, mut give: impl FnMut(Input)) -> io::Result<()> {
        match &mut self.network {
            Some(network) => network.serve(|frame| give(Input::NetworkFrame { device: 0, frame })),
            None => Ok(()),
        }
    }
}

/// Typed bytes as an input.
pub fn typed(bytes: Vec<u8>) -> Input {
    Input::ConsoleBytes {
        console: Console::Uart,
        bytes,
    }
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
    use crate::config::RemoteSwitch;
    use keys::{BlockingSession, Site, Validity};
    use std::time::Duration;

    fn keys_of(site: &Site, host: &str) -> Keys {
        let host = host.parse().unwrap();
        let directory = site.issue(&host, Validity::days(9)).unwrap();
        Keys::open(&directory, Purpose::Switch, LetIn::Site).unwrap()
    }

    /// A listener in a switch's place, and how a replica gets there.
    fn switch(site: &Site) -> (std::net::TcpListener, NetworkEnd) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let keys = keys_of(site, "hosta").directory().to_owned();
        let attachment = Attachment::RemoteSwitch(RemoteSwitch {
            address: format!("tcp:{address}"),
            keys,
            host: "switch".parse().unwrap(),
        });
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        (listener, NetworkEnd { attachment, mac })
    }

    /// Takes the next one that connects, on a thread of its own.
    fn take(
        listener: &std::net::TcpListener,
        keys: &Keys,
    ) -> std::thread::JoinHandle<BlockingSession> {
        let (listener, keys) = (listener.try_clone().unwrap(), keys.clone());
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            BlockingSession::accept(&keys, socket, Duration::from_secs(60)).unwrap()
        })
    }

    /// Both calls return although nobody answers: the listener's queue is full, so that the kernel
    /// drops what asks for a connection (listen(2)).
    #[test]
    fn a_switch_that_does_not_answer_is_tried_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let (listener, end) = switch(&site);
        let keys = keys_of(&site, "switch");
        let taken = take(&listener, &keys);
        let mut network = Network::connect(&end).unwrap();
        drop(taken.join().unwrap());
        let mut give = |_| {};
        while network.serve(&mut give).is_ok() {
            std::thread::yield_now();
        }
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let filler = std::net::TcpStream::connect(address).unwrap();
        assert!(!network.reconnect(1));
        // The attempt is under way, and is given up after its time, not in the middle of a turn.
        assert_eq!(network.retry_at_ns(), Some(1 + ANSWER_NS));
        assert!(!network.reconnect(2));
        assert_eq!(network.retry_at_ns(), Some(1 + ANSWER_NS));
        assert!(!network.reconnect(1 + ANSWER_NS));
        assert!(network.retry_at_ns().unwrap() <= 1 + ANSWER_NS);
        drop(filler);
    }

    #[test]
    fn a_network_that_is_back_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let (listener, end) = switch(&site);
        let keys = keys_of(&site, "switch");
        let taken = take(&listener, &keys);
        let mut network = Network::connect(&end).unwrap();
        drop(taken.join().unwrap());
        while network.serve(|_| {}).is_ok() {
            std::thread::yield_now();
        }
        let taken = take(&listener, &keys);
        let mut told = network.reconnect(1);
        while !told {
            let mut set = PollSet::new();
            network.interests(&mut set, ());
            set.wait(None).unwrap();
            told = network.reconnect(2);
        }
        drop(taken.join().unwrap());
        assert!(!network.reconnect(3));
        assert_eq!(network.retry_at_ns(), None);
    }

    #[test]
    fn rfc903_request_reverse_is_a_broadcast_from_the_guest() {
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        let frame = rarp_announcement(mac);
        assert_eq!(frame.len(), 60);
        assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &mac[..]));
        assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    }
}
