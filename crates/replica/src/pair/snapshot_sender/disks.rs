//! The disks of a snapshot: window by window the joiner says what its own hold, and gets what differs.
//! `docs/decisions/disk-copies.md`.

use super::super::progress::lock;
use super::{Cutter, SendError};
use crate::disk::{Content, CopiedPart, DiskChunk, Window, windows};
use environment::mpsc::{Receiver, RecvError};
use replication::message::{DiskBlocks, Message, SnapshotPart};
use std::io;
use std::ops::Range;

impl Cutter {
    pub(super) fn disks(
        &mut self,
        lengths: &[u64],
        parts: &Receiver<CopiedPart>,
    ) -> Result<(), SendError> {
        for (device, range) in windows(lengths) {
            let end = range.end;
            let theirs = self.their_window(device, range)?;
            loop {
                match parts.recv().map_err(|RecvError| SendError::DisksLost)? {
                    CopiedPart::Chunk(chunk) => self.chunk(chunk, &theirs)?,
                    CopiedPart::Reached { device: of, offset } => {
                        assert_eq!((of, offset), (device, end), "a copy goes window by window");
                        break;
                    }
                }
            }
            let pairing = self.pairing;
            self.say(&Message::Alike {
                pairing,
                device,
                end,
            })?;
            lock(&self.meter).reached(device, end);
        }
        Ok(())
    }

    /// What the joiner's disk holds there. Nothing is on the way to it meanwhile, so neither side ever waits
    /// to write while the other does.
    fn their_window(&mut self, device: u8, range: Range<u64>) -> Result<Window, SendError> {
        let Message::Blocks(DiskBlocks {
            pairing,
            device: of,
            offset,
            digests,
        }) = self.peer.receive()?
        else {
            return Err(SendError::Garbage);
        };
        let is_expected = (pairing, of, offset) == (self.pairing, device, range.start);
        let window = Window {
            device,
            range,
            digests,
        };
        if !is_expected || !window.is_whole() {
            return Err(SendError::Garbage);
        }
        Ok(window)
    }

    /// Sends what differs of a chunk; all of one that the guest was about to write to before its window came:
    /// what the joiner has there is not known.
    fn chunk(&mut self, chunk: DiskChunk, theirs: &Window) -> Result<(), SendError> {
        let DiskChunk {
            device,
            offset,
            content,
        } = chunk;
        let content = content.map_err(SendError::Disk)?;
        let known = theirs.at(device, offset, content.length());
        let differences = match &content {
            Content::Bytes(bytes) => self.comparison.differences(bytes, known),
            Content::Zeros(length) => {
                let length = *length as usize;
                self.comparison.differences_from_zeros(length, known)
            }
        };
        for found in differences {
            let at = offset + found.range.start as u64;
            match &content {
                Content::Bytes(bytes) if !found.is_zeros => {
                    let part = SnapshotPart::Disk(device);
                    let _room = self.send(part, at, bytes[found.range].to_vec())?;
                }
                _ => self.zeros(device, at, found.range.len() as u64)?,
            }
        }
        Ok(())
    }

    fn zeros(&mut self, device: u8, offset: u64, length: u64) -> io::Result<()> {
        let pairing = self.pairing;
        self.chunks += 1;
        self.say(&Message::Zeros {
            pairing,
            device,
            offset,
            length,
        })
    }
}
