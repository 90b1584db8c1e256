//! A journal as history: who looks into it reads what is there, while its machine goes on writing. Nothing is
//! locked, renamed, cut or removed here. Files are opened before anything is read of them: what goes meanwhile,
//! because a newer snapshot is there, is read all the same.

mod end;
mod records;

pub use end::HistoryEnd;
pub use records::HistoryRecords;

use super::directory::{journals, segment_path, segments, snapshot_head, snapshot_path, snapshots};
use super::snapshot_bytes::SnapshotBytes;
use crate::packing::Unpacker;
use environment::fs::{self, File};
use replication::journal::{JournalError, JournalHead};
use replication::succession::JournalId;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Segments that are open at once, at most; those after them are opened when it is their turn.
const OPEN_SEGMENTS: usize = 200;

/// Why a journal cannot be looked into.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// It is not there, or cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was there a moment ago.
    #[error(
        "{} has gone meanwhile: its machine has taken another snapshot, and keeps no more than its \
         configuration says (journal.keep); look again",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("{}: {source}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: JournalError,
    },
    /// A segment is not where it should be.
    #[error("{} is missing, and with it the records after {after}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The last record before it.
        after: u64,
    },
    /// A segment that follows nothing.
    #[error(
        "{} does not go on where the file before it ends (record {after}): that one is damaged or cut, or one \
         of both is of another journal",
        path.display()
    )]
    Chain {
        /// The file.
        path: PathBuf,
        /// The last record before it.
        after: u64,
    },
    /// What a disk read cannot be unpacked.
    #[error("{}: what disk {device} read for request {request} cannot be unpacked", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// Index among the machine's disks.
        device: u8,
        /// The request's number.
        request: u64,
    },
    /// There is none.
    #[error("the directory {} holds no journal, or none that has a whole snapshot yet", path.display())]
    NoJournal {
        /// Where.
        path: PathBuf,
    },
}

impl HistoryError {
    /// What was wrong with a file that was there when its directory was read.
    fn of(path: &Path, source: io::Error) -> HistoryError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => HistoryError::Gone { path },
            _ => HistoryError::Unreadable { path, source },
        }
    }
}

/// A snapshot from which records are replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayIn {
    /// What its file says; `segment` is the one that begins with it.
    pub head: JournalHead,
    /// Bytes of its file.
    pub bytes: u64,
}

/// A journal: every snapshot that is kept, and the segments after the first of them.
#[derive(Clone, Debug)]
pub struct JournalHistory {
    directory: PathBuf,
    id: JournalId,
    ways_in: Vec<WayIn>,
    /// Their numbers and bytes.
    segments: Vec<(u64, u64)>,
    unusable: Vec<String>,
}

