//! Whether a disk that failed takes writes again.

use super::{Disk, DiskError};
use crate::config::DiskFile;
use crate::wake::Waker;
use environment::fs::{self, File, Kind, OpenOptions};
use environment::mpsc::{self, Receiver};
use machine::output::DiskOperation;
use qcow2::OpenError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// After a failure the disk is tried so late, and after each further one twice as late.
const FIRST_TRY: Duration = Duration::from_secs(5);
/// At most.
const LATEST_TRY: Duration = Duration::from_secs(300);
/// What has to find room beside the image.
const SCRATCH_BYTES: usize = 1 << 20;

/// Why a disk still takes no writes.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] DiskError),
    /// It can be read or written no better than before.
    #[error("{0}")]
    Request(String),
    /// There is no room beside it.
    #[error("cannot write {}: {source}", path.display())]
    NoRoom {
        /// The file that was tried.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A disk that failed, and when it is tried again. A thread tries it: it may take as long as it likes.
#[derive(Debug)]
pub struct FailedDisk {
    /// What failed first, or last when it was tried.
    what: String,
    wait: Duration,
    /// On the monotonic clock.
    due: Duration,
    trying: Option<Receiver<Result<(), ProbeError>>>,
}

impl FailedDisk {
    /// It failed at `now`.
    pub fn new(now: Duration, what: String) -> FailedDisk {
        FailedDisk {
            what,
            wait: FIRST_TRY,
            due: now + FIRST_TRY,
            trying: None,
        }
    }

    /// It failed once more, in earnest.
    pub fn failed_again(&mut self, now: Duration, what: String) {
        self.what = what;
        self.wait = (self.wait * 2).min(LATEST_TRY);
        self.due = now + self.wait;
        self.trying = None;
    }

    /// What failed.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// When [`try_again`](Self::try_again) has something to do; `None` while the disk is being tried.
    pub fn deadline(&self) -> Option<Duration> {
        self.trying.is_none().then_some(self.due)
    }

    /// Tries it when that is due. True once it takes writes again.
    pub fn try_again(&mut self, now: Duration, disks: &[DiskFile], waker: &Waker) -> bool {
        if let Some(trying) = &self.trying {
            match trying.try_recv() {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => self.failed_again(now, error.to_string()),
                Err(mpsc::TryRecvError::Empty) => {}
                // The host has no threads to give.
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.failed_again(now, self.what.clone());
                }
            }
        } else if now >= self.due {
            let (sender, trying) = mpsc::channel();
            let (disks, waker) = (disks.to_vec(), waker.clone());
            let thread = environment::thread::Builder::new().name("probe".into());
            // One that cannot be started has dropped its sender.
            let _started = thread.spawn(move || {
                let result = disks.iter().try_for_each(probe);
                let _sent = sender.send(result);
                waker.wake();
            });
            self.trying = Some(trying);
        }
        false
    }
}

/// Writes what is there anyway, and something new beside it.
fn probe(file: &DiskFile) -> Result<(), ProbeError> {
    if file.is_shared {
        // The live machine has it, and nobody else writes to it.
        return read_shared(file);
    }
    let disk = match Disk::open(file) {
        Ok(disk) => disk,
        // A backup makes its image, of whatever length it needs.
        Err(DiskError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return beside(file);
        }
        Err(DiskError::Size { .. }) => return beside(file),
        Err(DiskError::Image {
            source: OpenError::NotQcow2,
            ..
        }) => return beside(file),
        Err(error) => return Err(error.into()),
    };
    let request = |operation: DiskOperation| {
        let outcome = disk.perform(&operation);
        match outcome.host_error {
            None => Ok(outcome.data),
            Some(error) => Err(ProbeError::Request(error)),
        }
    };
    let data = request(DiskOperation::Read {
        sector: 0,
        length: super::SECTOR_BYTES as u32,
    })?;
    if file.read_only {
        return Ok(());
    }
    request(DiskOperation::Write { sector: 0, data })?;
    request(DiskOperation::Flush)?;
    beside(file)
}

fn read_shared(file: &DiskFile) -> Result<(), ProbeError> {
    let read = Disk::check(file).map(|()| {
        let mut sector = [0; super::SECTOR_BYTES as usize];
        File::open(&file.path)?.read_exact_at(&mut sector, 0)
    });
    read?.map_err(|error| {
        ProbeError::Request(format!("disk {}: read: {error}", file.path.display()))
    })
}

/// Whether there is room beside an image; beside a block device is nothing.
fn beside(file: &DiskFile) -> Result<(), ProbeError> {
    if fs::look_at(&file.path).is_ok_and(|(kind, _)| kind != Kind::Plain) {
        return Ok(());
    }
    let mut path = file.path.clone().into_os_string();
    path.push(".probe");
    let path = PathBuf::from(path);
    scratch(&path).map_err(|source| ProbeError::NoRoom { path, source })
}

/// Whether there is room for a new file.
fn scratch(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file
        .write_all_at(&vec![0x5a; SCRATCH_BYTES], 0)
        .and_then(|()| file.sync_all());
    fs::remove_file(path)?;
    written
}
