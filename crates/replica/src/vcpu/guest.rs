//! The machine in the company of its disks and its entropy: what is invisible from outside is
//! answered here, alike for a live and a replaying machine.

mod checkpoints;
mod shared;

use super::Completions;
use super::flushes::OpenFlushes;
use crate::disk::{Completion, DiskThread};
use crate::random;
use checkpoints::{Follower, Written};
use machine::input::{DiskStatus, Input, InputError};
use machine::output::{DiskOperation, DiskRequest, Output};
use machine::{InjectError, Machine, Stop};
use replication::guest::{Guest, GuestStop, Injection, InjectionError};
use replication::record::InstructionCount;
use shared::SharedRequests;
use std::sync::Arc;
use thiserror::Error;

/// Whether the records hold what disks read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputEncoding {
    /// A pair: each side has its own disks, and reads them itself.
    WithoutDiskData,
    /// A recording, which is replayed without disks.
    WithDiskData,
}

/// An input as the records hold it.
pub fn encode_input(input: &Input, encoding: InputEncoding) -> Vec<u8> {
    let stripped = match (encoding, input) {
        (
            InputEncoding::WithoutDiskData,
            Input::DiskCompletion {
                device,
                request,
                status,
                ..
            },
        ) => Some(Input::DiskCompletion {
            device: *device,
            request: *request,
            status: *status,
            data: Vec::new(),
        }),
        _ => None,
    };
    // Serialising plain data into a growing vector cannot fail.
    postcard::to_stdvec(stripped.as_ref().unwrap_or(input)).expect("an input is plain data")
}

/// The reverse of [`encode_input`].
pub fn decode_input(encoded: &[u8]) -> Result<Input, GuestError> {
    match postcard::take_from_bytes(encoded) {
        Ok((input, [])) => Ok(input),
        _ => Err(GuestError::UnknownInput),
    }
}

/// A record that the machine or its disks cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GuestError {
    /// Not an input of this version.
    #[error("a record holds an input that this version does not know")]
    UnknownInput,
    /// The machine expected no such input.
    #[error("the machine refuses a recorded input: {0}")]
    Refused(String),
    /// This host's own disk failed where the primary's did not.
    #[error("this host's disk failed where the primary's did not: {0}")]
    OwnDisk(String),
    /// The primary's disk failed where this host's did not: what is on them differs from here on.
    #[error(
        "request {request} of disk {device} failed at the primary and not here: the disks differ"
    )]
    OtherOutcome {
        /// Index among the machine's disks.
        device: u8,
        /// The request's number.
        request: u64,
    },
    /// What the disk read is not in the records, and there is no disk to read it from.
    #[error(
        "what request {request} of disk {device} read is not in the records: the journal was written to keep no \
         history (journal.keep), or by a program that did not store what disks read"
    )]
    ReadNotRecorded {
        /// Index among the machine's disks.
        device: u8,
        /// The request's number.
        request: u64,
    },
    /// A record of a pair that transfers state, for a machine that executes, or the other way round.
    #[error(
        "a record is of the other kind of replication: one of both hosts executes what it is told, and one does not"
    )]
    Executes,
    /// What came of the primary's machine cannot be.
    #[error("a checkpoint of the primary's cannot be used: {0}")]
    Checkpoint(String),
    /// The host gives no thread.
    #[error("no thread can be started for checkpoints: {0}")]
    Host(String),
    /// The guest wants entropy and this host has none.
    #[error("the guest wants random numbers: {0}")]
    NoEntropy(String),
}

/// A machine, its disks, and the requests that are under way.
pub struct ReplicaGuest {
    /// The machine.
    pub machine: Box<dyn Machine>,
    disks: Option<(DiskThread, Arc<Completions>)>,
    /// Disk requests that were submitted and whose completion was not injected.
    open_requests: u64,
    /// Requests that are not submitted before those that are open have ended, while that is asked for.
    held_requests: Option<Vec<DiskRequest>>,
    /// What belongs to disks that other hosts reach as well.
    shared: SharedRequests,
    flushes: OpenFlushes,
    /// The guest asked for a flush since that was looked at last.
    asked_flush: bool,
    /// Entropy requests that were not answered.
    open_entropy: Vec<u32>,
    /// Recorded digests that the machine was compared with.
    digests: u64,
    /// Why the last recorded input was refused, when it is this host's fault.
    host_error: Option<GuestError>,
    /// What was written since the last checkpoint, while there are some.
    written: Option<Written>,
    /// It executes nothing, and is brought along by checkpoints.
    follower: Option<Box<Follower>>,
}

