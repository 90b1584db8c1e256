//! The replica that follows, until it goes live.

use super::evidence::{self, RecentRecords};
use super::host::{Happened, Host};
use super::primary::{PrimaryLoop, live_options};
use super::replica::Replica;
use crate::config::{ConfigError, VmConfig};
use crate::exit::{ExitStatus, Failure};
use crate::host_time::monotonic;
use crate::status::ReplicaStatus;
use crate::transport;
use crate::vcpu::{Command, Report, Step};
use anyhow::anyhow;
use machine::machine::SEMANTICS_VERSION;
use machine::output::Output;
use machine::state::Snapshot;
use replication::backup::{Backup, BackupAction, BackupPhase, BackupStop};
use replication::log::LogHeader;
use replication::message::{DivergenceReport, LifeId};
use replication::primary::Primary;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// `understudy backup`: follows the primary at the configured peer, and goes on in its place when
/// it dies.
pub fn run_backup(config: VmConfig, config_path: &Path) -> Result<ExitStatus, Failure> {
    let mut host = Host::open(config, config_path)?;
    let peer = host.pair.peer.clone().ok_or_else(|| {
        Failure::usage(ConfigError::Value {
            path: config_path.into(),
            key: "pair.peer",
            message: "a backup needs the address of its primary".into(),
        })
    })?;
    let core = Backup::new(monotonic(), host.pair_config.clone());
    host.events
        .add("started", 0, 0, format!("as a backup of {peer}"));
    let backup = BackupLoop {
        host,
        core,
        peer,
        replica: None,
        evidence: None,
        recent: RecentRecords::default(),
        generation: 0,
        connect_error: String::new(),
        hurried: false,
    };
    backup.serve()
}

/// How the loop of a backup ends.
enum End {
    Exit(Result<ExitStatus, Failure>),
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
    /// The machine, or what has come of it.
    replica: Option<Replica>,
    /// The machine as it was found when it differed.
    evidence: Option<Box<Snapshot>>,
    recent: RecentRecords,
    generation: u64,
    /// Why the last attempt to connect failed; told once.
    connect_error: String,
    /// The replay was told that its end is waited for.
    hurried: bool,
}

