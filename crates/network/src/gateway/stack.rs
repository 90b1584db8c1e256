//! The gateway's side of ARP and TCP: smoltcp's interface and sockets, with frames in and out.

use super::clock::TcpClock;
use super::egress::Egress;
use crate::frame_stream::FrameQueue;
use crate::subnet::Subnet;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpCidr,
};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// An Ethernet frame with 1500 octets of payload.
const MAX_TRANSMISSION_UNIT: usize = 1514;
/// Each direction's buffer of a connection, which is also the window offered to the guest.
const SOCKET_BUFFER_LENGTH: usize = 256 << 10;
/// Closed sockets that are kept for the next connection, since their buffers are large.
const MAX_SPARE_SOCKETS: usize = 64;
/// How long a guest may leave data unacknowledged: longer than an arbiter is likely to be out of
/// reach, during which a pair's outputs wait.
const USER_TIMEOUT: Duration = Duration::from_secs(900);
/// A guest that was silent for this time is asked whether it is still there; without an answer for
/// [`USER_TIMEOUT`] it is not.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(120);
/// How long an acknowledgement waits for data to go with (RFC 1122, 4.2.3.2: half a second at most, and
/// at once for every second full segment). A segment that only acknowledges costs the guest an interrupt
/// and a way through its stack, and both replicas as much: a third of a short request.
const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(1);
/// The stack never asks to be polled sooner: what is due now has just been done.
const MIN_DELAY: Duration = Duration::from_millis(1);

/// smoltcp's interface with its sockets.
pub(crate) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    clock: TcpClock,
    /// What the gateway sends.
    pub(crate) egress: Egress,
    subnet: Subnet,
    spare: Vec<tcp::Socket<'static>>,
}

impl Stack {
    pub(crate) fn new(subnet: Subnet, now: Instant) -> Stack {
        let mut config = Config::new(subnet.gateway_mac().into());
        // Initial sequence numbers: the standard library's source of randomness is enough here.
        config.random_seed = RandomState::new().build_hasher().finish();
        let mut egress = Egress::new(subnet);
        let clock = TcpClock::new(now);
        let mut device = FrameDevice {
            incoming: None,
            outgoing: &mut egress.frames,
        };
        let mut interface = Interface::new(config, &mut device, clock.at(now));
        interface.update_ip_addrs(|list| {
            // The list has room: it is empty and holds two or more.
            let _pushed = list.push(IpCidr::Ipv4(subnet.gateway_cidr()));
        });
        // Connections to any address of the world end here.
        interface.set_any_ip(true);
        Stack {
            interface,
            sockets: SocketSet::new(Vec::new()),
            clock,
            egress,
            subnet,
            spare: Vec::new(),
        }
    }

    /// Processes one frame. The caller vouches that its addresses are sane: with "any IP" smoltcp
    /// answers for every address.
    pub(crate) fn receive(&mut self, frame: &[u8], now: Instant) {
        let now = self.clock.at(now);
        let mut device = FrameDevice {
            incoming: Some(frame),
            outgoing: &mut self.egress.frames,
        };
        self.interface
            .poll_ingress_single(now, &mut device, &mut self.sockets);
    }

    /// Sends whatever sockets and timers have to send.
    pub(crate) fn transmit(&mut self, now: Instant) {
        let now = self.clock.at(now);
        let mut device = FrameDevice {
            incoming: None,
            outgoing: &mut self.egress.frames,
        };
        self.interface.poll(now, &mut device, &mut self.sockets);
    }

    /// In what time [`Self::transmit`] has something to do.
    pub(crate) fn delay(&mut self, now: Instant) -> Option<Duration> {
        let delay = self
            .interface
            .poll_delay(self.clock.at(now), &self.sockets)?;
        Some(TcpClock::on_host(delay).max(MIN_DELAY))
    }

    /// Lets [`Self::transmit`] repeat whatever is under way to guests.
    pub(crate) fn repeat(&mut self) {
        self.clock.skip_retransmission_timeouts();
    }

    /// Takes it as known that `guest` is at `mac`, for as long as an answer to a question would.
    pub(crate) fn expect(&mut self, mac: EthernetAddress, guest: Ipv4Addr, now: Instant) {
        self.receive(&arp_reply(self.subnet, mac, guest), now);
    }

    /// Opens a connection to a guest.
    pub(crate) fn connect(
        &mut self,
        guest: std::net::SocketAddrV4,
        local_port: u16,
    ) -> Result<SocketHandle, tcp::ConnectError> {
        let mut socket = self.new_socket();
        let local = (self.subnet.gateway(), local_port);
        match socket.connect(self.interface.context(), guest, local) {
            Ok(()) => Ok(self.sockets.add(socket)),
            Err(error) => {
                self.recycle(socket);
                Err(error)
            }
        }
    }

    /// Accepts the connection that the segment in `frame` opens to `destination`. `None` when the
    /// stack does not take it as such.
    pub(crate) fn accept(
        &mut self,
        frame: &[u8],
        destination: std::net::SocketAddrV4,
        now: Instant,
    ) -> Option<SocketHandle> {
        let mut socket = self.new_socket();
        if socket
            .listen((*destination.ip(), destination.port()))
            .is_err()
        {
            self.recycle(socket);
            return None;
        }
        let handle = self.sockets.add(socket);
        self.receive(frame, now);
        if self.socket(handle).state() == tcp::State::SynReceived {
            return Some(handle);
        }
        self.remove(handle);
        None
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn socket_ref(&self, handle: SocketHandle) -> &tcp::Socket<'static> {
        self.sockets.get(handle)
    }

    /// Forgets a socket, without a word to the guest.
    #[allow(
        irrefutable_let_patterns,
        reason = "tests build smoltcp with further kinds of sockets"
    )]
    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        if let smoltcp::socket::Socket::Tcp(socket) = self.sockets.remove(handle) {
            self.recycle(socket);
        }
    }

    fn recycle(&mut self, mut socket: tcp::Socket<'static>) {
        socket.abort();
        if self.spare.len() < MAX_SPARE_SOCKETS {
            self.spare.push(socket);
        }
    }

    fn new_socket(&mut self) -> tcp::Socket<'static> {
        if let Some(socket) = self.spare.pop() {
            return socket;
        }
        let buffer = || tcp::SocketBuffer::new(vec![0; SOCKET_BUFFER_LENGTH]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(Some(TcpClock::in_tcp_time(ACKNOWLEDGEMENT_DELAY)));
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(TcpClock::in_tcp_time(KEEP_ALIVE_INTERVAL)));
        socket.set_timeout(Some(TcpClock::in_tcp_time(USER_TIMEOUT)));
        socket
    }
}

/// A reply, as if the guest had been asked.
fn arp_reply(subnet: Subnet, mac: EthernetAddress, address: Ipv4Addr) -> Vec<u8> {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_hardware_addr: subnet.gateway_mac(),
        target_protocol_addr: subnet.gateway(),
    };
    let ethernet = EthernetRepr {
        src_addr: mac,
        dst_addr: subnet.gateway_mac(),
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + reply.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    reply.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// One frame in, any number out.
struct FrameDevice<'a> {
    incoming: Option<&'a [u8]>,
    outgoing: &'a mut FrameQueue,
}

impl Device for FrameDevice<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _now: TcpInstant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let frame = self.incoming.take()?;
        Some((Incoming(frame), Outgoing(self.outgoing)))
    }

    fn transmit(&mut self, _now: TcpInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_TRANSMISSION_UNIT;
        capabilities
    }
}

struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Outgoing<'a>(&'a mut FrameQueue);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0.push_with(length, f)
    }
}
