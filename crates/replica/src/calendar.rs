//! The guest's two times while it is live: the one that only counts, and the calendar.
//!
//! Guest time (what a guest's monotonic clock is made of) follows the host's monotonic clock and never
//! jumps because another host goes on: what was lost between the last word of the old primary and the
//! going live of the new one is made up for by running a little fast. The calendar is the real-time clock's
//! alone: what it adds to guest time follows the host's calendar, whatever guest time does.
//! `docs/decisions/guest-time.md` says why.

/// While time is made up for, guest time runs faster than the host's by one part in so many; and the
/// calendar, when it has to go back, runs slower by that.
const SLEW: u64 = 10;
/// More than this is not made up for: an hour and a half of running fast.
const MOST_MADE_UP_NS: u64 = 600_000_000_000;
/// Between two looks at the host's calendar.
const LOOK_INTERVAL_NS: u64 = 1_000_000_000;
/// Calendars that differ by less are left alone.
const TOLERANCE_NS: u64 = 50_000_000;
/// A difference that the operator is told.
const TOLD_NS: u64 = 1_000_000_000;

/// What guest time should be.
#[derive(Clone, Copy, Debug)]
pub struct GuestScale {
    began_host_ns: u64,
    began_guest_ns: u64,
    /// What is to be made up for, from the begin on.
    lost_ns: u64,
}

impl GuestScale {
    /// The guest is at `guest_ns` now, at `host_ns` of the host's monotonic clock, and has lost so much
    /// time before.
    pub fn begin(host_ns: u64, guest_ns: u64, lost_ns: u64) -> GuestScale {
        GuestScale {
            began_host_ns: host_ns,
            began_guest_ns: guest_ns,
            lost_ns: lost_ns.min(MOST_MADE_UP_NS),
        }
    }

    /// What guest time should be at `host_ns`.
    pub fn guest_ns(&self, host_ns: u64) -> u64 {
        let passed_ns = host_ns.saturating_sub(self.began_host_ns);
        let made_up_ns = (passed_ns / SLEW).min(self.lost_ns);
        self.began_guest_ns
            .saturating_add(passed_ns)
            .saturating_add(made_up_ns)
    }

    /// The guest stood still and is at `guest_ns` now, at `host_ns`: it goes on from there, and what it
    /// missed is made up for.
    pub fn stood_still(&self, host_ns: u64, guest_ns: u64) -> GuestScale {
        let due_ns = self
            .began_guest_ns
            .saturating_add(host_ns.saturating_sub(self.began_host_ns))
            .saturating_add(self.lost_ns);
        GuestScale::begin(host_ns, guest_ns, due_ns.saturating_sub(guest_ns))
    }

    /// How long the host waits at `host_ns` for guest time to come to `wake_ns`.
    pub fn wait_ns(&self, wake_ns: u64, host_ns: u64) -> u64 {
        let left_ns = wake_ns.saturating_sub(self.guest_ns(host_ns));
        let passed_ns = host_ns.saturating_sub(self.began_host_ns);
        if passed_ns / SLEW < self.lost_ns {
            // Rounded up: nobody wakes for nothing.
            (u128::from(left_ns) * u128::from(SLEW)).div_ceil(u128::from(SLEW) + 1) as u64
        } else {
            left_ns
        }
    }
}

/// A move of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// What the real-time clock adds to guest time from now on.
    pub unix_base_ns: u64,
    /// How far the host's calendar was ahead of the guest's, in nanoseconds, if the operator is to be told.
    pub told_ns: Option<i64>,
}

/// The difference, for people.
pub fn describe(ahead_ns: i64) -> String {
    let (ahead, how) = match ahead_ns {
        1.. => ("ahead of", "at once"),
        _ => ("behind", "slowly, without turning back"),
    };
    let seconds = ahead_ns.unsigned_abs() as f64 / 1e9;
    format!(
        "this host's calendar is {seconds:.1} s {ahead} the guest's: its real-time clock follows {how}, \
         its own date when it reads that clock (hwclock --hctosys)"
    )
}

