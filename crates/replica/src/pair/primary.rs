//! The replica that meets the world.

use super::ability::Ability;
use super::buttons::Presses;
use super::copy::Copy;
use super::demand::Demand;
use super::fence::LateLocks;
use super::fence::NOT_WAITING;
use super::host::{Happened, Host};
use super::journal_chain::SnapshotChain;
use super::journaling::{JournalAge, JournalSnapshot};
use super::keeping::Keeping;
use super::markers::Purpose;
use super::moving::ArbiterMove;
use super::rates::percentile_ms;
use super::requests::Asker;
use super::rivals::Rivals;
use super::snapshot_sender::{Round, SnapshotRequests};
use super::stopping::Stopping;
use super::switchover::Switchover;
use super::{ReplicationCore, Said};
use crate::calendar;
use crate::control::{Answer, ConversationId, Request};
use crate::disk::Disk;
use crate::end::{Ended, ReplicaError};
use crate::evidence::EvidenceStore;
use crate::host_time::{monotonic, monotonic_ns};
use crate::outside;
use crate::status::{
    CheckpointsLine, FollowerLine, JournalLine, NeedsLine, OutputDelay, ReplicaStatus,
};
use crate::vcpu::{
    CommandChannel, InputEncoding, LiveOptions, LiveReport, LiveVcpu, Parts, ReplicaGuest, Step,
    start_disks,
};
use environment::mpsc::{self, Receiver, TryRecvError};
use machine::Machine;
use machine::input::Input;
use machine::output::{DiskRequest, Finish, Output, Trouble};
use replication::marker::Marker;
use replication::message::Message;
use replication::mutation::Mutation;
use replication::primary::{
    Beginning, FollowerStatus, Primary, PrimaryAction, PrimaryPhase, PrimaryStop,
};
use replication::record::InstructionCount;
use replication::succession::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How a machine of this pair goes live.
pub(super) fn live_options(host: &Host) -> LiveOptions {
    LiveOptions {
        digest_interval_ns: host.config.pair.digest_interval.as_nanos() as u64,
        digest_interval_instructions: 0,
        flushes_wait: true,
        reports_reads: host.config.keeps_reads(),
        checkpoints: host.config.pair.checkpoints,
        forgets_shared: host
            .pair_config
            .mutations
            .active(Mutation::SharedWriteNotRepeated),
    }
}

/// The event loop of a primary.
pub(super) struct PrimaryLoop {
    pub(super) host: Host,
    pub(super) vcpu: LiveVcpu,
    pub(super) core: ReplicationCore,
    pub(super) requests: SnapshotRequests,
    pub(super) journal_snapshot: JournalSnapshot,
    pub(super) journal_age: JournalAge,
    /// The journal's snapshots on which the next one may build.
    pub(super) journal_chain: Option<SnapshotChain>,
    pub(super) late_locks: LateLocks,
    /// Why a journal that is configured is not kept, for people.
    pub(super) journal_trouble: Option<String>,
    /// What the guest writes goes to layers beside its images, or may.
    pub(super) has_layers: bool,
    pub(super) copy: Copy,
    /// How busy the machine was lately.
    demand: Demand,
    /// Since this process is the primary.
    pub(super) snapshots_taken: u64,
    /// Its kernel panicked since it was booted.
    guest_panicked: bool,
    /// The longest time that the guest stood still for one.
    pub(super) snapshot_pause: Duration,
    finish: Option<Finish>,
    /// How a disk here failed a request that the guest was not told of: the machine stands still.
    pub(super) disk_failed: Option<String>,
    /// Backups have another machine than this one, and are the majority: this one is to stand still, or does.
    pub(super) outvoted: bool,
    /// The marker of a settled disk, and when it is tried again to write it.
    settling: Option<Settling>,
    rivals: Rivals,
    /// It was asked to end, or to switch over.
    pub(super) stopping: Option<Stopping>,
    /// Somebody waits for the machine to go over to the backup.
    pub(super) switchover: Option<Switchover>,
    /// Somebody waits for the life to go on at another arbiter.
    pub(super) arbiter_move: Option<ArbiterMove>,
    /// A snapshot for somebody who keeps it.
    pub(super) keeping: Keeping,
    pub(super) presses: Presses,
    /// Whether this host could write its markers.
    pub(super) ability: Ability,
    ended: Option<PrimaryEnding>,
}

