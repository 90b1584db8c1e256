//! Following one primary through one pairing: what is received, replayed, kept, acknowledged.

mod conversation;

use super::BackupStatus;
use crate::ConnectionId;
use crate::config::PairConfig;
use crate::failure_detector::{DetectorConfig, SilenceDetector, Suspicion};
use crate::life_log::{LifeLog, LogMark, Place};
use crate::message::{DivergenceReport, Message, OF_ITS_HOST, Standpoint};
use crate::mutation::{Mutation, Mutations};
use crate::record::{InstructionCount, Record, RecordNumber};
use crate::succession::{ClaimPacing, Entry, HostId, Kind, Outcome, Request};
use crate::watch::{Agreement, BeaconReader};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// What is here loses its rights: its marker is being written.
    Marking,
    /// The snapshot is being fetched; where in the log it was taken is not known yet.
    Fetching,
    /// It is fetched and restored.
    Restoring,
    /// Ready was sent. The primary is still free to go on alone.
    Ready,
    /// The primary says that the key is there; it is being read.
    Confirming,
    /// This host's own arbiter says so, too. The primary is still free to go on alone.
    Confirmed,
    /// Begin was read: the pairing is in force.
    Begun,
}

/// How often progress is told when nothing else is to be said.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(20);
/// How often the progress of the restore is told.
const RESTORE_PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The read of the key that makes this host a member, until there is an answer.
#[derive(Debug)]
struct KeyRead {
    entry: Entry,
    wait: Duration,
    longest: Duration,
    due: Duration,
    asked: Option<Request>,
}

impl KeyRead {
    fn new(now: Duration, entry: Entry, pacing: ClaimPacing) -> KeyRead {
        KeyRead {
            entry,
            wait: pacing.first,
            longest: pacing.longest,
            due: now,
            asked: None,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.asked.is_none().then_some(self.due)
    }

    fn poll(&mut self, now: Duration) -> Option<Request> {
        if self.asked.is_some() || now < self.due {
            return None;
        }
        let key = self.entry.key.clone();
        let request = Request::Read { key };
        self.asked = Some(request.clone());
        Some(request)
    }

    /// The entry, once this host's own arbiter says that it is there.
    fn answer(
        &mut self,
        now: Duration,
        request: &Request,
        outcome: &Outcome,
    ) -> Option<Result<Entry, String>> {
        self.asked.take_if(|asked| asked == request)?;
        match outcome {
            Outcome::Holds(content) if *content == self.entry.content() => {
                return Some(Ok(self.entry.clone()));
            }
            Outcome::Absent | Outcome::Holds(_) => {
                return Some(Err(
                    "the primary's key is not at this host's arbiter: the two use different \
                     arbiters"
                        .to_owned(),
                ));
            }
            _ => {}
        }
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(self.longest);
        None
    }
}

/// One pairing, as the backup sees it.
pub(super) struct Follow<O> {
    connection: ConnectionId,
    pairing: u64,
    /// The key that opened the generation that it is in: its primary's, until it is a member.
    opened: Entry,
    phase: Phase,
    /// The read of the key that makes it a member.
    reading: Option<KeyRead>,
    beacon: BeaconReader,
    /// What was told last about the arbiters.
    told_agreement: Agreement,
    /// What the primary was told last about whether this host could go on in its place: that it could, at first.
    told_trouble: Option<String>,
    handed_over: bool,
    /// Why the primary lets it go, if it has said so: it does next.
    let_go_for: Option<String>,
    /// Its machine differs, and the primary has not said yet what comes of it.
    pub differs: Option<DivergenceReport>,
    /// Its machine is what the majority has: it follows the log without being compared.
    pub is_uncompared: bool,
    /// The primary wants to hear when this record was replayed.
    compares_at: Option<RecordNumber>,
    /// The record before Begin; the settling of the disk was asked for; it is done.
    begun_at: RecordNumber,
    settling: bool,
    settled: bool,
    /// Settlings under way, and whether the last one was asked for: at the end of the life.
    settles_open: u32,
    settles_finally: bool,
    /// Instruction count up to which this host's disk has what the guest wrote.
    durable: InstructionCount,
    silence: SilenceDetector,
    /// What was received, as far as it is held: this replica is a primary with it one day, perhaps.
    log: LifeLog,
    /// Records that are missing before it: always 0, but for the mutation that does not look.
    overlooked: u64,
    last_record: Duration,
    /// Number of the last record replayed, and where the machine is.
    replayed: RecordNumber,
    executed: InstructionCount,
    /// Visible outputs that the primary said are out.
    released: u64,
    kept: VecDeque<(u64, Vec<O>)>,
    /// Newest probe seen.
    echo: u64,
    ack_due: Option<Duration>,
    last_sent: Duration,
    told_executed: InstructionCount,
    /// Bytes of the snapshot restored, of how many; whether and when that was told.
    restored: Option<(u64, u64)>,
    restored_news: bool,
    restored_told: Duration,
    /// No record for so long makes the primary suspect. Begin says how often there is one.
    record_timeout: Option<Duration>,
}

impl<O> Follow<O> {
    pub fn new(
        now: Duration,
        connection: ConnectionId,
        pairing: u64,
        opened: &Entry,
        config: &PairConfig,
    ) -> Follow<O> {
        let primary = opened.membership().primary.id;
        // Of this process only, and of this pairing only.
        let nonce = config.greeting.run.0 ^ u128::from(pairing) << 64;
        let interval = config.watch_interval;
        // Until it is known where the snapshot was taken.
        let nowhere = Place {
            record: RecordNumber::BEFORE_ALL,
            count: InstructionCount::POWER_ON,
            mark: LogMark::default(),
        };
        Follow {
            connection,
            pairing,
            opened: opened.clone(),
            phase: Phase::Marking,
            reading: None,
            beacon: BeaconReader::new(now, config.beacon(primary), nonce, interval),
            told_agreement: Agreement::Unknown,
            told_trouble: None,
            handed_over: false,
            let_go_for: None,
            differs: None,
            is_uncompared: false,
            compares_at: None,
            begun_at: RecordNumber::BEFORE_ALL,
            settling: false,
            settled: false,
            settles_open: 0,
            settles_finally: false,
            durable: InstructionCount::POWER_ON,
            silence: SilenceDetector::new(now, config.detector.join_timeout),
            log: LifeLog::from(nowhere, config.log_bytes),
            overlooked: 0,
            last_record: now,
            replayed: RecordNumber::BEFORE_ALL,
            executed: InstructionCount::POWER_ON,
            released: 0,
            kept: VecDeque::new(),
            echo: 0,
            ack_due: None,
            last_sent: now,
            told_executed: InstructionCount::POWER_ON,
            restored: None,
            restored_news: false,
            restored_told: now,
            record_timeout: config.detector.record_timeout,
        }
    }

