//! The devices of the board: register logic over plain, serialisable state.
//!
//! A device never panics on what a guest or an input does to it, and never touches anything but
//! its own state, guest RAM and the outputs.

pub mod clint;
pub mod finisher;
pub mod plic;
pub mod rtc;
pub mod uart16550;
pub mod virtio;
