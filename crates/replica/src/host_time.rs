//! The host's clocks, as plain numbers.

pub use environment::clock::{monotonic, monotonic_ns, thread_cpu, unix_ns};

/// Formats nanoseconds since 1970 as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let milliseconds = unix_ns / 1_000_000 % 1000;
    let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// Reads a moment as RFC 3339 has it: `2026-11-30T04:12:00Z`, with a fraction or not, with an offset or not. Gives
/// nanoseconds since 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let digits = |text: &str, length: usize| {
        let is_number = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':');
    let (hour, minute, second) = (time.next()?, time.next()?, time.next()?);
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    let fraction_ns = digits(fraction, fraction.len())
        .filter(|_| (1..=9).contains(&fraction.len()))?
        * 10u64.pow(9 - fraction.len() as u32);
    let east_s = match zone {
        "Z" | "z" => 0,
        zone => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            let seconds = (hours * 60 + minutes) as i64 * 60;
            if zone.starts_with('-') {
                -seconds
            } else {
                seconds
            }
        }
    };
    let days = days_from_civil(year as i64, month, day)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * 86_400 + ((hour * 60 + minute) * 60 + second) as i64 - east_s;
    let seconds = u64::try_from(seconds).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction_ns)
}

/// Year, month, day to days since 1970-01-01 (Howard Hinnant's `days_from_civil`); nothing if there is no such day.
fn days_from_civil(year: i64, month: u64, day: u64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = (month as i64 + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day as i64 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    // The 30th of February is no day.
    (civil_from_days(days).2 == day as u32).then_some(days)
}

/// Days since 1970-01-01 to year, month, day (Howard Hinnant's `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_section_5_8_examples() {
        assert_eq!(rfc3339(482_196_050_520_000_000), "1985-04-12T23:20:50.520Z");
        assert_eq!(rfc3339(851_042_397_000_000_000), "1996-12-20T00:39:57.000Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn a_moment_that_is_written_is_read() {
        for unix_ns in [0, 482_196_050_520_000_000, 951_782_400_000_000_000] {
            assert_eq!(parse_rfc3339(&rfc3339(unix_ns)), Some(unix_ns));
        }
        // The examples of RFC 3339, section 5.8.
        let afternoon = 851_042_397_000_000_000;
        for text in [
            "1996-12-19T16:39:57-08:00",
            "1996-12-20t00:39:57z",
            "1996-12-20 00:39:57.0Z",
        ] {
            assert_eq!(parse_rfc3339(text), Some(afternoon), "{text}");
        }
        for text in [
            "",
            "1996-12-20",
            "1996-12-20T00:39:57",
            "1996-13-20T00:39:57Z",
            "1999-02-29T00:00:00Z",
            "1996-12-20T24:00:00Z",
            "1996-12-20T00:39:57.Z",
            "1996-12-20T00:39:57+0100",
            "1969-12-31T23:59:59Z",
            "96-12-20T00:39:57Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
