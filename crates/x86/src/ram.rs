//! RAM: one region from physical address 0 on.

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// RAM, from physical address 0 on.
pub struct Ram {
    bytes: Vec<u8>,
}

impl Ram {
    /// RAM of `size` bytes, whole pages, all zero.
    pub fn new(size: u64) -> Ram {
        assert!(
            size > 0 && size.is_multiple_of(PAGE_SIZE),
            "RAM size {size} is not whole pages"
        );
        Ram {
            bytes: vec![0; size as usize],
        }
    }

    /// Bytes of RAM.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Borrows bytes; `None` unless all are RAM.
    pub fn slice(&self, address: u64, length: u64) -> Option<&[u8]> {
        let end = address.checked_add(length)?;
        self.bytes
            .get(usize::try_from(address).ok()?..usize::try_from(end).ok()?)
    }

    /// Writes bytes from outside the CPU (DMA, loaders), with all that a store entails; `None` unless
    /// all are RAM.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Option<()> {
        let end = address.checked_add(data.len() as u64)?;
        self.bytes
            .get_mut(usize::try_from(address).ok()?..usize::try_from(end).ok()?)?
            .copy_from_slice(data);
        Some(())
    }
}
