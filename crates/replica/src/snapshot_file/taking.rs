//! Writes a snapshot to whoever asked for it, on a thread of its own, while the guest runs.

use crate::disk::{Content, CopiedPart, DiskChunk};
use crate::packing::Packer;
use crate::priority::yield_to_the_guest;
use crate::vcpu::{BegunSnapshot, PagesLost};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver};
use machine::memory::PageBatch;
use machine::snapshot::SnapshotWriter;
use replication::snapshot_file::{FileHead, FilePart, FileWriter, MAX_PART_BYTES};
use std::fmt;
use std::io::{self, Write};
use thiserror::Error;

/// A snapshot on its way.
pub struct TakingSnapshot {
    ended: Receiver<Result<Taken, String>>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the machine and of its disks.
    bytes: u64,
    /// Bytes of the file.
    packed: u64,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (bytes, packed) = (mib(self.bytes), mib(self.packed));
        write!(f, "{bytes:.1} MiB, packed to {packed:.1}")
    }
}

/// Why there is no whole file.
#[derive(Debug, Error)]
enum TakeError {
    #[error(
        "the machine here began to be copied for a backup or a journal, went live or ended meanwhile; ask again"
    )]
    Pages(#[from] PagesLost),
    #[error("{0}")]
    Disk(String),
    #[error("the copy of the disks ended before it was whole; ask again")]
    DisksLost,
    #[error("whoever asked for it took no more of it: {0}")]
    Receiver(#[from] io::Error),
}

impl TakingSnapshot {
    /// Starts it.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(
        begun: Box<BegunSnapshot>,
        head: FileHead,
        to: impl Write + Send + 'static,
        waker: Waker,
    ) -> io::Result<TakingSnapshot> {
        let (sender, ended) = mpsc::channel();
        environment::thread::Builder::new()
            .name("snapshot-file".into())
            .spawn(move || {
                yield_to_the_guest();
                let taken = take(&begun, &head, to);
                drop(begun);
                // A replica that has ended wants to know nothing.
                let _told = sender.send(taken.map_err(|error| error.to_string()));
                waker.wake();
            })?;
        Ok(TakingSnapshot { ended })
    }

    /// What came of it, once.
    pub fn ended(&self) -> Option<Result<Taken, String>> {
        self.ended.try_recv().ok()
    }
}

/// Writes all of it, or says at its end why not.
fn take(begun: &BegunSnapshot, head: &FileHead, to: impl Write) -> Result<Taken, TakeError> {
    let mut out = Out {
        file: FileWriter::begin(head),
        packer: Packer::new()?,
        to,
        taken: Taken::default(),
    };
    let written = machine(begun, &mut out).and_then(|()| disks(begun, &mut out));
    match &written {
        Ok(()) => out.file.end(),
        Err(error) => out.file.failed(&error.to_string()),
    }
    let flushed = out.flush();
    written?;
    flushed?;
    Ok(out.taken)
}

fn machine(begun: &BegunSnapshot, out: &mut Out<impl Write>) -> Result<(), TakeError> {
    let parts = MachineParts {
        out,
        bytes: Vec::new(),
        pages: None,
    };
    let mut writer = SnapshotWriter::begin(&begun.head, parts)?;
    writer.get_mut().end_part()?;
    while let Some(batch) = begun.pages.next_batch()? {
        writer.get_mut().pages = range(&batch);
        writer.pages(&batch)?;
        writer.get_mut().end_part()?;
        begun.pages.reuse(batch);
    }
    Ok(writer.end()?.end_part()?)
}

/// The lowest and the highest number of pages.
fn range(batch: &PageBatch) -> Option<(u32, u32)> {
    let mut indices = batch.iter().map(|(index, _)| index);
    let first = indices.next()?;
    Some(indices.fold((first, first), |(low, high), index| {
        (low.min(index), high.max(index))
    }))
}

fn disks(begun: &BegunSnapshot, out: &mut Out<impl Write>) -> Result<(), TakeError> {
    let mut missing: u64 = begun.disk_lengths.iter().sum();
    while let Ok(part) = begun.disk_parts.recv() {
        let CopiedPart::Chunk(chunk) = part else {
            continue;
        };
        let DiskChunk {
            device,
            offset: from,
            content,
        } = chunk;
        let content = content.map_err(TakeError::Disk)?;
        let to = from + content.length();
        missing = missing.saturating_sub(content.length());
        match content {
            Content::Bytes(bytes) if bytes.iter().any(|byte| *byte != 0) => {
                out.part(FilePart::Disk { device, from, to }, &bytes)?;
            }
            Content::Bytes(_) | Content::Zeros(_) => {
                out.taken.bytes += to - from;
                out.part(FilePart::Hole { device, from, to }, &[])?;
            }
        }
    }
    if missing > 0 {
        return Err(TakeError::DisksLost);
    }
    Ok(())
}

/// Where the file goes.
struct Out<W> {
    file: FileWriter,
    packer: Packer,
    to: W,
    taken: Taken,
}

impl<W: Write> Out<W> {
    fn part(&mut self, part: FilePart, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(part.bytes(), bytes.len() as u64, "{part}");
        self.taken.bytes += bytes.len() as u64;
        let packed = self.packer.pack(bytes)?;
        self.file.part(part, &packed);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.file.take_bytes();
        self.taken.packed += bytes.len() as u64;
        self.to.write_all(&bytes)
    }
}

/// Puts the machine's bytes into parts.
struct MachineParts<'a, W> {
    out: &'a mut Out<W>,
    bytes: Vec<u8>,
    /// The part that is being filled has pages of these numbers.
    pages: Option<(u32, u32)>,
}

impl<W: Write> MachineParts<'_, W> {
    fn end_part(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes.len() as u64;
        let part = match self.pages {
            Some((first, last)) => FilePart::Pages { first, last, bytes },
            None => FilePart::State { bytes },
        };
        self.out.part(part, &self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

impl<W: Write> Write for MachineParts<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_PART_BYTES as usize - self.bytes.len();
        let taken = bytes.len().min(room);
        self.bytes.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.end_part()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
