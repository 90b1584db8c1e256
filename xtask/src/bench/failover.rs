//! A Redis client on one open connection while replicas are killed.

use crate::demo::Demo;
use crate::program;
use crate::redis::{Connection, Reply};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Which replicas are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// Only primaries.
    Primaries,
    /// A primary and a backup in turn.
    InTurn,
    /// Nobody: the machine goes over to its backup because it is asked to.
    Nobody,
}

/// What the client saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Kills that happened.
    pub kills: usize,
    /// Requests that got their reply.
    pub requests: u64,
    /// Replies that were errors, or a broken connection.
    pub errors: u64,
    /// Increments that were acknowledged and are not there.
    pub lost: u64,
    /// Increments that happened twice.
    pub repeated: u64,
    /// The longest wait for a reply around each kill, in milliseconds.
    pub waits_ms: Vec<f64>,
    /// The first wait after each kill, in milliseconds: that for the takeover. What was longer came
    /// later, while the next backup joined.
    pub takeovers_ms: Vec<f64>,
}

/// How long one reply may take before the client counts it as an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the demonstration and kills replicas at random moments.
pub fn run(kills: usize, seed: u64, victims: Victims, arguments: &[&str]) -> Result<Outcome> {
    println!("failover: {kills} kills, seed {seed} (repeat with --seed {seed})");
    let directory = super::scratch("failover")?;
    let demo = Demo::start(directory.clone(), arguments)?;
    println!(
        "service answers after {:.1} s",
        demo.ready_after.as_secs_f64()
    );
    let address = demo.redis_address()?;
    let outcome = kill_and_count(&demo, &address, kills, seed, victims)?;
    drop(demo);
    std::fs::remove_dir_all(directory)?;
    Ok(outcome)
}

fn kill_and_count(
    demo: &Demo,
    address: &str,
    kills: usize,
    seed: u64,
    victims: Victims,
) -> Result<Outcome> {
    let stop = Arc::new(AtomicBool::new(false));
    let client = Client::open(address, stop.clone())?;
    let client = std::thread::spawn(move || client.run());
    let mut random = Random(seed);
    let mut kill_times = Vec::new();
    for kill in 0..kills {
        demo.wait_until_protected(Duration::from_secs(120))?;
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        // A loaded host may have ended the pairing meanwhile: nobody survives the death of a
        // machine that runs alone.
        demo.wait_until_protected(Duration::from_secs(120))?;
        if client.is_finished() {
            break;
        }
        let role = match victims {
            Victims::InTurn if kill % 2 == 1 => "backup",
            _ => "primary",
        };
        if victims == Victims::Nobody {
            kill_times.push(Instant::now());
            println!("switchover {}: {}", kill + 1, demo.switch_over()?.trim());
        } else {
            let pid = demo.pid(role)?;
            kill_times.push(Instant::now());
            program::signal(pid, "KILL")?;
            println!("kill {}: {role}", kill + 1);
        }
        if client.is_finished() {
            break;
        }
    }
    demo.wait_until_protected(Duration::from_secs(120))?;
    stop.store(true, Ordering::Relaxed);
    let seen = client
        .join()
        .map_err(|_| anyhow::anyhow!("the client panicked"))?;
    let ends = kill_times.iter().skip(1).copied().chain([Instant::now()]);
    let spans: Vec<(Instant, Instant)> = kill_times.iter().copied().zip(ends).collect();
    let waits_ms = spans
        .iter()
        .map(|(at, end)| seen.longest_wait_between(*at, *end))
        .collect();
    let takeovers_ms = spans
        .iter()
        .map(|(at, end)| seen.first_wait_between(*at, *end))
        .collect();
    let mut outcome = Outcome {
        kills: kill_times.len(),
        waits_ms,
        takeovers_ms,
        ..seen.outcome
    };
    if let Some(error) = &seen.error {
        println!("client: {error:#}");
        outcome.errors += 1;
    }
    Ok(outcome)
}

