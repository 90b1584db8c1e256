//! The replica that follows. `docs/protocol.md`, "The backup".

mod difference;
mod disks;
mod ending;
mod follow;
mod moving;
mod taking_over;

use crate::ConnectionId;
use crate::capacity::{HostFacts, Needs};
use crate::config::PairConfig;
use crate::configuration::{Build, Configuration, Difference, boot_differences};
use crate::event::Event;
use crate::failure_detector::{PauseDetector, SilenceDetector, Suspicion};
use crate::life_log::LifeLog;
use crate::marker::{DiskState, Marker, Role, Worth};
use crate::message::{
    Button, Continuation, DivergenceReport, Greeting, LifeId, Message, Parting, Refusal,
    spoken_by_both, tells_boot,
};
use crate::mutation::Mutation;
use crate::record::{InstructionCount, Record, RecordNumber};
use crate::startup::{Stance, Standing};
use crate::succession::{Claim, Entry, Generation, Host, Key, LifeNumber, Request};
use crate::watch::{Agreement, Outage};
use follow::Follow;
use std::collections::VecDeque;
use std::time::Duration;

/// Why a backup ends. In all cases its machine is to be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupStop {
    /// The guest ended the machine on the primary, and everything it said is out.
    Finished,
    /// Nothing came of it, and nothing is lost: look again with
    /// [`Startup::again`](crate::startup::Startup::again).
    Again(String),
    /// The primary does not take this host for a while: look again, but not at once.
    Later(Refusal),
    /// Somebody else left the generation: look again, too.
    Superseded {
        /// What the key holds.
        by: Box<Entry>,
    },
    /// The primary will never take us as we are.
    Refused(Refusal),
    /// The snapshot came whole, but this host cannot use it.
    Unusable(String),
    /// The machine differs from the primary's. If it was found while taking over, nobody can go on
    /// rightly. Look again.
    Diverged(DivergenceReport),
    /// A disk of this host failed: its machine is not the primary's any more. Look again when the
    /// disk takes writes.
    DiskFailed(String),
    /// A disk of this host cannot become a copy of the primary's, and nothing of it was written. Look again.
    CannotFollow(String),
    /// It was asked to.
    Left,
}

