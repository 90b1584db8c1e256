//! Instruction formats (unprivileged specification, 2.2): where the fields of an encoding are.

use super::{Instruction, Op};

/// The shape of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Register–register.
    R,
    /// Register–immediate, loads, `jalr`.
    I,
    /// Shift by a 6-bit immediate.
    Shift6,
    /// Shift by a 5-bit immediate.
    Shift5,
    /// Store.
    S,
    /// Branch.
    B,
    /// Upper immediate.
    U,
    /// Jump.
    J,
    /// `aq` and `rl` in bits 26 and 25.
    Atomic,
    /// Floating point with two sources and a rounding mode.
    FloatRounded,
    /// Floating point with one source and a rounding mode.
    FloatUnaryRounded,
    /// Floating point with two sources, no rounding mode.
    FloatR,
    /// One source, everything else fixed.
    Unary,
    /// Floating point with three sources and a rounding mode.
    FloatR4,
    /// A CSR and a register.
    Csr,
    /// A CSR and a 5-bit immediate.
    CsrImmediate,
    /// `fence` and `fence.i`: the upper twelve bits, rs1 and rd are hints.
    Fence,
    /// `sfence.vma`: two sources, no destination.
    TwoSources,
    /// `cbo.zero`: one source, no destination.
    OneSource,
    /// Nothing but fixed bits.
    Fixed,
}

const fn field(bits: u32, low: u32, width: u32) -> u32 {
    bits >> low & ((1 << width) - 1)
}

const fn sign_extend(value: u32, width: u32) -> i32 {
    ((value << (32 - width)) as i32) >> (32 - width)
}

fn fits_signed(value: i32, width: u32) -> bool {
    sign_extend(value as u32, width) == value
}

impl Format {
    /// The fields of `bits`.
    pub fn decode(self, op: Op, bits: u32) -> Instruction {
        let rd = field(bits, 7, 5) as u8;
        let rs1 = field(bits, 15, 5) as u8;
        let rs2 = field(bits, 20, 5) as u8;
        let rm = field(bits, 12, 3) as i32;
        let (rd, rs1, rs2, immediate) = match self {
            Format::R | Format::FloatR => (rd, rs1, rs2, 0),
            Format::I => (rd, rs1, 0, bits as i32 >> 20),
            Format::Shift6 => (rd, rs1, 0, field(bits, 20, 6) as i32),
            Format::Shift5 => (rd, rs1, 0, field(bits, 20, 5) as i32),
            Format::S => (
                0,
                rs1,
                rs2,
                sign_extend(field(bits, 25, 7) << 5 | field(bits, 7, 5), 12),
            ),
            Format::B => {
                let immediate = field(bits, 31, 1) << 12
                    | field(bits, 7, 1) << 11
                    | field(bits, 25, 6) << 5
                    | field(bits, 8, 4) << 1;
                (0, rs1, rs2, sign_extend(immediate, 13))
            }
            Format::U => (rd, 0, 0, (bits & 0xffff_f000) as i32),
            Format::J => {
                let immediate = field(bits, 31, 1) << 20
                    | field(bits, 12, 8) << 12
                    | field(bits, 20, 1) << 11
                    | field(bits, 21, 10) << 1;
                (rd, 0, 0, sign_extend(immediate, 21))
            }
            Format::Atomic => (rd, rs1, rs2, field(bits, 25, 2) as i32),
            Format::FloatRounded => (rd, rs1, rs2, rm),
            Format::FloatUnaryRounded => (rd, rs1, 0, rm),
            Format::Unary => (rd, rs1, 0, 0),
            Format::FloatR4 => (rd, rs1, rs2, (field(bits, 27, 5) << 8) as i32 | rm),
            Format::Csr | Format::CsrImmediate => (rd, rs1, 0, field(bits, 20, 12) as i32),
            Format::Fence => (rd, rs1, 0, field(bits, 20, 12) as i32),
            Format::TwoSources => (0, rs1, rs2, 0),
            Format::OneSource => (0, rs1, 0, 0),
            Format::Fixed => (0, 0, 0, 0),
        };
        Instruction {
            op,
            rd,
            rs1,
            rs2,
            immediate,
            length: 4,
        }
    }

    /// The fixed `bits` with the instruction's fields; `None` if one does not fit.
    pub fn encode(self, bits: u32, instruction: &Instruction) -> Option<u32> {
        let Instruction {
            rd,
            rs1,
            rs2,
            immediate,
            ..
        } = *instruction;
        if rd > 31 || rs1 > 31 || rs2 > 31 {
            return None;
        }
        let value = immediate as u32;
        let rd = u32::from(rd) << 7;
        let rs1 = u32::from(rs1) << 15;
        let rs2 = u32::from(rs2) << 20;
        let unsigned = |width: u32| (value < 1 << width).then_some(value);
        let fields = match self {
            Format::R | Format::FloatR => rd | rs1 | rs2,
            Format::I if fits_signed(immediate, 12) => rd | rs1 | value << 20,
            Format::Shift6 => rd | rs1 | unsigned(6)? << 20,
            Format::Shift5 => rd | rs1 | unsigned(5)? << 20,
            Format::S if fits_signed(immediate, 12) => {
                rs1 | rs2 | field(value, 5, 7) << 25 | field(value, 0, 5) << 7
            }
            Format::B if fits_signed(immediate, 13) && immediate & 1 == 0 => {
                rs1 | rs2
                    | field(value, 12, 1) << 31
                    | field(value, 11, 1) << 7
                    | field(value, 5, 6) << 25
                    | field(value, 1, 4) << 8
            }
            Format::U if value & 0xfff == 0 => rd | value,
            Format::J if fits_signed(immediate, 21) && immediate & 1 == 0 => {
                rd | field(value, 20, 1) << 31
                    | field(value, 12, 8) << 12
                    | field(value, 11, 1) << 20
                    | field(value, 1, 10) << 21
            }
            Format::I | Format::S | Format::B | Format::U | Format::J => return None,
            Format::Atomic => rd | rs1 | rs2 | unsigned(2)? << 25,
            Format::FloatRounded => rd | rs1 | rs2 | unsigned(3)? << 12,
            Format::FloatUnaryRounded => rd | rs1 | unsigned(3)? << 12,
            Format::Unary => rd | rs1,
            Format::FloatR4 => {
                let (rs3, rm) = (unsigned(13)? >> 8, value & 0xff);
                if rm > 7 {
                    return None;
                }
                rd | rs1 | rs2 | rs3 << 27 | rm << 12
            }
            Format::Csr | Format::CsrImmediate | Format::Fence => rd | rs1 | unsigned(12)? << 20,
            Format::TwoSources => rs1 | rs2,
            Format::OneSource => rs1,
            Format::Fixed => 0,
        };
        Some(bits | fields)
    }
}
