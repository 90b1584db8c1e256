//! A model of a replica around the shipped decisions: joining, following, taking over, flushes.

use crate::model::{World, host};
use replication::marker::{DiskState, Role, Worth};
use replication::startup::{
    PeerAnswer, PeerId, Stance, Standing, Startup, StartupAction, StartupConfig,
};
use replication::succession::{
    Claim, ClaimPacing, Durability, Entry, Generation, Key, Kind, Membership, Outcome, Request,
    RunId, Verdict, Writer,
};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Debug)]
pub enum Message {
    Hello,
    Welcome(Key),
    Refuse,
    CopyPlease,
    Snapshot(Vec<u32>),
    Write(u32),
    Ready,
    Begin(Vec<u8>),
    /// The guest knows that a flush of so many writes is complete.
    Flushed(usize),
    Ack(usize),
    Synced(usize),
    Goodbye,
}

/// A connection: each side's process and what is on its way to it.
pub struct Conn {
    ends: [(usize, u64); 2],
    queues: [VecDeque<Message>; 2],
    pub open: bool,
}

impl Conn {
    pub fn dies(&mut self, run: u64) {
        self.open &= self.ends.iter().all(|(_, end)| *end != run);
    }

    pub fn send(&mut self, from: u64, message: Message) {
        let to = usize::from(self.ends[0].1 == from);
        self.queues[to].push_back(message);
    }
}

pub struct Process {
    pub run: u64,
    pub startup: Startup,
    pub body: Body,
    /// A person's word stands behind what it does.
    pub spoken: bool,
}

impl Process {
    pub fn new(now: Duration, run: u64, config: StartupConfig, worth: Worth) -> Process {
        let startup = Startup::new(now, config, worth);
        Process {
            run,
            startup,
            body: Body::Starting,
            spoken: false,
        }
    }
}

pub enum Body {
    Starting,
    Backup(Box<Backup>),
    Primary(Box<Primary>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Hello,
    MarkDisk,
    MarkState,
    AwaitSnapshot,
    Copying,
    Ready,
    ReadBack,
    Member,
    Claiming,
}

pub struct Backup {
    conn: usize,
    newest: Entry,
    next_key: Key,
    step: Step,
    snapshot: Vec<u32>,
    begin: Vec<u8>,
    entry: Option<Entry>,
    asked: bool,
    settled: u8,
    claim: Option<Claim>,
}

impl Backup {
    /// The key by which it may take over.
    pub fn may_leave(&self) -> Option<&Key> {
        let held = matches!(self.step, Step::Member | Step::Claiming);
        self.entry.as_ref().filter(|_| held).map(|_| &self.next_key)
    }

