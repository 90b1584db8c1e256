//! A stream of bytes in chunks, each as it is or packed: what a channel and a copy become where the network is what
//! everybody waits for. `docs/protocol.md`, "Packed".
//!
//! A chunk is a byte that says how it is, the length of what follows as a varint, and that. Packed chunks are one
//! Zstandard frame that goes on from chunk to chunk, so that each is told in terms of those before; each can be
//! unpacked as a whole when it has come.

use replication::message::MAX_MESSAGE_BYTES;
use replication::wire::put_varint;
use std::io;
use thiserror::Error;
use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// The quickest of Zstandard's usual levels.
const LEVEL: i32 = 1;
/// What a chunk can refer to, as a power of two of bytes: both ends hold so much.
const WINDOW_LOG: u32 = 18;
/// The longest chunk, packed or not: a message, its frame, and what Zstandard adds to what it cannot pack.
const MAX_CHUNK: u64 = MAX_MESSAGE_BYTES as u64 + (64 << 10);
/// Packed at once, in bytes.
const PIECE: usize = 64 << 10;

const PLAIN: u8 = 0;
const PACKED: u8 = 1;

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// Neither packed nor plain.
    #[error("a chunk of its stream says it is of kind {0}")]
    Kind(u8),
    /// No program sends such a chunk.
    #[error("a chunk of its stream says it has {0} bytes")]
    Length(u64),
    /// It cannot be unpacked.
    #[error("a packed chunk of its stream is damaged")]
    Damaged,
    /// It is more than is sent so.
    #[error("a packed chunk of its stream holds more than {0} bytes")]
    TooMuch(u64),
}

/// Makes chunks, for one direction of one connection.
pub struct StreamPacker {
    encoder: Encoder<'static>,
    packed: Vec<u8>,
}

impl StreamPacker {
    /// Of a stream that begins.
    ///
    /// # Errors
    /// The host gives no memory.
    pub fn new() -> io::Result<StreamPacker> {
        let mut encoder = Encoder::new(LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        Ok(StreamPacker {
            encoder,
            packed: Vec::new(),
        })
    }

    /// Appends a chunk of `bytes` to `out`: packed, whatever comes of it.
    ///
    /// # Errors
    /// The host gives no memory: the stream cannot go on.
    pub fn pack(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        assert!(bytes.len() as u64 <= MAX_CHUNK, "no message is so long");
        self.packed.clear();
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.packed.reserve(PIECE);
            let end = self.packed.len();
            let mut room = OutBuffer::around_pos(&mut self.packed, end);
            self.encoder.run(&mut input, &mut room)?;
        }
        loop {
            self.packed.reserve(PIECE);
            let end = self.packed.len();
            let mut room = OutBuffer::around_pos(&mut self.packed, end);
            if self.encoder.flush(&mut room)? == 0 {
                break;
            }
        }
        put_head(PACKED, self.packed.len(), out);
        out.extend_from_slice(&self.packed);
        Ok(())
    }
}

impl std::fmt::Debug for StreamPacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamPacker").finish_non_exhaustive()
    }
}

