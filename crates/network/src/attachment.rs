//! How a replica's network card reaches the world.

use crate::address::SwitchAddress;
use crate::switch_port::SwitchPort;
use crate::tap::Tap;
use keys::Keys;
use std::io;
use std::os::fd::BorrowedFd;

/// A connection that carries the guest's Ethernet frames; non-blocking.
#[derive(Debug)]
pub enum NetworkAttachment {
    /// A port of an `understudy switch`.
    Switch(SwitchPort),
    /// A TAP device.
    Tap(Tap),
}

impl NetworkAttachment {
    /// Connects to the switch at `address`, written as `unix:/path` or `tcp:127.0.0.1:7500`, and
    /// waits for that, five seconds at most. Not for an event loop. `serves` is the guest's MAC
    /// address if this is a replica. Between hosts `keys` are needed.
    pub fn switch(
        address: &str,
        serves: Option<[u8; 6]>,
        keys: Option<&Keys>,
    ) -> io::Result<NetworkAttachment> {
        SwitchPort::connect(&parse(address)?, keys).map(|port| greeting(port, serves))
    }

    /// Begins to connect to the switch at `address` and waits for nothing: poll for reading, and for
    /// writing while [`Self::wants_write`], and ask [`Self::is_connected`].
    pub fn begin_switch(
        address: &str,
        serves: Option<[u8; 6]>,
        keys: Option<&Keys>,
    ) -> io::Result<NetworkAttachment> {
        SwitchPort::begin(&parse(address)?, keys).map(|port| greeting(port, serves))
    }

    /// Whether the other side has taken the attachment; an error if it refused.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        match self {
            NetworkAttachment::Switch(port) => port.is_connected(),
            NetworkAttachment::Tap(_) => Ok(true),
        }
    }

    /// Attaches to the TAP device `name`.
    pub fn tap(name: &str) -> io::Result<NetworkAttachment> {
        Tap::open(name).map(NetworkAttachment::Tap)
    }

    /// To be polled for reading, and for writing while [`Self::wants_write`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            NetworkAttachment::Switch(port) => port.fd(),
            NetworkAttachment::Tap(tap) => tap.fd(),
        }
    }

    /// Sends a frame; when there is no room for it, it is dropped as on a cable. An error means
    /// that the network has gone.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            NetworkAttachment::Switch(port) => port.send(frame),
            NetworkAttachment::Tap(tap) => tap.send(frame),
        }
    }

    /// As [`Self::send`], but the frame may wait for others until [`Self::flush`].
    pub fn enqueue(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            NetworkAttachment::Switch(port) => {
                port.enqueue(frame);
                Ok(())
            }
            NetworkAttachment::Tap(tap) => tap.send(frame),
        }
    }

    /// The next frame, `None` when none waits. Call until `None`, or ask [`Self::has_frame`] before
    /// polling: several frames may come with one read.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            NetworkAttachment::Switch(port) => port.receive(),
            NetworkAttachment::Tap(tap) => tap.receive(),
        }
    }

    /// Whether a received frame waits in this process, so that polling would not tell.
    pub fn has_frame(&self) -> bool {
        match self {
            NetworkAttachment::Switch(port) => port.has_frame(),
            NetworkAttachment::Tap(_) => false,
        }
    }

    /// Whether sent frames wait in this process, or the other side has not answered yet: then poll
    /// for writing and call [`Self::flush`].
    pub fn wants_write(&self) -> bool {
        match self {
            NetworkAttachment::Switch(port) => port.wants_write(),
            NetworkAttachment::Tap(_) => false,
        }
    }

    /// Writes what waits, as far as the other side takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            NetworkAttachment::Switch(port) => port.flush(),
            NetworkAttachment::Tap(_) => Ok(()),
        }
    }
}

fn greeting(port: SwitchPort, serves: Option<[u8; 6]>) -> NetworkAttachment {
    NetworkAttachment::Switch(match serves {
        Some(mac) => port.serving(mac),
        None => port,
    })
}

fn parse(address: &str) -> io::Result<SwitchAddress> {
    address
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
