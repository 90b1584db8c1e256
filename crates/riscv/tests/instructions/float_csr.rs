//! `fflags`, `frm` and `fcsr` (unprivileged specification, 21.2) in code that runs often, while
//! arithmetic raises flags around them.

use crate::assembler::register::*;
use crate::csr_forms::{CSR_FORMS, REGISTERS, changed, is_immediate};
use crate::guest::{Guest, Mode, guests};
use riscv::hart::csr::number;
use riscv::isa::{self, Instruction, Op};

const NX: u64 = 1;
const DZ: u64 = 8;
const NV: u64 = 16;
const FS: u64 = 3 << 13;

/// f1 = 1, f2 = 3; f3 is a quiet NaN, f4 a signaling one.
fn numbers(guest: &mut Guest) {
    for (register, bits) in [
        (1, 1f64.to_bits()),
        (2, 3f64.to_bits()),
        (3, f64::NAN.to_bits()),
        (4, 0x7ff0_0000_0000_0001),
    ] {
        guest.asm.li(A0, bits);
        guest.asm.r(Op::FmvDX, register, A0, ZERO);
    }
}

/// Raises inexact, whatever `frm` is.
fn raise_inexact(guest: &mut Guest) {
    guest.asm.op(Op::FdivD, 5, 1, 2, 0);
}

/// The bits of `fadd.d f5, f1, f2, dyn`.
fn dynamic_addition() -> u32 {
    let instruction = Instruction {
        op: Op::FaddD,
        rd: 5,
        rs1: 1,
        rs2: 2,
        immediate: 7,
        length: 4,
    };
    isa::encode(&instruction).expect("an instruction")
}

/// All forms on one CSR, whose field of `fcsr` is (mask, shift).
fn all_forms(guest: &mut Guest, csr: u16, mask: u64, shift: u32) {
    numbers(guest);
    guest.rounds(|guest| {
        for (turn, op) in CSR_FORMS.into_iter().enumerate() {
            for (rd, rs1) in REGISTERS {
                for source in [0u64, 0x15, 0x0a, u64::MAX << 5 | 9, u64::MAX] {
                    let source = if is_immediate(op) {
                        source & 31
                    } else {
                        source
                    };
                    let mode = [2, 0, 7, 5][turn % 4];
                    guest.write_csr(number::FCSR, mode << 5 | DZ);
                    guest.asm.li(rs1, source);
                    raise_inexact(guest);
                    let field = if is_immediate(op) { source as u8 } else { rs1 };
                    guest.asm.csr(op, rd, csr, field);
                    let old = (mode << 5 | DZ | NX) >> shift & mask;
                    let what = format!("{op:?} x{rd}, {csr:#x}, x{rs1} = {source:#x}");
                    if rd != ZERO {
                        guest.check(rd, old, format!("{what}: rd"));
                    }
                    let all = mode << 5 | DZ | NX;
                    let new = changed(op, old, source) & mask;
                    let all = all & !(mask << shift) | new << shift;
                    guest.check_csr(number::FCSR, all, format!("{what}: fcsr"));
                }
            }
        }
    });
}

