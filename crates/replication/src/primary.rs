//! The replica that meets the world. `docs/protocol.md`, "The primary".

mod ability;
mod booting;
mod busy;
mod checkpoints;
mod difference;
mod fitness;
mod handover;
mod join;
mod journal;
mod lagging;
mod leaving;
mod member;
mod moving;
mod status;

use crate::ConnectionId;
use crate::config::{PairConfig, Replication};
use crate::configuration::Configuration;
use crate::event::Event;
use crate::failure_detector::{PauseDetector, Suspicion};
use crate::lag::{Pressure, RunShare, Throttle};
use crate::life_log::{LifeLog, LogMark, Place};
use crate::marker::{DiskState, Marker, Role, Worth};
use crate::message::{Button, Greeting, Message};
use crate::mutation::Mutation;
use crate::output_gate::{OutputGate, Policy, Released};
use crate::record::{InstructionCount, MAX_INPUT_BYTES, Record, RecordBody, RecordNumber};
use crate::startup::{Stance, Standing};
use crate::succession::{Claim, Entry, Generation, Host, JournalId, Kind, Request, RunId};
use crate::watch::{Agreement, BeaconWriter, KeyWatch, Outage};
use ability::CannotFollow;
use checkpoints::Checkpoints;
use difference::Outvoted;
use fitness::Unfit;
pub use join::Joiner;
use join::{Join, Newcomer};
use journal::{Journal, JournalPacing};
pub use journal::{JournalPhase, JournalStart, JournalStatus, StoredRecords};
use lagging::Laggards;
use member::Member;
use moving::Moving;
pub use status::{FollowerStatus, PrimaryPhase, PrimaryStatus};
use std::collections::VecDeque;
use std::time::Duration;

/// Why a primary has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrimaryStop {
    /// The guest ended the machine, and everything it said is out.
    Finished,
    /// Somebody else left the generation. Outputs that waited are not ours to send, the machine is
    /// to be dropped. Look again with [`Startup`](crate::startup::Startup): this host can be a backup.
    Superseded {
        /// What the key holds.
        by: Box<Entry>,
    },
}

