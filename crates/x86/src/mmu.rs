//! Four-level paging (SDM volume 3, chapter 4) and the cache of its results.
//!
//! Every access behaves as if its tables were freshly walked: pages that a walk read are flagged in
//! RAM, and a store to one drops what it may concern. So the guest never sees the cache, INVLPG has
//! nothing to do, and two hosts may have caches of different sizes.

use crate::cpu::Registers;
use crate::fault::Fault;
use crate::ram::{Half, Leaf, Ram, Table};

/// Physical address bits that the machine announces.
pub const PHYSICAL_BITS: u32 = 40;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
pub(crate) const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = ((1 << PHYSICAL_BITS) - 1) & !0xfff;
const RESERVED: u64 = ((1 << 52) - 1) & !((1 << PHYSICAL_BITS) - 1);

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER_NXE: u64 = 1 << 11;

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Fetch,
}

/// What translations depend on besides tables, their root and who asks.
fn rules(registers: &Registers) -> [u64; 3] {
    [
        registers.cr0 & (CR0_WP | CR0_PG),
        registers.cr4 & (CR4_SMEP | CR4_SMAP),
        registers.efer & EFER_NXE,
    ]
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// CPL 3.
    User,
    /// CPL below 3, user pages out of reach where SMAP is on (EFLAGS.AC clear, or an access of the
    /// CPU's own to a descriptor table or stack).
    Supervisor,
    /// CPL below 3 with EFLAGS.AC set.
    SupervisorReachingUser,
}

/// Bits 47 to 63 are equal.
#[inline(always)]
pub(crate) fn is_canonical(address: u64) -> bool {
    (((address << 16) as i64) >> 16) as u64 == address
}

/// Error code bits of #PF.
fn error_code(registers: &Registers, kind: Kind, mode: Mode, bits: u32) -> u32 {
    let mut code = bits;
    if kind == Kind::Write {
        code |= 2;
    }
    if mode == Mode::User {
        code |= 4;
    }
    if kind == Kind::Fetch && (registers.efer & EFER_NXE != 0 || registers.cr4 & CR4_SMEP != 0) {
        code |= 16;
    }
    code
}

/// Where a canonical address leads by the tables below `root`, whoever asks, and without a trace.
pub(crate) fn look_up(ram: &Ram, root: u64, address: u64) -> Option<u64> {
    let mut table = root & ADDRESS;
    for level in (0..4).rev() {
        let at = table + (address >> (12 + 9 * level) & 511) * 8;
        if !ram.contains(at, 8) {
            return None;
        }
        let entry = ram.load(at, 8);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || entry & LARGE != 0 {
            let within = (1u64 << (12 + 9 * level)) - 1;
            return Some(entry & ADDRESS & !within | address & within);
        }
        table = entry & ADDRESS;
    }
    None
}

/// Walks the tables for a canonical address. Accessed and dirty bits are set, in all levels, once the
/// whole walk has succeeded. `tables` are the pages that became tables just now.
fn walk(
    registers: &Registers,
    ram: &mut Ram,
    address: u64,
    kind: Kind,
    mode: Mode,
    tables: &mut Tables,
) -> Result<u64, Fault> {
    if registers.cr0 & CR0_PG == 0 {
        return Ok(address);
    }
    let fault = |bits| Fault::page(address, error_code(registers, kind, mode, bits));
    let mut reserved = RESERVED;
    if registers.efer & EFER_NXE == 0 {
        reserved |= NO_EXECUTE;
    }
    let mut table = registers.cr3 & ADDRESS;
    let mut entries = [(0u64, 0u64); 4];
    let mut rights = WRITABLE | USER;
    let mut no_execute = 0;
    let mut level = 3;
    let (leaf, size) = loop {
        let at = table + (address >> (12 + 9 * level) & 511) * 8;
        if !ram.contains(at, 8) {
            return Err(fault(0));
        }
        let entry = ram.load(at, 8);
        if entry & PRESENT == 0 {
            return Err(fault(0));
        }
        if entry & reserved != 0 || level == 3 && entry & LARGE != 0 {
            return Err(fault(9));
        }
        entries[level as usize] = (at, entry);
        rights &= entry;
        no_execute |= entry & NO_EXECUTE;
        let size = 1u64 << (12 + 9 * level);
        if level == 0 || entry & LARGE != 0 {
            // Bit 12 of a large leaf is PAT.
            if level > 0 && entry & ADDRESS & (size - 1) & !0x1fff != 0 {
                return Err(fault(9));
            }
            break (entry, size);
        }
        table = entry & ADDRESS;
        level -= 1;
    };

    let is_user_page = rights & USER != 0;
    let is_allowed = match (kind, mode) {
        (Kind::Read, Mode::User) => is_user_page,
        (Kind::Write, Mode::User) => is_user_page && rights & WRITABLE != 0,
        (Kind::Fetch, Mode::User) => is_user_page && no_execute == 0,
        (Kind::Fetch, _) => no_execute == 0 && !(is_user_page && registers.cr4 & CR4_SMEP != 0),
        (_, _) => {
            let smap = registers.cr4 & CR4_SMAP != 0 && mode == Mode::Supervisor;
            let read_only =
                kind == Kind::Write && rights & WRITABLE == 0 && registers.cr0 & CR0_WP != 0;
            !(read_only || is_user_page && smap)
        }
    };
    if !is_allowed {
        return Err(fault(1));
    }
    for (depth, &(at, entry)) in entries.iter().enumerate().skip(level as usize) {
        let mut bits = ACCESSED;
        if depth == level as usize && kind == Kind::Write {
            bits |= DIRTY;
        }
        if entry & bits != bits {
            ram.set_entry_bits(at, bits);
        }
        let half = Half::of(address);
        let table = match depth {
            0 => Table::Leaves(half),
            3 => Table::Root,
            _ => Table::Middle(half),
        };
        if ram.mark_table(at, table) {
            tables.add(at & !0xfff);
        }
    }
    Ok(leaf & ADDRESS & !(size - 1) | address & (size - 1))
}

