//! From a configuration to a machine: images are read, disks opened, the board put together.

use crate::config::{ByteSize, VmConfig};
use crate::disk::{Disk, DiskError};
use crate::host_time;
use machine::boot::{BootError, BootImages};
use machine::bus::{BoardConfig, DiskConfig, NetworkConfig};
use machine::machine::{Machine, MachineConfig, configuration_hash};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a machine cannot be made from its configuration.
#[derive(Debug, Error)]
pub enum SetupError {
    /// An image cannot be read.
    #[error("cannot read the {what} {}: {source}", path.display())]
    Image {
        /// Firmware, kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The images do not make a machine.
    #[error("cannot start the machine: {0}")]
    Boot(#[from] BootError),
    /// An image that cannot fit, or has no end.
    #[error(
        "the {what} {} is larger than the machine's memory of {memory}: give another file or more memory",
        path.display()
    )]
    ImageTooLarge {
        /// Firmware, kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The machine's memory.
        memory: ByteSize,
    },
    /// The host cannot promise so much.
    #[error("memory: this host cannot provide {0}: give the machine less")]
    Memory(ByteSize),
    /// Two uses of the state directory, or none possible.
    #[error("cannot use the state directory {}: {source}", path.display())]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Opens the configured disks for a machine that owns what is on them.
pub fn open_disks(config: &VmConfig) -> Result<Vec<Disk>, DiskError> {
    config
        .disks
        .iter()
        .map(|disk| Disk::open(&disk.path, disk.read_only))
        .collect()
}

/// A machine at power-on.
pub fn power_on(config: &VmConfig, disks: &[Disk]) -> Result<Machine, SetupError> {
    check_memory(config.memory)?;
    let board = board(config, disks.iter().map(Disk::sectors));
    let images = images(config)?;
    let machine_config = MachineConfig {
        board,
        unix_base_ns: host_time::unix_ns(),
    };
    let mut machine = Machine::new(machine_config, &images)?;
    config.engine.drive(&mut machine);
    Ok(machine)
}

/// Asks the host for so much memory and gives it back: where this fails, the machine's own request
/// would end the program.
pub fn check_memory(memory: ByteSize) -> Result<(), SetupError> {
    let length = usize::try_from(memory.0).map_err(|_| SetupError::Memory(memory))?;
    Vec::<u8>::new()
        .try_reserve_exact(length)
        .map_err(|_| SetupError::Memory(memory))
}

fn board(config: &VmConfig, sectors: impl Iterator<Item = u64>) -> BoardConfig {
    let disks = config
        .disks
        .iter()
        .zip(sectors)
        .enumerate()
        .map(|(index, (disk, sectors))| DiskConfig {
            sectors,
            read_only: disk.read_only,
            serial: format!("understudy-{index}"),
        })
        .collect();
    BoardConfig {
        memory_bytes: config.memory.0,
        harts: config.harts,
        network: config
            .network
            .iter()
            .map(|network| NetworkConfig { mac: network.mac.0 })
            .collect(),
        disks,
        virtio_console: config.virtio_console,
        entropy: config.entropy,
        bit_manipulation: config.bit_manipulation,
    }
}

/// What two hosts must agree on before they pair, as a hash: everything of the configuration that
/// the guest sees, but for the length of the disks, which the backup takes from the primary.
pub fn pairing_hash(config: &VmConfig) -> u64 {
    configuration_hash(&board(config, config.disks.iter().map(|_| 0)))
}

fn images(config: &VmConfig) -> Result<BootImages, SetupError> {
    let read = |what, path: &Option<PathBuf>| match path {
        Some(path) => read_image(what, path, config.memory).map(Some),
        None => Ok(None),
    };
    Ok(BootImages {
        firmware: read("firmware", &config.firmware)?,
        kernel: read("kernel", &config.kernel)?,
        initrd: read("initrd", &config.initrd)?,
        command_line: config.command_line.clone(),
    })
}

fn read_image(what: &'static str, path: &Path, memory: ByteSize) -> Result<Vec<u8>, SetupError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(memory.0.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(|source| SetupError::Image {
            what,
            path: path.into(),
            source,
        })?;
    if bytes.len() as u64 > memory.0 {
        return Err(SetupError::ImageTooLarge {
            what,
            path: path.into(),
            memory,
        });
    }
    Ok(bytes)
}

/// Makes the state directory when it is absent.
pub fn state_directory(path: &Path) -> Result<(), SetupError> {
    std::fs::create_dir_all(path).map_err(|source| SetupError::StateDirectory {
        path: path.into(),
        source,
    })
}
