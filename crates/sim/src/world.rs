//! The world: one queue of things to come, two nodes, the network, the arbiter, the outside.

use crate::Options;
use crate::arbiter::{Arbiter, Mood};
use crate::checker::{Checker, Emitter};
use crate::coverage::{Coverage, Situation};
use crate::disk::{HostDisk, Write};
use crate::faults::{Fault, Relief};
use crate::guest::{StubInput, StubOutput};
use crate::network::{Network, Segment};
use crate::process::{BackupProcess, DiskHealth, Process, Role};
use crate::random::{Random, mix};
use crate::scenario::{MS, Scenario};
use replication::ConnectionId;
use replication::backup::Held;
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::lag::LagPolicy;
use replication::startup::{PeerAnswer, PeerId, Startup};
use replication::succession::{Entry as KeyEntry, Key, LifeNumber, Outcome, Request};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// How long calm may last until all is well again, for each host that joins: one after the other.
const PATIENCE: u64 = 30_000 * MS;
/// The least mean share of a primary whose backup keeps up and is far away. Records that bunch up on
/// a way with jitter take a little of it where the target is short.
const MEAN_SHARE: u64 = 800;
/// How long after the last fault somebody may still be suspected for it.
const AFTERMATH: u64 = 4_000 * MS;
/// Requests that must be answered once all is calm.
const PROOF: u64 = 3;

/// What was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Something happened that must never happen.
    Safety(String),
    /// Something did not happen that must happen once all is calm.
    Liveness(String),
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Violation::Safety(what) => write!(f, "safety: {what}"),
            Violation::Liveness(what) => write!(f, "liveness: {what}"),
        }
    }
}

/// What happens to a process or to the world.
#[derive(Debug)]
pub enum What {
    /// A quantum of the vcpu thread.
    Vcpu,
    /// The event loop looks at what the vcpu thread said.
    Loop,
    /// The core asked to be told the time.
    Tick,
    /// A dialled connection.
    Connected(Option<ConnectionId>),
    /// The arbiter's answer.
    Answer(Request, Outcome),
    /// A peer is asked how it stands.
    PeerAsked(PeerId),
    /// It answered, or not.
    PeerSaid(PeerId, PeerAnswer),
    /// The next step of writing a marker.
    Write(Write),
    /// The next piece of a snapshot goes out.
    Chunk(u64),
    /// A backup's connection for the pieces of a snapshot is there, or is not.
    Fetches(u64),
    /// The snapshot of this pairing became a machine.
    Restored(u64),
    /// Something arrives from this side of the connection.
    Pump(ConnectionId, usize),
    /// This side of a connection ends.
    SayEnd(ConnectionId, usize),
    /// A request reaches the arbiter; the answer goes to the process if it is to go at all.
    Lands {
        node: usize,
        run: u64,
        request: Request,
        answer: bool,
        /// At the store of a node whose arbiter is not mounted.
        is_wrong: bool,
    },
    /// A fault strikes.
    Fault(Fault),
    /// A fault ends.
    Relief(Relief),
    /// A frozen node wakes.
    Thaw(usize),
    /// The outside asks and looks.
    Client,
    /// The way between the nodes changes.
    Drift,
    /// The backup of this pairing and attempt tells how far its restore is, in quarters.
    Restoring(u64, u64),
    /// Processes are started where there are none.
    Supervise,
    /// Faults end.
    Calm,
}

/// A host.
#[derive(Default)]
pub struct Node {
    /// What runs there.
    pub process: Option<Process>,
    /// When the next process may start.
    pub start_at: u64,
    /// Stopped since.
    pub frozen_since: Option<u64>,
    /// Only the event loop is; the vcpu thread runs on.
    pub is_stalled: bool,
    /// Its disk and its markers.
    pub disk: HostDisk,
    /// It sees another arbiter than it should.
    pub wrong_arbiter: bool,
    /// A process of it lost its machine to another, and may join again.
    pub joined_before: bool,
    /// What waits for it to wake.
    pub deferred: VecDeque<(Option<(usize, u64)>, What)>,
    /// The process's last sleep that it must have noticed.
    pub slept: Option<(u64, u64)>,
    /// How its disk behaves.
    pub disk_health: DiskHealth,
    /// The process that told the network that the guest is here.
    pub announced: Option<u64>,
    /// It cannot reach the arbiter.
    pub arbiter_cut: bool,
    /// The next message of records is lost.
    pub lose_message: bool,
    /// The next bytes are damaged.
    pub damage: bool,
    /// The machine that its process keeps, though it is no backup's at present.
    pub held: Option<(Held<StubOutput>, BackupProcess)>,
    /// Its vcpu thread does nothing until then.
    pub vcpu_hangs_until: u64,
}