/// Pages, four at most, that became tables just now and may be in the write TLB.
#[derive(Default)]
struct Tables {
    pages: [u64; 4],
    count: usize,
}

impl Tables {
    fn add(&mut self, page: u64) {
        self.pages[self.count] = page; // one for each level
        self.count += 1;
    }
}

/// Slots of a table of reads or writes.
pub(crate) const SLOTS: usize = 1024;
const FETCH_SLOTS: usize = 256;
const GENERATIONS: u64 = 1024;

/// A translation of a page. Compiled code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Slot {
    /// Linear address of the page.
    page: u64,
    /// Where the page is in the host's memory.
    host: u64,
}

/// The translations of data accesses in one mode. Compiled code reads them.
#[repr(C)]
pub(crate) struct Bank {
    pub(crate) read: [Slot; SLOTS],
    pub(crate) write: [Slot; SLOTS],
}

/// A slot that answers nobody: its page is one that is looked for in another slot.
const fn empty(number: usize) -> Slot {
    Slot {
        page: (number as u64 ^ 1) << 12,
        host: 0,
    }
}

const NOTHING: [Slot; SLOTS] = {
    let mut slots = [empty(0); SLOTS];
    let mut number = 0;
    while number < SLOTS {
        slots[number] = empty(number);
        number += 1;
    }
    slots
};

/// Of each [`Mode`] one, and one that is not used: a number of two bits is always that of a bank.
const BANKS: usize = 4;

/// Slots that are filled one by one before all are emptied at once.
const MOST_FILLED: usize = 4 * SLOTS;

#[derive(Clone, Copy)]
struct Filled {
    bank: u8,
    is_write: bool,
    number: u16,
}

impl Filled {
    fn slot(self, banks: &mut [Bank; BANKS]) -> &mut Slot {
        let bank = &mut banks[usize::from(self.bank)];
        let slots = if self.is_write {
            &mut bank.write
        } else {
            &mut bank.read
        };
        &mut slots[usize::from(self.number)]
    }
}

#[derive(Clone, Copy)]
struct FetchSlot {
    /// Page, generation, mode.
    tag: u64,
    /// Physical address of the page.
    page: u64,
}

const NO_FETCH: FetchSlot = FetchSlot {
    tag: u64::MAX,
    page: 0,
};

/// The cache of translations to RAM.
pub(crate) struct Tlb {
    banks: Box<[Bank; BANKS]>,
    /// The slots that may hold a page of the lower half, and those that may hold one of the upper.
    filled: [Vec<Filled>; 2],
    /// Where RAM is in the host's memory.
    host_base: u64,
    fetch: Box<[FetchSlot; FETCH_SLOTS]>,
    /// Of the tags of fetches, for both halves.
    generations: [u64; 2],
    /// Of both halves: another number whenever a fetch there might be translated differently from before.
    fetch_generations: [u32; 2],
    /// Another number whenever a slot of a bank was emptied.
    data_generation: u64,
}

impl Tlb {
    pub(crate) fn new() -> Tlb {
        let bank = || Bank {
            read: NOTHING,
            write: NOTHING,
        };
        Tlb {
            banks: Box::new([bank(), bank(), bank(), bank()]),
            filled: [Vec::new(), Vec::new()],
            host_base: 0,
            fetch: Box::new([NO_FETCH; FETCH_SLOTS]),
            generations: [0; 2],
            fetch_generations: [1; 2],
            data_generation: 0,
        }
    }

