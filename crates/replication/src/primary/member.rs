//! The members: followers whose acknowledgement outputs wait for. `docs/protocol.md`, "The output
//! rule" and "Suspicion".

use super::booting::TheirBoot;
use super::difference::Vote;
use super::join::protocol_error;
use super::{Asked, FollowerStatus, Primary, PrimaryAction, State};
use crate::ConnectionId;
use crate::arrears::Arrears;
use crate::capacity::HostFacts;
use crate::cursor::{Cursor, Sending};
use crate::event::Event;
use crate::failure_detector::{DetectorConfig, SilenceDetector, Suspicion};
use crate::lag::{LagConfig, LagMeter, Pressure, RunShare};
use crate::life_log::LifeLog;
use crate::message::{Greeting, Message, OF_ITS_HOST, Parting};
use crate::mutation::{Mutation, Mutations};
use crate::record::{InstructionCount, Record, RecordBody, RecordNumber};
use crate::round_trip::RoundTrip;
use crate::succession::{Durability, Host};
use crate::watch::Agreement;
use std::time::Duration;

/// A member, from Begin until its connection ends, and what is known about it.
pub(super) struct Member {
    cursor: Cursor,
    greeting: Greeting,
    facts: HostFacts,
    /// What the machine would be booted from there.
    pub boot: TheirBoot,
    silence: SilenceDetector,
    meter: LagMeter,
    /// What the primary has lost for it.
    arrears: Arrears,
    /// It lagged: the arbiter is asked to drop it.
    pub is_let_go: bool,
    /// When its machine last moved, or had nothing to do.
    moved: Duration,
    /// The newest question whether it listens, raised now and then. Begin is the first.
    probe: u64,
    probed: Duration,
    round_trip: RoundTrip,
    /// The echo of this probe ends the doubt.
    doubted: u64,
    /// It has not yet echoed that probe: its acknowledgements may be from a time when it had not
    /// yet suspected us.
    in_doubt: bool,
    /// A probe that it has not echoed yet, and when it was asked.
    confirming: Option<(u64, Duration)>,
    /// When the newest such probe that it has echoed was asked.
    confirmed_at: Option<Duration>,
    /// Both sides know that it is a member.
    protects: bool,
    /// Instruction count up to which its disk has what the guest wrote.
    durable: InstructionCount,
    /// What its last look at the arbiter said.
    agreement: Agreement,
    /// Why its host could not go on as the primary, as it has said.
    pub trouble: Option<String>,
    /// Where and how its machine differs, if it does.
    pub vote: Option<Vote>,
    /// It was asked to say when it has replayed that record, and has replayed that one without a difference.
    pub asked_to_compare: RecordNumber,
    pub compared: RecordNumber,
}

impl Member {
    pub fn new(
        now: Duration,
        greeting: Greeting,
        facts: HostFacts,
        cursor: Cursor,
        detector: &DetectorConfig,
    ) -> Member {
        let mut round_trip = RoundTrip::default();
        round_trip.sent(now, 1, cursor.bytes_under_way());
        Member {
            cursor,
            greeting,
            facts,
            boot: TheirBoot::default(),
            silence: SilenceDetector::new(now, detector.silence_timeout),
            meter: LagMeter::default(),
            arrears: Arrears::new(now),
            is_let_go: false,
            moved: now,
            probe: 1,
            probed: now,
            round_trip,
            doubted: 1,
            in_doubt: true,
            confirming: Some((1, now)),
            confirmed_at: None,
            protects: false,
            durable: InstructionCount::POWER_ON,
            agreement: Agreement::Unknown,
            trouble: None,
            vote: None,
            asked_to_compare: RecordNumber::BEFORE_ALL,
            compared: RecordNumber::BEFORE_ALL,
        }
    }

    pub fn is_on(&self, connection: ConnectionId) -> bool {
        self.cursor.connection == connection
    }

    pub fn connection(&self) -> ConnectionId {
        self.cursor.connection
    }

