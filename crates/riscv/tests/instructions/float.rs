//! F and D (unprivileged specification, 21 and 22): that each instruction does what it is called,
//! with its operands in their order, its rounding mode, its flags and its NaN boxes. How the
//! arithmetic rounds in all its cases is tested beside the arithmetic itself.

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, SCRATCH, guests};
use riscv::hart::csr::number;
use riscv::isa::{self, Instruction, Op};

const NX: u64 = 1;
const UF: u64 = 2;
const OF: u64 = 4;
const DZ: u64 = 8;
const NV: u64 = 16;

/// The two widths of each instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Single,
    Double,
}
use Width::{Double, Single};

/// An operand or result that both widths can hold.
#[derive(Clone, Copy, Debug)]
enum Value {
    /// Exactly this number (or infinity, or a zero).
    Number(f64),
    /// The canonical NaN.
    Quiet,
    /// A signaling NaN.
    Signaling,
}
use Value::{Number, Quiet, Signaling};

fn boxed(single: u32) -> u64 {
    0xffff_ffff_0000_0000 | u64::from(single)
}

impl Width {
    fn bits(self, value: Value) -> u64 {
        match (self, value) {
            (Single, Number(number)) => boxed((number as f32).to_bits()),
            (Single, Quiet) => boxed(0x7fc0_0000),
            (Single, Signaling) => boxed(0xff80_0001),
            (Double, Number(number)) => number.to_bits(),
            (Double, Quiet) => 0x7ff8_0000_0000_0000,
            (Double, Signaling) => 0xfff0_0000_0000_0001,
        }
    }

    fn pick<T>(self, (single, double): (T, T)) -> T {
        if self == Single { single } else { double }
    }
}

/// f1 to f3 get the operands; flags are cleared.
fn operands(guest: &mut Guest, bits: &[u64]) {
    for (register, &bits) in (1..).zip(bits) {
        guest.asm.li(A0, bits);
        guest.asm.r(Op::FmvDX, register, A0, ZERO);
    }
    guest.asm.csr(Op::Csrrwi, ZERO, number::FFLAGS, 0);
}

/// A computation of f1, f2 and f3 into f4 with a rounding mode.
fn compute(guest: &mut Guest, op: Op, bits: &[u64], rm: i32, result: u64, flags: u64) {
    guest.tests(op);
    operands(guest, bits);
    let second = if bits.len() > 1 { 2 } else { 0 };
    let third = if bits.len() > 2 { 3 << 8 } else { 0 };
    guest.asm.op(op, 4, 1, second, third | rm);
    let what = format!("{op:?} {bits:x?} rm {rm}");
    guest.check_float(4, result, what.clone());
    guest.check_csr(number::FFLAGS, flags, format!("{what}: flags"));
}

/// The same in both widths.
fn both(guest: &mut Guest, ops: (Op, Op), values: &[Value], result: Value, flags: u64) {
    for width in [Single, Double] {
        let bits: Vec<u64> = values.iter().map(|&value| width.bits(value)).collect();
        compute(guest, width.pick(ops), &bits, 0, width.bits(result), flags);
    }
}

/// An instruction with an integer result in a4.
fn to_integer(guest: &mut Guest, op: Op, bits: &[u64], rm: i32, result: u64, flags: u64) {
    guest.tests(op);
    operands(guest, bits);
    guest
        .asm
        .op(op, A4, 1, if bits.len() > 1 { 2 } else { 0 }, rm);
    let what = format!("{op:?} {bits:x?} rm {rm}");
    guest.check(A4, result, what.clone());
    guest.check_csr(number::FFLAGS, flags, format!("{what}: flags"));
}

fn from_integer(guest: &mut Guest, op: Op, integer: u64, rm: i32, result: u64, flags: u64) {
    guest.tests(op);
    guest.asm.csr(Op::Csrrwi, ZERO, number::FFLAGS, 0);
    guest.asm.li(A0, integer);
    guest.asm.op(op, 4, A0, 0, rm);
    let what = format!("{op:?} {integer:#x} rm {rm}");
    guest.check_float(4, result, what.clone());
    guest.check_csr(number::FFLAGS, flags, format!("{what}: flags"));
}

