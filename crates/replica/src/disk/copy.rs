//! Copies disks while the guest goes on writing to them: as they are at one moment, or, before that moment, as they
//! are by and by, in passes of which each has what changed since the one before.

use super::overlay::Volumes;
use super::worker::changes;
use environment::mpsc::{SyncSender, TrySendError};
use machine::output::{DiskOperation, DiskRequest};
use replication::blocks::{BLOCK_BYTES, WINDOW_BYTES};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of a chunk; the last one of a disk may be shorter. A window has a whole number of them.
pub const CHUNK_BYTES: u64 = CHUNK_BLOCKS as u64 * BLOCK_BYTES as u64;
/// Blocks of a chunk: a bit each in a word.
const CHUNK_BLOCKS: u32 = u64::BITS;
/// Chunks that wait because the guest was about to write to them: 256 MiB. For one more, the guest's
/// write waits.
const MOST_WAITING: usize = if cfg!(test) { 8 } else { 1024 };

/// What comes of a copy, piece by piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopiedPart {
    /// A piece of a disk: each byte of what is copied is in exactly one.
    Chunk(DiskChunk),
    /// Everything before this was there, to the beginning of the next window or the end of the disk. Of a copy of
    /// what changed nothing is said.
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

/// Blocks of the machine's disks: for each disk a word for each chunk, whose bits are its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocks(Vec<Vec<u64>>);

impl Blocks {
    /// All that are copied.
    fn all(volumes: &Volumes) -> Blocks {
        Blocks::filled(volumes, u64::MAX)
    }

    fn none(volumes: &Volumes) -> Blocks {
        Blocks::filled(volumes, 0)
    }

    fn filled(volumes: &Volumes, word: u64) -> Blocks {
        let disks = volumes.disks().iter();
        let chunks = disks.map(|disk| disk.copied_bytes().div_ceil(CHUNK_BYTES));
        Blocks(chunks.map(|chunks| vec![word; chunks as usize]).collect())
    }

    /// The chunks of these bytes, and in each the blocks that have some of them.
    fn touched(&self, device: usize, offset: u64, length: u64) -> Vec<(usize, u64)> {
        let chunks = self.0.get(device).map_or(0, Vec::len) as u64;
        let (block_bytes, end) = (BLOCK_BYTES as u64, offset.saturating_add(length));
        let last = end.div_ceil(CHUNK_BYTES).min(chunks);
        let chunk = |index: u64| {
            let start = index * CHUNK_BYTES;
            let from = offset.saturating_sub(start) / block_bytes;
            let to = (end - start).min(CHUNK_BYTES).div_ceil(block_bytes);
            (index as usize, bits(from as u32..to as u32))
        };
        (offset / CHUNK_BYTES..last).map(chunk).collect()
    }
}

/// These bits of a word.
fn bits(range: Range<u32>) -> u64 {
    assert!(
        range.start < range.end && range.end <= CHUNK_BLOCKS,
        "blocks of a chunk: {range:?}"
    );
    (u64::MAX >> (CHUNK_BLOCKS - (range.end - range.start))) << range.start
}

/// The first row of neighbours among the bits of a word, which has some.
fn first_run(word: u64) -> Range<u32> {
    let start = word.trailing_zeros();
    start..start + (word >> start).trailing_ones()
}

/// What is written while disks are copied ahead of the moment that counts.
pub(super) struct Ahead {
    /// The pairing that it is for.
    pub pairing: u64,
    changed: Blocks,
    /// A bug, for the simulator.
    pub forgets: bool,
}

impl Ahead {
    /// Nothing was copied yet.
    pub fn new(pairing: u64, volumes: &Volumes, forgets: bool) -> Ahead {
        Ahead {
            pairing,
            changed: Blocks::none(volumes),
            forgets,
        }
    }

    /// `request` is about to change something. What the pass that is under way has yet to read needs no note.
    pub fn note(&mut self, request: &DiskRequest, pass: Option<&DiskCopy>) {
        let device = usize::from(request.device);
        let Some((offset, length)) = changed(request).filter(|_| !self.forgets) else {
            return;
        };
        let pass = pass.filter(|pass| !pass.is_of_its_moment);
        for (index, touched) in self.changed.touched(device, offset, length) {
            let unread = pass.map_or(0, |pass| pass.wanted.0[device][index]);
            self.changed.0[device][index] |= touched & !unread;
        }
    }

    /// What changed since it was read; nothing has from here on.
    fn take_changed(&mut self, volumes: &Volumes) -> Blocks {
        std::mem::replace(&mut self.changed, Blocks::none(volumes))
    }
}

/// A copy under way: what was not taken yet, and what was taken but not yet sent.
pub(super) struct DiskCopy {
    parts: SyncSender<CopiedPart>,
    wanted: Blocks,
    /// It is of all there is: window by window.
    is_whole: bool,
    /// It is of the moment at which it began.
    is_of_its_moment: bool,
    /// The next chunk to look at.
    device: usize,
    index: usize,
    waiting: VecDeque<CopiedPart>,
    waiting_chunks: usize,
}

impl DiskCopy {
    fn new(parts: SyncSender<CopiedPart>, wanted: Blocks, is_whole: bool) -> DiskCopy {
        DiskCopy {
            parts,
            wanted,
            is_whole,
            is_of_its_moment: true,
            device: 0,
            index: 0,
            waiting: VecDeque::new(),
            waiting_chunks: 0,
        }
    }

