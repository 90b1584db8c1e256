//! PMP (privileged specification, 3.7).

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, SCRATCH, guests};
use riscv::hart::csr::number;
use riscv::isa::Op;

const R: u64 = 1;
const W: u64 = 2;
const X: u64 = 4;
const TOR: u64 = 1 << 3;
const NA4: u64 = 2 << 3;
const NAPOT: u64 = 3 << 3;
const L: u64 = 1 << 7;
const MPP: u64 = 3 << 11;
const MPRV: u64 = 1 << 17;

const EBREAK: u64 = 0x0010_0073;

/// Sets up to eight entries; the last one given opens everything behind them.
fn entries(guest: &mut Guest, entries: &[(u64, u64)]) {
    let mut configuration = 0;
    guest.write_csr(number::PMPCFG0, 0);
    for (index, &(address, flags)) in entries.iter().enumerate() {
        guest.write_csr(number::PMPADDR0 + index as u16, address);
        configuration |= flags << (8 * index);
    }
    guest.write_csr(number::PMPADDR0 + entries.len() as u16, u64::MAX);
    configuration |= (NAPOT | R | W | X) << (8 * entries.len());
    guest.write_csr(number::PMPCFG0, configuration);
}

/// A naturally aligned range of `size` bytes (8 or more) as `pmpaddr` has it.
fn napot(address: u64, size: u64) -> u64 {
    (address >> 2) | ((size >> 3) - 1)
}

/// A load of S-mode, by MPRV: with the faulting address, or without a fault.
fn load(guest: &mut Guest, op: Op, address: u64, fault: Option<u64>, what: &str) {
    access(guest, fault.map(|at| (5, at)), address, what, |guest| {
        guest.asm.i(op, A1, A0, 0)
    });
}

fn store(guest: &mut Guest, op: Op, address: u64, fault: Option<u64>, what: &str) {
    access(guest, fault.map(|at| (7, at)), address, what, |guest| {
        guest.asm.store(op, A1, A0, 0)
    });
}

fn access(
    guest: &mut Guest,
    fault: Option<(u64, u64)>,
    address: u64,
    what: &str,
    emit: impl FnOnce(&mut Guest),
) {
    guest.asm.li(A0, address);
    guest.asm.li(A5, MPRV | 1 << 11);
    guest.asm.li(A6, MPRV | MPP);
    guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
    let in_mode = |guest: &mut Guest| {
        guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A5);
        let pc = guest.asm.bound_label();
        emit(guest);
        pc
    };
    match fault {
        Some((cause, at)) => guest.traps(Mode::Machine, cause, at, what, in_mode),
        None => drop(in_mode(guest)),
    }
    guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
}

/// Jumps to `address` in S-mode, where an `ebreak` is.
fn fetch(guest: &mut Guest, mode: Mode, address: u64, cause: u64, at: u64, what: &str) {
    guest.clear_csr(number::MSTATUS, MPP);
    guest.set_csr(number::MSTATUS, (mode as u64) << 11);
    guest.traps(Mode::Machine, cause, at, what, |guest| {
        guest.asm.li(A0, address);
        guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A0);
        guest.asm.op(Op::Mret, 0, 0, 0, 0);
        at
    });
}

