//! `docs/protocol.md`, "Suspicion".

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::backup::BackupPhase;
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::message::Message;
use replication::primary::{PrimaryAction, PrimaryPhase};
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use std::time::Duration;

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
            record: RecordNumber(0),
            executed: InstructionCount(0),
            echo: 1,
            durable: InstructionCount(0),
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
        pair.primary.record(
            pair.now,
            Record {
                count: InstructionCount(1),
                body,
            },
        );
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
    let heartbeat = |pairing, record| Message::Heartbeat {
        pairing,
        record,
        released: 0,
        probe: 1,
    };
    let records = |first_record| Message::Records {
        pairing: 1,
        first_record,
        urgent: false,
        released: 0,
        records: vec![Record {
            count: InstructionCount(1),
            body: RecordBody::Digest(0),
        }],
    };
    let falling = Message::Records {
        pairing: 1,
        first_record: RecordNumber(1),
        urgent: false,
        released: 0,
        records: [2, 1, 2]
            .map(|count| Record {
                count: InstructionCount(count),
                body: RecordBody::Digest(0),
            })
            .to_vec(),
    };
    for message in [
        heartbeat(2, RecordNumber(0)),
        heartbeat(1, RecordNumber(1)),
        records(RecordNumber(2)),
        records(RecordNumber(0)),
        falling,
    ] {
        let mut pair = Pair::protected();
        pair.backup.received(pair.now, WIRE, message);
        pair.settle();
        let broken = |why: &Suspicion| matches!(why, Suspicion::Protocol(_));
        assert!(pair.suspicions().iter().any(broken));
    }
    let acks = [(2, 0, 0, 1), (1, 1, 0, 1), (1, 0, 1, 1), (1, 0, 0, 99)];
    for (pairing, record, executed, echo) in acks {
        let mut pair = Pair::protected();
        let ack = Message::Ack {
            pairing,
            record: RecordNumber(record),
            executed: InstructionCount(executed),
            echo,
            durable: InstructionCount(0),
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
        first_record: RecordNumber(2),
        urgent: false,
        released: 1,
        records: vec![Record {
            count: InstructionCount(9),
            body: RecordBody::Digest(0),
        }],
    };
    pair.backup.received(pair.now, WIRE, earlier);
    pair.settle();
    let fall = Suspicion::Protocol("instruction counts fall".into());
    assert!(pair.backup_suspicions().contains(&fall));
}

/// What waits in the primary for company was never sent.
#[test]
fn an_acknowledgement_of_a_record_that_was_not_sent_yet_ends_the_connection() {
    let mut pair = Pair::protected();
    pair.input(5_000_000);
    assert_eq!(pair.replayed, RecordNumber(0), "it is not sent yet");
    let ack = Message::Ack {
        pairing: 1,
        record: RecordNumber(1),
        executed: InstructionCount(0),
        echo: 1,
        durable: InstructionCount(0),
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
    assert_eq!(pair.primary.status().acknowledged, RecordNumber(1));
    let ack = Message::Ack {
        pairing: 1,
        record: RecordNumber(0),
        executed: InstructionCount(0),
        echo: 1,
        durable: InstructionCount(0),
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
        record: RecordNumber(1),
        executed: InstructionCount(0),
        echo: 1,
        durable: InstructionCount(0),
    };
    pair.primary.received(pair.now, WIRE, stale);
    pair.settle();
    assert!(
        pair.emitted.is_empty(),
        "that acknowledgement may be from before a takeover"
    );
    let fresh = Message::Ack {
        pairing: 1,
        record: RecordNumber(1),
        executed: InstructionCount(10),
        echo: 2,
        durable: InstructionCount(0),
    };
    pair.primary.received(pair.now, WIRE, fresh);
    pair.settle();
    assert_eq!(pair.emitted, [1]);
}

/// Finding: a woken primary heard its successor on the network and called it another machine with its guest's
/// address. What was said before it slept does not tell it that it is live; an answer to what it asks now does.
#[test]
fn a_primary_that_slept_is_certain_to_be_live_only_of_what_was_asked_since() {
    let mut pair = Pair::protected();
    let before = pair.primary.certainly_live_at();
    assert!(before.is_some_and(|at| at <= pair.now), "{before:?}");
    pair.to_primary = false;
    pair.now += ms(150);
    let woke = pair.now;
    let ack = |echo| Message::Ack {
        pairing: 1,
        record: RecordNumber(0),
        executed: InstructionCount(0),
        echo,
        durable: InstructionCount(0),
    };
    for echo in [1, 2, 3] {
        pair.primary.received(pair.now, WIRE, ack(echo));
        if pair.primary.certainly_live_at() >= Some(woke) {
            assert!(echo > 1, "an answer from before it slept");
            return;
        }
    }
    panic!("{:?} at {woke:?}", pair.primary.certainly_live_at());
}
