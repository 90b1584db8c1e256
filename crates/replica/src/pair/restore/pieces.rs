//! The pieces of a snapshot as they come on their connection.

use super::super::progress::{CopyMeter, lock};
use super::{OwnDisks, RestoreError, RestoreParts, snapshot_limit};
use crate::disk::{Disk, windows};
use crate::packing::StreamUnpacker;
use crate::peer_stream::BlockingPeer;
use replication::message::{
    DiskBlocks, Fetched, MAX_CHUNK_BYTES, Message, MessageReader, MessageWriter, SnapshotPart,
};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Bytes that are read at once, at most.
const READ_BYTES: usize = 512 << 10;
/// Why nothing comes of pieces that nobody would send so.
const OUT_OF_ORDER: &str = "the pieces of its snapshot are out of order";

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrived {
    /// A piece, which is where the reader has it.
    Piece {
        part: SnapshotPart,
        offset: u64,
        length: usize,
    },
    DisksFirst,
    Disks {
        seed: u64,
        lengths: Vec<u64>,
    },
    Zeros {
        device: u8,
        offset: u64,
        length: u64,
    },
    Alike {
        device: u8,
        end: u64,
    },
    /// Of the machine.
    Round,
    End,
}

impl Arrived {
    /// It belongs on a disk.
    fn is_of_a_disk(&self) -> bool {
        match self {
            Arrived::Piece { part, .. } => matches!(part, SnapshotPart::Disk(_)),
            Arrived::Zeros { .. } => true,
            _ => false,
        }
    }
}

/// The pieces in their order: what differs of the disks, then the machine's bytes to be read, between which what changed of
/// the disks is stored, and at last what changed since. Of a program of before: the machine's, and what differs after them.
pub(super) struct PieceStream {
    stream: BlockingPeer,
    reader: MessageReader,
    /// Since the primary has said that what it sends is packed.
    unpacking: Option<Unpacking>,
    writer: MessageWriter,
    copied: Arc<Mutex<CopyMeter>>,
    pairing: u64,
    chunks: u64,
    /// How much there is of the machine's piece that is being read, and how much of it was.
    piece: usize,
    taken: usize,
    /// The connection failed, or what came is no piece of this snapshot, or a disk did not take what came between the
    /// machine's pieces.
    pub(super) failed: Option<RestoreError>,
    disks_first: bool,
    /// Where what comes of disks between the machine's pieces belongs.
    disks: Arc<Vec<Disk>>,
    /// Bytes of the machine that came so far, and may come.
    machine_bytes: u64,
    limit: u64,
}

impl PieceStream {
    pub(super) fn new(
        stream: BlockingPeer,
        writer: MessageWriter,
        parts: &RestoreParts,
        copied: Arc<Mutex<CopyMeter>>,
    ) -> PieceStream {
        PieceStream {
            stream,
            reader: MessageReader::of_snapshot(),
            unpacking: None,
            writer,
            copied,
            pairing: parts.pairing,
            chunks: 0,
            piece: 0,
            taken: 0,
            failed: None,
            disks_first: false,
            disks: Arc::default(),
            machine_bytes: 0,
            limit: snapshot_limit(&parts.config),
        }
    }

    /// Which disks belong to the snapshot: the seed of their digests, and the length of each.
    pub(super) fn disks(&mut self) -> Result<(u64, Vec<u64>), RestoreError> {
        let mut next = self.next()?;
        if next == Arrived::DisksFirst {
            self.disks_first = true;
            next = self.next()?;
        }
        match next {
            Arrived::Disks { seed, lengths } => Ok((seed, lengths)),
            _ => Err(out_of_order()),
        }
    }

    /// Whether the disks come before the machine.
    pub(super) fn disks_come_first(&self) -> bool {
        self.disks_first
    }

    /// What comes of disks between the machine's pieces belongs there.
    pub(super) fn store_changes_in(&mut self, disks: Arc<Vec<Disk>>) {
        self.disks = disks;
    }

    /// What comes next. The piece before is gone.
    fn next(&mut self) -> Result<Arrived, RestoreError> {
        self.try_next()
            .map_err(|error| RestoreError::Lost(error.to_string()))
    }

    fn try_next(&mut self) -> io::Result<Arrived> {
        (self.piece, self.taken) = (0, 0);
        let next = self.receive();
        next.inspect_err(|error| {
            self.failed
                .get_or_insert_with(|| RestoreError::Lost(error.to_string()));
        })
    }

