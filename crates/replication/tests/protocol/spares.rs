//! Spares stay out until a member is lacking. `docs/protocol.md`, "Spares".

use crate::group::Group;
use crate::pair::ms;
use crate::support::{config, host};
use replication::lag::LagPolicy;
use replication::message::{Message, Refusal};
use replication::startup::{Startup, StartupAction, StartupConfig, Waiting};
use replication::succession::{Outcome, Request, RunId};
use std::time::Duration;

const SPARE_AFTER: Duration = Duration::from_secs(10);

/// With two members, as many as are wanted.
fn whole() -> Group {
    let mut group = Group::wanting(2, LagPolicy::Slow);
    for node in ["b", "c"] {
        group.joins(node, 300);
        group.run(ms(100));
    }
    assert!(group.followers.iter().all(|follower| follower.has_begun));
    group
}

fn spare_asks(group: &mut Group) -> Option<Refusal> {
    group.greets(300, true, config("spare").greeting);
    group.run(ms(100));
    group.refusals().first().map(|refusal| (*refusal).clone())
}

fn dies(group: &mut Group, follower: usize) {
    let connection = group.followers[follower].connection;
    group.followers[follower].is_closed = true;
    group.primary.disconnected(group.now, connection);
    group.settle();
    group.run(ms(50));
}

#[test]
fn a_spare_is_taken_when_a_member_has_been_lacking_for_long_enough() {
    let mut group = whole();
    assert_eq!(spare_asks(&mut group), Some(Refusal::NotNeeded));
    dies(&mut group, 1);
    assert_eq!(spare_asks(&mut group), Some(Refusal::NotNeeded));
    group.run(SPARE_AFTER);
    assert_eq!(spare_asks(&mut group), None);
    let members = &group.primary.opened().membership().members;
    assert_eq!(*members, [host("b"), host("spare")]);
    // Whoever was lacking comes too late, and waits as a spare does.
    group.joins("c", 300);
    assert_eq!(group.refusals(), [&Refusal::NotNeeded]);
}

#[test]
fn whoever_was_lacking_comes_before_a_spare() {
    let mut group = whole();
    dies(&mut group, 1);
    group.run(SPARE_AFTER / 2);
    group.joins("c", 300);
    group.run(ms(100));
    assert!(group.followers.last().unwrap().has_begun);
    group.run(SPARE_AFTER);
    assert_eq!(spare_asks(&mut group), Some(Refusal::NotNeeded));
}

/// It is told so at once, and not on the day when it is needed.
#[test]
fn a_spare_that_does_not_fit_is_refused_though_nobody_is_lacking() {
    let mut group = whole();
    let mut greeting = config("spare").greeting;
    greeting.semantics_version += 1;
    group.greets(300, true, greeting);
    let refusals = group.refusals();
    assert!(
        matches!(refusals[..], [Refusal::Differs { .. }]),
        "{refusals:?}"
    );
    let said = &group.followers.last().unwrap().said;
    assert!(matches!(said[..], [Message::Refuse(_)]));
}

/// What a start does where the arbiter knows of no life and no peer answers.
fn first_start(is_spare: bool) -> Vec<StartupAction> {
    let greeting = config("spare").greeting;
    let startup = StartupConfig {
        peers: 0,
        is_spare,
        ..StartupConfig::new(
            greeting.machine,
            greeting.host,
            RunId(1),
            replication::message::LifeId(1),
        )
    };
    let now = Duration::ZERO;
    let mut startup = Startup::new(now, startup, replication::marker::Worth::Fresh);
    let mut did = Vec::new();
    while let Some(action) = startup.next_action() {
        if let StartupAction::Ask(request) = &action {
            let outcome = match request {
                Request::Read { .. } => Outcome::Absent,
                _ => Outcome::Created,
            };
            startup.arbiter_answered(now, request, &outcome);
        }
        did.push(action);
    }
    did
}

#[test]
fn a_spare_begins_no_life() {
    let did = first_start(true);
    assert_eq!(did.last(), Some(&StartupAction::Wait(Waiting::Spare)));
    let did = first_start(false);
    assert!(matches!(did.last(), Some(StartupAction::Start { .. })));
}
