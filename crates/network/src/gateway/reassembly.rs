//! Packets that guests send in fragments (RFC 791, 3.2), put together in bounded room.

use smoltcp::wire::{EthernetFrame, Ipv4Packet};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// A packet whose fragments are not all there after this time is dropped.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What all fragments that wait take, in octets; beyond, the packet that waits longest is dropped.
const MAX_HELD: usize = 1 << 20;
/// What a fragment takes beside its octets.
const OVERHEAD: usize = 64;
const ETHERNET_HEADER_LENGTH: usize = 14;
const IP_HEADER_LENGTH: usize = 20;
/// No packet is longer, its header included.
const MAX_PACKET_LENGTH: usize = 65_535;

/// What fragments of the same packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    identification: u16,
}

#[derive(Debug)]
struct Partial {
    /// By the place of their first octet in the payload; none overlaps another.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Octets in the pieces.
    present: usize,
    /// Octets of the whole payload, once the last fragment is there.
    length: Option<usize>,
    until: Instant,
}

/// Packets of which something is missing.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partials: BTreeMap<Key, Partial>,
    held: usize,
}

impl Reassembly {
    /// Takes a fragment, a valid IPv4 packet in an Ethernet frame. Returns the frame of the whole
    /// packet if this was the last that was missing.
    pub(crate) fn add(&mut self, frame: &[u8], now: Instant) -> Option<Vec<u8>> {
        self.expire(now);
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        let key = Key {
            source: packet.src_addr(),
            destination: packet.dst_addr(),
            protocol: packet.next_header().into(),
            identification: packet.ident(),
        };
        let partial = self.partials.entry(key).or_insert_with(|| Partial {
            pieces: BTreeMap::new(),
            present: 0,
            length: None,
            until: now + TIMEOUT,
        });
        let start = usize::from(packet.frag_offset());
        match partial.take(start, packet.payload(), packet.more_frags()) {
            Taken::Known => return None,
            // Fragments that contradict each other are an attack or a mistake: none of the packet
            // is believed (RFC 5722, section 4, says so of IPv6).
            Taken::Contradiction => {
                self.forget(key);
                return None;
            }
            Taken::New => self.held += packet.payload().len() + OVERHEAD,
        }
        if partial.length == Some(partial.present) {
            let whole = self.forget(key)?.assemble(&ethernet, &packet);
            return Some(whole);
        }
        while self.held > MAX_HELD {
            let oldest = self
                .partials
                .iter()
                .min_by_key(|(_, partial)| partial.until);
            let oldest = oldest.map(|(key, _)| *key)?;
            self.forget(oldest);
        }
        None
    }

    /// Drops what has waited for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = |partial: &Partial| partial.until <= now;
        while let Some(key) = self
            .partials
            .iter()
            .find_map(|(key, partial)| late(partial).then_some(*key))
        {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) -> Option<Partial> {
        let partial = self.partials.remove(&key)?;
        self.held -= partial.present + partial.pieces.len() * OVERHEAD;
        Some(partial)
    }
}

/// What became of a fragment.
enum Taken {
    New,
    /// The same again.
    Known,
    /// It overlaps others, or lies outside the packet.
    Contradiction,
}

impl Partial {
    fn take(&mut self, start: usize, octets: &[u8], more: bool) -> Taken {
        if self.pieces.get(&start).is_some_and(|piece| piece == octets) {
            return Taken::Known;
        }
        let end = start + octets.len();
        let before = self.pieces.range(..=start).next_back();
        let overlaps = before.is_some_and(|(at, piece)| at + piece.len() > start)
            || self.pieces.range(start..end).next().is_some();
        // All but the last are counted in units of eight octets (RFC 791, 3.1).
        let ragged = octets.is_empty() || (more && !octets.len().is_multiple_of(8));
        let outside = end > MAX_PACKET_LENGTH - IP_HEADER_LENGTH
            || self
                .length
                .is_some_and(|length| end > length || (!more && end != length));
        let cut = !more && self.pieces.range(end..).next().is_some();
        if overlaps || ragged || outside || cut {
            return Taken::Contradiction;
        }
        if !more {
            self.length = Some(end);
        }
        self.present += octets.len();
        self.pieces.insert(start, octets.to_vec());
        Taken::New
    }

