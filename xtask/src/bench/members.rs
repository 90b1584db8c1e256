//! What a second backup costs: one machine, whose second backup comes and goes.

use super::redis::redis_benchmark;
use crate::program::{self, exists, median};
use crate::redis::Connection;
use crate::replica::{Replica, demo_guest, wait_for};
use crate::site::{Site, free_addresses};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::Duration;

/// Waits of the gate that the status looks back on are all of this load then.
const REQUESTS: &str = "20000";

/// What was measured with so many backups.
#[derive(Default)]
struct Figures {
    one_client: Vec<f64>,
    twenty_clients: Vec<f64>,
    gate_p50_ms: Vec<f64>,
}

/// `cargo xtask bench members`.
pub fn bench(repetitions: usize) -> Result<()> {
    if !exists("redis-benchmark") {
        bail!("redis-benchmark is missing: apt-get install redis-tools");
    }
    println!("load at the start: {}", program::load());
    let mut site = Site::open("members", demo_guest(&program::path()?)?, "256M", 6379)?;
    let addresses = free_addresses(3)?;
    let start = |site: &mut Site, index: usize| {
        let mut others = addresses.clone();
        let own = others.remove(index);
        site.start_among(&own, &others)
    };
    let primary = start(&mut site, 0)?;
    primary.await_state("alone")?;
    let first = start(&mut site, 1)?;
    await_backups(&primary, 1)?;
    wait_for("Redis", || {
        let connection = Connection::open(&site.service, Duration::from_secs(5));
        Ok(connection.and_then(|mut c| c.call(&["PING"])).ok())
    })?;
    let (mut one, mut two) = (Figures::default(), Figures::default());
    for _ in 0..repetitions {
        one.measure(&site, &primary)?;
        let second = start(&mut site, 2)?;
        await_backups(&primary, 2)?;
        two.measure(&site, &primary)?;
        drop(second);
        await_backups(&primary, 1)?;
    }
    drop(first);
    println!("load at the end: {}", program::load());
    let ratio = |of: fn(&Figures) -> &Vec<f64>| median(of(&two)) / median(of(&one));
    println!(
        "{}",
        json!({
            "one_backup": one.json(),
            "two_backups": two.json(),
            "ratio": {
                "one_client": ratio(|figures| &figures.one_client),
                "twenty_clients": ratio(|figures| &figures.twenty_clients),
            },
            "added_output_delay_us": (median(&two.gate_p50_ms) - median(&one.gate_p50_ms)) * 1e3,
        })
    );
    Ok(())
}

/// Waits until outputs wait for so many.
fn await_backups(primary: &Replica, count: usize) -> Result<()> {
    let what = format!("{count} backups");
    wait_for(&what, || {
        let status = primary.status()?.context("the primary is silent")?;
        let followers = status["followers"].as_array();
        let protects = |follower: &&Value| follower["protects"] == true;
        let following = followers.map_or(0, |all| all.iter().filter(protects).count());
        Ok((following == count).then_some(()))
    })
}

impl Figures {
    fn measure(&mut self, site: &Site, primary: &Replica) -> Result<()> {
        let load = |clients| redis_benchmark(&site.service, &["-n", REQUESTS, "-c", clients]);
        self.one_client.push(load("1")?.mean());
        let status = primary.status()?.context("the primary is silent")?;
        let waited = status["output_delay"]["p50_ms"].as_f64();
        self.gate_p50_ms.push(waited.context("no output delay")?);
        self.twenty_clients.push(load("20")?.mean());
        println!("{}", self.json());
        Ok(())
    }

    fn json(&self) -> Value {
        json!({
            "one_client": median(&self.one_client).round(),
            "twenty_clients": median(&self.twenty_clients).round(),
            "output_delay_p50_ms": median(&self.gate_p50_ms),
        })
    }
}
