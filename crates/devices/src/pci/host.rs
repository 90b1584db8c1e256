//! The host bridge and its bus, number 0: device 0 is the bridge, the virtio devices follow.

use super::configuration_space::{ConfigurationSpace, Identity};
use super::msix::Message;
use super::nobody;
use crate::DeviceContext;
use crate::virtio::pci::{VirtioPci, WINDOW_BYTES};
use crate::virtio::slots::VirtioSlots;
use machine::config::BoardConfig;
use serde::{Deserialize, Serialize};

/// Interrupt lines of the bus: INTA# to INTD#, turned from device to device.
pub const LINES: usize = 4;

/// Bytes of a function's configuration space in memory (PCI Express 5.0, section 7.2.2).
const FUNCTION_BYTES: u64 = 0x1000;
/// Bytes of a bus's.
pub const BUS_BYTES: u64 = 0x10_0000;
const FUNCTIONS_PER_DEVICE: u64 = 8;

/// QEMU's generic host bridge.
const BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_00_00,
    subsystem: (0x1af4, 0x1100),
    has_line: false,
};

const ADDRESS_ENABLED: u32 = 1 << 31;

/// The bridge and what is on its bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciHost {
    bridge: ConfigurationSpace,
    functions: VirtioSlots<VirtioPci>,
    /// What the next access through ports goes to (PCI 3.0, section 3.2.2.3.2).
    address: u32,
}

/// The interrupt line that device `device` drives by INTA#.
pub fn line(device: usize) -> usize {
    device % LINES
}

/// The device number of a virtio slot.
pub fn device_of_slot(slot: usize) -> usize {
    slot + 1
}

impl PciHost {
    /// The devices of a board as after reset, with MSI-X where the board has somewhere for messages to go.
    pub fn new(board: &BoardConfig, has_messages: bool) -> PciHost {
        PciHost {
            bridge: ConfigurationSpace::new(&BRIDGE),
            functions: VirtioSlots::with(board, |device| VirtioPci::new(device, has_messages)),
            address: 0,
        }
    }

    /// Lets the bridge be another one than QEMU's generic bridge: firmware may know a board by it.
    pub fn identify_bridge(&mut self, identity: &Identity) {
        self.bridge = ConfigurationSpace::new(identity);
    }

    /// Places the windows of all functions from `address` on, as a firmware would have done before it starts
    /// a kernel.
    pub fn place_windows(&mut self, address: u32) {
        for (function, address) in self
            .functions
            .iter_mut()
            .zip((address..).step_by(WINDOW_BYTES as usize))
        {
            function.place(address);
        }
    }

    /// The functions but for the bridge.
    pub fn functions(&self) -> &VirtioSlots<VirtioPci> {
        &self.functions
    }

    /// The functions but for the bridge.
    pub fn functions_mut(&mut self) -> &mut VirtioSlots<VirtioPci> {
        &mut self.functions
    }

    /// Levels of the interrupt lines.
    pub fn lines(&self) -> [bool; LINES] {
        let mut lines = [false; LINES];
        for (slot, function) in self.functions.iter().enumerate() {
            lines[line(device_of_slot(slot))] |= function.interrupt();
        }
        lines
    }

    /// The next interrupt message to be sent. The board calls it until nothing comes.
    pub fn next_message(&mut self) -> Option<Message> {
        self.functions.iter_mut().find_map(VirtioPci::next_message)
    }

    /// Reads 1, 2, 4 or 8 aligned bytes of configuration space in memory; all ones where nobody is.
    pub fn read_configuration(&mut self, offset: u64, size: u8) -> u64 {
        if size == 8 {
            let low = self.read_configuration(offset, 4);
            return low | self.read_configuration(offset + 4, 4) << 32;
        }
        let register = (offset % FUNCTION_BYTES) as u16;
        match device(offset) {
            Some(0) => {
                let word = self.bridge.word(register & !3) >> (8 * (register & 3));
                u64::from(word) & nobody(size)
            }
            Some(device) => match self.functions.get_mut(device - 1) {
                Some(function) => function.read_configuration(register, size).into(),
                None => nobody(size),
            },
            None => nobody(size),
        }
    }

    /// Writes 1, 2, 4 or 8 aligned bytes of configuration space in memory.
    pub fn write_configuration(
        &mut self,
        offset: u64,
        size: u8,
        value: u64,
        context: &mut DeviceContext,
    ) {
        if size == 8 {
            self.write_configuration(offset, 4, value & nobody(4), context);
            return self.write_configuration(offset + 4, 4, value >> 32, context);
        }
        let register = (offset % FUNCTION_BYTES) as u16;
        match device(offset) {
            Some(0) => {
                for (at, byte) in (register..).zip(value.to_le_bytes()).take(size.into()) {
                    self.bridge.write_byte(at, byte);
                }
            }
            Some(device) => {
                if let Some(function) = self.functions.get_mut(device - 1) {
                    function.write_configuration(register, size, value as u32, context);
                }
            }
            None => {}
        }
    }

    /// The register that says where accesses through ports go.
    pub fn address(&self) -> u32 {
        self.address
    }

    /// Writes it: the lowest two bits are zero.
    pub fn set_address(&mut self, address: u32) {
        self.address = address & (ADDRESS_ENABLED | 0x00ff_fffc);
    }

    /// Reads bytes of what the register says, from byte `offset` of four on.
    pub fn read_data(&mut self, offset: u64, size: u8) -> u32 {
        match self.addressed() {
            Some(at) => self.read_configuration(at + offset, size) as u32,
            None => nobody(size) as u32,
        }
    }

    /// Writes bytes of what the register says, from byte `offset` of four on.
    pub fn write_data(&mut self, offset: u64, size: u8, value: u32, context: &mut DeviceContext) {
        if let Some(at) = self.addressed() {
            self.write_configuration(at + offset, size, value.into(), context);
        }
    }

    /// Where the address register leads, as an offset in configuration space in memory.
    fn addressed(&self) -> Option<u64> {
        let function = u64::from(self.address >> 8 & 0xffff) * FUNCTION_BYTES;
        let register = u64::from(self.address & 0xfc);
        (self.address & ADDRESS_ENABLED != 0).then_some(function + register)
    }

    /// Reads 1, 2, 4 or 8 bytes of memory space; all ones where no function answers.
    pub fn read_memory(&mut self, address: u64, size: u8) -> u64 {
        match self.answering(address) {
            Some((slot, offset)) => match self.functions.get_mut(slot) {
                Some(function) => function.read(offset, size),
                None => nobody(size),
            },
            None => nobody(size),
        }
    }

    /// Writes 1, 2, 4 or 8 bytes of memory space.
    pub fn write_memory(
        &mut self,
        address: u64,
        size: u8,
        value: u64,
        context: &mut DeviceContext,
    ) {
        if let Some((slot, offset)) = self.answering(address)
            && let Some(function) = self.functions.get_mut(slot)
        {
            function.write(offset, size, value, context);
        }
    }

    /// The slot whose function answers to a memory address, the first if there are several, and the offset in
    /// its window.
    fn answering(&self, address: u64) -> Option<(usize, u32)> {
        let mut functions = self.functions.iter().enumerate();
        functions.find_map(|(slot, function)| Some((slot, function.offset(address)?)))
    }
}

/// The device whose function 0 an offset in configuration space belongs to, on bus 0.
fn device(offset: u64) -> Option<usize> {
    let function = offset / FUNCTION_BYTES;
    let is_first = function.is_multiple_of(FUNCTIONS_PER_DEVICE) && offset < BUS_BYTES;
    is_first.then_some((function / FUNCTIONS_PER_DEVICE) as usize)
}
