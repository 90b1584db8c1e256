//! Where the program `understudy` is, and how to measure a process.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Cargo, as if it were started by hand ([`by_hand`]).
pub fn cargo() -> Command {
    by_hand(&cargo_path())
}

/// The cargo that runs this.
pub fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// A command without what cargo says of the package that is running now: it would have every dependency that looks at such
/// variables built anew.
pub fn by_hand(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The release build of `understudy`, built now if it is not up to date. `UNDERSTUDY` in the
/// environment names another one.
pub fn path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("UNDERSTUDY") {
        return Ok(path.into());
    }
    let output = cargo()
        .args([
            "build",
            "--release",
            "-p",
            "understudy",
            "--message-format=json-render-diagnostics",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    if !output.status.success() {
        bail!("the program does not build");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "understudy")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no executable")
}

/// Whether a command can be started.
pub fn exists(command: &str) -> bool {
    Command::new(command)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Runs a command to its end; its status and how long it took.
pub fn timed(command: &mut Command) -> Result<(ExitStatus, Duration)> {
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{command:?} does not start"))?;
    Ok((status, start.elapsed()))
}

/// The load of the host, for the notes of a measurement.
pub fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The middle one of some numbers (the lower of two).
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Sends a signal to a process.
pub fn signal(pid: i64, signal: &str) -> Result<()> {
    let status = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .status()?;
    if !status.success() {
        bail!("kill -{signal} {pid} failed");
    }
    Ok(())
}
