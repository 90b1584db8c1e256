//! Where a debugger may come in: a socket that its owner alone can open, or a port of this host's own.

use super::server::Debugged;
use crate::exit::Failure;
use anyhow::Context;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a debugger comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GdbAddress {
    /// A socket in the file system, for the owner only.
    Unix(PathBuf),
    /// This port of 127.0.0.1; 0 for any that is free. Every user of the host can come in.
    Port(u16),
}

impl FromStr for GdbAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<GdbAddress, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(GdbAddress::Unix(path.into()));
        }
        text.strip_prefix("127.0.0.1:")
            .and_then(|port| port.parse().ok())
            .map(GdbAddress::Port)
            .ok_or_else(|| {
                format!("{text:?} is no address for gdb: write unix:PATH, or 127.0.0.1:PORT; there is no other")
            })
    }
}

impl fmt::Display for GdbAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GdbAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            GdbAddress::Port(port) => write!(f, "127.0.0.1:{port}"),
        }
    }
}

impl GdbAddress {
    /// Listens there.
    ///
    /// # Errors
    /// Something is there already, or it cannot be.
    pub fn listen(&self) -> io::Result<GdbListener> {
        Ok(match self {
            GdbAddress::Unix(path) => GdbListener::Unix(bind_for_owner(path)?, path.clone()),
            GdbAddress::Port(port) => {
                GdbListener::Tcp(TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?)
            }
        })
    }
}

/// Binds a socket that has never been open to anybody else: it gets its name when it has its rights. (The
/// process's umask is no way: it is every thread's.)
fn bind_for_owner(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|parent| parent.as_os_str() != "");
    let private = tempfile::Builder::new()
        .prefix(".")
        .tempdir_in(parent.unwrap_or(Path::new(".")))?;
    let socket = private.path().join("s");
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    fs::hard_link(&socket, path)?;
    Ok(listener)
}

/// Where debuggers are waited for. The socket in the file system goes with it.
#[derive(Debug)]
pub enum GdbListener {
    /// A socket in the file system.
    Unix(UnixListener, PathBuf),
    /// A port.
    Tcp(TcpListener),
}

impl GdbListener {
    /// How to come in, and who can.
    pub fn invitation(&self) -> String {
        match self {
            GdbListener::Unix(_, path) => format!(
                "waiting for gdb on {0}, for this user only: gdb-multiarch -ex 'target remote {0}'",
                path.display()
            ),
            GdbListener::Tcp(listener) => {
                let port = listener.local_addr().map_or(0, |address| address.port());
                format!(
                    "waiting for gdb on 127.0.0.1:{port}, where EVERY USER OF THIS HOST can read the guest's memory: \
                     gdb-multiarch -ex 'target remote 127.0.0.1:{port}'"
                )
            }
        }
    }

    /// Waits for a debugger and serves it. What [`Debugged::serve`] gives.
    ///
    /// # Errors
    /// Nobody can be waited for any more.
    pub fn serve_next(&self, debugged: &mut Debugged) -> Result<Result<bool, String>, Failure> {
        let lost = "the debugger's socket has failed";
        Ok(match self {
            GdbListener::Unix(listener, _) => debugged.serve(listener.accept().context(lost)?.0),
            GdbListener::Tcp(listener) => debugged.serve(listener.accept().context(lost)?.0),
        })
    }
}

impl Drop for GdbListener {
    fn drop(&mut self) {
        if let GdbListener::Unix(_, path) = self {
            // It may be gone already.
            let _removed = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_can_be_listened_on() {
        for text in ["unix:/tmp/x", "127.0.0.1:1234"] {
            assert_eq!(text.parse::<GdbAddress>().unwrap().to_string(), text);
        }
        for text in [
            "0.0.0.0:1234",
            "1234",
            "unix:",
            "[::]:1",
            "example:1",
            "127.0.0.1:99999",
        ] {
            assert!(text.parse::<GdbAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_socket_is_its_owners_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gdb");
        let address = GdbAddress::Unix(path.clone());
        let listener = address.listen().unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        assert!(address.listen().is_err(), "somebody listens there");
        drop(listener);
        assert!(!path.exists());
    }
}
