//! What of a journal goes when a newer snapshot is there: by bytes, by age, and snapshots that are no more than a
//! way into the history where another one is close by.

use super::KeptHistory;
use super::directory::{
    UNFINISHED, segment_path, segments, snapshot_head, snapshot_path, snapshots,
};
use crate::config::Retention;
use environment::fs;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};

/// Of the snapshots that no machine goes on from there is one for so many instructions, about: a minute or two of
/// replaying to any moment after it. Each is as large as the memory in use, packed; the records between them are
/// not.
const WAY_IN_INSTRUCTIONS: u64 = 20_000_000_000;

/// A snapshot that is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WayIn {
    bytes: u64,
    /// Where it was taken.
    count: u64,
    /// When, in nanoseconds since 1970; 0: it does not say.
    unix_ns: u64,
}

/// The files of a journal that are written to no more.
#[derive(Debug, Default)]
pub(super) struct Kept {
    journal: PathBuf,
    /// Bytes of segments, by their numbers.
    segments: BTreeMap<u64, u64>,
    /// Snapshots, by the segments that begin with them.
    ways_in: BTreeMap<u64, WayIn>,
}

impl Kept {
    /// A machine can go on from the snapshot of this segment: what precedes it goes as far as it is not to be
    /// kept. What is left begins with a snapshot.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn trim(
        &mut self,
        journal: &Path,
        newest: u64,
        retention: Retention,
        now_unix_ns: u64,
    ) -> io::Result<KeptHistory> {
        self.look(journal, newest)?;
        self.thin_out(newest)?;
        let oldest = now_unix_ns.saturating_sub(saturated_ns(retention));
        let first = self.first_kept(newest, retention.bytes, oldest);
        self.remove_before(first)?;
        // Those that were being written when everything ended.
        for name in fs::names(journal)? {
            if name.ends_with(UNFINISHED) {
                fs::remove_file(&journal.join(name))?;
            }
        }
        fs::sync_directory(journal)?;
        let since = self.ways_in.values().next().map(|way_in| way_in.unix_ns);
        Ok(KeptHistory {
            bytes: self.bytes_from(0, newest),
            since_unix_ns: since.filter(|unix_ns| *unix_ns > 0),
        })
    }

    /// Sees what is there. How long a file is that is not written to any more is asked once.
    fn look(&mut self, journal: &Path, newest: u64) -> io::Result<()> {
        if self.journal != journal {
            *self = Kept {
                journal: journal.into(),
                ..Kept::default()
            };
        }
        let length = |path: &Path| fs::look_at(path).map(|(_, bytes)| bytes);
        let there = segments(journal)?;
        self.segments
            .retain(|number, _| there.binary_search(number).is_ok());
        for number in there.into_iter().filter(|number| *number < newest) {
            if let Entry::Vacant(unknown) = self.segments.entry(number) {
                unknown.insert(length(&segment_path(journal, number))?);
            }
        }
        let there = snapshots(journal)?;
        self.ways_in
            .retain(|number, _| there.binary_search(number).is_ok());
        for number in there.into_iter().filter(|number| *number <= newest) {
            if let Entry::Vacant(unknown) = self.ways_in.entry(number) {
                let path = snapshot_path(journal, number);
                let head = snapshot_head(&path)?;
                let times = head.as_ref().and_then(|head| head.times);
                let way_in = WayIn {
                    bytes: length(&path)?,
                    count: head.map_or(0, |head| head.place.count),
                    unix_ns: times.map_or(0, |times| times.unix_ns),
                };
                unknown.insert(way_in);
            }
        }
        Ok(())
    }

    /// Removes snapshots between two that are so close that any moment between them is reached soon from the
    /// first.
    fn thin_out(&mut self, newest: u64) -> io::Result<()> {
        let numbers: Vec<u64> = self.ways_in.keys().copied().collect();
        let Some(mut before) = numbers.first().copied() else {
            return Ok(());
        };
        for between in numbers.windows(2).skip(1) {
            let &[number, after] = between else {
                continue;
            };
            let count = |number: u64| self.ways_in[&number].count;
            let is_near = count(after).saturating_sub(count(before)) <= WAY_IN_INSTRUCTIONS;
            if is_near && after <= newest {
                fs::remove_file(&snapshot_path(&self.journal, number))?;
                self.ways_in.remove(&number);
            } else {
                before = number;
            }
        }
        Ok(())
    }

    /// The snapshot with which begins what is kept.
    fn first_kept(&self, newest: u64, most_bytes: u64, oldest_unix_ns: u64) -> u64 {
        let begins: Vec<u64> = self.ways_in.keys().copied().collect();
        let mut pairs = begins.windows(2).map(|pair| (pair[0], pair[1]));
        let kept = pairs.find(|(begin, next)| {
            // What follows a snapshot is as old as the next one says.
            self.ways_in[next].unix_ns > oldest_unix_ns
                && self.bytes_from(*begin, newest) <= most_bytes
        });
        kept.map_or(newest, |(begin, _)| begin)
    }

    /// Bytes of what is there from this number on, and precedes the newest snapshot.
    fn bytes_from(&self, first: u64, newest: u64) -> u64 {
        let segments = self.segments.range(first..newest).map(|(_, bytes)| bytes);
        let ways_in = self.ways_in.range(first..newest);
        segments.sum::<u64>() + ways_in.map(|(_, way_in)| way_in.bytes).sum::<u64>()
    }

    fn remove_before(&mut self, first: u64) -> io::Result<()> {
        // A snapshot goes after what follows it: it is never there for nothing but a moment.
        while let Some((number, _)) = self.segments.first_key_value().filter(|(n, _)| **n < first) {
            let number = *number;
            fs::remove_file(&segment_path(&self.journal, number))?;
            self.segments.remove(&number);
        }
        while let Some((number, _)) = self.ways_in.first_key_value().filter(|(n, _)| **n < first) {
            let number = *number;
            fs::remove_file(&snapshot_path(&self.journal, number))?;
            self.ways_in.remove(&number);
        }
        Ok(())
    }
}

