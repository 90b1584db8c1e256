//! Power-on. With firmware: puts it into RAM and enters it (`boot/pvh.rs`). Without: puts a Linux kernel, its initial RAM
//! disk and what it is told about the machine into RAM, and enters it in 64-bit mode (Linux,
//! `Documentation/arch/x86/boot.rst`, "64-bit boot protocol").

mod image;
mod pvh;
mod zero_page;

pub use image::{KernelError, NotAKernel};
pub use pvh::FirmwareError;

use crate::board::{PCI_CONFIGURATION_BASE, PCI_CONFIGURATION_SIZE, acpi, ports};
use crate::cpu::Cpu;
use crate::ram::{HOLE_END, PAGE_SIZE, Ram};
use image::Kernel;
use std::fmt;
use thiserror::Error;
use zero_page::{MemoryRange, ZeroPage};

/// The global descriptor table that the boot protocol asks for.
const DESCRIPTORS: u64 = 0x500;
/// The "zero page", struct `boot_params`.
const ZERO_PAGE: u64 = 0x7000;
/// Page tables that map the first 4 GiB to themselves: one page of each upper level, four of 2 MiB
/// entries.
const PAGE_TABLES: u64 = 0x9000;
/// The command line, up to a zero byte.
const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes of a command line, zero included, at most; kernels may take less.
const COMMAND_LINE_ROOM: u64 = 0x1_0000;
/// The end of RAM below the area where a PC's firmware and video lie.
const LOW_RAM_END: u64 = 0x9_fc00;
/// The ACPI tables, in the area that is searched for them.
const ACPI_TABLES: u64 = 0xe_0000;
/// What a CPU executes that gives itself back, and behind that the page tables that a CPU is woken up with: in the
/// area of a PC's firmware, which a kernel leaves alone.
const RESET_VECTOR: u64 = 0xf_0000;
const WAKEUP_PAGE_TABLES: u64 = 0xf_1000;
/// Where RAM goes on.
const HIGH_RAM: u64 = 0x10_0000;
/// Least RAM: nothing that is a kernel runs in less.
const LEAST_RAM: u64 = 8 << 20;

/// What is loaded at power-on: firmware, or a kernel and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootImages {
    /// Firmware that is entered as a PVH guest is; then nothing of the others is looked at.
    pub firmware: Option<Vec<u8>>,
    /// A Linux `bzImage` for x86-64.
    pub kernel: Vec<u8>,
    /// Initial RAM disk for the kernel.
    pub initrd: Option<Vec<u8>>,
    /// The kernel's command line.
    pub command_line: String,
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
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Part::Firmware => "firmware",
            Part::Kernel => "kernel",
            Part::Initrd => "initrd",
        })
    }
}

/// Why a machine cannot be started from these images.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum BootError {
    /// The file is no firmware that this machine can enter.
    #[error("the firmware cannot be started: {0}")]
    Firmware(#[from] FirmwareError),
    /// The file is no kernel that this machine can enter.
    #[error("the kernel cannot be started: {0}")]
    Kernel(#[from] KernelError),
    /// The initrd is an empty file.
    #[error("the initrd is empty")]
    EmptyInitrd,
    /// The kernel would cut it off.
    #[error("the kernel command line has {length} bytes, this kernel takes {most}")]
    CommandLineTooLong {
        /// Bytes without the zero at the end.
        length: usize,
        /// Bytes that the kernel takes.
        most: u64,
    },
    /// The kernel would see its end there.
    #[error("the kernel command line holds a zero byte")]
    CommandLineHoldsZero,
    /// There is too little RAM.
    #[error(
        "there is no room for the {part}: it needs the addresses {start:#x} to {end:#x}, and {free}: \
         give the machine more memory"
    )]
    NoRoom {
        /// Which part.
        part: Part,
        /// Its first byte.
        start: u64,
        /// The byte after its last.
        end: u64,
        /// What is in its way.
        free: String,
    },
}

/// A machine that has been loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The first CPU, about to enter the kernel.
    pub cpu: Cpu,
    /// Where the initrd is.
    pub initrd: Option<u64>,
}

/// Loads a machine: `ram` is as after power-on.
///
/// # Errors
/// [`BootError`] for a file that is no kernel or no firmware, and for what does not fit. RAM may have been changed
/// then.
pub fn load(
    ram: &mut Ram,
    images: &BootImages,
    board: &acpi::Description,
) -> Result<Loaded, BootError> {
    let loaded = match &images.firmware {
        Some(firmware) => Loaded {
            cpu: pvh::load(ram, firmware, board)?,
            initrd: None,
        },
        None => load_kernel(ram, images, board)?,
    };
    put(ram, ACPI_TABLES, &acpi::tables(board, ACPI_TABLES));
    if board.cpus > 1 {
        put(ram, RESET_VECTOR, &reset_code());
        put_page_tables(ram, WAKEUP_PAGE_TABLES);
    }
    Ok(loaded)
}

/// Loads a machine without firmware, but for what belongs to every machine.
fn load_kernel(
    ram: &mut Ram,
    images: &BootImages,
    board: &acpi::Description,
) -> Result<Loaded, BootError> {
    let kernel = Kernel::parse(&images.kernel)?;
    if ram.low_end() < LEAST_RAM || kernel.start < HIGH_RAM || kernel.end > ram.low_end() {
        return Err(BootError::NoRoom {
            part: Part::Kernel,
            start: kernel.start,
            end: kernel.end,
            free: format!("RAM is {HIGH_RAM:#x} to {:#x}", ram.low_end()),
        });
    }
    put(ram, kernel.start, kernel.body);
    let initrd = place_initrd(ram, images.initrd.as_deref(), &kernel)?;
    put_command_line(ram, &images.command_line, &kernel)?;
    let zero_page = ZeroPage {
        setup_header: kernel.setup_header,
        command_line: COMMAND_LINE,
        initrd,
        root_pointer: ACPI_TABLES,
        memory: &memory_map(ram, board),
    };
    put(ram, ZERO_PAGE, &zero_page.build());
    put_page_tables(ram, PAGE_TABLES);
    Ok(Loaded {
        cpu: entry(ram, kernel.entry()),
        initrd: initrd.map(|(start, _)| start),
    })
}

