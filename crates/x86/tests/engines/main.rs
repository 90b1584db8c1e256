//! Both engines, instruction by instruction: random code that faults, loops, calls and changes itself has
//! the same digest at every count, wherever it is stopped and whatever is forgotten meanwhile.

mod code;
mod compare;
#[path = "../../testing/kernel_image.rs"]
mod kernel_image;
mod kernels;
#[path = "../determinism/random.rs"]
mod random;
mod remapping;
mod rings;
mod spaces;

use compare::check;

/// Seeds that every test run tries; `UNDERSTUDY_SEEDS` says how many else.
const SEEDS: u64 = 24;
/// Likewise, of guests with several address spaces.
const SPACES_SEEDS: u64 = 4;

#[allow(clippy::disallowed_methods)] // the seeds are an argument of the test
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_code_is_the_same_on_both_engines() {
    let mut faults = 0;
    for seed in 0..number("UNDERSTUDY_SEEDS").unwrap_or(SEEDS) {
        faults += check(seed);
    }
    assert!(faults > 1000, "hardly anything faulted: {faults}");
}

/// Replays the seed in `UNDERSTUDY_SEED`, or one that is not among the others.
#[test]
fn one_seed() {
    check(number("UNDERSTUDY_SEED").unwrap_or(1_000_000));
}

#[test]
fn what_is_remembered_of_an_address_space_is_true_when_it_runs_again() {
    for seed in 0..number("UNDERSTUDY_SEEDS").unwrap_or(SPACES_SEEDS) {
        spaces::check(seed);
    }
}

/// As [`one_seed`].
#[test]
fn one_seed_of_spaces() {
    spaces::check(number("UNDERSTUDY_SEED").unwrap_or(1_000_000));
}
