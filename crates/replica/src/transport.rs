//! The logging channel's TCP connection: non-blocking, buffered, bounded.

use crate::peer_addresses::PeerAddresses;
use crate::peer_stream::{BlockingPeer, Membership, PeerStream};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver};
use environment::net::{Interest, TcpListener};
use keys::HostName;
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
pub const USER_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// A host is reached at none of its addresses.
    #[error("{}", in_one_line(.0))]
    All(Vec<AddressError>),
}

fn in_one_line(errors: &[AddressError]) -> String {
    let errors: Vec<String> = errors.iter().map(AddressError::to_string).collect();
    errors.join("; ")
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
fn connect(
    addresses: &PeerAddresses,
    timeout: Duration,
    membership: &Membership,
) -> Result<Dialed, AddressError> {
    let (peer, address) = connect_to_any(addresses, timeout, membership)?;
    let connection = peer.into_stream().and_then(Connection::new);
    match connection {
        Ok(connection) => Ok(Dialed {
            connection,
            address,
        }),
        Err(source) => Err(AddressError::Connect {
            address: addresses.first().into(),
            source,
        }),
    }
}

/// Connects to a member at the first of its addresses that leads to it, for a thread that may wait: `timeout` for
/// each. Gives the index of that address as well.
pub fn connect_to_any(
    addresses: &PeerAddresses,
    timeout: Duration,
    membership: &Membership,
) -> Result<(BlockingPeer, usize), AddressError> {
    let mut errors = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        match connect_blocking(address, timeout, membership) {
            Ok(peer) => return Ok((peer, index)),
            Err(error) => errors.push(error),
        }
    }
    Err(match errors.pop() {
        Some(error) if errors.is_empty() => error,
        last => {
            errors.extend(last);
            AddressError::All(errors)
        }
    })
}

/// Connects to a member, for a thread that may wait.
pub fn connect_blocking(
    address: &str,
    timeout: Duration,
    membership: &Membership,
) -> Result<BlockingPeer, AddressError> {
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for socket_address in resolve(address)? {
        match BlockingPeer::connect(&socket_address, timeout, membership) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(AddressError::Connect {
        address: address.into(),
        source: last,
    })
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub connection: Connection,
    /// The index of the address that led to the host.
    pub address: usize,
}

/// An attempt to connect, on a thread of its own: looking a name up may take long, and so may a
/// network. One that is dropped goes on without anybody who listens.
#[derive(Debug)]
pub struct Dialing {
    dialed: Receiver<Result<Dialed, AddressError>>,
}

impl Dialing {
    /// Begins, at all addresses of a host, one after the other until one leads there; `timeout` for each. `waker` is
    /// woken when it has ended.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(
        addresses: &PeerAddresses,
        timeout: Duration,
        membership: Membership,
        waker: Waker,
    ) -> io::Result<Dialing> {
        let (sender, dialed) = mpsc::channel();
        let addresses = addresses.clone();
        environment::thread::Builder::new()
            .name("dial".into())
            .spawn(move || {
                let _sent = sender.send(connect(&addresses, timeout, &membership));
                waker.wake();
            })?;
        Ok(Dialing { dialed })
    }

    /// What came of it, once.
    pub fn dialed(&self) -> Option<Result<Dialed, AddressError>> {
        self.dialed.try_recv().ok()
    }
}

/// A connection. What cannot be sent at once waits here; the caller bounds how much.
#[derive(Debug)]
pub struct Connection {
    stream: PeerStream,
    waiting: VecDeque<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Takes a stream of a member.
    pub fn new(stream: PeerStream) -> io::Result<Connection> {
        stream.set_user_timeout(USER_TIMEOUT)?;
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
        !self.waiting.is_empty() || self.stream.wants_write()
    }

    /// The host at the other end, as it proved.
    pub fn peer(&self) -> Option<&HostName> {
        self.stream.peer()
    }

    /// The stream alone, for a thread that waits.
    ///
    /// # Errors
    /// The host does not let it wait.
    pub fn into_blocking(self) -> io::Result<BlockingPeer> {
        self.stream.into_blocking()
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
        self.stream.flush_now()?;
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
    use environment::net::TcpStream;
    use keys::{BlockingSession, Keys, LetIn, Purpose, Site, Validity};
    use network::PollSet;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn keys() -> (tempfile::TempDir, Keys) {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let host = "hosta".parse().unwrap();
        let issued = site.issue(&host, Validity::days(9)).unwrap();
        let keys = Keys::open(&issued, Purpose::Replica, LetIn::Site).unwrap();
        (directory, keys)
    }

    fn wait_readable(connection: &Connection) {
        let mut set = PollSet::new();
        let Interest::Descriptor(fd) = connection.interest() else {
            panic!("this is no simulation")
        };
        set.add(fd, (), true, false);
        set.wait(Some(Duration::from_secs(5))).unwrap();
    }

    fn taken_by_nobody() -> String {
        let taken = listen("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().to_string()
    }

    #[test]
    fn what_the_kernel_does_not_take_waits_and_arrives_in_order_by_the_address_that_leads_there() {
        let listener = listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (_directory, keys) = keys();
        listener.set_nonblocking(false).unwrap();
        let accepting = std::thread::spawn({
            let keys = keys.clone();
            move || {
                let TcpStream::Host(socket) = listener.accept().unwrap().0 else {
                    panic!("this is no simulation")
                };
                let session = BlockingSession::accept(&keys, socket, PATIENCE);
                BlockingPeer::Secure(Box::new(session.unwrap()))
            }
        });
        let dead = taken_by_nobody();
        let addresses = PeerAddresses::new(vec![dead, address]).unwrap();
        let dialed = connect(&addresses, PATIENCE, &Membership::Keys(keys)).unwrap();
        assert_eq!(dialed.address, 1, "nobody listens at the first");
        let mut sender = dialed.connection;
        let accepted = accepting.join().unwrap().into_stream().unwrap();
        let mut receiver = Connection::new(accepted).unwrap();
        assert_eq!(receiver.peer().unwrap().as_str(), "hosta");
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
        let other = taken_by_nobody();
        let both = PeerAddresses::new(vec![address.clone(), other.clone()]).unwrap();
        let error = connect(&both, PATIENCE, &Membership::Keys(keys().1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot connect"), "{error}");
        assert!(
            error.contains(&address) && error.contains(&other),
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
