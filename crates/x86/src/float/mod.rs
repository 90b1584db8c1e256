//! IEEE 754 arithmetic as x86 defines it, in integers: the three formats of SSE and x87, every
//! rounding mode, every exception flag, the same bits on every host.
//!
//! `Number` is what all formats have in common: an exact value other than zero, or a value whose
//! lowest bit is sticky. `Rounded` is a number brought to a precision and an exponent range.
//! `sse` and `x87` differ in what they do with NaNs, with exceptions and with tiny results, so each
//! has its own layer on top.

mod arithmetic;
mod double_extended;
mod interchange;
mod number;
mod round;

pub(crate) use arithmetic::{add, compare, divide, multiply, square_root};
pub use double_extended::DoubleExtended;
pub(crate) use interchange::{Interchange, Operand};
pub(crate) use number::{Number, shift_right_sticky};
pub use round::Rounding;
pub(crate) use round::{round, round_to_integer, round_unbounded};

/// Exception flags at their places in MXCSR and in the x87 status word (volume 1, 11.6.4 and 8.1.3).
pub mod flags {
    /// IE: invalid operation.
    pub const INVALID: u16 = 1 << 0;
    /// DE: an operand was denormal.
    pub const DENORMAL: u16 = 1 << 1;
    /// ZE: a finite number was divided by zero.
    pub const DIVIDE_BY_ZERO: u16 = 1 << 2;
    /// OE: overflow.
    pub const OVERFLOW: u16 = 1 << 3;
    /// UE: underflow.
    pub const UNDERFLOW: u16 = 1 << 4;
    /// PE: the result is inexact.
    pub const PRECISION: u16 = 1 << 5;
    /// All six.
    pub const ALL: u16 = 0x3f;
}
