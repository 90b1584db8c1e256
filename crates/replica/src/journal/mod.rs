//! The journal of this host: a snapshot of the machine and all records after it, in a directory or a bucket.
//!
//! A thread of its own writes it. What came while it made the last ones durable is written together the next time:
//! many outputs share one sync, or one put.

mod chain;
pub mod history;
mod inspect;
mod reading;
mod recover;
mod retention;
mod snapshot;
mod snapshot_bytes;
mod storage;
mod writer;

pub use inspect::Inspected;
pub use reading::ReadMeter;
pub use recover::{DiskPlace, Recovered, Recovering};
pub use storage::JournalDirectoryError;

use crate::config::{JournalPlace, Retention};
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::packing::Packer;
use crate::vcpu::{BegunSnapshot, DiskRead};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, Sender};
use replication::journal::BaseSnapshot;
use replication::life_log::Place;
use replication::mutation::Mutations;
use replication::primary::{JournalStart, StoredRecords};
use replication::record::RecordNumber;
use replication::startup::{FoundJournal, JournalWorth};
use replication::succession::{JournalId, MachineName, RunId};
use retention::RetentionThread;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::{Asking, BucketStorage, JournalDirectory, Storage};
use writer::Writer;

/// That something moves is told so often, at most.
const BETWEEN_MOVES: Duration = Duration::from_millis(500);

/// What machine it is of, as every file of a journal says.
#[derive(Clone, Debug)]
pub struct JournalOwner {
    /// Its name.
    pub machine: MachineName,
    /// What it computes.
    pub semantics_version: u32,
    /// What it is made of.
    pub configuration_hash: u64,
    /// What the overlays of its writable disks are named after.
    pub overlay_bases: Vec<PathBuf>,
    /// Who writes it.
    pub run: RunId,
}

/// What the thread is told.
enum Job {
    /// Read what is there.
    Inspect,
    /// Let nobody else add anything to this one, then read what is there.
    Fence(JournalId),
    /// Begin a journal, or a segment, with this snapshot, and that on which it builds.
    Begin(Box<Beginning>),
    /// Go on in the journal that the machine went on from, whose records end here.
    GoOn(Box<Inspected>, Place, u64),
    Store(JournalId, Vec<StoredRecords>),
    /// What a disk read, of which a record will tell.
    Read(JournalId, DiskRead),
    End(JournalId),
    /// What is before this segment is not needed any more.
    Trim(JournalId, u64),
}

/// What a journal has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalNews {
    /// This snapshot is whole and durable.
    HasSnapshot(JournalId, WrittenSnapshot),
    /// Everything up to this record is.
    Durable(JournalId, RecordNumber),
    /// It cannot be kept any further.
    Failed(JournalId, String),
    /// What is to be durable is not yet, and why; it is tried again.
    Waits(JournalId, String),
    /// What is to be durable gets on.
    Moves(JournalId),
    /// What is too old cannot be removed, and why.
    NotTrimmed(JournalId, String),
    /// What was too old has gone; this is left of what no machine needs to go on.
    Trimmed(JournalId, KeptHistory),
}

/// A journal, or a segment of one, that is begun with a snapshot.
struct Beginning {
    start: JournalStart,
    begun: Box<BegunSnapshot>,
    builds_on: Option<BaseSnapshot>,
    may_count: Receiver<()>,
}

/// A snapshot that is whole and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenSnapshot {
    /// As another one names it that builds on it.
    pub is: BaseSnapshot,
    /// Bytes of its file.
    pub bytes: u64,
}

/// What making a machine of snapshots took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loading {
    /// Bytes of their files.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// What is kept of a journal besides what a machine goes on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptHistory {
    /// Bytes of it.
    pub bytes: u64,
    /// The earliest moment that can be looked into, in nanoseconds since 1970, if it is known.
    pub since_unix_ns: Option<u64>,
}

