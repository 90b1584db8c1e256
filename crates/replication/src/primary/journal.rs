//! The journal: a follower that stores. `docs/protocol.md`, "The journal".
//!
//! It becomes a member by a key, as a backup does, and stops being one by a key. From the moment at
//! which that key is asked for until another one says that it is none any more, no output leaves
//! before it is durable there.

use super::{Primary, PrimaryAction, State};
use crate::config::JournalRole;
use crate::event::Event;
use crate::lag::Pressure;
use crate::life_log::{LifeLog, Place};
use crate::message::LifeId;
use crate::mutation::Mutation;
use crate::record::{Record, RecordNumber};
use crate::succession::{Generation, Host, JournalId, Kind, LifeNumber, Membership};
use std::collections::VecDeque;
use std::time::Duration;

/// Records that no output waits for are stored together so long after the first of them…
const BATCH_DELAY: Duration = Duration::from_millis(250);
/// …or when there are so many bytes of them.
const BATCH_BYTES: usize = 256 << 10;
/// Records are handed over in pieces of about so many bytes.
const PIECE_BYTES: usize = 1 << 20;
/// The primary is slowed when more bytes than this are not yet durable.
const BACKLOG_BYTES: usize = 16 << 20;
/// Another one is begun so long after one that failed; twice as long after each that follows.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Records to be stored, and what is to be known about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecords {
    /// Number of the first.
    pub first_record: RecordNumber,
    /// Visible outputs that had left when they were handed over.
    pub released: u64,
    /// The records, at least one.
    pub records: Vec<Record>,
}

impl StoredRecords {
    /// Number of the last.
    ///
    /// # Panics
    /// There are none.
    pub fn last_record(&self) -> RecordNumber {
        assert!(!self.records.is_empty(), "at least one record is stored");
        self.first_record.plus(self.records.len() as u64 - 1)
    }
}

/// Where a journal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStart {
    /// Which.
    pub id: JournalId,
    /// The life.
    pub life: LifeNumber,
    /// That life's identity.
    pub life_id: LifeId,
    /// The generation.
    pub generation: Generation,
    /// Where its snapshot was taken.
    pub place: Place,
    /// Visible outputs up to there.
    pub visible_outputs: u64,
}

/// How far a journal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalPhase {
    /// The vcpu was asked for a snapshot.
    AwaitSnapshot,
    /// The snapshot is being written; records are stored meanwhile.
    Storing,
    /// Outputs wait for it, and what left before is being made durable.
    Ready,
    /// The arbiter is asked for the key that makes it a member.
    Claiming,
    /// Outputs wait for it by a key: the machine can go on from it.
    InForce,
    /// It keeps the history, and nothing waits for it.
    Kept,
}

/// A look at a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStatus {
    /// Which.
    pub id: JournalId,
    /// How far it has come.
    pub phase: JournalPhase,
    /// Number of the last record that is durable.
    pub durable: RecordNumber,
    /// Bytes of records that are not, about.
    pub bytes_waiting: usize,
}

/// Records that were handed over and are not known to be durable.
#[derive(Clone, Copy, Debug)]
struct Handed {
    last: RecordNumber,
    bytes: usize,
    at: Duration,
}

/// The journal that is being kept.
#[derive(Debug)]
pub(super) struct Journal {
    id: JournalId,
    phase: JournalPhase,
    /// The number of its newest snapshot for the vcpu.
    snapshot: u64,
    /// Another snapshot is being taken, by which older records are not needed any more.
    is_renewed: bool,
    /// The visible outputs before its newest snapshot, until they have left.
    awaited_outputs: Option<u64>,
    sent: RecordNumber,
    unsent_bytes: usize,
    unsent_since: Option<Duration>,
    /// Bytes that are stored beside the records that were not handed over.
    beside_bytes: usize,
    handed: VecDeque<Handed>,
    handed_bytes: usize,
    durable: RecordNumber,
    /// When something became durable last, or was on its way to that.
    moved: Duration,
    /// The last record made before outputs began to wait: with it everything is durable that left.
    left_at: RecordNumber,
}

