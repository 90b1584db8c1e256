//! The world: hosts, their disks, the arbiter, what happens next, and what must never happen.

use crate::replica::{Body, Conn, Message, Process};
use replication::marker::{DiskState, Found, Marker, Role, Worth};
use replication::message::LifeId;
use replication::mutation::Mutations;
use replication::startup::{PeerAnswer, PeerId, StartupConfig, Word};
use replication::succession::{
    Durability, Entry, Generation, Host, HostId, Key, Kind, MachineName, Outcome, Request, RunId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Options {
    pub hosts: usize,
    pub mutations: Mutations,
    pub durability: Durability,
    /// The store is not atomic: some keys hold a prefix of what was written.
    pub torn_keys: bool,
}

pub type Reached = BTreeMap<&'static str, u64>;

pub struct Random(u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A disk: the writes that it holds, in order.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub now: Vec<u32>,
    pub synced: Vec<u32>,
}

#[derive(Default)]
pub struct Machine {
    pub disk: Disk,
    pub disk_marker: Option<Marker>,
    pub state_marker: Option<Marker>,
    pub process: Option<Process>,
    pub frozen: bool,
    /// Its last process had nothing to do.
    pub refused: bool,
}

/// Something on its way.
enum Event {
    /// A request reaches the store; afterwards its answer may reach the asker.
    Lands {
        host: usize,
        run: u64,
        request: Request,
        answered: bool,
    },
    Answer {
        host: usize,
        run: u64,
        request: Request,
        outcome: Outcome,
    },
    /// Peer `peer` of `host` is asked how it stands.
    PeerAsked { host: usize, run: u64, peer: usize },
    PeerSaid {
        host: usize,
        run: u64,
        peer: usize,
        answer: PeerAnswer,
    },
}

pub struct World {
    pub options: Options,
    pub random: Random,
    pub hosts: Vec<Machine>,
    pub conns: Vec<Conn>,
    pub arbiter: BTreeMap<Key, Vec<u8>>,
    pub now: Duration,
    pub calm: bool,
    pub trace: Vec<String>,
    pub reached: Reached,
    /// Writes whose flush the guest knows to be complete, in the newest life.
    pub durable: Vec<u32>,
    pub next_write: u32,
    next_run: u64,
    events: Vec<Event>,
    violation: Option<String>,
    /// A person's word counts here: nobody starts the others.
    word_at: Option<usize>,
    torn: bool,
    /// Processes that a person spoke to: what they ask may land after they are gone.
    spoken_runs: BTreeSet<u64>,
    /// Strikes in a thousand steps.
    rage: usize,
}

pub fn name() -> MachineName {
    MachineName::new("vm").unwrap()
}

pub fn host(index: usize) -> Host {
    Host::new(HostId(index as u128 + 1), ["a", "b", "c"][index])
}

impl World {
    pub fn new(seed: u64, options: Options) -> World {
        let hosts = (0..options.hosts).map(|_| Machine::default()).collect();
        let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
        let rage = [20, 60, 200][random.below(3)];
        World {
            options,
            random,
            rage,
            hosts,
            conns: Vec::new(),
            arbiter: BTreeMap::new(),
            now: Duration::from_secs(1),
            calm: false,
            trace: Vec::new(),
            reached: Reached::new(),
            durable: Vec::new(),
            next_write: 0,
            next_run: 1,
            events: Vec::new(),
            violation: None,
            word_at: None,
            torn: false,
            spoken_runs: BTreeSet::new(),
        }
    }

    pub fn note(&mut self, line: String) {
        self.trace
            .push(format!("{:>9.3} {line}", self.now.as_secs_f64()));
    }

    pub fn reached(&mut self, situation: &'static str) {
        *self.reached.entry(situation).or_default() += 1;
    }

    pub fn violated(&mut self, what: String) {
        self.note(format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Chaos, then calm: safety all along, progress at the end.
    pub fn run(&mut self) -> Result<(), String> {
        let chaos = 500 + self.random.below(3000);
        for _ in 0..chaos {
            self.step();
            if let Some(what) = self.violation.take() {
                return Err(what);
            }
        }
        if self.torn {
            return Ok(());
        }
        self.calm = true;
        self.word_at = None;
        self.note("calm".to_owned());
        for host in 0..self.hosts.len() {
            self.hosts[host].frozen = false;
            self.hosts[host].refused = false;
        }
        for _ in 0..40_000 {
            self.step();
            if let Some(what) = self.violation.take() {
                return Err(what);
            }
            if self.is_settled() {
                return Ok(());
            }
        }
        Err("no machine runs though all is calm".to_owned())
    }

    /// A machine runs and is protected, or its life is over and everybody knows.
    fn is_settled(&self) -> bool {
        let over = self
            .hosts
            .iter()
            .all(|host| host.process.is_none() && host.refused);
        let protected = self.hosts.iter().any(|host| {
            matches!(host.process.as_ref().map(|process| &process.body),
                Some(Body::Primary(primary)) if primary.is_protected())
        });
        over || protected
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.below(60) as u64);
        let host = self.random.below(self.hosts.len());
        let strikes = !self.calm && self.random.below(1000) < self.rage;
        match self.random.below(if strikes { 100 } else { 91 }) {
            _ if strikes && self.random.percent(10) => self.strike_delicately(host),
            0..35 if !self.events.is_empty() => self.deliver(),
            0..60 => self.work(host),
            60..86 => self.receive(),
            86..91 => self.start(host),
            91 => self.kill(host),
            92 => self.lose_power(host),
            93 if self.random.percent(40) => {
                for host in 0..self.hosts.len() {
                    self.lose_power(host);
                }
            }
            94 => self.cut(),
            95 => self.freeze(host),
            96..98 => self.thaw(host),
            98 => self.speak(host),
            _ => {}
        }
    }

    /// At a moment at which something is under way, if there is one.
    fn strike_delicately(&mut self, host: usize) {
        match self.random.below(4) {
            0 => self.kill(host),
            1 => self.lose_power(host),
            2 => self.cut(),
            _ => self.freeze(host),
        }
    }

    fn deliver(&mut self) {
        let index = self.random.below(self.events.len());
        match self.events.swap_remove(index) {
            Event::Lands {
                host,
                run,
                request,
                answered,
            } => {
                self.land(host, run, request, answered);
            }
            Event::Answer {
                host,
                run,
                request,
                outcome,
            } if self.is_awake(host, run) => {
                self.arbiter_answers(host, &request, &outcome);
            }
            Event::PeerSaid {
                host,
                run,
                peer,
                answer,
            } if self.is_awake(host, run) => {
                self.peer_says(host, PeerId(peer as u8), answer);
            }
            Event::PeerAsked { host, run, peer } => {
                let other = (0..self.hosts.len())
                    .filter(|other| *other != host)
                    .nth(peer)
                    .unwrap();
                let lost = !self.calm && self.random.percent(15);
                let standing = self.standing(other).filter(|_| !lost);
                let answer = standing.map_or(PeerAnswer::Unreachable, PeerAnswer::Standing);
                self.events.push(Event::PeerSaid {
                    host,
                    run,
                    peer,
                    answer,
                });
            }
            // A frozen process gets it later, a dead one never.
            event @ (Event::Answer { .. } | Event::PeerSaid { .. }) => {
                let (host, run) = match &event {
                    Event::Answer { host, run, .. } | Event::PeerSaid { host, run, .. } => {
                        (*host, *run)
                    }
                    _ => return,
                };
                if self.run_of(host) == Some(run) {
                    self.events.push(event);
                }
            }
        }
    }

    fn land(&mut self, host: usize, run: u64, request: Request, answered: bool) {
        let outcome = match &request {
            Request::Create { key, content, .. } => {
                if let Some(held) = self.arbiter.get(key) {
                    if key.generation == Generation(0) && held != content {
                        self.reached("lost the race to power on");
                    }
                    Outcome::NotCreated
                } else {
                    let mut content = content.clone();
                    if self.options.torn_keys && !self.calm && !answered && self.random.percent(20)
                    {
                        content.truncate(self.random.below(content.len()));
                        self.torn = true;
                        self.reached("a key was torn");
                    }
                    if !answered {
                        self.reached("a key landed without an answer");
                    }
                    self.note(format!(
                        "arbiter: {}",
                        String::from_utf8_lossy(&content).trim_end()
                    ));
                    if let Ok(entry) = Entry::parse(key, &content) {
                        self.may_give_up(host, run, &entry);
                        self.discards_nothing(run, &entry);
                    }
                    self.arbiter.insert(key.clone(), content);
                    Outcome::Created
                }
            }
            Request::Read { key } => match self.arbiter.get(key) {
                Some(content) => Outcome::Holds(content.clone()),
                None => Outcome::Absent,
            },
            Request::WriteBeacon { .. }
            | Request::ReadBeacon { .. }
            | Request::Elsewhere { .. } => return,
        };
        if answered {
            self.events.push(Event::Answer {
                host,
                run,
                request,
                outcome,
            });
        }
    }

    /// A process asks the arbiter. In chaos an answer may be lost, and what was given up may still
    /// land later.
    pub fn ask(&mut self, host: usize, request: Request) {
        let Some(run) = self.run_of(host) else { return };
        let lost = !self.calm && self.random.percent(20);
        if lost {
            let outcome = Outcome::Unknown("no answer".to_owned());
            let request = request.clone();
            self.events.push(Event::Answer {
                host,
                run,
                request,
                outcome,
            });
            if self.random.percent(40) {
                return;
            }
        }
        self.events.push(Event::Lands {
            host,
            run,
            request,
            answered: !lost,
        });
    }

    pub fn ask_peers(&mut self, host: usize) {
        let Some(run) = self.run_of(host) else { return };
        for peer in 0..self.hosts.len() - 1 {
            self.events.push(Event::PeerAsked { host, run, peer });
        }
    }

    pub fn run_of(&self, host: usize) -> Option<u64> {
        self.hosts[host].process.as_ref().map(|process| process.run)
    }

    fn is_awake(&self, host: usize, run: u64) -> bool {
        self.run_of(host) == Some(run) && !self.hosts[host].frozen
    }

    /// What the markers of a host say.
    pub fn worth(&self, host: usize) -> Worth {
        let found = |marker: &Option<Marker>| {
            Found::read(&name(), marker.as_ref().map(Marker::content).as_deref())
        };
        let machine = &self.hosts[host];
        Worth::of(
            &found(&machine.state_marker),
            &[found(&machine.disk_marker)],
        )
    }

    /// The one command. A second process of a host does not start: the first holds the lock.
    fn start(&mut self, host: usize) {
        let others_wait = self.word_at.is_some_and(|at| at != host);
        // In calm a replica that was refused is not started again, unless another life began.
        let is_over = self
            .arbiter
            .last_key_value()
            .and_then(|(key, content)| Entry::parse(key, content).ok())
            .is_some_and(|entry| entry.kind.ends_life());
        let is_done = self.calm && self.hosts[host].refused && is_over;
        if self.hosts[host].process.is_some() || others_wait || is_done {
            return;
        }
        self.hosts[host].refused = false;
        let run = self.next_run;
        self.next_run += 1;
        let id = crate::model::host(host);
        let mut config =
            StartupConfig::new(name(), id, RunId(run.into()), LifeId(u128::from(run) << 64));
        config.peers = self.hosts.len() as u8 - 1;
        config.durability = self.options.durability;
        config.mutations = self.options.mutations;
        let worth = self.worth(host);
        self.note(format!(
            "{}: run {run} starts with {worth}",
            crate::model::host(host)
        ));
        self.hosts[host].process = Some(Process::new(self.now, run, config, worth));
        self.act(host);
    }

    fn kill(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.take() else {
            return;
        };
        self.hosts[host].frozen = false;
        self.note(format!(
            "{}: run {} is killed",
            crate::model::host(host),
            process.run
        ));
        self.gone(host, &process);
    }

    fn gone(&mut self, host: usize, process: &Process) {
        if matches!(&process.body, Body::Backup(backup) if backup.is_copying()) {
            self.reached("the copy was cut off");
        }
        if self.word_at == Some(host) {
            self.word_at = None;
        }
        for conn in &mut self.conns {
            conn.dies(process.run);
        }
    }

    fn lose_power(&mut self, host: usize) {
        self.kill(host);
        let disk = &mut self.hosts[host].disk;
        let kept = if disk.now.starts_with(&disk.synced) {
            let unsynced = disk.now.len() - disk.synced.len();
            disk.synced.len() + self.random.below(unsynced + 1)
        } else {
            0
        };
        let lost = disk.now.len() > kept;
        // Of a disk that was being made anew, anything may be left: it is no machine's.
        let left = if disk.now.starts_with(&disk.synced) {
            &disk.now[..kept]
        } else {
            &[u32::MAX]
        };
        disk.now = left.to_vec();
        disk.synced = disk.now.clone();
        if lost {
            self.reached("unsynced writes were lost");
        }
        self.note(format!("{}: power is lost", crate::model::host(host)));
    }

    fn freeze(&mut self, host: usize) {
        if self.hosts[host].process.is_some() && self.random.percent(30) {
            self.hosts[host].frozen = true;
            self.note(format!("{}: frozen", crate::model::host(host)));
        }
    }

    fn thaw(&mut self, host: usize) {
        self.hosts[host].frozen = false;
    }

    fn cut(&mut self) {
        if !self.conns.is_empty() {
            let conn = self.random.below(self.conns.len());
            self.conns[conn].open = false;
        }
    }

    /// A person says something, and it is true: the hosts that are called off are off.
    fn speak(&mut self, host: usize) {
        let all_others_off =
            (0..self.hosts.len()).all(|other| other == host || self.hosts[other].process.is_none());
        if !all_others_off || self.word_at.is_some() || self.random.percent(80) {
            return;
        }
        // Whatever the hosts that are off had asked of the arbiter long landed.
        let foreign = |event: &Event| matches!(event, Event::Lands { host: by, .. } if *by != host);
        if self.events.iter().any(foreign) {
            return;
        }
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        let new_life = self.random.percent(50);
        let without = others.map(|other| crate::model::host(other).id).collect();
        let without = if new_life {
            Default::default()
        } else {
            without
        };
        if self.run_of(host).is_some() || self.hosts[host].frozen {
            return;
        }
        self.start(host);
        self.word_at = Some(host);
        let word = Word { without, new_life };
        self.note(format!(
            "{}: a person says {word:?}",
            crate::model::host(host)
        ));
        let now = self.now;
        if let Some(process) = &mut self.hosts[host].process {
            process.spoken = true;
            self.spoken_runs.insert(process.run);
            process.startup.word(now, word);
        }
        self.act(host);
    }

    /// The word was used up, or is not needed any more.
    pub fn word_is_used(&mut self, host: usize) {
        if self.word_at == Some(host) {
            self.word_at = None;
        }
    }

    fn receive(&mut self) {
        let ready: Vec<(usize, bool)> = (0..self.conns.len())
            .flat_map(|conn| [(conn, true), (conn, false)])
            .filter(|(conn, to_first)| self.can_take(*conn, *to_first))
            .collect();
        if !ready.is_empty() {
            let (conn, to_first) = ready[self.random.below(ready.len())];
            self.take_message(conn, to_first);
        }
    }

    pub fn send(&mut self, conn: usize, from_run: u64, message: Message) {
        self.conns[conn].send(from_run, message);
    }

    /// A machine is about to start from the disk of `host`.
    pub fn starts_from_disk(&mut self, host: usize) {
        let disk = self.hosts[host].disk.now.clone();
        if !disk.starts_with(&self.durable) {
            self.violated(format!(
                "{} starts from {disk:?}, though {:?} are durable",
                crate::model::host(host),
                self.durable
            ));
        }
        if disk.contains(&u32::MAX) {
            self.violated(format!(
                "{} starts a half-copied disk",
                crate::model::host(host)
            ));
        }
    }

    /// A key by a person's word is there: what only other disks have was given up.
    fn may_give_up(&mut self, host: usize, run: u64, entry: &Entry) {
        let Some(next) = &entry.next else { return };
        let is_new_reign = next.since == entry.next_generation();
        let spoken = self.spoken_runs.contains(&run);
        if entry.kind == Kind::PowerOn {
            self.durable.clear();
        } else if spoken && entry.kind == Kind::ColdStart && is_new_reign {
            let disk = &self.hosts[host].disk.now;
            let same = disk
                .iter()
                .zip(&self.durable)
                .take_while(|(a, b)| a == b)
                .count();
            self.durable.truncate(same);
        }
    }

    /// Without a person's word nobody starts from a disk while a member holds the running machine.
    fn discards_nothing(&mut self, run: u64, entry: &Entry) {
        if entry.kind != Kind::ColdStart || self.spoken_runs.contains(&run) {
            return;
        }
        let holds = |machine: &&Machine| {
            matches!(machine.process.as_ref().map(|process| &process.body),
                Some(Body::Backup(backup)) if backup.may_leave() == Some(&entry.key))
        };
        if self.hosts.iter().find(holds).is_some() {
            self.violated(format!(
                "{entry}, though a member holds the running machine"
            ));
        }
    }

    pub fn write_disk_marker(&mut self, host: usize, like: &Marker) {
        self.hosts[host].disk_marker = Some(like.clone());
    }

    pub fn write_state_marker(&mut self, host: usize, like: &Marker) {
        self.hosts[host].state_marker = Some(like.clone());
    }

    pub fn marker(entry: &Entry, role: Role, disk: DiskState) -> Marker {
        Marker {
            machine: name(),
            life: entry.key.life,
            life_id: entry.life,
            generation: entry.next_generation(),
            role,
            record: entry.record,
            disk,
        }
    }
}
