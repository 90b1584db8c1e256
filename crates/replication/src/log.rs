//! The log file: a header, perhaps a snapshot, records, and a proper end.
//!
//! `docs/log-format.md` draws the bytes. The writer gives bytes to be appended to the file, the
//! reader takes bytes as they are read from it: neither opens anything.

use crate::frame::{Frame, FrameError, FrameReader, FrameWriter, MAX_PAYLOAD};
use crate::preamble::{Foreign, Preamble, preamble};
use crate::record::{
    InstructionCount, MAX_INPUT_BYTES, Record, RecordBody, RecordNumber, decode_batch, encode_batch,
};
use crate::wire::{Fields, WireError, put_bytes, put_varint};
use std::collections::VecDeque;
use thiserror::Error;

/// The first bytes of every log.
pub const MAGIC: [u8; 8] = *b"USTDYLOG";
/// The format that this build writes and reads.
pub const FORMAT_VERSION: u16 = 1;

const MAX_IDENTITY: usize = 1024;
const MAX_REASON: usize = 1024;

const KIND_HEADER: u8 = 1;
const KIND_SNAPSHOT: u8 = 2;
const KIND_SNAPSHOT_END: u8 = 3;
const KIND_RECORDS: u8 = 4;
const KIND_END: u8 = 5;

/// What a log says about itself at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// The machine's semantics version; a replay needs an equal one.
    pub semantics_version: u32,
    /// Hash of the machine's configuration.
    pub configuration_hash: u64,
    /// Which guest this is, for people: name, images. At most 1024 bytes.
    pub guest_identity: String,
    /// The log begins with a snapshot, so it needs no image to be replayed.
    pub has_snapshot: bool,
    /// Completions of disk reads hold what was read, so it needs no disk to be replayed.
    pub has_disk_reads: bool,
}

/// How a recording ended, from its end frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// Instruction count at which recording stopped; no record has a greater one.
    pub final_count: InstructionCount,
    /// Visible outputs up to there.
    pub visible_outputs: u64,
    /// Records in the log.
    pub records: u64,
    /// The machine's digest there.
    pub digest: u128,
    /// Why it ended, for people. At most 1024 bytes.
    pub reason: String,
}

/// Encodes a log. Take the bytes and append them to the file as often as you like; they form whole
/// frames, in order.
#[derive(Debug)]
pub struct LogWriter {
    frames: FrameWriter,
    out: Vec<u8>,
    batch: Vec<Record>,
    batch_bytes: usize,
    last: RecordNumber,
    snapshot_bytes: u64,
    last_count: InstructionCount,
}

impl LogWriter {
    /// Starts a log.
    pub fn new(header: &LogHeader) -> LogWriter {
        let mut writer = LogWriter {
            frames: FrameWriter::default(),
            out: preamble(MAGIC, FORMAT_VERSION),
            batch: Vec::new(),
            batch_bytes: 0,
            last: RecordNumber::BEFORE_ALL,
            snapshot_bytes: 0,
            last_count: InstructionCount::POWER_ON,
        };
        let mut payload = Vec::new();
        payload.extend_from_slice(&header.semantics_version.to_le_bytes());
        payload.extend_from_slice(&header.configuration_hash.to_le_bytes());
        payload.push(u8::from(header.has_snapshot) | u8::from(header.has_disk_reads) << 1);
        put_bytes(
            &mut payload,
            truncated(&header.guest_identity, MAX_IDENTITY),
        );
        writer.frames.write(&mut writer.out, KIND_HEADER, &payload);
        writer
    }

    /// Adds the next piece of the snapshot, of any length.
    pub fn snapshot(&mut self, bytes: &[u8]) {
        assert!(
            self.last == RecordNumber::BEFORE_ALL,
            "the snapshot comes before the records"
        );
        for piece in bytes.chunks(1 << 20) {
            let mut payload = Vec::with_capacity(piece.len() + 10);
            put_varint(&mut payload, self.snapshot_bytes);
            payload.extend_from_slice(piece);
            self.snapshot_bytes += piece.len() as u64;
            self.frames.write(&mut self.out, KIND_SNAPSHOT, &payload);
        }
    }

