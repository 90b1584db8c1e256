//! Carries out what the cores ask for: the event loop of the program, for a simulated world.

use crate::arbiter::Mood;
use crate::coverage::Situation;
use crate::faults::Fault;
use crate::guest::{DISK_FAILED, StubOutput};
use crate::process::{FromReplay, FromVcpu, PrimaryProcess, Role, Sending};
use crate::scenario::MS;
use crate::world::{What, World};
use replication::ConnectionId;
use replication::backup::{BackupAction, BackupStop};
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::generation::{ClaimOutcome, ClaimRequest};
use replication::guest::Guest;
use replication::lag::FULL_SPEED;
use replication::message::{Message, Parting, Refusal, SnapshotChunk, SnapshotPart};
use replication::primary::{Primary, PrimaryAction, PrimaryStop};
use replication::record::RecordBody;

enum Action {
    Primary(PrimaryAction<StubOutput>),
    Backup(BackupAction<StubOutput>),
}

impl World {
    /// Carries out all actions of the node's core, then sees to its timers.
    pub(crate) fn settle(&mut self, node: usize) {
        while let Some(run) = self.run_of(node) {
            let action = match self.role(node) {
                Some(Role::Primary(primary)) => primary.core.next_action().map(Action::Primary),
                Some(Role::Backup(backup)) => backup.core.next_action().map(Action::Backup),
                None => None,
            };
            match action {
                Some(Action::Primary(action)) => self.primary_wants(node, run, action),
                Some(Action::Backup(action)) => self.backup_wants(node, run, action),
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
        let disk = self.nodes[node].disk;
        if let Some(process) = &mut self.nodes[node].process {
            match &mut process.role {
                Role::Primary(primary) => {
                    primary.quantum(now, &self.scenario, disk, &mut self.random);
                }
                Role::Backup(backup) => {
                    backup.quantum(now, &self.scenario, disk, percent, &mut self.random);
                    if std::mem::take(&mut backup.blocked) {
                        self.coverage.reached(Situation::ReplayBlocked);
                    }
                }
            }
        }
        self.set_timers(node, run);
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
                recorded = primary.count_record(fingerprint);
                primary.core.record(now, record);
            }
            FromVcpu::Outputs {
                count,
                visible,
                outputs,
                fingerprint,
            } => {
                recorded = primary.count_record(fingerprint);
                primary.core.outputs(now, count, visible, outputs);
            }
            FromVcpu::Progress(count) => primary.core.progress(now, count),
            FromVcpu::Snapshot {
                generation,
                count,
                bytes,
            } => {
                primary.snapshot = Some((generation, bytes));
                primary.stream = Some((generation, 0));
                primary.core.snapshot_taken(now, generation, count);
            }
            FromVcpu::Finished(count) => primary.core.finished(now, count),
            FromVcpu::DiskFailed => {
                let is_protected = primary.core.status().protected;
                if primary.core.disk_failed(now, "no space".to_owned()) {
                    return self.strike_heir(1 - node);
                }
                primary.resume();
                if is_protected {
                    return self.violated(
                        "the guest is told of an error that its backup does not have".to_owned(),
                    );
                }
            }
        }
        if let Some((generation, sequence, fingerprint)) = recorded {
            let life = primary.life;
            self.checker
                .recorded(life, generation, sequence, fingerprint);
        }
    }

