//! Where the files of journals are: `DIRECTORY/JOURNAL/00000001.snapshot`, `….segment`.

use environment::fs::{self, File, Lock, OpenOptions};
use replication::journal::{JournalHead, JournalItem, SegmentReader, SnapshotFileReader};
use replication::message::LifeId;
use replication::succession::{JournalId, LifeNumber, MachineName};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Follows the name of a snapshot that is being written.
pub(super) const UNFINISHED: &str = ".new";
/// Holds the lock.
const LOCK: &str = "lock";
/// Bytes that are read at once.
pub(super) const READ_BYTES: usize = 1 << 20;
/// The first frame of a file is not longer.
const HEAD_LIMIT_BYTES: u64 = 4096;

/// A directory that cannot be the journal's.
#[derive(Debug, Error)]
pub enum JournalDirectoryError {
    /// It cannot be made, read or written.
    #[error("journal.directory: cannot use {}: {source}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is none.
    #[error("journal.directory: {} is a file, or is below one: name a directory", path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error(
        "journal.directory: {} is in use by another process: one machine has one directory",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It is another machine's.
    #[error(
        "journal.directory: {} holds a journal of machine {theirs}: name another directory for this \
         machine, or remove it",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        theirs: MachineName,
    },
}

/// A journal that is begun: its identity, and the life that it is of.
pub(super) type Begun = (JournalId, LifeNumber, LifeId);

/// The directory, for this process alone.
#[derive(Debug)]
pub struct JournalDirectory {
    path: PathBuf,
    _lock: File,
}

