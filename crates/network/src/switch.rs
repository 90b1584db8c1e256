//! The event loop around the switch: sockets in, sockets out.

use crate::address::SwitchAddress;
use crate::door::Door;
use crate::fabric::{Change, Fabric};
use crate::frame_stream::FrameDecoder;
use crate::gateway::{Gateway, GatewayToken};
use crate::greeting;
use crate::mac_table::PortId;
use crate::notices::Notices;
use crate::options::{Forward, StaticLease, SwitchOptions};
use crate::pcap::Capture;
use crate::poll_set::{PollSet, Readiness};
use crate::secure_stream::SecureStream;
use crate::status::{PortStatus, StatusFile, SwitchStatus};
use crate::stream::{Listener, Stream};
use crate::subnet::Subnet;
use keys::HostName;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is read from one port in one turn of the event loop at most, in octets.
const MAX_BYTES_A_TURN: usize = 512 << 10;
/// Ports at the same time.
const MAX_PORTS: usize = 256;
/// After the host ran out of descriptors, nothing is accepted for this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a switch cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Nothing to listen on.
    #[error("a switch needs an address to listen on, as in --listen unix:/run/switch.sock")]
    NoAddress,
    /// An address that cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}{}",
        in_use(
            source,
            "another switch listens there, or the path is no socket; end it, remove it or choose another address"
        )
    )]
    Listen {
        /// The address.
        address: SwitchAddress,
        /// What the system said.
        source: io::Error,
    },
    /// A TCP address without keys.
    #[error(
        "{0} is for other hosts, and needs keys: name this host's with --keys DIR (`understudy keys \
         issue` makes them), or listen on unix:/path"
    )]
    NoKeys(SwitchAddress),
    /// A forward's host port that cannot be listened on.
    #[error(
        "cannot listen on {address} for a forward: {source}{}",
        in_use(
            source,
            "another program has this port; choose another, or 0 for any free one"
        )
    )]
    Forward {
        /// The host's address and port.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A forward to a guest that cannot be.
    #[error(
        "the forward {forward} leads outside the guests' network {subnet}, or to the gateway's own \
         addresses {} and {}: correct it, or --subnet",
        subnet.gateway(),
        subnet.dns()
    )]
    ForwardOutside {
        /// The forward.
        forward: Forward,
        /// The guests' network.
        subnet: Subnet,
    },
    /// A lease of an address that no guest can have.
    #[error(
        "the lease {lease} is outside the guests' network {subnet}, or one of the gateway's own \
         addresses {} and {}: correct it, or --subnet",
        subnet.gateway(),
        subnet.dns()
    )]
    LeaseOutside {
        /// The lease.
        lease: StaticLease,
        /// The guests' network.
        subnet: Subnet,
    },
    /// Forwards without a gateway.
    #[error("forwards need the gateway: leave out --no-gateway or the forwards")]
    ForwardsWithoutGateway,
    /// A file that cannot be written.
    #[error("cannot write {what} {}: {source}", path.display())]
    File {
        /// What the file is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Waiting for events failed.
    #[error("cannot wait for events: {0}")]
    Poll(io::Error),
}

fn in_use(error: &io::Error, advice: &str) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        format!(" ({advice})")
    } else {
        String::new()
    }
}

/// Runs a switch until `stop` becomes readable. `ready` is told once where it listens, with real
/// ports, before anything else happens.
pub fn run(
    options: &SwitchOptions,
    stop: BorrowedFd<'_>,
    ready: impl FnOnce(&SwitchStatus),
) -> Result<(), SwitchError> {
    let mut switch = Switch::open(options)?;
    ready(&switch.status());
    switch.run(stop)
}

