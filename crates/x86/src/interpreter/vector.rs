//! How vector and x87 instructions reach the rest of the CPU.

use super::core::{Core, Raised};
use super::flags::{STATUS, Status};
use super::op::Op;
use super::width::{Byte, Double, HIGH_BYTES, Quad, Width, Word};
use crate::fault::{Fault, SIMD_FAULT};
use crate::operands::Operands;
use crate::simd::operations::OPERATIONS;
use iced_x86::Register;

const CR0_MP: u64 = 1 << 1;
const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;

/// The CPU, to one instruction.
struct View<'b, 'a> {
    core: &'b mut Core<'a>,
    address: u64,
}

impl View<'_, '_> {
    fn fault(&self) -> Fault {
        self.core.raised
    }
}

impl Operands for View<'_, '_> {
    fn address(&self) -> u64 {
        self.address
    }

    fn load(&mut self, offset: u64, size: usize) -> Result<u128, Fault> {
        let address = self.address.wrapping_add(offset);
        let loaded = match size {
            1 => self.core.load::<Byte>(address).map(u128::from),
            2 => self.core.load::<Word>(address).map(u128::from),
            4 => self.core.load::<Double>(address).map(u128::from),
            8 => self.core.load::<Quad>(address).map(u128::from),
            16 => load_16(self.core, address),
            _ => self.core.load::<Quad>(address).and_then(|low| {
                let high = self.core.load::<Word>(address.wrapping_add(8))?;
                Ok(u128::from(high) << 64 | u128::from(low))
            }),
        };
        loaded.map_err(|Raised| self.fault())
    }

    fn store(&mut self, offset: u64, size: usize, value: u128) -> Result<(), Fault> {
        let address = self.address.wrapping_add(offset);
        let low = value as u64;
        let stored = match size {
            1 => self.core.store::<Byte>(address, low),
            2 => self.core.store::<Word>(address, low),
            4 => self.core.store::<Double>(address, low),
            8 => self.core.store::<Quad>(address, low),
            16 => store_16(self.core, address, value),
            _ => self
                .core
                .check_store(address, size as u64)
                .and_then(|()| self.core.store::<Quad>(address, low))
                .and_then(|()| {
                    let high = (value >> 64) as u64;
                    self.core.store::<Word>(address.wrapping_add(8), high)
                }),
        };
        stored.map_err(|Raised| self.fault())
    }

    fn check_store(&mut self, offset: u64, size: usize) -> Result<(), Fault> {
        let address = self.address.wrapping_add(offset);
        if self.core.tlb.write(address, size, self.core.bank).is_some() {
            return Ok(());
        }
        self.core
            .check_store(address, size as u64)
            .map_err(|Raised| self.fault())
    }

    fn load_at_once(&mut self, bytes: &mut [u8]) -> bool {
        let core = &mut *self.core;
        let known = core.tlb.read(self.address, bytes.len(), core.bank);
        let found = known.and_then(|physical| core.ram.slice(physical, bytes.len() as u64));
        if let Some(found) = found {
            bytes.copy_from_slice(found);
        }
        found.is_some()
    }

    fn store_at_once(&mut self, bytes: &[u8]) -> bool {
        let core = &mut *self.core;
        let known = core.tlb.write(self.address, bytes.len(), core.bank);
        if let Some(physical) = known {
            let place = core.ram.plain_bytes(physical, bytes.len());
            place.copy_from_slice(bytes);
        }
        known.is_some()
    }

    fn gpr(&self, register: Register) -> u64 {
        let number = number(register);
        match register.size() {
            1 => Byte::get(&self.core.r, number),
            2 => Word::get(&self.core.r, number),
            4 => Double::get(&self.core.r, number),
            _ => Quad::get(&self.core.r, number),
        }
    }

    fn set_gpr(&mut self, register: Register, value: u64) {
        let number = number(register);
        match register.size() {
            1 => Byte::set(&mut self.core.r, number, value),
            2 => Word::set(&mut self.core.r, number, value),
            4 => Double::set(&mut self.core.r, number, value),
            _ => Quad::set(&mut self.core.r, number, value),
        }
    }

    fn flags(&self) -> u64 {
        self.core.rflags()
    }

    fn set_flags(&mut self, mask: u64, value: u64) {
        let mask = mask & STATUS;
        let flags = self.core.status.to_flags() & !mask | value & mask;
        self.core.status = Status::from_flags(flags);
    }
}

/// Loads 16 bytes.
#[inline(always)]
fn load_16(core: &mut Core<'_>, address: u64) -> Result<u128, Raised> {
    let (low, high) = match core.tlb.read(address, 16, core.bank) {
        Some(physical) => (core.ram.load(physical, 8), core.ram.load(physical + 8, 8)),
        None => {
            let low = core.load::<Quad>(address)?;
            (low, core.load::<Quad>(address.wrapping_add(8))?)
        }
    };
    Ok(u128::from(high) << 64 | u128::from(low))
}

/// Stores 16 bytes, all or nothing.
#[inline(always)]
fn store_16(core: &mut Core<'_>, address: u64, value: u128) -> Result<(), Raised> {
    let (low, high) = (value as u64, (value >> 64) as u64);
    match core.tlb.write(address, 16, core.bank) {
        Some(physical) => {
            core.ram.store_plain(physical, 8, low);
            core.ram.store_plain(physical + 8, 8, high);
            Ok(())
        }
        None => {
            core.check_store(address, 16)?;
            core.store::<Quad>(address, low)?;
            core.store::<Quad>(address.wrapping_add(8), high)
        }
    }
}

/// The number that handlers know a general register by.
pub(super) fn number(register: Register) -> u8 {
    if register.is_gpr8() {
        match register as u8 - Register::AL as u8 {
            low @ 0..=3 => low,
            high @ 4..=7 => HIGH_BYTES + high - 4,
            new => new - 4,
        }
    } else {
        register.number() as u8
    }
}

