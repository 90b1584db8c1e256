//! The switching itself: frames in, frames into the queues of the right ports. No socket and no
//! clock; time is an argument.

use crate::frame_stream::{FrameQueue, MIN_FRAME_LENGTH};
use crate::mac_table::{Destination, Learned, MacTable, PortId};
use smoltcp::wire::{EthernetAddress, EthernetFrame};
use std::collections::BTreeMap;
use std::time::Instant;

/// Frames that wait for one port, in octets: several TCP windows.
const QUEUE_LIMIT: usize = 4 << 20;

/// Ports' queues and the table that fills them.
#[derive(Debug)]
pub(crate) struct Fabric {
    table: MacTable,
    queues: BTreeMap<PortId, FrameQueue>,
    /// An address that only the gateway may use.
    gateway_address: EthernetAddress,
    /// Which address a port said that it serves.
    declared: BTreeMap<PortId, EthernetAddress>,
    /// How often an address appeared behind another port than before.
    moves: u64,
    /// Frames that were dropped since their source is another port's.
    foreign: u64,
    /// Frames that were kept for an address whose port had gone, and delivered behind its new one.
    rescued: u64,
}

/// What changed with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// An address was seen for the first time.
    New(EthernetAddress),
    /// An address is behind another port than before: what was under way to it may be lost.
    Moved(EthernetAddress),
    /// The frame was dropped: its source is another port's.
    Foreign(EthernetAddress),
}

impl Fabric {
    /// Without ports. `gateway_address` is learned from [`PortId::GATEWAY`] only.
    pub(crate) fn new(gateway_address: EthernetAddress) -> Fabric {
        Fabric {
            table: MacTable::default(),
            queues: BTreeMap::new(),
            gateway_address,
            declared: BTreeMap::new(),
            moves: 0,
            foreign: 0,
            rescued: 0,
        }
    }

    /// A port is there from now on.
    pub(crate) fn add_port(&mut self, port: PortId) {
        self.queues.insert(port, FrameQueue::new(QUEUE_LIMIT));
    }

    /// A port says that it serves `address`: it may take it over from another that says so.
    pub(crate) fn declare(&mut self, port: PortId, address: EthernetAddress) {
        if address != self.gateway_address {
            self.declared.insert(port, address);
        }
    }

    /// The address that a port said it serves.
    pub(crate) fn declared(&self, port: PortId) -> Option<EthernetAddress> {
        self.declared.get(&port).copied()
    }

    /// A port has gone. What waits in its queue is kept with what comes for its addresses.
    pub(crate) fn remove_port(&mut self, port: PortId, now: Instant) {
        self.table.port_gone(port, now);
        self.declared.remove(&port);
        let Some(queue) = self.queues.remove(&port) else {
            return;
        };
        for frame in queue.frames() {
            let destination = EthernetFrame::new_unchecked(frame).dst_addr();
            if self.table.destination(destination) == Destination::Departed {
                self.table.hold(destination, frame.to_vec());
            }
        }
    }

    /// Takes a frame in from `ingress`.
    pub(crate) fn forward(&mut self, ingress: PortId, frame: &[u8], now: Instant) -> Change {
        if frame.len() < MIN_FRAME_LENGTH {
            return Change::None;
        }
        let header = EthernetFrame::new_unchecked(frame);
        let (source, destination) = (header.src_addr(), header.dst_addr());
        if !source.is_unicast() || (source == self.gateway_address && ingress != PortId::GATEWAY) {
            return Change::None;
        }
        if !self.may_use(ingress, source, now) {
            self.foreign += 1;
            return Change::Foreign(source);
        }
        let change = self.learn(source, ingress, now);
        match self.table.destination(destination) {
            Destination::Port(port) if port == ingress => {}
            Destination::Port(port) => {
                if let Some(queue) = self.queues.get_mut(&port) {
                    queue.push(frame);
                }
            }
            Destination::All => {
                for (_, queue) in self.queues.iter_mut().filter(|(port, _)| **port != ingress) {
                    queue.push(frame);
                }
            }
            Destination::Departed => {
                self.table.hold(destination, frame.to_vec());
            }
        }
        change
    }

    /// Whether `source` may be behind `port`. A declared address belongs to those that declared it.
    fn may_use(&self, port: PortId, source: EthernetAddress, now: Instant) -> bool {
        port == PortId::GATEWAY
            || self.declared(port) == Some(source)
            || (self.declared.values().all(|declared| *declared != source)
                && self.table.is_free(source, port, now))
    }