/// What the caller has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrimaryAction<O> {
    /// Send on the logging channel, after everything that was sent before on this connection.
    Send {
        /// Which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// Close the connection after what was sent. [`Primary::disconnected`] need not be called.
    Close(ConnectionId),
    /// Let these outputs out, in order.
    Emit(Vec<O>),
    /// Take a snapshot between two quanta, then call [`Primary::snapshot_taken`] at exactly this
    /// place in the vcpu's stream of records and outputs. Its pieces are for whoever sends
    /// [`Message::Fetch`] with this pairing and this run on a connection of its own; say
    /// [`Primary::snapshot_failed`] when they cannot be sent.
    TakeSnapshot {
        /// The pairing that it is for.
        pairing: u64,
        /// The run of the backup.
        run: RunId,
    },
    /// The snapshot is not needed any more; whoever has it all already loses nothing.
    AbortSnapshot {
        /// The pairing.
        pairing: u64,
    },
    /// Begin a journal, or let it go on from another snapshot: take one as for [`PrimaryAction::TakeSnapshot`], then call
    /// [`Primary::snapshot_taken`] with this number. [`PrimaryAction::JournalFrom`] follows.
    BeginJournal {
        /// Which.
        id: JournalId,
        /// The number of its snapshot.
        snapshot: u64,
    },
    /// The snapshot that was just taken is the journal's: begin a segment, write it, and say
    /// [`Primary::journal_has_snapshot`] when it is durable. Records are stored meanwhile.
    JournalFrom(JournalStart),
    /// Everything that was said before the journal's newest snapshot has left: a machine may go on from it as soon as it is
    /// written. Until then it must not be found.
    JournalSnapshotCounts {
        /// Which.
        id: JournalId,
    },
    /// Store these after all that were given before, and say [`Primary::journal_durable`] when they
    /// are; [`Primary::journal_failed`] if that cannot be.
    Store {
        /// Which journal.
        id: JournalId,
        /// What, in order.
        batches: Vec<StoredRecords>,
    },
    /// Nobody wants this journal any more; its snapshot, if it is still being taken, neither.
    EndJournal {
        /// Which.
        id: JournalId,
    },
    /// Ask the arbiter, answer with [`Primary::arbiter_answered`]: exactly one answer a request,
    /// [`Outcome::Unknown`](crate::succession::Outcome::Unknown) when it takes too long. At most one about keys and one about beacons
    /// are under way.
    Ask(Request),
    /// Tell the network that the guest is here.
    Announce,
    /// Sync the disks, then write this marker, beside each disk first and then in the state
    /// directory; then call [`Primary::settled`]. Until then no flush of the guest may complete.
    Settle(Marker),
    /// From here on a flush that the guest asked for at an instruction count of at most this may
    /// complete when this host's disk has it; one that came later has to wait. [`InstructionCount::LAST`]: all may.
    CompleteFlushes {
        /// The instruction count.
        up_to: InstructionCount,
    },
    /// What came of [`Primary::look_at_arbiter`]: nothing is wrong, or the arbiter does not answer, or not
    /// as it should, and how.
    Looked {
        /// What is wrong.
        trouble: Option<String>,
    },
    /// Backups differ from this machine and not from each other: stop the vcpu, give this core everything
    /// that it made, then call [`Primary::hand_over`].
    StandStill,
    /// Let the machine run on, after it was stopped for [`PrimaryAction::StandStill`],
    /// [`Primary::hand_over`] or [`Primary::disk_failed`]: nobody took over. A request that failed is told
    /// to the guest.
    Resume,
    /// All members hold the oldest checkpoint of which that was not said yet: once for each of them. Only where
    /// [`Replication::StateTransfer`] is configured, as the next.
    CheckpointHeld,
    /// Nobody is left for whom checkpoints were made since the snapshot of this pairing: outputs leave at once
    /// from here on, until another snapshot is taken. If one was taken for a later pairing meanwhile, it is
    /// nothing.
    EndCheckpoints {
        /// The pairing.
        pairing: u64,
    },
    /// Let the harts run this share of the time.
    Throttle(RunShare),
    /// Somebody pressed a button at the backup: see [`Primary::answer`].
    Press(Button, Asked),
    /// Somebody asked at the backup that the machine goes over to it: see [`Primary::hand_over`], and
    /// [`Primary::answer`] if it does not.
    SwitchOver(Asked),
    /// What came of [`Primary::move_arbiter`]: the life goes on at the other arbiter, or why not, in which case
    /// nothing was changed.
    ArbiterMoved(Result<(), String>),
    /// Tell people.
    Report(Event),
    /// Stop the machine and end. Always last.
    Stop(PrimaryStop),
}

/// Something that somebody asked for at a backup, to be answered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The backup's pairing.
    pub pairing: u64,
    /// The backup's number of the request.
    pub request: u64,
}

enum State {
    Running {
        /// Who is joining: one at a time, because there is one snapshot at a time.
        join: Option<Box<Join>>,
    },
    /// The life is over; these members were told, and have not answered yet.
    Parting {
        waiting: Vec<ConnectionId>,
        deadline: Duration,
    },
    Stopped,
}

const KEPT_DELAYS: usize = 1024;

/// Where a machine stands that becomes a primary's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The key by which this host is the primary.
    pub opened: Entry,
    /// The log of the life so far, as far as it is held: a machine that was started from its disk or
    /// powered on has none yet.
    pub log: LifeLog,
    /// Its instruction count.
    pub count: InstructionCount,
    /// Its visible outputs.
    pub visible_outputs: u64,
}

impl Beginning {
    /// A machine that was made from its images and disks, at instruction 0.
    pub fn from_disk(opened: Entry, config: &PairConfig) -> Beginning {
        Beginning::of_machine(opened, config, InstructionCount::POWER_ON, 0)
    }

