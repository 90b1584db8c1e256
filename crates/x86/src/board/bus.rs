//! What a CPU sees of the board while it runs.

use super::io_apic::{IO_APIC_BASE, IO_APIC_SIZE};
use super::wakeup::{MAILBOX_BASE, MAILBOX_SIZE};
use super::{
    Board, PCI_CONFIGURATION_BASE, PCI_CONFIGURATION_SIZE, PCI_MEMORY_BASE, PCI_MEMORY_SIZE,
    VIRTIO_BASE, VIRTIO_SLOT_SIZE, VIRTIO_SLOTS, pm_timer, ports,
};
use crate::bus::Bus;
use crate::cpuid::Processor;
use crate::ram::Ram;
use devices::DeviceContext;
use devices::pci::host::PciHost;
use devices::virtio::bus::VirtioBus;
use machine::clock::Clock;
use machine::output::Outputs;

const SERIAL_LAST: u16 = ports::SERIAL + ports::SERIAL_PORTS - 1;

/// What a board's devices may touch besides their own state.
pub struct Surroundings<'a> {
    /// Where outputs go.
    pub outputs: &'a mut Outputs,
    /// Guest time, as a function of the instruction count.
    pub clock: &'a Clock,
    /// Unix time at power-on in nanoseconds.
    pub unix_base_ns: u64,
}

impl Surroundings<'_> {
    /// For a device that works at instruction count `now`.
    pub fn context<'a>(&'a mut self, ram: &'a mut Ram, now: u64) -> DeviceContext<'a> {
        DeviceContext {
            memory: ram,
            outputs: self.outputs,
            time_ns: self.clock.time_ns(now),
            unix_base_ns: self.unix_base_ns,
        }
    }

    fn unix_time_ns(&self, now: u64) -> u64 {
        self.unix_base_ns.saturating_add(self.clock.time_ns(now))
    }
}

/// The board, to one of its CPUs.
pub struct BoardBus<'a> {
    board: &'a mut Board,
    cpu: usize,
    surroundings: Surroundings<'a>,
    wants_attention: bool,
}

impl<'a> BoardBus<'a> {
    /// For a run of a CPU.
    pub fn new(board: &'a mut Board, cpu: usize, surroundings: Surroundings<'a>) -> BoardBus<'a> {
        BoardBus {
            board,
            cpu,
            surroundings,
            wants_attention: false,
        }
    }

    /// Lets devices work, and sees whether the machine has to look at what came of it.
    fn with_board<T>(&mut self, work: impl FnOnce(&mut Board, &mut Surroundings) -> T) -> T {
        let before = self.watched();
        let result = work(self.board, &mut self.surroundings);
        self.wants_attention |= self.watched() != before
            || self.board.finish().is_some()
            || self.board.asks_for_reset()
            || self.board.mailbox.has_start()
            || self.board.waits_for_wakeup(self.cpu)
            || self.surroundings.outputs.is_urgent();
        result
    }

    /// Lets the PCI bus work, and carries its interrupts on; `None` where there is no such bus.
    fn with_pci<T>(
        &mut self,
        ram: &mut Ram,
        now: u64,
        work: impl FnOnce(&mut PciHost, &mut DeviceContext) -> T,
    ) -> Option<T> {
        self.with_board(|board, around| {
            let VirtioBus::Pci(host) = &mut board.virtio else {
                return None;
            };
            let result = work(host, &mut around.context(ram, now));
            board.forward_pci_interrupts();
            Some(result)
        })
    }

    /// What the run depends on: the interrupts to be taken, and when the next timer runs down.
    fn watched(&self) -> (bool, Option<u8>, Option<u64>) {
        let apic = &self.board.apics[self.cpu];
        let (nonmaskable, pending) = (apic.has_nonmaskable(), apic.pending());
        (nonmaskable, pending, self.board.next_timer_ns())
    }

    /// The offset of an address in the mailbox, where there is one: where there are CPUs to be woken up.
    fn mailbox_offset(&self, address: u64) -> Option<u64> {
        let has_mailbox = self.board.apics.len() > 1;
        within(address, MAILBOX_BASE, MAILBOX_SIZE).filter(|_| has_mailbox)
    }

    fn write_port_byte(&mut self, port: u16, value: u8, now: u64) {
        match port {
            ports::SERIAL..=SERIAL_LAST => self.with_board(|board, around| {
                let offset = u64::from(port - ports::SERIAL);
                board.uart.write(offset, value, around.outputs);
                let level = board.uart.interrupt();
                board.set_interrupt(ports::SERIAL_INTERRUPT, level);
            }),
            ports::CMOS_INDEX => self.board.cmos.select(value),
            ports::CMOS_DATA => {
                let unix_time_ns = self.surroundings.unix_time_ns(now);
                self.board.cmos.write(value, unix_time_ns);
            }
            ports::KEYBOARD_COMMAND
            | ports::RESET_CONTROL
            | ports::SLEEP_CONTROL
            | ports::SLEEP_STATUS
            | ports::PANIC
            | ports::EXIT => self.with_board(|board, around| {
                board.power.write(port, value, around.outputs);
            }),
            ports::CPU_WAIT => {
                let cpu = self.cpu;
                self.with_board(|board, _| board.mailbox.wait(cpu));
            }
            _ => {} // nobody is there
        }
    }

    fn read_port_byte(&mut self, port: u16, now: u64) -> u8 {
        match port {
            ports::SERIAL..=SERIAL_LAST => self.with_board(|board, _| {
                let value = board.uart.read(u64::from(port - ports::SERIAL));
                let level = board.uart.interrupt();
                board.set_interrupt(ports::SERIAL_INTERRUPT, level);
                value
            }),
            ports::CMOS_DATA => self.board.cmos.read(self.surroundings.unix_time_ns(now)),
            ports::TIMER..=ports::TIMER_LAST => {
                let value = pm_timer::value(self.surroundings.clock.time_ns(now));
                value.to_le_bytes()[usize::from(port - ports::TIMER)]
            }
            ports::KEYBOARD_DATA
            | ports::KEYBOARD_COMMAND
            | ports::RESET_CONTROL
            | ports::SLEEP_CONTROL
            | ports::SLEEP_STATUS
            | ports::PANIC => self.board.power.read(port),
            _ => u8::MAX,
        }
    }
}

