//! A host of the world: what its boot unit starts, with which configuration.

use super::files::Files;
use super::guest_disk::{SECTOR_BYTES, SECTORS, log_on};
use super::host::SimulatedHost;
use super::machine::{self, SimulatedMachine};
use super::shared::{Process, ProcessId, Shared};
use super::storage::Storage;
use super::store::SimulatedStore;
use super::world::World;
use ::machine::engine::Engine;
use ::machine::{Failure, Machine};
use arbiter::Trail;
use replica::config::{
    Attachment, DiskFile, JournalOptions, JournalPlace, NetworkEnd, PairOptions, Retention,
};
use replica::disk::Disk;
use replica::packing::Compression;
use replica::vcpu::CheckpointOptions;
use replica::{Machines, PeerAddresses, ReplicaConfig, run_mutated};
use replication::config::JournalRole;
use replication::configuration::{Build, Configuration};
use replication::lag::LagPolicy;
use replication::succession::Durability;
use std::fmt::Write as _;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the hosts are called.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// A host.
#[derive(Debug)]
pub struct Node {
    /// The process that runs there.
    pub process: Option<ProcessId>,
    /// Which arbiter its configuration named when that began.
    pub arbiter: usize,
    /// A person said that it is off, and keeps it off.
    pub is_kept_off: bool,
    /// So far its monotonic clock is ahead of the world's, in nanoseconds.
    pub ahead_ns: u64,
    /// So many times slower it computes than others.
    pub slowness: u64,
}

/// What is the same for all hosts of a world.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// How many there are.
    pub hosts: usize,
    /// In so many networks all hosts are.
    pub networks: usize,
    /// The machine has a disk, a copy of it on each host.
    pub has_disk: bool,
    /// What goes wrong is mostly a disk, or the power of all hosts.
    pub disks_suffer: bool,
    /// Each host keeps a journal, and all may lose power at once.
    pub journals: bool,
    /// …of which there is another snapshot when going on from it would take longer than half of this.
    pub recover_within: Duration,
    /// The first host's configuration names no other.
    pub first_is_told_of_none: bool,
    /// Bits of the machines' memory flip.
    pub differs: bool,
    /// When all is calm a backup's host cannot go on with the machine.
    pub unable: bool,
    /// There are two arbiters, and people move the life from one to the other.
    pub moves: bool,
    /// Lives end, and others are begun.
    pub lives: bool,
    /// When a flush of the guest is complete.
    pub durability: Durability,
    /// Between two digests.
    pub digest_interval: Duration,
    /// Backups are brought along by checkpoints.
    pub checkpoints: Option<CheckpointOptions>,
    /// When hosts pack what they send each other.
    pub compression: Compression,
    /// The machine's disk is one, which all hosts reach.
    pub shares_disk: bool,
    /// What restoring a machine takes, in milliseconds.
    pub restore_ms: u64,
}

/// Makes the machines of a node.
pub struct SimulatedMachines {
    shared: Arc<Shared>,
    process: ProcessId,
    disk: Option<PathBuf>,
    /// Snapshots are for the journal as well.
    journals: bool,
    differs: bool,
    keeps_sum: bool,
    restore_ms: u64,
    slowness: u64,
}

impl SimulatedMachines {
    fn on_this_host(&self, mut machine: SimulatedMachine) -> Box<dyn Machine> {
        machine.slowness = self.slowness;
        if self.differs {
            machine.may_differ = Some((self.shared.clone(), self.process));
        }
        if self.keeps_sum {
            machine.sums = Some((self.shared.clone(), self.process));
        }
        if !self.journals {
            machine.watcher = Some((self.shared.clone(), self.process));
        }
        Box::new(machine)
    }
}

impl Machines for SimulatedMachines {
    fn semantics_version(&self) -> u32 {
        machine::SEMANTICS
    }

    fn configuration(&self) -> Configuration {
        Configuration::new(1)
    }

    fn configuration_hash(&self) -> u64 {
        1
    }

    fn boot(&self) -> Configuration {
        Default::default()
    }

    fn speed(&self) -> Option<u64> {
        Some(machine::INSTRUCTIONS_A_SECOND / self.slowness.max(1))
    }

