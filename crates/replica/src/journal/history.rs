//! A journal as history: who looks into it reads what is there, while its machine goes on writing. Nothing is
//! locked, renamed, cut or removed here. Files are opened before anything is read of them: what goes meanwhile,
//! because a newer snapshot is there, is read all the same.

mod end;
mod records;

pub use end::HistoryEnd;
pub use records::HistoryRecords;
use records::HistorySegments;

use super::chain::{ChainError, OpenChain};
use super::reading::{MeteredFiles, ReadMeter};
use super::snapshot_bytes::SnapshotBytes;
use super::storage::{Hold, JournalFile, JournalFiles, ReadFile, open_to_read, snapshot_head};
use crate::config::JournalPlace;
use crate::packing::Unpacker;
use machine::snapshot::Chain;
use replication::journal::{JournalError, JournalHead};
use replication::record::RecordNumber;
use replication::succession::JournalId;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
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
        after: RecordNumber,
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
        after: RecordNumber,
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
    /// There is no machine of the snapshot: of one on which it builds.
    #[error("{0}")]
    Base(String),
    /// There is none.
    #[error("the {what} {} holds no journal, or none that has a whole snapshot yet", path.display())]
    NoJournal {
        /// What it is.
        what: &'static str,
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

    fn of_chain(error: ChainError) -> HistoryError {
        match error {
            ChainError::Unreadable { path, source } => HistoryError::of(&path, source),
            error => HistoryError::Base(error.to_string()),
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
pub struct JournalHistory {
    files: Arc<dyn JournalFiles>,
    path: PathBuf,
    id: JournalId,
    ways_in: Vec<WayIn>,
    base_bytes: u64,
    /// Their numbers and bytes.
    segments: Vec<(u64, u64)>,
    /// Numbers of segments that nobody began.
    fences: BTreeSet<u64>,
    /// Nothing of it goes meanwhile.
    hold: Arc<Mutex<Box<dyn Hold>>>,
    unusable: Vec<String>,
}

impl JournalHistory {
    /// The journals in a place, or the one whose own directory it is; the one of the youngest life, that came
    /// furthest, is the last. `meter` counts what is read of them, now and later.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn all_in(
        place: &JournalPlace,
        meter: &ReadMeter,
    ) -> Result<Vec<JournalHistory>, HistoryError> {
        let unreadable = |source| HistoryError::Unreadable {
            path: place.path(),
            source,
        };
        let storage = open_to_read(place).map_err(unreadable)?;
        let mut all = Vec::new();
        for files in storage.journals().map_err(unreadable)?.into_values() {
            all.extend(JournalHistory::open(MeteredFiles::of(files, meter))?);
        }
        all.sort_by_key(|journal| {
            let head = &journal.ways_in[journal.ways_in.len() - 1].head;
            (head.life, head.place.record)
        });
        if all.is_empty() {
            let path = place.path();
            let what = match place {
                JournalPlace::Directory(_) => "directory",
                JournalPlace::Bucket(_) => "bucket",
            };
            return Err(HistoryError::NoJournal { what, path });
        }
        Ok(all)
    }

    /// Nothing, if it has no whole snapshot.
    fn open(files: Arc<dyn JournalFiles>) -> Result<Option<JournalHistory>, HistoryError> {
        let path = files.path(None);
        let unreadable = |source| HistoryError::Unreadable {
            path: path.clone(),
            source,
        };
        let hold = files.hold().map_err(unreadable)?;
        let listing = files.list().map_err(unreadable)?;
        let mut unusable = Vec::new();
        let mut ways_in = Vec::new();
        for (number, bytes) in listing.snapshots {
            match way_in(&*files, number, bytes) {
                Ok(way_in) => ways_in.push(way_in),
                Err(HistoryError::Gone { .. }) => {}
                Err(error) => unusable.push(error.to_string()),
            }
        }
        let mut sized: Vec<(u64, u64)> = listing.segments.into_iter().collect();
        let first = sized.first().map_or(u64::MAX, |(number, _)| *number);
        // Those before are there for others alone, which build on them.
        let (kept, bases): (Vec<WayIn>, Vec<WayIn>) = ways_in
            .into_iter()
            .partition(|way_in| way_in.head.segment >= first);
        let ways_in = kept;
        let base_bytes = bases.iter().map(|base| base.bytes).sum();
        let Some(oldest) = ways_in.first() else {
            return Ok(None);
        };
        let (id, first) = (oldest.head.id, oldest.head.segment);
        sized.retain(|(number, _)| *number >= first);
        Ok(Some(JournalHistory {
            files,
            path,
            id,
            ways_in,
            base_bytes,
            segments: sized,
            fences: listing.fences,
            hold: Arc::new(Mutex::new(hold)),
            unusable,
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which it is.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// Every kept snapshot, the oldest first; there is one at least.
    pub fn ways_in(&self) -> &[WayIn] {
        &self.ways_in
    }

    /// Bytes of snapshots that are there for others alone, which build on them: the records after them have gone.
    pub fn base_bytes(&self) -> u64 {
        self.base_bytes
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

    /// Bytes of the segments after a way in.
    pub fn bytes_after(&self, way_in: &WayIn) -> u64 {
        let first = way_in.head.segment;
        let after = self.segments.iter().filter(|(number, _)| *number >= first);
        after.map(|(_, bytes)| bytes).sum()
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
        let snapshot = JournalFile::Snapshot(first);
        let path = self.files.path(Some(snapshot));
        let failed = |error| HistoryError::of(&path, error);
        let chain = OpenChain::open(&*self.files, first).map_err(HistoryError::of_chain)?;
        let bytes = chain.into_bytes();
        let bytes = bytes.map_err(|error| failed(io::Error::other(error)))?;
        let numbers = self.segments.iter().map(|(number, _)| *number);
        let numbers = numbers.filter(|number| (first..=last).contains(number));
        let mut segments = Vec::new();
        for (index, number) in numbers.enumerate() {
            let opened = match index < OPEN_SEGMENTS {
                true => Some(self.open_segment(number)?),
                false => None,
            };
            segments.push((number, opened));
        }
        let records = HistoryRecords::new(HistorySegments {
            head: way_in.head.clone(),
            files: self.files.clone(),
            segments: segments.into(),
            fences: self.fences.clone(),
            hold: self.hold.clone(),
            is_to_the_end: until.is_none(),
            unpacker: Unpacker::new().map_err(failed)?,
        });
        Ok((MachineFile { path, bytes }, records))
    }

    fn open_segment(&self, number: u64) -> Result<Box<dyn ReadFile>, HistoryError> {
        let file = JournalFile::Segment(number);
        let opened = self.files.open(file);
        opened.map_err(|error| HistoryError::of(&self.files.path(Some(file)), error))
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

fn way_in(files: &dyn JournalFiles, number: u64, bytes: u64) -> Result<WayIn, HistoryError> {
    let path = files.path(Some(JournalFile::Snapshot(number)));
    let head = snapshot_head(files, number);
    let head = head.map_err(|error| HistoryError::of(&path, error))?;
    let head = head.filter(|head| head.segment == number);
    let head = head.ok_or_else(|| HistoryError::Bad {
        path: path.clone(),
        source: JournalError::NoHead,
    })?;
    Ok(WayIn { head, bytes })
}

/// The machine's bytes in the file of a snapshot, and in those on which it builds.
pub struct MachineFile {
    path: PathBuf,
    bytes: Chain<SnapshotBytes>,
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
