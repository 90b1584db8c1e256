//! What a disk's bytes are kept in.

use super::held::HeldFile;
use super::shared::SharedFile;
use environment::fs::File;
use qcow2::Image;
use std::io;
use std::sync::Arc;

/// All threads of a replica may use it at once.
#[derive(Debug)]
pub(super) enum Medium {
    /// A file or a block device that has them one after the other.
    Raw(HeldFile),
    /// A qcow2 image, and its file.
    Qcow2(Arc<Image>, Arc<Stored>),
    /// A raw file that other hosts reach as well, once this one has it.
    Shared(SharedFile),
}

impl Medium {
    /// Reads as much as `out` holds.
    pub fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Medium::Raw(file) => file.read_exact_at(out, offset),
            Medium::Shared(shared) => shared.taken()?.read_exact_at(out, offset),
            Medium::Qcow2(image, _) => image.read(offset, out),
        }
    }

    /// Writes all of it.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Medium::Raw(file) => file.write_all_at(bytes, offset),
            Medium::Shared(shared) => shared.taken()?.write_all_at(bytes, offset),
            Medium::Qcow2(image, _) => image.write(offset, bytes),
        }
    }

    /// Makes bytes zero, and gives their room back where it can.
    pub fn zero(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match self {
            Medium::Raw(file) => zero(file, offset, bytes),
            Medium::Shared(shared) => zero(shared.taken()?, offset, bytes),
            Medium::Qcow2(image, _) => image.zero(offset, bytes),
        }
    }

    /// Where there may be something else than zeros, at or after `offset`; `None` if nothing follows.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        match self {
            Medium::Raw(file) => file.next_data(offset),
            Medium::Shared(_) => Some(offset),
            Medium::Qcow2(image, _) => Some(image.next_data(offset)),
        }
    }

    /// What was written stays.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Medium::Raw(file) => file.sync_data(),
            Medium::Shared(shared) => shared.taken()?.sync_data(),
            Medium::Qcow2(image, _) => image.flush(),
        }
    }

    /// What was written stays, and what is known of the file.
    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            Medium::Raw(file) => file.sync_all(),
            // Nothing was written from here before it was taken.
            Medium::Shared(shared) if !shared.is_taken() => Ok(()),
            Medium::Shared(shared) => shared.taken()?.sync_all(),
            Medium::Qcow2(image, _) => image.flush(),
        }
    }

    /// See [`File::forget_cached`].
    pub fn forget_cached(&self) {
        match self {
            Medium::Raw(file) => file.forget_cached(),
            // That was done when it was taken.
            Medium::Shared(_) => {}
            Medium::Qcow2(_, stored) => stored.0.forget_cached(),
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

/// A file that a qcow2 image is kept in, or that it lies over.
#[derive(Debug)]
pub(super) struct Stored(pub HeldFile);

impl qcow2::Storage for Stored {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn give_back(&self, offset: u64, length: u64) {
        // A file system that cannot make holes keeps what it has.
        let _given = self.0.punch_hole(offset, length);
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        self.0.next_data(offset)
    }
}
