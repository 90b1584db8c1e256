//! Arithmetic with 128 significant bits, for the transcendental functions. Every operation cuts
//! off: its result is at most one unit of the lowest bit below the exact one.

use core::cmp::Ordering;

use crate::float::{Number, shift_right_sticky};

/// ±`significand` × 2^`exponent`, with bit 127 of the significand set, or zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
}

impl Wide {
    pub const ZERO: Self = Self::positive(0, 0);
    pub const ONE: Self = Self::positive(-127, 1 << 127);

    pub const fn positive(exponent: i32, significand: u128) -> Self {
        Self {
            negative: false,
            exponent,
            significand,
        }
    }

    pub fn integer(value: i64) -> Self {
        Self::new(value < 0, 0, value.unsigned_abs().into())
    }

    fn new(negative: bool, exponent: i32, significand: u128) -> Self {
        let shift = significand.leading_zeros();
        if shift == 128 {
            return Self::ZERO;
        }
        Self {
            negative,
            exponent: exponent - shift as i32,
            significand: significand << shift,
        }
    }

    pub fn from_number(number: Number) -> Self {
        Self::new(number.negative, number.exponent, number.significand)
    }

    /// For rounding, as a value that is not exact.
    pub fn to_number(self) -> Number {
        Number {
            negative: self.negative,
            exponent: self.exponent,
            significand: self.significand | 1,
        }
    }

    pub fn is_zero(self) -> bool {
        self.significand == 0
    }

    pub fn negated(self) -> Self {
        Self {
            negative: !self.negative,
            ..self
        }
    }

    pub fn absolute(self) -> Self {
        Self {
            negative: false,
            ..self
        }
    }

    /// Compares magnitudes.
    pub fn compare_magnitude(self, other: Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => (self.exponent, self.significand).cmp(&(other.exponent, other.significand)),
        }
    }

    pub fn add(self, other: Self) -> Self {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let (large, small) = if self.compare_magnitude(other) == Ordering::Less {
            (other, self)
        } else {
            (self, other)
        };
        let distance = (large.exponent - small.exponent) as u32;
        if large.negative == small.negative {
            let aligned = small.significand.checked_shr(distance).unwrap_or(0);
            match large.significand.checked_add(aligned) {
                Some(sum) => Self::new(large.negative, large.exponent, sum),
                None => Self::new(
                    large.negative,
                    large.exponent + 1,
                    1 << 127 | large.significand.wrapping_add(aligned) >> 1,
                ),
            }
        } else {
            // Rounded up where anything is lost, so that the difference is cut off.
            let aligned = shift_right_sticky(small.significand, distance);
            Self::new(large.negative, large.exponent, large.significand - aligned)
        }
    }

    pub fn subtract(self, other: Self) -> Self {
        self.add(other.negated())
    }

    pub fn multiply(self, other: Self) -> Self {
        let high = multiply_high(self.significand, other.significand);
        Self::new(
            self.negative != other.negative,
            self.exponent + other.exponent + 128,
            high,
        )
    }

    /// The quotient by anything but zero.
    pub fn divide(self, other: Self) -> Self {
        if self.is_zero() {
            return Self::ZERO;
        }
        let divisor = other.significand;
        // Digit by digit; the rest is below twice the divisor, so that one subtraction is enough.
        let mut rest = self.significand;
        let mut carry = false;
        let mut quotient = 0u128;
        let mut bits = -1;
        while quotient >> 127 == 0 {
            let fits = carry || rest >= divisor;
            if fits {
                rest = rest.wrapping_sub(divisor);
            }
            quotient = quotient << 1 | u128::from(fits);
            bits += 1;
            carry = rest >> 127 != 0;
            rest <<= 1;
        }
        Self::new(
            self.negative != other.negative,
            self.exponent - other.exponent - bits,
            quotient,
        )
    }

    /// The magnitude as a fixed-point number with 127 bits below the point, cut off; it is below 2.
    pub fn to_fixed(self) -> u128 {
        debug_assert!(self.is_zero() || self.exponent <= -127);
        let shift = (-127 - self.exponent).unsigned_abs();
        self.significand.checked_shr(shift).unwrap_or(0)
    }

    /// From a fixed-point number with 127 bits below the point.
    pub fn from_fixed(value: u128) -> Self {
        Self::new(false, -127, value)
    }
}

/// The high half of a product of 256 bits.
pub(super) fn multiply_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let low = (a0 * b0) >> 64;
    let middle = a1 * b0 + low;
    let (middle_high, middle_low) = (middle >> 64, middle & LOW);
    let middle = a0 * b1 + middle_low;
    a1 * b1 + middle_high + (middle >> 64)
}

/// The product of two fixed-point numbers with 127 bits below the point, below 2 itself.
pub(super) fn multiply_fixed(a: u128, b: u128) -> u128 {
    multiply_high(a, b) << 1
}
