//! Zfhmin and Zfa (unprivileged specification, 24 and 25): that each instruction does what it is called.
//! How it rounds in all its cases is tested beside the arithmetic.

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, SCRATCH, guests};
use riscv::hart::csr::{number, status};
use riscv::isa::{self, Extension, Format, Op};

const NX: u64 = 1;
const NV: u64 = 16;
const NAN_S: u64 = 0xffff_ffff_7fc0_0000;
const NAN_D: u64 = 0x7ff8_0000_0000_0000;

fn half(bits: u16) -> u64 {
    0xffff_ffff_ffff_0000 | u64::from(bits)
}

fn single(value: f32) -> u64 {
    0xffff_ffff_0000_0000 | u64::from(value.to_bits())
}

fn double(value: f64) -> u64 {
    value.to_bits()
}

/// f1 and f2 get the operands; flags are cleared.
fn operands(guest: &mut Guest, bits: &[u64]) {
    for (register, &bits) in (1..).zip(bits) {
        guest.asm.li(A0, bits);
        guest.asm.r(Op::FmvDX, register, A0, ZERO);
    }
    guest.asm.csr(Op::Csrrwi, ZERO, number::FFLAGS, 0);
}

/// A computation of f1 and f2 into f4 with a rounding mode.
fn compute(guest: &mut Guest, op: Op, bits: &[u64], rm: i32, result: u64, flags: u64) {
    guest.tests(op);
    operands(guest, bits);
    guest
        .asm
        .op(op, 4, 1, if bits.len() > 1 { 2 } else { 0 }, rm);
    let what = format!("{op:?} {bits:x?} rm {rm}");
    guest.check_float(4, result, what.clone());
    guest.check_csr(number::FFLAGS, flags, format!("{what}: flags"));
}

fn to_integer(guest: &mut Guest, op: Op, bits: &[u64], result: u64, flags: u64) {
    guest.tests(op);
    operands(guest, bits);
    guest
        .asm
        .op(op, A4, 1, if bits.len() > 1 { 2 } else { 0 }, 0);
    let what = format!("{op:?} {bits:x?}");
    guest.check(A4, result, what.clone());
    guest.check_csr(number::FFLAGS, flags, format!("{what}: flags"));
}

