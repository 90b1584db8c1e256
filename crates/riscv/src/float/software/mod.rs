//! Floating point in integers: for every rounding mode and every flag, the same on every host. On
//! encodings in the low bits of a `u64`, generic over their [`Format`].

mod arithmetic;
mod compare;
mod convert;
mod format;
mod round;

pub(super) use arithmetic::{add, div, fma, mul, sqrt};
pub(super) use compare::{classify, eq, le, lt, max, min};
pub(super) use convert::{convert, from_integer, to_integer};
#[cfg(test)]
pub(super) use format::Format;
