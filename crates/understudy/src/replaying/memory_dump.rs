//! A machine's memory as an ELF core file: one segment for each region of RAM, at its guest physical
//! address (System V ABI, "Program Header"). Pages of zeros are holes of the file.
//!
//! `readelf -l` shows the regions; gdb takes it with `target core` or `restore`, and a segment's bytes
//! are at its `p_offset`.

use machine::Machine;
use machine::memory::PAGE_SIZE;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const ELF_HEADER_BYTES: u16 = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;
const ET_CORE: u16 = 4;
const PT_LOAD: u32 = 1;
const PF_READ_WRITE_EXECUTE: u32 = 7;

/// Writes the memory of `machine` to a new file, which only its owner may read: a guest's secrets are in it.
/// `elf_machine` is the architecture's number in ELF.
///
/// # Errors
/// The file exists or cannot be written.
pub fn write(path: &Path, machine: &dyn Machine, elf_machine: u16) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let regions = machine.memory_regions();
    let headers =
        u64::from(ELF_HEADER_BYTES) + regions.len() as u64 * u64::from(PROGRAM_HEADER_BYTES);
    let mut offset = headers.next_multiple_of(PAGE_SIZE);
    file.write_all(&elf_header(elf_machine, regions.len() as u16))?;
    for region in &regions {
        file.write_all(&program_header(offset, region.base, region.length))?;
        offset += region.length;
    }
    file.set_len(offset)?;
    let mut at = headers.next_multiple_of(PAGE_SIZE);
    let mut page = [0; PAGE_SIZE as usize];
    for region in &regions {
        for address in (region.base..region.base + region.length).step_by(page.len()) {
            machine
                .read_memory(address, &mut page)
                .map_err(io::Error::other)?;
            write_page(&mut file, at, &page)?;
            at += PAGE_SIZE;
        }
    }
    file.sync_all()
}

fn write_page(file: &mut File, at: u64, page: &[u8]) -> io::Result<()> {
    if page.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    file.seek(SeekFrom::Start(at))?;
    file.write_all(page)
}

fn elf_header(elf_machine: u16, segments: u16) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend(ET_CORE.to_le_bytes());
    header.extend(elf_machine.to_le_bytes());
    header.extend(1u32.to_le_bytes()); // e_version
    header.extend(0u64.to_le_bytes()); // e_entry
    header.extend(u64::from(ELF_HEADER_BYTES).to_le_bytes()); // e_phoff
    header.extend(0u64.to_le_bytes()); // e_shoff
    header.extend(0u32.to_le_bytes()); // e_flags
    header.extend(ELF_HEADER_BYTES.to_le_bytes());
    header.extend(PROGRAM_HEADER_BYTES.to_le_bytes());
    header.extend(segments.to_le_bytes());
    header.extend([0; 6]); // no sections
    assert_eq!(header.len(), usize::from(ELF_HEADER_BYTES));
    header
}

fn program_header(offset: u64, physical: u64, length: u64) -> Vec<u8> {
    let mut header = Vec::from(PT_LOAD.to_le_bytes());
    header.extend(PF_READ_WRITE_EXECUTE.to_le_bytes());
    // Which virtual addresses lead there is in the guest's page tables: the physical one stands for both.
    for field in [offset, physical, physical, length, length, PAGE_SIZE] {
        header.extend(field.to_le_bytes());
    }
    assert_eq!(header.len(), usize::from(PROGRAM_HEADER_BYTES));
    header
}
