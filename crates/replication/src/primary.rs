//! The replica that meets the world. `docs/protocol.md`, "The primary".

mod handover;
mod join;
mod pair;

use crate::ConnectionId;
use crate::config::PairConfig;
use crate::event::Event;
use crate::failure_detector::{PauseDetector, Suspicion};
use crate::generation::{COURTESY, Claim, ClaimOutcome, ClaimRequest, Verdict};
use crate::lag::{Pressure, RunShare, Throttle};
use crate::message::{LifeId, Message, Parting};
use crate::mutation::Mutation;
use crate::output_gate::{OutputGate, Released};
use crate::record::{MAX_INPUT_BYTES, Record, RecordBody};
use join::Join;
use pair::Pair;
use std::collections::VecDeque;
use std::time::Duration;

/// Why a primary has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrimaryStop {
    /// The guest ended the machine, and everything it said is out.
    Finished,
    /// Another replica goes on. Outputs that waited are not ours to send.
    LostClaim {
        /// The generation that was lost.
        generation: u64,
        /// What its key holds.
        holder: String,
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
    /// place in the vcpu's stream of records and outputs.
    TakeSnapshot {
        /// The pairing that it is for.
        generation: u64,
    },
    /// Send the snapshot as [`Message::Snapshot`] chunks on the connection, through the same
    /// message writer as everything else, then call [`Primary::snapshot_sent`]. Messages of
    /// [`PrimaryAction::Send`] may go in between.
    SendSnapshot {
        /// Which connection.
        connection: ConnectionId,
        /// The pairing.
        generation: u64,
    },
    /// The snapshot is not needed any more.
    AbortSnapshot {
        /// The pairing.
        generation: u64,
    },
    /// Ask the arbiter, answer with [`Primary::arbiter_answered`]: exactly one answer a request,
    /// [`ClaimOutcome::Unknown`] when it takes too long.
    Ask(ClaimRequest),
    /// Tell the network that the guest is here.
    Announce,
    /// Nobody took over what was handed over: let the vcpu run on.
    Resume,
    /// Let the harts run this share of the time.
    Throttle(RunShare),
    /// Tell people.
    Report(Event),
    /// Stop the machine and end. Always last.
    Stop(PrimaryStop),
}

/// What a primary is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryPhase {
    /// Runs alone; outputs leave at once.
    Alone,
    /// Runs alone, and a backup is joining.
    Joining,
    /// Has a backup; outputs wait for its acknowledgement.
    Paired,
    /// Stands still, and its backup is asked to take over.
    HandingOver,
    /// Lost its backup and asks the arbiter; outputs wait.
    Claiming,
    /// Has ended.
    Stopped,
}

/// A look at a primary, for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryStatus {
    /// What it is doing.
    pub phase: PrimaryPhase,
    /// The last pairing that was tried or made; 0 before the first.
    pub generation: u64,
    /// Whether the death of this process would lose nothing.
    pub protected: bool,
    /// The primary's instruction count.
    pub instruction_count: u64,
    /// How many instructions the backup's execution is behind.
    pub lag_instructions: u64,
    /// How far the backup's execution is behind what it holds, in time for which the primary ran:
    /// without the round trip.
    pub lag: Duration,
    /// The shortest round trip of the channel of late, once it is known.
    pub round_trip: Option<Duration>,
    /// Share of time that the harts may run, in thousandths.
    pub run_share: RunShare,
    /// Outputs that wait.
    pub held_outputs: usize,
    /// Bytes of records sent in this pairing, about (without frame headers).
    pub record_bytes_sent: u64,
    /// Number of the last record that the backup acknowledged.
    pub acknowledged: u64,
    /// While a backup restores: bytes done, of how many.
    pub restored: Option<(u64, u64)>,
}

enum State {
    Alone {
        join: Option<Join>,
    },
    Paired(Box<Pair>),
    Claiming(Claim),
    Parting {
        connection: ConnectionId,
        deadline: Duration,
    },
    Stopped,
}

const KEPT_DELAYS: usize = 1024;

