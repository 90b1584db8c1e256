//! Looks whether a file is whole and fits, and puts what is in it where a machine begins from.

use super::restored::write_machine;
use super::source::{MachineBytes, SnapshotFileError, SnapshotSource};
use crate::config::{DiskFile, ReplicaConfig};
use crate::disk::{Disk, DiskError, SECTOR_BYTES};
use crate::machines::Machines;
use environment::fs::{self, File, Kind};
use machine::Machine;
use replication::snapshot_file::FilePart;
use replication::succession::Entry;
use std::io;
use std::path::Path;
use thiserror::Error;

/// Why what is in a file is not where it should be.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The file.
    #[error(transparent)]
    File(#[from] SnapshotFileError),
    /// A disk that cannot be one, or be so long.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A disk does not take it, or the state directory.
    #[error("{what}: {source}")]
    Write {
        /// Where.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// Looks whether the file is of a machine of this configuration, and whole to its end: the machine is made of it, and
/// dropped again. `progress` is told how many bytes of how many were read.
///
/// # Errors
/// What differs, or is damaged.
pub fn check(
    path: &Path,
    config: &ReplicaConfig,
    machines: &dyn Machines,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), SnapshotFileError> {
    let mut source = SnapshotSource::open(path)?;
    check_kind(&source, config, machines)?;
    let machine = machines.restore(&mut MachineBytes::of(&mut source));
    let machine = machine.map_err(|error| other(path, error.to_string()))?;
    check_board(&source, &*machine)?;
    drop(machine);
    while let Some((part, packed)) = source.next_packed()? {
        source.unpack(part, &packed)?;
        let (at, length) = source.progress();
        progress(at, length);
    }
    Ok(())
}

fn other(path: &Path, why: String) -> SnapshotFileError {
    let path = path.to_owned();
    SnapshotFileError::Other { path, why }
}

/// Whether this program computes it, and the configuration is that of the file.
fn check_kind(
    source: &SnapshotSource,
    config: &ReplicaConfig,
    machines: &dyn Machines,
) -> Result<(), SnapshotFileError> {
    let head = source.head();
    if head.machine.as_str() != config.name {
        let why = format!(
            "it is of machine {:?}, and this configuration is of {:?}",
            head.machine.as_str(),
            config.name
        );
        return Err(other(source.path(), why));
    }
    let differences = machines.configuration().differences(&head.configuration);
    let ours = machines.semantics_version();
    if head.semantics_version != ours {
        let (theirs, build) = (head.semantics_version, head.build.as_str());
        let mut why = format!(
            "it is of a machine that computes semantics version {theirs}, and this program computes version \
             {ours}: use the program that took it ({build})"
        );
        if let Some(arch) = differences.iter().find(|found| found.key == "arch") {
            why = format!("it is of another machine: {}", arch.describe("the file"));
        }
        return Err(other(source.path(), why));
    }
    if !differences.is_empty() {
        let told = differences.iter().map(|found| found.describe("the file"));
        let told: Vec<String> = told.collect();
        let why = format!(
            "it is of a machine that is configured otherwise; configure this one alike: {}",
            told.join("; ")
        );
        return Err(other(source.path(), why));
    }
    if head.disks.len() != config.disks.len() {
        let (theirs, ours) = (head.disks.len(), config.disks.len());
        let why = format!("it has {theirs} disks, and the configuration {ours}");
        return Err(other(source.path(), why));
    }
    check_devices(source, config)
}

/// A machine that starts from a block device has all of it as its disk.
fn check_devices(source: &SnapshotSource, config: &ReplicaConfig) -> Result<(), SnapshotFileError> {
    for (file, length) in config.disks.iter().zip(&source.head().disks) {
        let is_device = matches!(fs::look_at(&file.path), Ok((Kind::BlockDevice, _)));
        let device = File::open(&file.path).and_then(|file| file.length());
        if let (true, Ok(device)) = (is_device, device)
            && device != *length
        {
            let path = file.path.display();
            let why = format!("its disk has {length} bytes, and the device {path} has {device}");
            return Err(other(source.path(), why));
        }
    }
    Ok(())
}

/// The machine's disks are as long as those in the file.
fn check_board(source: &SnapshotSource, machine: &dyn Machine) -> Result<(), SnapshotFileError> {
    let disks = machine.board().disks.iter();
    let lengths = disks.map(|disk| disk.sectors.saturating_mul(SECTOR_BYTES));
    if lengths.eq(source.head().disks.iter().copied()) {
        return Ok(());
    }
    let why = "its machine has disks of other lengths than those that are in it";
    Err(other(source.path(), why.into()))
}

/// Writes the disks where the configuration says, and the machine into the state directory, for the life that was
/// begun by this key: durably. What was on the disks is overwritten.
///
/// # Errors
/// The file changed meanwhile, or something here does not take it.
pub fn place(
    path: &Path,
    config: &ReplicaConfig,
    begun: &Entry,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), PlaceError> {
    let mut source = SnapshotSource::open(path)?;
    let files = config.disks.iter().zip(&source.head().disks);
    let disks = files.map(|(file, length)| {
        // Whoever restores has said that it may go.
        let file = DiskFile {
            may_be_overwritten: true,
            ..file.clone()
        };
        Disk::for_copy(&file, *length, &config.state_directory)
    });
    let disks: Vec<Disk> = disks.collect::<Result<_, _>>()?;
    write_machine(&mut source, &config.state_directory, begun)?;
    while let Some((part, packed)) = source.next_packed()? {
        let bytes = source.unpack(part, &packed)?;
        write_part(&disks, config, part, &bytes)?;
        let (at, length) = source.progress();
        progress(at, length);
    }
    for (disk, file) in disks.iter().zip(&config.disks) {
        let synced = disk.sync();
        synced.map_err(|source| failed(&file.path, source))?;
    }
    Ok(())
}

fn failed(path: &Path, source: io::Error) -> PlaceError {
    let what = path.display().to_string();
    PlaceError::Write { what, source }
}

fn write_part(
    disks: &[Disk],
    config: &ReplicaConfig,
    part: FilePart,
    bytes: &[u8],
) -> Result<(), PlaceError> {
    let (FilePart::Disk { device, from, .. } | FilePart::Hole { device, from, .. }) = part else {
        return Ok(());
    };
    let device = usize::from(device);
    // The reader has seen that there is such a disk.
    let (Some(disk), Some(file)) = (disks.get(device), config.disks.get(device)) else {
        return Ok(());
    };
    let written = match part {
        FilePart::Hole { to, .. } => disk.zero_copied(from, to - from),
        _ => disk.write_copied(from, bytes),
    };
    written.map_err(|source| failed(&file.path, source))
}
