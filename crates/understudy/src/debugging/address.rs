//! Where a debugger may come in: a socket that its owner alone can open, or a port of this host's own.

use super::server::Debugged;
use crate::exit::Failure;
use anyhow::Context;
use network::MAX_SOCKET_PATH_BYTES;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
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
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH_BYTES {
        let text = format!(
            "the path has {bytes} bytes, and a Unix socket's at most {MAX_SOCKET_PATH_BYTES}: choose a \
             shorter one"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let parent = path.parent().filter(|parent| parent.as_os_str() != "");
    let parent = parent.unwrap_or(Path::new("."));
    let private = tempfile::Builder::new().prefix(".").tempdir_in(parent);
    let private = private.map_err(|error| nothing_can_be_made(parent, &error))?;
    let socket = private.path().join("s");
    // By way of the open directory, whose name would make the path too long.
    let opened = File::open(private.path())?;
    let short = format!("/proc/self/fd/{}/s", opened.as_raw_fd());
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    fs::hard_link(&socket, path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let text =
                "something is there already: remove it if nobody needs it, or choose another path";
            io::Error::new(error.kind(), text)
        }
        _ => error,
    })?;
    Ok(listener)
}

/// What the user did not choose, a name that was tried, is not the user's to read.
fn nothing_can_be_made(directory: &Path, error: &io::Error) -> io::Error {
    // That is how crate `tempfile` says it.
    let said = error.to_string();
    let why = said.split(" at path ").next().unwrap_or_default();
    let text = format!("nothing can be made in {}: {why}", directory.display());
    io::Error::new(error.kind(), text)
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
    /// The socket in the file system, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            GdbListener::Unix(_, path) => Some(path),
            GdbListener::Tcp(_) => None,
        }
    }

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
        let taken = address.listen().unwrap_err().to_string();
        assert!(taken.contains("there already"), "{taken}");
        drop(listener);
        assert!(!path.exists());
    }

    /// Finding: the error showed a temporary name that nobody had given, and a path that was short enough
    /// was refused because that name was not.
    #[test]
    fn what_cannot_be_listened_on_is_said_by_the_names_that_were_given() {
        let directory = tempfile::tempdir().unwrap();
        let said = |path: &Path| {
            let error = GdbAddress::Unix(path.into()).listen().unwrap_err();
            error.to_string()
        };
        let nowhere = directory.path().join("nowhere");
        let text = said(&nowhere.join("gdb"));
        let expected = format!("nothing can be made in {}: No such file", nowhere.display());
        assert!(text.starts_with(&expected), "{text}");
        let hidden = format!("{}/.", nowhere.display());
        assert!(!text.contains(&hidden), "{text}");
        let left = MAX_SOCKET_PATH_BYTES - directory.path().as_os_str().len() - 1;
        let text = said(&directory.path().join("x".repeat(left + 1)));
        assert!(
            text.contains("108 bytes") && text.contains("at most 107"),
            "{text}"
        );
        let longest = directory.path().join("x".repeat(left));
        let listener = GdbAddress::Unix(longest.clone()).listen().unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&longest).is_ok());
        drop(listener);
    }
}
