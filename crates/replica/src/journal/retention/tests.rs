//! Retention against journals whose snapshots build on each other in any way.

use super::*;
use crate::journal::storage::DirectoryFiles;
use proptest::prelude::*;
use replication::journal::{BaseSnapshot, JournalHead, MachineTimes, SnapshotFileWriter};
use replication::life_log::{LogMark, Place};
use replication::message::LifeId;
use replication::record::{InstructionCount, RecordNumber};
use replication::succession::{JournalId, LifeNumber, MachineName};
use std::path::Path;
use std::time::Duration;

const HOUR_NS: u64 = 3_600_000_000_000;

/// A snapshot an hour, with so many instructions between two, and three segments to each. All are whole.
fn journal(hours: u64, instructions: u64) -> tempfile::TempDir {
    journal_with(hours, instructions, |_| false)
}

/// The same; which of them build on the one before?
fn journal_with(
    hours: u64,
    instructions: u64,
    is_increment: impl Fn(u64) -> bool,
) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for hour in 0..=hours {
        let number = 1 + 3 * hour;
        let head = JournalHead {
            id: JournalId(1),
            segment: number,
            before: 0,
            machine: MachineName::new("vm").unwrap(),
            life: LifeNumber(1),
            life_id: LifeId(1),
            semantics_version: 8,
            configuration_hash: 1,
            place: Place {
                record: RecordNumber(hour),
                count: InstructionCount(hour * instructions),
                mark: LogMark(hour.into()),
            },
            visible_outputs: 0,
            disk_layer: 0,
            times: Some(MachineTimes {
                guest_ns: hour * HOUR_NS,
                unix_ns: (1 + hour) * HOUR_NS,
            }),
            builds_on: is_increment(hour).then(|| BaseSnapshot {
                segment: number - 3,
                mark: LogMark(u128::from(hour) - 1),
            }),
        };
        let mut writer = SnapshotFileWriter::begin(&head);
        writer.end();
        let path = |file: JournalFile| directory.path().join(file.to_string());
        let snapshot = path(JournalFile::Snapshot(number));
        std::fs::write(snapshot, writer.take_bytes()).unwrap();
        for segment in number..number + 3 {
            std::fs::write(path(JournalFile::Segment(segment)), [0; 1000]).unwrap();
        }
    }
    directory
}

fn trim(directory: &Path, hours: u64, retention: Retention) -> (KeptHistory, Vec<u64>) {
    trim_with_room(directory, hours, None, retention)
}

fn trim_with_room(
    directory: &Path,
    hours: u64,
    free_bytes: Option<u64>,
    retention: Retention,
) -> (KeptHistory, Vec<u64>) {
    let newest = 1 + 3 * hours;
    let mut kept = Kept::default();
    let files = DirectoryFiles(directory.into());
    let first = kept.trim(&files, newest, free_bytes, retention, (1 + hours) * HOUR_NS);
    let first = first.unwrap();
    // What is known of what is there does not change what is kept, once there is room.
    let again = kept.trim(&files, newest, None, retention, (1 + hours) * HOUR_NS);
    assert_eq!(again.unwrap(), first);
    let ways_in = files.list().unwrap().snapshots.into_keys();
    (first, ways_in.collect())
}

fn segments(directory: &Path) -> Vec<u64> {
    let files = DirectoryFiles(directory.into());
    files.list().unwrap().segments.into_keys().collect()
}

const FAR: u64 = WAY_IN_INSTRUCTIONS;

#[test]
fn what_is_within_both_limits_is_kept_and_begins_with_a_snapshot() {
    let limits = |bytes: u64, hours: u64| Retention {
        bytes,
        age: Duration::from_secs(hours * 3600),
    };
    for (retention, first) in [
        (Retention::NOTHING, 31),
        (limits(u64::MAX, u64::MAX / 3600), 1),
        // What ended five hours ago has gone; what began then has not.
        (limits(u64::MAX, 5), 16),
        (limits(3_300 * 3, u64::MAX / 3600), 22),
        (limits(3_300 * 3, 1), 28),
        (limits(3_300 * 3, 2), 25),
    ] {
        let directory = journal(10, FAR);
        let (kept, ways_in) = trim(directory.path(), 10, retention);
        assert_eq!(ways_in[0], first, "{retention:?}");
        assert_eq!(segments(directory.path())[0], first, "{retention:?}");
        assert!(kept.bytes <= retention.bytes, "{kept:?}");
        assert_eq!(kept.since_unix_ns, Some((1 + (first - 1) / 3) * HOUR_NS));
        // Nothing of what a machine goes on from is gone.
        assert_eq!(*ways_in.last().unwrap(), 31);
        assert!(segments(directory.path()).ends_with(&[31, 32, 33]));
    }
}

/// Finding: history filled the disk, and the journal failed for it.
#[test]
fn history_goes_before_the_next_snapshot_finds_no_room() {
    let everything = Retention {
        bytes: u64::MAX,
        age: Duration::MAX,
    };
    let first_with = |free_bytes: Option<u64>| {
        let directory = journal(10, FAR);
        trim_with_room(directory.path(), 10, free_bytes, everything);
        segments(directory.path())[0]
    };
    let files = journal(10, FAR);
    let snapshots = DirectoryFiles(files.path().into())
        .list()
        .unwrap()
        .snapshots;
    let enough = LEAST_FREE_BYTES + 2 * snapshots.values().max().unwrap();
    // Where nobody says what is free, what is to be kept is kept.
    assert_eq!(first_with(None), 1);
    assert_eq!(first_with(Some(enough)), 1);
    // What is lacking comes from the history, as far as there is any.
    assert_eq!(first_with(Some(enough - 3000)), 4);
    assert_eq!(first_with(Some(0)), 31);
}