/// The disk of a primary is being settled, again and again until it can be.
struct Settling {
    marker: Marker,
    /// Why it could not be written last time.
    failed: Option<String>,
    wait: Duration,
    /// When it is tried again; `None` while it is being tried.
    due: Option<Duration>,
}

impl Settling {
    const FIRST_WAIT: Duration = Duration::from_secs(1);
    const LONGEST_WAIT: Duration = Duration::from_secs(60);

    fn new(marker: Marker) -> Settling {
        Settling {
            marker,
            failed: None,
            wait: Settling::FIRST_WAIT,
            due: None,
        }
    }

    fn failed(&mut self, why: String) {
        self.failed = Some(why);
        self.due = Some(monotonic() + self.wait);
        self.wait = (self.wait * 2).min(Settling::LONGEST_WAIT);
    }
}

/// A machine at power-on, or that of a snapshot that was restored, and its disks.
type PoweredOn = Result<(Box<dyn Machine>, Vec<Disk>), ReplicaError>;

/// Opens the disks and makes the machine on a thread of its own: images are read and loaded, which
/// takes a tenth of a second and more.
fn start_power_on(
    host: &mut Host,
    restored: Option<crate::snapshot_file::RestoredMachine>,
) -> Result<Receiver<PoweredOn>, ReplicaError> {
    let (sender, made) = mpsc::channel();
    let previous = host.discarding.take();
    let (machines, waker) = (host.machines.clone(), host.waker.clone());
    let files = host.config.disks.clone();
    let state_directory = host.config.state_directory.clone();
    environment::thread::Builder::new()
        .name("power-on".into())
        .spawn(move || {
            if let Some(previous) = previous {
                // The machine before this one has the disks open until then. A panic has ended the
                // process.
                let _joined = previous.join();
            }
            let power_on = || {
                let disks = Disk::open_all(&files, Some(&state_directory))?;
                let machine = match restored {
                    Some(restored) => restored.make(&*machines, &disks)?,
                    None => machines.power_on(&disks).map_err(ReplicaError::PowerOn)?,
                };
                Ok((machine, disks))
            };
            // The loop waits for it.
            let _sent = sender.send(power_on());
            waker.wake();
        })?;
    Ok(made)
}

/// How the loop of a primary ends.
pub(super) enum PrimaryEnding {
    /// The process ends.
    Exit(Result<Ended, ReplicaError>),
    /// Somebody else has the machine: it is given up here, and this replica looks again.
    Again,
}

impl PrimaryLoop {
    pub(super) fn new(host: Host, vcpu: LiveVcpu, core: ReplicationCore) -> PrimaryLoop {
        PrimaryLoop {
            rivals: Rivals::new(&host),
            host,
            vcpu,
            core,
            requests: SnapshotRequests::default(),
            journal_snapshot: JournalSnapshot::default(),
            journal_age: JournalAge::default(),
            journal_chain: None,
            journal_trouble: None,
            late_locks: LateLocks::default(),
            has_layers: false,
            copy: Copy::default(),
            demand: Demand::default(),
            snapshots_taken: 0,
            guest_panicked: false,
            snapshot_pause: Duration::ZERO,
            finish: None,
            disk_failed: None,
            outvoted: false,
            settling: None,
            stopping: None,
            switchover: None,
            arbiter_move: None,
            keeping: Keeping::default(),
            presses: Presses::default(),
            ability: Ability::default(),
            ended: None,
        }
    }