    fn check(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn power_on(&self, _: &[Disk]) -> Result<Box<dyn Machine>, Failure> {
        let mut state = self.shared.lock();
        if let Some(path) = &self.disk {
            let node = state.process(self.process).node;
            let content = state.content_at(node, path).unwrap_or_default();
            let log = log_on(content);
            state.powered_on(self.process, &log);
        }
        drop(state);
        Ok(self.on_this_host(SimulatedMachine::power_on(self.disk.is_some())))
    }

    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, Failure> {
        environment::thread::sleep(Duration::from_millis(self.restore_ms));
        Ok(self.on_this_host(SimulatedMachine::restore(snapshot)?))
    }
}

/// The state directories: of what is not simulated. Removed when the world has ended.
pub struct Directory(PathBuf);

impl Directory {
    /// Of a world, in memory where the host has such a file system.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(seed: u64) -> std::io::Result<Directory> {
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

    /// As it stands in what is told.
    pub fn text(&self) -> String {
        self.0.display().to_string()
    }

    /// The state directory of a node.
    pub fn of(&self, node: usize) -> PathBuf {
        self.0.join(NAMES[node])
    }

    /// The journal of a node, which is simulated as well.
    pub fn journal(&self, node: usize) -> PathBuf {
        self.0.join(format!("journal-{}", NAMES[node]))
    }

    /// The guest's disk on a node: in a directory of its own, and simulated.
    pub fn disk(&self, node: usize) -> PathBuf {
        self.0.join("disks").join(NAMES[node])
    }

    /// Where all nodes see what they have in common.
    pub fn storage(&self) -> PathBuf {
        self.0.join("storage")
    }

    /// The guest's disk on a node, or the one that all share.
    fn disk_of(&self, site: &Site, node: usize) -> PathBuf {
        match site.shares_disk {
            true => self.shared_disk(),
            false => self.disk(node),
        }
    }

    fn shared_disk(&self) -> PathBuf {
        self.storage().join("disk")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// The files of each host before anything has happened: empty disks.
pub fn files(site: &Site, directory: &Directory) -> Vec<Files> {
    let of = |node| {
        let mut files = Files::default();
        if site.has_disk && !site.shares_disk {
            let content = vec![0; SECTORS as usize * SECTOR_BYTES];
            files.put(&directory.disk(node), content);
        }
        files
    };
    (0..site.hosts).map(of).collect()
}

/// What all hosts reach.
pub fn storage(site: &Site, directory: &Directory) -> Storage {
    match site.shares_disk {
        true => {
            let content = vec![0; SECTORS as usize * SECTOR_BYTES];
            Storage::new(&directory.storage(), &directory.shared_disk(), content)
        }
        false => Storage::default(),
    }
}

/// In so many networks a host may be.
const MOST_NETWORKS: usize = 2;

/// Of a node in one of the networks that it is in.
fn address(node: usize, network: usize) -> String {
    format!("10.{network}.0.{}:7400", node + 1)
}

/// Where a node listens, in whichever network it is called.
pub fn listens_at(node: usize) -> String {
    address(node, 0)
}

/// The node that has this address, and the network in which it has it.
pub fn place_at(address: SocketAddr) -> Option<(usize, usize)> {
    let address = address.to_string();
    let places =
        (0..MOST_NETWORKS).flat_map(|network| (0..NAMES.len()).map(move |node| (node, network)));
    places
        .into_iter()
        .find(|(node, network)| self::address(*node, *network) == address)
}

impl World {
    /// The boot unit starts the program, if it does not run.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() || self.nodes[node].is_kept_off {
            return;
        }
        let id = self.process_of(node, "starts");
        let (config, peers, mutations) = (self.config(node), self.peers(node), self.mutations);
        let machines = Box::new(self.machines(node, id));
        let store = Box::new(self.store(node, id));
        self.begin_process(node, id, move || {
            let ended = run_mutated(config, peers, machines, store, mutations);
            ended.map_or_else(|error| error.to_string(), |ended| ended.to_string())
        });
    }

