//! From a configuration to a machine: images are read, disks opened, the board put together.

use crate::config::{ByteSize, VmConfig};
use machine::boot::{BootError, BootImages};
use machine::bus::{BoardConfig, DiskConfig, NetworkConfig};
use machine::machine::MachineConfig;
use replica::disk::Disk;
use replica::host_time;
use replica::machines::{MachineError, Machines};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;
use x86::machine::PowerOnError;

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
    /// The images do not make a machine.
    #[error("cannot start the machine: {0}")]
    Boot(#[from] BootError),
    /// The images do not make an x86-64 machine, or there is no such machine.
    #[error("cannot start the machine: {0}")]
    PowerOn(#[from] PowerOnError),
    /// Firmware is for RISC-V.
    #[error("firmware: an x86-64 machine takes none, its kernel is entered directly: leave it out")]
    Firmware,
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
}

/// The machine of one configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredMachine(pub VmConfig);

impl Machines for ConfiguredMachine {
    fn semantics_version(&self) -> u32 {
        self.0.arch.semantics_version()
    }

    fn configuration_hash(&self) -> u64 {
        let board = board(&self.0, self.0.disks.iter().map(|_| 0));
        self.0.arch.configuration_hash(&board)
    }

    fn power_on(&self, disks: &[Disk]) -> Result<Box<dyn replica::Machine>, MachineError> {
        Ok(power_on(&self.0, disks)?)
    }

    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn replica::Machine>, MachineError> {
        Ok(self.0.arch.restore_from(snapshot, self.0.engine)?)
    }
}

/// A machine at power-on.
pub fn power_on(
    config: &VmConfig,
    disks: &[Disk],
) -> Result<Box<dyn replica::Machine>, SetupError> {
    check_memory(config.memory)?;
    let board = board(config, disks.iter().map(Disk::sectors));
    let images = images(config)?;
    let machine_config = MachineConfig {
        board,
        unix_base_ns: host_time::unix_ns(),
    };
    config.arch.power_on(machine_config, images, config.engine)
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
