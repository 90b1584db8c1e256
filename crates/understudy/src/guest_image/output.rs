//! The files of a finished image, written so that no half of one ever has its final name.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::GuestImageError;

/// The kernel's raw RISC-V boot image.
pub const KERNEL: &str = "kernel";
/// The initial file system, an uncompressed cpio archive.
pub const INITRD: &str = "initrd";
/// OpenSBI's `fw_dynamic.bin`.
pub const FIRMWARE: &str = "firmware";
/// U-Boot for S-mode.
pub const U_BOOT: &str = "u-boot.bin";

/// Writes `content` beside `path`, synced, and renames it into place.
///
/// # Errors
/// [`GuestImageError::File`], [`GuestImageError::NoSpace`]
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), GuestImageError> {
    let failed = |error| GuestImageError::file("writing a file of the image", path, error);
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(content)
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
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
