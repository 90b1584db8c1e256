//! A replica's connection to a switch.

use crate::address::SwitchAddress;
use crate::frame_stream::{FrameDecoder, FrameQueue};
use crate::greeting;
use crate::poll_set::PollSet;
use crate::stream::Stream;
use keys::{Keys, Refusal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Frames that wait here because the switch does not read, in octets.
const SEND_QUEUE_LIMIT: usize = 4 << 20;
/// A switch that does not answer within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One port of a switch, from outside: a non-blocking stream of frames. After an error it is of no
/// use; whether and when to connect again is the caller's decision.
#[derive(Debug)]
pub struct SwitchPort {
    address: SwitchAddress,
    stream: Stream,
    /// The switch has not answered yet.
    connecting: bool,
    decoder: FrameDecoder,
    /// The last read did not fill its room: there is nothing more to read before polling tells so.
    drained: bool,
    queue: FrameQueue,
}

impl SwitchPort {
    /// Connects to the switch, and waits for that: five seconds at most. Not for an event loop.
    /// A switch on another host takes nobody without keys.
    pub fn connect(address: &SwitchAddress, keys: Option<&Keys>) -> io::Result<SwitchPort> {
        let mut port = SwitchPort::begin(address, keys)?;
        let until = Instant::now() + CONNECT_TIMEOUT;
        while !port.is_connected()? {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(unreachable(address, &io::ErrorKind::TimedOut.into()));
            }
            let mut set = PollSet::new();
            set.add(port.fd(), (), true, port.wants_write());
            set.wait(Some(left))?;
        }
        Ok(port)
    }

    /// Begins to connect to the switch, and waits for nothing: poll for reading, and for writing while
    /// [`Self::wants_write`], and ask [`Self::is_connected`]. Frames that are sent before wait here.
    pub fn begin(address: &SwitchAddress, keys: Option<&Keys>) -> io::Result<SwitchPort> {
        let stream = Stream::begin(address, keys).map_err(|error| unreachable(address, &error))?;
        Ok(SwitchPort {
            address: address.clone(),
            stream,
            connecting: true,
            decoder: FrameDecoder::default(),
            drained: false,
            queue: FrameQueue::new(SEND_QUEUE_LIMIT),
        })
    }

    /// Tells the switch which MAC address this port serves, before anything else: only ports that
    /// said so may take the address over from one another, as at a failover.
    pub fn serving(mut self, mac: [u8; 6]) -> SwitchPort {
        self.queue.push(&greeting::frame(mac));
        self
    }

    /// Whether the switch has taken the connection; an error if it refused it.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        if self.connecting {
            let connected = self.stream.connected();
            self.connecting = !connected.map_err(|error| unreachable(&self.address, &error))?;
            if !self.connecting {
                // What came together with the end of a handshake no poll tells.
                self.read()?;
            }
        }
        Ok(!self.connecting)
    }

    /// To be polled for reading, and for writing while [`Self::wants_write`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a frame (14 to 65,550 octets, no FCS). While the switch does not read, frames are kept
    /// up to 4 MiB; then the newest is dropped, as on a cable. An error means that the switch has
    /// gone.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.queue.push(frame);
        self.flush()
    }

    /// Appends a frame without writing it: several may go with one call of [`Self::flush`].
    pub fn enqueue(&mut self, frame: &[u8]) {
        self.queue.push(frame);
    }

    /// Writes what is kept, as far as the switch takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.is_connected()? {
            return Ok(());
        }
        self.stream.flush_now()?;
        while !self.queue.is_empty() {
            match self.stream.write_now(self.queue.unwritten())? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(length) => self.queue.advance(length),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether frames are kept or the switch has not answered yet: then poll for writing and call
    /// [`Self::flush`].
    pub fn wants_write(&self) -> bool {
        if self.connecting {
            return self.stream.connects();
        }
        !self.queue.is_empty() || self.stream.wants_write()
    }

    /// The next frame, `None` when none has arrived in full, as far as one read tells. Several frames
    /// may come with one read: either call until `None` or ask [`Self::has_frame`] before polling.
    ///
    /// `UnexpectedEof` when the switch closed the connection, `InvalidData` when it does not speak
    /// the protocol.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.is_connected()? {
            return Ok(None);
        }
        loop {
            let next = self.decoder.next_frame();
            if let Some(frame) =
                next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            {
                return Ok(Some(frame.to_vec()));
            }
            if std::mem::take(&mut self.drained) {
                return Ok(None);
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// Reads once; false when nothing came.
    fn read(&mut self) -> io::Result<bool> {
        let space = self.decoder.space();
        let room = space.len();
        match self.stream.read_now(space)? {
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(length) => {
                self.decoder.filled(length);
                self.drained = length < room;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Whether [`Self::receive`] has a frame without reading from the socket, so that polling
    /// would not tell.
    pub fn has_frame(&self) -> bool {
        self.decoder.has_frame()
    }
}

/// A switch answers, and it or this host does not let the other in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the switch at {address} answers, but no session comes about: {refusal}")]
pub struct SwitchRefused {
    /// Where it is.
    pub address: String,
    /// Why.
    pub refusal: Refusal,
}

fn unreachable(address: &SwitchAddress, error: &io::Error) -> io::Error {
    let refusal = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(refusal) = refusal {
        let refused = SwitchRefused {
            address: address.to_string(),
            refusal: Refusal::clone(refusal),
        };
        return io::Error::new(error.kind(), refused);
    }
    let text = format!(
        "cannot reach the switch at {address}: {error}; is `understudy switch` running there?"
    );
    io::Error::new(error.kind(), text)
}
