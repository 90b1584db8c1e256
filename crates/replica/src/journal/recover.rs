//! Makes a machine of a journal: its snapshot, with those on which it builds, and after that its records, on a thread of their own.

use super::chain::OpenChain;
use super::storage::{JournalFile, read_file};
use super::{Inspected, Loading};
use crate::config::DiskFile;
use crate::disk::overlay::LayerId;
use crate::disk::{BegunDisks, Disk};
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, SyncSender, TryRecvError};
use environment::thread::JoinHandle;
use machine::Machine;
use replication::journal::{JournalItem, SegmentReader};
use replication::mutation::{Mutation, Mutations};
use replication::record::Record;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Batches that were read and not taken.
const UNDER_WAY: usize = 4;

/// What comes of a journal, in order.
pub enum Recovered {
    /// The machine, where its snapshot was taken, its disks as they were then, and what all that was read of its
    /// snapshots took.
    Machine(Box<dyn Machine>, BegunDisks, Loading),
    /// The records after that, in pieces.
    Records(Vec<Record>),
    /// Those were all.
    End,
    /// It cannot be done, and why.
    Failed(String),
}

/// Where the machine's disks are.
pub struct DiskPlace {
    /// The disks.
    pub files: Vec<DiskFile>,
    /// Where that is which belongs to block devices.
    pub state_directory: PathBuf,
    /// The end of the machine before this one, which has them open until then.
    pub previous: Option<JoinHandle<()>>,
}

/// The thread as the event loop sees it.
pub struct Recovering {
    pieces: Receiver<Recovered>,
}

impl Recovering {
    /// Starts it.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(super) fn start(
        inspected: Inspected,
        machines: Arc<dyn Machines>,
        disks: DiskPlace,
        mutations: Mutations,
        waker: Waker,
    ) -> io::Result<Recovering> {
        let (sender, pieces) = mpsc::sync_channel(UNDER_WAY);
        environment::thread::Builder::new()
            .name("recover".into())
            .spawn(move || {
                let out = Out { sender, waker };
                let last = match recover(&inspected, &*machines, disks, mutations, &out) {
                    Ok(()) => Recovered::End,
                    Err(why) => Recovered::Failed(why),
                };
                out.give(last);
            })?;
        Ok(Recovering { pieces })
    }

    /// The next piece, if it is there.
    pub fn next(&self) -> Option<Recovered> {
        match self.pieces.try_recv() {
            Ok(piece) => Some(piece),
            Err(TryRecvError::Empty) => None,
            // After the last one, or a panic has ended the process.
            Err(TryRecvError::Disconnected) => None,
        }
    }
}

struct Out {
    sender: SyncSender<Recovered>,
    waker: Waker,
}

impl Out {
    /// Waits for room. False when nobody wants it any more.
    fn give(&self, piece: Recovered) -> bool {
        let is_wanted = self.sender.send(piece).is_ok();
        self.waker.wake();
        is_wanted
    }
}

fn recover(
    inspected: &Inspected,
    machines: &dyn Machines,
    place: DiskPlace,
    mutations: Mutations,
    out: &Out,
) -> Result<(), String> {
    let files = &*inspected.files;
    let snapshot = JournalFile::Snapshot(inspected.first_segment);
    let failed = |error: &dyn std::fmt::Display| {
        format!("{}: {error}", files.path(Some(snapshot)).display())
    };
    let began = monotonic();
    let chain = OpenChain::open(files, inspected.first_segment);
    let mut chain = chain.map_err(|error| error.to_string())?;
    if mutations.active(Mutation::IncrementPassedOver) {
        chain.without_middle();
    }
    let mut bytes = chain.into_bytes().map_err(|error| failed(&error))?;
    let machine = machines.restore(&mut bytes);
    let machine = machine.map_err(|error| failed(&error))?;
    let loading = Loading {
        took: inspected.loading.took + monotonic().saturating_sub(began),
        ..inspected.loading
    };
    let disks = open_disks(inspected, place)?;
    if !out.give(Recovered::Machine(machine, disks, loading)) {
        return Ok(());
    }
    for segment in &inspected.segments {
        let file = JournalFile::Segment(*segment);
        let is_last = *segment == inspected.last_segment();
        let length = is_last.then_some(inspected.tail.good_bytes);
        read_segment(inspected, file, length, out)
            .map_err(|error| format!("{}: {error}", files.path(Some(file)).display()))?;
    }
    Ok(())
}

/// Makes the disks what they were at the snapshot.
fn open_disks(inspected: &Inspected, place: DiskPlace) -> Result<BegunDisks, String> {
    let DiskPlace {
        files,
        state_directory,
        previous,
    } = place;
    if let Some(previous) = previous {
        // A panic has ended the process.
        let _joined = previous.join();
    }
    let id = LayerId(inspected.head.disk_layer);
    let opened = Disk::open_at_snapshot(&files, &state_directory, id);
    opened.map_err(|error| error.to_string())
}

fn read_segment(
    inspected: &Inspected,
    file: JournalFile,
    length: Option<u64>,
    out: &Out,
) -> io::Result<()> {
    let mut reader = SegmentReader::default();
    let mut read = Ok(());
    // Its end was looked at before.
    read_file(
        &*inspected.files,
        file,
        length.unwrap_or(u64::MAX),
        |bytes| {
            reader.push(bytes);
            loop {
                match reader.next_item() {
                    Ok(Some(JournalItem::Records(stored))) => {
                        if !out.give(Recovered::Records(stored.records)) {
                            return false;
                        }
                    }
                    // A machine that goes on reads its disks itself.
                    Ok(Some(JournalItem::Head(_) | JournalItem::Read(_))) => {}
                    Ok(None) => return true,
                    Err(error) => {
                        read = Err(io::Error::other(error));
                        return false;
                    }
                }
            }
        },
    )?;
    read
}
