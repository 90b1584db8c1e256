//! The software TLB: three direct-mapped tables, for fetches, loads and stores.

use super::spaces::Spaces;

/// Entries of each table.
pub(crate) const ENTRIES: usize = 4096;
const INDEX_MASK: u64 = ENTRIES as u64 - 1;

/// Where the number of an address space and the mode are in a context.
const CONTEXT_SHIFT: u32 = 52;
/// Bits of a slot that the level-0 index of a page does not decide.
const SPREAD_SHIFT: u32 = 9;

/// A cached translation of a page that is RAM, all of which may be accessed. Compiled code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    /// Virtual page number XOR the context; the low bits are the entry's slot.
    tag: u64,
    /// Offset of the page in RAM.
    page_offset: usize,
}

/// Matches no access: address space 255 is never used.
const EMPTY: Entry = Entry {
    tag: u64::MAX,
    page_offset: 0,
};

/// One table. Compiled code reads its address from here.
#[repr(transparent)]
pub struct Table(Box<[Entry; ENTRIES]>);

impl Default for Table {
    fn default() -> Table {
        Table(Box::new([EMPTY; ENTRIES]))
    }
}

impl Table {
    /// The offset in RAM of `address`, if the table knows its page.
    #[inline(always)]
    pub fn lookup(&self, address: u64, context: u64) -> Option<usize> {
        let tag = address >> 12 ^ context;
        let entry = &self.0[(tag & INDEX_MASK) as usize];
        (entry.tag == tag).then_some(entry.page_offset | (address & 0xfff) as usize)
    }

    fn insert(&mut self, address: u64, context: u64, page_offset: usize) {
        let tag = address >> 12 ^ context;
        self.0[(tag & INDEX_MASK) as usize] = Entry { tag, page_offset };
    }

    fn clear(&mut self) {
        self.0.fill(EMPTY);
    }

    fn drop_index(&mut self, index: u64, sees: impl Fn(Viewer) -> bool) {
        for entry in self.0.iter_mut().skip(index as usize).step_by(512) {
            if sees(Viewer::of(entry.tag)) {
                *entry = EMPTY;
            }
        }
    }

    fn drop_page(&mut self, page_offset: usize) {
        for entry in self.0.iter_mut() {
            if entry.page_offset == page_offset {
                *entry = EMPTY;
            }
        }
    }
}

/// Virtual pages by the low nine bits of their number: a set.
#[derive(Clone, Copy, Default)]
struct PageIndices([u64; 8]);

impl PageIndices {
    fn insert(&mut self, address: u64) {
        let index = address >> 12 & 511;
        self.0[(index / 64) as usize] |= 1 << (index % 64);
    }

    fn contains(&self, index: u64) -> bool {
        self.0[(index / 64) as usize] >> (index % 64) & 1 != 0
    }
}

/// Who translates, as far as it decides which pages may be seen (privileged specification, 12.3.1,
/// the U bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Viewer {
    /// M-mode, or a tag of nobody: sees no translation.
    Machine,
    /// U-mode: user pages.
    User,
    /// S-mode without SUM: supervisor pages.
    Supervisor,
    /// S-mode with SUM: both.
    Both,
}

const VIEWERS: usize = 4;

impl Viewer {
    /// Whose context, or tag, it is.
    fn of(context: u64) -> Viewer {
        match context >> CONTEXT_SHIFT & 7 {
            0 => Viewer::User,
            4 => Viewer::User, // SUM is nothing to it
            1 => Viewer::Supervisor,
            5 => Viewer::Both,
            _ => Viewer::Machine,
        }
    }

    /// Whether it sees the page of a leaf entry with this U bit.
    fn sees(self, is_user_page: bool) -> bool {
        match self {
            Viewer::Machine => false,
            Viewer::User => is_user_page,
            Viewer::Supervisor => !is_user_page,
            Viewer::Both => true,
        }
    }

    const ALL: [Viewer; VIEWERS] = [
        Viewer::Machine,
        Viewer::User,
        Viewer::Supervisor,
        Viewer::Both,
    ];
}

/// A leaf page-table entry that changed, as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its index in its table (0 to 511): the low nine bits of the page number.
    pub index: u64,
    /// Whether it allowed fetches.
    pub executable: bool,
    /// Its U bit.
    pub user: bool,
}

/// The TLB of the hart that runs.
#[derive(Default)]
pub struct Tlb {
    /// For instruction fetches.
    pub fetch: Table,
    /// For loads.
    pub load: Table,
    /// For stores: only pages without flags.
    pub store: Table,
    /// XORed into the tag of a fetch.
    pub fetch_context: u64,
    /// XORed into the tag of a load or store.
    pub data_context: u64,
    /// XORed with `data_context`: the same with the other `sstatus.SUM`.
    pub sum_difference: u64,
    /// By viewer.
    fetch_generations: [u64; VIEWERS],
    data_generations: [u64; VIEWERS],
    spaces: Spaces,
    fetch_indices: [PageIndices; VIEWERS],
    data_indices: [PageIndices; VIEWERS],
}

/// The context of a space and a mode: spaces and modes that take turns have other slots for a page.
fn context(space: u64, mode: u64) -> u64 {
    (space << 4 | mode) << CONTEXT_SHIFT | ((space ^ mode >> 1) & 7) << SPREAD_SHIFT
}

/// `sstatus.SUM` in a mode.
const SUM: u64 = 4;

