//! Guest RAM, its page flags and its dirty pages.
//!
//! RAM begins at [`RAM_BASE`]. Addresses here are guest physical addresses.

#[cfg_attr(not(jit), allow(dead_code))] // only a JIT under watch begins a trial
pub(crate) mod journal;

use crate::mmu::tlb::Leaf;
use journal::Journal;
use thiserror::Error;

/// Where RAM begins on the `virt` board.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// The page holds instructions that are in the cache of decoded blocks.
pub const PAGE_HOLDS_CODE: u8 = 1;
/// The page holds page-table entries that a walk has read at level 0 (leaves of 4 KiB pages).
pub const PAGE_HOLDS_LEAF_TABLE: u8 = 2;
/// The page holds page-table entries that a walk has read at a level above 0.
pub const PAGE_HOLDS_UPPER_TABLE: u8 = 4;
/// The page has not been written since dirty tracking last looked.
pub const PAGE_IS_CLEAN: u8 = 8;
/// Besides [`PAGE_HOLDS_LEAF_TABLE`] or [`PAGE_HOLDS_UPPER_TABLE`]: a walk for an address in the
/// upper half of an address space has read the page, other than as a root that has [`PAGE_IS_ROOT`].
pub const PAGE_SERVES_UPPER_HALF: u8 = 16;
/// Besides [`PAGE_HOLDS_UPPER_TABLE`]: a root page table, the upper half of which was compared with
/// that of others: whoever changes it in any way has to be known.
pub const PAGE_IS_ROOT: u8 = 32;
/// The write TLB may know the page.
const PAGE_IS_IN_WRITE_TLB: u8 = 64;
/// Either kind of page table.
pub const PAGE_HOLDS_PAGE_TABLE: u8 = PAGE_HOLDS_LEAF_TABLE | PAGE_HOLDS_UPPER_TABLE;
/// All that is known of page tables.
const PAGE_TABLE_FLAGS: u8 = PAGE_HOLDS_PAGE_TABLE | PAGE_SERVES_UPPER_HALF | PAGE_IS_ROOT;

/// X of a page-table entry (privileged specification, 12.3.1).
const ENTRY_EXECUTE: u64 = 1 << 3;
/// U of a page-table entry.
const ENTRY_USER: u64 = 1 << 4;

/// An access outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("guest physical address {address:#x} (+{length} bytes) is outside RAM")]
pub struct OutsideRam {
    /// Where it began.
    pub address: u64,
    /// How long it was.
    pub length: u64,
}

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
    bytes: Vec<u8>,
    flags: Vec<u8>,
    /// Of each page that holds decoded code, the lines of 64 bytes that do: a bit each.
    code_lines: Vec<u64>,
    disturbances: Vec<Disturbance>,
    /// Indices of the pages that hold page tables and may lose that flag when the translations of
    /// lower halves are dropped.
    lower_tables: Vec<u32>,
    /// Stores beside code in its page since the last time that this cost a page its code.
    code_page_stores: u32,
    /// Stores to page-table pages since the flags of page tables were last dropped.
    table_stores: u32,
    /// While the interpreter runs for trial: see `journal`.
    journal: Option<Box<Journal>>,
}

/// The lines of 64 bytes of a page that `length` bytes at `offset` touch: a bit each.
fn lines(offset: usize, length: usize) -> u64 {
    let first = offset % PAGE_SIZE as usize / 64;
    let last = (offset + length - 1) % PAGE_SIZE as usize / 64;
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}

/// After so many stores to pages that hold (or once held) page tables everything is flushed, so
/// that a page which the guest now uses for something else becomes quick again.
const TABLE_STORES_BEFORE_FLUSH: u32 = 1 << 16;
/// After so many stores beside code in its page the code of the page is dropped: the page may have
/// been freed, and what the guest keeps there now should become quick.
const CODE_PAGE_STORES_BEFORE_DROP: u32 = 1 << 10;

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

