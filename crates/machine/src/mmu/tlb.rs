//! The software TLB: three direct-mapped tables, for fetches, loads and stores.

/// Entries of each table.
pub(crate) const ENTRIES: usize = 4096;
const INDEX_MASK: u64 = ENTRIES as u64 - 1;
/// Address spaces that can be told apart before all is flushed.
const SPACES: usize = 255;

/// No `satp`: its mode does not exist.
const NO_SPACE: u64 = u64::MAX;

/// A cached translation of a page that is RAM, all of which may be accessed. Compiled code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    /// Virtual page number XOR the context.
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
        let page = address >> 12;
        let entry = &self.0[(page & INDEX_MASK) as usize];
        (entry.tag == page ^ context).then_some(entry.page_offset | (address & 0xfff) as usize)
    }

    fn insert(&mut self, address: u64, context: u64, page_offset: usize) {
        let page = address >> 12;
        self.0[(page & INDEX_MASK) as usize] = Entry {
            tag: page ^ context,
            page_offset,
        };
    }

    fn clear(&mut self) {
        self.0.fill(EMPTY);
    }

    fn drop_index(&mut self, index: u64) {
        for entry in self.0.iter_mut().skip(index as usize).step_by(512) {
            *entry = EMPTY;
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

/// The TLB of a hart.
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
    /// [`Memory::flag_epoch`](crate::memory::Memory::flag_epoch) when the hart was switched out.
    pub seen_flag_epoch: u64,
    /// Changes whenever a translation of a fetch was dropped that someone may have copied.
    pub fetch_generation: u64,
    /// Changes whenever a translation of a load or store was dropped that someone may have copied.
    pub data_generation: u64,
    /// `satp` values by the number they have in the tags.
    spaces: Vec<u64>,
    /// The last ones that were asked for, with their numbers: most often the kernel's turn and the
    /// program's.
    recent_spaces: [Option<(u64, u64)>; 2],
    fetch_indices: PageIndices,
    data_indices: PageIndices,
}

impl Tlb {
    /// Sets the contexts of fetches and of data from (address space, four bits of mode).
    pub fn set_context(&mut self, fetch: (u64, u64), data: (u64, u64)) {
        let fetch_space = self.space(fetch.0);
        let data_space = self.space(data.0);
        let fetch_space = if self.spaces.get(fetch_space as usize) == Some(&fetch.0) {
            fetch_space
        } else {
            self.space(fetch.0) // the second call flushed
        };
        self.fetch_context = (fetch_space << 4 | fetch.1) << 52;
        self.data_context = (data_space << 4 | data.1) << 52;
    }

    fn space(&mut self, satp: u64) -> u64 {
        for (known, number) in self.recent_spaces.into_iter().flatten() {
            if known == satp {
                return number;
            }
        }
        let number = self.find_space(satp);
        self.recent_spaces = [Some((satp, number)), self.recent_spaces[0]];
        number
    }

    fn find_space(&mut self, satp: u64) -> u64 {
        if let Some(space) = self.spaces.iter().position(|&known| known == satp) {
            return space as u64;
        }
        if self.spaces.len() == SPACES {
            self.clear();
            self.spaces.clear();
            self.recent_spaces = [None; 2];
        }
        self.spaces.push(satp);
        self.spaces.len() as u64 - 1
    }

    /// Forgets every translation.
    pub fn clear(&mut self) {
        self.fetch.clear();
        self.load.clear();
        self.store.clear();
        self.fetch_indices = PageIndices::default();
        self.data_indices = PageIndices::default();
        self.fetch_generation += 1;
        self.data_generation += 1;
    }

    /// Makes every translation one of an address space that is never used again, which is cheaper
    /// than to forget it. The contexts have to be set anew.
    pub fn abandon_spaces(&mut self) {
        self.spaces.fill(NO_SPACE);
        self.recent_spaces = [None; 2];
    }

    /// Forgets the translations of virtual pages whose low nine bits are `index`; those of fetches
    /// only if the page-table entry that changed allowed them.
    pub fn drop_index(&mut self, index: u64, executable: bool) {
        if executable && self.fetch_indices.contains(index) {
            self.fetch.drop_index(index);
            self.fetch_generation += 1;
        }
        if self.data_indices.contains(index) {
            self.load.drop_index(index);
            self.store.drop_index(index);
            self.data_generation += 1;
        }
    }

    /// Forgets all stores: dirty tracking begins anew.
    pub fn clear_stores(&mut self) {
        self.store.clear();
        self.data_generation += 1;
    }

    /// Forgets the stores to the page of RAM at `page_offset`.
    pub fn drop_stores_to(&mut self, page_offset: usize) {
        self.store.drop_page(page_offset);
        self.data_generation += 1;
    }

    /// Remembers a fetch.
    pub fn insert_fetch(&mut self, address: u64, page_offset: usize) {
        self.fetch.insert(address, self.fetch_context, page_offset);
        self.fetch_indices.insert(address);
    }

    /// Remembers a load.
    pub fn insert_load(&mut self, address: u64, page_offset: usize) {
        self.load.insert(address, self.data_context, page_offset);
        self.data_indices.insert(address);
    }

    /// Remembers a store.
    pub fn insert_store(&mut self, address: u64, page_offset: usize) {
        self.store.insert(address, self.data_context, page_offset);
        self.data_indices.insert(address);
    }
}