    /// A machine that was made from its images and disks, or of a snapshot of another life: the log of this one
    /// begins where the machine stands, after so many visible outputs.
    pub fn of_machine(
        opened: Entry,
        config: &PairConfig,
        count: InstructionCount,
        visible_outputs: u64,
    ) -> Beginning {
        let before = opened.record.before();
        assert!(before.is_some(), "records are numbered from 1");
        let record = before.unwrap_or_default();
        let base = Place {
            record,
            count,
            mark: LogMark::of_start(opened.life, record),
        };
        Beginning {
            log: LifeLog::from(base, config.log_bytes),
            opened,
            count,
            visible_outputs,
        }
    }
}

/// The replica that meets the world, as far as replication goes.
pub struct Primary<O> {
    config: PairConfig,
    /// The key that opened the generation.
    opened: Entry,
    /// The key by which it is being left, while the arbiter is asked. One at a time, and never
    /// given up: what was asked once may land at any time.
    leaving: Option<Claim>,
    /// Somebody wants the life to go on at another arbiter.
    moving: Option<Moving>,
    pairing: u64,
    state: State,
    /// Everything that the machine was made to do, as far as it is held.
    log: LifeLog,
    /// Those whom outputs wait for.
    members: Vec<Member>,
    /// Members that are lost, perhaps: the arbiter is asked to drop them, and nothing leaves until it
    /// has. Each may have gone live.
    lost: Vec<Host>,
    journal: Option<Journal>,
    journal_pacing: JournalPacing,
    /// Hosts that lagged, and when they are taken again.
    laggards: Laggards,
    /// Hosts that lack something, and were told about.
    unfit: Unfit,
    /// Hosts that left because they cannot follow as they are.
    cannot_follow: CannotFollow,
    /// Why all members are let go, if they are for another reason than that they lag.
    lets_go_for: Option<String>,
    /// Of the test program, a second, by who is to keep up; 0: not known.
    speed_needed: u64,
    /// What the machine would be booted from on this host; empty: not known.
    boot: Configuration,
    /// Since when there have been fewer members than are wanted.
    lacks_since: Option<Duration>,
    settled: bool,
    flushes_up_to: InstructionCount,
    gate: OutputGate<O>,
    throttle: Throttle,
    checkpoints: Checkpoints,
    pauses: PauseDetector,
    watch: KeyWatch,
    beacon: BeaconWriter,
    agreement: Agreement,
    outage: Outage,
    count: InstructionCount,
    visible_outputs: u64,
    finishing: bool,
    /// The machine was handed over: the vcpu is stopped, nothing leaves.
    stands_still: bool,
    /// The pairing of whom it was handed over to.
    heir: Option<u64>,
    /// The pairing of the member at which a person asked for the machine last.
    wanted_heir: Option<u64>,
    /// The vcpu was stopped because of a request that this host's disk failed, and it is not yet
    /// known who goes on.
    disk_failed: bool,
    /// Members have the same machine, another than this one, and are the majority: how far that has got.
    outvoted: Option<Outvoted>,
    /// The network is back, and it was not certain that the guest is here.
    owes_announcement: bool,
    delays: VecDeque<Duration>,
    actions: VecDeque<PrimaryAction<O>>,
}

