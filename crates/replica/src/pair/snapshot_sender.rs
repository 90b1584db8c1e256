//! Cuts a snapshot and its disks into pieces and sends them, on a thread and a connection of their own,
//! while the guest runs on: the event loop has nothing to do with it.

mod disks;

use super::channel::Fetcher;
use super::progress::{CopyMeter, SentBytes, lock};
use crate::host_time::monotonic;
use crate::packing::CopyPacker;
use crate::priority::yield_to_the_guest;
use crate::random;
use crate::status::JoinProgress;
use crate::vcpu::{BegunCopy, BegunDisks, BegunSnapshot, CopyAsks, PagesLost, SnapshotPages};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver};
use environment::net::{Shutdown, TcpStream};
use machine::snapshot::SnapshotWriter;
use replication::blocks::Comparison;
use replication::message::{MAX_CHUNK_BYTES, Message, MessageWriter, SnapshotChunk, SnapshotPart};
use replication::mutation::Mutations;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiserror::Error;

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

    /// Whether none is asked for that was not begun.
    pub fn is_idle(&self) -> bool {
        self.asked.is_none()
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

/// What a copy begins with.
pub enum Beginning {
    /// Its disks, before the machine and between its rounds.
    Disks(BegunDisks),
    /// The machine, with all that the disks hold behind its last round: whoever joins has a program of before, or
    /// nothing of disks is copied.
    Machine(BegunCopy),
}

/// A round of a copy, after what it began with.
pub enum Round {
    /// All of the machine's RAM, if the disks came before.
    First(Box<BegunCopy>),
    /// What changed meanwhile; more may change.
    Pages(SnapshotPages),
    /// The snapshot.
    Last(Box<BegunSnapshot>),
}

/// A copy on its way: the disks as they were, then the machine in rounds with what changed of the disks between them, then
/// what changed since. Who drops this ends it.
pub struct SnapshotSender {
    /// Says what came of it.
    ended: Receiver<Result<SentBytes, String>>,
    meter: Arc<Mutex<CopyMeter>>,
    pairing: u64,
    /// To end the connection, whatever the thread is waiting for.
    handle: TcpStream,
}

impl Beginning {
    fn pairing(&self) -> u64 {
        match self {
            Beginning::Disks(begun) => begun.asks.pairing(),
            Beginning::Machine(begun) => begun.pairing,
        }
    }

    fn disk_lengths(&self) -> &[u64] {
        match self {
            Beginning::Disks(begun) => &begun.disk_lengths,
            Beginning::Machine(begun) => &begun.disk_lengths,
        }
    }

    fn memory_bytes(&self) -> u64 {
        match self {
            Beginning::Disks(begun) => begun.memory_bytes,
            Beginning::Machine(begun) => begun.memory_bytes,
        }
    }
}

impl SnapshotSender {
    /// Begins to send to whoever has connected for it.
    ///
    /// # Errors
    /// The host gives no thread, or no random number.
    pub fn start(
        begun: Beginning,
        rounds: Receiver<Round>,
        peer: Fetcher,
        packer: Option<CopyPacker>,
        mutations: Mutations,
        waker: Waker,
    ) -> io::Result<SnapshotSender> {
        let pairing = begun.pairing();
        let disk_lengths = begun.disk_lengths().to_vec();
        let (sender, ended) = mpsc::channel();
        let meter = Arc::new(Mutex::new(CopyMeter::new(monotonic())));
        let handle = peer.stream.handle()?;
        let seed = random::number()? as u64;
        let disk_bytes: u64 = disk_lengths.iter().sum();
        let mut cutter = Cutter {
            peer,
            packer,
            comparison: Comparison { seed, mutations },
            writer: MessageWriter::default(),
            head: Vec::new(),
            meter: meter.clone(),
            pairing,
            chunks: 0,
            offset: 0,
            total: begun.memory_bytes().saturating_add(disk_bytes),
            piece: Vec::with_capacity(MAX_CHUNK_BYTES),
        };
        environment::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                yield_to_the_guest();
                let sent = cutter.copy(begun, &disk_lengths, &rounds);
                let sent = sent.map(|()| lock(&cutter.meter).sent());
                // Nobody may want to know any more.
                let _told = sender.send(sent.map_err(|error| error.to_string()));
                waker.wake();
            })?;
        Ok(SnapshotSender {
            ended,
            meter,
            pairing,
            handle,
        })
    }

    /// The pairing that it is for.
    pub fn pairing(&self) -> u64 {
        self.pairing
    }

    /// How far it is.
    pub fn progress(&self) -> JoinProgress {
        lock(&self.meter).progress(monotonic())
    }

    /// What came of it, once: so much was sent, or why not.
    pub fn ended(&self) -> Option<Result<SentBytes, String>> {
        self.ended.try_recv().ok()
    }
}

impl Drop for SnapshotSender {
    fn drop(&mut self) {
        // What was written before still arrives; a connection that has ended needs no end.
        let _ended = self.handle.shutdown(Shutdown::Both);
    }
}

