//! Values between unpacking and rounding.

/// A number other than zero: ±`significand` × 2^`exponent`.
///
/// As the input of rounding, the lowest bit of a significand that has at least two bits more than
/// the precision may be *sticky*: set, it stands for any amount strictly within one unit of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
}

impl Number {
    /// The same number with bit 127 of the significand set.
    pub fn normalised(self) -> Self {
        let shift = self.significand.leading_zeros();
        Self {
            exponent: self.exponent - shift as i32,
            significand: self.significand << shift,
            ..self
        }
    }

    /// The exponent of the leading bit.
    pub fn leading(self) -> i32 {
        self.exponent + 127 - self.significand.leading_zeros() as i32
    }
}

/// Shifts right by `count` bits; what is lost is kept as the sticky lowest bit.
pub(crate) fn shift_right_sticky(significand: u128, count: u32) -> u128 {
    match count {
        0 => significand,
        1..128 => {
            let lost = significand << (128 - count) != 0;
            significand >> count | u128::from(lost)
        }
        _ => u128::from(significand != 0),
    }
}