    /// A process of this node that is about to begin.
    pub(super) fn process_of(&mut self, node: usize, what: &str) -> ProcessId {
        let id = ProcessId(self.next_process);
        self.next_process += 1;
        self.nodes[node].process = Some(id);
        let process = Process {
            node,
            dead: false,
            silent: false,
            frozen_until_ns: 0,
            slept: None,
            asked_to_end_ns: None,
            signals: None,
            ended: None,
        };
        self.shared.lock().processes.insert(id, process);
        self.note(|text| {
            let _ = write!(text, "node {node}: process {} {what}", id.0);
        });
        id
    }

    /// The process begins, and tells at its end how.
    pub(super) fn begin_process(
        &self,
        node: usize,
        id: ProcessId,
        process: impl FnOnce() -> String + Send + 'static,
    ) {
        let shared = self.shared.clone();
        let host = Arc::new(SimulatedHost {
            shared: shared.clone(),
            process: id,
            ahead_ns: self.nodes[node].ahead_ns,
        });
        let started = self.shared.spawn(id, "replica", move || {
            environment::enter(host, move || {
                let ended = process();
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

    pub(super) fn machines(&self, node: usize, process: ProcessId) -> SimulatedMachines {
        SimulatedMachines {
            shared: self.shared.clone(),
            process,
            disk: self
                .site
                .has_disk
                .then(|| self.directory.disk_of(&self.site, node)),
            journals: self.site.journals,
            differs: self.site.differs,
            // Machines are made of pages of several moments.
            keeps_sum: self.site.checkpoints.is_some() || self.site.journals,
            restore_ms: self.site.restore_ms,
            slowness: self.nodes[node].slowness,
        }
    }

    pub(super) fn store(&mut self, node: usize, process: ProcessId) -> Trail {
        let which = self.configured_arbiter(node);
        SimulatedStore::trail(&self.shared, process, which)
    }

    pub(super) fn peers(&self, node: usize) -> Vec<PeerAddresses> {
        let knows_others = node > 0 || !self.site.first_is_told_of_none;
        let peers = (0..self.site.hosts).filter(|peer| *peer != node && knows_others);
        let networks = self.site.networks;
        let addresses = |peer| (0..networks).map(move |network| address(peer, network));
        peers
            .filter_map(|peer| PeerAddresses::new(addresses(peer).collect()))
            .collect()
    }

    pub(super) fn config(&self, node: usize) -> ReplicaConfig {
        let disk = self.site.has_disk.then(|| DiskFile {
            // Whoever lost its power before its first marker has something on it, and joins the next life.
            may_be_overwritten: !self.site.shares_disk,
            is_shared: self.site.shares_disk,
            ..DiskFile::new(&self.directory.disk_of(&self.site, node), false)
        });
        ReplicaConfig {
            build: Build::new("simulated"),
            name: "vm".into(),
            state_directory: self.directory.of(node),
            memory_bytes: machine::MEMORY_BYTES,
            engine: Engine::Interpreter,
            disks: disk.into_iter().collect(),
            network: Some(NetworkEnd {
                attachment: Attachment::Tap("simulated".into()),
                mac: machine::MAC,
            }),
            disk_durability: self.site.durability,
            power_off_wait: Duration::ZERO,
            journal: self.site.journals.then(|| JournalOptions {
                place: JournalPlace::Directory(self.directory.journal(node)),
                role: JournalRole::Member,
                timeout: Duration::from_secs(10),
                recover_within: self.site.recover_within,
                keep: Retention::NOTHING,
            }),
            pair: PairOptions {
                host: Some(NAMES[node].into()),
                listen: listens_at(node),
                heartbeat: Duration::from_millis(60),
                suspect_after: Duration::from_millis(220),
                lag_target: Duration::from_millis(100),
                backups: self.site.hosts - 1,
                is_spare: false,
                spare_after: Duration::ZERO,
                lag_policy: LagPolicy::Slow,
                lag_limit: Duration::from_secs(5),
                digest_interval: self.site.digest_interval,
                checkpoints: self.site.checkpoints,
                compression: self.site.compression,
                // In a simulated world nobody has to prove who he is.
                keys: Default::default(),
                members: Default::default(),
            },
        }
    }
}
