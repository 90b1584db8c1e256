//! Raw binaries: the Linux `Image` with its header (`Documentation/arch/riscv/boot-image-header.rst`)
//! and anything else that is not known to be something that no RISC-V hart can run.

use std::fmt;
use thiserror::Error;

const HEADER_BYTES: usize = 64;
const IMAGE_SIZE: usize = 16;
const FLAGS: usize = 24;
const MAGIC2: usize = 56;
const RISCV_MAGIC2: &[u8] = b"RSC\x05";
const FLAG_BIG_ENDIAN: u64 = 1;

/// What is wrong with a raw binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RawError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// It is something else.
    #[error("it is {0}")]
    WrongFormat(WrongFormat),
    /// The header's flag says so.
    #[error("it is a big-endian Linux image: RISC-V is little-endian here")]
    BigEndian,
    /// The file is shorter than its sections.
    #[error("it is truncated: it has {found} bytes but its sections need {needed}")]
    Truncated {
        /// Bytes that the file has.
        found: u64,
        /// Bytes that its section table asks for.
        needed: u64,
    },
}

/// What a file is instead of a RISC-V binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongFormat {
    /// Compressed with this program.
    Compressed(&'static str),
    /// A kernel of this architecture.
    Foreign(&'static str),
    /// An EFI or DOS program.
    Executable,
    /// A cpio archive.
    Archive,
    /// A device tree.
    DeviceTree,
    /// Readable text.
    Text,
}

impl fmt::Display for WrongFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WrongFormat::Compressed(program) => {
                write!(formatter, "compressed ({program}): give it unpacked")
            }
            WrongFormat::Foreign(machine) => {
                write!(
                    formatter,
                    "a kernel for {machine}: give one for 64-bit RISC-V"
                )
            }
            WrongFormat::Executable => {
                formatter.write_str("an EFI or DOS program: give a raw Image or an ELF file")
            }
            WrongFormat::Archive => {
                formatter.write_str("a cpio archive: give it as the initrd, and a kernel here")
            }
            WrongFormat::DeviceTree => formatter.write_str("a device tree, not a program"),
            WrongFormat::Text => formatter.write_str("text, not a program"),
        }
    }
}

/// Checks a raw binary and gives the bytes that it occupies in memory from its start on: not less
/// than the file, and more where a Linux header says so.
pub fn memory_length(file: &[u8]) -> Result<u64, RawError> {
    if file.is_empty() {
        return Err(RawError::Empty);
    }
    let found = file.len() as u64;
    if file.get(MAGIC2..HEADER_BYTES - 4) != Some(RISCV_MAGIC2) {
        return wrong_format(file).map_or(Ok(found), |format| Err(RawError::WrongFormat(format)));
    }
    if number(file, FLAGS, 8).is_some_and(|flags| flags & FLAG_BIG_ENDIAN != 0) {
        return Err(RawError::BigEndian);
    }
    let needed = sections_end(file);
    if needed > found {
        return Err(RawError::Truncated { found, needed });
    }
    Ok(number(file, IMAGE_SIZE, 8).unwrap_or(0).max(found))
}

/// The end of the last section in the file, for an `Image` that is also an EFI program (0 if it is
/// none): the only thing in it by which a truncated copy shows.
fn sections_end(file: &[u8]) -> u64 {
    const FILE_HEADER_BYTES: u64 = 24; // with the signature
    const SECTION_BYTES: u64 = 40;
    let Some(header) = number(file, 0x3c, 4) else {
        return 0;
    };
    let field = |at: u64, length| {
        usize::try_from(at)
            .ok()
            .and_then(|at| number(file, at, length))
    };
    if !file.starts_with(b"MZ") || field(header, 4) != Some(0x4550) {
        return 0;
    }
    let sections = field(header + 6, 2).unwrap_or(0);
    let optional_bytes = field(header + 20, 2).unwrap_or(0);
    let table = header + FILE_HEADER_BYTES + optional_bytes;
    let end_of = |section: u64| {
        let entry = table + section * SECTION_BYTES;
        let (length, start) = (field(entry + 16, 4), field(entry + 20, 4));
        // A section header that is missing altogether is beyond the end, too.
        length
            .zip(start)
            .map_or(entry + SECTION_BYTES, |(length, start)| start + length)
    };
    (0..sections).map(end_of).max().unwrap_or(0)
}

fn wrong_format(file: &[u8]) -> Option<WrongFormat> {
    let at = |offset: usize, magic: &[u8]| {
        file.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    for (magic, program) in [
        (&b"\x1f\x8b"[..], "gzip"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x02\x21\x4c\x18", "lz4"),
    ] {
        if at(0, magic) {
            return Some(WrongFormat::Compressed(program));
        }
    }
    if at(0, b"MZ") && at(4, b"zimg") {
        Some(WrongFormat::Compressed("EFI zboot"))
    } else if at(MAGIC2, b"ARM\x64") {
        Some(WrongFormat::Foreign("arm64"))
    } else if at(0x202, b"HdrS") {
        Some(WrongFormat::Foreign("x86"))
    } else if at(0, b"MZ") {
        Some(WrongFormat::Executable)
    } else if at(0, b"07070") {
        Some(WrongFormat::Archive)
    } else if at(0, b"\xd0\x0d\xfe\xed") {
        Some(WrongFormat::DeviceTree)
    } else if is_text(file) {
        Some(WrongFormat::Text)
    } else {
        None
    }
}

/// Whether the file begins like text: no program has only printable bytes for long.
fn is_text(file: &[u8]) -> bool {
    let start = &file[..file.len().min(256)];
    start
        .iter()
        .all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

/// A little-endian number of `length` bytes.
fn number(file: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(length)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}
