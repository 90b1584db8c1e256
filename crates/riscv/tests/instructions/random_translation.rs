//! Random page tables, random accesses, random changes: every access behaves as if freshly walked,
//! with warm caches and with cold ones, whoever changed the tables: M-mode stores, stores through
//! the very translations, atomics, or a device's DMA. No `sfence.vma` anywhere.
//!
//! What has to come out is computed by a walk of its own, written from the specification.

#[path = "../determinism/random.rs"]
mod random;

use crate::assembler::register::*;
use crate::guest::{Guest, MEMORY_BYTES, Mode, SCRATCH};
use random::Random;
use riscv::hart::csr::number;
use riscv::isa::Op;
use riscv::memory::RAM_BASE;

/// Page-table pages and data pages, all of which the model knows.
const ARENA: u64 = SCRATCH;
const TABLE_PAGES: u64 = 10;
/// The level at which each of them is mostly walked.
const LEVELS: [u64; TABLE_PAGES as usize] = [4, 3, 3, 2, 2, 1, 1, 0, 0, 0];
const DATA_PAGES: u64 = 14;
const ARENA_BYTES: u64 = (TABLE_PAGES + DATA_PAGES) * 4096;

/// Entries of each table that are used; the same numbers make up the addresses.
const INDICES: &[u64] = &[0, 1, 2, 256, 511];

const MPP: u64 = 3 << 11;
const MPRV: u64 = 1 << 17;
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;

const EBREAK: u64 = 0x0010_0073;

/// Tables that are roots of the same mode: where their upper halves are to be alike, the second is a
/// copy of the first.
const TWINS: [[u64; 2]; 2] = [[1, 2], [3, 4]];

/// Steps of a program.
const STEPS: u64 = 700;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fetch,
    Load,
    Store,
}

/// What the model knows of the machine.
struct Model {
    arena: Vec<u8>,
    satp: u64,
    /// `menvcfg.ADUE`.
    updates: bool,
}

/// Causes by kind of access.
fn page_fault(kind: Kind) -> u64 {
    match kind {
        Kind::Fetch => 12,
        Kind::Load => 13,
        Kind::Store => 15,
    }
}

fn access_fault(kind: Kind) -> u64 {
    match kind {
        Kind::Fetch => 1,
        Kind::Load => 5,
        Kind::Store => 7,
    }
}

impl Model {
    /// Whether all of these bytes are in the arena, and where.
    fn place(&self, address: u64, size: u64) -> Option<usize> {
        let offset = address.checked_sub(ARENA)?;
        (offset + size <= ARENA_BYTES).then_some(offset as usize)
    }

