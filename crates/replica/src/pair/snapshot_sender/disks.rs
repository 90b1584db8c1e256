//! The disks of a snapshot: window by window the joiner says what its own hold, and gets what differs.
//! `docs/decisions/disk-copies.md`.

use super::super::progress::lock;
use super::{Cutter, SendError};
use crate::disk::{Content, CopiedPart, DiskChunk, Window, windows};
use crate::vcpu::CopyAsks;
use environment::mpsc::{Receiver, RecvError};
use replication::message::{DiskBlocks, Message, SnapshotPart};
use replication::mutation::Mutation;
use std::io;
use std::ops::Range;

/// A pass of so few bytes, or the fifth, or one that is not half of the one before, is the last before the machine: what
/// changes as fast as it is copied is not made less by another one.
const FEW_BYTES: u64 = 16 << 20;
/// Passes before the machine, at most.
const MOST_PASSES: u32 = 5;

impl Cutter {
    /// Sends what the disks hold while the guest writes to them, and then what it changed, until that is little: from
    /// the machine's last round on the backup has to execute all that the guest does, however long its disks take.
    pub(super) fn disks_first(
        &mut self,
        lengths: &[u64],
        asks: &CopyAsks,
    ) -> Result<(), SendError> {
        let parts = asks.disks(self.forgets_changes());
        self.disks(lengths, &parts)?;
        self.all_is_there()?;
        let mut before = u64::MAX;
        for _ in 1..MOST_PASSES {
            let bytes = self.pass(asks)?;
            self.all_is_there()?;
            if bytes <= FEW_BYTES || bytes > before / 2 {
                break;
            }
            before = bytes;
        }
        Ok(())
    }

    /// Sends what changed of the disks since it was sent, and says how many bytes that was.
    pub(super) fn pass(&mut self, asks: &CopyAsks) -> Result<u64, SendError> {
        let parts = asks.disks(self.forgets_changes());
        self.changed(&parts)
    }

    /// Sends all of this: what the joiner has there is known to differ.
    pub(super) fn changed(&mut self, parts: &Receiver<CopiedPart>) -> Result<u64, SendError> {
        let mut bytes = 0;
        for part in parts.iter() {
            if let CopiedPart::Chunk(chunk) = part {
                bytes += chunk.content.as_ref().map_or(0, Content::length);
                self.chunk(chunk, None)?;
            }
        }
        Ok(bytes)
    }

    fn forgets_changes(&self) -> bool {
        let mutations = &self.comparison.mutations;
        mutations.active(Mutation::DiskChangesForgotten)
    }

    /// Sends what differs of all that the disks hold.
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
                    CopiedPart::Chunk(chunk) => self.chunk(chunk, Some(&theirs))?,
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
    fn chunk(&mut self, chunk: DiskChunk, theirs: Option<&Window>) -> Result<(), SendError> {
        let DiskChunk {
            device,
            offset,
            content,
        } = chunk;
        let content = content.map_err(SendError::Disk)?;
        let known = theirs.and_then(|theirs| theirs.at(device, offset, content.length()));
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
