//! The virtio devices of a board, one a slot: what comes from outside finds its device here.

use super::VirtioDevice;
use super::block::{Block, CompletionError};
use super::mmio::{self, VirtioMmio};
use super::queue::QueueError;
use crate::bus::{DeviceContext, InputError};
use crate::input::{Console, Input};
use crate::output::DiskRequest;
use serde::{Deserialize, Serialize};

/// The occupied slots, from the first on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioSlots(Vec<VirtioMmio>);

impl VirtioSlots {
    /// Devices as after reset, in the order of their slots.
    pub fn new(devices: Vec<VirtioDevice>) -> VirtioSlots {
        VirtioSlots(devices.into_iter().map(VirtioMmio::new).collect())
    }

    /// The devices are new ones in the place of `old` ones: their requests to the outside stay under
    /// way, under their numbers, and nobody waits for them.
    pub fn take_requests_of(&mut self, old: &VirtioSlots) {
        for (new, old) in self.0.iter_mut().zip(&old.0) {
            new.take_requests_of(old);
        }
    }

    /// How many slots are occupied.
    pub fn occupied(&self) -> usize {
        self.0.len()
    }

    /// Reads a register of a slot, which may be empty.
    pub fn read(&self, slot: usize, offset: u64, size: u8) -> u64 {
        match self.0.get(slot) {
            Some(device) => device.read(offset, size),
            None => mmio::read_empty_slot(offset, size),
        }
    }

    /// Writes a register of a slot, which may be empty.
    pub fn write(
        &mut self,
        slot: usize,
        offset: u64,
        size: u8,
        value: u64,
        context: &mut DeviceContext,
    ) {
        if let Some(device) = self.0.get_mut(slot) {
            device.write(offset, size, value, context);
        }
    }

    /// Level of a slot's interrupt line.
    pub fn interrupt(&self, slot: usize) -> bool {
        self.0.get(slot).is_some_and(VirtioMmio::interrupt)
    }

    /// Takes an input from outside and says which slot it was for; DMA lands before this returns.
    /// `None` is an input for something else than a virtio device.
    ///
    /// # Errors
    /// [`InputError`] for an input that does not belong to these devices; nothing has changed then.
    pub fn inject(
        &mut self,
        input: &Input,
        context: &mut DeviceContext,
    ) -> Result<Option<usize>, InputError> {
        let slot = match input {
            Input::NetworkFrame { device, frame } => {
                let is_network = |d: &VirtioDevice| matches!(d, VirtioDevice::Network(_));
                let slot = self.find("network device", *device, is_network)?;
                self.0[slot].receive_frame(frame, context);
                slot
            }
            Input::ConsoleBytes {
                console: Console::Virtio,
                bytes,
            } => {
                let is_console = |d: &VirtioDevice| matches!(d, VirtioDevice::Console(_));
                let slot = self.find("virtio console", 0, is_console)?;
                self.0[slot].receive_console(bytes, context);
                slot
            }
            Input::DiskCompletion {
                device,
                request,
                status,
                data,
            } => {
                let (device, request) = (*device, *request);
                let is_disk = |d: &VirtioDevice| matches!(d, VirtioDevice::Block(_));
                let slot = self.find("disk", device, is_disk)?;
                if let Some(block) = self.0[slot].block() {
                    block
                        .check_completion(request, *status, data)
                        .map_err(|error| completion_error(error, device, request, data.len()))?;
                }
                self.0[slot].complete_disk_request(request, *status, data, context);
                slot
            }
            Input::Entropy { bytes } => {
                let is_entropy = |d: &VirtioDevice| matches!(d, VirtioDevice::Entropy(_));
                let slot = self.find("entropy device", 0, is_entropy)?;
                let requested = self.open_entropy_request().unwrap_or(0);
                if bytes.is_empty() || bytes.len() as u64 > u64::from(requested) {
                    return Err(InputError::Entropy {
                        requested,
                        found: bytes.len() as u64,
                    });
                }
                self.0[slot].receive_entropy(bytes, context);
                slot
            }
            Input::ConsoleBytes {
                console: Console::Uart,
                ..
            }
            | Input::Clock(_) => return Ok(None),
        };
        Ok(Some(slot))
    }

    /// The disk requests without completion, oldest first for each disk: who goes live repeats
    /// them.
    pub fn open_disk_requests(&self) -> Vec<DiskRequest> {
        let disks = self.0.iter().filter_map(VirtioMmio::block);
        disks.flat_map(Block::open_requests).collect()
    }

    /// The random bytes that were asked for and have not come: who goes live brings them.
    pub fn open_entropy_request(&self) -> Option<u32> {
        self.0.iter().find_map(|slot| match slot.device() {
            VirtioDevice::Entropy(entropy) => entropy.open_request(),
            _ => None,
        })
    }

    /// The devices that need a reset, by slot, and what their drivers did wrong.
    pub fn driver_faults(&self) -> Vec<(usize, QueueError)> {
        let faults = self.0.iter().enumerate();
        faults
            .filter_map(|(slot, device)| device.fault().map(|fault| (slot, fault)))
            .collect()
    }

    /// The slot of the `device`-th device of a kind.
    fn find(
        &self,
        kind: &'static str,
        device: u8,
        is_of_kind: impl Fn(&VirtioDevice) -> bool,
    ) -> Result<usize, InputError> {
        let slots = self.0.iter().enumerate();
        let mut of_kind = slots.filter(|(_, slot)| is_of_kind(slot.device()));
        let found = of_kind.nth(usize::from(device));
        found
            .map(|(slot, _)| slot)
            .ok_or(InputError::NoSuchDevice { kind, device })
    }
}

fn completion_error(error: CompletionError, device: u8, request: u64, found: usize) -> InputError {
    match error {
        CompletionError::Unknown => InputError::UnknownDiskRequest { device, request },
        CompletionError::Length { expected } => InputError::DiskDataLength {
            device,
            request,
            expected,
            found: found as u64,
        },
    }
}
