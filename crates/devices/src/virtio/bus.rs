//! The virtio devices of a board, whatever transport it has.

use super::queue::QueueError;
use super::slots::VirtioSlots;
use crate::DeviceContext;
use crate::pci::host::PciHost;
use machine::config::{BoardConfig, Transport};
use machine::input::{Input, InputError};
use machine::output::DiskRequest;
use serde::{Deserialize, Serialize};

/// The devices behind their transports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtioBus {
    /// In slots of registers in memory.
    Mmio(VirtioSlots),
    /// On a PCI bus.
    Pci(PciHost),
}

/// The same of either transport.
macro_rules! slots {
    ($bus:expr, $slots:ident => $work:expr) => {
        match $bus {
            VirtioBus::Mmio($slots) => $work,
            VirtioBus::Pci(host) => {
                let $slots = host.functions();
                $work
            }
        }
    };
}

impl VirtioBus {
    /// The devices of a board as after power-on. `has_messages`: interrupts can be messages.
    pub fn new(board: &BoardConfig, has_messages: bool) -> VirtioBus {
        match board.transport {
            Transport::Mmio => VirtioBus::Mmio(VirtioSlots::new(board)),
            Transport::Pci => VirtioBus::Pci(PciHost::new(board, has_messages)),
        }
    }

    /// Whether they are what this board has: a snapshot may say anything.
    pub fn belongs_to(&self, board: &BoardConfig) -> bool {
        let transport = match self {
            VirtioBus::Mmio(_) => Transport::Mmio,
            VirtioBus::Pci(_) => Transport::Pci,
        };
        transport == board.transport
    }

    /// See [`VirtioSlots::take_requests_of`].
    pub fn take_requests_of(&mut self, old: &VirtioBus) {
        match (self, old) {
            (VirtioBus::Mmio(new), VirtioBus::Mmio(old)) => new.take_requests_of(old),
            (VirtioBus::Pci(new), VirtioBus::Pci(old)) => {
                new.functions_mut().take_requests_of(old.functions());
            }
            (VirtioBus::Mmio(_), VirtioBus::Pci(_)) | (VirtioBus::Pci(_), VirtioBus::Mmio(_)) => {
                unreachable!("a reset does not change the board")
            }
        }
    }

    /// How many devices there are.
    pub fn occupied(&self) -> usize {
        slots!(self, slots => slots.occupied())
    }

    /// See [`VirtioSlots::inject`].
    ///
    /// # Errors
    /// [`InputError`] for an input that these devices do not take; nothing has changed then.
    pub fn inject(
        &mut self,
        input: &Input,
        context: &mut DeviceContext,
    ) -> Result<Option<usize>, InputError> {
        match self {
            VirtioBus::Mmio(slots) => slots.inject(input, context),
            VirtioBus::Pci(host) => host.functions_mut().inject(input, context),
        }
    }

    /// See [`VirtioSlots::open_disk_requests`].
    pub fn open_disk_requests(&self) -> Vec<DiskRequest> {
        slots!(self, slots => slots.open_disk_requests())
    }

    /// See [`VirtioSlots::open_entropy_request`].
    pub fn open_entropy_request(&self) -> Option<u32> {
        slots!(self, slots => slots.open_entropy_request())
    }

    /// See [`VirtioSlots::driver_faults`].
    pub fn driver_faults(&self) -> Vec<(usize, QueueError)> {
        slots!(self, slots => slots.driver_faults())
    }
}
