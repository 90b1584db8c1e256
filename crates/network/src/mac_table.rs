//! Which address is behind which port, and the frames kept for addresses whose port has gone.

use smoltcp::wire::EthernetAddress;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// Addresses that are remembered; beyond, the one that was silent for longest is forgotten.
const MAX_ADDRESSES: usize = 1024;
/// Of these behind one port.
const MAX_PORT_ADDRESSES: usize = 256;
/// An address that was silent for this time may appear behind another port (IEEE 802.1Q, table 8-6).
const AGEING_TIME: Duration = Duration::from_secs(300);
/// Frames kept for one address.
const MAX_HELD_FRAMES: usize = 256;
/// For how long after a port has gone frames for its addresses are kept. A failover takes a tenth
/// of it; TCP repeats the rest.
pub(crate) const HOLD_TIME: Duration = Duration::from_secs(2);

/// One port of a switch, for the life of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortId(pub(crate) u64);

impl PortId {
    /// The gateway's own port.
    pub(crate) const GATEWAY: PortId = PortId(0);
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a frame's source address told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Nothing new.
    Known,
    /// A new address.
    New,
    /// The address was behind another port, which is still there.
    MovedFrom(PortId),
    /// The address was behind a port that has gone.
    Returned,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To one port.
    Port(PortId),
    /// To all but the one it came from.
    All,
    /// Nowhere yet: the port of this address has gone, and the address may appear behind another.
    Departed,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Behind(PortId),
    Departed { since: Instant },
}

#[derive(Debug)]
struct Entry {
    place: Place,
    seen: Instant,
    /// Its port said that it serves it.
    declared: bool,
    held: VecDeque<Vec<u8>>,
}

/// The address table.
#[derive(Debug, Default)]
pub(crate) struct MacTable {
    entries: BTreeMap<EthernetAddress, Entry>,
}

