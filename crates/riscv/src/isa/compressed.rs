//! C and Zcb: compressed instructions (unprivileged specification, 28 and 29), expanded to what they
//! stand for.

use super::{Extension, Extensions, Instruction, Op, illegal};

fn field(bits: u16, low: u32, width: u32) -> u32 {
    u32::from(bits) >> low & ((1 << width) - 1)
}

fn sign_extend(value: u32, width: u32) -> i32 {
    ((value << (32 - width)) as i32) >> (32 - width)
}

fn expanded(op: Op, rd: u32, rs1: u32, rs2: u32, immediate: i32) -> Instruction {
    Instruction {
        op,
        rd: rd as u8,
        rs1: rs1 as u8,
        rs2: rs2 as u8,
        immediate,
        length: 2,
    }
}

/// The immediate of `c.addi`, `c.li`, `c.andi` and so on: bit 12, bits 6:2.
fn immediate6(bits: u16) -> i32 {
    sign_extend(field(bits, 12, 1) << 5 | field(bits, 2, 5), 6)
}

/// The scaled offset of the register-based word accesses.
fn word_offset(bits: u16) -> i32 {
    (field(bits, 10, 3) << 3 | field(bits, 6, 1) << 2 | field(bits, 5, 1) << 6) as i32
}

/// The scaled offset of the register-based double-word accesses.
fn double_offset(bits: u16) -> i32 {
    (field(bits, 10, 3) << 3 | field(bits, 5, 2) << 6) as i32
}

/// Decodes one half-word; one of an extension that is not among these is illegal.
pub fn decode(bits: u16, extensions: Extensions) -> Instruction {
    let expanded = match bits & 3 {
        0 => quadrant0(bits),
        1 => quadrant1(bits),
        _ => quadrant2(bits),
    };
    expanded
        .or_else(|| zcb(bits).filter(|_| extensions.contain(Extension::Zcb)))
        .filter(|instruction| extensions.include(instruction.op))
        .unwrap_or_else(|| illegal(u32::from(bits), 2))
}

/// Zcb: what C leaves reserved. `c.sext.b` and the like stand for instructions of Zba and Zbb, and are
/// only there with them.
fn zcb(bits: u16) -> Option<Instruction> {
    let high = field(bits, 7, 3) + 8;
    let low = field(bits, 2, 3) + 8;
    let byte_offset = (field(bits, 6, 1) | field(bits, 5, 1) << 1) as i32;
    let half_offset = (field(bits, 5, 1) << 1) as i32;
    Some(match (bits & 3, bits >> 13, field(bits, 10, 3)) {
        (0, 4, 0) => expanded(Op::Lbu, low, high, 0, byte_offset),
        (0, 4, 1) if field(bits, 6, 1) == 0 => expanded(Op::Lhu, low, high, 0, half_offset),
        (0, 4, 1) => expanded(Op::Lh, low, high, 0, half_offset),
        (0, 4, 2) => expanded(Op::Sb, 0, high, low, byte_offset),
        (0, 4, 3) if field(bits, 6, 1) == 0 => expanded(Op::Sh, 0, high, low, half_offset),
        (1, 4, 7) => match (field(bits, 5, 2), field(bits, 2, 3)) {
            (2, _) => expanded(Op::Mul, high, high, low, 0),
            (3, 0) => expanded(Op::Andi, high, high, 0, 0xff),
            (3, 1) => expanded(Op::SextB, high, high, 0, 0),
            (3, 2) => expanded(Op::ZextH, high, high, 0, 0),
            (3, 3) => expanded(Op::SextH, high, high, 0, 0),
            (3, 4) => expanded(Op::AddUw, high, high, 0, 0),
            (3, 5) => expanded(Op::Xori, high, high, 0, -1),
            _ => return None,
        },
        _ => return None,
    })
}

fn quadrant0(bits: u16) -> Option<Instruction> {
    let rs1 = field(bits, 7, 3) + 8;
    let rd = field(bits, 2, 3) + 8;
    Some(match bits >> 13 {
        0 => {
            let immediate = field(bits, 11, 2) << 4
                | field(bits, 7, 4) << 6
                | field(bits, 6, 1) << 2
                | field(bits, 5, 1) << 3;
            if immediate == 0 {
                return None;
            }
            expanded(Op::Addi, rd, 2, 0, immediate as i32)
        }
        1 => expanded(Op::Fld, rd, rs1, 0, double_offset(bits)),
        2 => expanded(Op::Lw, rd, rs1, 0, word_offset(bits)),
        3 => expanded(Op::Ld, rd, rs1, 0, double_offset(bits)),
        5 => expanded(Op::Fsd, 0, rs1, rd, double_offset(bits)),
        6 => expanded(Op::Sw, 0, rs1, rd, word_offset(bits)),
        7 => expanded(Op::Sd, 0, rs1, rd, double_offset(bits)),
        _ => return None,
    })
}