impl Journal {
    fn begin(id: JournalId, snapshot: u64) -> Journal {
        Journal {
            id,
            phase: JournalPhase::AwaitSnapshot,
            snapshot,
            is_renewed: false,
            awaited_outputs: None,
            sent: RecordNumber::BEFORE_ALL,
            unsent_bytes: 0,
            unsent_since: None,
            beside_bytes: 0,
            handed: VecDeque::new(),
            handed_bytes: 0,
            durable: RecordNumber::BEFORE_ALL,
            moved: Duration::ZERO,
            left_at: RecordNumber::BEFORE_ALL,
        }
    }

    /// One that a machine goes on from: everything up to `last` is durable there.
    pub fn went_on(id: JournalId, last: RecordNumber) -> Journal {
        Journal {
            phase: JournalPhase::InForce,
            sent: last,
            durable: last,
            ..Journal::begin(id, 0)
        }
    }

    fn is_storing(&self) -> bool {
        self.phase != JournalPhase::AwaitSnapshot
    }

    /// Whether outputs wait for it.
    fn is_waited_for(&self) -> bool {
        matches!(
            self.phase,
            JournalPhase::Ready | JournalPhase::Claiming | JournalPhase::InForce
        )
    }

    /// The log has grown by a record of so many bytes. Gives what it was handed last, if it needs what
    /// follows.
    pub fn grown(&mut self, now: Duration, bytes: usize) -> Option<RecordNumber> {
        if !self.is_storing() {
            return None;
        }
        self.unsent_bytes += bytes;
        self.unsent_since.get_or_insert(now);
        Some(self.sent)
    }

    fn batch_deadline(&self) -> Option<Duration> {
        let since = self.unsent_since?;
        let is_full = self.unsent_bytes >= BATCH_BYTES;
        Some(if is_full { since } else { since + BATCH_DELAY })
    }

    /// A place that is slow is not dead: it is late when for so long nothing of what was handed over got on.
    fn lateness_deadline(&self, timeout: Duration) -> Option<Duration> {
        let oldest = self.handed.front()?;
        Some(oldest.at.max(self.moved) + timeout)
    }

    fn take(&mut self, now: Duration, log: &LifeLog, released: u64) -> Vec<StoredRecords> {
        let mut batches = Vec::new();
        let mut unsent = log.after(self.sent).peekable();
        while unsent.peek().is_some() {
            let first_record = self.sent.next();
            let (mut bytes, mut records) = (std::mem::take(&mut self.beside_bytes), Vec::new());
            let limit = bytes + PIECE_BYTES;
            while let Some((record, size)) = unsent.next_if(|_| bytes < limit) {
                bytes += size;
                records.push(record.clone());
            }
            self.sent = self.sent.plus(records.len() as u64);
            self.handed_bytes += bytes;
            self.handed.push_back(Handed {
                last: self.sent,
                bytes,
                at: now,
            });
            batches.push(StoredRecords {
                first_record,
                released,
                records,
            });
        }
        assert!(self.sent == log.last(), "all of the log was handed over");
        self.unsent_bytes = 0;
        self.unsent_since = None;
        batches
    }

    fn durable_up_to(&mut self, now: Duration, record: RecordNumber) {
        assert!(
            (self.durable..=self.sent).contains(&record),
            "what is durable was handed over, and stays"
        );
        self.durable = record;
        self.moved = now;
        while let Some(handed) = self.handed.pop_front_if(|handed| handed.last <= record) {
            assert!(handed.bytes <= self.handed_bytes, "its bytes were counted");
            self.handed_bytes -= handed.bytes;
        }
    }

    /// This process did not run: what is under way is not late.
    pub fn forgive(&mut self, pause: Duration) {
        for handed in &mut self.handed {
            handed.at += pause;
        }
        self.moved += pause;
    }

    fn bytes_waiting(&self) -> usize {
        self.unsent_bytes + self.beside_bytes + self.handed_bytes
    }
}

/// When the next journal may be begun.
#[derive(Debug, Default)]
pub(super) struct JournalPacing {
    attempts: u64,
    due: Duration,
    wait: Option<Duration>,
}

impl JournalPacing {
    /// One failed: how long to wait before another one is begun.
    fn failed(&mut self, now: Duration) -> Duration {
        let wait = self.wait.unwrap_or(FIRST_WAIT);
        self.wait = Some((wait * 2).min(LONGEST_WAIT));
        self.due = now + wait;
        wait
    }
}

