//! What stands in for the program: event loop and vcpu thread of one replica, around the real core.

use crate::fetching::Fetching;
use crate::guest::{StubGuest, StubInput, StubOutput};
use crate::random::Random;
use crate::scenario::Scenario;
use replication::ConnectionId;
use replication::backup::Backup;
use replication::guest::{Guest, GuestStop};
use replication::message::DivergenceReport;
use replication::primary::Primary;
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use replication::replay::{Progress, Replayer};
use replication::startup::Startup;
use replication::succession::Entry;
use std::collections::VecDeque;

/// From the primary's vcpu thread to its event loop, in order.
#[derive(Debug)]
pub enum FromVcpu {
    /// An input or a digest, and the guest's fingerprint right after it.
    Record(Record, u64),
    /// Outputs, and the guest's fingerprint.
    Outputs {
        count: InstructionCount,
        visible: u64,
        outputs: Vec<StubOutput>,
        fingerprint: u64,
    },
    /// Where it is, and the guest's fingerprint.
    Progress(InstructionCount, u64),
    /// A snapshot was taken here.
    Snapshot {
        pairing: u64,
        count: InstructionCount,
        bytes: Vec<u8>,
    },
    /// The guest ended.
    Finished(InstructionCount),
    /// This host's disk failed a request; the vcpu stands still.
    DiskFailed,
}

/// From the backup's vcpu thread to its event loop, in order.
#[derive(Debug)]
pub enum FromReplay {
    /// Outputs.
    Outputs {
        visible: u64,
        outputs: Vec<StubOutput>,
    },
    /// Progress.
    Replayed {
        record: RecordNumber,
        executed: InstructionCount,
        fingerprints: Vec<(RecordNumber, u64)>,
    },
    /// The end.
    Diverged(DivergenceReport),
}

/// A queue between two threads: what was put in comes out later, in order.
#[derive(Debug)]
pub struct Channel<T> {
    queue: VecDeque<(u64, T)>,
}

impl<T> Default for Channel<T> {
    fn default() -> Channel<T> {
        Channel {
            queue: VecDeque::new(),
        }
    }
}

impl<T> Channel<T> {
    /// Puts `item` in, to come out at `at` at the earliest.
    pub fn put(&mut self, at: u64, item: T) {
        let before = self.queue.back().map_or(0, |(last, _)| *last);
        self.queue.push_back((at.max(before), item));
    }

    /// What has come out by now.
    pub fn take(&mut self, now: u64) -> Option<T> {
        let (_, item) = self.queue.pop_front_if(|(at, _)| *at <= now)?;
        Some(item)
    }

    /// When the next comes out.
    pub fn next(&self) -> Option<u64> {
        self.queue.front().map(|(at, _)| *at)
    }
}

/// How a host's disk behaves at present.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskHealth {
    /// It fails every request: it is full, or broken.
    pub fails: bool,
    /// It says that it did what it did not do.
    pub lies: bool,
    /// An old bug: nobody looks how a request went.
    pub is_ignored: bool,
}

/// A snapshot on its way to a backup.
#[derive(Debug)]
pub struct Sending {
    /// The pairing.
    pub pairing: u64,
    /// Where to.
    pub connection: ConnectionId,
    /// Pieces that are still to go.
    pub left: VecDeque<Vec<u8>>,
    /// Pieces in all.
    pub chunks: u64,
}

/// A primary.
pub struct PrimaryProcess {
    /// The real core.
    pub core: Primary<StubOutput>,
    /// The machine.
    pub guest: StubGuest,
    /// Inputs that wait for the end of the quantum.
    pub inputs: Vec<StubInput>,
    /// Share of time for the guest.
    pub share: u64,
    /// The snapshot asked for.
    pub snapshot_wanted: Option<u64>,
    /// The newest snapshot.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Who asked for the pieces of the snapshot of which pairing.
    pub asking: Option<(u64, ConnectionId)>,
    /// A snapshot on its way.
    pub sending: Option<Sending>,
    /// To the event loop.
    pub channel: Channel<FromVcpu>,
    /// Number of the last record that it made.
    pub record: RecordNumber,
    /// Flushes asked for up to this instruction count may complete.
    pub flushes_up_to: InstructionCount,
    /// The flush under way: what it covers, and when this host's disk has it.
    pub flush: Option<(u64, u64)>,
    /// It was told to hand over: the machine stands still.
    pub stands_still: bool,
    /// The core was told so.
    pub handed_over: bool,
    /// The request that failed; while there is one the vcpu stands still.
    pub failed_request: Option<u64>,
    /// The world flipped a bit of its memory.
    pub poisoned: bool,
    /// It was told to stand still because others have another machine.
    pub outvoted: bool,
    next_digest: u64,
    idle_since: Option<u64>,
    said_finished: bool,
}

