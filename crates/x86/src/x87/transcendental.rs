//! The transcendental functions.
//!
//! Each is computed with 128 bits, to a relative error below 2^-110, and rounded once by the rounding
//! control to 64 bits: the result is the correctly rounded one, save where the exact value is closer
//! than that to the border between two results, once in about 2^45. Trigonometric arguments are
//! reduced by the value of pi that processors use, of 66 bits (volume 1, 8.3.8).

use core::cmp::Ordering;

use super::constants::{ARC_TANGENTS, HALF_PI, LN_2, PI, QUARTER_PI, TWO_OVER_LN_2};
use super::environment::Environment;
use super::wide::{Wide, multiply_fixed};
use crate::float::{self, DoubleExtended, Number, Operand, flags};

/// One, with 127 bits below the point.
const ONE: u128 = 1 << 127;

/// The sine and the cosine of an operand; nothing where it is 2^63 or more: C2.
pub(super) struct Angle {
    number: Number,
    /// The argument less `quadrant` quarter turns, at most an eighth turn.
    rest: Wide,
    quadrant: u8,
}

/// What a trigonometric function sees.
pub(super) enum Argument {
    /// The result is decided: a NaN or invalid.
    Decided(DoubleExtended),
    /// Too large: C2 is set and nothing changes.
    OutOfRange,
    /// A zero of this sign.
    Zero(bool),
    /// To be computed.
    Angle(Angle),
}

impl Argument {
    pub fn new(e: &mut Environment, a: DoubleExtended) -> Self {
        match e.operand(a) {
            Err(result) => Self::Decided(result),
            Ok(Operand::Infinite { .. } | Operand::Nan) => Self::Decided(e.invalid()),
            Ok(Operand::Zero { negative }) => Self::Zero(negative),
            Ok(Operand::Finite(number)) if number.leading() >= 63 => Self::OutOfRange,
            Ok(Operand::Finite(number)) => Self::Angle(Angle::reduce(number)),
        }
    }
}

impl Angle {
    fn reduce(number: Number) -> Self {
        /// A quarter turn in units of 2^-65.
        const QUARTER: u128 = 0x3_243f_6a88_85a3_08d3;
        const UNIT: i32 = -65;
        let x = Number {
            negative: false,
            ..number
        };
        let whole = Wide::from_number(x);
        if whole.compare_magnitude(QUARTER_PI) == Ordering::Less {
            return Self {
                number,
                rest: whole,
                quadrant: 0,
            };
        }
        // 2^-1 to 2^63: the lowest bit of the significand is above the unit.
        let x = x.normalised();
        let (mut rest, shift) = (x.significand >> 64, x.exponent + 64 - UNIT);
        let mut quadrant = 0u8;
        for _ in 0..shift {
            rest <<= 1;
            quadrant <<= 1;
            if rest >= QUARTER {
                rest -= QUARTER;
                quadrant |= 1;
            }
        }
        let past_the_middle = rest << 1 > QUARTER;
        if past_the_middle {
            rest = QUARTER - rest;
            quadrant = quadrant.wrapping_add(1);
        }
        let rest = Wide::from_number(Number {
            negative: past_the_middle,
            exponent: UNIT,
            significand: rest,
        });
        Self {
            number,
            rest,
            quadrant: quadrant & 3,
        }
    }

    fn evaluate(&self, quarter_turns: u8, negative: bool) -> Wide {
        let turns = self.quadrant.wrapping_add(quarter_turns);
        let value = if turns & 1 == 0 {
            sine(self.rest)
        } else {
            cosine(self.rest)
        };
        if (turns & 2 != 0) != negative {
            value.negated()
        } else {
            value
        }
    }

    fn sine_wide(&self) -> Wide {
        self.evaluate(0, self.number.negative)
    }

    fn cosine_wide(&self) -> Wide {
        self.evaluate(1, false)
    }

    pub fn sine(&self, e: &mut Environment) -> DoubleExtended {
        finish(e, self.sine_wide())
    }

    pub fn cosine(&self, e: &mut Environment) -> DoubleExtended {
        finish(e, self.cosine_wide())
    }

    pub fn tangent(&self, e: &mut Environment) -> DoubleExtended {
        let value = if self.rest.exponent + 127 < -34 {
            self.tangent_near_quarter_turns()
        } else {
            self.sine_wide().divide(self.cosine_wide())
        };
        finish(e, value)
    }

    /// The tangent of almost nothing more than quarter turns: the first two terms of its series,
    /// which tell above from below where the first alone would be a result.
    fn tangent_near_quarter_turns(&self) -> Wide {
        let r = self.rest;
        let correction = r.multiply(r).divide(Wide::integer(3));
        let value = if self.quadrant & 1 == 0 {
            r.add(r.multiply(correction))
        } else {
            let q = Wide::ONE.divide(r);
            q.subtract(q.multiply(correction)).negated()
        };
        if self.number.negative {
            value.negated()
        } else {
            value
        }
    }
}

