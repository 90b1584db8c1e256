//! UDP datagrams from the gateway to a guest.

use super::addresses;
use crate::frame_stream::FrameQueue;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};
use std::net::SocketAddrV4;

/// What an unfragmented datagram carries: 1500 octets without the headers of IP and UDP.
pub(crate) const MAX_PAYLOAD_LENGTH: usize = 1472;
const HOP_LIMIT: u8 = 64;

/// A datagram.
pub(crate) struct Datagram<'a> {
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) destination_mac: EthernetAddress,
    /// At most [`MAX_PAYLOAD_LENGTH`] octets.
    pub(crate) payload: &'a [u8],
}

/// Appends the datagram's frame to `outgoing`.
pub(crate) fn send(datagram: &Datagram<'_>, outgoing: &mut FrameQueue) {
    let (source, destination) = (*datagram.source.ip(), *datagram.destination.ip());
    let ethernet = EthernetRepr {
        src_addr: addresses::GATEWAY_MAC,
        dst_addr: datagram.destination_mac,
        ethertype: EthernetProtocol::Ipv4,
    };
    let udp = UdpRepr {
        src_port: datagram.source.port(),
        dst_port: datagram.destination.port(),
    };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + datagram.payload.len(),
        hop_limit: HOP_LIMIT,
    };
    let checksums = ChecksumCapabilities::default();
    let length = ethernet.buffer_len() + ip.buffer_len() + ip.payload_len;
    outgoing.push_with(length, |room| {
        let mut frame = EthernetFrame::new_unchecked(room);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &source.into(),
            &destination.into(),
            datagram.payload.len(),
            |payload| payload.copy_from_slice(datagram.payload),
            &checksums,
        );
    });
}
