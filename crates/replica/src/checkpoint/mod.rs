//! Checkpoints of a machine whose backups execute nothing: what they hold, and how that is spelt.
//! `docs/decisions/state-transfer.md`.
//!
//! A checkpoint is some pieces and their end. A piece is its number in the checkpoint (a varint; the first
//! is 0), the length of what follows before it was compressed (a varint), and that, compressed by zstd: items,
//! each of a tag and
//!
//! - 1: a page's index (u32) and its bytes;
//! - 2: a page's index and the exclusive or of its bytes with those of the checkpoint in which it came last;
//! - 3: the index of a page of zeros;
//! - 4: a length (varint) and the next so many bytes of the [`Moment`], in postcard's encoding.
//!
//! The end is the number of pieces and the XXH3-64 of all items (postcard).

mod held;
mod packing;

#[cfg(test)]
use held::CheckpointError;
pub use held::HeldCheckpoint;
pub use packing::Packer;
pub(crate) use packing::Work;

use machine::output::{DiskRequest, Output};
use replication::record::InstructionCount;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The format of what is in the pieces: hosts pair only where it is the same.
pub const FORMAT: &str = "state-transfer";

/// A piece is compressed when its items have so many bytes, so that it is one message of the channel.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// …and no piece has more: an item more than its limit.
const MOST_PIECE_BYTES: usize = PIECE_BYTES + (64 << 10);
/// Bytes of the moment in one item.
const MOMENT_BYTES: usize = 32 << 10;

const TAG_PAGE: u8 = 1;
const TAG_DELTA: u8 = 2;
const TAG_ZERO: u8 = 3;
const TAG_MOMENT: u8 = 4;

/// Everything of a checkpoint but pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Harts and devices, as the machine encodes them.
    pub state: Vec<u8>,
    /// What the guest's requests to its disks did whose end it was told since the checkpoint before, in the order
    /// in which it made them.
    pub writes: Vec<DiskRequest>,
    /// What the outside can see of the time since then, in order.
    pub outputs: Vec<Output>,
    /// Entropy requests that were not answered.
    pub entropy: Vec<u32>,
}

/// What ends a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    pieces: u32,
    hash: u64,
}

/// Where and when a checkpoint was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The instruction count.
    pub count: InstructionCount,
    /// The machine's visible outputs.
    pub visible: u64,
    /// Its digest, where it is to be compared.
    pub digest: Option<u128>,
    /// Buttons that had taken effect.
    pub presses: Vec<u64>,
    /// How long its outputs had waited for it, on average.
    pub waited: Duration,
}

#[cfg(test)]
mod tests;
