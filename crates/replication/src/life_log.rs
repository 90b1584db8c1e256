//! The log of a life, as far as memory holds it. `docs/protocol.md`, "One log, many followers".
//!
//! Whoever is the primary appends; a member appends what it receives. The newest records stay for
//! followers that have to have them sent yet, and for those that come back: whoever stands at a
//! place that the log still knows goes on from there.

use crate::message::LifeId;
use crate::record::{InstructionCount, Record, RecordBody, RecordNumber};
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A digest of all records of the life since its machine was started last, from images or a disk. Two
/// logs of one life whose marks are equal at a number have the same records up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMark(pub u128);

impl LogMark {
    /// Of a log without records: `life` starts again after `record`.
    pub fn of_start(life: LifeId, record: RecordNumber) -> LogMark {
        let seed = record.0 ^ (life.0 >> 64) as u64;
        LogMark(xxh3_128_with_seed(&life.0.to_le_bytes(), seed))
    }

    /// Of a log that no longer says what a machine was made to do: it stands there with another `digest`
    /// than the log's.
    pub fn uncompared(self, digest: u128) -> LogMark {
        let mut block = [0; 32];
        block[..16].copy_from_slice(&self.0.to_le_bytes());
        block[16..].copy_from_slice(&digest.to_le_bytes());
        LogMark(xxh3_128_with_seed(&block, 3))
    }

    fn then(self, record: &Record) -> LogMark {
        let (tag, body) = match &record.body {
            RecordBody::Input(bytes) => (0, xxh3_128_with_seed(bytes, 0)),
            RecordBody::Marker { visible_outputs } => (1, (*visible_outputs).into()),
            RecordBody::Digest(digest) => (2, *digest),
            RecordBody::Piece(bytes) => (4, xxh3_128_with_seed(bytes, 0)),
            RecordBody::Checkpoint(bytes) => (5, xxh3_128_with_seed(bytes, 0)),
            RecordBody::Written(digest) => (6, *digest),
        };
        let mut block = [0; 40];
        block[..16].copy_from_slice(&self.0.to_le_bytes());
        block[16..32].copy_from_slice(&body.to_le_bytes());
        block[32..].copy_from_slice(&record.count.0.to_le_bytes());
        LogMark(xxh3_128_with_seed(&block, tag))
    }
}

/// A place in the log of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the last record before it.
    pub record: RecordNumber,
    /// Instruction count of that record, or where the snapshot was taken.
    pub count: InstructionCount,
    /// Of everything up to it.
    pub mark: LogMark,
}

/// How a place of somebody else's log lies to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Everything up to there is here, the same.
    Prefix,
    /// It is older than what this log remembers: it may be a prefix, but nobody can know.
    Forgotten,
    /// It is no prefix: another history, or one that went further.
    Differs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Logged {
    record: Record,
    bytes: usize,
    mark: LogMark,
}

/// The newest records of a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeLog {
    /// Where the records that are held begin.
    base: Place,
    records: VecDeque<Logged>,
    bytes: usize,
    limit: usize,
}

