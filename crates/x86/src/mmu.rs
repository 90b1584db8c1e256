//! Four-level paging (SDM volume 3, chapter 4); [`tlb`] is the cache of its results.
//!
//! Every access behaves as if its tables were freshly walked: pages that a walk read are flagged in
//! RAM, and a store to one drops what it may concern. So the guest never sees the cache, INVLPG has
//! nothing to do, and two hosts may have caches of different sizes.

mod tlb;

use crate::cpu::Registers;
use crate::fault::Fault;
use crate::ram::{Half, Ram, Table};
pub(crate) use tlb::Tlb;
#[cfg(jit)]
pub(crate) use tlb::{Bank, Fetches, SLOTS};

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
