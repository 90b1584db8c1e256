//! Makes a backup's machine and its disks of the pieces of a snapshot, which it fetches on a connection
//! of its own: the event loop has nothing to do with it.
//!
//! Nothing of it is kept twice: pages go into the machine's memory as they come, disks are written as
//! they come. Whoever is slower holds the other up by the connection.

mod pieces;

use super::progress::{CopyMeter, lock};
use crate::config::{DiskFile, Fencing, ReplicaConfig};
use crate::disk::shared::{SeenLock, lock_unseen, seen_lock};
use crate::disk::{Digesting, Disk, DiskError, SECTOR_BYTES};
use crate::evidence::EvidenceStore;
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::peer_addresses::PeerAddresses;
use crate::peer_stream::{BlockingPeer, Membership};
use crate::priority::yield_to_the_guest;
use crate::status::JoinProgress;
use crate::transport;
use crate::vcpu::{
    CommandChannel, InputEncoding, MOST_ROUNDS, Parts, ReplayingVcpu, ReplicaGuest, start_disks,
};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver};
use environment::net::{Shutdown, TcpStream};
use environment::thread::JoinHandle;
use machine::Machine;
use pieces::PieceStream;
use replication::config::Replication;
use replication::message::{Message, MessageWriter};
use replication::mutation::{Mutation, Mutations};
use replication::succession::RunId;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no machine was made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum RestoreError {
    /// Not with this configuration, or not of this snapshot.
    #[error("{0}")]
    Unusable(String),
    /// A disk of this host did not take what belongs on it.
    #[error("{0}")]
    Disk(String),
    /// A disk of this host is not to be overwritten, or cannot be used: nothing of it was written.
    #[error("{what}")]
    Unfit {
        /// Which, and why.
        what: String,
        /// How long the primary's disks are.
        lengths: Vec<u64>,
    },
    /// The pieces did not all come.
    #[error("the snapshot could not be fetched: {0}")]
    Lost(String),
}

impl From<String> for RestoreError {
    fn from(reason: String) -> RestoreError {
        RestoreError::Unusable(reason)
    }
}

/// What the thread works with.
pub(super) struct RestoreParts {
    pub(super) config: ReplicaConfig,
    pub(super) machines: Arc<dyn Machines>,
    pub(super) evidence: EvidenceStore,
    pub(super) waker: Waker,
    /// The end of the machine before this one, which has the disks open until then.
    pub(super) previous: Option<JoinHandle<()>>,
    /// Where the primary listens, for which pairing, and who asks.
    pub(super) primary: PeerAddresses,
    pub(super) membership: Membership,
    pub(super) pairing: u64,
    pub(super) run: RunId,
    pub(super) mutations: Mutations,
}

/// The thread as the event loop sees it.
pub(super) struct Restoring {
    made: Receiver<Result<ReplayingVcpu, RestoreError>>,
    thread: JoinHandle<()>,
    copied: Arc<Mutex<CopyMeter>>,
    connection: Arc<Mutex<Fetching>>,
}

/// The thread's connection, as whoever ends the thread needs it.
enum Fetching {
    NotConnected,
    Connected(TcpStream),
    Closed,
}

impl Restoring {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(super) fn start(parts: RestoreParts) -> io::Result<Restoring> {
        let (made_sender, made) = mpsc::channel();
        let copied = Arc::new(Mutex::new(CopyMeter::new(monotonic())));
        let connection = Arc::new(Mutex::new(Fetching::NotConnected));
        let (meter, fetching) = (copied.clone(), connection.clone());
        let thread = environment::thread::Builder::new()
            .name("restore".into())
            .spawn(move || {
                yield_to_the_guest();
                let waker = parts.waker.clone();
                // Nobody waits for a machine that was discarded meanwhile.
                let _sent = made_sender.send(restore(parts, meter, &fetching));
                waker.wake();
                // Not before: the primary takes its end for that of the join, and nobody would be told why.
                set(&fetching, Fetching::Closed);
            })?;
        Ok(Restoring {
            made,
            thread,
            copied,
            connection,
        })
    }

