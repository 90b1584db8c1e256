//! How far the copy for a joining backup is, alike on both sides.

use crate::status::JoinProgress;
use replication::blocks::WINDOW_BYTES;
use replication::message::SnapshotPart;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// What went over the connection for a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentBytes {
    /// Of the machine.
    pub machine: u64,
    /// Of its disks: what differed.
    pub disks: u64,
    /// How long the disks are.
    pub disk_length: u64,
}

impl fmt::Display for SentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(f, "the machine's {:.1} MiB", mib(self.machine))?;
        if self.disk_length > 0 {
            let (disks, length) = (mib(self.disks), mib(self.disk_length));
            write!(
                f,
                ", and {disks:.1} of its disks' {length:.0} MiB, which differed"
            )?;
        }
        Ok(())
    }
}

/// Follows the pieces of one snapshot.
#[derive(Clone, Copy, Debug)]
pub struct CopyMeter {
    began: Duration,
    /// Bytes of the machine.
    machine: u64,
    /// How long the disks are that were compared as a whole.
    disks_before: u64,
    /// The disk after them, up to where it was compared, and up to where its pieces came in the window
    /// after that.
    disk: u8,
    compared: u64,
    ahead: u64,
    /// Bytes of disks that were sent.
    differed: u64,
    total: u64,
}

impl CopyMeter {
    /// It begins now.
    pub fn new(now: Duration) -> CopyMeter {
        CopyMeter {
            began: now,
            machine: 0,
            disks_before: 0,
            disk: 0,
            compared: 0,
            ahead: 0,
            differed: 0,
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
                self.differed += bytes as u64;
                // What is about to be written is sent before its turn.
                if index == self.disk && end <= self.compared.saturating_add(WINDOW_BYTES) {
                    self.ahead = self.ahead.max(end);
                }
            }
        }
    }

    /// A disk was compared up to there.
    pub fn reached(&mut self, device: u8, end: u64) {
        if device != self.disk {
            self.disks_before += self.compared;
            self.disk = device;
        }
        (self.compared, self.ahead) = (end, end);
    }

    fn disks(&self) -> u64 {
        self.disks_before.saturating_add(self.ahead)
    }

    /// What was sent, when all was.
    pub fn sent(&self) -> SentBytes {
        SentBytes {
            machine: self.machine,
            disks: self.differed,
            disk_length: self.disks(),
        }
    }

    /// For the status.
    pub fn progress(&self, now: Duration) -> JoinProgress {
        let done = self.machine.saturating_add(self.disks());
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
            sent_bytes: self.machine.saturating_add(self.differed),
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
    fn what_is_equal_counts_as_done_and_not_as_sent() {
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
        // Before its turn.
        meter.add(SnapshotPart::Disk(1), 1_400, 100, 4_000);
        assert_eq!(meter.progress(Duration::from_secs(7)).percent, 50.0);
        meter.reached(0, 1_500);
        meter.reached(1, 1_500);
        let progress = meter.progress(Duration::from_secs(9));
        assert_eq!(
            (progress.percent, progress.seconds_left),
            (100.0, Some(0.0))
        );
        assert_eq!(progress.sent_bytes, 2_100);
        let sent = SentBytes {
            machine: 1_000,
            disks: 1_100,
            disk_length: 3_000,
        };
        assert_eq!(meter.sent(), sent);
    }
}
