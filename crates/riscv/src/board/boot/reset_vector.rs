//! The boot ROM: the instructions that QEMU's `virt` starts every hart with, and their data.

/// `struct fw_dynamic_info` of OpenSBI (`include/sbi/fw_dynamic.h`).
const FW_DYNAMIC_MAGIC: u64 = 0x4942_534f; // "OSBI"
const FW_DYNAMIC_VERSION: u64 = 2;
const FW_DYNAMIC_NEXT_MODE_S: u64 = 1;

const CODE: [u32; 6] = [
    0x0000_0297, // auipc t0, 0
    0x0282_8613, // addi  a2, t0, 40      fw_dynamic_info
    0xf140_2573, // csrr  a0, mhartid
    0x0202_b583, // ld    a1, 32(t0)      device tree
    0x0182_b283, // ld    t0, 24(t0)      start
    0x0002_8067, // jr    t0
];

/// The ROM's contents: a jump to `start` with the hart in a0, the device tree in a1 and what
/// OpenSBI is to start next, in S-mode, in a2.
pub fn build(start: u64, device_tree: u64, next: u64) -> Vec<u8> {
    let boot_hart = 0;
    let options = 0;
    let code = CODE
        .iter()
        .flat_map(|instruction| instruction.to_le_bytes());
    let data = [
        start,
        device_tree,
        FW_DYNAMIC_MAGIC,
        FW_DYNAMIC_VERSION,
        next,
        FW_DYNAMIC_NEXT_MODE_S,
        options,
        boot_hart,
    ];
    code.chain(data.iter().flat_map(|word| word.to_le_bytes()))
        .collect()
}
