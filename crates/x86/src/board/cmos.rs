//! The clock of a PC's CMOS: an MC146818 (Motorola data sheet, 1984) that only tells the time. No
//! alarm, no periodic interrupt, no updates that a reader could see half-way.

use serde::{Deserialize, Serialize};

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
/// The century, where the FADT says that it is.
pub const CENTURY: u8 = 0x32;

/// Divider for a 32.768 kHz crystal, periodic rate of 1024 Hz.
const STATUS_A_RESET: u8 = 0x26;
const STATUS_B_SET: u8 = 1 << 7;
const STATUS_B_BINARY: u8 = 1 << 2;
const STATUS_B_24_HOURS: u8 = 1 << 1;
/// The battery is good.
const STATUS_D_VALID: u8 = 1 << 7;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// The clock and its 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cmos {
    index: u8,
    status_a: u8,
    status_b: u8,
    /// What the guest set the clock ahead, in seconds (wrapping).
    offset_seconds: u64,
    /// While the guest sets the clock: second, minute, hour, weekday, day, month, year, century.
    setting: Option<[u8; 8]>,
}

impl Default for Cmos {
    fn default() -> Cmos {
        Cmos {
            index: 0,
            status_a: STATUS_A_RESET,
            status_b: STATUS_B_24_HOURS,
            offset_seconds: 0,
            setting: None,
        }
    }
}

impl Cmos {
    /// OUT to port 0x70: selects a register (bit 7 masks NMIs, which there are none of).
    pub fn select(&mut self, value: u8) {
        self.index = value & 0x7f;
    }

    /// IN from port 0x71.
    pub fn read(&self, unix_time_ns: u64) -> u8 {
        match self.index {
            STATUS_A => self.status_a,
            STATUS_B => self.status_b,
            STATUS_C => 0,
            STATUS_D => STATUS_D_VALID,
            index => match field(index) {
                Some(field) => {
                    let fields = self.setting.unwrap_or_else(|| self.fields(unix_time_ns));
                    fields[field]
                }
                None => 0,
            },
        }
    }

    /// OUT to port 0x71.
    pub fn write(&mut self, value: u8, unix_time_ns: u64) {
        match self.index {
            STATUS_A => self.status_a = value & 0x7f,
            STATUS_B => self.write_status_b(value, unix_time_ns),
            index => {
                if let Some(field) = field(index) {
                    let mut fields = self.setting.unwrap_or_else(|| self.fields(unix_time_ns));
                    fields[field] = value;
                    match self.setting {
                        Some(_) => self.setting = Some(fields),
                        None => self.set(&fields, unix_time_ns),
                    }
                }
            }
        }
    }

    fn write_status_b(&mut self, value: u8, unix_time_ns: u64) {
        let was_setting = self.setting.is_some();
        if value & STATUS_B_SET != 0 && !was_setting {
            self.setting = Some(self.fields(unix_time_ns));
        }
        // No alarm, update or periodic interrupt, no square wave, no daylight saving.
        self.status_b = value & (STATUS_B_SET | STATUS_B_BINARY | STATUS_B_24_HOURS);
        if value & STATUS_B_SET == 0
            && let Some(fields) = self.setting.take()
        {
            self.set(&fields, unix_time_ns);
        }
    }

    fn set(&mut self, fields: &[u8; 8], unix_time_ns: u64) {
        let value = |index: usize| u64::from(self.decode(fields[index]));
        let hour = if self.status_b & STATUS_B_24_HOURS != 0 {
            value(2)
        } else {
            let twelve = u64::from(self.decode(fields[2] & 0x7f)) % 12;
            twelve + if fields[2] & 0x80 != 0 { 12 } else { 0 }
        };
        let year = value(7) * 100 + value(6);
        let days = days_from_civil(year, value(5), value(4));
        let seconds = days
            .wrapping_mul(86_400)
            .wrapping_add(hour * 3600 + value(1) * 60 + value(0));
        self.offset_seconds = seconds.wrapping_sub(unix_time_ns / NANOSECONDS_PER_SECOND);
    }

    /// Second, minute, hour, weekday, day, month, year, century as the status says they are written.
    fn fields(&self, unix_time_ns: u64) -> [u8; 8] {
        let seconds = (unix_time_ns / NANOSECONDS_PER_SECOND).wrapping_add(self.offset_seconds);
        // Beyond the year 9999 the clock has no digits.
        let seconds = seconds % (86_400 * DAYS_TO_YEAR_10000);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_from_days(days);
        let hour = second_of_day / 3600;
        let encode = |value: u64| self.encode(value as u8);
        let hour = if self.status_b & STATUS_B_24_HOURS != 0 {
            encode(hour)
        } else {
            encode((hour + 11) % 12 + 1) | if hour >= 12 { 0x80 } else { 0 }
        };
        [
            encode(second_of_day % 60),
            encode(second_of_day / 60 % 60),
            hour,
            encode((days + 4) % 7 + 1), // the first day of 1970 was a Thursday; 1 is Sunday
            encode(day),
            encode(month),
            encode(year % 100),
            encode(year / 100),
        ]
    }