impl JournalDirectory {
    /// Takes the directory for `machine`; it is made when it is not there.
    ///
    /// # Errors
    /// [`JournalDirectoryError`]
    pub fn take(
        path: &Path,
        machine: &MachineName,
    ) -> Result<JournalDirectory, JournalDirectoryError> {
        let unusable = |source| JournalDirectoryError::Unusable {
            path: path.into(),
            source,
        };
        // The machine's whole memory is in it.
        fs::create_directory(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                JournalDirectoryError::NoDirectory { path: path.into() }
            }
            _ => unusable(source),
        })?;
        let lock = create(&path.join(LOCK)).map_err(unusable)?;
        match lock.lock(Lock::Exclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(JournalDirectoryError::InUse { path: path.into() });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        let directory = JournalDirectory {
            path: path.into(),
            _lock: lock,
        };
        for id in directory.journals().map_err(unusable)? {
            if let Some(head) = directory.head_of(id)
                && head.machine != *machine
            {
                let (path, theirs) = (path.into(), head.machine);
                return Err(JournalDirectoryError::Foreign { path, theirs });
            }
        }
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The journals that are there.
    pub(super) fn journals(&self) -> io::Result<Vec<JournalId>> {
        journals(&self.path)
    }

    /// Where one is.
    pub(super) fn of(&self, id: JournalId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// The head of the newest segment of a journal, if it can be read at all.
    fn head_of(&self, id: JournalId) -> Option<JournalHead> {
        let segment = segments(&self.of(id)).ok()?.pop()?;
        segment_head(&segment_path(&self.of(id), segment)).ok()?
    }

    /// Makes the directory of a journal, with none beside it: whoever begins one goes on from no other of
    /// this life, or of one before.
    ///
    /// # Errors
    /// The disk fails; or a journal is there that is of neither: another arbiter's key may name it.
    pub(super) fn begin(&self, (id, life, life_id): Begun) -> io::Result<PathBuf> {
        let others = self.journals()?;
        for other in &others {
            if let Some(head) = self.head_of(*other)
                && head.life_id != life_id
                && head.life >= life
            {
                let why = format!(
                    "it holds journal {other} of another life of this machine, {} of life {}, which \
                     another arbiter knows: name another directory, or remove it",
                    head.life_id, head.life
                );
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
        }
        for other in others {
            fs::remove_directory(&self.of(other))?;
        }
        let path = self.of(id);
        fs::create_directory(&path)?;
        fs::sync_directory(&self.path)?;
        Ok(path)
    }
}

/// The journals in a directory.
pub(super) fn journals(directory: &Path) -> io::Result<Vec<JournalId>> {
    let names = fs::names(directory)?;
    let mut journals: Vec<JournalId> = names.iter().filter_map(|name| parse_id(name)).collect();
    journals.sort_unstable();
    Ok(journals)
}

/// What a segment says of itself; nothing if it is not written so far.
pub(super) fn segment_head(path: &Path) -> io::Result<Option<JournalHead>> {
    let bytes = fs::read(path, HEAD_LIMIT_BYTES)?;
    let mut reader = SegmentReader::default();
    reader.push(&bytes);
    match reader.next_item() {
        Ok(Some(JournalItem::Head(head))) => Ok(Some(head)),
        _ => Ok(None),
    }
}

/// What a snapshot says of itself, if that can be read.
pub(super) fn snapshot_head(path: &Path) -> io::Result<Option<JournalHead>> {
    let bytes = fs::read(path, HEAD_LIMIT_BYTES)?;
    let mut reader = SnapshotFileReader::default();
    reader.push(&bytes);
    // What follows the head may be damaged: whoever reads it will say so.
    let _first = reader.next_piece();
    Ok(reader.head().cloned())
}

fn parse_id(name: &str) -> Option<JournalId> {
    let is_id = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_id.then(|| u128::from_str_radix(name, 16).ok());
    number.flatten().map(JournalId)
}

/// Makes a file for its owner alone, or opens it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).create(true);
    options.open(path)
}

/// Gives the first `limit` bytes of a file to `take` in pieces, until it wants no more.
pub(super) fn read_file(
    path: &Path,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let file = File::open(path)?;
    let length = file.length()?.min(limit);
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < length {
        let piece = (length - at).min(READ_BYTES as u64);
        let piece = &mut buffer[..piece as usize];
        file.read_exact_at(piece, at)?;
        at += piece.len() as u64;
        if !take(piece) {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn segment_path(journal: &Path, segment: u64) -> PathBuf {
    journal.join(format!("{segment:08}.segment"))
}

pub(super) fn snapshot_path(journal: &Path, segment: u64) -> PathBuf {
    journal.join(format!("{segment:08}.snapshot"))
}

/// What a snapshot is called before it is whole and durable.
pub(super) fn unfinished_snapshot_path(journal: &Path, segment: u64) -> PathBuf {
    journal.join(format!("{segment:08}.snapshot{UNFINISHED}"))
}

/// The numbers of the files with this ending, in order.
fn numbers(journal: &Path, ending: &str) -> io::Result<Vec<u64>> {
    let names = fs::names(journal)?;
    let named = names.iter().filter_map(|name| name.strip_suffix(ending));
    let mut numbers: Vec<u64> = named.filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn segments(journal: &Path) -> io::Result<Vec<u64>> {
    numbers(journal, ".segment")
}

pub(super) fn snapshots(journal: &Path) -> io::Result<Vec<u64>> {
    numbers(journal, ".snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::journal::SegmentWriter;
    use replication::life_log::{LogMark, Place};

    fn place() -> Place {
        Place {
            record: 0,
            count: 0,
            mark: LogMark(0),
        }
    }

    /// Keeps the beginning of a journal of this life.
    fn keep(directory: &JournalDirectory, begun: Begun) {
        let journal = directory.begin(begun).unwrap();
        let head = JournalHead {
            id: begun.0,
            segment: 1,
            before: 0,
            machine: MachineName::new("shop").unwrap(),
            life: begun.1,
            life_id: begun.2,
            semantics_version: 8,
            configuration_hash: 1,
            place: place(),
            visible_outputs: 0,
            disk_layer: 0,
            times: None,
            builds_on: 0,
        };
        let bytes = SegmentWriter::begin(&head).take_bytes();
        std::fs::write(segment_path(&journal, 1), bytes).unwrap();
    }

    #[test]
    fn a_directory_that_is_a_file_is_said_to_be_one() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("journal");
        std::fs::write(&file, "no journal").unwrap();
        let machine = MachineName::new("shop").unwrap();
        for path in [file.clone(), file.join("shop")] {
            let error = JournalDirectory::take(&path, &machine).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("is a file, or is below one"), "{text}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"no journal");
    }

    /// Of a machine with the same name, which another arbiter knows: its journal was removed without a word.
    #[test]
    fn a_journal_of_another_arbiters_life_is_not_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let machine = MachineName::new("shop").unwrap();
        let directory = JournalDirectory::take(temporary.path(), &machine).unwrap();
        let first = (JournalId(1), LifeNumber(1), LifeId(7));
        keep(&directory, first);
        let foreign = (JournalId(2), LifeNumber(1), LifeId(8));
        let error = directory.begin(foreign).unwrap_err().to_string();
        for word in ["another arbiter", "name another directory"] {
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(directory.journals().unwrap(), [first.0]);
        // Another one of this life, and one of the life after it.
        for begun in [
            (JournalId(3), first.1, first.2),
            (JournalId(4), LifeNumber(2), LifeId(9)),
        ] {
            keep(&directory, begun);
            assert_eq!(directory.journals().unwrap(), [begun.0]);
        }
    }
}
