//! `docs/protocol.md`, section by section, with two cores and a wire that loses nothing.

mod support;

use replication::ConnectionId;
use replication::backup::{Backup, BackupAction, BackupPhase, BackupStop};
use replication::config::PairConfig;
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::marker::{DiskState, Role};
use replication::message::{DivergenceReport, Greeting, Message, PROTOCOL_VERSION, Refusal};
use replication::primary::{Beginning, Primary, PrimaryAction, PrimaryPhase, PrimaryStop};
use replication::record::{Record, RecordBody};
use replication::succession::{
    Durability, Entry, Generation, Kind, MachineName, Membership, Outcome, RecordNumber, Request,
    RunId, Writer,
};
use replication::watch::Agreement;
use std::time::Duration;
use support::{Store, config, host, key, power_on};

const WIRE: ConnectionId = ConnectionId(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Both cores, and everything that they wanted of the program.
struct Pair {
    now: Duration,
    primary: Primary<u32>,
    backup: Backup<u32>,
    connected: bool,
    /// What gets through, and what the backup does by itself.
    to_backup: bool,
    to_primary: bool,
    replays: bool,
    /// The restore lasts until [`Pair::restored`] is called.
    restores_at_once: bool,
    /// The backup's process is stopped; what is sent to it waits.
    backup_is_stopped: bool,
    inbox: Vec<Message>,
    emitted: Vec<u32>,
    to_replay: Vec<Record>,
    replayed: u64,
    primary_did: Vec<PrimaryAction<u32>>,
    backup_did: Vec<BackupAction<u32>>,
    wire_bytes: usize,
    /// The arbiter, and whether it answers by itself.
    store: Store,
    answers: bool,
    /// Another one for the backup.
    split: bool,
}

impl Pair {
    fn new(primary: PairConfig, backup: PairConfig) -> Pair {
        let opened = power_on(&primary);
        let store = Store::with(&opened);
        let beginning = Beginning::from_disk(opened.clone());
        Pair {
            now: Duration::ZERO,
            primary: Primary::new(Duration::ZERO, primary, beginning),
            backup: Backup::new(Duration::ZERO, backup, opened),
            store,
            answers: true,
            split: false,
            connected: false,
            to_backup: true,
            to_primary: true,
            replays: true,
            restores_at_once: true,
            backup_is_stopped: false,
            inbox: Vec::new(),
            emitted: Vec::new(),
            to_replay: Vec::new(),
            replayed: 0,
            primary_did: Vec::new(),
            backup_did: Vec::new(),
            wire_bytes: 0,
        }
    }

    /// A protected pair of pairing 1, in generation 2. From here on the arbiter answers when the
    /// test says so.
    fn protected() -> Pair {
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
    fn carry_out(&mut self, request: &Request, of_backup: bool) -> Outcome {
        if of_backup && self.split {
            Store::default().carry_out(request)
        } else {
            self.store.carry_out(request)
        }
    }

    fn settle(&mut self) {
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

    fn count_bytes(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        replication::message::MessageWriter::default().write(&mut bytes, message);
        self.wire_bytes += bytes.len();
    }

    fn primary_wants(&mut self, action: PrimaryAction<u32>) {
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
            PrimaryAction::TakeSnapshot { pairing } => {
                let count = self.primary.status().instruction_count;
                self.primary.snapshot_taken(self.now, *pairing, count);
            }
            PrimaryAction::SendSnapshot { pairing, .. } => {
                self.primary.snapshot_sent(self.now, *pairing, 0);
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

    fn backup_wants(&mut self, action: BackupAction<u32>) {
        match &action {
            BackupAction::Connect if !self.connected => {
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
            BackupAction::Settle { pairing, .. } => self.backup.settled(self.now, *pairing),
            BackupAction::Ask(request) if self.answers => {
                let outcome = self.carry_out(request, true);
                self.backup.arbiter_answered(self.now, request, &outcome);
            }
            BackupAction::Restore { pairing, .. } if self.restores_at_once => {
                self.backup.restored(self.now, *pairing, Ok(()));
            }
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

    fn replay_all(&mut self) {
        for record in std::mem::take(&mut self.to_replay) {
            self.replayed += 1;
            if let RecordBody::Marker { visible_outputs } = record.body {
                let output = vec![visible_outputs as u32];
                self.backup.outputs(self.now, 1, visible_outputs, output);
            }
            self.backup
                .replayed(self.now, 1, self.replayed, record.count);
        }
    }

    /// Lets time pass, millisecond by millisecond.
    fn run(&mut self, time: Duration) {
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
    fn wake_backup(&mut self) {
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

    fn restored(&mut self) {
        self.backup.restored(self.now, 1, Ok(()));
        self.settle();
    }

    fn output(&mut self, count: u64, visible: u64) {
        self.primary
            .outputs(self.now, count, visible, vec![visible as u32]);
        self.settle();
    }

    fn input(&mut self, count: u64) {
        let body = RecordBody::Input(vec![1, 2, 3]);
        self.primary.record(self.now, Record { count, body });
        self.settle();
    }

    /// What the primary asked about the key of leaving its generation.
    fn primary_asks(&self) -> Vec<Request> {
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

    fn backup_asks(&self) -> Vec<Request> {
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
    fn left_by(&self, node: &str, run: u128) -> Entry {
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

    fn suspicions(&self) -> Vec<Suspicion> {
        let events = self
            .primary_did
            .iter()
            .filter_map(|action| match action {
                PrimaryAction::Report(event) => Some(event),
                _ => None,
            })
            .chain(self.backup_did.iter().filter_map(|action| match action {
                BackupAction::Report(event) => Some(event),
                _ => None,
            }));
        events
            .filter_map(|event| match event {
                Event::Suspected { why, .. } => Some(why.clone()),
                _ => None,
            })
            .collect()
    }

    /// Answers the last question of the primary about its generation.
    fn answer_primary(&mut self, outcome: Outcome) {
        let request = self
            .primary_asks()
            .last()
            .cloned()
            .expect("nothing was asked");
        self.primary.arbiter_answered(self.now, &request, &outcome);
        self.settle();
    }

    fn answer_backup(&mut self, outcome: Outcome) {
        let request = self
            .backup_asks()
            .last()
            .cloned()
            .expect("nothing was asked");
        self.backup.arbiter_answered(self.now, &request, &outcome);
        self.settle();
    }
}

// --- The output rule ---------------------------------------------------------------------------

#[test]
fn alone_outputs_leave_at_once() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.output(10, 1);
    assert_eq!(pair.emitted, [1]);
}

#[test]
fn an_output_is_sent_at_once_and_leaves_with_its_acknowledgement() {
    let mut pair = Pair::protected();
    pair.to_primary = false;
    pair.output(10, 1);
    assert!(pair.emitted.is_empty());
    let marker = Record {
        count: 10,
        body: RecordBody::Marker { visible_outputs: 1 },
    };
    assert!(
        pair.replayed == 1 && pair.to_replay.is_empty(),
        "{marker:?} came at once"
    );
    pair.to_primary = true;
    pair.run(ms(60));
    assert_eq!(pair.emitted, [1]);
}

#[test]
fn records_without_output_are_batched() {
    let mut pair = Pair::protected();
    pair.input(5_000_000);
    pair.input(5_000_001);
    assert_eq!(pair.replayed, 0);
    pair.run(ms(25));
    assert_eq!(pair.replayed, 2);
    // They go with an output when there is one.
    pair.input(5_000_002);
    pair.output(5_000_002, 1);
    assert_eq!(pair.replayed, 4);
}

#[test]
fn acknowledgements_come_on_receipt_not_on_execution() {
    let mut pair = Pair::protected();
    pair.replays = false;
    pair.output(10, 1);
    assert_eq!(
        (pair.emitted.as_slice(), pair.replayed),
        ([1].as_slice(), 0)
    );
}

// --- Joining -----------------------------------------------------------------------------------

#[test]
fn a_peer_that_does_not_fit_is_told_why_and_stops() {
    let refusal = |change: fn(&mut Greeting)| {
        let mut other = config("b");
        change(&mut other.greeting);
        let mut pair = Pair::new(config("a"), other);
        pair.settle();
        match pair.backup_did.last() {
            Some(BackupAction::Stop(BackupStop::Refused(refusal))) => refusal.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refusal(|g| g.semantics_version = 7),
        Refusal::SemanticsVersion { ours: 1 }
    );
    assert_eq!(
        refusal(|g| g.configuration_hash = 7),
        Refusal::Configuration { ours: 2 }
    );
    let ours = MachineName::new("vm").unwrap();
    assert_eq!(
        refusal(|g| g.machine = MachineName::new("x").unwrap()),
        Refusal::Machine { ours }
    );
    assert_eq!(refusal(|g| g.host = host("a")), Refusal::SameHost);
}

#[test]
fn a_primary_that_has_a_backup_takes_no_other() {
    let mut pair = Pair::protected();
    let hello = Message::Hello {
        protocol: PROTOCOL_VERSION,
        greeting: config("c").greeting,
    };
    pair.primary.received(pair.now, ConnectionId(2), hello);
    assert!(matches!(
        pair.primary.next_action(),
        Some(PrimaryAction::Send {
            connection: ConnectionId(2),
            message: Message::Refuse(Refusal::NotNow)
        })
    ));
    assert!(pair.primary.status().protected);
}

/// Before the backup's own disk is overwritten, its marker says so; before it is a member, its own
/// arbiter has the key; and until Begin the primary's outputs leave at once.
#[test]
fn before_begin_the_primary_is_free_and_the_backup_may_not_claim() {
    for last in ["Accept", "Ready", "Confirmed"] {
        let mut pair = Pair::new(config("a"), config("b"));
        // The backup gets no further than this.
        while let Some(action) = pair.primary.next_action() {
            pair.primary_wants(action);
        }
        let mut stopped = false;
        while !stopped {
            pair.now += ms(1);
            while let Some(action) = pair.backup.next_action() {
                let sends_last = match &action {
                    BackupAction::Send { message, .. } => format!("{message:?}").starts_with(last),
                    _ => false,
                };
                pair.to_primary = !sends_last;
                stopped |= sends_last;
                pair.backup_wants(action);
            }
            while let Some(action) = pair.primary.next_action() {
                pair.primary_wants(action);
            }
        }
        pair.output(10, 1);
        assert_eq!(pair.emitted, [1], "{last}");
        pair.backup.disconnected(pair.now, Some(WIRE));
        pair.settle();
        assert!(pair.suspicions().is_empty());
        let again =
            |action: &BackupAction<u32>| matches!(action, BackupAction::Stop(BackupStop::Again(_)));
        assert!(pair.backup_did.iter().any(again), "{last}");
        pair.primary.disconnected(pair.now, WIRE);
        pair.settle();
        pair.run(ms(100));
        pair.output(20, 2);
        assert_eq!(pair.emitted, [1, 2], "{last}");
        // The key of joining, if it was there, was left again.
        let alone = pair.primary.opened().membership().members.is_empty();
        assert!(alone && pair.primary.status().phase == PrimaryPhase::Alone);
    }
}

#[test]
fn a_backup_gives_up_its_disk_before_it_accepts_a_snapshot() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.settle();
    let place =
        |wanted: fn(&BackupAction<u32>) -> bool| pair.backup_did.iter().position(wanted).unwrap();
    let marked = place(
        |action| matches!(action, BackupAction::Mark(marker) if marker.disk == DiskState::Copying),
    );
    let accepted = place(|action| {
        matches!(
            action,
            BackupAction::Send {
                message: Message::Accept { .. },
                ..
            }
        )
    });
    let settled = place(|action| {
        matches!(action, BackupAction::Settle { marker, .. }
            if (marker.disk, marker.role) == (DiskState::Whole, Role::Member))
    });
    assert!(marked < accepted && accepted < settled);
}

/// A primary of a generation that was left must not overwrite what may be the right disk.
#[test]
fn a_primary_of_another_generation_is_not_joined() {
    let mut pair = Pair::new(config("a"), config("b"));
    let opened = pair.primary.opened().clone();
    let ended = opened.left(config("a").writer(), Kind::ColdStart, RecordNumber(5), {
        Some(opened.membership().clone())
    });
    pair.backup = Backup::new(pair.now, config("b"), ended);
    pair.settle();
    assert!(matches!(
        pair.backup_did.last(),
        Some(BackupAction::Stop(BackupStop::Again(_)))
    ));
    let marks = |action: &BackupAction<u32>| matches!(action, BackupAction::Mark(_));
    assert!(!pair.backup_did.iter().any(marks));
}

/// The backup looks for the key of joining at its own arbiter.
#[test]
fn two_arbiters_make_no_pair() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.split = true;
    pair.settle();
    pair.run(ms(300));
    let Some(BackupAction::Stop(BackupStop::Again(why))) = pair.backup_did.last() else {
        panic!("{:?}", pair.backup_did.last())
    };
    assert!(why.contains("different"), "{why}");
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
    pair.output(10, 1);
    assert_eq!(pair.emitted, [1]);
}

#[test]
fn after_begin_the_primary_asks_although_the_backup_may_never_have_read_it() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.settle();
    // The backup's answer to Begin is the last thing that came: forget it.
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Paired);
    pair.answers = false;
    pair.primary_did.clear();
    pair.primary.disconnected(pair.now, WIRE);
    pair.settle();
    pair.output(10, 1);
    assert!(pair.emitted.is_empty());
    assert_eq!(pair.primary_asks().len(), 1);
    pair.answer_primary(Outcome::Created);
    assert_eq!(pair.emitted, [1]);
}

/// Finding: records that were sent during the restore counted as unacknowledged since then, so that
/// a restore of more than a second ended the pairing at the moment of Begin.
#[test]
fn a_restore_during_which_nothing_is_acknowledged_may_take_long() {
    for seconds in [1, 2, 25] {
        let mut pair = Pair::new(joins_slowly("long"), joins_slowly("b"));
        pair.restores_at_once = false;
        pair.settle();
        pair.backup_is_stopped = true;
        for step in 0..seconds * 10 {
            pair.run(ms(100));
            pair.input(5_000_000 * (step + 1));
        }
        pair.restored();
        pair.run(ms(100));
        pair.wake_backup();
        pair.run(ms(2000));
        assert_eq!(pair.suspicions(), [], "{seconds} s");
        assert!(pair.primary.status().protected, "{seconds} s");
    }
}

#[test]
fn a_restore_that_tells_its_progress_may_last_longer_than_the_join_timeout() {
    let mut pair = Pair::new(config("long"), config("b"));
    pair.restores_at_once = false;
    pair.settle();
    for second in 0..60u64 {
        pair.input(5_000_000 * (second + 1));
        pair.backup.restoring(pair.now, 1, second << 20, 60 << 20);
        pair.run(ms(1000));
    }
    let told = Some((59 << 20, 60 << 20));
    assert_eq!(pair.primary.status().restored, told);
    assert_eq!(pair.backup.status().restored, told);
    pair.restored();
    pair.run(ms(100));
    assert!(pair.primary.status().protected);
    assert_eq!(pair.suspicions(), []);
    assert_eq!(pair.backup.status().restored, None);
}

/// What was acknowledged last says that a slow link still moves.
#[test]
fn acknowledgements_that_proceed_are_never_late() {
    let mut pair = Pair::protected();
    pair.to_primary = false;
    for output in 1..=20 {
        pair.output(10 * output, output);
    }
    for sequence in 1..=20 {
        for _ in 0..6 {
            pair.run(ms(100));
            let ack = Message::Ack {
                pairing: 1,
                sequence: sequence - 1,
                executed: 0,
                echo: 1,
                durable: 0,
            };
            pair.primary.received(pair.now, WIRE, ack);
            pair.settle();
            // Its machine stands still for longer than would be forgiven otherwise.
            if !pair.suspicions().is_empty() {
                assert_eq!(pair.suspicions()[0], Suspicion::Stalled);
                assert!(pair.now >= ms(3000));
                return;
            }
        }
    }
}

fn joins_slowly(node: &str) -> PairConfig {
    let mut config = config(node);
    config.detector.join_timeout = Duration::from_secs(30);
    config
}

// --- Suspicion ---------------------------------------------------------------------------------

#[test]
fn a_pulled_cable_is_suspected_within_a_quarter_of_a_second() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.run(ms(250));
    assert_eq!(pair.suspicions(), [Suspicion::Silent, Suspicion::Silent]);
}

#[test]
fn a_closed_connection_is_suspected_at_once() {
    let mut pair = Pair::protected();
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    assert_eq!(pair.suspicions()[0], Suspicion::ConnectionEnded);
    assert_eq!(pair.backup.status().phase, BackupPhase::Claiming);
}

#[test]
fn a_backup_that_is_heard_but_acknowledges_nothing_is_suspected() {
    let mut pair = Pair::protected();
    pair.to_primary = false;
    pair.output(10, 1);
    for _ in 0..30 {
        pair.run(ms(50));
        let ack = Message::Ack {
            pairing: 1,
            sequence: 0,
            executed: 0,
            echo: 1,
            durable: 0,
        };
        pair.primary.received(pair.now, WIRE, ack);
    }
    pair.settle();
    assert_eq!(pair.suspicions()[0], Suspicion::NotAcknowledging);
    assert!(pair.emitted.is_empty());
}

#[test]
fn a_backup_whose_machine_stands_still_is_suspected() {
    let mut pair = Pair::protected();
    pair.replays = false;
    pair.output(10, 1);
    pair.run(ms(3200));
    assert_eq!(pair.suspicions()[0], Suspicion::Stalled);
}

/// Whoever was stopped and wakes does not vie with a primary that is well: the primary says that it
/// is asking already.
#[test]
fn a_backup_that_was_stopped_lets_the_primary_ask_first() {
    let mut pair = Pair::protected();
    pair.backup_is_stopped = true;
    pair.output(10, 1);
    pair.run(ms(250));
    assert_eq!(pair.suspicions(), [Suspicion::Silent]);
    pair.wake_backup();
    pair.run(ms(1900));
    assert_eq!(
        (pair.primary_asks().len(), pair.backup_asks().len()),
        (1, 0)
    );
    // If nothing comes of that, it asks.
    pair.run(ms(200));
    assert_eq!(pair.backup_asks().len(), 1);
}

/// Finding: an interval of more than five seconds with a guest that idles was taken for a hang.
#[test]
fn records_are_awaited_as_often_as_the_primary_is_configured_to_make_them() {
    let mut seldom = config("long");
    seldom.digest_interval = Duration::from_secs(60);
    let mut pair = Pair::new(seldom, config("b"));
    for minute in 0..3 {
        pair.run(Duration::from_secs(60));
        let body = RecordBody::Digest(minute);
        pair.primary.record(pair.now, Record { count: 1, body });
    }
    assert_eq!(pair.suspicions(), []);
    assert!(pair.primary.status().protected);
    pair.run(Duration::from_secs(175));
    assert_eq!(pair.suspicions(), []);
    pair.run(Duration::from_secs(10));
    assert!(pair.suspicions().contains(&Suspicion::NoRecords));
}

#[test]
fn a_primary_that_sends_heartbeats_but_no_records_is_suspected() {
    let mut pair = Pair::protected();
    pair.run(ms(5200));
    assert!(pair.suspicions().contains(&Suspicion::NoRecords));
}

#[test]
fn messages_of_another_generation_and_gaps_end_the_connection() {
    let heartbeat = |pairing, sequence| Message::Heartbeat {
        pairing,
        sequence,
        released: 0,
        probe: 1,
    };
    let records = |first_sequence| Message::Records {
        pairing: 1,
        first_sequence,
        urgent: false,
        released: 0,
        records: vec![Record {
            count: 1,
            body: RecordBody::Digest(0),
        }],
    };
    let falling = Message::Records {
        pairing: 1,
        first_sequence: 1,
        urgent: false,
        released: 0,
        records: [2, 1, 2]
            .map(|count| Record {
                count,
                body: RecordBody::Digest(0),
            })
            .to_vec(),
    };
    for message in [
        heartbeat(2, 0),
        heartbeat(1, 1),
        records(2),
        records(0),
        falling,
    ] {
        let mut pair = Pair::protected();
        pair.backup.received(pair.now, WIRE, message);
        pair.settle();
        let broken = |why: &Suspicion| matches!(why, Suspicion::Protocol(_));
        assert!(pair.suspicions().iter().any(broken));
    }
    let acks = [(2, 0, 0, 1), (1, 1, 0, 1), (1, 0, 1, 1), (1, 0, 0, 99)];
    for (pairing, sequence, executed, echo) in acks {
        let mut pair = Pair::protected();
        let ack = Message::Ack {
            pairing,
            sequence,
            executed,
            echo,
            durable: 0,
        };
        pair.primary.received(pair.now, WIRE, ack);
        pair.settle();
        let broken = |why: &Suspicion| matches!(why, Suspicion::Protocol(_));
        assert!(pair.suspicions().iter().any(broken));
    }
}

#[test]
fn counts_that_fall_from_one_batch_to_the_next_end_the_connection() {
    let mut pair = Pair::protected();
    pair.output(10, 1);
    let earlier = Message::Records {
        pairing: 1,
        first_sequence: 2,
        urgent: false,
        released: 1,
        records: vec![Record {
            count: 9,
            body: RecordBody::Digest(0),
        }],
    };
    pair.backup.received(pair.now, WIRE, earlier);
    pair.settle();
    let broken = |why: &Suspicion| matches!(why, Suspicion::Protocol(_));
    assert!(pair.suspicions().iter().any(broken));
}

/// What waits in the primary for company was never sent.
#[test]
fn an_acknowledgement_of_a_record_that_was_not_sent_yet_ends_the_connection() {
    let mut pair = Pair::protected();
    pair.input(5_000_000);
    assert_eq!(pair.replayed, 0, "it is not sent yet");
    let ack = Message::Ack {
        pairing: 1,
        sequence: 1,
        executed: 0,
        echo: 1,
        durable: 0,
    };
    pair.primary.received(pair.now, WIRE, ack.clone());
    pair.settle();
    assert!(matches!(pair.suspicions()[0], Suspicion::Protocol(_)));
    assert!(!pair.primary.status().protected);

    let mut pair = Pair::new(config("a"), config("b"));
    pair.restores_at_once = false;
    pair.settle();
    pair.primary.received(pair.now, WIRE, ack);
    pair.settle();
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
    let broken = |action: &PrimaryAction<u32>| {
        matches!(
            action,
            PrimaryAction::Report(Event::JoinFailed {
                why: Suspicion::Protocol(_),
                ..
            })
        )
    };
    assert!(pair.primary_did.iter().any(broken));
}

#[test]
fn an_acknowledgement_that_takes_another_back_ends_the_connection() {
    let mut pair = Pair::protected();
    pair.output(10, 1);
    assert_eq!(pair.primary.status().acknowledged, 1);
    let ack = Message::Ack {
        pairing: 1,
        sequence: 0,
        executed: 0,
        echo: 1,
        durable: 0,
    };
    pair.primary.received(pair.now, WIRE, ack);
    pair.settle();
    assert!(matches!(pair.suspicions()[0], Suspicion::Protocol(_)));
}

#[test]
fn a_primary_that_slept_lets_nothing_out_until_its_backup_answers_anew() {
    let mut pair = Pair::protected();
    pair.to_primary = false;
    pair.output(10, 1);
    pair.now += ms(150); // stopped, but not for so long that it must be suspected
    let stale = Message::Ack {
        pairing: 1,
        sequence: 1,
        executed: 0,
        echo: 1,
        durable: 0,
    };
    pair.primary.received(pair.now, WIRE, stale);
    pair.settle();
    assert!(
        pair.emitted.is_empty(),
        "that acknowledgement may be from before a takeover"
    );
    let fresh = Message::Ack {
        pairing: 1,
        sequence: 1,
        executed: 10,
        echo: 2,
        durable: 0,
    };
    pair.primary.received(pair.now, WIRE, fresh);
    pair.settle();
    assert_eq!(pair.emitted, [1]);
}

// --- Claims ------------------------------------------------------------------------------------

#[test]
fn on_anything_but_plain_success_the_key_is_read_back() {
    let mut pair = Pair::protected();
    pair.to_backup = false;
    pair.to_primary = false;
    pair.output(10, 1);
    pair.run(ms(300));
    let Some(Request::Create { content, .. }) = pair.primary_asks().first().cloned() else {
        panic!("nothing asked")
    };
    // No answer; then unreadable; then absent: asked again; a conflict; then it is ours.
    pair.answer_primary(Outcome::Unknown("timeout".into()));
    assert!(matches!(pair.primary_asks()[1], Request::Read { .. }));
    pair.answer_primary(Outcome::Unknown("timeout".into()));
    pair.run(ms(60));
    assert!(matches!(pair.primary_asks()[2], Request::Read { .. }));
    pair.answer_primary(Outcome::Absent);
    pair.run(ms(110));
    assert!(matches!(pair.primary_asks()[3], Request::Create { .. }));
    pair.answer_primary(Outcome::NotCreated);
    assert!(matches!(pair.primary_asks()[4], Request::Read { .. }));
    assert!(pair.emitted.is_empty(), "outputs wait for the arbiter");
    pair.answer_primary(Outcome::Holds(content));
    assert_eq!(pair.emitted, [1]);
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
}

#[test]
fn an_answer_about_another_generation_is_not_taken() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    pair.run(ms(300));
    for generation in [0, 1, 3] {
        let request = Request::Create {
            key: key(generation),
            after: None,
            content: Vec::new(),
        };
        let created = Outcome::Created;
        pair.primary.arbiter_answered(pair.now, &request, &created);
        pair.backup.arbiter_answered(pair.now, &request, &created);
        pair.settle();
    }
    assert!(pair.emitted.is_empty());
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Claiming);
    assert_eq!(pair.backup.status().phase, BackupPhase::Claiming);
}

/// Finding: an event a second for as long as an outage of the arbiter lasts.
#[test]
fn an_outage_of_the_arbiter_is_told_ever_more_seldom_and_its_end_is_told() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.run(ms(300));
    let asked = |pair: &Pair| pair.primary_asks().len();
    let told = |pair: &Pair| {
        let is_word = |action: &&PrimaryAction<u32>| {
            matches!(
                action,
                PrimaryAction::Report(Event::ArbiterUnanswered { .. })
            )
        };
        pair.primary_did.iter().filter(is_word).count()
    };
    let mut answered = 0;
    let mut words = Vec::new();
    for second in 0..3600 {
        if asked(&pair) > answered {
            answered = asked(&pair);
            pair.answer_primary(Outcome::Unknown("timeout".into()));
        }
        pair.run(ms(1000));
        if [0, 9, 60, 3599].contains(&second) {
            words.push(told(&pair));
        }
    }
    assert_eq!(words, [1, 1, 3, 9]);
    pair.answer_primary(Outcome::Absent);
    let again = pair.primary_did.iter().any(|action| {
        matches!(action, PrimaryAction::Report(Event::ArbiterAnswers { outage, .. })
            if *outage > Duration::from_secs(3590))
    });
    assert!(again);
}

/// Finding 8: an empty or torn key was taken for somebody else's claim.
#[test]
fn a_key_that_makes_no_sense_is_nobodys() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    pair.run(ms(300));
    pair.answer_primary(Outcome::NotCreated);
    let whole = pair.left_by("b", 1).content();
    for torn in [&b""[..], b"claimed by b\n", &whole[..whole.len() - 1]] {
        pair.answer_primary(Outcome::Holds(torn.to_vec()));
        assert_eq!(pair.primary.status().phase, PrimaryPhase::Claiming);
        pair.run(ms(1100));
    }
    assert!(pair.emitted.is_empty());
    pair.answer_primary(Outcome::Holds(whole));
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { .. }))
    ));
}