    /// Forgets all, whatever RAM knows of its tables.
    #[cfg(jit)]
    pub(crate) fn forget(&mut self) {
        self.drop_half(Half::Lower);
        self.drop_half(Half::Upper);
    }

    /// The translations of a mode, for compiled code.
    #[cfg(jit)]
    pub(crate) fn bank(&self, bank: usize) -> *const Bank {
        &raw const self.banks[bank % BANKS]
    }

    #[inline(always)]
    fn find(&self, slots: &[Slot; SLOTS], address: u64, size: usize) -> Option<u64> {
        let slot = &slots[(address >> 12) as usize % SLOTS];
        let offset = address.wrapping_sub(slot.page);
        if offset <= 4096 - size as u64 {
            Some(slot.host.wrapping_sub(self.host_base).wrapping_add(offset))
        } else {
            None
        }
    }

    /// Where a read of `size` bytes goes, if that is known.
    #[inline(always)]
    pub(crate) fn read(&self, address: u64, size: usize, bank: usize) -> Option<u64> {
        self.find(&self.banks[bank % BANKS].read, address, size)
    }

    /// Where a write of `size` bytes goes, if that is known and nobody has to be told.
    #[inline(always)]
    pub(crate) fn write(&self, address: u64, size: usize, bank: usize) -> Option<u64> {
        self.find(&self.banks[bank % BANKS].write, address, size)
    }

    /// Drops everything.
    pub(crate) fn flush(&mut self, ram: &mut Ram) {
        ram.forget_tables();
        self.drop_half(Half::Lower);
        self.drop_half(Half::Upper);
    }

    /// Drops the translations of the lower half.
    pub(crate) fn flush_lower(&mut self, ram: &mut Ram) {
        ram.forget_lower_tables();
        self.drop_half(Half::Lower);
    }

    /// CR3 names another root. Kernels are in the upper half of all of them, by the same entries: what is
    /// known of that stays true. (Equal entries have equal accessed bits: a walk would change nothing.)
    pub(crate) fn change_root(&mut self, ram: &mut Ram, old: u64, new: u64) {
        let (old, new) = (old & ADDRESS, new & ADDRESS);
        if old == new {
            return; // what is known is as if freshly walked
        }
        if !ram.have_same_upper_half(old, new) {
            return self.flush(ram);
        }
        if ram.mark_table(new, Table::Root) {
            self.drop_writes_to(new);
        }
        self.flush_lower(ram);
    }

    /// Another CPU's translations from here on. They follow from what tables say, from the root and from what
    /// [`rules`] gives: as each access behaves as if freshly walked, nothing else in here is a CPU's own.
    pub(crate) fn hand_over(&mut self, old: &Registers, new: &Registers, ram: &mut Ram) {
        if rules(old) == rules(new) {
            self.change_root(ram, old.cr3, new.cr3);
        } else {
            self.flush(ram);
        }
    }

    fn drop_half(&mut self, half: Half) {
        self.data_generation += 1;
        self.fetch_generations[half as usize] =
            self.fetch_generations[half as usize].wrapping_add(1);
        self.generations[half as usize] += 1;
        if self.generations[half as usize] == GENERATIONS {
            self.generations[half as usize] = 0;
            self.fetch.fill(NO_FETCH);
        }
        for filled in self.filled[half as usize].drain(..) {
            let slot = filled.slot(&mut self.banks);
            if Half::of(slot.page) == half {
                *slot = empty(filled.number.into());
            }
        }
    }

    /// Empties the slots of writes that are meant.
    fn empty_writes(&mut self, is_meant: impl Fn(&Slot) -> bool) {
        self.data_generation += 1;
        for list in &mut self.filled {
            list.retain(|filled| {
                if !filled.is_write {
                    return true;
                }
                let slot = filled.slot(&mut self.banks);
                let is_meant = is_meant(slot);
                if is_meant {
                    *slot = empty(filled.number.into());
                }
                !is_meant
            });
        }
    }

    /// Which fetches are translated as before: those of an address for as long as this number of its half
    /// is the same.
    #[inline(always)]
    pub(crate) fn fetch_generation(&self, address: u64) -> u32 {
        self.fetch_generations[Half::of(address) as usize]
    }

    /// That of both halves.
    #[inline(always)]
    #[cfg(jit)]
    pub(crate) fn fetch_generations(&self) -> [u32; 2] {
        self.fetch_generations
    }

    /// What the slots of the banks say, or said before they held another page, stays true for as long as this number
    /// is the same.
    #[inline(always)]
    #[cfg(jit)]
    pub(crate) fn data_generation(&self) -> u64 {
        self.data_generation
    }

