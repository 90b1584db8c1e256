//! The pairing in force. `docs/protocol.md`, "The output rule" and "Suspicion".

use super::join::protocol_error;
use super::{Primary, PrimaryAction, PrimaryPhase, PrimaryStatus, State};
use crate::ConnectionId;
use crate::batch::RecordStream;
use crate::event::Event;
use crate::failure_detector::{DetectorConfig, SilenceDetector, Suspicion};
use crate::lag::{LagConfig, LagMeter, Pressure, RunShare};
use crate::message::{Message, Parting};
use crate::mutation::{Mutation, Mutations};
use crate::record::{Record, RecordBody};
use crate::round_trip::RoundTrip;
use crate::succession::Durability;
use std::time::Duration;

/// A backup, and what is known about it.
pub(super) struct Pair {
    stream: RecordStream,
    silence: SilenceDetector,
    meter: LagMeter,
    /// When the backup's machine last moved, or had nothing to do.
    moved: Duration,
    /// The newest question whether the backup listens, raised now and then. Begin is the first.
    probe: u64,
    probed: Duration,
    round_trip: RoundTrip,
    /// The echo of this probe ends the doubt.
    doubted: u64,
    /// The backup has not yet echoed that probe: its acknowledgements may be from a time
    /// when it had not yet suspected us.
    in_doubt: bool,
    /// Both sides know that the pairing is in force.
    protected: bool,
}

