//! Makes a backup's machine and its disks of the pieces of a snapshot, which it fetches on a connection
//! of its own: the event loop has nothing to do with it.
//!
//! Nothing of it is kept twice: pages go into the machine's memory as they come, disks are written as
//! they come. Whoever is slower holds the other up by the connection.

use super::progress::{CopyMeter, lock};
use crate::config::ReplicaConfig;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::evidence::EvidenceStore;
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::peer_stream::{BlockingPeer, Membership};
use crate::priority::yield_to_the_guest;
use crate::status::JoinProgress;
use crate::transport;
use crate::vcpu::{CommandChannel, InputEncoding, Parts, ReplayingVcpu, ReplicaGuest, start_disks};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver};
use environment::net::{Shutdown, TcpStream};
use environment::thread::JoinHandle;
use machine::Machine;
use replication::message::{Fetched, Message, MessageReader, MessageWriter, SnapshotPart};
use replication::succession::RunId;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are read at once, at most.
const READ_BYTES: usize = 512 << 10;

/// Why no machine was made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum RestoreError {
    /// Not with this configuration, or not of this snapshot.
    #[error("{0}")]
    Unusable(String),
    /// A disk of this host did not take what belongs on it.
    #[error("{0}")]
    Disk(String),
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
    pub(super) primary: String,
    pub(super) membership: Membership,
    pub(super) pairing: u64,
    pub(super) run: RunId,
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
fn fetch(parts: &RestoreParts, fetching: &Mutex<Fetching>) -> Result<BlockingPeer, RestoreError> {
    let lost = |error: &dyn std::fmt::Display| RestoreError::Lost(error.to_string());
    let mut stream =
        transport::connect_blocking(&parts.primary, CONNECT_TIMEOUT, &parts.membership)
            .map_err(|error| lost(&error))?;
    let ours = stream.handle().map_err(|error| lost(&error))?;
    set(fetching, Fetching::Connected(ours));
    let mut bytes = Vec::new();
    let (pairing, run) = (parts.pairing, parts.run);
    MessageWriter::default().write(&mut bytes, &Message::Fetch { pairing, run });
    stream.write_all(&bytes).map_err(|error| lost(&error))?;
    Ok(stream)
}

/// No machine's snapshot is longer, whatever the peer sends: RAM and as much again.
fn snapshot_limit(config: &ReplicaConfig) -> u64 {
    config.memory_bytes * 2 + (128 << 20)
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
    let stream = fetch(&parts, fetching)?;
    let mut pieces = PieceStream::new(stream, &parts, copied);
    let made = make(&parts, &mut pieces);
    set(fetching, Fetching::Closed);
    let (machine, disks) = match pieces.lost.take() {
        Some(why) => return Err(RestoreError::Lost(why)),
        None => made?,
    };
    start(machine, disks, parts.evidence, parts.waker)
        .map_err(|error| format!("its thread cannot be started: {error}").into())
}