    fn replay_said(&mut self, node: usize, item: FromReplay) {
        let now = self.clock(node);
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let generation = backup.generation;
        match item {
            FromReplay::Outputs { visible, outputs } => {
                backup.core.outputs(now, generation, visible, outputs);
            }
            FromReplay::Replayed {
                sequence,
                executed,
                fingerprints,
            } => {
                backup.core.replayed(now, generation, sequence, executed);
                let poisoned = backup.poisoned;
                let Some(life) = backup.life else { return };
                for (sequence, fingerprint) in fingerprints {
                    if !poisoned {
                        let verdict =
                            self.checker
                                .replayed(life, generation, sequence, fingerprint);
                        self.check(verdict);
                    }
                }
            }
            FromReplay::Diverged(report) if report.what.contains(DISK_FAILED) => {
                self.coverage.reached(Situation::OwnDiskFailed);
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.core.own_disk_failed(now, generation, report.what);
                }
            }
            FromReplay::Diverged(report) => {
                if backup.poisoned {
                    backup.core.diverged(now, generation, report);
                    if let Some(run) = self.run_of(node) {
                        self.checker.excuse(run);
                    }
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
                if let Some(Role::Primary(primary)) = self.role(node) {
                    let life = primary.life;
                    self.emit(node, run, life, &outputs);
                }
            }
            PrimaryAction::TakeSnapshot { generation } => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    primary.snapshot_wanted = Some(generation);
                }
            }
            PrimaryAction::SendSnapshot {
                connection,
                generation,
            } => {
                self.begin_sending(node, run, connection, generation);
            }
            PrimaryAction::AbortSnapshot { .. } => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    let begun = primary.sending.take().is_some();
                    primary.snapshot = None;
                    primary.snapshot_wanted = None;
                    if begun {
                        self.coverage.reached(Situation::SnapshotInterrupted);
                    }
                }
            }
            PrimaryAction::Ask(request) => self.ask(node, run, request),
            PrimaryAction::Announce => {}
            PrimaryAction::Resume => {
                self.coverage.reached(Situation::Resumed);
                if let Some(Role::Primary(primary)) = self.role(node) {
                    primary.resume();
                }
            }
            PrimaryAction::Throttle(share) => {
                if let Some(Role::Primary(primary)) = self.role(node) {
                    primary.share = share.into();

                    if share < FULL_SPEED {
                        self.coverage.reached(Situation::Slowed);
                    }
                }
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
            Message::Begin { generation, .. } => {
                let Some(Role::Primary(primary)) = self.role(node) else {
                    return;
                };
                let life = primary.life;
                let verdict = self.checker.begin_sent(life, *generation, run);
                self.check(verdict);
                self.delicate();
            }
            Message::Refuse(Refusal::NotNow) => self.coverage.reached(Situation::RefusedNotNow),
            Message::Records { .. } if std::mem::take(&mut self.nodes[node].lose_message) => {
                return self.note(|| format!("node {node}: a message is lost: {message:?}"));
            }
            Message::Welcome { .. } | Message::SnapshotEnd { .. } => self.delicate(),
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
        if matches!(event, Event::Suspected { .. }) {
            self.suspected(node, &event);
        }
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let life = primary.life;
        let status = primary.core.status();
        match event {
            Event::Claimed { .. } => self.coverage.reached(Situation::PrimaryWentOnAlone),
            Event::LostClaim { .. } => self.coverage.reached(Situation::PrimaryLostClaim),
            Event::Protected { .. } if self.checker.failovers(life) > 0 => {
                self.coverage.reached(Situation::Reprotected);
            }
            Event::Suspected { .. } if self.checker.newest_begin_was_read(life) == Some(false) => {
                self.coverage.reached(Situation::BeginLost);
            }
            Event::JoinFailed { .. } => self.coverage.reached(Situation::JoinInterruptedLate),
            Event::ArbiterUnanswered { .. } if status.held_outputs > 0 => {
                self.coverage.reached(Situation::OutputsWaitedForArbiter);
            }
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
                self.coverage.reached(Situation::OrderlyEnd);
            }
            PrimaryStop::LostClaim { .. } => {
                if self.nodes[node].slept.is_some() {
                    self.coverage.reached(Situation::FrozenPrimaryWoke);
                }
            }
        }
        self.leave(node, run);
    }

    /// A primary says that its guest has ended: all that the guest said must be out.
    fn guest_ended(&mut self, node: usize) {
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let (life, said) = (primary.life, primary.guest.visible_outputs());
        let seen = self.checker.outputs_seen(life) as u64;
        if seen != said {
            self.violated(format!(
                "the guest ended, {said} outputs, {seen} of them seen"
            ));
        }
        self.finished |= life == self.life;
    }

    fn leave(&mut self, node: usize, run: u64) {
        self.end_connections(run, true);
        self.nodes[node].process = None;
        self.forget_sleep(node);
        self.nodes[node].start_at = self.now + self.random.between(10, 500) * MS;
    }

    fn backup_wants(&mut self, node: usize, run: u64, action: BackupAction<StubOutput>) {
        match action {
            BackupAction::Connect => self.dial(node, run),
            BackupAction::Send {
                connection,
                message,
            } => {
                if matches!(message, Message::Ready { .. }) {
                    self.delicate();
                }
                self.send(run, connection, &message);
            }
            BackupAction::Close(connection) => self.close(connection, run),
            BackupAction::Store(chunk) => {
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.stored.extend_from_slice(&chunk.bytes);
                }
            }
            BackupAction::Restore { generation, .. } => {
                self.begin_restore(node, run, generation);
            }
            BackupAction::Replay {
                generation,
                records,
            } => {
                self.backup_replays(node, generation, records);
            }
            BackupAction::Discard { .. } => {
                if let Some(Role::Backup(backup)) = self.role(node) {
                    backup.discard();
                }
            }
            BackupAction::KeepEvidence { .. } => {}
            BackupAction::Announce => self.nodes[node].announced = Some(run),
            BackupAction::Ask(request) => {
                self.delicate();
                self.ask(node, run, request);
            }
            BackupAction::GoLive {
                life,
                generation,
                outputs,
            } => {
                self.go_live(node, run, life, generation, &outputs);
            }
            BackupAction::Report(event) => self.backup_reports(node, run, event),
            BackupAction::Stop(why) => {
                self.note(|| format!("node {node}: backup {run} stops: {why:?}"));
                match &why {
                    BackupStop::LostClaim { .. } => {
                        self.coverage.reached(Situation::BackupLostClaim);
                    }
                    BackupStop::Diverged(_) | BackupStop::DiskFailed(_) => {
                        self.checker.excuse(run);
                    }
                    BackupStop::Finished => {}
                    BackupStop::Refused(_) | BackupStop::Unusable(_) | BackupStop::Left => {
                        self.violated(format!("a good backup stops: {why:?}"));
                    }
                }
                self.leave(node, run);
            }
        }
    }

    /// Whoever is asked to take over dies, sometimes, before it knows.
    fn strike_heir(&mut self, heir: usize) {
        if self.random.percent(40) {
            self.at(0, None, What::Fault(Fault::Kill(heir)));
        }
    }

    fn begin_restore(&mut self, node: usize, run: u64, generation: u64) {
        let time = self.scenario.restore_time;
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let attempt = backup.attempt;
        if self.scenario.restore_blocks {
            if time > 1_000 * MS {
                self.coverage.reached(Situation::BlockingRestore);
            }
            self.freeze(node, time);
        }
        for quarters in 1..4 {
            let what = What::Restoring(generation, attempt, quarters);
            self.at(time * quarters / 4, Some((node, run)), what);
        }
        self.at(time, Some((node, run)), What::Restored(generation, attempt));
    }

    /// A part of the snapshot is restored.
    pub(crate) fn restoring(&mut self, node: usize, generation: u64, attempt: u64, quarters: u64) {
        let now = self.clock(node);
        if let Some(Role::Backup(backup)) = self.role(node)
            && backup.attempt == attempt
            && backup.replayer.is_none()
        {
            backup.core.restoring(now, generation, quarters, 4);
        }
        self.settle(node);
    }

    fn backup_replays(
        &mut self,
        node: usize,
        generation: u64,
        records: Vec<replication::record::Record>,
    ) {
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let markers = records.iter().filter_map(|record| match record.body {
            RecordBody::Marker { visible_outputs } => Some(visible_outputs),
            _ => None,
        });
        let marker = markers.max();
        backup.replay(records);
        if let (Some(life), Some(marker)) = (backup.life, marker) {
            self.checker.marker_received(life, generation, marker);
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
        let life = backup.life;
        match event {
            Event::Joining { generation, .. } => backup.generation = generation,
            Event::Protected { generation } => {
                if let Some(life) = life {
                    self.checker.begin_read(life, generation, run);
                }
            }
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
                why: Suspicion::HandedOver,
                ..
            } => self.coverage.reached(Situation::HandedOver),
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
        life: replication::message::LifeId,
        generation: u64,
        outputs: &[StubOutput],
    ) {
        let who = self.emitter(node, run);
        let now = self.now;
        let verdict = self
            .checker
            .goes_live(now, life, generation, who, &self.arbiter);
        self.check(verdict);
        if self.nodes[node].announced != Some(run) {
            self.violated(format!("process {run} goes live and does not say where"));
        }
        if self.checker.failovers(life) > 1 {
            self.coverage.reached(Situation::RepeatedFailover);
        }
        let mutations = self.options.mutations();
        let config = self
            .scenario
            .config(&crate::checker::node_name(node), run, mutations);
        let clock = self.clock(node);
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let Some(replayer) = backup.replayer.take() else {
            return self.violated("live without a machine".to_owned());
        };
        if backup.poisoned {
            // It differs, nobody has noticed yet, and now nobody can: two faults at once. What the
            // outside sees from here on proves nothing.
            return self.give_up();
        }
        let mut guest = replayer.into_guest();
        guest.disk_slowness = 0;
        guest.disk_fails = false;
        guest.disk_lies = false;
        let (count, visible) = (guest.instruction_count(), guest.visible_outputs());
        let core = Primary::new(clock, config, life, generation, count, visible);
        // It may have slept as a backup: what it holds now it holds by the arbiter's key.
        self.nodes[node].slept = None;
        self.emit(node, run, life, outputs);
        if let Some(process) = &mut self.nodes[node].process {
            process.role = Role::Primary(Box::new(PrimaryProcess::new(core, life, guest)));
            process.tick_at = u64::MAX;
            process.loop_at = u64::MAX;
        }
        self.delicate();
    }

    fn begin_sending(&mut self, node: usize, run: u64, connection: ConnectionId, generation: u64) {
        let pieces = self.scenario.chunks.max(1) as usize;
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let Some((_, bytes)) = primary.snapshot.take_if(|(g, _)| *g == generation) else {
            return;
        };
        let left: std::collections::VecDeque<Vec<u8>> = bytes
            .chunks(bytes.len().div_ceil(pieces).max(1))
            .map(<[u8]>::to_vec)
            .collect();
        let chunks = left.len() as u64;
        primary.sending = Some(Sending {
            generation,
            connection,
            left,
            chunks,
        });
        self.at(
            self.scenario.chunk_time,
            Some((node, run)),
            What::Chunk(generation),
        );
    }

    pub(crate) fn send_chunk(&mut self, node: usize, generation: u64) {
        let now = self.clock(node);
        let Some(run) = self.run_of(node) else { return };
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let Some(sending) = primary
            .sending
            .as_mut()
            .filter(|s| s.generation == generation)
        else {
            return;
        };
        let (connection, chunks) = (sending.connection, sending.chunks);
        if let Some(bytes) = sending.left.pop_front() {
            let offset = 0;
            let part = SnapshotPart::Machine;
            let chunk = SnapshotChunk {
                generation,
                part,
                offset,
                bytes,
            };
            self.send(run, connection, &Message::Snapshot(chunk));
            self.at(
                self.scenario.chunk_time,
                Some((node, run)),
                What::Chunk(generation),
            );
        } else {
            primary.sending = None;
            primary.core.snapshot_sent(now, generation, chunks);
        }
        self.settle(node);
    }

    pub(crate) fn restored(&mut self, node: usize, generation: u64, attempt: u64) {
        let now = self.clock(node);
        let slowness = if self.scenario.disk_percent > 0 { 2 } else { 0 };
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        // What belongs to an attempt that has been given up comes too late.
        if backup.attempt == attempt {
            if self.scenario.restore_time > 2_000 * MS {
                self.coverage.reached(Situation::LongRestore);
            }
            let Some(Role::Backup(backup)) = self.role(node) else {
                return;
            };
            let result = backup.restore(slowness);
            backup.core.restored(now, generation, result);
        }
        self.settle(node);
    }

    fn ask(&mut self, node: usize, run: u64, request: ClaimRequest) {
        let (key, create) = match &request {
            ClaimRequest::Create { key, .. } => (key, true),
            ClaimRequest::ReadBack { key } => (key, false),
        };
        let generation = key.generation;
        let life = key.life.0 as u64;
        self.asked.insert((life << 32 | generation, run));
        let both = (life << 32 | generation, 0)..=(life << 32 | generation, u64::MAX);
        if create && self.asked.range(both).count() > 1 {
            self.coverage.reached(Situation::ClaimRace);
        }
        let soon = self.random.between(1, 4) * MS;
        let late = self.random.between(100, 3000) * MS;
        let mood = if self.nodes[node].arbiter_cut {
            Mood::Unreachable
        } else {
            self.mood
        };
        let lands = |world: &mut World, after: u64, answer: bool| {
            let request = request.clone();
            world.at(
                after,
                None,
                What::Lands {
                    node,
                    run,
                    generation,
                    request,
                    answer,
                },
            );
        };
        let gives_up = match mood {
            Mood::Well => {
                lands(self, soon, true);
                return;
            }
            Mood::Slow => {
                lands(self, late, true);
                return;
            }
            Mood::ReadOnly if !create => {
                lands(self, soon, true);
                return;
            }
            Mood::ReadOnly => "read-only",
            Mood::Unreachable => "unreachable",
            Mood::AnswersLost => {
                lands(self, soon, false);
                self.coverage.reached(Situation::ArbiterAnswerLost);
                "no answer"
            }
            Mood::LandsLate => {
                lands(self, 300 * MS + late, false);
                self.coverage.reached(Situation::ArbiterLandedLate);
                "no answer yet"
            }
        };
        let outcome = ClaimOutcome::Unknown(gives_up.to_owned());
        self.at(
            250 * MS,
            Some((node, run)),
            What::Answer(generation, outcome),
        );
    }

    pub(crate) fn arbiter_answers(&mut self, node: usize, generation: u64, outcome: &ClaimOutcome) {
        let now = self.clock(node);
        let mine = self
            .run_of(node)
            .map(|run| crate::checker::claim_content(node, run));
        match outcome {
            ClaimOutcome::HeldBy(content) if Some(content) == mine.as_ref() => {
                self.coverage.reached(Situation::WonByReadBack);
            }
            ClaimOutcome::Absent => self.coverage.reached(Situation::AskedAgain),
            _ => {}
        }
        match self.role(node) {
            Some(Role::Primary(primary)) => {
                primary.core.arbiter_answered(now, generation, outcome);
            }
            Some(Role::Backup(backup)) => backup.core.arbiter_answered(now, generation, outcome),
            None => {}
        }
        self.settle(node);
    }
}
