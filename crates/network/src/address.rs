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

/// The longest path of a Unix socket, in bytes (`sockaddr_un` of unix(7), without the terminating zero).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A switch's address that cannot be understood, or cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchAddressError {
    /// Neither of the two kinds.
    #[error(
        "{0:?} is not the address of a switch: write unix:/path/to/socket or tcp:127.0.0.1:7500 (an \
         IPv6 address in brackets)"
    )]
    Unknown(String),
    /// No socket can have this path.
    #[error(
        "{address:?} cannot be the address of a switch: its path has {} bytes, and a Unix socket's at \
         most {MAX_SOCKET_PATH_BYTES}; choose a shorter one",
        address.len() - "unix:".len()
    )]
    PathTooLong {
        /// The address.
        address: String,
    },
}

impl FromStr for SwitchAddress {
    type Err = SwitchAddressError;

    fn from_str(text: &str) -> Result<SwitchAddress, SwitchAddressError> {
        let wrong = || SwitchAddressError::Unknown(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if path.is_empty() || path.contains('\0') => Err(wrong()),
            Some(("unix", path)) if path.len() > MAX_SOCKET_PATH_BYTES => {
                let address = text.to_owned();
                Err(SwitchAddressError::PathTooLong { address })
            }
            Some(("unix", path)) => Ok(SwitchAddress::Unix(path.into())),
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
            "unix:/a\0b",
        ] {
            let error = text.parse::<SwitchAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_said_to_be_too_long() {
        let longest = format!("unix:/{}", "x".repeat(MAX_SOCKET_PATH_BYTES - 1));
        assert!(longest.parse::<SwitchAddress>().is_ok());
        let longer = format!("{longest}x");
        let error = longer.parse::<SwitchAddress>().unwrap_err().to_string();
        for word in [&*longer, "108 bytes", "at most 107"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
