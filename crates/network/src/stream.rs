//! Stream sockets that carry frames: Unix or TCP, always non-blocking.

use crate::address::SwitchAddress;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

/// A connected stream socket.
#[derive(Debug)]
pub enum Stream {
    /// On this host.
    Unix(UnixStream),
    /// Anywhere.
    Tcp(TcpStream),
}

impl Stream {
    /// Begins to connect, without waiting for anything: the stream is writable once it is connected
    /// or refused, and [`Self::connected`] tells which. An error comes at once when the host knows
    /// it, which for a Unix socket includes a listener that takes nobody for now (`WouldBlock`).
    pub fn begin(address: &SwitchAddress) -> io::Result<Stream> {
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
                match rustix::net::connect(&socket, address) {
                    Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Stream::tcp(socket.into()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Whether a stream from [`Self::begin`] is connected by now; an error if it was refused.
    pub fn connected(&self) -> io::Result<bool> {
        sockopt::socket_error(self)??;
        match rustix::net::getpeername(self) {
            Ok(_) => Ok(true),
            Err(Errno::NOTCONN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn unix(stream: UnixStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Ok(Stream::Unix(stream))
    }

    /// Takes an accepted or connected socket; what is written leaves at once (TCP_NODELAY).
    pub fn tcp(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }

    /// The socket for somebody who waits; it has to be TCP.
    ///
    /// # Errors
    /// It is another, or the host does not let it wait.
    pub fn into_tcp(self) -> io::Result<TcpStream> {
        match self {
            Stream::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Stream::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                Ok(stream)
            }
        }
    }

    /// Reads; `None` when nothing is there now, 0 at the stream's end.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        ready_or_none(|| match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        })
    }

    /// Writes; `None` when nothing can be taken now.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        ready_or_none(|| match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
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

/// A listening stream socket; a Unix socket's path is removed with it.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
    Tcp(TcpListener),
}

impl Listener {
    /// Binds. A Unix path that a dead process left behind is replaced; one on which somebody
    /// listens, or which is no socket, is `AddrInUse`.
    pub(crate) fn bind(address: &SwitchAddress) -> io::Result<Listener> {
        let listener = match address {
            SwitchAddress::Unix(path) => {
                let listener = match UnixListener::bind(path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        remove_stale_socket(path)?;
                        UnixListener::bind(path)?
                    }
                    bound => bound?,
                };
                Listener::Unix {
                    listener,
                    path: path.clone(),
                }
            }
            SwitchAddress::Tcp(address) => Listener::Tcp(TcpListener::bind(address)?),
        };
        match &listener {
            Listener::Unix { listener, .. } => listener.set_nonblocking(true)?,
            Listener::Tcp(listener) => listener.set_nonblocking(true)?,
        }
        Ok(listener)
    }

    /// The address with the real port.
    pub(crate) fn address(&self) -> io::Result<SwitchAddress> {
        Ok(match self {
            Listener::Unix { path, .. } => SwitchAddress::Unix(path.clone()),
            Listener::Tcp(listener) => SwitchAddress::Tcp(listener.local_addr()?),
        })
    }

    /// The next connection and who it is, `None` when nobody waits.
    pub(crate) fn accept(&self) -> io::Result<Option<(Stream, String)>> {
        match self {
            Listener::Unix { listener, path } => {
                let Some((stream, _peer)) = ready_or_none(|| listener.accept())? else {
                    return Ok(None);
                };
                Ok(Some((
                    Stream::unix(stream)?,
                    format!("unix:{}", path.display()),
                )))
            }
            Listener::Tcp(listener) => {
                let Some((stream, peer)) = ready_or_none(|| listener.accept())? else {
                    return Ok(None);
                };
                Ok(Some((Stream::tcp(stream)?, format!("tcp:{peer}"))))
            }
        }
    }
}

/// Removes the socket at `path` if nobody listens on it.
fn remove_stale_socket(path: &PathBuf) -> io::Result<()> {
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
        match self {
            Listener::Unix { listener, .. } => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix { path, .. } = self {
            // Someone else may have removed it: then there is nothing left to do.
            let _removed = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch.sock");
        let address = SwitchAddress::Unix(path.clone());
        // The standard library does not remove the path: this is what a killed switch leaves.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Listener::bind(&address).unwrap();
        assert_eq!(
            Listener::bind(&address).unwrap_err().kind(),
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
        let error = Listener::bind(&SwitchAddress::Unix(path.clone())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