    fn receive(&mut self) -> io::Result<Arrived> {
        loop {
            let fetched = self.reader.next_fetched().map_err(io::Error::other)?;
            if fetched == Some(Fetched::Packed) {
                self.is_packed()?;
                continue;
            }
            if let Some(fetched) = fetched {
                let (pairing, arrived) = arrived(&fetched, &self.copied)?;
                if pairing != self.pairing {
                    return Err(io::Error::other("what comes is not this snapshot's"));
                }
                match fetched {
                    Fetched::Chunk { .. } | Fetched::Zeros { .. } => self.chunks += 1,
                    Fetched::End { chunks, .. } if chunks != self.chunks => {
                        return Err(io::Error::other("pieces are missing"));
                    }
                    _ => {}
                }
                return Ok(arrived);
            }
            self.read_more()?;
        }
    }

    /// What comes from here on is packed.
    fn is_packed(&mut self) -> io::Result<()> {
        if self.unpacking.is_some() {
            return Err(io::Error::other("what comes says twice that it is packed"));
        }
        let mut came = self.reader.take_rest();
        let length = came.len();
        came.resize(length.max(READ_BYTES), 0);
        self.unpacking = Some(Unpacking {
            unpacker: StreamUnpacker::new(MAX_CHUNK_BYTES)?,
            came,
            unread: 0..length,
        });
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let room = self.reader.room(READ_BYTES);
        let length = match &mut self.unpacking {
            Some(unpacking) => unpacking.read(&mut self.stream, room)?,
            None => read(&mut self.stream, room)?,
        };
        self.reader.filled(length);
        Ok(())
    }

    /// Goes on to the next of the machine's pieces, or past the end of a round.
    fn next_of_machine(&mut self) -> io::Result<()> {
        let lost = |why: &str| Err(io::Error::other(why));
        let next = self.try_next()?;
        if self.disks_first && next.is_of_a_disk() {
            let stored = self.store(&self.disks, &next);
            return stored.map_err(|error| {
                let why = io::Error::other(error.to_string());
                self.failed = Some(error);
                why
            });
        }
        match next {
            // What came before was used up, or nobody would ask for more.
            Arrived::Round => self.say_round().map_err(io::Error::other),
            Arrived::Piece {
                part: SnapshotPart::Machine,
                offset,
                length,
            } => {
                if offset != self.machine_bytes {
                    return lost("the pieces are out of order");
                }
                self.machine_bytes += length as u64;
                if self.machine_bytes > self.limit {
                    return lost("it is larger than the machine's memory");
                }
                self.piece = length;
                Ok(())
            }
            _ => lost("the machine's pieces are followed by others too soon"),
        }
    }

    /// All that came before is where it belongs.
    fn say_round(&mut self) -> Result<(), RestoreError> {
        let pairing = self.pairing;
        self.say(&Message::SnapshotRound { pairing })
    }

    fn say(&mut self, message: &Message) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        self.writer.write(&mut bytes, message);
        self.stream
            .write_all(&bytes)
            .map_err(|error| RestoreError::Lost(error.to_string()))
    }

    /// Nothing is left of the machine's pieces.
    pub(super) fn machine_is_whole(&self) -> Result<(), RestoreError> {
        if self.taken == self.piece {
            Ok(())
        } else {
            Err(out_of_order())
        }
    }

    /// Says what the disks hold, window by window, and stores what differs.
    pub(super) fn store_disks(&mut self, own: &OwnDisks) -> Result<(), RestoreError> {
        let lengths: Vec<u64> = own.disks.iter().map(Disk::copied_bytes).collect();
        for (device, range) in windows(&lengths) {
            let window = own.digesting.next().ok_or_else(out_of_order)?;
            let window = window.map_err(|error| RestoreError::Disk(error.to_string()))?;
            assert!(
                (window.device, &window.range) == (device, &range) && window.is_whole(),
                "both go through the windows in one order"
            );
            self.say(&Message::Blocks(DiskBlocks {
                pairing: self.pairing,
                device,
                offset: range.start,
                digests: window.digests,
            }))?;
            let end = range.end;
            self.store_until(&own.disks, &Arrived::Alike { device, end })?;
        }
        Ok(())
    }

    /// Stores what changed of the disks since it came, to the end of the snapshot.
    pub(super) fn store_rest(&mut self, disks: &[Disk]) -> Result<(), RestoreError> {
        self.store_until(disks, &Arrived::End)
    }

    /// Stores what comes of disks before this.
    fn store_until(&mut self, disks: &[Disk], last: &Arrived) -> Result<(), RestoreError> {
        loop {
            let next = self.next()?;
            if next == *last {
                return Ok(());
            }
            self.store(disks, &next)?;
        }
    }

    /// Stores what has just come of a disk.
    fn store(&self, disks: &[Disk], arrived: &Arrived) -> Result<(), RestoreError> {
        let (device, stored) = match arrived {
            Arrived::Piece {
                part: SnapshotPart::Disk(device),
                offset,
                length,
            } => {
                let bytes = self.reader.last_bytes(*length);
                let disk = disk(disks, *device)?;
                (*device, disk.write_copied(*offset, bytes))
            }
            Arrived::Zeros {
                device,
                offset,
                length,
            } => (*device, disk(disks, *device)?.zero_copied(*offset, *length)),
            Arrived::Piece { .. }
            | Arrived::DisksFirst
            | Arrived::Disks { .. }
            | Arrived::Alike { .. }
            | Arrived::Round
            | Arrived::End => return Err(out_of_order()),
        };
        stored.map_err(|error| {
            let what = format!("its disk {device} cannot be written here: {error}");
            RestoreError::Disk(what)
        })
    }
}

