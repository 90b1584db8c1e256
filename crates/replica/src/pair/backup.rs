//! The replica that follows, until it goes live.

use super::ability::Ability;
use super::backup_machine::{BackupMachine, discard};
use super::fence::Fence;
use super::host::{Happened, Host, LooksAgain, ToldUnfit};
use super::keeping::Keeping;
use super::markers::{Purpose, UnfitDisks};
use super::primary::{PrimaryLoop, live_options};
use super::requests::PassedOnRequests;
use super::restore::{RestoreError, RestoreParts};
use crate::control::{Answer, ConversationId, Request};
use crate::end::{Ended, ReplicaError};
use crate::evidence::{Divergence, EvidenceStore, Kept, RecentRecords};
use crate::host_time::monotonic;
use crate::peer_addresses::PeerAddresses;
use crate::status::{LinkLine, NeedsLine, PrimaryLine, ReplicaStatus};
use crate::transport::{AddressError, Dialed, Dialing};
use crate::vcpu::{ReplayReport, ReplayingVcpu};
use environment::mpsc::Receiver;
use environment::thread::JoinHandle;
use machine::output::Output;
use machine::snapshot::Snapshot;
use replication::ConnectionId;
use replication::backup::{Backup, BackupAction, BackupPhase, BackupStatus, BackupStop, Held};
use replication::life_log::LifeLog;
use replication::log::LogHeader;
use replication::marker::{DiskState, Marker};
use replication::message::{DivergenceReport, Message};
use replication::primary::{Beginning, Primary};
use replication::record::InstructionCount;
use replication::succession::Entry;
use std::io;
use std::mem::discriminant;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Whoever is not taken for a while looks so often whether it is taken, or needed otherwise.
const KEPT_OUT_REST: Duration = Duration::from_secs(2);

/// How the loop of a backup ends.
pub(super) enum BackupEnding {
    /// The process ends.
    Exit(Result<Ended, ReplicaError>),
    /// Nothing came of it, or somebody else went on: this replica looks again, and its machine may
    /// go on with whoever is found.
    Again(Box<Host>, Option<Box<KeptMachine>>),
    /// It goes on in the primary's place.
    Live(Box<PrimaryLoop>),
}

/// What the core's actions come to.
enum End {
    Exit(Result<Ended, ReplicaError>),
    Again,
    GoLive {
        opened: Box<Entry>,
        log: Box<LifeLog>,
        outputs: Vec<Output>,
    },
}

/// A machine that follows nobody at present, and its place in the log.
pub(super) struct KeptMachine {
    held: Held<Output>,
    machine: BackupMachine,
    recent: RecentRecords,
    pairing: u64,
    durable: InstructionCount,
}

impl KeptMachine {
    /// Drops it on a thread of its own; the handle is joined when its disks are closed.
    pub(super) fn discard(self, previous: Option<JoinHandle<()>>) -> Option<JoinHandle<()>> {
        discard(Some(self.machine), None, previous)
    }
}

/// The event loop of a backup.
pub(super) struct BackupLoop {
    pub(super) host: Host,
    pub(super) core: Backup<Output>,
    /// Where the primary listens: first where it was reached last.
    pub(super) peer: PeerAddresses,
    /// An attempt to connect that is under way.
    dialing: Option<Dialing>,
    /// The last connection that was made.
    connection: Option<ConnectionId>,
    /// The machine, or what has come of it.
    machine: Option<BackupMachine>,
    /// It was asked to end while it might have been the only one to go on.
    is_to_leave: bool,
    /// The machine as it was found when it differed, as soon as it is copied.
    found: Option<Receiver<Box<Snapshot>>>,
    recent: RecentRecords,
    pairing: u64,
    /// Up to where this host's disks have all that the guest flushed.
    durable: InstructionCount,
    /// The replay was told that its end is waited for.
    hurried: bool,
    /// What was asked for here, and is the live machine's to do.
    pub(super) requests: PassedOnRequests,
    /// A snapshot for somebody who keeps it.
    pub(super) keeping: Keeping,
    /// Whether this host could go on in the primary's place.
    pub(super) ability: Ability,
    /// It has won, and shared disks are not its own yet.
    pub(super) fence: Option<Fence>,
}

