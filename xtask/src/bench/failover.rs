//! A Redis client on one open connection while replicas are killed.

use crate::counter::{Client, Outcome, Random};
use crate::demo::Demo;
use crate::program;
use anyhow::Result;
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
