//! The replica that follows. `docs/protocol.md`, "The backup".

mod follow;

use crate::ConnectionId;
use crate::config::PairConfig;
use crate::event::Event;
use crate::failure_detector::{PauseDetector, SilenceDetector, Suspicion};
use crate::generation::{Claim, ClaimOutcome, ClaimRequest, Verdict};
use crate::message::{
    DivergenceReport, Greeting, LifeId, Message, PROTOCOL_VERSION, Parting, Refusal, SnapshotChunk,
};
use crate::mutation::Mutation;
use crate::record::Record;
use follow::Follow;
use std::collections::VecDeque;
use std::time::Duration;

/// Why a backup has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupStop {
    /// The guest ended the machine on the primary, and everything it said is out.
    Finished,
    /// The primary goes on without us.
    LostClaim {
        /// The generation that was lost.
        generation: u64,
        /// What its key holds.
        holder: String,
    },
    /// The primary will never take us as we are.
    Refused(Refusal),
    /// The snapshot came whole, but this host cannot use it.
    Unusable(String),
    /// The machine differs from the primary's, and the primary is gone: nobody can go on rightly.
    Diverged(DivergenceReport),
    /// A disk of this host failed: its machine is not the primary's any more.
    DiskFailed(String),
    /// It was asked to.
    Left,
}

/// What the caller has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupAction<O> {
    /// Connect to the primary, then call [`Backup::connected`] or [`Backup::disconnected`].
    Connect,
    /// Send on the logging channel.
    Send {
        /// Which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// Close the connection after what was sent. [`Backup::disconnected`] need not be called.
    Close(ConnectionId),
    /// Keep this piece of the snapshot, of the machine or of a disk.
    Store(SnapshotChunk),
    /// The snapshot is whole: make the machine of it, then call [`Backup::restored`].
    Restore {
        /// The pairing.
        generation: u64,
        /// Instruction count at which it was taken.
        count: u64,
        /// Visible outputs there.
        visible_outputs: u64,
    },
    /// Give these to the replayer (they may come before the machine is restored), and call
    /// [`Backup::replayed`] and [`Backup::outputs`] as it proceeds.
    Replay {
        /// The pairing.
        generation: u64,
        /// In order; the first ever of a pairing has number 1.
        records: Vec<Record>,
    },
    /// Drop the machine, the snapshot and all records of this pairing, and with them what they still
    /// wanted to report: another life may use the same generation again.
    Discard {
        /// The pairing.
        generation: u64,
    },
    /// The machine differs: keep the evidence (snapshot, records, state) before the
    /// [`BackupAction::Discard`] that follows.
    KeepEvidence {
        /// The pairing.
        generation: u64,
        /// Where and how.
        report: DivergenceReport,
    },
    /// Ask the arbiter, answer with [`Backup::arbiter_answered`]: exactly one answer a request,
    /// [`ClaimOutcome::Unknown`] when it takes too long.
    Ask(ClaimRequest),
    /// Tell the network that the guest is here now: comes right before
    /// [`BackupAction::GoLive`].
    Announce,
    /// Go live: the log is replayed to its end. Re-issue open disk requests, emit `outputs`, let the machine run, and go on with
    /// [`Primary::new`](crate::primary::Primary::new). Always last.
    GoLive {
        /// The life of the machine, for the primary to be.
        life: LifeId,
        /// The generation that was won, for the primary to be.
        generation: u64,
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
    /// Looks for the primary.
    Connecting,
    /// Receives the snapshot, restores it, or is ready: not protected yet.
    Joining,
    /// Holds the log; may take over.
    Following,
    /// Suspects the primary and asks the arbiter.
    Claiming,
    /// Won, and replays the rest of the log.
    Draining,
    /// Went live: go on as a primary.
    Live,
    /// Has ended.
    Stopped,
}

/// A look at a backup, for the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupStatus {
    /// What it is doing.
    pub phase: BackupPhase,
    /// The pairing; 0 when there is none.
    pub generation: u64,
    /// Instruction count that its machine has reached.
    pub executed: u64,
    /// Instruction count of the last record received.
    pub received_count: u64,
    /// Records received and not yet replayed.
    pub backlog_records: u64,
    /// Outputs kept because the primary has not said that they are out.
    pub kept_outputs: usize,
    /// While it restores: bytes done, of how many.
    pub restored: Option<(u64, u64)>,
}

enum State<O> {
    /// Dials when the time has come.
    Resting {
        until: Duration,
    },
    Dialing,
    Greeting {
        connection: ConnectionId,
        silence: SilenceDetector,
    },
    Following(Box<Follow<O>>),
    Claiming(Box<Follow<O>>, Claim),
    Draining(Box<Follow<O>>, u64),
    Live,
    Stopped,
}