/// Appends a chunk of `bytes` to `out` as they are.
pub fn put_plain(bytes: &[u8], out: &mut Vec<u8>) {
    put_head(PLAIN, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends what precedes a chunk of `length` bytes that follow as they are.
pub fn put_plain_head(length: usize, out: &mut Vec<u8>) {
    put_head(PLAIN, length, out);
}

fn put_head(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.push(kind);
    put_varint(out, length as u64);
}

/// Where a reader is in the stream.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Before a chunk.
    Kind,
    /// In the length of a chunk of this kind: so far, and where its next bits belong.
    Length { kind: u8, length: u64, shift: u32 },
    /// In a chunk: so many bytes are to come.
    Plain { left: u64 },
    /// …of a packed one, that has given so many. `has_more`: room was filled, and more may wait behind it.
    Packed {
        left: u64,
        given: u64,
        has_more: bool,
    },
}

/// Reads chunks, of one direction of one connection.
pub struct StreamUnpacker {
    decoder: Decoder<'static>,
    place: Place,
    /// What a packed chunk holds at most, in bytes.
    most: u64,
}

impl StreamUnpacker {
    /// Of a stream that begins, whose packed chunks hold `most` bytes each at most.
    ///
    /// # Errors
    /// The host gives no memory.
    pub fn new(most: usize) -> io::Result<StreamUnpacker> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(StreamUnpacker {
            decoder,
            place: Place::Kind,
            most: most as u64,
        })
    }

    /// Takes some of what came of the stream, and puts what it holds at the front of `room`. Says how many bytes were
    /// taken, and put. Nothing of both: there is nothing more to be had from what came. After an error the stream is
    /// of no more use.
    ///
    /// # Errors
    /// It is no such stream.
    pub fn unpack(&mut self, bytes: &[u8], room: &mut [u8]) -> Result<(usize, usize), StreamError> {
        assert!(!room.is_empty(), "there is room for something");
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let (now, put) = match (self.place, rest) {
                (
                    Place::Packed {
                        left,
                        given,
                        has_more,
                    },
                    _,
                ) if has_more || !rest.is_empty() => self.unpack_chunk(rest, left, given, room)?,
                (_, []) => return Ok((taken, 0)),
                (Place::Kind, [kind, ..]) => {
                    self.place = chunk_begins(*kind)?;
                    (1, 0)
                }
                (
                    Place::Length {
                        kind,
                        length,
                        shift,
                    },
                    [byte, ..],
                ) => {
                    self.place = length_goes_on(kind, length, shift, *byte)?;
                    (1, 0)
                }
                (Place::Packed { .. }, _) => {
                    unreachable!("there is something of it, or nothing at all")
                }
                (Place::Plain { left }, _) => {
                    let length = at_most(rest.len().min(room.len()), left);
                    room[..length].copy_from_slice(&rest[..length]);
                    self.place = match left - length as u64 {
                        0 => Place::Kind,
                        left => Place::Plain { left },
                    };
                    (length, length)
                }
            };
            taken += now;
            if put > 0 {
                return Ok((taken, put));
            }
        }
    }

    /// …of a packed chunk of which `left` bytes are to come, and which has given `given`.
    fn unpack_chunk(
        &mut self,
        bytes: &[u8],
        left: u64,
        given: u64,
        room: &mut [u8],
    ) -> Result<(usize, usize), StreamError> {
        let mut input = InBuffer::around(&bytes[..at_most(bytes.len(), left)]);
        let mut output = OutBuffer::around(&mut *room);
        let ran = self.decoder.run(&mut input, &mut output);
        let hint = ran.map_err(|_| StreamError::Damaged)?;
        if hint == 0 {
            // The frame says that it is over, and a stream's is not before the connection's end.
            return Err(StreamError::Damaged);
        }
        let (taken, put) = (input.pos(), output.as_slice().len());
        let (left, given) = (left - taken as u64, given + put as u64);
        if given > self.most {
            return Err(StreamError::TooMuch(self.most));
        }
        let has_more = put == room.len();
        assert!(
            taken > 0 || put > 0 || !has_more,
            "unpacking gets on, or waits for more"
        );
        self.place = match left == 0 && !has_more {
            true => Place::Kind,
            false => Place::Packed {
                left,
                given,
                has_more,
            },
        };
        Ok((taken, put))
    }
}

impl std::fmt::Debug for StreamUnpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamUnpacker")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// The first byte of a chunk.
fn chunk_begins(kind: u8) -> Result<Place, StreamError> {
    match kind {
        PLAIN | PACKED => Ok(Place::Length {
            kind,
            length: 0,
            shift: 0,
        }),
        _ => Err(StreamError::Kind(kind)),
    }
}

/// The next byte of a chunk's length.
fn length_goes_on(kind: u8, length: u64, shift: u32, byte: u8) -> Result<Place, StreamError> {
    let length = length | u64::from(byte & 0x7f) << shift;
    if length > MAX_CHUNK {
        return Err(StreamError::Length(length));
    }
    Ok(match (byte & 0x80, kind) {
        // Four bytes say more than the longest.
        (0x80, _) if shift >= 21 => return Err(StreamError::Length(length)),
        (0x80, _) => Place::Length {
            kind,
            length,
            shift: shift + 7,
        },
        _ if length == 0 => return Err(StreamError::Length(0)),
        (_, PACKED) => Place::Packed {
            left: length,
            given: 0,
            has_more: false,
        },
        _ => Place::Plain { left: length },
    })
}

