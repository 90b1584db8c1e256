//! Which machine is measured, and what that decides: the guest's compiler, QEMU's program and board.

use clap::ValueEnum;
use std::process::Command;

/// The architecture of the measured machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// 64-bit RISC-V, on QEMU's `virt` board
    #[default]
    #[value(name = "riscv64")]
    Riscv64,
    /// The x86-64 PC
    #[value(name = "x86-64", alias = "amd64")]
    X86_64,
}

impl Target {
    /// What `--arch` takes, of `understudy run` and of `understudy guest build`.
    pub fn name(self) -> &'static str {
        match self {
            Target::Riscv64 => "riscv64",
            Target::X86_64 => "x86-64",
        }
    }

    /// Debian's name for it.
    pub fn debian(self) -> &'static str {
        match self {
            Target::Riscv64 => "riscv64",
            Target::X86_64 => "amd64",
        }
    }

    /// The compiler of the guest's programs.
    pub fn compiler(self) -> &'static [&'static str] {
        match self {
            Target::Riscv64 => &["riscv64-linux-gnu-gcc", "-march=rv64gc"],
            Target::X86_64 => &["gcc"],
        }
    }

    /// QEMU's program.
    pub fn qemu(self) -> &'static str {
        match self {
            Target::Riscv64 => "qemu-system-riscv64",
            Target::X86_64 => "qemu-system-x86_64",
        }
    }

    /// Debian's package with it.
    pub fn qemu_package(self) -> &'static str {
        match self {
            Target::Riscv64 => "qemu-system-misc",
            Target::X86_64 => "qemu-system-x86",
        }
    }

    /// Adds the board to QEMU's command line. The x86-64 one has the CPU that the machine announces (a
    /// Westmere; QEMU's translator has no SHA instructions), translated, whatever the host could do.
    pub fn add_qemu_board(self, command: &mut Command) {
        match self {
            Target::Riscv64 => command
                .args(["-M", "virt"])
                .args(["-global", "virtio-mmio.force-legacy=false"]),
            Target::X86_64 => command
                .args(["-M", "q35", "-accel", "tcg,thread=single"])
                .args(["-cpu", "Westmere", "-nodefaults", "-no-reboot"]),
        };
    }

    /// The device that a disk is, in QEMU's words.
    pub fn qemu_disk(self) -> &'static str {
        match self {
            Target::Riscv64 => "virtio-blk-device",
            Target::X86_64 => "virtio-blk-pci",
        }
    }
}
