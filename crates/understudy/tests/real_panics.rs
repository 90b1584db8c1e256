//! Real processes one thread of which panics: the process ends, the other replica goes on, and what
//! is known of a machine that failed is kept.
//!
//! The replica that fails is this test program, started again, with a machine or an arbiter's store
//! that panics when it is asked to. Everything else of it is what ships.

mod support;

use arbiter::Store;
use machine::config::BoardConfig;
use machine::engine::Engine;
use machine::input::{ClockRecord, Input};
use machine::memory::{Capture, Extent, OutsideRam, PageBatch, Region};
use machine::output::{DiskRequest, Output};
use machine::snapshot::{Snapshot, SnapshotError, SnapshotHead};
use machine::{Failure as MachineFailure, InjectError, Machine, Stop};
use replica::disk::Disk;
use replica::machines::Machines;
use replica::run_replica;
use replication::configuration::Configuration;
use replication::succession::{Outcome, Request};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::guest_program::counting_slowly;
use support::history::{assert_one_history, await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, wait_for};
use understudy::config::VmConfig;
use understudy::exit::Failure;
use understudy::setup::ConfiguredMachine;

/// What the machine says when it panics, on its first line.
const MESSAGE: &str = "an invariant of the machine is broken";
/// `primary` or `backup`, in the process that is to fail.
const ROLE: &str = "UNDERSTUDY_TEST_ROLE";
/// Its configuration.
const CONFIG: &str = "UNDERSTUDY_TEST_CONFIG";
/// The machine panics when this file is there.
const MACHINE_FAULT: &str = "machine-fault";
/// The arbiter's store panics when this file is there.
const STORE_FAULT: &str = "store-fault";

/// Starts a replica that is to fail.
fn start(role: &str, files: &ReplicaFiles) -> Process {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_replica_that_fails", "--nocapture"])
        .env(ROLE, role)
        .env(CONFIG, files.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Process { child }
}

/// No test of its own: the process that the others start.
#[test]
fn the_replica_that_fails() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    replica::panic::end_process_on_panic();
    let path = PathBuf::from(std::env::var_os(CONFIG).unwrap());
    let config = VmConfig::load(&path).unwrap();
    let (replica, arbiter) = config.replica(&path).unwrap();
    let directory = path.parent().unwrap();
    let store = Box::new(FailingStore {
        store: arbiter.open().unwrap(),
        fault: directory.join(STORE_FAULT),
    });
    let machines = Box::new(FailingMachines {
        machines: ConfiguredMachine(config.clone()),
        fault: directory.join(MACHINE_FAULT),
    });
    let peers = match role.as_str() {
        "primary" => Vec::new(),
        _ => config.peers(),
    };
    let ended = run_replica(replica, peers, machines, store);
    let failure = Failure::from(ended.expect_err("it was to fail"));
    eprintln!("{failure}");
    std::process::exit(failure.status.code().into());
}

struct FailingStore {
    store: Box<dyn Store>,
    fault: PathBuf,
}

impl Store for FailingStore {
    fn name(&self) -> String {
        self.store.name()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        assert!(!self.fault.exists(), "an invariant of the store is broken");
        self.store.answer(request)
    }
}

struct FailingMachines {
    machines: ConfiguredMachine,
    fault: PathBuf,
}

impl FailingMachines {
    fn failing(&self, machine: Box<dyn Machine>) -> Box<dyn Machine> {
        let fault = self.fault.clone();
        Box::new(FailingMachine { machine, fault })
    }
}

impl Machines for FailingMachines {
    fn speed(&self) -> Option<u64> {
        self.machines.speed()
    }

    fn check(&self) -> Result<(), machine::Failure> {
        Ok(())
    }

    fn semantics_version(&self) -> u32 {
        self.machines.semantics_version()
    }

    fn configuration_hash(&self) -> u64 {
        self.machines.configuration_hash()
    }

    fn configuration(&self) -> Configuration {
        self.machines.configuration()
    }

    fn boot(&self) -> Configuration {
        self.machines.boot()
    }

    fn power_on(&self, disks: &[Disk]) -> Result<Box<dyn Machine>, MachineFailure> {
        Ok(self.failing(self.machines.power_on(disks)?))
    }

    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, MachineFailure> {
        Ok(self.failing(self.machines.restore(snapshot)?))
    }
}

struct FailingMachine {
    machine: Box<dyn Machine>,
    fault: PathBuf,
}

impl Machine for FailingMachine {
    fn run(&mut self, until: u64) -> Stop {
        assert!(!self.fault.exists(), "{MESSAGE}\nand what was found");
        self.machine.run(until)
    }

    fn engine(&self) -> Engine {
        self.machine.engine()
    }

    fn instruction_count(&self) -> u64 {
        self.machine.instruction_count()
    }

    fn is_paused(&self) -> bool {
        self.machine.is_paused()
    }

    fn guest_time_ns(&self) -> u64 {
        self.machine.guest_time_ns()
    }

    fn clock(&self) -> ClockRecord {
        self.machine.clock()
    }

    fn unix_base_ns(&self) -> u64 {
        self.machine.unix_base_ns()
    }

    fn visible_outputs(&self) -> u64 {
        self.machine.visible_outputs()
    }

    fn board(&self) -> &BoardConfig {
        self.machine.board()
    }

    fn set_engine(&mut self, engine: Engine) -> Engine {
        self.machine.set_engine(engine)
    }

    fn set_chaos(&mut self, seed: Option<u64>) {
        self.machine.set_chaos(seed);
    }

    fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        self.machine.read_memory(address, buffer)
    }

    fn memory_regions(&self) -> Vec<Region> {
        self.machine.memory_regions()
    }

    fn describe(&self) -> String {
        self.machine.describe()
    }

    fn configuration_hash(&self) -> u64 {
        self.machine.configuration_hash()
    }

    fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.machine.open_disk_requests()
    }

    fn inject(&mut self, input: &Input) -> Result<(), InjectError> {
        self.machine.inject(input)
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.machine.outputs()
    }

    fn snapshot(&self) -> Snapshot {
        self.machine.snapshot()
    }

    fn begin_snapshot(&mut self, extent: Extent) -> SnapshotHead {
        self.machine.begin_snapshot(extent)
    }

    fn pages_changed(&self) -> usize {
        self.machine.pages_changed()
    }

    fn capture(&mut self) -> Option<Capture<'_>> {
        self.machine.capture()
    }

    fn begin_checkpoints(&mut self) {
        self.machine.begin_checkpoints();
    }

    fn take_checkpoint(&mut self, page: &mut dyn FnMut(usize, &[u8])) -> Vec<u8> {
        self.machine.take_checkpoint(page)
    }

    fn page(&self, index: usize) -> Option<&[u8]> {
        self.machine.page(index)
    }

    fn pages_since_checkpoint(&self) -> usize {
        self.machine.pages_since_checkpoint()
    }

    fn apply_checkpoint(&mut self, state: &[u8], pages: &[PageBatch]) -> Result<(), SnapshotError> {
        self.machine.apply_checkpoint(state, pages)
    }

    fn pages_in_use(&self) -> usize {
        self.machine.pages_in_use()
    }

    fn digest(&mut self) -> u128 {
        self.machine.digest()
    }
}

fn cause(pair: &PairDirectory, fault: &str) {
    fs::write(pair.path().join(fault), "").unwrap();
}

fn listen_address(primary: &ReplicaFiles) -> String {
    wait_for("the primary to listen", || {
        let status = primary
            .status()
            .filter(|status| status["role"] == "primary")?;
        status["listen"].as_str().map(str::to_owned)
    })
}

/// The detail of the event of this name.
fn event(replica: &ReplicaFiles, name: &str) -> serde_json::Value {
    let text = fs::read_to_string(replica.state.join("events.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|event| event["event"] == name)
        .unwrap_or_else(|| panic!("no event {name} in\n{text}"))
}

/// The failure was told as what it was, and what is known of it is there, for its owner alone.
fn assert_failure_is_kept(replica: &ReplicaFiles, said: &str) {
    assert!(
        said.lines()
            .any(|line| line == format!("the machine failed: {MESSAGE}")),
        "{said}"
    );
    let failed = event(replica, "machine_failed");
    assert_eq!(failed["detail"], MESSAGE);
    assert!(
        event(replica, "stopped")["detail"]
            .as_str()
            .unwrap()
            .contains(MESSAGE)
    );
    assert!(!replica.has_event("diverged"));
    let kept = event(replica, "evidence");
    let directory = Path::new(kept["detail"].as_str().unwrap());
    assert!(directory.starts_with(&replica.state), "{directory:?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700);
    for entry in fs::read_dir(directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let report = fs::read_to_string(directory.join("report.txt")).unwrap();
    for part in [MESSAGE, "and what was found", "real_panics.rs"] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
    let snapshot = fs::read(directory.join("machine.snapshot")).unwrap();
    let snapshot = Snapshot::read_from(&mut &snapshot[..]).unwrap();
    let machine = riscv::RISCV64.restore(&snapshot).unwrap();
    assert_eq!(failed["instruction_count"], machine.instruction_count());
}

#[test]
fn a_primary_whose_vcpu_panics_keeps_its_evidence_and_its_backup_goes_on() {
    let pair = PairDirectory::new(&counting_slowly());
    let primary = pair.replica("r1", None, "");
    let mut process = start("primary", &primary);
    let (backup, _backup_process) = pair.backup("r2", &listen_address(&primary));
    primary.await_state("protected");
    await_lines(&primary, numbers(&primary.console()).len() + 20);
    cause(&pair, MACHINE_FAULT);
    let (status, said) = process.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_failure_is_kept(&primary, &said);
    wait_for("the backup to go live", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    await_lines(&backup, 20);
    assert_one_history(&primary, &backup);
}

#[test]
fn a_backup_whose_vcpu_panics_keeps_its_evidence_and_nobody_calls_it_diverged() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _primary_process, listen) = pair.primary("r1");
    let backup = pair.replica("r2", Some(&listen), "");
    let mut process = start("backup", &backup);
    primary.await_state("protected");
    cause(&pair, MACHINE_FAULT);
    let (status, said) = process.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_failure_is_kept(&backup, &said);
    primary.await_state("alone");
    assert!(!primary.has_event("diverged"));
    await_lines(&primary, numbers(&primary.console()).len() + 20);
}

#[test]
fn a_panic_of_any_other_thread_ends_the_process_at_once() {
    let pair = PairDirectory::new(&counting_slowly());
    let primary = pair.replica("r1", None, "");
    let mut process = start("primary", &primary);
    let (_backup, mut backup_process) = pair.backup("r2", &listen_address(&primary));
    primary.await_state("protected");
    cause(&pair, STORE_FAULT);
    backup_process.kill();
    let (status, said) = process.end();
    assert_eq!(status.signal(), Some(6), "{status} {said}");
    assert!(
        said.contains("an invariant of the store is broken"),
        "{said}"
    );
}
