//! The I/O APIC: an 82093AA with 24 pins (Intel 290566-001), version 0x11.

use super::interrupt::{DeliveryMode, InterruptMessage};
use serde::{Deserialize, Serialize};

/// Where its registers lie.
pub const IO_APIC_BASE: u64 = 0xfec0_0000;
/// Bytes of its registers.
pub const IO_APIC_SIZE: u64 = 0x1000;
/// Pins, which are the global system interrupts from 0 on.
pub const IO_APIC_PINS: usize = 24;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const INDEX_ID: u8 = 0;
const INDEX_VERSION: u8 = 1;
const INDEX_ARBITRATION: u8 = 2;
const INDEX_REDIRECTION: u8 = 0x10;

const VERSION: u32 = 0x11 | (IO_APIC_PINS as u32 - 1) << 16;

const ENTRY_LOGICAL: u64 = 1 << 11;
const ENTRY_REMOTE_REQUEST: u64 = 1 << 14;
const ENTRY_LEVEL: u64 = 1 << 15;
const ENTRY_MASKED: u64 = 1 << 16;
/// Destination, mask, trigger, polarity, destination mode, delivery mode, vector; the delivery status
/// is always idle, and the remote request is not for software.
const ENTRY_WRITABLE: u64 = 0xff00_0000_0001_afff;

/// Its registers and the levels of its pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {
    id: u8,
    select: u8,
    entries: [u64; IO_APIC_PINS],
    /// Levels of the pins, active high.
    levels: u32,
    /// Edges that were seen and not yet sent.
    edges: u32,
}

impl Default for IoApic {
    /// As after reset: all pins masked.
    fn default() -> IoApic {
        IoApic {
            id: 0,
            select: 0,
            entries: [ENTRY_MASKED; IO_APIC_PINS],
            levels: 0,
            edges: 0,
        }
    }
}

