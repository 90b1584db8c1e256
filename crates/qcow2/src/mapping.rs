//! What an entry of an L2 table says. `docs/interop/qcow2.txt` of QEMU, "Cluster mapping".

use crate::error::damaged;
use crate::header::Header;
use std::io;

/// The cluster has exactly one user, who may write into it.
pub(crate) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Version 3: it reads as zeros.
pub(crate) const ZERO: u64 = 1;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Where a cluster may be at most.
pub(crate) const MOST_OFFSET: u64 = 1 << 56;

/// Where the content of one cluster of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// With what is under the image, or nowhere.
    Below,
    /// It is zero; a cluster may be kept for it.
    Zero { kept: Option<u64> },
    /// In the file, from this byte on.
    Data { offset: u64, is_own: bool },
    /// Compressed, from this byte on, in at most so many.
    Compressed { offset: u64, bytes: u64 },
}

impl Mapping {
    /// Of an entry of a table of such an image.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(header: &Header, entry: u64) -> io::Result<Mapping> {
        if entry & COMPRESSED != 0 {
            return Ok(Mapping::compressed(header, entry));
        }
        let (offset, flags) = (entry & OFFSET, entry & !(OFFSET | COPIED));
        let is_zero = flags == ZERO && header.version >= 3;
        let is_aligned = offset.is_multiple_of(header.cluster_bytes());
        if !is_aligned || flags != 0 && !is_zero {
            return Err(damaged(format!(
                "an entry {entry:#018x} for a cluster of data"
            )));
        }
        Ok(match (is_zero, offset) {
            (true, 0) => Mapping::Zero { kept: None },
            (true, offset) => Mapping::Zero { kept: Some(offset) },
            (false, 0) => Mapping::Below,
            (false, offset) => Mapping::Data {
                offset,
                is_own: entry & COPIED != 0,
            },
        })
    }

    fn compressed(header: &Header, entry: u64) -> Mapping {
        let offset_bits = 62 - (header.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let more_sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
        Mapping::Compressed {
            offset,
            bytes: (more_sectors + 1) * 512 - offset % 512,
        }
    }

    /// The clusters of the file that it holds, as first and last byte; `None` if it holds none.
    pub fn holds(&self, cluster_bytes: u64) -> Option<(u64, u64)> {
        match *self {
            Mapping::Below | Mapping::Zero { kept: None } => None,
            Mapping::Zero { kept: Some(offset) } | Mapping::Data { offset, .. } => {
                Some((offset, offset + cluster_bytes - 1))
            }
            Mapping::Compressed { offset, bytes } => Some((offset, offset + bytes - 1)),
        }
    }
}

/// What an entry of the L1 table says: where the L2 table is, and whether it has no other user.
///
/// # Errors
/// It is none.
pub(crate) fn l2_place(header: &Header, entry: u64) -> io::Result<Option<(u64, bool)>> {
    let offset = entry & OFFSET;
    if entry & !(OFFSET | COPIED) != 0 || !offset.is_multiple_of(header.cluster_bytes()) {
        return Err(damaged(format!("an entry {entry:#018x} for a table")));
    }
    Ok((offset != 0).then_some((offset, entry & COPIED != 0)))
}

/// What an entry of the refcount table says: where the refcount block is.
///
/// # Errors
/// It is none.
pub(crate) fn block_place(header: &Header, entry: u64) -> io::Result<Option<u64>> {
    if !entry.is_multiple_of(header.cluster_bytes()) || entry >= MOST_OFFSET {
        return Err(damaged(format!("an entry {entry:#018x} for refcounts")));
    }
    Ok((entry != 0).then_some(entry))
}
