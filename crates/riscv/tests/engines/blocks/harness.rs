//! What surrounds the blocks: it starts each run in its mode and address space with its registers,
//! skips instructions that trap, and ends runs that come to their `ecall` or take too long.

use super::assembler::{Assembler, Label, register::*};
use super::layout::{CHANGED_ENTRIES, CHANGED_FIRST, CONTEXTS, OFFSET_MASK, RUNS, context, run};
use super::tables::{LEAVES, ORIGINALS, UPPER};
use riscv::board::bus::{CLINT_BASE, FINISHER_BASE};
use riscv::hart::csr::{envcfg, number, status};
use riscv::isa::Op;
use riscv::memory::RAM_BASE;

const TIMER_COMPARE: u64 = CLINT_BASE + 0x4000;
/// Registers that the handler uses; T6 points at the hart's context.
const SAVED: [u8; 5] = [T0, T1, T2, T3, T6];
/// MSIE, MTIE and SSIE.
const INTERRUPTS: u64 = 1 << 3 | 1 << 7 | 1 << 1;

struct Labels {
    machine_handler: Label,
    supervisor_handler: Label,
    next_run: Label,
    restore: Label,
    finish: Label,
}

/// Emits it. There are `runs` runs; the second hart begins in the middle.
pub fn emit(asm: &mut Assembler, runs: u64) {
    let labels = Labels {
        machine_handler: asm.label(),
        supervisor_handler: asm.label(),
        next_run: asm.label(),
        restore: asm.label(),
        finish: asm.label(),
    };
    start(asm, &labels, runs);
    asm.align(4);
    machine_handler(asm, &labels);
    asm.align(4);
    asm.bind(labels.supervisor_handler);
    asm.op(Op::Ecall, 0, 0, 0, 0); // the machine's handler moves `sepc` on
    asm.op(Op::Sret, 0, 0, 0, 0);
    asm.op(Op::Jal, ZERO, 0, 0, -4); // TSR trapped it: until the timer comes
    next_run(asm, &labels, runs);
}

fn start(asm: &mut Assembler, labels: &Labels, runs: u64) {
    for (csr, label) in [
        (number::MTVEC, labels.machine_handler),
        (number::STVEC, labels.supervisor_handler),
    ] {
        asm.la(T0, label);
        asm.csr(Op::Csrrw, ZERO, csr, T0);
    }
    for (csr, value) in [
        (number::PMPADDR0 + 7, u64::MAX),
        (number::PMPCFG0, 0x1f << 56),
        (number::MIE, INTERRUPTS),
        (number::MENVCFG, envcfg::CBZE | envcfg::CBCFE | envcfg::CBIE),
        (number::SENVCFG, envcfg::CBZE | envcfg::CBCFE | envcfg::CBIE),
    ] {
        asm.li(T0, value);
        asm.csr(Op::Csrrw, ZERO, csr, T0);
    }
    asm.csr(Op::Csrrs, T1, number::MHARTID, ZERO);
    asm.i(Op::Slli, T0, T1, 12);
    asm.li(T6, CONTEXTS);
    asm.r(Op::Add, T6, T6, T0);
    asm.csr(Op::Csrrw, ZERO, number::MSCRATCH, T6);
    // one before the first run, or before the middle one
    asm.li(T0, RUNS.wrapping_sub(run::BYTES));
    asm.li(T2, runs / 2 * run::BYTES);
    asm.r(Op::Mul, T2, T2, T1);
    asm.r(Op::Add, T0, T0, T2);
    asm.store(Op::Sd, T0, T6, context::RUN);
    asm.jal(ZERO, labels.next_run);
}

fn add_one(asm: &mut Assembler, field: i32) {
    asm.i(Op::Ld, T2, T6, field);
    asm.i(Op::Addi, T2, T2, 1);
    asm.store(Op::Sd, T2, T6, field);
}

/// Counts the cause in T0 among those at `field`. Clobbers T2 and T3.
fn count_cause(asm: &mut Assembler, field: i32) {
    asm.i(Op::Andi, T3, T0, 15);
    asm.i(Op::Slli, T3, T3, 3);
    asm.r(Op::Add, T3, T3, T6);
    asm.i(Op::Ld, T2, T3, field);
    asm.i(Op::Addi, T2, T2, 1);
    asm.store(Op::Sd, T2, T3, field);
}

