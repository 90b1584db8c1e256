//! What a replica has of its host, whichever its role.

mod event_names;
mod links;

use self::event_names::name_event;
use super::arbiter_outage::ArbiterOutage;
use super::channel::{Channel, ChannelError, FIRST, Fetcher, Received};
use super::host_facts::HostFactsDesk;
use super::identity;
use super::markers::{Markers, UnfitDisks};
use super::neighbours::Neighbours;
use super::rates::Rate;
use super::slow_turns::SlowTurns;
use crate::config::{DiskFile, ReplicaConfig};
use crate::control::{Answer, ControlSocket, ConversationId, Request};
use crate::disk::overlay;
use crate::disk::probe::FailedDisk;
use crate::door::Door;
use crate::end::{Ended, ReplicaError};
use crate::events::EventLog;
use crate::evidence::{EvidenceDesk, EvidenceStore, Kept};
use crate::host_time::{monotonic, monotonic_ns, thread_cpu};
use crate::journal::{JournalDesk, JournalOwner};
use crate::key_watch::{KeyNews, KeyWatch};
use crate::machines::Machines;
use crate::outside::{ConsoleSink, Network, NetworkNews, Outside};
use crate::peer_addresses::PeerAddresses;
use crate::peer_stream::Membership;
use crate::random;
use crate::state_directory::{StateDirectory, StateDirectoryError};
use crate::status::{HostLine, ReplicaStatus, engine_name};
use crate::transport::Connection;
use crate::turned_away::turned_away;
use crate::vcpu::{Gauges, VcpuFailure, VcpuThread};
use crate::wake::Waker;
use arbiter::{ArbiterDesk, Store};
use environment::mpsc::{self, Receiver};
use environment::net::Interest;
use environment::thread::JoinHandle;
use environment::{Parked, StopSignals};
use keys::{Certificate, Date, HostName, UnixTime, whole_days};
use machine::output::Output;
use network::{PollSet, Readiness};
use replication::ConnectionId;
use replication::config::PairConfig;
use replication::event::Event;
use replication::links::{LinkId, LinkTimes};
use replication::message::{
    Greeting, LifeId, Message, PROTOCOL_VERSION, Refusal, spoken, takes_disks_first, unpacks,
};
use replication::mutation::Mutations;
use replication::startup::{Standing, TurnedAway};
use replication::succession::Generation;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::Discriminant;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Connections of members that are open at once; the oldest with whom the core has nothing to do is
/// closed for one more.
const CONNECTION_LIMIT: usize = 32;
/// However idle everything is, figures are taken this often.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Garbage is told at most this often: a flood of it must not fill the state directory.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(1);
/// A process that ends waits so long for evidence to be written.
const EVIDENCE_PATIENCE: Duration = Duration::from_secs(30);
/// The file that the guest's consoles are printed to.
const CONSOLE_LOG: &str = "console.log";

/// What happened while a replica waited.
#[derive(Debug, Default)]
pub struct Happened {
    /// The process is asked to end.
    pub stop: bool,
    /// Messages that arrived, in order.
    pub messages: Vec<(ConnectionId, Message)>,
    /// Connections whose other end shows that it is there, on whichever link.
    pub heard: Vec<ConnectionId>,
    /// Connections that ended, after their messages.
    pub ended: Vec<ConnectionId>,
    /// Frames that arrived.
    pub frames: Vec<Vec<u8>>,
    /// The network was connected, at last or anew.
    pub reconnected: bool,
    /// What a person asked for, to be answered.
    pub requests: Vec<(ConversationId, Request)>,
    /// What was typed at the guest's console.
    pub typed: Vec<u8>,
}