/// Rounds what is never exact, to 64 bits whatever the precision control says.
fn finish(e: &mut Environment, value: Wide) -> DoubleExtended {
    e.finish_with(value.to_number(), 64)
}

/// 1 - z/(2·3)·(1 - z/(4·5)·(…)) for `first` = 2, with z = x²: sin(x)/x; cos(x) for `first` = 1.
fn alternating(x: Wide, first: u128) -> u128 {
    const TERMS: u128 = 17;
    let z = x.multiply(x).to_fixed();
    (0..TERMS).rev().fold(ONE, |sum, i| {
        let k = first + 2 * i;
        // Never exactly one: the function of a tiny argument is not exact either.
        ONE - (multiply_fixed(z, sum) / (k * (k + 1))).max(1)
    })
}

fn sine(x: Wide) -> Wide {
    x.multiply(Wide::from_fixed(alternating(x, 2)))
}

fn cosine(x: Wide) -> Wide {
    Wide::from_fixed(alternating(x, 1))
}

/// The arc tangent of a number from zero to one.
fn arc_tangent(t: Wide) -> Wide {
    const TERMS: u128 = 13;
    let sixteenths = (t.to_fixed() >> 122).div_ceil(2) as usize;
    let (base, s) = match sixteenths {
        0 => (Wide::ZERO, t),
        _ => {
            let centre = Wide::from_fixed((sixteenths as u128) << 123);
            let over = Wide::ONE.add(t.multiply(centre));
            (
                ARC_TANGENTS[sixteenths - 1],
                t.subtract(centre).divide(over),
            )
        }
    };
    // s·(1 - z/3 + z²/5 - …)
    let z = s.multiply(s).to_fixed();
    let series = (1..TERMS).rev().fold(0, |sum, i| {
        let coefficient = ONE / (2 * i + 1);
        multiply_fixed(z, coefficient - sum).max(1)
    });
    base.add(s.multiply(Wide::from_fixed(ONE - series)))
}

/// FPATAN: the angle of the point (`x`, `y`).
pub(super) fn arc_tangent_of(
    e: &mut Environment,
    y: DoubleExtended,
    x: DoubleExtended,
) -> DoubleExtended {
    let operands = match e.operands(y, x) {
        Ok(operands) => operands,
        Err(result) => return result,
    };
    e.denormal(y);
    e.denormal(x);
    let left = x.negative();
    let angle = match operands {
        (Operand::Infinite { .. }, Operand::Infinite { .. }) => {
            if left {
                PI.subtract(QUARTER_PI)
            } else {
                QUARTER_PI
            }
        }
        (Operand::Infinite { .. }, _) => HALF_PI,
        (Operand::Zero { .. }, _) | (_, Operand::Infinite { .. }) => {
            if !left {
                return DoubleExtended::zero(y.negative());
            }
            PI
        }
        (Operand::Finite(_), Operand::Zero { .. }) => HALF_PI,
        (Operand::Finite(y), Operand::Finite(x)) => {
            let (y, x) = (
                Wide::from_number(y).absolute(),
                Wide::from_number(x).absolute(),
            );
            let steep = y.compare_magnitude(x) == Ordering::Greater;
            let angle = if steep {
                HALF_PI.subtract(arc_tangent(x.divide(y)))
            } else {
                arc_tangent(y.divide(x))
            };
            if left { PI.subtract(angle) } else { angle }
        }
        (Operand::Nan, _) | (_, Operand::Nan) => return e.invalid(),
    };
    let angle = Wide {
        negative: y.negative(),
        ..angle
    };
    finish(e, angle)
}

/// F2XM1: 2^`a` - 1 for -1 to 1. Beyond, where the manual defines nothing, the operand itself.
pub(super) fn power_minus_one(e: &mut Environment, a: DoubleExtended) -> DoubleExtended {
    const TERMS: u128 = 34;
    let number = match e.operand(a) {
        Ok(Operand::Finite(number)) => number,
        Ok(Operand::Infinite { negative: true }) => return DoubleExtended::ONE.negated(),
        Ok(_) => return a,
        Err(result) => return result,
    };
    let negative = number.negative;
    if number.leading() >= 0 {
        e.raise(flags::PRECISION);
        let is_one = a.with_sign(false) == DoubleExtended::ONE;
        return match (is_one, negative) {
            (true, true) => DoubleExtended::new(0xbffe, 1 << 63),
            _ => a,
        };
    }
    let y = Wide::from_number(number).absolute().multiply(LN_2);
    let fixed = y.to_fixed();
    // y·(1 + y/2·(1 + y/3·(…))), with alternating signs where y is negative. Halved, so that it
    // stays below two.
    let series = (2..TERMS).rev().fold(ONE >> 1, |sum, k| {
        let term = multiply_fixed(fixed, sum) / k;
        if negative {
            (ONE >> 1) - term
        } else {
            (ONE >> 1) + term
        }
    });
    let value = y.multiply(Wide::from_fixed(series));
    let value = Wide {
        negative,
        exponent: value.exponent + 1,
        ..value
    };
    finish(e, value)
}