#[test]
fn the_loser_gives_its_machine_up_and_lets_nothing_out() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    pair.run(ms(300));
    let by = Box::new(pair.left_by("b", 1));
    pair.answer_primary(Outcome::NotCreated);
    pair.answer_primary(Outcome::Holds(by.content()));
    let stop = PrimaryStop::Superseded { by };
    assert_eq!(pair.primary_did.last(), Some(&PrimaryAction::Stop(stop)));
    assert!(pair.emitted.is_empty());
    let by = Box::new(pair.left_by("long", 4));
    pair.answer_backup(Outcome::NotCreated);
    pair.answer_backup(Outcome::Holds(by.content()));
    let stop = BackupStop::Superseded { by };
    assert_eq!(pair.backup_did.last(), Some(&BackupAction::Stop(stop)));
}

/// A person declares the life lost, or starts it elsewhere: whoever is alone finds out.
#[test]
fn a_primary_whose_generation_was_left_by_another_gives_its_machine_up() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.connected = true; // nobody connects
    let opened = pair.primary.opened().clone();
    let lost = opened.left(config("x").writer(), Kind::Lost, RecordNumber(2), None);
    pair.store.keys.insert(lost.key.clone(), lost.content());
    pair.run(ms(7000));
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { by })) if **by == lost
    ));
}

