//! Dirty epochs: what changed since each of several consumers last looked.
//!
//! A page whose next write somebody waits for has [`PAGE_IS_CLEAN`]; no write TLB knows it, so that
//! write takes the slow path and comes here, once. It counts for everyone: each consumer then sees the
//! page when it looks, and marks it clean again for itself. An epoch of a consumer is what lies between
//! two of its looks; it neither disturbs the others' nor is disturbed by them.

use super::{PAGE_IS_CLEAN, PAGE_SIZE, Ram};

/// Who wants to know of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Consumer {
    /// The digest of RAM ([`Ram::digest`]).
    Digest = 1,
    /// Whoever brings another machine's RAM along without executing: pages written since the last
    /// checkpoint ([`Extent::Checkpoint`](super::Extent)).
    Checkpoint = 2,
    /// A copy of the machine that is made in rounds: pages written since the last one began
    /// ([`Extent`](super::Extent)).
    Copy = 4,
    /// A journal: pages written since its last snapshot was begun ([`Extent::Increment`](super::Extent)).
    Journal = 8,
}

/// No consumer has seen the last write to the page.
const UNSEEN: u8 = Consumer::Digest as u8
    | Consumer::Checkpoint as u8
    | Consumer::Copy as u8
    | Consumer::Journal as u8;
/// The bytes of the page are those of the snapshot that is being taken, and are not in it yet.
pub(super) const TO_BE_KEPT: u8 = 128;

impl Ram {
    /// Before a write to page `index`, which is clean.
    #[cold]
    pub(super) fn first_write(&mut self, index: usize) {
        if self.tracking[index] & TO_BE_KEPT != 0 {
            self.keep_page(index);
        }
        self.tracking[index] = UNSEEN;
        self.flags[index] &= !PAGE_IS_CLEAN;
    }

    /// The consumer has seen what page `index` holds now.
    pub(super) fn has_seen(&mut self, consumer: Consumer, index: usize) {
        self.tracking[index] &= !(consumer as u8);
        self.flags[index] |= PAGE_IS_CLEAN;
    }

    /// Page `index` is in the snapshot.
    pub(super) fn was_kept(&mut self, index: usize) {
        self.tracking[index] &= !TO_BE_KEPT;
        // Nobody has seen the last write before the snapshot: none has to notice the next one.
        if self.tracking[index] == UNSEEN {
            self.flags[index] &= !PAGE_IS_CLEAN;
        }
    }

    /// The bytes of all pages are to be kept. All write TLB entries have to go afterwards.
    pub(super) fn keep_all(&mut self) {
        // Two sweeps over a byte for each page: the guest waits for them.
        for tracking in &mut self.tracking {
            *tracking |= TO_BE_KEPT;
        }
        for flags in &mut self.flags {
            *flags |= PAGE_IS_CLEAN;
        }
    }

    /// The bytes of pages that were written since the consumer last looked are to be kept, and those that
    /// an earlier snapshot did not come to. All write TLB entries have to go afterwards.
    pub(super) fn keep_written(&mut self, consumer: Consumer) {
        let pages = self.tracking.iter_mut().zip(&mut self.flags);
        for (tracking, flags) in pages.filter(|(tracking, _)| **tracking & consumer as u8 != 0) {
            *tracking |= TO_BE_KEPT;
            *flags |= PAGE_IS_CLEAN;
        }
    }

    /// What is being taken for the consumer holds what all pages are now: its next epoch begins. They are
    /// clean already, or were not written since it last looked.
    pub(super) fn has_seen_all(&mut self, consumer: Consumer) {
        for tracking in &mut self.tracking {
            *tracking &= !(consumer as u8);
        }
    }

    /// The consumer knows what all pages are now: its next epoch begins here. All write TLB entries have to
    /// go afterwards.
    pub fn begin_epoch(&mut self, consumer: Consumer) {
        self.has_seen_all(consumer);
        for flags in &mut self.flags {
            *flags |= PAGE_IS_CLEAN;
        }
    }

    /// Pages that were written since the last round of a copy.
    pub fn pages_changed(&self) -> usize {
        self.pages_unseen(Consumer::Copy)
    }

    /// Pages that were written since the consumer last looked.
    pub fn pages_unseen(&self, consumer: Consumer) -> usize {
        let changed = |tracking: &&u8| **tracking & consumer as u8 != 0;
        self.tracking.iter().filter(changed).count()
    }

    /// No bytes are to be kept any more.
    pub(super) fn keep_none(&mut self) {
        for index in 0..self.tracking.len() {
            self.was_kept(index);
        }
    }

    /// Whether page `index` was written since the consumer last looked.
    pub fn is_unseen(&self, consumer: Consumer, index: usize) -> bool {
        self.tracking[index] & consumer as u8 != 0
    }

    /// Calls `f` with the index and the bytes of every page written since the consumer last looked;
    /// its next epoch begins. All write TLB entries have to go afterwards.
    pub fn visit_written(&mut self, consumer: Consumer, mut f: impl FnMut(usize, &[u8])) {
        const GROUP: usize = 64;
        for first in (0..self.tracking.len()).step_by(GROUP) {
            let end = self.tracking.len().min(first + GROUP);
            let of_any = self.tracking[first..end]
                .iter()
                .fold(0, |or, byte| or | byte);
            if of_any & consumer as u8 == 0 {
                continue;
            }
            for index in first..end {
                if self.is_unseen(consumer, index) {
                    f(
                        index,
                        &self.bytes[index * PAGE_SIZE as usize..][..PAGE_SIZE as usize],
                    );
                    self.has_seen(consumer, index);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Region;

    const PAGE: usize = PAGE_SIZE as usize;

    fn seen(ram: &mut Ram, consumer: Consumer) -> Vec<usize> {
        let mut pages = Vec::new();
        ram.visit_written(consumer, |index, _| pages.push(index));
        pages
    }

    #[test]
    fn every_consumer_sees_every_written_page_once_whenever_it_looks() {
        let mut ram = Ram::new(&[Region {
            base: 0,
            length: 200 * PAGE_SIZE,
        }]);
        let (digest, checkpoint) = (Consumer::Digest, Consumer::Checkpoint);
        assert_eq!(seen(&mut ram, digest), []);
        ram.store(3 * PAGE, 8, 1);
        assert!(ram.is_plain(3 * PAGE), "the second store is quick");
        ram.write(2 * PAGE_SIZE - 1, &[1, 2]).unwrap();
        assert_eq!(seen(&mut ram, digest), [1, 2, 3]);
        assert!(!ram.is_plain(3 * PAGE), "the next write is to be noticed");
        ram.store(199 * PAGE, 1, 0);
        assert_eq!(seen(&mut ram, checkpoint), [1, 2, 3, 199]);
        assert_eq!(seen(&mut ram, digest), [199]);
        assert_eq!(seen(&mut ram, digest), []);
        ram.store(3 * PAGE, 8, 1);
        assert_eq!(seen(&mut ram, checkpoint), [3]);
        assert_eq!(seen(&mut ram, digest), [3]);
        // Who looks for the first time sees all of it.
        assert_eq!(seen(&mut ram, Consumer::Journal), [1, 2, 3, 199]);
        assert_eq!(seen(&mut ram, Consumer::Copy), [1, 2, 3, 199]);
    }
}
