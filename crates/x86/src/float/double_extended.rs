//! The double extended-precision format of x87 (volume 1, 4.2.2 and table 8-3).

use serde::{Deserialize, Serialize};

use super::interchange::Operand;
use super::number::Number;
use super::round::{Range, Rounded};

/// An 80-bit encoding: an explicit integer bit at bit 63 of the significand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DoubleExtended {
    /// Sign at bit 15, biased exponent below.
    pub sign_exponent: u16,
    /// Integer bit at bit 63, fraction below.
    pub significand: u64,
}

/// What the exponent field adds to the exponent of bit 63.
const BIAS: i32 = 0x3fff;
const EXPONENT: u16 = 0x7fff;
const SIGN: u16 = 0x8000;
const INTEGER: u64 = 1 << 63;
const QUIET: u64 = 1 << 62;

impl DoubleExtended {
    /// The QNaN floating-point indefinite.
    pub const INDEFINITE: Self = Self::new(SIGN | EXPONENT, INTEGER | QUIET);
    /// +1.0.
    pub const ONE: Self = Self::new(BIAS as u16, INTEGER);

    /// What a result of 64 significant bits can be.
    pub(crate) const RANGE: Range = Self::range(64);

    /// From its fields.
    #[must_use]
    pub const fn new(sign_exponent: u16, significand: u64) -> Self {
        Self {
            sign_exponent,
            significand,
        }
    }

    /// What a result of `precision` significant bits can be.
    pub(crate) const fn range(precision: u32) -> Range {
        Range {
            precision,
            min_exponent: 1 - BIAS,
            max_exponent: BIAS,
        }
    }

    /// From the ten bytes of memory in the low bits of `bits`.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self::new((bits >> 64) as u16, bits as u64)
    }

    /// The ten bytes of memory, in the low bits.
    #[must_use]
    pub const fn to_bits(self) -> u128 {
        (self.sign_exponent as u128) << 64 | self.significand as u128
    }

    /// A zero of this sign.
    #[must_use]
    pub const fn zero(negative: bool) -> Self {
        Self::new(if negative { SIGN } else { 0 }, 0)
    }

    /// An infinity of this sign.
    #[must_use]
    pub const fn infinity(negative: bool) -> Self {
        Self::new(Self::zero(negative).sign_exponent | EXPONENT, INTEGER)
    }

    /// Whether the sign bit is set.
    #[must_use]
    pub const fn negative(self) -> bool {
        self.sign_exponent & SIGN != 0
    }

    /// The biased exponent.
    #[must_use]
    pub const fn field(self) -> u16 {
        self.sign_exponent & EXPONENT
    }

    /// With this sign.
    #[must_use]
    pub const fn with_sign(self, negative: bool) -> Self {
        let sign = if negative { SIGN } else { 0 };
        Self::new(self.field() | sign, self.significand)
    }

    /// With the other sign.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self::new(self.sign_exponent ^ SIGN, self.significand)
    }

    /// Whether this is an encoding that no operation gives since the 387 (table 8-3): a pseudo-NaN,
    /// a pseudo-infinity or an unnormal. Every operation on it is invalid.
    #[must_use]
    pub const fn is_unsupported(self) -> bool {
        self.field() != 0 && self.significand & INTEGER == 0
    }

    /// Whether this is a NaN.
    #[must_use]
    pub const fn is_nan(self) -> bool {
        self.field() == EXPONENT && self.significand > INTEGER
    }

    /// Whether this is a NaN that signals.
    #[must_use]
    pub const fn is_signaling(self) -> bool {
        self.is_nan() && self.significand & QUIET == 0
    }

    /// Whether this is an infinity.
    #[must_use]
    pub const fn is_infinite(self) -> bool {
        self.field() == EXPONENT && self.significand == INTEGER
    }

    /// Whether this is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.field() == 0 && self.significand == 0
    }

    /// Whether this is denormal or a pseudo-denormal, which raise the denormal exception.
    #[must_use]
    pub const fn is_denormal(self) -> bool {
        self.field() == 0 && self.significand != 0
    }

    /// The same NaN, quiet.
    #[must_use]
    pub const fn quieted(self) -> Self {
        Self::new(self.sign_exponent, self.significand | QUIET)
    }

    /// Takes a supported encoding apart.
    pub(crate) fn unpack(self) -> Operand {
        let negative = self.negative();
        if self.is_zero() {
            Operand::Zero { negative }
        } else if self.is_nan() {
            Operand::Nan
        } else if self.is_infinite() {
            Operand::Infinite { negative }
        } else {
            Operand::Finite(Number {
                negative,
                exponent: i32::from(self.field().max(1)) - BIAS - 63,
                significand: self.significand.into(),
            })
        }
    }

    /// The encoding of a rounded number whose exponent is in range.
    pub(crate) fn pack(rounded: Rounded) -> Self {
        let subnormal = rounded.significand & INTEGER == 0;
        let field = if subnormal {
            0
        } else {
            rounded.exponent + BIAS
        };
        debug_assert!((0..i32::from(EXPONENT)).contains(&field));
        Self::new(
            Self::zero(rounded.negative).sign_exponent | field as u16,
            rounded.significand,
        )
    }
}
