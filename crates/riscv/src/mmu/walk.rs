//! The page-table walk (privileged specification, 12.3.2). Where A, or for a store D, is clear it sets
//! them (Svadu, `menvcfg.ADUE`) by a store like any other, or the access faults.

use super::spaces::root_page;
use super::{access_fault, page_fault};
use crate::hart::csr::{MENVCFG_ADUE, envcfg, status};
use crate::hart::physical_memory_protection::Access;
use crate::hart::trap::Exception;
use crate::hart::{Hart, Privilege};
use crate::memory::{
    Memory, PAGE_HOLDS_LEAF_TABLE, PAGE_HOLDS_UPPER_TABLE, PAGE_IS_ROOT, PAGE_SERVES_UPPER_HALF,
};
use machine::memory::PAGE_SIZE;

const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
const USER: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;
/// N and what is reserved: Svnapot is not here. Also PBMT, but for leaves with Svpbmt.
const RESERVED: u64 = 0x3ff << 54;
/// PBMT: the memory type of a page (Svpbmt). All of them are the same here: nothing is cached, and
/// everything is in order.
const MEMORY_TYPE: u64 = 3 << 61;
const PHYSICAL_PAGE: u64 = ((1 << 44) - 1) << 10;

/// A page-table entry that a walk reads.
#[derive(Clone, Copy)]
struct Place {
    /// Its physical address.
    entry: u64,
    level: u32,
    /// Its table is the root.
    is_root: bool,
}

