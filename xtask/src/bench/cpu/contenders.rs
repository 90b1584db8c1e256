//! Who runs the programs: this host itself, our machine, QEMU and RVVM.

use super::guest::{Images, MEMORY_MIB};
use super::programs;
use super::target::Target;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file with instruction counts, below the scratch directory.
const LINE_COUNTS: &str = "line-counts";

/// Where RVVM is.
#[derive(Clone, Debug)]
pub struct Rvvm {
    /// Built elsewhere.
    pub program: PathBuf,
    /// Firmware that jumps to a fixed address (OpenSBI `fw_jump`).
    pub firmware: PathBuf,
}

/// One column of the table.
#[derive(Clone, Debug)]
pub enum Contender {
    /// The same sources, compiled for this host.
    Native { programs: PathBuf },
    /// Our machine.
    Understudy {
        program: PathBuf,
        /// `--engine`, or the program's own choice.
        engine: Option<String>,
        /// Whether the run is recorded.
        records: bool,
        /// Whether it writes how many instructions were executed whenever the guest printed a line.
        counts: bool,
        harts: usize,
    },
    /// QEMU for the same architecture, plain or with `-icount shift=auto,rr=record`.
    Qemu { records: bool },
    /// RVVM, with kernel and initial RAM disk in one file.
    Rvvm {
        rvvm: Rvvm,
        payload: PathBuf,
        command_line: String,
    },
}

impl Contender {
    /// The heading of its column.
    pub fn name(&self) -> String {
        match self {
            Contender::Native { .. } => "native".into(),
            Contender::Understudy {
                engine,
                records,
                harts,
                ..
            } => {
                let recording = if *records { "+record" } else { "" };
                let harts = match harts {
                    1 => String::new(),
                    several => format!(", {several} harts"),
                };
                let engine = engine.as_deref().unwrap_or("understudy");
                format!("{engine}{recording}{harts}")
            }
            Contender::Qemu { records: false } => "qemu".into(),
            Contender::Qemu { records: true } => "qemu-rr".into(),
            Contender::Rvvm { .. } => "rvvm".into(),
        }
    }

    /// The process that boots the images (or, natively, just runs the programs).
    pub fn command(&self, images: &Images, scratch: &Path) -> Command {
        match self {
            Contender::Native { programs } => {
                let mut command = Command::new("sh");
                command
                    .arg(programs.join(programs::RUNNER))
                    .arg(programs)
                    .env("TMPDIR", scratch);
                command
            }
            Contender::Understudy {
                program,
                engine,
                records,
                counts,
                harts,
            } => {
                let mut command = understudy(program, images, engine.as_deref());
                command.args(["--harts", &harts.to_string()]);
                if *counts {
                    command.arg("--line-counts").arg(scratch.join(LINE_COUNTS));
                }
                if *records {
                    let recording = scratch.join("recording");
                    // That of the repetition before, which the program would not replace.
                    let _removed = std::fs::remove_file(&recording);
                    command.arg("--record").arg(recording);
                }
                command
            }
            Contender::Qemu { records } => {
                let mut command = qemu(images);
                command.args(["-nic", "none"]);
                if *records {
                    command.arg("-icount").arg(record_option(scratch));
                }
                command
            }
            Contender::Rvvm {
                rvvm,
                payload,
                command_line,
            } => {
                let mut command = Command::new(&rvvm.program);
                command.arg(&rvvm.firmware).arg("-k").arg(payload);
                command.args(["-m", &format!("{MEMORY_MIB}M")]).args([
                    "-nogui",
                    "-nonet",
                    "-cmdline",
                    command_line,
                ]);
                command
            }
        }
    }

    /// What was written in a run of how many instructions were executed at each line; nothing if it is not.
    pub fn line_counts(&self, scratch: &Path) -> Result<String> {
        match self {
            Contender::Understudy { counts: true, .. } => {
                let path = scratch.join(LINE_COUNTS);
                let text = std::fs::read(&path);
                let text = text.with_context(|| format!("{} was not written", path.display()))?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            _ => Ok(String::new()),
        }
    }

    /// Removes what a run left behind.
    pub fn clean_up(&self, scratch: &Path) -> Result<()> {
        for file in ["recording", "qemu.replay", LINE_COUNTS] {
            let path = scratch.join(file);
            if path.exists() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The value of QEMU's `-icount` that records the run below `scratch`.
pub fn record_option(scratch: &Path) -> String {
    let file = scratch.join("qemu.replay");
    format!("shift=auto,rr=record,rrfile={}", file.display())
}

/// `understudy run` with these images, its console on standard output.
pub fn understudy(program: &Path, images: &Images, engine: Option<&str>) -> Command {
    let mut command = Command::new(program);
    command.arg("run").arg("--kernel").arg(&images.kernel);
    command.arg("--initrd").arg(&images.initrd);
    command.args(["--arch", images.target.name()]);
    if images.target == Target::Riscv64 {
        command.arg("--firmware").arg(&images.firmware);
    }
    command.args(["--append", &images.command_line]);
    command.args(["--memory", &format!("{MEMORY_MIB}M")]);
    if let Some(disk) = &images.disk {
        command.arg("--disk").arg(disk);
    }
    if let Some(engine) = engine {
        command.args(["--engine", engine]);
    }
    command
}

/// QEMU with these images, its console on standard output.
pub fn qemu(images: &Images) -> Command {
    let target = images.target;
    let mut command = Command::new(target.qemu());
    target.add_qemu_board(&mut command);
    command.args(["-m", &MEMORY_MIB.to_string()]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    if target == Target::Riscv64 {
        command.arg("-bios").arg(&images.firmware);
    }
    command.arg("-kernel").arg(&images.kernel);
    command.arg("-initrd").arg(&images.initrd);
    command.args(["-append", &images.command_line]);
    if let Some(disk) = &images.disk {
        command.arg("-drive").arg(format!(
            "file={},format=raw,if=none,id=disk0",
            disk.display()
        ));
        let device = format!("{},drive=disk0", target.qemu_disk());
        command.args(["-device", &device]);
    }
    command
}
