//! Lanes of MMX and SSE registers.
//!
//! A vector is a `u64` (MMX) or a `u128` (SSE), lane 0 in its lowest bits, as in little-endian
//! memory. The closures see one lane at a time, with the signedness that the name of the method
//! says; compilers turn the loops into vector instructions of the host.

/// A register of packed lanes.
pub(super) trait Vector: Copy {
    /// Width in bytes.
    const BYTES: usize;

    /// From the low bits of `bits`.
    fn truncate(bits: u128) -> Self;

    /// Applies `f` to every byte of two vectors.
    fn zip8(self, other: Self, f: impl Fn(u8, u8) -> u8) -> Self;
    /// Applies `f` to every word of two vectors.
    fn zip16(self, other: Self, f: impl Fn(u16, u16) -> u16) -> Self;
    /// Applies `f` to every doubleword of two vectors.
    fn zip32(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self;
    /// Applies `f` to every quadword of two vectors.
    fn zip64(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self;
    /// The vector whose byte `i` is `f(i)`.
    fn build8(f: impl Fn(usize) -> u8) -> Self;
    /// The vector whose word `i` is `f(i)`.
    fn build16(f: impl Fn(usize) -> u16) -> Self;
    /// The vector whose doubleword `i` is `f(i)`.
    fn build32(f: impl Fn(usize) -> u32) -> Self;
    /// Byte `lane`.
    fn byte(self, lane: usize) -> u8;
    /// Word `lane`.
    fn word(self, lane: usize) -> u16;
    /// Doubleword `lane`.
    fn dword(self, lane: usize) -> u32;
    /// Quadword `lane`.
    fn qword(self, lane: usize) -> u64;
    /// With byte `lane` replaced.
    fn with_byte(self, lane: usize, value: u8) -> Self {
        Self::build8(|i| if i == lane { value } else { self.byte(i) })
    }
    /// With word `lane` replaced.
    fn with_word(self, lane: usize, value: u16) -> Self {
        Self::build16(|i| if i == lane { value } else { self.word(i) })
    }
}

macro_rules! vector {
    ($vector:ident, $bytes:literal) => {
        impl Vector for $vector {
            const BYTES: usize = $bytes;

            #[inline]
            fn truncate(bits: u128) -> Self {
                bits as Self
            }
            #[inline]
            fn zip8(self, other: Self, f: impl Fn(u8, u8) -> u8) -> Self {
                let (a, b) = (self.to_le_bytes(), other.to_le_bytes());
                Self::from_le_bytes(core::array::from_fn(|i| f(a[i], b[i])))
            }
            #[inline]
            fn zip16(self, other: Self, f: impl Fn(u16, u16) -> u16) -> Self {
                Self::build16(|i| f(self.word(i), other.word(i)))
            }
            #[inline]
            fn zip32(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
                Self::build32(|i| f(self.dword(i), other.dword(i)))
            }
            #[inline]
            fn zip64(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
                let mut bytes = [0; $bytes];
                for (i, lane) in bytes.chunks_exact_mut(8).enumerate() {
                    lane.copy_from_slice(&f(self.qword(i), other.qword(i)).to_le_bytes());
                }
                Self::from_le_bytes(bytes)
            }
            #[inline]
            fn build8(f: impl Fn(usize) -> u8) -> Self {
                Self::from_le_bytes(core::array::from_fn(f))
            }
            #[inline]
            fn build16(f: impl Fn(usize) -> u16) -> Self {
                let mut bytes = [0; $bytes];
                for (i, lane) in bytes.chunks_exact_mut(2).enumerate() {
                    lane.copy_from_slice(&f(i).to_le_bytes());
                }
                Self::from_le_bytes(bytes)
            }
            #[inline]
            fn build32(f: impl Fn(usize) -> u32) -> Self {
                let mut bytes = [0; $bytes];
                for (i, lane) in bytes.chunks_exact_mut(4).enumerate() {
                    lane.copy_from_slice(&f(i).to_le_bytes());
                }
                Self::from_le_bytes(bytes)
            }
            #[inline]
            fn byte(self, lane: usize) -> u8 {
                self.to_le_bytes()[lane]
            }
            #[inline]
            fn word(self, lane: usize) -> u16 {
                (self >> (16 * lane)) as u16
            }
            #[inline]
            fn dword(self, lane: usize) -> u32 {
                (self >> (32 * lane)) as u32
            }
            #[inline]
            fn qword(self, lane: usize) -> u64 {
                (self >> (64 * lane)) as u64
            }
        }
    };
}

vector!(u64, 8);
vector!(u128, 16);
