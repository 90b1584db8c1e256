//! The journal: outputs wait until it is durable, by a key, and stop waiting by a key.

use crate::pair::{Pair, ms};
use crate::support::{Store, config, power_on};
use replication::backup::Backup;
use replication::config::{JournalRole, PairConfig};
use replication::event::Event;
use replication::life_log::LifeLog;
use replication::primary::{
    Beginning, JournalPhase, JournalStart, Primary, PrimaryAction, PrimaryPhase, StoredRecords,
};
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use replication::succession::{JournalId, Kind, Request};
use std::time::Duration;

/// A primary with a journal, and what it wanted of the program.
struct Journaled {
    now: Duration,
    primary: Primary<u32>,
    store: Store,
    /// The arbiter answers.
    answers: bool,
    /// The journal is durable at once.
    is_durable: bool,
    asked: Vec<Request>,
    emitted: Vec<u32>,
    begun: Vec<JournalId>,
    start: Option<JournalStart>,
    stored: Vec<StoredRecords>,
    /// Snapshots that may be found.
    counted: usize,
    events: Vec<Event>,
    visible: u64,
}

fn journaled(role: JournalRole) -> PairConfig {
    PairConfig {
        journal: role,
        ..config("a")
    }
}

impl Journaled {
    fn new(role: JournalRole) -> Journaled {
        let config = journaled(role);
        let opened = power_on(&config);
        let store = Store::with(&opened);
        let beginning = Beginning::from_disk(opened, &config);
        let mut journaled = Journaled {
            now: Duration::ZERO,
            primary: Primary::new(Duration::ZERO, config, beginning),
            store,
            answers: true,
            is_durable: true,
            asked: Vec::new(),
            emitted: Vec::new(),
            begun: Vec::new(),
            start: None,
            stored: Vec::new(),
            counted: 0,
            events: Vec::new(),
            visible: 0,
        };
        journaled.settle();
        journaled
    }

    /// In force, and from here on the test says what is durable and when the arbiter answers.
    fn in_force() -> Journaled {
        let mut journaled = Journaled::new(JournalRole::Member);
        let id = journaled.begun[0];
        journaled.primary.journal_has_snapshot(journaled.now, id);
        journaled.settle();
        assert_eq!(journaled.phase(), Some(JournalPhase::InForce));
        (journaled.is_durable, journaled.answers) = (false, false);
        journaled
    }

