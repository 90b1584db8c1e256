//! Pairs that transfer state: `docs/decisions/state-transfer.md`.

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::backup::{Backup, BackupAction, BackupPhase};
use replication::config::{PairConfig, Replication};
use replication::event::Event;
use replication::message::{Continuation, Message, Refusal};
use replication::primary::PrimaryAction;
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use replication::succession::Outcome;

fn transferring(node: &str) -> PairConfig {
    let mut config = config(node);
    config.replication = Replication::StateTransfer;
    let configuration = config.greeting.configuration.clone();
    config.greeting.configuration = configuration.with("replication", "state-transfer");
    config
}

fn protected() -> Pair {
    let mut pair = Pair::new(transferring("long"), transferring("b"));
    pair.settle();
    pair.run(ms(100));
    assert!(pair.primary.status().protected);
    pair.answers = false;
    pair.primary_did.clear();
    pair.backup_did.clear();
    pair
}

fn piece(count: u64) -> Record {
    let body = RecordBody::Piece(vec![9; 100]);
    Record {
        count: InstructionCount(count),
        body,
    }
}

fn checkpoint(count: u64) -> Record {
    let body = RecordBody::Checkpoint(vec![1]);
    Record {
        count: InstructionCount(count),
        body,
    }
}

fn held(pair: &Pair) -> usize {
    let is_held = |action: &&PrimaryAction<u32>| **action == PrimaryAction::CheckpointHeld;
    pair.primary_did.iter().filter(is_held).count()
}

fn ends(pair: &Pair) -> usize {
    let is_end =
        |action: &&PrimaryAction<u32>| matches!(action, PrimaryAction::EndCheckpoints { .. });
    pair.primary_did.iter().filter(is_end).count()
}

#[test]
fn outputs_leave_when_the_checkpoint_that_contains_them_is_held() {
    let mut pair = protected();
    pair.to_primary = false;
    pair.primary.record(pair.now, piece(0));
    pair.primary.record(pair.now, piece(0));
    pair.primary.record(pair.now, checkpoint(500));
    pair.output(500, 1);
    assert_eq!(pair.replayed, RecordNumber(4), "all of it was sent");
    assert_eq!((pair.emitted.len(), held(&pair)), (0, 0));
    pair.to_primary = true;
    pair.run(ms(60));
    assert_eq!(pair.emitted, [1]);
    assert_eq!(held(&pair), 1);
    // A machine that stands still has them as well.
    pair.primary.record(pair.now, checkpoint(500));
    pair.output(500, 1);
    assert_eq!(held(&pair), 2);
}

/// What a backup holds and has not applied is what a takeover waits for.
#[test]
fn the_next_checkpoint_waits_until_the_one_before_the_last_is_applied() {
    let mut pair = protected();
    pair.replays = false;
    for (count, output) in [(500, 1), (600, 2)] {
        pair.primary.record(pair.now, checkpoint(count));
        pair.output(count, output);
        pair.run(ms(60));
    }
    assert_eq!(pair.emitted, [1, 2], "outputs wait for nothing more");
    assert_eq!(held(&pair), 1);
    pair.replay_all();
    pair.run(ms(60));
    assert_eq!(held(&pair), 2);
}

/// Leaves the primary alone, at instruction `count`.
fn alone(pair: &mut Pair, count: u64) {
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.primary.disconnected(pair.now, WIRE);
    pair.settle();
    assert_eq!(ends(pair), 0, "it may be that the backup goes on");
    pair.answer_primary(Outcome::Created);
    assert_eq!(ends(pair), 1);
    pair.output(count, 2);
}

/// What the machine did while it was alone is in no record, and its log begins anew.
#[test]
fn a_backup_that_comes_back_to_a_machine_that_was_alone_is_copied() {
    let mut pair = protected();
    pair.primary.record(pair.now, piece(0));
    pair.primary.record(pair.now, checkpoint(500));
    pair.output(500, 1);
    pair.run(ms(20));
    alone(&mut pair, 500);
    assert_eq!(pair.emitted, [1, 2]);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    let dropped = pair.primary.opened().content();
    pair.answer_backup(Outcome::NotCreated);
    pair.answer_backup(Outcome::Holds(dropped.clone()));
    let key = pair.primary.opened().key.clone();
    pair.store.keys.insert(key, dropped);
    let standing = pair.backup.take_held().expect("its machine is kept");
    let newest = pair.primary.opened().clone();
    pair.backup = Backup::new(pair.now, transferring("b"), newest, Some(standing));
    (pair.to_backup, pair.to_primary, pair.answers) = (true, true, true);
    pair.connected = false;
    pair.replayed = pair.primary.status().record;
    pair.settle();
    let told = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::Report(Event::Continues { continuation, .. }) => Some(*continuation),
        _ => None,
    });
    assert!(
        matches!(told, Some(Continuation::Differs | Continuation::Forgotten)),
        "{told:?}"
    );
}

/// A snapshot that nobody wants any more began checkpoints all the same.
#[test]
fn checkpoints_end_when_the_snapshot_came_too_late() {
    let mut pair = Pair::new(transferring("long"), transferring("b"));
    pair.primary.snapshot_is_late(3);
    pair.settle();
    let end = PrimaryAction::EndCheckpoints { pairing: 3 };
    assert_eq!(ends(&pair), 1);
    assert!(pair.primary_did.contains(&end));
}

/// A primary that dies in the middle of a checkpoint leaves pieces: its successor has nothing to do with them, and
/// goes live where the last whole one was.
#[test]
fn the_pieces_of_half_a_checkpoint_are_no_obstacle_to_going_live() {
    let mut pair = protected();
    pair.primary.record(pair.now, piece(0));
    pair.primary.record(pair.now, checkpoint(500));
    pair.output(500, 1);
    pair.primary.record(pair.now, piece(500));
    pair.primary.record(pair.now, piece(500));
    pair.run(ms(20));
    assert_eq!(pair.replayed, RecordNumber(5));
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    pair.answer_backup(Outcome::Created);
    let live = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive { log, .. } => Some(log.end()),
        _ => None,
    });
    let live = live.expect("it goes live");
    assert_eq!(live.count, InstructionCount(500));
    assert_eq!(pair.backup.status().phase, BackupPhase::Live);
}

/// Either way round, and by name; in log mode nothing is said, as by programs that know of no other.
#[test]
fn hosts_of_different_modes_refuse_each_other() {
    for (primary, backup) in [
        (transferring("a"), config("b")),
        (config("a"), transferring("b")),
    ] {
        let mut pair = Pair::new(primary, backup);
        pair.settle();
        let refused = pair.primary_did.iter().find_map(|action| match action {
            PrimaryAction::Send {
                message: Message::Refuse(refusal),
                ..
            } => Some(refusal.clone()),
            _ => None,
        });
        let Some(Refusal::Differs { differences, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(differences[0].key, "replication");
        assert!(differences[0].describe("b").contains("state-transfer"));
    }
}
