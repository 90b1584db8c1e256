//! Exact arithmetic on numbers of at most 64 significant bits; what cannot be exact keeps more
//! bits than any format has, and a sticky one.

use core::cmp::Ordering;

use super::number::{Number, shift_right_sticky};

/// `a` + `b`; nothing where they cancel exactly.
pub(crate) fn add(a: Number, b: Number) -> Option<Number> {
    let (large, small) = if magnitude(a, b) == Ordering::Less {
        (b, a)
    } else {
        (a, b)
    };
    let (large, small) = (large.normalised(), small.normalised());
    // One bit of room for the carry.
    let distance = (large.exponent - small.exponent) as u32;
    let aligned = shift_right_sticky(small.significand >> 1, distance);
    let base = large.significand >> 1;
    let significand = if large.negative == small.negative {
        base + aligned
    } else {
        base - aligned
    };
    (significand != 0).then_some(Number {
        negative: large.negative,
        exponent: large.exponent + 1,
        significand,
    })
}

/// Compares magnitudes.
fn magnitude(a: Number, b: Number) -> Ordering {
    let (a, b) = (a.normalised(), b.normalised());
    (a.exponent, a.significand).cmp(&(b.exponent, b.significand))
}

/// Compares values.
pub(crate) fn compare(a: Number, b: Number) -> Ordering {
    match (a.negative, b.negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => magnitude(a, b),
        (true, true) => magnitude(b, a),
    }
}

/// `a` × `b`, exact.
pub(crate) fn multiply(a: Number, b: Number) -> Number {
    let (a_bits, a_exponent) = top(a);
    let (b_bits, b_exponent) = top(b);
    Number {
        negative: a.negative != b.negative,
        exponent: a_exponent + b_exponent,
        significand: u128::from(a_bits) * u128::from(b_bits),
    }
}

/// `a` ÷ `b`: at least 95 bits of the quotient, the lowest one sticky.
pub(crate) fn divide(a: Number, b: Number) -> Number {
    let (a_bits, a_exponent) = top(a);
    let (b_bits, b_exponent) = top(b);
    let divisor = u128::from(b_bits);
    let dividend = u128::from(a_bits) << 64;
    let high = dividend / divisor;
    let rest = (dividend % divisor) << 32;
    let low = rest / divisor;
    let sticky = u128::from(rest % divisor != 0);
    Number {
        negative: a.negative != b.negative,
        exponent: a_exponent - b_exponent - 64 - 32 - 1,
        significand: (high << 32 | low) << 1 | sticky,
    }
}

/// The square root of a positive number: 67 bits, the lowest one sticky.
pub(crate) fn square_root(x: Number) -> Number {
    let (bits, exponent) = top(x);
    let odd = exponent & 1 != 0;
    // The radicand has an even exponent and 127 or 128 bits.
    let (radicand, exponent) = if odd {
        (u128::from(bits) << 63, exponent - 63)
    } else {
        (u128::from(bits) << 64, exponent - 64)
    };
    let mut root = radicand.isqrt();
    let mut rest = radicand - root * root;
    // Two more bits, digit by digit.
    for _ in 0..2 {
        let trial = root << 2 | 1;
        rest <<= 2;
        root <<= 1;
        if rest >= trial {
            rest -= trial;
            root |= 1;
        }
    }
    Number {
        negative: false,
        exponent: exponent / 2 - 3,
        significand: root << 1 | u128::from(rest != 0),
    }
}

/// The 64 bits from the leading one on, with the exponent of the lowest. The number has no more
/// bits than that.
fn top(x: Number) -> (u64, i32) {
    let x = x.normalised();
    debug_assert_eq!(x.significand as u64, 0);
    ((x.significand >> 64) as u64, x.exponent + 64)
}
