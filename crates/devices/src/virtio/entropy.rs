//! The entropy device (virtio 1.2, section 5.4). Its randomness comes from outside, as an input.

use super::Session;
use super::queue::{self, QueueError};
use machine::output::Output;
use serde::{Deserialize, Serialize};

/// The greatest size of requestq.
pub const QUEUE_SIZES: [u16; 1] = [16];
/// Bytes that the device asks for at once at most; a longer buffer is filled in part.
pub const MAX_REQUEST_BYTES: u32 = 4096;

const CHAIN_LIMIT: u64 = 1 << 20;

/// The entropy device's state. Buffers stay in the queue until the bytes for them are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entropy {
    /// Bytes that the outside was asked for and has not brought. This outlives a reset: the bytes
    /// will come, and then serve the next driver.
    requested: Option<u32>,
}

impl Entropy {
    /// Bytes that the outside was asked for and has not brought.
    pub fn open_request(&self) -> Option<u32> {
        self.requested
    }

    pub(super) fn process(&mut self, session: &mut Session) -> Result<(), QueueError> {
        if self.requested.is_some() || !session.usable(0) {
            return Ok(());
        }
        let queue = &mut session.queues[0];
        let memory = &mut *session.context.memory;
        if let Some(chain) = queue.pop(memory, CHAIN_LIMIT)? {
            queue.unpop(1);
            let length = queue::total_length(&chain.writable);
            if length == 0 {
                return Err(QueueError::Incomplete { head: chain.head });
            }
            let length = length.min(u64::from(MAX_REQUEST_BYTES)) as u32;
            self.requested = Some(length);
            session
                .context
                .outputs
                .other(Output::EntropyRequest { length });
        }
        queue.request_notification(memory)
    }

    /// The bytes that were asked for: at least one, not more than asked for.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        session: &mut Session,
    ) -> Result<(), QueueError> {
        self.requested = None;
        if session.usable(0) {
            let queue = &mut session.queues[0];
            let memory = &mut *session.context.memory;
            if let Some(chain) = queue.pop(memory, CHAIN_LIMIT)? {
                let length = queue::total_length(&chain.writable).min(bytes.len() as u64);
                queue::scatter(&chain.writable, memory, 0, &bytes[..length as usize])?;
                queue.push(memory, chain.head, length as u32)?;
            }
        }
        self.process(session)
    }
}

#[cfg(test)]
mod tests;