impl IoApic {
    /// Reads 4 bytes at `offset`.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            SELECT => u32::from(self.select),
            WINDOW => self.read_selected(),
            _ => 0,
        }
    }

    /// Writes 4 bytes at `offset`. [`IoApic::next_message`] may have something afterwards.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            SELECT => self.select = value as u8,
            WINDOW => self.write_selected(value),
            _ => {}
        }
    }

    /// The level of a pin changes, or stays.
    pub fn set_level(&mut self, pin: usize, level: bool) {
        let bit = 1 << pin;
        let rises = level && self.levels & bit == 0;
        self.levels = if level {
            self.levels | bit
        } else {
            self.levels & !bit
        };
        // Section 3.2.4, interrupt mask: edges at a masked pin are lost.
        if rises && self.entries[pin] & (ENTRY_LEVEL | ENTRY_MASKED) == 0 {
            self.edges |= bit;
        }
    }

    /// A level-triggered interrupt of this vector ended at a local APIC (section 3.2.4, remote IRR).
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.entries {
            if *entry as u8 == vector && *entry & ENTRY_LEVEL != 0 {
                *entry &= !ENTRY_REMOTE_REQUEST;
            }
        }
    }

    /// The next interrupt to be sent, lowest pin first. The board calls it until nothing comes.
    pub fn next_message(&mut self) -> Option<InterruptMessage> {
        for pin in 0..IO_APIC_PINS {
            let bit = 1 << pin;
            let entry = &mut self.entries[pin];
            if *entry & ENTRY_MASKED != 0 {
                continue;
            }
            let is_level = *entry & ENTRY_LEVEL != 0;
            if is_level {
                if self.levels & bit == 0 || *entry & ENTRY_REMOTE_REQUEST != 0 {
                    continue;
                }
                *entry |= ENTRY_REMOTE_REQUEST;
            } else {
                if self.edges & bit == 0 {
                    continue;
                }
                self.edges &= !bit;
            }
            let Some(mode) = DeliveryMode::decode((*entry >> 8) as u32) else {
                continue;
            };
            return Some(InterruptMessage {
                destination: (*entry >> 56) as u8,
                is_logical: *entry & ENTRY_LOGICAL != 0,
                mode,
                vector: *entry as u8,
                is_level,
            });
        }
        None
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            INDEX_ID | INDEX_ARBITRATION => u32::from(self.id) << 24,
            INDEX_VERSION => VERSION,
            index => match self.entry(index) {
                Some((pin, shift)) => (self.entries[pin] >> shift) as u32,
                None => 0,
            },
        }
    }

    fn write_selected(&mut self, value: u32) {
        if self.select == INDEX_ID {
            self.id = (value >> 24) as u8 & 0xf;
        } else if let Some((pin, shift)) = self.entry(self.select) {
            let writable = ENTRY_WRITABLE & 0xffff_ffff << shift;
            let entry = &mut self.entries[pin];
            *entry = *entry & !writable | u64::from(value) << shift & writable;
            if *entry & ENTRY_LEVEL == 0 {
                // As the 82093AA does: Linux frees a stuck pin by a turn as an edge-triggered one.
                *entry &= !ENTRY_REMOTE_REQUEST;
            } else {
                self.edges &= !(1 << pin);
            }
        }
    }

    /// The pin and the half of its entry that a register holds.
    fn entry(&self, index: u8) -> Option<(usize, u32)> {
        let index = usize::from(index.checked_sub(INDEX_REDIRECTION)?);
        (index < 2 * IO_APIC_PINS).then_some((index / 2, 32 * (index as u32 % 2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(apic: &mut IoApic, pin: u32, low: u32, high: u32) {
        apic.write(SELECT, 0x10 + 2 * pin);
        apic.write(WINDOW, low);
        apic.write(SELECT, 0x11 + 2 * pin);
        apic.write(WINDOW, high);
    }

    fn low_half(apic: &mut IoApic, pin: u32) -> u32 {
        apic.write(SELECT, 0x10 + 2 * pin);
        apic.read(WINDOW)
    }

    #[test]
    fn section_3_2_2_version_and_number_of_pins() {
        let mut apic = IoApic::default();
        apic.write(SELECT, 1);
        assert_eq!(apic.read(WINDOW), 0x0017_0011);
    }

    #[test]
    fn section_3_2_4_an_edge_is_sent_once() {
        let mut apic = IoApic::default();
        program(&mut apic, 4, 0x34, 0);
        apic.set_level(4, true);
        let message = apic.next_message().unwrap();
        assert_eq!((message.vector, message.destination), (0x34, 0));
        assert!(!message.is_level);
        assert_eq!(apic.next_message(), None);
        apic.set_level(4, true);
        assert_eq!(apic.next_message(), None);
        apic.set_level(4, false);
        apic.set_level(4, true);
        assert!(apic.next_message().is_some());
    }

    #[test]
    fn section_3_2_4_edges_at_a_masked_pin_are_lost() {
        let mut apic = IoApic::default();
        program(&mut apic, 4, 0x1_0034, 0);
        apic.set_level(4, true);
        program(&mut apic, 4, 0x34, 0);
        assert_eq!(apic.next_message(), None);
    }

    #[test]
    fn section_3_2_4_a_level_is_sent_again_after_its_end_while_it_lasts() {
        let mut apic = IoApic::default();
        program(&mut apic, 16, 0x8041, 0x0300_0000);
        apic.set_level(16, true);
        let message = apic.next_message().unwrap();
        assert!(message.is_level);
        assert_eq!(message.destination, 3);
        assert_eq!(low_half(&mut apic, 16), 0xc041);
        assert_eq!(apic.next_message(), None);
        apic.end_of_interrupt(0x41);
        assert!(apic.next_message().is_some());
        apic.set_level(16, false);
        apic.end_of_interrupt(0x41);
        assert_eq!(apic.next_message(), None);
        assert_eq!(low_half(&mut apic, 16), 0x8041);
    }

    #[test]
    fn section_3_2_4_a_level_at_a_masked_pin_is_sent_when_it_is_unmasked() {
        let mut apic = IoApic::default();
        program(&mut apic, 16, 0x1_8041, 0);
        apic.set_level(16, true);
        assert_eq!(apic.next_message(), None);
        program(&mut apic, 16, 0x8041, 0);
        assert!(apic.next_message().is_some());
    }

    #[test]
    fn a_turn_as_an_edge_triggered_pin_forgets_the_remote_request() {
        let mut apic = IoApic::default();
        program(&mut apic, 16, 0x8041, 0);
        apic.set_level(16, true);
        assert!(apic.next_message().is_some());
        program(&mut apic, 16, 0x1_0041, 0);
        assert_eq!(low_half(&mut apic, 16), 0x1_0041);
        program(&mut apic, 16, 0x8041, 0);
        assert!(apic.next_message().is_some());
    }
}
