//! A Redis client on one open connection that notices every wait, and an increment that was lost or
//! happened twice.

use crate::redis::{Connection, Reply};
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// A client that counts with several counters on one connection, as fast as it is answered.
pub struct Client {
    connection: Connection,
    stop: Arc<AtomicBool>,
    /// What it saw so far.
    pub outcome: Outcome,
    /// Why it ended, if nobody told it to.
    pub error: Option<anyhow::Error>,
    /// Requests that took long: when they were sent and how long they took.
    slow: Vec<(Instant, Duration)>,
}

/// Waits below this are not remembered one by one.
const SLOW: Duration = Duration::from_millis(5);
const COUNTERS: u64 = 7;

impl Client {
    /// Connects. It counts until `stop`.
    pub fn open(address: &str, stop: Arc<AtomicBool>) -> Result<Client> {
        Ok(Client {
            connection: Connection::open(address, PATIENCE)?,
            stop,
            outcome: Outcome::default(),
            error: None,
            slow: Vec::new(),
        })
    }

    /// Counts.
    pub fn run(mut self) -> Client {
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
    pub fn longest_wait_between(&self, at: Instant, end: Instant) -> f64 {
        self.waits_ms_between(at, end)
            .fold(SLOW.as_secs_f64() * 1e3, f64::max)
    }

    /// The first wait of a request that was open or sent then and took long, in milliseconds.
    pub fn first_wait_between(&self, at: Instant, end: Instant) -> f64 {
        let first = self.waits_ms_between(at, end).next();
        first.unwrap_or(SLOW.as_secs_f64() * 1e3)
    }

    fn waits_ms_between(&self, at: Instant, end: Instant) -> impl Iterator<Item = f64> {
        let waits = self.waits_between(at, end);
        waits.map(|(_, took)| took.as_secs_f64() * 1e3)
    }

    /// Requests that were open or sent then and took long: when they were sent, and how long they took.
    pub fn waits_between(
        &self,
        at: Instant,
        end: Instant,
    ) -> impl Iterator<Item = (Instant, Duration)> {
        self.slow
            .iter()
            .copied()
            .filter(move |(sent, took)| *sent + *took >= at && *sent < end)
    }
}

/// SplitMix64: only to spread the moments of the kills.
pub struct Random(pub u64);

impl Random {
    /// A number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