/// A connected replica.
struct Port {
    stream: Stream,
    decoder: FrameDecoder,
    peer: String,
    /// When it sent something that was a frame; before that, when it connected.
    heard: Instant,
    /// The last write did not take everything.
    blocked: bool,
    frames_in: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// A layer-2 switch with a gateway. All its sockets are open once it exists.
pub struct Switch {
    listeners: Vec<Listener>,
    /// Where other hosts come in.
    doors: Vec<Door>,
    /// Says that somebody came in there.
    came: UnixStream,
    ports: BTreeMap<PortId, Port>,
    next_port: u64,
    fabric: Fabric,
    gateway: Option<Gateway>,
    capture: Option<(PathBuf, Capture)>,
    status_file: Option<StatusFile>,
    notices: Notices,
    /// The status file is behind.
    status_due: bool,
    accept_again: Option<Instant>,
}

enum Token {
    Stop,
    Doors,
    Listener(usize),
    Port(PortId),
    Gateway(GatewayToken),
}

impl From<GatewayToken> for Token {
    fn from(token: GatewayToken) -> Token {
        Token::Gateway(token)
    }
}

impl Switch {
    /// Opens all sockets and files, and writes the status file.
    pub fn open(options: &SwitchOptions) -> Result<Switch, SwitchError> {
        if options.listen.is_empty() {
            return Err(SwitchError::NoAddress);
        }
        if !options.gateway && !options.forwards.is_empty() {
            return Err(SwitchError::ForwardsWithoutGateway);
        }
        let (came, comes) = UnixStream::pair().map_err(SwitchError::Poll)?;
        for end in [&came, &comes] {
            end.set_nonblocking(true).map_err(SwitchError::Poll)?;
        }
        let (mut listeners, mut doors) = (Vec::new(), Vec::new());
        for address in &options.listen {
            let unusable = |source| SwitchError::Listen {
                address: address.clone(),
                source,
            };
            match address {
                SwitchAddress::Unix(path) => {
                    listeners.push(Listener::bind(path).map_err(unusable)?);
                }
                SwitchAddress::Tcp(at) => {
                    let keys = options.keys.clone();
                    let keys = keys.ok_or_else(|| SwitchError::NoKeys(address.clone()))?;
                    let comes = comes.try_clone().map_err(unusable)?;
                    let wake = move || {
                        // A full one says it already.
                        let _written = (&comes).write(&[1]);
                    };
                    let door = TcpListener::bind(at)
                        .and_then(|listener| Door::open(listener, keys, wake, || ()));
                    doors.push(door.map_err(unusable)?);
                }
            }
        }
        let now = Instant::now();
        let gateway = if options.gateway {
            Some(Gateway::open(options, now)?)
        } else {
            None
        };
        let mut fabric = Fabric::new(options.subnet.gateway_mac());
        if gateway.is_some() {
            fabric.add_port(PortId::GATEWAY);
        }
        let capture = match &options.pcap {
            Some(path) => {
                let capture =
                    Capture::create(path).map_err(|source| capture_error(path, source))?;
                Some((path.clone(), capture))
            }
            None => None,
        };
        let status_file = options.status_file.clone();
        let status_file = status_file.map(|path| {
            StatusFile::open(path.clone()).map_err(|source| SwitchError::File {
                what: "the status file",
                path,
                source,
            })
        });
        let mut switch = Switch {
            listeners,
            doors,
            came,
            ports: BTreeMap::new(),
            next_port: PortId::GATEWAY.0 + 1,
            fabric,
            gateway,
            capture,
            status_file: status_file.transpose()?,
            notices: Notices::default(),
            status_due: false,
            accept_again: None,
        };
        switch
            .write_status(now)
            .map_err(|(path, source)| SwitchError::File {
                what: "the status file",
                path,
                source,
            })?;
        Ok(switch)
    }

    /// Switches until `stop` becomes readable.
    pub fn run(&mut self, stop: BorrowedFd<'_>) -> Result<(), SwitchError> {
        loop {
            let ready = self.wait(stop).map_err(SwitchError::Poll)?;
            let now = Instant::now();
            for (token, readiness) in ready {
                match token {
                    Token::Stop => return Ok(()),
                    Token::Doors => self.let_in(now),
                    Token::Listener(index) => {
                        self.accept(index, now);
                    }
                    Token::Port(id) => self.port_ready(id, readiness, now),
                    Token::Gateway(token) => {
                        if let Some(gateway) = &mut self.gateway {
                            gateway.ready(token, readiness, now);
                        }
                    }
                }
            }
            self.accept_again = self.accept_again.filter(|again| *again > now);
            self.fabric.expire(now);
            self.service_gateway(now);
            self.flush_ports(now);
            if let Err((path, error)) = self.write_status(now) {
                // Tried again in a second: a full disk is no reason to cut the guest off.
                self.notices.add("status_unwritten", now, || {
                    format!("cannot write the status file {}: {error}", path.display())
                });
            }
            let flushed = self.capture.as_mut().map(|(_, capture)| capture.flush());
            self.check_capture(flushed, now);
        }
    }