impl PrimaryProcess {
    /// Around a core and a machine.
    pub fn new(core: Primary<StubOutput>, guest: StubGuest) -> PrimaryProcess {
        PrimaryProcess {
            record: core.status().record,
            flushes_up_to: InstructionCount::POWER_ON,
            flush: None,
            stands_still: false,
            handed_over: false,
            failed_request: None,
            poisoned: false,
            outvoted: false,
            core,
            guest,
            inputs: Vec::new(),
            share: 1000,
            snapshot_wanted: None,
            snapshot: None,
            asking: None,
            sending: None,
            channel: Channel::default(),
            next_digest: 0,
            idle_since: None,
            said_finished: false,
        }
    }

    /// One quantum of the vcpu thread.
    pub fn quantum(
        &mut self,
        now: u64,
        scenario: &Scenario,
        disk: DiskHealth,
        random: &mut Random,
    ) {
        let at = |random: &mut Random| now + random.between(0, scenario.channel_delay);
        if self.said_finished || self.stands_still || self.failed_request.is_some() {
            return;
        }
        let budget = scenario.speed * scenario.quantum / crate::scenario::MS * self.share / 1000;
        let until = self.guest.instruction_count().plus(budget);
        let mut stop = GuestStop::Reached;
        while self.guest.instruction_count() < until {
            stop = self.guest.run(until);
            self.collect(at(random));
            if matches!(stop, GuestStop::Idle | GuestStop::Finished) {
                break;
            }
        }
        let idle = stop == GuestStop::Idle;
        if !idle {
            self.idle_since = None;
        }
        let since = *self.idle_since.get_or_insert(now);
        let is_awake = !self.guest.is_paused();
        if idle && is_awake && self.inputs.is_empty() && now >= since + scenario.idle_wake {
            self.inputs.push(StubInput::Clock(now));
            self.idle_since = None;
        }
        if random.percent(scenario.disk_percent) && is_awake && !self.inputs.is_empty() {
            self.inputs.push(StubInput::Disk(now));
        }
        for input in std::mem::take(&mut self.inputs) {
            match input {
                StubInput::Pause | StubInput::Resume
                    if self.failed_request.is_none() && !self.guest.is_finished() =>
                {
                    self.inject(at(random), input);
                }
                // What is sent to a machine that stands still is lost.
                StubInput::Request(_) if self.guest.is_paused() => {}
                _ if self.guest.is_paused() => self.inputs.push(input),
                StubInput::Disk(id) if disk.fails => self.failed_request = Some(id),
                _ if self.failed_request.is_some() => self.inputs.push(input),
                _ if !self.guest.is_finished() => self.inject(at(random), input),
                _ => {}
            }
        }
        if self.failed_request.is_some() && !self.guest.is_finished() {
            self.channel.put(at(random), FromVcpu::DiskFailed);
            return;
        }
        self.failed_request = None;
        if now >= self.next_digest {
            self.next_digest = now + scenario.digest_interval;
            let body = RecordBody::Digest(self.guest.digest());
            self.put_record(at(random), body);
        }
        let count = self.guest.instruction_count();
        if let Some(pairing) = self.snapshot_wanted.take() {
            let bytes = self.guest.snapshot();
            self.channel.put(
                at(random),
                FromVcpu::Snapshot {
                    pairing,
                    count,
                    bytes,
                },
            );
        }
        let fingerprint = self.guest.fingerprint();
        self.channel
            .put(at(random), FromVcpu::Progress(count, fingerprint));
        if self.guest.is_finished() {
            self.said_finished = true;
            self.channel.put(at(random), FromVcpu::Finished(count));
        }
    }

    /// Counts a record, as the core does.
    pub fn count_record(&mut self) -> RecordNumber {
        self.record = self.record.next();
        self.record
    }

    /// Nobody took over: the machine runs on, and is told of the error if there was one.
    pub fn resume(&mut self) {
        self.stands_still = false;
        self.handed_over = false;
        self.outvoted = false;
        if let Some(id) = self.failed_request.take() {
            self.inputs.insert(0, StubInput::DiskError(id));
        }
    }

