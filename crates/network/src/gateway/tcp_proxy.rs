//! All TCP connections through the gateway: forwards from host ports to guests, and guests'
//! connections to the world.

use super::connection::{Connection, Direction, FlowKey};
use super::stack::Stack;
use super::upstream::Upstream;
use super::{GatewayToken, Packet};
use crate::options::{ConnectionLimits, Forward, Protocol};
use crate::poll_set::{PollSet, Readiness};
use crate::status::ForwardStatus;
use crate::stream::ready_or_none;
use crate::subnet::Subnet;
use crate::switch::SwitchError;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smoltcp::wire::TcpPacket;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections taken from one listener in one turn of the event loop.
const MAX_ACCEPTED_A_TURN: usize = 64;
/// How long the host may take to connect to the world for a guest.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// After the host ran out of descriptors, nothing is accepted for this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Ports of the gateway for forwarded connections.
const FIRST_PORT: u16 = 32_768;

struct ForwardListener {
    listener: TcpListener,
    host: SocketAddr,
    guest: SocketAddrV4,
    accepted: u64,
    /// Somebody may wait.
    ready: bool,
}

/// A connection that the host is opening for a guest, with the segment by which the guest asked.
struct Pending {
    socket: OwnedFd,
    frame: Vec<u8>,
    until: Instant,
    /// It is connected, or refused.
    answered: bool,
}

/// Connections that were reset because their direction's places were taken, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refused {
    pub(crate) inwards: u64,
    pub(crate) outwards: u64,
}

/// The connections.
pub(crate) struct TcpProxy {
    subnet: Subnet,
    forwards: Vec<ForwardListener>,
    connections: Vec<Connection>,
    pending: BTreeMap<FlowKey, Pending>,
    next_port: u16,
    outbound: u64,
    limits: ConnectionLimits,
    refused: Refused,
    accept_again: Option<Instant>,
}

impl TcpProxy {
    /// Listens on the host ports of those forwards that are TCP's.
    pub(crate) fn open(
        forwards: &[Forward],
        subnet: Subnet,
        limits: ConnectionLimits,
    ) -> Result<TcpProxy, SwitchError> {
        let listen = |forward: &Forward| {
            let wrong = |source| SwitchError::Forward {
                address: forward.host,
                source,
            };
            let listener = TcpListener::bind(forward.host).map_err(wrong)?;
            listener.set_nonblocking(true).map_err(wrong)?;
            let host = listener.local_addr().map_err(wrong)?;
            Ok(ForwardListener {
                listener,
                host,
                guest: forward.guest(subnet),
                accepted: 0,
                ready: false,
            })
        };
        let tcp = forwards
            .iter()
            .filter(|forward| forward.protocol == Protocol::Tcp);
        Ok(TcpProxy {
            subnet,
            forwards: tcp.map(listen).collect::<Result<_, SwitchError>>()?,
            connections: Vec::new(),
            pending: BTreeMap::new(),
            next_port: FIRST_PORT,
            outbound: 0,
            limits,
            refused: Refused::default(),
            accept_again: None,
        })
    }