// --- The same arbiter --------------------------------------------------------------------------

#[test]
fn another_arbiter_is_noticed_while_all_is_well() {
    let mut pair = Pair::protected();
    pair.answers = true;
    let feed = |pair: &mut Pair, seconds: u64| {
        for _ in 0..seconds {
            let count = pair.primary.status().instruction_count + 5_000_000;
            pair.input(count);
            pair.run(ms(1000));
        }
    };
    feed(&mut pair, 8);
    assert_eq!(pair.primary.status().arbiter, Agreement::Agreed);
    assert_eq!(pair.backup.status().arbiter, Agreement::Agreed);
    pair.split = true;
    feed(&mut pair, 8);
    assert_eq!(pair.primary.status().arbiter, Agreement::Differs);
    assert_eq!(pair.backup.status().arbiter, Agreement::Differs);
    let told = |event: &Event| {
        matches!(
            event,
            Event::Arbiter {
                agreement: Agreement::Differs
            }
        )
    };
    let events = pair
        .primary_did
        .iter()
        .filter(|action| matches!(action, PrimaryAction::Report(event) if told(event)));
    assert_eq!(events.count(), 1, "told once, not once for each look");
    assert!(pair.primary.status().protected && pair.suspicions().is_empty());
}

// --- Flushes -----------------------------------------------------------------------------------

