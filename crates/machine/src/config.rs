//! What machines of every architecture are made from.

use crate::memory::PAGE_SIZE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// What a machine is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Memory, harts and devices.
    pub board: BoardConfig,
    /// What the harts have beyond the architecture's base, by the names that the architecture gives
    /// it.
    pub features: BTreeSet<String>,
    /// Unix time at power-on, in nanoseconds: what the RTC begins with.
    pub unix_base_ns: u64,
}

/// Every board has one.
const POWER_BUTTONS: usize = 1;

/// What the board is made of.
///
/// Virtio devices come in this order: disks, network devices, console, entropy, power button, which every
/// board has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardConfig {
    /// RAM in bytes, a multiple of 4096.
    pub memory_bytes: u64,
    /// Number of harts: as many as the architecture's board has room for, one at least.
    pub harts: u32,
    /// The network devices.
    pub network: Vec<NetworkConfig>,
    /// The disks.
    pub disks: Vec<DiskConfig>,
    /// Whether there is a virtio console.
    pub virtio_console: bool,
    /// Whether there is an entropy device.
    pub entropy: bool,
    /// How the virtio devices are reached.
    pub transport: Transport,
}

/// How virtio devices are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// By registers in memory, at places that the board's tables name.
    #[default]
    Mmio,
    /// As functions of a PCI bus.
    Pci,
}

/// What becomes of a machine whose guest's kernel panicked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PanicPolicy {
    /// It is told, and the machine goes on.
    #[default]
    Report,
    /// The machine begins anew.
    Reboot,
    /// The machine ends.
    Stop,
}

/// What an architecture's board has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoardLimits {
    /// RAM at most, in bytes.
    pub memory_bytes: u64,
    /// Harts at most.
    pub harts: u32,
    /// Virtio devices at most.
    pub virtio_devices: usize,
}

/// A board that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoardConfigError {
    /// No RAM, too much, or a broken page.
    #[error(
        "{bytes} bytes of memory: give a multiple of 4096, at least 4096 and at most \
         {at_most}"
    )]
    Memory {
        /// What was given.
        bytes: u64,
        /// What the board has room for.
        at_most: u64,
    },
    /// No hart, or too many.
    #[error("{harts} harts: give 1 to {at_most}")]
    Harts {
        /// What was given.
        harts: u32,
        /// What the board has room for.
        at_most: u32,
    },
    /// More virtio devices than slots.
    #[error(
        "{devices} virtio devices (disks, network devices, console, entropy, power button), but the \
         board has {slots} slots: leave some out"
    )]
    TooManyDevices {
        /// What was given.
        devices: usize,
        /// What the board has room for.
        slots: usize,
    },
    /// A disk whose size in bytes is no 64-bit number.
    #[error("disk {disk} has {sectors} sectors of 512 bytes, which is more than 2^63 bytes")]
    DiskTooLarge {
        /// Index of the disk.
        disk: usize,
        /// What was given.
        sectors: u64,
    },
    /// A MAC address that is no station's.
    #[error(
        "network device {device} has a group or zero MAC address: give a unicast one, for example \
         52:54:00:00:00:01"
    )]
    Mac {
        /// Index of the network device.
        device: usize,
    },
}

impl BoardConfig {
    /// Checks that a board of such limits can be built.
    ///
    /// # Errors
    /// It cannot.
    pub fn validate(&self, limits: &BoardLimits) -> Result<(), BoardConfigError> {
        let bytes = self.memory_bytes;
        if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) || bytes > limits.memory_bytes {
            let at_most = limits.memory_bytes;
            return Err(BoardConfigError::Memory { bytes, at_most });
        }
        if self.harts == 0 || self.harts > limits.harts {
            let (harts, at_most) = (self.harts, limits.harts);
            return Err(BoardConfigError::Harts { harts, at_most });
        }
        let devices = self.disks.len()
            + self.network.len()
            + usize::from(self.virtio_console)
            + usize::from(self.entropy)
            + POWER_BUTTONS;
        if devices > limits.virtio_devices {
            let slots = limits.virtio_devices;
            return Err(BoardConfigError::TooManyDevices { devices, slots });
        }
        if let Some(disk) = self.disks.iter().position(|d| d.sectors >= 1 << 54) {
            let sectors = self.disks[disk].sectors;
            return Err(BoardConfigError::DiskTooLarge { disk, sectors });
        }
        let station = |mac: &[u8; 6]| mac[0] & 1 == 0 && *mac != [0; 6];
        if let Some(device) = self.network.iter().position(|n| !station(&n.mac)) {
            return Err(BoardConfigError::Mac { device });
        }
        Ok(())
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Capacity in sectors of 512 bytes.
    pub sectors: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Its identity, of which the guest sees the first 20 bytes.
    pub serial: String,
}

/// What is loaded at power-on. Which formats there are, and where what begins without a firmware, is
/// the architecture's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootImages {
    /// Firmware.
    pub firmware: Option<Vec<u8>>,
    /// A kernel, or another program.
    pub kernel: Option<Vec<u8>>,
    /// Initial RAM disk for the kernel.
    pub initrd: Option<Vec<u8>>,
    /// The kernel's command line.
    pub command_line: String,
}
