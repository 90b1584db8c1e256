//! A host's disk and its markers: what survives a process, and what a loss of power leaves.

use crate::checker::machine;
use crate::faults::Fault;
use crate::process::Role;
use crate::scenario::MS;
use crate::world::{What, World};
use replication::marker::{Found, Marker, Worth};
use replication::record::InstructionCount;

/// Stands for what nobody wrote: of a disk that is being made anew.
const GARBAGE: u64 = u64::MAX;

/// The disk, the marker beside it, and the one in the state directory.
#[derive(Clone, Debug, Default)]
pub struct HostDisk {
    /// What a reader sees: the writes, in order.
    now: Vec<u64>,
    /// What a loss of power leaves at least.
    synced: Vec<u64>,
    disk_marker: Option<Vec<u8>>,
    state_marker: Option<Vec<u8>>,
}

impl HostDisk {
    /// What the markers say.
    pub fn worth(&self) -> Worth {
        let found = |content: &Option<Vec<u8>>| Found::read(&machine(), content.as_deref());
        Worth::of(&found(&self.state_marker), &[found(&self.disk_marker)])
    }

    /// Whether it was ever used.
    pub fn has_markers(&self) -> bool {
        self.state_marker.is_some()
    }

    /// What a reader sees.
    pub fn content(&self) -> &[u64] {
        &self.now
    }

    /// What a loss of power leaves at least.
    pub fn synced(&self) -> &[u64] {
        &self.synced
    }

    /// The guest wrote.
    pub fn written(&mut self, all: &[u64]) {
        self.now = all.to_vec();
    }

    /// A sync that began when this was there is done.
    fn sync(&mut self, content: &[u64]) {
        self.synced = content.to_vec();
    }

    /// It is made anew.
    pub fn is_being_copied(&mut self) {
        self.now = vec![GARBAGE];
        self.synced = vec![GARBAGE];
    }

    /// All of it was written, and nothing synced.
    pub fn was_copied(&mut self, content: Vec<u64>) {
        self.now = content;
    }

    /// Whether it is no machine's disk.
    pub fn is_half_copied(&self) -> bool {
        self.now.contains(&GARBAGE)
    }

    /// What was not synced is lost, or some of it. Says whether anything was.
    pub fn lose_power(&mut self, random: u64) -> bool {
        let before = self.now.len();
        if self.now.starts_with(&self.synced) {
            let unsynced = before - self.synced.len();
            let kept = self.synced.len() + random as usize % (unsynced + 1);
            self.now.truncate(kept);
        } else {
            self.now = vec![GARBAGE];
        }
        self.synced = self.now.clone();
        self.now.len() < before
    }
}

/// Why a marker is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A backup loses rights.
    Mark,
    /// A member's disk is settled.
    Member(u64),
    /// A primary's disk is settled.
    Primary,
}

/// A marker on its way: first a sync if it gives rights, then beside the disk, then in the state
/// directory. Each takes its time, and anything may happen in between.
#[derive(Clone, Debug)]
pub struct Write {
    marker: Marker,
    purpose: Purpose,
    /// What the disk held when the sync began.
    content: Vec<u64>,
    step: u8,
}

impl World {
    pub(crate) fn begin_write(&mut self, node: usize, run: u64, marker: Marker, why: Purpose) {
        let write = Write {
            marker,
            purpose: why,
            content: self.nodes[node].disk.now.clone(),
            step: u8::from(why == Purpose::Mark),
        };
        // A time of its own to lose the primary: what is under way is about a generation that ends.
        if matches!(why, Purpose::Member(_)) && self.random.percent(self.scenario.strike_percent) {
            let after = self.random.between(0, self.scenario.sync_time);
            let other = self.another(node);
            self.at(after, None, What::Fault(Fault::Kill(other)));
        }
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        // One after the other, in the order in which they were asked for, whichever role asked.
        process.writes.push_back(write.clone());
        if process.writes.len() == 1 {
            self.begin_next_write(node, run, write);
        }
    }

