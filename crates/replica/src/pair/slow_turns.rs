//! How long an event loop does anything else than wait, and which of that is told.

use std::time::Duration;

/// No work between two waits should take so long.
const SLOW: Duration = Duration::from_millis(20);
/// A turn that was executed for less than this share of it, one in so many, waited for a core or for the host's
/// disk: on a busy host many do…
const BUSY_SHARE: u32 = 5;
/// …and only one of this length is news.
const LONG: Duration = Duration::from_secs(1);
/// When slow turns go on they are told again after this time, then after twice as long each time…
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// …up to this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3_600);

/// A turn: how long it took, and for how long of that it was executed. The rest it was blocked, or had no
/// core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    took: Duration,
    executed: Duration,
}

impl Turn {
    fn is_slow(&self) -> bool {
        let is_busy = self.executed * BUSY_SHARE >= self.took;
        self.took >= LONG || (self.took >= SLOW && is_busy)
    }
}

/// The turns of a loop.
#[derive(Debug)]
pub struct SlowTurns {
    longest: Duration,
    longest_executed: Duration,
    /// Slow ones that were not told, and the longest of them.
    untold: u64,
    worst: Turn,
    told_at: Option<Duration>,
    /// What has to pass between two that are told.
    interval: Duration,
}

impl Default for SlowTurns {
    fn default() -> SlowTurns {
        SlowTurns {
            longest: Duration::ZERO,
            longest_executed: Duration::ZERO,
            untold: 0,
            worst: Turn::default(),
            told_at: None,
            interval: FIRST_INTERVAL,
        }
    }
}

impl SlowTurns {
    /// The longest that ever was.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The longest for which one was executed.
    pub fn longest_executed(&self) -> Duration {
        self.longest_executed
    }

    /// One has ended. Says what is to be told now.
    pub fn ended(&mut self, now: Duration, took: Duration, executed: Duration) -> Option<String> {
        self.longest = self.longest.max(took);
        self.longest_executed = self.longest_executed.max(executed);
        let turn = Turn { took, executed };
        if turn.is_slow() {
            self.untold += 1;
            if took > self.worst.took {
                self.worst = turn;
            }
        }
        if self.untold == 0 {
            return None;
        }
        if let Some(told_at) = self.told_at {
            if now < told_at + self.interval {
                return None;
            }
            let was_quiet = now >= told_at + 2 * self.interval;
            self.interval = match was_quiet {
                true => FIRST_INTERVAL,
                false => (self.interval * 2).min(LONGEST_INTERVAL),
            };
        }
        self.told_at = Some(now);
        let (turns, worst) = (
            std::mem::take(&mut self.untold),
            std::mem::take(&mut self.worst),
        );
        let of = match turns {
            1 => String::new(),
            turns => format!(", the longest of {turns} times"),
        };
        Some(format!(
            "this process was busy or blocked for {} ms, {} of them busy{of}",
            worst.took.as_millis(),
            worst.executed.as_millis()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Duration = Duration::from_millis(8);

    /// Finding: on a busy host there was an event a second, for as long as it was busy.
    #[test]
    fn slow_turns_that_go_on_are_told_ever_more_seldom() {
        let mut turns = SlowTurns::default();
        let mut told = Vec::new();
        for tenth in 0..36_000 {
            let now = Duration::from_millis(tenth * 100);
            let took = Duration::from_millis(30 + tenth % 7);
            told.extend(turns.ended(now, took, BUSY));
        }
        assert!((10..20).contains(&told.len()), "{} in an hour", told.len());
        assert!(told[0].contains("30 ms, 8 of them busy"), "{}", told[0]);
        let last = &told[told.len() - 1];
        assert!(last.contains("36 ms") && last.contains("of "), "{last}");
        // After a quiet time the next one is news, and so is one that follows soon.
        let mut count = |seconds: u64| {
            let now = Duration::from_secs(100_000 + seconds);
            let slow = Duration::from_millis(25);
            usize::from(turns.ended(now, slow, BUSY).is_some())
        };
        assert_eq!([count(0), count(1), count(2)].iter().sum::<usize>(), 2);
    }

    /// Finding: about 170 warnings in half an hour, most of them with 0 ms busy, hid what mattered.
    #[test]
    fn a_turn_that_waited_for_a_core_is_no_news_under_a_second() {
        let at = Duration::from_secs;
        let ms = Duration::from_millis;
        let mut turns = SlowTurns::default();
        assert_eq!(turns.ended(at(1), ms(340), ms(67)), None);
        assert_eq!(turns.ended(at(2), ms(999), ms(0)), None);
        assert_eq!(turns.longest(), ms(999), "measured all the same");
        let told = turns.ended(at(3), ms(1000), ms(0)).unwrap();
        assert!(told.contains("1000 ms, 0 of them busy"), "{told}");
        let told = turns.ended(at(10), ms(340), ms(68)).unwrap();
        assert!(told.ends_with("340 ms, 68 of them busy"), "{told}");
    }

    #[test]
    fn turns_that_are_not_slow_are_only_measured() {
        let mut turns = SlowTurns::default();
        let (took, executed) = (Duration::from_millis(19), Duration::from_millis(7));
        assert_eq!(turns.ended(Duration::from_secs(1), took, executed), None);
        assert_eq!(
            (turns.longest(), turns.longest_executed()),
            (took, executed)
        );
    }
}
