//! Rounding an exact number to a format, or to an integer.

use super::format::{Format, Number, infinity, zero};
use crate::float::{Flags, RoundingMode};

/// Shifts right by `count` bits; what is lost is kept as the sticky lowest bit.
pub(super) fn shift_right_sticky(significand: u128, count: u32) -> u128 {
    match count {
        0 => significand,
        1..128 => {
            let lost = significand << (128 - count) != 0;
            significand >> count | u128::from(lost)
        }
        _ => u128::from(significand != 0),
    }
}

/// Drops the lowest `count` bits (1 to 127) of a magnitude and rounds what stays. Also tells
/// whether that lost anything.
pub(super) fn round_off(
    magnitude: u128,
    count: u32,
    negative: bool,
    rm: RoundingMode,
) -> (u128, bool) {
    let kept = magnitude >> count;
    let remainder = magnitude & ((1 << count) - 1);
    let half = 1 << (count - 1);
    let away = match rm {
        RoundingMode::NearestEven => remainder > half || (remainder == half && kept & 1 == 1),
        RoundingMode::NearestMaxMagnitude => remainder >= half,
        RoundingMode::TowardZero => false,
        RoundingMode::Down => negative && remainder != 0,
        RoundingMode::Up => !negative && remainder != 0,
    };
    (kept + u128::from(away), remainder != 0)
}

/// Rounds `number` to the format and raises inexact, overflow and underflow as due.
pub(super) fn round<F: Format>(number: Number, rm: RoundingMode, flags: &mut Flags) -> u64 {
    let normalised = number.normalised();
    let Number {
        negative,
        exponent,
        significand,
    } = normalised;
    let leading = exponent + 127;
    let excess = 128 - F::PRECISION;
    let (kept, inexact) = round_off(significand, excess, negative, rm);
    if leading < F::MIN_EXPONENT {
        // Tininess after rounding: would the result, with an unbounded exponent, stay below the
        // smallest normal number?
        let tiny = leading < F::MIN_EXPONENT - 1 || kept >> F::PRECISION == 0;
        return round_subnormal::<F>(normalised, tiny, rm, flags);
    }
    // The leading bit of `kept` adds one to the exponent field, and a carry out of rounding another.
    let field = (leading + F::BIAS - 1) as u64;
    let magnitude = (field << F::FRACTION_BITS) + kept as u64;
    if magnitude >= F::INFINITY {
        return overflow::<F>(negative, rm, flags);
    }
    if inexact {
        flags.raise(Flags::INEXACT);
    }
    zero::<F>(negative) | magnitude
}

fn round_subnormal<F: Format>(
    normalised: Number,
    tiny: bool,
    rm: RoundingMode,
    flags: &mut Flags,
) -> u64 {
    let leading = normalised.exponent + 127;
    let aligned = shift_right_sticky(normalised.significand, (F::MIN_EXPONENT - leading) as u32);
    let (kept, inexact) = round_off(aligned, 128 - F::PRECISION, normalised.negative, rm);
    if inexact {
        flags.raise(Flags::INEXACT);
        if tiny {
            flags.raise(Flags::UNDERFLOW);
        }
    }
    // An exponent field of zero; a carry makes it one, which is the smallest normal number.
    zero::<F>(normalised.negative) | kept as u64
}

/// IEEE 754-2019, 7.4.
fn overflow<F: Format>(negative: bool, rm: RoundingMode, flags: &mut Flags) -> u64 {
    flags.raise(Flags::OVERFLOW | Flags::INEXACT);
    let to_infinity = match rm {
        RoundingMode::NearestEven | RoundingMode::NearestMaxMagnitude => true,
        RoundingMode::TowardZero => false,
        RoundingMode::Down => negative,
        RoundingMode::Up => !negative,
    };
    infinity::<F>(negative) - u64::from(!to_infinity)
}
