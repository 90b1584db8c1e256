//! The deterministic machine: harts, RAM and devices of QEMU's `virt` board for RV64GC.
//!
//! Pure: no clock, thread, socket or file. Given the same snapshot and the same inputs at the same
//! instruction counts it is bit-identical at every instruction count, on every host.
#![deny(unsafe_code)] // allowed in `memory` (and later `jit`) only

pub mod boot;
pub mod bus;
pub mod devices;
pub mod float;
pub mod input;
pub mod memory;
pub mod output;
