//! What an image is kept in.

use std::fmt;
use std::io;

/// A file or a block device. All threads may use it at once.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Reads from `offset` on, and says how much there was: less than `buffer` holds only at the end.
    ///
    /// # Errors
    /// The disk fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of it; a loss of power may take it away again until it is synced.
    ///
    /// # Errors
    /// The disk fails, or is full.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Bytes.
    ///
    /// # Errors
    /// The host does not say.
    fn length(&self) -> io::Result<u64>;

    /// What was written before the call stays.
    ///
    /// # Errors
    /// The disk fails: what stays is not known.
    fn sync(&self) -> io::Result<()>;

    /// Gives bytes back to the host, where it can: what is read there afterwards is of no importance.
    fn give_back(&self, offset: u64, length: u64);

    /// Where there may be something else than zeros, at or after `offset`; `None` if nothing follows.
    fn next_data(&self, offset: u64) -> Option<u64>;
}

/// Reads, with zeros for what is behind the end.
///
/// # Errors
/// The disk fails.
pub fn read_or_zeros(storage: &dyn Storage, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let there = storage.read_at(buffer, offset)?;
    buffer[there..].fill(0);
    Ok(())
}