/// What the caller has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupAction<O> {
    /// Connect to the primary, then call [`Backup::connected`] or [`Backup::disconnected`].
    Connect,
    /// Write this marker, beside each disk first and then in the state directory, and make it
    /// durable, before carrying out any later action; then call [`Backup::marked`]. It takes rights
    /// away.
    Mark(Marker),
    /// Sync the disks, then write this marker as with [`BackupAction::Mark`], then call
    /// [`Backup::settled`], exactly once for each of these. It gives rights. Comes when the machine
    /// has replayed what the marker says.
    Settle {
        /// The pairing.
        pairing: u64,
        /// The marker.
        marker: Marker,
    },
    /// Send on the logging channel.
    Send {
        /// Which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// Close the connection after what was sent. [`Backup::disconnected`] need not be called.
    Close(ConnectionId),
    /// Connect to the primary once more, send [`Message::Fetch`] with this pairing there, and make the
    /// machine and its disks of the pieces that come. When all came and the machine is made, but not
    /// before [`BackupAction::Place`], call [`Backup::restored`]; when that connection fails,
    /// [`Backup::disconnected`].
    Fetch {
        /// The pairing.
        pairing: u64,
    },
    /// The machine that this replica has goes on: what comes of it belongs to this pairing now, and it is
    /// compared with the records that come from here on.
    GoOn {
        /// The pairing.
        pairing: u64,
    },
    /// The machine that this replica has is of no use: drop it. What it still says is nobody's.
    DropMachine,
    /// The place of the snapshot that is fetched.
    Place {
        /// The pairing.
        pairing: u64,
        /// Number of the last record before it.
        record: RecordNumber,
        /// Instruction count at which it was taken.
        count: InstructionCount,
        /// Visible outputs there.
        visible_outputs: u64,
    },
    /// Give these to the replayer (they may come before the machine is restored), and call
    /// [`Backup::replayed`] and [`Backup::outputs`] as it proceeds.
    Replay {
        /// The pairing.
        pairing: u64,
        /// In order; the first of a pairing follows the snapshot.
        records: Vec<Record>,
    },
    /// The machine is what the majority has: it goes on along the log from where it differed, and is
    /// compared with nothing until [`BackupAction::GoOn`].
    StopComparing,
    /// The machine differs: keep the evidence (snapshot, records, state).
    KeepEvidence {
        /// The pairing.
        pairing: u64,
        /// Where and how.
        report: DivergenceReport,
    },
    /// Ask the arbiter, answer with [`Backup::arbiter_answered`]: exactly one answer a request,
    /// [`Outcome::Unknown`](crate::succession::Outcome::Unknown) when it takes too long. At most one about keys and one about beacons
    /// are under way.
    Ask(Request),
    /// What the live machine's replica did of what was asked for here.
    Answered {
        /// The number of what was asked.
        request: u64,
        /// Whether it was done; it was refused otherwise.
        done: bool,
        /// For people.
        text: String,
    },
    /// This replica has won, and the machine has shared disks: take them, so that whoever had them before can write
    /// nothing any more, then call [`Backup::fenced`]. However long that takes, nothing goes live before.
    Fence,
    /// Tell the network that the guest is here now: comes right before [`BackupAction::GoLive`].
    Announce,
    /// Go live: the log is replayed to its end. Re-issue open disk requests, emit `outputs`, let the
    /// machine run, and go on with
    /// [`Primary::new`](crate::primary::Primary::new). Always last.
    GoLive {
        /// The key by which this host is the primary.
        opened: Box<Entry>,
        /// The log of the life, as far as it is held.
        log: Box<LifeLog>,
        /// Outputs that the old primary may not have sent.
        outputs: Vec<O>,
    },
    /// Tell people.
    Report(Event),
    /// End. Always last.
    Stop(BackupStop),
}

/// What a backup is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupPhase {
    /// Connects to the primary, and greets it.
    Connecting,
    /// Receives the snapshot, restores it, or is ready: not protected yet.
    Joining,
    /// Holds the log; may take over.
    Following,
    /// Its machine differs from the primary's, which has not said yet whose is right.
    Differing,
    /// Suspects the primary and asks the arbiter.
    Claiming,
    /// Won, and replays the rest of the log.
    Draining,
    /// The life is over, and the rest of the log is replayed, so that this host's disk is what the
    /// guest left.
    Ending,
    /// Went live: go on as a primary.
    Live,
    /// Has ended.
    Stopped,
}

/// A look at a backup, for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStatus {
    /// What it is doing.
    pub phase: BackupPhase,
    /// The life.
    pub life: LifeNumber,
    /// The generation: that of its primary until it is a member.
    pub generation: Generation,
    /// What the last look at both arbiters said.
    pub arbiter: Agreement,
    /// Why this host could not take over by the arbiter now, for people.
    pub arbiter_trouble: Option<String>,
    /// Whether this host's disk is known to have everything that the primary's has.
    pub settled: bool,
    /// The pairing; 0 when there is none.
    pub pairing: u64,
    /// Instruction count that its machine has reached.
    pub executed: InstructionCount,
    /// Instruction count of the last record received.
    pub received_count: InstructionCount,
    /// Records received and not yet replayed.
    pub backlog_records: u64,
    /// Outputs kept because the primary has not said that they are out.
    pub kept_outputs: usize,
    /// While it restores: bytes done, of how many.
    pub restored: Option<(u64, u64)>,
    /// The primary, and what its program was built from, once it has greeted.
    pub primary: Option<(Host, Build)>,
    /// What this host has, as it was told to the primary.
    pub facts: HostFacts,
    /// What the machine needed when this host greeted, as the primary said.
    pub needs: Needs,
    /// Where it would be booted from something else on the primary's host, as of then.
    pub boots_otherwise: Vec<Difference>,
}

