//! The files of a journal: snapshots, and segments of records. `docs/log-format.md`, "A journal".
//!
//! As in a log, the writers give bytes to be appended and the readers take bytes as they come: neither
//! opens anything.

mod reader;
mod scan;
mod snapshot;

pub use reader::{JournalItem, SegmentReader, Tail};
pub use snapshot::{MAX_PIECE_BYTES, SnapshotFileReader, SnapshotFileWriter, SnapshotPiece};

use crate::frame::{FrameError, FrameWriter};
use crate::life_log::{LogMark, Place};
use crate::message::LifeId;
use crate::preamble::{Foreign, Preamble, preamble};
use crate::primary::StoredRecords;
use crate::record::{InstructionCount, RecordNumber, encode_batch};
use crate::succession::{JournalId, LifeNumber, MachineName};
use crate::wire::{Fields, WireError, put_bytes, put_varint};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

/// The first bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"USTDYJNL";
/// The first bytes of a snapshot's file.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"USTDYSNP";
/// The format that this build writes.
pub const FORMAT_VERSION: u16 = 4;
/// The oldest format that it reads: a host that was upgraded while everything was down goes on from the journal
/// that the program before it wrote. It has no times, nothing of what disks read, and nothing is packed.
pub const OLDEST_VERSION: u16 = 2;
/// The first format that has those.
const VERSION_WITH_TIMES: u16 = 3;
/// The first format in which snapshots build on each other.
const VERSION_WITH_INCREMENTS: u16 = 4;

/// Bytes of a machine's name, at most.
const MAX_NAME_BYTES: usize = 64;

const KIND_HEAD: u8 = 1;
const KIND_COMMIT: u8 = 2;
const KIND_RECORDS: u8 = 3;
const KIND_PIECE: u8 = 4;
const KIND_END: u8 = 5;
const KIND_PACKED_PIECE: u8 = 6;
const KIND_READ: u8 = 7;
const KIND_COMMIT_READ: u8 = 8;

/// Bytes of the longest head of a frame.
const FRAME_HEAD_BYTES: u64 = 10;

/// What every file of a journal says at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalHead {
    /// Which journal.
    pub id: JournalId,
    /// Which of its segments, from 1; of a snapshot, the segment that begins with it.
    pub segment: u64,
    /// Digest of the segment before this one; 0 for the first.
    pub before: u128,
    /// The machine.
    pub machine: MachineName,
    /// Its life.
    pub life: LifeNumber,
    /// That life's identity.
    pub life_id: LifeId,
    /// What the machine computes.
    pub semantics_version: u32,
    /// What it is made of.
    pub configuration_hash: u64,
    /// What precedes the first record, or where the snapshot was taken.
    pub place: Place,
    /// Visible outputs up to there.
    pub visible_outputs: u64,
    /// Names what the disks hold that was written after the snapshot; 0: nothing is written to them.
    pub disk_layer: u128,
    /// What the machine's clocks showed at `place`, where somebody took a snapshot there.
    pub times: Option<MachineTimes>,
    /// The snapshot that has what was not written since: this one builds on it. Of a segment, and of a snapshot that
    /// is whole in itself, none.
    pub builds_on: Option<BaseSnapshot>,
}

/// A snapshot on which another one builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseSnapshot {
    /// The segment that begins with it.
    pub segment: u64,
    /// The log up to where it was taken: no other snapshot of this number will do.
    pub mark: LogMark,
}

/// What a machine's clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineTimes {
    /// Guest time, in nanoseconds since power-on.
    pub guest_ns: u64,
    /// The real-time clock, in nanoseconds since 1970.
    pub unix_ns: u64,
}

/// What a disk read, for those who look into the history without the disk: a machine that goes on from the
/// journal reads its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRead {
    /// Index among the machine's disks.
    pub device: u8,
    /// The request's number; none comes twice in a life.
    pub request: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// They, packed by whoever stores them.
    pub packed: Vec<u8>,
}

impl StoredRead {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.device];
        put_varint(&mut out, self.request);
        put_varint(&mut out, self.bytes);
        out.extend_from_slice(&self.packed);
        out
    }

    fn decode(payload: &[u8]) -> Result<StoredRead, WireError> {
        let mut fields = Fields::new(payload);
        Ok(StoredRead {
            device: fields.byte()?,
            request: fields.varint()?,
            bytes: fields.varint()?,
            packed: fields.remainder().to_vec(),
        })
    }
}

