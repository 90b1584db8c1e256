//! A backup joins while the primary runs. `docs/protocol.md`, "Joining".

use super::{Primary, PrimaryAction, PrimaryPhase, PrimaryStatus, State};
use crate::ConnectionId;
use crate::batch::{RecordStream, Sending};
use crate::event::Event;
use crate::failure_detector::{SilenceDetector, Suspicion};
use crate::message::{Greeting, Message, PROTOCOL_VERSION, Parting, Refusal};
use crate::mutation::Mutation;
use crate::primary::pair::Pair;
use crate::succession::{Durability, Host, Kind, Membership, RunId};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinStep {
    /// The backup takes away the rights of what it has.
    AwaitAccept,
    /// The vcpu was asked for the snapshot.
    AwaitSnapshot,
    /// It is fetched and restored; records flow.
    AwaitReady,
    /// The arbiter is asked for the key that makes it a member.
    Claiming,
    /// The backup reads that key at its own arbiter.
    AwaitConfirmed,
}

/// A pairing that is being made. The primary is still alone and free.
pub(super) struct Join {
    stream: RecordStream,
    host: Host,
    run: RunId,
    step: JoinStep,
    silence: SilenceDetector,
    /// What the backup said about its restore: bytes done, of how many.
    restored: Option<(u64, u64)>,
}

impl Join {
    pub fn step(&self) -> JoinStep {
        self.step
    }

    /// Whether records are sent, and not only kept.
    fn has_snapshot(&self) -> bool {
        matches!(
            self.step,
            JoinStep::AwaitReady | JoinStep::Claiming | JoinStep::AwaitConfirmed
        )
    }

    pub fn key_is_there(&mut self, now: Duration) {
        assert!(self.step == JoinStep::Claiming, "the key was asked for");
        self.step = JoinStep::AwaitConfirmed;
        self.silence.heard(now);
    }

    pub fn describe(&self, status: &mut PrimaryStatus) {
        status.phase = PrimaryPhase::Joining;
        status.restored = self.restored;
    }

    pub fn is_on(&self, connection: ConnectionId) -> bool {
        self.stream.connection == connection
    }

    pub fn connection(&self) -> ConnectionId {
        self.stream.connection
    }

    pub fn pairing(&self) -> u64 {
        self.stream.pairing
    }

    pub fn run(&self) -> RunId {
        self.run
    }

    pub fn bytes_waiting(&self) -> usize {
        self.stream.bytes_under_way()
    }

    pub fn forgive(&mut self, pause: Duration) {
        self.silence.forgive(pause);
    }

    /// Records are part of the stream from the snapshot on.
    pub fn stream_mut(&mut self) -> Option<&mut RecordStream> {
        let begun = !matches!(self.step, JoinStep::AwaitAccept | JoinStep::AwaitSnapshot);
        begun.then_some(&mut self.stream)
    }

    pub fn deadline<O>(&self, primary: &Primary<O>) -> Duration {
        let heartbeat = self.stream.last_sent() + primary.config.detector.heartbeat_interval;
        let batch = self
            .has_snapshot()
            .then(|| self.stream.batch_deadline(primary.count))
            .flatten();
        batch
            .map_or(heartbeat, |batch| batch.min(heartbeat))
            .min(self.silence.deadline())
    }
}

impl<O> Primary<O> {
    /// The pairing that is being made, and the run of its backup: who may fetch the snapshot.
    pub fn joining(&self) -> Option<(u64, RunId)> {
        match &self.state {
            State::Alone { join: Some(join) } => Some((join.pairing(), join.run())),
            _ => None,
        }
    }

    pub(super) fn hello(
        &mut self,
        now: Duration,
        connection: ConnectionId,
        protocol: u32,
        greeting: Greeting,
    ) {
        if let Err(refusal) = self.may_join(protocol, &greeting) {
            self.send(connection, Message::Refuse(refusal.clone()));
            self.actions.push_back(PrimaryAction::Close(connection));
            self.report(Event::RefusedBackup {
                host: greeting.host,
                refusal,
            });
            return;
        }
        // A number is used for one attempt only, so that nothing of an attempt that failed can
        // ever be taken for the next.
        self.pairing += 1;
        let pairing = self.pairing;
        let welcome = Message::Welcome {
            greeting: self.config.greeting.clone(),
            life: self.opened.key.life,
            life_id: self.opened.life,
            generation: self.generation(),
            pairing,
        };
        self.send(connection, welcome);
        self.report(Event::Joining {
            pairing,
            host: greeting.host.clone(),
        });
        let join = Join {
            stream: RecordStream::new(now, connection, pairing, self.config.batch),
            host: greeting.host,
            run: greeting.run,
            step: JoinStep::AwaitAccept,
            silence: SilenceDetector::new(now, self.config.detector.join_timeout),
            restored: None,
        };
        self.state = State::Alone {
            join: Some(Box::new(join)),
        };
    }

