//! The network between the hosts, and that of the guest.

use super::node::{listens_at, place_at};
use super::shared::{ProcessId, Shared, State, this_thread};
use environment::frames::FramePort;
use environment::net::{Listener, Readiness, Socket};
use environment::{Parked, ThreadId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes on their way or not read yet, in one direction: then writing waits.
const WINDOW_BYTES: usize = 256 << 10;

/// One of the two ends of a connection.
pub type EndId = (u64, usize);

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// The other end is closed.
    End,
}

#[derive(Debug)]
struct End {
    process: ProcessId,
    /// Handles that are open.
    handles: usize,
    /// This end is closed: nothing can be written or read any more.
    is_closed: bool,
    /// What arrived.
    inbox: VecDeque<u8>,
    /// The other end closed, and everything that it wrote has arrived.
    has_ended: bool,
    /// On the way here: when each arrives.
    under_way: VecDeque<(u64, Piece)>,
    bytes_under_way: usize,
    nonblocking: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    waiting: Vec<ThreadId>,
}

impl End {
    fn new(process: ProcessId) -> End {
        End {
            process,
            handles: 1,
            is_closed: false,
            inbox: VecDeque::new(),
            has_ended: false,
            under_way: VecDeque::new(),
            bytes_under_way: 0,
            nonblocking: false,
            read_timeout: None,
            write_timeout: None,
            waiting: Vec::new(),
        }
    }

    fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.inbox.len() + self.bytes_under_way)
    }
}

#[derive(Debug)]
struct Listening {
    process: ProcessId,
    /// Connected and not accepted; and from where.
    backlog: VecDeque<(EndId, SocketAddr)>,
    waiting: Vec<ThreadId>,
}

#[derive(Debug)]
struct Attached {
    frames: VecDeque<Vec<u8>>,
    waiting: Vec<ThreadId>,
}

/// All that is under way.
#[derive(Debug, Default)]
pub struct Network {
    /// Time that a byte takes from one node to the other, in nanoseconds.
    pub delay_ns: u64,
    /// What goes from the one node to the other waits until then.
    cuts: BTreeMap<(usize, usize), u64>,
    /// The same in one of the networks.
    network_cuts: BTreeMap<(usize, usize, usize), u64>,
    /// So much longer a byte takes in a network, and until when.
    slow: BTreeMap<usize, (u64, u64)>,
    /// In which network each connection is.
    ways: BTreeMap<u64, usize>,
    connections: BTreeMap<u64, [End; 2]>,
    next: u64,
    listeners: BTreeMap<SocketAddr, Listening>,
    ports: BTreeMap<ProcessId, Attached>,
    next_port: u16,
}

fn register(waiting: &mut Vec<ThreadId>) {
    let this = this_thread();
    if !waiting.contains(&this) {
        waiting.push(this);
    }
}

impl Network {
    /// Without a cut.
    pub fn new(delay_ns: u64) -> Network {
        Network {
            delay_ns,
            ..Network::default()
        }
    }

    /// What goes from a node to another waits until then.
    pub fn cut(&mut self, from: usize, to: usize, until_ns: u64) {
        self.cuts.insert((from, to), until_ns);
    }

    /// The same in one of the networks.
    pub fn cut_in(&mut self, network: usize, from: usize, to: usize, until_ns: u64) {
        self.network_cuts.insert((network, from, to), until_ns);
    }

    /// A byte takes so much longer in one of the networks until then.
    pub fn slow_down(&mut self, network: usize, more_ns: u64, until_ns: u64) {
        self.slow.insert(network, (more_ns, until_ns));
    }

    fn delay_in(&self, network: usize, now_ns: u64) -> u64 {
        let slow = self.slow.get(&network);
        let slow = slow.filter(|(_, until_ns)| now_ns < *until_ns);
        self.delay_ns + slow.map_or(0, |(more_ns, _)| *more_ns)
    }

    /// Nothing is cut any more.
    pub fn mend(&mut self) {
        self.cuts.clear();
        self.network_cuts.clear();
    }

    fn cut_until_ns(&self, network: usize, from: usize, to: usize) -> u64 {
        let everywhere = self.cuts.get(&(from, to)).copied().unwrap_or(0);
        let here = self.network_cuts.get(&(network, from, to)).copied();
        everywhere.max(here.unwrap_or(0))
    }

