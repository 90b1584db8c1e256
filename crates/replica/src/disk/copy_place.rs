//! What a backup's copy of a disk would be made in place of, looked at before a byte of it is written.

use super::blank::is_blank;
use super::held::{self, HeldFile, Locked};
use super::medium::Stored;
use super::{DiskError, opening};
use crate::config::{DiskFile, DiskFormat};
use environment::fs::{self, File, Kind, Lock, OpenOptions};
use qcow2::Image;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyPlace {
    /// Nothing, or a file in which no disk was made yet.
    Nothing,
    /// A machine of this process has it: one that is being dropped, or goes on.
    OwnMachine,
    /// A disk of so many bytes.
    Disk(u64),
}

/// Looks whether a copy can be made there that is `wanted` bytes long, if that is known: it can be opened and written,
/// nobody else has it locked, it is what the configuration says, and so is what it lies over.
///
/// # Errors
/// It cannot, and why.
pub fn look(file: &DiskFile, wanted: Option<u64>) -> Result<CopyPlace, DiskError> {
    let path = &file.path;
    let mut options = OpenOptions::new();
    let (opened, kind) = match opening::open_file(path, options.read(true).write(true)) {
        Err(DiskError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return nothing(path);
        }
        other => other?,
    };
    let failed = |error: rustix::io::Errno| opening::failed(path, error.into());
    let opened = match held::try_lock(path, opened, Lock::Exclusive).map_err(failed)? {
        Locked::Now(held) => held,
        Locked::Here => return Ok(CopyPlace::OwnMachine),
        Locked::Elsewhere => return Err(DiskError::InUse { path: path.into() }),
    };
    let place = content(file, &opened, kind, wanted)?;
    check_length(file, place, kind, wanted)?;
    Ok(place)
}

fn nothing(path: &Path) -> Result<CopyPlace, DiskError> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match directory.is_none_or(fs::is_directory) {
        true => Ok(CopyPlace::Nothing),
        false => Err(DiskError::NoDirectory { path: path.into() }),
    }
}

/// What a file holds that nobody else has.
pub(super) fn content(
    file: &DiskFile,
    opened: &File,
    kind: Kind,
    wanted: Option<u64>,
) -> Result<CopyPlace, DiskError> {
    match file.format() {
        DiskFormat::Raw => raw(file, opened, kind, wanted),
        DiskFormat::Qcow2 => qcow2_image(file, opened, kind, wanted),
    }
}

fn raw(
    file: &DiskFile,
    opened: &File,
    kind: Kind,
    wanted: Option<u64>,
) -> Result<CopyPlace, DiskError> {
    let path = &file.path;
    opening::check_said(file, opened)?;
    let length = opened
        .length()
        .map_err(|error| opening::failed(path, error))?;
    if kind == Kind::Plain {
        return Ok(match length {
            0 => CopyPlace::Nothing,
            length => CopyPlace::Disk(length),
        });
    }
    // A device cannot be made another length.
    opening::check_length(path, length)?;
    match wanted.filter(|wanted| *wanted > length) {
        None => Ok(CopyPlace::Disk(length)),
        Some(wanted) => Err(DiskError::TooSmall {
            path: path.into(),
            length,
            wanted,
        }),
    }
}

fn qcow2_image(
    file: &DiskFile,
    opened: &File,
    kind: Kind,
    wanted: Option<u64>,
) -> Result<CopyPlace, DiskError> {
    let path = &file.path;
    if kind != Kind::Plain {
        return Err(DiskError::NoFile { path: path.into() });
    }
    let is_there = opening::has_image(path, opened)?;
    if !is_there && file.backing.is_empty() {
        return Ok(CopyPlace::Nothing);
    }
    // By its name: whoever looks keeps the lock meanwhile.
    let again = File::open(path).map_err(|error| opening::failed(path, error))?;
    let stored = Arc::new(Stored(HeldFile::unlocked(again)));
    let header = opening::header(path, &stored)?;
    let length = header.length;
    opening::open_backing(path, &header, &file.backing)?;
    Image::check(stored, &header).map_err(|source| opening::image_error(path, source))?;
    if !file.backing.is_empty()
        && let Some(wanted) = wanted.filter(|wanted| *wanted != length)
    {
        let why = format!(
            "has {length} bytes and lies over another file, and the primary's disk has {wanted}"
        );
        let path = path.into();
        return Err(DiskError::Backing { path, why });
    }
    Ok(CopyPlace::Disk(length))
}

/// A file of another length than the machine's disk is not its copy, whatever a marker beside it says, unless there is
/// nothing on it, or what is may go.
pub(super) fn check_length(
    file: &DiskFile,
    place: CopyPlace,
    kind: Kind,
    wanted: Option<u64>,
) -> Result<(), DiskError> {
    let (CopyPlace::Disk(length), Some(wanted), Kind::Plain) = (place, wanted, kind) else {
        return Ok(());
    };
    let path = &file.path;
    if length == wanted || file.may_be_overwritten {
        return Ok(());
    }
    match is_blank(file).map_err(|error| opening::failed(path, error))? {
        true => Ok(()),
        false => Err(DiskError::OtherLength {
            path: path.into(),
            length,
            wanted,
        }),
    }
}
