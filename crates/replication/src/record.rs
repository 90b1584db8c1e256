//! Records: what the replay log is made of, and their encoding in batches.
//!
//! `docs/log-format.md`, "A batch of records".

mod count;
mod number;

pub use count::InstructionCount;
pub use number::RecordNumber;

use crate::wire::{Fields, WireError, put_bytes, put_varint};

/// The longest input of one record, in bytes.
pub const MAX_INPUT_BYTES: usize = 8 << 20;

/// What takes effect, or is checked, at one instruction count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// An input, encoded by the machine's side: opaque here. At most [`MAX_INPUT_BYTES`].
    Input(Vec<u8>),
    /// At this count the machine had produced so many visible outputs (frames and console bytes
    /// since power-on). Its acknowledgement releases them.
    Marker {
        /// The machine's running count.
        visible_outputs: u64,
    },
    /// The machine's digest at this count.
    Digest(u128),
    /// A piece of the next checkpoint, encoded by the machine's side: opaque here. It changes nothing, and has
    /// the count of the record before. At most [`MAX_INPUT_BYTES`].
    Piece(Vec<u8>),
    /// The machine at this count is what all pieces since the checkpoint before, together, make of it; what
    /// stands here is for the machine's side. At most [`MAX_INPUT_BYTES`].
    Checkpoint(Vec<u8>),
    /// A digest of what the machine wrote to shared disks since the last such record, in order. A machine without
    /// shared disks makes none.
    Written(u128),
}

/// An input or a marker with the instruction count at which it takes effect. Records of equal count
/// take effect in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Retired instructions since power-on.
    pub count: InstructionCount,
    /// What happens there.
    pub body: RecordBody,
}

const TAG_INPUT: u8 = 0;
const TAG_MARKER: u8 = 1;
const TAG_DIGEST: u8 = 2;
/// These two are made where machines are kept alike by their state only.
const TAG_PIECE: u8 = 3;
const TAG_CHECKPOINT: u8 = 4;
/// Made where hosts share a disk.
const TAG_WRITTEN: u8 = 5;

impl Record {
    /// About how many bytes it takes in a batch; never less than it really takes.
    pub fn encoded_size_bound(&self) -> usize {
        match &self.body {
            RecordBody::Input(bytes) | RecordBody::Piece(bytes) | RecordBody::Checkpoint(bytes) => {
                21 + bytes.len()
            }
            RecordBody::Marker { .. } => 21,
            RecordBody::Digest(_) | RecordBody::Written(_) => 27,
        }
    }
}

/// Appends `records` (not empty, counts never falling) to `out`: the first count, then for each
/// record the distance to the count before it, a tag and the body.
pub fn encode_batch(out: &mut Vec<u8>, records: &[Record]) {
    let mut before = records
        .first()
        .map(|record| record.count)
        .unwrap_or_default();
    put_varint(out, before.0);
    for record in records {
        assert!(
            record.count >= before,
            "instruction counts never fall within a batch"
        );
        put_varint(out, record.count.since(before));
        before = record.count;
        match &record.body {
            RecordBody::Input(bytes) => {
                out.push(TAG_INPUT);
                put_bytes(out, bytes);
            }
            RecordBody::Marker { visible_outputs } => {
                out.push(TAG_MARKER);
                put_varint(out, *visible_outputs);
            }
            RecordBody::Digest(digest) => {
                out.push(TAG_DIGEST);
                out.extend_from_slice(&digest.to_le_bytes());
            }
            RecordBody::Piece(bytes) => {
                out.push(TAG_PIECE);
                put_bytes(out, bytes);
            }
            RecordBody::Checkpoint(bytes) => {
                out.push(TAG_CHECKPOINT);
                put_bytes(out, bytes);
            }
            RecordBody::Written(digest) => {
                out.push(TAG_WRITTEN);
                out.extend_from_slice(&digest.to_le_bytes());
            }
        }
    }
}

/// Reads the batch that fills the rest of `fields`.
pub fn decode_batch(fields: &mut Fields<'_>) -> Result<Vec<Record>, WireError> {
    let mut count = InstructionCount(fields.varint()?);
    let mut records = Vec::new();
    while !fields.is_empty() {
        count = count
            .checked_plus(fields.varint()?)
            .ok_or(WireError::Overflow)?;
        let body = match fields.byte()? {
            TAG_INPUT => RecordBody::Input(fields.bytes("an input", MAX_INPUT_BYTES)?.to_vec()),
            TAG_MARKER => RecordBody::Marker {
                visible_outputs: fields.varint()?,
            },
            TAG_DIGEST => RecordBody::Digest(u128::from_le_bytes(fields.array()?)),
            TAG_PIECE => RecordBody::Piece(
                fields
                    .bytes("a checkpoint's piece", MAX_INPUT_BYTES)?
                    .to_vec(),
            ),
            TAG_CHECKPOINT => {
                RecordBody::Checkpoint(fields.bytes("a checkpoint", MAX_INPUT_BYTES)?.to_vec())
            }
            TAG_WRITTEN => RecordBody::Written(u128::from_le_bytes(fields.array()?)),
            tag => {
                return Err(WireError::UnknownTag {
                    what: "record",
                    tag,
                });
            }
        };
        records.push(Record { count, body });
    }
    Ok(records)
}
