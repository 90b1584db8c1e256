//! The power button: an input device (virtio 1.2, section 5.8) with one key, `KEY_POWER`.
//!
//! Debian's kernels have its driver for every architecture (`virtio_input`, and `evdev` above it), and
//! systemd-logind powers off when such a key is pressed.

use super::Session;
use super::queue::{self, QueueError};
use serde::{Deserialize, Serialize};

/// The greatest sizes of eventq and statusq.
pub const QUEUE_SIZES: [u16; 2] = [64, 64];

const EVENTS: usize = 0;
const STATUS: usize = 1;
const EVENT_BYTES: u64 = 8;
const CHAIN_LIMIT: u64 = 4096;

/// Offsets in the configuration space: what the driver writes, and what it reads then.
const SELECT: u64 = 0;
const SUBSELECT: u64 = 1;
/// Bytes of the configuration space: the two, a size, five reserved, and 128 of what was selected.
const CONFIGURATION_BYTES: usize = 136;
const SELECTED: usize = 8;

const ID_NAME: u8 = 0x01;
const ID_SERIAL: u8 = 0x02;
const ID_DEVIDS: u8 = 0x03;
const EVENT_BITS: u8 = 0x11;

/// Linux, `include/uapi/linux/input-event-codes.h`.
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// `BUS_VIRTUAL`, then vendor, product and version: little-endian numbers of two bytes.
const IDENTITY: [u8; 8] = [0x06, 0, 0, 0, 1, 0, 1, 0];
const NAME: &[u8] = b"Understudy power button";

/// One press: down, and up again.
const PRESS: [(u16, u16, u32); 4] = [
    (EV_KEY, KEY_POWER, 1),
    (EV_SYN, 0, 0),
    (EV_KEY, KEY_POWER, 0),
    (EV_SYN, 0, 0),
];

/// The button's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerButton {
    select: u8,
    subselect: u8,
    /// Events of a press, of [`PRESS`] the last ones, that found no buffer yet.
    waiting: u8,
}

impl PowerButton {
    /// The configuration space (section 5.8.4) as the driver's selection makes it.
    pub(super) fn configuration(&self) -> Vec<u8> {
        let selected = self.selected();
        let mut space = vec![0; CONFIGURATION_BYTES];
        space[0] = self.select;
        space[1] = self.subselect;
        space[2] = selected.len() as u8;
        space[SELECTED..SELECTED + selected.len()].copy_from_slice(&selected);
        space
    }

    fn selected(&self) -> Vec<u8> {
        match (self.select, self.subselect) {
            (ID_NAME, 0) => NAME.to_vec(),
            (ID_SERIAL, 0) => b"0".to_vec(),
            (ID_DEVIDS, 0) => IDENTITY.to_vec(),
            (EVENT_BITS, subselect) if u16::from(subselect) == EV_KEY => {
                let mut bits = vec![0; usize::from(KEY_POWER / 8) + 1];
                bits[usize::from(KEY_POWER / 8)] = 1 << (KEY_POWER % 8);
                bits
            }
            _ => Vec::new(),
        }
    }

    /// The driver writes a byte of the configuration space: only what selects can be written.
    pub(super) fn configure(&mut self, offset: u64, value: u8) {
        match offset {
            SELECT => self.select = value,
            SUBSELECT => self.subselect = value,
            _ => {}
        }
    }

    pub(super) fn process(
        &mut self,
        queue: usize,
        session: &mut Session,
    ) -> Result<(), QueueError> {
        match queue {
            EVENTS => self.deliver(session),
            STATUS => take_status(session),
            _ => Ok(()),
        }
    }

    /// Somebody presses the button. The press waits for a driver; one more that comes before it is
    /// taken is the same.
    pub(super) fn press(&mut self, session: &mut Session) -> Result<(), QueueError> {
        if self.waiting == 0 {
            self.waiting = PRESS.len() as u8;
        }
        self.deliver(session)
    }

    /// The driver reset the device: the next one is told of a press as a whole.
    pub(super) fn reset(&mut self) {
        let waiting = if self.waiting > 0 { PRESS.len() } else { 0 };
        *self = PowerButton {
            waiting: waiting as u8,
            ..PowerButton::default()
        };
    }

    fn deliver(&mut self, session: &mut Session) -> Result<(), QueueError> {
        if !session.usable(EVENTS) {
            return Ok(());
        }
        let queue = &mut session.queues[EVENTS];
        let memory = &mut *session.context.memory;
        while self.waiting > 0 {
            let Some(chain) = queue.pop(memory, CHAIN_LIMIT)? else {
                break;
            };
            if queue::total_length(&chain.writable) < EVENT_BYTES {
                return Err(QueueError::Incomplete { head: chain.head });
            }
            let (kind, code, value) = PRESS[PRESS.len() - usize::from(self.waiting)];
            let mut event = kind.to_le_bytes().to_vec();
            event.extend(code.to_le_bytes());
            event.extend(value.to_le_bytes());
            queue::scatter(&chain.writable, memory, 0, &event)?;
            queue.push(memory, chain.head, EVENT_BYTES as u32)?;
            self.waiting -= 1;
        }
        queue.request_notification(memory)
    }
}

/// What the driver wants of lamps and the like: there are none.
fn take_status(session: &mut Session) -> Result<(), QueueError> {
    if !session.usable(STATUS) {
        return Ok(());
    }
    let queue = &mut session.queues[STATUS];
    let memory = &mut *session.context.memory;
    // Bounded for the reason given in the network device.
    for _ in 0..queue.size() {
        let Some(chain) = queue.pop(memory, CHAIN_LIMIT)? else {
            break;
        };
        queue.push(memory, chain.head, 0)?;
    }
    queue.request_notification(memory)
}

#[cfg(test)]
mod tests;