#[test]
fn a_flush_waits_for_both_disks() {
    let both = |node| PairConfig {
        durability: Durability::Both,
        ..config(node)
    };
    let mut pair = Pair::new(both("a"), both("b"));
    pair.settle();
    pair.run(ms(50));
    let allowed = |pair: &Pair| {
        let actions = pair.primary_did.iter().rev();
        actions
            .filter_map(|action| match action {
                PrimaryAction::CompleteFlushes { up_to } => Some(*up_to),
                _ => None,
            })
            .next()
    };
    assert_eq!(allowed(&pair), Some(0));
    pair.input(5_000_000);
    pair.run(ms(50));
    pair.backup.flushed(pair.now, 1, 5_000_000);
    pair.settle();
    assert_eq!(allowed(&pair), Some(5_000_000));
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.answers = false;
    pair.primary_did.clear();
    pair.primary.disconnected(pair.now, WIRE);
    pair.settle();
    assert_eq!(allowed(&pair), None, "not before the member is dropped");
    pair.answer_primary(Outcome::Created);
    assert_eq!(allowed(&pair), Some(u64::MAX));
}

// --- Handing over ------------------------------------------------------------------------------

#[test]
fn a_primary_hands_over_and_says_nothing_more() {
    let mut pair = Pair::protected();
    pair.answers = true;
    pair.to_primary = false;
    pair.output(10, 1);
    assert!(pair.primary.hand_over(pair.now));
    pair.to_primary = true;
    pair.settle();
    pair.run(ms(100));
    let live = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive {
            opened, outputs, ..
        } => Some((opened.kind, outputs.clone())),
        _ => None,
    });
    assert_eq!(live, Some((Kind::HandedOver, vec![1])));
    assert!(pair.emitted.is_empty());
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { by })) if by.kind == Kind::HandedOver
    ));
}