    fn read(&self, address: u64, size: u64) -> Option<u64> {
        let at = self.place(address, size)?;
        let mut bytes = [0; 8];
        bytes[..size as usize].copy_from_slice(&self.arena[at..at + size as usize]);
        Some(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, address: u64, size: u64, value: u64) {
        let at = self.place(address, size).expect("writes stay in the arena");
        let bytes = &value.to_le_bytes()[..size as usize];
        self.arena[at..at + size as usize].copy_from_slice(bytes);
    }

    /// The translation algorithm (privileged specification, 12.3.2), step by step. `None` if it leads
    /// through memory that the model does not know.
    /// Adds the addresses of the entries that it reads to `path`.
    fn translate(&self, access: Access, path: &mut Vec<u64>) -> Option<Result<u64, u64>> {
        let Access {
            kind,
            mode,
            bits,
            address: va,
        } = access;
        let levels: u64 = match self.satp >> 60 {
            8 => 3,
            9 => 4,
            10 => 5,
            _ => return Some(Ok(va)),
        };
        let fault = Some(Err(page_fault(kind)));
        let top = 12 + 9 * levels - 1;
        let above = va >> top;
        if above != 0 && above != u64::MAX >> top {
            return fault;
        }
        // step 1
        let mut a = (self.satp & 0xfff_ffff_ffff) * 4096;
        let mut i = levels - 1;
        loop {
            // step 2
            let vpn = va >> (12 + 9 * i) & 0x1ff;
            let address = a + vpn * 8;
            if !(RAM_BASE..RAM_BASE + MEMORY_BYTES).contains(&address) {
                return Some(Err(access_fault(kind)));
            }
            let pte = self.read(address, 8)?;
            path.push(address);
            let bit = |n: u64| pte >> n & 1 == 1;
            let (v, r, w, x, u, accessed, dirty) =
                (bit(0), bit(1), bit(2), bit(3), bit(4), bit(6), bit(7));
            // step 3
            if !v || !r && w || pte >> 54 != 0 {
                return fault;
            }
            let ppn = pte >> 10 & 0xfff_ffff_ffff;
            // step 4
            if !r && !x {
                if i == 0 || u || accessed || dirty {
                    return fault;
                }
                i -= 1;
                a = ppn * 4096;
                continue;
            }
            // steps 5 and 6
            let right = match kind {
                Kind::Fetch => x,
                Kind::Load => r || x && bits & MXR != 0,
                Kind::Store => w,
            };
            let privilege = match mode {
                Mode::User => u,
                _ => !u || kind != Kind::Fetch && bits & SUM != 0,
            };
            let aligned = ppn & ((1 << (9 * i)) - 1) == 0;
            // step 7, with Svade where there are no updates
            let marked = accessed && (kind != Kind::Store || dirty);
            if !right || !privilege || !aligned || !marked && !self.updates {
                return fault;
            }
            // step 8
            let offset_bits = 12 + 9 * i;
            let base = (ppn * 4096) >> offset_bits << offset_bits;
            return Some(Ok(base | va & ((1 << offset_bits) - 1)));
        }
    }
}

impl Model {
    /// Step 9, with Svadu: the access happens, the leaf is the last of the path. Gives the entry that
    /// was there.
    fn mark(&mut self, kind: Kind, path: &[u64]) -> (u64, u64) {
        let leaf = *path.last().expect("a walk read something");
        let old = self.read(leaf, 8).expect("the walk read it");
        let marks = if kind == Kind::Store { 0xc0 } else { 0x40 };
        self.write(leaf, 8, old | marks);
        (leaf, old)
    }
}

/// One access.
#[derive(Clone, Copy, Debug)]
struct Access {
    kind: Kind,
    mode: Mode,
    /// SUM and MXR.
    bits: u64,
    address: u64,
}

/// Makes the program and its model in step.
struct Scenario {
    random: Random,
    model: Model,
    guest: Guest,
    /// Address spaces change often, and have equal upper halves as those of kernels do.
    alike: bool,
    /// Accesses that succeeded lately, and the entries that their walks read.
    recent: Vec<(Access, Vec<u64>)>,
    /// What happened how often: page faults, successes by kind, changes by way.
    seen: Seen,
}

#[derive(Default, Debug)]
struct Seen {
    faults: u32,
    loads: u32,
    stores: u32,
    stores_to_tables: u32,
    fetches: u32,
    transfers: u32,
    /// Entries of which the walk set A or D.
    marks: u32,
}

impl Scenario {
    fn new(seed: u64, alike: bool) -> Scenario {
        let model = Model {
            arena: vec![0; ARENA_BYTES as usize],
            satp: 0,
            updates: true,
        };
        let mut scenario = Scenario {
            random: Random::new(seed),
            model,
            guest: Guest::new(),
            alike,
            recent: Vec::new(),
            seen: Seen::default(),
        };
        scenario.guest.set_up_transfers();
        for page in 0..TABLE_PAGES {
            for &index in INDICES {
                let entry = scenario.entry_for(page);
                scenario.poke(ARENA + page * 4096 + index * 8, 8, entry);
            }
        }
        for page in TABLE_PAGES..TABLE_PAGES + DATA_PAGES {
            let address = ARENA + page * 4096;
            for (offset, value) in [(0, EBREAK), (8, page << 32 | EBREAK), (4088, page)] {
                scenario.poke(address + offset, 8, value);
            }
        }
        if alike {
            scenario.copy_upper_halves();
        }
        scenario.change_space();
        scenario
    }

