//! A point on a machine's time line.

use std::fmt;

/// Retired instructions since power-on, over all harts: the only time that a machine knows. Where a record takes
/// effect, a snapshot was taken, a machine stands.
///
/// Within a machine it is a plain number: `docs/decisions/instruction-count.md`, "Its type".
///
/// Two counts are compared, and told apart by how many instructions lie between them; those are a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstructionCount(pub u64);

impl InstructionCount {
    /// Nothing was executed.
    pub const POWER_ON: InstructionCount = InstructionCount(0);
    /// No machine gets further.
    pub const LAST: InstructionCount = InstructionCount(u64::MAX);

    /// So many `instructions` later, [`InstructionCount::LAST`] at most.
    pub fn plus(self, instructions: u64) -> InstructionCount {
        InstructionCount(self.0.saturating_add(instructions))
    }

    /// As [`InstructionCount::plus`]; `None` beyond [`InstructionCount::LAST`].
    pub fn checked_plus(self, instructions: u64) -> Option<InstructionCount> {
        self.0.checked_add(instructions).map(InstructionCount)
    }

    /// The one before this; of [`InstructionCount::POWER_ON`] itself.
    pub fn before(self) -> InstructionCount {
        InstructionCount(self.0.saturating_sub(1))
    }

    /// How many instructions there are from `earlier` to here.
    ///
    /// # Panics
    /// `earlier` is later.
    pub fn since(self, earlier: InstructionCount) -> u64 {
        match self.0.checked_sub(earlier.0) {
            Some(instructions) => instructions,
            None => panic!("instruction {earlier} is not before instruction {self}"),
        }
    }

    /// How many instructions this is beyond `other`: 0 if it is not.
    pub fn beyond(self, other: InstructionCount) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for InstructionCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_comes_from_outside_ends_at_the_last_one() {
        assert_eq!(InstructionCount(7).plus(u64::MAX), InstructionCount::LAST);
        assert_eq!(InstructionCount::LAST.checked_plus(1), None);
        assert_eq!(InstructionCount(3).beyond(InstructionCount(7)), 0);
        assert_eq!(InstructionCount(7).beyond(InstructionCount(3)), 4);
    }

    #[test]
    #[should_panic(expected = "instruction 4 is not before instruction 3")]
    fn a_distance_backwards_is_no_number_of_instructions() {
        InstructionCount(3).since(InstructionCount(4));
    }
}
