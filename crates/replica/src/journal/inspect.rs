//! Reads journals to their ends, and says what is wrong with one that no machine can go on from.

use super::directory::{self, JournalDirectory, segment_path, segments, snapshot_path, snapshots};
use super::{JournalOwner, Journals};
use crate::disk::overlay::{self, LayerId, OverlayError};
use replication::journal::{
    JournalError, JournalHead, JournalItem, SegmentReader, SnapshotFileReader, Tail,
};
use replication::startup::FoundJournal;
use replication::succession::{JournalId, RecordNumber};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why no machine goes on from a journal.
#[derive(Debug, Error)]
enum InspectError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Bad { path: PathBuf, source: JournalError },
    #[error("{} has no snapshot", .0.display())]
    NoSnapshot(PathBuf),
    #[error("{} is missing, and with it the records after {after}", path.display())]
    Missing { path: PathBuf, after: u64 },
    #[error(
        "{} does not go on where the file before it ends (record {after}): that one is damaged or cut, or \
         one of both is of another journal; put the right files back",
        path.display()
    )]
    Chain { path: PathBuf, after: u64 },
    #[error(
        "it was made by a program that computes version {theirs} of the machine, and this one computes \
         {ours}: use that program"
    )]
    Semantics { theirs: u32, ours: u32 },
    #[error(
        "it is of a machine with another configuration (memory, harts, devices or images' features): \
         configure it as it was"
    )]
    Configuration,
    #[error("{0}")]
    Disk(#[from] OverlayError),
    #[error(
        "it is of a machine without a disk that it can write, and this one has one: configure it as it was"
    )]
    NoDisks,
}

/// A journal that was read to its end.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// What its first segment after the snapshot says.
    pub(super) head: JournalHead,
    pub(super) directory: PathBuf,
    /// The segment that begins with the snapshot, and the last.
    pub(super) first_segment: u64,
    pub(super) last_segment: u64,
    /// How the last one ends.
    pub(super) tail: Tail,
    /// The last record.
    pub(super) last: u64,
    /// Visible outputs that are known to have left.
    pub(super) released: u64,
}

impl Inspected {
    /// As a start needs to know it.
    pub fn found(&self) -> FoundJournal {
        FoundJournal {
            life: self.head.life,
            life_id: self.head.life_id,
            last: RecordNumber(self.last),
        }
    }

    /// Where its snapshot was taken.
    pub fn head(&self) -> &JournalHead {
        &self.head
    }

    /// The last record that it holds.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Visible outputs that are known to have left: those after them are sent again.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Bytes at its end that were being written when everything ended.
    pub fn torn_bytes(&self) -> u64 {
        self.tail.torn_bytes
    }
}

/// All journals of a directory.
pub(super) fn inspect_all(
    directory: &JournalDirectory,
    owner: &JournalOwner,
) -> io::Result<Journals> {
    let journals = directory.journals()?.into_iter();
    let read = journals.map(|id| {
        let read = inspect(&directory.of(id), id, owner);
        (id, read.map_err(|error| error.to_string()))
    });
    Ok(read.collect())
}

fn inspect(path: &Path, id: JournalId, owner: &JournalOwner) -> Result<Inspected, InspectError> {
    let unreadable = |source| InspectError::Unreadable {
        path: path.into(),
        source,
    };
    let snapshots = snapshots(path).map_err(unreadable)?;
    let segments = segments(path).map_err(unreadable)?;
    let (first_segment, head) =
        newest_snapshot(path, &snapshots, id, !owner.overlay_bases.is_empty())?;
    if head.semantics_version != owner.semantics_version {
        return Err(InspectError::Semantics {
            theirs: head.semantics_version,
            ours: owner.semantics_version,
        });
    }
    if head.configuration_hash != owner.configuration_hash {
        return Err(InspectError::Configuration);
    }
    if owner.overlay_bases.is_empty() != (head.disk_layer == 0) {
        return Err(InspectError::NoDisks);
    }
    for base in &owner.overlay_bases {
        overlay::has_layer(base, LayerId(head.disk_layer))?;
    }
    let last_segment = segments.last().copied().unwrap_or(0).max(first_segment);
    let mut inspected = Inspected {
        last: head.place.record,
        released: 0,
        head,
        directory: path.into(),
        first_segment,
        last_segment,
        tail: Tail {
            good_bytes: 0,
            torn_bytes: 0,
            digest: 0,
        },
    };
    for segment in first_segment..=last_segment {
        match inspect_segment(&mut inspected, segment) {
            // It was being made when everything ended: nothing is in it.
            Err(InspectError::Bad {
                source: JournalError::NoHead,
                ..
            }) if first_segment < segment && segment == last_segment => {
                inspected.last_segment = segment - 1;
            }
            inspected => inspected?,
        }
    }
    Ok(inspected)
}

