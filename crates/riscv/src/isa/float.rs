//! F, D, Zfhmin and Zfa: floating point (unprivileged specification, 21, 22, 24 and 25).

use super::{Encoding, Format, Op, row};

/// The rows of the F extension.
#[rustfmt::skip]
pub const SINGLE: &[Encoding] = &[
    row("flw", Op::Flw, Format::I, 0x0000_707f, 0x0000_2007),
    row("fsw", Op::Fsw, Format::S, 0x0000_707f, 0x0000_2027),
    row("fmadd.s", Op::FmaddS, Format::FloatR4, 0x0600_007f, 0x0000_0043),
    row("fmsub.s", Op::FmsubS, Format::FloatR4, 0x0600_007f, 0x0000_0047),
    row("fnmsub.s", Op::FnmsubS, Format::FloatR4, 0x0600_007f, 0x0000_004b),
    row("fnmadd.s", Op::FnmaddS, Format::FloatR4, 0x0600_007f, 0x0000_004f),
    row("fadd.s", Op::FaddS, Format::FloatRounded, 0xfe00_007f, 0x0000_0053),
    row("fsub.s", Op::FsubS, Format::FloatRounded, 0xfe00_007f, 0x0800_0053),
    row("fmul.s", Op::FmulS, Format::FloatRounded, 0xfe00_007f, 0x1000_0053),
    row("fdiv.s", Op::FdivS, Format::FloatRounded, 0xfe00_007f, 0x1800_0053),
    row("fsqrt.s", Op::FsqrtS, Format::FloatUnaryRounded, 0xfff0_007f, 0x5800_0053),
    row("fsgnj.s", Op::FsgnjS, Format::FloatR, 0xfe00_707f, 0x2000_0053),
    row("fsgnjn.s", Op::FsgnjnS, Format::FloatR, 0xfe00_707f, 0x2000_1053),
    row("fsgnjx.s", Op::FsgnjxS, Format::FloatR, 0xfe00_707f, 0x2000_2053),
    row("fmin.s", Op::FminS, Format::FloatR, 0xfe00_707f, 0x2800_0053),
    row("fmax.s", Op::FmaxS, Format::FloatR, 0xfe00_707f, 0x2800_1053),
    row("fcvt.w.s", Op::FcvtWS, Format::FloatUnaryRounded, 0xfff0_007f, 0xc000_0053),
    row("fcvt.wu.s", Op::FcvtWuS, Format::FloatUnaryRounded, 0xfff0_007f, 0xc010_0053),
    row("fcvt.l.s", Op::FcvtLS, Format::FloatUnaryRounded, 0xfff0_007f, 0xc020_0053),
    row("fcvt.lu.s", Op::FcvtLuS, Format::FloatUnaryRounded, 0xfff0_007f, 0xc030_0053),
    row("fmv.x.w", Op::FmvXW, Format::Unary, 0xfff0_707f, 0xe000_0053),
    row("feq.s", Op::FeqS, Format::FloatR, 0xfe00_707f, 0xa000_2053),
    row("flt.s", Op::FltS, Format::FloatR, 0xfe00_707f, 0xa000_1053),
    row("fle.s", Op::FleS, Format::FloatR, 0xfe00_707f, 0xa000_0053),
    row("fclass.s", Op::FclassS, Format::Unary, 0xfff0_707f, 0xe000_1053),
    row("fcvt.s.w", Op::FcvtSW, Format::FloatUnaryRounded, 0xfff0_007f, 0xd000_0053),
    row("fcvt.s.wu", Op::FcvtSWu, Format::FloatUnaryRounded, 0xfff0_007f, 0xd010_0053),
    row("fcvt.s.l", Op::FcvtSL, Format::FloatUnaryRounded, 0xfff0_007f, 0xd020_0053),
    row("fcvt.s.lu", Op::FcvtSLu, Format::FloatUnaryRounded, 0xfff0_007f, 0xd030_0053),
    row("fmv.w.x", Op::FmvWX, Format::Unary, 0xfff0_707f, 0xf000_0053),
];

