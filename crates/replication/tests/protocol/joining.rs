//! `docs/protocol.md`, "Joining".

use crate::pair::{Pair, WIRE, ms};
use crate::support::{config, host};
use replication::ConnectionId;
use replication::backup::{Backup, BackupAction, BackupStop};
use replication::capacity::HostFacts;
use replication::config::PairConfig;
use replication::configuration::{Build, Configuration};
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::marker::{DiskState, Role};
use replication::message::{Busy, Greeting, Message, PROTOCOL_VERSION, Refusal};
use replication::primary::{PrimaryAction, PrimaryPhase};
use replication::record::InstructionCount;
use replication::succession::{Host, HostId, Kind, MachineName, Outcome, RecordNumber, RunId};
use std::time::Duration;

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
    let told = |change: fn(&mut Greeting)| refusal(change).to_string();
    let semantics = told(|g| {
        g.semantics_version = 7;
        g.build = Build::new("0.2.0, commit 4567");
    });
    assert!(
        semantics.contains(
            "semantics version: 7 (0.2.0, commit 4567) here, 1 (0.1.0, commit 0123) at a"
        ),
        "{semantics}"
    );
    let memory = told(|g| g.configuration = Configuration::new(7).with("memory", "16M"));
    assert!(memory.contains("memory: 16M here, 8M at a"), "{memory}");
    let rest = told(|g| g.configuration = Configuration::new(7).with("memory", "8M"));
    assert!(
        rest.contains("0000000000000007 here, 0000000000000002 at a"),
        "{rest}"
    );
    let ours = MachineName::new("vm").unwrap();
    assert_eq!(
        refusal(|g| g.machine = MachineName::new("x").unwrap()),
        Refusal::Machine { ours }
    );
    assert_eq!(refusal(|g| g.host = host("a")), Refusal::SameHost);
}

/// The primary tells the same the other way round.
#[test]
fn a_refusal_names_what_differs_on_both_sides() {
    let mut other = config("b");
    other.greeting.configuration = Configuration::new(7).with("memory", "16M");
    let mut pair = Pair::new(config("a"), other);
    pair.settle();
    let told = pair.primary_did.iter().find_map(|action| match action {
        PrimaryAction::Report(Event::RefusedBackup { refusal, .. }) => Some(refusal.to_string()),
        _ => None,
    });
    let told = told.unwrap();
    assert!(told.contains("memory: 8M here, 16M at b"), "{told}");
}

/// What the primary answers to a host that calls itself so.
fn answer(pair: &mut Pair, greeting: Greeting) -> Message {
    answer_in(PROTOCOL_VERSION, pair, greeting)
}

/// The same in a version of the protocol.
fn answer_in(protocol: u32, pair: &mut Pair, greeting: Greeting) -> Message {
    let hello = Message::Hello {
        protocol,
        greeting,
        is_spare: false,
        stands_at: None,
        facts: HostFacts::default(),
        boot: Default::default(),
    };
    pair.primary.received(pair.now, ConnectionId(2), hello);
    let mut answers = std::iter::from_fn(|| pair.primary.next_action());
    let answer = answers.find_map(|action| match action {
        PrimaryAction::Send {
            connection: ConnectionId(2),
            message,
        } => Some(message),
        _ => None,
    });
    answers.for_each(drop);
    answer.unwrap()
}