impl ReplicaGuest {
    /// A machine whose disks are served by this thread. Requests that the machine has open (it
    /// comes from a snapshot) are issued again.
    pub fn new(
        machine: Box<dyn Machine>,
        disks: Option<(DiskThread, Arc<Completions>)>,
    ) -> ReplicaGuest {
        let open = machine.open_disk_requests();
        let mut guest = ReplicaGuest::idle(machine, disks);
        for request in open {
            if guest.shared.has(request.device) {
                guest.note_flush(&request);
            } else {
                guest.submit(request);
            }
        }
        guest
    }

    /// A machine that executes nothing until it goes live, and is brought along by checkpoints. `applies_halves`
    /// is a bug, for the simulator.
    pub fn following(
        machine: Box<dyn Machine>,
        disks: Option<(DiskThread, Arc<Completions>)>,
        applies_halves: bool,
    ) -> ReplicaGuest {
        ReplicaGuest {
            follower: ReplicaGuest::as_follower(applies_halves),
            ..ReplicaGuest::idle(machine, disks)
        }
    }

    fn idle(
        machine: Box<dyn Machine>,
        disks: Option<(DiskThread, Arc<Completions>)>,
    ) -> ReplicaGuest {
        ReplicaGuest {
            shared: SharedRequests::of(disks.as_ref().map(|(thread, _)| thread)),
            machine,
            disks,
            open_requests: 0,
            held_requests: None,
            flushes: OpenFlushes::default(),
            asked_flush: false,
            open_entropy: Vec::new(),
            digests: 0,
            host_error: None,
            written: None,
            follower: None,
        }
    }

    /// Takes the outputs; disk and entropy requests are dealt with here and not among them, but for those of a live machine
    /// to a shared disk that may not be carried out at once.
    pub fn outputs(&mut self) -> Vec<Output> {
        let mut outputs = self.machine.outputs();
        outputs.retain_mut(|output| match output {
            Output::Disk(request) => {
                let empty = DiskRequest {
                    device: 0,
                    request: 0,
                    operation: DiskOperation::Flush,
                };
                let asked = std::mem::replace(request, empty);
                if !self.shared.has(asked.device) {
                    self.submit(asked);
                    return false;
                }
                let waits = self.ask_shared(asked);
                waits.map(|waits| *request = waits).is_some()
            }
            Output::EntropyRequest { length } => {
                self.open_entropy.push(*length);
                false
            }
            Output::NetworkFrame { .. }
            | Output::ConsoleBytes { .. }
            | Output::Finish(_)
            | Output::Reboot
            | Output::Trouble(_) => true,
        });
        outputs
    }

    /// A request that the machine made at its present instruction count.
    fn submit(&mut self, request: DiskRequest) {
        self.note_flush(&request);
        if let Some(written) = &mut self.written {
            written.asked(&request);
        }
        self.send(request);
    }

    /// If it is one, it was asked for here.
    fn note_flush(&mut self, request: &DiskRequest) {
        if matches!(request.operation, DiskOperation::Flush) {
            let name = (request.device, request.request);
            self.flushes.asked(name, self.instruction_count());
            self.asked_flush = true;
        }
    }

    fn send(&mut self, request: DiskRequest) {
        if let Some(held) = &mut self.held_requests {
            held.push(request);
            return;
        }
        if let Some((thread, _)) = &self.disks {
            self.open_requests += 1;
            thread.submit(request);
        }
    }

    /// Injects a recorded input. A disk's completion needs that of this host's own disk, which
    /// brings the data.
    fn inject_recorded(&mut self, encoded: &[u8]) -> Result<Injection, GuestError> {
        let mut input = decode_input(encoded)?;
        match &mut input {
            Input::DiskCompletion {
                device, request, ..
            } if self.shared.has(*device) => {
                // The primary's disk is this host's: what it read stands there.
                self.flushes.told((*device, *request));
            }
            Input::DiskCompletion {
                device,
                request,
                status,
                data,
            } => {
                if let Some((_, completions)) = &self.disks {
                    let Some(own) = completions.take(*device, *request) else {
                        return self.waits_for_disk(*device, *request);
                    };
                    self.open_requests = self.open_requests.saturating_sub(1);
                    self.flushes.done((*device, *request));
                    self.flushes.told((*device, *request));
                    if *status == DiskStatus::Ok && own.status != DiskStatus::Ok {
                        let error = GuestError::OwnDisk(own.host_error.unwrap_or_default());
                        self.host_error = Some(error.clone());
                        return Err(error);
                    }
                    // What was not read or flushed there is on both disks all the same.
                    let changes_nothing = own.is_flush || !own.data.is_empty();
                    if *status != own.status && !changes_nothing {
                        // It may go on without what the record says.
                        completions.add(own);
                        return Err(GuestError::OtherOutcome {
                            device: *device,
                            request: *request,
                        });
                    }
                    if *status == DiskStatus::Ok {
                        *data = own.data;
                    }
                }
            }
            Input::Entropy { .. } if !self.open_entropy.is_empty() => {
                self.open_entropy.remove(0);
            }
            _ => {}
        }
        match self.machine.inject(&input) {
            Ok(()) => Ok(Injection::Done),
            Err(InjectError::Device(InputError::DiskDataLength {
                device,
                request,
                found: 0,
                ..
            })) if self.disks.is_none() => {
                let error = GuestError::ReadNotRecorded { device, request };
                self.host_error = Some(error.clone());
                Err(error)
            }
            Err(error) => Err(GuestError::Refused(error.to_string())),
        }
    }