impl<O> Primary<O> {
    /// A machine that runs alone: just started, or gone live.
    pub fn new(now: Duration, config: PairConfig, beginning: Beginning) -> Primary<O> {
        let Beginning {
            opened,
            mut log,
            count,
            visible_outputs,
        } = beginning;
        let membership = opened.membership();
        assert!(
            membership.primary == config.greeting.host && membership.members.is_empty(),
            "whoever becomes a primary is one by the key, and alone"
        );
        if config.replication == Replication::StateTransfer {
            // It will not say what the machine does while it is alone.
            log.forget_all(count);
        }
        assert!(
            log.end().count <= count,
            "a machine that goes live has replayed its log"
        );
        let pauses = PauseDetector::new(now, &config.detector);
        let journal = membership.journal;
        let journal = journal.map(|id| Journal::went_on(id, log.last()));
        let mut primary = Primary {
            watch: KeyWatch::new(now, config.watch_interval),
            beacon: BeaconWriter::new(config.beacon(config.greeting.host.id)),
            config,
            opened,
            leaving: None,
            moving: None,
            pairing: 0,
            state: State::Running { join: None },
            log,
            members: Vec::new(),
            lost: Vec::new(),
            journal,
            journal_pacing: JournalPacing::default(),
            laggards: Laggards::default(),
            unfit: Unfit::default(),
            cannot_follow: CannotFollow::default(),
            lets_go_for: None,
            speed_needed: 0,
            boot: Configuration::default(),
            lacks_since: None,
            settled: false,
            flushes_up_to: InstructionCount::LAST,
            gate: OutputGate::new(visible_outputs),
            throttle: Throttle::new(),
            checkpoints: Checkpoints::default(),
            pauses,
            agreement: Agreement::Unknown,
            outage: Outage::default(),
            count,
            visible_outputs,
            finishing: false,
            stands_still: false,
            heir: None,
            wanted_heir: None,
            disk_failed: false,
            outvoted: None,
            owes_announcement: false,
            delays: VecDeque::new(),
            actions: VecDeque::new(),
        };
        let mutations = primary.config.mutations;
        if !mutations.active(Mutation::FlushBeforeSettled) {
            primary.flushes_up_to = InstructionCount::POWER_ON;
        }
        let up_to = primary.flushes_up_to;
        primary
            .actions
            .push_back(PrimaryAction::CompleteFlushes { up_to });
        let marker = primary.marker();
        primary.actions.push_back(PrimaryAction::Settle(marker));
        primary
    }

    /// The marker of this host's disks in this generation.
    pub fn marker(&self) -> Marker {
        Marker {
            machine: self.opened.key.machine.clone(),
            life: self.opened.key.life,
            life_id: self.opened.life,
            generation: self.generation(),
            role: Role::Primary,
            record: self.log.last(),
            disk: DiskState::Whole,
        }
    }

    /// [`PrimaryAction::Settle`] was done: this host's disk is the right one from here on.
    pub fn settled(&mut self, now: Duration) {
        self.enter(now);
        if !std::mem::replace(&mut self.settled, true) {
            self.complete_flushes(InstructionCount::LAST);
        }
        self.maintain(now);
    }

    /// The guest's network was lost and is back: it may have forgotten where the guest is. It is
    /// told as soon as it is certain that this is still the place: not while the arbiter is asked
    /// or after a pause, when another replica may have gone live.
    pub fn network_back(&mut self, now: Duration) {
        self.enter(now);
        self.owes_announcement = true;
        self.maintain(now);
    }

    fn announce_if_certain(&mut self) {
        let is_certain = matches!(self.state, State::Running { .. })
            && self.lost.is_empty()
            && self.members.iter().all(Member::is_certain)
            && !self.stands_still;
        if is_certain && std::mem::take(&mut self.owes_announcement) {
            self.actions.push_back(PrimaryAction::Announce);
        }
    }

    /// The latest moment at which this was the live machine, as members or the arbiter have answered since: a
    /// process that wakes from a sleep, or was cut off, may have a successor of which it does not know yet.
    /// `None`: not known of any, or there is a question of who goes on.
    pub fn certainly_live_at(&self) -> Option<Duration> {
        let is_open = !matches!(self.state, State::Running { .. })
            || !self.lost.is_empty()
            || self.stands_still;
        if is_open {
            return None;
        }
        // Nobody's word outweighs that of one who has not answered: it may be the successor.
        let by_members = self.members.iter().map(Member::confirmed_at).min();
        by_members.flatten().max(self.watch.confirmed_at())
    }