    /// As kernels do for a new address space.
    fn copy_upper_halves(&mut self) {
        for [from, to] in TWINS {
            for &index in INDICES.iter().filter(|&&index| index >= 256) {
                let [from, to] = [from, to].map(|page| ARENA + page * 4096 + index * 8);
                let entry = self.model.read(from, 8).expect("it is in the arena");
                if self.model.read(to, 8) != Some(entry) {
                    self.poke(to, 8, entry);
                }
            }
        }
    }

    /// An M-mode store, in the program and in the model.
    fn poke(&mut self, address: u64, size: u64, value: u64) {
        self.guest.poke(address, size as usize, value);
        self.model.write(address, size, value);
    }

    fn table(&mut self) -> u64 {
        ARENA + self.random.below(TABLE_PAGES) * 4096
    }

    /// A table that is mostly walked at this level.
    fn table_of_level(&mut self, level: u64) -> u64 {
        loop {
            let page = self.random.below(TABLE_PAGES);
            if LEVELS[page as usize] == level {
                return ARENA + page * 4096;
            }
        }
    }

    /// Mostly something that leads on from this table.
    fn entry_for(&mut self, page: u64) -> u64 {
        let level = LEVELS[page as usize];
        if self.random.once_in(5) {
            return self.random_entry();
        }
        if level > 0 {
            return (self.table_of_level(level - 1) >> 12) << 10 | 1;
        }
        let flags = self
            .random
            .pick(&[0xcf, 0x0f, 0xdf, 0x1f, 0xc7, 0x57, 0xcb, 0xdb, 0x49]);
        let page = self.random.below(TABLE_PAGES + DATA_PAGES);
        ((ARENA >> 12) + page) << 10 | flags
    }

    fn random_entry(&mut self) -> u64 {
        let entry = |address: u64, flags: u64| (address >> 12) << 10 | flags;
        let flags = self
            .random
            .pick(&[0xcf, 0xdf, 0xc7, 0xcb, 0xc9, 0x4f, 0x8f, 0xd3]);
        let table = self.table();
        let data = ARENA + (TABLE_PAGES + self.random.below(DATA_PAGES)) * 4096;
        match self.random.below(12) {
            0..2 => entry(table, 1),
            2..4 => entry(data, flags),
            4..6 => entry(table, flags),
            6..8 => entry(ARENA & !0x1f_ffff, flags), // 2 MiB, aligned
            8 => entry(ARENA & !0x3fff_ffff, flags),  // 1 GiB, aligned
            9 => 0,
            10 => entry(data, flags) ^ 1 << self.random.below(64),
            _ => self.random.magnitude(),
        }
    }

    /// An address made of the indices in use.
    fn random_address(&mut self) -> u64 {
        let levels: u64 = match self.model.satp >> 60 {
            8 => 3,
            9 => 4,
            _ => 5,
        };
        let mut address = 0;
        for level in 0..levels {
            address |= self.random.pick(INDICES) << (12 + 9 * level);
        }
        let bits = 12 + 9 * levels;
        if address >> (bits - 1) & 1 == 1 {
            address |= u64::MAX << bits;
        }
        if self.random.once_in(40) {
            address ^= 1 << (bits + self.random.below(64 - bits));
        }
        let entry = 8 * self.random.pick(INDICES);
        address | self.random.pick(&[0, 8, 4088, entry, entry])
    }

    fn change_space(&mut self) {
        let modes = if self.alike {
            [8u64, 8, 9, 9]
        } else {
            [8, 8, 9, 10]
        };
        let mode = self.random.pick(&modes);
        let level = match mode {
            8 => 2,
            9 => 3,
            _ => 4,
        };
        let root = if self.random.once_in(8) {
            self.table()
        } else {
            self.table_of_level(level)
        };
        self.model.satp = mode << 60 | self.random.below(3) << 44 | root >> 12;
        self.guest.write_csr(number::SATP, self.model.satp);
    }

    fn change_updates(&mut self) {
        self.model.updates = !self.model.updates;
        let value = u64::from(self.model.updates) << 61;
        self.guest.write_csr(number::MENVCFG, value);
    }