guests! {
    fn without_a_matching_entry_s_mode_may_do_nothing(guest) {
        guest.write_csr(number::PMPCFG0, 0);
        load(guest, Op::Ld, SCRATCH, Some(SCRATCH), "load");
        store(guest, Op::Sd, SCRATCH, Some(SCRATCH), "store");
        fetch(guest, Mode::Supervisor, SCRATCH, 1, SCRATCH, "fetch");
        fetch(guest, Mode::User, SCRATCH, 1, SCRATCH, "fetch from U");
        guest.poke(SCRATCH, 8, 5);
        guest.check_memory(SCRATCH, 5, "M-mode may");
    }

    fn each_permission_allows_its_access(guest) {
        guest.poke(SCRATCH, 8, EBREAK);
        for flags in [0, R, X, R | W, R | X, R | W | X] {
            entries(guest, &[(napot(SCRATCH, 4096), NAPOT | flags)]);
            let fault = |flag: u64| (flags & flag == 0).then_some(SCRATCH);
            let what = format!("flags {flags}");
            load(guest, Op::Ld, SCRATCH, fault(R), &what);
            guest.asm.li(A1, EBREAK);
            store(guest, Op::Sd, SCRATCH, fault(W), &what);
            let cause = if flags & X == 0 { 1 } else { 3 };
            fetch(guest, Mode::Supervisor, SCRATCH, cause, SCRATCH, &what);
            guest.check_memory(SCRATCH, EBREAK, "M-mode reads it whatever the flags");
        }
    }

    /// 3.7.1.1: OFF, TOR, NA4 and NAPOT of every size.
    fn ranges_begin_and_end_where_they_say(guest) {
        let base = SCRATCH + 0x10_0000;
        for size in [8u64, 16, 4096, 8192, 1 << 16] {
            entries(guest, &[(napot(base, size), NAPOT)]);
            let what = format!("NAPOT of {size}");
            load(guest, Op::Lb, base - 1, None, &what);
            load(guest, Op::Lb, base, Some(base), &what);
            load(guest, Op::Lb, base + size - 1, Some(base + size - 1), &what);
            load(guest, Op::Lb, base + size, None, &what);
        }
        entries(guest, &[(base >> 2, NA4)]);
        load(guest, Op::Lb, base - 1, None, "NA4");
        load(guest, Op::Lb, base + 3, Some(base + 3), "NA4");
        load(guest, Op::Lb, base + 4, None, "NA4");
        entries(guest, &[(base >> 2, 0), ((base + 12) >> 2, TOR)]);
        load(guest, Op::Lb, base - 1, None, "TOR");
        load(guest, Op::Lb, base, Some(base), "TOR");
        load(guest, Op::Lb, base + 11, Some(base + 11), "TOR");
        load(guest, Op::Lb, base + 12, None, "TOR");
        entries(guest, &[(base >> 2, TOR)]);
        load(guest, Op::Lb, base - 1, Some(base - 1), "TOR of entry 0 begins at 0");
        load(guest, Op::Lb, base, None, "TOR of entry 0");
    }

    /// 3.7.1.1: a TOR entry whose top is not above its bottom matches nothing.
    fn an_empty_range_matches_nothing(guest) {
        let base = SCRATCH + 0x10_0004;
        for top in [base, base - 4, base - 0x1000] {
            entries(guest, &[(base >> 2, 0), (top >> 2, TOR)]);
            load(guest, Op::Ld, base - 4, None, "an access over the empty range");
            store(guest, Op::Sd, base - 4, None, "an access over the empty range");
            load(guest, Op::Lw, base, None, "an access behind the empty range");
        }
    }

    /// 3.7.1.3: the lowest entry that matches any byte decides, and must match all bytes.
    fn the_lowest_matching_entry_decides(guest) {
        let base = SCRATCH + 0x10_0000;
        entries(guest, &[(base >> 2, NA4 | R), (napot(base, 4096), NAPOT)]);
        load(guest, Op::Lw, base, None, "entry 0 allows");
        store(guest, Op::Sw, base, Some(base), "entry 0 refuses stores");
        load(guest, Op::Lw, base + 4, Some(base + 4), "entry 1 refuses");
        load(guest, Op::Ld, base, Some(base), "half of it in entry 0 only");
        entries(guest, &[(base >> 2, NA4 | R | W), (napot(base, 4096), NAPOT | R | W)]);
        load(guest, Op::Ld, base, Some(base), "though both allow it");
    }

    /// 3.7.1.2: L locks the entry and makes it hold for M-mode.
    fn a_locked_entry_binds_m_mode_and_cannot_change(guest) {
        let base = SCRATCH + 0x20_0000;
        guest.poke(base, 8, EBREAK);
        guest.write_csr(number::PMPADDR0 + 5, 0x123);
        guest.write_csr(number::PMPADDR0 + 6, base >> 2);
        guest.write_csr(number::PMPADDR0 + 7, (base + 4096) >> 2);
        guest.write_csr(number::PMPCFG0, (L | TOR | R) << 56);
        guest.check_csr(number::PMPCFG0, (L | TOR | R) << 56, "written");
        guest.write_csr(number::PMPCFG0, 0);
        guest.check_csr(number::PMPCFG0, (L | TOR | R) << 56, "locked");
        guest.write_csr(number::PMPADDR0 + 7, 0);
        guest.check_csr(number::PMPADDR0 + 7, (base + 4096) >> 2, "its address is locked");
        guest.write_csr(number::PMPADDR0 + 6, 0);
        guest.check_csr(number::PMPADDR0 + 6, base >> 2, "and that of the entry below, for TOR");
        guest.write_csr(number::PMPADDR0 + 5, 0x456);
        guest.check_csr(number::PMPADDR0 + 5, 0x456, "not the one below that");
        guest.asm.li(A0, base);
        guest.asm.i(Op::Ld, A1, A0, 0);
        guest.check(A1, EBREAK, "M-mode may read");
        guest.instruction_traps(Mode::Machine, 7, base, "M-mode may not store", |asm| {
            asm.store(Op::Sd, A1, A0, 0);
        });
        guest.traps(Mode::Machine, 1, base, "M-mode may not execute", |guest| {
            guest.asm.i(Op::Jalr, ZERO, A0, 0);
            base
        });
    }

    fn registers_keep_what_the_specification_lets_them(guest) {
        guest.write_csr(number::PMPADDR0 + 3, u64::MAX);
        guest.check_csr(number::PMPADDR0 + 3, (1 << 54) - 1, "54 bits");
        guest.write_csr(number::PMPCFG0, 0x6000);
        guest.check_csr(number::PMPCFG0, 0, "bits 5 and 6 are reserved");
        guest.write_csr(number::PMPCFG0, W);
        guest.check_csr(number::PMPCFG0, 0, "W without R is reserved");
        guest.write_csr(number::PMPCFG0, (W | X) << 16);
        guest.check_bits(number::PMPCFG0, W << 16, 0, "W without R is reserved");
        guest.write_csr(number::PMPCFG0 + 2, 0x1f1f);
        guest.check_csr(number::PMPCFG0 + 2, 0x1f1f, "entries 8 to 15");
        guest.check_csr(number::PMPADDR0 + 16, 0, "entry 16 reads as zero");
        guest.write_csr(number::PMPADDR0 + 16, 5);
        guest.check_csr(number::PMPADDR0 + 16, 0, "and stays so");
        guest.check_csr(number::PMPCFG0 + 14, 0, "pmpcfg14");
    }

    /// A range that ends within a page, in the middle of straight code.
    fn execution_stops_where_the_range_ends(guest) {
        let base = SCRATCH + 0x30_0000;
        for offset in (0..64).step_by(8) {
            guest.poke(base + offset, 8, 0x0013_0313_0013_0313); // addi t1, t1, 1
        }
        guest.poke(base + 64, 4, EBREAK);
        for end in [base + 16, base + 32, base + 64] {
            entries(guest, &[(base >> 2, 0), (end >> 2, TOR | X), ((base + 0x1000) >> 2, TOR)]);
            for round in 0..3 {
                guest.asm.li(T1, 0);
                fetch(guest, Mode::Supervisor, base, 1, end, &format!("up to {end:#x}, round {round}"));
                guest.check(T1, (end - base) / 4, "instructions executed");
            }
        }
        // code that ran while it was allowed, and a narrower range afterwards
        entries(guest, &[(napot(base, 4096), NAPOT | X)]);
        guest.asm.li(T1, 0);
        fetch(guest, Mode::Supervisor, base, 3, base + 64, "all of it");
        guest.check(T1, 16, "instructions executed");
        entries(guest, &[(napot(base + 8, 8), NAPOT), (napot(base, 4096), NAPOT | X)]);
        guest.asm.li(T1, 0);
        fetch(guest, Mode::Supervisor, base, 1, base + 8, "a hole in it");
        guest.check(T1, 2, "instructions executed");
        // an instruction half of which is in the hole
        guest.poke(base + 4, 2, 1);
        guest.poke(base + 6, 2, 0x0313); // addi t1, t1, 1
        guest.poke(base + 8, 2, 0x0013);
        guest.asm.li(T1, 0);
        guest.clear_csr(number::MSTATUS, MPP);
        guest.set_csr(number::MSTATUS, 1 << 11);
        guest.traps(Mode::Machine, 1, base + 8, "half in the hole", |guest| {
            guest.asm.li(A0, base);
            guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A0);
            guest.asm.op(Op::Mret, 0, 0, 0, 0);
            base + 6
        });
    }

    /// M-mode locks the page that it runs in, beyond the next instruction.
    fn a_locked_range_binds_the_code_that_locks_it(guest) {
        let base = SCRATCH + 0x30_0000;
        // csrw pmpcfg0, a2; addi t1, t1, 1 (three times)
        guest.poke(base, 4, 0x3a06_1073);
        for offset in [4, 8, 12] {
            guest.poke(base + offset, 4, 0x0013_0313);
        }
        guest.poke(base + 16, 4, EBREAK);
        guest.write_csr(number::PMPADDR0, (base + 8) >> 2);
        guest.asm.li(T1, 0);
        guest.asm.li(A0, base);
        for (configuration, cause, at, executed) in [(0, 3, base + 16, 3), (0, 3, base + 16, 3), (L | NA4 | R | W, 1, base + 8, 1u64)] {
            guest.asm.li(A2, configuration);
            guest.asm.li(T1, 0);
            guest.traps(Mode::Machine, cause, at, "from the page", |guest| {
                guest.asm.i(Op::Jalr, ZERO, A0, 0);
                at
            });
            guest.check(T1, executed, "instructions executed");
        }
    }

    /// 3.7.2: page-table walks are loads of S-mode.
    fn page_tables_need_read_permission(guest) {
        let (root, address) = (SCRATCH, 0x4000_0000u64);
        let page = SCRATCH + 0x10_0000;
        guest.poke(root + 8, 8, (page >> 30 << 18 << 10) | 0xcf);
        guest.write_csr(number::SATP, 8 << 60 | root >> 12);
        let target = address | page & 0x3fff_ffff;
        for (flags, fault) in [(R, false), (0, true), (X, true), (R | W, false)] {
            entries(guest, &[(napot(root, 4096), NAPOT | flags)]);
            let at = fault.then_some(target);
            load(guest, Op::Ld, target, at, &format!("walk with flags {flags}"));
            store(guest, Op::Sd, target, at, &format!("walk with flags {flags}"));
        }
    }

    fn mtval_of_a_misaligned_access_over_two_ranges(guest) {
        let page = SCRATCH + 0x10_0000;
        entries(guest, &[(napot(page, 4096), NAPOT)]);
        load(guest, Op::Ld, page - 4, Some(page), "the second page refuses");
        store(guest, Op::Sd, page - 4, Some(page), "the second page refuses");
        load(guest, Op::Ld, page + 4092, Some(page + 4092), "the first page refuses");
    }
}
