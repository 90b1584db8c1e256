//! Everything that reaches the machine from outside.

use serde::{Deserialize, Serialize};
use thiserror::Error;

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
        #[serde(with = "crate::byte_string")]
        frame: Vec<u8>,
    },
    /// Bytes typed at a console.
    ConsoleBytes {
        /// Which console.
        console: Console,
        /// The bytes.
        #[serde(with = "crate::byte_string")]
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
        #[serde(with = "crate::byte_string")]
        data: Vec<u8>,
    },
    /// Random bytes for the entropy device, as many as it asked for at most.
    Entropy {
        /// The bytes.
        #[serde(with = "crate::byte_string")]
        bytes: Vec<u8>,
    },
    /// A clock record.
    Clock(ClockRecord),
    /// The real-time clock shows guest time and this from now on. Guest time itself goes on as it was.
    Calendar {
        /// Unix time at guest time 0, in nanoseconds.
        unix_base_ns: u64,
    },
    /// Somebody presses the power button: the guest is asked to power off.
    PowerButton,
    /// Somebody presses the reset button: the machine begins anew, as when the guest resets it.
    ResetButton,
    /// The machine stands still from here on: it executes nothing until [`Input::Resume`].
    Pause,
    /// The machine goes on.
    Resume,
}

/// An input that this machine cannot take. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InputError {
    /// The machine has no such device.
    #[error("there is no {kind} {device} in this machine")]
    NoSuchDevice {
        /// What kind of device.
        kind: &'static str,
        /// Its index.
        device: u8,
    },
    /// The completion of a disk request that is not open.
    #[error("disk {device} has no open request {request}")]
    UnknownDiskRequest {
        /// Index of the disk.
        device: u8,
        /// Number of the request.
        request: u64,
    },
    /// The completion of a disk request with too much or too little data.
    #[error("request {request} of disk {device} needs {expected} bytes of data, not {found}")]
    DiskDataLength {
        /// Index of the disk.
        device: u8,
        /// Number of the request.
        request: u64,
        /// Bytes that the request reads.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// Random bytes that were not asked for, or not so many.
    #[error("{found} random bytes came, but {requested} at most (and at least one) were asked for")]
    Entropy {
        /// Bytes that were asked for; 0 if none were.
        requested: u32,
        /// Bytes that came.
        found: u64,
    },
    /// A clock record, which is for the machine and not for its devices.
    #[error("a clock record is no input of a device")]
    Clock,
}
