//! The control word at work: rounding, masked responses, and the exceptions that an operation
//! gathers (volume 1, 8.5).

use crate::float::{self, DoubleExtended, Number, Operand, Rounding, flags};

/// What the bias of the exponent is adjusted by, where overflow or underflow is not masked (volume
/// 1, 8.5.4).
const WRAP: i32 = 24576;

/// The control word taken apart, and what an operation raised.
#[derive(Clone, Debug)]
pub(super) struct Environment {
    /// Significant bits of a result: 24, 53 or 64.
    pub precision: u32,
    pub rounding: Rounding,
    /// One bit for each exception that is masked.
    pub masks: u16,
    pub raised: u16,
    /// The last rounding went away from zero: C1.
    pub away: bool,
}

/// Exceptions that keep an instruction from doing anything, where they are not masked.
pub(super) const PRE_COMPUTATION: u16 = flags::INVALID | flags::DENORMAL | flags::DIVIDE_BY_ZERO;

impl Environment {
    pub fn new(control: u16) -> Self {
        Self {
            precision: match control >> 8 & 3 {
                0 => 24,
                2 => 53,
                _ => 64,
            },
            rounding: Rounding::from_control((control >> 10).into()),
            masks: control & flags::ALL,
            raised: 0,
            away: false,
        }
    }

    pub fn raise(&mut self, flags: u16) {
        self.raised |= flags;
    }

    pub const fn masked(&self, flags: u16) -> bool {
        self.masks & flags == flags
    }

    /// Whether the operation ends without a result.
    pub const fn stopped(&self) -> bool {
        self.raised & PRE_COMPUTATION & !self.masks != 0
    }

    pub fn invalid(&mut self) -> DoubleExtended {
        self.raise(flags::INVALID);
        DoubleExtended::INDEFINITE
    }

    /// Rounds a result for a register, to the precision of the control word.
    pub fn finish(&mut self, number: Number) -> DoubleExtended {
        self.finish_with(number, self.precision)
    }

    /// Rounds a result for a register.
    pub fn finish_with(&mut self, number: Number, precision: u32) -> DoubleExtended {
        let range = DoubleExtended::range(precision);
        let mut rounded = float::round(number, range, self.rounding);
        if rounded.overflow {
            self.raise(flags::OVERFLOW);
            if self.masked(flags::OVERFLOW) {
                self.raise(flags::PRECISION);
                self.away = self.rounding.overflows_to_infinity(rounded.negative);
                return if self.away {
                    DoubleExtended::infinity(rounded.negative)
                } else {
                    let largest = u64::MAX << (64 - precision);
                    DoubleExtended::new(0x7ffe, largest).with_sign(rounded.negative)
                };
            }
            rounded.exponent -= WRAP;
            if rounded.exponent > range.max_exponent {
                self.raise(flags::PRECISION);
                self.away = true;
                return DoubleExtended::infinity(rounded.negative);
            }
        } else if rounded.tiny {
            if !self.masked(flags::UNDERFLOW) {
                self.raise(flags::UNDERFLOW);
                rounded = float::round_unbounded(number, precision, self.rounding);
                rounded.exponent += WRAP;
                if rounded.exponent < range.min_exponent {
                    self.raise(flags::PRECISION);
                    self.away = false;
                    return DoubleExtended::zero(rounded.negative);
                }
            } else if rounded.inexact {
                self.raise(flags::UNDERFLOW);
            }
        }
        if rounded.inexact {
            self.raise(flags::PRECISION);
        }
        self.away = rounded.away;
        DoubleExtended::pack(rounded)
    }

    /// An operand taken apart, with its exceptions; an error holds the result where it is decided
    /// already.
    pub fn operand(&mut self, a: DoubleExtended) -> Result<Operand, DoubleExtended> {
        if a.is_unsupported() {
            return Err(self.invalid());
        }
        if a.is_nan() {
            if a.is_signaling() {
                self.raise(flags::INVALID);
            }
            return Err(a.quieted());
        }
        self.denormal(a);
        Ok(a.unpack())
    }

    /// Two operands taken apart. Of two NaNs the one with the larger significand is the result
    /// (volume 1, table 4-7).
    pub fn operands(
        &mut self,
        a: DoubleExtended,
        b: DoubleExtended,
    ) -> Result<(Operand, Operand), DoubleExtended> {
        if a.is_unsupported() || b.is_unsupported() {
            return Err(self.invalid());
        }
        if a.is_nan() || b.is_nan() {
            if a.is_signaling() || b.is_signaling() {
                self.raise(flags::INVALID);
            }
            return Err(larger_nan(a, b));
        }
        Ok((a.unpack(), b.unpack()))
    }

    /// Raises the denormal exception where the operand is one.
    pub fn denormal(&mut self, a: DoubleExtended) {
        if a.is_denormal() {
            self.raise(flags::DENORMAL);
        }
    }
}

/// The result of an operation on two operands, of which at least one is a NaN.
fn larger_nan(a: DoubleExtended, b: DoubleExtended) -> DoubleExtended {
    let first = match (a.is_nan(), b.is_nan()) {
        (true, false) => true,
        (false, true) => false,
        _ => match (a.is_signaling(), b.is_signaling()) {
            (true, false) => false,
            (false, true) => true,
            _ => match a.significand.cmp(&b.significand) {
                core::cmp::Ordering::Greater => true,
                core::cmp::Ordering::Less => false,
                // The positive one.
                core::cmp::Ordering::Equal => !a.negative(),
            },
        },
    };
    if first { a.quieted() } else { b.quieted() }
}
