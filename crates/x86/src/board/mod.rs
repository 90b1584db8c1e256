//! The PC around the CPU: interrupt controllers, serial port, clock, power, and what tells a kernel of
//! them.

pub mod acpi;
mod bus;
pub mod cmos;
pub mod interrupt;
pub mod io_apic;
pub mod local_apic;
pub mod pm_timer;
pub mod ports;
pub mod power;
pub mod wakeup;

pub use bus::{BoardBus, Surroundings};

use cmos::Cmos;
use devices::DeviceContext;
use devices::pci::configuration_space::Identity;
use devices::uart16550::Uart16550;
use devices::virtio::bus::VirtioBus;
use devices::virtio::queue::QueueError;
use interrupt::InterruptMessage;
use io_apic::IoApic;
use local_apic::{Effect, LocalApic, Shorthand};
use machine::config::{BoardConfig, PanicPolicy};
use machine::input::{Console, Input, InputError};
use machine::output::{DiskRequest, Finish, Outputs};
use power::Power;
use serde::{Deserialize, Serialize};
use wakeup::{Mailbox, Start};

/// The first virtio slot.
pub const VIRTIO_BASE: u64 = 0xd000_0000;
/// Bytes of a virtio slot.
pub const VIRTIO_SLOT_SIZE: u64 = 0x1000;
/// Virtio slots.
pub const VIRTIO_SLOTS: usize = 8;
/// Pin of the I/O APIC that the first virtio slot drives; the others follow.
pub const VIRTIO_INTERRUPT: usize = 16;

/// Memory space of the PCI bus: from where EDK2 takes it to begin on this board (`CLOUDHV_MMIO_HOLE_ADDRESS`), and places
/// windows from there upwards.
pub const PCI_MEMORY_BASE: u64 = 0xc000_0000;
/// Bytes of the PCI bus's memory space.
pub const PCI_MEMORY_SIZE: u64 = 0x2000_0000;
/// Configuration space of the PCI bus.
pub const PCI_CONFIGURATION_BASE: u64 = 0xe000_0000;
/// Bytes of configuration space: of one bus.
pub const PCI_CONFIGURATION_SIZE: u64 = devices::pci::host::BUS_BYTES;
/// The PCI bus's bridge: that of Cloud Hypervisor, by whose device ID EDK2 knows what board it is on (its
/// `OvmfPkg/Include/IndustryStandard/CloudHv.h`). Kernels ask for the class only.
const PCI_BRIDGE: Identity = Identity {
    vendor: 0x8086,
    device: 0x0d57,
    revision: 0,
    class: 0x06_00_00,
    subsystem: (0, 0),
    has_line: false,
};
/// Pin of the I/O APIC that the PCI bus's first line drives; the others follow.
pub const PCI_INTERRUPT: usize = 16;

/// Where the registers of a virtio slot are.
pub fn virtio_slot_base(slot: usize) -> u64 {
    VIRTIO_BASE + slot as u64 * VIRTIO_SLOT_SIZE
}

/// The pin of the I/O APIC that a virtio slot drives.
pub fn virtio_slot_interrupt(slot: usize) -> usize {
    VIRTIO_INTERRUPT + slot
}

/// The devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// One for each CPU.
    apics: Vec<LocalApic>,
    io_apic: IoApic,
    uart: Uart16550,
    cmos: Cmos,
    power: Power,
    virtio: VirtioBus,
    mailbox: Mailbox,
}

impl Board {
    /// As after power-on.
    ///
    /// # Panics
    /// There are not 1 to 8 CPUs.
    pub fn new(config: &BoardConfig) -> Board {
        let cpus = u8::try_from(config.harts).expect("a machine has few CPUs");
        let mut virtio = VirtioBus::new(config, true);
        if let VirtioBus::Pci(host) = &mut virtio {
            host.identify_bridge(&PCI_BRIDGE);
            // Without firmware nobody does it before the kernel.
            host.place_windows(PCI_MEMORY_BASE as u32);
        }
        Board {
            apics: (0..cpus).map(LocalApic::new).collect(),
            io_apic: IoApic::default(),
            uart: Uart16550::default(),
            cmos: Cmos::default(),
            power: Power::default(),
            virtio,
            mailbox: Mailbox::new(cpus),
        }
    }

    /// All devices as after power-on, in the place of these ones; but what the outside was asked for and has
    /// not brought will come, and then serves nobody.
    pub fn after_reset(&self, config: &BoardConfig) -> Board {
        let mut board = Board::new(config);
        board.virtio.take_requests_of(&self.virtio);
        board.power = self.power.after_reset();
        board
    }

    /// Whether its devices are what a configuration says: a snapshot may say anything.
    pub fn belongs_to(&self, config: &BoardConfig) -> bool {
        self.apics.len() == config.harts as usize
            && self.virtio.belongs_to(config)
            && self.mailbox.belongs_to(self.apics.len() as u8)
    }

    /// What the ACPI tables say of it.
    pub fn description(&self) -> acpi::Description {
        acpi::Description {
            cpus: self.apics.len() as u8,
            reset_vector: crate::boot::reset_vector(),
            virtio_slots: match &self.virtio {
                VirtioBus::Mmio(slots) => slots.occupied(),
                VirtioBus::Pci(_) => 0,
            },
            pci_functions: match &self.virtio {
                VirtioBus::Mmio(_) => None,
                VirtioBus::Pci(host) => Some(host.functions().occupied()),
            },
        }
    }

    /// A CPU's local APIC.
    pub fn local_apic(&self, cpu: usize) -> &LocalApic {
        &self.apics[cpu]
    }

