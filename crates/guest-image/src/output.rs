//! The files of a finished image, written so that no half of one ever has its final name.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::GuestImageError;

/// The kernel's raw RISC-V boot image.
pub const KERNEL: &str = "kernel";
/// The initial file system, an uncompressed cpio archive.
pub const INITRD: &str = "initrd";
/// OpenSBI's `fw_dynamic.bin`.
pub const FIRMWARE: &str = "firmware";
/// U-Boot for S-mode.
pub const U_BOOT: &str = "u-boot.bin";

/// How the names of unfinished files and directories begin.
pub const PARTIAL_PREFIX: &str = ".understudy-partial-";

/// Takes away what builds that were killed have left in `directory`. Only for a build that holds the
/// cache's lock.
pub fn remove_partials(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(PARTIAL_PREFIX)
        {
            // What cannot be removed is in nobody's way but the disk's.
            let path = entry.path();
            let _ = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
        }
    }
}

/// Writes `content` beside `path`, synced, and renames it into place.
///
/// # Errors
/// [`GuestImageError::File`], [`GuestImageError::NoSpace`]
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), GuestImageError> {
    let failed = |error| GuestImageError::file("writing a file of the image", path, error);
    let directory = directory_of(path);
    let mut file = tempfile::Builder::new()
        .prefix(PARTIAL_PREFIX)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(content)
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// The directory that `file` is in.
pub fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Takes a file away if it is there.
///
/// # Errors
/// [`GuestImageError::File`]
pub fn remove(path: &Path) -> Result<(), GuestImageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(GuestImageError::file("removing a file", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_build_left_is_taken_away_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join(".understudy-partial-a/root/etc")).unwrap();
        fs::write(path.join(".understudy-partial-b"), "half").unwrap();
        write_atomically(&path.join(KERNEL), b"whole").unwrap();
        remove_partials(path);
        let left: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [KERNEL]);
        assert_eq!(fs::read(path.join(KERNEL)).unwrap(), b"whole");
    }
}
