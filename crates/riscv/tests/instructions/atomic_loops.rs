//! A (unprivileged specification, 14) in code that runs often: over many operands at one place, in
//! all kinds of pages, with what ends a reservation in between.

use crate::assembler::{Assembler, Label, register::*};
use crate::atomic::{DOUBLE, WORD, double_result, word_result};
use crate::guest::{Expected, Guest, Mode, SCRATCH, guests};
use crate::operands::{EDGES, signed_word, wrap_word};
use riscv::hart::csr::number;
use riscv::isa::Op;

/// A page with data, and one behind it.
const CELL: u64 = SCRATCH + (1 << 20);
const NEXT_PAGE: u64 = CELL + 4096;

/// Registers (rd, rs1, rs2) of an atomic.
const REGISTERS: [(u8, u8, u8); 4] = [(A3, A0, A2), (T3, T4, T5), (A2, A0, A2), (T4, T4, A2)];

/// All pairs of operands, in memory.
fn pairs() -> impl Iterator<Item = (u64, u64)> {
    EDGES
        .iter()
        .flat_map(|&old| EDGES.iter().map(move |&source| (old, source)))
}

/// Calls what `body` emits for each pair, which is in S2 and S3.
fn for_each_pair(guest: &mut Guest, table: Label, body: impl FnOnce(&mut Guest)) {
    guest.asm.la(S4, table);
    guest.asm.li(S5, pairs().count() as u64);
    let top = guest.asm.bound_label();
    guest.asm.i(Op::Ld, S2, S4, 0);
    guest.asm.i(Op::Ld, S3, S4, 8);
    body(guest);
    guest.asm.i(Op::Addi, S4, S4, 16);
    guest.asm.i(Op::Addi, S5, S5, -1);
    guest.asm.branch(Op::Bne, S5, ZERO, top);
}

fn place_pairs(guest: &mut Guest) -> Label {
    let past = guest.asm.label();
    guest.asm.jal(ZERO, past);
    guest.asm.align(8);
    let table = guest.asm.bound_label();
    for (old, source) in pairs() {
        guest.asm.double(old);
        guest.asm.double(source);
    }
    guest.asm.bind(past);
    table
}

/// Stores a register as the next result.
fn put(asm: &mut Assembler, register: u8) {
    asm.store(Op::Sd, register, S9, 0);
    asm.i(Op::Addi, S9, S9, 8);
}

/// An AMO on all pairs, at `CELL` and in the next page by turns.
fn amo_loop(guest: &mut Guest, table: Label, op: Op, registers: (u8, u8, u8)) {
    let (rd, rs1, rs2) = registers;
    guest.asm.li(S6, CELL);
    guest.asm.li(S7, CELL ^ NEXT_PAGE);
    for_each_pair(guest, table, |guest| {
        let asm = &mut guest.asm;
        asm.r(Op::Xor, S6, S6, S7);
        asm.store(Op::Sd, S2, S6, 0);
        asm.i(Op::Addi, rs1, S6, 0);
        asm.i(Op::Addi, rs2, S3, 0);
        asm.op(op, rd, rs1, rs2, 3);
        put(asm, rd);
        asm.i(Op::Ld, S8, S6, 0);
        put(asm, S8);
    });
    for (old, source) in pairs() {
        let what = format!("{op:?} x{rd}, {old:#x}, {source:#x}");
        let (result, left) = if DOUBLE.contains(&op) {
            (old, double_result(op, old, source))
        } else {
            let word = word_result(op, old as u32, source as u32);
            let left = old >> 32 << 32 | u64::from(word);
            (wrap_word(signed_word(old)), left)
        };
        guest.expects(result, format!("{what}: rd"));
        guest.expects(left, what);
    }
}

/// One instruction and an `ecall`, to be jumped to.
fn place_code(guest: &mut Guest, emit: impl FnOnce(&mut Assembler)) -> Label {
    let past = guest.asm.label();
    guest.asm.jal(ZERO, past);
    let label = guest.asm.bound_label();
    emit(&mut guest.asm);
    guest.asm.op(Op::Ecall, 0, 0, 0, 0);
    guest.asm.bind(past);
    label
}