    /// CPUs.
    pub fn cpus(&self) -> usize {
        self.apics.len()
    }

    /// Whether a CPU executes nothing until another one wakes it up.
    pub fn waits_for_wakeup(&self, cpu: usize) -> bool {
        self.mailbox.is_waiting(cpu)
    }

    /// The CPU that has to begin before the next instruction, if one has.
    pub fn take_start(&mut self) -> Option<Start> {
        let start = self.mailbox.take_start()?;
        // What came while it waited is not for the code that it begins with.
        self.apics[usize::from(start.cpu)].clear_nonmaskable();
        Some(start)
    }

    /// How the guest ended the machine, if it did.
    pub fn finish(&self) -> Option<Finish> {
        self.power.finish()
    }

    /// Whether the machine has to begin anew before its next instruction.
    pub fn asks_for_reset(&self) -> bool {
        self.power.asks_for_reset()
    }

    /// From here on a reset is an end.
    pub fn end_at_reset(&mut self) {
        self.power.end_at_reset();
    }

    /// What is done when the guest's kernel panics.
    pub fn set_panic_policy(&mut self, policy: PanicPolicy) {
        self.power.set_panic_policy(policy);
    }

    /// Whether the guest's kernel panicked since it was booted.
    pub fn has_panicked(&self) -> bool {
        self.power.has_panicked()
    }

    /// Takes an input from outside. DMA lands and the interrupt is on its way before this returns.
    ///
    /// # Errors
    /// [`InputError`] for an input that does not belong to this machine; nothing has changed then.
    pub fn inject(&mut self, input: &Input, context: &mut DeviceContext) -> Result<(), InputError> {
        if let Some(slot) = self.virtio.inject(input, context)? {
            self.forward_virtio_interrupts(slot);
            return Ok(());
        }
        match input {
            Input::ConsoleBytes {
                console: Console::Uart,
                bytes,
            } => {
                self.uart.receive(bytes);
                let level = self.uart.interrupt();
                self.set_interrupt(ports::SERIAL_INTERRUPT, level);
                Ok(())
            }
            Input::ResetButton => {
                self.power.reset(context.outputs);
                Ok(())
            }
            _ => Err(InputError::Clock),
        }
    }

    /// The disk requests without completion, oldest first for each disk.
    pub fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.virtio.open_disk_requests()
    }

    /// The virtio devices that need a reset, by slot, and what their drivers did wrong.
    pub fn driver_faults(&self) -> Vec<(usize, QueueError)> {
        self.virtio.driver_faults()
    }

    /// A CPU could not go on: a PC resets.
    pub fn triple_fault(&mut self, outputs: &mut Outputs) {
        self.power.reset(outputs);
    }

    /// Guest time at which [`Board::time_passed`] has something to do.
    pub fn next_timer_ns(&self) -> Option<u64> {
        self.apics.iter().filter_map(LocalApic::next_timer_ns).min()
    }

    /// Guest time is `now_ns`: timers that have run down interrupt.
    pub fn time_passed(&mut self, now_ns: u64) {
        for apic in &mut self.apics {
            apic.time_passed(now_ns);
        }
    }

    /// Carries a slot's interrupts on: its line, or its messages.
    fn forward_virtio_interrupts(&mut self, slot: usize) {
        match &self.virtio {
            VirtioBus::Mmio(slots) => {
                let level = slots.interrupt(slot);
                self.set_interrupt(virtio_slot_interrupt(slot), level);
            }
            VirtioBus::Pci(_) => self.forward_pci_interrupts(),
        }
    }

    /// Carries the PCI bus's interrupts on.
    fn forward_pci_interrupts(&mut self) {
        let VirtioBus::Pci(host) = &mut self.virtio else {
            return;
        };
        let mut messages = Vec::new();
        while let Some(message) = host.next_message() {
            messages.extend(InterruptMessage::of_write(message.address, message.data));
        }
        for (pin, level) in (PCI_INTERRUPT..).zip(host.lines()) {
            self.io_apic.set_level(pin, level);
        }
        self.send_interrupts();
        for message in messages {
            self.deliver(&message);
        }
    }

    /// A pin of the I/O APIC has this level.
    fn set_interrupt(&mut self, pin: usize, level: bool) {
        self.io_apic.set_level(pin, level);
        self.send_interrupts();
    }

    /// Carries what the I/O APIC sends to the local APICs.
    fn send_interrupts(&mut self) {
        while let Some(message) = self.io_apic.next_message() {
            self.deliver(&message);
        }
    }

    /// Delivers a message to the CPUs that it addresses: for lowest priority, to the first of them.
    fn deliver(&mut self, message: &InterruptMessage) {
        for apic in &mut self.apics {
            if apic.is_addressed(message) {
                apic.accept(message);
                if message.mode == interrupt::DeliveryMode::LowestPriority {
                    return;
                }
            }
        }
    }

    /// What a write to a local APIC asks for.
    fn carry_out(&mut self, cpu: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::EndOfLevel(vector) => {
                self.io_apic.end_of_interrupt(vector);
                self.send_interrupts();
            }
            Effect::Send(message, Shorthand::Destination) => self.deliver(&message),
            Effect::Send(message, shorthand) => {
                for (index, apic) in self.apics.iter_mut().enumerate() {
                    let is_meant = match shorthand {
                        Shorthand::Itself => index == cpu,
                        Shorthand::Others => index != cpu,
                        Shorthand::All | Shorthand::Destination => true,
                    };
                    if is_meant {
                        apic.accept(&message);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
