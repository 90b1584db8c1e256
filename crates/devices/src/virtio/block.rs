//! The block device (virtio 1.2, section 5.2). A request becomes an output and ends with an input.
//!
//! Open requests keep their data, so that a replica that goes live repeats exactly what was asked,
//! whatever the guest did to its buffers since. How much may be open at once is bounded; what is
//! beyond waits in the queue.

use super::Session;
use super::queue::{self, Chain, QueueError};
use machine::input::DiskStatus;
use machine::output::{DiskOperation, DiskRequest, Output};
use serde::{Deserialize, Serialize};

/// The greatest size of requestq.
pub const QUEUE_SIZES: [u16; 1] = [128];
/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
/// Data of open requests at which no further one is begun, in bytes.
pub const MAX_OPEN_BYTES: u64 = 32 << 20;
/// Bytes that a read has at most, whatever the guest asks for: what a chain has room for besides
/// header and status.
pub const MAX_READ_BYTES: u64 = (CHAIN_LIMIT - HEADER_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
/// Open requests at which no further one is begun.
pub const MAX_OPEN_REQUESTS: usize = 256;
/// Sectors that one discard or write-zeroes request covers at most.
pub const MAX_ZERO_SECTORS: u32 = 1 << 21;

const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEGMENT_MAX: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

const STATUS_OK: u8 = 0;
const STATUS_IO_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

const HEADER_BYTES: u64 = 16;
const ZERO_SEGMENT_BYTES: u64 = 16;
const ZERO_FLAG_UNMAP: u32 = 1;
const ID_BYTES: usize = 20;

/// Data segments of a request, and the length of each: together they stay below `CHAIN_LIMIT`.
const SEGMENT_MAX: u32 = 126;
const SEGMENT_BYTES_MAX: u32 = 64 << 10;
const CHAIN_LIMIT: u64 = 8 << 20;

/// A request without a completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OpenRequest {
    request: u64,
    operation: DiskOperation,
    /// Where the answer goes; none if the driver reset the device meanwhile.
    chain: Option<Chain>,
}

impl OpenRequest {
    fn bytes(&self) -> u64 {
        match &self.operation {
            DiskOperation::Read { length, .. } => u64::from(*length),
            DiskOperation::Write { data, .. } => data.len() as u64,
            DiskOperation::Flush | DiskOperation::Zero { .. } => 0,
        }
    }
}

/// Why a completion cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompletionError {
    /// No request of this number is open.
    Unknown,
    /// The data is not as long as what the request reads.
    Length {
        /// Bytes that the request reads.
        expected: u64,
    },
}

/// A disk's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Index among the machine's disks.
    device: u8,
    /// Capacity.
    sectors: u64,
    read_only: bool,
    serial: String,
    next_request: u64,
    /// Oldest first.
    open: Vec<OpenRequest>,
}

/// What a request turned out to be.
enum Parsed {
    /// Something that the host has to do.
    Operation(DiskOperation),
    /// Answered at once: bytes for the data part, and the status.
    Answer(Vec<u8>, u8),
}

impl Block {
    /// The disk of index `device`, of `sectors` sectors of 512 bytes. The first 20 bytes of
    /// `serial` are its identity.
    pub fn new(device: u8, sectors: u64, read_only: bool, serial: &str) -> Block {
        Block {
            device,
            sectors,
            read_only,
            serial: serial.to_owned(),
            next_request: 0,
            open: Vec::new(),
        }
    }

    /// The features of the device's own.
    pub fn features(&self) -> u64 {
        let access = if self.read_only {
            FEATURE_READ_ONLY
        } else {
            FEATURE_DISCARD | FEATURE_WRITE_ZEROES
        };
        FEATURE_SIZE_MAX | FEATURE_SEGMENT_MAX | FEATURE_BLOCK_SIZE | FEATURE_FLUSH | access
    }