    fn inject(&mut self, at: u64, input: StubInput) {
        let bytes = input.encode();
        if self.guest.inject(&bytes).is_ok() {
            self.put_record(at, RecordBody::Input(bytes));
            self.collect(at);
        }
    }

    fn put_record(&mut self, at: u64, body: RecordBody) {
        let record = Record {
            count: self.guest.instruction_count(),
            body,
        };
        self.channel
            .put(at, FromVcpu::Record(record, self.guest.fingerprint()));
    }

    fn collect(&mut self, at: u64) {
        let outputs = self.guest.take_outputs();
        if !outputs.is_empty() {
            let (count, visible) = (self.guest.instruction_count(), self.guest.visible_outputs());
            let fingerprint = self.guest.fingerprint();
            self.channel.put(
                at,
                FromVcpu::Outputs {
                    count,
                    visible,
                    outputs,
                    fingerprint,
                },
            );
        }
    }
}

/// A backup.
pub struct BackupProcess {
    /// The real core.
    pub core: Backup<StubOutput>,
    /// The key that opened the generation that its machine is in.
    pub opened: Entry,
    /// The key that opened the generation whose primary it joins.
    pub joins: Entry,
    /// The node of the primary that it joins.
    pub primary: usize,
    /// The pairing whose machine this is.
    pub pairing: u64,
    /// The restore under way: unique over the world.
    pub attempt: u64,
    /// Number of the last record before the snapshot.
    pub snapshot_at: RecordNumber,
    /// Flushes of the guest that this host's disk does not have yet: instruction count, writes,
    /// when it will.
    pub flush: Option<(InstructionCount, u64, u64)>,
    /// The last flush that was seen.
    pub flush_seen: (InstructionCount, u64),
    /// The connection to the primary.
    pub connection: Option<ConnectionId>,
    /// How the snapshot comes.
    pub fetching: Option<Fetching>,
    /// The snapshot so far.
    pub stored: Vec<u8>,
    /// Records that came before the machine was made.
    pub early: Vec<Record>,
    /// Visible outputs of the newest marker that the machine was given, or of its snapshot.
    pub marked: u64,
    /// The machine.
    pub replayer: Option<Replayer<StubGuest>>,
    /// To the event loop.
    pub channel: Channel<FromReplay>,
    /// The world flipped a bit of its memory.
    pub poisoned: bool,
    /// The world flipped a bit of its primary's memory when it had a machine.
    pub has_poisoned_primary: bool,
    /// Its machine was told to go on without being compared.
    pub uncompared: bool,
    /// Records up to this one say nothing of it.
    pub compared_after: RecordNumber,
    /// A replay waited for the disk.
    pub blocked: bool,
    stopped: bool,
}

impl BackupProcess {
    /// Around a core.
    pub fn new(core: Backup<StubOutput>, opened: Entry) -> BackupProcess {
        BackupProcess {
            core,
            joins: opened.clone(),
            opened,
            primary: 0,
            pairing: 0,
            attempt: 0,
            snapshot_at: RecordNumber::BEFORE_ALL,
            flush: None,
            flush_seen: (InstructionCount::POWER_ON, 0),
            connection: None,
            fetching: None,
            stored: Vec::new(),
            early: Vec::new(),
            marked: 0,
            replayer: None,
            channel: Channel::default(),
            poisoned: false,
            has_poisoned_primary: false,
            uncompared: false,
            compared_after: RecordNumber::BEFORE_ALL,
            blocked: false,
            stopped: false,
        }
    }

    /// The same machine with another core.
    pub fn goes_on(self, core: Backup<StubOutput>, joins: Entry) -> BackupProcess {
        BackupProcess {
            core,
            joins,
            connection: None,
            fetching: None,
            ..self
        }
    }

    /// The machine is of no use: what comes is another.
    pub fn drop_machine(&mut self) {
        self.opened = self.joins.clone();
        self.replayer = None;
        self.marked = 0;
        self.early.clear();
        self.stored.clear();
        self.channel = Channel::default();
        self.flush = None;
        self.flush_seen = (InstructionCount::POWER_ON, 0);
        self.poisoned = false;
        self.has_poisoned_primary = false;
        self.uncompared = false;
        self.compared_after = RecordNumber::BEFORE_ALL;
        self.blocked = false;
        self.stopped = false;
    }

