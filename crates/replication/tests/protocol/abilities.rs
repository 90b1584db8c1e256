//! `docs/protocol.md`, "Handing over": hosts that could not go on with the machine.

use crate::group::Group;
use crate::pair::{Pair, WIRE, ms};
use crate::support::host;
use replication::backup::BackupAction;
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::lag::LagPolicy;
use replication::message::{Message, OF_ITS_HOST};
use replication::primary::{PrimaryAction, PrimaryPhase};
use replication::succession::Kind;

/// What the backup's host says of itself, as it says it; `None`: it could go on.
fn says(pair: &mut Pair, trouble: Option<&str>) {
    pair.backup
        .host_could_go_on(pair.now, trouble.map(str::to_owned));
    pair.settle();
}

/// Whether each event of that kind, on the primary and on the backup, says that the host could not go on.
fn told(pair: &Pair) -> (Vec<bool>, Vec<bool>) {
    let unable = |event: &Event| match event {
        Event::MayGoOn { trouble, .. } => Some(trouble.is_some()),
        _ => None,
    };
    let primary = pair.primary_did.iter().filter_map(|action| match action {
        PrimaryAction::Report(event) => unable(event),
        _ => None,
    });
    let backup = pair.backup_did.iter().filter_map(|action| match action {
        BackupAction::Report(event) => unable(event),
        _ => None,
    });
    (primary.collect(), backup.collect())
}

/// Finding: the machine was handed over to a host whose state directory was full.
#[test]
fn a_machine_is_not_handed_over_to_a_host_that_could_not_go_on() {
    let mut pair = Pair::protected();
    assert!(pair.primary.can_hand_over());
    says(&mut pair, Some("no space"));
    let why = pair.primary.obstacle_to_handing_over().unwrap();
    assert!(
        why.contains("b could not go on with the machine: no space"),
        "{why}"
    );
    assert!(pair.primary.has_heir() && !pair.primary.can_hand_over());
    assert!(!pair.primary.hand_over(pair.now), "the machine runs on");
    let status = pair.primary.status();
    assert_eq!(status.phase, PrimaryPhase::Paired);
    assert!(status.protected, "a lost primary is followed all the same");
    assert_eq!(status.followers[0].trouble.as_deref(), Some("no space"));
    // Another reason is no news.
    says(&mut pair, Some("read-only"));
    let why = pair.primary.obstacle_to_handing_over().unwrap();
    assert!(why.contains("read-only"), "{why}");
    assert_eq!(told(&pair), (vec![true], vec![true]));
    says(&mut pair, None);
    assert_eq!(told(&pair), (vec![true, false], vec![true, false]));
    assert_eq!(pair.primary.status().followers[0].trouble, None);
    assert!(pair.primary.hand_over(pair.now));
}

#[test]
fn a_lost_primary_is_followed_by_a_host_that_could_not_go_on() {
    let mut pair = Pair::protected();
    pair.answers = true;
    says(&mut pair, Some("no space"));
    pair.to_primary = false;
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    let opened = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive { opened, .. } => Some(opened.kind),
        _ => None,
    });
    assert_eq!(opened, Some(Kind::TookOver));
}

/// A machine whose disk failed is handed over to whoever there is: its guest would be told of the error otherwise.
#[test]
fn a_disk_that_failed_is_worse_than_a_host_that_could_not_go_on() {
    let mut pair = Pair::protected();
    pair.answers = true;
    says(&mut pair, Some("no space"));
    pair.primary.disk_failed(pair.now, "it is broken".into());
    pair.settle();
    pair.run(ms(100));
    let opened = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive { opened, .. } => Some(opened.kind),
        _ => None,
    });
    assert_eq!(opened, Some(Kind::HandedOver));
}

fn tells(group: &mut Group, follower: usize, trouble: &str) {
    let connection = group.followers[follower].connection;
    let pairing = group.followers[follower].pairing;
    let sees = Message::Sees {
        pairing,
        nonce: OF_ITS_HOST,
        trouble: trouble.into(),
    };
    group.primary.received(group.now, connection, sees);
    group.settle();
}

#[test]
fn of_two_hosts_the_one_that_could_go_on_is_handed_the_machine() {
    let mut group = Group::with(LagPolicy::Slow, &[("b", 300), ("c", 300)]);
    group.run(ms(500));
    let [b, c] = ["b", "c"].map(|name| host(name).id);
    tells(&mut group, 0, "no space\u{1b}[2J");
    let why = group.primary.prefer_heir(b).unwrap_err();
    assert!(
        why.contains("no space?[2J"),
        "what a peer says is cleaned: {why}"
    );
    assert_eq!(group.primary.why_no_heir_could_go_on(), None);
    group.primary.prefer_heir(c).unwrap();
    // The one that was wanted became unable, the other one able.
    tells(&mut group, 1, "no space");
    let why = group.primary.obstacle_to_handing_over().unwrap();
    assert!(why.contains("b could") && why.contains("c could"), "{why}");
    tells(&mut group, 0, "");
    assert_eq!(group.primary.why_no_heir_could_go_on(), None);
    assert!(group.primary.hand_over(group.now));
    group.settle();
    let handed = |follower: usize| {
        let heard = &group.followers[follower].said;
        let is_handover = |message: &Message| matches!(message, Message::Handover { .. });
        heard.iter().any(is_handover)
    };
    assert!(handed(0) && !handed(1));
}

/// Finding: a backup that was let go because its host could not go on said that it had lagged.
#[test]
fn a_backup_that_is_let_go_is_told_why() {
    let mut pair = Pair::protected();
    pair.answers = true;
    says(&mut pair, Some("no space"));
    pair.primary
        .let_members_go(pair.now, "its host ends".into());
    pair.settle();
    pair.run(ms(100));
    let why = Suspicion::LetGoFor("its host ends".into());
    assert_eq!(pair.backup_suspicions(), std::slice::from_ref(&why));
    let why = why.to_string();
    assert!(why.contains("let this replica go: its host ends"), "{why}");
}

/// Before a guest is asked to power off for its host, nobody is a member any more who would go on with it.
#[test]
fn members_that_are_let_go_are_members_until_the_key_is_there() {
    let mut group = Group::with(LagPolicy::Slow, &[("b", 300), ("c", 300)]);
    group.run(ms(500));
    group.arbiter_answers = false;
    let why = "its host is asked to end".to_owned();
    group.primary.let_members_go(group.now, why);
    group.settle();
    assert_eq!(group.primary.status().phase, PrimaryPhase::Paired);
    assert!(!group.followers[0].is_closed && !group.followers[1].is_closed);
    group.arbiter_answers = true;
    group.answer();
    group.settle();
    group.run(ms(100));
    assert_eq!(group.primary.status().phase, PrimaryPhase::Alone);
    let opened = group.primary.opened();
    assert_eq!(opened.kind, Kind::Dropped);
    assert_eq!(opened.membership().members, []);
    assert!(group.followers[0].is_closed && group.followers[1].is_closed);
    assert!(!group.suspects(), "nobody is suspected");
    assert_eq!(group.emitted, group.visible);
}