    /// What came of it, once.
    pub(super) fn made(&self) -> Option<Result<ReplayingVcpu, RestoreError>> {
        self.made.try_recv().ok()
    }

    /// How much of the snapshot was put in its place.
    pub(super) fn progress(&self) -> JoinProgress {
        lock(&self.copied).progress(monotonic())
    }

    /// Ends the thread and waits for it, wherever it is: its disks are closed then.
    pub(super) fn close(self) {
        set(&self.connection, Fetching::Closed);
        // A panic has ended the process.
        let _joined = self.thread.join();
        if let Ok(Ok(vcpu)) = self.made.try_recv() {
            vcpu.close();
        }
    }
}

/// Replaces the connection, and ends the one before.
fn set(connection: &Mutex<Fetching>, next: Fetching) {
    // One assignment: a panic elsewhere leaves nothing half done.
    let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*connection, Fetching::Closed) {
        if let Fetching::Connected(stream) = next {
            let _ended = stream.shutdown(Shutdown::Both);
        }
        return;
    }
    if let Fetching::Connected(stream) = std::mem::replace(&mut *connection, next) {
        // One that has ended needs no end.
        let _ended = stream.shutdown(Shutdown::Both);
    }
}

/// Connects to the primary and asks for the pieces.
fn fetch(
    parts: &RestoreParts,
    fetching: &Mutex<Fetching>,
) -> Result<(BlockingPeer, MessageWriter), RestoreError> {
    let lost = |error: &dyn std::fmt::Display| RestoreError::Lost(error.to_string());
    let (mut stream, _) =
        transport::connect_to_any(&parts.primary, CONNECT_TIMEOUT, &parts.membership)
            .map_err(|error| lost(&error))?;
    // The channel may go on by another link: nobody else would notice that nothing of this gets there.
    let timed = stream.set_user_timeout(transport::USER_TIMEOUT);
    timed.map_err(|error| lost(&error))?;
    let ours = stream.handle().map_err(|error| lost(&error))?;
    set(fetching, Fetching::Connected(ours));
    let (mut writer, mut bytes) = (MessageWriter::default(), Vec::new());
    let (pairing, run) = (parts.pairing, parts.run);
    writer.write(&mut bytes, &Message::Fetch { pairing, run });
    stream.write_all(&bytes).map_err(|error| lost(&error))?;
    Ok((stream, writer))
}

/// No machine's snapshot is longer, whatever the peer sends: RAM as often as there are rounds, and as much
/// again.
fn snapshot_limit(config: &ReplicaConfig) -> u64 {
    config.memory_bytes * (MOST_ROUNDS + 1) + (128 << 20)
}

fn restore(
    mut parts: RestoreParts,
    copied: Arc<Mutex<CopyMeter>>,
    fetching: &Mutex<Fetching>,
) -> Result<ReplayingVcpu, RestoreError> {
    if let Some(previous) = parts.previous.take() {
        // A panic has ended the process.
        let _joined = previous.join();
    }
    let (stream, writer) = fetch(&parts, fetching)?;
    let mut pieces = PieceStream::new(stream, writer, &parts, copied);
    let made = make(&parts, &mut pieces);
    let made = match pieces.failed.take() {
        Some(why) => return Err(why),
        None => made?,
    };
    start(made, parts).map_err(|error| format!("its thread cannot be started: {error}").into())
}

/// A machine, and its disks.
struct Made {
    machine: Box<dyn Machine>,
    disks: Arc<Vec<Disk>>,
}

/// The disks as they are to be: what they are, and what they hold until then as digests.
struct OwnDisks {
    disks: Arc<Vec<Disk>>,
    digesting: Digesting,
}

fn make(parts: &RestoreParts, pieces: &mut PieceStream) -> Result<Made, RestoreError> {
    let (seed, lengths) = pieces.disks()?;
    let disks = Arc::new(own_disks(&parts.config, &lengths)?);
    // What is there is looked at while the machine comes.
    let digesting = Digesting::start(disks.clone(), seed)
        .map_err(|error| format!("a thread for its disks cannot be started: {error}"))?;
    let own = OwnDisks { disks, digesting };
    let made = make_with(parts, pieces, &own);
    own.digesting.close();
    let (machine, disks) = (made?, own.disks);
    Ok(Made { machine, disks })
}

