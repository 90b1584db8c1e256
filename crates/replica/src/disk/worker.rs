//! Carries out the disks' requests, in order, on a thread of its own.

use super::copy::{Ahead, CopiedPart, DiskCopy};
use super::overlay::{Begun, Frozen, LayerId, Merging, Volumes};
use super::shared::SharedFile;
use super::{Disk, Freezing};
use environment::mpsc::{self, Receiver, RecvError, Sender, SyncSender, TryRecvError};
use environment::thread::JoinHandle;
use machine::input::{DiskStatus, Input};
use machine::output::{DiskOperation, DiskRequest};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Writes to shared disks that are made durable together, at most.
const MOST_WRITTEN: usize = 64;

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
    /// Send what the disks hold now, whatever is written to them later; if this pairing's copy ahead has begun, only
    /// what changed since, which ends it.
    Copy(u64, SyncSender<CopiedPart>),
    /// A pass of this pairing's copy ahead.
    CopyAhead(PassAhead),
    /// That copy goes no further.
    EndAhead(u64),
    /// Write to new layers, which begin with this snapshot.
    Freeze(LayerId, Sender<Result<Frozen, String>>),
    /// Merge what is older than the layers that begin with this snapshot, and say so.
    Merge(LayerId, Sender<Result<(), String>>, DiskThread),
    /// No journal needs the layers any more.
    Leave(DiskThread),
    /// A replay is over: its layers are the disks'.
    Commit(Sender<Result<(), String>>, Box<dyn FnOnce() + Send>),
    /// What was to be merged is, or why not; of each disk so many.
    Merged(Result<Vec<usize>, String>, DiskThread),
}

/// A pass of a copy that is made before the moment that counts: of everything, and then of what changed since the pass
/// before.
#[derive(Debug)]
pub struct PassAhead {
    /// The pairing that it is for.
    pub pairing: u64,
    /// Gets each byte as it is when it is read, and closes when that was all.
    pub parts: SyncSender<CopiedPart>,
    /// A bug, for the simulator: nothing is known to have changed.
    pub forgets_changes: bool,
}

/// The thread. It ends, after all that was submitted, when this and its clones are dropped.
#[derive(Clone)]
pub struct DiskThread {
    commands: Sender<Command>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    layer_bytes: Arc<AtomicU64>,
    /// Of each disk.
    shared: Arc<Vec<Option<SharedFile>>>,
}

impl DiskThread {
    /// Starts it; `completed` is called there with every completion.
    pub fn start(
        disks: Arc<Vec<Disk>>,
        completed: impl Fn(Completion) + Send + 'static,
    ) -> io::Result<DiskThread> {
        DiskThread::go_on(disks, Vec::new(), completed)
    }

    /// As [`DiskThread::start`], with the layers of a journal that a machine goes on from.
    pub fn go_on(
        disks: Arc<Vec<Disk>>,
        begun: Vec<Option<Begun>>,
        completed: impl Fn(Completion) + Send + 'static,
    ) -> io::Result<DiskThread> {
        let (commands, received) = mpsc::channel();
        let layer_bytes = Arc::new(AtomicU64::new(0));
        let gauge = layer_bytes.clone();
        let shared = disks.iter().map(|disk| disk.shared_file().cloned());
        let shared = Arc::new(shared.collect());
        let thread = environment::thread::Builder::new()
            .name("disk".into())
            .spawn(move || {
                let mut worker = Worker {
                    volumes: Volumes::new(disks, begun),
                    copy: None,
                    ahead: None,
                    merging: None,
                    to_merge: None,
                    is_leaving: false,
                    layer_bytes: gauge,
                    written: Vec::new(),
                };
                worker.serve(&received, &completed);
            })?;
        Ok(DiskThread {
            commands,
            thread: Arc::new(Mutex::new(Some(thread))),
            layer_bytes,
            shared,
        })
    }

