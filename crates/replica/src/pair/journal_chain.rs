//! How the snapshots of a journal build on each other: most hold what changed since the one before, some are whole.
//!
//! Going on reads all of them, from the whole one on. So what builds on it may have as many bytes as it has itself:
//! reading takes twice as long at most, and in the long run what is written is at most twice what changed. Where that
//! would take more than its part of `recover_within`, it may have a quarter of them.

use crate::journal::{Loading, WrittenSnapshot};
use replication::journal::BaseSnapshot;
use replication::succession::JournalId;
use std::time::Duration;

/// Snapshots that build on a whole one, at most: in a bucket each is some requests more for whoever goes on.
pub(super) const MOST_INCREMENTS: u64 = 32;

/// The newest snapshots of a journal, of which each builds on the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotChain {
    journal: JournalId,
    newest: BaseSnapshot,
    whole_bytes: u64,
    increments: u64,
    increment_bytes: u64,
}

impl SnapshotChain {
    /// With another one, which builds on those `before` if there are any.
    pub fn with(
        before: Option<SnapshotChain>,
        journal: JournalId,
        written: WrittenSnapshot,
    ) -> SnapshotChain {
        match before {
            None => SnapshotChain {
                journal,
                newest: written.is,
                whole_bytes: written.bytes,
                increments: 0,
                increment_bytes: 0,
            },
            Some(before) => {
                assert!(
                    before.journal == journal && before.newest.segment < written.is.segment,
                    "a snapshot builds on one of its journal that precedes it"
                );
                SnapshotChain {
                    newest: written.is,
                    increments: before.increments + 1,
                    increment_bytes: before.increment_bytes + written.bytes,
                    ..before
                }
            }
        }
    }

    /// The journal that they are of.
    pub fn journal(&self) -> JournalId {
        self.journal
    }

    /// The one on which the next may build.
    pub fn newest(&self) -> BaseSnapshot {
        self.newest
    }

    /// Bytes that whoever goes on reads.
    pub fn bytes(&self) -> u64 {
        self.whole_bytes + self.increment_bytes
    }

    /// Whether another one may build on them, rather than be whole.
    pub fn may_grow(&self, speed: LoadingSpeed, within: Duration) -> bool {
        let is_quick = speed.of(self.bytes()) * LOADING_PART <= within;
        let most = self.whole_bytes / if is_quick { 1 } else { 4 };
        self.increments < MOST_INCREMENTS && self.increment_bytes <= most
    }
}

/// Reading snapshots is to take one part in so many of `recover_within`.
const LOADING_PART: u32 = 4;

/// How fast snapshots are read, checked and unpacked, and a machine is made of them, in bytes of their files a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LoadingSpeed(f64);

impl Default for LoadingSpeed {
    /// Until it was measured; chosen with room.
    fn default() -> LoadingSpeed {
        LoadingSpeed(50e6)
    }
}

impl LoadingSpeed {
    /// As it was when this host went on from its journal. Of a few bytes nothing is learnt.
    pub fn measured(loading: Loading) -> LoadingSpeed {
        const LEAST_BYTES: u64 = 1 << 20;
        let seconds = loading.took.as_secs_f64();
        if loading.bytes < LEAST_BYTES || seconds <= 0.0 {
            return LoadingSpeed::default();
        }
        LoadingSpeed(loading.bytes as f64 / seconds)
    }

    /// How long so many bytes take.
    pub fn of(self, bytes: u64) -> Duration {
        // No place has a million times that, and none takes a year.
        Duration::from_secs_f64(bytes as f64 / self.0.max(1.0))
    }
}

/// How long a replay may take before another snapshot is due, where reading those that are there takes so long: half of
/// `within`, and less where reading them, by a host that is half as fast, would not fit into the other half.
pub(super) fn replay_within(within: Duration, loading: Duration) -> Duration {
    let left = within.saturating_sub(loading * 2);
    left.clamp(within / 8, within / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::life_log::LogMark;

    const JOURNAL: JournalId = JournalId(1);
    const WITHIN: Duration = Duration::from_secs(10);

    fn written(segment: u64, bytes: u64) -> WrittenSnapshot {
        let mark = LogMark(segment.into());
        WrittenSnapshot {
            is: BaseSnapshot { segment, mark },
            bytes,
        }
    }

    /// A whole one of a hundred million bytes, and how many of `bytes` come to build on it.
    fn increments(bytes: u64, speed: f64) -> u64 {
        let mut chain = SnapshotChain::with(None, JOURNAL, written(1, 100_000_000));
        while chain.may_grow(LoadingSpeed(speed), WITHIN) {
            let next = written(chain.newest().segment + 1, bytes);
            chain = SnapshotChain::with(Some(chain), JOURNAL, next);
        }
        assert_eq!(chain.newest().segment, 1 + chain.increments);
        chain.increments
    }

    #[test]
    fn what_builds_on_a_whole_one_comes_to_its_bytes_or_a_quarter_where_reading_takes_long() {
        assert_eq!(increments(30_000_000, 1e9), 4);
        assert_eq!(increments(100_000_000, 1e9), 2);
        assert_eq!(increments(1_000_000_000, 1e9), 1);
        assert_eq!(increments(1, 1e9), MOST_INCREMENTS);
        // Reading it alone takes five seconds of ten.
        assert_eq!(increments(30_000_000, 20e6), 1);
        assert_eq!(increments(10_000_000, 20e6), 3);
    }

    #[test]
    #[should_panic(expected = "of its journal")]
    fn a_snapshot_does_not_build_on_one_of_another_journal() {
        let chain = SnapshotChain::with(None, JOURNAL, written(1, 1));
        SnapshotChain::with(Some(chain), JournalId(2), written(2, 1));
    }

    #[test]
    fn a_replay_has_half_of_the_time_or_what_reading_leaves() {
        let seconds = Duration::from_secs;
        for (loading, replay) in [(0, 5), (2, 5), (3, 4), (4, 2)] {
            assert_eq!(replay_within(WITHIN, seconds(loading)), seconds(replay));
        }
        // It is never begun anew all the time.
        assert_eq!(replay_within(WITHIN, seconds(60)), WITHIN / 8);
    }

    #[test]
    fn a_speed_is_learnt_from_what_took_its_time() {
        let took = Duration::from_millis(500);
        let measured = |bytes| LoadingSpeed::measured(Loading { bytes, took });
        assert_eq!(measured(100 << 20).of(200 << 20), Duration::from_secs(1));
        assert_eq!(measured(1000), LoadingSpeed::default());
    }
}