    /// Notes where `source` is, and sends after it what waited elsewhere.
    fn learn(&mut self, source: EthernetAddress, port: PortId, now: Instant) -> Change {
        let declared = self.declared(port) == Some(source);
        match self.table.learn(source, port, declared, now) {
            Learned::Known => return Change::None,
            Learned::New => return Change::New(source),
            Learned::MovedFrom(old) => {
                let left_behind = self.queues.get_mut(&old).map(|queue| {
                    queue.extract(|frame| EthernetFrame::new_unchecked(frame).dst_addr() == source)
                });
                self.deliver(port, left_behind.unwrap_or_default());
            }
            Learned::Returned => {
                let held = self.table.take_held(source);
                self.deliver(port, held);
            }
        }
        self.moves += 1;
        Change::Moved(source)
    }

    fn deliver(&mut self, port: PortId, frames: impl IntoIterator<Item = Vec<u8>>) {
        let Some(queue) = self.queues.get_mut(&port) else {
            return;
        };
        for frame in frames {
            if queue.push(&frame) {
                self.rescued += 1;
            }
        }
    }

    /// Drops frames that were kept for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.table.expire(now);
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.table.next_expiry()
    }

    /// The frames that wait for `port`.
    pub(crate) fn queue(&mut self, port: PortId) -> Option<&mut FrameQueue> {
        self.queues.get_mut(&port)
    }

    /// Whether frames wait for `port`.
    pub(crate) fn has_frames(&self, port: PortId) -> bool {
        self.queues
            .get(&port)
            .is_some_and(|queue| !queue.is_empty())
    }

    /// Frames for `port` that were dropped because its queue was full.
    pub(crate) fn dropped(&self, port: PortId) -> u64 {
        self.queues.get(&port).map_or(0, FrameQueue::dropped)
    }

    /// The addresses behind `port`.
    pub(crate) fn addresses(&self, port: PortId) -> impl Iterator<Item = EthernetAddress> {
        self.table.addresses(port)
    }

    /// How often an address appeared behind another port than before.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// Frames that were dropped because their source is another port's.
    pub(crate) fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Frames that were sent after an address that had moved.
    pub(crate) fn rescued(&self) -> u64 {
        self.rescued
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac_table::HOLD_TIME;

    const GATEWAY: EthernetAddress = EthernetAddress([0x52, 0, 0, 0, 0, 0xff]);
    const GUEST: EthernetAddress = EthernetAddress([0x52, 0, 0, 0, 0, 1]);
    const CLIENT: EthernetAddress = EthernetAddress([0x52, 0, 0, 0, 0, 2]);
    const PRIMARY: PortId = PortId(1);
    const BACKUP: PortId = PortId(2);
    const OTHER: PortId = PortId(3);

    fn frame(to: EthernetAddress, from: EthernetAddress, payload: u8) -> Vec<u8> {
        let mut frame = vec![payload; 60];
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&from.0);
        frame
    }

    fn received(fabric: &mut Fabric, port: PortId) -> Vec<u8> {
        let queue = fabric.queue(port).unwrap();
        let payloads = queue.frames().map(|frame| frame[20]).collect();
        queue.clear();
        payloads
    }

    fn pair() -> (Fabric, Instant) {
        let mut fabric = Fabric::new(GATEWAY);
        for port in [PRIMARY, BACKUP, OTHER] {
            fabric.add_port(port);
        }
        fabric.declare(PRIMARY, GUEST);
        fabric.declare(BACKUP, GUEST);
        let now = Instant::now();
        fabric.forward(PRIMARY, &frame(EthernetAddress::BROADCAST, GUEST, 0), now);
        fabric.forward(OTHER, &frame(EthernetAddress::BROADCAST, CLIENT, 0), now);
        for port in [PRIMARY, BACKUP, OTHER] {
            fabric.queue(port).unwrap().clear();
        }
        (fabric, now)
    }

    #[test]
    fn broadcasts_and_unknown_addresses_go_to_all_but_the_sender() {
        let (mut fabric, now) = pair();
        fabric.forward(PRIMARY, &frame(EthernetAddress::BROADCAST, GUEST, 1), now);
        fabric.forward(PRIMARY, &frame(EthernetAddress([2; 6]), GUEST, 2), now);
        assert!(received(&mut fabric, PRIMARY).is_empty());
        assert_eq!(received(&mut fabric, BACKUP), [1, 2]);
        assert_eq!(received(&mut fabric, OTHER), [1, 2]);
    }

    #[test]
    fn a_silent_backup_gets_nothing_that_is_meant_for_the_guest() {
        let (mut fabric, now) = pair();
        fabric.forward(OTHER, &frame(GUEST, CLIENT, 1), now);
        assert_eq!(received(&mut fabric, PRIMARY), [1]);
        assert!(received(&mut fabric, BACKUP).is_empty());
    }

    #[test]
    fn after_the_primary_has_gone_frames_wait_for_the_new_one() {
        let (mut fabric, now) = pair();
        fabric.forward(OTHER, &frame(GUEST, CLIENT, 1), now);
        fabric.remove_port(PRIMARY, now);
        fabric.forward(OTHER, &frame(GUEST, CLIENT, 2), now);
        assert!(received(&mut fabric, BACKUP).is_empty());
        let announcement = frame(EthernetAddress::BROADCAST, GUEST, 3);
        assert_eq!(
            fabric.forward(BACKUP, &announcement, now),
            Change::Moved(GUEST)
        );
        assert_eq!(received(&mut fabric, BACKUP), [1, 2]);
        assert_eq!((fabric.moves(), fabric.rescued()), (1, 2));
    }

    #[test]
    fn what_waits_for_a_frozen_primary_follows_the_guest() {
        let (mut fabric, now) = pair();
        fabric.forward(OTHER, &frame(GUEST, CLIENT, 1), now);
        fabric.forward(OTHER, &frame(EthernetAddress::BROADCAST, CLIENT, 2), now);
        let announcement = frame(EthernetAddress::BROADCAST, GUEST, 3);
        assert_eq!(
            fabric.forward(BACKUP, &announcement, now),
            Change::Moved(GUEST)
        );
        assert_eq!(received(&mut fabric, BACKUP), [2, 1]);
        assert_eq!(received(&mut fabric, PRIMARY), [2, 3]);
    }

    #[test]
    fn only_a_port_that_declared_an_address_takes_it_over() {
        let (mut fabric, now) = pair();
        let broadcast = EthernetAddress::BROADCAST;
        for from in [GUEST, GATEWAY] {
            fabric.forward(OTHER, &frame(broadcast, from, 1), now);
        }
        // Neither declared nor free: a frame takes nothing.
        let foreign = Change::Foreign(CLIENT);
        assert_eq!(
            fabric.forward(PRIMARY, &frame(broadcast, CLIENT, 1), now),
            foreign
        );
        assert_eq!(fabric.foreign(), 2);
        assert!(received(&mut fabric, BACKUP).is_empty());
        fabric.forward(OTHER, &frame(GUEST, CLIENT, 2), now);
        assert_eq!(received(&mut fabric, PRIMARY), [2]);
        // Nor while the guest moves, and not by filling the table with other addresses either.
        fabric.remove_port(PRIMARY, now);
        for number in 0..5000u32 {
            let [a, b, c, d] = number.to_be_bytes();
            let other = EthernetAddress([6, 0, a, b, c, d]);
            fabric.forward(OTHER, &frame(broadcast, other, 3), now);
        }
        fabric.forward(OTHER, &frame(broadcast, GUEST, 3), now);
        assert_eq!(fabric.foreign(), 3);
        fabric.remove_port(OTHER, now);
        fabric.queue(BACKUP).unwrap().clear();
        let announced = fabric.forward(BACKUP, &frame(broadcast, GUEST, 4), now);
        assert_eq!(announced, Change::Moved(GUEST));
    }

    #[test]
    fn an_undeclared_address_comes_back_behind_another_port_once_its_own_has_gone() {
        let (mut fabric, now) = pair();
        fabric.remove_port(OTHER, now);
        fabric.add_port(PortId(4));
        let hello = frame(EthernetAddress::BROADCAST, CLIENT, 1);
        assert_eq!(
            fabric.forward(PortId(4), &hello, now),
            Change::Moved(CLIENT)
        );
    }

    #[test]
    fn a_guest_that_never_comes_back_is_forgotten() {
        let (mut fabric, now) = pair();
        fabric.remove_port(PRIMARY, now);
        fabric.forward(OTHER, &frame(GUEST, CLIENT, 1), now);
        fabric.expire(now + HOLD_TIME);
        assert_eq!(fabric.next_expiry(), None);
        fabric.forward(OTHER, &frame(GUEST, CLIENT, 2), now + HOLD_TIME);
        assert_eq!(received(&mut fabric, BACKUP), [2]);
    }

    #[test]
    fn the_gateways_address_cannot_be_taken() {
        let (mut fabric, now) = pair();
        fabric.add_port(PortId::GATEWAY);
        fabric.forward(
            PortId::GATEWAY,
            &frame(EthernetAddress::BROADCAST, GATEWAY, 0),
            now,
        );
        fabric.forward(PRIMARY, &frame(EthernetAddress::BROADCAST, GATEWAY, 1), now);
        fabric.queue(PortId::GATEWAY).unwrap().clear();
        fabric.forward(OTHER, &frame(GATEWAY, CLIENT, 2), now);
        assert_eq!(received(&mut fabric, PortId::GATEWAY), [2]);
    }

    #[test]
    fn frames_from_group_addresses_or_too_short_are_dropped() {
        let (mut fabric, now) = pair();
        fabric.forward(
            OTHER,
            &frame(GUEST, EthernetAddress([1, 0, 0, 0, 0, 1]), 1),
            now,
        );
        fabric.forward(OTHER, &[0; 13], now);
        assert!(received(&mut fabric, PRIMARY).is_empty());
    }
}
