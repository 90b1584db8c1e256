//! UDP between guests and the world: a connected host socket for each flow.

use super::connection::FlowKey;
use super::datagram::{self, Datagram, MAX_PAYLOAD_LENGTH};
use super::upstream::Upstream;
use super::{GatewayToken, Packet};
use crate::frame_stream::FrameQueue;
use crate::poll_set::PollSet;
use crate::stream::ready_or_none;
use smoltcp::wire::{EthernetAddress, UdpPacket};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
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
}

/// The flows.
pub(crate) struct UdpRelay {
    flows: BTreeMap<FlowKey, Flow>,
    buffer: Vec<u8>,
}

impl UdpRelay {
    pub(crate) fn new() -> UdpRelay {
        // One more than fits tells a datagram that is too long.
        UdpRelay {
            flows: BTreeMap::new(),
            buffer: vec![0; MAX_PAYLOAD_LENGTH + 1],
        }
    }

    /// Takes a datagram from a guest. What the host does not take is dropped, as UDP may be.
    pub(crate) fn receive(&mut self, packet: &Packet<'_>, upstream: &Upstream, now: Instant) {
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
        if !self.flows.contains_key(&key) {
            let destination = upstream.translate(key.peer);
            let Some(socket) = destination.and_then(|to| connect(to).ok()) else {
                return;
            };
            self.close_idlest_if_full();
            self.flows.insert(
                key,
                Flow {
                    socket,
                    guest: packet.source_mac,
                    used: now,
                },
            );
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.used = now;
            flow.guest = packet.source_mac;
            let _sent = flow.socket.send(udp.payload());
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

    /// Answers have come: they go to the guest. One that does not fit into a frame is dropped.
    pub(crate) fn ready(&mut self, key: FlowKey, outgoing: &mut FrameQueue, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        for _ in 0..MAX_DATAGRAMS_A_TURN {
            match ready_or_none(|| flow.socket.recv(&mut self.buffer)) {
                Ok(Some(length)) if length <= MAX_PAYLOAD_LENGTH => {
                    flow.used = now;
                    let datagram = Datagram {
                        source: key.peer,
                        destination: key.guest,
                        destination_mac: flow.guest,
                        payload: &self.buffer[..length],
                    };
                    datagram::send(&datagram, outgoing);
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                // Nobody listens there (an ICMP error that came back): the guest's own time-out
                // tells it, as with a lost datagram.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
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

    fn close_idlest_if_full(&mut self) {
        if self.flows.len() >= MAX_FLOWS {
            let idlest = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(idlest) = idlest.map(|(key, _)| *key) {
                self.flows.remove(&idlest);
            }
        }
    }
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
