//! The header, with its extensions. `docs/interop/qcow2.txt` of QEMU, "Header".

use crate::error::OpenError;
use crate::storage::{Storage, read_or_zeros};

/// The first bytes of an image.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Where each field begins.
pub(crate) mod field {
    pub const VERSION: usize = 4;
    pub const BACKING_OFFSET: usize = 8;
    pub const BACKING_BYTES: usize = 16;
    pub const CLUSTER_BITS: usize = 20;
    pub const LENGTH: usize = 24;
    pub const ENCRYPTION: usize = 32;
    pub const L1_ENTRIES: usize = 36;
    pub const L1_OFFSET: usize = 40;
    pub const REFCOUNT_TABLE_OFFSET: usize = 48;
    pub const REFCOUNT_TABLE_CLUSTERS: usize = 56;
    pub const INCOMPATIBLE: usize = 72;
    pub const AUTOCLEAR: usize = 88;
    pub const REFCOUNT_ORDER: usize = 96;
    pub const HEADER_BYTES: usize = 100;
    pub const COMPRESSION: usize = 104;
}

/// Bytes of a version 2 header, and the least of a version 3 one.
const VERSION_2_BYTES: usize = 72;
pub(crate) const VERSION_3_BYTES: usize = 104;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

const INCOMPATIBLE_DIRTY: u32 = 0;
const INCOMPATIBLE_CORRUPT: u32 = 1;
const INCOMPATIBLE_COMPRESSION: u32 = 3;

/// The smallest and the largest clusters that QEMU makes or opens.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// QEMU opens no larger tables.
pub(crate) const MOST_L1_BYTES: u64 = 32 << 20;
pub(crate) const MOST_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// The longest name of a backing file.
const LONGEST_NAME_BYTES: usize = 1023;
/// The longest disk: whoever copies it has a note for each quarter of a MiB.
pub(crate) const LONGEST_DISK_BYTES: u64 = 64 << 40;
/// Header and extensions are in the first cluster; of a larger one, no more than this is looked at.
const MOST_HEADER_BYTES: usize = 64 << 10;

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Deflate,
    Zstandard,
}

/// What an image says that it lies over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingName {
    /// As it is written there.
    pub name: String,
    /// `qcow2`, `raw` or another, if the image says it.
    pub format: Option<String>,
}

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the disk.
    pub length: u64,
    /// What it lies over, if on anything.
    pub backing: Option<BackingName>,
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) l1_entries: u32,
    pub(crate) l1_offset: u64,
    pub(crate) refcount_table_offset: u64,
    pub(crate) refcount_table_clusters: u32,
    pub(crate) refcount_order: u32,
    pub(crate) autoclear: u64,
    pub(crate) is_dirty: bool,
    pub(crate) compression: Compression,
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(long)
}

impl Header {
    /// Reads it from the beginning of an image.
    ///
    /// # Errors
    /// It is none, it contradicts itself, or it needs what this build does not know.
    pub fn read(storage: &dyn Storage) -> Result<Header, OpenError> {
        let mut bytes = vec![0; MOST_HEADER_BYTES];
        let there = storage.read_at(&mut bytes, 0)?;
        if there < 4 || bytes[..4] != MAGIC {
            return Err(OpenError::NotQcow2);
        }
        read_or_zeros(storage, &mut bytes, 0)?;
        let header = Header::decode(&bytes)?;
        header.check()?;
        Ok(header)
    }

