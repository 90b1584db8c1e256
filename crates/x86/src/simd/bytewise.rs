//! Eight bytes at once in the bits of a `u64`, for the lanes that string functions are made of.

/// The top bit of each byte.
const TOP: u64 = 0x8080_8080_8080_8080;

/// All ones in the bytes whose top bit is set in `tops`, which has no other bits.
#[inline]
const fn spread(tops: u64) -> u64 {
    (tops >> 7).wrapping_mul(0xff)
}

/// Sums, modulo 256.
#[inline]
pub(super) const fn add(a: u64, b: u64) -> u64 {
    ((a & !TOP) + (b & !TOP)) ^ ((a ^ b) & TOP)
}

/// Differences, modulo 256.
#[inline]
pub(super) const fn subtract(a: u64, b: u64) -> u64 {
    ((a | TOP) - (b & !TOP)) ^ ((a ^ !b) & TOP)
}

/// All ones where `a` is below `b`, both unsigned.
#[inline]
pub(super) const fn below(a: u64, b: u64) -> u64 {
    let borrow = (!a & b) | ((!a | b) & subtract(a, b));
    spread(borrow & TOP)
}

/// All ones where `a` is above `b`, both signed.
#[inline]
pub(super) const fn greater(a: u64, b: u64) -> u64 {
    below(b ^ TOP, a ^ TOP)
}

/// All ones where `a` is `b`.
#[inline]
pub(super) const fn equal(a: u64, b: u64) -> u64 {
    let difference = a ^ b;
    let nonzero = ((difference & !TOP) + !TOP) | difference;
    spread(!nonzero & TOP)
}

/// Differences, zero where they would be below it.
#[inline]
pub(super) const fn subtract_saturating(a: u64, b: u64) -> u64 {
    subtract(a, b) & !below(a, b)
}

/// Sums, 255 where they would be above it.
#[inline]
pub(super) const fn add_saturating(a: u64, b: u64) -> u64 {
    !subtract_saturating(!a, b)
}

/// The smaller bytes, unsigned.
#[inline]
pub(super) const fn minimum(a: u64, b: u64) -> u64 {
    a - subtract_saturating(a, b)
}

/// The larger bytes, unsigned.
#[inline]
pub(super) const fn maximum(a: u64, b: u64) -> u64 {
    b + subtract_saturating(a, b)
}

/// The top bits, that of the lowest byte first.
#[inline]
pub(super) const fn top_bits(a: u64) -> u32 {
    // Each bit moves to the top byte by one of the factors, and none meets another.
    (((a & TOP) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}
