//! Everything that reaches the machine from outside.

use serde::{Deserialize, Serialize};

/// Retired instructions since power-on over all harts; the only time that the machine knows.
///
/// An instruction that raises an exception counts as one too, so that every step of a guest
/// advances the count (`docs/decisions/instruction-count.md`).
pub type InstructionCount = u64;

/// How guest time follows from the instruction count, from here on.
///
/// `guest_time(count) = time_ns + ((count - count_of_this_record) * rate) >> 32`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// Guest time at this record, in nanoseconds since power-on. Never before the guest time that
    /// the previous record gives for the same instruction count.
    pub time_ns: u64,
    /// Nanoseconds per instruction, as a fixed-point number with 32 fractional bits.
    pub rate: u64,
}

/// Which console a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Console {
    /// The 16550 UART (`ttyS0`).
    Uart,
    /// The virtio console (`hvc0`).
    Virtio,
}

/// How a disk request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskStatus {
    /// The request was carried out.
    Ok,
    /// The host could not carry it out (VIRTIO_BLK_S_IOERR).
    IoError,
    /// The host does not know such a request (VIRTIO_BLK_S_UNSUPP).
    Unsupported,
}

/// Anything from outside. It takes effect exactly at the instruction count at which it is injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// An Ethernet frame (without FCS) for network device `device` (0 for the first).
    NetworkFrame {
        /// Index among the machine's network devices.
        device: u8,
        /// Destination, source, type, payload.
        frame: Vec<u8>,
    },
    /// Bytes typed at a console.
    ConsoleBytes {
        /// Which console.
        console: Console,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A disk request ended. For a read that ended well `data` holds what was read, for all else
    /// it is empty. (The replay log leaves the data out where each side has its own disk.)
    DiskCompletion {
        /// Index among the machine's disks.
        device: u8,
        /// The request's number, as in the [`DiskRequest`](crate::output::DiskRequest).
        request: u64,
        /// How it ended.
        status: DiskStatus,
        /// What was read.
        data: Vec<u8>,
    },
    /// Random bytes for the entropy device, as many as it asked for at most.
    Entropy {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A clock record.
    Clock(ClockRecord),
}
