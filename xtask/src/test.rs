//! All tests: unit, property, conformance, simulator, real processes with a real Debian guest.

use crate::check::cargo;
use crate::event_loops::Collection;
use anyhow::{Context, Result, anyhow};
use std::thread::{self, ScopedJoinHandle};

/// Seeds of the simulator that every test run tries.
const SIMULATED_SEEDS: u64 = 500;

/// All tests but those that start whole pairs.
const TESTS: [&str; 4] = ["test", "--workspace", "--exclude", "xtask"];

/// What is shipped is optimised as a whole: the machines are judged by the same expectations. One after the other: the
/// x86-64 machine's tests are then of the very crate that ships (`crate::features`).
const OPTIMISED_MACHINES: [[&str; 6]; 2] = [
    ["test", "--release", "-p", "x86", "--test", "*"],
    ["test", "--release", "-p", "riscv", "--test", "*"],
];

/// Builds what is shipped and what is tested at the same time: an optimised crate is one unit of code, so that one
/// compiler works on it alone for a minute or two, and what waits for it leaves the other core idle.
fn build() -> Result<()> {
    thread::scope(|scope| {
        let shipped = scope.spawn(|| {
            cargo(&["build", "--release", "-p", "understudy"], &[])?;
            OPTIMISED_MACHINES
                .iter()
                .try_for_each(|tests| cargo(&[&tests[..], &["--no-run"]].concat(), &[]))
        });
        // As they are run below: what is built together decides which features of a library are on.
        let tests = cargo(&[&TESTS[..], &["--no-run"]].concat(), &[]);
        joined(shipped)?;
        tests
    })
}

fn joined(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    let panicked = |_| anyhow!("a thread that builds panicked");
    thread
        .join()
        .map_err(panicked)?
        .context("the optimised build")
}

/// Runs all tests. The program that the real-process tests start is built for release first.
pub fn run() -> Result<()> {
    build()?;
    let turns = Collection::begin()?;
    let (variable, file) = turns.variable();
    let file = file
        .to_str()
        .context("the path of this checkout is no text")?;
    let collecting = [(variable, file)];
    cargo(&TESTS, &collecting)?;
    for tests in &OPTIMISED_MACHINES {
        cargo(tests, &[])?;
    }
    crate::simulate::many(0..SIMULATED_SEEDS)?;
    // One after the other: each starts whole pairs, and this may be a machine with two cores.
    let real = [
        "test",
        "-p",
        "xtask",
        "--",
        "--test-threads=1",
        "--nocapture",
    ];
    cargo(&real, &collecting)?;
    turns.report()?;
    println!("test: all passed");
    Ok(())
}
