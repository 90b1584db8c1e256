//! Where the files of journals are: a directory, or a bucket. Writer, readers and retention are the same for both.
//!
//! A file is written once, at its end, and removed whole. Two things are not the same everywhere, and are asked for
//! here: whether the end of a file may be torn, and whether others may write where this host does. A directory has a
//! lock; in a bucket whoever goes on from a journal puts a *fence* behind what is there, and no put of a process before
//! that one succeeds any more.

mod bucket;
mod bucket_files;
mod bucket_readers;
mod directory;

pub use bucket::BucketStorage;
pub use directory::{JournalDirectory, JournalDirectoryError};

#[cfg(test)]
pub(super) use directory::DirectoryFiles;

use super::ReadMeter;
use crate::config::JournalPlace;
use replication::journal::{JournalHead, JournalItem, SegmentReader, SnapshotFileReader};
use replication::message::LifeId;
use replication::succession::{Generation, JournalId, LifeNumber, MachineName, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that are read at once, about.
pub(super) const READ_BYTES: usize = 1 << 20;

/// A file of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum JournalFile {
    /// Records.
    Segment(u64),
    /// The snapshot with which this segment begins.
    Snapshot(u64),
}

impl fmt::Display for JournalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalFile::Segment(number) => write!(f, "{number:08}.segment"),
            JournalFile::Snapshot(number) => write!(f, "{number:08}.snapshot"),
        }
    }
}

/// What there is of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Segments, with their bytes.
    pub segments: BTreeMap<u64, u64>,
    /// Snapshots that are whole, with their bytes.
    pub snapshots: BTreeMap<u64, u64>,
    /// Numbers of segments that nobody began: somebody went on from the journal there.
    pub fences: BTreeSet<u64>,
}

impl Listing {
    /// What is read at most to go on from it: all snapshots, and the segments after the newest.
    pub fn bytes_to_read(&self) -> u64 {
        let newest = self.snapshots.keys().next_back().copied().unwrap_or(0);
        let after = self.segments.range(newest..).map(|(_, bytes)| bytes);
        self.snapshots.values().chain(after).sum()
    }

    /// The number of the segment after all that are there.
    pub fn next_segment(&self) -> u64 {
        let segments = self.segments.keys().chain(&self.fences).max();
        segments.copied().unwrap_or(0) + 1
    }
}

/// What is told of something that takes long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// It does not answer, and why; it is asked again.
    Waits(String),
    /// So many bytes more have moved.
    Moves(u64),
}

/// A journal that is begun: its identity, the life that it is of, and the generation of whoever begins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Which.
    pub id: JournalId,
    /// The life.
    pub life: LifeNumber,
    /// That life's identity.
    pub life_id: LifeId,
    /// The generation.
    pub generation: Generation,
}

/// Where journals are.
pub(super) trait Storage: Send + Sync + fmt::Debug {
    /// For people.
    fn place(&self) -> String;

    /// Those that are there.
    ///
    /// # Errors
    /// They cannot be read.
    fn journals(&self) -> io::Result<BTreeMap<JournalId, Arc<dyn JournalFiles>>>;

    /// Begins a journal, with none beside it that is older: whoever begins one goes on from no other of this life, or
    /// of one before. `told` hears why it takes longer, where it is tried again, and that it gets on.
    ///
    /// # Errors
    /// It cannot be written; or a journal is there that is of neither: another arbiter's key may name it.
    fn begin(
        &self,
        begun: Begun,
        owner: &MachineName,
        told: &mut dyn FnMut(Asking),
    ) -> io::Result<Arc<dyn JournalFiles>>;
}

/// The files of one journal.
pub(super) trait JournalFiles: Send + Sync + fmt::Debug {
    /// Where one is, for people; nothing: where all are.
    fn path(&self, file: Option<JournalFile>) -> PathBuf;

    /// What is there now.
    ///
    /// # Errors
    /// It cannot be read.
    fn list(&self) -> io::Result<Listing>;

    /// How many bytes there is room for, if that is known.
    ///
    /// # Errors
    /// The host does not say.
    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Opens a file as it is now: what is added later is not read.
    ///
    /// # Errors
    /// It is not there ([`io::ErrorKind::NotFound`]), or cannot be read.
    fn open(&self, file: JournalFile) -> io::Result<Box<dyn ReadFile>>;

    /// Begins a segment with these bytes, durably. It has to be one that is not there. `told` as of [`Storage::begin`].
    ///
    /// # Errors
    /// It cannot be written, or is there.
    fn begin_segment(
        &self,
        number: u64,
        bytes: &[u8],
        told: &mut dyn FnMut(Asking),
    ) -> io::Result<Box<dyn SegmentFile>>;

    /// Begins a snapshot, which is not there before it is whole.
    ///
    /// # Errors
    /// It cannot be written.
    fn begin_snapshot(&self, number: u64) -> io::Result<Box<dyn SnapshotFile>>;

    /// Cuts a segment behind its good bytes.
    ///
    /// # Errors
    /// It cannot be written.
    fn cut(&self, segment: u64, good_bytes: u64) -> io::Result<()>;

    /// Whether the last bytes of a segment may be what was being written when everything ended.
    fn may_be_torn(&self) -> bool;

    /// Whether nobody but the process with the lock writes here.
    fn is_locked(&self) -> bool;