/// Looks at the host's calendar now and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct CalendarWatch {
    looked_at_ns: Option<u64>,
    /// A difference was told, and there still is one.
    told: bool,
}

impl CalendarWatch {
    /// Whether it is time to look, at `host_ns` of the monotonic clock.
    pub fn is_due(&self, host_ns: u64) -> bool {
        self.looked_at_ns
            .is_none_or(|looked_ns| host_ns.saturating_sub(looked_ns) >= LOOK_INTERVAL_NS)
    }

    /// The host's calendar says `unix_ns`, the guest's real-time clock `unix_base_ns` and `guest_ns`
    /// together. It goes forward at once, and back only so slowly that it never turns.
    pub fn look(
        &mut self,
        host_ns: u64,
        unix_ns: u64,
        unix_base_ns: u64,
        guest_ns: u64,
    ) -> Option<Move> {
        let since_ns = self
            .looked_at_ns
            .replace(host_ns)
            .map_or(LOOK_INTERVAL_NS, |looked_ns| {
                host_ns.saturating_sub(looked_ns)
            });
        let guest_unix_ns = unix_base_ns.wrapping_add(guest_ns);
        let ahead_ns = i128::from(unix_ns) - i128::from(guest_unix_ns);
        let apart_ns = ahead_ns.unsigned_abs();
        if apart_ns < u128::from(TOLERANCE_NS) {
            self.told = false;
            return None;
        }
        // A machine that was only just powered on had its calendar from this host, a moment ago.
        let tell = apart_ns >= u128::from(TOLD_NS) && !self.told && guest_ns > 0;
        self.told |= tell;
        let back_ns = apart_ns.min(u128::from(since_ns / SLEW)) as u64;
        Some(Move {
            unix_base_ns: if ahead_ns > 0 {
                unix_ns.wrapping_sub(guest_ns)
            } else {
                unix_base_ns.wrapping_sub(back_ns)
            },
            told_ns: tell.then(|| ahead_ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const UNIX_NS: u64 = 1_800_000_000 * SECOND_NS;

    #[test]
    fn a_guest_that_stood_still_goes_on_from_there_and_catches_up() {
        let scale = GuestScale::begin(0, 10 * SECOND_NS, 5 * SECOND_NS);
        // Paused after 20 s, of which 2 s were made up for, for 100 s.
        let resumed = scale.stood_still(120 * SECOND_NS, 32 * SECOND_NS);
        assert_eq!(resumed.guest_ns(120 * SECOND_NS), 32 * SECOND_NS);
        assert_eq!(resumed.guest_ns(130 * SECOND_NS), 43 * SECOND_NS);
        assert_eq!(resumed.guest_ns(2120 * SECOND_NS), 2135 * SECOND_NS);
    }

    #[test]
    fn what_was_lost_is_made_up_for_without_a_jump() {
        let scale = GuestScale::begin(SECOND_NS, 50 * SECOND_NS, 75 * SECOND_NS);
        assert_eq!(scale.guest_ns(SECOND_NS), 50 * SECOND_NS);
        assert_eq!(scale.guest_ns(11 * SECOND_NS), 61 * SECOND_NS);
        // After 750 s all of it, and then the host's speed again.
        assert_eq!(scale.guest_ns(751 * SECOND_NS), 875 * SECOND_NS);
        assert_eq!(scale.guest_ns(851 * SECOND_NS), 975 * SECOND_NS);
    }

    proptest! {
        #[test]
        fn a_wait_ends_when_guest_time_has_come(
            lost_ns in 0u64..20 * SECOND_NS,
            passed_ns in 0u64..300 * SECOND_NS,
            left_ns in 0u64..SECOND_NS,
        ) {
            let scale = GuestScale::begin(7, 3, lost_ns);
            let host_ns = 7 + passed_ns;
            let wake_ns = scale.guest_ns(host_ns) + left_ns;
            let wait_ns = scale.wait_ns(wake_ns, host_ns);
            let reached_ns = scale.guest_ns(host_ns + wait_ns);
            prop_assert!(wait_ns <= left_ns);
            // Where the last of the lost time is made up for meanwhile, it looks again.
            let still_losing = (passed_ns + wait_ns) / SLEW <= lost_ns || passed_ns / SLEW >= lost_ns;
            prop_assert!(reached_ns + 1 >= wake_ns || !still_losing);
        }

        /// Whatever the host's calendar does and however guest time runs, the real-time clock does
        /// not turn back, and comes to where the host's calendar is.
        #[test]
        fn the_calendar_never_turns_back_and_comes_to_the_hosts(
            steps in prop::collection::vec((-5i64..5, 900u64..1100), 1..40),
        ) {
            let mut watch = CalendarWatch::default();
            let (mut host_ns, mut guest_ns, mut base_ns) = (0, 0, UNIX_NS);
            let mut calendar_ns = UNIX_NS;
            let mut last_ns = base_ns;
            let mut turn = |watch: &mut CalendarWatch, jump_s: i64, permille: u64| {
                host_ns += SECOND_NS;
                guest_ns += SECOND_NS / 1000 * permille;
                calendar_ns = calendar_ns
                    .saturating_add(SECOND_NS)
                    .saturating_add_signed(jump_s * SECOND_NS as i64);
                if let Some(moved) = watch.look(host_ns, calendar_ns, base_ns, guest_ns) {
                    base_ns = moved.unix_base_ns;
                }
                let guest_unix_ns = base_ns + guest_ns;
                assert!(guest_unix_ns >= last_ns, "it went back");
                last_ns = guest_unix_ns;
                guest_unix_ns.abs_diff(calendar_ns)
            };
            for (jump_s, permille) in steps {
                turn(&mut watch, jump_s, permille);
            }
            let mut apart_ns = u64::MAX;
            for _ in 0..2000 {
                apart_ns = turn(&mut watch, 0, 1000);
            }
            prop_assert!(apart_ns < TOLERANCE_NS, "{apart_ns} ns");
        }
    }

    #[test]
    fn a_host_whose_calendar_is_ahead_moves_the_clock_at_once_and_tells() {
        let mut watch = CalendarWatch::default();
        let moved = watch
            .look(0, UNIX_NS + 77 * SECOND_NS, UNIX_NS - 9, 9)
            .unwrap();
        assert_eq!(moved.unix_base_ns, UNIX_NS + 77 * SECOND_NS - 9);
        assert_eq!(moved.told_ns, Some(77 * SECOND_NS as i64));
        assert!(!watch.is_due(LOOK_INTERVAL_NS - 1) && watch.is_due(LOOK_INTERVAL_NS));
    }

    #[test]
    fn a_machine_that_was_slow_to_start_is_nothing_to_tell() {
        let mut watch = CalendarWatch::default();
        let moved = watch.look(0, UNIX_NS + SECOND_NS, UNIX_NS, 0).unwrap();
        assert_eq!(moved.unix_base_ns, UNIX_NS + SECOND_NS);
        assert_eq!(moved.told_ns, None);
    }

    #[test]
    fn a_host_whose_calendar_is_behind_slows_it_and_tells_once() {
        let mut watch = CalendarWatch::default();
        let first = watch
            .look(0, UNIX_NS - 3 * SECOND_NS, UNIX_NS - 1, 1)
            .unwrap();
        assert_eq!(first.unix_base_ns, UNIX_NS - 1 - SECOND_NS / 10);
        assert_eq!(first.told_ns, Some(-3 * SECOND_NS as i64));
        let next = watch.look(
            SECOND_NS,
            UNIX_NS - 2 * SECOND_NS,
            first.unix_base_ns,
            SECOND_NS,
        );
        assert_eq!(next.unwrap().told_ns, None);
    }
}
