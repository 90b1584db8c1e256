//! The replica that follows, until it goes live.

use super::backup_machine::{BackupMachine, discard};
use super::host::{Happened, Host};
use super::primary::{PrimaryLoop, live_options};
use super::restore::RestoreParts;
use crate::config::ReplicaConfig;
use crate::end::{Ended, ReplicaError};
use crate::evidence::{Divergence, EvidenceStore, Kept, RecentRecords};
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::status::ReplicaStatus;
use crate::transport::{AddressError, Connection, Dialing};
use crate::vcpu::{ReplayReport, ReplayingVcpu};
use arbiter::Store;
use machine::output::Output;
use machine::snapshot::Snapshot;
use replication::ConnectionId;
use replication::backup::{Backup, BackupAction, BackupPhase, BackupStop};
use replication::log::LogHeader;
use replication::message::{DivergenceReport, LifeId};
use replication::primary::Primary;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Follows the primary at `peer`, and goes on in its place when it dies.
///
/// # Errors
/// Something of the configuration cannot be used, the claim is lost, the primary refuses this replica
/// for good, the machine differs while there is no primary, or the machine or the host fails.
pub fn run_backup(
    config: ReplicaConfig,
    peer: String,
    machines: Box<dyn Machines>,
    arbiter: Box<dyn Store>,
) -> Result<Ended, ReplicaError> {
    let mut host = Host::open(config, machines, arbiter)?;
    let core = Backup::new(monotonic(), host.pair_config.clone());
    host.events
        .add("started", 0, 0, format!("as a backup of {peer}"));
    let backup = BackupLoop {
        host,
        core,
        peer,
        dialing: None,
        connection: None,
        machine: None,
        discarding: None,
        found: None,
        recent: RecentRecords::default(),
        generation: 0,
        connect_error: String::new(),
        hurried: false,
    };
    backup.serve()
}

/// How the loop of a backup ends.
enum End {
    Exit(Result<Ended, ReplicaError>),
    GoLive {
        life: LifeId,
        generation: u64,
        outputs: Vec<Output>,
    },
}

struct BackupLoop {
    host: Host,
    core: Backup<Output>,
    peer: String,
    /// An attempt to connect that is under way.
    dialing: Option<Dialing>,
    /// The last connection that was made.
    connection: Option<ConnectionId>,
    /// The machine, or what has come of it.
    machine: Option<BackupMachine>,
    /// The machines before it, until they have let go of their disks.
    discarding: Option<JoinHandle<()>>,
    /// The machine as it was found when it differed.
    found: Option<Box<Snapshot>>,
    recent: RecentRecords,
    generation: u64,
    /// Why the last attempt to connect failed; told once.
    connect_error: String,
    /// The replay was told that its end is waited for.
    hurried: bool,
}

impl BackupLoop {
    fn serve(mut self) -> Result<Ended, ReplicaError> {
        loop {
            match self.turn() {
                Some(End::Exit(ended)) => {
                    let count = self.executed();
                    self.host.stopped(self.generation, count, &ended);
                    return ended;
                }
                Some(End::GoLive {
                    life,
                    generation,
                    outputs,
                }) => {
                    return self.go_live(life, generation, outputs);
                }
                None => {}
            }
            let count = self.executed();
            self.host.sample(count);
            let (core, machine) = (&self.core, &self.machine);
            let deadline = self.core.next_deadline();
            let happened = self
                .host
                .wait(deadline, false, |host| status(host, core, machine.as_ref()))?;
            if let Some(end) = self.take(happened) {
                return end;
            }
        }
    }

    fn executed(&self) -> u64 {
        self.vcpu().map_or(0, |vcpu| {
            vcpu.thread().gauges().count.load(Ordering::Relaxed)
        })
    }

    fn vcpu(&self) -> Option<&ReplayingVcpu> {
        self.machine.as_ref().and_then(BackupMachine::vcpu)
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) -> Option<End> {
        self.dialed();
        self.restored();
        if let Some(error) = self.vcpu_reports() {
            return Some(End::Exit(Err(error)));
        }
        if let Some((generation, outcome)) = self.host.arbiter.answer(monotonic()) {
            self.core
                .arbiter_answered(monotonic(), generation, &outcome);
        }
        self.core.tick(monotonic());
        let end = self.actions();
        if let Some(connection) = self.connection {
            let reads = self.machine.as_mut().is_none_or(BackupMachine::has_room);
            self.host.read(connection, reads);
        }
        let is_waited_for = matches!(
            self.core.status().phase,
            BackupPhase::Claiming | BackupPhase::Draining
        );
        if is_waited_for
            && !std::mem::replace(&mut self.hurried, true)
            && let Some(vcpu) = self.vcpu()
        {
            vcpu.hurry();
            // What was reported before it hurried is looked at once more.
            self.host.waker.wake();
        }
        end
    }

