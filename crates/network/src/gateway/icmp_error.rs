//! ICMP errors from the gateway to a guest.

use super::egress::{Egress, Route};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Repr,
};

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

/// Sends the error. It comes from the packet's destination, as from the host that refuses it.
pub(crate) fn send(
    reason: Icmpv4DstUnreachable,
    quoted: &Quotation,
    guest: EthernetAddress,
    egress: &mut Egress,
) {
    let error = Icmpv4Repr::DstUnreachable {
        reason,
        header: quoted.header,
        data: &quoted.start,
    };
    let route = Route {
        source: quoted.header.dst_addr,
        destination: quoted.header.src_addr,
        destination_mac: guest,
    };
    let mut bytes = vec![0; error.buffer_len()];
    error.emit(
        &mut Icmpv4Packet::new_unchecked(&mut bytes[..]),
        &ChecksumCapabilities::default(),
    );
    egress.send(route, IpProtocol::Icmp, &bytes);
}
