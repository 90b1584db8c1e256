//! Starting, and coming back to it: what the program does around the cores.

use crate::checker::host;
use crate::coverage::Situation;
use crate::guest::StubGuest;
use crate::process::{BackupProcess, PrimaryProcess, Role};
use crate::scenario::MS;
use crate::world::{What, World};
use replication::ConnectionId;
use replication::backup::{Backup, BackupPhase};
use replication::message::Message;
use replication::primary::{Beginning, Primary, PrimaryPhase};
use replication::startup::{PeerAnswer, PeerId, Standing, StartupAction, Waiting, Word};
use replication::succession::{Entry, Kind, LifeNumber};
use std::time::Duration;

/// When a process that has no role any more looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookAgain {
    /// After a rest.
    Soon,
    /// Another has its machine.
    AtOnce,
    /// It is not taken for a while.
    Later,
}

impl World {
    pub(crate) fn startup_action(&mut self, node: usize) -> Option<StartupAction> {
        self.nodes[node].process.as_mut()?.startup.next_action()
    }

    pub(crate) fn startup_wants(&mut self, node: usize, run: u64, action: StartupAction) {
        match action {
            StartupAction::Ask(request) => {
                self.delicate();
                self.ask(node, run, request);
            }
            StartupAction::AskPeers => {
                for peer in 0..self.scenario.nodes as u8 - 1 {
                    let after = self.random.between(0, 20) * MS;
                    self.at(after, Some((node, run)), What::PeerAsked(PeerId(peer)));
                }
            }
            StartupAction::Wait(waiting) => {
                self.note(|| format!("node {node}: process {run} waits: {waiting}"));
                match waiting {
                    Waiting::RightDisk { .. } => {
                        self.coverage.reached(Situation::WaitedForRightDisk);
                    }
                    Waiting::Silent { .. } => self.coverage.reached(Situation::WaitedForSilentHost),
                    Waiting::ArbiterForgot { .. } => {
                        self.coverage.reached(Situation::ArbiterForgot);
                    }
                    _ => {}
                }
            }
            StartupAction::Join { peer, newest } => {
                let config = self.scenario.config(node, run, self.options.mutations());
                let held = self.nodes[node].held.take();
                let (held, machine) = held.unzip();
                let mut core = Backup::new(self.clock(node), config, (*newest).clone(), held);
                core.host_has(self.scenario.facts(node, self.now), Default::default());
                let mut backup = match machine {
                    Some(machine) => machine.goes_on(core, *newest),
                    None => BackupProcess::new(core, *newest),
                };
                backup.primary = self.others(node)[usize::from(peer.0)];
                self.become_role(node, Role::Backup(Box::new(backup)));
            }
            StartupAction::Start { won } => self.start_from_disk(node, run, *won),
            StartupAction::FenceJournal(_) => unreachable!("no host here has a journal"),
            StartupAction::Refuse(why) => {
                self.note(|| format!("node {node}: process {run} ends: {why}"));
                self.coverage.reached(Situation::RefusedAfterEnd);
                self.end_connections(run, true);
                self.nodes[node].process = None;
                self.forget_sleep(node);
                self.nodes[node].start_at = self.now + self.random.between(10, 500) * MS;
            }
        }
    }

    pub(crate) fn become_role(&mut self, node: usize, role: Role) {
        if let Some(process) = &mut self.nodes[node].process {
            process.role = role;
            process.tick_at = u64::MAX;
            process.loop_at = u64::MAX;
        }
    }

    pub(crate) fn become_primary(&mut self, node: usize, primary: PrimaryProcess) {
        self.become_role(node, Role::Primary(Box::new(primary)));
    }

    fn start_from_disk(&mut self, node: usize, run: u64, won: Entry) {
        self.nodes[node].held = None;
        self.note(|| format!("node {node}: process {run} starts the machine: {won}"));
        let is_first = won.kind == Kind::PowerOn && won.key.life == LifeNumber(1);
        if is_first && self.scenario.is_spare(node) {
            self.violated("a spare begins the first life".to_owned());
        }
        let verdict = self.checker.goes_live(self.now, run, &won, &self.arbiter);
        self.check(verdict);
        if self.nodes[node].disk.is_half_copied() {
            self.violated(format!("process {run} starts a half-copied disk"));
        }
        let disk = self.nodes[node].disk.content().to_vec();
        let verdict = self.checker.goes_on_from(won.key.life, &disk);
        self.check(verdict);
        self.note_start(node, &won);
        let seed = self.random.bits();
        let (work, spacing) = (self.scenario.work_per_input, self.scenario.output_spacing);
        let guest = StubGuest::new(seed, disk, work, spacing);
        let config = self.scenario.config(node, run, self.options.mutations());
        let beginning = Beginning::from_disk(won, &config);
        let mut core = Primary::new(self.clock(node), config, beginning);
        core.needs_speed(self.scenario.speed_needed());
        self.become_primary(node, PrimaryProcess::new(core, guest));
        self.delicate();
    }