impl Pair {
    pub fn new(now: Duration, stream: RecordStream, detector: &DetectorConfig) -> Pair {
        let mut round_trip = RoundTrip::default();
        round_trip.sent(now, 1, stream.bytes_under_way());
        Pair {
            stream,
            silence: SilenceDetector::new(now, detector.silence_timeout),
            meter: LagMeter::default(),
            moved: now,
            probe: 1,
            probed: now,
            round_trip,
            doubted: 1,
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

    pub fn pairing(&self) -> u64 {
        self.stream.pairing
    }

    pub fn probe(&self) -> u64 {
        self.probe
    }

    pub fn stream_mut(&mut self) -> &mut RecordStream {
        &mut self.stream
    }

    /// Whether nobody can have gone live meanwhile, as far as is known.
    pub fn is_certain(&self) -> bool {
        !self.in_doubt
    }

    pub fn is_protected(&self) -> bool {
        self.protected && !self.in_doubt
    }

    pub fn is_all_acknowledged(&self) -> bool {
        self.stream.acknowledged() == self.stream.sequence() && !self.in_doubt
    }

    pub fn primary_at(&mut self, now: Duration, count: u64, share: RunShare) {
        self.meter.primary_at(now, count, share);
    }

    /// Lag, and the worst of what waits: bytes under way, outputs, and records for others on the
    /// channel; in hundredths of the targets.
    pub fn pressure(
        &self,
        now: Duration,
        config: &LagConfig,
        held_outputs: usize,
        mutations: &Mutations,
    ) -> Pressure {
        let mut lag = self.meter.lag();
        let mut round_trip = self.round_trip.shortest().unwrap_or_default();
        if mutations.active(Mutation::RoundTripIsLag) {
            lag = self.meter.since_primary_was_there(now);
            round_trip = Duration::ZERO;
        }
        let bytes = self.stream.bytes_under_way();
        let age = self.stream.oldest_age(now);
        let queueing = self.round_trip.queueing(age, bytes);
        let waiting = [
            config.filled(bytes, config.bytes_in_flight, round_trip),
            config.filled(held_outputs, config.held_outputs, round_trip),
            config.of_target(queueing),
        ];
        Pressure {
            lag: config.of_target(lag),
            memory: waiting.into_iter().fold(0, u64::max),
            catching_up: !self.meter.has_caught_up(),
            behind: self
                .stream
                .sent_count()
                .saturating_sub(self.meter.executed()),
        }
    }

    fn probe_due(&self, detector: &DetectorConfig) -> Duration {
        self.probed + 2 * detector.heartbeat_interval
    }

    /// Asks anew; the number goes with the next heartbeat, which has to be sent at once.
    fn raise_probe(&mut self, now: Duration) {
        self.probe += 1;
        self.probed = now;
        let bytes = self.stream.bytes_under_way();
        self.round_trip.sent(now, self.probe, bytes);
    }

    pub fn deadline<O>(&self, primary: &Primary<O>) -> Duration {
        let detector = &primary.config.detector;
        [
            Some(self.stream.last_sent() + detector.heartbeat_interval),
            Some(self.silence.deadline()),
            Some(self.probe_due(detector)),
            self.stream.batch_deadline(primary.count),
            self.stream
                .awaited_since()
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
        status.round_trip = self.round_trip.shortest();
        status.record_bytes_sent = self.stream.bytes_sent;
        status.acknowledged = self.stream.acknowledged();
    }

    fn suspicion(&mut self, now: Duration, detector: &DetectorConfig) -> Option<Suspicion> {
        if self.meter.executed() >= self.stream.sent_count() {
            self.moved = now;
        }
        let unacknowledged = self.stream.awaited_since();
        if self.silence.is_silent(now) {
            Some(Suspicion::Silent)
        } else if unacknowledged.is_some_and(|since| now >= since + detector.ack_timeout) {
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
        let expected = pair.pairing();
        match message {
            Message::Ack {
                pairing,
                sequence,
                executed,
                echo,
                durable,
            } if pairing == expected => {
                self.acknowledged(now, sequence, executed, echo);
                self.member_is_durable(durable);
            }
            Message::Challenge {
                pairing,
                nonce,
                agreement,
            } if pairing == expected => {
                pair.silence.heard(now);
                self.beacon.challenge(nonce);
                self.agree(agreement);
            }
            Message::SwitchOver { pairing } if pairing == expected => {
                pair.silence.heard(now);
                self.actions.push_back(PrimaryAction::SwitchOver);
            }
            Message::Press { pairing, button } if pairing == expected => {
                pair.silence.heard(now);
                self.actions.push_back(PrimaryAction::Press(button));
            }
            // The arbiter knows whether that is so.
            Message::TakenOver { pairing } if pairing == expected && self.stands_still => {
                self.suspect(now, Suspicion::HandedOver);
            }
            Message::Diverged { pairing, report } if pairing == expected => {
                self.report(Event::Diverged { pairing, report });
                self.suspect(now, Suspicion::Diverged);
            }
            Message::Goodbye {
                pairing,
                parting: Parting::Leaving,
            } if pairing == expected => {
                self.suspect(now, Suspicion::Left);
            }
            Message::Goodbye {
                pairing,
                parting: Parting::DiskFailed,
            } if pairing == expected => {
                self.suspect(now, Suspicion::DiskFailed);
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
        if !pair.stream.acknowledge(now, sequence) {
            return self.suspect(now, protocol_error("acknowledges what it was not sent"));
        }
        pair.silence.heard(now);
        if executed > pair.meter.executed() {
            pair.moved = now;
        }
        let possible = pair.stream.held_before();
        pair.meter.backup_at(executed, possible);
        pair.round_trip.echoed(now, echo);
        if echo >= pair.doubted {
            pair.in_doubt = false;
        }
        if pair.in_doubt {
            return;
        }
        let newly_protected = !std::mem::replace(&mut pair.protected, true);
        let pairing = pair.pairing();
        let acknowledged = pair.stream.acknowledged();
        if newly_protected {
            self.report(Event::Protected { pairing });
        }
        // Whoever hands over says nothing more: its successor says it again.
        let mutated = self.config.mutations.active(Mutation::EmitsAfterHandover);
        if !self.stands_still || mutated {
            let released = self.gate.acknowledged(now, acknowledged);
            self.emit(released);
        }
    }

    /// The member's disk has what the guest had written up to `count`.
    fn member_is_durable(&mut self, count: u64) {
        let State::Paired(_) = &self.state else {
            return;
        };
        let is_waited_for = self.opened.membership().durability == Durability::Both;
        if is_waited_for && self.settled && count > self.flushes_up_to {
            self.complete_flushes(count);
        }
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
        pair.round_trip.forget_probes();
        if !no_doubt {
            pair.in_doubt = true;
            pair.doubted = pair.probe + 1;
        }
        self.flush(now, true);
        self.ask_whether_it_listens(now);
        self.report(Event::Paused { pause });
    }

    /// A guest that only computes makes no record, and the backup executes nothing beyond the last
    /// one: a marker without an output lets it come after, and is one more that it is compared by.
    pub(super) fn let_backup_follow(&mut self, now: Duration) {
        let State::Paired(pair) = &self.state else {
            return;
        };
        let may_move = !self.stands_still && !self.disk_failed && !self.finishing;
        if !may_move || !pair.stream.is_behind(now, self.count) {
            return;
        }
        let body = RecordBody::Marker {
            visible_outputs: self.visible_outputs,
        };
        let count = self.count;
        self.append(now, Record { count, body });
        self.flush(now, false);
    }

    /// A heartbeat with a new question, even if records were just sent.
    fn ask_whether_it_listens(&mut self, now: Duration) {
        let State::Paired(pair) = &mut self.state else {
            return;
        };
        pair.raise_probe(now);
        let (connection, pairing, probe) = (pair.connection(), pair.pairing(), pair.probe);
        let sequence = pair.stream.sent_sequence();
        pair.stream.touched(now);
        let released = self.gate.released_visible();
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
        let probe_due = now >= pair.probe_due(&self.config.detector);
        if heartbeat_due || batch_due {
            self.flush(now, false);
        }
        if probe_due {
            self.ask_whether_it_listens(now);
        } else if heartbeat_due {
            self.heartbeat_unless_sent(now);
        }
    }
}
