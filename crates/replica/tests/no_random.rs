//! A host without random numbers: one clear error, or a wait that is told.

use arbiter::Store;
use environment::frames::FramePort;
use environment::fs::{Opening, StoredFile};
use environment::net::{Listener, Socket};
use environment::{Parked, Simulation, ThreadId};
use machine::engine::Engine;
use machine::{Failure, Machine};
use replica::config::PairOptions;
use replica::disk::Disk;
use replica::{Machines, ReplicaConfig, run_replica};
use replication::succession::{Durability, Outcome, Request};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A host on which nothing can be listened on, so that a start ends there if nothing ended it before.
struct Host {
    /// What `getrandom` says, first when it is asked not to wait.
    random: Result<bool, io::ErrorKind>,
    said: Mutex<String>,
}

const NOT_SO_FAR: &str = "a replica that cannot listen does not get so far";

impl Simulation for Host {
    fn monotonic_ns(&self) -> u64 {
        1
    }

    fn unix_ns(&self) -> u64 {
        1
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.random?;
        bytes.fill(7);
        Ok(())
    }

    fn random_is_ready(&self) -> io::Result<bool> {
        Ok(self.random?)
    }

    fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        panic!("{NOT_SO_FAR}")
    }

    fn this_thread(&self) -> ThreadId {
        ThreadId(1)
    }

    fn park(&self, _: Option<u64>) -> Parked {
        panic!("{NOT_SO_FAR}")
    }

    fn unpark(&self, _: ThreadId) {}

    fn bind(&self, _: &[SocketAddr]) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn connect(&self, _: SocketAddr, _: Duration) -> io::Result<Box<dyn Socket>> {
        panic!("{NOT_SO_FAR}")
    }

    fn ask_to_end_by(&self, _: UnixStream) {}

    fn attach(&self, _: [u8; 6]) -> Box<dyn FramePort> {
        panic!("{NOT_SO_FAR}")
    }

    fn open(&self, _: &Path, _: Opening) -> io::Result<Box<dyn StoredFile>> {
        panic!("{NOT_SO_FAR}")
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        panic!("{NOT_SO_FAR}")
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        panic!("{NOT_SO_FAR}")
    }

    fn names(&self, _: &Path) -> io::Result<Vec<String>> {
        panic!("{NOT_SO_FAR}")
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        panic!("{NOT_SO_FAR}")
    }

    fn tell(&self, line: &str) {
        self.said.lock().unwrap().push_str(line);
    }
}

/// No machine at all.
struct NoMachine;

impl Machines for NoMachine {
    fn semantics_version(&self) -> u32 {
        1
    }

    fn configuration(&self) -> replication::configuration::Configuration {
        replication::configuration::Configuration::new(0)
    }

    fn configuration_hash(&self) -> u64 {
        1
    }

    fn boot(&self) -> replication::configuration::Configuration {
        Default::default()
    }

    fn speed(&self) -> Option<u64> {
        panic!("{NOT_SO_FAR}")
    }

    fn check(&self) -> Result<(), Failure> {
        panic!("{NOT_SO_FAR}")
    }

    fn power_on(&self, _: &[Disk]) -> Result<Box<dyn Machine>, Failure> {
        panic!("{NOT_SO_FAR}")
    }

    fn restore(&self, _: &mut dyn Read) -> Result<Box<dyn Machine>, Failure> {
        panic!("{NOT_SO_FAR}")
    }
}

struct NoStore;

impl Store for NoStore {
    fn name(&self) -> String {
        "none".into()
    }

    fn answer(&mut self, _: &Request) -> Outcome {
        panic!("{NOT_SO_FAR}")
    }
}

fn config(directory: &Path) -> ReplicaConfig {
    ReplicaConfig {
        build: Default::default(),
        name: "test".into(),
        state_directory: directory.join("state"),
        memory_bytes: 1 << 20,
        engine: Engine::Interpreter,
        disks: Vec::new(),
        network: None,
        journal: None,
        disk_durability: Durability::Primary,
        power_off_wait: Duration::ZERO,
        pair: PairOptions {
            host: None,
            keys: directory.join("keys"),
            members: Default::default(),
            listen: "127.0.0.1:7400".into(),
            heartbeat: Duration::from_millis(60),
            suspect_after: Duration::from_millis(240),
            lag_target: Duration::from_millis(100),
            backups: 1,
            is_spare: false,
            spare_after: Duration::ZERO,
            lag_policy: Default::default(),
            lag_limit: Duration::from_secs(5),
            digest_interval: Duration::from_secs(1),
            checkpoints: None,
            compression: Default::default(),
        },
    }
}

/// The error of a start, and what was told before.
fn start(random: Result<bool, io::ErrorKind>) -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    let said = Mutex::new(String::new());
    let host = Arc::new(Host { random, said });
    let mut error = String::new();
    environment::enter(host.clone(), || {
        let config = config(directory.path());
        let ended = run_replica(config, Vec::new(), Box::new(NoMachine), Box::new(NoStore));
        error = ended.unwrap_err().to_string();
    });
    let said = host.said.lock().unwrap().clone();
    (error, said)
}

/// Finding: a start ended with the system's bare words, which said neither what was missing nor what to do.
#[test]
fn a_host_without_random_numbers_is_one_clear_error() {
    let (error, said) = start(Err(io::ErrorKind::PermissionDenied));
    for words in [
        "no random numbers",
        "getrandom(2)",
        "permission denied",
        "sandbox",
    ] {
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
    assert_eq!(said, "", "told once, as the error");
}

#[test]
fn random_numbers_that_are_not_there_yet_are_waited_for_and_that_is_told() {
    let (error, said) = start(Ok(false));
    assert!(said.contains("no random numbers yet"), "{said}");
    assert!(error.contains("127.0.0.1:7400"), "it went on: {error}");
    let (_, said) = start(Ok(true));
    assert_eq!(said, "");
}
