//! Counters (privileged specification, 3.1.10 to 3.1.12; Zicntr).

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, guests};
use riscv::hart::csr::number;
use riscv::isa::Op;

guests! {
    fn each_instruction_retires_once_and_takes_a_cycle(guest) {
        for csr in [number::MINSTRET, number::MCYCLE, number::INSTRET, number::CYCLE] {
            guest.asm.csr(Op::Csrrs, A0, csr, ZERO);
            for _ in 0..10 {
                guest.asm.i(Op::Addi, ZERO, ZERO, 0);
            }
            guest.asm.half(1); // c.nop
            guest.asm.csr(Op::Csrrs, A1, csr, ZERO);
            guest.asm.r(Op::Sub, A0, A1, A0);
            guest.check(A0, 12, format!("{csr:#x}"));
        }
    }

    /// 3.1.10: a write takes effect after the instruction: the next one reads what was written.
    fn a_written_counter_goes_on_from_there(guest) {
        for csr in [number::MINSTRET, number::MCYCLE] {
            for value in [0u64, 1000, u64::MAX, 1 << 63] {
                guest.asm.li(A0, value);
                guest.asm.csr(Op::Csrrw, ZERO, csr, A0);
                guest.asm.csr(Op::Csrrs, A1, csr, ZERO);
                guest.asm.csr(Op::Csrrs, A2, csr, ZERO);
                guest.check(A1, value, format!("{csr:#x} after a write of {value:#x}"));
                guest.check(A2, value.wrapping_add(1), "one later");
            }
        }
    }

    /// 3.3.1: ecall and ebreak cause exceptions, so they do not retire; nor does anything that
    /// faults. Taking an interrupt retires nothing either.
    fn an_instruction_that_traps_does_not_retire(guest) {
        // a handler of its own: it counts on from where it is entered
        let (handler, past) = (guest.asm.label(), guest.asm.label());
        guest.asm.jal(ZERO, past);
        guest.asm.align(4);
        guest.asm.bind(handler);
        guest.asm.csr(Op::Csrrs, A2, number::MCYCLE, ZERO);
        guest.asm.csr(Op::Csrrs, A1, number::MINSTRET, ZERO);
        guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A5);
        guest.asm.op(Op::Mret, 0, 0, 0, 0);
        guest.asm.bind(past);
        guest.asm.csr(Op::Csrrs, S0, number::MTVEC, ZERO);
        guest.asm.la(A0, handler);
        guest.asm.csr(Op::Csrrw, ZERO, number::MTVEC, A0);
        guest.set_csr(number::MSTATUS, 3 << 11);
        guest.asm.li(A0, 0x7000_0000);
        for (what, word) in [("ecall", 0x73u32), ("ebreak", 0x0010_0073), ("ld", 0x0005_3003), ("illegal", 0xffff_ffff)] {
            let resume = guest.asm.label();
            guest.set_csr(number::MSTATUS, 3 << 11);
            guest.asm.la(A5, resume);
            guest.asm.csr(Op::Csrrs, A4, number::MCYCLE, ZERO);
            guest.asm.csr(Op::Csrrs, A3, number::MINSTRET, ZERO);
            guest.asm.word(word);
            guest.asm.bind(resume);
            guest.asm.csr(Op::Csrrs, A6, number::MINSTRET, ZERO);
            guest.asm.r(Op::Sub, A2, A2, A4);
            guest.asm.r(Op::Sub, A6, A6, A1);
            guest.asm.r(Op::Sub, A1, A1, A3);
            guest.check(A1, 2, format!("{what}: instret from before it into the handler"));
            guest.check(A2, 3, format!("{what}: cycles from before it into the handler"));
            guest.check(A6, 3, format!("{what}: instret out of the handler, mret retires"));
        }
        guest.asm.csr(Op::Csrrw, ZERO, number::MTVEC, S0);
    }

    /// 3.1.11: mcounteren guards S, mcounteren and scounteren guard U.
    fn counter_enable_bits_guard_the_lower_modes(guest) {
        for (bit, csr) in [(0u64, number::CYCLE), (1, number::TIME), (2, number::INSTRET), (3, 0xc03), (31, 0xc1f)] {
            for (machine, supervisor) in [(0, 0), (1, 0), (0, 1), (1, 1u64)] {
                guest.write_csr(number::MCOUNTEREN, machine << bit);
                guest.write_csr(number::SCOUNTEREN, supervisor << bit);
                for (mode, allowed, call) in [
                    (Mode::Supervisor, machine == 1, 9),
                    (Mode::User, machine & supervisor == 1, 8),
                ] {
                    let illegal = 0x0000_2573 | u64::from(csr) << 20;
                    let (cause, value) = if allowed { (call, 0) } else { (2, illegal) };
                    let what = format!("{csr:#x} in {mode:?}, {machine}{supervisor}");
                    guest.traps(mode, cause, value, &what, |guest| {
                        let pc = guest.asm.bound_label();
                        guest.asm.csr(Op::Csrrs, A0, csr, ZERO);
                        let after = guest.asm.bound_label();
                        guest.asm.op(Op::Ecall, 0, 0, 0, 0);
                        if allowed { after } else { pc }
                    });
                }
            }
        }
    }
}
