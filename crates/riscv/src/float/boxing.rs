//! NaN-boxing of singles in 64-bit registers (chapter "D", "NaN Boxing of Narrower Values").

use super::{CANONICAL_NAN_F16, CANONICAL_NAN_F32};

const BOX: u64 = 0xffff_ffff_0000_0000;

/// The register value that holds `single`: all upper bits set.
#[inline]
#[must_use]
pub const fn box_f32(single: u32) -> u64 {
    BOX | single as u64
}

/// The single that an instruction reads from `register`: the low half where it is properly boxed,
/// the canonical NaN where it is not. (`FMV.X.W`, `FSW` and their like take the low half as it is
/// and do not use this.)
#[inline]
#[must_use]
pub const fn unbox_f32(register: u64) -> u32 {
    if register & BOX == BOX {
        register as u32
    } else {
        CANONICAL_NAN_F32
    }
}

const HALF_BOX: u64 = !0xffff;

/// The register value that holds `half`.
#[inline]
#[must_use]
pub const fn box_f16(half: u16) -> u64 {
    HALF_BOX | half as u64
}

/// As [`unbox_f32`], of a half.
#[inline]
#[must_use]
pub const fn unbox_f16(register: u64) -> u16 {
    if register & HALF_BOX == HALF_BOX {
        register as u16
    } else {
        CANONICAL_NAN_F16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boxed_single_comes_back_as_it_was_signaling_nan_included() {
        for single in [0, 0x8000_0000, 0x3f80_0000, 0x7f80_0001, 0xffff_ffff] {
            assert_eq!(box_f32(single) >> 32, 0xffff_ffff);
            assert_eq!(unbox_f32(box_f32(single)), single);
        }
    }

    #[test]
    fn a_register_that_is_not_boxed_reads_as_the_canonical_nan() {
        for register in [0x3f80_0000, 0x7fff_ffff_3f80_0000, 0xffff_fffe_3f80_0000, 0] {
            assert_eq!(unbox_f32(register), CANONICAL_NAN_F32);
        }
    }
}