struct Entry {
    at: u64,
    number: u64,
    target: Option<(usize, u64)>,
    /// In a place of its own: entries change places all the time.
    what: Box<What>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The clients outside.
#[derive(Default)]
struct Clients {
    next: u64,
    /// Requests without an answer, and when they were last sent.
    open: BTreeMap<u64, u64>,
    answered_in_calm: u64,
}

/// What is looked at in the calm.
#[derive(Default)]
struct Watch {
    /// There has been a protected pair since.
    protected_since: Option<u64>,
    /// Shares of time for the primary's harts, now and then.
    shares: Vec<u64>,
}

/// One seed's world.
pub struct World {
    /// Nanoseconds since its beginning.
    pub now: u64,
    pub(crate) random: Random,
    /// For faults that are aimed at a moment: worlds that such a fault does not strike stay as they are.
    pub(crate) aim: Random,
    pub(crate) scenario: Scenario,
    pub(crate) options: Options,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) arbiter: Arbiter,
    /// What a node sees whose arbiter is not mounted: nothing may ever be created there.
    pub(crate) wrong_arbiter: Arbiter,
    pub(crate) mood: Mood,
    pub(crate) links_are_slow: bool,
    pub(crate) replay_percent: u64,
    pub(crate) checker: Checker,
    pub(crate) coverage: Coverage,
    pub(crate) asked: BTreeSet<(Key, u64)>,
    /// Keys that a process really read, at the right arbiter.
    pub(crate) seen: BTreeSet<(Key, u64)>,
    /// What the guest of a life left on its disk when it ended.
    pub(crate) final_disks: BTreeMap<LifeNumber, Vec<u64>>,
    /// Restores begun so far.
    pub(crate) attempts: u64,
    pub(crate) calm: bool,
    done: bool,
    watch: Watch,
    next_run: u64,
    clients: Clients,
    queue: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    violation: Option<Violation>,
    trace: VecDeque<String>,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, options: &Options) -> World {
        let mut random = Random::new(seed);
        let scenario = Scenario::choose(&mut random, options.hosts);
        let mut world = World {
            now: 0,
            random,
            aim: Random::new(mix(seed)),
            network: Network::new(scenario.nodes, scenario.link),
            links_are_slow: false,
            replay_percent: scenario.replay_percent,
            nodes: (0..scenario.nodes).map(|_| Node::default()).collect(),
            scenario,
            options: options.clone(),
            arbiter: Arbiter::default(),
            wrong_arbiter: Arbiter::default(),
            mood: Mood::Well,
            checker: Checker::default(),
            coverage: Coverage::default(),
            asked: BTreeSet::new(),
            seen: BTreeSet::new(),
            final_disks: BTreeMap::new(),
            attempts: 0,
            calm: false,
            done: false,
            watch: Watch::default(),
            next_run: 1,
            clients: Clients::default(),
            queue: BinaryHeap::new(),
            entries: 0,
            violation: None,
            trace: VecDeque::new(),
        };
        world.at(0, None, What::Supervise);
        world.at(0, None, What::Client);
        world.at(world.scenario.calm_from, None, What::Calm);
        world.place_nodes();
        if world.scenario.is_far {
            world.at(0, None, What::Drift);
        }
        if world.scenario.power_off {
            world.plan_the_end();
        }
        if world.scenario.lag_policy() != LagPolicy::Slow {
            world.plan_the_lag();
        }
        for _ in 0..world.scenario.faults {
            let after = world.random.between(0, world.scenario.calm_from);
            let fault = world.random_fault();
            world.at(after, None, What::Fault(fault));
        }
        world
    }

    /// The guest ends in between; its backup may have much to replay then.
    fn plan_the_end(&mut self) {
        let after = self.random.between(500 * MS, self.scenario.calm_from);
        if self.random.percent(70) {
            let before = after.saturating_sub(self.random.between(0, 400) * MS);
            let slow = Fault::SlowReplay(2_000 * MS);
            self.at(before, None, What::Fault(slow));
        }
        self.at(after, None, What::Fault(Fault::PowerOff));
    }

    /// Backups lag for a while; perhaps the arbiter takes its time as well, so that it shows what becomes of
    /// whoever is let go before the key is there.
    fn plan_the_lag(&mut self) {
        let after = self.random.between(300 * MS, 1_500 * MS);
        self.at(after, None, What::Fault(Fault::SlowReplay(2_500 * MS)));
        if self.random.percent(50) {
            let slow = Fault::Arbiter(Mood::Slow, 2_500 * MS);
            self.at(after + 300 * MS, None, What::Fault(slow));
        }
    }

    /// Runs to the end. `Err`: a promise was broken.
    pub fn run(&mut self) -> Result<(), Violation> {
        while !self.done {
            let Some(Reverse(entry)) = self.queue.pop() else {
                return Err(Violation::Liveness("nothing is left to happen".to_owned()));
            };
            self.now = entry.at;
            self.happen(entry.target, *entry.what);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        Ok(())
    }

    /// What happened, if it was to be written down.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.drain(..).collect()
    }

    /// Which situations occurred.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Writes down what happens, if somebody wants to read it.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace {
            if self.trace.len() == self.options.trace_lines {
                self.trace.pop_front();
            }
            let line = format!("{:>10.3} ms  {}", self.now as f64 / 1e6, line());
            self.trace.push_back(line);
        }
    }

    /// A promise was broken.
    pub(crate) fn violated(&mut self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(Violation::Safety(what));
    }

    pub(crate) fn check(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.violated(what);
        }
    }

    /// Lets something happen `after` nanoseconds, to a process if there is a target.
    pub(crate) fn at(&mut self, after: u64, target: Option<(usize, u64)>, what: What) {
        self.entries += 1;
        let entry = Entry {
            at: self.now + after,
            number: self.entries,
            target,
            what: Box::new(what),
        };
        self.queue.push(Reverse(entry));
    }

    /// What the node's clock says.
    pub(crate) fn clock(&self, node: usize) -> Duration {
        self.scenario.clock(node, self.now)
    }

    pub(crate) fn role(&mut self, node: usize) -> Option<&mut Role> {
        self.nodes[node]
            .process
            .as_mut()
            .map(|process| &mut process.role)
    }

    pub(crate) fn run_of(&self, node: usize) -> Option<u64> {
        self.nodes[node].process.as_ref().map(|process| process.run)
    }

    pub(crate) fn emitter(&self, node: usize, run: u64, opened: KeyEntry) -> Emitter {
        Emitter {
            run,
            opened,
            slept: self.nodes[node].slept,
        }
    }

    fn happen(&mut self, target: Option<(usize, u64)>, what: What) {
        if let Some((node, run)) = target {
            if self.run_of(node) != Some(run) {
                return;
            }
            let runs_on = self.nodes[node].is_stalled && matches!(what, What::Vcpu);
            if self.nodes[node].frozen_since.is_some() && !runs_on {
                return self.nodes[node].deferred.push_back((target, what));
            }
        }
        match (target, what) {
            (Some((node, _)), What::Vcpu) => self.vcpu(node),
            (Some((node, _)), What::Loop) => self.event_loop(node),
            (Some((node, _)), What::Tick) => self.tick(node),
            (Some((node, _)), What::Connected(connection)) => self.connected(node, connection),
            (Some((node, _)), What::Answer(request, outcome)) => {
                self.arbiter_answers(node, &request, &outcome);
            }
            (Some((node, run)), What::PeerAsked(peer)) => self.peer_asked(node, run, peer),
            (Some((node, run)), What::PeerSaid(peer, answer)) => {
                self.peer_says(node, run, peer, answer);
            }
            (Some((node, run)), What::Write(write)) => self.write(node, run, write),
            (Some((node, _)), What::Chunk(pairing)) => self.send_chunk(node, pairing),
            (Some((node, _)), What::Fetches(pairing)) => self.fetches(node, pairing),
            (Some((node, _)), What::Restored(attempt)) => self.restored(node, attempt),
            (Some((node, _)), What::Restoring(attempt, quarters)) => {
                self.restoring(node, attempt, quarters);
            }
            (_, What::Drift) => self.drift(),
            (_, What::Pump(connection, side)) => self.pump(connection, side),
            (_, What::SayEnd(connection, side)) => {
                self.post(connection, side, Segment::End);
            }
            (
                _,
                What::Lands {
                    node,
                    run,
                    request,
                    answer,
                    is_wrong,
                },
            ) => self.lands((node, run), request, answer, is_wrong),
            (_, What::Fault(fault)) => {
                if !self.calm {
                    self.strike(fault);
                }
            }
            (_, What::Relief(relief)) => self.relieve(relief),
            (_, What::Thaw(node)) => self.thaw(node),
            (_, What::Client) => self.client(),
            (_, What::Supervise) => self.supervise(),
            (_, What::Calm) => {
                self.calm = true;
                self.calm_down();
            }
            (None, _) => {}
        }
    }

    /// All nodes but this one.
    pub(crate) fn others(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|other| *other != node)
            .collect()
    }

    /// One of them.
    pub(crate) fn another(&mut self, node: usize) -> usize {
        let others = self.others(node);
        self.random.pick(&others)
    }

    /// A delicate moment: perhaps something is struck.
    pub(crate) fn delicate(&mut self) {
        if !self.calm && self.random.percent(self.scenario.strike_percent) {
            let fault = self.random_fault();
            let after = self.random.pick(&[0, MS / 10, MS, 10 * MS]);
            self.at(after, None, What::Fault(fault));
        }
    }

    /// The one command, the same on every node. A second process of a node does not start: the
    /// first one holds the state directory.
    fn start(&mut self, node: usize) {
        let run = self.next_run;
        self.next_run += 1;
        let worth = self.nodes[node].disk.worth();
        self.note(|| format!("node {node}: process {run} starts with {worth}"));
        let config = self.scenario.startup(node, run, self.options.mutations());
        let startup = Startup::new(self.clock(node), config, worth);
        self.nodes[node].process = Some(Process {
            run,
            startup,
            role: Role::Starting,
            writes: VecDeque::new(),
            tick_at: u64::MAX,
            loop_at: u64::MAX,
        });
        self.begin_new_life_perhaps(node);
        self.at(self.scenario.quantum, Some((node, run)), What::Vcpu);
        self.settle(node);
    }

    fn supervise(&mut self) {
        self.at(50 * MS, None, What::Supervise);
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_none() && self.nodes[node].start_at <= self.now {
                self.start(node);
            }
        }
        if self.calm {
            self.judge_progress();
        }
    }

    /// Whether nothing more is to be seen in this world: of the speed of a guest whose backup is
    /// far away, and of a pair that idles.
    fn has_been_watched(&mut self, protected: bool) -> bool {
        let watch = &mut self.watch;
        let looks = self.scenario.quiet > 0 || self.scenario.is_far;
        // What faults left behind may still come to light.
        if !protected || looks && self.now < self.scenario.calm_from + AFTERMATH {
            *watch = Watch::default();
            return false;
        }
        let since = *watch.protected_since.get_or_insert(self.now);
        let lasts = self.now - since;
        if self.scenario.quiet > 0 && lasts < self.scenario.quiet {
            return false;
        }
        if !self.scenario.is_far || !self.scenario.is_roomy() {
            return true;
        }
        // What a restore left behind is caught up with first.
        if lasts < 5_000 * MS {
            return false;
        }
        let share = (0..self.nodes.len()).find_map(|node| match self.role(node) {
            Some(Role::Primary(primary)) => Some(primary.share),
            _ => None,
        });
        self.watch.shares.extend(share);
        if self.watch.shares.len() < 40 {
            return false;
        }
        let mean = self.watch.shares.iter().sum::<u64>() / self.watch.shares.len() as u64;
        self.coverage.reached(Situation::FarAway);
        if mean < MEAN_SHARE {
            self.violated(format!(
                "a guest whose backup keeps up is slowed to {mean} thousandths"
            ));
        }
        true
    }

    /// In the quiet the outside says nothing.
    fn is_quiet(&self) -> bool {
        self.calm
            && self
                .watch
                .protected_since
                .is_some_and(|since| self.now < since + self.scenario.quiet)
    }

    /// Somebody suspects somebody. Nobody has reason to while a protected pair idles.
    pub(crate) fn suspected(&mut self, node: usize, event: &Event) {
        let differs = matches!(
            event,
            Event::Suspected {
                why: Suspicion::Diverged,
                ..
            }
        );
        if self.is_quiet() && !differs {
            self.violated(format!("in the quiet, node {node}: {event}"));
        }
    }

    fn judge_progress(&mut self) {
        // In the end as many hosts protect the machine as are wanted.
        let protected = self.nodes.iter().any(|node| {
            let Some(Role::Primary(primary)) = node.process.as_ref().map(|p| &p.role) else {
                return false;
            };
            let followers = primary.core.status().followers;
            followers.len() == self.scenario.backups() && followers.iter().all(|f| f.protects)
        });
        let watched = self.has_been_watched(protected);
        if watched && self.clients.answered_in_calm >= PROOF {
            self.done = true;
        } else if self.now > self.scenario.calm_from + PATIENCE * (self.nodes.len() as u64 - 1) {
            let answered = self.clients.answered_in_calm;
            let what = format!(
                "no progress though all is calm: protected {protected}, {answered} answers"
            );
            self.note(|| format!("VIOLATION {what}"));
            self.violation.get_or_insert(Violation::Liveness(what));
        }
    }

    fn client(&mut self) {
        let every = self.random.between(5, 40) * MS;
        self.at(every, None, What::Client);
        if self.is_quiet() {
            return self.coverage.reached(Situation::Quiet);
        }
        if self.clients.open.len() < 3 {
            self.clients.next += 1;
            self.clients.open.insert(self.clients.next, 0);
        }
        let due: Vec<u64> = self
            .clients
            .open
            .iter()
            .filter(|(_, sent)| **sent == 0 || **sent + 200 * MS < self.now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.clients.open.insert(id, self.now);
            for node in 0..self.nodes.len() {
                let lost = self.random.percent(10) && !self.calm;
                if let Some(Role::Primary(primary)) = self.role(node)
                    && !lost
                {
                    primary.inputs.push(StubInput::Request(id));
                }
            }
        }
    }

    /// The world ends here: it can prove nothing more.
    pub(crate) fn give_up(&mut self) {
        self.note(|| "a machine that differs went live unnoticed".to_owned());
        self.done = true;
    }

    /// Outputs leave a node, by the right of `opened`. `disk`: what the guest has written.
    pub(crate) fn emit(
        &mut self,
        node: usize,
        run: u64,
        opened: KeyEntry,
        outputs: &[StubOutput],
        disk: &[u64],
    ) {
        let who = self.emitter(node, run, opened);
        match self.checker.emitted(&who, outputs, disk, &self.arbiter) {
            Ok(true) => self.coverage.reached(Situation::DuplicateSeen),
            Ok(false) => {}
            Err(what) => self.violated(what),
        }
        for output in outputs {
            let answered = self.clients.open.remove(&output.answers).is_some();
            if answered && self.calm {
                self.clients.answered_in_calm += 1;
            }
        }
    }

    /// A frozen node wakes: everything that waited comes at once.
    pub(crate) fn thaw(&mut self, node: usize) {
        let Some(since) = self.nodes[node].frozen_since.take() else {
            return;
        };
        self.nodes[node].is_stalled = false;
        // As the slowest clock says it.
        if self.now - since > 112 * MS {
            self.nodes[node].slept = Some((since, self.now));
        }
        self.note(|| format!("node {node} wakes"));
        let deferred = std::mem::take(&mut self.nodes[node].deferred);
        // The sockets are read first or the timers, as it happens.
        if self.random.percent(50) {
            self.pump_all();
        }
        for (target, what) in deferred {
            self.at(0, target, what);
        }
        self.pump_all();
    }

    /// The node's next process has not slept.
    pub(crate) fn forget_sleep(&mut self, node: usize) {
        self.nodes[node].frozen_since = None;
        self.nodes[node].is_stalled = false;
        self.nodes[node].slept = None;
        self.nodes[node].held = None;
        self.nodes[node].deferred.clear();
    }
}