/// The journals here, by their identity: what was read, or why it is of no use.
type Journals = BTreeMap<JournalId, Result<Inspected, String>>;

/// The place, and the thread that reads and writes there.
pub struct JournalDesk {
    jobs: Sender<Job>,
    news: Receiver<JournalNews>,
    inspected: Receiver<Result<Journals, String>>,
    /// What was found last.
    journals: Journals,
    /// Where, for people.
    place: String,
    kept: KeptHistory,
    /// Why the place does not answer, for which what is not durable yet waits.
    unanswered: Option<String>,
    /// What is being read of it.
    meter: ReadMeter,
    mutations: Mutations,
}

/// Takes the place for this process. A bucket is asked nothing yet: this is called on an event loop.
///
/// # Errors
/// The directory cannot be its own, or the bucket's configuration cannot be.
fn take(
    place: &JournalPlace,
    owner: &JournalOwner,
) -> Result<Box<dyn Storage>, JournalDirectoryError> {
    Ok(match place {
        JournalPlace::Directory(path) => Box::new(JournalDirectory::take(path, &owner.machine)?),
        JournalPlace::Bucket(bucket) => {
            let opened = BucketStorage::open(bucket, owner.run);
            Box::new(opened.map_err(JournalDirectoryError::Bucket)?)
        }
    })
}

