//! What a host is called in its certificate.

use rustls_pki_types::DnsName;
use std::fmt;
use std::str::FromStr;

/// A host's name: that of a DNS host (RFC 1123, 2.1), in small letters. It need not be known to DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// A name that no host can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a host's name: write letters, digits, '-', '_' and '.', 64 at most, as in hosta or \
     db1.example.net"
)]
pub struct HostNameError(String);

/// The longest name, in characters.
const LONGEST: usize = 64;

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<HostName, HostNameError> {
        let wrong = || HostNameError(text.to_owned());
        if text.len() > LONGEST || text.ends_with('.') {
            return Err(wrong());
        }
        DnsName::try_from(text).map_err(|_| wrong())?;
        Ok(HostName(text.to_ascii_lowercase()))
    }
}

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1123_2_1_names_are_letters_digits_hyphens_and_dots() {
        for (text, name) in [
            ("hosta", "hosta"),
            ("DB1.example.net", "db1.example.net"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(text.parse::<HostName>().unwrap().as_str(), name);
        }
        let long = "a".repeat(65);
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a b",
            "a/b",
            "10.0.0.1",
            "\u{1b}[31m",
            "*.a",
            &long,
        ] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
    }
}
