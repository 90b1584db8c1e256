//! One lane of SSE floating point: arithmetic, comparison and rounding, with MXCSR's exceptions.

use core::cmp::Ordering;

use super::mxcsr::Environment;
use crate::float::{self, Interchange, Number, Operand, Rounding, flags};

/// A result that the host may compute: from operands that are normal or zero; and normal itself, above
/// the smallest normal number, which may have been tiny before rounding, or an exact zero.
macro_rules! by_the_host {
    ($F:ident, $environment:ident, $host:ident($($operand:ident),+), zero if $exact_zero:expr) => {
        if $environment.host_rounds && $(!$F::is_denormal($operand))&&+ {
            let result = $F::$host($($operand),+);
            let magnitude = $F::magnitude(result);
            if $F::MIN_NORMAL < magnitude && magnitude < $F::INFINITY
                || magnitude == 0 && $exact_zero
            {
                return result;
            }
        }
    };
}

/// An operand with DAZ applied; raises denormal where it is one nonetheless.
fn operand<F: Interchange>(environment: &mut Environment, bits: u64) -> u64 {
    if !F::is_denormal(bits) {
        return bits;
    }
    if environment.denormals_are_zero {
        return F::zero(F::negative(bits));
    }
    environment.raise(flags::DENORMAL);
    bits
}

/// The NaN that an operation on `a` and `b` gives, where one of them is one (volume 1, table 4-7):
/// the first, quiet.
fn propagate<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> Option<u64> {
    if !F::is_nan(a) && !F::is_nan(b) {
        return None;
    }
    if F::is_signaling(a) || F::is_signaling(b) {
        environment.raise(flags::INVALID);
    }
    Some(if F::is_nan(a) { a } else { b } | F::QUIET)
}

fn invalid<F: Interchange>(environment: &mut Environment) -> u64 {
    environment.raise(flags::INVALID);
    F::INDEFINITE
}

/// Rounds to the format and raises what comes of it (volume 1, 11.5.2.4 to 11.5.2.6).
pub(super) fn finish<F: Interchange>(environment: &mut Environment, number: Number) -> u64 {
    let rounded = float::round(number, F::RANGE, environment.rounding);
    if rounded.overflow {
        let masked = environment.masked(flags::OVERFLOW);
        let inexact = masked || rounded.inexact;
        environment.raise(flags::OVERFLOW | if inexact { flags::PRECISION } else { 0 });
        let largest = !environment.rounding.overflows_to_infinity(rounded.negative);
        return F::infinity(rounded.negative) - u64::from(largest);
    }
    if rounded.tiny {
        if !environment.masked(flags::UNDERFLOW) {
            // Nothing is written, and inexact is what the result with a larger exponent is.
            let unbounded =
                float::round_unbounded(number, F::RANGE.precision, environment.rounding);
            let inexact = if unbounded.inexact {
                flags::PRECISION
            } else {
                0
            };
            environment.raise(flags::UNDERFLOW | inexact);
            return F::pack(rounded);
        } else if environment.flush_to_zero {
            environment.raise(flags::UNDERFLOW | flags::PRECISION);
            return F::zero(rounded.negative);
        } else if rounded.inexact {
            environment.raise(flags::UNDERFLOW);
        }
    }
    if rounded.inexact {
        environment.raise(flags::PRECISION);
    }
    F::pack(rounded)
}

/// ADDSS, ADDSD.
#[inline]
pub(super) fn add<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    // A sum of normal numbers is zero only where they cancel.
    by_the_host!(F, environment, host_add(a, b), zero if true);
    add_in_software::<F>(environment, a, b)
}

/// SUBSS, SUBSD.
#[inline]
pub(super) fn subtract<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    // A NaN keeps its sign.
    let b = if F::is_nan(b) { b } else { b ^ F::SIGN };
    add::<F>(environment, a, b)
}

