//! One lane of SSE conversions.

use super::float::finish;
use super::mxcsr::Environment;
use crate::float::{self, Interchange, Number, Operand, Rounding, flags};

/// CVTSI2SS and its like: from a signed integer.
pub(super) fn from_integer<F: Interchange>(environment: &mut Environment, integer: i64) -> u64 {
    if integer.unsigned_abs() < 2 * F::MIN_NORMAL {
        return F::host_from_integer(integer);
    }
    let number = Number {
        negative: integer < 0,
        exponent: 0,
        significand: integer.unsigned_abs().into(),
    };
    finish::<F>(environment, number)
}

/// CVTSD2SS, CVTSS2SD: from one format to the other.
pub(super) fn convert<From: Interchange, To: Interchange>(
    environment: &mut Environment,
    bits: u64,
) -> u64 {
    let negative = From::negative(bits);
    let magnitude = From::magnitude(bits);
    if From::BITS < To::BITS && From::MIN_NORMAL <= magnitude && magnitude < From::INFINITY {
        // A normal number widens by fields.
        let rebias = (To::BIAS - From::BIAS) as u64;
        let fields = magnitude << (To::FRACTION_BITS - From::FRACTION_BITS);
        return To::zero(negative) | (fields + (rebias << To::FRACTION_BITS));
    }
    if From::is_nan(bits) {
        if From::is_signaling(bits) {
            environment.raise(flags::INVALID);
        }
        // The payload keeps its leading bits.
        let fraction = u128::from(bits & (From::MIN_NORMAL - 1)) << 64 >> From::FRACTION_BITS;
        let fraction = (fraction << To::FRACTION_BITS >> 64) as u64;
        return To::infinity(negative) | To::QUIET | fraction;
    }
    match From::unpack(bits) {
        Operand::Zero { .. } => To::zero(negative),
        Operand::Finite(number) => {
            if From::is_denormal(bits) {
                if environment.denormals_are_zero {
                    return To::zero(negative);
                }
                environment.raise(flags::DENORMAL);
            }
            finish::<To>(environment, number)
        }
        _ => To::infinity(negative),
    }
}

/// CVTSS2SI and its like: to a signed integer of `bits` bits, in the low bits of the result. What
/// does not fit is the integer indefinite, 80...0H (volume 1, table 4-1).
pub(super) fn to_integer<F: Interchange>(
    environment: &mut Environment,
    value: u64,
    bits: u32,
    rounding: Rounding,
) -> u64 {
    let indefinite = 1 << (bits - 1);
    // Below the limit by far, and truncated: the host does the same.
    let limit = (F::BIAS as u64 + u64::from(bits) - 2) << F::FRACTION_BITS;
    if rounding == Rounding::Zero && F::magnitude(value) < limit && !F::is_denormal(value) {
        let integer = F::host_truncate(value);
        if F::host_from_integer(integer) != value && F::magnitude(value) != 0 {
            environment.raise(flags::PRECISION);
        }
        return if bits == 32 {
            integer as u32 as u64
        } else {
            integer as u64
        };
    }
    let number = match F::unpack(value) {
        Operand::Zero { .. } => return 0,
        Operand::Finite(_) if environment.denormals_are_zero && F::is_denormal(value) => return 0,
        Operand::Finite(number) => number,
        Operand::Infinite { .. } | Operand::Nan => {
            environment.raise(flags::INVALID);
            return indefinite;
        }
    };
    let limit = u128::from(indefinite) - u128::from(!number.negative);
    match float::round_to_integer(number, rounding) {
        Some((magnitude, inexact, _)) if magnitude <= limit => {
            if inexact {
                environment.raise(flags::PRECISION);
            }
            let magnitude = magnitude as u64;
            let integer = if number.negative {
                magnitude.wrapping_neg()
            } else {
                magnitude
            };
            if bits == 32 {
                integer & 0xffff_ffff
            } else {
                integer
            }
        }
        _ => {
            environment.raise(flags::INVALID);
            indefinite
        }
    }
}

/// RCPSS: see "Approximations" in `docs/decisions/x86.md`. Denormal operands are zero and tiny
/// results are zero, whatever MXCSR says; it raises nothing.
pub(super) fn reciprocal<F: Interchange>(bits: u64) -> u64 {
    approximate::<F>(bits, |operand| match operand {
        Operand::Finite(number) => Approximation::Number(float::divide(ONE, number)),
        Operand::Zero { negative } => Approximation::Exact(F::infinity(negative)),
        Operand::Infinite { negative } => Approximation::Exact(F::zero(negative)),
        Operand::Nan => Approximation::Exact(bits | F::QUIET),
    })
}

/// RSQRTSS: as [`reciprocal`].
pub(super) fn reciprocal_square_root<F: Interchange>(bits: u64) -> u64 {
    approximate::<F>(bits, |operand| match operand {
        Operand::Zero { negative } => Approximation::Exact(F::infinity(negative)),
        Operand::Nan => Approximation::Exact(bits | F::QUIET),
        _ if F::negative(bits) => Approximation::Exact(F::INDEFINITE),
        Operand::Infinite { .. } => Approximation::Exact(0),
        Operand::Finite(number) => {
            // 64 bits of the root are enough: 1/sqrt(x) of 24 bits is never closer to the middle
            // of two results than what is cut off here.
            let root = float::square_root(number).normalised();
            let root = Number {
                exponent: root.exponent + 64,
                significand: root.significand >> 64,
                ..root
            };
            Approximation::Number(float::divide(ONE, root))
        }
    })
}

const ONE: Number = Number {
    negative: false,
    exponent: 0,
    significand: 1,
};

enum Approximation {
    /// To be rounded.
    Number(Number),
    /// The encoding of the result.
    Exact(u64),
}

/// Rounds the value of `function` to 12 significant bits, the nearest, ties to even.
fn approximate<F: Interchange>(bits: u64, function: impl Fn(Operand) -> Approximation) -> u64 {
    const PRECISION: u32 = 12;
    let negative = F::negative(bits);
    let operand = if F::is_denormal(bits) {
        Operand::Zero { negative }
    } else {
        F::unpack(bits)
    };
    match function(operand) {
        Approximation::Exact(result) => result,
        Approximation::Number(number) => {
            let rounded = float::round_unbounded(number, PRECISION, Rounding::Nearest);
            if rounded.exponent < F::RANGE.min_exponent {
                F::zero(negative)
            } else {
                F::pack(rounded)
            }
        }
    }
}
