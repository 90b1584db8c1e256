//! The disks' back-end: image files on this host.

pub mod blank;
mod copy;
pub mod copy_place;
mod digesting;
mod error;
mod freezing;
pub(crate) mod held;
mod medium;
mod open_images;
mod opening;
pub mod overlay;
pub mod probe;
pub mod shared;
pub(crate) mod standing;
mod worker;

pub use copy::{CHUNK_BYTES, Content, CopiedPart, DiskChunk};
pub use digesting::{DigestError, Digesting, Window, windows};
pub use error::DiskError;
pub use freezing::Freezing;
pub use opening::{length_of, sync_file};
pub use worker::{Completion, DiskThread, PassAhead, copied_parts};

use crate::config::DiskFile;
use environment::fs::OpenOptions;
use machine::input::DiskStatus;
use machine::output::DiskOperation;
use medium::Medium;
use overlay::{Begun, LayerId};
use shared::SharedFile;
use standing::Standing;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes that one request may move; the machine's device allows no more.
const REQUEST_LIMIT: u64 = 16 << 20;

/// One image, locked against a second user.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    medium: Medium,
    length: u64,
    read_only: bool,
    /// What its layers are named after, where there may be some.
    overlay_base: Option<PathBuf>,
    /// That its file is where it was, and as long; none of one that all hosts reach, for which others are responsible too.
    _standing: Option<Standing>,
}

/// Disks that a journal goes on with, as they were at its snapshot, and the layers of those that can be
/// written.
pub type BegunDisks = (Vec<Disk>, Vec<Option<Begun>>);

/// What came of an operation: the status for the guest, and for an error its text for people.
#[derive(Debug)]
pub struct Outcome {
    /// For the guest.
    pub status: DiskStatus,
    /// What was read.
    pub data: Vec<u8>,
    /// How this host failed it: another host's disk may well do the same. `None` when it went well,
    /// or when no disk would do it.
    pub host_error: Option<String>,
}