    /// Ends the snapshot, which was taken at `count`.
    pub fn end_snapshot(&mut self, count: InstructionCount) {
        let mut payload = Vec::new();
        put_varint(&mut payload, self.snapshot_bytes);
        put_varint(&mut payload, count.0);
        self.last_count = count;
        self.frames
            .write(&mut self.out, KIND_SNAPSHOT_END, &payload);
    }

    /// Adds a record; its count is not below the one before, its input at most
    /// [`MAX_INPUT_BYTES`]. It is in the bytes after the next
    /// [`flush`](Self::flush), or sooner.
    pub fn record(&mut self, record: Record) {
        assert!(
            record.count >= self.last_count,
            "instruction counts never fall"
        );
        if let RecordBody::Input(input) | RecordBody::Piece(input) | RecordBody::Checkpoint(input) =
            &record.body
        {
            assert!(
                input.len() <= MAX_INPUT_BYTES,
                "an input of {} bytes",
                input.len()
            );
        }
        self.last_count = record.count;
        self.batch_bytes += record.encoded_size_bound();
        self.batch.push(record);
        if self.batch_bytes >= 64 << 10 {
            self.flush();
        }
    }

    /// Puts what waits into a frame.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut payload = Vec::with_capacity(self.batch_bytes + 20);
        put_varint(&mut payload, self.last.next().0);
        encode_batch(&mut payload, &self.batch);
        self.last = self.last.plus(self.batch.len() as u64);
        self.frames.write(&mut self.out, KIND_RECORDS, &payload);
        self.batch.clear();
        self.batch_bytes = 0;
    }

    /// Ends the log properly. `summary.records` is filled in here.
    pub fn end(&mut self, summary: &LogSummary) {
        self.flush();
        assert!(
            summary.final_count >= self.last_count,
            "instruction counts never fall"
        );
        let mut payload = Vec::new();
        put_varint(&mut payload, self.last.since(RecordNumber::BEFORE_ALL));
        put_varint(&mut payload, summary.final_count.0);
        put_varint(&mut payload, summary.visible_outputs);
        payload.extend_from_slice(&summary.digest.to_le_bytes());
        put_bytes(&mut payload, truncated(&summary.reason, MAX_REASON));
        self.frames.write(&mut self.out, KIND_END, &payload);
    }

    /// The bytes since the last call.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// The longest prefix of `text` of at most `limit` bytes that is whole characters.
fn truncated(text: &str, limit: usize) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(limit)]
}

/// What a log holds, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// The header; always first.
    Header(LogHeader),
    /// A piece of the snapshot.
    Snapshot(Vec<u8>),
    /// The snapshot is whole.
    SnapshotEnd {
        /// Instruction count at which it was taken.
        count: InstructionCount,
    },
    /// A record and its number, from 1.
    Record(RecordNumber, Record),
    /// The proper end; always last.
    End(LogSummary),
}

/// Why a log cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// It does not begin like one.
    #[error("not a replay log: it does not begin with \"USTDYLOG\"")]
    NotALog,
    /// Another format version.
    #[error("log format version {found}, but this build reads version {FORMAT_VERSION}")]
    Version {
        /// The file's.
        found: u16,
    },
    /// A damaged frame in the middle.
    #[error("the log is corrupt: {0}")]
    Corrupt(#[from] FrameError),
    /// Frames in an order that no writer makes.
    #[error("the log is corrupt: {what} at byte {offset} of its frames does not belong there")]
    Order {
        /// Which frame.
        what: &'static str,
        /// Bytes from the first frame.
        offset: u64,
    },
    /// Bytes after the end frame.
    #[error("the log is corrupt: there are bytes after its end")]
    AfterEnd,
}

/// What the end of the file says, when everything that could be read was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// It has its end frame.
    Complete,
    /// No end frame: the writer is still writing, or died. Whoever can see the writer's lock on
    /// the file knows which: see [`LogEnd::describe`].
    Unfinished {
        /// Bytes of a last, unwhole frame (or of an unwritten tail) that were left out.
        torn_bytes: u64,
    },
}