#[test]
fn a_machine_that_nobody_took_over_runs_on() {
    let mut pair = Pair::protected();
    pair.answers = true;
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    assert!(pair.primary.hand_over(pair.now));
    pair.settle();
    assert_eq!(pair.primary.status().phase, PrimaryPhase::HandingOver);
    pair.run(ms(300));
    let resumes = |action: &PrimaryAction<u32>| matches!(action, PrimaryAction::Resume);
    assert!(pair.primary_did.iter().any(resumes));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
    assert_eq!(pair.emitted, [1]);
}

// --- Going live --------------------------------------------------------------------------------

#[test]
fn going_live_drains_the_log_and_repeats_what_may_not_be_out() {
    let mut pair = Pair::protected();
    pair.output(10, 1);
    pair.run(ms(60)); // the backup learns that output 1 is out
    pair.replays = false;
    pair.to_primary = false;
    pair.output(20, 2);
    pair.output(30, 3);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    pair.answer_backup(Outcome::Created);
    assert_eq!(pair.backup.status().phase, BackupPhase::Draining);
    assert!(
        !pair
            .backup_did
            .iter()
            .any(|action| matches!(action, BackupAction::GoLive { .. }))
    );
    pair.replay_all();
    pair.settle();
    let Some(BackupAction::GoLive {
        opened,
        record,
        outputs,
    }) = pair.backup_did.last()
    else {
        panic!("{:?}", pair.backup_did.last())
    };
    assert_eq!((opened.kind, *record), (Kind::TookOver, RecordNumber(3)));
    assert_eq!(opened.next_generation(), Generation(3));
    assert_eq!(outputs, &[2, 3]);
}

