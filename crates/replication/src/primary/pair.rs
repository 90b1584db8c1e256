//! The pairing in force. `docs/protocol.md`, "The output rule" and "Suspicion".

use super::join::protocol_error;
use super::{Primary, PrimaryPhase, PrimaryStatus, State};
use crate::ConnectionId;
use crate::batch::RecordStream;
use crate::event::Event;
use crate::failure_detector::{DetectorConfig, SilenceDetector, Suspicion};
use crate::lag::{LagConfig, LagMeter, Pressure};
use crate::message::{Message, Parting};
use crate::mutation::Mutation;
use std::time::Duration;

/// A backup, and what is known about it.
pub(super) struct Pair {
    stream: RecordStream,
    silence: SilenceDetector,
    meter: LagMeter,
    /// When the backup's machine last moved, or had nothing to do.
    moved: Duration,
    /// Raised to make sure that the backup still listens. Begin is the first.
    probe: u64,
    /// The backup has not yet echoed the newest probe: its acknowledgements may be from a time
    /// when it had not yet suspected us.
    in_doubt: bool,
    /// Both sides know that the pairing is in force.
    protected: bool,
}

impl Pair {
    pub fn new(now: Duration, stream: RecordStream, detector: &DetectorConfig) -> Pair {
        Pair {
            stream,
            silence: SilenceDetector::new(now, detector.silence_timeout),
            meter: LagMeter::default(),
            moved: now,
            probe: 1,
            in_doubt: true,
            protected: false,
        }
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

    pub fn probe(&self) -> u64 {
        self.probe
    }

    pub fn stream_mut(&mut self) -> &mut RecordStream {
        &mut self.stream
    }

    pub fn is_all_acknowledged(&self) -> bool {
        self.stream.acknowledged() == self.stream.sequence() && !self.in_doubt
    }

    pub fn primary_at(&mut self, now: Duration, count: u64) {
        self.meter.primary_at(now, count);
    }

    /// The worst of lag and bytes under way, in hundredths of its target.
    pub fn pressure(&self, config: &LagConfig) -> Pressure {
        let lag = self.meter.lag().as_micros() * 100 / config.target.as_micros().max(1);
        let bytes = self.stream.bytes_under_way() * 100 / config.bytes_in_flight.max(1);
        Pressure {
            lag: lag as u64,
            memory: bytes as u64,
            catching_up: !self.meter.has_caught_up(),
        }
    }

    pub fn deadline<O>(&self, primary: &Primary<O>) -> Duration {
        let detector = &primary.config.detector;
        [
            Some(self.stream.last_sent() + detector.heartbeat_interval),
            Some(self.silence.deadline()),
            self.stream.batch_deadline(primary.count),
            self.stream
                .oldest_unacknowledged()
                .map(|sent| sent + detector.ack_timeout),
        ]
        .into_iter()
        .flatten()
        .fold(Duration::MAX, Duration::min)
    }

    pub fn describe(&self, status: &mut PrimaryStatus) {
        status.phase = PrimaryPhase::Paired;
        status.protected = self.protected;
        let behind = status
            .instruction_count
            .saturating_sub(self.meter.executed());
        status.lag_instructions = if self.protected { behind } else { 0 };
        status.lag = self.meter.lag();
        status.record_bytes_sent = self.stream.bytes_sent;
        status.acknowledged = self.stream.acknowledged();
    }

    fn suspicion(&mut self, now: Duration, detector: &DetectorConfig) -> Option<Suspicion> {
        if self.meter.executed() >= self.stream.sent_count() {
            self.moved = now;
        }
        let unacknowledged = self.stream.oldest_unacknowledged();
        if self.silence.is_silent(now) {
            Some(Suspicion::Silent)
        } else if unacknowledged.is_some_and(|sent| now >= sent + detector.ack_timeout) {
            Some(Suspicion::NotAcknowledging)
        } else if now >= self.moved + detector.stall_timeout {
            Some(Suspicion::Stalled)
        } else {
            None
        }
    }
}

impl<O> Primary<O> {
    pub(super) fn backup_said(&mut self, now: Duration, message: Message) {
        let State::Paired(pair) = &mut self.state else {
            return;
        };
        let expected = pair.generation();
        match message {
            Message::Ack {
                generation,
                sequence,
                executed,
                echo,
            } if generation == expected => {
                self.acknowledged(now, sequence, executed, echo);
            }
            Message::Diverged { generation, report } if generation == expected => {
                self.report(Event::Diverged { generation, report });
                self.suspect(now, Suspicion::Diverged);
            }
            Message::Goodbye {
                generation,
                parting: Parting::Leaving,
            } if generation == expected => {
                self.suspect(now, Suspicion::Left);
            }
            _ => self.suspect(
                now,
                protocol_error("an unexpected message, or one of another pairing"),
            ),
        }
    }

    fn acknowledged(&mut self, now: Duration, sequence: u64, executed: u64, echo: u64) {
        let State::Paired(pair) = &mut self.state else {
            return;
        };
        if executed > pair.stream.sent_count() || echo > pair.probe {
            return self.suspect(now, protocol_error("it is ahead of what it was sent"));
        }
        if !pair.stream.acknowledge(sequence) {
            return self.suspect(now, protocol_error("acknowledges what it was not sent"));
        }
        pair.silence.heard(now);
        if executed > pair.meter.executed() {
            pair.moved = now;
        }
        pair.meter.backup_at(now, executed);
        if echo == pair.probe {
            pair.in_doubt = false;
        }
        if pair.in_doubt {
            return;
        }
        let newly_protected = !std::mem::replace(&mut pair.protected, true);
        let generation = pair.generation();
        let acknowledged = pair.stream.acknowledged();
        if newly_protected {
            self.report(Event::Protected { generation });
        }
        let released = self.gate.acknowledged(now, acknowledged);
        self.emit(released);
    }

    /// This process did not run for `pause`. The backup may have gone live meanwhile: nothing
    /// leaves until it answers a question that was asked after the pause.
    pub(super) fn paused(&mut self, now: Duration, pause: Duration) {
        let no_doubt = self.config.mutations.active(Mutation::NoDoubtAfterSleep);
        let State::Paired(pair) = &mut self.state else {
            return;
        };
        pair.silence.forgive(pause);
        pair.stream.forgive(pause);
        pair.moved += pause;
        if !no_doubt {
            pair.in_doubt = true;
            pair.probe += 1;
        }
        self.flush(now, true);
        // A heartbeat carries the question even if records were just sent.
        let State::Paired(pair) = &mut self.state else {
            return;
        };
        let (connection, generation, probe) = (pair.connection(), pair.generation(), pair.probe);
        let sequence = pair.stream.sent_sequence();
        pair.stream.touched(now);
        let released = self.gate.released_visible();
        self.send(
            connection,
            Message::Heartbeat {
                generation,
                sequence,
                released,
                probe,
            },
        );
        self.report(Event::Paused { pause });
    }

    pub(super) fn maintain_pair(&mut self, now: Duration) {
        let State::Paired(pair) = &mut self.state else {
            return;
        };
        if let Some(why) = pair.suspicion(now, &self.config.detector) {
            return self.suspect(now, why);
        }
        let heartbeat_due =
            now >= pair.stream.last_sent() + self.config.detector.heartbeat_interval;
        let batch_due = pair
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
}
