//! Zba, Zbb, Zbs and Zbc: bit manipulation (unprivileged specification, 30).

use super::{Encoding, Format, Op, row};

/// The rows of Zba, address generation.
#[rustfmt::skip]
pub const ADDRESS_GENERATION: &[Encoding] = &[
    row("add.uw", Op::AddUw, Format::R, 0xfe00_707f, 0x0800_003b),
    row("sh1add", Op::Sh1add, Format::R, 0xfe00_707f, 0x2000_2033),
    row("sh2add", Op::Sh2add, Format::R, 0xfe00_707f, 0x2000_4033),
    row("sh3add", Op::Sh3add, Format::R, 0xfe00_707f, 0x2000_6033),
    row("sh1add.uw", Op::Sh1addUw, Format::R, 0xfe00_707f, 0x2000_203b),
    row("sh2add.uw", Op::Sh2addUw, Format::R, 0xfe00_707f, 0x2000_403b),
    row("sh3add.uw", Op::Sh3addUw, Format::R, 0xfe00_707f, 0x2000_603b),
    row("slli.uw", Op::SlliUw, Format::Shift6, 0xfc00_707f, 0x0800_101b),
];

/// The rows of Zbb, basic bit manipulation.
#[rustfmt::skip]
pub const BASIC: &[Encoding] = &[
    row("andn", Op::Andn, Format::R, 0xfe00_707f, 0x4000_7033),
    row("orn", Op::Orn, Format::R, 0xfe00_707f, 0x4000_6033),
    row("xnor", Op::Xnor, Format::R, 0xfe00_707f, 0x4000_4033),
    row("clz", Op::Clz, Format::Unary, 0xfff0_707f, 0x6000_1013),
    row("ctz", Op::Ctz, Format::Unary, 0xfff0_707f, 0x6010_1013),
    row("cpop", Op::Cpop, Format::Unary, 0xfff0_707f, 0x6020_1013),
    row("clzw", Op::Clzw, Format::Unary, 0xfff0_707f, 0x6000_101b),
    row("ctzw", Op::Ctzw, Format::Unary, 0xfff0_707f, 0x6010_101b),
    row("cpopw", Op::Cpopw, Format::Unary, 0xfff0_707f, 0x6020_101b),
    row("max", Op::Max, Format::R, 0xfe00_707f, 0x0a00_6033),
    row("maxu", Op::Maxu, Format::R, 0xfe00_707f, 0x0a00_7033),
    row("min", Op::Min, Format::R, 0xfe00_707f, 0x0a00_4033),
    row("minu", Op::Minu, Format::R, 0xfe00_707f, 0x0a00_5033),
    row("sext.b", Op::SextB, Format::Unary, 0xfff0_707f, 0x6040_1013),
    row("sext.h", Op::SextH, Format::Unary, 0xfff0_707f, 0x6050_1013),
    row("zext.h", Op::ZextH, Format::Unary, 0xfff0_707f, 0x0800_403b),
    row("rol", Op::Rol, Format::R, 0xfe00_707f, 0x6000_1033),
    row("ror", Op::Ror, Format::R, 0xfe00_707f, 0x6000_5033),
    row("rori", Op::Rori, Format::Shift6, 0xfc00_707f, 0x6000_5013),
    row("rolw", Op::Rolw, Format::R, 0xfe00_707f, 0x6000_103b),
    row("rorw", Op::Rorw, Format::R, 0xfe00_707f, 0x6000_503b),
    row("roriw", Op::Roriw, Format::Shift5, 0xfe00_707f, 0x6000_501b),
    row("orc.b", Op::OrcB, Format::Unary, 0xfff0_707f, 0x2870_5013),
    row("rev8", Op::Rev8, Format::Unary, 0xfff0_707f, 0x6b80_5013),
];

/// The rows of Zbs, single-bit instructions.
#[rustfmt::skip]
pub const SINGLE_BIT: &[Encoding] = &[
    row("bclr", Op::Bclr, Format::R, 0xfe00_707f, 0x4800_1033),
    row("bext", Op::Bext, Format::R, 0xfe00_707f, 0x4800_5033),
    row("binv", Op::Binv, Format::R, 0xfe00_707f, 0x6800_1033),
    row("bset", Op::Bset, Format::R, 0xfe00_707f, 0x2800_1033),
    row("bclri", Op::Bclri, Format::Shift6, 0xfc00_707f, 0x4800_1013),
    row("bexti", Op::Bexti, Format::Shift6, 0xfc00_707f, 0x4800_5013),
    row("binvi", Op::Binvi, Format::Shift6, 0xfc00_707f, 0x6800_1013),
    row("bseti", Op::Bseti, Format::Shift6, 0xfc00_707f, 0x2800_1013),
];

/// The rows of Zbc, carry-less multiplication.
#[rustfmt::skip]
pub const CARRY_LESS: &[Encoding] = &[
    row("clmul", Op::Clmul, Format::R, 0xfe00_707f, 0x0a00_1033),
    row("clmulh", Op::Clmulh, Format::R, 0xfe00_707f, 0x0a00_3033),
    row("clmulr", Op::Clmulr, Format::R, 0xfe00_707f, 0x0a00_2033),
];
