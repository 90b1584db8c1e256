//! The goldfish real-time clock: Unix time in nanoseconds, and one alarm.
//!
//! Registers as in the Android emulator's `goldfish_rtc` and QEMU's model of it. Its time is guest
//! time plus the Unix time at power-on, so reading it needs no input.

use serde::{Deserialize, Serialize};

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;

/// The clock's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldfishRtc {
    /// What the guest added by setting the clock, in nanoseconds, modulo 2^64.
    adjustment_ns: u64,
    /// `TIME_HIGH`, latched by reading `TIME_LOW`.
    latched_high: u32,
    /// The alarm in Unix time as last written, in nanoseconds.
    alarm_unix_ns: u64,
    /// Guest time at which the armed alarm fires.
    armed_ns: Option<u64>,
    interrupt_enabled: bool,
    interrupt_pending: bool,
}

impl GoldfishRtc {
    /// Guest time at which the alarm fires, if it is armed.
    pub fn next_alarm_ns(&self) -> Option<u64> {
        self.armed_ns
    }

    /// Level of the interrupt line.
    pub fn interrupt(&self) -> bool {
        self.interrupt_enabled && self.interrupt_pending
    }

    /// Guest time has come to `time_ns`: fires the alarm if it is due.
    pub fn time_passed(&mut self, time_ns: u64) {
        if self.armed_ns.is_some_and(|due| due <= time_ns) {
            self.armed_ns = None;
            self.interrupt_pending = true;
        }
    }

    /// The calendar was moved: `base_ns` is Unix time at guest time 0 now. An armed alarm stays due at its
    /// Unix time.
    pub fn calendar_moved(&mut self, time_ns: u64, base_ns: u64) {
        self.time_passed(time_ns);
        if self.armed_ns.is_some() {
            self.arm(time_ns, base_ns);
        }
    }

    /// Reads a register. `base_ns` is Unix time at guest time 0.
    pub fn read(&mut self, offset: u64, time_ns: u64, base_ns: u64) -> u64 {
        self.time_passed(time_ns);
        match offset {
            TIME_LOW => {
                let now = self.now(time_ns, base_ns);
                self.latched_high = (now >> 32) as u32;
                now & 0xffff_ffff
            }
            TIME_HIGH => u64::from(self.latched_high),
            ALARM_LOW => self.alarm_unix_ns & 0xffff_ffff,
            ALARM_HIGH => self.alarm_unix_ns >> 32,
            IRQ_ENABLED => u64::from(self.interrupt_enabled),
            ALARM_STATUS => u64::from(self.armed_ns.is_some()),
            _ => 0,
        }
    }

    /// Writes a register. `base_ns` is Unix time at guest time 0.
    pub fn write(&mut self, offset: u64, value: u64, time_ns: u64, base_ns: u64) {
        self.time_passed(time_ns);
        let value = value & 0xffff_ffff;
        match offset {
            TIME_LOW | TIME_HIGH => {
                let now = self.now(time_ns, base_ns);
                let set = if offset == TIME_LOW {
                    now & !0xffff_ffff | value
                } else {
                    now & 0xffff_ffff | value << 32
                };
                self.adjustment_ns = self.adjustment_ns.wrapping_add(set.wrapping_sub(now));
                if self.armed_ns.is_some() {
                    self.arm(time_ns, base_ns);
                }
            }
            // The driver writes the high half first; the low half arms.
            ALARM_LOW => {
                self.alarm_unix_ns = self.alarm_unix_ns & !0xffff_ffff | value;
                self.arm(time_ns, base_ns);
            }
            ALARM_HIGH => self.alarm_unix_ns = self.alarm_unix_ns & 0xffff_ffff | value << 32,
            IRQ_ENABLED => self.interrupt_enabled = value & 1 != 0,
            CLEAR_ALARM => self.armed_ns = None,
            CLEAR_INTERRUPT => self.interrupt_pending = false,
            _ => {}
        }
    }

    fn now(&self, time_ns: u64, base_ns: u64) -> u64 {
        base_ns
            .wrapping_add(time_ns)
            .wrapping_add(self.adjustment_ns)
    }

