//! `docs/protocol.md`, "Divergence": whose machine is right where there are three.

use crate::group::Group;
use crate::pair::{Pair, WIRE, ms};
use replication::backup::{BackupAction, BackupPhase, BackupStop};
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::lag::LagPolicy;
use replication::message::{DivergenceReport, Message};
use replication::primary::PrimaryPhase;
use replication::record::{InstructionCount, RecordNumber};
use replication::succession::Kind;

fn two_backups() -> Group {
    Group::with(LagPolicy::Slow, &[("b", 300), ("c", 300)])
}

/// A follower says that its machine differs at `record`, and is in that state there.
fn differs(group: &mut Group, index: usize, record: RecordNumber, digest: u128) {
    let follower = &group.followers[index];
    let (connection, pairing) = (follower.connection, follower.pairing);
    let report = DivergenceReport {
        record,
        count: InstructionCount(7),
        digest,
        what: "digest".into(),
    };
    let message = Message::Diverged { pairing, report };
    group.primary.received(group.now, connection, message);
    group.settle();
}

fn suspicions(group: &Group) -> usize {
    let differs = |event: &&Event| {
        let why = Suspicion::Diverged;
        matches!(event, Event::Suspected { why: found, .. } if *found == why)
    };
    group.events.iter().filter(differs).count()
}

fn was_told(group: &Group, index: usize, is_it: impl Fn(&Message) -> bool) -> bool {
    group.followers[index].said.iter().any(is_it)
}

fn is_majority(message: &Message) -> bool {
    matches!(message, Message::Majority { .. })
}

fn is_handover(message: &Message) -> bool {
    matches!(message, Message::Handover { .. })
}

#[test]
fn a_primary_that_two_backups_contradict_alike_says_nothing_more_and_hands_over() {
    let mut group = two_backups();
    let record = group.primary.status().record;
    differs(&mut group, 0, record, 5);
    let emitted = group.emitted;
    group.run(ms(100));
    assert_eq!(
        group.emitted, emitted,
        "it is not known yet whose machine is right"
    );
    assert_eq!(group.primary.status().phase, PrimaryPhase::Differing);
    assert!(!group.primary.status().protected && !group.stands_still);
    assert!(was_told(
        &group,
        1,
        |m| matches!(m, Message::Compare { record: at, .. } if *at == record)
    ));
    differs(&mut group, 1, record, 5);
    assert!(group.events.contains(&Event::Outvoted { backups: 2 }));
    assert!((0..2).all(|index| was_told(&group, index, is_majority)));
    assert_eq!(
        (0..2)
            .filter(|index| was_told(&group, *index, is_handover))
            .count(),
        1
    );
    group.run(ms(100));
    assert_eq!((group.emitted, suspicions(&group)), (emitted, 0));
}

#[test]
fn a_backup_that_is_alone_in_its_difference_is_dropped_and_outputs_go_on() {
    let mut group = two_backups();
    group.followers[1].agrees = true;
    let record = group.primary.status().record;
    differs(&mut group, 0, record, 5);
    assert!(group.followers[0].is_closed && !group.followers[1].is_closed);
    assert_eq!(suspicions(&group), 1);
    let emitted = group.emitted;
    group.run(ms(100));
    assert!(group.emitted > emitted && !group.stands_still);
    assert_eq!(group.primary.opened().membership().members.len(), 1);
}

#[test]
fn backups_that_differ_from_each_other_are_no_majority() {
    let mut group = two_backups();
    let record = group.primary.status().record;
    differs(&mut group, 0, record, 5);
    differs(&mut group, 1, record, 6);
    assert_eq!(suspicions(&group), 2);
    let emitted = group.emitted;
    group.run(ms(100));
    assert!(group.emitted > emitted && !group.stands_still);
    assert_eq!(group.primary.status().phase, PrimaryPhase::Alone);
}

/// The one that differs first was equal to nobody there; the other had agreed with the primary then.
#[test]
fn differences_at_different_records_are_not_one() {
    let mut group = two_backups();
    let record = group.primary.status().record;
    differs(&mut group, 1, record, 5);
    differs(&mut group, 0, record.before().unwrap(), 5);
    assert!(
        !group
            .events
            .iter()
            .any(|event| matches!(event, Event::Outvoted { .. }))
    );
    assert_eq!(suspicions(&group), 2);
}