/// Finding: a host that was not taken heard only that the primary could not take a backup now.
#[test]
fn whoever_is_not_taken_now_hears_why() {
    let not_now = |busy: Busy| Message::Refuse(Refusal::NotNow(busy));
    let mut pair = Pair::new(wanting_two(), config("b"));
    pair.restores_at_once = false;
    pair.settle();
    pair.run(ms(100));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Joining);
    let c = || called(99, "c", 99);
    assert_eq!(answer(&mut pair, c()), not_now(Busy::Joins));
    assert_eq!(answer_in(10, &mut pair, c()), not_now(Busy::Untold));
    let mut pair = Pair::new(wanting_two(), config("b"));
    pair.settle();
    pair.run(ms(100));
    assert!(pair.primary.status().protected);
    pair.answers = false;
    pair.primary.disconnected(pair.now, WIRE);
    let lost = answer(&mut pair, c());
    assert_eq!(lost, not_now(Busy::LosesMember));
    let told = Refusal::NotNow(Busy::LosesMember).to_string();
    assert!(told.contains("asks the arbiter to drop it"), "{told}");
    pair.primary.finished(pair.now, InstructionCount::POWER_ON);
    assert_eq!(answer(&mut pair, c()), not_now(Busy::Ends));
}

fn wanting_two() -> PairConfig {
    PairConfig {
        max_members: 2,
        ..config("long")
    }
}

fn called(id: u128, node: &str, run: u128) -> Greeting {
    Greeting {
        host: Host::new(HostId(id), node),
        run: RunId(run),
        ..config("b").greeting
    }
}

/// Keys that were copied from a member, its state directory, or both: nobody else comes in by them while the
/// member is here. Who was set up anew comes in when it has gone.
#[test]
fn one_name_is_one_host_at_a_time() {
    let mut pair = Pair::protected();
    let id = host("b").id.0;
    let in_use = |name: &str| {
        Message::Refuse(Refusal::NameInUse {
            name: name.to_owned(),
        })
    };
    for copy in [
        called(99, "b", 99),
        called(id, "c", 99),
        called(id, "b", 99),
    ] {
        let name = copy.host.node().to_owned();
        assert_eq!(answer(&mut pair, copy), in_use(&name));
    }
    assert!(pair.primary.status().protected, "the member is in");
    pair.answers = true;
    pair.primary.disconnected(pair.now, WIRE);
    pair.to_backup = false;
    pair.run(ms(1000));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
    let anew = answer(&mut pair, called(99, "b", 99));
    assert!(matches!(anew, Message::Welcome { .. }), "{anew:?}");
    // And now the one of before is the copy.
    assert_eq!(answer(&mut pair, called(id, "b", 1)), in_use("b"));
}

/// The primary itself is one host as well, and says so to whoever asks.
#[test]
fn nobody_else_has_the_primarys_name_or_identity() {
    let mut pair = Pair::protected();
    let own = config("long").greeting.host;
    let name = own.node().to_owned();
    let same_name = Message::Refuse(Refusal::SameName { name });
    let same_host = Message::Refuse(Refusal::SameHost);
    assert_eq!(answer(&mut pair, called(99, own.node(), 99)), same_name);
    assert_eq!(answer(&mut pair, called(own.id.0, "c", 99)), same_host);
    for (asks, told) in [
        (called(99, own.node(), 99), Some(same_name)),
        (called(own.id.0, own.node(), 99), Some(same_host)),
        // Its own address is among its peers' perhaps.
        (config("long").greeting, None),
    ] {
        let ask = Message::Ask {
            protocol: PROTOCOL_VERSION,
            greeting: asks,
        };
        pair.primary.received(pair.now, ConnectionId(3), ask);
        match (pair.primary.next_action(), told) {
            (Some(PrimaryAction::Send { message, .. }), Some(told)) => assert_eq!(message, told),
            (Some(PrimaryAction::Send { message, .. }), None) => {
                assert!(matches!(message, Message::Standing(_)), "{message:?}");
            }
            (other, _) => panic!("{other:?}"),
        }
        std::iter::from_fn(|| pair.primary.next_action()).for_each(drop);
    }
}

