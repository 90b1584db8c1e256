//! The PC around the CPU: interrupt controllers, serial port, clock, power, and what tells a kernel of
//! them.

pub mod acpi;
mod bus;
pub mod cmos;
pub mod interrupt;
pub mod io_apic;
pub mod local_apic;
pub mod ports;
pub mod power;

pub use bus::{BoardBus, Surroundings};

use cmos::Cmos;
use interrupt::InterruptMessage;
use io_apic::IoApic;
use local_apic::{Effect, LocalApic, Shorthand};
use machine::devices::uart16550::Uart16550;
use machine::output::Finish;
use power::Power;
use serde::{Deserialize, Serialize};

/// The first address below 4 GiB that is not RAM, however much of it there is.
pub const HOLE_BASE: u64 = 0xc000_0000;
/// The first virtio slot.
pub const VIRTIO_BASE: u64 = 0xd000_0000;
/// Bytes of a virtio slot.
pub const VIRTIO_SLOT_SIZE: u64 = 0x1000;
/// Virtio slots.
pub const VIRTIO_SLOTS: usize = 8;
/// Pin of the I/O APIC that the first virtio slot drives; the others follow.
pub const VIRTIO_INTERRUPT: usize = 16;

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
}

impl Board {
    /// As after power-on.
    pub fn new(cpus: u8) -> Board {
        Board {
            apics: (0..cpus).map(LocalApic::new).collect(),
            io_apic: IoApic::default(),
            uart: Uart16550::default(),
            cmos: Cmos::default(),
            power: Power::default(),
        }
    }

    /// A CPU's local APIC.
    pub fn local_apic(&self, cpu: usize) -> &LocalApic {
        &self.apics[cpu]
    }

    /// How the guest ended the machine, if it did.
    pub fn finish(&self) -> Option<Finish> {
        self.power.finish()
    }

    /// Bytes from the serial line.
    pub fn receive_serial(&mut self, bytes: &[u8]) {
        self.uart.receive(bytes);
        let level = self.uart.interrupt();
        self.set_interrupt(ports::SERIAL_INTERRUPT, level);
    }

    /// A CPU could not go on: a PC resets.
    pub fn triple_fault(&mut self) {
        self.power.reset();
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
