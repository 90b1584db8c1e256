//! Carries out the disks' requests, in order, on a thread of its own.

use super::Disk;
use super::copy::{CopiedPart, DiskCopy};
use environment::mpsc::{self, Receiver, RecvError, Sender, SyncSender, TryRecvError};
use environment::thread::JoinHandle;
use machine::input::{DiskStatus, Input};
use machine::output::{DiskOperation, DiskRequest};
use std::io;
use std::sync::{Arc, Mutex};

/// A request that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Index among the machine's disks.
    pub device: u8,
    /// The request's number.
    pub request: u64,
    /// How it ended, for the guest.
    pub status: DiskStatus,
    /// It was a flush: the guest takes its end for a promise.
    pub is_flush: bool,
    /// What was read.
    pub data: Vec<u8>,
    /// How this host failed it, if it did.
    pub host_error: Option<String>,
}

impl Completion {
    /// As the machine takes it.
    pub fn into_input(self) -> Input {
        Input::DiskCompletion {
            device: self.device,
            request: self.request,
            status: self.status,
            data: self.data,
        }
    }
}

enum Command {
    Request(DiskRequest),
    /// Send what the disks hold now, whatever is written to them later.
    Copy(SyncSender<CopiedPart>),
}

/// The thread. It ends, after all that was submitted, when this and its clones are dropped.
#[derive(Clone)]
pub struct DiskThread {
    commands: Sender<Command>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl DiskThread {
    /// Starts it; `completed` is called there with every completion.
    pub fn start(
        disks: Arc<Vec<Disk>>,
        completed: impl Fn(Completion) + Send + 'static,
    ) -> io::Result<DiskThread> {
        let (commands, received) = mpsc::channel();
        let thread = environment::thread::Builder::new()
            .name("disk".into())
            .spawn(move || serve(&disks, &received, &completed))?;
        Ok(DiskThread {
            commands,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// For the one who wants to wait for its end, when the disks are closed: the first call has it.
    pub fn join_handle(&self) -> Option<JoinHandle<()>> {
        // The lock is held for this only, and nothing here panics.
        self.thread.lock().ok()?.take()
    }

    /// Submits a request; its completion comes through the callback.
    pub fn submit(&self, request: DiskRequest) {
        // The thread ends only with this object.
        let _sent = self.commands.send(Command::Request(request));
    }

    /// Copies what the disks hold after all requests submitted so far, while later requests go on:
    /// a chunk that a later write would change is put aside first. The receiver gets everything once, and
    /// the channel closes when all was sent. A receiver that goes away ends the copy.
    pub fn begin_copy(&self) -> Receiver<CopiedPart> {
        // Two parts on the way: enough to keep a link busy, little memory.
        let (sender, parts) = mpsc::sync_channel(2);
        let _sent = self.commands.send(Command::Copy(sender));
        parts
    }
}

fn serve(disks: &[Disk], commands: &Receiver<Command>, completed: &impl Fn(Completion)) {
    let mut copy: Option<DiskCopy> = None;
    loop {
        let command = match &copy {
            None => commands
                .recv()
                .map_err(|RecvError| TryRecvError::Disconnected),
            Some(_) => commands.try_recv(),
        };
        match command {
            Ok(Command::Request(request)) => {
                if copy
                    .as_mut()
                    .is_some_and(|copy| !copy.before(disks, &request))
                {
                    copy = None;
                }
                completed(carry_out(disks, request));
            }
            Ok(Command::Copy(sender)) => copy = Some(DiskCopy::new(disks, sender)),
            Err(TryRecvError::Empty) => {
                if copy.as_mut().is_some_and(|copy| !copy.step(disks)) {
                    copy = None;
                }
            }
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

fn carry_out(disks: &[Disk], request: DiskRequest) -> Completion {
    let DiskRequest {
        device,
        request,
        operation,
    } = request;
    let is_flush = matches!(operation, DiskOperation::Flush);
    match disks.get(usize::from(device)) {
        Some(disk) => {
            let outcome = disk.perform(&operation);
            Completion {
                device,
                request,
                status: outcome.status,
                is_flush,
                data: outcome.data,
                host_error: outcome.host_error,
            }
        }
        None => Completion {
            device,
            request,
            status: DiskStatus::Unsupported,
            is_flush,
            data: Vec::new(),
            host_error: None,
        },
    }
}

/// The bytes that `operation` changes, as offset and length.
pub(super) fn changes(operation: &DiskOperation) -> Option<(u64, u64)> {
    match operation {
        DiskOperation::Write { sector, data } => {
            Some((sector.checked_mul(super::SECTOR_BYTES)?, data.len() as u64))
        }
        DiskOperation::Zero { sector, sectors } => Some((
            sector.checked_mul(super::SECTOR_BYTES)?,
            sectors.checked_mul(super::SECTOR_BYTES)?,
        )),
        DiskOperation::Read { .. } | DiskOperation::Flush => None,
    }
}
