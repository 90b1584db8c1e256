//! A guest for tests: smoltcp's stack behind a port of a switch.

use network::{SwitchAddress, SwitchPort};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant as GuestInstant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};
use std::time::{Duration, Instant};

/// Nothing in these tests takes as long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The guest's MAC address.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The guest's address.
pub const ADDRESS: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
/// The gateway's.
pub const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);

const SOCKET_BUFFER_LENGTH: usize = 256 << 10;

/// A machine with a TCP/IP stack.
pub struct Guest {
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    pub port: SwitchPort,
    start: Instant,
}

impl Guest {
    /// Connects to the switch, without an address.
    pub fn connect(address: &SwitchAddress) -> Guest {
        let port = SwitchPort::connect(address, None).expect("the switch listens");
        let mut port = port.serving(MAC);
        let config = Config::new(EthernetAddress(MAC).into());
        let start = Instant::now();
        let now = GuestInstant::from_millis(0);
        let interface = Interface::new(config, &mut PortDevice { port: &mut port }, now);
        Guest {
            interface,
            sockets: SocketSet::new(Vec::new()),
            port,
            start,
        }
    }

    /// Connects to the switch with the first guest's address.
    pub fn with_address(address: &SwitchAddress) -> Guest {
        let mut guest = Guest::connect(address);
        guest.set_address(Ipv4Cidr::new(ADDRESS, 24), GATEWAY);
        guest
    }

    /// Takes an address and a default route.
    pub fn set_address(&mut self, address: Ipv4Cidr, router: Ipv4Address) {
        self.interface.update_ip_addrs(|list| {
            list.clear();
            list.push(IpCidr::Ipv4(address)).expect("one address fits");
        });
        self.interface
            .routes_mut()
            .add_default_ipv4_route(router)
            .expect("one route fits");
    }

    /// A new TCP socket.
    pub fn tcp_socket(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; SOCKET_BUFFER_LENGTH]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    /// A TCP socket that listens on `port`.
    pub fn listen(&mut self, port: u16) -> SocketHandle {
        let handle = self.tcp_socket();
        self.tcp(handle).listen(port).expect("the socket is new");
        handle
    }

    /// A TCP socket that connects to `remote`.
    pub fn open(&mut self, remote: (Ipv4Address, u16)) -> SocketHandle {
        let handle = self.tcp_socket();
        let local_port = 50_000 + self.sockets.iter().count() as u16;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(self.interface.context(), remote, local_port)
            .expect("the socket is new");
        handle
    }

    /// A UDP socket bound to `port`.
    pub fn udp_socket(&mut self, port: u16) -> SocketHandle {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 64 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("the socket is new");
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn now(&self) -> GuestInstant {
        GuestInstant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    /// Processes what has arrived and sends what is due.
    pub fn poll(&mut self) {
        let now = self.now();
        let mut device = PortDevice {
            port: &mut self.port,
        };
        self.interface.poll(now, &mut device, &mut self.sockets);
        self.port.flush().expect("the switch is there");
    }

    /// Waits until a frame arrives or something is due, at most ten milliseconds: what
    /// a test waits for may be outside the guest.
    pub fn wait(&mut self) {
        if self.port.has_frame() {
            return;
        }
        let now = self.now();
        let limit = Duration::from_millis(10);
        let delay = self.interface.poll_delay(now, &self.sockets);
        let delay = delay.map_or(limit, |delay| Duration::from_micros(delay.total_micros()));
        let delay = delay.min(limit);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(delay.subsec_nanos()),
        };
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.port.wants_write());
        poll(
            &mut [PollFd::from_borrowed_fd(self.port.fd(), flags)],
            Some(&timeout),
        )
        .expect("polling works");
    }

    /// Runs the guest until `done` says so.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Guest) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.poll();
            if done(self) {
                self.poll();
                return;
            }
            assert!(Instant::now() < deadline, "never came about: {what}");
            self.wait();
        }
    }

    /// Moves the guest to another port, as a failover does: announced by a reverse ARP request.
    pub fn move_to(&mut self, mut port: SwitchPort) -> SwitchPort {
        port.send(&announcement()).expect("the switch is there");
        std::mem::replace(&mut self.port, port)
    }
}

/// A reverse ARP request (RFC 903) from the guest's address.
pub fn announcement() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(MAC);
    frame.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    for _ in 0..2 {
        frame.extend(MAC);
        frame.extend([0; 4]);
    }
    frame.resize(60, 0);
    frame
}

struct PortDevice<'a> {
    port: &'a mut SwitchPort,
}

impl Device for PortDevice<'_> {
    type RxToken<'b>
        = Incoming
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _now: GuestInstant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.port.receive().expect("the switch is there")?;
        Some((Incoming(frame), Outgoing(self.port)))
    }

    fn transmit(&mut self, _now: GuestInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self.port))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut SwitchPort);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.enqueue(&frame);
        result
    }
}
