//! The cache of translations.
//!
//! It holds those of several address spaces at a time: a program finds its own again when it runs again, be it by
//! the turn of its CPU or by a change of processes. The upper half of the addresses, the kernel's, is the same in all
//! of them.

use super::{ADDRESS, Kind, Mode, Tables, rules, walk};
use crate::cpu::Registers;
use crate::fault::Fault;
use crate::ram::{Half, Leaf, Ram, SPACES, Table};

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

/// Of supervisors, by what they reach, two; of programs, of each address space one.
const BANKS: usize = SUPERVISORS + SPACES;
const SUPERVISORS: usize = 2;
// A number of four bits is always that of a bank.
const _: () = assert!(BANKS.is_power_of_two());

/// Slots that a list holds before all of them are emptied at once.
const MOST_FILLED: usize = 4 * SLOTS;

/// A slot that may not be empty.
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

/// What is remembered of the lower half of an address space.
#[derive(Default)]
struct Space {
    /// The root, if the space does not run and may run again.
    root: Option<u64>,
    /// Slots of its bank.
    filled: Vec<Filled>,
    /// Of the tags of its fetches.
    generation: u64,
    /// Another number whenever a fetch might be translated differently from before; those of other spaces are others.
    fetch_generation: u32,
    /// When it began to run last.
    ran: u64,
}

/// Which fetches are translated as before: those of a half for as long as its generation is the same. Those of the
/// lower half of another space are others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetches {
    /// The address space that runs.
    #[cfg_attr(not(jit), allow(dead_code))]
    pub(crate) space: u8,
    /// Of both halves.
    pub(crate) generations: [u32; 2],
}

/// The cache of translations to RAM.
pub(crate) struct Tlb {
    banks: Box<[Bank; BANKS]>,
    spaces: [Space; SPACES],
    /// The address space that runs.
    running: usize,
    /// So many times another space began to run.
    changes: u64,
    /// Slots of the supervisors' banks that may hold a page of the lower half.
    reached: Vec<Filled>,
    /// Slots of all banks that may hold one of the upper half.
    filled_upper: Vec<Filled>,
    /// By physical page, the banks that may hold a write to it, a bit each.
    writers: Vec<u16>,
    /// Where RAM is in the host's memory.
    host_base: u64,
    fetch: Box<[FetchSlot; FETCH_SLOTS]>,
    /// Of the tags of fetches of the upper half.
    upper_generation: u64,
    /// The last one that was given to a half.
    last_generation: u64,
    fetches: Fetches,
    last_fetch_generation: u32,
    /// Another number whenever a slot of a bank was emptied, or other banks are meant.
    data_generation: u64,
}

impl Tlb {
    pub(crate) fn new() -> Tlb {
        let banks = (0..BANKS).map(|_| Bank {
            read: NOTHING,
            write: NOTHING,
        });
        let banks: Box<[Bank]> = banks.collect();
        let Ok(banks) = banks.try_into() else {
            unreachable!("there are so many");
        };
        let mut tlb = Tlb {
            banks,
            spaces: Default::default(),
            running: 0,
            changes: 0,
            reached: Vec::new(),
            filled_upper: Vec::new(),
            writers: Vec::new(),
            host_base: 0,
            fetch: Box::new([NO_FETCH; FETCH_SLOTS]),
            upper_generation: 0,
            last_generation: 0,
            fetches: Fetches {
                space: 0,
                generations: [1; 2],
            },
            last_fetch_generation: 1,
            data_generation: 0,
        };
        tlb.number_generations();
        tlb
    }

    /// Forgets all, whatever RAM knows of its tables.
    #[cfg(jit)]
    pub(crate) fn forget(&mut self) {
        self.drop_everything();
    }

    /// The bank of data accesses in a mode.
    #[inline(always)]
    pub(crate) fn bank_of(&self, mode: Mode) -> usize {
        match mode {
            Mode::Supervisor => 0,
            Mode::SupervisorReachingUser => 1,
            Mode::User => SUPERVISORS + self.running,
        }
    }