/// The newest snapshot that is whole. One that is not may have been in the making when everything ended:
/// what it was to replace is still there then.
fn newest_snapshot(
    path: &Path,
    snapshots: &[u64],
    id: JournalId,
    has_disks: bool,
) -> Result<(u64, JournalHead), InspectError> {
    let mut newest_is_wrong = None;
    for segment in snapshots.iter().rev() {
        let file = snapshot_path(path, *segment);
        let checked = check_snapshot(&file).and_then(|head| {
            let is_its = head.id == id && head.segment == *segment;
            let source = JournalError::Foreign;
            let path = file.clone();
            is_its
                .then_some(head)
                .ok_or(InspectError::Bad { path, source })
        });
        match checked {
            Ok(head) => return Ok((*segment, head)),
            // The disks may have gone on to it already, and are nothing for the one before.
            Err(error) if has_disks => return Err(error),
            Err(error) => newest_is_wrong.get_or_insert(error),
        };
    }
    Err(newest_is_wrong.unwrap_or_else(|| InspectError::NoSnapshot(path.into())))
}

fn check_snapshot(path: &Path) -> Result<JournalHead, InspectError> {
    let bad = |source| InspectError::Bad {
        path: path.into(),
        source,
    };
    let mut reader = SnapshotFileReader::default();
    let mut checked = Ok(());
    read_file(path, |bytes| {
        reader.push(bytes);
        while checked.is_ok() {
            match reader.next_piece() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => checked = Err(error),
            }
        }
        checked.is_ok()
    })?;
    checked.and_then(|()| reader.finish()).map_err(bad)?;
    let head = reader.head().cloned();
    head.ok_or_else(|| bad(JournalError::NoHead))
}

fn inspect_segment(inspected: &mut Inspected, segment: u64) -> Result<(), InspectError> {
    let path = segment_path(&inspected.directory, segment);
    let is_there = environment::fs::look_at(&path);
    if is_there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        let after = inspected.last;
        return Err(InspectError::Missing { path, after });
    }
    let bad = |source| InspectError::Bad {
        path: path.clone(),
        source,
    };
    let is_first = segment == inspected.first_segment;
    let (after, before) = (inspected.last, inspected.tail.digest);
    let mut reader = SegmentReader::default();
    let mut follows = true;
    let mut checked = Ok(());
    read_file(&path, |bytes| {
        reader.push(bytes);
        while checked.is_ok() {
            match reader.next_item() {
                Ok(Some(JournalItem::Head(head))) => {
                    follows = head.id == inspected.head.id
                        && head.segment == segment
                        && head.place.record == after
                        && (is_first || head.before == before);
                }
                Ok(Some(JournalItem::Records(stored))) => {
                    inspected.released = inspected.released.max(stored.released);
                }
                // A machine that goes on reads its disks itself.
                Ok(Some(JournalItem::Read(_))) => {}
                Ok(None) => break,
                Err(error) => checked = Err(error),
            }
        }
        checked.is_ok()
    })?;
    checked.map_err(&bad)?;
    if !follows {
        return Err(InspectError::Chain { path, after });
    }
    let last = reader.last();
    inspected.tail = reader.finish().map_err(bad)?;
    inspected.last = last;
    // Only the last one was being written.
    if segment < inspected.last_segment && inspected.tail.torn_bytes > 0 {
        let after = inspected.last;
        return Err(InspectError::Chain { path, after });
    }
    Ok(())
}

/// Gives a whole file to `take` in pieces, until it wants no more.
fn read_file(path: &Path, take: impl FnMut(&[u8]) -> bool) -> Result<(), InspectError> {
    directory::read_file(path, u64::MAX, take).map_err(|source| {
        let path = path.to_owned();
        InspectError::Unreadable { path, source }
    })
}