impl Hart {
    /// Translates `address` for an `access` that happens now, in `privilege`: sets A and D, after
    /// which `memory` is disturbed. Marks the page-table pages that it reads.
    pub fn translate(
        &mut self,
        memory: &mut Memory,
        address: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<u64, Exception> {
        let updates = self.csr.menvcfg & MENVCFG_ADUE != 0;
        self.walk(memory, address, access, privilege, updates)
    }

    /// Likewise for an access that may not happen: `None` if it faults or would set A or D.
    pub fn translate_unchanged(
        &mut self,
        memory: &mut Memory,
        address: u64,
        access: Access,
        privilege: Privilege,
    ) -> Option<u64> {
        self.walk(memory, address, access, privilege, false).ok()
    }

    fn walk(
        &mut self,
        memory: &mut Memory,
        address: u64,
        access: Access,
        privilege: Privilege,
        updates: bool,
    ) -> Result<u64, Exception> {
        let levels = match self.csr.satp >> 60 {
            _ if privilege == Privilege::Machine => return Ok(address),
            8 => 3,
            9 => 4,
            10 => 5,
            _ => return Ok(address),
        };
        let virtual_bits = 12 + 9 * levels;
        let sign = 64 - virtual_bits;
        if (address << sign) as i64 >> sign != address as i64 {
            return Err(page_fault(access, address));
        }
        let satp = self.csr.satp;
        if !self.tlb.knows_root(satp) {
            self.look_at_root(memory);
        }
        let mut table = root_page(satp) * PAGE_SIZE;
        for level in (0..levels).rev() {
            let index = address >> (12 + 9 * level) & 511;
            let place = Place {
                entry: table + index * 8,
                level,
                is_root: level == levels - 1,
            };
            let entry = self.read_entry(memory, place, access, address)?;
            let is_leaf = entry & (READ | EXECUTE) != 0;
            let reserved = RESERVED & !self.memory_type(entry, is_leaf);
            if entry & VALID == 0 || entry & (READ | WRITE) == WRITE || entry & reserved != 0 {
                return Err(page_fault(access, address));
            }
            if !is_leaf {
                if entry & (DIRTY | ACCESSED | USER) != 0 {
                    return Err(page_fault(access, address)); // reserved in non-leaf entries
                }
                table = (entry & PHYSICAL_PAGE) << 2;
                continue;
            }
            if !self.leaf_allows(entry, access, privilege) {
                return Err(page_fault(access, address));
            }
            let is_lower_half = address >> 63 == 0;
            if is_lower_half && entry & USER == 0 && self.tlb.shares_upper_half(satp) {
                self.tlb.stop_sharing(satp);
                self.update_translation_context();
            }
            let within = (1u64 << (12 + 9 * level)) - 1;
            let base = (entry & PHYSICAL_PAGE) << 2;
            if base & within != 0 {
                return Err(page_fault(access, address)); // misaligned superpage
            }
            let marks = match access {
                Access::Store => ACCESSED | DIRTY,
                _ => ACCESSED,
            };
            if entry & marks != marks {
                if !updates {
                    return Err(page_fault(access, address));
                }
                self.update_entry(memory, place.entry, entry | marks)
                    .map_err(|()| access_fault(access, address))?;
            }
            return Ok(base | address & within);
        }
        Err(page_fault(access, address))
    }

    fn read_entry(
        &mut self,
        memory: &mut Memory,
        place: Place,
        access: Access,
        address: u64,
    ) -> Result<u64, Exception> {
        let entry = place.entry;
        if !self
            .pmp
            .allows(entry, 8, Access::Load, Privilege::Supervisor)
        {
            return Err(access_fault(access, address));
        }
        let offset = memory
            .offset(entry, 8)
            .map_err(|_| access_fault(access, address))?;
        let mut flags = if place.level == 0 {
            PAGE_HOLDS_LEAF_TABLE
        } else {
            PAGE_HOLDS_UPPER_TABLE
        };
        let is_upper_half = address >> 63 != 0;
        if is_upper_half && !(place.is_root && memory.has_flags(offset, PAGE_IS_ROOT)) {
            flags |= PAGE_SERVES_UPPER_HALF;
        }
        self.flag_table(memory, offset, flags);
        Ok(memory.load_u64(offset))
    }

    /// Sets A and D: a store to the page of a page table, whose flags the walk has set before.
    fn update_entry(&mut self, memory: &mut Memory, at: u64, value: u64) -> Result<(), ()> {
        let may_store = self.pmp.allows(at, 8, Access::Store, Privilege::Supervisor);
        let offset = memory.offset(at, 8).map_err(|_| ())?;
        if !may_store {
            return Err(());
        }
        memory.store(offset, 8, value);
        Ok(())
    }

    fn flag_table(&mut self, memory: &mut Memory, offset: usize, flags: u8) {
        if !memory.has_flags(offset, flags) && memory.flag_table(offset, flags) {
            self.tlb.drop_stores_to(offset & !(PAGE_SIZE as usize - 1));
        }
    }

    /// Lets the TLB know which address spaces have the upper half of this one's root page table, and
    /// sees to it that who changes it is noticed. A root that the hart may not read in one piece has
    /// none.
    #[cold]
    fn look_at_root(&mut self, memory: &mut Memory) {
        let satp = self.csr.satp;
        let root = root_page(satp) * PAGE_SIZE;
        let may_read = self.pmp.is_uniform(root)
            && self
                .pmp
                .allows(root, 8, Access::Load, Privilege::Supervisor);
        match memory.offset(root, PAGE_SIZE) {
            Ok(offset) if may_read => {
                self.flag_table(memory, offset, PAGE_HOLDS_UPPER_TABLE | PAGE_IS_ROOT);
                let (_, upper_half) = memory
                    .page(offset / PAGE_SIZE as usize)
                    .split_at(PAGE_SIZE as usize / 2);
                self.tlb.add_root(satp, Some(upper_half));
            }
            _ => self.tlb.add_root(satp, None),
        }
        self.update_translation_context();
    }

    /// The bits of an entry that hold a memory type: none if it may have none (`menvcfg.PBMTE`), or has
    /// the reserved one.
    fn memory_type(&self, entry: u64, is_leaf: bool) -> u64 {
        let has_types = self.csr.menvcfg & envcfg::PBMTE != 0 && is_leaf;
        if has_types && entry & MEMORY_TYPE != MEMORY_TYPE {
            MEMORY_TYPE
        } else {
            0
        }
    }

    fn leaf_allows(&self, entry: u64, access: Access, privilege: Privilege) -> bool {
        let user_page = entry & USER != 0;
        let mode_allows = match privilege {
            Privilege::User => user_page,
            _ if !user_page => true,
            _ => access != Access::Fetch && self.csr.status & status::SUM != 0,
        };
        let readable = if self.csr.status & status::MXR != 0 {
            READ | EXECUTE
        } else {
            READ
        };
        let bits_allow = match access {
            Access::Fetch => entry & EXECUTE != 0,
            Access::Load => entry & readable != 0,
            Access::Store => entry & WRITE != 0,
        };
        mode_allows && bits_allow
    }
}
