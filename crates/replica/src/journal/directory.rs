//! Where the files of journals are: `DIRECTORY/JOURNAL/00000001.snapshot`, `….segment`.

use replication::journal::{JournalItem, SegmentReader};
use replication::succession::{JournalId, MachineName};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

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
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(unusable)?;
        let lock = create(&path.join(LOCK), false).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
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
            if let Some(theirs) = directory.machine_of(id)
                && theirs != *machine
            {
                let path = path.into();
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
        let mut journals = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(id) = name.to_str().and_then(parse_id)
                && entry.file_type()?.is_dir()
            {
                journals.push(id);
            }
        }
        journals.sort_unstable();
        Ok(journals)
    }

    /// Where one is.
    pub(super) fn of(&self, id: JournalId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Whose the newest segment of a journal says that it is, if that can be read at all.
    fn machine_of(&self, id: JournalId) -> Option<MachineName> {
        let segment = segments(&self.of(id)).ok()?.pop()?;
        let mut bytes = Vec::new();
        let file = File::open(segment_path(&self.of(id), segment)).ok()?;
        file.take(HEAD_LIMIT_BYTES).read_to_end(&mut bytes).ok()?;
        let mut reader = SegmentReader::default();
        reader.push(&bytes);
        match reader.next_item() {
            Ok(Some(JournalItem::Head(head))) => Some(head.machine),
            _ => None,
        }
    }

    /// Makes the directory of a journal, with none beside it: whoever begins one goes on from no other.
    pub(super) fn begin(&self, id: JournalId) -> io::Result<PathBuf> {
        for other in self.journals()? {
            fs::remove_dir_all(self.of(other))?;
        }
        let path = self.of(id);
        DirBuilder::new().mode(0o700).create(&path)?;
        sync_directory(&self.path)?;
        Ok(path)
    }
}

fn parse_id(name: &str) -> Option<JournalId> {
    let is_id = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_id.then(|| u128::from_str_radix(name, 16).ok());
    number.flatten().map(JournalId)
}

/// Makes a file for its owner alone, or opens it. `is_new`: it must not be there.
pub(super) fn create(path: &Path, is_new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).truncate(false);
    options.create(!is_new).create_new(is_new);
    options.open(path)
}

/// What is in a directory lasts.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn segment_path(journal: &Path, segment: u64) -> PathBuf {
    journal.join(format!("{segment:08}.segment"))
}

pub(super) fn snapshot_path(journal: &Path, segment: u64) -> PathBuf {
    journal.join(format!("{segment:08}.snapshot"))
}

/// The numbers of the files with this ending, in order.
fn numbers(journal: &Path, ending: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(journal)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(ending));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn segments(journal: &Path) -> io::Result<Vec<u64>> {
    numbers(journal, ".segment")
}

pub(super) fn snapshots(journal: &Path) -> io::Result<Vec<u64>> {
    numbers(journal, ".snapshot")
}

/// Removes what precedes this segment, the oldest first, until no more than `keep_bytes` of it are left.
/// What is left begins with a snapshot.
pub(super) fn trim(journal: &Path, segment: u64, keep_bytes: u64) -> io::Result<()> {
    let length = |path: PathBuf| match fs::metadata(&path) {
        Ok(there) => Ok((path, there.len())),
        Err(error) => Err(error),
    };
    // A snapshot goes after what follows it: it is never there for nothing but a moment.
    let mut files = Vec::new();
    for number in segments(journal)? {
        files.push((number, length(segment_path(journal, number))?));
    }
    for number in snapshots(journal)? {
        files.push((number, length(snapshot_path(journal, number))?));
    }
    files.retain(|(number, _)| *number < segment);
    let begins: Vec<u64> = snapshots(journal)?;
    let left_from = |first: u64| -> u64 {
        let kept = files.iter().filter(|(number, _)| *number >= first);
        kept.map(|(_, (_, bytes))| bytes).sum()
    };
    let mut begins = begins.into_iter().filter(|begin| *begin < segment);
    let first = begins.find(|begin| left_from(*begin) <= keep_bytes);
    let first = first.unwrap_or(segment);
    for (_, (path, _)) in files.into_iter().filter(|(number, _)| *number < first) {
        fs::remove_file(path)?;
    }
    sync_directory(journal)
}
