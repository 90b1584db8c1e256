//! Zicsr (unprivileged specification, 7), and what each CSR holds (privileged specification).

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, guests};
use riscv::hart::csr::number;
use riscv::isa::{self, Instruction, Op};

/// The bits of a CSR instruction: what `mtval` holds when it is illegal.
fn bits(op: Op, rd: u8, csr: u16, source: u8) -> u64 {
    let immediate = i32::from(csr);
    let instruction = Instruction {
        op,
        rd,
        rs1: source,
        rs2: 0,
        immediate,
        length: 4,
    };
    u64::from(isa::encode(&instruction).expect("a CSR instruction"))
}

/// The instruction has to be illegal in `mode`.
fn is_illegal(guest: &mut Guest, mode: Mode, op: Op, rd: u8, csr: u16, source: u8) {
    let what = format!("{op:?} x{rd}, {csr:#x}, {source} in {mode:?}");
    guest.instruction_traps(mode, 2, bits(op, rd, csr, source), &what, |asm| {
        asm.csr(op, rd, csr, source);
    });
}

/// Writes all ones and all zeros and says what must be read then.
fn writable(guest: &mut Guest, csr: u16, ones: u64, zeros: u64) {
    guest.write_csr(csr, u64::MAX);
    guest.check_csr(csr, ones, format!("CSR {csr:#x} after all ones"));
    guest.write_csr(csr, 0);
    guest.check_csr(csr, zeros, format!("CSR {csr:#x} after all zeros"));
}

