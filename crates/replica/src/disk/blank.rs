//! Whether there is anything on a disk that somebody could miss.

use super::opening;
use crate::config::{DiskFile, DiskFormat};
use environment::fs::{self, File, Kind};
use std::io;
use std::path::Path;

/// Of what may be data so much is read; of a plain file that has more, all zeros, it is not known.
const LOOKED_AT_BYTES: u64 = 16 << 20;
/// At the end of a block device: partition tables and arrays have a copy there.
const END_BYTES: u64 = 1 << 20;
const PIECE_BYTES: usize = 256 << 10;

/// Whether there is nothing on a disk: of a qcow2 image that is so when its tables speak of nothing but zeros.
///
/// # Errors
/// It cannot be read.
pub fn is_blank(disk: &DiskFile) -> io::Result<bool> {
    let holds_nothing = is_blank_file(&disk.path)?;
    match disk.format() {
        DiskFormat::Qcow2 if !holds_nothing => opening::is_blank_image(disk),
        _ => Ok(holds_nothing),
    }
}

/// Whether a file or block device is empty, or holds nothing but zeros: as far as that is known, by its beginning and its
/// end, of a block device; by all of it, of a file. One that is not there is empty.
///
/// # Errors
/// It cannot be read.
fn is_blank_file(path: &Path) -> io::Result<bool> {
    let kind = match fs::look_at(path) {
        Ok((kind, _)) => kind,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let file = File::open(path)?;
    let length = file.length()?;
    let mut left = LOOKED_AT_BYTES;
    let mut offset = 0;
    while let Some(data) = file.next_data(offset).filter(|data| *data < length) {
        if left == 0 {
            return match kind {
                Kind::BlockDevice => is_zero(&file, length.saturating_sub(END_BYTES), END_BYTES),
                Kind::Plain | Kind::Other => Ok(false),
            };
        }
        let bytes = (length - data).min(PIECE_BYTES as u64).min(left);
        if !is_zero(&file, data, bytes)? {
            return Ok(false);
        }
        left -= bytes;
        offset = data + bytes;
    }
    Ok(true)
}

fn is_zero(file: &File, offset: u64, bytes: u64) -> io::Result<bool> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    while done < bytes {
        let length = (bytes - done).min(PIECE_BYTES as u64) as usize;
        file.read_exact_at(&mut piece[..length], offset + done)?;
        if piece[..length].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        done += length as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::is_blank_file as is_blank;
    use super::*;
    use crate::disk::Disk;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn only_what_holds_nothing_but_zeros_is_blank() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        assert!(is_blank(&path).unwrap(), "it is not there");
        let mut file = std::fs::File::create(&path).unwrap();
        assert!(is_blank(&path).unwrap(), "it has no length");
        file.set_len(8 << 30).unwrap();
        assert!(is_blank(&path).unwrap(), "a hole of 8 GiB");
        file.write_all(&[0; 300 << 10]).unwrap();
        assert!(is_blank(&path).unwrap(), "zeros that were written");
        file.seek(SeekFrom::Start((7 << 30) + 5)).unwrap();
        file.write_all(b"x").unwrap();
        assert!(!is_blank(&path).unwrap(), "one octet far behind");
        // What would take long to read is not taken for empty.
        let mut zeros = std::fs::File::create(&path).unwrap();
        let written = LOOKED_AT_BYTES + 1;
        zeros.write_all(&vec![0; written as usize]).unwrap();
        assert!(!is_blank(&path).unwrap());
    }

    /// Its tables are something, and nobody could miss them.
    #[test]
    fn a_qcow2_image_is_blank_until_something_is_written_to_its_disk() {
        let directory = tempfile::tempdir().unwrap();
        let file = DiskFile::new(&directory.path().join("disk.qcow2"), false);
        let is_blank = || super::is_blank(&file);
        assert!(is_blank().unwrap(), "it is not there");
        let disk = Disk::for_copy(&file, 1 << 30, directory.path()).unwrap();
        assert!(is_blank().unwrap(), "it was made");
        disk.write_copied(700 << 20, &[0; 4096]).unwrap();
        disk.zero_copied(700 << 20, 1 << 20).unwrap();
        disk.sync().unwrap();
        assert!(is_blank().unwrap(), "what was on it was discarded");
        disk.write_copied(700 << 20, b"x").unwrap();
        disk.sync().unwrap();
        assert!(!is_blank().unwrap());
        drop(disk);
        std::fs::write(&file.path, b"a letter").unwrap();
        is_blank().unwrap_err();
    }
}
