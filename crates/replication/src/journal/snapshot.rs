//! The file of a snapshot: whose it is, and the machine's own bytes in pieces that are checked one by
//! one. Whoever writes it packs them: nothing is packed or unpacked here.

use super::{
    FORMAT_VERSION, FrameError, JournalError, JournalHead, KIND_END, KIND_HEAD, KIND_PACKED_PIECE,
    KIND_PIECE, SNAPSHOT_MAGIC, known_version,
};
use crate::frame::{FrameReader, FrameWriter, MAX_PAYLOAD};
use crate::preamble::{Preamble, preamble};
use crate::wire::{Fields, put_varint};

/// Bytes of a piece before it is packed, at most.
pub const MAX_PIECE_BYTES: usize = 1 << 20;

/// Some of the machine's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotPiece {
    /// As they are.
    Plain(Vec<u8>),
    /// Packed.
    Packed {
        /// Bytes that they have unpacked, [`MAX_PIECE_BYTES`] at most.
        bytes: u64,
        /// What was packed.
        packed: Vec<u8>,
    },
}

/// Writes the file of a snapshot.
pub struct SnapshotFileWriter {
    frames: FrameWriter,
    out: Vec<u8>,
    bytes: u64,
}

impl SnapshotFileWriter {
    /// Begins one.
    pub fn begin(head: &JournalHead) -> SnapshotFileWriter {
        let mut writer = SnapshotFileWriter {
            frames: FrameWriter::default(),
            out: preamble(SNAPSHOT_MAGIC, FORMAT_VERSION),
            bytes: 0,
        };
        let head = head.encode();
        writer.frames.write(&mut writer.out, KIND_HEAD, &head);
        writer
    }

    /// Adds a piece of the snapshot that has so many bytes unpacked, [`MAX_PIECE_BYTES`] at most.
    pub fn packed(&mut self, bytes: usize, packed: &[u8]) {
        assert!(bytes <= MAX_PIECE_BYTES, "a piece of {bytes} bytes");
        self.bytes += bytes as u64;
        let mut payload = Vec::with_capacity(packed.len() + 10);
        put_varint(&mut payload, bytes as u64);
        payload.extend_from_slice(packed);
        self.frames
            .write(&mut self.out, KIND_PACKED_PIECE, &payload);
    }

    /// There are no more.
    pub fn end(&mut self) {
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
    pub fn next_piece(&mut self) -> Result<Option<SnapshotPiece>, JournalError> {
        loop {
            let Some(version) = known_version(&self.preamble, SNAPSHOT_MAGIC)? else {
                return Ok(None);
            };
            if self.is_whole {
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
                    let head = JournalHead::decode(&frame.payload, version);
                    self.head = Some(head.map_err(|error| self.damaged(garbled(error)))?);
                }
                (KIND_PIECE, Some(_)) => {
                    self.pieces += 1;
                    self.bytes += frame.payload.len() as u64;
                    return Ok(Some(SnapshotPiece::Plain(frame.payload)));
                }
                (KIND_PACKED_PIECE, Some(_)) => {
                    let mut fields = Fields::new(&frame.payload);
                    let bytes = fields.varint();
                    let bytes = bytes.map_err(|error| self.damaged(garbled(error)))?;
                    if bytes > MAX_PIECE_BYTES as u64 {
                        return Err(self.damaged(FrameError::Header { offset }));
                    }
                    let packed = fields.remainder().to_vec();
                    self.pieces += 1;
                    self.bytes += bytes;
                    return Ok(Some(SnapshotPiece::Packed { bytes, packed }));
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
