//! ICMP errors from the gateway to a guest.

use super::addresses;
use crate::frame_stream::FrameQueue;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4DstUnreachable,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
};

const HOP_LIMIT: u8 = 64;
/// Of the packet that is refused, its header and this much come back (RFC 792).
const QUOTED_LENGTH: usize = 8;

/// What an ICMP error quotes of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Quotation {
    header: Ipv4Repr,
    start: Vec<u8>,
}

impl Quotation {
    /// Of the packet with this header and payload.
    pub(crate) fn new(header: Ipv4Repr, payload: &[u8]) -> Quotation {
        Quotation {
            header,
            start: payload[..payload.len().min(QUOTED_LENGTH)].to_vec(),
        }
    }
}

/// Appends the error's frame to `outgoing`. It comes from the packet's destination, as from the
/// host that refuses it.
pub(crate) fn send(
    reason: Icmpv4DstUnreachable,
    quoted: &Quotation,
    guest: EthernetAddress,
    outgoing: &mut FrameQueue,
) {
    let error = Icmpv4Repr::DstUnreachable {
        reason,
        header: quoted.header,
        data: &quoted.start,
    };
    let ethernet = EthernetRepr {
        src_addr: addresses::GATEWAY_MAC,
        dst_addr: guest,
        ethertype: EthernetProtocol::Ipv4,
    };
    let ip = Ipv4Repr {
        src_addr: quoted.header.dst_addr,
        dst_addr: quoted.header.src_addr,
        next_header: IpProtocol::Icmp,
        payload_len: error.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let checksums = ChecksumCapabilities::default();
    let length = ethernet.buffer_len() + ip.buffer_len() + ip.payload_len;
    outgoing.push_with(length, |room| {
        let mut frame = EthernetFrame::new_unchecked(room);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        error.emit(
            &mut Icmpv4Packet::new_unchecked(packet.payload_mut()),
            &checksums,
        );
    });
}