    pub fn pairing(&self) -> u64 {
        self.cursor.pairing
    }

    pub fn host(&self) -> &Host {
        &self.greeting.host
    }

    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub fn cursor_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    pub fn durable(&self) -> InstructionCount {
        self.durable
    }

    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// How far its execution is behind what it holds.
    pub fn lag(&self) -> Duration {
        self.meter.lag()
    }

    /// How far it would be behind if nobody had waited for it. What its restore took counts for nothing
    /// before it has caught up with it.
    pub fn arrears(&self) -> Duration {
        let lag = match self.meter.has_caught_up() {
            true => self.meter.lag(),
            false => Duration::ZERO,
        };
        lag + self.arrears.waited()
    }

    pub fn arrears_mut(&mut self) -> &mut Arrears {
        &mut self.arrears
    }

    /// Whether it cannot have gone live meanwhile, as far as is known.
    pub fn is_certain(&self) -> bool {
        !self.in_doubt
    }

    /// A moment at which it followed for certain: when something was asked that it has answered since.
    pub fn confirmed_at(&self) -> Option<Duration> {
        self.confirmed_at
    }

    pub fn protects(&self) -> bool {
        self.protects && !self.in_doubt
    }

    /// Whether it has caught up with what its restore took.
    pub fn has_caught_up(&self) -> bool {
        self.meter.has_caught_up()
    }

    pub fn holds_all(&self, log: &LifeLog) -> bool {
        self.cursor.acknowledged() == log.last() && !self.in_doubt
    }

    /// What was asked of it, sent back, shows that it listens.
    fn heard(&mut self, now: Duration) {
        self.silence.heard(now);
    }

    /// It is not to blame for a pause of this process.
    fn forgive(&mut self, pause: Duration) {
        self.silence.forgive(pause);
        self.cursor.forgive(pause);
        self.moved += pause;
        self.arrears.forgive(pause);
        self.round_trip.forget_probes();
    }

    fn heartbeat(&self, released: u64) -> Message {
        Message::Heartbeat {
            pairing: self.cursor.pairing,
            record: self.cursor.sent(),
            released,
            probe: self.probe,
        }
    }

