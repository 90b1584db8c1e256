//! The gateway between the guests' network and the host's sockets: DHCP, ARP, DNS relay, TCP, UDP and
//! ping to the world, and host ports that lead to guests. It stands for the physical router:
//! it keeps connections while a guest moves from a dead replica to a live one.

mod clock;
mod connection;
mod dhcp;
mod echo;
mod egress;
mod icmp_error;
mod neighbours;
mod reassembly;
mod stack;
mod tcp_proxy;
mod udp_forwards;
mod udp_relay;
mod upstream;

use crate::frame_stream::FrameQueue;
use crate::options::{ConnectionLimits, SwitchOptions};
use crate::poll_set::{PollSet, Readiness};
use crate::status::{ForwardStatus, GatewayStatus, LeaseStatus};
use crate::subnet::Subnet;
use crate::switch::SwitchError;
use connection::{Direction, FlowKey};
use dhcp::DhcpServer;
use echo::{EchoKey, EchoRelay};
use neighbours::Neighbours;
use reassembly::Reassembly;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpPacket, DhcpRepr,
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket,
};
use stack::Stack;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};
use tcp_proxy::{Refused, TcpProxy};
use udp_forwards::UdpForwards;
use udp_relay::UdpRelay;
use upstream::Upstream;

/// No datagram of IPv4 is longer.
const MAX_DATAGRAM_LENGTH: usize = 65_535;
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
    /// A UDP flow of a guest's.
    Udp(FlowKey),
    /// A UDP forward's socket.
    UdpForward(usize),
    /// A guest's `ping`.
    Echo(EchoKey),
}

/// A whole IPv4 packet from a guest.
pub(crate) struct Packet<'a> {
    frame: &'a [u8],
    source_mac: EthernetAddress,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &'a [u8],
}

/// What was told of what goes on being so.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    refused: Refused,
    udp_closed: u64,
    /// That the host lets nobody ping.
    ping: bool,
}

/// The gateway.
pub(crate) struct Gateway {
    stack: Stack,
    tcp: TcpProxy,
    udp: UdpRelay,
    udp_forwards: UdpForwards,
    echo: EchoRelay,
    reassembly: Reassembly,
    dhcp: DhcpServer,
    upstream: Upstream,
    limits: ConnectionLimits,
    /// What [`Gateway::warnings`] told.
    told: Told,
    /// Who has which address, as ARP told.
    neighbours: Neighbours,
    /// Room for the longest datagram of the host's sockets.
    buffer: Vec<u8>,
    repeated: Option<Instant>,
    /// When to repeat what is under way.
    repeat_at: Option<Instant>,
    /// Who appeared since it was repeated last.
    appeared: BTreeSet<EthernetAddress>,
}

impl Gateway {
    /// Listens on the forwards' host ports.
    pub(crate) fn open(options: &SwitchOptions, now: Instant) -> Result<Gateway, SwitchError> {
        let subnet = options.subnet;
        let outside = |address| !subnet.is_guest(address);
        for forward in &options.forwards {
            if outside(*forward.guest(subnet).ip()) {
                let forward = *forward;
                return Err(SwitchError::ForwardOutside { forward, subnet });
            }
        }
        for lease in &options.static_leases {
            if outside(lease.address) {
                let lease = *lease;
                return Err(SwitchError::LeaseOutside { lease, subnet });
            }
        }
        let fixed = options
            .static_leases
            .iter()
            .map(|lease| (EthernetAddress(lease.mac), lease.address));
        Ok(Gateway {
            stack: Stack::new(subnet, now),
            tcp: TcpProxy::open(&options.forwards, subnet, options.connections)?,
            udp: UdpRelay::new(),
            udp_forwards: UdpForwards::open(&options.forwards, subnet)?,
            echo: EchoRelay::new(subnet),
            reassembly: Reassembly::default(),
            dhcp: DhcpServer::new(subnet, fixed),
            upstream: Upstream {
                subnet,
                host_loopback: options.host_loopback,
                resolver: options.resolver,
            },
            limits: options.connections,
            told: Told::default(),
            neighbours: Neighbours::default(),
            buffer: vec![0; MAX_DATAGRAM_LENGTH],
            repeated: None,
            repeat_at: None,
            appeared: BTreeSet::new(),
        })
    }

    fn subnet(&self) -> Subnet {
        self.upstream.subnet
    }

