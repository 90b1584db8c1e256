//! Disks that UEFI firmware boots: one EFI system partition, with files by names of 8.3 characters. A test's own writer: so
//! that neither mtools nor sgdisk has to be there, and the same files give the same bytes.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

const SECTOR: u64 = 512;
/// The partition's first sector.
const FIRST: u64 = 2048;
/// Sectors behind the partition, for the copy of its table.
const BEHIND: u64 = 33;
/// FAT16 (Microsoft, "FAT: General Overview of On-Disk Format", 1.03).
const CLUSTER: u64 = 8 * SECTOR;
const ROOT_ENTRIES: u64 = 512;
const ENTRY: usize = 32;
/// With so many, no driver takes it for FAT12 or FAT32.
const CLUSTERS: u64 = 40_000;
const FAT_SECTORS: u64 = ((CLUSTERS + 2) * 2).div_ceil(SECTOR);
const DATA: u64 = 1 + 2 * FAT_SECTORS + ROOT_ENTRIES * ENTRY as u64 / SECTOR;
const PARTITION: u64 = DATA + CLUSTERS * CLUSTER / SECTOR;

/// A file on the partition.
pub struct FileOnDisk<'a> {
    /// Its path, such as `EFI/BOOT/BOOTX64.EFI`: upper case.
    pub path: &'a str,
    /// What it holds.
    pub content: &'a [u8],
}

/// Writes a disk with these files.
///
/// # Errors
/// The disk cannot be written, a name is no name of 8.3 characters, or the files do not fit.
pub fn write(disk: &Path, files: &[FileOnDisk]) -> Result<()> {
    let file = File::create(disk).with_context(|| disk.display().to_string())?;
    let sectors = FIRST + PARTITION + BEHIND;
    file.set_len(sectors * SECTOR)?;
    let mut disk = Disk(file);
    write_partition_table(&mut disk, sectors)?;
    let mut volume = Volume {
        disk,
        chain: vec![0xfff8, 0xffff],
    };
    let root = volume.entries("", files)?;
    ensure!(root.len() as u64 <= ROOT_ENTRIES * ENTRY as u64);
    volume.finish(&root)
}

struct Disk(File);

impl Disk {
    fn put(&mut self, sector: u64, bytes: &[u8]) -> Result<()> {
        self.0.seek(SeekFrom::Start(sector * SECTOR))?;
        Ok(self.0.write_all(bytes)?)
    }
}

