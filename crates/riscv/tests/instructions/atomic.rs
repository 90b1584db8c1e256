//! A: LR/SC and AMOs (unprivileged specification, 14).

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, SCRATCH, guests};
use crate::operands::{EDGES, signed, signed_word, wrap, wrap_word};
use riscv::isa::Op;

pub const DOUBLE: &[Op] = &[
    Op::AmoswapD,
    Op::AmoaddD,
    Op::AmoxorD,
    Op::AmoandD,
    Op::AmoorD,
    Op::AmominD,
    Op::AmomaxD,
    Op::AmominuD,
    Op::AmomaxuD,
];
pub const WORD: &[Op] = &[
    Op::AmoswapW,
    Op::AmoaddW,
    Op::AmoxorW,
    Op::AmoandW,
    Op::AmoorW,
    Op::AmominW,
    Op::AmomaxW,
    Op::AmominuW,
    Op::AmomaxuW,
];

/// What an AMO on double-words leaves in memory.
pub fn double_result(op: Op, old: u64, source: u64) -> u64 {
    let smaller = |condition: bool| if condition { old } else { source };
    match op {
        Op::AmoswapD => source,
        Op::AmoaddD => wrap(signed(old) + signed(source)),
        Op::AmoxorD => (old | source) - (old & source),
        Op::AmoandD => !(!old | !source),
        Op::AmoorD => !(!old & !source),
        Op::AmominD => smaller(signed(old) < signed(source)),
        Op::AmomaxD => smaller(signed(old) > signed(source)),
        Op::AmominuD => smaller(old < source),
        Op::AmomaxuD => smaller(old > source),
        _ => unreachable!("{op:?} is in no table"),
    }
}

/// What an AMO on words leaves in memory: the operation on the low halves.
pub fn word_result(op: Op, old: u32, source: u32) -> u32 {
    let (a, b) = (signed_word(old.into()), signed_word(source.into()));
    let result = match op {
        Op::AmoswapW => b,
        Op::AmoaddW => a + b,
        Op::AmoxorW => (a | b) - (a & b),
        Op::AmoandW => !(!a | !b),
        Op::AmoorW => !(!a & !b),
        Op::AmominW => a.min(b),
        Op::AmomaxW => a.max(b),
        Op::AmominuW => i128::from(old.min(source)),
        _ => i128::from(old.max(source)),
    };
    wrap_word(result) as u32
}

/// Puts `value` at the scratch address, which a0 points at.
fn place(guest: &mut Guest, address: u64, value: u64) {
    guest.asm.li(A0, address);
    guest.asm.li(A1, value);
    guest.asm.store(Op::Sd, A1, A0, 0);
}

