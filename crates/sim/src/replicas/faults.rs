//! What befalls the hosts, and who it is done by.

use super::control::Asking;
use super::files::DiskMood;
use super::shared::{ProcessId, State};
use super::world::{MS, SECOND, What, World};
use crate::arbiter::Mood;
use replica::control::{Button, Request};
use std::fmt::Write as _;
use std::io::Write as _;

/// A process that sleeps longer than this notices it.
const NOTICED_NS: u64 = 250 * MS;
/// How long a person watches a host that waits before saying that another is off.
const WATCHED_NS: u64 = 1_500 * MS;

/// How a process ends that is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The kernel ends its connections, and keeps what it wrote.
    Process,
    /// Nobody hears of it, and what was not synced is lost.
    Power,
}

impl World {
    pub(super) fn any_node(&mut self) -> usize {
        self.random.between(0, self.nodes.len() as u64 - 1) as usize
    }

    fn another(&mut self, node: usize) -> usize {
        let further = self.random.between(1, self.nodes.len() as u64 - 1) as usize;
        (node + further) % self.nodes.len()
    }

    /// Something goes wrong.
    pub fn fault(&mut self) {
        let node = self.any_node();
        if self.site.moves && self.random.percent(35) {
            return self.move_arbiter();
        }
        if self.site.networks > 1 && self.random.percent(40) {
            return self.cut_network();
        }
        if self.site.lives && self.random.percent(20) {
            return self.end_life(node);
        }
        if self.site.differs && self.random.percent(30) {
            let _flip = self.flip(node);
            return;
        }
        if self.site.journals && self.random.percent(10) {
            return self.die_waiting();
        }
        if self.site.disks_suffer && self.random.percent(60) {
            return match self.random.percent(75) {
                true => self.trouble_disk(node),
                false => self.all_lose_power(),
            };
        }
        match self.random.between(0, 99) {
            0..18 => self.kill(node, Loss::Process),
            18..28 if self.site.journals => self.all_lose_power(),
            18..28 => self.kill(node, Loss::Power),
            28..33 => self.all_lose_power(),
            33..45 => self.freeze(node),
            45..60 => self.cut(node),
            60..72 => self.trouble_arbiter(node),
            72..78 => self.signal(node),
            78..84 if self.site.has_disk => self.trouble_disk(node),
            84..94 => self.somebody_asks(node),
            94..96 if !self.site.journals => self.give_up(node),
            _ => {
                let delay_ns = self.random.pick(&[50_000, MS, 20 * MS]);
                self.shared.lock().network.delay_ns = delay_ns;
                self.note(|text| {
                    let _ = write!(text, "the network takes {} us", delay_ns / 1_000);
                });
            }
        }
    }

    /// Ends what runs on a node; its boot unit starts it again.
    pub fn kill(&mut self, node: usize, loss: Loss) {
        let after_ns = self.random.between(20, 2_000) * MS;
        if self.end(node, loss) {
            self.after(after_ns, What::Start(node));
        }
    }

    /// Ends what runs on a node. A loss of power takes what was not synced, whether something runs or not.
    pub(super) fn end(&mut self, node: usize, loss: Loss) -> bool {
        let process = self.nodes[node].process.take();
        if let Some(id) = process {
            self.note(|text| {
                let how = match loss {
                    Loss::Process => "is killed",
                    Loss::Power => "loses power",
                };
                let _ = write!(text, "node {node}: process {} {how}", id.0);
            });
            self.shared.kill(id, loss == Loss::Power);
        }
        if let Some(id) = process
            && loss == Loss::Power
            && self.site.checkpoints.is_some()
        {
            // A checkpoint is large: its wire is cut in the middle of it.
            self.shared.lock().lose_what_is_under_way(id);
        }
        if loss == Loss::Power {
            let mut state = self.shared.lock();
            let State {
                files,
                storage,
                random,
                ..
            } = &mut *state;
            storage.files.lose_memory_of(node, random);
            if files[node].lose_power(random) {
                state.note(|text| {
                    let _ = write!(text, "node {node}: what was not synced is lost");
                });
                state.observer.count("unsynced lost");
            }
        }
        process.is_some()
    }

    fn all_lose_power(&mut self) {
        for node in 0..self.nodes.len() {
            self.end(node, Loss::Power);
            let after_ns = self.random.between(20, 3_000) * MS;
            self.after(after_ns, What::Start(node));
        }
    }

    /// The primary does not hear from the arbiter whether it goes on without the others, which stand still: what it says
    /// waits, while the journal goes on. In the midst of that it is killed.
    fn die_waiting(&mut self) {
        let Some(live) = (0..self.nodes.len()).find(|node| self.is_live_on(*node)) else {
            return;
        };
        for node in (0..self.nodes.len()).filter(|node| *node != live) {
            self.freeze(node);
        }
        self.shared.lock().observer.moods[live].fill(Mood::AnswersLost);
        self.note(|text| {
            let _ = write!(
                text,
                "the arbiter, for node {live}: {:?}",
                Mood::AnswersLost
            );
        });
        let after_ns = self.random.between(300, 2_500) * MS;
        self.after(after_ns, What::Kill(live, Loss::Process));
    }

