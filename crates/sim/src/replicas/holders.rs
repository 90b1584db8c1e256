//! Who holds the running machine, and who wants a copy of it, as far as that is seen from outside.

use super::shared::{ProcessId, State};
use crate::arbiter::Arbiter;
use replication::message::Message;
use replication::startup::Stance;
use replication::succession::{Entry, Generation, HostId, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// A joiner that left is told to the vcpu thread within this time, in nanoseconds.
const CANCELLED_WITHIN_NS: u64 = 100_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Its own: it made a key by which it is live.
    Live,
    /// That of the primary of this run, whose Begin it has read.
    Member { of: u64, host: HostId },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Holders {
    held: BTreeMap<ProcessId, Held>,
    /// Those that ever were live.
    were_live: BTreeSet<ProcessId>,
    /// Connections on which somebody asked this process for the machine, and when it closed them.
    wanted: BTreeMap<ProcessId, BTreeMap<u64, Option<u64>>>,
}

impl Holders {
    /// It made a key by which it is live.
    pub fn is_live(&mut self, process: ProcessId) {
        self.held.insert(process, Held::Live);
        self.were_live.insert(process);
    }

    /// Whether it ever was.
    pub fn was_live(&self, process: ProcessId) -> bool {
        self.were_live.contains(&process)
    }

    /// Whether it is live, by the newest that is known of it.
    pub fn is_live_now(&self, process: ProcessId) -> bool {
        self.held.get(&process) == Some(&Held::Live)
    }

    /// It has read the Begin of the primary of this run.
    pub fn is_member(&mut self, process: ProcessId, of: u64, host: HostId) {
        self.held.insert(process, Held::Member { of, host });
    }

    /// It says something.
    pub fn says(&mut self, process: ProcessId, to: ProcessId, connection: u64, message: &Message) {
        match message {
            Message::Hello { .. } => {
                self.held.remove(&process);
            }
            Message::Standing(standing) if standing.stance == Stance::NoMachine => {
                self.held.remove(&process);
            }
            Message::Accept { .. } => {
                self.wanted.entry(to).or_default().insert(connection, None);
            }
            _ => {}
        }
    }

    /// It has closed its end of a connection.
    pub fn closed(&mut self, process: ProcessId, connection: u64, now_ns: u64) {
        let wanted = self.wanted.get_mut(&process);
        if let Some(open) = wanted.and_then(|wanted| wanted.get_mut(&connection)) {
            open.get_or_insert(now_ns);
        }
    }

    /// Whether each of these processes holds the machine of the primary of this run, or is that primary.
    pub fn all_hold(&self, processes: &[ProcessId], run: u64) -> bool {
        let holds = |process: &ProcessId| match self.held.get(process) {
            Some(Held::Live) => true,
            Some(Held::Member { of, .. }) => *of == run,
            None => false,
        };
        let is_live = |process: &&ProcessId| self.held.get(process) == Some(&Held::Live);
        processes.iter().all(holds) && processes.iter().filter(is_live).count() == 1
    }

    /// A snapshot of its machine is begun: somebody who wants it has to be there.
    pub fn snapshot_begun(&self, process: ProcessId, now_ns: u64) -> Result<(), String> {
        let wanted = self.wanted.get(&process);
        let mut closed = wanted.into_iter().flatten().map(|(_, closed)| *closed);
        let is_recent =
            |at_ns: Option<u64>| at_ns.is_none_or(|at_ns| now_ns < at_ns + CANCELLED_WITHIN_NS);
        match closed.any(is_recent) {
            true => Ok(()),
            false => Err(format!(
                "process {} takes a snapshot of its machine for nobody",
                process.0
            )),
        }
    }
}

impl State {
    fn is_alive(&self, process: ProcessId) -> bool {
        let process = self.process(process);
        !process.dead && process.ended.is_none()
    }

    /// Whoever starts the machine from a disk must be sure that nobody holds the running one.
    pub fn nobody_holds_it(&self, starter: ProcessId, entry: &Entry) -> Result<(), String> {
        if entry.kind != Kind::ColdStart {
            return Ok(());
        }
        let held = &self.observer.holders.held;
        let holds = |(process, held): (&ProcessId, &Held)| {
            let is_its = match held {
                Held::Live => self.observer.opened_by(*process).is_some_and(|opened| {
                    opened.key.life == entry.key.life
                        && opened.next_generation() == entry.key.generation
                }),
                Held::Member { of, host } => is_member(&self.observer.arbiter, entry, *of, *host),
            };
            (is_its && self.is_alive(*process)).then_some(*process)
        };
        match held.iter().find_map(holds) {
            Some(holder) => Err(format!(
                "process {} gives up the running machine that process {} holds: {entry}",
                starter.0, holder.0
            )),
            None => Ok(()),
        }
    }
}

/// Whether `host` is a member of the generation that `entry` leaves, which the primary of this run opened.
fn is_member(arbiter: &Arbiter, entry: &Entry, run: u64, host: HostId) -> bool {
    let Some(before) = entry.key.generation.0.checked_sub(1) else {
        return false;
    };
    let opened = arbiter.entry(&entry.key.of(Generation(before)));
    opened.is_some_and(|opened| {
        opened.writer.run.0 as u64 == run
            && opened.next.is_some()
            && opened.membership().has_member(host)
    })
}
