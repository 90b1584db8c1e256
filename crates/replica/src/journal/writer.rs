//! The thread that writes a journal.

use super::inspect::inspect_all;
use super::reading::ReadMeter;
use super::retention::RetentionThread;
use super::storage::{Asking, Begun, Hold, JournalFile, JournalFiles, SegmentFile, Storage};
use super::{Beginning, Inspected, Job, JournalNews, JournalOwner, Journals, News, snapshot};
use crate::packing::Packer;
use crate::vcpu::DiskRead;
use environment::mpsc::{Receiver, Sender};
use replication::journal::{JournalHead, SegmentWriter, StoredRead};
use replication::life_log::Place;
use replication::primary::StoredRecords;
use replication::succession::JournalId;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Jobs that are taken together, at most: a sync for so many outputs is cheap enough.
const MOST_JOBS: usize = 4096;

/// A segment that is being written.
struct OpenSegment {
    id: JournalId,
    number: u64,
    files: Arc<dyn JournalFiles>,
    file: Box<dyn SegmentFile>,
    writer: SegmentWriter,
}

/// What the thread works with.
pub(super) struct Writer {
    storage: Box<dyn Storage>,
    owner: JournalOwner,
    retention: RetentionThread,
    /// The journal that is about to be gone on from: nothing of it goes.
    held: Option<Box<dyn Hold>>,
    /// Journals to which nobody else adds anything any more.
    fenced: BTreeSet<JournalId>,
    news: News,
    open: Option<OpenSegment>,
    /// What is to be stored next, together.
    waiting: Vec<StoredRecords>,
    /// What disks read that records tell of which may be still to come.
    waiting_reads: Vec<DiskRead>,
    packer: Packer,
    meter: ReadMeter,
}

impl Writer {
    pub(super) fn new(
        storage: Box<dyn Storage>,
        owner: JournalOwner,
        retention: RetentionThread,
        news: News,
        packer: Packer,
        meter: ReadMeter,
    ) -> Writer {
        Writer {
            storage,
            owner,
            retention,
            held: None,
            fenced: BTreeSet::new(),
            news,
            open: None,
            waiting: Vec::new(),
            waiting_reads: Vec::new(),
            packer,
            meter,
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
                self.held = None;
                self.inspect(inspected, Ok(()));
            }
            Job::Fence(id) => {
                let fenced = self.fence(id);
                self.inspect(inspected, fenced);
            }
            Job::Begin(beginning) => self.begin(*beginning),
            Job::GoOn(inspected, place, visible_outputs) => {
                self.go_on(&inspected, place, visible_outputs);
            }
            Job::End(id) => {
                if self.open.take_if(|open| open.id == id).is_some() {
                    self.waiting_reads.clear();
                }
            }
            Job::Trim(id, segment) => {
                if let Some(open) = self.open.as_ref().filter(|open| open.id == id) {
                    self.retention.trim(id, open.files.clone(), segment);
                }
            }
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

    fn fence(&mut self, id: JournalId) -> io::Result<()> {
        if let Some(files) = self.storage.journals()?.get(&id) {
            self.held = Some(files.hold()?);
            files.fence(self.owner.run)?;
            self.fenced.insert(id);
        }
        Ok(())
    }

    fn inspect(&self, inspected: &Sender<Result<Journals, String>>, before: io::Result<()>) {
        let (storage, owner) = (&*self.storage, &self.owner);
        let read = before.and_then(|()| inspect_all(storage, owner, &self.fenced, &self.meter));
        let read =
            read.map_err(|error| format!("{} cannot be read: {error}", self.storage.place()));
        // A replica that has ended wants to know nothing.
        let _sent = inspected.send(read);
        self.news.waker.wake();
    }

    fn begin(&mut self, beginning: Beginning) {
        let Beginning {
            start,
            begun,
            builds_on,
            may_count,
        } = beginning;
        let id = start.id;
        self.held = None;
        // One that is being kept goes on in another segment.
        let kept = self.open.take().filter(|open| open.id == id);
        let path = kept
            .as_ref()
            .map_or_else(|| self.storage.place().into(), |open| open.files.path(None));
        let before = kept
            .as_ref()
            .map(|open| (open.number, open.writer.digest()));
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
            builds_on,
        };
        let of = Begun {
            id,
            life: start.life,
            life_id: start.life_id,
            generation: start.generation,
        };
        let mut told = self.news.of_asking(id);
        let begin = || -> io::Result<OpenSegment> {
            let files = match kept {
                Some(mut open) => {
                    open.file.end()?;
                    open.files
                }
                None => self.storage.begin(of, &self.owner.machine, &mut told)?,
            };
            let of_segment = JournalHead {
                builds_on: None,
                ..head.clone()
            };
            let open = open_segment(files.clone(), &of_segment, &mut told)?;
            snapshot::start(files, head, begun, may_count, self.news.clone())?;
            Ok(open)
        };
        match begin() {
            Ok(open) => self.open = Some(open),
            Err(error) => self.failed(id, &path, &error),
        }
    }

    fn go_on(&mut self, inspected: &Inspected, place: Place, visible_outputs: u64) {
        let id = inspected.head.id;
        self.held = None;
        let mut told = self.news.of_asking(id);
        match next_segment(inspected, place, visible_outputs, &mut told) {
            Ok(open) => self.open = Some(open),
            Err(error) => self.failed(id, &inspected.files.path(None), &error),
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
        let (id, news) = (open.id, &self.news);
        let mut told = news.of_asking(id);
        match open.file.append(&bytes, &mut told) {
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
            let file = JournalFile::Segment(open.number);
            let (id, path) = (open.id, open.files.path(Some(file)));
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

/// Begins a segment: it is there, durably, before anything is stored in it.
fn open_segment(
    files: Arc<dyn JournalFiles>,
    head: &JournalHead,
    told: &mut dyn FnMut(Asking),
) -> io::Result<OpenSegment> {
    let mut writer = SegmentWriter::begin(head);
    Ok(OpenSegment {
        id: head.id,
        number: head.segment,
        file: files.begin_segment(head.segment, &writer.take_bytes(), told)?,
        files,
        writer,
    })
}

/// The segment after the last one of a journal, which is cut to what is good of it first.
fn next_segment(
    inspected: &Inspected,
    place: Place,
    visible_outputs: u64,
    told: &mut dyn FnMut(Asking),
) -> io::Result<OpenSegment> {
    let files = &inspected.files;
    files.cut(inspected.last_segment(), inspected.tail.good_bytes)?;
    let head = JournalHead {
        segment: inspected.next_segment,
        before: inspected.tail.digest,
        place,
        visible_outputs,
        times: None,
        builds_on: None,
        ..inspected.head.clone()
    };
    open_segment(files.clone(), &head, told)
}
