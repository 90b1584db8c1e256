//! Refcounts: how many tables speak of a cluster.

use crate::cache::Table;
use crate::error::damaged;
use crate::mapping::block_place;
use crate::state::State;
use std::io;

/// The refcount at this place of a block, of 2^`order` bits each.
pub(crate) fn get(block: &[u8], order: u32, index: usize) -> u64 {
    if order < 3 {
        let bits = 1 << order;
        let in_byte: usize = 8 / bits;
        let byte = block[index / in_byte] >> (bits * (index % in_byte));
        return u64::from(byte) & ((1 << bits) - 1);
    }
    let bytes = 1 << (order - 3);
    let number = block[index * bytes..(index + 1) * bytes].iter();
    number.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Makes it another, which has to fit.
pub(crate) fn set(block: &mut Table, order: u32, index: usize, refcount: u64) {
    if order < 3 {
        let bits = 1 << order;
        let in_byte = 8 / bits;
        let (at, shift) = (index / in_byte, bits * (index % in_byte));
        let mask = ((1u16 << bits) - 1) as u8;
        let byte = block.bytes()[at] & !(mask << shift) | (refcount as u8 & mask) << shift;
        block.change(at, &[byte]);
        return;
    }
    let bytes = 1 << (order - 3);
    block.change(index * bytes, &refcount.to_be_bytes()[8 - bytes..]);
}

impl State {
    /// The refcount block that speaks of a cluster of the file, if there is one, and the place in it.
    pub(crate) fn block_of(&self, cluster: u64) -> io::Result<(Option<u64>, usize, usize)> {
        let in_block = self.header.refcounts_in_block();
        let (block, index) = ((cluster / in_block) as usize, (cluster % in_block) as usize);
        let entry = self.refcount_table.get(block).copied().unwrap_or(0);
        Ok((block_place(&self.header, entry)?, block, index))
    }

    /// A table less speaks of the cluster. One that nobody speaks of any more is free.
    fn release_one(&mut self, cluster: u64) -> io::Result<()> {
        let order = self.header.refcount_order;
        let (Some(place), _, index) = self.block_of(cluster)? else {
            return Err(damaged(format!(
                "cluster {cluster} is used and not counted"
            )));
        };
        let block = self.refcount_block(place)?;
        let refcount = get(block.bytes(), order, index);
        if refcount == 0 {
            return Err(damaged(format!(
                "cluster {cluster} is used and counted as free"
            )));
        }
        set(block, order, index, refcount - 1);
        if refcount == 1 {
            let cluster_bytes = self.cluster_bytes();
            self.first_free = self.first_free.min(cluster);
            self.tables.remove(&cluster);
            self.l2_tables.remove(cluster * cluster_bytes);
            self.file.give_back(cluster * cluster_bytes, cluster_bytes);
        }
        Ok(())
    }

    /// No table on the disk speaks of these any more. One that cannot be released is lost, which harms
    /// nobody.
    pub(crate) fn release(&mut self, clusters: &[u64]) {
        for cluster in clusters {
            let _released = self.release_one(*cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;

    #[test]
    fn each_width_of_refcounts_keeps_what_was_put_there_and_leaves_its_neighbours() {
        for order in 0..=6 {
            let mut cache = Cache::new(1 << 20, 512);
            let block = cache.insert(512, vec![0; 512]);
            let most = if order == 6 {
                u64::MAX
            } else {
                (1 << (1 << order)) - 1
            };
            for index in 0..32usize {
                let value = if index.is_multiple_of(3) {
                    most
                } else {
                    index as u64 & most
                };
                set(block, order, index, value);
            }
            set(block, order, 7, 0);
            for index in 0..32usize {
                let value = match index {
                    7 => 0,
                    _ if index.is_multiple_of(3) => most,
                    _ => index as u64 & most,
                };
                assert_eq!(
                    get(block.bytes(), order, index),
                    value,
                    "order {order}, {index}"
                );
            }
        }
    }
}
