//! Where a switch listens, as the user writes it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a switch: `unix:/path` or `tcp:127.0.0.1:7500`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchAddress {
    /// A Unix stream socket.
    Unix(PathBuf),
    /// A TCP socket, between hosts that have keys.
    Tcp(SocketAddr),
}

/// A switch's address that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the address of a switch: write unix:/path/to/socket or tcp:127.0.0.1:7500 (an \
     IPv6 address in brackets)"
)]
pub struct SwitchAddressError(String);

impl FromStr for SwitchAddress {
    type Err = SwitchAddressError;

    fn from_str(text: &str) -> Result<SwitchAddress, SwitchAddressError> {
        let wrong = || SwitchAddressError(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(SwitchAddress::Unix(path.into())),
            Some(("tcp", address)) => address.parse().map(SwitchAddress::Tcp).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for SwitchAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwitchAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            SwitchAddress::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_and_written_the_same() {
        for text in ["unix:/run/a b.sock", "tcp:127.0.0.1:7500", "tcp:[::1]:1"] {
            assert_eq!(text.parse::<SwitchAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_address_that_is_none_is_named_in_the_error() {
        for text in [
            "",
            "unix:",
            "/run/socket",
            "tcp:localhost",
            "tcp:127.0.0.1",
            "udp:1.2.3.4:5",
        ] {
            let error = text.parse::<SwitchAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
