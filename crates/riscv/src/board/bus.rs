//! The address map of the board: QEMU's `virt` for RV64, without its flash and fw-cfg, and with what a
//! guest in trouble needs: pvpanic, a panic lamp and a watchdog. Virtio devices are in slots or on the PCI
//! bus; the one or the other is there.

use super::clint::Clint;
use super::config::LIMITS;
use super::plic::Plic;
use devices::DeviceContext;
use devices::finisher::Finisher;
use devices::gpio::Gpio;
use devices::panic::PanicNotice;
use devices::pci::{self, host::PciHost};
use devices::pvpanic;
use devices::rtc::GoldfishRtc;
use devices::uart16550::Uart16550;
use devices::virtio::bus::VirtioBus;
use devices::watchdog::Watchdog;
use machine::config::{BoardConfig, BoardConfigError, PanicPolicy};
use machine::input::{Console, Input, InputError};
use machine::output::{Finish, Output, Trouble};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The boot ROM, where every hart begins.
pub const ROM_BASE: u64 = 0x1000;
/// Bytes of the boot ROM.
pub const ROM_SIZE: u64 = 0xf000;
/// The `sifive,test0` finisher.
pub const FINISHER_BASE: u64 = 0x10_0000;
/// Bytes of the finisher's registers.
pub const FINISHER_SIZE: u64 = 0x1000;
/// The goldfish RTC.
pub const RTC_BASE: u64 = 0x10_1000;
/// Bytes of the RTC's registers.
pub const RTC_SIZE: u64 = 0x1000;
/// Interrupt source of the RTC.
pub const RTC_INTERRUPT: u32 = 11;
/// QEMU's pvpanic.
pub const PVPANIC_BASE: u64 = 0x10_2000;
/// Bytes of pvpanic's register.
pub const PVPANIC_SIZE: u64 = 0x2;
/// The GPIO block with the panic lamp.
pub const GPIO_BASE: u64 = 0x10_3000;
/// Bytes of the GPIO block's registers.
pub const GPIO_SIZE: u64 = 0x1000;
/// Interrupt source of its only pin, never raised: its driver wants one.
pub const GPIO_INTERRUPT: u32 = 12;
/// The pin of the lamp that Linux lights when it panics.
pub const PANIC_LAMP_PIN: u32 = 0;
/// The watchdog.
pub const WATCHDOG_BASE: u64 = 0x10_4000;
/// Bytes of the watchdog's registers.
pub const WATCHDOG_SIZE: u64 = 0x1000;
/// The CLINT.
pub const CLINT_BASE: u64 = 0x200_0000;
/// Bytes of the CLINT's registers.
pub const CLINT_SIZE: u64 = 0x1_0000;
/// The PLIC.
pub const PLIC_BASE: u64 = 0xc00_0000;
/// Bytes of the PLIC's registers.
pub const PLIC_SIZE: u64 = 0x60_0000;
/// The UART.
pub const UART_BASE: u64 = 0x1000_0000;
/// Bytes of the UART's registers.
pub const UART_SIZE: u64 = 0x100;
/// Interrupt source of the UART.
pub const UART_INTERRUPT: u32 = 10;
/// The first virtio slot.
pub const VIRTIO_BASE: u64 = 0x1000_1000;
/// Bytes of a virtio slot.
pub const VIRTIO_SLOT_SIZE: u64 = 0x1000;
/// Number of virtio slots.
pub const VIRTIO_SLOTS: usize = 8;
/// Interrupt source of the first virtio slot; the others follow.
pub const VIRTIO_INTERRUPT: u32 = 1;

/// Ports of the PCI bus: no function has any.
pub const PCI_PORTS_BASE: u64 = 0x300_0000;
/// Bytes of the PCI bus's ports.
pub const PCI_PORTS_SIZE: u64 = 0x1_0000;
/// Configuration space of the PCI buses (ECAM).
pub const PCI_CONFIGURATION_BASE: u64 = 0x3000_0000;
/// Bytes of configuration space.
pub const PCI_CONFIGURATION_SIZE: u64 = 0x1000_0000;
/// Memory space of the PCI bus.
pub const PCI_MEMORY_BASE: u64 = 0x4000_0000;
/// Bytes of the PCI bus's memory space.
pub const PCI_MEMORY_SIZE: u64 = 0x4000_0000;
/// Interrupt source of the PCI bus's first line; the others follow.
pub const PCI_INTERRUPT: u32 = 32;

/// A load or store that no device answers; the hart takes an access-fault exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no device answers an access of {size} bytes at {address:#x}")]
pub struct AccessFault {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub size: u8,
}

