//! Stream sockets that carry frames: Unix or TCP, always non-blocking.

use crate::address::SwitchAddress;
use crate::secure_stream::SecureStream;
use keys::Keys;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A connected stream socket.
#[derive(Debug)]
pub enum Stream {
    /// On this host.
    Unix(UnixStream),
    /// Anywhere, with a host that proved who it is.
    Secure(Box<SecureStream>),
}

impl Stream {
    /// Begins to connect, without waiting for anything: the stream is writable once it is connected
    /// or refused, and [`Self::connected`] tells which. An error comes at once when the host knows
    /// it, which for a Unix socket includes a listener that takes nobody for now (`WouldBlock`).
    /// Between hosts only with keys.
    pub fn begin(address: &SwitchAddress, keys: Option<&Keys>) -> io::Result<Stream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = |family| rustix::net::socket_with(family, SocketType::STREAM, flags, None);
        match address {
            SwitchAddress::Unix(path) => {
                let socket = socket(AddressFamily::UNIX)?;
                rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
                Stream::unix(socket.into())
            }
            SwitchAddress::Tcp(address) => {
                let family = match address {
                    SocketAddr::V4(_) => AddressFamily::INET,
                    SocketAddr::V6(_) => AddressFamily::INET6,
                };
                let socket = socket(family)?;
                let keys = keys.ok_or_else(|| {
                    io::Error::new(io::ErrorKind::PermissionDenied, "keys are needed for it")
                })?;
                let session = keys.connect().map_err(io::Error::other)?;
                match rustix::net::connect(&socket, address) {
                    Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let stream = SecureStream::new(session, socket.into())?;
                Ok(Stream::Secure(Box::new(stream)))
            }
        }
    }

    /// Whether a stream from [`Self::begin`] is connected by now, and the other side let in; an error
    /// if it was refused. Read once then, before polling.
    pub fn connected(&mut self) -> io::Result<bool> {
        sockopt::socket_error(&*self)??;
        match rustix::net::getpeername(&*self) {
            Ok(_) => {}
            Err(Errno::NOTCONN) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match self {
            Stream::Unix(_) => Ok(true),
            Stream::Secure(stream) => stream.handshake(),
        }
    }

    /// Of a stream that is being connected: whether polling it for writing tells when to go on. It is
    /// to be polled for reading in any case.
    pub fn connects(&self) -> bool {
        self.wants_write() || rustix::net::getpeername(self).is_err()
    }

    fn unix(stream: UnixStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Ok(Stream::Unix(stream))
    }

    /// Reads; `None` when nothing is there now, 0 at the stream's end. A secure stream wants room for
    /// [`keys::SMALLEST_BUFFER`] bytes at least.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Stream::Unix(stream) => ready_or_none(|| stream.read(buffer)),
            Stream::Secure(stream) => stream.read_now(buffer),
        }
    }

    /// Writes; `None` when nothing can be taken now.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Stream::Unix(stream) => ready_or_none(|| stream.write(bytes)),
            Stream::Secure(stream) => stream.write_now(bytes),
        }
    }

    /// Whether something that was taken waits for the socket: then poll for writing and call
    /// [`Self::flush_now`].
    pub fn wants_write(&self) -> bool {
        match self {
            Stream::Unix(_) => false,
            Stream::Secure(stream) => stream.wants_write(),
        }
    }

    /// Writes what was taken, as far as the socket takes it.
    pub fn flush_now(&mut self) -> io::Result<()> {
        match self {
            Stream::Unix(_) => Ok(()),
            Stream::Secure(stream) => stream.flush_now(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Secure(stream) => stream.as_fd(),
        }
    }
}

/// Calls again after a signal; turns "would block" into `None`.
pub fn ready_or_none<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A listening Unix socket; its path is removed with it.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds. A path that a dead process left behind is replaced; one on which somebody listens, or
    /// which is no socket, is `AddrInUse`.
    pub(crate) fn bind(path: &Path) -> io::Result<Listener> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale_socket(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        // Whoever may write to it is a port of the switch: this user alone.
        fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Listener {
            listener,
            path: path.into(),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SwitchAddress {
        SwitchAddress::Unix(self.path.clone())
    }

    /// The next connection and who it is, `None` when nobody waits.
    pub(crate) fn accept(&self) -> io::Result<Option<(Stream, String)>> {
        let Some((stream, _peer)) = ready_or_none(|| self.listener.accept())? else {
            return Ok(None);
        };
        let peer = self.address().to_string();
        Ok(Some((Stream::unix(stream)?, peer)))
    }
}

/// Removes the socket at `path` if nobody listens on it.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        // Only a socket without a listener refuses.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| {
                std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
            });
            if is_socket {
                fs::remove_file(path)
            } else {
                Err(io::ErrorKind::AddrInUse.into())
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Someone else may have removed it: then there is nothing left to do.
        let _removed = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch.sock");
        // The standard library does not remove the path: this is what a killed switch leaves.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Listener::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others may use the switch");
        assert_eq!(
            Listener::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(live);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, b"data").unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
