//! Guest RAM, its page flags, its dirty pages and its digest.
//!
//! Addresses are guest physical addresses; an offset is one in RAM, which has no holes.
//!
//! Each page has a byte of flags. Some are known here: whether its next write is to be noticed (see
//! [`tracking`](Consumer)), whether decoded code is in it. The rest are the architecture's, for what it remembers
//! of the page's contents (page tables, most of all): it is told when a device writes to a page that
//! has any of them, and sees to the stores of its harts itself.

mod batch;
mod capture;
mod digests;
mod guest_ram;
mod huge_pages;
pub mod journal;
mod layout;
mod tracking;

pub use batch::{BATCH_PAGES, PageBatch};
pub use capture::{Capture, Extent};
pub use guest_ram::GuestRam;
pub use huge_pages::{ask_for_huge_pages, keep_in_huge_pages};
pub use layout::Region;
pub use tracking::Consumer;

use capture::Captured;
use digests::PageDigests;
use journal::Journal;
use layout::Layout;
use thiserror::Error;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// The page holds instructions that are in the cache of decoded blocks.
pub const PAGE_HOLDS_CODE: u8 = 1;
/// The next write to the page is to be noticed: somebody has not seen one yet, or keeps its bytes.
pub const PAGE_IS_CLEAN: u8 = 8;
/// The write TLB may know the page.
const PAGE_IS_IN_WRITE_TLB: u8 = 64;
/// The flags that an architecture may give a meaning of its own.
pub const ARCHITECTURE_FLAGS: u8 = !(PAGE_HOLDS_CODE | PAGE_IS_CLEAN | PAGE_IS_IN_WRITE_TLB);

/// An access outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("guest physical address {address:#x} (+{length} bytes) is outside RAM")]
pub struct OutsideRam {
    /// Where it began.
    pub address: u64,
    /// How long it was.
    pub length: u64,
}

/// A write to a page of which the engine remembers something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlaggedWrite {
    /// Offset of the page in RAM.
    pub page_offset: usize,
    /// What may not be true any more: [`PAGE_HOLDS_CODE`], which the page has no longer, or
    /// [`ARCHITECTURE_FLAGS`], which it still has.
    pub flags: u8,
}

/// Guest RAM.
pub struct Ram {
    layout: Layout,
    bytes: Vec<u8>,
    flags: Vec<u8>,
    /// Of each page that holds decoded code, the lines of 64 bytes that do: a bit each.
    code_lines: Vec<u64>,
    flagged_writes: Vec<FlaggedWrite>,
    /// Stores beside code in its page since the last time that this cost a page its code.
    code_page_stores: u32,
    /// While the interpreter runs for trial: see `journal`.
    journal: Option<Box<Journal>>,
    /// Of each page, who has not seen its last write yet, and whether its bytes are to be kept.
    tracking: Vec<u8>,
    digests: PageDigests,
    /// The snapshot that is taken while the machine runs.
    captured: Option<Box<Captured>>,
}

/// The lines of 64 bytes of a page that `length` bytes at `offset` touch: a bit each.
fn lines(offset: usize, length: usize) -> u64 {
    let first = offset % PAGE_SIZE as usize / 64;
    let last = (offset + length - 1) % PAGE_SIZE as usize / 64;
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}

/// After so many stores beside code in its page the code of the page is dropped: the page may have
/// been freed, and what the guest keeps there now should become quick.
const CODE_PAGE_STORES_BEFORE_DROP: u32 = 1 << 10;

