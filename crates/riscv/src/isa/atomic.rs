//! A: atomics (unprivileged specification, 14).

use super::{Encoding, Format, Op, row};

/// The rows of the A extension.
#[rustfmt::skip]
pub const ROWS: &[Encoding] = &[
    row("lr.w", Op::LrW, Format::Atomic, 0xf9f0_707f, 0x1000_202f),
    row("sc.w", Op::ScW, Format::Atomic, 0xf800_707f, 0x1800_202f),
    row("amoswap.w", Op::AmoswapW, Format::Atomic, 0xf800_707f, 0x0800_202f),
    row("amoadd.w", Op::AmoaddW, Format::Atomic, 0xf800_707f, 0x0000_202f),
    row("amoxor.w", Op::AmoxorW, Format::Atomic, 0xf800_707f, 0x2000_202f),
    row("amoand.w", Op::AmoandW, Format::Atomic, 0xf800_707f, 0x6000_202f),
    row("amoor.w", Op::AmoorW, Format::Atomic, 0xf800_707f, 0x4000_202f),
    row("amomin.w", Op::AmominW, Format::Atomic, 0xf800_707f, 0x8000_202f),
    row("amomax.w", Op::AmomaxW, Format::Atomic, 0xf800_707f, 0xa000_202f),
    row("amominu.w", Op::AmominuW, Format::Atomic, 0xf800_707f, 0xc000_202f),
    row("amomaxu.w", Op::AmomaxuW, Format::Atomic, 0xf800_707f, 0xe000_202f),
    row("lr.d", Op::LrD, Format::Atomic, 0xf9f0_707f, 0x1000_302f),
    row("sc.d", Op::ScD, Format::Atomic, 0xf800_707f, 0x1800_302f),
    row("amoswap.d", Op::AmoswapD, Format::Atomic, 0xf800_707f, 0x0800_302f),
    row("amoadd.d", Op::AmoaddD, Format::Atomic, 0xf800_707f, 0x0000_302f),
    row("amoxor.d", Op::AmoxorD, Format::Atomic, 0xf800_707f, 0x2000_302f),
    row("amoand.d", Op::AmoandD, Format::Atomic, 0xf800_707f, 0x6000_302f),
    row("amoor.d", Op::AmoorD, Format::Atomic, 0xf800_707f, 0x4000_302f),
    row("amomin.d", Op::AmominD, Format::Atomic, 0xf800_707f, 0x8000_302f),
    row("amomax.d", Op::AmomaxD, Format::Atomic, 0xf800_707f, 0xa000_302f),
    row("amominu.d", Op::AmominuD, Format::Atomic, 0xf800_707f, 0xc000_302f),
    row("amomaxu.d", Op::AmomaxuD, Format::Atomic, 0xf800_707f, 0xe000_302f),
];

/// The rows of Zawrs (unprivileged specification, "Zawrs").
#[rustfmt::skip]
pub const WAITING: &[Encoding] = &[
    row("wrs.nto", Op::WrsNto, Format::Fixed, 0xffff_ffff, 0x00d0_0073),
    row("wrs.sto", Op::WrsSto, Format::Fixed, 0xffff_ffff, 0x01d0_0073),
];
