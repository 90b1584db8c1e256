//! PCI as boards need it for virtio: one bus with a host bridge and functions that are endpoints, their
//! configuration spaces in memory (ECAM), and interrupts by line or by message (PCI Local Bus
//! Specification 3.0, PCI Express Base Specification 5.0).

pub mod configuration_space;
pub mod host;
pub mod msix;

#[cfg(any(test, feature = "driver"))]
pub mod hostile;

#[cfg(test)]
mod tests;

/// All ones, as far as an access goes: what a bus reads where nobody is.
pub fn nobody(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}
