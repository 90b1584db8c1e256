//! The vector unit, the registers that it shares with x87, and the rest of the CPU, to one
//! instruction.

use iced_x86::Register;

use super::VectorState;
use super::mxcsr::Mxcsr;
use crate::bytes::{self, StatusFlags};
use crate::fault::Fault;
use crate::operands::Operands;
use crate::x87::X87State;

pub(super) struct Unit<'a, O> {
    pub vector: &'a mut VectorState,
    pub x87: &'a mut X87State,
    pub operands: &'a mut O,
}

impl<O: Operands> Unit<'_, O> {
    #[inline]
    pub fn xmm(&self, n: usize) -> u128 {
        self.vector.xmm[n]
    }

    #[inline]
    pub fn set_xmm(&mut self, n: usize, value: u128) {
        self.vector.xmm[n] = value;
    }

    #[inline]
    pub fn mxcsr(&self) -> Mxcsr {
        Mxcsr::from_state(self.vector.mxcsr)
    }

    #[inline]
    pub fn set_mxcsr(&mut self, mxcsr: Mxcsr) {
        self.vector.mxcsr = mxcsr.bits();
    }

    pub fn gpr(&self, register: Register) -> u64 {
        self.operands.gpr(register)
    }

    pub fn set_gpr(&mut self, register: Register, value: u64) {
        self.operands.set_gpr(register, value);
    }

    pub fn set_status_flags(&mut self, flags: StatusFlags) {
        bytes::set_status_flags(self.operands, flags);
    }

    /// The memory operand.
    #[inline]
    pub fn load<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        bytes::load(self.operands)
    }

    /// The memory operand, which is at a multiple of 16.
    #[inline]
    pub fn load_aligned<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.operands.require_alignment(16)?;
        bytes::load(self.operands)
    }

    /// Stores the memory operand.
    #[inline]
    pub fn store<const N: usize>(&mut self, value: [u8; N]) -> Result<(), Fault> {
        bytes::store(self.operands, value)
    }

    /// Faults as a store to the memory operand would, which is at a multiple of 16.
    pub fn check_store_aligned<const N: usize>(&mut self) -> Result<(), Fault> {
        self.operands.require_alignment(16)?;
        bytes::check_store::<O, N>(self.operands)
    }

    /// Stores the memory operand, which is at a multiple of 16.
    #[inline]
    pub fn store_aligned<const N: usize>(&mut self, value: [u8; N]) -> Result<(), Fault> {
        self.operands.require_alignment(16)?;
        bytes::store(self.operands, value)
    }
}
