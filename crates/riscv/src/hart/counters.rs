//! `mcycle` and `minstret` (privileged specification, 3.1.10), from the machine's instruction count.

use machine::input::InstructionCount;
use serde::{Deserialize, Serialize};

/// Both counters of a hart, as differences to the machine's instruction count.
///
/// While other harts run, this hart's counters stand still. An instruction that raises an exception
/// does not retire: it counts as a cycle only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    cycle_behind: u64,
    retired_behind: u64,
    /// When the hart was switched out; meaningless for the one that runs.
    stopped_at: InstructionCount,
}

impl Counters {
    /// `mcycle` at `count`.
    pub fn cycle(&self, count: InstructionCount) -> u64 {
        count.wrapping_sub(self.cycle_behind)
    }

    /// `minstret` at `count`.
    pub fn retired(&self, count: InstructionCount) -> u64 {
        count.wrapping_sub(self.retired_behind)
    }

    /// The instruction at `count` writes `mcycle`: the next one reads `value`.
    pub fn write_cycle(&mut self, count: InstructionCount, value: u64) {
        self.cycle_behind = (count + 1).wrapping_sub(value);
    }

    /// The instruction at `count` writes `minstret`: the next one reads `value`.
    pub fn write_retired(&mut self, count: InstructionCount, value: u64) {
        self.retired_behind = (count + 1).wrapping_sub(value);
    }

    /// An instruction raised an exception.
    pub fn trapped(&mut self) {
        self.retired_behind = self.retired_behind.wrapping_add(1);
    }

    /// Both are 0 at `count`, at which the first hart begins to run.
    pub fn begin(&mut self, count: InstructionCount) {
        *self = Counters {
            cycle_behind: count,
            retired_behind: count,
            stopped_at: count,
        };
    }

    /// Another hart runs from `count` on.
    pub fn stop(&mut self, count: InstructionCount) {
        self.stopped_at = count;
    }

    /// This hart runs again from `count` on.
    pub fn go_on(&mut self, count: InstructionCount) {
        let passed = count - self.stopped_at;
        self.cycle_behind = self.cycle_behind.wrapping_add(passed);
        self.retired_behind = self.retired_behind.wrapping_add(passed);
    }
}