    /// Adds records to replay.
    pub fn replay(&mut self, records: Vec<Record>) {
        match &mut self.replayer {
            Some(replayer) => records.into_iter().for_each(|record| replayer.push(record)),
            None => self.early.extend(records),
        }
    }

    /// Whether its machine may rightly be another than its primary's.
    pub fn may_differ(&self) -> bool {
        self.poisoned || self.has_poisoned_primary
    }

    /// Whether it has found a difference that is its primary's fault.
    pub fn found_primary_wrong(&self) -> bool {
        self.stopped && self.has_poisoned_primary && !self.poisoned
    }

    /// The majority has its machine.
    pub fn stop_comparing(&mut self) {
        self.uncompared = true;
        self.stopped = false;
        if let Some(replayer) = &mut self.replayer {
            replayer.stop_comparing();
        }
    }

    /// What comes from here on is compared again.
    pub fn compare(&mut self) {
        if !std::mem::take(&mut self.uncompared) {
            return;
        }
        self.has_poisoned_primary = false;
        if let Some(replayer) = &mut self.replayer {
            self.compared_after = replayer.replayed().plus(replayer.backlog() as u64);
            replayer.compare();
        }
    }

    /// Makes the machine of the stored snapshot.
    pub fn restore(&mut self, disk_slowness: u32) -> Result<(), String> {
        let mut guest = StubGuest::restore(&self.stored).ok_or("the snapshot is broken")?;
        guest.disk_slowness = disk_slowness;
        let mut replayer = Replayer::after(guest, self.snapshot_at);
        self.early
            .drain(..)
            .for_each(|record| replayer.push(record));
        self.replayer = Some(replayer);
        Ok(())
    }

    /// One quantum of the vcpu thread.
    pub fn quantum(
        &mut self,
        now: u64,
        scenario: &Scenario,
        disk: DiskHealth,
        percent: u64,
        random: &mut Random,
    ) {
        let Some(replayer) = &mut self.replayer else {
            return;
        };
        replayer.guest_mut().disk_fails = disk.fails;
        replayer.guest_mut().disk_lies = disk.lies;
        replayer.guest_mut().ignores_disk = disk.is_ignored;
        if self.stopped {
            return;
        }
        let at = now + random.between(0, scenario.channel_delay);
        let budget = scenario.speed * scenario.quantum / crate::scenario::MS * percent / 100;
        let until = replayer.executed().plus(budget.max(1));
        let before = (replayer.replayed(), replayer.executed());
        let mut fingerprints = Vec::new();
        let mut diverged = None;
        loop {
            let replayed = replayer.replayed();
            let result = replayer.step(until.since(replayer.executed()).max(1));
            for done in replayer.take_outputs() {
                let (visible, outputs) = (done.visible_outputs, done.outputs);
                self.channel
                    .put(at, FromReplay::Outputs { visible, outputs });
            }
            if replayer.replayed() > replayed {
                fingerprints.push((replayer.replayed(), replayer.guest().fingerprint()));
            }
            match result {
                Ok(Progress::Working) if replayer.executed() < until => {}
                Ok(progress) => {
                    self.blocked |= progress == Progress::Blocked;
                    break;
                }
                Err(divergence) => {
                    self.stopped = true;
                    diverged = Some(divergence.report());
                    break;
                }
            }
        }
        self.poisoned |= replayer.guest().was_lied_to;
        let (record, executed) = (replayer.replayed(), replayer.executed());
        if (record, executed) != before {
            self.channel.put(
                at,
                FromReplay::Replayed {
                    record,
                    executed,
                    fingerprints,
                },
            );
        }
        if let Some(report) = diverged {
            self.channel.put(at, FromReplay::Diverged(report));
        }
    }
}

/// What a process is.
pub enum Role {
    /// It looks what it can be.
    Starting,
    /// It meets the world.
    Primary(Box<PrimaryProcess>),
    /// It follows.
    Backup(Box<BackupProcess>),
}

/// One started program.
pub struct Process {
    /// Unique over the world.
    pub run: u64,
    /// Its start; it comes back to it.
    pub startup: Startup,
    /// What it is.
    pub role: Role,
    /// Markers that are to be written, the first of them under way.
    pub writes: VecDeque<crate::disk::Write>,
    /// For when a tick is scheduled; `u64::MAX` if none is.
    pub tick_at: u64,
    /// For when the event loop looks into its channel; `u64::MAX` if it does not.
    pub loop_at: u64,
}
