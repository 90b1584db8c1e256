//! The expected results: LLVM's APFloat in its Rust port, with what RISC-V does otherwise put right.
//!
//! - NaNs are decided here, from the operands.
//! - APFloat tells underflow and overflow by the delivered result, so it misses a result that is the
//!   smallest normal number only because a subnormal's precision rounded it up, and one that is the
//!   largest number only because it was rounded towards zero. There, the operation is done again on
//!   operands scaled by a power of two, far from both borders, to see what an unbounded exponent
//!   would have given.

use riscv::float::{Flags, RoundingMode};
use rustc_apfloat::ieee::{Double, Quad, Single};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

use crate::corners::{DOUBLE, Layout, SINGLE};

/// A result and the flags that it raises.
pub type Expected = (u64, Flags);

/// Binary digits between a border and where an operation is done again.
const SCALE: i32 = 64;

pub trait Reference: Float + FloatConvert<Quad> + FloatConvert<Single> {
    const LAYOUT: Layout;
}

impl Reference for Single {
    const LAYOUT: Layout = SINGLE;
}

impl Reference for Double {
    const LAYOUT: Layout = DOUBLE;
}

pub fn round_of(rm: RoundingMode) -> Round {
    match rm {
        RoundingMode::NearestEven => Round::NearestTiesToEven,
        RoundingMode::TowardZero => Round::TowardZero,
        RoundingMode::Down => Round::TowardNegative,
        RoundingMode::Up => Round::TowardPositive,
        RoundingMode::NearestMaxMagnitude => Round::NearestTiesToAway,
    }
}

pub fn number<S: Float>(bits: u64) -> S {
    S::from_bits(bits.into())
}

fn canonical_nan<S: Reference>() -> u64 {
    S::LAYOUT.infinity() | S::LAYOUT.quiet()
}

fn flags_of(status: Status) -> Flags {
    let mut flags = Flags::NONE;
    for (theirs, ours) in [
        (Status::INVALID_OP, Flags::INVALID),
        (Status::DIV_BY_ZERO, Flags::DIVIDE_BY_ZERO),
        (Status::OVERFLOW, Flags::OVERFLOW),
        (Status::UNDERFLOW, Flags::UNDERFLOW),
        (Status::INEXACT, Flags::INEXACT),
    ] {
        if status.contains(theirs) {
            flags |= ours;
        }
    }
    flags
}

/// The result for NaN operands: invalid where one of them signals.
fn nan_result<S: Reference>(operands: &[u64]) -> Option<Expected> {
    let operands: Vec<S> = operands.iter().map(|&bits| number(bits)).collect();
    if !operands.iter().any(|operand| operand.is_nan()) {
        return None;
    }
    let signaling = operands.iter().any(|operand| operand.is_signaling());
    Some((
        canonical_nan::<S>(),
        if signaling {
            Flags::INVALID
        } else {
            Flags::NONE
        },
    ))
}

/// The encoding and flags of what APFloat computed. `rescaled` computes the same times a power of
/// two.
fn finish<S: Reference>(outcome: StatusAnd<S>, rescaled: impl Fn(i32) -> S) -> Expected {
    let StatusAnd { status, value } = outcome;
    if value.is_nan() {
        return (canonical_nan::<S>(), flags_of(status));
    }
    let mut flags = flags_of(status);
    if status.contains(Status::INEXACT) {
        let (smallest, largest) = (S::smallest_normalized(), S::largest());
        if value.abs() == smallest && rescaled(SCALE).abs() < smallest.scalbn(SCALE) {
            flags |= Flags::UNDERFLOW;
        }
        if value.abs() == largest && rescaled(-SCALE).abs() > largest.scalbn(-SCALE) {
            flags |= Flags::OVERFLOW;
        }
    }
    (value.to_bits() as u64, flags)
}

/// `x` × 2^`by`. What is lost where that is subnormal is far below the last place of any result
/// that is scaled down; rounded away from zero it still has its say in the direction.
fn scale<S: Reference>(x: S, by: i32) -> S {
    x.scalbn_r(
        by,
        if x.is_negative() {
            Round::TowardNegative
        } else {
            Round::TowardPositive
        },
    )
}

/// Scales the product of two factors, by the factor that has the room.
fn scale_factors<S: Reference>(a: S, b: S, by: i32) -> (S, S) {
    let a_is_smaller = a.abs() < b.abs();
    if a_is_smaller == (by > 0) {
        (scale(a, by), b)
    } else {
        (a, scale(b, by))
    }
}

pub fn add<S: Reference>(a: u64, b: u64, rm: RoundingMode) -> Expected {
    nan_result::<S>(&[a, b]).unwrap_or_else(|| {
        let (a, b): (S, S) = (number(a), number(b));
        finish(a.add_r(b, round_of(rm)), |by| {
            scale(a, by).add_r(scale(b, by), round_of(rm)).value
        })
    })
}

pub fn sub<S: Reference>(a: u64, b: u64, rm: RoundingMode) -> Expected {
    nan_result::<S>(&[a, b]).unwrap_or_else(|| {
        let (a, b): (S, S) = (number(a), number(b));
        finish(a.sub_r(b, round_of(rm)), |by| {
            scale(a, by).sub_r(scale(b, by), round_of(rm)).value
        })
    })
}

