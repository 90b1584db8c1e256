//! A replica that has won takes the disks that the machine's hosts share before it goes live. As long as another process
//! has one, it waits, and says so.

use super::backup::BackupLoop;
use super::primary::PrimaryLoop;
use crate::config::Fencing;
use crate::control::{Answer, ConversationId};
use crate::disk::shared::SharedFile;
use crate::host_time::monotonic;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, TryRecvError};
use replication::mutation::Mutation;
use std::time::Duration;

/// A process that was killed lets go of its files when its connections have ended, or right after: it is tried again after
/// this, and then after twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(2);
/// At most.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// People are told when it has lasted so long.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Which disks are not taken yet.
#[derive(Debug)]
pub(super) struct Fence {
    since: Duration,
    wait: Duration,
    /// When they are tried next, while that is not under way.
    due: Option<Duration>,
    trying: Option<Receiver<Result<(), String>>>,
    /// Somebody says that nobody else can write to them.
    is_said: bool,
    why: Option<String>,
    is_told: bool,
}

impl Fence {
    fn new(now: Duration, is_said: bool) -> Fence {
        Fence {
            since: now,
            wait: FIRST_WAIT,
            due: Some(now),
            trying: None,
            is_said,
            why: None,
            is_told: false,
        }
    }

    /// When it has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// What it waits for, for people.
    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Tries them on a thread of its own, for a file on a network file system may hang. True once all are taken.
    fn look(&mut self, now: Duration, files: &[SharedFile], waker: &Waker) -> bool {
        let tried = match &self.trying {
            None => None,
            Some(trying) => match trying.try_recv() {
                Ok(tried) => Some(tried),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => {
                    Some(Err("the host gives no thread for it".into()))
                }
            },
        };
        match tried {
            Some(Ok(())) => return true,
            Some(Err(why)) => {
                self.why = Some(why);
                self.trying = None;
                self.due = Some(now + self.wait);
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
            }
            None => {}
        }
        if self.due.take_if(|due| now >= *due).is_some() {
            self.trying = Some(self.begin(files, waker));
        }
        false
    }

    fn begin(&self, files: &[SharedFile], waker: &Waker) -> Receiver<Result<(), String>> {
        let (sender, trying) = mpsc::channel();
        let (files, is_said, waker) = (files.to_vec(), self.is_said, waker.clone());
        let thread = environment::thread::Builder::new().name("fence".into());
        // One that cannot be started has dropped its sender.
        let _started = thread.spawn(move || {
            let taken = files.iter().try_for_each(|file| take(file, is_said));
            // Nobody may want to know any more: what was taken is let go of with the machine.
            let _sent = sender.send(taken);
            waker.wake();
        });
        trying
    }
}

fn take(file: &SharedFile, is_said: bool) -> Result<(), String> {
    if file.fencing() == Some(Fencing::Outside) && !is_said {
        let path = file.path();
        return Err(format!(
            "the shared disk {path} is fenced outside of this program (`fencing = \"outside\"`), and nobody has said yet that \
             this is done (`understudy fenced`)"
        ));
    }
    file.take(is_said).map_err(|error| error.to_string())
}

/// The locks of shared disks that a machine went live without, by a person's word: whoever had them may let go of them
/// at any time.
#[derive(Debug, Default)]
pub(super) struct LateLocks {
    /// When they are tried next.
    due: Duration,
    trying: Option<Receiver<bool>>,
}

/// Between two trials.
const LATE_WAIT: Duration = Duration::from_secs(1);

