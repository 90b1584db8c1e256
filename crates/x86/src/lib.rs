//! An x86-64 PC that is deterministic by construction: the same records give the same state at every
//! instruction count, on every host.
#![deny(unsafe_code)] // allowed in `emitter` only

pub mod architecture;
pub mod board;
pub mod boot;
pub mod bus;
mod bytes;
pub mod cpu;
pub mod cpuid;
mod emitter;
pub mod fault;
pub mod float;
pub mod interpreter;
pub mod machine;
mod mmu;
pub mod operands;
pub mod ram;
pub mod simd;
pub mod x87;

pub use architecture::X86_64;
