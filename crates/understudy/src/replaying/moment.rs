//! A moment of a recording: after so much guest time, after a record, or after so many instructions.

use machine::Machine;
use machine::input::InstructionCount;
use replica::host_time::{parse_rfc3339, rfc3339};
use replica::vcpu::times_of;
use replication::record::RecordNumber;
use std::fmt;
use std::str::FromStr;

/// Where a replay is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At the first instruction count at which guest time is so many nanoseconds since power-on.
    Time(u64),
    /// When the record of this number, counted from 1, has taken effect.
    Record(RecordNumber),
    /// After so many instructions since power-on, and after every record of that count.
    Instruction(InstructionCount),
    /// At the first instruction count at which the machine's real-time clock shows so many nanoseconds since 1970,
    /// or more.
    Calendar(u64),
}

/// Units of time and their nanoseconds; a unit comes before one that ends like it.
const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Moment {
    /// As [`Moment::from_str`], and a number alone is an instruction count.
    ///
    /// # Errors
    /// A sentence that says what a moment looks like.
    pub fn or_instruction(text: &str) -> Result<Moment, String> {
        text.parse::<u64>()
            .map_or_else(|_| text.parse(), |count| Ok(Moment::Instruction(count)))
    }

    /// How many instructions the machine may run at least without passing the moment: 0 if it is
    /// there, as far as instructions say. `replayed` is the number of the last record.
    pub fn distance(self, machine: &dyn Machine, replayed: RecordNumber) -> Distance {
        let count = machine.instruction_count();
        match self {
            Moment::Record(number) if replayed >= number => Distance::Reached,
            Moment::Record(_) => Distance::Instructions(u64::MAX),
            Moment::Instruction(at) if count >= at => Distance::AtCount,
            Moment::Instruction(at) => Distance::Instructions(at - count),
            Moment::Time(time_ns) => distance_in_time(machine, machine.guest_time_ns(), time_ns),
            Moment::Calendar(unix_ns) => {
                distance_in_time(machine, times_of(machine).unix_ns, unix_ns)
            }
        }
    }
}

fn distance_in_time(machine: &dyn Machine, now_ns: u64, wanted_ns: u64) -> Distance {
    match wanted_ns.checked_sub(now_ns) {
        None | Some(0) => Distance::AtCount,
        Some(missing_ns) => {
            Distance::Instructions(fewest_instructions(missing_ns, machine.clock().rate))
        }
    }
}

/// Instructions after which so much time may have passed, not more than it really takes: the clock
/// rounds down to nanoseconds both at present and then.
fn fewest_instructions(missing_ns: u64, rate: u64) -> u64 {
    if rate == 0 {
        return u64::MAX;
    }
    let almost = u128::from(missing_ns - 1) << 32;
    u64::try_from(almost / u128::from(rate)).map_or(u64::MAX, |instructions| instructions.max(1))
}

/// How far a machine is from a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// It is there.
    Reached,
    /// It is at the moment's instruction count: records of this count still belong to it.
    AtCount,
    /// It is before it, by so many instructions or more.
    Instructions(u64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let number = |digits: &str| digits.parse::<u64>().ok();
        let moment = if let Some(digits) = text.strip_prefix("record:") {
            number(digits)
                .map(RecordNumber)
                .filter(|number| *number > RecordNumber::BEFORE_ALL)
                .map(Moment::Record)
        } else if let Some(digits) = text.strip_prefix("instruction:") {
            number(digits).map(Moment::Instruction)
        } else {
            UNITS.iter().find_map(|(unit, unit_ns)| {
                nanoseconds(text.strip_suffix(unit)?, *unit_ns).map(Moment::Time)
            })
        };
        let moment = moment.or_else(|| parse_rfc3339(text).map(Moment::Calendar));
        moment.ok_or_else(|| {
            format!(
                "{text:?} is no moment: write guest time since power-on with its unit (12.5s, 800ms, 2m), \
                 the date of the machine's clock (2026-11-30T04:12:00Z), record:1234 (from 1), or \
                 instruction:5000000000"
            )
        })
    }
}

/// A number with or without a fraction, in nanoseconds.
fn nanoseconds(text: &str, unit_ns: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| {
        !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let part = fraction.parse::<u128>().ok()? * u128::from(unit_ns) / scale;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Time(time_ns) => write!(f, "{} of guest time", Seconds(*time_ns)),
            Moment::Record(number) => write!(f, "record {number}"),
            Moment::Instruction(count) => write!(f, "instruction {count}"),
            Moment::Calendar(unix_ns) => write!(f, "{}", rfc3339(*unix_ns)),
        }
    }
}

/// Nanoseconds, told as seconds.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09} s",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_its_unit() {
        for (text, expected) in [
            ("12.5s", Moment::Time(12_500_000_000)),
            ("800ms", Moment::Time(800_000_000)),
            ("1.5us", Moment::Time(1_500)),
            ("7ns", Moment::Time(7)),
            ("2m", Moment::Time(120_000_000_000)),
            ("1h", Moment::Time(3_600_000_000_000)),
            ("record:1234", Moment::Record(RecordNumber(1234))),
            ("instruction:5000000000", Moment::Instruction(5_000_000_000)),
            (
                "2000-02-29T01:00:00+01:00",
                Moment::Calendar(951_782_400_000_000_000),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "12",
            "s",
            ".s",
            "1.s",
            "-1s",
            "record:0",
            "record:",
            "1 s",
            "1e3s",
            "99999999999h",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        assert_eq!(Moment::or_instruction("12"), Ok(Moment::Instruction(12)));
    }

    /// One step of the bound never passes the first instruction at which the time has come.
    #[test]
    fn so_many_instructions_never_pass_the_moment() {
        for rate in [1, 3, 1 << 20, 0x4000_0000, 1 << 32, 4 << 32, (5 << 32) + 7] {
            for (begin, missing) in [(0u64, 1u64), (17, 1), (5, 1000), (3, 999_999_999)] {
                let time = |n: u64| (u128::from(n) * u128::from(rate)) >> 32;
                let steps = fewest_instructions(missing, rate);
                let wanted = time(begin) + u128::from(missing);
                assert!(
                    steps >= 1 && time(begin + steps - 1) < wanted,
                    "{rate} {begin} {missing}"
                );
            }
        }
    }
}
