//! A primary and any number of followers that do what they are told, each at its own speed.

use crate::pair::ms;
use crate::support::{Store, config, power_on};
use replication::ConnectionId;
use replication::capacity::HostFacts;
use replication::config::PairConfig;
use replication::event::Event;
use replication::lag::{FULL_SPEED, LagPolicy};
use replication::message::{Greeting, Message, PROTOCOL_VERSION, Refusal};
use replication::primary::{Beginning, Primary, PrimaryAction};
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use replication::succession::{Outcome, Request};
use std::time::Duration;

/// The primary's instructions in a millisecond.
const PER_MS: u64 = 300_000;
/// What [`Group::new`] sets.
pub const LIMIT: Duration = Duration::from_secs(2);

/// A backup that does what it is told, at its own speed.
pub struct Follower {
    pub connection: ConnectionId,
    /// Hundredths of the primary's speed.
    pub percent: u64,
    pub pairing: u64,
    pub held: RecordNumber,
    pub held_count: InstructionCount,
    pub executed: InstructionCount,
    pub echo: u64,
    pub has_begun: bool,
    pub said: Vec<Message>,
    pub is_closed: bool,
    /// Nothing gets through to it.
    pub is_deaf: bool,
    /// It replays without a difference, and says so when it is asked.
    pub agrees: bool,
}

impl Follower {
    pub fn new(connection: u64, percent: u64) -> Follower {
        Follower {
            connection: ConnectionId(connection),
            percent,
            pairing: 0,
            held: RecordNumber::BEFORE_ALL,
            held_count: InstructionCount(0),
            executed: InstructionCount(0),
            echo: 0,
            has_begun: false,
            said: Vec::new(),
            is_closed: false,
            is_deaf: false,
            agrees: false,
        }
    }

    pub fn ack(&self) -> Message {
        Message::Ack {
            pairing: self.pairing,
            record: self.held,
            executed: self.executed,
            echo: self.echo,
            durable: InstructionCount(0),
        }
    }

    /// What it answers.
    pub fn hears(&mut self, message: Message) -> Option<Message> {
        if self.is_deaf {
            return None;
        }
        self.said.push(message.clone());
        match message {
            Message::Welcome { pairing, .. } => {
                self.pairing = pairing;
                Some(Message::Accept { pairing })
            }
            Message::SnapshotTaken {
                pairing,
                record,
                count,
                ..
            } => {
                (self.held, self.held_count, self.executed) = (record, count, count);
                Some(Message::Ready { pairing })
            }
            Message::Joined { pairing, .. } => Some(Message::Confirmed { pairing }),
            Message::Begin { .. } => {
                (self.has_begun, self.echo) = (true, 1);
                Some(self.ack())
            }
            Message::Records { records, .. } => {
                self.held = self.held.plus(records.len() as u64);
                self.held_count = records.last().unwrap().count;
                Some(self.ack())
            }
            Message::Compare { pairing, record } if self.agrees => {
                Some(Message::Compared { pairing, record })
            }
            Message::Heartbeat { probe, .. } => {
                self.echo = self.echo.max(probe);
                Some(self.ack())
            }
            _ => None,
        }
    }
}

/// A primary and its followers.
pub struct Group {
    pub now: Duration,
    pub primary: Primary<u32>,
    pub followers: Vec<Follower>,
    pub store: Store,
    pub arbiter_answers: bool,
    pub asked: Vec<Request>,
    pub share: u64,
    pub stands_still: bool,
    pub count: InstructionCount,
    pub visible: u64,
    pub emitted: u64,
    pub events: Vec<Event>,
}

impl Group {
    pub fn new(policy: LagPolicy) -> Group {
        Group::wanting(3, policy)
    }

    pub fn wanting(members: usize, policy: LagPolicy) -> Group {
        Group::of_memory(members, policy, 0)
    }

    /// Of a machine that needs so many bytes of a host.
    pub fn of_memory(members: usize, policy: LagPolicy, machine_memory: u64) -> Group {
        let mut config: PairConfig = config("long");
        config.machine_memory = machine_memory;
        config.max_members = members;
        config.lag.policy = policy;
        config.lag.limit = LIMIT;
        let opened = power_on(&config);
        let mut group = Group {
            now: Duration::ZERO,
            store: Store::with(&opened),
            primary: Primary::new(
                Duration::ZERO,
                config.clone(),
                Beginning::from_disk(opened, &config),
            ),
            followers: Vec::new(),
            arbiter_answers: true,
            asked: Vec::new(),
            share: FULL_SPEED.into(),
            stands_still: false,
            count: InstructionCount(0),
            visible: 0,
            emitted: 0,
            events: Vec::new(),
        };
        // Its disk is settled.
        group.settle();
        group
    }

