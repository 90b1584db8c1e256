//! The virtio devices of a board behind one kind of transport, in slots that follow each other.

use super::block::{Block, CompletionError};
use super::driven::DrivenDevice;
use super::mmio::{self, VirtioMmio};
use super::queue::QueueError;
use super::{Session, VirtioDevice, kind};
use crate::DeviceContext;
use machine::config::BoardConfig;
use machine::input::{Console, Input, InputError};
use machine::output::DiskRequest;
use serde::{Deserialize, Serialize};

/// What leads from a driver to its device.
pub trait Transport {
    /// The device behind it.
    fn driven(&self) -> &DrivenDevice;

    /// The device behind it.
    fn driven_mut(&mut self) -> &mut DrivenDevice;

    /// Lets the device work, and interrupts the driver as it wants it.
    fn work(
        &mut self,
        context: &mut DeviceContext,
        work: impl FnOnce(&mut VirtioDevice, &mut Session) -> Result<(), QueueError>,
    );
}

/// The occupied slots, from the first on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioSlots<T = VirtioMmio>(Vec<T>);

impl VirtioSlots {
    /// The devices of a board as after power-on, in the order that [`BoardConfig`] names.
    pub fn new(board: &BoardConfig) -> VirtioSlots {
        VirtioSlots::with(board, VirtioMmio::new)
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
}

impl<T> VirtioSlots<T> {
    /// The devices of a board as after power-on, behind the transports that `transport` gives them.
    pub fn with(board: &BoardConfig, transport: impl FnMut(VirtioDevice) -> T) -> VirtioSlots<T> {
        let devices = VirtioDevice::all(board).into_iter();
        VirtioSlots(devices.map(transport).collect())
    }

    /// How many slots are occupied.
    pub fn occupied(&self) -> usize {
        self.0.len()
    }

    /// The transport of a slot.
    pub fn get(&self, slot: usize) -> Option<&T> {
        self.0.get(slot)
    }

    /// The transport of a slot.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.0.get_mut(slot)
    }

    /// All transports, from the first slot on.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// All transports, from the first slot on.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}

impl<T: Transport> VirtioSlots<T> {
    /// The devices are new ones in the place of `old` ones: their requests to the outside stay under
    /// way, under their numbers, and nobody waits for them.
    pub fn take_requests_of(&mut self, old: &VirtioSlots<T>) {
        for (new, old) in self.0.iter_mut().zip(&old.0) {
            new.driven_mut().take_requests_of(old.driven());
        }
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
                self.0[slot].work(context, |device, session| match device {
                    VirtioDevice::Network(network) => network.receive(frame, session),
                    _ => Ok(()),
                });
                Ok(Some(slot))
            }
            Input::ConsoleBytes {
                console: Console::Virtio,
                bytes,
            } => {
                let slot = self.slot(kind::CONSOLE, 0)?;
                self.0[slot].work(context, |device, session| match device {
                    VirtioDevice::Console(console) => console.receive(bytes, session),
                    _ => Ok(()),
                });
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
                if let Some(block) = block(&self.0[slot]) {
                    block
                        .check_completion(request, *status, data)
                        .map_err(|error| completion_error(error, device, request, data.len()))?;
                }
                self.0[slot].work(context, |device, session| match device {
                    VirtioDevice::Block(block) => block.complete(request, *status, data, session),
                    _ => Ok(()),
                });
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
                self.0[slot].work(context, |device, session| match device {
                    VirtioDevice::Entropy(entropy) => entropy.receive(bytes, session),
                    _ => Ok(()),
                });
                Ok(Some(slot))
            }
            Input::PowerButton => {
                let slot = self.slot(kind::POWER_BUTTON, 0)?;
                self.0[slot].work(context, |device, session| match device {
                    VirtioDevice::PowerButton(button) => button.press(session),
                    _ => Ok(()),
                });
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
        let mut of_kind = slots.filter(|(_, slot)| slot.driven().device().kind() == kind);
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
            .filter_map(block)
            .flat_map(Block::open_requests)
            .collect()
    }

    /// The random bytes that were asked for and have not come: who goes live brings them.
    pub fn open_entropy_request(&self) -> Option<u32> {
        self.0.iter().find_map(|slot| match slot.driven().device() {
            VirtioDevice::Entropy(entropy) => entropy.open_request(),
            _ => None,
        })
    }

    /// The devices that need a reset, by slot, and what their drivers did wrong.
    pub fn driver_faults(&self) -> Vec<(usize, QueueError)> {
        let faults = self.0.iter().enumerate();
        faults
            .filter_map(|(slot, device)| device.driven().fault().map(|fault| (slot, fault)))
            .collect()
    }
}

/// The disk behind a transport, if it is one.
fn block<T: Transport>(transport: &T) -> Option<&Block> {
    match transport.driven().device() {
        VirtioDevice::Block(block) => Some(block),
        _ => None,
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
