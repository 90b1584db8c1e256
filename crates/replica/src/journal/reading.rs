//! How much of a journal was read, for people who wait for it.

use super::storage::{
    Asking, Hold, JournalFile, JournalFiles, Listing, ReadFile, SegmentFile, SnapshotFile,
};
use replication::succession::RunId;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what one thread reads; others look at it meanwhile.
#[derive(Clone, Debug, Default)]
pub struct ReadMeter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    read_bytes: AtomicU64,
    /// What there is to be read at most, as far as known.
    most_bytes: AtomicU64,
    /// Why nothing comes, while that is so.
    trouble: Mutex<Option<String>>,
}

impl ReadMeter {
    /// Reading begins anew, and there is nothing to be read so far.
    pub fn begin(&self) {
        self.0.read_bytes.store(0, Ordering::Relaxed);
        self.0.most_bytes.store(0, Ordering::Relaxed);
        self.answers();
    }

    /// Nothing comes, and why; it is asked for again.
    pub fn waits(&self, why: String) {
        *self.lock_trouble() = Some(why);
    }

    fn answers(&self) {
        *self.lock_trouble() = None;
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Option<String>> {
        let trouble = &self.0.trouble;
        trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing comes, while that is so.
    pub fn trouble(&self) -> Option<String> {
        self.lock_trouble().clone()
    }

    /// So much more is there to be read, at most.
    pub fn expect(&self, bytes: u64) {
        self.0.most_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much more was read.
    pub fn add(&self, bytes: u64) {
        self.0.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.answers();
    }

    /// Bytes that were read since it began.
    pub fn read_bytes(&self) -> u64 {
        self.0.read_bytes.load(Ordering::Relaxed)
    }
}

/// As it ends a sentence about what is read.
impl fmt::Display for ReadMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let most_bytes = self.0.most_bytes.load(Ordering::Relaxed);
        write!(f, "{:.1} MiB", mib(self.read_bytes()))?;
        // A file that was looked into before it was read is counted twice.
        match most_bytes > self.read_bytes() {
            true => write!(f, " of at most {:.1}", mib(most_bytes))?,
            false => write!(f, " so far")?,
        }
        match self.trouble() {
            Some(why) => write!(f, "; nothing comes ({why}), and it is asked for again"),
            None => Ok(()),
        }
    }
}

/// The same files, of which a meter sees what is read.
#[derive(Debug)]
pub(super) struct MeteredFiles {
    files: Arc<dyn JournalFiles>,
    meter: ReadMeter,
}

impl MeteredFiles {
    pub(super) fn of(files: Arc<dyn JournalFiles>, meter: &ReadMeter) -> Arc<dyn JournalFiles> {
        let meter = meter.clone();
        Arc::new(MeteredFiles { files, meter })
    }
}

impl JournalFiles for MeteredFiles {
    fn path(&self, file: Option<JournalFile>) -> PathBuf {
        self.files.path(file)
    }

    fn list(&self) -> io::Result<Listing> {
        self.files.list()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.files.free_bytes()
    }

    fn open(&self, file: JournalFile) -> io::Result<Box<dyn ReadFile>> {
        let mut file = self.files.open(file)?;
        Ok(Box::new(MeteredFile {
            counts_itself: file.is_counted_by(&self.meter),
            file,
            meter: self.meter.clone(),
        }))
    }

    fn begin_segment(
        &self,
        number: u64,
        bytes: &[u8],
        told: &mut dyn FnMut(Asking),
    ) -> io::Result<Box<dyn SegmentFile>> {
        self.files.begin_segment(number, bytes, told)
    }

    fn begin_snapshot(&self, number: u64) -> io::Result<Box<dyn SnapshotFile>> {
        self.files.begin_snapshot(number)
    }

    fn cut(&self, segment: u64, good_bytes: u64) -> io::Result<()> {
        self.files.cut(segment, good_bytes)
    }

    fn may_be_torn(&self) -> bool {
        self.files.may_be_torn()
    }

    fn is_locked(&self) -> bool {
        self.files.is_locked()
    }

    fn hold(&self) -> io::Result<Box<dyn Hold>> {
        self.files.hold()
    }

    fn remove(&self, files: &[JournalFile], newest: u64) -> io::Result<bool> {
        self.files.remove(files, newest)
    }

    fn fence(&self, run: RunId) -> io::Result<()> {
        self.files.fence(run)
    }
}

struct MeteredFile {
    file: Box<dyn ReadFile>,
    counts_itself: bool,
    meter: ReadMeter,
}

impl ReadFile for MeteredFile {
    fn next_bytes(&mut self) -> io::Result<Vec<u8>> {
        let bytes = self.file.next_bytes()?;
        if !self.counts_itself {
            self.meter.add(bytes.len() as u64);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::storage::DirectoryFiles;
    use super::*;

    #[test]
    fn what_was_read_is_told_with_what_is_to_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = DirectoryFiles(directory.path().to_owned());
        files.begin_segment(1, &[7; 3 << 20], &mut |_| {}).unwrap();
        let meter = ReadMeter::default();
        let metered = MeteredFiles::of(Arc::new(files), &meter);
        meter.begin();
        meter.expect(4 << 20);
        assert_eq!(meter.to_string(), "0.0 MiB of at most 4.0");
        let mut file = metered.open(JournalFile::Segment(1)).unwrap();
        while !file.next_bytes().unwrap().is_empty() {}
        assert_eq!(meter.to_string(), "3.0 MiB of at most 4.0");
        let mut again = metered.open(JournalFile::Segment(1)).unwrap();
        while !again.next_bytes().unwrap().is_empty() {}
        assert_eq!(meter.to_string(), "6.0 MiB so far");
        meter.begin();
        assert_eq!(meter.to_string(), "0.0 MiB so far");
    }
}
