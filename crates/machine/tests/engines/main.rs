//! Engines judged by the interpreter, on programs of random blocks.
//!
//! On hosts that the JIT does not know, the interpreter stopped at other counts is judged.

mod blocks;

use blocks::execution::Execution;
use blocks::judge::judge;
use blocks::{Account, BLOCKS, Program};

/// Programs that every test run tries.
const PROGRAMS: u64 = 200;

/// What is judged: every other engine of this host, and the reference stopped elsewhere.
fn judged(seed: u64) -> Vec<Execution> {
    Execution::all(seed)
}

fn judge_seed(seed: u64) -> (u64, Account) {
    match judge(&Program::random(seed), seed, &judged(seed)) {
        Ok(reference) => (reference.length(), reference.account),
        Err(difference) => panic!(
            "{difference}\nto see it again, in a release build: \
             cargo xtask blocks --seed {seed} --count {BLOCKS}"
        ),
    }
}

#[test]
fn random_blocks_are_the_same_on_every_engine() {
    let (mut total, mut length) = (Account::default(), 0);
    for seed in 0..PROGRAMS {
        let (instructions, account) = judge_seed(seed);
        total.add(&account);
        length += instructions;
    }
    eprintln!("{length} instructions {total:?}");
}
