//! The fast path: the host's own arithmetic, where its result and its silence are known to be right.
//!
//! Rust's `+ - * /`, `sqrt`, `mul_add` and `as` on `f32` and `f64` are the operations of IEEE 754,
//! rounded to nearest even, so every host gives the same number. What hosts differ in is the sign
//! and payload of a NaN and the detection of tininess, and they do not report flags here. Hence each
//! function answers only where no flag but inexact can be due, and `None` otherwise. Most of them
//! cannot tell an inexact result from an exact one, and are for callers to whom [`applies`].

use core::ops::{Add, Div, Mul, Sub};

use super::{Flags, RoundingMode};

/// On 32-bit x86, arithmetic may go through the x87 unit, which rounds twice.
const HOST_IS_EXACT: bool = !cfg!(target_arch = "x86");

/// Whether the host's rounding may be used without asking if it changed the result: its mode is the
/// one asked for, and inexact is raised already.
#[inline(always)]
pub(super) fn applies(rm: RoundingMode, flags: Flags) -> bool {
    HOST_IS_EXACT && rm == RoundingMode::NearestEven && flags.contains(Flags::INEXACT)
}

/// A floating-point type of the host.
pub(super) trait HostFloat:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    /// The smallest normal number.
    const MIN_POSITIVE: Self;
    const ZERO: Self;

    fn is_finite(self) -> bool;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    fn mul_add(self, b: Self, c: Self) -> Self;
}

macro_rules! impl_host_float {
    ($float:ident) => {
        impl HostFloat for $float {
            const MIN_POSITIVE: Self = $float::MIN_POSITIVE;
            const ZERO: Self = 0.0;

            #[inline(always)]
            fn is_finite(self) -> bool {
                $float::is_finite(self)
            }

            #[inline(always)]
            fn abs(self) -> Self {
                $float::abs(self)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                $float::sqrt(self)
            }

            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                $float::mul_add(self, b, c)
            }
        }
    };
}

impl_host_float!(f32);
impl_host_float!(f64);

/// Finite, and so large that it was not tiny before it was rounded. A finite result that was
/// computed without an exact zero also means that all operands were finite.
#[inline(always)]
fn is_finite_and_not_tiny<H: HostFloat>(result: H) -> bool {
    result.is_finite() && result.abs() > H::MIN_POSITIVE
}

/// A finite sum raises nothing but inexact (where it is subnormal it is exact), and whether it is
/// inexact is cheap to tell. So this works with inexact raised or not: programs that count in whole
/// numbers may never raise it.
#[inline(always)]
pub(super) fn add<H: HostFloat>(a: H, b: H, rm: RoundingMode, flags: &mut Flags) -> Option<H> {
    if !HOST_IS_EXACT || rm != RoundingMode::NearestEven {
        return None;
    }
    let sum = a + b;
    if !sum.is_finite() {
        return None;
    }
    if !flags.contains(Flags::INEXACT) && rounding_error(a, b, sum) != H::ZERO {
        flags.raise(Flags::INEXACT);
    }
    Some(sum)
}

/// What `sum` lacks of `a` + `b` (Knuth's 2Sum). A step can overflow and make it a NaN, but only
/// where the sum was rounded: the steps from an exact sum lead back to `b` and `a` themselves.
#[inline(always)]
fn rounding_error<H: HostFloat>(a: H, b: H, sum: H) -> H {
    let b_part = sum - a;
    let a_part = sum - b_part;
    (a - a_part) + (b - b_part)
}

#[inline(always)]
pub(super) fn mul<H: HostFloat>(a: H, b: H) -> Option<H> {
    let product = a * b;
    let exact_zero = product == H::ZERO && (a == H::ZERO || b == H::ZERO);
    (is_finite_and_not_tiny(product) || exact_zero).then_some(product)
}

#[inline(always)]
pub(super) fn div<H: HostFloat>(a: H, b: H) -> Option<H> {
    let quotient = a / b;
    let exact_zero = quotient == H::ZERO && a == H::ZERO;
    (is_finite_and_not_tiny(quotient) || exact_zero).then_some(quotient)
}

/// A root is never tiny; a negative operand gives a NaN.
#[inline(always)]
pub(super) fn sqrt<H: HostFloat>(a: H) -> Option<H> {
    let root = a.sqrt();
    root.is_finite().then_some(root)
}

#[inline(always)]
pub(super) fn fma<H: HostFloat>(a: H, b: H, c: H) -> Option<H> {
    let result = a.mul_add(b, c);
    is_finite_and_not_tiny(result).then_some(result)
}

/// A narrowing that raises nothing new. An exact one is right in every rounding mode; any other
/// counts only where `rounding_applies` (see [`applies`]).
#[inline(always)]
pub(super) fn narrow(a: f64, rounding_applies: bool) -> Option<f32> {
    let narrowed = a as f32;
    let exact = f64::from(narrowed) == a;
    let usable = exact || (rounding_applies && is_finite_and_not_tiny(narrowed));
    (HOST_IS_EXACT && usable).then_some(narrowed)
}

/// Conversions between a format and an integer type.
pub(super) trait HostConversion<I>: Sized {
    /// The rounded integer and the flags to raise for it.
    fn to_integer(self, rm: RoundingMode) -> Option<(I, Flags)>;

    /// The rounded number. An exact one is right in every rounding mode; any other counts only
    /// where `rounding_applies` (see [`applies`]).
    fn from_integer(integer: I, rounding_applies: bool) -> Option<Self>;
}

// The host's `as` truncates and saturates. A way there and back that ends where it began was exact,
// but for the type's largest value: as a float it may become the power of two above, which comes
// back as the largest value again.
macro_rules! impl_host_conversion {
    ($float:ident, $integer:ident) => {
        impl HostConversion<$integer> for $float {
            #[inline(always)]
            fn to_integer(self, rm: RoundingMode) -> Option<($integer, Flags)> {
                let truncated = self as $integer;
                let back = truncated as $float;
                if !HOST_IS_EXACT || truncated == $integer::MAX || self.is_nan() {
                    return None;
                }
                if back == self {
                    return Some((truncated, Flags::NONE));
                }
                if truncated == $integer::MIN {
                    return None;
                }
                // Not saturated, so there is room for one step. A number that has a fraction is
                // small enough for `back` to be exact.
                let rounded = match rm {
                    RoundingMode::TowardZero => truncated,
                    RoundingMode::Down => truncated - $integer::from(back > self),
                    RoundingMode::Up => truncated + $integer::from(back < self),
                    RoundingMode::NearestEven | RoundingMode::NearestMaxMagnitude => return None,
                };
                Some((rounded, Flags::INEXACT))
            }

            #[inline(always)]
            fn from_integer(integer: $integer, rounding_applies: bool) -> Option<Self> {
                let float = integer as $float;
                let exact = integer != $integer::MAX && float as $integer == integer;
                (HOST_IS_EXACT && (exact || rounding_applies)).then_some(float)
            }
        }
    };
}

impl_host_conversion!(f32, i32);
impl_host_conversion!(f32, u32);
impl_host_conversion!(f32, i64);
impl_host_conversion!(f32, u64);
impl_host_conversion!(f64, i32);
impl_host_conversion!(f64, u32);
impl_host_conversion!(f64, i64);
impl_host_conversion!(f64, u64);
