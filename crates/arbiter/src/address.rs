//! How people write where an arbiter is: a path, or a URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// Under this name the keys are kept where the address names no other.
const DEFAULT_PREFIX: &str = "understudy";
/// The port that etcd listens at for its clients.
const ETCD_PORT: u16 = 2379;

/// Where an arbiter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A directory, by its path.
    Directory(PathBuf),
    /// etcd: `etcd://host:2379,host2:2379/prefix`, or `etcds://…` for TLS.
    Etcd(EtcdAddress),
    /// A bucket: `s3://bucket/prefix`.
    S3(BucketAddress),
}

/// The members of one etcd cluster, and where the keys are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdAddress {
    /// Whether they are spoken to by TLS.
    pub is_encrypted: bool,
    /// `host:port` of each.
    pub endpoints: Vec<String>,
    /// What all keys begin with, but for a `/`.
    pub prefix: String,
}

/// A bucket, and where the keys are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketAddress {
    /// Its name.
    pub bucket: String,
    /// What all keys begin with, but for a `/`.
    pub prefix: String,
}

/// Why a text is no address of an arbiter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no arbiter: {why}")]
pub struct AddressError {
    text: String,
    why: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        parse(text).map_err(|why| AddressError {
            text: text.into(),
            why,
        })
    }
}

fn parse(text: &str) -> Result<Address, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return match text {
            "" => Err("it is empty".into()),
            path => Ok(Address::Directory(path.into())),
        };
    };
    let (place, prefix) = match rest.split_once('/') {
        Some((place, prefix)) => (place, prefix.trim_end_matches('/')),
        None => (rest, ""),
    };
    let prefix = match prefix {
        "" => DEFAULT_PREFIX,
        prefix => prefix,
    };
    if !prefix.split('/').all(is_name) {
        return Err(format!(
            "the prefix {prefix:?} is not made of letters, digits, '-', '_' and '.', with single '/' between"
        ));
    }
    let prefix = prefix.to_owned();
    match scheme {
        "etcd" | "etcds" => Ok(Address::Etcd(EtcdAddress {
            is_encrypted: scheme == "etcds",
            endpoints: place.split(',').map(endpoint).collect::<Result<_, _>>()?,
            prefix,
        })),
        "s3" if is_bucket(place) => Ok(Address::S3(BucketAddress {
            bucket: place.into(),
            prefix,
        })),
        "s3" => Err(format!(
            "a bucket's name has 3 to 63 lower-case letters, digits, '-' and '.', not {place:?}"
        )),
        _ => Err(
            "give a directory, etcd://HOST:2379,…/PREFIX, etcds://… or s3://BUCKET/PREFIX".into(),
        ),
    }
}

/// A part of a key that no store takes for anything else.
fn is_name(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && part != "." && part != ".." && part.chars().all(is_plain)
}

fn is_bucket(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    (3..=63).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with('.')
}

/// `host:port`; the port may be left out.
fn endpoint(text: &str) -> Result<String, String> {
    let is_literal = text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !is_literal || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(literal) => literal.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => is_name(host),
    };
    let port = match port {
        None => Some(ETCD_PORT),
        Some(port) => port.parse::<u16>().ok().filter(|port| *port != 0),
    };
    match port {
        Some(port) if is_host => Ok(format!("{host}:{port}")),
        _ => Err(format!("{text:?} is no HOST:PORT")),
    }
}

impl fmt::Display for EtcdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "etcds" } else { "etcd" };
        write!(f, "{scheme}://{}/{}", self.endpoints.join(","), self.prefix)
    }
}

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(text: &str) -> EtcdAddress {
        match text.parse() {
            Ok(Address::Etcd(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_people_write_is_understood() {
        let directory = Address::Directory("/mnt/shared/arbiter".into());
        assert_eq!("/mnt/shared/arbiter".parse(), Ok(directory));
        let address = etcd("etcds://a:2379,b,[::1]:4001/vms/shop/");
        assert_eq!(
            address.to_string(),
            "etcds://a:2379,b:2379,[::1]:4001/vms/shop"
        );
        assert!(address.is_encrypted);
        let address = etcd("etcd://127.0.0.1");
        assert_eq!(address.to_string(), "etcd://127.0.0.1:2379/understudy");
        assert_eq!(etcd("etcd://[::1]").endpoints, ["[::1]:2379"]);
        let bucket = BucketAddress {
            bucket: "my-bucket".into(),
            prefix: "understudy".into(),
        };
        assert_eq!("s3://my-bucket".parse(), Ok(Address::S3(bucket.clone())));
        assert_eq!("s3://my-bucket/".parse(), Ok(Address::S3(bucket)));
    }

    #[test]
    fn what_cannot_be_is_refused_and_quoted() {
        for text in [
            "",
            "etcd://",
            "etcd:///prefix",
            "etcd://a,,b",
            "etcd://a:0",
            "etcd://a:port",
            "etcd://user@a",
            "etcd://[::1:2379",
            "etcd://::1/x",
            "etcd://a/x//y",
            "etcd://a/../b",
            "etcd://a/b?c",
            "s3://",
            "s3://Bucket",
            "s3://b",
            "s3://bucket/a b",
            "http://a:2379",
            "zookeeper://a",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{text:?} is no arbiter: ")),
                "{error}"
            );
        }
    }
}