/// Sockets, files and threads of a replica.
pub struct Host {
    /// The replica's configuration.
    pub config: ReplicaConfig,
    /// Where other replicas may be found, as the configuration says.
    pub peers: Vec<PeerAddresses>,
    /// Where others that called were seen to listen.
    neighbours: Neighbours,
    /// Where machines come from.
    pub machines: Arc<dyn Machines>,
    /// What this host has for one.
    pub facts: HostFactsDesk,
    /// For the core.
    pub pair_config: PairConfig,
    /// What happened.
    pub events: EventLog,
    /// Network and consoles.
    pub outside: Outside,
    /// The arbiter.
    pub arbiter: ArbiterDesk,
    /// Since when it is of no use.
    pub arbiter_outage: ArbiterOutage,
    /// What the disks here are worth.
    pub markers: Markers,
    /// The journal, where one is configured.
    pub journal: Option<JournalDesk>,
    /// A disk here failed: no machine of another host is brought here until it takes writes again.
    pub failed_disk: Option<FailedDisk>,
    /// Why the disks here cannot become copies of the primary's, as it was told last.
    pub unfit_disks: Option<ToldUnfit>,
    /// How long the machine's disks are, as a primary of this life has said.
    pub disk_lengths: Option<(LifeId, Vec<u64>)>,
    /// Why nothing came of joining, the last time: it is looked again.
    pub left_off: Option<String>,
    /// Why a primary put this host off, the last time: it is told once in a row.
    pub put_off: Option<Discriminant<Refusal>>,
    /// When it is looked again.
    pub looks_again: LooksAgain,
    /// The machines that were here before, until they have let go of their disks.
    pub discarding: Option<JoinHandle<()>>,
    /// Keeps what is known of divergences.
    pub evidence: EvidenceDesk,
    /// Woken by all threads.
    pub waker: Waker,
    /// Speed of the machine, in instructions.
    pub speed: Rate,
    /// What was sent on the logging channel, in bytes; snapshots have a connection of their own.
    log: Rate,
    log_bytes: u64,
    control: ControlSocket,
    /// After the socket: whoever takes the directory next finds none.
    _directory: StateDirectory,
    signals: StopSignals,
    /// Who this host is for others, and whom it lets in.
    pub membership: Membership,
    _key_watch: Option<KeyWatch>,
    key_news: Receiver<KeyNews>,
    door: Door,
    channels: BTreeMap<ConnectionId, Channel>,
    next_connection: u64,
    /// When garbage was told last.
    garbage_told_at: Option<Duration>,
    /// When the last wait ended.
    woken_at: Option<Duration>,
    /// For how long the thread had been executed when it began to wait last: a wait executes nothing
    /// to speak of.
    executed: Duration,
    /// How long the loop did anything else than wait.
    turns: SlowTurns,
}

impl Host {
    /// Opens everything that `config` names, or says what cannot be opened.
    pub fn open(
        config: ReplicaConfig,
        machines: Box<dyn Machines>,
        store: Box<dyn Store>,
        mutations: Mutations,
    ) -> Result<Host, ReplicaError> {
        let directory = &config.state_directory;
        let own = StateDirectory::take(directory)?;
        let mut events =
            EventLog::open(directory).map_err(|source| state_file(directory, source))?;
        events.tell(&config.name);
        await_random_numbers(&mut events)?;
        let signals = StopSignals::catch()?;
        let control = ControlSocket::bind(&own)?;
        // Before the network, which may have the same keys: what is wrong with them is said of `pair.keys`.
        let membership = identity::membership(&config)?;
        let network = config.network.as_ref().map(Network::open).transpose()?;
        let file = own
            .append(CONSOLE_LOG)
            .map_err(|source| state_file(directory, source))?;
        let console = ConsoleSink {
            to_stdout: false,
            file: Some(file),
        };
        let waker = Waker::new()?;
        let door = Door::open(&config.pair.listen, &membership, waker.clone())?;
        let (sender, key_news) = mpsc::channel();
        let key_watch = match &membership {
            Membership::Keys(keys) => {
                let of_network = network.as_ref().and_then(Network::keys).cloned();
                let waker = waker.clone();
                let tell = move |news| {
                    // The process may be about to end.
                    let _sent = sender.send(news);
                    waker.wake();
                };
                let others = of_network.into_iter().collect();
                Some(KeyWatch::start(keys.clone(), others, tell)?)
            }
            Membership::Simulated => None,
        };
        let arbiter = ArbiterDesk::start(store, {
            let waker = waker.clone();
            move || waker.wake()
        })?;
        let mut pair_config = identity::pair_config(&config, &membership, &*machines)?;
        pair_config.mutations = mutations;
        pair_config.greeting.listen_port = door.address().map_or(0, |address| address.port());
        let machine = pair_config.greeting.machine.clone();
        let node = pair_config.greeting.host.node();
        let markers = Markers::open(&config, machine, node, waker.clone())?;
        markers.are_of_this_machine()?;
        let journal = open_journal(&config, &pair_config, &*machines, &waker)?;
        let machines: Arc<dyn Machines> = Arc::from(machines);
        Ok(Host {
            journal,
            markers,
            peers: Vec::new(),
            neighbours: Neighbours::default(),
            failed_disk: None,
            unfit_disks: None,
            disk_lengths: None,
            left_off: None,
            put_off: None,
            looks_again: LooksAgain::Soon,
            discarding: None,
            pair_config,
            arbiter,
            arbiter_outage: ArbiterOutage::default(),
            evidence: EvidenceDesk::new(EvidenceStore::new(directory), waker.clone()),
            facts: HostFactsDesk::start(monotonic(), machines.clone(), waker.clone()),
            machines,
            events,
            outside: Outside { network, console },
            waker,
            speed: Rate::default(),
            log: Rate::default(),
            log_bytes: 0,
            control,
            _directory: own,
            signals,
            _key_watch: key_watch,
            key_news,
            membership,
            door,
            channels: BTreeMap::new(),
            next_connection: 1,
            garbage_told_at: None,
            woken_at: None,
            executed: Duration::ZERO,
            turns: SlowTurns::default(),
            config,
        })
    }

