//! Zfhmin's conversions and Zfa (unprivileged specification, 24 and 25). All of it in software: programs
//! use it rarely.

use super::software::{self, Half};
use super::{Flags, RoundingMode};

/// `FCVT.S.H`: always exact; a NaN becomes the canonical one, a signaling one raises invalid.
#[must_use]
pub fn f16_to_f32(a: u16, flags: &mut Flags) -> u32 {
    software::convert::<Half, f32>(a.into(), RoundingMode::NearestEven, flags) as u32
}

/// `FCVT.D.H`: likewise.
#[must_use]
pub fn f16_to_f64(a: u16, flags: &mut Flags) -> u64 {
    software::convert::<Half, f64>(a.into(), RoundingMode::NearestEven, flags)
}

/// `FCVT.H.S`: rounded by `rm`. Adds to `flags`.
#[must_use]
pub fn f32_to_f16(a: u32, rm: RoundingMode, flags: &mut Flags) -> u16 {
    software::convert::<f32, Half>(a.into(), rm, flags) as u16
}

/// `FCVT.H.D`: rounded by `rm`. Adds to `flags`.
#[must_use]
pub fn f64_to_f16(a: u64, rm: RoundingMode, flags: &mut Flags) -> u16 {
    software::convert::<f64, Half>(a, rm, flags) as u16
}

/// The operations of Zfa in one format.
macro_rules! operations {
    (
        $bits:ident, $float:ident, $instruction:literal,
        $min:ident, $max:ident, $lt:ident, $le:ident, $round:ident, $round_exact:ident $(,)?
    ) => {
        #[doc = concat!("`FMINM.", $instruction, "`: the smaller operand, -0 below +0; a NaN if there is one.")]
        #[must_use]
        pub fn $min(a: $bits, b: $bits, flags: &mut Flags) -> $bits {
            software::min_or_nan::<$float>(a.into(), b.into(), flags) as $bits
        }

        #[doc = concat!("`FMAXM.", $instruction, "`: the larger operand, +0 above -0; a NaN if there is one.")]
        #[must_use]
        pub fn $max(a: $bits, b: $bits, flags: &mut Flags) -> $bits {
            software::max_or_nan::<$float>(a.into(), b.into(), flags) as $bits
        }

        #[doc = concat!("`FLTQ.", $instruction, "`: whether `a` < `b`. Only a signaling NaN raises invalid.")]
        #[must_use]
        pub fn $lt(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            software::lt_quiet::<$float>(a.into(), b.into(), flags)
        }

        #[doc = concat!("`FLEQ.", $instruction, "`: whether `a` ≤ `b`. Only a signaling NaN raises invalid.")]
        #[must_use]
        pub fn $le(a: $bits, b: $bits, flags: &mut Flags) -> bool {
            software::le_quiet::<$float>(a.into(), b.into(), flags)
        }

        #[doc = concat!("`FROUND.", $instruction, "`: the integral number that `rm` rounds to. Never inexact.")]
        #[must_use]
        pub fn $round(a: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            software::round_to_integral::<$float>(a.into(), rm, flags).0 as $bits
        }

        #[doc = concat!("`FROUNDNX.", $instruction, "`: likewise; inexact if that changed it.")]
        #[must_use]
        pub fn $round_exact(a: $bits, rm: RoundingMode, flags: &mut Flags) -> $bits {
            let (integral, inexact) = software::round_to_integral::<$float>(a.into(), rm, flags);
            if inexact {
                flags.raise(Flags::INEXACT);
            }
            integral as $bits
        }
    };
}

operations!(
    u32,
    f32,
    "S",
    min_or_nan_f32,
    max_or_nan_f32,
    lt_quiet_f32,
    le_quiet_f32,
    round_f32,
    round_exact_f32,
);
operations!(
    u64,
    f64,
    "D",
    min_or_nan_f64,
    max_or_nan_f64,
    lt_quiet_f64,
    le_quiet_f64,
    round_f64,
    round_exact_f64,
);

/// `FCVTMOD.W.D`: towards zero, modulo 2^32.
#[must_use]
pub fn f64_to_i32_modular(a: u64, flags: &mut Flags) -> i32 {
    software::to_word_modular::<f64>(a, flags)
}

/// The constants of `FLI` by the number of rs1 (table "Immediate values loaded by the FLI
/// instructions"), in single precision, where all but the smallest normal number of a format have their
/// value: numbers 1 and 31 are of the format's own.
const CONSTANTS: [f32; 32] = [
    -1.0,
    f32::MIN_POSITIVE,
    1.0 / 65536.0,
    1.0 / 32768.0,
    1.0 / 256.0,
    1.0 / 128.0,
    0.0625,
    0.125,
    0.25,
    0.3125,
    0.375,
    0.4375,
    0.5,
    0.625,
    0.75,
    0.875,
    1.0,
    1.25,
    1.5,
    1.75,
    2.0,
    2.5,
    3.0,
    4.0,
    8.0,
    16.0,
    128.0,
    256.0,
    32768.0,
    65536.0,
    f32::INFINITY,
    f32::NAN,
];

/// `FLI.S`: the constant of this number, taken modulo 32.
#[must_use]
pub fn constant_f32(number: u8) -> u32 {
    match number & 31 {
        31 => super::CANONICAL_NAN_F32,
        number => CONSTANTS[number as usize].to_bits(),
    }
}

/// `FLI.D`: likewise.
#[must_use]
pub fn constant_f64(number: u8) -> u64 {
    match number & 31 {
        1 => f64::MIN_POSITIVE.to_bits(),
        31 => super::CANONICAL_NAN_F64,
        number => f64::from(CONSTANTS[number as usize]).to_bits(),
    }
}
