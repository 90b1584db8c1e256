//! The arithmetic in integers: exact, for every format, rounding mode and flag.

use super::format::{Format, Number, Operand, exact_zero, infinity, invalid, nan, unpack, zero};
use super::round::{round, shift_right_sticky};
use crate::float::{Flags, RoundingMode};

/// Room above a normalised significand for the carry of an addition.
const CARRY_BITS: u32 = 1;

/// `a` + `b`.
#[inline(never)]
pub(in crate::float) fn add<F: Format>(a: u64, b: u64, rm: RoundingMode, flags: &mut Flags) -> u64 {
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Operand::Nan, _) | (_, Operand::Nan) => nan::<F>(&[a, b], flags),
        (Operand::Infinite { negative: x }, Operand::Infinite { negative: y }) if x != y => {
            invalid::<F>(flags)
        }
        (Operand::Infinite { .. }, _) => a,
        (_, Operand::Infinite { .. }) => b,
        (Operand::Zero { negative: x }, Operand::Zero { negative: y }) => {
            if x == y {
                a
            } else {
                exact_zero::<F>(rm)
            }
        }
        (Operand::Zero { .. }, _) => b,
        (_, Operand::Zero { .. }) => a,
        (Operand::Finite(x), Operand::Finite(y)) => sum::<F>(x, y, rm, flags),
    }
}

/// `a` × `b`.
#[inline(never)]
pub(in crate::float) fn mul<F: Format>(a: u64, b: u64, rm: RoundingMode, flags: &mut Flags) -> u64 {
    let negative = (a ^ b) & F::SIGN != 0;
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Operand::Nan, _) | (_, Operand::Nan) => nan::<F>(&[a, b], flags),
        (Operand::Infinite { .. }, Operand::Zero { .. })
        | (Operand::Zero { .. }, Operand::Infinite { .. }) => invalid::<F>(flags),
        (Operand::Infinite { .. }, _) | (_, Operand::Infinite { .. }) => infinity::<F>(negative),
        (Operand::Zero { .. }, _) | (_, Operand::Zero { .. }) => zero::<F>(negative),
        (Operand::Finite(x), Operand::Finite(y)) => round::<F>(product(x, y), rm, flags),
    }
}

/// `a` ÷ `b`.
#[inline(never)]
pub(in crate::float) fn div<F: Format>(a: u64, b: u64, rm: RoundingMode, flags: &mut Flags) -> u64 {
    let negative = (a ^ b) & F::SIGN != 0;
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Operand::Nan, _) | (_, Operand::Nan) => nan::<F>(&[a, b], flags),
        (Operand::Infinite { .. }, Operand::Infinite { .. })
        | (Operand::Zero { .. }, Operand::Zero { .. }) => invalid::<F>(flags),
        (Operand::Infinite { .. }, _) => infinity::<F>(negative),
        (_, Operand::Infinite { .. }) | (Operand::Zero { .. }, _) => zero::<F>(negative),
        (_, Operand::Zero { .. }) => {
            flags.raise(Flags::DIVIDE_BY_ZERO);
            infinity::<F>(negative)
        }
        (Operand::Finite(x), Operand::Finite(y)) => round::<F>(quotient(x, y), rm, flags),
    }
}

/// The square root of `a`.
#[inline(never)]
pub(in crate::float) fn sqrt<F: Format>(a: u64, rm: RoundingMode, flags: &mut Flags) -> u64 {
    match unpack::<F>(a) {
        Operand::Nan => nan::<F>(&[a], flags),
        Operand::Zero { .. } | Operand::Infinite { negative: false } => a,
        Operand::Infinite { negative: true } | Operand::Finite(Number { negative: true, .. }) => {
            invalid::<F>(flags)
        }
        Operand::Finite(x) => round::<F>(square_root(x), rm, flags),
    }
}

