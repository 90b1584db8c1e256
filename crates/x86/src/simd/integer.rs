//! Packed integer arithmetic, comparisons and shifts of MMX, SSE2, SSSE3 and SSE4.1.

use super::bytewise;
use super::vector::Vector;

/// A mask of all ones where `condition` holds, in the lane's type.
macro_rules! mask {
    ($condition:expr) => {
        if $condition { !0 } else { 0 }
    };
}

/// `a` with the sign of `b` applied: negated, kept, or zero.
macro_rules! sign {
    ($a:expr, $b:expr) => {
        match $b.signum() {
            1 => $a,
            0 => 0,
            _ => $a.wrapping_neg(),
        }
    };
}

macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident: $zip:ident($a:ident: $from:ty as $lane:ty, $b:ident) => $body:expr;)*) => {
        $(
            $(#[$doc])*
            #[inline]
            pub(super) fn $name<V: Vector>(a: V, b: V) -> V {
                a.$zip(b, |$a: $from, $b: $from| {
                    let ($a, $b) = ($a as $lane, $b as $lane);
                    ($body) as $from
                })
            }
        )*
    };
}

lanewise! {
    paddb: zip64(a: u64 as u64, b) => bytewise::add(a, b);
    paddw: zip16(a: u16 as u16, b) => a.wrapping_add(b);
    paddd: zip32(a: u32 as u32, b) => a.wrapping_add(b);
    paddq: zip64(a: u64 as u64, b) => a.wrapping_add(b);
    psubb: zip64(a: u64 as u64, b) => bytewise::subtract(a, b);
    psubw: zip16(a: u16 as u16, b) => a.wrapping_sub(b);
    psubd: zip32(a: u32 as u32, b) => a.wrapping_sub(b);
    psubq: zip64(a: u64 as u64, b) => a.wrapping_sub(b);
    paddsb: zip8(a: u8 as i8, b) => a.saturating_add(b);
    paddsw: zip16(a: u16 as i16, b) => a.saturating_add(b);
    paddusb: zip64(a: u64 as u64, b) => bytewise::add_saturating(a, b);
    paddusw: zip16(a: u16 as u16, b) => a.saturating_add(b);
    psubsb: zip8(a: u8 as i8, b) => a.saturating_sub(b);
    psubsw: zip16(a: u16 as i16, b) => a.saturating_sub(b);
    psubusb: zip64(a: u64 as u64, b) => bytewise::subtract_saturating(a, b);
    psubusw: zip16(a: u16 as u16, b) => a.saturating_sub(b);
    pavgb: zip8(a: u8 as u16, b) => (a + b + 1) >> 1;
    pavgw: zip16(a: u16 as u32, b) => (a + b + 1) >> 1;
    pminub: zip64(a: u64 as u64, b) => bytewise::minimum(a, b);
    pminuw: zip16(a: u16 as u16, b) => a.min(b);
    pminud: zip32(a: u32 as u32, b) => a.min(b);
    pminsb: zip8(a: u8 as i8, b) => a.min(b);
    pminsw: zip16(a: u16 as i16, b) => a.min(b);
    pminsd: zip32(a: u32 as i32, b) => a.min(b);
    pmaxub: zip64(a: u64 as u64, b) => bytewise::maximum(a, b);
    pmaxuw: zip16(a: u16 as u16, b) => a.max(b);
    pmaxud: zip32(a: u32 as u32, b) => a.max(b);
    pmaxsb: zip8(a: u8 as i8, b) => a.max(b);
    pmaxsw: zip16(a: u16 as i16, b) => a.max(b);
    pmaxsd: zip32(a: u32 as i32, b) => a.max(b);
    pcmpeqb: zip64(a: u64 as u64, b) => bytewise::equal(a, b);
    pcmpeqw: zip16(a: u16 as u16, b) => mask!(a == b);
    pcmpeqd: zip32(a: u32 as u32, b) => mask!(a == b);
    pcmpeqq: zip64(a: u64 as u64, b) => mask!(a == b);
    pcmpgtb: zip64(a: u64 as u64, b) => bytewise::greater(a, b);
    pcmpgtw: zip16(a: u16 as i16, b) => mask!(a > b);
    pcmpgtd: zip32(a: u32 as i32, b) => mask!(a > b);
    pcmpgtq: zip64(a: u64 as i64, b) => mask!(a > b);
    pmullw: zip16(a: u16 as u16, b) => a.wrapping_mul(b);
    pmulhw: zip16(a: u16 as i16, b) => (i32::from(a) * i32::from(b)) >> 16;
    pmulhuw: zip16(a: u16 as u16, b) => (u32::from(a) * u32::from(b)) >> 16;
    pmulhrsw: zip16(a: u16 as i16, b) => (((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1;
    pmulld: zip32(a: u32 as u32, b) => a.wrapping_mul(b);
    pmuludq: zip64(a: u64 as u32, b) => u64::from(a) * u64::from(b);
    pmuldq: zip64(a: u64 as i32, b) => i64::from(a) * i64::from(b);
    psignb: zip8(a: u8 as i8, b) => sign!(a, b);
    psignw: zip16(a: u16 as i16, b) => sign!(a, b);
    psignd: zip32(a: u32 as i32, b) => sign!(a, b);
    pabsb: zip8(_a: u8 as i8, b) => b.unsigned_abs();
    pabsw: zip16(_a: u16 as i16, b) => b.unsigned_abs();
    pabsd: zip32(_a: u32 as i32, b) => b.unsigned_abs();
    pand: zip64(a: u64 as u64, b) => a & b;
    pandn: zip64(a: u64 as u64, b) => !a & b;
    por: zip64(a: u64 as u64, b) => a | b;
    pxor: zip64(a: u64 as u64, b) => a ^ b;
}

/// PMADDWD: products of signed words, added in pairs.
#[inline]
pub(super) fn pmaddwd<V: Vector>(a: V, b: V) -> V {
    let product = |i: usize| i32::from(a.word(i) as i16) * i32::from(b.word(i) as i16);
    V::build32(|i| product(2 * i).wrapping_add(product(2 * i + 1)) as u32)
}

/// PMADDUBSW: products of unsigned bytes of `a` with signed bytes of `b`, added in pairs with
/// signed saturation.
#[inline]
pub(super) fn pmaddubsw<V: Vector>(a: V, b: V) -> V {
    let product = |i: usize| i32::from(a.byte(i)) * i32::from(b.byte(i) as i8);
    V::build16(|i| saturate16(product(2 * i) + product(2 * i + 1)))
}

/// PSADBW: sums of absolute differences of eight bytes.
#[inline]
pub(super) fn psadbw<V: Vector>(a: V, b: V) -> V {
    a.zip64(b, |a, b| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        (0..8).map(|i| u64::from(a[i].abs_diff(b[i]))).sum()
    })
}

/// MPSADBW: eight sums of absolute differences of four bytes, at sliding places of `a`.
pub(super) fn mpsadbw(a: u128, b: u128, control: u8) -> u128 {
    let a_base = usize::from(control >> 2 & 1) * 4;
    let b_base = usize::from(control & 3) * 4;
    u128::build16(|i| {
        (0..4)
            .map(|j| u16::from(a.byte(a_base + i + j).abs_diff(b.byte(b_base + j))))
            .sum()
    })
}

/// PHMINPOSUW: the smallest word and where it first is.
pub(super) fn phminposuw(a: u128) -> u128 {
    let (index, smallest) = (1..8).fold((0, a.word(0)), |(index, smallest), i| {
        if a.word(i) < smallest {
            (i, a.word(i))
        } else {
            (index, smallest)
        }
    });
    u128::from(smallest) | (index as u128) << 16
}

/// An operation on pairs of neighbours: first those of `a`, then those of `b`.
macro_rules! horizontal {
    ($($name:ident: $build:ident, $lane:ident, $bytes:literal, |$x:ident, $y:ident| $body:expr;)*) => {
        $(
            #[inline]
            pub(super) fn $name<V: Vector>(a: V, b: V) -> V {
                let half = V::BYTES / $bytes / 2;
                V::$build(|i| {
                    let (from, i) = if i < half { (a, i) } else { (b, i - half) };
                    let ($x, $y) = (from.$lane(2 * i), from.$lane(2 * i + 1));
                    $body
                })
            }
        )*
    };
}

horizontal! {
    phaddw: build16, word, 2, |x, y| x.wrapping_add(y);
    phaddd: build32, dword, 4, |x, y| x.wrapping_add(y);
    phaddsw: build16, word, 2, |x, y| (x as i16).saturating_add(y as i16) as u16;
    phsubw: build16, word, 2, |x, y| x.wrapping_sub(y);
    phsubd: build32, dword, 4, |x, y| x.wrapping_sub(y);
    phsubsw: build16, word, 2, |x, y| (x as i16).saturating_sub(y as i16) as u16;
}

fn saturate16(value: i32) -> u16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as u16
}

/// A shift of every lane by one count; a count of the lane's width or more clears the lane, or
/// fills it with its sign.
macro_rules! shifts {
    ($($name:ident: $zip:ident, $bits:literal, $lane:ident, $full:ident, |$x:ident, $n:ident| $body:expr;)*) => {
        $(
            #[inline]
            pub(super) fn $name<V: Vector>(a: V, count: u64) -> V {
                let $n = shifts!(@count $full, count, $bits);
                let Some($n) = $n else { return V::truncate(0) };
                a.$zip(a, |$x: $lane, _| $body)
            }
        )*
    };
    (@count clears, $count:expr, $bits:literal) => {
        if $count < $bits { Some($count as u32) } else { None }
    };
    (@count fills, $count:expr, $bits:literal) => {
        Some($count.min($bits - 1) as u32)
    };
}

shifts! {
    psllw: zip16, 16, u16, clears, |x, n| x << n;
    pslld: zip32, 32, u32, clears, |x, n| x << n;
    psllq: zip64, 64, u64, clears, |x, n| x << n;
    psrlw: zip16, 16, u16, clears, |x, n| x >> n;
    psrld: zip32, 32, u32, clears, |x, n| x >> n;
    psrlq: zip64, 64, u64, clears, |x, n| x >> n;
    psraw: zip16, 16, u16, fills, |x, n| ((x as i16) >> n) as u16;
    psrad: zip32, 32, u32, fills, |x, n| ((x as i32) >> n) as u32;
}

/// PSLLDQ: to the left by bytes.
#[inline]
pub(super) fn pslldq(a: u128, bytes: u8) -> u128 {
    if bytes < 16 {
        a << (8 * u32::from(bytes))
    } else {
        0
    }
}

/// PSRLDQ: to the right by bytes.
#[inline]
pub(super) fn psrldq(a: u128, bytes: u8) -> u128 {
    if bytes < 16 {
        a >> (8 * u32::from(bytes))
    } else {
        0
    }
}
