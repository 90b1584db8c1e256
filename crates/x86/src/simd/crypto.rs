//! AES-NI, PCLMULQDQ, SHA and CRC32.

use super::shuffle::qwords;
use super::vector::Vector;

/// Multiplies by x in GF(2^8) modulo the polynomial of AES (FIPS 197, 4.2.1).
const fn xtime(a: u8) -> u8 {
    a << 1 ^ (if a & 0x80 != 0 { 0x1b } else { 0 })
}

/// Multiplies in GF(2^8).
const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = xtime(a);
        b >>= 1;
    }
    product
}

/// The S-box (FIPS 197, 5.1.1), computed: the inverse in GF(2^8), then the affine map.
const fn substitution() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        // The inverse is the power 254; the inverse of zero is zero.
        let mut inverse = 1;
        let mut n = 0;
        while n < 254 {
            inverse = multiply(inverse, i as u8);
            n += 1;
        }
        let b: u8 = inverse;
        table[i] =
            b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63;
        i += 1;
    }
    table
}

const fn inverted(table: &[u8; 256]) -> [u8; 256] {
    let mut inverse = [0; 256];
    let mut i = 0;
    while i < 256 {
        inverse[table[i] as usize] = i as u8;
        i += 1;
    }
    inverse
}

static S_BOX: [u8; 256] = substitution();
static INVERSE_S_BOX: [u8; 256] = inverted(&substitution());

/// SubBytes after ShiftRows: byte `i` of a column comes from the column `i` further.
fn shift_and_substitute(state: u128) -> u128 {
    u128::build8(|i| S_BOX[usize::from(state.byte((i + 4 * (i % 4)) % 16))])
}

fn inverse_shift_and_substitute(state: u128) -> u128 {
    u128::build8(|i| INVERSE_S_BOX[usize::from(state.byte((i + 12 * (i % 4)) % 16))])
}

/// Multiplies every byte by x.
const fn xtime_all(a: u32) -> u32 {
    let high = a >> 7 & 0x0101_0101;
    ((a & 0x7f7f_7f7f) << 1) ^ (high * 0x1b)
}

/// MixColumns: each column times 3x³ + x² + x + 2 (FIPS 197, 5.1.3).
fn mix(state: u128) -> u128 {
    u128::build32(|i| {
        let column = state.dword(i);
        let next = column.rotate_right(8);
        let sum = column ^ next;
        xtime_all(sum) ^ next ^ sum.rotate_right(16)
    })
}

/// InvMixColumns: MixColumns after a product with 4x² + 5 (FIPS 197, 5.3.3).
fn inverse_mix(state: u128) -> u128 {
    let prepared = u128::build32(|i| {
        let column = state.dword(i);
        let sum = column ^ column.rotate_right(16);
        column ^ xtime_all(xtime_all(sum))
    });
    mix(prepared)
}

/// AESENC.
pub(super) fn aesenc(state: u128, key: u128) -> u128 {
    mix(shift_and_substitute(state)) ^ key
}

/// AESENCLAST.
pub(super) fn aesenclast(state: u128, key: u128) -> u128 {
    shift_and_substitute(state) ^ key
}

/// AESDEC.
pub(super) fn aesdec(state: u128, key: u128) -> u128 {
    inverse_mix(inverse_shift_and_substitute(state)) ^ key
}

/// AESDECLAST.
pub(super) fn aesdeclast(state: u128, key: u128) -> u128 {
    inverse_shift_and_substitute(state) ^ key
}

/// AESIMC.
pub(super) fn aesimc(key: u128) -> u128 {
    inverse_mix(key)
}

/// AESKEYGENASSIST.
pub(super) fn aeskeygenassist(key: u128, constant: u8) -> u128 {
    let substitute =
        |word: u32| u32::from_le_bytes(word.to_le_bytes().map(|byte| S_BOX[usize::from(byte)]));
    let (x1, x3) = (substitute(key.dword(1)), substitute(key.dword(3)));
    let constant = u32::from(constant);
    u128::build32(|i| match i {
        0 => x1,
        1 => x1.rotate_right(8) ^ constant,
        2 => x3,
        _ => x3.rotate_right(8) ^ constant,
    })
}

/// PCLMULQDQ: the product without carries of two chosen quadwords, four bits at a time.
pub(super) fn pclmulqdq(a: u128, b: u128, control: u8) -> u128 {
    let a = u128::from(a.qword(usize::from(control & 1)));
    let b = b.qword(usize::from(control >> 4 & 1));
    let mut multiples = [0; 16];
    for i in 1..16 {
        let odd = if i & 1 != 0 { a } else { 0 };
        multiples[i] = multiples[i / 2] << 1 ^ odd;
    }
    (0..16).rev().fold(0, |product, i| {
        product << 4 ^ multiples[(b >> (4 * i)) as usize & 15]
    })
}

