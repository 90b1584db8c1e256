//! Journals in a directory: `DIRECTORY/JOURNAL/00000001.snapshot`, `….segment`.

use super::{
    Asking, Begun, Hold, JournalFile, JournalFiles, Listing, READ_BYTES, ReadFile, SegmentFile,
    SnapshotFile, Storage, head_of, in_the_way,
};
use environment::fs::{self, File, Lock, OpenOptions};
use replication::succession::{JournalId, MachineName, RunId};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Follows the name of a snapshot that is being written.
const UNFINISHED: &str = ".new";
/// Holds the lock.
const LOCK: &str = "lock";

/// A place that cannot be the journal's.
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
    /// The bucket's configuration cannot be.
    #[error("journal.url: {0}")]
    Bucket(io::Error),
    /// The host gives no thread, or no memory.
    #[error("the journal cannot be written: {0}")]
    Host(io::Error),
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
        for files in directory.journals().map_err(unusable)?.values() {
            if let Some(head) = head_of(&**files)
                && head.machine != *machine
            {
                let (path, theirs) = (path.into(), head.machine);
                return Err(JournalDirectoryError::Foreign { path, theirs });
            }
        }
        Ok(directory)
    }
}

impl Storage for JournalDirectory {
    /// Told to whoever looks for it, wherever that one is.
    fn place(&self) -> String {
        let path = std::path::absolute(&self.path);
        let path = path.unwrap_or_else(|_| self.path.clone());
        path.display().to_string()
    }

    fn journals(&self) -> io::Result<BTreeMap<JournalId, Arc<dyn JournalFiles>>> {
        journals(&self.path)
    }

    fn begin(
        &self,
        begun: Begun,
        owner: &MachineName,
        _: &mut dyn FnMut(Asking),
    ) -> io::Result<Arc<dyn JournalFiles>> {
        let others = self.journals()?;
        for (other, files) in &others {
            if let Some(head) = head_of(&**files)
                && let Some(why) = in_the_way(*other, &head, &begun, owner)
            {
                return Err(why);
            }
        }
        for files in others.values() {
            fs::remove_directory(&files.path(None))?;
        }
        let path = self.path.join(begun.id.to_string());
        fs::create_directory(&path)?;
        fs::sync_directory(&self.path)?;
        Ok(Arc::new(DirectoryFiles(path)))
    }
}

/// The directory, for whoever looks into it.
#[derive(Debug)]
pub struct UnlockedDirectory(pub PathBuf);

impl Storage for UnlockedDirectory {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    /// Also the one whose own directory it is.
    fn journals(&self) -> io::Result<BTreeMap<JournalId, Arc<dyn JournalFiles>>> {
        let mut journals = journals(&self.0)?;
        let own = DirectoryFiles(self.0.clone());
        if let Some(head) = head_of(&own) {
            journals.insert(head.id, Arc::new(own));
        }
        Ok(journals)
    }

    fn begin(
        &self,
        _: Begun,
        _: &MachineName,
        _: &mut dyn FnMut(Asking),
    ) -> io::Result<Arc<dyn JournalFiles>> {
        let why = "it is open to be read";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }
}

/// The journals in a directory.
fn journals(directory: &Path) -> io::Result<BTreeMap<JournalId, Arc<dyn JournalFiles>>> {
    let names = fs::names(directory)?.into_iter();
    let journals = names.filter_map(|name| {
        let files = DirectoryFiles(directory.join(&name));
        Some((parse_id(&name)?, Arc::new(files) as Arc<dyn JournalFiles>))
    });
    Ok(journals.collect())
}

fn parse_id(name: &str) -> Option<JournalId> {
    let is_id = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_id.then(|| u128::from_str_radix(name, 16).ok());
    number.flatten().map(JournalId)
}

/// Makes a file for its owner alone, or opens it.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).create(true);
    options.open(path)
}

/// The directory of one journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFiles(pub PathBuf);

impl DirectoryFiles {
    /// What a snapshot is called before it is whole and durable.
    fn unfinished(&self, number: u64) -> PathBuf {
        let name = JournalFile::Snapshot(number);
        self.0.join(format!("{name}{UNFINISHED}"))
    }

