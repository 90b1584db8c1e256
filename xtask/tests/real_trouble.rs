//! A real Debian guest in trouble: its kernel panics, or nothing reloads its watchdog.

use anyhow::{Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use xtask::engines::console::Console;
use xtask::engines::image;

const PANIC: &str = "echo c > /proc/sysrq-trigger\n";

/// A directory with the demonstration's guest.
fn site(name: &str) -> Result<PathBuf> {
    site_for(name, "riscv64")
}

/// The same for an architecture, by Debian's name.
fn site_for(name: &str, architecture: &str) -> Result<PathBuf> {
    let directory = xtask::bench::scratch(name)?;
    let arch = format!("--arch={architecture}");
    image::build(&directory.join("guest"), &[arch])?;
    Ok(directory)
}

/// Starts the guest, and waits until somebody can type.
fn start(directory: &Path, arguments: &[&str]) -> Result<Console> {
    let mut all = vec![
        "run".to_owned(),
        "--memory=256M".to_owned(),
        format!("--guest={}", directory.join("guest").display()),
    ];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let mut console = Console::start(&all, &directory.join("messages"))?;
    console.expect("understudy: guest ready (no network): redis listens on port 6379")?;
    Ok(console)
}

fn said(directory: &Path) -> Result<String> {
    Ok(fs::read_to_string(directory.join("messages"))?)
}

/// Debian's kernel for RISC-V has no driver for pvpanic: it lets a lamp blink.
#[test]
fn a_panic_of_linux_is_told_and_ends_the_machine_or_boots_it_anew() -> Result<()> {
    let directory = site("panic")?;
    let mut console = start(&directory, &["--on-panic=stop"])?;
    console.send(PANIC)?;
    let (status, text) = console.finish()?;
    ensure!(status.code() == Some(13), "{status}");
    let text = String::from_utf8_lossy(&text);
    // All of what it had to say has come out.
    ensure!(
        text.contains("end Kernel panic - not syncing: sysrq"),
        "{text}"
    );
    let told = said(&directory)?;
    ensure!(
        told.matches("the guest's kernel panicked").count() == 1,
        "{told}"
    );

    let mut console = start(&directory, &["--on-panic=reboot"])?;
    console.send(PANIC)?;
    console.expect("OpenSBI")?;
    console.expect("understudy: guest ready (no network): redis listens on port 6379")?;
    console.send("poweroff -f\n")?;
    let (status, _) = console.finish()?;
    ensure!(status.success(), "{status}");
    let told = said(&directory)?;
    ensure!(
        told.matches("the guest's kernel panicked").count() == 1,
        "{told}"
    );
    ensure!(told.matches("the guest rebooted").count() == 1, "{told}");

    // The guest can do without: it reboots by itself.
    let mut console = start(&directory, &[])?;
    console.send("echo 1 > /proc/sys/kernel/panic\n")?;
    console.send(PANIC)?;
    console.expect("OpenSBI")?;
    let told = said(&directory)?;
    ensure!(
        told.matches("the guest's kernel panicked").count() == 1,
        "{told}"
    );
    drop(console);
    fs::remove_dir_all(&directory)?;
    Ok(())
}

/// Debian's kernel for amd64 has pvpanic's driver; it restarts by the reset register.
#[test]
fn a_panic_of_debian_amd64_is_told_and_ends_the_machine_or_boots_it_anew() -> Result<()> {
    let directory = site_for("panic-amd64", "amd64")?;
    let mut console = start(&directory, &["--on-panic=stop"])?;
    console.send(PANIC)?;
    let (status, text) = console.finish()?;
    ensure!(status.code() == Some(13), "{status}");
    let text = String::from_utf8_lossy(&text);
    ensure!(text.contains("Kernel panic - not syncing: sysrq"), "{text}");

    let mut console = start(&directory, &["--on-panic=reboot"])?;
    console.send(PANIC)?;
    console.expect("understudy: guest ready (no network): redis listens on port 6379")?;
    console.send("reboot -f\n")?;
    console.expect("reboot: Restarting system")?;
    console.expect("understudy: guest ready (no network): redis listens on port 6379")?;
    console.send("poweroff -f\n")?;
    let (status, _) = console.finish()?;
    ensure!(status.success(), "{status}");
    let told = said(&directory)?;
    ensure!(
        told.matches("the guest's kernel panicked").count() == 1,
        "{told}"
    );
    ensure!(told.matches("the guest rebooted").count() == 2, "{told}");
    fs::remove_dir_all(&directory)?;
    Ok(())
}

#[test]
fn a_guest_whose_watchdog_nobody_reloads_is_booted_anew() -> Result<()> {
    let directory = site("watchdog")?;
    let manifest = fs::read_to_string(directory.join("guest/manifest.json"))?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
    let words = manifest["command_line"].as_str().unwrap_or_default();
    let append = format!("--append={words} understudy.watchdog=4");
    let mut console = start(&directory, &[&append])?;
    // It lives for longer than the watchdog's time, because somebody reloads it.
    console.send("sleep 8; echo alive $((20 + 22))\n")?;
    console.expect("alive 42")?;
    ensure!(
        !said(&directory)?.contains("watchdog"),
        "{}",
        said(&directory)?
    );
    console.send("kill -STOP $(ps | awk '/[w]atchdog -T/ { print $1 }')\n")?;
    console.expect("OpenSBI")?;
    console.expect("understudy: guest ready")?;
    ensure!(
        said(&directory)?.contains("did not reload its watchdog"),
        "{}",
        said(&directory)?
    );
    drop(console);
    fs::remove_dir_all(&directory)?;
    Ok(())
}
