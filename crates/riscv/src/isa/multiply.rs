//! M: integer multiplication and division (unprivileged specification, 13).

use super::{Encoding, Format, Op, row};

/// The rows of the M extension.
#[rustfmt::skip]
pub const ROWS: &[Encoding] = &[
    row("mul", Op::Mul, Format::R, 0xfe00_707f, 0x0200_0033),
    row("mulh", Op::Mulh, Format::R, 0xfe00_707f, 0x0200_1033),
    row("mulhsu", Op::Mulhsu, Format::R, 0xfe00_707f, 0x0200_2033),
    row("mulhu", Op::Mulhu, Format::R, 0xfe00_707f, 0x0200_3033),
    row("div", Op::Div, Format::R, 0xfe00_707f, 0x0200_4033),
    row("divu", Op::Divu, Format::R, 0xfe00_707f, 0x0200_5033),
    row("rem", Op::Rem, Format::R, 0xfe00_707f, 0x0200_6033),
    row("remu", Op::Remu, Format::R, 0xfe00_707f, 0x0200_7033),
    row("mulw", Op::Mulw, Format::R, 0xfe00_707f, 0x0200_003b),
    row("divw", Op::Divw, Format::R, 0xfe00_707f, 0x0200_403b),
    row("divuw", Op::Divuw, Format::R, 0xfe00_707f, 0x0200_503b),
    row("remw", Op::Remw, Format::R, 0xfe00_707f, 0x0200_603b),
    row("remuw", Op::Remuw, Format::R, 0xfe00_707f, 0x0200_703b),
];