    pub fn primary_at(&mut self, now: Duration, count: InstructionCount, share: RunShare) {
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
        let bytes = self.cursor.bytes_under_way();
        let age = self.cursor.oldest_age(now);
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
            behind: self.cursor.sent_count().beyond(self.meter.executed()),
        }
    }

    /// The instruction count that it has reached, as far as is known.
    pub fn executed(&self) -> InstructionCount {
        self.meter.executed()
    }

    fn probe_due(&self, detector: &DetectorConfig) -> Duration {
        self.probed + 2 * detector.heartbeat_interval
    }

    /// Asks anew; the number goes with the next heartbeat, which has to be sent at once.
    fn raise_probe(&mut self, now: Duration) {
        self.probe += 1;
        self.probed = now;
        self.confirming.get_or_insert((self.probe, now));
        let bytes = self.cursor.bytes_under_way();
        self.round_trip.sent(now, self.probe, bytes);
    }

    pub fn deadline(&self, count: InstructionCount, detector: &DetectorConfig) -> Duration {
        [
            Some(self.cursor.last_sent() + detector.heartbeat_interval),
            Some(self.silence.deadline()),
            Some(self.probe_due(detector)),
            self.cursor.batch_deadline(count),
            self.cursor
                .awaited_since()
                .map(|sent| sent + detector.ack_timeout),
        ]
        .into_iter()
        .flatten()
        .fold(Duration::MAX, Duration::min)
    }

    pub fn describe(&self, count: InstructionCount) -> FollowerStatus {
        let behind = count.beyond(self.meter.executed());
        FollowerStatus {
            connection: self.cursor.connection,
            host: self.greeting.host.clone(),
            build: self.greeting.build.clone(),
            facts: self.facts,
            is_slow: false,
            boots_otherwise: Vec::new(),
            is_member: true,
            protects: self.protects,
            has_caught_up: self.meter.has_caught_up(),
            acknowledged: self.cursor.acknowledged(),
            lag_instructions: if self.protects { behind } else { 0 },
            lag: self.meter.lag(),
            arrears: self.arrears(),
            round_trip: self.round_trip.shortest(),
            record_bytes_sent: self.cursor.bytes_sent,
            restored: None,
            trouble: self.trouble.clone(),
        }
    }

    fn suspicion(&mut self, now: Duration, detector: &DetectorConfig) -> Option<Suspicion> {
        // One that differs waits for a word.
        if self.meter.executed() >= self.cursor.sent_count() || self.vote.is_some() {
            self.moved = now;
        }
        let unacknowledged = self.cursor.awaited_since();
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

    /// Takes an acknowledgement. Gives whether it protects the machine only since now.
    fn acknowledged(
        &mut self,
        now: Duration,
        record: RecordNumber,
        executed: InstructionCount,
        echo: u64,
    ) -> Result<bool, &'static str> {
        if executed > self.cursor.sent_count() || echo > self.probe {
            return Err("it is ahead of what it was sent");
        }
        if !self.cursor.acknowledge(now, record) {
            return Err("acknowledges what it was not sent");
        }
        self.heard(now);
        if executed > self.meter.executed() {
            self.moved = now;
        }
        let possible = self.cursor.held_before();
        self.meter.backup_at(executed, possible);
        self.round_trip.echoed(now, echo);
        if let Some((_, asked_at)) = self.confirming.take_if(|(probe, _)| *probe <= echo) {
            self.confirmed_at = Some(asked_at);
        }
        if echo >= self.doubted {
            self.in_doubt = false;
        }
        Ok(!self.in_doubt && !std::mem::replace(&mut self.protects, true))
    }
}

impl<O> Primary<O> {
    pub(super) fn member_on(&self, connection: ConnectionId) -> Option<usize> {
        let mut members = self.members.iter();
        members.position(|member| member.is_on(connection))
    }

    /// The other end of a connection shows that it is there, though no message of it has arrived whole: on another link
    /// of the channel, say.
    pub fn heard(&mut self, now: Duration, connection: ConnectionId) {
        self.enter(now);
        if let Some(index) = self.member_on(connection) {
            self.members[index].heard(now);
        }
    }

    pub(super) fn member_said(&mut self, now: Duration, index: usize, message: Message) {
        let member = &mut self.members[index];
        let expected = member.pairing();
        match message {
            Message::Ack {
                pairing,
                record,
                executed,
                echo,
                durable,
            } if pairing == expected => match member.acknowledged(now, record, executed, echo) {
                Ok(is_new) => {
                    member.durable = member.durable.max(durable);
                    if is_new {
                        self.report(Event::Protected { pairing });
                    }
                    self.release(now);
                    self.complete_durable_flushes();
                }
                Err(what) => self.suspect(now, index, protocol_error(what)),
            },
            Message::Challenge {
                pairing,
                nonce,
                agreement,
            } if pairing == expected => {
                member.heard(now);
                member.agreement = agreement;
                let host = member.greeting.host.id;
                self.beacon.challenge(host, nonce);
                self.agree(agreement);
            }
            Message::SwitchOver { pairing, request } if pairing == expected => {
                member.heard(now);
                self.wanted_heir = Some(pairing);
                let asked = Asked { pairing, request };
                self.actions.push_back(PrimaryAction::SwitchOver(asked));
            }
            Message::Sees {
                pairing,
                nonce: OF_ITS_HOST,
                trouble,
            } if pairing == expected => {
                member.heard(now);
                self.member_could_go_on(index, &trouble);
            }
            Message::Sees {
                pairing,
                nonce,
                trouble,
            } if pairing == expected => {
                member.heard(now);
                self.member_sees(index, nonce, &trouble);
            }
            Message::Press {
                pairing,
                button,
                request,
            } if pairing == expected => {
                member.heard(now);
                let asked = Asked { pairing, request };
                self.actions.push_back(PrimaryAction::Press(button, asked));
            }
            // The arbiter knows whether that is so.
            Message::TakenOver { pairing } if pairing == expected && self.heir == Some(pairing) => {
                self.suspect(now, index, Suspicion::HandedOver);
            }
            Message::Diverged { pairing, report } if pairing == expected => {
                self.differs(now, index, report);
            }
            Message::Compared { pairing, record } if pairing == expected => {
                member.heard(now);
                member.compared = member.compared.max(record);
            }
            Message::Goodbye {
                pairing,
                parting: Parting::Leaving,
            } if pairing == expected => {
                self.suspect(now, index, Suspicion::Left);
            }
            Message::Goodbye {
                pairing,
                parting: Parting::DiskFailed,
            } if pairing == expected => {
                self.suspect(now, index, Suspicion::DiskFailed);
            }
            _ => self.suspect(
                now,
                index,
                protocol_error("an unexpected message, or one of another pairing"),
            ),
        }
    }

