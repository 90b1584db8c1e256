//! The other side, for tests: a board with a driver that lays out virtqueues in RAM.
#![allow(missing_docs, clippy::unwrap_used)] // a board that fails ends the test

use devices::DeviceContext;
use devices::pci::host::PciHost;
use devices::virtio::FEATURE_VERSION_1;
use devices::virtio::pci::VirtioPci;
use devices::virtio::slots::VirtioSlots;
use machine::config::{BoardConfig, DiskConfig, NetworkConfig};
use machine::input::{Input, InputError};
use machine::memory::{Ram, Region};
use machine::output::{Output, Outputs};

/// Where a test's RAM begins.
pub const RAM_BASE: u64 = 0x8000_0000;
pub const DISK: usize = 0;
pub const READ_ONLY_DISK: usize = 1;
pub const NETWORK: usize = 2;
pub const CONSOLE: usize = 3;
pub const ENTROPY: usize = 4;
pub const POWER_BUTTON: usize = 5;

pub const DISK_SECTORS: u64 = 1000;
pub const MEMORY_BYTES: u64 = 64 << 20;
/// Where tests put buffers: behind all queues.
pub const BUFFERS: u64 = RAM_BASE + (4 << 20);

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A buffer of a chain: address, length, and whether the device writes it.
pub type Buffer = (u64, u32, bool);

/// A queue as the driver sees it.
pub struct DriverQueue {
    pub slot: usize,
    pub index: u32,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    next_descriptor: u16,
    available_index: u16,
    seen_used: u16,
}

/// What leads to the devices of a board.
pub trait TestBus {
    fn read(&mut self, slot: usize, register: u64, context: &mut DeviceContext) -> u32;
    fn write(&mut self, slot: usize, register: u64, value: u32, context: &mut DeviceContext);
    fn inject(&mut self, input: &Input, context: &mut DeviceContext) -> Result<(), InputError>;
    /// Whether the slot's line has reached the interrupt controller.
    fn is_pending(&mut self, slot: usize, context: &mut DeviceContext) -> bool;
}

impl TestBus for VirtioSlots {
    fn read(&mut self, slot: usize, register: u64, _: &mut DeviceContext) -> u32 {
        VirtioSlots::read(self, slot, register, 4) as u32
    }

    fn write(&mut self, slot: usize, register: u64, value: u32, context: &mut DeviceContext) {
        VirtioSlots::write(self, slot, register, 4, value.into(), context);
    }

    fn inject(&mut self, input: &Input, context: &mut DeviceContext) -> Result<(), InputError> {
        VirtioSlots::inject(self, input, context).map(drop)
    }

    fn is_pending(&mut self, slot: usize, _: &mut DeviceContext) -> bool {
        self.interrupt(slot)
    }
}

/// By the registers' numbers of the memory-mapped transport: what drives devices here drives them behind either.
impl TestBus for PciHost {
    fn read(&mut self, slot: usize, register: u64, _: &mut DeviceContext) -> u32 {
        let Some(function) = self.functions_mut().get_mut(slot) else {
            return 0;
        };
        let (offset, size) = match register {
            0x08 => return u32::from(function.space().half_word(2)) - 0x1040,
            0x10 => (0x04, 4),
            0x34 => (0x18, 2),
            0x44 => (0x1c, 2),
            0x60 => (0x1000, 1),
            0x70 => (0x14, 1),
            0x100.. => (0x2000 + register as u32 - 0x100, 4),
            _ => panic!("{register:#x} cannot be read here"),
        };
        function.read(offset, size) as u32
    }

    fn write(&mut self, slot: usize, register: u64, value: u32, context: &mut DeviceContext) {
        let Some(function) = self.functions_mut().get_mut(slot) else {
            return;
        };
        // Memory space and bus master.
        function.write_configuration(4, 2, 6, context);
        let (offset, size) = match register {
            0x14 => (0x00, 4),
            0x20 => (0x0c, 4),
            0x24 => (0x08, 4),
            0x30 => (0x16, 2),
            0x38 => (0x18, 2),
            0x44 => (0x1c, 2),
            0x50 => (0x3000 + 4 * value, 2),
            0x64 => return, // reading the status was it
            0x70 => (0x14, 1),
            0x80 | 0x84 => (0x20 + register as u32 - 0x80, 4),
            0x90 | 0x94 => (0x28 + register as u32 - 0x90, 4),
            0xa0 | 0xa4 => (0x30 + register as u32 - 0xa0, 4),
            0x100.. => (0x2000 + register as u32 - 0x100, 4),
            _ => panic!("{register:#x} cannot be written here"),
        };
        function.write(offset, size, value.into(), context);
    }

