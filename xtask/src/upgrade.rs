//! `cargo xtask upgrade`: a rolling upgrade from the program of a commit before, under load.

use crate::counter::Client;
use crate::program;
use crate::redis::Connection;
use crate::replica::{Replica, demo_guest, wait_for};
use crate::site::Site;
use anyhow::{Context, Result, bail, ensure};
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the client counts between two steps.
const PAUSE: Duration = Duration::from_millis(500);

/// What decides whether two programs pair.
#[derive(Debug, PartialEq, Eq)]
struct Versions {
    semantics: String,
    /// The oldest protocol that it speaks, and the newest.
    protocols: RangeInclusive<u32>,
}

impl Versions {
    /// As `--version` tells them.
    fn of(program: &Path) -> Result<Versions> {
        let output = Command::new(program).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{}: {}", program.display(), text.trim());
        Versions::told(&text)
    }

    fn told(text: &str) -> Result<Versions> {
        let after = |word: &str| {
            let (_, rest) = text.split_once(word)?;
            let end = rest.find([',', ';', ')'])?;
            Some(&rest[..end])
        };
        let newest = after("protocol version ").context("it tells no protocol version")?;
        // A program of before this was told speaks one.
        let oldest = after("speaks ").and_then(|spoken| spoken.split_once(" to "));
        let oldest = oldest.map_or(newest, |(oldest, _)| oldest);
        Ok(Versions {
            semantics: after("riscv64 ")
                .context("it tells no semantics version")?
                .to_owned(),
            protocols: oldest.parse()?..=newest.parse()?,
        })
    }

    fn pair_with(&self, other: &Versions) -> bool {
        let (ours, theirs) = (&self.protocols, &other.protocols);
        let oldest = ours.start().max(theirs.start());
        self.semantics == other.semantics && oldest <= ours.end().min(theirs.end())
    }
}

/// `cargo xtask upgrade`.
pub fn run(from: Option<&str>) -> Result<()> {
    let commit = resolve(from.unwrap_or(default_commit()?))?;
    let old = build(&commit)?;
    let new = program::path()?;
    let (before, after) = (Versions::of(&old)?, Versions::of(&new)?);
    let site = Site::open("upgrade", demo_guest(&new)?, "256M", 6379)?;
    let listen = two_addresses()?;
    let upgrade = Upgrade {
        site,
        old,
        new,
        listen,
    };
    if before.pair_with(&after) {
        upgrade.host_by_host()
    } else {
        upgrade.refused()
    }
}

/// The commit before what is in this tree.
fn default_commit() -> Result<&'static str> {
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Ok(if changed.is_empty() { "HEAD~1" } else { "HEAD" })
}

fn resolve(commit: &str) -> Result<String> {
    git(&["rev-parse", "--verify", &format!("{commit}^{{commit}}")])
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).output()?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The program of a commit: built in a worktree under `target`, and kept for the next time.
fn build(commit: &str) -> Result<PathBuf> {
    let directory = std::path::absolute("target/upgrade")?;
    let kept = directory.join(format!("understudy-{commit}"));
    if kept.exists() {
        return Ok(kept);
    }
    let tree = directory.join("tree");
    if !tree.exists() {
        std::fs::create_dir_all(&directory)?;
        let tree = tree.to_str().context("a path that is no text")?;
        git(&["worktree", "prune"])?;
        git(&["worktree", "add", "--quiet", "--detach", tree, commit])?;
    }
    let checked_out = Command::new("git")
        .args(["checkout", "--quiet", "--detach", commit])
        .current_dir(&tree)
        .status()?;
    ensure!(checked_out.success(), "{commit} cannot be checked out");
    let status = program::cargo()
        .args(["build", "--release", "-p", "understudy", "--target-dir"])
        .arg(directory.join("target"))
        .current_dir(&tree)
        .status()?;
    ensure!(status.success(), "the program of {commit} does not build");
    std::fs::copy(directory.join("target/release/understudy"), &kept)?;
    Ok(kept)
}

/// Two free ports of this host, which both hosts' configurations have to name.
fn two_addresses() -> Result<[String; 2]> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind()?, bind()?];
    let [a, b] = listeners.map(|listener| listener.local_addr().map(|at| at.to_string()));
    Ok([a?, b?])
}

/// Waits until `backup` follows `primary`, and both know that it protects it.
fn follows(backup: &Replica, primary: &Replica) -> Result<()> {
    backup.await_state("replaying")?;
    primary.await_state("protected")?;
    Ok(())
}