impl BackupLoop {
    /// Of the primary at `peer`, which lives in the generation that `newest` opened. `kept`: the
    /// machine of an attempt before.
    pub(super) fn new(
        host: Host,
        peer: PeerAddresses,
        newest: Entry,
        kept: Option<Box<KeptMachine>>,
    ) -> BackupLoop {
        let config = host.pair_config.clone();
        let Some(kept) = kept else {
            let core = Backup::new(monotonic(), config, newest, None);
            return BackupLoop::around(host, peer, core);
        };
        let core = Backup::new(monotonic(), config, newest, Some(kept.held));
        BackupLoop {
            machine: Some(kept.machine),
            recent: kept.recent,
            pairing: kept.pairing,
            durable: kept.durable,
            ..BackupLoop::around(host, peer, core)
        }
    }

    fn around(host: Host, peer: PeerAddresses, core: Backup<Output>) -> BackupLoop {
        BackupLoop {
            host,
            core,
            peer,
            dialing: None,
            connection: None,
            machine: None,
            is_to_leave: false,
            found: None,
            recent: RecentRecords::default(),
            pairing: 0,
            durable: InstructionCount::POWER_ON,
            hurried: false,
            requests: PassedOnRequests::default(),
            keeping: Keeping::default(),
            ability: Ability::default(),
            fence: None,
        }
    }

    /// Serves until it is known what comes of it.
    pub(super) fn serve(mut self) -> Result<BackupEnding, ReplicaError> {
        self.host.arbiter.forget();
        loop {
            match self.turn() {
                Some(End::Exit(ended)) => return Ok(self.exit(ended)),
                Some(End::Again) => {
                    self.answer_all(None);
                    let kept = self.keep_machine();
                    self.discard();
                    self.host.close_all();
                    return Ok(BackupEnding::Again(Box::new(self.host), kept));
                }
                Some(End::GoLive {
                    opened,
                    log,
                    outputs,
                }) => {
                    self.answer_all(Some(&*opened));
                    let primary = self.go_live(*opened, *log, &outputs);
                    return Ok(BackupEnding::Live(Box::new(primary)));
                }
                None => {}
            }
            let count = self.executed();
            self.host.sample(count);
            let arbiter_trouble = self.core.status().arbiter_trouble;
            self.host.arbiter_outage.note(arbiter_trouble.is_some());
            let (core, machine) = (&self.core, &self.machine);
            let (peer, connection) = (&self.peer, self.connection);
            let trouble = self.fence_trouble().or_else(|| self.trouble());
            let facts = self.dialing.as_ref().and(self.host.facts.deadline());
            let fence = self.fence.as_ref().and_then(Fence::deadline);
            let deadlines = [
                self.core.next_deadline(),
                self.requests.deadline(),
                facts,
                fence,
            ];
            let deadline = deadlines.into_iter().flatten().min();
            let happened = self.host.wait(deadline, true, |host| ReplicaStatus {
                trouble: trouble.clone(),
                ..status(host, core, (peer, connection), machine.as_ref())
            })?;
            if let Some(end) = self.take(happened) {
                return Ok(self.exit(end));
            }
        }
    }

    fn exit(mut self, ended: Result<Ended, ReplicaError>) -> BackupEnding {
        self.answer_all(None);
        let (generation, count) = (self.core.status().generation.0, self.executed());
        self.host.stopped(generation, count, &ended);
        BackupEnding::Exit(ended)
    }

    fn executed(&self) -> u64 {
        self.vcpu().map_or(0, |vcpu| {
            vcpu.thread().gauges().count.load(Ordering::Relaxed)
        })
    }

