//! Address translation (privileged specification, 12.3 to 12.6), under Sv39, Sv48 and Sv57.
//!
//! No program here executes `sfence.vma`: on this machine every access is as if freshly walked.

use crate::assembler::{Assembler, register::*};
use crate::guest::{Guest, Mode, SCRATCH, TRAP_STATUS, guests};
use riscv::hart::csr::number;
use riscv::isa::Op;

const V: u64 = 1;
const R: u64 = 2;
const W: u64 = 4;
const X: u64 = 8;
const U: u64 = 16;
const G: u64 = 32;
const A: u64 = 64;
const D: u64 = 128;
/// All that a supervisor page can allow, and be spared faults for A and D.
const RWX: u64 = V | R | W | X | A | D;

/// `menvcfg.ADUE`.
const ADUE: u64 = 1 << 61;

const MPP: u64 = 3 << 11;
const MPRV: u64 = 1 << 17;
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;

const FETCH_FAULT: u64 = 12;
const LOAD_FAULT: u64 = 13;
const STORE_FAULT: u64 = 15;

/// Page tables: the root here, the others behind it.
const ROOT: u64 = SCRATCH;
/// The page that is translated to.
const TARGET: u64 = SCRATCH + (1 << 20);
const EBREAK: u64 = 0x0010_0073;

/// Modes of `satp` with their levels.
const MODES: &[(u64, u64)] = &[(8, 3), (9, 4), (10, 5)];

fn entry(physical: u64, flags: u64) -> u64 {
    (physical >> 12) << 10 | flags
}

fn index(address: u64, level: u64) -> u64 {
    (address >> (12 + 9 * level)) & 511
}

/// The table that a walk of `level` reads, in the chain of tables for one address.
fn table(levels: u64, level: u64) -> u64 {
    ROOT + (levels - 1 - level) * 4096
}

/// Points the tables at each other for `address`, down to `leaf_level`, and puts the leaf there.
fn map(guest: &mut Guest, levels: u64, address: u64, leaf_level: u64, leaf: u64) {
    for level in (leaf_level + 1..levels).rev() {
        let next = entry(table(levels, level - 1), V);
        guest.poke(table(levels, level) + 8 * index(address, level), 8, next);
    }
    guest.poke(
        table(levels, leaf_level) + 8 * index(address, leaf_level),
        8,
        leaf,
    );
}

fn satp(mode: u64) -> u64 {
    mode << 60 | ROOT >> 12
}

/// What happens to an instruction at `address` that accesses `address`: nothing, or an exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Succeeds,
    Faults(u64),
}

/// Runs one instruction, which uses the address in a0, with `mstatus` bits for loads and stores.
fn data_access(
    guest: &mut Guest,
    mode: Mode,
    bits: u64,
    address: u64,
    outcome: Outcome,
    what: &str,
    emit: impl FnOnce(&mut Assembler),
) {
    guest.asm.li(A0, address);
    guest.asm.li(A5, (mode as u64) << 11 | bits | MPRV);
    guest.asm.li(A6, MPP | SUM | MXR | MPRV);
    guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
    let emit_in_mode = |guest: &mut Guest| {
        guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A5);
        let pc = guest.asm.bound_label();
        emit(&mut guest.asm);
        pc
    };
    match outcome {
        Outcome::Faults(cause) => guest.traps(Mode::Machine, cause, address, what, emit_in_mode),
        Outcome::Succeeds => drop(emit_in_mode(guest)),
    }
    guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
}

/// Jumps to `address` in `mode`; there is an `ebreak` if the fetch succeeds.
fn fetch(guest: &mut Guest, mode: Mode, bits: u64, address: u64, outcome: Outcome, what: &str) {
    let cause = match outcome {
        Outcome::Succeeds => 3,
        Outcome::Faults(cause) => cause,
    };
    guest.clear_csr(number::MSTATUS, MPP | SUM | MXR);
    guest.set_csr(number::MSTATUS, (mode as u64) << 11 | bits);
    guest.traps(Mode::Machine, cause, address, what, |guest| {
        guest.asm.li(A0, address);
        guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A0);
        guest.asm.op(Op::Mret, 0, 0, 0, 0);
        address
    });
}

/// Loads from, stores to and jumps to an address, all of which must succeed.
fn all_succeed(guest: &mut Guest, address: u64, physical: u64, what: &str) {
    use Outcome::Succeeds;
    guest.poke(physical, 8, EBREAK);
    data_access(guest, Mode::Supervisor, 0, address, Succeeds, what, |asm| {
        asm.i(Op::Ld, A1, A0, 0)
    });
    guest.check(A1, EBREAK, format!("{what}: load"));
    guest.asm.li(A2, EBREAK | 0x77 << 32);
    data_access(guest, Mode::Supervisor, 0, address, Succeeds, what, |asm| {
        asm.store(Op::Sd, A2, A0, 0)
    });
    guest.check_memory(physical, EBREAK | 0x77 << 32, format!("{what}: store"));
    fetch(
        guest,
        Mode::Supervisor,
        0,
        address,
        Succeeds,
        &format!("{what}: fetch"),
    );
}

