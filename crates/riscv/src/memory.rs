//! Guest RAM, and what is known of the page tables in it.
//!
//! RAM begins at [`RAM_BASE`]. A store to a page of which translations were made is looked at: what
//! was not valid was never cached, and what changed is told as narrowly as the flags of the page
//! allow.

mod trial;

pub use trial::Trial;

use crate::mmu::tlb::Leaf;
use machine::debugging::Traps;
use machine::memory::{PAGE_HOLDS_CODE, PAGE_SIZE, Ram, Region};
use std::ops::{Deref, DerefMut};

/// Where RAM is on the `virt` board.
pub const RAM_BASE: u64 = 0x8000_0000;

/// The page holds page-table entries that a walk has read at level 0 (leaves of 4 KiB pages).
pub const PAGE_HOLDS_LEAF_TABLE: u8 = 2;
/// The page holds page-table entries that a walk has read at a level above 0.
pub const PAGE_HOLDS_UPPER_TABLE: u8 = 4;
/// Besides [`PAGE_HOLDS_LEAF_TABLE`] or [`PAGE_HOLDS_UPPER_TABLE`]: a walk for an address in the
/// upper half of an address space has read the page, other than as a root that has [`PAGE_IS_ROOT`].
pub const PAGE_SERVES_UPPER_HALF: u8 = 16;
/// Besides [`PAGE_HOLDS_UPPER_TABLE`]: a root page table, the upper half of which was compared with
/// that of others: whoever changes it in any way has to be known.
pub const PAGE_IS_ROOT: u8 = 32;
/// Either kind of page table.
pub const PAGE_HOLDS_PAGE_TABLE: u8 = PAGE_HOLDS_LEAF_TABLE | PAGE_HOLDS_UPPER_TABLE;
/// All that is known of page tables.
const PAGE_TABLE_FLAGS: u8 = PAGE_HOLDS_PAGE_TABLE | PAGE_SERVES_UPPER_HALF | PAGE_IS_ROOT;
const _: () = assert!(PAGE_TABLE_FLAGS & !machine::memory::ARCHITECTURE_FLAGS == 0);

/// X of a page-table entry (privileged specification, 12.3.1).
const ENTRY_EXECUTE: u64 = 1 << 3;
/// U of a page-table entry.
const ENTRY_USER: u64 = 1 << 4;

/// A store that the engine has to know of: it may have changed code or a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Bytes of a page that holds decoded code were written.
    Code {
        /// Offset of the page in RAM.
        page_offset: usize,
    },
    /// A valid entry of a page that was only ever walked at level 0 changed: it can only concern
    /// virtual pages whose low nine bits of the page number are its index.
    LeafEntry(Leaf),
    /// A valid entry of a page changed that was walked for lower halves of address spaces only: what
    /// it concerns was never shared.
    LowerHalf,
    /// The upper half of a root page table changed.
    Root {
        /// Offset of its page in RAM.
        page_offset: usize,
    },
    /// Some translation may have changed.
    Translations,
}

/// Guest RAM.
pub struct Memory {
    ram: Ram,
    /// What stores of harts changed in page tables.
    disturbances: Vec<Disturbance>,
    /// Indices of the pages that hold page tables and may lose that flag when the translations of
    /// lower halves are dropped.
    lower_tables: Vec<u32>,
    /// Stores to page-table pages since the flags of page tables were last dropped.
    table_stores: u32,
    /// Where somebody wants to look: nothing of it is visible to the guest.
    pub(crate) traps: Traps,
}

/// What is no matter of page tables is that of RAM.
impl Deref for Memory {
    type Target = Ram;

    #[inline(always)]
    fn deref(&self) -> &Ram {
        &self.ram
    }
}

impl DerefMut for Memory {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Ram {
        &mut self.ram
    }
}

/// After so many stores to pages that hold (or once held) page tables everything is flushed, so
/// that a page which the guest now uses for something else becomes quick again.
const TABLE_STORES_BEFORE_FLUSH: u32 = 1 << 16;

/// Whether the page-table entry at `offset` would be of the upper half, were its table a root.
fn is_of_upper_half(offset: usize) -> bool {
    offset % PAGE_SIZE as usize >= PAGE_SIZE as usize / 2
}

/// What a change of a valid page-table entry at `offset` concerns.
fn concerns(offset: usize, old: u64, flags: u8) -> Disturbance {
    if flags & PAGE_HOLDS_UPPER_TABLE == 0 {
        Disturbance::LeafEntry(Leaf {
            index: (offset as u64 % PAGE_SIZE) / 8,
            executable: old & ENTRY_EXECUTE != 0,
            user: old & ENTRY_USER != 0,
        })
    } else if flags & PAGE_SERVES_UPPER_HALF == 0 {
        Disturbance::LowerHalf
    } else {
        Disturbance::Translations
    }
}

/// The board's RAM of `length` bytes.
pub fn region(length: u64) -> Region {
    Region {
        base: RAM_BASE,
        length,
    }
}

impl Memory {
    /// RAM of `size` bytes (a multiple of the page size), all zero, every page clean.
    pub fn new(size: u64) -> Memory {
        Memory::of(Ram::new(&[region(size)]))
    }

