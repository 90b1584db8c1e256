//! Two cores and a wire that loses nothing, and what they wanted of the program.

use crate::support::{Store, config, host, key, power_on};
use replication::ConnectionId;
use replication::backup::{Backup, BackupAction, BackupPhase};
use replication::config::PairConfig;
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::message::Message;
use replication::primary::{Beginning, Primary, PrimaryAction};
use replication::record::{InstructionCount, Record, RecordBody};
use replication::succession::{
    Entry, Generation, Kind, Membership, Outcome, RecordNumber, Request, RunId, Writer,
};
use std::time::Duration;

pub const WIRE: ConnectionId = ConnectionId(1);

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Both cores, and everything that they wanted of the program.
pub struct Pair {
    pub now: Duration,
    pub primary: Primary<u32>,
    pub backup: Backup<u32>,
    pub connected: bool,
    /// Every attempt to connect succeeds, not only the first.
    pub connects_again: bool,
    /// What gets through, and what the backup does by itself.
    pub to_backup: bool,
    pub to_primary: bool,
    pub replays: bool,
    /// The backup's disk is synced at once.
    pub settles: bool,
    /// The restore lasts until [`Pair::restored`] is called.
    pub restores_at_once: bool,
    /// The backup's process is stopped; what is sent to it waits.
    pub backup_is_stopped: bool,
    pub inbox: Vec<Message>,
    pub emitted: Vec<u32>,
    pub to_replay: Vec<Record>,
    pub replayed: RecordNumber,
    /// The pairing that its machine belongs to.
    pub pairing: u64,
    pub primary_did: Vec<PrimaryAction<u32>>,
    pub backup_did: Vec<BackupAction<u32>>,
    pub wire_bytes: usize,
    /// The arbiter, and whether it answers by itself.
    pub store: Store,
    pub answers: bool,
    /// Another one for the backup.
    pub split: bool,
}

impl Pair {
    pub fn new(primary: PairConfig, backup: PairConfig) -> Pair {
        let opened = power_on(&primary);
        let store = Store::with(&opened);
        let beginning = Beginning::from_disk(opened.clone(), &primary);
        Pair {
            now: Duration::ZERO,
            primary: Primary::new(Duration::ZERO, primary, beginning),
            backup: Backup::new(Duration::ZERO, backup, opened, None),
            store,
            answers: true,
            split: false,
            connected: false,
            connects_again: false,
            to_backup: true,
            to_primary: true,
            replays: true,
            settles: true,
            restores_at_once: true,
            backup_is_stopped: false,
            inbox: Vec::new(),
            emitted: Vec::new(),
            to_replay: Vec::new(),
            replayed: RecordNumber::BEFORE_ALL,
            pairing: 1,
            primary_did: Vec::new(),
            backup_did: Vec::new(),
            wire_bytes: 0,
        }
    }

    /// A protected pair of pairing 1, in generation 2. From here on the arbiter answers when the
    /// test says so.
    pub fn protected() -> Pair {
        let mut pair = Pair::new(config("long"), config("b"));
        pair.settle();
        pair.run(ms(100));
        assert!(pair.primary.status().protected);
        assert_eq!(pair.primary.status().generation, Generation(2));
        assert_eq!(pair.backup.status().phase, BackupPhase::Following);
        pair.answers = false;
        pair.primary_did.clear();
        pair.backup_did.clear();
        pair
    }

    /// What the store does. Another one than the primary's has none of its keys.
    pub fn carry_out(&mut self, request: &Request, of_backup: bool) -> Outcome {
        if of_backup && self.split {
            Store::default().carry_out(request)
        } else {
            self.store.carry_out(request)
        }
    }

    pub fn settle(&mut self) {
        loop {
            if let Some(action) = self.primary.next_action() {
                self.primary_wants(action);
            } else if let Some(action) = self.backup.next_action() {
                self.backup_wants(action);
            } else {
                break;
            }
        }
    }