/// CRC32: the next `bytes` of the checksum with the polynomial 11EDC6F41H, reflected.
pub(super) fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = crc >> 1 ^ (if crc & 1 != 0 { POLYNOMIAL } else { 0 });
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    bytes.iter().fold(crc, |crc, &byte| {
        crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)]
    })
}

/// A vector of four doublewords, the highest first, as the descriptions of SHA write them.
fn dwords([d3, d2, d1, d0]: [u32; 4]) -> u128 {
    qwords(
        u64::from(d1) << 32 | u64::from(d0),
        u64::from(d3) << 32 | u64::from(d2),
    )
}

/// SHA1NEXTE.
pub(super) fn sha1nexte(a: u128, b: u128) -> u128 {
    let e = a.dword(3).rotate_left(30);
    dwords([
        b.dword(3).wrapping_add(e),
        b.dword(2),
        b.dword(1),
        b.dword(0),
    ])
}

/// SHA1MSG1.
pub(super) fn sha1msg1(a: u128, b: u128) -> u128 {
    let (w0, w1, w2, w3) = (a.dword(3), a.dword(2), a.dword(1), a.dword(0));
    let (w4, w5) = (b.dword(3), b.dword(2));
    dwords([w2 ^ w0, w3 ^ w1, w4 ^ w2, w5 ^ w3])
}

/// SHA1MSG2.
pub(super) fn sha1msg2(a: u128, b: u128) -> u128 {
    let w16 = (a.dword(3) ^ b.dword(2)).rotate_left(1);
    let w17 = (a.dword(2) ^ b.dword(1)).rotate_left(1);
    let w18 = (a.dword(1) ^ b.dword(0)).rotate_left(1);
    let w19 = (a.dword(0) ^ w16).rotate_left(1);
    dwords([w16, w17, w18, w19])
}

/// SHA1RNDS4: four rounds with the function and the constant that the control chooses.
pub(super) fn sha1rnds4(state: u128, words: u128, control: u8) -> u128 {
    let [mut a, mut b, mut c, mut d] = [3, 2, 1, 0].map(|i| state.dword(i));
    let mut e = 0;
    for round in 0..4 {
        let (f, k) = match control & 3 {
            0 => ((b & c) ^ (!b & d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => ((b & c) ^ (b & d) ^ (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        // The first word has the variable E added to it already (SHA1NEXTE).
        let next = a
            .rotate_left(5)
            .wrapping_add(f)
            .wrapping_add(words.dword(3 - round))
            .wrapping_add(e)
            .wrapping_add(k);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    dwords([a, b, c, d])
}

/// SHA256RNDS2: two rounds; `words` holds the two sums of message and constant.
pub(super) fn sha256rnds2(cdgh: u128, abef: u128, words: u128) -> u128 {
    let [mut a, mut b, mut e, mut f] = [3, 2, 1, 0].map(|i| abef.dword(i));
    let [mut c, mut d, mut g, mut h] = [3, 2, 1, 0].map(|i| cdgh.dword(i));
    for round in 0..2 {
        let choose = (e & f) ^ (!e & g);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t1 = h
            .wrapping_add(sum1)
            .wrapping_add(choose)
            .wrapping_add(words.dword(round));
        let t2 = sum0.wrapping_add(majority);
        (a, b, c, d, e, f, g, h) = (t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g);
    }
    let _ = (c, d, g, h);
    dwords([a, b, e, f])
}

/// SHA256MSG1.
pub(super) fn sha256msg1(a: u128, b: u128) -> u128 {
    let sigma0 = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
    u128::build32(|i| {
        let next = if i < 3 { a.dword(i + 1) } else { b.dword(0) };
        a.dword(i).wrapping_add(sigma0(next))
    })
}

/// SHA256MSG2.
pub(super) fn sha256msg2(a: u128, b: u128) -> u128 {
    let sigma1 = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let w16 = a.dword(0).wrapping_add(sigma1(b.dword(2)));
    let w17 = a.dword(1).wrapping_add(sigma1(b.dword(3)));
    let w18 = a.dword(2).wrapping_add(sigma1(w16));
    let w19 = a.dword(3).wrapping_add(sigma1(w17));
    dwords([w19, w18, w17, w16])
}
