//! Copies disks as they are at one moment, while the guest goes on writing to them.

use super::overlay::Volumes;
use super::worker::changes;
use environment::mpsc::{SyncSender, TrySendError};
use machine::output::{DiskOperation, DiskRequest};
use replication::blocks::WINDOW_BYTES;
use std::collections::VecDeque;

/// Bytes of a chunk; the last one of a disk may be shorter. A window has a whole number of them.
pub const CHUNK_BYTES: u64 = 256 << 10;
/// Chunks that wait because the guest was about to write to them: 256 MiB. For one more, the guest's
/// write waits.
const MOST_WAITING: usize = if cfg!(test) { 8 } else { 1024 };

/// What comes of a copy, piece by piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopiedPart {
    /// A piece of a disk: each byte is in exactly one.
    Chunk(DiskChunk),
    /// Everything before this was there, to the beginning of the next window or the end of the disk.
    Reached {
        /// Index among the machine's disks.
        device: u8,
        /// In bytes.
        offset: u64,
    },
}

/// A piece of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskChunk {
    /// Index among the machine's disks.
    pub device: u8,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What is there, or why it could not be read.
    pub content: Result<Content, String>,
}

/// What a piece of a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many zeros.
    Zeros(u64),
}

impl Content {
    /// Bytes.
    pub fn length(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(length) => *length,
        }
    }
}

/// A copy under way: which chunks were taken, and those that were taken but not yet sent.
pub(super) struct DiskCopy {
    parts: SyncSender<CopiedPart>,
    /// For each disk and chunk, whether it was taken.
    taken: Vec<Vec<bool>>,
    /// The next chunk to look at.
    device: usize,
    index: usize,
    waiting: VecDeque<CopiedPart>,
    waiting_chunks: usize,
}

impl DiskCopy {
    pub(super) fn new(volumes: &Volumes, parts: SyncSender<CopiedPart>) -> DiskCopy {
        let disks = volumes.disks().iter();
        let taken = disks
            .map(|disk| vec![false; disk.copied_bytes().div_ceil(CHUNK_BYTES) as usize])
            .collect();
        DiskCopy {
            parts,
            taken,
            device: 0,
            index: 0,
            waiting: VecDeque::new(),
            waiting_chunks: 0,
        }
    }

    /// Puts aside what `request` is about to change. False when nobody listens.
    pub(super) fn before(&mut self, volumes: &mut Volumes, request: &DiskRequest) -> bool {
        let device = usize::from(request.device);
        let Some((offset, length)) = changes(&request.operation).filter(|(_, length)| *length > 0)
        else {
            return true;
        };
        let Some(disk) = volumes.disks().get(device) else {
            return true;
        };
        let last = offset.saturating_add(length - 1).min(disk.length() - 1) / CHUNK_BYTES;
        for index in offset / CHUNK_BYTES..=last {
            self.take(volumes, device, index as usize);
            while self.waiting_chunks > MOST_WAITING {
                let Some(part) = self.pop() else { break };
                if self.parts.send(part).is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Sends a part or looks at the next chunk. False when all is done or nobody listens.
    pub(super) fn step(&mut self, volumes: &mut Volumes) -> bool {
        if let Some(part) = self.pop() {
            return self.send(part);
        }
        let Some(taken) = self.taken.get(self.device) else {
            return false;
        };
        if self.index == taken.len() {
            self.device += 1;
            self.index = 0;
            return true;
        }
        if !self.take_hole(volumes) {
            self.take(volumes, self.device, self.index);
            self.index += 1;
        }
        let length = volumes.disks()[self.device].length();
        let offset = (self.index as u64 * CHUNK_BYTES).min(length);
        if offset.is_multiple_of(WINDOW_BYTES) || offset == length {
            let device = self.device as u8;
            self.push(CopiedPart::Reached { device, offset });
        }
        true
    }

    fn push(&mut self, part: CopiedPart) {
        self.waiting_chunks += usize::from(matches!(part, CopiedPart::Chunk(_)));
        self.waiting.push_back(part);
    }

    fn pop(&mut self) -> Option<CopiedPart> {
        let part = self.waiting.pop_front()?;
        self.waiting_chunks -= usize::from(matches!(part, CopiedPart::Chunk(_)));
        Some(part)
    }

    fn send(&mut self, part: CopiedPart) -> bool {
        match self.parts.try_send(part) {
            Ok(()) => true,
            Err(TrySendError::Full(part)) => {
                self.waiting_chunks += usize::from(matches!(part, CopiedPart::Chunk(_)));
                self.waiting.push_front(part);
                // The link is busy. The guest's own requests are looked at in between.
                environment::thread::sleep(std::time::Duration::from_micros(500));
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Takes the chunks from the next one on that are in a hole of the image, up to the end of the window,
    /// without reading them.
    fn take_hole(&mut self, volumes: &Volumes) -> bool {
        let (disk, first) = (&volumes.disks()[self.device], self.index);
        let offset = first as u64 * CHUNK_BYTES;
        let window_end = (offset / WINDOW_BYTES + 1) * WINDOW_BYTES;
        let end = volumes
            .next_data(self.device, offset)
            .min(window_end)
            .min(disk.length());
        // The last chunk may be shorter.
        let whole = if end == disk.length() {
            end.div_ceil(CHUNK_BYTES)
        } else {
            end / CHUNK_BYTES
        };
        let taken = &mut self.taken[self.device];
        let mut next = first;
        while next < whole as usize && !taken[next] {
            taken[next] = true;
            next += 1;
        }
        if next == first {
            return false;
        }
        self.index = next;
        let end = (next as u64 * CHUNK_BYTES).min(disk.length());
        self.push(CopiedPart::Chunk(DiskChunk {
            device: self.device as u8,
            offset,
            content: Ok(Content::Zeros(end - offset)),
        }));
        true
    }

    fn take(&mut self, volumes: &mut Volumes, device: usize, index: usize) {
        let Some(taken) = self
            .taken
            .get_mut(device)
            .and_then(|taken| taken.get_mut(index))
        else {
            return;
        };
        if std::mem::replace(taken, true) {
            return;
        }
        let offset = index as u64 * CHUNK_BYTES;
        let length = (volumes.disks()[device].length() - offset).min(CHUNK_BYTES);
        let read = DiskOperation::Read {
            sector: offset / super::SECTOR_BYTES,
            length: length as u32,
        };
        let Some(outcome) = volumes.perform(device, &read) else {
            return;
        };
        self.push(CopiedPart::Chunk(DiskChunk {
            device: device as u8,
            offset,
            content: outcome
                .host_error
                .map_or(Ok(Content::Bytes(outcome.data)), Err),
        }));
    }
}