    fn arm(&mut self, time_ns: u64, base_ns: u64) {
        let ahead_ns = self
            .alarm_unix_ns
            .saturating_sub(self.now(time_ns, base_ns));
        self.armed_ns = Some(time_ns.saturating_add(ahead_ns));
        self.time_passed(time_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE_NS: u64 = 0x17aa_0000_0000_0000;

    fn set_alarm(rtc: &mut GoldfishRtc, unix_ns: u64, time_ns: u64) {
        rtc.write(ALARM_HIGH, unix_ns >> 32, time_ns, BASE_NS);
        rtc.write(ALARM_LOW, unix_ns & 0xffff_ffff, time_ns, BASE_NS);
    }

    #[test]
    fn reading_the_low_half_latches_the_high_half() {
        let mut rtc = GoldfishRtc::default();
        assert_eq!(rtc.read(TIME_LOW, 0xffff_ffff, BASE_NS), 0xffff_ffff);
        assert_eq!(rtc.read(TIME_HIGH, 0x1_0000_0000, BASE_NS), BASE_NS >> 32);
        assert_eq!(rtc.read(TIME_LOW, 0x1_0000_0000, BASE_NS), 0);
        assert_eq!(
            rtc.read(TIME_HIGH, 0x1_0000_0000, BASE_NS),
            (BASE_NS >> 32) + 1
        );
    }

    #[test]
    fn the_alarm_fires_when_it_is_due_and_stays_until_cleared() {
        let mut rtc = GoldfishRtc::default();
        rtc.write(IRQ_ENABLED, 1, 0, BASE_NS);
        set_alarm(&mut rtc, BASE_NS + 5000, 1000);
        assert_eq!(rtc.next_alarm_ns(), Some(5000));
        assert_eq!(rtc.read(ALARM_STATUS, 4999, BASE_NS), 1);
        rtc.time_passed(4999);
        assert!(!rtc.interrupt());
        rtc.time_passed(5000);
        assert!(rtc.interrupt());
        assert_eq!(rtc.next_alarm_ns(), None);
        rtc.write(CLEAR_INTERRUPT, 1, 6000, BASE_NS);
        assert!(!rtc.interrupt());
    }

    #[test]
    fn an_alarm_in_the_past_fires_at_once_and_a_cleared_one_never() {
        let mut rtc = GoldfishRtc::default();
        rtc.write(IRQ_ENABLED, 1, 0, BASE_NS);
        set_alarm(&mut rtc, BASE_NS, 1000);
        assert!(rtc.interrupt());
        rtc.write(CLEAR_INTERRUPT, 1, 1000, BASE_NS);
        set_alarm(&mut rtc, BASE_NS + 5000, 1000);
        rtc.write(CLEAR_ALARM, 1, 2000, BASE_NS);
        rtc.time_passed(9000);
        assert!(!rtc.interrupt());
    }

    #[test]
    fn a_calendar_that_is_moved_moves_the_clock_and_the_armed_alarm() {
        let mut rtc = GoldfishRtc::default();
        set_alarm(&mut rtc, BASE_NS + 5000, 0);
        rtc.calendar_moved(1000, BASE_NS + 2000);
        assert_eq!(rtc.next_alarm_ns(), Some(3000));
        assert_eq!(rtc.read(TIME_LOW, 1500, BASE_NS + 2000), 3500);
        // Past its time: at once.
        rtc.calendar_moved(1500, BASE_NS + 9000);
        assert_eq!(rtc.next_alarm_ns(), None);
    }

    #[test]
    fn setting_the_clock_moves_the_armed_alarm() {
        let mut rtc = GoldfishRtc::default();
        set_alarm(&mut rtc, BASE_NS + 5000, 0);
        rtc.write(TIME_LOW, 3000, 1000, BASE_NS); // the clock now runs 2000 ns ahead
        assert_eq!(rtc.next_alarm_ns(), Some(3000));
        assert_eq!(rtc.read(TIME_LOW, 1500, BASE_NS), 3500);
    }
}
