//! What goes over a link of a channel that has several. `docs/protocol.md`, "Links".

use super::LinkError;
use super::order::MAX_SEGMENT_BYTES;
use crate::wire::{Fields, WireError, put_bytes, put_varint};

const SEGMENT: u8 = 1;
const PROBE: u8 = 2;
const ECHO: u8 = 3;

/// One of them, where the reader has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFrame<'a> {
    /// A piece of what the channel carries.
    Segment {
        /// From 0.
        number: u64,
        /// At most [`MAX_SEGMENT_BYTES`].
        bytes: &'a [u8],
    },
    /// Is somebody there?
    Probe {
        /// Of this link and direction, from 1.
        probe: u64,
        /// All segments before this one have come.
        heard: u64,
    },
    /// Somebody is.
    Echo {
        /// The newest probe.
        probe: u64,
        /// All segments before this one have come.
        heard: u64,
    },
}

/// Appends a frame.
pub fn put_frame(out: &mut Vec<u8>, frame: &LinkFrame<'_>) {
    match *frame {
        LinkFrame::Segment { number, bytes } => {
            out.push(SEGMENT);
            put_varint(out, number);
            put_bytes(out, bytes);
        }
        LinkFrame::Probe { probe, heard } => put_pair(out, PROBE, probe, heard),
        LinkFrame::Echo { probe, heard } => put_pair(out, ECHO, probe, heard),
    }
}

fn put_pair(out: &mut Vec<u8>, kind: u8, probe: u64, heard: u64) {
    out.push(kind);
    put_varint(out, probe);
    put_varint(out, heard);
}

/// Takes frames out of what comes on one link, in pieces of any size. Holds at most one frame and the piece that was
/// pushed last.
#[derive(Clone, Debug, Default)]
pub struct LinkFrameReader {
    buffer: Vec<u8>,
    consumed: usize,
}

impl LinkFrameReader {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// What came is none: the channel is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<LinkFrame<'_>>, LinkError> {
        let rest = &self.buffer[self.consumed..];
        let mut fields = Fields::new(rest);
        match frame(&mut fields) {
            Ok(frame) => {
                self.consumed = self.buffer.len() - fields.rest().len();
                Ok(Some(frame))
            }
            Err(WireError::Truncated) => Ok(None),
            Err(error) => Err(LinkError::Frame(error)),
        }
    }
}

fn frame<'a>(fields: &mut Fields<'a>) -> Result<LinkFrame<'a>, WireError> {
    match fields.byte()? {
        SEGMENT => Ok(LinkFrame::Segment {
            number: fields.varint()?,
            bytes: fields.bytes("a segment", MAX_SEGMENT_BYTES)?,
        }),
        PROBE => Ok(LinkFrame::Probe {
            probe: fields.varint()?,
            heard: fields.varint()?,
        }),
        ECHO => Ok(LinkFrame::Echo {
            probe: fields.varint()?,
            heard: fields.varint()?,
        }),
        tag => Err(WireError::UnknownTag {
            what: "link frame",
            tag,
        }),
    }
}