struct Upgrade {
    site: Site,
    old: PathBuf,
    new: PathBuf,
    listen: [String; 2],
}

/// The two hosts.
const HOSTS: [&str; 2] = ["a", "b"];

impl Upgrade {
    fn start(&self, host: usize, program: &Path) -> Result<Replica> {
        let [own, other] = [host, 1 - host].map(|host| self.listen[host].as_str());
        self.site.start_host(HOSTS[host], program, [own, other])
    }

    /// Two replicas of the old program; the first is the primary.
    fn pair(&self) -> Result<[Replica; 2]> {
        let first = self.start(0, &self.old)?;
        first.await_state("alone")?;
        let second = self.start(1, &self.old)?;
        first.await_state("protected")?;
        Ok([first, second])
    }

    fn host_by_host(self) -> Result<()> {
        let [mut first, mut second] = self.pair()?;
        let service = self.site.service.clone();
        wait_for("Redis", || {
            let connection = Connection::open(&service, Duration::from_secs(1));
            Ok(connection.and_then(|mut c| c.call(&["PING"])).ok())
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let client = Client::open(&service, stop.clone())?;
        let client = std::thread::spawn(move || client.run());
        std::thread::sleep(PAUSE);

        second.process.kill()?;
        let second = self.start(1, &self.new)?;
        follows(&second, &first)?;
        self.switch_over(HOSTS[1], &second)?;
        follows(&first, &second)?;
        std::thread::sleep(PAUSE);

        first.process.kill()?;
        let first = self.start(0, &self.new)?;
        follows(&first, &second)?;
        self.switch_over(HOSTS[0], &first)?;
        follows(&second, &first)?;
        std::thread::sleep(PAUSE);
        stop.store(true, Ordering::Relaxed);
        let client = client.join();
        let client = client.map_err(|_| anyhow::anyhow!("the client panicked"))?;
        let outcome = &client.outcome;
        println!(
            "{} requests, lost {}, repeated {}; load {}",
            outcome.requests,
            outcome.lost,
            outcome.repeated,
            program::load()
        );
        if let Some(error) = client.error {
            return Err(error.context("the one connection broke"));
        }
        ensure!(outcome.lost == 0 && outcome.repeated == 0, "{outcome:?}");
        ensure!(
            outcome.requests > 100,
            "too little traffic to mean anything"
        );
        Ok(())
    }

    /// Asked at the backup, which is to have the machine.
    fn switch_over(&self, host: &str, backup: &Replica) -> Result<()> {
        let output = Command::new(&self.new)
            .args(["switchover", "--dir"])
            .arg(backup.state_directory())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "no switchover to {host}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!("{}", said.trim());
        Ok(())
    }

    /// The versions do not allow it: the new program's replica is turned away, both say why, and the machine
    /// goes on with the old ones.
    fn refused(self) -> Result<()> {
        let [first, mut second] = self.pair()?;
        second.process.kill()?;
        let mut newer = self.start(1, &self.new)?;
        let at_primary = wait_for("the primary to say why", || {
            Ok(first.details("refused").pop())
        })?;
        println!("the primary: {at_primary}");
        let at_backup = wait_for("the backup to say why", || {
            let stopped = newer.details("stopped").pop();
            let status = newer.status()?;
            let waits = status.and_then(|status| status["state"].as_str().map(str::to_owned));
            Ok(stopped.or(waits).filter(|why| why.contains("version")))
        })?;
        println!("the backup: {at_backup}");
        newer.process.kill()?;
        let _older = self.start(1, &self.old)?;
        first.await_state("protected")?;
        println!(
            "the versions differ: both hosts have to be stopped, and say so; the old ones go on"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_pair_that_have_a_protocol_in_common() {
        let told = |protocol: &str, semantics: u32| {
            let text = format!(
                "understudy 0.1.0 (semantics versions: riscv64 {semantics}, x86-64 1007; {protocol}; commit 0123)"
            );
            Versions::told(&text).unwrap()
        };
        let before = told("protocol version 9", 8);
        let after = told("protocol version 10, speaks 9 to 10", 8);
        assert_eq!(
            (before.protocols.clone(), after.protocols.clone()),
            (9..=9, 9..=10)
        );
        assert!(before.pair_with(&after) && after.pair_with(&before));
        assert!(!after.pair_with(&told("protocol version 8", 8)));
        assert!(!after.pair_with(&told("protocol version 10, speaks 9 to 10", 9)));
    }
}
