//! The memory-mapped transport (virtio 1.2, section 4.2), version 2 registers.

use super::driven::{DrivenDevice, Signals, set_half};
use super::queue::{Queue, QueueError};
use super::slots::Transport;
use super::{Session, VirtioDevice};
use crate::DeviceContext;
use serde::{Deserialize, Serialize};

const MAGIC: u64 = 0x00;
const VERSION: u64 = 0x04;
const DEVICE_ID: u64 = 0x08;
const VENDOR_ID: u64 = 0x0c;
const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SELECT: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SELECT: u64 = 0x24;
const QUEUE_SELECT: u64 = 0x30;
const QUEUE_SIZE_MAX: u64 = 0x34;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const STATUS: u64 = 0x70;
const QUEUE_DESCRIPTORS_LOW: u64 = 0x80;
const QUEUE_DESCRIPTORS_HIGH: u64 = 0x84;
const QUEUE_DRIVER_LOW: u64 = 0x90;
const QUEUE_DRIVER_HIGH: u64 = 0x94;
const QUEUE_DEVICE_LOW: u64 = 0xa0;
const QUEUE_DEVICE_HIGH: u64 = 0xa4;
const SHARED_MEMORY_LENGTH_LOW: u64 = 0xb0;
const SHARED_MEMORY_BASE_HIGH: u64 = 0xbc;
const CONFIGURATION: u64 = 0x100;

const MAGIC_VALUE: u32 = 0x7472_6976; // "virt"
const VENDOR: u32 = 0x554d_4551; // "QEMU"

const INTERRUPT_USED_BUFFER: u32 = 1;
const INTERRUPT_CONFIGURATION: u32 = 2;

/// A device and its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioMmio {
    driven: DrivenDevice,
    interrupt_status: u32,
}

impl VirtioMmio {
    /// A device as after reset.
    pub fn new(device: VirtioDevice) -> VirtioMmio {
        VirtioMmio {
            driven: DrivenDevice::new(device, true),
            interrupt_status: 0,
        }
    }

    /// Level of the interrupt line.
    pub fn interrupt(&self) -> bool {
        self.interrupt_status != 0
    }

    /// Reads a register of 4 bytes, or 1 to 8 bytes of the configuration space. Other sizes, and
    /// what is not a register, read as zero.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        if offset >= CONFIGURATION {
            return self.driven.read_configuration(offset - CONFIGURATION, size);
        }
        if size != 4 {
            return 0;
        }
        u64::from(self.read_register(offset))
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.driven.selected_queue();
        match offset {
            MAGIC => MAGIC_VALUE,
            VERSION => 2,
            DEVICE_ID => self.driven.device().device_id(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => self.driven.offered_features(),
            QUEUE_SIZE_MAX => queue.map_or(0, |q| u32::from(q.max_size())),
            QUEUE_READY => queue.map_or(0, |q| u32::from(q.is_ready())),
            INTERRUPT_STATUS => self.interrupt_status,
            STATUS => u32::from(self.driven.status()),
            // There is no shared memory: a length of all ones (section 4.2.2).
            SHARED_MEMORY_LENGTH_LOW..=SHARED_MEMORY_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// Writes a register of 4 bytes, or 1 to 8 bytes of the configuration space; anything else is
    /// ignored.
    pub fn write(&mut self, offset: u64, size: u8, value: u64, context: &mut DeviceContext) {
        let driven = &mut self.driven;
        if offset >= CONFIGURATION {
            return driven.write_configuration(offset - CONFIGURATION, size, value);
        }
        if size != 4 {
            return;
        }
        let value = value as u32;
        let signals = match offset {
            QUEUE_NOTIFY => driven.notify(value as usize, context),
            STATUS if value == 0 => {
                driven.reset();
                self.interrupt_status = 0;
                return;
            }
            STATUS => driven.write_status(value as u8, context),
            QUEUE_READY if value & 1 != 0 => driven.enable_queue(context),
            _ => return self.write_plain_register(offset, value),
        };
        self.signal(signals);
    }

    /// A register that makes the device do nothing.
    fn write_plain_register(&mut self, offset: u64, value: u32) {
        let driven = &mut self.driven;
        match offset {
            DEVICE_FEATURES_SELECT => driven.device_features_select = value,
            DRIVER_FEATURES_SELECT => driven.driver_features_select = value,
            DRIVER_FEATURES => driven.write_driver_features(value),
            QUEUE_SELECT => driven.queue_select = value,
            QUEUE_READY => driven.disable_queue(),
            INTERRUPT_ACKNOWLEDGE => self.interrupt_status &= !value,
            _ => {
                if let Some(queue) = driven.queue_in_setup() {
                    write_queue_register(queue, offset, value);
                }
            }
        }
    }

    fn signal(&mut self, signals: Signals) {
        if signals.used_buffers != 0 {
            self.interrupt_status |= INTERRUPT_USED_BUFFER;
        }
        if signals.configuration {
            self.interrupt_status |= INTERRUPT_CONFIGURATION;
        }
    }
}

impl Transport for VirtioMmio {
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

fn write_queue_register(queue: &mut Queue, offset: u64, value: u32) {
    match offset {
        QUEUE_SIZE => queue.size = u16::try_from(value).unwrap_or(0),
        QUEUE_DESCRIPTORS_LOW => set_half(&mut queue.descriptors, 0, value),
        QUEUE_DESCRIPTORS_HIGH => set_half(&mut queue.descriptors, 1, value),
        QUEUE_DRIVER_LOW => set_half(&mut queue.available, 0, value),
        QUEUE_DRIVER_HIGH => set_half(&mut queue.available, 1, value),
        QUEUE_DEVICE_LOW => set_half(&mut queue.used, 0, value),
        QUEUE_DEVICE_HIGH => set_half(&mut queue.used, 1, value),
        _ => {}
    }
}

/// The registers of a slot without a device: a device of type 0 (section 4.2.2, DeviceID).
pub fn read_empty_slot(offset: u64, size: u8) -> u64 {
    match (offset, size) {
        (MAGIC, 4) => u64::from(MAGIC_VALUE),
        (VERSION, 4) => 2,
        (VENDOR_ID, 4) => u64::from(VENDOR),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
