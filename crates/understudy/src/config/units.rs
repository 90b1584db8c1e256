//! Values with units: `512M`, `200ms`, `52:54:00:12:34:56`.

use keys::{HostName, HostNameError};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, written as a plain number or with `K`, `M` or `G` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let plain = text.trim().trim_end_matches("iB").trim_end_matches('B');
        let (digits, shift) = match plain.as_bytes().last() {
            Some(b'K' | b'k') => (&plain[..plain.len() - 1], 10),
            Some(b'M' | b'm') => (&plain[..plain.len() - 1], 20),
            Some(b'G' | b'g') => (&plain[..plain.len() - 1], 30),
            _ => (plain, 0),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .map(ByteSize)
            .ok_or_else(|| format!("{text:?} is not a size such as 512M or 2G"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n != 0 && n.is_multiple_of(1 << 30) => write!(f, "{}G", n >> 30),
            n if n != 0 && n.is_multiple_of(1 << 20) => write!(f, "{}M", n >> 20),
            n if n != 0 && n.is_multiple_of(1 << 10) => write!(f, "{}K", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

/// A time in milliseconds, written as `200ms`, `2s` or a plain number of milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Milliseconds(pub u64);

impl Milliseconds {
    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Milliseconds, String> {
        let (digits, factor) = if let Some(digits) = text.strip_suffix("ms") {
            (digits, 1)
        } else if let Some(digits) = text.strip_suffix('s') {
            (digits, 1000)
        } else {
            (text, 1)
        };
        digits
            .trim()
            .parse::<u64>()
            .ok()
            .filter(|number| (1..=3_600_000).contains(&number.saturating_mul(factor)))
            .map(|number| Milliseconds(number * factor))
            .ok_or_else(|| format!("{text:?} is not a time from 1ms to 3600s"))
    }
}

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// A long time, written as `24h`, `7d`, `90m` or `300s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Age, String> {
        let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
        let age = units.into_iter().find_map(|(unit, seconds)| {
            let number: u64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
            number.checked_mul(seconds).filter(|seconds| *seconds > 0)
        });
        age.map(|seconds| Age(Duration::from_secs(seconds)))
            .ok_or_else(|| format!("{text:?} is not a time such as \"24h\" or \"7d\""))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

/// An Ethernet address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl Default for MacAddress {
    /// The first address of QEMU's range.
    fn default() -> MacAddress {
        MacAddress([0x52, 0x54, 0x00, 0x12, 0x34, 0x56])
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<MacAddress, String> {
        let wrong = || format!("{text:?} is not an address such as 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(format!("{text:?} is not the address of one station"));
        }
        Ok(MacAddress(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A host, by the name in its certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberName(pub HostName);

impl FromStr for MemberName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<MemberName, HostNameError> {
        text.parse().map(MemberName)
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number or a text, as TOML may hold either.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

macro_rules! as_text {
    ($type:ty, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = match NumberOrText::deserialize(deserializer) {
                    Ok(NumberOrText::Number(number)) => number.to_string(),
                    Ok(NumberOrText::Text(text)) => text,
                    Err(_) => return Err(D::Error::custom(concat!("expected ", $expected))),
                };
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

as_text!(ByteSize, "a size such as \"512M\"");
as_text!(Milliseconds, "a time such as \"200ms\"");
as_text!(Age, "a time such as \"24h\"");
as_text!(MemberName, "a host's name such as \"hosta\"");
as_text!(MacAddress, "an address such as \"52:54:00:12:34:56\"");