/// The replica that follows, as far as replication goes.
pub struct Backup<O> {
    config: PairConfig,
    state: State<O>,
    pauses: PauseDetector,
    actions: VecDeque<BackupAction<O>>,
}

impl<O> Backup<O> {
    /// A backup that begins to look for its primary.
    pub fn new(now: Duration, config: PairConfig) -> Backup<O> {
        let pauses = PauseDetector::new(now, &config.detector);
        let mut backup = Backup {
            config,
            state: State::Resting { until: now },
            pauses,
            actions: VecDeque::new(),
        };
        backup.maintain(now);
        backup
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<BackupAction<O>> {
        self.actions.pop_front()
    }

    /// When [`tick`](Self::tick) is to be called, if nothing else is called before.
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Resting { until } => Some(*until),
            State::Greeting { silence, .. } => Some(silence.deadline().min(self.pauses.due())),
            State::Following(follow) => Some(
                follow
                    .deadline(&self.config.detector)
                    .min(self.pauses.due()),
            ),
            State::Claiming(_, claim) => claim.deadline(),
            State::Dialing | State::Draining(..) | State::Live | State::Stopped => None,
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
                protocol: PROTOCOL_VERSION,
                greeting,
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
            State::Dialing if connection.is_none() => self.rest(now),
            State::Greeting {
                connection: greeting,
                ..
            } if Some(*greeting) == connection => {
                self.rest(now);
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
            (State::Following(follow), message) if follow.connection() == connection => {
                self.primary_said(now, message);
            }
            // Late words of a primary that is not listened to any more.
            _ => {}
        }
        self.maintain(now);
    }

    /// The machine of `generation` is being made of its snapshot: `done` bytes of `total`. To be
    /// called now and then while that lasts; [`tick`](Self::tick) has to be called as ever.
    pub fn restoring(&mut self, now: Duration, generation: u64, done: u64, total: u64) {
        self.enter(now);
        if let State::Following(follow) = &mut self.state
            && follow.generation() == generation
        {
            follow.restoring(done, total);
        }
        self.maintain(now);
    }

