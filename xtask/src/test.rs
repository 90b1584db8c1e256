//! All tests: unit, property, conformance, simulator, real processes with a real Debian guest.

use crate::check::cargo;
use crate::event_loops::Collection;
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

/// Seeds of the simulator that every test run tries.
const SIMULATED_SEEDS: u64 = 500;

/// All tests but those that start whole pairs.
const TESTS: [&str; 4] = ["test", "--workspace", "--exclude", "xtask"];

/// What is shipped is optimised as a whole: the machines are judged by the same expectations. One after the other: the
/// x86-64 machine's tests are then of the very crate that ships, as the program is chosen with them, though none of its tests
/// has the name of one of these (`crate::features`).
fn optimised_machines() -> Result<[Vec<String>; 2]> {
    let command = |packages: &[&str]| -> Vec<String> {
        let words = ["test", "--release"].iter().chain(packages);
        words.map(|word| (*word).to_owned()).collect()
    };
    let mut x86 = command(&["-p", "understudy", "-p", "x86"]);
    for name in integration_tests("x86")? {
        x86.extend(["--test".to_owned(), name]);
    }
    Ok([x86, command(&["-p", "riscv", "--test", "*"])])
}

/// Names of a crate's integration tests, in the order of the alphabet.
fn integration_tests(package: &str) -> Result<BTreeSet<String>> {
    let directory = Path::new("crates").join(package).join("tests");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let path = entry?.path();
        let is_test = path.extension().is_some_and(|extension| extension == "rs");
        if is_test || path.join("main.rs").exists() {
            let name = path.file_stem().context("a test has no name")?;
            names.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn cargo_with(command: &[String], more: &[&str]) -> Result<()> {
    let words: Vec<&str> = command
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    cargo(&words, &[])
}

/// Builds what is shipped and what is tested at the same time: an optimised crate is one unit of code, so that one
/// compiler works on it alone for a minute or two, and what waits for it leaves the other core idle.
fn build() -> Result<()> {
    thread::scope(|scope| {
        let shipped = scope.spawn(|| {
            cargo(&["build", "--release", "-p", "understudy"], &[])?;
            optimised_machines()?
                .iter()
                .try_for_each(|tests| cargo_with(tests, &["--no-run"]))
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
    for tests in optimised_machines()? {
        cargo_with(&tests, &[])?;
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
