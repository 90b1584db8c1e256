//! RAM: from physical address 0 to the hole below 4 GiB and on behind it, with what is known of the page
//! tables in it.
//!
//! As the host holds it, RAM that goes on behind the hole has the hole, too. Nothing is ever there, so it costs
//! no more than addresses; and a physical address is an offset everywhere, in compiled code as well.
//!
//! What every machine's RAM knows of its pages (decoded code, who waits for a write) is
//! [`machine::memory`]'s. Here is what a store to a page table entails.

mod tables;

use machine::debugging::Traps;
#[cfg(jit)]
use machine::memory::journal::Journal;
use machine::memory::{
    Capture, Consumer, Extent, GuestRam, OutsideRam, PAGE_HOLDS_CODE, PageBatch, Ram as MachineRam,
    Region,
};
use machine::snapshot::{SnapshotError, replace_pages};
pub(crate) use tables::SPACES;
use tables::{Released, TableOwners};

/// Bytes of a page.
pub const PAGE_SIZE: u64 = machine::memory::PAGE_SIZE;
const PAGE: usize = PAGE_SIZE as usize;

/// A walk has read the page as a table of 4 KiB leaves in the upper half of the addresses.
const HOLDS_KERNEL_LEAVES: u8 = 2;
/// A walk has read the page as a table above these.
const HOLDS_KERNEL_TABLE: u8 = 4;
/// A walk has read the page as a table of 4 KiB leaves in the lower half.
const HOLDS_PROCESS_LEAVES: u8 = 16;
/// A walk has read the page as a table above these.
const HOLDS_PROCESS_TABLE: u8 = 32;
/// CR3 names the page, or named it, and walks began there.
const IS_ROOT: u8 = 128;
const OF_KERNEL: u8 = HOLDS_KERNEL_LEAVES | HOLDS_KERNEL_TABLE;
const OF_PROCESSES: u8 = HOLDS_PROCESS_LEAVES | HOLDS_PROCESS_TABLE;
const HOLDS_TABLE: u8 = OF_KERNEL | OF_PROCESSES | IS_ROOT;
const _: () = assert!(HOLDS_TABLE & !machine::memory::ARCHITECTURE_FLAGS == 0);

/// What a walk reads a page as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Of the highest level.
    Root,
    /// Of a level between, for addresses of this half.
    Middle(Half),
    /// Of 4 KiB leaves.
    Leaves(Half),
}

impl Table {
    fn flag(self) -> u8 {
        match self {
            Table::Root => IS_ROOT,
            Table::Middle(Half::Lower) => HOLDS_PROCESS_TABLE,
            Table::Middle(Half::Upper) => HOLDS_KERNEL_TABLE,
            Table::Leaves(Half::Lower) => HOLDS_PROCESS_LEAVES,
            Table::Leaves(Half::Upper) => HOLDS_KERNEL_LEAVES,
        }
    }
}

/// A half of the linear addresses. Kernels have the upper one, which is the same in all address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Lower,
    Upper,
}

impl Half {
    /// That of an address.
    #[inline(always)]
    pub(crate) fn of(address: u64) -> Half {
        if address >> 63 == 0 {
            Half::Lower
        } else {
            Half::Upper
        }
    }
}

/// After so many stores to tables all translations are dropped: a page may have been freed, and what
/// the guest keeps there now should become quick.
const TABLE_STORES_BEFORE_FLUSH: u32 = 1 << 16;

/// A store that the interpreter has to know of before the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// Decoded bytes of this page (its number) were written.
    Code(u32),
    /// A present leaf changed.
    Leaf(Leaf),
    /// Any translation of the lower half of the address space that runs may have changed.
    LowerTranslations,
    /// Any translation may have changed.
    Translations,
}

/// A present leaf before it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// It can only concern linear pages whose low nine bits are this.
    pub index: usize,
    /// Instructions may have been fetched through it, at addresses of these halves.
    pub lower_code: bool,
    pub upper_code: bool,
    /// It may concern linear pages of the upper half.
    pub is_kernel: bool,
}

/// Bytes of the half of a root table.
const HALF_ROOT: usize = PAGE / 2;
const NO_EXECUTE: u64 = 1 << 63;