    fn decode(bytes: &[u8]) -> Result<Header, OpenError> {
        let version = word(bytes, field::VERSION);
        if version != 2 && version != 3 {
            return Err(OpenError::Version(version));
        }
        let cluster_bits = word(bytes, field::CLUSTER_BITS);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            let why = format!("clusters of 2^{cluster_bits} bytes");
            return Err(OpenError::damaged(why));
        }
        let first_cluster = &bytes[..bytes.len().min(1 << cluster_bits)];
        let header_bytes = match version {
            2 => VERSION_2_BYTES,
            _ => word(bytes, field::HEADER_BYTES) as usize,
        };
        if version == 3 && !(VERSION_3_BYTES..=first_cluster.len()).contains(&header_bytes) {
            let why = format!("a header of {header_bytes} bytes");
            return Err(OpenError::damaged(why));
        }
        let extensions = Extensions::decode(first_cluster, header_bytes)?;
        let encryption = word(bytes, field::ENCRYPTION);
        if encryption != 0 {
            let method = match encryption {
                1 => "AES".to_owned(),
                2 => "LUKS".to_owned(),
                other => format!("method {other}"),
            };
            return Err(OpenError::Unsupported(format!("encryption ({method})")));
        }
        let incompatible = match version {
            2 => 0,
            _ => long(bytes, field::INCOMPATIBLE),
        };
        check_features(incompatible, &extensions)?;
        let compression = match incompatible >> INCOMPATIBLE_COMPRESSION & 1 {
            1 if header_bytes > field::COMPRESSION => match bytes[field::COMPRESSION] {
                0 => Compression::Deflate,
                1 => Compression::Zstandard,
                other => {
                    let what = format!("compression of type {other}");
                    return Err(OpenError::Unsupported(what));
                }
            },
            _ => Compression::Deflate,
        };
        Ok(Header {
            length: long(bytes, field::LENGTH),
            backing: backing(first_cluster, &extensions)?,
            version,
            cluster_bits,
            l1_entries: word(bytes, field::L1_ENTRIES),
            l1_offset: long(bytes, field::L1_OFFSET),
            refcount_table_offset: long(bytes, field::REFCOUNT_TABLE_OFFSET),
            refcount_table_clusters: word(bytes, field::REFCOUNT_TABLE_CLUSTERS),
            refcount_order: match version {
                2 => 4,
                _ => word(bytes, field::REFCOUNT_ORDER),
            },
            autoclear: match version {
                2 => 0,
                _ => long(bytes, field::AUTOCLEAR),
            },
            is_dirty: incompatible >> INCOMPATIBLE_DIRTY & 1 == 1,
            compression,
        })
    }

    /// Whether the numbers fit together.
    fn check(&self) -> Result<(), OpenError> {
        if self.length > LONGEST_DISK_BYTES {
            let what = format!("a disk of {} bytes, more than 64 TiB", self.length);
            return Err(OpenError::Unsupported(what));
        }
        if self.refcount_order > 6 {
            let why = format!("refcounts of 2^{} bits", self.refcount_order);
            return Err(OpenError::damaged(why));
        }
        let l1_bytes = u64::from(self.l1_entries) * 8;
        if u64::from(self.l1_entries) < self.l1_needed() || l1_bytes > MOST_L1_BYTES {
            let why = format!(
                "a first table of {} entries for a disk of {} bytes",
                self.l1_entries, self.length
            );
            return Err(OpenError::damaged(why));
        }
        let refcount_bytes = u64::from(self.refcount_table_clusters) << self.cluster_bits;
        if refcount_bytes == 0
            || refcount_bytes > MOST_REFCOUNT_TABLE_BYTES.max(1 << self.cluster_bits)
        {
            let why = format!(
                "a refcount table of {} clusters",
                self.refcount_table_clusters
            );
            return Err(OpenError::damaged(why));
        }
        for (what, offset) in [
            ("first table", self.l1_offset),
            ("refcount table", self.refcount_table_offset),
        ] {
            // The table of an empty disk may be nowhere.
            let is_nowhere = what == "first table" && self.l1_entries == 0;
            if !is_nowhere
                && (offset == 0
                    || !offset.is_multiple_of(self.cluster_bytes())
                    || offset >> 56 != 0)
            {
                let why = format!("its {what} is said to be at byte {offset}");
                return Err(OpenError::damaged(why));
            }
        }
        Ok(())
    }

    pub(crate) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    pub(crate) fn l2_entries(&self) -> u64 {
        1 << (self.cluster_bits - 3)
    }

    /// Bytes of the disk for which one L2 table speaks.
    pub(crate) fn l2_reach(&self) -> u64 {
        self.cluster_bytes() * self.l2_entries()
    }

    /// Entries of the L1 table that the disk needs.
    fn l1_needed(&self) -> u64 {
        self.length.div_ceil(self.l2_reach())
    }

    /// Clusters for which one refcount block speaks.
    pub(crate) fn refcounts_in_block(&self) -> u64 {
        (self.cluster_bytes() * 8) >> self.refcount_order
    }
}

