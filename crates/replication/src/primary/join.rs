//! A backup joins while the primary runs. `docs/protocol.md`, "Joining".

use super::booting::TheirBoot;
use super::member::Member;
use super::{FollowerStatus, Primary, PrimaryAction, State};
use crate::ConnectionId;
use crate::capacity::HostFacts;
use crate::configuration::Configuration;
use crate::cursor::{Cursor, Sending};
use crate::event::Event;
use crate::failure_detector::{DetectorConfig, SilenceDetector, Suspicion};
use crate::life_log::Relation;
use crate::message::{
    Busy, Continuation, Greeting, Message, OF_ITS_HOST, OLDEST_PROTOCOL_VERSION, Parting, Refusal,
    Standpoint, printable, tells_boot, tells_facts,
};
use crate::mutation::Mutation;
use crate::record::{InstructionCount, RecordNumber};
use crate::succession::{Durability, Host, Kind, MAX_MEMBERS, Membership, RunId};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinStep {
    /// The backup takes away the rights of what it has.
    AwaitAccept,
    /// The vcpu was asked for the snapshot.
    AwaitSnapshot,
    /// It is fetched and restored; records flow.
    AwaitReady,
    /// It is restored. The key that makes it a member is asked for as soon as the generation is not
    /// being left otherwise.
    Ready,
    /// The arbiter is asked for that key.
    Claiming,
    /// The backup reads that key at its own arbiter.
    AwaitConfirmed,
}

/// Who says Hello.
pub(super) struct Newcomer {
    pub protocol: u32,
    pub greeting: Greeting,
    /// It joins only where members are lacking.
    pub is_spare: bool,
    /// Where its machine stands, if it has one.
    pub stands_at: Option<Standpoint>,
    /// What its host has.
    pub facts: HostFacts,
    /// What the machine would be booted from there.
    pub boot: Configuration,
}

/// A follower that becomes a member. Outputs do not wait for it yet.
pub(super) struct Join {
    cursor: Cursor,
    greeting: Greeting,
    facts: HostFacts,
    boot: TheirBoot,
    /// People were told that it is slow.
    told_slow: bool,
    step: JoinStep,
    /// Its machine is made of a snapshot.
    is_copied: bool,
    silence: SilenceDetector,
    /// Visible outputs up to its snapshot: it never produces them, so they have to be out before it may take
    /// over. Those of a machine that waits for a journal may not be yet.
    before_snapshot: u64,
    /// What the backup said about its restore: bytes done, of how many.
    restored: Option<(u64, u64)>,
    /// Why its host cannot follow, as it has said: it leaves then.
    trouble: Option<String>,
    /// Keys of generations that began since it was told of the one that makes it a member.
    generations: Vec<Vec<u8>>,
}

impl Join {
    pub fn step(&self) -> JoinStep {
        self.step
    }

    /// Whether its copy is not done yet.
    fn is_being_copied(&self) -> bool {
        self.is_copied
            && matches!(
                self.step,
                JoinStep::AwaitAccept | JoinStep::AwaitSnapshot | JoinStep::AwaitReady
            )
    }

    /// Whether records are sent, and not only kept.
    pub fn has_snapshot(&self) -> bool {
        matches!(
            self.step,
            JoinStep::AwaitReady | JoinStep::Ready | JoinStep::Claiming | JoinStep::AwaitConfirmed
        )
    }

    pub fn key_is_there(&mut self) {
        assert!(self.step == JoinStep::Claiming, "the key was asked for");
        self.step = JoinStep::AwaitConfirmed;
    }

    /// Another generation began. Whether it is to be told now: while it reads the key that makes it a
    /// member it is not.
    pub fn generation_changed(&mut self, key: &[u8]) -> bool {
        let reads = self.step == JoinStep::AwaitConfirmed;
        if reads {
            self.generations.push(key.to_vec());
        }
        !reads && self.step != JoinStep::Claiming
    }

    pub fn restored(&self) -> Option<(u64, u64)> {
        self.restored
    }

    pub fn describe(&self) -> FollowerStatus {
        FollowerStatus {
            connection: self.cursor.connection,
            host: self.greeting.host.clone(),
            build: self.greeting.build.clone(),
            facts: self.facts,
            is_slow: false,
            boots_otherwise: Vec::new(),
            is_member: false,
            protects: false,
            has_caught_up: false,
            acknowledged: self.cursor.acknowledged(),
            lag_instructions: 0,
            lag: Duration::ZERO,
            arrears: Duration::ZERO,
            round_trip: None,
            record_bytes_sent: self.cursor.bytes_sent,
            restored: self.restored,
            trouble: None,
        }
    }

