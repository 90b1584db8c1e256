//! RAM: one region from physical address 0 on, with what is known of each page.

use machine::memory::{GuestRam, OutsideRam};

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
const PAGE: usize = PAGE_SIZE as usize;

/// The page holds instructions that are in the cache of decoded blocks.
const HOLDS_CODE: u8 = 1;
/// A walk has read the page as a table of 4 KiB leaves.
pub(crate) const HOLDS_LEAF_TABLE: u8 = 2;
/// A walk has read the page as a table of any other level.
pub(crate) const HOLDS_UPPER_TABLE: u8 = 4;
/// The write TLB may know the page.
const IN_WRITE_TLB: u8 = 8;
/// The page may have been written since [`Ram::visit_dirty_pages`] last looked.
const IS_DIRTY: u8 = 16;
const HOLDS_TABLE: u8 = HOLDS_LEAF_TABLE | HOLDS_UPPER_TABLE;

/// After so many stores beside code in its page the page's code is dropped: it may have been freed,
/// and what the guest keeps there now should become quick.
const STORES_BESIDE_CODE_BEFORE_DROP: u32 = 1 << 10;
/// After so many stores to tables all translations are dropped, for the same reason.
const TABLE_STORES_BEFORE_FLUSH: u32 = 1 << 16;

/// A store that the interpreter has to know of before the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// Decoded bytes of this page (its number) were written.
    Code(u32),
    /// A present leaf changed: it can only concern linear pages whose low nine bits are this index.
    Leaf(usize),
    /// Any translation may have changed.
    Translations,
}

/// RAM, from physical address 0 on.
pub struct Ram {
    bytes: Vec<u8>,
    flags: Vec<u8>,
    /// Of each page that holds code, the lines of 64 bytes that do: a bit each.
    code_lines: Vec<u64>,
    disturbances: Vec<Disturbance>,
    /// The pages flagged as tables.
    tables: Vec<u32>,
    stores_beside_code: u32,
    table_stores: u32,
}

fn lines(offset: usize, length: usize) -> u64 {
    let first = offset % PAGE / 64;
    let last = (offset % PAGE + length - 1) / 64;
    (u64::MAX << first) & (u64::MAX >> (63 - last.min(63)))
}

