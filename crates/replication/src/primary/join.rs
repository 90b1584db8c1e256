//! A backup joins while the primary runs. `docs/protocol.md`, "Joining".

use super::{Primary, PrimaryAction, PrimaryPhase, PrimaryStatus, State};
use crate::ConnectionId;
use crate::batch::{RecordStream, Sending};
use crate::event::Event;
use crate::failure_detector::{SilenceDetector, Suspicion};
use crate::message::{Greeting, Message, PROTOCOL_VERSION, Parting, Refusal};
use crate::mutation::Mutation;
use crate::primary::pair::Pair;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The vcpu was asked for the snapshot.
    AwaitSnapshot,
    /// The program sends it; records wait.
    SendSnapshot { count: u64, visible_outputs: u64 },
    /// Records flow; the backup restores.
    AwaitReady,
}

/// A pairing that is being made. The primary is still alone and free.
pub(super) struct Join {
    stream: RecordStream,
    phase: Phase,
    silence: SilenceDetector,
    /// What the backup said about its restore: bytes done, of how many.
    restored: Option<(u64, u64)>,
}

impl Join {
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

    pub fn generation(&self) -> u64 {
        self.stream.generation
    }

    pub fn bytes_waiting(&self) -> usize {
        self.stream.bytes_under_way()
    }

    pub fn forgive(&mut self, pause: Duration) {
        self.silence.forgive(pause);
    }

    /// Records are part of the stream from the snapshot on.
    pub fn stream_mut(&mut self) -> Option<&mut RecordStream> {
        (self.phase != Phase::AwaitSnapshot).then_some(&mut self.stream)
    }

    pub fn deadline<O>(&self, primary: &Primary<O>) -> Duration {
        let heartbeat = self.stream.last_sent() + primary.config.detector.heartbeat_interval;
        let batch = match self.phase {
            Phase::AwaitReady => self.stream.batch_deadline(primary.count),
            _ => None,
        };
        batch
            .map_or(heartbeat, |batch| batch.min(heartbeat))
            .min(self.silence.deadline())
    }
}

