//! The virtio devices of a board behind the memory-mapped transport, in slots that follow each other.

use super::block::{Block, CompletionError};
use super::mmio::{self, VirtioMmio};
use super::queue::QueueError;
use super::{VirtioDevice, kind};
use crate::DeviceContext;
use machine::config::BoardConfig;
use machine::input::{Console, Input, InputError};
use machine::output::DiskRequest;
use serde::{Deserialize, Serialize};

/// The occupied slots, from the first on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioSlots(Vec<VirtioMmio>);

impl VirtioSlots {
    /// The devices of a board as after power-on, in the order that [`BoardConfig`] names.
    pub fn new(board: &BoardConfig) -> VirtioSlots {
        let devices = VirtioDevice::all(board).into_iter();
        VirtioSlots(devices.map(VirtioMmio::new).collect())
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

    /// Reads a register of a slot: see [`VirtioMmio::read`].
    pub fn read(&self, slot: usize, offset: u64, size: u8) -> u64 {
        match self.0.get(slot) {
            Some(device) => device.read(offset, size),
            None => mmio::read_empty_slot(offset, size),
        }
    }

    /// Writes a register of a slot: see [`VirtioMmio::write`].
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

    /// Takes an input from outside. DMA has landed when this returns. Gives the slot of the device,
    /// whose interrupt line may have changed; none if the input is for something else than a virtio
    /// device, and then nothing has changed.
    ///
    /// # Errors
    /// [`InputError`] for an input that these devices do not take; nothing has changed then.
    pub fn inject(
        &mut self,
        input: &Input,
        context: &mut DeviceContext,
    ) -> Result<Option<usize>, InputError> {
        match input {
            Input::NetworkFrame { device, frame } => {
                let slot = self.slot(kind::NETWORK, *device)?;
                self.0[slot].receive_frame(frame, context);
                Ok(Some(slot))
            }
            Input::ConsoleBytes {
                console: Console::Virtio,
                bytes,
            } => {
                let slot = self.slot(kind::CONSOLE, 0)?;
                self.0[slot].receive_console(bytes, context);
                Ok(Some(slot))
            }
            Input::DiskCompletion {
                device,
                request,
                status,
                data,
            } => {
                let (device, request) = (*device, *request);
                let slot = self.slot(kind::DISK, device)?;
                if let Some(block) = self.0[slot].block() {
                    block
                        .check_completion(request, *status, data)
                        .map_err(|error| completion_error(error, device, request, data.len()))?;
                }
                self.0[slot].complete_disk_request(request, *status, data, context);
                Ok(Some(slot))
            }
            Input::Entropy { bytes } => {
                let slot = self.slot(kind::ENTROPY, 0)?;
                let requested = self.open_entropy_request().unwrap_or(0);
                if bytes.is_empty() || bytes.len() as u64 > u64::from(requested) {
                    return Err(InputError::Entropy {
                        requested,
                        found: bytes.len() as u64,
                    });
                }
                self.0[slot].receive_entropy(bytes, context);
                Ok(Some(slot))
            }
            Input::PowerButton => {
                let slot = self.slot(kind::POWER_BUTTON, 0)?;
                self.0[slot].press(context);
                Ok(Some(slot))
            }
            Input::ConsoleBytes {
                console: Console::Uart,
                ..
            }
            | Input::Clock(_)
            | Input::Calendar { .. }
            | Input::ResetButton
            | Input::Pause
            | Input::Resume => Ok(None),
        }
    }

    /// The slot of the `index`-th device of a kind.
    fn slot(&self, kind: &'static str, index: u8) -> Result<usize, InputError> {
        let slots = self.0.iter().enumerate();
        let mut of_kind = slots.filter(|(_, slot)| slot.device().kind() == kind);
        match of_kind.nth(usize::from(index)) {
            Some((slot, _)) => Ok(slot),
            None => Err(InputError::NoSuchDevice {
                kind,
                device: index,
            }),
        }
    }

    /// The disk requests without completion, oldest first for each disk: who goes live repeats
    /// them.
    pub fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.0
            .iter()
            .filter_map(VirtioMmio::block)
            .flat_map(Block::open_requests)
            .collect()
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