    /// What came of what somebody asked for at a backup; that is told, if it is still a member.
    pub fn answer(&mut self, now: Duration, asked: Asked, done: bool, text: String) {
        self.enter(now);
        let Asked { pairing, request } = asked;
        let mut members = self.members.iter();
        if let Some(member) = members.find(|member| member.pairing() == pairing) {
            let connection = member.connection();
            let answer = Message::Answer {
                pairing,
                request,
                done,
                text,
            };
            self.send(connection, answer);
        }
        self.maintain(now);
    }

    /// Lets out what everybody holds whom outputs wait for. Whoever hands over says nothing more:
    /// its successor says it again. While it is not certain who is a member, nothing leaves.
    pub(super) fn release(&mut self, now: Duration) {
        let mutated = self.config.mutations.active(Mutation::EmitsAfterHandover);
        let is_certain = self.lost.is_empty() && self.members.iter().all(Member::is_certain);
        let is_gone = (self.stands_still || self.is_disputed()) && !mutated;
        if !is_certain || self.is_journal_lost() || is_gone {
            return;
        }
        let sent_is_held = self.config.mutations.active(Mutation::CheckpointSentIsHeld);
        let held = self.members.iter().map(|m| match sent_is_held {
            true => m.cursor.sent(),
            false => m.cursor.acknowledged(),
        });
        let held = self.policy().held(held);
        let stored = self.durable_in_journal();
        if let Some(held) = held.into_iter().chain(stored).min() {
            assert!(held <= self.log.last(), "nobody holds what was not made");
            let released = self.gate.held_up_to(now, held);
            self.emit(released);
        }
    }

    /// What the disks of all members have for good.
    pub(super) fn complete_durable_flushes(&mut self) {
        let is_waited_for = self.opened.membership().durability == Durability::Both;
        if !is_waited_for || !self.settled || !self.lost.is_empty() || self.is_disputed() {
            return;
        }
        if let Some(count) = self.members.iter().map(Member::durable).min()
            && count > self.flushes_up_to
        {
            self.complete_flushes(count);
        }
    }

    /// This process did not run for `pause`. A member may have gone live meanwhile: nothing leaves
    /// until all have answered a question that was asked after the pause.
    pub(super) fn paused(&mut self, now: Duration, pause: Duration) {
        let no_doubt = self.config.mutations.active(Mutation::NoDoubtAfterSleep);
        for member in &mut self.members {
            member.forgive(pause);
            if !no_doubt {
                member.in_doubt = true;
                member.doubted = member.probe + 1;
            }
        }
        self.flush(now, true);
        for index in 0..self.members.len() {
            self.ask_whether_it_listens(now, index);
        }
        self.report(Event::Paused { pause });
    }

