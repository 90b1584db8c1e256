//! Arithmetic on registers.

use super::environment::Environment;
use crate::float::{self, DoubleExtended, Number, Operand, Rounding, flags};

/// FADD.
pub(super) fn add(e: &mut Environment, a: DoubleExtended, b: DoubleExtended) -> DoubleExtended {
    let operands = match e.operands(a, b) {
        Ok(operands) => operands,
        Err(result) => return result,
    };
    if a.is_infinite() && b.is_infinite() && a.negative() != b.negative() {
        return e.invalid();
    }
    e.denormal(a);
    e.denormal(b);
    let cancelled = DoubleExtended::zero(e.rounding == Rounding::Down);
    match operands {
        (Operand::Infinite { negative }, _) | (_, Operand::Infinite { negative }) => {
            DoubleExtended::infinity(negative)
        }
        (Operand::Zero { negative: x }, Operand::Zero { negative: y }) if x == y => {
            DoubleExtended::zero(x)
        }
        (Operand::Finite(x), Operand::Finite(y)) => match float::add(x, y) {
            Some(sum) => e.finish(sum),
            None => cancelled,
        },
        (Operand::Finite(number), _) | (_, Operand::Finite(number)) => e.finish(number),
        _ => cancelled,
    }
}

/// FSUB.
pub(super) fn subtract(
    e: &mut Environment,
    a: DoubleExtended,
    b: DoubleExtended,
) -> DoubleExtended {
    // A NaN keeps its sign.
    let b = if b.is_nan() { b } else { b.negated() };
    add(e, a, b)
}

/// FMUL.
pub(super) fn multiply(
    e: &mut Environment,
    a: DoubleExtended,
    b: DoubleExtended,
) -> DoubleExtended {
    let operands = match e.operands(a, b) {
        Ok(operands) => operands,
        Err(result) => return result,
    };
    if a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite() {
        return e.invalid();
    }
    e.denormal(a);
    e.denormal(b);
    let negative = a.negative() != b.negative();
    match operands {
        (Operand::Finite(x), Operand::Finite(y)) => e.finish(float::multiply(x, y)),
        (Operand::Infinite { .. }, _) | (_, Operand::Infinite { .. }) => {
            DoubleExtended::infinity(negative)
        }
        _ => DoubleExtended::zero(negative),
    }
}

/// FDIV.
pub(super) fn divide(e: &mut Environment, a: DoubleExtended, b: DoubleExtended) -> DoubleExtended {
    let operands = match e.operands(a, b) {
        Ok(operands) => operands,
        Err(result) => return result,
    };
    if a.is_infinite() && b.is_infinite() || a.is_zero() && b.is_zero() {
        return e.invalid();
    }
    if !b.is_zero() {
        e.denormal(a);
    }
    e.denormal(b);
    let negative = a.negative() != b.negative();
    match operands {
        (Operand::Finite(x), Operand::Finite(y)) => e.finish(float::divide(x, y)),
        (Operand::Finite(_), Operand::Zero { .. }) => {
            e.raise(flags::DIVIDE_BY_ZERO);
            DoubleExtended::infinity(negative)
        }
        (Operand::Infinite { .. }, _) => DoubleExtended::infinity(negative),
        _ => DoubleExtended::zero(negative),
    }
}

/// FSQRT.
pub(super) fn square_root(e: &mut Environment, a: DoubleExtended) -> DoubleExtended {
    if !a.is_unsupported() && !a.is_nan() && a.negative() && !a.is_zero() {
        return e.invalid();
    }
    match e.operand(a) {
        Ok(Operand::Finite(number)) => e.finish(float::square_root(number)),
        Ok(_) => a,
        Err(result) => result,
    }
}

/// FRNDINT.
pub(super) fn round_to_integral(e: &mut Environment, a: DoubleExtended) -> DoubleExtended {
    let number = match e.operand(a) {
        Ok(Operand::Finite(number)) => number,
        Ok(_) => return a,
        Err(result) => return result,
    };
    if number.exponent >= 0 {
        return a;
    }
    let Some((magnitude, inexact, away)) = float::round_to_integer(number, e.rounding) else {
        return a;
    };
    if inexact {
        e.raise(flags::PRECISION);
        e.away = away;
    }
    if magnitude == 0 {
        return DoubleExtended::zero(number.negative);
    }
    let integer = Number {
        exponent: 0,
        significand: magnitude,
        ..number
    };
    DoubleExtended::pack(float::round(integer, DoubleExtended::RANGE, Rounding::Zero))
}

