//! One TCP connection through the gateway: bytes between a host socket and a socket of the stack,
//! in both directions, with back-pressure, half-closes and resets.

use crate::poll_set::Readiness;
use crate::stream::ready_or_none;
use rustix::net::sockopt;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a guest may take to accept a forwarded connection.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// A host connection that was silent for this time is asked whether it is still there, and given up
/// after so many questions without an answer: after five minutes in all.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_PROBES: u32 = 6;
/// How long the stack may take to send a reset, if it does not know where the guest is.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// A silent host connection is asked whether it is still there, so that one whose other end has
/// vanished gives its place back. A host that cannot do so keeps it.
fn keep_alive(host: &TcpStream) {
    let _set = sockopt::set_socket_keepalive(host, true)
        .and_then(|()| sockopt::set_tcp_keepidle(host, KEEP_ALIVE_IDLE))
        .and_then(|()| sockopt::set_tcp_keepintvl(host, KEEP_ALIVE_INTERVAL))
        .and_then(|()| sockopt::set_tcp_keepcnt(host, KEEP_ALIVE_PROBES));
}

/// The two ends of a connection as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowKey {
    /// The guest's address and port.
    pub(crate) guest: SocketAddrV4,
    /// The other end's.
    pub(crate) peer: SocketAddrV4,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// A client of the host, through a forward.
    Inwards,
    /// A guest.
    Outwards,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The guest has not accepted it yet.
    Opening { until: Instant },
    /// Bytes may flow.
    Open,
    /// Both directions ended in order; the stack still says goodbye.
    Ended,
    /// It was broken off; the stack still has to tell the guest.
    Aborted { until: Instant },
}

/// A proxied connection.
pub(crate) struct Connection {
    pub(crate) handle: SocketHandle,
    pub(crate) key: FlowKey,
    pub(crate) direction: Direction,
    host: TcpStream,
    phase: Phase,
    /// Reading from the host may bring something.
    readable: bool,
    /// Writing to the host may succeed.
    writable: bool,
    /// The host sends no more, and the guest knows.
    host_finished: bool,
    /// The guest sends no more, and the host knows.
    guest_finished: bool,
    /// TIME-WAIT was seen, and whatever it had to acknowledge is sent.
    lingered: bool,
}

impl Connection {
    /// Joins a connected, non-blocking host socket and a socket of the stack that is being opened.
    pub(crate) fn new(
        handle: SocketHandle,
        key: FlowKey,
        direction: Direction,
        host: TcpStream,
        now: Instant,
    ) -> Connection {
        keep_alive(&host);
        Connection {
            handle,
            key,
            direction,
            host,
            phase: Phase::Opening {
                until: now + OPENING_TIMEOUT,
            },
            readable: true,
            writable: true,
            host_finished: false,
            guest_finished: false,
            lingered: false,
        }
    }

    /// The host socket with what it is waited for: reading, writing.
    pub(crate) fn interest(&self, socket: &tcp::Socket<'_>) -> (BorrowedFd<'_>, bool, bool) {
        let open = self.phase == Phase::Open;
        let read = open && !self.host_finished && !self.readable && socket.can_send();
        let write = open && !self.writable && socket.can_recv();
        (self.host.as_fd(), read, write)
    }

    /// The poll said so.
    pub(crate) fn ready(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable;
        self.writable |= readiness.writable;
    }