guests! {
    fn halves_are_loaded_stored_moved_and_converted(guest) {
        for op in [Op::Flh, Op::Fsh, Op::FmvXH, Op::FmvHX] {
            guest.tests(op);
        }
        guest.poke(SCRATCH, 8, 0x1111_2222_3c00_fc01);
        guest.asm.li(A1, SCRATCH);
        guest.rounds(|guest| {
            guest.asm.i(Op::Flh, 5, A1, 2);
            guest.check_float(5, half(0x3c00), "flh boxes");
            guest.asm.store(Op::Fsh, 5, A1, 4);
            guest.check_memory(SCRATCH, 0x1111_3c00_3c00_fc01u64, "fsh stores two bytes");
            guest.asm.i(Op::Flh, 6, A1, 0);
            guest.asm.i(Op::FmvXH, A2, 6, 0);
            guest.check(A2, 0xffff_ffff_ffff_fc01u64, "fmv.x.h extends the sign");
            guest.asm.li(A3, 0x7_1234);
            guest.asm.i(Op::FmvHX, 7, A3, 0);
            guest.check_float(7, half(0x1234), "fmv.h.x takes the low half and boxes");
            guest.poke(SCRATCH, 8, 0x1111_2222_3c00_fc01);
        });
        for (op, from, rm, to, flags) in [
            (Op::FcvtSH, half(0x3e00), 0, single(1.5), 0),
            (Op::FcvtSH, half(0x7d00), 0, NAN_S, NV),
            (Op::FcvtSH, 0x3e00, 0, NAN_S, 0), // not boxed
            (Op::FcvtDH, half(0xc200), 0, double(-3.0), 0),
            (Op::FcvtHS, single(1.0), 0, half(0x3c00), 0),
            (Op::FcvtHS, single(1.0 + 1.0 / 2048.0), 0, half(0x3c00), NX),
            (Op::FcvtHS, single(1.0 + 1.0 / 2048.0), 3, half(0x3c01), NX),
            (Op::FcvtHS, double(1.0), 0, half(0x7e00), 0), // not boxed
            (Op::FcvtHD, double(65520.0), 0, half(0x7c00), NX | 4),
            (Op::FcvtHD, double(65520.0), 1, half(0x7bff), NX),
            (Op::FcvtHD, double(65536.0), 1, half(0x7bff), NX | 4),
        ] {
            compute(guest, op, &[from], rm, to, flags);
        }
    }

    fn constants_minima_and_rounding(guest) {
        for (number, value) in [(0, -1.0), (16, 1.0), (22, 3.0), (29, 65536.0)] {
            guest.tests(Op::FliS);
            guest.tests(Op::FliD);
            guest.asm.i(Op::FliS, 4, number, 0);
            guest.check_float(4, single(value), format!("fli.s {number}"));
            guest.asm.i(Op::FliD, 4, number, 0);
            guest.check_float(4, double(value.into()), format!("fli.d {number}"));
        }
        let signaling = 0x7ff0_0000_0000_0001;
        for (op, bits, result, flags) in [
            (Op::FminmS, [single(1.0), single(2.0)], single(1.0), 0),
            (Op::FmaxmS, [single(1.0), single(2.0)], single(2.0), 0),
            (Op::FminmS, [single(1.0), NAN_S], NAN_S, 0),
            (Op::FmaxmS, [single(1.0), double(2.0)], NAN_S, 0),
            (Op::FminmD, [double(-0.0), double(0.0)], double(-0.0), 0),
            (Op::FmaxmD, [double(-0.0), double(0.0)], double(0.0), 0),
            (Op::FminmD, [signaling, double(0.0)], NAN_D, NV),
            (Op::FmaxmD, [double(0.0), NAN_D], NAN_D, 0),
        ] {
            compute(guest, op, &bits, 0, result, flags);
        }
        for (rm, result) in [(0, 2.0), (1, 2.0), (2, 2.0), (3, 3.0), (4, 3.0)] {
            compute(guest, Op::FroundS, &[single(2.5)], rm, single(result), 0);
            compute(guest, Op::FroundnxS, &[single(2.5)], rm, single(result), NX);
            let result = f64::from(result);
            compute(guest, Op::FroundD, &[double(2.5)], rm, double(result), 0);
            compute(guest, Op::FroundnxD, &[double(2.5)], rm, double(result), NX);
        }
        compute(guest, Op::FroundnxD, &[double(-0.25)], 0, double(-0.0), NX);
    }

    fn quiet_comparisons_and_the_modular_conversion(guest) {
        for (a, b, lt, le) in [(1.0, 2.0, 1, 1), (2.0, 2.0, 0, 1), (3.0, 2.0, 0, 0)] {
            to_integer(guest, Op::FltqS, &[single(a), single(b)], lt, 0);
            to_integer(guest, Op::FleqS, &[single(a), single(b)], le, 0);
            let (a, b) = (f64::from(a), f64::from(b));
            to_integer(guest, Op::FltqD, &[double(a), double(b)], lt, 0);
            to_integer(guest, Op::FleqD, &[double(a), double(b)], le, 0);
        }
        for op in [Op::FltqD, Op::FleqD] {
            to_integer(guest, op, &[NAN_D, double(1.0)], 0, 0);
            to_integer(guest, op, &[double(1.0), 0x7ff0_0000_0000_0001], 0, NV);
        }
        for (value, result, flags) in [
            (-1.5, u64::MAX, NX),
            (4_294_967_301.0, 5, NV),
            (2_147_483_648.0, 0xffff_ffff_8000_0000, NV),
            (-2_147_483_648.0, 0xffff_ffff_8000_0000, 0),
            (f64::INFINITY, 0, NV),
        ] {
            to_integer(guest, Op::FcvtmodWD, &[double(value)], result, flags);
        }
    }

    fn a_reserved_rounding_mode_or_floating_point_that_is_off_is_illegal(guest) {
        let rows = || isa::encodings().filter(|row| {
            matches!(row.op.extension(), Some(Extension::Zfhmin | Extension::Zfa))
        });
        guest.asm.li(A0, SCRATCH);
        for row in rows().filter(|row| row.format == Format::FloatUnaryRounded) {
            for rm in [5, 6] {
                let word = row.bits | rm << 12 | 1 << 15 | 2 << 7;
                let what = format!("{} rm {rm}", row.name);
                guest.instruction_traps(Mode::Machine, 2, u64::from(word), &what, |asm| asm.word(word));
            }
        }
        guest.clear_csr(number::MSTATUS, status::FS);
        for row in rows() {
            let word = row.bits | u32::from(A0) << 15;
            let what = format!("{} with FS off", row.name);
            guest.instruction_traps(Mode::Machine, 2, u64::from(word), &what, |asm| asm.word(word));
        }
        guest.set_csr(number::MSTATUS, status::FS);
    }

    fn they_are_illegal_on_a_board_without_them(guest) {
        guest.without(Extension::Zfhmin);
        guest.without(Extension::Zfa);
        guest.asm.li(A0, SCRATCH);
        let rows = isa::encodings().filter(|row| {
            matches!(row.op.extension(), Some(Extension::Zfhmin | Extension::Zfa))
        });
        for row in rows {
            let word = row.bits | u32::from(A0) << 15;
            guest.instruction_traps(Mode::Machine, 2, u64::from(word), row.name, |asm| asm.word(word));
        }
    }
}