    /// What other hosts reach of the disks, in their order.
    pub fn shared(&self) -> &[Option<SharedFile>] {
        &self.shared
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
    /// a chunk that a later write would change is put aside first. If this pairing's copy ahead has begun, only what
    /// changed since it was copied there. The receiver gets everything once, and
    /// the channel closes when all was sent. A receiver that goes away ends the copy.
    pub fn begin_copy(&self, pairing: u64) -> Receiver<CopiedPart> {
        let (sender, parts) = copied_parts();
        let _sent = self.commands.send(Command::Copy(pairing, sender));
        parts
    }

    /// A pass of a copy ahead: the first of this pairing is of everything that the disks hold, the others of what
    /// changed since it was read.
    pub fn copy_ahead(&self, pass: PassAhead) {
        let _sent = self.commands.send(Command::CopyAhead(pass));
    }

    /// Nobody wants this pairing's copy ahead any more, or all of it was copied.
    pub fn end_ahead(&self, pairing: u64) {
        let _sent = self.commands.send(Command::EndAhead(pairing));
    }

    /// After all requests submitted so far, has later ones write to layers beside the images, which begin
    /// with this snapshot of a journal.
    pub fn freeze(&self, id: LayerId) -> Freezing {
        let (reply, frozen) = mpsc::channel();
        let _sent = self.commands.send(Command::Freeze(id, reply));
        Freezing {
            id,
            frozen,
            thread: self.clone(),
        }
    }

    /// Merges what is older than the layers of this snapshot into the images, and says what came of it.
    pub(super) fn merge(&self, id: LayerId) -> Receiver<Result<(), String>> {
        let (told, merged) = mpsc::channel();
        let _sent = self.commands.send(Command::Merge(id, told, self.clone()));
        merged
    }

    /// No journal needs the layers any more: they are merged into the images behind the guest's back, and
    /// the guest writes there again.
    pub fn leave_layers(&self) {
        let _sent = self.commands.send(Command::Leave(self.clone()));
    }

    /// A machine has replayed its journal: what it wrote takes the place of what was beside the images.
    /// Says what came of it, after all requests submitted so far, and calls `tell` then.
    pub fn commit_layers(
        &self,
        tell: impl FnOnce() + Send + 'static,
    ) -> Receiver<Result<(), String>> {
        let (reply, committed) = mpsc::channel();
        let _sent = self.commands.send(Command::Commit(reply, Box::new(tell)));
        committed
    }

    /// Bytes of the layers that are written to.
    pub fn layer_bytes(&self) -> u64 {
        self.layer_bytes.load(Ordering::Relaxed)
    }
}

/// The way of a copy's parts. Two are under way: enough to keep a link busy, little memory.
pub fn copied_parts() -> (SyncSender<CopiedPart>, Receiver<CopiedPart>) {
    mpsc::sync_channel(2)
}

type Told = Sender<Result<(), String>>;

/// What the thread works with.
struct Worker {
    volumes: Volumes,
    copy: Option<DiskCopy>,
    /// What changes since it was copied, until the moment that counts.
    ahead: Option<Ahead>,
    /// Something is being merged, one thing at a time; and who waits for it, if anybody does.
    merging: Option<Option<Told>>,
    /// What is to be merged then.
    to_merge: Option<(LayerId, Told)>,
    /// The guest is to write into the images again.
    is_leaving: bool,
    layer_bytes: Arc<AtomicU64>,
    /// Writes to shared disks that are in this host's memory, and of whose end nobody was told.
    written: Vec<Completion>,
}

impl Worker {
    fn serve(&mut self, commands: &Receiver<Command>, completed: &impl Fn(Completion)) {
        loop {
            let command = match &self.copy {
                None if self.written.is_empty() => commands
                    .recv()
                    .map_err(|RecvError| TryRecvError::Disconnected),
                _ => commands.try_recv(),
            };
            if !matches!(command, Ok(Command::Request(_))) || self.written.len() >= MOST_WRITTEN {
                self.settle_written(completed);
            }
            match command {
                Ok(Command::Request(request)) => {
                    let volumes = &mut self.volumes;
                    if let Some(ahead) = &mut self.ahead {
                        ahead.note(&request, self.copy.as_ref());
                    }
                    self.copy.take_if(|copy| !copy.before(volumes, &request));
                    let goes_through = goes_through(volumes, &request);
                    let completion = carry_out(volumes, request);
                    if goes_through && completion.status == DiskStatus::Ok {
                        self.written.push(completion);
                    } else {
                        completed(completion);
                    }
                    let bytes = volumes.top_bytes();
                    self.layer_bytes.store(bytes, Ordering::Relaxed);
                }
                Ok(Command::Copy(pairing, parts)) => {
                    let ahead = self.ahead.take_if(|ahead| ahead.pairing == pairing);
                    self.copy = Some(match ahead {
                        Some(ahead) => DiskCopy::rest(&self.volumes, parts, ahead),
                        None => DiskCopy::whole(&self.volumes, parts),
                    });
                }
                Ok(Command::CopyAhead(pass)) => self.copy_ahead(pass),
                Ok(Command::EndAhead(pairing)) => {
                    self.ahead.take_if(|ahead| ahead.pairing == pairing);
                }
                Ok(command) => self.layers(command),
                Err(TryRecvError::Empty) => {
                    let volumes = &mut self.volumes;
                    self.copy.take_if(|copy| !copy.step(volumes));
                }
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn copy_ahead(&mut self, pass: PassAhead) {
        let PassAhead {
            pairing,
            parts,
            forgets_changes,
        } = pass;
        let volumes = &self.volumes;
        let its = self.ahead.as_mut().filter(|it| it.pairing == pairing);
        self.copy = Some(match its {
            Some(ahead) => DiskCopy::next_pass(volumes, parts, ahead),
            None => {
                self.ahead = Some(Ahead::new(pairing, volumes, forgets_changes));
                DiskCopy::first_pass(volumes, parts)
            }
        });
    }

    /// What was written to shared disks is durable before anybody is told: whoever goes on with the machine on another
    /// host takes it for done, and sees nothing of this one's memory.
    fn settle_written(&mut self, completed: &impl Fn(Completion)) {
        let written = std::mem::take(&mut self.written);
        let disks = self.volumes.disks().iter().zip(0..);
        let synced: Vec<Option<String>> = disks
            .map(|(disk, device)| {
                let is_written = written.iter().any(|it: &Completion| it.device == device);
                is_written.then(|| disk.perform(&DiskOperation::Flush).host_error)?
            })
            .collect();
        for mut completion in written {
            if let Some(Some(error)) = synced.get(usize::from(completion.device)) {
                completion.status = DiskStatus::IoError;
                completion.host_error = Some(error.clone());
            }
            completed(completion);
        }
    }

    fn layers(&mut self, command: Command) {
        match command {
            Command::Freeze(id, reply) => {
                // A journal needs them again.
                self.is_leaving = false;
                let frozen = self.volumes.freeze(id);
                // Whoever gave the snapshot up wants to know nothing.
                let _sent = reply
                    .send(frozen.map_err(|error| {
                        format!("no overlay can be begun beside a disk: {error}")
                    }));
            }
            Command::Merge(id, told, own) => match self.merging {
                None => self.merge(id, told, own),
                Some(_) => self.to_merge = Some((id, told)),
            },
            Command::Leave(own) => {
                self.is_leaving = true;
                if self.merging.is_none() {
                    self.leave(own);
                }
            }
            Command::Commit(reply, tell) => {
                let committed = self.volumes.commit();
                let _sent = reply.send(committed.map_err(|error| error.to_string()));
                tell();
            }
            Command::Merged(merged, own) => self.merged(merged, own),
            Command::Request(_)
            | Command::Copy(..)
            | Command::CopyAhead(_)
            | Command::EndAhead(_) => unreachable!("they were taken before"),
        }
        let bytes = self.volumes.top_bytes();
        self.layer_bytes.store(bytes, Ordering::Relaxed);
    }

    fn merge(&mut self, id: LayerId, told: Told, own: DiskThread) {
        let merging = self.volumes.older_than(id);
        if merging.is_empty() {
            let _sent = told.send(Ok(()));
            return;
        }
        self.begin_merging(merging, Some(told), own);
    }

    /// Merges on a thread of its own, which keeps this one: the guest's requests go on.
    fn begin_merging(&mut self, merging: Merging, told: Option<Told>, own: DiskThread) {
        let counts = merging.counts();
        let started = environment::thread::Builder::new()
            .name("merge".into())
            .spawn(move || {
                let merged = merging.run().map_err(|error| error.to_string());
                let merged = merged.map(|()| counts);
                let commands = own.commands.clone();
                let _sent = commands.send(Command::Merged(merged, own));
            });
        match (started, told) {
            (Ok(_), told) => self.merging = Some(told),
            (Err(error), Some(told)) => {
                let _sent = told.send(Err(error.to_string()));
            }
            // What is beside the images stays there, until the next snapshot or start.
            (Err(_), None) => self.is_leaving = false,
        }
    }

    fn merged(&mut self, merged: Result<Vec<usize>, String>, own: DiskThread) {
        let told = self.merging.take().flatten();
        if let Ok(counts) = &merged {
            self.volumes.merged(counts);
        }
        // What cannot be merged now stays where it is, which is as good.
        self.is_leaving &= merged.is_ok();
        if let Some(told) = told {
            let _sent = told.send(merged.map(|_| ()));
        }
        match self.to_merge.take() {
            Some((id, told)) => self.merge(id, told, own),
            None if self.is_leaving => self.leave(own),
            None => {}
        }
    }

    fn leave(&mut self, own: DiskThread) {
        match self.volumes.leave() {
            Ok(Some(merging)) => self.begin_merging(merging, None, own),
            Ok(None) | Err(_) => self.is_leaving = false,
        }
    }
}

/// Whether it changes a shared disk.
fn goes_through(volumes: &Volumes, request: &DiskRequest) -> bool {
    let disk = volumes.disks().get(usize::from(request.device));
    disk.is_some_and(|disk| disk.shared_file().is_some()) && changes(&request.operation).is_some()
}

fn carry_out(volumes: &mut Volumes, request: DiskRequest) -> Completion {
    let DiskRequest {
        device,
        request,
        operation,
    } = request;
    let is_flush = matches!(operation, DiskOperation::Flush);
    match volumes.perform(usize::from(device), &operation) {
        Some(outcome) => Completion {
            device,
            request,
            status: outcome.status,
            is_flush,
            data: outcome.data,
            host_error: outcome.host_error,
        },
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
