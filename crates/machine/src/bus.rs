//! The address map of the board: QEMU's `virt` for RV64, without its PCI, flash and fw-cfg.

use crate::devices::clint::Clint;
use crate::devices::finisher::Finisher;
use crate::devices::plic::Plic;
use crate::devices::rtc::GoldfishRtc;
use crate::devices::uart16550::Uart16550;
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::block::Block;
use crate::devices::virtio::console::VirtioConsole;
use crate::devices::virtio::entropy::Entropy;
use crate::devices::virtio::network::Network;
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::slots::VirtioSlots;
use crate::guest_ram::GuestRam;
use crate::input::{Console, Input};
use crate::isa::Extensions;
use crate::memory::PAGE_SIZE;
use crate::output::{DiskRequest, Finish, Output, Outputs};
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

/// Harts at most: what the layout of CLINT and PLIC has room for.
pub const MAX_HARTS: u32 = 512;
/// RAM at most, in bytes: what lies below 2^40.
pub const MAX_MEMORY_BYTES: u64 = (1 << 40) - crate::memory::RAM_BASE;

/// What a device may touch besides its own state.
pub struct DeviceContext<'a> {
    /// Guest RAM.
    pub memory: &'a mut dyn GuestRam,
    /// Where outputs go.
    pub outputs: &'a mut Outputs,
    /// Guest time in nanoseconds since power-on.
    pub time_ns: u64,
    /// Unix time at power-on in nanoseconds.
    pub unix_base_ns: u64,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Capacity in sectors of 512 bytes.
    pub sectors: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Its identity, of which the guest sees the first 20 bytes.
    pub serial: String,
}

/// What the board is made of.
///
/// Virtio devices fill the slots from 0x10001000 on in this order: disks, network devices, console,
/// entropy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardConfig {
    /// RAM in bytes, a multiple of 4096.
    pub memory_bytes: u64,
    /// Number of harts, 1 to [`MAX_HARTS`].
    pub harts: u32,
    /// The network devices.
    pub network: Vec<NetworkConfig>,
    /// The disks.
    pub disks: Vec<DiskConfig>,
    /// Whether there is a virtio console.
    pub virtio_console: bool,
    /// Whether there is an entropy device.
    pub entropy: bool,
    /// Whether the harts have Zba, Zbb and Zbs.
    pub bit_manipulation: bool,
}

/// A board that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoardConfigError {
    /// No RAM, too much, or a broken page.
    #[error(
        "{bytes} bytes of memory: give a multiple of 4096, at least 4096 and at most \
         {MAX_MEMORY_BYTES}"
    )]
    Memory {
        /// What was given.
        bytes: u64,
    },
    /// No hart, or too many.
    #[error("{harts} harts: give 1 to {MAX_HARTS}")]
    Harts {
        /// What was given.
        harts: u32,
    },
    /// More virtio devices than slots.
    #[error(
        "{devices} virtio devices (disks, network devices, console, entropy), but the board has \
         {VIRTIO_SLOTS} slots: leave some out"
    )]
    TooManyDevices {
        /// What was given.
        devices: usize,
    },
    /// A disk whose size in bytes is no 64-bit number.
    #[error("disk {disk} has {sectors} sectors of 512 bytes, which is more than 2^63 bytes")]
    DiskTooLarge {
        /// Index of the disk.
        disk: usize,
        /// What was given.
        sectors: u64,
    },
    /// A MAC address that is no station's.
    #[error(
        "network device {device} has a group or zero MAC address: give a unicast one, for example \
         52:54:00:00:00:01"
    )]
    Mac {
        /// Index of the network device.
        device: usize,
    },
}

impl BoardConfig {
    /// The optional extensions that the harts have.
    pub fn extensions(&self) -> Extensions {
        Extensions {
            bit_manipulation: self.bit_manipulation,
        }
    }

    /// Checks that such a board can be built.
    pub fn validate(&self) -> Result<(), BoardConfigError> {
        let bytes = self.memory_bytes;
        if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) || bytes > MAX_MEMORY_BYTES {
            return Err(BoardConfigError::Memory { bytes });
        }
        if self.harts == 0 || self.harts > MAX_HARTS {
            return Err(BoardConfigError::Harts { harts: self.harts });
        }
        let devices = self.disks.len()
            + self.network.len()
            + usize::from(self.virtio_console)
            + usize::from(self.entropy);
        if devices > VIRTIO_SLOTS {
            return Err(BoardConfigError::TooManyDevices { devices });
        }
        if let Some(disk) = self.disks.iter().position(|d| d.sectors >= 1 << 54) {
            let sectors = self.disks[disk].sectors;
            return Err(BoardConfigError::DiskTooLarge { disk, sectors });
        }
        let station = |mac: &[u8; 6]| mac[0] & 1 == 0 && *mac != [0; 6];
        if let Some(device) = self.network.iter().position(|n| !station(&n.mac)) {
            return Err(BoardConfigError::Mac { device });
        }
        Ok(())
    }

    /// The virtio devices in the order of their slots, as after reset.
    pub fn virtio_devices(&self) -> Vec<VirtioDevice> {
        let mut devices = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let block = Block::new(index as u8, disk.sectors, disk.read_only, &disk.serial);
            devices.push(VirtioDevice::Block(block));
        }
        for (index, network) in self.network.iter().enumerate() {
            devices.push(VirtioDevice::Network(Network::new(
                index as u8,
                network.mac,
            )));
        }
        if self.virtio_console {
            devices.push(VirtioDevice::Console(VirtioConsole::default()));
        }
        if self.entropy {
            devices.push(VirtioDevice::Entropy(Entropy::default()));
        }
        devices
    }
}