    /// Of all that the disks hold at this moment.
    pub(super) fn whole(volumes: &Volumes, parts: SyncSender<CopiedPart>) -> DiskCopy {
        DiskCopy::new(parts, Blocks::all(volumes), true)
    }

    /// Of what changed since it was copied ahead, as it is at this moment.
    pub(super) fn rest(
        volumes: &Volumes,
        parts: SyncSender<CopiedPart>,
        mut ahead: Ahead,
    ) -> DiskCopy {
        DiskCopy::new(parts, ahead.take_changed(volumes), false)
    }

    /// The first pass of a copy ahead: all that the disks hold, each piece as it is when it is read.
    pub(super) fn first_pass(volumes: &Volumes, parts: SyncSender<CopiedPart>) -> DiskCopy {
        DiskCopy {
            is_of_its_moment: false,
            ..DiskCopy::whole(volumes, parts)
        }
    }

    /// A further pass: what changed since it was read.
    pub(super) fn next_pass(
        volumes: &Volumes,
        parts: SyncSender<CopiedPart>,
        ahead: &mut Ahead,
    ) -> DiskCopy {
        DiskCopy {
            is_of_its_moment: false,
            ..DiskCopy::new(parts, ahead.take_changed(volumes), false)
        }
    }

    /// Puts aside what `request` is about to change, if that is what is copied. False when nobody listens.
    pub(super) fn before(&mut self, volumes: &mut Volumes, request: &DiskRequest) -> bool {
        let device = usize::from(request.device);
        let Some((offset, length)) = changed(request).filter(|_| self.is_of_its_moment) else {
            return true;
        };
        for (index, _) in self.wanted.touched(device, offset, length) {
            self.take(volumes, device, index);
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
        let Some(wanted) = self.wanted.0.get(self.device) else {
            return false;
        };
        if !self.is_whole {
            let mut rest = wanted[self.index..].iter();
            let skipped = rest.position(|word| *word != 0);
            self.index += skipped.unwrap_or(wanted.len() - self.index);
        }
        if self.index == wanted.len() {
            self.device += 1;
            self.index = 0;
            return true;
        }
        if !self.take_hole(volumes) {
            self.take(volumes, self.device, self.index);
            self.index += 1;
        }
        self.tell_reached(volumes);
        true
    }

    fn tell_reached(&mut self, volumes: &Volumes) {
        let length = volumes.disks()[self.device].length();
        let offset = (self.index as u64 * CHUNK_BYTES).min(length);
        if self.is_whole && (offset.is_multiple_of(WINDOW_BYTES) || offset == length) {
            let device = self.device as u8;
            self.push(CopiedPart::Reached { device, offset });
        }
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
    /// without reading them: of a chunk of which some is wanted, all is zeros and may be told.
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
        let wanted = &mut self.wanted.0[self.device];
        let mut next = first;
        while next < whole as usize && wanted[next] != 0 {
            wanted[next] = 0;
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

    /// Takes what is wanted of a chunk.
    fn take(&mut self, volumes: &mut Volumes, device: usize, index: usize) {
        let wanted = self.wanted.0.get_mut(device);
        let Some(word) = wanted.and_then(|wanted| wanted.get_mut(index)) else {
            return;
        };
        let mut left = std::mem::take(word);
        while left != 0 {
            let run = first_run(left);
            left &= !bits(run.clone());
            self.take_run(volumes, device, index, run);
        }
    }

    fn take_run(&mut self, volumes: &mut Volumes, device: usize, index: usize, run: Range<u32>) {
        let block = |number: u32| u64::from(number) * BLOCK_BYTES as u64;
        let start = index as u64 * CHUNK_BYTES;
        let length = volumes.disks()[device].length();
        let (offset, end) = (start + block(run.start), start + block(run.end));
        // A disk ends within its last chunk.
        let Some(length) = end.min(length).checked_sub(offset).filter(|it| *it > 0) else {
            return;
        };
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

/// The bytes that `request` changes, of which there are some.
fn changed(request: &DiskRequest) -> Option<(u64, u64)> {
    changes(&request.operation).filter(|(_, length)| *length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_blocks_are_one_run() {
        assert_eq!(first_run(u64::MAX), 0..64);
        assert_eq!(first_run(1 << 63), 63..64);
        assert_eq!(first_run(0b1011_1000), 3..6);
        assert_eq!(bits(0..64), u64::MAX);
        assert_eq!(bits(3..6), 0b11_1000);
        assert_eq!(bits(63..64), 1 << 63);
    }

    #[test]
    fn whatever_has_a_byte_of_a_block_touches_it() {
        let blocks = Blocks(vec![vec![0; 3]]);
        let block = BLOCK_BYTES as u64;
        assert_eq!(blocks.touched(0, 0, 1), [(0, 1)]);
        assert_eq!(blocks.touched(0, block - 1, 2), [(0, 0b11)]);
        assert_eq!(
            blocks.touched(0, CHUNK_BYTES - 512, CHUNK_BYTES + 1024),
            [(0, 1 << 63), (1, u64::MAX), (2, 1)]
        );
        // A guest may ask for what is behind the end.
        assert_eq!(
            blocks.touched(0, 2 * CHUNK_BYTES + block, u64::MAX),
            [(2, u64::MAX << 1)]
        );
        assert_eq!(blocks.touched(0, u64::MAX, 9), []);
        assert_eq!(blocks.touched(1, 0, 9), []);
    }
}