    fn wait(&mut self, stop: BorrowedFd<'_>) -> io::Result<Vec<(Token, Readiness)>> {
        let timeout = self.timeout(Instant::now());
        let mut set = PollSet::new();
        set.add(stop, Token::Stop, true, false);
        set.add(
            self.came.as_fd(),
            Token::Doors,
            !self.doors.is_empty(),
            false,
        );
        let accept = self.accept_again.is_none();
        for (index, listener) in self.listeners.iter().enumerate() {
            set.add(listener.as_fd(), Token::Listener(index), accept, false);
        }
        for (id, port) in &self.ports {
            let waits = port.blocked || port.stream.wants_write();
            set.add(port.stream.as_fd(), Token::Port(*id), true, waits);
        }
        if let Some(gateway) = &self.gateway {
            gateway.interests(&mut set);
        }
        set.wait(timeout)
    }

    fn timeout(&mut self, now: Instant) -> Option<Duration> {
        if self.has_deliverable_frames() {
            return Some(Duration::ZERO);
        }
        let status = self.status_file.as_ref().filter(|_| self.status_due);
        let deadlines = [
            self.fabric.next_expiry(),
            self.accept_again,
            status.and_then(StatusFile::not_before),
        ];
        let delays = deadlines
            .into_iter()
            .flatten()
            .map(|when| when.saturating_duration_since(now));
        let gateway = self.gateway.as_mut().and_then(|gateway| gateway.delay(now));
        delays.chain(gateway).min()
    }

    /// Takes one that connected; false when nobody waits or nobody can be taken for now.
    fn accept(&mut self, index: usize, now: Instant) -> bool {
        let Some(listener) = self.listeners.get(index) else {
            return false;
        };
        if self.accept_again.is_some() {
            return false;
        }
        match listener.accept() {
            Ok(Some((stream, peer))) => {
                self.add_port(stream, peer, now);
                true
            }
            Ok(None) => false,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => true,
            Err(_) => {
                self.accept_again = Some(now + ACCEPT_PAUSE);
                false
            }
        }
    }

    /// Takes the hosts that proved who they are.
    fn let_in(&mut self, now: Instant) {
        // Whatever it says, it is looked at each door.
        let _read = (&self.came).read(&mut [0; 64]);
        for index in 0..self.doors.len() {
            let door = &self.doors[index];
            let (turned_away, untold) = door.turned_away();
            self.status_due |= untold > 0 || !turned_away.is_empty();
            for what in turned_away {
                self.notices.add("turned_away", now, || what);
            }
            for _ in 0..untold {
                self.notices.add("turned_away", now, || "many more".into());
            }
            let members: Vec<SecureStream> =
                std::iter::from_fn(|| self.doors[index].member()).collect();
            // Whoever connected on this host before them has a port before their frames are read.
            for listener in 0..self.listeners.len() {
                while self.accept(listener, now) {}
            }
            for stream in members {
                let host = stream.peer().map_or("", HostName::as_str);
                let address = stream.socket().peer_addr();
                let peer = match address {
                    Ok(address) => format!("tcp:{address} ({host})"),
                    // It has gone again.
                    Err(_) => continue,
                };
                if let Some(id) = self.add_port(Stream::Secure(Box::new(stream)), peer, now) {
                    // What came together with the end of the handshake no poll tells.
                    let readiness = Readiness {
                        readable: true,
                        writable: false,
                    };
                    self.port_ready(id, readiness, now);
                }
            }
        }
    }

