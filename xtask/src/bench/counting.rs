//! What exact counting costs: bare-metal programs in a build that counts no instructions, side by
//! side with the machine as it is.

use super::cpu::compile_bare;
use crate::program::{self, load, median};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 4] = ["fib", "crc32", "sort", "matmul"];

/// `cargo xtask bench counting`.
pub fn bench(repetitions: usize) -> Result<()> {
    let scratch = crate::bench::scratch("bench-counting")?;
    let counting = build("counting", &[])?;
    let uncounted = build("uncounted", &["--features", "uncounted"])?;
    println!("load at the start: {}", load());
    let mut ratios = Vec::new();
    for name in PROGRAMS {
        let elf = compile_bare(name, &scratch)?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..repetitions {
            with.push(seconds(&counting, &elf)?);
            without.push(seconds(&uncounted, &elf)?);
        }
        let (with, without) = (median(&with), median(&without));
        println!("{name}: {with:.3} s, {without:.3} s without counting");
        ratios.push(without / with);
    }
    println!("load at the end: {}", load());
    std::fs::remove_dir_all(&scratch)?;
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    println!("{}", json!({ "counting_vs_uncounted": mean }));
    Ok(())
}

/// The example `run_elf`, built with `features` into a directory of its own.
fn build(name: &str, features: &[&str]) -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target")
        .join(name);
    let status = program::cargo()
        .args(["build", "--release", "-p", "riscv", "--example", "run_elf"])
        .args(features)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("the example run_elf does not build");
    }
    Ok(target.join("release/examples/run_elf"))
}

/// The seconds that the example says the guest took.
fn seconds(example: &Path, elf: &Path) -> Result<f64> {
    let output = Command::new(example)
        .arg(elf)
        .output()
        .with_context(|| format!("{} does not start", example.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("run_elf ended with {}: {text}", output.status);
    }
    let word = text
        .split(" in ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("run_elf says no time: {text}"))
}
