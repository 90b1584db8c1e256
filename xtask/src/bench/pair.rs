//! What protection costs: the same load on a machine alone (`understudy run`) and on a pair.

use super::redis::redis_benchmark;
use crate::demo::Demo;
use crate::program::{self, exists, median};
use crate::redis::{Connection, Reply};
use crate::single::Single;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Requests per second of the loads that are compared.
#[derive(Clone, Debug, Default)]
struct Figures {
    plain: Vec<f64>,
    pipelined: Vec<f64>,
    /// Runs per second of a CPU-bound script inside the guest.
    cpu: Vec<f64>,
    output_delay_ms: Value,
    /// Of a pair that transfers state.
    checkpoints: Value,
}

/// `cargo xtask bench pair`.
pub fn bench(repetitions: usize, guest: &Path, arguments: &[&str]) -> Result<()> {
    if !exists("redis-benchmark") {
        bail!("redis-benchmark is missing: apt-get install redis-tools");
    }
    println!("load at the start: {}", program::load());
    let (mut single, mut pair) = (Figures::default(), Figures::default());
    for _ in 0..repetitions {
        measure_single(&mut single, guest)?;
        measure_pair(&mut pair, guest, arguments)?;
    }
    println!("load at the end: {}", program::load());
    let ratio = |pair: &[f64], single: &[f64]| median(pair) / median(single);
    println!(
        "{}",
        json!({
            "redis": { "single": median(&single.plain), "pair": median(&pair.plain),
                       "ratio": ratio(&pair.plain, &single.plain) },
            "redis_pipelined": { "single": median(&single.pipelined), "pair": median(&pair.pipelined),
                       "ratio": ratio(&pair.pipelined, &single.pipelined) },
            "cpu": { "single": median(&single.cpu), "pair": median(&pair.cpu),
                       "ratio": ratio(&pair.cpu, &single.cpu) },
            "output_delay_ms": pair.output_delay_ms,
            "checkpoints": pair.checkpoints,
        })
    );
    Ok(())
}

fn measure_single(figures: &mut Figures, guest: &Path) -> Result<()> {
    let directory = super::scratch("single")?;
    let single = Single::start(&directory, guest)?;
    figures.measure(&single.address)?;
    drop(single);
    Ok(std::fs::remove_dir_all(directory)?)
}

fn measure_pair(figures: &mut Figures, guest: &Path, arguments: &[&str]) -> Result<()> {
    let directory = super::scratch("pair")?;
    let guest = guest.display().to_string();
    let arguments = [&["--guest", &guest], arguments].concat();
    let demo = Demo::start(directory.clone(), &arguments)?;
    demo.wait_until_protected(Duration::from_secs(120))?;
    figures.measure(&demo.redis_address()?)?;
    if let Some(primary) = demo.replica("primary")? {
        figures.output_delay_ms = primary["output_delay"].clone();
        figures.checkpoints = primary["checkpoints"].clone();
    }
    drop(demo);
    Ok(std::fs::remove_dir_all(directory)?)
}

impl Figures {
    fn measure(&mut self, address: &str) -> Result<()> {
        self.plain
            .push(redis_benchmark(address, &["-n", "20000"])?.mean());
        self.pipelined
            .push(redis_benchmark(address, &["-n", "200000", "-P", "16"])?.mean());
        self.cpu.push(cpu_bound(address)?);
        println!("{:.0?} {:.0?} {:.3?}", self.plain, self.pipelined, self.cpu);
        Ok(())
    }
}

/// Runs per second of a script that only computes, inside the guest's Redis.
fn cpu_bound(address: &str) -> Result<f64> {
    const SCRIPT: &str =
        "local s = 0 for i = 1, 3000000 do s = (s * 31 + i) % 1000003 end return s";
    let mut connection = Connection::open(address, Duration::from_secs(300))?;
    let start = Instant::now();
    const RUNS: u32 = 3;
    for _ in 0..RUNS {
        let Reply::Integer(_) = connection.call(&["EVAL", SCRIPT, "0"])? else {
            bail!("the script gave no number");
        };
    }
    Ok(f64::from(RUNS) / start.elapsed().as_secs_f64())
}
