//! The order of what goes over several links: one end numbers it and keeps it until the other has it; the other takes
//! it as it comes, drops what it has, and puts it in order.

use super::LinkError;
use std::collections::{BTreeMap, VecDeque};

/// The longest segment, in bytes.
pub const MAX_SEGMENT_BYTES: usize = 64 << 10;
/// So many bytes are under way at most, on all links together…
pub const WINDOW_BYTES: usize = 16 << 20;
/// …and so many segments.
pub const WINDOW_SEGMENTS: u64 = 16 << 10;
/// So many bytes wait at most, those that are under way among them: the core lets much less come to it.
pub const MAX_KEPT_BYTES: usize = 256 << 20;

/// What is sent, numbered from 0, until the other end has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing {
    /// All before this one is at the other end.
    acknowledged: u64,
    /// What is not, in order.
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    /// All before this one was given to some link at least once.
    given: u64,
    /// Bytes from `acknowledged` to `given`.
    given_bytes: usize,
}

impl Outgoing {
    /// All before this one is at the other end.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Adds to what is sent.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        if self.kept_bytes + bytes.len() > MAX_KEPT_BYTES {
            return Err(LinkError::Full);
        }
        self.kept_bytes += bytes.len();
        let mut rest = bytes;
        // What no link was given yet may still grow.
        if self.given < self.next()
            && let Some(last) = self.kept.back_mut()
        {
            let room = MAX_SEGMENT_BYTES - last.len();
            let (head, tail) = rest.split_at(room.min(rest.len()));
            last.extend_from_slice(head);
            rest = tail;
        }
        let segments = rest.chunks(MAX_SEGMENT_BYTES).map(<[u8]>::to_vec);
        self.kept.extend(segments);
        Ok(())
    }

    /// The number of the segment after all that are kept.
    fn next(&self) -> u64 {
        self.acknowledged + self.kept.len() as u64
    }

    /// The segment of this number, to be given to a link: if it is there, and there is room for it under way.
    pub fn give(&mut self, number: u64) -> Option<&[u8]> {
        let index = usize::try_from(number.checked_sub(self.acknowledged)?).ok()?;
        let bytes = self.kept.get(index)?;
        if number >= self.given {
            assert_eq!(number, self.given, "segments are given in order");
            let has_room = self.given_bytes + bytes.len() <= WINDOW_BYTES
                && number - self.acknowledged < WINDOW_SEGMENTS;
            if !has_room {
                return None;
            }
            self.given += 1;
            self.given_bytes += bytes.len();
        }
        Some(bytes)
    }

    /// The other end has all before this one. Whether that is news.
    pub fn acknowledge(&mut self, number: u64) -> Result<bool, LinkError> {
        if number > self.given {
            return Err(LinkError::Acknowledged { number });
        }
        // Of two links one may tell what was true before.
        let is_news = number > self.acknowledged;
        while self.acknowledged < number {
            let bytes = self.kept.pop_front().map_or(0, |segment| segment.len());
            self.kept_bytes -= bytes;
            self.given_bytes -= bytes;
            self.acknowledged += 1;
        }
        Ok(is_news)
    }

    /// Bytes that the other end does not have.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }
}

/// What came, until all before it has.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// The number of the segment that is missing.
    expected: u64,
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: usize,
}

impl Incoming {
    /// All before this one has come.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// A segment came, on any link. What is in order by it is given to `take`.
    ///
    /// # Errors
    /// It is further ahead than the other end may send.
    pub fn arrived(
        &mut self,
        number: u64,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), LinkError> {
        if number < self.expected || self.early.contains_key(&number) {
            return Ok(());
        }
        if number > self.expected {
            let is_ahead = number - self.expected >= WINDOW_SEGMENTS
                || self.early_bytes + bytes.len() > WINDOW_BYTES;
            if is_ahead {
                return Err(LinkError::Ahead { number });
            }
            self.early_bytes += bytes.len();
            self.early.insert(number, bytes.to_vec());
            return Ok(());
        }
        take(bytes);
        self.expected += 1;
        while let Some(next) = self.early.remove(&self.expected) {
            self.early_bytes -= next.len();
            take(&next);
            self.expected += 1;
        }
        Ok(())
    }
}