// --- Lag ---------------------------------------------------------------------------------------

/// A backup at 40% of the primary's speed: the lag is held near its target, and the pair still
/// runs at nearly the backup's speed.
#[test]
fn the_lag_is_bounded_by_slowing_the_primary() {
    const PER_MS: u64 = 300_000;
    let mut pair = Pair::protected();
    pair.replays = false;
    let (mut share, mut count, mut executed) = (1000u64, 0, 0);
    let mut worst = Duration::ZERO;
    for step in 0..10_000u64 {
        pair.run(ms(1));
        for action in std::mem::take(&mut pair.primary_did) {
            if let PrimaryAction::Throttle(to) = action {
                share = to.into();
            }
        }
        count += PER_MS * share / 1000;
        pair.primary.progress(pair.now, count);
        if step % 10 == 0 {
            pair.input(count);
        }
        executed = pair.to_replay.last().map_or(executed, |last| {
            last.count.min(executed + PER_MS * 40 / 100)
        });
        while pair
            .to_replay
            .get(pair.replayed as usize)
            .is_some_and(|r| r.count <= executed)
        {
            pair.replayed += 1;
        }
        pair.backup.replayed(pair.now, 1, pair.replayed, executed);
        pair.settle();
        if step > 2000 {
            worst = worst.max(pair.primary.status().lag);
        }
    }
    println!(
        "worst lag {worst:?}, {} % of the backup's speed",
        executed * 100 / PER_MS / 4000
    );
    assert!(worst < ms(150), "lag {worst:?}");
    let wanted = PER_MS * 40 / 100 * 10_000;
    assert!(
        executed > wanted * 75 / 100,
        "{} %",
        executed * 100 / wanted
    );
    assert!(pair.suspicions().is_empty());
}