/// The replica that meets the world, as far as replication goes.
pub struct Primary<O> {
    config: PairConfig,
    life: LifeId,
    generation: u64,
    state: State,
    gate: OutputGate<O>,
    throttle: Throttle,
    pauses: PauseDetector,
    count: u64,
    visible_outputs: u64,
    finishing: bool,
    /// The machine was handed over: the vcpu is stopped, nothing leaves.
    stands_still: bool,
    /// The network is back, and it was not certain that the guest is here.
    owes_announcement: bool,
    delays: VecDeque<Duration>,
    actions: VecDeque<PrimaryAction<O>>,
}

impl<O> Primary<O> {
    /// A machine that runs alone: just started (`generation` 0 and a `life` never used before), or
    /// gone live as a backup of `generation`. It stands at `count` with `visible_outputs`.
    pub fn new(
        now: Duration,
        config: PairConfig,
        life: LifeId,
        generation: u64,
        count: u64,
        visible_outputs: u64,
    ) -> Primary<O> {
        let pauses = PauseDetector::new(now, &config.detector);
        Primary {
            config,
            life,
            generation,
            state: State::Alone { join: None },
            gate: OutputGate::new(visible_outputs),
            throttle: Throttle::new(),
            pauses,
            count,
            visible_outputs,
            finishing: false,
            stands_still: false,
            owes_announcement: false,
            delays: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<PrimaryAction<O>> {
        self.actions.pop_front()
    }

    /// When [`tick`](Self::tick) is to be called, if nothing else is called before.
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Alone { join } => join
                .as_ref()
                .map(|join| join.deadline(self).min(self.pauses.due())),
            State::Paired(pair) => Some(pair.deadline(self).min(self.pauses.due())),
            State::Claiming(claim) => claim.deadline(),
            State::Parting { deadline, .. } => Some(*deadline),
            State::Stopped => None,
        }
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
            RecordBody::Digest(_) => {}
        }
        if let Some(stream) = self.stream_mut() {
            stream.push(now, record);
        }
        self.maintain(now);
    }

    /// The vcpu collected outputs at `count`, in order with its records; `visible_outputs` is the
    /// machine's running count including these.
    pub fn outputs(&mut self, now: Duration, count: u64, visible_outputs: u64, outputs: Vec<O>) {
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
        let marker = self.stream_mut().map(|stream| stream.push(now, marker));
        match &mut self.state {
            _ if self.config.mutations.active(Mutation::NoOutputRule) => {
                self.actions.push_back(PrimaryAction::Emit(outputs));
                self.flush(now, true);
            }
            State::Alone { .. } => {
                self.gate.passed(visible_outputs);
                self.actions.push_back(PrimaryAction::Emit(outputs));
            }
            State::Paired(_) => {
                self.gate.hold(now, marker, visible_outputs, outputs);
                self.flush(now, true);
            }
            State::Claiming(_) => self.gate.hold(now, None, visible_outputs, outputs),
            State::Parting { .. } | State::Stopped => {}
        }
        self.maintain(now);
    }

    /// The vcpu has got to `count`, and has produced nothing since its last call. To be called
    /// every few milliseconds while it runs: the lag is measured by it.
    pub fn progress(&mut self, now: Duration, count: u64) {
        self.enter(now);
        self.advance_to(now, count);
        self.maintain(now);
    }

    /// The guest ended the machine. Its outputs were handed over before. When they are out and the
    /// backup knows, [`PrimaryAction::Stop`] comes.
    pub fn finished(&mut self, now: Duration, count: u64) {
        self.enter(now);
        self.advance_to(now, count);
        self.finishing = true;
        self.flush(now, true);
        self.maintain(now);
    }

    /// A message came. A connection is new when its first message comes.
    pub fn received(&mut self, now: Duration, connection: ConnectionId, message: Message) {
        self.enter(now);
        match (&mut self.state, message) {
            (_, Message::Hello { protocol, greeting }) => {
                self.hello(now, connection, protocol, greeting);
            }
            (State::Alone { join: Some(join) }, message) if join.is_on(connection) => {
                self.joiner_said(now, message);
            }
            (State::Paired(pair), message) if pair.is_on(connection) => {
                self.backup_said(now, message);
            }
            (
                State::Parting {
                    connection: parting,
                    ..
                },
                message,
            ) if *parting == connection => {
                if matches!(message, Message::Goodbye { .. }) {
                    self.actions.push_back(PrimaryAction::Close(connection));
                    self.stop(PrimaryStop::Finished);
                }
            }
            // Late words of a peer that is not listened to any more.
            _ => {}
        }
        self.maintain(now);
    }

    /// The connection ended, or what came over it could not be understood.
    pub fn disconnected(&mut self, now: Duration, connection: ConnectionId) {
        self.enter(now);
        match &self.state {
            State::Alone { join: Some(join) } if join.is_on(connection) => {
                self.join_failed(Suspicion::ConnectionEnded);
            }
            State::Paired(pair) if pair.is_on(connection) => {
                self.suspect(now, Suspicion::ConnectionEnded);
            }
            State::Parting {
                connection: parting,
                ..
            } if *parting == connection => {
                self.stop(PrimaryStop::Finished);
            }
            _ => {}
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
        let is_certain = match &self.state {
            State::Alone { .. } => true,
            State::Paired(pair) => !pair.is_in_doubt() && !self.stands_still,
            State::Claiming(_) | State::Parting { .. } | State::Stopped => false,
        };
        if is_certain && std::mem::take(&mut self.owes_announcement) {
            self.actions.push_back(PrimaryAction::Announce);
        }
    }

    /// The answer to [`PrimaryAction::Ask`].
    pub fn arbiter_answered(&mut self, now: Duration, generation: u64, outcome: &ClaimOutcome) {
        self.enter(now);
        if let State::Claiming(claim) = &mut self.state
            && claim.generation() == generation
        {
            let verdict = claim.answer(now, outcome);
            if let Some(event) = claim.answers_again(now, outcome) {
                self.actions.push_back(PrimaryAction::Report(event));
            }
            match verdict {
                Verdict::Pending => {
                    if let Some(event) = claim.trouble_to_tell(now, outcome) {
                        self.report(event);
                    }
                }
                Verdict::Won => self.go_on_alone(now),
                Verdict::Lost(holder) => {
                    let holder = String::from_utf8_lossy(&holder).trim_end().to_owned();
                    self.report(Event::LostClaim {
                        generation,
                        holder: holder.clone(),
                    });
                    self.stop(PrimaryStop::LostClaim { generation, holder });
                }
            }
        }
        self.maintain(now);
    }

    /// The life of the machine.
    pub fn life(&self) -> LifeId {
        self.life
    }

    /// A look at it.
    pub fn status(&self) -> PrimaryStatus {
        let mut status = PrimaryStatus {
            phase: PrimaryPhase::Alone,
            generation: self.generation,
            protected: false,
            instruction_count: self.count,
            lag_instructions: 0,
            lag: Duration::ZERO,
            round_trip: None,
            run_share: self.throttle.share(),
            held_outputs: self.gate.held_outputs(),
            record_bytes_sent: 0,
            acknowledged: 0,
            restored: None,
        };
        match &self.state {
            State::Alone { join: None } => {}
            State::Alone { join: Some(join) } => join.describe(&mut status),
            State::Paired(pair) => {
                pair.describe(&mut status);
                if self.stands_still {
                    status.phase = PrimaryPhase::HandingOver;
                }
            }
            State::Claiming(_) => status.phase = PrimaryPhase::Claiming,
            State::Parting { .. } | State::Stopped => status.phase = PrimaryPhase::Stopped,
        }
        status
    }

    /// How long the last outputs (up to 1024 batches) waited for their acknowledgement.
    pub fn output_delays(&self) -> impl Iterator<Item = Duration> + '_ {
        self.delays.iter().copied()
    }

    fn enter(&mut self, now: Duration) {
        let Some(pause) = self.pauses.observe(now) else {
            return;
        };
        match &mut self.state {
            State::Alone { join: Some(join) } => join.forgive(pause),
            State::Paired(_) => self.paused(now, pause),
            _ => {}
        }
    }

    /// What time brings in the present state; after every event.
    fn maintain(&mut self, now: Duration) {
        match &mut self.state {
            State::Alone { join: Some(_) } => self.maintain_join(now),
            State::Paired(_) => self.maintain_pair(now),
            State::Claiming(claim) => {
                if let Some(request) = claim.poll(now) {
                    self.actions.push_back(PrimaryAction::Ask(request));
                }
            }
            State::Parting {
                deadline,
                connection,
            } if now >= *deadline => {
                let connection = *connection;
                self.actions.push_back(PrimaryAction::Close(connection));
                self.stop(PrimaryStop::Finished);
            }
            _ => {}
        }
        self.announce_if_certain();
        self.control_speed(now);
        self.finish_if_done(now);
    }

    fn finish_if_done(&mut self, now: Duration) {
        if !self.finishing {
            return;
        }
        match &self.state {
            State::Alone { join } => {
                if let Some(join) = join {
                    let (connection, generation) = (join.connection(), join.generation());
                    self.send(
                        connection,
                        Message::Goodbye {
                            generation,
                            parting: Parting::Finished,
                        },
                    );
                    self.actions.push_back(PrimaryAction::Close(connection));
                    self.actions
                        .push_back(PrimaryAction::AbortSnapshot { generation });
                }
                self.stop(PrimaryStop::Finished);
            }
            State::Paired(pair)
                if pair.is_all_acknowledged() && self.gate.is_empty() && !self.stands_still =>
            {
                let (connection, generation) = (pair.connection(), pair.generation());
                self.send(
                    connection,
                    Message::Goodbye {
                        generation,
                        parting: Parting::Finished,
                    },
                );
                let deadline = now + self.config.detector.silence_timeout;
                self.state = State::Parting {
                    connection,
                    deadline,
                };
            }
            _ => {}
        }
    }

    fn advance_to(&mut self, now: Duration, count: u64) {
        assert!(
            !self.stands_still || count == self.count,
            "whoever hands over stands still"
        );
        assert!(
            count >= self.count,
            "the vcpu's stream is in order of instruction counts"
        );
        self.count = count;
        if let State::Paired(pair) = &mut self.state {
            pair.primary_at(now, count, self.throttle.share());
        }
    }

    /// The peer of the pairing in force is lost, perhaps: the arbiter decides who goes on.
    fn suspect(&mut self, now: Duration, why: Suspicion) {
        let State::Paired(pair) = &self.state else {
            return;
        };
        let (connection, generation) = (pair.connection(), pair.generation());
        assert!(
            generation == self.generation,
            "only the newest pairing is ever in force"
        );
        if !self.stands_still {
            // A backup that was stopped and wakes now reads it, and does not vie for the generation
            // with a primary that is well.
            let parting = Parting::Suspected;
            self.send(
                connection,
                Message::Goodbye {
                    generation,
                    parting,
                },
            );
        }
        self.actions.push_back(PrimaryAction::Close(connection));
        self.report(Event::Suspected { generation, why });
        let key = self.config.key(self.life, generation);
        // Whoever was asked to take over is let to.
        let courtesy = if self.stands_still {
            COURTESY
        } else {
            Duration::ZERO
        };
        let claim = Claim::new(
            now + courtesy,
            key,
            &self.config.claimant(),
            self.config.claim_pacing,
            self.config.mutations,
        );
        self.state = State::Claiming(claim);
        if self
            .config
            .mutations
            .active(Mutation::DropBackupWithoutAsking)
        {
            self.go_on_alone(now);
        }
    }

    fn go_on_alone(&mut self, now: Duration) {
        self.report(Event::Claimed {
            generation: self.generation,
        });
        self.state = State::Alone { join: None };
        let released = self.gate.alone(now);
        self.emit(released);
        self.resume();
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
        let percent = |value: usize, target: usize| (value * 100 / target.max(1)) as u64;
        let held = percent(self.gate.held_outputs(), self.config.lag.held_outputs);
        let memory = |memory| Pressure {
            memory,
            ..Pressure::default()
        };
        let pressure = match &self.state {
            State::Alone { join: Some(join) } => memory(percent(
                join.bytes_waiting(),
                self.config.join_backlog_bytes,
            )),
            State::Alone { join: None } => Pressure::default(),
            State::Paired(pair) => pair.pressure(
                now,
                &self.config.lag,
                self.gate.held_outputs(),
                &self.config.mutations,
            ),
            State::Claiming(_) => memory(held),
            State::Parting { .. } | State::Stopped => return,
        };
        if let Some(share) = self.throttle.update(now, pressure) {
            self.actions.push_back(PrimaryAction::Throttle(share));
        }
    }
}