    pub fn host(&self) -> &Host {
        &self.greeting.host
    }

    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    pub fn boot(&self) -> &TheirBoot {
        &self.boot
    }

    pub fn boot_mut(&mut self) -> &mut TheirBoot {
        &mut self.boot
    }

    /// Whether it is told only now that it is slow.
    pub fn is_told_slow_first(&mut self) -> bool {
        !std::mem::replace(&mut self.told_slow, true)
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

    pub fn run(&self) -> RunId {
        self.greeting.run
    }

    pub fn bytes_waiting(&self) -> usize {
        self.cursor.bytes_under_way()
    }

    pub fn forgive(&mut self, pause: Duration) {
        self.silence.forgive(pause);
    }

    /// Where it is in the log, from the snapshot on.
    pub fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        self.has_snapshot().then_some(&mut self.cursor)
    }

    pub fn deadline(&self, count: InstructionCount, detector: &DetectorConfig) -> Duration {
        let heartbeat = self.cursor.last_sent() + detector.heartbeat_interval;
        let batch = self
            .has_snapshot()
            .then(|| self.cursor.batch_deadline(count))
            .flatten();
        batch
            .map_or(heartbeat, |batch| batch.min(heartbeat))
            .min(self.silence.deadline())
    }
}

/// A backup that joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joiner {
    /// The pairing that is being made.
    pub pairing: u64,
    /// The run of its process.
    pub run: RunId,
    /// Its channel.
    pub connection: ConnectionId,
}

impl<O> Primary<O> {
    /// Who may fetch the snapshot.
    pub fn joining(&self) -> Option<Joiner> {
        match &self.state {
            State::Running { join: Some(join) } => Some(Joiner {
                pairing: join.pairing(),
                run: join.run(),
                connection: join.cursor.connection,
            }),
            _ => None,
        }
    }

    pub(super) fn hello(&mut self, now: Duration, connection: ConnectionId, newcomer: Newcomer) {
        let continuation = self.continuation(newcomer.stands_at);
        let mut verdict = self.may_join(now, &newcomer);
        if matches!(verdict, Err(Refusal::NotNow(_))) && self.copy_gives_way(now, continuation) {
            verdict = self.may_join(now, &newcomer);
        }
        let Newcomer {
            protocol,
            greeting,
            stands_at,
            facts,
            boot,
            is_spare: _,
        } = newcomer;
        if let Err(refusal) = verdict {
            let told = refusal
                .from_there(&self.config.greeting.host)
                .in_protocol(protocol);
            self.send(connection, Message::Refuse(told));
            self.actions.push_back(PrimaryAction::Close(connection));
            // A host that comes again and again is told about once.
            let is_news = match refusal {
                Refusal::Lagged => self.laggards.is_news(greeting.host.id),
                Refusal::NotNeeded => false,
                Refusal::NoRoom(_) | Refusal::TooSlow(_) => {
                    self.unfit.is_news(greeting.host.id, &refusal)
                }
                _ => true,
            };
            if is_news {
                self.report(Event::RefusedBackup {
                    host: greeting.host,
                    refusal,
                });
            }
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
            continuation,
            needs: tells_facts(protocol).then(|| self.needs()),
            boot: match tells_boot(protocol) {
                true => self.boot.clone(),
                false => Configuration::default(),
            },
        };
        self.unfit.forget(greeting.host.id);
        self.send(connection, welcome);
        self.report(Event::Joining {
            pairing,
            host: greeting.host.clone(),
        });
        if stands_at.is_some() {
            self.report(Event::Continues {
                pairing,
                continuation,
            });
        }
        let mut cursor = Cursor::new(now, connection, pairing, self.config.batch);
        let mut step = JoinStep::AwaitAccept;
        if let (Continuation::Continues, Some(Standpoint { place, .. })) = (continuation, stands_at)
        {
            let skips = self.config.mutations.active(Mutation::SkipsWhatItLacks);
            let from = if skips { self.log.last() } else { place.record };
            cursor.starts_at(now, from, place.count, &self.log);
            step = JoinStep::AwaitReady;
        }
        let join = Join {
            cursor,
            greeting,
            facts,
            boot: TheirBoot::new(boot),
            told_slow: false,
            step,
            is_copied: continuation != Continuation::Continues,
            silence: SilenceDetector::new(now, self.config.detector.join_timeout),
            before_snapshot: 0,
            restored: None,
            trouble: None,
            generations: Vec::new(),
        };
        self.state = State::Running {
            join: Some(Box::new(join)),
        };
        self.tell_if_slow();
        self.tell_boots();
    }

