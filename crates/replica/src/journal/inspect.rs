//! Reads journals to their ends, and says what is wrong with one that no machine can go on from.

use super::chain::{ChainError, builds_on};
use super::reading::{MeteredFiles, ReadMeter};
use super::storage::{self, JournalFile, JournalFiles, Listing, Storage};
use super::{JournalOwner, Journals, Loading};
use crate::disk::overlay::{self, LayerId, OverlayError};
use crate::host_time::monotonic;
use replication::journal::{
    JournalError, JournalHead, JournalItem, SegmentReader, SnapshotFileReader, Tail,
};
use replication::startup::FoundJournal;
use replication::succession::{JournalId, RecordNumber};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
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
    #[error("{0}")]
    Base(#[from] ChainError),
    #[error("{} is missing, and with it the records after {after}", path.display())]
    Missing { path: PathBuf, after: RecordNumber },
    #[error(
        "{} does not go on where the file before it ends (record {after}): that one is damaged or cut, or \
         one of both is of another journal; put the right files back",
        path.display()
    )]
    Chain { path: PathBuf, after: RecordNumber },
    #[error(
        "{} is damaged after record {after}: its last {bytes} bytes are not what was put there",
        path.display()
    )]
    End {
        path: PathBuf,
        after: RecordNumber,
        bytes: u64,
    },
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
    pub(super) files: Arc<dyn JournalFiles>,
    /// The segment that begins with the snapshot.
    pub(super) first_segment: u64,
    /// It, and those after it.
    pub(super) segments: Vec<u64>,
    /// The number of the one after those.
    pub(super) next_segment: u64,
    /// Nobody but this process adds anything to it.
    pub(super) is_fenced: bool,
    /// How the last one ends.
    pub(super) tail: Tail,
    /// The last record.
    pub(super) last: RecordNumber,
    /// Visible outputs that are known to have left.
    pub(super) released: u64,
    /// What reading its snapshot, and those on which it builds, took.
    pub(super) loading: Loading,
}

impl Inspected {
    /// As a start needs to know it.
    pub fn found(&self) -> FoundJournal {
        FoundJournal {
            life: self.head.life,
            life_id: self.head.life_id,
            last: self.last,
            is_fenced: self.is_fenced,
        }
    }

    /// The last segment in which there is anything.
    pub(super) fn last_segment(&self) -> u64 {
        self.segments.last().copied().unwrap_or(self.first_segment)
    }

    /// Where its snapshot was taken.
    pub fn head(&self) -> &JournalHead {
        &self.head
    }

