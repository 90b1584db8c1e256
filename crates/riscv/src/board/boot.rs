//! Power-on: puts firmware, kernel, initrd and device tree into RAM and the reset vector into the
//! boot ROM, at the addresses that QEMU's `virt` uses.

mod device_tree;
mod elf;
mod raw;
mod reset_vector;

pub use elf::ElfError;
pub use raw::{RawError, WrongFormat};

use crate::board::bus::{Bus, ROM_BASE};
use crate::memory::{Memory, RAM_BASE};
use device_tree::Chosen;
use elf::Elf;
use machine::config::{BoardConfig, BootImages};
use machine::memory::PAGE_SIZE;
use std::fmt;
use thiserror::Error;

/// Kernels are put at a multiple of this, as Linux demands for RV64
/// (`Documentation/arch/riscv/boot.rst`).
const KERNEL_ALIGNMENT: u64 = 2 << 20;
/// The device tree begins at a multiple of this, as in QEMU.
const DEVICE_TREE_ALIGNMENT: u64 = 2 << 20;
/// Room behind the device tree, in which OpenSBI adds its reserved memory.
const DEVICE_TREE_SLACK: u64 = 64 << 10;
/// The device tree lies below this, where every firmware can reach it, as in QEMU.
const DEVICE_TREE_CEILING: u64 = 3 << 30;
/// The initrd begins this far behind the kernel, if RAM is large enough, as in QEMU.
const INITRD_DISTANCE: u64 = 128 << 20;

/// What the device tree says of the harts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaDescription {
    /// `riscv,isa`, for example `rv64imafdc_zicsr_zifencei_sstc`.
    pub isa: String,
    /// `riscv,isa-base`, for example `rv64i`.
    pub isa_base: String,
    /// `riscv,isa-extensions`.
    pub isa_extensions: Vec<String>,
    /// `mmu-type`, for example `riscv,sv57`.
    pub mmu_type: String,
    /// The properties that say how long a cache block is.
    pub block_lengths: Vec<&'static str>,
}

/// Where the harts begin, and what lies where. All addresses are guest physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// First instruction of every hart, in the boot ROM. It needs no register to be set: it sets a0
    /// (hart), a1 (device tree) and a2 (OpenSBI's `fw_dynamic_info`) and jumps to `start`.
    pub pc: u64,
    /// Where the boot ROM jumps to: the firmware, or the kernel if there is none.
    pub start: u64,
    /// Where the kernel begins; 0 if there is none.
    pub kernel: u64,
    /// The device tree.
    pub device_tree: u64,
    /// First byte of the initrd and the one after its last.
    pub initrd: Option<(u64, u64)>,
}

/// The parts that are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The firmware.
    Firmware,
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// The device tree.
    DeviceTree,
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Part::Firmware => "firmware",
            Part::Kernel => "kernel",
            Part::Initrd => "initrd",
            Part::DeviceTree => "device tree",
        })
    }
}

/// Why a machine cannot be started from these images.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum BootError {
    /// The board cannot be built.
    #[error(transparent)]
    Board(#[from] machine::config::BoardConfigError),
    /// Neither firmware nor kernel.
    #[error("there is nothing to start: give a firmware, a kernel or both")]
    Nothing,
    /// An ELF file that cannot be loaded.
    #[error("the {part} is an ELF file that cannot be loaded: {error}")]
    Elf {
        /// Which image.
        part: Part,
        /// What is wrong with it.
        error: ElfError,
    },
    /// A file that is neither ELF nor a RISC-V binary.
    #[error("the {part} cannot be loaded: {error}")]
    Raw {
        /// Which image.
        part: Part,
        /// What is wrong with it.
        error: RawError,
    },
    /// The initrd is an empty file.
    #[error("the initrd is empty")]
    EmptyInitrd,
    /// A part lies outside RAM.
    #[error(
        "the {part} needs the addresses {start:#x} to {end:#x}, but RAM ends at {ram_end:#x}: give \
         the machine more memory{hint}"
    )]
    OutsideRam {
        /// Which part.
        part: Part,
        /// Its first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// The byte after the last of RAM.
        ram_end: u64,
        /// What else may be wrong.
        hint: &'static str,
    },
    /// Two parts need the same memory.
    #[error(
        "{first} and {second} overlap at {address:#x}: give the machine more memory, or link them \
         for other addresses"
    )]
    Overlap {
        /// One part.
        first: Part,
        /// The other.
        second: Part,
        /// The first address that both need.
        address: u64,
    },
    /// RAM is too small to hold the parts.
    #[error(
        "there is no room for the {part} of {length} bytes in {memory_bytes} bytes of memory: give \
         the machine more"
    )]
    NoRoom {
        /// Which part.
        part: Part,
        /// Its length in bytes.
        length: u64,
        /// Bytes of RAM.
        memory_bytes: u64,
    },
    /// The command line or the description of the harts has a zero byte in it.
    #[error("the device tree cannot be written: {0}; the kernel command line may hold a zero byte")]
    DeviceTree(#[from] vm_fdt::Error),
}