    fn begin_next_write(&mut self, node: usize, run: u64, mut write: Write) {
        write.content = self.nodes[node].disk.now.clone();
        let after = self.random.between(0, self.scenario.sync_time);
        self.at(after, Some((node, run)), What::Write(write));
    }

    /// One step of it.
    pub(crate) fn write(&mut self, node: usize, run: u64, mut write: Write) {
        self.delicate();
        let disk = &mut self.nodes[node].disk;
        match write.step {
            0 => disk.sync(&write.content),
            1 => disk.disk_marker = Some(write.marker.content()),
            2 => disk.state_marker = Some(write.marker.content()),
            _ => {
                self.written(node, write.purpose);
                let worth = self.nodes[node].disk.worth();
                if let Some(process) = &mut self.nodes[node].process {
                    process.startup.worth_is(worth);
                }
                let process = self.nodes[node].process.as_mut();
                let next = process.and_then(|process| {
                    process.writes.pop_front();
                    process.writes.front().cloned()
                });
                if let Some(next) = next {
                    self.begin_next_write(node, run, next);
                }
                return;
            }
        }
        let step = write.step;
        self.note(|| format!("node {node}: step {step} of {:?}", write.marker));
        write.step += 1;
        let after = self.random.between(0, 2) * MS;
        self.at(after, Some((node, run)), What::Write(write));
    }

    fn written(&mut self, node: usize, purpose: Purpose) {
        let now = self.clock(node);
        match (self.role(node), purpose) {
            (Some(Role::Primary(primary)), Purpose::Primary) => primary.core.settled(now),
            (Some(Role::Backup(backup)), Purpose::Mark) => backup.core.marked(now),
            (Some(Role::Backup(backup)), Purpose::Member(pairing)) => {
                backup.core.settled(now, pairing);
            }
            _ => {}
        }
        self.settle(node);
    }

    /// The guest's flushes, on both sides: a flush is complete when this host's disk has it and the
    /// core says that no other has to.
    pub(crate) fn see_to_flushes(&mut self, node: usize) {
        let (now, clock) = (self.now, self.clock(node));
        let ready_at = now + self.random.between(0, self.scenario.sync_time);
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        let mut both = false;
        let (written, synced) = match &mut process.role {
            Role::Starting => return,
            Role::Primary(primary) => {
                let open = primary.guest.open_flush();
                let mut synced = None;
                match (open, primary.flush) {
                    (Some((count, writes)), Some((covers, at))) if covers == writes => {
                        if now >= at && at != u64::MAX && primary.flushes_up_to >= count {
                            both = primary.flushes_up_to != InstructionCount::LAST;
                            primary
                                .inputs
                                .push(crate::guest::StubInput::Flushed(writes));
                            primary.flush = Some((writes, u64::MAX));
                        }
                        synced = (now >= at).then_some(writes);
                    }
                    (Some((_, writes)), _) => primary.flush = Some((writes, ready_at)),
                    (None, _) => primary.flush = None,
                }
                (primary.guest.disk().to_vec(), synced)
            }
            Role::Backup(backup) => {
                let Some(replayer) = &backup.replayer else {
                    return;
                };
                let open = replayer.guest().open_flush();
                let mut synced = None;
                if let Some((count, writes)) = open
                    && backup.flush_seen != (count, writes)
                    && backup.flush.is_none()
                {
                    backup.flush_seen = (count, writes);
                    backup.flush = Some((count, writes, ready_at));
                }
                let done = backup.flush.take_if(|(_, _, at)| now >= *at);
                let disk = replayer.guest().disk().to_vec();
                if let Some((count, writes, _)) = done {
                    synced = Some(writes);
                    backup.core.flushed(clock, backup.pairing, count);
                }
                (disk, synced)
            }
        };
        if both {
            self.coverage
                .reached(crate::coverage::Situation::FlushedOnBoth);
        }
        let disk = &mut self.nodes[node].disk;
        disk.written(&written);
        if let Some(writes) = synced {
            let covered = written[..writes as usize].to_vec();
            if covered.len() > disk.synced.len() || !written.starts_with(&disk.synced) {
                disk.sync(&covered);
            }
        }
    }
}