#[test]
fn a_primary_that_has_a_backup_takes_no_other() {
    let mut pair = Pair::protected();
    let hello = Message::Hello {
        protocol: PROTOCOL_VERSION,
        greeting: config("c").greeting,
        is_spare: false,
        stands_at: None,
        facts: HostFacts::default(),
        boot: Default::default(),
    };
    pair.primary.received(pair.now, ConnectionId(2), hello);
    assert!(matches!(
        pair.primary.next_action(),
        Some(PrimaryAction::Send {
            connection: ConnectionId(2),
            message: Message::Refuse(Refusal::NotNeeded)
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

/// Finding: two hosts with one disk file wrote their markers over each other's, and the one whose disk it was knew nothing
/// of the other.
#[test]
fn a_host_whose_disks_cannot_become_copies_says_why_and_touches_nothing() {
    let mut pair = Pair::new(config("a"), config("b"));
    let mut is_told = false;
    while !is_told {
        pair.now += ms(1);
        while let Some(action) = pair.primary.next_action() {
            pair.primary_wants(action);
        }
        while let Some(action) = pair.backup.next_action() {
            match action {
                BackupAction::Mark(_) => {
                    pair.backup.cannot_follow(pair.now, "it is in use".into());
                    is_told = true;
                }
                action => pair.backup_wants(action),
            }
        }
    }
    pair.settle();
    let stop = BackupAction::Stop(BackupStop::CannotFollow("it is in use".into()));
    assert_eq!(pair.backup_did.last(), Some(&stop));
    let marks = |action: &BackupAction<u32>| matches!(action, BackupAction::Mark(_));
    assert!(!pair.backup_did.iter().any(marks));
    let failed = pair.primary_did.iter().find_map(|action| match action {
        PrimaryAction::Report(Event::JoinFailed { why, .. }) => Some(why.to_string()),
        _ => None,
    });
    let why = failed.unwrap();
    assert!(why.contains("cannot follow: it is in use"), "{why}");
    let said = pair.primary.hosts_that_cannot_follow();
    assert_eq!(said.as_deref(), Some("b cannot follow: it is in use"));
    // Once it can, nothing is said of it any more.
    let newest = pair.primary.opened().clone();
    pair.backup = Backup::new(pair.now, config("b"), newest, None);
    pair.connected = false;
    pair.settle();
    assert_eq!(pair.primary.hosts_that_cannot_follow(), None);
    pair.answers = true;
    pair.run(ms(300));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Paired);
}

/// A primary of a generation that was left must not overwrite what may be the right disk.
#[test]
fn a_primary_of_another_generation_is_not_joined() {
    let mut pair = Pair::new(config("a"), config("b"));
    let opened = pair.primary.opened().clone();
    let ended = opened.left(config("a").writer(), Kind::ColdStart, RecordNumber(5), {
        Some(opened.membership().clone())
    });
    pair.backup = Backup::new(pair.now, config("b"), ended, None);
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
    for record in 1..=20 {
        for _ in 0..6 {
            pair.run(ms(100));
            let ack = Message::Ack {
                pairing: 1,
                record: RecordNumber(record - 1),
                executed: InstructionCount(0),
                echo: 1,
                durable: InstructionCount(0),
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

/// What a backup has to keep while it restores is bounded however long that takes: it acknowledges none of
/// it, and the primary is slowed.
#[test]
fn a_restore_that_lasts_slows_the_primary_and_fills_no_memory() {
    let slow = PairConfig {
        join_backlog_bytes: 2_000,
        ..config("a")
    };
    let mut pair = Pair::new(slow, config("b"));
    pair.restores_at_once = false;
    pair.run(ms(200));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Joining);
    for count in 1..=400 {
        pair.input(count * 1_000);
        pair.run(ms(20));
    }
    let mut throttles = pair.primary_did.iter().filter_map(|action| match action {
        PrimaryAction::Throttle(share) => Some(*share),
        _ => None,
    });
    assert_eq!(
        throttles.next_back(),
        Some(0),
        "records pile up without a bound"
    );
    pair.restored();
    pair.run(ms(3_000));
    assert!(pair.primary.status().protected);
    assert!(pair.suspicions().is_empty(), "{:?}", pair.suspicions());
}
