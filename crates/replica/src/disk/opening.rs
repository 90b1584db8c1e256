//! Opening an image: what it is, who has it, and what it lies over.

use super::medium::{Medium, Stored};
use super::{Disk, DiskError, SECTOR_BYTES, open_images};
use crate::config::{DiskFile, DiskFormat};
use environment::fs::{self, File, Kind, Lock, OpenOptions};
use qcow2::{Backing, Header, Image};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens what can be a disk.
fn open_file(path: &Path, options: &OpenOptions) -> Result<(File, Kind), DiskError> {
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

fn failed(path: &Path, source: io::Error) -> DiskError {
    let path = path.into();
    DiskError::Open { path, source }
}

fn lock(path: &Path, file: &File, lock: Lock) -> Result<(), DiskError> {
    match file.lock(lock) {
        // Some network file systems have no locks; the pair's own fencing does not need them.
        Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(DiskError::InUse { path: path.into() }),
        Err(error) => Err(failed(path, error.into())),
    }
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

/// Opens an image. With `new_length` it is a copy of that length, which is made where it is absent; `is_ours`
/// is called once nobody else can have it.
pub(super) fn open(
    file: &DiskFile,
    options: &OpenOptions,
    new_length: Option<u64>,
    is_ours: impl FnOnce() -> Result<(), DiskError>,
) -> Result<Disk, DiskError> {
    let path = &file.path;
    let (opened, kind) = open_file(path, options)?;
    let is_shared = file.read_only && new_length.is_none();
    lock(
        path,
        &opened,
        if is_shared {
            Lock::Shared
        } else {
            Lock::Exclusive
        },
    )?;
    is_ours()?;
    let (medium, length) = match file.format() {
        DiskFormat::Raw => open_raw(file, opened, kind, new_length)?,
        DiskFormat::Qcow2 => open_qcow2(file, opened, kind, new_length)?,
    };
    check_length(path, length)?;
    Ok(Disk {
        path: path.into(),
        medium,
        length,
        read_only: file.read_only,
        overlay_base: (kind == Kind::Plain).then(|| path.into()),
    })
}

fn open_raw(
    file: &DiskFile,
    opened: File,
    kind: Kind,
    new_length: Option<u64>,
) -> Result<(Medium, u64), DiskError> {
    let path = &file.path;
    check_said(file, &opened)?;
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
    Ok((Medium::Raw(opened), new_length.unwrap_or(length)))
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
fn check_said(file: &DiskFile, opened: &File) -> Result<(), DiskError> {
    let mut magic = [0; 4];
    let read = opened.read_at(&mut magic, 0);
    match read.map_err(|error| failed(&file.path, error))? {
        4 if magic == qcow2::MAGIC && file.format.is_none() => Err(DiskError::Unsaid {
            path: file.path.clone(),
        }),
        _ => Ok(()),
    }
}

fn open_qcow2(
    file: &DiskFile,
    opened: File,
    kind: Kind,
    new_length: Option<u64>,
) -> Result<(Medium, u64), DiskError> {
    let path = &file.path;
    if kind != Kind::Plain {
        return Err(DiskError::NoFile { path: path.into() });
    }
    let stored = Arc::new(Stored(opened));
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

fn image_error(path: &Path, source: qcow2::OpenError) -> DiskError {
    let path = path.into();
    DiskError::Image { path, source }
}

fn header(path: &Path, stored: &Stored) -> Result<Header, DiskError> {
    Header::read(stored).map_err(|source| image_error(path, source))
}

/// Makes an image where there is none yet, or one of another length: everything in it will be overwritten.
fn make_as_long(file: &DiskFile, stored: &Stored, length: u64) -> Result<(), DiskError> {
    let path = &file.path;
    let mut magic = [0; 4];
    let read = stored.0.read_at(&mut magic, 0);
    let there = read.map_err(|error| failed(path, error))?;
    // One that was being made when everything ended has zeros there.
    let is_absent = there < 4 || magic == [0; 4];
    if !is_absent && header(path, stored)?.length == length {
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
fn open_backing(
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
    lock(first, &opened, Lock::Shared)?;
    let stored = Arc::new(Stored(opened));
    match below.format.as_deref() {
        Some("raw" | "file") if rest.is_empty() => {
            let length = stored.0.length().map_err(|error| failed(first, error))?;
            let storage = stored;
            Ok(Some(Backing::Raw { storage, length }))
        }
        Some("raw" | "file") => wrong(format!(
            "lies over {}, which is raw and lies over nothing, and `backing` names more files",
            first.display()
        )),
        Some("qcow2") => {
            let its = self::header(first, &stored)?;
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

/// See [`Disk::check`].
pub(super) fn check(file: &DiskFile) -> Result<(), DiskError> {
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
            let header = header(path, &Stored(opened))?;
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
            let stored = Stored(File::open(&file.path)?);
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
    let stored = Arc::new(Stored(File::open(&file.path)?));
    let header = Header::read(&*stored).map_err(io::Error::other)?;
    let backing = open_backing(&file.path, &header, &file.backing).map_err(io::Error::other)?;
    let image = Image::open(stored, header, backing, true).map_err(io::Error::other)?;
    Ok(image.next_data(0) >= image.length())
}