/// The first address below 4 GiB that is not RAM, however much of it there is.
pub const HOLE_BASE: u64 = 0xc000_0000;
/// The address behind the hole, where RAM goes on.
pub const HOLE_END: u64 = 1 << 32;

/// Guest physical RAM.
pub struct Ram {
    ram: MachineRam,
    /// What stores of the CPU changed in page tables.
    disturbances: Vec<Disturbance>,
    /// The pages flagged as roots and as tables for the lower half.
    lower_tables: TableOwners,
    /// The pages flagged as tables for the upper half.
    upper_tables: Vec<u32>,
    table_stores: u32,
    /// What happens now will be undone.
    is_on_trial: bool,
    /// Where somebody wants to look.
    pub(crate) traps: Traps,
}

/// What a trial changed.
#[cfg(jit)]
#[derive(Default)]
pub(crate) struct Trial {
    pub journal: Box<Journal>,
    disturbances: usize,
    table_stores: u32,
}

/// What may not be true any more when the entry at an offset of a page with these flags changes, which was
/// `old`.
fn changed(offset: usize, old: u64, flags: u8) -> Disturbance {
    let is_upper_root = flags & IS_ROOT != 0 && offset >= HALF_ROOT;
    if flags & HOLDS_KERNEL_TABLE != 0 || is_upper_root {
        return Disturbance::Translations;
    }
    if flags & (HOLDS_PROCESS_TABLE | IS_ROOT) != 0 {
        if flags & HOLDS_KERNEL_LEAVES != 0 {
            return Disturbance::Translations;
        }
        return Disturbance::LowerTranslations;
    }
    let may_hold_code = old & NO_EXECUTE == 0;
    Disturbance::Leaf(Leaf {
        index: offset / 8,
        lower_code: may_hold_code && flags & HOLDS_PROCESS_LEAVES != 0,
        upper_code: may_hold_code && flags & HOLDS_KERNEL_LEAVES != 0,
        is_kernel: flags & HOLDS_KERNEL_LEAVES != 0,
    })
}

/// RAM of so many bytes as the host holds it.
pub(crate) fn region(bytes: u64) -> Region {
    let length = host_bytes(bytes);
    Region { base: 0, length }
}

/// The guest physical addresses of so many bytes of RAM, without the hole.
pub(crate) fn guest_regions(bytes: u64) -> Vec<Region> {
    let below = Region {
        base: 0,
        length: bytes.min(HOLE_BASE),
    };
    let behind = Region {
        base: HOLE_END,
        length: bytes - below.length,
    };
    [below, behind]
        .into_iter()
        .filter(|region| region.length > 0)
        .collect()
}

/// Bytes of the host's address space for RAM of so many bytes.
pub fn host_bytes(bytes: u64) -> u64 {
    if bytes > HOLE_BASE {
        bytes + (HOLE_END - HOLE_BASE)
    } else {
        bytes
    }
}

/// Whether an access that begins or ends in the hole does so.
#[inline]
fn touches_hole(address: u64, length: u64) -> bool {
    address < HOLE_END && address.saturating_add(length) > HOLE_BASE && length > 0
}

/// A page is no table of the lower half any more.
fn release(ram: &mut MachineRam, released: Released) {
    let flags = match released.is_root {
        true => OF_PROCESSES,
        false => OF_PROCESSES | IS_ROOT,
    };
    ram.clear_flags(released.page as usize * PAGE, flags);
}

impl Ram {
    /// RAM of `size` bytes, whole pages, all zero.
    pub fn new(size: u64) -> Ram {
        Ram::of(MachineRam::new(&[region(size)]))
    }

    /// Fills RAM with zeros, as at a reset. Whatever is cached of it has to go.
    pub(crate) fn clear(&mut self) {
        self.ram.clear();
        self.disturbances.clear();
        self.lower_tables = TableOwners::new(self.ram.pages());
        self.upper_tables.clear();
        self.table_stores = 0;
    }

    /// RAM of which nothing is known yet.
    pub(crate) fn of(ram: MachineRam) -> Ram {
        Ram {
            lower_tables: TableOwners::new(ram.pages()),
            ram,
            disturbances: Vec::new(),
            upper_tables: Vec::new(),
            table_stores: 0,
            is_on_trial: false,
            traps: Traps::default(),
        }
    }

