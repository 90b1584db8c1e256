//! Speeds and bandwidths over the last second or so.

use std::collections::VecDeque;

/// What is measured over at least this time.
const WINDOW_NS: u64 = 1_000_000_000;
/// Between two samples.
const SPACING_NS: u64 = 200_000_000;

/// A number that only grows, sampled now and then.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    samples: VecDeque<(u64, u64)>,
}

impl Rate {
    /// Takes a sample.
    pub fn sample(&mut self, now_ns: u64, value: u64) {
        if self
            .samples
            .back()
            .is_some_and(|(at_ns, _)| now_ns.saturating_sub(*at_ns) < SPACING_NS)
        {
            return;
        }
        self.samples.push_back((now_ns, value));
        while self
            .samples
            .get(1)
            .is_some_and(|(at_ns, _)| now_ns.saturating_sub(*at_ns) >= WINDOW_NS)
        {
            self.samples.pop_front();
        }
    }

    /// Forgets all: the number begins anew.
    pub fn restart(&mut self) {
        self.samples.clear();
    }

    /// How much a second it grew up to `value` now.
    pub fn per_second(&self, now_ns: u64, value: u64) -> f64 {
        match self.samples.front() {
            Some((at_ns, before)) if now_ns > *at_ns => {
                value.saturating_sub(*before) as f64 * 1e9 / (now_ns - at_ns) as f64
            }
            _ => 0.0,
        }
    }
}

/// A percentile (0 to 100) of durations, in milliseconds; 0 when there are none.
pub fn percentile_ms(sorted: &[std::time::Duration], percent: usize) -> f64 {
    match sorted.len() {
        0 => 0.0,
        length => sorted[(length - 1) * percent.min(100) / 100].as_secs_f64() * 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_rate_is_that_of_the_last_second() {
        let mut rate = Rate::default();
        for tenth in 0..100u64 {
            let value = if tenth < 50 { 0 } else { (tenth - 50) * 10 };
            rate.sample(tenth * 100_000_000, value);
        }
        let now = rate.per_second(9_900_000_000, 490);
        assert!((now - 100.0).abs() < 1.0, "{now}");
    }

    #[test]
    fn percentiles_are_of_what_there_is() {
        assert_eq!(percentile_ms(&[], 99), 0.0);
        let delays: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(
            (percentile_ms(&delays, 50), percentile_ms(&delays, 99)),
            (50.0, 99.0)
        );
    }
}
