//! What it costs a guest that its machine is protected again: its backup is killed, another one joins.

use crate::demo::Demo;
use crate::program;
use crate::redis::{Connection, Reply};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The speed of the machine alone is measured for so long.
const ALONE: Duration = Duration::from_secs(3);
/// Megabytes that one call of [`FILL`] adds.
const FILL_MB: u64 = 4;
/// Strings of 64 KiB that are not all the same, so that no page is zero.
const FILL: &str = "for i = 1, 64 do redis.call('SET', 'fill:' .. (ARGV[1] * 16 + i), \
                    string.rep(string.format('%016d', ARGV[1] * 31 + i), 4096)) end \
                    collectgarbage() return 64";
/// Computes for about 5 ms, and writes here and there to what was filled.
const WORK: &str = "local s = tonumber(ARGV[1]) for i = 1, 20000 do s = (s * 31 + i) % 1000003 end \
                    redis.call('SETRANGE', 'fill:' .. (1 + s % (ARGV[2] * 16)), s % 60000, s) return s";

/// What one join cost.
struct Join {
    protected_s: f64,
    /// Work done a second meanwhile, of that done alone.
    speed: f64,
    longest_wait_ms: f64,
}

/// `cargo xtask bench join`.
pub fn bench(fill_mb: u64, joins: usize, arguments: &[&str]) -> Result<()> {
    let directory = super::scratch("join")?;
    let demo = Demo::start(directory.clone(), arguments)?;
    demo.wait_until_protected(PATIENCE)?;
    let address = demo.redis_address()?;
    fill(&address, fill_mb)?;
    println!("{fill_mb} MB filled, load {}", program::load());
    let mut measured = Vec::new();
    let (mut pause_ms, mut memory_in_use_mb) = (0f64, 0f64);
    for join in 1..=joins {
        demo.wait_until_protected(PATIENCE)?;
        measured.push(measure(&demo, &address, fill_mb.max(FILL_MB))?);
        let Join {
            protected_s,
            speed,
            longest_wait_ms,
        } = &measured[join - 1];
        let primary = demo.replica("primary")?.context("no primary")?;
        let backup = demo.replica("backup")?.context("no backup")?;
        let number = |replica: &Value, key: &str| replica[key].as_f64().unwrap_or(f64::NAN);
        pause_ms = pause_ms.max(number(&primary, "snapshot_pause_ms"));
        memory_in_use_mb = number(&primary, "memory_in_use_bytes") / 1e6;
        let longest = |key: &str| number(&primary, key).max(number(&backup, key));
        println!(
            "join {join}: protected after {protected_s:.2} s, speed {speed:.2}, longest wait of the \
             client {longest_wait_ms:.0} ms, longest turn of an event loop {:.0} ms, busy {:.0} ms, \
             load {}",
            longest("loop_longest_ms"),
            longest("loop_busiest_ms"),
            program::load()
        );
    }
    drop(demo);
    std::fs::remove_dir_all(directory)?;
    let median = |of: fn(&Join) -> f64| {
        let values: Vec<f64> = measured.iter().map(of).collect();
        (program::median(&values) * 1000.0).round() / 1000.0
    };
    println!(
        "{}",
        json!({
            "pause_ms": (pause_ms * 1000.0).round() / 1000.0,
            "protected_s": median(|join| join.protected_s),
            "speed_during": median(|join| join.speed),
            "memory_in_use_mb": memory_in_use_mb.round(),
        })
    );
    Ok(())
}

/// Fills Redis in the guest, and so its memory.
pub(super) fn fill(address: &str, fill_mb: u64) -> Result<()> {
    let mut connection = Connection::open(address, PATIENCE)?;
    for first in (0..fill_mb).step_by(FILL_MB as usize) {
        match connection.call(&["EVAL", FILL, "0", &first.to_string()])? {
            Reply::Integer(_) => {}
            other => bail!("the guest's memory cannot be filled: {other:?}"),
        }
    }
    Ok(())
}

/// Kills the backup, and lets the next one join while the guest computes all the time.
fn measure(demo: &Demo, address: &str, filled: u64) -> Result<Join> {
    let stop = Arc::new(AtomicBool::new(false));
    let worker = Worker {
        connection: Connection::open(address, PATIENCE)?,
        stop: stop.clone(),
        filled,
    };
    let worker = std::thread::spawn(move || worker.run());
    let result = join_once(demo);
    stop.store(true, Ordering::Relaxed);
    let done = worker
        .join()
        .map_err(|_| anyhow::anyhow!("the client panicked"))??;
    let (alone, joining) = result?;
    let rate = |from: Instant, to: Instant| {
        let count = done.iter().filter(|at| (from..to).contains(*at)).count();
        count as f64 / (to - from).as_secs_f64()
    };
    let during = done
        .iter()
        .filter(|at| (joining.0..joining.1).contains(*at));
    let longest = during
        .clone()
        .zip(during.skip(1))
        .map(|(before, after)| *after - *before)
        .max();
    Ok(Join {
        protected_s: (joining.1 - joining.0).as_secs_f64(),
        speed: rate(joining.0, joining.1) / rate(alone.0, alone.1),
        longest_wait_ms: longest.unwrap_or_default().as_secs_f64() * 1e3,
    })
}

type Span = (Instant, Instant);

/// From when to when the machine was alone, and from when to when a backup joined.
fn join_once(demo: &Demo) -> Result<(Span, Span)> {
    // The demonstration starts a replica that was killed again, at once: one that is frozen is alone
    // just as well, and comes when it is let go.
    let backup = demo.pid("backup")?;
    program::signal(backup, "STOP")?;
    wait(demo, "the primary to be alone", |primary| {
        primary["state"] == "alone"
    })?;
    let alone = Instant::now();
    std::thread::sleep(ALONE);
    let alone = (alone, Instant::now());
    program::signal(backup, "KILL")?;
    wait(demo, "a backup to join", |primary| {
        primary["state"] != "alone"
    })?;
    let joining = Instant::now();
    demo.wait_until_protected(PATIENCE)?;
    Ok((alone, (joining, Instant::now())))
}

fn wait(demo: &Demo, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    let start = Instant::now();
    while !demo
        .replica("primary")?
        .is_some_and(|primary| is_so(&primary))
    {
        if start.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Has the guest compute all the time.
struct Worker {
    connection: Connection,
    stop: Arc<AtomicBool>,
    filled: u64,
}

impl Worker {
    /// When each piece of work was done.
    fn run(mut self) -> Result<Vec<Instant>> {
        let filled = self.filled.to_string();
        let mut done = Vec::new();
        let mut seed = 1;
        while !self.stop.load(Ordering::Relaxed) {
            let reply = self
                .connection
                .call(&["EVAL", WORK, "0", &seed.to_string(), &filled])?;
            let Reply::Integer(next) = reply else {
                bail!("the guest does not compute: {reply:?}");
            };
            seed = next + 1;
            done.push(Instant::now());
        }
        Ok(done)
    }
}