    /// The translations of a bank, for compiled code.
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
        self.drop_everything();
    }

    /// Drops the translations of the lower half, in the space that runs.
    pub(crate) fn flush_lower(&mut self, ram: &mut Ram) {
        ram.forget_lower_tables();
        self.drop_half(Half::Lower);
    }

    /// CR3 names another root. Kernels are in the upper half of all of them, by the same entries: what is
    /// known of that stays true. (Equal entries have equal accessed bits: a walk would change nothing.)
    /// What is known of the lower half is kept for the next time that it names the old one.
    pub(crate) fn change_root(&mut self, ram: &mut Ram, old: u64, new: u64) {
        let (old, new) = (old & ADDRESS, new & ADDRESS);
        if old == new {
            return; // what is known is as if freshly walked
        }
        if !ram.lets_spaces_change() || !ram.have_same_upper_half(old, new) {
            return self.flush(ram);
        }
        assert_eq!(ram.running_space(), self.running, "tables are one space's");
        self.spaces[self.running].root = Some(old);
        let known = (0..SPACES).find(|&space| self.spaces[space].root == Some(new));
        let space = known.unwrap_or_else(|| self.longest_not_run());
        self.run_space(space);
        let is_intact = ram.enter_space(space);
        if known.is_none() || !is_intact {
            ram.forget_space(space);
            self.drop_half(Half::Lower);
        }
        if ram.mark_table(new, Table::Root) {
            self.drop_writes_to(new);
        }
    }

    /// A space that does not run, the longest of all.
    fn longest_not_run(&self) -> usize {
        let others = (0..SPACES).filter(|&space| space != self.running);
        let longest = others.min_by_key(|&space| self.spaces[space].ran);
        longest.expect("there are several")
    }

    /// Another space runs. What supervisors reached in the lower half was the last one's.
    fn run_space(&mut self, space: usize) {
        self.data_generation += 1;
        empty_slots(&mut self.reached, Half::Lower, &mut self.banks);
        self.running = space;
        self.changes += 1;
        let entered = &mut self.spaces[space];
        entered.root = None;
        entered.ran = self.changes;
        self.fetches.space = space as u8;
        self.fetches.generations[Half::Lower as usize] = entered.fetch_generation;
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

    /// Drops the translations of both halves, and those of all spaces that do not run.
    fn drop_everything(&mut self) {
        for space in 0..SPACES {
            self.spaces[space].root = None;
            if space != self.running {
                empty_slots(&mut self.spaces[space].filled, Half::Lower, &mut self.banks);
            }
        }
        self.drop_half(Half::Lower);
        self.drop_half(Half::Upper);
    }

    /// Drops the translations of a half, in the space that runs.
    fn drop_half(&mut self, half: Half) {
        self.data_generation += 1;
        self.last_generation += 1;
        let generation = self.last_generation;
        let fetch_generation = self.new_fetch_generation();
        self.fetches.generations[half as usize] = fetch_generation;
        match half {
            Half::Lower => {
                let space = &mut self.spaces[self.running];
                space.generation = generation;
                space.fetch_generation = fetch_generation;
                empty_slots(&mut space.filled, half, &mut self.banks);
                empty_slots(&mut self.reached, half, &mut self.banks);
            }
            Half::Upper => {
                self.upper_generation = generation;
                empty_slots(&mut self.filled_upper, half, &mut self.banks);
            }
        }
        if generation == GENERATIONS - 1 {
            self.fetch.fill(NO_FETCH);
            self.number_generations();
        }
    }

    /// Gives generations to all halves, from the first on: nobody has a tag yet, or any more.
    fn number_generations(&mut self) {
        for (number, space) in self.spaces.iter_mut().enumerate() {
            space.generation = number as u64;
        }
        self.upper_generation = SPACES as u64;
        self.last_generation = SPACES as u64;
    }

    fn new_fetch_generation(&mut self) -> u32 {
        self.last_fetch_generation = self.last_fetch_generation.wrapping_add(1);
        self.last_fetch_generation
    }

    /// Drops what a leaf may have been found by.
    pub(crate) fn drop_leaf(&mut self, leaf: Leaf) {
        self.data_generation += 1;
        let index = leaf.index;
        let is_meant = |bank: usize| {
            leaf.is_kernel || bank < SUPERVISORS || bank == SUPERVISORS + self.running
        };
        for number in (0..BANKS).filter(|&bank| is_meant(bank)) {
            let bank = &mut self.banks[number];
            for number in [index, index + 512] {
                bank.read[number] = empty(number);
                bank.write[number] = empty(number);
            }
        }
        self.fetch[index % FETCH_SLOTS] = NO_FETCH;
        if leaf.lower_code {
            self.translate_fetches_anew(Half::Lower);
        }
        if leaf.upper_code {
            self.translate_fetches_anew(Half::Upper);
        }
    }

    /// Fetches of a half, in the space that runs, may lead elsewhere.
    fn translate_fetches_anew(&mut self, half: Half) {
        let generation = self.new_fetch_generation();
        self.fetches.generations[half as usize] = generation;
        if half == Half::Lower {
            self.spaces[self.running].fetch_generation = generation;
        }
    }

    /// Other fetch generations: remembered jumps are dead, in all spaces.
    pub(crate) fn drop_fetches(&mut self) {
        for space in 0..SPACES {
            self.spaces[space].fetch_generation = self.new_fetch_generation();
        }
        self.translate_fetches_anew(Half::Lower);
        self.translate_fetches_anew(Half::Upper);
    }

    /// Which fetches are translated as before: those of an address for as long as this number is the same.
    #[inline(always)]
    pub(crate) fn fetch_generation(&self, address: u64) -> u32 {
        self.fetches.generations[Half::of(address) as usize]
    }

    /// That of all addresses.
    #[inline(always)]
    #[cfg(jit)]
    pub(crate) fn fetches(&self) -> Fetches {
        self.fetches
    }

    /// What the slots of the banks say, or said before they held another page, stays true for as long as this number
    /// is the same.
    #[inline(always)]
    #[cfg(jit)]
    pub(crate) fn data_generation(&self) -> u64 {
        self.data_generation
    }

    /// Drops all translations of writes, of all spaces.
    pub(crate) fn drop_writes(&mut self) {
        self.data_generation += 1;
        let spaces = self.spaces.iter_mut().map(|space| &mut space.filled);
        for list in spaces.chain([&mut self.reached, &mut self.filled_upper]) {
            list.retain(|filled| {
                if filled.is_write {
                    *filled.slot(&mut self.banks) = empty(filled.number.into());
                }
                !filled.is_write
            });
        }
    }

    /// Drops the translations of writes to the page of a physical address, of all spaces.
    pub(crate) fn drop_writes_to(&mut self, physical: u64) {
        self.data_generation += 1;
        let Some(writers) = self.writers.get_mut((physical >> 12) as usize) else {
            return;
        };
        let (writers, host) = (
            std::mem::take(writers),
            self.host_base + (physical & !0xfff),
        );
        for bank in (0..BANKS).filter(|&bank| writers & 1 << bank != 0) {
            for (number, slot) in self.banks[bank].write.iter_mut().enumerate() {
                if slot.host == host {
                    *slot = empty(number);
                }
            }
        }
    }

    fn fill(&mut self, address: u64, physical: u64, is_write: bool, mode: Mode) {
        let half = Half::of(address);
        if self.list(half, mode).len() == MOST_FILLED {
            self.drop_half(half);
        }
        let (bank, number) = (self.bank_of(mode), (address >> 12) as usize % SLOTS);
        if is_write {
            self.add_writer(physical, bank);
        }
        let filled = Filled {
            bank: bank as u8,
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
            self.list(half, mode).push(filled);
        }
    }

    /// Where filled slots are listed.
    fn list(&mut self, half: Half, mode: Mode) -> &mut Vec<Filled> {
        match (half, mode) {
            (Half::Upper, _) => &mut self.filled_upper,
            (Half::Lower, Mode::User) => &mut self.spaces[self.running].filled,
            (Half::Lower, _) => &mut self.reached,
        }
    }

    fn add_writer(&mut self, physical: u64, bank: usize) {
        let page = (physical >> 12) as usize;
        if page >= self.writers.len() {
            self.writers.resize(page + 1, 0);
        }
        self.writers[page] |= 1 << bank;
    }

    fn find_for(&self, address: u64, kind: Kind, mode: Mode) -> Option<u64> {
        match kind {
            Kind::Read => self.read(address, 1, self.bank_of(mode)),
            Kind::Write => self.write(address, 1, self.bank_of(mode)),
            Kind::Fetch => {
                let slot = self.fetch[(address >> 12) as usize % FETCH_SLOTS];
                let tag = self.fetch_tag(address, mode);
                (slot.tag == tag).then_some(slot.page + (address & 0xfff))
            }
        }
    }

    fn fetch_tag(&self, address: u64, mode: Mode) -> u64 {
        let generation = match Half::of(address) {
            Half::Lower => self.spaces[self.running].generation,
            Half::Upper => self.upper_generation,
        };
        address & !0xfff | generation << 2 | mode as u64
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

/// Empties slots that are listed, and the list.
fn empty_slots(list: &mut Vec<Filled>, half: Half, banks: &mut [Bank; BANKS]) {
    for filled in list.drain(..) {
        let slot = filled.slot(banks);
        if Half::of(slot.page) == half {
            *slot = empty(filled.number.into());
        }
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
                    is_kernel: false,
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