pub fn mul<S: Reference>(a: u64, b: u64, rm: RoundingMode) -> Expected {
    nan_result::<S>(&[a, b]).unwrap_or_else(|| {
        let (a, b): (S, S) = (number(a), number(b));
        finish(a.mul_r(b, round_of(rm)), |by| {
            let (a, b) = scale_factors(a, b, by);
            a.mul_r(b, round_of(rm)).value
        })
    })
}

pub fn div<S: Reference>(a: u64, b: u64, rm: RoundingMode) -> Expected {
    nan_result::<S>(&[a, b]).unwrap_or_else(|| {
        let (a, b): (S, S) = (number(a), number(b));
        finish(a.div_r(b, round_of(rm)), |by| {
            let dividend_is_large = a.abs() > number(S::LAYOUT.infinity() / 2);
            let (a, b) = if dividend_is_large == (by > 0) {
                (a, scale(b, -by))
            } else {
                (scale(a, by), b)
            };
            a.div_r(b, round_of(rm)).value
        })
    })
}

pub fn fma<S: Reference>(a: u64, b: u64, c: u64, rm: RoundingMode) -> Expected {
    let (x, y, z): (S, S, S) = (number(a), number(b), number(c));
    if (x.is_infinite() && y.is_zero()) || (x.is_zero() && y.is_infinite()) {
        return (canonical_nan::<S>(), Flags::INVALID);
    }
    nan_result::<S>(&[a, b, c]).unwrap_or_else(|| {
        finish(x.mul_add_r(y, z, round_of(rm)), |by| {
            let (x, y) = scale_factors(x, y, by);
            x.mul_add_r(y, scale(z, by), round_of(rm)).value
        })
    })
}

/// The square root, by its definition: quadruple precision holds the square of a root, and of the
/// middle between two neighbouring ones, exactly.
pub fn sqrt<S: Reference>(a: u64, rm: RoundingMode) -> Expected
where
    Quad: FloatConvert<S>,
{
    let x: S = number(a);
    if let Some(expected) = nan_result::<S>(&[a]) {
        return expected;
    }
    if x.is_zero() || (x.is_infinite() && !x.is_negative()) {
        return (a, Flags::NONE);
    }
    if x.is_negative() {
        return (canonical_nan::<S>(), Flags::INVALID);
    }
    let (below, exact) = root_below::<S>(x);
    if exact {
        return (below, Flags::NONE);
    }
    let wide = |bits: u64| FloatConvert::<Quad>::convert(number::<S>(bits), &mut false).value;
    let half = Quad::from_u128(1).value.scalbn(-1);
    let middle = ((wide(below) + wide(below + 1)).value * half).value;
    let above_middle = (middle * middle).value < FloatConvert::<Quad>::convert(x, &mut false).value;
    let up = match rm {
        RoundingMode::TowardZero | RoundingMode::Down => false,
        RoundingMode::Up => true,
        // The square of the middle has too many bits to be a number of the format: no ties.
        RoundingMode::NearestEven | RoundingMode::NearestMaxMagnitude => above_middle,
    };
    (below + u64::from(up), Flags::INEXACT)
}

/// The largest number whose square is at most `x`, and whether it is `x`, by bisection.
fn root_below<S: Reference>(x: S) -> (u64, bool) {
    let square = |bits: u64| {
        let root = FloatConvert::<Quad>::convert(number::<S>(bits), &mut false).value;
        (root * root).value
    };
    let wide = FloatConvert::<Quad>::convert(x, &mut false).value;
    let (mut low, mut high) = (0, S::LAYOUT.infinity());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if square(middle) <= wide {
            low = middle
        } else {
            high = middle
        }
    }
    (low, square(low) == wide)
}

pub fn narrow(a: u64, rm: RoundingMode) -> Expected {
    if let Some((_, flags)) = nan_result::<Double>(&[a]) {
        return (canonical_nan::<Single>(), flags);
    }
    let convert = |x: Double| x.convert_r(round_of(rm), &mut false);
    finish::<Single>(convert(number(a)), |by| convert(scale(number(a), by)).value)
}

pub fn widen(a: u64) -> Expected {
    if let Some((_, flags)) = nan_result::<Single>(&[a]) {
        return (canonical_nan::<Double>(), flags);
    }
    let wide: StatusAnd<Double> = number::<Single>(a).convert(&mut false);
    (wide.value.to_bits() as u64, flags_of(wide.status))
}

/// To the integers from `min` to `max`.
pub fn to_integer<S: Reference>(a: u64, min: i128, max: i128, rm: RoundingMode) -> (i128, Flags) {
    let x: S = number(a);
    if x.is_nan() {
        return (max, Flags::INVALID);
    }
    let StatusAnd { status, value } = x.to_i128_r(100, round_of(rm), &mut false);
    let fits = !status.contains(Status::INVALID_OP) && (min..=max).contains(&value);
    if fits {
        (value, flags_of(status))
    } else {
        (if x.is_negative() { min } else { max }, Flags::INVALID)
    }
}

pub fn from_integer<S: Reference>(integer: i128, rm: RoundingMode) -> Expected {
    let StatusAnd { status, value } = S::from_i128_r(integer, round_of(rm));
    (value.to_bits() as u64, flags_of(status))
}
