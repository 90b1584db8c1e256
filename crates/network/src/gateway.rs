//! The gateway between the guest network 10.0.2.0/24 and the host's sockets: DHCP, ARP, DNS relay,
//! TCP and UDP to the world, and host ports that lead to guests. It stands for the physical router:
//! it keeps connections while a guest moves from a dead replica to a live one.

pub(crate) mod addresses;
mod clock;
mod connection;
mod datagram;
mod dhcp;
mod dns;
mod icmp_error;
mod stack;
mod tcp_proxy;
mod udp_relay;
mod upstream;

use crate::frame_stream::FrameQueue;
use crate::options::{ConnectionLimits, SwitchOptions};
use crate::poll_set::{PollSet, Readiness};
use crate::status::{ForwardStatus, GatewayStatus, LeaseStatus};
use crate::switch::SwitchError;
use connection::{Direction, FlowKey};
use datagram::Datagram;
use dhcp::DhcpServer;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpPacket, DhcpRepr,
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket,
};
use stack::Stack;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use tcp_proxy::{Refused, TcpProxy};
use udp_relay::UdpRelay;
use upstream::Upstream;

/// Guests whose addresses are remembered.
const MAX_NEIGHBOURS: usize = 256;
/// What is under way is repeated at most this often, however often guests move.
const REPEAT_INTERVAL: Duration = Duration::from_millis(20);

/// A host socket of the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GatewayToken {
    /// A forward's listener.
    Forward(usize),
    /// A connection; its number holds until the next [`Gateway::service`].
    Connection(usize),
    /// A connection that is being opened for a guest.
    Pending(FlowKey),
    /// A UDP flow.
    Udp(FlowKey),
}

/// An IPv4 packet from a guest, unfragmented, with a sane source.
pub(crate) struct Packet<'a> {
    frame: &'a [u8],
    source_mac: EthernetAddress,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &'a [u8],
}

/// The gateway.
pub(crate) struct Gateway {
    stack: Stack,
    tcp: TcpProxy,
    udp: UdpRelay,
    dhcp: DhcpServer,
    upstream: Upstream,
    limits: ConnectionLimits,
    /// Refused connections of which [`Gateway::warnings`] told.
    told: Refused,
    /// Who has which address, as ARP and DHCP told.
    neighbours: BTreeMap<EthernetAddress, Ipv4Addr>,
    repeated: Option<Instant>,
    /// When to repeat what is under way.
    repeat_at: Option<Instant>,
    /// Who appeared since it was repeated last.
    appeared: BTreeSet<EthernetAddress>,
}

impl Gateway {
    /// Listens on the forwards' host ports.
    pub(crate) fn open(options: &SwitchOptions, now: Instant) -> Result<Gateway, SwitchError> {
        let fixed = options
            .static_leases
            .iter()
            .map(|lease| (EthernetAddress(lease.mac), lease.address));
        Ok(Gateway {
            stack: Stack::new(now),
            tcp: TcpProxy::open(&options.forwards, options.connections)?,
            udp: UdpRelay::new(),
            dhcp: DhcpServer::new(fixed),
            upstream: Upstream {
                host_loopback: options.host_loopback,
                resolver: options.resolver,
            },
            limits: options.connections,
            told: Refused::default(),
            neighbours: BTreeMap::new(),
            repeated: None,
            repeat_at: None,
            appeared: BTreeSet::new(),
        })
    }

