//! Two harts: what one stores, the other sees, whatever either has cached (unprivileged
//! specification, 14.1; privileged specification, 3.1.5 and 3.2).

use crate::assembler::{Assembler, register::*};
use crate::guest::{Guest, Mode, SCRATCH, guests};
use riscv::hart::csr::number;
use riscv::isa::Op;

/// The word by which the harts take turns.
const TURN: u64 = SCRATCH + 0x8000;
const CLINT_MSIP_1: u64 = 0x200_0004;
const MPRV_SUPERVISOR: u64 = 1 << 17 | 1 << 11;

/// Stores `value` at `address`; uses t0 and t1.
fn poke(asm: &mut Assembler, address: u64, value: u64) {
    asm.li(T0, address);
    asm.li(T1, value);
    asm.store(Op::Sd, T1, T0, 0);
}

fn give_turn(asm: &mut Assembler, turn: u64) {
    poke(asm, TURN, turn);
}

fn await_turn(asm: &mut Assembler, turn: u64) {
    asm.li(T0, TURN);
    asm.li(T1, turn);
    let top = asm.bound_label();
    asm.op(Op::Pause, 0, 0, 0, 0);
    asm.i(Op::Ld, T2, T0, 0);
    asm.branch(Op::Bne, T2, T1, top);
}

/// The instructions that the first hart has executed when `wait` has come to its end are few: its
/// turn ended at once.
fn waits_a_moment(guest: &mut Guest, wait: impl FnOnce(&mut Assembler)) {
    guest.asm.csr(Op::Csrrs, A1, number::MINSTRET, ZERO);
    wait(&mut guest.asm);
    guest.asm.csr(Op::Csrrs, A2, number::MINSTRET, ZERO);
    guest.asm.r(Op::Sub, A1, A2, A1);
    guest.asm.i(Op::Sltiu, A1, A1, 200);
    guest.check(A1, 1, "it does not run its slice to the end");
}

/// A loop of `instructions`.
fn compute(asm: &mut Assembler, instructions: u64) {
    asm.li(T3, instructions / 2);
    let top = asm.bound_label();
    asm.i(Op::Addi, T3, T3, -1);
    asm.branch(Op::Bne, T3, ZERO, top);
}

/// `addi a0, a0, immediate; ret`.
fn code(immediate: u64) -> u64 {
    0x0000_8067_0005_0513 | immediate << 20
}

fn call(guest: &mut Guest, address: u64) {
    guest.asm.li(A0, 0);
    guest.asm.li(A5, address);
    guest.asm.i(Op::Jalr, RA, A5, 0);
}

