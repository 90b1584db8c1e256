//! The section `[journal]`.

use super::arbiter::{Environment, Wrong};
use super::{Age, ArbiterSection, ByteSize, Milliseconds};
use arbiter::Settings;
use replica::config::{JournalBucket, JournalOptions, JournalPlace, Retention};
use replication::config::JournalRole;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

/// The journal of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSection {
    /// Where it is: on a disk that survives a loss of power. Made when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// Or in a bucket: `s3://BUCKET/PREFIX`, the same on all hosts or not, of this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The URL of a service that is not Amazon's; absent: of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; absent: of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// An access key; absent: of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// A file with its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key_file: Option<PathBuf>,
    /// TLS: who signs the service's certificate, PEM; absent: whom the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<PathBuf>,
    /// Who has to hold an output before it leaves.
    #[serde(default)]
    pub outputs_wait_for: OutputsWaitFor,
    /// It has failed when something is not durable after so long.
    #[serde(default = "default_timeout")]
    pub timeout: Milliseconds,
    /// Another snapshot is taken when going on from the journal would take longer.
    #[serde(
        default = "default_recover_within",
        deserialize_with = "recover_within"
    )]
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

/// What is no time at all is told with the times that this can be.
fn recover_within<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Milliseconds, D::Error> {
    Milliseconds::deserialize(deserializer)
        .map_err(|_| D::Error::custom("give a time from 1s to 3600s, such as \"10s\""))
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
    /// Of this bucket, as its environment says.
    pub fn at(url: &str) -> JournalSection {
        JournalSection {
            directory: None,
            url: Some(url.into()),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key_file: None,
            ca_certificate: None,
            outputs_wait_for: OutputsWaitFor::default(),
            timeout: default_timeout(),
            recover_within: default_recover_within(),
            keep: None,
            keep_for: None,
        }
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        if self.directory.is_some() == self.url.is_some() {
            let message = "give either `directory` or `url`";
            return Err(("journal", message.into()));
        }
        let bucket = self.bucket();
        bucket.check().map_err(own_key)?;
        if self.timeout.0 == 0 {
            let message = "0 ms is no time: give some seconds";
            return Err(("journal.timeout", message.into()));
        }
        if self.recover_within.0 < 1000 {
            let message = format!(
                "{} ms is too short: another snapshot would always be due, and the machine would do nothing else. \
                 Give 1s or more; 10s is usual",
                self.recover_within.0
            );
            return Err(("journal.recover_within", message));
        }
        Ok(())
    }

    /// A bucket is reached as an arbiter's is.
    fn bucket(&self) -> ArbiterSection {
        ArbiterSection {
            directory: self.directory.clone(),
            url: self.url.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key_file: self.secret_access_key_file.clone(),
            ca_certificate: self.ca_certificate.clone(),
            ..ArbiterSection::default()
        }
    }

    /// Where it is, with all that it takes to reach it.
    pub fn place(&self, environment: Environment<'_>) -> Result<JournalPlace, Wrong> {
        match self.bucket().settings(environment).map_err(own_key)? {
            // A replica tells others where it is.
            Settings::Directory(path) => {
                let whole = absolute(&path).unwrap_or(path);
                Ok(JournalPlace::Directory(whole))
            }
            Settings::S3(settings) => Ok(JournalPlace::Bucket(Box::new(JournalBucket {
                settings,
                patience: self.timeout.duration(),
            }))),
            Settings::Etcd(_) => {
                let message = "etcd holds no journals: give s3://BUCKET/PREFIX";
                Err(("journal.url", message.into()))
            }
        }
    }

    /// The files and directories that it names, by their keys.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let paths = [
            ("journal.directory", &self.directory),
            (
                "journal.secret_access_key_file",
                &self.secret_access_key_file,
            ),
            ("journal.ca_certificate", &self.ca_certificate),
        ];
        let named = paths.into_iter();
        named.filter_map(|(key, path)| Some((key, path.as_deref()?)))
    }

    /// Resolves relative paths.
    pub(super) fn resolve(&mut self, resolve: impl Fn(&mut PathBuf)) {
        [
            &mut self.directory,
            &mut self.secret_access_key_file,
            &mut self.ca_certificate,
        ]
        .into_iter()
        .flatten()
        .for_each(resolve);
    }

    /// As a replica takes it.
    pub(super) fn options(&self, environment: Environment<'_>) -> Result<JournalOptions, Wrong> {
        Ok(JournalOptions {
            place: self.place(environment)?,
            role: match self.outputs_wait_for {
                OutputsWaitFor::All => JournalRole::Member,
                OutputsWaitFor::Backup => JournalRole::History,
            },
            timeout: self.timeout.duration(),
            recover_within: self.recover_within.duration(),
            keep: self.retention(),
        })
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

/// The key of the section `[journal]` that is meant.
fn own_key((key, message): Wrong) -> Wrong {
    let key = match key {
        "arbiter.url" => "journal.url",
        "arbiter.endpoint" => "journal.endpoint",
        "arbiter.region" => "journal.region",
        "arbiter.access_key_id" => "journal.access_key_id",
        "arbiter.secret_access_key_file" => "journal.secret_access_key_file",
        "arbiter.ca_certificate" => "journal.ca_certificate",
        _ => "journal",
    };
    let message = message
        .replace("this kind of arbiter", "this kind of journal")
        .replace("is no arbiter", "is no place for a journal")
        .replace(
            "give a directory, etcd://HOST:2379,…/PREFIX, etcds://… or s3://BUCKET/PREFIX",
            "give s3://BUCKET/PREFIX, or the key `directory` instead",
        );
    (key, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(keys: &str) -> Result<Retention, String> {
        let section = format!("directory = \"j\"\n{keys}");
        let section: Result<JournalSection, _> = toml::from_str(&section);
        let section = section.map_err(|error| error.to_string())?;
        let options = section.options(&|_| None);
        Ok(options.map_err(|(key, why)| format!("{key}: {why}"))?.keep)
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
    fn a_bucket_is_reached_as_an_arbiters_is_and_what_is_wrong_is_named_by_its_own_key() {
        let place = |keys: &str| {
            let section: Result<JournalSection, _> = toml::from_str(keys);
            let section = section.map_err(|error| error.to_string())?;
            let told = |(key, why)| format!("{key}: {why}");
            section.check().map_err(told)?;
            let environment = |name: &str| Some(format!("{name}'s"));
            section.place(&environment).map_err(told)
        };
        let bucket = place("url = \"s3://bucket/shop\"\ntimeout = \"5s\"");
        let Ok(JournalPlace::Bucket(bucket)) = bucket else {
            panic!("{bucket:?}")
        };
        assert_eq!(bucket.settings.address.to_string(), "s3://bucket/shop");
        assert_eq!(bucket.settings.region, "AWS_REGION's");
        assert_eq!(bucket.patience, Duration::from_secs(5));
        for (keys, key) in [
            ("", "journal: give either"),
            (
                "url = \"s3://b-b\"\ndirectory = \"d\"",
                "journal: give either",
            ),
            ("directory = \"d\"\nregion = \"eu\"", "journal.region: "),
            ("url = \"etcd://a\"", "journal.url: "),
            ("url = \"d\"", "journal.url: "),
            (
                "directory = \"d\"\nrecover_within = \"0s\"",
                "give a time from 1s to 3600s",
            ),
            (
                "directory = \"d\"\nrecover_within = \"999ms\"",
                "Give 1s or more",
            ),
            (
                "url = \"s3://b-b\"\naccess_key_id = \"i\"",
                "journal.access_key_id: ",
            ),
        ] {
            let error = place(keys).unwrap_err();
            assert!(error.contains(key), "{keys}: {error}");
        }
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
