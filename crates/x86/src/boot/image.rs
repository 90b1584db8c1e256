//! What kind of file a kernel is, and where it wants to be.

use std::fmt;
use thiserror::Error;

/// The setup header's place in the file, and its signature (boot.rst, "The Real-Mode Kernel Header").
const SETUP_HEADER: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const JUMP_LENGTH: usize = 0x201;
const SIGNATURE: usize = 0x202;
const VERSION: usize = 0x206;
const LOAD_FLAGS: usize = 0x211;
const INITRD_LAST: usize = 0x22c;
const RELOCATABLE: usize = 0x234;
const EXTENDED_LOAD_FLAGS: usize = 0x236;
const COMMAND_LINE_SIZE: usize = 0x238;
const PREFERRED_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
const HEADER_LEAST: usize = 0x264;

/// XLF_KERNEL_64 came with it.
const LEAST_VERSION: u16 = 0x020c;
const LOADED_HIGH: u8 = 1;
const KERNEL_64: u16 = 1;
const ABOVE_4_GIB: u16 = 2;
/// The 64-bit entry lies so far behind the protected-mode kernel's first byte.
const ENTRY_64: u64 = 0x200;

/// A file that is something else, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAKernel {
    /// A packed file.
    Packed(&'static str),
    /// An archive such as an initrd.
    Archive,
    /// A kernel for another architecture.
    OtherArchitecture(&'static str),
    /// A disk image with a boot sector.
    BootSector,
    /// An ELF file.
    Elf,
    /// Nothing that is known here.
    Unknown,
}

impl fmt::Display for NotAKernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAKernel::Packed(how) => write!(formatter, "it is a {how} file: unpack it"),
            NotAKernel::Archive => formatter.write_str("it is a cpio archive, perhaps the initrd"),
            NotAKernel::OtherArchitecture(which) => {
                write!(
                    formatter,
                    "it is a kernel for {which}, this machine is an x86-64 PC"
                )
            }
            NotAKernel::BootSector => {
                formatter.write_str("it begins with a boot sector, which needs firmware")
            }
            NotAKernel::Elf => formatter.write_str("it is an ELF file: give the bzImage"),
            NotAKernel::Unknown => formatter.write_str("it is no Linux bzImage"),
        }
    }
}

/// Why a file cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    /// It is something else.
    #[error("{0}")]
    NotAKernel(NotAKernel),
    /// It ends early.
    #[error("the bzImage is truncated: {found} bytes, its header asks for {needed}")]
    Truncated {
        /// Bytes that the header asks for.
        needed: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// It is from before Linux 3.8.
    #[error(
        "the bzImage has boot protocol {}.{:02}, at least 2.12 (Linux 3.8) is needed",
        .0 >> 8, .0 & 0xff
    )]
    TooOld(u16),
    /// It has no 64-bit entry.
    #[error("the bzImage is a 32-bit kernel")]
    Not64Bit,
}

/// A kernel that unpacks itself, in its file.
pub struct Kernel<'a> {
    /// The setup header, as the zero page takes it over.
    pub setup_header: &'a [u8],
    /// What runs.
    pub body: &'a [u8],
    /// Where it is put.
    pub start: u64,
    /// The address after the last that it needs.
    pub end: u64,
    /// The address after the last that an initrd may have.
    pub initrd_ceiling: u64,
    /// Bytes of a command line that it takes, without the zero.
    pub command_line_size: u64,
}

impl<'a> Kernel<'a> {
    /// Reads the setup header.
    pub fn parse(file: &'a [u8]) -> Result<Kernel<'a>, KernelError> {
        if file.len() < HEADER_LEAST || file[SIGNATURE..][..4] != *b"HdrS" {
            return Err(KernelError::NotAKernel(what_else(file)));
        }
        let version = u16::from_le_bytes(array(file, VERSION));
        if version < LEAST_VERSION {
            return Err(KernelError::TooOld(version));
        }
        let flags = u16::from_le_bytes(array(file, EXTENDED_LOAD_FLAGS));
        if flags & KERNEL_64 == 0 || file[LOAD_FLAGS] & LOADED_HIGH == 0 {
            return Err(KernelError::Not64Bit);
        }
        let header_end = SIGNATURE + usize::from(file[JUMP_LENGTH]);
        let body_offset = body_offset(file);
        let needed = body_offset.max(header_end) + ENTRY_64 as usize;
        if file.len() < needed {
            let found = file.len();
            return Err(KernelError::Truncated { needed, found });
        }
        let body = &file[body_offset..];
        // What cannot be moved unpacks itself to where it was linked for.
        let start = match file[RELOCATABLE] {
            0 => FIXED_ADDRESS,
            _ => u64::from_le_bytes(array(file, PREFERRED_ADDRESS)),
        };
        let init_size = u32::from_le_bytes(array(file, INIT_SIZE));
        let room = u64::from(init_size).max(body.len() as u64);
        let initrd_last = u32::from_le_bytes(array(file, INITRD_LAST));
        Ok(Kernel {
            setup_header: &file[SETUP_HEADER..header_end],
            body,
            start,
            end: start.saturating_add(room),
            initrd_ceiling: match flags & ABOVE_4_GIB {
                0 => u64::from(initrd_last) + 1,
                _ => u64::MAX,
            },
            command_line_size: u64::from(u32::from_le_bytes(array(file, COMMAND_LINE_SIZE))),
        })
    }

    /// First instruction, in 64-bit mode.
    pub fn entry(&self) -> u64 {
        self.start + ENTRY_64
    }
}

/// Behind the boot sector and the setup sectors; zero of them mean four, for the sake of the oldest
/// kernels.
fn body_offset(file: &[u8]) -> usize {
    let setup_sectors = match file[SETUP_HEADER] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    (setup_sectors + 1) * 512
}

/// Where bzImages that cannot be moved are put.
const FIXED_ADDRESS: u64 = 0x10_0000;

/// What a file without a setup header may be.
fn what_else(file: &[u8]) -> NotAKernel {
    let begins = |magic: &[u8]| file.starts_with(magic);
    let holds =
        |offset: usize, magic: &[u8]| file.get(offset..).is_some_and(|f| f.starts_with(magic));
    if begins(&[0x1f, 0x8b]) {
        NotAKernel::Packed("gzip")
    } else if begins(&[0xfd, b'7', b'z', b'X', b'Z']) {
        NotAKernel::Packed("xz")
    } else if begins(&[0x28, 0xb5, 0x2f, 0xfd]) {
        NotAKernel::Packed("zstd")
    } else if begins(b"\x7fELF") {
        NotAKernel::Elf
    } else if begins(b"070701") || begins(b"070702") {
        NotAKernel::Archive
    } else if holds(0x38, b"RSC\x05") {
        NotAKernel::OtherArchitecture("RISC-V")
    } else if holds(0x38, b"ARM\x64") {
        NotAKernel::OtherArchitecture("64-bit ARM")
    } else if holds(BOOT_FLAG, &[0x55, 0xaa]) {
        NotAKernel::BootSector
    } else {
        NotAKernel::Unknown
    }
}

/// Bytes that were checked to be there.
fn array<const N: usize>(file: &[u8], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&file[offset..offset + N]);
    bytes
}
