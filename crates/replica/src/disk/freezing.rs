//! The disks' part of a journal's snapshot, as the thread has it that writes the snapshot.

use super::DiskThread;
use super::overlay::{Frozen, LayerId};
use environment::mpsc::Receiver;

/// Disks whose layers of before the snapshot are frozen, or about to be. As long as this is there, so
/// are the disks' thread and their files.
pub struct Freezing {
    pub(super) id: LayerId,
    pub(super) frozen: Receiver<Result<Frozen, String>>,
    pub(super) thread: DiskThread,
}

impl Freezing {
    /// The snapshot with which the layers begin that are written to now.
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// Makes what was written before the snapshot durable. Waits for it.
    ///
    /// # Errors
    /// The disk fails, and how.
    pub fn sync(&self) -> Result<(), String> {
        let frozen = self.frozen.recv();
        let frozen = frozen.map_err(|_| "the disks' thread has ended".to_owned())?;
        frozen?.sync()
    }

    /// The snapshot is whole and durable: merges what was written before it into the images. Waits for
    /// it.
    ///
    /// # Errors
    /// The disk fails, and how: what is merged already does no harm.
    pub fn merge(&self) -> Result<(), String> {
        let merged = self.thread.merge(self.id).recv();
        merged.unwrap_or_else(|_| Err("the disks' thread has ended".into()))
    }
}
