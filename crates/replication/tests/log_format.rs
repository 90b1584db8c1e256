//! `docs/log-format.md`.

use proptest::prelude::*;
use replication::frame::{FrameReader, FrameWriter};
use replication::log::{LogEnd, LogError, LogHeader, LogItem, LogReader, LogSummary, LogWriter};
use replication::record::{InstructionCount, Record, RecordBody};

fn header() -> LogHeader {
    LogHeader {
        semantics_version: 3,
        configuration_hash: 0x1234_5678_9abc_def0,
        guest_identity: "demo: Debian 13".to_owned(),
        has_snapshot: true,
        has_disk_reads: true,
    }
}

fn summary(records: u64) -> LogSummary {
    LogSummary {
        final_count: InstructionCount::LAST,
        visible_outputs: 9,
        records,
        digest: 1 << 100,
        reason: "power-off".to_owned(),
    }
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(RecordBody::Input),
        any::<u64>().prop_map(|visible_outputs| RecordBody::Marker { visible_outputs }),
        any::<u128>().prop_map(RecordBody::Digest),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(RecordBody::Piece),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(RecordBody::Checkpoint),
        any::<u128>().prop_map(RecordBody::Written),
    ];
    let steps = proptest::collection::vec((0..1u64 << 40, body), 0..40);
    steps.prop_map(|steps| {
        let mut count = 100;
        steps
            .into_iter()
            .map(|(step, body)| {
                count += step;
                Record {
                    count: InstructionCount(count),
                    body,
                }
            })
            .collect()
    })
}

/// A log, and where its frames end.
fn written(records: &[Record], flush_every: usize) -> Vec<u8> {
    let mut writer = LogWriter::new(&header());
    writer.snapshot(b"state");
    writer.snapshot(b" of the machine");
    writer.end_snapshot(InstructionCount(100));
    for (index, record) in records.iter().enumerate() {
        writer.record(record.clone());
        if index % flush_every == 0 {
            writer.flush();
        }
    }
    writer.end(&summary(0));
    writer.take_bytes()
}

/// Everything that can be read, and how it ends.
fn read(bytes: &[u8], piece: usize) -> (Vec<LogItem>, Result<LogEnd, LogError>) {
    let mut reader = LogReader::new();
    let mut items = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Err(error)),
            }
        }
    }
    (items, reader.finish())
}

fn records_of(items: &[LogItem]) -> Vec<Record> {
    let record = |item: &LogItem| match item {
        LogItem::Record(_, record) => Some(record.clone()),
        _ => None,
    };
    items.iter().filter_map(record).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_read_as_it_was_written(
        records in any_records(), flush in 1..9usize, piece in 1..200usize,
    ) {
        let (items, end) = read(&written(&records, flush), piece);
        prop_assert_eq!(end, Ok(LogEnd::Complete));
        prop_assert_eq!(&items[0], &LogItem::Header(header()));
        let at = items.iter().position(|i| *i == LogItem::SnapshotEnd { count: InstructionCount(100) });
        prop_assert_eq!(at, Some(3));
        prop_assert_eq!(records_of(&items), records.clone());
        prop_assert_eq!(items.last(), Some(&LogItem::End(summary(records.len() as u64))));
    }

    #[test]
    fn a_torn_tail_loses_only_the_tail(
        records in any_records(), flush in 1..9usize, keep in any::<prop::sample::Index>(),
    ) {
        let whole = written(&records, flush);
        let kept = keep.index(whole.len());
        let (all, _) = read(&whole, 4096);
        let (items, end) = read(&whole[..kept], 4096);
        prop_assert!(all.starts_with(&items));
        prop_assert!(matches!(end, Ok(LogEnd::Unfinished { .. })), "{:?}", end);
        // What was lost is less than one frame: nothing whole was left out.
        let Ok(LogEnd::Unfinished { torn_bytes }) = end else { unreachable!() };
        let (again, _) = read(&whole[..kept - torn_bytes as usize], 4096);
        prop_assert_eq!(items, again);
    }

    #[test]
    fn an_unwritten_tail_of_zeros_loses_only_the_tail(
        records in any_records(), zeros in 1..5000usize, piece in 1..900usize,
    ) {
        let mut bytes = written(&records, 3);
        let end = bytes.len() - 40;
        let (_, cut) = read(&bytes[..end], 4096);
        let Ok(LogEnd::Unfinished { torn_bytes }) = cut else { panic!("{cut:?}") };
        bytes.truncate(end - torn_bytes as usize);
        bytes.resize(bytes.len() + zeros, 0);
        let (items, end) = read(&bytes, piece);
        prop_assert_eq!(end, Ok(LogEnd::Unfinished { torn_bytes: zeros as u64 }));
        prop_assert!(records.starts_with(&records_of(&items)));
        bytes.push(1);
        prop_assert!(read(&bytes, piece).1.is_err());
    }

    #[test]
    fn any_flipped_bit_is_noticed(
        records in any_records(), bit in any::<prop::sample::Index>(), piece in 1..200usize,
    ) {
        let mut bytes = written(&records, 4);
        let (all, _) = read(&bytes, 4096);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (items, end) = read(&bytes, piece);
        prop_assert!(end != Ok(LogEnd::Complete));
        prop_assert!(all.starts_with(&items), "what was read before the damage is right");
    }

    #[test]
    fn garbage_is_no_log_and_no_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..500), piece in 1..50usize,
    ) {
        prop_assert!(!matches!(read(&bytes, piece).1, Ok(LogEnd::Complete)));
        let mut with_magic = written(&[], 1)[..10].to_vec();
        with_magic.extend_from_slice(&bytes);
        prop_assert!(!matches!(read(&with_magic, piece).1, Ok(LogEnd::Complete)));
    }

    #[test]
    fn frames_in_another_order_are_noticed(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 2..8),
        swap in any::<prop::sample::Index>(), drop in any::<bool>(),
    ) {
        let mut writer = FrameWriter::default();
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for payload in &payloads {
            let mut out = Vec::new();
            writer.write(&mut out, 7, payload);
            frames.push(out);
        }
        let at = swap.index(payloads.len() - 1);
        if drop { frames.remove(at); } else { frames.swap(at, at + 1); }
        let mut reader = FrameReader::new(100);
        reader.push(&frames.concat());
        for payload in &payloads[..at] {
            prop_assert_eq!(&reader.next_frame().unwrap().unwrap().payload, payload);
        }
        prop_assert!(reader.next_frame().is_err());
    }
}

