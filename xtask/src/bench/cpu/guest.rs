//! The images that every emulator boots: a Debian guest in RAM with the programs, which runs them and
//! powers off.

use super::programs::{self, Program, Work};
use super::target::Target;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// RAM of every guest, in MiB.
pub const MEMORY_MIB: u32 = 512;
/// Where the programs are in the guest.
const PROGRAMS: &str = "/bench";

/// What a machine boots from.
#[derive(Clone, Debug)]
pub struct Images {
    /// Whose they are.
    pub target: Target,
    /// The raw boot image.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// Firmware that is told where the kernel is (OpenSBI `fw_dynamic`): of RISC-V only.
    pub firmware: PathBuf,
    /// The kernel's.
    pub command_line: String,
    /// A raw disk image, if there is one.
    pub disk: Option<PathBuf>,
}

impl Images {
    /// The images in a directory that `understudy guest build` made.
    pub fn open(directory: &Path) -> Result<Images> {
        let path = directory.join("manifest.json");
        let text = std::fs::read(&path)
            .with_context(|| format!("{} is missing: `understudy guest build`", path.display()))?;
        let manifest: Value = serde_json::from_slice(&text)?;
        let command_line = manifest["command_line"]
            .as_str()
            .with_context(|| format!("{} names no command line", path.display()))?;
        let disk = [
            manifest["disk"].as_str().map(PathBuf::from),
            Some(directory.join("disk")),
        ];
        let target = match manifest["architecture"].as_str() {
            Some("amd64") => Target::X86_64,
            _ => Target::Riscv64,
        };
        Ok(Images {
            target,
            kernel: directory.join("kernel"),
            initrd: directory.join("initrd"),
            firmware: directory.join("firmware"),
            command_line: command_line.to_owned(),
            disk: disk.into_iter().flatten().find(|path| path.is_file()),
        })
    }

    /// Builds the guest with the programs, below `scratch`.
    pub fn build(
        understudy: &Path,
        target: Target,
        programs: &[Program],
        work: Work,
        scratch: &Path,
    ) -> Result<Images> {
        let binaries = scratch.join("guest-programs");
        let output = scratch.join("guest");
        let mut command = Command::new(understudy);
        command
            .args(["guest", "build", "--output"])
            .arg(&output)
            .args(["--arch", target.name()])
            .arg("--append")
            .arg(format!(
                "understudy.service=none understudy.network=none \
                 understudy.run=\"sh {PROGRAMS}/{} {PROGRAMS}\"",
                programs::RUNNER
            ));
        for name in programs::build(target.compiler(), programs, work, &binaries)? {
            let file = binaries.join(name);
            command
                .arg("--add-file")
                .arg(format!("{}:{PROGRAMS}/{name}", file.display()));
        }
        let output_of_build = command.stdin(Stdio::null()).output()?;
        if !output_of_build.status.success() {
            bail!(
                "the guest cannot be built: {}",
                String::from_utf8_lossy(&output_of_build.stderr).trim()
            );
        }
        Images::open(&output)
    }
}

/// Where RVVM puts the kernel, and where the initial RAM disk is put behind it: RVVM loads one file
/// for both, and the kernel's `initrdmem=` tells where the second one is. Between them `fw_jump`
/// keeps the device tree (0x8220_0000).
const RVVM_KERNEL: u64 = 0x8020_0000;
const RVVM_INITRD: u64 = 0x8400_0000;

/// Kernel and initial RAM disk as one file for RVVM, and the command line that fits it.
pub fn rvvm_payload(images: &Images, scratch: &Path) -> Result<(PathBuf, String)> {
    let path = scratch.join("rvvm-payload");
    let mut payload = std::fs::read(&images.kernel)?;
    let offset = (RVVM_INITRD - RVVM_KERNEL) as usize;
    if payload.len() > offset {
        bail!("the kernel is too large for RVVM's payload");
    }
    payload.resize(offset, 0);
    let initrd = std::fs::read(&images.initrd)?;
    payload.extend_from_slice(&initrd);
    std::fs::write(&path, payload)?;
    let command_line = format!(
        "{} initrdmem={RVVM_INITRD:#x},{}",
        images.command_line,
        initrd.len()
    );
    Ok((path, command_line))
}
