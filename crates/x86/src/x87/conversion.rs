//! Between registers and what memory holds: single, double, integers, packed decimals.

use super::environment::Environment;
use crate::float::{self, DoubleExtended, Interchange, Number, Operand, Rounding, flags};

/// What memory holds in another format, widened: exact, and a signaling NaN stays one.
pub(super) fn widen<F: Interchange>(bits: u64) -> DoubleExtended {
    let negative = F::negative(bits);
    match F::unpack(bits) {
        Operand::Zero { .. } => DoubleExtended::zero(negative),
        Operand::Infinite { .. } => DoubleExtended::infinity(negative),
        Operand::Finite(number) => exact(number),
        Operand::Nan => {
            let payload = (bits & (F::MIN_NORMAL - 1)) << (63 - F::FRACTION_BITS);
            DoubleExtended::new(0x7fff, 1 << 63 | payload).with_sign(negative)
        }
    }
}

/// A number that the format holds exactly.
fn exact(number: Number) -> DoubleExtended {
    DoubleExtended::pack(float::round(number, DoubleExtended::RANGE, Rounding::Zero))
}

/// FST m32fp, FST m64fp. What is stored where overflow or underflow is not masked is nothing: the
/// caller sees what was raised.
pub(super) fn to_interchange<F: Interchange>(e: &mut Environment, a: DoubleExtended) -> u64 {
    if a.is_unsupported() {
        e.raise(flags::INVALID);
        return F::INDEFINITE;
    }
    match a.unpack() {
        Operand::Zero { negative } => F::zero(negative),
        Operand::Infinite { negative } => F::infinity(negative),
        Operand::Nan => {
            if a.is_signaling() {
                e.raise(flags::INVALID);
            }
            let payload = a.significand << 1 >> (64 - F::FRACTION_BITS);
            F::infinity(a.negative()) | F::QUIET | payload
        }
        Operand::Finite(number) => {
            let rounded = float::round(number, F::RANGE, e.rounding);
            e.away = rounded.away;
            if rounded.overflow {
                e.raise(flags::OVERFLOW);
                if e.masked(flags::OVERFLOW) || rounded.inexact {
                    e.raise(flags::PRECISION);
                }
                e.away = e.rounding.overflows_to_infinity(rounded.negative);
                return F::infinity(rounded.negative) - u64::from(!e.away);
            }
            if rounded.inexact {
                e.raise(flags::PRECISION);
            }
            if rounded.tiny && (rounded.inexact || !e.masked(flags::UNDERFLOW)) {
                e.raise(flags::UNDERFLOW);
            }
            F::pack(rounded)
        }
    }
}

/// FILD: exact.
pub(super) fn from_integer(integer: i64) -> DoubleExtended {
    if integer == 0 {
        return DoubleExtended::zero(false);
    }
    exact(Number {
        negative: integer < 0,
        exponent: 0,
        significand: integer.unsigned_abs().into(),
    })
}

/// FIST, FISTP and FISTTP: to a signed integer of `bits` bits, 80...0H where it does not fit.
pub(super) fn to_integer(
    e: &mut Environment,
    a: DoubleExtended,
    bits: u32,
    rounding: Rounding,
) -> i64 {
    let indefinite = i64::MIN >> (64 - bits);
    let fits = |magnitude: u128, negative: bool| {
        let limit = u128::from(indefinite.unsigned_abs()) - u128::from(!negative);
        magnitude <= limit
    };
    match integral(a, rounding) {
        Some((negative, magnitude, inexact, away)) if fits(magnitude, negative) => {
            if inexact {
                e.raise(flags::PRECISION);
                e.away = away;
            }
            let magnitude = magnitude as u64 as i64;
            if negative {
                magnitude.wrapping_neg()
            } else {
                magnitude
            }
        }
        _ => {
            e.raise(flags::INVALID);
            indefinite
        }
    }
}

/// Sign, magnitude, inexact and away of the integer next to `a`; nothing where there is none below
/// 2^64.
fn integral(a: DoubleExtended, rounding: Rounding) -> Option<(bool, u128, bool, bool)> {
    if a.is_unsupported() {
        return None;
    }
    match a.unpack() {
        Operand::Zero { negative } => Some((negative, 0, false, false)),
        Operand::Finite(number) => {
            let (magnitude, inexact, away) = float::round_to_integer(number, rounding)?;
            Some((number.negative, magnitude, inexact, away))
        }
        Operand::Infinite { .. } | Operand::Nan => None,
    }
}

/// FBLD: eighteen decimal digits and a sign. What digits above nine stand for is undefined; here
/// they count as they are.
pub(super) fn from_decimal(bits: u128) -> DoubleExtended {
    let magnitude = (0..18).rev().fold(0u64, |sum, i| {
        let digit = (bits >> (4 * i)) as u64 & 15;
        sum * 10 + digit
    });
    let negative = bits >> 79 & 1 != 0;
    if magnitude == 0 {
        return DoubleExtended::zero(negative);
    }
    exact(Number {
        negative,
        exponent: 0,
        significand: magnitude.into(),
    })
}

/// The packed decimal indefinite (volume 1, table 4-4).
pub(super) const DECIMAL_INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// FBSTP: the indefinite where it does not fit.
pub(super) fn to_decimal(e: &mut Environment, a: DoubleExtended) -> u128 {
    const LIMIT: u128 = 999_999_999_999_999_999;
    match integral(a, e.rounding) {
        Some((negative, magnitude, inexact, away)) if magnitude <= LIMIT => {
            if inexact {
                e.raise(flags::PRECISION);
                e.away = away;
            }
            let mut rest = magnitude as u64;
            let digits = (0..18).fold(0, |bits, i| {
                let digit = u128::from(rest % 10);
                rest /= 10;
                bits | digit << (4 * i)
            });
            digits | u128::from(negative) << 79
        }
        _ => {
            e.raise(flags::INVALID);
            DECIMAL_INDEFINITE
        }
    }
}
