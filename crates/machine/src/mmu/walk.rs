//! The page-table walk (privileged specification, 12.3.2), with Svade: an access to a page whose A
//! bit (or, for a store, D bit) is clear faults, so the walk never writes.

use super::{access_fault, page_fault};
use crate::hart::csr::status;
use crate::hart::physical_memory_protection::Access;
use crate::hart::trap::Exception;
use crate::hart::{Hart, Privilege};
use crate::memory::{Memory, PAGE_HOLDS_LEAF_TABLE, PAGE_HOLDS_UPPER_TABLE};

const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
const USER: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;
/// N, PBMT and what is reserved: none of their extensions is here.
const RESERVED: u64 = 0x3ff << 54;
const PHYSICAL_PAGE: u64 = ((1 << 44) - 1) << 10;

impl Hart {
    /// Translates `address` for `access` in `privilege`. Marks the page-table pages that it reads.
    pub fn translate(
        &mut self,
        memory: &mut Memory,
        address: u64,
        access: Access,
        privilege: Privilege,
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
        let mut table = (self.csr.satp & ((1 << 44) - 1)) << 12;
        for level in (0..levels).rev() {
            let index = address >> (12 + 9 * level) & 511;
            let entry = self.read_entry(memory, table + index * 8, level, access, address)?;
            if entry & VALID == 0 || entry & (READ | WRITE) == WRITE || entry & RESERVED != 0 {
                return Err(page_fault(access, address));
            }
            if entry & (READ | EXECUTE) == 0 {
                if entry & (DIRTY | ACCESSED | USER) != 0 {
                    return Err(page_fault(access, address)); // reserved in non-leaf entries
                }
                table = (entry & PHYSICAL_PAGE) << 2;
                continue;
            }
            if !self.leaf_allows(entry, access, privilege) {
                return Err(page_fault(access, address));
            }
            let within = (1u64 << (12 + 9 * level)) - 1;
            let base = (entry & PHYSICAL_PAGE) << 2;
            if base & within != 0 {
                return Err(page_fault(access, address)); // misaligned superpage
            }
            return Ok(base | address & within);
        }
        Err(page_fault(access, address))
    }

    fn read_entry(
        &mut self,
        memory: &mut Memory,
        entry: u64,
        level: u32,
        access: Access,
        address: u64,
    ) -> Result<u64, Exception> {
        if !self
            .pmp
            .allows(entry, 8, Access::Load, Privilege::Supervisor)
        {
            return Err(access_fault(access, address));
        }
        let offset = memory
            .offset(entry, 8)
            .map_err(|_| access_fault(access, address))?;
        let flag = if level == 0 {
            PAGE_HOLDS_LEAF_TABLE
        } else {
            PAGE_HOLDS_UPPER_TABLE
        };
        if memory.set_flag(offset, flag) {
            self.tlb.drop_stores_to(offset & !0xfff);
        }
        Ok(memory.load_u64(offset))
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
            Access::Store => entry & WRITE != 0 && entry & DIRTY != 0,
        };
        mode_allows && bits_allow && entry & ACCESSED != 0
    }
}