impl BackupLoop {
    fn serve(mut self) -> Result<ExitStatus, Failure> {
        loop {
            match self.turn() {
                Some(End::Exit(ended)) => {
                    let detail = ended
                        .as_ref()
                        .map_or_else(Failure::to_string, |s| format!("with status {}", s.code()));
                    self.host
                        .events
                        .add("stopped", self.generation, self.executed(), detail);
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
            let (core, replica) = (&self.core, &self.replica);
            let deadline = self.core.next_deadline();
            let happened = self
                .host
                .wait(deadline, false, |host| status(host, core, replica.as_ref()))?;
            if let Some(end) = self.take(happened) {
                return end;
            }
        }
    }

    fn executed(&self) -> u64 {
        self.replica
            .as_ref()
            .and_then(Replica::vcpu)
            .map_or(0, |vcpu| vcpu.gauges().count.load(Ordering::Relaxed))
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) -> Option<End> {
        self.vcpu_reports();
        if let Some((generation, outcome)) = self.host.arbiter.answer(monotonic()) {
            self.core
                .arbiter_answered(monotonic(), generation, &outcome);
        }
        self.core.tick(monotonic());
        let end = self.actions();
        let is_waited_for = matches!(
            self.core.status().phase,
            BackupPhase::Claiming | BackupPhase::Draining
        );
        if is_waited_for
            && !std::mem::replace(&mut self.hurried, true)
            && let Some(vcpu) = self.replica.as_ref().and_then(Replica::vcpu)
        {
            vcpu.hurry();
            // What was reported before it hurried is looked at once more.
            self.host.waker.wake();
        }
        end
    }

    fn take(&mut self, happened: Happened) -> Option<Result<ExitStatus, Failure>> {
        // Asked to end while it may be the only one to go on, it goes on, and ends as a primary
        // when it is asked again.
        if happened.stop && self.core.leave(monotonic()) {
            let _left = self.actions();
            return Some(Ok(ExitStatus::Success));
        }
        for (connection, message) in happened.messages {
            self.core.received(monotonic(), connection, message);
        }
        for connection in happened.ended {
            self.core.disconnected(monotonic(), Some(connection));
        }
        None
    }

    fn vcpu_reports(&mut self) {
        let generation = self.generation;
        while let Some(report) = self
            .replica
            .as_ref()
            .and_then(Replica::vcpu)
            .and_then(|vcpu| vcpu.report())
        {
            match report {
                Report::Steps {
                    steps,
                    count,
                    replayed,
                } => {
                    for step in steps {
                        if let Step::Outputs(batch) = step {
                            self.core.outputs(
                                monotonic(),
                                generation,
                                batch.visible,
                                batch.outputs,
                            );
                        }
                    }
                    self.core.replayed(monotonic(), generation, replayed, count);
                }
                Report::Diverged { report, snapshot } => {
                    self.evidence = Some(snapshot);
                    self.core.diverged(monotonic(), generation, report);
                }
                Report::DiskError(error) => {
                    self.host.events.add("disk_error", generation, 0, error)
                }
                Report::Failed(reason) => {
                    let report = DivergenceReport {
                        sequence: 0,
                        count: self.executed(),
                        what: reason,
                    };
                    self.core.diverged(monotonic(), generation, report);
                }
                // Only live machines report these.
                Report::Snapshot(_) | Report::Live { .. } | Report::Finished(_) => {}
            }
        }
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
                    let replica = self.replica.get_or_insert_with(Replica::default);
                    replica.store(chunk, &self.host.config);
                }
                BackupAction::Restore { generation, .. } => self.restore(generation),
                BackupAction::Replay {
                    generation,
                    records,
                } => {
                    self.generation = generation;
                    self.recent.add(&records);
                    self.replica
                        .get_or_insert_with(Replica::default)
                        .replay(records);
                }
                BackupAction::Discard { .. } => self.discard(),
                BackupAction::KeepEvidence { report, .. } => self.keep_evidence(&report),
                BackupAction::Ask(request) => self.host.arbiter.ask(monotonic(), request),
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
        match transport::connect(&self.peer, CONNECT_TIMEOUT) {
            Ok(connection) => {
                self.connect_error.clear();
                let id = self.host.add_connection(connection);
                self.core.connected(monotonic(), id);
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.connect_error {
                    self.host
                        .events
                        .add("connect_failed", 0, 0, format!("{error}; trying again"));
                    self.connect_error = error;
                }
                self.core.disconnected(monotonic(), None);
            }
        }
    }

    fn restore(&mut self, generation: u64) {
        self.generation = generation;
        let replica = self.replica.get_or_insert_with(Replica::default);
        let restored = replica.start(&self.host.config, self.host.waker.clone());
        self.host.speed.restart();
        self.core.restored(monotonic(), generation, restored);
    }

    fn discard(&mut self) {
        self.replica = None;
        self.evidence = None;
        self.recent.clear();
    }

    fn keep_evidence(&mut self, report: &DivergenceReport) {
        let header = LogHeader {
            semantics_version: SEMANTICS_VERSION,
            configuration_hash: self.host.pair_config.greeting.configuration_hash,
            guest_identity: self.host.config.name.clone(),
            has_snapshot: false,
            has_disk_reads: false,
        };
        let directory = &self.host.config.state_directory;
        let kept = evidence::keep(
            directory,
            header,
            report,
            self.evidence.as_deref(),
            &self.recent,
        );
        let detail = match kept {
            Ok(path) => path.display().to_string(),
            Err(error) => format!("the evidence could not be kept: {error}"),
        };
        self.host
            .events
            .add("evidence", self.generation, report.count, detail);
    }

    /// Goes on in the primary's place.
    fn go_live(
        mut self,
        life: LifeId,
        generation: u64,
        outputs: Vec<Output>,
    ) -> Result<ExitStatus, Failure> {
        let Some((vcpu, count, visible)) = self.replica.take().and_then(Replica::into_live) else {
            return Err(anyhow!("the backup has no machine to go live with").into());
        };
        vcpu.command(Command::GoLive(live_options(&self.host)));
        if let Some(network) = &mut self.host.outside.network {
            // A network that has gone is announced to when it is back.
            let _announced = network.announce();
        }
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

fn stop(why: BackupStop) -> Result<ExitStatus, Failure> {
    match why {
        BackupStop::Finished | BackupStop::Left => Ok(ExitStatus::Success),
        BackupStop::LostClaim { generation, holder } => Err(Failure::new(
            ExitStatus::ClaimLost,
            anyhow!(
                "generation {generation} is another's ({}): the primary goes on, this backup stops",
                holder.trim_end()
            ),
        )),
        BackupStop::Refused(refusal) => {
            Err(Failure::new(ExitStatus::Refused, anyhow!("{refusal}")))
        }
        BackupStop::Unusable(reason) => {
            Err(anyhow!("the primary's machine cannot be taken over here: {reason}").into())
        }
        BackupStop::Diverged(report) => Err(Failure::new(
            ExitStatus::Diverged,
            anyhow!(
                "the machine differs from the primary's at instruction {} ({}), and the primary is gone",
                report.count,
                report.what
            ),
        )),
    }
}

fn status(host: &Host, core: &Backup<Output>, replica: Option<&Replica>) -> ReplicaStatus {
    let pair = core.status();
    let base = host.base_status(replica.and_then(Replica::vcpu));
    ReplicaStatus {
        role: "backup".into(),
        state: state_name(pair.phase).into(),
        generation: pair.generation,
        protected: pair.phase == BackupPhase::Following,
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