    /// Calls `f` with each page that was written since the last call for a debugger's checkpoint. All entries of the
    /// write TLB have to go afterwards.
    pub(crate) fn visit_written(&mut self, f: impl FnMut(usize, &[u8])) {
        self.ram.visit_written(Consumer::Checkpoint, f);
    }

    /// The end of RAM below the hole.
    pub fn low_end(&self) -> u64 {
        self.ram.size().min(HOLE_BASE)
    }

    /// The end of RAM behind the hole, if there is some.
    pub fn high_end(&self) -> Option<u64> {
        let end = self.ram.size();
        (end > HOLE_END).then_some(end)
    }

    /// What every machine's RAM has.
    pub(crate) fn inner(&self) -> &MachineRam {
        &self.ram
    }

    /// Whether `length` bytes from `address` on are all RAM.
    #[inline]
    pub fn contains(&self, address: u64, length: u64) -> bool {
        self.ram.offset(address, length).is_ok() && !touches_hole(address, length)
    }

    /// Where RAM is in the host's memory, for translations that compiled code uses.
    pub(crate) fn host_base(&mut self) -> u64 {
        self.ram.host_address() as u64
    }

    /// Borrows bytes; `None` unless all are RAM.
    pub fn slice(&self, address: u64, length: u64) -> Option<&[u8]> {
        GuestRam::slice(self, address, length).ok()
    }

