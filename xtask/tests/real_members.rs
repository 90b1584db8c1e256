//! Three replicas on hosts of their own (network namespaces), an etcd as their arbiter, and a client over
//! the network: primaries and backups are killed under load. Needs root; says so and passes without.
//!
//! `KILLS=50 cargo test --release -p xtask --test real_members -- --nocapture` kills more often;
//! `SEED=N` spreads the moments of the kills in another way.

#[path = "cable/namespaces.rs"]
mod namespaces;
#[path = "members/site.rs"]
mod site;

use anyhow::{Context, Result, ensure};
use namespaces::{Host, Lan};
use site::Site;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use xtask::counter::{Client, Random};
use xtask::redis::Connection;
use xtask::replica::wait_for;

/// How often, where `KILLS` does not say it.
const KILLS: usize = 6;
/// The longest pause before a kill, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 700;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn unix_time() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// A kill, and what came of it.
struct Kill {
    at: Instant,
    of_primary: bool,
    /// How long it took until a backup could take over from whoever is live.
    unprotected_ms: f64,
}

/// The first time after `since` that this host said that a backup protects it.
fn protected_after(site: &Site, host: Host, since: Duration) -> Result<Duration> {
    wait_for("a backup to protect the machine", || {
        let moments = site.replica(host)?.moments("protected");
        Ok(moments.into_iter().find(|at| *at > since))
    })
}

fn kill_one(site: &mut Site, kill: usize, random: &mut Random) -> Result<Kill> {
    site.protected_by(2)?;
    std::thread::sleep(Duration::from_millis(random.below(LONGEST_PAUSE_MS)));
    // A loaded host may have ended a pairing meanwhile.
    let primary = site.protected_by(2)?;
    let of_primary = kill.is_multiple_of(2);
    let mut backups = Host::ALL.into_iter().filter(|host| *host != primary);
    let victim = match of_primary {
        true => primary,
        false => backups
            .nth(random.below(2) as usize)
            .context("two backups")?,
    };
    let (at, since) = (Instant::now(), unix_time()?);
    site.kill(victim)?;
    let live = site.protected_by(1)?;
    ensure!(of_primary != (live == primary), "the wrong one is live");
    let mut unprotected_ms = 0.0;
    if of_primary {
        let protected = protected_after(site, live, since)?;
        unprotected_ms = (protected - since).as_secs_f64() * 1e3;
    }
    println!(
        "kill {}: {victim:?}, {}; {live:?} is live, unprotected for {unprotected_ms:.0} ms",
        kill + 1,
        if of_primary { "primary" } else { "backup" },
    );
    site.start(victim)?;
    Ok(Kill {
        at,
        of_primary,
        unprotected_ms,
    })
}

fn worst_and_median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let worst = values.last().copied().unwrap_or_default();
    (
        worst,
        values.get(values.len() / 2).copied().unwrap_or_default(),
    )
}

fn report(client: &Client, kills: &[Kill]) {
    let ends = kills.iter().skip(1).map(|kill| kill.at);
    let ends: Vec<Instant> = ends.chain([Instant::now()]).collect();
    for of_primary in [true, false] {
        let waits = kills.iter().zip(&ends);
        let waits = waits.filter(|(kill, _)| kill.of_primary == of_primary);
        let waits = waits.map(|(kill, end)| client.longest_wait_between(kill.at, *end));
        let (worst, median) = worst_and_median(waits.collect());
        let whose = if of_primary { "primary" } else { "backup" };
        println!(
            "a {whose} killed: the client's longest wait {worst:.0} ms, median {median:.0} ms"
        );
    }
    let primaries = kills.iter().filter(|kill| kill.of_primary);
    let (worst, median) = worst_and_median(primaries.map(|kill| kill.unprotected_ms).collect());
    println!("then alone for {worst:.0} ms at worst, median {median:.0} ms");
}

#[test]
fn three_hosts_bear_kills_of_primaries_and_backups_under_load() {
    let kills = number("KILLS").map_or(KILLS, |kills| kills as usize);
    let seed = number("SEED").unwrap_or(20_261);
    println!("{kills} kills, SEED={seed}");
    let run = || -> Result<()> {
        let Some(lan) = Lan::lay()? else {
            return Ok(());
        };
        let Some(mut site) = Site::open(lan)? else {
            return Ok(());
        };
        for host in Host::ALL {
            site.start(host)?;
        }
        site.protected_by(2)?;
        let address = site.redis_address()?;
        let stop = Arc::new(AtomicBool::new(false));
        wait_for("Redis", || {
            let mut probe = Connection::open(&address, Duration::from_secs(1))?;
            Ok(probe.call(&["PING"]).ok())
        })?;
        let client = Client::open(&address, stop.clone())?;
        let client = std::thread::spawn(move || client.run());
        let mut random = Random(seed);
        let mut done = Vec::new();
        for kill in 0..kills {
            done.push(kill_one(&mut site, kill, &mut random)?);
            ensure!(!client.is_finished(), "the client has given up");
        }
        site.protected_by(2)?;
        stop.store(true, Ordering::Relaxed);
        let client = client.join();
        let client = client.map_err(|_| anyhow::anyhow!("the client panicked"))?;
        report(&client, &done);
        let events = |name| -> Result<usize> {
            let replicas = Host::ALL.into_iter().map(|host| site.replica(host));
            replicas.map(|replica| Ok(replica?.events(name))).sum()
        };
        let (goes_on, copied) = (events("goes_on")? / 2, events("copied_anew")? / 2);
        println!(
            "went on without a copy: {goes_on}, were copied though they had a machine: {copied}"
        );
        let outcome = &client.outcome;
        println!(
            "{} requests, lost {}, repeated {}",
            outcome.requests, outcome.lost, outcome.repeated
        );
        if let Some(error) = &client.error {
            println!("client: {error:#}");
        }
        ensure!(client.error.is_none(), "the one connection broke");
        ensure!(outcome.lost == 0 && outcome.repeated == 0, "{outcome:?}");
        ensure!(events("diverged")? == 0, "replicas differ");
        Ok(())
    };
    if let Err(error) = run() {
        panic!("{error:#}");
    }
}
