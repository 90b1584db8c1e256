//! A TCP connection with a host that proved who it is.

use keys::{BlockingSession, HostName, Session};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

/// A session and its socket, which never waits.
#[derive(Debug)]
pub struct SecureStream {
    session: Session,
    socket: TcpStream,
}

impl SecureStream {
    /// Of a connected socket, or one that is being connected; what is written leaves at once
    /// (TCP_NODELAY).
    ///
    /// # Errors
    /// The host does not let the socket be so.
    pub fn new(session: Session, socket: TcpStream) -> io::Result<SecureStream> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(SecureStream { session, socket })
    }

    /// Goes on with the handshake; true once it is over. Read once then, before polling.
    ///
    /// # Errors
    /// The connection failed, or one of both does not let the other in.
    pub fn handshake(&mut self) -> io::Result<bool> {
        self.session.handshake(&mut self.socket)
    }

    /// The host at the other end, once that is proven.
    pub fn peer(&self) -> Option<&HostName> {
        self.session.peer()
    }

    /// Whether the other side has sent anything at all.
    pub fn has_spoken(&self) -> bool {
        self.session.has_spoken()
    }

    /// As [`crate::Stream::read_now`].
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.session.read_now(&mut self.socket, buffer)
    }

    /// As [`crate::Stream::write_now`].
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        self.session.write_now(&mut self.socket, bytes)
    }

    /// As [`crate::Stream::wants_write`].
    pub fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// As [`crate::Stream::flush_now`].
    pub fn flush_now(&mut self) -> io::Result<()> {
        self.session.flush(&mut self.socket).map(|_| ())
    }

    /// For a thread that waits.
    ///
    /// # Errors
    /// The host does not let the socket wait.
    pub fn into_blocking(self) -> io::Result<BlockingSession> {
        self.socket.set_nonblocking(false)?;
        Ok(BlockingSession::new(self.session, self.socket))
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsFd for SecureStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
