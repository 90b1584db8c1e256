//! Zicsr, Zifencei (unprivileged specification, 7 and 6) and the privileged instructions
//! (privileged specification, 3.3 and 12.2).

use super::{Encoding, Format, Op, row};

/// The rows of these extensions.
#[rustfmt::skip]
pub const ROWS: &[Encoding] = &[
    row("csrrw", Op::Csrrw, Format::Csr, 0x0000_707f, 0x0000_1073),
    row("csrrs", Op::Csrrs, Format::Csr, 0x0000_707f, 0x0000_2073),
    row("csrrc", Op::Csrrc, Format::Csr, 0x0000_707f, 0x0000_3073),
    row("csrrwi", Op::Csrrwi, Format::CsrImmediate, 0x0000_707f, 0x0000_5073),
    row("csrrsi", Op::Csrrsi, Format::CsrImmediate, 0x0000_707f, 0x0000_6073),
    row("csrrci", Op::Csrrci, Format::CsrImmediate, 0x0000_707f, 0x0000_7073),
    row("fence.i", Op::FenceI, Format::Fence, 0x0000_707f, 0x0000_100f),
    row("ecall", Op::Ecall, Format::Fixed, 0xffff_ffff, 0x0000_0073),
    row("ebreak", Op::Ebreak, Format::Fixed, 0xffff_ffff, 0x0010_0073),
    row("mret", Op::Mret, Format::Fixed, 0xffff_ffff, 0x3020_0073),
    row("sret", Op::Sret, Format::Fixed, 0xffff_ffff, 0x1020_0073),
    row("wfi", Op::Wfi, Format::Fixed, 0xffff_ffff, 0x1050_0073),
    row("sfence.vma", Op::SfenceVma, Format::TwoSources, 0xfe00_7fff, 0x1200_0073),
];

/// The rows of Svinval (privileged specification, "Svinval").
#[rustfmt::skip]
pub const INVALIDATION: &[Encoding] = &[
    row("sinval.vma", Op::SinvalVma, Format::TwoSources, 0xfe00_7fff, 0x1600_0073),
    row("sfence.w.inval", Op::SfenceWInval, Format::Fixed, 0xffff_ffff, 0x1800_0073),
    row("sfence.inval.ir", Op::SfenceInvalIr, Format::Fixed, 0xffff_ffff, 0x1810_0073),
];
