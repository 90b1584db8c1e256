//! Watches a world of whole replicas from outside: what goes over the wires, the arbiter's keys, the
//! frames that leave.

use super::caught_up::Progress;
use super::holders::Holders;
use super::machine;
use super::shared::{ProcessId, State};
use super::store::ARBITERS;
use super::wires::Wires;
use crate::arbiter::{Arbiter, Mood};
use crate::checker::{BootId, Checker, Emitter};
use replication::message::Message;
use replication::record::{Record, RecordBody};
use replication::succession::{Entry, HostId, Key, Kind, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What is known.
pub struct Observer {
    /// The stores themselves.
    pub arbiters: [Arbiter; 2],
    /// What was decided at either: every key, wherever it was created first.
    pub arbiter: Arbiter,
    /// How each node's ways to them behave.
    pub moods: Vec<[Mood; 2]>,
    checker: Checker,
    /// Who holds the machine.
    pub holders: Holders,
    /// How far backups have executed what they were sent.
    pub progress: Progress,
    /// Who each process that wants to join is.
    hosts: BTreeMap<ProcessId, (u64, HostId)>,
    /// Visible outputs of the newest marker that each holds, whoever sent it.
    marked: BTreeMap<ProcessId, u64>,
    /// The keys by which each process is what it is: the newest that it made.
    opened: BTreeMap<ProcessId, Entry>,
    /// What was written to, and arrived at, each direction of a connection, by who receives.
    written: Wires,
    arrived: Wires,
    /// Keys under which Begin was sent: whoever joined by them has the machine, or is about to.
    begun: BTreeSet<Key>,
    /// What the guest says to be durable, in each boot.
    durable: BTreeMap<BootId, Vec<u64>>,
    /// Whoever went on with the machine of another and has not told the guest's network where it is now.
    owes_announcement: BTreeSet<ProcessId>,
    /// Boots whose guest was told of an error of a disk.
    told_of_error: BTreeSet<BootId>,
    /// A person said that a host is off: what only its disk has is lost.
    is_given_up: bool,
    /// Requests that were answered.
    pub answered: BTreeSet<u64>,
    /// How often each of these happened.
    pub counts: BTreeMap<String, u64>,
    /// Keys that were created.
    pub keys: u64,
    /// How often somebody asked for a copy of the machine.
    pub asked_for: u64,
    /// Pieces of checkpoints that were written, and by whom the last was.
    pub pieces: (u64, Option<ProcessId>),
    /// Who holds pieces without their checkpoint.
    holds_half: BTreeSet<ProcessId>,
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// What happened, and the hash of all of it.
    trace: Option<Vec<String>>,
    /// Of everything that was noted.
    pub fingerprint: u64,
}

impl Observer {
    /// Nothing happened yet.
    pub fn new(trace: bool, nodes: usize) -> Observer {
        Observer {
            arbiters: Default::default(),
            arbiter: Arbiter::default(),
            moods: vec![[Mood::Well; 2]; nodes],
            checker: Checker::default(),
            holders: Holders::default(),
            progress: Progress::default(),
            asked_for: 0,
            pieces: (0, None),
            holds_half: BTreeSet::new(),
            hosts: BTreeMap::new(),
            marked: BTreeMap::new(),
            opened: BTreeMap::new(),
            written: Wires::default(),
            arrived: Wires::default(),
            begun: BTreeSet::new(),
            durable: BTreeMap::new(),
            owes_announcement: BTreeSet::new(),
            told_of_error: BTreeSet::new(),
            is_given_up: false,
            answered: BTreeSet::new(),
            counts: BTreeMap::new(),
            keys: 0,
            violation: None,
            trace: trace.then(Vec::new),
            fingerprint: 0,
        }
    }

    /// A promise was broken.
    pub fn broken(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn check(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.broken(what);
        }
    }

    /// The run and the host of a process that wants to join.
    fn host(&self, process: ProcessId) -> (u64, HostId) {
        self.hosts.get(&process).copied().unwrap_or((0, HostId(0)))
    }

    /// The newest key that a process made.
    pub fn opened_by(&self, process: ProcessId) -> Option<&Entry> {
        self.opened.get(&process)
    }

    fn marker_is_held(&mut self, opened: &Entry, process: ProcessId) {
        let (_, host) = self.host(process);
        let marked = self.marked.get(&process).copied().unwrap_or(0);
        self.checker.marker_received(opened, host, marked);
    }

    /// It happened once more.
    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// What happened, if it was written down.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// Whether these processes, one a node, are the primary and the members of the newest generation.
    pub fn is_paired(&self, processes: &[ProcessId]) -> bool {
        let newest = self.arbiter.newest();
        newest.is_some_and(|newest| {
            matches!(newest.kind, Kind::Joined | Kind::Moved)
                && newest.membership().members.len() == processes.len() - 1
                && self.holders.all_hold(processes, run_of(&newest))
        })
    }

    /// Whether outputs wait for a journal in the newest generation.
    pub fn is_journaled(&self) -> bool {
        let newest = self.arbiter.newest();
        newest.is_some_and(|newest| newest.next.is_some_and(|next| next.journal.is_some()))
    }

    /// A person says that a host is off, whatever its disk holds; or takes it back.
    pub fn given_up(&mut self, is_given_up: bool) {
        self.is_given_up = is_given_up;
    }

    /// A connection has no ends any more.
    pub fn connection_closed(&mut self, id: u64) {
        self.written.closed(id);
        self.arrived.closed(id);
    }

    /// A process has closed its end of a connection.
    pub fn end_closed(&mut self, (id, side): (u64, usize), process: ProcessId, now_ns: u64) {
        if let Some(channel) = self.written.end_closed(id, side) {
            self.holders.closed(process, channel, now_ns);
        }
    }

    /// Side `side` of a connection writes.
    pub fn written(&mut self, id: u64, side: usize, from: ProcessId, to: ProcessId, bytes: &[u8]) {
        let messages = self.written.read((id, side), bytes);
        let channel = self.written.channel_of(id);
        for message in messages {
            if let Message::Hello { greeting, .. } = &message {
                let run = greeting.run.0 as u64;
                self.hosts.insert(from, (run, greeting.host.id));
            }
            self.holders.says(from, to, channel, &message);
            self.progress.says(from, &message);
            self.asked_for += u64::from(matches!(message, Message::Accept { .. }));
            if let Message::Records { records, .. } = &message {
                let is_piece = |record: &&Record| matches!(record.body, RecordBody::Piece(_));
                let pieces = records.iter().filter(is_piece).count() as u64;
                if pieces > 0 {
                    self.pieces = (self.pieces.0 + pieces, Some(from));
                }
            }
            let Some(opened) = self.opened.get(&from).cloned() else {
                continue;
            };
            match message {
                Message::Begin { .. } => {
                    self.count("begun");
                    self.begun.insert(opened.key.clone());
                    let result = self
                        .checker
                        .begin_sent(&opened, run_of(&opened), self.host(to).1);
                    self.check(result);
                }
                Message::Handover { .. } => {
                    self.count("handed over");
                    self.checker.handed_over(&opened);
                }
                _ => {}
            }
        }
    }

    /// Bytes arrived at side `side`. A dead process holds nothing.
    pub fn arrived(
        &mut self,
        id: u64,
        side: usize,
        from: ProcessId,
        to: ProcessId,
        bytes: &[u8],
        is_dead: bool,
    ) {
        for message in self.arrived.read((id, side), bytes) {
            self.progress.hears(to, &message);
            let Some(opened) = self.opened.get(&from).cloned() else {
                continue;
            };
            match message {
                Message::Begin { .. } if !is_dead => {
                    let (run, host) = self.host(to);
                    self.holders.is_member(to, run_of(&opened), host);
                    let result = self.checker.begin_read(&opened, run, host);
                    self.check(result);
                    self.marker_is_held(&opened, to);
                }
                Message::Records { records, .. } if !is_dead => {
                    for record in &records {
                        match record.body {
                            RecordBody::Piece(_) => self.holds_half.insert(to),
                            RecordBody::Checkpoint(_) => self.holds_half.remove(&to),
                            _ => false,
                        };
                    }
                    let markers = records.iter().filter_map(|record| match record.body {
                        RecordBody::Marker { visible_outputs } => Some(visible_outputs),
                        _ => None,
                    });
                    let marked = self.marked.entry(to).or_default();
                    *marked = markers.fold(*marked, u64::max);
                    self.marker_is_held(&opened, to);
                }
                // Its machine is another from here on.
                Message::SnapshotTaken { .. } => {
                    self.holds_half.remove(&to);
                    self.marked.remove(&to);
                }
                _ => {}
            }
        }
    }
}

/// As the checker names who wrote a key: a simulated host's random numbers are no longer.
fn run_of(opened: &Entry) -> u64 {
    opened.writer.run.0 as u64
}

impl State {
    /// Writes down what happened.
    pub fn note(&mut self, what: impl FnOnce(&mut String)) {
        let mut line = format!("{:12.6} ", self.now_ns as f64 / 1e9);
        what(&mut line);
        if !self.directory.is_empty() {
            line = line.replace(&self.directory, "");
        }
        let observer = &mut self.observer;
        observer.fingerprint = line.bytes().fold(observer.fingerprint, |hash, byte| {
            crate::random::mix(hash ^ u64::from(byte))
        });
        if let Some(trace) = &mut observer.trace {
            trace.push(line);
        }
    }

    /// A process printed a line: an event.
    pub fn tell(&mut self, process: ProcessId, line: &str) {
        let node = self.process(process).node;
        self.note(|text| {
            let _ = write!(text, "node {node} ({}): {line}", process.0);
        });
        if line.contains("waits_for_fence") {
            self.observer.count("waited for a fence");
        }
        // A guest that was told of an error of one disk has written to the others.
        let is_made = line.contains("the disks differ") && !self.observer.told_of_error.is_empty();
        if line.contains("diverged") && !self.differs() && !is_made {
            let what = format!("the replicas differ, and nobody made them: {line}");
            self.observer.broken(what);
        }
    }

    /// A key is at one of the arbiters: there first, or it is copied when the life moves. What was decided
    /// at one of them is never decided otherwise at the other.
    pub fn key_is_at(&mut self, process: ProcessId, which: usize, entry: Entry) {
        let observer = &mut self.observer;
        match observer.arbiter.entry(&entry.key) {
            Some(known) if known == entry => observer.count("key copied"),
            Some(known) => observer.broken(format!(
                "process {} has decided at the arbiter {} what was decided before: {entry}; {known}",
                process.0, ARBITERS[which]
            )),
            None => {
                let request = Request::Create {
                    key: entry.key.clone(),
                    after: None,
                    content: entry.content(),
                };
                let _created = observer.arbiter.carry_out(&request);
                self.key_created(process, entry);
            }
        }
    }

    /// A key was created.
    fn key_created(&mut self, process: ProcessId, entry: Entry) {
        self.note(|text| {
            let _ = write!(text, "key by process {}: {entry}", process.0);
        });
        let held = self.nobody_holds_it(process, &entry);
        let observer = &mut self.observer;
        observer.check(held);
        observer.count(&format!("{:?}", entry.kind));
        if entry.kind == Kind::TookOver && observer.holds_half.contains(&process) {
            observer.count("half a checkpoint held");
        }
        observer.keys += 1;
        observer.checker.key_created(&entry);
        if entry.next.is_none() {
            return;
        }
        if !matches!(entry.kind, Kind::Joined | Kind::Dropped | Kind::Moved) {
            let (now_ns, run) = (self.now_ns, run_of(&entry));
            let result = observer
                .checker
                .goes_live(now_ns, run, &entry, &observer.arbiter);
            observer.check(result);
            observer.holders.is_live(process);
        }
        // Rule 7: switches lead to the host before this one until they hear of the guest here.
        if matches!(
            entry.kind,
            Kind::TookOver | Kind::HandedOver | Kind::Recovered
        ) {
            observer.owes_announcement.insert(process);
        }
        observer.opened.insert(process, entry);
    }

    /// A snapshot of a process's machine is begun.
    pub fn snapshot_begun(&mut self, process: ProcessId) {
        let result = self.observer.holders.snapshot_begun(process, self.now_ns);
        self.observer.check(result);
    }

    /// A machine is powered on, with this log on its disk.
    pub fn powered_on(&mut self, process: ProcessId, log: &[u64]) {
        self.note(|text| {
            let _ = write!(
                text,
                "process {} begins with {} writes",
                process.0,
                log.len()
            );
        });
        self.disk_is_begun_from();
        let observer = &mut self.observer;
        let Some(opened) = observer.opened.get(&process).cloned() else {
            let what = format!("process {} powers on, and never made a key", process.0);
            return observer.broken(what);
        };
        if opened.kind == Kind::ColdStart {
            let life = opened.key.life;
            if std::mem::take(&mut observer.is_given_up) {
                observer.checker.may_have_lost(life);
            }
            let result = observer.checker.goes_on_from(life, log);
            observer.check(result);
            if !log.is_empty() {
                observer.count("started from a disk");
            }
        }
    }

    /// A frame left.
    pub fn emitted(&mut self, process: ProcessId, frame: &[u8]) {
        if machine::is_announcement(frame) {
            self.note(|text| {
                let _ = write!(text, "process {} says where the guest is", process.0);
            });
            self.observer.count("announced");
            self.observer.owes_announcement.remove(&process);
        }
        let Some((output, news)) = machine::said(frame) else {
            return;
        };
        self.note(|text| {
            let _ = write!(text, "process {} emits {output:?}", process.0);
        });
        self.has_spoken(process);
        let slept = self.process(process).slept;
        let observer = &mut self.observer;
        let Some(opened) = observer.opened.get(&process).cloned() else {
            let what = format!("process {} emits, and never made a key", process.0);
            return observer.broken(what);
        };
        if observer.owes_announcement.remove(&process) {
            let what = format!(
                "process {} went on with the guest and lets it speak before it has said where it is: {opened}",
                process.0
            );
            observer.broken(what);
        }
        let who = Emitter {
            run: run_of(&opened),
            opened,
            slept,
        };
        if news.is_wrong {
            let what = format!(
                "the guest of process {} read what it never wrote",
                process.0
            );
            observer.broken(what);
        }
        let boot = observer.checker.boot(&who.opened);
        if news.was_told_of_error && observer.told_of_error.insert(boot) {
            observer.count("told of a disk error");
            // A key of joining may land when the joiner is gone long since: it never had the machine.
            let joiners = match who.opened.kind {
                Kind::Joined => usize::from(!observer.begun.contains(&who.opened.key)),
                _ => 0,
            };
            if who.opened.membership().members.len() > joiners {
                let what = "the guest is told of a disk error, and a member could have taken over";
                observer.broken(what.into());
            }
        }
        let durable = observer.durable.entry(boot).or_default();
        durable.truncate(news.from as usize);
        durable.extend(&news.values);
        let result = observer
            .checker
            .emitted(&who, &[output], durable, &observer.arbiter);
        match result {
            Ok(twice) => {
                if twice {
                    observer.count("repeated");
                }
                if output.answers != 0 {
                    observer.answered.insert(output.answers);
                }
            }
            Err(what) => observer.broken(what),
        }
    }
}