#[test]
fn an_idle_pair_sends_less_than_ten_kilobits_a_second() {
    let mut pair = Pair::protected();
    pair.wire_bytes = 0;
    for step in 0..150u64 {
        // Fifteen wakeups a second, and a digest once a second, half a day after power-on.
        let count = 12_960_000_000_000 + step * 20_000;
        let body = match step % 15 {
            0 => RecordBody::Digest(step.into()),
            _ => RecordBody::Input(vec![4; 14]),
        };
        pair.primary.record(pair.now, Record { count, body });
        pair.run(ms(66));
    }
    let kilobits = pair.wire_bytes as f64 * 8.0 / 1000.0 / (150.0 * 0.066);
    println!("{kilobits:.2} kbit/s in both directions");
    assert!(kilobits < 10.0, "{kilobits}");
}

// --- Divergence and the end --------------------------------------------------------------------

#[test]
fn a_backup_that_differs_says_so_keeps_the_evidence_and_joins_anew() {
    let mut pair = Pair::protected();
    let report = DivergenceReport {
        sequence: 4,
        count: 77,
        what: "digest".into(),
    };
    pair.backup.diverged(pair.now, 1, report.clone());
    pair.settle();
    assert_eq!(pair.suspicions(), [Suspicion::Diverged]);
    let evidence = BackupAction::KeepEvidence { pairing: 1, report };
    assert!(pair.backup_did.contains(&evidence));
    let suspect = pair.backup_did.iter().position(
        |action| matches!(action, BackupAction::Mark(marker) if marker.disk == DiskState::Suspect),
    );
    let said = pair.backup_did.iter().position(|action| {
        matches!(
            action,
            BackupAction::Send {
                message: Message::Diverged { .. },
                ..
            }
        )
    });
    assert!(
        suspect.unwrap() < said.unwrap(),
        "first its disk loses its rights"
    );
    assert!(matches!(
        pair.backup_did.last(),
        Some(BackupAction::Stop(BackupStop::Diverged(_)))
    ));
    pair.answer_primary(Outcome::Created);
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
}

