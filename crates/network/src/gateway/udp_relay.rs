//! UDP between guests and the world: a connected host socket for each flow.

use super::connection::FlowKey;
use super::egress::Egress;
use super::icmp_error::Quotation;
use super::upstream::Upstream;
use super::{GatewayToken, Packet, icmp_error};
use crate::poll_set::PollSet;
use crate::stream::ready_or_none;
use smoltcp::wire::{EthernetAddress, Icmpv4DstUnreachable, IpProtocol, Ipv4Repr};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Flows at the same time; beyond, the one that was idle for longest is closed.
const MAX_FLOWS: usize = 512;
/// A flow without a datagram in either direction for this time is closed (RFC 4787, 4.3 asks for two
/// minutes).
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Datagrams taken from one flow in one turn of the event loop.
const MAX_DATAGRAMS_A_TURN: usize = 64;

struct Flow {
    socket: UdpSocket,
    guest: EthernetAddress,
    used: Instant,
    /// The guest's last datagram, for an error that comes back.
    quotation: Quotation,
}

/// The flows.
pub(crate) struct UdpRelay {
    flows: BTreeMap<FlowKey, Flow>,
    /// Flows that were closed because all places were taken, since the start.
    closed: u64,
}

impl UdpRelay {
    pub(crate) fn new() -> UdpRelay {
        UdpRelay {
            flows: BTreeMap::new(),
            closed: 0,
        }
    }

    /// Takes a guest's datagram in `packet`. What the host does not take is dropped, as UDP may be; where
    /// nobody can be reached, the guest is told.
    pub(crate) fn receive(
        &mut self,
        key: FlowKey,
        payload: &[u8],
        packet: &Packet<'_>,
        upstream: &Upstream,
        egress: &mut Egress,
        now: Instant,
    ) {
        let quotation = quotation(packet);
        if !self.flows.contains_key(&key) {
            let destination = upstream.translate(key.peer);
            let Some(socket) = destination.and_then(|to| connect(to).ok()) else {
                // Not to what came by broadcast or was sent to many (RFC 1122, 3.2.2).
                let subnet = upstream.subnet;
                if subnet.is_own(packet.destination) || subnet.is_world(packet.destination) {
                    let reason = Icmpv4DstUnreachable::PortUnreachable;
                    icmp_error::send(reason, &quotation, packet.source_mac, egress);
                }
                return;
            };
            self.close_idlest_if_full();
            self.flows.insert(
                key,
                Flow {
                    socket,
                    guest: packet.source_mac,
                    used: now,
                    quotation: quotation.clone(),
                },
            );
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.used = now;
            flow.guest = packet.source_mac;
            flow.quotation = quotation;
            // An error of a former datagram may come back first (udp(7)): this one is sent then.
            if let Err(error) = flow.socket.send(payload)
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                flow.refuse(egress);
                let _sent = flow.socket.send(payload);
            }
        }
    }

    /// Adds the flows' sockets to `set`.
    pub(crate) fn interests<'fd, T: From<GatewayToken>>(&'fd self, set: &mut PollSet<'fd, T>) {
        for (key, flow) in &self.flows {
            set.add(
                flow.socket.as_fd(),
                GatewayToken::Udp(*key).into(),
                true,
                false,
            );
        }
    }

    /// Answers have come: they go to the guest. `buffer` holds the longest datagram.
    pub(crate) fn ready(
        &mut self,
        key: FlowKey,
        buffer: &mut [u8],
        egress: &mut Egress,
        now: Instant,
    ) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        for _ in 0..MAX_DATAGRAMS_A_TURN {
            match ready_or_none(|| flow.socket.recv(buffer)) {
                Ok(Some(length)) => {
                    flow.used = now;
                    egress.send_udp(key.peer, key.guest, flow.guest, &buffer[..length]);
                }
                Ok(None) => return,
                // Nobody listens there: the ICMP error that came back goes on to the guest.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    flow.refuse(egress);
                }
                Err(_) => {
                    self.flows.remove(&key);
                    return;
                }
            }
        }
    }

    /// Closes flows that were idle for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.flows
            .retain(|_, flow| now.saturating_duration_since(flow.used) < IDLE_TIMEOUT);
    }

    /// When a flow has been idle for too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.flows
            .values()
            .map(|flow| flow.used + IDLE_TIMEOUT)
            .min()
    }

    /// Flows that exist now.
    pub(crate) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Flows that found no place any more, since the start.
    pub(crate) fn closed(&self) -> u64 {
        self.closed
    }

    fn close_idlest_if_full(&mut self) {
        if self.flows.len() >= MAX_FLOWS {
            let idlest = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(idlest) = idlest.map(|(key, _)| *key) {
                self.flows.remove(&idlest);
                self.closed += 1;
            }
        }
    }
}

impl Flow {
    /// Tells the guest that nobody listens where its last datagram went.
    fn refuse(&self, egress: &mut Egress) {
        let reason = Icmpv4DstUnreachable::PortUnreachable;
        icmp_error::send(reason, &self.quotation, self.guest, egress);
    }
}

fn quotation(packet: &Packet<'_>) -> Quotation {
    let header = Ipv4Repr {
        src_addr: packet.source,
        dst_addr: packet.destination,
        next_header: IpProtocol::Udp,
        payload_len: packet.payload.len(),
        hop_limit: 64,
    };
    Quotation::new(header, packet.payload)
}

fn connect(destination: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match destination {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(destination)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
