//! Cuts a snapshot and its disks into pieces, on a thread of its own, while the guest runs on.

use crate::disk::DiskChunk;
use crate::vcpu::TakenSnapshot;
use crate::wake::Waker;
use replication::message::{MAX_CHUNK_BYTES, SnapshotChunk, SnapshotPart};
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};

/// Pieces that are ready before the network takes them.
const READY_PIECES: usize = 4;

/// The pieces of one snapshot: first the machine, then the disks.
pub struct SnapshotSender {
    pieces: Receiver<Result<SnapshotChunk, String>>,
    generation: u64,
    sent: u64,
}

/// What there is to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Send this.
    Chunk(SnapshotChunk),
    /// Nothing yet; the waker will say when.
    Later,
    /// That was all.
    Done {
        /// Pieces altogether.
        chunks: u64,
    },
    /// The snapshot cannot be made.
    Failed(String),
}

impl SnapshotSender {
    /// Begins. The thread ends when this is dropped.
    pub fn start(taken: TakenSnapshot, waker: Waker) -> io::Result<SnapshotSender> {
        let generation = taken.generation;
        let (sender, pieces) = mpsc::sync_channel(READY_PIECES);
        std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                let mut cutter = Cutter {
                    sender,
                    waker: waker.clone(),
                    generation,
                    offset: 0,
                    piece: Vec::new(),
                };
                // An error here means that nobody wants the pieces any more.
                let _ended = cutter
                    .machine(&taken)
                    .and_then(|()| cutter.disks(&taken.disk_chunks));
                drop(cutter);
                waker.wake();
            })?;
        Ok(SnapshotSender {
            pieces,
            generation,
            sent: 0,
        })
    }

    /// The pairing that it is for.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The next piece.
    pub fn next_piece(&mut self) -> Piece {
        match self.pieces.try_recv() {
            Ok(Ok(chunk)) => {
                self.sent += 1;
                Piece::Chunk(chunk)
            }
            Ok(Err(reason)) => Piece::Failed(reason),
            Err(TryRecvError::Empty) => Piece::Later,
            Err(TryRecvError::Disconnected) => Piece::Done { chunks: self.sent },
        }
    }
}

struct Cutter {
    sender: SyncSender<Result<SnapshotChunk, String>>,
    waker: Waker,
    generation: u64,
    offset: u64,
    piece: Vec<u8>,
}

impl Cutter {
    fn machine(&mut self, taken: &TakenSnapshot) -> io::Result<()> {
        taken.snapshot.write_to(self)?;
        self.flush()
    }

    fn disks(&mut self, chunks: &Receiver<DiskChunk>) -> io::Result<()> {
        for DiskChunk {
            device,
            offset,
            bytes,
        } in chunks
        {
            match bytes {
                Ok(bytes) => self.send(SnapshotPart::Disk(device), offset, bytes)?,
                Err(reason) => return self.give(Err(reason)),
            }
        }
        Ok(())
    }

    fn send(&mut self, part: SnapshotPart, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.give(Ok(SnapshotChunk {
            generation: self.generation,
            part,
            offset,
            bytes,
        }))
    }

    fn give(&mut self, piece: Result<SnapshotChunk, String>) -> io::Result<()> {
        self.sender
            .send(piece)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.waker.wake();
        Ok(())
    }
}

impl Write for Cutter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(MAX_CHUNK_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == MAX_CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        let offset = self.offset;
        self.offset += piece.len() as u64;
        self.send(SnapshotPart::Machine, offset, piece)
    }
}