    /// Where the replica listens.
    pub fn listen_address(&self) -> Option<String> {
        self.door.address().ok().map(|address| address.to_string())
    }

    /// Where other replicas may be found: as the configuration says, and as those who called said.
    pub fn places(&self) -> Vec<PeerAddresses> {
        let mut places = self.peers.clone();
        let beside = self.neighbours.beside(&self.peers);
        places.extend(beside.map(PeerAddresses::from));
        places
    }

    /// Takes a connection over that this side has made, to the first of these addresses.
    pub fn add_connection(&mut self, connection: Connection, to: PeerAddresses) -> ConnectionId {
        let times = self.link_times();
        let compression = self.config.pair.compression;
        self.add_channel(Channel::to(connection, monotonic(), times, compression, to))
    }

    fn link_times(&self) -> LinkTimes {
        LinkTimes::within(self.pair_config.detector.silence_timeout)
    }

    fn add_channel(&mut self, channel: Channel) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.channels.insert(id, channel);
        id
    }

    /// Sends a message, with others before the next wait or [`Host::flush`]. A connection that fails
    /// is noticed when it is read.
    pub fn send(&mut self, id: ConnectionId, message: &Message) {
        let channel = self.channels.get_mut(&id);
        if let Some(channel) = channel
            && let Ok(bytes) = channel.send(message)
        {
            self.log_bytes += bytes as u64;
            channel.admitted |= matches!(message, Message::Welcome { .. });
        }
    }

    /// So long takes a way there and back on a connection.
    pub fn measured(&mut self, id: ConnectionId, round_trip: Duration) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.measured(round_trip);
        }
    }

    /// Whether the host at the other end of a connection can read what is packed.
    pub fn unpacks(&self, id: ConnectionId) -> bool {
        let channel = self.channels.get(&id);
        channel.and_then(Channel::greeted_in).is_some_and(unpacks)
    }

    /// Whether the host at the other end of a connection can be sent a copy's disks before its machine.
    pub fn takes_disks_first(&self, id: ConnectionId) -> bool {
        let channel = self.channels.get(&id);
        let greeted_in = channel.and_then(Channel::greeted_in);
        greeted_in.is_some_and(takes_disks_first)
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> Vec<ConnectionId> {
        self.channels.keys().copied().collect()
    }

    /// Writes what was sent and emitted since the last time: one system call for each connection.
    pub fn flush(&mut self) {
        let now = monotonic();
        self.channels
            .values_mut()
            .for_each(|channel| channel.flush(now));
        self.outside.flush();
    }

    /// Closes all connections: the role that had them is over.
    pub fn close_all(&mut self) {
        self.control.detach_all();
        let open = self.open_connections();
        open.into_iter().for_each(|id| self.close(id));
    }

    /// Closes a connection; what was sent before is still delivered if the network can.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(mut channel) = self.channels.remove(&id) {
            channel.flush(monotonic());
        }
    }

    /// Stops speaking for a machine that cannot go on, so that the other replica does not wait, and
    /// says what was kept of it.
    pub fn machine_failed(&mut self, failure: &VcpuFailure, vcpu: &mut VcpuThread) -> ReplicaError {
        self.events
            .add("machine_failed", 0, failure.count.0, &*failure.reason);
        self.close_all();
        if let Some(directory) = vcpu.evidence(EVIDENCE_PATIENCE) {
            self.evidence_kept(Kept {
                generation: 0,
                count: failure.count.0,
                directory,
            });
        }
        ReplicaError::MachineFailed(failure.reason.clone())
    }

    /// Says where evidence is.
    pub fn evidence_kept(&mut self, kept: Kept) {
        let detail = match kept.directory {
            Ok(path) => path.display().to_string(),
            Err(error) => format!("the evidence could not be kept: {error}"),
        };
        self.events
            .add("evidence", kept.generation, kept.count, detail);
    }

    /// The machine here is given up because of a disk of this host.
    pub fn disk_failed(&mut self, what: String) {
        let now = monotonic();
        match &mut self.failed_disk {
            Some(failed) => failed.failed_again(now, what),
            None => self.failed_disk = Some(FailedDisk::new(now, what)),
        }
    }

    /// Writes the last event.
    pub fn stopped(&mut self, generation: u64, count: u64, end: &Result<Ended, ReplicaError>) {
        while let Some(kept) = self.evidence.kept(EVIDENCE_PATIENCE) {
            self.evidence_kept(kept);
        }
        let detail = match end {
            Ok(ended) => ended.to_string(),
            Err(error) => error.to_string(),
        };
        self.events.add("stopped", generation, count, detail);
    }

    /// Gives a connection to somebody who has a thread for it: it is none of the loop's any more, and
    /// whoever writes to it waits.
    pub fn take_fetcher(&mut self, id: ConnectionId) -> Option<Fetcher> {
        self.channels.remove(&id)?.into_fetcher()
    }

    /// Writes an event of the core's to the log.
    pub fn report(&mut self, event: &Event, generation: Generation, count: u64) {
        let generation = match event {
            Event::Claimed { generation, .. } => generation.0,
            Event::Superseded { by } => by.key.generation.0,
            _ => generation.0,
        };
        let name = name_event(event);
        let detail = match event {
            Event::Arbiter { .. } | Event::ArbiterAnswers { .. } => {
                format!("{event} ({})", self.arbiter.store_name())
            }
            _ => event.to_string(),
        };
        self.events.add(name, generation, count, detail);
    }

    /// Waits until something happens, at most until `deadline` (monotonic), and says what.
    ///
    /// New connections are taken only when `accept` is set. Questions at the control socket are
    /// answered with `status`.
    pub fn wait(
        &mut self,
        deadline: Option<Duration>,
        accept: bool,
        status: impl Fn(&Host) -> ReplicaStatus,
    ) -> io::Result<Happened> {
        let mut happened = Happened::default();
        self.tend_links(&mut happened);
        self.flush();
        let is_news = !happened.ended.is_empty();
        let timeout = if is_news {
            Duration::ZERO
        } else {
            self.timeout(deadline)
        };
        self.measure_turn();
        while let Some(kept) = self.evidence.kept(Duration::ZERO) {
            self.evidence_kept(kept);
        }
        let ready = self.poll(timeout, accept)?;
        self.woken_at = Some(monotonic());
        // Before what came: this process may have slept, which is no link's silence.
        self.tend_links(&mut happened);
        let mut network_is_ready = false;
        for (source, readiness) in ready {
            match source {
                Source::Waker => self.waker.clear(),
                // Members are taken below.
                Source::Door => {}
                Source::Signals => happened.stop = self.signals.arrived(),
                Source::Control => self.control.accept(),
                Source::Conversation(id) if self.control.is_console(id) => {
                    self.control.write(id);
                    happened.typed.extend(self.control.typed(id));
                }
                Source::Conversation(id) => match self.control.read(id) {
                    Some(Request::Status) => {
                        let status = Answer::Status(Box::new(status(self)));
                        self.control.answer(id, &status);
                    }
                    Some(request) => happened.requests.push((id, request)),
                    None => {}
                },
                Source::Channel(id, link) => {
                    self.serve_channel(id, link, readiness, &mut happened);
                }
                Source::Network => network_is_ready = true,
            }
        }
        self.key_news();
        if accept {
            self.accept_all(&mut happened);
        }
        self.close_strangers(&mut happened);
        self.serve_network(network_is_ready, &mut happened);
        Ok(happened)
    }

    /// Measures how long the loop did anything else than wait: heartbeats waited meanwhile, and
    /// whoever looks for the reason of a suspicion wants to know.
    fn measure_turn(&mut self) {
        let now = monotonic();
        let executed_before = std::mem::replace(&mut self.executed, thread_cpu());
        let Some(woken_at) = self.woken_at.take() else {
            return;
        };
        let worked = now.saturating_sub(woken_at);
        let executed = self.executed.saturating_sub(executed_before);
        if let Some(detail) = self.turns.ended(now, worked, executed) {
            self.events.add("slow", 0, 0, detail);
        }
    }

    fn timeout(&self, deadline: Option<Duration>) -> Duration {
        let now = monotonic();
        let network = self.outside.network.as_ref();
        if network.is_some_and(Network::has_frame) {
            return Duration::ZERO;
        }
        let retry = network
            .and_then(Network::retry_at_ns)
            .map(Duration::from_nanos);
        let strangers = self
            .channels
            .values()
            .filter_map(Channel::admission_deadline);
        let links = self.channels.values().filter_map(Channel::deadline);
        [deadline, retry, self.arbiter.deadline()]
            .into_iter()
            .flatten()
            .chain(strangers)
            .chain(links)
            .map(|at| at.saturating_sub(now))
            .fold(LONGEST_WAIT, Duration::min)
    }

    fn poll(&self, timeout: Duration, accept: bool) -> io::Result<Vec<(Source, Readiness)>> {
        let Some(simulation) = environment::current() else {
            return self.look(timeout, accept);
        };
        let until_ns = monotonic_ns().saturating_add(timeout.as_nanos() as u64);
        loop {
            let ready = self.look(Duration::ZERO, accept)?;
            let network = self.outside.network.as_ref();
            let has_frame = network.is_some_and(Network::has_frame);
            if !ready.is_empty() || has_frame || monotonic_ns() >= until_ns {
                return Ok(ready);
            }
            if let Parked::Dying(_) = simulation.park(Some(until_ns)) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// What is ready. Waits for it for `timeout`, in which a simulated socket changes nothing.
    fn look(&self, timeout: Duration, accept: bool) -> io::Result<Vec<(Source, Readiness)>> {
        let mut set = PollSet::new();
        let mut simulated = Vec::new();
        set.add(self.waker.fd(), Source::Waker, true, false);
        set.add(self.signals.fd(), Source::Signals, true, false);
        set.add(self.control.fd(), Source::Control, true, false);
        for (id, fd, writes) in self.control.interests() {
            set.add(fd, Source::Conversation(id), true, writes);
        }
        let mut add = |interest, source, reads, writes| match interest {
            Interest::Descriptor(fd) => set.add(fd, source, reads, writes),
            Interest::Simulated(ready) => {
                let (readable, writable) = (reads && ready.readable, writes && ready.writable);
                if readable || writable {
                    simulated.push((source, Readiness { readable, writable }));
                }
            }
        };
        if let Some(interest) = self.door.interest() {
            add(interest, Source::Door, accept, false);
        }
        for (id, channel) in &self.channels {
            for (link, connection) in channel.connections() {
                let waits = connection.has_waiting();
                add(
                    connection.interest(),
                    Source::Channel(*id, link),
                    true,
                    waits,
                );
            }
        }
        if let Some(network) = &self.outside.network {
            network.interests(&mut set, Source::Network);
        }
        let mut ready = set.wait(Some(timeout))?;
        ready.append(&mut simulated);
        Ok(ready)
    }

    fn accept_all(&mut self, happened: &mut Happened) {
        while let Some((stream, from)) = self.door.member() {
            let Ok(connection) = Connection::new(stream) else {
                continue;
            };
            let compression = self.config.pair.compression;
            let mut channel = Channel::new(connection, monotonic(), self.link_times(), compression);
            channel.from = from;
            let id = self.add_channel(channel);
            if self.channels.len() > CONNECTION_LIMIT
                && let Some(oldest) = self.oldest_stranger()
            {
                self.close(oldest);
                happened.ended.push(oldest);
            }
            // What came together with the end of the handshake no poll tells.
            let readiness = Readiness {
                readable: true,
                writable: false,
            };
            self.serve_channel(id, FIRST, readiness, happened);
        }
    }

    /// Tells who was turned away at the door, and what is new about this host's keys.
    fn key_news(&mut self) {
        let (turned_away, untold) = self.door.turned_away();
        let last = turned_away.len().saturating_sub(1);
        for (index, mut what) in turned_away.into_iter().enumerate() {
            if index == last && untold > 0 {
                what = format!("{what}; and {untold} more");
            }
            self.events.add("turned_away", 0, 0, what);
        }
        while let Ok(news) = self.key_news.try_recv() {
            self.events.add(news.event, 0, 0, news.detail);
        }
    }

    /// The oldest connection that the core has nothing to do with.
    fn oldest_stranger(&self) -> Option<ConnectionId> {
        let mut channels = self.channels.iter();
        let stranger = channels.find(|(_, channel)| !channel.admitted);
        stranger.map(|(id, _)| *id)
    }

    /// Closes the connections of those who came and wanted nothing.
    fn close_strangers(&mut self, happened: &mut Happened) {
        let now = monotonic();
        let is_over = |channel: &Channel| channel.admission_deadline().is_some_and(|at| at <= now);
        let over: Vec<ConnectionId> = self
            .channels
            .iter()
            .filter_map(|(id, channel)| is_over(channel).then_some(*id))
            .collect();
        for id in over {
            self.close(id);
            happened.ended.push(id);
        }
    }

    fn serve_channel(
        &mut self,
        id: ConnectionId,
        link: LinkId,
        ready: Readiness,
        happened: &mut Happened,
    ) {
        let now = monotonic();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let mut received = match ready.readable {
            true => channel.receive(now, link),
            false => (VecDeque::new(), Ok(())),
        };
        if ready.readable && channel.has_links() {
            happened.heard.push(id);
        }
        if ready.writable && received.1.is_ok() {
            received.1 = channel.writable(now, link);
        }
        self.take_received(id, received, happened);
    }

    /// Takes what came over a channel, or that it has ended.
    fn take_received(&mut self, id: ConnectionId, received: Received, happened: &mut Happened) {
        let (messages, result) = received;
        for message in messages {
            let is_over = match &message {
                Message::Link { token, link } => {
                    return self.attach_link(id, *token, *link, happened);
                }
                Message::Foreign { protocol } => {
                    self.foreign(id, *protocol);
                    true
                }
                message => self.is_anothers(id, message),
            };
            if is_over {
                happened.ended.push(id);
                return;
            }
            self.remember(id, &message);
            happened.messages.push((id, message));
        }
        if let Err(error) = result {
            self.not_let_in(id, &error);
            let told = self.garbage_told_at;
            if error.is_garbage() && told.is_none_or(|at| monotonic() >= at + GARBAGE_INTERVAL) {
                self.garbage_told_at = Some(monotonic());
                self.events.add("garbage", 0, 0, error.to_string());
            }
            self.close(id);
            happened.ended.push(id);
        }
    }

    /// What came is of another host than its session: no program of this site says so.
    fn is_anothers(&mut self, id: ConnectionId, message: &Message) -> bool {
        let host = match message {
            Message::Hello { greeting, .. }
            | Message::Ask { greeting, .. }
            | Message::Welcome { greeting, .. } => &greeting.host,
            Message::Standing(standing) => &standing.host,
            _ => return false,
        };
        let channel = self.channels.get(&id);
        let Some(peer) = channel.and_then(Channel::peer) else {
            return false;
        };
        if peer.as_str() == host.node() {
            return false;
        }
        let detail = format!("turned away host {peer}: it says that it is called {host}");
        self.events.add("refused", 0, 0, detail);
        self.close(id);
        true
    }

    /// Whoever calls says where it listens itself.
    fn remember(&mut self, id: ConnectionId, message: &Message) {
        let (Message::Hello { greeting, .. } | Message::Ask { greeting, .. }) = message else {
            return;
        };
        let from = self.channels.get(&id).and_then(|channel| channel.from);
        if let Some(from) = from
            && self.pair_config.greeting.machine == greeting.machine
            && self.pair_config.greeting.clash(greeting).is_none()
        {
            self.neighbours
                .called(&greeting.host, from, greeting.listen_port);
        }
    }

    /// Answers a peer that asks, or greets somebody who is no primary, how this replica stands. One that
    /// has this host's name or identity is told that instead.
    pub fn answer_peer(&mut self, id: ConnectionId, theirs: &Greeting, standing: Standing) {
        match self.pair_config.greeting.clash(theirs) {
            None => self.send(id, &Message::Standing(standing)),
            Some(refusal) => {
                let detail = format!("turned away host {}: {refusal}", theirs.host);
                self.events.add("refused", 0, 0, detail);
                self.send(id, &Message::Refuse(refusal));
            }
        }
        self.close(id);
    }

    /// A host of another version of the program has greeted: no more of it can be understood.
    fn foreign(&mut self, id: ConnectionId, protocol: u32) {
        let peer = self.channels.get(&id).and_then(Channel::peer);
        let peer = peer.map(HostName::as_str);
        let detail = format!(
            "turned away host {}: it speaks protocol version {protocol}, this one {}: install the same \
             build on both",
            peer.unwrap_or("without a name"),
            spoken()
        );
        self.events.add("refused", 0, 0, detail);
        let ours = PROTOCOL_VERSION;
        self.send(id, &Message::Refuse(Refusal::ProtocolVersion { ours }));
        self.close(id);
    }

    /// A host that does not let this one in says so when the session is there on this side already.
    fn not_let_in(&mut self, id: ConnectionId, error: &ChannelError) {
        let (Some(channel), ChannelError::Io(error)) = (self.channels.get(&id), error) else {
            return;
        };
        let peer = channel.peer();
        let turned_away = turned_away(error, "the other end", peer, &self.membership);
        if let Some(TurnedAway { why, .. }) = turned_away {
            self.events.add("connect_failed", 0, 0, why);
        }
    }

    fn serve_network(&mut self, is_ready: bool, happened: &mut Happened) {
        let Some(network) = &mut self.outside.network else {
            return;
        };
        if is_ready || network.has_frame() {
            network.serve(|frame| happened.frames.push(frame));
        }
        happened.reconnected = network.reconnect(monotonic_ns());
        match network.news(monotonic_ns()) {
            Some(NetworkNews::Lost(why)) => self.events.add("network_lost", 0, 0, why),
            Some(NetworkNews::Back) => self.events.add("network_back", 0, 0, ""),
            None => {}
        }
    }

    /// Answers what a person said.
    pub fn answer(&mut self, id: ConversationId, answer: &Answer) {
        self.control.answer(id, answer);
    }

    /// As [`ControlSocket::hand_over`].
    pub fn hand_over(
        &mut self,
        id: ConversationId,
        patience: Duration,
    ) -> Option<std::os::unix::net::UnixStream> {
        self.control.hand_over(id, patience)
    }

    /// Lets somebody be at the console of the machine that is live here.
    pub fn attach(&mut self, id: ConversationId) {
        self.control.attach(id);
    }

    /// Lets an output of the machine that is live here out.
    pub fn emit(&mut self, output: &Output) {
        if let Output::ConsoleBytes { bytes, .. } = output {
            self.control.show(bytes);
        }
        self.outside.emit(output);
    }

    /// Takes the figures that speeds are computed from.
    pub fn sample(&mut self, count: u64) {
        let now_ns = monotonic_ns();
        self.speed.sample(now_ns, count);
        self.log.sample(now_ns, self.log_bytes);
    }

    fn network_trouble(&self) -> Option<String> {
        let network = self.outside.network.as_ref()?;
        network.trouble().map(str::to_owned)
    }

    /// What is the same for both roles in a status.
    pub fn base_status(&self, vcpu: Option<&VcpuThread>) -> ReplicaStatus {
        let now_ns = monotonic_ns();
        let gauge = |read: fn(&Gauges) -> &AtomicU64| {
            vcpu.map_or(0, |vcpu| read(vcpu.gauges()).load(Ordering::Relaxed))
        };
        let count = gauge(|gauges| &gauges.count);
        let (host, key_expires, key_days_left) = match &self.membership {
            Membership::Keys(keys) => describe_key(&keys.certificate()),
            Membership::Simulated => Default::default(),
        };
        ReplicaStatus {
            host,
            has: HostLine::from(&self.facts.facts()),
            version: version(&self.pair_config.greeting),
            key_expires,
            key_days_left,
            pid: std::process::id(),
            name: self.config.name.clone(),
            arbiter: self.arbiter.store_name().to_owned(),
            instruction_count: count,
            memory_in_use_bytes: gauge(|gauges| &gauges.memory_in_use),
            guest_time_ms: gauge(|gauges| &gauges.guest_time_ns) / 1_000_000,
            digests_compared: gauge(|gauges| &gauges.digests_compared),
            network_lost: self.network_trouble(),
            paused: vcpu.is_some_and(|vcpu| vcpu.gauges().paused.load(Ordering::Relaxed)),
            engine: engine_name(vcpu.map_or(self.config.engine, VcpuThread::engine)).into(),
            mips: self.speed.per_second(now_ns, count) / 1e6,
            log_bytes_sent: self.log_bytes,
            loop_longest_ms: self.turns.longest().as_secs_f64() * 1e3,
            loop_busiest_ms: self.turns.longest_executed().as_secs_f64() * 1e3,
            log_bits_per_second: (self.log.per_second(now_ns, self.log_bytes) * 8.0) as u64,
            directory: self.config.state_directory.clone(),
            events: self.events.newest().cloned().collect(),
            ..ReplicaStatus::default()
        }
    }
}

/// What people are told of this program. Hosts that pair have the same semantics and protocol.
fn version(own: &Greeting) -> String {
    let Greeting {
        build,
        semantics_version,
        ..
    } = own;
    format!(
        "{build}, semantics version {semantics_version}, protocol version {PROTOCOL_VERSION}, speaks {}",
        spoken()
    )
}

/// Whose a certificate is, its last day, and how many days are left.
fn describe_key(certificate: &Certificate) -> (String, String, i64) {
    (
        certificate.name.to_string(),
        Date(certificate.not_after).to_string(),
        whole_days(UnixTime::now(), certificate.not_after),
    )
}

/// Why the disks here cannot become copies of a primary's, and whom that was told.
#[derive(Debug)]
pub struct ToldUnfit {
    /// Why.
    pub why: UnfitDisks,
    /// The primary of this generation is to be told, or was.
    pub told: Option<Generation>,
    /// It is told when this host joins next, which it then does not.
    pub is_to_be_told: bool,
}

/// When a replica that has no role any more looks again what it can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LooksAgain {
    /// After a rest.
    #[default]
    Soon,
    /// At once: another has the machine now.
    AtOnce,
    /// Not before so much time has passed.
    After(Duration),
}