impl Disk {
    /// Opens the configured disks for a machine that owns what is on them: all that a machine before it
    /// wrote is in the images then. What belongs to a block device is in `state_directory`, if there is
    /// one.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub fn open_all(
        files: &[DiskFile],
        state_directory: Option<&Path>,
    ) -> Result<Vec<Disk>, DiskError> {
        let open = |file: &DiskFile| {
            if file.is_shared {
                let disk = Disk::shared(file)?;
                disk.shared_file()
                    .map_or(Ok(()), |shared| shared.take(false))?;
                return Ok(disk);
            }
            let disk = Disk::open(file)?.overlaid(state_directory);
            if let Some(base) = disk.overlay_base.as_ref().filter(|_| !disk.read_only) {
                overlay::merge_all(base, &disk)?;
            }
            Ok(disk)
        };
        files.iter().map(open).collect()
    }

    /// Opens the configured disks as they were at a journal's snapshot.
    ///
    /// # Errors
    /// The first one that cannot be used, or that cannot be made so.
    pub fn open_at_snapshot(
        files: &[DiskFile],
        state_directory: &Path,
        id: LayerId,
    ) -> Result<BegunDisks, DiskError> {
        let mut opened = BegunDisks::default();
        for file in files {
            let disk = Disk::open(file)?.overlaid(Some(state_directory));
            let base = disk.overlay_base.as_ref().filter(|_| !disk.read_only);
            let begun = base.map(|base| overlay::begin_again(base, &disk, id));
            opened.1.push(begun.transpose()?);
            opened.0.push(disk);
        }
        Ok(opened)
    }

    /// Has its layers where they last: see [`overlay::base`].
    pub fn overlaid(mut self, state_directory: Option<&Path>) -> Disk {
        if let Some(state_directory) = state_directory {
            self.overlay_base = Some(overlay::base(&self.path, state_directory));
        }
        self
    }

    /// Opens an image.
    ///
    /// # Errors
    /// Why it cannot be a disk.
    pub fn open(file: &DiskFile) -> Result<Disk, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(!file.read_only);
        opening::open(file, &options, None, || Ok(()))
    }

    /// Opens the backup's copy of a disk of `length` bytes, in which what differs will be overwritten: makes
    /// the file when it is absent, cuts it or adds zeros otherwise. What a journal left beside it goes, once
    /// nobody else can have the disk.
    ///
    /// # Errors
    /// Why it cannot be a disk.
    pub fn for_copy(
        file: &DiskFile,
        length: u64,
        state_directory: &Path,
    ) -> Result<Disk, DiskError> {
        let base = overlay::base(&file.path, state_directory);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let is_ours = || Ok(overlay::remove_all(&base)?);
        let disk = opening::open(file, &options, Some(length), is_ours)?;
        Ok(disk.overlaid(Some(state_directory)))
    }

    /// A disk that all hosts reach, which is taken when its machine goes live.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn shared(file: &DiskFile) -> Result<Disk, DiskError> {
        let shared = SharedFile::look(file)?;
        Ok(opening::of_shared(file, shared))
    }

    /// What all hosts reach of it, if they do.
    pub fn shared_file(&self) -> Option<&SharedFile> {
        match &self.medium {
            Medium::Shared(shared) => Some(shared),
            Medium::Raw(_) | Medium::Qcow2(..) => None,
        }
    }

    /// Bytes that a backup's host has a copy of.
    pub fn copied_bytes(&self) -> u64 {
        match self.shared_file() {
            Some(_) => 0,
            None => self.length,
        }
    }

    /// Looks whether an image can be opened as a disk, without taking it.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(file: &DiskFile) -> Result<(), DiskError> {
        opening::check(file)
    }

    /// Number of sectors.
    pub fn sectors(&self) -> u64 {
        self.length / SECTOR_BYTES
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether the guest may not write.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Carries out an operation. Whoever tells the guest of an error may look first whether another
    /// host's disk is better.
    pub fn perform(&self, operation: &DiskOperation) -> Outcome {
        self.outcome(operation, self.try_perform(operation))
    }

    fn outcome(&self, operation: &DiskOperation, done: io::Result<Vec<u8>>) -> Outcome {
        match done {
            Ok(data) => Outcome {
                status: DiskStatus::Ok,
                data,
                host_error: None,
            },
            Err(error) => Outcome {
                status: DiskStatus::IoError,
                data: Vec::new(),
                host_error: (!is_guests_fault(&error)).then(|| {
                    let path = self.path.display();
                    format!("disk {path}: {}: {error}", name(operation))
                }),
            },
        }
    }

    fn try_perform(&self, operation: &DiskOperation) -> io::Result<Vec<u8>> {
        match operation {
            DiskOperation::Read { sector, length } => {
                let offset = self.range(*sector, u64::from(*length))?;
                let mut data = vec![0; *length as usize];
                self.medium.read(&mut data, offset)?;
                Ok(data)
            }
            DiskOperation::Write { sector, data } => {
                let offset = self.range(*sector, data.len() as u64)?;
                self.writable()?;
                self.medium.write(data, offset)?;
                Ok(Vec::new())
            }
            DiskOperation::Flush => self.medium.sync().map(|()| Vec::new()),
            DiskOperation::Zero { sector, sectors } => {
                let bytes = sectors.checked_mul(SECTOR_BYTES).ok_or_else(outside)?;
                let offset = self.checked_range(*sector, bytes)?;
                self.writable()?;
                self.medium.zero(offset, bytes).map(|()| Vec::new())
            }
        }
    }

    /// Writes bytes of the primary's disk into this copy.
    pub fn write_copied(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.medium.write(bytes, offset)
    }

    /// Makes bytes of this copy zero.
    pub fn zero_copied(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.check_range(offset, bytes)?;
        self.medium.zero(offset, bytes)
    }

    /// Reads what is there, without a request of the guest's.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        self.medium.read(buffer, offset)
    }

    /// Where there may be something else than zeros, at or after `offset`: the disk's length if nothing
    /// follows.
    pub fn next_data(&self, offset: u64) -> u64 {
        let data = self.medium.next_data(offset);
        data.map_or(self.length, |data| data.min(self.length))
    }

    /// What is read from here on is what is on the disk for good.
    ///
    /// # Errors
    /// The disk does not take what was written to it.
    pub fn settle(&self) -> io::Result<()> {
        self.sync()?;
        self.medium.forget_cached();
        Ok(())
    }

    /// Makes everything durable.
    pub fn sync(&self) -> io::Result<()> {
        self.medium.sync_all()
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        } else {
            Ok(())
        }
    }

    fn range(&self, sector: u64, bytes: u64) -> io::Result<u64> {
        if bytes > REQUEST_LIMIT || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a request of a wrong length",
            ));
        }
        self.checked_range(sector, bytes)
    }

    fn check_range(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes).ok_or_else(outside)?;
        (end <= self.length).then_some(()).ok_or_else(outside)
    }

    fn checked_range(&self, sector: u64, bytes: u64) -> io::Result<u64> {
        let offset = sector.checked_mul(SECTOR_BYTES).ok_or_else(outside)?;
        let end = offset.checked_add(bytes).ok_or_else(outside)?;
        if end > self.length {
            Err(outside())
        } else {
            Ok(offset)
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Medium::Qcow2(image, _) = &self.medium
            && !image.is_read_only()
        {
            open_images::closing(&self.path, image);
        }
    }
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "outside the disk")
}

/// What this file says of a request that no disk of this size and kind would carry out.
fn is_guests_fault(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::InvalidInput,
        io::ErrorKind::ReadOnlyFilesystem,
    ];
    error.raw_os_error().is_none() && kinds.contains(&error.kind())
}

fn name(operation: &DiskOperation) -> &'static str {
    match operation {
        DiskOperation::Read { .. } => "read",
        DiskOperation::Write { .. } => "write",
        DiskOperation::Flush => "flush",
        DiskOperation::Zero { .. } => "zero",
    }
}

#[cfg(test)]
mod tests;