guests! {
    fn amos_on_double_words_in_loops(guest) {
        let table = place_pairs(guest);
        for (turn, &op) in DOUBLE.iter().enumerate() {
            amo_loop(guest, table, op, REGISTERS[turn % 4]);
            amo_loop(guest, table, op, REGISTERS[(turn + 1) % 4]);
        }
    }

    fn amos_on_words_in_loops(guest) {
        let table = place_pairs(guest);
        for (turn, &op) in WORD.iter().enumerate() {
            amo_loop(guest, table, op, REGISTERS[turn % 4]);
            amo_loop(guest, table, op, REGISTERS[(turn + 1) % 4]);
        }
    }

    /// The machine is replaced by a restored one now and then: every page is clean again.
    fn a_counter_survives_restored_machines(guest) {
        guest.also_restored_every(777);
        guest.poke(CELL, 8, 0);
        guest.asm.li(A0, CELL);
        guest.asm.li(A2, 3000);
        guest.asm.li(A1, 1);
        let top = guest.asm.bound_label();
        guest.asm.op(Op::AmoaddW, A3, A0, A1, 0);
        guest.asm.op(Op::LrD, A4, A0, ZERO, 0);
        guest.asm.i(Op::Addi, A4, A4, 1);
        guest.asm.op(Op::ScD, A5, A0, A4, 0);
        guest.asm.i(Op::Addi, A2, A2, -1);
        guest.asm.branch(Op::Bne, A2, ZERO, top);
        guest.check_memory(CELL, 6000, "two additions a round");
    }

    fn sc_succeeds_once_and_at_its_address_only_in_loops(guest) {
        guest.asm.li(A1, NEXT_PAGE);
        guest.asm.li(T4, CELL);
        for (lr, sc) in [(Op::LrW, Op::ScW), (Op::LrD, Op::ScD)] {
            for base in [A0, T4] {
                guest.asm.li(A0, CELL);
                guest.rounds(|guest| {
                    let what = format!("{sc:?} by x{base}");
                    guest.poke(CELL, 8, 0xffff_ffff_8000_0005);
                    guest.asm.op(lr, A3, base, ZERO, 0);
                    guest.check(A3, 0xffff_ffff_8000_0005, "lr");
                    guest.asm.op(sc, T3, base, A1, 0);
                    guest.check(T3, 0, format!("{what}: succeeds"));
                    guest.asm.op(sc, A4, base, ZERO, 0);
                    guest.check(A4, 1, format!("{what}: only once"));
                    guest.asm.op(lr, A3, base, ZERO, 0);
                    guest.asm.op(sc, A4, A1, ZERO, 0);
                    guest.check(A4, 1, format!("{what}: elsewhere"));
                    guest.asm.op(sc, A4, base, ZERO, 0);
                    guest.check(A4, 1, format!("{what}: after a failed one"));
                    let left = if sc == Op::ScD { NEXT_PAGE } else { 0xffff_ffff << 32 | NEXT_PAGE };
                    guest.check_memory(CELL, left, format!("{what}: memory"));
                    guest.asm.op(lr, A3, base, ZERO, 0);
                    guest.asm.op(Op::AmoaddW, A3, base, ZERO, 0);
                    guest.asm.op(sc, A4, base, ZERO, 0);
                    guest.check(A4, 0, format!("{what}: an AMO of the same hart between"));
                });
            }
        }
    }

    /// 14.2: this machine ends every reservation at a trap.
    fn a_trap_ends_the_reservation_in_loops(guest) {
        guest.asm.li(A0, CELL);
        guest.rounds(|guest| {
            guest.asm.op(Op::LrD, A3, A0, ZERO, 0);
            guest.instruction_traps(Mode::Machine, 11, 0, "ecall", |asm| {
                asm.op(Op::Ecall, 0, 0, 0, 0);
            });
            guest.asm.op(Op::ScD, A4, A0, A3, 0);
            guest.check(A4, 1, "sc");
            guest.asm.op(Op::LrD, A3, A0, ZERO, 0);
            guest.asm.op(Op::ScD, A4, A0, A3, 0);
            guest.check(A4, 0, "sc without a trap");
        });
    }

    /// One AMO that is done, or not, as its address goes.
    fn misaligned_ones_and_devices_trap_where_others_did_not(guest) {
        for (op, bytes, traps) in [
            (Op::AmoaddW, 4, [6, 7]), (Op::AmoswapD, 8, [6, 7]), (Op::AmomaxuD, 8, [6, 7]),
            (Op::ScW, 4, [6, 7]), (Op::ScD, 8, [6, 7]), (Op::LrW, 4, [4, 5]), (Op::LrD, 8, [4, 5]),
        ] {
            let source = if matches!(op, Op::LrW | Op::LrD) { ZERO } else { A2 };
            let code = place_code(guest, |asm| asm.op(op, A3, A0, source, 0));
            guest.rounds(|guest| {
                for address in [CELL, NEXT_PAGE + 8] {
                    guest.asm.li(A0, address);
                    guest.traps(Mode::Machine, 11, 0, "RAM", |guest| {
                        guest.asm.jal(ZERO, code);
                        Expected::Beyond(code, 4)
                    });
                }
                for (address, trap) in [
                    (CELL + bytes / 2, traps[0]), (CELL + 4096 - 1, traps[0]), (0x1000_0000, traps[1]),
                    (0x200_0000, traps[1]), (0x7000_0000, traps[1]),
                ] {
                    guest.asm.li(A0, address);
                    guest.traps(Mode::Machine, trap, address, &format!("{op:?}"), |guest| {
                        guest.asm.jal(ZERO, code);
                        code
                    });
                }
            });
        }
    }

    /// An instruction that is executed in each round is changed in each.
    fn an_amo_changes_code(guest) {
        let past = guest.asm.label();
        guest.asm.jal(ZERO, past);
        guest.asm.align(4);
        let code = guest.asm.bound_label();
        guest.asm.i(Op::Addi, A5, A5, 0);
        guest.asm.i(Op::Jalr, ZERO, RA, 0);
        guest.asm.bind(past);
        guest.asm.la(A0, code);
        guest.asm.li(A1, 1 << 20); // one more in the immediate
        guest.asm.li(A5, 0);
        guest.rounds(|guest| {
            guest.asm.op(Op::AmoaddW, A3, A0, A1, 0);
            guest.asm.jal(RA, code);
        });
        guest.check(A5, (1..=40).sum::<u64>(), "1 + 2 + ... + 40");
        // and by sc: back again
        guest.asm.li(A1, (1 << 20) as u64);
        guest.rounds(|guest| {
            guest.asm.op(Op::LrW, A3, A0, ZERO, 0);
            guest.asm.r(Op::Subw, A3, A3, A1);
            guest.asm.op(Op::ScW, A4, A0, A3, 0);
            guest.check(A4, 0, "sc");
            guest.asm.jal(RA, code);
        });
        guest.check(A5, (1..=40).sum::<u64>() + (0..40).sum::<u64>(), "and 39 + ... + 0");
    }

    /// A page-table entry leads to two pages by turns, and loads follow at once.
    fn an_amo_changes_a_translation(guest) {
        const ROOT: u64 = SCRATCH;
        const MPRV_S: u64 = 1 << 17 | 1 << 11;
        let entry = |physical: u64, flags: u64| physical >> 12 << 10 | flags;
        let leaf = |physical: u64| entry(physical, 0xc7);
        guest.poke(ROOT, 8, entry(ROOT + 4096, 1));
        guest.poke(ROOT + 4096, 8, entry(ROOT + 8192, 1));
        guest.poke(ROOT + 8192, 8, leaf(CELL));
        guest.poke(CELL, 8, 1);
        guest.poke(NEXT_PAGE, 8, 1000);
        guest.write_csr(number::SATP, 8 << 60 | ROOT >> 12);
        guest.asm.li(A0, ROOT + 8192);
        guest.asm.li(A1, leaf(CELL) ^ leaf(NEXT_PAGE));
        guest.asm.li(A2, MPRV_S);
        guest.asm.li(A5, 0);
        guest.rounds(|guest| {
            guest.asm.op(Op::AmoxorD, A3, A0, A1, 0);
            guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A2);
            guest.asm.i(Op::Ld, A4, ZERO, 0);
            guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A2);
            guest.asm.r(Op::Add, A5, A5, A4);
        });
        guest.check(A5, 20 * 1001, "each page in every other round");
        guest.write_csr(number::SATP, 0);
    }

    /// A page without W: stores of atomics fault, and so does `sc` without a reservation.
    fn atomics_need_the_permission_to_store(guest) {
        const ROOT: u64 = SCRATCH;
        let table = |physical: u64| physical >> 12 << 10 | 1;
        guest.poke(ROOT, 8, table(ROOT + 4096));
        guest.poke(ROOT + 4096, 8, table(ROOT + 8192));
        guest.poke(ROOT + 8192, 8, CELL >> 12 << 10 | 0xc7);
        guest.poke(ROOT + 8192 + 8, 8, CELL >> 12 << 10 | 0x43);
        guest.poke(ROOT + 8 * 2, 8, 0x8000_0000 >> 12 << 10 | 0xcf);
        guest.write_csr(number::SATP, 8 << 60 | ROOT >> 12);
        for op in [Op::AmoorW, Op::AmoaddD, Op::ScW, Op::ScD] {
            let code = place_code(guest, |asm| asm.op(op, A3, A0, ZERO, 0));
            guest.rounds(|guest| {
                guest.asm.li(A0, 16);
                guest.traps(Mode::Supervisor, 9, 0, "writable", |guest| {
                    guest.asm.jal(ZERO, code);
                    Expected::Beyond(code, 4)
                });
                guest.asm.li(A0, 4096 + 16);
                guest.traps(Mode::Supervisor, 15, 4096 + 16, &format!("{op:?}"), |guest| {
                    guest.asm.jal(ZERO, code);
                    code
                });
            });
        }
        guest.write_csr(number::SATP, 0);
    }
}
