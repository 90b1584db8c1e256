//! All tests: unit, property, conformance, simulator, real processes with a real Debian guest.

use crate::check::cargo;
use anyhow::Result;

/// Seeds of the simulator that every test run tries.
const SIMULATED_SEEDS: u64 = 500;

/// Runs all tests. The program that the real-process tests start is built for release first.
pub fn run() -> Result<()> {
    cargo(&["build", "--release", "-p", "understudy"], &[])?;
    cargo(&["test", "--workspace", "--exclude", "xtask"], &[])?;
    // What is shipped is optimised as a whole: the machines are judged by the same expectations.
    let machine = [
        "test",
        "--release",
        "-p",
        "riscv",
        "-p",
        "x86",
        "--test",
        "*",
    ];
    cargo(&machine, &[])?;
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
    cargo(&real, &[])?;
    println!("test: all passed");
    Ok(())
}