enum State<O> {
    Dialing,
    Greeting {
        connection: ConnectionId,
        silence: SilenceDetector,
    },
    Following(Box<Follow<O>>),
    Claiming(Box<Follow<O>>, Box<Claim>),
    Draining(Box<Follow<O>>, Box<Drain>),
    /// The guest has ended, everything that it said is out.
    Ending(Box<Follow<O>>),
    Live,
    Stopped,
}

/// Won, with so many records to replay.
struct Drain {
    opened: Entry,
    records: u64,
    /// Nobody but this host can write to the shared disks, if there are some.
    is_fenced: bool,
}

/// A machine that follows nobody at present: its place in the log, the outputs that it may have to send
/// again. It has no rights, and goes on as soon as a primary is found whose log holds what it lacks.
pub struct Held<O>(Box<Follow<O>>);

/// The replica that follows, as far as replication goes: one attempt to join one primary, and what
/// comes of it.
pub struct Backup<O> {
    config: PairConfig,
    /// The key that opened the generation in which the primary must live.
    newest: Entry,
    /// The machine of before, until it is known whether it goes on.
    held: Option<Box<Follow<O>>>,
    state: State<O>,
    /// Who has let it join.
    primary: Option<(Host, Build)>,
    /// What this host has.
    facts: HostFacts,
    /// What the primary says that the machine needs.
    needs: Needs,
    /// What it would be booted from on this host, and where that is something else on the primary's.
    boot: Configuration,
    boots_otherwise: Vec<Difference>,
    /// The protocol of the next greeting, or of the last one.
    protocol: u32,
    outage: Outage,
    /// Why this host could not go on as the primary.
    trouble: Option<String>,
    /// The key by which the life moved to another arbiter, until this host's has shown it.
    unread_move: Option<Key>,
    /// At another arbiter, because the primary asked for it.
    look: Option<moving::Look>,
    pauses: PauseDetector,
    actions: VecDeque<BackupAction<O>>,
}

impl<O> Backup<O> {
    /// A backup of the primary that lives in the generation that `newest` opened. `held`: what
    /// [`Backup::take_held`] gave, if the machine of that attempt is still here.
    pub fn new(
        now: Duration,
        config: PairConfig,
        newest: Entry,
        held: Option<Held<O>>,
    ) -> Backup<O> {
        assert!(newest.next.is_some(), "a life that is over has no primary");
        let pauses = PauseDetector::new(now, &config.detector);
        let mut backup = Backup {
            protocol: config.protocol,
            facts: HostFacts::default(),
            needs: Needs::default(),
            boot: Configuration::default(),
            boots_otherwise: Vec::new(),
            config,
            newest,
            held: held.map(|held| held.0),
            state: State::Dialing,
            primary: None,
            outage: Outage::default(),
            trouble: None,
            unread_move: None,
            look: None,
            pauses,
            actions: VecDeque::new(),
        };
        backup.actions.push_back(BackupAction::Connect);
        backup
    }

    /// After [`BackupStop::Again`], [`BackupStop::Later`] or [`BackupStop::Superseded`]: the machine is to be kept as it is,
    /// and given to the next attempt together with this. `None`: it is to be dropped.
    pub fn take_held(&mut self) -> Option<Held<O>> {
        self.held.take().map(Held)
    }