guests! {
    /// The second hart has stored to the page before the first executed it.
    fn a_hart_changes_what_another_executes(guest) {
        guest.tests(Op::FenceI);
        guest.on_a_second_hart(|asm| {
            poke(asm, SCRATCH, code(1));
            give_turn(asm, 1);
            for turn in [2, 4, 6] {
                await_turn(asm, turn);
                poke(asm, SCRATCH, code(turn * 10));
                give_turn(asm, turn + 1);
            }
        });
        await_turn(&mut guest.asm, 1);
        call(guest, SCRATCH);
        guest.check(A0, 1, "what it stored first");
        for turn in [2, 4, 6] {
            give_turn(&mut guest.asm, turn);
            await_turn(&mut guest.asm, turn + 1);
            call(guest, SCRATCH);
            guest.check(A0, turn * 10, format!("turn {turn}"));
        }
    }

    /// The second hart has stored to the page before the first walked it.
    fn a_hart_changes_the_page_table_of_another(guest) {
        guest.tests(Op::SfenceVma);
        let leaf = |page: u64| ((SCRATCH + page * 4096) >> 12) << 10 | 0xcf;
        let (root, middle, leaves) = (SCRATCH, SCRATCH + 0x1000, SCRATCH + 0x2000);
        guest.on_a_second_hart(|asm| {
            poke(asm, root, (middle >> 12) << 10 | 1);
            poke(asm, middle, (leaves >> 12) << 10 | 1);
            poke(asm, leaves, leaf(4));
            give_turn(asm, 1);
            for turn in [2, 4, 6] {
                await_turn(asm, turn);
                poke(asm, leaves, leaf(4 + turn / 2));
                give_turn(asm, turn + 1);
            }
        });
        for page in 4..8 {
            guest.poke(SCRATCH + page * 4096, 8, page);
        }
        guest.write_csr(number::SATP, 8 << 60 | root >> 12);
        await_turn(&mut guest.asm, 1);
        let load = |guest: &mut Guest, expected: u64| {
            guest.asm.li(A6, MPRV_SUPERVISOR);
            guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A6);
            guest.asm.i(Op::Ld, A0, ZERO, 0);
            guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
            guest.check(A0, expected, format!("page {expected}"));
        };
        guest.clear_csr(number::MSTATUS, 3 << 11);
        load(guest, 4);
        for turn in [2, 4, 6] {
            give_turn(&mut guest.asm, turn);
            await_turn(&mut guest.asm, turn + 1);
            load(guest, 4 + turn / 2);
        }
    }

    /// 14.2: SC fails if another hart has stored to what LR reserved.
    fn a_store_of_another_hart_ends_a_reservation(guest) {
        guest.on_a_second_hart(|asm| {
            await_turn(asm, 1);
            poke(asm, SCRATCH, 5);
            give_turn(asm, 2);
        });
        guest.asm.li(A0, SCRATCH);
        guest.asm.op(Op::LrD, A1, A0, ZERO, 0);
        give_turn(&mut guest.asm, 1);
        await_turn(&mut guest.asm, 2);
        guest.asm.op(Op::ScD, A2, A0, A1, 0);
        guest.check(A2, 1, "sc fails");
        guest.check_memory(SCRATCH, 5, "what the other stored");
    }

    fn atomic_additions_of_two_harts_add_up(guest) {
        const TIMES: u64 = 60_000; // more than a hart's turn
        let add = |asm: &mut Assembler| {
            asm.li(A0, SCRATCH);
            asm.li(A1, TIMES);
            asm.li(A2, 1);
            let top = asm.bound_label();
            asm.op(Op::AmoaddD, ZERO, A0, A2, 0);
            let retry = asm.bound_label();
            asm.i(Op::Addi, A3, A0, 8);
            asm.op(Op::LrW, A4, A3, ZERO, 0);
            asm.i(Op::Addi, A4, A4, 1);
            asm.op(Op::ScW, A5, A3, A4, 0);
            asm.branch(Op::Bne, A5, ZERO, retry);
            asm.i(Op::Addi, A1, A1, -1);
            asm.branch(Op::Bne, A1, ZERO, top);
        };
        guest.on_a_second_hart(|asm| {
            add(asm);
            give_turn(asm, 1);
        });
        add(&mut guest.asm);
        await_turn(&mut guest.asm, 1);
        guest.check_memory(SCRATCH, 2 * TIMES, "amoadd");
        guest.check_memory(SCRATCH + 8, 2 * TIMES, "lr and sc");
    }

    /// 3.2.1: each hart has its own software interrupt; wfi ends with it.
    fn a_software_interrupt_wakes_another_hart(guest) {
        guest.on_a_second_hart(|asm| {
            asm.li(T0, 1 << 3);
            asm.csr(Op::Csrrw, ZERO, number::MIE, T0);
            give_turn(asm, 1);
            asm.op(Op::Wfi, 0, 0, 0, 0);
            asm.csr(Op::Csrrs, T3, number::MIP, ZERO);
            asm.li(T0, SCRATCH);
            asm.store(Op::Sd, T3, T0, 0);
            asm.csr(Op::Csrrs, T3, number::MHARTID, ZERO);
            asm.store(Op::Sd, T3, T0, 8);
            give_turn(asm, 2);
        });
        await_turn(&mut guest.asm, 1);
        guest.poke(CLINT_MSIP_1, 4, 1);
        guest.check_bits(number::MIP, 1 << 3, 0, "not its own");
        await_turn(&mut guest.asm, 2);
        guest.check_memory(SCRATCH, crate::guest::Expected::Bits(1 << 3, 1 << 3), "mip of the other");
        guest.check_memory(SCRATCH + 8, 1, "its mhartid");
        guest.traps(Mode::Machine, 11, 0, "the first hart goes on", |guest| {
            let pc = guest.asm.bound_label();
            guest.asm.op(Op::Ecall, 0, 0, 0, 0);
            pc
        });
    }

    /// Zihintpause: who waits for another hart lets it run.
    fn pause_ends_the_turn_of_a_hart(guest) {
        guest.tests(Op::Pause);
        guest.on_a_second_hart(|asm| {
            for turn in [1, 3, 5] {
                await_turn(asm, turn);
                compute(asm, 10_000);
                give_turn(asm, turn + 1);
            }
        });
        for turn in [1, 3, 5] {
            give_turn(&mut guest.asm, turn);
            waits_a_moment(guest, |asm| await_turn(asm, turn + 1));
        }
    }

    /// As OpenSBI does: the other hart is called, and its answer awaited in a loop without `pause`.
    fn a_software_interrupt_for_another_hart_ends_the_turn(guest) {
        guest.on_a_second_hart(|asm| {
            asm.li(T0, 1 << 3);
            asm.csr(Op::Csrrw, ZERO, number::MIE, T0);
            for turn in [1, 2, 3] {
                asm.op(Op::Wfi, 0, 0, 0, 0);
                compute(asm, 10_000);
                asm.li(T0, CLINT_MSIP_1);
                asm.store(Op::Sw, ZERO, T0, 0);
                give_turn(asm, turn);
            }
        });
        for turn in [1, 2, 3] {
            guest.poke(CLINT_MSIP_1, 4, 1);
            waits_a_moment(guest, |asm| {
                asm.li(T0, TURN);
                asm.li(T1, turn);
                let top = asm.bound_label();
                asm.i(Op::Ld, T2, T0, 0);
                asm.branch(Op::Bne, T2, T1, top);
            });
        }
    }

    /// 3.7: each hart has its own PMP. What one found by a translation is no right of the other.
    fn a_hart_may_not_read_what_another_has_read(guest) {
        const MPP: u64 = 3 << 11;
        const READ_WRITE_EXECUTE_NAPOT: u64 = 0x1f;
        const NOTHING_NAPOT: u64 = 0x18;
        let protect = |asm: &mut Assembler, address: u64, configuration: u64| {
            asm.li(T0, address);
            asm.csr(Op::Csrrw, ZERO, number::PMPADDR0, T0);
            asm.li(T0, u64::MAX);
            asm.csr(Op::Csrrw, ZERO, number::PMPADDR0 + 1, T0);
            asm.li(T0, configuration);
            asm.csr(Op::Csrrw, ZERO, number::PMPCFG0, T0);
        };
        let read = |asm: &mut Assembler| {
            asm.li(A6, MPP);
            asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
            asm.li(A6, MPRV_SUPERVISOR);
            asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A6);
            asm.li(A0, SCRATCH);
            let pc = asm.bound_label();
            asm.i(Op::Ld, A1, A0, 0);
            asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
            pc
        };
        guest.on_a_second_hart(|asm| {
            protect(asm, 0, READ_WRITE_EXECUTE_NAPOT << 8);
            for turn in [1, 3, 5] {
                await_turn(asm, turn);
                asm.li(T4, 40); // it becomes hot
                let top = asm.bound_label();
                read(asm);
                asm.i(Op::Addi, T4, T4, -1);
                asm.branch(Op::Bne, T4, ZERO, top);
                give_turn(asm, turn + 1);
            }
        });
        let page = SCRATCH >> 2 | 0x1ff;
        protect(&mut guest.asm, page, READ_WRITE_EXECUTE_NAPOT << 8 | NOTHING_NAPOT);
        for turn in [1, 3, 5] {
            give_turn(&mut guest.asm, turn);
            await_turn(&mut guest.asm, turn + 1);
            let what = format!("turn {turn}");
            guest.traps(Mode::Machine, 5, SCRATCH, &what, |guest| read(&mut guest.asm));
            guest.clear_csr(number::MSTATUS, MPRV_SUPERVISOR);
        }
    }

    /// A counter of a hart stands still while the other runs.
    fn counters_belong_to_their_hart(guest) {
        guest.on_a_second_hart(|asm| {
            let forever = asm.bound_label();
            asm.jal(ZERO, forever);
        });
        guest.asm.li(A0, 250_000); // more than a hart's turn
        guest.asm.csr(Op::Csrrs, A1, number::MINSTRET, ZERO);
        guest.asm.csr(Op::Csrrs, A3, number::MCYCLE, ZERO);
        let top = guest.asm.bound_label();
        guest.asm.i(Op::Addi, A0, A0, -1);
        guest.asm.branch(Op::Bne, A0, ZERO, top);
        guest.asm.csr(Op::Csrrs, A2, number::MINSTRET, ZERO);
        guest.asm.csr(Op::Csrrs, A4, number::MCYCLE, ZERO);
        guest.asm.r(Op::Sub, A1, A2, A1);
        guest.asm.r(Op::Sub, A3, A4, A3);
        guest.check(A1, 500_002, "minstret");
        guest.check(A3, 500_002, "mcycle");
    }
}
