//! Requests to disks that all hosts of the machine reach. A live machine's writes are outputs; a replaying one asks its
//! disks for nothing, and takes from the records what the primary's read. `docs/decisions/shared-disks.md`.

use super::{InputEncoding, ReplicaGuest};
use crate::disk::DiskThread;
use crate::disk::shared::SharedFile;
use machine::input::Input;
use machine::output::{DiskOperation, DiskRequest};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::xxh3_128;

/// By device and request.
type Name = (u8, u64);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SharedRequests {
    /// Of each disk, whether it is shared.
    devices: Vec<bool>,
    is_live: bool,
    /// Writes that the guest was not told the end of, while it is live.
    writes: BTreeSet<Name>,
    /// The digest of what was written since it was looked at; 0: nothing.
    written: u128,
}

/// Whether it changes what is on the disk.
fn is_write(operation: &DiskOperation) -> bool {
    match operation {
        DiskOperation::Write { .. } | DiskOperation::Zero { .. } => true,
        DiskOperation::Read { .. } | DiskOperation::Flush => false,
    }
}

impl SharedRequests {
    /// Of the disks that this thread serves.
    pub(super) fn of(thread: Option<&DiskThread>) -> SharedRequests {
        let shared = thread.map_or(&[][..], DiskThread::shared);
        SharedRequests {
            devices: shared.iter().map(Option::is_some).collect(),
            ..SharedRequests::default()
        }
    }

    /// Whether this disk is shared.
    pub(super) fn has(&self, device: u8) -> bool {
        let device = self.devices.get(usize::from(device));
        device.copied().unwrap_or_default()
    }

    /// The machine asks for it: the digest says so.
    fn asked(&mut self, request: &DiskRequest) {
        let (kind, sector, length, content) = match &request.operation {
            DiskOperation::Write { sector, data } => {
                (1u64, *sector, data.len() as u64, xxh3_128(data))
            }
            DiskOperation::Zero { sector, sectors } => (2, *sector, *sectors, 0),
            DiskOperation::Read { .. } | DiskOperation::Flush => return,
        };
        let mut bytes = Vec::with_capacity(72);
        bytes.extend(self.written.to_le_bytes());
        for word in [kind, request.device.into(), request.request, sector, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(content.to_le_bytes());
        self.written = xxh3_128(&bytes);
    }

    /// Whether a request of a live machine waits for those who have to hold the records before it: a write does, and
    /// whatever follows one on its disk, as all disks do what they are asked in order.
    fn is_output(&mut self, request: &DiskRequest) -> bool {
        if is_write(&request.operation) {
            self.writes.insert((request.device, request.request));
        }
        let of_disk = (request.device, 0)..=(request.device, u64::MAX);
        self.writes.range(of_disk).next().is_some()
    }

    /// The guest is told of its end.
    pub(super) fn ended(&mut self, name: Name) {
        self.writes.remove(&name);
    }
}

impl ReplicaGuest {
    /// The machine asks a shared disk for something. What is given back is an output.
    pub(super) fn ask_shared(&mut self, request: DiskRequest) -> Option<DiskRequest> {
        self.shared.asked(&request);
        self.note_flush(&request);
        if !self.shared.is_live {
            return None;
        }
        if self.shared.is_output(&request) {
            return Some(request);
        }
        self.submit_shared(request);
        None
    }

    fn submit_shared(&self, request: DiskRequest) {
        if let Some((thread, _)) = &self.disks {
            thread.submit(request);
        }
    }

    /// The machine goes live here: what it has open is asked for again, in order. Writes are of the past that this host
    /// holds, and their effect is the same however often they are carried out. `forgets` is a bug, for the simulator.
    pub fn share(&mut self, forgets: bool) {
        self.shared.is_live = true;
        for request in self.machine.open_disk_requests() {
            if self.shared.has(request.device) {
                self.shared.is_output(&request);
                if !forgets {
                    self.submit_shared(request);
                }
            }
        }
    }

    /// The digest of what was written to shared disks since the last call; 0 if nothing was.
    pub fn take_shared_digest(&mut self) -> u128 {
        std::mem::take(&mut self.shared.written)
    }

    /// What a shared disk reads is in the records: no other host reads it again.
    pub fn encoding_of(&self, input: &Input, usual: InputEncoding) -> InputEncoding {
        match input {
            Input::DiskCompletion { device, .. } if self.shared.has(*device) => {
                InputEncoding::WithDiskData
            }
            _ => usual,
        }
    }

    /// Bytes of each disk that a backup's host has a copy of.
    pub fn copied_lengths(&self) -> Vec<u64> {
        let lengths = super::super::messages::disk_lengths(&*self.machine);
        let lengths = lengths.into_iter().zip(0u8..);
        lengths
            .map(|(length, device)| if self.shared.has(device) { 0 } else { length })
            .collect()
    }

    /// What all hosts reach of its disks.
    pub fn shared_files(&self) -> Vec<SharedFile> {
        let shared = self.disk_thread().map_or(&[][..], DiskThread::shared);
        shared.iter().flatten().cloned().collect()
    }
}
