//! Carries out what the cores ask for: the event loop of the program, for a simulated world.

use crate::checker::host;
use crate::coverage::Situation;
use crate::disk::Purpose;
use crate::faults::Fault;
use crate::guest::{DISK_FAILED, StubInput, StubOutput};
use crate::lives::LookAgain;
use crate::process::{FromReplay, FromVcpu, PrimaryProcess, Role};
use crate::scenario::MS;
use crate::world::{What, World};
use replication::ConnectionId;
use replication::backup::{BackupAction, BackupPhase, BackupStop};
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::guest::Guest;
use replication::lag::{FULL_SPEED, LagPolicy};
use replication::life_log::LifeLog;
use replication::message::{Message, Parting, Refusal};
use replication::mutation::Mutation;
use replication::primary::{Beginning, Primary, PrimaryAction, PrimaryPhase, PrimaryStop};
use replication::record::RecordBody;
use replication::startup::StartupAction;
use replication::succession::{Entry, Generation, Kind, LifeNumber, RunId};
use replication::watch::Agreement;

enum Action {
    Primary(PrimaryAction<StubOutput>),
    Backup(BackupAction<StubOutput>),
    Startup(StartupAction),
}

impl World {
    /// Carries out all actions of the node's core, then sees to its timers.
    pub(crate) fn settle(&mut self, node: usize) {
        while let Some(run) = self.run_of(node) {
            let action = match self.role(node) {
                Some(Role::Primary(primary)) => primary.core.next_action().map(Action::Primary),
                Some(Role::Backup(backup)) => backup.core.next_action().map(Action::Backup),
                Some(Role::Starting) => self.startup_action(node).map(Action::Startup),
                None => None,
            };
            match action {
                Some(Action::Primary(action)) => self.primary_wants(node, run, action),
                Some(Action::Backup(action)) => self.backup_wants(node, run, action),
                Some(Action::Startup(action)) => self.startup_wants(node, run, action),
                None => return self.set_timers(node, run),
            }
        }
    }

    fn set_timers(&mut self, node: usize, run: u64) {
        let lateness = self.random.between(0, MS);
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        let (deadline, channel) = match &process.role {
            Role::Primary(primary) => (primary.core.next_deadline(), primary.channel.next()),
            Role::Backup(backup) => (backup.core.next_deadline(), backup.channel.next()),
            Role::Starting => (process.startup.next_deadline(), None),
        };
        let mut wanted = Vec::new();
        if let Some(deadline) = deadline {
            let at = self.scenario.world_time(node, deadline).max(self.now) + lateness;
            if at < process.tick_at {
                process.tick_at = at;
                wanted.push((at, What::Tick));
            }
        }
        if let Some(at) = channel
            && at < process.loop_at
        {
            process.loop_at = at.max(self.now);
            wanted.push((process.loop_at, What::Loop));
        }
        for (at, what) in wanted {
            self.at(at - self.now, Some((node, run)), what);
        }
    }

    pub(crate) fn tick(&mut self, node: usize) {
        let now = self.clock(node);
        if let Some(process) = &mut self.nodes[node].process {
            process.tick_at = u64::MAX;
            match &mut process.role {
                Role::Primary(primary) => primary.core.tick(now),
                Role::Backup(backup) => backup.core.tick(now),
                Role::Starting => process.startup.tick(now),
            }
        }
        self.settle(node);
    }

    pub(crate) fn vcpu(&mut self, node: usize) {
        let Some(run) = self.run_of(node) else { return };
        self.at(self.scenario.quantum, Some((node, run)), What::Vcpu);
        if self.nodes[node].vcpu_hangs_until > self.now {
            return;
        }
        let (now, percent) = (self.now, self.replay_percent);
        let mut disk = self.nodes[node].disk_health;
        let ignored = Mutation::OwnDiskFailureIgnored;
        disk.is_ignored = self.options.mutations().active(ignored);
        self.snapshots_are_for_somebody(node);
        if let Some(process) = &mut self.nodes[node].process {
            match &mut process.role {
                Role::Primary(primary) => {
                    if self.calm && primary.guest.is_paused() {
                        primary.inputs.push(StubInput::Resume);
                    }
                    primary.quantum(now, &self.scenario, disk, &mut self.random);
                }
                Role::Backup(backup) => {
                    backup.quantum(now, &self.scenario, disk, percent, &mut self.random);
                    if std::mem::take(&mut backup.blocked) {
                        self.coverage.reached(Situation::ReplayBlocked);
                    }
                }
                Role::Starting => {}
            }
        }
        self.see_to_flushes(node);
        self.hand_over_if_still(node);
        self.settle(node);
    }

