//! What the guest writes while a journal is kept: not into the image, which stays as it was at the
//! journal's snapshot, but into layers beside it. `docs/decisions/journal.md`, "Disks".
//!
//! The image and all of its layers, the younger over the older, are the disk. Of a disk that is started
//! from what is on it, they are merged into the image. A machine that goes on from its journal takes
//! those that are older than the journal's snapshot, and writes the others again.

mod chain;
mod extents;
mod layer;
mod stack;
#[cfg(test)]
mod tests;
mod volumes;

pub use chain::{Begun, begin_again, has_layer, is_layer, merge_all, remove_all};
pub(crate) use volumes::Volumes;
pub(super) use volumes::{Frozen, Merging};

use super::SECTOR_BYTES;
use environment::fs::{self, Kind};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Names the snapshot of a journal with which a layer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerId(pub u128);

impl LayerId {
    /// Of a layer that begins with no snapshot.
    pub const NONE: LayerId = LayerId(0);
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Why what lies beside an image cannot be used.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// The disk fails.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The image is not as it was at the journal's snapshot.
    #[error(
        "the disk {} is not as it was at the journal's snapshot: the overlay that begins with it is not \
         beside it any more; was the image replaced, or started without the journal?",
        image.display()
    )]
    NotAtSnapshot {
        /// The image, or what stands for it.
        image: PathBuf,
    },
}

impl OverlayError {
    fn io(path: &Path, source: io::Error) -> OverlayError {
        let path = path.to_owned();
        OverlayError::Io { path, source }
    }

    fn damaged(path: &Path, why: String) -> OverlayError {
        let path = path.to_owned();
        OverlayError::Damaged { path, why }
    }
}

/// What files that belong to a disk are named after: its image, or for a block device (beside which
/// nothing lasts) its name in the state directory.
pub fn base(disk: &Path, state_directory: &Path) -> PathBuf {
    let is_device = fs::look_at(disk).is_ok_and(|(kind, _)| kind == Kind::BlockDevice);
    match disk.file_name() {
        Some(name) if is_device => state_directory.join(name),
        _ => disk.to_owned(),
    }
}

/// The directory of a file.
fn directory(path: &Path) -> &Path {
    let parent = path.parent();
    let named = parent.filter(|parent| !parent.as_os_str().is_empty());
    named.unwrap_or(Path::new("."))
}
