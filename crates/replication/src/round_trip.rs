//! How long the channel takes, there and back. `docs/protocol.md`, "Lag".

use std::collections::VecDeque;
use std::time::Duration;

/// The shortest round trip is that of the last one or two of these.
const WINDOW: Duration = Duration::from_secs(1);
/// Only with more bytes of records than this under way can they themselves be what delays the
/// channel.
pub(crate) const LOADED_BYTES: usize = 256 << 10;
/// Probes that are waited for at most; more are not measured.
const MAX_PROBES: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Probe {
    number: u64,
    sent: Duration,
    /// The channel was loaded with records when it was sent.
    is_loaded: bool,
}

/// Measures round trips by probes and their echoes. Never mind which way takes how much of it.
///
/// A path whose delay has grown is told from records that queue: without many bytes under way
/// nothing can queue, so only such measurements say how long the path itself takes. While the
/// channel is loaded, what it takes longer than that is queueing, and slowing the primary lowers
/// it, until the channel is not loaded any more and the path is measured anew.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    probes: VecDeque<Probe>,
    /// The shortest without load, in the present window and in the one before.
    shortest: [Option<Duration>; 2],
    window_ends: Duration,
}

impl RoundTrip {
    pub fn sent(&mut self, now: Duration, number: u64, bytes_under_way: usize) {
        assert!(
            self.probes.back().is_none_or(|last| last.number < number),
            "a probe is used once"
        );
        if self.probes.len() < MAX_PROBES {
            self.probes.push_back(Probe {
                number,
                sent: now,
                is_loaded: bytes_under_way >= LOADED_BYTES,
            });
        }
    }

    /// The backup says which probe was the newest that it saw. It answers a new one at once, so
    /// only the first echo of a probe says anything.
    pub fn echoed(&mut self, now: Duration, number: u64) {
        while let Some(probe) = self.probes.pop_front_if(|probe| probe.number <= number) {
            if probe.number == number {
                self.measured(now, now.saturating_sub(probe.sent), probe.is_loaded);
            }
        }
    }

    /// This process did not run: what is under way cannot be measured.
    pub fn forget_probes(&mut self) {
        self.probes.clear();
    }

    fn measured(&mut self, now: Duration, time: Duration, is_loaded: bool) {
        if is_loaded {
            return;
        }
        if now >= self.window_ends {
            self.window_ends = now + WINDOW;
            self.shortest = [None, self.shortest[0]];
        }
        self.shortest[0] = Some(self.shortest[0].map_or(time, |shortest| shortest.min(time)));
    }

    /// The shortest round trip of late, without queueing.
    pub fn shortest(&self) -> Option<Duration> {
        self.shortest.iter().flatten().min().copied()
    }

    /// How long records wait for others on the channel, the oldest of which is under way for `age`.
    pub fn queueing(&self, age: Duration, bytes_under_way: usize) -> Duration {
        match self.shortest() {
            Some(shortest) if bytes_under_way >= LOADED_BYTES => age.saturating_sub(shortest),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Probes every 100 ms for `probes` times, each with this round trip.
    fn measure(trip: &mut RoundTrip, from: u64, probes: u64, time: Duration, bytes: usize) -> u64 {
        for number in from..from + probes {
            let sent = ms(number * 100);
            trip.sent(sent, number, bytes);
            trip.echoed(sent + time, number);
        }
        from + probes
    }

    #[test]
    fn a_path_that_grows_longer_is_no_queue() {
        let mut trip = RoundTrip::default();
        let mut next = 1;
        for time in [0, 50, 400, 3, 200] {
            assert_eq!(trip.queueing(ms(time), 1000), Duration::ZERO);
            next = measure(&mut trip, next, 25, ms(time), 1000);
            assert_eq!(trip.shortest(), Some(ms(time)));
        }
    }

    #[test]
    fn bytes_that_queue_are_told_from_the_path_however_long_they_do() {
        let mut trip = RoundTrip::default();
        let next = measure(&mut trip, 1, 25, ms(20), 1000);
        measure(&mut trip, next, 200, ms(320), LOADED_BYTES);
        assert_eq!(trip.shortest(), Some(ms(20)));
        assert_eq!(trip.queueing(ms(320), LOADED_BYTES), ms(300));
    }

    #[test]
    fn a_loaded_path_that_grew_longer_is_measured_anew_once_it_is_not_loaded() {
        let mut trip = RoundTrip::default();
        let next = measure(&mut trip, 1, 25, ms(20), 1000);
        let next = measure(&mut trip, next, 5, ms(220), LOADED_BYTES);
        assert_eq!(trip.queueing(ms(220), LOADED_BYTES), ms(200));
        measure(&mut trip, next, 25, ms(220), 1000);
        assert_eq!(trip.queueing(ms(220), LOADED_BYTES), Duration::ZERO);
    }

    #[test]
    fn an_echo_that_comes_again_is_no_measurement() {
        let mut trip = RoundTrip::default();
        trip.sent(ms(10), 1, 0);
        trip.echoed(ms(15), 1);
        trip.echoed(ms(90), 1);
        assert_eq!(trip.shortest(), Some(ms(5)));
        trip.sent(ms(100), 2, 0);
        trip.forget_probes();
        trip.echoed(ms(900), 2);
        assert_eq!(trip.shortest(), Some(ms(5)));
    }
}
