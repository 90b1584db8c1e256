//! The replica that meets the world.

use super::ReplicationCore;
use super::host::{Happened, Host};
use super::identity;
use super::rates::percentile_ms;
use super::snapshot_sender::{Piece, SnapshotSender};
use crate::config::VmConfig;
use crate::disk::Disk;
use crate::exit::{ExitStatus, Failure};
use crate::host_time::monotonic;
use crate::setup;
use crate::single::exit_status;
use crate::status::{OutputDelay, ReplicaStatus};
use crate::vcpu::{
    Command, CommandChannel, InputEncoding, LiveOptions, Parts, ReplicaGuest, Report, Start, Step,
    Vcpu, start_disks,
};
use anyhow::anyhow;
use machine::input::Input;
use machine::output::{Finish, Output};
use replication::ConnectionId;
use replication::message::{LifeId, Message};
use replication::primary::{Primary, PrimaryAction, PrimaryPhase, PrimaryStop};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Pieces of a snapshot that are sent between two looks at everything else.
const PIECES_A_TURN: usize = 4;

/// `understudy primary`: powers a machine on, and protects it when a backup comes.
pub fn run_primary(config: VmConfig, config_path: &Path) -> Result<ExitStatus, Failure> {
    let mut host = Host::open(config, config_path)?;
    let disks: Arc<Vec<Disk>> = Arc::new(setup::open_disks(&host.config).map_err(Failure::usage)?);
    let machine = setup::power_on(&host.config, &disks).map_err(Failure::usage)?;
    let channel = CommandChannel::new();
    let disks = if disks.is_empty() {
        None
    } else {
        Some(start_disks(disks, &channel)?)
    };
    let parts = Parts {
        guest: ReplicaGuest::new(machine, disks),
        encoding: InputEncoding::WithoutDiskData,
    };
    let vcpu = Vcpu::start(
        parts,
        Start::Live(live_options(&host)),
        channel,
        host.waker.clone(),
    )?;
    let life = LifeId(identity::random_u128()?);
    let core = Primary::new(monotonic(), host.pair_config.clone(), life, 0, 0, 0);
    host.events.add("started", 0, 0, "as the primary");
    PrimaryLoop::new(host, vcpu, core).serve()
}

/// How a machine of this pair goes live.
pub(super) fn live_options(host: &Host) -> LiveOptions {
    LiveOptions {
        digest_interval_ns: host.pair.digest_interval.0 * 1_000_000,
        digest_interval_instructions: 0,
    }
}

/// The event loop of a primary.
pub(super) struct PrimaryLoop {
    host: Host,
    vcpu: Vcpu,
    core: ReplicationCore,
    snapshot: Option<SnapshotSender>,
    /// Where a snapshot goes once the core has said so.
    snapshot_connection: Option<ConnectionId>,
    finish: Option<Finish>,
    ended: Option<Result<ExitStatus, Failure>>,
}

impl PrimaryLoop {
    pub(super) fn new(host: Host, vcpu: Vcpu, core: ReplicationCore) -> PrimaryLoop {
        PrimaryLoop {
            host,
            vcpu,
            core,
            snapshot: None,
            snapshot_connection: None,
            finish: None,
            ended: None,
        }
    }

    /// Serves until the machine ends, the claim is lost, or somebody asks.
    pub(super) fn serve(mut self) -> Result<ExitStatus, Failure> {
        loop {
            self.turn();
            if let Some(ended) = self.ended.take() {
                self.host.events.add(
                    "stopped",
                    self.core.status().generation,
                    self.count(),
                    describe(&ended),
                );
                return ended;
            }
            self.host
                .sample(self.vcpu.gauges().count.load(Ordering::Relaxed));
            let (core, vcpu) = (&self.core, &self.vcpu);
            let deadline = self.core.next_deadline();
            let happened = self
                .host
                .wait(deadline, true, |host| status(host, core, vcpu))?;
            self.take(happened);
        }
    }

