//! The logging channel's TCP connection: non-blocking, buffered, bounded.

use crate::wake::Waker;
use environment::mpsc::{self, Receiver};
use environment::net::{Interest, TcpListener, TcpStream};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use thiserror::Error;

/// Bytes that are read in one go.
const READ_BYTES: usize = 256 << 10;
/// So many bytes are sent at once; fewer wait for others of the same turn of the event loop, since
/// each system call costs more than the bytes.
const FLUSH_BYTES: usize = 64 << 10;
/// Unacknowledged bytes older than this end the connection, should the failure detector not have
/// done it long before.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// An address that cannot be used.
#[derive(Debug, Error)]
pub enum AddressError {
    /// Not host and port, or an unknown host.
    #[error("{address:?} is not an address such as 192.0.2.7:7400: {source}")]
    Unknown {
        /// As it was written.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens there, or the network is in the way.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// As it was written.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Another process has it, or it is not this host's.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// As it was written.
        address: String,
        /// Why.
        source: io::Error,
    },
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>, AddressError> {
    address
        .to_socket_addrs()
        .map(Iterator::collect)
        .map_err(|source| AddressError::Unknown {
            address: address.into(),
            source,
        })
}

/// Listens for a backup.
pub fn listen(address: &str) -> Result<TcpListener, AddressError> {
    let addresses = resolve(address)?;
    TcpListener::bind(&addresses[..])
        .and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .map_err(|source| AddressError::Listen {
            address: address.into(),
            source,
        })
}

/// Connects to a primary. Waits: see [`Dialing`].
fn connect(address: &str, timeout: Duration) -> Result<Connection, AddressError> {
    let stream = connect_blocking(address, timeout)?;
    Connection::new(stream).map_err(|source| AddressError::Connect {
        address: address.into(),
        source,
    })
}

/// Connects, for a thread that may wait.
pub fn connect_blocking(address: &str, timeout: Duration) -> Result<TcpStream, AddressError> {
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for socket_address in resolve(address)? {
        match TcpStream::connect_timeout(&socket_address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(AddressError::Connect {
        address: address.into(),
        source: last,
    })
}

/// An attempt to connect, on a thread of its own: looking a name up may take long, and so may a
/// network. One that is dropped goes on without anybody who listens.
#[derive(Debug)]
pub struct Dialing {
    dialed: Receiver<Result<Connection, AddressError>>,
}

impl Dialing {
    /// Begins; `waker` is woken when it has ended.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(address: &str, timeout: Duration, waker: Waker) -> io::Result<Dialing> {
        let (sender, dialed) = mpsc::channel();
        let address = address.to_owned();
        environment::thread::Builder::new()
            .name("dial".into())
            .spawn(move || {
                let _sent = sender.send(connect(&address, timeout));
                waker.wake();
            })?;
        Ok(Dialing { dialed })
    }

    /// What came of it, once.
    pub fn dialed(&self) -> Option<Result<Connection, AddressError>> {
        self.dialed.try_recv().ok()
    }
}

/// A connection. What cannot be sent at once waits here; the caller bounds how much.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    waiting: VecDeque<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Takes an accepted or connected stream.
    pub fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_user_timeout(USER_TIMEOUT)?;
        stream.set_nonblocking(true)?;
        // What is written leaves at once.
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            waiting: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// How to wait for it.
    pub fn interest(&self) -> Interest<'_> {
        self.stream.interest()
    }

    /// Whether something waits to be sent.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The socket alone, for a thread that waits.
    ///
    /// # Errors
    /// The host does not let it wait.
    pub fn into_blocking(self) -> io::Result<TcpStream> {
        self.stream.set_nonblocking(false)?;
        Ok(self.stream)
    }

    /// Sends bytes: with the next [`Connection::flush`], or at once when they are many. What the
    /// kernel does not take is kept.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.waiting.len() + bytes.len() < FLUSH_BYTES {
            self.waiting.extend(bytes);
            return Ok(());
        }
        self.flush()?;
        let mut sent = 0;
        while self.waiting.is_empty() && sent < bytes.len() {
            match self.stream.write_now(&bytes[sent..])? {
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(length) => sent += length,
                None => break,
            }
        }
        self.waiting.extend(&bytes[sent..]);
        Ok(())
    }

    /// Sends what waits, as far as the kernel takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.stream.write_now(self.waiting.as_slices().0)? {
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(length) => {
                    self.waiting.drain(..length);
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Gives what has arrived to `take`, at most one buffer full. `Ok(false)` when the peer has
    /// closed the connection.
    pub fn receive(&mut self, take: impl FnOnce(&[u8])) -> io::Result<bool> {
        match self.stream.read_now(&mut self.buffer)? {
            Some(0) => return Ok(false),
            Some(length) => take(&self.buffer[..length]),
            None => {}
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::PollSet;

    fn wait_readable(connection: &Connection) {
        let mut set = PollSet::new();
        let Interest::Descriptor(fd) = connection.interest() else {
            panic!("this is no simulation")
        };
        set.add(fd, (), true, false);
        set.wait(Some(Duration::from_secs(5))).unwrap();
    }

    #[test]
    fn what_the_kernel_does_not_take_waits_and_arrives_in_order() {
        let listener = listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut sender = connect(&address, Duration::from_secs(5)).unwrap();
        let mut receiver = Connection::new(listener.accept().unwrap().0).unwrap();
        let sent: Vec<u8> = (0..20_000_000u32).map(|n| (n / 251) as u8).collect();
        for piece in sent.chunks(7_000_000) {
            sender.send(piece).unwrap();
        }
        assert!(sender.has_waiting(), "the kernel took 20 MB at once");
        let mut received = Vec::new();
        while received.len() < sent.len() {
            wait_readable(&receiver);
            assert!(
                receiver
                    .receive(|bytes| received.extend_from_slice(bytes))
                    .unwrap()
            );
            sender.flush().unwrap();
        }
        assert!(received == sent);
        drop(sender);
        wait_readable(&receiver);
        assert!(!receiver.receive(|_| {}).unwrap());
    }

    #[test]
    fn addresses_that_cannot_be_used_are_named() {
        let taken = listen("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        assert!(listen(&address).unwrap_err().to_string().contains(&address));
        drop(taken);
        let error = connect(&address, Duration::from_secs(5))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot connect") && error.contains(&address),
            "{error}"
        );
        assert!(
            listen("nonsense")
                .unwrap_err()
                .to_string()
                .contains("nonsense")
        );
    }
}