impl Ram {
    /// RAM of `size` bytes, whole pages, all zero.
    pub fn new(size: u64) -> Ram {
        assert!(
            size > 0 && size.is_multiple_of(PAGE_SIZE),
            "RAM size {size} is not whole pages"
        );
        let pages = (size / PAGE_SIZE) as usize;
        Ram {
            bytes: vec![0; size as usize],
            flags: vec![0; pages],
            code_lines: vec![0; pages],
            disturbances: Vec::new(),
            tables: Vec::new(),
            stores_beside_code: 0,
            table_stores: 0,
        }
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether `length` bytes from `address` on are all RAM.
    #[inline]
    pub fn contains(&self, address: u64, length: u64) -> bool {
        address < self.size() && self.size() - address >= length
    }

    /// Borrows bytes; `None` unless all are RAM.
    pub fn slice(&self, address: u64, length: u64) -> Option<&[u8]> {
        if self.contains(address, length) {
            self.bytes
                .get(address as usize..(address + length) as usize)
        } else {
            None
        }
    }

    /// Writes bytes from outside the CPU (DMA, loaders), with all that a store entails; `None` unless
    /// all are RAM.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Option<()> {
        if !self.contains(address, data.len() as u64) {
            return None;
        }
        let mut at = address as usize;
        let mut rest = data;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PAGE - at % PAGE));
            let page = at / PAGE;
            self.flags[page] |= IS_DIRTY;
            if self.flags[page] & HOLDS_TABLE != 0 {
                self.disturbances.push(Disturbance::Translations);
            }
            if self.flags[page] & HOLDS_CODE != 0 {
                self.drop_code(page);
            }
            self.bytes[at..at + now.len()].copy_from_slice(now);
            at += now.len();
            rest = later;
        }
        Some(())
    }

    /// Loads `size` bytes (1, 2, 4 or 8) that [`Ram::contains`] holds.
    #[inline(always)]
    pub(crate) fn load(&self, address: u64, size: usize) -> u64 {
        let at = address as usize;
        match size {
            1 => u64::from(self.bytes[at]),
            2 => u64::from(u16::from_le_bytes(self.array(at))),
            4 => u64::from(u32::from_le_bytes(self.array(at))),
            _ => u64::from_le_bytes(self.array(at)),
        }
    }

    #[inline(always)]
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }

    /// Stores to a page that the write TLB knows: nothing has to be told to anyone.
    #[inline(always)]
    pub(crate) fn store_plain(&mut self, address: u64, size: usize, value: u64) {
        let at = address as usize;
        match size {
            1 => self.bytes[at] = value as u8,
            2 => self.bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes()),
            4 => self.bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes()),
            _ => self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes()),
        }
    }

    /// Borrows bytes of a page that the write TLB knows, for bulk stores.
    pub(crate) fn plain_bytes(&mut self, address: u64, length: usize) -> &mut [u8] {
        &mut self.bytes[address as usize..address as usize + length]
    }

    /// Copies between pages, forwards like a string instruction, when the ranges do not overlap
    /// within a page; the target is known to the write TLB.
    pub(crate) fn copy_plain(&mut self, from: u64, to: u64, length: usize) {
        self.bytes
            .copy_within(from as usize..from as usize + length, to as usize);
    }

    /// A store to any page, of bytes that do not cross into the next.
    pub(crate) fn store(&mut self, address: u64, size: usize, value: u64) {
        let at = address as usize;
        let page = at / PAGE;
        let flags = self.flags[page];
        self.flags[page] |= IS_DIRTY;
        if flags & HOLDS_TABLE != 0 {
            self.store_to_table(at, size, value, flags);
        } else {
            self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        if flags & HOLDS_CODE != 0 {
            self.stores_beside_code += 1;
            let is_old = self.stores_beside_code >= STORES_BESIDE_CODE_BEFORE_DROP;
            if is_old || self.code_lines[page] & lines(at, size) != 0 {
                self.stores_beside_code = 0;
                self.drop_code(page);
            }
        }
    }

    fn drop_code(&mut self, page: usize) {
        self.flags[page] &= !HOLDS_CODE;
        self.code_lines[page] = 0;
        self.disturbances.push(Disturbance::Code(page as u32));
    }

    fn store_to_table(&mut self, at: usize, size: usize, value: u64, flags: u8) {
        let first = at & !7;
        let last = (at + size - 1) & !7;
        let old = [self.load(first as u64, 8), self.load(last as u64, 8)];
        self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        for (entry, old) in [first, last].into_iter().zip(old) {
            // What was not present was never cached.
            if old & 1 != 0 && self.load(entry as u64, 8) != old {
                self.disturbances.push(if flags & HOLDS_UPPER_TABLE != 0 {
                    Disturbance::Translations
                } else {
                    Disturbance::Leaf(entry % PAGE / 8)
                });
            }
        }
        self.table_stores += 1;
        if self.table_stores >= TABLE_STORES_BEFORE_FLUSH {
            self.table_stores = 0;
            self.disturbances.push(Disturbance::Translations);
        }
    }

    /// The walker sets accessed and dirty bits: no translation changes by that.
    pub(crate) fn set_entry_bits(&mut self, address: u64, bits: u64) {
        let entry = self.load(address, 8) | bits;
        let page = address as usize / PAGE;
        self.flags[page] |= IS_DIRTY;
        self.store_plain(address, 8, entry);
        if self.flags[page] & HOLDS_CODE != 0
            && self.code_lines[page] & lines(address as usize, 8) != 0
        {
            self.drop_code(page);
        }
    }

    /// Whether a page may enter the write TLB; if so it counts as entered.
    pub(crate) fn enters_write_tlb(&mut self, address: u64) -> bool {
        let flags = &mut self.flags[address as usize / PAGE];
        let is_plain = *flags & !(IN_WRITE_TLB | IS_DIRTY) == 0;
        if is_plain {
            *flags |= IN_WRITE_TLB | IS_DIRTY;
        }
        is_plain
    }

    fn set_flag(&mut self, page: usize, flag: u8) -> bool {
        let old = self.flags[page];
        self.flags[page] = (old | flag) & !IN_WRITE_TLB;
        old & IN_WRITE_TLB != 0
    }

    /// A walk reads this page as a table. True if the write TLB's entries have to go.
    pub(crate) fn mark_table(&mut self, address: u64, flag: u8) -> bool {
        let page = address as usize / PAGE;
        let old = self.flags[page];
        if old & flag != 0 {
            return false;
        }
        if old & HOLDS_TABLE == 0 {
            self.tables.push(page as u32);
        }
        self.set_flag(page, flag)
    }

    /// These bytes, all in one page, are decoded now. True if the write TLB's entries have to go.
    pub(crate) fn mark_code(&mut self, address: u64, length: usize) -> bool {
        let at = address as usize;
        self.code_lines[at / PAGE] |= lines(at, length);
        self.set_flag(at / PAGE, HOLDS_CODE)
    }

    /// Nothing is decoded any more.
    pub(crate) fn forget_code(&mut self) {
        for flags in &mut self.flags {
            *flags &= !HOLDS_CODE;
        }
        self.code_lines.fill(0);
    }

    /// No translation is cached any more.
    pub(crate) fn forget_tables(&mut self) {
        for page in self.tables.drain(..) {
            self.flags[page as usize] &= !HOLDS_TABLE;
        }
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.flags.len()
    }

    /// The bytes of page `index`.
    pub fn page(&self, index: usize) -> &[u8] {
        &self.bytes[index * PAGE..][..PAGE]
    }

    /// Whether page `index` may have been written since [`Ram::visit_dirty_pages`] last looked.
    pub(crate) fn is_dirty(&self, index: usize) -> bool {
        self.flags[index] & IS_DIRTY != 0
    }

    /// Calls `f` with the index and the bytes of every page that may have been written since the last
    /// call. All entries of the write TLB have to go afterwards.
    pub(crate) fn visit_dirty_pages(&mut self, mut f: impl FnMut(usize, &[u8])) {
        for (index, flags) in self.flags.iter_mut().enumerate() {
            if *flags & IS_DIRTY != 0 {
                *flags &= !(IS_DIRTY | IN_WRITE_TLB);
                f(index, &self.bytes[index * PAGE..][..PAGE]);
            }
        }
    }

    /// Whether there is something in [`Ram::take_disturbances`].
    #[inline(always)]
    pub(crate) fn is_disturbed(&self) -> bool {
        !self.disturbances.is_empty()
    }

    /// What was disturbed since the last call.
    pub(crate) fn take_disturbances(&mut self) -> Vec<Disturbance> {
        std::mem::take(&mut self.disturbances)
    }

    /// No engine has anything cached of this RAM: flags from another one's time go.
    pub(crate) fn forget_everything(&mut self) {
        for flags in &mut self.flags {
            *flags &= IS_DIRTY;
        }
        self.code_lines.fill(0);
        self.tables.clear();
        self.disturbances.clear();
    }
}

impl GuestRam for Ram {
    fn slice(&self, address: u64, length: u64) -> Result<&[u8], OutsideRam> {
        self.slice(address, length)
            .ok_or(OutsideRam { address, length })
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideRam> {
        let length = data.len() as u64;
        self.write(address, data)
            .ok_or(OutsideRam { address, length })
    }
}
