//! The floating-point environment of `fcsr`: rounding mode and accrued exception flags.

use core::ops::{BitOr, BitOrAssign};

/// How a result that has no exact representation is rounded (table "Rounding mode encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundingMode {
    /// RNE: to nearest, ties to even.
    NearestEven,
    /// RTZ: towards zero.
    TowardZero,
    /// RDN: towards negative infinity.
    Down,
    /// RUP: towards positive infinity.
    Up,
    /// RMM: to nearest, ties away from zero.
    NearestMaxMagnitude,
}

impl RoundingMode {
    /// All modes, in the order of their encoding.
    pub const ALL: [Self; 5] = [
        Self::NearestEven,
        Self::TowardZero,
        Self::Down,
        Self::Up,
        Self::NearestMaxMagnitude,
    ];

    /// The mode that the three bits of `frm`, or of a static `rm` field, stand for. `None` for the
    /// reserved values 5 and 6, for 7 (DYN, which an instruction has to look up in `frm` first),
    /// and for anything above.
    #[inline]
    #[must_use]
    pub const fn from_bits(rm: u8) -> Option<Self> {
        match rm {
            0 => Some(Self::NearestEven),
            1 => Some(Self::TowardZero),
            2 => Some(Self::Down),
            3 => Some(Self::Up),
            4 => Some(Self::NearestMaxMagnitude),
            _ => None,
        }
    }
}

/// Accrued exception flags, as the five bits of `fflags`. Operations only ever add to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No flag raised.
    pub const NONE: Self = Self(0);
    /// NX: the result was rounded.
    pub const INEXACT: Self = Self(1);
    /// UF: the result was tiny (after rounding) and inexact.
    pub const UNDERFLOW: Self = Self(2);
    /// OF: the rounded result was larger than the largest finite number.
    pub const OVERFLOW: Self = Self(4);
    /// DZ: a finite number was divided by zero.
    pub const DIVIDE_BY_ZERO: Self = Self(8);
    /// NV: the operation has no useful result.
    pub const INVALID: Self = Self(16);

    /// The flags held in the low five bits of `fflags`; higher bits are dropped.
    #[inline]
    #[must_use]
    pub const fn from_bits(fflags: u8) -> Self {
        Self(fflags & 0x1f)
    }

    /// The value of `fflags`, 0 to 31.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether every flag of `other` is raised.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds the flags of `other`.
    #[inline]
    pub const fn raise(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.raise(other);
    }
}
