//! The PCI transport (virtio 1.2, section 4.1), without the legacy interface: one memory window holds the
//! structures that its capabilities name, and the table of MSI-X.

use super::driven::{DrivenDevice, Signals, read_bytes, set_half};
use super::queue::QueueError;
use super::slots::Transport;
use super::{Session, VirtioDevice};
use crate::DeviceContext;
use crate::pci::configuration_space::{ConfigurationSpace, Identity};
use crate::pci::msix::{self, Message, Vectors};
use crate::pci::nobody;
use serde::{Deserialize, Serialize};

/// Section 4.1.2: Red Hat's number, and that of the first virtio device.
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
const REVISION: u8 = 1;

/// The window with everything.
const WINDOW: u16 = 0;
/// Its length in bytes.
pub const WINDOW_BYTES: u32 = 0x8000;
const COMMON: u32 = 0x0000;
const COMMON_BYTES: u32 = 56;
const INTERRUPT_STATUS: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const PART_BYTES: u32 = 0x1000;
const VECTORS: u32 = 0x4000;
/// The addresses at which queues are notified are so far from each other.
const NOTIFY_MULTIPLIER: u32 = 4;

const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;
/// Offsets in a vendor capability (section 4.1.4).
const CAPABILITY_WINDOW: u16 = 4;
const CAPABILITY_OFFSET: u16 = 8;
const CAPABILITY_LENGTH: u16 = 12;
const CAPABILITY_DATA: u16 = 16;

/// What a vendor capability names (section 4.1.4).
const COMMON_CONFIGURATION: u8 = 1;
const NOTIFY_CONFIGURATION: u8 = 2;
const INTERRUPT_STATUS_CONFIGURATION: u8 = 3;
const DEVICE_CONFIGURATION: u8 = 4;
const ACCESS_CONFIGURATION: u8 = 5;

/// Fields of the common configuration (section 4.1.4.3).
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIGURATION_VECTOR: u64 = 0x10;
const QUEUES: usize = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
const QUEUE_DESCRIPTORS: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

/// VIRTIO_MSI_NO_VECTOR.
const NO_VECTOR: u16 = 0xffff;

const MSIX_CONTROL: u16 = 2;
const MSIX_ENABLED: u16 = 1 << 15;
const MSIX_MASKED: u16 = 1 << 14;

const INTERRUPT_USED_BUFFER: u8 = 1;
const INTERRUPT_CONFIGURATION: u8 = 2;

/// A device as a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioPci {
    space: ConfigurationSpace,
    driven: DrivenDevice,
    /// Section 4.1.4.5, while interrupts go by line.
    interrupt_status: u8,
    vectors: Vectors,
    /// Offset of the MSI-X capability, if there is one.
    msix: Option<u16>,
    /// Offset of the capability through which configuration space leads into the window.
    access: u16,
    configuration_vector: u16,
    /// One for each queue.
    queue_vectors: Vec<u16>,
}

/// Base class, subclass and programming interface: what QEMU gives these devices.
fn class(device: &VirtioDevice) -> u32 {
    match device {
        VirtioDevice::Block(_) => 0x01_00_00,
        VirtioDevice::Network(_) => 0x02_00_00,
        VirtioDevice::Console(_) => 0x07_80_00,
        VirtioDevice::Entropy(_) => 0x00_ff_00,
        VirtioDevice::PowerButton(_) => 0x09_80_00,
    }
}

/// `struct virtio_pci_cap`.
fn capability(kind: u8, offset: u32, length: u32, rest: &[u8]) -> Vec<u8> {
    let bytes = CAPABILITY_DATA as u8 + rest.len() as u8;
    let mut capability = vec![CAPABILITY_VENDOR, 0, bytes, kind, WINDOW as u8, 0, 0, 0];
    capability.extend(offset.to_le_bytes());
    capability.extend(length.to_le_bytes());
    capability.extend(rest);
    capability
}

/// `struct virtio_pci_cfg_cap` and which bits of it a driver may write: window, offset, length and data.
fn access_capability() -> (Vec<u8>, Vec<u8>) {
    let mut writable = vec![0, 0, 0, 0, 0xff, 0, 0, 0];
    writable.extend([0xff; 12]);
    (capability(ACCESS_CONFIGURATION, 0, 0, &[0; 4]), writable)
}

