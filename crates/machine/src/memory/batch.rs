//! Pages of RAM on their way somewhere.

use super::PAGE_SIZE;

const PAGE: usize = PAGE_SIZE as usize;

/// Pages that a batch holds when it is full: a megabyte.
pub const BATCH_PAGES: usize = 256;

/// Pages with their indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageBatch {
    indices: Vec<u32>,
    bytes: Vec<u8>,
}

impl PageBatch {
    /// With room for so many pages, which costs nothing until it is used.
    pub fn with_capacity(pages: usize) -> PageBatch {
        PageBatch {
            indices: Vec::new(),
            bytes: Vec::with_capacity(pages * PAGE),
        }
    }

    /// Adds page `index`, unless it is all zero.
    ///
    /// # Panics
    /// `bytes` is no page.
    pub fn add(&mut self, index: usize, bytes: &[u8]) {
        if !is_zero(bytes) {
            self.add_any(index, bytes);
        }
    }

    /// Adds page `index`, whatever it holds: it may take the place of another.
    ///
    /// # Panics
    /// `bytes` is no page.
    pub fn add_any(&mut self, index: usize, bytes: &[u8]) {
        assert_eq!(bytes.len(), PAGE, "page {index} is no page");
        self.indices.push(index as u32);
        self.bytes.extend_from_slice(bytes);
    }

    /// Pages in it.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Forgets the pages and keeps the room.
    pub fn clear(&mut self) {
        self.indices.clear();
        self.bytes.clear();
    }

    /// Index and bytes of the page that came as the `place`th, from 0.
    ///
    /// # Panics
    /// There are not so many.
    pub fn page_mut(&mut self, place: usize) -> (u32, &mut [u8]) {
        let bytes = &mut self.bytes[place * PAGE..][..PAGE];
        (self.indices[place], bytes)
    }

    /// Index and bytes of each, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let indices = self.indices.iter().copied();
        indices.zip(self.bytes.chunks_exact(PAGE))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks_exact(64)
        .all(|chunk| chunk.iter().fold(0, |or, byte| or | byte) == 0)
}
