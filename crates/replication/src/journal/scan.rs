//! Looks for what was written after a place in a segment.
//!
//! A commit is written when the one before is durable. So whatever is wrong before a commit that is
//! there was right once, and is damage; what is wrong in the last commit may never have been written.
//! Each commit holds a mark by which it is found, whatever precedes it.

use crate::succession::JournalId;

/// Bytes of a mark.
pub const MARK_BYTES: usize = 16;

/// The mark of a commit whose payload begins at `position` of its file.
pub fn mark(id: JournalId, segment: u64, position: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..8].copy_from_slice(&(id.0 as u64).to_le_bytes());
    let place = position ^ segment.rotate_left(40) ^ (id.0 >> 64) as u64;
    mark[8..].copy_from_slice(&place.to_le_bytes());
    mark
}

/// A search for marks in bytes that come in pieces.
#[derive(Debug)]
pub struct MarkSearch {
    id: JournalId,
    segment: u64,
    /// Where the bytes that are kept begin in the file.
    position: u64,
    kept: Vec<u8>,
    found: bool,
}

impl MarkSearch {
    /// In a segment's file, from `position` on.
    pub fn from(id: JournalId, segment: u64, position: u64) -> MarkSearch {
        MarkSearch {
            id,
            segment,
            position,
            kept: Vec::new(),
            found: false,
        }
    }

    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let first = (self.id.0 as u64).to_le_bytes();
        let mut windows = self.kept.windows(MARK_BYTES).zip(self.position..);
        let (id, segment) = (self.id, self.segment);
        self.found |= windows.any(|(window, position)| {
            window[..8] == first && *window == mark(id, segment, position)
        });
        let done = self.kept.len().saturating_sub(MARK_BYTES - 1);
        self.kept.drain(..done);
        self.position += done as u64;
    }

    /// Whether there was one.
    pub fn found(&self) -> bool {
        self.found
    }
}
