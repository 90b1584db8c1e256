//! The digest of RAM: equal on two replicas iff their RAM is equal.
//!
//! XXH3 (128 bits) guards against divergence, not against an adversary. Each page has a digest that
//! is only computed again when the page was written.

use super::{Consumer, Ram};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The digests of all pages of RAM and their sum.
#[derive(Default)]
pub(super) struct PageDigests {
    pages: Vec<u128>,
    sum: u128,
    /// Pages that are not all zero.
    not_zero: usize,
}

impl PageDigests {
    /// For RAM that is all zero: such a page counts as nothing.
    pub(super) fn new(pages: usize) -> PageDigests {
        PageDigests {
            pages: vec![0; pages],
            sum: 0,
            not_zero: 0,
        }
    }

    /// Whether the page was all zero when it was last looked at.
    pub fn is_zero(&self, index: usize) -> bool {
        self.pages[index] == 0
    }

    /// The digest of RAM: of all pages, as they were last looked at.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Page `index` was written, and holds these bytes now.
    pub fn update(&mut self, index: usize, bytes: &[u8]) {
        let digest = if bytes.iter().all(|&byte| byte == 0) {
            0
        } else {
            xxh3_128_with_seed(bytes, index as u64 + 1)
        };
        let old = std::mem::replace(&mut self.pages[index], digest);
        self.not_zero = self.not_zero + usize::from(digest != 0) - usize::from(old != 0);
        self.sum = self.sum.wrapping_sub(old).wrapping_add(digest);
    }
}

impl Ram {
    /// A digest of RAM. All write TLB entries have to go afterwards: see
    /// [`Ram::visit_written`].
    pub fn digest(&mut self) -> u128 {
        let mut digests = std::mem::take(&mut self.digests);
        self.visit_written(Consumer::Digest, |index, bytes| {
            digests.update(index, bytes)
        });
        self.digests = digests;
        self.digests.sum()
    }

    /// Pages that were not all zero when they were last looked at: an estimate of what a snapshot
    /// holds.
    pub fn pages_in_use(&self) -> usize {
        self.digests.not_zero
    }

    /// Whether page `index` is all zero and this is known without a look at it: most of RAM was
    /// never touched, and a look would have the host map all of it.
    pub fn is_known_to_be_zero(&self, index: usize) -> bool {
        !self.is_unseen(Consumer::Digest, index) && self.digests.is_zero(index)
    }
}