fn make_with(
    parts: &RestoreParts,
    pieces: &mut PieceStream,
    own: &OwnDisks,
) -> Result<Box<dyn Machine>, RestoreError> {
    if pieces.disks_come_first() {
        pieces.store_disks(own)?;
        pieces.store_changes_in(own.disks.clone());
    }
    let machine = parts
        .machines
        .restore(pieces)
        .map_err(|error| error.to_string())?;
    check_board(&*machine, &parts.config, &own.disks)?;
    pieces.machine_is_whole()?;
    if !pieces.disks_come_first() {
        pieces.store_disks(own)?;
    }
    pieces.store_rest(&own.disks)?;
    for disk in own.disks.iter() {
        disk.sync()
            .map_err(|error| RestoreError::Disk(format!("a disk cannot be synced: {error}")))?;
    }
    Ok(machine)
}

/// The disks of this host, with whatever is on them, as long as the primary's.
fn own_disks(config: &ReplicaConfig, lengths: &[u64]) -> Result<Vec<Disk>, RestoreError> {
    if lengths.len() != config.disks.len() {
        return Err(other_board());
    }
    let disks = config.disks.iter().zip(lengths).map(|(own, length)| {
        if own.is_shared {
            return reached(own).map_err(|what| RestoreError::Unfit {
                what,
                lengths: lengths.to_vec(),
            });
        }
        Disk::for_copy(own, *length, &config.state_directory)
            .map_err(|error| unfit(&error, lengths))
    });
    disks.collect()
}

/// A disk that the primary's host reaches as well: no copy is made, and its lock is seen here.
fn reached(file: &DiskFile) -> Result<Disk, String> {
    let disk = Disk::shared(file).map_err(|error| error.to_string())?;
    match seen_lock(file).map_err(|error| error.to_string())? {
        SeenLock::Nobodys if file.fencing != Some(Fencing::Outside) => Err(lock_unseen(file)),
        // The machine before this one has let go of it by now.
        SeenLock::Anothers | SeenLock::OwnMachines | SeenLock::Nobodys => Ok(disk),
    }
}

/// A disk that cannot be opened for a copy.
fn unfit(error: &DiskError, lengths: &[u64]) -> RestoreError {
    let (what, lengths) = (error.to_string(), lengths.to_vec());
    match error {
        // Something of it was written, or was to be.
        DiskError::Resize { .. } | DiskError::Overlay(_) => RestoreError::Disk(what),
        _ => RestoreError::Unfit { what, lengths },
    }
}

/// The machine has the memory of this configuration, and those disks.
fn check_board(
    machine: &dyn Machine,
    config: &ReplicaConfig,
    disks: &[Disk],
) -> Result<(), RestoreError> {
    let board = machine.board();
    let sectors = board.disks.iter().map(|disk| disk.sectors);
    let is_alike = board.memory_bytes == config.memory_bytes
        && sectors.eq(disks.iter().map(|disk| disk.length() / SECTOR_BYTES));
    is_alike.then_some(()).ok_or_else(other_board)
}

fn other_board() -> RestoreError {
    let reason = "its memory or disks are not those of this configuration";
    RestoreError::Unusable(reason.into())
}

fn start(made: Made, parts: RestoreParts) -> io::Result<ReplayingVcpu> {
    let RestoreParts {
        config,
        mutations,
        evidence,
        waker,
        ..
    } = parts;
    let Made { machine, disks } = made;
    let channel = CommandChannel::new();
    let disks = if disks.is_empty() {
        None
    } else {
        Some(start_disks(disks, &channel)?)
    };
    let guest = match config.pair.replication() {
        Replication::Log => ReplicaGuest::new(machine, disks),
        Replication::StateTransfer => {
            let applies_halves = mutations.active(Mutation::HalfCheckpointApplied);
            ReplicaGuest::following(machine, disks, applies_halves)
        }
    };
    let parts = Parts {
        guest,
        encoding: InputEncoding::WithoutDiskData,
        evidence: Some(evidence),
    };
    ReplayingVcpu::start(parts, channel, waker)
}
