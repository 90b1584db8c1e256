//! Everything that the world does to the replicas.

use crate::arbiter::Mood;
use crate::coverage::Situation;
use crate::guest::StubInput;
use crate::network::Segment;
use crate::process::{DiskHealth, Role};
use crate::scenario::{MAX_DELAY, MS};
use crate::world::{What, World};
use replication::capacity::HostFacts;
use replication::configuration::{Build, Configuration};
use replication::message::{Button, Greeting, Message, PROTOCOL_VERSION};
use replication::succession::{Host, HostId, Kind, Outcome, Request, RunId, Writer};

/// A fault. Times are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// `kill -9`: the kernel ends its connections.
    Kill(usize),
    /// The host dies: nothing more is heard of it, until it is back.
    HostDies(usize, u64),
    /// `SIGSTOP`, and `SIGCONT` after a while.
    Freeze(usize, u64),
    /// The disk fails, or is full.
    DiskFails(usize, u64),
    /// The disk says that it wrote what it did not write.
    DiskLies(usize, u64),
    /// The event loop does nothing; the vcpu thread runs on.
    Stall(usize, u64),
    /// Nothing gets from one node to another.
    CutOneWay(usize, usize, u64),
    /// Nothing gets through between two nodes.
    CutBoth(usize, usize, u64),
    /// Nothing gets through between a node and any other.
    Isolated(usize, u64),
    /// The connections end, by themselves.
    Reset,
    /// A slow and unsteady link.
    SlowLink(u64),
    /// The arbiter changes.
    Arbiter(Mood, u64),
    /// A node cannot reach the arbiter.
    ArbiterCut(usize, u64),
    /// A bit flips in a backup's memory, or in that of the primary of two.
    Poison(usize),
    /// A message is lost within a connection.
    LoseMessage(usize),
    /// A bit flips on the wire.
    Damage(usize),
    /// Somebody connects as a dead peer would have.
    Ghost(usize),
    /// The backup's vcpu gets little time.
    SlowReplay(u64),
    /// A vcpu thread hangs; the event loop does not.
    HangVcpu(usize, u64),
    /// The guest is told to end.
    PowerOff,
    /// Somebody pauses the machine at one of the hosts, and resumes it after a while.
    Pause(usize, u64),
    /// `SIGTERM` to a primary: it hands over.
    HandOver,
    /// Somebody asks at the backups to have the machine.
    SwitchOver,
    /// Somebody asks for a snapshot and goes away.
    FickleGhost(usize),
    /// Both hosts lose power.
    AllDie(u64),
    /// A node's arbiter is not mounted: it sees an empty one.
    WrongArbiter(usize, u64),
    /// A person declares the life lost, though it is not.
    DeclareLost,
}

/// What ends after a while.
#[derive(Clone, Copy, Debug)]
pub enum Relief {
    /// A cut from a node to another.
    Link(usize, usize),
    /// Slow links.
    Links,
    /// The arbiter.
    Arbiter,
    /// A node's way to the arbiter.
    ArbiterCut(usize),
    /// A slow backup.
    Replay,
    /// A node's wrong arbiter.
    WrongArbiter(usize),
    /// A node's disk.
    Disk(usize),
    /// A paused machine.
    Paused,
}

impl World {
    /// A fault at random.
    pub fn random_fault(&mut self) -> Fault {
        let node = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        let other = self.another(node);
        let short = self.random.between(20, 400) * MS;
        let long = self.random.between(100, 2500) * MS;
        let mood = self.random.pick(&[
            Mood::Slow,
            Mood::Unreachable,
            Mood::AnswersLost,
            Mood::LandsLate,
            Mood::ReadOnly,
            Mood::Torn,
        ]);
        let fault = match self.random.between(0, 42) {
            0..=2 => Fault::Kill(node),
            3 | 4 => Fault::HostDies(node, long),
            5 | 6 => Fault::Freeze(node, short),
            7 | 8 => Fault::Freeze(node, long),
            9 => Fault::CutOneWay(node, other, short),
            10 => Fault::CutOneWay(node, other, long),
            11 => Fault::Isolated(node, short),
            12 => Fault::CutBoth(node, other, long),
            13 => Fault::Reset,
            14 => Fault::SlowLink(long),
            15 | 16 => Fault::Arbiter(mood, long),
            17 => Fault::ArbiterCut(node, long),
            18 | 19 => Fault::Poison(node),
            20 => Fault::LoseMessage(node),
            21 => Fault::Damage(node),
            22 => Fault::Ghost(node),
            23 => Fault::SlowReplay(long),
            24 => Fault::HangVcpu(node, long),
            25 => Fault::HandOver,
            26 => Fault::SwitchOver,
            27 | 28 => Fault::AllDie(long),
            29 | 30 => Fault::WrongArbiter(node, long),
            31 if self.random.percent(30) => Fault::DeclareLost,
            32 | 33 => Fault::Stall(node, short),
            34 => Fault::Stall(node, long),
            35..=37 => Fault::DiskFails(node, long),
            38 => Fault::DiskLies(node, short),
            39 => Fault::FickleGhost(node),
            40 | 41 => Fault::Arbiter(Mood::Torn, long),
            _ if self.scenario.power_off => Fault::PowerOff,
            _ => Fault::Pause(node, 2 * long),
        };
        // An arbiter in a mood is met only by those who ask it.
        let is_torn = matches!(fault, Fault::Arbiter(Mood::Torn, _));
        if is_torn
            || matches!(fault, Fault::Arbiter(..) | Fault::ArbiterCut(..))
                && self.random.percent(80)
        {
            let after = self.random.between(0, 200) * MS;
            let second = self.random.pick(&[
                Fault::Kill(node),
                Fault::Reset,
                Fault::CutBoth(node, other, long),
            ]);
            // Whoever lost the race reads what the other is still writing.
            let second = if is_torn { Fault::Reset } else { second };
            self.at(after, None, What::Fault(second));
        }
        fault
    }