/// Loads a machine.
///
/// `memory` and `bus` are as after power-on and belong to `config`.
///
/// # Errors
/// [`BootError`] for an image that is no RISC-V program, is truncated, or does not fit. Memory may
/// have been changed then.
pub fn load(
    config: &BoardConfig,
    images: &BootImages,
    isa: &IsaDescription,
    memory: &mut Memory,
    bus: &mut Bus,
) -> Result<BootEntry, BootError> {
    let mut loader = Loader {
        memory,
        placed: Vec::new(),
    };
    let firmware = images.firmware.as_deref();
    let firmware = firmware
        .map(|f| loader.program(Part::Firmware, f, RAM_BASE))
        .transpose()?;
    // As QEMU: behind the firmware, or at the start of RAM if there is none.
    let kernel_base = firmware.map_or(RAM_BASE, |f| f.end.next_multiple_of(KERNEL_ALIGNMENT));
    let kernel = images.kernel.as_deref();
    let kernel = kernel
        .map(|k| loader.program(Part::Kernel, k, kernel_base))
        .transpose()?;
    let start = firmware.or(kernel).ok_or(BootError::Nothing)?.entry;

    let initrd = images.initrd.as_deref();
    let tree = |initrd| {
        let chosen = Chosen {
            command_line: &images.command_line,
            initrd,
        };
        device_tree::build(config, isa, &chosen)
    };
    // The length of the tree does not depend on the addresses in it.
    let tree_length = tree(initrd.map(|_| (0, 0)))?.len() as u64;
    let device_tree = loader.reserve_device_tree(tree_length)?;
    let kernel_start = kernel.map_or(kernel_base, |k| k.entry);
    let kernel_end = kernel.map_or(kernel_base, |k| k.end);
    let initrd = match initrd {
        Some(initrd) => Some(loader.initrd(initrd, kernel_start, kernel_end, device_tree)?),
        None => None,
    };
    loader.copy(Part::DeviceTree, device_tree, &tree(initrd)?)?;
    let kernel = kernel.map_or(0, |k| k.entry);
    bus.set_rom(reset_vector::build(start, device_tree, kernel));
    Ok(BootEntry {
        pc: ROM_BASE,
        start,
        kernel,
        device_tree,
        initrd,
    })
}

/// A loaded program.
#[derive(Clone, Copy)]
struct Program {
    entry: u64,
    /// The byte after the last that it occupies.
    end: u64,
}

/// Memory and what has been put where.
struct Loader<'a> {
    memory: &'a mut Memory,
    placed: Vec<(Part, u64, u64)>,
}