    pub fn count_bytes(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        replication::message::MessageWriter::default().write(&mut bytes, message);
        self.wire_bytes += bytes.len();
    }

    pub fn primary_wants(&mut self, action: PrimaryAction<u32>) {
        match &action {
            PrimaryAction::Send { message, .. } => {
                self.count_bytes(message);
                if self.backup_is_stopped {
                    self.inbox.push(message.clone());
                } else if self.to_backup {
                    self.backup.received(self.now, WIRE, message.clone());
                }
            }
            PrimaryAction::Close(_) if self.to_backup && !self.backup_is_stopped => {
                self.backup.disconnected(self.now, Some(WIRE));
            }
            PrimaryAction::Emit(outputs) => self.emitted.extend(outputs),
            PrimaryAction::TakeSnapshot { pairing, .. } => {
                let count = self.primary.status().instruction_count;
                self.primary.snapshot_taken(self.now, *pairing, count);
            }
            PrimaryAction::Settle(_) => self.primary.settled(self.now),
            PrimaryAction::Ask(request) if self.answers => {
                let outcome = self.carry_out(request, false);
                self.primary.arbiter_answered(self.now, request, &outcome);
            }
            _ => {}
        }
        self.primary_did.push(action);
    }

    pub fn backup_wants(&mut self, action: BackupAction<u32>) {
        match &action {
            BackupAction::Connect if !self.connected || self.connects_again => {
                self.connected = true;
                self.backup.connected(self.now, WIRE);
            }
            BackupAction::Send { message, .. } => {
                self.count_bytes(message);
                if self.to_primary {
                    self.primary.received(self.now, WIRE, message.clone());
                }
            }
            BackupAction::Close(_) if self.to_primary => {
                self.primary.disconnected(self.now, WIRE);
            }
            BackupAction::Mark(_) => self.backup.marked(self.now),
            BackupAction::Settle { pairing, .. } if self.settles => {
                self.backup.settled(self.now, *pairing);
            }
            BackupAction::Ask(request) if self.answers => {
                let outcome = self.carry_out(request, true);
                self.backup.arbiter_answered(self.now, request, &outcome);
            }
            BackupAction::Place { pairing, .. } if self.restores_at_once => {
                self.backup.restored(self.now, *pairing, Ok(()));
            }
            BackupAction::GoOn { pairing } => self.pairing = *pairing,
            BackupAction::Replay { records, .. } => {
                self.to_replay.extend(records.iter().cloned());
                if self.replays {
                    self.replay_all();
                }
            }
            _ => {}
        }
        self.backup_did.push(action);
    }

    pub fn replay_all(&mut self) {
        for record in std::mem::take(&mut self.to_replay) {
            self.replayed = self.replayed.next();
            if let RecordBody::Marker { visible_outputs } = record.body {
                let output = vec![visible_outputs as u32];
                self.backup
                    .outputs(self.now, self.pairing, visible_outputs, output);
            }
            self.backup
                .replayed(self.now, self.pairing, self.replayed, record.count);
        }
    }