fn all_fault(guest: &mut Guest, address: u64, causes: [u64; 3], what: &str) {
    let [fetch_cause, load, store] = causes.map(Outcome::Faults);
    fetch(
        guest,
        Mode::Supervisor,
        0,
        address,
        fetch_cause,
        &format!("{what}: fetch"),
    );
    data_access(
        guest,
        Mode::Supervisor,
        0,
        address,
        load,
        &format!("{what}: load"),
        |asm| {
            asm.i(Op::Ld, A1, A0, 0);
        },
    );
    data_access(
        guest,
        Mode::Supervisor,
        0,
        address,
        store,
        &format!("{what}: store"),
        |asm| {
            asm.store(Op::Sd, A1, A0, 0);
        },
    );
}

const PAGE_FAULTS: [u64; 3] = [FETCH_FAULT, LOAD_FAULT, STORE_FAULT];
const ACCESS_FAULTS: [u64; 3] = [1, 5, 7];

/// 12.3.2, steps 5 to 7, with Svade.
fn allowed(flags: u64, access: Op, mode: Mode, bits: u64) -> bool {
    let encoding_exists = flags & V != 0 && flags & (R | W) != W && flags & (R | X) != 0;
    let user_page = flags & U != 0;
    let mode_fits = match mode {
        Mode::User => user_page,
        _ => !user_page || bits & SUM != 0 && access != Op::Jal,
    };
    let right = match access {
        Op::Jal => flags & X != 0,
        Op::Ld => flags & R != 0 || bits & MXR != 0 && flags & X != 0,
        _ => flags & W != 0 && flags & D != 0,
    };
    encoding_exists && mode_fits && right && flags & A != 0
}

