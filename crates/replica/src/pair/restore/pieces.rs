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

/// The pieces in their order: the machine's bytes to be read, and after them what differs of the disks.
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
    /// The connection failed, or what came is no piece of this snapshot.
    pub(super) lost: Option<String>,
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
            lost: None,
            machine_bytes: 0,
            limit: snapshot_limit(&parts.config),
        }
    }

    /// Which disks belong to the snapshot: the seed of their digests, and the length of each.
    pub(super) fn disks(&mut self) -> Result<(u64, Vec<u64>), RestoreError> {
        match self.next()? {
            Arrived::Disks { seed, lengths } => Ok((seed, lengths)),
            _ => Err(out_of_order()),
        }
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
            self.lost.get_or_insert(error.to_string());
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
        match self.try_next()? {
            Arrived::Round => {
                // What came before was used up, or nobody would ask for more.
                let pairing = self.pairing;
                self.say(&Message::SnapshotRound { pairing })
                    .map_err(io::Error::other)
            }
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

    fn say(&mut self, message: &Message) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        self.writer.write(&mut bytes, message);
        self.stream
            .write_all(&bytes)
            .map_err(|error| RestoreError::Lost(error.to_string()))
    }

    /// Says what the disks hold, window by window, and stores what differs.
    pub(super) fn store_disks(&mut self, own: &OwnDisks) -> Result<(), RestoreError> {
        if self.taken != self.piece {
            return Err(out_of_order());
        }
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
            while self.store_next(&own.disks)? != (Arrived::Alike { device, end }) {}
        }
        match self.next()? {
            Arrived::End => Ok(()),
            _ => Err(out_of_order()),
        }
    }

    /// Stores what comes next, if it is to be stored.
    fn store_next(&mut self, disks: &[Disk]) -> Result<Arrived, RestoreError> {
        let arrived = self.next()?;
        let (device, stored) = match &arrived {
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
            Arrived::Alike { .. } => return Ok(arrived),
            Arrived::Piece { .. } | Arrived::Disks { .. } | Arrived::Round | Arrived::End => {
                return Err(out_of_order());
            }
        };
        stored.map_err(|error| {
            let what = format!("its disk {device} cannot be written here: {error}");
            RestoreError::Disk(what)
        })?;
        Ok(arrived)
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
