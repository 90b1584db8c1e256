//! All tests: unit, property, conformance, simulator, real processes with a real Debian guest.
//!
//! Two lanes run beside each other. What starts processes mostly waits; what computes is given the time that is left.

use crate::check::cargo;
use crate::event_loops::Collection;
use crate::program;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

/// Seeds of the simulator that every test run tries.
const SIMULATED_SEEDS: &str = "500";

/// From the root of the checkout, where cargo starts this.
const CRATES: &str = "crates";

/// All packages but the one whose tests start whole pairs of Debian.
const PACKAGES: [&str; 4] = ["test", "--workspace", "--exclude", "xtask"];

/// Crates whose integration tests start processes, servers or sockets, and wait for them.
const WAITING: [&str; 3] = ["arbiter", "network", "understudy"];

/// What is shipped is optimised as a whole: the machines are judged by the same expectations as releases.
const MACHINES: [&str; 2] = ["riscv", "x86"];

/// How much what computes stands back (`nice`): a tenth of a core where somebody else has something to do.
const STANDS_BACK: &str = "10";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// `cargo test` of these integration tests, in the order of the alphabet.
fn only(command: &[&str], names: &BTreeSet<String>) -> Vec<String> {
    let mut command = words(command);
    for name in names {
        command.extend(["--test".to_owned(), name.clone()]);
    }
    command
}

/// The program is chosen with the machines, though none of its tests has the name of one of theirs: they are then of the very
/// crates that ship (`crate::features`).
fn optimised_machines() -> Result<Vec<String>> {
    let packages = ["-p", "understudy", "-p", "riscv", "-p", "x86"];
    let names = integration_tests(Path::new(CRATES), &MACHINES)?;
    Ok(only(
        &[&["test", "--release"], &packages[..]].concat(),
        &names,
    ))
}

/// Names of integration tests of these packages among the crates of a directory.
fn integration_tests(crates: &Path, packages: &[&str]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for package in packages {
        let directory = crates.join(package).join("tests");
        if !directory.is_dir() {
            continue;
        }
        let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let is_test = path.extension().is_some_and(|extension| extension == "rs");
            if is_test || path.join("main.rs").exists() {
                let name = path.file_stem().context("a test has no name")?;
                names.insert(name.to_string_lossy().into_owned());
            }
        }
    }
    Ok(names)
}

/// The integration tests of all crates: those that wait, and those that compute.
fn lanes(crates: &Path) -> Result<[BTreeSet<String>; 2]> {
    let mut others = Vec::new();
    for entry in fs::read_dir(crates).with_context(|| crates.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !WAITING.contains(&name.as_str()) {
            others.push(name);
        }
    }
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let [waiting, computing] = [
        integration_tests(crates, &WAITING)?,
        integration_tests(crates, &others)?,
    ];
    // Cargo chooses integration tests by their names alone.
    if let Some(name) = waiting.intersection(&computing).next() {
        bail!("two tests are called {name}, one of which waits and one computes: rename one");
    }
    Ok([waiting, computing])
}

fn run_cargo(command: &[String], environment: &[(&str, &str)]) -> Result<()> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    cargo(&words, environment)
}

/// Builds what is shipped and what is tested at the same time: an optimised crate is one unit of code, so that one
/// compiler works on it alone for a minute or two, and what waits for it leaves the other core idle.
fn build() -> Result<()> {
    thread::scope(|scope| {
        let shipped = scope.spawn(|| {
            cargo(&["build", "--release", "-p", "understudy"], &[])?;
            let mut machines = optimised_machines()?;
            machines.push("--no-run".to_owned());
            run_cargo(&machines, &[])
        });
        // As they are run below: what is built together decides which features of a library are on.
        let tests = cargo(
            &[&PACKAGES[..], &["--lib", "--bins", "--tests", "--no-run"]].concat(),
            &[],
        );
        joined(shipped).context("the optimised build")?;
        tests
    })
}

fn joined(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    let panicked = |_| anyhow!("a thread panicked");
    thread.join().map_err(panicked)?
}

/// What computes, one after the other. What it says goes into a file: beside the other lane's it could not be read.
struct Computing {
    log: PathBuf,
}

impl Computing {
    fn run(&self, names: &BTreeSet<String>) -> Result<()> {
        let cargo = || vec![program::cargo_path()];
        let here = std::env::current_exe().context("this program's own path")?;
        let here = here.to_str().context("this program's path is no text")?;
        let tests = only(&[&PACKAGES[..], &["--lib", "--bins"]].concat(), names);
        let documentation = words(&[&PACKAGES[..], &["--doc"]].concat());
        let log = File::create(&self.log).with_context(|| self.log.display().to_string())?;
        for command in [
            [cargo(), tests].concat(),
            [cargo(), documentation].concat(),
            [cargo(), optimised_machines()?].concat(),
            words(&[here, "sim", "--seeds", SIMULATED_SEEDS]),
        ] {
            standing_back(&command, &log)?;
        }
        Ok(())
    }

    /// Shows what it said.
    fn show(&self) -> Result<()> {
        let mut log = File::open(&self.log).with_context(|| self.log.display().to_string())?;
        let mut out = io::stdout().lock();
        writeln!(out, "> what computed meanwhile")?;
        io::copy(&mut log, &mut out)?;
        Ok(())
    }
}

fn standing_back(command: &[String], mut log: &File) -> Result<()> {
    let line = command.join(" ");
    println!("> beside it: {line}");
    writeln!(log, "> {line}")?;
    let start = Instant::now();
    let status = program::by_hand("nice")
        .args(["-n", STANDS_BACK])
        .args(command)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .status()
        .context("nice (of coreutils) does not start")?;
    let took = start.elapsed().as_secs_f64();
    println!("> beside it: that took {took:.0} s: {line}");
    writeln!(log, "> that took {took:.0} s")?;
    if !status.success() {
        bail!("`{line}` failed");
    }
    Ok(())
}

/// What starts processes.
fn waiting(names: &BTreeSet<String>, collecting: &[(&str, &str)]) -> Result<()> {
    run_cargo(&only(&PACKAGES, names), collecting)?;
    // One after the other: each starts whole pairs, and this may be a machine with two cores.
    let whole_pairs = [
        "test",
        "-p",
        "xtask",
        "--",
        "--test-threads=1",
        "--nocapture",
    ];
    cargo(&whole_pairs, collecting)
}

/// Runs all tests. The program that the real-process tests start is built for release first.
pub fn run() -> Result<()> {
    build()?;
    let [waits, computes] = lanes(Path::new(CRATES))?;
    let turns = Collection::begin()?;
    let (variable, file) = turns.variable();
    let file = file
        .to_str()
        .context("the path of this checkout is no text")?;
    let lane = Computing {
        log: PathBuf::from("target/computing-tests.log"),
    };
    let (waited, computed) = thread::scope(|scope| {
        let computed = scope.spawn(|| lane.run(&computes));
        let waited = waiting(&waits, &[(variable, file)]);
        (waited, joined(computed))
    });
    lane.show()?;
    computed?;
    waited?;
    turns.report()?;
    println!("test: all passed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integration_test_is_in_one_lane() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        let [waiting, computing] = lanes(&crates).unwrap();
        assert!(waiting.contains("real_pair") && waiting.contains("stores"));
        assert!(computing.contains("replicas") && computing.contains("vector_oracle"));
    }
}