impl JournalHistory {
    /// The journals in a directory, or the one whose own directory it is; the one of the youngest life, that came
    /// furthest, is the last.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn all_in(directory: &Path) -> Result<Vec<JournalHistory>, HistoryError> {
        let unreadable = |source| HistoryError::Unreadable {
            path: directory.into(),
            source,
        };
        let below = journals(directory).map_err(unreadable)?;
        let mut directories: Vec<PathBuf> = below
            .iter()
            .map(|id| directory.join(id.to_string()))
            .collect();
        directories.push(directory.into());
        let mut all = Vec::new();
        for directory in directories {
            all.extend(JournalHistory::open(&directory)?);
        }
        all.sort_by_key(|journal| {
            let head = &journal.ways_in[journal.ways_in.len() - 1].head;
            (head.life, head.place.record)
        });
        if all.is_empty() {
            let path = directory.into();
            return Err(HistoryError::NoJournal { path });
        }
        Ok(all)
    }

    /// Nothing, if it has no whole snapshot.
    fn open(directory: &Path) -> Result<Option<JournalHistory>, HistoryError> {
        let unreadable = |source| HistoryError::Unreadable {
            path: directory.into(),
            source,
        };
        // Snapshots first: a segment is there before its snapshot is.
        let snapshots = snapshots(directory).map_err(unreadable)?;
        let numbers = segments(directory).map_err(unreadable)?;
        let mut unusable = Vec::new();
        let mut ways_in = Vec::new();
        for number in snapshots {
            match way_in(directory, number) {
                Ok(way_in) => ways_in.push(way_in),
                Err(HistoryError::Gone { .. }) => {}
                Err(error) => unusable.push(error.to_string()),
            }
        }
        let mut sized = Vec::new();
        for number in numbers {
            let path = segment_path(directory, number);
            match fs::look_at(&path).map_err(|error| HistoryError::of(&path, error)) {
                Ok((_, bytes)) => sized.push((number, bytes)),
                // The oldest go first: those before it are gone as well.
                Err(HistoryError::Gone { .. }) => sized.clear(),
                Err(error) => return Err(error),
            }
        }
        let first = sized.first().map_or(u64::MAX, |(number, _)| *number);
        ways_in.retain(|way_in| way_in.head.segment >= first);
        let Some(oldest) = ways_in.first() else {
            return Ok(None);
        };
        let (id, first) = (oldest.head.id, oldest.head.segment);
        sized.retain(|(number, _)| *number >= first);
        Ok(Some(JournalHistory {
            directory: directory.into(),
            id,
            ways_in,
            segments: sized,
            unusable,
        }))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Which it is.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// Every kept snapshot, the oldest first; there is one at least.
    pub fn ways_in(&self) -> &[WayIn] {
        &self.ways_in
    }

    /// What is wrong with snapshots that do not even say where they were taken.
    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }

    /// How many segments there are after the first snapshot, and their bytes.
    pub fn segments(&self) -> (usize, u64) {
        let bytes = self.segments.iter().map(|(_, bytes)| bytes).sum();
        (self.segments.len(), bytes)
    }

    /// Opens the way in, and what follows it up to the way in `until`, or to the end.
    ///
    /// # Errors
    /// A file has gone, or cannot be opened.
    pub fn enter(
        &self,
        way_in: &WayIn,
        until: Option<&WayIn>,
    ) -> Result<(MachineFile, HistoryRecords), HistoryError> {
        let first = way_in.head.segment;
        let last = until.map_or(u64::MAX, |until| until.head.segment - 1);
        let path = snapshot_path(&self.directory, first);
        let failed = |error| HistoryError::of(&path, error);
        let file = File::open(&path).map_err(failed)?;
        let bytes = SnapshotBytes::of(file).map_err(failed)?;
        let numbers = self.segments.iter().map(|(number, _)| *number);
        let numbers = numbers.filter(|number| (first..=last).contains(number));
        let mut files = Vec::new();
        for (index, number) in numbers.enumerate() {
            let path = segment_path(&self.directory, number);
            let file = (index < OPEN_SEGMENTS).then(|| File::open(&path));
            let file = file
                .transpose()
                .map_err(|error| HistoryError::of(&path, error))?;
            files.push((number, path, file));
        }
        let is_to_the_end = until.is_none();
        let unpacker = Unpacker::new().map_err(failed)?;
        let records = HistoryRecords::new(&way_in.head, files, is_to_the_end, unpacker);
        Ok((MachineFile { path, bytes }, records))
    }

    /// The end of what is there.
    ///
    /// # Errors
    /// The last segments cannot be read, or are damaged.
    pub fn end(&self) -> Result<HistoryEnd, HistoryError> {
        let newest = &self.ways_in[self.ways_in.len() - 1];
        let (_, records) = self.enter(newest, None)?;
        end::of(&newest.head, records)
    }
}

fn way_in(directory: &Path, number: u64) -> Result<WayIn, HistoryError> {
    let path = snapshot_path(directory, number);
    let failed = |error| HistoryError::of(&path, error);
    let head = snapshot_head(&path).map_err(failed)?;
    let (_, bytes) = fs::look_at(&path).map_err(failed)?;
    let head = head.filter(|head| head.segment == number);
    let head = head.ok_or_else(|| HistoryError::Bad {
        path: path.clone(),
        source: JournalError::NoHead,
    })?;
    Ok(WayIn { head, bytes })
}

/// The machine's bytes in the file of a snapshot.
pub struct MachineFile {
    path: PathBuf,
    bytes: SnapshotBytes,
}

impl MachineFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Read for MachineFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(out)
    }
}