/// The offset of an address in a region, if it lies there.
fn within(address: u64, base: u64, length: u64) -> Option<u64> {
    let offset = address.wrapping_sub(base);
    (offset < length).then_some(offset)
}

/// The virtio slot that an address lies in, and the offset there.
fn virtio_slot(address: u64) -> Option<(usize, u64)> {
    let offset = within(address, VIRTIO_BASE, VIRTIO_SLOT_SIZE * VIRTIO_SLOTS as u64)?;
    let slot = (offset / VIRTIO_SLOT_SIZE) as usize;
    Some((slot, offset % VIRTIO_SLOT_SIZE))
}

/// The PCI bus's spaces in memory.
#[derive(Clone, Copy)]
enum PciSpace {
    Memory,
    /// At this offset.
    Configuration(u64),
}

impl PciSpace {
    /// The space that an address lies in.
    fn of(address: u64) -> Option<PciSpace> {
        if within(address, PCI_MEMORY_BASE, PCI_MEMORY_SIZE).is_some() {
            return Some(PciSpace::Memory);
        }
        let offset = within(address, PCI_CONFIGURATION_BASE, PCI_CONFIGURATION_SIZE);
        offset.map(PciSpace::Configuration)
    }
}

/// The PCI bus's ports.
#[derive(Clone, Copy)]
enum PciPort {
    Address,
    /// From this byte on.
    Data(u64),
}

impl PciPort {
    /// The port that an access is to. The address is 32 bits: narrower, a byte in the middle of it is the
    /// register for resets.
    fn of(port: u16, size: usize) -> Option<PciPort> {
        match port {
            ports::PCI_ADDRESS if size == 4 => Some(PciPort::Address),
            ports::PCI_DATA..=ports::PCI_DATA_LAST => {
                let offset = u64::from(port - ports::PCI_DATA);
                (offset as usize)
                    .is_multiple_of(size)
                    .then_some(PciPort::Data(offset))
            }
            _ => None,
        }
    }
}

/// All ones, as far as an access goes: what a bus without a device reads.
fn nobody(size: usize) -> u64 {
    u64::MAX >> (64 - 8 * size)
}