impl PrimaryLoop {
    /// Takes what can be taken by now: before that nobody can join, and any third process may.
    pub(super) fn look_at_locks(&mut self) {
        let now = monotonic();
        let tried = self.late_locks.trying.as_ref().map(Receiver::try_recv);
        match tried {
            Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(true)) => {
                self.late_locks.trying = None;
                let (generation, count) = (self.core.status().generation.0, self.count());
                let detail = "the locks of the shared disks are this host's";
                self.host
                    .events
                    .add("shared_disks_locked", generation, count.0, detail);
            }
            Some(Ok(false) | Err(TryRecvError::Disconnected)) => {
                self.late_locks.trying = None;
                self.late_locks.due = now + LATE_WAIT;
            }
            None => {}
        }
        let files = self.disks_without_locks();
        if files.is_empty() || now < self.late_locks.due {
            return;
        }
        let (sender, trying) = mpsc::channel();
        let waker = self.host.waker.clone();
        let thread = environment::thread::Builder::new().name("fence".into());
        // One that cannot be started has dropped its sender.
        let _started = thread.spawn(move || {
            let locked = files.iter().filter(|file| file.lock_late()).count();
            // Nobody may want to know any more.
            let _sent = sender.send(locked == files.len());
            waker.wake();
        });
        self.late_locks.trying = Some(trying);
    }

    /// When they are tried next.
    pub(super) fn locks_deadline(&self) -> Option<Duration> {
        let is_wanted = self.late_locks.trying.is_none() && !self.disks_without_locks().is_empty();
        is_wanted.then_some(self.late_locks.due)
    }

    fn disks_without_locks(&self) -> Vec<SharedFile> {
        let thread = self.vcpu.thread().disk_thread();
        let shared = thread.map_or(&[][..], |thread| thread.shared());
        let taken = shared.iter().flatten();
        let without = taken.filter(|file| file.is_taken() && !file.is_locked());
        without.cloned().collect()
    }
}

impl BackupLoop {
    /// The machine is this host's: its shared disks are to be, too.
    pub(super) fn begin_fence(&mut self) {
        let mutated = self.host.pair_config.mutations;
        let is_said = mutated.active(Mutation::SharedDiskNotFenced);
        self.fence = Some(Fence::new(monotonic(), is_said));
    }

    /// Takes what can be taken, and says what is waited for.
    pub(super) fn look_at_fence(&mut self) {
        let files = self.shared_files();
        let Some(fence) = &mut self.fence else {
            return;
        };
        let now = monotonic();
        let is_taken = fence.look(now, &files, &self.host.waker);
        let generation = self.core.status().generation.0;
        if !is_taken {
            if let Some(why) = fence.why.as_deref()
                && !fence.is_told
                && now >= fence.since + TOLD_AFTER
            {
                fence.is_told = true;
                let detail = waits(why);
                self.host
                    .events
                    .add("waits_for_fence", generation, 0, detail);
            }
            return;
        }
        let (waited, is_told) = (now.saturating_sub(fence.since), fence.is_told);
        self.fence = None;
        if is_told {
            let detail = format!("after {:.1} s", waited.as_secs_f64());
            self.host.events.add("fenced", generation, 0, detail);
        }
        self.core.fenced(now);
    }

    fn shared_files(&self) -> Vec<SharedFile> {
        let thread = self.vcpu().and_then(|vcpu| vcpu.thread().disk_thread());
        let shared = thread.map_or(&[][..], |thread| thread.shared());
        shared.iter().flatten().cloned().collect()
    }

    /// What keeps this host, which has won, from going live, for people.
    pub(super) fn fence_trouble(&self) -> Option<String> {
        self.fence.as_ref().and_then(Fence::why).map(waits)
    }

    /// Somebody says that nobody else can write to the shared disks.
    pub(super) fn said_to_be_fenced(&mut self, id: ConversationId) {
        let answer = match &mut self.fence {
            Some(fence) => {
                fence.is_said = true;
                fence.due = fence.due.map(|_| monotonic());
                fence.wait = FIRST_WAIT;
                let generation = self.core.status().generation.0;
                let detail = "somebody says that nobody else can write to the shared disks";
                self.host
                    .events
                    .add("said_to_be_fenced", generation, 0, detail);
                Answer::Done("the machine goes live here".into())
            }
            None => Answer::Refused(NOT_WAITING.into()),
        };
        self.host.answer(id, &answer);
    }
}

fn waits(why: &str) -> String {
    format!(
        "this host has the machine, and does not go live before nobody else can write to its shared disks: {why}. End that \
         process, or, if it is certain that its host is off or cut off from the disk, say so (`understudy fenced`)"
    )
}

/// To whoever says that a disk is fenced where nobody waits for that.
pub(super) const NOT_WAITING: &str = "no machine waits here for its shared disks to be fenced";