    fn inject(&mut self, input: &Input, context: &mut DeviceContext) -> Result<(), InputError> {
        self.functions_mut().inject(input, context).map(drop)
    }

    fn is_pending(&mut self, slot: usize, _: &mut DeviceContext) -> bool {
        self.functions().get(slot).is_some_and(VirtioPci::interrupt)
    }
}

/// RAM of so many bytes.
pub fn ram(length: u64) -> Ram {
    Ram::new(&[Region {
        base: RAM_BASE,
        length,
    }])
}

/// A board with one device of each kind.
pub struct TestBoard<B = VirtioSlots> {
    pub bus: B,
    pub memory: Ram,
    pub outputs: Outputs,
    pub time_ns: u64,
}

pub fn config() -> BoardConfig {
    let disk = |read_only| DiskConfig {
        sectors: DISK_SECTORS,
        read_only,
        serial: "a serial number that is too long".into(),
    };
    BoardConfig {
        memory_bytes: MEMORY_BYTES,
        harts: 2,
        network: vec![NetworkConfig {
            mac: [0x52, 0x54, 0, 1, 2, 3],
        }],
        disks: vec![disk(false), disk(true)],
        virtio_console: true,
        entropy: true,
        transport: Default::default(),
    }
}

impl TestBoard {
    /// Reads a byte of the configuration space.
    pub fn read_byte(&mut self, slot: usize, offset: u64) -> u8 {
        self.bus.read(slot, offset, 1) as u8
    }

    /// Writes a byte of the configuration space.
    pub fn write_byte(&mut self, slot: usize, offset: u64, value: u8) {
        let (bus, mut context) = self.parts();
        bus.write(slot, offset, 1, value.into(), &mut context);
    }

    #[allow(clippy::new_without_default, reason = "a test says what it makes")]
    pub fn new() -> TestBoard {
        TestBoard::with(VirtioSlots::new(&config()))
    }
}

impl<B: TestBus> TestBoard<B> {
    pub fn with(bus: B) -> TestBoard<B> {
        TestBoard {
            bus,
            memory: ram(MEMORY_BYTES),
            outputs: Outputs::default(),
            time_ns: 0,
        }
    }

    pub fn parts(&mut self) -> (&mut B, DeviceContext<'_>) {
        let context = DeviceContext {
            memory: &mut self.memory,
            outputs: &mut self.outputs,
            time_ns: self.time_ns,
            unix_base_ns: 1_700_000_000_000_000_000,
        };
        (&mut self.bus, context)
    }

    pub fn read(&mut self, slot: usize, register: u64) -> u32 {
        let (bus, mut context) = self.parts();
        bus.read(slot, register, &mut context)
    }

    pub fn write(&mut self, slot: usize, register: u64, value: u32) {
        let (bus, mut context) = self.parts();
        bus.write(slot, register, value, &mut context);
    }