fn make(
    parts: &RestoreParts,
    pieces: &mut PieceStream,
) -> Result<(Box<dyn Machine>, Vec<Disk>), RestoreError> {
    let machine = parts
        .machines
        .restore(pieces)
        .map_err(|error| error.to_string())?;
    let disks = empty_disks(&*machine, &parts.config)?;
    pieces.store_disks(&disks)?;
    for disk in &disks {
        disk.sync()
            .map_err(|error| RestoreError::Disk(format!("a disk cannot be synced: {error}")))?;
    }
    Ok((machine, disks))
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

/// A piece that was read and not used up: it is still where the reader has it.
#[derive(Clone, Copy)]
struct Piece {
    part: SnapshotPart,
    offset: u64,
    length: usize,
}

/// The pieces in their order: the machine's bytes to be read, and after them those of the disks.
struct PieceStream {
    stream: BlockingPeer,
    reader: MessageReader,
    copied: Arc<Mutex<CopyMeter>>,
    pairing: u64,
    chunks: u64,
    /// The piece that is being used, and how much of it was.
    piece: Option<Piece>,
    taken: usize,
    /// Everything came.
    ended: bool,
    /// The connection failed, or what came is no piece of this snapshot.
    lost: Option<String>,
    /// Bytes of the machine that came so far, and may come.
    machine_bytes: u64,
    limit: u64,
}

impl PieceStream {
    fn new(
        stream: BlockingPeer,
        parts: &RestoreParts,
        copied: Arc<Mutex<CopyMeter>>,
    ) -> PieceStream {
        PieceStream {
            stream,
            reader: MessageReader::of_snapshot(),
            copied,
            pairing: parts.pairing,
            chunks: 0,
            piece: None,
            taken: 0,
            ended: false,
            lost: None,
            machine_bytes: 0,
            limit: snapshot_limit(&parts.config),
        }
    }

    /// The next piece, or `None` after the last. The one before is gone.
    fn next(&mut self) -> io::Result<Option<Piece>> {
        self.piece = None;
        self.taken = 0;
        if self.ended {
            return Ok(None);
        }
        let next = self.receive().inspect_err(|error| {
            self.lost.get_or_insert(error.to_string());
        })?;
        self.piece = next;
        self.ended = next.is_none();
        Ok(next)
    }

    fn receive(&mut self) -> io::Result<Option<Piece>> {
        loop {
            let fetched = self.reader.next_fetched().map_err(io::Error::other)?;
            let pairing = match fetched {
                Some(Fetched::Chunk { pairing, .. } | Fetched::End { pairing, .. }) => pairing,
                Some(Fetched::Other) => 0,
                None => {
                    self.read_more()?;
                    continue;
                }
            };
            if pairing != self.pairing {
                return Err(io::Error::other("what comes is not this snapshot's"));
            }
            return match fetched {
                Some(Fetched::Chunk {
                    part,
                    offset,
                    total,
                    bytes,
                    ..
                }) => {
                    self.chunks += 1;
                    let length = bytes.len();
                    lock(&self.copied).add(part, offset, length, total);
                    Ok(Some(Piece {
                        part,
                        offset,
                        length,
                    }))
                }
                Some(Fetched::End { chunks, .. }) if chunks == self.chunks => Ok(None),
                _ => Err(io::Error::other("pieces are missing")),
            };
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let room = self.reader.room(READ_BYTES);
        match self.stream.read(room) {
            Ok(0) => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the primary closed the connection",
            )),
            Ok(length) => {
                self.reader.filled(length);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Goes on to the next of the machine's pieces if there is one.
    fn fill(&mut self) -> io::Result<()> {
        while self
            .piece
            .is_none_or(|piece| piece.part == SnapshotPart::Machine && self.taken == piece.length)
        {
            match self.next()? {
                Some(piece) if piece.part == SnapshotPart::Machine => {
                    if piece.offset != self.machine_bytes {
                        return Err(io::Error::other("the pieces are out of order"));
                    }
                    self.machine_bytes += piece.length as u64;
                    if self.machine_bytes > self.limit {
                        return Err(io::Error::other("it is larger than the machine's memory"));
                    }
                }
                Some(_) | None => return Ok(()),
            }
        }
        Ok(())
    }

    /// What is left of the machine's piece that is being read.
    fn rest(&self) -> &[u8] {
        match self.piece {
            Some(piece) if piece.part == SnapshotPart::Machine => {
                &self.reader.last_bytes(piece.length)[self.taken..]
            }
            _ => &[],
        }
    }

    fn store_disks(&mut self, disks: &[Disk]) -> Result<(), RestoreError> {
        if !self.rest().is_empty() {
            let what = "the pieces of its snapshot are out of order";
            return Err(what.to_owned().into());
        }
        let is_disks = |piece: &Piece| matches!(piece.part, SnapshotPart::Disk(_));
        let mut next = self.piece.filter(is_disks);
        loop {
            if let Some(piece) = next {
                self.store(piece, disks)?;
            }
            next = self.next().map_err(|error| error.to_string())?;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    fn store(&self, piece: Piece, disks: &[Disk]) -> Result<(), RestoreError> {
        let SnapshotPart::Disk(index) = piece.part else {
            let what = "the pieces of its snapshot are out of order";
            return Err(what.to_owned().into());
        };
        let disk = disks
            .get(usize::from(index))
            .ok_or_else(|| "it has more disks than this configuration".to_owned())?;
        disk.write_copied(piece.offset, self.reader.last_bytes(piece.length))
            .map_err(|error| {
                let what = format!("its disk {index} cannot be written here: {error}");
                RestoreError::Disk(what)
            })
    }
}

impl Read for PieceStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let rest = self.rest();
        let length = buffer.len().min(rest.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}
