//! The deterministic machine: harts, RAM and devices of QEMU's `virt` board for RV64GC.
//!
//! Pure: no clock, thread, socket or file. Given the same snapshot and the same inputs at the same
//! instruction counts it is bit-identical at every instruction count, on every host.
#![deny(unsafe_code)] // allowed in `memory` and `jit` only

pub mod boot;
pub mod bus;
pub mod clock;
pub mod devices;
pub mod digest;
pub mod engine;
pub mod float;
pub mod guest_ram;
pub mod hart;
pub mod input;
pub mod interpreter;
pub mod isa;
pub mod jit;
pub mod machine;
pub mod memory;
pub mod mmu;
pub mod output;
pub mod state;
