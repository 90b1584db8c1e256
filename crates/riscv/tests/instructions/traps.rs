//! Exceptions, delegation and returns (privileged specification, 3.1.6 to 3.1.8, 3.3 and 12.1).

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, SCRATCH, TRAP_STATUS, guests};
use riscv::hart::csr::number;
use riscv::isa::Op;

const SIE: u64 = 1 << 1;
const MIE: u64 = 1 << 3;
const SPIE: u64 = 1 << 5;
const MPIE: u64 = 1 << 7;
const SPP: u64 = 1 << 8;
const MPP: u64 = 3 << 11;
const MPRV: u64 = 1 << 17;

fn ecall(guest: &mut Guest) -> crate::assembler::Label {
    let pc = guest.asm.bound_label();
    guest.asm.op(Op::Ecall, 0, 0, 0, 0);
    pc
}

guests! {
    fn ecall_names_the_mode_that_calls(guest) {
        guest.tests(Op::Ecall);
        for (mode, cause) in [(Mode::User, 8), (Mode::Supervisor, 9), (Mode::Machine, 11)] {
            guest.traps(mode, cause, 0, "ecall", ecall);
            guest.check_memory(
                TRAP_STATUS,
                crate::guest::Expected::Bits(MPP, (mode as u64) << 11),
                format!("MPP after a trap from {mode:?}"),
            );
        }
    }

    /// 3.1.16: mtval holds the address of the breakpoint.
    fn ebreak_raises_a_breakpoint_at_itself(guest) {
        guest.tests(Op::Ebreak);
        for mode in [Mode::User, Mode::Supervisor, Mode::Machine] {
            let pc = guest.asm.label();
            guest.traps(mode, 3, pc, "ebreak", |guest| {
                guest.asm.bind(pc);
                guest.asm.op(Op::Ebreak, 0, 0, 0, 0);
                pc
            });
            let pc = guest.asm.label();
            guest.traps(mode, 3, pc, "c.ebreak", |guest| {
                guest.asm.bind(pc);
                guest.asm.half(0x9002);
                pc
            });
        }
    }

    /// 3.1.16: mtval holds the bits of an illegal instruction.
    fn illegal_instructions_report_their_bits(guest) {
        for bits in [
            0xffff_ffffu32, 0x0000_007f, 0x0000_000b, 0x0400_1013, 0x0200_101b, 0x4000_1013, 0x0000_7003,
            0x0000_4023, 0x0000_2063, 0x0000_3063, 0x0000_1067, 0x0000_202f | 0x1010_0000, 0x2800_202f,
            0x0000_102f, 0x0600_0033, 0x4000_1033, 0x0000_4073, 0x0000_00f3, 0x0020_0073, 0x7b20_0073,
            0x3020_00f3, 0x1050_0173, 0x1200_00f3, 0x0000_5007, 0x0000_4007, 0x0400_0043, 0x0600_0043,
            0x0000_5053, 0x0000_6053, 0x5810_0053, 0x2000_3053, 0xa000_3053, 0xe000_2053, 0x0000_0057,
            0x6030_1013, 0x6030_101b, 0x2860_5013, 0x6b00_5013, 0x0810_403b, 0x6200_501b, 0x4800_101b,
            0x0000_002b, 0x0030_200f, 0x0000_800f | 0x4000,
        ] {
            guest.instruction_traps(Mode::Machine, 2, u64::from(bits), &format!("{bits:#010x}"), |asm| asm.word(bits));
        }
        // c.illegal and reserved half-words; upper half of mtval is zero
        for bits in [0x0000u16, 0x9000, 0x2001, 0x6101, 0x6081, 0x9c79, 0x9c7d, 0x4002, 0x6002, 0x8002] {
            guest.instruction_traps(Mode::Machine, 2, u64::from(bits), &format!("{bits:#06x}"), |asm| asm.half(bits));
        }
    }

    fn privileged_instructions_are_illegal_below_their_mode(guest) {
        for (mode, bits) in [
            (Mode::User, 0x3020_0073u32), (Mode::Supervisor, 0x3020_0073), // mret
            (Mode::User, 0x1020_0073), // sret
            (Mode::User, 0x1050_0073), // wfi: 3.3.3
            (Mode::User, 0x1200_0073), // sfence.vma
        ] {
            guest.instruction_traps(mode, 2, u64::from(bits), &format!("{bits:#x} in {mode:?}"), |asm| asm.word(bits));
        }
    }

    /// 3.1.6.1: a trap saves MIE in MPIE and clears it; mret restores it, sets MPIE, MPP = U.
    fn mret_pops_what_a_trap_pushed(guest) {
        guest.tests(Op::Mret);
        for enabled in [0, MIE] {
            guest.clear_csr(number::MSTATUS, MIE | MPIE | MPP);
            guest.set_csr(number::MSTATUS, enabled);
            guest.traps(Mode::Machine, 11, 0, "ecall", ecall);
            let pushed = crate::guest::Expected::Bits(MIE | MPIE | MPP, enabled << 4 | MPP);
            guest.check_memory(TRAP_STATUS, pushed, "after the trap");
            guest.clear_csr(number::MSTATUS, MIE | MPIE | MPP);
            guest.set_csr(number::MSTATUS, enabled << 4);
            guest.enter(Mode::Machine);
            guest.check_bits(number::MSTATUS, MIE | MPIE | MPP, enabled | MPIE, "after mret");
        }
        guest.clear_csr(number::MSTATUS, MIE);
    }

    fn mret_enters_the_mode_in_mpp_and_clears_mprv_below_m(guest) {
        for (mode, cause) in [(Mode::User, 8), (Mode::Supervisor, 9)] {
            guest.set_csr(number::MSTATUS, MPRV);
            guest.traps(mode, cause, 0, "ecall in the mode", ecall);
            guest.check_bits(number::MSTATUS, MPRV, 0, "MPRV");
        }
        guest.set_csr(number::MSTATUS, MPP);
        guest.set_csr(number::MSTATUS, MPRV);
        guest.enter(Mode::Machine);
        guest.asm.csr(Op::Csrrs, A0, number::MSTATUS, ZERO);
        guest.clear_csr(number::MSTATUS, MPRV);
        guest.check(A0, crate::guest::Expected::Bits(MPRV, MPRV), "MPRV after mret to M");
    }

    /// 12.1.1.1: sret restores SIE, sets SPIE, SPP = U, and always clears MPRV.
    fn sret_pops_the_supervisor_stack(guest) {
        guest.tests(Op::Sret);
        for from in [Mode::Machine, Mode::Supervisor] {
            for (previous, cause) in [(0, 8), (SPP, 9)] {
                for enabled in [0, SIE] {
                    let what = format!("sret from {from:?} with SPP {previous:#x}, SPIE {enabled}");
                    guest.traps(from, cause, 0, &what, |guest| {
                        let target = guest.asm.label();
                        guest.clear_csr(number::SSTATUS, SIE | SPIE | SPP);
                        guest.set_csr(number::SSTATUS, enabled << 4 | previous);
                        guest.asm.la(S8, target);
                        guest.asm.csr(Op::Csrrw, ZERO, number::SEPC, S8);
                        if from == Mode::Machine {
                            guest.set_csr(number::MSTATUS, MPRV | MPP);
                        }
                        guest.asm.op(Op::Sret, 0, 0, 0, 0);
                        guest.asm.bind(target);
                        ecall(guest)
                    });
                    let mask = SIE | SPIE | SPP | MPRV;
                    guest.check_bits(number::MSTATUS, mask, enabled | SPIE, what);
                }
            }
        }
    }

    /// 3.1.8: traps from S and U are taken in S if delegated; those from M never.
    fn delegated_exceptions_are_taken_in_s_mode(guest) {
        let handler = guest.supervisor_handler();
        guest.write_csr(number::MEDELEG, 1 << 2 | 1 << 3 | 1 << 8 | 1 << 5);
        for mode in [Mode::User, Mode::Supervisor] {
            for enabled in [0, SIE] {
                guest.clear_csr(number::MSTATUS, SIE | SPIE | SPP);
                guest.set_csr(number::MSTATUS, enabled | if mode == Mode::User { SPP } else { 0 });
                guest.supervisor_traps(handler, mode, 2, 0xffff_ffff, "illegal", |guest| {
                    let pc = guest.asm.bound_label();
                    guest.asm.word(0xffff_ffff);
                    pc
                });
                let previous = if mode == Mode::Supervisor { SPP } else { 0 };
                let stacked = previous | if enabled != 0 { SPIE } else { 0 };
                guest.check_bits(number::MSTATUS, SIE | SPIE | SPP, stacked, "sstatus in the handler");
            }
        }
        guest.supervisor_traps(handler, Mode::User, 8, 0, "ecall from U", ecall);
        guest.asm.li(A0, 0x7000_0000);
        guest.supervisor_traps(handler, Mode::User, 5, 0x7000_0000, "load access fault", |guest| {
            let pc = guest.asm.bound_label();
            guest.asm.i(Op::Ld, A1, A0, 0);
            pc
        });
        guest.instruction_traps(Mode::Machine, 2, 0, "from M it is taken in M", |asm| asm.half(0));
        guest.write_csr(number::MEDELEG, 0);
        guest.instruction_traps(Mode::User, 2, 0, "not delegated", |asm| asm.half(0));
    }

    /// A delegated trap leaves the machine-level registers alone, and the other way round.
    fn the_other_levels_registers_stay(guest) {
        let handler = guest.supervisor_handler();
        guest.write_csr(number::MEDELEG, 1 << 3);
        guest.write_csr(number::SEPC, 0x1234);
        guest.write_csr(number::SCAUSE, 0x77);
        guest.instruction_traps(Mode::User, 2, 0, "to M", |asm| asm.half(0));
        guest.check_csr(number::SEPC, 0x1234, "sepc");
        guest.check_csr(number::SCAUSE, 0x77, "scause");
        guest.traps(Mode::Supervisor, 9, 0, "mret of the harness", ecall);
        let pc = guest.asm.label();
        guest.supervisor_traps(handler, Mode::User, 3, pc, "to S", |guest| {
            guest.asm.bind(pc);
            guest.asm.op(Op::Ebreak, 0, 0, 0, 0);
            pc
        });
    }

    /// 3.1.7: in vectored mode only interrupts go to BASE + 4 x cause.
    fn exceptions_ignore_vectored_mode(guest) {
        let handler = guest.supervisor_handler();
        guest.asm.la(S8, handler.entry);
        guest.asm.i(Op::Addi, S8, S8, 1);
        guest.asm.csr(Op::Csrrw, ZERO, number::STVEC, S8);
        guest.write_csr(number::MEDELEG, 1 << 8);
        guest.supervisor_traps(handler, Mode::User, 8, 0, "ecall", ecall);
        guest.asm.csr(Op::Csrrsi, ZERO, number::MTVEC, 1);
        guest.traps(Mode::Machine, 11, 0, "ecall from M", ecall);
    }

    /// 3.1.6.3: with MPRV loads and stores act in the mode in MPP; fetches do not.
    fn mprv_changes_data_accesses_only(guest) {
        // PMP entry 0 closes one page for S and U, entry 1 opens the rest
        guest.write_csr(number::PMPADDR0 + 1, u64::MAX);
        guest.write_csr(number::PMPADDR0, (SCRATCH >> 2) | 0x1ff);
        guest.write_csr(number::PMPCFG0, 0x1f18);
        guest.poke(SCRATCH, 8, 42);
        guest.asm.li(A0, SCRATCH);
        guest.asm.i(Op::Ld, A1, A0, 0);
        guest.check(A1, 42, "M-mode may read");
        for mode in [Mode::User, Mode::Supervisor] {
            guest.clear_csr(number::MSTATUS, MPP);
            guest.set_csr(number::MSTATUS, (mode as u64) << 11);
            guest.traps(Mode::Machine, 5, SCRATCH, "load under MPRV", |guest| {
                guest.set_csr(number::MSTATUS, MPRV);
                let pc = guest.asm.bound_label();
                guest.asm.i(Op::Ld, A1, A0, 0);
                pc
            });
            guest.clear_csr(number::MSTATUS, MPRV);
            guest.check_memory(TRAP_STATUS, crate::guest::Expected::Bits(MPP, MPP), "MPP is M");
        }
        guest.set_csr(number::MSTATUS, MPP);
        guest.set_csr(number::MSTATUS, MPRV);
        guest.asm.i(Op::Ld, A1, A0, 0);
        guest.clear_csr(number::MSTATUS, MPRV);
        guest.check(A1, 42, "with MPP = M nothing changes");
    }
}