/// `a` × `b` + `c`, rounded once.
#[inline(never)]
pub(in crate::float) fn fma<F: Format>(
    a: u64,
    b: u64,
    c: u64,
    rm: RoundingMode,
    flags: &mut Flags,
) -> u64 {
    let negative = (a ^ b) & F::SIGN != 0;
    let (x, y, z) = (unpack::<F>(a), unpack::<F>(b), unpack::<F>(c));
    match (x, y, z) {
        // Invalid even when `c` is a quiet NaN ("F", section on the fused multiply-add).
        (Operand::Infinite { .. }, Operand::Zero { .. }, _)
        | (Operand::Zero { .. }, Operand::Infinite { .. }, _) => invalid::<F>(flags),
        (Operand::Nan, _, _) | (_, Operand::Nan, _) | (_, _, Operand::Nan) => {
            nan::<F>(&[a, b, c], flags)
        }
        (Operand::Infinite { .. }, _, _) | (_, Operand::Infinite { .. }, _) => {
            add::<F>(infinity::<F>(negative), c, rm, flags)
        }
        (Operand::Zero { .. }, _, _) | (_, Operand::Zero { .. }, _) => {
            add::<F>(zero::<F>(negative), c, rm, flags)
        }
        (_, _, Operand::Infinite { .. }) => c,
        (Operand::Finite(x), Operand::Finite(y), Operand::Zero { .. }) => {
            round::<F>(product(x, y), rm, flags)
        }
        (Operand::Finite(x), Operand::Finite(y), Operand::Finite(z)) => {
            sum::<F>(product(x, y), z, rm, flags)
        }
    }
}

/// The exact product of two significands of at most 64 bits each.
fn product(x: Number, y: Number) -> Number {
    Number {
        negative: x.negative != y.negative,
        exponent: x.exponent + y.exponent,
        significand: x.significand * y.significand,
    }
}

/// The rounded sum of two numbers whose significands have at most 106 bits (the product of two
/// doubles'), none of them sticky.
///
/// Where the smaller one has to be shifted by more than its free low bits, it is at least 2^20
/// times smaller, so that the difference keeps its leading bits and the sticky bit stays far below
/// those that are rounded to.
fn sum<F: Format>(x: Number, y: Number, rm: RoundingMode, flags: &mut Flags) -> u64 {
    let (x, y) = (x.normalised(), y.normalised());
    let (large, small) = if (x.exponent, x.significand) >= (y.exponent, y.significand) {
        (x, y)
    } else {
        (y, x)
    };
    let distance = large.exponent.abs_diff(small.exponent);
    let aligned = shift_right_sticky(small.significand >> CARRY_BITS, distance);
    let base = large.significand >> CARRY_BITS;
    let significand = if large.negative == small.negative {
        base + aligned
    } else {
        base - aligned
    };
    if significand == 0 {
        return exact_zero::<F>(rm);
    }
    let exponent = large.exponent + CARRY_BITS as i32;
    round::<F>(
        Number {
            negative: large.negative,
            exponent,
            significand,
        },
        rm,
        flags,
    )
}

/// The quotient to at least 63 bits, the lowest one sticky.
fn quotient(x: Number, y: Number) -> Number {
    // The dividend has its leading bit at 126, the divisor at 63.
    const DIVIDEND_SHIFT: u32 = 1;
    const DIVISOR_SHIFT: u32 = 64;
    let (x, y) = (x.normalised(), y.normalised());
    let dividend = x.significand >> DIVIDEND_SHIFT;
    let divisor = y.significand >> DIVISOR_SHIFT;
    let quotient = dividend / divisor;
    let sticky = u128::from(quotient * divisor != dividend);
    Number {
        negative: x.negative != y.negative,
        exponent: x.exponent + DIVIDEND_SHIFT as i32 - y.exponent - DIVISOR_SHIFT as i32,
        significand: quotient | sticky,
    }
}

/// The root of a positive number to 64 bits, the lowest one sticky.
fn square_root(x: Number) -> Number {
    let x = x.normalised();
    // The exponent has to be even for its half to be one. The low bits of the significand are free.
    let odd = x.exponent & 1;
    let radicand = x.significand >> odd;
    let root = radicand.isqrt();
    let sticky = u128::from(root * root != radicand);
    Number {
        negative: false,
        exponent: (x.exponent + odd) / 2,
        significand: root | sticky,
    }
}