/// The MSI-X capability (PCI 3.0, section 6.8.2), both structures in the window.
fn msix_capability(vectors: u16) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = vec![CAPABILITY_MSIX, 0];
    bytes.extend((vectors - 1).to_le_bytes());
    bytes.extend((VECTORS | u32::from(WINDOW)).to_le_bytes());
    bytes.extend(((VECTORS + msix::PENDING as u32) | u32::from(WINDOW)).to_le_bytes());
    (bytes, vec![0, 0, 0, 0xc0])
}

impl VirtioPci {
    /// A device as after reset, with MSI-X where the board has somewhere for messages to go.
    pub fn new(device: VirtioDevice, has_messages: bool) -> VirtioPci {
        let mut space = ConfigurationSpace::new(&Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE + device.device_id() as u16,
            revision: REVISION,
            class: class(&device),
            // Section 4.1.2.1: anything from 0x40 on.
            subsystem: (VENDOR, 0x1100),
            has_line: true,
        });
        space.add_memory(WINDOW, WINDOW_BYTES);
        for (kind, offset, length, rest) in [
            (COMMON_CONFIGURATION, COMMON, COMMON_BYTES, &[][..]),
            (
                NOTIFY_CONFIGURATION,
                NOTIFY,
                PART_BYTES,
                &NOTIFY_MULTIPLIER.to_le_bytes(),
            ),
            (
                INTERRUPT_STATUS_CONFIGURATION,
                INTERRUPT_STATUS,
                PART_BYTES,
                &[],
            ),
            (DEVICE_CONFIGURATION, DEVICE, PART_BYTES, &[]),
        ] {
            space.add_capability(&capability(kind, offset, length, rest), &[]);
        }
        let (bytes, writable) = access_capability();
        let access = space.add_capability(&bytes, &writable);
        let driven = DrivenDevice::new(device, false);
        let queues = driven.queues();
        let vectors = Vectors::new(if has_messages { queues as u16 + 1 } else { 0 });
        let msix = has_messages.then(|| {
            let (bytes, writable) = msix_capability(vectors.count());
            space.add_capability(&bytes, &writable)
        });
        VirtioPci {
            space,
            driven,
            interrupt_status: 0,
            vectors,
            msix,
            access,
            configuration_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
        }
    }

    /// Its configuration space.
    pub fn space(&self) -> &ConfigurationSpace {
        &self.space
    }

    /// Places the window, and lets the function answer there: what a firmware does.
    pub fn place(&mut self, address: u32) {
        self.space.place_memory(WINDOW, address);
    }

    /// The offset of a memory address in the window, where the function answers to it.
    pub fn offset(&self, address: u64) -> Option<u32> {
        let offset = address.checked_sub(self.space.memory(WINDOW).into())?;
        let answers = self.space.answers_memory() && offset < WINDOW_BYTES.into();
        answers.then_some(offset as u32)
    }

    /// Level of the interrupt line.
    pub fn interrupt(&self) -> bool {
        self.interrupt_status != 0
            && self.msix_control() & MSIX_ENABLED == 0
            && self.space.may_drive_line()
    }

    /// The next interrupt message to be sent. The board calls it until nothing comes.
    pub fn next_message(&mut self) -> Option<Message> {
        let sends = self.msix_control() & (MSIX_ENABLED | MSIX_MASKED) == MSIX_ENABLED
            && self.space.is_bus_master();
        sends.then(|| self.vectors.next_message()).flatten()
    }

    /// Reads 1, 2 or 4 aligned bytes of configuration space.
    pub fn read_configuration(&mut self, offset: u16, size: u8) -> u32 {
        if offset & !3 == self.access + CAPABILITY_DATA
            && let Some((window_offset, length)) = self.accessed()
        {
            let value = self.read(window_offset, length) as u32;
            let data = self.access + CAPABILITY_DATA;
            self.space.put(data, &value.to_le_bytes()[..length.into()]);
        }
        let word = self.space.word(offset & !3) >> (8 * (offset & 3));
        word & nobody(size) as u32
    }

    /// Writes 1, 2 or 4 aligned bytes of configuration space.
    pub fn write_configuration(
        &mut self,
        offset: u16,
        size: u8,
        value: u32,
        context: &mut DeviceContext,
    ) {
        for (at, byte) in (offset..).zip(value.to_le_bytes()).take(size.into()) {
            self.space.write_byte(at, byte);
        }
        let signals = self.driven.set_reach(self.space.is_bus_master(), context);
        self.signal(signals);
        let data = self.access + CAPABILITY_DATA;
        if offset & !3 == data
            && let Some((window_offset, length)) = self.accessed()
        {
            let value = self.space.word(data);
            self.write(window_offset, length, value.into(), context);
        }
    }

    /// Where the capability for access leads (section 4.1.4.9): an offset in the window, and 1, 2 or 4 bytes.
    fn accessed(&self) -> Option<(u32, u8)> {
        let window = self.space.byte(self.access + CAPABILITY_WINDOW);
        let offset = self.space.word(self.access + CAPABILITY_OFFSET);
        let length = self.space.word(self.access + CAPABILITY_LENGTH);
        let is_access = u16::from(window) == WINDOW
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length)
            && offset < WINDOW_BYTES;
        is_access.then_some((offset, length as u8))
    }

    /// Reads 1 to 8 bytes of the window.
    pub fn read(&mut self, offset: u32, size: u8) -> u64 {
        let within = u64::from(offset % PART_BYTES);
        match offset - offset % PART_BYTES {
            COMMON => read_bytes(&self.common_configuration(), within, size),
            INTERRUPT_STATUS if within == 0 => {
                let status = std::mem::take(&mut self.interrupt_status);
                self.space.show_interrupt(false);
                status.into()
            }
            DEVICE => self.driven.read_configuration(within, size),
            VECTORS => self.vectors.read(within, size),
            _ => 0,
        }
    }

    /// Writes 1 to 8 bytes of the window.
    pub fn write(&mut self, offset: u32, size: u8, value: u64, context: &mut DeviceContext) {
        let within = u64::from(offset % PART_BYTES);
        match offset - offset % PART_BYTES {
            COMMON if size == 8 => {
                // Fields of 64 bits are two of 32 (section 4.1.3.1).
                self.write_common(within, 4, value as u32, context);
                self.write_common(within + 4, 4, (value >> 32) as u32, context);
            }
            COMMON => self.write_common(within, size, value as u32, context),
            DEVICE => self.driven.write_configuration(within, size, value),
            NOTIFY => {
                let queue = (within / u64::from(NOTIFY_MULTIPLIER)) as usize;
                let signals = self.driven.notify(queue, context);
                self.signal(signals);
            }
            VECTORS => self.vectors.write(within, size, value),
            _ => {}
        }
    }

    /// `struct virtio_pci_common_cfg`.
    fn common_configuration(&self) -> [u8; COMMON_BYTES as usize] {
        let mut bytes = [0; COMMON_BYTES as usize];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let driven = &self.driven;
        put(
            DEVICE_FEATURE_SELECT as usize,
            &driven.device_features_select.to_le_bytes(),
        );
        put(DEVICE_FEATURE, &driven.offered_features().to_le_bytes());
        put(
            DRIVER_FEATURE_SELECT as usize,
            &driven.driver_features_select.to_le_bytes(),
        );
        put(
            DRIVER_FEATURE as usize,
            &driven.driver_features().to_le_bytes(),
        );
        put(
            CONFIGURATION_VECTOR as usize,
            &self.configuration_vector.to_le_bytes(),
        );
        put(QUEUES, &(driven.queues() as u16).to_le_bytes());
        put(DEVICE_STATUS as usize, &[driven.status()]);
        put(
            QUEUE_SELECT as usize,
            &(driven.queue_select as u16).to_le_bytes(),
        );
        let select = driven.queue_select as usize;
        // Section 4.1.4.3.1: a queue that there is not has a size of zero.
        if let Some(queue) = driven.selected_queue() {
            put(QUEUE_SIZE as usize, &queue.size.to_le_bytes());
            put(
                QUEUE_ENABLE as usize,
                &u16::from(queue.is_ready()).to_le_bytes(),
            );
            put(QUEUE_NOTIFY_OFFSET, &(select as u16).to_le_bytes());
            put(QUEUE_DESCRIPTORS as usize, &queue.descriptors.to_le_bytes());
            put(QUEUE_DRIVER as usize, &queue.available.to_le_bytes());
            put(QUEUE_DEVICE as usize, &queue.used.to_le_bytes());
        }
        let vector = self.queue_vectors.get(select).copied();
        put(
            QUEUE_VECTOR as usize,
            &vector.unwrap_or(NO_VECTOR).to_le_bytes(),
        );
        bytes
    }

    /// Section 4.1.3.1: fields are written as a whole; anything else is ignored.
    fn write_common(&mut self, field: u64, size: u8, value: u32, context: &mut DeviceContext) {
        let driven = &mut self.driven;
        match (field, size) {
            (DEVICE_FEATURE_SELECT, 4) => driven.device_features_select = value,
            (DRIVER_FEATURE_SELECT, 4) => driven.driver_features_select = value,
            (DRIVER_FEATURE, 4) => driven.write_driver_features(value),
            (CONFIGURATION_VECTOR, 2) => self.configuration_vector = self.vector(value),
            (DEVICE_STATUS, 1) if value & 0xff == 0 => self.reset(),
            (DEVICE_STATUS, 1) => {
                let signals = driven.write_status(value as u8, context);
                self.signal(signals);
            }
            (QUEUE_SELECT, 2) => driven.queue_select = value & 0xffff,
            (QUEUE_VECTOR, 2) => {
                let (select, vector) = (driven.queue_select as usize, self.vector(value));
                if let Some(queue) = self.queue_vectors.get_mut(select) {
                    *queue = vector;
                }
            }
            // Section 4.1.4.3.2: a driver does not write 0.
            (QUEUE_ENABLE, 2) if value & 0xffff == 1 => {
                let signals = driven.enable_queue(context);
                self.signal(signals);
            }
            (QUEUE_SIZE, 2) => {
                if let Some(queue) = driven.queue_in_setup() {
                    queue.size = value as u16;
                }
            }
            (QUEUE_DESCRIPTORS.., 4) if field < COMMON_BYTES.into() && field.is_multiple_of(4) => {
                self.write_queue_address(field, value);
            }
            _ => {}
        }
    }

    fn write_queue_address(&mut self, field: u64, value: u32) {
        let Some(queue) = self.driven.queue_in_setup() else {
            return;
        };
        let address = match field & !7 {
            QUEUE_DESCRIPTORS => &mut queue.descriptors,
            QUEUE_DRIVER => &mut queue.available,
            _ => &mut queue.used,
        };
        set_half(address, (field / 4 % 2) as u32, value);
    }

    /// A vector that a driver asks for; none where there is no such one (section 4.1.5.1.2.1).
    fn vector(&self, value: u32) -> u16 {
        let vector = value as u16;
        if vector < self.vectors.count() {
            vector
        } else {
            NO_VECTOR
        }
    }

    fn reset(&mut self) {
        self.driven.reset();
        self.interrupt_status = 0;
        self.space.show_interrupt(false);
        self.configuration_vector = NO_VECTOR;
        self.queue_vectors.fill(NO_VECTOR);
    }

    /// Sections 4.1.5.3 and 4.1.5.4: by message where the driver enabled them, else by line.
    fn signal(&mut self, signals: Signals) {
        if self.msix_control() & MSIX_ENABLED != 0 {
            for (queue, &vector) in self.queue_vectors.iter().enumerate() {
                if signals.used_buffers & 1 << queue != 0 {
                    self.vectors.signal(vector);
                }
            }
            if signals.configuration {
                self.vectors.signal(self.configuration_vector);
            }
            return;
        }
        if signals.used_buffers != 0 {
            self.interrupt_status |= INTERRUPT_USED_BUFFER;
        }
        if signals.configuration {
            self.interrupt_status |= INTERRUPT_CONFIGURATION;
        }
        if self.interrupt_status != 0 {
            self.space.show_interrupt(true);
        }
    }

    fn msix_control(&self) -> u16 {
        self.msix
            .map_or(0, |at| self.space.half_word(at + MSIX_CONTROL))
    }
}

impl Transport for VirtioPci {
    fn driven(&self) -> &DrivenDevice {
        &self.driven
    }

    fn driven_mut(&mut self) -> &mut DrivenDevice {
        &mut self.driven
    }

    fn work(
        &mut self,
        context: &mut DeviceContext,
        work: impl FnOnce(&mut VirtioDevice, &mut Session) -> Result<(), QueueError>,
    ) {
        let signals = self.driven.work(context, work);
        self.signal(signals);
    }
}

#[cfg(test)]
mod tests;
