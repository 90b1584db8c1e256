//! Makes a backup's machine and its disks of the pieces of a snapshot, on a thread of its own: the
//! event loop hands the pieces over and goes on answering.
//!
//! Nothing of it is kept twice: pages go into the machine's memory as they come, disks are written as
//! they come. The bounded channel is the back-pressure: while it is full, the event loop does not read
//! the connection. An end of the channel ends the thread at its next look.

use super::progress::CopyMeter;
use crate::config::ReplicaConfig;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::evidence::EvidenceStore;
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::status::JoinProgress;
use crate::vcpu::{CommandChannel, InputEncoding, Parts, ReplayingVcpu, ReplicaGuest, start_disks};
use crate::wake::Waker;
use machine::Machine;
use replication::message::{SnapshotChunk, SnapshotPart};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use thiserror::Error;

/// Why no machine was made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum RestoreError {
    /// Not with this configuration, or not of this snapshot.
    #[error("{0}")]
    Unusable(String),
    /// A disk of this host did not take what belongs on it.
    #[error("{0}")]
    Disk(String),
}

impl From<String> for RestoreError {
    fn from(reason: String) -> RestoreError {
        RestoreError::Unusable(reason)
    }
}

/// Pieces that are on their way to the thread, a megabyte each.
const PIECES_UNDER_WAY: usize = 4;

/// What the thread is given.
enum Piece {
    Chunk(SnapshotChunk),
    /// All chunks were given.
    End,
}

/// What the thread works with.
pub(super) struct RestoreParts {
    pub(super) config: ReplicaConfig,
    pub(super) machines: Arc<dyn Machines>,
    pub(super) evidence: EvidenceStore,
    pub(super) waker: Waker,
    /// The end of the machine before this one, which has the disks open until then.
    pub(super) previous: Option<JoinHandle<()>>,
}

/// The thread as the event loop sees it.
pub(super) struct Restoring {
    pieces: SyncSender<Piece>,
    /// What the channel has no room for.
    waiting: VecDeque<Piece>,
    made: Receiver<Result<ReplayingVcpu, RestoreError>>,
    thread: JoinHandle<()>,
    copied: Arc<Mutex<CopyMeter>>,
}

impl Restoring {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(super) fn start(parts: RestoreParts) -> io::Result<Restoring> {
        let (pieces, received) = mpsc::sync_channel(PIECES_UNDER_WAY);
        let (made_sender, made) = mpsc::channel();
        let copied = Arc::new(Mutex::new(CopyMeter::new(monotonic())));
        let stream = PieceStream {
            received,
            waker: parts.waker.clone(),
            copied: copied.clone(),
            chunk: Vec::new(),
            taken: 0,
            machine_bytes: 0,
            limit: snapshot_limit(&parts.config),
            next: None,
        };
        let thread = std::thread::Builder::new()
            .name("restore".into())
            .spawn(move || {
                let waker = parts.waker.clone();
                // Nobody waits for a machine that was discarded meanwhile.
                let _sent = made_sender.send(restore(parts, stream));
                waker.wake();
            })?;
        Ok(Restoring {
            pieces,
            waiting: VecDeque::new(),
            made,
            thread,
            copied,
        })
    }

    /// Hands a piece over, now or when there is room.
    pub(super) fn store(&mut self, chunk: SnapshotChunk) {
        self.waiting.push_back(Piece::Chunk(chunk));
        self.hand_over();
    }

    /// All pieces were given.
    pub(super) fn end(&mut self) {
        self.waiting.push_back(Piece::End);
        self.hand_over();
    }

