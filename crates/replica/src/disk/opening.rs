//! Opening an image: what it is, who has it, and what it lies over.

use super::held::{self, HeldFile, Locked};
use super::medium::{Medium, Stored};
use super::shared::SharedFile;
use super::standing::{self, Standing};
use super::{Disk, DiskError, SECTOR_BYTES, open_images};
use crate::config::{DiskFile, DiskFormat};
use environment::fs::{self, File, Kind, Lock, OpenOptions};
use qcow2::{Backing, Header, Image};
use rustix::fs::OFlags;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens what can be a disk.
pub(super) fn open_file(path: &Path, options: &OpenOptions) -> Result<(File, Kind), DiskError> {
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
            false => failed(path, error),
        }
    })?;
    let kind = file.kind().map_err(|error| failed(path, error))?;
    is_disk(kind).then_some((file, kind)).ok_or_else(not_a_disk)
}

pub(super) fn failed(path: &Path, source: io::Error) -> DiskError {
    let path = path.into();
    DiskError::Open { path, source }
}

fn lock(path: &Path, file: File, lock: Lock) -> Result<HeldFile, DiskError> {
    match held::try_lock(path, file, lock) {
        Ok(Locked::Now(held)) => Ok(held),
        Ok(Locked::Here) => Err(DiskError::InUseHere { path: path.into() }),
        Ok(Locked::Elsewhere) => Err(DiskError::InUse { path: path.into() }),
        Err(error) => Err(failed(path, error.into())),
    }
}

pub(super) fn check_length(path: &Path, length: u64) -> Result<(), DiskError> {
    if length == 0 || !length.is_multiple_of(SECTOR_BYTES) {
        return Err(DiskError::Size {
            path: path.into(),
            length,
        });
    }
    Ok(())
}

/// Opens an image. With `new_length` it is a copy of that length, which is made where it is absent; `is_ours`
/// is called once nobody else can have it, and what is there may be overwritten.
pub(super) fn open(
    file: &DiskFile,
    options: &OpenOptions,
    new_length: Option<u64>,
    is_ours: impl FnOnce() -> Result<(), DiskError>,
) -> Result<Disk, DiskError> {
    let path = &file.path;
    let (opened, kind) = open_file(path, options)?;
    let is_read_by_many = file.read_only && new_length.is_none();
    let how = match is_read_by_many {
        true => Lock::Shared,
        false => Lock::Exclusive,
    };
    let opened = lock(path, opened, how)?;
    if new_length.is_some() {
        let place = super::copy_place::content(file, &opened, kind, new_length)?;
        super::copy_place::check_length(file, place, kind, new_length)?;
    }
    is_ours()?;
    if new_length.is_some() {
        // It gets another length, or another content. Whoever had it before goes.
        standing::forget(path);
    }
    let (medium, length) = match file.format() {
        DiskFormat::Raw => {
            let length = open_raw(file, &opened, kind, new_length)?;
            (Medium::Raw(opened), length)
        }
        DiskFormat::Qcow2 => open_qcow2(file, Stored(opened), kind, new_length)?,
    };
    check_length(path, length)?;
    let standing = match &medium {
        Medium::Raw(file) => Some(Standing::expect(path, file, length)),
        // It grows as it is written, and nothing is ever cut from it.
        Medium::Qcow2(_, stored) => {
            let bytes = stored.0.length().map_err(|error| failed(path, error))?;
            Some(Standing::expect_growing(path, &stored.0, bytes))
        }
        Medium::Shared(_) => None,
    };
    Ok(Disk {
        path: path.into(),
        _standing: standing.filter(|_| kind == Kind::Plain),
        medium,
        length,
        read_only: file.read_only,
        overlay_base: (kind == Kind::Plain).then(|| path.into()),
    })
}

/// A disk that all hosts reach.
pub(super) fn of_shared(file: &DiskFile, shared: SharedFile) -> Disk {
    Disk {
        path: file.path.clone(),
        length: shared.length(),
        medium: Medium::Shared(shared),
        read_only: false,
        overlay_base: None,
        _standing: None,
    }
}

fn open_raw(
    file: &DiskFile,
    opened: &File,
    kind: Kind,
    new_length: Option<u64>,
) -> Result<u64, DiskError> {
    let path = &file.path;
    check_said(file, opened)?;
    if let Some(length) = new_length
        && kind == Kind::Plain
        && opened.length().map_err(|error| failed(path, error))? != length
    {
        let resized = opened.set_len(length);
        resized.map_err(|source| resize_failed(path, length, source))?;
    }
    let length = opened.length().map_err(|error| failed(path, error))?;
    if let Some(wanted) = new_length.filter(|wanted| *wanted > length) {
        // What is no disk at all is said first.
        check_length(path, length)?;
        return Err(DiskError::TooSmall {
            path: path.into(),
            length,
            wanted,
        });
    }
    Ok(new_length.unwrap_or(length))
}

