//! Reads a segment.

use super::scan::{MARK_BYTES, MarkSearch, mark};
use super::{
    FRAME_HEAD_BYTES, JournalError, JournalHead, KIND_COMMIT, KIND_COMMIT_READ, KIND_HEAD,
    KIND_READ, KIND_RECORDS, SEGMENT_MAGIC, StoredRead, known_version,
};
use crate::frame::{Frame, FrameError, FrameReader, MAX_PAYLOAD};
use crate::preamble::{PREAMBLE_BYTES, Preamble};
use crate::primary::StoredRecords;
use crate::record::{InstructionCount, RecordNumber, decode_batch};
use crate::wire::{Fields, WireError};
use xxhash_rust::xxh3::Xxh3;

/// What a segment holds, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalItem {
    /// Its head; always first.
    Head(JournalHead),
    /// Records.
    Records(StoredRecords),
    /// What a disk read, of which a record follows.
    Read(StoredRead),
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Bytes of the file that are good.
    pub good_bytes: u64,
    /// Bytes after them, which were being written when everything ended.
    pub torn_bytes: u64,
    /// Digest of the good bytes.
    pub digest: u128,
}

/// Reads a segment from bytes in pieces of any size.
pub struct SegmentReader {
    preamble: Preamble,
    frames: FrameReader,
    head: Option<JournalHead>,
    last: RecordNumber,
    last_count: InstructionCount,
    /// Digest of what was good.
    digest: Xxh3,
    /// What came, and how much of it is in the digest.
    ahead: Vec<u8>,
    digested: usize,
    /// Bytes of frames that are in the digest.
    good_bytes: u64,
    broken: Option<Broken>,
}

/// The reader stands still before a frame that is not right.
struct Broken {
    why: FrameError,
    search: MarkSearch,
    bytes: u64,
}

impl Default for SegmentReader {
    fn default() -> SegmentReader {
        SegmentReader {
            preamble: Preamble::default(),
            frames: FrameReader::new(MAX_PAYLOAD),
            head: None,
            last: RecordNumber::BEFORE_ALL,
            last_count: InstructionCount::POWER_ON,
            digest: Xxh3::new(),
            ahead: Vec::new(),
            digested: 0,
            good_bytes: 0,
            broken: None,
        }
    }
}

