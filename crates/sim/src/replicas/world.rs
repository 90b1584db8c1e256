//! One seed: two hosts on which a boot unit starts the replica again and again, what befalls them, and
//! the verdict.

use super::files::{DiskMood, Files};
use super::host::SimulatedHost;
use super::machine::{self, SimulatedMachine};
use super::network::Network;
use super::observer::Observer;
use super::shared::{Process, ProcessId, Shared, State};
use super::store::SimulatedStore;
use super::{Options, Report};
use crate::arbiter::Mood;
use crate::random::Random;
use crate::world::Violation;
use ::machine::engine::Engine;
use ::machine::{Failure, Machine};
use replica::config::{Attachment, JournalOptions, NetworkEnd, PairOptions};
use replica::disk::Disk;
use replica::{Machines, ReplicaConfig, run_mutated};
use replication::config::JournalRole;
use replication::mutation::Mutations;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// How long faults go on.
const FAULTS_NS: u64 = 10 * SECOND;
/// When they end.
const CALM_NS: u64 = 4 * SECOND + FAULTS_NS;
/// How long everything may take to be well again.
const PATIENCE_NS: u64 = 25 * SECOND;
/// A thread computes at most so long before it waits.
const STEP_US: u64 = 10;
/// A process that sleeps longer than this notices it.
const NOTICED_NS: u64 = 250 * MS;

/// What the world does next.
#[derive(Clone, Copy, Debug)]
enum What {
    /// The boot unit of a node.
    Start(usize),
    /// A client asks.
    Request,
    /// Something goes wrong.
    Fault,
    /// A kill at a delicate moment.
    Kill(usize),
    /// The disk of a node is well again.
    DiskWell(usize),
    /// Nothing goes wrong any more.
    Calm,
    /// Whether all is well by now.
    Look,
}

/// Makes the machines of a node.
struct SimulatedMachines {
    restore_ms: u64,
    slowness: u64,
}

impl SimulatedMachines {
    fn on_this_host(&self, mut machine: SimulatedMachine) -> Box<dyn Machine> {
        machine.slowness = self.slowness;
        Box::new(machine)
    }
}

impl Machines for SimulatedMachines {
    fn semantics_version(&self) -> u32 {
        machine::SEMANTICS
    }

    fn configuration_hash(&self) -> u64 {
        1
    }

    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn power_on(&self, _: &[Disk]) -> Result<Box<dyn Machine>, Failure> {
        Ok(self.on_this_host(SimulatedMachine::power_on()))
    }

    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, Failure> {
        environment::thread::sleep(Duration::from_millis(self.restore_ms));
        Ok(self.on_this_host(SimulatedMachine::restore(snapshot)?))
    }
}

/// Removed when the world has ended.
struct Directory(PathBuf);

