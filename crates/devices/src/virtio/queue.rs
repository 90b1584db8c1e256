//! Split virtqueues (virtio 1.2, section 2.7), the device's side.

use super::{FEATURE_EVENT_INDEX, FEATURE_INDIRECT_DESCRIPTORS};
use machine::memory::{GuestRam, OutsideRam};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Descriptors of an indirect table at most.
pub const MAX_INDIRECT_DESCRIPTORS: u32 = 1024;

const DESCRIPTOR_BYTES: u64 = 16;
const DESCRIPTOR_NEXT: u16 = 1;
const DESCRIPTOR_WRITE: u16 = 2;
const DESCRIPTOR_INDIRECT: u16 = 4;
const AVAILABLE_NO_INTERRUPT: u16 = 1;

/// What a driver did wrong. The device needs a reset after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum QueueError {
    /// The queue size is 0, not a power of two, or above the device's.
    #[error("queue size {size} is not a power of two from 1 to {max}")]
    Size {
        /// What the driver set.
        size: u16,
        /// QueueNumMax.
        max: u16,
    },
    /// A ring or a buffer is not in RAM, or a ring is not aligned.
    #[error("{length} bytes at {address:#x} are not RAM, or not aligned")]
    Address {
        /// Guest physical address.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// The available index is ahead of the device by more than the queue size.
    #[error("available index {available} is too far ahead of {next}")]
    AvailableIndex {
        /// The driver's index.
        available: u16,
        /// The device's.
        next: u16,
    },
    /// A descriptor number is not below the size of its table.
    #[error("descriptor {index} is outside the table of {size}")]
    DescriptorIndex {
        /// The number.
        index: u16,
        /// Size of the table.
        size: u32,
    },
    /// A chain has more descriptors than its table: it is a loop.
    #[error("the descriptor chain from {head} is a loop")]
    Loop {
        /// First descriptor.
        head: u16,
    },
    /// A device-readable descriptor follows a device-writable one (section 2.7.4.2).
    #[error("the chain from {head} has a readable descriptor after a writable one")]
    Order {
        /// First descriptor.
        head: u16,
    },
    /// An indirect descriptor was not negotiated, is nested, continued, or of a bad length.
    #[error("the chain from {head} has a bad indirect descriptor")]
    Indirect {
        /// First descriptor.
        head: u16,
    },
    /// A chain holds more bytes than any request of the device needs.
    #[error("the chain from {head} is longer than {limit} bytes")]
    TooLong {
        /// First descriptor.
        head: u16,
        /// The limit.
        limit: u64,
    },
    /// A chain lacks a part that the device's specification demands.
    #[error("the chain from {head} lacks its header, data or status")]
    Incomplete {
        /// First descriptor.
        head: u16,
    },
}

impl From<OutsideRam> for QueueError {
    fn from(outside: OutsideRam) -> QueueError {
        QueueError::Address {
            address: outside.address,
            length: outside.length,
        }
    }
}

/// A piece of a buffer in guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Guest physical address.
    pub address: u64,
    /// Bytes, at least one.
    pub length: u32,
}

/// The total length of segments in bytes.
pub fn total_length(segments: &[Segment]) -> u64 {
    segments.iter().map(|s| u64::from(s.length)).sum()
}

/// Reads `length` bytes from byte `start` of the segments on; fewer if they end before.
pub fn gather(
    segments: &[Segment],
    memory: &dyn GuestRam,
    start: u64,
    length: u64,
) -> Result<Vec<u8>, QueueError> {
    let available = total_length(segments).saturating_sub(start);
    let length = length.min(available);
    let mut bytes = Vec::with_capacity(length as usize);
    for_each_piece(segments, start, length, |address, range| {
        bytes.extend_from_slice(memory.slice(address, range.len() as u64)?);
        Ok(())
    })?;
    Ok(bytes)
}

/// Writes `data` from byte `start` of the segments on; what does not fit is left out.
pub fn scatter(
    segments: &[Segment],
    memory: &mut dyn GuestRam,
    start: u64,
    data: &[u8],
) -> Result<(), QueueError> {
    for_each_piece(segments, start, data.len() as u64, |address, range| {
        Ok(memory.write(address, &data[range])?)
    })
}

/// Calls `f` with the address of each piece of the bytes `start..start + length` of the segments,
/// and its place among these bytes.
fn for_each_piece(
    segments: &[Segment],
    start: u64,
    length: u64,
    mut f: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let mut skip = start;
    let mut done = 0;
    for segment in segments {
        let segment_length = u64::from(segment.length);
        if skip >= segment_length {
            skip -= segment_length;
            continue;
        }
        let take = (segment_length - skip).min(length - done);
        if take == 0 {
            break;
        }
        f(
            segment.address + skip,
            done as usize..(done + take) as usize,
        )?;
        done += take;
        skip = 0;
    }
    Ok(())
}