    fn complete_flushes(&mut self, up_to: InstructionCount) {
        if up_to != self.flushes_up_to {
            self.flushes_up_to = up_to;
            self.actions
                .push_back(PrimaryAction::CompleteFlushes { up_to });
        }
    }

    /// The generation in which it lives.
    pub fn generation(&self) -> Generation {
        self.opened.next_generation()
    }

    /// The key that opened the generation in which it lives.
    pub fn opened(&self) -> &Entry {
        &self.opened
    }

    /// What to answer a peer that asks how this replica stands.
    pub fn standing(&self) -> Standing {
        let worth = if self.settled {
            Worth::Known(self.marker())
        } else {
            Worth::Fresh
        };
        Standing {
            machine: self.opened.key.machine.clone(),
            host: self.config.greeting.host.clone(),
            stance: match self.state {
                State::Stopped | State::Parting { .. } => Stance::NoMachine,
                _ => Stance::Live,
            },
            life: self.opened.key.life,
            life_id: self.opened.life,
            generation: self.generation(),
            worth,
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<PrimaryAction<O>> {
        self.actions.pop_front()
    }

    /// When [`tick`](Self::tick) is to be called, if nothing else is called before.
    pub fn next_deadline(&self) -> Option<Duration> {
        let join = match &self.state {
            State::Running { join } => join.as_ref(),
            State::Parting { deadline, .. } => return Some(*deadline),
            State::Stopped => return None,
        };
        let detector = &self.config.detector;
        let members = self.members.iter();
        let members = members.map(|member| member.deadline(self.count, detector));
        let join = join.map(|join| join.deadline(self.count, detector));
        let followers = members.chain(join).min();
        let state = followers.map(|deadline| deadline.min(self.pauses.due()));
        let key = match &self.leaving {
            Some(claim) => claim.deadline(),
            None => self.watch.deadline(),
        };
        let deadlines = [state, key, self.journal_deadline(), self.moving_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) {
        self.enter(now);
        self.maintain(now);
    }

    /// The vcpu injected an input, or took a digest, at `record.count`. Counts never fall, an input
    /// has at most [`MAX_INPUT_BYTES`]; markers are made here.
    pub fn record(&mut self, now: Duration, record: Record) {
        self.enter(now);
        self.advance_to(now, record.count);
        match &record.body {
            RecordBody::Input(bytes) => assert!(bytes.len() <= MAX_INPUT_BYTES, "input too long"),
            RecordBody::Marker { .. } => panic!("markers are made by the primary itself"),
            RecordBody::Digest(_) | RecordBody::Written(_) => {}
            RecordBody::Piece(bytes) | RecordBody::Checkpoint(bytes) => {
                assert!(
                    bytes.len() <= MAX_INPUT_BYTES,
                    "a checkpoint's piece is too long"
                );
            }
        }
        let is_checkpoint = matches!(record.body, RecordBody::Checkpoint(_));
        let is_piece = matches!(record.body, RecordBody::Piece(_));
        let count = record.count;
        let number = self.append(now, record);
        if is_checkpoint {
            self.checkpoint_made(number, count);
        }
        if is_piece {
            // Nobody waits for it, but somebody will for the last.
            self.flush(now, false);
        }
        self.maintain(now);
    }

    /// One more record of the life's log; gives its number.
    fn append(&mut self, now: Duration, record: Record) -> RecordNumber {
        let bytes = record.encoded_size_bound();
        let number = self.log.push(record);
        let join = match &mut self.state {
            State::Running { join: Some(join) } => join.cursor_mut(),
            _ => None,
        };
        let members = self.members.iter_mut().map(Member::cursor_mut);
        let mut needed = number;
        for cursor in members.chain(join) {
            cursor.grown(now, bytes);
            needed = needed.min(cursor.sent());
        }
        let journal = self.journal.as_mut();
        if let Some(sent) = journal.and_then(|journal| journal.grown(now, bytes)) {
            needed = needed.min(sent);
        }
        if self
            .config
            .mutations
            .active(Mutation::LogForgetsWhatIsNeeded)
        {
            needed = number;
        }
        self.log.forget_beyond_limit(needed);
        number
    }

    /// The vcpu collected outputs at `count`, in order with its records; `visible_outputs` is the
    /// machine's running count including these.
    pub fn outputs(
        &mut self,
        now: Duration,
        count: InstructionCount,
        visible_outputs: u64,
        outputs: Vec<O>,
    ) {
        self.outputs_since(now, now, count, visible_outputs, outputs);
    }

    /// As [`Primary::outputs`], of outputs that wait since then.
    pub fn outputs_since(
        &mut self,
        now: Duration,
        since: Duration,
        count: InstructionCount,
        visible_outputs: u64,
        outputs: Vec<O>,
    ) {
        self.enter(now);
        self.advance_to(now, count);
        assert!(
            visible_outputs >= self.visible_outputs,
            "visible outputs never fall"
        );
        self.visible_outputs = visible_outputs;
        let marker = Record {
            count,
            body: RecordBody::Marker { visible_outputs },
        };
        let marker = self.append(now, marker);
        if self.config.mutations.active(Mutation::NoOutputRule) {
            self.actions.push_back(PrimaryAction::Emit(outputs));
            self.flush(now, true);
        } else if !matches!(self.state, State::Running { .. }) {
            // Nobody hears it any more.
        } else if self.leaves_at_once() {
            self.gate.passed(visible_outputs);
            self.actions.push_back(PrimaryAction::Emit(outputs));
        } else {
            self.gate.hold(since, marker, visible_outputs, outputs);
            self.flush(now, true);
        }
        self.maintain(now);
    }

    /// The vcpu has got to `count`, and has produced nothing since its last call. To be called
    /// every few milliseconds while it runs: the lag is measured by it.
    pub fn progress(&mut self, now: Duration, count: InstructionCount) {
        self.enter(now);
        self.advance_to(now, count);
        self.let_members_follow(now);
        self.maintain(now);
    }

    /// The guest ended the machine. Its outputs were handed over before. When they are out and the
    /// backup knows, [`PrimaryAction::Stop`] comes.
    pub fn finished(&mut self, now: Duration, count: InstructionCount) {
        self.enter(now);
        self.advance_to(now, count);
        self.finishing = true;
        if self.outvoted.is_some() {
            self.outvoted = Some(Outvoted::StandsStill);
        }
        self.flush(now, true);
        self.maintain(now);
    }

    /// A message came. A connection is new when its first message comes.
    pub fn received(&mut self, now: Duration, connection: ConnectionId, message: Message) {
        self.enter(now);
        match (&mut self.state, message) {
            (
                _,
                Message::Hello {
                    protocol,
                    greeting,
                    is_spare,
                    stands_at,
                    facts,
                    boot,
                },
            ) => {
                let newcomer = Newcomer {
                    protocol,
                    greeting,
                    is_spare,
                    stands_at,
                    facts,
                    boot,
                };
                self.hello(now, connection, newcomer);
            }
            (_, Message::Ask { greeting, .. }) => self.asked(connection, greeting),
            (State::Running { join: Some(join) }, message) if join.is_on(connection) => {
                self.joiner_said(now, message);
            }
            (State::Running { .. }, message) => {
                // Late words of a peer that is not listened to any more are nobody's.
                if let Some(index) = self.member_on(connection) {
                    self.member_said(now, index, message);
                }
            }
            (State::Parting { .. }, Message::Goodbye { .. }) => {
                self.parted(connection, true);
            }
            // Late words of a peer that is not listened to any more.
            _ => {}
        }
        self.maintain(now);
    }

    /// A peer wants to know how this replica stands. One that has its name or its identity is told so.
    fn asked(&mut self, connection: ConnectionId, theirs: Greeting) {
        match self.config.greeting.clash(&theirs) {
            None => {
                let standing = self.standing();
                self.send(connection, Message::Standing(standing));
            }
            Some(refusal) => {
                self.send(connection, Message::Refuse(refusal.clone()));
                self.report(Event::RefusedBackup {
                    host: theirs.host,
                    refusal,
                });
            }
        }
        self.actions.push_back(PrimaryAction::Close(connection));
    }

    /// The connection ended, or what came over it could not be understood.
    pub fn disconnected(&mut self, now: Duration, connection: ConnectionId) {
        self.enter(now);
        match &self.state {
            State::Running { join: Some(join) } if join.is_on(connection) => {
                self.join_failed(now, Suspicion::ConnectionEnded);
            }
            State::Running { .. } => {
                if let Some(index) = self.member_on(connection) {
                    self.suspect(now, index, Suspicion::ConnectionEnded);
                }
            }
            State::Parting { .. } => self.parted(connection, false),
            State::Stopped => {}
        }
        self.maintain(now);
    }

    /// How long the last outputs (up to 1024 batches) waited for their acknowledgement.
    pub fn output_delays(&self) -> impl Iterator<Item = Duration> + '_ {
        self.delays.iter().copied()
    }

    fn enter(&mut self, now: Duration) {
        let Some(pause) = self.pauses.observe(now) else {
            return;
        };
        if let State::Running { join: Some(join) } = &mut self.state {
            join.forgive(pause);
        }
        if let Some(journal) = &mut self.journal {
            journal.forgive(pause);
        }
        if matches!(self.state, State::Running { .. }) && !self.members.is_empty() {
            self.paused(now, pause);
        }
    }

    /// What time brings in the present state; after every event.
    fn maintain(&mut self, now: Duration) {
        match &self.state {
            State::Running { .. } => {
                self.maintain_join(now);
                self.maintain_members(now);
            }
            State::Parting { deadline, waiting } if now >= *deadline => {
                for connection in waiting.clone() {
                    self.actions.push_back(PrimaryAction::Close(connection));
                }
                self.stop(PrimaryStop::Finished);
            }
            State::Parting { .. } | State::Stopped => {}
        }
        self.judge(now);
        self.look_for_lack(now);
        self.let_laggard_go(now);
        self.drop_absent(now);
        self.claim_joining(now);
        self.maintain_journal(now);
        self.see_to_failed_disk(now);
        self.see_to_outvoted(now);
        self.announce_if_certain();
        self.see_to_checkpoints();
        self.maintain_moving(now);
        self.control_speed(now);
        self.finish_if_done(now);
        self.ask_arbiter(now);
    }

    /// The guest has ended: the life ends when all that it said is out, and all members know.
    fn finish_if_done(&mut self, now: Duration) {
        let is_free = self.leaving.is_none() && !self.stands_still && !self.is_disputed();
        if !self.finishing || !is_free {
            return;
        }
        let State::Running { join } = &mut self.state else {
            return;
        };
        let is_done = self.lost.is_empty()
            && self
                .members
                .iter()
                .all(|member| member.holds_all(&self.log))
            && self.gate.is_empty();
        if !is_done {
            return;
        }
        if let Some(join) = join.take() {
            let (connection, pairing) = (join.connection(), join.pairing());
            self.actions.push_back(PrimaryAction::Close(connection));
            self.actions
                .push_back(PrimaryAction::AbortSnapshot { pairing });
        }
        if self.config.mutations.active(Mutation::EndWithoutKey) && !self.members.is_empty() {
            return self.life_ended(now);
        }
        self.leave_generation(now, Kind::Ended, None);
    }

    fn advance_to(&mut self, now: Duration, count: InstructionCount) {
        assert!(
            self.may_move() || count == self.count,
            "whoever hands over stands still"
        );
        assert!(
            count >= self.count,
            "the vcpu's stream is in order of instruction counts"
        );
        self.count = count;
        for member in &mut self.members {
            member.primary_at(now, count, self.throttle.share());
        }
    }

    /// Whether the vcpu runs, as far as is known here.
    fn may_move(&self) -> bool {
        !self.stands_still && !self.disk_failed && self.outvoted != Some(Outvoted::StandsStill)
    }

    /// Whether outputs wait for nobody.
    fn leaves_at_once(&self) -> bool {
        self.is_alone() && !self.waits_for_journal()
    }

    /// Whether nobody but this host can leave the generation.
    fn is_alone(&self) -> bool {
        self.members.is_empty() && self.lost.is_empty()
    }

    fn policy(&self) -> Policy {
        if self.config.mutations.active(Mutation::AnyMemberIsEnough) {
            Policy::AnyMember
        } else {
            Policy::AllMembers
        }
    }

    /// Whoever was lost is dropped: the machine goes on, with those who are left if there are any.
    fn go_on(&mut self, now: Duration) {
        assert!(
            matches!(self.state, State::Running { .. }),
            "whoever has ended does not go on"
        );
        if self.is_alone() {
            return self.go_on_alone(now);
        }
        if !self.lost.is_empty() {
            return;
        }
        self.report(Event::Claimed {
            generation: self.generation(),
            members: self.members.len(),
        });
        let has_heir = self.members.iter().any(|m| Some(m.pairing()) == self.heir);
        if self.stands_still && !has_heir {
            self.heir_is_gone();
        }
        self.release(now);
        self.complete_durable_flushes();
    }

    fn go_on_alone(&mut self, now: Duration) {
        self.report(Event::Claimed {
            generation: self.generation(),
            members: 0,
        });
        self.agreement = Agreement::Unknown;
        self.let_out_without_journal(now);
        if self.settled {
            self.complete_flushes(InstructionCount::LAST);
        }
        if !self.somebody_is_about_to_begin() {
            if self.disk_failed {
                self.report(Event::DiskErrorTold);
            }
            self.resume();
        }
        if let Some(share) = self.throttle.lift() {
            self.actions.push_back(PrimaryAction::Throttle(share));
        }
    }

    fn emit(&mut self, released: Released<O>) {
        for wait in released.waits {
            if self.delays.len() == KEPT_DELAYS {
                self.delays.pop_front();
            }
            self.delays.push_back(wait);
        }
        let mutated = self.config.mutations.active(Mutation::NoOutputRule);
        if !released.outputs.is_empty() && !mutated {
            self.actions
                .push_back(PrimaryAction::Emit(released.outputs));
        }
    }

    fn stop(&mut self, why: PrimaryStop) {
        self.gate.discard();
        self.leaving = None;
        self.moving = None;
        self.journal = None;
        self.members.clear();
        self.lost.clear();
        self.state = State::Stopped;
        self.actions.push_back(PrimaryAction::Stop(why));
    }

    fn send(&mut self, connection: ConnectionId, message: Message) {
        self.actions.push_back(PrimaryAction::Send {
            connection,
            message,
        });
    }

    fn report(&mut self, event: Event) {
        self.actions.push_back(PrimaryAction::Report(event));
    }

    fn control_speed(&mut self, now: Duration) {
        self.charge(now, self.throttle.pressed_share());
        let percent = |value: usize, target: usize| (value * 100 / target.max(1)) as u64;
        let held = percent(self.gate.held_outputs(), self.config.lag.held_outputs);
        let State::Running { join } = &self.state else {
            return;
        };
        let mut pressure = Pressure::default();
        if let Some(join) = join {
            pressure.memory = percent(join.bytes_waiting(), self.config.join_backlog_bytes);
        }
        if !self.lost.is_empty() {
            pressure.memory = pressure.memory.max(held);
        }
        let (lag, mutations) = (&self.config.lag, &self.config.mutations);
        pressure = pressure.max(self.journal_pressure());
        for member in &self.members {
            pressure = pressure.max(member.pressure(now, lag, self.gate.held_outputs(), mutations));
        }
        if let Some(share) = self.throttle.update(now, pressure) {
            self.actions.push_back(PrimaryAction::Throttle(share));
        }
    }
}