    /// Hands over what waits, as far as there is room. False while the connection should not be read.
    pub(super) fn hand_over(&mut self) -> bool {
        while let Some(piece) = self.waiting.pop_front() {
            match self.pieces.try_send(piece) {
                Ok(()) => {}
                Err(TrySendError::Full(piece)) => {
                    self.waiting.push_front(piece);
                    return false;
                }
                // The thread has failed; what it says is in the other channel.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        true
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
        drop(self.pieces);
        // A panic has ended the process.
        let _joined = self.thread.join();
        if let Ok(Ok(vcpu)) = self.made.try_recv() {
            vcpu.close();
        }
    }
}

/// No machine's snapshot is longer, whatever the peer sends: RAM and as much again.
fn snapshot_limit(config: &ReplicaConfig) -> u64 {
    config.memory_bytes * 2 + (128 << 20)
}

fn restore(
    mut parts: RestoreParts,
    mut stream: PieceStream,
) -> Result<ReplayingVcpu, RestoreError> {
    if let Some(previous) = parts.previous.take() {
        // A panic has ended the process.
        let _joined = previous.join();
    }
    let machine = parts
        .machines
        .restore(&mut stream)
        .map_err(|error| error.to_string())?;
    let disks = empty_disks(&*machine, &parts.config)?;
    stream.store_disks(&disks)?;
    for disk in &disks {
        disk.sync()
            .map_err(|error| RestoreError::Disk(format!("a disk cannot be synced: {error}")))?;
    }
    start(machine, disks, parts.evidence, parts.waker)
        .map_err(|error| format!("its thread cannot be started: {error}").into())
}

/// Disks of the right length with nothing on them.
fn empty_disks(machine: &dyn Machine, config: &ReplicaConfig) -> Result<Vec<Disk>, RestoreError> {
    let board = machine.board();
    let sectors: Vec<u64> = board.disks.iter().map(|disk| disk.sectors).collect();
    if board.memory_bytes != config.memory_bytes || sectors.len() != config.disks.len() {
        let reason = "its memory or disks are not those of this configuration";
        return Err(reason.to_owned().into());
    }
    let disks = config.disks.iter().zip(sectors).map(|(own, sectors)| {
        Disk::for_copy(&own.path, own.read_only, sectors * SECTOR_BYTES)
            .map_err(|error| RestoreError::Disk(error.to_string()))
    });
    disks.collect()
}

fn start(
    machine: Box<dyn Machine>,
    disks: Vec<Disk>,
    evidence: EvidenceStore,
    waker: Waker,
) -> io::Result<ReplayingVcpu> {
    let channel = CommandChannel::new();
    let disks = if disks.is_empty() {
        None
    } else {
        Some(start_disks(Arc::new(disks), &channel)?)
    };
    let parts = Parts {
        guest: ReplicaGuest::new(machine, disks),
        encoding: InputEncoding::WithoutDiskData,
        evidence: Some(evidence),
    };
    ReplayingVcpu::start(parts, channel, waker)
}

fn lock(meter: &Mutex<CopyMeter>) -> MutexGuard<'_, CopyMeter> {
    // Plain numbers: a panic elsewhere leaves nothing half done that matters.
    meter
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The pieces in their order: the machine's bytes to be read, and after them those of the disks.
struct PieceStream {
    received: Receiver<Piece>,
    waker: Waker,
    copied: Arc<Mutex<CopyMeter>>,
    /// The machine's piece that is being read, and how much of it was.
    chunk: Vec<u8>,
    taken: usize,
    /// Bytes of the machine that came so far, and may come.
    machine_bytes: u64,
    limit: u64,
    /// The piece after the machine's last one.
    next: Option<Piece>,
}

impl PieceStream {
    fn next(&mut self) -> io::Result<Piece> {
        if let Some(piece) = self.next.take() {
            return Ok(piece);
        }
        let piece = self
            .received
            .recv()
            .map_err(|_| io::Error::new(ErrorKind::UnexpectedEof, "its sender went away"))?;
        // The event loop may have waited for the room.
        self.waker.wake();
        Ok(piece)
    }

    fn stored(&self, chunk: &SnapshotChunk) {
        lock(&self.copied).add(chunk);
    }

    /// The next of the machine's bytes; empty when there are no more.
    fn fill(&mut self) -> io::Result<()> {
        while self.taken == self.chunk.len() {
            match self.next()? {
                Piece::Chunk(chunk) if chunk.part == SnapshotPart::Machine => {
                    self.stored(&chunk);
                    let SnapshotChunk { offset, bytes, .. } = chunk;
                    if offset != self.machine_bytes {
                        return Err(io::Error::other("the pieces are out of order"));
                    }
                    self.machine_bytes += bytes.len() as u64;
                    if self.machine_bytes > self.limit {
                        return Err(io::Error::other("it is larger than the machine's memory"));
                    }
                    self.chunk = bytes;
                    self.taken = 0;
                }
                other => {
                    self.next = Some(other);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn store_disks(&mut self, disks: &[Disk]) -> Result<(), RestoreError> {
        let out_of_order = || {
            Err("the pieces of its snapshot are out of order"
                .to_owned()
                .into())
        };
        if self.taken != self.chunk.len() {
            return out_of_order();
        }
        loop {
            let chunk = match self.next().map_err(|error| error.to_string())? {
                Piece::Chunk(chunk) => chunk,
                Piece::End => return Ok(()),
            };
            let SnapshotPart::Disk(index) = chunk.part else {
                return out_of_order();
            };
            let disk = disks
                .get(usize::from(index))
                .ok_or_else(|| "it has more disks than this configuration".to_owned())?;
            disk.write_copied(chunk.offset, &chunk.bytes)
                .map_err(|error| {
                    let what = format!("its disk {index} cannot be written here: {error}");
                    RestoreError::Disk(what)
                })?;
            self.stored(&chunk);
        }
    }
}

impl Read for PieceStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let length = buffer.len().min(self.chunk.len() - self.taken);
        buffer[..length].copy_from_slice(&self.chunk[self.taken..self.taken + length]);
        self.taken += length;
        Ok(length)
    }
}
