//! Sockets between hosts: a drop-in for what is used of TCP in [`std::net`].

use crate::simulation::{current, with_current};
use rustix::net::sockopt::set_tcp_user_timeout;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{self, SocketAddr};
pub use std::net::{Shutdown, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A connection as a world has it; all of its clones are one.
pub trait Socket: Send + fmt::Debug {
    /// As [`Read::read`], and as the mode and the timeout want it.
    ///
    /// # Errors
    /// As there.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// As [`Write::write`], and as the mode and the timeout want it.
    ///
    /// # Errors
    /// As there.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Whether reading and writing wait.
    fn set_nonblocking(&self, nonblocking: bool);

    /// How long reading waits.
    fn set_read_timeout(&self, timeout: Option<Duration>);

    /// How long writing waits.
    fn set_write_timeout(&self, timeout: Option<Duration>);

    /// Ends both directions.
    fn shutdown(&self);

    /// Another handle of the same.
    fn try_clone(&self) -> Box<dyn Socket>;

    /// Whether reading and writing tell something at once. The calling thread is unparked when that
    /// may have changed.
    fn readiness(&self) -> Readiness;
}

/// Who listens as a world has it. It never waits.
pub trait Listener: Send + fmt::Debug {
    /// The next who has connected, and from where.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nobody.
    fn accept(&self) -> io::Result<(Box<dyn Socket>, SocketAddr)>;

    /// Where.
    fn local_addr(&self) -> SocketAddr;

    /// Whether somebody has connected. The calling thread is unparked when that may have changed.
    fn is_ready(&self) -> bool;
}

/// What a simulated socket is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Reading tells something.
    pub readable: bool,
    /// Writing may go on, or tells that it cannot.
    pub writable: bool,
}

/// How an event loop waits for a socket.
#[derive(Debug)]
pub enum Interest<'a> {
    /// It polls this.
    Descriptor(BorrowedFd<'a>),
    /// It looks at what the socket is ready for, and parks if that is nothing that it wants.
    Simulated(Readiness),
}

/// A connection.
#[derive(Debug)]
pub enum TcpStream {
    /// Of a host.
    Host(net::TcpStream),
    /// Of a world.
    Simulated(Box<dyn Socket>),
}

impl From<net::TcpStream> for TcpStream {
    fn from(stream: net::TcpStream) -> TcpStream {
        TcpStream::Host(stream)
    }
}

impl TcpStream {
    /// Connects, and waits for that.
    ///
    /// # Errors
    /// Nobody listens there, or does not answer in time.
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        match current() {
            None => net::TcpStream::connect_timeout(address, timeout).map(TcpStream::Host),
            Some(simulation) => {
                let socket = simulation.connect(*address, timeout)?;
                Ok(TcpStream::Simulated(socket))
            }
        }
    }

    /// Whether reading and writing wait.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            TcpStream::Host(stream) => stream.set_nonblocking(nonblocking),
            TcpStream::Simulated(socket) => {
                socket.set_nonblocking(nonblocking);
                Ok(())
            }
        }
    }

    /// Whether what is written leaves at once.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            TcpStream::Host(stream) => stream.set_nodelay(nodelay),
            TcpStream::Simulated(_) => Ok(()),
        }
    }

    /// Bytes that nobody acknowledges for this long end the connection.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            TcpStream::Host(stream) => {
                Ok(set_tcp_user_timeout(stream, timeout.as_millis() as u32)?)
            }
            TcpStream::Simulated(_) => Ok(()),
        }
    }

    /// How long reading waits.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            TcpStream::Host(stream) => stream.set_read_timeout(timeout),
            TcpStream::Simulated(socket) => {
                socket.set_read_timeout(timeout);
                Ok(())
            }
        }
    }

    /// How long writing waits.
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            TcpStream::Host(stream) => stream.set_write_timeout(timeout),
            TcpStream::Simulated(socket) => {
                socket.set_write_timeout(timeout);
                Ok(())
            }
        }
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// The host has none to give.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        match self {
            TcpStream::Host(stream) => stream.try_clone().map(TcpStream::Host),
            TcpStream::Simulated(socket) => Ok(TcpStream::Simulated(socket.try_clone())),
        }
    }

    /// Ends the connection, or a direction of it.
    ///
    /// # Errors
    /// It has ended.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            TcpStream::Host(stream) => stream.shutdown(how),
            TcpStream::Simulated(socket) => {
                socket.shutdown();
                Ok(())
            }
        }
    }

    /// How an event loop waits for it.
    pub fn interest(&self) -> Interest<'_> {
        match self {
            TcpStream::Host(stream) => Interest::Descriptor(stream.as_fd()),
            TcpStream::Simulated(socket) => Interest::Simulated(socket.readiness()),
        }
    }

    /// Reads; `None` when nothing is there now, 0 at the stream's end. For one that does not wait.
    ///
    /// # Errors
    /// The connection failed.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        ready_or_none(|| self.read(buffer))
    }

    /// Writes; `None` when nothing can be taken now. For one that does not wait.
    ///
    /// # Errors
    /// The connection failed.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        ready_or_none(|| self.write(bytes))
    }
}

/// Calls again after a signal; turns "would block" into `None`.
fn ready_or_none<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            TcpStream::Host(stream) => stream.read(buffer),
            TcpStream::Simulated(socket) => socket.read(buffer),
        }
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            TcpStream::Host(stream) => stream.write(bytes),
            TcpStream::Simulated(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            TcpStream::Host(stream) => stream.write_vectored(slices),
            TcpStream::Simulated(socket) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                socket.write(first.map_or(&[], |slice| slice))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            TcpStream::Host(stream) => stream.flush(),
            TcpStream::Simulated(_) => Ok(()),
        }
    }
}

/// Who listens.
#[derive(Debug)]
pub enum TcpListener {
    /// On a host.
    Host(net::TcpListener),
    /// In a world.
    Simulated(Box<dyn Listener>),
}

impl TcpListener {
    /// Listens at the first of these addresses that is free.
    ///
    /// # Errors
    /// None is.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
        match with_current(|simulation| simulation.bind(addresses)) {
            None => net::TcpListener::bind(addresses).map(TcpListener::Host),
            Some(bound) => bound.map(TcpListener::Simulated),
        }
    }

    /// Whether accepting waits. (In a world it never does.)
    ///
    /// # Errors
    /// The host does not let it.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            TcpListener::Host(listener) => listener.set_nonblocking(nonblocking),
            TcpListener::Simulated(_) => Ok(()),
        }
    }

    /// The next who has connected, and from where.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nobody.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            TcpListener::Host(listener) => {
                let (stream, from) = listener.accept()?;
                Ok((TcpStream::Host(stream), from))
            }
            TcpListener::Simulated(listener) => {
                let (socket, from) = listener.accept()?;
                Ok((TcpStream::Simulated(socket), from))
            }
        }
    }

    /// Where.
    ///
    /// # Errors
    /// The host does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            TcpListener::Host(listener) => listener.local_addr(),
            TcpListener::Simulated(listener) => Ok(listener.local_addr()),
        }
    }

    /// How an event loop waits for somebody to connect: for reading.
    pub fn interest(&self) -> Interest<'_> {
        match self {
            TcpListener::Host(listener) => Interest::Descriptor(listener.as_fd()),
            TcpListener::Simulated(listener) => Interest::Simulated(Readiness {
                readable: listener.is_ready(),
                writable: false,
            }),
        }
    }
}
