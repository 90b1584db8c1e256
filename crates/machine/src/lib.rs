//! What every machine is, whatever its instruction set: inputs and outputs, the instruction count
//! and the clock that follows from it, RAM, digests, snapshots, and the contract ([`Machine`],
//! [`Architecture`]).
//!
//! Pure: no clock, thread, socket or file. Given the same snapshot and the same inputs at the same
//! instruction counts a machine is bit-identical at every instruction count, on every host, under
//! every engine.
#![deny(unsafe_code)] // allowed in `memory` only

mod byte_string;
pub mod clock;
pub mod config;
mod contract;
pub mod debugging;
pub mod engine;
pub mod input;
pub mod memory;
pub mod output;
pub mod snapshot;

pub use contract::{Architecture, Failure, InjectError, Machine, Stop};
