//! PMP: physical memory protection (privileged specification, 3.7). 16 entries, grain 4 bytes.

use super::Privilege;
use serde::{Deserialize, Serialize};

/// Number of entries.
pub const ENTRIES: usize = 16;

const READ: u8 = 1;
const WRITE: u8 = 2;
const EXECUTE: u8 = 4;
const LOCKED: u8 = 0x80;
const OFF: u8 = 0;
const TOP_OF_RANGE: u8 = 1;
const NATURALLY_ALIGNED_FOUR: u8 = 2;

/// What an access wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Instruction fetch.
    Fetch,
    /// Load (and page-table walk).
    Load,
    /// Store or atomic.
    Store,
}

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Registers")]
pub struct PhysicalMemoryProtection {
    configuration: [u8; ENTRIES],
    address: [u64; ENTRIES],
    /// The entries that are on, by priority: computed from the registers at each write.
    #[serde(skip)]
    ranges: Vec<Range>,
}

/// The registers alone, as they are stored.
#[derive(Deserialize)]
struct Registers {
    configuration: [u8; ENTRIES],
    address: [u64; ENTRIES],
}

impl From<Registers> for PhysicalMemoryProtection {
    fn from(registers: Registers) -> PhysicalMemoryProtection {
        let mut pmp = PhysicalMemoryProtection {
            configuration: registers.configuration,
            address: registers.address,
            ranges: Vec::new(),
        };
        pmp.compute_ranges();
        pmp
    }
}

/// What an entry that is on covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    /// One past the last byte.
    last: u64,
    configuration: u8,
}

impl PhysicalMemoryProtection {
    /// `pmpcfg` register `index` (even in RV64).
    pub fn configuration(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.configuration[index * 4..index * 4 + 8]);
        u64::from_le_bytes(bytes)
    }

    /// Writes `pmpcfg` register `index`; locked entries keep their value.
    pub fn set_configuration(&mut self, index: usize, value: u64) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            let entry = &mut self.configuration[index * 4 + i];
            // W without R is reserved (WARL): the write bit is dropped then.
            let byte = if byte & (READ | WRITE) == WRITE {
                byte & !WRITE
            } else {
                byte
            };
            if *entry & LOCKED == 0 {
                *entry = byte & 0x9f;
            }
        }
        self.compute_ranges();
    }

    /// `pmpaddr` register `index`.
    pub fn address(&self, index: usize) -> u64 {
        self.address[index]
    }

    /// Writes `pmpaddr` register `index` (54 bits).
    pub fn set_address(&mut self, index: usize, value: u64) {
        let next = self.configuration.get(index + 1).copied().unwrap_or(0);
        let next_locks = next & LOCKED != 0 && mode(next) == TOP_OF_RANGE;
        if self.configuration[index] & LOCKED == 0 && !next_locks {
            self.address[index] = value & ((1 << 54) - 1);
        }
        self.compute_ranges();
    }

    fn compute_ranges(&mut self) {
        self.ranges = (0..ENTRIES)
            .filter_map(|index| {
                let (first, last) = self.range(index)?;
                Some(Range {
                    first,
                    last,
                    configuration: self.configuration[index],
                })
            })
            .collect();
    }

    /// First and one past the last byte of an entry that is on.
    fn range(&self, index: usize) -> Option<(u64, u64)> {
        let address = self.address[index];
        match mode(self.configuration[index]) {
            OFF => None,
            TOP_OF_RANGE => {
                let bottom = if index == 0 {
                    0
                } else {
                    self.address[index - 1]
                };
                (bottom < address).then_some((bottom << 2, address << 2)) // else it matches nothing
            }
            NATURALLY_ALIGNED_FOUR => Some((address << 2, (address << 2) + 4)),
            _ => {
                let ones = address.trailing_ones().min(54);
                let length = 1u64 << (ones + 3);
                let base = (address & !((1u64 << ones) - 1)) << 2;
                Some((base, base.saturating_add(length)))
            }
        }
    }

    /// Whether all of `length` bytes from `address` on may be accessed.
    pub fn allows(&self, address: u64, length: u64, access: Access, privilege: Privilege) -> bool {
        let end = address.saturating_add(length);
        for &Range {
            first,
            last,
            configuration,
        } in &self.ranges
        {
            if address >= last || end <= first {
                continue;
            }
            if address < first || end > last {
                return false; // the lowest matching entry must match every byte
            }
            if privilege == Privilege::Machine && configuration & LOCKED == 0 {
                return true;
            }
            let wanted = match access {
                Access::Fetch => EXECUTE,
                Access::Load => READ,
                Access::Store => WRITE,
            };
            return configuration & wanted != 0;
        }
        privilege == Privilege::Machine
    }

    /// Whether no entry begins or ends inside the page at `page`: then one answer holds for all of it.
    pub fn is_uniform(&self, page: u64) -> bool {
        let end = page + machine::memory::PAGE_SIZE;
        let inside = |edge: u64| edge > page && edge < end;
        self.ranges
            .iter()
            .all(|range| !inside(range.first) && !inside(range.last))
    }
}

fn mode(configuration: u8) -> u8 {
    configuration >> 3 & 3
}