fn quadrant1(bits: u16) -> Option<Instruction> {
    let rd = field(bits, 7, 5);
    Some(match bits >> 13 {
        0 => expanded(Op::Addi, rd, rd, 0, immediate6(bits)),
        1 if rd != 0 => expanded(Op::Addiw, rd, rd, 0, immediate6(bits)),
        2 => expanded(Op::Addi, rd, 0, 0, immediate6(bits)),
        3 if rd == 2 => {
            let immediate = field(bits, 12, 1) << 9
                | field(bits, 6, 1) << 4
                | field(bits, 5, 1) << 6
                | field(bits, 3, 2) << 7
                | field(bits, 2, 1) << 5;
            if immediate == 0 {
                return None;
            }
            expanded(Op::Addi, 2, 2, 0, sign_extend(immediate, 10))
        }
        3 if immediate6(bits) != 0 => expanded(Op::Lui, rd, 0, 0, immediate6(bits) << 12),
        4 => return arithmetic(bits),
        5 => expanded(Op::Jal, 0, 0, 0, jump_offset(bits)),
        6 => expanded(Op::Beq, 0, field(bits, 7, 3) + 8, 0, branch_offset(bits)),
        7 => expanded(Op::Bne, 0, field(bits, 7, 3) + 8, 0, branch_offset(bits)),
        _ => return None,
    })
}

fn jump_offset(bits: u16) -> i32 {
    let immediate = field(bits, 12, 1) << 11
        | field(bits, 11, 1) << 4
        | field(bits, 9, 2) << 8
        | field(bits, 8, 1) << 10
        | field(bits, 7, 1) << 6
        | field(bits, 6, 1) << 7
        | field(bits, 3, 3) << 1
        | field(bits, 2, 1) << 5;
    sign_extend(immediate, 12)
}

fn branch_offset(bits: u16) -> i32 {
    let immediate = field(bits, 12, 1) << 8
        | field(bits, 10, 2) << 3
        | field(bits, 5, 2) << 6
        | field(bits, 3, 2) << 1
        | field(bits, 2, 1) << 5;
    sign_extend(immediate, 9)
}

fn arithmetic(bits: u16) -> Option<Instruction> {
    let rd = field(bits, 7, 3) + 8;
    let rs2 = field(bits, 2, 3) + 8;
    let shift = (field(bits, 12, 1) << 5 | field(bits, 2, 5)) as i32;
    Some(match field(bits, 10, 2) {
        0 => expanded(Op::Srli, rd, rd, 0, shift),
        1 => expanded(Op::Srai, rd, rd, 0, shift),
        2 => expanded(Op::Andi, rd, rd, 0, immediate6(bits)),
        _ => {
            let op = match (field(bits, 12, 1), field(bits, 5, 2)) {
                (0, 0) => Op::Sub,
                (0, 1) => Op::Xor,
                (0, 2) => Op::Or,
                (0, _) => Op::And,
                (_, 0) => Op::Subw,
                (_, 1) => Op::Addw,
                _ => return None,
            };
            expanded(op, rd, rd, rs2, 0)
        }
    })
}

fn quadrant2(bits: u16) -> Option<Instruction> {
    let rd = field(bits, 7, 5);
    let rs2 = field(bits, 2, 5);
    let load_double =
        (field(bits, 12, 1) << 5 | field(bits, 5, 2) << 3 | field(bits, 2, 3) << 6) as i32;
    let load_word =
        (field(bits, 12, 1) << 5 | field(bits, 4, 3) << 2 | field(bits, 2, 2) << 6) as i32;
    let store_double = (field(bits, 10, 3) << 3 | field(bits, 7, 3) << 6) as i32;
    let store_word = (field(bits, 9, 4) << 2 | field(bits, 7, 2) << 6) as i32;
    Some(match bits >> 13 {
        0 => expanded(Op::Slli, rd, rd, 0, (field(bits, 12, 1) << 5 | rs2) as i32),
        1 => expanded(Op::Fld, rd, 2, 0, load_double),
        2 if rd != 0 => expanded(Op::Lw, rd, 2, 0, load_word),
        3 if rd != 0 => expanded(Op::Ld, rd, 2, 0, load_double),
        4 => match (field(bits, 12, 1), rd, rs2) {
            (0, 0, 0) => return None,
            (0, _, 0) => expanded(Op::Jalr, 0, rd, 0, 0),
            (0, _, _) => expanded(Op::Add, rd, 0, rs2, 0),
            (_, 0, 0) => expanded(Op::Ebreak, 0, 0, 0, 0),
            (_, _, 0) => expanded(Op::Jalr, 1, rd, 0, 0),
            (_, _, _) => expanded(Op::Add, rd, rd, rs2, 0),
        },
        5 => expanded(Op::Fsd, 0, 2, rs2, store_double),
        6 => expanded(Op::Sw, 0, 2, rs2, store_word),
        7 => expanded(Op::Sd, 0, 2, rs2, store_double),
        _ => return None,
    })
}
