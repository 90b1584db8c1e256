//! What is needed from ELF files: the libraries that a program asks for and a module's `.modinfo`.
//!
//! Read after the System V ABI's "Object Files" chapter, 64-bit little-endian only. Anything out of
//! bounds reads as absent, so that a broken file is found to need nothing rather than to panic.

const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SECTION_HEADER_BYTES: u64 = 64;
const DYNAMIC_ENTRY_BYTES: usize = 16;

/// The names of the shared libraries that a program or library is linked with (`DT_NEEDED`), in its
/// order; empty if it is none or is linked statically.
pub fn needed_libraries(file: &[u8]) -> Vec<String> {
    let Some(dynamic) = segment(file, PT_DYNAMIC) else {
        return Vec::new();
    };
    let entries: Vec<(u64, u64)> = dynamic
        .chunks_exact(DYNAMIC_ENTRY_BYTES)
        .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .collect();
    let strings = entries
        .iter()
        .find(|(tag, _)| *tag == DT_STRTAB)
        .and_then(|(_, address)| file_offset(file, *address));
    let Some(strings) = strings else {
        return Vec::new();
    };
    entries
        .iter()
        .filter(|(tag, _)| *tag == DT_NEEDED)
        .filter_map(|(_, offset)| string_at(file, strings.checked_add(*offset)?))
        .collect()
}

/// The dynamic loader that a program names (`PT_INTERP`), an absolute path.
pub fn interpreter(file: &[u8]) -> Option<String> {
    let path = segment(file, PT_INTERP)?.strip_suffix(b"\0")?;
    String::from_utf8(path.to_vec()).ok()
}

/// The section called `name` of an object file such as a kernel module.
pub fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !file.starts_with(MAGIC) {
        return None;
    }
    let table = u64_at(file, 0x28)?;
    let count = u64::from(u16_at(file, 0x3c)?);
    let names_index = u64::from(u16_at(file, 0x3e)?);
    let header = |index: u64| slice(file, table.checked_add(index * SECTION_HEADER_BYTES)?, 64);
    let names = u64_at(header(names_index)?, 0x18)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let found = string_at(file, names.checked_add(u64::from(u32_at(header, 0)?))?)?;
        (found == name).then(|| slice(file, u64_at(header, 0x18)?, u64_at(header, 0x20)?))?
    })
}

fn program_headers(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_elf = file.starts_with(MAGIC);
    let table = u64_at(file, 0x20).filter(|_| is_elf).unwrap_or(0);
    let count = u16_at(file, 0x38).filter(|_| is_elf).unwrap_or(0);
    (0..u64::from(count)).filter_map(move |index| {
        slice(
            file,
            table.checked_add(index * PROGRAM_HEADER_BYTES)?,
            PROGRAM_HEADER_BYTES,
        )
    })
}

fn segment(file: &[u8], kind: u32) -> Option<&[u8]> {
    let header = program_headers(file).find(|header| u32_at(header, 0) == Some(kind))?;
    slice(file, u64_at(header, 0x08)?, u64_at(header, 0x20)?)
}

/// Where in the file the byte lies that is loaded at `address`.
fn file_offset(file: &[u8], address: u64) -> Option<u64> {
    program_headers(file)
        .filter(|header| u32_at(header, 0) == Some(PT_LOAD))
        .find_map(|header| {
            let within = address.checked_sub(u64_at(header, 0x10)?)?;
            (within < u64_at(header, 0x20)?).then(|| u64_at(header, 0x08)?.checked_add(within))?
        })
}

fn slice(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

fn string_at(bytes: &[u8], offset: u64) -> Option<String> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(offset..offset + 8)?.try_into().ok()?,
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An object file with nothing but a `.modinfo` section, as a stand-in for a kernel module.
    pub(crate) fn object_with_modinfo(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let (modinfo_at, names_at) = (64, 64 + modinfo.len());
        let table_at = names_at + names.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(MAGIC);
        file[0x28..0x30].copy_from_slice(&(table_at as u64).to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&2u16.to_le_bytes());
        file.extend_from_slice(modinfo);
        file.extend_from_slice(names);
        for (name, offset, size) in [
            (0u32, 0, 0),
            (1, modinfo_at, modinfo.len()),
            (10, names_at, names.len()),
        ] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    /// A program that is loaded at 0x10000, asks for two libraries and names one of them (for want
    /// of another string) as its loader.
    fn program_with_libraries() -> Vec<u8> {
        let strings = b"\0libc.so.6\0libm.so.6\0";
        let strings_at = 64 + 3 * 56;
        let dynamic_at = strings_at + strings.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(MAGIC);
        file[0x20..0x28].copy_from_slice(&64u64.to_le_bytes());
        file[0x38..0x3a].copy_from_slice(&3u16.to_le_bytes());
        let program_header = |kind: u32, offset: usize, address: u64, size: u64| {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[0x08..0x10].copy_from_slice(&(offset as u64).to_le_bytes());
            header[0x10..0x18].copy_from_slice(&address.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&size.to_le_bytes());
            header
        };
        file.extend_from_slice(&program_header(PT_LOAD, 0, 0x10000, 0x1000));
        file.extend_from_slice(&program_header(PT_DYNAMIC, dynamic_at, 0, 64));
        file.extend_from_slice(&program_header(PT_INTERP, strings_at + 1, 0, 10));
        file.extend_from_slice(strings);
        let string_address = 0x10000 + strings_at as u64;
        for (tag, value) in [
            (DT_NEEDED, 1),
            (DT_STRTAB, string_address),
            (DT_NEEDED, 11),
            (DT_NULL, 0),
        ] {
            file.extend_from_slice(&tag.to_le_bytes());
            file.extend_from_slice(&value.to_le_bytes());
        }
        file
    }

    #[test]
    fn needed_libraries_are_found_through_the_load_segment() {
        assert_eq!(
            needed_libraries(&program_with_libraries()),
            ["libc.so.6", "libm.so.6"]
        );
    }

    #[test]
    fn the_loader_is_read_without_its_end_mark() {
        assert_eq!(
            interpreter(&program_with_libraries()).as_deref(),
            Some("libc.so.6")
        );
        assert_eq!(interpreter(&object_with_modinfo(b"")), None);
    }

    #[test]
    fn a_section_is_found_by_its_name() {
        let file = object_with_modinfo(b"depends=a,b\0");
        assert_eq!(section(&file, ".modinfo"), Some(&b"depends=a,b\0"[..]));
        assert_eq!(section(&file, ".text"), None);
    }

    #[test]
    fn truncated_files_need_nothing_and_never_panic() {
        for file in [program_with_libraries(), object_with_modinfo(b"depends=\0")] {
            for length in 0..file.len() {
                let _ = needed_libraries(&file[..length]);
                let _ = interpreter(&file[..length]);
                let _ = section(&file[..length], ".modinfo");
            }
        }
        assert!(needed_libraries(b"#!/bin/sh\n").is_empty());
    }

    #[test]
    fn offsets_beyond_the_address_space_read_as_absent() {
        let mut file = object_with_modinfo(b"depends=\0");
        file[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(section(&file, ".modinfo"), None);
        let mut file = program_with_libraries();
        file[0x20..0x28].copy_from_slice(&(u64::MAX - 8).to_le_bytes());
        assert!(needed_libraries(&file).is_empty());
    }
}
