//! The time that the gateway's TCP sees.
//!
//! smoltcp's least retransmission time-out is the one second of RFC 6298, 2.4, as a constant. Over
//! a cable inside one host that is long, and it is what a client waits for when a frame dies with
//! its replica. So TCP's time runs five times as fast as the host's: the least time-out is 200 ms,
//! which is Linux's. And when a guest has moved to another port, whatever is under way is repeated
//! at once: time jumps over the longest time-out.

use smoltcp::time::{Duration as TcpDuration, Instant as TcpInstant};
use std::time::{Duration, Instant};

/// Seconds of TCP's time in a second of the host's.
const RATE: u32 = 5;
/// smoltcp's greatest retransmission time-out, in TCP's time.
const MAX_RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(60);

/// TCP's time as a function of the host's.
#[derive(Debug)]
pub(crate) struct TcpClock {
    start: Instant,
    skipped: Duration,
}

impl TcpClock {
    pub(crate) fn new(now: Instant) -> TcpClock {
        TcpClock {
            start: now,
            skipped: Duration::ZERO,
        }
    }

    /// TCP's time at the host's time `now`.
    pub(crate) fn at(&self, now: Instant) -> TcpInstant {
        let passed = now.saturating_duration_since(self.start) * RATE + self.skipped;
        TcpInstant::from_micros(i64::try_from(passed.as_micros()).unwrap_or(i64::MAX))
    }

    /// Jumps so far that every running retransmission timer has run out.
    pub(crate) fn skip_retransmission_timeouts(&mut self) {
        self.skipped += MAX_RETRANSMISSION_TIMEOUT;
    }

    /// How long a span of TCP's time takes on the host.
    pub(crate) fn on_host(span: TcpDuration) -> Duration {
        Duration::from_micros(span.total_micros()) / RATE
    }

    /// A span of the host's time as TCP's.
    pub(crate) fn in_tcp_time(span: Duration) -> TcpDuration {
        TcpDuration::from_micros(u64::try_from((span * RATE).as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_least_timeout_of_one_second_takes_200_ms_and_a_move_skips_it() {
        let start = Instant::now();
        let mut clock = TcpClock::new(start);
        let second = TcpDuration::from_secs(1);
        assert_eq!(TcpClock::on_host(second), Duration::from_millis(200));
        assert_eq!(TcpClock::in_tcp_time(Duration::from_millis(200)), second);
        let later = start + Duration::from_millis(200);
        assert_eq!(clock.at(later) - clock.at(start), second);
        let before = clock.at(later);
        clock.skip_retransmission_timeouts();
        assert_eq!(clock.at(later) - before, TcpDuration::from_secs(60));
    }
}
