//! Conversions between the formats and to and from integers, in integers.

use core::ops::RangeInclusive;

use super::format::{Format, Number, Operand, infinity, nan, unpack, zero};
use super::round::{round, round_off, shift_right_sticky};
use crate::float::{Flags, RoundingMode};

/// From one format to another.
#[inline(never)]
pub(in crate::float) fn convert<From: Format, To: Format>(
    bits: u64,
    rm: RoundingMode,
    flags: &mut Flags,
) -> u64 {
    match unpack::<From>(bits) {
        Operand::Nan => {
            nan::<From>(&[bits], flags);
            To::CANONICAL_NAN
        }
        Operand::Infinite { negative } => infinity::<To>(negative),
        Operand::Zero { negative } => zero::<To>(negative),
        Operand::Finite(number) => round::<To>(number, rm, flags),
    }
}

/// To the integers of `range`. What does not fit after rounding, and a NaN, is invalid (and then
/// not inexact), and gives the bound on its side, a NaN the upper one (table "Domains of
/// float-to-integer conversions and behavior for invalid inputs").
#[inline(never)]
pub(in crate::float) fn to_integer<F: Format>(
    bits: u64,
    range: RangeInclusive<i128>,
    rm: RoundingMode,
    flags: &mut Flags,
) -> i128 {
    let (integer, inexact) = match unpack::<F>(bits) {
        Operand::Zero { .. } => return 0,
        Operand::Nan | Operand::Infinite { negative: false } => (i128::MAX, false),
        Operand::Infinite { negative: true } => (i128::MIN, false),
        Operand::Finite(number) => round_to_integer(number, rm),
    };
    if range.contains(&integer) {
        if inexact {
            flags.raise(Flags::INEXACT);
        }
        return integer;
    }
    flags.raise(Flags::INVALID);
    if integer < 0 {
        *range.start()
    } else {
        *range.end()
    }
}

/// The rounded number, and whether rounding changed it; the extreme of its sign where it is far
/// too large for 64 bits.
fn round_to_integer(number: Number, rm: RoundingMode) -> (i128, bool) {
    /// Bits below the binary point that take part in rounding; what is below them is sticky.
    const FRACTION_BITS: u32 = 32;
    const INTEGER_BITS: i32 = 64;
    let Number {
        negative,
        exponent,
        significand,
    } = number;
    if exponent + (128 - significand.leading_zeros()) as i32 > INTEGER_BITS {
        return (if negative { i128::MIN } else { i128::MAX }, false);
    }
    let fixed = significand << FRACTION_BITS;
    let fixed = if exponent >= 0 {
        fixed << exponent
    } else {
        shift_right_sticky(fixed, exponent.unsigned_abs())
    };
    let (magnitude, inexact) = round_off(fixed, FRACTION_BITS, negative, rm);
    let magnitude = magnitude as i128;
    (if negative { -magnitude } else { magnitude }, inexact)
}

/// From an integer of at most 64 bits and its sign.
#[inline(never)]
pub(in crate::float) fn from_integer<F: Format>(
    integer: i128,
    rm: RoundingMode,
    flags: &mut Flags,
) -> u64 {
    if integer == 0 {
        return 0;
    }
    let significand = integer.unsigned_abs();
    round::<F>(
        Number {
            negative: integer < 0,
            exponent: 0,
            significand,
        },
        rm,
        flags,
    )
}
