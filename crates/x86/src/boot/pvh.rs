//! Power-on with firmware: an ELF file that is entered as a PVH guest is, in flat 32-bit code, and told of memory
//! and ACPI tables by a structure in RAM (Xen, `docs/misc/pvh.pandoc` and
//! `xen/include/public/arch-x86/hvm/start_info.h`). EDK2's build for Cloud Hypervisor is such a file.

use super::{ACPI_TABLES, BootError, HIGH_RAM, LEAST_RAM, Part, memory_map, put};
use crate::board::acpi;
use crate::cpu::Cpu;
use crate::ram::Ram;
use thiserror::Error;

/// The structure that the firmware is told of, and the memory map that it names. Cloud Hypervisor's places: EDK2
/// leaves them alone.
const START_INFO: u64 = 0x6000;
const MEMORY_MAP: u64 = 0x7000;

/// ELF-64 (System V ABI, "Object Files" and "Program Loading"): places of the file header's and a program header's
/// fields.
const PROGRAM_HEADERS: usize = 0x20;
const PROGRAM_HEADER_SIZE: usize = 0x36;
const PROGRAM_HEADER_COUNT: usize = 0x38;
const SEGMENT_OFFSET: usize = 0x08;
const SEGMENT_ADDRESS: usize = 0x18;
const SEGMENT_FILE_BYTES: usize = 0x20;
const SEGMENT_MEMORY_BYTES: usize = 0x28;
const LOADED: u32 = 1;
const NOTE: u32 = 4;
/// A note's name and kind (`xen/include/public/elfnote.h`, `XEN_ELFNOTE_PHYS32_ENTRY`).
const NOTE_NAME: &[u8] = b"Xen\0";
const NOTE_ENTRY: u32 = 18;

/// Why a file cannot be started as firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FirmwareError {
    /// It is something else.
    #[error(
        "it is no ELF file. What this machine takes is EDK2's build for Cloud Hypervisor, CLOUDHV.fd \
         (Debian's package cloudhv-efi-x86-64)"
    )]
    NotElf,
    /// It is for another machine, or nobody can say where it begins.
    #[error(
        "it has no 32-bit entry for PVH (a note of Xen's, number {NOTE_ENTRY}). What this machine takes is EDK2's \
         build for Cloud Hypervisor, CLOUDHV.fd (Debian's package cloudhv-efi-x86-64)"
    )]
    NoEntry,
    /// Its headers name bytes that it does not have.
    #[error("it is truncated: its headers name bytes up to {needed}, it has {found}")]
    Truncated {
        /// The byte after the last that its headers name.
        needed: u64,
        /// Bytes that there are.
        found: usize,
    },
}

/// What goes into RAM.
struct Segment<'a> {
    address: u64,
    bytes: &'a [u8],
    /// Bytes in RAM: what is not in the file is zero.
    length: u64,
}

/// Firmware, in its file.
struct Firmware<'a> {
    entry: u32,
    segments: Vec<Segment<'a>>,
}