    /// The machine of `generation` is made of its snapshot, or could not be.
    pub fn restored(&mut self, now: Duration, generation: u64, result: Result<(), String>) {
        self.enter(now);
        if let State::Following(follow) = &mut self.state
            && follow.generation() == generation
        {
            match result {
                Ok(()) => self.ready(now),
                Err(why) => {
                    let connection = follow.connection();
                    self.send(
                        connection,
                        Message::Goodbye {
                            generation,
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

    /// The replayer has replayed record `sequence` and all before; its machine is at `executed`.
    /// To be called now and then, and always when it has nothing left to do.
    pub fn replayed(&mut self, now: Duration, generation: u64, sequence: u64, executed: u64) {
        self.enter(now);
        if let Some(follow) = self.follow_mut(generation)
            && !follow.replayed(sequence, executed)
        {
            // The snapshot says another count than the message that announced it.
            let what = "the machine is beyond the log".to_owned();
            let report = DivergenceReport {
                sequence,
                count: executed,
                what,
            };
            self.diverged(now, generation, report);
        }
        self.maintain(now);
    }

    /// The replayer collected visible outputs; `visible_outputs` is the machine's running count
    /// including these. Before the [`replayed`](Self::replayed) that they belong to.
    pub fn outputs(
        &mut self,
        now: Duration,
        generation: u64,
        visible_outputs: u64,
        outputs: Vec<O>,
    ) {
        self.enter(now);
        let forget = self.config.mutations.active(Mutation::OutputsNotRepeated);
        if let Some(follow) = self.follow_mut(generation)
            && !forget
        {
            follow.keep(visible_outputs, outputs);
        }
        self.maintain(now);
    }

    /// A disk of this host failed a request of `generation`'s machine that the primary's disk did,
    /// or did another than the record says. The machine is worth nothing from here on: this replica
    /// says so and leaves, and if it was about to take over, it does not.
    pub fn own_disk_failed(&mut self, now: Duration, generation: u64, what: String) {
        self.enter(now);
        if self.follow_mut(generation).is_some() {
            self.report(Event::DiskFailed { what: what.clone() });
            if let State::Following(follow) = &self.state {
                let connection = follow.connection();
                let parting = Parting::DiskFailed;
                self.send(
                    connection,
                    Message::Goodbye {
                        generation,
                        parting,
                    },
                );
                self.actions.push_back(BackupAction::Close(connection));
            }
            self.stop(BackupStop::DiskFailed(what));
        }
        self.maintain(now);
    }

    /// The replayer found a difference.
    pub fn diverged(&mut self, now: Duration, generation: u64, report: DivergenceReport) {
        self.enter(now);
        match &mut self.state {
            State::Following(follow) if follow.generation() == generation => {
                let connection = follow.connection();
                let message = Message::Diverged {
                    generation,
                    report: report.clone(),
                };
                self.send(connection, message);
                self.actions.push_back(BackupAction::Close(connection));
                self.keep_evidence(generation, report);
                self.actions.push_back(BackupAction::Discard { generation });
                self.rest(now);
            }
            State::Claiming(follow, _) | State::Draining(follow, _)
                if follow.generation() == generation =>
            {
                self.keep_evidence(generation, report.clone());
                self.stop(BackupStop::Diverged(report));
            }
            _ => {}
        }
        self.maintain(now);
    }

    /// The answer to [`BackupAction::Ask`].
    pub fn arbiter_answered(&mut self, now: Duration, generation: u64, outcome: &ClaimOutcome) {
        self.enter(now);
        if let State::Claiming(_, claim) = &mut self.state
            && claim.generation() == generation
        {
            let verdict = claim.answer(now, outcome);
            if let Some(event) = claim.answers_again(now, outcome) {
                self.actions.push_back(BackupAction::Report(event));
            }
            match verdict {
                Verdict::Pending => {
                    if let Some(event) = claim.trouble_to_tell(now, outcome) {
                        self.report(event);
                    }
                }
                Verdict::Won => self.won(generation),
                Verdict::Lost(holder) => {
                    let holder = String::from_utf8_lossy(&holder).trim_end().to_owned();
                    self.report(Event::LostClaim {
                        generation,
                        holder: holder.clone(),
                    });
                    self.stop(BackupStop::LostClaim { generation, holder });
                }
            }
        }
        self.maintain(now);
    }

    /// Somebody wants this process to end. False while it may be the only one to go on: it asks
    /// the arbiter, or has won.
    pub fn leave(&mut self, now: Duration) -> bool {
        self.enter(now);
        match &self.state {
            State::Claiming(..) | State::Draining(..) | State::Live => return false,
            State::Following(follow) => {
                let (connection, generation) = (follow.connection(), follow.generation());
                self.send(
                    connection,
                    Message::Goodbye {
                        generation,
                        parting: Parting::Leaving,
                    },
                );
                self.actions.push_back(BackupAction::Close(connection));
            }
            State::Greeting { connection, .. } => {
                self.actions.push_back(BackupAction::Close(*connection));
            }
            State::Resting { .. } | State::Dialing => {}
            State::Stopped => return true,
        }
        self.stop(BackupStop::Left);
        true
    }

    /// A look at it.
    pub fn status(&self) -> BackupStatus {
        let (phase, follow) = match &self.state {
            State::Resting { .. } | State::Dialing | State::Greeting { .. } => {
                (BackupPhase::Connecting, None)
            }
            State::Following(follow) if follow.has_begun() => {
                (BackupPhase::Following, Some(follow))
            }
            State::Following(follow) => (BackupPhase::Joining, Some(follow)),
            State::Claiming(follow, _) => (BackupPhase::Claiming, Some(follow)),
            State::Draining(follow, _) => (BackupPhase::Draining, Some(follow)),
            State::Live => (BackupPhase::Live, None),
            State::Stopped => (BackupPhase::Stopped, None),
        };
        let mut status = BackupStatus {
            phase,
            generation: 0,
            executed: 0,
            received_count: 0,
            backlog_records: 0,
            kept_outputs: 0,
            restored: None,
        };
        if let Some(follow) = follow {
            follow.describe(&mut status);
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
            State::Resting { until } if now >= *until => {
                self.state = State::Dialing;
                self.actions.push_back(BackupAction::Connect);
            }
            State::Greeting {
                connection,
                silence,
            } if silence.is_silent(now) => {
                let connection = *connection;
                self.actions.push_back(BackupAction::Close(connection));
                self.rest(now);
            }
            State::Following(follow) => {
                if let Some(why) = follow.suspicion(now) {
                    return self.lost_primary(now, why);
                }
                let connection = follow.connection();
                if let Some(progress) = follow.progress_if_due(now) {
                    self.send(connection, progress);
                }
                let State::Following(follow) = &mut self.state else {
                    return;
                };
                if let Some(ack) = follow.ack_if_due(now, &self.config.detector) {
                    self.send(connection, ack);
                }
            }
            State::Claiming(_, claim) => {
                if let Some(request) = claim.poll(now) {
                    self.actions.push_back(BackupAction::Ask(request));
                }
            }
            State::Draining(follow, _)
                if follow.is_drained() || self.config.mutations.active(Mutation::NotDrained) =>
            {
                self.go_live();
            }
            _ => {}
        }
    }

    fn primary_greeted(&mut self, now: Duration, connection: ConnectionId, message: Message) {
        match message {
            Message::Welcome {
                greeting,
                life,
                generation,
            } => match check(&self.config.greeting, &greeting) {
                Ok(()) => {
                    let node = greeting.node;
                    self.report(Event::Joining { generation, node });
                    let follow =
                        Follow::new(now, connection, life, generation, &self.config.detector);
                    self.state = State::Following(Box::new(follow));
                }
                Err(refusal) => {
                    self.actions.push_back(BackupAction::Close(connection));
                    self.stop(BackupStop::Refused(refusal));
                }
            },
            Message::Refuse(refusal) => {
                self.actions.push_back(BackupAction::Close(connection));
                if refusal.is_temporary() {
                    self.rest(now);
                } else {
                    self.stop(BackupStop::Refused(refusal));
                }
            }
            _ => {
                self.actions.push_back(BackupAction::Close(connection));
                self.rest(now);
            }
        }
    }

    /// The primary of this attempt or pairing is gone, perhaps. Before Begin it is free to go on
    /// alone at any time, so this replica must not; after it, the arbiter decides.
    fn lost_primary(&mut self, now: Duration, why: Suspicion) {
        self.lost_primary_for(now, why, Duration::ZERO);
    }

    /// `courtesy`: so long another claimant has before this replica asks as well.
    fn lost_primary_for(&mut self, now: Duration, why: Suspicion, courtesy: Duration) {
        let State::Following(follow) = &self.state else {
            return;
        };
        let (connection, generation) = (follow.connection(), follow.generation());
        self.actions.push_back(BackupAction::Close(connection));
        let early = self.config.mutations.active(Mutation::ClaimBeforeBegin) && follow.is_ready();
        if !follow.has_begun() && !early {
            self.report(Event::JoinFailed { generation, why });
            self.actions.push_back(BackupAction::Discard { generation });
            return self.rest(now);
        }
        let key = self.config.key(follow.life(), generation);
        self.report(Event::Suspected { generation, why });
        let claim = Claim::new(
            now + courtesy,
            key,
            &self.config.claimant(),
            self.config.claim_pacing,
            self.config.mutations,
        );
        let resting = State::Resting { until: now };
        if let State::Following(follow) = std::mem::replace(&mut self.state, resting) {
            self.state = State::Claiming(follow, claim);
        }
        if self.config.mutations.active(Mutation::GoLiveWithoutAsking) {
            self.won(generation);
        }
        self.maintain(now);
    }

    fn won(&mut self, generation: u64) {
        self.report(Event::Claimed { generation });
        if let State::Claiming(follow, _) = std::mem::replace(&mut self.state, State::Stopped) {
            let backlog = follow.backlog();
            self.state = State::Draining(follow, backlog);
        }
    }

    fn go_live(&mut self) {
        let State::Draining(follow, drained_records) =
            std::mem::replace(&mut self.state, State::Live)
        else {
            return;
        };
        let (life, generation) = (follow.life(), follow.generation());
        let outputs = follow.into_kept_outputs();
        let repeated_outputs = outputs.len();
        self.report(Event::Live {
            generation,
            drained_records,
            repeated_outputs,
        });
        self.actions.push_back(BackupAction::Announce);
        self.actions.push_back(BackupAction::GoLive {
            life,
            generation,
            outputs,
        });
    }

    fn keep_evidence(&mut self, generation: u64, report: DivergenceReport) {
        self.report(Event::Diverged {
            generation,
            report: report.clone(),
        });
        self.actions
            .push_back(BackupAction::KeepEvidence { generation, report });
    }

    fn follow_mut(&mut self, generation: u64) -> Option<&mut Follow<O>> {
        match &mut self.state {
            State::Following(follow) | State::Claiming(follow, _) | State::Draining(follow, _) => {
                (follow.generation() == generation).then_some(follow)
            }
            _ => None,
        }
    }

    fn rest(&mut self, now: Duration) {
        self.state = State::Resting {
            until: now + self.config.reconnect_delay,
        };
    }

    fn stop(&mut self, why: BackupStop) {
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
    if theirs.vm != ours.vm {
        return Err(Refusal::Vm {
            ours: theirs.vm.clone(),
        });
    }
    if theirs.semantics_version != ours.semantics_version {
        return Err(Refusal::SemanticsVersion {
            ours: theirs.semantics_version,
        });
    }
    if theirs.configuration_hash != ours.configuration_hash {
        return Err(Refusal::Configuration {
            ours: theirs.configuration_hash,
        });
    }
    Ok(())
}