    /// Adds the host's sockets to `set`.
    pub(crate) fn interests<'fd, T: From<GatewayToken>>(
        &'fd self,
        stack: &Stack,
        set: &mut PollSet<'fd, T>,
    ) {
        let accept = self.accept_again.is_none();
        for (index, forward) in self.forwards.iter().enumerate() {
            set.add(
                forward.listener.as_fd(),
                GatewayToken::Forward(index).into(),
                accept,
                false,
            );
        }
        for (index, connection) in self.connections.iter().enumerate() {
            let (fd, read, write) = connection.interest(stack.socket_ref(connection.handle));
            set.add(fd, GatewayToken::Connection(index).into(), read, write);
        }
        for (key, pending) in &self.pending {
            set.add(
                pending.socket.as_fd(),
                GatewayToken::Pending(*key).into(),
                false,
                true,
            );
        }
    }

    /// A listener has somebody who waits.
    pub(crate) fn forward_ready(&mut self, index: usize) {
        if let Some(forward) = self.forwards.get_mut(index) {
            forward.ready = true;
        }
    }

    /// A connection's host socket is ready.
    pub(crate) fn connection_ready(&mut self, index: usize, readiness: Readiness) {
        if let Some(connection) = self.connections.get_mut(index) {
            connection.ready(readiness);
        }
    }

    /// The host's connection for a guest is there, or refused.
    pub(crate) fn pending_ready(&mut self, key: FlowKey) {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.answered = true;
        }
    }

    /// Takes a segment from a guest: opens the host's side first if it opens a connection, else
    /// gives it to the stack.
    pub(crate) fn receive(
        &mut self,
        packet: &Packet<'_>,
        upstream: &Upstream,
        stack: &mut Stack,
        now: Instant,
    ) {
        let Ok(segment) = TcpPacket::new_checked(packet.payload) else {
            return;
        };
        let key = FlowKey {
            guest: SocketAddrV4::new(packet.source, segment.src_port()),
            peer: SocketAddrV4::new(packet.destination, segment.dst_port()),
        };
        let opens = segment.syn() && !segment.ack() && !segment.rst();
        if opens {
            self.open_for_guest(key, packet.frame, upstream, stack, now);
            return;
        }
        if segment.rst() {
            // A guest that gives up before the host has answered.
            self.pending.remove(&key);
        }
        stack.receive(packet.frame, now);
        if segment.rst() {
            // At once, not at the end of the turn: the next segment may open the port anew.
            self.remove_if_over(key, stack);
        }
    }

    /// A guest opens a connection. Whoever opens one has no other between the same two ports, so
    /// what is left of a former one ends here.
    fn open_for_guest(
        &mut self,
        key: FlowKey,
        frame: &[u8],
        upstream: &Upstream,
        stack: &mut Stack,
        now: Instant,
    ) {
        self.remove_if_over(key, stack);
        if self
            .connections
            .iter()
            .any(|connection| connection.key == key)
        {
            // A repeated segment, or a guest that forgot its connection: the stack knows (RFC 9293,
            // 3.5.1).
            stack.receive(frame, now);
        } else if let Some(pending) = self.pending.get_mut(&key) {
            // A repetition, or a new attempt with another initial sequence number.
            pending.frame = frame.to_vec();
        } else {
            if self.count(Direction::Outwards) >= self.limits.outwards {
                self.refused.outwards += 1;
                // Nobody listens: the stack resets it.
                return stack.receive(frame, now);
            }
            let destination = upstream.translate(key.peer);
            match destination.and_then(|destination| connect(destination).ok()) {
                Some(socket) => {
                    let pending = Pending {
                        socket,
                        frame: frame.to_vec(),
                        until: now + CONNECT_TIMEOUT,
                        answered: false,
                    };
                    self.pending.insert(key, pending);
                }
                // Nobody listens there: the stack resets it.
                None => stack.receive(frame, now),
            }
        }
    }

    /// Forgets the connection of `key` if the guest has no more part in it.
    fn remove_if_over(&mut self, key: FlowKey, stack: &mut Stack) {
        let over = |connection: &Connection| {
            connection.key == key
                && connection.is_over_for_guest(stack.socket_ref(connection.handle))
        };
        if let Some(index) = self.connections.iter().position(over) {
            let connection = self.connections.swap_remove(index);
            connection.finish_host();
            stack.remove(connection.handle);
        }
    }

    /// Opens what became ready and moves bytes. Before the stack transmits.
    pub(crate) fn pump(&mut self, stack: &mut Stack, now: Instant) {
        self.accept_again = self.accept_again.filter(|again| *again > now);
        self.accept_forwarded(stack, now);
        self.open_outbound(stack, now);
        for connection in &mut self.connections {
            connection.pump(stack.socket(connection.handle), now);
        }
    }

    /// Forgets what is over. After the stack has transmitted.
    pub(crate) fn reap(&mut self, stack: &mut Stack, now: Instant) {
        self.connections.retain_mut(|connection| {
            let over = connection.is_over(stack.socket_ref(connection.handle), now);
            if over {
                stack.remove(connection.handle);
            }
            !over
        });
    }

    /// When something is given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connections = self.connections.iter().filter_map(Connection::deadline);
        let pending = self.pending.values().map(|pending| pending.until);
        connections.chain(pending).chain(self.accept_again).min()
    }

    /// The forwards, with real ports.
    pub(crate) fn forwards(&self) -> impl Iterator<Item = ForwardStatus> {
        self.forwards.iter().map(|forward| ForwardStatus {
            protocol: Protocol::Tcp.to_string(),
            host: forward.host.to_string(),
            guest: forward.guest.to_string(),
            accepted: forward.accepted,
        })
    }

    /// Connections that exist now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Connections that guests opened.
    pub(crate) fn outbound(&self) -> u64 {
        self.outbound
    }

    /// Connections of this direction that exist or are being opened.
    pub(crate) fn count(&self, direction: Direction) -> usize {
        let open = self.connections.iter();
        let open = open.filter(|connection| connection.direction == direction);
        match direction {
            Direction::Inwards => open.count(),
            Direction::Outwards => open.count() + self.pending.len(),
        }
    }

    /// Connections that found no place.
    pub(crate) fn refused(&self) -> Refused {
        self.refused
    }

    fn accept_forwarded(&mut self, stack: &mut Stack, now: Instant) {
        for index in 0..self.forwards.len() {
            if !std::mem::take(&mut self.forwards[index].ready) {
                continue;
            }
            for _ in 0..MAX_ACCEPTED_A_TURN {
                let full = self.count(Direction::Inwards) >= self.limits.inwards;
                let forward = &mut self.forwards[index];
                match ready_or_none(|| forward.listener.accept()) {
                    Ok(Some((host, _))) if full => {
                        self.refused.inwards += 1;
                        // Told at once, rather than left to wait: a reset.
                        let _set = sockopt::set_socket_linger(&host, Some(Duration::ZERO));
                    }
                    Ok(Some((host, _))) => {
                        forward.accepted += 1;
                        let guest = forward.guest;
                        // A client that is gone already, or no port left: it is closed.
                        let _joined = self.join_forwarded(host, guest, stack, now);
                    }
                    Ok(None) => break,
                    Err(error) if is_clients_fault(&error) => {}
                    Err(_) => {
                        self.accept_again = Some(now + ACCEPT_PAUSE);
                        break;
                    }
                }
            }
        }
    }

    fn join_forwarded(
        &mut self,
        host: TcpStream,
        guest: SocketAddrV4,
        stack: &mut Stack,
        now: Instant,
    ) -> io::Result<()> {
        host.set_nonblocking(true)?;
        host.set_nodelay(true)?;
        let key = self
            .free_key(guest)
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let handle = stack
            .connect(guest, key.peer.port())
            .map_err(|_| io::ErrorKind::AddrNotAvailable)?;
        self.connections
            .push(Connection::new(handle, key, Direction::Inwards, host, now));
        Ok(())
    }

    /// The next port of the gateway that has no connection with `guest`.
    fn free_key(&mut self, guest: SocketAddrV4) -> Option<FlowKey> {
        for _ in FIRST_PORT..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let key = FlowKey {
                guest,
                peer: SocketAddrV4::new(self.subnet.gateway(), port),
            };
            if self
                .connections
                .iter()
                .all(|connection| connection.key != key)
            {
                return Some(key);
            }
        }
        None
    }

    fn open_outbound(&mut self, stack: &mut Stack, now: Instant) {
        let answered =
            |_: &FlowKey, pending: &mut Pending| pending.answered || now >= pending.until;
        let answered: Vec<_> = self.pending.extract_if(.., answered).collect();
        for (key, pending) in answered {
            let connected = pending.answered
                && matches!(sockopt::socket_error(&pending.socket), Ok(Ok(())))
                && sockopt::set_tcp_nodelay(&pending.socket, true).is_ok();
            if !connected {
                // Nobody listens in the stack: it resets the connection.
                stack.receive(&pending.frame, now);
            } else if let Some(handle) = stack.accept(&pending.frame, key.peer, now) {
                let host = TcpStream::from(pending.socket);
                self.connections
                    .push(Connection::new(handle, key, Direction::Outwards, host, now));
                self.outbound += 1;
            }
        }
    }
}

impl Drop for TcpProxy {
    /// Clients learn at once that the switch has gone, rather than see an orderly end.
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.reset_host();
        }
    }
}

/// Begins to connect to `destination`, without waiting.
fn connect(destination: SocketAddr) -> io::Result<OwnedFd> {
    let family = match destination {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &destination) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Errors of `accept` that concern one client only (accept(2)).
fn is_clients_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut
    )
}
