//! RV64I: loads and stores (unprivileged specification, 2.6 and 4.3), aligned and not.

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, SCRATCH, guests};
use riscv::isa::Op;

const LOADS: &[(Op, usize, bool)] = &[
    (Op::Lb, 1, true),
    (Op::Lh, 2, true),
    (Op::Lw, 4, true),
    (Op::Ld, 8, true),
    (Op::Lbu, 1, false),
    (Op::Lhu, 2, false),
    (Op::Lwu, 4, false),
];
const STORES: &[(Op, usize)] = &[(Op::Sb, 1), (Op::Sh, 2), (Op::Sw, 4), (Op::Sd, 8)];

/// Bytes whose signs differ: the byte at an address of scratch memory.
fn pattern(address: u64) -> u8 {
    (address.wrapping_mul(0x9d) >> 1) as u8 ^ 0x80
}

fn extended(bytes: &[u8], signed: bool) -> u64 {
    let negative = signed && bytes[bytes.len() - 1] >= 0x80;
    let mut value = [if negative { 0xff } else { 0 }; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(value)
}

/// Fills `length` bytes (a multiple of 8) at `address` with the pattern.
fn fill(guest: &mut Guest, address: u64, length: u64) {
    guest.asm.li(A7, address);
    for offset in (0..length).step_by(8) {
        let bytes: Vec<u8> = (0..8).map(|i| pattern(address + offset + i)).collect();
        guest.asm.li(A6, extended(&bytes, false));
        guest.asm.store(Op::Sd, A6, A7, 0);
        guest.asm.i(Op::Addi, A7, A7, 8);
    }
}

guests! {
    /// Misaligned accesses to RAM are carried out, within a page and across two.
    fn loads_extend_at_every_alignment_and_across_pages(guest) {
        let page_end = SCRATCH + 4096;
        fill(guest, page_end - 32, 64);
        for &(op, size, signed) in LOADS {
            guest.tests(op);
            for address in page_end - 16..=page_end + 8 {
                let bytes: Vec<u8> = (0..size as u64).map(|i| pattern(address + i)).collect();
                for offset in [0, -2048, 2047] {
                    guest.asm.li(A0, address.wrapping_sub(offset as u64));
                    guest.asm.i(op, A0, A0, offset);
                    let expected = extended(&bytes, signed);
                    guest.check(A0, expected, format!("{op:?} at {address:#x}, offset {offset}"));
                }
            }
        }
    }

    fn stores_write_their_bytes_and_no_others(guest) {
        let page_end = SCRATCH + 3 * 4096;
        let value = 0x8182_8384_8586_8788u64;
        for &(op, size) in STORES {
            guest.tests(op);
            for address in page_end - 8..=page_end {
                fill(guest, page_end - 16, 32);
                guest.asm.li(A0, address.wrapping_add(7));
                guest.asm.li(A1, value);
                guest.asm.store(op, A1, A0, -7);
                for place in [page_end - 16, page_end - 8, page_end, page_end + 8] {
                    let byte = |at: u64| match at.wrapping_sub(address) {
                        within if within < size as u64 => value.to_le_bytes()[within as usize],
                        _ => pattern(at),
                    };
                    let bytes: Vec<u8> = (place..place + 8).map(byte).collect();
                    let what = format!("{place:#x} after {op:?} at {address:#x}");
                    guest.check_memory(place, extended(&bytes, false), what);
                }
            }
        }
    }

    fn a_load_to_x0_still_accesses_memory(guest) {
        guest.tests(Op::Ld);
        guest.asm.li(A0, SCRATCH);
        guest.asm.i(Op::Ld, ZERO, A0, 0);
        guest.check(ZERO, 0, "x0");
        guest.asm.li(A0, 0x7000_0000);
        guest.instruction_traps(Mode::Machine, 5, 0x7000_0000, "ld x0 of nothing", |asm| {
            asm.i(Op::Ld, ZERO, A0, 0);
        });
    }

    /// Privileged specification, 3.1.15: the fault names the address of the access.
    fn accesses_outside_memory_raise_access_faults(guest) {
        for address in [0u64, 0x7000_0000, 0x7fff_fff8, 0x8100_0000, 1 << 56, u64::MAX - 7] {
            guest.asm.li(A0, address);
            for &(op, ..) in LOADS {
                guest.instruction_traps(Mode::Machine, 5, address, "load", |asm| {
                    asm.i(op, A1, A0, 0);
                });
            }
            for &(op, _) in STORES {
                guest.instruction_traps(Mode::Machine, 7, address, "store", |asm| {
                    asm.store(op, A1, A0, 0);
                });
            }
            guest.asm.i(Op::Addi, A2, A0, 0);
            guest.traps(Mode::Machine, 1, address & !1, "fetch", |guest| {
                guest.asm.i(Op::Jalr, ZERO, A2, 0);
                address & !1 // the jump itself is fine
            });
        }
    }

    /// A faulting load leaves rd as it was.
    fn a_load_that_faults_writes_nothing(guest) {
        guest.asm.li(A0, 0x7000_0000);
        guest.asm.li(A1, 42);
        guest.instruction_traps(Mode::Machine, 5, 0x7000_0000, "ld", |asm| {
            asm.i(Op::Ld, A1, A0, 0);
        });
        guest.check(A1, 42, "rd");
        guest.instruction_traps(Mode::Machine, 5, 0x7000_0000, "ld rd = rs1", |asm| {
            asm.i(Op::Ld, A0, A0, 0);
        });
        guest.check(A0, 0x7000_0000, "rd = rs1");
    }

    /// 3.6.3.2: misaligned accesses outside RAM raise misaligned exceptions.
    fn a_store_over_the_end_of_memory_stores_nothing(guest) {
        let end = 0x8100_0000u64;
        guest.poke(end - 8, 8, 0x1111_1111_1111_1111);
        guest.asm.li(A0, end - 4);
        guest.asm.li(A1, u64::MAX);
        guest.instruction_traps(Mode::Machine, 6, end - 4, "sd over the end", |asm| {
            asm.store(Op::Sd, A1, A0, 0);
        });
        guest.check_memory(end - 8, 0x1111_1111_1111_1111, "the last double-word");
        guest.instruction_traps(Mode::Machine, 4, end - 4, "ld over the end", |asm| {
            asm.i(Op::Ld, A1, A0, 0);
        });
    }
}