    /// The same machine in another pairing: `welcomed` has no machine yet.
    pub fn goes_on_in(self, welcomed: Follow<O>) -> Follow<O> {
        assert!(
            self.can_return(),
            "a machine that is not made goes on nowhere"
        );
        assert!(
            welcomed.phase == Phase::Marking,
            "nothing has come of the new pairing yet"
        );
        Follow {
            phase: Phase::Ready,
            log: self.log,
            overlooked: self.overlooked,
            replayed: self.replayed,
            executed: self.executed,
            released: self.released,
            kept: self.kept,
            ..welcomed
        }
    }

    /// Whether there is a machine here that holds all of its log up to some record.
    pub fn can_return(&self) -> bool {
        let is_made = !matches!(
            self.phase,
            Phase::Marking | Phase::Fetching | Phase::Restoring
        );
        is_made && self.differs.is_none()
    }

    /// Where the machine stands once it has replayed all.
    pub fn stands_at(&self) -> Standpoint {
        Standpoint {
            life_id: self.opened.life,
            place: self.log.end(),
        }
    }

    /// Whether `by`, the key of leaving this replica's generation, lets it be a member of the next.
    pub fn stays_member(&self, by: &Entry, me: HostId) -> bool {
        let is_same_reign = matches!(by.kind, Kind::Joined | Kind::Dropped | Kind::Moved);
        is_same_reign
            && by.key == self.opened.next_key()
            && by.membership().primary == self.opened.membership().primary
            && by.membership().has_member(me)
            && self.opened.membership().has_member(me)
    }

    /// The generation was left by `by`, and this replica is in the next one, too. Its marker has to
    /// say so.
    pub fn adopt(&mut self, by: Entry) {
        assert!(
            by.key == self.opened.next_key(),
            "generations follow each other"
        );
        self.opened = by;
        self.settling = false;
    }

    pub fn restoring(&mut self, done: u64, total: u64) {
        if self.phase == Phase::Restoring {
            self.restored_news |= self.restored != Some((done, total));
            self.restored = Some((done, total));
        }
    }