    /// In which network a connection is.
    fn way(&self, connection: u64) -> usize {
        self.ways.get(&connection).copied().unwrap_or(0)
    }

    /// When the next piece arrives.
    pub fn next_deadline(&self) -> Option<u64> {
        let ends = self.connections.values().flatten();
        ends.filter_map(|end| Some(end.under_way.front()?.0)).min()
    }
}

impl State {
    /// Sends a piece from `from` to the other end.
    fn send(&mut self, from: EndId, piece: Piece) {
        let (connection, side) = from;
        let ends = &self.network.connections[&connection];
        let sender = &self.processes[&ends[side].process];
        if sender.silent {
            return;
        }
        let receiver = &self.processes[&ends[1 - side].process];
        let network = &self.network;
        let way = network.way(connection);
        let cut_until_ns = network.cut_until_ns(way, sender.node, receiver.node);
        let delay_ns = network.delay_in(way, self.now_ns);
        let jitter_ns = self.random.between(0, self.network.delay_ns / 4);
        let at_ns = self.now_ns.max(cut_until_ns) + delay_ns + jitter_ns;
        if let Some(ends) = self.network.connections.get_mut(&connection) {
            let to = &mut ends[1 - side];
            let last_ns = to.under_way.back().map_or(0, |(at_ns, _)| *at_ns);
            if let Piece::Bytes(bytes) = &piece {
                to.bytes_under_way += bytes.len();
            }
            to.under_way.push_back((at_ns.max(last_ns), piece));
        }
    }

    /// What a process has written and has not arrived is lost from some byte on.
    pub fn lose_what_is_under_way(&mut self, from: ProcessId) {
        let State {
            network, random, ..
        } = self;
        for ends in network.connections.values_mut() {
            for side in 0..2 {
                if ends[1 - side].process != from || ends[side].bytes_under_way == 0 {
                    continue;
                }
                let end = &mut ends[side];
                let kept = random.between(0, end.bytes_under_way as u64) as usize;
                end.bytes_under_way = kept;
                let mut left = kept;
                end.under_way.retain_mut(|(_, piece)| match piece {
                    Piece::Bytes(bytes) => {
                        bytes.truncate(left);
                        left -= bytes.len();
                        !bytes.is_empty()
                    }
                    Piece::End => true,
                });
            }
        }
    }

    /// All connections in a network end, at both ends, and what is under way on them is lost.
    pub fn reset(&mut self, network: usize) {
        self.note(|text| text.push_str(&format!("connections in network {network} are reset")));
        let Network {
            connections, ways, ..
        } = &mut self.network;
        let mut waiting = Vec::new();
        for (id, ends) in connections {
            if ways.get(id) != Some(&network) {
                continue;
            }
            for end in ends {
                end.under_way.clear();
                end.bytes_under_way = 0;
                end.has_ended = true;
                waiting.append(&mut end.waiting);
            }
        }
        self.unpark_all(waiting);
    }

    /// Lets everything arrive that is due.
    pub fn deliver(&mut self) {
        let now_ns = self.now_ns;
        let ids: Vec<u64> = self.network.connections.keys().copied().collect();
        for id in ids {
            for side in 0..2 {
                self.deliver_to((id, side), now_ns);
            }
            let over = |end: &End| end.handles == 0 && end.under_way.is_empty();
            if self.network.connections[&id].iter().all(over) {
                self.network.connections.remove(&id);
                self.network.ways.remove(&id);
                self.observer.connection_closed(id);
            }
        }
    }