    /// Other fetch generations: remembered jumps are dead.
    pub(crate) fn drop_fetches(&mut self) {
        for generation in &mut self.fetch_generations {
            *generation = generation.wrapping_add(1);
        }
    }

    /// Drops what a leaf may have been found by.
    pub(crate) fn drop_leaf(&mut self, leaf: Leaf) {
        self.data_generation += 1;
        let index = leaf.index;
        for bank in &mut *self.banks {
            for number in [index, index + 512] {
                bank.read[number] = empty(number);
                bank.write[number] = empty(number);
            }
        }
        self.fetch[index % FETCH_SLOTS] = NO_FETCH;
        for (generation, held_code) in self
            .fetch_generations
            .iter_mut()
            .zip([leaf.lower_code, leaf.upper_code])
        {
            *generation = generation.wrapping_add(held_code.into());
        }
    }

    /// Drops all translations of writes.
    pub(crate) fn drop_writes(&mut self) {
        self.empty_writes(|_| true);
    }

    /// Drops the translations of writes to the page of a physical address.
    pub(crate) fn drop_writes_to(&mut self, physical: u64) {
        let host = self.host_base + (physical & !0xfff);
        self.empty_writes(|slot| slot.host == host);
    }

    fn fill(&mut self, address: u64, physical: u64, is_write: bool, mode: Mode) {
        let half = Half::of(address);
        if self.filled[half as usize].len() == MOST_FILLED {
            self.drop_half(half);
        }
        let number = (address >> 12) as usize % SLOTS;
        let filled = Filled {
            bank: mode as u8,
            is_write,
            number: number as u16,
        };
        let slot = filled.slot(&mut self.banks);
        let is_listed = slot.host != 0 && Half::of(slot.page) == half;
        *slot = Slot {
            page: address & !0xfff,
            host: self.host_base + (physical & !0xfff),
        };
        if !is_listed {
            self.filled[half as usize].push(filled);
        }
    }

    fn find_for(&self, address: u64, kind: Kind, mode: Mode) -> Option<u64> {
        match kind {
            Kind::Read => self.read(address, 1, mode as usize),
            Kind::Write => self.write(address, 1, mode as usize),
            Kind::Fetch => {
                let slot = self.fetch[(address >> 12) as usize % FETCH_SLOTS];
                let tag = self.fetch_tag(address, mode);
                (slot.tag == tag).then_some(slot.page + (address & 0xfff))
            }
        }
    }

    fn fetch_tag(&self, address: u64, mode: Mode) -> u64 {
        address & !0xfff | self.generations[Half::of(address) as usize] << 2 | mode as u64
    }

    /// Translates a canonical address, by the cache or by a walk.
    pub(crate) fn translate(
        &mut self,
        registers: &Registers,
        ram: &mut Ram,
        address: u64,
        kind: Kind,
        mode: Mode,
    ) -> Result<u64, Fault> {
        if let Some(physical) = self.find_for(address, kind, mode) {
            return Ok(physical);
        }
        let mut tables = Tables::default();
        let result = walk(registers, ram, address, kind, mode, &mut tables);
        for &page in &tables.pages[..tables.count] {
            self.drop_writes_to(page);
        }
        let physical = result?;
        if ram.contains(physical, 1) {
            self.host_base = ram.host_base();
            match kind {
                // What is watched is looked at each time.
                Kind::Read | Kind::Write if ram.traps.watches_page(address) => {}
                Kind::Read => self.fill(address, physical, false, mode),
                Kind::Fetch => {
                    self.fetch[(address >> 12) as usize % FETCH_SLOTS] = FetchSlot {
                        tag: self.fetch_tag(address, mode),
                        page: physical & !0xfff,
                    };
                }
                Kind::Write if ram.enters_write_tlb(physical) => {
                    self.fill(address, physical, true, mode);
                }
                Kind::Write => {}
            }
        }
        Ok(physical)
    }
}

#[cfg(all(test, jit))]
mod tests {
    use super::*;

    /// Else sites of compiled code would go on with what the TLB has forgotten.
    #[test]
    fn whoever_empties_slots_tells_another_generation() {
        let mut tlb = Tlb::new();
        let empties: [fn(&mut Tlb); 5] = [
            |tlb| tlb.drop_half(Half::Lower),
            |tlb| tlb.drop_half(Half::Upper),
            |tlb| {
                tlb.drop_leaf(Leaf {
                    index: 3,
                    lower_code: false,
                    upper_code: false,
                });
            },
            Tlb::drop_writes,
            |tlb| tlb.drop_writes_to(0x5000),
        ];
        for (number, empty) in empties.into_iter().enumerate() {
            let before = tlb.data_generation();
            empty(&mut tlb);
            assert_ne!(tlb.data_generation(), before, "way {number}");
        }
    }
}