#[test]
fn the_guest_ends_and_nobody_claims() {
    let mut pair = Pair::protected();
    pair.output(10, 1);
    pair.primary.finished(pair.now, 10);
    pair.settle();
    assert_eq!(pair.emitted, [1]);
    assert!(
        !matches!(pair.primary_did.last(), Some(PrimaryAction::Stop(_))),
        "the end of the life waits for its key"
    );
    pair.answer_primary(Outcome::Created);
    assert_eq!(
        pair.primary_did.last(),
        Some(&PrimaryAction::Stop(PrimaryStop::Finished))
    );
    assert_eq!(
        pair.backup_did.last(),
        Some(&BackupAction::Stop(BackupStop::Finished))
    );
    assert!(pair.suspicions().is_empty());
}

#[test]
fn a_backup_that_leaves_is_replaced_after_the_arbiter_was_asked() {
    let mut pair = Pair::protected();
    assert!(pair.backup.leave(pair.now));
    pair.settle();
    assert_eq!(pair.suspicions(), [Suspicion::Left]);
    pair.answer_primary(Outcome::Created);
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
}

/// The pauses of a process are told from the silence of its peer for every configuration that the
/// program accepts, down to two heartbeats.
#[test]
fn a_pulled_cable_is_suspected_also_with_slow_heartbeats() {
    let slow = |node| {
        let mut config = config(node);
        config.detector.heartbeat_interval = ms(150);
        config.detector.silence_timeout = ms(300);
        config
    };
    let mut pair = Pair::new(slow("long"), slow("b"));
    pair.settle();
    pair.run(ms(500));
    assert!(pair.primary.status().protected && pair.suspicions().is_empty());
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.run(ms(350));
    assert_eq!(pair.suspicions(), [Suspicion::Silent, Suspicion::Silent]);
}

#[test]
fn a_snapshot_beyond_its_announced_count_is_an_error_and_no_panic() {
    let mut pair = Pair::protected();
    pair.backup.replayed(pair.now, 1, 0, 5);
    pair.settle();
    assert!(
        pair.backup_did
            .iter()
            .any(|action| matches!(action, BackupAction::KeepEvidence { .. }))
    );
}
