//! The emitter for x86-64 (with BMI1, BMI2, FMA and AVX: x86-64-v3; and the carry-less
//! multiplication that all of these have).
//!
//! Registers while compiled code runs: `rbp` the hart, `r15` the instructions left, ten guest
//! registers in [`layout::PINNED`], `rax`, `rcx`, `rdx`, `xmm0` and `xmm1` free within an
//! instruction, and in the other `xmm` registers what [`float::FloatRegisters`] says.

#![allow(clippy::useless_conversion)] // `dynasm!` converts what need not be converted

mod atomic;
mod bit_manipulation;
mod control;
mod csr;
mod emitter;
mod float;
mod fusion;
mod groups;
mod integer;
mod kept_sites;
mod layout;
mod lending;
mod memory;
mod operands;
mod registers;
mod routines;
mod status;

pub use emitter::Emitter;
pub use routines::Routines;

/// Whether this host has the instructions that the emitter uses.
pub fn host_is_capable() -> bool {
    is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("fma")
}
