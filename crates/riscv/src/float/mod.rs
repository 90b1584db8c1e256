//! IEEE 754 arithmetic with RISC-V's rounding modes and flags (unprivileged ISA, chapters "F" and
//! "D"), on raw bits: `u16` holds a half, `u32` a single, `u64` a double.
//!
//! Every function is stateless and exact, and gives the same bits and the same flags on every host.
//! Two layers stand behind it:
//!
//! - `software` computes in integers, for every rounding mode and every flag;
//! - `host` uses the host's own arithmetic where IEEE 754 leaves no freedom and no flag is missed:
//!   rounding to nearest even, inexact already raised (or cheap to tell), a result that is neither
//!   NaN, nor infinite, nor tiny.
//!
//! What RISC-V fixes where IEEE 754 leaves a choice: a NaN result is always the canonical NaN,
//! tininess is detected after rounding, `fma(inf, 0, qNaN)` is invalid, and a conversion to an
//! integer saturates, a NaN like positive infinity.

#![forbid(unsafe_code)]

mod additional;
mod arithmetic;
mod boxing;
mod conversion;
mod environment;
mod host;
mod software;

#[cfg(test)]
mod layers_tests;

pub use additional::*;
pub use arithmetic::*;
pub use boxing::{box_f16, box_f32, unbox_f16, unbox_f32};
pub use conversion::*;
pub use environment::{Flags, RoundingMode};

/// The canonical NaN of half precision, the only NaN that an operation returns.
pub const CANONICAL_NAN_F16: u16 = 0x7e00;

/// The canonical NaN of single precision, the only NaN that an operation returns.
pub const CANONICAL_NAN_F32: u32 = 0x7fc0_0000;

/// The canonical NaN of double precision, the only NaN that an operation returns.
pub const CANONICAL_NAN_F64: u64 = 0x7ff8_0000_0000_0000;
