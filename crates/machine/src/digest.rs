//! The digest: equal on two replicas iff their states are equal.
//!
//! XXH3 (128 bits) guards against divergence, not against an adversary. Each page of RAM has a
//! digest that is only computed again when the page was written.

use crate::machine::Machine;
use crate::memory::PAGE_SIZE;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// The digests of all pages of RAM and their sum.
pub struct PageDigests {
    pages: Vec<u128>,
    sum: u128,
}

impl PageDigests {
    /// For RAM that is all zero: such a page counts as nothing.
    pub fn new(pages: usize) -> PageDigests {
        PageDigests {
            pages: vec![0; pages],
            sum: 0,
        }
    }

    /// Whether the page was all zero when it was last looked at.
    pub fn is_zero(&self, index: usize) -> bool {
        self.pages[index] == 0
    }

    /// Page `index` was written, and holds these bytes now.
    pub fn update(&mut self, index: usize, bytes: &[u8]) {
        let digest = if bytes.iter().all(|&byte| byte == 0) {
            0
        } else {
            xxh3_128_with_seed(bytes, index as u64 + 1)
        };
        let old = std::mem::replace(&mut self.pages[index], digest);
        self.sum = self.sum.wrapping_sub(old).wrapping_add(digest);
    }

    /// The digest of a machine: of RAM, and of all else as bytes.
    pub fn with_state(&self, mut state: Vec<u8>) -> u128 {
        state.extend(self.sum.to_le_bytes());
        xxh3_128(&state)
    }
}

impl Machine {
    /// Whether page `index` of RAM is all zero and this is known without a look at it: most of RAM
    /// was never touched, and a look would have the host map all of it.
    pub(crate) fn is_known_to_be_zero(&self, index: usize) -> bool {
        self.memory.is_clean(index * PAGE_SIZE as usize) && self.page_digests.is_zero(index)
    }

    /// A digest of the whole state: registers, devices and RAM.
    pub fn digest(&mut self) -> u128 {
        let pages = &mut self.page_digests;
        self.memory
            .visit_dirty_pages(|index, bytes| pages.update(index, bytes));
        self.state.current_hart().tlb.clear_stores();
        let state = postcard::to_stdvec(&self.state).expect("plain data serialises");
        self.page_digests.with_state(state)
    }
}
