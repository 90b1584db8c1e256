//! Writes the snapshot of a journal, on a thread of its own, while the guest runs.

use super::storage::{JournalFile, JournalFiles, SnapshotFile};
use super::{JournalNews, News, WrittenSnapshot};
use crate::disk::Freezing;
use crate::packing::Packer;
use crate::priority::yield_to_the_guest;
use crate::vcpu::{BegunSnapshot, PagesLost};
use environment::mpsc::Receiver;
use machine::memory::Extent;
use machine::snapshot::SnapshotWriter;
use replication::journal::{JournalHead, MAX_PIECE_BYTES, SnapshotFileWriter};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Bytes that wait in memory before they go to the file.
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes that are packed, and checked, together: about thirty pages.
const PIECE_BYTES: usize = 128 << 10;

const _: () = assert!(PIECE_BYTES <= MAX_PIECE_BYTES);

/// Why a snapshot is not there.
#[derive(Debug, Error)]
enum WriteError {
    #[error(transparent)]
    Pages(#[from] PagesLost),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Disk(String),
    #[error("the journal was given up before all that was said before it had left")]
    GivenUp,
}

/// Starts the thread, which tells what comes of it. The snapshot is not found before `may_count` says so.
///
/// # Errors
/// The host gives no thread.
pub(super) fn start(
    journal: Arc<dyn JournalFiles>,
    head: JournalHead,
    begun: Box<BegunSnapshot>,
    may_count: Receiver<()>,
    news: News,
) -> io::Result<()> {
    environment::thread::Builder::new()
        .name("journal-snapshot".into())
        .spawn(move || {
            yield_to_the_guest();
            let (id, is) = (head.id, head.as_base());
            let written = write(&*journal, &head, &begun, &may_count);
            let merged = written.and_then(|bytes| {
                // A crash from here on leaves disks to which it is done again at the next start.
                let merged = begun.freezing.as_ref().map_or(Ok(()), Freezing::merge);
                merged.map_err(WriteError::Disk).map(|()| bytes)
            });
            drop(begun);
            news.tell(match merged {
                Ok(bytes) => JournalNews::HasSnapshot(id, WrittenSnapshot { is, bytes }),
                Err(error) => {
                    JournalNews::Failed(id, format!("its snapshot cannot be written: {error}"))
                }
            });
        })?;
    Ok(())
}

/// Gives the bytes of its file.
fn write(
    journal: &dyn JournalFiles,
    head: &JournalHead,
    begun: &BegunSnapshot,
    may_count: &Receiver<()>,
) -> Result<u64, WriteError> {
    assert!(
        (begun.extent == Extent::Base) == head.builds_on.is_none(),
        "what builds on a snapshot holds what changed since then, and nothing else does"
    );
    let path = journal.path(Some(JournalFile::Snapshot(head.segment)));
    let failed = |source| WriteError::File {
        path: path.clone(),
        source,
    };
    let mut out = Pieces {
        file: journal.begin_snapshot(head.segment).map_err(failed)?,
        writer: SnapshotFileWriter::begin(head),
        packer: Packer::new().map_err(failed)?,
        piece: Vec::with_capacity(PIECE_BYTES),
        bytes: 0,
    };
    let writer = match head.builds_on {
        None => SnapshotWriter::begin(&begun.head, &mut out),
        Some(_) => SnapshotWriter::begin_increment(&begun.head, &mut out),
    };
    let mut writer = writer.map_err(failed)?;
    while let Some(batch) = begun.pages.next_batch()? {
        writer.pages(&batch).map_err(failed)?;
        begun.pages.reuse(batch);
    }
    writer.end().map_err(failed)?;
    out.end().map_err(failed)?;
    out.file.sync().map_err(failed)?;
    // Without the disks as they were then it is none.
    let synced = begun.freezing.as_ref().map_or(Ok(()), Freezing::sync);
    synced.map_err(WriteError::Disk)?;
    // A machine that goes on from it says nothing again of what was said before it.
    may_count.recv().map_err(|_| WriteError::GivenUp)?;
    out.file.end().map_err(failed)?;
    Ok(out.bytes)
}

/// Puts the machine's bytes into pieces, packs those, and puts them into the file.
struct Pieces {
    file: Box<dyn SnapshotFile>,
    writer: SnapshotFileWriter,
    packer: Packer,
    /// What was not packed yet.
    piece: Vec<u8>,
    /// Bytes that the file has.
    bytes: u64,
}

impl Pieces {
    fn end_piece(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            let packed = self.packer.pack(&self.piece)?;
            self.writer.packed(self.piece.len(), &packed);
            self.piece.clear();
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.end_piece()?;
        self.writer.end();
        self.flush()
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = room.min(bytes.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.end_piece()?;
        }
        if self.writer.waiting_bytes() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.writer.take_bytes();
        self.bytes += bytes.len() as u64;
        self.file.append(&bytes)
    }
}