    /// The pairing by which the machine of before is known, until [`BackupAction::GoOn`].
    pub fn held_pairing(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.pairing())
    }

    /// What this host has, and what the machine would be booted from here, to be told when it greets: to be called
    /// before [`Backup::connected`].
    pub fn host_has(&mut self, facts: HostFacts, boot: Configuration) {
        self.facts = facts;
        self.boot = boot;
    }

    /// Why this host could not go on with the machine as its primary, the arbiter apart; `None`: it could. The
    /// primary is told, and hands it over to another; when the primary is lost this replica claims all the same.
    pub fn host_could_go_on(&mut self, now: Duration, trouble: Option<String>) {
        self.enter(now);
        if trouble.is_some() != self.trouble.is_some() {
            self.report(Event::MayGoOn {
                host: self.config.greeting.host.clone(),
                trouble: trouble.clone(),
                is_here: true,
            });
        }
        self.trouble = trouble;
        self.maintain(now);
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<BackupAction<O>> {
        self.actions.pop_front()
    }

    /// When [`tick`](Self::tick) is to be called, if nothing else is called before.
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Greeting { silence, .. } => Some(silence.deadline().min(self.pauses.due())),
            State::Following(follow) => Some(
                follow
                    .deadline(&self.config.detector)
                    .min(self.pauses.due()),
            ),
            State::Claiming(follow, claim) => {
                let heartbeat = follow
                    .is_handed_over()
                    .then(|| follow.heartbeat_deadline(&self.config.detector));
                [heartbeat, claim.deadline()].into_iter().flatten().min()
            }
            State::Dialing
            | State::Draining(..)
            | State::Ending(_)
            | State::Live
            | State::Stopped => None,
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) {
        self.enter(now);
        self.maintain(now);
    }

    /// The answer to [`BackupAction::Connect`]: there is a connection, with a number never used.
    pub fn connected(&mut self, now: Duration, connection: ConnectionId) {
        self.enter(now);
        if !matches!(self.state, State::Dialing) {
            self.actions.push_back(BackupAction::Close(connection));
            return self.maintain(now);
        }
        let greeting = self.config.greeting.clone();
        self.send(
            connection,
            Message::Hello {
                protocol: self.protocol,
                greeting,
                is_spare: self.config.is_spare,
                stands_at: self.held.as_ref().map(|held| held.stands_at()),
                facts: self.facts,
                boot: match tells_boot(self.protocol) {
                    true => self.boot.clone(),
                    false => Configuration::default(),
                },
            },
        );
        let silence = SilenceDetector::new(now, self.config.detector.join_timeout);
        self.state = State::Greeting {
            connection,
            silence,
        };
        self.maintain(now);
    }

    /// No connection could be made (`None`), or it ended, or what came could not be understood.
    pub fn disconnected(&mut self, now: Duration, connection: Option<ConnectionId>) {
        self.enter(now);
        match &self.state {
            State::Dialing if connection.is_none() => self.again("no connection could be made"),
            State::Greeting {
                connection: greeting,
                ..
            } if Some(*greeting) == connection => {
                self.again("the connection ended");
            }
            State::Following(follow) if Some(follow.connection()) == connection => {
                self.lost_primary(now, Suspicion::ConnectionEnded);
            }
            _ => {}
        }
        self.maintain(now);
    }

    /// A message came.
    pub fn received(&mut self, now: Duration, connection: ConnectionId, message: Message) {
        self.enter(now);
        match (&mut self.state, message) {
            (
                State::Greeting {
                    connection: greeting,
                    ..
                },
                message,
            ) if *greeting == connection => {
                self.primary_greeted(now, connection, message);
            }
            (_, Message::Ask { .. } | Message::Hello { .. }) => {
                // Of a connection to this replica's own port: the caller answers those, for it
                // knows what the markers say.
            }
            (State::Following(follow), message) if follow.connection() == connection => {
                self.primary_said(now, message);
            }
            // Late words of a primary that is not listened to any more.
            _ => {}
        }
        self.maintain(now);
    }

    /// The machine of `pairing` is being made of its snapshot: `done` bytes of `total`. To be
    /// called now and then while that lasts; [`tick`](Self::tick) has to be called as ever.
    pub fn restoring(&mut self, now: Duration, pairing: u64, done: u64, total: u64) {
        self.enter(now);
        if let State::Following(follow) = &mut self.state
            && follow.pairing() == pairing
        {
            follow.restoring(done, total);
        }
        self.maintain(now);
    }

    /// The machine of `pairing` is made of its snapshot, or could not be.
    pub fn restored(&mut self, now: Duration, pairing: u64, result: Result<(), String>) {
        self.enter(now);
        if let State::Following(follow) = &mut self.state
            && follow.pairing() == pairing
        {
            match result {
                Ok(()) => self.ready(now),
                Err(why) => {
                    let connection = follow.connection();
                    self.send(
                        connection,
                        Message::Goodbye {
                            pairing,
                            parting: Parting::Leaving,
                        },
                    );
                    self.actions.push_back(BackupAction::Close(connection));
                    self.stop(BackupStop::Unusable(why));
                }
            }
        }
        self.maintain(now);
    }

    /// The replayer has replayed `record` and all before; its machine is at `executed`.
    /// To be called now and then, and always when it has nothing left to do.
    pub fn replayed(
        &mut self,
        now: Duration,
        pairing: u64,
        record: RecordNumber,
        executed: InstructionCount,
    ) {
        self.enter(now);
        if let Some(follow) = self.follow_mut(pairing)
            && !follow.replayed(record, executed)
        {
            // The snapshot says another count than the message that announced it.
            let what = "the machine is beyond the log".to_owned();
            let report = DivergenceReport {
                record,
                count: executed,
                digest: 0,
                what,
            };
            self.diverged(now, pairing, report);
        }
        self.maintain(now);
    }

    /// The replayer collected visible outputs; `visible_outputs` is the machine's running count
    /// including these. Before the [`replayed`](Self::replayed) that they belong to.
    pub fn outputs(&mut self, now: Duration, pairing: u64, visible_outputs: u64, outputs: Vec<O>) {
        self.enter(now);
        let forget = self.config.mutations.active(Mutation::OutputsNotRepeated);
        if let Some(follow) = self.follow_mut(pairing)
            && !forget
        {
            follow.keep(visible_outputs, outputs);
        }
        self.maintain(now);
    }

    /// The replayer found a difference.
    pub fn diverged(&mut self, now: Duration, pairing: u64, report: DivergenceReport) {
        self.enter(now);
        if self.awaits_verdict(pairing, &report) {
            return self.maintain(now);
        }
        if self.follow_mut(pairing).is_some() {
            self.suspect_own_disk();
            if let State::Following(follow) = &self.state {
                let connection = follow.connection();
                let report = report.clone();
                self.send(connection, Message::Diverged { pairing, report });
                self.actions.push_back(BackupAction::Close(connection));
            }
            self.keep_evidence(pairing, report.clone());
            self.stop(BackupStop::Diverged(report));
        }
        self.maintain(now);
    }

    /// The identity of the life.
    pub fn life(&self) -> LifeId {
        self.newest.life
    }

    /// Somebody wants this process to end. False while it may be the only one to go on: it asks
    /// the arbiter, or has won; and for the little while that the end of a life takes.
    pub fn leave(&mut self, now: Duration) -> bool {
        self.enter(now);
        match &self.state {
            State::Claiming(..) | State::Draining(..) | State::Ending(_) | State::Live => {
                return false;
            }
            State::Following(follow) => {
                let (connection, pairing) = (follow.connection(), follow.pairing());
                self.send(
                    connection,
                    Message::Goodbye {
                        pairing,
                        parting: Parting::Leaving,
                    },
                );
                self.actions.push_back(BackupAction::Close(connection));
            }
            State::Greeting { connection, .. } => {
                self.actions.push_back(BackupAction::Close(*connection));
            }
            State::Dialing => {}
            State::Stopped => return true,
        }
        self.stop(BackupStop::Left);
        true
    }

    /// Somebody presses a button of the machine here: the live one is told. False if none is followed.
    /// `request`: a number of the caller's, with which [`BackupAction::Answered`] comes.
    pub fn press(&mut self, now: Duration, button: Button, request: u64) -> bool {
        self.tell_the_live_one(now, |pairing| Message::Press {
            pairing,
            button,
            request,
        })
    }

    /// Somebody asks here that the machine goes over to this host: the live one is told. False if none
    /// is followed. `request`: as for [`Backup::press`]; if it is done [`BackupAction::GoLive`] comes
    /// instead.
    pub fn switch_over(&mut self, now: Duration, request: u64) -> bool {
        self.tell_the_live_one(now, |pairing| Message::SwitchOver { pairing, request })
    }

    fn tell_the_live_one(&mut self, now: Duration, what: impl FnOnce(u64) -> Message) -> bool {
        self.enter(now);
        let State::Following(follow) = &self.state else {
            return false;
        };
        if !follow.has_begun() {
            return false;
        }
        let (connection, pairing) = (follow.connection(), follow.pairing());
        self.send(connection, what(pairing));
        true
    }

    /// A look at it.
    pub fn status(&self) -> BackupStatus {
        let (phase, follow) = match &self.state {
            State::Dialing | State::Greeting { .. } => (BackupPhase::Connecting, None),
            State::Following(follow) if follow.differs.is_some() => {
                (BackupPhase::Differing, Some(follow))
            }
            State::Following(follow) if follow.has_begun() => {
                (BackupPhase::Following, Some(follow))
            }
            State::Following(follow) => (BackupPhase::Joining, Some(follow)),
            State::Claiming(follow, _) => (BackupPhase::Claiming, Some(follow)),
            State::Draining(follow, _) => (BackupPhase::Draining, Some(follow)),
            State::Ending(follow) => (BackupPhase::Ending, Some(follow)),
            State::Live => (BackupPhase::Live, None),
            State::Stopped => (BackupPhase::Stopped, None),
        };
        let mut status = BackupStatus {
            phase,
            life: self.newest.key.life,
            generation: self.newest.next_generation(),
            arbiter: Agreement::Unknown,
            arbiter_trouble: None,
            settled: false,
            pairing: 0,
            executed: InstructionCount::POWER_ON,
            received_count: InstructionCount::POWER_ON,
            backlog_records: 0,
            kept_outputs: 0,
            restored: None,
            primary: self.primary.clone(),
            facts: self.facts,
            needs: self.needs,
            boots_otherwise: self.boots_otherwise.clone(),
        };
        if let Some(follow) = follow {
            follow.describe(&mut status);
        }
        let claims = matches!(phase, BackupPhase::Claiming);
        let unanswered = self.outage.why().filter(|_| claims).map(str::to_owned);
        status.arbiter_trouble = unanswered.or_else(|| status.arbiter.trouble().map(Into::into));
        if phase == BackupPhase::Draining {
            status.generation = self.newest.next_generation();
        }
        status
    }

    fn enter(&mut self, now: Duration) {
        let Some(pause) = self.pauses.observe(now) else {
            return;
        };
        match &mut self.state {
            State::Greeting { silence, .. } => silence.forgive(pause),
            State::Following(follow) => follow.forgive(pause),
            _ => {}
        }
    }

    fn maintain(&mut self, now: Duration) {
        match &mut self.state {
            State::Greeting {
                connection,
                silence,
            } if silence.is_silent(now) => {
                let connection = *connection;
                self.actions.push_back(BackupAction::Close(connection));
                self.again("the primary did not answer the greeting");
            }
            State::Following(follow) => {
                if let Some(why) = follow.suspicion(now) {
                    return self.lost_primary(now, why);
                }
                let connection = follow.connection();
                if let Some(progress) = follow.progress_if_due(now) {
                    self.send(connection, progress);
                }
                self.talk(now);
            }
            State::Claiming(follow, claim) => {
                if let Some(request) = claim.poll(now) {
                    self.actions.push_back(BackupAction::Ask(request));
                }
                if follow.is_handed_over()
                    && let Some(ack) = follow.ack_if_due(now, &self.config.detector)
                {
                    let connection = follow.connection();
                    self.send(connection, ack);
                }
            }
            State::Draining(follow, drain)
                if drain.is_fenced
                    && (follow.is_drained()
                        || self.config.mutations.active(Mutation::NotDrained)) =>
            {
                self.go_live();
            }
            State::Ending(_) => self.end_when_drained(),
            _ => {}
        }
    }

    fn primary_greeted(&mut self, now: Duration, connection: ConnectionId, message: Message) {
        let failed = match message {
            Message::Welcome {
                greeting,
                life,
                life_id,
                generation,
                pairing,
                continuation,
                needs,
                boot,
            } => match check(&self.config.greeting, &greeting) {
                Ok(()) => {
                    let here = (self.newest.key.life, self.newest.life);
                    let is_newest =
                        (life, life_id) == here && generation == self.newest.next_generation();
                    // A primary of before, or of another arbiter's life, must not overwrite a disk
                    // that may be the right one.
                    if is_newest {
                        self.primary = Some((greeting.host.clone(), greeting.build));
                        self.needs = needs.unwrap_or_default();
                        self.compare_boots(&greeting.host, &boot);
                        let follow =
                            Follow::new(now, connection, pairing, &self.newest, &self.config);
                        return self.welcomed(now, follow, greeting.host, continuation);
                    }
                    BackupStop::Again(format!(
                        "host {} is live in generation {generation} of life {life}, which is not \
                         what the arbiter says",
                        greeting.host
                    ))
                }
                Err(refusal) => BackupStop::Refused(refusal),
            },
            Message::Refuse(refusal) if refusal.puts_off() => BackupStop::Later(refusal),
            Message::Refuse(Refusal::ProtocolVersion { ours }) if self.speaks_older(ours) => {
                // Its program is older, and this one speaks what that does.
                self.protocol = ours;
                self.state = State::Dialing;
                self.actions.push_back(BackupAction::Close(connection));
                self.actions.push_back(BackupAction::Connect);
                return;
            }
            Message::Refuse(refusal) if refusal.is_temporary() => {
                BackupStop::Again(refusal.to_string())
            }
            Message::Refuse(refusal) => BackupStop::Refused(refusal),
            Message::Standing(standing) => BackupStop::Again(format!(
                "host {} is not live: it {}",
                standing.host, standing.stance
            )),
            _ => BackupStop::Again("the greeting was answered with something else".to_owned()),
        };
        self.actions.push_back(BackupAction::Close(connection));
        self.stop(failed);
    }

    /// Says whether the machine would be booted from something else there, before this host is relied on.
    fn compare_boots(&mut self, host: &Host, theirs: &Configuration) {
        let differences = boot_differences(&self.boot, theirs);
        self.boots_otherwise.clone_from(&differences);
        if !differences.is_empty() {
            let host = host.clone();
            self.report(Event::BootsOtherwise { host, differences });
        }
    }

    /// Whether the greeting may be said again in the version that the primary speaks, which is older.
    fn speaks_older(&self, theirs: u32) -> bool {
        theirs < self.protocol && spoken_by_both(self.protocol, theirs) == Some(theirs)
    }

    /// May join. A machine of before goes on if the primary can prove that it may. Otherwise what is
    /// here loses its rights first of all.
    fn welcomed(
        &mut self,
        now: Duration,
        follow: Follow<O>,
        primary: Host,
        continuation: Continuation,
    ) {
        let pairing = follow.pairing();
        self.report(Event::Joining {
            pairing,
            host: primary,
        });
        if let Some(shortfall) = self.needs.lacks_speed(&self.facts) {
            let host = self.config.greeting.host.clone();
            self.report(Event::JoinerIsSlow {
                pairing,
                host,
                shortfall,
            });
        }
        match (self.held.take(), continuation) {
            (Some(held), Continuation::Continues) => return self.go_on(now, *held, follow),
            (None, Continuation::Continues) => {
                self.actions
                    .push_back(BackupAction::Close(follow.connection()));
                return self.again("the primary lets a machine go on that is not here");
            }
            (Some(_), continuation) => {
                self.report(Event::Continues {
                    pairing,
                    continuation,
                });
                self.actions.push_back(BackupAction::DropMachine);
            }
            (None, _) => {}
        }
        let marker = self.marker(
            &self.newest,
            Role::None,
            DiskState::Copying,
            RecordNumber::BEFORE_ALL,
        );
        self.actions.push_back(BackupAction::Mark(marker));
        self.state = State::Following(Box::new(follow));
        if self
            .config
            .mutations
            .active(Mutation::OverwrittenBeforeMarked)
        {
            self.marked(now);
        }
    }

    /// A marker of this host in the generation that `opened` opened.
    fn marker(&self, opened: &Entry, role: Role, disk: DiskState, record: RecordNumber) -> Marker {
        Marker {
            machine: self.config.greeting.machine.clone(),
            life: opened.key.life,
            life_id: opened.life,
            generation: opened.next_generation(),
            role,
            record,
            disk,
        }
    }

    /// What to answer a peer that asks how this replica stands. `worth`: what its markers say.
    pub fn standing(&self, worth: Worth) -> Standing {
        let (stance, opened) = match &self.state {
            State::Following(follow) if follow.has_begun() => (Stance::Following, follow.opened()),
            State::Claiming(follow, _) => (Stance::Claiming, follow.opened()),
            State::Draining(_, drain) => (Stance::Claiming, &drain.opened),
            State::Live => (Stance::Claiming, &self.newest),
            State::Ending(follow) => (Stance::NoMachine, follow.opened()),
            State::Stopped => (Stance::NoMachine, &self.newest),
            State::Dialing | State::Greeting { .. } | State::Following(_) => {
                (Stance::Joining, &self.newest)
            }
        };
        Standing {
            machine: self.config.greeting.machine.clone(),
            host: self.config.greeting.host.clone(),
            stance,
            life: opened.key.life,
            life_id: opened.life,
            generation: opened.next_generation(),
            worth,
        }
    }

    fn keep_evidence(&mut self, pairing: u64, report: DivergenceReport) {
        self.report(Event::Diverged {
            pairing,
            report: report.clone(),
        });
        self.actions
            .push_back(BackupAction::KeepEvidence { pairing, report });
    }

    fn follow_mut(&mut self, pairing: u64) -> Option<&mut Follow<O>> {
        match &mut self.state {
            State::Following(follow)
            | State::Claiming(follow, _)
            | State::Draining(follow, _)
            | State::Ending(follow) => (follow.pairing() == pairing).then_some(follow),
            State::Dialing | State::Greeting { .. } => self
                .held
                .as_deref_mut()
                .filter(|held| held.pairing() == pairing),
            State::Live | State::Stopped => None,
        }
    }

    fn again(&mut self, why: &str) {
        self.hold_machine();
        self.stop(BackupStop::Again(why.to_owned()));
    }

    /// This attempt ends, and its machine may go on in another.
    fn hold_machine(&mut self) {
        if let State::Following(follow) | State::Claiming(follow, _) =
            std::mem::replace(&mut self.state, State::Stopped)
            && follow.can_return()
        {
            assert!(self.held.is_none(), "a replica has one machine");
            self.held = Some(follow);
        }
    }

    fn stop(&mut self, why: BackupStop) {
        let keeps = matches!(
            why,
            BackupStop::Again(_) | BackupStop::Later(_) | BackupStop::Superseded { .. }
        );
        if !keeps {
            self.held = None;
        }
        self.state = State::Stopped;
        self.actions.push_back(BackupAction::Stop(why));
    }

    fn send(&mut self, connection: ConnectionId, message: Message) {
        self.actions.push_back(BackupAction::Send {
            connection,
            message,
        });
    }

    fn report(&mut self, event: Event) {
        self.actions.push_back(BackupAction::Report(event));
    }
}

fn check(ours: &Greeting, theirs: &Greeting) -> Result<(), Refusal> {
    if theirs.machine != ours.machine {
        return Err(Refusal::Machine {
            ours: theirs.machine.clone(),
        });
    }
    let clash = ours.clash(theirs);
    match clash.or_else(|| ours.refusal_of_machine(theirs)) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}
