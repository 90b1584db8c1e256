//! Steers guest time along host time by clock records.
//!
//! Guest time is a function of the instruction count and the last clock record. The guest's speed
//! in instructions a second is only known after the fact, so every record is a guess of the speed
//! to come; the next one corrects it. Guest time never goes back: a guest that is ahead is slowed,
//! one that is behind is hurried, and only one that is far behind (its host was stopped) jumps.

use machine::input::ClockRecord;

/// Guest time per instruction before anything was measured: 200 million instructions a second.
pub const INITIAL_RATE: u64 = 5 << 32;

/// A guest that is further behind than this jumps.
const JUMP_BEHIND_NS: i64 = 100_000_000;
/// An error is corrected over this time.
const HORIZON_NS: i64 = 20_000_000;
/// Errors below this are left alone while the speed is steady.
const TOLERANCE_NS: i64 = 1_000_000;
/// Errors above this are corrected without waiting for the usual interval.
const URGENT_NS: i64 = 2_500_000;
/// The usual least time between two records.
const INTERVAL_NS: u64 = 20_000_000;
/// The least time between two records when the error is urgent.
const URGENT_INTERVAL_NS: u64 = 300_000;
/// The speed is measured over at least this time.
const SAMPLE_NS: u64 = 200_000;
/// A guest that is further ahead than this, and gets further ahead, is slowed at once.
const RUNAWAY_NS: i64 = 10_000_000;
/// One measurement makes the guest at most so many times slower: the host had something else to do
/// in the middle of it, more likely than not, and the guest's time would run as much too fast.
const MOST_SLOWED: u64 = 2;
/// A measurement over more than this was interrupted: the host stopped the process.
const INTERRUPTED_NS: u64 = 30_000_000;
/// Records a second over a longer time.
const RECORDS_PER_SECOND: u64 = 100;
/// Records that may come faster than that.
const BURST: u64 = 20;
/// No guest is faster than 2^32 or slower than 2^-20 instructions a nanosecond.
const LEAST_RATE: u64 = 1;
const GREATEST_RATE: u64 = 1 << 52;

/// Guest time as the machine has it now.
#[derive(Clone, Copy, Debug)]
pub struct GuestNow {
    /// Retired instructions.
    pub count: u64,
    /// Guest time, nanoseconds since power-on.
    pub time_ns: u64,
    /// The rate of the last clock record.
    pub rate: u64,
}

/// What is known of the guest's speed, and when it was last steered.
///
/// Host times are nanoseconds on the guest's scale: the host's monotonic clock less its value at
/// the guest's power-on.
#[derive(Clone, Debug)]
pub struct ClockSteering {
    /// Where the current measurement of the speed began.
    sample: Option<(u64, u64)>,
    /// Nanoseconds per instruction with 32 fractional bits, smoothed.
    speed: u64,
    last_record_ns: u64,
    /// A token bucket in units of 1 / RECORDS_PER_SECOND seconds, in nanoseconds.
    credit_ns: u64,
    credit_at_ns: u64,
}

impl ClockSteering {
    /// Nothing is measured yet; `rate` is the machine's present one.
    pub fn new(rate: u64, host_ns: u64) -> ClockSteering {
        ClockSteering {
            sample: None,
            speed: rate.clamp(LEAST_RATE, GREATEST_RATE),
            last_record_ns: host_ns,
            credit_ns: BURST * 1_000_000_000 / RECORDS_PER_SECOND,
            credit_at_ns: host_ns,
        }
    }

    /// How many instructions the guest retires in `ns` nanoseconds, as far as known.
    pub fn instructions_in(&self, ns: u64) -> u64 {
        ((u128::from(ns) << 32) / u128::from(self.speed)).min(u128::from(u64::MAX)) as u64
    }

    /// Instructions a second, as far as known.
    pub fn instructions_per_second(&self) -> u64 {
        self.instructions_in(1_000_000_000)
    }

    /// The guest ran until now. Returns the clock record that it needs, if any.
    pub fn after_running(&mut self, guest: GuestNow, host_ns: u64) -> Option<ClockRecord> {
        self.measure(guest.count, host_ns);
        let error = signed_difference(guest.time_ns, host_ns);
        if error < -JUMP_BEHIND_NS {
            return Some(self.record(host_ns, host_ns, self.speed));
        }
        let has_credit = self.is_due(guest.rate, error, host_ns) && self.take_credit(host_ns);
        // The faster the guest's time runs, the less of the host's time it takes until it is seconds
        // ahead: this is not put off.
        let runs_away = error > RUNAWAY_NS && guest.rate > self.speed;
        if !has_credit && !runs_away {
            return None;
        }
        let wanted = (HORIZON_NS - error).clamp(HORIZON_NS / 16, HORIZON_NS * 4) as u128;
        let rate = (u128::from(self.speed) * wanted / HORIZON_NS as u128) as u64;
        Some(self.record(guest.time_ns, host_ns, rate))
    }