    pub fn progress_if_due(&mut self, now: Duration) -> Option<Message> {
        let is_due = self.restored_news && now >= self.restored_told + RESTORE_PROGRESS_INTERVAL;
        let (done, total) = self.restored.filter(|_| is_due)?;
        self.restored_news = false;
        self.restored_told = now;
        self.last_sent = now;
        Some(Message::Restoring {
            pairing: self.pairing,
            done,
            total,
        })
    }

    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    pub fn opened(&self) -> &Entry {
        &self.opened
    }

    pub fn received(&self) -> RecordNumber {
        self.log.last()
    }

    pub fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    pub fn pairing(&self) -> u64 {
        self.pairing
    }

    pub fn has_begun(&self) -> bool {
        self.phase == Phase::Begun
    }

    pub fn is_member(&self) -> bool {
        matches!(self.phase, Phase::Confirmed | Phase::Begun)
    }

    /// The first thing that the arbiter says about the key, or why it cannot be a member.
    pub fn key_was_read(
        &mut self,
        now: Duration,
        request: &Request,
        outcome: &Outcome,
    ) -> Option<Result<(), String>> {
        let reading = self.reading.as_mut()?;
        let verdict = reading.answer(now, request, outcome)?;
        self.reading = None;
        Some(verdict.map(|opened| {
            self.opened = opened;
            self.phase = Phase::Confirmed;
        }))
    }

    /// The arbiter is another one from here on.
    pub fn look_at_beacons_anew(&mut self, now: Duration) {
        self.beacon.restart(now);
    }

    pub fn beacon_answered(&mut self, request: &Request, outcome: &Outcome) {
        self.beacon.answer(request, outcome);
    }

    pub fn heartbeat_deadline(&self, detector: &DetectorConfig) -> Duration {
        let heartbeat = self.last_sent + detector.heartbeat_interval;
        self.ack_due.map_or(heartbeat, |due| due.min(heartbeat))
    }

    pub fn backlog(&self) -> u64 {
        self.received().since(self.replayed)
    }

    /// True once, for the last settling of the disk.
    pub fn settle_at_the_end(&mut self) -> bool {
        if self.settles_finally {
            return false;
        }
        self.settles_finally = true;
        self.settling = true;
        self.settles_open += 1;
        true
    }

    pub fn is_settled_at_the_end(&self) -> bool {
        self.settles_finally && self.settles_open == 0
    }

    pub fn is_drained(&self) -> bool {
        self.replayed == self.received()
    }

    pub fn forgive(&mut self, pause: Duration) {
        self.silence.forgive(pause);
        self.last_record += pause;
    }

    /// False: the machine is beyond the log.
    #[must_use]
    pub fn replayed(&mut self, record: RecordNumber, executed: InstructionCount) -> bool {
        if executed > self.log.end().count {
            return false;
        }
        assert!(
            record <= self.received(),
            "records are received before they are replayed"
        );
        assert!(record >= self.replayed, "replay goes forward");
        self.replayed = record;
        self.executed = executed;
        true
    }

    pub fn keep(&mut self, visible_outputs: u64, outputs: Vec<O>) {
        if visible_outputs > self.released {
            self.kept.push_back((visible_outputs, outputs));
        }
    }

    /// The machine is right, and the primary's is wrong: the log is of use only to whoever has this state,
    /// of this digest, at this place. What the disk is worth has to be said again.
    pub fn stop_comparing(&mut self, digest: u128) {
        self.is_uncompared = true;
        self.settling = false;
        let end = self.log.end();
        let mark = end.mark.uncompared(digest);
        self.log = LifeLog::from(Place { mark, ..end }, self.log.limit());
    }

    /// The log, and the outputs that the primary may not have sent.
    pub fn into_log_and_outputs(mut self) -> (LifeLog, Vec<O>) {
        assert!(self.has_begun(), "only a member goes live");
        assert!(
            self.differs.is_none(),
            "only a machine that is right goes live"
        );
        let end = self.log.end();
        if self.is_uncompared && self.executed < end.count {
            // It idled where the other did not: nobody stands at that place of the log.
            let (count, mark) = (self.executed, end.mark.uncompared(self.executed.0.into()));
            self.log = LifeLog::from(Place { count, mark, ..end }, self.log.limit());
        }
        let kept = self.kept.into_iter().flat_map(|(_, outputs)| outputs);
        (self.log, kept.collect())
    }