guests! {
    fn swap_set_and_clear_return_the_old_value(guest) {
        let csr = number::MSCRATCH;
        let (a, b) = (0xffff_0000_ff00_f0f0u64, 0x0f0f_0f0f_0f0f_0f0fu64);
        for (op, new) in [(Op::Csrrw, b), (Op::Csrrs, a | b), (Op::Csrrc, a & !b)] {
            guest.tests(op);
            guest.write_csr(csr, a);
            guest.asm.li(A0, b);
            guest.asm.csr(op, A1, csr, A0);
            guest.check(A1, a, format!("{op:?}: rd"));
            guest.check_csr(csr, new, format!("{op:?}: the CSR"));
            guest.write_csr(csr, a);
            guest.asm.csr(op, A0, csr, A0);
            guest.check(A0, a, format!("{op:?} rd = rs1: rd"));
            guest.check_csr(csr, new, format!("{op:?} rd = rs1: the CSR"));
            guest.write_csr(csr, a);
            guest.asm.li(A0, b);
            guest.asm.csr(op, ZERO, csr, A0);
            guest.check_csr(csr, new, format!("{op:?} to x0"));
        }
        for (op, new) in [(Op::Csrrwi, 0x15), (Op::Csrrsi, a | 0x15), (Op::Csrrci, a & !0x15)] {
            guest.tests(op);
            guest.write_csr(csr, a);
            guest.asm.csr(op, A1, csr, 0x15);
            guest.check(A1, a, format!("{op:?}: rd"));
            guest.check_csr(csr, new, format!("{op:?}: the CSR"));
        }
    }

    /// 7.1: csrrs and csrrc with x0, csrrsi and csrrci with 0 do not write; csrrw always does.
    fn reads_of_read_only_registers_are_no_writes(guest) {
        for op in [Op::Csrrs, Op::Csrrc, Op::Csrrsi, Op::Csrrci] {
            guest.asm.li(A0, 1);
            guest.asm.csr(op, A0, number::MHARTID, 0);
            guest.check(A0, 0, format!("{op:?} of mhartid"));
            is_illegal(guest, Mode::Machine, op, A0, number::MHARTID, 1);
        }
        is_illegal(guest, Mode::Machine, Op::Csrrw, ZERO, number::MHARTID, ZERO);
        is_illegal(guest, Mode::Machine, Op::Csrrwi, ZERO, number::TIME, 0);
        // a register whose value is zero is still a write
        guest.asm.li(A1, 0);
        is_illegal(guest, Mode::Machine, Op::Csrrs, A0, number::CYCLE, A1);
        is_illegal(guest, Mode::Machine, Op::Csrrc, ZERO, number::INSTRET, A1);
    }

    fn registers_that_do_not_exist_are_illegal(guest) {
        // rv32 only, hypervisor, debug, vector, stateen, unassigned
        for csr in [0xc80, 0xb80, 0x310, 0x3a1, 0x3a3, 0x600, 0x680, 0x7b0, 0x008, 0x30c, 0x5c0, 0x15] {
            is_illegal(guest, Mode::Machine, Op::Csrrs, A0, csr, ZERO);
            is_illegal(guest, Mode::Machine, Op::Csrrw, ZERO, csr, A0);
        }
    }

    /// Privileged specification, 2.1: bits 9 and 8 of the number are the lowest mode.
    fn each_mode_reaches_its_own_registers_only(guest) {
        for csr in [number::MSTATUS, number::MSCRATCH, number::MCYCLE, number::MHARTID, number::PMPADDR0] {
            is_illegal(guest, Mode::Supervisor, Op::Csrrs, A0, csr, ZERO);
            is_illegal(guest, Mode::User, Op::Csrrs, A0, csr, ZERO);
        }
        for csr in [number::SSTATUS, number::SSCRATCH, number::SATP, number::SIE, number::STIMECMP] {
            is_illegal(guest, Mode::User, Op::Csrrs, A0, csr, ZERO);
            is_illegal(guest, Mode::User, Op::Csrrw, ZERO, csr, A0);
        }
        guest.write_csr(number::SSCRATCH, 7);
        guest.traps(Mode::Supervisor, 9, 0, "S-mode reads its own", |guest| {
            guest.check_csr(number::SSCRATCH, 7, "sscratch");
            let pc = guest.asm.bound_label();
            guest.asm.op(Op::Ecall, 0, 0, 0, 0);
            pc
        });
    }

    fn identity_registers_say_who_this_is(guest) {
        for csr in [number::MVENDORID, number::MARCHID, number::MIMPID, number::MHARTID, number::MCONFIGPTR] {
            guest.check_csr(csr, 0, format!("{csr:#x}"));
        }
        // MXL = 2, A C D F I M S U
        let misa = (2 << 62) | 0b1_0100_0001_0001_0010_1101;
        guest.check_csr(number::MISA, misa, "misa");
        guest.write_csr(number::MISA, 0);
        guest.check_csr(number::MISA, misa, "misa does not change");
    }

    fn writable_fields_keep_what_the_specification_lets_them(guest) {
        writable(guest, number::MSCRATCH, u64::MAX, 0);
        writable(guest, number::SSCRATCH, u64::MAX, 0);
        writable(guest, number::MEPC, u64::MAX - 1, 0);
        writable(guest, number::SEPC, u64::MAX - 1, 0);
        writable(guest, number::STVAL, u64::MAX, 0);
        writable(guest, number::MTVAL, u64::MAX, 0);
        // all exceptions that exist but ecall from M (3.1.8)
        writable(guest, number::MEDELEG, 0xb3ff, 0);
        writable(guest, number::MIDELEG, 0x222, 0);
        writable(guest, number::MIE, 0xaaa, 0);
        // FIOM, CBIE, CBCFE, CBZE, ADUE, PBMTE and STCE (3.1.18; Svadu; Svpbmt; Sstc)
        writable(guest, number::MENVCFG, 7 << 61 | 0xf1, 0);
        writable(guest, number::SENVCFG, 0xf1, 0);
        writable(guest, number::MCOUNTEREN, 0xffff_ffff, 0);
        writable(guest, number::SCOUNTEREN, 0xffff_ffff, 0);
        writable(guest, number::MCOUNTINHIBIT, 0, 0);
        writable(guest, 0xb03, 0, 0); // mhpmcounter3
        writable(guest, 0x33f, 0, 0); // mhpmevent31
        writable(guest, number::FCSR, 0xff, 0);
        writable(guest, number::FRM, 7, 0);
        writable(guest, number::FFLAGS, 31, 0);
    }

    /// Debug specification, 5.7: without triggers there is no tselect, by which firmware counts them.
    fn without_triggers_their_registers_do_not_exist(guest) {
        for csr in 0x7a0..0x7b0u16 {
            let bits = u64::from(csr) << 20 | 10 << 7 | 2 << 12 | 0x73; // csrr a0, csr
            guest.instruction_traps(Mode::Machine, 2, bits, &format!("{csr:#x}"), |asm| {
                asm.csr(Op::Csrrs, A0, csr, ZERO);
            });
        }
    }

    /// 3.1.7: MODE of mtvec and stvec is 0 or 1, BASE is aligned to four bytes.
    fn trap_vectors_have_two_modes(guest) {
        guest.asm.csr(Op::Csrrs, S0, number::MTVEC, ZERO);
        for csr in [number::STVEC, number::MTVEC] {
            guest.write_csr(csr, 0x8000_1235);
            guest.check_csr(csr, 0x8000_1235, "vectored");
            guest.write_csr(csr, 0x8000_1234);
            guest.check_csr(csr, 0x8000_1234, "direct");
            guest.write_csr(csr, 0x8000_1236);
            guest.check_bits(csr, 2, 0, "a reserved mode is never read");
        }
        guest.asm.csr(Op::Csrrw, ZERO, number::MTVEC, S0);
    }

    /// 3.1.6: the fields of mstatus, with nothing set that this machine has not.
    fn mstatus_has_these_fields(guest) {
        let fixed: u64 = 2 << 32 | 2 << 34; // UXL, SXL
        guest.write_csr(number::MSTATUS, !(1u64 << 17)); // all but MPRV
        let all: u64 = 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8 | 3 << 11 | 3 << 13 | 1 << 18
            | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 63;
        guest.check_csr(number::MSTATUS, all | fixed, "all ones");
        guest.check_csr(
            number::SSTATUS,
            1 << 1 | 1 << 5 | 1 << 8 | 3 << 13 | 1 << 18 | 1 << 19 | 1 << 63 | 2 << 32,
            "the part that S-mode sees",
        );
        guest.write_csr(number::MSTATUS, 0);
        guest.check_csr(number::MSTATUS, fixed, "all zeros");
        guest.write_csr(number::SSTATUS, u64::MAX);
        guest.check_csr(
            number::MSTATUS,
            1 << 1 | 1 << 5 | 1 << 8 | 3 << 13 | 1 << 18 | 1 << 19 | 1 << 63 | fixed,
            "what S-mode can set",
        );
        guest.write_csr(number::MSTATUS, 0);
    }

    /// 3.1.6.1: MPP never reads as the reserved mode 2.
    fn mpp_holds_only_modes_that_exist(guest) {
        for mode in [0u64, 1, 3] {
            guest.write_csr(number::MSTATUS, mode << 11);
            guest.check_bits(number::MSTATUS, 3 << 11, mode << 11, format!("MPP = {mode}"));
            guest.write_csr(number::MSTATUS, 2 << 11);
            guest.check_bits(number::MSTATUS, 3 << 11, mode << 11, "MPP = 2 changes nothing");
        }
    }

    /// 12.1.11: a write of satp with a mode that does not exist has no effect at all.
    fn satp_knows_bare_sv39_sv48_sv57(guest) {
        let fields = 0x0fff_ffff_ffff_ffffu64; // ASID, PPN
        for mode in [0u64, 8, 9, 10] {
            guest.write_csr(number::SATP, mode << 60 | fields);
            guest.check_csr(number::SATP, mode << 60 | fields, format!("mode {mode}"));
        }
        for mode in [1u64, 7, 11, 15] {
            guest.write_csr(number::SATP, 9 << 60 | 0x1234);
            guest.write_csr(number::SATP, mode << 60);
            guest.check_csr(number::SATP, 9 << 60 | 0x1234, format!("mode {mode}"));
        }
        guest.write_csr(number::SATP, 0);
    }

    /// 3.1.9 and 12.1.3: sie and sip show what is delegated.
    fn sie_and_sip_show_what_is_delegated(guest) {
        guest.write_csr(number::MIE, 0xaaa);
        guest.write_csr(number::MIP, 0x222);
        guest.check_bits(number::MIP, 0xfff, 0x222, "mip: the bits that software writes");
        guest.check_csr(number::SIE, 0, "sie, nothing delegated");
        guest.check_csr(number::SIP, 0, "sip, nothing delegated");
        guest.write_csr(number::SIE, 0x222);
        guest.check_csr(number::MIE, 0xaaa, "what is not delegated cannot be written");
        guest.write_csr(number::MIDELEG, 0x022);
        guest.check_csr(number::SIE, 0x022, "sie");
        guest.check_csr(number::SIP, 0x022, "sip");
        guest.write_csr(number::SIE, 0);
        guest.check_csr(number::MIE, 0xa88, "mie after sie = 0");
        guest.write_csr(number::SIP, 0);
        guest.check_bits(number::MIP, 0xfff, 0x220, "of sip only SSIP can be written");
        guest.write_csr(number::MIP, 0);
        guest.write_csr(number::MIDELEG, 0);
        guest.write_csr(number::MIE, 0);
    }

    /// 21.2 and 3.1.6.6: floating-point CSRs and instructions need FS; using them makes it Dirty.
    fn floating_point_state_is_off_clean_or_dirty(guest) {
        const FS: u64 = 3 << 13;
        guest.clear_csr(number::MSTATUS, FS);
        for csr in [number::FFLAGS, number::FRM, number::FCSR] {
            is_illegal(guest, Mode::Machine, Op::Csrrs, A0, csr, ZERO);
            is_illegal(guest, Mode::Machine, Op::Csrrwi, ZERO, csr, 0);
        }
        let float_ops: [(Op, i32); 6] = [
            (Op::FaddS, 0), (Op::FsgnjD, 0), (Op::FmvXD, 0), (Op::FclassS, 0), (Op::FmaddD, 0), (Op::FcvtDW, 0),
        ];
        for (op, immediate) in float_ops {
            let instruction = Instruction { op, rd: 3, rs1: 1, rs2: if matches!(op, Op::FaddS | Op::FsgnjD | Op::FmaddD) { 2 } else { 0 }, immediate, length: 4 };
            let word = isa::encode(&instruction).expect("an instruction");
            guest.instruction_traps(Mode::Machine, 2, u64::from(word), &format!("{op:?}"), |asm| asm.word(word));
        }
        guest.asm.li(A0, 0x7000_0000); // illegal comes before the access fault
        for (op, word) in [(Op::Fld, 0x0005_3087u64), (Op::Fsw, 0x0015_2027)] {
            guest.instruction_traps(Mode::Machine, 2, word, &format!("{op:?}"), |asm| asm.word(word as u32));
        }
        for initial in [1u64 << 13, 2 << 13] {
            for step in 0..5 {
                guest.clear_csr(number::MSTATUS, FS);
                guest.set_csr(number::MSTATUS, initial);
                guest.check_bits(number::MSTATUS, FS | 1 << 63, initial, "not dirty yet");
                match step {
                    0 => guest.asm.csr(Op::Csrrwi, ZERO, number::FRM, 1),
                    1 => guest.asm.csr(Op::Csrrsi, ZERO, number::FFLAGS, 1),
                    2 => guest.asm.r(Op::FmvDX, 1, ZERO, ZERO),
                    3 => {
                        guest.asm.la_here(A0);
                        guest.asm.i(Op::Flw, 1, A0, 0);
                    }
                    _ => guest.asm.r(Op::FsgnjS, 1, 2, 3),
                }
                guest.check_bits(number::MSTATUS, FS | 1 << 63, FS | 1 << 63, format!("dirty after {step}"));
            }
            guest.clear_csr(number::MSTATUS, FS);
            guest.set_csr(number::MSTATUS, initial);
            guest.asm.csr(Op::Csrrs, A0, number::FCSR, ZERO);
            guest.asm.store(Op::Fsd, 1, S9, 0);
            guest.check_bits(number::MSTATUS, FS | 1 << 63, initial, "reads leave it");
        }
    }

    fn fcsr_is_frm_and_fflags(guest) {
        guest.write_csr(number::FCSR, u64::MAX);
        guest.check_csr(number::FRM, 7, "frm");
        guest.check_csr(number::FFLAGS, 31, "fflags");
        guest.write_csr(number::FRM, 2);
        guest.write_csr(number::FFLAGS, 0x15);
        guest.check_csr(number::FCSR, 2 << 5 | 0x15, "fcsr");
    }

    /// 3.1.6.5: TVM, TW and TSR make S-mode trap.
    fn tvm_tw_and_tsr_trap_s_mode(guest) {
        guest.set_csr(number::MSTATUS, 1 << 20); // TVM
        is_illegal(guest, Mode::Supervisor, Op::Csrrs, A0, number::SATP, ZERO);
        is_illegal(guest, Mode::Supervisor, Op::Csrrw, ZERO, number::SATP, A0);
        guest.instruction_traps(Mode::Supervisor, 2, 0x1200_0073, "sfence.vma under TVM", |asm| {
            asm.r(Op::SfenceVma, 0, ZERO, ZERO);
        });
        guest.check_csr(number::SATP, 0, "M-mode reaches satp");
        guest.asm.r(Op::SfenceVma, 0, ZERO, ZERO);
        guest.clear_csr(number::MSTATUS, 1 << 20);
        guest.set_csr(number::MSTATUS, 1 << 21); // TW
        guest.instruction_traps(Mode::Supervisor, 2, 0x1050_0073, "wfi under TW", |asm| {
            asm.op(Op::Wfi, 0, 0, 0, 0);
        });
        guest.clear_csr(number::MSTATUS, 1 << 21);
        guest.set_csr(number::MSTATUS, 1 << 22); // TSR
        guest.instruction_traps(Mode::Supervisor, 2, 0x1020_0073, "sret under TSR", |asm| {
            asm.op(Op::Sret, 0, 0, 0, 0);
        });
        guest.clear_csr(number::MSTATUS, 1 << 22);
        guest.tests(Op::SfenceVma);
    }
}