    /// The last record that it holds.
    pub fn last(&self) -> RecordNumber {
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

/// All journals of a place. `fenced`: of those nobody else adds anything to.
pub(super) fn inspect_all(
    storage: &dyn Storage,
    owner: &JournalOwner,
    fenced: &BTreeSet<JournalId>,
    meter: &ReadMeter,
) -> io::Result<Journals> {
    meter.begin();
    let journals = storage.journals()?.into_iter();
    let read = journals.map(|(id, files)| {
        let read = inspect(MeteredFiles::of(files, meter), id, owner, meter);
        let read = read.map(|inspected| Inspected {
            is_fenced: inspected.files.is_locked() || fenced.contains(&id),
            ..inspected
        });
        (id, read.map_err(|error| error.to_string()))
    });
    Ok(read.collect())
}

fn inspect(
    files: Arc<dyn JournalFiles>,
    id: JournalId,
    owner: &JournalOwner,
    meter: &ReadMeter,
) -> Result<Inspected, InspectError> {
    let listing = files.list().map_err(|source| InspectError::Unreadable {
        path: files.path(None),
        source,
    })?;
    meter.expect(listing.bytes_to_read());
    let has_disks = !owner.overlay_bases.is_empty();
    let began = monotonic();
    let (first_segment, head, bytes) = newest_snapshot(&*files, &listing, id, has_disks)?;
    let loading = Loading {
        bytes,
        took: monotonic().saturating_sub(began),
    };
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
    let next_segment = listing.next_segment();
    let mut inspected = Inspected {
        last: head.place.record,
        released: 0,
        head,
        files,
        first_segment,
        segments: Vec::new(),
        next_segment,
        is_fenced: false,
        tail: Tail {
            good_bytes: 0,
            torn_bytes: 0,
            digest: 0,
        },
        loading,
    };
    let wanted = first_segment..=first_segment.max(next_segment - 1);
    for segment in wanted.filter(|segment| !listing.fences.contains(segment)) {
        match inspect_segment(&mut inspected, segment, next_segment - 1) {
            // It was being made when everything ended: nothing is in it.
            Err(InspectError::Bad {
                source: JournalError::NoHead,
                ..
            }) if first_segment < segment && segment == next_segment - 1 => {
                inspected.next_segment = segment;
            }
            read => {
                read?;
                inspected.segments.push(segment);
            }
        }
    }
    let torn_bytes = inspected.tail.torn_bytes;
    if torn_bytes > 0 && !inspected.files.may_be_torn() {
        let last = JournalFile::Segment(inspected.last_segment());
        return Err(InspectError::End {
            path: inspected.files.path(Some(last)),
            after: inspected.last,
            bytes: torn_bytes,
        });
    }
    Ok(inspected)
}

/// The newest snapshot that is whole, as are those on which it builds, and the bytes of them all. One that is not may
/// have been in the making when everything ended: what it was to replace is still there then.
fn newest_snapshot(
    files: &dyn JournalFiles,
    listing: &Listing,
    id: JournalId,
    has_disks: bool,
) -> Result<(u64, JournalHead, u64), InspectError> {
    let mut newest_is_wrong = None;
    for segment in listing.snapshots.keys().rev() {
        // Without the records after it one is there for those that build on it, and for nothing else.
        if newest_is_wrong.is_some() && !listing.segments.contains_key(segment) {
            continue;
        }
        match check_chain(files, listing, id, *segment) {
            Ok((head, bytes)) => return Ok((*segment, head, bytes)),
            // The disks may have gone on to it already, and are nothing for the one before.
            Err(error) if has_disks => return Err(error),
            Err(error) => newest_is_wrong.get_or_insert(error),
        };
    }
    Err(newest_is_wrong.unwrap_or_else(|| InspectError::NoSnapshot(files.path(None))))
}

/// What a snapshot says of itself that is whole, as are those on which it builds; and the bytes of them all.
fn check_chain(
    files: &dyn JournalFiles,
    listing: &Listing,
    id: JournalId,
    newest: u64,
) -> Result<(JournalHead, u64), InspectError> {
    let path = |number: u64| files.path(Some(JournalFile::Snapshot(number)));
    let bytes = |number: u64| listing.snapshots.get(&number).copied().unwrap_or(0);
    let newest_head = check_snapshot(files, JournalFile::Snapshot(newest))?;
    if newest_head.id != id || newest_head.segment != newest {
        return Err(InspectError::Bad {
            path: path(newest),
            source: JournalError::Foreign,
        });
    }
    let mut all_bytes = bytes(newest);
    let mut head = newest_head.clone();
    while let Some(base) = head.builds_on {
        let wrong = |error: fn(PathBuf, PathBuf) -> ChainError| {
            InspectError::Base(error(path(head.segment), path(base.segment)))
        };
        let read = check_snapshot(files, JournalFile::Snapshot(base.segment));
        let below = read.map_err(|error| match error {
            InspectError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                wrong(|path, base| ChainError::Missing { path, base })
            }
            error => error,
        })?;
        if !builds_on(&head, &below) {
            return Err(wrong(|path, base| ChainError::Other { path, base }));
        }
        all_bytes += bytes(base.segment);
        head = below;
    }
    Ok((newest_head, all_bytes))
}

fn check_snapshot(
    files: &dyn JournalFiles,
    file: JournalFile,
) -> Result<JournalHead, InspectError> {
    let bad = |source| InspectError::Bad {
        path: files.path(Some(file)),
        source,
    };
    let mut reader = SnapshotFileReader::default();
    let mut checked = Ok(());
    read_file(files, file, |bytes| {
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

fn inspect_segment(
    inspected: &mut Inspected,
    segment: u64,
    last_segment: u64,
) -> Result<(), InspectError> {
    let files = inspected.files.clone();
    let file = JournalFile::Segment(segment);
    let path = files.path(Some(file));
    let bad = |source| InspectError::Bad {
        path: path.clone(),
        source,
    };
    let is_first = segment == inspected.first_segment;
    let (after, before) = (inspected.last, inspected.tail.digest);
    let mut reader = SegmentReader::default();
    let mut follows = true;
    let mut checked = Ok(());
    let read = read_file(&*files, file, |bytes| {
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
    });
    read.map_err(|error| match error {
        InspectError::Unreadable { path, source } if source.kind() == io::ErrorKind::NotFound => {
            InspectError::Missing { path, after }
        }
        error => error,
    })?;
    checked.map_err(&bad)?;
    if !follows {
        return Err(InspectError::Chain { path, after });
    }
    let last = reader.last();
    inspected.tail = reader.finish().map_err(bad)?;
    inspected.last = last;
    // Only the last one was being written.
    if segment < last_segment && inspected.tail.torn_bytes > 0 {
        let after = inspected.last;
        return Err(InspectError::Chain { path, after });
    }
    Ok(())
}

/// Gives a whole file to `take` in pieces, until it wants no more.
fn read_file(
    files: &dyn JournalFiles,
    file: JournalFile,
    take: impl FnMut(&[u8]) -> bool,
) -> Result<(), InspectError> {
    storage::read_file(files, file, u64::MAX, take).map_err(|source| {
        let path = files.path(Some(file));
        InspectError::Unreadable { path, source }
    })
}
