//! A watchdog: the one of Allwinner's A31 and later, whose driver (`sunxi_wdt`) distributions build for every
//! RISC-V kernel. A guest starts it and has to reload it in time; if it does not, the machine is reset.
//!
//! Registers: Allwinner A31 user manual 4.9 and Linux `drivers/watchdog/sunxi_wdt.c`; as in QEMU's
//! `allwinner-wdt-sun6i`. Without its interrupt.

use serde::{Deserialize, Serialize};

const CONTROL: u64 = 0x10;
const CONFIGURATION: u64 = 0x14;
const MODE: u64 = 0x18;

/// The key with bit 0, which restarts the count.
const RELOAD: u64 = 0x0a57 << 1 | 1;
/// What the end of the count does: reset the whole system.
const ACT_RESET: u64 = 1;
const ACT_MASK: u64 = 3;
const ENABLED: u64 = 1;
const INTERVAL_SHIFT: u32 = 4;
const INTERVAL_MASK: u64 = 0xf;

/// Half seconds of each interval; the numbers beyond are reserved and count as the longest.
const INTERVALS: [u64; 12] = [1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32];
const HALF_SECOND_NS: u64 = 500_000_000;

/// The watchdog's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    configuration: u64,
    mode: u64,
    /// Guest time at which the count ends, if it runs.
    ends_ns: Option<u64>,
}

impl Watchdog {
    /// Guest time at which the machine is reset unless the guest reloads the count before.
    pub fn ends_ns(&self) -> Option<u64> {
        self.ends_ns
    }

    /// Guest time has come to `time_ns`: true if the machine is to be reset now. Told once.
    pub fn time_passed(&mut self, time_ns: u64) -> bool {
        let over = self.ends_ns.is_some_and(|ends_ns| ends_ns <= time_ns);
        if over {
            self.ends_ns = None;
        }
        over && self.configuration & ACT_MASK == ACT_RESET
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u64 {
        match offset {
            CONFIGURATION => self.configuration,
            MODE => self.mode,
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u64, time_ns: u64) {
        match offset {
            CONTROL if value == RELOAD => self.reload(time_ns),
            CONFIGURATION => self.configuration = value & ACT_MASK,
            MODE => {
                let was_enabled = self.mode & ENABLED != 0;
                self.mode = value & (INTERVAL_MASK << INTERVAL_SHIFT | ENABLED);
                if self.mode & ENABLED == 0 {
                    self.ends_ns = None;
                } else if !was_enabled {
                    self.reload(time_ns);
                }
            }
            _ => {}
        }
    }

    fn reload(&mut self, time_ns: u64) {
        if self.mode & ENABLED != 0 {
            let interval = (self.mode >> INTERVAL_SHIFT & INTERVAL_MASK) as usize;
            let half_seconds = INTERVALS.get(interval).unwrap_or(&INTERVALS[11]);
            self.ends_ns = Some(time_ns.saturating_add(half_seconds * HALF_SECOND_NS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// As the driver does it: interval, reload, action, enable.
    fn start(watchdog: &mut Watchdog, interval: u64, time_ns: u64) {
        let mode = watchdog.read(MODE);
        watchdog.write(MODE, mode & !0xf0 | interval << 4, time_ns);
        watchdog.write(CONTROL, RELOAD, time_ns);
        watchdog.write(
            CONFIGURATION,
            watchdog.read(CONFIGURATION) | ACT_RESET,
            time_ns,
        );
        watchdog.write(MODE, watchdog.read(MODE) | ENABLED, time_ns);
    }

    #[test]
    fn a_watchdog_that_is_not_reloaded_ends_after_its_interval_and_once() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.ends_ns(), None);
        start(&mut watchdog, 11, 7 * SECOND_NS);
        assert_eq!(watchdog.ends_ns(), Some(23 * SECOND_NS));
        assert!(!watchdog.time_passed(23 * SECOND_NS - 1));
        assert!(watchdog.time_passed(23 * SECOND_NS));
        assert!(!watchdog.time_passed(24 * SECOND_NS));
        assert_eq!(watchdog.ends_ns(), None);
    }

    #[test]
    fn the_key_reloads_and_nothing_else_does() {
        let mut watchdog = Watchdog::default();
        start(&mut watchdog, 1, 0);
        watchdog.write(CONTROL, 1, SECOND_NS / 2);
        assert_eq!(watchdog.ends_ns(), Some(SECOND_NS));
        watchdog.write(CONTROL, RELOAD, SECOND_NS / 2);
        assert_eq!(watchdog.ends_ns(), Some(SECOND_NS + SECOND_NS / 2));
        // Stopped, as the driver stops it.
        watchdog.write(MODE, 0, SECOND_NS);
        assert_eq!(watchdog.ends_ns(), None);
        watchdog.write(CONTROL, RELOAD, SECOND_NS);
        assert_eq!(watchdog.ends_ns(), None);
    }

    #[test]
    fn without_the_action_its_end_does_nothing() {
        let mut watchdog = Watchdog::default();
        watchdog.write(MODE, ENABLED, 0);
        assert_eq!(watchdog.ends_ns(), Some(HALF_SECOND_NS));
        assert!(!watchdog.time_passed(SECOND_NS));
    }
}
