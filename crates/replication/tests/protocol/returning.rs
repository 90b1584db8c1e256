//! A host that comes back within what the log still knows goes on without a copy.
//! `docs/protocol.md`, "One log, many followers".

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::ConnectionId;
use replication::backup::{Backup, BackupAction, BackupPhase};
use replication::capacity::HostFacts;
use replication::event::Event;
use replication::life_log::LogMark;
use replication::message::{Continuation, Message, PROTOCOL_VERSION, Standpoint};
use replication::primary::{PrimaryAction, PrimaryPhase};
use replication::record::{InstructionCount, RecordNumber};
use replication::succession::{Entry, Generation, Outcome};
use std::time::Duration;

/// A protected pair whose connection has ended, the primary having won the generation; the backup
/// has lost its claim.
fn parted(records: u64) -> Pair {
    let mut pair = Pair::protected();
    for record in 1..=records {
        pair.input(record * 10);
    }
    pair.run(ms(50));
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.primary.disconnected(pair.now, WIRE);
    pair.settle();
    pair.answer_primary(Outcome::Created);
    pair.input(records * 10 + 10);
    pair.output(records * 10 + 20, 1);
    assert_eq!(pair.emitted, [1], "it goes on alone");
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    let dropped = pair.primary.opened().content();
    pair.answer_backup(Outcome::NotCreated);
    pair.answer_backup(Outcome::Holds(dropped.clone()));
    pair.store
        .keys
        .insert(pair.primary.opened().key.clone(), dropped);
    pair
}

/// The backup's next attempt, with the machine of before.
fn come_back(pair: &mut Pair, config: replication::config::PairConfig) {
    let held = pair.backup.take_held();
    assert!(held.is_some(), "a machine that is superseded is kept");
    let newest = pair.primary.opened().clone();
    pair.backup = Backup::new(pair.now, config, newest, held);
    (pair.to_backup, pair.to_primary) = (true, true);
    pair.answers = true;
    pair.connected = false;
    pair.backup_did.clear();
    pair.primary_did.clear();
    pair.settle();
}

fn snapshots(pair: &Pair) -> usize {
    let is_one =
        |action: &&PrimaryAction<u32>| matches!(action, PrimaryAction::TakeSnapshot { .. });
    pair.primary_did.iter().filter(is_one).count()
}

fn told(pair: &Pair) -> Option<Continuation> {
    pair.backup_did.iter().find_map(|action| match action {
        BackupAction::Report(Event::Continues { continuation, .. }) => Some(*continuation),
        _ => None,
    })
}

#[test]
fn a_backup_that_lost_its_place_goes_on_without_a_copy() {
    let mut pair = parted(20);
    come_back(&mut pair, config("b"));
    pair.run(ms(100));
    assert_eq!(told(&pair), Some(Continuation::Continues));
    assert_eq!(snapshots(&pair), 0);
    assert_eq!(pair.backup.status().phase, BackupPhase::Following);
    assert!(pair.primary.status().protected);
    assert_eq!(pair.primary.status().generation, Generation(4));
    assert_eq!(
        pair.primary.status().acknowledged,
        pair.primary.status().record
    );
    pair.output(1000, 2);
    assert_eq!(pair.emitted, [1, 2]);
}

/// The log is bounded: what was forgotten cannot be sent, and is said.
#[test]
fn a_backup_that_was_away_for_too_long_is_copied_and_told() {
    let mut pair = parted(20);
    let body = replication::record::RecordBody::Input(vec![0; 1 << 20]);
    for count in 300..400 {
        let body = body.clone();
        let record = replication::record::Record {
            count: InstructionCount(count),
            body,
        };
        pair.primary.record(pair.now, record);
    }
    assert!(pair.primary.status().log_bytes <= config("b").log_bytes);
    come_back(&mut pair, config("b"));
    assert_eq!(told(&pair), Some(Continuation::Forgotten));
    assert_eq!(snapshots(&pair), 1);
    let dropped = pair
        .backup_did
        .iter()
        .position(|action| *action == BackupAction::DropMachine);
    let marked = pair
        .backup_did
        .iter()
        .position(|action| matches!(action, BackupAction::Mark(_)));
    assert!(dropped.is_some() && dropped < marked);
}

fn answer_to(pair: &mut Pair, stands_at: Standpoint) -> Continuation {
    let hello = Message::Hello {
        protocol: PROTOCOL_VERSION,
        greeting: config("b").greeting,
        is_spare: false,
        stands_at: Some(stands_at),
        facts: HostFacts::default(),
        boot: Default::default(),
    };
    pair.primary.received(pair.now, ConnectionId(7), hello);
    let welcome =
        std::iter::from_fn(|| pair.primary.next_action()).find_map(|action| match action {
            PrimaryAction::Send {
                message: Message::Welcome { continuation, .. },
                ..
            } => Some(continuation),
            _ => None,
        });
    pair.primary.disconnected(pair.now, ConnectionId(7));
    pair.settle();
    welcome.expect("it is welcome")
}

/// Same number, another history; a longer one; another life: no prefix is proven.
#[test]
fn a_machine_goes_on_only_if_its_log_is_proven_to_be_a_prefix() {
    let mut pair = parted(5);
    let here = pair.primary.status();
    let place = replication::life_log::Place {
        record: here.record,
        count: here.instruction_count,
        mark: LogMark(1),
    };
    let life_id = pair.primary.opened().life;
    let standpoint = Standpoint { life_id, place };
    assert_eq!(answer_to(&mut pair, standpoint), Continuation::Differs);
    let mut longer = standpoint;
    longer.place.record = longer.place.record.next();
    assert_eq!(answer_to(&mut pair, longer), Continuation::Differs);
    let mut other_life = standpoint;
    other_life.life_id.0 ^= 1;
    assert_eq!(answer_to(&mut pair, other_life), Continuation::Differs);
}

/// A member that had not heard yet that its primary went on in another generation, with it, asks for
/// the key of that generation instead.
#[test]
fn a_member_that_is_kept_by_the_key_that_it_lost_to_claims_the_next() {
    let mut pair = Pair::protected();
    pair.run(ms(50));
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    let opened = pair.primary.opened().clone();
    let writer = config("long").writer();
    let next = opened.membership().clone();
    let record = RecordNumber(1);
    let dropped = opened.left(
        writer,
        replication::succession::Kind::Dropped,
        record,
        Some(next),
    );
    pair.answer_backup(Outcome::NotCreated);
    pair.answer_backup(Outcome::Holds(dropped.content()));
    pair.run(Duration::from_millis(5));
    assert_eq!(pair.backup.status().phase, BackupPhase::Claiming);
    let asks = pair.backup_asks();
    let Some(replication::succession::Request::Create { key, content, .. }) = asks.last() else {
        panic!("{asks:?}")
    };
    assert_eq!(*key, dropped.next_key());
    let entry = Entry::parse(key, content).expect("its own claim");
    assert_eq!(entry.next_generation(), Generation(4));
    assert_ne!(pair.primary.status().phase, PrimaryPhase::Stopped);
}
