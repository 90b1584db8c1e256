//! The one contract: the same snapshot and the same inputs give the same machine at every
//! instruction count, however it is run, stopped, looked at, saved and restored.

#[path = "../instructions/assembler.rs"]
mod assembler;
#[path = "../../../machine/testing/brought_along.rs"]
mod brought_along;
#[path = "../engines/execution.rs"]
mod execution;
mod program;
mod random;
mod recording;
#[path = "../../../machine/testing/running_snapshot.rs"]
mod running_snapshot;

use execution::Execution;
use random::Random;
use recording::{Recording, Treatment, record, replay};

/// Seeds for each number of harts.
const SEEDS: u64 = 8;

/// Every way of running a guest gives the same digests and outputs, on every engine; and what
/// another engine records, the reference replays.
fn check(seed: u64, harts: u32) -> Recording {
    let recording = record(seed, harts, Execution::REFERENCE);
    for treatment in Treatment::ALL {
        check_replay(&recording, seed, Execution::REFERENCE, treatment);
    }
    let others: Vec<_> = Execution::others(seed).collect();
    for (turn, execution) in others.iter().enumerate() {
        let turn = turn + seed as usize;
        let treatment = Treatment::ALL[turn % (Treatment::ALL.len() - 1)];
        check_replay(&recording, seed, *execution, treatment);
        check_replay(&recording, seed, *execution, Treatment::Everything);
    }
    if let Some(execution) = others.get(seed as usize % others.len().max(1)) {
        let recording = record(seed, harts, *execution);
        for treatment in [Treatment::Undisturbed, Treatment::Everything] {
            check_replay(&recording, seed, Execution::REFERENCE, treatment);
        }
    }
    recording
}

fn check_replay(recording: &Recording, seed: u64, execution: Execution, treatment: Treatment) {
    let mut random = Random::new(seed ^ 0x5eed);
    if let Err(difference) = replay(recording, execution, treatment, &mut random) {
        panic!(
            "{difference}\nseed {seed}, {} harts, recorded by {:?}, replayed by {execution:?}, \
             {treatment:?}; to see it again: \
             UNDERSTUDY_SEED={seed} cargo test -p riscv --test determinism one_seed",
            recording.harts, recording.execution
        );
    }
}

/// What the guests of a test have to have done between them, lest it tests nothing.
fn check_all(harts: u32) {
    let recordings: Vec<_> = (0..SEEDS)
        .map(|seed| check(seed * 3 + u64::from(harts), harts))
        .collect();
    let sum = |of: fn(&Recording) -> usize| recordings.iter().map(of).sum::<usize>();
    assert!(sum(|r| r.outputs.len()) > 0, "no guest had an output");
    assert!(sum(|r| r.idle_stops) > 0, "no guest waited");
    assert!(
        sum(|r| r.inputs.len()) > SEEDS as usize * 4,
        "hardly any inputs"
    );
    let long = recordings
        .iter()
        .filter(|r| r.end >= recording::LENGTH)
        .count();
    assert!(long * 2 > recordings.len(), "most guests ended early");
}

#[test]
fn one_hart_is_the_same_however_it_is_run() {
    check_all(1);
}

#[test]
fn two_harts_are_the_same_however_they_are_run() {
    check_all(2);
}

#[test]
fn three_harts_are_the_same_however_they_are_run() {
    check_all(3);
}

/// Replays the seed in `UNDERSTUDY_SEED`, or one that is not among the others.
#[test]
#[allow(clippy::disallowed_methods)] // the seed is an argument of the test
fn one_seed() {
    let seed = std::env::var("UNDERSTUDY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    for harts in 1..=3 {
        check(seed.unwrap_or(1000), harts);
    }
}
