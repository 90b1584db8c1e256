//! UDP ports of the host that lead to guests: each client of each is a flow with a port of the
//! gateway, by which the guest's answers find back.

use super::GatewayToken;
use super::connection::FlowKey;
use super::egress::Egress;
use super::neighbours::Neighbours;
use crate::options::{Forward, Protocol};
use crate::poll_set::PollSet;
use crate::status::ForwardStatus;
use crate::stream::ready_or_none;
use crate::subnet::Subnet;
use crate::switch::SwitchError;
use smoltcp::wire::EthernetAddress;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Clients at the same time; beyond, the one that was idle for longest is forgotten.
const MAX_FLOWS: usize = 512;
/// A client that neither sent nor got anything for this time is forgotten (RFC 4787, 4.3 asks for two
/// minutes).
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Datagrams taken from one socket in one turn of the event loop.
const MAX_DATAGRAMS_A_TURN: usize = 64;
/// What waits for guests to say where they are, in octets; more is dropped, as UDP may be.
const MAX_WAITING: usize = 256 << 10;
/// What a datagram that waits takes beside its octets.
const OVERHEAD: usize = 64;
/// How long it waits.
const WAIT_TIMEOUT: Duration = Duration::from_secs(3);
/// Ports of the gateway for clients.
const FIRST_PORT: u16 = 32_768;

struct ForwardSocket {
    socket: UdpSocket,
    host: SocketAddr,
    guest: SocketAddrV4,
    /// Clients since the start.
    accepted: u64,
}

struct Flow {
    forward: usize,
    client: SocketAddr,
    used: Instant,
}

/// A datagram whose guest is being asked where it is.
struct Waiting {
    key: FlowKey,
    payload: Vec<u8>,
    until: Instant,
}

/// The forwards with their flows.
pub(crate) struct UdpForwards {
    subnet: Subnet,
    forwards: Vec<ForwardSocket>,
    flows: BTreeMap<FlowKey, Flow>,
    clients: BTreeMap<(usize, SocketAddr), FlowKey>,
    next_port: u16,
    waiting: VecDeque<Waiting>,
    /// Flows that were forgotten because all places were taken, since the start.
    closed: u64,
}

impl UdpForwards {
    /// Opens the host ports of those forwards that are UDP's.
    pub(crate) fn open(forwards: &[Forward], subnet: Subnet) -> Result<UdpForwards, SwitchError> {
        let open = |forward: &Forward| {
            let wrong = |source| SwitchError::Forward {
                address: forward.host,
                source,
            };
            let socket = UdpSocket::bind(forward.host).map_err(wrong)?;
            socket.set_nonblocking(true).map_err(wrong)?;
            Ok(ForwardSocket {
                host: socket.local_addr().map_err(wrong)?,
                socket,
                guest: forward.guest(subnet),
                accepted: 0,
            })
        };
        let udp = forwards
            .iter()
            .filter(|forward| forward.protocol == Protocol::Udp);
        Ok(UdpForwards {
            subnet,
            forwards: udp.map(open).collect::<Result<_, SwitchError>>()?,
            flows: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_port: FIRST_PORT,
            waiting: VecDeque::new(),
            closed: 0,
        })
    }

