//! What an instruction reaches besides its hart: memory, devices, time.

use crate::board::bus::Bus;
use crate::board::clint;
use crate::hart::csr::CsrContext;
use crate::hart::interrupt::Lines;
use crate::hart::physical_memory_protection::Access;
use crate::hart::trap::{Cause, Exception};
use crate::hart::{Hart, Privilege};
use crate::isa::Extensions;
use crate::isa::cache_block::BLOCK_BYTES;
use crate::memory::Memory;
use crate::mmu::access_fault;
use devices::DeviceContext;
use machine::clock::Clock;
use machine::debugging::Access as Watched;
use machine::input::InstructionCount;
use machine::memory::PAGE_SIZE;
use machine::output::Outputs;

/// A hart and all that it works on, for the length of a slice.
pub struct Environment<'a> {
    /// The hart that runs.
    pub hart: &'a mut Hart,
    /// Guest RAM.
    pub memory: &'a mut Memory,
    /// Everything else on the board.
    pub bus: &'a mut Bus,
    /// What leaves the machine.
    pub outputs: &'a mut Outputs,
    /// Guest time.
    pub clock: &'a Clock,
    /// Instruction count of the first instruction of the block that runs.
    pub count: InstructionCount,
    /// Unix time at power-on, in nanoseconds.
    pub unix_base_ns: u64,
    /// What the hart has beyond RV64GC.
    pub extensions: Extensions,
    /// `mip`; holds until a timer, a device or a CSR write changes it, each of which asks for
    /// attention.
    pub interrupts_pending: u64,
    /// Something happened that has to be looked at before the next instruction: a device was
    /// touched, code or translations were disturbed, an interrupt may have to be taken.
    pub attention: bool,
    /// The hart waits for another one, which should have its turn now.
    pub turn_is_over: bool,
}