/// The devices of the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bus {
    rom: Vec<u8>,
    clint: Clint,
    plic: Plic,
    uart: Uart16550,
    rtc: GoldfishRtc,
    finisher: Finisher,
    panic: PanicNotice,
    gpio: Gpio,
    watchdog: Watchdog,
    virtio: VirtioBus,
}

impl Bus {
    /// The devices of a board as after power-on, with an empty boot ROM.
    pub fn new(board: &BoardConfig) -> Result<Bus, BoardConfigError> {
        board.validate(&LIMITS)?;
        Ok(Bus {
            rom: Vec::new(),
            clint: Clint::new(board.harts),
            plic: Plic::new(board.harts),
            uart: Uart16550::default(),
            rtc: GoldfishRtc::default(),
            finisher: Finisher::default(),
            panic: PanicNotice::default(),
            gpio: Gpio::default(),
            watchdog: Watchdog::default(),
            // Messages have no place to go to: the board has a PLIC.
            virtio: VirtioBus::new(board, false),
        })
    }

    /// All devices as after power-on, with an empty boot ROM, in the place of these ones; but what the
    /// outside was asked for and has not brought will come, and then serves nobody.
    ///
    /// # Errors
    /// [`BoardConfigError`]
    pub fn after_reset(&self, board: &BoardConfig) -> Result<Bus, BoardConfigError> {
        let mut bus = Bus::new(board)?;
        bus.virtio.take_requests_of(&self.virtio);
        bus.panic = self.panic.after_reset();
        Ok(bus)
    }

    /// Bytes of the boot ROM at a guest physical address, if all of them are in it.
    pub(crate) fn rom_at(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let begin = address.checked_sub(ROM_BASE)?;
        let end = begin.checked_add(length as u64)?;
        let byte = |at: u64| self.rom.get(at as usize).copied().unwrap_or(0);
        (end <= ROM_SIZE).then(|| (begin..end).map(byte).collect())
    }

    /// Reads 1, 2, 4 or 8 bytes outside RAM.
    ///
    /// # Errors
    /// [`AccessFault`] where there is no device, where the device does not know this size, and for
    /// addresses that are not aligned to the size.
    pub fn read(
        &mut self,
        address: u64,
        size: u8,
        context: &mut DeviceContext,
    ) -> Result<u64, AccessFault> {
        let fault = AccessFault { address, size };
        let (region, offset) = locate(address, size).ok_or(fault)?;
        let value = match region {
            Region::Rom => self.read_rom(offset, size),
            Region::Finisher => 0,
            Region::Rtc if size == 4 => {
                let value = self.rtc.read(offset, context.time_ns, context.unix_base_ns);
                self.plic.set_level(RTC_INTERRUPT, self.rtc.interrupt());
                value
            }
            Region::Rtc => return Err(fault),
            Region::Clint => self
                .clint
                .read(offset, size, context.time_ns)
                .ok_or(fault)?,
            Region::Plic => self.plic.read(offset, size).ok_or(fault)?,
            Region::Uart => {
                let value = u64::from(self.uart.read(offset));
                self.plic.set_level(UART_INTERRUPT, self.uart.interrupt());
                value
            }
            Region::Pvpanic => pvpanic::read(offset),
            Region::Gpio if size == 4 => self.gpio.read(offset),
            Region::Watchdog if size == 4 => self.watchdog.read(offset),
            Region::Gpio | Region::Watchdog => return Err(fault),
            Region::Virtio(slot) => match &self.virtio {
                VirtioBus::Mmio(slots) => slots.read(slot, offset, size),
                VirtioBus::Pci(_) => return Err(fault),
            },
            Region::Pci(space) => {
                let VirtioBus::Pci(host) = &mut self.virtio else {
                    return Err(fault);
                };
                let value = match space {
                    PciSpace::Ports => pci::nobody(size),
                    PciSpace::Configuration => host.read_configuration(offset, size),
                    PciSpace::Memory => host.read_memory(address, size),
                };
                set_pci_lines(&mut self.plic, host);
                value
            }
        };
        Ok(value)
    }

