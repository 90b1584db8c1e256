//! Guest RAM, its page flags and its dirty pages.
//!
//! RAM begins at [`RAM_BASE`]. Addresses here are guest physical addresses.

use thiserror::Error;

/// Where RAM begins on the `virt` board.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// The page holds instructions that are in the cache of decoded blocks.
pub const PAGE_HOLDS_CODE: u8 = 1;
/// The page holds page-table entries that a walk has read.
pub const PAGE_HOLDS_PAGE_TABLE: u8 = 2;
/// The page has not been written since dirty tracking last looked.
pub const PAGE_IS_CLEAN: u8 = 4;

/// An access outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("guest physical address {address:#x} (+{length} bytes) is outside RAM")]
pub struct OutsideRam {
    /// Where it began.
    pub address: u64,
    /// How long it was.
    pub length: u64,
}

/// A store that the engine has to know of: it may have changed code or a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Bytes of a page that holds decoded code were written.
    Code {
        /// Guest physical page number.
        page: u64,
    },
    /// The page-table entry at this address changed from `old` to `new`.
    PageTableEntry {
        /// Guest physical address of the 8-byte entry.
        address: u64,
        /// Before.
        old: u64,
        /// After.
        new: u64,
    },
    /// Many entries of a page-table page may have changed.
    PageTablePage {
        /// Guest physical page number.
        page: u64,
    },
}

/// Guest RAM.
pub struct Memory {
    bytes: Vec<u8>,
    flags: Vec<u8>,
    disturbances: Vec<Disturbance>,
}

impl Memory {
    /// RAM of `size` bytes (a multiple of the page size), all zero, every page clean.
    pub fn new(size: u64) -> Memory {
        assert!(
            size > 0 && size.is_multiple_of(PAGE_SIZE),
            "RAM size {size} is not whole pages"
        );
        let pages = (size / PAGE_SIZE) as usize;
        Memory {
            bytes: vec![0; size as usize],
            flags: vec![PAGE_IS_CLEAN; pages],
            disturbances: Vec::new(),
        }
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The offset of `address` in RAM, if `length` bytes from there are all RAM.
    #[inline]
    pub fn offset(&self, address: u64, length: u64) -> Result<usize, OutsideRam> {
        let offset = address.wrapping_sub(RAM_BASE);
        if offset < self.size() && self.size() - offset >= length {
            Ok(offset as usize)
        } else {
            Err(OutsideRam { address, length })
        }
    }

    /// Reads bytes (DMA, walks, loaders).
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        buffer.copy_from_slice(self.slice(address, buffer.len() as u64)?);
        Ok(())
    }

    /// Borrows bytes.
    pub fn slice(&self, address: u64, length: u64) -> Result<&[u8], OutsideRam> {
        let offset = self.offset(address, length)?;
        Ok(&self.bytes[offset..offset + length as usize])
    }

    /// Reads a little-endian number of `N` bytes.
    #[inline]
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], OutsideRam> {
        let offset = self.offset(address, N as u64)?;
        Ok(self.bytes[offset..offset + N]
            .try_into()
            .expect("the slice has N bytes"))
    }

    /// Writes bytes from outside the hart (DMA, loaders), with all that a store entails.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideRam> {
        let offset = self.offset(address, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let first = offset as u64 / PAGE_SIZE;
        let last = (offset + data.len() - 1) as u64 / PAGE_SIZE;
        for index in first..=last {
            let flags = std::mem::take(&mut self.flags[index as usize]);
            let page = RAM_BASE / PAGE_SIZE + index;
            if flags & PAGE_HOLDS_CODE != 0 {
                self.disturbances.push(Disturbance::Code { page });
            }
            if flags & PAGE_HOLDS_PAGE_TABLE != 0 {
                self.disturbances.push(Disturbance::PageTablePage { page });
            }
        }
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}
