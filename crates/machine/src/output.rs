//! Everything that the machine wants the world to see or do.

use crate::input::Console;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a disk is asked to do. Sectors are 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskOperation {
    /// Read `length` bytes from `sector` on.
    Read {
        /// First sector.
        sector: u64,
        /// Bytes; a multiple of 512.
        length: u32,
    },
    /// Write `data` from `sector` on.
    Write {
        /// First sector.
        sector: u64,
        /// A multiple of 512 bytes.
        #[serde(with = "crate::byte_string")]
        data: Vec<u8>,
    },
    /// Make all completed writes durable.
    Flush,
    /// Forget (VIRTIO_BLK_T_DISCARD) or zero (VIRTIO_BLK_T_WRITE_ZEROES) `sectors` sectors.
    Zero {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        sectors: u64,
    },
}

/// A request to a disk. It is idempotent, and stays open until its completion is injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRequest {
    /// Index among the machine's disks.
    pub device: u8,
    /// Number of the request, counted from 0 for each disk since power-on.
    pub request: u64,
    /// What to do.
    pub operation: DiskOperation,
}

/// How the guest ended the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finish {
    /// `FINISHER_PASS` (0x5555): power off, exit status 0.
    PowerOff,
    /// `FINISHER_FAIL` (0x3333): power off with this exit status.
    Fail(u16),
    /// `FINISHER_RESET` (0x7777), of a machine that does not begin anew.
    Reset,
    /// The guest's kernel panicked, and the machine is to stop then.
    Panicked,
}

/// What a guest got into of which its operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// Its kernel panicked.
    Panicked,
    /// Its watchdog was not reloaded in time, and resets the machine.
    WatchdogEnded,
    /// One of its drivers did what the device's specification forbids: the device does nothing until it is
    /// reset.
    DriverFault {
        /// What the device is.
        device: String,
        /// What the driver did.
        fault: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Panicked => f.write_str("the guest's kernel panicked"),
            Trouble::WatchdogEnded => f.write_str(
                "the guest did not reload its watchdog in time, which resets the machine",
            ),
            Trouble::DriverFault { device, fault } => write!(
                f,
                "the guest's driver of its {device} made a mistake, and the device stands still until \
                 it is reset: {fault}"
            ),
        }
    }
}

/// What leaves the machine, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// An Ethernet frame (without FCS) from network device `device`.
    NetworkFrame {
        /// Index among the machine's network devices.
        device: u8,
        /// Destination, source, type, payload.
        #[serde(with = "crate::byte_string")]
        frame: Vec<u8>,
    },
    /// Bytes printed at a console. Bytes that follow each other are put together.
    ConsoleBytes {
        /// Which console.
        console: Console,
        /// The bytes.
        #[serde(with = "crate::byte_string")]
        bytes: Vec<u8>,
    },
    /// A disk request; not visible outside where each side has its own disk.
    Disk(DiskRequest),
    /// The entropy device wants up to this many random bytes as an `Input::Entropy`.
    EntropyRequest {
        /// How many bytes.
        length: u32,
    },
    /// The guest ended the machine. Nothing comes after it.
    Finish(Finish),
    /// The guest reset the machine, which has begun anew. Not visible outside: for people.
    Reboot,
    /// The guest is in trouble. Not visible outside: for people.
    Trouble(Trouble),
}

/// The outputs that nobody has collected yet, and how many there ever were.
///
/// Part of the machine's state: `visible` counts the frames and console bytes since power-on, the
/// same on every replica at the same instruction count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    visible: u64,
    #[serde(skip)]
    waiting: Vec<Output>,
}

impl Outputs {
    /// Adds a frame.
    pub fn network_frame(&mut self, device: u8, frame: Vec<u8>) {
        self.visible += 1;
        self.waiting.push(Output::NetworkFrame { device, frame });
    }

    /// Adds one console byte.
    pub fn console_byte(&mut self, console: Console, byte: u8) {
        self.visible += 1;
        if let Some(Output::ConsoleBytes {
            console: last,
            bytes,
        }) = self.waiting.last_mut()
            && *last == console
        {
            bytes.push(byte);
        } else {
            self.waiting.push(Output::ConsoleBytes {
                console,
                bytes: vec![byte],
            });
        }
    }

    /// Adds a disk request, an entropy request, trouble, a reboot or the end.
    pub fn other(&mut self, output: Output) {
        debug_assert!(!matches!(
            output,
            Output::NetworkFrame { .. } | Output::ConsoleBytes { .. }
        ));
        self.waiting.push(output);
    }

    /// Frames and console bytes since power-on.
    pub fn visible(&self) -> u64 {
        self.visible
    }

    /// Takes what waits.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether anything waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether something waits that should not wait for the end of a quantum: anything but console
    /// bytes.
    pub fn is_urgent(&self) -> bool {
        self.waiting
            .iter()
            .any(|o| !matches!(o, Output::ConsoleBytes { .. }))
    }
}
