//! Connections with members of the machine: on a host sessions of TLS, in a simulated world the world's own
//! sockets, which are between members only.

use environment::net::{Interest, TcpStream};
use keys::{BlockingSession, HostName, Keys};
use network::SecureStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// By what this host and other members prove to each other who they are.
#[derive(Clone, Debug)]
pub enum Membership {
    /// Keys of this host.
    Keys(Keys),
    /// Nothing: this is a simulated world.
    Simulated,
}

/// A connection that never waits.
#[derive(Debug)]
pub enum PeerStream {
    /// Of a host.
    Secure(Box<SecureStream>),
    /// Of a world.
    Simulated(TcpStream),
}

impl PeerStream {
    /// How an event loop waits for it.
    pub fn interest(&self) -> Interest<'_> {
        match self {
            PeerStream::Secure(stream) => Interest::Descriptor(stream.as_fd()),
            PeerStream::Simulated(stream) => stream.interest(),
        }
    }

    /// The host at the other end, as it proved.
    pub fn peer(&self) -> Option<&HostName> {
        match self {
            PeerStream::Secure(stream) => stream.peer(),
            PeerStream::Simulated(_) => None,
        }
    }

    /// Bytes that nobody acknowledges for this long end the connection.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            PeerStream::Secure(stream) => {
                let milliseconds = timeout.as_millis() as u32;
                Ok(rustix::net::sockopt::set_tcp_user_timeout(
                    stream.socket(),
                    milliseconds,
                )?)
            }
            PeerStream::Simulated(stream) => stream.set_user_timeout(timeout),
        }
    }

    /// Reads; `None` when nothing is there now, 0 at the stream's end. There has to be room for
    /// [`keys::SMALLEST_BUFFER`] bytes.
    ///
    /// # Errors
    /// The connection failed.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            PeerStream::Secure(stream) => stream.read_now(buffer),
            PeerStream::Simulated(stream) => stream.read_now(buffer),
        }
    }

    /// Writes; `None` when nothing can be taken now. What was taken may wait here
    /// ([`PeerStream::wants_write`]).
    ///
    /// # Errors
    /// The connection failed.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            PeerStream::Secure(stream) => stream.write_now(bytes),
            PeerStream::Simulated(stream) => stream.write_now(bytes),
        }
    }

    /// Whether something that was taken waits to be written.
    pub fn wants_write(&self) -> bool {
        match self {
            PeerStream::Secure(stream) => stream.wants_write(),
            PeerStream::Simulated(_) => false,
        }
    }

    /// Writes what waits, as far as it is taken.
    ///
    /// # Errors
    /// The connection failed.
    pub fn flush_now(&mut self) -> io::Result<()> {
        match self {
            PeerStream::Secure(stream) => stream.flush_now(),
            PeerStream::Simulated(_) => Ok(()),
        }
    }

    /// For a thread that waits.
    ///
    /// # Errors
    /// The host does not let it wait.
    pub fn into_blocking(self) -> io::Result<BlockingPeer> {
        match self {
            PeerStream::Secure(stream) => {
                let session = stream.into_blocking()?;
                Ok(BlockingPeer::Secure(Box::new(session)))
            }
            PeerStream::Simulated(stream) => {
                stream.set_nonblocking(false)?;
                Ok(BlockingPeer::Simulated(stream))
            }
        }
    }
}

/// A connection for a thread that waits.
#[derive(Debug)]
pub enum BlockingPeer {
    /// Of a host.
    Secure(Box<BlockingSession>),
    /// Of a world.
    Simulated(TcpStream),
}

impl BlockingPeer {
    /// Connects, and waits until both sides know each other.
    ///
    /// # Errors
    /// Nobody listens there, or does not answer in time; or one of both does not let the other in.
    pub fn connect(
        address: &SocketAddr,
        timeout: Duration,
        membership: &Membership,
    ) -> io::Result<BlockingPeer> {
        match (TcpStream::connect_timeout(address, timeout)?, membership) {
            (TcpStream::Host(socket), Membership::Keys(keys)) => {
                socket.set_nodelay(true)?;
                let session = BlockingSession::connect(keys, socket, timeout)?;
                Ok(BlockingPeer::Secure(Box::new(session)))
            }
            (stream @ TcpStream::Simulated(_), Membership::Simulated) => {
                Ok(BlockingPeer::Simulated(stream))
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// The host at the other end, as it proved.
    pub fn peer(&self) -> Option<&HostName> {
        match self {
            BlockingPeer::Secure(session) => session.peer(),
            BlockingPeer::Simulated(_) => None,
        }
    }

    /// For an event loop. Read once, before waiting for it.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn into_stream(self) -> io::Result<PeerStream> {
        match self {
            BlockingPeer::Secure(session) => {
                let (session, socket) = session.into_parts();
                let stream = SecureStream::new(session, socket)?;
                Ok(PeerStream::Secure(Box::new(stream)))
            }
            BlockingPeer::Simulated(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(PeerStream::Simulated(stream))
            }
        }
    }

    /// How long reading and writing wait.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout);
        match self {
            BlockingPeer::Secure(session) => {
                session.socket().set_read_timeout(timeout)?;
                session.socket().set_write_timeout(timeout)
            }
            BlockingPeer::Simulated(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    /// As [`PeerStream::set_user_timeout`].
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            BlockingPeer::Secure(session) => {
                let milliseconds = timeout.as_millis() as u32;
                Ok(rustix::net::sockopt::set_tcp_user_timeout(
                    session.socket(),
                    milliseconds,
                )?)
            }
            BlockingPeer::Simulated(stream) => stream.set_user_timeout(timeout),
        }
    }

    /// Another handle of the connection, to end it from elsewhere.
    ///
    /// # Errors
    /// The host has none to give.
    pub fn handle(&self) -> io::Result<TcpStream> {
        match self {
            BlockingPeer::Secure(session) => session.socket().try_clone().map(TcpStream::Host),
            BlockingPeer::Simulated(stream) => stream.try_clone(),
        }
    }
}

impl Read for BlockingPeer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            BlockingPeer::Secure(session) => session.read(buffer),
            BlockingPeer::Simulated(stream) => stream.read(buffer),
        }
    }
}

impl Write for BlockingPeer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            BlockingPeer::Secure(session) => session.write(bytes),
            BlockingPeer::Simulated(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            BlockingPeer::Secure(session) => session.flush(),
            BlockingPeer::Simulated(stream) => stream.flush(),
        }
    }
}