    /// When the connection is given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening { until } | Phase::Aborted { until } => Some(until),
            Phase::Open | Phase::Ended => None,
        }
    }

    /// Moves what can be moved.
    pub(crate) fn pump(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) {
        if let Phase::Opening { until } = self.phase {
            match socket.state() {
                State::Listen | State::SynSent | State::SynReceived if now < until => return,
                State::Listen | State::SynSent | State::SynReceived => {
                    return self.abort(socket, now);
                }
                _ => self.phase = Phase::Open,
            }
        }
        if self.phase != Phase::Open {
            return;
        }
        // A reset is found by the state, before what it cut off is passed on.
        let moved = self
            .guest_to_host(socket)
            .and_then(|()| self.host_to_guest(socket));
        if moved.is_err() {
            self.abort(socket, now);
        } else if self.host_finished && self.guest_finished {
            self.phase = Phase::Ended;
        } else if socket.state() == State::Closed {
            // The guest reset it, or did not acknowledge for too long.
            self.abort(socket, now);
        }
    }

    fn guest_to_host(&mut self, socket: &mut tcp::Socket<'_>) -> io::Result<()> {
        while self.writable && socket.can_recv() {
            let host = &mut self.host;
            let written = socket.recv(|bytes| match ready_or_none(|| host.write(bytes)) {
                Ok(Some(length)) => (length, Ok(Some((length, bytes.len())))),
                Ok(None) => (0, Ok(None)),
                Err(error) => (0, Err(error)),
            });
            match written.map_err(|_| io::ErrorKind::NotConnected)?? {
                Some((written, offered)) => self.writable = written == offered,
                None => self.writable = false,
            }
        }
        let guest_closed = matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if guest_closed && !self.guest_finished && !socket.can_recv() {
            self.guest_finished = true;
            match self.host.shutdown(Shutdown::Write) {
                Err(error) if error.kind() != io::ErrorKind::NotConnected => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn host_to_guest(&mut self, socket: &mut tcp::Socket<'_>) -> io::Result<()> {
        while self.readable && !self.host_finished && socket.can_send() {
            let host = &mut self.host;
            let read = socket.send(|room| match ready_or_none(|| host.read(room)) {
                Ok(Some(length)) => (length, Ok(Some((length, room.len())))),
                Ok(None) => (0, Ok(None)),
                Err(error) => (0, Err(error)),
            });
            match read.map_err(|_| io::ErrorKind::NotConnected)?? {
                Some((0, _)) => {
                    self.host_finished = true;
                    socket.close();
                }
                // Less than there was room for: the host has no more for now.
                Some((read, room)) => self.readable = read == room,
                None => self.readable = false,
            }
        }
        Ok(())
    }

    /// Breaks the connection off on both sides.
    pub(crate) fn abort(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) {
        socket.abort();
        self.phase = Phase::Aborted {
            until: now + RESET_TIMEOUT,
        };
        self.reset_host();
    }

    /// Makes closing the host socket a reset: that is what a zero linger time does (socket(7)).
    pub(crate) fn reset_host(&self) {
        let _set = sockopt::set_socket_linger(&self.host, Some(Duration::ZERO));
    }

    /// Whether the guest has no more part in it: it reset the connection, was told that it is broken
    /// off, or closed it in order. Such a connection gives way to a new one between the same ports.
    pub(crate) fn is_over_for_guest(&self, socket: &tcp::Socket<'_>) -> bool {
        match socket.state() {
            // One that was reset before it was open listens again (RFC 9293, 3.10.7.4).
            State::Closed | State::Listen => true,
            // The host may still have to take what the guest sent.
            State::TimeWait => !socket.can_recv(),
            _ => matches!(self.phase, Phase::Aborted { .. }),
        }
    }

    /// Lets the host know of the end before its time: an orderly one if both sides had finished.
    pub(crate) fn finish_host(&self) {
        if self.phase != Phase::Ended {
            self.reset_host();
        }
    }

    /// Whether nothing is left to do. To be asked after the stack has transmitted.
    pub(crate) fn is_over(&mut self, socket: &tcp::Socket<'_>, now: Instant) -> bool {
        match self.phase {
            Phase::Opening { .. } | Phase::Open => false,
            Phase::Aborted { until } => socket.remote_endpoint().is_none() || now >= until,
            Phase::Ended => match socket.state() {
                State::Closed => true,
                State::TimeWait => std::mem::replace(&mut self.lingered, true),
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_hosts_end_that_vanished_is_noticed_within_five_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (host, _) = listener.accept().unwrap();
        let key = FlowKey {
            guest: "10.0.2.15:80".parse().unwrap(),
            peer: "10.0.2.2:1024".parse().unwrap(),
        };
        let handle = SocketHandle::default();
        let now = Instant::now();
        let connection = Connection::new(handle, key, Direction::Inwards, host, now);
        let host = &connection.host;
        assert!(sockopt::socket_keepalive(host).unwrap());
        let silent = sockopt::tcp_keepidle(host).unwrap();
        let asked = sockopt::tcp_keepintvl(host).unwrap() * sockopt::tcp_keepcnt(host).unwrap();
        assert_eq!(silent + asked, Duration::from_secs(300));
    }
}
