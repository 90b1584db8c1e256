//! Snapshots of a live machine, and copies of it in rounds.
//!
//! A backup whose machine is made of one snapshot begins as far behind as copying took, and has to replay
//! all of that before it can take over at once. So a copy has rounds: all of RAM, then what changed meanwhile,
//! until that is little; the last round is the snapshot, and only from there on the backup needs the log.

use super::super::copying::{Copying, Progress};
use super::super::messages::{
    BegunCopy, BegunDisks, BegunSnapshot, CopyAsks, LiveReport, SnapshotDisks,
};
use super::{Flush, Live};
use crate::disk::PassAhead;
use crate::host_time::monotonic_ns;
use crate::vcpu::SnapshotPages;
use environment::mpsc;
use machine::Machine;
use machine::memory::{Extent, PAGE_SIZE};
use machine::snapshot::SnapshotHead;
use replication::lag::{FULL_SPEED, RunShare};
use std::time::Duration;

/// Rounds of a copy at most: what changes as fast as it is copied is not made less by another one.
pub(crate) const MOST_ROUNDS: u64 = 5;
/// A round of so few pages is the last: its copy takes milliseconds.
const FEW_PAGES: usize = 512;

/// What is being taken of a live machine.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Begun when no disk request is under way.
    asked: Option<Asked>,
    copying: Option<Copying>,
    rounds: Option<Rounds>,
}

/// A snapshot that was asked for.
#[derive(Clone, Copy)]
struct Asked {
    pairing: u64,
    extent: Extent,
    disks: SnapshotDisks,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug)]
struct Rounds {
    pairing: u64,
    /// Begun so far.
    begun: u64,
    /// What the newest one held.
    pages: usize,
}

impl Rounds {
    /// So many pages changed since the newest round began: whether what holds them is the last.
    fn is_last(&self, changed: usize) -> bool {
        let is_less = changed <= self.pages / 2;
        changed <= FEW_PAGES || !is_less || self.begun + 1 >= MOST_ROUNDS
    }
}

impl Snapshots {
    /// The share of its time that the guest may run.
    pub(super) fn share(&self) -> RunShare {
        self.copying.as_ref().map_or(FULL_SPEED, Copying::share)
    }
}