    fn deliver_to(&mut self, (id, side): EndId, now_ns: u64) {
        let Some(ends) = self.network.connections.get(&id) else {
            return;
        };
        let (from, to) = (ends[1 - side].process, ends[side].process);
        let (from_node, to_node) = (self.processes[&from].node, self.processes[&to].node);
        let way = self.network.way(id);
        let cut_until_ns = self.network.cut_until_ns(way, from_node, to_node);
        let Some(end) = self
            .network
            .connections
            .get_mut(&id)
            .map(|ends| &mut ends[side])
        else {
            return;
        };
        let (mut arrived, mut has_news) = (Vec::new(), false);
        while end
            .under_way
            .front()
            .is_some_and(|(at_ns, _)| *at_ns <= now_ns)
        {
            if cut_until_ns > now_ns {
                // It is sent again when the network is back, and what is behind it waits for it.
                if let Some(first) = end.under_way.front_mut() {
                    first.0 = cut_until_ns;
                }
                break;
            }
            match end.under_way.pop_front() {
                Some((_, Piece::Bytes(bytes))) => {
                    has_news = true;
                    end.bytes_under_way -= bytes.len();
                    if !end.is_closed {
                        end.inbox.extend(&bytes);
                        arrived.push(bytes);
                    }
                }
                Some((_, Piece::End)) => (end.has_ended, has_news) = (true, true),
                None => {}
            }
        }
        if has_news {
            let waiting = std::mem::take(&mut end.waiting);
            self.unpark_all(waiting);
        }
        if !arrived.is_empty() {
            let is_dead = self.processes[&to].dead;
            for bytes in arrived {
                self.observer.arrived(id, side, from, to, &bytes, is_dead);
            }
        }
    }

    fn wake_end(&mut self, (id, side): EndId) {
        if let Some(ends) = self.network.connections.get_mut(&id) {
            let waiting = std::mem::take(&mut ends[side].waiting);
            self.unpark_all(waiting);
        }
    }

    /// This end is closed, and the other hears of it.
    fn close_end(&mut self, id: EndId) {
        let Some(ends) = self.network.connections.get_mut(&id.0) else {
            return;
        };
        let end = &mut ends[id.1];
        if !std::mem::replace(&mut end.is_closed, true) {
            end.inbox.clear();
            let process = end.process;
            self.observer.end_closed(id, process, self.now_ns);
            self.send(id, Piece::End);
        }
        self.wake_end(id);
    }

    /// A frame comes to all who are attached.
    pub fn frame(&mut self, frame: &[u8]) {
        let mut waiting = Vec::new();
        for port in self.network.ports.values_mut() {
            port.frames.push_back(frame.to_vec());
            waiting.append(&mut port.waiting);
        }
        self.unpark_all(waiting);
    }
}

/// A handle of an end.
pub struct SimulatedSocket {
    shared: Arc<Shared>,
    end: EndId,
}

impl fmt::Debug for SimulatedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedSocket({:?})", self.end)
    }
}

/// Waits; an error when the process was killed.
fn park(shared: &Shared, until_ns: Option<u64>) -> io::Result<()> {
    match shared.park(until_ns) {
        Parked::Look => Ok(()),
        Parked::Dying(_) => Err(ErrorKind::ConnectionAborted.into()),
    }
}