    fn may_join(&self, protocol: u32, theirs: &Greeting) -> Result<(), Refusal> {
        let ours = &self.config.greeting;
        if protocol != PROTOCOL_VERSION {
            return Err(Refusal::ProtocolVersion {
                ours: PROTOCOL_VERSION,
            });
        }
        if theirs.machine != ours.machine {
            return Err(Refusal::Machine {
                ours: ours.machine.clone(),
            });
        }
        if theirs.host == ours.host {
            return Err(Refusal::SameHost);
        }
        if theirs.semantics_version != ours.semantics_version {
            return Err(Refusal::SemanticsVersion {
                ours: ours.semantics_version,
            });
        }
        if theirs.configuration_hash != ours.configuration_hash {
            return Err(Refusal::Configuration {
                ours: ours.configuration_hash,
            });
        }
        match self.state {
            State::Alone { join: None }
                if !self.finishing && self.settled && self.leaving.is_none() =>
            {
                Ok(())
            }
            _ => Err(Refusal::NotNow),
        }
    }

    /// The snapshot was taken at `count`, at this place in the vcpu's stream.
    pub fn snapshot_taken(&mut self, now: Duration, pairing: u64, count: u64) {
        self.enter(now);
        self.advance_to(now, count);
        let (visible_outputs, sequence) = (self.visible_outputs, self.record);
        if let State::Alone { join: Some(join) } = &mut self.state
            && join.pairing() == pairing
            && join.step == JoinStep::AwaitSnapshot
        {
            join.step = JoinStep::AwaitReady;
            join.stream.starts_at(sequence, count);
            join.silence.heard(now);
            let connection = join.connection();
            let taken = Message::SnapshotTaken {
                pairing,
                sequence,
                count,
                visible_outputs,
            };
            self.send(connection, taken);
        }
        self.maintain(now);
    }

    /// The snapshot could not be taken or sent: the join is given up, the machine runs on.
    pub fn snapshot_failed(&mut self, now: Duration, pairing: u64) {
        self.enter(now);
        if let State::Alone { join: Some(join) } = &self.state
            && join.pairing() == pairing
        {
            self.join_failed(now, Suspicion::Left);
        }
        self.maintain(now);
    }

    pub(super) fn joiner_said(&mut self, now: Duration, message: Message) {
        let State::Alone { join: Some(join) } = &mut self.state else {
            return;
        };
        let expected = join.pairing();
        join.silence.heard(now);
        match message {
            Message::Accept { pairing } if pairing == expected => {
                if join.step == JoinStep::AwaitAccept {
                    join.step = JoinStep::AwaitSnapshot;
                    let run = join.run;
                    self.actions
                        .push_back(PrimaryAction::TakeSnapshot { pairing, run });
                } else {
                    self.join_failed(now, protocol_error("accepts a second time"));
                }
            }
            Message::Ready { pairing } if pairing == expected => {
                if join.step == JoinStep::AwaitReady {
                    self.claim_joining(now);
                } else {
                    self.join_failed(now, protocol_error("ready before it has the snapshot"));
                }
            }
            Message::Confirmed { pairing } if pairing == expected => {
                if join.step == JoinStep::AwaitConfirmed {
                    self.begin(now);
                } else {
                    self.join_failed(now, protocol_error("confirms a key that it was not told"));
                }
            }
            Message::Restoring {
                pairing,
                done,
                total,
            } if pairing == expected && join.step == JoinStep::AwaitReady => {
                join.restored = Some((done, total));
            }
            Message::Ack {
                pairing, sequence, ..
            } if pairing == expected => {
                // Before it has the snapshot it holds nothing, and only says that it is there.
                if sequence > 0 && !join.stream.acknowledge(now, sequence) {
                    self.join_failed(now, protocol_error("acknowledges what it was not sent"));
                }
            }
            Message::Goodbye {
                pairing,
                parting: Parting::Leaving,
            } if pairing == expected => {
                self.join_failed(now, Suspicion::Left);
            }
            Message::Goodbye {
                pairing,
                parting: Parting::DiskFailed,
            } if pairing == expected => {
                self.join_failed(now, Suspicion::DiskFailed);
            }
            Message::Diverged { pairing, report } if pairing == expected => {
                self.report(Event::Diverged { pairing, report });
                self.join_failed(now, Suspicion::Diverged);
            }
            _ => self.join_failed(now, protocol_error("an unexpected message while joining")),
        }
    }

    /// The backup holds the snapshot and is ready: the arbiter is asked to make it a member.
    /// Outputs still leave at once: nobody but this host can leave the generation.
    fn claim_joining(&mut self, now: Duration) {
        let State::Alone { join: Some(join) } = &mut self.state else {
            return;
        };
        join.step = JoinStep::Claiming;
        let next = Membership {
            members: vec![join.host.clone()],
            durability: self.config.durability,
            ..self.opened.membership().clone()
        };
        self.leave_generation(now, Kind::Joined, Some(next));
    }