/// A descriptor chain that the driver made available.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Number of its first descriptor.
    pub head: u16,
    /// What the device reads.
    pub readable: Vec<Segment>,
    /// What the device writes.
    pub writable: Vec<Segment>,
}

/// A queue: where its parts are, and how far the device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    max_size: u16,
    pub(super) size: u16,
    ready: bool,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    event_index: bool,
    indirect: bool,
    /// Index of the next available entry.
    next_available: u16,
    /// Index of the next used entry.
    next_used: u16,
    /// `next_used` when the device last decided whether to interrupt.
    signalled_used: u16,
}

impl Queue {
    /// A queue that is not ready, of `max_size` entries unless the driver makes it smaller.
    pub fn new(max_size: u16) -> Queue {
        Queue {
            max_size,
            size: max_size,
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
            event_index: false,
            indirect: false,
            next_available: 0,
            next_used: 0,
            signalled_used: 0,
        }
    }

    /// QueueNumMax.
    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    /// Entries, as the driver set them.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// QueueReady.
    pub fn is_ready(&self) -> bool {
        self.ready && self.size != 0
    }

    /// The driver takes the queue back.
    pub fn disable(&mut self) {
        *self = Queue {
            size: self.size,
            descriptors: self.descriptors,
            available: self.available,
            used: self.used,
            ..Queue::new(self.max_size)
        };
    }

    /// The driver says that the queue is set up: checks it and begins at its start.
    pub fn enable(&mut self, features: u64, memory: &dyn GuestRam) -> Result<(), QueueError> {
        self.disable();
        if !self.size.is_power_of_two() || self.size > self.max_size {
            return Err(QueueError::Size {
                size: self.size,
                max: self.max_size,
            });
        }
        let size = u64::from(self.size);
        // The rings' sizes with the event index that follows them (sections 2.7.6 and 2.7.8).
        for (address, length, alignment) in [
            (self.descriptors, DESCRIPTOR_BYTES * size, 16),
            (self.available, 6 + 2 * size, 2),
            (self.used, 6 + 8 * size, 4),
        ] {
            if address % alignment != 0 {
                return Err(QueueError::Address { address, length });
            }
            memory.slice(address, length)?;
        }
        self.event_index = features & FEATURE_EVENT_INDEX != 0;
        self.indirect = features & FEATURE_INDIRECT_DESCRIPTORS != 0;
        self.ready = true;
        Ok(())
    }

    /// Takes the next available chain, whose bytes must not be more than `limit`.
    pub fn pop(&mut self, memory: &dyn GuestRam, limit: u64) -> Result<Option<Chain>, QueueError> {
        let available = u16::from_le_bytes(memory.read_array(self.available + 2)?);
        let ahead = available.wrapping_sub(self.next_available);
        if ahead > self.size {
            return Err(QueueError::AvailableIndex {
                available,
                next: self.next_available,
            });
        }
        if ahead == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_available % self.size);
        let head = u16::from_le_bytes(memory.read_array(self.available + 4 + 2 * slot)?);
        let chain = self.chain(head, limit, memory)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Gives the last `chains` popped chains back: they are available again.
    pub fn unpop(&mut self, chains: u16) {
        self.next_available = self.next_available.wrapping_sub(chains);
    }

    /// Returns a chain to the driver, `written` bytes of whose writable part were written.
    pub fn push(
        &mut self,
        memory: &mut dyn GuestRam,
        head: u16,
        written: u32,
    ) -> Result<(), QueueError> {
        let slot = u64::from(self.next_used % self.size);
        let mut element = [0; 8];
        element[..4].copy_from_slice(&u32::from(head).to_le_bytes());
        element[4..].copy_from_slice(&written.to_le_bytes());
        memory.write(self.used + 4 + 8 * slot, &element)?;
        self.next_used = self.next_used.wrapping_add(1);
        memory.write(self.used + 2, &self.next_used.to_le_bytes())?;
        Ok(())
    }

    /// Asks for a notification when the driver makes the next chain available (section 2.7.10).
    pub fn request_notification(&mut self, memory: &mut dyn GuestRam) -> Result<(), QueueError> {
        if self.event_index {
            let event = self.used + 4 + 8 * u64::from(self.size);
            memory.write(event, &self.next_available.to_le_bytes())?;
        }
        Ok(())
    }