    /// `virtio_blk_config` (section 5.2.4).
    pub fn configuration(&self) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.sectors.to_le_bytes());
        put(8, &SEGMENT_BYTES_MAX.to_le_bytes());
        put(12, &SEGMENT_MAX.to_le_bytes());
        put(20, &(SECTOR_BYTES as u32).to_le_bytes());
        if !self.read_only {
            put(36, &MAX_ZERO_SECTORS.to_le_bytes());
            put(40, &1u32.to_le_bytes()); // max_discard_seg
            put(44, &1u32.to_le_bytes()); // discard_sector_alignment
            put(48, &MAX_ZERO_SECTORS.to_le_bytes());
            put(52, &1u32.to_le_bytes()); // max_write_zeroes_seg
            put(56, &[1]); // write_zeroes_may_unmap
        }
        bytes
    }

    /// The requests without completion, oldest first.
    pub fn open_requests(&self) -> impl Iterator<Item = DiskRequest> + '_ {
        self.open.iter().map(|open| DiskRequest {
            device: self.device,
            request: open.request,
            operation: open.operation.clone(),
        })
    }

    /// The requests stay open: the host carries them out, but nobody wants to know.
    pub(super) fn reset(&mut self) {
        for open in &mut self.open {
            open.chain = None;
        }
    }

    pub(super) fn process(&mut self, session: &mut Session) -> Result<(), QueueError> {
        if !session.usable(0) {
            return Ok(());
        }
        // Bounded for the reason given in the network device.
        for _ in 0..session.queues[0].size() {
            let bytes: u64 = self.open.iter().map(OpenRequest::bytes).sum();
            if bytes >= MAX_OPEN_BYTES || self.open.len() >= MAX_OPEN_REQUESTS {
                break; // a completion goes on from here
            }
            let memory = &mut *session.context.memory;
            let Some(chain) = session.queues[0].pop(memory, CHAIN_LIMIT)? else {
                break;
            };
            if queue::total_length(&chain.readable) < HEADER_BYTES || chain.writable.is_empty() {
                return Err(QueueError::Incomplete { head: chain.head });
            }
            let header = queue::gather(&chain.readable, memory, 0, HEADER_BYTES)?;
            match self.parse(&header, &chain, session)? {
                Parsed::Operation(operation) => self.begin(operation, chain, session),
                Parsed::Answer(data, status) => answer(&chain, &data, status, session)?,
            }
        }
        session.queues[0].request_notification(session.context.memory)
    }

    /// Whether [`complete`](Block::complete) would take this completion.
    pub(crate) fn check_completion(
        &self,
        request: u64,
        status: DiskStatus,
        data: &[u8],
    ) -> Result<(), CompletionError> {
        let open = self.open.iter().find(|open| open.request == request);
        let expected = match (&open.ok_or(CompletionError::Unknown)?.operation, status) {
            (DiskOperation::Read { length, .. }, DiskStatus::Ok) => u64::from(*length),
            _ => 0,
        };
        if data.len() as u64 == expected {
            Ok(())
        } else {
            Err(CompletionError::Length { expected })
        }
    }

    /// The host carried a request out. The caller has checked the completion.
    pub(super) fn complete(
        &mut self,
        request: u64,
        status: DiskStatus,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), QueueError> {
        let Some(index) = self.open.iter().position(|open| open.request == request) else {
            return Ok(());
        };
        let open = self.open.remove(index);
        if let Some(chain) = open.chain
            && session.usable(0)
        {
            let status = match status {
                DiskStatus::Ok => STATUS_OK,
                DiskStatus::IoError => STATUS_IO_ERROR,
                DiskStatus::Unsupported => STATUS_UNSUPPORTED,
            };
            answer(&chain, data, status, session)?;
        }
        self.process(session)
    }

    fn begin(&mut self, operation: DiskOperation, chain: Chain, session: &mut Session) {
        let request = self.next_request;
        self.next_request += 1;
        let output = DiskRequest {
            device: self.device,
            request,
            operation: operation.clone(),
        };
        session.context.outputs.other(Output::Disk(output));
        self.open.push(OpenRequest {
            request,
            operation,
            chain: Some(chain),
        });
    }

    /// What the request asks for (section 5.2.6).
    fn parse(&self, header: &[u8], chain: &Chain, session: &Session) -> Result<Parsed, QueueError> {
        let field = |at: usize| -> [u8; 4] { header[at..at + 4].try_into().unwrap_or_default() };
        let sector = u64::from(u32::from_le_bytes(field(8)))
            | u64::from(u32::from_le_bytes(field(12))) << 32;
        let read_length = queue::total_length(&chain.writable) - 1;
        let write_length = queue::total_length(&chain.readable) - HEADER_BYTES;
        let failed = |status| Ok(Parsed::Answer(Vec::new(), status));
        match u32::from_le_bytes(field(0)) {
            TYPE_IN if self.holds(sector, read_length) => {
                // Below CHAIN_LIMIT, which the queue has checked.
                let length = read_length as u32;
                Ok(Parsed::Operation(DiskOperation::Read { sector, length }))
            }
            TYPE_OUT if !self.read_only && self.holds(sector, write_length) => {
                let memory = &*session.context.memory;
                let data = queue::gather(&chain.readable, memory, HEADER_BYTES, write_length)?;
                Ok(Parsed::Operation(DiskOperation::Write { sector, data }))
            }
            TYPE_FLUSH => Ok(Parsed::Operation(DiskOperation::Flush)),
            TYPE_GET_ID => {
                let mut id = self.serial.as_bytes().to_vec();
                id.resize(ID_BYTES, 0);
                id.truncate(read_length.min(ID_BYTES as u64) as usize);
                Ok(Parsed::Answer(id, STATUS_OK))
            }
            kind @ (TYPE_DISCARD | TYPE_WRITE_ZEROES) if !self.read_only => {
                self.parse_zero(kind, chain, session)
            }
            TYPE_IN | TYPE_OUT | TYPE_DISCARD | TYPE_WRITE_ZEROES => failed(STATUS_IO_ERROR),
            _ => failed(STATUS_UNSUPPORTED),
        }
    }

    /// One `virtio_blk_discard_write_zeroes`, as many as the configuration allows.
    fn parse_zero(
        &self,
        kind: u32,
        chain: &Chain,
        session: &Session,
    ) -> Result<Parsed, QueueError> {
        let memory = &*session.context.memory;
        let segment = queue::gather(
            &chain.readable,
            memory,
            HEADER_BYTES,
            ZERO_SEGMENT_BYTES + 1,
        )?;
        let Ok(segment) = <[u8; ZERO_SEGMENT_BYTES as usize]>::try_from(segment) else {
            return Ok(Parsed::Answer(Vec::new(), STATUS_IO_ERROR));
        };
        let word = |at: usize| {
            u32::from_le_bytes([
                segment[at],
                segment[at + 1],
                segment[at + 2],
                segment[at + 3],
            ])
        };
        let sector = u64::from(word(0)) | u64::from(word(4)) << 32;
        let (sectors, flags) = (word(8), word(12));
        let allowed = if kind == TYPE_WRITE_ZEROES {
            ZERO_FLAG_UNMAP
        } else {
            0
        };
        if flags & !allowed != 0 {
            return Ok(Parsed::Answer(Vec::new(), STATUS_UNSUPPORTED));
        }
        let length = u64::from(sectors) * SECTOR_BYTES;
        if sectors > MAX_ZERO_SECTORS || !self.holds(sector, length) {
            return Ok(Parsed::Answer(Vec::new(), STATUS_IO_ERROR));
        }
        Ok(Parsed::Operation(DiskOperation::Zero {
            sector,
            sectors: u64::from(sectors),
        }))
    }

    /// Whether a transfer is of whole sectors, at least one, all on the disk.
    fn holds(&self, sector: u64, length: u64) -> bool {
        length != 0
            && length.is_multiple_of(SECTOR_BYTES)
            && sector <= self.sectors
            && length / SECTOR_BYTES <= self.sectors - sector
    }
}

/// Writes data and status of an ended request into its chain and returns it.
fn answer(chain: &Chain, data: &[u8], status: u8, session: &mut Session) -> Result<(), QueueError> {
    let memory = &mut *session.context.memory;
    queue::scatter(&chain.writable, memory, 0, data)?;
    let last = queue::total_length(&chain.writable).saturating_sub(1);
    queue::scatter(&chain.writable, memory, last, &[status])?;
    // What lies between the data and the status is not written; it does not count (2.7.8.2).
    let contiguous = data.len() as u64 == last;
    let written = data.len() as u32 + u32::from(contiguous);
    session.queues[0].push(memory, chain.head, written)
}

#[cfg(test)]
mod tests;
