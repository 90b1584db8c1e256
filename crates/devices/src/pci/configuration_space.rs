//! A function's configuration space: a type 0 header and a list of capabilities (PCI 3.0, sections 6.1, 6.2
//! and 6.7). Bytes, and which of their bits the guest may write: so registers need no code of their own.

use serde::{Deserialize, Serialize};

/// Bytes of it.
pub const BYTES: u16 = 256;

const VENDOR: u16 = 0x00;
const DEVICE: u16 = 0x02;
const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const REVISION: u16 = 0x08;
const CLASS: u16 = 0x09;
const CACHE_LINE_SIZE: u16 = 0x0c;
const LATENCY_TIMER: u16 = 0x0d;
const BASE_ADDRESS: u16 = 0x10;
const SUBSYSTEM_VENDOR: u16 = 0x2c;
const SUBSYSTEM: u16 = 0x2e;
const CAPABILITIES: u16 = 0x34;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;
const FIRST_CAPABILITY: u16 = 0x40;

/// The bits of the command register: memory space, bus master, parity error response, SERR#, interrupt
/// disable. There is no I/O space to enable.
const COMMAND_WRITABLE: u16 =
    COMMAND_MEMORY | COMMAND_BUS_MASTER | 1 << 6 | 1 << 8 | COMMAND_NO_LINE;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_NO_LINE: u16 = 1 << 10;
const STATUS_INTERRUPT: u16 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// The bits of a base address register that are not the address.
const BASE_ADDRESS_KIND: u32 = 0xf;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, subclass and programming interface, from the highest byte on.
    pub class: u32,
    /// Subsystem vendor ID and subsystem ID.
    pub subsystem: (u16, u16),
    /// Whether it drives INTA#.
    pub has_line: bool,
}

/// A configuration space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    /// Where the next capability goes.
    end: u16,
    /// Where the link to it is.
    link: u16,
}

impl ConfigurationSpace {
    /// One without base addresses and capabilities.
    pub fn new(identity: &Identity) -> ConfigurationSpace {
        let mut space = ConfigurationSpace {
            bytes: vec![0; BYTES.into()],
            writable: vec![0; BYTES.into()],
            end: FIRST_CAPABILITY,
            link: CAPABILITIES,
        };
        space.put(VENDOR, &identity.vendor.to_le_bytes());
        space.put(DEVICE, &identity.device.to_le_bytes());
        space.put(REVISION, &[identity.revision]);
        space.put(CLASS, &identity.class.to_le_bytes()[..3]);
        space.put(SUBSYSTEM_VENDOR, &identity.subsystem.0.to_le_bytes());
        space.put(SUBSYSTEM, &identity.subsystem.1.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.allow(CACHE_LINE_SIZE, &[0xff]);
        space.allow(LATENCY_TIMER, &[0xff]);
        if identity.has_line {
            space.put(INTERRUPT_PIN, &[1]);
            space.allow(INTERRUPT_LINE, &[0xff]);
        }
        space
    }

    /// Gives it a window of `length` bytes, a power of two, into 32-bit memory space (section 6.2.5.1).
    pub fn add_memory(&mut self, index: u16, length: u32) {
        assert!(length.is_power_of_two() && length > BASE_ADDRESS_KIND && index < 6);
        self.allow(BASE_ADDRESS + 4 * index, &(!(length - 1)).to_le_bytes());
    }

    /// Appends a capability: its bytes from the identity on, and which bits of them may be written; the link is
    /// filled in. Gives its offset.
    pub fn add_capability(&mut self, capability: &[u8], writable: &[u8]) -> u16 {
        let at = self.end;
        self.put(at, capability);
        self.allow(at, writable);
        self.put(at + 1, &[0]);
        self.put(self.link, &[at as u8]);
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.link = at + 1;
        self.end = (at + capability.len() as u16).next_multiple_of(4);
        assert!(self.end <= BYTES, "capabilities lie within the space");
        at
    }

    /// The byte at an offset; all ones behind the end.
    pub fn byte(&self, offset: u16) -> u8 {
        let byte = self.bytes.get(usize::from(offset));
        byte.copied().unwrap_or(u8::MAX)
    }

    /// The 16 bits at an offset.
    pub fn half_word(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset.wrapping_add(1))])
    }

    /// The 32 bits at an offset.
    pub fn word(&self, offset: u16) -> u32 {
        let upper = self.half_word(offset.wrapping_add(2));
        u32::from(self.half_word(offset)) | u32::from(upper) << 16
    }

    /// Writes a byte, as far as the guest may.
    pub fn write_byte(&mut self, offset: u16, value: u8) {
        let at = usize::from(offset);
        if let (Some(byte), Some(&writable)) = (self.bytes.get_mut(at), self.writable.get(at)) {
            *byte = *byte & !writable | value & writable;
        }
    }

    /// Sets bytes that the guest may not write.
    pub fn put(&mut self, offset: u16, value: &[u8]) {
        replace(&mut self.bytes, offset, value);
    }

    /// Lets the guest write bits.
    fn allow(&mut self, offset: u16, bits: &[u8]) {
        replace(&mut self.writable, offset, bits);
    }

    /// Whether the function answers in memory space.
    pub fn answers_memory(&self) -> bool {
        self.half_word(COMMAND) & COMMAND_MEMORY != 0
    }

    /// Whether the function may reach memory, be it with data or with interrupt messages.
    pub fn is_bus_master(&self) -> bool {
        self.half_word(COMMAND) & COMMAND_BUS_MASTER != 0
    }

    /// Whether the function may drive its interrupt line.
    pub fn may_drive_line(&self) -> bool {
        self.half_word(COMMAND) & COMMAND_NO_LINE == 0
    }

    /// Shows in the status register whether an interrupt by line is wanted (section 6.2.3).
    pub fn show_interrupt(&mut self, wanted: bool) {
        let others = self.half_word(STATUS) & !STATUS_INTERRUPT;
        let status = if wanted {
            others | STATUS_INTERRUPT
        } else {
            others
        };
        self.put(STATUS, &status.to_le_bytes());
    }

    /// Where a window into memory space begins.
    pub fn memory(&self, index: u16) -> u32 {
        self.word(BASE_ADDRESS.wrapping_add(index.wrapping_mul(4))) & !BASE_ADDRESS_KIND
    }

    /// Places a window, and lets the function answer there: what a firmware does.
    pub fn place_memory(&mut self, index: u16, address: u32) {
        for (offset, byte) in (BASE_ADDRESS + 4 * index..).zip(address.to_le_bytes()) {
            self.write_byte(offset, byte);
        }
        self.write_byte(COMMAND, COMMAND_MEMORY as u8);
    }
}

fn replace(bytes: &mut [u8], offset: u16, value: &[u8]) {
    let from = usize::from(offset);
    if let Some(place) = bytes.get_mut(from..from + value.len()) {
        place.copy_from_slice(value);
    }
}