    /// The guest stands still for a snapshot: only while there is somebody who wants it.
    fn snapshots_are_for_somebody(&mut self, node: usize) {
        if let Some(Role::Primary(primary)) = self.role(node)
            && let Some(pairing) = primary.snapshot_wanted
        {
            let wanted = primary.core.joining().map(|joiner| joiner.pairing);
            if wanted != Some(pairing) {
                self.violated(format!("a snapshot for pairing {pairing}, which is over"));
            }
        }
    }

    pub(crate) fn event_loop(&mut self, node: usize) {
        if let Some(process) = &mut self.nodes[node].process {
            process.loop_at = u64::MAX;
        }
        loop {
            let now = self.now;
            match self.role(node) {
                Some(Role::Primary(primary)) => {
                    let Some(item) = primary.channel.take(now) else {
                        break;
                    };
                    self.vcpu_said(node, item);
                }
                Some(Role::Backup(backup)) => {
                    let Some(item) = backup.channel.take(now) else {
                        break;
                    };
                    self.replay_said(node, item);
                }
                Some(Role::Starting) => break,
                None => return,
            }
            self.settle(node);
        }
        self.settle(node);
    }

    fn vcpu_said(&mut self, node: usize, item: FromVcpu) {
        let now = self.clock(node);
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let mut recorded = None;
        match item {
            FromVcpu::Record(record, fingerprint) => {
                recorded = Some((primary.count_record(), fingerprint));
                primary.core.record(now, record);
            }
            FromVcpu::Outputs {
                count,
                visible,
                outputs,
                fingerprint,
            } => {
                recorded = Some((primary.count_record(), fingerprint));
                primary.core.outputs(now, count, visible, outputs);
            }
            FromVcpu::Progress(count, fingerprint) => {
                let before = primary.core.status().record;
                primary.core.progress(now, count);
                // A marker of the core's own, for the backup to follow.
                if primary.core.status().record != before {
                    recorded = Some((primary.count_record(), fingerprint));
                }
            }
            FromVcpu::Snapshot {
                pairing,
                count,
                bytes,
            } => {
                primary.snapshot = Some((pairing, bytes));
                primary.core.snapshot_taken(now, pairing, count);
                return self.begin_sending(node);
            }
            FromVcpu::Finished(count) => primary.core.finished(now, count),
            FromVcpu::DiskFailed => {
                let is_protected = primary.core.status().protected;
                primary.core.disk_failed(now, "no space".to_owned());
                if is_protected {
                    let heir = self.another(node);
                    return self.strike_heir(heir);
                }
            }
        }
        if let Some((record, fingerprint)) = recorded {
            let opened = primary.core.opened().clone();
            self.checker.recorded(&opened, record, fingerprint);
        }
    }