/// The rows of the D extension.
#[rustfmt::skip]
pub const DOUBLE: &[Encoding] = &[
    row("fld", Op::Fld, Format::I, 0x0000_707f, 0x0000_3007),
    row("fsd", Op::Fsd, Format::S, 0x0000_707f, 0x0000_3027),
    row("fmadd.d", Op::FmaddD, Format::FloatR4, 0x0600_007f, 0x0200_0043),
    row("fmsub.d", Op::FmsubD, Format::FloatR4, 0x0600_007f, 0x0200_0047),
    row("fnmsub.d", Op::FnmsubD, Format::FloatR4, 0x0600_007f, 0x0200_004b),
    row("fnmadd.d", Op::FnmaddD, Format::FloatR4, 0x0600_007f, 0x0200_004f),
    row("fadd.d", Op::FaddD, Format::FloatRounded, 0xfe00_007f, 0x0200_0053),
    row("fsub.d", Op::FsubD, Format::FloatRounded, 0xfe00_007f, 0x0a00_0053),
    row("fmul.d", Op::FmulD, Format::FloatRounded, 0xfe00_007f, 0x1200_0053),
    row("fdiv.d", Op::FdivD, Format::FloatRounded, 0xfe00_007f, 0x1a00_0053),
    row("fsqrt.d", Op::FsqrtD, Format::FloatUnaryRounded, 0xfff0_007f, 0x5a00_0053),
    row("fsgnj.d", Op::FsgnjD, Format::FloatR, 0xfe00_707f, 0x2200_0053),
    row("fsgnjn.d", Op::FsgnjnD, Format::FloatR, 0xfe00_707f, 0x2200_1053),
    row("fsgnjx.d", Op::FsgnjxD, Format::FloatR, 0xfe00_707f, 0x2200_2053),
    row("fmin.d", Op::FminD, Format::FloatR, 0xfe00_707f, 0x2a00_0053),
    row("fmax.d", Op::FmaxD, Format::FloatR, 0xfe00_707f, 0x2a00_1053),
    row("fcvt.s.d", Op::FcvtSD, Format::FloatUnaryRounded, 0xfff0_007f, 0x4010_0053),
    row("fcvt.d.s", Op::FcvtDS, Format::FloatUnaryRounded, 0xfff0_007f, 0x4200_0053),
    row("fcvt.w.d", Op::FcvtWD, Format::FloatUnaryRounded, 0xfff0_007f, 0xc200_0053),
    row("fcvt.wu.d", Op::FcvtWuD, Format::FloatUnaryRounded, 0xfff0_007f, 0xc210_0053),
    row("fcvt.l.d", Op::FcvtLD, Format::FloatUnaryRounded, 0xfff0_007f, 0xc220_0053),
    row("fcvt.lu.d", Op::FcvtLuD, Format::FloatUnaryRounded, 0xfff0_007f, 0xc230_0053),
    row("fmv.x.d", Op::FmvXD, Format::Unary, 0xfff0_707f, 0xe200_0053),
    row("feq.d", Op::FeqD, Format::FloatR, 0xfe00_707f, 0xa200_2053),
    row("flt.d", Op::FltD, Format::FloatR, 0xfe00_707f, 0xa200_1053),
    row("fle.d", Op::FleD, Format::FloatR, 0xfe00_707f, 0xa200_0053),
    row("fclass.d", Op::FclassD, Format::Unary, 0xfff0_707f, 0xe200_1053),
    row("fcvt.d.w", Op::FcvtDW, Format::FloatUnaryRounded, 0xfff0_007f, 0xd200_0053),
    row("fcvt.d.wu", Op::FcvtDWu, Format::FloatUnaryRounded, 0xfff0_007f, 0xd210_0053),
    row("fcvt.d.l", Op::FcvtDL, Format::FloatUnaryRounded, 0xfff0_007f, 0xd220_0053),
    row("fcvt.d.lu", Op::FcvtDLu, Format::FloatUnaryRounded, 0xfff0_007f, 0xd230_0053),
    row("fmv.d.x", Op::FmvDX, Format::Unary, 0xfff0_707f, 0xf200_0053),
];

/// The rows of Zfhmin, half precision.
#[rustfmt::skip]
pub const HALF: &[Encoding] = &[
    row("flh", Op::Flh, Format::I, 0x0000_707f, 0x0000_1007),
    row("fsh", Op::Fsh, Format::S, 0x0000_707f, 0x0000_1027),
    row("fmv.x.h", Op::FmvXH, Format::Unary, 0xfff0_707f, 0xe400_0053),
    row("fmv.h.x", Op::FmvHX, Format::Unary, 0xfff0_707f, 0xf400_0053),
    row("fcvt.s.h", Op::FcvtSH, Format::FloatUnaryRounded, 0xfff0_007f, 0x4020_0053),
    row("fcvt.h.s", Op::FcvtHS, Format::FloatUnaryRounded, 0xfff0_007f, 0x4400_0053),
    row("fcvt.d.h", Op::FcvtDH, Format::FloatUnaryRounded, 0xfff0_007f, 0x4220_0053),
    row("fcvt.h.d", Op::FcvtHD, Format::FloatUnaryRounded, 0xfff0_007f, 0x4410_0053),
];

/// The rows of Zfa, additional floating point. (`fmvh.x.d` and `fmvp.d.x` are RV32's.)
#[rustfmt::skip]
pub const ADDITIONAL: &[Encoding] = &[
    row("fli.s", Op::FliS, Format::Unary, 0xfff0_707f, 0xf010_0053),
    row("fli.d", Op::FliD, Format::Unary, 0xfff0_707f, 0xf210_0053),
    row("fminm.s", Op::FminmS, Format::FloatR, 0xfe00_707f, 0x2800_2053),
    row("fmaxm.s", Op::FmaxmS, Format::FloatR, 0xfe00_707f, 0x2800_3053),
    row("fminm.d", Op::FminmD, Format::FloatR, 0xfe00_707f, 0x2a00_2053),
    row("fmaxm.d", Op::FmaxmD, Format::FloatR, 0xfe00_707f, 0x2a00_3053),
    row("fround.s", Op::FroundS, Format::FloatUnaryRounded, 0xfff0_007f, 0x4040_0053),
    row("froundnx.s", Op::FroundnxS, Format::FloatUnaryRounded, 0xfff0_007f, 0x4050_0053),
    row("fround.d", Op::FroundD, Format::FloatUnaryRounded, 0xfff0_007f, 0x4240_0053),
    row("froundnx.d", Op::FroundnxD, Format::FloatUnaryRounded, 0xfff0_007f, 0x4250_0053),
    row("fcvtmod.w.d", Op::FcvtmodWD, Format::Unary, 0xfff0_707f, 0xc280_1053),
    row("fltq.s", Op::FltqS, Format::FloatR, 0xfe00_707f, 0xa000_5053),
    row("fleq.s", Op::FleqS, Format::FloatR, 0xfe00_707f, 0xa000_4053),
    row("fltq.d", Op::FltqD, Format::FloatR, 0xfe00_707f, 0xa200_5053),
    row("fleq.d", Op::FleqD, Format::FloatR, 0xfe00_707f, 0xa200_4053),
];
