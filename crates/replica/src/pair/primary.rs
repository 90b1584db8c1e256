//! The replica that meets the world.

use super::ReplicationCore;
use super::host::{Happened, Host};
use super::rates::percentile_ms;
use super::snapshot_sender::{Piece, SnapshotRequests, SnapshotSender, discard};
use crate::config::ReplicaConfig;
use crate::disk::Disk;
use crate::end::{Ended, ReplicaError};
use crate::evidence::EvidenceStore;
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::random;
use crate::status::{OutputDelay, ReplicaStatus};
use crate::vcpu::{
    CommandChannel, InputEncoding, LiveOptions, LiveReport, LiveVcpu, Parts, ReplicaGuest, Step,
    TakenSnapshot, start_disks,
};
use arbiter::Store;
use machine::input::Input;
use machine::output::{Finish, Output};
use replication::ConnectionId;
use replication::message::{LifeId, Message};
use replication::primary::{Primary, PrimaryAction, PrimaryPhase, PrimaryStop};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Pieces of a snapshot that are sent between two looks at everything else.
const PIECES_A_TURN: usize = 4;

/// Powers a machine on, and protects it when a backup comes.
///
/// # Errors
/// Something of the configuration cannot be used, the claim is lost, or the machine or the host
/// fails.
pub fn run_primary(
    config: ReplicaConfig,
    machines: Box<dyn Machines>,
    arbiter: Box<dyn Store>,
) -> Result<Ended, ReplicaError> {
    let mut host = Host::open(config, machines, arbiter)?;
    let disks = Disk::open_all(&host.config.disks)?;
    let machine = host
        .machines
        .power_on(&disks)
        .map_err(ReplicaError::PowerOn)?;
    let channel = CommandChannel::new();
    let disks = if disks.is_empty() {
        None
    } else {
        Some(start_disks(Arc::new(disks), &channel)?)
    };
    let parts = Parts {
        guest: ReplicaGuest::new(machine, disks),
        encoding: InputEncoding::WithoutDiskData,
        evidence: Some(EvidenceStore::new(&host.config.state_directory)),
    };
    let vcpu = LiveVcpu::start(parts, live_options(&host), channel, host.waker.clone())?;
    let life = LifeId(random::number()?);
    let core = Primary::new(monotonic(), host.pair_config.clone(), life, 0, 0, 0);
    host.events.add("started", 0, 0, "as the primary");
    PrimaryLoop::new(host, vcpu, core).serve()
}

/// How a machine of this pair goes live.
pub(super) fn live_options(host: &Host) -> LiveOptions {
    LiveOptions {
        digest_interval_ns: host.config.pair.digest_interval.as_nanos() as u64,
        digest_interval_instructions: 0,
    }
}

/// The event loop of a primary.
pub(super) struct PrimaryLoop {
    host: Host,
    vcpu: LiveVcpu,
    core: ReplicationCore,
    requests: SnapshotRequests,
    snapshot: Option<SnapshotSender>,
    /// Where a snapshot goes once the core has said so.
    snapshot_connection: Option<ConnectionId>,
    /// Since this process is the primary.
    snapshots_taken: u64,
    finish: Option<Finish>,
    ended: Option<Result<Ended, ReplicaError>>,
}

impl PrimaryLoop {
    pub(super) fn new(host: Host, vcpu: LiveVcpu, core: ReplicationCore) -> PrimaryLoop {
        PrimaryLoop {
            host,
            vcpu,
            core,
            requests: SnapshotRequests::default(),
            snapshot: None,
            snapshot_connection: None,
            snapshots_taken: 0,
            finish: None,
            ended: None,
        }
    }

