//! The public operations within one format: the host where it is known to be right, the software
//! otherwise.

use super::{Flags, RoundingMode, host, software};

/// The operations of one format. `$bits` holds an encoding, `$float` is the host's type of it.
macro_rules! operations {
    (
        $bits:ident, $float:ident, $instruction:literal,
        $add:ident, $sub:ident, $mul:ident, $div:ident, $sqrt:ident, $fma:ident,
        $min:ident, $max:ident, $eq:ident, $lt:ident, $le:ident, $classify:ident $(,)?
    ) => {
        #[doc = concat!("`FADD.", $instruction, "`: `a` + `b`, rounded by `rm`. Adds to `flags`.")]
        #[inline]
        #[must_use]
        pub fn $add(a: $bits, b: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            if let Some(sum) =
                host::add($float::from_bits(a), $float::from_bits(b), rm, flags)
            {
                return sum.to_bits();
            }
            software::add::<$float>(a.into(), b.into(), rm, flags) as $bits
        }

        #[doc = concat!("`FSUB.", $instruction, "`: `a` - `b`, rounded by `rm`. Adds to `flags`.")]
        #[inline]
        #[must_use]
        pub fn $sub(a: $bits, b: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            $add(a, b ^ (1 << ($bits::BITS - 1)), rm, flags)
        }

        #[doc = concat!("`FMUL.", $instruction, "`: `a` × `b`, rounded by `rm`. Adds to `flags`.")]
        #[inline]
        #[must_use]
        pub fn $mul(a: $bits, b: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            if host::applies(rm, *flags)
                && let Some(product) = host::mul($float::from_bits(a), $float::from_bits(b))
            {
                return product.to_bits();
            }
            software::mul::<$float>(a.into(), b.into(), rm, flags) as $bits
        }

        #[doc = concat!("`FDIV.", $instruction, "`: `a` ÷ `b`, rounded by `rm`. Adds to `flags`.")]
        #[inline]
        #[must_use]
        pub fn $div(a: $bits, b: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            if host::applies(rm, *flags)
                && let Some(quotient) = host::div($float::from_bits(a), $float::from_bits(b))
            {
                return quotient.to_bits();
            }
            software::div::<$float>(a.into(), b.into(), rm, flags) as $bits
        }

        #[doc = concat!("`FSQRT.", $instruction, "`: the square root of `a`, rounded by `rm`. Adds to `flags`.")]
        #[inline]
        #[must_use]
        pub fn $sqrt(a: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            if host::applies(rm, *flags)
                && let Some(root) = host::sqrt($float::from_bits(a))
            {
                return root.to_bits();
            }
            software::sqrt::<$float>(a.into(), rm, flags) as $bits
        }

        #[doc = concat!("`FMADD.", $instruction, "`: `a` × `b` + `c`, rounded once by `rm`. Adds to `flags`.")]
        ///
        /// The variants with other signs are this with flipped sign bits: `FMSUB` flips `c`,
        /// `FNMSUB` flips `a`, `FNMADD` flips `a` and `c`.
        #[inline]
        #[must_use]
        pub fn $fma(a: $bits, b: $bits, c: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            if host::applies(rm, *flags)
                && let Some(result) =
                    host::fma($float::from_bits(a), $float::from_bits(b), $float::from_bits(c))
            {
                return result.to_bits();
            }
            software::fma::<$float>(a.into(), b.into(), c.into(), rm, flags) as $bits
        }

        #[doc = concat!("`FMIN.", $instruction, "`: the smaller operand, -0 below +0; the other one of a NaN.")]
        /// Only a signaling NaN raises invalid.
        #[inline]
        #[must_use]
        pub fn $min(a: $bits, b: $bits, flags: &mut Flags) -> $bits {
            software::min::<$float>(a.into(), b.into(), flags) as $bits
        }

        #[doc = concat!("`FMAX.", $instruction, "`: the larger operand, +0 above -0; the other one of a NaN.")]
        /// Only a signaling NaN raises invalid.
        #[inline]
        #[must_use]
        pub fn $max(a: $bits, b: $bits, flags: &mut Flags) -> $bits {
            software::max::<$float>(a.into(), b.into(), flags) as $bits
        }

        #[doc = concat!("`FEQ.", $instruction, "`: whether `a` = `b`. Only a signaling NaN raises invalid.")]
        #[inline]
        #[must_use]
        pub fn $eq(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            software::eq::<$float>(a.into(), b.into(), flags)
        }

        #[doc = concat!("`FLT.", $instruction, "`: whether `a` < `b`. Any NaN raises invalid.")]
        #[inline]
        #[must_use]
        pub fn $lt(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            software::lt::<$float>(a.into(), b.into(), flags)
        }

        #[doc = concat!("`FLE.", $instruction, "`: whether `a` ≤ `b`. Any NaN raises invalid.")]
        #[inline]
        #[must_use]
        pub fn $le(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            software::le::<$float>(a.into(), b.into(), flags)
        }

        #[doc = concat!("`FCLASS.", $instruction, "`: the mask of ten bits that tells the class of `a`.")]
        #[inline]
        #[must_use]
        pub fn $classify(a: $bits) -> u16 {
            software::classify::<$float>(a.into())
        }
    };
}

operations!(
    u32,
    f32,
    "S",
    add_f32,
    sub_f32,
    mul_f32,
    div_f32,
    sqrt_f32,
    fma_f32,
    min_f32,
    max_f32,
    eq_f32,
    lt_f32,
    le_f32,
    classify_f32,
);
operations!(
    u64,
    f64,
    "D",
    add_f64,
    sub_f64,
    mul_f64,
    div_f64,
    sqrt_f64,
    fma_f64,
    min_f64,
    max_f64,
    eq_f64,
    lt_f64,
    le_f64,
    classify_f64,
);
