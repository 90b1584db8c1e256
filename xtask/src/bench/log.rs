//! Bandwidth of the logging channel: idle, CPU-bound, under Redis load.

use crate::demo::Demo;
use crate::program::{self, exists};
use crate::redis::Connection;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `cargo xtask bench log`.
pub fn bench(seconds: u64, arguments: &[&str]) -> Result<()> {
    if !exists("redis-benchmark") {
        bail!("redis-benchmark is missing: apt-get install redis-tools");
    }
    let directory = super::scratch("log")?;
    let demo = Demo::start(directory.clone(), arguments)?;
    demo.wait_until_protected(Duration::from_secs(120))?;
    let address = demo.redis_address()?;
    println!("load at the start: {}", program::load());
    std::thread::sleep(Duration::from_secs(5)); // the guest's own start-up work ends
    let idle = rate(&demo, seconds)?;
    println!("idle: {:.1} kbit/s", idle / 1e3);
    let cpu = while_computing(&demo, &address, seconds)?;
    println!("CPU-bound: {:.1} kbit/s", cpu / 1e3);
    let redis = while_loaded(&demo, &address, seconds)?;
    println!("20 Redis clients: {:.1} kbit/s", redis / 1e3);
    let primary = demo.replica("primary")?.unwrap_or(Value::Null);
    drop(demo);
    std::fs::remove_dir_all(directory)?;
    println!(
        "{}",
        json!({
            "log_kbit_per_second": { "idle": idle / 1e3, "cpu": cpu / 1e3, "redis": redis / 1e3 },
            "output_delay_ms": primary["output_delay"],
            "checkpoints": primary["checkpoints"],
        })
    );
    Ok(())
}

/// Bits a second over a time, from the bytes that the primary says it sent.
fn rate(demo: &Demo, seconds: u64) -> Result<f64> {
    let sent = || -> Result<f64> {
        let primary = demo.replica("primary")?.context("no primary answers")?;
        primary["log_bytes_sent"]
            .as_f64()
            .context("the status has no log_bytes_sent")
    };
    let (before, start) = (sent()?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    Ok((sent()? - before) * 8.0 / start.elapsed().as_secs_f64())
}

fn while_computing(demo: &Demo, address: &str, seconds: u64) -> Result<f64> {
    let mut connection = Connection::open(address, Duration::from_secs(600))?;
    let iterations = seconds * 8_000_000;
    let script =
        format!("local s = 0 for i = 1, {iterations} do s = (s * 31 + i) % 1000003 end return s");
    let computing = std::thread::spawn(move || connection.call(&["EVAL", &script, "0"]));
    let rate = rate(demo, seconds);
    computing
        .join()
        .map_err(|_| anyhow::anyhow!("the client panicked"))??;
    rate
}

fn while_loaded(demo: &Demo, address: &str, seconds: u64) -> Result<f64> {
    let (host, port) = address
        .rsplit_once(':')
        .context("an address without a port")?;
    let mut load = Command::new("redis-benchmark")
        .args([
            "-h", host, "-p", port, "-c", "20", "-t", "set,get", "-l", "-q",
        ])
        .stdout(Stdio::null())
        .spawn()?;
    let rate = rate(demo, seconds);
    load.kill()?;
    load.wait()?;
    rate
}