/// FSCALE: `a` × 2^trunc(`b`).
pub(super) fn scale(e: &mut Environment, a: DoubleExtended, b: DoubleExtended) -> DoubleExtended {
    /// More than any scale that leaves a finite number finite and not zero.
    const LIMIT: u128 = 0x1_0000;
    let operands = match e.operands(a, b) {
        Ok(operands) => operands,
        Err(result) => return result,
    };
    if b.is_infinite() && (a.is_zero() && !b.negative() || a.is_infinite() && b.negative()) {
        return e.invalid();
    }
    e.denormal(a);
    e.denormal(b);
    let negative = a.negative();
    match operands {
        (Operand::Finite(_), Operand::Infinite { negative: down }) => {
            if down {
                DoubleExtended::zero(negative)
            } else {
                DoubleExtended::infinity(negative)
            }
        }
        (Operand::Finite(x), y) => {
            let scale = match y {
                Operand::Finite(y) => {
                    let magnitude = float::round_to_integer(y, Rounding::Zero)
                        .map_or(LIMIT, |(magnitude, _, _)| magnitude.min(LIMIT));
                    let magnitude = magnitude as i32;
                    if y.negative { -magnitude } else { magnitude }
                }
                _ => 0,
            };
            let scaled = Number {
                exponent: x.exponent + scale,
                ..x
            };
            e.finish_with(scaled, 64)
        }
        _ => a,
    }
}

/// FXTRACT: the exponent and the significand.
pub(super) fn extract(e: &mut Environment, a: DoubleExtended) -> (DoubleExtended, DoubleExtended) {
    match e.operand(a) {
        Ok(Operand::Finite(number)) => {
            let leading = number.leading();
            let significand = Number {
                exponent: number.exponent - leading,
                ..number
            };
            let exponent = super::conversion::from_integer(leading.into());
            let significand = float::round(significand, DoubleExtended::RANGE, Rounding::Zero);
            (exponent, DoubleExtended::pack(significand))
        }
        Ok(Operand::Zero { .. }) => {
            e.raise(flags::DIVIDE_BY_ZERO);
            (DoubleExtended::infinity(true), a)
        }
        Ok(_) => (DoubleExtended::infinity(false), a),
        Err(result) => (result, result),
    }
}

/// What FPREM and FPREM1 found.
pub(super) struct Remainder {
    pub value: DoubleExtended,
    pub quotient: Quotient,
}

/// What the condition codes tell of a remainder.
pub(super) enum Quotient {
    /// Its lowest three bits: the reduction is complete.
    Complete(u8),
    /// The reduction is not complete: C2.
    Partial,
    /// There is none: a NaN.
    None,
}

/// FPREM (`nearest` false) and FPREM1 (true).
pub(super) fn remainder(
    e: &mut Environment,
    a: DoubleExtended,
    b: DoubleExtended,
    nearest: bool,
) -> Remainder {
    let whole = |value| Remainder {
        value,
        quotient: Quotient::Complete(0),
    };
    let none = |value| Remainder {
        value,
        quotient: Quotient::None,
    };
    let operands = match e.operands(a, b) {
        Ok(operands) => operands,
        Err(result) => return none(result),
    };
    if a.is_infinite() || b.is_zero() {
        return none(e.invalid());
    }
    e.denormal(a);
    e.denormal(b);
    let (Operand::Finite(x), Operand::Finite(y)) = operands else {
        // Zero by a number, or a number by infinity.
        return match operands {
            (Operand::Finite(x), _) => whole(e.finish_with(x, 64)),
            _ => whole(a),
        };
    };
    let distance = x.leading() - y.leading();
    if distance < 0 && !(nearest && distance == -1) {
        return whole(e.finish_with(x, 64));
    }
    let dividend = top(x);
    let divisor = u128::from(top(y));
    // The exponent of the lowest bit of the normalised divisor.
    let unit = y.leading() - 63;
    if distance >= 64 {
        // Reduced by 32 to 63 bits at once.
        let bits = (distance & 31) as u32 | 32;
        let (_, rest) = long_division(dividend, divisor, bits);
        let value = partial(e, x.negative, rest, unit + distance - bits as i32);
        return Remainder {
            value,
            quotient: Quotient::Partial,
        };
    }
    let (mut quotient, mut rest, unit) = if distance < 0 {
        // Half a divisor or more, less than one: in units of half the lowest bit.
        (0, u128::from(dividend), unit - 1)
    } else {
        let (quotient, rest) = long_division(dividend, divisor, distance as u32);
        (quotient, rest, unit)
    };
    let mut negative = x.negative;
    if nearest {
        let divisor = if distance < 0 { divisor << 1 } else { divisor };
        let twice = rest << 1;
        if twice > divisor || twice == divisor && quotient & 1 == 1 {
            rest = divisor - rest;
            quotient += 1;
            negative = !negative;
        }
    }
    let value = if rest == 0 {
        DoubleExtended::zero(x.negative)
    } else {
        partial(e, negative, rest, unit)
    };
    Remainder {
        value,
        quotient: Quotient::Complete(quotient as u8 & 7),
    }
}

/// `dividend` × 2^`bits` divided by `divisor`, both with bit 63 set, `bits` at most 63: the
/// quotient and the rest.
fn long_division(dividend: u64, divisor: u128, bits: u32) -> (u128, u128) {
    let dividend = u128::from(dividend) << bits;
    (dividend / divisor, dividend % divisor)
}

fn partial(e: &mut Environment, negative: bool, rest: u128, exponent: i32) -> DoubleExtended {
    if rest == 0 {
        return DoubleExtended::zero(negative);
    }
    let number = Number {
        negative,
        exponent,
        significand: rest,
    };
    e.finish_with(number, 64)
}

/// The significand with its leading bit at bit 63.
fn top(x: Number) -> u64 {
    (x.normalised().significand >> 64) as u64
}
