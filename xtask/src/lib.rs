//! What `cargo xtask` runs; a library so that tests can run the same things.
#![forbid(unsafe_code)]

pub mod bench;
pub mod blocks;
pub mod check;
pub mod compiler;
pub mod conformance;
pub mod counter;
pub mod delay_line;
pub mod demo;
pub mod efi_disk;
pub mod engines;
pub mod event_loops;
pub mod features;
pub mod imports;
pub mod program;
pub mod redis;
pub mod replica;
pub mod simulate;
pub mod single;
pub mod site;
pub mod test;
pub mod upgrade;