    /// Makes the machine from its images and disks, at this host's key; or from the snapshot that was restored for
    /// it.
    pub(super) fn from_disk(mut host: Host, won: Entry) -> Result<PrimaryLoop, ReplicaError> {
        let state = &host.config.state_directory;
        let restored = crate::snapshot_file::RestoredMachine::of(state, &won)?;
        let is_restored = restored.is_some();
        let made = start_power_on(&mut host, restored)?;
        // Meanwhile the loop goes on; whoever comes is dealt with afterwards.
        let mut meanwhile = Vec::new();
        let (machine, disks) = loop {
            match made.try_recv() {
                Ok(made) => break made?,
                Err(TryRecvError::Empty) => {
                    meanwhile.push(host.wait(None, false, |host| ReplicaStatus {
                        role: "waiting".into(),
                        state: "powering on".into(),
                        listen: host.listen_address(),
                        ..host.base_status(None)
                    })?)
                }
                // A panic has ended the process.
                Err(TryRecvError::Disconnected) => unreachable!("the thread says what came of it"),
            }
        };
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
        let (count, visible) = (
            parts.guest.machine.instruction_count(),
            parts.guest.machine.visible_outputs(),
        );
        let vcpu = LiveVcpu::start(parts, live_options(&host), channel, host.waker.clone())?;
        let (generation, detail) = (won.key.generation.0, won.to_string());
        if is_restored {
            if let Some(network) = &mut host.outside.network {
                // The guest does not know that it is somewhere else.
                network.announce();
            }
            crate::snapshot_file::forget(&host.config.state_directory);
            let detail =
                format!("{detail}; the machine goes on from the snapshot that was restored");
            host.events.add("restored", generation, count, detail);
        } else {
            host.events.add("machine_started", generation, 0, detail);
        }
        let beginning =
            Beginning::of_machine(won, &host.pair_config, InstructionCount(count), visible);
        let core = Primary::new(monotonic(), host.pair_config.clone(), beginning);
        let mut primary = PrimaryLoop::new(host, vcpu, core);
        for happened in meanwhile {
            primary.take(happened);
        }
        Ok(primary)
    }

    /// Ends the machine, and waits for what its disks still have to do: they are what the guest left.
    pub(super) fn close_disks(mut self) {
        // A snapshot that was begun keeps the disks.
        self.journal_snapshot = JournalSnapshot::default();
        self.copy = Copy::default();
        self.keeping = Keeping::default();
        self.vcpu.close();
    }

    /// What is left when it is over. The machine is dropped on a thread of its own: it takes as long
    /// as its disks do.
    pub(super) fn into_host(self) -> Host {
        let PrimaryLoop { mut host, vcpu, .. } = self;
        host.close_all();
        let previous = host.discarding.take();
        let thread = environment::thread::Builder::new().name("discard".into());
        let discarding = thread.spawn(move || {
            vcpu.close();
            if let Some(previous) = previous {
                // A panic has ended the process.
                let _joined = previous.join();
            }
        });
        // A host without a thread to give has dropped it here and now.
        host.discarding = discarding.ok();
        host
    }

