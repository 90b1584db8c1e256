//! How much of the time the machine's harts ran lately, at their busiest: what whoever follows has to keep up
//! with.

use std::collections::VecDeque;

/// So long the busiest second counts, about: a load that comes back every minute is not forgotten.
const MEMORY_NS: u64 = 120_000_000_000;
/// What is measured at once: shorter bursts are what queues and the lag's target are for.
const WINDOW_NS: u64 = 1_000_000_000;
/// Nobody is called slow for less than this: hosts that are alike measure speeds that differ as much.
const TOLERANCE: f64 = 0.8;

/// Follows one machine.
#[derive(Debug, Default)]
pub struct Demand {
    /// When the window began, and for how many nanoseconds the harts had run then.
    window: Option<(u64, u64)>,
    /// When each window ended, and which share of it they ran: only those that none after them exceeds.
    shares: VecDeque<(u64, f64)>,
}

impl Demand {
    /// By now the harts ran for `ran_ns` altogether.
    pub fn sample(&mut self, now_ns: u64, ran_ns: u64) {
        let (began_ns, before_ns) = *self.window.get_or_insert((now_ns, ran_ns));
        let passed_ns = now_ns.saturating_sub(began_ns);
        if passed_ns < WINDOW_NS {
            return;
        }
        self.window = Some((now_ns, ran_ns));
        let share = ran_ns.saturating_sub(before_ns) as f64 / passed_ns as f64;
        while self
            .shares
            .pop_back_if(|(_, before)| *before <= share)
            .is_some()
        {}
        self.shares.push_back((now_ns, share.min(1.0)));
        let is_old = |(at_ns, _): &mut (u64, f64)| now_ns.saturating_sub(*at_ns) > MEMORY_NS;
        while self.shares.pop_front_if(is_old).is_some() {}
        assert!(
            self.shares.len() as u64 <= MEMORY_NS / WINDOW_NS + 1,
            "old windows go"
        );
    }

    /// What a host has to execute a second to keep up, where this one executes `speed`; 0: not known.
    pub fn speed_needed(&self, speed: u64) -> u64 {
        // Each exceeds those after it.
        let busiest = self.shares.front().map_or(0.0, |(_, share)| *share);
        (speed as f64 * busiest * TOLERANCE) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_busiest_second_of_the_last_two_minutes_counts() {
        let mut demand = Demand::default();
        let mut ran = 0;
        let mut pass = |demand: &mut Demand, from: u64, to: u64, share: u64| {
            for tenth in from * 10..to * 10 {
                ran += SECOND / 10 * share / 100;
                demand.sample(tenth * SECOND / 10, ran);
            }
        };
        pass(&mut demand, 1, 30, 10);
        assert_eq!(demand.speed_needed(0), 0, "the speed is not known");
        let idle = demand.speed_needed(1000);
        assert!((70..=90).contains(&idle), "{idle}");
        pass(&mut demand, 30, 33, 100);
        let busy = demand.speed_needed(1000);
        assert!((780..=800).contains(&busy), "{busy}");
        pass(&mut demand, 33, 100, 10);
        assert_eq!(demand.speed_needed(1000), busy, "a minute later");
        pass(&mut demand, 100, 170, 10);
        let idle = demand.speed_needed(1000);
        assert!((70..=90).contains(&idle), "{idle}");
    }
}
