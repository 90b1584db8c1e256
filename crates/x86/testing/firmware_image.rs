//! Firmware for tests: an ELF file with the entry of PVH guests.

/// Where its bytes are loaded, and its first instruction is.
pub const FIRMWARE: u64 = 0x10_0000;

/// Bytes before the loaded ones: the file header, two program headers, the note.
const HEADERS: usize = 0x40 + 2 * 0x38 + 0x14;

/// An ELF file whose segment holds `code`, entered at its first byte.
pub fn firmware_image(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; HEADERS];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(0x20, &0x40u64.to_le_bytes()); // program headers
    put(0x36, &0x38u16.to_le_bytes()); // of so many bytes
    put(0x38, &2u16.to_le_bytes()); // so many
    let length = code.len() as u64;
    let mut segment = |at: usize, kind: u32, fields: [u64; 4]| {
        put(at, &kind.to_le_bytes());
        for (place, field) in [0x08, 0x18, 0x20, 0x28].into_iter().zip(fields) {
            put(at + place, &field.to_le_bytes());
        }
    };
    segment(0x40, 1, [HEADERS as u64, FIRMWARE, length, length + 0x100]);
    segment(0x78, 4, [0xb0, 0, 0x14, 0x14]);
    put(0xb0, &4u32.to_le_bytes());
    put(0xb4, &4u32.to_le_bytes());
    put(0xb8, &18u32.to_le_bytes());
    put(0xbc, b"Xen\0");
    put(0xc0, &(FIRMWARE as u32).to_le_bytes());
    file.extend(code);
    file
}