    /// A disk's completion is recorded that this host's disk has not brought yet.
    fn waits_for_disk(&self, device: u8, request: u64) -> Result<Injection, GuestError> {
        let open = self.machine.open_disk_requests();
        let mut open = open.iter().map(|open| (open.device, open.request));
        if open.any(|open| open == (device, request)) {
            return Ok(Injection::NotYet);
        }
        let what = format!("request {request} of disk {device} was never made here");
        Err(GuestError::Refused(what))
    }

    /// Injects a live input.
    pub fn inject_live(&mut self, input: &Input) -> Result<(), GuestError> {
        self.machine
            .inject(input)
            .map_err(|error| GuestError::Refused(error.to_string()))?;
        if let Input::DiskCompletion {
            device, request, ..
        } = input
        {
            self.shared.ended((*device, *request));
        }
        if let (
            Some(written),
            Input::DiskCompletion {
                device,
                request,
                status,
                ..
            },
        ) = (&mut self.written, input)
        {
            written.ended((*device, *request), *status);
        }
        Ok(())
    }

    /// The answers to entropy requests that wait, from the host's random numbers.
    pub fn entropy(&mut self) -> Result<Vec<Input>, GuestError> {
        std::mem::take(&mut self.open_entropy)
            .into_iter()
            .map(|length| {
                let mut bytes = vec![0; length.min(ENTROPY_LIMIT) as usize];
                random::fill(&mut bytes)
                    .map_err(|error| GuestError::NoEntropy(error.to_string()))?;
                Ok(Input::Entropy { bytes })
            })
            .collect()
    }

    /// Whether the guest waits for random numbers.
    pub fn waits_for_entropy(&self) -> bool {
        !self.open_entropy.is_empty()
    }

    /// Why a recorded input was refused, when that is this host's fault and no difference between
    /// the machines.
    pub fn take_host_error(&mut self) -> Option<GuestError> {
        self.host_error.take()
    }

    /// Disk requests that ended since the last call.
    pub fn completions(&mut self) -> Vec<Completion> {
        let Some((_, completions)) = &self.disks else {
            return Vec::new();
        };
        let ended = completions.take_all();
        for flush in completions.ended_flushes() {
            self.flushes.done(flush);
        }
        let copied = ended.iter().filter(|it| !self.shared.has(it.device));
        self.open_requests = self.open_requests.saturating_sub(copied.count() as u64);
        ended
    }

    /// Whether the guest waits for the end of a flush, as far as is known here.
    pub fn has_open_flushes(&self) -> bool {
        self.flushes.any()
    }

    /// Whether the guest asked for a flush since the last call.
    pub fn take_asked_flush(&mut self) -> bool {
        std::mem::take(&mut self.asked_flush)
    }

    /// The guest is about to be told that this flush has ended. Gives the instruction count at which
    /// it asked for it.
    pub fn flush_asked_at(&mut self, flush: &Completion) -> InstructionCount {
        self.flushes.told((flush.device, flush.request))
    }

    /// Up to where this host's disks have now what the guest wrote, if that is more than at the last
    /// call: all flushes that it asked for up to this instruction count were carried out.
    pub fn newly_durable(&mut self) -> Option<InstructionCount> {
        if let Some((_, completions)) = &self.disks {
            for flush in completions.ended_flushes() {
                self.flushes.done(flush);
            }
        }
        self.flushes.newly_durable()
    }

    /// Whether a request has ended and was not taken yet.
    pub fn has_completions(&self) -> bool {
        self.disks
            .as_ref()
            .is_some_and(|(_, completions)| completions.any())
    }

