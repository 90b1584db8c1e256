//! Where the block is that begins at a place in RAM: a table that forgets rather than grows.

use machine::memory::{PAGE_SIZE, ask_for_huge_pages};
use std::num::NonZeroU32;

/// What is known of the code that begins somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its block.
    pub block: u32,
    /// Where its compiled code begins, if it was compiled.
    pub code: Option<NonZeroU32>,
}

/// Blocks that a bucket holds. Kernels and the programs that run turn by turn are larger than any
/// table: what has to make room is what came first to its bucket.
const WAYS: usize = 4;
/// Buckets, a line of the host's cache each.
const BUCKETS: usize = 1 << 17;
/// Bytes of code that share a bucket: blocks that follow each other are found near each other.
const BYTES: usize = 16;
const BUCKETS_OF_PAGE: usize = PAGE_SIZE as usize / BYTES;

/// Keys, then values. A key is one more than the half-word that the block begins at, zero is none.
type Bucket = [u64; 2 * WAYS];

/// The table.
pub struct Slots(Box<[Bucket]>);

fn key(start: usize) -> u64 {
    start as u64 / 2 + 1
}

fn value(found: Found) -> u64 {
    u64::from(found.code.map_or(0, NonZeroU32::get)) << 32 | u64::from(found.block)
}

/// The first bucket of a page; Fibonacci hashing, so that neighbours are far apart.
fn first_bucket(start: usize) -> usize {
    let page = start as u64 / PAGE_SIZE;
    (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BUCKETS.ilog2())) as usize
}

fn bucket(start: usize) -> usize {
    (first_bucket(start) + start % PAGE_SIZE as usize / BYTES) % BUCKETS
}

impl Slots {
    /// An empty table. The host gives it memory as it fills.
    pub fn new() -> Slots {
        let mut buckets = vec![[0; 2 * WAYS]; BUCKETS].into_boxed_slice();
        ask_for_huge_pages(&mut buckets);
        Slots(buckets)
    }

    /// What is known of `start`, an offset in RAM.
    #[inline(always)]
    pub fn find(&self, start: usize) -> Option<Found> {
        let bucket = &self.0[bucket(start)];
        let way = bucket[..WAYS]
            .iter()
            .position(|&known| known == key(start))?;
        let value = bucket[WAYS + way];
        Some(Found {
            block: value as u32,
            code: NonZeroU32::new((value >> 32) as u32),
        })
    }

    /// Remembers a block.
    pub fn insert(&mut self, start: usize, block: u32) {
        let (keys, values) = self.0[bucket(start)].split_at_mut(WAYS);
        let known = keys
            .iter()
            .position(|&known| known == key(start) || known == 0);
        let last = known.unwrap_or(WAYS - 1);
        keys.copy_within(..last, 1);
        values.copy_within(..last, 1);
        keys[0] = key(start);
        values[0] = value(Found { block, code: None });
    }

    /// The block at `start` was compiled.
    pub fn set_code(&mut self, start: usize, code: Option<NonZeroU32>) {
        let bucket = &mut self.0[bucket(start)];
        if let Some(way) = bucket[..WAYS].iter().position(|&known| known == key(start)) {
            let block = bucket[WAYS + way] as u32;
            bucket[WAYS + way] = value(Found { block, code });
        }
    }

    /// Forgets the page that begins at `page_offset`.
    pub fn drop_page(&mut self, page_offset: usize) {
        let page = key(page_offset)..key(page_offset + PAGE_SIZE as usize);
        let first = first_bucket(page_offset);
        for index in first..first + BUCKETS_OF_PAGE {
            let (keys, _) = self.0[index % BUCKETS].split_at_mut(WAYS);
            for key in keys {
                if page.contains(key) {
                    *key = 0;
                }
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Slots::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = PAGE_SIZE as usize;

    /// Stale code would be executed.
    #[test]
    fn nothing_of_a_page_that_was_dropped_is_found() {
        let mut slots = Slots::new();
        let starts = || (0..8 * PAGE).step_by(2 * 37);
        for (block, start) in starts().enumerate() {
            slots.insert(start, block as u32);
            slots.set_code(start, NonZeroU32::new(start as u32 + 1));
        }
        slots.drop_page(3 * PAGE);
        for (block, start) in starts().enumerate() {
            let expected = (start / PAGE != 3).then_some(Found {
                block: block as u32,
                code: NonZeroU32::new(start as u32 + 1),
            });
            assert_eq!(slots.find(start), expected, "{start:#x}");
        }
        slots.clear();
        assert!(starts().all(|start| slots.find(start).is_none()));
    }

    /// Compiled code of a block that made room must not be taken for that of another.
    #[test]
    fn a_full_bucket_forgets_what_came_first() {
        let mut slots = Slots::new();
        for start in [0, 2, 4, 6, 8] {
            slots.insert(start, start as u32);
        }
        assert_eq!(slots.find(0), None);
        slots.set_code(0, NonZeroU32::new(9));
        for start in [2, 4, 6, 8] {
            let found = slots.find(start).expect("it came later");
            assert_eq!((found.block, found.code), (start as u32, None));
        }
        slots.insert(4, 77);
        assert_eq!(slots.find(4).map(|found| found.block), Some(77));
        assert_eq!(slots.find(2).map(|found| found.block), Some(2));
    }
}