#[derive(Debug, Default)]
struct Extensions {
    backing_format: Option<String>,
    /// Kind, bit and name of features, as the image has them.
    feature_names: Vec<(u8, u8, String)>,
}

impl Extensions {
    fn decode(first_cluster: &[u8], header_bytes: usize) -> Result<Extensions, OpenError> {
        let mut extensions = Extensions::default();
        // The name of the backing file may follow them at once, and whatever it likes after the cluster.
        let mut at = header_bytes.next_multiple_of(8);
        while at + 8 <= first_cluster.len() {
            let (kind, length) = (
                word(first_cluster, at),
                word(first_cluster, at + 4) as usize,
            );
            if kind == EXTENSION_END {
                break;
            }
            let begin = at + 8;
            let data = begin
                .checked_add(length)
                .and_then(|end| first_cluster.get(begin..end));
            let Some(data) = data else {
                let why = format!("an extension of its header has {length} bytes");
                return Err(OpenError::damaged(why));
            };
            match kind {
                EXTENSION_BACKING_FORMAT => extensions.backing_format = Some(text(data)),
                EXTENSION_FEATURE_NAMES => {
                    let names = data.chunks_exact(48);
                    let names = names.map(|name| (name[0], name[1], text(&name[2..])));
                    extensions.feature_names = names.collect();
                }
                _ => {}
            }
            at = (begin + length).next_multiple_of(8);
        }
        Ok(extensions)
    }
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

fn check_features(incompatible: u64, extensions: &Extensions) -> Result<(), OpenError> {
    if incompatible >> INCOMPATIBLE_CORRUPT & 1 == 1 {
        return Err(OpenError::MarkedCorrupt);
    }
    let known = 1 << INCOMPATIBLE_DIRTY | 1 << INCOMPATIBLE_CORRUPT | 1 << INCOMPATIBLE_COMPRESSION;
    let unknown = incompatible & !known;
    if unknown == 0 {
        return Ok(());
    }
    let bit = unknown.trailing_zeros();
    let feature = match bit {
        2 => "an external data file".to_owned(),
        4 => "extended L2 entries (subclusters)".to_owned(),
        bit => {
            let mut names = extensions.feature_names.iter();
            let its = names.find(|(kind, at, _)| *kind == 0 && u32::from(*at) == bit);
            its.map_or(format!("incompatible feature {bit}"), |(_, _, name)| {
                name.clone()
            })
        }
    };
    Err(OpenError::Unsupported(feature))
}

fn backing(
    first_cluster: &[u8],
    extensions: &Extensions,
) -> Result<Option<BackingName>, OpenError> {
    let offset = long(first_cluster, field::BACKING_OFFSET);
    let length = word(first_cluster, field::BACKING_BYTES) as usize;
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    let begin = usize::try_from(offset).ok();
    let end = begin.and_then(|begin| begin.checked_add(length));
    let name = begin
        .zip(end)
        .and_then(|(begin, end)| first_cluster.get(begin..end));
    match name {
        Some(name) if length <= LONGEST_NAME_BYTES => Ok(Some(BackingName {
            name: String::from_utf8_lossy(name).into_owned(),
            format: extensions.backing_format.clone(),
        })),
        _ => Err(OpenError::damaged(format!(
            "the name of its backing file is said to be {length} bytes at byte {offset}"
        ))),
    }
}
