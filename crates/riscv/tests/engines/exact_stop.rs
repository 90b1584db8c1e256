//! A machine stops at exactly the count that it was told, in the state that the reference has there:
//! from any instruction of any compiled piece, on the first way to it and on the way on.

use crate::blocks::Program;
use crate::blocks::execution::Execution;
use machine::input::InstructionCount;
use machine::{Machine as _, Stop};
use riscv::Machine;

/// Programs for each test.
const SEEDS: std::ops::Range<u64> = 9000..9002;
/// A count at which the first blocks are hot.
const START: InstructionCount = 9_000;
/// Counts behind it that are tried.
const WINDOW: InstructionCount = 160;

/// The reference only where there is nothing else: it is what the others are judged by.
fn judged(seed: u64) -> Vec<Execution> {
    let all = Execution::all(seed);
    all[usize::from(all.len() > 1)..].to_vec()
}

fn machine(program: &Program, execution: Execution) -> Machine {
    let mut machine = program.machine();
    execution.apply(&mut machine);
    machine
}

/// Runs to `count`; false if the program waits or ends before.
fn reaches(machine: &mut Machine, count: InstructionCount) -> bool {
    loop {
        match machine.run(count) {
            Stop::Output => drop(machine.outputs()),
            stop => return stop == Stop::Reached,
        }
    }
}

/// Digests of the reference at `START` and the counts behind it, as far as it runs without inputs.
fn digests(program: &Program, length: InstructionCount) -> Vec<u128> {
    let mut reference = machine(program, Execution::REFERENCE);
    (START..START + length)
        .map_while(|count| reaches(&mut reference, count).then(|| reference.digest()))
        .collect()
}

fn check(found: &mut Machine, count: InstructionCount, expected: u128, how: &str) {
    assert!(reaches(found, count), "{how}: it waits before {count}");
    assert_eq!(found.instruction_count(), count, "{how}");
    if found.digest() != expected {
        panic!("{how}: it differs at {count}\n{}", found.describe());
    }
}

#[test]
fn every_count_of_a_window_is_reached_exactly() {
    let mut tried = 0;
    for seed in SEEDS {
        let program = Program::random(seed);
        let expected = digests(&program, WINDOW);
        for execution in judged(seed) {
            for (count, digest) in (START..).zip(&expected) {
                let mut machine = machine(&program, execution);
                let how = format!("seed {seed}, {execution:?}, in one go");
                check(&mut machine, count, *digest, &how);
                tried += 1;
            }
        }
    }
    assert!(tried > WINDOW, "the programs end or wait at once");
}

#[test]
fn a_machine_goes_on_from_every_stop() {
    let mut tried = 0;
    for seed in SEEDS {
        let program = Program::random(seed);
        let expected = digests(&program, 6000);
        for execution in judged(seed) {
            for stride in [1, 2, 3, 5, 7, 11, 16, 23, 31, 64, 97, 150, 333, 1001] {
                let how = format!("seed {seed}, {execution:?}, every {stride}");
                let mut machine = machine(&program, execution);
                let window = 40 * stride;
                let stops = (START..).zip(&expected).take(window).step_by(stride);
                for (count, digest) in stops {
                    check(&mut machine, count, *digest, &how);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 500, "the programs end or wait at once");
}
