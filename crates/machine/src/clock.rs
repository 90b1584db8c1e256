//! Guest time: a function of the instruction count and the last clock record.

use crate::input::{ClockRecord, InstructionCount};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A clock record that would turn guest time back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a clock record sets guest time to {record_ns} ns, before the present {now_ns} ns")]
pub struct TimeTurnsBack {
    /// Present guest time.
    pub now_ns: u64,
    /// Guest time in the record.
    pub record_ns: u64,
}

/// The clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    at: InstructionCount,
    record: ClockRecord,
}

impl Clock {
    /// A clock that runs 4 ns an instruction until the first record says otherwise.
    pub fn new() -> Clock {
        Clock {
            at: 0,
            record: ClockRecord {
                time_ns: 0,
                rate: 4 << 32,
            },
        }
    }

    /// The last record.
    pub fn record(&self) -> ClockRecord {
        self.record
    }

    /// Guest time at `count`, in nanoseconds since power-on.
    #[inline]
    pub fn time_ns(&self, count: InstructionCount) -> u64 {
        let passed = (u128::from(count - self.at) * u128::from(self.record.rate)) >> 32;
        self.record.time_ns.saturating_add(passed as u64)
    }

    /// The first instruction count at which guest time is `time_ns` or later; `u64::MAX` if never.
    pub fn count_at(&self, time_ns: u64) -> InstructionCount {
        let Some(wanted) = time_ns.checked_sub(self.record.time_ns) else {
            return self.at;
        };
        if wanted == 0 {
            return self.at;
        }
        if self.record.rate == 0 {
            return u64::MAX;
        }
        // the smallest n with n * rate >> 32 >= wanted
        let instructions = (u128::from(wanted) << 32).div_ceil(u128::from(self.record.rate));
        u64::try_from(instructions).map_or(u64::MAX, |n| self.at.saturating_add(n))
    }

    /// Applies a clock record at `count`.
    pub fn set(
        &mut self,
        count: InstructionCount,
        record: ClockRecord,
    ) -> Result<(), TimeTurnsBack> {
        let now_ns = self.time_ns(count);
        if record.time_ns < now_ns {
            return Err(TimeTurnsBack {
                now_ns,
                record_ns: record.time_ns,
            });
        }
        self.at = count;
        self.record = record;
        Ok(())
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn count_at_is_the_first_count_that_reaches_a_time(
            at in 0u64..1 << 48, base in 0u64..1 << 60, rate in 1u64..1 << 40, ahead in 0u64..1 << 40,
        ) {
            let mut clock = Clock { at: 0, record: ClockRecord { time_ns: 0, rate: 0 } };
            clock.set(at, ClockRecord { time_ns: base, rate }).unwrap();
            let count = clock.count_at(base + ahead);
            prop_assert!(clock.time_ns(count) >= base + ahead);
            prop_assert!(count == at || clock.time_ns(count - 1) < base + ahead);
        }
    }

    #[test]
    fn time_never_turns_back() {
        let mut clock = Clock::new();
        let record = ClockRecord {
            time_ns: 399,
            rate: 1 << 32,
        };
        assert_eq!(
            clock.set(100, record),
            Err(TimeTurnsBack {
                now_ns: 400,
                record_ns: 399
            })
        );
    }
}
