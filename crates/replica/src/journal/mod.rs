//! The journal of this host: a directory with a snapshot of the machine and all records after it.
//!
//! A thread of its own writes it. What came while it synced is written and synced together the next
//! time: many outputs share one sync.

mod directory;
pub mod history;
mod inspect;
mod recover;
mod retention;
mod snapshot;
mod snapshot_bytes;
mod writer;

pub use directory::{JournalDirectory, JournalDirectoryError};
pub use inspect::Inspected;
pub use recover::{DiskPlace, Recovered, Recovering};

use crate::config::Retention;
use crate::journal::inspect::inspect_all;
use crate::machines::Machines;
use crate::packing::Packer;
use crate::vcpu::{BegunSnapshot, DiskRead};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, Sender};
use replication::life_log::Place;
use replication::primary::{JournalStart, StoredRecords};
use replication::startup::{FoundJournal, JournalWorth};
use replication::succession::{JournalId, MachineName};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use writer::Writer;

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
}

/// What the thread is told.
enum Job {
    /// Read what is there.
    Inspect,
    /// Begin a journal with this snapshot.
    Begin(JournalStart, Box<BegunSnapshot>),
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
    /// The snapshot with which this segment begins is whole and durable.
    HasSnapshot(JournalId, u64),
    /// Everything up to this record is.
    Durable(JournalId, u64),
    /// It cannot be kept any further.
    Failed(JournalId, String),
    /// What was too old has gone; this is left of what no machine needs to go on.
    Trimmed(JournalId, KeptHistory),
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

/// The directory, and the thread that reads and writes it.
pub struct JournalDesk {
    jobs: Sender<Job>,
    news: Receiver<JournalNews>,
    inspected: Receiver<Result<Journals, String>>,
    /// What was found last.
    journals: Journals,
    /// Where, for people.
    directory: String,
    kept: KeptHistory,
}

impl JournalDesk {
    /// Starts the thread, which ends when this is dropped. `keep`: what is kept of what no machine needs to go on.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(
        directory: JournalDirectory,
        owner: JournalOwner,
        keep: Retention,
        waker: Waker,
    ) -> io::Result<JournalDesk> {
        // Told to whoever looks for it, wherever that one is.
        let place = std::path::absolute(directory.path());
        let place = place.unwrap_or_else(|_| directory.path().into());
        let place = place.display().to_string();
        let (jobs, received) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        let (found, inspected) = mpsc::channel();
        let packer = Packer::new()?;
        environment::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let news = News { tell, waker };
                let mut writer = Writer::new(directory, owner, keep, news, packer);
                writer.serve(&received, &found);
            })?;
        Ok(JournalDesk {
            jobs,
            news,
            inspected,
            journals: BTreeMap::new(),
            directory: place,
            kept: KeptHistory::default(),
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
                let directory = self.directory.clone();
                Some(JournalWorth::Read { directory, found })
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
        let recovering = Recovering::start(inspected.clone(), machines, disks, waker)?;
        Ok((inspected, recovering))
    }

    /// The machine went on from this journal, whose records end at `place`: they go on there.
    pub fn go_on(&self, inspected: Inspected, place: Place, visible_outputs: u64) {
        self.job(Job::GoOn(Box::new(inspected), place, visible_outputs));
    }

    /// Begins a journal, or a segment of the one that is being kept.
    pub fn begin(&self, start: JournalStart, begun: Box<BegunSnapshot>) {
        self.job(Job::Begin(start, begun));
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

    /// Where it is, for people.
    pub fn directory(&self) -> &str {
        &self.directory
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
    fn tell(&self, news: JournalNews) {
        // A replica that has ended wants to know nothing.
        let _sent = self.tell.send(news);
        self.waker.wake();
    }
}

fn look(directory: &JournalDirectory, owner: &JournalOwner) -> Result<Journals, String> {
    inspect_all(directory, owner).map_err(|error| error.to_string())
}