    fn may_join(&self, now: Duration, newcomer: &Newcomer) -> Result<(), Refusal> {
        let (ours, theirs) = (&self.config.greeting, &newcomer.greeting);
        let protocol = newcomer.protocol;
        let spoken = OLDEST_PROTOCOL_VERSION..=self.config.protocol;
        if !spoken.contains(&protocol) {
            return Err(Refusal::ProtocolVersion {
                ours: self.config.protocol,
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
        if let Some(clash) = ours.clash(theirs).or_else(|| self.clash(theirs)) {
            return Err(clash);
        }
        if let Some(differs) = ours.refusal_of_machine(theirs) {
            return Err(differs);
        }
        self.check_memory(newcomer)?;
        // Its process before this one is not yet known to be gone.
        let is_here = self.opened.membership().has_member(theirs.host.id);
        if !is_here && !self.is_needed(now, newcomer) {
            return Err(Refusal::NotNeeded);
        }
        if let Some(busy) = is_here.then_some(Busy::Before).or_else(|| self.busy()) {
            return Err(Refusal::NotNow(busy));
        }
        let others_protect = self.members.iter().any(Member::protects);
        if others_protect && self.laggards.is_kept_out(now, theirs.host.id) {
            return Err(Refusal::Lagged);
        }
        self.check_speed(newcomer, others_protect)
    }

    /// Whether somebody who follows, or joins, has the name or the identity of who comes now.
    fn clash(&self, theirs: &Greeting) -> Option<Refusal> {
        let joining = match &self.state {
            State::Running { join: Some(join) } => Some(join.greeting()),
            State::Running { join: None } | State::Parting { .. } | State::Stopped => None,
        };
        let members = self.members.iter().map(Member::greeting);
        let mut here = members.chain(joining);
        here.find_map(|here| here.clash_among_others(theirs))
    }

    fn members_wanted(&self) -> usize {
        self.config.max_members.min(MAX_MEMBERS)
    }

    /// Notes since when members have been lacking.
    pub(super) fn look_for_lack(&mut self, now: Duration) {
        if self.members.len() >= self.members_wanted() {
            self.lacks_since = None;
        } else {
            self.lacks_since.get_or_insert(now);
        }
    }

    /// Whether there is a place for it. A spare waits until those who are lacking had the time to come
    /// back; one that was a member, and has all of its machine, is one of those.
    fn is_needed(&self, now: Duration, newcomer: &Newcomer) -> bool {
        let comes_back = self.continuation(newcomer.stands_at) == Continuation::Continues;
        let is_spare = newcomer.is_spare && !comes_back;
        let waited = self.lacks_since.map(|since| now.saturating_sub(since));
        let patience = self.spare_patience(&newcomer.facts);
        self.members.len() < self.members_wanted()
            && (!is_spare || waited.is_some_and(|waited| waited >= patience))
    }

    /// While nobody protects the machine, whoever needs no copy comes before one that is still being
    /// copied.
    fn copy_gives_way(&mut self, now: Duration, continuation: Continuation) -> bool {
        let State::Running { join: Some(join) } = &self.state else {
            return false;
        };
        let gives_way = join.is_being_copied()
            && continuation == Continuation::Continues
            && self.is_alone()
            && self.leaving.is_none()
            && !self.finishing;
        if gives_way {
            self.join_failed(now, Suspicion::GivesWay);
        }
        gives_way
    }

    /// Whether a machine that stands there can go on from there: its log must be proven to be a
    /// prefix of this one, which must still hold what follows.
    pub(super) fn continuation(&self, stands_at: Option<Standpoint>) -> Continuation {
        let Some(Standpoint { life_id, place }) = stands_at else {
            return Continuation::NoMachine;
        };
        if life_id != self.opened.life || place.count > self.count {
            return Continuation::Differs;
        }
        let mutated = self.config.mutations.active(Mutation::ReturnsUnproven);
        match self.log.relation(&place) {
            Relation::Prefix => Continuation::Continues,
            Relation::Differs if mutated && place.record <= self.log.last() => {
                Continuation::Continues
            }
            Relation::Forgotten => Continuation::Forgotten,
            Relation::Differs => Continuation::Differs,
        }
    }

    /// The snapshot was taken at `count`, at this place in the vcpu's stream.
    pub fn snapshot_taken(&mut self, now: Duration, pairing: u64, count: InstructionCount) {
        self.enter(now);
        self.advance_to(now, count);
        self.checkpoints_began(pairing);
        let visible_outputs = self.visible_outputs;
        let (record, mark) = (self.log.last(), self.log.end().mark);
        if let State::Running { join: Some(join) } = &mut self.state
            && join.pairing() == pairing
            && join.step == JoinStep::AwaitSnapshot
        {
            join.step = JoinStep::AwaitReady;
            join.cursor.starts_at(now, record, count, &self.log);
            join.before_snapshot = visible_outputs;
            join.silence.heard(now);
            let connection = join.connection();
            let taken = Message::SnapshotTaken {
                pairing,
                record,
                count,
                visible_outputs,
                mark,
            };
            self.send(connection, taken);
        }
        self.journal_snapshot_taken(now, pairing);
        self.maintain(now);
    }

    /// The snapshot could not be taken or sent: the join is given up, the machine runs on.
    pub fn snapshot_failed(&mut self, now: Duration, pairing: u64) {
        self.enter(now);
        if let State::Running { join: Some(join) } = &self.state
            && join.pairing() == pairing
        {
            self.join_failed(now, Suspicion::Left);
        }
        self.maintain(now);
    }

    pub(super) fn joiner_said(&mut self, now: Duration, message: Message) {
        let State::Running { join: Some(join) } = &mut self.state else {
            return;
        };
        let expected = join.pairing();
        join.silence.heard(now);
        match message {
            Message::Accept { pairing } if pairing == expected => {
                if join.step == JoinStep::AwaitAccept {
                    join.step = JoinStep::AwaitSnapshot;
                    let run = join.run();
                    let host = join.host().id;
                    self.cannot_follow.forget(host);
                    self.actions
                        .push_back(PrimaryAction::TakeSnapshot { pairing, run });
                } else {
                    self.join_failed(now, protocol_error("accepts a second time"));
                }
            }
            Message::Ready { pairing } if pairing == expected => {
                if join.step == JoinStep::AwaitReady {
                    join.step = JoinStep::Ready;
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
                pairing, record, ..
            } if pairing == expected => {
                // Before it has the snapshot it holds nothing, and only says that it is there.
                if record > RecordNumber::BEFORE_ALL && !join.cursor.acknowledge(now, record) {
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
                let why = match join.trouble.take() {
                    Some(trouble) => Suspicion::CannotFollow(trouble),
                    None => Suspicion::DiskFailed,
                };
                self.joiner_cannot_follow(&why);
                self.join_failed(now, why);
            }
            Message::Sees {
                pairing,
                nonce: OF_ITS_HOST,
                trouble,
            } if pairing == expected => {
                join.trouble = Some(printable(&trouble));
            }
            Message::Diverged { pairing, report } if pairing == expected => {
                self.report(Event::Diverged { pairing, report });
                self.join_failed(now, Suspicion::Diverged);
            }
            _ => self.join_failed(now, protocol_error("an unexpected message while joining")),
        }
    }

    /// The backup holds the snapshot and is ready: the arbiter is asked to make it a member.
    /// Outputs do not wait for it yet: it cannot leave the generation.
    pub(super) fn claim_joining(&mut self, now: Duration) {
        let is_ready = matches!(
            &self.state,
            State::Running { join: Some(join) } if join.step == JoinStep::Ready
        );
        if is_ready {
            // The machine may do more than when it greeted.
            self.tell_if_slow();
        }
        let is_free = self.leaving.is_none()
            && self.lost.is_empty()
            && !self.finishing
            && !self.stands_still
            && !self.is_disputed();
        let State::Running { join: Some(join) } = &mut self.state else {
            return;
        };
        let has_all = self.gate.released_visible() >= join.before_snapshot;
        if join.step != JoinStep::Ready || !is_free || !has_all {
            return;
        }
        join.step = JoinStep::Claiming;
        let mut members: Vec<Host> = self.members.iter().map(|m| m.host().clone()).collect();
        members.push(join.host().clone());
        let next = Membership {
            members,
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
        let State::Running { join } = &mut self.state else {
            return;
        };
        let Some(join) = join.take() else { return };
        let Join {
            mut cursor,
            greeting,
            facts,
            boot,
            generations,
            ..
        } = *join;
        let (connection, pairing) = (cursor.connection, cursor.pairing);
        let begin = Message::Begin {
            pairing,
            record: cursor.sent(),
            released: self.gate.released_visible(),
            record_interval_ms: self.config.digest_interval.as_millis() as u64,
        };
        assert!(
            cursor.has_sent_all(self.log.last()),
            "Begin comes after all records before it"
        );
        assert!(
            self.opened.membership().has_member(greeting.host.id),
            "only a member by the key begins"
        );
        cursor.touched(now);
        // While it restored it did not have to acknowledge anything.
        if !self
            .config
            .mutations
            .active(Mutation::RestoreCountsAsSilence)
        {
            cursor.begin(now);
        }
        let mutated = self.config.mutations.active(Mutation::FlushOnOneDiskOnly);
        if self.opened.membership().durability == Durability::Both && !mutated {
            self.complete_flushes(InstructionCount::POWER_ON);
        }
        let mut member = Member::new(now, greeting, facts, cursor, &self.config.detector);
        member.boot = boot;
        self.members.push(member);
        self.send(connection, begin);
        for key in generations {
            self.send(connection, Message::Generation { pairing, key });
        }
    }

    pub(super) fn join_failed(&mut self, now: Duration, why: Suspicion) {
        let State::Running { join } = &mut self.state else {
            return;
        };
        let Some(join) = join.take() else { return };
        let pairing = join.pairing();
        self.actions
            .push_back(PrimaryAction::Close(join.connection()));
        let cancels = !self.config.mutations.active(Mutation::SnapshotNotCancelled);
        let is_whole = matches!(
            join.step,
            JoinStep::Ready | JoinStep::Claiming | JoinStep::AwaitConfirmed
        );
        if !is_whole && cancels {
            self.actions
                .push_back(PrimaryAction::AbortSnapshot { pairing });
        }
        self.report(Event::JoinFailed { pairing, why });
        self.drop_absent(now);
        if self.members.is_empty()
            && let Some(share) = self.throttle.lift()
        {
            self.actions.push_back(PrimaryAction::Throttle(share));
        }
    }

    pub(super) fn maintain_join(&mut self, now: Duration) {
        let State::Running { join: Some(join) } = &mut self.state else {
            return;
        };
        if join.silence.is_silent(now) {
            return self.join_failed(now, Suspicion::Silent);
        }
        let mutation = Mutation::RestoreCountsAsSilence;
        if self.config.mutations.active(mutation)
            && let Some(since) = join.cursor.awaited_since()
            && now >= since + self.config.detector.ack_timeout
        {
            return self.join_failed(now, Suspicion::NotAcknowledging);
        }
        let heartbeat_due =
            now >= join.cursor.last_sent() + self.config.detector.heartbeat_interval;
        let batch_due = join.has_snapshot()
            && join
                .cursor
                .batch_deadline(self.count)
                .is_some_and(|deadline| now >= deadline);
        if heartbeat_due || batch_due {
            self.flush(now, false);
        }
        if heartbeat_due {
            self.heartbeat_to_joiner(now);
        }
    }

    /// Sends what waits to everybody who is sent records at all. `urgent`: an output waits for it.
    pub(super) fn flush(&mut self, now: Duration, urgent: bool) {
        if urgent {
            self.store(now);
        }
        for index in 0..self.members.len() {
            self.flush_member(now, index, urgent);
        }
        let released = self.gate.released_visible();
        let State::Running { join: Some(join) } = &mut self.state else {
            return;
        };
        if !join.has_snapshot() {
            return;
        }
        let sending = Sending {
            now,
            urgent: false,
            released,
        };
        let connection = join.connection();
        for message in join.cursor.take(&self.log, sending) {
            self.send(connection, message);
        }
    }

    /// Says "still here" to whoever is joining if nothing was sent at this very time.
    fn heartbeat_to_joiner(&mut self, now: Duration) {
        let released = self.gate.released_visible();
        let State::Running { join: Some(join) } = &mut self.state else {
            return;
        };
        if join.cursor.last_sent() >= now {
            return;
        }
        join.cursor.touched(now);
        let (connection, pairing) = (join.connection(), join.pairing());
        let record = join.cursor.sent();
        self.send(
            connection,
            Message::Heartbeat {
                pairing,
                record,
                released,
                probe: 0,
            },
        );
    }
}

pub(super) fn protocol_error(what: &str) -> Suspicion {
    Suspicion::Protocol(what.to_owned())
}