#[inline(never)]
fn add_in_software<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    if let Some(nan) = propagate::<F>(environment, a, b) {
        return nan;
    }
    let infinite = |x| F::magnitude(x) == F::INFINITY;
    if infinite(a) && infinite(b) && a != b {
        return invalid::<F>(environment);
    }
    let (a, b) = (operand::<F>(environment, a), operand::<F>(environment, b));
    match (F::unpack(a), F::unpack(b)) {
        (Operand::Infinite { negative }, _) | (_, Operand::Infinite { negative }) => {
            F::infinity(negative)
        }
        (Operand::Zero { negative: x }, Operand::Zero { negative: y }) => {
            let down = environment.rounding == Rounding::Down;
            F::zero(if x == y { x } else { down })
        }
        (Operand::Finite(number), Operand::Zero { .. })
        | (Operand::Zero { .. }, Operand::Finite(number)) => finish::<F>(environment, number),
        (Operand::Finite(x), Operand::Finite(y)) => match float::add(x, y) {
            Some(sum) => finish::<F>(environment, sum),
            None => F::zero(environment.rounding == Rounding::Down),
        },
        (Operand::Nan, _) | (_, Operand::Nan) => unreachable!("NaNs were propagated"),
    }
}

/// MULSS, MULSD.
#[inline]
pub(super) fn multiply<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    let is_zero = |x| F::magnitude(x) == 0;
    by_the_host!(F, environment, host_multiply(a, b), zero if is_zero(a) || is_zero(b));
    multiply_in_software::<F>(environment, a, b)
}

#[inline(never)]
fn multiply_in_software<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    if let Some(nan) = propagate::<F>(environment, a, b) {
        return nan;
    }
    let negative = F::negative(a ^ b);
    let zero = |environment: &Environment, x| {
        F::magnitude(x) == 0 || (environment.denormals_are_zero && F::is_denormal(x))
    };
    let infinite = |x| F::magnitude(x) == F::INFINITY;
    if infinite(a) && zero(environment, b) || infinite(b) && zero(environment, a) {
        return invalid::<F>(environment);
    }
    let (a, b) = (operand::<F>(environment, a), operand::<F>(environment, b));
    match (F::unpack(a), F::unpack(b)) {
        (Operand::Infinite { .. }, _) | (_, Operand::Infinite { .. }) => F::infinity(negative),
        (Operand::Zero { .. }, _) | (_, Operand::Zero { .. }) => F::zero(negative),
        (Operand::Finite(x), Operand::Finite(y)) => finish::<F>(environment, float::multiply(x, y)),
        (Operand::Nan, _) | (_, Operand::Nan) => unreachable!("NaNs were propagated"),
    }
}

/// DIVSS, DIVSD.
#[inline]
pub(super) fn divide<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    by_the_host!(F, environment, host_divide(a, b), zero if F::magnitude(a) == 0);
    divide_in_software::<F>(environment, a, b)
}

#[inline(never)]
fn divide_in_software<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    if let Some(nan) = propagate::<F>(environment, a, b) {
        return nan;
    }
    let negative = F::negative(a ^ b);
    let zero = |environment: &Environment, x| {
        F::magnitude(x) == 0 || (environment.denormals_are_zero && F::is_denormal(x))
    };
    let infinite = |x| F::magnitude(x) == F::INFINITY;
    if infinite(a) && infinite(b) || zero(environment, a) && zero(environment, b) {
        return invalid::<F>(environment);
    }
    if !infinite(a) && zero(environment, b) {
        environment.raise(flags::DIVIDE_BY_ZERO);
        return F::infinity(negative);
    }
    let (a, b) = (operand::<F>(environment, a), operand::<F>(environment, b));
    match (F::unpack(a), F::unpack(b)) {
        (Operand::Infinite { .. }, _) | (_, Operand::Zero { .. }) => F::infinity(negative),
        (_, Operand::Infinite { .. }) | (Operand::Zero { .. }, _) => F::zero(negative),
        (Operand::Finite(x), Operand::Finite(y)) => finish::<F>(environment, float::divide(x, y)),
        (Operand::Nan, _) | (_, Operand::Nan) => unreachable!("NaNs were propagated"),
    }
}

/// SQRTSS, SQRTSD.
#[inline]
pub(super) fn square_root<F: Interchange>(environment: &mut Environment, a: u64) -> u64 {
    by_the_host!(F, environment, host_square_root(a), zero if true);
    square_root_in_software::<F>(environment, a)
}