    fn step(&mut self, number: u64) {
        match self.random.below(20) {
            0 if self.alike => self.copy_upper_halves(),
            0 if self.random.once_in(2) => self.change_space(),
            0 if self.random.once_in(4) => self.change_updates(),
            4..9 if self.alike => {
                self.change_space();
                self.access(number);
            }
            1..3 => {
                // a whole entry, or a part of one
                let address = self.entry_to_change();
                let size = self.random.pick(&[8u64, 8, 8, 8, 4, 1]);
                let value = self.entry_for((address - ARENA) / 4096);
                self.poke(address, size, value);
            }
            3 => {
                let address = self.entry_to_change();
                let value = self.entry_for((address - ARENA) / 4096);
                self.guest.transfer(address, value);
                self.model.write(address, 8, value);
                self.seen.transfers += 1;
            }
            _ => self.access(number),
        }
    }

    /// An entry that translations were made with lately, or any.
    fn entry_to_change(&mut self) -> u64 {
        let count = self.recent.len() as u64;
        if self.alike && self.random.once_in(4) {
            let page = self.random.pick(&TWINS)[self.random.below(2) as usize];
            return ARENA + page * 4096 + 8 * self.random.pick(INDICES);
        }
        if count == 0 || self.random.once_in(3) {
            return self.table() + 8 * self.random.pick(INDICES);
        }
        let (_, path) = &self.recent[self.random.below(count) as usize];
        path[self.random.below(path.len() as u64) as usize]
    }

    fn random_access(&mut self) -> Access {
        let count = self.recent.len() as u64;
        if count > 0 && self.random.once_in(2) {
            let (access, _) = self.recent[self.random.below(count) as usize];
            let kind = self.random.pick(&[Kind::Load, access.kind]);
            let address = if kind == Kind::Fetch {
                access.address
            } else {
                access.address ^ 8
            };
            return Access {
                kind,
                address,
                ..access
            };
        }
        let mut access = Access {
            kind: self
                .random
                .pick(&[Kind::Load, Kind::Load, Kind::Store, Kind::Fetch]),
            mode: self
                .random
                .pick(&[Mode::User, Mode::Supervisor, Mode::Supervisor]),
            bits: self.random.pick(&[0, SUM, MXR, SUM | MXR]),
            address: self.random_address(),
        };
        while self.alike && access.mode == Mode::Supervisor && access.address >> 63 == 0 {
            if self.random.once_in(30) {
                break; // else upper halves would soon be shared no more
            }
            access.address = self.random_address();
        }
        access
    }

    /// An access that succeeds more often than chance would have it.
    fn promising_access(&mut self) -> Access {
        let mut access = self.random_access();
        for _ in 0..self.random.pick(&[0, 40, 40]) {
            let outcome = self.model.translate(access, &mut Vec::new());
            if let Some(Ok(physical)) = outcome
                && self.model.place(physical, 8).is_some()
            {
                break;
            }
            access = self.random_access();
        }
        access
    }

    fn access(&mut self, number: u64) {
        let access = self.promising_access();
        let mut path = Vec::new();
        let Some(outcome) = self.model.translate(access, &mut path) else {
            return;
        };
        let Access {
            kind,
            mode,
            bits,
            address,
        } = access;
        let size = if kind == Kind::Fetch { 4 } else { 8 };
        if let Ok(physical) = outcome
            && self.model.place(physical, size).is_none()
        {
            return; // code, results, devices: not for random accesses
        }
        let what = format!(
            "step {number}: {kind:?} {address:#x} from {mode:?} with {bits:#x}, satp {:#x}",
            self.model.satp
        );
        self.seen.faults += u32::from(outcome.is_err());
        if let Ok(physical) = outcome {
            let (leaf, old) = self.model.mark(kind, &path);
            if kind == Kind::Fetch && self.model.read(physical, 4) != Some(EBREAK) {
                self.model.write(leaf, 8, old);
                return; // it would execute a page table
            }
            self.seen.marks += u32::from(self.model.read(leaf, 8) != Some(old));
            self.recent.push((access, path));
            self.recent.drain(..self.recent.len().saturating_sub(6));
        }
        match kind {
            Kind::Fetch => self.fetch(mode, address, outcome, &what),
            _ => self.data(kind, mode, bits, address, outcome, &what),
        }
    }