/// What the kernel is told of memory (the E820 map).
fn memory_map(ram: &Ram, board: &acpi::Description) -> Vec<MemoryRange> {
    let mut map = vec![
        MemoryRange::ram(0, LOW_RAM_END),
        MemoryRange::reserved(LOW_RAM_END, HIGH_RAM),
        MemoryRange::ram(HIGH_RAM, ram.low_end()),
    ];
    if board.pci_functions.is_some() {
        // A kernel trusts the MCFG table only if this map says so, too.
        let end = PCI_CONFIGURATION_BASE + PCI_CONFIGURATION_SIZE;
        map.push(MemoryRange::reserved(PCI_CONFIGURATION_BASE, end));
    }
    map.extend(ram.high_end().map(|end| MemoryRange::ram(HOLE_END, end)));
    map
}

/// As high as the kernel and RAM below the hole allow, as boot loaders do: the kernel unpacks itself below.
fn place_initrd(
    ram: &mut Ram,
    initrd: Option<&[u8]>,
    kernel: &Kernel,
) -> Result<Option<(u64, u64)>, BootError> {
    let Some(bytes) = initrd else {
        return Ok(None);
    };
    if bytes.is_empty() {
        return Err(BootError::EmptyInitrd);
    }
    let length = bytes.len() as u64;
    let ceiling = ram.low_end().min(kernel.initrd_ceiling);
    let start = ceiling.saturating_sub(length) / PAGE_SIZE * PAGE_SIZE;
    if start < kernel.end {
        return Err(BootError::NoRoom {
            part: Part::Initrd,
            start,
            end: start + length,
            free: format!("the kernel works up to {:#x}", kernel.end),
        });
    }
    put(ram, start, bytes);
    Ok(Some((start, length)))
}

fn put_command_line(ram: &mut Ram, text: &str, kernel: &Kernel) -> Result<(), BootError> {
    let most = kernel.command_line_size.min(COMMAND_LINE_ROOM - 1);
    if text.len() as u64 > most {
        let length = text.len();
        return Err(BootError::CommandLineTooLong { length, most });
    }
    if text.contains('\0') {
        return Err(BootError::CommandLineHoldsZero);
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    put(ram, COMMAND_LINE, &bytes);
    Ok(())
}

/// What the ACPI tables say of where a CPU goes that gives itself back.
pub fn reset_vector() -> u64 {
    RESET_VECTOR
}

/// Waits for the wakeup, which is never behind that instruction; the last CPU, which cannot, halts.
fn reset_code() -> [u8; 9] {
    let [low, high] = ports::CPU_WAIT.to_le_bytes();
    [0x66, 0xba, low, high, 0xee, 0xfa, 0xf4, 0xeb, 0xfc] // mov dx, port; out dx, al; cli; hlt; jmp to cli
}

/// A CPU that was woken up, about to execute its first instruction (ACPI 6.5, section 5.2.12.19): 64-bit mode, all
/// memory below 4 GiB mapped to itself, interrupts off. Linux' page tables mean NX before it writes EFER, which says
/// whether there is such a bit.
pub fn woken_up(address: u64) -> Cpu {
    const NXE: u64 = 1 << 11;
    let mut cpu = Cpu::long_mode(WAKEUP_PAGE_TABLES, address);
    cpu.registers.efer |= NXE;
    cpu
}

/// SDM volume 3, section 4.5: present, writable; the lowest level with 2 MiB pages.
fn put_page_tables(ram: &mut Ram, root: u64) {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let upper = root + PAGE_SIZE;
    let directories = upper + PAGE_SIZE;
    put(ram, root, &(upper | PRESENT_WRITABLE).to_le_bytes());
    for directory in 0..4 {
        let address = directories + directory * PAGE_SIZE;
        let entry = address | PRESENT_WRITABLE;
        put(ram, upper + 8 * directory, &entry.to_le_bytes());
        for index in 0..512 {
            let page = (directory << 30 | index << 21) | PRESENT_WRITABLE | LARGE;
            put(ram, address + 8 * index, &page.to_le_bytes());
        }
    }
}

/// "64-bit boot protocol": flat code in 0x10, flat data in 0x18, interrupts off, RSI is the zero page.
fn entry(ram: &mut Ram, rip: u64) -> Cpu {
    const CODE: u64 = 0x00af_9b00_0000_ffff;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const RSI: usize = 6;
    let descriptors = [0, 0, CODE, DATA];
    for (index, descriptor) in (0u64..).zip(descriptors) {
        put(ram, DESCRIPTORS + 8 * index, &u64::to_le_bytes(descriptor));
    }
    let mut cpu = Cpu::long_mode(PAGE_TABLES, rip);
    cpu.registers.gdtr.base = DESCRIPTORS;
    cpu.registers.gdtr.limit = (8 * descriptors.len() - 1) as u16;
    cpu.registers.gpr[RSI] = ZERO_PAGE;
    cpu
}

/// Writes what was checked to be RAM before.
fn put(ram: &mut Ram, address: u64, bytes: &[u8]) {
    ram.write(address, bytes)
        .expect("the address was checked to lie in RAM");
}

#[cfg(test)]
mod tests;
