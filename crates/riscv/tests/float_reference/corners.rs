//! Operands: the corners of each format, and a seeded stream of numbers that are likely to hurt.

/// Width of a format's fields, in bits.
#[derive(Clone, Copy)]
pub struct Layout {
    pub exponent_bits: u32,
    pub fraction_bits: u32,
}

pub const SINGLE: Layout = Layout {
    exponent_bits: 8,
    fraction_bits: 23,
};
pub const DOUBLE: Layout = Layout {
    exponent_bits: 11,
    fraction_bits: 52,
};

impl Layout {
    fn one(self) -> u64 {
        ((1 << (self.exponent_bits - 1)) - 1) << self.fraction_bits
    }

    pub fn infinity(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.fraction_bits
    }

    pub fn sign(self) -> u64 {
        1 << (self.exponent_bits + self.fraction_bits)
    }

    pub fn quiet(self) -> u64 {
        1 << (self.fraction_bits - 1)
    }

    fn fraction_mask(self) -> u64 {
        (1 << self.fraction_bits) - 1
    }

    /// Zeros, subnormals, the borders of every class, numbers around one, the borders of exact
    /// integers, infinities and NaNs: each with both signs.
    pub fn corners(self) -> Vec<u64> {
        let exponent = |power: i64| {
            let bias = (1 << (self.exponent_bits - 1)) - 1;
            ((power + bias) as u64) << self.fraction_bits
        };
        let min_normal = 1 << self.fraction_bits;
        let min_exponent = 2 - (1 << (self.exponent_bits - 1));
        let magnitudes = [
            0,
            1,
            2,
            3,
            min_normal / 2,
            min_normal - 1,
            min_normal,
            min_normal + 1,
            min_normal * 2 - 1,
            exponent(min_exponent / 2),
            exponent(-i64::from(self.fraction_bits) - 1),
            exponent(-1),
            self.one() - 1,
            self.one(),
            self.one() + 1,
            self.one() | self.quiet(),
            exponent(1) | 0x15_5555,
            exponent(i64::from(self.fraction_bits)) | 1,
            exponent(i64::from(self.fraction_bits) + 1) - 1,
            self.infinity() - min_normal,
            self.infinity() - 1,
            self.infinity(),
            self.infinity() | 1,
            self.infinity() | self.quiet() | 5,
        ];
        magnitudes
            .iter()
            .flat_map(|&magnitude| [magnitude, magnitude | self.sign()])
            .collect()
    }

    /// Numbers at and around the borders of the integer types, with and without fractions.
    pub fn integer_borders(self) -> Vec<u64> {
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        let mut numbers = Vec::new();
        for power in [
            -2_i64, -1, 0, 1, 2, 22, 23, 30, 31, 32, 51, 52, 62, 63, 64, 65, 100,
        ] {
            let number = ((power + bias) as u64) << self.fraction_bits;
            for neighbour in -4..=4 {
                numbers.push(number.wrapping_add_signed(neighbour));
            }
            numbers.extend([number | self.quiet(), number | self.quiet() >> 1]);
            // A half, and on the other side of the border, where numbers lie closer, a half there.
            for half_place in [
                i64::from(self.fraction_bits) - power - 1,
                i64::from(self.fraction_bits) - power,
            ] {
                if (0..i64::from(self.fraction_bits)).contains(&half_place) {
                    let half = 1 << half_place;
                    for offset in [half - 1, half, half + 1] {
                        numbers.extend([number + offset, number - offset]);
                    }
                }
            }
        }
        numbers
            .iter()
            .flat_map(|&magnitude| [magnitude, magnitude | self.sign()])
            .collect()
    }
}

/// A seeded stream (SplitMix64).
pub struct Stream(pub u64);

impl Stream {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// An operand: any bits, or one near `neighbour` in magnitude, or one with few significant
    /// bits, so that cancellation, ties and exact results are as common as rounding.
    pub fn operand(&mut self, layout: Layout, neighbour: u64) -> u64 {
        let (bits, shape) = (
            self.next() & (layout.sign() << 1).wrapping_sub(1),
            self.next(),
        );
        let few_bits = layout.fraction_mask() << ((shape >> 8) % u64::from(layout.fraction_bits));
        match shape % 5 {
            0 => bits,
            1 => bits & !layout.fraction_mask() | bits & few_bits & layout.fraction_mask(),
            2 => neighbour.wrapping_add(shape >> 16 & 7) ^ bits & layout.sign(),
            3 => {
                let distance = (shape >> 16) % (2 * u64::from(layout.fraction_bits) + 4);
                let moved = (neighbour & layout.infinity())
                    .saturating_sub(distance << layout.fraction_bits);
                moved & layout.infinity() | bits & !layout.infinity() & few_bits
            }
            _ => {
                // The reciprocal's exponent: products and quotients near the ends and near one.
                let mirrored = (layout.one() * 2).wrapping_sub(neighbour & layout.infinity());
                mirrored & layout.infinity() | bits & !layout.infinity()
            }
        }
    }
}
