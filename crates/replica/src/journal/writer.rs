//! The thread that writes a journal.

use super::directory::{JournalDirectory, create, segment_path};
use super::retention::Kept;
use super::{Inspected, Job, JournalNews, JournalOwner, Journals, News, look, snapshot};
use crate::config::Retention;
use crate::host_time::unix_ns;
use crate::packing::Packer;
use crate::vcpu::{BegunSnapshot, DiskRead};
use environment::fs::{self, File, OpenOptions, sync_directory};
use environment::mpsc::{Receiver, Sender};
use replication::journal::{JournalHead, SegmentWriter, StoredRead};
use replication::life_log::Place;
use replication::primary::{JournalStart, StoredRecords};
use replication::succession::JournalId;
use std::io;
use std::path::{Path, PathBuf};

/// Jobs that are taken together, at most: a sync for so many outputs is cheap enough.
const MOST_JOBS: usize = 4096;

/// A segment that is being written.
struct OpenSegment {
    id: JournalId,
    number: u64,
    path: PathBuf,
    file: File,
    writer: SegmentWriter,
}

/// What the thread works with.
pub(super) struct Writer {
    directory: JournalDirectory,
    owner: JournalOwner,
    retention: Retention,
    kept: Kept,
    news: News,
    open: Option<OpenSegment>,
    /// What is to be stored next, together.
    waiting: Vec<StoredRecords>,
    /// What disks read that records tell of which may be still to come.
    waiting_reads: Vec<DiskRead>,
    packer: Packer,
}

impl Writer {
    pub(super) fn new(
        directory: JournalDirectory,
        owner: JournalOwner,
        retention: Retention,
        news: News,
        packer: Packer,
    ) -> Writer {
        Writer {
            directory,
            owner,
            retention,
            kept: Kept::default(),
            news,
            open: None,
            waiting: Vec::new(),
            waiting_reads: Vec::new(),
            packer,
        }
    }

    /// Does what it is told, until nobody can tell it anything any more.
    pub(super) fn serve(
        &mut self,
        jobs: &Receiver<Job>,
        inspected: &Sender<Result<Journals, String>>,
    ) {
        while let Ok(first) = jobs.recv() {
            self.job(first, inspected);
            // Whatever came while the last sync took its time is made durable by the next one.
            for _ in 1..MOST_JOBS {
                match jobs.try_recv() {
                    Ok(job) => self.job(job, inspected),
                    Err(_) => break,
                }
            }
            self.commit();
        }
    }

    fn job(&mut self, job: Job, inspected: &Sender<Result<Journals, String>>) {
        match job {
            Job::Store(id, batches) => {
                if self.is_open(id) {
                    self.waiting.extend(batches);
                }
                return;
            }
            Job::Read(id, read) => {
                if self.is_open(id) {
                    self.waiting_reads.push(read);
                }
                return;
            }
            _ => self.commit(),
        }
        match job {
            Job::Inspect => {
                // A replica that has ended wants to know nothing.
                let _sent = inspected.send(look(&self.directory, &self.owner));
                self.news.waker.wake();
            }
            Job::Begin(start, begun) => self.begin(start, begun),
            Job::GoOn(inspected, place, visible_outputs) => {
                self.go_on(&inspected, place, visible_outputs);
            }
            Job::End(id) => {
                if self.open.take_if(|open| open.id == id).is_some() {
                    self.waiting_reads.clear();
                }
            }
            Job::Trim(id, segment) => self.trim(id, segment),
            Job::Store(..) | Job::Read(..) => unreachable!("it was taken above"),
        }
    }

    fn is_open(&self, id: JournalId) -> bool {
        self.open.as_ref().is_some_and(|open| open.id == id)
    }

    fn failed(&mut self, id: JournalId, path: &Path, error: &io::Error) {
        self.open = None;
        self.waiting.clear();
        self.waiting_reads.clear();
        let why = format!("{}: {error}", path.display());
        self.news.tell(JournalNews::Failed(id, why));
    }