    fn settle(&mut self) {
        while let Some(action) = self.primary.next_action() {
            match action {
                PrimaryAction::Settle(_) => self.primary.settled(self.now),
                PrimaryAction::Ask(request) => {
                    self.asked.push(request);
                    self.answer();
                }
                PrimaryAction::BeginJournal { id, snapshot } => {
                    self.begun.push(id);
                    let count = self.primary.status().instruction_count;
                    self.primary.snapshot_taken(self.now, snapshot, count);
                }
                PrimaryAction::JournalFrom(start) => self.start = Some(start),
                PrimaryAction::JournalSnapshotCounts { id } => {
                    assert_eq!(self.begun.last(), Some(&id));
                    self.counted += 1;
                }
                PrimaryAction::Store { id, batches } => {
                    assert_eq!(self.begun.last(), Some(&id));
                    self.stored.extend(batches);
                    if self.is_durable {
                        self.all_is_durable();
                    }
                }
                PrimaryAction::Emit(outputs) => self.emitted.extend(outputs),
                PrimaryAction::Report(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    fn answer(&mut self) {
        if self.answers {
            for request in std::mem::take(&mut self.asked) {
                let outcome = self.store.carry_out(&request);
                self.primary.arbiter_answered(self.now, &request, &outcome);
            }
        }
    }

    fn last_stored(&self) -> RecordNumber {
        let last = self.stored.last();
        last.map(StoredRecords::last_record).unwrap_or_default()
    }

    fn all_is_durable(&mut self) {
        let (id, last) = (self.begun[self.begun.len() - 1], self.last_stored());
        self.primary.journal_durable(self.now, id, last);
    }

    fn phase(&self) -> Option<JournalPhase> {
        self.primary.journal().map(|journal| journal.phase)
    }

    /// The guest says something.
    fn output(&mut self) {
        self.visible += 1;
        let count = self.primary.status().instruction_count.plus(10);
        let (visible, output) = (self.visible, vec![self.visible as u32]);
        self.primary.outputs(self.now, count, visible, output);
        self.settle();
    }

    fn after(&mut self, milliseconds: u64) {
        self.now += ms(milliseconds);
        self.primary.tick(self.now);
        self.settle();
    }

    /// The newest key at the arbiter.
    fn newest_kind_and_journal(&self) -> (Kind, Option<JournalId>) {
        let (key, content) = self.store.keys.last_key_value().unwrap();
        let entry = replication::succession::Entry::parse(key, content).unwrap();
        (entry.kind, entry.membership().journal)
    }
}

#[test]
fn an_output_leaves_when_its_marker_is_durable_and_many_share_one_sync() {
    let mut journaled = Journaled::in_force();
    let status = journaled.primary.status();
    assert!(status.protected && status.phase == PrimaryPhase::Alone);
    for _ in 0..3 {
        journaled.output();
    }
    assert!(journaled.emitted.is_empty());
    let (id, last) = (journaled.begun[0], journaled.last_stored());
    // The first two are durable, then all.
    let now = journaled.now;
    journaled
        .primary
        .journal_durable(now, id, last.before().unwrap());
    journaled.settle();
    assert_eq!(journaled.emitted, [1, 2]);
    journaled.all_is_durable();
    journaled.settle();
    assert_eq!(journaled.emitted, [1, 2, 3]);
}

#[test]
fn the_key_is_asked_for_when_everything_is_durable_that_left_before() {
    let mut journaled = Journaled::new(JournalRole::Member);
    journaled.is_durable = false;
    let (id, now) = (journaled.begun[0], journaled.now);
    // Nothing waits for it yet.
    journaled.output();
    assert_eq!(journaled.emitted, [1]);
    journaled.primary.journal_has_snapshot(now, id);
    journaled.settle();
    assert_eq!(journaled.phase(), Some(JournalPhase::Ready));
    assert_eq!(journaled.newest_kind_and_journal(), (Kind::PowerOn, None));
    journaled.output();
    assert_eq!(
        journaled.emitted,
        [1],
        "what left before is not durable yet"
    );
    journaled.all_is_durable();
    journaled.settle();
    assert_eq!(journaled.phase(), Some(JournalPhase::InForce));
    assert_eq!(
        journaled.newest_kind_and_journal(),
        (Kind::Joined, Some(id))
    );
    assert_eq!(journaled.emitted, [1, 2]);
    let stored = journaled.stored.iter().map(|stored| stored.first_record);
    let begins_at = journaled.start.unwrap().place.record.next();
    assert!(stored.eq([begins_at, begins_at.next()]));
}

#[test]
fn without_its_journal_nothing_leaves_until_a_key_says_that_it_may() {
    let mut journaled = Journaled::in_force();
    let (id, now) = (journaled.begun[0], journaled.now);
    journaled.output();
    journaled.primary.journal_failed(now, id, "no space".into());
    journaled.settle();
    journaled.output();
    assert!(journaled.emitted.is_empty() && !journaled.primary.status().protected);
    assert!(journaled.events.iter().any(|event| matches!(
        event,
        Event::JournalFailed { why, .. } if why == "no space"
    )));
    journaled.answers = true;
    journaled.answer();
    journaled.settle();
    assert_eq!(journaled.newest_kind_and_journal(), (Kind::Dropped, None));
    assert_eq!(journaled.emitted, [1, 2]);
    journaled.output();
    assert_eq!(journaled.emitted, [1, 2, 3]);
    // Another one is begun when it is time.
    journaled.after(9_000);
    assert_eq!(journaled.begun.len(), 1);
    journaled.after(2_000);
    assert_eq!(journaled.begun.len(), 2);
    assert_ne!(journaled.begun[1], id);
}

#[test]
fn a_journal_that_hangs_has_failed() {
    let mut journaled = Journaled::in_force();
    journaled.output();
    journaled.after(50);
    assert_eq!(journaled.phase(), Some(JournalPhase::InForce));
    for _ in 0..200 {
        journaled.after(50);
    }
    assert_eq!(journaled.phase(), None);
    assert!(journaled.emitted.is_empty());
}

/// Finding: a bucket behind a slow network was given up after 10 s, though it took what was put there.
#[test]
fn a_journal_that_is_slow_and_gets_on_has_not_failed_and_one_that_stops_has() {
    let mut journaled = Journaled::in_force();
    let id = journaled.begun[0];
    journaled.output();
    let wait = |journaled: &mut Journaled, times: u32| {
        for _ in 0..times {
            journaled.after(50);
        }
    };
    for _ in 0..10 {
        wait(&mut journaled, 100);
        assert_eq!(journaled.phase(), Some(JournalPhase::InForce));
        journaled.primary.journal_moves(journaled.now, id);
    }
    assert!(journaled.emitted.is_empty(), "it is not durable");
    // What another one does is nothing to this one.
    wait(&mut journaled, 190);
    journaled.primary.journal_moves(journaled.now, JournalId(3));
    assert_eq!(journaled.phase(), Some(JournalPhase::InForce));
    wait(&mut journaled, 20);
    assert_eq!(journaled.phase(), None);
    assert!(journaled.emitted.is_empty());
}

/// The key may have landed although the answer was lost.
#[test]
fn a_journal_that_fails_while_its_key_is_asked_for_is_dropped_by_the_next() {
    let mut journaled = Journaled::new(JournalRole::Member);
    let (id, now) = (journaled.begun[0], journaled.now);
    journaled.answers = false;
    journaled.primary.journal_has_snapshot(now, id);
    journaled.settle();
    assert_eq!(journaled.phase(), Some(JournalPhase::Claiming));
    journaled.primary.journal_failed(now, id, "gone".into());
    journaled.output();
    assert!(journaled.emitted.is_empty());
    journaled.answers = true;
    journaled.answer();
    journaled.settle();
    assert_eq!(journaled.newest_kind_and_journal(), (Kind::Dropped, None));
    assert_eq!(journaled.emitted, [1]);
}

#[test]
fn nothing_waits_for_a_journal_that_only_keeps_the_history() {
    let mut journaled = Journaled::new(JournalRole::History);
    journaled.is_durable = false;
    let (id, now) = (journaled.begun[0], journaled.now);
    journaled.primary.journal_has_snapshot(now, id);
    journaled.settle();
    assert_eq!(journaled.phase(), Some(JournalPhase::Kept));
    journaled.output();
    assert_eq!(journaled.emitted, [1]);
    assert!(!journaled.primary.status().protected);
    journaled.primary.journal_failed(now, id, "gone".into());
    journaled.output();
    assert_eq!(journaled.emitted, [1, 2]);
    assert_eq!(journaled.newest_kind_and_journal(), (Kind::PowerOn, None));
}

/// Finding: while the answer about a key was lost another snapshot became whole, and then the host died. Who went on from that
/// snapshot never said what had waited when it was taken.
#[test]
fn a_snapshot_counts_when_all_that_was_said_before_it_has_left() {
    let mut journaled = Journaled::in_force();
    assert_eq!(journaled.counted, 1, "nothing was said before the first");
    let now = journaled.now;
    journaled.output();
    assert!(journaled.primary.renew_journal(now));
    journaled.settle();
    let start = journaled.start.unwrap();
    assert_eq!(start.visible_outputs, 1, "it is begun at once");
    journaled.output();
    assert_eq!(journaled.counted, 1);
    let (id, last) = (journaled.begun[0], journaled.last_stored());
    journaled
        .primary
        .journal_durable(now, id, last.before().unwrap());
    journaled.settle();
    assert_eq!(
        (journaled.emitted.as_slice(), journaled.counted),
        (&[1][..], 2)
    );
    // What is said after it is said again by whoever goes on from it.
    journaled.all_is_durable();
    journaled.settle();
    assert_eq!(
        (journaled.emitted.as_slice(), journaled.counted),
        (&[1, 2][..], 2)
    );
}

/// Records that nothing waits for are stored all the same, together.
#[test]
fn what_no_output_waits_for_is_stored_soon() {
    let mut journaled = Journaled::in_force();
    let before = journaled.stored.len();
    for count in [100, 200] {
        let body = RecordBody::Input(vec![7; 100]);
        journaled.primary.record(
            journaled.now,
            Record {
                count: InstructionCount(count),
                body,
            },
        );
        journaled.settle();
    }
    assert_eq!(journaled.stored.len(), before);
    journaled.after(250);
    let stored = &journaled.stored[before..];
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].records.len(), 2);
}

#[test]
fn a_machine_that_went_on_from_its_store_beside_it_from_the_first_output_on() {
    let before = Journaled::in_force();
    let config = journaled(JournalRole::Member);
    let (key, content) = before.store.keys.last_key_value().unwrap();
    let opened = replication::succession::Entry::parse(key, content).unwrap();
    let place = before.start.unwrap().place;
    let next = opened.membership().clone();
    let record = place.record.next();
    let won = opened.left(config.writer(), Kind::Recovered, record, Some(next));
    let mut primary = Primary::<u32>::new(
        Duration::ZERO,
        config.clone(),
        Beginning {
            opened: won,
            log: LifeLog::from(place, config.log_bytes),
            count: place.count.plus(50),
            visible_outputs: 3,
        },
    );
    primary.settled(Duration::ZERO);
    assert!(primary.status().protected);
    primary.outputs(Duration::ZERO, place.count.plus(60), 4, vec![4]);
    let mut stored = None;
    while let Some(action) = primary.next_action() {
        assert!(!matches!(action, PrimaryAction::Emit(_)));
        if let PrimaryAction::Store { id, batches } = action {
            stored = Some((id, batches[0].first_record));
        }
    }
    assert_eq!(stored, Some((before.begun[0], place.record.next())));
    let (id, last) = stored.unwrap();
    primary.journal_durable(Duration::ZERO, id, last);
    let is_out = |action| matches!(action, PrimaryAction::Emit(outputs) if outputs == [4]);
    assert!(std::iter::from_fn(|| primary.next_action()).any(is_out));
}

/// Outputs wait for both, and what the key says of the journal stays when members come and go.
#[test]
fn with_a_backup_outputs_wait_for_both() {
    let with_journal = PairConfig {
        journal: JournalRole::Member,
        ..config("long")
    };
    let mut pair = Pair::new(with_journal, config("b"));
    pair.settle();
    let begun = pair.primary_did.iter().find_map(|action| match action {
        PrimaryAction::BeginJournal { id, snapshot } => Some((*id, *snapshot)),
        _ => None,
    });
    let (id, snapshot) = begun.unwrap();
    // Until it has its snapshot nobody joins.
    pair.run(ms(100));
    let refused = pair
        .primary_did
        .iter()
        .any(|action| matches!(action, PrimaryAction::Report(Event::RefusedBackup { .. })));
    assert!(refused && pair.primary.status().phase == PrimaryPhase::Alone);
    let count = pair.primary.status().instruction_count;
    pair.primary.snapshot_taken(pair.now, snapshot, count);
    pair.primary.journal_has_snapshot(pair.now, id);
    pair.settle();
    let durable = |pair: &mut Pair| {
        let last = pair.primary.status().record;
        pair.primary.journal_durable(pair.now, id, last);
        pair.settle();
    };
    let opened = pair.primary.opened().clone();
    assert_eq!(opened.membership().journal, Some(id));
    pair.backup = Backup::new(pair.now, config("b"), opened, None);
    pair.connected = false;
    pair.settle();
    pair.run(ms(100));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Paired);
    let joined = pair.primary.opened().membership();
    assert_eq!((joined.members.len(), joined.journal), (1, Some(id)));
    pair.output(count.0 + 10, 1);
    assert!(pair.emitted.is_empty(), "the backup alone is not enough");
    durable(&mut pair);
    assert_eq!(pair.emitted, [1]);
    // Without the backup the journal stays, by the key.
    pair.primary.disconnected(pair.now, crate::pair::WIRE);
    pair.settle();
    let dropped = pair.primary.opened().membership();
    assert_eq!((dropped.members.len(), dropped.journal), (0, Some(id)));
    pair.output(count.0 + 20, 2);
    assert_eq!(pair.emitted, [1]);
    durable(&mut pair);
    assert_eq!(pair.emitted, [1, 2]);
}

/// Finding of the simulator: an output that a slow journal held up when the snapshot was taken was never
/// said by a backup that took over.
#[test]
fn nobody_becomes_a_member_before_everything_has_left_that_precedes_its_snapshot() {
    let with_journal = PairConfig {
        journal: JournalRole::Member,
        ..config("long")
    };
    let mut pair = Pair::new(with_journal, config("b"));
    pair.settle();
    let begun = pair.primary_did.iter().find_map(|action| match action {
        PrimaryAction::BeginJournal { id, snapshot } => Some((*id, *snapshot)),
        _ => None,
    });
    let (id, snapshot) = begun.unwrap();
    pair.primary
        .snapshot_taken(pair.now, snapshot, InstructionCount::POWER_ON);
    pair.primary.journal_has_snapshot(pair.now, id);
    pair.settle();
    pair.output(10, 1);
    let opened = pair.primary.opened().clone();
    pair.backup = Backup::new(pair.now, config("b"), opened, None);
    pair.connected = false;
    pair.settle();
    pair.run(ms(100));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Joining);
    let last = pair.primary.status().record;
    pair.primary.journal_durable(pair.now, id, last);
    pair.settle();
    assert_eq!(pair.emitted, [1]);
    pair.run(ms(100));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Paired);
}