impl<O> Primary<O> {
    /// A look at the journal, if one is being kept.
    pub fn journal(&self) -> Option<JournalStatus> {
        self.journal.as_ref().map(|journal| JournalStatus {
            id: journal.id,
            phase: journal.phase,
            durable: journal.durable,
            bytes_waiting: journal.bytes_waiting(),
        })
    }

    /// So many bytes are to be stored beside the next record, by whoever stores records: they count as those do.
    /// Gives the journal, if it stores.
    pub fn store_beside(&mut self, bytes: usize) -> Option<JournalId> {
        let journal = self
            .journal
            .as_mut()
            .filter(|journal| journal.is_storing())?;
        journal.beside_bytes += bytes;
        Some(journal.id)
    }

    /// Whether no journal is kept, and no key says, or may say soon, that a machine goes on from one.
    pub fn is_without_journal(&self) -> bool {
        self.journal.is_none() && !self.is_journal_lost()
    }

    /// Whether outputs have to be durable in the journal before they leave.
    pub(super) fn waits_for_journal(&self) -> bool {
        let is_waited_for = self.journal.as_ref().is_some_and(Journal::is_waited_for);
        is_waited_for || self.is_journal_lost()
    }

    /// Whether a key says, or may say soon, that outputs wait for a journal that is kept no longer:
    /// until another one says that they do not, nothing leaves.
    pub(super) fn is_journal_lost(&self) -> bool {
        let kept = self
            .journal
            .as_ref()
            .filter(|journal| journal.is_waited_for());
        let kept = kept.map(|journal| journal.id);
        let leaving = self.leaving.as_ref().map(|claim| claim.entry());
        let next = leaving.and_then(|entry| entry.next.as_ref());
        let named = [Some(self.opened.membership()), next];
        let mut named = named.into_iter().flatten().filter_map(|next| next.journal);
        named.any(|id| Some(id) != kept)
    }

    /// Number of the last record that is durable in a journal that outputs wait for.
    pub(super) fn durable_in_journal(&self) -> Option<RecordNumber> {
        let journal = self.journal.as_ref()?;
        if self.config.mutations.active(Mutation::JournalNotWaitedFor) {
            return Some(journal.sent);
        }
        journal.is_waited_for().then_some(journal.durable)
    }

    /// The journal by which the next generation is protected, as far as is known now.
    pub(super) fn journal_of_next(&self) -> Option<JournalId> {
        let named = self.opened.membership().journal?;
        let kept = self.journal.as_ref()?;
        (kept.id == named && kept.is_waited_for()).then_some(named)
    }

    /// Whether a snapshot is being taken for it.
    pub(super) fn journal_takes_snapshot(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_some_and(|journal| {
            journal.is_renewed
                || matches!(
                    journal.phase,
                    JournalPhase::AwaitSnapshot | JournalPhase::Storing
                )
        })
    }

    /// Takes another snapshot for the journal, by which it is shorter. False: not now.
    pub fn renew_journal(&mut self, now: Duration) -> bool {
        self.enter(now);
        let may_begin = self.may_begin_journal();
        let Some(journal) = &mut self.journal else {
            return false;
        };
        let is_kept = matches!(journal.phase, JournalPhase::InForce | JournalPhase::Kept);
        if !may_begin || !is_kept || journal.is_renewed {
            return false;
        }
        self.pairing += 1;
        journal.is_renewed = true;
        journal.snapshot = self.pairing;
        let (id, snapshot) = (journal.id, journal.snapshot);
        self.actions
            .push_back(PrimaryAction::BeginJournal { id, snapshot });
        true
    }

    pub(super) fn is_journal_in_force(&self) -> bool {
        let phase = self.journal.as_ref().map(|journal| journal.phase);
        phase == Some(JournalPhase::InForce) && !self.is_journal_lost()
    }

    /// How full it is, in hundredths of what may wait.
    pub(super) fn journal_pressure(&self) -> Pressure {
        let Some(journal) = &self.journal else {
            return Pressure::default();
        };
        let percent = |value: usize, limit: usize| (value * 100 / limit.max(1)) as u64;
        let held = if journal.is_waited_for() {
            percent(self.gate.held_outputs(), self.config.lag.held_outputs)
        } else {
            0
        };
        Pressure {
            memory: percent(journal.bytes_waiting(), BACKLOG_BYTES).max(held),
            ..Pressure::default()
        }
    }