impl<O> Primary<O> {
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
                node: greeting.node,
                refusal,
            });
            return;
        }
        // A number is used for one attempt only, so that nothing of an attempt that failed can
        // ever be taken for the next.
        self.generation += 1;
        let generation = self.generation;
        let welcome = Message::Welcome {
            greeting: self.config.greeting.clone(),
            life: self.life,
            generation,
        };
        self.send(connection, welcome);
        self.report(Event::Joining {
            generation,
            node: greeting.node,
        });
        let join = Join {
            stream: RecordStream::new(now, connection, generation, self.config.batch),
            phase: Phase::AwaitSnapshot,
            silence: SilenceDetector::new(now, self.config.detector.join_timeout),
            restored: None,
        };
        self.state = State::Alone { join: Some(join) };
        self.actions
            .push_back(PrimaryAction::TakeSnapshot { generation });
    }

    fn may_join(&self, protocol: u32, theirs: &Greeting) -> Result<(), Refusal> {
        let ours = &self.config.greeting;
        if protocol != PROTOCOL_VERSION {
            return Err(Refusal::ProtocolVersion {
                ours: PROTOCOL_VERSION,
            });
        }
        if theirs.vm != ours.vm {
            return Err(Refusal::Vm {
                ours: ours.vm.clone(),
            });
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
            State::Alone { join: None } if !self.finishing => Ok(()),
            _ => Err(Refusal::NotNow),
        }
    }

    /// The snapshot was taken at `count`, at this place in the vcpu's stream.
    pub fn snapshot_taken(&mut self, now: Duration, generation: u64, count: u64) {
        self.enter(now);
        self.advance_to(now, count);
        let visible_outputs = self.visible_outputs;
        if let State::Alone { join: Some(join) } = &mut self.state
            && join.generation() == generation
            && join.phase == Phase::AwaitSnapshot
        {
            join.phase = Phase::SendSnapshot {
                count,
                visible_outputs,
            };
            join.stream.starts_at(count);
            let connection = join.connection();
            self.actions.push_back(PrimaryAction::SendSnapshot {
                connection,
                generation,
            });
        }
        self.maintain(now);
    }

    /// All chunks of the snapshot were given to the connection. The backup's disks count as well.
    pub fn snapshot_sent(&mut self, now: Duration, generation: u64, chunks: u64) {
        self.enter(now);
        if let State::Alone { join: Some(join) } = &mut self.state
            && join.generation() == generation
            && let Phase::SendSnapshot {
                count,
                visible_outputs,
            } = join.phase
        {
            join.phase = Phase::AwaitReady;
            join.silence.heard(now);
            let connection = join.connection();
            let end = Message::SnapshotEnd {
                generation,
                chunks,
                count,
                visible_outputs,
            };
            self.send(connection, end);
            self.flush(now, false);
        }
        self.maintain(now);
    }

    /// The snapshot could not be taken or sent: the join is given up, the machine runs on.
    pub fn snapshot_failed(&mut self, now: Duration, generation: u64) {
        self.enter(now);
        if let State::Alone { join: Some(join) } = &self.state
            && join.generation() == generation
        {
            self.join_failed(Suspicion::Left);
        }
        self.maintain(now);
    }

    pub(super) fn joiner_said(&mut self, now: Duration, message: Message) {
        let State::Alone { join: Some(join) } = &mut self.state else {
            return;
        };
        let expected = join.generation();
        join.silence.heard(now);
        match message {
            Message::Ready { generation } if generation == expected => {
                if join.phase == Phase::AwaitReady {
                    self.begin(now);
                } else {
                    self.join_failed(protocol_error("ready before it has the snapshot"));
                }
            }
            Message::Restoring {
                generation,
                done,
                total,
            } if generation == expected && join.phase == Phase::AwaitReady => {
                join.restored = Some((done, total));
            }
            Message::Ack {
                generation,
                sequence,
                ..
            } if generation == expected => {
                if !join.stream.acknowledge(now, sequence) {
                    self.join_failed(protocol_error("acknowledges what it was not sent"));
                }
            }
            Message::Goodbye {
                generation,
                parting: Parting::Leaving,
            } if generation == expected => {
                self.join_failed(Suspicion::Left);
            }
            Message::Goodbye {
                generation,
                parting: Parting::DiskFailed,
            } if generation == expected => {
                self.join_failed(Suspicion::DiskFailed);
            }
            Message::Diverged { generation, report } if generation == expected => {
                self.report(Event::Diverged { generation, report });
                self.join_failed(Suspicion::Diverged);
            }
            _ => self.join_failed(protocol_error("an unexpected message while joining")),
        }
    }

    /// The backup holds the snapshot and is ready. From here on outputs wait, and this replica does
    /// not go on alone without the arbiter. The backup may ask the arbiter once it has read Begin,
    /// so it never does before this moment.
    fn begin(&mut self, now: Duration) {
        self.flush(now, false);
        let State::Alone { join } = &mut self.state else {
            return;
        };
        let Some(join) = join.take() else { return };
        let mut stream = join.stream;
        let begin = Message::Begin {
            generation: stream.generation,
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
        self.gate.begin();
        self.state = State::Paired(Box::new(Pair::new(now, stream, &self.config.detector)));
        self.send(connection, begin);
    }

    pub(super) fn join_failed(&mut self, why: Suspicion) {
        let State::Alone { join } = &mut self.state else {
            return;
        };
        let Some(join) = join.take() else { return };
        let generation = join.generation();
        self.actions
            .push_back(PrimaryAction::Close(join.connection()));
        if join.phase != Phase::AwaitReady {
            self.actions
                .push_back(PrimaryAction::AbortSnapshot { generation });
        }
        self.report(Event::JoinFailed { generation, why });
        if let Some(share) = self.throttle.lift() {
            self.actions.push_back(PrimaryAction::Throttle(share));
        }
    }

    pub(super) fn maintain_join(&mut self, now: Duration) {
        let State::Alone { join: Some(join) } = &mut self.state else {
            return;
        };
        if join.silence.is_silent(now) {
            return self.join_failed(Suspicion::Silent);
        }
        let heartbeat_due =
            now >= join.stream.last_sent() + self.config.detector.heartbeat_interval;
        let batch_due = join.phase == Phase::AwaitReady
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
            State::Alone { join: Some(join) } if join.phase == Phase::AwaitReady => {
                &mut join.stream
            }
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
        let (connection, generation) = (stream.connection, stream.generation);
        let sequence = stream.sent_sequence();
        self.send(
            connection,
            Message::Heartbeat {
                generation,
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