    /// Adds the host's sockets to `set`.
    pub(crate) fn interests<'fd, T: From<GatewayToken>>(&'fd self, set: &mut PollSet<'fd, T>) {
        self.tcp.interests(&self.stack, set);
        self.udp.interests(set);
        self.udp_forwards.interests(set);
        self.echo.interests(set);
    }

    /// A host socket is ready.
    pub(crate) fn ready(&mut self, token: GatewayToken, readiness: Readiness, now: Instant) {
        match token {
            GatewayToken::Forward(index) => self.tcp.forward_ready(index),
            GatewayToken::Connection(index) => self.tcp.connection_ready(index, readiness),
            GatewayToken::Pending(key) => self.tcp.pending_ready(key),
            GatewayToken::Udp(key) => {
                let egress = &mut self.stack.egress;
                self.udp.ready(key, &mut self.buffer, egress, now);
            }
            GatewayToken::UdpForward(index) => self.udp_forwards.ready(
                index,
                &mut self.buffer,
                &mut self.neighbours,
                &mut self.stack.egress,
                now,
            ),
            GatewayToken::Echo(key) => {
                let egress = &mut self.stack.egress;
                self.echo.ready(key, &mut self.buffer, egress, now);
            }
        }
    }

    /// Takes a frame from the guest network. Whatever is not meant for a gateway is ignored.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) {
        let Ok(frame) = EthernetFrame::new_checked(bytes) else {
            return;
        };
        let to_us = frame.dst_addr() == self.subnet().gateway_mac();
        if !frame.src_addr().is_unicast() || !(to_us || frame.dst_addr().is_broadcast()) {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.receive_arp(&frame, bytes, now),
            EthernetProtocol::Ipv4 => {
                let fragment =
                    |packet: &Ipv4Packet<&[u8]>| packet.more_frags() || packet.frag_offset() != 0;
                match valid_ipv4(&frame) {
                    Some(packet) if fragment(&packet) => {
                        self.receive_fragment(bytes, packet.src_addr(), to_us, now);
                    }
                    Some(_) => self.receive_ipv4(bytes, to_us, now),
                    None => {}
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
        let sane = mac == frame.src_addr() && self.subnet().is_guest(address);
        if asks && sane && self.subnet().is_own(target) {
            self.neighbours.learn(mac, address, now);
            self.udp_forwards
                .learned(address, mac, &mut self.stack.egress);
            self.stack.receive(bytes, now);
        }
    }

    /// Fragments are of packets that are longer than a frame: no message of DHCP is among them.
    fn receive_fragment(&mut self, bytes: &[u8], source: Ipv4Addr, to_us: bool, now: Instant) {
        if to_us
            && self.subnet().is_guest(source)
            && let Some(whole) = self.reassembly.add(bytes, now)
        {
            self.receive_ipv4(&whole, to_us, now);
        }
    }

    /// Takes the whole and valid packet in the frame.
    fn receive_ipv4(&mut self, bytes: &[u8], to_us: bool, now: Instant) {
        let frame = EthernetFrame::new_unchecked(bytes);
        let ip = Ipv4Packet::new_unchecked(frame.payload());
        let packet = Packet {
            frame: bytes,
            source_mac: frame.src_addr(),
            source: ip.src_addr(),
            destination: ip.dst_addr(),
            payload: ip.payload(),
        };
        let protocol = ip.next_header();
        if protocol == IpProtocol::Udp && self.receive_dhcp(&packet) {
            return;
        }
        let subnet = self.subnet();
        if !to_us || !subnet.is_guest(packet.source) {
            return;
        }
        let reachable = subnet.is_own(packet.destination) || subnet.is_world(packet.destination);
        match protocol {
            IpProtocol::Tcp if reachable => {
                self.tcp
                    .receive(&packet, &self.upstream, &mut self.stack, now);
            }
            IpProtocol::Udp => self.receive_udp(&packet, now),
            IpProtocol::Icmp if reachable => {
                self.echo.receive(&packet, &mut self.stack.egress, now);
            }
            _ => {}
        }
    }

    /// To a client of a forward, or to the world.
    fn receive_udp(&mut self, packet: &Packet<'_>, now: Instant) {
        let Ok(udp) = UdpPacket::new_checked(packet.payload) else {
            return;
        };
        if !udp.verify_checksum(&packet.source.into(), &packet.destination.into()) {
            return;
        }
        let key = FlowKey {
            guest: SocketAddrV4::new(packet.source, udp.src_port()),
            peer: SocketAddrV4::new(packet.destination, udp.dst_port()),
        };
        if !self.udp_forwards.answer(key, udp.payload(), now) {
            let egress = &mut self.stack.egress;
            self.udp
                .receive(key, udp.payload(), packet, &self.upstream, egress, now);
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
            .find(|address| self.subnet().is_guest(*address) && !request.broadcast);
        let (mac, address) = match address {
            Some(address) => (request.client_hardware_address, address),
            None => (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST),
        };
        let source = SocketAddrV4::new(self.subnet().gateway(), DHCP_SERVER_PORT);
        let destination = SocketAddrV4::new(address, DHCP_CLIENT_PORT);
        self.stack
            .egress
            .send_udp(source, destination, mac, &payload);
        true
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
        self.udp_forwards.expire(now);
        self.echo.expire(now);
        self.reassembly.expire(now);
        if self.repeat_at.take_if(|when| *when <= now).is_some() {
            self.repeated = Some(now);
            self.stack.repeat();
            for mac in std::mem::take(&mut self.appeared) {
                if let Some(address) = self.neighbours.address(mac) {
                    // So that no question about the address comes first.
                    self.stack.expect(mac, address, now);
                }
            }
        }
        self.tcp.pump(&mut self.stack, now);
        self.stack.transmit(now);
        self.tcp.reap(&mut self.stack, now);
    }

    /// The frames that the gateway sends; to be emptied after [`Self::service`].
    pub(crate) fn outgoing(&mut self) -> &mut FrameQueue {
        &mut self.stack.egress.frames
    }

    /// In what time [`Self::service`] has something to do although nothing happened.
    pub(crate) fn delay(&mut self, now: Instant) -> Option<Duration> {
        let deadlines = [
            self.tcp.deadline(),
            self.udp.deadline(),
            self.udp_forwards.deadline(),
            self.echo.deadline(),
            self.repeat_at,
        ];
        let delays = deadlines
            .into_iter()
            .flatten()
            .map(|when| when.saturating_duration_since(now));
        delays.chain(self.stack.delay(now)).min()
    }

    /// What the operator should know since it was asked last: a kind and a text.
    pub(crate) fn warnings(&mut self) -> Vec<(&'static str, String)> {
        let refused = self.tcp.refused();
        let now = Told {
            refused,
            udp_closed: self.udp.closed() + self.udp_forwards.closed(),
            ping: self.echo.refused().is_some(),
        };
        let told = std::mem::replace(&mut self.told, now);
        let mut warnings = Vec::new();
        if refused.inwards > told.refused.inwards {
            let text = format!(
                "all {} connections to guests are taken; more are reset",
                self.limits.inwards
            );
            warnings.push(("inward_connections_refused", text));
        }
        if refused.outwards > told.refused.outwards {
            let text = format!(
                "all {} connections from guests are taken; more are reset",
                self.limits.outwards
            );
            warnings.push(("outward_connections_refused", text));
        }
        if now.udp_closed > told.udp_closed {
            let text =
                "all places of UDP flows are taken; those that were idle for longest are closed";
            warnings.push(("udp_flows_closed", text.to_owned()));
        }
        if let Some(error) = self.echo.refused().filter(|_| !told.ping) {
            let text = format!(
                "guests cannot ping the world, for this host gives the switch no ICMP socket \
                 ({error}): let the switch's group have them by the sysctl net.ipv4.ping_group_range"
            );
            warnings.push(("ping_unavailable", text));
        }
        warnings
    }

    /// The forwards, with real ports: TCP's first.
    pub(crate) fn forwards(&self) -> Vec<ForwardStatus> {
        let tcp = self.tcp.forwards();
        tcp.chain(self.udp_forwards.forwards()).collect()
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
            udp_flows: self.udp.flows() + self.udp_forwards.flows(),
            udp_flows_closed: self.udp.closed() + self.udp_forwards.closed(),
            subnet: self.subnet().to_string(),
            leases: self.dhcp.leases().map(lease).collect(),
        }
    }
}

/// The packet in a frame, unless it is broken.
fn valid_ipv4<'a>(frame: &EthernetFrame<&'a [u8]>) -> Option<Ipv4Packet<&'a [u8]>> {
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    (packet.version() == 4 && packet.verify_checksum()).then_some(packet)
}

#[cfg(test)]
mod tests;
