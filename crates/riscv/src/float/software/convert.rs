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

/// To an integral number of the same format. Tells whether that changed it; a zero keeps its sign.
#[inline(never)]
pub(in crate::float) fn round_to_integral<F: Format>(
    bits: u64,
    rm: RoundingMode,
    flags: &mut Flags,
) -> (u64, bool) {
    match unpack::<F>(bits) {
        Operand::Nan => (nan::<F>(&[bits], flags), false),
        Operand::Infinite { .. } | Operand::Zero { .. } => (bits, false),
        // It has no bits below the binary point.
        Operand::Finite(number) if number.exponent >= 0 => (bits, false),
        Operand::Finite(number) => match round_to_integer(number, rm) {
            (0, inexact) => (zero::<F>(number.negative), inexact),
            (integer, inexact) => {
                // At most as many bits as the format has: exact.
                let integral = from_integer::<F>(integer, rm, &mut { Flags::NONE });
                (integral, inexact)
            }
        },
    }
}

/// `FCVTMOD.W.D`: towards zero and modulo 2^32, as JavaScript does. What is no 32-bit integer is invalid
/// all the same (and then not inexact), and what is no number gives 0.
#[inline(never)]
pub(in crate::float) fn to_word_modular<F: Format>(bits: u64, flags: &mut Flags) -> i32 {
    let Operand::Finite(Number {
        negative,
        exponent,
        significand,
    }) = unpack::<F>(bits)
    else {
        if !matches!(unpack::<F>(bits), Operand::Zero { .. }) {
            flags.raise(Flags::INVALID);
        }
        return 0;
    };
    let magnitude = match exponent {
        // Multiples of 2^32: a significand has less than 64 bits.
        64.. => 0,
        0.. => significand << exponent,
        _ => significand
            .checked_shr(exponent.unsigned_abs())
            .unwrap_or(0),
    };
    let fits = exponent < 64 && magnitude <= i32::MAX as u128 + u128::from(negative);
    if !fits {
        flags.raise(Flags::INVALID);
    } else if exponent < 0 && magnitude.checked_shl(exponent.unsigned_abs()) != Some(significand) {
        flags.raise(Flags::INEXACT);
    }
    let word = magnitude as u32;
    (if negative { word.wrapping_neg() } else { word }) as i32
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
