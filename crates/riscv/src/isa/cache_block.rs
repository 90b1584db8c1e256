//! Zicbom and Zicboz: cache blocks (unprivileged specification, "CMO Extensions"). The prefetches of
//! Zicbop are `ori` with x0 as its destination, which changes nothing.

use super::{Encoding, Format, Op, row};

/// Bytes of a cache block, for all three extensions: what the device tree says, and as on QEMU.
pub const BLOCK_BYTES: u64 = 64;

/// The rows of these extensions.
#[rustfmt::skip]
pub const ROWS: &[Encoding] = &[
    row("cbo.inval", Op::CboInval, Format::OneSource, 0xfff0_7fff, 0x0000_200f),
    row("cbo.clean", Op::CboClean, Format::OneSource, 0xfff0_7fff, 0x0010_200f),
    row("cbo.flush", Op::CboFlush, Format::OneSource, 0xfff0_7fff, 0x0020_200f),
    row("cbo.zero", Op::CboZero, Format::OneSource, 0xfff0_7fff, 0x0040_200f),
];
