//! The single and double formats, and how their bits are taken apart and put together.

use super::number::Number;
use super::round::{Range, Rounded};

/// A binary interchange format (IEEE 754-2019, 3.4), whose encodings are held in the low bits of a
/// `u64`. Implemented for the Rust type of the same format, which only names it here.
pub(crate) trait Interchange {
    /// Width of the encoding, in bits.
    const BITS: u32;
    /// Width of the trailing significand field, in bits.
    const FRACTION_BITS: u32;

    /// What the exponent field adds to the exponent of a normal number's leading bit.
    const BIAS: i32 = (1 << (Self::BITS - Self::FRACTION_BITS - 2)) - 1;
    /// What a result can be.
    const RANGE: Range = Range {
        precision: Self::FRACTION_BITS + 1,
        min_exponent: 1 - Self::BIAS,
        max_exponent: Self::BIAS,
    };
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::BITS - 1);
    /// Positive infinity, which is also the mask of the exponent field.
    const INFINITY: u64 = Self::SIGN - (1 << Self::FRACTION_BITS);
    /// The smallest normal number.
    const MIN_NORMAL: u64 = 1 << Self::FRACTION_BITS;
    /// The bit that tells a quiet NaN from a signaling one.
    const QUIET: u64 = 1 << (Self::FRACTION_BITS - 1);
    /// The QNaN floating-point indefinite (volume 1, table 4-3).
    const INDEFINITE: u64 = Self::SIGN | Self::INFINITY | Self::QUIET;

    /// `a` + `b` by the host, rounded to the nearest. Only the bits of results that are neither NaN
    /// nor subnormal are used.
    fn host_add(a: u64, b: u64) -> u64;
    /// `a` × `b`, as [`host_add`](Self::host_add).
    fn host_multiply(a: u64, b: u64) -> u64;
    /// `a` ÷ `b`, as [`host_add`](Self::host_add).
    fn host_divide(a: u64, b: u64) -> u64;
    /// The square root of `a`, as [`host_add`](Self::host_add).
    fn host_square_root(a: u64) -> u64;

    /// An integer of at most [`Range::precision`] bits, which is exact.
    fn host_from_integer(integer: i64) -> u64;
    /// The integer part of a number that is neither NaN nor 2^63 or more.
    fn host_truncate(a: u64) -> i64;

    /// The encoding without its sign.
    #[inline]
    fn magnitude(bits: u64) -> u64 {
        bits & !Self::SIGN
    }

    /// Whether the sign bit is set.
    #[inline]
    fn negative(bits: u64) -> bool {
        bits & Self::SIGN != 0
    }

    /// Whether this is a NaN.
    #[inline]
    fn is_nan(bits: u64) -> bool {
        Self::magnitude(bits) > Self::INFINITY
    }

    /// Whether this is a NaN that signals.
    #[inline]
    fn is_signaling(bits: u64) -> bool {
        Self::is_nan(bits) && bits & Self::QUIET == 0
    }

    /// Whether this is subnormal and not zero.
    #[inline]
    fn is_denormal(bits: u64) -> bool {
        let magnitude = Self::magnitude(bits);
        magnitude != 0 && magnitude < Self::MIN_NORMAL
    }

    /// A zero of this sign.
    #[inline]
    fn zero(negative: bool) -> u64 {
        if negative { Self::SIGN } else { 0 }
    }

    /// An infinity of this sign.
    #[inline]
    fn infinity(negative: bool) -> u64 {
        Self::zero(negative) | Self::INFINITY
    }

    /// Takes an encoding apart.
    #[inline]
    fn unpack(bits: u64) -> Operand {
        let negative = Self::negative(bits);
        let magnitude = Self::magnitude(bits);
        if magnitude == 0 {
            return Operand::Zero { negative };
        }
        if magnitude >= Self::INFINITY {
            return if magnitude == Self::INFINITY {
                Operand::Infinite { negative }
            } else {
                Operand::Nan
            };
        }
        let fraction = bits & (Self::MIN_NORMAL - 1);
        let field = magnitude >> Self::FRACTION_BITS;
        let hidden = if field == 0 { 0 } else { Self::MIN_NORMAL };
        Operand::Finite(Number {
            negative,
            exponent: field.max(1) as i32 - Self::BIAS - Self::FRACTION_BITS as i32,
            significand: u128::from(hidden | fraction),
        })
    }

    /// The encoding of a number that was rounded to [`Self::RANGE`] and did not overflow.
    fn pack(rounded: Rounded) -> u64 {
        debug_assert!(!rounded.overflow);
        let fraction = rounded.significand >> (63 - Self::FRACTION_BITS);
        // The leading bit adds one to the exponent field, or leaves it zero for a subnormal number.
        let field = (rounded.exponent + Self::BIAS - 1) as u64;
        Self::zero(rounded.negative) | ((field << Self::FRACTION_BITS) + fraction)
    }
}

/// An encoding taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Zero { negative: bool },
    Finite(Number),
    Infinite { negative: bool },
    Nan,
}

macro_rules! interchange {
    ($float:ident, $bits:ident, $width:literal, $fraction:literal) => {
        impl Interchange for $float {
            const BITS: u32 = $width;
            const FRACTION_BITS: u32 = $fraction;

            #[inline]
            fn host_add(a: u64, b: u64) -> u64 {
                ($float::from_bits(a as $bits) + $float::from_bits(b as $bits))
                    .to_bits()
                    .into()
            }
            #[inline]
            fn host_multiply(a: u64, b: u64) -> u64 {
                ($float::from_bits(a as $bits) * $float::from_bits(b as $bits))
                    .to_bits()
                    .into()
            }
            #[inline]
            fn host_divide(a: u64, b: u64) -> u64 {
                ($float::from_bits(a as $bits) / $float::from_bits(b as $bits))
                    .to_bits()
                    .into()
            }
            #[inline]
            fn host_from_integer(integer: i64) -> u64 {
                (integer as $float).to_bits().into()
            }
            #[inline]
            fn host_truncate(a: u64) -> i64 {
                $float::from_bits(a as $bits) as i64
            }
            #[inline]
            fn host_square_root(a: u64) -> u64 {
                $float::from_bits(a as $bits).sqrt().to_bits().into()
            }
        }
    };
}

interchange!(f32, u32, 32, 23);
interchange!(f64, u64, 64, 52);