impl MacTable {
    /// A frame from `address` came in on `port`.
    pub(crate) fn learn(
        &mut self,
        address: EthernetAddress,
        port: PortId,
        declared: bool,
        now: Instant,
    ) -> Learned {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.seen = now;
            entry.declared = declared;
            return match std::mem::replace(&mut entry.place, Place::Behind(port)) {
                Place::Behind(old) if old == port => Learned::Known,
                Place::Behind(old) => Learned::MovedFrom(old),
                Place::Departed { .. } => Learned::Returned,
            };
        }
        if self.entries.len() >= MAX_ADDRESSES || self.addresses(port).count() >= MAX_PORT_ADDRESSES
        {
            self.forget_one(port);
        }
        let entry = Entry {
            place: Place::Behind(port),
            seen: now,
            declared,
            held: VecDeque::new(),
        };
        self.entries.insert(address, entry);
        Learned::New
    }

    /// Whether a port that did not say that it serves `address` may use it: nobody has it, or this
    /// port has, or another had it and went or was silent for long.
    pub(crate) fn is_free(&self, address: EthernetAddress, port: PortId, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&address) else {
            return true;
        };
        match entry.place {
            Place::Behind(behind) if behind == port => true,
            Place::Behind(_) => now.saturating_duration_since(entry.seen) >= AGEING_TIME,
            Place::Departed { .. } => !entry.declared,
        }
    }

    /// Makes room: of the port's own addresses, so that none can make the switch forget another's,
    /// else of all, the one that was silent for longest. Declared ones stay if others can go.
    fn forget_one(&mut self, port: PortId) {
        let key = |(_, entry): &(&EthernetAddress, &Entry)| {
            let own = matches!(entry.place, Place::Behind(behind) if behind == port);
            (!own, entry.declared, entry.seen)
        };
        let oldest = self.entries.iter().min_by_key(key);
        if let Some(oldest) = oldest.map(|(address, _)| *address) {
            self.entries.remove(&oldest);
        }
    }

    /// Where a frame for `address` goes.
    pub(crate) fn destination(&self, address: EthernetAddress) -> Destination {
        if !address.is_unicast() {
            return Destination::All;
        }
        match self.entries.get(&address).map(|entry| entry.place) {
            Some(Place::Behind(port)) => Destination::Port(port),
            Some(Place::Departed { .. }) => Destination::Departed,
            None => Destination::All,
        }
    }

    /// The port has gone: frames for its addresses are kept from now on.
    pub(crate) fn port_gone(&mut self, port: PortId, now: Instant) {
        for entry in self.entries.values_mut() {
            if matches!(entry.place, Place::Behind(behind) if behind == port) {
                entry.place = Place::Departed { since: now };
            }
        }
    }

    /// Keeps a frame for a departed address; false when it was dropped instead.
    pub(crate) fn hold(&mut self, address: EthernetAddress, frame: Vec<u8>) -> bool {
        match self.entries.get_mut(&address) {
            Some(entry)
                if matches!(entry.place, Place::Departed { .. })
                    && entry.held.len() < MAX_HELD_FRAMES =>
            {
                entry.held.push_back(frame);
                true
            }
            _ => false,
        }
    }

    /// Takes the frames that were kept for `address`, the oldest first.
    pub(crate) fn take_held(&mut self, address: EthernetAddress) -> VecDeque<Vec<u8>> {
        self.entries
            .get_mut(&address)
            .map(|entry| std::mem::take(&mut entry.held))
            .unwrap_or_default()
    }

    /// Forgets departed addresses whose time is over; returns how many frames go with them.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let mut dropped = 0;
        self.entries.retain(|_, entry| match entry.place {
            Place::Departed { since } if now.saturating_duration_since(since) >= HOLD_TIME => {
                dropped += entry.held.len();
                false
            }
            _ => true,
        });
        dropped
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let departures = self.entries.values().filter_map(|entry| match entry.place {
            Place::Departed { since } => Some(since + HOLD_TIME),
            Place::Behind(_) => None,
        });
        departures.min()
    }

    /// The addresses behind `port`, in order.
    pub(crate) fn addresses(&self, port: PortId) -> impl Iterator<Item = EthernetAddress> {
        self.entries
            .iter()
            .filter_map(move |(address, entry)| match entry.place {
                Place::Behind(behind) if behind == port => Some(*address),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

    #[test]
    fn an_address_moves_to_the_port_where_it_was_seen_last() {
        let mut table = MacTable::default();
        let now = Instant::now();
        assert_eq!(table.destination(A), Destination::All);
        assert_eq!(table.learn(A, PortId(1), false, now), Learned::New);
        assert_eq!(table.learn(A, PortId(1), false, now), Learned::Known);
        assert_eq!(
            table.learn(A, PortId(2), false, now),
            Learned::MovedFrom(PortId(1))
        );
        assert_eq!(table.destination(A), Destination::Port(PortId(2)));
        table.port_gone(PortId(1), now);
        assert_eq!(table.destination(A), Destination::Port(PortId(2)));
    }

    #[test]
    fn a_departed_address_is_flooded_again_after_the_hold_time() {
        let mut table = MacTable::default();
        let now = Instant::now();
        table.learn(A, PortId(1), false, now);
        table.port_gone(PortId(1), now);
        assert_eq!(table.destination(A), Destination::Departed);
        assert!(table.hold(A, vec![0; 14]));
        assert_eq!(table.next_expiry(), Some(now + HOLD_TIME));
        assert_eq!(table.expire(now + HOLD_TIME - Duration::from_millis(1)), 0);
        assert_eq!(table.expire(now + HOLD_TIME), 1);
        assert_eq!(table.destination(A), Destination::All);
    }

    #[test]
    fn held_frames_and_addresses_are_bounded() {
        let mut table = MacTable::default();
        let now = Instant::now();
        table.learn(A, PortId(1), false, now);
        table.port_gone(PortId(1), now);
        for _ in 0..MAX_HELD_FRAMES {
            assert!(table.hold(A, vec![0; 14]));
        }
        assert!(!table.hold(A, vec![0; 14]));
        for number in 0..3 * MAX_ADDRESSES as u32 {
            let [a, b, c, d] = number.to_be_bytes();
            let address = EthernetAddress([4, 0, a, b, c, d]);
            table.learn(address, PortId(u64::from(number) % 10), false, now);
        }
        assert_eq!(table.entries.len(), MAX_ADDRESSES);
    }
}