/// The lesser of both.
fn at_most(length: usize, most: u64) -> usize {
    usize::try_from(most).map_or(length, |most| length.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 1 << 20;

    fn unpacked(stream: &[u8], pieces: &[usize]) -> Result<Vec<u8>, StreamError> {
        let mut unpacker = StreamUnpacker::new(MOST).unwrap();
        let mut out = Vec::new();
        let (mut rest, mut pieces) = (stream, pieces.iter().cycle());
        while !rest.is_empty() {
            let (mut came, after) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
            let mut room = vec![0; *pieces.next().unwrap()];
            loop {
                let (taken, put) = unpacker.unpack(came, &mut room)?;
                out.extend_from_slice(&room[..put]);
                came = &came[taken..];
                if (taken, put) == (0, 0) {
                    break;
                }
            }
            assert!(came.is_empty(), "everything is taken");
            rest = after;
        }
        Ok(out)
    }

    fn chunks() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
        let bytes = prop_oneof![
            prop::collection::vec(any::<u8>(), 1..300),
            (any::<u8>(), 1usize..300_000).prop_map(|(byte, length)| vec![byte; length]),
        ];
        prop::collection::vec((any::<bool>(), bytes), 1..20)
    }

    proptest! {
        #[test]
        fn whatever_is_packed_and_however_it_is_cut_the_bytes_are_the_same(
            chunks in chunks(),
            pieces in prop::collection::vec(1usize..5000, 2..5),
        ) {
            let mut packer = StreamPacker::new().unwrap();
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for (packs, bytes) in &chunks {
                match packs {
                    true => packer.pack(bytes, &mut stream).unwrap(),
                    false => put_plain(bytes, &mut stream),
                }
                expected.extend_from_slice(bytes);
                // Each chunk is whole when it has come.
                prop_assert!(unpacked(&stream, &pieces).unwrap() == expected);
            }
        }

        #[test]
        fn garbage_is_an_error_or_waits_and_takes_no_room(
            mut stream in prop::collection::vec(any::<u8>(), 1..600),
            kind in 0u8..3,
        ) {
            stream[0] = kind;
            let given = unpacked(&stream, &[7]).map_or(0, |given| given.len() as u64);
            prop_assert!(given <= MOST as u64 + 600);
        }

        #[test]
        fn a_flipped_bit_of_a_packed_chunk_never_panics(
            bytes in prop::collection::vec(0u8..4, 1..3000),
            at in any::<prop::sample::Index>(),
            bit in 0u32..8,
        ) {
            let mut stream = Vec::new();
            StreamPacker::new().unwrap().pack(&bytes, &mut stream).unwrap();
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
            let _ended = unpacked(&stream, &[100]);
        }
    }

    #[test]
    fn what_repeats_chunks_before_it_is_told_in_a_few_bytes() {
        let mut packer = StreamPacker::new().unwrap();
        let chunk: Vec<u8> = (0..600u32).map(|n| ((n * n) >> 3) as u8).collect();
        let mut stream = Vec::new();
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let before = stream.len();
            packer.pack(&chunk, &mut stream).unwrap();
            lengths.push(stream.len() - before);
        }
        assert!(lengths[1] < 40 && lengths[2] < 40, "{lengths:?}");
    }

    /// A bomb: a few kilobytes that hold gigabytes.
    #[test]
    fn a_chunk_that_holds_more_than_any_message_is_refused() {
        let mut encoder = Encoder::new(LEVEL).unwrap();
        encoder
            .set_parameter(CParameter::WindowLog(WINDOW_LOG))
            .unwrap();
        let zeros = vec![0; 2 * MOST];
        let mut packed = Vec::with_capacity(1 << 20);
        let mut input = InBuffer::around(&zeros[..]);
        let mut room = OutBuffer::around(&mut packed);
        encoder.run(&mut input, &mut room).unwrap();
        assert_eq!(encoder.flush(&mut room).unwrap(), 0);
        let mut stream = Vec::new();
        put_head(PACKED, packed.len(), &mut stream);
        stream.extend_from_slice(&packed);
        assert!(stream.len() < 10_000, "{}", stream.len());
        assert_eq!(
            unpacked(&stream, &[4096]),
            Err(StreamError::TooMuch(MOST as u64))
        );
    }

    /// Whoever says a larger window makes nobody hold it.
    #[test]
    fn a_larger_window_is_refused() {
        let bytes: Vec<u8> = (0..4u32 << 20).map(|n| (n >> 9) as u8).collect();
        let mut encoder = Encoder::new(LEVEL).unwrap();
        encoder.set_parameter(CParameter::WindowLog(23)).unwrap();
        let mut packed = Vec::with_capacity(8 << 20);
        let mut room = OutBuffer::around(&mut packed);
        let mut input = InBuffer::around(&bytes[..]);
        encoder.run(&mut input, &mut room).unwrap();
        assert_eq!(encoder.flush(&mut room).unwrap(), 0);
        let mut stream = Vec::new();
        put_head(PACKED, packed.len(), &mut stream);
        stream.extend_from_slice(&packed);
        assert_eq!(unpacked(&stream, &[4096]), Err(StreamError::Damaged));
    }

    #[test]
    fn lengths_and_kinds_that_no_program_sends_are_refused() {
        assert_eq!(unpacked(&[2, 1, 0], &[9]), Err(StreamError::Kind(2)));
        assert_eq!(unpacked(&[0, 0], &[9]), Err(StreamError::Length(0)));
        let endless = unpacked(&[0, 0xff, 0xff, 0xff, 0xff, 1], &[9]);
        assert!(matches!(endless, Err(StreamError::Length(_))));
    }
}