impl SegmentReader {
    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        let rest = self.preamble.push(bytes);
        if rest.len() < bytes.len() {
            self.digest.update(&bytes[..bytes.len() - rest.len()]);
        }
        match &mut self.broken {
            Some(broken) => {
                broken.search.push(rest);
                broken.bytes += rest.len() as u64;
            }
            None => {
                self.ahead.drain(..std::mem::take(&mut self.digested));
                self.ahead.extend_from_slice(rest);
                self.frames.push(rest);
            }
        }
    }

    /// The next item, or `None` until more bytes come.
    ///
    /// # Errors
    /// It is no segment, or what is in it was written by nobody. A frame that is not right is told by
    /// [`SegmentReader::finish`]: only what follows says whether it was ever whole.
    pub fn next_item(&mut self) -> Result<Option<JournalItem>, JournalError> {
        let Some(version) = known_version(&self.preamble, SEGMENT_MAGIC)? else {
            return Ok(None);
        };
        if self.broken.is_some() {
            return Ok(None);
        }
        match self.frames.next_frame() {
            Ok(None) => Ok(None),
            Ok(Some(frame)) => {
                let item = self.read(&frame, version)?;
                let good = (self.frames.offset() - self.good_bytes) as usize;
                let good = self.digested..self.digested + good;
                self.digest.update(&self.ahead[good.clone()]);
                self.digested = good.end;
                self.good_bytes = self.frames.offset();
                Ok(Some(item))
            }
            Err(why) => {
                self.stand_still(why);
                Ok(None)
            }
        }
    }

    fn stand_still(&mut self, why: FrameError) {
        let Some(head) = &self.head else {
            // Without a head nothing is known that could follow.
            let search = MarkSearch::from(Default::default(), 0, 0);
            let bytes = self.frames.rest().len() as u64;
            self.broken = Some(Broken { why, search, bytes });
            return;
        };
        let rest = self.frames.rest().to_vec();
        // The frame's own mark shows nothing.
        let own = (FRAME_HEAD_BYTES as usize + 1).min(rest.len());
        let position = PREAMBLE_BYTES as u64 + self.frames.offset() + own as u64;
        let mut search = MarkSearch::from(head.id, head.segment, position);
        search.push(&rest[own..]);
        let bytes = rest.len() as u64;
        self.broken = Some(Broken { why, search, bytes });
    }

    fn read(&mut self, frame: &Frame, version: u16) -> Result<JournalItem, JournalError> {
        let (after, offset) = (self.last, frame.offset);
        let garbled = |source| JournalError::Records {
            after,
            why: FrameError::Payload { offset, source },
        };
        match (frame.kind, &self.head) {
            (KIND_HEAD, None) => {
                let head = JournalHead::decode(&frame.payload, version).map_err(garbled)?;
                self.last = head.place.record;
                self.last_count = head.place.count;
                self.head = Some(head.clone());
                Ok(JournalItem::Head(head))
            }
            (kind @ (KIND_COMMIT | KIND_COMMIT_READ), Some(head)) => {
                let length = frame.payload.len();
                let position = PREAMBLE_BYTES as u64 + offset + super::frame_head_bytes(length);
                let expected = mark(head.id, head.segment, position);
                match frame.payload.strip_prefix(&expected) {
                    Some(content) if kind == KIND_COMMIT => self.records(content, offset, garbled),
                    Some(content) => stored_read(content).map_err(garbled),
                    None => Err(self.order("a commit of another place", offset)),
                }
            }
            (KIND_RECORDS, Some(_)) => self.records(&frame.payload, offset, garbled),
            (KIND_READ, Some(_)) => stored_read(&frame.payload).map_err(garbled),
            _ => Err(self.order("a frame that does not belong there", offset)),
        }
    }

    fn order(&self, what: &'static str, offset: u64) -> JournalError {
        let after = self.last;
        JournalError::Order {
            after,
            what,
            offset,
        }
    }

    fn records(
        &mut self,
        payload: &[u8],
        offset: u64,
        garbled: impl Fn(WireError) -> JournalError,
    ) -> Result<JournalItem, JournalError> {
        let mut fields = Fields::new(payload);
        let released = fields.varint().map_err(&garbled)?;
        let first_record = RecordNumber(fields.varint().map_err(&garbled)?);
        let records = decode_batch(&mut fields).map_err(&garbled)?;
        let last = self.last.checked_plus(records.len() as u64);
        let follows = Some(first_record) == self.last.checked_plus(1) && !records.is_empty();
        let (Some(last), true) = (last, follows) else {
            return Err(self.order("records are missing or repeated", offset));
        };
        let counts = records.iter().map(|record| record.count);
        if !std::iter::once(self.last_count).chain(counts).is_sorted() {
            return Err(self.order("an instruction count falls", offset));
        }
        self.last = last;
        self.last_count = records
            .last()
            .map_or(self.last_count, |record| record.count);
        Ok(JournalItem::Records(StoredRecords {
            first_record,
            released,
            records,
        }))
    }

    /// Number of the last good record.
    pub fn last(&self) -> RecordNumber {
        self.last
    }

    /// Says how it ends, after [`SegmentReader::next_item`] gave `None` and there are no more bytes.
    ///
    /// # Errors
    /// What was durable is damaged: something that was written later is there.
    pub fn finish(mut self) -> Result<Tail, JournalError> {
        if known_version(&self.preamble, SEGMENT_MAGIC)?.is_none() || self.head.is_none() {
            return Err(JournalError::NoHead);
        }
        if self.broken.is_none() && self.frames.rest().len() > FRAME_HEAD_BYTES as usize {
            // A length that was damaged to a greater one looks like a frame whose end is missing.
            let offset = self.frames.offset();
            self.stand_still(FrameError::Checksum { offset });
        }
        let torn_bytes = match &self.broken {
            Some(broken) if broken.search.found() => {
                return Err(JournalError::Records {
                    after: self.last,
                    why: broken.why.clone(),
                });
            }
            Some(broken) => broken.bytes,
            None => self.frames.rest().len() as u64,
        };
        Ok(Tail {
            good_bytes: PREAMBLE_BYTES as u64 + self.frames.offset(),
            torn_bytes,
            digest: self.digest.digest128(),
        })
    }
}

fn stored_read(content: &[u8]) -> Result<JournalItem, WireError> {
    StoredRead::decode(content).map(JournalItem::Read)
}

const _: () = assert!(MARK_BYTES as u64 > FRAME_HEAD_BYTES);