    /// With members of these speeds, in hundredths of the primary's.
    pub fn with(policy: LagPolicy, members: &[(&'static str, u64)]) -> Group {
        let mut group = Group::new(policy);
        for (node, percent) in members {
            group.joins(node, *percent);
            group.run(ms(100));
            let newest = group.followers.last().unwrap();
            assert!(newest.has_begun, "{node}");
        }
        group
    }

    pub fn joins(&mut self, node: &'static str, percent: u64) {
        self.greets(percent, false, config(node).greeting);
    }

    pub fn greets(&mut self, percent: u64, is_spare: bool, greeting: Greeting) {
        self.greets_with(percent, is_spare, greeting, HostFacts::default());
    }

    pub fn greets_with(
        &mut self,
        percent: u64,
        is_spare: bool,
        greeting: Greeting,
        facts: HostFacts,
    ) {
        let connection = self.followers.len() as u64 + 1;
        self.followers.push(Follower::new(connection, percent));
        let hello = Message::Hello {
            protocol: PROTOCOL_VERSION,
            greeting,
            is_spare,
            stands_at: None,
            facts,
            boot: Default::default(),
        };
        self.primary
            .received(self.now, ConnectionId(connection), hello);
        self.settle();
    }

    pub fn settle(&mut self) {
        while let Some(action) = self.primary.next_action() {
            match action {
                PrimaryAction::Send {
                    connection,
                    message,
                } => {
                    let mut followers = self.followers.iter_mut();
                    let follower = followers.find(|f| f.connection == connection).unwrap();
                    if let Some(answer) = follower.hears(message) {
                        self.primary.received(self.now, connection, answer);
                    }
                }
                PrimaryAction::Close(connection) => {
                    let mut followers = self.followers.iter_mut();
                    let follower = followers.find(|f| f.connection == connection).unwrap();
                    follower.is_closed = true;
                }
                PrimaryAction::TakeSnapshot { pairing, .. } => {
                    self.primary.snapshot_taken(self.now, pairing, self.count);
                }
                PrimaryAction::Settle(_) => self.primary.settled(self.now),
                PrimaryAction::Ask(request) => {
                    self.asked.push(request);
                    self.answer();
                }
                PrimaryAction::StandStill => {
                    self.stands_still = true;
                    assert!(self.primary.hand_over(self.now));
                }
                PrimaryAction::Resume => self.stands_still = false,
                PrimaryAction::Throttle(share) => self.share = share.into(),
                PrimaryAction::Emit(outputs) => self.emitted += outputs.len() as u64,
                PrimaryAction::Report(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    pub fn answer(&mut self) {
        if !self.arbiter_answers {
            return;
        }
        for request in std::mem::take(&mut self.asked) {
            let outcome: Outcome = self.store.carry_out(&request);
            self.primary.arbiter_answered(self.now, &request, &outcome);
        }
    }

    /// A guest that computes all the time and says something every ten milliseconds.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += ms(1);
            let step = self.now.as_millis() as u64;
            if !self.stands_still {
                let ran = PER_MS * self.share / u64::from(FULL_SPEED);
                self.count = self.count.plus(ran);
            }
            self.primary.progress(self.now, self.count);
            if !self.stands_still && step.is_multiple_of(10) {
                let body = RecordBody::Input(vec![1, 2, 3]);
                let count = self.count;
                self.primary.record(self.now, Record { count, body });
                self.visible += 1;
                self.primary.outputs(self.now, count, self.visible, vec![0]);
            }
            self.primary.tick(self.now);
            self.settle();
            for follower in &mut self.followers {
                let speed = PER_MS * follower.percent / 100;
                follower.executed = follower.held_count.min(follower.executed.plus(speed));
                let speaks = follower.has_begun && step.is_multiple_of(5);
                if speaks && !follower.is_closed {
                    let ack = follower.ack();
                    self.primary.received(self.now, follower.connection, ack);
                }
            }
            self.settle();
        }
    }

    pub fn let_go(&self) -> Vec<&str> {
        let events = self.events.iter();
        let let_go = events.filter_map(|event| match event {
            Event::LetsGo { host, .. } => Some(host.node()),
            _ => None,
        });
        let_go.collect()
    }

    pub fn suspects(&self) -> bool {
        let mut events = self.events.iter();
        events.any(|event| matches!(event, Event::Suspected { .. }))
    }

    pub fn refusals(&self) -> Vec<&Refusal> {
        let said = self.followers.last().unwrap().said.iter();
        let refusals = said.filter_map(|message| match message {
            Message::Refuse(refusal) => Some(refusal),
            _ => None,
        });
        refusals.collect()
    }
}
