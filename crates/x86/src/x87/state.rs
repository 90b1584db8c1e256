//! The registers of x87: the stack, the status word, and what an instruction does to them when it
//! ends well, ends in a masked exception, or leaves one pending.

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use crate::float::{DoubleExtended, flags};

/// Everything that FNSAVE would save. The pointers to the last instruction and its operand are
/// always zero on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87State {
    /// The control word.
    pub control: u16,
    /// The status word, TOP included.
    pub status: u16,
    /// One bit for each physical register that is not empty.
    pub occupied: u8,
    /// The physical registers, which hold MMX's in their significands.
    pub registers: [DoubleExtended; 8],
}

/// The stack fault flag.
const STACK_FAULT: u16 = 1 << 6;
/// The exception summary, and its twin of 8087 times.
const SUMMARY: u16 = 1 << 7;
const BUSY: u16 = 1 << 15;
pub(super) const C0: u16 = 1 << 8;
pub(super) const C1: u16 = 1 << 9;
pub(super) const C2: u16 = 1 << 10;
pub(super) const C3: u16 = 1 << 14;
const TOP_SHIFT: u32 = 11;
const TOP: u16 = 7 << TOP_SHIFT;
/// Bits of the control word that software can set; bit 6 is always one.
const CONTROL: u16 = 0x1f3f;
const CONTROL_FIXED: u16 = 0x0040;

impl X87State {
    /// After FNINIT; the registers are what they are after reset.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            control: 0x037f,
            status: 0,
            occupied: 0,
            registers: [DoubleExtended::zero(false); 8],
        }
    }

    /// FNINIT: the registers keep their contents.
    pub fn initialise(&mut self) {
        self.control = 0x037f;
        self.status = 0;
        self.occupied = 0;
    }

    /// Whether an exception is pending, that the next waiting instruction reports as #MF.
    #[inline]
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.status & SUMMARY != 0
    }

    /// The physical number of ST(0).
    #[inline]
    #[must_use]
    pub const fn top(&self) -> usize {
        (self.status >> TOP_SHIFT) as usize & 7
    }

    /// Makes a physical register ST(0).
    pub(super) const fn set_top(&mut self, top: usize) {
        self.status = self.status & !TOP | (top as u16 & 7) << TOP_SHIFT;
    }

    const fn physical(&self, i: usize) -> usize {
        (self.top() + i) & 7
    }

    /// Whether ST(`i`) is empty.
    pub(super) const fn is_empty(&self, i: usize) -> bool {
        self.occupied >> self.physical(i) & 1 == 0
    }

    /// ST(`i`), whatever its tag.
    #[must_use]
    pub const fn get(&self, i: usize) -> DoubleExtended {
        self.registers[self.physical(i)]
    }

    /// Writes ST(`i`), which is not empty then.
    pub(super) const fn set(&mut self, i: usize, value: DoubleExtended) {
        let physical = self.physical(i);
        self.registers[physical] = value;
        self.occupied |= 1 << physical;
    }

    /// Empties ST(`i`).
    pub(super) const fn free(&mut self, i: usize) {
        self.occupied &= !(1 << self.physical(i));
    }

    pub(super) const fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top() + 1);
    }

    pub(super) const fn push(&mut self, value: DoubleExtended) {
        self.set_top(self.top() + 7);
        self.set(0, value);
    }

    pub(super) fn environment(&self) -> Environment {
        Environment::new(self.control)
    }

    /// Sets the condition codes of `mask`.
    pub(super) const fn set_conditions(&mut self, mask: u16, codes: u16) {
        self.status = self.status & !mask | codes;
    }

    /// Keeps what an operation raised; C1 tells whether it rounded away from zero. Tells whether its
    /// result may be written.
    pub(super) fn commit(&mut self, e: &Environment) -> bool {
        let stopped = e.stopped();
        let (raised, away) = if stopped {
            (e.raised & super::environment::PRE_COMPUTATION, false)
        } else {
            (e.raised, e.away && e.raised & flags::PRECISION != 0)
        };
        self.set_conditions(C1, if away { C1 } else { 0 });
        self.raise(raised);
        !stopped
    }

    fn raise(&mut self, raised: u16) {
        self.status |= raised;
        self.summarise();
    }

    /// ES and B follow from the flags and the masks.
    fn summarise(&mut self) {
        let pending = self.status & !self.control & flags::ALL != 0;
        self.status &= !(SUMMARY | BUSY);
        if pending {
            self.status |= SUMMARY | BUSY;
        }
    }

    /// A stack underflow; tells whether the masked response, the indefinite, is due.
    pub(super) fn underflow(&mut self) -> bool {
        self.stack_fault(0)
    }

    /// A stack overflow; tells whether the masked response is due.
    pub(super) fn overflow(&mut self) -> bool {
        self.stack_fault(C1)
    }

    fn stack_fault(&mut self, c1: u16) -> bool {
        self.set_conditions(C1, c1);
        self.raise(flags::INVALID | STACK_FAULT);
        self.control & flags::INVALID != 0
    }

    /// FLDCW.
    pub(super) fn set_control(&mut self, control: u16) {
        self.control = control & CONTROL | CONTROL_FIXED;
        self.summarise();
    }

    /// The status word from memory, with its summary made anew.
    pub(super) fn set_status(&mut self, status: u16) {
        self.status = status;
        self.summarise();
    }

    /// FNCLEX.
    pub(super) fn clear_exceptions(&mut self) {
        self.status &= !(flags::ALL | STACK_FAULT | SUMMARY | BUSY);
    }

    /// The full tag word: two bits for each physical register.
    pub(crate) fn tags(&self) -> u16 {
        (0..8).fold(0, |tags, i| {
            let register = self.registers[i];
            let tag = if self.occupied >> i & 1 == 0 {
                3
            } else if register.is_zero() {
                1
            } else if register.field() == 0x7fff
                || register.field() == 0
                || register.is_unsupported()
            {
                2
            } else {
                0
            };
            tags | tag << (2 * i)
        })
    }

    /// From a full tag word, of which only empty or not empty counts.
    pub(super) fn set_tags(&mut self, tags: u16) {
        self.occupied = (0..8).fold(0, |occupied, i| {
            occupied | u8::from(tags >> (2 * i) & 3 != 3) << i
        });
    }

    /// An MMX register.
    #[inline]
    #[must_use]
    pub const fn mmx(&self, register: usize) -> u64 {
        self.registers[register].significand
    }

    /// Writes an MMX register: the exponent becomes all ones.
    #[inline]
    pub const fn set_mmx(&mut self, register: usize, value: u64) {
        self.registers[register] = DoubleExtended::new(0xffff, value);
    }

    /// What every MMX instruction but EMMS does: TOP is zero and no register is empty.
    #[inline]
    pub const fn enter_mmx(&mut self) {
        self.set_top(0);
        self.occupied = 0xff;
    }

    /// EMMS.
    pub const fn empty_mmx(&mut self) {
        self.set_top(0);
        self.occupied = 0;
    }
}

impl Default for X87State {
    fn default() -> Self {
        Self::new()
    }
}
