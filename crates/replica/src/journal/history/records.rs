//! The records of a journal from a snapshot on, one segment after the other, with what disks read in them.

use super::HistoryError;
use crate::journal::storage::{Hold, JournalFile, JournalFiles, ReadFile};
use crate::packing::Unpacker;
use crate::vcpu::{InputEncoding, decode_input, encode_input};
use machine::input::Input;
use replication::journal::{JournalError, JournalHead, JournalItem, SegmentReader, StoredRead};
use replication::record::{Record, RecordBody, RecordNumber};
use replication::succession::JournalId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Nothing longer was read in one go: a file that says so was made by nobody.
const MAX_READ_BYTES: u64 = 16 << 20;

/// What is read after a snapshot.
pub(super) struct HistorySegments {
    /// The snapshot's.
    pub head: JournalHead,
    /// The journal.
    pub files: Arc<dyn JournalFiles>,
    /// Segments by their numbers, those open that must not go meanwhile.
    pub segments: VecDeque<(u64, Option<Box<dyn ReadFile>>)>,
    /// Numbers of segments that nobody began.
    pub fences: BTreeSet<u64>,
    /// Nothing of the journal goes meanwhile.
    pub hold: Arc<Mutex<Box<dyn Hold>>>,
    /// Whether the last of the segments may be one that is being written.
    pub is_to_the_end: bool,
    /// For what disks read.
    pub unpacker: Unpacker,
}

/// The records after a snapshot, as far as they are read.
pub struct HistoryRecords {
    id: JournalId,
    /// The segment that is expected next.
    next: u64,
    /// Number of the last record.
    last: RecordNumber,
    /// Digest of the segment before, once there is one.
    before: Option<u128>,
    of: HistorySegments,
    open: Option<OpenSegment>,
    /// What disks read that no record told of yet.
    reads: BTreeMap<(u8, u64), Vec<u8>>,
    torn_bytes: u64,
}

struct OpenSegment {
    path: PathBuf,
    /// As it was when it was opened: what is added later is not history yet.
    file: Box<dyn ReadFile>,
    reader: SegmentReader,
    has_head: bool,
}

impl HistoryRecords {
    pub(super) fn new(of: HistorySegments) -> HistoryRecords {
        HistoryRecords {
            id: of.head.id,
            next: of.head.segment,
            last: of.head.place.record,
            before: None,
            of,
            open: None,
            reads: BTreeMap::new(),
            torn_bytes: 0,
        }
    }

    /// Number of the last record that was given, or of the last one before the first.
    pub fn last(&self) -> RecordNumber {
        self.last
    }

    /// Bytes at the end that were being written, or were when everything ended.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// The next records, one at least; nothing after the last whole commit.
    ///
    /// # Errors
    /// A file has gone or cannot be read, or what was durable is damaged. What was given before is good.
    pub fn next_batch(&mut self) -> Result<Option<Vec<Record>>, HistoryError> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(None);
            }
            if let Some(records) = self.read()? {
                return Ok(Some(records));
            }
            self.close()?;
        }
    }

    /// Opens the next file; false after the last.
    fn open_next(&mut self) -> Result<bool, HistoryError> {
        let Some((number, opened)) = self.of.segments.pop_front() else {
            return Ok(false);
        };
        let file = JournalFile::Segment(number);
        let path = self.of.files.path(Some(file));
        while self.of.fences.contains(&self.next) {
            self.next += 1;
        }
        if number != self.next {
            let after = self.last;
            return Err(HistoryError::Missing { path, after });
        }
        self.next += 1;
        let opened = opened.map_or_else(|| self.of.files.open(file), Ok);
        self.open = Some(OpenSegment {
            file: opened.map_err(|error| HistoryError::of(&path, error))?,
            path,
            reader: SegmentReader::default(),
            has_head: false,
        });
        Ok(true)
    }

    /// The next records of the open file; nothing at its end.
    fn read(&mut self) -> Result<Option<Vec<Record>>, HistoryError> {
        loop {
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            let item = open.reader.next_item();
            let path = &open.path;
            let item = item.map_err(|source| bad(path, source))?;
            match item {
                Some(JournalItem::Head(head)) => {
                    open.has_head = true;
                    let follows = head.id == self.id
                        && head.segment + 1 == self.next
                        && head.place.record == self.last
                        && self.before.is_none_or(|before| before == head.before);
                    if !follows {
                        let (path, after) = (path.clone(), self.last);
                        return Err(HistoryError::Chain { path, after });
                    }
                }
                Some(JournalItem::Read(read)) => {
                    let name = (read.device, read.request);
                    let bytes = unpack(&mut self.of.unpacker, path, &read)?;
                    self.reads.insert(name, bytes);
                }
                Some(JournalItem::Records(mut stored)) => {
                    self.last = stored.last_record();
                    if !self.reads.is_empty() {
                        let records = stored.records.iter_mut();
                        records.for_each(|record| put_data(&mut self.reads, record));
                    }
                    return Ok(Some(stored.records));
                }
                None => {
                    let hold = self.of.hold.lock();
                    let renewed = hold.unwrap_or_else(PoisonError::into_inner).renew();
                    let bytes = renewed.and_then(|()| open.file.next_bytes());
                    let bytes = bytes.map_err(|error| HistoryError::of(&open.path, error))?;
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    open.reader.push(&bytes);
                }
            }
        }
    }

    /// The open file has nothing more to say.
    fn close(&mut self) -> Result<(), HistoryError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let is_last = self.of.segments.is_empty() && self.of.is_to_the_end;
        if is_last && !open.has_head {
            // It was being begun.
            return Ok(());
        }
        let tail = open.reader.finish();
        let tail = tail.map_err(|source| bad(&open.path, source))?;
        if tail.torn_bytes > 0 && !is_last {
            let (path, after) = (open.path, self.last);
            return Err(HistoryError::Chain { path, after });
        }
        self.torn_bytes = tail.torn_bytes;
        self.before = Some(tail.digest);
        Ok(())
    }
}

fn bad(path: &Path, source: JournalError) -> HistoryError {
    let path = path.into();
    HistoryError::Bad { path, source }
}

fn unpack(
    unpacker: &mut Unpacker,
    path: &Path,
    read: &StoredRead,
) -> Result<Vec<u8>, HistoryError> {
    let bytes = Some(read.bytes).filter(|bytes| *bytes <= MAX_READ_BYTES);
    let unpacked = bytes.and_then(|bytes| unpacker.unpack(&read.packed, bytes));
    unpacked.ok_or_else(|| HistoryError::Packed {
        path: path.into(),
        device: read.device,
        request: read.request,
    })
}

/// Puts what a disk read into the record that tells of it: the record of a recording.
fn put_data(reads: &mut BTreeMap<(u8, u64), Vec<u8>>, record: &mut Record) {
    let RecordBody::Input(encoded) = &mut record.body else {
        return;
    };
    // Whoever replays it says what is wrong with it.
    let Ok(mut input) = decode_input(encoded) else {
        return;
    };
    if let Input::DiskCompletion {
        device,
        request,
        data,
        ..
    } = &mut input
        && let Some(bytes) = reads.remove(&(*device, *request))
    {
        *data = bytes;
        *encoded = encode_input(&input, InputEncoding::WithDiskData);
    }
}
