//! Zicboz, Zicbom and Zicbop (unprivileged specification, "CMO Extensions"), Zawrs, Svinval and Svpbmt.

use crate::assembler::{Assembler, register::*};
use crate::guest::{Guest, Mode, SCRATCH, guests};
use riscv::board::bus::UART_BASE;
use riscv::hart::csr::{envcfg, number, status};
use riscv::isa::{self, Extension, Instruction, Op};

const MODES: [Mode; 3] = [Mode::User, Mode::Supervisor, Mode::Machine];
const MANAGEMENT: [Op; 3] = [Op::CboInval, Op::CboClean, Op::CboFlush];
const ILLEGAL: u64 = 2;
const STORE_ACCESS_FAULT: u64 = 7;
const STORE_PAGE_FAULT: u64 = 15;

/// Page tables: the root, then those below it.
const ROOT: u64 = SCRATCH;
/// A page that is translated to.
const TARGET: u64 = SCRATCH + (1 << 20);
const V: u64 = 1;
const R: u64 = 2;
const W: u64 = 4;
const X: u64 = 8;
const U: u64 = 16;
const A: u64 = 64;
const D: u64 = 128;
const ADUE: u64 = 1 << 61;
/// Where the leaf for [`TARGET`] is under Sv39.
const LEAF: u64 = ROOT + 0x2000 + (TARGET >> 12 & 511) * 8;

fn entry(physical: u64, flags: u64) -> u64 {
    (physical >> 12) << 10 | flags
}

fn bits(op: Op) -> u64 {
    let instruction = Instruction {
        op,
        rd: 0,
        rs1: A0,
        rs2: 0,
        immediate: 0,
        length: 4,
    };
    isa::encode(&instruction).map_or(0, u64::from)
}

fn on_a0(asm: &mut Assembler, op: Op) {
    asm.op(op, 0, A0, 0, 0);
}

/// Sv39 for loads and stores from M-mode by MPRV, in which [`TARGET`] has a leaf of its own.
fn map(guest: &mut Guest, leaf: u64) {
    guest.write_csr(number::SATP, 8 << 60 | ROOT >> 12);
    guest.poke(ROOT + (TARGET >> 30 & 511) * 8, 8, entry(ROOT + 0x1000, V));
    guest.poke(
        ROOT + 0x1000 + (TARGET >> 21 & 511) * 8,
        8,
        entry(ROOT + 0x2000, V),
    );
    guest.poke(LEAF, 8, leaf);
}

/// Executes an instruction on the address in A0 with the translation of S-mode.
fn translated(guest: &mut Guest, op: Op, fault: Option<(u64, u64)>, what: &str) {
    guest.asm.li(A5, 1 << 11 | status::MPRV);
    guest.asm.li(A6, status::MPP | status::MPRV);
    guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
    let emit = |guest: &mut Guest| {
        guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A5);
        let pc = guest.asm.bound_label();
        on_a0(&mut guest.asm, op);
        pc
    };
    match fault {
        Some((cause, value)) => guest.traps(Mode::Machine, cause, value, what, emit),
        None => drop(emit(guest)),
    }
    guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
}

fn fill(guest: &mut Guest, address: u64, double_words: u64) {
    guest.asm.li(A1, address);
    guest.asm.li(A2, u64::MAX);
    for index in 0..double_words {
        guest.asm.store(Op::Sd, A2, A1, 8 * index as i32);
    }
}

