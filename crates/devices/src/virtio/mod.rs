//! Virtio devices behind a transport, memory-mapped or PCI (OASIS virtio 1.2).
//!
//! A device is handed its queues when the driver notifies it or when an input arrives, works them
//! off at once, and gives them back. What a driver does wrong is a [`QueueError`]: the transport
//! then asks for a reset (section 2.1.2) and leaves the queues alone until it comes.

pub mod block;
pub mod bus;
pub mod console;
pub mod driven;
pub mod entropy;
pub mod mmio;
pub mod network;
pub mod pci;
pub mod power_button;
pub mod queue;
pub mod slots;

#[cfg(any(test, feature = "driver"))]
#[path = "../../testing/driver.rs"]
pub mod driver;

use crate::DeviceContext;
use block::Block;
use console::VirtioConsole;
use entropy::Entropy;
use machine::config::BoardConfig;
use network::Network;
use power_button::PowerButton;
use queue::{Queue, QueueError};
use serde::{Deserialize, Serialize};

/// VIRTIO_F_INDIRECT_DESC (section 6).
pub const FEATURE_INDIRECT_DESCRIPTORS: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX (section 6).
pub const FEATURE_EVENT_INDEX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1 (section 6).
pub const FEATURE_VERSION_1: u64 = 1 << 32;

/// What a device gets to work with: its queues, what was negotiated, and the world around it.
pub struct Session<'a, 'c> {
    /// The device's queues, in the order of its specification.
    pub queues: &'a mut [Queue],
    /// The negotiated features.
    pub features: u64,
    /// Whether the driver has set DRIVER_OK and the device needs no reset: nothing may be done
    /// with the queues otherwise.
    pub running: bool,
    /// RAM, outputs and time.
    pub context: &'a mut DeviceContext<'c>,
}

impl Session<'_, '_> {
    /// Whether the queue of this number may be worked on.
    pub fn usable(&self, queue: usize) -> bool {
        self.running && self.queues.get(queue).is_some_and(Queue::is_ready)
    }
}

/// The kinds of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtioDevice {
    /// A disk.
    Block(Block),
    /// A network interface.
    Network(Network),
    /// A console.
    Console(VirtioConsole),
    /// A source of random bytes.
    Entropy(Entropy),
    /// The power button.
    PowerButton(PowerButton),
}

/// What the kinds are called where one is missing.
mod kind {
    pub const DISK: &str = "disk";
    pub const NETWORK: &str = "network device";
    pub const CONSOLE: &str = "virtio console";
    pub const ENTROPY: &str = "entropy device";
    pub const POWER_BUTTON: &str = "power button";
}

impl VirtioDevice {
    /// The virtio devices of a board as after power-on, in the order that [`BoardConfig`] names.
    pub fn all(board: &BoardConfig) -> Vec<VirtioDevice> {
        let mut devices = Vec::new();
        for (index, disk) in board.disks.iter().enumerate() {
            let block = Block::new(index as u8, disk.sectors, disk.read_only, &disk.serial);
            devices.push(VirtioDevice::Block(block));
        }
        for (index, network) in board.network.iter().enumerate() {
            let network = Network::new(index as u8, network.mac);
            devices.push(VirtioDevice::Network(network));
        }
        if board.virtio_console {
            devices.push(VirtioDevice::Console(VirtioConsole::default()));
        }
        if board.entropy {
            devices.push(VirtioDevice::Entropy(Entropy::default()));
        }
        devices.push(VirtioDevice::PowerButton(PowerButton::default()));
        devices
    }

    fn kind(&self) -> &'static str {
        match self {
            VirtioDevice::Block(_) => kind::DISK,
            VirtioDevice::Network(_) => kind::NETWORK,
            VirtioDevice::Console(_) => kind::CONSOLE,
            VirtioDevice::Entropy(_) => kind::ENTROPY,
            VirtioDevice::PowerButton(_) => kind::POWER_BUTTON,
        }
    }

    /// Device type (section 5).
    pub fn device_id(&self) -> u32 {
        match self {
            VirtioDevice::Network(_) => 1,
            VirtioDevice::Block(_) => 2,
            VirtioDevice::Console(_) => 3,
            VirtioDevice::Entropy(_) => 4,
            VirtioDevice::PowerButton(_) => 18,
        }
    }

    /// The features that are offered.
    pub fn features(&self) -> u64 {
        let own = match self {
            VirtioDevice::Block(block) => block.features(),
            VirtioDevice::Network(_) => network::FEATURES,
            VirtioDevice::Console(_) | VirtioDevice::Entropy(_) | VirtioDevice::PowerButton(_) => 0,
        };
        own | FEATURE_INDIRECT_DESCRIPTORS | FEATURE_EVENT_INDEX | FEATURE_VERSION_1
    }

    /// The greatest size of each queue.
    pub fn queue_sizes(&self) -> &'static [u16] {
        match self {
            VirtioDevice::Block(_) => &block::QUEUE_SIZES,
            VirtioDevice::Network(_) => &network::QUEUE_SIZES,
            VirtioDevice::Console(_) => &console::QUEUE_SIZES,
            VirtioDevice::Entropy(_) => &entropy::QUEUE_SIZES,
            VirtioDevice::PowerButton(_) => &power_button::QUEUE_SIZES,
        }
    }

    /// The device-specific configuration space; what is beyond it reads as zero.
    pub fn configuration(&self) -> Vec<u8> {
        match self {
            VirtioDevice::Block(block) => block.configuration(),
            VirtioDevice::Network(network) => network.configuration(),
            VirtioDevice::PowerButton(button) => button.configuration(),
            VirtioDevice::Console(_) | VirtioDevice::Entropy(_) => Vec::new(),
        }
    }

    /// The driver writes a byte of the configuration space.
    fn configure(&mut self, offset: u64, value: u8) {
        if let VirtioDevice::PowerButton(button) = self {
            button.configure(offset, value);
        }
    }

    /// The driver made buffers of a queue available.
    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), QueueError> {
        match self {
            VirtioDevice::Block(block) => block.process(session),
            VirtioDevice::Network(network) => network.process(queue, session),
            VirtioDevice::Console(console) => console.process(queue, session),
            VirtioDevice::Entropy(entropy) => entropy.process(session),
            VirtioDevice::PowerButton(button) => button.process(queue, session),
        }
    }

    /// It is a new device in the place of an `old` one, whose requests to the outside are under way.
    fn take_requests_of(&mut self, old: &VirtioDevice) {
        if let VirtioDevice::Block(_) | VirtioDevice::Entropy(_) = old {
            *self = old.clone();
            self.reset();
        }
    }

    /// The driver reset the device.
    fn reset(&mut self) {
        match self {
            VirtioDevice::Block(block) => block.reset(),
            VirtioDevice::Network(network) => network.reset(),
            VirtioDevice::PowerButton(button) => button.reset(),
            VirtioDevice::Console(_) | VirtioDevice::Entropy(_) => {}
        }
    }
}