impl JournalDesk {
    /// Takes the place, and starts the thread, which ends when this is dropped. `keep`: what is kept of what no machine
    /// needs to go on.
    ///
    /// # Errors
    /// The place cannot be the journal's.
    pub fn start(
        place: &JournalPlace,
        owner: JournalOwner,
        keep: Retention,
        mutations: Mutations,
        waker: Waker,
    ) -> Result<JournalDesk, JournalDirectoryError> {
        let storage = take(place, &owner)?;
        let place = storage.place();
        let (jobs, received) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let (found, inspected) = mpsc::channel();
        let packer = Packer::new().map_err(JournalDirectoryError::Host)?;
        let news = News { tell, waker };
        let retention = RetentionThread::start(keep, mutations, news.clone());
        let retention = retention.map_err(JournalDirectoryError::Host)?;
        let meter = ReadMeter::default();
        let of_thread = meter.clone();
        environment::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let mut writer = Writer::new(storage, owner, retention, news, packer, of_thread);
                writer.serve(&received, &found);
            })
            .map_err(JournalDirectoryError::Host)?;
        Ok(JournalDesk {
            jobs,
            news: told,
            inspected,
            journals: BTreeMap::new(),
            place,
            kept: KeptHistory::default(),
            unanswered: None,
            meter,
            mutations,
        })
    }

    fn job(&self, job: Job) {
        // The thread ends only with this object.
        let _sent = self.jobs.send(job);
    }

    /// Reads what is there.
    pub fn inspect(&self) {
        self.job(Job::Inspect);
    }

    /// Lets nobody else add anything to this one, and reads what is there.
    pub fn fence(&self, id: JournalId) {
        self.job(Job::Fence(id));
    }

    /// What came of reading it, once.
    pub fn inspected(&mut self) -> Option<JournalWorth> {
        match self.inspected.try_recv().ok()? {
            Ok(journals) => {
                self.journals = journals;
                let found = self.journals.iter().map(|(id, read)| {
                    let read = read.as_ref().map(Inspected::found).map_err(String::clone);
                    (*id, read)
                });
                let found: BTreeMap<JournalId, Result<FoundJournal, String>> = found.collect();
                let place = self.place.clone();
                Some(JournalWorth::Read { place, found })
            }
            Err(why) => Some(JournalWorth::Unusable(why)),
        }
    }

    /// Makes the machine from a journal that was found, and reads its records.
    ///
    /// # Errors
    /// It was not found, or the host gives no thread.
    pub fn recover(
        &mut self,
        id: JournalId,
        machines: Arc<dyn Machines>,
        disks: DiskPlace,
        waker: Waker,
    ) -> io::Result<(Inspected, Recovering)> {
        let found = self.journals.remove(&id).and_then(Result::ok);
        let inspected = found.ok_or_else(|| {
            let what = format!("journal {id} is not there any more");
            io::Error::new(io::ErrorKind::NotFound, what)
        })?;
        self.meter.begin();
        self.meter.expect(inspected.loading.bytes);
        let recovering =
            Recovering::start(inspected.clone(), machines, disks, self.mutations, waker)?;
        Ok((inspected, recovering))
    }

    /// The machine went on from this journal, whose records end at `place`: they go on there.
    pub fn go_on(&self, inspected: Inspected, place: Place, visible_outputs: u64) {
        self.job(Job::GoOn(Box::new(inspected), place, visible_outputs));
    }

    /// Begins a journal, or a segment of the one that is being kept. `builds_on`: its snapshot that is there, of which
    /// this one has what changed since. It is not found before `may_count` says so, and never if that ends before.
    pub fn begin(
        &self,
        start: JournalStart,
        begun: Box<BegunSnapshot>,
        builds_on: Option<BaseSnapshot>,
        may_count: Receiver<()>,
    ) {
        self.job(Job::Begin(Box::new(Beginning {
            start,
            begun,
            builds_on,
            may_count,
        })));
    }

    /// Stores records after those that were given before.
    pub fn store(&self, id: JournalId, batches: Vec<StoredRecords>) {
        self.job(Job::Store(id, batches));
    }

    /// Stores what a disk read beside the record that will tell of it.
    pub fn keep_read(&self, id: JournalId, read: DiskRead) {
        self.job(Job::Read(id, read));
    }

    /// Nobody wants it any more. What is there stays until another one is begun.
    pub fn end(&self, id: JournalId) {
        self.job(Job::End(id));
    }

    /// A machine can go on from the snapshot with which this segment begins: what is before it goes, as
    /// far as it is not to be kept.
    pub fn trim(&self, id: JournalId, segment: u64) {
        self.job(Job::Trim(id, segment));
    }

    /// How much was read of what is being read.
    pub fn meter(&self) -> &ReadMeter {
        &self.meter
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Why the place does not answer is noted, or that it does; true if it is news whether it does.
    pub fn is_unanswered(&mut self, why: Option<String>) -> bool {
        let before = std::mem::replace(&mut self.unanswered, why);
        before.is_some() != self.unanswered.is_some()
    }

    /// Why the place does not answer, as far as somebody waits for that.
    pub fn unanswered(&self) -> Option<&str> {
        self.unanswered.as_deref()
    }

    /// What is kept of what no machine needs to go on, as far as known.
    pub fn kept(&self) -> KeptHistory {
        self.kept
    }

    /// That is kept now.
    pub fn keeps(&mut self, kept: KeptHistory) {
        self.kept = kept;
    }

    /// What happened.
    pub fn news(&self) -> Option<JournalNews> {
        self.news.try_recv().ok()
    }
}

/// Tells the event loop.
#[derive(Clone)]
struct News {
    tell: Sender<JournalNews>,
    waker: Waker,
}

impl News {
    /// Tells what is asked of the place for this journal.
    fn of_asking(&self, id: JournalId) -> impl FnMut(Asking) + use<> {
        let (news, mut next) = (self.clone(), Duration::ZERO);
        move |asking| match asking {
            Asking::Waits(why) => news.tell(JournalNews::Waits(id, why)),
            Asking::Moves(_) if monotonic() >= next => {
                next = monotonic() + BETWEEN_MOVES;
                news.tell(JournalNews::Moves(id));
            }
            Asking::Moves(_) => {}
        }
    }

    fn tell(&self, news: JournalNews) {
        // A replica that has ended wants to know nothing.
        let _sent = self.tell.send(news);
        self.waker.wake();
    }
}
