//! Real pairs of a Debian guest whose replicas have different engines: the digests of the two are
//! compared all the time, and when the primary is killed, the open connection goes on under the
//! other engine.

mod pair;

use anyhow::{Context, Result, ensure};
use machine::engine::Engine;
use pair::client::Client;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;
use xtask::engines;
use xtask::program;
use xtask::replica::{Configuration, Process, Replica, demo_guest_for, wait_for};

/// Digests that have to be compared, one a second, before a kill means anything.
const DIGESTS: u64 = 4;

/// A switch, and the directory of everything.
struct Site {
    _switch: Process,
    directory: PathBuf,
    program: PathBuf,
    guest: PathBuf,
    replicas: u32,
}

impl Site {
    /// For the guest of an architecture, by Debian's name.
    fn open(name: &str, architecture: &str) -> Result<Site> {
        let program = program::path()?;
        let guest = demo_guest_for(&program, architecture)?;
        let directory = xtask::bench::scratch(name)?;
        fs::create_dir(directory.join("arbiter"))?;
        let mut command = Command::new(&program);
        command
            .args(["switch", "--forward", "127.0.0.1:0=10.0.2.15:6379"])
            .arg("--listen")
            .arg(format!("unix:{}/switch.sock", directory.display()))
            .arg("--status-file")
            .arg(directory.join("switch.json"))
            .stdout(Stdio::null());
        Ok(Site {
            _switch: Process::start(&mut command)?,
            directory,
            program,
            guest,
            replicas: 0,
        })
    }

    fn redis_address(&self) -> Result<String> {
        wait_for("the switch", || {
            let status = fs::read(self.directory.join("switch.json")).unwrap_or_default();
            let status: Option<Value> = serde_json::from_slice(&status).ok();
            let host =
                status.and_then(|status| status["forwards"][0]["host"].as_str().map(str::to_owned));
            Ok(host)
        })
    }

    fn start(&mut self, engine: &str, peer: Option<&str>) -> Result<Replica> {
        self.replicas += 1;
        let state = self.directory.join(format!("replica-{}", self.replicas));
        let configuration = Configuration {
            program: &self.program,
            guest: &self.guest,
            memory: "256M",
            state: &state,
            switch: &format!("unix:{}/switch.sock", self.directory.display()),
            listen: "127.0.0.1:0",
            peer,
            peers: &[],
            arbiter: &self.directory.join("arbiter"),
            engine: Some(engine),
            disk: None,
            journal: None,
        };
        Replica::start(Command::new(&self.program), &configuration)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("kept for a look: {}", self.directory.display());
        } else {
            // What cannot be removed now, nobody can remove here.
            let _removed = fs::remove_dir_all(&self.directory);
        }
    }
}

fn listen_address(status: &Value) -> Result<String> {
    let address = status["listen"].as_str();
    Ok(address.context("it does not say where it listens")?.into())
}

/// What runs on this host where `engine` is asked for.
fn runs(engine: &str) -> &str {
    if riscv::RISCV64.available(Engine::Jit) == Engine::Jit {
        engine
    } else {
        "interpreter"
    }
}

/// Waits until the backup has compared so many digests while the client counts, and nothing
/// differs.
fn compare(client: &mut Client, backup: &Replica, engine: &str) -> Result<u64> {
    client.count_until("digests to be compared", || {
        ensure!(backup.events("diverged") == 0, "the machines differ");
        let status = backup.status()?.context("the backup does not answer")?;
        ensure!(
            status["engine"] == runs(engine),
            "it runs {}",
            status["engine"]
        );
        let compared = status["digests_compared"].as_u64().unwrap_or_default();
        Ok((compared >= DIGESTS).then_some(compared))
    })
}

/// Boots the guest under the first engine, and kills a primary for each further one.
fn hand_on(architecture: &str, name: &str, engines: &[&str]) -> Result<()> {
    let mut site = Site::open(name, architecture)?;
    let address = site.redis_address()?;
    let start = Instant::now();
    let mut primary = site.start(engines[0], None)?;
    let mut status = primary.await_state("alone")?;
    ensure!(
        status["engine"] == runs(engines[0]),
        "it runs {}",
        status["engine"]
    );
    // The first backup follows the boot as well.
    let mut backup = site.start(engines[1], Some(&listen_address(&status)?))?;
    let mut client = Client::connect(&address)?;
    println!(
        "{engines:?}: Redis after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    for (index, engine) in engines.iter().enumerate().skip(1) {
        if index > 1 {
            backup = site.start(engine, Some(&listen_address(&status)?))?;
        }
        primary.await_state("protected")?;
        client.count(100)?;
        let compared = compare(&mut client, &backup, engine)?;
        client.longest_wait = Default::default();
        primary.process.kill()?;
        client.count(1)?;
        println!(
            "{} killed, {engine} goes on: {compared} digests were equal, the longest wait was {:?}",
            engines[index - 1],
            client.longest_wait
        );
        status = backup.await_live()?;
        client.count(200)?;
        client.check()?;
        ensure!(backup.events("diverged") == 0, "the machines differ");
        // The place is taken by a new backup in the next round; the dead one is dropped.
        primary = std::mem::replace(&mut backup, primary);
    }
    Ok(())
}

fn passes(result: Result<()>) {
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

#[test]
fn debian_goes_on_under_the_interpreter_when_the_jit_is_killed_and_back() {
    passes(hand_on(
        "riscv64",
        "jit-first",
        &["jit", "interpreter", "jit"],
    ));
}

#[test]
fn debian_goes_on_under_the_jit_when_the_interpreter_is_killed_and_back() {
    passes(hand_on(
        "riscv64",
        "interpreter-first",
        &["interpreter", "jit", "interpreter"],
    ));
}

/// x86-64: the backup of the other engine follows Debian's boot, and then the load.
#[test]
fn debian_amd64_goes_on_under_the_interpreter_when_the_jit_is_killed_and_back() {
    passes(hand_on("amd64", "amd64", &["jit", "interpreter", "jit"]));
}

/// Debian's boot to Redis, four clients' load and its power-off, recorded by one engine and replayed by
/// the other: all digests, and what the guest printed, are equal.
#[test]
fn what_one_engine_recorded_of_debian_amd64_the_other_replays() {
    if runs("jit") != "jit" {
        println!("not tried: this host has one engine only");
        return;
    }
    passes(record_and_replay());
}

fn record_and_replay() -> Result<()> {
    let directory = xtask::bench::scratch("amd64-recording")?;
    engines::run(&engines::Options {
        architecture: "amd64".to_owned(),
        workloads: vec!["redis".to_owned()],
        guest_directory: directory.clone(),
        harts: 1,
        directions: vec![("jit".to_owned(), "interpreter".to_owned())],
        replay_program: None,
    })?;
    fs::remove_dir_all(directory)?;
    Ok(())
}
