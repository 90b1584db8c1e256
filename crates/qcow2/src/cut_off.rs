//! Whether the end of the file is missing.

use crate::error::OpenError;
use crate::header::long;
use crate::mapping::{Mapping, l2_place};
use crate::refcounts;
use crate::state::State;
use std::collections::BTreeSet;
use std::io;

impl State {
    /// That everything is in the file which the tables of the disk speak of. What lies behind the end of one that was cut
    /// off would be errors, and zeros as soon as the file grows over the place.
    ///
    /// The last cluster that is counted says whether there is a need to look: tables are read then, all of them. (What
    /// was counted, and never written before everything ended, nobody speaks of.)
    ///
    /// # Errors
    /// The first cluster of the disk that is missing, or the file cannot be read.
    pub(crate) fn find_cut_off(&mut self) -> Result<(), OpenError> {
        let cluster_bytes = self.cluster_bytes();
        match self.last_counted()? {
            Some(cluster) if cluster.saturating_mul(cluster_bytes) >= self.end => {}
            _ => return Ok(()),
        }
        let entries = self.header.l2_entries();
        let clusters = self.header.length.div_ceil(cluster_bytes);
        let mut seen = BTreeSet::new();
        for index in 0..self.l1.len() {
            let place = l2_place(&self.header, self.l1[index]).ok().flatten();
            let Some((offset, _)) = place.filter(|(offset, _)| seen.insert(*offset)) else {
                continue;
            };
            let table = self.l2_table(offset)?.bytes().to_vec();
            for (entry, its) in table.chunks_exact(8).enumerate() {
                let cluster = index as u64 * entries + entry as u64;
                // An entry that is none is told by whoever reads there.
                let mapping = Mapping::decode(&self.header, long(its, 0));
                let held = mapping
                    .ok()
                    .and_then(|mapping| mapping.holds(cluster_bytes));
                if let Some((first, _)) = held
                    && first >= self.end
                    && cluster < clusters
                {
                    return Err(OpenError::CutOff {
                        at: cluster * cluster_bytes,
                        first,
                        end: self.end,
                    });
                }
            }
        }
        Ok(())
    }

    /// The last cluster of the file that is counted as used.
    fn last_counted(&mut self) -> io::Result<Option<u64>> {
        let (in_block, order) = (self.header.refcounts_in_block(), self.header.refcount_order);
        let mut seen = BTreeSet::new();
        for block in (0..self.refcount_table.len() as u64).rev() {
            let (place, ..) = self.block_of(block * in_block)?;
            let Some(place) = place.filter(|place| seen.insert(*place)) else {
                continue;
            };
            let bytes = self.refcount_block(place)?.bytes();
            let last = (0..in_block as usize).rev();
            let mut counted = last.filter(|index| refcounts::get(bytes, order, *index) > 0);
            if let Some(index) = counted.next() {
                return Ok(Some(block * in_block + index as u64));
            }
        }
        Ok(None)
    }
}
