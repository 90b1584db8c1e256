//! The binary interchange formats, and how their bits are taken apart.

use crate::float::{Flags, RoundingMode};

/// A binary interchange format (IEEE 754-2019, 3.4), whose encodings are held in the low bits of a
/// `u64`. Implemented for the Rust type of the same format, which only names it here.
pub(in crate::float) trait Format {
    /// Width of the exponent field, in bits.
    const EXPONENT_BITS: u32;
    /// Width of the trailing significand field, in bits.
    const FRACTION_BITS: u32;

    /// Significant bits of a normal number, with the implied one.
    const PRECISION: u32 = Self::FRACTION_BITS + 1;
    /// What the exponent field adds to the exponent of a normal number's leading bit.
    const BIAS: i32 = (1 << (Self::EXPONENT_BITS - 1)) - 1;
    /// Exponent of the leading bit of the smallest normal number.
    const MIN_EXPONENT: i32 = 1 - Self::BIAS;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::EXPONENT_BITS + Self::FRACTION_BITS);
    /// Positive infinity, which is also the mask of the exponent field.
    const INFINITY: u64 = ((1 << Self::EXPONENT_BITS) - 1) << Self::FRACTION_BITS;
    /// The bit that tells a quiet NaN from a signaling one.
    const QUIET: u64 = 1 << (Self::FRACTION_BITS - 1);
    /// The canonical NaN.
    const CANONICAL_NAN: u64 = Self::INFINITY | Self::QUIET;
}

/// Half precision, of which the host has no type.
pub(in crate::float) struct Half;

impl Format for Half {
    const EXPONENT_BITS: u32 = 5;
    const FRACTION_BITS: u32 = 10;
}

impl Format for f32 {
    const EXPONENT_BITS: u32 = 8;
    const FRACTION_BITS: u32 = 23;
}

impl Format for f64 {
    const EXPONENT_BITS: u32 = 11;
    const FRACTION_BITS: u32 = 52;
}

/// A number other than zero: ±`significand` × 2^`exponent`.
///
/// As the input of rounding, the lowest bit of a significand of at least [`Format::PRECISION`] + 2
/// bits may be *sticky*: set, it stands for any amount strictly within one unit of it.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
}

impl Number {
    /// The same number with bit 127 of the significand set.
    pub fn normalised(self) -> Self {
        let shift = self.significand.leading_zeros();
        Self {
            exponent: self.exponent - shift as i32,
            significand: self.significand << shift,
            ..self
        }
    }
}

/// An encoding taken apart.
#[derive(Clone, Copy)]
pub(super) enum Operand {
    Zero { negative: bool },
    Finite(Number),
    Infinite { negative: bool },
    Nan,
}

pub(super) fn unpack<F: Format>(bits: u64) -> Operand {
    let negative = bits & F::SIGN != 0;
    let fraction = bits & ((1 << F::FRACTION_BITS) - 1);
    let field = (bits & F::INFINITY) >> F::FRACTION_BITS;
    if bits & F::INFINITY == F::INFINITY {
        if fraction == 0 {
            Operand::Infinite { negative }
        } else {
            Operand::Nan
        }
    } else if field == 0 && fraction == 0 {
        Operand::Zero { negative }
    } else {
        let hidden = if field == 0 { 0 } else { 1 << F::FRACTION_BITS };
        Operand::Finite(Number {
            negative,
            exponent: field.max(1) as i32 - F::BIAS - F::FRACTION_BITS as i32,
            significand: u128::from(hidden | fraction),
        })
    }
}

pub(super) fn is_nan<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN > F::INFINITY
}

pub(super) fn is_signaling_nan<F: Format>(bits: u64) -> bool {
    is_nan::<F>(bits) && bits & F::QUIET == 0
}

pub(super) fn zero<F: Format>(negative: bool) -> u64 {
    if negative { F::SIGN } else { 0 }
}

pub(super) fn infinity<F: Format>(negative: bool) -> u64 {
    zero::<F>(negative) | F::INFINITY
}

/// The sign of a sum of two numbers that cancel exactly (IEEE 754-2019, 6.3).
pub(super) fn exact_zero<F: Format>(rm: RoundingMode) -> u64 {
    zero::<F>(rm == RoundingMode::Down)
}

/// The result of an operation on `operands`, of which at least one is a NaN.
pub(super) fn nan<F: Format>(operands: &[u64], flags: &mut Flags) -> u64 {
    if operands.iter().any(|&bits| is_signaling_nan::<F>(bits)) {
        flags.raise(Flags::INVALID);
    }
    F::CANONICAL_NAN
}

/// The result of an operation that is invalid for reasons other than a signaling NaN.
pub(super) fn invalid<F: Format>(flags: &mut Flags) -> u64 {
    flags.raise(Flags::INVALID);
    F::CANONICAL_NAN
}
