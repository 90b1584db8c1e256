//! A backup's machine, from the first piece of its snapshot to the moment when it goes live.

use super::restore::{RestoreError, RestoreParts, Restoring};
use crate::status::JoinProgress;
use crate::vcpu::ReplayingVcpu;
use environment::mpsc::Receiver;
use environment::thread::JoinHandle;
use machine::snapshot::Snapshot;
use replication::record::{InstructionCount, Record, RecordNumber};
use std::io;
use std::sync::atomic::Ordering;

/// The machine, or what has come of it so far. Nothing here waits.
pub struct BackupMachine {
    stage: Stage,
    /// What came of the snapshot, until it is known where in the log it was taken.
    made: Option<Result<ReplayingVcpu, RestoreError>>,
    /// The last record before the snapshot, once it is known where in the log that was taken; then the last that was
    /// given to the machine.
    last: Option<RecordNumber>,
    /// Records that came before the machine was made.
    early: Vec<Record>,
}

enum Stage {
    /// A thread makes the machine of its snapshot.
    Restoring(Restoring),
    /// The machine replays.
    Running(ReplayingVcpu),
    /// The snapshot was of no use.
    Failed,
}

impl BackupMachine {
    /// Begins to make it.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(super) fn begin(parts: RestoreParts) -> io::Result<BackupMachine> {
        Ok(BackupMachine {
            stage: Stage::Restoring(Restoring::start(parts)?),
            made: None,
            last: None,
            early: Vec::new(),
        })
    }

    /// The vcpu thread, to be ended.
    pub fn vcpu_mut(&mut self) -> Option<&mut ReplayingVcpu> {
        match &mut self.stage {
            Stage::Running(vcpu) => Some(vcpu),
            Stage::Restoring(_) | Stage::Failed => None,
        }
    }

    /// The vcpu thread, once it runs.
    pub fn vcpu(&self) -> Option<&ReplayingVcpu> {
        match &self.stage {
            Stage::Running(vcpu) => Some(vcpu),
            Stage::Restoring(_) | Stage::Failed => None,
        }
    }

    /// The snapshot was taken after this record: what comes of it may be told.
    pub fn stands_after(&mut self, record: RecordNumber) {
        self.last = Some(record);
    }

    /// What came of the snapshot, once: the machine replays from here on, or why it cannot.
    pub(super) fn restored(&mut self) -> Option<Result<(), RestoreError>> {
        let Stage::Restoring(restoring) = &self.stage else {
            return None;
        };
        if self.made.is_none() {
            self.made = restoring.made();
        }
        // A disk that fails does so wherever in the log the snapshot is taken, and before that is known, perhaps.
        let is_of_disk = matches!(
            self.made,
            Some(Err(RestoreError::Disk(_) | RestoreError::Unfit { .. }))
        );
        if self.last.is_none() && !is_of_disk {
            return None;
        }
        match self.made.take()? {
            Ok(vcpu) => {
                self.stage = Stage::Running(vcpu);
                let early = std::mem::take(&mut self.early);
                self.replay(early);
                Some(Ok(()))
            }
            Err(reason) => {
                self.stage = Stage::Failed;
                Some(Err(reason))
            }
        }
    }

    /// How much of the snapshot was put in its place, while that goes on.
    pub fn progress(&self) -> Option<JoinProgress> {
        match &self.stage {
            Stage::Restoring(restoring) => Some(restoring.progress()),
            Stage::Running(_) | Stage::Failed => None,
        }
    }

    /// Replays records after those that came before.
    pub fn replay(&mut self, records: Vec<Record>) {
        match &self.stage {
            Stage::Running(vcpu) => {
                let after = self.last.expect("a machine runs when its place is known");
                self.last = Some(after.plus(records.len() as u64));
                vcpu.replay(after, records);
            }
            Stage::Restoring(_) | Stage::Failed => self.early.extend(records),
        }
    }

    /// The machine that differed goes on, and is not compared.
    pub fn stop_comparing(&self) {
        if let Some(vcpu) = self.vcpu() {
            vcpu.stop_comparing();
        }
    }

    /// What it replays from here on is compared again.
    pub fn compare(&self) {
        if let Some(vcpu) = self.vcpu() {
            vcpu.compare();
        }
    }

    /// The vcpu thread, the instruction count and the number of visible outputs to go live with.
    pub fn into_live(self) -> Option<(ReplayingVcpu, InstructionCount, u64)> {
        match self.stage {
            Stage::Running(vcpu) => {
                let count = vcpu.thread().gauges().count.load(Ordering::Acquire);
                let visible = vcpu.thread().gauges().visible.load(Ordering::Acquire);
                Some((vcpu, InstructionCount(count), visible))
            }
            Stage::Restoring(_) | Stage::Failed => None,
        }
    }

    fn close(self) {
        if let Some(Ok(vcpu)) = self.made {
            vcpu.close();
        }
        match self.stage {
            Stage::Restoring(restoring) => restoring.close(),
            Stage::Running(vcpu) => vcpu.close(),
            Stage::Failed => {}
        }
    }
}

/// Drops a machine, and how it was found when it differed (if nobody keeps that), on a thread of its own: giving gigabytes
/// back takes its time, and so may a disk. The handle is joined when its disks are closed, and all
/// that was dropped before is gone as well.
pub(super) fn discard(
    machine: Option<BackupMachine>,
    found: Option<Receiver<Box<Snapshot>>>,
    previous: Option<JoinHandle<()>>,
) -> Option<JoinHandle<()>> {
    if machine.is_none() && found.is_none() {
        return previous;
    }
    let thread = environment::thread::Builder::new().name("discard".into());
    let discarding = thread.spawn(move || {
        drop(found);
        if let Some(machine) = machine {
            machine.close();
        }
        if let Some(previous) = previous {
            // A panic has ended the process.
            let _joined = previous.join();
        }
    });
    // A host without a thread to give has dropped it here and now.
    discarding.ok()
}