guests! {
    fn amos_on_double_words(guest) {
        for (turn, &op) in DOUBLE.iter().enumerate() {
            guest.tests(op);
            for &old in EDGES {
                for &source in EDGES {
                    place(guest, SCRATCH, old);
                    guest.asm.li(A2, source);
                    // aq and rl in all combinations; rd = rs2 in some
                    let rd = if old == source { A2 } else { A3 };
                    guest.asm.op(op, rd, A0, A2, turn as i32 & 3);
                    let what = format!("{op:?} {old:#x}, {source:#x}");
                    guest.check(rd, old, format!("{what}: rd"));
                    guest.check_memory(SCRATCH, double_result(op, old, source), what);
                }
            }
        }
    }

    fn amos_on_words_sign_extend_and_leave_the_neighbour(guest) {
        const NEIGHBOUR: u64 = 0x5555_aaaa;
        for &op in WORD {
            guest.tests(op);
            for &old in EDGES {
                for &source in EDGES {
                    let (low, high) = if old & 2 == 0 { (old, NEIGHBOUR) } else { (NEIGHBOUR, old) };
                    place(guest, SCRATCH, (high << 32) | (low & 0xffff_ffff));
                    guest.asm.i(Op::Addi, A0, A0, if old & 2 == 0 { 0 } else { 4 });
                    guest.asm.li(A2, source);
                    guest.asm.op(op, A3, A0, A2, 3);
                    let what = format!("{op:?} {old:#x}, {source:#x}");
                    guest.check(A3, wrap_word(signed_word(old)), format!("{what}: rd"));
                    let new = u64::from(word_result(op, old as u32, source as u32));
                    let (low, high) = if old & 2 == 0 { (new, NEIGHBOUR) } else { (NEIGHBOUR, new) };
                    guest.check_memory(SCRATCH, (high << 32) | low, what);
                }
            }
        }
    }

    fn an_amo_to_x0_and_one_through_rd(guest) {
        place(guest, SCRATCH, 40);
        guest.asm.li(A2, 2);
        guest.asm.op(Op::AmoaddD, ZERO, A0, A2, 0);
        guest.check_memory(SCRATCH, 42, "amoadd.d x0");
        guest.check(ZERO, 0, "x0");
        guest.asm.op(Op::AmoaddD, A0, A0, A2, 0);
        guest.check(A0, 42, "rd = rs1");
        guest.check_memory(SCRATCH, 44, "rd = rs1: memory");
    }

    fn sc_succeeds_after_lr_and_only_once(guest) {
        for (lr, sc, value) in [(Op::LrW, Op::ScW, 0x8000_0001), (Op::LrD, Op::ScD, 1 << 63)] {
            guest.tests(lr);
            guest.tests(sc);
            place(guest, SCRATCH, value);
            guest.asm.li(A2, 77);
            guest.asm.op(lr, A3, A0, ZERO, 2);
            let loaded = if lr == Op::LrW { wrap_word(signed_word(value)) } else { value };
            guest.asm.op(sc, A4, A0, A2, 1);
            guest.check(A3, loaded, "lr");
            guest.check(A4, 0, "sc succeeds");
            guest.check_memory(SCRATCH, 77, "sc stored");
            guest.asm.li(A2, 78);
            guest.asm.op(sc, A4, A0, A2, 0);
            guest.check(A4, 1, "a second sc fails");
            guest.check_memory(SCRATCH, 77, "and stores nothing");
        }
    }

    fn sc_fails_at_another_address_and_ends_the_reservation(guest) {
        place(guest, SCRATCH + 64, 1);
        place(guest, SCRATCH, 1);
        guest.asm.li(A5, SCRATCH + 64);
        guest.asm.li(A2, 9);
        guest.asm.op(Op::LrD, A3, A0, ZERO, 0);
        guest.asm.op(Op::ScD, A4, A5, A2, 0);
        guest.check(A4, 1, "sc elsewhere fails");
        guest.asm.op(Op::ScD, A4, A0, A2, 0);
        guest.check(A4, 1, "sc after a failed sc fails");
        guest.check_memory(SCRATCH, 1, "memory");
        guest.check_memory(SCRATCH + 64, 1, "memory elsewhere");
    }

    /// 14.2: a trap between LR and SC; this machine ends every reservation at a trap.
    fn a_trap_ends_the_reservation(guest) {
        place(guest, SCRATCH, 1);
        guest.asm.op(Op::LrD, A3, A0, ZERO, 0);
        guest.instruction_traps(Mode::Machine, 11, 0, "ecall", |asm| {
            asm.op(Op::Ecall, 0, 0, 0, 0);
        });
        guest.asm.op(Op::ScD, A4, A0, A3, 0);
        guest.check(A4, 1, "sc");
    }

    /// 14.2: sc.w x0-like results: rd may be rs1 or rs2.
    fn sc_may_overwrite_its_sources(guest) {
        place(guest, SCRATCH, 5);
        guest.asm.op(Op::LrD, A3, A0, ZERO, 0);
        guest.asm.i(Op::Addi, A3, A3, 1);
        guest.asm.op(Op::ScD, A3, A0, A3, 0);
        guest.check(A3, 0, "rd = rs2");
        guest.check_memory(SCRATCH, 6, "stored the old rs2");
        guest.asm.op(Op::LrD, A3, A0, ZERO, 0);
        guest.asm.op(Op::ScD, A0, A0, A3, 0);
        guest.check(A0, 0, "rd = rs1");
    }

    /// 14.2 and 14.4: a compare-and-swap loop.
    fn an_lr_sc_loop_makes_progress(guest) {
        place(guest, SCRATCH, 0);
        guest.asm.li(A2, 100);
        let top = guest.asm.bound_label();
        let retry = guest.asm.bound_label();
        guest.asm.op(Op::LrW, A3, A0, ZERO, 2);
        guest.asm.i(Op::Addiw, A3, A3, 3);
        guest.asm.op(Op::ScW, A4, A0, A3, 1);
        guest.asm.branch(Op::Bne, A4, ZERO, retry);
        guest.asm.i(Op::Addi, A2, A2, -1);
        guest.asm.branch(Op::Bne, A2, ZERO, top);
        guest.check_memory(SCRATCH, 300, "a hundred additions of three");
    }

    fn misaligned_atomics_raise_misaligned_exceptions(guest) {
        place(guest, SCRATCH, 0);
        for (ops, bits) in [(WORD, 4), (DOUBLE, 8)] {
            for offset in [1, bits / 2, bits - 1] {
                let address = SCRATCH + offset;
                guest.asm.li(A0, address);
                for &op in ops {
                    guest.instruction_traps(Mode::Machine, 6, address, "amo", |asm| {
                        asm.op(op, A1, A0, A2, 0);
                    });
                }
                let (lr, sc) = if bits == 4 { (Op::LrW, Op::ScW) } else { (Op::LrD, Op::ScD) };
                guest.instruction_traps(Mode::Machine, 4, address, "lr", |asm| {
                    asm.op(lr, A1, A0, ZERO, 0);
                });
                guest.instruction_traps(Mode::Machine, 6, address, "sc", |asm| {
                    asm.op(sc, A1, A0, A2, 0);
                });
            }
        }
    }

    /// Privileged specification, 3.6.3: devices and holes support no atomics.
    fn atomics_outside_ram_raise_access_faults(guest) {
        for address in [0x7000_0000u64, 0x200_0000, 0x1000_0000] {
            guest.asm.li(A0, address);
            guest.instruction_traps(Mode::Machine, 5, address, "lr", |asm| {
                asm.op(Op::LrW, A1, A0, ZERO, 0);
            });
            guest.instruction_traps(Mode::Machine, 7, address, "sc", |asm| {
                asm.op(Op::ScW, A1, A0, A2, 0);
            });
            guest.instruction_traps(Mode::Machine, 7, address, "amo", |asm| {
                asm.op(Op::AmoaddW, A1, A0, A2, 0);
            });
        }
    }
}
