//! ELF executables: as much of the format as loading a statically linked RV64 program takes.

use thiserror::Error;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const MACHINE_RISCV: u16 = 243;
const SEGMENT_LOAD: u32 = 1;

/// What is wrong with an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ElfError {
    /// The file ends within its headers or a segment.
    #[error("it is truncated: it has {found} bytes but needs {needed}")]
    Truncated {
        /// Bytes that the file has.
        found: u64,
        /// Bytes that its headers ask for.
        needed: u64,
    },
    /// ELFCLASS32.
    #[error("it is for 32-bit machines: this is an RV64 machine")]
    Not64Bit,
    /// ELFDATA2MSB.
    #[error("it is big-endian: RISC-V is little-endian here")]
    BigEndian,
    /// Another architecture.
    #[error("it is for another architecture (e_machine {0}): RISC-V is {MACHINE_RISCV}")]
    Machine(u16),
    /// A relocatable object or a core file.
    #[error("it is no executable (e_type {0})")]
    Type(u16),
    /// Program headers of another size than the standard's.
    #[error("its program headers have {0} bytes each instead of {PROGRAM_HEADER_BYTES}")]
    ProgramHeaderSize(u16),
    /// A segment with more bytes in the file than in memory, or beyond the address space.
    #[error("its segment at {address:#x} has an impossible size")]
    Segment {
        /// Physical address of the segment.
        address: u64,
    },
    /// Nothing to load.
    #[error("it has no loadable segment")]
    NoSegments,
    /// The entry is in no segment.
    #[error(
        "its entry {0:#x} is in none of its segments (their physical addresses count): link it for \
         physical addresses"
    )]
    Entry(u64),
}

/// A part of the program.
pub struct Segment<'a> {
    /// Physical address.
    pub address: u64,
    /// What the file holds.
    pub bytes: &'a [u8],
    /// Bytes in memory; what is beyond `bytes` is zero.
    pub memory_length: u64,
}

/// A checked executable.
pub struct Elf<'a> {
    /// Physical address of the first instruction.
    pub entry: u64,
    /// The loadable segments that are not empty.
    pub segments: Vec<Segment<'a>>,
}

/// Whether the file claims to be ELF.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

impl<'a> Elf<'a> {
    /// Parses and checks a file.
    pub fn parse(file: &'a [u8]) -> Result<Elf<'a>, ElfError> {
        let header = part(file, 0, HEADER_BYTES as u64)?;
        match (header[4], header[5]) {
            (CLASS_64, LITTLE_ENDIAN) => {}
            (CLASS_64, _) => return Err(ElfError::BigEndian),
            _ => return Err(ElfError::Not64Bit),
        }
        match half(header, 18) {
            MACHINE_RISCV => {}
            machine => return Err(ElfError::Machine(machine)),
        }
        match half(header, 16) {
            TYPE_EXECUTABLE | TYPE_SHARED => {}
            kind => return Err(ElfError::Type(kind)),
        }
        let (entry, table) = (double(header, 24), double(header, 32));
        let (entry_bytes, count) = (half(header, 54), half(header, 56));
        if count == 0 {
            return Err(ElfError::NoSegments);
        }
        if usize::from(entry_bytes) != PROGRAM_HEADER_BYTES {
            return Err(ElfError::ProgramHeaderSize(entry_bytes));
        }
        let table = part(file, table, u64::from(count) * PROGRAM_HEADER_BYTES as u64)?;
        let mut segments = Vec::new();
        for header in table.chunks_exact(PROGRAM_HEADER_BYTES) {
            segments.extend(segment(file, header)?);
        }
        if segments.is_empty() {
            return Err(ElfError::NoSegments);
        }
        let holds_entry = |s: &Segment| entry.wrapping_sub(s.address) < s.memory_length;
        if !segments.iter().any(holds_entry) {
            return Err(ElfError::Entry(entry));
        }
        Ok(Elf { entry, segments })
    }
}

fn segment<'a>(file: &'a [u8], header: &[u8]) -> Result<Option<Segment<'a>>, ElfError> {
    let kind = u32::from(half(header, 0)) | u32::from(half(header, 2)) << 16;
    let (offset, address) = (double(header, 8), double(header, 24));
    let (file_length, memory_length) = (double(header, 32), double(header, 40));
    if kind != SEGMENT_LOAD || memory_length == 0 {
        return Ok(None);
    }
    if file_length > memory_length || address.checked_add(memory_length).is_none() {
        return Err(ElfError::Segment { address });
    }
    Ok(Some(Segment {
        address,
        bytes: part(file, offset, file_length)?,
        memory_length,
    }))
}

/// `length` bytes from `offset` on.
fn part(file: &[u8], offset: u64, length: u64) -> Result<&[u8], ElfError> {
    let needed = offset.saturating_add(length);
    let truncated = ElfError::Truncated {
        found: file.len() as u64,
        needed,
    };
    let range = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(needed).ok());
    range
        .and_then(|(from, to)| file.get(from..to))
        .ok_or(truncated)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn double(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8]
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}