    /// Adds the host's sockets to `set`.
    pub(crate) fn interests<'fd, T: From<GatewayToken>>(&'fd self, set: &mut PollSet<'fd, T>) {
        self.tcp.interests(&self.stack, set);
        self.udp.interests(set);
    }

    /// A host socket is ready.
    pub(crate) fn ready(&mut self, token: GatewayToken, readiness: Readiness, now: Instant) {
        match token {
            GatewayToken::Forward(index) => self.tcp.forward_ready(index),
            GatewayToken::Connection(index) => self.tcp.connection_ready(index, readiness),
            GatewayToken::Pending(key) => self.tcp.pending_ready(key),
            GatewayToken::Udp(key) => self.udp.ready(key, &mut self.stack.outgoing, now),
        }
    }

    /// Takes a frame from the guest network. Whatever is not meant for a gateway is ignored.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) {
        let Ok(frame) = EthernetFrame::new_checked(bytes) else {
            return;
        };
        let to_us = frame.dst_addr() == addresses::GATEWAY_MAC;
        if !frame.src_addr().is_unicast() || !(to_us || frame.dst_addr().is_broadcast()) {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.receive_arp(&frame, bytes, now),
            EthernetProtocol::Ipv4 => {
                if let Some(packet) = parse_ipv4(&frame, bytes) {
                    self.receive_ipv4(&packet, to_us, now);
                }
            }
            _ => {}
        }
    }

    /// The stack answers for every address, so it is asked only about its own.
    fn receive_arp(&mut self, frame: &EthernetFrame<&[u8]>, bytes: &[u8], now: Instant) {
        let Ok(packet) = ArpPacket::new_checked(frame.payload()) else {
            return;
        };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: mac,
            source_protocol_addr: address,
            target_protocol_addr: target,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        let asks = matches!(operation, ArpOperation::Request | ArpOperation::Reply);
        // A probe for an address that the guest wants to take has no source (RFC 5227, 2.1.1).
        let sane = mac == frame.src_addr() && addresses::is_guest(address);
        if asks && sane && addresses::is_own(target) {
            self.remember(mac, address);
            self.stack.receive(bytes, now);
        }
    }

    fn receive_ipv4(&mut self, packet: &Packet<'_>, to_us: bool, now: Instant) {
        let protocol = Ipv4Packet::new_unchecked(&packet.frame[14..]).next_header();
        if protocol == IpProtocol::Udp && self.receive_dhcp(packet) {
            return;
        }
        if !to_us || !addresses::is_guest(packet.source) {
            return;
        }
        let own = addresses::is_own(packet.destination);
        match protocol {
            IpProtocol::Tcp if own || addresses::is_world(packet.destination) => {
                self.tcp
                    .receive(packet, &self.upstream, &mut self.stack, now);
            }
            IpProtocol::Udp => {
                self.udp
                    .receive(packet, &self.upstream, &mut self.stack.outgoing, now);
            }
            IpProtocol::Icmp if own => self.stack.receive(packet.frame, now),
            _ => {}
        }
    }

    /// Answers a message to the DHCP server; false when it is none.
    fn receive_dhcp(&mut self, packet: &Packet<'_>) -> bool {
        let Ok(udp) = UdpPacket::new_checked(packet.payload) else {
            return false;
        };
        if udp.dst_port() != DHCP_SERVER_PORT {
            return false;
        }
        let Ok(message) = DhcpPacket::new_checked(udp.payload()) else {
            return true;
        };
        let Ok(request) = DhcpRepr::parse(&message) else {
            return true;
        };
        let Some(reply) = self.dhcp.answer(&request) else {
            return true;
        };
        let mut payload = vec![0; reply.buffer_len()];
        if reply
            .emit(&mut DhcpPacket::new_unchecked(&mut payload[..]))
            .is_err()
        {
            return true;
        }
        // RFC 2131, 4.1: to the address that the client has, else to the one it gets, else to all.
        let address = [request.client_ip, reply.your_ip]
            .into_iter()
            .find(|address| addresses::is_guest(*address) && !request.broadcast);
        let (mac, address) = match address {
            Some(address) => (request.client_hardware_address, address),
            None => (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST),
        };
        let datagram = Datagram {
            source: SocketAddrV4::new(addresses::GATEWAY, DHCP_SERVER_PORT),
            destination: SocketAddrV4::new(address, DHCP_CLIENT_PORT),
            destination_mac: mac,
            payload: &payload,
        };
        datagram::send(&datagram, &mut self.stack.outgoing);
        true
    }

    fn remember(&mut self, mac: EthernetAddress, address: Ipv4Addr) {
        if self.neighbours.len() < MAX_NEIGHBOURS || self.neighbours.contains_key(&mac) {
            self.neighbours.insert(mac, address);
        }
    }

    /// A guest is new, or behind another port than before: what was under way to it is lost, or died
    /// with its replica, and is sent again now instead of after a time-out.
    pub(crate) fn guest_appeared(&mut self, mac: EthernetAddress, now: Instant) {
        self.appeared.insert(mac);
        let earliest = self
            .repeated
            .map_or(now, |repeated| (repeated + REPEAT_INTERVAL).max(now));
        self.repeat_at.get_or_insert(earliest);
    }

    /// Moves bytes between sockets and frames. After the frames and readiness of one turn.
    pub(crate) fn service(&mut self, now: Instant) {
        self.udp.expire(now);
        if self.repeat_at.take_if(|when| *when <= now).is_some() {
            self.repeated = Some(now);
            self.stack.repeat();
            for mac in std::mem::take(&mut self.appeared) {
                if let Some(address) = self.neighbours.get(&mac) {
                    // So that no question about the address comes first.
                    self.stack.expect(mac, *address, now);
                }
            }
        }
        self.tcp.pump(&mut self.stack, now);
        self.stack.transmit(now);
        self.tcp.reap(&mut self.stack, now);
    }

    /// The frames that the gateway sends; to be emptied after [`Self::service`].
    pub(crate) fn outgoing(&mut self) -> &mut FrameQueue {
        &mut self.stack.outgoing
    }

    /// In what time [`Self::service`] has something to do although nothing happened.
    pub(crate) fn delay(&mut self, now: Instant) -> Option<Duration> {
        let deadlines = [self.tcp.deadline(), self.udp.deadline(), self.repeat_at];
        let delays = deadlines
            .into_iter()
            .flatten()
            .map(|when| when.saturating_duration_since(now));
        delays.chain(self.stack.delay(now)).min()
    }

    /// What the operator should know since it was asked last: a kind and a text.
    pub(crate) fn warnings(&mut self) -> Vec<(&'static str, String)> {
        let refused = self.tcp.refused();
        let told = std::mem::replace(&mut self.told, refused);
        let mut warnings = Vec::new();
        if refused.inwards > told.inwards {
            let text = format!(
                "all {} connections to guests are taken; more are reset",
                self.limits.inwards
            );
            warnings.push(("inward_connections_refused", text));
        }
        if refused.outwards > told.outwards {
            let text = format!(
                "all {} connections from guests are taken; more are reset",
                self.limits.outwards
            );
            warnings.push(("outward_connections_refused", text));
        }
        warnings
    }

    /// The forwards, with real ports.
    pub(crate) fn forwards(&self) -> Vec<ForwardStatus> {
        self.tcp.forwards()
    }

    /// What the gateway tells about itself.
    pub(crate) fn status(&self) -> GatewayStatus {
        let lease = |(mac, address): (EthernetAddress, Ipv4Addr)| LeaseStatus {
            mac: mac.to_string(),
            address: address.to_string(),
        };
        GatewayStatus {
            tcp_connections: self.tcp.connections(),
            tcp_inwards: self.tcp.count(Direction::Inwards),
            tcp_outwards: self.tcp.count(Direction::Outwards),
            tcp_inwards_limit: self.limits.inwards,
            tcp_outwards_limit: self.limits.outwards,
            tcp_inwards_refused: self.tcp.refused().inwards,
            tcp_outwards_refused: self.tcp.refused().outwards,
            tcp_outbound: self.tcp.outbound(),
            udp_flows: self.udp.flows(),
            leases: self.dhcp.leases().map(lease).collect(),
        }
    }
}

/// The packet in a frame, unless it is broken or a fragment: a guest with the same MTU as the
/// gateway sends fragments only of datagrams that are longer than a frame.
fn parse_ipv4<'a>(frame: &EthernetFrame<&'a [u8]>, bytes: &'a [u8]) -> Option<Packet<'a>> {
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let fragment = packet.more_frags() || packet.frag_offset() != 0;
    if packet.version() != 4 || fragment || !packet.verify_checksum() {
        return None;
    }
    Some(Packet {
        frame: bytes,
        source_mac: frame.src_addr(),
        source: packet.src_addr(),
        destination: packet.dst_addr(),
        payload: packet.payload(),
    })
}

#[cfg(test)]
mod tests;
