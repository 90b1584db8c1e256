//! Reads the machine out of the file of a journal's snapshot.

use super::storage::ReadFile;
use crate::packing::Unpacker;
use replication::journal::{JournalError, JournalHead, SnapshotFileReader, SnapshotPiece};
use std::io::{self, Read};

/// The machine's bytes in the file of a snapshot.
pub(super) struct SnapshotBytes {
    file: Box<dyn ReadFile>,
    reader: SnapshotFileReader,
    unpacker: Unpacker,
    piece: Vec<u8>,
    taken: usize,
    pieces: u64,
}

impl SnapshotBytes {
    /// Of a file that is open.
    pub(super) fn of(file: Box<dyn ReadFile>) -> io::Result<SnapshotBytes> {
        Ok(SnapshotBytes {
            file,
            reader: SnapshotFileReader::default(),
            unpacker: Unpacker::new()?,
            piece: Vec::new(),
            taken: 0,
            pieces: 0,
        })
    }

    /// What it says of itself, before any of its bytes were taken.
    pub(super) fn head(&mut self) -> io::Result<JournalHead> {
        self.next_piece()?;
        let head = self.reader.head().cloned();
        head.ok_or_else(|| io::Error::other(JournalError::NoHead))
    }

    /// Reads on to the next piece; false after the last.
    fn next_piece(&mut self) -> io::Result<bool> {
        loop {
            if let Some(piece) = self.reader.next_piece().map_err(io::Error::other)? {
                self.pieces += 1;
                self.piece = self.unpack(piece)?;
                self.taken = 0;
                return Ok(true);
            }
            let bytes = self.file.next_bytes()?;
            if bytes.is_empty() {
                self.reader.finish().map_err(io::Error::other)?;
                return Ok(false);
            }
            self.reader.push(&bytes);
        }
    }

    fn unpack(&mut self, piece: SnapshotPiece) -> io::Result<Vec<u8>> {
        match piece {
            SnapshotPiece::Plain(bytes) => Ok(bytes),
            SnapshotPiece::Packed { bytes, packed } => {
                let unpacked = self.unpacker.unpack(&packed, bytes);
                unpacked.ok_or_else(|| {
                    let why = format!("its piece {} cannot be unpacked", self.pieces);
                    io::Error::other(why)
                })
            }
        }
    }
}

impl Read for SnapshotBytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            if !self.next_piece()? {
                return Ok(0);
            }
        }
        let rest = &self.piece[self.taken..];
        let length = out.len().min(rest.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}
