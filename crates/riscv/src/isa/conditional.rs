//! Zicond: integer conditional operations (unprivileged specification, "Zicond").

use super::{Encoding, Format, Op, row};

/// The rows of the extension.
#[rustfmt::skip]
pub const ROWS: &[Encoding] = &[
    row("czero.eqz", Op::CzeroEqz, Format::R, 0xfe00_707f, 0x0e00_5033),
    row("czero.nez", Op::CzeroNez, Format::R, 0xfe00_707f, 0x0e00_7033),
];