fn resize_failed(path: &Path, length: u64, source: io::Error) -> DiskError {
    let path = path.into();
    DiskError::Resize {
        path,
        length,
        source,
    }
}

/// Nothing is taken for raw that begins as a qcow2 image does, unless the configuration says so. Most likely
/// it is one, of which a guest would see the tables; and what a guest wrote is never taken for one.
pub(super) fn check_said(file: &DiskFile, opened: &File) -> Result<(), DiskError> {
    match has_magic(&file.path, opened)? && file.format.is_none() {
        true => Err(DiskError::Unsaid {
            path: file.path.clone(),
        }),
        false => Ok(()),
    }
}

fn open_qcow2(
    file: &DiskFile,
    stored: Stored,
    kind: Kind,
    new_length: Option<u64>,
) -> Result<(Medium, u64), DiskError> {
    let path = &file.path;
    if kind != Kind::Plain {
        return Err(DiskError::NoFile { path: path.into() });
    }
    let stored = Arc::new(stored);
    if let Some(length) = new_length {
        // What is read from here on is what the disk has: see [`Disk::settle`].
        stored.0.sync_all().map_err(|error| failed(path, error))?;
        stored.0.forget_cached();
        make_as_long(file, &stored, length)?;
    }
    let header = header(path, &stored)?;
    let backing = open_backing(path, &header, &file.backing)?;
    let is_read_only = file.read_only && new_length.is_none();
    let image = Image::open(stored.clone(), header, backing, is_read_only);
    let image = Arc::new(image.map_err(|source| image_error(path, source))?);
    if !is_read_only {
        open_images::opened(path, &image);
    }
    let length = image.length();
    Ok((Medium::Qcow2(image, stored), length))
}

pub(super) fn image_error(path: &Path, source: qcow2::OpenError) -> DiskError {
    let path = path.into();
    DiskError::Image { path, source }
}

pub(super) fn header(path: &Path, stored: &Stored) -> Result<Header, DiskError> {
    Header::read(stored).map_err(|source| image_error(path, source))
}

/// Whether there is anything in the file: one that was being made when everything ended has zeros in its beginning.
pub(super) fn has_image(path: &Path, file: &File) -> Result<bool, DiskError> {
    let mut magic = [0; 4];
    let read = file.read_at(&mut magic, 0);
    let there = read.map_err(|error| failed(path, error))?;
    Ok(there == 4 && magic != [0; 4])
}

/// Makes an image where there is none yet, or one of another length: everything in it will be overwritten.
fn make_as_long(file: &DiskFile, stored: &Stored, length: u64) -> Result<(), DiskError> {
    let path = &file.path;
    if has_image(path, &stored.0)? && header(path, stored)?.length == length {
        return Ok(());
    }
    if !file.backing.is_empty() {
        let why = format!("is not the primary's {length} bytes long, and lies over another file");
        return Err(DiskError::Backing {
            path: path.into(),
            why,
        });
    }
    let emptied = stored.0.set_len(0);
    emptied.map_err(|source| resize_failed(path, length, source))?;
    qcow2::create(stored, length).map_err(|source| image_error(path, source))
}

