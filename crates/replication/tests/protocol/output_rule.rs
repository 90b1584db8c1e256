//! `docs/protocol.md`, "The output rule".

use crate::pair::{Pair, ms};
use crate::support::config;
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};

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
        count: InstructionCount(10),
        body: RecordBody::Marker { visible_outputs: 1 },
    };
    assert!(
        pair.replayed == RecordNumber(1) && pair.to_replay.is_empty(),
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
    assert_eq!(pair.replayed, RecordNumber(0));
    pair.run(ms(25));
    assert_eq!(pair.replayed, RecordNumber(2));
    // They go with an output when there is one.
    pair.input(5_000_002);
    pair.output(5_000_002, 1);
    assert_eq!(pair.replayed, RecordNumber(4));
}

#[test]
fn acknowledgements_come_on_receipt_not_on_execution() {
    let mut pair = Pair::protected();
    pair.replays = false;
    pair.output(10, 1);
    assert_eq!(
        (pair.emitted.as_slice(), pair.replayed),
        ([1].as_slice(), RecordNumber::BEFORE_ALL)
    );
}