    pub(super) fn journal_deadline(&self) -> Option<Duration> {
        let Some(journal) = &self.journal else {
            let is_wanted = self.config.journal != JournalRole::None && self.may_begin_journal();
            return is_wanted.then_some(self.journal_pacing.due);
        };
        let late = journal.lateness_deadline(self.config.journal_timeout);
        // Who is not called often enough takes that for a pause of his own, and blames nobody.
        let late = late.map(|late| late.min(self.pauses.due()));
        journal.batch_deadline().into_iter().chain(late).min()
    }

    fn may_begin_journal(&self) -> bool {
        matches!(self.state, State::Running { join: None })
            && self.settled
            && !self.finishing
            && !self.stands_still
            && !self.disk_failed
            && self.leaving.is_none()
            && self.lost.is_empty()
            && !self.is_journal_lost()
    }

    pub(super) fn maintain_journal(&mut self, now: Duration) {
        let is_running = matches!(self.state, State::Running { .. });
        if self.config.journal == JournalRole::None && self.journal.is_none() || !is_running {
            return;
        }
        let Some(journal) = &self.journal else {
            if self.may_begin_journal() && now >= self.journal_pacing.due {
                self.begin_journal();
            }
            return;
        };
        let timeout = self.config.journal_timeout;
        let is_late = journal
            .lateness_deadline(timeout)
            .is_some_and(|deadline| now >= deadline);
        if is_late {
            let why = format!(
                "for {timeout:?} nothing of what was to be stored became durable, or got on"
            );
            return self.journal_lost(now, why);
        }
        if journal.batch_deadline().is_some_and(|due| now >= due) {
            self.store(now);
        }
        self.let_snapshot_count();
        self.claim_journal(now);
    }

    fn begin_journal(&mut self) {
        self.journal_pacing.attempts += 1;
        let id = JournalId::of_run(self.config.greeting.run, self.journal_pacing.attempts);
        self.pairing += 1;
        let snapshot = self.pairing;
        self.journal = Some(Journal::begin(id, snapshot));
        self.actions
            .push_back(PrimaryAction::BeginJournal { id, snapshot });
        self.report(Event::JournalBegun { id });
    }

    /// The snapshot of a journal was taken here.
    pub(super) fn journal_snapshot_taken(&mut self, now: Duration, snapshot: u64) {
        let journal = self.journal.as_ref();
        if journal.is_some_and(|journal| journal.is_renewed && journal.snapshot == snapshot) {
            // What was before it ends the segment before it.
            self.store(now);
        }
        let end = self.log.end();
        let place = Place {
            count: self.count,
            ..end
        };
        if let Some(journal) = &mut self.journal
            && (journal.is_renewed || journal.phase == JournalPhase::AwaitSnapshot)
            && journal.snapshot == snapshot
        {
            let id = journal.id;
            journal.awaited_outputs = Some(self.visible_outputs);
            if !journal.is_renewed {
                journal.phase = JournalPhase::Storing;
                journal.sent = place.record;
                journal.durable = place.record;
            }
            let start = JournalStart {
                id,
                life: self.opened.key.life,
                life_id: self.opened.life,
                generation: self.generation(),
                place,
                visible_outputs: self.visible_outputs,
            };
            self.actions.push_back(PrimaryAction::JournalFrom(start));
        }
    }

    /// What goes on from a snapshot says nothing again that was said before it. So none counts before all of that has left.
    fn let_snapshot_count(&mut self) {
        let released = self.gate.released_visible();
        let mutated = self
            .config
            .mutations
            .active(Mutation::SnapshotAheadOfOutputs);
        if let Some(journal) = &mut self.journal
            && let Some(awaited) = journal.awaited_outputs
            && (released >= awaited || mutated)
        {
            journal.awaited_outputs = None;
            let id = journal.id;
            self.actions
                .push_back(PrimaryAction::JournalSnapshotCounts { id });
        }
    }

