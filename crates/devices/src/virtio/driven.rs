//! A device and how far its driver has brought it: what every transport keeps of it (virtio 1.2,
//! chapter 3), whatever its registers look like.

use super::queue::{Queue, QueueError};
use super::{Session, VirtioDevice};
use crate::DeviceContext;
use machine::output::{Output, Outputs, Trouble};
use serde::{Deserialize, Serialize};

const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;
const STATUS_NEEDS_RESET: u8 = 64;

/// What a driver is to be interrupted for.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Buffers of queues were used: a bit for each queue.
    pub used_buffers: u32,
    /// The configuration, or the need for a reset, changed.
    pub configuration: bool,
}

impl Signals {
    /// Both of them.
    pub fn and(self, other: Signals) -> Signals {
        Signals {
            used_buffers: self.used_buffers | other.used_buffers,
            configuration: self.configuration || other.configuration,
        }
    }
}

/// A device, its queues, and what was negotiated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrivenDevice {
    device: VirtioDevice,
    queues: Vec<Queue>,
    status: u8,
    /// Whether the bus lets the device reach memory.
    reaches_memory: bool,
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    driver_features: u64,
    pub(super) queue_select: u32,
    fault: Option<QueueError>,
}

impl DrivenDevice {
    /// A device as after reset.
    pub fn new(device: VirtioDevice, reaches_memory: bool) -> DrivenDevice {
        DrivenDevice {
            queues: new_queues(&device),
            device,
            status: 0,
            reaches_memory,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            fault: None,
        }
    }

    /// The device.
    pub fn device(&self) -> &VirtioDevice {
        &self.device
    }

    /// What the driver did wrong, if the device needs a reset.
    pub fn fault(&self) -> Option<QueueError> {
        self.fault
    }

    /// The device status field (section 2.1).
    pub fn status(&self) -> u8 {
        self.status
    }

    /// How many queues it has.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The half of the offered features that was selected.
    pub fn offered_features(&self) -> u32 {
        half(self.device.features(), self.device_features_select)
    }

    /// The half of the driver's features that was selected.
    pub fn driver_features(&self) -> u32 {
        half(self.driver_features, self.driver_features_select)
    }

    /// The driver writes the half of its features that was selected.
    pub fn write_driver_features(&mut self, value: u32) {
        if self.status & STATUS_FEATURES_OK == 0 && self.driver_features_select <= 1 {
            let select = self.driver_features_select;
            set_half(&mut self.driver_features, select, value);
        }
    }

