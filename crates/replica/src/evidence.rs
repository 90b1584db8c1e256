//! What is kept of a machine that differed or failed: in directories of the state directory, for the
//! owner's eyes only, and never more than a few of them.

use crate::host_time;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, Sender};
use machine::snapshot::Snapshot;
use replication::log::{LogHeader, LogSummary, LogWriter};
use replication::message::DivergenceReport;
use replication::record::{Record, RecordBody};
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of records that are remembered.
const LIMIT_BYTES: usize = 32 << 20;
/// Digest records that are remembered: the difference arose after the last but one at the latest.
const DIGESTS: usize = 3;
/// Directories that are kept; the oldest goes when there is one more.
pub const KEPT_DIRECTORIES: usize = 4;
/// A cause that lasts makes one snapshot in this time, in nanoseconds: they are as large as the
/// machine's memory.
pub const SNAPSHOT_INTERVAL_NS: u64 = 600 * 1_000_000_000;
/// What was computed otherwise than by the primary.
const DIVERGENCE: &str = "divergence";
/// A machine that could not go on.
const FAILURE: &str = "failure";
const SNAPSHOT_FILE: &str = "machine.snapshot";
/// Says that there is one in an earlier directory.
const NO_SNAPSHOT_FILE: &str = "no-snapshot.txt";

/// The newest records of a pairing, back to a digest that was still equal.
#[derive(Clone, Debug, Default)]
pub struct RecentRecords {
    records: VecDeque<Record>,
    bytes: usize,
    digests: usize,
}

impl RecentRecords {
    /// Adds records, and forgets those that no longer matter.
    pub fn add(&mut self, records: &[Record]) {
        for record in records {
            self.bytes += record.encoded_size_bound();
            self.digests += usize::from(is_digest(record));
            self.records.push_back(record.clone());
        }
        while self.digests > DIGESTS || self.bytes > LIMIT_BYTES {
            let Some(record) = self.records.pop_front() else {
                return;
            };
            self.bytes -= record.encoded_size_bound();
            self.digests -= usize::from(is_digest(&record));
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = RecentRecords::default();
    }
}

fn is_digest(record: &Record) -> bool {
    matches!(record.body, RecordBody::Digest(_))
}

/// What is known of a divergence.
pub struct Divergence {
    /// The pairing in which it was seen.
    pub generation: u64,
    /// Where and how.
    pub report: DivergenceReport,
    /// The machine as it was found, as soon as it is copied.
    pub found: Option<Receiver<Box<Snapshot>>>,
    /// What led there.
    pub recent: RecentRecords,
    /// For the log of the records.
    pub header: LogHeader,
}

/// Where evidence goes.
#[derive(Clone, Debug)]
pub struct EvidenceStore {
    state_directory: PathBuf,
}

impl EvidenceStore {
    /// Keeps evidence in this state directory, which exists.
    pub fn new(state_directory: &Path) -> EvidenceStore {
        EvidenceStore {
            state_directory: state_directory.into(),
        }
    }

    /// Writes what is known of a divergence: the report, the machine as it was found, and the records
    /// that led there.
    ///
    /// # Errors
    /// Whatever keeps a file from being written; what was written before stays.
    pub fn keep_divergence(&self, divergence: &Divergence) -> io::Result<PathBuf> {
        let Divergence {
            report,
            found,
            recent,
            header,
            ..
        } = divergence;
        let place = self.place(DIVERGENCE)?;
        let text = format!(
            "record {} at instruction {}: {}\n",
            report.record, report.count, report.what
        );
        place.write("report.txt", text.as_bytes())?;
        let mut log = LogWriter::new(header);
        for record in &recent.records {
            log.record(record.clone());
        }
        log.end(&LogSummary {
            final_count: recent
                .records
                .back()
                .map(|record| record.count)
                .unwrap_or_default(),
            visible_outputs: 0,
            records: 0,
            digest: 0,
            reason: "the newest records before a divergence".into(),
        });
        place.write("records.log", &log.take_bytes())?;
        // A thread that ended before it was copied has dropped its end.
        let snapshot = found.as_ref().and_then(|found| found.recv().ok());
        place.write_snapshot(snapshot.as_deref())?;
        Ok(place.directory)
    }

