//! Packing, unpacking, shuffling, blending, inserting, extracting: lanes that move.

use super::bytewise;
use super::vector::Vector;

/// Packs the wider lanes of `a`, then those of `b`, with saturation.
macro_rules! pack {
    ($($name:ident: $build:ident, $wide:ident, $narrow_bytes:literal, $signed:ident, $to:ident, $bits:ident;)*) => {
        $(
            #[inline]
            pub(super) fn $name<V: Vector>(a: V, b: V) -> V {
                let half = V::BYTES / $narrow_bytes / 2;
                V::$build(|i| {
                    let wide = if i < half { a.$wide(i) } else { b.$wide(i - half) };
                    (wide as $signed).clamp($to::MIN as $signed, $to::MAX as $signed) as $bits
                })
            }
        )*
    };
}

pack! {
    packsswb: build8, word, 1, i16, i8, u8;
    packuswb: build8, word, 1, i16, u8, u8;
    packssdw: build16, dword, 2, i32, i16, u16;
    packusdw: build16, dword, 2, i32, u16, u16;
}

/// Interleaves the low or the high halves of `a` and `b`.
macro_rules! unpack {
    ($($low:ident, $high:ident: $build:ident, $lane:ident, $bytes:literal;)*) => {
        $(
            #[inline]
            pub(super) fn $low<V: Vector>(a: V, b: V) -> V {
                V::$build(|i| if i % 2 == 0 { a.$lane(i / 2) } else { b.$lane(i / 2) })
            }
            #[inline]
            pub(super) fn $high<V: Vector>(a: V, b: V) -> V {
                let half = V::BYTES / $bytes / 2;
                V::$build(|i| {
                    let from = if i % 2 == 0 { a } else { b };
                    from.$lane(half + i / 2)
                })
            }
        )*
    };
}

unpack! {
    punpcklbw, punpckhbw: build8, byte, 1;
    punpcklwd, punpckhwd: build16, word, 2;
    punpckldq, punpckhdq: build32, dword, 4;
}

