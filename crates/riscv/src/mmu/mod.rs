//! Address translation (privileged specification, 12.3 to 12.6): Sv39, Sv48 and Sv57.
//!
//! Every access behaves as if freshly walked. What the TLB holds is never visible to the guest:
//! pages that hold page tables are flagged, and a store to one drops what it concerns.

pub mod spaces;
pub mod tlb;
pub mod walk;

use crate::hart::csr::status;
use crate::hart::physical_memory_protection::Access;
use crate::hart::trap::{Cause, Exception};
use crate::hart::{Hart, Privilege};
use crate::interpreter::cache_block;
use crate::isa::Op;
use machine::memory::PAGE_SIZE;

/// The exception of a translation that does not exist.
pub fn page_fault(access: Access, address: u64) -> Exception {
    let cause = match access {
        Access::Fetch => Cause::InstructionPageFault,
        Access::Load => Cause::LoadPageFault,
        Access::Store => Cause::StorePageFault,
    };
    Exception::new(cause, address)
}

/// The exception of a physical access that is not allowed or leads nowhere.
pub fn access_fault(access: Access, address: u64) -> Exception {
    let cause = match access {
        Access::Fetch => Cause::InstructionAccessFault,
        Access::Load => Cause::LoadAccessFault,
        Access::Store => Cause::StoreAccessFault,
    };
    Exception::new(cause, address)
}

impl Hart {
    /// Physical address of the root page table that `satp` names.
    pub fn root_page_table(&self) -> Option<u64> {
        let satp = self.csr.satp;
        spaces::is_paged(satp).then(|| spaces::root_page(satp) * PAGE_SIZE)
    }

    /// What the TLB keys its entries with besides the page: `satp`, the mode, SUM and MXR; and what
    /// compiled code has to know of the mode. To be called after every change of these and of `menvcfg`
    /// and `senvcfg`.
    pub fn update_translation_context(&mut self) {
        self.compiled.may_zero_blocks = cache_block::is_allowed(self, Op::CboZero).into();
        let csr = &self.csr;
        let sum_mxr = (csr.status & (status::SUM | status::MXR)) >> 18;
        let space = |privilege: Privilege| {
            if privilege == Privilege::Machine {
                0
            } else {
                csr.satp
            }
        };
        let data = self.data_privilege();
        self.tlb.set_context(
            (space(self.privilege), self.privilege as u64),
            (space(data), data as u64 | sum_mxr << 2),
        );
    }
}