#[test]
fn a_whole_log_with_each_bit_flipped_is_never_complete() {
    let records = [
        Record {
            count: InstructionCount(100),
            body: RecordBody::Input(b"frame".to_vec()),
        },
        Record {
            count: InstructionCount(700),
            body: RecordBody::Marker { visible_outputs: 2 },
        },
        Record {
            count: InstructionCount(900),
            body: RecordBody::Digest(77),
        },
    ];
    let whole = written(&records, 2);
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(read(&bytes, 4096).1, Ok(LogEnd::Complete), "bit {bit}");
    }
}

#[test]
fn a_frame_longer_than_allowed_is_refused_before_it_is_held() {
    let mut out = Vec::new();
    FrameWriter::default().write(&mut out, 1, &[0; 5000]);
    let mut reader = FrameReader::new(4096);
    reader.push(&out[..9]);
    let error = reader.next_frame().unwrap_err().to_string();
    assert!(error.contains("5000") && error.contains("4096"), "{error}");
}

#[test]
fn an_empty_file_is_an_unfinished_log_and_another_file_is_none() {
    assert_eq!(read(b"", 1).1, Ok(LogEnd::Unfinished { torn_bytes: 0 }));
    assert_eq!(read(b"\x7fELF", 1).1, Err(LogError::NotALog));
    assert_eq!(
        read(b"USTDYLOG\x02\x00", 3).1,
        Err(LogError::Version { found: 2 })
    );
}

/// Found by `an_unwritten_tail_of_zeros_loses_only_the_tail`, which saw it once in twenty runs.
#[test]
fn a_lone_zero_before_other_bytes_is_damage_and_no_torn_frame() {
    let whole = written(&[], 1);
    let (_, cut) = read(&whole[..whole.len() - 1], 4096);
    let Ok(LogEnd::Unfinished { torn_bytes }) = cut else {
        panic!("{cut:?}")
    };
    let frames = &whole[..whole.len() - 1 - torn_bytes as usize];
    for piece in [1, 4096] {
        let zero = read(&[frames, &[0]].concat(), piece).1;
        assert_eq!(zero, Ok(LogEnd::Unfinished { torn_bytes: 1 }));
        for byte in 1..=255 {
            let end = read(&[frames, &[0, byte]].concat(), piece).1;
            assert!(
                matches!(end, Err(LogError::Corrupt(_))),
                "00 {byte:02x}: {end:?}"
            );
        }
    }
}

#[test]
fn how_a_log_ends_is_told_by_its_tail_and_its_lock() {
    let torn = LogEnd::Unfinished { torn_bytes: 5 };
    assert!(torn.describe(true).contains("in progress"));
    assert!(torn.describe(false).contains("died writing"));
    assert_eq!(LogEnd::Complete.describe(false), "complete");
}

#[test]
fn bytes_after_the_end_are_corruption() {
    let mut bytes = written(&[], 1);
    bytes.push(0);
    assert_eq!(read(&bytes, 4096).1, Err(LogError::AfterEnd));
}