macro_rules! access {
    ($load:ident, $store:ident, $type:ty) => {
        /// Loads a little-endian number at an offset that [`Ram::offset`] gave.
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

        /// Stores a little-endian number at an offset that [`Ram::offset`] gave. Only for pages
        /// without flags; [`Ram::store`] is for all others.
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

#[allow(unsafe_code)] // guest RAM: the one place in this crate that may use it
impl Ram {
    access!(load_u8, store_u8, u8);
    access!(load_u16, store_u16, u16);
    access!(load_u32, store_u32, u32);
    access!(load_u64, store_u64, u64);
}

impl Ram {
    /// RAM of these regions, in the order of their addresses and with gaps between them: all zero,
    /// every page clean.
    ///
    /// # Panics
    /// For regions that are none, not whole pages, not in order, or touch.
    pub fn new(regions: &[Region]) -> Ram {
        let layout = Layout::new(regions);
        let pages = (layout.size() / PAGE_SIZE) as usize;
        let mut bytes = vec![0; layout.size() as usize];
        ask_for_huge_pages(&mut bytes);
        Ram {
            layout,
            bytes,
            flags: vec![PAGE_IS_CLEAN; pages],
            code_lines: vec![0; pages],
            flagged_writes: Vec::new(),
            code_page_stores: 0,
            journal: None,
            tracking: vec![0; pages],
            digests: PageDigests::new(pages),
            captured: None,
        }
    }

    /// Where RAM is in the host's address space, for compiled code.
    #[inline]
    pub fn host_address(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// Fills page `index` of RAM that no engine has seen yet, as a snapshot does.
    ///
    /// # Panics
    /// There is no such page, or `bytes` is none.
    pub fn load_page(&mut self, index: usize, bytes: &[u8]) {
        self.first_write(index);
        self.bytes[index * PAGE_SIZE as usize..][..PAGE_SIZE as usize].copy_from_slice(bytes);
        // Whoever restores has the time for it. The first digest would take it from the guest.
        self.digests.update(index, bytes);
        self.has_seen(Consumer::Digest, index);
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.layout.size()
    }

    /// Which guest physical addresses are RAM, in their order.
    pub fn regions(&self) -> Vec<Region> {
        self.layout.regions()
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.flags.len()
    }

    /// The bytes of page `index`.
    ///
    /// # Panics
    /// There is no such page.
    pub fn page(&self, index: usize) -> &[u8] {
        &self.bytes[index * PAGE_SIZE as usize..][..PAGE_SIZE as usize]
    }

    /// The offset of `address` in RAM, if `length` bytes from there are all RAM.
    #[inline]
    pub fn offset(&self, address: u64, length: u64) -> Result<usize, OutsideRam> {
        self.layout.offset(address, length)
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
            if flags & PAGE_IS_CLEAN != 0 {
                self.first_write(index);
            }
            self.flags[index] &= !PAGE_HOLDS_CODE;
            self.code_lines[index] = 0;
            let flags = flags & (PAGE_HOLDS_CODE | ARCHITECTURE_FLAGS);
            if flags != 0 {
                self.flagged_writes.push(FlaggedWrite {
                    page_offset: index * page,
                    flags,
                });
            }
        }
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Makes all of it zero, as at power-on: no page has any flag of the architecture, none holds code.
    /// Whatever an engine remembers of RAM is void. Pages that were never touched stay so.
    pub fn clear(&mut self) {
        assert!(
            self.journal.is_none(),
            "RAM is cleared between instructions"
        );
        for index in 0..self.pages() {
            if !self.is_known_to_be_zero(index) {
                if self.flags[index] & PAGE_IS_CLEAN != 0 {
                    self.first_write(index);
                }
                self.bytes[index * PAGE_SIZE as usize..][..PAGE_SIZE as usize].fill(0);
            }
            self.flags[index] &= PAGE_IS_CLEAN;
        }
        self.code_lines.fill(0);
        self.flagged_writes.clear();
        self.code_page_stores = 0;
    }

    /// Whether the page at `offset` may have entries in a write TLB.
    #[inline]
    pub fn is_plain(&self, offset: usize) -> bool {
        self.flags[offset / PAGE_SIZE as usize] & !PAGE_IS_IN_WRITE_TLB == 0
            && self.journal.is_none()
    }

    /// Whether the next write to the page at `offset` is to be noticed: [`Ram::store`] and
    /// [`Ram::write`] do.
    #[inline]
    pub fn is_clean(&self, offset: usize) -> bool {
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

    /// The flags of the page at `offset`: [`PAGE_HOLDS_CODE`], [`PAGE_IS_CLEAN`] and
    /// [`ARCHITECTURE_FLAGS`] mean something.
    #[inline]
    pub fn flags(&self, offset: usize) -> u8 {
        self.flags[offset / PAGE_SIZE as usize]
    }

    /// Sets flags of the page at `offset`. True if the page was plain before, and a write TLB may
    /// know it: then its entries have to go.
    pub fn set_flags(&mut self, offset: usize, flags: u8) -> bool {
        if self.journal.is_some() {
            self.note_page(offset);
        }
        let index = offset / PAGE_SIZE as usize;
        let old = self.flags[index];
        self.flags[index] = (old | flags) & !PAGE_IS_IN_WRITE_TLB;
        old & PAGE_IS_IN_WRITE_TLB != 0
    }

    /// Takes flags of the architecture from the page at `offset`.
    pub fn clear_flags(&mut self, offset: usize, flags: u8) {
        self.flags[offset / PAGE_SIZE as usize] &= !(flags & ARCHITECTURE_FLAGS);
    }

    /// Takes flags of the architecture from every page.
    pub fn clear_flags_everywhere(&mut self, flags: u8) {
        let flags = flags & ARCHITECTURE_FLAGS;
        for page in &mut self.flags {
            *page &= !flags;
        }
    }

    /// The `length` bytes at `offset`, all in one page, are decoded code now. True as in
    /// [`Ram::set_flags`].
    pub fn mark_code(&mut self, offset: usize, length: usize) -> bool {
        self.code_lines[offset / PAGE_SIZE as usize] |= lines(offset, length);
        self.set_flags(offset, PAGE_HOLDS_CODE)
    }

    /// Whether any of `length` bytes at `offset`, all in one page, may be decoded code.
    fn holds_code(&self, offset: usize, length: usize) -> bool {
        self.code_lines[offset / PAGE_SIZE as usize] & lines(offset, length) != 0
    }

    /// A store of a hart to any page: `size` low bytes of `value` (1, 2, 4 or 8) that do not cross
    /// a page. True if it disturbed code. What flags of the architecture say is for the architecture
    /// to look after.
    #[inline]
    pub fn store(&mut self, offset: usize, size: usize, value: u64) -> bool {
        if self.journal.is_some() {
            self.note_store(offset, size);
        }
        let index = offset / PAGE_SIZE as usize;
        let flags = self.flags[index];
        if flags & PAGE_IS_CLEAN != 0 {
            self.first_write(index);
        }
        self.bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        if flags & PAGE_HOLDS_CODE != 0 && self.counts_as_store_to_code(offset, size) {
            self.flagged_writes.push(FlaggedWrite {
                page_offset: index * PAGE_SIZE as usize,
                flags: PAGE_HOLDS_CODE,
            });
            self.flags[index] &= !PAGE_HOLDS_CODE;
            self.code_lines[index] = 0;
        }
        !self.flagged_writes.is_empty()
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

    /// Whether [`Ram::store`] might disturb code; false means that it will not.
    #[inline]
    pub fn might_disturb_code(&self, offset: usize, size: usize) -> bool {
        let is_due = self.code_page_stores + 1 >= CODE_PAGE_STORES_BEFORE_DROP;
        self.has_flags(offset, PAGE_HOLDS_CODE) && (is_due || self.holds_code(offset, size))
    }

    /// Whether pages that had flags were written since the last [`Ram::take_flagged_writes`].
    #[inline]
    pub fn has_flagged_writes(&self) -> bool {
        !self.flagged_writes.is_empty()
    }

    /// Writes to pages that had flags. Whoever takes them must act on them before the next
    /// instruction.
    pub fn take_flagged_writes(&mut self) -> Vec<FlaggedWrite> {
        std::mem::take(&mut self.flagged_writes)
    }

    /// All decoded code was dropped.
    pub fn forget_code(&mut self) {
        for flags in &mut self.flags {
            *flags &= !PAGE_HOLDS_CODE;
        }
        self.code_lines.fill(0);
    }

    /// Copies bytes to pages without flags.
    ///
    /// # Panics
    /// Not all of them are RAM.
    pub fn copy_to_plain(&mut self, from: usize, to: usize, length: usize) {
        debug_assert!(self.is_plain(to) && self.is_plain(to + length.max(1) - 1));
        self.bytes.copy_within(from..from + length, to);
    }

    /// Borrows bytes of pages without flags, for bulk stores.
    ///
    /// # Panics
    /// Not all of them are RAM.
    pub fn plain_bytes(&mut self, offset: usize, length: usize) -> &mut [u8] {
        debug_assert!(self.is_plain(offset) && self.is_plain(offset + length.max(1) - 1));
        &mut self.bytes[offset..offset + length]
    }
}
