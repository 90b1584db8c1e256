//! One seed: hosts on which a boot unit starts the replica again and again, what befalls them, and the
//! verdict.

use super::caught_up::Behind;
use super::control::{Asking, Conversation};
use super::differing::Rounds;
use super::faults::Loss;
use super::files::DiskMood;
use super::machine;
use super::network::Network;
use super::node::{Directory, Node, Site, files, storage};
use super::observer::Observer;
use super::shared::{ProcessId, Shared, State};
use super::unable::{Asked, Trials};
use super::{Kind, Options, Report};
use crate::arbiter::Mood;
use crate::random::Random;
use crate::world::Violation;
use replica::control::{Button, Request};
use replica::packing::Compression;
use replica::vcpu::CheckpointOptions;
use replication::mutation::Mutations;
use replication::record::InstructionCount;
use replication::succession::Durability;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000 * MS;
/// How long faults go on.
const FAULTS_NS: u64 = 10 * SECOND;
/// When they end.
const CALM_NS: u64 = 4 * SECOND + FAULTS_NS;
/// Whoever is asked to end hands its machine over or leaves within this time: ten seconds, and what it takes then.
const ENDS_WITHIN_NS: u64 = 12 * SECOND;
/// How long everything may take to be well again.
const PATIENCE_NS: u64 = 25 * SECOND;
/// How long it is watched whether it stays so; and where the machine is paused, because digests are rarer
/// than this.
const STILL_NS: u64 = 600 * MS;
const STILL_PAUSED_NS: u64 = 12 * SECOND;
const RARE_DIGESTS: Duration = Duration::from_secs(2);
/// A thread computes at most so long before it waits.
const STEP_US: u64 = 10;

/// What the world does next.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// The boot unit of a node.
    Start(usize),
    /// A client asks.
    Request,
    /// Something goes wrong.
    Fault,
    /// A kill at a delicate moment.
    Kill(usize, Loss),
    /// The disk of a node is well again.
    DiskWell(usize),
    /// Somebody lets the machine go on, wherever it is.
    Resume,
    /// A person says that a host is off.
    SayOff(Asking),
    /// It is not, any more.
    NotOff(usize),
    /// A person begins another life at a node.
    NewLife(usize),
    /// Something befalls one of two networks.
    TroubleLink,
    /// The connections in one that is dead end.
    ResetNetwork(usize),
    /// Nothing goes wrong any more.
    Calm,
    /// Whether all is well by now.
    Look,
}

/// The world of a seed.
pub struct World {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: Directory,
    pub(super) site: Site,
    pub(super) mutations: Mutations,
    pub(super) random: Random,
    agenda: BTreeMap<(u64, u64), What>,
    next: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) next_process: u64,
    pub(super) conversations: Vec<Conversation>,
    pub(super) is_calm: bool,
    /// All is well since the calm, and nothing befalls anybody: until when, and the keys by then.
    still: Option<(u64, u64)>,
    /// Since when all has had time to be well: the calm, or the last thing that was done in calm.
    patient_since_ns: u64,
    /// All were in one generation since then: from there on whoever joined last has the time to execute what it lacks.
    was_well: bool,
    /// What backups have to execute before all is well, since there were so many keys.
    goals: Option<(u64, BTreeMap<ProcessId, InstructionCount>)>,
    /// Whether the machine was sent to another host in calm, in worlds for that.
    is_sent_over: bool,
    /// The first request that was made in calm.
    calm_request: u64,
    next_request: u64,
    /// When all was well after the calm.
    well_at_ns: u64,
    keys: u64,
    asked_for: u64,
    /// Pieces of checkpoints that were written when that was looked at last.
    pieces: u64,
    /// Writes to a shared disk that were begun by then.
    writes: u64,
    /// Who begins a life for a person now.
    pub(super) begins_life: Option<ProcessId>,
    /// Whether an odd machine was given up, in calm.
    pub(super) rounds: Rounds,
    /// When all hosts have links in both networks, in calm.
    pub(super) links_at_ns: Option<u64>,
    /// Whether a host that could not go on was handed the machine, in calm.
    pub(super) trials: Trials,
}