impl JournalHead {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.id.0.to_le_bytes());
        put_varint(&mut out, self.segment);
        out.extend_from_slice(&self.before.to_le_bytes());
        put_bytes(&mut out, self.machine.as_str().as_bytes());
        put_varint(&mut out, self.life.0);
        out.extend_from_slice(&self.life_id.0.to_le_bytes());
        out.extend_from_slice(&self.semantics_version.to_le_bytes());
        out.extend_from_slice(&self.configuration_hash.to_le_bytes());
        put_varint(&mut out, self.place.record.0);
        put_varint(&mut out, self.place.count.0);
        out.extend_from_slice(&self.place.mark.0.to_le_bytes());
        put_varint(&mut out, self.visible_outputs);
        out.extend_from_slice(&self.disk_layer.to_le_bytes());
        out.push(u8::from(self.times.is_some()));
        if let Some(times) = self.times {
            put_varint(&mut out, times.guest_ns);
            put_varint(&mut out, times.unix_ns);
        }
        put_varint(&mut out, self.builds_on.map_or(0, |base| base.segment));
        if let Some(base) = self.builds_on {
            out.extend_from_slice(&base.mark.0.to_le_bytes());
        }
        out
    }

    /// As another snapshot names it that builds on it.
    pub fn as_base(&self) -> BaseSnapshot {
        BaseSnapshot {
            segment: self.segment,
            mark: self.place.mark,
        }
    }

    fn decode(payload: &[u8], version: u16) -> Result<JournalHead, WireError> {
        let mut fields = Fields::new(payload);
        let head = JournalHead {
            id: JournalId(u128::from_le_bytes(fields.array()?)),
            segment: fields.varint()?,
            before: u128::from_le_bytes(fields.array()?),
            machine: MachineName::new(&fields.string("a machine's name", MAX_NAME_BYTES)?)
                .map_err(|_| WireError::Name)?,
            life: LifeNumber(fields.varint()?),
            life_id: LifeId(u128::from_le_bytes(fields.array()?)),
            semantics_version: u32::from_le_bytes(fields.array()?),
            configuration_hash: u64::from_le_bytes(fields.array()?),
            place: Place {
                record: RecordNumber(fields.varint()?),
                count: InstructionCount(fields.varint()?),
                mark: LogMark(u128::from_le_bytes(fields.array()?)),
            },
            visible_outputs: fields.varint()?,
            disk_layer: u128::from_le_bytes(fields.array()?),
            times: match version >= VERSION_WITH_TIMES && fields.byte()? != 0 {
                false => None,
                true => Some(MachineTimes {
                    guest_ns: fields.varint()?,
                    unix_ns: fields.varint()?,
                }),
            },
            builds_on: match version >= VERSION_WITH_TIMES {
                false => None,
                true => base_snapshot(&mut fields, version)?,
            },
        };
        fields.end()?;
        Ok(head)
    }
}

/// Format 3 has a number there that is always 0.
fn base_snapshot(fields: &mut Fields<'_>, version: u16) -> Result<Option<BaseSnapshot>, WireError> {
    match fields.varint()? {
        0 => Ok(None),
        segment if version < VERSION_WITH_INCREMENTS => Err(WireError::TooLarge {
            what: "the snapshot on which one of format 3 builds",
            value: segment,
            limit: 0,
        }),
        segment => Ok(Some(BaseSnapshot {
            segment,
            mark: LogMark(u128::from_le_bytes(fields.array()?)),
        })),
    }
}

/// Why a file of a journal cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JournalError {
    /// It begins like something else.
    #[error("it is no file of a journal")]
    Foreign,
    /// Another format.
    #[error(
        "it has journal format {found}, and this build reads formats {OLDEST_VERSION} to {FORMAT_VERSION}: use \
         the program that wrote it"
    )]
    Version {
        /// The file's.
        found: u16,
    },
    /// It ends before it says whose it is.
    #[error("it ends before it says what it is")]
    NoHead,
    /// What was durable is not what was written.
    #[error("it is damaged after record {after}: {why}")]
    Records {
        /// The last good record.
        after: RecordNumber,
        /// What is wrong.
        why: FrameError,
    },
    /// Records that no writer would have put there.
    #[error("it is damaged after record {after}: {what} at byte {offset} of its frames")]
    Order {
        /// The last good record.
        after: RecordNumber,
        /// What is wrong.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A piece of a snapshot is not what was written.
    #[error("its piece {piece} (from byte {from} of the snapshot) is damaged: {why}")]
    Piece {
        /// Which, from 1.
        piece: u64,
        /// Where it begins.
        from: u64,
        /// What is wrong.
        why: FrameError,
    },
    /// A snapshot without its end.
    #[error("it ends after {pieces} pieces ({bytes} bytes) of the snapshot, which has more")]
    Short {
        /// Whole pieces.
        pieces: u64,
        /// Their bytes.
        bytes: u64,
    },
}

