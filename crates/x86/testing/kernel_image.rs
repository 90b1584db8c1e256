//! The least that the boot loader takes for a kernel, around code of a test's own.

/// A bzImage (Linux boot protocol 2.15) that wants to lie at `load`, and whose 64-bit entry, 0x200 bytes
/// behind that, is where `code` begins.
pub fn kernel_image(load: u64, code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024 + 0x200];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &load.to_le_bytes());
    put(0x260, &0x2_0000u32.to_le_bytes());
    file.extend_from_slice(code);
    file
}
