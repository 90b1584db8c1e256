//! The memory-mapped transport (virtio 1.2, section 4.2), version 2 registers.

use super::block::Block;
use super::queue::{Queue, QueueError};
use super::{Session, VirtioDevice};
use crate::DeviceContext;
use machine::input::DiskStatus;
use machine::output::{Output, Outputs, Trouble};
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

const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;
const STATUS_NEEDS_RESET: u32 = 64;

const INTERRUPT_USED_BUFFER: u32 = 1;
const INTERRUPT_CONFIGURATION: u32 = 2;

/// A device and its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioMmio {
    device: VirtioDevice,
    queues: Vec<Queue>,
    status: u32,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    fault: Option<QueueError>,
}

impl VirtioMmio {
    /// A device as after reset.
    pub fn new(device: VirtioDevice) -> VirtioMmio {
        VirtioMmio {
            queues: new_queues(&device),
            device,
            status: 0,
            interrupt_status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            fault: None,
        }
    }

    /// Level of the interrupt line.
    pub fn interrupt(&self) -> bool {
        self.interrupt_status != 0
    }

    /// What the driver did wrong, if the device needs a reset.
    pub fn fault(&self) -> Option<QueueError> {
        self.fault
    }

    /// The device behind the transport.
    pub fn device(&self) -> &VirtioDevice {
        &self.device
    }

