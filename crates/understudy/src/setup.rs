//! From a configuration to a machine: images are read, disks opened, the board put together.

use crate::config::{ByteSize, VmConfig};
use machine::config::{BoardConfig, BootImages, DiskConfig, MachineConfig, NetworkConfig};
use machine::{Failure, Machine};
use replica::disk::Disk;
use replica::host_time;
use replica::machines::Machines;
use std::collections::BTreeSet;
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
    /// There is no such machine, or the images do not make one.
    #[error("cannot start the machine: {0}")]
    PowerOn(Failure),
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
    /// The board has nothing by which the guest could say that it panicked.
    #[error(
        "on_panic: a guest of this architecture has no way to say that it panicked: leave it out, or write \"report\""
    )]
    PanicPolicy,
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
        let sectors = self.0.disks.iter().map(|_| 0);
        let config = machine_config(&self.0, sectors, 0);
        let hash = self.0.arch.configuration_hash(&config);
        hash.expect("a configuration asks for features that there are")
    }

    fn check(&self) -> Result<(), Failure> {
        let files = named_images(&self.0);
        for (what, path) in files {
            if let Some(path) = path {
                File::open(path).map_err(|source| SetupError::Image {
                    what,
                    path: path.into(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn power_on(&self, disks: &[Disk]) -> Result<Box<dyn Machine>, Failure> {
        Ok(power_on(&self.0, disks)?)
    }

    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, Failure> {
        Ok(self.0.arch.restore_from(snapshot, self.0.engine)?)
    }
}

/// A machine at power-on.
pub fn power_on(config: &VmConfig, disks: &[Disk]) -> Result<Box<dyn Machine>, SetupError> {
    check_memory(ByteSize(config.arch.host_memory(config.memory.0)))
        .map_err(|_| SetupError::Memory(config.memory))?;
    let images = images(config)?;
    let sectors = disks.iter().map(Disk::sectors);
    let machine_config = machine_config(config, sectors, host_time::unix_ns());
    let machine = config
        .arch
        .power_on(&machine_config, &images, config.engine);
    let mut machine = machine.map_err(SetupError::PowerOn)?;
    if !machine.set_panic_policy(config.on_panic) {
        return Err(SetupError::PanicPolicy);
    }
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

fn machine_config(
    config: &VmConfig,
    sectors: impl Iterator<Item = u64>,
    unix_base_ns: u64,
) -> MachineConfig {
    MachineConfig {
        board: board(config, sectors),
        features: features(config),
        unix_base_ns,
    }
}

fn features(config: &VmConfig) -> BTreeSet<String> {
    let mut without = config.without_extensions.clone();
    if !config.bit_manipulation {
        without.insert("bit-manipulation".into());
    }
    config.arch.features(&without)
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
        transport: config.transport(),
    }
}

/// What the configuration names besides disks.
fn named_images(config: &VmConfig) -> [(&'static str, &Option<PathBuf>); 3] {
    [
        ("firmware", &config.firmware),
        ("kernel", &config.kernel),
        ("initrd", &config.initrd),
    ]
}

fn images(config: &VmConfig) -> Result<BootImages, SetupError> {
    let read = |(what, path): (&'static str, &Option<PathBuf>)| match path {
        Some(path) => read_image(what, path, config.memory).map(Some),
        None => Ok(None),
    };
    let [firmware, kernel, initrd] = named_images(config);
    Ok(BootImages {
        firmware: read(firmware)?,
        kernel: read(kernel)?,
        initrd: read(initrd)?,
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