    /// Writes the low 1, 2, 4 or 8 bytes of `value` outside RAM.
    ///
    /// # Errors
    /// As [`read`](Bus::read); also for the boot ROM.
    pub fn write(
        &mut self,
        address: u64,
        size: u8,
        value: u64,
        context: &mut DeviceContext,
    ) -> Result<(), AccessFault> {
        let fault = AccessFault { address, size };
        let (region, offset) = locate(address, size).ok_or(fault)?;
        match region {
            Region::Rom => return Err(fault),
            Region::Finisher => {
                if let Some(output) = self.finisher.write(offset, value) {
                    context.outputs.other(output);
                }
            }
            Region::Rtc if size == 4 => {
                self.rtc
                    .write(offset, value, context.time_ns, context.unix_base_ns);
                self.plic.set_level(RTC_INTERRUPT, self.rtc.interrupt());
            }
            Region::Rtc => return Err(fault),
            Region::Clint => self.clint.write(offset, size, value).ok_or(fault)?,
            Region::Plic => self.plic.write(offset, size, value).ok_or(fault)?,
            Region::Uart => {
                self.uart.write(offset, value as u8, context.outputs);
                self.plic.set_level(UART_INTERRUPT, self.uart.interrupt());
            }
            Region::Pvpanic => {
                if pvpanic::says_panicked(offset, value) {
                    self.panic.panic(&mut self.finisher, context.outputs);
                }
            }
            Region::Gpio if size == 4 => {
                self.gpio.write(offset, value);
                if self.gpio.outputs() & 1 << PANIC_LAMP_PIN != 0 {
                    self.panic.panic(&mut self.finisher, context.outputs);
                }
            }
            Region::Watchdog if size == 4 => self.watchdog.write(offset, value, context.time_ns),
            Region::Gpio | Region::Watchdog => return Err(fault),
            Region::Virtio(slot) => {
                let VirtioBus::Mmio(slots) = &mut self.virtio else {
                    return Err(fault);
                };
                slots.write(slot, offset, size, value, context);
                self.update_virtio_line(slot);
            }
            Region::Pci(space) => {
                let VirtioBus::Pci(host) = &mut self.virtio else {
                    return Err(fault);
                };
                match space {
                    PciSpace::Ports => {}
                    PciSpace::Configuration => {
                        host.write_configuration(offset, size, value, context)
                    }
                    PciSpace::Memory => host.write_memory(address, size, value, context),
                }
                set_pci_lines(&mut self.plic, host);
            }
        }
        Ok(())
    }

    /// Takes an input from outside. DMA lands and the interrupt line rises before this returns.
    ///
    /// # Errors
    /// [`InputError`] for an input that does not belong to this machine; nothing has changed then.
    pub fn inject(&mut self, input: &Input, context: &mut DeviceContext) -> Result<(), InputError> {
        if let Some(slot) = self.virtio.inject(input, context)? {
            self.update_virtio_line(slot);
            return Ok(());
        }
        match input {
            Input::Calendar { unix_base_ns } => {
                self.rtc.calendar_moved(context.time_ns, *unix_base_ns);
                self.plic.set_level(RTC_INTERRUPT, self.rtc.interrupt());
                Ok(())
            }
            Input::ConsoleBytes {
                console: Console::Uart,
                bytes,
            } => {
                self.uart.receive(bytes);
                self.plic.set_level(UART_INTERRUPT, self.uart.interrupt());
                Ok(())
            }
            Input::ResetButton => {
                if let Some(output) = self.finisher.ask(Finish::Reset) {
                    context.outputs.other(output);
                }
                Ok(())
            }
            _ => Err(InputError::Clock),
        }
    }

    /// Whether the PLIC drives a hart's M-mode external interrupt (`mip.MEIP`).
    pub fn machine_external_interrupt(&self, hart: usize) -> bool {
        self.plic.interrupt(2 * hart)
    }

    /// Whether the PLIC drives a hart's S-mode external interrupt (part of `mip.SEIP`).
    pub fn supervisor_external_interrupt(&self, hart: usize) -> bool {
        self.plic.interrupt(2 * hart + 1)
    }

    /// Whether a hart's software interrupt is raised (`mip.MSIP`).
    pub fn software_interrupt(&self, hart: usize) -> bool {
        self.clint.software_interrupt(hart)
    }

    /// A hart's `mtimecmp` in ticks of 100 ns: `mip.MTIP` is set while `mtime` is not below it.
    pub fn machine_timer_compare(&self, hart: usize) -> u64 {
        self.clint.timer_compare(hart)
    }

    /// Guest time at which a device wants [`time_passed`](Bus::time_passed), in nanoseconds.
    pub fn next_device_timer_ns(&self) -> Option<u64> {
        let timers = [self.rtc.next_alarm_ns(), self.watchdog.ends_ns()];
        timers.into_iter().flatten().min()
    }

    /// Guest time has moved on: raises the RTC's alarm, and lets the watchdog reset the machine, if it is
    /// due.
    pub fn time_passed(&mut self, context: &mut DeviceContext) {
        self.rtc.time_passed(context.time_ns);
        self.plic.set_level(RTC_INTERRUPT, self.rtc.interrupt());
        if self.watchdog.time_passed(context.time_ns) {
            context
                .outputs
                .other(Output::Trouble(Trouble::WatchdogEnded));
            if let Some(output) = self.finisher.ask(Finish::Reset) {
                context.outputs.other(output);
            }
        }
    }

    /// The contents of the boot ROM from [`ROM_BASE`] on; what is behind them is zero.
    pub fn rom(&self) -> &[u8] {
        &self.rom
    }