const INF: Value = Number(f64::INFINITY);
const MINUS_INF: Value = Number(f64::NEG_INFINITY);

guests! {
    fn sums_and_differences(guest) {
        let (add, sub) = ((Op::FaddS, Op::FaddD), (Op::FsubS, Op::FsubD));
        for (a, b, result, flags) in [
            (Number(1.5), Number(2.25), Number(3.75), 0),
            (Number(1.0), Number(-1.0), Number(0.0), 0),
            (Number(-0.0), Number(-0.0), Number(-0.0), 0),
            (Number(-0.0), Number(0.0), Number(0.0), 0),
            (INF, Number(1.0), INF, 0),
            (INF, MINUS_INF, Quiet, NV),
            (Quiet, Number(1.0), Quiet, 0),
            (Number(1.0), Signaling, Quiet, NV),
        ] {
            both(guest, add, &[a, b], result, flags);
        }
        for (a, b, result, flags) in [
            (Number(3.75), Number(2.25), Number(1.5), 0),
            (Number(2.25), Number(3.75), Number(-1.5), 0),
            (Number(0.0), Number(0.0), Number(0.0), 0),
            (Number(-0.0), Number(0.0), Number(-0.0), 0),
            (INF, INF, Quiet, NV),
            (Signaling, Number(1.0), Quiet, NV),
        ] {
            both(guest, sub, &[a, b], result, flags);
        }
    }

    fn products_quotients_and_roots(guest) {
        let (mul, div) = ((Op::FmulS, Op::FmulD), (Op::FdivS, Op::FdivD));
        for (a, b, result, flags) in [
            (Number(1.5), Number(2.5), Number(3.75), 0),
            (Number(-0.0), Number(5.0), Number(-0.0), 0),
            (Number(0.0), INF, Quiet, NV),
            (MINUS_INF, Number(2.0), MINUS_INF, 0),
            (Signaling, Quiet, Quiet, NV),
        ] {
            both(guest, mul, &[a, b], result, flags);
        }
        for (a, b, result, flags) in [
            (Number(7.5), Number(2.5), Number(3.0), 0),
            (Number(2.5), Number(10.0), Number(0.25), 0),
            (Number(1.0), Number(0.0), INF, DZ),
            (Number(1.0), Number(-0.0), MINUS_INF, DZ),
            (Number(0.0), Number(0.0), Quiet, NV),
            (INF, INF, Quiet, NV),
            (INF, Number(0.0), INF, 0),
            (Number(1.0), MINUS_INF, Number(-0.0), 0),
        ] {
            both(guest, div, &[a, b], result, flags);
        }
        for (a, result, flags) in [
            (Number(6.25), Number(2.5), 0),
            (Number(-0.0), Number(-0.0), 0),
            (Number(-1.0), Quiet, NV),
            (INF, INF, 0),
            (Quiet, Quiet, 0),
        ] {
            both(guest, (Op::FsqrtS, Op::FsqrtD), &[a], result, flags);
        }
    }

    /// 21.6: fmadd = (a x b) + c, fmsub = (a x b) - c, fnmsub = -(a x b) + c, fnmadd = -(a x b) - c.
    fn fused_operations_have_these_signs(guest) {
        let (a, b, c) = (Number(1.5), Number(2.0), Number(0.25));
        let ops = [
            (Op::FmaddS, Op::FmaddD), (Op::FmsubS, Op::FmsubD), (Op::FnmsubS, Op::FnmsubD), (Op::FnmaddS, Op::FnmaddD),
        ];
        for (op, result, zero) in [
            (ops[0], 3.25, 0.0), (ops[1], 2.75, 0.0), (ops[2], -2.75, 0.0), (ops[3], -3.25, -0.0),
        ] {
            both(guest, op, &[a, b, c], Number(result), 0);
            both(guest, op, &[Number(1.0), Number(0.0), Number(0.0)], Number(zero), 0);
            both(guest, op, &[INF, Number(0.0), Quiet], Quiet, NV); // 21.6: even with a quiet NaN
            both(guest, op, &[Quiet, Number(1.0), Number(1.0)], Quiet, 0);
            both(guest, op, &[Number(1.0), Number(1.0), Signaling], Quiet, NV);
        }
        // one rounding only: (1 + e)(1 - e) - 1 = -e^2
        let e = 2f64.powi(-12);
        both(guest, (Op::FmaddS, Op::FmaddD), &[Number(1.0 + e), Number(1.0 - e), Number(-1.0)], Number(-(e * e)), 0);
        let e = 2f64.powi(-30);
        let bits = [1.0 + e, 1.0 - e, -1.0].map(f64::to_bits);
        compute(guest, Op::FmaddD, &bits, 0, (-(e * e)).to_bits(), 0);
    }

    fn every_rounding_mode_static_and_dynamic(guest) {
        // 1 + 3/4 of a unit in the last place; and its negative; and a tie
        let unit = |width: Width| 2f64.powi(width.pick((-23, -52)));
        for width in [Single, Double] {
            let add = width.pick((Op::FaddS, Op::FaddD));
            let u = unit(width);
            let up = |number: f64| width.bits(Number(number));
            for (sign, part, results) in [
                // RNE, RTZ, RDN, RUP, RMM: units above 1 in magnitude
                (1.0, 0.75, [1.0, 0.0, 0.0, 1.0, 1.0]),
                (-1.0, 0.75, [1.0, 0.0, 1.0, 0.0, 1.0]),
                (1.0, 0.5, [0.0, 0.0, 0.0, 1.0, 1.0]),
                (-1.0, 0.5, [0.0, 0.0, 1.0, 0.0, 1.0]),
                (1.0, 0.25, [0.0, 0.0, 0.0, 1.0, 0.0]),
            ] {
                for (rm, units) in (0..).zip(results) {
                    let bits = [up(sign), up(sign * part * u)];
                    let result = up(sign * (1.0 + units * u));
                    compute(guest, add, &bits, rm, result, NX);
                    guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, rm as u8);
                    compute(guest, add, &bits, 7, result, NX);
                    // a static mode does not care for frm, not even for a reserved one
                    guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, 5 + rm as u8 % 3);
                    compute(guest, add, &bits, rm, result, NX);
                    guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, 0);
                }
            }
        }
    }

    /// 21.2: modes 5 and 6 are reserved, 7 too in frm; using them is illegal.
    fn reserved_rounding_modes_are_illegal(guest) {
        for op in [Op::FaddS, Op::FmulD, Op::FmaddS, Op::FsqrtD, Op::FcvtWS, Op::FcvtSL, Op::FcvtSD, Op::FdivD] {
            let (rs2, third) = match op {
                Op::FaddS | Op::FmulD | Op::FdivD => (2, 0),
                Op::FmaddS => (2, 3 << 8),
                _ => (0, 0),
            };
            let bits = |rm: i32| {
                let instruction = Instruction { op, rd: 4, rs1: 1, rs2, immediate: third | rm, length: 4 };
                isa::encode(&instruction).expect("an instruction")
            };
            for (rm, frm) in [(5, 0), (6, 0), (7, 5), (7, 6), (7, 7)] {
                guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, frm);
                guest.instruction_traps(Mode::Machine, 2, u64::from(bits(rm)), &format!("{op:?} rm {rm} frm {frm}"), |asm| {
                    asm.word(bits(rm));
                });
            }
            guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, 0);
        }
    }

    /// 21.2: flags accumulate until they are cleared.
    fn flags_accumulate(guest) {
        compute(guest, Op::FdivD, &[1f64, 0.0].map(f64::to_bits), 0, f64::INFINITY.to_bits(), DZ);
        for (a, b, flags) in [(1f64, 3f64, DZ | NX), (0.0, 0.0, DZ | NX | NV)] {
            guest.asm.li(A0, a.to_bits());
            guest.asm.r(Op::FmvDX, 1, A0, ZERO);
            guest.asm.li(A0, b.to_bits());
            guest.asm.r(Op::FmvDX, 2, A0, ZERO);
            guest.asm.op(Op::FdivD, 4, 1, 2, 0);
            guest.check_csr(number::FFLAGS, flags, "after one more");
        }
    }

    fn overflow_and_underflow(guest) {
        for width in [Single, Double] {
            let mul = width.pick((Op::FmulS, Op::FmulD));
            let most = width.pick((f64::from(f32::MAX), f64::MAX));
            let least = width.pick((f64::from(f32::MIN_POSITIVE), f64::MIN_POSITIVE));
            let unit = width.pick((f64::from(f32::EPSILON), f64::EPSILON));
            let bits = |number: f64| width.bits(Number(number));
            compute(guest, mul, &[bits(most), bits(2.0)], 0, bits(f64::INFINITY), OF | NX);
            compute(guest, mul, &[bits(most), bits(2.0)], 1, bits(most), OF | NX);
            compute(guest, mul, &[bits(most), bits(-2.0)], 3, bits(-most), OF | NX);
            // an exact subnormal result raises nothing, an inexact one UF and NX
            compute(guest, mul, &[bits(least), bits(0.5)], 0, bits(least / 2.0), 0);
            compute(guest, mul, &[bits(least), bits(unit / 4.0)], 0, bits(0.0), UF | NX);
            compute(guest, mul, &[bits(least), bits(unit / 4.0)], 3, bits(least * unit), UF | NX);
        }
    }

    fn sign_injection_takes_the_sign_of_rs2(guest) {
        let ops = [(Op::FsgnjS, Op::FsgnjD), (Op::FsgnjnS, Op::FsgnjnD), (Op::FsgnjxS, Op::FsgnjxD)];
        for (a, b) in [(1.5f64, 2.0f64), (1.5, -2.0), (-1.5, 2.0), (-1.5, -2.0), (0.0, -0.0)] {
            let magnitude = a.abs();
            let signed = |negative: bool| Number(if negative { -magnitude } else { magnitude });
            let (sa, sb) = (a.is_sign_negative(), b.is_sign_negative());
            for (op, negative) in ops.into_iter().zip([sb, !sb, sa != sb]) {
                both(guest, op, &[Number(a), Number(b)], signed(negative), 0);
            }
        }
        // payloads are kept, and a signaling NaN raises nothing
        compute(guest, Op::FsgnjD, &[0x7ff0_dead_beef_0001, 1 << 63], 0, 0xfff0_dead_beef_0001, 0);
        compute(guest, Op::FsgnjxS, &[boxed(0xff81_2345), boxed(0x8000_0000)], 0, boxed(0x7f81_2345), 0);
    }

    /// 21.6: minimumNumber and maximumNumber of IEEE 754-2019.
    fn minimum_and_maximum(guest) {
        let (min, max) = ((Op::FminS, Op::FminD), (Op::FmaxS, Op::FmaxD));
        for (a, b, least, most, flags) in [
            (Number(1.5), Number(-2.0), Number(-2.0), Number(1.5), 0),
            (Number(-0.0), Number(0.0), Number(-0.0), Number(0.0), 0),
            (Number(0.0), Number(-0.0), Number(-0.0), Number(0.0), 0),
            (Quiet, Number(3.0), Number(3.0), Number(3.0), 0),
            (Number(3.0), Quiet, Number(3.0), Number(3.0), 0),
            (Signaling, Number(3.0), Number(3.0), Number(3.0), NV),
            (Quiet, Quiet, Quiet, Quiet, 0),
            (Signaling, Quiet, Quiet, Quiet, NV),
            (MINUS_INF, INF, MINUS_INF, INF, 0),
        ] {
            both(guest, min, &[a, b], least, flags);
            both(guest, max, &[a, b], most, flags);
        }
    }

    /// 21.8: feq is quiet, flt and fle signal for any NaN.
    fn comparisons(guest) {
        for (a, b, [eq, lt, le], [eq_flags, order_flags]) in [
            (Number(1.0), Number(2.0), [0, 1, 1], [0, 0]),
            (Number(2.0), Number(1.0), [0, 0, 0], [0, 0]),
            (Number(2.0), Number(2.0), [1, 0, 1], [0, 0]),
            (Number(-0.0), Number(0.0), [1, 0, 1], [0, 0]),
            (MINUS_INF, INF, [0, 1, 1], [0, 0]),
            (Quiet, Number(1.0), [0, 0, 0], [0, NV]),
            (Number(1.0), Quiet, [0, 0, 0], [0, NV]),
            (Signaling, Number(1.0), [0, 0, 0], [NV, NV]),
        ] {
            for width in [Single, Double] {
                let bits = [width.bits(a), width.bits(b)];
                to_integer(guest, width.pick((Op::FeqS, Op::FeqD)), &bits, 0, eq, eq_flags);
                to_integer(guest, width.pick((Op::FltS, Op::FltD)), &bits, 0, lt, order_flags);
                to_integer(guest, width.pick((Op::FleS, Op::FleD)), &bits, 0, le, order_flags);
            }
        }
    }

    /// 21.9: one bit of ten.
    fn classes(guest) {
        let single: [u32; 10] = [
            0xff80_0000, 0xc000_0000, 0x8000_0001, 0x8000_0000, 0, 1, 0x4000_0000, 0x7f80_0000, 0x7f80_0001, 0x7fc0_0000,
        ];
        let double: [u64; 10] = [
            0xfff0 << 48, 0xc000 << 48, 1 << 63 | 1, 1 << 63, 0, 1, 0x4000 << 48, 0x7ff0 << 48, 0x7ff0 << 48 | 1, 0x7ff8 << 48,
        ];
        for class in 0..10 {
            to_integer(guest, Op::FclassS, &[boxed(single[class])], 0, 1 << class, 0);
            to_integer(guest, Op::FclassD, &[double[class]], 0, 1 << class, 0);
        }
    }

    /// 21.7, table 30: out of range and NaN give the nearest limit, NaN the largest; and NV.
    fn conversions_to_integers(guest) {
        let minus_one = u64::MAX;
        for width in [Single, Double] {
            let [w, wu, l, lu] = width.pick((
                [Op::FcvtWS, Op::FcvtWuS, Op::FcvtLS, Op::FcvtLuS],
                [Op::FcvtWD, Op::FcvtWuD, Op::FcvtLD, Op::FcvtLuD],
            ));
            let bits = |value| [width.bits(value)];
            for (rm, value, result) in [
                (0, 1.5, 2), (0, 2.5, 2), (1, 1.5, 1), (1, -1.5, minus_one), (2, -1.5, minus_one - 1), (3, 1.5, 2),
                (3, -1.5, minus_one), (4, 2.5, 3),
            ] {
                to_integer(guest, w, &bits(Number(value)), rm, result, NX);
                to_integer(guest, l, &bits(Number(value)), rm, result, NX);
                if value > 0.0 {
                    to_integer(guest, wu, &bits(Number(value)), rm, result, NX);
                    to_integer(guest, lu, &bits(Number(value)), rm, result, NX);
                }
            }
            let least_word = 0xffff_ffff_8000_0000u64;
            for (op, least, most) in [
                (w, least_word, 0x7fff_ffff), (wu, 0, minus_one), (l, 1 << 63, (1 << 63) - 1), (lu, 0, minus_one),
            ] {
                to_integer(guest, op, &bits(INF), 0, most, NV);
                to_integer(guest, op, &bits(MINUS_INF), 0, least, NV);
                to_integer(guest, op, &bits(Quiet), 0, most, NV);
                to_integer(guest, op, &bits(Signaling), 0, most, NV);
                to_integer(guest, op, &bits(Number(2f64.powi(64))), 1, most, NV);
            }
            to_integer(guest, wu, &bits(Number(-1.0)), 0, 0, NV);
            to_integer(guest, lu, &bits(Number(-1.0)), 0, 0, NV);
            to_integer(guest, wu, &bits(Number(-0.5)), 1, 0, NX);
            to_integer(guest, w, &bits(Number(-2f64.powi(31))), 0, least_word, 0);
            to_integer(guest, w, &bits(Number(2f64.powi(31))), 0, 0x7fff_ffff, NV);
            to_integer(guest, wu, &bits(Number(2f64.powi(31))), 0, least_word, 0); // sign-extended
            to_integer(guest, l, &bits(Number(-2f64.powi(63))), 0, 1 << 63, 0);
            to_integer(guest, lu, &bits(Number(2f64.powi(63))), 0, 1 << 63, 0);
        }
    }

    fn conversions_from_integers(guest) {
        let d = f64::to_bits;
        let s = |number: f32| boxed(number.to_bits());
        let junk = 0x1234_5678_0000_0000u64; // word conversions ignore the upper half
        from_integer(guest, Op::FcvtDW, junk | 0xffff_ffff, 0, d(-1.0), 0);
        from_integer(guest, Op::FcvtDWu, junk | 0xffff_ffff, 0, d(4_294_967_295.0), 0);
        from_integer(guest, Op::FcvtDW, 1 << 31, 0, d(-2_147_483_648.0), 0);
        from_integer(guest, Op::FcvtDL, u64::MAX, 0, d(-1.0), 0);
        from_integer(guest, Op::FcvtDL, 1 << 63, 0, d(-(2f64.powi(63))), 0);
        from_integer(guest, Op::FcvtDLu, 1 << 63, 0, d(2f64.powi(63)), 0);
        from_integer(guest, Op::FcvtDLu, u64::MAX, 0, d(2f64.powi(64)), NX);
        from_integer(guest, Op::FcvtDLu, u64::MAX, 1, d(2f64.powi(64) - 2048.0), NX);
        from_integer(guest, Op::FcvtDL, (1 << 53) + 1, 3, d(2f64.powi(53) + 2.0), NX);
        from_integer(guest, Op::FcvtSW, junk | 0xffff_fffe, 0, s(-2.0), 0);
        from_integer(guest, Op::FcvtSWu, junk | 0x8000_0000, 0, s(2_147_483_648.0), 0);
        from_integer(guest, Op::FcvtSWu, 0xffff_ffff, 0, s(4_294_967_296.0), NX);
        from_integer(guest, Op::FcvtSW, (1 << 24) + 1, 3, s(16_777_218.0), NX);
        from_integer(guest, Op::FcvtSL, u64::MAX - 1, 0, s(-2.0), 0);
        from_integer(guest, Op::FcvtSL, 1 << 62, 0, s(2f32.powi(62)), 0);
        from_integer(guest, Op::FcvtSLu, 1 << 63, 0, s(2f32.powi(63)), 0);
        from_integer(guest, Op::FcvtSLu, u64::MAX, 1, s(2f32.powi(64) - 2f32.powi(40)), NX);
        from_integer(guest, Op::FcvtDWu, 0, 2, d(0.0), 0);
    }

    fn conversions_between_widths(guest) {
        let s = |number: f32| boxed(number.to_bits());
        compute(guest, Op::FcvtSD, &[1.5f64.to_bits()], 0, s(1.5), 0);
        compute(guest, Op::FcvtSD, &[(1.0 + 2f64.powi(-40)).to_bits()], 0, s(1.0), NX);
        compute(guest, Op::FcvtSD, &[(1.0 + 2f64.powi(-40)).to_bits()], 3, s(1.0 + f32::EPSILON), NX);
        compute(guest, Op::FcvtSD, &[1e300f64.to_bits()], 0, s(f32::INFINITY), OF | NX);
        compute(guest, Op::FcvtSD, &[0xfff8_0000_0000_1234], 0, boxed(0x7fc0_0000), 0);
        compute(guest, Op::FcvtSD, &[Double.bits(Signaling)], 0, boxed(0x7fc0_0000), NV);
        compute(guest, Op::FcvtDS, &[s(-1.5)], 0, (-1.5f64).to_bits(), 0);
        compute(guest, Op::FcvtDS, &[s(1e-45)], 0, 2f64.powi(-149).to_bits(), 0);
        compute(guest, Op::FcvtDS, &[boxed(0xffc1_2345)], 0, Double.bits(Quiet), 0);
        compute(guest, Op::FcvtDS, &[boxed(0xff80_0001)], 0, Double.bits(Quiet), NV);
    }

    fn moves_keep_all_bits(guest) {
        let (raw, sign) = (0x0123_4567_89ab_cdefu64, 0xffff_ffff_89ab_cdefu64);
        to_integer(guest, Op::FmvXD, &[raw], 0, raw, 0);
        to_integer(guest, Op::FmvXW, &[raw], 0, sign, 0); // not boxed: the bits all the same
        from_integer(guest, Op::FmvDX, raw, 0, raw, 0);
        from_integer(guest, Op::FmvWX, raw, 0, sign, 0);
        from_integer(guest, Op::FmvWX, 0x1_7f80_0001, 0, boxed(0x7f80_0001), 0);
    }

    fn loads_and_stores_keep_all_bits(guest) {
        for op in [Op::Flw, Op::Fsw, Op::Fld, Op::Fsd] {
            guest.tests(op);
        }
        let raw = 0x0123_4567_89ab_cdefu64;
        guest.poke(SCRATCH, 8, raw);
        guest.poke(SCRATCH + 8, 8, 0x7f80_0001_fff0_0001);
        for offset in [0i32, 4, 8, 3, 2047] {
            guest.asm.li(A0, SCRATCH.wrapping_sub(offset as u64));
            guest.asm.i(Op::Flw, 5, A0, offset);
            guest.check_float(5, boxed(raw as u32), "flw boxes");
            guest.asm.i(Op::Fld, 5, A0, offset);
            guest.check_float(5, raw, "fld");
        }
        guest.asm.li(A0, SCRATCH);
        guest.asm.i(Op::Fld, 0, A0, 0);
        guest.check_float(0, raw, "f0 is a register like any other");
        guest.asm.i(Op::Fld, 31, A0, 8);
        guest.asm.store(Op::Fsd, 31, A0, 16);
        guest.check_memory(SCRATCH + 16, 0x7f80_0001_fff0_0001, "fsd of a signaling NaN");
        guest.poke(SCRATCH + 24, 8, u64::MAX);
        guest.asm.store(Op::Fsw, 0, A0, 24);
        guest.check_memory(SCRATCH + 24, 0xffff_ffff_89ab_cdef, "fsw of a double");
        // misaligned, over a page boundary
        guest.asm.li(A0, SCRATCH + 4096);
        guest.asm.store(Op::Fsd, 0, A0, -3);
        guest.asm.i(Op::Fld, 6, A0, -3);
        guest.check_float(6, raw, "over a page boundary");
        guest.asm.i(Op::Flw, 6, A0, -2);
        guest.check_float(6, boxed(0x6789_abcd), "over a page boundary");
    }

    /// 22.2: a single that is not properly boxed is the canonical NaN.
    fn a_single_without_its_box_is_a_nan(guest) {
        let (one, unboxed) = (boxed(0x3f80_0000), 0x0000_0000_3f80_0000u64);
        let nan = boxed(0x7fc0_0000);
        for bits in [[unboxed, one], [one, unboxed], [0xffff_fffe_3f80_0000, one]] {
            compute(guest, Op::FaddS, &bits, 0, nan, 0);
            to_integer(guest, Op::FeqS, &bits, 0, 0, 0);
        }
        compute(guest, Op::FsgnjS, &[unboxed, one], 0, nan, 0);
        compute(guest, Op::FsgnjS, &[one, 0x8000_0000], 0, one, 0); // the NaN's sign is plus
        compute(guest, Op::FminS, &[unboxed, one], 0, one, 0);
        compute(guest, Op::FmaddS, &[one, one, unboxed], 0, nan, 0);
        compute(guest, Op::FcvtDS, &[unboxed], 0, Double.bits(Quiet), 0);
        to_integer(guest, Op::FclassS, &[unboxed], 0, 1 << 9, 0);
        to_integer(guest, Op::FcvtWS, &[unboxed], 0, 0x7fff_ffff, NV);
    }

    /// rd may be any of the sources.
    fn results_may_overwrite_their_sources(guest) {
        operands(guest, &[1.5f64, 2.0, 0.25].map(f64::to_bits));
        guest.asm.op(Op::FmaddD, 3, 1, 2, 3 << 8);
        guest.check_float(3, 3.25f64.to_bits(), "rd = rs3");
        guest.asm.op(Op::FsubD, 2, 3, 2, 0);
        guest.check_float(2, 1.25f64.to_bits(), "rd = rs2");
        guest.asm.op(Op::FmulD, 2, 2, 2, 0);
        guest.check_float(2, 1.5625f64.to_bits(), "rd = rs1 = rs2");
        guest.asm.op(Op::FeqD, ZERO, 2, 2, 0);
        guest.check(ZERO, 0, "x0 stays zero");
    }
}
