//! The software TLB: three direct-mapped tables, for fetches, loads and stores.

/// Entries of each table.
const ENTRIES: usize = 4096;
const INDEX_MASK: u64 = ENTRIES as u64 - 1;
/// Address spaces that can be told apart before all is flushed.
const SPACES: usize = 255;

/// A cached translation of a page that is RAM, all of which may be accessed.
#[derive(Clone, Copy)]
struct Entry {
    /// Virtual page number, with the context in the upper twelve bits.
    tag: u64,
    /// Offset of the page in RAM.
    page_offset: usize,
}

/// Matches no access: address space 255 is never used.
const EMPTY: Entry = Entry {
    tag: u64::MAX,
    page_offset: 0,
};

/// One table.
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
    /// `satp` values by the number they have in the tags.
    spaces: Vec<u64>,
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
        if let Some(space) = self.spaces.iter().position(|&known| known == satp) {
            return space as u64;
        }
        if self.spaces.len() == SPACES {
            self.clear();
            self.spaces.clear();
        }
        self.spaces.push(satp);
        self.spaces.len() as u64 - 1
    }

    /// Forgets every translation.
    pub fn clear(&mut self) {
        self.fetch.clear();
        self.load.clear();
        self.store.clear();
    }

    /// Forgets the translations of virtual pages whose low nine bits are `index`.
    pub fn drop_index(&mut self, index: u64) {
        self.fetch.drop_index(index);
        self.load.drop_index(index);
        self.store.drop_index(index);
    }

    /// Forgets all stores: dirty tracking begins anew.
    pub fn clear_stores(&mut self) {
        self.store.clear();
    }

    /// Forgets the stores to the page of RAM at `page_offset`.
    pub fn drop_stores_to(&mut self, page_offset: usize) {
        self.store.drop_page(page_offset);
    }

    /// Remembers a fetch.
    pub fn insert_fetch(&mut self, address: u64, page_offset: usize) {
        self.fetch.insert(address, self.fetch_context, page_offset);
    }

    /// Remembers a load.
    pub fn insert_load(&mut self, address: u64, page_offset: usize) {
        self.load.insert(address, self.data_context, page_offset);
    }

    /// Remembers a store.
    pub fn insert_store(&mut self, address: u64, page_offset: usize) {
        self.store.insert(address, self.data_context, page_offset);
    }
}