    /// From here on new requests wait. Those that were submitted go on to their end.
    pub fn hold_requests(&mut self) {
        self.held_requests.get_or_insert_default();
    }

    /// Submits what was held, in order.
    pub fn release_requests(&mut self) {
        for request in self.held_requests.take().into_iter().flatten() {
            self.send(request);
        }
    }

    /// Whether a request was submitted whose completion was not taken yet.
    pub fn has_open_requests(&self) -> bool {
        self.open_requests > 0
    }

    /// How often a replay has asked for the digest, to compare it with a recorded one.
    pub fn digests(&self) -> u64 {
        self.digests
    }

    /// The disks' thread.
    pub fn disk_thread(&self) -> Option<&DiskThread> {
        self.disks.as_ref().map(|(thread, _)| thread)
    }
}

impl Guest for ReplicaGuest {
    type Output = Output;

    fn instruction_count(&self) -> InstructionCount {
        InstructionCount(self.machine.instruction_count())
    }

    fn run(&mut self, until: InstructionCount) -> GuestStop {
        if self.follower.is_some() {
            return GuestStop::Idle;
        }
        match self.machine.run(until.0) {
            Stop::Reached => GuestStop::Reached,
            Stop::Idle { .. } => GuestStop::Idle,
            Stop::Output => GuestStop::Output,
            Stop::Finished(_) => GuestStop::Finished,
        }
    }

    fn inject(&mut self, input: &[u8]) -> Result<Injection, InjectionError> {
        let injected = match self.follower {
            Some(_) => Err(GuestError::Executes),
            None => self.inject_recorded(input),
        };
        injected.map_err(|error| InjectionError(error.to_string()))
    }

    fn hold_piece(&mut self, piece: &[u8]) -> Result<(), InjectionError> {
        let held = self.hold(piece);
        held.map_err(|error| InjectionError(error.to_string()))
    }

    fn apply_checkpoint(
        &mut self,
        count: InstructionCount,
        checkpoint: &[u8],
    ) -> Result<Injection, InjectionError> {
        let applied = self.apply(count, checkpoint);
        applied.map_err(|error| InjectionError(error.to_string()))
    }

    fn take_written(&mut self) -> u128 {
        self.take_shared_digest()
    }

    fn take_outputs(&mut self) -> Vec<Output> {
        match self.take_applied_outputs() {
            Some(outputs) => outputs,
            None => self.outputs(),
        }
    }

    fn visible_outputs(&self) -> u64 {
        self.machine.visible_outputs()
    }

    fn digest(&mut self) -> u128 {
        self.digests += 1;
        self.machine.digest()
    }
}

/// Replays on a machine that somebody else keeps, to look at it should the replay panic.
impl Guest for &mut ReplicaGuest {
    type Output = Output;

    fn instruction_count(&self) -> InstructionCount {
        (**self).instruction_count()
    }

    fn run(&mut self, until: InstructionCount) -> GuestStop {
        (**self).run(until)
    }

    fn inject(&mut self, input: &[u8]) -> Result<Injection, InjectionError> {
        (**self).inject(input)
    }

    fn hold_piece(&mut self, piece: &[u8]) -> Result<(), InjectionError> {
        (**self).hold_piece(piece)
    }

    fn apply_checkpoint(
        &mut self,
        count: InstructionCount,
        checkpoint: &[u8],
    ) -> Result<Injection, InjectionError> {
        (**self).apply_checkpoint(count, checkpoint)
    }

    fn take_written(&mut self) -> u128 {
        self.take_shared_digest()
    }

    fn take_outputs(&mut self) -> Vec<Output> {
        (**self).take_outputs()
    }

    fn visible_outputs(&self) -> u64 {
        (**self).visible_outputs()
    }

    fn digest(&mut self) -> u128 {
        (**self).digest()
    }
}

/// Bytes that one request of the entropy device may ask for.
const ENTROPY_LIMIT: u32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use devices::virtio::block::MAX_READ_BYTES;
    use replication::record::MAX_INPUT_BYTES;

    /// The length is the guest's choice: a longer one would end the recording by an assertion.
    #[test]
    fn the_longest_read_that_a_guest_can_ask_for_fits_into_a_record() {
        let input = Input::DiskCompletion {
            device: u8::MAX,
            request: u64::MAX,
            status: DiskStatus::Ok,
            data: vec![0; MAX_READ_BYTES as usize],
        };
        let encoded = encode_input(&input, InputEncoding::WithDiskData);
        assert!(encoded.len() as u64 > MAX_READ_BYTES);
        assert!(encoded.len() <= MAX_INPUT_BYTES, "{}", encoded.len());
    }
}
