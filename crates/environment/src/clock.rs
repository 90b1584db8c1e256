//! The host's clocks, as plain numbers.

use crate::simulation::with_current;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Nanoseconds of the host's monotonic clock. It does not stop while the process is stopped.
pub fn monotonic_ns() -> u64 {
    with_current(|simulation| simulation.monotonic_ns())
        .unwrap_or_else(|| nanoseconds(ClockId::Monotonic))
}

/// The monotonic clock as the replication core takes it.
pub fn monotonic() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

/// The time for which a core has executed this thread. (In a simulation all the time counts.)
pub fn thread_cpu() -> Duration {
    let nanoseconds = with_current(|simulation| simulation.monotonic_ns());
    Duration::from_nanos(nanoseconds.unwrap_or_else(|| self::nanoseconds(ClockId::ThreadCPUTime)))
}

/// Nanoseconds since 1970-01-01 UTC.
pub fn unix_ns() -> u64 {
    with_current(|simulation| simulation.unix_ns())
        .unwrap_or_else(|| nanoseconds(ClockId::Realtime))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // All of them are past 1970 and before 2554 on any host that runs.
    (time.tv_sec.max(0) as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let first = monotonic_ns();
        assert!(monotonic_ns() >= first);
    }
}