    fn replay_said(&mut self, node: usize, item: FromReplay) {
        let now = self.clock(node);
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let (pairing, opened) = (backup.pairing, backup.opened.clone());
        match item {
            FromReplay::Outputs { visible, outputs } => {
                backup.core.outputs(now, pairing, visible, outputs);
            }
            FromReplay::Replayed {
                record,
                executed,
                fingerprints,
            } => {
                backup.core.replayed(now, pairing, record, executed);
                let (may_differ, after) = (backup.may_differ(), backup.compared_after);
                if backup.core.status().phase == BackupPhase::Ending {
                    self.coverage.reached(Situation::DrainedAtTheEnd);
                }
                for (record, fingerprint) in fingerprints {
                    if !may_differ && record > after {
                        let verdict = self.checker.replayed(&opened, record, fingerprint);
                        self.check(verdict);
                    }
                }
            }
            FromReplay::Diverged(report) if report.what.contains(DISK_FAILED) => {
                self.coverage.reached(Situation::OwnDiskFailed);
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.core.own_disk_failed(now, pairing, report.what);
                }
            }
            FromReplay::Diverged(report) => {
                if backup.may_differ() {
                    backup.core.diverged(now, pairing, report);
                    self.coverage.reached(Situation::DivergenceFound);
                } else {
                    self.violated(format!(
                        "the replay differs, and nobody made it: {report:?}"
                    ));
                }
            }
        }
    }

    fn primary_wants(&mut self, node: usize, run: u64, action: PrimaryAction<StubOutput>) {
        match action {
            PrimaryAction::Send {
                connection,
                message,
            } => {
                self.primary_sends(node, run, connection, &message);
            }
            PrimaryAction::Close(connection) => self.close(connection, run),
            PrimaryAction::Emit(outputs) => {
                self.may_emit(node);
                if let Some(Role::Primary(primary)) = self.role(node) {
                    let opened = primary.core.opened().clone();
                    let disk = primary.guest.disk().to_vec();
                    self.emit(node, run, opened, &outputs, &disk);
                }
            }
            PrimaryAction::TakeSnapshot { pairing, .. } => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    primary.snapshot_wanted = Some(pairing);
                }
            }
            PrimaryAction::AbortSnapshot { .. } => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    let begun = primary.sending.take().is_some();
                    primary.snapshot = None;
                    let asking = primary.asking.take();
                    if primary.snapshot_wanted.take().is_some() {
                        self.coverage.reached(Situation::SnapshotNotWanted);
                    }
                    if let Some((_, connection)) = asking {
                        self.close(connection, run);
                    }
                    if begun {
                        self.coverage.reached(Situation::SnapshotInterrupted);
                    }
                }
            }
            PrimaryAction::Ask(request) => {
                self.delicate();
                self.ask(node, run, request);
            }
            PrimaryAction::Settle(marker) => self.begin_write(node, run, marker, Purpose::Primary),
            PrimaryAction::CompleteFlushes { up_to } => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    primary.flushes_up_to = up_to;
                }
            }
            PrimaryAction::BeginJournal { .. }
            | PrimaryAction::JournalFrom(_)
            | PrimaryAction::JournalSnapshotCounts { .. }
            | PrimaryAction::Store { .. }
            | PrimaryAction::EndJournal { .. } => {
                unreachable!("no host of this world keeps a journal")
            }
            PrimaryAction::Announce => {}
            // There is one arbiter in this world; whole replicas have two.
            PrimaryAction::ArbiterMoved(_) => unreachable!("nobody asked for that"),
            // Hands over without having looked: the arbiter may be gone at any moment in any case.
            PrimaryAction::Looked { .. } => {}
            PrimaryAction::StandStill => self.is_outvoted(node),
            PrimaryAction::Resume => self.primary_resumes(node),
            // The machines of these worlds execute: `replicas` has others.
            PrimaryAction::CheckpointHeld | PrimaryAction::EndCheckpoints { .. } => {}
            PrimaryAction::Throttle(share) => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    primary.share = share.into();
                    if share < FULL_SPEED {
                        self.coverage.reached(Situation::Slowed);
                    }
                }
            }
            PrimaryAction::SwitchOver(_) => {
                self.coverage.reached(Situation::SwitchoverAsked);
                self.ask_to_hand_over(node);
            }
            PrimaryAction::Press(button, _) => {
                self.coverage.reached(Situation::PressedAtTheBackup);
                self.press(node, button);
            }
            PrimaryAction::Report(event) => self.primary_reports(node, event),
            PrimaryAction::Stop(why) => self.primary_stops(node, run, &why),
        }
    }

    fn primary_sends(
        &mut self,
        node: usize,
        run: u64,
        connection: ConnectionId,
        message: &Message,
    ) {
        match message {
            Message::Begin { .. } => {
                let Some(Role::Primary(primary)) = self.role(node) else {
                    return;
                };
                let opened = primary.core.opened().clone();
                let side = self.network.side(connection, run);
                let other = side
                    .and_then(|side| self.network.connections[&connection.0].ends[1 - side].node);
                if let Some(other) = other {
                    let verdict = self.checker.begin_sent(&opened, run, host(other).id);
                    self.check(verdict);
                    self.strike_begin(node, other);
                }
                self.delicate();
            }
            Message::Handover { .. } => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    let opened = primary.core.opened().clone();
                    self.checker.handed_over(&opened);
                }
                self.delicate();
            }
            Message::Refuse(Refusal::NotNow(_)) => self.coverage.reached(Situation::RefusedNotNow),
            Message::Records { .. } if std::mem::take(&mut self.nodes[node].lose_message) => {
                return self.note(|| format!("node {node}: a message is lost: {message:?}"));
            }
            Message::Welcome { .. } | Message::SnapshotTaken { .. } | Message::Joined { .. } => {
                self.delicate();
            }
            Message::Goodbye {
                parting: Parting::Finished,
                ..
            } => self.guest_ended(node),
            _ => {}
        }
        self.send(run, connection, message);
    }

    fn primary_reports(&mut self, node: usize, event: Event) {
        self.note(|| format!("node {node} (primary): {event}"));
        self.fitness_told(&event);
        if matches!(event, Event::Suspected { .. }) {
            self.suspected(node, &event);
            self.is_dropped_rightly(node, &event);
        }
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let opened = primary.core.opened().clone();
        let status = primary.core.status();
        match event {
            Event::Claimed { .. } => {
                self.coverage.reached(Situation::PrimaryWentOnAlone);
                if opened.kind == Kind::Dropped && status.phase == PrimaryPhase::Alone {
                    self.coverage.reached(Situation::JoinerDropped);
                }
            }
            Event::Superseded { .. } => self.coverage.reached(Situation::PrimaryLostClaim),
            Event::LetsGo { host, .. } => {
                self.coverage.reached(Situation::LaggardLetGo);
                let mut others = status.followers.iter().filter(|f| f.host.id != host.id);
                let is_last = !others.any(|other| other.protects);
                if is_last && self.scenario.lag_policy() != LagPolicy::DropAny {
                    self.violated(format!("host {host} is let go, and nobody else protects"));
                }
            }
            Event::Protected { .. } if self.checker.failovers(&opened) > 0 => {
                self.coverage.reached(Situation::Reprotected);
            }
            Event::Suspected { .. } if self.checker.begin_was_read(&opened) == Some(false) => {
                self.coverage.reached(Situation::BeginLost);
            }
            Event::JoinFailed { .. } => self.coverage.reached(Situation::JoinInterruptedLate),
            Event::ArbiterUnanswered { why, .. } => {
                if status.held_outputs > 0 {
                    self.coverage.reached(Situation::OutputsWaitedForArbiter);
                }
                if why.contains("was emptied") {
                    self.coverage.reached(Situation::WrongStoreNoticed);
                }
            }
            Event::Arbiter {
                agreement: Agreement::Differs,
            } => self.coverage.reached(Situation::ArbitersDiffered),
            Event::Paused { .. } if status.protected => {
                self.coverage.reached(Situation::PauseNoticed);
            }
            _ => {}
        }
    }

    fn primary_stops(&mut self, node: usize, run: u64, why: &PrimaryStop) {
        self.note(|| format!("node {node}: primary {run} stops: {why:?}"));
        match why {
            PrimaryStop::Finished => {
                self.guest_ended(node);
                // Somebody may have begun another already.
                let ended = match self.role(node) {
                    Some(Role::Primary(primary)) => primary.core.opened().key.life,
                    _ => LifeNumber(0),
                };
                if self
                    .arbiter
                    .newest()
                    .is_some_and(|newest| newest.next.is_some() && newest.key.life == ended)
                {
                    self.violated(format!("process {run} ends, but the life does not"));
                }
                self.coverage.reached(Situation::OrderlyEnd);
            }
            PrimaryStop::Superseded { by } => {
                self.is_superseded(run, by);
                if self.nodes[node].slept.is_some() {
                    self.coverage.reached(Situation::FrozenPrimaryWoke);
                }
                if by.kind == Kind::HandedOver {
                    self.coverage.reached(Situation::HandedOver);
                    if let Some(Role::Primary(primary)) = self.role(node)
                        && primary.failed_request.is_some()
                    {
                        self.coverage.reached(Situation::DiskHandedOver);
                    }
                }
            }
        }
        self.look_again(node, run, LookAgain::AtOnce);
    }

    /// A primary says that its guest has ended: all that the guest said must be out.
    fn guest_ended(&mut self, node: usize) {
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let said = primary.guest.visible_outputs();
        let opened = primary.core.opened().clone();
        let disk = primary.guest.disk().to_vec();
        self.final_disks.insert(opened.key.life, disk);
        let seen = self.checker.outputs_seen(&opened) as u64;
        if seen != said {
            self.violated(format!(
                "the guest ended, {said} outputs, {seen} of them seen"
            ));
        }
    }

    fn backup_wants(&mut self, node: usize, run: u64, action: BackupAction<StubOutput>) {
        match action {
            BackupAction::Connect => self.dial(node, run),
            BackupAction::Fence => unreachable!("no machine here has a shared disk"),
            BackupAction::Send {
                connection,
                message,
            } => {
                self.joiner_says(node, &message);
                if matches!(message, Message::Ready { .. }) {
                    self.delicate();
                }
                if matches!(message, Message::Confirmed { .. }) {
                    self.confirms(node, run);
                }
                if matches!(message, Message::Accept { .. }) {
                    self.accepts(node, run);
                }
                self.send(run, connection, &message);
            }
            BackupAction::Close(connection) => self.close(connection, run),
            BackupAction::Mark(marker) => self.begin_write(node, run, marker, Purpose::Mark),
            BackupAction::Settle { pairing, marker } => {
                self.begin_write(node, run, marker, Purpose::Member(pairing));
            }
            BackupAction::Fetch { pairing } => self.fetch(node, run, pairing),
            BackupAction::Place {
                pairing,
                record,
                visible_outputs,
                ..
            } => {
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.pairing = pairing;
                    backup.snapshot_at = record;
                    backup.marked = visible_outputs;
                    self.marker_is_held(node);
                    self.snapshot_placed(node);
                }
            }
            BackupAction::Replay { records, .. } => self.backup_replays(node, records),
            BackupAction::KeepEvidence { .. } => {}
            BackupAction::StopComparing => self.has_majority(node),
            // Whoever asked here waits for no answer.
            BackupAction::Answered { .. } => {}
            BackupAction::Announce => self.nodes[node].announced = Some(run),
            BackupAction::Ask(request) => {
                self.delicate();
                self.ask(node, run, request);
            }
            BackupAction::GoLive {
                opened,
                log,
                outputs,
            } => self.go_live(node, run, *opened, *log, &outputs),
            BackupAction::GoOn { pairing } => {
                self.coverage.reached(Situation::ReturnedWithoutCopy);
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.pairing = pairing;
                    backup.opened = backup.joins.clone();
                    if backup.uncompared {
                        self.coverage.reached(Situation::MajorityFollowed);
                    }
                }
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.compare();
                }
                self.marker_is_held(node);
            }
            BackupAction::DropMachine => {
                self.coverage.reached(Situation::ReturnedInVain);
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.drop_machine();
                }
            }
            BackupAction::Report(event) => self.backup_reports(node, run, event),
            BackupAction::Stop(why) => {
                self.note(|| format!("node {node}: backup {run} stops: {why:?}"));
                match &why {
                    BackupStop::Superseded { by } => {
                        self.is_superseded(run, by);
                        self.coverage.reached(Situation::BackupLostClaim);
                    }
                    BackupStop::Finished => self.backup_finished(node),
                    BackupStop::Diverged(_)
                    | BackupStop::DiskFailed(_)
                    | BackupStop::CannotFollow(_)
                    | BackupStop::Again(_) => {}
                    BackupStop::Later(Refusal::Lagged) => {
                        self.coverage.reached(Situation::LaggardKeptOut);
                    }
                    BackupStop::Later(_) => self.coverage.reached(Situation::NotNeeded),
                    BackupStop::Refused(_) | BackupStop::Unusable(_) | BackupStop::Left => {
                        self.violated(format!("a good backup stops: {why:?}"));
                    }
                }
                let when = match why {
                    BackupStop::Superseded { .. } => LookAgain::AtOnce,
                    BackupStop::Later(_) => LookAgain::Later,
                    _ => LookAgain::Soon,
                };
                self.look_again(node, run, when);
            }
        }
    }

    /// A primary's machine runs on, after it stood still.
    fn primary_resumes(&mut self, node: usize) {
        let wrong = self.nodes.iter().any(|node| node.wrong_arbiter);
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let is_told = primary.failed_request.is_some();
        let has_heir = primary.core.status().protected;
        primary.resume();
        if is_told && has_heir && !wrong {
            self.violated(
                "the guest is told of a disk error that its backup does not have".to_owned(),
            );
        }
        self.coverage.reached(match is_told {
            true => Situation::DiskErrorTold,
            false => Situation::HandoverFailed,
        });
    }

    /// A backup that ends with the life has on its disk what the guest left.
    fn backup_finished(&mut self, node: usize) {
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        if backup.may_differ() {
            return;
        }
        let life = backup.opened.key.life;
        let synced = self.nodes[node].disk.synced();
        match self.final_disks.get(&life) {
            Some(disk) if synced == disk.as_slice() => {}
            left => {
                let (synced, left) = (synced.len(), left.map(Vec::len));
                self.violated(format!(
                    "a backup ends with {synced} writes on its disk, of {left:?} that the guest made"
                ));
            }
        }
    }

    /// A machine is given up only if somebody else's key says so.
    fn is_superseded(&mut self, run: u64, by: &Entry) {
        let is_there = self.arbiter.entry(&by.key).as_ref() == Some(by);
        if !is_there || by.writer.run == RunId(run.into()) {
            self.violated(format!(
                "process {run} gives its machine up, and nobody has it: {by}"
            ));
        }
    }

    /// Whoever is asked to take over dies, sometimes, before it knows.
    pub(crate) fn strike_heir(&mut self, heir: usize) {
        if self.random.percent(40) {
            self.at(0, None, What::Fault(Fault::Kill(heir)));
        }
    }

    pub(crate) fn begin_restore(&mut self, node: usize, run: u64) {
        let time = self.scenario.restore_time;
        self.attempts += 1;
        let attempt = self.attempts;
        if let Some(Role::Backup(backup)) = self.role(node) {
            backup.attempt = attempt;
        }
        if self.scenario.restore_blocks {
            if time > 1_000 * MS {
                self.coverage.reached(Situation::BlockingRestore);
            }
            self.freeze(node, time);
        }
        for quarters in 1..4 {
            let what = What::Restoring(attempt, quarters);
            self.at(time * quarters / 4, Some((node, run)), what);
        }
        self.at(time, Some((node, run)), What::Restored(attempt));
    }

    /// A part of the snapshot is restored.
    pub(crate) fn restoring(&mut self, node: usize, attempt: u64, quarters: u64) {
        let now = self.clock(node);
        if let Some(Role::Backup(backup)) = self.role(node)
            && backup.attempt == attempt
            && backup.replayer.is_none()
        {
            let pairing = backup.pairing;
            backup.core.restoring(now, pairing, quarters, 4);
        }
        self.settle(node);
    }

    fn backup_replays(&mut self, node: usize, records: Vec<replication::record::Record>) {
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let markers = records.iter().filter_map(|record| match record.body {
            RecordBody::Marker { visible_outputs } => Some(visible_outputs),
            _ => None,
        });
        backup.marked = markers.fold(backup.marked, u64::max);
        backup.replay(records);
        self.marker_is_held(node);
    }

    /// What the node's machine was given is held.
    fn marker_is_held(&mut self, node: usize) {
        if let Some(Role::Backup(backup)) = self.role(node) {
            let (opened, marked) = (backup.opened.clone(), backup.marked);
            self.checker.marker_received(&opened, host(node).id, marked);
        }
    }

    fn backup_reports(&mut self, node: usize, run: u64, event: Event) {
        self.note(|| format!("node {node} (backup): {event}"));
        if matches!(event, Event::Suspected { .. }) {
            self.suspected(node, &event);
        }
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        match event {
            Event::Joining { pairing, .. } => backup.pairing = pairing,
            Event::Generation { by } => {
                backup.opened = *by;
                self.coverage.reached(Situation::GenerationFollowed);
            }
            Event::Protected { .. } => {
                let before = backup.core.status().generation.0 - 1;
                let key = backup.opened.key.of(Generation(before));
                let Some(opened) = self.arbiter.entry(&key) else {
                    return self.violated("protected without a key".to_owned());
                };
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.opened = opened.clone();
                }
                let verdict = self.checker.begin_read(&opened, run, host(node).id);
                self.check(verdict);
                if self.scenario.is_spare(node) {
                    self.coverage.reached(Situation::SpareTaken);
                }
                if self.nodes[node].joined_before {
                    self.coverage.reached(Situation::LoserBecameBackup);
                }
            }
            Event::ArbiterUnanswered { why, .. } if why.contains("was emptied") => {
                self.coverage.reached(Situation::WrongStoreNoticed);
            }
            Event::Arbiter {
                agreement: Agreement::Differs,
            } => self.coverage.reached(Situation::ArbitersDiffered),
            Event::Suspected {
                why: Suspicion::Protocol(what),
                ..
            }
            | Event::JoinFailed {
                why: Suspicion::Protocol(what),
                ..
            } if what.contains("missing") => {
                self.coverage.reached(Situation::GapNoticed);
            }
            Event::Suspected {
                why: Suspicion::SuspectsUs,
                ..
            } => self.coverage.reached(Situation::SuspectedBackupWaited),
            Event::Live {
                drained_records,
                repeated_outputs,
                ..
            } => {
                self.coverage.reached(Situation::Failover);
                if drained_records > 0 {
                    self.coverage.reached(Situation::DrainedBeforeLive);
                }
                if repeated_outputs > 0 {
                    self.coverage.reached(Situation::OutputsRepeated);
                }
            }
            _ => {}
        }
    }

    fn go_live(
        &mut self,
        node: usize,
        run: u64,
        opened: Entry,
        log: LifeLog,
        outputs: &[StubOutput],
    ) {
        let now = self.now;
        let verdict = self.checker.goes_live(now, run, &opened, &self.arbiter);
        self.check(verdict);
        if self.nodes[node].announced != Some(run) {
            self.violated(format!("process {run} goes live and does not say where"));
        }
        if self.checker.failovers(&opened) > 1 {
            self.coverage.reached(Situation::RepeatedFailover);
        }
        let config = self.scenario.config(node, run, self.options.mutations());
        let clock = self.clock(node);
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let Some(replayer) = backup.replayer.take() else {
            return self.violated("live without a machine".to_owned());
        };
        let is_wrong = backup.has_poisoned_primary && !backup.uncompared;
        if backup.poisoned || is_wrong {
            // It differs, nobody has noticed yet, and now nobody can: two faults at once. What the
            // outside sees from here on proves nothing.
            return self.give_up();
        }
        let is_majority = backup.uncompared;
        let mut guest = replayer.into_guest();
        guest.disk_slowness = 0;
        guest.disk_fails = false;
        guest.disk_lies = false;
        let verdict = self.checker.goes_on_from(opened.key.life, guest.disk());
        self.check(verdict);
        if is_majority {
            let first = outputs.first().map(|output| output.index);
            let next = first.unwrap_or(guest.visible_outputs() + 1);
            self.checker.majority_goes_on(&opened, next);
            self.coverage.reached(Situation::MajorityWentOn);
        }
        let beginning = Beginning {
            opened: opened.clone(),
            log,
            count: guest.instruction_count(),
            visible_outputs: guest.visible_outputs(),
        };
        self.emit(node, run, opened, outputs, guest.disk());
        if guest.is_paused() {
            self.coverage.reached(Situation::LiveAndPaused);
        }
        let mut core = Primary::new(clock, config, beginning);
        core.needs_speed(self.scenario.speed_needed());
        // It may have slept as a backup: what it holds now it holds by the arbiter's key.
        self.nodes[node].slept = None;
        self.become_primary(node, PrimaryProcess::new(core, guest));
        self.delicate();
        self.lose_power_before_it_settles();
    }

    /// Until the disk of a new primary is settled, another host's is the right one: a time of its
    /// own to lose power.
    fn lose_power_before_it_settles(&mut self) {
        if self.random.percent(self.scenario.strike_percent) {
            let after = self.random.between(0, 2 * self.scenario.sync_time);
            let off = self.random.between(10, 500) * MS;
            self.at(after, None, What::Fault(Fault::AllDie(off)));
        }
    }

    pub(crate) fn restored(&mut self, node: usize, attempt: u64) {
        let now = self.clock(node);
        let slowness = if self.scenario.disk_percent > 0 { 2 } else { 0 };
        let is_long = self.scenario.restore_time > 2_000 * MS;
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        // What belongs to an attempt that has been given up comes too late.
        if backup.attempt == attempt && backup.replayer.is_none() {
            let pairing = backup.pairing;
            let result = backup.restore(slowness);
            let disk = backup.replayer.as_ref().map(|r| r.guest().disk().to_vec());
            backup.core.restored(now, pairing, result);
            self.nodes[node].disk.was_copied(disk.unwrap_or_default());
            if is_long {
                self.coverage.reached(Situation::LongRestore);
            }
        }
        self.settle(node);
    }
}
