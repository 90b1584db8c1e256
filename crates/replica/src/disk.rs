//! The disks' back-end: raw image files on this host.

mod copy;
mod digesting;
mod freezing;
pub mod overlay;
pub mod probe;
mod worker;

pub use copy::{CHUNK_BYTES, Content, CopiedPart, DiskChunk};
pub use digesting::{DigestError, Digesting, Window, windows};
pub use freezing::Freezing;
pub use worker::{Completion, DiskThread};

use crate::config::DiskFile;
use environment::fs::{self, File, Kind, Lock, OpenOptions};
use machine::input::DiskStatus;
use machine::output::DiskOperation;
use overlay::{Begun, LayerId, OverlayError};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes that one request may move; the machine's device allows no more.
const REQUEST_LIMIT: u64 = 16 << 20;

/// An image that cannot be a disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It is not there or not accessible.
    #[error("cannot open the disk {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the disk {} is in use by another machine; each replica needs its own copy", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Not a whole number of sectors, or nothing at all.
    #[error("the disk {} has {length} bytes, which is not a positive multiple of 512; is it truncated?", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// A device that cannot hold the copy of the primary's.
    #[error(
        "the disk {} has {length} bytes, and the primary's {wanted}: give this host a larger one",
        path.display()
    )]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// That of the primary's.
        wanted: u64,
    },
    /// A directory, a socket or the like.
    #[error("the disk {} is neither a file nor a block device", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// What lies beside the image cannot be used.
    #[error("what belongs to a disk cannot be used: {0}")]
    Overlay(#[from] OverlayError),
    /// The backup's copy cannot be made as long as the primary's disk.
    #[error("the disk {} cannot be made {length} bytes long: {source}", path.display())]
    Resize {
        /// The file.
        path: PathBuf,
        /// The length of the primary's disk.
        length: u64,
        /// Why.
        source: io::Error,
    },
}

/// One raw image, locked against a second user.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    file: File,
    length: u64,
    read_only: bool,
    /// What its layers are named after, where there may be some.
    overlay_base: Option<PathBuf>,
}

/// Disks that a journal goes on with, as they were at its snapshot, and the layers of those that can be
/// written.
pub type BegunDisks = (Vec<Disk>, Vec<Option<Begun>>);

/// Opens what can be a disk.
fn open_disk(path: &Path, options: &OpenOptions) -> Result<File, DiskError> {
    let open_error = |source| DiskError::Open {
        path: path.into(),
        source,
    };
    // Without O_NONBLOCK the opening of a pipe waits for its other end.
    let mut options = options.clone();
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    let is_disk = |kind: Kind| kind != Kind::Other;
    let not_a_disk = || DiskError::Kind { path: path.into() };
    let file = options.open(path).map_err(|error| {
        // Some of what is no disk cannot even be opened so.
        let there = fs::look_at(path).ok();
        match there.is_some_and(|(kind, _)| !is_disk(kind)) {
            true => not_a_disk(),
            false => open_error(error),
        }
    })?;
    let kind = file.kind().map_err(open_error)?;
    is_disk(kind).then_some(file).ok_or_else(not_a_disk)
}