/// 2/ln(2)·atanh(s): the binary logarithm of (1 + s)/(1 - s), for s up to 0.18.
fn logarithm_of_ratio(s: Wide) -> Wide {
    const TERMS: u128 = 26;
    let z = s.multiply(s).to_fixed();
    let series = (1..TERMS)
        .rev()
        .fold(0, |sum, i| multiply_fixed(z, ONE / (2 * i + 1) + sum));
    s.multiply(Wide::from_fixed(ONE + series))
        .multiply(TWO_OVER_LN_2)
}

/// The binary logarithm of a positive number.
fn logarithm(x: Wide) -> Wide {
    /// The significand of the square root of two.
    const ROOT: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let exponent = x.exponent + 127 + i32::from(x.significand > ROOT);
    let m = Wide {
        exponent: x.exponent - exponent,
        ..x
    };
    let s = m.subtract(Wide::ONE).divide(m.add(Wide::ONE));
    Wide::integer(exponent.into()).add(logarithm_of_ratio(s))
}

/// FYL2X: `y` × log2(`x`).
pub(super) fn logarithm_times(
    e: &mut Environment,
    y: DoubleExtended,
    x: DoubleExtended,
) -> DoubleExtended {
    let operands = match e.operands(y, x) {
        Ok(operands) => operands,
        Err(result) => return result,
    };
    let below_zero = x.negative() && !x.is_zero();
    let is_one = x == DoubleExtended::ONE;
    if below_zero || y.is_zero() && (x.is_zero() || x.is_infinite()) || y.is_infinite() && is_one {
        return e.invalid();
    }
    if !x.is_zero() {
        e.denormal(y);
    }
    e.denormal(x);
    let below_one = x.field() < 0x3fff;
    match operands {
        (Operand::Finite(_), Operand::Zero { .. }) => {
            e.raise(flags::DIVIDE_BY_ZERO);
            DoubleExtended::infinity(!y.negative())
        }
        (Operand::Infinite { negative }, _) => DoubleExtended::infinity(negative != below_one),
        (_, Operand::Infinite { .. }) => DoubleExtended::infinity(y.negative()),
        (Operand::Zero { negative }, _) => DoubleExtended::zero(negative != below_one),
        (Operand::Finite(_), _) if is_one => DoubleExtended::zero(y.negative()),
        (Operand::Finite(y), Operand::Finite(x)) => {
            let x = x.normalised();
            if x.significand == 1 << 127 {
                // A power of two: the product may be exact, and counts as inexact nonetheless.
                e.raise(flags::PRECISION);
                let exponent = i64::from(x.exponent) + 127;
                let logarithm = Number {
                    negative: exponent < 0,
                    exponent: 0,
                    significand: exponent.unsigned_abs().into(),
                };
                let result = e.finish_with(float::multiply(y, logarithm), 64);
                if result.is_denormal() {
                    e.raise(flags::UNDERFLOW);
                }
                return result;
            }
            let value = logarithm(Wide::from_number(x)).multiply(Wide::from_number(y));
            finish(e, value)
        }
        _ => e.invalid(),
    }
}

/// FYL2XP1: `y` × log2(`x` + 1). The manual defines it for `x` within ±(1 - √2/2); beyond, it goes on
/// as far as there is a logarithm.
pub(super) fn logarithm_plus_one_times(
    e: &mut Environment,
    y: DoubleExtended,
    x: DoubleExtended,
) -> DoubleExtended {
    let operands = match e.operands(y, x) {
        Ok(operands) => operands,
        Err(result) => return result,
    };
    if x.is_infinite() && (x.negative() || y.is_zero()) || y.is_infinite() && x.is_zero() {
        return e.invalid();
    }
    e.denormal(y);
    e.denormal(x);
    let negative = x.negative() != y.negative();
    match operands {
        // There is no logarithm.
        (Operand::Finite(_), Operand::Finite(number))
            if number.negative && number.leading() >= 0 =>
        {
            e.raise(flags::PRECISION);
            x
        }
        (Operand::Infinite { .. }, _) | (_, Operand::Infinite { .. }) => {
            DoubleExtended::infinity(negative)
        }
        (Operand::Zero { .. }, _) | (_, Operand::Zero { .. }) => DoubleExtended::zero(negative),
        (Operand::Finite(y), Operand::Finite(number)) => {
            let x = Wide::from_number(number);
            let logarithm = if number.leading() < -1 {
                let two = Wide::ONE.add(Wide::ONE);
                logarithm_of_ratio(x.divide(two.add(x)))
            } else {
                logarithm(Wide::ONE.add(x))
            };
            finish(e, logarithm.multiply(Wide::from_number(y)))
        }
        _ => e.invalid(),
    }
}