    /// Adds the host's sockets to `set`.
    pub(crate) fn interests<'fd, T: From<GatewayToken>>(&'fd self, set: &mut PollSet<'fd, T>) {
        for (index, forward) in self.forwards.iter().enumerate() {
            let token = GatewayToken::UdpForward(index).into();
            set.add(forward.socket.as_fd(), token, true, false);
        }
    }

    /// Clients have sent something: it goes to the guest. `buffer` holds the longest datagram.
    pub(crate) fn ready(
        &mut self,
        index: usize,
        buffer: &mut [u8],
        neighbours: &mut Neighbours,
        egress: &mut Egress,
        now: Instant,
    ) {
        for _ in 0..MAX_DATAGRAMS_A_TURN {
            let Some(forward) = self.forwards.get(index) else {
                return;
            };
            // Errors are those of answers to clients that are gone.
            let received = ready_or_none(|| forward.socket.recv_from(buffer));
            let (length, client) = match received {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(_) => continue,
            };
            if let Some(key) = self.flow(index, client, now) {
                self.deliver(key, &buffer[..length], neighbours, egress, now);
            }
        }
    }

    fn deliver(
        &mut self,
        key: FlowKey,
        payload: &[u8],
        neighbours: &mut Neighbours,
        egress: &mut Egress,
        now: Instant,
    ) {
        let guest = *key.guest.ip();
        let (mac, ask) = neighbours.find(guest, now);
        if ask {
            egress.ask_for(guest, self.subnet);
        }
        if let Some(mac) = mac {
            return egress.send_udp(key.peer, key.guest, mac, payload);
        }
        let held: usize = self
            .waiting
            .iter()
            .map(|waiting| waiting.payload.len() + OVERHEAD)
            .sum();
        if held + payload.len() + OVERHEAD <= MAX_WAITING {
            self.waiting.push_back(Waiting {
                key,
                payload: payload.to_vec(),
                until: now + WAIT_TIMEOUT,
            });
        }
    }

    /// It is known where a guest is: what waited for that is sent.
    pub(crate) fn learned(&mut self, guest: Ipv4Addr, mac: EthernetAddress, egress: &mut Egress) {
        self.waiting.retain(|waiting| {
            let now_known = *waiting.key.guest.ip() == guest;
            if now_known {
                egress.send_udp(waiting.key.peer, waiting.key.guest, mac, &waiting.payload);
            }
            !now_known
        });
    }

    /// A guest's datagram, if it answers a client: it goes there. False when it does not.
    pub(crate) fn answer(&mut self, key: FlowKey, payload: &[u8], now: Instant) -> bool {
        let Some(flow) = self.flows.get_mut(&key) else {
            return false;
        };
        flow.used = now;
        if let Some(forward) = self.forwards.get(flow.forward) {
            // What the host does not take is dropped, as UDP may be.
            let _sent = forward.socket.send_to(payload, flow.client);
        }
        true
    }

    /// The client's flow, begun if it is new. `None` when no port is left.
    fn flow(&mut self, forward: usize, client: SocketAddr, now: Instant) -> Option<FlowKey> {
        if let Some(key) = self.clients.get(&(forward, client)) {
            if let Some(flow) = self.flows.get_mut(key) {
                flow.used = now;
            }
            return Some(*key);
        }
        if self.flows.len() >= MAX_FLOWS {
            let idlest = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            let idlest = idlest.map(|(key, _)| *key)?;
            self.forget(idlest);
            self.closed += 1;
        }
        let guest = self.forwards.get(forward)?.guest;
        let key = self.free_key(guest)?;
        self.forwards[forward].accepted += 1;
        let used = now;
        self.flows.insert(
            key,
            Flow {
                forward,
                client,
                used,
            },
        );
        self.clients.insert((forward, client), key);
        Some(key)
    }

    /// The next port of the gateway that has no flow with `guest`.
    fn free_key(&mut self, guest: SocketAddrV4) -> Option<FlowKey> {
        for _ in FIRST_PORT..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let peer = SocketAddrV4::new(self.subnet.gateway(), port);
            let key = FlowKey { guest, peer };
            if !self.flows.contains_key(&key) {
                return Some(key);
            }
        }
        None
    }

    fn forget(&mut self, key: FlowKey) {
        if let Some(flow) = self.flows.remove(&key) {
            self.clients.remove(&(flow.forward, flow.client));
        }
    }

    /// Forgets what was idle, and drops what waited, for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.waiting.retain(|waiting| waiting.until > now);
        let idle = |flow: &Flow| now.saturating_duration_since(flow.used) >= IDLE_TIMEOUT;
        let idle: Vec<_> = self
            .flows
            .iter()
            .filter_map(|(key, flow)| idle(flow).then_some(*key))
            .collect();
        for key in idle {
            self.forget(key);
        }
    }

    /// When something is forgotten or dropped.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let flows = self.flows.values().map(|flow| flow.used + IDLE_TIMEOUT);
        let waiting = self.waiting.front().map(|waiting| waiting.until);
        flows.chain(waiting).min()
    }

    /// The forwards, with real ports.
    pub(crate) fn forwards(&self) -> impl Iterator<Item = ForwardStatus> {
        self.forwards.iter().map(|forward| ForwardStatus {
            protocol: Protocol::Udp.to_string(),
            host: forward.host.to_string(),
            guest: forward.guest.to_string(),
            accepted: forward.accepted,
        })
    }

    /// Flows that exist now.
    pub(crate) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Flows that found no place any more, since the start.
    pub(crate) fn closed(&self) -> u64 {
        self.closed
    }
}