/// A load or store that no device answers; the hart takes an access-fault exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no device answers an access of {size} bytes at {address:#x}")]
pub struct AccessFault {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub size: u8,
}

/// An input that this machine cannot take. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InputError {
    /// The machine has no such device.
    #[error("there is no {kind} {device} in this machine")]
    NoSuchDevice {
        /// What kind of device.
        kind: &'static str,
        /// Its index.
        device: u8,
    },
    /// The completion of a disk request that is not open.
    #[error("disk {device} has no open request {request}")]
    UnknownDiskRequest {
        /// Index of the disk.
        device: u8,
        /// Number of the request.
        request: u64,
    },
    /// The completion of a disk request with too much or too little data.
    #[error("request {request} of disk {device} needs {expected} bytes of data, not {found}")]
    DiskDataLength {
        /// Index of the disk.
        device: u8,
        /// Number of the request.
        request: u64,
        /// Bytes that the request reads.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// Random bytes that were not asked for, or not so many.
    #[error("{found} random bytes came, but {requested} at most (and at least one) were asked for")]
    Entropy {
        /// Bytes that were asked for; 0 if none were.
        requested: u32,
        /// Bytes that came.
        found: u64,
    },
    /// A clock record, which is for the machine and not for its devices.
    #[error("a clock record is no input of a device")]
    Clock,
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
    /// The devices of the virtio slots.
    virtio: VirtioSlots,
}

impl Bus {
    /// The devices of a board as after power-on, with an empty boot ROM.
    pub fn new(config: &BoardConfig) -> Result<Bus, BoardConfigError> {
        config.validate()?;
        Ok(Bus {
            rom: Vec::new(),
            clint: Clint::new(config.harts),
            plic: Plic::new(config.harts),
            uart: Uart16550::default(),
            rtc: GoldfishRtc::default(),
            finisher: Finisher::default(),
            virtio: VirtioSlots::new(config.virtio_devices()),
        })
    }

    /// All devices as after power-on, with an empty boot ROM; but what the outside was asked for and
    /// has not brought will come, and then serves nobody.
    ///
    /// # Errors
    /// [`BoardConfigError`]; nothing has changed then.
    pub fn reset(&mut self, config: &BoardConfig) -> Result<(), BoardConfigError> {
        let mut new = Bus::new(config)?;
        new.virtio.take_requests_of(&self.virtio);
        *self = new;
        Ok(())
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
            Region::Virtio(slot) => self.virtio.read(slot, offset, size),
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
                if let Some(finish) = self.finisher.write(offset, value) {
                    // What a reset means is the machine's to say.
                    if finish != Finish::Reset {
                        context.outputs.other(Output::Finish(finish));
                    }
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
            Region::Virtio(slot) => {
                self.virtio.write(slot, offset, size, value, context);
                self.set_virtio_level(slot);
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
            self.set_virtio_level(slot);
            return Ok(());
        }
        match input {
            Input::ConsoleBytes {
                console: Console::Uart,
                bytes,
            } => {
                self.uart.receive(bytes);
                self.plic.set_level(UART_INTERRUPT, self.uart.interrupt());
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
        self.rtc.next_alarm_ns()
    }

    /// Guest time has moved on: raises the RTC's alarm if it is due.
    pub fn time_passed(&mut self, context: &mut DeviceContext) {
        self.rtc.time_passed(context.time_ns);
        self.plic.set_level(RTC_INTERRUPT, self.rtc.interrupt());
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

    /// The disk requests without completion, oldest first for each disk: who goes live repeats
    /// them.
    pub fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.virtio.open_disk_requests()
    }

    /// The random bytes that were asked for and have not come: who goes live brings them.
    pub fn open_entropy_request(&self) -> Option<u32> {
        self.virtio.open_entropy_request()
    }

    /// The virtio devices that need a reset, by slot, and what their drivers did wrong.
    pub fn driver_faults(&self) -> Vec<(usize, QueueError)> {
        self.virtio.driver_faults()
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

    /// Puts a slot's interrupt line where it belongs.
    fn set_virtio_level(&mut self, slot: usize) {
        self.plic
            .set_level(VIRTIO_INTERRUPT + slot as u32, self.virtio.interrupt(slot));
    }
}

#[derive(Clone, Copy)]
enum Region {
    Rom,
    Finisher,
    Rtc,
    Clint,
    Plic,
    Uart,
    Virtio(usize),
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
        (Region::Plic, PLIC_BASE, PLIC_SIZE),
        (Region::Uart, UART_BASE, UART_SIZE),
        (Region::Clint, CLINT_BASE, CLINT_SIZE),
        (Region::Rom, ROM_BASE, ROM_SIZE),
        (Region::Rtc, RTC_BASE, RTC_SIZE),
        (Region::Finisher, FINISHER_BASE, FINISHER_SIZE),
    ] {
        if let Some(offset) = within(base, length) {
            return Some((region, offset));
        }
    }
    None
}

#[cfg(test)]
mod tests;