    fn add_port(&mut self, stream: Stream, peer: String, now: Instant) -> Option<PortId> {
        if self.ports.len() >= MAX_PORTS && !self.make_place(now) {
            self.status_due = true;
            self.notices.add("port_refused", now, || {
                format!("{peer}: all {MAX_PORTS} ports are taken by replicas")
            });
            return None;
        }
        let id = PortId(self.next_port);
        self.next_port += 1;
        self.fabric.add_port(id);
        let port = Port {
            stream,
            decoder: FrameDecoder::default(),
            peer,
            heard: now,
            blocked: false,
            frames_in: 0,
            bytes_in: 0,
            bytes_out: 0,
        };
        self.ports.insert(id, port);
        self.status_due = true;
        Some(id)
    }

    /// Ends the connection that has been silent for longest of those that did not say that they
    /// serve a guest; false when all did.
    fn make_place(&mut self, now: Instant) -> bool {
        let strangers = self
            .ports
            .iter()
            .filter(|(id, _)| self.fabric.declared(**id).is_none());
        let silent = strangers.min_by_key(|(_, port)| (port.frames_in > 0, port.heard));
        let Some(id) = silent.map(|(id, _)| *id) else {
            return false;
        };
        if let Some(port) = self.ports.remove(&id) {
            self.notices.add("port_reaped", now, || {
                format!(
                    "{}: it serves no guest, and all {MAX_PORTS} ports are taken",
                    port.peer
                )
            });
        }
        self.port_gone(id, now);
        true
    }

    fn port_ready(&mut self, id: PortId, ready: Readiness, now: Instant) {
        let Some(mut port) = self.ports.remove(&id) else {
            return;
        };
        let mut open = true;
        if ready.writable {
            port.blocked = false;
            open = port.stream.flush_now().is_ok();
        }
        open &= !ready.readable || self.read_port(id, &mut port, now);
        if open {
            self.ports.insert(id, port);
        } else {
            self.port_gone(id, now);
        }
    }

    /// Takes in what the port sent; false when its connection is over.
    fn read_port(&mut self, id: PortId, port: &mut Port, now: Instant) -> bool {
        let mut budget = MAX_BYTES_A_TURN;
        while budget > 0 {
            let space = port.decoder.space();
            let room = space.len();
            let length = match port.stream.read_now(space) {
                Ok(Some(0)) | Err(_) => return false,
                Ok(Some(length)) => length,
                Ok(None) => break,
            };
            port.decoder.filled(length);
            budget = budget.saturating_sub(length);
            loop {
                match port.decoder.next_frame() {
                    Ok(Some(frame)) => {
                        let served = greeting::parse(frame).filter(|_| port.frames_in == 0);
                        port.frames_in += 1;
                        port.bytes_in += frame.len() as u64;
                        port.heard = now;
                        match served {
                            Some(mac) => {
                                self.fabric.declare(id, mac);
                                self.status_due = true;
                            }
                            None => self.switch_frame(id, &port.peer, frame, now),
                        }
                    }
                    Ok(None) => break,
                    // The stream carries something else: only this port is closed.
                    Err(_) => return false,
                }
            }
            if length < room {
                break;
            }
        }
        true
    }

    /// A capture that cannot be written ends, for a file with a gap would mislead; the switch does
    /// not.
    fn check_capture(&mut self, written: Option<io::Result<()>>, now: Instant) {
        if let Some(Err(error)) = written
            && let Some((path, _)) = self.capture.take()
        {
            self.status_due = true;
            self.notices.add("capture_ended", now, || {
                format!("cannot write the capture {}: {error}", path.display())
            });
        }
    }