fn check_length(path: &Path, length: u64) -> Result<(), DiskError> {
    if length == 0 || !length.is_multiple_of(SECTOR_BYTES) {
        return Err(DiskError::Size {
            path: path.into(),
            length,
        });
    }
    Ok(())
}

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
            let disk = Disk::open(&file.path, file.read_only)?.overlaid(state_directory);
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
            let disk = Disk::open(&file.path, file.read_only)?.overlaid(Some(state_directory));
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

    /// Looks whether an image can be opened as a disk, without taking it.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(path: &Path, read_only: bool) -> Result<(), DiskError> {
        let mut options = OpenOptions::new();
        let file = open_disk(path, options.read(true).write(!read_only))?;
        let length = file.length().map_err(|source| DiskError::Open {
            path: path.into(),
            source,
        })?;
        check_length(path, length)
    }

    /// Opens an image.
    pub fn open(path: &Path, read_only: bool) -> Result<Disk, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(!read_only);
        Disk::from_options(path, read_only, &options, None, || Ok(()))
    }

    /// Opens the backup's copy of a disk of `length` bytes, in which what differs will be overwritten: makes
    /// the file when it is absent, cuts it or adds zeros otherwise. What a journal left beside it goes, once
    /// nobody else can have the disk.
    pub fn for_copy(
        path: &Path,
        read_only: bool,
        length: u64,
        state_directory: &Path,
    ) -> Result<Disk, DiskError> {
        let base = overlay::base(path, state_directory);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let is_ours = || Ok(overlay::remove_all(&base)?);
        let disk = Disk::from_options(path, read_only, &options, Some(length), is_ours)?;
        Ok(disk.overlaid(Some(state_directory)))
    }

    fn from_options(
        path: &Path,
        read_only: bool,
        options: &OpenOptions,
        new_length: Option<u64>,
        is_ours: impl FnOnce() -> Result<(), DiskError>,
    ) -> Result<Disk, DiskError> {
        let open_error = |source| DiskError::Open {
            path: path.into(),
            source,
        };
        let file = open_disk(path, options)?;
        let kind = file.kind().map_err(open_error)?;
        let lock = if read_only && new_length.is_none() {
            Lock::Shared
        } else {
            Lock::Exclusive
        };
        match file.lock(lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(DiskError::InUse { path: path.into() }),
            // Some network file systems have no locks; the pair's own fencing does not need them.
            Err(Errno::NOLCK | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(open_error(error.into())),
        }
        is_ours()?;
        if let Some(length) = new_length
            && kind == Kind::Plain
            && file.length().map_err(open_error)? != length
        {
            file.set_len(length).map_err(|source| DiskError::Resize {
                path: path.into(),
                length,
                source,
            })?;
        }
        let length = file.length().map_err(open_error)?;
        check_length(path, length)?;
        if new_length.is_some_and(|wanted| wanted > length) {
            return Err(DiskError::TooSmall {
                path: path.into(),
                length,
                wanted: new_length.unwrap_or(length),
            });
        }
        Ok(Disk {
            path: path.into(),
            file,
            length: new_length.unwrap_or(length),
            read_only,
            overlay_base: (kind == Kind::Plain).then(|| path.into()),
        })
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
                self.file.read_exact_at(&mut data, offset)?;
                Ok(data)
            }
            DiskOperation::Write { sector, data } => {
                let offset = self.range(*sector, data.len() as u64)?;
                self.writable()?;
                self.file.write_all_at(data, offset)?;
                Ok(Vec::new())
            }
            DiskOperation::Flush => self.file.sync_data().map(|()| Vec::new()),
            DiskOperation::Zero { sector, sectors } => {
                let bytes = sectors.checked_mul(SECTOR_BYTES).ok_or_else(outside)?;
                let offset = self.checked_range(*sector, bytes)?;
                self.writable()?;
                self.zero(offset, bytes).map(|()| Vec::new())
            }
        }
    }

    /// Writes bytes of the primary's disk into this copy.
    pub fn write_copied(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Makes bytes of this copy zero.
    pub fn zero_copied(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.check_range(offset, bytes)?;
        self.zero(offset, bytes)
    }

    /// Reads what is there, without a request of the guest's.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, buffer.len() as u64)?;
        self.file.read_exact_at(buffer, offset)
    }

    /// Where there may be something else than zeros, at or after `offset`: the disk's length if nothing
    /// follows.
    pub fn next_data(&self, offset: u64) -> u64 {
        let data = self.file.next_data(offset);
        data.map_or(self.length, |data| data.min(self.length))
    }

    /// What is read from here on is what is on the disk for good.
    ///
    /// # Errors
    /// The disk does not take what was written to it.
    pub fn settle(&self) -> io::Result<()> {
        self.sync()?;
        self.file.forget_cached();
        Ok(())
    }

    /// Makes everything durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn zero(&self, offset: u64, bytes: u64) -> io::Result<()> {
        zero(&self.file, offset, bytes)
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

/// Makes bytes of an image zero.
fn zero(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    if bytes == 0 || file.punch_hole(offset, bytes).is_ok() {
        return Ok(());
    }
    // The file system cannot make holes.
    let zeros = vec![0; bytes.min(1 << 20) as usize];
    let mut done = 0;
    while done < bytes {
        let length = (bytes - done).min(zeros.len() as u64);
        file.write_all_at(&zeros[..length as usize], offset + done)?;
        done += length;
    }
    Ok(())
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