macro_rules! access {
    ($load:ident, $store:ident, $type:ty) => {
        /// Loads a little-endian number at an offset that [`Memory::offset`] gave.
        #[inline(always)]
        pub fn $load(&self, offset: usize) -> $type {
            const SIZE: usize = size_of::<$type>();
            assert!(offset <= self.bytes.len() - SIZE);
            // SAFETY: the range was just checked; RAM is never smaller than a page.
            <$type>::from_le(unsafe {
                self.bytes
                    .as_ptr()
                    .add(offset)
                    .cast::<$type>()
                    .read_unaligned()
            })
        }

        /// Stores a little-endian number at an offset that [`Memory::offset`] gave. Only for pages
        /// without flags; [`Memory::store`] is for all others.
        #[inline(always)]
        pub fn $store(&mut self, offset: usize, value: $type) {
            const SIZE: usize = size_of::<$type>();
            assert!(offset <= self.bytes.len() - SIZE);
            // SAFETY: the range was just checked; RAM is never smaller than a page.
            unsafe {
                self.bytes
                    .as_mut_ptr()
                    .add(offset)
                    .cast::<$type>()
                    .write_unaligned(value.to_le());
            }
        }
    };
}

#[allow(unsafe_code)] // guest RAM: the one place in this crate, beside the JIT, that may use it
impl Memory {
    access!(load_u8, store_u8, u8);
    access!(load_u16, store_u16, u16);
    access!(load_u32, store_u32, u32);
    access!(load_u64, store_u64, u64);
}

