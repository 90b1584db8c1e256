//! How vector and x87 instructions reach the rest of the CPU.

use super::core::{Core, Raised};
use super::flags::{STATUS, Status};
use super::op::Op;
use super::width::{Byte, Double, HIGH_BYTES, Quad, Width, Word};
use crate::fault::{Fault, SIMD_FAULT};
use crate::operands::Operands;
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
            _ => self.core.load::<Quad>(address).and_then(|low| {
                let address = address.wrapping_add(8);
                let high = if size == 10 {
                    self.core.load::<Word>(address)?
                } else {
                    self.core.load::<Quad>(address)?
                };
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
            _ => self
                .core
                .check_store(address, size as u64)
                .and_then(|()| self.core.store::<Quad>(address, low))
                .and_then(|()| {
                    let address = address.wrapping_add(8);
                    let high = (value >> 64) as u64;
                    if size == 10 {
                        self.core.store::<Word>(address, high)
                    } else {
                        self.core.store::<Quad>(address, high)
                    }
                }),
        };
        stored.map_err(|Raised| self.fault())
    }

    fn check_store(&mut self, offset: u64, size: usize) -> Result<(), Fault> {
        let address = self.address.wrapping_add(offset);
        self.core
            .check_store(address, size as u64)
            .map_err(|Raised| self.fault())
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
pub(super) mod needs {
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
