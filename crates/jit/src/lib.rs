//! What a just-in-time compiler needs whatever the guest's architecture: memory that may be executed,
//! where compiled code and its links and site caches are kept, and disturbances for tests.
//!
//! There is compiled code on x86-64 Linux only; elsewhere this crate is empty.
#![cfg(jit)]
#![deny(unsafe_code)] // allowed in `executable_memory` only

pub mod chaos;
pub mod code_cache;
pub mod executable_memory;
