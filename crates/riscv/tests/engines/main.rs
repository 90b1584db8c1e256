//! Engines judged by the interpreter, on programs of random blocks.
//!
//! On hosts that the JIT does not know, the interpreter stopped at other counts is judged.

mod blocks;
mod exact_stop;

use blocks::execution::Execution;
use blocks::judge::judge;
use blocks::random::Random;
use blocks::{Account, Program};
use riscv::isa;

/// Programs that every test run tries.
const PROGRAMS: u64 = 250;

/// Ways to execute that are judged on one program: all of them on the first, then one in turn.
fn judged(seed: u64) -> Vec<Execution> {
    let all = Execution::all(seed);
    if seed == 0 || all.len() == 1 {
        return all;
    }
    vec![all[1 + seed as usize % (all.len() - 1)]]
}

fn judge_seed(seed: u64) -> Account {
    match judge(&Program::random(seed), seed, &judged(seed)) {
        Ok(reference) => reference.account,
        Err(difference) => panic!(
            "{difference}\nto see it again: \
             cargo xtask blocks --seed {seed} --count 1"
        ),
    }
}

#[test]
fn random_blocks_are_the_same_on_every_engine() {
    let mut total = Account::default();
    (0..PROGRAMS).for_each(|seed| total.add(&judge_seed(seed)));
    // what the programs have to have done between them, lest they test nothing
    assert!(
        total.completed > 3 * total.timed_out,
        "most runs have to come to their end: {total:?}"
    );
    for cause in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15] {
        let times = total.exceptions[cause];
        assert!(times > 100, "exception {cause} hardly ever came: {total:?}");
    }
    assert!(total.interrupts[3] > 10 && total.interrupts[7] > 10);
}

/// Every row of the instruction table is in some program's blocks.
#[test]
fn every_instruction_is_in_some_block() {
    let mut found = [false; 256];
    for seed in 0..PROGRAMS {
        for op in Program::random(seed).block_ops() {
            found[op as usize] = true;
        }
    }
    let missing: Vec<_> = isa::encodings()
        .filter(|row| !found[row.op as usize])
        .map(|row| row.name)
        .collect();
    assert!(missing.is_empty(), "no block has {missing:?}");
}

/// What the fuzzer does, with bytes that nobody chose: mostly illegal instructions.
#[test]
fn arbitrary_bytes_are_the_same_on_every_engine() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let length = random.below(200);
        let bytes: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
        let program = Program::of_bytes(seed, &bytes);
        if let Err(difference) = judge(&program, seed, &judged(seed)) {
            panic!("{difference}");
        }
    }
}