impl LogEnd {
    /// In words. `writer_alive`: whether somebody holds the writer's lock on the file.
    pub fn describe(&self, writer_alive: bool) -> String {
        match (self, writer_alive) {
            (LogEnd::Complete, _) => "complete".to_owned(),
            (LogEnd::Unfinished { .. }, true) => {
                "in progress: it is still being written".to_owned()
            }
            (LogEnd::Unfinished { torn_bytes: 0 }, false) => {
                "not complete: its writer died; all that was written is whole".to_owned()
            }
            (LogEnd::Unfinished { torn_bytes }, false) => format!(
                "not complete: its writer died writing; the torn last {torn_bytes} bytes are lost"
            ),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Preamble,
    Header,
    Snapshot,
    Records,
    End,
    UnwrittenTail,
}

/// Reads a log from bytes in pieces of any size. Holds one frame at most.
#[derive(Debug)]
pub struct LogReader {
    place: Place,
    preamble: Preamble,
    frames: FrameReader,
    pending: VecDeque<LogItem>,
    snapshot_bytes: u64,
    last: RecordNumber,
    last_count: InstructionCount,
    tail_bytes: u64,
    tail_is_damage: bool,
}

impl Default for LogReader {
    fn default() -> LogReader {
        LogReader::new()
    }
}

impl LogReader {
    /// A reader at the beginning of a log.
    pub fn new() -> LogReader {
        LogReader {
            place: Place::Preamble,
            preamble: Preamble::default(),
            frames: FrameReader::new(MAX_PAYLOAD),
            pending: VecDeque::new(),
            snapshot_bytes: 0,
            last: RecordNumber::BEFORE_ALL,
            last_count: InstructionCount::POWER_ON,
            tail_bytes: 0,
            tail_is_damage: false,
        }
    }

    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = self.preamble.push(bytes);
        if self.place == Place::UnwrittenTail {
            self.extend_tail(bytes);
        } else {
            self.frames.push(bytes);
        }
    }

    /// The frame reader stands still once it failed, so a tail of zeros is followed here.
    fn extend_tail(&mut self, bytes: &[u8]) {
        self.tail_bytes += bytes.len() as u64;
        self.tail_is_damage |= bytes.iter().any(|byte| *byte != 0);
    }

    /// The next item, or `None` until more bytes come. An error is for ever.
    pub fn next_item(&mut self) -> Result<Option<LogItem>, LogError> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Ok(Some(item));
            }
            match self.place {
                Place::Preamble => {
                    if !self.read_preamble()? {
                        return Ok(None);
                    }
                }
                Place::UnwrittenTail if self.tail_is_damage => {
                    let offset = self.frames.offset();
                    return Err(LogError::Corrupt(FrameError::Header { offset }));
                }
                Place::UnwrittenTail => return Ok(None),
                Place::End if !self.frames.rest().is_empty() => return Err(LogError::AfterEnd),
                _ => match self.frames.next_frame() {
                    Ok(None) => return Ok(None),
                    Ok(Some(frame)) => self.read_frame(&frame)?,
                    // After a host's crash a file may end in blocks that were never written.
                    Err(FrameError::Header { .. }) if self.frames.rest().starts_with(&[0]) => {
                        self.place = Place::UnwrittenTail;
                        let tail = self.frames.rest().to_vec();
                        self.extend_tail(&tail);
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    /// Says how the log ends, after [`next_item`](Self::next_item) gave `None` and there are no
    /// more bytes.
    pub fn finish(&self) -> Result<LogEnd, LogError> {
        match self.place {
            Place::Preamble if self.preamble.version(MAGIC).is_err() => Err(LogError::NotALog),
            Place::Preamble => Ok(LogEnd::Unfinished {
                torn_bytes: self.preamble.bytes() as u64,
            }),
            Place::End => Ok(LogEnd::Complete),
            Place::UnwrittenTail => Ok(LogEnd::Unfinished {
                torn_bytes: self.tail_bytes,
            }),
            _ => Ok(LogEnd::Unfinished {
                torn_bytes: self.frames.rest().len() as u64,
            }),
        }
    }

    fn read_preamble(&mut self) -> Result<bool, LogError> {
        let version = self.preamble.version(MAGIC);
        let Some(found) = version.map_err(|Foreign| LogError::NotALog)? else {
            return Ok(false);
        };
        if found != FORMAT_VERSION {
            return Err(LogError::Version { found });
        }
        self.place = Place::Header;
        Ok(true)
    }

    fn read_frame(&mut self, frame: &Frame) -> Result<(), LogError> {
        let offset = frame.offset;
        let payload = |source| LogError::Corrupt(FrameError::Payload { offset, source });
        let mut fields = Fields::new(&frame.payload);
        let order = |what| Err(LogError::Order { what, offset });
        match (frame.kind, self.place) {
            (KIND_HEADER, Place::Header) => {
                let header = decode_header(&mut fields).map_err(payload)?;
                self.place = if header.has_snapshot {
                    Place::Snapshot
                } else {
                    Place::Records
                };
                self.pending.push_back(LogItem::Header(header));
            }
            (KIND_SNAPSHOT, Place::Snapshot) => {
                if fields.varint().map_err(payload)? != self.snapshot_bytes {
                    return order("a piece of the snapshot");
                }
                let bytes = fields.remainder().to_vec();
                self.snapshot_bytes += bytes.len() as u64;
                self.pending.push_back(LogItem::Snapshot(bytes));
            }
            (KIND_SNAPSHOT_END, Place::Snapshot) => {
                if fields.varint().map_err(payload)? != self.snapshot_bytes {
                    return order("the snapshot's end");
                }
                let count = InstructionCount(fields.varint().map_err(payload)?);
                self.last_count = count;
                self.place = Place::Records;
                self.pending.push_back(LogItem::SnapshotEnd { count });
            }
            (KIND_RECORDS, Place::Records) => {
                let first_record = RecordNumber(fields.varint().map_err(payload)?);
                if Some(first_record) != self.last.checked_plus(1) {
                    return order("a batch of records");
                }
                let records = decode_batch(&mut fields).map_err(payload)?;
                for record in records {
                    if record.count < self.last_count {
                        return order("a record");
                    }
                    self.last_count = record.count;
                    self.last = self.last.next();
                    self.pending.push_back(LogItem::Record(self.last, record));
                }
            }
            (KIND_END, Place::Records) => {
                let summary = decode_end(&mut fields).map_err(payload)?;
                if summary.records != self.last.since(RecordNumber::BEFORE_ALL)
                    || summary.final_count < self.last_count
                {
                    return order("the end");
                }
                self.place = Place::End;
                self.pending.push_back(LogItem::End(summary));
            }
            (KIND_HEADER..=KIND_END, _) => return order("a frame"),
            (tag, _) => return Err(payload(WireError::UnknownTag { what: "frame", tag })),
        }
        fields.end().map_err(payload)
    }
}

fn decode_header(fields: &mut Fields<'_>) -> Result<LogHeader, WireError> {
    let semantics_version = u32::from_le_bytes(fields.array()?);
    let configuration_hash = u64::from_le_bytes(fields.array()?);
    let flags = fields.byte()?;
    if flags > 3 {
        return Err(WireError::UnknownTag {
            what: "header flags",
            tag: flags,
        });
    }
    Ok(LogHeader {
        semantics_version,
        configuration_hash,
        guest_identity: fields.string("the guest's identity", MAX_IDENTITY)?,
        has_snapshot: flags & 1 != 0,
        has_disk_reads: flags & 2 != 0,
    })
}

fn decode_end(fields: &mut Fields<'_>) -> Result<LogSummary, WireError> {
    Ok(LogSummary {
        records: fields.varint()?,
        final_count: InstructionCount(fields.varint()?),
        visible_outputs: fields.varint()?,
        digest: u128::from_le_bytes(fields.array()?),
        reason: fields.string("the reason", MAX_REASON)?,
    })
}