/// What must be set up before an instruction of a kind may execute.
pub(crate) mod needs {
    /// An x87 instruction.
    pub const X87: u8 = 0;
    /// FWAIT.
    pub const WAIT: u8 = 1;
    /// MMX.
    pub const MMX: u8 = 2;
    /// SSE and later.
    pub const SSE: u8 = 3;
    /// FXSAVE, FXRSTOR.
    pub const FXSR: u8 = 4;
}

fn check(core: &mut Core<'_>, needs: u8) -> Result<(), Raised> {
    let (cr0, cr4) = (core.registers.cr0, core.registers.cr4);
    let is_undefined = match needs {
        needs::MMX => cr0 & CR0_EM != 0,
        needs::SSE => cr0 & CR0_EM != 0 || cr4 & CR4_OSFXSR == 0,
        _ => false,
    };
    if is_undefined {
        return Err(core.raise(Fault::INVALID_OPCODE));
    }
    let is_unavailable = match needs {
        needs::WAIT => cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS,
        needs::X87 | needs::FXSR => cr0 & (CR0_EM | CR0_TS) != 0,
        _ => cr0 & CR0_TS != 0,
    };
    if is_unavailable {
        return Err(core.raise(Fault::DEVICE_NOT_AVAILABLE));
    }
    Ok(())
}

/// What a move or an operation of XMM registers needs: what SSE needs.
#[inline(always)]
fn check_move(core: &mut Core<'_>) -> Result<(), Raised> {
    let (cr0, cr4) = (core.registers.cr0, core.registers.cr4);
    if cr0 & (CR0_EM | CR0_TS) == 0 && cr4 & CR4_OSFXSR != 0 {
        Ok(())
    } else {
        check(core, needs::SSE)
    }
}

#[inline(always)]
fn xmm(core: &Core<'_>, number: u8) -> u128 {
    match &core.vector {
        Some(vector) => vector.xmm[usize::from(number & 15)],
        None => 0,
    }
}

#[inline(always)]
fn set_xmm(core: &mut Core<'_>, number: u8, value: u128) {
    if let Some(vector) = &mut core.vector {
        vector.xmm[usize::from(number & 15)] = value;
    }
}

/// The address of a move, of which the bits of `immediate` have to be zero.
#[inline(always)]
fn move_address(core: &mut Core<'_>, op: &Op) -> Result<u64, Raised> {
    let address = core.address(op);
    if address & op.immediate == 0 {
        Ok(address)
    } else {
        Err(core.general_protection())
    }
}

/// MOVDQU, MOVDQA and their like between registers.
pub(super) fn move_register(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check_move(core)?;
    let value = xmm(core, op.source);
    set_xmm(core, op.target, value);
    Ok(())
}

/// MOVDQU, MOVDQA and their like from memory; `immediate` is 15 where it has to be aligned.
pub(super) fn move_load(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check_move(core)?;
    let address = move_address(core, op)?;
    let value = load_16(core, address)?;
    set_xmm(core, op.target, value);
    Ok(())
}

/// MOVDQU, MOVDQA and their like to memory; `immediate` is 15 where it has to be aligned.
pub(super) fn move_store(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check_move(core)?;
    let address = move_address(core, op)?;
    store_16(core, address, xmm(core, op.source))
}

/// MOVSS, MOVSD, MOVD, MOVQ from memory: the rest of the register becomes zero.
pub(super) fn move_load_low<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check_move(core)?;
    let value = core.load::<W>(core.address(op))?;
    set_xmm(core, op.target, value.into());
    Ok(())
}

/// MOVSS, MOVSD, MOVD, MOVQ to memory.
pub(super) fn move_store_low<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check_move(core)?;
    let value = xmm(core, op.source) as u64;
    core.store::<W>(core.address(op), value)
}

/// A form of [`OPERATIONS`] on two registers; `immediate` is its place there.
pub(super) fn operate(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check_move(core)?;
    operate_with(core, op, xmm(core, op.source));
    Ok(())
}

/// A form of [`OPERATIONS`] with memory as its source.
pub(super) fn operate_memory(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check_move(core)?;
    let address = core.address(op);
    if address & 15 != 0 {
        return Err(core.general_protection());
    }
    let source = load_16(core, address)?;
    operate_with(core, op, source);
    Ok(())
}

#[inline(always)]
fn operate_with(core: &mut Core<'_>, op: &Op, source: u128) {
    let (_, operation) = OPERATIONS[op.immediate as usize];
    let result = operation(xmm(core, op.target), source);
    set_xmm(core, op.target, result);
}

/// Vector and x87 instructions; `detail` is one of [`needs`].
pub(super) fn execute(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    check(core, op.detail)?;
    let Some(instruction) = op.instruction.as_deref() else {
        return Err(core.raise(Fault::INVALID_OPCODE));
    };
    let (Some(vector), Some(x87)) = (core.vector.take(), core.x87.take()) else {
        return Err(core.raise(Fault::INVALID_OPCODE));
    };
    let address = core.address(op);
    core.is_non_canonical = false;
    let mut view = View { core, address };
    let executed = if op.detail <= needs::WAIT {
        crate::x87::execute(instruction, x87, &mut view)
    } else {
        crate::simd::execute(instruction, vector, x87, &mut view)
    };
    let core = view.core;
    core.vector = Some(vector);
    core.x87 = Some(x87);
    executed.map_err(|fault| {
        let fault = if fault.vector == SIMD_FAULT && core.registers.cr4 & CR4_OSXMMEXCPT == 0 {
            Fault::INVALID_OPCODE
        } else {
            fault
        };
        core.raised = fault;
        Raised
    })
}
