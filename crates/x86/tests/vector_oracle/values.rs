//! Operands: random, and at the edges of what the formats hold.

/// A generator of numbers that a seed repeats (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// For one encoding of a form, whose name counts, not its number in the decoder.
    pub fn of(seed: u64, code: iced_x86::Code, encoding: u64) -> Self {
        let name = format!("{code:?}");
        let mixed = name
            .bytes()
            .fold(seed, |mixed, byte| Self(mixed ^ u64::from(byte)).next());
        Self(mixed ^ encoding)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Bits in runs, which carry and cancel more than random ones do.
    fn runs(&mut self) -> u64 {
        let (a, b) = (self.below(64), self.below(64));
        let run = |n: u64| (1u64 << n).wrapping_sub(1);
        run(a) ^ run(b) ^ if self.chance(2) { u64::MAX } else { 0 }
    }

    fn fraction(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => self.runs(),
            // A few bits, so that products and sums are exact or halfway.
            2 => self.next() & 0xff << self.below(57),
            _ => self.next(),
        }
    }

    /// An encoding with this many bits of exponent and fraction.
    pub fn interchange(&mut self, exponent_bits: u32, fraction_bits: u32) -> u64 {
        let top = (1u64 << exponent_bits) - 1;
        let bias = top >> 1;
        let exponent = match self.below(12) {
            0 => 0,
            1 => top,
            2 => 1 + self.below(3),
            3 => top - 1 - self.below(3),
            4 => self.below(top + 1),
            // Near one, and around the edges of the other formats and of integers.
            5 => bias + self.below(70),
            6 => (bias + self.below(u64::from(fraction_bits) + 8)).saturating_sub(4),
            7 if exponent_bits > 8 => bias - 127 - self.below(30),
            8 if exponent_bits > 8 => bias + 126 + self.below(4),
            9 if exponent_bits > 11 => bias - 1022 - self.below(60),
            10 if exponent_bits > 11 => bias + 1021 + self.below(5),
            _ => bias.saturating_sub(8) + self.below(16),
        }
        .min(top);
        let fraction = self.fraction() & ((1 << fraction_bits) - 1);
        let fraction = if exponent == 0 && self.chance(3) || exponent == top && self.chance(3) {
            0
        } else {
            fraction
        };
        let sign = self.below(2);
        (sign << exponent_bits | exponent) << fraction_bits | fraction
    }

    /// Sign and exponent, and significand, of a double extended number, odd encodings among them.
    pub fn double_extended(&mut self) -> u128 {
        match self.below(16) {
            0 => {
                let sign_exponent = self.pick(&[0u64, 0x8000, 0x7fff, 0xffff, 1, 0x3fff, 0x4000]);
                let significand = self.pick(&[
                    0,
                    1,
                    1 << 62,
                    1 << 63,
                    3 << 62,
                    u64::MAX,
                    u64::MAX >> 1,
                    (1 << 63) + 1,
                ]);
                return u128::from(sign_exponent) << 64 | u128::from(significand);
            }
            1 => return u128::from(self.next()) << 64 & 0xffff << 64 | u128::from(self.next()),
            // A number of a narrower format.
            2 => return widen(self.interchange(8, 23), 8, 23),
            3 => return widen(self.interchange(11, 52), 11, 52),
            4 => {
                // A small integer, or half of one.
                let limit = 1 << self.below(20);
                let integer = self.below(limit) + 1;
                let shift = integer.leading_zeros();
                let exponent = 0x3fff + 63 - u64::from(shift) - self.below(2);
                let sign = self.below(2) << 15;
                return u128::from(exponent | sign) << 64 | u128::from(integer << shift);
            }
            _ => {}
        }
        let bits = self.interchange(15, 48);
        let significand = self.fraction() | 1 << 63;
        let exponent = (bits >> 48) & 0xffff;
        let significand = match exponent & 0x7fff {
            0 => significand & (u64::MAX >> self.below(3)),
            0x7fff if self.chance(2) => 1 << 63,
            _ => significand,
        };
        u128::from(exponent) << 64 | u128::from(significand)
    }

    /// Sixteen bytes, for lanes of any kind.
    pub fn vector(&mut self) -> u128 {
        let pair = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
        match self.below(8) {
            0 => pair(self.next(), self.next()),
            1 => pair(self.runs(), self.runs()),
            2 | 3 => {
                let mut single = || self.interchange(8, 23);
                pair(single() | single() << 32, single() | single() << 32)
            }
            4 | 5 => pair(self.interchange(11, 52), self.interchange(11, 52)),
            6 => {
                // Small and extreme lanes of bytes, which strings and saturation need.
                let mut bytes = [0u8; 16];
                for byte in &mut bytes {
                    *byte = self.pick(&[0, 0, 1, 2, 3, 0x7f, 0x80, 0xff, 0x41, 0x42]);
                }
                u128::from_le_bytes(bytes)
            }
            _ => {
                let mut single = || {
                    self.pick(&[
                        0u64,
                        0x8000_0000,
                        0x3f80_0000,
                        0xbf80_0000,
                        0x7f80_0000,
                        0xff80_0000,
                        0x7fc0_0000,
                        0x7fa0_0001,
                        0xffc1_2345,
                        1,
                        0x8000_0001,
                        0x007f_ffff,
                        0x0080_0000,
                        0x7f7f_ffff,
                        0x4f00_0000,
                        0xcf00_0000,
                        0x4eff_ffff,
                    ])
                };
                pair(single() | single() << 32, single() | single() << 32)
            }
        }
    }

    /// Characters of a small alphabet, so that strings match, mostly without an end.
    pub fn string(&mut self) -> u128 {
        let wide = self.chance(2);
        let zero_in = self.pick(&[4, 16, 64]);
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let character = self.pick(&[0x41, 0x42, 0x43, 0x7f, 0x80, 0xff]);
            if !(wide && i % 2 == 1 || self.chance(zero_in)) {
                *byte = character;
            }
        }
        u128::from_le_bytes(bytes)
    }

    /// What an instruction may find in memory.
    pub fn memory(&mut self) -> u128 {
        match self.below(6) {
            0 | 1 => self.double_extended(),
            2 => {
                // Decimal digits.
                let digits = (0..18).fold(0u128, |d, i| d | u128::from(self.below(10)) << (4 * i));
                digits | u128::from(self.below(2)) << 79
            }
            3 => {
                let integer = self.next() as i64 >> self.below(64);
                u128::from(integer as u64)
            }
            _ => self.vector(),
        }
    }
}

fn widen(bits: u64, exponent_bits: u32, fraction_bits: u32) -> u128 {
    let top = (1u64 << exponent_bits) - 1;
    let sign = bits >> (exponent_bits + fraction_bits);
    let exponent = bits >> fraction_bits & top;
    let fraction = bits & ((1 << fraction_bits) - 1);
    let exponent = match exponent {
        0 => 0x3fff - (top >> 1) + 1,
        e if e == top => 0x7fff,
        e => e + 0x3fff - (top >> 1),
    };
    let significand = 1 << 63 | fraction << (63 - fraction_bits);
    u128::from(sign << 15 | exponent) << 64 | u128::from(significand)
}