    /// Writes what is known of a machine that failed.
    ///
    /// # Errors
    /// As [`EvidenceStore::keep_divergence`].
    pub fn keep_failure(&self, report: &str, snapshot: Option<&Snapshot>) -> io::Result<PathBuf> {
        let place = self.place(FAILURE)?;
        place.write("report.txt", report.as_bytes())?;
        place.write_snapshot(snapshot)?;
        Ok(place.directory)
    }

    /// Makes a directory, and room for it.
    fn place(&self, kind: &str) -> io::Result<Place> {
        let now_ns = host_time::unix_ns();
        let mut kept = self.kept()?;
        kept.sort_unstable();
        let newest_snapshot_ns = kept
            .iter()
            .filter(|(_, path)| path.join(SNAPSHOT_FILE).exists())
            .map(|(at_ns, _)| *at_ns)
            .max();
        let surplus = (kept.len() + 1).saturating_sub(KEPT_DIRECTORIES);
        for (_, oldest) in &kept[..surplus] {
            fs::remove_dir_all(oldest)?;
        }
        let directory = self.state_directory.join(format!("{kind}-{now_ns}"));
        DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Place {
            directory,
            takes_snapshot: newest_snapshot_ns
                .is_none_or(|at_ns| now_ns.saturating_sub(at_ns) >= SNAPSHOT_INTERVAL_NS),
        })
    }

    /// The directories of evidence that are there, with their times.
    fn kept(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.state_directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let at_ns = name.to_str().and_then(|name| {
                let (kind, at_ns) = name.rsplit_once('-')?;
                let is_evidence = [DIVERGENCE, FAILURE].contains(&kind);
                at_ns.parse::<u64>().ok().filter(|_| is_evidence)
            });
            // Whatever else bears such a name, a link for example, is not ours to remove.
            if let Some(at_ns) = at_ns
                && entry.file_type()?.is_dir()
            {
                kept.push((at_ns, entry.path()));
            }
        }
        Ok(kept)
    }
}

/// A directory of evidence that is being written.
struct Place {
    directory: PathBuf,
    takes_snapshot: bool,
}

impl Place {
    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.directory.join(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.create(name)?.write_all(bytes)
    }

    fn write_snapshot(&self, snapshot: Option<&Snapshot>) -> io::Result<()> {
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        if !self.takes_snapshot {
            return self.write(
                NO_SNAPSHOT_FILE,
                b"an earlier directory has a snapshot of the last minutes\n",
            );
        }
        let mut writer = BufWriter::new(self.create(SNAPSHOT_FILE)?);
        snapshot.write_to(&mut writer)?;
        writer.flush()
    }
}

/// Evidence that was kept, or why it could not be.
#[derive(Debug)]
pub struct Kept {
    /// The pairing.
    pub generation: u64,
    /// The machine's instruction count.
    pub count: u64,
    /// Where it is.
    pub directory: io::Result<PathBuf>,
}

/// Keeps evidence on threads, because snapshots are large and an event loop waits for nothing.
pub struct EvidenceDesk {
    store: EvidenceStore,
    waker: Waker,
    kept: Receiver<Kept>,
    sender: Sender<Kept>,
    under_way: u32,
}

impl EvidenceDesk {
    /// A desk that wakes the event loop when something was kept.
    pub fn new(store: EvidenceStore, waker: Waker) -> EvidenceDesk {
        let (sender, kept) = mpsc::channel();
        EvidenceDesk {
            store,
            waker,
            kept,
            sender,
            under_way: 0,
        }
    }

