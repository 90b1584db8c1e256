//! Debian with systemd on a disk: configured once, then booted from copies.

use super::console::Console;
use super::image;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// The configured disk in an image's directory.
const DISK: &str = "disk";
/// The disk as it is built: Debian configures its packages at the first boot.
const FIRST_BOOT_DISK: &str = "disk.first-boot";
/// Ends a file that is typed.
const END_OF_FILE: &str = "END-OF-THE-WORKLOAD";
/// Lines that are typed before the guest's shell has taken them: a terminal holds 4096 bytes.
const LINES_AT_ONCE: usize = 20;

/// Builds the disk and boots it for the first time, unless there is one; `architecture` is the option
/// that says for which machine.
pub fn ready(image: &Path, architecture: String) -> Result<()> {
    let disk = image.join(DISK);
    if disk.exists() {
        return Ok(());
    }
    let first_boot = image.join(FIRST_BOOT_DISK);
    image::build(
        image,
        &[
            architecture,
            "--root-filesystem".to_owned(),
            first_boot.to_string_lossy().into_owned(),
        ],
    )?;
    let unfinished = image.join("disk.unfinished");
    copy_file(&first_boot, &unfinished)?;
    println!("login: Debian configures its packages, once");
    let arguments = [
        "run",
        "--memory",
        "512M",
        "--guest",
        &image.to_string_lossy(),
    ]
    .into_iter()
    .chain(["--disk", &unfinished.to_string_lossy()])
    .map(str::to_owned)
    .collect::<Vec<_>>();
    let mut console = Console::start(&arguments, &image.join("first-boot.messages"))?;
    log_in(&mut console)?;
    console.send("systemctl poweroff\n")?;
    let (status, _) = console.finish()?;
    ensure!(status.success(), "the first boot ends with {status}");
    fs::rename(&unfinished, &disk).context("the configured disk cannot be renamed")
}

/// A copy of the image's disk, with its holes.
pub fn copy(image: &Path, to: &Path) -> Result<()> {
    copy_file(&image.join(DISK), to)
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from, to])
        .status()
        .context("cp does not start")?;
    ensure!(status.success(), "{} is not copied", from.display());
    Ok(())
}

/// Logs in, types the script, has it run, and waits for the power-off.
pub fn drive(arguments: &[String], messages: &Path, script: &str) -> Result<(ExitStatus, Vec<u8>)> {
    let mut console = Console::start(arguments, messages)?;
    log_in(&mut console)?;
    console.send(&format!("cat > /tmp/workload.sh << '{END_OF_FILE}'\n"))?;
    let text = image::script(script)?;
    for lines in text.lines().collect::<Vec<_>>().chunks(LINES_AT_ONCE) {
        for line in lines {
            console.expect("> ")?;
            console.send(&format!("{line}\n"))?;
        }
    }
    console.expect("> ")?;
    console.send(&format!("{END_OF_FILE}\n"))?;
    console.expect("# ")?;
    console.send("sh /tmp/workload.sh; echo \"exit status\" $?; poweroff\n")?;
    console.expect("exit status 0\r\n")?;
    console.finish()
}

fn log_in(console: &mut Console) -> Result<()> {
    console.expect(" login: ")?;
    console.send("root\n")?;
    console.expect("# ")
}