impl Bus for BoardBus<'_> {
    fn read_device(&mut self, ram: &mut Ram, address: u64, size: usize, now: u64) -> u64 {
        let cpu = self.cpu;
        if let Some(offset) = self.board.apics[cpu].offset(address) {
            let now_ns = self.surroundings.clock.time_ns(now);
            // Section 11.4.1: 32-bit accesses at multiples of 16 are defined. A narrower one gets its
            // part of the register.
            let value = self.with_board(|board, _| board.apics[cpu].read(offset & !0xf, now_ns));
            return part(value, offset, size);
        }
        if let Some(offset) = within(address, IO_APIC_BASE, IO_APIC_SIZE) {
            return part(self.board.io_apic.read(offset & !0xf), offset, size);
        }
        if let Some(offset) = self.mailbox_offset(address) {
            return self.board.mailbox.read(offset, size);
        }
        if let VirtioBus::Mmio(slots) = &self.board.virtio {
            return match virtio_slot(address) {
                Some((slot, offset)) => slots.read(slot, offset, size as u8),
                None => nobody(size),
            };
        }
        let value = match PciSpace::of(address) {
            Some(PciSpace::Memory) => {
                self.with_pci(ram, now, |host, _| host.read_memory(address, size as u8))
            }
            Some(PciSpace::Configuration(offset)) => self.with_pci(ram, now, |host, _| {
                host.read_configuration(offset, size as u8)
            }),
            None => None,
        };
        value.unwrap_or(nobody(size))
    }

    fn write_device(&mut self, ram: &mut Ram, address: u64, size: usize, value: u64, now: u64) {
        let cpu = self.cpu;
        if let Some(offset) = self.board.apics[cpu].offset(address) {
            if size >= 4 {
                let now_ns = self.surroundings.clock.time_ns(now);
                self.with_board(|board, _| {
                    let effect = board.apics[cpu].write(offset, value as u32, now_ns);
                    board.carry_out(cpu, effect);
                });
            }
        } else if let Some(offset) = within(address, IO_APIC_BASE, IO_APIC_SIZE) {
            // The register select is a byte, the window 32 bits.
            self.with_board(|board, _| {
                board.io_apic.write(offset, value as u32);
                board.send_interrupts();
            });
        } else if let Some(offset) = self.mailbox_offset(address) {
            self.with_board(|board, _| board.mailbox.write(offset, size, value));
        } else if let VirtioBus::Mmio(_) = &self.board.virtio {
            let Some((slot, offset)) = virtio_slot(address) else {
                return;
            };
            self.with_board(|board, around| {
                let VirtioBus::Mmio(slots) = &mut board.virtio else {
                    return;
                };
                let mut context = around.context(ram, now);
                slots.write(slot, offset, size as u8, value, &mut context);
                board.forward_virtio_interrupts(slot);
            });
        } else if let Some(space) = PciSpace::of(address) {
            let size = size as u8;
            self.with_pci(ram, now, |host, context| match space {
                PciSpace::Memory => host.write_memory(address, size, value, context),
                PciSpace::Configuration(offset) => {
                    host.write_configuration(offset, size, value, context);
                }
            });
        }
    }

    fn read_port(&mut self, ram: &mut Ram, port: u16, size: usize, now: u64) -> u32 {
        if let Some(register) = PciPort::of(port, size) {
            let value = self.with_pci(ram, now, |host, _| match register {
                PciPort::Address => host.address(),
                PciPort::Data(offset) => host.read_data(offset, size as u8),
            });
            return value.unwrap_or(nobody(size) as u32);
        }
        (0..size as u16).rev().fold(0, |value, index| {
            let byte = self.read_port_byte(port.wrapping_add(index), now);
            value << 8 | u32::from(byte)
        })
    }

    fn write_port(&mut self, ram: &mut Ram, port: u16, size: usize, value: u32, now: u64) {
        if let Some(register) = PciPort::of(port, size) {
            self.with_pci(ram, now, |host, context| match register {
                PciPort::Address => host.set_address(value),
                PciPort::Data(offset) => host.write_data(offset, size as u8, value, context),
            });
            return;
        }
        for index in 0..size as u16 {
            let byte = (value >> (8 * index)) as u8;
            self.write_port_byte(port.wrapping_add(index), byte, now);
        }
    }

    fn processor(&self) -> Processor {
        Processor {
            number: self.cpu as u8,
            of: self.board.apics.len() as u8,
        }
    }

    fn has_nonmaskable_interrupt(&self) -> bool {
        self.board.apics[self.cpu].has_nonmaskable()
    }

    fn acknowledge_nonmaskable_interrupt(&mut self) {
        self.board.apics[self.cpu].clear_nonmaskable();
    }

    fn pending_interrupt(&self) -> Option<u8> {
        self.board.apics[self.cpu].pending()
    }

    fn acknowledge_interrupt(&mut self) -> u8 {
        self.board.apics[self.cpu].acknowledge()
    }

    fn task_priority(&self) -> u8 {
        self.board.apics[self.cpu].task_priority()
    }

    fn set_task_priority(&mut self, priority: u8) {
        let cpu = self.cpu;
        self.with_board(|board, _| board.apics[cpu].set_task_priority(priority));
    }

    fn time_stamp_counter(&self, now: u64) -> u64 {
        let now_ns = self.surroundings.clock.time_ns(now);
        self.board.apics[self.cpu].time_stamp_counter(now_ns)
    }

    fn set_time_stamp_counter(&mut self, value: u64, now: u64) {
        let cpu = self.cpu;
        let now_ns = self.surroundings.clock.time_ns(now);
        self.with_board(|board, _| board.apics[cpu].set_time_stamp_counter(value, now_ns));
    }

    fn read_apic_msr(&mut self, index: u32, _now: u64) -> Option<u64> {
        self.board.apics[self.cpu].read_msr(index)
    }

    fn write_apic_msr(&mut self, index: u32, value: u64, now: u64) -> Option<()> {
        let cpu = self.cpu;
        let now_ns = self.surroundings.clock.time_ns(now);
        self.with_board(|board, _| board.apics[cpu].write_msr(index, value, now_ns))
    }

    fn wants_attention(&self) -> bool {
        self.wants_attention
    }
}

/// What an access at `offset` gets of the 32-bit register at the multiple of 16 below it.
fn part(register: u32, offset: u64, size: usize) -> u64 {
    let shifted = u64::from(register) >> (8 * (offset % 16)).min(63);
    shifted & nobody(size)
}