impl Site {
    fn choose(random: &mut Random, options: &Options) -> Site {
        let hosts = random.pick(&[2, 2, 3]);
        let kind = options.kind;
        let journals = kind == Kind::Journals;
        let usual = match kind {
            Kind::Journals => 2,
            Kind::Differs => 3,
            _ => hosts,
        };
        let transfers_state = kind == Kind::StateTransfer;
        Site {
            compression: Compression::Auto,
            checkpoints: transfers_state.then(|| CheckpointOptions {
                interval_ns: random.pick(&[10, 25, 25, 100]) * MS,
                // The guest's memory is small: so are checkpoints, and all of a large one happens to them.
                pages_at_once: random.pick(&[2, 4, 512]),
                piece_bytes: random.pick(&[1, 1, 10_000]),
                written_bytes: random.pick(&[1, 2_000, 1 << 20]),
            }),
            hosts: options.hosts.unwrap_or(usual),
            networks: if kind == Kind::Links { 2 } else { 1 },
            has_disk: random.percent(60) || matches!(kind, Kind::Disks | Kind::SharedDisk),
            shares_disk: kind == Kind::SharedDisk,
            disks_suffer: kind == Kind::Disks,
            journals,
            lives: kind == Kind::Lives,
            differs: kind == Kind::Differs,
            first_is_told_of_none: kind == Kind::Untold,
            unable: kind == Kind::Unable,
            moves: kind == Kind::Moving,
            recover_within: match journals {
                // A snapshot a second, now and then, or once.
                true => Duration::from_millis(random.pick(&[5, 5, 50, 10_000])),
                false => Duration::ZERO,
            },
            durability: match random.pick(&[Durability::Primary, Durability::Both]) {
                Durability::Both if !transfers_state && kind != Kind::SharedDisk => {
                    Durability::Both
                }
                _ => Durability::Primary,
            },
            digest_interval: Duration::from_millis(random.pick(&[100, 500, 500, 3_000])),
            restore_ms: random.pick(&[0, 5, 300, 1_500]),
        }
    }
}

impl World {
    /// At the beginning.
    pub fn new(seed: u64, options: &Options) -> std::io::Result<World> {
        let mut random = Random::new(seed);
        let network = Network::new(random.pick(&[50_000, 200_000, MS, 5 * MS]));
        let threads = Random::new(random.bits());
        let mut site = Site::choose(&mut random, options);
        if seed % 4 == 3 {
            site.compression = Compression::Always;
        }
        let directory = Directory::make(seed)?;
        let observer = Observer::new(options.trace, site.hosts);
        let files = files(&site, &directory);
        let mut state = State::new(threads, network, files, observer);
        state.directory = directory.text();
        state.storage = storage(&site, &directory);
        let node = |random: &mut Random| Node {
            process: None,
            arbiter: 0,
            is_kept_off: false,
            ahead_ns: random.between(0, 1_000) * SECOND,
            slowness: random.pick(&[1, 1, 4, 25]),
        };
        let nodes: Vec<Node> = (0..site.hosts).map(|_| node(&mut random)).collect();
        let mut world = World {
            shared: Shared::new(state),
            directory,
            site,
            mutations: options
                .mutation
                .map_or_else(Mutations::default, Mutations::only),
            random,
            agenda: BTreeMap::new(),
            next: 0,
            nodes,
            next_process: 1,
            conversations: Vec::new(),
            is_calm: false,
            still: None,
            patient_since_ns: CALM_NS,
            was_well: false,
            goals: None,
            is_sent_over: false,
            calm_request: u64::MAX,
            next_request: 1,
            well_at_ns: 0,
            keys: 0,
            asked_for: 0,
            pieces: 0,
            writes: 0,
            begins_life: None,
            rounds: Rounds::default(),
            links_at_ns: None,
            trials: Trials::default(),
        };
        world.note(|text| {
            let _ = write!(text, "{site:?}");
        });
        for node in 0..site.hosts {
            let after_ns = world.random.between(0, 500) * MS;
            world.after(after_ns, What::Start(node));
        }
        world.after(SECOND, What::Request);
        world.after(3 * SECOND, What::Fault);
        world.after(3 * SECOND + FAULTS_NS, What::Calm);
        Ok(world)
    }

    pub(super) fn after(&mut self, after_ns: u64, what: What) {
        let at_ns = self.shared.lock().now_ns + after_ns;
        self.agenda.insert((at_ns, self.next), what);
        self.next += 1;
    }

    pub(super) fn note(&self, what: impl FnOnce(&mut String)) {
        self.shared.lock().note(what);
    }

    /// Lives to the end, and judges.
    pub fn run(mut self) -> (Result<(), Violation>, Report) {
        let verdict = loop {
            if let Some(what) = self.shared.lock().observer.violation.clone() {
                break Err(Violation::Safety(what));
            }
            match self.step() {
                None => {}
                Some(verdict) => break verdict,
            }
        };
        for node in &self.nodes {
            if let Some(process) = node.process {
                self.shared.kill(process, false);
            }
        }
        let mut state = self.shared.lock();
        let report = Report {
            counts: state.observer.counts.clone(),
            duration_ns: state.now_ns,
            recovery_ns: self.well_at_ns.saturating_sub(CALM_NS),
            fingerprint: state.observer.fingerprint,
            trace: state.observer.take_trace(),
        };
        (verdict, report)
    }