    /// Serves until the machine ends, somebody else has it, or somebody asks.
    pub(super) fn serve(&mut self) -> Result<PrimaryEnding, ReplicaError> {
        self.host.arbiter.forget();
        loop {
            self.turn();
            if let Some(ending) = self.ended.take() {
                // The guest's last words may be among them.
                self.host.flush();
                let status = self.core.status();
                if let PrimaryEnding::Exit(ended) = &ending {
                    let (generation, count) = (status.generation.0, status.instruction_count.0);
                    self.host.stopped(generation, count, ended);
                }
                return Ok(ending);
            }
            self.sample();
            let known = self.core.status();
            self.host
                .arbiter_outage
                .note(known.arbiter_trouble.is_some());
            for follower in &known.followers {
                if let Some(round_trip) = follower.round_trip {
                    self.host.measured(follower.connection, round_trip);
                }
            }
            let (core, vcpu) = (&self.core, &self.vcpu);
            let joining = self.copy.progress();
            let (snapshots_taken, pause) = (self.snapshots_taken, self.snapshot_pause);
            let guest_panicked = self.guest_panicked;
            let trouble = self.trouble();
            let recovers_in = self.recovers_in();
            let foreign_frames = self.rivals.frames();
            let deadlines = [
                self.core.next_deadline(),
                self.requests.deadline(),
                self.locks_deadline(),
                self.stopping_deadline(),
                self.arbiter_move_deadline(),
                self.settling.as_ref().and_then(|settling| settling.due),
                self.rivals.deadline(self.lacks_backups()),
            ];
            let deadline = deadlines.into_iter().flatten().min();
            let takes_peers = self.takes_peers();
            let happened = self
                .host
                .wait(deadline, takes_peers, |host| ReplicaStatus {
                    joining,
                    snapshots_taken,
                    guest_panicked,
                    foreign_frames,
                    trouble: trouble.clone(),
                    journal_recovers_in_ms: recovers_in.as_secs_f64() * 1e3,
                    snapshot_pause_ms: pause.as_secs_f64() * 1e3,
                    ..status(host, core, vcpu)
                })?;
            self.take(happened);
            // What was acknowledged leaves before anything else is done.
            self.host.flush();
        }
    }

    /// Takes the figures that change all the time.
    fn sample(&mut self) {
        let gauges = self.vcpu.thread().gauges();
        let ran_ns = gauges.ran_ns.load(Ordering::Relaxed);
        self.host.sample(gauges.count.load(Ordering::Relaxed));
        self.demand.sample(monotonic_ns(), ran_ns);
        // Measured when this process began; whether it is done does not matter.
        let _done = self.host.facts.is_done(monotonic());
        self.host.facts.look_at_boot(monotonic());
        self.core.would_boot(monotonic(), self.host.facts.boot());
        let speed = self.host.facts.facts().speed;
        self.core.needs_speed(self.demand.speed_needed(speed));
    }

    pub(super) fn count(&self) -> InstructionCount {
        self.core.status().instruction_count
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) {
        self.vcpu_reports();
        if self.ended.is_some() {
            return;
        }
        while let Some((request, outcome)) = self.host.arbiter.answer(monotonic()) {
            self.core.arbiter_answered(monotonic(), &request, &outcome);
        }
        while let Some((purpose, result)) = self.host.markers.done() {
            if purpose == Purpose::Primary {
                self.settled(result.as_ref().err().map(ToString::to_string));
            }
            self.host.marker_written(purpose, result);
        }
        self.journal_news();
        self.renew_journal();
        self.core.tick(monotonic());
        self.actions();
        self.leave_layers();
        self.stop_in_time();
        self.answer_arbiter_move_in_time();
        self.settle_again();
        self.look_at_own_ability();
        self.look_at_locks();
        let lacks_backups = self.lacks_backups();
        let live_at = self.core.certainly_live_at();
        self.rivals.look(&mut self.host, lacks_backups, live_at);
        self.begin_keeping();
        self.begin_snapshots();
        self.copy_ended();
    }

