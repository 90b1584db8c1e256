//! Interrupts, timers and `wfi` (privileged specification, 3.1.9, 3.2.1, 3.3.3; Sstc).

use crate::assembler::register::*;
use crate::guest::{Expected, Guest, Mode, TRAP_STATUS, guests};
use riscv::hart::csr::number;
use riscv::isa::Op;

const CLINT_MSIP: u64 = 0x200_0000;
const CLINT_MTIMECMP: u64 = 0x200_4000;
const CLINT_MTIME: u64 = 0x200_bff8;
const MIE: u64 = 1 << 3;
const SIE: u64 = 1 << 1;
/// `menvcfg.STCE`.
const STCE: u64 = 1 << 63;

/// The label of the instruction that comes next, which an interrupt prevents.
fn next(guest: &mut Guest) -> crate::assembler::Label {
    let label = guest.asm.bound_label();
    guest.asm.i(Op::Addi, ZERO, ZERO, 0);
    label
}

guests! {
    fn a_software_interrupt_is_taken_before_the_next_instruction(guest) {
        guest.write_csr(number::MIE, 1 << 3);
        guest.set_csr(number::MSTATUS, MIE);
        guest.interrupts(Mode::Machine, 3, "msip", |guest| {
            guest.poke(CLINT_MSIP, 4, 1);
            next(guest)
        });
        guest.check_memory(TRAP_STATUS, Expected::Bits(MIE | 1 << 7, 1 << 7), "MPIE, MIE");
        guest.check_bits(number::MIP, 1 << 3, 1 << 3, "MSIP stays pending");
        guest.clear_csr(number::MIP, 1 << 3);
        guest.check_bits(number::MIP, 1 << 3, 1 << 3, "MSIP is read-only in mip");
        guest.poke(CLINT_MSIP, 4, 0);
        guest.check_bits(number::MIP, 1 << 3, 0, "MSIP");
    }

    /// 3.1.6.1 and 3.1.9: what enables an interrupt has effect before the next instruction.
    fn each_way_to_enable_takes_effect_at_once(guest) {
        guest.poke(CLINT_MSIP, 4, 1);
        guest.write_csr(number::MIE, 1 << 3);
        guest.asm.li(A0, MIE);
        guest.interrupts(Mode::Machine, 3, "mstatus.MIE", |guest| {
            guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A0);
            next(guest)
        });
        guest.write_csr(number::MIE, 0);
        guest.set_csr(number::MSTATUS, MIE);
        guest.asm.li(A0, 1 << 3);
        guest.interrupts(Mode::Machine, 3, "mie", |guest| {
            guest.asm.csr(Op::Csrrs, ZERO, number::MIE, A0);
            next(guest)
        });
        guest.clear_csr(number::MSTATUS, MIE);
        // mret with MPIE
        guest.interrupts(Mode::Machine, 3, "mret", |guest| {
            guest.set_csr(number::MSTATUS, 1 << 7 | 3 << 11);
            let target = guest.asm.label();
            guest.asm.la(S8, target);
            guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, S8);
            guest.asm.op(Op::Mret, 0, 0, 0, 0);
            guest.asm.bind(target);
            next(guest)
        });
        // in a lower mode MIE does not matter
        for mode in [Mode::User, Mode::Supervisor] {
            guest.clear_csr(number::MSTATUS, MIE);
            guest.interrupts(mode, 3, "a lower mode", next);
            guest.check_memory(TRAP_STATUS, Expected::Bits(3 << 11, (mode as u64) << 11), "MPP");
        }
    }

    /// 3.1.9: MEI, MSI, MTI, SEI, SSI, STI, whatever is pending besides.
    fn interrupts_have_an_order(guest) {
        guest.poke(CLINT_MTIMECMP, 8, 0);
        guest.poke(CLINT_MSIP, 4, 1);
        guest.write_csr(number::MIP, 0x222);
        guest.write_csr(number::MIE, 0xaaa);
        guest.check_csr(number::MIP, 0x2aa, "all but the external one of M");
        for (cause, disable) in [(3, 1 << 3), (7, 1 << 7), (9, 1 << 9), (1, 1 << 1), (5, 1 << 5)] {
            guest.set_csr(number::MSTATUS, 0);
            guest.interrupts(Mode::Machine, cause, "the first that is enabled", |guest| {
                guest.asm.csr(Op::Csrrsi, ZERO, number::MSTATUS, MIE as u8);
                next(guest)
            });
            guest.clear_csr(number::MIE, disable);
        }
        guest.set_csr(number::MSTATUS, MIE);
        guest.check_bits(number::MSTATUS, MIE, MIE, "nothing is left to be taken");
    }

    /// 3.1.9: a delegated interrupt is taken in S-mode or below only, after those of M.
    fn delegated_interrupts_are_taken_in_s_mode(guest) {
        let handler = guest.supervisor_handler();
        guest.write_csr(number::MIDELEG, 0x222);
        guest.write_csr(number::MIE, 0x222);
        guest.write_csr(number::MIP, 1 << 1);
        guest.set_csr(number::MSTATUS, MIE | SIE);
        guest.check_bits(number::MIP, 2, 2, "M-mode goes on");
        guest.clear_csr(number::MSTATUS, MIE);
        for (bit, cause) in [(1 << 9, 9u64), (1 << 1, 1), (1 << 5, 5)] {
            guest.write_csr(number::MIP, bit);
            for mode in [Mode::User, Mode::Supervisor] {
                guest.set_csr(number::MSTATUS, SIE);
                guest.supervisor_traps(handler, mode, 1 << 63 | cause, 0, "delegated", next);
            }
            // U-mode: SIE does not matter
            guest.clear_csr(number::MSTATUS, SIE);
            guest.supervisor_traps(handler, Mode::User, 1 << 63 | cause, 0, "delegated, U", next);
            // S-mode without SIE: not taken
            guest.clear_csr(number::MSTATUS, SIE);
            guest.instruction_traps(Mode::Supervisor, 9, 0, "SIE off", |asm| asm.word(0x73));
        }
        // one of M comes first
        guest.poke(CLINT_MSIP, 4, 1);
        guest.set_csr(number::MIE, 1 << 3);
        guest.set_csr(number::MSTATUS, SIE);
        guest.interrupts(Mode::Supervisor, 3, "M first", next);
    }

    fn s_mode_enables_its_own_interrupts_at_once(guest) {
        let handler = guest.supervisor_handler();
        guest.write_csr(number::MIDELEG, 0x222);
        guest.write_csr(number::MIP, 2);
        guest.supervisor_traps(handler, Mode::Supervisor, 1 << 63 | 1, 0, "sstatus.SIE", |guest| {
            guest.asm.csr(Op::Csrrsi, ZERO, number::SIE, 2);
            guest.asm.csr(Op::Csrrsi, ZERO, number::SSTATUS, 2);
            next(guest)
        });
        guest.write_csr(number::MIP, 0);
        guest.clear_csr(number::MSTATUS, SIE);
        guest.supervisor_traps(handler, Mode::Supervisor, 1 << 63 | 1, 0, "sip.SSIP", |guest| {
            guest.asm.csr(Op::Csrrsi, ZERO, number::SSTATUS, 2);
            guest.asm.csr(Op::Csrrsi, ZERO, number::SIP, 2);
            next(guest)
        });
        guest.clear_csr(number::MSTATUS, SIE);
        guest.supervisor_traps(handler, Mode::Supervisor, 1 << 63 | 1, 0, "sret", |guest| {
            guest.set_csr(number::SSTATUS, 1 << 5 | 1 << 8);
            let target = guest.asm.label();
            guest.asm.la(S8, target);
            guest.asm.csr(Op::Csrrw, ZERO, number::SEPC, S8);
            guest.asm.op(Op::Sret, 0, 0, 0, 0);
            guest.asm.bind(target);
            next(guest)
        });
    }

    /// 3.1.7: vectored interrupts go to BASE + 4 x cause.
    fn vectored_interrupts_go_to_their_entries(guest) {
        let (table, past) = (guest.asm.label(), guest.asm.label());
        let stub = guest.asm.label();
        guest.asm.jal(ZERO, past);
        guest.asm.align(64);
        guest.asm.bind(table);
        for _ in 0..12 {
            guest.asm.jal(A0, stub); // a0 says which entry
        }
        guest.asm.bind(stub);
        guest.asm.csr(Op::Csrrw, ZERO, number::MTVEC, S0);
        guest.asm.i(Op::Jalr, ZERO, S0, 0);
        guest.asm.bind(past);
        guest.write_csr(number::MIE, 0xaaa);
        for (cause, bits) in [(1u64, 1 << 1), (5, 1 << 5), (9, 1 << 9), (3, 0), (7, 0)] {
            guest.asm.csr(Op::Csrrs, S0, number::MTVEC, ZERO);
            guest.asm.la(S8, table);
            guest.asm.i(Op::Addi, S8, S8, 1);
            guest.asm.csr(Op::Csrrw, ZERO, number::MTVEC, S8);
            guest.write_csr(number::MIP, bits);
            guest.poke(CLINT_MSIP, 4, u64::from(cause == 3));
            guest.poke(CLINT_MTIMECMP, 8, if cause == 7 { 0 } else { u64::MAX });
            guest.interrupts(Mode::Machine, cause, "vectored", |guest| {
                guest.asm.csr(Op::Csrrsi, ZERO, number::MSTATUS, MIE as u8);
                next(guest)
            });
            guest.check(A0, Expected::Beyond(table, 4 * cause + 4), format!("entry {cause}"));
        }
    }

    /// The address of an entry is a number modulo 2^64 like any other.
    fn a_vector_at_the_end_of_the_address_space_wraps(guest) {
        guest.write_csr(number::MIDELEG, 2);
        guest.write_csr(number::MIE, 2);
        guest.write_csr(number::STVEC, u64::MAX - 2); // vectored, base 2^64 - 4
        guest.write_csr(number::MIP, 2);
        guest.traps(Mode::User, 1, 0, "the fetch from entry 1", |guest| {
            next(guest);
            0 // the interrupt goes to address 0, where nothing is
        });
        guest.check_csr(number::SCAUSE, 1 << 63 | 1, "scause");
    }

    fn the_machine_timer_fires_when_time_comes_to_mtimecmp(guest) {
        guest.write_csr(number::MIE, 1 << 7);
        guest.poke(CLINT_MTIMECMP, 8, u64::MAX);
        guest.check_bits(number::MIP, 1 << 7, 0, "before");
        guest.asm.csr(Op::Csrrs, A0, number::TIME, ZERO);
        guest.asm.i(Op::Addi, A0, A0, 100);
        guest.asm.li(A1, CLINT_MTIMECMP);
        guest.asm.store(Op::Sd, A0, A1, 0);
        // spin until MTIP shows, without the interrupt
        let top = guest.asm.bound_label();
        guest.asm.csr(Op::Csrrs, A3, number::TIME, ZERO);
        guest.asm.csr(Op::Csrrs, A2, number::MIP, ZERO);
        guest.asm.i(Op::Andi, A2, A2, 0x80);
        guest.asm.branch(Op::Beq, A2, ZERO, top);
        guest.asm.r(Op::Sub, A4, A3, A0);
        guest.asm.i(Op::Addi, A4, A4, 1); // time was read one instruction before mip
        guest.asm.i(Op::Sltiu, A4, A4, 2);
        guest.check(A4, 1, "MTIP is set in the tick of mtimecmp");
        guest.asm.li(A1, CLINT_MTIME);
        guest.asm.csr(Op::Csrrs, A0, number::TIME, ZERO);
        guest.asm.i(Op::Ld, A2, A1, 0);
        guest.asm.r(Op::Sub, A2, A2, A0);
        guest.asm.i(Op::Sltiu, A2, A2, 2);
        guest.check(A2, 1, "mtime and time are the same clock");
        guest.poke(CLINT_MTIMECMP, 8, u64::MAX);
        guest.check_bits(number::MIP, 1 << 7, 0, "a later mtimecmp takes MTIP away");
        // and as an interrupt, in the middle of a loop
        guest.set_csr(number::MSTATUS, MIE);
        guest.asm.csr(Op::Csrrs, A0, number::TIME, ZERO);
        guest.asm.i(Op::Addi, A0, A0, 77);
        guest.asm.li(A1, CLINT_MTIMECMP);
        guest.interrupts(Mode::Machine, 7, "mtimecmp", |guest| {
            guest.asm.store(Op::Sd, A0, A1, 0);
            let forever = guest.asm.bound_label();
            guest.asm.jal(ZERO, forever);
            forever
        });
        guest.asm.csr(Op::Csrrs, A2, number::TIME, ZERO);
        guest.asm.r(Op::Sub, A2, A2, A0);
        guest.asm.i(Op::Sltiu, A2, A2, 3);
        guest.check(A2, 1, "taken within the handler's few instructions");
    }

    /// Sstc, 2.1: stimecmp drives STIP where menvcfg.STCE is set; mip.STIP is read-only then.
    fn stimecmp_drives_stip(guest) {
        guest.check_csr(number::STIMECMP, u64::MAX, "M-mode reaches stimecmp");
        guest.write_csr(number::STIMECMP, 0);
        guest.check_bits(number::MIP, 1 << 5, 0, "without STCE nothing happens");
        guest.write_csr(number::MIP, 1 << 5);
        guest.check_bits(number::MIP, 1 << 5, 1 << 5, "without STCE software writes STIP");
        guest.write_csr(number::MENVCFG, STCE);
        guest.write_csr(number::STIMECMP, u64::MAX);
        guest.check_bits(number::MIP, 1 << 5, 0, "with STCE only the comparison counts");
        guest.set_csr(number::MIP, 1 << 5);
        guest.check_bits(number::MIP, 1 << 5, 0, "STIP cannot be set");
        guest.write_csr(number::STIMECMP, 0);
        guest.check_bits(number::MIP, 1 << 5, 1 << 5, "time >= stimecmp");
        guest.clear_csr(number::MIP, 1 << 5);
        guest.check_bits(number::MIP, 1 << 5, 1 << 5, "STIP cannot be cleared");
        let handler = guest.supervisor_handler();
        guest.write_csr(number::MCOUNTEREN, 2);
        guest.write_csr(number::MIDELEG, 1 << 5);
        guest.write_csr(number::MIE, 1 << 5);
        guest.write_csr(number::STIMECMP, u64::MAX);
        guest.set_csr(number::MSTATUS, SIE);
        guest.supervisor_traps(handler, Mode::Supervisor, 1 << 63 | 5, 0, "stimecmp", |guest| {
            guest.asm.csr(Op::Csrrs, A0, number::TIME, ZERO);
            guest.asm.i(Op::Addi, A0, A0, 50);
            guest.asm.csr(Op::Csrrw, ZERO, number::STIMECMP, A0);
            let forever = guest.asm.bound_label();
            guest.asm.jal(ZERO, forever);
            forever
        });
        // a stimecmp of now fires before the next instruction
        guest.write_csr(number::STIMECMP, u64::MAX);
        guest.set_csr(number::MSTATUS, SIE);
        guest.supervisor_traps(handler, Mode::Supervisor, 1 << 63 | 5, 0, "stimecmp = 0", |guest| {
            guest.asm.csr(Op::Csrrwi, ZERO, number::STIMECMP, 0);
            next(guest)
        });
        guest.check_bits(number::MIP, 1 << 5, 1 << 5, "pending");
        guest.write_csr(number::MENVCFG, 0);
        guest.check_bits(number::MIP, 1 << 5, 1 << 5, "what software wrote shows again");
    }

    /// Sstc, 2.1.1 and 2.2: S-mode needs mcounteren.TM and menvcfg.STCE.
    fn s_mode_reaches_stimecmp_only_if_allowed(guest) {
        for (envcfg, counteren, allowed) in [(0, 0, false), (STCE, 0, false), (0, 2, false), (STCE, 2, true)] {
            guest.write_csr(number::MENVCFG, envcfg);
            guest.write_csr(number::MCOUNTEREN, counteren);
            let (cause, value) = if allowed { (9, 0) } else { (2, 0x14d0_2573) };
            guest.traps(Mode::Supervisor, cause, value, "csrr a0, stimecmp", |guest| {
                let pc = guest.asm.bound_label();
                guest.asm.csr(Op::Csrrs, A0, number::STIMECMP, ZERO);
                let call = guest.asm.bound_label();
                guest.asm.op(Op::Ecall, 0, 0, 0, 0);
                if allowed { call } else { pc }
            });
        }
    }

    /// 3.3.3: wfi waits for an interrupt that mie enables, whatever mstatus says.
    fn wfi_goes_on_when_an_enabled_interrupt_is_pending(guest) {
        guest.tests(Op::Wfi);
        guest.write_csr(number::MIE, 1 << 7);
        guest.asm.csr(Op::Csrrs, A0, number::TIME, ZERO);
        guest.asm.li(A1, 1_000_000);
        guest.asm.r(Op::Add, A0, A0, A1);
        guest.asm.li(A1, CLINT_MTIMECMP);
        guest.asm.store(Op::Sd, A0, A1, 0);
        guest.asm.op(Op::Wfi, 0, 0, 0, 0);
        guest.asm.csr(Op::Csrrs, A2, number::TIME, ZERO);
        guest.asm.r(Op::Sub, A2, A2, A0);
        guest.asm.i(Op::Sltiu, A2, A2, 2);
        guest.check(A2, 1, "it woke in the tick of the timer");
        guest.check_bits(number::MIP, 1 << 7, 1 << 7, "and took no interrupt");
        guest.asm.op(Op::Wfi, 0, 0, 0, 0);
        guest.check_bits(number::MIP, 1 << 7, 1 << 7, "a pending one: wfi does not wait");
        // with MIE the interrupt is taken behind the wfi
        guest.asm.csr(Op::Csrrs, A0, number::TIME, ZERO);
        guest.asm.li(A2, 1_000_000);
        guest.asm.r(Op::Add, A0, A0, A2);
        guest.asm.store(Op::Sd, A0, A1, 0);
        guest.set_csr(number::MSTATUS, MIE);
        guest.interrupts(Mode::Machine, 7, "behind wfi", |guest| {
            guest.asm.op(Op::Wfi, 0, 0, 0, 0);
            next(guest)
        });
        // in S-mode, with a timer that is not delegated
        guest.asm.csr(Op::Csrrs, A0, number::TIME, ZERO);
        guest.asm.r(Op::Add, A0, A0, A2);
        guest.asm.store(Op::Sd, A0, A1, 0);
        guest.interrupts(Mode::Supervisor, 7, "wfi in S", |guest| {
            guest.asm.op(Op::Wfi, 0, 0, 0, 0);
            next(guest)
        });
    }

    /// 3.1.9: a read-modify-write of mip uses the bit that software wrote, not the PLIC's line.
    fn setting_a_bit_of_mip_keeps_the_others(guest) {
        guest.write_csr(number::MIP, 0x222);
        guest.clear_csr(number::MIP, 0x20);
        guest.check_bits(number::MIP, 0xfff, 0x202, "csrc");
        guest.asm.csr(Op::Csrrsi, A0, number::MIP, 0x1f);
        guest.check_bits(number::MIP, 0xfff, 0x202, "csrsi: only SSIP of these bits is writable");
    }
}
