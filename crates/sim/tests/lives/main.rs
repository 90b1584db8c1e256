//! A random model of a machine's lives: hosts that start, crash, lose power and freeze at any time,
//! disks that lose what was not synced, an arbiter that loses answers. The decisions are those that
//! ship ([`replication::startup`], [`replication::succession`], [`replication::marker`]); the log, the
//! copying of disks and the guest are a few lines of model.
//!
//! Replay one seed: `LIVES_SEED=17 cargo test -p sim --test lives -- --nocapture`

mod model;
mod replica;

use model::{Options, World};
use replication::mutation::Mutations;
use replication::succession::Durability;

fn seeds(default: u64) -> std::ops::Range<u64> {
    match std::env::var("LIVES_SEED").map(|seed| seed.parse()) {
        Ok(Ok(seed)) => seed..seed + 1,
        Ok(Err(error)) => panic!("LIVES_SEED: {error}"),
        Err(_) => {
            let many = std::env::var("LIVES_SEEDS")
                .ok()
                .and_then(|n| n.parse().ok());
            0..many.unwrap_or(default)
        }
    }
}

/// Runs every seed with `options`, and says which situations occurred.
fn run(options: &Options, default: u64) -> model::Reached {
    let mut reached = model::Reached::default();
    for seed in seeds(default) {
        let mut world = World::new(seed, options.clone());
        if let Err(why) = world.run() {
            let tail = world.trace.len().saturating_sub(200);
            for line in &world.trace[tail..] {
                eprintln!("{line}");
            }
            panic!("seed {seed} of {options:?}: {why}; replay with LIVES_SEED={seed}");
        }
        for (situation, times) in world.reached {
            *reached.entry(situation).or_default() += times;
        }
    }
    eprintln!("{options:?}: {reached:?}");
    reached
}

fn expect(reached: &model::Reached, situations: &[&str]) {
    if std::env::var("LIVES_SEED").is_ok() {
        return;
    }
    for situation in situations {
        assert!(
            reached.contains_key(situation),
            "{situation:?} never occurred: {reached:?}"
        );
    }
}

const ALWAYS: &[&str] = &[
    "powered on",
    "lost the race to power on",
    "started from its disk",
    "protected",
    "took over",
    "lost a claim",
    "a key landed without an answer",
    "the copy was cut off",
    "unsynced writes were lost",
    "the guest powered off",
    "refused after the end",
    "a new life by a person's word",
];

fn options(hosts: usize, durability: Durability) -> Options {
    Options {
        hosts,
        mutations: Mutations::default(),
        durability,
        torn_keys: false,
    }
}

#[test]
fn two_hosts_whose_primary_makes_a_flush_durable() {
    let reached = run(&options(2, Durability::Primary), 1500);
    expect(&reached, ALWAYS);
    expect(&reached, &["started from the disk of the reign before"]);
}

#[test]
fn two_hosts_that_both_make_a_flush_durable() {
    let reached = run(&options(2, Durability::Both), 1500);
    expect(&reached, ALWAYS);
    expect(&reached, &["started from a member's disk"]);
}

#[test]
fn three_hosts() {
    for durability in [Durability::Primary, Durability::Both] {
        expect(&run(&options(3, durability), 700), ALWAYS);
    }
}

#[test]
fn torn_keys_stop_everybody_and_harm_nobody() {
    let options = Options {
        torn_keys: true,
        ..options(2, Durability::Primary)
    };
    expect(&run(&options, 800), &["a key was torn"]);
}

/// Each rule, taken away, is missed within so many seeds.
#[test]
fn every_rule_of_starting_is_needed() {
    use replication::mutation::Mutation;
    let rules = [
        (Mutation::MembersNotAsked, 300),
        (Mutation::AnyDiskStarts, 300),
        (Mutation::HalfCopiedDiskStarts, 300),
        (Mutation::NeverSettledNotAsked, 2000),
        (Mutation::SilentPeersAreGone, 300),
    ];
    for (mutation, bound) in rules {
        let found = (0..bound).find(|seed| {
            let both = [Durability::Primary, Durability::Both];
            both.into_iter().any(|durability| {
                let mutations = Mutations::only(mutation);
                let options = Options {
                    mutations,
                    ..options(2, durability)
                };
                World::new(*seed, options).run().is_err()
            })
        });
        let found = found.unwrap_or_else(|| panic!("{mutation:?} lives through {bound} seeds"));
        eprintln!("{mutation:?} is found by seed {found}");
    }
}
