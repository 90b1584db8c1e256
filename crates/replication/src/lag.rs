//! How far the backup's execution is behind, and how the primary is slowed to bound it.

use crate::record::InstructionCount;
use std::collections::VecDeque;
use std::time::Duration;

/// What becomes of a member for which the primary is slowed for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagPolicy {
    /// The primary waits for it.
    #[default]
    Slow,
    /// It is let go, if another protects the machine.
    Drop,
    /// It is let go, the last one, too: the machine is not protected then.
    DropAny,
}

/// Bounds of the lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagConfig {
    /// What becomes of a member that would be further behind than the limit if the primary did not
    /// wait for it.
    pub policy: LagPolicy,
    /// That limit.
    pub limit: Duration,
    /// The primary is slowed when the lag is more than this.
    pub target: Duration,
    /// The primary is slowed when more bytes of records than this are under way, on a channel
    /// without delay. On another it may be as many more as the round trip is longer than the target.
    pub bytes_in_flight: usize,
    /// The primary is slowed when more outputs than this wait, on a channel without delay; the
    /// round trip allows for more in the same way.
    pub held_outputs: usize,
}

impl Default for LagConfig {
    fn default() -> LagConfig {
        LagConfig {
            policy: LagPolicy::default(),
            limit: Duration::from_secs(5),
            target: Duration::from_millis(100),
            bytes_in_flight: 8 << 20,
            held_outputs: 4096,
        }
    }
}

/// The share of time that the harts may run, in thousandths: 1000 is full speed, 0 is a halt.
pub type RunShare = u16;
/// Full speed.
pub const FULL_SPEED: RunShare = 1000;

const SAMPLE_SPACING: Duration = Duration::from_millis(4);
const MAX_SAMPLES: usize = 4096;
const CONTROL_INTERVAL: Duration = Duration::from_millis(20);
/// Shares in millionths.
const FULL: i64 = 1_000_000;
const SLOWEST: i64 = 20_000;
/// Where the pressure is to settle; in hundredths of the target.
const SET_POINT: i64 = 60;
/// Where the primary halts until the backup has caught up.
const HALT_AT: u64 = 400;
/// A backup whose host was busy is as far behind as that took: clients must not pay for it. For this
/// long after the lag has grown so large, and while it is below so many hundredths of its target, the
/// harts keep this share.
const CATCH_UP: Duration = Duration::from_secs(4);
const CATCH_UP_LAG: u64 = 2_000;
const CATCH_UP_SHARE: i64 = 400_000;
/// A backup that has just joined is as far behind as copying and restoring took. Until it has caught up
/// the harts keep this share at most…
pub(crate) const JOINED_SHARE: i64 = 750_000;
/// …and so much less with each of these intervals in which it did not come nearer by as many hundredths
/// of what it was behind: a share of thousandths.
const JOINED_INTERVAL: Duration = Duration::from_millis(500);
const LEAST_GAIN: u64 = 3;
const JOINED_STEP: i64 = 850;

/// No channel allows for more under way than one of this round trip.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(1);

impl LagConfig {
    /// A time in hundredths of the target.
    pub(crate) fn of_target(&self, time: Duration) -> u64 {
        (time.as_micros() * 100 / self.target.as_micros().max(1)) as u64
    }

    /// How full of `limit` units something is, in hundredths, that is measured for a channel without
    /// delay. Whatever waits for a round trip is more, the longer that is, and slowing the primary
    /// does not make it shorter.
    pub(crate) fn filled(&self, value: usize, limit: usize, round_trip: Duration) -> u64 {
        let target = self.target.as_micros().max(1);
        let round_trip = round_trip.min(LONGEST_ROUND_TRIP).as_micros();
        let hundredths =
            value as u128 * 100 * target / (limit.max(1) as u128 * (target + round_trip));
        hundredths as u64
    }
}

/// Below so many hundredths of the target nothing presses.
pub(crate) const RELIEVED: i64 = 20;

/// What presses on the primary, each in hundredths of its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// How far the backup is behind.
    pub lag: u64,
    /// Records and outputs that have to be kept, and records that wait for others on the channel.
    pub memory: u64,
    /// The backup has not yet been where the primary was when the pairing began: what it is behind
    /// is what its restore took.
    pub catching_up: bool,
    /// How many instructions it is behind.
    pub behind: u64,
}

impl Pressure {
    /// The worse of both in everything.
    pub fn max(self, other: Pressure) -> Pressure {
        Pressure {
            lag: self.lag.max(other.lag),
            memory: self.memory.max(other.memory),
            catching_up: self.catching_up || other.catching_up,
            behind: self.behind.max(other.behind),
        }
    }
}

/// Where the primary was at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    time: Duration,
    /// How long its harts were allowed to run by then: time, as far as it was not slowed.
    ran: Duration,
    count: InstructionCount,
}