    fn note_start(&mut self, node: usize, won: &Entry) {
        let before = replication::succession::Generation(won.key.generation.0.saturating_sub(1));
        let left = self.arbiter.entry(&won.key.of(before));
        let (Kind::ColdStart, Some(left)) = (won.kind, left) else {
            return;
        };
        let is_new_reign = won.membership().since == won.next_generation();
        let situation = match (left.membership().primary == host(node), is_new_reign) {
            (true, _) => Situation::StartedFromDisk,
            (false, true) => Situation::StartedFromMembersDisk,
            (false, false) => Situation::StartedFromDiskBefore,
        };
        self.coverage.reached(situation);
    }

    /// Whoever starts the machine from a disk must be sure that nobody holds the running one.
    pub(crate) fn nobody_else_holds_it(&mut self, run: u64, entry: &Entry) {
        if entry.kind != Kind::ColdStart {
            return;
        }
        let (life, left) = (entry.key.life, entry.key.generation);
        for node in 0..self.nodes.len() {
            let Some(process) = &self.nodes[node].process else {
                continue;
            };
            let holds = match &process.role {
                Role::Primary(primary) => {
                    let status = primary.core.status();
                    status.phase != PrimaryPhase::Stopped
                        && (status.life, status.generation) == (life, left)
                }
                Role::Backup(backup) => {
                    let status = backup.core.status();
                    matches!(
                        status.phase,
                        BackupPhase::Following | BackupPhase::Claiming | BackupPhase::Draining
                    ) && (status.life, status.generation) == (life, left)
                }
                Role::Starting => false,
            };
            if holds {
                let other = process.run;
                self.violated(format!(
                    "process {run} gives up the running machine that {other} holds: {entry}"
                ));
            }
        }
    }

    /// The machine is given up; the same process looks what it can be now.
    pub(crate) fn look_again(&mut self, node: usize, run: u64, why: LookAgain) {
        self.end_connections(run, true);
        self.hold_machine(node);
        self.nodes[node].joined_before = true;
        let worth = self.nodes[node].disk.worth();
        let now = self.clock(node);
        if let Some(process) = &mut self.nodes[node].process {
            match why {
                LookAgain::Soon => process.startup.again(now, worth),
                LookAgain::AtOnce => process.startup.superseded(now, worth),
                LookAgain::Later => {
                    let rest = Duration::from_secs(1);
                    process.startup.again_after(now, worth, rest);
                }
            }
        }
        self.become_role(node, Role::Starting);
    }

    /// A machine that a backup gives up may go on when a primary is found that has its log.
    fn hold_machine(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        if !matches!(process.role, Role::Backup(_)) {
            return;
        }
        if let Role::Backup(mut backup) = std::mem::replace(&mut process.role, Role::Starting)
            && let Some(held) = backup.core.take_held()
        {
            self.nodes[node].held = Some((held, *backup));
        }
    }

    /// After the end of a life a person begins the next, here or there.
    pub(crate) fn begin_new_life_perhaps(&mut self, node: usize) {
        let is_over = self
            .arbiter
            .newest()
            .is_some_and(|newest| newest.next.is_none());
        let now = self.clock(node);
        if is_over
            && self.random.percent(50)
            && let Some(process) = &mut self.nodes[node].process
        {
            let word = Word {
                new_life: true,
                ..Word::default()
            };
            process.startup.word(now, word);
        }
    }

    fn standing(&self, node: usize) -> Option<Standing> {
        let process = self.nodes[node].process.as_ref()?;
        Some(match &process.role {
            Role::Primary(primary) => primary.core.standing(),
            Role::Backup(backup) => backup.core.standing(self.nodes[node].disk.worth()),
            Role::Starting => process.startup.standing(),
        })
    }

    /// `node` asks another.
    pub(crate) fn peer_asked(&mut self, node: usize, run: u64, peer: PeerId) {
        let other = self.others(node)[usize::from(peer.0)];
        let links = &self.network.links;
        let open = !links[node][other].cut && !links[other][node].cut;
        let is_awake = self.nodes[other].frozen_since.is_none();
        let standing = self.standing(other).filter(|_| open && is_awake);
        let (answer, after) = match standing {
            Some(standing) => (PeerAnswer::Standing(standing), self.random.between(1, 40)),
            None => (PeerAnswer::Unreachable, self.random.between(1, 400)),
        };
        self.at(after * MS, Some((node, run)), What::PeerSaid(peer, answer));
    }

    pub(crate) fn peer_says(&mut self, node: usize, run: u64, peer: PeerId, answer: PeerAnswer) {
        self.note(|| format!("process {run} hears: {answer:?}"));
        let now = self.clock(node);
        if let Some(process) = &mut self.nodes[node].process {
            process.startup.peer_answered(now, peer, answer);
        }
        self.settle(node);
    }

    /// A Hello that did not find a primary.
    pub(crate) fn answer_standing(&mut self, node: usize, connection: ConnectionId) {
        let run = self.run_of(node);
        if let (Some(standing), Some(run)) = (self.standing(node), run) {
            self.send(run, connection, &Message::Standing(standing));
            self.close(connection, run);
        }
    }

    /// A primary that stands still has given everything to its core: it may say so.
    pub(crate) fn hand_over_if_still(&mut self, node: usize) {
        let now = self.clock(node);
        if let Some(Role::Primary(primary)) = self.role(node)
            && primary.stands_still
            && !primary.handed_over
            && primary.channel.next().is_none()
        {
            primary.handed_over = primary.core.hand_over(now);
            primary.stands_still = primary.handed_over;
        }
    }
}