    /// Reads a register of 4 bytes, or 1 to 8 bytes of the configuration space. Other sizes, and
    /// what is not a register, read as zero.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        if offset >= CONFIGURATION {
            return read_bytes(&self.device.configuration(), offset - CONFIGURATION, size);
        }
        if size != 4 {
            return 0;
        }
        u64::from(self.read_register(offset))
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            MAGIC => MAGIC_VALUE,
            VERSION => 2,
            DEVICE_ID => self.device.device_id(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.device.features(), self.device_features_select),
            QUEUE_SIZE_MAX => queue.map_or(0, |q| u32::from(q.max_size())),
            QUEUE_READY => queue.map_or(0, |q| u32::from(q.is_ready())),
            INTERRUPT_STATUS => self.interrupt_status,
            STATUS => self.status,
            // There is no shared memory: a length of all ones (section 4.2.2).
            SHARED_MEMORY_LENGTH_LOW..=SHARED_MEMORY_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// Writes a register of 4 bytes, or 1 to 8 bytes of the configuration space; anything else is
    /// ignored.
    pub fn write(&mut self, offset: u64, size: u8, value: u64, context: &mut DeviceContext) {
        if offset >= CONFIGURATION {
            for (at, byte) in (offset - CONFIGURATION..)
                .zip(value.to_le_bytes())
                .take(size.into())
            {
                self.device.configure(at, byte);
            }
            return;
        }
        if size != 4 {
            return;
        }
        let value = value as u32;
        match offset {
            DEVICE_FEATURES_SELECT => self.device_features_select = value,
            DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            DRIVER_FEATURES => self.write_driver_features(value),
            QUEUE_SELECT => self.queue_select = value,
            QUEUE_NOTIFY => self.process(value as usize, context),
            INTERRUPT_ACKNOWLEDGE => self.interrupt_status &= !value,
            STATUS => self.write_status(value, context),
            _ => self.write_queue_register(offset, value, context),
        }
    }

    fn write_driver_features(&mut self, value: u32) {
        if self.status & STATUS_FEATURES_OK != 0 || self.driver_features_select > 1 {
            return;
        }
        let shift = 32 * self.driver_features_select;
        self.driver_features =
            self.driver_features & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }

    fn write_queue_register(&mut self, offset: u64, value: u32, context: &mut DeviceContext) {
        let features = self.driver_features;
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else {
            return;
        };
        if offset == QUEUE_READY {
            if value & 1 == 0 {
                queue.disable();
            } else if !queue.is_ready()
                && let Err(fault) = queue.enable(features, context.memory)
            {
                self.fail(fault, context.outputs);
            }
            return;
        }
        if queue.is_ready() {
            return; // section 4.2.2.2: only while QueueReady is 0
        }
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

    /// Section 3.1.1, the driver's steps; writing 0 resets.
    fn write_status(&mut self, value: u32, context: &mut DeviceContext) {
        if value == 0 {
            self.reset();
            return;
        }
        let was_running = self.is_running();
        let mut status = value & 0xff | self.status & STATUS_NEEDS_RESET;
        // Version 1 is not insisted on, as QEMU does not: small guests such as xv6 never look at
        // the features above bit 31.
        let accepted = self.driver_features & !self.device.features() == 0;
        if !accepted {
            status &= !STATUS_FEATURES_OK;
        }
        if status & STATUS_FEATURES_OK == 0 {
            status &= !STATUS_DRIVER_OK;
        }
        self.status = status;
        if self.is_running() && !was_running {
            // Buffers may have been made available before; nobody would notify again.
            for queue in 0..self.queues.len() {
                self.process(queue, context);
            }
        }
    }

    /// See [`VirtioSlots::take_requests_of`](super::slots::VirtioSlots::take_requests_of).
    pub fn take_requests_of(&mut self, old: &VirtioMmio) {
        self.device.take_requests_of(&old.device);
    }

    fn reset(&mut self) {
        self.device.reset();
        self.queues = new_queues(&self.device);
        self.status = 0;
        self.interrupt_status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.fault = None;
    }

    fn is_running(&self) -> bool {
        self.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
    }

    fn fail(&mut self, fault: QueueError, outputs: &mut Outputs) {
        if self.fault.is_none() {
            outputs.other(Output::Trouble(Trouble::DriverFault {
                device: self.device.kind().to_owned(),
                fault: fault.to_string(),
            }));
        }
        self.fault = Some(fault);
        self.status |= STATUS_NEEDS_RESET;
        if self.status & STATUS_DRIVER_OK != 0 {
            self.interrupt_status |= INTERRUPT_CONFIGURATION;
        }
    }

    fn process(&mut self, queue: usize, context: &mut DeviceContext) {
        self.with_device(context, |device, session| device.process(queue, session));
    }

    /// Lets the device work, then interrupts the driver as it wants it, or fails the device.
    fn with_device(
        &mut self,
        context: &mut DeviceContext,
        work: impl FnOnce(&mut VirtioDevice, &mut Session) -> Result<(), QueueError>,
    ) {
        let running = self.is_running();
        let mut session = Session {
            queues: &mut self.queues,
            features: self.driver_features,
            running,
            context,
        };
        let mut result = work(&mut self.device, &mut session);
        if running {
            for queue in &mut self.queues {
                match queue.take_interrupt(context.memory) {
                    Ok(true) => self.interrupt_status |= INTERRUPT_USED_BUFFER,
                    Ok(false) => {}
                    Err(fault) => result = result.and(Err(fault)),
                }
            }
        }
        if let Err(fault) = result {
            self.fail(fault, context.outputs);
        }
    }

    /// A frame from outside; dropped if this is no network device.
    pub(crate) fn receive_frame(&mut self, frame: &[u8], context: &mut DeviceContext) {
        self.with_device(context, |device, session| match device {
            VirtioDevice::Network(network) => network.receive(frame, session),
            _ => Ok(()),
        });
    }

    /// Typed bytes; dropped if this is no console.
    pub(crate) fn receive_console(&mut self, bytes: &[u8], context: &mut DeviceContext) {
        self.with_device(context, |device, session| match device {
            VirtioDevice::Console(console) => console.receive(bytes, session),
            _ => Ok(()),
        });
    }

    /// Random bytes, checked by the caller; dropped if this is no entropy device.
    pub(crate) fn receive_entropy(&mut self, bytes: &[u8], context: &mut DeviceContext) {
        self.with_device(context, |device, session| match device {
            VirtioDevice::Entropy(entropy) => entropy.receive(bytes, session),
            _ => Ok(()),
        });
    }

    /// The power button is pressed; ignored if this is none.
    pub(crate) fn press(&mut self, context: &mut DeviceContext) {
        self.with_device(context, |device, session| match device {
            VirtioDevice::PowerButton(button) => button.press(session),
            _ => Ok(()),
        });
    }

    /// The end of a disk request, checked by the caller; ignored if this is no disk.
    pub(crate) fn complete_disk_request(
        &mut self,
        request: u64,
        status: DiskStatus,
        data: &[u8],
        context: &mut DeviceContext,
    ) {
        self.with_device(context, |device, session| match device {
            VirtioDevice::Block(block) => block.complete(request, status, data, session),
            _ => Ok(()),
        });
    }

    /// The disk, if this is one.
    pub(crate) fn block(&self) -> Option<&Block> {
        match &self.device {
            VirtioDevice::Block(block) => Some(block),
            _ => None,
        }
    }
}

fn new_queues(device: &VirtioDevice) -> Vec<Queue> {
    device
        .queue_sizes()
        .iter()
        .map(|&size| Queue::new(size))
        .collect()
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

/// The half of a 64-bit value that a select register names; zero beyond.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, half: u32, new: u32) {
    let shift = 32 * half;
    *value = *value & !(0xffff_ffff << shift) | u64::from(new) << shift;
}

/// A little-endian number of `size` bytes at `offset`, as far as the bytes go.
fn read_bytes(bytes: &[u8], offset: u64, size: u8) -> u64 {
    let mut value = 0;
    for index in 0..u64::from(size.min(8)) {
        let byte = usize::try_from(offset + index)
            .ok()
            .and_then(|at| bytes.get(at));
        value |= u64::from(byte.copied().unwrap_or(0)) << (8 * index);
    }
    value
}

#[cfg(test)]
mod tests;
