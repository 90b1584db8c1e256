//! MXCSR, and what an instruction gathers while it works through its lanes.

use crate::float::{Rounding, flags};

/// The control and status register of SSE (volume 1, 10.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mxcsr(u32);

/// An exception that MXCSR does not mask: the instruction ends in #XM and leaves its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unmasked;

const DENORMALS_ARE_ZERO: u32 = 1 << 6;
const MASKS: u32 = 0x1f80;
const ROUNDING_SHIFT: u32 = 13;
const ROUNDING: u32 = 3 << ROUNDING_SHIFT;
const FLUSH_TO_ZERO: u32 = 1 << 15;

/// Exceptions that are known before a result is computed (volume 1, 11.5.2).
const PRE_COMPUTATION: u16 = flags::INVALID | flags::DENORMAL | flags::DIVIDE_BY_ZERO;

impl Mxcsr {
    /// The bits that exist; LDMXCSR and FXRSTOR of others are general-protection faults.
    pub const MASK: u32 = 0xffff;

    /// From a value that software loads; nothing where a reserved bit is set.
    #[must_use]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits & !Self::MASK == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// From the state of a machine, where it is valid already.
    #[inline]
    pub(super) const fn from_state(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What an instruction works with.
    #[inline]
    pub(crate) const fn environment(self) -> Environment {
        Environment {
            rounding: Rounding::from_control(self.0 >> ROUNDING_SHIFT),
            denormals_are_zero: self.0 & DENORMALS_ARE_ZERO != 0,
            flush_to_zero: self.0 & FLUSH_TO_ZERO != 0,
            masks: (self.0 >> 7) as u16 & flags::ALL,
            host_rounds: self.0 & (ROUNDING | MASKS | flags::PRECISION as u32)
                == MASKS | flags::PRECISION as u32,
            raised: 0,
        }
    }

    /// Keeps the flags that an instruction raised. Where a pre-computation exception is unmasked in
    /// any lane, no lane gets as far as the others.
    #[inline]
    pub(crate) fn accumulate(&mut self, environment: &Environment) -> Result<(), Unmasked> {
        let raised = environment.raised;
        if raised == 0 {
            return Ok(());
        }
        let unmasked = raised & !environment.masks;
        if unmasked & PRE_COMPUTATION != 0 {
            self.0 |= u32::from(raised & PRE_COMPUTATION);
            return Err(Unmasked);
        }
        self.0 |= u32::from(raised);
        if unmasked == 0 { Ok(()) } else { Err(Unmasked) }
    }
}

/// MXCSR taken apart, and the exceptions that were raised.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub rounding: Rounding,
    pub denormals_are_zero: bool,
    pub flush_to_zero: bool,
    /// One bit for each exception that is masked.
    pub masks: u16,
    /// The host's own arithmetic is exact enough: it rounds to the nearest, nothing is unmasked,
    /// and whether the result is inexact is of no interest, because PE is set already.
    pub host_rounds: bool,
    pub raised: u16,
}

impl Environment {
    /// Raises exceptions.
    #[inline]
    pub fn raise(&mut self, flags: u16) {
        self.raised |= flags;
    }

    /// Whether these exceptions are masked.
    #[inline]
    pub const fn masked(&self, flags: u16) -> bool {
        self.masks & flags == flags
    }
}