    /// The queue that was selected, if there is one of this number.
    pub fn selected_queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_select as usize)
    }

    /// The queue that was selected, to be set up: only while it is not enabled (section 4.1.4.3.2 and
    /// 4.2.2.2).
    pub(super) fn queue_in_setup(&mut self) -> Option<&mut Queue> {
        let queue = self.queues.get_mut(self.queue_select as usize)?;
        (!queue.is_ready()).then_some(queue)
    }

    /// The driver enables the queue that was selected.
    pub fn enable_queue(&mut self, context: &mut DeviceContext) -> Signals {
        let features = self.driver_features;
        let result = match self.queue_in_setup() {
            Some(queue) => queue.enable(features, context.memory),
            None => Ok(()),
        };
        match result {
            Ok(()) => Signals::default(),
            Err(fault) => self.fail(fault, context.outputs),
        }
    }

    /// The driver takes the queue back that was selected.
    pub fn disable_queue(&mut self) {
        if let Some(queue) = self.queues.get_mut(self.queue_select as usize) {
            queue.disable();
        }
    }

    /// Section 3.1.1, the driver's steps, but for the reset.
    pub fn write_status(&mut self, value: u8, context: &mut DeviceContext) -> Signals {
        let was_running = self.is_running();
        let mut status = value | self.status & STATUS_NEEDS_RESET;
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
        self.begin_to_run(was_running, context)
    }

    /// The bus lets the device reach memory from now on, or no longer.
    pub fn set_reach(&mut self, reaches_memory: bool, context: &mut DeviceContext) -> Signals {
        let was_running = self.is_running();
        self.reaches_memory = reaches_memory;
        self.begin_to_run(was_running, context)
    }

    fn begin_to_run(&mut self, was_running: bool, context: &mut DeviceContext) -> Signals {
        let mut signals = Signals::default();
        if self.is_running() && !was_running {
            // Buffers may have been made available before; nobody would notify again.
            for queue in 0..self.queues.len() {
                signals = signals.and(self.notify(queue, context));
            }
        }
        signals
    }

    /// The driver resets the device.
    pub fn reset(&mut self) {
        self.device.reset();
        self.queues = new_queues(&self.device);
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.fault = None;
    }

    /// It is a new device in the place of an `old` one, whose requests to the outside are under way.
    pub fn take_requests_of(&mut self, old: &DrivenDevice) {
        self.device.take_requests_of(&old.device);
    }

    /// The driver says that it made buffers of a queue available.
    pub fn notify(&mut self, queue: usize, context: &mut DeviceContext) -> Signals {
        self.work(context, |device, session| device.process(queue, session))
    }

    /// Lets the device work, then says what the driver wants to be interrupted for, or fails the device.
    pub fn work(
        &mut self,
        context: &mut DeviceContext,
        work: impl FnOnce(&mut VirtioDevice, &mut Session) -> Result<(), QueueError>,
    ) -> Signals {
        let running = self.is_running();
        let mut session = Session {
            queues: &mut self.queues,
            features: self.driver_features,
            running,
            context,
        };
        let mut result = work(&mut self.device, &mut session);
        let mut signals = Signals::default();
        if running {
            for (index, queue) in self.queues.iter_mut().enumerate() {
                match queue.take_interrupt(context.memory) {
                    Ok(true) => signals.used_buffers |= 1 << index,
                    Ok(false) => {}
                    Err(fault) => result = result.and(Err(fault)),
                }
            }
        }
        match result {
            Ok(()) => signals,
            Err(fault) => signals.and(self.fail(fault, context.outputs)),
        }
    }

    /// Reads 1 to 8 bytes of the device's own configuration space.
    pub fn read_configuration(&self, offset: u64, size: u8) -> u64 {
        read_bytes(&self.device.configuration(), offset, size)
    }

    /// Writes 1 to 8 bytes of the device's own configuration space.
    pub fn write_configuration(&mut self, offset: u64, size: u8, value: u64) {
        for (at, byte) in (offset..).zip(value.to_le_bytes()).take(size.into()) {
            self.device.configure(at, byte);
        }
    }

    fn is_running(&self) -> bool {
        self.reaches_memory
            && self.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
    }

    fn fail(&mut self, fault: QueueError, outputs: &mut Outputs) -> Signals {
        if self.fault.is_none() {
            outputs.other(Output::Trouble(Trouble::DriverFault {
                device: self.device.kind().to_owned(),
                fault: fault.to_string(),
            }));
        }
        self.fault = Some(fault);
        self.status |= STATUS_NEEDS_RESET;
        Signals {
            used_buffers: 0,
            configuration: self.status & STATUS_DRIVER_OK != 0,
        }
    }
}

fn new_queues(device: &VirtioDevice) -> Vec<Queue> {
    let sizes = device.queue_sizes().iter();
    sizes.map(|&size| Queue::new(size)).collect()
}

/// The half of a 64-bit value that a select register names; zero beyond.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Replaces a half of a 64-bit value: 0 is the lower one.
pub(super) fn set_half(value: &mut u64, half: u32, new: u32) {
    let shift = 32 * half;
    *value = *value & !(0xffff_ffff << shift) | u64::from(new) << shift;
}

/// A little-endian number of `size` bytes at `offset`, as far as the bytes go.
pub(super) fn read_bytes(bytes: &[u8], offset: u64, size: u8) -> u64 {
    let mut value = 0;
    for index in 0..u64::from(size.min(8)) {
        let byte = usize::try_from(offset.saturating_add(index))
            .ok()
            .and_then(|at| bytes.get(at));
        value |= u64::from(byte.copied().unwrap_or(0)) << (8 * index);
    }
    value
}
