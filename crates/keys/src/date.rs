//! Days, for people.

use rustls_pki_types::UnixTime;
use std::fmt;
use std::time::Duration;
use time::OffsetDateTime;

/// Seconds of a day.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A moment, shown as its day in UTC: `2027-11-28`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub UnixTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.0.as_secs() as i64) {
            Ok(moment) => {
                let (year, month, day) = moment.to_calendar_date();
                write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
            }
            // After the year 9999.
            Err(_) => f.write_str("never"),
        }
    }
}

/// Whole days from `from` until `until`; negative when that is past.
pub fn whole_days(from: UnixTime, until: UnixTime) -> i64 {
    (until.as_secs() as i64 - from.as_secs() as i64).div_euclid(DAY.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_as_its_day() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert_eq!(Date(at(0)).to_string(), "1970-01-01");
        assert_eq!(Date(at(1_795_910_399)).to_string(), "2026-11-28");
        assert_eq!(Date(at(u64::from(u32::MAX) << 12)).to_string(), "never");
        assert_eq!(whole_days(at(0), at(86_399)), 0);
        assert_eq!(whole_days(at(86_400), at(86_399)), -1);
    }
}
