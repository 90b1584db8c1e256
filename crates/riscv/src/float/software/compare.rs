//! Comparisons, minimum and maximum, classification.

use super::format::{Format, is_nan, is_signaling_nan, nan};
use crate::float::Flags;

/// An integer that is ordered as the numbers are; both zeros give 0. Not for NaNs.
fn order<F: Format>(bits: u64) -> i64 {
    let magnitude = (bits & !F::SIGN) as i64;
    if bits & F::SIGN == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// Quiet equality: only a signaling NaN is invalid.
#[inline]
pub(in crate::float) fn eq<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        nan::<F>(&[a, b], flags);
        return false;
    }
    order::<F>(a) == order::<F>(b)
}

/// Signaling less-than: any NaN is invalid.
#[inline]
pub(in crate::float) fn lt<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    ordered::<F>(a, b, flags) && order::<F>(a) < order::<F>(b)
}

/// Signaling less-or-equal: any NaN is invalid.
#[inline]
pub(in crate::float) fn le<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    ordered::<F>(a, b, flags) && order::<F>(a) <= order::<F>(b)
}

/// Quiet less-than: only a signaling NaN is invalid.
#[inline]
pub(in crate::float) fn lt_quiet<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        nan::<F>(&[a, b], flags);
        return false;
    }
    order::<F>(a) < order::<F>(b)
}

/// Quiet less-or-equal: only a signaling NaN is invalid.
#[inline]
pub(in crate::float) fn le_quiet<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        nan::<F>(&[a, b], flags);
        return false;
    }
    order::<F>(a) <= order::<F>(b)
}

/// minimum of IEEE 754-2019, 9.6: as [`min`], but a NaN wins.
#[inline]
pub(in crate::float) fn min_or_nan<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan::<F>(&[a, b], flags);
    }
    min::<F>(a, b, flags)
}

/// maximum of IEEE 754-2019, 9.6: as [`max`], but a NaN wins.
#[inline]
pub(in crate::float) fn max_or_nan<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    if is_nan::<F>(a) || is_nan::<F>(b) {
        return nan::<F>(&[a, b], flags);
    }
    max::<F>(a, b, flags)
}

#[inline]
fn ordered<F: Format>(a: u64, b: u64, flags: &mut Flags) -> bool {
    let ordered = !is_nan::<F>(a) && !is_nan::<F>(b);
    if !ordered {
        flags.raise(Flags::INVALID);
    }
    ordered
}

/// minimumNumber of IEEE 754-2019, 9.6, with -0 below +0.
#[inline]
pub(in crate::float) fn min<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    select::<F>(a, b, flags, |a, b| {
        if total_order::<F>(a) <= total_order::<F>(b) {
            a
        } else {
            b
        }
    })
}

/// maximumNumber of IEEE 754-2019, 9.6, with +0 above -0.
#[inline]
pub(in crate::float) fn max<F: Format>(a: u64, b: u64, flags: &mut Flags) -> u64 {
    select::<F>(a, b, flags, |a, b| {
        if total_order::<F>(a) >= total_order::<F>(b) {
            a
        } else {
            b
        }
    })
}

/// As [`order`], with -0 below +0.
fn total_order<F: Format>(bits: u64) -> i64 {
    let magnitude = (bits & !F::SIGN) as i64;
    if bits & F::SIGN == 0 {
        magnitude
    } else {
        !magnitude
    }
}

#[inline]
fn select<F: Format>(a: u64, b: u64, flags: &mut Flags, pick: impl Fn(u64, u64) -> u64) -> u64 {
    if is_signaling_nan::<F>(a) || is_signaling_nan::<F>(b) {
        flags.raise(Flags::INVALID);
    }
    match (is_nan::<F>(a), is_nan::<F>(b)) {
        (true, true) => F::CANONICAL_NAN,
        (true, false) => b,
        (false, true) => a,
        (false, false) => pick(a, b),
    }
}

/// The mask that `FCLASS` gives (table "Format of result of FCLASS instruction"): one bit of ten.
#[inline]
pub(in crate::float) fn classify<F: Format>(bits: u64) -> u16 {
    let magnitude = bits & !F::SIGN;
    if is_nan::<F>(bits) {
        return if is_signaling_nan::<F>(bits) {
            1 << 8
        } else {
            1 << 9
        };
    }
    // Counted outwards from zero: the positive classes go up from bit 4, the negative ones down
    // from bit 3.
    let distance = if magnitude == 0 {
        0
    } else if magnitude < 1 << F::FRACTION_BITS {
        1
    } else if magnitude < F::INFINITY {
        2
    } else {
        3
    };
    if bits & F::SIGN == 0 {
        1 << (4 + distance)
    } else {
        1 << (3 - distance)
    }
}