/// Whether supervisor pages alone are seen in this mode: privilege, SUM in bit 2.
fn sees_supervisor_pages_only(mode: u64) -> bool {
    mode & (SUM | 3) == 1
}

impl Tlb {
    /// Sets the contexts of fetches and of data from (address space, four bits of mode).
    pub fn set_context(&mut self, fetch: (u64, u64), data: (u64, u64)) {
        if !self.spaces.has_room() {
            self.clear();
            self.spaces.begin_anew();
        }
        let mut of = |(satp, mode): (u64, u64)| {
            let numbers = self.spaces.numbers(satp);
            if sees_supervisor_pages_only(mode) {
                context(numbers.upper, mode)
            } else {
                context(numbers.whole, mode)
            }
        };
        (self.fetch_context, self.data_context) = (of(fetch), of(data));
        self.sum_difference = self.data_context ^ of((data.0, data.1 ^ SUM));
    }

    /// Changes whenever a translation of a fetch in `context` was dropped that someone may have
    /// copied.
    pub fn fetch_generation(&self, context: u64) -> u64 {
        self.fetch_generations[Viewer::of(context) as usize]
    }

    /// Likewise of a load or store.
    pub fn data_generation(&self, context: u64) -> u64 {
        self.data_generations[Viewer::of(context) as usize]
    }

    /// Whether the root of `satp` was looked at: see [`Tlb::add_root`].
    pub fn knows_root(&self, satp: u64) -> bool {
        self.spaces.knows_root(satp)
    }

    /// See [`Spaces::shares_upper_half`].
    pub fn shares_upper_half(&self, satp: u64) -> bool {
        self.spaces.shares_upper_half(satp)
    }

    /// See [`Spaces::add_root`].
    pub fn add_root(&mut self, satp: u64, upper_half: Option<&[u8]>) {
        self.spaces.add_root(satp, upper_half);
    }

    /// See [`Spaces::stop_sharing`].
    pub fn stop_sharing(&mut self, satp: u64) {
        self.spaces.stop_sharing(satp);
    }

    /// Forgets every translation.
    pub fn clear(&mut self) {
        self.fetch.clear();
        self.load.clear();
        self.store.clear();
        self.fetch_indices = Default::default();
        self.data_indices = Default::default();
        for generation in &mut self.fetch_generations {
            *generation += 1;
        }
        self.forget_copies_of_data();
    }

    /// Nothing that was copied of loads and stores is true any more.
    pub(crate) fn forget_copies_of_data(&mut self) {
        for generation in &mut self.data_generations {
            *generation += 1;
        }
    }

    /// Makes every translation one of an address space that is never used again, which is cheaper
    /// than to forget it, and forgets what it knows of roots. The contexts have to be set anew.
    pub fn abandon_spaces(&mut self) {
        self.spaces.abandon();
    }

    /// Likewise all but what is remembered of shared upper halves and without page tables. Of roots
    /// only those of `current`, values of `satp`, are known then.
    pub fn abandon_whole_spaces(&mut self, current: &[u64]) {
        self.spaces.abandon_whole(current);
    }

    /// Forgets what it knows of the root at physical page number `page`, and what was translated by
    /// its lower half. The contexts have to be set anew.
    pub fn forget_root(&mut self, page: u64) {
        self.spaces.forget_root(page);
    }

    /// Forgets what may have been translated by a leaf of a level-0 table.
    pub fn drop_leaf(&mut self, leaf: Leaf) {
        let Leaf {
            index,
            executable,
            user,
        } = leaf;
        let sees = |viewer: Viewer| viewer.sees(user);
        let viewers = || Viewer::ALL.into_iter().filter(|&viewer| sees(viewer));
        let mut fetched = false;
        let mut accessed = false;
        for viewer in viewers() {
            if executable && self.fetch_indices[viewer as usize].contains(index) {
                fetched = true;
                self.fetch_generations[viewer as usize] += 1;
            }
            if self.data_indices[viewer as usize].contains(index) {
                accessed = true;
                self.data_generations[viewer as usize] += 1;
            }
        }
        if fetched {
            self.fetch.drop_index(index, sees);
        }
        if accessed {
            self.load.drop_index(index, sees);
            self.store.drop_index(index, sees);
        }
    }

    /// Forgets all stores: dirty tracking begins anew.
    pub fn clear_stores(&mut self) {
        self.store.clear();
        self.forget_copies_of_data();
    }

    /// Forgets the stores to the page of RAM at `page_offset`.
    pub fn drop_stores_to(&mut self, page_offset: usize) {
        self.store.drop_page(page_offset);
        self.forget_copies_of_data();
    }

    /// Remembers a fetch.
    pub fn insert_fetch(&mut self, address: u64, page_offset: usize) {
        self.fetch.insert(address, self.fetch_context, page_offset);
        self.fetch_indices[Viewer::of(self.fetch_context) as usize].insert(address);
    }

    /// Remembers a load.
    pub fn insert_load(&mut self, address: u64, page_offset: usize) {
        self.load.insert(address, self.data_context, page_offset);
        self.data_indices[Viewer::of(self.data_context) as usize].insert(address);
    }

    /// Remembers a store.
    pub fn insert_store(&mut self, address: u64, page_offset: usize) {
        self.store.insert(address, self.data_context, page_offset);
        self.data_indices[Viewer::of(self.data_context) as usize].insert(address);
    }
}