#[inline(never)]
fn square_root_in_software<F: Interchange>(environment: &mut Environment, a: u64) -> u64 {
    if let Some(nan) = propagate::<F>(environment, a, a) {
        return nan;
    }
    let is_zero = F::magnitude(a) == 0 || (environment.denormals_are_zero && F::is_denormal(a));
    if F::negative(a) && !is_zero {
        return invalid::<F>(environment);
    }
    let a = operand::<F>(environment, a);
    match F::unpack(a) {
        Operand::Finite(number) => finish::<F>(environment, float::square_root(number)),
        _ => a,
    }
}

/// How two numbers compare, with the exceptions of a comparison; nothing where they are unordered.
/// `quiet` comparisons let quiet NaNs pass.
pub(super) fn compare<F: Interchange>(
    environment: &mut Environment,
    a: u64,
    b: u64,
    quiet: bool,
) -> Option<Ordering> {
    if F::is_nan(a) || F::is_nan(b) {
        if !quiet || F::is_signaling(a) || F::is_signaling(b) {
            environment.raise(flags::INVALID);
        }
        return None;
    }
    let (a, b) = (operand::<F>(environment, a), operand::<F>(environment, b));
    let order = |bits| {
        let magnitude = F::magnitude(bits) as i64;
        if F::negative(bits) {
            -magnitude
        } else {
            magnitude
        }
    };
    Some(order(a).cmp(&order(b)))
}

/// CMPSS, CMPSD with one of the eight predicates of SSE.
#[inline]
pub(super) fn compare_predicate<F: Interchange>(
    environment: &mut Environment,
    a: u64,
    b: u64,
    predicate: u8,
) -> bool {
    // LT, LE and their negations signal for quiet NaNs.
    let quiet = !matches!(predicate & 3, 1 | 2);
    let ordering = compare::<F>(environment, a, b, quiet);
    let holds = match predicate & 3 {
        0 => ordering == Some(Ordering::Equal),
        1 => ordering == Some(Ordering::Less),
        2 => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        _ => ordering.is_none(),
    };
    holds != (predicate & 4 != 0)
}

/// MINSS, MINSD: the second operand where one is a NaN or both are zero.
#[inline]
pub(super) fn minimum<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    select::<F>(environment, a, b, Ordering::Less)
}

/// MAXSS, MAXSD.
#[inline]
pub(super) fn maximum<F: Interchange>(environment: &mut Environment, a: u64, b: u64) -> u64 {
    select::<F>(environment, a, b, Ordering::Greater)
}

fn select<F: Interchange>(environment: &mut Environment, a: u64, b: u64, first: Ordering) -> u64 {
    let chosen = if compare::<F>(environment, a, b, false) == Some(first) {
        a
    } else {
        b
    };
    if environment.denormals_are_zero && F::is_denormal(chosen) {
        F::zero(F::negative(chosen))
    } else {
        chosen
    }
}

/// ROUNDSS, ROUNDSD: to an integer in the same format.
pub(super) fn round_to_integral<F: Interchange>(
    environment: &mut Environment,
    a: u64,
    control: u8,
) -> u64 {
    let rounding = if control & 4 != 0 {
        environment.rounding
    } else {
        Rounding::from_control(control.into())
    };
    if let Some(nan) = propagate::<F>(environment, a, a) {
        return nan;
    }
    if environment.denormals_are_zero && F::is_denormal(a) {
        return F::zero(F::negative(a));
    }
    let Operand::Finite(number) = F::unpack(a) else {
        return a;
    };
    // What has no bits below the point is an integer already.
    if number.exponent >= 0 {
        return a;
    }
    let Some((magnitude, inexact, _)) = float::round_to_integer(number, rounding) else {
        return a;
    };
    if inexact && control & 8 == 0 {
        environment.raise(flags::PRECISION);
    }
    if magnitude == 0 {
        return F::zero(number.negative);
    }
    // At most as many bits as the operand had: exact.
    let integer = Number {
        negative: number.negative,
        exponent: 0,
        significand: magnitude,
    };
    F::pack(float::round(integer, F::RANGE, Rounding::Zero))
}
