//! In which blocks two copies of a disk differ: known by digests, of which one side has those of the other.
//! `docs/decisions/disk-copies.md`.

use crate::mutation::{Mutation, Mutations};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Bytes of a block; the last one of a disk may be shorter.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a disk that are compared before the next ones are looked at.
pub const WINDOW_BYTES: u64 = 64 << 20;
/// Blocks of a window.
pub const WINDOW_BLOCKS: usize = WINDOW_BYTES as usize / BLOCK_BYTES;

const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// A digest of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDigest(pub u128);

impl BlockDigest {
    /// Of a block that is all zeros.
    pub const ZEROS: BlockDigest = BlockDigest(0);

    /// Of `block`. Whoever chose what is in it before `seed` was known cannot have made two that look alike.
    ///
    /// # Panics
    /// It is longer than a block.
    pub fn of(seed: u64, block: &[u8]) -> BlockDigest {
        if *block == ZEROS[..block.len()] {
            return BlockDigest::ZEROS;
        }
        BlockDigest(xxh3_128_with_seed(block, seed).max(1))
    }
}

/// The digests of the blocks of `bytes`, which begin with a block.
pub fn digests(seed: u64, bytes: &[u8]) -> impl Iterator<Item = BlockDigest> {
    bytes
        .chunks(BLOCK_BYTES)
        .map(move |block| BlockDigest::of(seed, block))
}

/// Bytes in which the other copy differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, from the beginning of what was compared.
    pub range: Range<usize>,
    /// This side has zeros there.
    pub is_zeros: bool,
}

/// Compares blocks with those of another copy.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Of the digests.
    pub seed: u64,
    /// For tests of the simulator.
    pub mutations: Mutations,
}

impl Comparison {
    /// In what the other copy differs from `ours`, in order. `theirs` are the digests of its blocks; where
    /// they are not known, all may differ.
    ///
    /// # Panics
    /// There are not as many digests as blocks.
    pub fn differences(&self, ours: &[u8], theirs: Option<&[BlockDigest]>) -> Vec<Difference> {
        let own = digests(self.seed, ours);
        self.compare(own, ours.len(), theirs)
    }

    /// As [`Comparison::differences`] where this side has `length` zeros.
    ///
    /// # Panics
    /// There are not as many digests as blocks.
    pub fn differences_from_zeros(
        &self,
        length: usize,
        theirs: Option<&[BlockDigest]>,
    ) -> Vec<Difference> {
        let own = std::iter::repeat_n(BlockDigest::ZEROS, length.div_ceil(BLOCK_BYTES));
        self.compare(own, length, theirs)
    }

    fn compare(
        &self,
        own: impl Iterator<Item = BlockDigest>,
        length: usize,
        theirs: Option<&[BlockDigest]>,
    ) -> Vec<Difference> {
        let blocks = length.div_ceil(BLOCK_BYTES);
        assert!(
            theirs.is_none_or(|theirs| theirs.len() == blocks),
            "as many digests as blocks"
        );
        let mut found: Vec<Difference> = Vec::new();
        for (index, own) in own.enumerate() {
            if theirs.is_some_and(|theirs| theirs[index] == own) {
                continue;
            }
            let start = index * BLOCK_BYTES;
            let (end, is_zeros) = ((start + BLOCK_BYTES).min(length), own == BlockDigest::ZEROS);
            match found.last_mut() {
                Some(last) if last.range.end == start && last.is_zeros == is_zeros => {
                    last.range.end = end;
                }
                _ => found.push(Difference {
                    range: start..end,
                    is_zeros,
                }),
            }
        }
        if self.mutations.active(Mutation::ChangedBlockNotCopied)
            && let Some(last) = found.pop_if(|last| !last.is_zeros)
            && last.range.len() > BLOCK_BYTES
        {
            let range = last.range.start..last.range.end - BLOCK_BYTES;
            found.push(Difference { range, ..last });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: u64 = 7;

    fn comparison() -> Comparison {
        Comparison {
            seed: SEED,
            mutations: Mutations::default(),
        }
    }

    /// Copies of disks: a byte for each block, and how long the last one is.
    fn disks() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let blocks = proptest::collection::vec((0..3u8, 0..3u8), 1..40);
        (blocks, 1..=8usize).prop_map(|(blocks, eighths)| {
            let fill = |byte: u8| [byte; BLOCK_BYTES];
            let length = blocks.len() * BLOCK_BYTES - BLOCK_BYTES / 8 * (8 - eighths);
            let mut ours: Vec<u8> = blocks.iter().flat_map(|(own, _)| fill(*own)).collect();
            let mut theirs: Vec<u8> = blocks.iter().flat_map(|(_, own)| fill(*own)).collect();
            ours.truncate(length);
            theirs.truncate(length);
            (ours, theirs)
        })
    }

    fn apply(differences: &[Difference], ours: &[u8], theirs: &mut [u8]) -> usize {
        for Difference { range, is_zeros } in differences {
            let range = range.clone();
            assert_eq!(*is_zeros, ours[range.clone()].iter().all(|byte| *byte == 0));
            theirs[range.clone()].copy_from_slice(&ours[range]);
        }
        differences.iter().map(|found| found.range.len()).sum()
    }

    proptest! {
        #[test]
        fn a_copy_is_equal_when_what_differed_was_copied_and_nothing_else_was(
            (ours, mut theirs) in disks()
        ) {
            let known: Vec<BlockDigest> = digests(SEED, &theirs).collect();
            let differing = ours.chunks(BLOCK_BYTES).zip(theirs.chunks(BLOCK_BYTES));
            let differing: usize = differing
                .filter(|(own, other)| own != other)
                .map(|(own, _)| own.len())
                .sum();
            let found = comparison().differences(&ours, Some(&known));
            prop_assert_eq!(apply(&found, &ours, &mut theirs), differing);
            prop_assert_eq!(&ours, &theirs);
        }

        #[test]
        fn what_is_not_known_is_copied_as_a_whole((ours, mut theirs) in disks()) {
            let found = comparison().differences(&ours, None);
            prop_assert_eq!(apply(&found, &ours, &mut theirs), ours.len());
            prop_assert_eq!(&ours, &theirs);
        }

        #[test]
        fn zeros_are_compared_without_being_read((_, mut theirs) in disks()) {
            let known: Vec<BlockDigest> = digests(SEED, &theirs).collect();
            let ours = vec![0; theirs.len()];
            let found = comparison().differences_from_zeros(ours.len(), Some(&known));
            prop_assert_eq!(&found, &comparison().differences(&ours, Some(&known)));
            apply(&found, &ours, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_digest_depends_on_the_seed_but_for_zeros() {
        let (block, zeros) = ([1; BLOCK_BYTES], [0; BLOCK_BYTES]);
        assert_ne!(BlockDigest::of(1, &block), BlockDigest::of(2, &block));
        assert_eq!(
            BlockDigest::of(1, &zeros),
            BlockDigest::of(2, &zeros[..512])
        );
    }
}