    fn fetch(&mut self, mode: Mode, address: u64, outcome: Result<u64, u64>, what: &str) {
        let cause = match outcome {
            Err(cause) => cause,
            Ok(_) => {
                self.seen.fetches += 1;
                3
            }
        };
        let guest = &mut self.guest;
        guest.clear_csr(number::MSTATUS, MPP | SUM | MXR);
        guest.set_csr(number::MSTATUS, (mode as u64) << 11);
        guest.traps(Mode::Machine, cause, address, what, |guest| {
            guest.asm.li(A0, address);
            guest.asm.csr(Op::Csrrw, ZERO, number::MEPC, A0);
            guest.asm.op(Op::Mret, 0, 0, 0, 0);
            address
        });
    }

    fn data(
        &mut self,
        kind: Kind,
        mode: Mode,
        bits: u64,
        address: u64,
        outcome: Result<u64, u64>,
        what: &str,
    ) {
        let page = self.random.below(TABLE_PAGES);
        let value = self.entry_for(page);
        let amo = kind == Kind::Store && self.random.once_in(3);
        let guest = &mut self.guest;
        guest.asm.li(A0, address);
        guest.asm.li(A2, value);
        guest.asm.li(A5, (mode as u64) << 11 | bits | MPRV);
        guest.asm.li(A6, MPP | SUM | MXR | MPRV);
        guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
        let emit = |guest: &mut Guest| {
            guest.asm.csr(Op::Csrrs, ZERO, number::MSTATUS, A5);
            let pc = guest.asm.bound_label();
            match kind {
                Kind::Load => guest.asm.i(Op::Ld, A1, A0, 0),
                _ if amo => guest.asm.op(Op::AmoswapD, A1, A0, A2, 0),
                _ => guest.asm.store(Op::Sd, A2, A0, 0),
            }
            pc
        };
        match outcome {
            Err(cause) => guest.traps(Mode::Machine, cause, address, what, emit),
            Ok(_) => drop(emit(guest)),
        }
        guest.asm.csr(Op::Csrrc, ZERO, number::MSTATUS, A6);
        let Ok(physical) = outcome else { return };
        let old = self.model.read(physical, 8).expect("it is in the arena");
        if kind == Kind::Load || amo {
            guest.check(A1, old, what);
        }
        self.seen.loads += u32::from(kind == Kind::Load);
        if kind == Kind::Store {
            self.seen.stores += 1;
            self.seen.stores_to_tables += u32::from(physical < ARENA + TABLE_PAGES * 4096);
            self.model.write(physical, 8, value);
        }
    }
}

fn run(seeds: std::ops::Range<u64>, alike: bool) {
    let mut total = Seen::default();
    for seed in seeds {
        let mut scenario = Scenario::new(seed, alike);
        for number in 0..STEPS {
            scenario.step(number);
        }
        let Scenario {
            mut guest, seen, ..
        } = scenario;
        total.faults += seen.faults;
        total.loads += seen.loads;
        total.stores += seen.stores;
        total.stores_to_tables += seen.stores_to_tables;
        total.fetches += seen.fetches;
        total.transfers += seen.transfers;
        total.marks += seen.marks;
        guest.also_restored_every(2111);
        guest.run(); // says which step of which program, and its registers
    }
    let least = total
        .faults
        .min(total.loads)
        .min(total.stores_to_tables)
        .min(total.fetches)
        .min(total.transfers)
        .min(total.marks);
    assert!(least > 20, "something hardly ever happened: {total:?}");
}

#[test]
fn every_access_is_as_if_freshly_walked() {
    run(0..4, false);
}

#[test]
fn every_access_is_as_if_freshly_walked_whatever_the_tables() {
    run(4..8, false);
}

/// What one address space shows in an upper half must not be seen in another that had the same one.
#[test]
fn every_access_is_as_if_freshly_walked_where_upper_halves_are_alike() {
    run(8..12, true);
}