/// Another snapshot is taken at a place of the log: what is before it was handed over before, and what
/// follows after.
#[test]
fn a_journal_goes_on_from_another_snapshot_without_a_gap() {
    let mut journaled = Journaled::in_force();
    let id = journaled.begun[0];
    let body = RecordBody::Input(vec![7; 100]);
    journaled.primary.record(
        journaled.now,
        Record {
            count: InstructionCount(50),
            body,
        },
    );
    journaled.settle();
    let (before, now) = (journaled.last_stored(), journaled.now);
    assert!(journaled.primary.renew_journal(now));
    assert!(!journaled.primary.renew_journal(now), "one at a time");
    journaled.settle();
    assert_eq!(journaled.begun, [id, id]);
    let start = journaled.start.unwrap();
    assert_eq!((start.id, start.place.record), (id, before.next()));
    assert_eq!(journaled.last_stored(), before.next());
    journaled.output();
    assert!(journaled.emitted.is_empty(), "it is in force all the while");
    journaled.all_is_durable();
    journaled.settle();
    assert_eq!(journaled.emitted, [1]);
    journaled.primary.journal_has_snapshot(now, id);
    assert!(journaled.primary.renew_journal(now));
    assert_eq!(journaled.phase(), Some(JournalPhase::InForce));
}