    pub fn describe(&self, status: &mut BackupStatus) {
        status.pairing = self.pairing;
        status.generation = self.opened.next_generation();
        status.arbiter = self.beacon.agreement;
        status.settled = self.settled;
        status.executed = self.executed;
        status.received_count = self.log.end().count;
        status.backlog_records = self.backlog();
        status.restored = self.restored;
        status.kept_outputs = self.kept.iter().map(|(_, outputs)| outputs.len()).sum();
    }

    pub fn deadline(&self, detector: &DetectorConfig) -> Duration {
        let reading = self.reading.as_ref().and_then(KeyRead::deadline);
        let beacon = self.has_begun().then(|| self.beacon.deadline()).flatten();
        [reading, beacon]
            .into_iter()
            .flatten()
            .fold(self.heartbeat_deadline(detector), Duration::min)
            .min(self.silence.deadline())
    }

    pub fn suspicion(&self, now: Duration) -> Option<Suspicion> {
        let records_stopped = self.has_begun()
            && self
                .record_timeout
                .is_some_and(|timeout| now >= self.last_record + timeout);
        if self.silence.is_silent(now) {
            Some(Suspicion::Silent)
        } else if records_stopped {
            Some(Suspicion::NoRecords)
        } else {
            None
        }
    }

    /// What was asked for by [`Message::Compare`], once.
    fn compared(&mut self) -> Option<Message> {
        let (pairing, replayed) = (self.pairing, self.replayed);
        let record = self.compares_at.take_if(|at| *at <= replayed)?;
        Some(Message::Compared { pairing, record })
    }

    /// Whether this host could go on in the primary's place, when that has changed.
    fn tell_trouble(&mut self, trouble: Option<&String>) -> Option<Message> {
        if self.told_trouble.as_ref() == trouble {
            return None;
        }
        self.told_trouble = trouble.cloned();
        Some(Message::Sees {
            pairing: self.pairing,
            nonce: OF_ITS_HOST,
            trouble: trouble.cloned().unwrap_or_default(),
        })
    }

    pub fn ack_if_due(&mut self, now: Duration, detector: &DetectorConfig) -> Option<Message> {
        let since = now.saturating_sub(self.last_sent);
        let due = self
            .ack_due
            .is_some_and(|due| now >= due || self.is_drained())
            || since >= detector.heartbeat_interval
            || (self.executed > self.told_executed && since >= PROGRESS_INTERVAL);
        due.then(|| self.ack(now))
    }

    fn ack(&mut self, now: Duration) -> Message {
        self.ack_due = None;
        self.last_sent = now;
        self.told_executed = self.executed;
        // What waits for the restore is held by nobody who could take over, and has to be bounded: the
        // primary is slowed by what is not acknowledged.
        let is_held = self.phase != Phase::Restoring;
        Message::Ack {
            pairing: self.pairing,
            record: if is_held {
                self.received().plus(self.overlooked)
            } else {
                RecordNumber::BEFORE_ALL
            },
            executed: self.executed,
            echo: self.echo,
            durable: self.durable,
        }
    }

    fn release(&mut self, released: u64) {
        self.released = self.released.max(released);
        while self
            .kept
            .front()
            .is_some_and(|(visible, _)| *visible <= self.released)
        {
            self.kept.pop_front();
        }
    }

    /// Checks that nothing is missing and nothing comes twice.
    fn take_records(
        &mut self,
        now: Duration,
        first_record: RecordNumber,
        records: &[Record],
        mutations: &Mutations,
    ) -> Result<(), &'static str> {
        if matches!(self.phase, Phase::Marking | Phase::Fetching) {
            return Err("records before the snapshot");
        }
        let look = !mutations.active(Mutation::GapUnnoticed);
        if mutations.active(Mutation::SkipsWhatItLacks) && first_record > self.received() {
            let place = Place {
                record: first_record.before().unwrap_or_default(),
                ..self.log.end()
            };
            self.log = LifeLog::from(place, 0);
        }
        if first_record != self.received().next() && look {
            return Err("records are missing or come twice");
        }
        let Some(first) = records.first() else {
            return Err("a batch without records");
        };
        let falls = first.count < self.log.end().count
            || records.windows(2).any(|pair| pair[0].count > pair[1].count);
        if falls {
            return Err("instruction counts fall");
        }
        for record in records {
            self.log.push(record.clone());
        }
        self.log.forget_beyond_limit(self.received());
        let (last, received) = (first_record.plus(records.len() as u64 - 1), self.received());
        self.overlooked = last.max(received).since(received);
        self.last_record = now;
        Ok(())
    }
}
