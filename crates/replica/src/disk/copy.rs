//! Copies disks as they are at one moment, while the guest goes on writing to them.

use super::Disk;
use super::worker::changes;
use environment::mpsc::{SyncSender, TrySendError};
use machine::output::{DiskOperation, DiskRequest};
use std::collections::VecDeque;

/// Bytes of a chunk; the last one of a disk may be shorter.
pub const CHUNK_BYTES: u64 = 256 << 10;
/// Chunks that wait because the guest was about to write to them: 256 MiB. For one more, the guest's
/// write waits.
const MOST_WAITING: usize = if cfg!(test) { 8 } else { 1024 };

/// A piece of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskChunk {
    /// Index among the machine's disks.
    pub device: u8,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// The bytes, or why they could not be read.
    pub bytes: Result<Vec<u8>, String>,
}

/// A copy under way: which chunks were taken, and those that were taken but not yet sent.
pub(super) struct DiskCopy {
    chunks: SyncSender<DiskChunk>,
    /// For each disk and chunk, whether it was taken.
    taken: Vec<Vec<bool>>,
    /// The next chunk to look at.
    device: usize,
    index: usize,
    waiting: VecDeque<DiskChunk>,
}

impl DiskCopy {
    pub(super) fn new(disks: &[Disk], chunks: SyncSender<DiskChunk>) -> DiskCopy {
        let taken = disks
            .iter()
            .map(|disk| vec![false; disk.length().div_ceil(CHUNK_BYTES) as usize])
            .collect();
        DiskCopy {
            chunks,
            taken,
            device: 0,
            index: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Puts aside what `request` is about to change. False when nobody listens.
    pub(super) fn before(&mut self, disks: &[Disk], request: &DiskRequest) -> bool {
        let device = usize::from(request.device);
        let Some((offset, length)) = changes(&request.operation).filter(|(_, length)| *length > 0)
        else {
            return true;
        };
        let Some(disk) = disks.get(device) else {
            return true;
        };
        let last = offset.saturating_add(length - 1).min(disk.length() - 1) / CHUNK_BYTES;
        for index in offset / CHUNK_BYTES..=last {
            self.take(disks, device, index as usize);
            if self.waiting.len() > MOST_WAITING
                && let Some(chunk) = self.waiting.pop_front()
                && self.chunks.send(chunk).is_err()
            {
                return false;
            }
        }
        true
    }

    /// Sends a chunk or looks at the next one. False when all is done or nobody listens.
    pub(super) fn step(&mut self, disks: &[Disk]) -> bool {
        if let Some(chunk) = self.waiting.pop_front() {
            return self.send(chunk);
        }
        while self.device < self.taken.len() {
            if self.index == self.taken[self.device].len() {
                self.device += 1;
                self.index = 0;
                continue;
            }
            let (device, index) = (self.device, self.index);
            self.index += 1;
            self.take(disks, device, index);
            return true;
        }
        false
    }

    fn send(&mut self, chunk: DiskChunk) -> bool {
        match self.chunks.try_send(chunk) {
            Ok(()) => true,
            Err(TrySendError::Full(chunk)) => {
                self.waiting.push_front(chunk);
                // The link is busy. The guest's own requests are looked at in between.
                environment::thread::sleep(std::time::Duration::from_micros(500));
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    fn take(&mut self, disks: &[Disk], device: usize, index: usize) {
        let Some(taken) = self
            .taken
            .get_mut(device)
            .and_then(|taken| taken.get_mut(index))
        else {
            return;
        };
        if std::mem::replace(taken, true) {
            return;
        }
        let offset = index as u64 * CHUNK_BYTES;
        let length = (disks[device].length() - offset).min(CHUNK_BYTES);
        let sector = offset / super::SECTOR_BYTES;
        let outcome = disks[device].perform(&DiskOperation::Read {
            sector,
            length: length as u32,
        });
        let bytes = match outcome.host_error {
            None if outcome.data.iter().all(|byte| *byte == 0) => return,
            None => Ok(outcome.data),
            Some(error) => Err(error),
        };
        self.waiting.push_back(DiskChunk {
            device: device as u8,
            offset,
            bytes,
        });
    }
}
