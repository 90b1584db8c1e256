//! The emitter for x86-64 (with BMI2).
//!
//! Registers while compiled code runs: `rsp` the [`Frame`](super::call_back::Frame), `r15` the instructions
//! left, `r14` the TLB's bank, eleven guest registers in [`layout::HOMES`], `rax` and `rcx` free within an
//! instruction. The status flags are where [`flags::Flags`] says.

#![allow(clippy::useless_conversion)] // `dynasm!` converts what need not be converted

mod arithmetic;
mod bits;
mod control;
mod emitter;
mod encoding;
mod flags;
mod layout;
mod lending;
mod links;
mod memory;
mod routines;
mod same;
mod sites;
mod stack;
mod system;
mod vector;

pub use emitter::{Code, Emitter};
pub use links::{BareLink, Compiled, HEAD_BYTES, Neighbours};
pub use routines::Routines;
pub use vector::host_has;

/// Whether this host has the instructions that the emitter uses.
pub fn host_is_capable() -> bool {
    is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("popcnt")
}