impl Directory {
    fn make(seed: u64) -> std::io::Result<Directory> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = base.join(format!("understudy-sim-{pid}-{seed}-{next}"));
        std::fs::create_dir_all(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// The world of a seed.
pub struct World {
    shared: Arc<Shared>,
    directory: Directory,
    mutations: Mutations,
    journals: bool,
    random: Random,
    agenda: BTreeMap<(u64, u64), What>,
    next: u64,
    /// The process of each node.
    processes: [Option<ProcessId>; 2],
    next_process: u64,
    ahead_ns: [u64; 2],
    restore_ms: u64,
    slowness: [u64; 2],
    is_calm: bool,
    /// The first request that was made in calm.
    calm_request: u64,
    next_request: u64,
    keys: u64,
}

impl World {
    /// At the beginning.
    pub fn new(seed: u64, options: &Options) -> std::io::Result<World> {
        let mut random = Random::new(seed);
        let network = Network::new(random.pick(&[50_000, 200_000, MS, 5 * MS]));
        let threads = Random::new(random.bits());
        let files = (0..2).map(|_| Files::default()).collect();
        let state = State::new(threads, network, files, Observer::new(options.trace));
        let ahead_ns = [0; 2].map(|_: u64| random.between(0, 1_000) * SECOND);
        let restore_ms = random.pick(&[0, 5, 300, 1_500]);
        let slowness = [0; 2].map(|_: u64| random.pick(&[1, 1, 4, 25]));
        let mut world = World {
            shared: Shared::new(state),
            directory: Directory::make(seed)?,
            mutations: options
                .mutation
                .map_or_else(Mutations::default, Mutations::only),
            journals: options.journals,
            random,
            agenda: BTreeMap::new(),
            next: 0,
            processes: [None; 2],
            next_process: 1,
            ahead_ns,
            restore_ms,
            slowness,
            is_calm: false,
            calm_request: u64::MAX,
            next_request: 1,
            keys: 0,
        };
        for node in 0..2 {
            let after_ns = world.random.between(0, 500) * MS;
            world.after(after_ns, What::Start(node));
        }
        world.after(SECOND, What::Request);
        world.after(3 * SECOND, What::Fault);
        world.after(3 * SECOND + FAULTS_NS, What::Calm);
        Ok(world)
    }

    fn after(&mut self, after_ns: u64, what: What) {
        let at_ns = self.shared.lock().now_ns + after_ns;
        self.agenda.insert((at_ns, self.next), what);
        self.next += 1;
    }

    fn note(&self, what: impl FnOnce(&mut String)) {
        self.shared.lock().note(what);
    }

    /// Lives to the end, and judges.
    pub fn run(mut self) -> (Result<(), Violation>, Report) {
        let verdict = loop {
            if let Some(what) = self.shared.lock().observer.violation.clone() {
                break Err(Violation::Safety(what));
            }
            match self.step() {
                None => {}
                Some(verdict) => break verdict,
            }
        };
        for process in self.processes.into_iter().flatten() {
            self.shared.kill(process, false);
        }
        let mut state = self.shared.lock();
        let report = Report {
            counts: state.observer.counts.clone(),
            duration_ns: state.now_ns,
            calm_at_ns: CALM_NS,
            fingerprint: state.observer.fingerprint,
            trace: state.observer.take_trace(),
        };
        (verdict, report)
    }

    /// Lets one thread run until it waits, or time go on to the next that happens.
    fn step(&mut self) -> Option<Result<(), Violation>> {
        let next = {
            let mut state = self.shared.lock();
            state.wake_due();
            state.deliver();
            let ready = state.ready();
            let on_agenda = self.agenda.first_key_value();
            let on_agenda = on_agenda.map(|((at_ns, _), _)| *at_ns);
            if on_agenda.is_some_and(|at_ns| at_ns <= state.now_ns) {
                None
            } else if ready.is_empty() {
                let deadlines = [
                    state.next_deadline(),
                    state.network.next_deadline(),
                    on_agenda,
                ];
                let at_ns = deadlines.into_iter().flatten().min()?;
                state.now_ns = state.now_ns.max(at_ns);
                return None;
            } else {
                state.now_ns += self.random.between(1, STEP_US) * 1_000;
                Some(self.random.pick(&ready))
            }
        };
        match next {
            Some(thread) => {
                self.shared.resume(thread);
                self.after_thread();
                None
            }
            None => {
                let (_, what) = self.agenda.pop_first()?;
                self.happens(what)
            }
        }
    }

    /// A process that has ended leaves nothing behind; a key is a delicate moment.
    fn after_thread(&mut self) {
        for node in 0..2 {
            let Some(id) = self.processes[node] else {
                continue;
            };
            let ended = self.shared.lock().process(id).ended.clone();
            if let Some(ended) = ended {
                self.note(|text| {
                    let _ = write!(text, "node {node}: process {} ended: {ended}", id.0);
                });
                self.shared.kill(id, false);
                self.processes[node] = None;
                let after_ns = self.random.between(50, 1_000) * MS;
                self.after(after_ns, What::Start(node));
            }
        }
        let keys = self.shared.lock().observer.keys;
        if keys != std::mem::replace(&mut self.keys, keys)
            && !self.is_calm
            && self.random.percent(15)
        {
            let node = self.random.between(0, 1) as usize;
            let after_ns = self.random.between(0, 20_000) * 1_000;
            self.after(after_ns, What::Kill(node));
        }
    }

    fn happens(&mut self, what: What) -> Option<Result<(), Violation>> {
        match what {
            What::Start(node) => self.start(node),
            What::Request => {
                let frame = machine::request_frame(self.next_request);
                self.next_request += 1;
                self.shared.lock().frame(&frame);
                let after_ns = self.random.between(5, 150) * MS;
                self.after(after_ns, What::Request);
            }
            What::Fault if self.is_calm => {}
            What::Fault => {
                self.fault();
                let after_ns = self.random.between(50, 2_500) * MS;
                self.after(after_ns, What::Fault);
            }
            What::Kill(node) => {
                if !self.is_calm {
                    self.kill(node, false);
                }
            }
            What::DiskWell(node) => self.disk_is(node, DiskMood::Well),
            What::Calm => self.calm(),
            What::Look => return self.look(),
        }
        None
    }

    fn start(&mut self, node: usize) {
        if self.processes[node].is_some() {
            return;
        }
        let id = ProcessId(self.next_process);
        self.next_process += 1;
        self.processes[node] = Some(id);
        let process = Process {
            node,
            dead: false,
            silent: false,
            frozen_until_ns: 0,
            slept: None,
            signals: None,
            ended: None,
        };
        self.shared.lock().processes.insert(id, process);
        self.note(|text| {
            let _ = write!(text, "node {node}: process {} starts", id.0);
        });
        let shared = self.shared.clone();
        let host = Arc::new(SimulatedHost {
            shared: shared.clone(),
            process: id,
            ahead_ns: self.ahead_ns[node],
        });
        let config = self.config(node);
        let machines = Box::new(SimulatedMachines {
            restore_ms: self.restore_ms,
            slowness: self.slowness[node],
        });
        let store = Box::new(SimulatedStore {
            shared: shared.clone(),
            process: id,
        });
        let (peers, mutations) = (vec![address(1 - node)], self.mutations);
        let started = self.shared.spawn(id, "replica", move || {
            environment::enter(host, move || {
                let ended = run_mutated(config, peers, machines, store, mutations);
                let ended = ended.map_or_else(|error| error.to_string(), |ended| ended.to_string());
                if let Some(process) = shared.lock().processes.get_mut(&id) {
                    process.ended = Some(ended);
                }
            });
        });
        if let Err(error) = started {
            // Not the world's doing: there is nothing to judge.
            panic!("the host gives no thread: {error}");
        }
    }

    fn config(&self, node: usize) -> ReplicaConfig {
        ReplicaConfig {
            name: "vm".into(),
            state_directory: self.directory.0.join(["a", "b"][node]),
            memory_bytes: machine::MEMORY_BYTES,
            engine: Engine::Interpreter,
            disks: Vec::new(),
            network: Some(NetworkEnd {
                attachment: Attachment::Tap("simulated".into()),
                mac: machine::MAC,
            }),
            disk_durability: Default::default(),
            power_off_wait: Duration::ZERO,
            journal: self.journals.then(|| JournalOptions {
                directory: self.directory.0.join(["journal-a", "journal-b"][node]),
                role: JournalRole::Member,
                timeout: Duration::from_secs(10),
                recover_within: Duration::from_secs(10),
                keep_bytes: 0,
            }),
            pair: PairOptions {
                host: Some(["a", "b"][node].into()),
                listen: address(node),
                heartbeat: Duration::from_millis(60),
                suspect_after: Duration::from_millis(220),
                lag_target: Duration::from_millis(100),
                digest_interval: Duration::from_millis(500),
                // In a simulated world nobody has to prove who he is.
                keys: Default::default(),
                members: Default::default(),
            },
        }
    }

    fn kill(&mut self, node: usize, silently: bool) {
        let Some(id) = self.processes[node].take() else {
            return;
        };
        self.note(|text| {
            let how = if silently { "loses power" } else { "is killed" };
            let _ = write!(text, "node {node}: process {} {how}", id.0);
        });
        self.shared.kill(id, silently);
        if silently {
            let mut state = self.shared.lock();
            let State { files, random, .. } = &mut *state;
            files[node].lose_power(random);
        }
        let after_ns = self.random.between(20, 2_000) * MS;
        self.after(after_ns, What::Start(node));
    }

    fn fault(&mut self) {
        let node = self.random.between(0, 1) as usize;
        match self.random.between(0, 99) {
            0..25 => self.kill(node, false),
            25..35 if self.journals => (0..2).for_each(|node| self.kill(node, true)),
            25..35 => self.kill(node, true),
            35..50 => self.freeze(node),
            50..70 => self.cut(),
            70..85 => self.trouble_arbiter(node),
            85..91 => self.signal(node),
            91..95 => self.trouble_disk(node),
            _ => {
                let delay_ns = self.random.pick(&[50_000, MS, 20 * MS]);
                self.shared.lock().network.delay_ns = delay_ns;
                self.note(|text| {
                    let _ = write!(text, "the network takes {} us", delay_ns / 1_000);
                });
            }
        }
    }

    fn freeze(&mut self, node: usize) {
        let for_ns = self.random.between(10, 3_000) * MS;
        if let Some(id) = self.processes[node] {
            let mut state = self.shared.lock();
            let now_ns = state.now_ns;
            if let Some(process) = state.processes.get_mut(&id)
                && process.frozen_until_ns < now_ns
            {
                process.frozen_until_ns = now_ns + for_ns;
                if for_ns > NOTICED_NS {
                    process.slept = Some((now_ns, now_ns + for_ns));
                }
                state.note(|text| {
                    let _ = write!(text, "node {node} is stopped for {} ms", for_ns / MS);
                });
            }
        }
    }

    fn cut(&mut self) {
        let for_ns = self.random.between(20, 3_000) * MS;
        let both = self.random.percent(60);
        let node = self.random.between(0, 1) as usize;
        let mut state = self.shared.lock();
        let until_ns = state.now_ns + for_ns;
        state.network.cut_until_ns[node] = until_ns;
        if both {
            state.network.cut_until_ns[1 - node] = until_ns;
        }
        state.note(|text| {
            let _ = write!(
                text,
                "cut from {node} (both ways: {both}) for {} ms",
                for_ns / MS
            );
        });
    }

    fn trouble_arbiter(&mut self, node: usize) {
        let mood = self.random.pick(&[
            Mood::Well,
            Mood::Well,
            Mood::Slow,
            Mood::Unreachable,
            Mood::AnswersLost,
            Mood::LandsLate,
            Mood::ReadOnly,
        ]);
        let mut state = self.shared.lock();
        state.observer.moods[node] = mood;
        state.note(|text| {
            let _ = write!(text, "the arbiter, for node {node}: {mood:?}");
        });
    }

    fn trouble_disk(&mut self, node: usize) {
        let mood = self
            .random
            .pick(&[DiskMood::Slow, DiskMood::Failing, DiskMood::Full]);
        self.disk_is(node, mood);
        let after_ns = self.random.between(20, 2_000) * MS;
        self.after(after_ns, What::DiskWell(node));
    }

    fn disk_is(&mut self, node: usize, mood: DiskMood) {
        let mut state = self.shared.lock();
        state.files[node].mood = mood;
        state.note(|text| {
            let _ = write!(text, "the disk of node {node}: {mood:?}");
        });
    }

    /// SIGTERM.
    fn signal(&mut self, node: usize) {
        if let Some(id) = self.processes[node] {
            self.note(|text| {
                let _ = write!(text, "node {node}: process {} is asked to end", id.0);
            });
            self.shared.lock().signal(id);
        }
    }

    fn calm(&mut self) {
        self.is_calm = true;
        self.calm_request = self.next_request;
        let mut state = self.shared.lock();
        state.observer.moods = [Mood::Well; 2];
        state.network.cut_until_ns = [0; 2];
        for files in &mut state.files {
            files.mood = DiskMood::Well;
        }
        state.network.delay_ns = state.network.delay_ns.min(5 * MS);
        state.note(|text| text.push_str("all is calm"));
        drop(state);
        self.after(100 * MS, What::Look);
        let now_ns = self.shared.lock().now_ns;
        self.agenda
            .insert((now_ns + PATIENCE_NS, u64::MAX), What::Look);
    }

    fn look(&mut self) -> Option<Result<(), Violation>> {
        let state = self.shared.lock();
        let is_answered = state
            .observer
            .answered
            .range(self.calm_request..)
            .next()
            .is_some();
        let (is_paired, now_ns) = (state.observer.is_paired(), state.now_ns);
        drop(state);
        if is_paired && is_answered && self.processes.iter().all(Option::is_some) {
            return Some(Ok(()));
        }
        if now_ns >= CALM_NS + PATIENCE_NS {
            let what = format!(
                "{} s after the last fault: a pair: {is_paired}, a request answered: {is_answered}",
                PATIENCE_NS / SECOND
            );
            return Some(Err(Violation::Liveness(what)));
        }
        self.after(100 * MS, What::Look);
        None
    }
}

impl State {
    /// Asks a process to end.
    fn signal(&mut self, id: ProcessId) {
        let process = self.processes.get_mut(&id);
        if let Some(signals) = process.and_then(|process| process.signals.as_mut()) {
            let _written = signals.write(b"t");
        }
        let threads = self.of_process(id);
        self.unpark_all(threads);
    }
}

fn address(node: usize) -> String {
    format!("10.0.0.{}:7400", node + 1)
}