    /// Writes bytes from outside the CPU (DMA, loaders), with all that a store entails; `None` unless
    /// all are RAM.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Option<()> {
        GuestRam::write(self, address, data).ok()
    }

    /// Loads `size` bytes (1, 2, 4 or 8) that [`Ram::contains`] holds.
    #[inline(always)]
    pub(crate) fn load(&self, address: u64, size: usize) -> u64 {
        let at = address as usize;
        match size {
            1 => u64::from(self.ram.load_u8(at)),
            2 => u64::from(self.ram.load_u16(at)),
            4 => u64::from(self.ram.load_u32(at)),
            _ => self.ram.load_u64(at),
        }
    }

    /// Stores to a page that the write TLB knows: nothing has to be told to anyone.
    #[inline(always)]
    pub(crate) fn store_plain(&mut self, address: u64, size: usize, value: u64) {
        let at = address as usize;
        match size {
            1 => self.ram.store_u8(at, value as u8),
            2 => self.ram.store_u16(at, value as u16),
            4 => self.ram.store_u32(at, value as u32),
            _ => self.ram.store_u64(at, value),
        }
    }

    /// Borrows bytes of a page that the write TLB knows, for bulk stores.
    pub(crate) fn plain_bytes(&mut self, address: u64, length: usize) -> &mut [u8] {
        self.ram.plain_bytes(address as usize, length)
    }

    /// Copies between pages, forwards like a string instruction, when the ranges do not overlap
    /// within a page; the target is known to the write TLB.
    pub(crate) fn copy_plain(&mut self, from: u64, to: u64, length: usize) {
        self.ram.copy_to_plain(from as usize, to as usize, length);
    }

    /// A store to any page, of bytes that do not cross into the next.
    pub(crate) fn store(&mut self, address: u64, size: usize, value: u64) {
        let at = address as usize;
        let flags = self.ram.flags(at);
        if flags & HOLDS_TABLE != 0 {
            self.store_to_table(at, size, value, flags);
        } else {
            self.ram.store(at, size, value);
        }
    }

    fn store_to_table(&mut self, at: usize, size: usize, value: u64, flags: u8) {
        let first = at & !7;
        let last = (at + size - 1) & !7;
        let old = [self.ram.load_u64(first), self.ram.load_u64(last)];
        self.ram.store(at, size, value);
        let page = (at / PAGE) as u32;
        // What the page is to spaces that do not run concerns nobody before they do.
        let concerns_who_runs = flags & OF_KERNEL != 0 || self.lower_tables.is_owned(page);
        for (entry, old) in [first, last].into_iter().zip(old) {
            // What was not present was never cached.
            if old & 1 != 0 && self.ram.load_u64(entry) != old {
                if concerns_who_runs {
                    self.disturbances.push(changed(entry % PAGE, old, flags));
                }
                self.spoil_others(page);
            }
        }
        self.table_stores += 1;
        if self.table_stores >= TABLE_STORES_BEFORE_FLUSH {
            self.table_stores = 0;
            self.disturbances.push(Disturbance::Translations);
        }
    }

    /// An entry of this table has changed: what other spaces than the one that runs have found by it is forgotten.
    fn spoil_others(&mut self, page: u32) {
        if self.is_on_trial {
            return;
        }
        for space in self.lower_tables.others(page) {
            let ram = &mut self.ram;
            let release = |released| release(ram, released);
            self.lower_tables.spoil(space, release);
        }
    }

    /// The walker sets accessed and dirty bits: no translation changes by that.
    pub(crate) fn set_entry_bits(&mut self, address: u64, bits: u64) {
        let entry = self.load(address, 8) | bits;
        self.ram.store(address as usize, 8, entry);
    }

    /// Whether a page may enter the write TLB; if so it counts as entered.
    pub(crate) fn enters_write_tlb(&mut self, address: u64) -> bool {
        let at = address as usize;
        let is_plain = self.ram.is_plain(at);
        if is_plain {
            self.ram.enters_write_tlb(at);
        }
        is_plain
    }

    /// A walk reads this page as a table. True if the write TLB's entries for it have to go.
    pub(crate) fn mark_table(&mut self, address: u64, table: Table) -> bool {
        if self.is_on_trial {
            return false; // nothing is remembered of the walk
        }
        let (at, flag) = (address as usize, table.flag());
        let page = (at / PAGE) as u32;
        let is_kernel = flag & OF_KERNEL != 0;
        let is_listed = is_kernel || self.lower_tables.is_owned(page);
        if is_listed && self.ram.has_flags(at, flag) {
            return false;
        }
        match table {
            Table::Root => self.lower_tables.add_root(page),
            _ if !is_kernel => self.lower_tables.add(page),
            _ if self.ram.flags(at) & OF_KERNEL == 0 => self.upper_tables.push(page),
            _ => {}
        }
        self.ram.set_flags(at, flag)
    }

    /// Whether two roots translate the upper half by the same entries.
    pub(crate) fn have_same_upper_half(&self, root: u64, other: u64) -> bool {
        let upper = |root: u64| self.slice(root + HALF_ROOT as u64, HALF_ROOT as u64);
        let (one, other) = (upper(root), upper(other));
        one.is_some() && one == other
    }

    /// These bytes, all in one page, are decoded now. True if the write TLB's entries have to go.
    pub(crate) fn mark_code(&mut self, address: u64, length: usize) -> bool {
        self.ram.mark_code(address as usize, length)
    }

    /// Nothing is decoded any more.
    pub(crate) fn forget_code(&mut self) {
        self.ram.forget_code();
    }

    /// No translation is cached any more.
    pub(crate) fn forget_tables(&mut self) {
        if self.is_on_trial {
            return;
        }
        for space in 0..SPACES {
            self.forget_space(space);
        }
        for page in self.upper_tables.drain(..) {
            self.ram.clear_flags(page as usize * PAGE, OF_KERNEL);
        }
    }

    /// No translation of the lower half of the space that runs is cached any more.
    pub(crate) fn forget_lower_tables(&mut self) {
        if self.is_on_trial {
            return;
        }
        let ram = &mut self.ram;
        self.lower_tables
            .forget_running(|released| release(ram, released));
    }

    /// No translation of the lower half of a space is cached any more.
    pub(crate) fn forget_space(&mut self, space: usize) {
        let ram = &mut self.ram;
        self.lower_tables
            .forget(space, |released| release(ram, released));
    }

    /// Whether another space may run by [`Ram::enter_space`]: all stores to tables were acted on, and walks
    /// are remembered.
    pub(crate) fn lets_spaces_change(&self) -> bool {
        !self.is_disturbed() && !self.is_on_trial
    }

    /// The space that runs.
    pub(crate) fn running_space(&self) -> usize {
        self.lower_tables.running()
    }

    /// Another space runs. True if all is still as its walks have found it.
    pub(crate) fn enter_space(&mut self, space: usize) -> bool {
        assert!(self.lets_spaces_change(), "what changed is acted on before");
        self.lower_tables.enter(space)
    }

    /// A digest of RAM. All entries of the write TLB have to go afterwards.
    pub(crate) fn digest(&mut self) -> u128 {
        self.ram.digest()
    }

    /// The consumer knows what all pages are now. No store may go by the write TLB's old entries afterwards.
    pub(crate) fn begin_epoch(&mut self, consumer: Consumer) {
        self.ram.begin_epoch(consumer);
    }

    /// Another machine's pages take the place of these, of which nothing is cached.
    pub(crate) fn replace_pages(&mut self, pages: &[PageBatch]) -> Result<(), SnapshotError> {
        replace_pages(&mut self.ram, pages)
    }

    /// Begins a snapshot of this moment. All entries of the write TLB have to go afterwards.
    pub(crate) fn begin_capture(&mut self, extent: Extent) {
        self.ram.begin_capture(extent);
    }

    /// The snapshot that is under way.
    pub(crate) fn capture(&mut self) -> Option<Capture<'_>> {
        self.ram.capture()
    }

    /// Whether there is something in [`Ram::take_disturbances`].
    #[inline(always)]
    pub(crate) fn is_disturbed(&self) -> bool {
        !self.disturbances.is_empty() || self.ram.has_flagged_writes()
    }

    /// What was disturbed since the last call.
    pub(crate) fn take_disturbances(&mut self) -> Vec<Disturbance> {
        let mut disturbances = std::mem::take(&mut self.disturbances);
        for write in self.ram.take_flagged_writes() {
            if write.flags & PAGE_HOLDS_CODE != 0 {
                disturbances.push(Disturbance::Code((write.page_offset / PAGE) as u32));
            }
            if write.flags & HOLDS_TABLE != 0 {
                disturbances.push(Disturbance::Translations);
            }
        }
        disturbances
    }

    /// From here on everything is remembered: see [`MachineRam::begin_trial`]. What is known of tables does
    /// not change: whoever is on trial remembers no walk.
    #[cfg(jit)]
    pub(crate) fn begin_trial(&mut self, trial: &mut Trial) {
        trial.disturbances = self.disturbances.len();
        trial.table_stores = self.table_stores;
        self.is_on_trial = true;
        self.ram.begin_trial(std::mem::take(&mut trial.journal));
    }

    /// Double-words written in the trial.
    #[cfg(jit)]
    pub(crate) fn words_written(&self) -> usize {
        self.ram.words_written()
    }

    /// Ends the trial: all is as it was at its begin.
    #[cfg(jit)]
    pub(crate) fn undo_trial(&mut self, trial: &mut Trial) {
        trial.journal = self.ram.undo_trial();
        self.disturbances.truncate(trial.disturbances);
        self.table_stores = trial.table_stores;
        self.is_on_trial = false;
    }

    /// No engine has anything cached of this RAM: flags from another one's time go.
    pub(crate) fn forget_everything(&mut self) {
        self.forget_code();
        self.forget_tables();
        self.lower_tables.enter(0); // as a new TLB begins
        self.take_disturbances();
    }
}