#[test]
fn a_snapshot_between_two_that_are_near_goes_and_no_record_does() {
    let directory = journal(10, FAR / 3);
    let everything = Retention {
        bytes: u64::MAX,
        age: Duration::MAX,
    };
    let (_, ways_in) = trim(directory.path(), 10, everything);
    let counts: Vec<u64> = ways_in.iter().map(|number| (number - 1) / 3).collect();
    // The newest is not one of those that go, and neither is the first.
    assert_eq!(counts, [0, 1, 4, 7, 10]);
    assert_eq!(segments(directory.path()).len(), 33);
}

/// The snapshots that a machine, or whoever looks into the history, reads with this one.
fn chain(files: &DirectoryFiles, newest: u64) -> Vec<u64> {
    let mut chain = vec![newest];
    while let Some(head) = snapshot_head(files, chain[chain.len() - 1]).unwrap()
        && let Some(base) = head.builds_on
    {
        chain.push(base.segment);
    }
    chain
}

/// Bytes of everything that is there but for these snapshots, and for segments from the newest of them on.
fn bytes_but_for(files: &DirectoryFiles, needed: &[u64]) -> u64 {
    let there = files.list().unwrap();
    let segments = there.segments.range(..needed[0]).map(|(_, bytes)| bytes);
    let snapshots = there.snapshots.iter();
    let snapshots = snapshots.filter(|(number, _)| !needed.contains(number));
    segments.sum::<u64>() + snapshots.map(|(_, bytes)| bytes).sum::<u64>()
}

#[test]
fn what_the_newest_builds_on_stays_without_its_records_and_is_no_history() {
    let directory = journal_with(10, FAR, |hour| hour > 6);
    let (kept, snapshots) = trim(directory.path(), 10, Retention::NOTHING);
    assert_eq!(snapshots, [19, 22, 25, 28, 31]);
    assert_eq!(segments(directory.path()), [31, 32, 33]);
    assert_eq!(kept.bytes, 0);
    assert_eq!(kept.since_unix_ns, Some(11 * HOUR_NS));
}

#[test]
fn the_last_of_a_row_goes_first_where_another_snapshot_is_near() {
    let everything = Retention {
        bytes: u64::MAX,
        age: Duration::MAX,
    };
    // All of a row that ended is near to the whole one after it, but for its first.
    let directory = journal_with(10, FAR / 6, |hour| !matches!(hour, 0 | 5));
    let (_, snapshots) = trim(directory.path(), 10, everything);
    let hours: Vec<u64> = snapshots.iter().map(|number| (number - 1) / 3).collect();
    assert_eq!(hours, [0, 5, 6, 7, 8, 9, 10]);
    assert_eq!(segments(directory.path()).len(), 33);
}

/// A snapshot that is kept because a later one builds on it is none to begin with when its records have gone.
#[test]
fn history_never_begins_with_a_snapshot_whose_records_have_gone() {
    let directory = journal_with(4, FAR, |hour| hour > 0);
    let hours = |hours: u64| Retention {
        bytes: u64::MAX,
        age: Duration::from_secs(hours * 3600),
    };
    let (kept, snapshots) = trim(directory.path(), 4, hours(2));
    assert_eq!(segments(directory.path())[0], 7);
    assert_eq!(snapshots, [1, 4, 7, 10, 13]);
    assert_eq!(kept.since_unix_ns, Some(3 * HOUR_NS));
    let (kept, _) = trim(directory.path(), 4, hours(1000));
    assert_eq!(kept.since_unix_ns, Some(3 * HOUR_NS));
}

proptest! {
    /// However snapshots build on each other, and whatever is to be kept: whatever stays has all on which it builds,
    /// what has no use is not there, and bytes are those of what no machine needs.
    #[test]
    fn what_stays_is_whole_and_what_nobody_needs_has_gone(
        increments in prop::collection::vec(any::<bool>(), 1..14),
        instructions in prop::sample::select(vec![FAR / 9, FAR / 3, FAR]),
        bytes in prop::sample::select(vec![0, 3_500, 8_000, 20_000, u64::MAX]),
        hours in 0u64..16,
    ) {
        let last = increments.len() as u64;
        let is_increment = |hour: u64| hour > 0 && increments[hour as usize - 1];
        let directory = journal_with(last, instructions, is_increment);
        let retention = Retention { bytes, age: Duration::from_secs(hours * 3600) };
        let (kept, snapshots) = trim(directory.path(), last, retention);
        let files = DirectoryFiles(directory.path().into());
        let newest = 1 + 3 * last;
        let first = segments(directory.path())[0];
        let mut used: BTreeSet<u64> = BTreeSet::new();
        for number in snapshots.iter().filter(|number| **number >= first) {
            for base in chain(&files, *number) {
                prop_assert!(snapshots.contains(&base), "{} is gone, and {} stays", base, number);
                used.insert(base);
            }
        }
        prop_assert!(snapshots.contains(&newest));
        prop_assert!(snapshots.contains(&first), "records after {} begin with no snapshot", first);
        prop_assert_eq!(used.into_iter().collect::<Vec<_>>(), snapshots);
        prop_assert_eq!(kept.bytes, bytes_but_for(&files, &chain(&files, newest)));
        prop_assert!(kept.bytes <= retention.bytes);
    }
}
