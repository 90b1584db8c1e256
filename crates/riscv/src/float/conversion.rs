//! The public conversions between the formats and to and from integers: the host where it is known
//! to be right, the software otherwise.

use core::ops::RangeInclusive;

use super::host::HostConversion;
use super::{Flags, RoundingMode, host, software};

/// Conversions between one format and one integer type.
macro_rules! integer_conversions {
    (
        $bits:ident, $float:ident, $integer:ident,
        $to_instruction:literal, $to:ident, $from_instruction:literal, $from:ident
    ) => {
        #[doc = concat!("`", $to_instruction, "`: rounded by `rm`. What does not fit saturates and raises only")]
        /// invalid; so does a NaN, which gives the largest value. Adds to `flags`.
        #[inline]
        #[must_use]
        pub fn $to(a: $bits, rm: RoundingMode, flags: &mut Flags) -> $integer {
            const RANGE: RangeInclusive<i128> = $integer::MIN as i128..=$integer::MAX as i128;
            let float = $float::from_bits(a);
            if let Some((integer, accrued)) = HostConversion::<$integer>::to_integer(float, rm) {
                flags.raise(accrued);
                return integer;
            }
            software::to_integer::<$float>(a.into(), RANGE, rm, flags) as $integer
        }

        #[doc = concat!("`", $from_instruction, "`: rounded by `rm`. Adds to `flags`.")]
        #[inline]
        #[must_use]
        pub fn $from(integer: $integer, rm: RoundingMode, flags: &mut Flags) -> $bits {
            let rounding_applies = host::applies(rm, *flags);
            if let Some(float) = $float::from_integer(integer, rounding_applies) {
                return float.to_bits();
            }
            software::from_integer::<$float>(integer.into(), rm, flags) as $bits
        }
    };
}

integer_conversions!(
    u32, f32, i32, "FCVT.W.S", f32_to_i32, "FCVT.S.W", i32_to_f32
);
integer_conversions!(
    u32,
    f32,
    u32,
    "FCVT.WU.S",
    f32_to_u32,
    "FCVT.S.WU",
    u32_to_f32
);
integer_conversions!(
    u32, f32, i64, "FCVT.L.S", f32_to_i64, "FCVT.S.L", i64_to_f32
);
integer_conversions!(
    u32,
    f32,
    u64,
    "FCVT.LU.S",
    f32_to_u64,
    "FCVT.S.LU",
    u64_to_f32
);
integer_conversions!(
    u64, f64, i32, "FCVT.W.D", f64_to_i32, "FCVT.D.W", i32_to_f64
);
integer_conversions!(
    u64,
    f64,
    u32,
    "FCVT.WU.D",
    f64_to_u32,
    "FCVT.D.WU",
    u32_to_f64
);
integer_conversions!(
    u64, f64, i64, "FCVT.L.D", f64_to_i64, "FCVT.D.L", i64_to_f64
);
integer_conversions!(
    u64,
    f64,
    u64,
    "FCVT.LU.D",
    f64_to_u64,
    "FCVT.D.LU",
    u64_to_f64
);

/// `FCVT.D.S`: always exact; a NaN becomes the canonical one, a signaling one raises invalid.
#[inline]
#[must_use]
pub fn f32_to_f64(a: u32, flags: &mut Flags) -> u64 {
    let float = f32::from_bits(a);
    if !float.is_nan() {
        return f64::from(float).to_bits();
    }
    software::convert::<f32, f64>(a.into(), RoundingMode::NearestEven, flags)
}

/// `FCVT.S.D`: rounded by `rm`. Adds to `flags`.
#[inline]
#[must_use]
pub fn f64_to_f32(a: u64, rm: RoundingMode, flags: &mut Flags) -> u32 {
    if let Some(narrowed) = host::narrow(f64::from_bits(a), host::applies(rm, *flags)) {
        return narrowed.to_bits();
    }
    software::convert::<f64, f32>(a, rm, flags) as u32
}
