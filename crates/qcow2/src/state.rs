//! What is known of an image's file, behind the image's lock.

use crate::cache::{Cache, Table};
use crate::error::{OpenError, damaged};
use crate::header::{Header, long};
use crate::mapping::{Mapping, block_place, l2_place};
use crate::storage::{Storage, read_or_zeros};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Of L2 tables: in clusters of 64 KiB they speak for 256 GiB.
const L2_CACHE_BYTES: u64 = 32 << 20;
const REFCOUNT_CACHE_BYTES: u64 = 4 << 20;

/// A cluster that was unpacked last, by its entry.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub entry: u64,
    pub bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub file: Arc<dyn Storage>,
    pub header: Header,
    pub l1: Vec<u64>,
    /// Entries of the L1 table that the file does not have, or not for good.
    pub l1_changed: BTreeSet<usize>,
    pub refcount_table: Vec<u64>,
    pub refcount_table_offset: u64,
    /// As those of the L1 table.
    pub refcount_table_changed: BTreeSet<usize>,
    /// The header does not say where the refcount table is, or not for good.
    pub is_refcount_table_moved: bool,
    pub l2_tables: Cache,
    pub refcount_blocks: Cache,
    /// No byte from here on was ever used.
    pub end: u64,
    /// No cluster before this one is free.
    pub first_free: u64,
    /// Clusters with tables in them: no content of the disk is ever written there.
    pub tables: BTreeSet<u64>,
    /// Clusters that one table less will speak of when the changes are on the disk, once for each.
    pub released: Vec<u64>,
    pub unpacked: Unpacked,
}

/// Reads a table of numbers.
fn read_table(storage: &dyn Storage, offset: u64, entries: u64) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries as usize * 8];
    read_or_zeros(storage, &mut bytes, offset)?;
    Ok(bytes.chunks_exact(8).map(|entry| long(entry, 0)).collect())
}

impl State {
    /// Reads the tables that are always there, and sees whether everything that they speak of can be.
    pub fn load(file: Arc<dyn Storage>, header: Header) -> Result<State, OpenError> {
        let end = file.length()?;
        let cluster_bytes = header.cluster_bytes();
        let l1_entries = u64::from(header.l1_entries);
        let refcount_clusters = u64::from(header.refcount_table_clusters);
        let l1 = read_table(&*file, header.l1_offset, l1_entries)?;
        let entries = refcount_clusters * cluster_bytes / 8;
        let refcount_table = read_table(&*file, header.refcount_table_offset, entries)?;
        let mut state = State {
            l1,
            refcount_table,
            l1_changed: BTreeSet::new(),
            refcount_table_offset: header.refcount_table_offset,
            refcount_table_changed: BTreeSet::new(),
            is_refcount_table_moved: false,
            l2_tables: Cache::new(L2_CACHE_BYTES, cluster_bytes),
            refcount_blocks: Cache::new(REFCOUNT_CACHE_BYTES, cluster_bytes),
            end,
            first_free: 1,
            tables: BTreeSet::from([0]),
            released: Vec::new(),
            unpacked: Unpacked::default(),
            file,
            header,
        };
        state.find_tables(refcount_clusters)?;
        state.find_cut_off()?;
        Ok(state)
    }

    fn find_tables(&mut self, refcount_clusters: u64) -> Result<(), OpenError> {
        let header = &self.header;
        let cluster_bytes = header.cluster_bytes();
        let l1_clusters = (self.l1.len() as u64 * 8).div_ceil(cluster_bytes);
        let mut places = Vec::new();
        for cluster in 0..l1_clusters {
            places.push(header.l1_offset + cluster * cluster_bytes);
        }
        for cluster in 0..refcount_clusters {
            places.push(header.refcount_table_offset + cluster * cluster_bytes);
        }
        let wrong = |error: io::Error| OpenError::damaged(error.to_string());
        for entry in &self.l1 {
            let place = l2_place(header, *entry).map_err(wrong)?;
            places.extend(place.map(|(offset, _)| offset));
        }
        for entry in &self.refcount_table {
            places.extend(block_place(header, *entry).map_err(wrong)?);
        }
        for offset in places {
            if offset >= self.end {
                return Err(OpenError::damaged(format!(
                    "a table is said to be at byte {offset}, and the file has {} bytes; was it cut off?",
                    self.end
                )));
            }
            self.tables.insert(offset / cluster_bytes);
        }
        Ok(())
    }

    pub fn cluster_bytes(&self) -> u64 {
        self.header.cluster_bytes()
    }

    /// The index in the L1 table, and that in the L2 table, of a cluster of the disk.
    pub fn indices(&self, cluster: u64) -> (usize, usize) {
        let entries = self.header.l2_entries();
        ((cluster / entries) as usize, (cluster % entries) as usize)
    }

    fn read_cluster(&self, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.cluster_bytes() as usize];
        read_or_zeros(&*self.file, &mut bytes, offset)?;
        Ok(bytes)
    }

    /// The L2 table at this place of the file.
    pub fn l2_table(&mut self, offset: u64) -> io::Result<&mut Table> {
        if self.l2_tables.get(offset).is_none() {
            let bytes = self.read_cluster(offset)?;
            self.l2_tables.insert(offset, bytes);
        }
        let table = self.l2_tables.get(offset);
        table.ok_or_else(|| damaged("a table was not kept".into()))
    }

    /// The refcount block at this place of the file.
    pub fn refcount_block(&mut self, offset: u64) -> io::Result<&mut Table> {
        if self.refcount_blocks.get(offset).is_none() {
            let bytes = self.read_cluster(offset)?;
            self.refcount_blocks.insert(offset, bytes);
        }
        let table = self.refcount_blocks.get(offset);
        table.ok_or_else(|| damaged("a table was not kept".into()))
    }

    /// The entry of a cluster of the disk, and what it says.
    pub fn lookup(&mut self, cluster: u64) -> io::Result<(u64, Mapping)> {
        let (l1_index, l2_index) = self.indices(cluster);
        let Some((offset, _)) = l2_place(&self.header, self.l1[l1_index])? else {
            return Ok((0, Mapping::Below));
        };
        let entry = long(self.l2_table(offset)?.bytes(), l2_index * 8);
        let mapping = Mapping::decode(&self.header, entry)?;
        if let Some((first, _)) = mapping.holds(self.cluster_bytes())
            && first >= self.end
        {
            let why = format!(
                "content is said to be at byte {first}, and the file has {} bytes; was it cut off?",
                self.end
            );
            return Err(damaged(why));
        }
        Ok((entry, mapping))
    }

    /// Whether nothing of so many clusters from this one on, to the end of their L2 table, is in the image.
    pub fn has_no_table(&self, cluster: u64) -> bool {
        self.l1[self.indices(cluster).0] == 0
    }
}
