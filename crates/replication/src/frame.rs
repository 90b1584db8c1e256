//! Frames: the checked envelope of everything in a log and on the logging channel.
//!
//! `docs/log-format.md`, "A frame". Each checksum continues the one before, so a frame that is
//! missing, repeated or out of order fails its check like a damaged one.

use crate::wire::{WireError, put_varint};
use thiserror::Error;

/// The longest payload that the format can say: 16 MiB - 1.
pub const MAX_PAYLOAD: usize = (1 << 24) - 1;

/// Bytes of the longest header: kind, four of length, check, checksum.
const MAX_HEADER: usize = 10;

/// Why a stream of frames ends here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The header's check is wrong.
    #[error("the frame header at byte {offset} is damaged")]
    Header {
        /// Bytes from the start of the stream of frames.
        offset: u64,
    },
    /// The frame says that it is longer than the reader allows.
    #[error("the frame at byte {offset} says it has {length} bytes, more than the {limit} allowed")]
    TooLong {
        /// Bytes from the start.
        offset: u64,
        /// What it says.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The checksum is wrong: the frame is damaged, or one before it is missing.
    #[error(
        "the frame at byte {offset} fails its checksum: it is damaged or one before is missing"
    )]
    Checksum {
        /// Bytes from the start.
        offset: u64,
    },
    /// The payload makes no sense.
    #[error("the frame at byte {offset} cannot be understood: {source}")]
    Payload {
        /// Bytes from the start.
        offset: u64,
        /// Why.
        source: WireError,
    },
}

/// CRC-8 of the header (polynomial 0x07, start 0xff), so that a damaged length is told from a
/// frame whose end has not come yet.
fn header_check(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0xff, |mut crc, byte| {
        crc ^= byte;
        for _ in 0..8 {
            crc = if crc & 0x80 != 0 {
                crc << 1 ^ 0x07
            } else {
                crc << 1
            };
        }
        crc
    })
}

/// Puts payloads into frames. One for each direction of a connection, or for a file.
#[derive(Clone, Debug, Default)]
pub struct FrameWriter {
    chain: u32,
}

impl FrameWriter {
    /// Appends a frame to `out`. `kind` is 1 to 255; the payload at most [`MAX_PAYLOAD`] bytes.
    pub fn write(&mut self, out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
        self.write_head(out, kind, &[payload]);
        out.extend_from_slice(payload);
    }

    /// Appends all of a frame but its payload, which has to follow: these parts, one after the other.
    pub fn write_head(&mut self, out: &mut Vec<u8>, kind: u8, payload: &[&[u8]]) {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        assert!(kind != 0, "kind 0 is a file's unwritten tail");
        assert!(length <= MAX_PAYLOAD, "a frame of {length} bytes");
        let start = out.len();
        out.push(kind);
        put_varint(out, length as u64);
        out.push(header_check(&out[start..]));
        let chain = crc32c::crc32c_append(self.chain, &out[start..]);
        self.chain = payload
            .iter()
            .fold(chain, |chain, part| crc32c::crc32c_append(chain, part));
        out.extend_from_slice(&self.chain.to_le_bytes());
    }
}

/// A frame whose checks were right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// 1 to 255.
    pub kind: u8,
    /// Where it began, in bytes from the start of the stream of frames.
    pub offset: u64,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// A frame whose checks were right, where the reader has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BorrowedFrame<'a> {
    /// 1 to 255.
    pub kind: u8,
    /// Where it began, in bytes from the start of the stream of frames.
    pub offset: u64,
    /// What it holds.
    pub payload: &'a [u8],
}

/// Takes frames out of a stream of bytes that comes in pieces of any size.
///
/// Holds at most one frame's bytes and the piece last pushed. After an error every further call
/// gives the same error.
#[derive(Clone, Debug)]
pub struct FrameReader {
    chain: u32,
    limit: usize,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were taken, and that came.
    consumed: usize,
    end: usize,
    offset: u64,
    failed: Option<FrameError>,
}

struct Header {
    kind: u8,
    length: usize,
    size: usize,
    checksum: u32,
}

impl FrameReader {
    /// A reader that accepts payloads of up to `limit` bytes.
    pub fn new(limit: usize) -> FrameReader {
        let limit = limit.min(MAX_PAYLOAD);
        FrameReader {
            chain: 0,
            limit,
            buffer: Vec::new(),
            consumed: 0,
            end: 0,
            offset: 0,
            failed: None,
        }
    }

