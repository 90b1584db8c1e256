//! A snapshot of a replaying machine, for a file: taken while it replays.

use super::super::Ends;
use super::super::copying::{Copying, Progress};
use super::super::guest::ReplicaGuest;
use super::super::messages::{BegunSnapshot, ReplayReport};
use crate::host_time::monotonic_ns;
use environment::mpsc;
use machine::memory::Extent;
use replication::lag::FULL_SPEED;
use replication::record::RecordNumber;
use std::time::Duration;

/// However little room is left for pages that wait, records are replayed again after this.
const LONGEST_SLEEP_NS: u64 = 5_000_000;

/// A snapshot that was asked for.
struct Asked {
    number: u64,
    /// Everything up to this record was acknowledged: the outside may have seen it, and expects it to be in it.
    after: RecordNumber,
}

/// What is being taken of a replaying machine.
#[derive(Default)]
pub(super) struct Snapshots {
    asked: Option<Asked>,
    copying: Option<Copying>,
}

impl Snapshots {
    /// One is wanted, with this number, of a machine that has replayed this record.
    pub(super) fn ask(&mut self, number: u64, after: RecordNumber) {
        self.asked = Some(Asked { number, after });
    }

    /// Begins it, as soon as all is replayed that there was when it was asked for, and the guest waits for nothing that the records alone bring: in a machine that is made
    /// of it nobody would answer. Disk requests that are open in it are submitted again there, on disks that
    /// have been written to by them already or not: both come to the same.
    pub(super) fn begin(&mut self, guest: &mut ReplicaGuest, replayed: RecordNumber, ends: &Ends) {
        let is_due = |asked: &mut Asked| asked.after <= replayed && !guest.waits_for_entropy();
        let Some(Asked { number, .. }) = self.asked.take_if(is_due) else {
            return;
        };
        self.end(guest);
        let began_ns = monotonic_ns();
        let disk_parts = match guest.disk_thread() {
            Some(thread) => thread.begin_copy(number),
            None => mpsc::sync_channel(1).1,
        };
        let machine = &mut *guest.machine;
        let head = machine.begin_snapshot(Extent::Whole);
        let (copying, pages) = Copying::begin(machine, number, ends.own.clone());
        self.copying = Some(copying);
        let mut begun = BegunSnapshot::of(machine, number, head, (Extent::Whole, pages));
        begun.disk_parts = disk_parts;
        begun.pause = Duration::from_nanos(monotonic_ns().saturating_sub(began_ns));
        ends.replay(ReplayReport::Snapshot(Box::new(begun)));
    }

    /// Records were replayed for `ran_ns`: takes the snapshot along, and rests where its pages wait for too long.
    /// Who waits for the end of the replay is not held up by it.
    pub(super) fn after_running(&mut self, guest: &mut ReplicaGuest, ran_ns: u64, ends: &Ends) {
        let Some(copying) = &mut self.copying else {
            return;
        };
        let progress = copying.after_running(&mut *guest.machine, ran_ns);
        let share = u64::from(copying.share());
        if progress == Progress::Done {
            return self.end(guest);
        }
        let full = u64::from(FULL_SPEED);
        if share < full && !ends.is_eager() {
            let sleep_ns = ran_ns * (full - share) / share.max(1);
            let sleep_ns = sleep_ns.min(LONGEST_SLEEP_NS);
            environment::thread::sleep(Duration::from_nanos(sleep_ns));
        }
    }

    /// There is nothing to replay: takes the snapshot along. True if it needs more time.
    pub(super) fn while_waiting(&mut self, guest: &mut ReplicaGuest) -> bool {
        let Some(copying) = &mut self.copying else {
            return false;
        };
        let progress = copying.while_waiting(&mut *guest.machine);
        if progress == Progress::Done {
            self.end(guest);
        }
        progress == Progress::More
    }

    /// Nothing is taken any more.
    pub(super) fn end(&mut self, guest: &mut ReplicaGuest) {
        if let Some(copying) = self.copying.take() {
            copying.end(&mut *guest.machine);
        }
    }
}