/// Of a connection on which chunks come.
struct Unpacking {
    unpacker: StreamUnpacker,
    came: Vec<u8>,
    /// What came and was not unpacked.
    unread: Range<usize>,
}

impl Unpacking {
    /// Puts what is next at the front of `room`: bytes, of which there are some.
    fn read(&mut self, stream: &mut BlockingPeer, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let unread = &self.came[self.unread.clone()];
            let unpacked = self.unpacker.unpack(unread, room);
            let (taken, put) = unpacked.map_err(io::Error::other)?;
            self.unread.start += taken;
            if put > 0 {
                return Ok(put);
            }
            if taken == 0 {
                assert!(self.unread.is_empty(), "everything that came is taken");
                self.unread = 0..read(stream, &mut self.came)?;
            }
        }
    }
}

/// What comes next on the connection.
fn read(stream: &mut BlockingPeer, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(room) {
            Ok(0) => {
                let closed = "the primary closed the connection";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, closed));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

/// The pairing, and what came; how far that is.
fn arrived(fetched: &Fetched<'_>, copied: &Mutex<CopyMeter>) -> io::Result<(u64, Arrived)> {
    Ok(match fetched {
        Fetched::Chunk {
            pairing,
            part,
            offset,
            total,
            bytes,
        } => {
            let (part, offset, length) = (*part, *offset, bytes.len());
            lock(copied).add(part, offset, length, *total);
            let piece = Arrived::Piece {
                part,
                offset,
                length,
            };
            (*pairing, piece)
        }
        Fetched::Disks {
            pairing,
            seed,
            lengths,
        } => {
            let (seed, lengths) = (*seed, lengths.clone());
            (*pairing, Arrived::Disks { seed, lengths })
        }
        Fetched::DisksFirst { pairing } => (*pairing, Arrived::DisksFirst),
        Fetched::Zeros {
            pairing,
            device,
            offset,
            length,
        } => {
            let (device, offset, length) = (*device, *offset, *length);
            let zeros = Arrived::Zeros {
                device,
                offset,
                length,
            };
            (*pairing, zeros)
        }
        Fetched::Alike {
            pairing,
            device,
            end,
        } => {
            let (device, end) = (*device, *end);
            lock(copied).reached(device, end);
            (*pairing, Arrived::Alike { device, end })
        }
        Fetched::Round { pairing } => (*pairing, Arrived::Round),
        Fetched::End { pairing, .. } => (*pairing, Arrived::End),
        Fetched::Packed | Fetched::Other => {
            return Err(io::Error::other("what comes is no piece of a snapshot"));
        }
    })
}

fn disk(disks: &[Disk], index: u8) -> Result<&Disk, RestoreError> {
    disks.get(usize::from(index)).ok_or_else(|| {
        "it has more disks than this configuration"
            .to_owned()
            .into()
    })
}

fn out_of_order() -> RestoreError {
    RestoreError::Unusable(OUT_OF_ORDER.into())
}

impl Read for PieceStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece {
            self.next_of_machine()?;
        }
        let rest = &self.reader.last_bytes(self.piece)[self.taken..];
        let length = buffer.len().min(rest.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}
