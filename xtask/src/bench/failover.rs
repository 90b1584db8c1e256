//! A Redis client on one open connection while replicas are killed.

use crate::counter::{Client, Outcome, Random};
use crate::demo::Demo;
use crate::program;
use anyhow::Result;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of a wait that is longer it is told what the processes said meanwhile, in milliseconds.
const TOLD_FROM_MS: f64 = 20.0;

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

/// Runs the demonstration and kills replicas at random moments, with so much in its guest's Redis.
pub fn run(
    kills: usize,
    seed: u64,
    victims: Victims,
    fill_mb: u64,
    arguments: &[&str],
) -> Result<Outcome> {
    println!("failover: {kills} kills, seed {seed} (repeat with --seed {seed})");
    let directory = super::scratch("failover")?;
    let demo = Demo::start(directory.clone(), arguments)?;
    println!(
        "service answers after {:.1} s",
        demo.ready_after.as_secs_f64()
    );
    let address = demo.redis_address()?;
    if fill_mb > 0 {
        super::join::fill(&address, fill_mb)?;
        println!("{fill_mb} MB filled, load {}", program::load());
    }
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
    for (number, (at, end)) in spans.iter().enumerate() {
        let waits = seen.waits_between(*at, *end);
        tell_waits(&demo.directory, number + 1, *at, waits)?;
    }
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

/// Tells of long waits after a kill what the processes of the demonstration said meanwhile, in
/// milliseconds since the kill.
fn tell_waits(
    directory: &Path,
    kill: usize,
    at: Instant,
    waits: impl Iterator<Item = (Instant, Duration)>,
) -> Result<()> {
    let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i128;
    let kill_ns = unix_ns - at.elapsed().as_nanos() as i128;
    let ms = |ns: i128| ns as f64 / 1e6;
    for (sent, took) in waits.filter(|(_, took)| took.as_secs_f64() * 1e3 > TOLD_FROM_MS) {
        let after = sent.saturating_duration_since(at);
        let before = at.saturating_duration_since(sent);
        let from_ns = kill_ns + after.as_nanos() as i128 - before.as_nanos() as i128;
        let until_ns = from_ns + took.as_nanos() as i128;
        println!(
            "after kill {kill}, a request sent at {:.1} ms was answered at {:.1} ms; meanwhile",
            ms(from_ns - kill_ns),
            ms(until_ns - kill_ns)
        );
        for (unix_ns, event) in events(directory)? {
            if (from_ns..until_ns).contains(&unix_ns) {
                println!("  {:8.1} ms: {event}", ms(unix_ns - kill_ns));
            }
        }
    }
    Ok(())
}

/// All events of the demonstration's processes, in their order.
fn events(directory: &Path) -> Result<Vec<(i128, String)>> {
    let mut events = Vec::new();
    for entry in fs::read_dir(directory)?.chain(
        fs::read_dir(directory.join("replicas"))
            .into_iter()
            .flatten(),
    ) {
        let path = entry?.path();
        // Not every directory is that of a replica.
        let Ok(text) = fs::read_to_string(path.join("events.jsonl")) else {
            continue;
        };
        let whose = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line)?;
            let unix_ns = event["unix_ns"].as_u64().unwrap_or(0);
            let detail = event["detail"].as_str().unwrap_or_default();
            let said = format!(
                "{whose}: {}: {detail}",
                event["event"].as_str().unwrap_or_default()
            );
            events.push((i128::from(unix_ns), said));
        }
    }
    events.sort();
    Ok(events)
}

/// `cargo xtask bench failover`.
pub fn bench(
    kills: usize,
    seed: u64,
    victims: Victims,
    fill_mb: u64,
    arguments: &[&str],
) -> Result<()> {
    let outcome = run(kills, seed, victims, fill_mb, arguments)?;
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
