//! What of a journal goes when a newer snapshot is there: by bytes, by age, and snapshots that are no more than a
//! way into the history where another one is close by.

use super::storage::{JournalFile, JournalFiles, snapshot_head};
use super::{JournalNews, KeptHistory, News};
use crate::config::Retention;
use crate::host_time::unix_ns;
use environment::mpsc::{self, Sender};
use replication::succession::JournalId;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A machine can go on from the snapshot of this segment.
struct Trim {
    id: JournalId,
    files: Arc<dyn JournalFiles>,
    segment: u64,
}

/// Removes what is too old, on a thread of its own: no record waits for that.
pub(super) struct RetentionThread {
    trims: Sender<Trim>,
}

impl RetentionThread {
    /// Starts it. It ends when this is dropped.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(retention: Retention, news: News) -> io::Result<RetentionThread> {
        let (trims, wanted) = mpsc::channel::<Trim>();
        environment::thread::Builder::new()
            .name("journal-retention".into())
            .spawn(move || {
                let mut kept = Kept::default();
                while let Ok(Trim { id, files, segment }) = wanted.recv() {
                    let trimmed = kept.trim(&*files, segment, retention, unix_ns());
                    news.tell(match trimmed {
                        Ok(kept) => JournalNews::Trimmed(id, kept),
                        // It is still there at the next snapshot.
                        Err(error) => JournalNews::NotTrimmed(id, error.to_string()),
                    });
                }
            })?;
        Ok(RetentionThread { trims })
    }

    /// A machine can go on from the snapshot of this segment.
    pub fn trim(&self, id: JournalId, files: Arc<dyn JournalFiles>, segment: u64) {
        // The thread ends only with this object.
        let _sent = self.trims.send(Trim { id, files, segment });
    }
}

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
        journal: &dyn JournalFiles,
        newest: u64,
        retention: Retention,
        now_unix_ns: u64,
    ) -> io::Result<KeptHistory> {
        self.look(journal, newest)?;
        let mut going = self.thin_out(newest);
        let oldest = now_unix_ns.saturating_sub(saturated_ns(retention));
        let first = self.first_kept(newest, retention.bytes, oldest);
        going.extend(self.before(first));
        let is_removed = journal.remove(&going, newest)?;
        for file in going.into_iter().filter(|_| is_removed) {
            match file {
                JournalFile::Segment(number) => self.segments.remove(&number).map(|_| ()),
                JournalFile::Snapshot(number) => self.ways_in.remove(&number).map(|_| ()),
            };
        }
        let since = self.ways_in.values().next().map(|way_in| way_in.unix_ns);
        Ok(KeptHistory {
            bytes: self.bytes_from(0, newest),
            since_unix_ns: since.filter(|unix_ns| *unix_ns > 0),
        })
    }

    /// Sees what is there. What a snapshot says of itself is asked once.
    fn look(&mut self, journal: &dyn JournalFiles, newest: u64) -> io::Result<()> {
        let path = journal.path(None);
        if self.journal != path {
            *self = Kept {
                journal: path,
                ..Kept::default()
            };
        }
        let there = journal.list()?;
        self.segments = there.segments;
        self.segments.retain(|number, _| *number < newest);
        self.ways_in
            .retain(|number, _| there.snapshots.contains_key(number));
        for (number, bytes) in there.snapshots.range(..=newest) {
            if let Entry::Vacant(unknown) = self.ways_in.entry(*number) {
                let head = snapshot_head(journal, *number)?;
                let times = head.as_ref().and_then(|head| head.times);
                let way_in = WayIn {
                    bytes: *bytes,
                    count: head.map_or(0, |head| head.place.count),
                    unix_ns: times.map_or(0, |times| times.unix_ns),
                };
                unknown.insert(way_in);
            }
        }
        Ok(())
    }

    /// Snapshots between two that are so close that any moment between them is reached soon from the first: they go.
    fn thin_out(&mut self, newest: u64) -> Vec<JournalFile> {
        let numbers: Vec<u64> = self.ways_in.keys().copied().collect();
        let mut going = Vec::new();
        let Some(mut before) = numbers.first().copied() else {
            return going;
        };
        for between in numbers.windows(2).skip(1) {
            let &[number, after] = between else {
                continue;
            };
            let count = |number: u64| self.ways_in[&number].count;
            let is_near = count(after).saturating_sub(count(before)) <= WAY_IN_INSTRUCTIONS;
            if is_near && after <= newest {
                going.push(JournalFile::Snapshot(number));
            } else {
                before = number;
            }
        }
        for file in &going {
            if let JournalFile::Snapshot(number) = file {
                self.ways_in.remove(number);
            }
        }
        going
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

    /// A snapshot goes after what follows it: it is never there for nothing but a moment.
    fn before(&self, first: u64) -> Vec<JournalFile> {
        let segments = self.segments.range(..first);
        let ways_in = self.ways_in.range(..first);
        let segments = segments.map(|(number, _)| JournalFile::Segment(*number));
        segments
            .chain(ways_in.map(|(number, _)| JournalFile::Snapshot(*number)))
            .collect()
    }
}

fn saturated_ns(retention: Retention) -> u64 {
    u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::storage::DirectoryFiles;
    use replication::journal::{JournalHead, MachineTimes, SnapshotFileWriter};
    use replication::life_log::{LogMark, Place};
    use replication::message::LifeId;
    use replication::succession::{JournalId, LifeNumber, MachineName};
    use std::path::Path;
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
        let newest = 1 + 3 * hours;
        let mut kept = Kept::default();
        let files = DirectoryFiles(directory.into());
        let first = kept.trim(&files, newest, retention, (1 + hours) * HOUR_NS);
        let first = first.unwrap();
        // What is known of what is there does not change what is kept.
        let again = kept.trim(&files, newest, retention, (1 + hours) * HOUR_NS);
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
        assert_eq!(segments(directory.path()).len(), 33);
    }
}