    /// Lets one thread run until it waits, or time go on to the next that happens.
    fn step(&mut self) -> Option<Result<(), Violation>> {
        let next = {
            let mut state = self.shared.lock();
            state.wake_due();
            state.deliver();
            state.land_flights();
            let ready = state.ready();
            let on_agenda = self.agenda.first_key_value();
            let on_agenda = on_agenda.map(|((at_ns, _), _)| *at_ns);
            if on_agenda.is_some_and(|at_ns| at_ns <= state.now_ns) {
                None
            } else if ready.is_empty() {
                let deadlines = [
                    state.next_deadline(),
                    state.network.next_deadline(),
                    state.storage.next_deadline(),
                    on_agenda,
                ];
                let at_ns = deadlines.into_iter().flatten().min()?;
                state.now_ns = state.now_ns.max(at_ns);
                return None;
            } else {
                state.now_ns += self.random.between(1, STEP_US) * 1_000;
                Some(self.random.pick(&ready))
            }
        };
        match next {
            Some(thread) => {
                self.shared.resume(thread);
                self.after_thread();
                None
            }
            None => {
                let (_, what) = self.agenda.pop_first()?;
                self.hear();
                self.happens(what)
            }
        }
    }

    /// A process that has ended leaves nothing behind; a key is a delicate moment.
    fn after_thread(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(id) = self.nodes[node].process else {
                continue;
            };
            let ended = self.shared.lock().process(id).ended.clone();
            if let Some(ended) = ended {
                self.note(|text| {
                    let _ = write!(text, "node {node}: process {} ended: {ended}", id.0);
                });
                self.shared.kill(id, false);
                self.nodes[node].process = None;
                let after_ns = self.random.between(50, 1_000) * MS;
                self.after(after_ns, What::Start(node));
            }
        }
        self.delicate();
    }

    /// Something may just have happened after which a loss tells most.
    fn delicate(&mut self) {
        let (keys, asked_for, pieces) = {
            let observer = &self.shared.lock().observer;
            (observer.keys, observer.asked_for, observer.pieces)
        };
        self.cut_checkpoint(pieces);
        self.stop_in_a_write();
        if asked_for != std::mem::replace(&mut self.asked_for, asked_for)
            && !self.is_calm
            && self.random.percent(10)
        {
            let node = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
            let after_ns = self.random.between(0, 150_000) * 1_000;
            self.after(after_ns, What::Kill(node, Loss::Process));
        }
        if keys != std::mem::replace(&mut self.keys, keys)
            && !self.is_calm
            && self.random.percent(15)
        {
            let node = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
            let after_ns = self.random.between(0, 20_000) * 1_000;
            let loss = self
                .random
                .pick(&[Loss::Process, Loss::Process, Loss::Power]);
            self.after(after_ns, What::Kill(node, loss));
        }
    }

    /// A write to a shared disk is under way: now and then whoever made it is stopped, or lost, before it is there.
    fn stop_in_a_write(&mut self) {
        let begun = self.shared.lock().storage.begun;
        if begun == std::mem::replace(&mut self.writes, begun)
            || self.is_calm
            || !self.random.percent(2)
        {
            return;
        }
        let live = (0..self.nodes.len()).find(|node| self.is_live_on(*node));
        let Some(node) = live else { return };
        match self.random.between(0, 3) {
            0 | 1 => self.freeze(node),
            2 => self.kill(node, Loss::Process),
            _ => self.kill(node, Loss::Power),
        }
    }

    /// Pieces of a checkpoint were written: now and then their host loses power while they are under way.
    fn cut_checkpoint(&mut self, (pieces, from): (u64, Option<ProcessId>)) {
        if pieces == std::mem::replace(&mut self.pieces, pieces)
            || self.is_calm
            || !self.random.percent(1)
        {
            return;
        }
        let node = self.nodes.iter().position(|node| node.process == from);
        if let Some(node) = node {
            let after_ns = self.random.between(0, self.shared.lock().network.delay_ns);
            self.after(after_ns, What::Kill(node, Loss::Power));
        }
    }

    fn happens(&mut self, what: What) -> Option<Result<(), Violation>> {
        match what {
            What::Start(node) => self.start(node),
            What::Request => {
                let frame = machine::request_frame(self.next_request);
                self.next_request += 1;
                self.shared.lock().frame(&frame);
                let after_ns = self.random.between(5, 150) * MS;
                self.after(after_ns, What::Request);
            }
            What::Fault if self.is_calm => {}
            What::Fault => {
                self.fault();
                let after_ns = self.random.between(50, 2_500) * MS;
                self.after(after_ns, What::Fault);
            }
            What::Kill(node, loss) => {
                if !self.is_calm {
                    self.kill(node, loss);
                }
            }
            What::DiskWell(node) => self.disk_is(node, DiskMood::Well),
            What::Resume => self.resume(),
            What::SayOff(asking) => self.say_off(asking),
            What::NotOff(node) => {
                if self.not_off(node) {
                    self.start(node);
                } else {
                    self.after(500 * MS, What::NotOff(node));
                }
            }
            What::NewLife(node) => self.new_life(node),
            What::TroubleLink => self.trouble_link(),
            What::ResetNetwork(network) if self.links_at_ns.is_none() => {
                self.shared.lock().reset(network);
            }
            What::ResetNetwork(_) => {}
            What::Calm => self.calm(),
            What::Look => return self.look(),
        }
        None
    }

    fn resume(&mut self) {
        if self.still.is_some() {
            return;
        }
        for node in 0..self.nodes.len() {
            self.ask(node, Request::Press(Button::Resume), None);
        }
        // Whoever has it by then may have been busy with taking it over.
        if self.is_calm {
            self.after(SECOND, What::Resume);
        }
    }

    fn calm(&mut self) {
        self.is_calm = true;
        self.calm_request = self.next_request;
        let mut state = self.shared.lock();
        state.observer.moods.fill([Mood::Well; 2]);
        state.network.mend();
        state.flips.forget_due();
        state.network.delay_ns = state.network.delay_ns.min(5 * MS);
        for files in &mut state.files {
            files.mood = DiskMood::Well;
        }
        state.note(|text| text.push_str("all is calm"));
        drop(state);
        if self.site.moves {
            self.mend_configurations();
        }
        if self.site.networks > 1 {
            self.lose_a_network();
        }
        self.resume();
        self.after(100 * MS, What::Look);
        let now_ns = self.shared.lock().now_ns;
        self.agenda
            .insert((now_ns + PATIENCE_NS, u64::MAX), What::Look);
    }

    /// Whether it is only watched whether all stays well.
    pub(super) fn is_watched(&self) -> bool {
        self.still.is_some()
    }

    /// From here on nothing happens. Where digests are rare the machine stands still as well: then nothing
    /// else is heard of it.
    fn is_still(&mut self, now_ns: u64, keys: u64) {
        let is_paused = self.site.digest_interval > RARE_DIGESTS;
        let for_ns = if is_paused { STILL_PAUSED_NS } else { STILL_NS };
        let has_links = self.site.networks > 1;
        let for_ns = if has_links {
            self.troubles_ns()
        } else {
            for_ns
        };
        if has_links {
            self.after(0, What::TroubleLink);
        }
        self.still = Some((now_ns + for_ns, keys));
        if self.well_at_ns == 0 {
            self.well_at_ns = now_ns;
        }
        if is_paused {
            for node in 0..self.nodes.len() {
                self.ask(node, Request::Press(Button::Pause), None);
            }
        }
    }

    /// Processes that were asked to end and are there: when.
    fn asked_to_end(&self) -> Vec<(ProcessId, u64)> {
        let state = self.shared.lock();
        let processes = self.nodes.iter().filter_map(|node| node.process);
        let asked =
            processes.filter_map(|id| Some((id, state.processes.get(&id)?.asked_to_end_ns?)));
        asked.collect()
    }

    /// Whether one of them was asked a short while ago, and looks for whom to hand its machine to: what was asked for before
    /// the calm may come to pass in it.
    fn somebody_is_to_end(&self, now_ns: u64) -> bool {
        let asked = self.asked_to_end();
        asked
            .iter()
            .any(|(_, at_ns)| now_ns < at_ns + ENDS_WITHIN_NS)
    }

    /// One that follows another though it should have ended long ago, and never had the machine: then it may go on.
    fn stays(&self, now_ns: u64) -> Option<ProcessId> {
        let asked = self.asked_to_end();
        let state = self.shared.lock();
        let stays = |(id, at_ns): &&(ProcessId, u64)| {
            now_ns >= at_ns + ENDS_WITHIN_NS && !state.observer.holders.was_live(*id)
        };
        asked.iter().find(stays).map(|(id, _)| *id)
    }

    /// The backups that have not executed what they were sent when all were first seen to be well.
    fn behind(&mut self, processes: &[ProcessId], keys: u64) -> Vec<Behind> {
        let state = self.shared.lock();
        let progress = &state.observer.progress;
        let backups = processes
            .iter()
            .copied()
            .filter(|process| !state.observer.holders.is_live_now(*process));
        if !matches!(&self.goals, Some((since, _)) if *since == keys) {
            self.goals = Some((keys, progress.goals(&backups.collect::<Vec<_>>())));
        }
        let goals = self.goals.as_ref().map(|(_, goals)| goals);
        goals.map_or_else(Vec::new, |goals| progress.behind(goals))
    }

    fn look(&mut self) -> Option<Result<(), Violation>> {
        let processes: Option<Vec<ProcessId>> =
            self.nodes.iter().map(|node| node.process).collect();
        let state = self.shared.lock();
        let is_answered = state
            .observer
            .answered
            .range(self.calm_request..)
            .next()
            .is_some();
        let is_paired = processes
            .as_ref()
            .is_some_and(|all| state.observer.is_paired(all));
        // One whose disk failed is begun anew some time later, and is in force then: that is no change that befalls a set.
        let is_kept = !self.site.journals || state.observer.is_journaled();
        let (now_ns, keys) = (state.now_ns, state.observer.keys);
        drop(state);
        if let Some((until_ns, keys_before)) = self.still {
            if keys != keys_before {
                let what = match self.site.networks {
                    1 => "a set of hosts that nothing befell did not last",
                    _ => {
                        "a host lost its protection, and one of its networks was well all the time"
                    }
                };
                return Some(Err(Violation::Liveness(what.into())));
            }
            if now_ns >= until_ns {
                return Some(Ok(()));
            }
            self.after(100 * MS, What::Look);
            return None;
        }
        self.go_on_after_the_end();
        let looks_further = self.site.differs || self.site.unable;
        if looks_further && self.well_at_ns == 0 && is_paired && is_answered {
            self.well_at_ns = now_ns;
        }
        if self.site.differs && self.well_at_ns > 0 {
            match self.look_for_odd(now_ns, is_paired) {
                None => {
                    self.patient_since_ns = now_ns;
                    return None;
                }
                Some(Ok(())) => {}
                Some(failed @ Err(_)) => return Some(failed),
            }
        }
        if self.site.unable && self.well_at_ns > 0 {
            match self.look_for_unable(now_ns, is_paired) {
                None => {
                    self.patient_since_ns = now_ns;
                    return None;
                }
                Some(Ok(())) => {}
                Some(failed @ Err(_)) => return Some(failed),
            }
        }
        let is_well = is_paired
            && is_kept
            && is_answered
            && !self.somebody_awaits_a_generation()
            && !self.somebody_is_to_end(now_ns);
        if is_well && let Some(process) = self.stays(now_ns) {
            let what = format!(
                "process {} was asked to end, and follows another",
                process.0
            );
            return Some(Err(Violation::Liveness(what)));
        }
        if is_well && self.site.first_is_told_of_none && !self.is_sent_over {
            self.is_sent_over = true;
            self.patient_since_ns = now_ns;
            self.ask_live(Asked::SwitchOver);
            self.after(100 * MS, What::Look);
            return None;
        }
        if is_well && !self.was_well {
            self.was_well = true;
            self.patient_since_ns = now_ns;
        }
        let behind = match is_well {
            true => self.behind(&processes.unwrap_or_default(), keys),
            false => Vec::new(),
        };
        let has_caught_up = is_well && behind.is_empty();
        if has_caught_up && self.site.networks > 1 && now_ns < self.find_the_network(now_ns) {
            self.patient_since_ns = now_ns;
            self.after(100 * MS, What::Look);
            return None;
        }
        if has_caught_up {
            self.is_still(now_ns, keys);
            self.after(100 * MS, What::Look);
            return None;
        }
        if now_ns >= self.patient_since_ns + PATIENCE_NS {
            let what = format!(
                "{} s after the last fault, or the last that was asked for: a pair: {is_paired}, a journal in force: {is_kept}, a request answered: {is_answered}, all executed: {has_caught_up}{}",
                PATIENCE_NS / SECOND,
                behind
                    .iter()
                    .map(|it| format!(", {it}"))
                    .collect::<String>()
            );
            return Some(Err(Violation::Liveness(what)));
        }
        self.after(100 * MS, What::Look);
        None
    }
}