guests! {
    fn cbo_zero_zeroes_the_block_that_the_address_is_in(guest) {
        for offset in [0, 1, 8, 63] {
            guest.rounds(|guest| {
                fill(guest, TARGET - 64, 24);
                guest.asm.li(A0, TARGET + offset);
                on_a0(&mut guest.asm, Op::CboZero);
                for index in 0..24 {
                    let expected = if (8..16).contains(&index) { 0 } else { u64::MAX };
                    let address = TARGET - 64 + 8 * index;
                    guest.check_memory(address, expected, format!("{offset}: double-word {index}"));
                }
            });
        }
    }

    fn who_may_use_which_is_in_menvcfg_and_senvcfg(guest) {
        let fields = [
            (Op::CboZero, envcfg::CBZE),
            (Op::CboInval, 1 << 4),
            (Op::CboInval, envcfg::CBIE),
            (Op::CboClean, envcfg::CBCFE),
            (Op::CboFlush, envcfg::CBCFE),
        ];
        guest.asm.li(A0, TARGET);
        for (op, field) in fields {
            guest.tests(op);
            // Everything but what is looked at.
            let mask = match op {
                Op::CboInval => envcfg::CBIE,
                _ => field,
            };
            let others = (envcfg::CBZE | envcfg::CBIE | envcfg::CBCFE) & !mask;
            for (machine, supervisor) in [(0, 0), (field, 0), (0, field), (field, field)] {
                guest.write_csr(number::MENVCFG, ADUE | others | machine);
                guest.write_csr(number::SENVCFG, others | supervisor);
                for mode in MODES {
                    let allowed = match mode {
                        Mode::Machine => true,
                        Mode::Supervisor => machine != 0,
                        Mode::User => machine != 0 && supervisor != 0,
                    };
                    let what = format!("{op:?} in {mode:?}, menvcfg {machine:#x} {supervisor:#x}");
                    if allowed {
                        let cause = [8, 9, 11][MODES.iter().position(|m| *m == mode).unwrap_or(0)];
                        guest.traps(mode, cause, 0, &what, |guest| {
                            on_a0(&mut guest.asm, op);
                            let pc = guest.asm.bound_label();
                            guest.asm.op(Op::Ecall, 0, 0, 0, 0);
                            pc
                        });
                    } else {
                        guest.instruction_traps(mode, ILLEGAL, bits(op), &what, |asm| on_a0(asm, op));
                    }
                }
            }
        }
    }

    /// Hot code that knows the page from a store must not zero it where that is not allowed.
    fn hot_code_is_stopped_when_the_permission_goes(guest) {
        guest.write_csr(number::MENVCFG, ADUE | envcfg::CBZE);
        guest.write_csr(number::SENVCFG, envcfg::CBZE);
        let (function, start) = (guest.asm.label(), guest.asm.label());
        guest.asm.jal(ZERO, start);
        guest.asm.bind(function);
        guest.asm.store(Op::Sd, ZERO, A0, 128);
        let pc = guest.asm.bound_label();
        on_a0(&mut guest.asm, Op::CboZero);
        guest.asm.i(Op::Addi, A1, A1, -1);
        guest.asm.branch(Op::Bne, A1, ZERO, function);
        let end = guest.asm.bound_label();
        guest.asm.op(Op::Ecall, 0, 0, 0, 0);
        guest.asm.bind(start);
        guest.asm.li(A0, TARGET);
        for (menvcfg, senvcfg, mode) in [
            (envcfg::CBZE, envcfg::CBZE, Mode::User),
            (envcfg::CBZE, 0, Mode::User),
            (envcfg::CBZE, 0, Mode::Supervisor),
            (0, envcfg::CBZE, Mode::Supervisor),
            (0, envcfg::CBZE, Mode::User),
            (envcfg::CBZE, envcfg::CBZE, Mode::User),
        ] {
            guest.write_csr(number::MENVCFG, ADUE | menvcfg);
            guest.write_csr(number::SENVCFG, senvcfg);
            fill(guest, TARGET, 8);
            guest.asm.li(A1, 50);
            let allowed = menvcfg != 0 && (senvcfg != 0 || mode == Mode::Supervisor);
            let what = format!("{menvcfg:#x} {senvcfg:#x} {mode:?}");
            let (cause, value, at) = match (allowed, mode) {
                (true, Mode::User) => (8, 0, end),
                (true, _) => (9, 0, end),
                (false, _) => (ILLEGAL, bits(Op::CboZero), pc),
            };
            guest.traps(mode, cause, value, &what, |guest| {
                guest.asm.jal(ZERO, function);
                at
            });
            let expected = if allowed { 0 } else { u64::MAX };
            guest.check_memory(TARGET + 8, expected, format!("{what}: the block"));
        }
    }

    fn the_fields_of_envcfg_are_there_with_their_extensions(guest) {
        guest.write_csr(number::SENVCFG, u64::MAX);
        guest.check_csr(number::SENVCFG, 0xf1u64, "senvcfg has FIOM, CBIE, CBCFE, CBZE");
        guest.write_csr(number::SENVCFG, 2 << 4);
        guest.check_csr(number::SENVCFG, 3u64 << 4, "CBIE 2 is reserved");
        guest.write_csr(number::MENVCFG, u64::MAX);
        guest.check_csr(number::MENVCFG, 0xe000_0000_0000_00f1u64, "menvcfg");
        guest.write_csr(number::MENVCFG, ADUE);
    }

    fn without_the_extensions_there_is_nothing_of_them(guest) {
        for extension in [
            Extension::Zicboz,
            Extension::Zicbom,
            Extension::Zawrs,
            Extension::Svinval,
            Extension::Svpbmt,
        ] {
            guest.without(extension);
        }
        guest.write_csr(number::SENVCFG, u64::MAX);
        guest.check_csr(number::SENVCFG, 1u64, "senvcfg");
        guest.write_csr(number::MENVCFG, u64::MAX);
        guest.check_csr(number::MENVCFG, 0xa000_0000_0000_0001u64, "menvcfg");
        guest.write_csr(number::MENVCFG, ADUE);
        guest.asm.li(A0, TARGET);
        let ops = [
            Op::CboZero, Op::CboInval, Op::CboClean, Op::CboFlush, Op::WrsNto, Op::WrsSto,
            Op::SinvalVma, Op::SfenceWInval, Op::SfenceInvalIr,
        ];
        for op in ops {
            let fields = if matches!(op, Op::WrsNto | Op::WrsSto | Op::SfenceWInval | Op::SfenceInvalIr) {
                isa::encodings().find(|row| row.op == op).map_or(0, |row| row.bits)
            } else {
                bits(op) as u32
            };
            for mode in MODES {
                let what = format!("{op:?} in {mode:?}");
                guest.instruction_traps(mode, ILLEGAL, u64::from(fields), &what, |asm| asm.word(fields));
            }
        }
    }

    /// A store's fault, at the address in the register; A and D as of a store, or A alone.
    fn blocks_fault_as_stores_and_set_accessed_and_dirty(guest) {
        guest.asm.li(A0, TARGET + 9);
        let fault = Some((STORE_PAGE_FAULT, TARGET + 9));
        for (flags, readable, writable) in [
            (V | R | W | X | A | D, true, true),
            (V | R | A | D, true, false),
            (V | X | A | D, false, false),
            (V | R | W | U | A | D, false, false),
            (R | W | A | D, false, false),
        ] {
            map(guest, entry(TARGET, flags));
            let outcome = |allowed: bool| if allowed { None } else { fault };
            for op in MANAGEMENT {
                translated(guest, op, outcome(readable), &format!("{op:?}, {flags:#x}"));
            }
            translated(guest, Op::CboZero, outcome(writable), &format!("cbo.zero, {flags:#x}"));
        }
        for adue in [ADUE, 0] {
            guest.write_csr(number::MENVCFG, adue);
            for (op, marks) in [(Op::CboZero, A | D), (Op::CboClean, A), (Op::CboInval, A)] {
                map(guest, entry(TARGET, V | R | W));
                let outcome = if adue == 0 { fault } else { None };
                let what = format!("{op:?} without A and D, ADUE {adue:#x}");
                translated(guest, op, outcome, &what);
                let expected = if adue == 0 { 0 } else { marks };
                let leaf = entry(TARGET, V | R | W | expected);
                guest.check_memory(LEAF, leaf, format!("{what}: the leaf"));
            }
        }
        guest.write_csr(number::MENVCFG, ADUE);
        guest.write_csr(number::SATP, 0);
    }

    fn what_is_no_memory_or_protected_has_no_blocks(guest) {
        for op in [Op::CboZero, Op::CboInval, Op::CboClean, Op::CboFlush] {
            for address in [UART_BASE, 0, u64::MAX - 63] {
                guest.asm.li(A0, address);
                let what = format!("{op:?} at {address:#x}");
                let cause = STORE_ACCESS_FAULT;
                guest.instruction_traps(Mode::Machine, cause, address, &what, |asm| on_a0(asm, op));
            }
        }
        // An entry for the second half of the block: neither all of it nor nothing.
        guest.write_csr(number::PMPADDR0 + 1, u64::MAX);
        guest.write_csr(number::PMPADDR0, (TARGET + 32) >> 2 | 3);
        guest.write_csr(number::PMPCFG0, 0x1f18);
        guest.write_csr(number::MENVCFG, ADUE | envcfg::CBZE | envcfg::CBCFE);
        guest.asm.li(A0, TARGET);
        for op in [Op::CboZero, Op::CboClean] {
            let what = format!("{op:?} beside what is protected");
            let cause = STORE_ACCESS_FAULT;
            guest.instruction_traps(Mode::Supervisor, cause, TARGET, &what, |asm| on_a0(asm, op));
        }
    }

    /// Code, and translations, that a block holds are those of the block that was zeroed.
    fn a_zeroed_block_of_code_or_of_tables_counts_at_once(guest) {
        guest.write_csr(number::MENVCFG, ADUE);
        let (function, start, done) = (guest.asm.label(), guest.asm.label(), guest.asm.label());
        guest.asm.jal(ZERO, start);
        guest.asm.align(64);
        guest.asm.bind(function);
        (0..12).for_each(|_| guest.asm.i(Op::Addi, A3, A3, 1));
        guest.asm.i(Op::Jalr, ZERO, RA, 0);
        guest.asm.align(64);
        guest.asm.bind(start);
        guest.rounds(|guest| {
            guest.asm.li(A3, 0);
            guest.asm.jal(RA, function);
            guest.check(A3, 12, "the function as it was");
        });
        guest.asm.la(A0, function);
        on_a0(&mut guest.asm, Op::CboZero);
        guest.traps(Mode::Machine, ILLEGAL, 0, "the function is zero", |guest| {
            guest.asm.jal(RA, function);
            function
        });
        guest.asm.jal(ZERO, done);
        guest.asm.bind(done);
        // Hot loads through a leaf that is zeroed.
        map(guest, entry(TARGET, V | R | W | A | D));
        guest.asm.li(A0, TARGET);
        guest.rounds(|guest| translated(guest, Op::CboClean, None, "mapped"));
        guest.asm.li(A0, LEAF);
        on_a0(&mut guest.asm, Op::CboZero);
        guest.asm.li(A0, TARGET);
        let fault = Some((STORE_PAGE_FAULT, TARGET));
        translated(guest, Op::CboClean, fault, "its leaf is zero");
        translated(guest, Op::CboZero, fault, "its leaf is zero");
        guest.write_csr(number::SATP, 0);
    }

    /// Prefetches are `ori` of x0: they change nothing and fault nowhere.
    fn prefetches_change_nothing(guest) {
        guest.asm.li(A0, 8);
        for kind in [0, 1, 3] {
            for offset in [0, 32, -32, 2016, -2048] {
                guest.asm.i(Op::Ori, ZERO, A0, offset | kind);
            }
        }
        guest.check(A0, 8, "the base");
        guest.check(ZERO, 0, "x0");
    }

    /// With or without a reservation a stall ends: here it is bounded by the turns of the other harts.
    fn a_wait_for_a_reservation_ends(guest) {
        guest.on_a_second_hart(|asm| {
            // The other one is woken by what it waits for.
            asm.li(A0, TARGET);
            asm.li(A1, 1);
            asm.store(Op::Sd, A1, A0, 0);
        });
        guest.asm.op(Op::WrsNto, 0, 0, 0, 0);
        guest.asm.op(Op::WrsSto, 0, 0, 0, 0);
        guest.asm.li(A0, TARGET);
        for op in [Op::WrsNto, Op::WrsSto] {
            guest.tests(op);
            let (again, done) = (guest.asm.bound_label(), guest.asm.label());
            guest.asm.op(Op::LrD, A1, A0, 0, 0);
            guest.asm.branch(Op::Bne, A1, ZERO, done);
            guest.asm.op(op, 0, 0, 0, 0);
            guest.asm.jal(ZERO, again);
            guest.asm.bind(done);
            guest.check(A1, 1, format!("{op:?}: what the other hart stored"));
        }
        // mstatus.TW traps a stall that is not bounded; none here is one.
        guest.set_csr(number::MSTATUS, status::TW);
        guest.traps(Mode::User, 8, 0, "wrs.nto in U with TW", |guest| {
            guest.asm.op(Op::WrsNto, 0, 0, 0, 0);
            let pc = guest.asm.bound_label();
            guest.asm.op(Op::Ecall, 0, 0, 0, 0);
            pc
        });
    }

    /// `sinval.vma` traps where `sfence.vma` does; the fences around it only in U-mode.
    fn invalidations_of_translations_are_for_supervisors(guest) {
        guest.asm.li(A0, 0);
        let word = |op: Op| isa::encodings().find(|row| row.op == op).map_or(0, |row| row.bits);
        for op in [Op::SinvalVma, Op::SfenceWInval, Op::SfenceInvalIr] {
            guest.tests(op);
            let what = format!("{op:?} in U");
            guest.instruction_traps(Mode::User, ILLEGAL, u64::from(word(op)), &what, |asm| {
                asm.op(op, 0, 0, 0, 0);
            });
            for bits in [0, status::TVM] {
                guest.set_csr(number::MSTATUS, bits);
                let what = format!("{op:?} in S, mstatus {bits:#x}");
                if bits != 0 && op == Op::SinvalVma {
                    let word = u64::from(word(op));
                    guest.instruction_traps(Mode::Supervisor, ILLEGAL, word, &what, |asm| {
                        asm.op(op, 0, 0, 0, 0);
                    });
                } else {
                    guest.traps(Mode::Supervisor, 9, 0, &what, |guest| {
                        guest.asm.op(op, 0, 0, 0, 0);
                        let pc = guest.asm.bound_label();
                        guest.asm.op(Op::Ecall, 0, 0, 0, 0);
                        pc
                    });
                }
                guest.asm.op(op, 0, 0, 0, 0);
                guest.clear_csr(number::MSTATUS, status::TVM);
            }
        }
    }

    /// Svpbmt (privileged specification, "Svpbmt"): types 0 to 2 in leaves while `menvcfg.PBMTE` is set,
    /// at once and without a fence.
    fn memory_types_are_reserved_without_pbmte_and_in_pointers(guest) {
        guest.asm.li(A0, TARGET);
        let fault = Some((STORE_PAGE_FAULT, TARGET));
        for pbmte in [0, envcfg::PBMTE, 0, envcfg::PBMTE] {
            guest.write_csr(number::MENVCFG, ADUE | pbmte);
            for kind in 0..4 {
                map(guest, entry(TARGET, V | R | W | A | D) | kind << 61);
                let allowed = kind == 0 || pbmte != 0 && kind != 3;
                let outcome = if allowed { None } else { fault };
                let what = format!("type {kind}, PBMTE {pbmte:#x}");
                guest.rounds(|guest| translated(guest, Op::CboZero, outcome, &what));
            }
            let pointer = ROOT + 0x1000 + (TARGET >> 21 & 511) * 8;
            map(guest, entry(TARGET, V | R | W | A | D));
            guest.poke(pointer, 8, entry(ROOT + 0x2000, V) | 1 << 61);
            translated(guest, Op::CboZero, fault, "a type in a pointer");
        }
        // What was allowed once is not when PBMTE goes.
        map(guest, entry(TARGET, V | R | W | A | D) | 1 << 61);
        guest.rounds(|guest| translated(guest, Op::CboZero, None, "allowed"));
        guest.write_csr(number::MENVCFG, ADUE);
        translated(guest, Op::CboZero, fault, "not any more");
        guest.write_csr(number::SATP, 0);
    }
}