/// Remembers when the primary passed which instruction count, and so turns what the backup says
/// into time.
///
/// The lag is execution against execution: the backup cannot execute what it does not have, so it
/// is behind by what it *holds* and has not executed, in the time for which the primary had to run
/// for that. How long the channel takes, there and back, is no part of it, and neither is what came
/// with the last records only just now: slowing the primary lowers neither.
#[derive(Debug, Default)]
pub(crate) struct LagMeter {
    samples: VecDeque<Sample>,
    now: Option<Duration>,
    ran: Duration,
    executed: InstructionCount,
    /// The lag when `executed` was last told.
    told: Duration,
    /// Where the primary was when the pairing began.
    begin: Option<InstructionCount>,
}

impl LagMeter {
    /// The primary is at `count` now, and has been running this share of the time.
    pub fn primary_at(&mut self, now: Duration, count: InstructionCount, share: RunShare) {
        self.begin.get_or_insert(count);
        let passed = now.saturating_sub(self.now.unwrap_or(now));
        self.now = Some(now);
        self.ran += passed * share.into() / FULL_SPEED.into();
        let due = self.samples.back().is_none_or(|last| {
            count > last.count && now.saturating_sub(last.time) >= SAMPLE_SPACING
        });
        if due && count > self.executed && self.samples.len() < MAX_SAMPLES {
            self.samples.push_back(Sample {
                time: now,
                ran: self.ran,
                count,
            });
        }
    }

    /// The backup said that it is at `count`; it could be at `possible` by now.
    pub fn backup_at(&mut self, count: InstructionCount, possible: InstructionCount) {
        self.executed = self.executed.max(count);
        while self
            .samples
            .pop_front_if(|sample| sample.count <= count)
            .is_some()
        {}
        let held = self
            .samples
            .partition_point(|sample| sample.count <= possible);
        self.told = match (self.samples.front(), held.checked_sub(1)) {
            (Some(from), Some(last)) => self.samples[last].ran.saturating_sub(from.ran),
            _ => Duration::ZERO,
        };
    }

    /// How long ago the primary was where the backup is: what the lag was taken for once.
    pub fn since_primary_was_there(&self, now: Duration) -> Duration {
        self.samples
            .front()
            .map_or(Duration::ZERO, |sample| now.saturating_sub(sample.time))
    }

    /// The instruction count that the backup has reached, as far as is known.
    pub fn executed(&self) -> InstructionCount {
        self.executed
    }

    /// Whether the backup has been where the primary was when the pairing began.
    pub fn has_caught_up(&self) -> bool {
        self.begin.is_some_and(|begin| self.executed >= begin)
    }

    /// The lag in time, as the backup last told.
    pub fn lag(&self) -> Duration {
        self.told
    }
}

/// Turns pressure into a share of time for the harts: a proportional-integral controller.
///
/// What it sees is old (the lag says what the share was a lag ago), so it answers mostly to the
/// change of the pressure, and only slowly to its distance from the set point.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// In millionths.
    share: i64,
    /// The share is never more, whatever presses; in millionths.
    cap: i64,
    before: i64,
    next: Duration,
    /// Since when the lag has been as large as halts the primary, and above its target ever since.
    behind_since: Option<Duration>,
    /// From Begin until the backup has caught up.
    joined: Option<Joined>,
}

/// How a backup that has joined catches up.
#[derive(Clone, Copy, Debug)]
struct Joined {
    /// When it was looked at last, and how many instructions it was behind.
    looked: Duration,
    behind: u64,
    /// The share that leaves it the time for that, in millionths.
    share: i64,
}

impl Joined {
    fn look(&mut self, now: Duration, behind: u64) {
        if now < self.looked + JOINED_INTERVAL {
            return;
        }
        let gained = self.behind.saturating_sub(behind);
        if gained < self.behind / 100 * LEAST_GAIN {
            self.share = (self.share * JOINED_STEP / 1000).max(SLOWEST);
        }
        self.looked = now;
        self.behind = behind;
    }
}

impl Throttle {
    pub fn new() -> Throttle {
        Throttle {
            share: FULL,
            cap: FULL,
            before: SET_POINT,
            next: Duration::ZERO,
            behind_since: None,
            joined: None,
        }
    }

    /// What the harts may run.
    pub fn share(&self) -> RunShare {
        (self.share.min(self.cap) / 1000) as RunShare
    }

    /// What they might run for all that presses.
    pub fn pressed_share(&self) -> RunShare {
        (self.share / 1000) as RunShare
    }

    /// They run no more than this, until it is said otherwise. Gives the new share when it changed.
    pub fn cap(&mut self, cap: RunShare) -> Option<RunShare> {
        let before = self.share();
        self.cap = i64::from(cap) * 1000;
        (self.share() != before).then_some(self.share())
    }

