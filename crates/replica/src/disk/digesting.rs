//! What a joiner's own disks hold, as digests of their blocks, on a thread of its own that is a little
//! ahead of whoever compares them.

use super::Disk;
use crate::priority::yield_to_the_guest;
use environment::mpsc::{self, Receiver, SyncSender};
use environment::thread::JoinHandle;
use replication::blocks::{BLOCK_BYTES, BlockDigest, WINDOW_BYTES, digests};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// Bytes that are read at once: whole blocks, of which a window has a whole number.
const READ_BYTES: u64 = 1 << 20;
/// Windows that wait to be asked for.
const AHEAD: usize = 2;

/// A disk that cannot be looked at.
#[derive(Debug, Error)]
#[error("disk {}: cannot be read, to see what of it has to be copied: {source}", path.display())]
pub struct DigestError {
    path: std::path::PathBuf,
    source: io::Error,
}

/// Digests of some blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Index among the machine's disks.
    pub device: u8,
    /// Which bytes.
    pub range: Range<u64>,
    /// One for each block.
    pub digests: Vec<BlockDigest>,
}

impl Window {
    /// Whether there is a digest for each block.
    pub fn is_whole(&self) -> bool {
        blocks(self.range.end - self.range.start) == self.digests.len()
    }

    /// The digests of the blocks of a piece that is in it; `None` of one that is elsewhere.
    ///
    /// # Panics
    /// The piece goes beyond it.
    pub fn at(&self, device: u8, offset: u64, length: u64) -> Option<&[BlockDigest]> {
        if device != self.device || !self.range.contains(&offset) {
            return None;
        }
        let from_start = offset - self.range.start;
        assert!(
            from_start.is_multiple_of(BLOCK_BYTES as u64),
            "a piece begins with a block"
        );
        let first = from_start as usize / BLOCK_BYTES;
        Some(&self.digests[first..first + blocks(length)])
    }
}

/// How many blocks so many bytes have.
fn blocks(bytes: u64) -> usize {
    bytes.div_ceil(BLOCK_BYTES as u64) as usize
}

/// The windows of disks that have these lengths, in the order in which both sides go through them.
pub fn windows(lengths: &[u64]) -> impl Iterator<Item = (u8, Range<u64>)> {
    lengths.iter().zip(0u8..).flat_map(|(length, device)| {
        (0..length.div_ceil(WINDOW_BYTES)).map(move |window| {
            let start = window * WINDOW_BYTES;
            (device, start..(*length).min(start + WINDOW_BYTES))
        })
    })
}

/// The thread.
pub struct Digesting {
    windows: Receiver<Result<Window, DigestError>>,
    thread: JoinHandle<()>,
}

impl Digesting {
    /// Begins.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(disks: Arc<Vec<Disk>>, seed: u64) -> io::Result<Digesting> {
        let (sender, windows) = mpsc::sync_channel(AHEAD);
        let thread = environment::thread::Builder::new()
            .name("digests".into())
            .spawn(move || {
                yield_to_the_guest();
                serve(&disks, seed, &sender);
            })?;
        Ok(Digesting { windows, thread })
    }

    /// The next window, in the order of [`windows`]; `None` after the last.
    pub fn next(&self) -> Option<Result<Window, DigestError>> {
        self.windows.recv().ok()
    }

    /// Ends the thread and waits for it: it has no disk then.
    pub fn close(self) {
        drop(self.windows);
        // A panic has ended the process.
        let _joined = self.thread.join();
    }
}

fn serve(disks: &[Disk], seed: u64, sender: &SyncSender<Result<Window, DigestError>>) {
    let failed = |disk: &Disk, source| DigestError {
        path: disk.path.clone(),
        source,
    };
    for disk in disks {
        if disk.shared_file().is_none()
            && let Err(error) = disk.settle()
        {
            // Nobody may listen.
            let _told = sender.send(Err(failed(disk, error)));
            return;
        }
    }
    let lengths: Vec<u64> = disks.iter().map(Disk::copied_bytes).collect();
    let mut buffer = Vec::new();
    for (device, range) in windows(&lengths) {
        let disk = &disks[usize::from(device)];
        let digests = digests_of(disk, range.clone(), seed, &mut buffer);
        let window = digests.map(|digests| Window {
            device,
            range,
            digests,
        });
        let is_over = window.is_err();
        let window = window.map_err(|error| failed(disk, error));
        if sender.send(window).is_err() || is_over {
            return;
        }
    }
}

fn digests_of(
    disk: &Disk,
    range: Range<u64>,
    seed: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Vec<BlockDigest>> {
    let mut found = Vec::with_capacity(blocks(range.end - range.start));
    let mut offset = range.start;
    while offset < range.end {
        let end = range.end.min(offset + READ_BYTES);
        if disk.next_data(offset) >= end {
            let holes = std::iter::repeat_n(BlockDigest::ZEROS, blocks(end - offset));
            found.extend(holes);
        } else {
            buffer.resize((end - offset) as usize, 0);
            disk.read_at(offset, buffer)?;
            found.extend(digests(seed, buffer));
        }
        offset = end;
    }
    Ok(found)
}