    pub fn inject(&mut self, input: &Input) -> Result<(), InputError> {
        let (bus, mut context) = self.parts();
        bus.inject(input, &mut context)
    }

    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.outputs.take()
    }

    /// Whether the slot's line has reached the interrupt controller.
    pub fn is_pending(&mut self, slot: usize) -> bool {
        let (bus, mut context) = self.parts();
        bus.is_pending(slot, &mut context)
    }

    /// Acknowledges the device's interrupts and gives what they were.
    pub fn acknowledge(&mut self, slot: usize) -> u32 {
        let status = self.read(slot, 0x60);
        self.write(slot, 0x64, status);
        status
    }

    /// Drives a device up to FEATURES_OK; whether it took the features.
    pub fn negotiate(&mut self, slot: usize, features: u64) -> bool {
        self.write(slot, 0x70, 0);
        self.write(slot, 0x70, 3);
        for half in 0..2 {
            self.write(slot, 0x24, half);
            self.write(slot, 0x20, (features >> (32 * half)) as u32);
        }
        self.write(slot, 0x70, 11);
        self.read(slot, 0x70) & 8 != 0
    }

    /// Sets up a queue, each at an address of its own.
    pub fn queue(&mut self, slot: usize, index: u32, size: u16) -> DriverQueue {
        let base = RAM_BASE + ((slot as u64 * 4 + u64::from(index)) << 16);
        let queue = DriverQueue {
            slot,
            index,
            size,
            descriptors: base,
            available: base + 0x4000,
            used: base + 0x8000,
            next_descriptor: 0,
            available_index: 0,
            seen_used: 0,
        };
        self.memory.write(base, &[0; 0x1_0000]).unwrap();
        self.write(slot, 0x30, index);
        self.write(slot, 0x38, u32::from(size));
        for (register, address) in [
            (0x80, queue.descriptors),
            (0x90, queue.available),
            (0xa0, queue.used),
        ] {
            self.write(slot, register, address as u32);
            self.write(slot, register + 4, (address >> 32) as u32);
        }
        self.write(slot, 0x44, 1);
        queue
    }

    pub fn driver_ok(&mut self, slot: usize) {
        self.write(slot, 0x70, 15);
    }

    /// A running device with one queue of 16 entries for each number given.
    pub fn start<const N: usize>(&mut self, slot: usize, features: u64) -> [DriverQueue; N] {
        assert!(self.negotiate(slot, features | FEATURE_VERSION_1));
        let queues = std::array::from_fn(|index| self.queue(slot, index as u32, 16));
        self.driver_ok(slot);
        queues
    }

    pub fn needs_reset(&mut self, slot: usize) -> bool {
        self.read(slot, 0x70) & 64 != 0
    }

    pub fn write_descriptor(&mut self, at: u64, buffer: Buffer, flags: u16, next: u16) {
        let (address, length, write) = buffer;
        let flags = if write { flags | WRITE } else { flags };
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write(at, &bytes).unwrap();
    }

    /// Makes a chain available, without notifying; gives its first descriptor.
    pub fn add(&mut self, queue: &mut DriverQueue, buffers: &[Buffer]) -> u16 {
        let head = queue.next_descriptor;
        for (position, &buffer) in buffers.iter().enumerate() {
            let index = queue.next_descriptor;
            queue.next_descriptor = (index + 1) % queue.size;
            let flags = if position + 1 == buffers.len() {
                0
            } else {
                NEXT
            };
            let at = queue.descriptors + 16 * u64::from(index);
            self.write_descriptor(at, buffer, flags, queue.next_descriptor);
        }
        self.publish(queue, head);
        head
    }

    /// Makes a chain available through an indirect table at `table`.
    pub fn add_indirect(&mut self, queue: &mut DriverQueue, table: u64, buffers: &[Buffer]) -> u16 {
        for (position, &buffer) in buffers.iter().enumerate() {
            let last = position + 1 == buffers.len();
            let flags = if last { 0 } else { NEXT };
            let at = table + 16 * position as u64;
            self.write_descriptor(at, buffer, flags, position as u16 + 1);
        }
        let head = queue.next_descriptor;
        queue.next_descriptor = (head + 1) % queue.size;
        let at = queue.descriptors + 16 * u64::from(head);
        self.write_descriptor(at, (table, 16 * buffers.len() as u32, false), INDIRECT, 0);
        self.publish(queue, head);
        head
    }

    pub fn publish(&mut self, queue: &mut DriverQueue, head: u16) {
        let slot = u64::from(queue.available_index % queue.size);
        self.memory
            .write(queue.available + 4 + 2 * slot, &head.to_le_bytes())
            .unwrap();
        queue.available_index = queue.available_index.wrapping_add(1);
        self.memory
            .write(queue.available + 2, &queue.available_index.to_le_bytes())
            .unwrap();
    }

    pub fn notify(&mut self, queue: &DriverQueue) {
        self.write(queue.slot, 0x50, queue.index);
    }

    /// The used entries that are new: first descriptor and bytes written.
    pub fn used(&mut self, queue: &mut DriverQueue) -> Vec<(u16, u32)> {
        let index = u16::from_le_bytes(self.memory.read_array(queue.used + 2).unwrap());
        let mut entries = Vec::new();
        while queue.seen_used != index {
            let at = queue.used + 4 + 8 * u64::from(queue.seen_used % queue.size);
            let head = u32::from_le_bytes(self.memory.read_array(at).unwrap());
            let length = u32::from_le_bytes(self.memory.read_array(at + 4).unwrap());
            entries.push((u16::try_from(head).unwrap(), length));
            queue.seen_used = queue.seen_used.wrapping_add(1);
        }
        entries
    }

    pub fn set_used_event(&mut self, queue: &DriverQueue, event: u16) {
        let at = queue.available + 4 + 2 * u64::from(queue.size);
        self.memory.write(at, &event.to_le_bytes()).unwrap();
    }

    pub fn available_event(&self, queue: &DriverQueue) -> u16 {
        let at = queue.used + 4 + 8 * u64::from(queue.size);
        u16::from_le_bytes(self.memory.read_array(at).unwrap())
    }

    pub fn bytes(&self, address: u64, length: u64) -> Vec<u8> {
        self.memory.slice(address, length).unwrap().to_vec()
    }
}
