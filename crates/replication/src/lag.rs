//! How far the backup's execution is behind, and how the primary is slowed to bound it.

use std::collections::VecDeque;
use std::time::Duration;

/// Bounds of the lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagConfig {
    /// The primary is slowed when the lag is more than this.
    pub target: Duration,
    /// The primary is slowed when more bytes of records than this are under way.
    pub bytes_in_flight: usize,
    /// The primary is slowed when more outputs than this wait.
    pub held_outputs: usize,
}

impl Default for LagConfig {
    fn default() -> LagConfig {
        LagConfig {
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
/// Where the pressure is to settle, and where the primary halts until the backup has caught up; in
/// hundredths of the target.
const SET_POINT: i64 = 60;
const HALT_AT: i64 = 400;

/// Remembers when the primary passed which instruction count.
#[derive(Debug, Default)]
pub(crate) struct LagMeter {
    samples: VecDeque<(Duration, u64)>,
    executed: u64,
    /// The lag when `executed` was last told.
    told: Duration,
}

impl LagMeter {
    /// The primary is at `count` now.
    pub fn primary_at(&mut self, now: Duration, count: u64) {
        let due = self.samples.back().is_none_or(|(time, last)| {
            count > *last && now.saturating_sub(*time) >= SAMPLE_SPACING
        });
        if due && count > self.executed && self.samples.len() < MAX_SAMPLES {
            self.samples.push_back((now, count));
        }
    }

    /// The backup said that it is at `count`.
    pub fn backup_at(&mut self, now: Duration, count: u64) {
        self.executed = self.executed.max(count);
        while self
            .samples
            .front()
            .is_some_and(|(_, sample)| *sample <= count)
        {
            self.samples.pop_front();
        }
        self.told = self
            .samples
            .front()
            .map_or(Duration::ZERO, |(t, _)| now.saturating_sub(*t));
    }

    /// The instruction count that the backup has reached, as far as is known.
    pub fn executed(&self) -> u64 {
        self.executed
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
    before: i64,
    next: Duration,
}

impl Throttle {
    pub fn new() -> Throttle {
        Throttle {
            share: FULL,
            before: SET_POINT,
            next: Duration::ZERO,
        }
    }

    pub fn share(&self) -> RunShare {
        (self.share / 1000) as RunShare
    }

    /// `percent`: the worst of lag, bytes and held outputs, each in hundredths of its target. Gives
    /// the new share when it changed.
    pub fn update(&mut self, now: Duration, percent: u64) -> Option<RunShare> {
        if now < self.next {
            return None;
        }
        self.next = now + CONTROL_INTERVAL;
        let percent = percent.min(1000) as i64;
        // Changes below the set point are noise: a pair that keeps up is not slowed by them.
        let above = percent.max(SET_POINT);
        let change = above - std::mem::replace(&mut self.before, above);
        let share = self.share();
        let factor = (1000 - (percent - SET_POINT) - 10 * change).clamp(700, 1150);
        self.share = match percent {
            HALT_AT.. => 0,
            _ => (self.share.max(SLOWEST) * factor / 1000).clamp(SLOWEST, FULL),
        };
        (self.share() != share).then_some(self.share())
    }

    /// There is nobody to wait for any more.
    pub fn lift(&mut self) -> Option<RunShare> {
        self.before = SET_POINT;
        let before = std::mem::replace(&mut self.share, FULL);
        (before != FULL).then_some(FULL_SPEED)
    }
}
