//! `docs/protocol.md`, "Handing over": disks that fail.

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::backup::{BackupAction, BackupPhase, BackupStop};
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::marker::DiskState;
use replication::message::Message;
use replication::primary::{PrimaryAction, PrimaryPhase, PrimaryStop};
use replication::record::{InstructionCount, RecordNumber};
use replication::succession::{Kind, Outcome};

/// Finding 3: the guest got errors of the primary's disk though its backup's was good.
#[test]
fn a_primary_whose_disk_fails_hands_over() {
    let mut pair = Pair::protected();
    pair.to_primary = false;
    pair.output(10, 1);
    pair.input(5_000_000);
    pair.disk_fails();
    assert_eq!(pair.primary.status().phase, PrimaryPhase::HandingOver);
    assert_eq!(pair.replayed, RecordNumber(2), "all of it was sent");
    assert_eq!(pair.backup.status().phase, BackupPhase::Claiming);
    // An acknowledgement that comes now lets nothing out: the backup sends it.
    let ack = Message::Ack {
        pairing: 1,
        record: RecordNumber(2),
        executed: InstructionCount(10),
        echo: 1,
        durable: InstructionCount(0),
    };
    pair.primary.received(pair.now, WIRE, ack);
    pair.settle();
    pair.to_primary = true;
    pair.answer_backup(Outcome::Created);
    let Some(BackupAction::GoLive {
        opened, outputs, ..
    }) = pair.backup_did.last()
    else {
        panic!("{:?}", pair.backup_did.last())
    };
    assert_eq!(
        (opened.kind, outputs.as_slice()),
        (Kind::HandedOver, &[1][..])
    );
    let theirs = Outcome::Holds(opened.content());
    pair.answer_primary(Outcome::NotCreated);
    pair.run(ms(10));
    pair.answer_primary(theirs);
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { by })) if by.kind == Kind::HandedOver
    ));
    assert!(pair.emitted.is_empty() && !pair.resumed());
}

#[test]
fn what_nobody_takes_over_goes_on_where_it_was_and_the_guest_is_told() {
    let mut pair = Pair::protected();
    (pair.to_primary, pair.to_backup) = (false, false);
    pair.output(10, 1);
    pair.disk_fails();
    pair.run(ms(400));
    assert!(!pair.resumed(), "the arbiter has not said who goes on");
    pair.answer_primary(Outcome::Created);
    assert!(pair.resumed());
    assert_eq!(pair.emitted, [1]);
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
    pair.primary_did.clear();
    pair.disk_fails();
    assert!(pair.resumed(), "there is nobody");
    let told = PrimaryAction::Report(Event::DiskErrorTold);
    assert!(pair.primary_did.contains(&told));
}

/// The backup may be gone, or about to be a member: nothing is told before that is known.
#[test]
fn a_disk_error_while_it_is_not_certain_who_goes_on_waits() {
    let mut pair = Pair::protected();
    (pair.to_primary, pair.to_backup) = (false, false);
    pair.run(ms(300));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Claiming);
    pair.disk_fails();
    assert!(!pair.resumed());
    pair.answer_primary(Outcome::Created);
    assert!(pair.resumed());

    let mut pair = Pair::new(config("long"), config("b"));
    pair.answers = false;
    pair.settle();
    pair.disk_fails();
    assert!(!pair.resumed(), "the key of joining is asked for");
    pair.answers = true;
    let asked = pair.primary_asks().last().cloned().unwrap();
    let outcome = pair.store.carry_out(&asked);
    pair.answer_primary(outcome);
    pair.run(ms(200));
    assert!(!pair.resumed(), "it took over");
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { .. }))
    ));
}

/// What is missing from the log of the one that shall take over is no handover.
#[test]
fn a_handover_of_more_than_the_backup_holds_ends_the_connection() {
    let mut pair = Pair::protected();
    let handover = Message::Handover {
        pairing: 1,
        record: RecordNumber(1),
        released: 0,
    };
    pair.backup.received(pair.now, WIRE, handover);
    pair.settle();
    let broken = |why: &Suspicion| matches!(why, Suspicion::Protocol(_));
    assert!(pair.suspicions().iter().any(broken));
}

/// Finding 13's mutant: a backup that ignores its own disk's failure.
#[test]
fn a_backup_whose_disk_fails_says_so_and_never_goes_live() {
    let mut pair = Pair::protected();
    pair.backup.own_disk_failed(pair.now, 1, "no space".into());
    pair.settle();
    assert_eq!(pair.suspicions(), [Suspicion::DiskFailed]);
    let stop = BackupAction::Stop(BackupStop::DiskFailed("no space".into()));
    assert_eq!(pair.backup_did.last(), Some(&stop));
    let suspect = |action: &BackupAction<u32>| matches!(action, BackupAction::Mark(marker) if marker.disk == DiskState::Suspect);
    assert!(
        pair.backup_did.iter().any(suspect),
        "its disk has no rights"
    );
    let evidence = |action: &BackupAction<u32>| matches!(action, BackupAction::KeepEvidence { .. });
    assert!(!pair.backup_did.iter().any(evidence), "nothing diverged");

    let mut pair = Pair::protected();
    pair.replays = false;
    pair.output(10, 1);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    pair.answer_backup(Outcome::Created);
    assert_eq!(pair.backup.status().phase, BackupPhase::Draining);
    pair.backup.own_disk_failed(pair.now, 1, "no space".into());
    pair.settle();
    assert_eq!(pair.backup_did.last(), Some(&stop));
}

/// A joiner whose disk cannot take the snapshot does not hold its primary up.
#[test]
fn a_joiner_whose_disk_fails_says_so() {
    let mut pair = Pair::new(config("long"), config("b"));
    pair.restores_at_once = false;
    pair.settle();
    pair.backup.own_disk_failed(pair.now, 1, "no space".into());
    pair.settle();
    let failed = PrimaryAction::Report(Event::JoinFailed {
        pairing: 1,
        why: Suspicion::CannotFollow("no space".into()),
    });
    assert!(pair.primary_did.contains(&failed));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
}