    fn take(&mut self, happened: Happened) -> Option<Result<Ended, ReplicaError>> {
        // Asked to end while it may be the only one to go on, it goes on, and ends as a primary
        // when it is asked again.
        if happened.stop && self.core.leave(monotonic()) {
            let _left = self.actions();
            return Some(Ok(Ended::Asked));
        }
        for (connection, message) in happened.messages {
            self.core.received(monotonic(), connection, message);
        }
        for connection in happened.ended {
            self.core.disconnected(monotonic(), Some(connection));
        }
        None
    }

    /// Takes what the machine reports. An error ends this replica.
    fn vcpu_reports(&mut self) -> Option<ReplicaError> {
        let generation = self.generation;
        while let Some(report) = self.vcpu().and_then(ReplayingVcpu::report) {
            match report {
                ReplayReport::Progress {
                    outputs,
                    count,
                    replayed,
                } => {
                    for batch in outputs {
                        self.core
                            .outputs(monotonic(), generation, batch.visible, batch.outputs);
                    }
                    self.core.replayed(monotonic(), generation, replayed, count);
                }
                ReplayReport::Diverged { report, snapshot } => {
                    self.found = Some(snapshot);
                    self.core.diverged(monotonic(), generation, report);
                }
                ReplayReport::Failed(failure) => {
                    let vcpu = self.machine.as_mut().and_then(BackupMachine::vcpu_mut)?;
                    return Some(self.host.machine_failed(&failure, vcpu.thread_mut()));
                }
            }
        }
        None
    }

    fn actions(&mut self) -> Option<End> {
        while let Some(action) = self.core.next_action() {
            match action {
                BackupAction::Connect => self.connect(),
                BackupAction::Send {
                    connection,
                    message,
                } => self.host.send(connection, &message),
                BackupAction::Close(connection) => self.host.close(connection),
                BackupAction::Store(chunk) => {
                    if let Some(machine) = self.machine(chunk.generation) {
                        machine.store(chunk);
                    }
                }
                BackupAction::Restore { generation, .. } => {
                    if let Some(machine) = self.machine(generation) {
                        machine.end_of_snapshot();
                    }
                }
                BackupAction::Replay {
                    generation,
                    records,
                } => {
                    self.recent.add(&records);
                    if let Some(machine) = self.machine(generation) {
                        machine.replay(records);
                    }
                }
                BackupAction::Discard { .. } => self.discard(),
                BackupAction::KeepEvidence { report, .. } => self.keep_evidence(report),
                BackupAction::Ask(request) => self.host.arbiter.ask(monotonic(), request),
                BackupAction::Announce => {
                    if let Some(network) = &mut self.host.outside.network {
                        // A network that has gone is announced to when it is back.
                        let _announced = network.announce();
                    }
                }
                BackupAction::GoLive {
                    life,
                    generation,
                    outputs,
                } => {
                    return Some(End::GoLive {
                        life,
                        generation,
                        outputs,
                    });
                }
                BackupAction::Report(event) => {
                    let count = self.executed();
                    self.host.report(&event, count);
                }
                BackupAction::Stop(why) => return Some(End::Exit(stop(why))),
            }
        }
        None
    }

    fn connect(&mut self) {
        let dialing = Dialing::start(&self.peer, CONNECT_TIMEOUT, self.host.waker.clone());
        match dialing {
            Ok(dialing) => self.dialing = Some(dialing),
            Err(error) => self.not_connected(error.to_string()),
        }
    }

    /// Takes what came of an attempt to connect.
    fn dialed(&mut self) {
        let dialed: Option<Result<Connection, AddressError>> =
            self.dialing.as_ref().and_then(Dialing::dialed);
        let Some(dialed) = dialed else {
            return;
        };
        self.dialing = None;
        match dialed {
            Ok(connection) => {
                self.connect_error.clear();
                let id = self.host.add_connection(connection);
                self.connection = Some(id);
                self.core.connected(monotonic(), id);
            }
            Err(error) => self.not_connected(error.to_string()),
        }
    }

    fn not_connected(&mut self, error: String) {
        if error != self.connect_error {
            self.host
                .events
                .add("connect_failed", 0, 0, format!("{error}; trying again"));
            self.connect_error = error;
        }
        self.core.disconnected(monotonic(), None);
    }

