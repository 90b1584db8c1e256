//! Taking clusters of the file that are free.

use crate::error::damaged;
use crate::header::MOST_REFCOUNT_TABLE_BYTES;
use crate::mapping::MOST_OFFSET;
use crate::refcounts;
use crate::state::State;
use std::io;

/// Clusters one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Where they begin in the file, in bytes.
    pub offset: u64,
    /// How many.
    pub clusters: u64,
    /// Nothing was ever there: they are zero.
    pub is_fresh: bool,
}

impl State {
    /// Takes at least one cluster, and at most `most` one after the other. Their refcounts go to the disk
    /// with the next commit.
    ///
    /// # Errors
    /// The disk fails, the image cannot grow, or is damaged.
    pub(crate) fn take(&mut self, most: u64) -> io::Result<Taken> {
        let order = self.header.refcount_order;
        let (first, count) = self.find_free(most)?;
        for cluster in first..first + count {
            let (place, _, index) = self.block_of(cluster)?;
            let place = place.ok_or_else(|| damaged("a refcount block has gone".into()))?;
            refcounts::set(self.refcount_block(place)?, order, index, 1);
        }
        self.first_free = first + count;
        let cluster_bytes = self.cluster_bytes();
        let offset = first * cluster_bytes;
        let is_fresh = offset >= self.end;
        self.end = self.end.max((first + count) * cluster_bytes);
        Ok(Taken {
            offset,
            clusters: count,
            is_fresh,
        })
    }

    /// Gives back what was taken, and what nothing speaks of.
    pub(crate) fn untake(&mut self, taken: Taken) {
        let first = taken.offset / self.cluster_bytes();
        let clusters: Vec<u64> = (first..first + taken.clusters).collect();
        self.release(&clusters);
    }

    /// The first cluster that is free, and how many are one after the other.
    fn find_free(&mut self, most: u64) -> io::Result<(u64, u64)> {
        let (order, in_block) = (self.header.refcount_order, self.header.refcounts_in_block());
        let mut cluster = self.first_free;
        loop {
            if cluster >= MOST_OFFSET / self.cluster_bytes() {
                return Err(cannot_grow());
            }
            let (place, block, index) = self.block_of(cluster)?;
            let Some(place) = place else {
                if block >= self.refcount_table.len() {
                    self.grow_refcount_table()?;
                } else {
                    self.add_refcount_block(block)?;
                }
                continue;
            };
            let bytes = self.refcount_block(place)?.bytes();
            let is_free = |index: &usize| refcounts::get(bytes, order, *index) == 0;
            let found = (index..in_block as usize).find(is_free);
            let Some(found) = found else {
                cluster = (block as u64 + 1) * in_block;
                continue;
            };
            let end = (found as u64 + most).min(in_block) as usize;
            let count = (found..end).take_while(is_free).count() as u64;
            let first = block as u64 * in_block + found as u64;
            if let Some(table) = self.tables.range(first..first + count).next() {
                let why = format!("cluster {table} is a table, and is counted as free");
                return Err(damaged(why));
            }
            return Ok((first, count));
        }
    }

    /// Makes the block that is to speak of clusters of which none does. It is in the first of them.
    fn add_refcount_block(&mut self, block: usize) -> io::Result<()> {
        let order = self.header.refcount_order;
        let cluster_bytes = self.cluster_bytes();
        let cluster = block as u64 * self.header.refcounts_in_block();
        let offset = cluster * cluster_bytes;
        if self.tables.contains(&cluster) {
            let why = format!("cluster {cluster} is a table, and is not counted");
            return Err(damaged(why));
        }
        let table = self
            .refcount_blocks
            .insert_new(offset, vec![0; cluster_bytes as usize]);
        refcounts::set(table, order, 0, 1);
        // It has to be there for good before the table speaks of it: what was there before counts nothing.
        let made = self.file.write_at(table.take_dirty().1, offset);
        if let Err(error) = made.and_then(|()| self.file.sync()) {
            self.refcount_blocks.remove(offset);
            return Err(error);
        }
        self.end = self.end.max(offset + cluster_bytes);
        self.refcount_table[block] = offset;
        self.refcount_table_changed.insert(block);
        self.tables.insert(cluster);
        Ok(())
    }

    /// Makes a refcount table of twice the length, with the blocks for its own clusters, behind everything
    /// that the old one speaks of.
    fn grow_refcount_table(&mut self) -> io::Result<()> {
        let (cluster_bytes, in_block) = (self.cluster_bytes(), self.header.refcounts_in_block());
        let old_entries = self.refcount_table.len() as u64;
        let old_clusters = old_entries * 8 / cluster_bytes;
        let new_clusters = old_clusters * 2;
        if new_clusters * cluster_bytes > MOST_REFCOUNT_TABLE_BYTES {
            return Err(cannot_grow());
        }
        let mut blocks = 1;
        while blocks * in_block < blocks + new_clusters {
            blocks += 1;
        }
        let first = old_entries * in_block;
        let place = |cluster: u64| (first + cluster) * cluster_bytes;
        let mut table = self.refcount_table.clone();
        table.resize((new_clusters * cluster_bytes / 8) as usize, 0);
        let made = self.write_refcount_table(blocks, new_clusters, first, &mut table);
        if let Err(error) = made {
            for block in 0..blocks {
                self.refcount_blocks.remove(place(block));
            }
            return Err(error);
        }
        self.refcount_table = table;
        let old = self.refcount_table_offset / cluster_bytes;
        self.refcount_table_offset = place(blocks);
        self.refcount_table_changed.clear();
        self.is_refcount_table_moved = true;
        self.end = self.end.max(place(blocks + new_clusters));
        self.tables.extend(first..first + blocks + new_clusters);
        self.released.extend(old..old + old_clusters);
        Ok(())
    }

    fn write_refcount_table(
        &mut self,
        blocks: u64,
        new_clusters: u64,
        first: u64,
        table: &mut [u64],
    ) -> io::Result<()> {
        let (cluster_bytes, in_block) = (self.cluster_bytes(), self.header.refcounts_in_block());
        let order = self.header.refcount_order;
        let used = blocks + new_clusters;
        for block in 0..blocks {
            let offset = (first + block) * cluster_bytes;
            table[((first + block * in_block) / in_block) as usize] = offset;
            let made = self
                .refcount_blocks
                .insert_new(offset, vec![0; cluster_bytes as usize]);
            let counted = used.saturating_sub(block * in_block).min(in_block);
            for index in 0..counted {
                refcounts::set(made, order, index as usize, 1);
            }
            self.file.write_at(made.take_dirty().1, offset)?;
        }
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let offset = (first + blocks) * cluster_bytes;
        self.file.write_at(&bytes, offset)?;
        self.file.sync()
    }
}

fn cannot_grow() -> io::Error {
    io::Error::new(
        io::ErrorKind::StorageFull,
        "the qcow2 image cannot grow: its clusters are too small for more",
    )
}