    /// The files with this ending, by their numbers, with their bytes. Those that go meanwhile are not there; of
    /// segments, nor are those before them, as the oldest go first.
    fn numbered(&self, ending: &str, is_first_first: bool) -> io::Result<BTreeMap<u64, u64>> {
        let names = fs::names(&self.0)?;
        let named = names.iter().filter_map(|name| {
            let number = name.strip_suffix(ending)?.parse::<u64>().ok()?;
            Some((number, name))
        });
        let named: BTreeMap<u64, &String> = named.collect();
        let mut files = BTreeMap::new();
        for (number, name) in named {
            match fs::look_at(&self.0.join(name)) {
                Ok((_, bytes)) => {
                    files.insert(number, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if is_first_first {
                        files.clear();
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }
}

impl JournalFiles for DirectoryFiles {
    fn path(&self, file: Option<JournalFile>) -> PathBuf {
        match file {
            Some(file) => self.0.join(file.to_string()),
            None => self.0.clone(),
        }
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        fs::free_bytes(&self.0)
    }

    fn list(&self) -> io::Result<Listing> {
        // Snapshots first: a segment is there before its snapshot is.
        let snapshots = self.numbered(".snapshot", false)?;
        Ok(Listing {
            snapshots,
            segments: self.numbered(".segment", true)?,
            ..Listing::default()
        })
    }

    fn open(&self, file: JournalFile) -> io::Result<Box<dyn ReadFile>> {
        let file = File::open(&self.path(Some(file)))?;
        Ok(Box::new(OpenFile {
            length: file.length()?,
            file,
            at: 0,
        }))
    }

    fn begin_segment(
        &self,
        number: u64,
        bytes: &[u8],
        _: &mut dyn FnMut(Asking),
    ) -> io::Result<Box<dyn SegmentFile>> {
        let path = self.path(Some(JournalFile::Segment(number)));
        let file = create(&path)?;
        file.set_len(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        fs::sync_directory(&self.0)?;
        let written = bytes.len() as u64;
        Ok(Box::new(OpenSegment {
            path,
            file,
            written,
        }))
    }

    fn begin_snapshot(&self, number: u64) -> io::Result<Box<dyn SnapshotFile>> {
        let path = self.unfinished(number);
        let file = create(&path)?;
        file.set_len(0)?;
        Ok(Box::new(UnfinishedSnapshot {
            journal: self.clone(),
            number,
            file,
            written: 0,
        }))
    }

    fn cut(&self, segment: u64, good_bytes: u64) -> io::Result<()> {
        let path = self.path(Some(JournalFile::Segment(segment)));
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(good_bytes)?;
        file.sync_all()
    }

    fn may_be_torn(&self) -> bool {
        true
    }

    fn is_locked(&self) -> bool {
        true
    }

    fn hold(&self) -> io::Result<Box<dyn Hold>> {
        Ok(Box::new(OpenFilesStay))
    }

    fn remove(&self, files: &[JournalFile], newest: u64) -> io::Result<bool> {
        for file in files {
            fs::remove_file(&self.path(Some(*file)))?;
        }
        let ending = format!(".snapshot{UNFINISHED}");
        for name in fs::names(&self.0)? {
            let number = name.strip_suffix(&*ending).map(str::parse::<u64>);
            if matches!(number, Some(Ok(number)) if number < newest) {
                fs::remove_file(&self.0.join(name))?;
            }
        }
        fs::sync_directory(&self.0)?;
        Ok(true)
    }

    fn fence(&self, _: RunId) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is open is read to its end, whoever removes it.
struct OpenFilesStay;

impl Hold for OpenFilesStay {
    fn renew(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is read.
struct OpenFile {
    file: File,
    at: u64,
    /// Bytes that it had when it was opened.
    length: u64,
}

impl ReadFile for OpenFile {
    fn next_bytes(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let length = (self.length - self.at).min(READ_BYTES as u64);
            let mut bytes = vec![0; length as usize];
            match self.file.read_exact_at(&mut bytes, self.at) {
                Ok(()) => {
                    self.at += length;
                    return Ok(bytes);
                }
                // A start cut what was torn of it.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && self.file.length()? < self.length =>
                {
                    self.length = self.file.length()?.max(self.at);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A segment that is written.
struct OpenSegment {
    path: PathBuf,
    file: File,
    written: u64,
}

impl SegmentFile for OpenSegment {
    fn append(&mut self, bytes: &[u8], _: &mut dyn FnMut(Asking)) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.file.sync_data()?;
        self.written += bytes.len() as u64;
        is_there(&self.path)
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was removed while it is open takes bytes as before, and nobody will ever read them.
fn is_there(path: &Path) -> io::Result<()> {
    match fs::look_at(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = "somebody removed it";
            Err(io::Error::new(io::ErrorKind::NotFound, why))
        }
        other => other.map(|_| ()),
    }
}

/// A snapshot that is written.
struct UnfinishedSnapshot {
    journal: DirectoryFiles,
    number: u64,
    file: File,
    written: u64,
}

impl SnapshotFile for UnfinishedSnapshot {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn end(&mut self) -> io::Result<()> {
        let path = self.journal.path(Some(JournalFile::Snapshot(self.number)));
        fs::rename(&self.journal.unfinished(self.number), &path)?;
        fs::sync_directory(&self.journal.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::journal::{JournalHead, SegmentWriter};
    use replication::life_log::{LogMark, Place};
    use replication::message::LifeId;
    use replication::record::{InstructionCount, RecordNumber};
    use replication::succession::{Generation, LifeNumber};

    fn place() -> Place {
        Place {
            record: RecordNumber::BEFORE_ALL,
            count: InstructionCount::POWER_ON,
            mark: LogMark(0),
        }
    }

    /// Keeps the beginning of a journal of this life.
    fn keep(directory: &JournalDirectory, begun: Begun) {
        let owner = MachineName::new("shop").unwrap();
        let journal = directory.begin(begun, &owner, &mut |_| {}).unwrap();
        let head = JournalHead {
            id: begun.id,
            segment: 1,
            before: 0,
            machine: MachineName::new("shop").unwrap(),
            life: begun.life,
            life_id: begun.life_id,
            semantics_version: 8,
            configuration_hash: 1,
            place: place(),
            visible_outputs: 0,
            disk_layer: 0,
            times: None,
            builds_on: None,
        };
        let bytes = SegmentWriter::begin(&head).take_bytes();
        journal.begin_segment(1, &bytes, &mut |_| {}).unwrap();
    }

    fn begun(id: u128, life: u64, life_id: u128) -> Begun {
        Begun {
            id: JournalId(id),
            life: LifeNumber(life),
            life_id: LifeId(life_id),
            generation: Generation(1),
        }
    }

    fn journals(directory: &JournalDirectory) -> Vec<JournalId> {
        directory.journals().unwrap().into_keys().collect()
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
        let first = begun(1, 1, 7);
        keep(&directory, first);
        let foreign = begun(2, 1, 8);
        let error = directory
            .begin(foreign, &machine, &mut |_| {})
            .unwrap_err()
            .to_string();
        for word in ["another arbiter", "name another place"] {
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(journals(&directory), [first.id]);
        // Another one of this life, and one of the life after it.
        for begun in [begun(3, 1, 7), begun(4, 2, 9)] {
            keep(&directory, begun);
            assert_eq!(journals(&directory), [begun.id]);
        }
    }

    #[test]
    fn a_file_that_somebody_removed_keeps_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let files = DirectoryFiles(temporary.path().into());
        let mut segment = files.begin_segment(1, b"head", &mut |_| {}).unwrap();
        let mut told = |asking: Asking| panic!("{asking:?}");
        segment.append(b"records", &mut told).unwrap();
        std::fs::remove_file(files.path(Some(JournalFile::Segment(1)))).unwrap();
        let error = segment.append(b"more", &mut told).unwrap_err();
        assert!(error.to_string().contains("removed"), "{error}");
    }
}