    pub(super) fn vcpu(&self) -> Option<&ReplayingVcpu> {
        self.machine.as_ref().and_then(BackupMachine::vcpu)
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) -> Option<End> {
        // What the core wants of the machine comes before what the machine reports: it may be that of no
        // pairing by now, though the next has its number, or be that of the next.
        let end = self.actions();
        if end.is_some() {
            return end;
        }
        self.dialed();
        self.restored();
        if let Some(error) = self.vcpu_reports() {
            return Some(End::Exit(Err(error)));
        }
        while let Some((request, outcome)) = self.host.arbiter.answer(monotonic()) {
            self.core.arbiter_answered(monotonic(), &request, &outcome);
        }
        while let Some((purpose, result)) = self.host.markers.done() {
            self.marker_written(purpose, result.as_ref().map_err(io::Error::to_string));
            self.host.marker_written(purpose, result);
        }
        self.core.tick(monotonic());
        self.look_at_keeping();
        self.answer_in_time();
        self.look_at_ability();
        self.look_at_fence();
        let end = self.actions();
        let is_waited_for = matches!(
            self.core.status().phase,
            BackupPhase::Claiming | BackupPhase::Draining | BackupPhase::Ending
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
        // when it is asked again. If it is not, it leaves then.
        if happened.stop {
            if self.core.leave(monotonic()) {
                let _left = self.actions();
                return Some(Ok(Ended::Left));
            }
            self.is_to_leave = true;
        }
        for (id, request) in &happened.requests {
            self.asked(*id, request);
        }
        for connection in happened.heard {
            self.core.heard(monotonic(), connection);
        }
        for (connection, message) in happened.messages {
            match message {
                Message::Ask { greeting, .. } | Message::Hello { greeting, .. } => {
                    let standing = self.core.standing(self.host.markers.worth());
                    self.host.answer_peer(connection, &greeting, standing);
                }
                message => self.core.received(monotonic(), connection, message),
            }
        }
        for connection in happened.ended {
            self.core.disconnected(monotonic(), Some(connection));
        }
        None
    }

    /// What a person asked for is for the live machine.
    fn asked(&mut self, id: ConversationId, request: &Request) {
        match request {
            Request::Press(button) => self.press(id, *button),
            Request::Snapshot { .. } => self.keep(id),
            Request::SwitchOver { to } => self.switch_over(id, to.as_deref()),
            Request::Fenced => self.said_to_be_fenced(id),
            Request::MoveArbiter { .. } => {
                let why = format!(
                    "this replica follows the live machine: ask at its host, {}",
                    self.peer
                );
                self.host.answer(id, &Answer::Refused(why));
            }
            Request::Console | Request::Word(_) | Request::WouldTake(_) | Request::Status => {
                let why = "this replica follows the live machine of another host, or is about to";
                self.host.answer(id, &Answer::Refused(why.into()));
            }
        }
    }

    /// A disk that cannot be marked, or synced, is as bad as one that cannot be written.
    fn marker_written(&mut self, purpose: Purpose, result: Result<&(), String>) {
        match (purpose, result) {
            (Purpose::Mark, Ok(())) => self.core.marked(monotonic()),
            (Purpose::Member(pairing), Ok(())) => {
                self.core.settled(monotonic(), pairing);
                // What was flushed before counts from here on.
                self.core.flushed(monotonic(), pairing, self.durable);
            }
            (Purpose::Mark | Purpose::Member(_), Err(error)) => {
                let pairing = self.core.status().pairing;
                let what = format!("its marker cannot be written: {error}");
                self.core.own_disk_failed(monotonic(), pairing, what);
            }
            (Purpose::Primary, _) => {}
        }
    }

    /// Takes what the machine reports. An error ends this replica.
    fn vcpu_reports(&mut self) -> Option<ReplicaError> {
        let pairing = self.pairing;
        while let Some(report) = self.vcpu().and_then(ReplayingVcpu::report) {
            match report {
                ReplayReport::Progress {
                    outputs,
                    count,
                    replayed,
                } => {
                    for batch in outputs {
                        self.core
                            .outputs(monotonic(), pairing, batch.visible, batch.outputs);
                    }
                    self.core.replayed(monotonic(), pairing, replayed, count);
                }
                ReplayReport::Diverged { report, found } => {
                    self.found = Some(found);
                    self.core.diverged(monotonic(), pairing, report);
                }
                ReplayReport::Snapshot(begun) => self.keeping_begun(begun),
                ReplayReport::Durable { count } => {
                    self.durable = count;
                    self.core.flushed(monotonic(), pairing, count);
                }
                ReplayReport::DiskFailed(how) => {
                    self.core.own_disk_failed(monotonic(), pairing, how);
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
                BackupAction::Fetch { pairing } => self.fetch(pairing),
                BackupAction::Mark(marker) => self.mark(marker),
                BackupAction::Settle { pairing, marker } => {
                    self.host.markers.write(Purpose::Member(pairing), marker);
                }
                BackupAction::Place { record, .. } => {
                    if let Some(machine) = &mut self.machine {
                        machine.stands_after(record);
                    }
                    // It may have been made already.
                    self.host.waker.wake();
                }
                BackupAction::Replay { records, .. } => {
                    self.recent.add(&records);
                    // The acknowledgement first: the primary's outputs wait for it.
                    self.host.flush();
                    if let Some(machine) = &mut self.machine {
                        machine.replay(records);
                    }
                }
                BackupAction::KeepEvidence { report, .. } => self.keep_evidence(report),
                BackupAction::Ask(request) => self.host.arbiter.ask(monotonic(), request),
                BackupAction::Answered {
                    request,
                    done,
                    text,
                } => {
                    let answer = if done {
                        Answer::Done(text)
                    } else {
                        Answer::Refused(text)
                    };
                    self.answered(request, &answer);
                }
                BackupAction::Fence => self.begin_fence(),
                BackupAction::Announce => {
                    if let Some(network) = &mut self.host.outside.network {
                        // A network that has gone is announced to when it is back.
                        network.announce();
                    }
                }
                BackupAction::GoOn { pairing } => {
                    self.pairing = pairing;
                    if let Some(machine) = &self.machine {
                        machine.compare();
                    }
                }
                BackupAction::StopComparing => {
                    if let Some(machine) = &self.machine {
                        machine.stop_comparing();
                    }
                }
                BackupAction::DropMachine => self.discard(),
                BackupAction::GoLive {
                    opened,
                    log,
                    outputs,
                } => {
                    return Some(End::GoLive {
                        opened,
                        log,
                        outputs,
                    });
                }
                BackupAction::Report(event) => {
                    let (generation, count) = (self.core.status().generation, self.executed());
                    self.host.report(&event, generation, count);
                }
                BackupAction::Stop(why) => return Some(self.stop(why)),
            }
        }
        None
    }

    /// What is here loses its rights; unless it is not to be touched, which the primary is told then.
    fn mark(&mut self, marker: Marker) {
        let joins = marker.disk == DiskState::Copying;
        if joins
            && let Some(unfit) = &mut self.host.unfit_disks
            && std::mem::take(&mut unfit.is_to_be_told)
        {
            let why = unfit.why.to_string();
            return self.core.cannot_follow(monotonic(), why);
        }
        self.host.markers.write(Purpose::Mark, marker);
    }

    fn connect(&mut self) {
        self.host.facts.look(monotonic());
        let dialing = Dialing::start(
            &self.peer,
            CONNECT_TIMEOUT,
            self.host.membership.clone(),
            self.host.waker.clone(),
        );
        match dialing {
            Ok(dialing) => self.dialing = Some(dialing),
            Err(error) => self.not_connected(error.to_string()),
        }
    }

    /// Takes what came of an attempt to connect.
    fn dialed(&mut self) {
        // What this host has is told in the greeting.
        if !self.host.facts.is_done(monotonic()) {
            return;
        }
        let dialed: Option<Result<Dialed, AddressError>> =
            self.dialing.as_ref().and_then(Dialing::dialed);
        let Some(dialed) = dialed else {
            return;
        };
        self.dialing = None;
        match dialed {
            Ok(Dialed {
                connection,
                address,
            }) => {
                self.peer = self.peer.clone().beginning_with(address);
                let id = self.host.add_connection(connection, self.peer.clone());
                self.connection = Some(id);
                let boot = self.host.facts.boot().clone();
                self.core.host_has(self.host.facts.facts(), boot);
                self.core.connected(monotonic(), id);
            }
            Err(error) => self.not_connected(error.to_string()),
        }
    }

    fn not_connected(&mut self, error: String) {
        self.host.events.add("connect_failed", 0, 0, error);
        self.core.disconnected(monotonic(), None);
    }

    fn stop(&mut self, why: BackupStop) -> End {
        self.host.left_off = None;
        let put_off = self.host.put_off.take();
        if self.is_to_leave && matches!(why, BackupStop::Superseded { .. }) {
            return End::Exit(Ok(Ended::Left));
        }
        match why {
            BackupStop::Left => End::Exit(Ok(Ended::Left)),
            BackupStop::Refused(refusal) => End::Exit(Err(ReplicaError::Refused(refusal))),
            BackupStop::Unusable(reason) => End::Exit(Err(ReplicaError::Unusable(reason))),
            BackupStop::Finished => End::Exit(Ok(Ended::AtThePrimary)),
            BackupStop::Superseded { .. } => {
                self.host.looks_again = LooksAgain::AtOnce;
                End::Again
            }
            BackupStop::Diverged(_) => End::Again,
            BackupStop::DiskFailed(what) => {
                self.host.disk_failed(what);
                End::Again
            }
            // What is wrong is found again when it looks again.
            BackupStop::CannotFollow(why) => {
                self.host.left_off = Some(why);
                self.host.looks_again = LooksAgain::After(KEPT_OUT_REST);
                End::Again
            }
            BackupStop::Later(refusal) => {
                let why = refusal.to_string();
                // Told once, however often it looks; how much is lacking changes all the time.
                let kind = discriminant(&refusal);
                self.host.put_off = Some(kind);
                if put_off != Some(kind) {
                    let generation = self.core.status().generation.0;
                    self.host.events.add("looks_again", generation, 0, &why);
                }
                self.host.left_off = Some(why);
                self.host.looks_again = LooksAgain::After(KEPT_OUT_REST);
                End::Again
            }
            BackupStop::Again(why) => {
                let generation = self.core.status().generation.0;
                self.host.left_off = Some(why.clone());
                self.host.events.add("looks_again", generation, 0, why);
                End::Again
            }
        }
    }

    /// Begins to make the machine of this pairing.
    fn fetch(&mut self, pairing: u64) {
        self.pairing = pairing;
        let begun = BackupMachine::begin(RestoreParts {
            config: self.host.config.clone(),
            machines: self.host.machines.clone(),
            evidence: EvidenceStore::new(&self.host.config.state_directory),
            waker: self.host.waker.clone(),
            previous: self.host.discarding.take(),
            primary: self.peer.clone(),
            membership: self.host.membership.clone(),
            pairing,
            run: self.host.pair_config.greeting.run,
            mutations: self.host.pair_config.mutations,
        });
        match begun {
            Ok(machine) => self.machine = Some(machine),
            Err(error) => {
                let reason = format!("its thread cannot be started: {error}");
                self.core.restored(monotonic(), pairing, Err(reason));
            }
        }
    }

    /// The connection for the snapshot failed: nothing comes of this pairing.
    fn not_fetched(&mut self, why: &RestoreError) {
        let generation = self.core.status().generation.0;
        let what = why.to_string();
        self.host.events.add("fetch_failed", generation, 0, what);
        if let Some(connection) = self.connection.take() {
            self.host.close(connection);
            self.core.disconnected(monotonic(), Some(connection));
        }
    }

    /// Takes what came of a snapshot.
    fn restored(&mut self) {
        let restored = self.machine.as_mut().and_then(BackupMachine::restored);
        if let Some(restored) = restored {
            self.host.speed.restart();
            let pairing = self.pairing;
            match restored {
                Ok(()) => self.core.restored(monotonic(), pairing, Ok(())),
                Err(RestoreError::Unusable(why)) => {
                    self.core.restored(monotonic(), pairing, Err(why));
                }
                Err(RestoreError::Disk(what)) => {
                    self.core.own_disk_failed(monotonic(), pairing, what);
                }
                Err(RestoreError::Unfit { what, lengths }) => self.disks_are_unfit(what, lengths),
                Err(lost @ RestoreError::Lost(_)) => self.not_fetched(&lost),
            }
        }
    }

    /// A disk of this host is none that a copy could be made on: nothing of it was written.
    fn disks_are_unfit(&mut self, what: String, lengths: Vec<u64>) {
        // With these it is found before the next attempt.
        self.host.disk_lengths = Some((self.core.life(), lengths));
        let generation = self.core.status().generation;
        let why = UnfitDisks::Unusable(what.clone());
        // Told once, if it should not be found before the next attempt either.
        if self.host.left_off.as_ref() != Some(&what) {
            self.host.events.add(why.event(), generation.0, 0, &*what);
        }
        self.host.unfit_disks = Some(ToldUnfit {
            why,
            told: Some(generation),
            is_to_be_told: false,
        });
        self.core.cannot_follow(monotonic(), what);
    }

    /// The machine, if it may go on in another attempt.
    fn keep_machine(&mut self) -> Option<Box<KeptMachine>> {
        let held = self.core.take_held()?;
        // It is made, or there would be nothing to hold.
        let machine = self.machine.take()?;
        Some(Box::new(KeptMachine {
            held,
            machine,
            recent: std::mem::take(&mut self.recent),
            pairing: self.pairing,
            durable: self.durable,
        }))
    }

    fn discard(&mut self) {
        self.end_keeping();
        self.host.discarding = discard(
            self.machine.take(),
            self.found.take(),
            self.host.discarding.take(),
        );
        self.durable = InstructionCount::POWER_ON;
        self.recent.clear();
    }

    fn keep_evidence(&mut self, report: DivergenceReport) {
        let greeting = &self.host.pair_config.greeting;
        let header = LogHeader {
            semantics_version: greeting.semantics_version,
            configuration_hash: self.host.machines.configuration_hash(),
            guest_identity: self.host.config.name.clone(),
            has_snapshot: false,
            has_disk_reads: false,
        };
        let (pairing, count) = (self.pairing, report.count.0);
        let begun = self.host.evidence.keep(Divergence {
            generation: pairing,
            report,
            found: self.found.take(),
            recent: std::mem::take(&mut self.recent),
            header,
        });
        if let Err(error) = begun {
            self.host.evidence_kept(Kept {
                generation: pairing,
                count,
                directory: Err(error),
            });
        }
    }

    /// Goes on in the primary's place.
    fn go_live(mut self, opened: Entry, log: LifeLog, outputs: &[Output]) -> PrimaryLoop {
        self.end_keeping();
        let machine = self.machine.take().and_then(BackupMachine::into_live);
        let (vcpu, count, visible) =
            machine.expect("the core goes live only with a machine that has replayed all");
        let vcpu = vcpu.go_live(live_options(&self.host));
        for output in outputs {
            self.host.emit(output);
        }
        self.host.flush();
        let beginning = Beginning {
            opened,
            log,
            count,
            visible_outputs: visible,
        };
        let core = Primary::new(monotonic(), self.host.pair_config.clone(), beginning);
        PrimaryLoop::new(self.host, vcpu, core)
    }
}

fn status(
    host: &Host,
    core: &Backup<Output>,
    (peer, connection): (&PeerAddresses, Option<ConnectionId>),
    machine: Option<&BackupMachine>,
) -> ReplicaStatus {
    let (pair, host_of_links) = (core.status(), host);
    let boots_otherwise = boots_otherwise(&pair);
    let base = host.base_status(
        machine
            .and_then(BackupMachine::vcpu)
            .map(ReplayingVcpu::thread),
    );
    ReplicaStatus {
        role: "backup".into(),
        state: state_name(pair.phase).into(),
        generation: pair.generation.0,
        protected: pair.phase == BackupPhase::Following,
        arbiter_trouble: host.arbiter_outage.told(pair.arbiter_trouble),
        needs: NeedsLine::from(&pair.needs),
        slow: pair.needs.lacks_speed(&pair.facts).is_some(),
        boots_otherwise,
        primary: pair.primary.map(|(host, build)| PrimaryLine {
            host: host.node().to_owned(),
            version: build.to_string(),
            links: connection
                .and_then(|connection| host_of_links.links_of(connection))
                .unwrap_or_else(|| LinkLine::of(peer)),
        }),
        joining: machine.and_then(BackupMachine::progress),
        lag_instructions: Some(
            pair.received_count
                .beyond(InstructionCount(base.instruction_count)),
        ),
        ..base
    }
}

/// Where the machine would be booted from something else on the primary's host.
fn boots_otherwise(pair: &BackupStatus) -> Vec<String> {
    let host = pair
        .primary
        .as_ref()
        .map_or("the primary", |(host, _)| host.node());
    let differences = pair.boots_otherwise.iter();
    differences.map(|it| it.describe(host)).collect()
}

fn state_name(phase: BackupPhase) -> &'static str {
    match phase {
        BackupPhase::Connecting => "connecting",
        BackupPhase::Joining => "joining",
        BackupPhase::Following => "replaying",
        BackupPhase::Differing => "differing",
        BackupPhase::Claiming => "claiming",
        BackupPhase::Draining => "going live",
        BackupPhase::Ending => "ending",
        BackupPhase::Live => "live",
        BackupPhase::Stopped => "stopped",
    }
}
