//! The section `[journal]`.

use super::{Age, ByteSize, Milliseconds};
use replica::config::{JournalOptions, Retention};
use replication::config::JournalRole;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::{PathBuf, absolute};
use std::time::Duration;

/// The journal of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSection {
    /// Where it is: on a disk that survives a loss of power. Made when absent.
    pub directory: PathBuf,
    /// Who has to hold an output before it leaves.
    #[serde(default)]
    pub outputs_wait_for: OutputsWaitFor,
    /// It has failed when something is not durable after so long.
    #[serde(default = "default_timeout")]
    pub timeout: Milliseconds,
    /// Another snapshot is taken when going on from the journal would take longer.
    #[serde(default = "default_recover_within")]
    pub recover_within: Milliseconds,
    /// Bytes that are kept at most of what is older than its newest snapshot.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "size_and_no_time"
    )]
    pub keep: Option<ByteSize>,
    /// How long that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for: Option<Age>,
}

/// Who has to hold an output before it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputsWaitFor {
    /// Every backup, and the journal, durably.
    #[default]
    All,
    /// Every backup; the journal keeps the history, and the machine does not go on from it.
    Backup,
}

fn default_timeout() -> Milliseconds {
    Milliseconds(10_000)
}

fn default_recover_within() -> Milliseconds {
    Milliseconds(10_000)
}

/// Whoever gives a time for a size is told where it belongs.
fn size_and_no_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ByteSize>, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    if let toml::Value::String(text) = &value
        && text.parse::<Age>().is_ok()
    {
        let message = format!("{text:?} is a time: write keep_for = {text:?}");
        return Err(D::Error::custom(message));
    }
    value.try_into().map(Some).map_err(D::Error::custom)
}

impl JournalSection {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.timeout.0 == 0 {
            let message = "0 ms is no time: give some seconds";
            return Err(("journal.timeout", message.into()));
        }
        if self.recover_within.0 < 1000 {
            let message = format!(
                "{} ms: a snapshot for every such stretch would be all that the machine does; give a \
                 second at least",
                self.recover_within.0
            );
            return Err(("journal.recover_within", message));
        }
        Ok(())
    }

    /// As a replica takes it.
    pub(super) fn options(&self) -> JournalOptions {
        JournalOptions {
            // A replica tells others where it is.
            directory: absolute(&self.directory).unwrap_or_else(|_| self.directory.clone()),
            role: match self.outputs_wait_for {
                OutputsWaitFor::All => JournalRole::Member,
                OutputsWaitFor::Backup => JournalRole::History,
            },
            timeout: self.timeout.duration(),
            recover_within: self.recover_within.duration(),
            keep: self.retention(),
        }
    }

    /// What is kept: nothing, unless one of the two limits is given; what is within both, where both are.
    fn retention(&self) -> Retention {
        match (self.keep, self.keep_for) {
            (None, None) => Retention::NOTHING,
            (bytes, age) => Retention {
                bytes: bytes.map_or(u64::MAX, |bytes| bytes.0),
                age: age.map_or(Duration::MAX, |age| age.0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(keys: &str) -> Result<Retention, String> {
        let section = format!("directory = \"j\"\n{keys}");
        let section: Result<JournalSection, _> = toml::from_str(&section);
        let section = section.map_err(|error| error.to_string())?;
        Ok(section.options().keep)
    }

    #[test]
    fn what_is_kept_is_told_in_bytes_or_time_or_both() {
        let gib = 10 << 30;
        let day = Duration::from_secs(86_400);
        for (keys, bytes, age) in [
            ("keep = \"10G\"", gib, Duration::MAX),
            ("keep = \"10GiB\"", gib, Duration::MAX),
            ("keep_for = \"24h\"", u64::MAX, day),
            ("keep_for = \"1d\"\nkeep = 10737418240", gib, day),
        ] {
            let kept = retention(keys).unwrap();
            assert_eq!(kept, Retention { bytes, age }, "{keys}");
            assert!(kept.keeps_anything());
        }
        assert_eq!(retention(""), Ok(Retention::NOTHING));
        assert!(!retention("keep = 0").unwrap().keeps_anything());
    }

    #[test]
    fn a_time_for_a_size_is_told_where_it_belongs() {
        let error = retention("keep = \"24h\"").unwrap_err();
        assert!(error.contains("write keep_for = \"24h\""), "{error}");
        for keys in ["keep_for = \"10G\"", "keep_for = 24"] {
            let error = retention(keys).unwrap_err();
            assert!(error.contains("such as \"24h\""), "{error}");
        }
    }
}
