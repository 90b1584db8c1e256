//! The string comparisons of SSE4.2 (volume 2, 4.1).

use super::vector::Vector;

/// What a string comparison found.
pub(super) struct Comparison {
    /// IntRes2: one bit for each element.
    pub bits: u32,
    /// How many elements an operand has: 8 or 16.
    pub elements: u32,
    /// CF: IntRes2 is not zero.
    pub carry: bool,
    /// ZF: the second operand ends within the vector.
    pub zero: bool,
    /// SF: the first operand ends within the vector.
    pub sign: bool,
    /// OF: the lowest bit of IntRes2.
    pub overflow: bool,
}

/// Where the strings end.
pub(super) enum Lengths {
    /// PCMPISTRx: at the first element that is zero.
    Implicit,
    /// PCMPESTRx: at the absolute values of RAX and RDX.
    Explicit {
        /// EAX or RAX, extended with its sign.
        first: i64,
        /// EDX or RDX, extended with its sign.
        second: i64,
    },
}

/// Compares as `control`, the immediate byte, says.
pub(super) fn compare(a: u128, b: u128, lengths: Lengths, control: u8) -> Comparison {
    let elements = if control & 1 == 0 { 16 } else { 8 };
    let element = |vector: u128, i: usize| -> i32 {
        match control & 3 {
            0 => vector.byte(i).into(),
            1 => vector.word(i).into(),
            2 => (vector.byte(i) as i8).into(),
            _ => (vector.word(i) as i16).into(),
        }
    };
    let (a_length, b_length) = match lengths {
        Lengths::Implicit => {
            let end = |v: u128| {
                (0..elements)
                    .find(|&i| element(v, i) == 0)
                    .unwrap_or(elements)
            };
            (end(a), end(b))
        }
        Lengths::Explicit { first, second } => {
            let end = |length: i64| length.unsigned_abs().min(elements as u64) as usize;
            (end(first), end(second))
        }
    };
    let bit = |i: usize, condition: bool| u32::from(condition) << i;
    let first: u32 = match control >> 2 & 3 {
        // Equal any.
        0 => (0..b_length)
            .map(|j| bit(j, (0..a_length).any(|i| element(a, i) == element(b, j))))
            .sum(),
        // Ranges: pairs of bounds; a pair that is cut off is none.
        1 => (0..b_length)
            .map(|j| {
                let within = |pair: usize| {
                    let value = element(b, j);
                    element(a, 2 * pair) <= value && value <= element(a, 2 * pair + 1)
                };
                bit(j, (0..a_length / 2).any(within))
            })
            .sum(),
        // Equal each: beyond the end of both they are equal.
        2 => (0..elements)
            .map(|i| {
                let equal = match (i < a_length, i < b_length) {
                    (true, true) => element(a, i) == element(b, i),
                    (false, false) => true,
                    _ => false,
                };
                bit(i, equal)
            })
            .sum(),
        // Equal ordered: the first operand at this place of the second, as far as the vector goes.
        _ => (0..elements)
            .map(|j| {
                let matches = (0..a_length.min(elements - j))
                    .all(|i| j + i < b_length && element(a, i) == element(b, j + i));
                bit(j, matches)
            })
            .sum(),
    };
    let all = (1 << elements) - 1;
    let bits = match control >> 4 & 3 {
        1 => first ^ all,
        3 => first ^ ((1 << b_length) - 1),
        _ => first,
    };
    Comparison {
        bits,
        elements: elements as u32,
        carry: bits != 0,
        zero: b_length < elements,
        sign: a_length < elements,
        overflow: bits & 1 != 0,
    }
}

impl Comparison {
    /// ECX of PCMPxSTRI: the lowest or the highest bit that is set.
    pub fn index(&self, control: u8) -> u32 {
        if self.bits == 0 {
            self.elements
        } else if control & 0x40 == 0 {
            self.bits.trailing_zeros()
        } else {
            31 - self.bits.leading_zeros()
        }
    }

    /// XMM0 of PCMPxSTRM: the bits, or a mask of whole elements.
    pub fn mask(&self, control: u8) -> u128 {
        let set = |i: usize| self.bits >> i & 1 != 0;
        if control & 0x40 == 0 {
            self.bits.into()
        } else if self.elements == 16 {
            u128::build8(|i| if set(i) { !0 } else { 0 })
        } else {
            u128::build16(|i| if set(i) { !0 } else { 0 })
        }
    }
}