/// Why a snapshot does not reach its backup.
#[derive(Debug, Error)]
enum SendError {
    #[error(transparent)]
    Pages(#[from] PagesLost),
    #[error("the connection for it failed: {0}")]
    Connection(#[from] io::Error),
    #[error("{0}")]
    Disk(String),
    #[error("the copy of the disks ended before it was whole")]
    DisksLost,
    #[error("what the backup says on the connection for it is not what it was asked")]
    Garbage,
}

struct Cutter {
    peer: Fetcher,
    packer: Option<CopyPacker>,
    comparison: Comparison,
    writer: MessageWriter,
    /// What precedes a piece's bytes in the connection.
    head: Vec<u8>,
    meter: Arc<Mutex<CopyMeter>>,
    pairing: u64,
    chunks: u64,
    offset: u64,
    total: u64,
    /// The machine's bytes that are to be sent next.
    piece: Vec<u8>,
}

impl Cutter {
    fn copy(
        &mut self,
        begun: Beginning,
        disk_lengths: &[u64],
        rounds: &Receiver<Round>,
    ) -> Result<(), SendError> {
        match begun {
            Beginning::Machine(first) => {
                self.begin(disk_lengths, false)?;
                let last = self.machine(&first, rounds, None)?;
                self.disks(disk_lengths, &last.disk_parts)?;
            }
            Beginning::Disks(BegunDisks { asks, .. }) => {
                self.begin(disk_lengths, true)?;
                self.disks_first(disk_lengths, &asks)?;
                asks.machine();
                let Round::First(first) = rounds.recv().map_err(|_| PagesLost)? else {
                    unreachable!("a machine's copy begins with its first round");
                };
                let last = self.machine(&first, rounds, Some(&asks))?;
                self.changed(&last.disk_parts)?;
            }
        }
        Ok(self.end()?)
    }

    fn begin(&mut self, disk_lengths: &[u64], disks_first: bool) -> Result<(), SendError> {
        if self.packer.is_some() {
            self.head.clear();
            self.writer.write(&mut self.head, &Message::Packed);
            self.peer.stream.write_all(&self.head)?;
        }
        if disks_first {
            let pairing = self.pairing;
            self.say(&Message::DisksFirst { pairing })?;
        }
        Ok(self.say(&Message::Disks {
            pairing: self.pairing,
            seed: self.comparison.seed,
            lengths: disk_lengths.to_vec(),
        })?)
    }

    /// Sends all rounds, and what changed of the disks meanwhile, if they came before; gives the last.
    fn machine(
        &mut self,
        first: &BegunCopy,
        rounds: &Receiver<Round>,
        disks: Option<&CopyAsks>,
    ) -> Result<Box<BegunSnapshot>, SendError> {
        let mut writer = SnapshotWriter::begin(&first.head, &mut *self)?;
        send_pages(&mut writer, &first.pages)?;
        writer.first_round_ended()?;
        writer.get_mut().round_ended(disks)?;
        first.pages.ask_next_round();
        let last = loop {
            match rounds.recv().map_err(|_| PagesLost)? {
                Round::Pages(pages) => {
                    send_pages(&mut writer, &pages)?;
                    writer.get_mut().round_ended(disks)?;
                    pages.ask_next_round();
                }
                Round::Last(last) => break last,
                Round::First(_) => unreachable!("it has come"),
            }
        };
        writer.last_round(&last.head)?;
        send_pages(&mut writer, &last.pages)?;
        writer.end()?;
        self.flush()?;
        Ok(last)
    }

    /// Says that a round has ended, and waits until all of it is where it belongs: what is on its way when
    /// the last round begins, the backup has to catch up with. What changed of disks meanwhile goes with it.
    fn round_ended(&mut self, disks: Option<&CopyAsks>) -> Result<(), SendError> {
        self.flush()?;
        if let Some(asks) = disks {
            self.pass(asks)?;
        }
        self.all_is_there()
    }

    fn all_is_there(&mut self) -> Result<(), SendError> {
        let pairing = self.pairing;
        let ended = Message::SnapshotRound { pairing };
        self.say(&ended)?;
        if self.peer.receive()? == ended {
            Ok(())
        } else {
            Err(SendError::Garbage)
        }
    }

    /// Sends a piece, and gives its room back.
    fn send(&mut self, part: SnapshotPart, offset: u64, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let chunk = SnapshotChunk {
            pairing: self.pairing,
            part,
            offset,
            total: self.total,
            bytes,
        };
        self.head.clear();
        self.writer.write_snapshot_head(&mut self.head, &chunk);
        self.write(&chunk.bytes)?;
        self.chunks += 1;
        lock(&self.meter).add(part, offset, chunk.bytes.len(), self.total);
        let mut room = chunk.bytes;
        room.clear();
        Ok(room)
    }

    fn end(&mut self) -> io::Result<()> {
        let (pairing, chunks) = (self.pairing, self.chunks);
        self.say(&Message::SnapshotEnd { pairing, chunks })
    }

    fn say(&mut self, message: &Message) -> io::Result<()> {
        self.head.clear();
        self.writer.write(&mut self.head, message);
        self.write(&[])
    }

    /// Writes the head, and what follows it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = &mut self.peer.stream;
        match &mut self.packer {
            Some(packer) => packer.write(stream, &self.head, bytes),
            None => {
                stream.write_all(&self.head)?;
                stream.write_all(bytes)
            }
        }
    }
}

fn send_pages(
    writer: &mut SnapshotWriter<&mut Cutter>,
    pages: &SnapshotPages,
) -> Result<(), SendError> {
    while let Some(batch) = pages.next_batch()? {
        writer.pages(&batch)?;
        pages.reuse(batch);
    }
    Ok(())
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
        self.piece = self.send(SnapshotPart::Machine, offset, piece)?;
        Ok(())
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
