//! Floating point in integers: for every rounding mode and every flag, the same on every host. On
//! encodings in the low bits of a `u64`, generic over their format (`format.rs`).

mod arithmetic;
mod compare;
mod convert;
mod format;
mod round;

pub(super) use arithmetic::{add, div, fma, mul, sqrt};
pub(super) use compare::{
    classify, eq, le, le_quiet, lt, lt_quiet, max, max_or_nan, min, min_or_nan,
};
pub(super) use convert::{convert, from_integer, round_to_integral, to_integer, to_word_modular};
#[cfg(test)]
pub(super) use format::Format;
pub(super) use format::Half;
