//! Snapshots of a journal that build on each other: a whole one, and after it those that hold what changed since the
//! one before.

use super::snapshot_bytes::SnapshotBytes;
use super::storage::{JournalFile, JournalFiles};
use machine::snapshot::{Chain, ChainPart, SnapshotError};
use replication::journal::JournalHead;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why there is no machine of a snapshot and those on which it builds.
#[derive(Debug, Error)]
pub(super) enum ChainError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} builds on {}, which is not there: put it back; if its machine is running, look again", path.display(), base.display())]
    Missing { path: PathBuf, base: PathBuf },
    #[error(
        "{} builds on another snapshot than {}: one of both is of another journal, or of another time; put the right \
         files back",
        path.display(),
        base.display()
    )]
    Other { path: PathBuf, base: PathBuf },
}

/// Whether `newer` builds on the snapshot that says this of itself.
pub(super) fn builds_on(newer: &JournalHead, base: &JournalHead) -> bool {
    newer.id == base.id
        && newer.life_id == base.life_id
        && newer.builds_on == Some(base.as_base())
        && base.segment < newer.segment
}

/// Snapshots that are open, the whole one first.
pub(super) struct OpenChain {
    parts: Vec<(PathBuf, SnapshotBytes)>,
}

impl OpenChain {
    /// Opens this snapshot and all on which it builds: what goes afterwards is read all the same.
    pub fn open(files: &dyn JournalFiles, newest: u64) -> Result<OpenChain, ChainError> {
        let mut parts = Vec::new();
        let mut newer: Option<(PathBuf, JournalHead)> = None;
        let mut number = newest;
        loop {
            let file = JournalFile::Snapshot(number);
            let path = files.path(Some(file));
            let opened = files.open(file).and_then(SnapshotBytes::of);
            let mut bytes = opened.map_err(|source| match (&newer, source.kind()) {
                (Some((newer, _)), io::ErrorKind::NotFound) => ChainError::Missing {
                    path: newer.clone(),
                    base: path.clone(),
                },
                _ => ChainError::Unreadable {
                    path: path.clone(),
                    source,
                },
            })?;
            let head = bytes.head().map_err(|source| ChainError::Unreadable {
                path: path.clone(),
                source,
            })?;
            if let Some((newer, of)) = newer
                && !builds_on(&of, &head)
            {
                return Err(ChainError::Other {
                    path: newer,
                    base: path,
                });
            }
            parts.push((path.clone(), bytes));
            match head.builds_on {
                None => break,
                // Numbers go down: it has an end.
                Some(base) => number = base.segment,
            }
            newer = Some((path, head));
        }
        parts.reverse();
        Ok(OpenChain { parts })
    }

    /// A bug, for the simulator: those between the whole one and the newest are passed over.
    pub fn without_middle(&mut self) {
        let newest = self.parts.len() - 1;
        self.parts.drain(1..newest.max(1));
    }

    /// Their bytes as those of one.
    ///
    /// # Errors
    /// The first is no snapshot, which is named.
    pub fn into_bytes(self) -> Result<Chain<SnapshotBytes>, SnapshotError> {
        let parts = self.parts.into_iter().map(|(path, bytes)| ChainPart {
            name: path.display().to_string(),
            bytes,
        });
        let mut parts = parts.collect::<Vec<_>>();
        let whole = parts.remove(0);
        Chain::open(whole, parts)
    }
}
