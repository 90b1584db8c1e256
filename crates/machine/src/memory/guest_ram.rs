//! RAM as devices see it.

use super::{OutsideRam, Ram};

/// RAM, by guest physical addresses, from outside the CPUs (DMA).
pub trait GuestRam {
    /// Borrows bytes.
    ///
    /// # Errors
    /// [`OutsideRam`] unless all are RAM.
    fn slice(&self, address: u64, length: u64) -> Result<&[u8], OutsideRam>;

    /// Writes bytes, with all that a store entails.
    ///
    /// # Errors
    /// [`OutsideRam`] unless all are RAM; nothing is written then.
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideRam>;
}

impl dyn GuestRam + '_ {
    /// Reads `N` bytes.
    ///
    /// # Errors
    /// As [`GuestRam::slice`].
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], OutsideRam> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(address, N as u64)?);
        Ok(array)
    }
}

impl GuestRam for Ram {
    fn slice(&self, address: u64, length: u64) -> Result<&[u8], OutsideRam> {
        self.slice(address, length)
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideRam> {
        self.write(address, data)
    }
}
