//! Cuts a snapshot and its disks into pieces, on a thread of its own, while the guest runs on.

use super::progress::CopyMeter;
use crate::disk::DiskChunk;
use crate::host_time::monotonic;
use crate::status::JoinProgress;
use crate::vcpu::{BegunSnapshot, SnapshotPages};
use crate::wake::Waker;
use machine::snapshot::{SnapshotHead, SnapshotWriter};
use replication::message::{MAX_CHUNK_BYTES, SnapshotChunk, SnapshotPart};
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::time::Duration;

/// Pieces that are ready before the network takes them.
const READY_PIECES: usize = 4;

/// Of the guest's time so much goes into snapshots at most, however often somebody asks for one: one
/// part in twenty.
const LEAST_RUN: u32 = 19;
/// …and at least so long between two of them, and never longer.
const SPACING: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(10);

/// When the next snapshot may be taken, and for whom.
#[derive(Debug, Default)]
pub struct SnapshotRequests {
    /// Asked for and not yet begun.
    asked: Option<u64>,
    /// Begun, or being sent.
    begun: Option<u64>,
    not_before: Duration,
}

impl SnapshotRequests {
    /// This pairing wants one.
    pub fn ask(&mut self, pairing: u64) {
        self.asked = Some(pairing);
        self.begun = None;
    }

    /// Nobody wants one any more.
    pub fn cancel(&mut self) {
        self.asked = None;
        self.begun = None;
    }

    /// When [`SnapshotRequests::begin`] has something to say.
    pub fn deadline(&self) -> Option<Duration> {
        self.asked.map(|_| self.not_before)
    }

    /// The pairing whose snapshot is to be taken now, once.
    pub fn begin(&mut self, now: Duration) -> Option<u64> {
        if now < self.not_before {
            return None;
        }
        let pairing = self.asked.take()?;
        self.begun = Some(pairing);
        Some(pairing)
    }

    /// One was taken for `pairing`, for which the guest stood still so long. Says whether it is
    /// wanted.
    pub fn taken(&mut self, now: Duration, pairing: u64, pause: Duration) -> bool {
        let spacing = pause.saturating_mul(LEAST_RUN);
        self.not_before = now + spacing.clamp(*SPACING.start(), *SPACING.end());
        self.begun == Some(pairing)
    }
}

/// The pieces of one snapshot: first the machine, then the disks.
pub struct SnapshotSender {
    pieces: Receiver<Result<SnapshotChunk, String>>,
    pairing: u64,
    sent: u64,
    meter: CopyMeter,
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
    pub fn start(begun: BegunSnapshot, waker: Waker) -> io::Result<SnapshotSender> {
        let BegunSnapshot {
            pairing,
            head,
            pages,
            memory_bytes,
            disk_bytes,
            disk_chunks,
            ..
        } = begun;
        let (sender, pieces) = mpsc::sync_channel(READY_PIECES);
        std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                let mut cutter = Cutter {
                    sender,
                    waker: waker.clone(),
                    pairing,
                    offset: 0,
                    total: memory_bytes.saturating_add(disk_bytes),
                    piece: Vec::new(),
                };
                // An error here means that nobody wants the pieces any more.
                let _ended = cutter
                    .machine(&head, &pages)
                    .and_then(|()| cutter.disks(&disk_chunks));
                drop(cutter);
                waker.wake();
            })?;
        Ok(SnapshotSender {
            pieces,
            pairing,
            sent: 0,
            meter: CopyMeter::new(monotonic()),
        })
    }

    /// The pairing that it is for.
    pub fn pairing(&self) -> u64 {
        self.pairing
    }

    /// How far it is.
    pub fn progress(&self) -> JoinProgress {
        self.meter.progress(monotonic())
    }

    /// The next piece.
    pub fn next_piece(&mut self) -> Piece {
        match self.pieces.try_recv() {
            Ok(Ok(chunk)) => {
                self.sent += 1;
                self.meter.add(&chunk);
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
    pairing: u64,
    offset: u64,
    total: u64,
    piece: Vec<u8>,
}

impl Cutter {
    fn machine(&mut self, head: &SnapshotHead, pages: &SnapshotPages) -> io::Result<()> {
        let mut writer = SnapshotWriter::begin(head, &mut *self)?;
        loop {
            match pages.next_batch() {
                Ok(Some(batch)) => {
                    writer.pages(&batch)?;
                    pages.reuse(batch);
                }
                Ok(None) => break,
                Err(lost) => {
                    self.give(Err(lost.to_string()))?;
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
        writer.end()?;
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
            pairing: self.pairing,
            part,
            offset,
            total: self.total,
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
        if self.piece.is_empty() {
            self.piece.reserve_exact(MAX_CHUNK_BYTES);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Finding 6: 100 greetings stopped the guest for 21 s.
    #[test]
    fn however_often_somebody_asks_the_guest_stands_still_for_a_twentieth_of_its_time() {
        let mut requests = SnapshotRequests::default();
        let pause = ms(200);
        let (mut now, mut still) = (ms(0), ms(0));
        for pairing in 1..=1000 {
            requests.ask(pairing);
            if let Some(begun) = requests.begin(now) {
                now += pause;
                still += pause;
                assert!(requests.taken(now, begun, pause));
            }
            requests.cancel();
            now += ms(10);
        }
        assert!(
            still >= pause && still * 20 <= now + pause * 20,
            "{still:?} of {now:?}"
        );
    }

    #[test]
    fn a_snapshot_is_begun_once_and_is_wanted_until_it_is_cancelled() {
        let mut requests = SnapshotRequests::default();
        requests.ask(1);
        assert_eq!(requests.begin(ms(0)), Some(1));
        assert_eq!(requests.begin(ms(0)), None);
        requests.cancel();
        requests.ask(2);
        assert!(!requests.taken(ms(1), 1, ms(1)), "it is the first one's");
        assert_eq!(requests.deadline(), Some(ms(201)));
        assert_eq!(requests.begin(ms(200)), None);
        assert_eq!(requests.begin(ms(201)), Some(2));
        assert!(requests.taken(ms(202), 2, ms(1)));
    }
}
