//! Values at which instructions change their ways.

use super::layout::{DATA, DATA_PAGES};
use super::random::Random;

const EDGES: &[u64] = &[
    0,
    1,
    2,
    u64::MAX,
    u64::MAX - 1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_7fff_ffff,
    0xffff_ffff_ffff_ff80,
    0xffff_ffff_ffff_8000,
    1 << 63,
    (1 << 63) - 1,
    31,
    32,
    63,
    64,
    0x0123_4567_89ab_cdef,
    0xfedc_ba98_7654_3210,
];

/// Bits of an integer register.
pub fn integer(random: &mut Random) -> u64 {
    match random.below(8) {
        0..4 => random.pick(EDGES),
        4 => DATA + random.below(DATA_PAGES * 4096),
        5 => random.bits(),
        _ => random.magnitude(),
    }
}

/// Single-precision bits: zeros, subnormals, one, the limits of integers, infinities, NaNs.
const SINGLES: &[u32] = &[
    0,
    1,
    0x007f_ffff,
    0x0080_0000,
    0x3f80_0000,
    0x3fff_ffff,
    0x4b00_0001,
    0x4f00_0000,
    0x5f00_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7f80_0001,
    0x7fc0_0000,
    0x7fff_ffff,
];

const DOUBLES: &[u64] = &[
    0,
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x3690_0000_0000_0000, // the least single-precision subnormal
    0x3810_0000_0000_0000, // the least single-precision normal
    0x3ff0_0000_0000_0000,
    0x3fff_ffff_ffff_ffff,
    0x41df_ffff_ffc0_0000, // 2^31 - 1
    0x43e0_0000_0000_0000, // 2^63
    0x4340_0000_0000_0001,
    0x47ef_ffff_e000_0000, // the greatest single-precision number
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0x7ff8_0000_0000_0000,
    0x7fff_ffff_ffff_ffff,
];

/// Bits of a floating-point register: either precision, boxed or not, quiet and signalling NaNs.
pub fn float(random: &mut Random) -> u64 {
    let sign = random.bits() & 1;
    let single = |value: u32| u64::from(value) | sign << 31 | 0xffff_ffff << 32;
    match random.below(8) {
        0..2 => single(random.pick(SINGLES)),
        2 => single(random.bits() as u32),
        3 => single(random.pick(SINGLES)) ^ 1 << (32 + random.below(32)), // not boxed
        4..6 => random.pick(DOUBLES) | sign << 63,
        6 => (random.below(2000) as f64 / 16.0).to_bits() | sign << 63,
        _ => random.bits(),
    }
}