fn machine_handler(asm: &mut Assembler, labels: &Labels) {
    let (interrupt, not_a_call, end_of_run) = (asm.label(), asm.label(), asm.label());
    asm.bind(labels.machine_handler);
    asm.csr(Op::Csrrw, T6, number::MSCRATCH, T6);
    for (slot, register) in SAVED.into_iter().take(4).enumerate() {
        asm.store(Op::Sd, register, T6, context::SAVED + 8 * slot as i32);
    }
    asm.csr(Op::Csrrw, T0, number::MSCRATCH, T6);
    asm.store(Op::Sd, T0, T6, context::SAVED + 32);
    asm.csr(Op::Csrrs, T0, number::MCAUSE, ZERO);
    asm.branch(Op::Blt, T0, ZERO, interrupt);
    count_cause(asm, context::EXCEPTIONS);
    asm.csr(Op::Csrrs, T1, number::MEPC, ZERO);
    asm.i(Op::Addi, T2, T0, -8);
    asm.i(Op::Sltiu, T2, T2, 4);
    asm.branch(Op::Beq, T2, ZERO, not_a_call);
    asm.i(Op::Ld, T2, T6, context::END);
    asm.branch(Op::Beq, T1, T2, end_of_run);
    asm.la(T2, labels.supervisor_handler);
    asm.branch(Op::Bne, T1, T2, not_a_call);
    // the supervisor's handler: what trapped there is skipped, then the handler returns
    asm.csr(Op::Csrrs, T0, number::SCAUSE, ZERO);
    asm.csr(Op::Csrrs, T1, number::SEPC, ZERO);
    skip_instruction(asm, number::SEPC);
    asm.csr(Op::Csrrs, T1, number::MEPC, ZERO);
    asm.i(Op::Addi, T1, T1, 4);
    asm.csr(Op::Csrrw, ZERO, number::MEPC, T1);
    asm.jal(ZERO, labels.restore);
    asm.bind(not_a_call);
    skip_instruction(asm, number::MEPC);
    asm.bind(labels.restore);
    for (slot, register) in SAVED.into_iter().enumerate() {
        asm.i(Op::Ld, register, T6, context::SAVED + 8 * slot as i32);
    }
    asm.op(Op::Mret, 0, 0, 0, 0);
    asm.bind(end_of_run);
    add_one(asm, context::COMPLETED);
    asm.jal(ZERO, labels.next_run);
    asm.bind(interrupt);
    interrupt_handler(asm, labels);
}

/// Sets `csr` behind the instruction at T1; to the run's end if T0 says that it was not fetched.
fn skip_instruction(asm: &mut Assembler, csr: u16) {
    let (fetched, done, short) = (asm.label(), asm.label(), asm.label());
    // causes 0, 1 and 12
    asm.li(T2, 1 << 0 | 1 << 1 | 1 << 12);
    asm.r(Op::Srl, T2, T2, T0);
    asm.i(Op::Andi, T2, T2, 1);
    asm.branch(Op::Beq, T2, ZERO, fetched);
    asm.i(Op::Ld, T1, T6, context::END);
    asm.jal(ZERO, done);
    asm.bind(fetched);
    asm.li(T2, OFFSET_MASK);
    asm.r(Op::And, T2, T2, T1);
    asm.li(T3, RAM_BASE);
    asm.r(Op::Add, T2, T2, T3);
    asm.i(Op::Lhu, T2, T2, 0);
    asm.i(Op::Addi, T1, T1, 2);
    asm.i(Op::Andi, T2, T2, 3);
    asm.i(Op::Addi, T2, T2, -3);
    asm.branch(Op::Bne, T2, ZERO, short);
    asm.i(Op::Addi, T1, T1, 2);
    asm.bind(short);
    asm.bind(done);
    asm.csr(Op::Csrrw, ZERO, csr, T1);
}

