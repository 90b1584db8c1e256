//! The CPU at work: registers at hand, memory through the TLB.

use super::flags::{AC, RF, STATUS, Status};
use super::op::{Op, RIP};
use super::width::Width;
use crate::bus::Bus;
#[cfg(jit)]
use crate::cpu::Cpu;
use crate::cpu::{CS, Registers, SS};
use crate::fault::Fault;
use crate::mmu::{Kind, Mode, Tlb, is_canonical};
use crate::ram::Ram;
use crate::simd::VectorState;
use crate::x87::X87State;
use machine::debugging::Access;

/// An exception was raised: [`Core::raised`] says which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raised;

/// The state while instructions execute.
pub(crate) struct Core<'a> {
    /// General registers, then a zero and the address of the next instruction.
    pub r: [u64; 32],
    pub status: Status,
    /// RFLAGS without the status flags.
    pub flags: u64,
    /// All else; its `gpr`, `rip` and `rflags` are stale meanwhile.
    pub registers: &'a mut Registers,
    /// Taken while a vector or x87 instruction executes.
    pub vector: Option<&'a mut VectorState>,
    pub x87: Option<&'a mut X87State>,
    pub ram: &'a mut Ram,
    pub bus: &'a mut dyn Bus,
    pub tlb: &'a mut Tlb,
    /// CPL is 3.
    pub is_user: bool,
    /// The code is 32-bit: compatibility mode.
    pub is_compatibility: bool,
    /// The TLB's bank of data accesses.
    pub bank: usize,
    /// The count before the current instruction.
    pub now: u64,
    /// String instructions stop before this count.
    pub until: u64,
    /// Instructions of the current block that may still be executed, counted from its start: zero
    /// ends the block after the current one.
    pub limit: usize,
    /// Why [`Raised`] was returned.
    pub raised: Fault,
    /// The fault is #GP for a non-canonical address: #SS where the stack segment was meant.
    pub is_non_canonical: bool,
    /// Interrupts may have become possible.
    pub check_interrupts: bool,
    /// A device was accessed.
    pub touched_device: bool,
    /// The CPU waits for another one, which has to have its turn.
    pub turn_is_over: bool,
    /// The fault cannot be delivered: the CPU shuts down.
    pub has_shut_down: bool,
    /// An event was delivered since this was last cleared.
    pub has_delivered: bool,
}

const CR4_SMAP: u64 = 1 << 21;
/// Long mode is active.
pub(super) const EFER_LMA: u64 = 1 << 10;
/// Long mode is what paging switches on.
pub(super) const EFER_LME: u64 = 1 << 8;

/// In [`Op::segment`]: FS or GS of 32-bit code.
pub(super) const IN_COMPATIBILITY: u8 = 8;
/// What an address of 32-bit code has.
pub(super) const COMPATIBILITY_MASK: u64 = 0xffff_ffff;