    /// All harts waited until now, and `guest` is the time at which they began to. `wake_at_ns` is
    /// the guest timer that ended the wait, if it was one.
    ///
    /// The record brings guest time to host time, and at least to the timer: a host that wakes a
    /// moment early would otherwise wait twice.
    pub fn after_waiting(
        &mut self,
        guest: GuestNow,
        host_ns: u64,
        wake_at_ns: Option<u64>,
    ) -> ClockRecord {
        // The wait says nothing about the speed.
        self.sample = None;
        let time_ns = guest.time_ns.max(host_ns).max(wake_at_ns.unwrap_or(0));
        let ahead = signed_difference(time_ns, host_ns);
        let wanted = (HORIZON_NS - ahead).clamp(HORIZON_NS / 16, HORIZON_NS) as u128;
        let rate = (u128::from(self.speed) * wanted / HORIZON_NS as u128) as u64;
        self.record(time_ns, host_ns, rate)
    }

    /// The guest runs again after a pause that was not its own: measure from here.
    pub fn resume(&mut self) {
        self.sample = None;
    }

    fn measure(&mut self, count: u64, host_ns: u64) {
        let Some((count_before, host_before)) = self.sample else {
            self.sample = Some((count, host_ns));
            return;
        };
        let elapsed = host_ns.saturating_sub(host_before);
        let retired = count.saturating_sub(count_before);
        if elapsed < SAMPLE_NS || retired == 0 {
            return;
        }
        if elapsed > INTERRUPTED_NS {
            self.sample = Some((count, host_ns));
            return;
        }
        let measured = ((u128::from(elapsed) << 32) / u128::from(retired))
            .clamp(u128::from(LEAST_RATE), u128::from(GREATEST_RATE)) as u64;
        let measured = measured.min(self.speed.saturating_mul(MOST_SLOWED));
        self.speed = if measured.abs_diff(self.speed) > self.speed / 4 {
            // The guest does something else now: do not average over the change.
            measured
        } else {
            self.speed - self.speed / 4 + measured / 4
        };
        self.sample = Some((count, host_ns));
    }

    fn is_due(&self, rate: u64, error: i64, host_ns: u64) -> bool {
        let since_record = host_ns.saturating_sub(self.last_record_ns);
        if error.abs() > URGENT_NS {
            // A guest that is ahead and slowed enough already needs no second record.
            let improves =
                (error > 0) == (rate < self.speed) && rate.abs_diff(self.speed) > self.speed / 16;
            let interval = if improves {
                INTERVAL_NS
            } else {
                URGENT_INTERVAL_NS
            };
            return since_record >= interval;
        }
        if since_record < INTERVAL_NS {
            return false;
        }
        let drift = (i128::from(rate) - i128::from(self.speed)) * i128::from(HORIZON_NS)
            / i128::from(self.speed);
        error.abs() > TOLERANCE_NS
            || (i128::from(error) + drift).abs() > 2 * i128::from(TOLERANCE_NS)
    }

    fn take_credit(&mut self, host_ns: u64) -> bool {
        let price = 1_000_000_000 / RECORDS_PER_SECOND;
        let earned = host_ns.saturating_sub(self.credit_at_ns);
        self.credit_at_ns = host_ns;
        self.credit_ns = self.credit_ns.saturating_add(earned).min(BURST * price);
        if self.credit_ns < price {
            return false;
        }
        self.credit_ns -= price;
        true
    }

    fn record(&mut self, time_ns: u64, host_ns: u64, rate: u64) -> ClockRecord {
        self.last_record_ns = host_ns;
        ClockRecord {
            time_ns,
            rate: rate.clamp(LEAST_RATE, GREATEST_RATE),
        }
    }
}