    /// The machine of this pairing, begun with the first that comes of it.
    fn machine(&mut self, generation: u64) -> Option<&mut BackupMachine> {
        self.generation = generation;
        if self.machine.is_none() {
            let begun = BackupMachine::begin(RestoreParts {
                config: self.host.config.clone(),
                machines: self.host.machines.clone(),
                evidence: EvidenceStore::new(&self.host.config.state_directory),
                waker: self.host.waker.clone(),
                previous: self.discarding.take(),
            });
            match begun {
                Ok(machine) => self.machine = Some(machine),
                Err(error) => {
                    let reason = format!("its thread cannot be started: {error}");
                    self.core.restored(monotonic(), generation, Err(reason));
                }
            }
        }
        self.machine.as_mut()
    }

    /// Takes what came of a snapshot.
    fn restored(&mut self) {
        let restored = self.machine.as_mut().and_then(BackupMachine::restored);
        if let Some(restored) = restored {
            self.host.speed.restart();
            self.core.restored(monotonic(), self.generation, restored);
        }
    }

    fn discard(&mut self) {
        self.discarding = discard(
            self.machine.take(),
            self.found.take(),
            self.discarding.take(),
        );
        self.recent.clear();
    }

    fn keep_evidence(&mut self, report: DivergenceReport) {
        let greeting = &self.host.pair_config.greeting;
        let header = LogHeader {
            semantics_version: greeting.semantics_version,
            configuration_hash: greeting.configuration_hash,
            guest_identity: self.host.config.name.clone(),
            has_snapshot: false,
            has_disk_reads: false,
        };
        let (generation, count) = (self.generation, report.count);
        let begun = self.host.evidence.keep(Divergence {
            generation,
            report,
            snapshot: self.found.take(),
            recent: std::mem::take(&mut self.recent),
            header,
        });
        if let Err(error) = begun {
            self.host.evidence_kept(Kept {
                generation,
                count,
                directory: Err(error),
            });
        }
    }

    /// Goes on in the primary's place.
    fn go_live(
        mut self,
        life: LifeId,
        generation: u64,
        outputs: Vec<Output>,
    ) -> Result<Ended, ReplicaError> {
        let machine = self.machine.take().and_then(BackupMachine::into_live);
        let (vcpu, count, visible) =
            machine.expect("the core goes live only with a machine that has replayed all");
        let vcpu = vcpu.go_live(live_options(&self.host));
        for output in &outputs {
            let _emitted = self.host.outside.emit(output);
        }
        let core = Primary::new(
            monotonic(),
            self.host.pair_config.clone(),
            life,
            generation,
            count,
            visible,
        );
        PrimaryLoop::new(self.host, vcpu, core).serve()
    }
}

fn stop(why: BackupStop) -> Result<Ended, ReplicaError> {
    match why {
        BackupStop::Finished => Ok(Ended::AtThePrimary),
        BackupStop::Left => Ok(Ended::Asked),
        BackupStop::LostClaim { generation, holder } => {
            Err(ReplicaError::ClaimLost { generation, holder })
        }
        BackupStop::Refused(refusal) => Err(ReplicaError::Refused(refusal)),
        BackupStop::Unusable(reason) => Err(ReplicaError::Unusable(reason)),
        BackupStop::DiskFailed(reason) => Err(ReplicaError::Unusable(reason)),
        BackupStop::Diverged(report) => Err(ReplicaError::Diverged(report)),
    }
}

fn status(host: &Host, core: &Backup<Output>, machine: Option<&BackupMachine>) -> ReplicaStatus {
    let pair = core.status();
    let base = host.base_status(
        machine
            .and_then(BackupMachine::vcpu)
            .map(ReplayingVcpu::thread),
    );
    ReplicaStatus {
        role: "backup".into(),
        state: state_name(pair.phase).into(),
        generation: pair.generation,
        protected: pair.phase == BackupPhase::Following,
        joining_bytes: machine.and_then(BackupMachine::stored_bytes),
        lag_instructions: Some(pair.received_count.saturating_sub(base.instruction_count)),
        ..base
    }
}

fn state_name(phase: BackupPhase) -> &'static str {
    match phase {
        BackupPhase::Connecting => "connecting",
        BackupPhase::Joining => "joining",
        BackupPhase::Following => "replaying",
        BackupPhase::Claiming => "claiming",
        BackupPhase::Draining => "going live",
        BackupPhase::Live => "live",
        BackupPhase::Stopped => "stopped",
    }
}
