//! Devices that boards of any architecture are made of: register logic over plain, serialisable state.
//!
//! A device never panics on what a guest or an input does to it, and never touches anything but
//! its own state, guest RAM and the outputs.
#![forbid(unsafe_code)]

pub mod finisher;
pub mod gpio;
pub mod panic;
pub mod pci;
pub mod pvpanic;
pub mod rtc;
pub mod uart16550;
pub mod virtio;
pub mod watchdog;

/// What lies beside the crate for tests, and is compiled into other crates' too, names it as they do.
#[cfg(any(test, feature = "driver"))]
extern crate self as devices;

use machine::memory::GuestRam;
use machine::output::Outputs;

/// What a device may touch besides its own state.
pub struct DeviceContext<'a> {
    /// Guest RAM.
    pub memory: &'a mut dyn GuestRam,
    /// Where outputs go.
    pub outputs: &'a mut Outputs,
    /// Guest time in nanoseconds since power-on.
    pub time_ns: u64,
    /// Unix time at power-on in nanoseconds.
    pub unix_base_ns: u64,
}
