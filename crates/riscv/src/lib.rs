//! RISC-V: harts of RV64GC on the board that QEMU calls `virt`.
//!
//! Pure: no clock, thread, socket or file. Given the same snapshot and the same inputs at the same
//! instruction counts the machine is bit-identical at every instruction count, on every host.
#![deny(unsafe_code)] // allowed in `emitter` only

pub mod architecture;
pub mod board;
pub mod emitter;
pub mod float;
pub mod hart;
pub mod interpreter;
pub mod isa;
pub mod machine;
pub mod memory;
pub mod mmu;

pub use self::machine::{Config, Machine};
pub use architecture::{RISCV64, SEMANTICS_VERSION};