/// The timer ends the run; the others are acknowledged.
fn interrupt_handler(asm: &mut Assembler, labels: &Labels) {
    let other = asm.label();
    count_cause(asm, context::INTERRUPTS);
    asm.i(Op::Andi, T0, T0, 15);
    asm.i(Op::Addi, T0, T0, -7);
    asm.branch(Op::Bne, T0, ZERO, other);
    add_one(asm, context::TIMED_OUT);
    asm.jal(ZERO, labels.next_run);
    asm.bind(other);
    asm.csr(Op::Csrrs, T0, number::MHARTID, ZERO);
    asm.i(Op::Slli, T0, T0, 2);
    asm.li(T1, CLINT_BASE);
    asm.r(Op::Add, T1, T1, T0);
    asm.store(Op::Sw, ZERO, T1, 0);
    asm.csr(Op::Csrrci, ZERO, number::MIP, 2);
    asm.jal(ZERO, labels.restore);
}

fn next_run(asm: &mut Assembler, labels: &Labels, runs: u64) {
    asm.bind(labels.next_run);
    asm.i(Op::Ld, T5, T6, context::RUN);
    asm.i(Op::Addi, T5, T5, run::BYTES as i32);
    asm.store(Op::Sd, T5, T6, context::RUN);
    asm.li(T0, RUNS + runs * run::BYTES);
    asm.branch(Op::Bgeu, T5, T0, labels.finish);
    put_tables_right(asm);
    set_timer(asm);
    asm.i(Op::Ld, T0, T5, run::END);
    asm.store(Op::Sd, T0, T6, context::END);
    let bits = [
        (status::FS | status::MPRV | status::MPP, Op::Csrrc),
        (status::FS, Op::Csrrs),
    ];
    for (bits, op) in bits {
        asm.li(T0, bits);
        asm.csr(op, ZERO, number::MSTATUS, T0);
    }
    for (field, csr) in [
        (run::SPACE, number::SATP),
        (run::DELEGATED, number::MEDELEG),
        (run::FCSR, number::FCSR),
        (run::COUNTERS, number::MCOUNTEREN),
        (run::COUNTERS, number::SCOUNTEREN),
        (run::ENTRY, number::MEPC),
    ] {
        asm.i(Op::Ld, T0, T5, field);
        asm.csr(Op::Csrrw, ZERO, csr, T0);
    }
    for register in 0..32 {
        asm.i(Op::Fld, register, T5, run::FLOATS + 8 * i32::from(register));
    }
    asm.i(Op::Ld, T0, T5, run::STATUS);
    asm.csr(Op::Csrrw, ZERO, number::MSTATUS, T0);
    for register in (1..32).filter(|&register| register != T5).chain([T5]) {
        asm.i(
            Op::Ld,
            register,
            T5,
            run::INTEGERS + 8 * i32::from(register),
        );
    }
    asm.op(Op::Mret, 0, 0, 0, 0);
    asm.bind(labels.finish);
    asm.li(T0, FINISHER_BASE);
    asm.li(T1, 0x5555);
    asm.store(Op::Sw, T1, T0, 0);
    let forever = asm.bound_label();
    asm.jal(ZERO, forever);
}

/// Gives page-table entries that blocks change their first values again.
fn put_tables_right(asm: &mut Assembler) {
    asm.li(T0, ORIGINALS);
    for leaves in LEAVES {
        asm.li(T1, leaves + 8 * CHANGED_FIRST);
        asm.i(Op::Addi, T2, T1, 8 * CHANGED_ENTRIES as i32);
        let top = asm.bound_label();
        asm.i(Op::Ld, T3, T0, 0);
        asm.store(Op::Sd, T3, T1, 0);
        asm.i(Op::Addi, T0, T0, 8);
        asm.i(Op::Addi, T1, T1, 8);
        asm.branch(Op::Bne, T1, T2, top);
    }
    for (address, value) in UPPER {
        asm.li(T0, address);
        asm.li(T1, value);
        asm.store(Op::Sd, T1, T0, 0);
    }
}

fn set_timer(asm: &mut Assembler) {
    asm.csr(Op::Csrrs, T1, number::MHARTID, ZERO);
    asm.i(Op::Slli, T1, T1, 3);
    asm.li(T0, TIMER_COMPARE);
    asm.r(Op::Add, T0, T0, T1);
    asm.csr(Op::Csrrs, T1, number::TIME, ZERO);
    asm.i(Op::Ld, T2, T5, run::TICKS);
    asm.r(Op::Add, T1, T1, T2);
    asm.store(Op::Sd, T1, T0, 0);
}