fn signed_difference(a: u64, b: u64) -> i64 {
    if a >= b {
        (a - b).min(i64::MAX as u64) as i64
    } else {
        -((b - a).min(i64::MAX as u64) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A guest whose speed is a function of host time, run in quanta as the vcpu thread does.
    struct World {
        steering: ClockSteering,
        record: ClockRecord,
        record_count: u64,
        count: u64,
        host_ns: u64,
        records: u64,
        worst_error_ns: u64,
    }

    impl World {
        fn new() -> World {
            let record = ClockRecord {
                time_ns: 0,
                rate: INITIAL_RATE,
            };
            World {
                steering: ClockSteering::new(record.rate, 0),
                record,
                record_count: 0,
                count: 0,
                host_ns: 0,
                records: 0,
                worst_error_ns: 0,
            }
        }

        fn guest(&self) -> GuestNow {
            let passed = u128::from(self.count - self.record_count) * u128::from(self.record.rate);
            GuestNow {
                count: self.count,
                time_ns: self.record.time_ns + (passed >> 32) as u64,
                rate: self.record.rate,
            }
        }

        fn apply(&mut self, record: ClockRecord) {
            assert!(
                record.time_ns >= self.guest().time_ns,
                "guest time went back"
            );
            self.record = record;
            self.record_count = self.count;
            self.records += 1;
        }

        fn run(&mut self, host_ns: u64, mips: impl Fn(u64) -> u64) {
            let end = self.host_ns + host_ns;
            while self.host_ns < end {
                let mips = mips(self.host_ns);
                let quantum = self
                    .steering
                    .instructions_in(200_000)
                    .clamp(1000, 1_000_000);
                self.count += quantum;
                self.host_ns += quantum * 1000 / mips;
                if let Some(record) = self.steering.after_running(self.guest(), self.host_ns) {
                    self.apply(record);
                }
                let error = self.guest().time_ns.abs_diff(self.host_ns);
                self.worst_error_ns = self.worst_error_ns.max(error);
            }
        }
    }

    #[test]
    fn a_steady_guest_stays_within_ten_milliseconds_and_needs_few_records() {
        let mut world = World::new();
        world.run(1_000_000_000, |_| 300);
        let at_start = world.records;
        world.run(60_000_000_000, |_| 300);
        assert!(
            world.worst_error_ns < 10_000_000,
            "{} ns",
            world.worst_error_ns
        );
        assert!(
            world.records - at_start < 60 * 5,
            "{} records",
            world.records
        );
    }

    #[test]
    fn a_guest_that_speeds_up_tenfold_stays_within_ten_milliseconds() {
        let mut world = World::new();
        world.run(10_000_000_000, |t| {
            if t / 50_000_000 % 2 == 0 { 30 } else { 300 }
        });
        assert!(
            world.worst_error_ns < 10_000_000,
            "{} ns",
            world.worst_error_ns
        );
        assert!(
            world.records <= 10 * RECORDS_PER_SECOND + BURST,
            "{} records",
            world.records
        );
    }

    /// Finding: a guest seconds ahead of its host, and a word about calendars, after boots on a busy
    /// host. A measurement in which the host had something else to do made the guest's time run a
    /// hundred times too fast, and there was no record left to correct it.
    #[test]
    fn a_host_with_something_else_to_do_makes_no_guest_run_ahead() {
        for stolen_ns in [1_000_000, 5_000_000, 12_000_000, 25_000_000] {
            let mut world = World::new();
            let mut most_ahead_ns = 0;
            for _ in 0..400 {
                world.run(3_000_000, |_| 2000);
                world.count += 2000;
                world.host_ns += stolen_ns;
                let (guest, host_ns) = (world.guest(), world.host_ns);
                if let Some(record) = world.steering.after_running(guest, host_ns) {
                    world.apply(record);
                }
                for _ in 0..20 {
                    world.run(10_000, |_| 2000);
                    let ahead_ns = world.guest().time_ns.saturating_sub(world.host_ns);
                    most_ahead_ns = ahead_ns.max(most_ahead_ns);
                }
            }
            assert!(
                most_ahead_ns < 30_000_000,
                "{most_ahead_ns} ns ahead where {stolen_ns} ns were stolen"
            );
        }
    }

    #[test]
    fn a_host_that_was_stopped_makes_the_guest_jump_forward() {
        let mut world = World::new();
        world.run(1_000_000_000, |_| 200);
        world.host_ns += 60_000_000_000;
        world.run(1_000_000, |_| 200);
        assert!(world.guest().time_ns.abs_diff(world.host_ns) < 10_000_000);
    }

    #[test]
    fn a_wait_brings_guest_time_to_the_timer_that_ended_it() {
        let mut world = World::new();
        world.run(100_000_000, |_| 200);
        let guest = world.guest();
        let timer = guest.time_ns.max(world.host_ns) + 4_000_000;
        let early = timer - 1000;
        let record = world.steering.after_waiting(guest, early, Some(timer));
        assert_eq!(record.time_ns, timer);
        let late = timer + 70_000;
        let record = world.steering.after_waiting(guest, late, Some(timer));
        assert_eq!(record.time_ns, late);
    }

    proptest! {
        #[test]
        fn guest_time_never_goes_back_whatever_the_speed(
            speeds in proptest::collection::vec(1u64..3000, 1..40)
        ) {
            let mut world = World::new();
            for mips in speeds {
                world.run(20_000_000, |_| mips);
            }
            prop_assert!(world.records <= world.host_ns / 10_000_000 + BURST + 1);
        }
    }
}
