//! Making an image.

use crate::error::OpenError;
use crate::header::{LONGEST_DISK_BYTES, MAGIC, MOST_L1_BYTES, VERSION_3_BYTES, field};
use crate::storage::Storage;

/// As QEMU makes them.
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
const REFCOUNT_ORDER: u32 = 4;

/// Makes an image of a disk of `length` bytes, all of them zero, in a file that is empty. One that was not
/// made to its end has no header.
///
/// # Errors
/// The disk is too long, or the host's fails or is full.
pub fn create(file: &dyn Storage, length: u64) -> Result<(), OpenError> {
    if length > LONGEST_DISK_BYTES {
        let what = format!("a disk of {length} bytes, more than 64 TiB");
        return Err(OpenError::Unsupported(what));
    }
    let l1_entries = length.div_ceil(CLUSTER_BYTES * (CLUSTER_BYTES / 8));
    assert!(
        l1_entries * 8 <= MOST_L1_BYTES,
        "the longest disk needs no longer a table"
    );
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER_BYTES);
    // One cluster of each: header, refcount table, its first block; and the L1 table.
    let clusters = 3 + l1_clusters;
    let mut tables = vec![0; (CLUSTER_BYTES * (clusters - 1)) as usize];
    tables[..8].copy_from_slice(&(2 * CLUSTER_BYTES).to_be_bytes());
    for cluster in 0..clusters as usize {
        let at = CLUSTER_BYTES as usize + cluster * 2;
        tables[at..at + 2].copy_from_slice(&1u16.to_be_bytes());
    }
    file.write_at(&tables, CLUSTER_BYTES)?;
    file.sync()?;
    file.write_at(&header(length, l1_entries as u32), 0)?;
    file.sync()?;
    Ok(())
}

fn header(length: u64, l1_entries: u32) -> Vec<u8> {
    // An extension of kind 0 ends it.
    let mut header = vec![0; VERSION_3_BYTES + 8];
    header[..4].copy_from_slice(&MAGIC);
    let words = [
        (field::VERSION, 3),
        (field::CLUSTER_BITS, CLUSTER_BITS),
        (field::L1_ENTRIES, l1_entries),
        (field::REFCOUNT_TABLE_CLUSTERS, 1),
        (field::REFCOUNT_ORDER, REFCOUNT_ORDER),
        (field::HEADER_BYTES, VERSION_3_BYTES as u32),
    ];
    let longs = [
        (field::LENGTH, length),
        (field::L1_OFFSET, 3 * CLUSTER_BYTES),
        (field::REFCOUNT_TABLE_OFFSET, CLUSTER_BYTES),
    ];
    for (at, word) in words {
        header[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }
    for (at, long) in longs {
        header[at..at + 8].copy_from_slice(&long.to_be_bytes());
    }
    header
}