    /// The frame of the whole packet, with the addresses of one of its fragments and no options.
    fn assemble(&self, ethernet: &EthernetFrame<&[u8]>, fragment: &Ipv4Packet<&[u8]>) -> Vec<u8> {
        let mut frame =
            Vec::with_capacity(ETHERNET_HEADER_LENGTH + IP_HEADER_LENGTH + self.present);
        frame.extend_from_slice(&ethernet.as_ref()[..ETHERNET_HEADER_LENGTH]);
        frame.extend_from_slice(&fragment.as_ref()[..IP_HEADER_LENGTH]);
        for piece in self.pieces.values() {
            frame.extend_from_slice(piece);
        }
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER_LENGTH..]);
        packet.set_header_len(IP_HEADER_LENGTH as u8);
        packet.set_total_len((IP_HEADER_LENGTH + self.present) as u16);
        packet.set_more_frags(false);
        packet.set_frag_offset(0);
        packet.fill_checksum();
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame_stream::FrameQueue;
    use crate::gateway::egress::{Egress, Route};
    use crate::subnet::Subnet;
    use proptest::prelude::*;
    use smoltcp::wire::{EthernetAddress, IpProtocol};

    fn frames(queue: &FrameQueue) -> Vec<Vec<u8>> {
        queue.frames().map(<[u8]>::to_vec).collect()
    }

    /// The fragments in which the gateway itself sends such a payload.
    fn fragments(payload: &[u8]) -> Vec<Vec<u8>> {
        let subnet = Subnet::default();
        let mut egress = Egress::new(subnet);
        let route = Route {
            source: subnet.first_guest(),
            destination: subnet.gateway(),
            destination_mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
        };
        egress.send(route, IpProtocol::Udp, payload);
        frames(&egress.frames)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rfc_791_fragments_in_any_order_and_twice_are_one_packet(
            length in 1481usize..65_515,
            order in any::<u64>(),
        ) {
            let now = Instant::now();
            let payload = pattern(length);
            let mut fragments = fragments(&payload);
            prop_assert_eq!(fragments.len(), length.div_ceil(1480));
            // Any order, from one number.
            let mut state = order | 1;
            for index in (1..fragments.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                fragments.swap(index, (state >> 33) as usize % (index + 1));
            }
            let last = fragments.pop().unwrap();
            let mut reassembly = Reassembly::default();
            for fragment in fragments.iter().chain(&fragments) {
                prop_assert!(reassembly.add(fragment, now).is_none());
            }
            let whole = reassembly.add(&last, now).unwrap();
            let packet = Ipv4Packet::new_checked(&whole[14..]).unwrap();
            prop_assert!(packet.verify_checksum());
            prop_assert!(!packet.more_frags() && packet.frag_offset() == 0);
            prop_assert_eq!(packet.payload(), &payload[..]);
            prop_assert_eq!(reassembly.held, 0);
        }
    }

    #[test]
    fn rfc_5722_fragments_that_contradict_each_other_make_no_packet() {
        let now = Instant::now();
        let whole = fragments(&pattern(4000));
        let mut other = fragments(&vec![0xee; 4000]);
        let mut reassembly = Reassembly::default();
        reassembly.add(&whole[0], now);
        // The same place, other octets: all is forgotten, so that the rest makes nothing.
        reassembly.add(&other.swap_remove(0), now);
        assert!(reassembly.add(&whole[1], now).is_none());
        assert!(reassembly.add(&whole[2], now).is_none());
        // One that begins in the midst of another.
        let mut shifted = whole[1].clone();
        let mut packet = Ipv4Packet::new_unchecked(&mut shifted[14..]);
        packet.set_frag_offset(1472);
        let mut reassembly = Reassembly::default();
        reassembly.add(&whole[0], now);
        assert!(reassembly.add(&shifted, now).is_none());
        assert!(reassembly.partials.is_empty());
        assert_eq!(reassembly.held, 0);
    }

    #[test]
    fn fragments_that_never_become_whole_take_bounded_room_and_time() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        let template = fragments(&pattern(4000)).swap_remove(0);
        for identification in 0..5000 {
            let mut fragment = template.clone();
            Ipv4Packet::new_unchecked(&mut fragment[14..]).set_ident(identification);
            assert!(reassembly.add(&fragment, now).is_none());
            assert!(reassembly.held <= MAX_HELD);
        }
        assert!(reassembly.partials.len() > 100);
        reassembly.expire(now + TIMEOUT);
        assert_eq!((reassembly.partials.len(), reassembly.held), (0, 0));
    }
}
