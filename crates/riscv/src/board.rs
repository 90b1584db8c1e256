//! The board: QEMU's `virt` for RV64, without its flash and fw-cfg.

pub mod boot;
pub mod bus;
pub mod clint;
pub mod config;
pub mod plic;