    /// RAM of which nothing is known yet.
    pub fn of(ram: Ram) -> Memory {
        Memory {
            ram,
            disturbances: Vec::new(),
            lower_tables: Vec::new(),
            table_stores: 0,
            traps: Traps::default(),
        }
    }

    /// Makes all of it zero: see [`Ram::clear`].
    pub fn clear(&mut self) {
        self.ram.clear();
        self.disturbances.clear();
        self.lower_tables.clear();
        self.table_stores = 0;
    }

    /// The page at `offset` holds page tables, as `flags` say. True as in [`Ram::set_flags`].
    pub fn flag_table(&mut self, offset: usize, flags: u8) -> bool {
        if flags & PAGE_HOLDS_PAGE_TABLE != 0 && self.ram.flags(offset) & PAGE_HOLDS_PAGE_TABLE == 0
        {
            self.lower_tables.push((offset / PAGE_SIZE as usize) as u32);
        }
        self.ram.set_flags(offset, flags)
    }

    /// A store of a hart to any page: `size` low bytes of `value` (1, 2, 4 or 8) that do not cross
    /// a page. True if it disturbed code or translations.
    pub fn store(&mut self, offset: usize, size: usize, value: u64) -> bool {
        let flags = self.ram.flags(offset);
        if flags & PAGE_HOLDS_PAGE_TABLE != 0 {
            self.store_to_table(offset, size, value, flags);
        } else {
            self.ram.store(offset, size, value);
        }
        self.is_disturbed()
    }

    /// `shared/speed.md`, section 3: what was not valid was never cached, and a leaf of a table
    /// that is only ever walked at level 0 concerns few slots.
    fn store_to_table(&mut self, offset: usize, size: usize, value: u64, flags: u8) {
        self.table_stores += 1;
        let first = offset & !7;
        let last = (offset + size - 1) & !7;
        let old = [self.load_u64(first), self.load_u64(last)];
        self.ram.store(offset, size, value);
        for (entry, old) in [first, last].into_iter().zip(old) {
            if self.load_u64(entry) == old {
                continue;
            }
            if flags & PAGE_IS_ROOT != 0 && is_of_upper_half(entry) {
                let page_offset = entry & !(PAGE_SIZE as usize - 1);
                self.disturbances.push(Disturbance::Root { page_offset });
            }
            let valid_before = old & 1 != 0;
            if valid_before {
                self.disturbances.push(concerns(entry, old, flags));
            }
        }
        if self.table_stores >= TABLE_STORES_BEFORE_FLUSH {
            self.disturbances.push(Disturbance::Translations);
        }
    }

    /// Whether [`Memory::store`] might disturb something; false means that it will not.
    pub fn might_disturb(&self, offset: usize, size: usize) -> bool {
        if self.ram.might_disturb_code(offset, size) {
            return true;
        }
        let flags = self.ram.flags(offset);
        if flags & PAGE_HOLDS_PAGE_TABLE == 0 {
            return false;
        }
        let matters = |entry: usize| {
            let is_upper_root_entry = flags & PAGE_IS_ROOT != 0 && is_of_upper_half(entry);
            is_upper_root_entry || self.load_u64(entry) & 1 != 0
        };
        matters(offset & !7)
            || matters((offset + size - 1) & !7)
            || self.table_stores + 1 >= TABLE_STORES_BEFORE_FLUSH
    }

    /// Whether a store or a transfer disturbed code or translations since the last
    /// [`Memory::take_disturbances`].
    #[inline]
    pub fn is_disturbed(&self) -> bool {
        self.ram.has_flagged_writes() || !self.disturbances.is_empty()
    }

    /// What was disturbed. Whoever takes it must act on it before the next instruction.
    pub fn take_disturbances(&mut self) -> Vec<Disturbance> {
        let mut disturbances = std::mem::take(&mut self.disturbances);
        for write in self.ram.take_flagged_writes() {
            if write.flags & PAGE_HOLDS_CODE != 0 {
                let page_offset = write.page_offset;
                disturbances.push(Disturbance::Code { page_offset });
            }
            if write.flags & PAGE_HOLDS_PAGE_TABLE != 0 {
                disturbances.push(Disturbance::Translations);
            }
        }
        disturbances
    }

    /// All translations were dropped: no page holds page tables until the next walk says so.
    pub fn forget_page_tables(&mut self) {
        self.table_stores = 0;
        self.lower_tables.clear();
        self.ram.clear_flags_everywhere(PAGE_TABLE_FLAGS);
    }

    /// All translations of lower halves were dropped, and what was known of the roots that are not
    /// among `roots`, offsets in RAM: likewise what held page tables for these only.
    pub fn forget_lower_tables(&mut self, roots: &[usize]) {
        for index in std::mem::take(&mut self.lower_tables) {
            let offset = index as usize * PAGE_SIZE as usize;
            if roots.contains(&offset) {
                self.lower_tables.push(index);
            } else if self.ram.has_flags(offset, PAGE_SERVES_UPPER_HALF) {
                self.ram.clear_flags(offset, PAGE_IS_ROOT);
            } else {
                self.ram.clear_flags(offset, PAGE_TABLE_FLAGS);
            }
        }
    }

    /// Nothing is known any more of the root page table at `page_offset`. It may be some other page
    /// table besides.
    pub fn forget_root(&mut self, page_offset: usize) {
        self.ram.clear_flags(page_offset, PAGE_IS_ROOT);
    }
}
