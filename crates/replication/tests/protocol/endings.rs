//! `docs/protocol.md`, "Divergence" and "The end".

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::backup::{BackupAction, BackupPhase, BackupStop};
use replication::failure_detector::Suspicion;
use replication::marker::DiskState;
use replication::message::{DivergenceReport, Message};
use replication::primary::{PrimaryAction, PrimaryPhase, PrimaryStop};
use replication::record::{InstructionCount, RecordNumber};
use replication::succession::{Outcome, Request};

#[test]
fn a_backup_that_differs_says_so_keeps_the_evidence_and_joins_anew() {
    let mut pair = Pair::protected();
    let report = DivergenceReport {
        record: RecordNumber(4),
        count: InstructionCount(77),
        digest: 5,
        what: "digest".into(),
    };
    pair.backup.diverged(pair.now, 1, report.clone());
    pair.settle();
    assert_eq!(pair.suspicions(), [Suspicion::Diverged]);
    let evidence = BackupAction::KeepEvidence { pairing: 1, report };
    assert!(pair.backup_did.contains(&evidence));
    let suspect = pair.backup_did.iter().position(
        |action| matches!(action, BackupAction::Mark(marker) if marker.disk == DiskState::Suspect),
    );
    let said = pair.backup_did.iter().position(|action| {
        matches!(
            action,
            BackupAction::Send {
                message: Message::Diverged { .. },
                ..
            }
        )
    });
    assert!(
        suspect.unwrap() < said.unwrap(),
        "first its disk loses its rights"
    );
    assert!(matches!(
        pair.backup_did.last(),
        Some(BackupAction::Stop(BackupStop::Diverged(_)))
    ));
    pair.answer_primary(Outcome::Created);
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
}

#[test]
fn the_guest_ends_and_nobody_claims() {
    let mut pair = Pair::protected();
    pair.output(10, 1);
    pair.primary.finished(pair.now, InstructionCount(10));
    pair.settle();
    assert_eq!(pair.emitted, [1]);
    assert!(
        !matches!(pair.primary_did.last(), Some(PrimaryAction::Stop(_))),
        "the end of the life waits for its key"
    );
    pair.answer_primary(Outcome::Created);
    assert_eq!(
        pair.primary_did.last(),
        Some(&PrimaryAction::Stop(PrimaryStop::Finished))
    );
    assert_eq!(
        pair.backup_did.last(),
        Some(&BackupAction::Stop(BackupStop::Finished))
    );
    assert!(pair.suspicions().is_empty());
}

/// Known defect: a backup ended before it had replayed what it acknowledged, and its disk was not
/// what the guest had left.
#[test]
fn at_the_end_of_the_life_the_backup_drains_its_log_and_syncs_its_disk() {
    let mut pair = Pair::protected();
    pair.settles = false;
    pair.replays = false;
    pair.output(10, 1);
    pair.primary.finished(pair.now, InstructionCount(10));
    pair.settle();
    pair.answer_primary(Outcome::Created);
    let finished = BackupAction::Stop(BackupStop::Finished);
    assert_eq!(
        pair.primary_did.last(),
        Some(&PrimaryAction::Stop(PrimaryStop::Finished)),
        "the primary need not wait"
    );
    assert_eq!(pair.backup.status().phase, BackupPhase::Ending);
    let settle = |action: &BackupAction<u32>| matches!(action, BackupAction::Settle { .. });
    assert!(
        !pair.backup_did.iter().any(settle),
        "there is more to replay"
    );
    assert!(!pair.backup.leave(pair.now), "it is about to end");
    pair.replay_all();
    pair.settle();
    assert!(pair.backup_did.iter().any(settle));
    assert_ne!(
        pair.backup_did.last(),
        Some(&finished),
        "its disk is synced first"
    );
    pair.backup.settled(pair.now, 1);
    pair.settle();
    assert_eq!(pair.backup_did.last(), Some(&finished));
}

/// The Goodbye was lost: the key says the same.
#[test]
fn a_backup_that_meets_the_end_of_the_life_at_the_arbiter_drains_its_log_too() {
    let mut pair = Pair::protected();
    pair.replays = false;
    pair.output(10, 1);
    pair.primary.finished(pair.now, InstructionCount(10));
    pair.settle();
    let Some(Request::Create { content, .. }) = pair.primary_asks().last().cloned() else {
        panic!("the end has a key")
    };
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    pair.answer_backup(Outcome::NotCreated);
    pair.backup.tick(pair.now);
    pair.settle();
    pair.answer_backup(Outcome::Holds(content));
    assert_eq!(pair.backup.status().phase, BackupPhase::Ending);
    pair.replay_all();
    pair.settle();
    let finished = BackupAction::Stop(BackupStop::Finished);
    assert_eq!(pair.backup_did.last(), Some(&finished));
}

#[test]
fn a_backup_that_leaves_is_replaced_after_the_arbiter_was_asked() {
    let mut pair = Pair::protected();
    assert!(pair.backup.leave(pair.now));
    pair.settle();
    assert_eq!(pair.suspicions(), [Suspicion::Left]);
    pair.answer_primary(Outcome::Created);
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
}

/// The pauses of a process are told from the silence of its peer for every configuration that the
/// program accepts, down to two heartbeats.
#[test]
fn a_pulled_cable_is_suspected_also_with_slow_heartbeats() {
    let slow = |node| {
        let mut config = config(node);
        config.detector.heartbeat_interval = ms(150);
        config.detector.silence_timeout = ms(300);
        config
    };
    let mut pair = Pair::new(slow("long"), slow("b"));
    pair.settle();
    pair.run(ms(500));
    assert!(pair.primary.status().protected && pair.suspicions().is_empty());
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.run(ms(350));
    assert_eq!(pair.suspicions(), [Suspicion::Silent, Suspicion::Silent]);
}

#[test]
fn a_snapshot_beyond_its_announced_count_is_an_error_and_no_panic() {
    let mut pair = Pair::protected();
    pair.backup
        .replayed(pair.now, 1, RecordNumber::BEFORE_ALL, InstructionCount(5));
    pair.settle();
    assert!(
        pair.backup_did
            .iter()
            .any(|action| matches!(action, BackupAction::KeepEvidence { .. }))
    );
}