/// What the loop waits for.
#[derive(Clone, Copy, Debug)]
enum Source {
    Waker,
    Signals,
    Control,
    Conversation(ConversationId),
    Door,
    Channel(ConnectionId, LinkId),
    Network,
}

/// The journal's place, and its threads.
fn open_journal(
    config: &ReplicaConfig,
    pair: &PairConfig,
    machines: &dyn Machines,
    waker: &Waker,
) -> Result<Option<JournalDesk>, ReplicaError> {
    let Some(options) = &config.journal else {
        return Ok(None);
    };
    let owner = JournalOwner {
        machine: pair.greeting.machine.clone(),
        semantics_version: pair.greeting.semantics_version,
        configuration_hash: machines.configuration_hash(),
        overlay_bases: writable_bases(config),
        run: pair.greeting.run,
    };
    let (keep, mutations) = (options.keep, pair.mutations);
    let desk = JournalDesk::start(&options.place, owner, keep, mutations, waker.clone())?;
    Ok(Some(desk))
}

/// What the overlays of the disks are named after that a journal's machine writes. Of one that only keeps the
/// history no machine goes on, and it needs none.
fn writable_bases(config: &ReplicaConfig) -> Vec<PathBuf> {
    if !config.has_layers() {
        return Vec::new();
    }
    let writable = config.disks.iter().filter(|disk| !disk.read_only);
    let base = |disk: &DiskFile| overlay::base(&disk.path, &config.state_directory);
    writable.map(base).collect()
}

/// Early in its life a host has no random numbers, and nobody can say yet who this replica is. While it waits
/// for them a signal ends the process, as none is caught yet.
fn await_random_numbers(events: &mut EventLog) -> io::Result<()> {
    if !random::is_ready()? {
        let detail =
            "this host has no random numbers yet, as early in its life: they are waited for";
        events.add("waiting", 0, 0, detail);
        random::number()?;
    }
    Ok(())
}

fn state_file(directory: &Path, source: io::Error) -> StateDirectoryError {
    StateDirectoryError::Unusable {
        directory: directory.into(),
        source,
    }
}
