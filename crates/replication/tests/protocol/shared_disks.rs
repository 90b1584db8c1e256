//! `docs/protocol.md`, "Shared disks".

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::backup::{BackupAction, BackupPhase};
use replication::config::PairConfig;
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use replication::startup::Stance;
use replication::succession::Outcome;

fn sharing(name: &str) -> PairConfig {
    PairConfig {
        has_shared_disks: true,
        ..config(name)
    }
}

/// A protected pair whose machine has a shared disk.
fn protected() -> Pair {
    let mut pair = Pair::new(config("a"), sharing("b"));
    pair.settle();
    pair.run(ms(100));
    assert_eq!(pair.backup.status().phase, BackupPhase::Following);
    pair.answers = false;
    pair.backup_did.clear();
    pair
}

fn is_live(pair: &Pair) -> bool {
    let mut did = pair.backup_did.iter();
    did.any(|action| matches!(action, BackupAction::Announce | BackupAction::GoLive { .. }))
}

/// A process that is stopped may have handed a write to its host: it must not land over its successor's.
#[test]
fn nothing_goes_live_before_the_shared_disks_are_fenced() {
    let mut pair = protected();
    pair.output(10, 1);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    assert!(!pair.backup_did.contains(&BackupAction::Fence));
    // Nobody has won yet: there is nothing to be fenced.
    pair.backup.fenced(pair.now);
    pair.answer_backup(Outcome::Created);
    let asked = pair.backup_did.iter();
    let asked = asked.filter(|action| **action == BackupAction::Fence);
    assert_eq!(asked.count(), 1);
    pair.replay_all();
    pair.settle();
    for _ in 0..600 {
        pair.now += ms(100);
        pair.backup.tick(pair.now);
        pair.settle();
    }
    assert!(!is_live(&pair), "though it has replayed all");
    assert_eq!(pair.backup.status().phase, BackupPhase::Draining);
    // Nobody starts the machine anew meanwhile, and nobody ends the process.
    let standing = pair.backup.standing(replication::marker::Worth::Fresh);
    assert_eq!(standing.stance, Stance::Claiming);
    assert!(!pair.backup.leave(pair.now));
    pair.backup.fenced(pair.now);
    pair.settle();
    assert!(is_live(&pair));
}

#[test]
fn a_fence_that_is_there_early_does_not_end_the_replay_early() {
    let mut pair = protected();
    pair.replays = false;
    pair.output(10, 1);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    pair.answer_backup(Outcome::Created);
    pair.backup.fenced(pair.now);
    pair.settle();
    assert!(!is_live(&pair), "it has not replayed all");
    pair.replay_all();
    pair.settle();
    assert!(is_live(&pair));
}

/// A write to a shared disk is an output: it leaves when its marker is held, and what it was stands before that.
#[test]
fn a_write_leaves_when_all_members_hold_what_was_written() {
    let mut pair = protected();
    pair.to_primary = false;
    let written = Record {
        count: InstructionCount(10),
        body: RecordBody::Written(7),
    };
    pair.primary.record(pair.now, written);
    // As the replica says it: nothing that the network would see.
    pair.primary
        .outputs(pair.now, InstructionCount(10), 0, vec![99]);
    pair.settle();
    assert_eq!(
        pair.replayed,
        RecordNumber(2),
        "what was written, and the marker"
    );
    assert!(pair.emitted.is_empty());
    pair.to_primary = true;
    pair.run(ms(60));
    assert_eq!(pair.emitted, [99]);
}