    /// Serves until the machine ends, the claim is lost, or somebody asks.
    pub(super) fn serve(mut self) -> Result<Ended, ReplicaError> {
        loop {
            self.turn();
            if let Some(ended) = self.ended.take() {
                let status = self.core.status();
                self.host
                    .stopped(status.generation, status.instruction_count, &ended);
                return ended;
            }
            let gauges = self.vcpu.thread().gauges();
            self.host.sample(gauges.count.load(Ordering::Relaxed));
            let (core, vcpu) = (&self.core, &self.vcpu);
            let snapshots_taken = self.snapshots_taken;
            let deadlines = [self.core.next_deadline(), self.requests.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            let happened = self.host.wait(deadline, true, |host| ReplicaStatus {
                snapshots_taken,
                ..status(host, core, vcpu)
            })?;
            self.take(happened);
        }
    }

    fn count(&self) -> u64 {
        self.core.status().instruction_count
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) {
        self.vcpu_reports();
        if self.ended.is_some() {
            return;
        }
        if let Some((generation, outcome)) = self.host.arbiter.answer(monotonic()) {
            self.core
                .arbiter_answered(monotonic(), generation, &outcome);
        }
        self.core.tick(monotonic());
        self.actions();
        if let Some(generation) = self.requests.begin(monotonic()) {
            self.vcpu.snapshot(generation);
        }
        self.send_snapshot();
    }

    fn take(&mut self, happened: Happened) {
        if happened.stop {
            self.ended.get_or_insert(Ok(Ended::Asked));
            return;
        }
        for frame in happened.frames {
            self.vcpu.input(Input::NetworkFrame { device: 0, frame });
        }
        for (connection, message) in happened.messages {
            self.core.received(monotonic(), connection, message);
            self.actions();
        }
        for connection in happened.ended {
            self.core.disconnected(monotonic(), connection);
            self.actions();
        }
        if happened.reconnected {
            self.core.network_back(monotonic());
            self.actions();
        }
    }

    fn vcpu_reports(&mut self) {
        while let Some(report) = self.vcpu.report() {
            match report {
                LiveReport::Steps { steps, count } => self.steps(steps, count),
                LiveReport::Snapshot(taken) => self.snapshot_taken(taken),
                LiveReport::Finished(finish) => {
                    self.finish = Some(finish);
                    self.core.finished(monotonic(), self.count());
                }
                LiveReport::DiskError(error) => {
                    self.host.events.add("disk_error", 0, self.count(), error);
                }
                LiveReport::Failed(failure) => {
                    let error = self.host.machine_failed(&failure, self.vcpu.thread_mut());
                    self.ended = Some(Err(error));
                    return;
                }
            }
            self.actions();
        }
    }

    fn snapshot_taken(&mut self, taken: Box<TakenSnapshot>) {
        let (generation, count) = (taken.generation, taken.count);
        self.snapshots_taken += 1;
        if !self.requests.taken(monotonic(), generation, taken.pause) {
            return discard(taken);
        }
        match SnapshotSender::start(*taken, self.host.waker.clone()) {
            Ok(sender) => {
                self.snapshot = Some(sender);
                self.core.snapshot_taken(monotonic(), generation, count);
            }
            Err(_) => self.core.snapshot_failed(monotonic(), generation),
        }
    }

    fn steps(&mut self, steps: Vec<Step>, count: u64) {
        for step in steps {
            match step {
                Step::Record(record) => self.core.record(monotonic(), record),
                Step::Outputs(batch) => {
                    self.core
                        .outputs(monotonic(), batch.count, batch.visible, batch.outputs);
                }
            }
        }
        self.core.progress(monotonic(), count);
    }

    fn actions(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                PrimaryAction::Send {
                    connection,
                    message,
                } => self.host.send(connection, &message),
                PrimaryAction::Close(connection) => self.host.close(connection),
                PrimaryAction::Emit(outputs) => self.emit(&outputs),
                PrimaryAction::TakeSnapshot { generation } => self.requests.ask(generation),
                PrimaryAction::SendSnapshot { connection, .. } => {
                    self.snapshot_connection = Some(connection);
                }
                PrimaryAction::AbortSnapshot { .. } => self.drop_snapshot(),
                PrimaryAction::Ask(request) => self.host.arbiter.ask(monotonic(), request),
                PrimaryAction::Announce => self.announce(),
                // This loop does not hand over yet.
                PrimaryAction::Resume => {}
                PrimaryAction::Throttle(share) => self.vcpu.throttle(share),
                PrimaryAction::Report(event) => {
                    let count = self.count();
                    self.host.report(&event, count);
                }
                PrimaryAction::Stop(why) => self.stop(why),
            }
        }
    }

    fn drop_snapshot(&mut self) {
        self.requests.cancel();
        self.vcpu.cancel_snapshot();
        self.snapshot = None;
        self.snapshot_connection = None;
    }

    fn stop(&mut self, why: PrimaryStop) {
        self.ended = Some(match why {
            PrimaryStop::Finished => {
                let finish = self.finish.expect("the core ends after the machine did");
                Ok(Ended::Guest(finish))
            }
            PrimaryStop::LostClaim { generation, holder } => {
                Err(ReplicaError::ClaimLost { generation, holder })
            }
        });
    }

    fn emit(&mut self, outputs: &[Output]) {
        for output in outputs {
            if let Err(error) = self.host.outside.emit(output) {
                self.host
                    .events
                    .add("network_lost", 0, 0, error.to_string());
            }
        }
    }

    /// Tells the network that the guest is here.
    fn announce(&mut self) {
        if let Some(network) = &mut self.host.outside.network
            && let Err(error) = network.announce()
        {
            self.host
                .events
                .add("network_lost", 0, 0, error.to_string());
        }
    }

    /// Sends what of a snapshot is ready and has room.
    fn send_snapshot(&mut self) {
        let (Some(connection), Some(snapshot)) = (self.snapshot_connection, &mut self.snapshot)
        else {
            return;
        };
        let generation = snapshot.generation();
        for _ in 0..PIECES_A_TURN {
            if !self.host.has_room(connection) {
                return;
            }
            match snapshot.next_piece() {
                Piece::Chunk(chunk) => self.host.send(connection, &Message::Snapshot(chunk)),
                Piece::Later => return,
                Piece::Done { chunks } => {
                    self.drop_snapshot();
                    self.core.snapshot_sent(monotonic(), generation, chunks);
                    return self.actions();
                }
                Piece::Failed(reason) => {
                    self.drop_snapshot();
                    self.host
                        .events
                        .add("snapshot_failed", generation, 0, reason);
                    self.core.snapshot_failed(monotonic(), generation);
                    return self.actions();
                }
            }
        }
        // There may be more: look again at once.
        self.host.waker.wake();
    }
}