    /// A guest that only computes makes no record, and a member executes nothing beyond the last
    /// one: a marker without an output lets it come after, and is one more that it is compared by.
    pub(super) fn let_members_follow(&mut self, now: Duration) {
        let may_move = self.may_move() && !self.finishing;
        let (last, count) = (self.log.end().count, self.count);
        let mut cursors = self.members.iter().map(Member::cursor);
        if !may_move || !cursors.any(|cursor| cursor.is_behind(now, last, count)) {
            return;
        }
        let body = RecordBody::Marker {
            visible_outputs: self.visible_outputs,
        };
        self.append(now, Record { count, body });
        self.flush(now, false);
    }

    /// A heartbeat with a new question, even if records were just sent.
    fn ask_whether_it_listens(&mut self, now: Duration, index: usize) {
        let member = &mut self.members[index];
        member.raise_probe(now);
        member.cursor.touched(now);
        let heartbeat = member.heartbeat(self.gate.released_visible());
        let connection = member.connection();
        self.send(connection, heartbeat);
    }

    pub(super) fn maintain_members(&mut self, now: Duration) {
        let detector = self.config.detector;
        let mut members = self.members.iter_mut().enumerate();
        let suspicion = members.find_map(|(index, member)| {
            let why = member.suspicion(now, &detector)?;
            Some((index, why))
        });
        if let Some((index, why)) = suspicion {
            self.suspect(now, index, why);
            return self.maintain_members(now);
        }
        for index in 0..self.members.len() {
            self.maintain_member(now, index);
        }
    }

    fn maintain_member(&mut self, now: Duration, index: usize) {
        let detector = self.config.detector;
        let cursor = &self.members[index].cursor;
        let heartbeat_due = now >= cursor.last_sent() + detector.heartbeat_interval;
        let batch = cursor.batch_deadline(self.count);
        let batch_due = batch.is_some_and(|deadline| now >= deadline);
        let probe_due = now >= self.members[index].probe_due(&detector);
        if heartbeat_due || batch_due {
            self.flush_member(now, index, false);
        }
        if probe_due {
            self.ask_whether_it_listens(now, index);
        } else if heartbeat_due && self.members[index].cursor.last_sent() < now {
            let member = &mut self.members[index];
            member.cursor.touched(now);
            let heartbeat = member.heartbeat(self.gate.released_visible());
            let connection = member.connection();
            self.send(connection, heartbeat);
        }
    }

    pub(super) fn flush_member(&mut self, now: Duration, index: usize, urgent: bool) {
        let released = self.gate.released_visible();
        let sending = Sending {
            now,
            urgent,
            released,
        };
        let member = &mut self.members[index];
        let connection = member.connection();
        for message in member.cursor.take(&self.log, sending) {
            self.send(connection, message);
        }
    }

    /// A member is lost, perhaps: the arbiter decides who goes on. Until it has, nothing leaves.
    pub(super) fn suspect(&mut self, now: Duration, index: usize, why: Suspicion) {
        if !matches!(self.state, State::Running { .. }) {
            return;
        }
        let member = self.members.remove(index);
        let (connection, pairing) = (member.connection(), member.pairing());
        // A member that was stopped and wakes now reads it, and does not vie for the generation
        // with a primary that is well.
        let parting = Parting::Suspected;
        self.send(connection, Message::Goodbye { pairing, parting });
        self.actions.push_back(PrimaryAction::Close(connection));
        // Whoever asked for that to happen is told of it when the arbiter confirms it.
        if why != Suspicion::HandedOver {
            self.report(Event::Suspected { pairing, why });
        }
        assert!(
            self.opened.membership().has_member(member.greeting.host.id),
            "whoever read Begin is a member by the key"
        );
        self.lost.push(member.greeting.host);
        if self
            .config
            .mutations
            .active(Mutation::DropBackupWithoutAsking)
        {
            self.lost.clear();
            self.go_on(now);
        }
    }
}