    /// Gives the new share when it changed.
    pub fn update(&mut self, now: Duration, pressure: Pressure) -> Option<RunShare> {
        if now < self.next {
            return None;
        }
        self.next = now + CONTROL_INTERVAL;
        let percent = pressure.lag.max(pressure.memory).min(1000) as i64;
        // Changes below the set point are noise: a pair that keeps up is not slowed by them.
        let above = percent.max(SET_POINT);
        let change = above - std::mem::replace(&mut self.before, above);
        let share = self.share();
        let factor = if percent < RELIEVED {
            1500
        } else {
            (1000 - (percent - SET_POINT) - 10 * change).clamp(700, 1150)
        };
        self.share = if let Some(wanted) = self.joined(now, pressure) {
            // Smoothly: a quarter of the way each time.
            let step = (wanted - self.share) / 4;
            (self.share + step).clamp(SLOWEST, FULL)
        } else if self.is_catching_up(now, pressure) {
            (self.share.max(SLOWEST) * factor / 1000).clamp(CATCH_UP_SHARE, FULL)
        } else if pressure.lag.max(pressure.memory) >= HALT_AT {
            0
        } else {
            (self.share.max(SLOWEST) * factor / 1000).clamp(SLOWEST, FULL)
        };
        (self.share() != share).then_some(self.share())
    }

    /// The share while a backup that has joined catches up: what it is behind is no lag that halts.
    fn joined(&mut self, now: Duration, pressure: Pressure) -> Option<i64> {
        if !pressure.catching_up && pressure.lag <= 100 || pressure.memory > 100 {
            self.joined = None;
        } else if pressure.catching_up || self.joined.is_some() {
            let joined = self.joined.get_or_insert(Joined {
                looked: now,
                behind: pressure.behind,
                share: JOINED_SHARE,
            });
            joined.look(now, pressure.behind);
        }
        self.joined.map(|joined| joined.share)
    }

    fn is_catching_up(&mut self, now: Duration, pressure: Pressure) -> bool {
        if pressure.lag >= HALT_AT {
            self.behind_since.get_or_insert(now);
        } else if pressure.lag <= 100 {
            self.behind_since = None;
        }
        let Some(since) = self.behind_since else {
            return false;
        };
        pressure.memory <= 100
            && pressure.lag < CATCH_UP_LAG
            && now.saturating_sub(since) < CATCH_UP
    }

    /// There is nobody to wait for any more.
    pub fn lift(&mut self) -> Option<RunShare> {
        self.before = SET_POINT;
        self.behind_since = None;
        self.joined = None;
        let before = self.share();
        (self.share, self.cap) = (FULL, FULL);
        (before != FULL_SPEED).then_some(FULL_SPEED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_after(
        throttle: &mut Throttle,
        from_ms: u64,
        to_ms: u64,
        pressure: Pressure,
    ) -> RunShare {
        for ms in (from_ms..to_ms).step_by(20) {
            throttle.update(Duration::from_millis(ms), pressure);
        }
        throttle.share()
    }

    #[test]
    fn a_backup_that_falls_far_behind_does_not_halt_the_service() {
        let mut throttle = Throttle::new();
        let far_behind = Pressure {
            lag: 1000,
            ..Pressure::default()
        };
        assert_eq!(share_after(&mut throttle, 0, 2000, far_behind), 400);
    }

    #[test]
    fn a_backup_that_has_caught_up_gives_full_speed_back_at_once() {
        let mut throttle = Throttle::new();
        let mut ms = 0;
        for behind in (1..20).rev() {
            let joined = Pressure {
                lag: 1000,
                catching_up: behind > 10,
                behind: behind * 500_000_000,
                ..Pressure::default()
            };
            let share = share_after(&mut throttle, ms, ms + 500, joined);
            assert!((750..=760).contains(&share), "{share} at {ms}");
            ms += 500;
        }
        assert_eq!(
            share_after(&mut throttle, ms, ms + 100, Pressure::default()),
            FULL_SPEED
        );
    }

    #[test]
    fn a_backup_that_has_joined_and_does_not_come_nearer_slows_the_primary_more_and_more() {
        let mut throttle = Throttle::new();
        let joined = Pressure {
            lag: 1000,
            catching_up: true,
            behind: 5_000_000_000,
            ..Pressure::default()
        };
        let mut before = FULL_SPEED;
        for second in 1..=10 {
            let (from_ms, to_ms) = (second * 1000, second * 1000 + 1000);
            let share = share_after(&mut throttle, from_ms, to_ms, joined);
            assert!(
                share < before && share * 2 > before,
                "{share} after {before}"
            );
            before = share;
        }
        assert!(before < 50, "{before}");
    }

    #[test]
    fn a_backup_that_stays_far_behind_halts_the_primary() {
        let mut throttle = Throttle::new();
        let far_behind = Pressure {
            lag: 1000,
            ..Pressure::default()
        };
        assert_eq!(share_after(&mut throttle, 0, 6000, far_behind), 0);
        assert_eq!(
            share_after(&mut throttle, 6000, 20_000, Pressure::default()),
            FULL_SPEED
        );
    }

    #[test]
    fn records_that_pile_up_halt_the_primary_at_once() {
        let mut throttle = Throttle::new();
        let full = Pressure {
            lag: 1000,
            memory: 500,
            ..Pressure::default()
        };
        assert_eq!(share_after(&mut throttle, 0, 100, full), 0);
    }
}
