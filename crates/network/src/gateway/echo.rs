//! Echo requests (RFC 792): the gateway answers its own, and passes those to the world on by the host's
//! unprivileged ICMP sockets, where the host has them (icmp(7), `ping_group_range`).

use super::egress::{Egress, Route};
use super::icmp_error::{self, Quotation};
use super::{GatewayToken, Packet};
use crate::poll_set::PollSet;
use crate::stream::ready_or_none;
use crate::subnet::Subnet;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, send, socket_with,
};
use smoltcp::wire::{
    EthernetAddress, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Repr,
};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Flows at the same time; beyond, the one that was idle for longest is closed.
const MAX_FLOWS: usize = 256;
/// A flow without a message in either direction for this time is closed (RFC 5508, 3.2 asks for a
/// minute).
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages taken from one flow in one turn of the event loop.
const MAX_MESSAGES_A_TURN: usize = 64;

/// One `ping` of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EchoKey {
    guest: Ipv4Addr,
    peer: Ipv4Addr,
    identifier: u16,
}

struct Flow {
    socket: OwnedFd,
    guest: EthernetAddress,
    used: Instant,
}

/// The flows.
pub(crate) struct EchoRelay {
    subnet: Subnet,
    flows: BTreeMap<EchoKey, Flow>,
    /// Why the host lets nobody ping, once it did not.
    refused: Option<io::Error>,
}

impl EchoRelay {
    pub(crate) fn new(subnet: Subnet) -> EchoRelay {
        EchoRelay {
            subnet,
            flows: BTreeMap::new(),
            refused: None,
        }
    }

    /// Takes an ICMP message from a guest; all but echo requests are ignored.
    pub(crate) fn receive(&mut self, packet: &Packet<'_>, egress: &mut Egress, now: Instant) {
        let Ok(message) = Icmpv4Packet::new_checked(packet.payload) else {
            return;
        };
        if message.msg_type() != Icmpv4Message::EchoRequest || !message.verify_checksum() {
            return;
        }
        let key = EchoKey {
            guest: packet.source,
            peer: packet.destination,
            identifier: message.echo_ident(),
        };
        if self.subnet.is_own(packet.destination) {
            reply(key, packet.source_mac, packet.payload.to_vec(), egress);
        } else if self.subnet.is_world(packet.destination)
            && let Err(error) = self.pass_on(key, packet, now)
        {
            let quotation = Quotation::new(header(packet), packet.payload);
            icmp_error::send(reason(error), &quotation, packet.source_mac, egress);
        }
    }

    fn pass_on(&mut self, key: EchoKey, packet: &Packet<'_>, now: Instant) -> Result<(), Errno> {
        if !self.flows.contains_key(&key) {
            let socket = self.open(key.peer)?;
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
        let Some(flow) = self.flows.get_mut(&key) else {
            return Ok(());
        };
        flow.used = now;
        flow.guest = packet.source_mac;
        match send(&flow.socket, packet.payload, SendFlags::empty()) {
            // A full buffer drops, as a network does.
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => Ok(()),
            Err(error) => {
                self.flows.remove(&key);
                Err(error)
            }
        }
    }

    /// A socket that pings `peer`, if the host lets this process have one.
    fn open(&mut self, peer: Ipv4Addr) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            flags,
            Some(ipproto::ICMP),
        )
        .inspect_err(|error| self.refused = Some((*error).into()))?;
        rustix::net::connect(&socket, &SocketAddrV4::new(peer, 0))?;
        Ok(socket)
    }

    /// Adds the flows' sockets to `set`.
    pub(crate) fn interests<'fd, T: From<GatewayToken>>(&'fd self, set: &mut PollSet<'fd, T>) {
        for (key, flow) in &self.flows {
            let token = GatewayToken::Echo(*key).into();
            set.add(flow.socket.as_fd(), token, true, false);
        }
    }

    /// Answers have come: they go to the guest. `buffer` holds the longest message.
    pub(crate) fn ready(
        &mut self,
        key: EchoKey,
        buffer: &mut [u8],
        egress: &mut Egress,
        now: Instant,
    ) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        for _ in 0..MAX_MESSAGES_A_TURN {
            let received =
                ready_or_none(|| Ok(recv(&flow.socket, &mut *buffer, RecvFlags::empty())?));
            match received {
                Ok(Some((_, length))) => {
                    flow.used = now;
                    let message = buffer[..length.min(buffer.len())].to_vec();
                    let echo = Icmpv4Packet::new_checked(&message[..])
                        .is_ok_and(|message| message.msg_type() == Icmpv4Message::EchoReply);
                    if echo {
                        reply(key, flow.guest, message, egress);
                    }
                }
                Ok(None) => return,
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
        let flows = self.flows.values();
        flows.map(|flow| flow.used + IDLE_TIMEOUT).min()
    }

    /// Why the host lets this process not ping, if that is so.
    pub(crate) fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
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

/// Sends `message`, an echo message, to the guest as the reply to its `ping`.
fn reply(key: EchoKey, guest: EthernetAddress, mut message: Vec<u8>, egress: &mut Egress) {
    let mut echo = Icmpv4Packet::new_unchecked(&mut message[..]);
    echo.set_msg_type(Icmpv4Message::EchoReply);
    // The host's socket has an identifier of its own.
    echo.set_echo_ident(key.identifier);
    echo.fill_checksum();
    let route = Route {
        source: key.peer,
        destination: key.guest,
        destination_mac: guest,
    };
    egress.send(route, IpProtocol::Icmp, &message);
}

fn header(packet: &Packet<'_>) -> Ipv4Repr {
    Ipv4Repr {
        src_addr: packet.source,
        dst_addr: packet.destination,
        next_header: IpProtocol::Icmp,
        payload_len: packet.payload.len(),
        hop_limit: 64,
    }
}

/// What a guest is told about an error of the host.
fn reason(error: Errno) -> Icmpv4DstUnreachable {
    match error {
        Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT => Icmpv4DstUnreachable::CommProhibited,
        Errno::NETUNREACH => Icmpv4DstUnreachable::NetUnreachable,
        _ => Icmpv4DstUnreachable::HostUnreachable,
    }
}
