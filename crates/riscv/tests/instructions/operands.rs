//! Operands at the edges, and tables of instructions over all pairs of them.

use crate::assembler::register::*;
use crate::guest::Guest;
use riscv::isa::Op;

/// Values at which integer instructions change their ways.
pub const EDGES: &[u64] = &[
    0,
    1,
    2,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    (1 << 63) - 1,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0xffff_ffff_8000_0000,
    31,
    32,
    63,
    64,
    0x0123_4567_89ab_cdef,
    0xfedc_ba98_7654_3210,
];

/// The value as a signed number.
pub fn signed(value: u64) -> i128 {
    i128::from(value) - if value >> 63 == 1 { 1 << 64 } else { 0 }
}

/// The low 32 bits as a signed number.
pub fn signed_word(value: u64) -> i128 {
    let word = i128::from(value & 0xffff_ffff);
    word - if word >> 31 == 1 { 1 << 32 } else { 0 }
}

/// A number modulo 2^64.
pub fn wrap(value: i128) -> u64 {
    value.rem_euclid(1 << 64) as u64
}

/// The low 32 bits of a number, sign-extended.
pub fn wrap_word(value: i128) -> u64 {
    wrap(signed_word(wrap(value)))
}

/// Registers that tables rotate through: all but x0 and those of the harness and the table itself.
const FREE: &[u8] = &[
    RA, SP, GP, 4, T0, T1, T2, S0, S1, A0, A1, A2, A3, A4, A5, A6, A7, S2, S3, S4, S5, S6, T3, T4,
    T5, T6,
];
/// Points at the table of operands.
const TABLE: u8 = S7;

/// Emits the operands as data and points [`TABLE`] at them.
fn operand_table(guest: &mut Guest) {
    let (table, code) = (guest.asm.label(), guest.asm.label());
    guest.asm.jal(ZERO, code);
    guest.asm.align(8);
    guest.asm.bind(table);
    EDGES.iter().for_each(|&edge| guest.asm.double(edge));
    guest.asm.bind(code);
    guest.asm.la(TABLE, table);
}

/// Every register-register instruction with all pairs of edges, in changing registers, with
/// `rd = rs1`, `rd = rs2`, `rs1 = rs2` and `rd = x0` among them.
pub fn register_table(guest: &mut Guest, ops: &[Op], reference: fn(Op, u64, u64) -> u64) {
    operand_table(guest);
    let mut turn = 0;
    for &op in ops {
        guest.tests(op);
        for (i, &a) in EDGES.iter().enumerate() {
            for (j, &b) in EDGES.iter().enumerate() {
                turn += 1;
                let free = |n: usize| FREE[n % FREE.len()];
                let rs1 = free(turn);
                let rs2 = if i == j { rs1 } else { free(turn + 7) };
                let rd = match turn % 5 {
                    0 => rs1,
                    1 => rs2,
                    2 if i % 4 == 0 => ZERO,
                    _ => free(turn + 13),
                };
                guest.asm.i(Op::Ld, rs1, TABLE, 8 * i as i32);
                guest.asm.i(Op::Ld, rs2, TABLE, 8 * j as i32);
                guest.asm.r(op, rd, rs1, rs2);
                let expected = if rd == ZERO { 0 } else { reference(op, a, b) };
                guest.check(
                    rd,
                    expected,
                    format!("{op:?} x{rd}, x{rs1}={a:#x}, x{rs2}={b:#x}"),
                );
            }
        }
    }
}

/// Every register-immediate instruction with all edges and the given immediates.
pub fn immediate_table(
    guest: &mut Guest,
    ops: &[Op],
    immediates: &[i32],
    reference: fn(Op, u64, i32) -> u64,
) {
    operand_table(guest);
    let mut turn = 0;
    for &op in ops {
        guest.tests(op);
        for (i, &a) in EDGES.iter().enumerate() {
            for &immediate in immediates {
                turn += 1;
                let rs1 = FREE[turn % FREE.len()];
                let rd = match turn % 3 {
                    0 => rs1,
                    1 if i % 8 == 0 => ZERO,
                    _ => FREE[(turn + 11) % FREE.len()],
                };
                guest.asm.i(Op::Ld, rs1, TABLE, 8 * i as i32);
                guest.asm.i(op, rd, rs1, immediate);
                let expected = if rd == ZERO {
                    0
                } else {
                    reference(op, a, immediate)
                };
                guest.check(
                    rd,
                    expected,
                    format!("{op:?} x{rd}, x{rs1}={a:#x}, {immediate}"),
                );
            }
        }
    }
}