impl Environment<'_> {
    /// Another hart should have its turn.
    pub fn end_turn(&mut self) {
        self.turn_is_over = true;
        self.attention = true;
    }

    /// The interrupt lines that enter the hart.
    pub fn lines(&self) -> Lines {
        let hart = self.hart.id as usize;
        Lines {
            software: self.bus.software_interrupt(hart),
            machine_external: self.bus.machine_external_interrupt(hart),
            supervisor_external: self.bus.supervisor_external_interrupt(hart),
            machine_timer_compare: self.bus.machine_timer_compare(hart),
        }
    }

    /// What CSR instruction number `index` of the block sees.
    pub fn csr_context(&self, index: usize) -> CsrContext {
        let count = self.count + index as u64;
        CsrContext {
            count,
            time_ticks: clint::ticks(self.clock.time_ns(count)),
            interrupts_pending: self.interrupts_pending,
            extensions: self.extensions,
        }
    }

    /// Takes an exception of the instruction at `hart.pc`.
    pub fn take_exception(&mut self, exception: Exception) {
        self.hart.take_exception(exception);
        self.hart.update_translation_context();
    }

    fn data_address(&mut self, address: u64, access: Access) -> Result<u64, Exception> {
        let privilege = self.hart.data_privilege();
        let physical = self.hart.translate(self.memory, address, access, privilege);
        self.attention |= self.memory.is_disturbed(); // A or D was set, even if it faults later
        physical
    }

    fn check_protection(
        &self,
        physical: u64,
        size: usize,
        access: Access,
        address: u64,
    ) -> Result<(), Exception> {
        let privilege = match access {
            Access::Fetch => self.hart.privilege,
            _ => self.hart.data_privilege(),
        };
        if self
            .hart
            .pmp
            .allows(physical, size as u64, access, privilege)
        {
            Ok(())
        } else {
            Err(access_fault(access, address))
        }
    }

    /// Whether a translation to the page of `physical` may be remembered: all of it is RAM and one
    /// answer of the PMP holds for all of it.
    fn may_cache(&self, physical: u64) -> bool {
        self.hart.pmp.is_uniform(physical & !(PAGE_SIZE - 1))
    }

    /// An access was made: whoever watches the bytes hears of it.
    fn tell(&mut self, address: u64, size: usize, access: Watched) {
        self.attention |= self.memory.traps.accessed(address, size as u64, access);
    }

    /// Likewise for loads and stores: nobody watches what is in the page.
    fn may_cache_data(&self, address: u64, physical: u64) -> bool {
        self.may_cache(physical) && !self.memory.traps.watches_page(address)
    }

    /// A load that the TLB did not answer: of `size` bytes, by instruction number `index`.
    #[cold]
    #[inline(never)]
    pub fn load_slow(&mut self, address: u64, size: usize, index: usize) -> Result<u64, Exception> {
        let value = self.load_untold(address, size, index)?;
        self.tell(address, size, Watched::Read);
        Ok(value)
    }

    fn load_untold(&mut self, address: u64, size: usize, index: usize) -> Result<u64, Exception> {
        if address % PAGE_SIZE + size as u64 > PAGE_SIZE {
            return self.load_across_pages(address, size);
        }
        let physical = self.data_address(address, Access::Load)?;
        self.check_protection(physical, size, Access::Load, address)?;
        if let Ok(offset) = self.memory.offset(physical, size as u64) {
            if self.may_cache_data(address, physical) {
                self.hart
                    .tlb
                    .insert_load(address, offset & !(PAGE_SIZE as usize - 1));
            }
            return Ok(match size {
                1 => self.memory.load_u8(offset).into(),
                2 => self.memory.load_u16(offset).into(),
                4 => self.memory.load_u32(offset).into(),
                _ => self.memory.load_u64(offset),
            });
        }
        if !physical.is_multiple_of(size as u64) {
            return Err(Exception::new(Cause::LoadMisaligned, address)); // no device takes it
        }
        self.attention = true;
        let mut context = DeviceContext {
            memory: &mut **self.memory,
            outputs: self.outputs,
            time_ns: self.clock.time_ns(self.count + index as u64),
            unix_base_ns: self.unix_base_ns,
        };
        self.bus
            .read(physical, size as u8, &mut context)
            .map_err(|_| access_fault(Access::Load, address))
    }

    /// Nothing is read unless all of it is RAM: a device would see a part of a load that faults.
    fn load_across_pages(&mut self, address: u64, size: usize) -> Result<u64, Exception> {
        let places = self.places_across_pages(address, size, Access::Load)?;
        let mut bytes = [0; 8];
        for (byte, offset) in bytes.iter_mut().zip(&places[..size]) {
            *byte = self.memory.load_u8(*offset);
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Offsets in RAM of the bytes of an access that crosses a page. A fault names the address of
    /// its own page, as two accesses would.
    fn places_across_pages(
        &mut self,
        address: u64,
        size: usize,
        access: Access,
    ) -> Result<[usize; 8], Exception> {
        let mut places = [0; 8];
        for (i, place) in places[..size].iter_mut().enumerate() {
            let byte_address = address.wrapping_add(i as u64);
            let physical = self.data_address(byte_address, access)?;
            self.check_protection(physical, 1, access, byte_address)?;
            let cause = match access {
                Access::Store => Cause::StoreMisaligned,
                _ => Cause::LoadMisaligned,
            };
            let offset = self.memory.offset(physical, 1);
            *place = offset.map_err(|_| Exception::new(cause, address))?;
        }
        Ok(places)
    }

    /// A store that the TLB did not answer.
    #[cold]
    #[inline(never)]
    pub fn store_slow(
        &mut self,
        address: u64,
        size: usize,
        value: u64,
        index: usize,
    ) -> Result<(), Exception> {
        self.store_untold(address, size, value, index)?;
        self.tell(address, size, Watched::Write);
        Ok(())
    }

    fn store_untold(
        &mut self,
        address: u64,
        size: usize,
        value: u64,
        index: usize,
    ) -> Result<(), Exception> {
        if address % PAGE_SIZE + size as u64 > PAGE_SIZE {
            return self.store_across_pages(address, size, value);
        }
        let physical = self.data_address(address, Access::Store)?;
        self.check_protection(physical, size, Access::Store, address)?;
        self.store_physical(physical, size, value, index, address)
    }

    fn store_physical(
        &mut self,
        physical: u64,
        size: usize,
        value: u64,
        index: usize,
        address: u64,
    ) -> Result<(), Exception> {
        if let Ok(offset) = self.memory.offset(physical, size as u64) {
            self.attention |= self.memory.store(offset, size, value);
            if self.memory.is_plain(offset) && self.may_cache_data(address, physical) {
                self.remember_store(address, offset & !(PAGE_SIZE as usize - 1));
            }
            return Ok(());
        }
        if !physical.is_multiple_of(size as u64) {
            return Err(Exception::new(Cause::StoreMisaligned, address));
        }
        self.attention = true;
        let mut context = DeviceContext {
            memory: &mut **self.memory,
            outputs: self.outputs,
            time_ns: self.clock.time_ns(self.count + index as u64),
            unix_base_ns: self.unix_base_ns,
        };
        self.bus
            .write(physical, size as u8, value, &mut context)
            .map_err(|_| access_fault(Access::Store, address))
    }

    /// Lets the TLB know the page of a store, which is plain.
    fn remember_store(&mut self, address: u64, page_offset: usize) {
        self.memory.enters_write_tlb(page_offset);
        self.hart.tlb.insert_store(address, page_offset);
    }

    /// Nothing is stored unless all of it can be.
    fn store_across_pages(
        &mut self,
        address: u64,
        size: usize,
        value: u64,
    ) -> Result<(), Exception> {
        let places = self.places_across_pages(address, size, Access::Store)?;
        for (offset, byte) in places[..size].iter().zip(value.to_le_bytes()) {
            self.attention |= self.memory.store(*offset, 1, byte.into());
        }
        Ok(())
    }

    /// For compiled code: lets the TLB know the page of a load. False if it cannot: the access faults,
    /// sets A, crosses a page or is none to RAM. Nothing has happened then.
    #[cfg(jit)]
    pub(crate) fn fill_load(&mut self, address: u64, size: usize) -> bool {
        let Some((physical, offset)) = self.ram_access(address, size, Access::Load) else {
            return false;
        };
        let may_cache = self.may_cache_data(address, physical);
        if may_cache {
            let page_offset = offset & !(PAGE_SIZE as usize - 1);
            self.hart.tlb.insert_load(address, page_offset);
        }
        may_cache
    }

    /// For compiled code: `Some(true)` if the TLB now knows the page, `Some(false)` if the store is
    /// done, `None` if the interpreter has to do it; nothing has happened then.
    #[cfg(jit)]
    pub(crate) fn try_store(&mut self, address: u64, size: usize, value: u64) -> Option<bool> {
        let (physical, offset) = self.ram_access(address, size, Access::Store)?;
        if self.memory.might_disturb(offset, size) || self.memory.traps.watches_page(address) {
            return None;
        }
        self.store_physical(physical, size, value, 0, address)
            .ok()?;
        Some(false)
    }

    /// Where in RAM an access goes that neither faults nor crosses a page, nor sets A or D.
    #[cfg(jit)]
    fn ram_access(&mut self, address: u64, size: usize, access: Access) -> Option<(u64, usize)> {
        if address % PAGE_SIZE + size as u64 > PAGE_SIZE {
            return None;
        }
        let privilege = self.hart.data_privilege();
        let physical = self
            .hart
            .translate_unchanged(self.memory, address, access, privilege)?;
        self.check_protection(physical, size, access, address)
            .ok()?;
        let offset = self.memory.offset(physical, size as u64).ok()?;
        Some((physical, offset))
    }

    /// Zeroes the cache block that `address` is in: all of it or, if it faults, nothing.
    pub fn zero_block(&mut self, address: u64) -> Result<(), Exception> {
        let within = address % BLOCK_BYTES;
        let context = self.hart.tlb.data_context;
        if let Some(offset) = self.hart.tlb.store.lookup(address, context) {
            let block = offset - within as usize;
            for at in (block..block + BLOCK_BYTES as usize).step_by(8) {
                self.memory.store_u64(at, 0);
            }
            return Ok(());
        }
        let (physical, block) = self.block(address, Access::Store)?;
        for at in (block..block + BLOCK_BYTES as usize).step_by(8) {
            self.attention |= self.memory.store(at, 8, 0);
        }
        if self.memory.is_plain(block) && self.may_cache_data(address, physical) {
            self.remember_store(address, block & !(PAGE_SIZE as usize - 1));
        }
        self.tell(address - within, BLOCK_BYTES as usize, Watched::Write);
        Ok(())
    }

    /// Cleans, flushes or invalidates the cache block that `address` is in: there is nothing to do, but
    /// the hart must be allowed to access it. What faults is a store.
    pub fn manage_block(&mut self, address: u64) -> Result<(), Exception> {
        let block = self.block(address, Access::Load);
        block.map(drop).map_err(|exception| match exception.cause {
            Cause::LoadPageFault => Exception::new(Cause::StorePageFault, address),
            _ => Exception::new(Cause::StoreAccessFault, address),
        })
    }

    /// Physical address and offset in RAM of the cache block that `address` is in; what is no RAM has
    /// none. A fault names `address`.
    fn block(&mut self, address: u64, access: Access) -> Result<(u64, usize), Exception> {
        let physical = self.data_address(address, access)? & !(BLOCK_BYTES - 1);
        self.check_protection(physical, BLOCK_BYTES as usize, access, address)?;
        let offset = self.memory.offset(physical, BLOCK_BYTES);
        let offset = offset.map_err(|_| access_fault(access, address))?;
        Ok((physical, offset))
    }

    /// The offset in RAM of naturally aligned data for an atomic, which must be RAM.
    pub fn atomic_offset(
        &mut self,
        address: u64,
        size: usize,
        access: Access,
    ) -> Result<usize, Exception> {
        if !address.is_multiple_of(size as u64) {
            let cause = match access {
                Access::Load => Cause::LoadMisaligned,
                _ => Cause::StoreMisaligned,
            };
            return Err(Exception::new(cause, address));
        }
        let known = match access {
            Access::Load => self
                .hart
                .tlb
                .load
                .lookup(address, self.hart.tlb.data_context),
            _ => self
                .hart
                .tlb
                .store
                .lookup(address, self.hart.tlb.data_context),
        };
        if let Some(offset) = known {
            return Ok(offset);
        }
        let physical = self.data_address(address, access)?;
        self.check_protection(physical, size, access, address)?;
        let offset = self
            .memory
            .offset(physical, size as u64)
            .map_err(|_| access_fault(access, address))?;
        let watched = match access {
            Access::Load => Watched::Read,
            _ => Watched::Any,
        };
        self.tell(address, size, watched);
        if self.may_cache_data(address, physical) {
            let page_offset = offset & !(PAGE_SIZE as usize - 1);
            match access {
                Access::Load => self.hart.tlb.insert_load(address, page_offset),
                _ if self.memory.is_plain(offset) => {
                    self.remember_store(address, page_offset);
                }
                _ => {}
            }
        }
        Ok(offset)
    }

    /// The offset in RAM of the instruction at `address`, which is executed next; `None` if it is not
    /// RAM, or if a PMP range ends within its page, so that each instruction has to be checked. Asks
    /// for attention if it had to set A: then the fetch has to begin anew.
    #[inline(always)]
    pub fn fetch_offset(&mut self, address: u64) -> Result<Option<usize>, Exception> {
        match self
            .hart
            .tlb
            .fetch
            .lookup(address, self.hart.tlb.fetch_context)
        {
            Some(offset) => Ok(Some(offset)),
            None => self.fetch_offset_slow(address),
        }
    }

    #[cold]
    #[inline(never)]
    fn fetch_offset_slow(&mut self, address: u64) -> Result<Option<usize>, Exception> {
        let physical = self.fetch_address(address)?;
        Ok(self.remember_fetch(address, physical))
    }

    fn remember_fetch(&mut self, address: u64, physical: u64) -> Option<usize> {
        let offset = self.memory.offset(physical, 2).ok()?;
        if !self.may_cache(physical) {
            return None; // a block would run over the boundary that lies in the page
        }
        self.hart
            .tlb
            .insert_fetch(address, offset & !(PAGE_SIZE as usize - 1));
        Some(offset)
    }

    /// As [`Environment::fetch_offset`], of an instruction that may never be executed; `None` also if
    /// its fetch would fault or set A.
    pub fn possible_fetch_offset(&mut self, address: u64) -> Option<usize> {
        let tlb = &self.hart.tlb;
        if let Some(offset) = tlb.fetch.lookup(address, tlb.fetch_context) {
            return Some(offset);
        }
        let privilege = self.hart.privilege;
        let physical =
            self.hart
                .translate_unchanged(self.memory, address, Access::Fetch, privilege)?;
        self.check_protection(physical, 2, Access::Fetch, address)
            .ok()?;
        self.remember_fetch(address, physical)
    }

    fn fetch_address(&mut self, address: u64) -> Result<u64, Exception> {
        let privilege = self.hart.privilege;
        let physical = self
            .hart
            .translate(self.memory, address, Access::Fetch, privilege);
        self.attention |= self.memory.is_disturbed();
        let physical = physical?;
        self.check_protection(physical, 2, Access::Fetch, address)?;
        Ok(physical)
    }

    /// Fetches one half-word from anywhere.
    pub fn fetch_half(&mut self, address: u64) -> Result<u16, Exception> {
        if let Some(offset) = self.fetch_offset(address)? {
            return Ok(self.memory.load_u16(offset));
        }
        let physical = self.fetch_address(address)?;
        if let Ok(offset) = self.memory.offset(physical, 2) {
            return Ok(self.memory.load_u16(offset));
        }
        let rom_offset = physical.wrapping_sub(crate::board::bus::ROM_BASE) as usize;
        let rom = self.bus.rom();
        match rom
            .get(rom_offset..)
            .and_then(|bytes| bytes.first_chunk::<2>())
        {
            Some(bytes) => Ok(u16::from_le_bytes(*bytes)),
            None => Err(access_fault(Access::Fetch, address)),
        }
    }

    /// The `length` bytes at `offset`, all in one page, are decoded code now.
    pub fn mark_code(&mut self, offset: usize, length: usize) {
        if self.memory.mark_code(offset, length) {
            self.hart
                .tlb
                .drop_stores_to(offset & !(PAGE_SIZE as usize - 1));
        }
    }

    /// After a change of status or mode: the translation context, and whether an interrupt that was
    /// pending can be taken now.
    pub fn mode_changed(&mut self) {
        self.hart.update_translation_context();
        if self
            .hart
            .interrupt_to_take(self.interrupts_pending)
            .is_some()
        {
            self.attention = true;
        }
    }

    /// Raises an exception's privilege-dependent cause: `ecall`.
    pub fn environment_call(&self) -> Exception {
        let cause = match self.hart.privilege {
            Privilege::User => Cause::EnvironmentCallFromUser,
            Privilege::Supervisor => Cause::EnvironmentCallFromSupervisor,
            Privilege::Machine => Cause::EnvironmentCallFromMachine,
        };
        Exception::new(cause, 0)
    }
}
