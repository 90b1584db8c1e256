//! What of a journal goes when a newer snapshot is there: by bytes, by age, and snapshots that are no more than a
//! way into the history where another one is close by. None goes on which one builds that stays.

use super::storage::{JournalFile, JournalFiles, snapshot_head};
use super::{JournalNews, KeptHistory, News};
use crate::config::Retention;
use crate::host_time::unix_ns;
use environment::mpsc::{self, Sender};
use replication::mutation::{Mutation, Mutations};
use replication::record::InstructionCount;
use replication::succession::JournalId;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
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
    pub fn start(
        retention: Retention,
        mutations: Mutations,
        news: News,
    ) -> io::Result<RetentionThread> {
        let (trims, wanted) = mpsc::channel::<Trim>();
        environment::thread::Builder::new()
            .name("journal-retention".into())
            .spawn(move || {
                let mut kept = Kept {
                    forgets_bases: mutations.active(Mutation::BaseSnapshotGoes),
                    ..Kept::default()
                };
                while let Ok(Trim { id, files, segment }) = wanted.recv() {
                    // Where nobody says how much is free, what is to be kept is kept.
                    let free_bytes = files.free_bytes().ok().flatten();
                    let trimmed = kept.trim(&*files, segment, free_bytes, retention, unix_ns());
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

/// Beside what the next snapshot takes, so many bytes should be free.
const LEAST_FREE_BYTES: u64 = 16 << 20;

/// A snapshot that is there to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    bytes: u64,
    /// The one on which it builds.
    base: Option<u64>,
    /// Where it was taken.
    count: InstructionCount,
    /// When, in nanoseconds since 1970; 0: it does not say.
    unix_ns: u64,
}

/// The files of a journal that are written to no more.
#[derive(Debug, Default)]
pub(super) struct Kept {
    journal: PathBuf,
    /// Bytes of segments, by their numbers.
    segments: BTreeMap<u64, u64>,
    /// Snapshots, by the segments that begin with them. Those before the first segment are there for others alone,
    /// which build on them.
    snapshots: BTreeMap<u64, Snapshot>,
    /// A bug, for the simulator.
    forgets_bases: bool,
}

impl Kept {
    /// A machine can go on from the snapshot of this segment: what precedes it goes as far as it is not to be
    /// kept. What is left of the history begins with a snapshot. `free_bytes`: on the disk where it is, if that is known.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn trim(
        &mut self,
        journal: &dyn JournalFiles,
        newest: u64,
        free_bytes: Option<u64>,
        retention: Retention,
        now_unix_ns: u64,
    ) -> io::Result<KeptHistory> {
        self.look(journal, newest)?;
        let thinned = self.thin_out(newest);
        let oldest = now_unix_ns.saturating_sub(saturated_ns(retention));
        let most_bytes = retention.bytes.min(match free_bytes {
            Some(free) => self.history_with_room(newest, free, &thinned),
            None => u64::MAX,
        });
        let first = self.first_kept(newest, most_bytes, oldest, &thinned);
        let going = self.going(first, newest, &thinned);
        let is_removed = journal.remove(&going, newest)?;
        for file in going.into_iter().filter(|_| is_removed) {
            match file {
                JournalFile::Segment(number) => self.segments.remove(&number).map(|_| ()),
                JournalFile::Snapshot(number) => self.snapshots.remove(&number).map(|_| ()),
            };
        }
        let since = self.ways_in(newest).next();
        let since = since.map(|(_, snapshot)| snapshot.unix_ns);
        let segment_bytes: u64 = self.segments.values().sum();
        let needed = self.needed_by(BTreeSet::from([newest]));
        let snapshots = self.snapshots.iter();
        let snapshots = snapshots.filter(|(number, _)| !needed.contains(number));
        Ok(KeptHistory {
            bytes: segment_bytes + snapshots.map(|(_, snapshot)| snapshot.bytes).sum::<u64>(),
            since_unix_ns: since.filter(|unix_ns| *unix_ns > 0),
        })
    }

    /// Sees what is there. What a snapshot says of itself is asked once.
    fn look(&mut self, journal: &dyn JournalFiles, newest: u64) -> io::Result<()> {
        let path = journal.path(None);
        if self.journal != path {
            *self = Kept {
                journal: path,
                forgets_bases: self.forgets_bases,
                ..Kept::default()
            };
        }
        let there = journal.list()?;
        self.segments = there.segments;
        self.segments.retain(|number, _| *number < newest);
        self.snapshots
            .retain(|number, _| there.snapshots.contains_key(number));
        for (number, bytes) in there.snapshots.range(..=newest) {
            if let Entry::Vacant(unknown) = self.snapshots.entry(*number) {
                let head = snapshot_head(journal, *number)?;
                let base = head.as_ref().and_then(|head| head.builds_on);
                let times = head.as_ref().and_then(|head| head.times);
                unknown.insert(Snapshot {
                    bytes: *bytes,
                    base: base.map(|base| base.segment),
                    count: head.map(|head| head.place.count).unwrap_or_default(),
                    unix_ns: times.map_or(0, |times| times.unix_ns),
                });
            }
        }
        Ok(())
    }

    /// Snapshots after which there are records, the newest among them.
    fn ways_in(&self, newest: u64) -> impl Iterator<Item = (u64, &Snapshot)> {
        let first = self.segments.keys().next().copied();
        let ways_in = self.snapshots.range(first.unwrap_or(newest)..=newest);
        ways_in.map(|(number, snapshot)| (*number, snapshot))
    }

    /// These snapshots, and those on which they build.
    fn needed_by(&self, mut snapshots: BTreeSet<u64>) -> BTreeSet<u64> {
        if self.forgets_bases {
            return snapshots;
        }
        let mut looked_at: Vec<u64> = snapshots.iter().copied().collect();
        while let Some(number) = looked_at.pop() {
            let base = self.snapshots.get(&number).and_then(|it| it.base);
            looked_at.extend(base.filter(|base| snapshots.insert(*base)));
        }
        snapshots
    }

    /// Snapshots between two that are so close that any moment between them is reached soon from the first: they go.
    /// The last of a row that builds on each other goes first.
    fn thin_out(&self, newest: u64) -> BTreeSet<u64> {
        let mut staying: Vec<(u64, &Snapshot)> = self.ways_in(newest).collect();
        let mut going = BTreeSet::new();
        let mut after = staying.pop();
        while let (Some((number, snapshot)), Some((_, later))) = (staying.pop(), after) {
            let before = staying.last().map(|(_, before)| before.count);
            let is_near =
                before.is_some_and(|before| later.count.beyond(before) <= WAY_IN_INSTRUCTIONS);
            let mut others = self.snapshots.iter();
            let is_needed =
                others.any(|(other, it)| it.base == Some(number) && !going.contains(other));
            if is_near && !is_needed {
                going.insert(number);
            } else {
                after = Some((number, snapshot));
            }
        }
        going
    }

    /// So many bytes of history there may be if so many are free: a journal that finds no room for its next snapshot
    /// fails, and the machine with it is without one. No history is worth that.
    fn history_with_room(&self, newest: u64, free: u64, thinned: &BTreeSet<u64>) -> u64 {
        let snapshots = self.snapshots.values().map(|snapshot| snapshot.bytes);
        // The next one, and records until the one before goes.
        let needed = snapshots.max().unwrap_or(0).saturating_mul(2);
        let lacking = needed.saturating_add(LEAST_FREE_BYTES).saturating_sub(free);
        if lacking == 0 {
            return u64::MAX;
        }
        let first = self.ways_in(newest).next().map_or(newest, |way| way.0);
        let history = self.history_bytes(first, newest, thinned);
        history.saturating_sub(lacking)
    }

    /// The snapshot with which begins what is kept.
    fn first_kept(
        &self,
        newest: u64,
        most_bytes: u64,
        oldest_unix_ns: u64,
        thinned: &BTreeSet<u64>,
    ) -> u64 {
        let begins = self.ways_in(newest).map(|(number, _)| number);
        let begins = begins.filter(|number| !thinned.contains(number));
        let begins: Vec<u64> = begins.collect();
        let mut pairs = begins.windows(2).map(|pair| (pair[0], pair[1]));
        let kept = pairs.find(|(begin, next)| {
            // What follows a snapshot is as old as the next one says.
            self.snapshots[next].unix_ns > oldest_unix_ns
                && self.history_bytes(*begin, newest, thinned) <= most_bytes
        });
        kept.map_or(newest, |(begin, _)| begin)
    }

    /// Snapshots that are needed where this is the first one that is kept.
    fn staying(&self, first: u64, newest: u64, thinned: &BTreeSet<u64>) -> BTreeSet<u64> {
        let kept = self.snapshots.range(first..=newest);
        let kept = kept.map(|(number, _)| *number);
        self.needed_by(kept.filter(|number| !thinned.contains(number)).collect())
    }

    /// Bytes of what is kept from this snapshot on, and of the snapshots before on which those build, but for what a
    /// machine goes on from.
    fn history_bytes(&self, first: u64, newest: u64, thinned: &BTreeSet<u64>) -> u64 {
        let segments = self.segments.range(first..newest).map(|(_, bytes)| bytes);
        let needed = self.needed_by(BTreeSet::from([newest]));
        let history = &self.staying(first, newest, thinned) - &needed;
        let snapshots = history
            .iter()
            .filter_map(|number| self.snapshots.get(number));
        segments.sum::<u64>() + snapshots.map(|snapshot| snapshot.bytes).sum::<u64>()
    }

    /// A snapshot goes after what follows it, and after what builds on it: it is never there for nothing but a moment.
    fn going(&self, first: u64, newest: u64, thinned: &BTreeSet<u64>) -> Vec<JournalFile> {
        let staying = self.staying(first, newest, thinned);
        let segments = self.segments.range(..first);
        let segments = segments.map(|(number, _)| JournalFile::Segment(*number));
        let snapshots = self.snapshots.range(..newest).rev();
        let snapshots = snapshots.map(|(number, _)| *number);
        let snapshots = snapshots.filter(|number| !staying.contains(number));
        segments
            .chain(snapshots.map(JournalFile::Snapshot))
            .collect()
    }
}

fn saturated_ns(retention: Retention) -> u64 {
    u64::try_from(retention.age.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
