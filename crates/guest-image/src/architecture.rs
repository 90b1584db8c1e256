//! What is different between the architectures that Debian 13 is taken for.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::GuestImageError;

/// The architecture of a guest, by Debian's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit RISC-V.
    #[default]
    Riscv64,
    /// x86-64.
    Amd64,
}

/// What every guest's kernel is told. Each word after `quiet` spares the boot what a virtual machine
/// has no use for; `docs/guest-images.md` has the measurements.
macro_rules! command_line {
    ($more:literal) => {
        concat!(
            "console=ttyS0 quiet cryptomgr.notests ",
            "initcall_blacklist=jent_mod_init,load_system_certificate_list no5lvl",
            $more
        )
    };
}

impl Architecture {
    /// As Debian calls it.
    pub fn debian_name(self) -> &'static str {
        match self {
            Architecture::Riscv64 => "riscv64",
            Architecture::Amd64 => "amd64",
        }
    }

    /// The package that depends on the present kernel.
    pub(crate) fn kernel_meta_package(self) -> &'static str {
        match self {
            Architecture::Riscv64 => "linux-image-riscv64",
            // Without the drivers of real hardware.
            Architecture::Amd64 => "linux-image-cloud-amd64",
        }
    }

    /// The firmware: its package, and its file there. A PC's kernel is entered directly.
    pub(crate) fn firmware(self) -> Option<(&'static str, &'static str)> {
        match self {
            Architecture::Riscv64 => Some((
                "opensbi",
                "usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin",
            )),
            Architecture::Amd64 => None,
        }
    }

    /// U-Boot: its package, and its file there.
    pub(crate) fn u_boot(self) -> Option<(&'static str, &'static str)> {
        match self {
            Architecture::Riscv64 => Some((
                "u-boot-qemu",
                "usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin",
            )),
            Architecture::Amd64 => None,
        }
    }

    /// Where the shared libraries are.
    pub(crate) fn library_directories(self) -> &'static [&'static str] {
        match self {
            Architecture::Riscv64 => &["usr/lib/riscv64-linux-gnu", "usr/lib"],
            Architecture::Amd64 => &["usr/lib/x86_64-linux-gnu", "usr/lib"],
        }
    }

    /// The kernel's command line. On a PC: nothing leaks by speculation there, so nothing has to be
    /// mitigated; the clock is exact, so nothing has to watch it.
    pub(crate) fn command_line(self) -> &'static str {
        match self {
            Architecture::Riscv64 => command_line!(""),
            Architecture::Amd64 => command_line!(" mitigations=off tsc=reliable"),
        }
    }

    /// The name of the demonstration's guest in the cache.
    pub(crate) fn demo_directory(self) -> &'static str {
        match self {
            Architecture::Riscv64 => "demo", // as it was called when there was no other
            Architecture::Amd64 => "demo-amd64",
        }
    }

    /// The name of apt's directory in the cache.
    pub(crate) fn apt_directory(self) -> &'static str {
        match self {
            Architecture::Riscv64 => "apt", // as it was called when there was no other
            Architecture::Amd64 => "apt-amd64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.debian_name())
    }
}

impl FromStr for Architecture {
    type Err = GuestImageError;

    /// Reads Debian's name or the machine's (`x86-64`).
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        match value {
            "riscv64" => Ok(Architecture::Riscv64),
            "amd64" | "x86-64" => Ok(Architecture::Amd64),
            _ => Err(GuestImageError::BadOptions(format!(
                "there is no architecture `{value}` here: write riscv64 or x86-64 (amd64)"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_debians_or_the_machines() {
        assert_eq!(
            "amd64".parse::<Architecture>().unwrap(),
            Architecture::Amd64
        );
        assert_eq!(
            "x86-64".parse::<Architecture>().unwrap(),
            Architecture::Amd64
        );
        assert_eq!(
            "riscv64".parse::<Architecture>().unwrap(),
            Architecture::Riscv64
        );
        let error = "arm64".parse::<Architecture>().unwrap_err();
        assert!(error.to_string().contains("amd64"), "{error}");
    }

    #[test]
    fn a_command_line_has_no_empty_words() {
        for architecture in [Architecture::Riscv64, Architecture::Amd64] {
            let line = architecture.command_line();
            assert!(!line.contains("  ") && line.trim() == line, "{line}");
        }
    }
}
