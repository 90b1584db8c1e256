//! Redis in a guest behind a TAP device, with our machine and with QEMU, in a network namespace of
//! its own.

use super::cpu::{GuestImages, qemu, understudy};
use crate::program::{self, exists, median};
use crate::single::{Running, wait_for_redis};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "UNDERSTUDY_BENCH_NAMESPACE";
const TAP: &str = "us0";
const HOST: &str = "10.0.2.1/24";
const GUEST: &str = "10.0.2.15";

/// Requests a second with 20 clients.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Of SET.
    pub set: f64,
    /// Of GET.
    pub get: f64,
}

impl Rates {
    /// Of SET and GET.
    pub fn mean(self) -> f64 {
        (self.set + self.get) / 2.0
    }
}

/// `redis-benchmark` with 20 clients against `host:port`.
pub fn redis_benchmark(address: &str, extra: &[&str]) -> Result<Rates> {
    let (host, port) = address
        .rsplit_once(':')
        .context("an address without a port")?;
    let output = Command::new("redis-benchmark")
        .args(["-h", host, "-p", port, "-c", "20", "-t", "set,get", "--csv"])
        .args(extra)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(&format!("\"{name}\"")))
            .and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok())
            .with_context(|| format!("redis-benchmark printed no rate of {name}: {text}"))
    };
    Ok(Rates {
        set: rate("SET")?,
        get: rate("GET")?,
    })
}

/// Requests per second of one machine, over all repetitions.
#[derive(Clone, Debug, Default)]
struct Figures {
    set: Vec<f64>,
    get: Vec<f64>,
    set_pipelined: Vec<f64>,
    get_pipelined: Vec<f64>,
}

/// `cargo xtask bench redis`.
pub fn bench(repetitions: usize, guest: &Path, engine: Option<&str>) -> Result<()> {
    if !exists("redis-benchmark") {
        bail!("redis-benchmark is missing: apt-get install redis-tools");
    }
    let understudy_program = program::path()?;
    if std::env::var_os(INSIDE).is_none() {
        return inside_a_namespace(&understudy_program);
    }
    ip(&["link", "set", "lo", "up"])?;
    ip(&["tuntap", "add", TAP, "mode", "tap"])?;
    ip(&["address", "add", HOST, "dev", TAP])?;
    ip(&["link", "set", TAP, "up"])?;
    let mut images = GuestImages::open(guest)?;
    images.disk = None;
    images.command_line += &format!(" understudy.network={GUEST}/24");
    println!("load at the start: {}", program::load());
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for _ in 0..repetitions {
        let mut command = understudy(&understudy_program, &images, engine);
        command.args(["--network", &format!("tap:{TAP}")]);
        ours.measure("understudy", &mut command)?;
        let mut command = qemu(&images);
        command
            .arg("-netdev")
            .arg(format!("tap,id=n0,ifname={TAP},script=no,downscript=no"))
            .args(["-device", "virtio-net-device,netdev=n0"]);
        theirs.measure("qemu", &mut command)?;
    }
    println!("load at the end: {}", program::load());
    println!("{}", summary(&ours, &theirs));
    Ok(())
}

/// Starts this command again in a network namespace; where none may be made, says so.
fn inside_a_namespace(understudy_program: &Path) -> Result<()> {
    let possible = Command::new("unshare")
        .args(["-n", "ip", "tuntap", "add", TAP, "mode", "tap"])
        .output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!(
            "skipped: no network namespace with a TAP device can be made here (root, unshare, ip \
             and /dev/net/tun are needed)"
        );
        return Ok(());
    }
    let status = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("UNDERSTUDY", understudy_program)
        .status()?;
    if !status.success() {
        bail!("the benchmark failed inside its namespace");
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status()?;
    if !status.success() {
        bail!("ip {} failed", arguments.join(" "));
    }
    Ok(())
}

impl Figures {
    fn measure(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let address = format!("{GUEST}:6379");
        let start = Instant::now();
        let mut machine = Running(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| format!("{name} does not start"))?,
        );
        wait_for_redis(&address, start, &mut machine)?;
        let plain = redis_benchmark(&address, &["-n", "20000"])?;
        let pipelined = redis_benchmark(&address, &["-n", "200000", "-P", "16"])?;
        println!("{name}: {plain:.0?}, -P 16 {pipelined:.0?}");
        self.set.push(plain.set);
        self.get.push(plain.get);
        self.set_pipelined.push(pipelined.set);
        self.get_pipelined.push(pipelined.get);
        Ok(())
    }

    fn medians(&self) -> [(&'static str, f64); 4] {
        [
            ("set", median(&self.set)),
            ("get", median(&self.get)),
            ("set_pipelined", median(&self.set_pipelined)),
            ("get_pipelined", median(&self.get_pipelined)),
        ]
    }
}

fn summary(ours: &Figures, theirs: &Figures) -> Value {
    let mut summary = serde_json::Map::new();
    for ((name, ours), (_, theirs)) in ours.medians().into_iter().zip(theirs.medians()) {
        let row = json!({ "ours": ours, "qemu": theirs, "vs_qemu": ours / theirs });
        summary.insert(name.to_owned(), row);
    }
    Value::Object(summary)
}
