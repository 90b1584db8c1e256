//! What a replay shows of the machine: its console, and the frames that went in and out.

use machine::input::Input;
use machine::output::Output;
use network::Capture;
use replica::outside::ConsoleSink;
use replica::vcpu::decode_input;
use replication::record::{Record, RecordBody, RecordNumber};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Shows what happens, once it is told to.
#[derive(Debug)]
pub struct Sight {
    console: ConsoleSink,
    capture: Option<Capture>,
    /// Frames that records will bring: the record's number and the frame.
    coming: VecDeque<(RecordNumber, Vec<u8>)>,
    is_open: bool,
}

impl Sight {
    /// Shows everything from the beginning on (`is_open`), or nothing before [`Sight::open`].
    pub fn new(console: ConsoleSink, capture: Option<Capture>, is_open: bool) -> Sight {
        Sight {
            console,
            capture,
            coming: VecDeque::new(),
            is_open,
        }
    }

    /// Shows everything from here on.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// A record that will be replayed.
    pub fn expect(&mut self, number: RecordNumber, record: &Record) {
        if self.capture.is_some()
            && let RecordBody::Input(encoded) = &record.body
            && let Ok(Input::NetworkFrame { frame, .. }) = decode_input(encoded)
        {
            self.coming.push_back((number, frame));
        }
    }

    /// The records up to number `replayed` have taken effect; `now` is the time since 1970 in the machine.
    ///
    /// # Errors
    /// The capture cannot be written.
    pub fn records(&mut self, replayed: RecordNumber, now: Duration) -> io::Result<()> {
        while let Some((_, frame)) = self.coming.pop_front_if(|(number, _)| *number <= replayed) {
            self.frame(&frame, now)?;
        }
        Ok(())
    }

    /// The machine gave these.
    ///
    /// # Errors
    /// The capture cannot be written.
    pub fn outputs(&mut self, outputs: &[Output], now: Duration) -> io::Result<()> {
        for output in outputs {
            match output {
                Output::ConsoleBytes { bytes, .. } if self.is_open => self.console.print(bytes),
                Output::NetworkFrame { frame, .. } => self.frame(frame, now)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &[u8], now: Duration) -> io::Result<()> {
        let Some(capture) = self.capture.as_mut().filter(|_| self.is_open) else {
            return Ok(());
        };
        capture.record_at(now, frame)
    }

    /// Brings everything to its file.
    ///
    /// # Errors
    /// The capture cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.capture.as_mut().map_or(Ok(()), Capture::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replica::vcpu::{InputEncoding, encode_input};
    use replication::record::InstructionCount;
    use std::fs;

    /// The frames of a capture and the seconds of their times.
    fn frames(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut frames = Vec::new();
        let mut at = 24;
        while at < bytes.len() {
            let length = word(at + 8) as usize;
            frames.push((word(at), bytes[at + 16..at + 16 + length].to_vec()));
            at += 16 + length;
        }
        frames
    }

    #[test]
    fn frames_of_both_directions_are_captured_when_they_take_effect_once_it_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seen.pcap");
        let capture = Capture::create(&path).unwrap();
        let mut sight = Sight::new(ConsoleSink::default(), Some(capture), false);
        let received = |frame: u8| {
            let input = Input::NetworkFrame {
                device: 0,
                frame: vec![frame; 60],
            };
            Record {
                count: InstructionCount::POWER_ON,
                body: RecordBody::Input(encode_input(&input, InputEncoding::WithDiskData)),
            }
        };
        let sent = |frame: u8| {
            [Output::NetworkFrame {
                device: 0,
                frame: vec![frame; 60],
            }]
        };
        let at = Duration::from_secs;
        sight.expect(RecordNumber(1), &received(1));
        sight.expect(RecordNumber(3), &received(3));
        sight.expect(RecordNumber(4), &received(4));
        sight.records(RecordNumber(2), at(10)).unwrap();
        sight.outputs(&sent(2), at(11)).unwrap();
        sight.open();
        sight.records(RecordNumber(3), at(12)).unwrap();
        sight.outputs(&sent(9), at(13)).unwrap();
        sight.records(RecordNumber(4), at(14)).unwrap();
        sight.finish().unwrap();
        let expected = [(12, 3), (13, 9), (14, 4)].map(|(second, byte)| (second, vec![byte; 60]));
        assert_eq!(frames(&fs::read(&path).unwrap()), expected);
    }
}
