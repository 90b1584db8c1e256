//! Rounding a number to a precision, to a range of exponents, or to an integer.

use super::number::{Number, shift_right_sticky};

/// The rounding control of MXCSR and of the x87 control word (volume 1, table 4-8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// To the nearest, ties to even.
    Nearest,
    /// Toward negative infinity.
    Down,
    /// Toward positive infinity.
    Up,
    /// Toward zero.
    Zero,
}

impl Rounding {
    /// From the two bits of a rounding control.
    #[inline]
    #[must_use]
    pub const fn from_control(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }

    /// Whether an overflow gives infinity, not the largest finite number (table 4-10).
    pub(crate) const fn overflows_to_infinity(self, negative: bool) -> bool {
        match self {
            Self::Nearest => true,
            Self::Down => negative,
            Self::Up => !negative,
            Self::Zero => false,
        }
    }
}

/// How many bits a result keeps and which exponents its leading bit may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    /// Significant bits, the leading one included: at most 64.
    pub precision: u32,
    /// Exponent of the leading bit of the smallest normal number.
    pub min_exponent: i32,
    /// Exponent of the leading bit of the largest finite number.
    pub max_exponent: i32,
}

/// A rounded number: ±`significand` × 2^(`exponent` - 63).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounded {
    pub negative: bool,
    /// Bit 63 is the leading bit, unless the number is subnormal or zero.
    pub significand: u64,
    /// Exponent of bit 63.
    pub exponent: i32,
    /// Rounding changed the value.
    pub inexact: bool,
    /// Rounding made the magnitude larger.
    pub away: bool,
    /// With an exponent without bounds, the rounded result would be below the normal numbers
    /// (volume 1, 4.9.1.5: tininess is detected after rounding).
    pub tiny: bool,
    /// The rounded result is above the finite numbers; exponent and significand are those of a
    /// range without bounds.
    pub overflow: bool,
}

/// Drops the lowest `count` bits (0 to 127) of a magnitude and rounds what stays. Also tells
/// whether that lost anything and whether it went away from zero.
fn round_off(
    magnitude: u128,
    count: u32,
    negative: bool,
    rounding: Rounding,
) -> (u128, bool, bool) {
    if count == 0 {
        return (magnitude, false, false);
    }
    let kept = magnitude >> count;
    let remainder = magnitude & ((1 << count) - 1);
    let half = 1 << (count - 1);
    let away = match rounding {
        Rounding::Nearest => remainder > half || (remainder == half && kept & 1 == 1),
        Rounding::Zero => false,
        Rounding::Down => negative && remainder != 0,
        Rounding::Up => !negative && remainder != 0,
    };
    (kept + u128::from(away), remainder != 0, away)
}

/// Rounds to `precision` bits, with an exponent without bounds.
pub(crate) fn round_unbounded(number: Number, precision: u32, rounding: Rounding) -> Rounded {
    let Number {
        negative,
        exponent,
        significand,
    } = number.normalised();
    let (kept, inexact, away) = round_off(significand, 128 - precision, negative, rounding);
    let carry = kept >> precision != 0;
    let kept = if carry { kept >> 1 } else { kept };
    Rounded {
        negative,
        significand: (kept as u64) << (64 - precision),
        exponent: exponent + 127 + i32::from(carry),
        inexact,
        away,
        tiny: false,
        overflow: false,
    }
}

/// Rounds to a range: subnormal where the number is below it, flagged where it is above.
pub(crate) fn round(number: Number, range: Range, rounding: Rounding) -> Rounded {
    let unbounded = round_unbounded(number, range.precision, rounding);
    let tiny = unbounded.exponent < range.min_exponent;
    if number.leading() >= range.min_exponent {
        return Rounded {
            overflow: unbounded.exponent > range.max_exponent,
            ..unbounded
        };
    }
    let number = number.normalised();
    let distance = range.min_exponent - (number.exponent + 127);
    let aligned = shift_right_sticky(number.significand, distance.unsigned_abs());
    let (kept, inexact, away) =
        round_off(aligned, 128 - range.precision, number.negative, rounding);
    Rounded {
        negative: number.negative,
        significand: (kept as u64) << (64 - range.precision),
        exponent: range.min_exponent,
        inexact,
        away,
        tiny,
        overflow: false,
    }
}

/// The integer next to `number`, as its magnitude, with inexact and away; nothing where the
/// magnitude is 2^64 or more before rounding.
pub(crate) fn round_to_integer(number: Number, rounding: Rounding) -> Option<(u128, bool, bool)> {
    const FRACTION_BITS: u32 = 62;
    if number.leading() >= 64 {
        return None;
    }
    let number = number.normalised();
    // The leading bit is below 2^64, so that the point can only move to the left.
    let distance = (-(number.exponent + FRACTION_BITS as i32)) as u32;
    let fixed = shift_right_sticky(number.significand, distance);
    Some(round_off(fixed, FRACTION_BITS, number.negative, rounding))
}