/// Lets the host map what is accessed here and there by pages of 2 MiB, so that an access misses its
/// TLB less often. A host that cannot is slower, nothing else.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // advice on memory of its own
pub(crate) fn ask_for_huge_pages<T>(memory: &mut [T]) {
    use rustix::mm::{Advice, madvise};
    let page = PAGE_SIZE as usize;
    let bytes = memory.as_mut_ptr().cast::<u8>();
    let unaligned = bytes.align_offset(page);
    let length = size_of_val(memory).saturating_sub(unaligned) / page * page;
    if length > 0 {
        // SAFETY: the range is whole pages within `memory`, and the advice changes no contents.
        let _ = unsafe { madvise(bytes.add(unaligned).cast(), length, Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn ask_for_huge_pages<T>(_: &mut [T]) {}

impl Memory {
    /// RAM of `size` bytes (a multiple of the page size), all zero, every page clean.
    pub fn new(size: u64) -> Memory {
        assert!(
            size > 0 && size.is_multiple_of(PAGE_SIZE),
            "RAM size {size} is not whole pages"
        );
        let pages = (size / PAGE_SIZE) as usize;
        let mut bytes = vec![0; size as usize];
        ask_for_huge_pages(&mut bytes);
        Memory {
            bytes,
            flags: vec![PAGE_IS_CLEAN; pages],
            code_lines: vec![0; pages],
            disturbances: Vec::new(),
            lower_tables: Vec::new(),
            code_page_stores: 0,
            table_stores: 0,
            journal: None,
        }
    }

    /// Where RAM is in the host's address space, for compiled code.
    #[cfg(jit)]
    pub(crate) fn host_address(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.flags.len()
    }

    /// The bytes of page `index`.
    pub fn page(&self, index: usize) -> &[u8] {
        &self.bytes[index * PAGE_SIZE as usize..][..PAGE_SIZE as usize]
    }

    /// The offset of `address` in RAM, if `length` bytes from there are all RAM.
    #[inline]
    pub fn offset(&self, address: u64, length: u64) -> Result<usize, OutsideRam> {
        let offset = address.wrapping_sub(RAM_BASE);
        if offset < self.size() && self.size() - offset >= length {
            Ok(offset as usize)
        } else {
            Err(OutsideRam { address, length })
        }
    }

    /// Reads bytes (DMA, loaders).
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        buffer.copy_from_slice(self.slice(address, buffer.len() as u64)?);
        Ok(())
    }

    /// Borrows bytes.
    pub fn slice(&self, address: u64, length: u64) -> Result<&[u8], OutsideRam> {
        let offset = self.offset(address, length)?;
        Ok(&self.bytes[offset..offset + length as usize])
    }

    /// Reads `N` bytes.
    #[inline]
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], OutsideRam> {
        let mut array = [0; N];
        self.read(address, &mut array)?;
        Ok(array)
    }

    /// Writes bytes from outside the hart (DMA, loaders), with all that a store entails.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideRam> {
        let offset = self.offset(address, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let page = PAGE_SIZE as usize;
        for index in offset / page..=(offset + data.len() - 1) / page {
            let flags = self.flags[index];
            self.flags[index] &= !(PAGE_HOLDS_CODE | PAGE_IS_CLEAN);
            self.code_lines[index] = 0;
            if flags & PAGE_HOLDS_CODE != 0 {
                self.disturbances.push(Disturbance::Code {
                    page_offset: index * page,
                });
            }
            if flags & PAGE_HOLDS_PAGE_TABLE != 0 {
                self.disturbances.push(Disturbance::Translations);
            }
        }
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Zeroes the page at `offset`, as a write from outside the hart.
    pub fn clear_page(&mut self, offset: usize) {
        let written = self.write(RAM_BASE + offset as u64, &[0; PAGE_SIZE as usize]);
        written.expect("it is a page of RAM");
    }

    /// Whether the page at `offset` may have entries in a write TLB.
    #[inline]
    pub fn is_plain(&self, offset: usize) -> bool {
        self.flags[offset / PAGE_SIZE as usize] & !PAGE_IS_IN_WRITE_TLB == 0
            && self.journal.is_none()
    }

    /// Whether the page at `offset` was not written since dirty tracking last looked.
    pub(crate) fn is_clean(&self, offset: usize) -> bool {
        self.flags[offset / PAGE_SIZE as usize] & PAGE_IS_CLEAN != 0
    }

    /// The write TLB is about to know the page at `offset`, which is plain.
    #[inline]
    pub fn enters_write_tlb(&mut self, offset: usize) {
        self.flags[offset / PAGE_SIZE as usize] |= PAGE_IS_IN_WRITE_TLB;
    }

    /// Whether the page at `offset` has all these flags.
    #[inline]
    pub fn has_flags(&self, offset: usize, flags: u8) -> bool {
        self.flags[offset / PAGE_SIZE as usize] & flags == flags
    }

    /// Sets flags of the page at `offset`. True if the page was plain before, and a write TLB may
    /// know it: then its entries have to go.
    pub fn set_flag(&mut self, offset: usize, flag: u8) -> bool {
        if self.journal.is_some() {
            self.note_page(offset);
        }
        let index = offset / PAGE_SIZE as usize;
        let old = self.flags[index];
        self.flags[index] = (old | flag) & !PAGE_IS_IN_WRITE_TLB;
        if flag & PAGE_HOLDS_PAGE_TABLE != 0 && old & PAGE_HOLDS_PAGE_TABLE == 0 {
            self.lower_tables.push(index as u32);
        }
        old & PAGE_IS_IN_WRITE_TLB != 0
    }

    /// The `length` bytes at `offset`, all in one page, are decoded code now. True as in
    /// [`Memory::set_flag`].
    pub fn mark_code(&mut self, offset: usize, length: usize) -> bool {
        self.code_lines[offset / PAGE_SIZE as usize] |= lines(offset, length);
        self.set_flag(offset, PAGE_HOLDS_CODE)
    }

    /// Whether any of `length` bytes at `offset`, all in one page, may be decoded code.
    fn holds_code(&self, offset: usize, length: usize) -> bool {
        self.code_lines[offset / PAGE_SIZE as usize] & lines(offset, length) != 0
    }

    /// A store of a hart to any page: `size` low bytes of `value` (1, 2, 4 or 8) that do not cross
    /// a page. True if it disturbed code or translations.
    pub fn store(&mut self, offset: usize, size: usize, value: u64) -> bool {
        if self.journal.is_some() {
            self.note_store(offset, size);
        }
        let index = offset / PAGE_SIZE as usize;
        let flags = self.flags[index];
        if flags & PAGE_HOLDS_PAGE_TABLE != 0 {
            self.store_to_table(offset, size, value, flags);
        } else {
            self.store_bytes(offset, size, value);
        }
        self.flags[index] &= !PAGE_IS_CLEAN;
        if flags & PAGE_HOLDS_CODE != 0 && self.counts_as_store_to_code(offset, size) {
            let page_offset = index * PAGE_SIZE as usize;
            self.disturbances.push(Disturbance::Code { page_offset });
            self.flags[index] &= !PAGE_HOLDS_CODE;
            self.code_lines[index] = 0;
        }
        !self.disturbances.is_empty()
    }

    /// A store to code; or one beside it, if there were many: the page may hold something else now.
    fn counts_as_store_to_code(&mut self, offset: usize, size: usize) -> bool {
        self.code_page_stores += 1;
        let is_old = self.code_page_stores >= CODE_PAGE_STORES_BEFORE_DROP;
        if is_old {
            self.code_page_stores = 0;
        }
        is_old || self.holds_code(offset, size)
    }

    /// Whether [`Memory::store`] might disturb something; false means that it will not.
    pub fn might_disturb(&self, offset: usize, size: usize) -> bool {
        let flags = self.flags[offset / PAGE_SIZE as usize];
        let is_due = self.code_page_stores + 1 >= CODE_PAGE_STORES_BEFORE_DROP;
        if flags & PAGE_HOLDS_CODE != 0 && (is_due || self.holds_code(offset, size)) {
            return true;
        }
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

    fn store_bytes(&mut self, offset: usize, size: usize, value: u64) {
        self.bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    /// `shared/speed.md`, section 3: what was not valid was never cached, and a leaf of a table
    /// that is only ever walked at level 0 concerns few slots.
    fn store_to_table(&mut self, offset: usize, size: usize, value: u64, flags: u8) {
        self.table_stores += 1;
        let first = offset & !7;
        let last = (offset + size - 1) & !7;
        let old = [self.load_u64(first), self.load_u64(last)];
        self.store_bytes(offset, size, value);
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

    /// Whether a store or a transfer disturbed code or translations since the last
    /// [`Memory::take_disturbances`].
    #[inline]
    pub fn is_disturbed(&self) -> bool {
        !self.disturbances.is_empty()
    }

    /// What was disturbed. Whoever takes it must act on it before the next instruction.
    pub fn take_disturbances(&mut self) -> Vec<Disturbance> {
        std::mem::take(&mut self.disturbances)
    }

    /// All translations were dropped: no page holds page tables until the next walk says so.
    pub fn forget_page_tables(&mut self) {
        self.table_stores = 0;
        self.lower_tables.clear();
        for flags in &mut self.flags {
            *flags &= !PAGE_TABLE_FLAGS;
        }
    }

    /// All translations of lower halves were dropped, and what was known of the roots that are not
    /// among `roots`, offsets in RAM: likewise what held page tables for these only.
    pub fn forget_lower_tables(&mut self, roots: &[usize]) {
        let page = PAGE_SIZE as usize;
        for index in std::mem::take(&mut self.lower_tables) {
            let flags = &mut self.flags[index as usize];
            if roots.contains(&(index as usize * page)) {
                self.lower_tables.push(index);
            } else if *flags & PAGE_SERVES_UPPER_HALF != 0 {
                *flags &= !PAGE_IS_ROOT;
            } else {
                *flags &= !PAGE_TABLE_FLAGS;
            }
        }
    }

    /// Nothing is known any more of the root page table at `page_offset`. It may be some other page
    /// table besides.
    pub fn forget_root(&mut self, page_offset: usize) {
        self.flags[page_offset / PAGE_SIZE as usize] &= !PAGE_IS_ROOT;
    }

    /// All decoded code was dropped.
    pub fn forget_code(&mut self) {
        for flags in &mut self.flags {
            *flags &= !PAGE_HOLDS_CODE;
        }
        self.code_lines.fill(0);
    }

    /// Calls `f` with the index and the bytes of every page written since the last call, and marks
    /// them clean. All write TLB entries have to go afterwards.
    pub fn visit_dirty_pages(&mut self, mut f: impl FnMut(usize, &[u8])) {
        for (index, flags) in self.flags.iter_mut().enumerate() {
            if *flags & PAGE_IS_CLEAN == 0 {
                *flags |= PAGE_IS_CLEAN;
                f(
                    index,
                    &self.bytes[index * PAGE_SIZE as usize..][..PAGE_SIZE as usize],
                );
            }
        }
    }
}