impl Core<'_> {
    /// The CPU as it is.
    #[cfg(jit)]
    pub fn cpu(&self) -> Cpu {
        let mut registers = self.registers.clone();
        registers.gpr.copy_from_slice(&self.r[..16]);
        registers.rip = self.rip();
        registers.rflags = self.rflags();
        let vector = self.vector.as_deref().expect("no instruction executes");
        let x87 = self.x87.as_deref().expect("no instruction executes");
        Cpu {
            registers,
            vector: vector.clone(),
            x87: x87.clone(),
        }
    }

    /// Raises an exception.
    #[cold]
    pub fn raise(&mut self, fault: Fault) -> Raised {
        self.raised = fault;
        self.is_non_canonical = false;
        Raised
    }

    /// #GP(0).
    #[cold]
    pub fn general_protection(&mut self) -> Raised {
        self.raise(Fault::GENERAL_PROTECTION)
    }

    /// RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.flags | self.status.to_flags()
    }

    /// Replaces RFLAGS.
    pub fn set_rflags(&mut self, value: u64) {
        let old = self.flags;
        self.status = Status::from_flags(value);
        self.flags = value & !STATUS | 2;
        if (old ^ self.flags) & (AC | RF | super::flags::TF) != 0 {
            self.mode_changed();
        }
        self.check_interrupts = true;
    }

    /// CPL, AC, CR4 or the TLB's generation changed.
    pub fn mode_changed(&mut self) {
        self.bank = self.tlb.bank_of(self.data_mode());
        self.limit = 0;
    }

    /// CPL.
    pub fn privilege(&self) -> u8 {
        // CS.RPL in 64-bit code; SS's DPL is the same.
        (self.registers.segments[CS].selector & 3) as u8
    }

    /// Who data accesses are made by.
    pub fn data_mode(&self) -> Mode {
        if self.is_user {
            Mode::User
        } else if self.registers.cr4 & CR4_SMAP != 0 && self.flags & AC == 0 {
            Mode::Supervisor
        } else {
            Mode::SupervisorReachingUser
        }
    }

    /// Drops all translations.
    pub fn flush_translations(&mut self) {
        self.tlb.flush(self.ram);
        self.mode_changed();
    }

    /// Loads CR3.
    pub fn set_root(&mut self, value: u64) {
        let old = std::mem::replace(&mut self.registers.cr3, value);
        self.tlb.change_root(self.ram, old, value);
        self.limit = 0;
    }

    /// The linear address of the memory operand.
    #[inline(always)]
    pub fn address(&self, op: &Op) -> u64 {
        let mut address = self.offset(op);
        if op.segment > 3 {
            address = self.in_segment(op, address);
        }
        address
    }

    /// The linear address of an offset in FS or GS; 32-bit code wraps around at 4 GiB.
    #[inline(always)]
    pub fn in_segment(&self, op: &Op, offset: u64) -> u64 {
        let base = self.registers.segments[usize::from(op.segment & 7)].base;
        let address = offset.wrapping_add(base);
        if op.segment & IN_COMPATIBILITY != 0 {
            address & COMPATIBILITY_MASK
        } else {
            address
        }
    }

    /// The effective address, without the segment's base.
    #[inline(always)]
    pub fn offset(&self, op: &Op) -> u64 {
        let offset = self.r[usize::from(op.base & 31)]
            .wrapping_add(self.r[usize::from(op.index & 31)] << op.scale)
            .wrapping_add(op.displacement as u64);
        if op.is_address_32 {
            offset & 0xffff_ffff
        } else {
            offset
        }
    }

    /// The instruction pointer: while an instruction executes, that of the next one.
    #[inline(always)]
    pub fn rip(&self) -> u64 {
        self.r[usize::from(RIP)]
    }

    /// Loads.
    #[inline(always)]
    pub fn load<W: Width>(&mut self, address: u64) -> Result<u64, Raised> {
        match self.tlb.read(address, W::SIZE, self.bank) {
            Some(physical) => Ok(self.ram.load(physical, W::SIZE)),
            None => self.load_slowly(address, W::SIZE, self.data_mode()),
        }
    }

    /// Loads what will be stored to: faults as the store would.
    #[inline(always)]
    pub fn load_to_change<W: Width>(&mut self, address: u64) -> Result<u64, Raised> {
        match self.tlb.write(address, W::SIZE, self.bank) {
            Some(physical) => Ok(self.ram.load(physical, W::SIZE)),
            None => {
                self.check_store(address, W::SIZE as u64)?;
                self.load_slowly(address, W::SIZE, self.data_mode())
            }
        }
    }

    /// Stores.
    #[inline(always)]
    pub fn store<W: Width>(&mut self, address: u64, value: u64) -> Result<(), Raised> {
        match self.tlb.write(address, W::SIZE, self.bank) {
            Some(physical) => {
                self.ram.store_plain(physical, W::SIZE, value);
                Ok(())
            }
            None => self.store_slowly(address, W::SIZE, value, self.data_mode()),
        }
    }

    /// The physical address of one byte.
    pub fn translate(&mut self, address: u64, kind: Kind, mode: Mode) -> Result<u64, Raised> {
        if !is_canonical(address) {
            self.raised = Fault::GENERAL_PROTECTION;
            self.is_non_canonical = true;
            return Err(Raised);
        }
        match self
            .tlb
            .translate(self.registers, self.ram, address, kind, mode)
        {
            Ok(physical) => {
                if self.ram.is_disturbed() {
                    self.limit = 0; // an accessed bit can lie in what was decoded
                }
                Ok(physical)
            }
            Err(fault) => Err(self.raise(fault)),
        }
    }

    /// Faults as a store would.
    #[inline(never)]
    pub fn check_store(&mut self, address: u64, size: u64) -> Result<(), Raised> {
        let mode = self.data_mode();
        self.translate(address, Kind::Write, mode)?;
        let last = address.wrapping_add(size - 1);
        if (last ^ address) & !0xfff != 0 {
            // The fault's address is that of the first byte of the second page.
            self.translate(last & !0xfff, Kind::Write, mode)?;
        }
        Ok(())
    }

    /// Loads by a full translation.
    #[inline(never)]
    pub fn load_slowly(&mut self, address: u64, size: usize, mode: Mode) -> Result<u64, Raised> {
        let value = self.load_translated(address, size, mode)?;
        self.accessed(address, size, Access::Read);
        Ok(value)
    }

    /// An instruction accesses memory: if somebody watches that, the machine stops behind it.
    #[inline]
    fn accessed(&mut self, address: u64, size: usize, access: Access) {
        if self.ram.traps.accessed(address, size as u64, access) {
            self.limit = 0;
        }
    }

    /// Loads. Crossing into another page, both are translated first.
    fn load_translated(&mut self, address: u64, size: usize, mode: Mode) -> Result<u64, Raised> {
        let physical = self.translate(address, Kind::Read, mode)?;
        let first = (4096 - (address & 0xfff)).min(size as u64) as usize;
        if first == size {
            return Ok(self.load_physical(physical, size));
        }
        let next = address.wrapping_add(first as u64);
        let second = self.translate(next, Kind::Read, mode)?;
        let mut value = 0;
        for index in 0..size {
            let at = if index < first {
                physical + index as u64
            } else {
                second + (index - first) as u64
            };
            value |= self.load_physical(at, 1) << (8 * index);
        }
        Ok(value)
    }

    /// Loads from RAM or a device, within a page.
    pub fn load_physical(&mut self, physical: u64, size: usize) -> u64 {
        if self.ram.contains(physical, size as u64) {
            self.ram.load(physical, size)
        } else {
            self.touched_device = true;
            self.limit = 0;
            self.bus.read_device(self.ram, physical, size, self.now)
        }
    }

    /// Stores by a full translation, all or nothing.
    #[inline(never)]
    pub fn store_slowly(
        &mut self,
        address: u64,
        size: usize,
        value: u64,
        mode: Mode,
    ) -> Result<(), Raised> {
        self.store_translated(address, size, value, mode)?;
        self.accessed(address, size, Access::Write);
        Ok(())
    }

    fn store_translated(
        &mut self,
        address: u64,
        size: usize,
        value: u64,
        mode: Mode,
    ) -> Result<(), Raised> {
        let physical = self.translate(address, Kind::Write, mode)?;
        let first = (4096 - (address & 0xfff)).min(size as u64) as usize;
        if first == size {
            self.store_physical(physical, size, value);
            return Ok(());
        }
        let next = address.wrapping_add(first as u64);
        let second = self.translate(next, Kind::Write, mode)?;
        for index in 0..size {
            let at = if index < first {
                physical + index as u64
            } else {
                second + (index - first) as u64
            };
            self.store_physical(at, 1, value >> (8 * index) & 0xff);
        }
        Ok(())
    }

    /// Stores to RAM or a device, within a page.
    pub fn store_physical(&mut self, physical: u64, size: usize, value: u64) {
        if self.ram.contains(physical, size as u64) {
            self.ram.store(physical, size, value);
            if self.ram.is_disturbed() {
                self.limit = 0;
            }
        } else {
            self.touched_device = true;
            self.limit = 0;
            let now = self.now;
            self.bus.write_device(self.ram, physical, size, value, now);
        }
    }

    /// Pushes onto the stack of the current privilege.
    #[inline(always)]
    pub fn push<W: Width>(&mut self, value: u64) -> Result<(), Raised> {
        let rsp = self.r[4].wrapping_sub(W::SIZE as u64);
        if self.store::<W>(rsp, value).is_err() {
            if self.is_non_canonical {
                return Err(self.raise(Fault::STACK));
            }
            return Err(Raised);
        }
        self.r[4] = rsp;
        Ok(())
    }

    /// Jumps to an address that must be canonical.
    #[inline(always)]
    pub fn jump(&mut self, target: u64) -> Result<(), Raised> {
        let target = if self.is_compatibility {
            target & COMPATIBILITY_MASK
        } else {
            target
        };
        if !is_canonical(target) {
            return Err(self.general_protection());
        }
        self.r[usize::from(RIP)] = target;
        Ok(())
    }

    /// A load of the CPU's own, from a descriptor table or the TSS: no watchpoint hears of it.
    pub fn load_system(&mut self, address: u64, size: usize) -> Result<u64, Raised> {
        self.load_translated(address, size, Mode::Supervisor)
    }

    /// A store of the CPU's own.
    pub fn store_system(&mut self, address: u64, size: usize, value: u64) -> Result<(), Raised> {
        self.store_translated(address, size, value, Mode::Supervisor)
    }

    /// IA32_EFER.LMA: paging is on. Without it there is flat 32-bit code only, and nothing can be delivered.
    pub fn is_in_long_mode(&self) -> bool {
        self.registers.efer & EFER_LMA != 0
    }

    /// Only CPL 0 may.
    pub fn require_kernel(&mut self) -> Result<(), Raised> {
        if self.privilege() == 0 {
            Ok(())
        } else {
            Err(self.general_protection())
        }
    }

    /// Whether the address is in the stack segment: #SS instead of #GP.
    pub fn is_stack(op: &Op) -> bool {
        usize::from(op.segment) == SS
    }
}