guests! {
    fn every_form_on_fflags(guest) {
        all_forms(guest, number::FFLAGS, 31, 0);
    }

    fn every_form_on_frm(guest) {
        all_forms(guest, number::FRM, 7, 5);
    }

    fn every_form_on_fcsr(guest) {
        all_forms(guest, number::FCSR, 255, 0);
    }

    fn reads_do_not_write(guest) {
        numbers(guest);
        guest.rounds(|guest| {
            for op in [Op::Csrrs, Op::Csrrc, Op::Csrrsi, Op::Csrrci] {
                for rd in [A1, T3] {
                    guest.write_csr(number::FCSR, 3 << 5 | DZ);
                    raise_inexact(guest);
                    guest.asm.csr(op, rd, number::FFLAGS, 0);
                    guest.check(rd, DZ | NX, format!("{op:?}: fflags"));
                    guest.asm.csr(op, rd, number::FRM, 0);
                    guest.check(rd, 3, format!("{op:?}: frm"));
                    guest.asm.csr(op, rd, number::FCSR, 0);
                    guest.check(rd, 3 << 5 | DZ | NX, format!("{op:?}: fcsr"));
                }
            }
        });
    }

    /// What compilers emit for a comparison that must not raise anything.
    fn flags_read_before_a_comparison_are_written_behind_it(guest) {
        numbers(guest);
        guest.rounds(|guest| {
            for before in [0, NX, NV, 31] {
                for (a, b, less) in [(1, 2, 1), (2, 1, 0), (1, 3, 0), (4, 1, 0)] {
                    guest.write_csr(number::FCSR, before);
                    guest.asm.csr(Op::Csrrs, A4, number::FFLAGS, ZERO);
                    guest.asm.r(Op::FltD, A5, a, b);
                    guest.asm.csr(Op::Csrrw, ZERO, number::FFLAGS, A4);
                    let what = format!("{before:#x}, f{a} < f{b}");
                    guest.check(A5, less, what.clone());
                    guest.check(A4, before, format!("{what}: frflags"));
                    guest.check_csr(number::FFLAGS, before, format!("{what}: fflags"));
                    raise_inexact(guest);
                    guest.check_csr(number::FFLAGS, before | NX, format!("{what}: and inexact"));
                }
            }
        });
    }

    fn flags_once_cleared_are_raised_anew(guest) {
        numbers(guest);
        guest.rounds(|guest| {
            raise_inexact(guest);
            guest.asm.csr(Op::Csrrwi, A1, number::FFLAGS, 0);
            guest.asm.csr(Op::Csrrs, A2, number::FFLAGS, ZERO);
            guest.asm.r(Op::FltD, A5, 3, 1);
            guest.asm.csr(Op::Csrrci, A3, number::FFLAGS, NX as u8);
            guest.check(A2, 0, "cleared");
            guest.check(A3, NV, "raised behind that");
            guest.check_csr(number::FFLAGS, NV, "a flag that was not raised is cleared");
        });
    }

    /// 21.2: an instruction that rounds by a reserved mode is illegal.
    fn a_reserved_mode_makes_dynamic_rounding_illegal_until_it_is_gone(guest) {
        numbers(guest);
        guest.rounds(|guest| {
            for reserved in [5, 6, 7] {
                guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, 0);
                guest.asm.op(Op::FaddD, 5, 1, 2, 7);
                guest.check_float(5, 4f64.to_bits(), "to nearest even");
                let bits = dynamic_addition();
                let what = format!("mode {reserved}");
                guest.traps(Mode::Machine, 2, u64::from(bits), &what, |guest| {
                    guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, reserved);
                    let pc = guest.asm.bound_label();
                    guest.asm.word(bits);
                    pc
                });
                guest.asm.csr(Op::Csrrwi, A1, number::FRM, 3);
                guest.check(A1, u64::from(reserved), "frm");
                guest.asm.op(Op::FdivD, 5, 1, 2, 7);
                guest.check_float(5, 0x3fd5_5555_5555_5556, "1 / 3 rounded up");
            }
        });
    }

    /// 3.1.6.6 of the privileged specification, over and over.
    fn floating_point_csrs_need_fs_and_make_it_dirty(guest) {
        guest.rounds(|guest| {
            for csr in [number::FFLAGS, number::FRM, number::FCSR] {
                for (clean, dirty) in [(1 << 13, FS), (2 << 13, FS)] {
                    guest.clear_csr(number::MSTATUS, FS);
                    guest.set_csr(number::MSTATUS, clean);
                    guest.asm.csr(Op::Csrrs, A0, csr, ZERO);
                    guest.check_bits(number::MSTATUS, FS, clean, "a read");
                    guest.asm.csr(Op::Csrrw, ZERO, csr, A0); // what it is already
                    guest.check_bits(number::MSTATUS, FS, dirty, "a write");
                }
                for op in [Op::Csrrs, Op::Csrrw] {
                    let instruction = Instruction {
                        op, rd: A0, rs1: 0, rs2: 0, immediate: csr.into(), length: 4,
                    };
                    let bits = isa::encode(&instruction).expect("a CSR instruction");
                    guest.clear_csr(number::MSTATUS, FS);
                    let what = format!("{op:?} {csr:#x} without FS");
                    guest.instruction_traps(Mode::Machine, 2, u64::from(bits), &what, |asm| {
                        asm.word(bits);
                    });
                    guest.set_csr(number::MSTATUS, FS);
                }
            }
        });
    }
}
