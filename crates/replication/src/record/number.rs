//! The number of a record.

use std::fmt;

/// Which record of a life, from 1 at power-on, never renumbered. A file of records that somebody keeps for
/// himself (`docs/log-format.md`, "A log file") numbers its own from 1.
///
/// Two numbers are compared, and told apart by how many records lie between them; nothing else can be done
/// with them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNumber(pub u64);

impl RecordNumber {
    /// No record has it: whoever holds everything up to here holds none.
    pub const BEFORE_ALL: RecordNumber = RecordNumber(0);

    /// A machine that was started again from its disk does not know how far its log had got.
    /// Its records begin at the next multiple of this: more than a century of a hundred thousand
    /// records a second, and 65,535 such starts in a life.
    const EPOCH: u64 = 1 << 48;

    /// That of the record after this one.
    ///
    /// # Panics
    /// No number follows.
    pub fn next(self) -> RecordNumber {
        self.plus(1)
    }

    /// That of the last of so many `records` after this one.
    ///
    /// # Panics
    /// There are not so many numbers.
    pub fn plus(self, records: u64) -> RecordNumber {
        match self.checked_plus(records) {
            Some(number) => number,
            None => panic!("no number is {records} after {self}"),
        }
    }

    /// As [`RecordNumber::plus`]; `None` if there are not so many numbers.
    pub fn checked_plus(self, records: u64) -> Option<RecordNumber> {
        self.0.checked_add(records).map(RecordNumber)
    }

    /// That of the record before this one, or [`RecordNumber::BEFORE_ALL`]. `None`: there is nothing before that.
    pub fn before(self) -> Option<RecordNumber> {
        self.0.checked_sub(1).map(RecordNumber)
    }

    /// How many records there are after `earlier`, up to this one.
    ///
    /// # Panics
    /// `earlier` is later.
    pub fn since(self, earlier: RecordNumber) -> u64 {
        match self.0.checked_sub(earlier.0) {
            Some(records) => records,
            None => panic!("record {earlier} is not before record {self}"),
        }
    }

    /// Where the log goes on after a start from the disk: beyond anything that can have followed
    /// `self`.
    pub fn after_cold_start(self) -> RecordNumber {
        let epoch = self.0 / RecordNumber::EPOCH + 1;
        assert!(
            epoch < 1 << 16,
            "a life has at most 65,535 starts from its disk"
        );
        RecordNumber(epoch * RecordNumber::EPOCH)
    }
}

impl fmt::Display for RecordNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_after_a_cold_start_are_beyond_all_before() {
        let last = RecordNumber(12_345);
        let first = last.after_cold_start();
        assert!(first > RecordNumber(1 << 47));
        assert!(first.plus(99).after_cold_start() > first.plus(1 << 47));
    }

    #[test]
    fn numbers_end_where_they_cannot_be_told_on_the_wire() {
        let last = RecordNumber(u64::MAX);
        assert_eq!(RecordNumber(u64::MAX - 1).checked_plus(1), Some(last));
        assert_eq!(last.checked_plus(1), None);
        assert_eq!(RecordNumber::BEFORE_ALL.before(), None);
        assert_eq!(last.since(RecordNumber::BEFORE_ALL), u64::MAX);
    }

    #[test]
    #[should_panic(expected = "record 4 is not before record 3")]
    fn a_distance_backwards_is_no_number_of_records() {
        RecordNumber(3).since(RecordNumber(4));
    }
}
