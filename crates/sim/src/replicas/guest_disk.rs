//! The disk as the simulated guest uses it: a log of numbers, a sector each, which it reads when it is
//! powered on, adds to, flushes, and looks at again.

use machine::input::{DiskStatus, InputError};
use machine::output::{DiskOperation, DiskRequest};
use serde::{Deserialize, Serialize};

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;
/// Sectors of the disk.
pub const SECTORS: u64 = 1536;
/// Sectors of the longest write.
const LONGEST_WRITE: u64 = 3;

/// A sector that holds this number.
fn sector(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(SECTOR_BYTES / 8)
}

/// The number in a sector; `None` if it is none of the guest's.
fn value(sector: &[u8]) -> Option<u64> {
    let value = u64::from_le_bytes(sector.get(..8)?.try_into().ok()?);
    sector
        .chunks(8)
        .all(|chunk| chunk == value.to_le_bytes())
        .then_some(value)
}

/// What the log on this disk holds.
pub fn log_on(disk: &[u8]) -> Vec<u64> {
    let values = disk.chunks(SECTOR_BYTES).map(value);
    values
        .map_while(|value| value.filter(|value| *value != 0))
        .collect()
}

/// What the guest tells of its disk with an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskNews {
    /// So many numbers are durable, it says; 0: none that it knows of.
    pub durable: u64,
    /// The numbers from this on that are, up to `durable`.
    pub from: u64,
    /// Those numbers.
    pub values: Vec<u64>,
    /// It read something else than it had written.
    pub is_wrong: bool,
    /// It was told of an error.
    pub was_told_of_error: bool,
}

/// The driver's state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GuestDisk {
    /// 0: there is no disk.
    sectors: u64,
    open: Vec<DiskRequest>,
    next_request: u64,
    /// What was there at power-on is known.
    is_read: bool,
    /// All numbers, in order; those of ended writes; those that an open flush covers; those that
    /// are durable; those that were told to be.
    log: Vec<u64>,
    ended: u64,
    flushing: Option<u64>,
    durable: u64,
    told: u64,
    is_wrong: bool,
    was_told_of_error: bool,
}

impl GuestDisk {
    /// At power-on.
    pub fn new(sectors: u64) -> GuestDisk {
        GuestDisk {
            sectors,
            ..GuestDisk::default()
        }
    }

    /// Requests that were not completed.
    pub fn open(&self) -> &[DiskRequest] {
        &self.open
    }

    /// How long it is; 0: there is none.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// What it wants now; `writes` more numbers; `random` is the guest's.
    pub fn wants(&mut self, random: u64, writes: bool) -> Vec<DiskRequest> {
        let mut wanted = Vec::new();
        if self.sectors == 0 || self.was_told_of_error {
            return wanted;
        }
        if !self.is_read {
            if self.open.is_empty() {
                let length = self.sectors as u32 * SECTOR_BYTES as u32;
                wanted.push(self.request(DiskOperation::Read { sector: 0, length }));
            }
            return wanted;
        }
        let first = self.log.len() as u64;
        let count = (1 + random % LONGEST_WRITE).min(self.sectors - first);
        if writes && count > 0 {
            let values = (0..count).map(|i| crate::random::mix(random ^ (first + i)) | 1);
            let values: Vec<u64> = values.collect();
            let data = values.iter().flat_map(|value| sector(*value)).collect();
            self.log.extend(values);
            let sector = first;
            wanted.push(self.request(DiskOperation::Write { sector, data }));
        }
        if self.flushing.is_none() && self.ended > self.durable {
            self.flushing = Some(self.ended);
            wanted.push(self.request(DiskOperation::Flush));
        }
        if random.is_multiple_of(5) && self.ended > 0 {
            let (sector, length) = ((random >> 8) % self.ended, SECTOR_BYTES as u32);
            wanted.push(self.request(DiskOperation::Read { sector, length }));
        }
        wanted
    }

    fn request(&mut self, operation: DiskOperation) -> DiskRequest {
        let request = DiskRequest {
            device: 0,
            request: self.next_request,
            operation,
        };
        self.next_request += 1;
        self.open.push(request.clone());
        request
    }

    /// A request has ended. True if the guest has something to tell.
    pub fn completed(
        &mut self,
        request: u64,
        status: DiskStatus,
        data: &[u8],
    ) -> Result<bool, InputError> {
        let position = self.open.iter().position(|open| open.request == request);
        let Some(position) = position else {
            return Err(InputError::UnknownDiskRequest { device: 0, request });
        };
        let operation = self.open.remove(position).operation;
        if status != DiskStatus::Ok {
            self.was_told_of_error = true;
            return Ok(true);
        }
        match operation {
            DiskOperation::Write { sector, data } => {
                let written = sector + (data.len() / SECTOR_BYTES) as u64;
                self.ended = self.ended.max(written);
                Ok(false)
            }
            DiskOperation::Flush => {
                self.durable = self.flushing.take().unwrap_or(self.durable);
                Ok(true)
            }
            DiskOperation::Read { .. } if !self.is_read => {
                self.log = log_on(data);
                self.ended = self.log.len() as u64;
                self.is_read = true;
                Ok(false)
            }
            DiskOperation::Read { sector, .. } => {
                self.is_wrong |= value(data) != self.log.get(sector as usize).copied();
                Ok(self.is_wrong)
            }
            DiskOperation::Zero { .. } => Ok(false),
        }
    }

    /// What it tells with its next output.
    pub fn news(&mut self) -> DiskNews {
        let from = std::mem::replace(&mut self.told, self.durable);
        DiskNews {
            durable: self.durable,
            from,
            values: self.log[from as usize..self.durable as usize].to_vec(),
            is_wrong: self.is_wrong,
            was_told_of_error: self.was_told_of_error,
        }
    }
}

impl DiskNews {
    /// As words of a frame.
    pub fn words(&self) -> Vec<u64> {
        let flags = u64::from(self.is_wrong) | u64::from(self.was_told_of_error) << 1;
        let head = [self.durable, self.from, flags];
        head.iter().chain(&self.values).copied().collect()
    }

    /// The reverse of [`DiskNews::words`].
    pub fn read(words: &[u64]) -> Option<DiskNews> {
        let [durable, from, flags, values @ ..] = words else {
            return None;
        };
        Some(DiskNews {
            durable: *durable,
            from: *from,
            values: values.to_vec(),
            is_wrong: flags & 1 != 0,
            was_told_of_error: flags & 2 != 0,
        })
    }
}