/// Two quadwords, the low one first.
#[inline]
pub(super) fn qwords(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// PUNPCKLQDQ, UNPCKLPD, MOVLHPS: the low quadwords.
#[inline]
pub(super) fn punpcklqdq(a: u128, b: u128) -> u128 {
    qwords(a.qword(0), b.qword(0))
}

/// PUNPCKHQDQ, UNPCKHPD: the high quadwords.
#[inline]
pub(super) fn punpckhqdq(a: u128, b: u128) -> u128 {
    qwords(a.qword(1), b.qword(1))
}

/// PSHUFB: bytes of `a` chosen by `control`; zero where its top bit is set.
#[inline]
pub(super) fn pshufb<V: Vector>(a: V, control: V) -> V {
    V::build8(|i| {
        let choice = control.byte(i);
        if choice & 0x80 == 0 {
            a.byte(usize::from(choice) & (V::BYTES - 1))
        } else {
            0
        }
    })
}

/// The field of two bits for lane `i`.
#[inline]
fn field(control: u8, i: usize) -> usize {
    usize::from(control >> (2 * (i & 3)) & 3)
}

/// PSHUFD.
#[inline]
pub(super) fn pshufd(a: u128, control: u8) -> u128 {
    u128::build32(|i| a.dword(field(control, i)))
}

/// PSHUFW.
#[inline]
pub(super) fn pshufw(a: u64, control: u8) -> u64 {
    u64::build16(|i| a.word(field(control, i)))
}

/// PSHUFLW.
#[inline]
pub(super) fn pshuflw(a: u128, control: u8) -> u128 {
    qwords(pshufw(a.qword(0), control), a.qword(1))
}

/// PSHUFHW.
#[inline]
pub(super) fn pshufhw(a: u128, control: u8) -> u128 {
    qwords(a.qword(0), pshufw(a.qword(1), control))
}

/// SHUFPS: the low lanes from `a`, the high ones from `b`.
#[inline]
pub(super) fn shufps(a: u128, b: u128, control: u8) -> u128 {
    u128::build32(|i| (if i < 2 { a } else { b }).dword(field(control, i)))
}

/// SHUFPD.
#[inline]
pub(super) fn shufpd(a: u128, b: u128, control: u8) -> u128 {
    qwords(
        a.qword(usize::from(control & 1)),
        b.qword(usize::from(control >> 1 & 1)),
    )
}

/// PALIGNR: `a` above `b`, shifted right by bytes.
#[inline]
pub(super) fn palignr(a: u128, b: u128, bytes: u8) -> u128 {
    let bits = 8 * u32::from(bytes);
    match bits {
        0 => b,
        1..128 => b >> bits | a << (128 - bits),
        _ => a.checked_shr(bits - 128).unwrap_or(0),
    }
}

/// PALIGNR of MMX.
#[inline]
pub(super) fn palignr_mmx(a: u64, b: u64, bytes: u8) -> u64 {
    qwords(b, a).checked_shr(8 * u32::from(bytes)).unwrap_or(0) as u64
}

/// PBLENDW: words of `b` where the control has a one.
pub(super) fn pblendw(a: u128, b: u128, control: u8) -> u128 {
    u128::build16(|i| {
        if control >> i & 1 == 0 {
            a.word(i)
        } else {
            b.word(i)
        }
    })
}

/// BLENDPS.
pub(super) fn blendps(a: u128, b: u128, control: u8) -> u128 {
    u128::build32(|i| {
        if control >> i & 1 == 0 {
            a.dword(i)
        } else {
            b.dword(i)
        }
    })
}

/// BLENDPD.
pub(super) fn blendpd(a: u128, b: u128, control: u8) -> u128 {
    let lane = |i: usize| {
        if control >> i & 1 == 0 {
            a.qword(i)
        } else {
            b.qword(i)
        }
    };
    qwords(lane(0), lane(1))
}

/// PBLENDVB: bytes of `b` where the mask's byte has its top bit set.
pub(super) fn pblendvb(a: u128, b: u128, mask: u128) -> u128 {
    u128::build8(|i| {
        if mask.byte(i) & 0x80 == 0 {
            a.byte(i)
        } else {
            b.byte(i)
        }
    })
}

/// BLENDVPS.
pub(super) fn blendvps(a: u128, b: u128, mask: u128) -> u128 {
    u128::build32(|i| {
        if mask.dword(i) >> 31 == 0 {
            a.dword(i)
        } else {
            b.dword(i)
        }
    })
}

/// BLENDVPD.
pub(super) fn blendvpd(a: u128, b: u128, mask: u128) -> u128 {
    let lane = |i: usize| {
        if mask.qword(i) >> 63 == 0 {
            a.qword(i)
        } else {
            b.qword(i)
        }
    };
    qwords(lane(0), lane(1))
}

/// INSERTPS with the source doubleword already chosen.
pub(super) fn insertps(a: u128, value: u32, control: u8) -> u128 {
    let place = usize::from(control >> 4 & 3);
    u128::build32(|i| {
        if control >> i & 1 != 0 {
            0
        } else if i == place {
            value
        } else {
            a.dword(i)
        }
    })
}

/// PMOVMSKB: the top bits of the bytes.
#[inline]
pub(super) fn pmovmskb(a: u128) -> u32 {
    bytewise::top_bits(a.qword(0)) | bytewise::top_bits(a.qword(1)) << 8
}

/// MOVMSKPS.
pub(super) fn movmskps(a: u128) -> u32 {
    (0..4).fold(0, |mask, i| mask | (a.dword(i) >> 31) << i)
}

/// MOVMSKPD.
pub(super) fn movmskpd(a: u128) -> u32 {
    (a.qword(0) >> 63 | (a.qword(1) >> 63) << 1) as u32
}

/// PMOVSXBW and its like: the low lanes of `a`, extended.
macro_rules! extend {
    ($($name:ident: $build:ident, $lane:ident, $from:ident, $to:ident;)*) => {
        $(
            #[inline]
            pub(super) fn $name(a: u128) -> u128 {
                u128::$build(|i| a.$lane(i) as $from as $to)
            }
        )*
    };
}

extend! {
    pmovsxbw: build16, byte, i8, u16;
    pmovsxbd: build32, byte, i8, u32;
    pmovsxwd: build32, word, i16, u32;
    pmovzxbw: build16, byte, u8, u16;
    pmovzxbd: build32, byte, u8, u32;
    pmovzxwd: build32, word, u16, u32;
}

/// PMOVSXBQ.
pub(super) fn pmovsxbq(a: u128) -> u128 {
    qwords(a.byte(0) as i8 as u64, a.byte(1) as i8 as u64)
}
/// PMOVSXWQ.
pub(super) fn pmovsxwq(a: u128) -> u128 {
    qwords(a.word(0) as i16 as u64, a.word(1) as i16 as u64)
}
/// PMOVSXDQ.
pub(super) fn pmovsxdq(a: u128) -> u128 {
    qwords(a.dword(0) as i32 as u64, a.dword(1) as i32 as u64)
}
/// PMOVZXBQ.
pub(super) fn pmovzxbq(a: u128) -> u128 {
    qwords(a.byte(0).into(), a.byte(1).into())
}
/// PMOVZXWQ.
pub(super) fn pmovzxwq(a: u128) -> u128 {
    qwords(a.word(0).into(), a.word(1).into())
}
/// PMOVZXDQ.
pub(super) fn pmovzxdq(a: u128) -> u128 {
    qwords(a.dword(0).into(), a.dword(1).into())
}