/// Puts numbers and bytes into a sector, by their places.
fn place(sector: &mut [u8], parts: &[(usize, &[u8])]) {
    for (at, bytes) in parts {
        sector[*at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// UEFI 2.10, chapter 5: the protective record, and the table with its copy.
fn write_partition_table(disk: &mut Disk, sectors: u64) -> Result<()> {
    const ENTRIES: usize = 128;
    const ENTRY_BYTES: usize = 128;
    const ESP: [u8; 16] = [
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
    ];
    let mut protective = vec![0; SECTOR as usize];
    let length = (sectors as u32 - 1).to_le_bytes();
    place(
        &mut protective,
        &[
            (446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]),
            (458, &length),
            (510, &[0x55, 0xaa]),
        ],
    );
    disk.put(0, &protective)?;

    let mut entries = vec![0; ENTRIES * ENTRY_BYTES];
    let last = FIRST + PARTITION - 1;
    place(
        &mut entries,
        &[
            (0, &ESP),
            (16, &[1; 16]),
            (32, &FIRST.to_le_bytes()),
            (40, &last.to_le_bytes()),
        ],
    );
    let header = |own: u64, other: u64, table: u64| {
        let mut header = vec![0; SECTOR as usize];
        place(
            &mut header,
            &[
                (0, b"EFI PART\0\0\x01\0"),
                (12, &92u32.to_le_bytes()),
                (24, &own.to_le_bytes()),
                (32, &other.to_le_bytes()),
                (40, &34u64.to_le_bytes()),
                (48, &(sectors - 34).to_le_bytes()),
                (56, &[2; 16]),
                (72, &table.to_le_bytes()),
                (80, &(ENTRIES as u32).to_le_bytes()),
                (84, &(ENTRY_BYTES as u32).to_le_bytes()),
                (88, &crc32(&entries).to_le_bytes()),
            ],
        );
        let sum = crc32(&header[..92]).to_le_bytes();
        place(&mut header, &[(16, &sum)]);
        header
    };
    disk.put(1, &header(1, sectors - 1, 2))?;
    disk.put(2, &entries)?;
    disk.put(sectors - BEHIND, &entries)?;
    disk.put(sectors - 1, &header(sectors - 1, 1, sectors - BEHIND))
}

/// That of Ethernet, which UEFI takes as well.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    });
    !crc
}

struct Volume {
    disk: Disk,
    /// The table: what follows each cluster.
    chain: Vec<u16>,
}

impl Volume {
    /// Puts what a file or directory holds into the next clusters; gives the first.
    fn put(&mut self, content: &[u8]) -> Result<u16> {
        let clusters = (content.len() as u64).div_ceil(CLUSTER).max(1);
        let first = self.chain.len() as u64;
        ensure!(
            first + clusters <= CLUSTERS + 2,
            "the files do not fit: {} MiB are there",
            (CLUSTERS * CLUSTER) >> 20
        );
        self.chain
            .extend((first + 1..first + clusters).map(|next| next as u16));
        self.chain.push(0xffff);
        let sector = FIRST + DATA + (first - 2) * CLUSTER / SECTOR;
        self.disk.put(sector, content)?;
        Ok(first as u16)
    }

    /// The entries of the directory at `path` (empty, or with a slash at its end); what is below it is written.
    fn entries(&mut self, path: &str, files: &[FileOnDisk]) -> Result<Vec<u8>> {
        let mut names: Vec<&str> = Vec::new();
        for file in files {
            let below = file.path.strip_prefix(path);
            let Some(name) = below.and_then(|below| below.split('/').next()) else {
                continue;
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut entries = Vec::new();
        for name in names {
            let whole = format!("{path}{name}");
            match files.iter().find(|file| file.path == whole) {
                Some(file) => {
                    let first = self.put(file.content)?;
                    entries.extend(entry(&short_name(name)?, 0x20, first, file.content.len()));
                }
                None => {
                    let first = self.subdirectory(&format!("{whole}/"), files)?;
                    entries.extend(entry(&short_name(name)?, 0x10, first, 0));
                }
            }
        }
        Ok(entries)
    }

    fn subdirectory(&mut self, path: &str, files: &[FileOnDisk]) -> Result<u16> {
        let below = self.entries(path, files)?;
        let own = self.chain.len() as u16;
        // Its parent is put after it, so nobody knows yet where: no driver that is asked for paths from the root looks
        // there.
        let mut entries = entry(b".          ", 0x10, own, 0);
        entries.extend(entry(b"..         ", 0x10, 0, 0));
        entries.extend(below);
        ensure!(entries.len() as u64 <= CLUSTER, "too many files in {path}");
        self.put(&entries)
    }

    /// The boot sector, both tables, and the root directory.
    fn finish(mut self, root: &[u8]) -> Result<()> {
        let mut boot = vec![0; SECTOR as usize];
        place(
            &mut boot,
            &[
                (0, b"\xeb\x3c\x90MSWIN4.1"),
                (11, &(SECTOR as u16).to_le_bytes()),
                (13, &[(CLUSTER / SECTOR) as u8]),
                (14, &1u16.to_le_bytes()), // reserved sectors
                (16, &[2]),                // tables
                (17, &(ROOT_ENTRIES as u16).to_le_bytes()),
                (21, &[0xf8]),
                (22, &(FAT_SECTORS as u16).to_le_bytes()),
                (28, &(FIRST as u32).to_le_bytes()),
                (32, &(PARTITION as u32).to_le_bytes()),
                (36, b"\x80\0\x29\x01\x02\x03\x04EFI        FAT16   "),
                (510, &[0x55, 0xaa]),
            ],
        );
        self.disk.put(FIRST, &boot)?;
        let table: Vec<u8> = self
            .chain
            .iter()
            .flat_map(|next| next.to_le_bytes())
            .collect();
        self.disk.put(FIRST + 1, &table)?;
        self.disk.put(FIRST + 1 + FAT_SECTORS, &table)?;
        self.disk.put(FIRST + 1 + 2 * FAT_SECTORS, root)
    }
}

fn entry(name: &[u8; 11], attributes: u8, first: u16, bytes: usize) -> Vec<u8> {
    const A_DAY: u16 = (2026 - 1980) << 9 | 12 << 5 | 1;
    let mut entry = vec![0; ENTRY];
    place(
        &mut entry,
        &[
            (0, name),
            (11, &[attributes]),
            (24, &A_DAY.to_le_bytes()),
            (26, &first.to_le_bytes()),
            (28, &(bytes as u32).to_le_bytes()),
        ],
    );
    entry
}

/// As a directory has it: eight characters and three, filled up with spaces.
fn short_name(name: &str) -> Result<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let is_plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3;
    ensure!(
        fits && is_plain(base) && is_plain(extension),
        "{name:?} is no name of 8.3 characters in upper case"
    );
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    Ok(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_ethernet() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn names_are_8_3() {
        assert_eq!(&short_name("GRUB.CFG").unwrap(), b"GRUB    CFG");
        assert_eq!(&short_name("INITRD").unwrap(), b"INITRD     ");
        for wrong in ["grub.cfg", "LONGNAMES", "A.LONG", ""] {
            assert!(short_name(wrong).is_err(), "{wrong}");
        }
    }
}