    /// Whether the driver is to be interrupted for what was pushed since the last call
    /// (section 2.7.7).
    pub fn take_interrupt(&mut self, memory: &dyn GuestRam) -> Result<bool, QueueError> {
        let (old, new) = (self.signalled_used, self.next_used);
        if old == new || !self.ready {
            return Ok(false);
        }
        self.signalled_used = new;
        if self.event_index {
            let event = self.available + 4 + 2 * u64::from(self.size);
            let event = u16::from_le_bytes(memory.read_array(event)?);
            Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            let flags = u16::from_le_bytes(memory.read_array(self.available)?);
            Ok(flags & AVAILABLE_NO_INTERRUPT == 0)
        }
    }

    /// Follows the chain from descriptor `head`.
    fn chain(&self, head: u16, limit: u64, memory: &dyn GuestRam) -> Result<Chain, QueueError> {
        let mut walk = Walk {
            chain: Chain {
                head,
                readable: vec![],
                writable: vec![],
            },
            limit,
        };
        let table = (self.descriptors, u32::from(self.size));
        let indirect = walk.follow(table, head, self.indirect, memory)?;
        if let Some(table) = indirect {
            walk.follow(table, 0, false, memory)?;
        }
        Ok(walk.chain)
    }
}

/// A chain that is being put together, and how many more bytes it may have.
struct Walk {
    chain: Chain,
    limit: u64,
}

/// Address and number of descriptors of a descriptor table.
type Table = (u64, u32);

impl Walk {
    /// Follows a table's descriptors from `first` on. Ends at the last one, or at an indirect one,
    /// whose table it gives back (section 2.7.5.3: nothing may follow it).
    fn follow(
        &mut self,
        (table, size): Table,
        first: u16,
        allow_indirect: bool,
        memory: &dyn GuestRam,
    ) -> Result<Option<Table>, QueueError> {
        let head = self.chain.head;
        let mut index = first;
        for _ in 0..size {
            if u32::from(index) >= size {
                return Err(QueueError::DescriptorIndex { index, size });
            }
            let at = table.wrapping_add(DESCRIPTOR_BYTES * u64::from(index));
            let descriptor = Descriptor::read(memory, at)?;
            if descriptor.flags & DESCRIPTOR_INDIRECT != 0 {
                let size = descriptor.length / DESCRIPTOR_BYTES as u32;
                let whole = descriptor.length % DESCRIPTOR_BYTES as u32 == 0;
                let last = descriptor.flags & DESCRIPTOR_NEXT == 0;
                if !allow_indirect
                    || !whole
                    || !last
                    || size == 0
                    || size > MAX_INDIRECT_DESCRIPTORS
                {
                    return Err(QueueError::Indirect { head });
                }
                return Ok(Some((descriptor.address, size)));
            }
            self.add(&descriptor, memory)?;
            if descriptor.flags & DESCRIPTOR_NEXT == 0 {
                return Ok(None);
            }
            index = descriptor.next;
        }
        Err(QueueError::Loop { head })
    }

    fn add(&mut self, descriptor: &Descriptor, memory: &dyn GuestRam) -> Result<(), QueueError> {
        let Descriptor {
            address,
            length,
            flags,
            ..
        } = *descriptor;
        let head = self.chain.head;
        if length == 0 {
            return Ok(());
        }
        memory.slice(address, u64::from(length))?;
        let Some(rest) = self.limit.checked_sub(u64::from(length)) else {
            let held = total_length(&self.chain.readable) + total_length(&self.chain.writable);
            return Err(QueueError::TooLong {
                head,
                limit: self.limit + held,
            });
        };
        self.limit = rest;
        let segment = Segment { address, length };
        if flags & DESCRIPTOR_WRITE != 0 {
            self.chain.writable.push(segment);
        } else if self.chain.writable.is_empty() {
            self.chain.readable.push(segment);
        } else {
            return Err(QueueError::Order { head });
        }
        Ok(())
    }
}

/// A descriptor (section 2.7.5).
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn read(memory: &dyn GuestRam, address: u64) -> Result<Descriptor, QueueError> {
        Ok(Descriptor {
            address: u64::from_le_bytes(memory.read_array(address)?),
            length: u32::from_le_bytes(memory.read_array(address.wrapping_add(8))?),
            flags: u16::from_le_bytes(memory.read_array(address.wrapping_add(12))?),
            next: u16::from_le_bytes(memory.read_array(address.wrapping_add(14))?),
        })
    }
}

#[cfg(test)]
mod tests;