fn status(host: &Host, core: &ReplicationCore, vcpu: &LiveVcpu) -> ReplicaStatus {
    let pair = core.status();
    let mut delays: Vec<Duration> = core.output_delays().collect();
    delays.sort_unstable();
    let lag_is_known = pair.phase == PrimaryPhase::Paired;
    ReplicaStatus {
        role: "primary".into(),
        state: state_name(pair.phase, pair.protected).into(),
        generation: pair.generation,
        protected: pair.protected,
        lag_ms: lag_is_known.then_some(pair.lag.as_secs_f64() * 1000.0),
        lag_instructions: lag_is_known.then_some(pair.lag_instructions),
        output_delay: OutputDelay {
            p50_ms: percentile_ms(&delays, 50),
            p99_ms: percentile_ms(&delays, 99),
            outputs: delays.len() as u64,
        },
        listen: host.listen_address(),
        ..host.base_status(Some(vcpu.thread()))
    }
}

fn state_name(phase: PrimaryPhase, protected: bool) -> &'static str {
    match phase {
        PrimaryPhase::Alone => "alone",
        PrimaryPhase::Joining => "joining",
        PrimaryPhase::Paired if protected => "protected",
        PrimaryPhase::Paired => "paired",
        PrimaryPhase::HandingOver => "handing over",
        PrimaryPhase::Claiming => "claiming",
        PrimaryPhase::Stopped => "finished",
    }
}
