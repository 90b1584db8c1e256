//! A member that lags is let go. `docs/protocol.md`, "Members that lag".

use crate::group::{Group, LIMIT};
use crate::pair::ms;
use crate::support::host;
use replication::lag::{FULL_SPEED, LagPolicy};
use replication::message::{Message, Parting, Refusal};
use replication::succession::Kind;
use std::time::Duration;

#[test]
fn a_member_that_lags_is_let_go_and_the_machine_has_its_speed_back() {
    let mut group = Group::with(LagPolicy::Drop, &[("b", 300), ("c", 40)]);
    group.run(Duration::from_secs(10));
    assert_eq!(group.let_go(), ["c"]);
    assert!(!group.suspects());
    let opened = group.primary.opened();
    assert_eq!(opened.kind, Kind::Dropped);
    assert_eq!(opened.membership().members, [host("b")]);
    let c = &group.followers[1];
    let last = c.said.last().unwrap();
    assert!(
        matches!(
            last,
            Message::Goodbye {
                parting: Parting::LetGo,
                ..
            }
        ),
        "{last:?}"
    );
    assert!(c.is_closed);
    assert_eq!(group.share, u64::from(FULL_SPEED));
    assert!(group.primary.status().protected);
    assert_eq!(group.emitted, group.visible);
}

#[test]
fn a_member_that_lags_is_waited_for_where_the_policy_says_so() {
    let mut group = Group::with(LagPolicy::Slow, &[("b", 300), ("c", 40)]);
    group.run(Duration::from_secs(60));
    assert_eq!(group.let_go(), [""; 0]);
    assert!(group.share < 500, "{}", group.share);
    let arrears = group.primary.status().followers[1].arrears;
    assert!(arrears > Duration::from_secs(20), "{arrears:?}");
}

#[test]
fn the_last_member_is_let_go_only_if_the_policy_says_so() {
    let mut group = Group::with(LagPolicy::Drop, &[("c", 40)]);
    group.run(Duration::from_secs(20));
    assert_eq!(group.let_go(), [""; 0]);
    assert!(group.primary.status().protected);
    let mut group = Group::with(LagPolicy::DropAny, &[("c", 40)]);
    group.run(Duration::from_secs(20));
    assert_eq!(group.let_go(), ["c"]);
    assert!(!group.primary.status().protected);
    assert_eq!(group.share, u64::from(FULL_SPEED));
    assert_eq!(group.emitted, group.visible);
}

#[test]
fn of_two_members_that_lag_one_stays() {
    let mut group = Group::with(LagPolicy::Drop, &[("b", 50), ("c", 40)]);
    group.run(Duration::from_secs(30));
    assert_eq!(group.let_go(), ["c"]);
    assert!(group.primary.status().protected);
}

#[test]
fn a_member_that_keeps_up_with_a_little_help_is_kept() {
    let mut group = Group::with(LagPolicy::Drop, &[("b", 300), ("c", 105)]);
    group.run(Duration::from_secs(60));
    assert_eq!(group.let_go(), [""; 0]);
}

/// Whoever is let go is a member until the key is there: outputs wait for it, and nothing else waits.
#[test]
fn until_the_key_is_there_nothing_changes() {
    let mut group = Group::with(LagPolicy::Drop, &[("b", 300), ("c", 40)]);
    group.run(Duration::from_secs(1));
    group.arbiter_answers = false;
    group.run(Duration::from_secs(6));
    assert_eq!(group.let_go(), ["c"]);
    assert!(!group.followers[1].is_closed);
    assert!(group.visible - group.emitted < 3, "outputs go on");
    // What it does not acknowledge does not leave.
    group.followers[1].is_deaf = true;
    let before = group.emitted;
    group.run(ms(100));
    assert_eq!(group.emitted, before);
    assert!(group.visible > before + 5);
    group.arbiter_answers = true;
    group.answer();
    group.settle();
    group.run(ms(100));
    assert_eq!(group.primary.opened().membership().members, [host("b")]);
    assert_eq!(group.emitted, group.visible);
}

#[test]
fn whoever_was_let_go_is_taken_again_later_or_when_it_is_needed() {
    let mut group = Group::with(LagPolicy::Drop, &[("b", 300), ("c", 40)]);
    group.run(Duration::from_secs(10));
    assert_eq!(group.let_go(), ["c"]);
    group.joins("c", 300);
    assert_eq!(group.refusals(), [&Refusal::Lagged]);
    // The other one dies.
    let other = group.followers[0].connection;
    group.followers[0].is_closed = true;
    group.primary.disconnected(group.now, other);
    group.settle();
    group.run(ms(100));
    group.joins("c", 300);
    group.run(ms(200));
    assert_eq!(group.refusals(), [&Refusal::Lagged; 0]);
    assert!(group.followers.last().unwrap().has_begun);
    // Others wait for their time.
    let mut group = Group::with(LagPolicy::Drop, &[("b", 300), ("c", 40)]);
    group.run(Duration::from_secs(10));
    group.run(LIMIT * 6);
    group.joins("c", 300);
    group.run(ms(200));
    assert!(group.followers.last().unwrap().has_begun);
}