#[test]
fn one_backup_alone_is_no_majority() {
    let mut group = Group::with(LagPolicy::Slow, &[("b", 300)]);
    let record = group.primary.status().record;
    differs(&mut group, 0, record, 5);
    assert_eq!(suspicions(&group), 1);
    group.run(ms(100));
    assert_eq!(group.primary.status().phase, PrimaryPhase::Alone);
}

#[test]
fn a_tie_leaves_the_machine_where_it_is() {
    let mut group = Group::with(LagPolicy::Slow, &[("b", 300), ("c", 300), ("d", 300)]);
    group.followers[2].agrees = true;
    let record = group.primary.status().record;
    differs(&mut group, 0, record, 5);
    differs(&mut group, 1, record, 5);
    assert_eq!(suspicions(&group), 2);
    assert!(!group.stands_still);
}

#[test]
fn when_the_heir_of_a_wrong_machine_dies_the_other_is_asked_and_then_the_machine_goes_on() {
    let mut group = two_backups();
    let record = group.primary.status().record;
    differs(&mut group, 0, record, 5);
    differs(&mut group, 1, record, 5);
    let emitted = group.emitted;
    for asked in [1, 2] {
        let heirs: Vec<usize> = (0..2)
            .filter(|index| was_told(&group, *index, is_handover))
            .collect();
        assert_eq!(heirs.len(), asked);
        assert!(group.stands_still && group.emitted == emitted);
        let heir = heirs
            .into_iter()
            .find(|heir| !group.followers[*heir].is_closed)
            .unwrap();
        group
            .primary
            .disconnected(group.now, group.followers[heir].connection);
        group.followers[heir].is_closed = true;
        group.settle();
        group.run(ms(100));
    }
    assert!(
        !group.stands_still && group.emitted > emitted,
        "it is all that there is"
    );
}

/// A copy of a wrong machine is as wrong as that: whoever has just been copied has nothing to say.
#[test]
fn nobody_becomes_a_member_while_it_is_not_known_whose_machine_is_right() {
    let mut group = Group::wanting(3, LagPolicy::Slow);
    for node in ["b", "c"] {
        group.joins(node, 300);
        group.run(ms(100));
    }
    let record = group.primary.status().record;
    differs(&mut group, 0, record, 5);
    group.joins("d", 300);
    group.run(ms(100));
    assert!(!group.followers[2].has_begun);
    differs(&mut group, 1, record, 5);
    assert!(group.events.contains(&Event::Outvoted { backups: 2 }));
}

fn report() -> DivergenceReport {
    DivergenceReport {
        record: RecordNumber(4),
        count: InstructionCount(0),
        digest: 5,
        what: "digest".into(),
    }
}

/// As it would be if there were others: the primary's word does not come by itself here.
fn pair_that_differs() -> Pair {
    let mut pair = Pair::protected();
    pair.answers = true;
    pair.to_primary = false;
    pair.backup.diverged(pair.now, 1, report());
    pair.settle();
    assert_eq!(pair.backup.status().phase, BackupPhase::Differing);
    pair
}

#[test]
fn a_backup_that_differs_and_loses_its_primary_claims_nothing() {
    let mut pair = pair_that_differs();
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    assert_eq!(pair.backup_asks(), []);
    let last = pair.backup_did.last();
    assert!(
        matches!(last, Some(BackupAction::Stop(BackupStop::Diverged(_)))),
        "{last:?}"
    );
}

#[test]
fn a_backup_that_the_majority_is_with_may_take_over() {
    let mut pair = pair_that_differs();
    let message = Message::Majority { pairing: 1 };
    pair.backup.received(pair.now, WIRE, message);
    pair.settle();
    assert!(pair.backup_did.contains(&BackupAction::StopComparing));
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    let live = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive { opened, .. } => Some(opened.kind),
        _ => None,
    });
    assert_eq!(live, Some(Kind::TookOver));
}