impl SimulatedSocket {
    /// Connects to whoever listens there.
    pub fn connect(
        shared: &Arc<Shared>,
        process: ProcessId,
        address: SocketAddr,
        timeout: Duration,
    ) -> io::Result<SimulatedSocket> {
        let (answer_ns, timeout_ns, there, way) = {
            let state = shared.lock();
            let node = state.process(process).node;
            let (there, way) = place_at(address).unwrap_or((node, 0));
            let network = &state.network;
            let ways = [(node, there), (there, node)];
            let cuts = ways.map(|(from, to)| network.cut_until_ns(way, from, to));
            let begin_ns = cuts.into_iter().fold(0, u64::max);
            // The last that ran there: a host without power answers nothing.
            let mut last = state.processes.values().rev();
            let last = last.find(|other| other.node == there);
            let is_silent = last.is_some_and(|last| last.silent);
            let answer_ns = state.now_ns.max(begin_ns) + 2 * state.network.delay_ns;
            let timeout_ns = state.now_ns + timeout.as_nanos() as u64;
            let answer_ns = if is_silent { u64::MAX } else { answer_ns };
            (answer_ns, timeout_ns, there, way)
        };
        let until_ns = answer_ns.min(timeout_ns);
        while shared.lock().now_ns < until_ns {
            park(shared, Some(until_ns))?;
        }
        if answer_ns > timeout_ns {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut state = shared.lock();
        let state = &mut *state;
        let node = state.process(process).node;
        let network = &mut state.network;
        // Who listens does so in all networks.
        let address = listens_at(there).parse::<SocketAddr>();
        let listening = address.ok().and_then(|at| network.listeners.get_mut(&at));
        let Some(listening) = listening else {
            return Err(ErrorKind::ConnectionRefused.into());
        };
        let id = network.next;
        network.next += 1;
        let ends = [End::new(process), End::new(listening.process)];
        network.connections.insert(id, ends);
        network.ways.insert(id, way);
        network.next_port = network.next_port.wrapping_add(1);
        let from = SocketAddr::from(([10, way as u8, 0, node as u8 + 1], network.next_port));
        listening.backlog.push_back(((id, 1), from));
        let waiting = std::mem::take(&mut listening.waiting);
        state.unpark_all(waiting);
        Ok(SimulatedSocket {
            shared: shared.clone(),
            end: (id, 0),
        })
    }

    /// Does `now`, and again whenever something has changed, until it does not want to wait.
    fn wait_for<T>(
        &self,
        timeout_of: impl Fn(&End) -> Option<Duration>,
        now: impl Fn(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let began_ns = self.shared.lock().now_ns;
        loop {
            let until_ns = {
                let mut state = self.shared.lock();
                match now(&mut state) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    done => return done,
                }
                let now_ns = state.now_ns;
                let Some(ends) = state.network.connections.get_mut(&self.end.0) else {
                    return Err(ErrorKind::NotConnected.into());
                };
                let end = &mut ends[self.end.1];
                let timeout = timeout_of(end);
                let until_ns = timeout.map(|timeout| began_ns + timeout.as_nanos() as u64);
                if end.nonblocking || until_ns.is_some_and(|until_ns| until_ns <= now_ns) {
                    return Err(ErrorKind::WouldBlock.into());
                }
                register(&mut end.waiting);
                until_ns
            };
            park(&self.shared, until_ns)?;
        }
    }
}

fn read_now(state: &mut State, (id, side): EndId, buffer: &mut [u8]) -> io::Result<usize> {
    let Some(ends) = state.network.connections.get_mut(&id) else {
        return Err(ErrorKind::NotConnected.into());
    };
    let end = &mut ends[side];
    if end.is_closed || buffer.is_empty() {
        return Ok(0);
    }
    if end.inbox.is_empty() {
        return match end.has_ended {
            true => Ok(0),
            false => Err(ErrorKind::WouldBlock.into()),
        };
    }
    let length = buffer.len().min(end.inbox.len());
    for (to, from) in buffer.iter_mut().zip(end.inbox.drain(..length)) {
        *to = from;
    }
    // Whoever writes at the other end has room again.
    state.wake_end((id, 1 - side));
    Ok(length)
}

fn write_now(state: &mut State, (id, side): EndId, bytes: &[u8]) -> io::Result<usize> {
    let Some(ends) = state.network.connections.get_mut(&id) else {
        return Err(ErrorKind::NotConnected.into());
    };
    if ends[side].is_closed || ends[side].has_ended {
        return Err(ErrorKind::BrokenPipe.into());
    }
    let length = bytes.len().min(ends[1 - side].room());
    if length == 0 && !bytes.is_empty() {
        return Err(ErrorKind::WouldBlock.into());
    }
    let (writer, reader) = (ends[side].process, ends[1 - side].process);
    state
        .observer
        .written(id, side, writer, reader, &bytes[..length]);
    state.send((id, side), Piece::Bytes(bytes[..length].to_vec()));
    Ok(length)
}

impl Socket for SimulatedSocket {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let buffer = std::cell::RefCell::new(buffer);
        self.wait_for(
            |end| end.read_timeout,
            |state| read_now(state, self.end, &mut buffer.borrow_mut()),
        )
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.wait_for(
            |end| end.write_timeout,
            |state| write_now(state, self.end, bytes),
        )
    }

    fn set_nonblocking(&self, nonblocking: bool) {
        self.change(|end| end.nonblocking = nonblocking);
    }

    fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.change(|end| end.read_timeout = timeout);
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.change(|end| end.write_timeout = timeout);
    }

    fn shutdown(&self) {
        self.shared.lock().close_end(self.end);
    }

    fn try_clone(&self) -> Box<dyn Socket> {
        self.change(|end| end.handles += 1);
        Box::new(SimulatedSocket {
            shared: self.shared.clone(),
            end: self.end,
        })
    }

    fn readiness(&self) -> Readiness {
        let mut state = self.shared.lock();
        let Some(ends) = state.network.connections.get_mut(&self.end.0) else {
            return Readiness {
                readable: true,
                writable: true,
            };
        };
        let writable = ends[1 - self.end.1].room() > 0;
        let end = &mut ends[self.end.1];
        register(&mut end.waiting);
        let is_over = end.is_closed || end.has_ended;
        Readiness {
            readable: !end.inbox.is_empty() || is_over,
            writable: writable || is_over,
        }
    }
}

impl SimulatedSocket {
    fn change(&self, change: impl FnOnce(&mut End)) {
        let mut state = self.shared.lock();
        if let Some(ends) = state.network.connections.get_mut(&self.end.0) {
            change(&mut ends[self.end.1]);
        }
    }
}

impl Drop for SimulatedSocket {
    fn drop(&mut self) {
        self.change(|end| end.handles -= 1);
        let mut state = self.shared.lock();
        let ends = state.network.connections.get(&self.end.0);
        if ends.is_some_and(|ends| ends[self.end.1].handles == 0) {
            state.close_end(self.end);
        }
    }
}

/// Who listens.
pub struct SimulatedListener {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl fmt::Debug for SimulatedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedListener({})", self.address)
    }
}

impl SimulatedListener {
    /// Listens there.
    pub fn bind(
        shared: &Arc<Shared>,
        process: ProcessId,
        addresses: &[SocketAddr],
    ) -> io::Result<SimulatedListener> {
        let Some(address) = addresses.first().copied() else {
            return Err(ErrorKind::AddrNotAvailable.into());
        };
        let mut state = shared.lock();
        if state.network.listeners.contains_key(&address) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let listening = Listening {
            process,
            backlog: VecDeque::new(),
            waiting: Vec::new(),
        };
        state.network.listeners.insert(address, listening);
        let shared = shared.clone();
        Ok(SimulatedListener { shared, address })
    }
}

impl Listener for SimulatedListener {
    fn accept(&self) -> io::Result<(Box<dyn Socket>, SocketAddr)> {
        let mut state = self.shared.lock();
        let listening = state.network.listeners.get_mut(&self.address);
        let accepted = listening.and_then(|listening| listening.backlog.pop_front());
        let (end, from) = accepted.ok_or(ErrorKind::WouldBlock)?;
        let shared = self.shared.clone();
        Ok((Box::new(SimulatedSocket { shared, end }), from))
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn is_ready(&self) -> bool {
        let mut state = self.shared.lock();
        let listening = state.network.listeners.get_mut(&self.address);
        listening.is_some_and(|listening| {
            register(&mut listening.waiting);
            !listening.backlog.is_empty()
        })
    }
}

impl Drop for SimulatedListener {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(listening) = state.network.listeners.remove(&self.address) {
            for (end, _) in listening.backlog {
                if let Some(ends) = state.network.connections.get_mut(&end.0) {
                    ends[end.1].handles = 0;
                }
                state.close_end(end);
            }
        }
    }
}

/// A machine's end of the guest's network: a hub, which gives every frame from outside to everybody.
pub struct Port {
    shared: Arc<Shared>,
    process: ProcessId,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({:?})", self.process)
    }
}

impl Port {
    /// Attaches.
    pub fn attach(shared: &Arc<Shared>, process: ProcessId) -> Port {
        let attached = Attached {
            frames: VecDeque::new(),
            waiting: Vec::new(),
        };
        shared.lock().network.ports.insert(process, attached);
        let shared = shared.clone();
        Port { shared, process }
    }
}

impl FramePort for Port {
    fn send(&mut self, frame: &[u8]) {
        self.shared.lock().emitted(self.process, frame);
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut state = self.shared.lock();
        let port = state.network.ports.get_mut(&self.process)?;
        register(&mut port.waiting);
        port.frames.pop_front()
    }

    fn has_frame(&self) -> bool {
        let mut state = self.shared.lock();
        let port = state.network.ports.get_mut(&self.process);
        port.is_some_and(|port| {
            register(&mut port.waiting);
            !port.frames.is_empty()
        })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.lock().network.ports.remove(&self.process);
    }
}
