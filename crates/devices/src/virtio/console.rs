//! The console device (virtio 1.2, section 5.3): one port, no features.

use super::Session;
use super::queue::{self, QueueError};
use machine::input::Console;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The greatest sizes of receiveq and transmitq.
pub const QUEUE_SIZES: [u16; 2] = [64, 64];
/// Input bytes that wait for a buffer at most; what comes on top is lost.
pub const MAX_WAITING_BYTES: usize = 4096;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CHAIN_LIMIT: u64 = 256 << 10;

/// The console's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioConsole {
    /// Typed bytes that found no receive buffer yet.
    waiting: VecDeque<u8>,
}

impl VirtioConsole {
    pub(super) fn process(
        &mut self,
        queue: usize,
        session: &mut Session,
    ) -> Result<(), QueueError> {
        match queue {
            RECEIVE => self.deliver(session),
            TRANSMIT => transmit(session),
            _ => Ok(()),
        }
    }

    /// Typed bytes. They wait for a driver, too.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        session: &mut Session,
    ) -> Result<(), QueueError> {
        let room = MAX_WAITING_BYTES.saturating_sub(self.waiting.len());
        self.waiting.extend(bytes.iter().take(room));
        self.deliver(session)
    }

    fn deliver(&mut self, session: &mut Session) -> Result<(), QueueError> {
        if !session.usable(RECEIVE) {
            return Ok(());
        }
        let queue = &mut session.queues[RECEIVE];
        let memory = &mut *session.context.memory;
        while !self.waiting.is_empty() {
            let Some(chain) = queue.pop(memory, CHAIN_LIMIT)? else {
                break;
            };
            let length = queue::total_length(&chain.writable).min(self.waiting.len() as u64);
            if length == 0 {
                return Err(QueueError::Incomplete { head: chain.head });
            }
            let bytes: Vec<u8> = self.waiting.drain(..length as usize).collect();
            queue::scatter(&chain.writable, memory, 0, &bytes)?;
            queue.push(memory, chain.head, length as u32)?;
        }
        queue.request_notification(memory)
    }
}

fn transmit(session: &mut Session) -> Result<(), QueueError> {
    if !session.usable(TRANSMIT) {
        return Ok(());
    }
    let queue = &mut session.queues[TRANSMIT];
    let memory = &mut *session.context.memory;
    // Bounded for the reason given in the network device.
    for _ in 0..queue.size() {
        let Some(chain) = queue.pop(memory, CHAIN_LIMIT)? else {
            break;
        };
        for byte in queue::gather(&chain.readable, memory, 0, CHAIN_LIMIT)? {
            session.context.outputs.console_byte(Console::Virtio, byte);
        }
        queue.push(memory, chain.head, 0)?;
    }
    queue.request_notification(memory)
}

#[cfg(test)]
mod tests;