    /// Changes the longest payload that is accepted from the next frame on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_PAYLOAD);
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
            self.filled(bytes.len());
        }
    }

    /// Room for at least so many bytes, to be filled from the front: see [`FrameReader::filled`].
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.consumed == self.end {
            (self.consumed, self.end) = (0, 0);
        } else if self.buffer.len() < self.end + bytes {
            self.buffer.copy_within(self.consumed..self.end, 0);
            self.end -= self.consumed;
            self.consumed = 0;
        }
        if self.buffer.len() < self.end + bytes {
            self.buffer.resize(self.end + bytes, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes came into the front of the [`FrameReader::room`].
    ///
    /// # Panics
    /// There was less room.
    pub fn filled(&mut self, bytes: usize) {
        assert!(
            bytes <= self.buffer.len() - self.end,
            "{bytes} bytes came into less room"
        );
        self.end += bytes;
    }

    /// The last bytes of the last frame taken, until there was room asked for or bytes pushed.
    ///
    /// # Panics
    /// There are not so many.
    pub fn last_bytes(&self, bytes: usize) -> &[u8] {
        &self.buffer[self.consumed - bytes..self.consumed]
    }

    /// The bytes that are not yet part of a whole frame.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.consumed..self.end]
    }

    /// Takes the bytes away that are not yet part of a whole frame.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.rest().to_vec();
        self.end = self.consumed;
        rest
    }

    /// Where the next frame begins, in bytes from the start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next whole frame, or `None` until more bytes come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        Ok(self.next_borrowed()?.map(|frame| Frame {
            kind: frame.kind,
            offset: frame.offset,
            payload: frame.payload.to_vec(),
        }))
    }

    /// As [`FrameReader::next_frame`], without a copy.
    ///
    /// # Errors
    /// As [`FrameReader::next_frame`].
    pub fn next_borrowed(&mut self) -> Result<Option<BorrowedFrame<'_>>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let checked = self.check_next();
        let checked = checked.inspect_err(|error| self.failed = Some(error.clone()))?;
        let Some((header, offset)) = checked else {
            return Ok(None);
        };
        let end = self.consumed;
        Ok(Some(BorrowedFrame {
            kind: header.kind,
            offset,
            payload: &self.buffer[end - header.length..end],
        }))
    }

    /// Looks whether the next frame is there whole, and takes it if it is right. Gives its header, and
    /// where it began.
    fn check_next(&mut self) -> Result<Option<(Header, u64)>, FrameError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let rest = self.rest();
        let Some(payload) = rest.get(header.size..header.size + header.length) else {
            return Ok(None);
        };
        let chain = crc32c::crc32c_append(self.chain, &rest[..header.size - 4]);
        let chain = crc32c::crc32c_append(chain, payload);
        if chain != header.checksum {
            return Err(FrameError::Checksum {
                offset: self.offset,
            });
        }
        let size = header.size + header.length;
        let offset = self.offset;
        self.chain = chain;
        self.consumed += size;
        self.offset += size as u64;
        Ok(Some((header, offset)))
    }

    fn header(&self) -> Result<Option<Header>, FrameError> {
        let rest = self.rest();
        let damaged = FrameError::Header {
            offset: self.offset,
        };
        // The first byte alone tells this damage: `00 01` is no frame whose end is missing.
        if rest.first() == Some(&0) {
            return Err(damaged);
        }
        let mut length = 0usize;
        let mut at = 1;
        loop {
            let Some(&byte) = rest.get(at) else {
                return Ok(None);
            };
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if at == MAX_HEADER - 5 {
                return Err(damaged);
            }
        }
        let Some(&check) = rest.get(at) else {
            return Ok(None);
        };
        if header_check(&rest[..at]) != check {
            return Err(damaged);
        }
        if length > self.limit {
            let (offset, limit) = (self.offset, self.limit);
            return Err(FrameError::TooLong {
                offset,
                length,
                limit,
            });
        }
        let Some(checksum) = rest.get(at + 1..at + 5) else {
            return Ok(None);
        };
        let checksum = u32::from_le_bytes(checksum.try_into().map_err(|_| damaged)?);
        Ok(Some(Header {
            kind: rest[0],
            length,
            size: at + 5,
            checksum,
        }))
    }
}
