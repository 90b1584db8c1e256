//! A seeded world of whole replicas: each process of it runs the very event loop, threads and files
//! that ship ([`replica::run_replica`]), on two hosts of which clocks, threads, sockets, the arbiter,
//! signals and the guest's network are simulated (see [`environment`]).
//!
//! Exactly one thread runs at a time, chosen by the seed, until it waits for something; simulated time
//! goes on when none can run. So the same seed is the same history, though there are real threads.
//!
//! What is real here: all of `crates/replica`, the replication core, and of the files those by which
//! nothing is decided (events, evidence, the control socket). Disks, their markers and the hosts' identities
//! are in files of the world's own, of which a loss of power takes what was not synced.

mod caught_up;
mod control;
mod differing;
mod faults;
mod files;
mod guest_disk;
mod holders;
mod host;
mod links;
mod lives;
mod machine;
mod moving;
mod network;
mod node;
mod observer;
mod shared;
mod storage;
mod store;
mod unable;
mod wires;
mod world;

use crate::world::Violation;
use replication::mutation::Mutation;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use world::World;

/// What befalls the hosts of a world besides what befalls all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    #[default]
    Plain,
    /// Both hosts keep journals, and may lose power at once.
    Journals,
    /// Lives end: guests are powered off, or a person declares the life lost; and a person begins another.
    Lives,
    /// A second arbiter, and people who move the life from one to the other.
    Moving,
    /// The first host is configured with no other: it knows of those only who have called it.
    Untold,
    /// Three hosts; bits of their guests' memory flip, and the odd machine is given up, wherever it is.
    Differs,
    /// All hosts have a disk, and what goes wrong is mostly one of them, or the power of all hosts.
    Disks,
    /// The files of a backup's host take nothing more when the machine is to go over to it.
    Unable,
    /// Backups execute nothing: they are brought along by checkpoints.
    StateTransfer,
    /// All hosts are in two networks, of which each may fail alone.
    Links,
    /// All hosts reach one disk, to which writes of hosts that died or stand still may land late.
    SharedDisk,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::Plain,
        Kind::Journals,
        Kind::Lives,
        Kind::Moving,
        Kind::Untold,
        Kind::Differs,
        Kind::Disks,
        Kind::Unable,
        Kind::StateTransfer,
        Kind::SharedDisk,
        Kind::Links,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Journals => "journals",
            Kind::Lives => "lives",
            Kind::Moving => "moving",
            Kind::Untold => "untold",
            Kind::Differs => "differs",
            Kind::Disks => "disks",
            Kind::Unable => "unable",
            Kind::StateTransfer => "state-transfer",
            Kind::SharedDisk => "shared-disk",
            Kind::Links => "links",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let names = Kind::ALL.map(Kind::name).join(", ");
            format!("there is no such kind of worlds; there are {names}")
        })
    }
}

/// How a world is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// An old bug to bring back, to see that it is found.
    pub mutation: Option<Mutation>,
    /// What befalls its hosts besides what befalls all.
    pub kind: Kind,
    /// Write down what happens.
    pub trace: bool,
    /// So many hosts, two or three; the seed says how many otherwise.
    pub hosts: Option<usize>,
}

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How often each of these happened: kinds of keys, `begun`, `repeated`, …
    pub counts: BTreeMap<String, u64>,
    /// Simulated time, in nanoseconds.
    pub duration_ns: u64,
    /// How long it took after the last fault until all was well, in nanoseconds.
    pub recovery_ns: u64,
    /// Equal for equal histories.
    pub fingerprint: u64,
    /// What happened, if it was written down.
    pub trace: Vec<String>,
}

/// A seed in which a promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The kind of its world.
    pub kind: Kind,
    /// What was seen: of safety or of liveness.
    pub violation: Violation,
    /// What happened before.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let (seed, kind) = (self.seed, self.kind.name());
        writeln!(f, "whole replicas, {kind}, seed {seed}: {}", self.violation)?;
        write!(
            f,
            "replay with: cargo xtask sim --whole --kind {kind} --seed {seed}"
        )
    }
}

impl std::error::Error for Failure {}

