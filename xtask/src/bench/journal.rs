//! A Redis that keeps nothing on disk, on one host with a journal, while everything is killed at once.

use super::redis::redis_benchmark;
use crate::program;
use crate::redis::{Connection, Reply};
use crate::replica::{Replica, demo_guest, wait_for};
use crate::site::Site;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PORT: u16 = 6379;
const CLIENTS: usize = 20;
/// How long one reply may take before the client connects again.
const PATIENCE: Duration = Duration::from_secs(60);
/// A client whose connection was refused asks again after this.
const PAUSE: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often everything was killed.
    pub kills: usize,
    /// Increments that were acknowledged.
    pub acknowledged: u64,
    /// Of those, how many were not there later.
    pub lost: u64,
    /// Increments that were there twice.
    pub repeated: u64,
    /// Connections that broke: those of kills that the switch outlived must not.
    pub broken: u64,
    /// From each kill until the machine was live again, in seconds.
    pub live_after_s: Vec<f64>,
}

/// A client with a counter of its own.
struct Client {
    key: String,
    acknowledged: u64,
    lost: u64,
    repeated: u64,
    broken: u64,
}

impl Client {
    fn run(mut self, address: &str, stop: &AtomicBool) -> Result<Client> {
        while !stop.load(Ordering::Relaxed) {
            let before = self.acknowledged;
            if self.session(address, stop).is_err() {
                self.broken += u64::from(self.acknowledged > before);
                std::thread::sleep(PAUSE);
            }
        }
        Ok(self)
    }

    /// Counts on one connection for as long as it lasts.
    fn session(&mut self, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut connection = Connection::open(address, PATIENCE)?;
        let found = match connection.call(&["GET", &self.key])? {
            Reply::Text(text) => std::str::from_utf8(&text)?.parse()?,
            _ => 0,
        };
        // An increment whose reply never came may have happened.
        self.lost += self.acknowledged.saturating_sub(found);
        self.repeated += found.saturating_sub(self.acknowledged + 1);
        let mut expected = found;
        while !stop.load(Ordering::Relaxed) {
            expected += 1;
            let Reply::Integer(value) = connection.call(&["INCR", &self.key])? else {
                anyhow::bail!("INCR gave no number");
            };
            let value = value as u64;
            self.lost += expected.saturating_sub(value);
            self.repeated += value.saturating_sub(expected);
            expected = value;
            self.acknowledged = value;
        }
        Ok(())
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Client>>>,
}

impl Load {
    fn start(address: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|client| {
            let (address, stop) = (address.to_owned(), stop.clone());
            let client = Client {
                key: format!("counter:{client}"),
                acknowledged: 0,
                lost: 0,
                repeated: 0,
                broken: 0,
            };
            std::thread::spawn(move || client.run(&address, &stop))
        });
        Load {
            clients: clients.collect(),
            stop,
        }
    }

    fn end(self, outcome: &mut Outcome) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            let client = client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
            outcome.acknowledged += client.acknowledged;
            outcome.lost += client.lost;
            outcome.repeated += client.repeated;
            outcome.broken += client.broken;
        }
        Ok(())
    }
}

/// Kills everything so often, under load: every second time the switch as well, and with it all
/// connections.
pub fn run(kills: usize, memory: &str, journal: &Path) -> Result<Outcome> {
    let guest = demo_guest(&program::path()?)?;
    let mut site = Site::open("journal", guest, memory, PORT)?;
    let mut replica = site.start_with_journal(journal)?;
    replica.await_state("journaled")?;
    let load = Load::start(&site.service);
    let mut outcome = Outcome::default();
    for kill in 1..=kills {
        std::thread::sleep(Duration::from_millis(1000 + 137 * (kill as u64 % 7)));
        let at = Instant::now();
        replica.process.kill()?;
        if kill % 2 == 0 {
            site.restart_switch()?;
        }
        replica = site.start_with_journal(journal)?;
        replica.await_state("journaled")?;
        outcome.live_after_s.push(at.elapsed().as_secs_f64());
        outcome.kills = kill;
        println!(
            "kill {kill}: live again after {:.2} s",
            at.elapsed().as_secs_f64()
        );
    }
    std::thread::sleep(Duration::from_secs(1));
    load.end(&mut outcome)?;
    Ok(outcome)
}

/// Whether Redis answers.
fn ping(address: &str) -> Result<Reply> {
    Connection::open(address, Duration::from_millis(500))?.call(&["PING"])
}

/// Requests a second with a journal, and without.
fn rates(memory: &str, journal: &Path) -> Result<[f64; 2]> {
    let guest = demo_guest(&program::path()?)?;
    let measure = |site: &Site, replica: &Replica, state: &str| -> Result<f64> {
        replica.await_state(state)?;
        wait_for("Redis", || Ok(ping(&site.service).ok()))?;
        // The kernel of a machine that has just booted still has things to do.
        redis_benchmark(&site.service, &["-n", "2000"])?;
        Ok(redis_benchmark(&site.service, &["-n", "20000"])?.mean())
    };
    let mut site = Site::open("journaled", guest.clone(), memory, PORT)?;
    let replica = site.start_with_journal(journal)?;
    let with = measure(&site, &replica, "journaled")?;
    drop(replica);
    drop(site);
    let mut site = Site::open("alone", guest, memory, PORT)?;
    let replica = site.start(None)?;
    let without = measure(&site, &replica, "alone")?;
    Ok([with, without])
}

/// `cargo xtask bench journal`.
pub fn bench(kills: usize, memory: &str, directory: &Path) -> Result<()> {
    ensure!(
        program::exists("redis-benchmark"),
        "redis-benchmark is missing: apt-get install redis-tools"
    );
    std::fs::create_dir_all(directory)?;
    // A path in a vm.toml is relative to its own directory.
    let directory = directory.canonicalize()?;
    let scratch = directory.join(format!("journal-bench-{}", std::process::id()));
    let [with, without] = rates(memory, &scratch.join("rates"))?;
    println!("requests a second with a journal {with:.0}, without {without:.0}");
    let outcome = run(kills, memory, &scratch.join("kills"))?;
    std::fs::remove_dir_all(&scratch).context("the journals cannot be removed")?;
    let worst = outcome.live_after_s.iter().copied().fold(0.0, f64::max);
    println!(
        "{}",
        json!({
            "kills": outcome.kills,
            "acknowledged": outcome.acknowledged,
            "lost": outcome.lost,
            "repeated": outcome.repeated,
            "broken": outcome.broken,
            "live_after_s": { "median": program::median(&outcome.live_after_s), "worst": worst },
            "requests_per_second": { "journal": with, "alone": without },
        })
    );
    ensure!(
        outcome.lost == 0 && outcome.repeated == 0,
        "what was acknowledged is not what is there"
    );
    Ok(())
}
