//! A host that is too small, or too slow, is known for it before it is relied on. `docs/protocol.md`, "What a
//! host has".

use crate::group::Group;
use crate::pair::ms;
use crate::support::{config, host};
use replication::capacity::{HostFacts, Shortfall};
use replication::event::Event;
use replication::lag::LagPolicy;
use replication::message::{Message, Refusal};
use std::time::Duration;

const NEEDED: u64 = 600 << 20;
const SMALL: HostFacts = HostFacts {
    memory: 500 << 20,
    cores: 4,
    speed: 0,
};
const SLOW: HostFacts = HostFacts {
    memory: NEEDED,
    cores: 1,
    speed: 300,
};
const FAST: HostFacts = HostFacts {
    memory: NEEDED,
    cores: 4,
    speed: 1000,
};

fn group(members: usize, policy: LagPolicy) -> Group {
    let mut group = Group::of_memory(members, policy, NEEDED);
    group.primary.needs_speed(800);
    group
}

fn joins(group: &mut Group, node: &'static str, is_spare: bool, facts: HostFacts) {
    let greeting = config(node).greeting;
    group.greets_with(300, is_spare, greeting, facts);
    group.run(ms(100));
}

fn has_begun(group: &Group) -> bool {
    group.followers.last().unwrap().has_begun
}

fn told_slow(group: &Group) -> Vec<&str> {
    let events = group.events.iter();
    let slow = events.filter_map(|event| match event {
        Event::JoinerIsSlow { host, .. } => Some(host.node()),
        _ => None,
    });
    slow.collect()
}

fn told_refused(group: &Group) -> usize {
    let events = group.events.iter();
    let refused = events.filter(|event| matches!(event, Event::RefusedBackup { .. }));
    refused.count()
}

#[test]
fn a_host_without_the_memory_is_refused_with_the_reason_and_told_about_once() {
    let mut group = group(1, LagPolicy::Slow);
    for _ in 0..3 {
        joins(&mut group, "b", false, SMALL);
        let shortfall = Shortfall {
            needed: NEEDED,
            there: SMALL.memory,
        };
        assert_eq!(group.refusals(), [&Refusal::NoRoom(shortfall)]);
    }
    assert_eq!(told_refused(&group), 1);
    let told = Refusal::NoRoom(Shortfall {
        needed: NEEDED,
        there: SMALL.memory,
    });
    assert!(told.is_temporary() && told.puts_off(), "it comes again");
    let told = told.to_string();
    assert!(
        told.contains("500 MiB") && told.contains("600 MiB"),
        "{told}"
    );
    // It has more now.
    joins(&mut group, "b", false, FAST);
    assert!(has_begun(&group));
    // And of a host that does not say what it has nothing is known.
    let follower = group.followers.len() - 1;
    let connection = group.followers[follower].connection;
    group.followers[follower].is_closed = true;
    group.primary.disconnected(group.now, connection);
    group.settle();
    group.run(ms(50));
    joins(&mut group, "c", false, HostFacts::default());
    assert!(has_begun(&group));
}

/// A spare knows at its start that it is of no use, and not on the day when it is needed.
#[test]
fn a_spare_without_the_memory_is_refused_though_nobody_is_lacking() {
    let mut group = group(1, LagPolicy::Slow);
    joins(&mut group, "b", false, FAST);
    joins(&mut group, "spare", true, SMALL);
    assert!(matches!(group.refusals()[..], [Refusal::NoRoom(_)]));
    joins(&mut group, "spare", true, FAST);
    assert_eq!(group.refusals(), [&Refusal::NotNeeded]);
}

#[test]
fn that_a_joiner_is_slow_is_said_before_it_is_relied_on() {
    let mut group = group(1, LagPolicy::Slow);
    let greeting = config("b").greeting;
    group.greets_with(300, false, greeting, SLOW);
    assert_eq!(told_slow(&group), ["b"]);
    let said = &group.followers[0].said;
    let needs = said.iter().find_map(|message| match message {
        Message::Welcome { needs, .. } => *needs,
        _ => None,
    });
    let needs = needs.expect("it is told what the machine needs");
    assert_eq!(needs.lacks_speed(&SLOW).unwrap().needed, 800);
    group.run(ms(100));
    assert!(has_begun(&group), "better a slow backup than none");
    let follower = &group.primary.status().followers[0];
    assert!(follower.is_slow && follower.facts == SLOW);
    // The machine does less now.
    group.primary.needs_speed(200);
    assert!(!group.primary.status().followers[0].is_slow);
    assert_eq!(told_slow(&group).len(), 1);
}

#[test]
fn a_slow_host_is_not_taken_where_the_policy_lets_nobody_lag() {
    let group_of = |policy| {
        let mut group = group(2, policy);
        joins(&mut group, "b", false, FAST);
        joins(&mut group, "c", false, SLOW);
        group
    };
    let group = group_of(LagPolicy::Drop);
    let shortfall = Shortfall {
        needed: 800,
        there: 300,
    };
    assert_eq!(group.refusals(), [&Refusal::TooSlow(shortfall)]);
    assert!(has_begun(&group_of(LagPolicy::Slow)));
    assert!(!has_begun(&group_of(LagPolicy::DropAny)));
    // With nobody else, only `drop-any` does without.
    let alone = |policy| {
        let mut group = self::group(1, policy);
        joins(&mut group, "c", false, SLOW);
        has_begun(&group)
    };
    assert!(alone(LagPolicy::Drop));
    assert!(!alone(LagPolicy::DropAny));
}

/// The first that fits, and answers: one that is slow is none of those while a faster one may come.
#[test]
fn a_slow_spare_lets_a_faster_one_go_first() {
    let after = Duration::from_secs(10);
    let mut group = group(1, LagPolicy::Slow);
    group.run(after);
    joins(&mut group, "slow", true, SLOW);
    assert_eq!(group.refusals(), [&Refusal::NotNeeded]);
    joins(&mut group, "fast", true, FAST);
    let members = &group.primary.opened().membership().members;
    assert_eq!(*members, [host("fast")]);
    let mut group = self::group(1, LagPolicy::Slow);
    group.run(after * 2);
    joins(&mut group, "slow", true, SLOW);
    assert!(has_begun(&group), "nobody faster came");
}
