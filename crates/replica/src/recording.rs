//! Recordings: written by `understudy run --record`, run again by `understudy replay`.

use crate::vcpu::{Step, VisibleOutputs};
use machine::Machine;
use replication::log::{LogHeader, LogSummary, LogWriter, MAGIC as LOG_MAGIC};
use replication::record::{InstructionCount, Record, RecordBody};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A recording that cannot be written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file cannot be made or written.
    #[error("cannot write the recording {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that would be lost.
    #[error("{} exists and is no recording: name another file", path.display())]
    NoRecording {
        /// The file.
        path: PathBuf,
    },
    /// A recording that would be lost.
    #[error("{} exists and is a recording already: name another file, or remove it", path.display())]
    IsThere {
        /// The file.
        path: PathBuf,
    },
    /// Somebody records there or replays it, or it is a disk.
    #[error("the recording {} is in use: name another file", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// Makes an empty file its owner's alone; anything else is kept: its name was a slip, or somebody wants it.
fn begin_anew(file: &File, path: &Path) -> Result<(), RecordError> {
    let wrong = |source| RecordError::Write {
        path: path.into(),
        source,
    };
    if !file.metadata().map_err(wrong)?.is_file() {
        return Ok(());
    }
    let mut beginning = Vec::new();
    File::open(path)
        .and_then(|file| {
            let mut beginning_of_file = file.take(LOG_MAGIC.len() as u64);
            beginning_of_file.read_to_end(&mut beginning)
        })
        .map_err(wrong)?;
    let path = path.into();
    // One whose writer was killed may be cut short anywhere.
    match (beginning.is_empty(), LOG_MAGIC.starts_with(&beginning)) {
        (false, false) => Err(RecordError::NoRecording { path }),
        (false, true) => Err(RecordError::IsThere { path }),
        (true, _) => {
            let owned = file.set_permissions(Permissions::from_mode(0o600));
            owned.map_err(wrong)
        }
    }
}

/// Bytes that wait in memory before they go to the file.
const BUFFER_BYTES: usize = 256 << 10;
/// Pieces in which the snapshot is given to the log.
const SNAPSHOT_PIECE_BYTES: usize = 1 << 20;

/// Writes a recording. The writer's lock on the file tells a reader that it is still being written.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    file: File,
    log: LogWriter,
    waiting: Vec<u8>,
    last_count: InstructionCount,
    visible: u64,
    last_digest: u128,
}

impl Recorder {
    /// Begins a recording of `machine` as it is now: self-contained, with a snapshot.
    ///
    /// # Errors
    /// The file cannot be made or written, or is in use.
    pub fn create(
        path: &Path,
        guest_identity: &str,
        semantics_version: u32,
        machine: &mut dyn Machine,
    ) -> Result<Recorder, RecordError> {
        let wrong = |source| RecordError::Write {
            path: path.into(),
            source,
        };
        // For writing alone: who could read a pipe as well would never learn that its reader went away.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            // The machine's whole memory is in it.
            .mode(0o600)
            .open(path)
            .map_err(wrong)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(RecordError::InUse { path: path.into() }),
            Err(error) => return Err(wrong(error.into())),
        }
        begin_anew(&file, path)?;
        let log = LogWriter::new(&LogHeader {
            semantics_version,
            configuration_hash: machine.configuration_hash(),
            guest_identity: guest_identity.into(),
            has_snapshot: true,
            has_disk_reads: true,
        });
        let mut recorder = Recorder {
            path: path.into(),
            file,
            log,
            waiting: Vec::new(),
            last_count: InstructionCount(machine.instruction_count()),
            visible: machine.visible_outputs(),
            last_digest: machine.digest(),
        };
        let count = InstructionCount(machine.instruction_count());
        let mut pieces = Pieces {
            recorder: &mut recorder,
            piece: Vec::new(),
        };
        let written = machine
            .snapshot()
            .write_to(&mut pieces)
            .and_then(|()| pieces.flush());
        written.map_err(wrong)?;
        recorder.log.end_snapshot(count);
        recorder.write_out(0).map_err(wrong)?;
        Ok(recorder)
    }

    /// Adds what happened. It is in the file soon: a killed recorder loses the last moments only.
    pub fn add(&mut self, steps: &[Step]) -> Result<(), RecordError> {
        for step in steps {
            match step {
                Step::Record(record) => {
                    self.last_count = record.count;
                    if let RecordBody::Digest(digest) = record.body {
                        self.last_digest = digest;
                    }
                    self.log.record(record.clone());
                }
                // The record holds it.
                Step::Read(_) => {}
                Step::Outputs(VisibleOutputs { count, visible, .. })
                | Step::Pressed { count, visible, .. } => {
                    (self.last_count, self.visible) = (*count, *visible);
                    let body = RecordBody::Marker {
                        visible_outputs: *visible,
                    };
                    self.log.record(Record {
                        count: *count,
                        body,
                    });
                }
            }
        }
        let digest_was_taken = steps.iter().any(|step| {
            matches!(
                step,
                Step::Record(Record {
                    body: RecordBody::Digest(_),
                    ..
                })
            )
        });
        if digest_was_taken {
            self.log.flush();
        }
        self.write_out(if digest_was_taken { 0 } else { BUFFER_BYTES })
            .map_err(|source| self.error(source))
    }

    /// Ends the recording properly. The last digest that was added is that of the end.
    pub fn finish(mut self, reason: &str) -> Result<(), RecordError> {
        self.log.end(&LogSummary {
            final_count: self.last_count,
            visible_outputs: self.visible,
            records: 0,
            digest: self.last_digest,
            reason: reason.into(),
        });
        self.write_out(0)
            .and_then(|()| self.file.sync_all())
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> RecordError {
        RecordError::Write {
            path: self.path.clone(),
            source,
        }
    }

    /// Writes what waits. After an error the file ends in whatever part of it was written, and the
    /// next attempt goes on right there.
    fn write_out(&mut self, unless_fewer_than: usize) -> io::Result<()> {
        self.waiting.append(&mut self.log.take_bytes());
        if self.waiting.len() < unless_fewer_than {
            return Ok(());
        }
        let mut written = 0;
        let result = loop {
            if written == self.waiting.len() {
                break Ok(());
            }
            match self.file.write(&self.waiting[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.waiting.drain(..written);
        result
    }
}

/// Gives a snapshot to the log as it is written.
struct Pieces<'a> {
    recorder: &'a mut Recorder,
    piece: Vec<u8>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= SNAPSHOT_PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.recorder.log.snapshot(&std::mem::take(&mut self.piece));
        self.recorder.write_out(BUFFER_BYTES)
    }
}
