//! Reads the file of a snapshot, part by part.

use crate::packing::Unpacker;
use environment::fs::File;
use replication::snapshot_file::{FileError, FileHead, FileItem, FilePart, FileReader};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

const READ_BYTES: usize = 1 << 20;

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum SnapshotFileError {
    /// It is not there, or cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{}: {source}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FileError,
    },
    /// A part cannot be unpacked.
    #[error("{}: it is damaged in {part}: it cannot be unpacked", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// Which part.
        part: FilePart,
    },
    /// Whoever wrote it gave up.
    #[error("{}: it is not whole: {why}", path.display())]
    GivenUp {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It is a whole file, of another machine than this configuration's, or one that this program does not compute.
    #[error("{}: {why}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What differs, and what to do.
        why: String,
    },
}

/// An open file.
pub struct SnapshotSource {
    items: Items,
    head: FileHead,
    unpacker: Unpacker,
    /// A part that was read and not taken.
    next: Option<(FilePart, Vec<u8>)>,
}

/// What is in a file, in order.
struct Items {
    path: PathBuf,
    file: File,
    /// Bytes of the file that were read, and that it has.
    at: u64,
    length: u64,
    buffer: Vec<u8>,
    reader: FileReader,
}

impl Items {
    /// The next, or `None` after the last, when nothing is missing.
    fn next(&mut self) -> Result<Option<FileItem>, SnapshotFileError> {
        loop {
            if let Some(item) = self.reader.next_item().map_err(|why| self.bad(why))? {
                return Ok(Some(item));
            }
            let length = (self.length - self.at).min(READ_BYTES as u64);
            if length == 0 {
                return match self.reader.finish() {
                    Ok(()) => Ok(None),
                    Err(why) => Err(self.bad(why)),
                };
            }
            let bytes = &mut self.buffer[..length as usize];
            let read = self.file.read_exact_at(bytes, self.at);
            read.map_err(|source| SnapshotFileError::Unreadable {
                path: self.path.clone(),
                source,
            })?;
            self.at += length;
            self.reader.push(&self.buffer[..length as usize]);
        }
    }

    fn bad(&self, source: FileError) -> SnapshotFileError {
        let path = self.path.clone();
        SnapshotFileError::Bad { path, source }
    }
}

impl SnapshotSource {
    /// Opens it and reads what it says of itself.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn open(path: &Path) -> Result<SnapshotSource, SnapshotFileError> {
        let unreadable = |source| SnapshotFileError::Unreadable {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let mut items = Items {
            path: path.into(),
            length: file.length().map_err(unreadable)?,
            file,
            at: 0,
            buffer: vec![0; READ_BYTES],
            reader: FileReader::default(),
        };
        match items.next()? {
            Some(FileItem::Head(head)) => Ok(SnapshotSource {
                items,
                head: *head,
                unpacker: Unpacker::new().map_err(unreadable)?,
                next: None,
            }),
            // Nothing else comes first.
            _ => Err(items.bad(FileError::Foreign)),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.items.path
    }

    /// What it says of itself.
    pub fn head(&self) -> &FileHead {
        &self.head
    }

    /// How much of the file was read, in bytes, and how much it has.
    pub fn progress(&self) -> (u64, u64) {
        (self.items.at, self.items.length)
    }

    /// The next part, as it was packed; `None` after the last, when nothing is missing.
    ///
    /// # Errors
    /// It is damaged or torn, and where.
    pub fn next_packed(&mut self) -> Result<Option<(FilePart, Vec<u8>)>, SnapshotFileError> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        loop {
            match self.items.next()? {
                Some(FileItem::Part(part, packed)) => return Ok(Some((part, packed))),
                Some(FileItem::Failed(why)) => {
                    let path = self.items.path.clone();
                    return Err(SnapshotFileError::GivenUp { path, why });
                }
                Some(FileItem::Head(_) | FileItem::End) => {}
                None => return Ok(None),
            }
        }
    }

    /// Unpacks a part.
    ///
    /// # Errors
    /// It is not what was packed.
    pub fn unpack(&mut self, part: FilePart, packed: &[u8]) -> Result<Vec<u8>, SnapshotFileError> {
        let unpacked = self.unpacker.unpack(packed, part.bytes());
        unpacked.ok_or_else(|| SnapshotFileError::Packed {
            path: self.items.path.clone(),
            part,
        })
    }

    /// The next part of the machine, as it was packed; `None` when the disks' come.
    ///
    /// # Errors
    /// As [`SnapshotSource::next_packed`].
    pub fn next_packed_of_machine(
        &mut self,
    ) -> Result<Option<(FilePart, Vec<u8>)>, SnapshotFileError> {
        let next = self.next_packed()?;
        let is_machines = next.as_ref().is_some_and(|(part, _)| part.is_machines());
        if is_machines {
            return Ok(next);
        }
        self.next = next;
        Ok(None)
    }

    fn next_of_machine(&mut self) -> Result<Option<Vec<u8>>, SnapshotFileError> {
        match self.next_packed_of_machine()? {
            Some((part, packed)) => self.unpack(part, &packed).map(Some),
            None => Ok(None),
        }
    }
}

/// The machine's bytes in a file.
pub struct MachineBytes<'a> {
    source: &'a mut SnapshotSource,
    piece: Vec<u8>,
    taken: usize,
}

impl MachineBytes<'_> {
    /// Those that come next.
    pub fn of(source: &mut SnapshotSource) -> MachineBytes<'_> {
        MachineBytes {
            source,
            piece: Vec::new(),
            taken: 0,
        }
    }
}

impl Read for MachineBytes<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            match self.source.next_of_machine().map_err(io::Error::other)? {
                Some(piece) => (self.piece, self.taken) = (piece, 0),
                None => return Ok(0),
            }
        }
        let rest = &self.piece[self.taken..];
        let length = out.len().min(rest.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}
