//! The network device (virtio 1.2, section 5.1): one pair of queues, no offloads.
//!
//! Checksum and segmentation offloads are not offered: whoever carries the frames would have to
//! do the work, and every replica of it the same way.

use super::queue::{self, Chain, QueueError};
use super::{FEATURE_VERSION_1, Session};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_MERGEABLE_BUFFERS: u64 = 1 << 15;
const FEATURE_STATUS: u64 = 1 << 16;
/// The features of the device's own.
pub const FEATURES: u64 = FEATURE_MAC | FEATURE_MERGEABLE_BUFFERS | FEATURE_STATUS;

/// The greatest sizes of receiveq and transmitq.
pub const QUEUE_SIZES: [u16; 2] = [256, 256];
/// Frames that wait for a buffer at most.
pub const MAX_WAITING_FRAMES: usize = 256;
/// Bytes of frames that wait for a buffer at most.
pub const MAX_WAITING_BYTES: usize = 1 << 20;
/// Shortest and longest frame (without FCS) that the device carries; others are dropped.
pub const FRAME_BYTES: std::ops::RangeInclusive<usize> = 14..=65_550;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// `virtio_net_hdr` with `num_buffers` (section 5.1.6).
const HEADER_BYTES: u64 = 12;
/// The same without `num_buffers`: for drivers that took neither version 1 nor mergeable buffers
/// (section 5.1.6.1).
const LEGACY_HEADER_BYTES: u64 = 10;
const STATUS_LINK_UP: u16 = 1;
const CHAIN_LIMIT: u64 = 1 << 20;

/// A network device's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Index among the machine's network devices.
    device: u8,
    mac: [u8; 6],
    /// Frames from outside that found no receive buffer yet.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: u64,
}

impl Network {
    /// The network device of index `device`.
    pub fn new(device: u8, mac: [u8; 6]) -> Network {
        Network {
            device,
            mac,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// `virtio_net_config` (section 5.1.4).
    pub fn configuration(&self) -> Vec<u8> {
        let mut bytes = self.mac.to_vec();
        bytes.extend(STATUS_LINK_UP.to_le_bytes());
        bytes
    }

    pub(super) fn reset(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    pub(super) fn process(
        &mut self,
        queue: usize,
        session: &mut Session,
    ) -> Result<(), QueueError> {
        match queue {
            RECEIVE => self.deliver(session),
            TRANSMIT => self.transmit(session),
            _ => Ok(()),
        }
    }

    /// A frame from outside. Dropped where a real interface drops it: while nobody drives the
    /// device, when the queue is full, or when it is no frame.
    pub(super) fn receive(
        &mut self,
        frame: &[u8],
        session: &mut Session,
    ) -> Result<(), QueueError> {
        let fits = self.waiting.len() < MAX_WAITING_FRAMES
            && self.waiting_bytes as usize + frame.len() <= MAX_WAITING_BYTES;
        if !session.usable(RECEIVE) || !FRAME_BYTES.contains(&frame.len()) || !fits {
            return Ok(());
        }
        self.waiting_bytes += frame.len() as u64;
        self.waiting.push_back(frame.to_vec());
        self.deliver(session)
    }

    /// Puts waiting frames into receive buffers, as far as there are any (section 5.1.6.4).
    fn deliver(&mut self, session: &mut Session) -> Result<(), QueueError> {
        if !session.usable(RECEIVE) {
            return Ok(());
        }
        while let Some(frame) = self.waiting.front() {
            match Self::place(frame, session)? {
                Placement::NoBuffer => break,
                Placement::Placed | Placement::NeverFits => {
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(frame.len() as u64);
                    self.waiting.pop_front();
                }
            }
        }
        session.queues[RECEIVE].request_notification(session.context.memory)
    }

    /// Puts one frame into as many buffers as it needs.
    fn place(frame: &[u8], session: &mut Session) -> Result<Placement, QueueError> {
        let mergeable = session.features & FEATURE_MERGEABLE_BUFFERS != 0;
        let queue = &mut session.queues[RECEIVE];
        let memory = &mut *session.context.memory;
        let header = header_bytes(session.features);
        let needed = header + frame.len() as u64;
        let mut chains: Vec<Chain> = Vec::new();
        let mut capacity = 0;
        while capacity < needed {
            let full = chains.len()
                == if mergeable {
                    usize::from(queue.size())
                } else {
                    1
                };
            let chain = if full {
                None
            } else {
                queue.pop(memory, CHAIN_LIMIT)?
            };
            let Some(chain) = chain else {
                queue.unpop(chains.len() as u16);
                return Ok(if full {
                    Placement::NeverFits
                } else {
                    Placement::NoBuffer
                });
            };
            if !chain.readable.is_empty()
                || (chains.is_empty() && queue::total_length(&chain.writable) < header)
            {
                return Err(QueueError::Incomplete { head: chain.head });
            }
            capacity += queue::total_length(&chain.writable);
            chains.push(chain);
        }
        let mut packet = [0; LEGACY_HEADER_BYTES as usize].to_vec();
        packet.extend((chains.len() as u16).to_le_bytes());
        packet.truncate(header as usize);
        packet.extend_from_slice(frame);
        let mut rest = &packet[..];
        for chain in chains {
            let length = queue::total_length(&chain.writable).min(rest.len() as u64);
            let (part, tail) = rest.split_at(length as usize);
            queue::scatter(&chain.writable, memory, 0, part)?;
            queue.push(memory, chain.head, length as u32)?;
            rest = tail;
        }
        Ok(Placement::Placed)
    }

    /// Sends what the driver made available (section 5.1.6.2).
    fn transmit(&mut self, session: &mut Session) -> Result<(), QueueError> {
        if !session.usable(TRANSMIT) {
            return Ok(());
        }
        let header = header_bytes(session.features);
        let queue = &mut session.queues[TRANSMIT];
        let memory = &mut *session.context.memory;
        // Bounded although the index is checked: used entries may overwrite a hostile queue's own
        // available ring.
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(memory, CHAIN_LIMIT)? else {
                break;
            };
            let length = queue::total_length(&chain.readable);
            if length < header {
                return Err(QueueError::Incomplete { head: chain.head });
            }
            let length = length - header;
            if FRAME_BYTES.contains(&(length as usize)) {
                let frame = queue::gather(&chain.readable, memory, header, length)?;
                session.context.outputs.network_frame(self.device, frame);
            }
            queue.push(memory, chain.head, 0)?;
        }
        queue.request_notification(memory)
    }
}

fn header_bytes(features: u64) -> u64 {
    if features & (FEATURE_VERSION_1 | FEATURE_MERGEABLE_BUFFERS) == 0 {
        LEGACY_HEADER_BYTES
    } else {
        HEADER_BYTES
    }
}

enum Placement {
    /// The frame is in guest RAM.
    Placed,
    /// There are not enough buffers now.
    NoBuffer,
    /// The driver's buffers are too small for it.
    NeverFits,
}

#[cfg(test)]
mod tests;