    fn count(&self) -> u64 {
        self.core.status().instruction_count
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) {
        self.vcpu_reports();
        if let Some((generation, outcome)) = self.host.arbiter.answer(monotonic()) {
            self.core
                .arbiter_answered(monotonic(), generation, &outcome);
        }
        self.core.tick(monotonic());
        self.actions();
        self.send_snapshot();
    }

    fn take(&mut self, happened: Happened) {
        if happened.stop {
            self.ended.get_or_insert(Ok(ExitStatus::Success));
            return;
        }
        for frame in happened.frames {
            self.vcpu
                .command(Command::Input(Input::NetworkFrame { device: 0, frame }));
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
            self.announce();
        }
    }

    fn vcpu_reports(&mut self) {
        while let Some(report) = self.vcpu.report() {
            match report {
                Report::Steps { steps, count, .. } => self.steps(steps, count),
                Report::Snapshot(taken) => {
                    let (generation, count) = (taken.generation, taken.count);
                    match SnapshotSender::start(*taken, self.host.waker.clone()) {
                        Ok(sender) => {
                            self.snapshot = Some(sender);
                            self.core.snapshot_taken(monotonic(), generation, count);
                        }
                        Err(_) => self.core.snapshot_failed(monotonic(), generation),
                    }
                }
                Report::Finished(finish) => {
                    self.finish = Some(finish);
                    self.core.finished(monotonic(), self.count());
                }
                Report::DiskError(error) => {
                    self.host.events.add("disk_error", 0, self.count(), error);
                }
                Report::Failed(reason) => {
                    self.ended = Some(Err(anyhow!("the machine failed: {reason}").into()));
                }
                // The machine has been live for as long as this loop has it.
                Report::Live { .. } | Report::Diverged { .. } => {}
            }
            self.actions();
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
                PrimaryAction::TakeSnapshot { generation } => {
                    self.vcpu.command(Command::Snapshot { generation });
                }
                PrimaryAction::SendSnapshot { connection, .. } => {
                    self.snapshot_connection = Some(connection);
                }
                PrimaryAction::AbortSnapshot { .. } => self.drop_snapshot(),
                PrimaryAction::Ask(request) => self.host.arbiter.ask(monotonic(), request),
                PrimaryAction::Throttle(share) => self.vcpu.command(Command::Throttle(share)),
                PrimaryAction::Report(event) => {
                    let count = self.count();
                    self.host.report(&event, count);
                }
                PrimaryAction::Stop(why) => self.stop(why),
            }
        }
    }

    fn drop_snapshot(&mut self) {
        self.snapshot = None;
        self.snapshot_connection = None;
    }

    fn stop(&mut self, why: PrimaryStop) {
        self.ended = Some(match why {
            PrimaryStop::Finished => Ok(self.finish.map_or(ExitStatus::Success, exit_status)),
            PrimaryStop::LostClaim { generation, holder } => Err(Failure::new(
                ExitStatus::ClaimLost,
                anyhow!(
                    "generation {generation} is another's ({}): the other replica goes on, this one stops",
                    holder.trim_end()
                ),
            )),
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

fn describe(ended: &Result<ExitStatus, Failure>) -> String {
    match ended {
        Ok(status) => format!("with status {}", status.code()),
        Err(failure) => failure.to_string(),
    }
}

fn status(host: &Host, core: &ReplicationCore, vcpu: &Vcpu) -> ReplicaStatus {
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
        ..host.base_status(Some(vcpu))
    }
}

fn state_name(phase: PrimaryPhase, protected: bool) -> &'static str {
    match phase {
        PrimaryPhase::Alone => "alone",
        PrimaryPhase::Joining => "joining",
        PrimaryPhase::Paired if protected => "protected",
        PrimaryPhase::Paired => "paired",
        PrimaryPhase::Claiming => "claiming",
        PrimaryPhase::Stopped => "finished",
    }
}