impl LifeLog {
    /// A log that goes on from `base`, and keeps about `limit` bytes of records for who comes back.
    pub fn from(base: Place, limit: usize) -> LifeLog {
        LifeLog {
            base,
            records: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    /// Appends a record and gives its number.
    ///
    /// # Panics
    /// Its instruction count is lower than that of the one before.
    pub fn push(&mut self, record: Record) -> RecordNumber {
        let end = self.end();
        assert!(
            record.count >= end.count,
            "instruction counts never fall within a log"
        );
        let bytes = record.encoded_size_bound();
        let mark = end.mark.then(&record);
        self.bytes += bytes;
        self.records.push_back(Logged {
            record,
            bytes,
            mark,
        });
        assert!(
            self.last() == end.record.next(),
            "records are numbered without gaps"
        );
        self.last()
    }

    /// Number of the last record.
    pub fn last(&self) -> RecordNumber {
        self.base.record.plus(self.records.len() as u64)
    }

    /// Its end.
    pub fn end(&self) -> Place {
        match self.records.back() {
            None => self.base,
            Some(logged) => Place {
                record: self.last(),
                count: logged.record.count,
                mark: logged.mark,
            },
        }
    }

    /// What becomes of the machine from here on is not in it: whoever stands anywhere in it goes on from nowhere.
    /// The machine is at `count`, which may be before what it holds of a checkpoint that never came whole.
    pub fn forget_all(&mut self, count: InstructionCount) {
        let end = self.end();
        self.base = Place {
            record: end.record,
            count,
            mark: end.mark.uncompared(count.0.into()),
        };
        self.records.clear();
        self.bytes = 0;
    }

    /// About how many bytes of records are kept for who comes back.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of records that are held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The records after `record`, with about how many bytes each has.
    ///
    /// # Panics
    /// They are not held any more: nobody lets them go while a follower needs them.
    pub fn after(&self, record: RecordNumber) -> impl Iterator<Item = (&Record, usize)> {
        assert!(
            (self.base.record..=self.last()).contains(&record),
            "records after {record} are not in a log from {} to {}",
            self.base.record,
            self.last()
        );
        let skipped = record.since(self.base.record) as usize;
        let records = self.records.range(skipped..);
        records.map(|logged| (&logged.record, logged.bytes))
    }

    /// How `place`, in a log of the same life, lies to this one.
    pub fn relation(&self, place: &Place) -> Relation {
        if place.record < self.base.record {
            return Relation::Forgotten;
        }
        if place.record > self.last() {
            return Relation::Differs;
        }
        let index = place.record.since(self.base.record) as usize;
        let mark = match index.checked_sub(1) {
            None => self.base.mark,
            Some(index) => self.records[index].mark,
        };
        if mark == place.mark {
            Relation::Prefix
        } else {
            Relation::Differs
        }
    }

    /// Forgets the oldest records beyond the limit, but none after `needed`, which a follower has not
    /// been sent yet.
    pub fn forget_beyond_limit(&mut self, needed: RecordNumber) {
        assert!(needed <= self.last(), "nobody was sent what is not there");
        while self.bytes > self.limit
            && self.base.record < needed
            && let Some(oldest) = self.records.pop_front()
        {
            assert!(oldest.bytes <= self.bytes, "its bytes were counted");
            self.bytes -= oldest.bytes;
            self.base = Place {
                record: self.base.record.next(),
                count: oldest.record.count,
                mark: oldest.mark,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Place {
        Place {
            record: RecordNumber(10),
            count: InstructionCount(100),
            mark: LogMark::of_start(LifeId(7), RecordNumber(10)),
        }
    }

    fn input(count: InstructionCount, byte: u8) -> Record {
        Record {
            count,
            body: RecordBody::Input(vec![byte; 100]),
        }
    }

    fn log(bytes: &[u8], limit: usize) -> LifeLog {
        let mut log = LifeLog::from(start(), limit);
        for (index, byte) in bytes.iter().enumerate() {
            log.push(input(InstructionCount(100 + index as u64), *byte));
        }
        log
    }

    #[test]
    fn a_log_tells_a_prefix_from_another_history_and_from_what_it_has_forgotten() {
        let whole = log(&[1, 2, 3, 4], 1000);
        assert_eq!(whole.relation(&start()), Relation::Prefix);
        assert_eq!(whole.relation(&log(&[1, 2], 1000).end()), Relation::Prefix);
        assert_eq!(whole.relation(&whole.end()), Relation::Prefix);
        let other = log(&[1, 9], 1000);
        assert_eq!(whole.relation(&other.end()), Relation::Differs);
        // It has the same records at the end, but not before.
        let later = log(&[1, 9, 3, 4], 1000);
        assert_eq!(whole.relation(&later.end()), Relation::Differs);
        let longer = log(&[1, 2, 3, 4, 5], 1000);
        assert_eq!(whole.relation(&longer.end()), Relation::Differs);
        let mut short = whole.clone();
        short.limit = 250;
        short.forget_beyond_limit(RecordNumber(14));
        assert_eq!(short.relation(&log(&[1], 1000).end()), Relation::Forgotten);
        assert_eq!(short.relation(&log(&[1, 2], 1000).end()), Relation::Prefix);
        assert_eq!(short.end(), whole.end());
    }

    #[test]
    fn nobody_goes_on_in_a_log_that_has_forgotten_all() {
        let mut log = log(&[1, 2], 1000);
        let stood = log.end();
        log.forget_all(InstructionCount(500));
        assert_eq!(log.relation(&stood), Relation::Differs);
        assert_eq!(log.relation(&start()), Relation::Forgotten);
        assert_eq!(
            (log.last(), log.end().count),
            (RecordNumber(12), InstructionCount(500))
        );
        log.push(input(InstructionCount(500), 3));
        assert_eq!(log.relation(&stood), Relation::Differs);
    }

    #[test]
    fn what_a_follower_was_not_sent_is_kept_beyond_the_limit() {
        let mut log = log(&[1, 2, 3, 4], 0);
        log.forget_beyond_limit(RecordNumber(12));
        let left: Vec<InstructionCount> = log
            .after(RecordNumber(12))
            .map(|(record, _)| record.count)
            .collect();
        assert_eq!(left, [102, 103].map(InstructionCount));
        assert_eq!(log.bytes(), 2 * 121);
    }

    #[test]
    #[should_panic(expected = "are not in a log")]
    fn what_is_forgotten_is_not_given_as_if_it_were_all() {
        let mut log = log(&[1, 2, 3, 4], 0);
        log.forget_beyond_limit(RecordNumber(14));
        let _never = log.after(RecordNumber(12));
    }
}