    /// Fills the boot ROM. What is beyond [`ROM_SIZE`] is cut off.
    pub fn set_rom(&mut self, mut bytes: Vec<u8>) {
        bytes.truncate(ROM_SIZE as usize);
        self.rom = bytes;
    }

    /// How the guest ended the machine, if it did.
    pub fn finish(&self) -> Option<Finish> {
        self.finisher.finish()
    }

    /// Whether the guest reset the machine, which has to begin anew before its next instruction.
    pub fn asks_for_reset(&self) -> bool {
        self.finisher.asks_for_reset()
    }

    /// From here on a reset is an end.
    pub fn end_at_reset(&mut self) {
        self.finisher.end_at_reset();
    }

    /// What is done from here on when the guest's kernel panics.
    pub fn set_panic_policy(&mut self, policy: PanicPolicy) {
        self.panic.set_policy(policy);
    }

    /// Whether the guest's kernel panicked since it was booted.
    pub fn has_panicked(&self) -> bool {
        self.panic.panicked()
    }

    /// The virtio devices.
    pub fn virtio(&self) -> &VirtioBus {
        &self.virtio
    }

    fn read_rom(&self, offset: u64, size: u8) -> u64 {
        (0..u64::from(size)).rev().fold(0, |value, index| {
            let byte = self
                .rom
                .get((offset + index) as usize)
                .copied()
                .unwrap_or(0);
            value << 8 | u64::from(byte)
        })
    }

    /// Puts the interrupt line of a virtio device where it belongs.
    fn update_virtio_line(&mut self, slot: usize) {
        match &self.virtio {
            VirtioBus::Mmio(slots) if slot < VIRTIO_SLOTS => {
                let level = slots.interrupt(slot);
                self.plic.set_level(VIRTIO_INTERRUPT + slot as u32, level);
            }
            VirtioBus::Mmio(_) => {}
            VirtioBus::Pci(host) => set_pci_lines(&mut self.plic, host),
        }
    }
}

/// Puts the PCI bus's interrupt lines where they belong.
fn set_pci_lines(plic: &mut Plic, host: &PciHost) {
    for (source, level) in (PCI_INTERRUPT..).zip(host.lines()) {
        plic.set_level(source, level);
    }
}

#[derive(Clone, Copy)]
enum PciSpace {
    Ports,
    Configuration,
    Memory,
}

#[derive(Clone, Copy)]
enum Region {
    Rom,
    Finisher,
    Pvpanic,
    Gpio,
    Watchdog,
    Rtc,
    Clint,
    Plic,
    Uart,
    Virtio(usize),
    Pci(PciSpace),
}

/// The region that holds an aligned access of a size that the board knows, and the offset in it.
fn locate(address: u64, size: u8) -> Option<(Region, u64)> {
    if !matches!(size, 1 | 2 | 4 | 8) || !address.is_multiple_of(u64::from(size)) {
        return None;
    }
    let within = |base: u64, length: u64| {
        let offset = address.wrapping_sub(base);
        (offset < length).then_some(offset)
    };
    // The busiest first.
    if let Some(offset) = within(VIRTIO_BASE, VIRTIO_SLOT_SIZE * VIRTIO_SLOTS as u64) {
        let slot = (offset / VIRTIO_SLOT_SIZE) as usize;
        return Some((Region::Virtio(slot), offset % VIRTIO_SLOT_SIZE));
    }
    for (region, base, length) in [
        (
            Region::Pci(PciSpace::Memory),
            PCI_MEMORY_BASE,
            PCI_MEMORY_SIZE,
        ),
        (Region::Plic, PLIC_BASE, PLIC_SIZE),
        (Region::Uart, UART_BASE, UART_SIZE),
        (Region::Clint, CLINT_BASE, CLINT_SIZE),
        (Region::Rom, ROM_BASE, ROM_SIZE),
        (Region::Rtc, RTC_BASE, RTC_SIZE),
        (Region::Finisher, FINISHER_BASE, FINISHER_SIZE),
        (Region::Watchdog, WATCHDOG_BASE, WATCHDOG_SIZE),
        (Region::Gpio, GPIO_BASE, GPIO_SIZE),
        (Region::Pvpanic, PVPANIC_BASE, PVPANIC_SIZE),
        (
            Region::Pci(PciSpace::Configuration),
            PCI_CONFIGURATION_BASE,
            PCI_CONFIGURATION_SIZE,
        ),
        (Region::Pci(PciSpace::Ports), PCI_PORTS_BASE, PCI_PORTS_SIZE),
    ] {
        if let Some(offset) = within(base, length) {
            return Some((region, offset));
        }
    }
    None
}

#[cfg(test)]
mod tests;