    fn encode(&self, value: u8) -> u8 {
        if self.status_b & STATUS_B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.status_b & STATUS_B_BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 0xf)
        }
    }
}

/// The place of a register in the arrays above.
fn field(index: u8) -> Option<usize> {
    match index {
        SECONDS => Some(0),
        MINUTES => Some(1),
        HOURS => Some(2),
        WEEKDAY => Some(3),
        DAY => Some(4),
        MONTH => Some(5),
        YEAR => Some(6),
        CENTURY => Some(7),
        _ => None,
    }
}

/// Days from 1970 to the year 10000.
const DAYS_TO_YEAR_10000: u64 = 2_932_897;

/// The Gregorian date of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms"): year, month, day.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the 1st of March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Its inverse, wrapping before 1970 and for what is no date.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year.wrapping_sub(u64::from(month <= 2));
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = ((153 * shifted_month + 2) / 5 + day).wrapping_sub(1);
    let day_of_era =
        (365 * year_of_era + year_of_era / 4 - year_of_era / 100).wrapping_add(day_of_year);
    era.wrapping_mul(146_097)
        .wrapping_add(day_of_era)
        .wrapping_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = NANOSECONDS_PER_SECOND;

    fn read(cmos: &mut Cmos, index: u8, time_ns: u64) -> u8 {
        cmos.select(index);
        cmos.read(time_ns)
    }

    fn write(cmos: &mut Cmos, index: u8, value: u8, time_ns: u64) {
        cmos.select(index);
        cmos.write(value, time_ns);
    }

    #[test]
    fn table_1_time_and_calendar_in_bcd() {
        let mut cmos = Cmos::default();
        let time = 1_709_210_096 * SECOND; // 2024-02-29 12:34:56, a Thursday
        let fields = [0, 2, 4, 6, 7, 8, 9, 0x32].map(|index| read(&mut cmos, index, time));
        assert_eq!(fields, [0x56, 0x34, 0x12, 0x05, 0x29, 0x02, 0x24, 0x20]);
        assert_eq!(read(&mut cmos, 0x0a, time) & 0x80, 0); // no update in progress
        assert_eq!(read(&mut cmos, 0x0d, time), 0x80);
    }

    #[test]
    fn register_b_binary_and_twelve_hours() {
        let mut cmos = Cmos::default();
        let time = 1_709_210_096 * SECOND;
        write(&mut cmos, 0x0b, 0x04, time);
        assert_eq!(read(&mut cmos, 0x00, time), 56);
        assert_eq!(read(&mut cmos, 0x04, time), 0x80 | 12);
    }

    #[test]
    fn register_b_set_holds_the_clock_and_its_end_sets_it() {
        let mut cmos = Cmos::default();
        let time = 1_709_210_096 * SECOND;
        write(&mut cmos, 0x0b, 0x82, time);
        for (index, value) in [
            (0, 0x01),
            (2, 0x02),
            (4, 0x03),
            (7, 0x04),
            (8, 0x05),
            (9, 0x30),
        ] {
            write(&mut cmos, index, value, time + SECOND);
        }
        assert_eq!(read(&mut cmos, 0, time + 9 * SECOND), 0x01);
        write(&mut cmos, 0x0b, 0x02, time + 10 * SECOND);
        let later = time + 15 * SECOND;
        let fields = [0, 2, 4, 7, 8, 9, 0x32].map(|index| read(&mut cmos, index, later));
        assert_eq!(fields, [0x06, 0x02, 0x03, 0x04, 0x05, 0x30, 0x20]);
    }

    proptest! {
        #[test]
        fn a_date_is_the_day_that_it_came_from(days in 0u64..DAYS_TO_YEAR_10000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert!((1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day));
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn what_a_guest_writes_never_panics(writes in proptest::collection::vec((0u8..128, any::<u8>(), any::<u64>()), 0..64)) {
            let mut cmos = Cmos::default();
            for (index, value, time) in writes {
                write(&mut cmos, index, value, time);
                read(&mut cmos, index, time);
                read(&mut cmos, 4, time);
            }
        }
    }
}