    /// Begins to keep evidence.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn keep(&mut self, divergence: Divergence) -> io::Result<()> {
        let (store, sender, waker) = (self.store.clone(), self.sender.clone(), self.waker.clone());
        environment::thread::Builder::new()
            .name("evidence".into())
            .spawn(move || {
                let kept = Kept {
                    generation: divergence.generation,
                    count: divergence.report.count.0,
                    directory: store.keep_divergence(&divergence),
                };
                // A replica that has ended has waited as long as it wanted to.
                let _sent = sender.send(kept);
                waker.wake();
            })?;
        self.under_way += 1;
        Ok(())
    }

    /// The next that was kept, if there is one; waits for what is under way for at most `patience`.
    pub fn kept(&mut self, patience: Duration) -> Option<Kept> {
        if self.under_way == 0 {
            return None;
        }
        let kept = self.kept.recv_timeout(patience).ok()?;
        self.under_way -= 1;
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::memory::{PAGE_SIZE, Ram, Region};
    use machine::snapshot::SnapshotHead;
    use replication::record::InstructionCount;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn records_are_remembered_back_to_the_third_last_digest() {
        let mut recent = RecentRecords::default();
        for count in 0..100 {
            let body = if count % 10 == 0 {
                RecordBody::Digest(count.into())
            } else {
                RecordBody::Input(vec![0; 100])
            };
            let count = InstructionCount(count);
            recent.add(&[Record { count, body }]);
        }
        assert_eq!(
            recent.records.front().map(|record| record.count),
            Some(InstructionCount(61))
        );
        assert_eq!(
            recent
                .records
                .iter()
                .filter(|record| is_digest(record))
                .count(),
            DIGESTS
        );
    }

    #[test]
    fn a_cause_that_lasts_does_not_fill_the_state_directory_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), b"data").unwrap();
        let link = directory.path().join("failure-1");
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let store = EvidenceStore::new(directory.path());
        let mut last = None;
        for attempt in 0..20 {
            last = Some(store.keep_failure(&format!("attempt {attempt}\n"), None));
        }
        let last = last.unwrap().unwrap();
        let report = last.join("report.txt");
        assert_eq!(fs::read(&report).unwrap(), b"attempt 19\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&last), mode(&report)), (0o700, 0o600));
        assert_eq!(store.kept().unwrap().len(), KEPT_DIRECTORIES);
        assert!(link.join("precious").exists());
    }

    #[test]
    fn one_snapshot_is_enough_for_some_minutes() {
        let directory = tempfile::tempdir().unwrap();
        let store = EvidenceStore::new(directory.path());
        let old = host_time::unix_ns() - SNAPSHOT_INTERVAL_NS;
        for (at_ns, takes_snapshot) in [(old, true), (old + SNAPSHOT_INTERVAL_NS / 2, false)] {
            let path = directory.path().join(format!("divergence-{at_ns}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(SNAPSHOT_FILE), b"a machine").unwrap();
            assert_eq!(store.place(FAILURE).unwrap().takes_snapshot, takes_snapshot);
        }
    }

    /// Finding 5: a lasting cause wrote 19 snapshots in 20 s, each as large as the machine's memory.
    #[test]
    fn the_second_evidence_within_ten_minutes_names_the_snapshot_before_and_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let store = EvidenceStore::new(directory.path());
        let ram = Ram::new(&[Region {
            base: 0,
            length: PAGE_SIZE,
        }]);
        let snapshot = Snapshot::new(SnapshotHead::new("test", 1, vec![]), &ram);
        let first = store.keep_failure("first\n", Some(&snapshot)).unwrap();
        let second = store.keep_failure("second\n", Some(&snapshot)).unwrap();
        let has = |path: &Path, name: &str| path.join(name).exists();
        assert!(has(&first, SNAPSHOT_FILE) && !has(&first, NO_SNAPSHOT_FILE));
        assert!(!has(&second, SNAPSHOT_FILE) && has(&second, NO_SNAPSHOT_FILE));
        assert_eq!(fs::read(second.join("report.txt")).unwrap(), b"second\n");
    }
}
