//! How far the copy for a joining backup is, alike on both sides.

use crate::status::JoinProgress;
use replication::message::SnapshotPart;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Follows the pieces of one snapshot.
#[derive(Clone, Copy, Debug)]
pub struct CopyMeter {
    began: Duration,
    /// Bytes of the machine.
    machine: u64,
    /// Where in its disks the copy is, were they one; zeros count as copied.
    disks: u64,
    /// Where the disk of the newest piece begins there, and which it is.
    disk: (u8, u64),
    total: u64,
}

impl CopyMeter {
    /// It begins now.
    pub fn new(now: Duration) -> CopyMeter {
        CopyMeter {
            began: now,
            machine: 0,
            disks: 0,
            disk: (0, 0),
            total: 0,
        }
    }

    /// A piece was sent, or came.
    pub fn add(&mut self, part: SnapshotPart, offset: u64, bytes: usize, total: u64) {
        self.total = total;
        let end = offset.saturating_add(bytes as u64);
        match part {
            SnapshotPart::Machine => self.machine = end,
            SnapshotPart::Disk(index) => {
                if index != self.disk.0 {
                    self.disk = (index, self.disks);
                }
                // What is about to be written is sent before its turn.
                self.disks = self.disks.max(self.disk.1.saturating_add(end));
            }
        }
    }

    /// For the status.
    pub fn progress(&self, now: Duration) -> JoinProgress {
        let done = self.machine.saturating_add(self.disks);
        // The total is an estimate.
        let total = self.total.max(done);
        let seconds = now.saturating_sub(self.began).as_secs_f64();
        let rate = if seconds > 0.0 {
            done as f64 / seconds
        } else {
            0.0
        };
        JoinProgress {
            done_bytes: done,
            total_bytes: total,
            percent: if total > 0 {
                (done as f64 * 1000.0 / total as f64).round() / 10.0
            } else {
                0.0
            },
            bytes_per_second: rate as u64,
            seconds_left: (rate > 0.0).then(|| (total - done) as f64 / rate),
        }
    }
}

/// The meter that a thread keeps and an event loop looks at.
pub fn lock(meter: &Mutex<CopyMeter>) -> MutexGuard<'_, CopyMeter> {
    // Plain numbers: a panic elsewhere leaves nothing half done that matters.
    meter
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_that_are_left_out_count_as_copied() {
        let mut meter = CopyMeter::new(Duration::from_secs(5));
        meter.add(SnapshotPart::Machine, 0, 600, 4_000);
        meter.add(SnapshotPart::Machine, 600, 400, 4_000);
        let progress = meter.progress(Duration::from_secs(6));
        assert_eq!((progress.done_bytes, progress.total_bytes), (1_000, 4_000));
        assert_eq!(progress.bytes_per_second, 1_000);
        assert_eq!(progress.seconds_left, Some(3.0));
        meter.add(SnapshotPart::Disk(0), 500, 500, 4_000);
        meter.add(SnapshotPart::Disk(0), 0, 500, 4_000);
        assert_eq!(meter.progress(Duration::from_secs(7)).percent, 50.0);
        meter.add(SnapshotPart::Disk(1), 1_500, 500, 4_000);
        let progress = meter.progress(Duration::from_secs(9));
        assert_eq!(
            (progress.percent, progress.seconds_left),
            (100.0, Some(0.0))
        );
    }
}