    /// Lets a fault strike.
    pub fn strike(&mut self, fault: Fault) {
        self.note(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Kill(node) => self.kill(node, true),
            Fault::HostDies(node, time) => {
                self.host_dies(node);
                self.nodes[node].start_at = self.now + time;
            }
            Fault::AllDie(time) => {
                for node in 0..self.nodes.len() {
                    self.host_dies(node);
                    let later = self.random.between(0, time);
                    self.nodes[node].start_at = self.now + later;
                }
            }
            Fault::HandOver => {
                for node in 0..self.nodes.len() {
                    self.ask_to_hand_over(node);
                }
            }
            Fault::SwitchOver => {
                for node in 0..self.nodes.len() {
                    let now = self.clock(node);
                    if let Some(Role::Backup(backup)) = self.role(node) {
                        backup.core.switch_over(now, 0);
                        self.settle(node);
                    }
                }
            }
            Fault::DeclareLost => self.declare_lost(),
            // A fresh host cannot know which arbiter is the right one.
            Fault::WrongArbiter(node, time) => {
                if self.nodes[node].disk.has_markers() {
                    self.nodes[node].wrong_arbiter = true;
                    self.at(time, None, What::Relief(Relief::WrongArbiter(node)));
                }
            }
            Fault::Freeze(node, time) => {
                self.freeze(node, time);
            }
            Fault::DiskFails(node, time) => {
                self.nodes[node].disk_health.fails = true;
                self.at(time, None, What::Relief(Relief::Disk(node)));
            }
            Fault::DiskLies(node, time) => {
                self.nodes[node].disk_health.lies = true;
                self.at(time, None, What::Relief(Relief::Disk(node)));
            }
            Fault::Stall(node, time) => {
                if self.freeze(node, time) {
                    self.nodes[node].is_stalled = true;
                    self.coverage.reached(Situation::EventLoopStalled);
                }
            }
            Fault::CutOneWay(from, to, time) => self.cut(from, to, time),
            Fault::CutBoth(one, other, time) => {
                self.cut(one, other, time);
                self.cut(other, one, time);
            }
            Fault::Isolated(node, time) => {
                for other in self.others(node) {
                    self.cut(node, other, time);
                    self.cut(other, node, time);
                }
            }
            Fault::Reset => self.reset_connections(),
            Fault::SlowLink(time) => {
                self.links_are_slow = true;
                for link in self.network.links.iter_mut().flatten() {
                    link.delay = 120 * MS;
                    link.jitter = 150 * MS;
                }
                self.at(time, None, What::Relief(Relief::Links));
            }
            Fault::Arbiter(mood, time) => {
                self.mood = mood;
                self.at(time, None, What::Relief(Relief::Arbiter));
            }
            Fault::ArbiterCut(node, time) => {
                self.nodes[node].arbiter_cut = true;
                self.at(time, None, What::Relief(Relief::ArbiterCut(node)));
            }
            Fault::Poison(node) => self.poison(node),
            Fault::LoseMessage(node) => self.nodes[node].lose_message = true,
            Fault::Damage(node) => self.nodes[node].damage = true,
            Fault::Ghost(node) => self.ghost(node, false),
            Fault::FickleGhost(node) => self.ghost(node, true),
            Fault::SlowReplay(time) => {
                self.replay_percent = 15;
                self.at(time, None, What::Relief(Relief::Replay));
            }
            Fault::HangVcpu(node, time) => self.nodes[node].vcpu_hangs_until = self.now + time,
            Fault::Pause(node, time) => {
                self.press(node, Button::Pause);
                self.at(time, None, What::Relief(Relief::Paused));
                // Whoever goes on finds it paused.
                if self.random.percent(50) {
                    let after = self.random.between(0, time);
                    self.at(after, None, What::Fault(Fault::Kill(node)));
                }
            }
            Fault::PowerOff => {
                for node in 0..self.nodes.len() {
                    if let Some(Role::Primary(primary)) = self.role(node) {
                        primary.inputs.push(StubInput::PowerOff);
                    }
                }
            }
        }
    }