fn saturated_ns(retention: Retention) -> u64 {
    u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::journal::{JournalHead, MachineTimes, SnapshotFileWriter};
    use replication::life_log::{LogMark, Place};
    use replication::message::LifeId;
    use replication::succession::{JournalId, LifeNumber, MachineName};
    use std::time::Duration;

    const HOUR_NS: u64 = 3_600_000_000_000;

    /// A snapshot an hour, with so many instructions between two, and three segments to each.
    fn journal(hours: u64, instructions: u64) -> tempfile::TempDir {
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
                    record: hour,
                    count: hour * instructions,
                    mark: LogMark(0),
                },
                visible_outputs: 0,
                disk_layer: 0,
                times: Some(MachineTimes {
                    guest_ns: hour * HOUR_NS,
                    unix_ns: (1 + hour) * HOUR_NS,
                }),
                builds_on: 0,
            };
            let mut writer = SnapshotFileWriter::begin(&head);
            writer.end();
            let path = snapshot_path(directory.path(), number);
            std::fs::write(path, writer.take_bytes()).unwrap();
            for segment in number..number + 3 {
                std::fs::write(segment_path(directory.path(), segment), [0; 1000]).unwrap();
            }
        }
        directory
    }

    fn trim(directory: &Path, hours: u64, retention: Retention) -> (KeptHistory, Vec<u64>) {
        let newest = 1 + 3 * hours;
        let mut kept = Kept::default();
        let first = kept.trim(directory, newest, retention, (1 + hours) * HOUR_NS);
        let first = first.unwrap();
        // What is known of what is there does not change what is kept.
        let again = kept.trim(directory, newest, retention, (1 + hours) * HOUR_NS);
        assert_eq!(again.unwrap(), first);
        (first, snapshots(directory).unwrap())
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
            assert_eq!(
                segments(directory.path()).unwrap()[0],
                first,
                "{retention:?}"
            );
            assert!(kept.bytes <= retention.bytes, "{kept:?}");
            assert_eq!(kept.since_unix_ns, Some((1 + (first - 1) / 3) * HOUR_NS));
            // Nothing of what a machine goes on from is gone.
            assert_eq!(*ways_in.last().unwrap(), 31);
            assert!(segments(directory.path()).unwrap().ends_with(&[31, 32, 33]));
        }
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
        assert_eq!(counts, [0, 3, 6, 9, 10]);
        assert_eq!(segments(directory.path()).unwrap().len(), 33);
    }
}
