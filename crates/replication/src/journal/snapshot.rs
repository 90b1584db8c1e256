//! The file of a snapshot: whose it is, and the machine's own bytes in pieces that are checked one by
//! one.

use super::{
    FrameError, JournalError, JournalHead, KIND_END, KIND_HEAD, KIND_PIECE, Preamble,
    SNAPSHOT_MAGIC, preamble,
};
use crate::frame::{FrameReader, FrameWriter, MAX_PAYLOAD};
use crate::wire::{Fields, put_varint};

/// Bytes of a piece: a page and its number, or a few of them.
const PIECE_BYTES: usize = 16 << 10;

/// Writes the file of a snapshot.
pub struct SnapshotFileWriter {
    frames: FrameWriter,
    out: Vec<u8>,
    piece: Vec<u8>,
    bytes: u64,
}

impl SnapshotFileWriter {
    /// Begins one.
    pub fn begin(head: &JournalHead) -> SnapshotFileWriter {
        let mut writer = SnapshotFileWriter {
            frames: FrameWriter::default(),
            out: preamble(SNAPSHOT_MAGIC),
            piece: Vec::with_capacity(PIECE_BYTES),
            bytes: 0,
        };
        let head = head.encode();
        writer.frames.write(&mut writer.out, KIND_HEAD, &head);
        writer
    }

    /// Adds bytes of the snapshot.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = PIECE_BYTES - self.piece.len();
            let (own, rest) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(own);
            bytes = rest;
            if self.piece.len() == PIECE_BYTES {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            self.frames.write(&mut self.out, KIND_PIECE, &self.piece);
            self.piece.clear();
        }
    }

    /// There are no more.
    pub fn end(&mut self) {
        self.end_piece();
        let mut payload = Vec::new();
        put_varint(&mut payload, self.bytes);
        self.frames.write(&mut self.out, KIND_END, &payload);
    }

    /// Bytes that wait to be taken.
    pub fn waiting_bytes(&self) -> usize {
        self.out.len()
    }

    /// The bytes since the last call.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// Reads the file of a snapshot from bytes in pieces of any size.
pub struct SnapshotFileReader {
    preamble: Preamble,
    frames: FrameReader,
    head: Option<JournalHead>,
    pieces: u64,
    bytes: u64,
    is_whole: bool,
}

impl Default for SnapshotFileReader {
    fn default() -> SnapshotFileReader {
        SnapshotFileReader {
            preamble: Preamble::default(),
            frames: FrameReader::new(MAX_PAYLOAD),
            head: None,
            pieces: 0,
            bytes: 0,
            is_whole: false,
        }
    }
}

impl SnapshotFileReader {
    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        let rest = self.preamble.push(bytes);
        self.frames.push(rest);
    }

    /// Its head, once it has come.
    pub fn head(&self) -> Option<&JournalHead> {
        self.head.as_ref()
    }

    /// The next of the snapshot's bytes, or `None` until more come, or after the last.
    ///
    /// # Errors
    /// It is no snapshot's file, or a piece is damaged, which is named.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        loop {
            if self.is_whole || !self.preamble.check(SNAPSHOT_MAGIC)? {
                return Ok(None);
            }
            let frame = match self.frames.next_frame() {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame,
                Err(why) => return Err(self.damaged(why)),
            };
            let offset = frame.offset;
            let garbled = |source| FrameError::Payload { offset, source };
            match (frame.kind, &self.head) {
                (KIND_HEAD, None) => {
                    let head = JournalHead::decode(&frame.payload);
                    self.head = Some(head.map_err(|error| self.damaged(garbled(error)))?);
                }
                (KIND_PIECE, Some(_)) => {
                    self.pieces += 1;
                    self.bytes += frame.payload.len() as u64;
                    return Ok(Some(frame.payload));
                }
                (KIND_END, Some(_)) => {
                    let mut fields = Fields::new(&frame.payload);
                    let bytes = fields.varint();
                    let bytes = bytes.map_err(|error| self.damaged(garbled(error)))?;
                    if bytes != self.bytes {
                        return Err(self.short());
                    }
                    self.is_whole = true;
                }
                _ => return Err(self.damaged(FrameError::Header { offset })),
            }
        }
    }

    fn damaged(&self, why: FrameError) -> JournalError {
        JournalError::Piece {
            piece: self.pieces + 1,
            from: self.bytes,
            to: self.bytes + PIECE_BYTES as u64,
            why,
        }
    }

    fn short(&self) -> JournalError {
        let (pieces, bytes) = (self.pieces, self.bytes);
        JournalError::Short { pieces, bytes }
    }

    /// Checks that everything came, after there are no more bytes.
    ///
    /// # Errors
    /// Something is missing.
    pub fn finish(&self) -> Result<(), JournalError> {
        if self.is_whole && self.frames.rest().is_empty() {
            return Ok(());
        }
        if self.head.is_none() {
            return Err(JournalError::NoHead);
        }
        Err(self.short())
    }
}