impl Loader<'_> {
    fn ram_end(&self) -> u64 {
        RAM_BASE + self.memory.size()
    }

    /// Loads an ELF file where it wants to be, anything else at `base`.
    fn program(&mut self, part: Part, file: &[u8], base: u64) -> Result<Program, BootError> {
        if elf::is_elf(file) {
            let elf = Elf::parse(file).map_err(|error| BootError::Elf { part, error })?;
            return self.elf(part, &elf);
        }
        let length = raw::memory_length(file).map_err(|error| BootError::Raw { part, error })?;
        self.reserve(part, base, length, "")?;
        self.copy(part, base, file)?;
        self.clear(part, base + file.len() as u64, length - file.len() as u64)?;
        Ok(Program {
            entry: base,
            end: base + length,
        })
    }

    fn elf(&mut self, part: Part, elf: &Elf) -> Result<Program, BootError> {
        let mut end = RAM_BASE;
        for segment in &elf.segments {
            let hint = ", or use an image that is linked for physical addresses in RAM";
            self.reserve(part, segment.address, segment.memory_length, hint)?;
            self.copy(part, segment.address, segment.bytes)?;
            let length = segment.bytes.len() as u64;
            self.clear(
                part,
                segment.address + length,
                segment.memory_length - length,
            )?;
            end = end.max(segment.address + segment.memory_length);
        }
        Ok(Program {
            entry: elf.entry,
            end,
        })
    }

    /// The device tree's place: the end of RAM or of what firmware can reach, downwards.
    fn reserve_device_tree(&mut self, length: u64) -> Result<u64, BootError> {
        let needed = length + DEVICE_TREE_SLACK;
        let top = self.ram_end().min(DEVICE_TREE_CEILING);
        let start = (top - needed.min(top)) / DEVICE_TREE_ALIGNMENT * DEVICE_TREE_ALIGNMENT;
        if start < RAM_BASE {
            let memory_bytes = self.memory.size();
            return Err(BootError::NoRoom {
                part: Part::DeviceTree,
                length: needed,
                memory_bytes,
            });
        }
        self.reserve(Part::DeviceTree, start, needed, "")?;
        Ok(start)
    }

    /// Loads the initrd a good way behind the kernel as QEMU does, or directly below the device
    /// tree if it does not fit there.
    fn initrd(
        &mut self,
        file: &[u8],
        kernel_start: u64,
        kernel_end: u64,
        device_tree: u64,
    ) -> Result<(u64, u64), BootError> {
        if file.is_empty() {
            return Err(BootError::EmptyInitrd);
        }
        let length = file.len() as u64;
        let distance = INITRD_DISTANCE.min(self.memory.size() / 2);
        let wanted = kernel_start.saturating_add(distance).max(kernel_end);
        let highest = device_tree.saturating_sub(length) / PAGE_SIZE * PAGE_SIZE;
        let start = wanted
            .checked_next_multiple_of(PAGE_SIZE)
            .unwrap_or(highest)
            .min(highest);
        if start < kernel_end || start < RAM_BASE {
            let memory_bytes = self.memory.size();
            return Err(BootError::NoRoom {
                part: Part::Initrd,
                length,
                memory_bytes,
            });
        }
        self.reserve(Part::Initrd, start, length, "")?;
        self.copy(Part::Initrd, start, file)?;
        Ok((start, start + length))
    }

    /// Claims memory for a part: in RAM, and of no other part.
    fn reserve(
        &mut self,
        part: Part,
        start: u64,
        length: u64,
        hint: &'static str,
    ) -> Result<(), BootError> {
        let end = start.saturating_add(length);
        if start < RAM_BASE || end > self.ram_end() {
            let ram_end = self.ram_end();
            return Err(BootError::OutsideRam {
                part,
                start,
                end,
                ram_end,
                hint,
            });
        }
        let overlap =
            |&&(other, from, to): &&(Part, u64, u64)| other != part && from < end && start < to;
        if let Some(&(first, from, _)) = self.placed.iter().find(overlap) {
            return Err(BootError::Overlap {
                first,
                second: part,
                address: start.max(from),
            });
        }
        self.placed.push((part, start, end));
        Ok(())
    }

    fn copy(&mut self, part: Part, start: u64, bytes: &[u8]) -> Result<(), BootError> {
        let (end, ram_end) = (start.saturating_add(bytes.len() as u64), self.ram_end());
        let outside = BootError::OutsideRam {
            part,
            start,
            end,
            ram_end,
            hint: "",
        };
        self.memory.write(start, bytes).map_err(|_| outside)
    }

    fn clear(&mut self, part: Part, mut start: u64, mut length: u64) -> Result<(), BootError> {
        const ZEROES: [u8; 4096] = [0; 4096];
        while length > 0 {
            let step = length.min(ZEROES.len() as u64);
            self.copy(part, start, &ZEROES[..step as usize])?;
            start += step;
            length -= step;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