/// Writes a segment.
pub struct SegmentWriter {
    id: JournalId,
    segment: u64,
    frames: FrameWriter,
    out: Vec<u8>,
    digest: Xxh3,
    /// Where the next byte goes in the file.
    position: u64,
    last: RecordNumber,
}

impl SegmentWriter {
    /// Begins one.
    pub fn begin(head: &JournalHead) -> SegmentWriter {
        assert!(head.builds_on.is_none(), "a segment builds on no snapshot");
        let mut writer = SegmentWriter {
            id: head.id,
            segment: head.segment,
            frames: FrameWriter::default(),
            out: preamble(SEGMENT_MAGIC, FORMAT_VERSION),
            digest: Xxh3::new(),
            position: 0,
            last: head.place.record,
        };
        writer
            .frames
            .write(&mut writer.out, KIND_HEAD, &head.encode());
        writer.position = writer.out.len() as u64;
        writer
    }

    /// Adds what is written, and made durable, together: records, and before them what disks read that they tell
    /// of. Nothing more is added before it is durable: the next one shows that it was.
    pub fn commit(&mut self, reads: &[StoredRead], batches: &[StoredRecords]) {
        assert!(
            reads.is_empty() || !batches.is_empty(),
            "what disks read is told of by a record"
        );
        let mut begins_commit = true;
        for read in reads {
            let kind = [KIND_READ, KIND_COMMIT_READ][usize::from(begins_commit)];
            self.frame(kind, &read.encode());
            begins_commit = false;
        }
        for batch in batches {
            assert!(
                batch.first_record == self.last.next() && !batch.records.is_empty(),
                "records are stored without gaps"
            );
            let mut records = Vec::new();
            put_varint(&mut records, batch.released);
            put_varint(&mut records, batch.first_record.0);
            encode_batch(&mut records, &batch.records);
            self.last = batch.last_record();
            let kind = [KIND_RECORDS, KIND_COMMIT][usize::from(begins_commit)];
            self.frame(kind, &records);
            begins_commit = false;
        }
    }

    fn frame(&mut self, kind: u8, content: &[u8]) {
        let before = self.out.len();
        if matches!(kind, KIND_COMMIT | KIND_COMMIT_READ) {
            // How long a frame's head is depends on its length alone.
            let length = content.len() + scan::MARK_BYTES;
            let head = frame_head_bytes(length);
            let mark = scan::mark(self.id, self.segment, self.position + head);
            self.frames
                .write_head(&mut self.out, kind, &[&mark, content]);
            self.out.extend_from_slice(&mark);
        } else {
            self.frames.write_head(&mut self.out, kind, &[content]);
        }
        self.out.extend_from_slice(content);
        self.position += (self.out.len() - before) as u64;
    }

    /// The bytes since the last call.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.out);
        self.digest.update(&bytes);
        bytes
    }

    /// Number of the last record.
    pub fn last(&self) -> RecordNumber {
        self.last
    }

    /// Bytes that it has.
    pub fn bytes(&self) -> u64 {
        self.position
    }

    /// Digest of everything that was taken.
    pub fn digest(&self) -> u128 {
        self.digest.digest128()
    }
}

/// Bytes that precede a payload of `length`: kind, length, check, checksum.
fn frame_head_bytes(length: usize) -> u64 {
    let mut varint = Vec::new();
    put_varint(&mut varint, length as u64);
    6 + varint.len() as u64
}

/// The format of a file that begins like this, once it is known.
fn known_version(preamble: &Preamble, magic: [u8; 8]) -> Result<Option<u16>, JournalError> {
    match preamble.version(magic) {
        Err(Foreign) => Err(JournalError::Foreign),
        Ok(Some(found)) if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&found) => {
            Err(JournalError::Version { found })
        }
        Ok(version) => Ok(version),
    }
}