    pub(super) fn take(&mut self, happened: Happened) {
        if happened.stop {
            self.asked_to_end();
        }
        for (id, request) in &happened.requests {
            self.asked(*id, request);
        }
        for frame in &happened.frames {
            self.rivals.frame(&self.host, frame);
        }
        // A guest that stands still hears nothing, as one that moves to another host.
        if !self.is_standing_still() {
            let typed = Some(happened.typed).filter(|typed| !typed.is_empty());
            let typed = typed.map(outside::typed).into_iter();
            let frames = happened.frames.into_iter();
            let frames = frames.map(|frame| Input::NetworkFrame { device: 0, frame });
            self.vcpu.inputs(typed.chain(frames).collect());
        }
        for connection in happened.heard {
            self.core.heard(monotonic(), connection);
        }
        for (connection, message) in happened.messages {
            match message {
                Message::Fetch { pairing, run } => self.is_asked(connection, pairing, run),
                message => self.core.received(monotonic(), connection, message),
            }
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
                LiveReport::Snapshot(begun) => self.snapshot_begun(begun),
                LiveReport::DisksBegun(begun) => self.disks_begun(*begun),
                LiveReport::CopyBegun(begun) => self.copy_begun(*begun),
                LiveReport::CopyRound(pairing, pages) => {
                    self.copy.round(pairing, Round::Pages(pages));
                }
                LiveReport::StandsStill => self.stands_still(),
                LiveReport::Finished(finish) if self.ends_for_the_host(finish) => {
                    self.actions();
                    return self.end(PrimaryEnding::Exit(Ok(Ended::PoweredOff)));
                }
                LiveReport::Finished(finish) => {
                    self.finish = Some(finish);
                    self.core.finished(monotonic(), self.count());
                }
                LiveReport::DiskFailed(how) => {
                    self.disk_failed = Some(how.clone());
                    self.core.disk_failed(monotonic(), how);
                }
                LiveReport::Rebooted { count } => {
                    let detail = "the guest reset the machine, which begins anew";
                    self.host.events.add("rebooted", 0, count.0, detail);
                    self.guest_panicked = false;
                }
                LiveReport::Calendar { count, ahead_ns } => {
                    let detail = calendar::describe(ahead_ns);
                    self.host.events.add("calendar", 0, count.0, detail);
                }
                LiveReport::Trouble { count, trouble } => {
                    self.guest_panicked |= trouble == Trouble::Panicked;
                    let event = trouble_event(&trouble);
                    self.host.events.add(event, 0, count.0, trouble.to_string());
                }
                LiveReport::Failed(failure) => {
                    let error = self.host.machine_failed(&failure, self.vcpu.thread_mut());
                    return self.end(PrimaryEnding::Exit(Err(error)));
                }
            }
            self.actions();
        }
    }

    fn steps(&mut self, steps: Vec<Step>, count: InstructionCount) {
        for step in steps {
            match step {
                Step::Record(record) => self.core.record(monotonic(), record),
                Step::Read(read) => self.keep_read(read),
                Step::Outputs(mut batch) => {
                    self.leave_early(&mut batch.outputs);
                    let outputs = batch.outputs.into_iter().map(Said::Output).collect();
                    let now = monotonic();
                    let since = now.saturating_sub(batch.waited);
                    let (count, visible) = (batch.count, batch.visible);
                    self.core.outputs_since(now, since, count, visible, outputs);
                }
                Step::Pressed {
                    count,
                    visible,
                    press,
                } => {
                    let said = vec![Said::Pressed(press)];
                    self.core.outputs(monotonic(), count, visible, said);
                }
            }
        }
        self.core.progress(monotonic(), count);
    }

    /// A bug, for the simulator.
    fn leave_early(&self, outputs: &mut Vec<Output>) {
        let mutations = self.host.pair_config.mutations;
        if mutations.active(Mutation::SharedWriteNotGated) {
            outputs.retain(|output| match output {
                Output::Disk(request) => {
                    self.ask_disk(request.clone());
                    false
                }
                _ => true,
            });
        }
    }

    pub(super) fn actions(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                PrimaryAction::Send {
                    connection,
                    message,
                } => self.host.send(connection, &message),
                PrimaryAction::Close(connection) => self.host.close(connection),
                PrimaryAction::Emit(said) => self.emit(said),
                PrimaryAction::TakeSnapshot { pairing, .. } => {
                    self.keeping.gives_way();
                    self.requests.ask(pairing);
                }
                PrimaryAction::AbortSnapshot { .. } => self.drop_copy(),
                PrimaryAction::BeginJournal { id, snapshot } => {
                    self.ask_journal_snapshot(id, snapshot);
                }
                PrimaryAction::JournalFrom(start) => self.begin_journal(start),
                PrimaryAction::JournalSnapshotCounts { id } => self.journal_snapshot_counts(id),
                PrimaryAction::Store { id, batches } => self.store(id, batches),
                PrimaryAction::EndJournal { id } => self.end_journal(id),
                PrimaryAction::Ask(request) => self.host.arbiter.ask(monotonic(), request),
                PrimaryAction::Announce => self.announce(),
                PrimaryAction::Settle(marker) => {
                    self.settling = Some(Settling::new(marker.clone()));
                    self.host.markers.write(Purpose::Primary, marker);
                }
                PrimaryAction::CompleteFlushes { up_to } => {
                    self.vcpu.complete_flushes(up_to);
                }
                PrimaryAction::Looked { trouble } => self.looked(trouble),
                PrimaryAction::StandStill => self.outvoted(),
                PrimaryAction::Resume => self.nobody_took_over(),
                PrimaryAction::CheckpointHeld => self.vcpu.checkpoint_held(),
                PrimaryAction::EndCheckpoints { pairing } => self.vcpu.end_checkpoints(pairing),
                PrimaryAction::Throttle(share) => self.vcpu.throttle(share),
                PrimaryAction::Press(button, asked) => self.press(Asker::Backup(asked), button),
                PrimaryAction::SwitchOver(asked) => self.switch_over(Asker::Backup(asked), None),
                PrimaryAction::ArbiterMoved(result) => self.arbiter_moved(result),
                PrimaryAction::Report(event) => {
                    let event = self.with_silence(event);
                    let status = self.core.status();
                    let (generation, count) = (status.generation, status.instruction_count.0);
                    self.note_journal(&event);
                    self.host.report(&event, generation, count);
                }
                PrimaryAction::Stop(why) => self.stop(why),
            }
        }
    }

    fn stop(&mut self, why: PrimaryStop) {
        let ending = match why {
            PrimaryStop::Finished => {
                let finish = self.finish.expect("the core ends after the machine did");
                // The key is there that ends the life.
                self.end_layers();
                PrimaryEnding::Exit(Ok(Ended::Guest(finish)))
            }
            PrimaryStop::Superseded { by } => {
                if let Some(what) = self.disk_failed.take() {
                    self.host.disk_failed(what);
                }
                self.ending_superseded(&by)
            }
        };
        self.end(ending);
    }

    /// Ends the loop, if nothing has ended it already.
    pub(super) fn end(&mut self, ending: PrimaryEnding) {
        self.arbiter_move_is_not_known();
        self.forget_presses();
        self.end_keeping();
        self.ended.get_or_insert(ending);
    }

    /// Whether fewer hosts follow than are wanted, and none is about to.
    fn lacks_backups(&self) -> bool {
        let members = self.core.opened().membership().members.len();
        let is_idle = matches!(
            self.core.status().phase,
            PrimaryPhase::Alone | PrimaryPhase::Paired
        );
        is_idle && members < self.host.config.pair.backups
    }

    /// The disk was synced and its marker written, or not. Until it is the guest's flushes wait.
    fn settled(&mut self, error: Option<String>) {
        match (error, &mut self.settling) {
            (None, _) => {
                self.settling = None;
                self.ability.written();
                self.core.settled(monotonic());
            }
            (Some(why), Some(settling)) => settling.failed(why),
            (Some(_), None) => {}
        }
    }

    /// What the guest's flushes and a backup wait for, or why a backup could not go on, for people.
    fn trouble(&self) -> Option<String> {
        let failed = self.settling.as_ref().and_then(|it| it.failed.as_ref());
        let own = failed.map(|why| {
            format!(
                "the guest's flushes and any backup wait until this host's disk is synced and marked: {why}"
            )
        });
        let others = [
            self.own_ability_trouble(),
            self.core.members_in_trouble(),
            self.core.hosts_that_cannot_follow(),
            self.journal_trouble.clone(),
        ];
        let others: Vec<String> = others.into_iter().flatten().collect();
        own.or_else(|| (!others.is_empty()).then(|| others.join("; ")))
    }

    fn settle_again(&mut self) {
        if let Some(settling) = &mut self.settling
            && settling.due.take_if(|due| monotonic() >= *due).is_some()
        {
            let marker = settling.marker.clone();
            self.host.markers.write(Purpose::Primary, marker);
        }
    }

    fn emit(&mut self, said: Vec<Said>) {
        for said in said {
            match said {
                Said::Output(Output::Disk(request)) => self.ask_disk(request),
                Said::Output(output) => self.host.emit(&output),
                Said::Pressed(press) => self.pressed(press),
            }
        }
    }

    /// A write to a shared disk may be carried out.
    fn ask_disk(&self, request: DiskRequest) {
        if let Some(thread) = self.vcpu.thread().disk_thread() {
            thread.submit(request);
        }
    }

    /// A person asked for something at the control socket.
    fn asked(&mut self, id: ConversationId, request: &Request) {
        match request {
            Request::Console => self.host.attach(id),
            Request::Press(button) => self.press(Asker::Here(id), (*button).into()),
            Request::Snapshot { here } => self.keep(id, *here),
            Request::SwitchOver { to } => self.switch_over(Asker::Here(id), to.as_deref()),
            Request::MoveArbiter { to } => self.move_arbiter(id, to),
            Request::Fenced => {
                let why = Answer::Refused(NOT_WAITING.into());
                self.host.answer(id, &why);
            }
            Request::Word(_) | Request::WouldTake(_) => {
                let is_live = "the machine is live on this host: there is nothing to start";
                self.host.answer(id, &Answer::Refused(is_live.into()));
            }
            Request::Status => unreachable!("the host answers it itself"),
        }
    }

    /// Answers somebody who asked here, or at a backup.
    pub(super) fn reply(&mut self, asker: Asker, answer: &Answer) {
        let (asked, done, text) = match (asker, answer) {
            (Asker::Here(id), answer) => return self.host.answer(id, answer),
            (Asker::Backup(asked), Answer::Done(text)) => (asked, true, text),
            (Asker::Backup(asked), Answer::Refused(text)) => (asked, false, text),
            (Asker::Backup(_), Answer::Status(_)) => unreachable!("a backup has its own status"),
        };
        self.core.answer(monotonic(), asked, done, text.clone());
    }

    /// Tells the network that the guest is here.
    fn announce(&mut self) {
        if let Some(network) = &mut self.host.outside.network {
            network.announce();
        }
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
        journal: pair
            .journal
            .as_ref()
            .zip(host.journal.as_ref())
            .map(|(journal, desk)| {
                JournalLine::of(journal, desk.place(), desk.kept(), desk.unanswered())
            }),
        generation: pair.generation.0,
        protected: pair.protected,
        followers: pair.followers.iter().map(|it| follower(host, it)).collect(),
        needs: NeedsLine::from(&pair.needs),
        arbiter_trouble: host.arbiter_outage.told(pair.arbiter_trouble),
        checkpoints: host
            .config
            .pair
            .checkpoints
            .map(|_| CheckpointsLine::of(vcpu.thread().gauges())),
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

fn follower(host: &Host, follower: &FollowerStatus) -> FollowerLine {
    FollowerLine {
        links: host.links_with(follower.host.node()).unwrap_or_default(),
        ..FollowerLine::from(follower)
    }
}

fn state_name(phase: PrimaryPhase, protected: bool) -> &'static str {
    match phase {
        PrimaryPhase::Alone if protected => "journaled",
        PrimaryPhase::Alone => "alone",
        PrimaryPhase::Joining => "joining",
        PrimaryPhase::Paired if protected => "protected",
        PrimaryPhase::Paired => "paired",
        PrimaryPhase::Differing => "differing",
        PrimaryPhase::Claiming => "claiming",
        PrimaryPhase::HandingOver => "handing over",
        PrimaryPhase::Stopped => "finished",
    }
}

/// The event's name.
fn trouble_event(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::Panicked => "guest_panicked",
        Trouble::WatchdogEnded => "watchdog",
        Trouble::DriverFault { .. } => "driver_fault",
    }
}