impl GuestRam for Ram {
    fn slice(&self, address: u64, length: u64) -> Result<&[u8], OutsideRam> {
        if touches_hole(address, length) {
            return Err(OutsideRam { address, length });
        }
        self.ram.slice(address, length)
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideRam> {
        let length = data.len() as u64;
        if touches_hole(address, length) {
            return Err(OutsideRam { address, length });
        }
        self.ram.write(address, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_in_the_hole_and_ram_goes_on_behind_it() {
        let mut ram = Ram::new(HOLE_BASE + 0x3000);
        assert_eq!(
            (ram.low_end(), ram.high_end()),
            (HOLE_BASE, Some(HOLE_END + 0x3000))
        );
        for (address, length, is_ram) in [
            (HOLE_BASE - 8, 8, true),
            (HOLE_BASE - 8, 9, false),
            (HOLE_BASE, 1, false),
            (HOLE_END - 1, 1, false),
            (HOLE_END - 1, 2, false),
            (HOLE_BASE - 8, 0x4000_0010, false),
            (HOLE_END, 0x3000, true),
            (HOLE_END, 0x3001, false),
        ] {
            assert_eq!(
                ram.contains(address, length),
                is_ram,
                "{address:#x}, {length}"
            );
            assert_eq!(ram.slice(address, length).is_some(), is_ram);
        }
        assert!(ram.write(HOLE_BASE, &[1]).is_none());
        assert!(ram.write(HOLE_END, &[1]).is_some());
        assert_eq!(Ram::new(1 << 20).high_end(), None);
    }
}
