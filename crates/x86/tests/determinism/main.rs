//! The one contract: the same snapshot and the same inputs give the same machine at every instruction
//! count, however it is run, stopped, looked at, saved and restored.

#[path = "../../../machine/testing/brought_along.rs"]
mod brought_along;
mod guest;
#[path = "../../testing/kernel_image.rs"]
mod kernel_image;
mod random;
mod recording;
#[path = "../../../machine/testing/running_snapshot.rs"]
mod running_snapshot;

use random::Random;
use recording::{Recording, Treatment, record, replay};

const SEEDS: u64 = 12;
/// It has three CPUs.
const PARANOID_SEED: u64 = 2;

fn check(seed: u64) -> Recording {
    let recording = record(seed);
    for treatment in Treatment::ALL {
        if matches!(treatment, Treatment::Paranoid) && seed != PARANOID_SEED {
            continue; // it takes as long as all others
        }
        let mut random = Random::new(seed ^ 0x5eed);
        if let Err(difference) = replay(&recording, treatment, &mut random) {
            panic!(
                "{difference}\nseed {seed}, {treatment:?}; to see it again: \
                 UNDERSTUDY_SEED={seed} cargo test -p x86 --test determinism one_seed"
            );
        }
    }
    recording
}

#[test]
fn a_guest_is_the_same_however_it_is_run() {
    let recordings: Vec<_> = (0..SEEDS).map(check).collect();
    // What they have to have done between them, lest this tests nothing.
    let sum = |of: fn(&Recording) -> usize| recordings.iter().map(of).sum::<usize>();
    assert!(
        sum(|r| r.printed.len()) > 100,
        "hardly anything was printed"
    );
    assert!(sum(|r| r.idle_stops) > 20, "hardly any guest waited");
    let sources = ["timer", "serial port", "a CPU", "a CPU, not to be masked,"];
    for (index, what) in sources.into_iter().enumerate() {
        let interrupts: u64 = recordings.iter().map(|r| r.interrupts[index]).sum();
        assert!(interrupts > 100, "{what} interrupted {interrupts} times");
    }
    assert!(sum(|r| r.inputs.len()) > 60, "hardly any inputs");
}

/// Replays the seed in `UNDERSTUDY_SEED`, or one that is not among the others.
#[test]
#[allow(clippy::disallowed_methods)] // the seed is an argument of the test
fn one_seed() {
    let seed = std::env::var("UNDERSTUDY_SEED").ok();
    check(seed.and_then(|seed| seed.parse().ok()).unwrap_or(1000));
}