struct Client {
    connection: Connection,
    stop: Arc<AtomicBool>,
    outcome: Outcome,
    error: Option<anyhow::Error>,
    /// Requests that took long: when they were sent and how long they took.
    slow: Vec<(Instant, Duration)>,
}

/// Waits below this are not remembered one by one.
const SLOW: Duration = Duration::from_millis(5);
const COUNTERS: u64 = 7;

impl Client {
    fn open(address: &str, stop: Arc<AtomicBool>) -> Result<Client> {
        Ok(Client {
            connection: Connection::open(address, PATIENCE)?,
            stop,
            outcome: Outcome::default(),
            error: None,
            slow: Vec::new(),
        })
    }

    fn run(mut self) -> Client {
        let mut expected = [0i64; COUNTERS as usize];
        for round in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let counter = (round % COUNTERS) as usize;
            if let Err(error) = self.round(counter, &mut expected[counter]) {
                self.error = Some(error);
                break;
            }
        }
        self
    }

    /// One increment and one read of the same counter, each checked.
    fn round(&mut self, counter: usize, expected: &mut i64) -> Result<()> {
        let key = format!("counter:{counter}");
        *expected += 1;
        let Reply::Integer(value) = self.call(&["INCR", &key])? else {
            bail!("INCR gave no number")
        };
        self.compare(value, expected);
        let Reply::Text(text) = self.call(&["GET", &key])? else {
            bail!("GET gave no text")
        };
        let value = std::str::from_utf8(&text)?
            .parse()
            .context("GET gave no number")?;
        self.compare(value, expected);
        Ok(())
    }

    fn compare(&mut self, value: i64, expected: &mut i64) {
        self.outcome.lost += (*expected - value).max(0) as u64;
        self.outcome.repeated += (value - *expected).max(0) as u64;
        *expected = value;
    }

    fn call(&mut self, words: &[&str]) -> Result<Reply> {
        let sent = Instant::now();
        let reply = self.connection.call(words)?;
        let took = sent.elapsed();
        self.outcome.requests += 1;
        if took > SLOW {
            self.slow.push((sent, took));
        }
        Ok(reply)
    }

    /// The longest wait of a request that was open or sent between a kill and the next one:
    /// detection, takeover and the copy to the next backup fall into that time.
    fn longest_wait_between(&self, at: Instant, end: Instant) -> f64 {
        self.waits_between(at, end)
            .fold(SLOW.as_secs_f64() * 1e3, f64::max)
    }

    fn first_wait_between(&self, at: Instant, end: Instant) -> f64 {
        let first = self.waits_between(at, end).next();
        first.unwrap_or(SLOW.as_secs_f64() * 1e3)
    }

    fn waits_between(&self, at: Instant, end: Instant) -> impl Iterator<Item = f64> {
        self.slow
            .iter()
            .filter(move |(sent, took)| *sent + *took >= at && *sent < end)
            .map(|(_, took)| took.as_secs_f64() * 1e3)
    }
}

/// SplitMix64: only to spread the moments of the kills.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// `cargo xtask bench failover`.
pub fn bench(kills: usize, seed: u64, victims: Victims, arguments: &[&str]) -> Result<()> {
    let outcome = run(kills, seed, victims, arguments)?;
    println!(
        "{} requests, waits around the kills in ms: {:.0?}, load {}",
        outcome.requests,
        outcome.waits_ms,
        program::load()
    );
    println!(
        "of these for the takeover: {:.0?}, median {:.1}",
        outcome.takeovers_ms,
        program::median(&outcome.takeovers_ms)
    );
    let worst = outcome.waits_ms.iter().copied().fold(0.0, f64::max);
    println!(
        "{}",
        json!({
            (if victims == Victims::Nobody { "switchovers" } else { "kills" }): outcome.kills,
            "errors": outcome.errors,
            "lost": outcome.lost,
            "repeated": outcome.repeated,
            "longest_wait_ms": { "median": program::median(&outcome.waits_ms).round(), "worst": worst.round() },
        })
    );
    Ok(())
}