/// Runs one seed. A failing one is run once more to write down what happened.
///
/// # Errors
/// What was broken.
///
/// # Panics
/// This host gives no threads or no files.
pub fn run_seed(seed: u64, options: &Options) -> Result<Report, Box<Failure>> {
    let (verdict, report) = run(seed, options);
    let Err(violation) = verdict else {
        return Ok(report);
    };
    let trace = match options.trace {
        true => report.trace,
        false => {
            let trace = true;
            let options = Options {
                trace,
                ..options.clone()
            };
            run(seed, &options).1.trace
        }
    };
    Err(Box::new(Failure {
        seed,
        kind: options.kind,
        violation,
        trace,
    }))
}

/// What must have happened in many seeds: kinds of keys, and other things.
const SITUATIONS: [&str; 14] = [
    "PowerOn",
    "Joined",
    "Dropped",
    "TookOver",
    "HandedOver",
    "ColdStart",
    "begun",
    "announced",
    "repeated",
    "unsynced lost",
    "started from a disk",
    "done: switchover",
    "done: button",
    "done: without",
];

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// How often each of these happened.
    pub counts: BTreeMap<String, u64>,
    /// Simulated time, in nanoseconds.
    pub duration_ns: u64,
    /// The longest that it took after the last fault until all was well, in nanoseconds, and in which seed.
    pub longest_recovery: (u64, u64),
    /// The first failures, ten at most.
    pub failures: Vec<Failure>,
}

impl Summary {
    /// What never happened, and should, in worlds of this kind.
    pub fn missing(&self, kind: Kind) -> Vec<&'static str> {
        let never = |what: &&str| !self.counts.contains_key(*what);
        let all: &[&'static str] = match kind {
            Kind::Plain => &SITUATIONS,
            Kind::Journals => &[
                "Recovered",
                "overlay merged",
                "overlay written again",
                "snapshot built on another",
            ],
            Kind::Lives => &["Ended", "Lost", "life begun", "started from a disk"],
            Kind::Moving => &["Moved", "key copied", "done: arbiter move"],
            Kind::Untold => &["done: switchover"],
            Kind::StateTransfer => &[
                "Joined",
                "Dropped",
                "TookOver",
                "HandedOver",
                "begun",
                "repeated",
                "half a checkpoint held",
                "done: switchover",
                "done: button",
            ],
            Kind::SharedDisk => &[
                "TookOver",
                "HandedOver",
                "ColdStart",
                "landed after its process had died",
                "landed late",
                "waited for a fence",
                "started from a disk",
                "done: switchover",
            ],
            Kind::Links => &[
                "TookOver",
                "HandedOver",
                "joined beside a dead network",
                "all cables of a network pulled",
                "one cable pulled",
                "a network slow",
                "connections of a network reset",
                "done: switchover",
            ],
            Kind::Differs => &["odd backup joined anew", "odd primary joined anew"],
            Kind::Unable => &[
                "not switched over to an unable host",
                "not drained to an unable host",
            ],
            Kind::Disks => &[
                "HandedOver",
                "told of a disk error",
                "unsynced lost",
                "started from a disk",
            ],
        };
        all.iter().copied().filter(never).collect()
    }

    /// Takes in what others came to.
    pub fn add(&mut self, other: Summary) {
        self.seeds += other.seeds;
        self.duration_ns += other.duration_ns;
        self.longest_recovery = self.longest_recovery.max(other.longest_recovery);
        self.failures.extend(other.failures);
        self.count(other.counts);
    }

    fn count(&mut self, counts: BTreeMap<String, u64>) {
        for (what, times) in counts {
            *self.counts.entry(what).or_default() += times;
        }
    }
}

/// Runs many seeds; stops after ten failures.
pub fn run_seeds(seeds: Range<u64>, options: &Options) -> Summary {
    let mut summary = Summary::default();
    for seed in seeds {
        summary.seeds += 1;
        match run_seed(seed, options) {
            Ok(report) => {
                summary.duration_ns += report.duration_ns;
                let recovery = (report.recovery_ns, seed);
                summary.longest_recovery = summary.longest_recovery.max(recovery);
                summary.count(report.counts);
            }
            Err(failure) => summary.failures.push(*failure),
        }
        if summary.failures.len() == 10 {
            break;
        }
    }
    summary
}

fn run(seed: u64, options: &Options) -> (Result<(), Violation>, Report) {
    match World::new(seed, options) {
        Ok(world) => world.run(),
        Err(error) => panic!("no directory for a world: {error}"),
    }
}