    /// Keeps what is there now from being removed, for as long as the answer lives.
    ///
    /// # Errors
    /// It cannot be written.
    fn hold(&self) -> io::Result<Box<dyn Hold>>;

    /// Removes files in this order, durably, and what is left of snapshots before `newest` that never became whole.
    /// False: somebody reads, and nothing is removed now.
    ///
    /// # Errors
    /// They cannot be removed.
    fn remove(&self, files: &[JournalFile], newest: u64) -> io::Result<bool>;

    /// From now on nobody adds anything who does not do so as `run`.
    ///
    /// # Errors
    /// It cannot be written.
    fn fence(&self, run: RunId) -> io::Result<()>;
}

/// What is read, and is not removed meanwhile.
pub(super) trait Hold: Send {
    /// Says, now and then, that it is still being read.
    ///
    /// # Errors
    /// It cannot be said.
    fn renew(&mut self) -> io::Result<()>;
}

/// A file that is read from its beginning on.
pub(super) trait ReadFile: Send {
    /// The next bytes, some [`READ_BYTES`]; none at the end.
    ///
    /// # Errors
    /// It cannot be read, or has gone.
    fn next_bytes(&mut self) -> io::Result<Vec<u8>>;

    /// From now on this meter counts what is read, while it comes; false: whoever reads has to count.
    fn is_counted_by(&mut self, _meter: &ReadMeter) -> bool {
        false
    }
}

/// A segment that is written.
pub(super) trait SegmentFile: Send {
    /// Adds bytes: they are durable afterwards. `told` hears why it takes longer, where it is tried again, and that it gets on.
    ///
    /// # Errors
    /// What is there now nobody knows: nothing more may be added.
    fn append(&mut self, bytes: &[u8], told: &mut dyn FnMut(Asking)) -> io::Result<()>;

    /// Nothing more will be added: another segment follows.
    ///
    /// # Errors
    /// As [`SegmentFile::append`].
    fn end(&mut self) -> io::Result<()>;
}

/// A snapshot that is written.
pub(super) trait SnapshotFile {
    /// Adds bytes.
    ///
    /// # Errors
    /// They cannot be written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was added durable.
    ///
    /// # Errors
    /// It cannot be written.
    fn sync(&mut self) -> io::Result<()>;

    /// It is whole, and durable under its name from now on.
    ///
    /// # Errors
    /// It cannot be written.
    fn end(&mut self) -> io::Result<()>;
}

/// Opens journals to be looked into: nobody is kept from writing them.
///
/// # Errors
/// The bucket's configuration cannot be.
pub(super) fn open_to_read(place: &JournalPlace) -> io::Result<Box<dyn Storage>> {
    Ok(match place {
        JournalPlace::Directory(path) => Box::new(directory::UnlockedDirectory(path.clone())),
        JournalPlace::Bucket(bucket) => Box::new(BucketStorage::open(bucket, RunId(0))?),
    })
}

/// Gives the first `limit` bytes of a file to `take` in pieces, until it wants no more.
///
/// # Errors
/// It cannot be read.
pub(super) fn read_file(
    files: &dyn JournalFiles,
    file: JournalFile,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut file = files.open(file)?;
    let mut left = limit;
    loop {
        let bytes = file.next_bytes()?;
        let wanted = left.min(bytes.len() as u64);
        if wanted == 0 || !take(&bytes[..wanted as usize]) {
            return Ok(());
        }
        left -= wanted;
    }
}

/// What a segment says of itself; nothing if it is not written so far.
pub(super) fn segment_head(
    files: &dyn JournalFiles,
    number: u64,
) -> io::Result<Option<JournalHead>> {
    let mut file = files.open(JournalFile::Segment(number))?;
    let mut reader = SegmentReader::default();
    reader.push(&file.next_bytes()?);
    match reader.next_item() {
        Ok(Some(JournalItem::Head(head))) => Ok(Some(head)),
        _ => Ok(None),
    }
}

/// What a snapshot says of itself, if that can be read.
pub(super) fn snapshot_head(
    files: &dyn JournalFiles,
    number: u64,
) -> io::Result<Option<JournalHead>> {
    let mut file = files.open(JournalFile::Snapshot(number))?;
    let mut reader = SnapshotFileReader::default();
    reader.push(&file.next_bytes()?);
    // What follows the head may be damaged: whoever reads it will say so.
    let _first = reader.next_piece();
    Ok(reader.head().cloned())
}

/// The head of the newest segment of a journal, if it can be read at all.
pub(super) fn head_of(files: &dyn JournalFiles) -> Option<JournalHead> {
    let newest = *files.list().ok()?.segments.keys().next_back()?;
    segment_head(files, newest).ok()?
}

/// Why a journal that is here keeps another one of this life from being begun, if it does.
pub(super) fn in_the_way(
    other: JournalId,
    head: &JournalHead,
    begun: &Begun,
    owner: &MachineName,
) -> Option<io::Error> {
    let why = if head.machine != *owner {
        format!(
            "it holds journal {other} of machine {}: name another place for this machine's",
            head.machine
        )
    } else if head.life_id != begun.life_id && head.life >= begun.life {
        format!(
            "it holds journal {other} of another life of this machine, {} of life {}, which another arbiter \
             knows: name another place, or remove it",
            head.life_id, head.life
        )
    } else {
        return None;
    };
    Some(io::Error::new(io::ErrorKind::AlreadyExists, why))
}
