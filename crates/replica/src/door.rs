//! Where members of the machine come in.

use crate::peer_stream::{Membership, PeerStream};
use crate::priority::yield_to_the_guest;
use crate::transport::{self, AddressError};
use crate::wake::Waker;
use environment::net::{Interest, TcpListener};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// Whoever comes, once it has proved to be a member.
#[derive(Debug)]
pub enum Door {
    /// Of a host: a thread makes the handshakes, so that the event loop sees nobody else.
    Host(network::Door),
    /// Of a world, in which only members connect.
    Simulated(TcpListener),
}

impl Door {
    /// Listens at `address`; `waker` is woken when somebody came.
    ///
    /// # Errors
    /// The address cannot be listened on, or the host gives no thread.
    pub fn open(
        address: &str,
        membership: &Membership,
        waker: Waker,
    ) -> Result<Door, AddressError> {
        let unusable = |source| AddressError::Listen {
            address: address.into(),
            source,
        };
        match (transport::listen(address)?, membership) {
            (TcpListener::Host(listener), Membership::Keys(keys)) => {
                let wake = move || waker.wake();
                network::Door::open(listener, keys.clone(), wake, yield_to_the_guest)
                    .map(Door::Host)
                    .map_err(unusable)
            }
            (listener @ TcpListener::Simulated(_), Membership::Simulated) => {
                Ok(Door::Simulated(listener))
            }
            _ => Err(unusable(ErrorKind::Unsupported.into())),
        }
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Door::Host(door) => Ok(door.address()),
            Door::Simulated(listener) => listener.local_addr(),
        }
    }

    /// How an event loop waits for it, if its waker is not enough.
    pub fn interest(&self) -> Option<Interest<'_>> {
        match self {
            Door::Host(_) => None,
            Door::Simulated(listener) => Some(listener.interest()),
        }
    }

    /// The next member that came in, and from where, if the connection still tells. Something that it sent
    /// may have been read already: read once, before waiting for it.
    pub fn member(&self) -> Option<(PeerStream, Option<SocketAddr>)> {
        match self {
            Door::Host(door) => {
                let stream = door.member()?;
                let from = stream.socket().peer_addr().ok();
                Some((PeerStream::Secure(Box::new(stream)), from))
            }
            Door::Simulated(listener) => {
                let (stream, from) = listener.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                Some((PeerStream::Simulated(stream), Some(from)))
            }
        }
    }

    /// Who was turned away since the last call, and why; and how many more there were.
    pub fn turned_away(&self) -> (VecDeque<String>, u64) {
        match self {
            Door::Host(door) => door.turned_away(),
            Door::Simulated(_) => Default::default(),
        }
    }
}
