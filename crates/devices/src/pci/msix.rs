//! Interrupts by message: the table of MSI-X and its pending bits (PCI 3.0, section 6.8.2).

use serde::{Deserialize, Serialize};

/// Bytes of a table entry.
const ENTRY_BYTES: u64 = 16;
const ENTRY_ADDRESS_LOW: u64 = 0;
const ENTRY_ADDRESS_HIGH: u64 = 4;
const ENTRY_DATA: u64 = 8;
const ENTRY_CONTROL: u64 = 12;
const CONTROL_MASKED: u32 = 1;

/// Offset of the pending bits behind the table's beginning.
pub const PENDING: u64 = 0x800;
/// Vectors at most.
pub const MAX_VECTORS: u16 = 64;

/// A memory write that is an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    address: u64,
    data: u32,
    is_masked: bool,
    is_pending: bool,
}

/// The vectors of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors(Vec<Entry>);

impl Vectors {
    /// So many vectors as after reset: masked.
    pub fn new(count: u16) -> Vectors {
        assert!(count <= MAX_VECTORS);
        let entry = Entry {
            address: 0,
            data: 0,
            is_masked: true,
            is_pending: false,
        };
        Vectors(vec![entry; count.into()])
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.0.len() as u16
    }

    /// The function wants to interrupt by a vector. One that there is not interrupts nobody.
    pub fn signal(&mut self, vector: u16) {
        if let Some(entry) = self.0.get_mut(usize::from(vector)) {
            entry.is_pending = true;
        }
    }

    /// The next message to be sent, of the lowest vector that is pending and not masked.
    pub fn next_message(&mut self) -> Option<Message> {
        let mut entries = self.0.iter_mut();
        let entry = entries.find(|entry| entry.is_pending && !entry.is_masked)?;
        entry.is_pending = false;
        Some(Message {
            address: entry.address,
            data: entry.data,
        })
    }

    /// Reads 4 or 8 bytes of table or pending bits; other sizes read as zero.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let low = u64::from(self.read_word(offset));
        match size {
            4 => low,
            8 => low | u64::from(self.read_word(offset.wrapping_add(4))) << 32,
            _ => 0,
        }
    }

    /// Writes 4 or 8 bytes of the table; other sizes are ignored, and so are writes of pending bits.
    pub fn write(&mut self, offset: u64, size: u8, value: u64) {
        match size {
            4 => self.write_word(offset, value as u32),
            8 => {
                self.write_word(offset, value as u32);
                self.write_word(offset.wrapping_add(4), (value >> 32) as u32);
            }
            _ => {}
        }
    }

    fn read_word(&self, offset: u64) -> u32 {
        match offset {
            PENDING => self.pending(0),
            _ if offset == PENDING + 4 => self.pending(32),
            _ => self.read_table(offset),
        }
    }

    /// The pending bits of 32 vectors from `first` on.
    fn pending(&self, first: usize) -> u32 {
        let entries = self.0.iter().skip(first).take(32);
        entries.enumerate().fold(0, |bits, (index, entry)| {
            bits | u32::from(entry.is_pending) << index
        })
    }

    fn read_table(&self, offset: u64) -> u32 {
        let Some(entry) = self.0.get((offset / ENTRY_BYTES) as usize) else {
            return 0;
        };
        match offset % ENTRY_BYTES {
            ENTRY_ADDRESS_LOW => entry.address as u32,
            ENTRY_ADDRESS_HIGH => (entry.address >> 32) as u32,
            ENTRY_DATA => entry.data,
            ENTRY_CONTROL => u32::from(entry.is_masked),
            _ => 0,
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let Some(entry) = self.0.get_mut((offset / ENTRY_BYTES) as usize) else {
            return;
        };
        match offset % ENTRY_BYTES {
            // A message is of 32 bits, at an address of that alignment.
            ENTRY_ADDRESS_LOW => entry.address = entry.address >> 32 << 32 | u64::from(value & !3),
            ENTRY_ADDRESS_HIGH => {
                entry.address = entry.address & 0xffff_ffff | u64::from(value) << 32;
            }
            ENTRY_DATA => entry.data = value,
            ENTRY_CONTROL => entry.is_masked = value & CONTROL_MASKED != 0,
            _ => {}
        }
    }
}