impl Live<'_> {
    /// Takes the snapshot that is under way along, and says how long that took.
    pub(super) fn copy_pages(
        &mut self,
        copy: impl FnOnce(&mut Copying, &mut dyn Machine) -> Progress,
    ) -> u64 {
        let Some(copying) = &mut self.snapshots.copying else {
            return 0;
        };
        let began_ns = monotonic_ns();
        let is_wanted = self.ends.wanted_snapshot() == copying.pairing();
        if !is_wanted || copy(copying, &mut *self.guest.machine) == Progress::Done {
            self.end_copying();
        }
        monotonic_ns().saturating_sub(began_ns)
    }

    /// While the guest waits, the snapshot that is under way has the time. True if it needs more.
    pub(super) fn copies_while_waiting(&mut self) -> bool {
        let mut progress = Progress::Done;
        self.copy_pages(|copying, machine| {
            progress = copying.while_waiting(machine);
            progress
        });
        progress == Progress::More
    }

    /// Whether a copy is under way.
    pub(super) fn is_copying(&self) -> bool {
        self.snapshots.copying.is_some()
    }

    fn end_copying(&mut self) {
        if let Some(copying) = self.snapshots.copying.take() {
            copying.end(&mut *self.guest.machine);
        }
    }

    /// Begins a copy for this pairing with what there is to be copied of disks.
    pub(super) fn begin_disks(&mut self, pairing: u64) {
        if self.ends.wanted_snapshot() != pairing {
            return;
        }
        let disk_lengths = self.guest.copied_lengths();
        if disk_lengths.iter().all(|length| *length == 0) {
            return self.begin_copy(pairing);
        }
        let memory_bytes = self.guest.machine.pages_in_use() as u64 * PAGE_SIZE;
        self.ends.live(LiveReport::DisksBegun(Box::new(BegunDisks {
            memory_bytes,
            disk_lengths,
            asks: CopyAsks::new(pairing, self.ends.own.clone()),
        })));
    }

    /// A pass over the disks. Whoever has given it up meanwhile does not listen.
    pub(super) fn copy_disks(&mut self, pass: PassAhead) {
        if let Some(thread) = self.guest.disk_thread() {
            thread.copy_ahead(pass);
        }
    }

    /// There is no further pass.
    pub(super) fn end_disks(&mut self, pairing: u64) {
        if let Some(thread) = self.guest.disk_thread() {
            thread.end_ahead(pairing);
        }
    }

    /// Begins a copy for this pairing.
    pub(super) fn begin_copy(&mut self, pairing: u64) {
        if self.ends.wanted_snapshot() != pairing {
            return;
        }
        let began_ns = monotonic_ns();
        let (head, pages) = self.capture(pairing, Extent::First);
        let machine = &*self.guest.machine;
        let disk_lengths = self.guest.copied_lengths();
        let pages_in_use = machine.pages_in_use();
        self.snapshots.rounds = Some(Rounds {
            pairing,
            begun: 1,
            pages: pages_in_use,
        });
        self.ends.live(LiveReport::CopyBegun(Box::new(BegunCopy {
            pairing,
            head,
            pages,
            memory_bytes: pages_in_use as u64 * PAGE_SIZE,
            disk_lengths,
            pause: Duration::from_nanos(monotonic_ns().saturating_sub(began_ns)),
        })));
    }

    /// All pages of a round are on their way: another one holds what changed meanwhile.
    pub(super) fn next_round(&mut self, pairing: u64) {
        let is_wanted = self.ends.wanted_snapshot() == pairing;
        let is_its = |rounds: &mut Rounds| rounds.pairing == pairing;
        let Some(mut rounds) = self.snapshots.rounds.take_if(is_its) else {
            return;
        };
        if !is_wanted {
            return;
        }
        let changed = self.guest.machine.pages_changed();
        if rounds.is_last(changed) {
            return self.ask_snapshot(pairing, Extent::Changes, SnapshotDisks::Copied);
        }
        rounds.begun += 1;
        rounds.pages = changed;
        self.snapshots.rounds = Some(rounds);
        let (_, pages) = self.capture(pairing, Extent::Changes);
        self.ends.live(LiveReport::CopyRound(pairing, pages));
    }

    /// A snapshot is to be begun.
    pub(super) fn ask_snapshot(&mut self, pairing: u64, extent: Extent, disks: SnapshotDisks) {
        self.snapshots.asked = Some(Asked {
            pairing,
            extent,
            disks,
        });
        self.guest.hold_requests();
        self.begin_snapshot();
    }

    /// Begins the snapshot that was asked for, once no disk request is under way: so the copy of the
    /// disks and the machine are of the same moment. The guest runs on until then, and its new requests
    /// wait: they are open in the snapshot, and on the disks neither here nor in the copy.
    pub(super) fn begin_snapshot(&mut self) {
        let Some(asked) = self.snapshots.asked else {
            return;
        };
        let is_wanted = self.ends.wanted_snapshot() == asked.pairing;
        if is_wanted && self.guest.has_open_requests() {
            return;
        }
        self.snapshots.asked = None;
        if is_wanted {
            self.snapshot(asked);
        }
        self.guest.release_requests();
    }

    fn snapshot(&mut self, asked: Asked) {
        let Asked {
            pairing,
            extent,
            disks,
        } = asked;
        assert!(
            !self.guest.has_open_requests(),
            "the copy of the disks and the machine are of the same moment"
        );
        // A copy that is under way is not of what this one lets change.
        self.snapshots.rounds = None;
        if !self.checkpoints.are_made() {
            self.flush(Flush::Whole);
        }
        let began_ns = monotonic_ns();
        let (mut disk_parts, mut freezing) = (mpsc::sync_channel(1).1, None);
        match (self.guest.disk_thread(), disks) {
            (Some(thread), SnapshotDisks::Copied) => disk_parts = thread.begin_copy(pairing),
            (Some(thread), SnapshotDisks::Layered(id)) => freezing = Some(thread.freeze(id)),
            (Some(_), SnapshotDisks::Untouched) | (None, _) => {}
        }
        let (head, pages) = self.capture(pairing, extent);
        if extent == Extent::Changes {
            self.begin_checkpoints(pairing);
        }
        let mut begun = BegunSnapshot::of(&*self.guest.machine, pairing, head, (extent, pages));
        begun.disk_parts = disk_parts;
        begun.freezing = freezing;
        begun.pause = Duration::from_nanos(monotonic_ns().saturating_sub(began_ns));
        self.ends.live(LiveReport::Snapshot(Box::new(begun)));
    }

    /// Begins to take so much of RAM; what was under way ends.
    fn capture(&mut self, pairing: u64, extent: Extent) -> (SnapshotHead, SnapshotPages) {
        self.end_copying();
        self.finish_checkpoint();
        let machine = &mut *self.guest.machine;
        let head = machine.begin_snapshot(extent);
        let (copying, pages) = Copying::begin(machine, pairing, self.ends.own.clone());
        self.snapshots.copying = Some(copying);
        (head, pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest that writes as fast as it is copied would be copied for ever.
    #[test]
    fn a_copy_ends_when_little_changed_or_a_round_was_no_smaller_or_there_were_many() {
        let rounds = |begun, pages| Rounds {
            pairing: 1,
            begun,
            pages,
        };
        assert!(rounds(1, 100_000).is_last(FEW_PAGES));
        assert!(!rounds(1, 100_000).is_last(FEW_PAGES + 1));
        assert!(!rounds(1, 100_000).is_last(50_000));
        assert!(rounds(1, 100_000).is_last(50_001));
        assert!(rounds(MOST_ROUNDS - 1, 100_000).is_last(50_000));
    }
}