    fn begin(&mut self, start: JournalStart, begun: Box<BegunSnapshot>) {
        let id = start.id;
        let path = self.directory.of(id);
        // One that is being kept goes on in another segment.
        let kept = self.open.take().filter(|open| open.id == id);
        let before = kept.map(|open| (open.number, open.writer.digest()));
        let is_first = before.is_none();
        let (number, before) = before.unwrap_or_default();
        let head = JournalHead {
            id,
            segment: number + 1,
            before,
            machine: self.owner.machine.clone(),
            life: start.life,
            life_id: start.life_id,
            semantics_version: self.owner.semantics_version,
            configuration_hash: self.owner.configuration_hash,
            place: start.place,
            visible_outputs: start.visible_outputs,
            disk_layer: begun.freezing.as_ref().map_or(0, |disks| disks.id().0),
            times: Some(begun.times),
            builds_on: 0,
        };
        let begin = || -> io::Result<OpenSegment> {
            let journal = if is_first {
                self.directory.begin((id, head.life, head.life_id))?
            } else {
                path.clone()
            };
            let open = open_segment(&journal, &head)?;
            snapshot::start(&journal, head, begun, self.news.clone())?;
            Ok(open)
        };
        match begin() {
            Ok(open) => self.open = Some(open),
            Err(error) => self.failed(id, &path, &error),
        }
    }

    fn go_on(&mut self, inspected: &Inspected, place: Place, visible_outputs: u64) {
        let id = inspected.head.id;
        match next_segment(inspected, place, visible_outputs) {
            Ok(open) => self.open = Some(open),
            Err(error) => self.failed(id, &inspected.directory, &error),
        }
    }

    fn trim(&mut self, id: JournalId, segment: u64) {
        let journal = self.directory.of(id);
        let trimmed = self.kept.trim(&journal, segment, self.retention, unix_ns());
        match trimmed {
            Ok(kept) => self.news.tell(JournalNews::Trimmed(id, kept)),
            Err(error) => self.failed(id, &journal, &error),
        }
    }

    /// Writes what waits, makes it durable, and says so.
    fn commit(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let batches = std::mem::take(&mut self.waiting);
        let reads = match self.packed_reads() {
            Ok(reads) => reads,
            Err(error) => return self.commit_failed(&error),
        };
        let Some(open) = &mut self.open else {
            return;
        };
        open.writer.commit(&reads, &batches);
        let bytes = open.writer.take_bytes();
        let at = open.writer.bytes() - bytes.len() as u64;
        let written = open.file.write_all_at(&bytes, at);
        let durable = written.and_then(|()| open.file.sync_data());
        match durable.and_then(|()| is_there(&open.path)) {
            Ok(()) => {
                let news = JournalNews::Durable(open.id, open.writer.last());
                self.news.tell(news);
            }
            // What a failed sync has left on the disk nobody knows: nothing more is written there.
            Err(error) => self.commit_failed(&error),
        }
    }

    fn commit_failed(&mut self, error: &io::Error) {
        if let Some(open) = &self.open {
            let (id, path) = (open.id, open.path.clone());
            self.failed(id, &path, error);
        }
    }

    fn packed_reads(&mut self) -> io::Result<Vec<StoredRead>> {
        let pack = |read: DiskRead| {
            Ok(StoredRead {
                device: read.device,
                request: read.request,
                bytes: read.data.len() as u64,
                packed: self.packer.pack(&read.data)?,
            })
        };
        self.waiting_reads.drain(..).map(pack).collect()
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

/// Begins a segment: it is there, durably, before anything is stored in it.
fn open_segment(journal: &Path, head: &JournalHead) -> io::Result<OpenSegment> {
    let path = segment_path(journal, head.segment);
    let file = create(&path)?;
    file.set_len(0)?;
    let mut writer = SegmentWriter::begin(head);
    file.write_all_at(&writer.take_bytes(), 0)?;
    file.sync_all()?;
    sync_directory(journal)?;
    Ok(OpenSegment {
        id: head.id,
        number: head.segment,
        path,
        file,
        writer,
    })
}

/// The segment after the last one of a journal, which is cut to what is good of it first.
fn next_segment(
    inspected: &Inspected,
    place: Place,
    visible_outputs: u64,
) -> io::Result<OpenSegment> {
    let journal = &inspected.directory;
    let last = segment_path(journal, inspected.last_segment);
    let file = OpenOptions::new().write(true).open(&last)?;
    file.set_len(inspected.tail.good_bytes)?;
    file.sync_all()?;
    let head = JournalHead {
        segment: inspected.last_segment + 1,
        before: inspected.tail.digest,
        place,
        visible_outputs,
        times: None,
        builds_on: 0,
        ..inspected.head.clone()
    };
    open_segment(journal, &head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_removed_keeps_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("00000001.segment");
        std::fs::write(&path, "records").unwrap();
        is_there(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = is_there(&path).unwrap_err();
        assert!(error.to_string().contains("removed"), "{error}");
    }
}
