//! What a machine's disks have to do with checkpoints: at the primary, what was written since the last one; at
//! a backup, what the primary's had written.

use super::{GuestError, ReplicaGuest};
use crate::checkpoint::{HeldCheckpoint, Moment};
use crate::disk::Completion;
use machine::input::DiskStatus;
use machine::output::{DiskOperation, DiskRequest, Output};
use replication::guest::Injection;
use replication::record::InstructionCount;
use std::collections::BTreeMap;

/// Requests with such numbers are the primary's, which this host's disk carries out as well. No machine
/// makes so many of its own.
const PRIMARYS: u64 = 1 << 63;

/// What the guest writes, until a checkpoint takes it along.
#[derive(Default)]
pub(super) struct Written {
    /// Submitted, and the guest was not told of the end.
    open: BTreeMap<(u8, u64), DiskRequest>,
    /// …and was told.
    done: Vec<DiskRequest>,
    bytes: usize,
}

/// Bytes that a request writes.
fn bytes(request: &DiskRequest) -> usize {
    match &request.operation {
        DiskOperation::Write { data, .. } => data.len(),
        DiskOperation::Read { .. } | DiskOperation::Flush | DiskOperation::Zero { .. } => 0,
    }
}

impl Written {
    /// The machine asks for it.
    pub(super) fn asked(&mut self, request: &DiskRequest) {
        if !matches!(request.operation, DiskOperation::Read { .. }) {
            let name = (request.device, request.request);
            self.open.insert(name, request.clone());
        }
    }

    /// The guest is told of the end.
    pub(super) fn ended(&mut self, name: (u8, u64), status: DiskStatus) {
        if let Some(request) = self.open.remove(&name)
            && status == DiskStatus::Ok
        {
            self.bytes += bytes(&request);
            self.done.push(request);
        }
    }
}

/// A machine that executes nothing, and becomes what checkpoints say.
#[derive(Default)]
pub(super) struct Follower {
    held: HeldCheckpoint,
    /// What the outside saw of the checkpoints that were applied, and nobody has collected.
    outputs: Vec<Output>,
    /// Of requests of the primary's.
    submitted: u64,
    /// The machine is what the newest checkpoint says, and the disks are not yet.
    is_applied: bool,
    /// Makes of a checkpoint what it can before all has come: a bug, for the simulator.
    applies_halves: bool,
}

impl ReplicaGuest {
    /// From here on what is written is kept for the next checkpoint.
    pub fn keep_written(&mut self) {
        if self.written.is_none() {
            let mut written = Written::default();
            let open = self.machine.open_disk_requests();
            open.iter().for_each(|request| written.asked(request));
            self.written = Some(written);
        }
    }

    /// Nobody makes checkpoints any more.
    pub fn forget_written(&mut self) {
        self.written = None;
    }

    /// Bytes that the next checkpoint has to take along.
    pub fn written_bytes(&self) -> usize {
        self.written.as_ref().map_or(0, |written| written.bytes)
    }

    /// Whether there is anything that the next checkpoint has to take along.
    pub fn has_written(&self) -> bool {
        let written = self.written.as_ref();
        written.is_some_and(|written| !written.done.is_empty())
    }

    /// Takes that, in the order in which the guest asked for it, and the entropy requests that are open.
    pub fn take_written(&mut self) -> (Vec<DiskRequest>, Vec<u32>) {
        let Some(written) = &mut self.written else {
            return (Vec::new(), self.open_entropy.clone());
        };
        written.bytes = 0;
        let mut done = std::mem::take(&mut written.done);
        done.sort_by_key(|request| (request.device, request.request));
        (done, self.open_entropy.clone())
    }

    /// The machine executes nothing until [`ReplicaGuest::begin_executing`].
    pub(super) fn as_follower(applies_halves: bool) -> Option<Box<Follower>> {
        Some(Box::new(Follower {
            applies_halves,
            ..Follower::default()
        }))
    }

    /// The machine goes live: what it has open is asked of its disks.
    pub fn begin_executing(&mut self) {
        if self.follower.take().is_some() {
            for request in self.machine.open_disk_requests() {
                self.submit(request);
            }
        }
    }

    /// What the disks did of the primary's requests. An error is this host's.
    pub fn look_at_follower(&mut self) -> Result<(), GuestError> {
        let Some((_, completions)) = self.disks.as_ref().filter(|_| self.follower.is_some()) else {
            return Ok(());
        };
        for Completion {
            status, host_error, ..
        } in completions.take_all()
        {
            self.open_requests = self.open_requests.saturating_sub(1);
            if status != DiskStatus::Ok {
                let what = host_error.unwrap_or_else(|| "it refuses a write".into());
                return Err(GuestError::OwnDisk(what));
            }
        }
        // Whether they are durable is not told here.
        completions.ended_flushes();
        Ok(())
    }

    pub(super) fn hold(&mut self, piece: &[u8]) -> Result<(), GuestError> {
        let follower = self.follower.as_mut().ok_or(GuestError::Executes)?;
        let held = follower.held.hold(piece);
        held.map_err(|error| GuestError::Checkpoint(error.to_string()))?;
        if follower.applies_halves {
            follower.held.apply_pages(&mut *self.machine);
        }
        Ok(())
    }

    /// The machine becomes what the checkpoint says. It is not done with before this host's disks have what the
    /// primary's had written: whoever syncs them then has all of it.
    pub(super) fn apply(
        &mut self,
        count: InstructionCount,
        end: &[u8],
    ) -> Result<Injection, GuestError> {
        let follower = self.follower.as_mut().ok_or(GuestError::Executes)?;
        if !std::mem::replace(&mut follower.is_applied, true) {
            let applied = follower.held.apply(&mut *self.machine, count, end);
            let applied = applied.map_err(|error| GuestError::Checkpoint(error.to_string()))?;
            self.applied(applied);
        }
        if self.open_requests > 0 {
            return Ok(Injection::NotYet);
        }
        if let Some(follower) = &mut self.follower {
            follower.is_applied = false;
        }
        Ok(Injection::Done)
    }

    fn applied(&mut self, moment: Moment) {
        let Moment {
            state: _,
            writes,
            outputs,
            entropy,
        } = moment;
        self.open_entropy = entropy;
        let Some(follower) = &mut self.follower else {
            return;
        };
        follower.outputs.extend(outputs);
        let Some((thread, _)) = &self.disks else {
            return;
        };
        for mut request in writes {
            request.request = PRIMARYS | follower.submitted;
            follower.submitted += 1;
            self.open_requests += 1;
            thread.submit(request);
        }
    }

    /// What the outside saw of the primary.
    pub(super) fn take_applied_outputs(&mut self) -> Option<Vec<Output>> {
        let follower = self.follower.as_mut()?;
        Some(std::mem::take(&mut follower.outputs))
    }
}
