//! Speed of the machine on bare-metal programs and from power-on to Redis, side by side with
//! `qemu-system-riscv64 -icount shift=auto,rr=record`.

use super::contenders::record_option;
use super::target::Target;
use crate::conformance::bare_machine;
use crate::program::{self, exists, median, timed};
use crate::single::{Running, Single, free_port, wait_for_redis};
use anyhow::{Context, Result, bail};
use machine::{Machine as _, Stop};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const COMPILER: &str = "riscv64-linux-gnu-gcc";
const PROGRAMS: [&str; 4] = ["fib", "crc32", "sort", "matmul"];

/// `cargo xtask bench cpu --bare`.
pub fn bench(repetitions: usize, guest: Option<&Path>) -> Result<()> {
    let understudy = program::path()?;
    let scratch = crate::bench::scratch("bench-bare")?;
    println!("load at the start: {}", program::load());
    let mut rows = Vec::new();
    for name in PROGRAMS {
        rows.push(one_program(name, &understudy, &scratch, repetitions)?);
    }
    let boot = match guest {
        Some(guest) => boots(guest, &scratch, repetitions)?,
        None => Value::Null,
    };
    println!("load at the end: {}", program::load());
    std::fs::remove_dir_all(&scratch)?;
    let speedups: Vec<f64> = rows
        .iter()
        .filter_map(|row| row["vs_qemu_rr"].as_f64())
        .collect();
    let geometric_mean = (!speedups.is_empty())
        .then(|| (speedups.iter().map(|s| s.ln()).sum::<f64>() / speedups.len() as f64).exp());
    println!(
        "{}",
        json!({ "programs": rows, "vs_qemu_rr": geometric_mean, "boot": boot })
    );
    Ok(())
}

fn one_program(name: &str, understudy: &Path, scratch: &Path, repetitions: usize) -> Result<Value> {
    let elf = compile(name, scratch)?;
    let instructions = count_instructions(&elf)?;
    let (mut ours, mut qemus) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        let (status, took) = timed(
            Command::new(understudy)
                .args(["run", "--firmware", "none", "--memory", "64M", "--kernel"])
                .arg(&elf)
                .stdin(Stdio::null()),
        )?;
        if !status.success() {
            bail!("{name} ended with {status}");
        }
        ours.push(took.as_secs_f64());
        if exists(Target::Riscv64.qemu()) {
            let (status, took) = timed(&mut qemu_bare(&elf, scratch))?;
            if !status.success() {
                bail!("QEMU ended with {status} on {name}");
            }
            qemus.push(took.as_secs_f64());
        }
    }
    let seconds = median(&ours);
    let mips = instructions as f64 / seconds / 1e6;
    let qemu = (!qemus.is_empty()).then(|| median(&qemus));
    println!(
        "{name}: {instructions} instructions, {seconds:.2} s, {mips:.0} MIPS, QEMU rr=record {qemu:.2?} s"
    );
    Ok(json!({
        "program": name,
        "mips": mips.round(),
        "seconds": seconds,
        "qemu_rr_seconds": qemu,
        "vs_qemu_rr": qemu.map(|qemu| qemu / seconds),
    }))
}

/// Compiles a program of `xtask/guest-programs/bare`.
pub fn compile(name: &str, scratch: &Path) -> Result<PathBuf> {
    if !exists(COMPILER) {
        bail!("{COMPILER} is missing: apt-get install gcc-riscv64-linux-gnu");
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-programs/bare");
    let elf = scratch.join(name);
    let status = Command::new(COMPILER)
        .args([
            "-O2",
            "-march=rv64gc",
            "-mabi=lp64d",
            "-mcmodel=medany",
            "-ffreestanding",
        ])
        .args([
            "-nostdlib",
            "-static",
            "-fno-pic",
            "-no-pie",
            "-Wl,--build-id=none",
            "-Wl,-N",
        ])
        .args([
            "-Wl,--no-warn-rwx-segments",
            "-fno-tree-loop-distribute-patterns",
        ])
        .arg("-Wl,-Ttext=0x80000000")
        .arg("-o")
        .arg(&elf)
        .arg(sources.join("start.S"))
        .arg(sources.join(format!("{name}.c")))
        .status()
        .with_context(|| format!("{COMPILER} does not start"))?;
    if !status.success() {
        bail!("{name}.c does not compile");
    }
    Ok(elf)
}

fn count_instructions(elf: &Path) -> Result<u64> {
    let mut machine = bare_machine(std::fs::read(elf)?)?;
    while !matches!(machine.run(u64::MAX), Stop::Finished(_)) {
        machine.outputs();
    }
    Ok(machine.instruction_count())
}

fn qemu_bare(elf: &Path, scratch: &Path) -> Command {
    let mut command = Command::new(Target::Riscv64.qemu());
    command
        .args([
            "-M", "virt", "-m", "64", "-display", "none", "-serial", "null", "-monitor", "none",
        ])
        .args(["-bios", "none", "-kernel"])
        .arg(elf)
        .arg("-icount")
        .arg(record_option(scratch))
        .stdin(Stdio::null());
    command
}

/// Seconds from the start of the process until Redis answers.
fn boots(guest: &Path, scratch: &Path, repetitions: usize) -> Result<Value> {
    let (mut ours, mut qemus) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        ours.push(boot_understudy(guest, scratch)?);
        if exists(Target::Riscv64.qemu()) {
            qemus.push(boot_qemu(guest, scratch)?);
        }
    }
    let seconds = median(&ours);
    let qemu = (!qemus.is_empty()).then(|| median(&qemus));
    println!("boot to Redis: {seconds:.2} s, QEMU rr=record {qemu:.2?} s");
    Ok(json!({ "seconds": seconds, "qemu_rr_seconds": qemu }))
}

fn boot_understudy(guest: &Path, scratch: &Path) -> Result<f64> {
    let directory = scratch.join("single");
    std::fs::create_dir_all(&directory)?;
    let ready_after = Single::start(&directory, guest)?.ready_after;
    std::fs::remove_dir_all(directory)?;
    Ok(ready_after)
}

fn boot_qemu(guest: &Path, scratch: &Path) -> Result<f64> {
    let port = free_port()?;
    let manifest: Value = serde_json::from_slice(&std::fs::read(guest.join("manifest.json"))?)?;
    let command_line = manifest["command_line"]
        .as_str()
        .context("the manifest names no command line")?;
    let start = Instant::now();
    let mut run = Running(
        Command::new(Target::Riscv64.qemu())
            .args([
                "-M", "virt", "-m", "256", "-display", "none", "-serial", "null",
            ])
            .args(["-monitor", "none", "-bios"])
            .arg(guest.join("firmware"))
            .arg("-kernel")
            .arg(guest.join("kernel"))
            .arg("-initrd")
            .arg(guest.join("initrd"))
            .args(["-append", command_line])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args([
                "-device",
                "virtio-net-device,netdev=n0,mac=52:54:00:12:34:56",
            ])
            .arg("-netdev")
            .arg(format!(
                "user,id=n0,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:6379"
            ))
            .args(["-object", "filter-replay,id=replay,netdev=n0"])
            .arg("-icount")
            .arg(record_option(scratch))
            .stdin(Stdio::null())
            .spawn()?,
    );
    wait_for_redis(&format!("127.0.0.1:{port}"), start, &mut run)
}
