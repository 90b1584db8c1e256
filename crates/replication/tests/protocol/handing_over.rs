//! `docs/protocol.md`, "Handing over".

use crate::pair::{Pair, ms};
use replication::backup::BackupAction;
use replication::primary::{PrimaryAction, PrimaryPhase, PrimaryStop};
use replication::succession::Kind;

#[test]
fn a_primary_hands_over_and_says_nothing_more() {
    let mut pair = Pair::protected();
    pair.answers = true;
    pair.to_primary = false;
    pair.output(10, 1);
    assert!(pair.primary.hand_over(pair.now));
    pair.to_primary = true;
    pair.settle();
    pair.run(ms(100));
    let live = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive {
            opened, outputs, ..
        } => Some((opened.kind, outputs.clone())),
        _ => None,
    });
    assert_eq!(live, Some((Kind::HandedOver, vec![1])));
    assert!(pair.emitted.is_empty());
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { by })) if by.kind == Kind::HandedOver
    ));
}

/// What was let out a moment before is known to the successor, though no records followed it.
#[test]
fn what_left_before_a_handover_is_not_said_again() {
    let mut pair = Pair::protected();
    pair.answers = true;
    pair.output(10, 1);
    pair.settle();
    assert_eq!(pair.emitted, [1]);
    assert!(pair.primary.hand_over(pair.now));
    pair.settle();
    pair.run(ms(100));
    let said_again = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive { outputs, .. } => Some(outputs.clone()),
        _ => None,
    });
    assert_eq!(said_again, Some(vec![]));
}

#[test]
fn a_machine_that_nobody_took_over_runs_on() {
    let mut pair = Pair::protected();
    pair.answers = true;
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    assert!(pair.primary.hand_over(pair.now));
    pair.settle();
    assert_eq!(pair.primary.status().phase, PrimaryPhase::HandingOver);
    pair.run(ms(300));
    let resumes = |action: &PrimaryAction<u32>| matches!(action, PrimaryAction::Resume);
    assert!(pair.primary_did.iter().any(resumes));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
    assert_eq!(pair.emitted, [1]);
}