    /// The backup has read the key at its own arbiter. From here on outputs wait, and this replica
    /// does not go on alone without the next key. The backup may ask for that key once it has read
    /// Begin, so it never does before this moment.
    fn begin(&mut self, now: Duration) {
        self.flush(now, false);
        let State::Alone { join } = &mut self.state else {
            return;
        };
        let Some(join) = join.take() else { return };
        let mut stream = join.stream;
        let begin = Message::Begin {
            pairing: stream.pairing,
            sequence: stream.sent_sequence(),
            released: self.gate.released_visible(),
            record_interval_ms: self.config.digest_interval.as_millis() as u64,
        };
        stream.touched(now);
        // While it restored it did not have to acknowledge anything.
        if !self
            .config
            .mutations
            .active(Mutation::RestoreCountsAsSilence)
        {
            stream.begin(now);
        }
        let connection = stream.connection;
        let mutated = self.config.mutations.active(Mutation::FlushOnOneDiskOnly);
        if self.opened.membership().durability == Durability::Both && !mutated {
            self.complete_flushes(0);
        }
        self.gate.begin();
        self.state = State::Paired(Box::new(Pair::new(now, stream, &self.config.detector)));
        self.send(connection, begin);
    }

    pub(super) fn join_failed(&mut self, now: Duration, why: Suspicion) {
        let State::Alone { join } = &mut self.state else {
            return;
        };
        let Some(join) = join.take() else { return };
        let pairing = join.pairing();
        self.actions
            .push_back(PrimaryAction::Close(join.connection()));
        let cancels = !self.config.mutations.active(Mutation::SnapshotNotCancelled);
        let is_whole = matches!(join.step, JoinStep::Claiming | JoinStep::AwaitConfirmed);
        if !is_whole && cancels {
            self.actions
                .push_back(PrimaryAction::AbortSnapshot { pairing });
        }
        self.report(Event::JoinFailed { pairing, why });
        if join.step == JoinStep::AwaitConfirmed && self.leaving.is_none() {
            self.drop_joiner(now);
        }
        if let Some(share) = self.throttle.lift() {
            self.actions.push_back(PrimaryAction::Throttle(share));
        }
    }

    pub(super) fn maintain_join(&mut self, now: Duration) {
        let State::Alone { join: Some(join) } = &mut self.state else {
            return;
        };
        if join.silence.is_silent(now) {
            return self.join_failed(now, Suspicion::Silent);
        }
        let mutation = Mutation::RestoreCountsAsSilence;
        if self.config.mutations.active(mutation)
            && let Some(since) = join.stream.awaited_since()
            && now >= since + self.config.detector.ack_timeout
        {
            return self.join_failed(now, Suspicion::NotAcknowledging);
        }
        let heartbeat_due =
            now >= join.stream.last_sent() + self.config.detector.heartbeat_interval;
        let batch_due = join.has_snapshot()
            && join
                .stream
                .batch_deadline(self.count)
                .is_some_and(|deadline| now >= deadline);
        if heartbeat_due || batch_due {
            self.flush(now, false);
        }
        if heartbeat_due {
            self.heartbeat_unless_sent(now);
        }
    }

    /// Sends what waits, if this is the time to send records at all.
    pub(super) fn flush(&mut self, now: Duration, urgent: bool) {
        let released = self.gate.released_visible();
        let stream = match &mut self.state {
            State::Alone { join: Some(join) } if join.has_snapshot() => &mut join.stream,
            State::Paired(pair) => pair.stream_mut(),
            _ => return,
        };
        let connection = stream.connection;
        for message in stream.take(Sending {
            now,
            urgent,
            released,
        }) {
            self.send(connection, message);
        }
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut RecordStream> {
        match &mut self.state {
            State::Alone { join: Some(join) } => join.stream_mut(),
            State::Paired(pair) => Some(pair.stream_mut()),
            _ => None,
        }
    }

    /// Says "still here" if nothing was sent at this very time.
    pub(super) fn heartbeat_unless_sent(&mut self, now: Duration) {
        let released = self.gate.released_visible();
        let (stream, probe) = match &mut self.state {
            State::Alone { join: Some(join) } => (&mut join.stream, 0),
            State::Paired(pair) => {
                let probe = pair.probe();
                (pair.stream_mut(), probe)
            }
            _ => return,
        };
        if stream.last_sent() >= now {
            return;
        }
        stream.touched(now);
        let (connection, pairing) = (stream.connection, stream.pairing);
        let sequence = stream.sent_sequence();
        self.send(
            connection,
            Message::Heartbeat {
                pairing,
                sequence,
                released,
                probe,
            },
        );
    }
}

pub(super) fn protocol_error(what: &str) -> Suspicion {
    Suspicion::Protocol(what.to_owned())
}