guests! {
    /// Every combination of V, R, W, X, U, A and D, for every access from S and U, with SUM, MXR.
    fn permission_bits_allow_what_the_algorithm_says(guest) {
        guest.tests(Op::SfenceVma); // there is nothing that it would have to do
        guest.write_csr(number::MENVCFG, 0);
        let address = 0x4000_0000u64;
        guest.poke(TARGET, 8, EBREAK);
        guest.write_csr(number::SATP, satp(8));
        for flags in (0..256u64).filter(|flags| flags & G == 0) {
            if flags & V != 0 && flags & (R | W | X) == 0 {
                continue; // a pointer at level 0: the next test
            }
            map(guest, 3, address, 0, entry(TARGET, flags));
            for (mode, bits) in [
                (Mode::Supervisor, 0), (Mode::Supervisor, SUM), (Mode::Supervisor, MXR),
                (Mode::User, 0), (Mode::User, SUM | MXR),
            ] {
                let what = format!("PTE {flags:#x} from {mode:?} with {bits:#x}");
                let outcome = |access, cause| {
                    if allowed(flags, access, mode, bits) { Outcome::Succeeds } else { Outcome::Faults(cause) }
                };
                let load = outcome(Op::Ld, LOAD_FAULT);
                data_access(guest, mode, bits, address, load, &what, |asm| asm.i(Op::Ld, A1, A0, 0));
                if load == Outcome::Succeeds {
                    guest.check(A1, EBREAK, format!("{what}: loaded"));
                }
                guest.asm.li(A2, EBREAK);
                let store = outcome(Op::Sd, STORE_FAULT);
                data_access(guest, mode, bits, address, store, &what, |asm| asm.store(Op::Sd, A2, A0, 0));
                if bits & MXR == 0 {
                    fetch(guest, mode, bits, address, outcome(Op::Jal, FETCH_FAULT), &what);
                }
            }
        }
    }

    /// Svadu, at reset: a leaf without A and D, at every level, in both halves. A load and a fetch set
    /// A, a store both; what is refused sets nothing.
    fn the_walk_sets_accessed_and_dirty(guest) {
        use Outcome::{Faults, Succeeds};
        guest.check_bits(number::MENVCFG, ADUE, ADUE, "at reset");
        guest.poke(TARGET, 8, EBREAK);
        for &(mode, levels) in MODES {
            guest.write_csr(number::SATP, satp(mode));
            for (leaf_level, high) in (0..3).flat_map(|level| [(level, false), (level, true)]) {
                let size = 1u64 << (12 + 9 * leaf_level);
                let half = 1u64 << (11 + 9 * levels);
                let page = if high { !(half - 1) } else { 0 } | (size * 3) & (half - 1);
                let address = page | TARGET & (size - 1);
                let place = table(levels, leaf_level) + 8 * index(address, leaf_level);
                let clear = entry(TARGET & !(size - 1), V | R | W | X);
                let what = format!("satp mode {mode}, leaf at level {leaf_level}, {address:#x}");
                map(guest, levels, address, leaf_level, clear);
                data_access(guest, Mode::User, 0, address, Faults(LOAD_FAULT), &what, |asm| asm.i(Op::Ld, A1, A0, 0));
                guest.check_memory(place, clear, format!("{what}: a load that is refused"));
                data_access(guest, Mode::Supervisor, 0, address, Succeeds, &what, |asm| asm.i(Op::Ld, A1, A0, 0));
                guest.check(A1, EBREAK, format!("{what}: load"));
                guest.check_memory(place, clear | A, format!("{what}: after a load"));
                guest.asm.li(A2, EBREAK);
                data_access(guest, Mode::Supervisor, 0, address, Succeeds, &what, |asm| asm.store(Op::Sd, A2, A0, 0));
                guest.check_memory(place, clear | A | D, format!("{what}: after a store"));
                guest.poke(place, 8, clear);
                fetch(guest, Mode::Supervisor, 0, address, Succeeds, &what);
                guest.check_memory(place, clear | A, format!("{what}: after a fetch"));
                guest.poke(place, 8, clear);
                data_access(guest, Mode::Supervisor, 0, address, Succeeds, &what, |asm| asm.op(Op::AmoaddD, A1, A0, ZERO, 0));
                guest.check_memory(place, clear | A | D, format!("{what}: after an atomic"));
                guest.poke(place, 8, clear & !W);
                data_access(guest, Mode::Supervisor, 0, address, Faults(STORE_FAULT), &what, |asm| asm.store(Op::Sd, A2, A0, 0));
                guest.check_memory(place, clear & !W, format!("{what}: a store that is refused"));
                guest.poke(place, 8, 0);
            }
        }
    }

    /// Svadu: what cannot be stored to, by PMP, raises the access fault of the original access.
    fn a_table_that_cannot_be_written_raises_access_faults(guest) {
        let address = 0x4000_0000u64;
        guest.poke(TARGET, 8, EBREAK);
        guest.write_csr(number::SATP, satp(8));
        map(guest, 3, address, 0, entry(TARGET, V | R | W | X));
        // All may be read and executed; by M-mode, written too.
        guest.write_csr(number::PMPCFG0, 0x1d);
        all_fault(guest, address, ACCESS_FAULTS, "A is clear");
        guest.write_csr(number::PMPCFG0, 0x1f);
        guest.check_memory(table(3, 0) + 8 * index(address, 0), entry(TARGET, V | R | W | X), "untouched");
    }

    /// Pages are cleared again and again, while code that was compiled long ago runs on them: an
    /// instruction that crosses from one to the next, loads, stores, a jump from one to the other.
    fn hot_code_sets_accessed_and_dirty_when_it_runs(guest) {
        let code = 0x4000_0000u64;
        let data = 0x4000_4000u64;
        let places = [0, 1, 4].map(|page| table(3, 0) + 8 * index(code + page * 4096, 0));
        let clear = |page: u64| entry(TARGET + page * 4096, V | R | W | X);
        guest.write_csr(number::SATP, satp(8));
        for (page, place) in [0, 1, 4].into_iter().zip(places) {
            map(guest, 3, code + page * 4096, 0, clear(page));
            assert_eq!(place, table(3, 0) + 8 * index(code + page * 4096, 0));
        }
        let mut at = TARGET + 4092; // the second of these crosses the page
        for (length, bits) in [(2, 0x0001u64), (4, 0x0005_3583), (4, 0x00b5_3423), (4, EBREAK)] {
            for half in 0..length / 2 {
                guest.poke(at, 2, bits >> (16 * half) & 0xffff);
                at += 2;
            }
        }
        guest.rounds(|guest| {
            for (page, place) in [0, 1, 4].into_iter().zip(places) {
                guest.poke(place, 8, clear(page));
            }
            guest.clear_csr(number::MSTATUS, MPP);
            guest.set_csr(number::MSTATUS, 1 << 11);
            guest.traps(Mode::Machine, 3, code + 4102, "the end", |guest| {
                guest.asm.li(A0, code + 4092);
                guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A0);
                guest.asm.li(A0, data);
                guest.asm.op(Op::Mret, 0, 0, 0, 0);
                code + 4102
            });
            for (what, page, place, marks) in [
                ("the first page of the code", 0, places[0], A),
                ("the page it crosses to", 1, places[1], A),
                ("its data", 4, places[2], A | D),
            ] {
                guest.check_memory(place, clear(page) | marks, what);
            }
        });
    }

    fn a_chain_of_tables_or_a_superpage_at_every_level_translates(guest) {
        for &(mode, levels) in MODES {
            guest.write_csr(number::SATP, satp(mode));
            for leaf_level in 0..levels {
                // addresses in both halves of the address space, and an offset within the page
                for high in [0u64, 1] {
                    let bits = 12 + 9 * levels;
                    let size = 1u64 << (12 + 9 * leaf_level);
                    let page = if high == 1 { u64::MAX << (bits - 1) } else { 0 } | (size * 3) & ((1 << (bits - 1)) - 1);
                    let base = TARGET & !(size - 1);
                    if leaf_level > 2 && base == 0 && high == 1 {
                        continue; // the low half shows all there is to a leaf at physical 0
                    }
                    let address = page | TARGET & (size - 1);
                    map(guest, levels, address, leaf_level, entry(base, RWX));
                    all_succeed(guest, address + 16, TARGET + 16, &format!("satp mode {mode}, leaf at level {leaf_level}, {address:#x}"));
                    map(guest, levels, address, leaf_level, 0);
                    all_fault(guest, address, PAGE_FAULTS, "no longer valid");
                }
            }
        }
    }

    /// 12.3.2, step 6: the low bits of a superpage's number must be zero.
    fn misaligned_superpages_fault(guest) {
        for &(mode, levels) in MODES {
            guest.write_csr(number::SATP, satp(mode));
            for leaf_level in 1..levels {
                let address = 3u64 << (12 + 9 * leaf_level) & ((1 << (11 + 9 * levels)) - 1);
                for bit in [12, 12 + 9 * leaf_level - 1] {
                    let misaligned = TARGET >> (12 + 9 * leaf_level) << (12 + 9 * leaf_level) | 1 << bit;
                    map(guest, levels, address, leaf_level, entry(misaligned, RWX));
                    all_fault(guest, address, PAGE_FAULTS, &format!("mode {mode}, level {leaf_level}, bit {bit}"));
                }
                map(guest, levels, address, leaf_level, 0);
            }
        }
    }

    /// 12.4.1: bits above the translated ones must equal the highest of these.
    fn addresses_must_be_canonical(guest) {
        for &(mode, levels) in MODES {
            guest.write_csr(number::SATP, satp(mode));
            let bits = 12 + 9 * levels;
            let address = 0x20_0000u64;
            map(guest, levels, address, 0, entry(TARGET, RWX));
            all_succeed(guest, address, TARGET, &format!("mode {mode}"));
            for flip in [bits, bits - 1, 63] {
                let wrong = address ^ 1 << flip;
                if flip != bits - 1 {
                    all_fault(guest, wrong, PAGE_FAULTS, &format!("mode {mode}, bit {flip}"));
                }
            }
            let all_ones = address | u64::MAX << bits;
            all_fault(guest, all_ones, PAGE_FAULTS, &format!("mode {mode}: sign without its bit"));
            map(guest, levels, address, 0, 0);
        }
    }

    /// 12.4.1: N, PBMT and the reserved bits, without their extensions; D, A, U in pointers.
    fn reserved_bits_fault_in_leaves_and_pointers(guest) {
        let address = 0x20_0000u64;
        guest.write_csr(number::SATP, satp(8));
        for bit in 54..64 {
            map(guest, 3, address, 0, entry(TARGET, RWX | 1 << bit));
            all_fault(guest, address, PAGE_FAULTS, &format!("leaf with bit {bit}"));
            map(guest, 3, address, 0, entry(TARGET, RWX));
            guest.poke(table(3, 1) + 8 * index(address, 1), 8, entry(table(3, 0), V | 1 << bit));
            all_fault(guest, address, PAGE_FAULTS, &format!("pointer with bit {bit}"));
        }
        for flag in [A, D, U] {
            guest.poke(table(3, 1) + 8 * index(address, 1), 8, entry(table(3, 0), V | flag));
            all_fault(guest, address, PAGE_FAULTS, &format!("pointer with flag {flag:#x}"));
        }
        // G and the bits for software (RSW) mean nothing here
        guest.poke(table(3, 1) + 8 * index(address, 1), 8, entry(table(3, 0), V | G | 3 << 8));
        map(guest, 3, address, 0, entry(TARGET, RWX | G | 3 << 8));
        all_succeed(guest, address, TARGET, "G and RSW");
    }

    /// Step 4: a pointer at level 0 leads nowhere.
    fn a_pointer_at_level_0_faults(guest) {
        guest.write_csr(number::SATP, satp(8));
        map(guest, 3, 0x20_0000, 0, entry(TARGET, V));
        all_fault(guest, 0x20_0000, PAGE_FAULTS, "pointer at level 0");
    }

    /// Step 2: tables outside memory raise access faults of the original access.
    fn tables_and_pages_outside_memory_raise_access_faults(guest) {
        let address = 0x20_0000u64;
        guest.write_csr(number::SATP, 8 << 60 | 0x7000_0000 >> 12);
        all_fault(guest, address, ACCESS_FAULTS, "the root");
        guest.write_csr(number::SATP, satp(8));
        guest.poke(table(3, 2) + 8 * index(address, 2), 8, entry(0x7000_0000, V));
        all_fault(guest, address, ACCESS_FAULTS, "a table");
        map(guest, 3, address, 0, entry(0x7000_0000, RWX));
        all_fault(guest, address, ACCESS_FAULTS, "the page");
        map(guest, 3, address, 0, entry(1 << 55, RWX));
        all_fault(guest, address, ACCESS_FAULTS, "the page, 56 bits");
    }

    /// satp takes effect with the next instruction, whatever was executed from here before.
    fn satp_takes_effect_at_once(guest) {
        // Two pages with the same virtual address: each switches to the other space, then says
        // where it is. S-mode runs at `address`.
        let address = 0x20_0000u64;
        let spaces = [ROOT, ROOT + 0x1_0000];
        let pages = [TARGET, TARGET + 0x1000];
        for (space, page) in spaces.into_iter().zip(pages) {
            guest.poke(space + 8 * index(address, 2), 8, entry(space + 4096, V));
            guest.poke(space + 4096 + 8 * index(address, 1), 8, entry(space + 8192, V));
            guest.poke(space + 8192 + 8 * index(address, 0), 8, entry(page, RWX));
        }
        // csrw satp, a<n>; addi a3, a3, n; j back for the first page
        for (page, (register, increment)) in pages.into_iter().zip([(A2, 1u64), (A1, 0x40)]) {
            guest.poke(page, 4, 0x1800_1073 | u64::from(register) << 15);
            guest.poke(page + 4, 4, 0x0006_8693 | increment << 20);
            guest.poke(page + 8, 4, 0xfff7_0713); // addi a4, a4, -1
            guest.poke(page + 12, 4, 0xfe07_1ae3); // bnez a4, start
            guest.poke(page + 16, 4, EBREAK);
        }
        // Nine times around: to the other page each time (5 x 0x40, 4 x 1); then the same code with
        // the space that it is in already, and to the other page again.
        for (second, sum) in [(1, 5 * 0x40 + 4), (0, 9), (1, 5 * 0x40 + 4), (0, 9u64)] {
            guest.asm.li(A1, 8 << 60 | spaces[0] >> 12);
            guest.asm.li(A2, 8 << 60 | spaces[second] >> 12);
            guest.asm.li(A3, 0);
            guest.asm.li(A4, 9);
            guest.asm.csr(Op::Csrrw, ZERO, number::SATP, A1);
            guest.clear_csr(number::MSTATUS, MPP);
            guest.set_csr(number::MSTATUS, 1 << 11);
            guest.traps(Mode::Machine, 3, address + 16, "the loop's end", |guest| {
                guest.asm.li(A0, address);
                guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A0);
                guest.asm.op(Op::Mret, 0, 0, 0, 0);
                address + 16
            });
            guest.check(A3, sum, "each csrw was followed by the addi of the page that it maps");
        }
    }

    fn atomics_and_floats_fault_like_stores_and_loads(guest) {
        let address = 0x20_0000u64;
        guest.write_csr(number::SATP, satp(8));
        map(guest, 3, address, 0, entry(TARGET, V | R | A | D));
        let fault = |cause| Outcome::Faults(cause);
        let mode = Mode::Supervisor;
        data_access(guest, mode, 0, address, Outcome::Succeeds, "lr", |asm| asm.op(Op::LrD, A1, A0, 0, 0));
        data_access(guest, mode, 0, address, fault(STORE_FAULT), "sc", |asm| asm.op(Op::ScD, A1, A0, A2, 0));
        data_access(guest, mode, 0, address, fault(STORE_FAULT), "amo", |asm| asm.op(Op::AmoorW, A1, A0, A2, 0));
        data_access(guest, mode, 0, address, fault(STORE_FAULT), "fsd", |asm| asm.store(Op::Fsd, 1, A0, 0));
        map(guest, 3, address, 0, entry(TARGET, V | X | A));
        data_access(guest, mode, 0, address, fault(LOAD_FAULT), "lr", |asm| asm.op(Op::LrW, A1, A0, 0, 0));
        data_access(guest, mode, 0, address, fault(LOAD_FAULT), "fld", |asm| asm.i(Op::Fld, 1, A0, 0));
        data_access(guest, mode, MXR, address, Outcome::Succeeds, "fld with MXR", |asm| asm.i(Op::Fld, 1, A0, 0));
    }

    /// An access over two pages faults with the address of the part that does, and does nothing.
    fn an_access_across_pages_needs_both(guest) {
        let address = 0x20_0000u64;
        let leaf = |page: u64| table(3, 0) + 8 * (index(address, 0) + page);
        guest.write_csr(number::SATP, satp(8));
        map(guest, 3, address, 0, entry(TARGET, RWX));
        // the second page lies before the first in physical memory
        let second = TARGET - 0x5000;
        guest.poke(leaf(1), 8, entry(second, RWX));
        guest.poke(TARGET + 0xff8, 8, 0x1111_1111_1111_1111);
        guest.poke(second, 8, 0x2222_2222_2222_2222);
        let at = address + 0xffd;
        data_access(guest, Mode::Supervisor, 0, at, Outcome::Succeeds, "ld", |asm| asm.i(Op::Ld, A1, A0, 0));
        guest.check(A1, 0x2222_2222_2211_1111, "ld");
        guest.asm.li(A2, 0x8877_6655_4433_2211);
        data_access(guest, Mode::Supervisor, 0, at, Outcome::Succeeds, "sd", |asm| asm.store(Op::Sd, A2, A0, 0));
        guest.check_memory(TARGET + 0xff8, 0x3322_1111_1111_1111, "sd, first page");
        guest.check_memory(second, 0x2222_2288_7766_5544, "sd, second page");
        guest.poke(leaf(1), 8, entry(second, V | R | X | A));
        guest.asm.li(A0, at);
        guest.clear_csr(number::MSTATUS, MPP);
        guest.set_csr(number::MSTATUS, 1 << 11);
        guest.asm.li(A5, MPRV);
        guest.traps(Mode::Machine, STORE_FAULT, address + 0x1000, "sd, second page", |guest| {
            guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A5);
            let pc = guest.asm.bound_label();
            guest.asm.store(Op::Sd, A2, A0, 0);
            pc
        });
        guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A5);
        guest.check_memory(TARGET + 0xff8, 0x3322_1111_1111_1111, "nothing was stored");
        // an instruction across the pages: mepc is its first half, mtval its second
        guest.poke(TARGET + 0xffe, 2, 0x0513);
        guest.poke(leaf(1), 8, 0);
        guest.clear_csr(number::MSTATUS, MPP);
        guest.set_csr(number::MSTATUS, 1 << 11);
        guest.traps(Mode::Machine, FETCH_FAULT, address + 0x1000, "fetch, second page", |guest| {
            guest.asm.li(A0, address + 0xffe);
            guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A0);
            guest.asm.op(Op::Mret, 0, 0, 0, 0);
            address + 0xffe
        });
        guest.check_memory(TRAP_STATUS, crate::guest::Expected::Bits(MPP, 1 << 11), "from S");
        // a compressed instruction there needs only the first
        guest.poke(TARGET + 0xffe, 2, 0x9002);
        fetch(guest, Mode::Supervisor, 0, address + 0xffe, Outcome::Succeeds, "c.ebreak at the end");
    }

    /// A store to a table counts for the next access, by whichever address it is written.
    fn a_changed_entry_counts_at_once(guest) {
        guest.write_csr(number::MENVCFG, 0);
        let address = 0x20_0000u64;
        let window = 0x40_0000u64;
        let leaf = table(3, 0) + 8 * index(address, 0);
        guest.write_csr(number::SATP, satp(8));
        map(guest, 3, address, 0, entry(TARGET, RWX));
        // the window shows the table itself, through the table of the same level
        guest.poke(table(3, 1) + 8 * index(window, 1), 8, entry(table(3, 1) + 0x8000, V));
        guest.poke(table(3, 1) + 0x8000, 8, entry(table(3, 0), RWX));
        for page in 0..4u64 {
            guest.poke(TARGET + page * 4096, 8, EBREAK | page << 40);
        }
        for round in 1..12u64 {
            let page = round * 5 % 4;
            guest.asm.li(A2, entry(TARGET + page * 4096, RWX));
            if round % 2 == 0 {
                guest.asm.li(A1, leaf);
                guest.asm.store(Op::Sd, A2, A1, 0);
            } else {
                data_access(guest, Mode::Supervisor, 0, window + (leaf & 0xfff), Outcome::Succeeds, "store to the table", |asm| {
                    asm.store(Op::Sd, A2, A0, 0);
                });
            }
            data_access(guest, Mode::Supervisor, 0, address, Outcome::Succeeds, "load", |asm| asm.i(Op::Ld, A1, A0, 0));
            guest.check(A1, EBREAK | page << 40, format!("round {round}"));
            fetch(guest, Mode::Supervisor, 0, address, Outcome::Succeeds, "fetch");
            // one byte of the entry: clears A and D, then V
            for byte in [RWX & !(A | D), 0] {
                guest.poke(leaf, 1, byte);
                all_fault(guest, address, PAGE_FAULTS, &format!("round {round}, low byte {byte:#x}"));
            }
        }
    }

    /// M-mode is not translated, whatever satp says; Bare translates nothing in S and U.
    fn machine_mode_and_bare_do_not_translate(guest) {
        guest.poke(TARGET, 8, EBREAK);
        guest.write_csr(number::SATP, 8 << 60); // a root at physical 0: everything would fault
        guest.asm.li(A0, TARGET);
        guest.asm.i(Op::Ld, A1, A0, 0);
        guest.check(A1, EBREAK, "M-mode");
        all_fault(guest, TARGET, ACCESS_FAULTS, "S-mode");
        guest.write_csr(number::SATP, 0);
        all_succeed(guest, TARGET, TARGET, "Bare");
        guest.write_csr(number::SATP, 0x0fff_ffff_ffff_ffff);
        all_succeed(guest, TARGET, TARGET, "Bare, whatever the other fields");
    }

    fn many_address_spaces_do_not_mix(guest) {
        // 300 roots that differ in nothing but ASID, then 3 that differ in what they map
        let address = 0x20_0000u64;
        map(guest, 3, address, 0, entry(TARGET, RWX));
        guest.poke(TARGET, 8, 77);
        for asid in 0..300u64 {
            guest.write_csr(number::SATP, satp(8) | asid << 44);
            data_access(guest, Mode::Supervisor, 0, address, Outcome::Succeeds, "load", |asm| asm.i(Op::Ld, A1, A0, 0));
            guest.check(A1, 77, format!("ASID {asid}"));
            let other = u64::from(asid % 7 == 3);
            guest.write_csr(number::SATP, (satp(8) | asid << 44) + other * 0x100);
            let outcome = if other == 1 { Outcome::Faults(LOAD_FAULT) } else { Outcome::Succeeds };
            data_access(guest, Mode::Supervisor, 0, address, outcome, "an empty root", |asm| asm.i(Op::Ld, A1, A0, 0));
        }
    }

    /// Two address spaces with equal upper halves, as kernels make them; then only one changes.
    fn an_upper_half_that_was_shared_and_changes_is_that_of_one_space(guest) {
        for &(mode, levels) in MODES {
            let other_root = ROOT + 0x8000;
            let address = u64::MAX << (12 + 9 * levels - 1) | 0x20_0000;
            let free = address + (1 << (12 + 9 * (levels - 1))); // another entry of the root
            let root_entry = 8 * index(address, levels - 1);
            let spaces = [satp(mode), mode << 60 | other_root >> 12];
            let load = |guest: &mut Guest, space: usize, address: u64, outcome: Outcome, what: &str| {
                guest.write_csr(number::SATP, spaces[space]);
                data_access(guest, Mode::Supervisor, 0, address, outcome, what, |asm| asm.i(Op::Ld, A1, A0, 0));
            };
            map(guest, levels, address, 0, entry(TARGET, RWX));
            guest.poke(TARGET, 8, 77);
            let pointer = entry(table(levels, levels - 2), V);
            guest.poke(other_root + root_entry, 8, pointer);
            for round in 0..3 {
                for space in [0, 1, 0, 1] {
                    let what = format!("Sv of mode {mode}, round {round}, space {space}");
                    load(guest, space, address, Outcome::Succeeds, &what);
                    guest.check(A1, 77, &what);
                    all_succeed(guest, address, TARGET, &what);
                    guest.poke(TARGET, 8, 77);
                }
                // the root that satp does not name, then the one that it does
                for changed in [0, 1] {
                    let what = format!("mode {mode}, round {round}, root {changed} was emptied");
                    let root = [ROOT, other_root][changed];
                    guest.poke(root + root_entry, 8, 0);
                    load(guest, 1 - changed, address, Outcome::Succeeds, &what);
                    load(guest, changed, address, Outcome::Faults(LOAD_FAULT), &what);
                    guest.poke(root + root_entry, 8, pointer);
                    load(guest, changed, address, Outcome::Succeeds, &what);
                }
            }
            // a lower half changes meanwhile, by which roots that are not in use are forgotten
            load(guest, 1, address, Outcome::Succeeds, "in use");
            load(guest, 0, address, Outcome::Succeeds, "not in use");
            guest.poke(ROOT + 8 * 3, 8, pointer);
            guest.poke(ROOT + 8 * 3, 8, 0);
            guest.poke(other_root + root_entry, 8, 0);
            load(guest, 1, address, Outcome::Faults(LOAD_FAULT), "changed when it was not in use");
            guest.poke(other_root + root_entry, 8, pointer);
            // what was not there appears in one of them only
            load(guest, 0, free, Outcome::Faults(LOAD_FAULT), "nothing there yet");
            guest.poke(other_root + 8 * index(free, levels - 1), 8, pointer);
            load(guest, 0, free, Outcome::Faults(LOAD_FAULT), "nothing here yet");
            load(guest, 1, free, Outcome::Succeeds, "appeared");
            load(guest, 0, free, Outcome::Faults(LOAD_FAULT), "nothing here still");
        }
    }

    /// Address spaces share their upper half while supervisor code uses lower ones, which differ.
    fn supervisor_pages_in_lower_halves_do_not_mix(guest) {
        let (upper, lower) = (u64::MAX << 38 | 0x20_0000, 0x20_0000u64);
        let roots = [ROOT, ROOT + 0x8000];
        let middle = ROOT + 0x9000;
        map(guest, 3, upper, 0, entry(TARGET, RWX));
        guest.poke(roots[1] + 8 * index(upper, 2), 8, entry(table(3, 1), V));
        // 1 GiB each of lower half: the pages differ in the table of level 1
        guest.poke(roots[0] + 8 * index(lower, 2), 8, entry(table(3, 1), V));
        guest.poke(roots[1] + 8 * index(lower, 2), 8, entry(middle, V));
        guest.poke(middle + 8 * index(lower, 1), 8, entry(middle + 0x1000, V));
        guest.poke(middle + 0x1000 + 8 * index(lower, 0), 8, entry(TARGET + 4096, RWX));
        guest.poke(TARGET, 8, 70);
        guest.poke(TARGET + 4096, 8, 71);
        for round in 0..6u64 {
            for space in [0, 1] {
                guest.write_csr(number::SATP, 8 << 60 | roots[space as usize] >> 12);
                for (address, expected) in [(upper, 70), (lower, 70 + space), (upper, 70), (lower, 70 + space)] {
                    let what = format!("round {round}, space {space}, {address:#x}");
                    data_access(guest, Mode::Supervisor, 0, address, Outcome::Succeeds, &what, |asm| asm.i(Op::Ld, A1, A0, 0));
                    guest.check(A1, expected, &what);
                }
            }
        }
    }

    /// A change of a user page's entry counts for all who see it, and one of a supervisor page's too.
    fn a_changed_leaf_counts_for_whoever_sees_its_page(guest) {
        let address = 0x20_0000u64;
        let leaf = table(3, 0) + 8 * index(address, 0);
        guest.write_csr(number::SATP, satp(8));
        map(guest, 3, address, 0, entry(TARGET, RWX));
        for page in 0..4u64 {
            guest.poke(TARGET + page * 4096, 8, 90 + page);
        }
        let viewers = [(Mode::User, 0), (Mode::Supervisor, 0), (Mode::Supervisor, SUM), (Mode::User, SUM)];
        for round in 0..16u64 {
            let page = round * 3 % 4;
            let user = [0, U][(round >> 1 & 1) as usize];
            guest.poke(leaf, 8, entry(TARGET + page * 4096, RWX | user));
            for (mode, bits) in viewers {
                let sees = if user == U { mode == Mode::User || bits == SUM } else { mode == Mode::Supervisor };
                let outcome = if sees { Outcome::Succeeds } else { Outcome::Faults(LOAD_FAULT) };
                let what = format!("round {round}, {mode:?} with {bits:#x}");
                data_access(guest, mode, bits, address, outcome, &what, |asm| asm.i(Op::Ld, A1, A0, 0));
                if sees {
                    guest.check(A1, 90 + page, what);
                }
            }
        }
    }

    /// A page that held a table holds data for a while, is stored to by quick stores, and then holds
    /// a table again: what is stored there counts again.
    fn a_page_that_is_a_table_by_turns_is_watched_by_turns(guest) {
        let (address, window) = (0x20_0000u64, 0x40_0000u64);
        let middle = table(3, 1);
        let bottom = table(3, 0);
        let window_bottom = ROOT + 0x8000;
        guest.write_csr(number::SATP, satp(8));
        map(guest, 3, address, 0, entry(TARGET, RWX));
        // the window shows the bottom table
        guest.poke(middle + 8 * index(window, 1), 8, entry(window_bottom, V));
        guest.poke(window_bottom, 8, entry(bottom, RWX));
        for page in 0..4u64 {
            guest.poke(TARGET + page * 4096, 8, 60 + page);
        }
        let load = |guest: &mut Guest, outcome: Outcome, what: &str| {
            data_access(guest, Mode::Supervisor, 0, address, outcome, what, |asm| asm.i(Op::Ld, A1, A0, 0));
        };
        for round in 0..8u64 {
            let what = format!("round {round}");
            load(guest, Outcome::Succeeds, &what);
            guest.poke(middle + 8 * index(address, 1), 8, 0); // a lower half lost a table
            load(guest, Outcome::Faults(LOAD_FAULT), &what);
            for _ in 0..3 {
                guest.asm.li(A2, entry(TARGET + round % 4 * 4096, RWX));
                data_access(guest, Mode::Supervisor, 0, window + 8 * index(address, 0), Outcome::Succeeds, &what, |asm| {
                    asm.store(Op::Sd, A2, A0, 0);
                });
            }
            guest.poke(middle + 8 * index(address, 1), 8, entry(bottom, V));
            load(guest, Outcome::Succeeds, &what);
            guest.check(A1, 60 + round % 4, &what);
            guest.asm.li(A2, entry(TARGET + (round + 1) % 4 * 4096, RWX));
            data_access(guest, Mode::Supervisor, 0, window + 8 * index(address, 0), Outcome::Succeeds, &what, |asm| {
                asm.store(Op::Sd, A2, A0, 0);
            });
            load(guest, Outcome::Succeeds, &what);
            guest.check(A1, 60 + (round + 1) % 4, &what);
        }
    }
}
