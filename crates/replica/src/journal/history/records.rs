//! The records of a journal from a snapshot on, one segment after the other, with what disks read in them.

use super::HistoryError;
use crate::journal::directory::READ_BYTES;
use crate::packing::Unpacker;
use crate::vcpu::{InputEncoding, decode_input, encode_input};
use environment::fs::File;
use machine::input::Input;
use replication::journal::{JournalError, JournalHead, JournalItem, SegmentReader, StoredRead};
use replication::record::{Record, RecordBody};
use replication::succession::JournalId;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

/// Nothing longer was read in one go: a file that says so was made by nobody.
const MAX_READ_BYTES: u64 = 16 << 20;

/// A segment that is to be read.
pub(super) type SegmentFile = (u64, PathBuf, Option<File>);

/// The records after a snapshot, as far as they are read.
pub struct HistoryRecords {
    id: JournalId,
    /// The segment that is expected next.
    next: u64,
    /// Number of the last record.
    last: u64,
    /// Digest of the segment before, once there is one.
    before: Option<u128>,
    files: VecDeque<SegmentFile>,
    /// Whether the last of the files may be one that is being written.
    is_to_the_end: bool,
    open: Option<OpenSegment>,
    unpacker: Unpacker,
    /// What disks read that no record told of yet.
    reads: BTreeMap<(u8, u64), Vec<u8>>,
    torn_bytes: u64,
}

struct OpenSegment {
    path: PathBuf,
    file: File,
    at: u64,
    /// Bytes that it had when it was opened: what is added later is not history yet.
    length: u64,
    reader: SegmentReader,
    has_head: bool,
}

impl HistoryRecords {
    pub(super) fn new(
        head: &JournalHead,
        files: Vec<SegmentFile>,
        is_to_the_end: bool,
        unpacker: Unpacker,
    ) -> HistoryRecords {
        HistoryRecords {
            id: head.id,
            next: head.segment,
            last: head.place.record,
            before: None,
            files: files.into(),
            is_to_the_end,
            open: None,
            unpacker,
            reads: BTreeMap::new(),
            torn_bytes: 0,
        }
    }

    /// Number of the last record that was given, or of the last one before the first.
    pub fn last(&self) -> u64 {
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
        let Some((number, path, file)) = self.files.pop_front() else {
            return Ok(false);
        };
        if number != self.next {
            let after = self.last;
            return Err(HistoryError::Missing { path, after });
        }
        self.next += 1;
        let opened = file.map_or_else(|| File::open(&path), Ok);
        let length = |file: File| file.length().map(|length| (file, length));
        let (file, length) = opened
            .and_then(length)
            .map_err(|error| HistoryError::of(&path, error))?;
        self.open = Some(OpenSegment {
            path,
            file,
            at: 0,
            length,
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
                    let bytes = unpack(&mut self.unpacker, path, &read)?;
                    self.reads.insert(name, bytes);
                }
                Some(JournalItem::Records(mut stored)) => {
                    self.last += stored.records.len() as u64;
                    if !self.reads.is_empty() {
                        let records = stored.records.iter_mut();
                        records.for_each(|record| put_data(&mut self.reads, record));
                    }
                    return Ok(Some(stored.records));
                }
                None => {
                    let bytes = open
                        .next_bytes()
                        .map_err(|error| HistoryError::of(&open.path, error))?;
                    if !bytes {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The open file has nothing more to say.
    fn close(&mut self) -> Result<(), HistoryError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let is_last = self.files.is_empty() && self.is_to_the_end;
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

impl OpenSegment {
    /// Gives the next bytes to the reader; false at the end.
    fn next_bytes(&mut self) -> io::Result<bool> {
        let length = (self.length - self.at).min(READ_BYTES as u64);
        if length == 0 {
            return Ok(false);
        }
        let mut buffer = vec![0; length as usize];
        match self.file.read_exact_at(&mut buffer, self.at) {
            Ok(()) => {}
            // A start cut what was torn of it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.length = self.file.length()?.clamp(self.at, self.length);
                return Ok(self.length > self.at);
            }
            Err(error) => return Err(error),
        }
        self.at += length;
        self.reader.push(&buffer);
        Ok(true)
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