    /// A fault ends.
    pub fn relieve(&mut self, relief: Relief) {
        match relief {
            Relief::Link(from, to) => {
                self.network.links[from][to].cut = false;
                self.pump_all();
            }
            Relief::Links => {
                self.links_are_slow = false;
                self.place_nodes();
            }
            Relief::Arbiter => self.mood = Mood::Well,
            Relief::ArbiterCut(node) => self.nodes[node].arbiter_cut = false,
            Relief::WrongArbiter(node) => self.nodes[node].wrong_arbiter = false,
            Relief::Disk(node) => self.nodes[node].disk_health = DiskHealth::default(),
            Relief::Paused => {
                for node in 0..self.nodes.len() {
                    self.press(node, Button::Resume);
                }
            }
            Relief::Replay => self.replay_percent = self.scenario.replay_percent,
        }
    }

    /// Faults end: everything works from here on.
    pub fn calm_down(&mut self) {
        self.note(|| "CALM".to_owned());
        for relief in [Relief::Links, Relief::Arbiter, Relief::Replay] {
            self.relieve(relief);
        }
        for node in 0..self.nodes.len() {
            for other in self.others(node) {
                self.relieve(Relief::Link(node, other));
            }
            self.relieve(Relief::ArbiterCut(node));
            self.relieve(Relief::WrongArbiter(node));
            self.relieve(Relief::Disk(node));
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].vcpu_hangs_until = 0;
            self.nodes[node].lose_message = false;
            self.nodes[node].damage = false;
            self.nodes[node].start_at = self.nodes[node].start_at.min(self.now + 500 * MS);
            if self.nodes[node].frozen_since.is_some() {
                self.thaw(node);
            }
        }
    }

    /// A person presses a button at a node: a backup passes it on.
    pub(crate) fn press(&mut self, node: usize, button: Button) {
        let now = self.clock(node);
        match self.role(node) {
            Some(Role::Primary(primary)) => primary.inputs.push(match button {
                Button::Pause => StubInput::Pause,
                Button::Power | Button::Reset | Button::Resume => StubInput::Resume,
            }),
            Some(Role::Backup(backup)) => {
                backup.core.press(now, button, 0);
            }
            Some(Role::Starting) | None => {}
        }
    }

    /// Begin is on its way from a node to another, which may never read it.
    pub(crate) fn strike_begin(&mut self, from: usize, to: usize) {
        if self.calm || !self.aim.percent(self.scenario.strike_percent) {
            return;
        }
        let time = self.aim.between(400, 2500) * MS;
        let fault = self.aim.pick(&[
            Fault::Kill(to),
            Fault::HostDies(to, time),
            Fault::Freeze(to, time),
            Fault::CutOneWay(from, to, time),
        ]);
        // At once: nothing is as fast as that.
        self.at(0, None, What::Fault(fault));
    }

    /// A primary is to let its backup take over.
    pub(crate) fn ask_to_hand_over(&mut self, node: usize) {
        // Asked again while it hands over, it still stands still.
        if let Some(Role::Primary(primary)) = self.role(node)
            && !primary.stands_still
        {
            primary.stands_still = primary.core.can_hand_over();
            // Whoever is to take over may die at any step of it.
            if primary.stands_still && self.random.percent(30) {
                let after = self.random.between(0, 15) * MS;
                let heir = self.another(node);
                self.at(after, None, What::Fault(Fault::Kill(heir)));
            }
        }
    }

    fn cut(&mut self, from: usize, to: usize, time: u64) {
        self.network.links[from][to].cut = true;
        self.at(time, None, What::Relief(Relief::Link(from, to)));
    }

    /// Ends the process of a node. `said`: its kernel ends its connections.
    pub fn kill(&mut self, node: usize, said: bool) {
        let Some(process) = self.nodes[node].process.take() else {
            return;
        };
        self.note(|| format!("node {node}: process {} is killed", process.run));
        if self.nodes[node].disk.is_half_copied() {
            self.coverage.reached(Situation::CopyCutOff);
        }
        self.end_connections(process.run, said);
        self.forget_sleep(node);
        self.nodes[node].start_at = self.now + self.random.between(10, 800) * MS;
    }

    fn declare_lost(&mut self) {
        let newest = self.arbiter.newest();
        let Some(newest) = newest.filter(|newest| newest.next.is_some()) else {
            return;
        };
        let writer = Writer {
            host: Host::new(HostId(98), "a person"),
            run: RunId(98),
        };
        let lost = newest.left(writer, Kind::Lost, newest.record, None);
        let request = Request::Create {
            key: lost.key.clone(),
            after: None,
            content: lost.content(),
        };
        let outcome = self.arbiter.carry_out(&request);
        assert!(outcome == Outcome::Created, "the newest key was the newest");
        self.coverage.reached(Situation::DeclaredLost);
    }

    /// The host loses power: nothing more is heard of it, and what was not synced is lost.
    fn host_dies(&mut self, node: usize) {
        self.kill(node, false);
        let kept = self.random.bits();
        if self.nodes[node].disk.lose_power(kept) {
            self.coverage.reached(Situation::UnsyncedWritesLost);
        }
    }

    /// Ends all connections of a process.
    pub fn end_connections(&mut self, run: u64, said: bool) {
        let mut ended = Vec::new();
        for (number, connection) in &mut self.network.connections {
            for side in 0..2 {
                let end = &mut connection.ends[side];
                if end.run == run && end.node.is_some() && end.open {
                    end.open = false;
                    // What a dead host had not yet sent never comes.
                    end.void = !said;
                    ended.push((replication::ConnectionId(*number), side));
                }
            }
        }
        for (connection, side) in ended {
            let later = if said {
                0
            } else {
                self.random.between(1000, 4000) * MS
            };
            self.at(later, None, What::SayEnd(connection, side));
        }
    }

    fn reset_connections(&mut self) {
        let open: Vec<_> = self.network.connections.keys().copied().collect();
        for number in open {
            for side in 0..2 {
                self.post(replication::ConnectionId(number), side, Segment::End);
            }
        }
    }

    /// Stops the node's process; not if it is stopped already, or there is none.
    pub fn freeze(&mut self, node: usize, time: u64) -> bool {
        if self.nodes[node].process.is_none() || self.nodes[node].frozen_since.is_some() {
            return false;
        }
        self.nodes[node].frozen_since = Some(self.now);
        self.at(time, None, What::Thaw(node));
        true
    }

    /// The way between the nodes as it is when nothing is wrong.
    pub fn place_nodes(&mut self) {
        for from in 0..self.nodes.len() {
            for link in &mut self.network.links[from] {
                link.delay = self.scenario.delays[from];
                link.jitter = self.scenario.link.jitter;
            }
        }
    }

    /// The way becomes a little longer or shorter, each direction for itself.
    pub fn drift(&mut self) {
        self.at(200 * MS, None, What::Drift);
        for from in 0..self.nodes.len() {
            let step = self.random.between(0, 40) * MS;
            let delay = self.scenario.delays[from] + step;
            self.scenario.delays[from] = delay.saturating_sub(20 * MS).min(MAX_DELAY);
        }
        if !self.links_are_slow {
            self.place_nodes();
        }
    }

    /// A late duplicate of a connection: it greets and is silent for a while.
    /// One that is `fickle` lets a snapshot be taken for it first.
    fn ghost(&mut self, node: usize, fickle: bool) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let Role::Primary(primary) = &process.role else {
            return;
        };
        let pairing = primary.core.status().pairing + 1;
        self.coverage.reached(Situation::GhostConnection);
        let connection = self.network.connect((None, 0), (node, process.run));
        let greeting = Greeting {
            build: Build::default(),
            semantics_version: 1,
            configuration: Configuration::new(7),
            machine: crate::checker::machine(),
            host: Host::new(HostId(99), "ghost"),
            run: RunId(0),
            listen_port: 0,
        };
        let hello = Message::Hello {
            protocol: PROTOCOL_VERSION,
            greeting,
            is_spare: false,
            stands_at: None,
            facts: HostFacts::default(),
            boot: Default::default(),
        };
        let accept = fickle.then_some(Message::Accept { pairing });
        for message in [hello].into_iter().chain(accept) {
            if let Some(bytes) = self.network.encode(connection, 0, &message) {
                self.post(connection, 0, Segment::Bytes(bytes));
            }
        }
        let time = self.random.between(0, if fickle { 2 } else { 1000 }) * MS;
        self.at(time, None, What::SayEnd(connection, 0));
    }
}