/// Opens what an image lies over: the files that the configuration names, in their order, whatever the images
/// call them. An image that was fetched somewhere may name any file of this host.
pub(super) fn open_backing(
    path: &Path,
    header: &Header,
    named: &[PathBuf],
) -> Result<Option<Backing>, DiskError> {
    let wrong = |why: String| {
        let path = path.into();
        Err(DiskError::Backing { path, why })
    };
    let (below, first, rest) = match (&header.backing, named.split_first()) {
        (None, None) => return Ok(None),
        (None, Some((first, _))) => {
            let first = first.display();
            return wrong(format!(
                "lies over nothing, and `backing` names {first} under it"
            ));
        }
        (Some(below), None) => {
            return wrong(format!(
                "lies over {:?}, and `backing` of its [[disks]] names no file for that: a machine reads only \
                 files that its configuration names",
                below.name
            ));
        }
        (Some(below), Some((first, rest))) => (below, first, rest),
    };
    let (opened, _) = open_file(first, OpenOptions::new().read(true))?;
    let stored = Arc::new(Stored(lock(first, opened, Lock::Shared)?));
    match below.format.as_deref() {
        Some("raw" | "file") if rest.is_empty() => {
            let length = stored.0.length().map_err(|error| failed(first, error))?;
            if has_magic(first, &stored.0)? {
                return wrong(format!(
                    "says that {}, which it lies over, is raw, and that begins as a qcow2 image does: is it the right \
                     file? `qemu-img rebase -u -F qcow2 -b FILE IMAGE` writes what it is into the image",
                    first.display()
                ));
            }
            goes_under(path, header, first, length)?;
            let storage = stored;
            Ok(Some(Backing::Raw { storage, length }))
        }
        Some("raw" | "file") => wrong(format!(
            "lies over {}, which is raw and lies over nothing, and `backing` names more files",
            first.display()
        )),
        Some("qcow2") => {
            let its = self::header(first, &stored)?;
            goes_under(path, header, first, its.length)?;
            let backing = open_backing(first, &its, rest)?;
            let image = Image::open(stored, its, backing, true);
            let image = image.map_err(|source| image_error(first, source))?;
            Ok(Some(Backing::Image(Box::new(image))))
        }
        Some(other) => wrong(format!("lies over a file of the format {other:?}, which is not known here")),
        None => wrong(
            "does not say of which format the file under it is; `qemu-img rebase -u -F FORMAT -b FILE IMAGE` \
             writes it there"
                .into(),
        ),
    }
}

/// An image is made over one that is no longer than itself, and may be made longer afterwards: a longer one is another
/// than it was made over, or was changed since.
fn goes_under(path: &Path, over: &Header, below: &Path, length: u64) -> Result<(), DiskError> {
    if length <= over.length {
        return Ok(());
    }
    let why = format!(
        "has a disk of {} bytes, and that of {}, which it lies over, has {length}: is it the file that the image was made \
         over, and as it was then? If it is, `qemu-img resize IMAGE {length}` gives it all of that",
        over.length,
        below.display()
    );
    let path = path.into();
    Err(DiskError::Backing { path, why })
}

fn has_magic(path: &Path, file: &File) -> Result<bool, DiskError> {
    let mut magic = [0; 4];
    let read = file.read_at(&mut magic, 0);
    Ok(read.map_err(|error| failed(path, error))? == 4 && magic == qcow2::MAGIC)
}

/// See [`Disk::check`].
pub(super) fn check(file: &DiskFile) -> Result<(), DiskError> {
    if file.is_shared {
        return SharedFile::look(file).map(|_| ());
    }
    let path = &file.path;
    let mut options = OpenOptions::new();
    let (opened, _) = open_file(path, options.read(true).write(!file.read_only))?;
    match file.format() {
        DiskFormat::Raw => {
            check_said(file, &opened)?;
            let length = opened.length().map_err(|error| failed(path, error))?;
            check_length(path, length)
        }
        DiskFormat::Qcow2 => {
            let header = header(path, &Stored(HeldFile::unlocked(opened)))?;
            open_backing(path, &header, &file.backing)?;
            check_length(path, header.length)
        }
    }
}

/// Bytes of the disk in a file or a block device.
///
/// # Errors
/// It is not there, cannot be read, or is not what the configuration says.
pub fn length_of(file: &DiskFile) -> io::Result<u64> {
    let (kind, bytes) = fs::look_at(&file.path)?;
    match (file.format(), kind) {
        (DiskFormat::Qcow2, _) => {
            let stored = Stored(HeldFile::unlocked(File::open(&file.path)?));
            let header = Header::read(&stored).map_err(io::Error::other)?;
            Ok(header.length)
        }
        (DiskFormat::Raw, Kind::BlockDevice) => File::open(&file.path)?.length(),
        (DiskFormat::Raw, _) => Ok(bytes),
    }
}

/// Makes what was written to a disk durable, whoever of this process has it.
///
/// # Errors
/// The disk fails.
pub fn sync_file(file: &DiskFile) -> io::Result<()> {
    let open = match file.format() {
        DiskFormat::Qcow2 => open_images::sync(&file.path),
        DiskFormat::Raw => None,
    };
    open.unwrap_or_else(|| File::open(&file.path)?.sync_all())
}

/// Whether a qcow2 image says of each cluster that it is zero, without taking it.
pub(super) fn is_blank_image(file: &DiskFile) -> io::Result<bool> {
    let opened = File::open(&file.path)?;
    let stored = Arc::new(Stored(HeldFile::unlocked(opened)));
    let header = Header::read(&*stored).map_err(io::Error::other)?;
    let backing = open_backing(&file.path, &header, &file.backing).map_err(io::Error::other)?;
    let image = Image::open(stored, header, backing, true).map_err(io::Error::other)?;
    Ok(image.next_data(0) >= image.length())
}