    /// The journal has its snapshot, durably.
    pub fn journal_has_snapshot(&mut self, now: Duration, id: JournalId) {
        self.enter(now);
        let last = self.log.last();
        if let Some(journal) = &mut self.journal
            && journal.id == id
        {
            journal.is_renewed = false;
        }
        if let Some(journal) = &mut self.journal
            && journal.id == id
            && journal.phase == JournalPhase::Storing
        {
            if self.config.journal == JournalRole::Member {
                journal.phase = JournalPhase::Ready;
                journal.left_at = last;
                self.store(now);
            } else {
                journal.phase = JournalPhase::Kept;
                self.journal_pacing.wait = None;
                self.report(Event::JournalKept { id });
            }
        }
        self.maintain(now);
    }

    /// Everything up to this record is durable in the journal.
    pub fn journal_durable(&mut self, now: Duration, id: JournalId, record: RecordNumber) {
        self.enter(now);
        if let Some(journal) = &mut self.journal
            && journal.id == id
        {
            journal.durable_up_to(now, record);
            if matches!(self.state, State::Running { .. }) {
                self.release(now);
            }
        }
        self.maintain(now);
    }

    /// What was handed over is not durable, but on its way.
    pub fn journal_moves(&mut self, now: Duration, id: JournalId) {
        self.enter(now);
        if let Some(journal) = &mut self.journal
            && journal.id == id
        {
            journal.moved = now;
        }
        self.maintain(now);
    }

    /// The journal cannot be kept any further.
    pub fn journal_failed(&mut self, now: Duration, id: JournalId, why: String) {
        self.enter(now);
        if self
            .journal
            .as_ref()
            .is_some_and(|journal| journal.id == id)
        {
            self.journal_lost(now, why);
        }
        self.maintain(now);
    }

    fn journal_lost(&mut self, now: Duration, why: String) {
        let Some(journal) = self.journal.take() else {
            return;
        };
        let id = journal.id;
        let again_in = self.journal_pacing.failed(now);
        self.actions.push_back(PrimaryAction::EndJournal { id });
        self.report(Event::JournalFailed { id, why, again_in });
        self.let_out_without_journal(now);
    }

    /// No key says that outputs wait for a journal: those that did go by the others, if any.
    pub(super) fn let_out_without_journal(&mut self, now: Duration) {
        if self.leaves_at_once() && matches!(self.state, State::Running { .. }) {
            let released = self.gate.alone(now);
            self.emit(released);
        } else {
            self.release(now);
        }
    }

    /// Everything that left before is durable: the arbiter is asked to make it a member.
    fn claim_journal(&mut self, now: Duration) {
        let is_free =
            self.leaving.is_none() && self.lost.is_empty() && !self.finishing && !self.stands_still;
        let Some(journal) = &mut self.journal else {
            return;
        };
        let is_ready = journal.phase == JournalPhase::Ready && journal.durable >= journal.left_at;
        if !is_ready || !is_free {
            return;
        }
        journal.phase = JournalPhase::Claiming;
        let next = Membership {
            journal: Some(journal.id),
            ..self.opened.membership().clone()
        };
        self.leave_generation(now, Kind::Joined, Some(next));
    }

    /// The key of a generation is ours, which may be the one that makes the journal a member.
    pub(super) fn journal_key_is_there(&mut self) {
        let named = self.opened.membership().journal;
        if let Some(journal) = &mut self.journal
            && journal.phase == JournalPhase::Claiming
            && named == Some(journal.id)
        {
            journal.phase = JournalPhase::InForce;
            let id = journal.id;
            self.journal_pacing.wait = None;
            self.report(Event::JournalInForce { id });
        }
    }

    /// Hands over what was not handed over yet.
    pub(super) fn store(&mut self, now: Duration) {
        let released = self.gate.released_visible();
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.is_storing()) else {
            return;
        };
        let id = journal.id;
        let batches = journal.take(now, &self.log, released);
        if !batches.is_empty() {
            self.actions.push_back(PrimaryAction::Store { id, batches });
        }
    }

    /// Those of `left` that are still here, for a key by which the others are dropped.
    pub(super) fn without_absent(&self, left: &Membership, members: Vec<Host>) -> Membership {
        Membership {
            members,
            journal: self.journal_of_next(),
            ..left.clone()
        }
    }
}