    fn switch_frame(&mut self, id: PortId, peer: &str, frame: &[u8], now: Instant) {
        let recorded = self
            .capture
            .as_mut()
            .map(|(_, capture)| capture.record(frame));
        self.check_capture(recorded, now);
        self.status_due = true;
        match self.fabric.forward(id, frame, now) {
            Change::None => {}
            Change::Foreign(address) => {
                self.notices.add("foreign_address", now, || {
                    format!(
                        "port {id}, {peer}, sent as {address}, which is another port's: dropped"
                    )
                });
            }
            // To a new guest, too, something may be under way: the opening of a connection.
            Change::New(address) | Change::Moved(address) => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.guest_appeared(address, now);
                }
            }
        }
    }

    /// Gives the gateway its frames, and takes what it sends.
    fn service_gateway(&mut self, now: Instant) {
        let Some(mut gateway) = self.gateway.take() else {
            return;
        };
        if let Some(queue) = self.fabric.queue(PortId::GATEWAY) {
            for frame in queue.frames() {
                gateway.receive(frame, now);
            }
            queue.clear();
        }
        gateway.service(now);
        for frame in gateway.outgoing().frames() {
            self.switch_frame(PortId::GATEWAY, "gateway", frame, now);
        }
        gateway.outgoing().clear();
        for (kind, text) in gateway.warnings() {
            self.status_due = true;
            self.notices.add(kind, now, || text);
        }
        self.gateway = Some(gateway);
    }

    /// Writes what waits for each port, as far as it takes it.
    fn flush_ports(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for (id, port) in &mut self.ports {
            let Some(queue) = self.fabric.queue(*id) else {
                continue;
            };
            while !port.blocked && !queue.is_empty() {
                match port.stream.write_now(queue.unwritten()) {
                    Ok(Some(length)) if length > 0 => {
                        port.bytes_out += length as u64;
                        queue.advance(length);
                    }
                    Ok(None) => port.blocked = true,
                    Ok(Some(_)) | Err(_) => {
                        gone.push(*id);
                        break;
                    }
                }
            }
        }
        for id in gone {
            if let Some(mut port) = self.ports.remove(&id) {
                // The last frames of a dead replica may be answers that it had leave to send.
                self.read_port(id, &mut port, now);
                self.port_gone(id, now);
            }
        }
    }

    /// Whether frames wait for a port that takes them: those that came in after it was served.
    fn has_deliverable_frames(&self) -> bool {
        self.fabric.has_frames(PortId::GATEWAY)
            || self
                .ports
                .iter()
                .any(|(id, port)| !port.blocked && self.fabric.has_frames(*id))
    }

    fn port_gone(&mut self, id: PortId, now: Instant) {
        self.fabric.remove_port(id, now);
        self.status_due = true;
    }

    /// Writes the status if it is time to. An error is the file's.
    fn write_status(&mut self, now: Instant) -> Result<(), (PathBuf, io::Error)> {
        let due = self.status_file.as_ref().is_some_and(|file| {
            let unwritten = file.not_before().is_none();
            unwritten || (self.status_due && file.not_before().is_some_and(|when| now >= when))
        });
        if !due {
            return Ok(());
        }
        let status = self.status();
        if let Some(file) = &mut self.status_file {
            match file.update(status, now) {
                Ok(due) => self.status_due = due,
                Err(error) => {
                    self.status_due = true;
                    return Err((file.path().to_owned(), error));
                }
            }
        }
        Ok(())
    }

    /// The present state.
    pub fn status(&self) -> SwitchStatus {
        let unix = self.listeners.iter().map(Listener::address);
        let tcp = self.doors.iter().map(Door::address);
        let listen = unix.chain(tcp.map(SwitchAddress::Tcp));
        let port = |(id, port): (&PortId, &Port)| PortStatus {
            id: id.0,
            peer: port.peer.clone(),
            serves: self.fabric.declared(*id).map(|mac| mac.to_string()),
            macs: self
                .fabric
                .addresses(*id)
                .map(|address| address.to_string())
                .collect(),
            frames_in: port.frames_in,
            bytes_in: port.bytes_in,
            bytes_out: port.bytes_out,
            dropped: self.fabric.dropped(*id),
        };
        SwitchStatus {
            pid: std::process::id(),
            listen: listen.map(|address| address.to_string()).collect(),
            forwards: self
                .gateway
                .as_ref()
                .map(Gateway::forwards)
                .unwrap_or_default(),
            ports: self.ports.iter().map(port).collect(),
            moves: self.fabric.moves(),
            rescued_frames: self.fabric.rescued(),
            foreign_frames: self.fabric.foreign(),
            events: self.notices.status(),
            gateway: self.gateway.as_ref().map(Gateway::status),
        }
    }
}

fn capture_error(path: &std::path::Path, source: io::Error) -> SwitchError {
    SwitchError::File {
        what: "the capture",
        path: path.to_owned(),
        source,
    }
}