impl<'a> Firmware<'a> {
    fn parse(file: &'a [u8]) -> Result<Firmware<'a>, FirmwareError> {
        const ELF_64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
        if !file.starts_with(ELF_64_LITTLE_ENDIAN) {
            return Err(FirmwareError::NotElf);
        }
        let headers = number(file, PROGRAM_HEADERS as u64, 8)?;
        let size = number(file, PROGRAM_HEADER_SIZE as u64, 2)?;
        let count = number(file, PROGRAM_HEADER_COUNT as u64, 2)?;
        let (mut entry, mut segments) = (None, Vec::new());
        for index in 0..count {
            let header = headers.saturating_add(index * size);
            let field = |at: usize, bytes| number(file, header.saturating_add(at as u64), bytes);
            let offset = field(SEGMENT_OFFSET, 8)?;
            let bytes = part(file, offset, field(SEGMENT_FILE_BYTES, 8)?)?;
            match field(0, 4)? as u32 {
                LOADED => segments.push(Segment {
                    address: field(SEGMENT_ADDRESS, 8)?,
                    bytes,
                    length: field(SEGMENT_MEMORY_BYTES, 8)?.max(bytes.len() as u64),
                }),
                NOTE => entry = entry.or(entry_of(bytes)),
                _ => {}
            }
        }
        let entry = entry.ok_or(FirmwareError::NoEntry)?;
        Ok(Firmware { entry, segments })
    }
}

/// The entry that a segment of notes tells, if it does.
fn entry_of(notes: &[u8]) -> Option<u32> {
    let mut at = 0u64;
    loop {
        let mut word = || {
            let value = number(notes, at, 4).ok()?;
            at += 4;
            Some(value)
        };
        let (name_length, length, kind) = (word()?, word()?, word()?);
        let name = part(notes, at, name_length).ok()?;
        at += name_length.next_multiple_of(4);
        if name == NOTE_NAME && kind == NOTE_ENTRY.into() && length >= 4 {
            return number(notes, at, 4).ok().map(|entry| entry as u32);
        }
        at += length.next_multiple_of(4);
    }
}

/// Some bytes of a file.
fn part(file: &[u8], offset: u64, length: u64) -> Result<&[u8], FirmwareError> {
    let needed = offset.saturating_add(length);
    let truncated = FirmwareError::Truncated {
        needed,
        found: file.len(),
    };
    let (Ok(from), Ok(to)) = (usize::try_from(offset), usize::try_from(needed)) else {
        return Err(truncated);
    };
    file.get(from..to).ok_or(truncated)
}

/// A number of up to 8 bytes.
fn number(file: &[u8], offset: u64, bytes: u64) -> Result<u64, FirmwareError> {
    let bytes = part(file, offset, bytes)?.iter().rev();
    Ok(bytes.fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// Puts firmware, and what it is told, into RAM; gives the first CPU, about to enter it.
pub(super) fn load(
    ram: &mut Ram,
    file: &[u8],
    board: &acpi::Description,
) -> Result<Cpu, BootError> {
    let firmware = Firmware::parse(file)?;
    for segment in &firmware.segments {
        let (start, end) = (
            segment.address,
            segment.address.saturating_add(segment.length),
        );
        if ram.low_end() < LEAST_RAM || start < HIGH_RAM || end > ram.low_end() {
            return Err(BootError::NoRoom {
                part: Part::Firmware,
                start,
                end,
                free: format!("RAM is {HIGH_RAM:#x} to {:#x}", ram.low_end()),
            });
        }
        put(ram, start, segment.bytes);
    }
    let map = put_memory_map(ram, board);
    put(ram, START_INFO, &start_info(map));
    let mut cpu = Cpu::protected_mode(firmware.entry);
    const RBX: usize = 3;
    cpu.registers.gpr[RBX] = START_INFO;
    Ok(cpu)
}

/// `struct hvm_memmap_table_entry`: address, size, kind, zero. Gives the number of entries.
fn put_memory_map(ram: &mut Ram, board: &acpi::Description) -> u32 {
    let map = memory_map(ram, board);
    let mut bytes = Vec::new();
    for range in &map {
        bytes.extend(range.start.to_le_bytes());
        bytes.extend(range.length.to_le_bytes());
        bytes.extend(u64::from(range.kind).to_le_bytes());
    }
    put(ram, MEMORY_MAP, &bytes);
    map.len() as u32
}

/// `struct hvm_start_info` in its version 1: no modules, no command line.
fn start_info(map_entries: u32) -> [u8; 56] {
    const MAGIC: u32 = 0x336e_c578;
    const VERSION: u32 = 1;
    let mut bytes = [0; 56];
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[32..40].copy_from_slice(&ACPI_TABLES.to_le_bytes());
    bytes[40..48].copy_from_slice(&MEMORY_MAP.to_le_bytes());
    bytes[48..52].copy_from_slice(&map_entries.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