    pub(super) fn freeze(&mut self, node: usize) {
        let for_ns = self.random.between(10, 3_000) * MS;
        if let Some(id) = self.nodes[node].process {
            let mut state = self.shared.lock();
            let now_ns = state.now_ns;
            if let Some(process) = state.processes.get_mut(&id)
                && process.frozen_until_ns < now_ns
            {
                process.frozen_until_ns = now_ns + for_ns;
                if for_ns > NOTICED_NS {
                    process.slept = Some((now_ns, now_ns + for_ns));
                }
                state.note(|text| {
                    let _ = write!(text, "node {node} is stopped for {} ms", for_ns / MS);
                });
            }
        }
    }

    /// Nothing gets from a node to another, or between it and all others.
    fn cut(&mut self, node: usize) {
        let for_ns = self.random.between(20, 3_000) * MS;
        let both = self.random.percent(60);
        let all = self.random.percent(60);
        let one = self.another(node);
        let nodes = self.nodes.len();
        let mut state = self.shared.lock();
        let until_ns = state.now_ns + for_ns;
        let others = (0..nodes).filter(|other| *other != node && (all || *other == one));
        for other in others {
            state.network.cut(node, other, until_ns);
            if both {
                state.network.cut(other, node, until_ns);
            }
        }
        state.note(|text| {
            let to = if all { "all".into() } else { one.to_string() };
            let ms = for_ns / MS;
            let _ = write!(
                text,
                "cut from {node} to {to} (both ways: {both}) for {ms} ms"
            );
        });
    }

    fn trouble_arbiter(&mut self, node: usize) {
        let mood = self.random.pick(&[
            Mood::Well,
            Mood::Well,
            Mood::Slow,
            Mood::Unreachable,
            Mood::AnswersLost,
            Mood::LandsLate,
            Mood::ReadOnly,
            Mood::Torn,
        ]);
        let only = self.site.moves.then(|| self.random.pick(&[0, 1]));
        let mut state = self.shared.lock();
        let ways = &mut state.observer.moods[node];
        match only {
            None => ways.fill(mood),
            Some(which) => ways[which] = mood,
        }
        state.note(|text| {
            let _ = write!(text, "the arbiter {only:?}, for node {node}: {mood:?}");
        });
    }

    fn trouble_disk(&mut self, node: usize) {
        let mood = self
            .random
            .pick(&[DiskMood::Slow, DiskMood::Failing, DiskMood::Full]);
        self.disk_is(node, mood);
        let after_ns = self.random.between(20, 2_000) * MS;
        self.after(after_ns, What::DiskWell(node));
    }

    /// The disk of a node behaves so from here on.
    pub fn disk_is(&mut self, node: usize, mood: DiskMood) {
        let mut state = self.shared.lock();
        state.files[node].mood = mood;
        state.note(|text| {
            let _ = write!(text, "the disk of node {node}: {mood:?}");
        });
    }

    /// SIGTERM.
    pub(super) fn signal(&mut self, node: usize) {
        if let Some(id) = self.nodes[node].process {
            self.note(|text| {
                let _ = write!(text, "node {node}: process {} is asked to end", id.0);
            });
            self.shared.lock().signal(id);
        }
    }

    /// A person wants something of the machine, by way of any host.
    fn somebody_asks(&mut self, node: usize) {
        match self.random.between(0, 9) {
            0..6 => self.ask(node, Request::SwitchOver { to: None }, None),
            6..9 => {
                self.ask(node, Request::Press(Button::Pause), None);
                let after_ns = self.random.between(100, 3_000) * MS;
                self.after(after_ns, What::Resume);
            }
            _ => self.ask(node, Request::Press(Button::Reset), None),
        }
    }

    /// A host stays off, and after a while a person says so to another one.
    fn give_up(&mut self, node: usize) {
        if self.nodes.iter().any(|node| node.is_kept_off) {
            return;
        }
        let others_as_well = self.random.percent(50);
        self.end(node, Loss::Power);
        self.nodes[node].is_kept_off = true;
        if others_as_well {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                self.end(other, Loss::Power);
                let after_ns = self.random.between(20, 500) * MS;
                self.after(after_ns, What::Start(other));
            }
        }
        let told = self.another(node);
        let asking = Asking { told, off: node };
        self.after(WATCHED_NS, What::SayOff(asking));
        self.after(4 * SECOND, What::NotOff(node));
    }
}

impl State {
    /// Asks a process to end.
    fn signal(&mut self, id: ProcessId) {
        let now_ns = self.now_ns;
        if let Some(process) = self.processes.get_mut(&id) {
            process.asked_to_end_ns.get_or_insert(now_ns);
            if let Some(signals) = process.signals.as_mut() {
                let _written = signals.write(b"t");
            }
        }
        let threads = self.of_process(id);
        self.unpark_all(threads);
    }
}