    pub fn is_copying(&self) -> bool {
        matches!(
            self.step,
            Step::MarkState | Step::AwaitSnapshot | Step::Copying
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Alone,
    Joining,
    Copying,
    Ready,
    Paired,
}

pub struct Primary {
    /// The key that opened its generation.
    entry: Entry,
    phase: Phase,
    conn: Option<usize>,
    claim: Option<Claim>,
    /// Synced, disk's marker, state's marker.
    settled: u8,
    /// Writes that the member's disk has.
    member_synced: usize,
    /// Writes whose flush the guest knows to be complete, and how many of them the member knows.
    flushed: usize,
}

impl Primary {
    fn new(entry: Entry) -> Primary {
        Primary {
            entry,
            phase: Phase::Alone,
            conn: None,
            claim: None,
            settled: 0,
            member_synced: 0,
            flushed: 0,
        }
    }

    pub fn is_protected(&self) -> bool {
        self.phase == Phase::Paired && self.flushed > 0
    }

    fn next(&self) -> &Membership {
        self.entry.next.as_ref().unwrap()
    }
}

fn writer(index: usize, run: u64) -> Writer {
    Writer {
        host: host(index),
        run: RunId(run.into()),
    }
}

impl World {
    pub fn standing(&self, index: usize) -> Option<Standing> {
        let machine = &self.hosts[index];
        let process = machine.process.as_ref().filter(|_| !machine.frozen)?;
        let (entry, stance) = match &process.body {
            Body::Starting => return Some(process.startup.standing()),
            Body::Backup(backup) => {
                let stance = match backup.step {
                    Step::Member => Stance::Following,
                    Step::Claiming => Stance::Claiming,
                    _ => Stance::Joining,
                };
                (backup.entry.as_ref().unwrap_or(&backup.newest), stance)
            }
            Body::Primary(primary) => (&primary.entry, Stance::Live),
        };
        Some(Standing {
            machine: crate::model::name(),
            host: host(index),
            stance,
            life: entry.key.life,
            life_id: entry.life,
            generation: entry.next_generation(),
            worth: self.worth(index),
        })
    }

    pub fn peer_says(&mut self, index: usize, peer: PeerId, answer: PeerAnswer) {
        let now = self.now;
        if let Some(process) = &mut self.hosts[index].process {
            process.startup.peer_answered(now, peer, answer);
        }
        self.act(index);
    }

    fn process(&mut self, index: usize) -> &mut Process {
        self.hosts[index].process.as_mut().unwrap()
    }

    /// Carries out what a starting process wants.
    pub fn act(&mut self, index: usize) {
        while let Some(action) = self.hosts[index]
            .process
            .as_mut()
            .and_then(|process| process.startup.next_action())
        {
            match action {
                StartupAction::Ask(request) => self.ask(index, request),
                StartupAction::AskPeers => self.ask_peers(index),
                StartupAction::Wait(why) => self.note(format!("{}: {why}", host(index))),
                StartupAction::Join { peer, newest } => self.join(index, peer, *newest),
                StartupAction::Start { won } => self.goes_live_from_disk(index, *won),
                StartupAction::FenceJournal(_) => unreachable!("no host here has a journal"),
                StartupAction::Refuse(why) => {
                    self.note(format!("{}: {why}", host(index)));
                    self.reached("refused after the end");
                    self.word_is_used(index);
                    let run = self.run_of(index).unwrap();
                    self.conns.iter_mut().for_each(|conn| conn.dies(run));
                    self.hosts[index].process = None;
                    self.hosts[index].refused = true;
                    return;
                }
            }
        }
    }

    fn goes_live_from_disk(&mut self, index: usize, won: Entry) {
        let spoken = std::mem::replace(&mut self.process(index).spoken, false);
        self.note(format!("{}: starts, {won}", host(index)));
        self.word_is_used(index);
        if won.kind == Kind::PowerOn {
            let situation = if spoken {
                "a new life by a person's word"
            } else {
                "powered on"
            };
            self.reached(situation);
        } else {
            let left = self
                .arbiter
                .get(&won.key.of(Generation(won.key.generation.0 - 1)));
            let left = Entry::parse(
                &won.key.of(Generation(won.key.generation.0 - 1)),
                left.unwrap(),
            );
            let left = left.unwrap().next.unwrap();
            let next = won.next.as_ref().unwrap();
            self.reached(if spoken {
                "started by a person's word"
            } else if left.primary == host(index) {
                "started from its disk"
            } else if next.since == won.next_generation() {
                "started from a member's disk"
            } else {
                "started from the disk of the reign before"
            });
        }
        self.starts_from_disk(index);
        self.process(index).body = Body::Primary(Box::new(Primary::new(won)));
    }

    fn join(&mut self, index: usize, peer: PeerId, newest: Entry) {
        self.word_is_used(index);
        self.process(index).spoken = false;
        let other = (0..self.hosts.len())
            .filter(|other| *other != index)
            .nth(usize::from(peer.0))
            .unwrap();
        let run = self.run_of(index).unwrap();
        let other_run = self.run_of(other).unwrap_or(0);
        self.conns.push(Conn {
            ends: [(index, run), (other, other_run)],
            queues: Default::default(),
            open: other_run != 0,
        });
        let conn = self.conns.len() - 1;
        self.send(conn, run, Message::Hello);
        self.process(index).body = Body::Backup(Box::new(Backup {
            conn,
            next_key: newest.next_key(),
            newest,
            step: Step::Hello,
            snapshot: Vec::new(),
            begin: Vec::new(),
            entry: None,
            asked: false,
            settled: 0,
            claim: None,
        }));
    }

    /// Gives up what it was, and looks again.
    fn again(&mut self, index: usize, why: &str) {
        self.note(format!("{}: looks again: {why}", host(index)));
        let worth = self.worth(index);
        let now = self.now;
        let process = self.process(index);
        let run = process.run;
        process.body = Body::Starting;
        process.startup.again(now, worth);
        for conn in &mut self.conns {
            conn.dies(run);
        }
        self.act(index);
    }

    /// Lets a process do one thing of its own accord.
    pub fn work(&mut self, index: usize) {
        if self.hosts[index].frozen || self.hosts[index].process.is_none() {
            return;
        }
        let now = self.now;
        match &self.process(index).body {
            Body::Starting => {
                let startup = &mut self.process(index).startup;
                if startup
                    .next_deadline()
                    .is_some_and(|deadline| deadline <= now)
                {
                    startup.tick(now);
                }
                self.act(index);
            }
            Body::Backup(_) => self.backup_works(index),
            Body::Primary(_) => self.primary_works(index),
        }
    }

    pub fn arbiter_answers(&mut self, index: usize, request: &Request, outcome: &Outcome) {
        let now = self.now;
        match &mut self.process(index).body {
            Body::Starting => {
                self.process(index)
                    .startup
                    .arbiter_answered(now, request, outcome);
                self.act(index);
            }
            Body::Backup(_) => self.backup_hears_arbiter(index, request, outcome),
            Body::Primary(_) => self.primary_hears_arbiter(index, request, outcome),
        }
    }

    /// Whether a process could read something.
    pub fn can_take(&self, conn: usize, to_first: bool) -> bool {
        let side = usize::from(!to_first);
        let (index, run) = self.conns[conn].ends[side];
        let is_there = self.run_of(index) == Some(run) && !self.hosts[index].frozen;
        is_there && !self.conns[conn].queues[side].is_empty()
    }

    pub fn take_message(&mut self, conn: usize, to_first: bool) {
        let side = usize::from(!to_first);
        let (index, run) = self.conns[conn].ends[side];
        if self.run_of(index) != Some(run) || self.hosts[index].frozen {
            return;
        }
        let Some(message) = self.conns[conn].queues[side].pop_front() else {
            return;
        };
        match &self.process(index).body {
            Body::Backup(backup) if backup.conn == conn => self.backup_reads(index, message),
            Body::Primary(_) => self.primary_reads(index, conn, message),
            // Whoever is no primary takes no backup.
            _ if matches!(message, Message::Hello) => self.conns[conn].open = false,
            _ => {}
        }
    }

    fn backup(&mut self, index: usize) -> &mut Backup {
        match &mut self.process(index).body {
            Body::Backup(backup) => backup,
            _ => panic!("no backup"),
        }
    }

    fn backup_reads(&mut self, index: usize, message: Message) {
        let run = self.run_of(index).unwrap();
        let backup = self.backup(index);
        let conn = backup.conn;
        match (backup.step, message) {
            (Step::Claiming, _) => {}
            (Step::Hello, Message::Welcome(key)) => {
                // Only the primary of the newest generation may overwrite this host's disk.
                if key == backup.newest.next_key() {
                    backup.step = Step::MarkDisk;
                } else {
                    self.again(index, "another generation");
                }
            }
            (Step::Hello, Message::Refuse) => self.again(index, "refused"),
            (Step::AwaitSnapshot, Message::Snapshot(writes)) => {
                backup.snapshot = writes;
                backup.step = Step::Copying;
                self.hosts[index].disk.now = vec![u32::MAX];
            }
            (Step::Copying, Message::Write(id)) => backup.snapshot.push(id),
            (Step::Ready | Step::ReadBack | Step::Member, Message::Write(id)) => {
                self.hosts[index].disk.now.push(id);
            }
            (Step::Ready, Message::Begin(content)) => {
                backup.begin = content;
                backup.step = Step::ReadBack;
            }
            // Read in order with Begin, but not yet acknowledged.
            (Step::ReadBack, flushed @ Message::Flushed(_)) => {
                self.conns[conn].queues[0].push_front(flushed);
            }
            (Step::Member, Message::Flushed(length)) => self.send(conn, run, Message::Ack(length)),
            (_, Message::Goodbye) => self.again(index, "goodbye"),
            (step, other) => panic!("{step:?} hears {other:?}"),
        }
    }

    fn backup_works(&mut self, index: usize) {
        let (now, run) = (self.now, self.run_of(index).unwrap());
        let backup = self.backup(index);
        let (conn, step) = (backup.conn, backup.step);
        let newest = backup.newest.clone();
        if !self.conns[conn].open && step != Step::Claiming {
            let member = step == Step::Member;
            return if member {
                self.claim_taking_over(index);
            } else {
                self.again(index, "the connection ended")
            };
        }
        let copying = World::marker(&newest, Role::None, DiskState::Copying);
        match step {
            Step::MarkDisk => {
                self.write_disk_marker(index, &copying);
                self.backup(index).step = Step::MarkState;
            }
            Step::MarkState => {
                self.write_state_marker(index, &copying);
                self.backup(index).step = Step::AwaitSnapshot;
                self.send(conn, run, Message::CopyPlease);
            }
            Step::Copying => {
                let copied = std::mem::take(&mut self.backup(index).snapshot);
                let disk = &mut self.hosts[index].disk;
                disk.now = copied;
                disk.synced = vec![u32::MAX];
                self.backup(index).step = Step::Ready;
                self.send(conn, run, Message::Ready);
            }
            Step::ReadBack if !self.backup(index).asked => {
                self.backup(index).asked = true;
                let key = newest.next_key();
                self.ask(index, Request::Read { key });
            }
            Step::Member => self.member_settles(index),
            Step::Claiming => {
                let claim = self.backup(index).claim.as_mut().unwrap();
                if let Some(request) = claim.poll(now) {
                    self.ask(index, request);
                }
            }
            _ => {}
        }
    }

    /// Syncs, then markers, then says what its disk has.
    fn member_settles(&mut self, index: usize) {
        let run = self.run_of(index).unwrap();
        let backup = self.backup(index);
        let (conn, settled) = (backup.conn, backup.settled);
        let marker = World::marker(
            backup.entry.as_ref().unwrap(),
            Role::Member,
            DiskState::Whole,
        );
        match settled {
            0 => {
                let disk = &mut self.hosts[index].disk;
                disk.synced = disk.now.clone();
            }
            1 => self.write_disk_marker(index, &marker),
            2 => self.write_state_marker(index, &marker),
            _ => {
                let disk = &mut self.hosts[index].disk;
                disk.synced = disk.now.clone();
                let length = disk.now.len();
                self.send(conn, run, Message::Synced(length));
                return;
            }
        }
        self.backup(index).settled += 1;
    }

    fn claim_taking_over(&mut self, index: usize) {
        let (now, run) = (self.now, self.run_of(index).unwrap());
        let backup = self.backup(index);
        let left = backup.entry.clone().unwrap();
        let entry = left.taken_over(writer(index, run), Kind::TookOver, left.record);
        let backup = self.backup(index);
        backup.claim = Some(Claim::new(
            now,
            entry,
            None,
            ClaimPacing::default(),
            Default::default(),
        ));
        backup.step = Step::Claiming;
    }

    fn backup_hears_arbiter(&mut self, index: usize, request: &Request, outcome: &Outcome) {
        let (now, run) = (self.now, self.run_of(index).unwrap());
        let backup = self.backup(index);
        let conn = backup.conn;
        match backup.step {
            Step::ReadBack => {
                backup.asked = false;
                match outcome {
                    Outcome::Holds(content) if *content == backup.begin => {
                        let entry = Entry::parse(&backup.newest.next_key(), content).unwrap();
                        backup.next_key = entry.next_key();
                        backup.entry = Some(entry);
                        backup.step = Step::Member;
                        self.send(conn, run, Message::Ack(0));
                    }
                    Outcome::Unknown(_) => {}
                    Outcome::Holds(_) if self.options.torn_keys => {}
                    other => self.violated(format!("Begin without a key: {other:?}")),
                }
            }
            Step::Claiming => match backup.claim.as_mut().unwrap().answer(now, request, outcome) {
                Verdict::Pending => {}
                Verdict::Lost(_) => {
                    self.reached("lost a claim");
                    self.again(index, "lost its claim");
                }
                Verdict::Won => {
                    let entry = backup.claim.as_ref().unwrap().entry().clone();
                    self.note(format!("{}: {entry}", host(index)));
                    self.reached("took over");
                    self.starts_from_disk(index);
                    self.process(index).body = Body::Primary(Box::new(Primary::new(entry)));
                }
            },
            _ => {}
        }
    }

    fn primary(&mut self, index: usize) -> &mut Primary {
        match &mut self.process(index).body {
            Body::Primary(primary) => primary,
            _ => panic!("no primary"),
        }
    }

    fn primary_reads(&mut self, index: usize, conn: usize, message: Message) {
        let run = self.run_of(index).unwrap();
        let writes = self.hosts[index].disk.now.clone();
        let (joiner, joiner_run) = self.conns[conn].ends[0];
        let primary = self.primary(index);
        let is_its = primary.conn == Some(conn);
        match (primary.phase, message) {
            (phase, Message::Hello) => {
                let free = phase == Phase::Alone && primary.settled == 3 && primary.claim.is_none();
                if free {
                    primary.phase = Phase::Joining;
                    primary.conn = Some(conn);
                    primary.member_synced = 0;
                    let key = primary.entry.next_key();
                    self.send(conn, run, Message::Welcome(key));
                } else {
                    self.send(conn, run, Message::Refuse);
                }
            }
            (Phase::Joining, Message::CopyPlease) if is_its => {
                primary.phase = Phase::Copying;
                self.send(conn, run, Message::Snapshot(writes));
            }
            (Phase::Copying, Message::Ready) if is_its && primary.claim.is_none() => {
                primary.phase = Phase::Ready;
                let next = Membership {
                    members: vec![host(joiner)],
                    durability: self.options.durability,
                    ..self.primary(index).next().clone()
                };
                self.claim_leaving(index, Kind::Joined, Some(next));
                let _ = joiner_run;
            }
            (Phase::Paired, Message::Ack(length)) if is_its => {
                let known = self.primary(index).flushed.max(length);
                self.primary(index).flushed = known;
                self.becomes_durable(index, length);
                self.reached("protected");
            }
            (Phase::Paired, Message::Synced(length)) if is_its => primary.member_synced = length,
            _ => {}
        }
    }

    fn becomes_durable(&mut self, index: usize, length: usize) {
        if length > self.durable.len() {
            let writes = self.hosts[index].disk.now[..length].to_vec();
            if !writes.starts_with(&self.durable) {
                self.violated("two histories are durable".to_owned());
            }
            self.durable = writes;
        }
    }

    fn claim_leaving(&mut self, index: usize, kind: Kind, next: Option<Membership>) {
        let (now, run) = (self.now, self.run_of(index).unwrap());
        let primary = self.primary(index);
        let entry = primary
            .entry
            .left(writer(index, run), kind, primary.entry.record, next);
        primary.claim = Some(Claim::new(
            now,
            entry,
            None,
            ClaimPacing::default(),
            Default::default(),
        ));
    }

    fn primary_works(&mut self, index: usize) {
        let now = self.now;
        let primary = self.primary(index);
        let (phase, conn) = (primary.phase, primary.conn);
        if let Some(claim) = &mut primary.claim
            && let Some(request) = claim.poll(now)
        {
            return self.ask(index, request);
        }
        let is_free = self.primary(index).claim.is_none();
        let is_dead = conn.is_some_and(|conn| !self.conns[conn].open);
        if is_dead && is_free {
            let primary = self.primary(index);
            if phase == Phase::Paired {
                let next = Membership {
                    members: Vec::new(),
                    ..primary.next().clone()
                };
                return self.claim_leaving(index, Kind::Dropped, Some(next));
            }
            primary.phase = Phase::Alone;
            primary.conn = None;
        }
        let is_over = is_free && !self.calm && self.random.below(500) == 0;
        if is_over && self.primary(index).settled == 3 && phase != Phase::Ready {
            return self.claim_leaving(index, Kind::Ended, None);
        }
        match self.random.below(3) {
            0 => self.guest_writes(index),
            1 => self.primary_settles(index),
            _ => self.guest_flushes(index),
        }
    }

    fn guest_writes(&mut self, index: usize) {
        let run = self.run_of(index).unwrap();
        let id = self.next_write;
        self.next_write += 1;
        self.hosts[index].disk.now.push(id);
        let primary = self.primary(index);
        if let (Some(conn), Phase::Copying | Phase::Ready | Phase::Paired) =
            (primary.conn, primary.phase)
        {
            self.send(conn, run, Message::Write(id));
        }
    }

    fn primary_settles(&mut self, index: usize) {
        let primary = self.primary(index);
        let marker = World::marker(&primary.entry, Role::Primary, DiskState::Whole);
        match primary.settled {
            0 => {
                let disk = &mut self.hosts[index].disk;
                disk.synced = disk.now.clone();
            }
            1 => self.write_disk_marker(index, &marker),
            2 => self.write_state_marker(index, &marker),
            _ => return,
        }
        self.primary(index).settled += 1;
    }

    /// No flush completes before the disk is settled. With a member it completes, as far as the
    /// world can know, when the member has its record.
    fn guest_flushes(&mut self, index: usize) {
        let run = self.run_of(index).unwrap();
        let disk = &mut self.hosts[index].disk;
        let length = disk.now.len();
        let primary = self.primary(index);
        if primary.settled < 3 {
            return;
        }
        let disk = &mut self.hosts[index].disk;
        disk.synced = disk.now.clone();
        let primary = self.primary(index);
        let both = primary.next().durability == Durability::Both;
        match (primary.phase, primary.conn) {
            (Phase::Paired, Some(conn)) => {
                let length = if both {
                    length.min(primary.member_synced)
                } else {
                    length
                };
                if self.conns[conn].open {
                    self.send(conn, run, Message::Flushed(length));
                }
            }
            _ => self.becomes_durable_alone(index, length),
        }
    }

    fn becomes_durable_alone(&mut self, index: usize, length: usize) {
        let primary = self.primary(index);
        let key = primary.entry.next_key();
        let (entry, run) = (primary.entry.clone(), self.run_of(index).unwrap());
        // Alone, outputs leave at once: nobody else may have left the generation.
        if let Some(content) = self.arbiter.get(&key)
            && let Ok(by) = Entry::parse(&key, content)
            && by.writer.run != RunId(run.into())
        {
            self.violated(format!(
                "two live machines: {} in {entry}, but {by}",
                host(index)
            ));
        }
        self.becomes_durable(index, length);
    }

    fn primary_hears_arbiter(&mut self, index: usize, request: &Request, outcome: &Outcome) {
        let (now, run) = (self.now, self.run_of(index).unwrap());
        let primary = self.primary(index);
        let Some(claim) = &mut primary.claim else {
            return;
        };
        let verdict = claim.answer(now, request, outcome);
        let entry = claim.entry().clone();
        match verdict {
            Verdict::Pending => return,
            Verdict::Lost(_) => {
                self.reached("lost a claim");
                return self.again(index, "lost its claim");
            }
            Verdict::Won => primary.claim = None,
        }
        self.note(format!("{}: {entry}", host(index)));
        let primary = self.primary(index);
        let conn = primary.conn;
        match entry.kind {
            Kind::Joined => {
                let content = entry.content();
                primary.entry = entry;
                primary.phase = Phase::Paired;
                primary.flushed = 0;
                if let Some(conn) = conn
                    && self.conns[conn].open
                {
                    self.send(conn, run, Message::Begin(content));
                }
            }
            Kind::Dropped => {
                primary.entry = entry;
                primary.phase = Phase::Alone;
                primary.conn = None;
            }
            _ => {
                self.reached("the guest powered off");
                if let Some(conn) = conn
                    && self.conns[conn].open
                {
                    self.send(conn, run, Message::Goodbye);
                }
                self.again(index, "its life is over");
            }
        }
    }
}