    /// Lets time pass, millisecond by millisecond.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += ms(1);
            if self
                .primary
                .next_deadline()
                .is_some_and(|deadline| deadline <= self.now)
            {
                self.primary.tick(self.now);
            }
            if !self.backup_is_stopped
                && self
                    .backup
                    .next_deadline()
                    .is_some_and(|deadline| deadline <= self.now)
            {
                self.backup.tick(self.now);
            }
            self.settle();
        }
    }

    /// The backup's process goes on: it reads what has come meanwhile.
    pub fn wake_backup(&mut self) {
        self.backup_is_stopped = false;
        for message in std::mem::take(&mut self.inbox) {
            self.backup.received(self.now, WIRE, message);
        }
        let closed = PrimaryAction::Close(WIRE);
        if self.primary_did.contains(&closed) {
            self.backup.disconnected(self.now, Some(WIRE));
        }
        self.settle();
    }

    pub fn restored(&mut self) {
        self.backup.restored(self.now, 1, Ok(()));
        self.settle();
    }

    pub fn output(&mut self, count: u64, visible: u64) {
        self.primary.outputs(
            self.now,
            InstructionCount(count),
            visible,
            vec![visible as u32],
        );
        self.settle();
    }

    pub fn input(&mut self, count: u64) {
        let body = RecordBody::Input(vec![1, 2, 3]);
        self.primary.record(
            self.now,
            Record {
                count: InstructionCount(count),
                body,
            },
        );
        self.settle();
    }

    /// What the primary asked about the key of leaving its generation.
    pub fn primary_asks(&self) -> Vec<Request> {
        let next = self.primary.opened().next_key();
        let actions = self.primary_did.iter();
        actions
            .filter_map(|action| match action {
                PrimaryAction::Ask(request) => Some(request.clone()),
                _ => None,
            })
            .filter(|request| match request {
                Request::Create { key, .. } | Request::Read { key } => *key == next,
                _ => false,
            })
            .collect()
    }

    pub fn backup_asks(&self) -> Vec<Request> {
        let actions = self.backup_did.iter();
        actions
            .filter_map(|action| match action {
                BackupAction::Ask(request @ (Request::Create { .. } | Request::Read { .. })) => {
                    Some(request.clone())
                }
                _ => None,
            })
            .collect()
    }

    /// The key that the backup would leave the generation by, by its own word or another's.
    pub fn left_by(&self, node: &str, run: u128) -> Entry {
        let content = &self.store.keys[&key(1)];
        let joined = Entry::parse(&key(1), content).unwrap();
        let writer = Writer {
            host: host(node),
            run: RunId(run),
        };
        if joined.membership().primary == host(node) {
            let next = Membership {
                members: Vec::new(),
                ..joined.membership().clone()
            };
            joined.left(writer, Kind::Dropped, RecordNumber(7), Some(next))
        } else {
            joined.taken_over(writer, Kind::TookOver, RecordNumber(7))
        }
    }

    pub fn suspicions(&self) -> Vec<Suspicion> {
        let mut all = self.primary_suspicions();
        all.extend(self.backup_suspicions());
        all
    }

    pub fn primary_suspicions(&self) -> Vec<Suspicion> {
        let events = self.primary_did.iter().filter_map(|action| match action {
            PrimaryAction::Report(event) => Some(event),
            _ => None,
        });
        events.filter_map(suspicion).collect()
    }

    pub fn backup_suspicions(&self) -> Vec<Suspicion> {
        let events = self.backup_did.iter().filter_map(|action| match action {
            BackupAction::Report(event) => Some(event),
            _ => None,
        });
        events.filter_map(suspicion).collect()
    }

    /// A disk of the primary's host fails a request.
    pub fn disk_fails(&mut self) {
        self.primary.disk_failed(self.now, "no space".into());
        self.settle();
    }

    /// Whether the primary's machine was let run on.
    pub fn resumed(&self) -> bool {
        self.primary_did.contains(&PrimaryAction::Resume)
    }

    pub fn answer_primary(&mut self, outcome: Outcome) {
        let request = self
            .primary_asks()
            .last()
            .cloned()
            .expect("nothing was asked");
        self.primary.arbiter_answered(self.now, &request, &outcome);
        self.settle();
    }

    pub fn answer_backup(&mut self, outcome: Outcome) {
        let request = self
            .backup_asks()
            .last()
            .cloned()
            .expect("nothing was asked");
        self.backup.arbiter_answered(self.now, &request, &outcome);
        self.settle();
    }
}

fn suspicion(event: &Event) -> Option<Suspicion> {
    match event {
        Event::Suspected { why, .. } => Some(why.clone()),
        _ => None,
    }
}
