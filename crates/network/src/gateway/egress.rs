//! IPv4 packets from the gateway to guests, in as many fragments as they need.

use crate::frame_stream::FrameQueue;
use crate::subnet::Subnet;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpProtocol, Ipv4Packet, UdpPacket, UdpRepr,
};
use smoltcp::{phy::ChecksumCapabilities, wire::Ipv4Repr};
use std::net::{Ipv4Addr, SocketAddrV4};

/// What a packet carries that fits into an Ethernet frame: 1500 octets without the header.
const MAX_PAYLOAD_LENGTH: usize = 1480;
const HOP_LIMIT: u8 = 64;
/// What the gateway sends in one turn of the event loop at most, in octets.
const OUTGOING_LIMIT: usize = 4 << 20;

/// Who sends a packet to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) destination_mac: EthernetAddress,
}

/// The way out to the guests.
pub(crate) struct Egress {
    /// Frames that the gateway sends.
    pub(crate) frames: FrameQueue,
    mac: EthernetAddress,
    /// Of the next packet that is fragmented (RFC 791, 3.2).
    identification: u16,
}

impl Egress {
    pub(crate) fn new(subnet: Subnet) -> Egress {
        Egress {
            frames: FrameQueue::new(OUTGOING_LIMIT),
            mac: subnet.gateway_mac(),
            identification: 0,
        }
    }

    /// Appends a UDP datagram; one that is longer than IPv4 can carry is dropped.
    pub(crate) fn send_udp(
        &mut self,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        destination_mac: EthernetAddress,
        payload: &[u8],
    ) {
        let route = Route {
            source: *source.ip(),
            destination: *destination.ip(),
            destination_mac,
        };
        let udp = UdpRepr {
            src_port: source.port(),
            dst_port: destination.port(),
        };
        let length = udp.header_len() + payload.len();
        if length > usize::from(u16::MAX) - smoltcp::wire::IPV4_HEADER_LEN {
            return;
        }
        let mut bytes = vec![0; length];
        udp.emit(
            &mut UdpPacket::new_unchecked(&mut bytes[..]),
            &route.source.into(),
            &route.destination.into(),
            payload.len(),
            |room| room.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
        self.send(route, IpProtocol::Udp, &bytes);
    }

    /// Asks the guests' network who has `address` (RFC 826).
    pub(crate) fn ask_for(&mut self, address: Ipv4Addr, subnet: Subnet) {
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.mac,
            source_protocol_addr: subnet.gateway(),
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: address,
        };
        let ethernet = EthernetRepr {
            src_addr: self.mac,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        let length = ethernet.buffer_len() + question.buffer_len();
        self.frames.push_with(length, |room| {
            let mut frame = EthernetFrame::new_unchecked(room);
            ethernet.emit(&mut frame);
            question.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }

    /// Appends the packet's frames: one, or one for each fragment (RFC 791, 2.3).
    pub(crate) fn send(&mut self, route: Route, protocol: IpProtocol, payload: &[u8]) {
        if payload.len() <= MAX_PAYLOAD_LENGTH {
            return self.send_frame(route, protocol, payload, None);
        }
        let identification = self.identification;
        self.identification = identification.wrapping_add(1);
        let mut offset = 0;
        while offset < payload.len() {
            let end = (offset + MAX_PAYLOAD_LENGTH).min(payload.len());
            let fragment = Fragment {
                identification,
                offset: offset as u16,
                more: end < payload.len(),
            };
            self.send_frame(route, protocol, &payload[offset..end], Some(fragment));
            offset = end;
        }
    }

    fn send_frame(
        &mut self,
        route: Route,
        next_header: IpProtocol,
        payload: &[u8],
        fragment: Option<Fragment>,
    ) {
        let ethernet = EthernetRepr {
            src_addr: self.mac,
            dst_addr: route.destination_mac,
            ethertype: EthernetProtocol::Ipv4,
        };
        let ip = Ipv4Repr {
            src_addr: route.source,
            dst_addr: route.destination,
            next_header,
            payload_len: payload.len(),
            hop_limit: HOP_LIMIT,
        };
        let length = ethernet.buffer_len() + ip.buffer_len() + payload.len();
        self.frames.push_with(length, |room| {
            let mut frame = EthernetFrame::new_unchecked(room);
            ethernet.emit(&mut frame);
            let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
            ip.emit(&mut packet, &ChecksumCapabilities::default());
            if let Some(fragment) = fragment {
                packet.set_ident(fragment.identification);
                packet.set_dont_frag(false);
                packet.set_more_frags(fragment.more);
                packet.set_frag_offset(fragment.offset);
                packet.fill_checksum();
            }
            packet.payload_mut().copy_from_slice(payload);
        });
    }
}

/// What the header says of a fragment.
struct Fragment {
    identification: u16,
    /// Where it belongs, in octets.
    offset: u16,
    more: bool,
}
