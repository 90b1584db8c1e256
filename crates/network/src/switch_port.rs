//! A replica's connection to a switch.

use crate::address::SwitchAddress;
use crate::frame_stream::{FrameDecoder, FrameQueue};
use crate::stream::Stream;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Frames that wait here because the switch does not read, in octets.
const SEND_QUEUE_LIMIT: usize = 4 << 20;

/// One port of a switch, from outside: a non-blocking stream of frames. After an error it is of no
/// use; whether and when to connect again is the caller's decision.
#[derive(Debug)]
pub struct SwitchPort {
    stream: Stream,
    decoder: FrameDecoder,
    queue: FrameQueue,
}

impl SwitchPort {
    /// Connects to the switch. A refusal comes at once, no answer over TCP after five seconds.
    pub fn connect(address: &SwitchAddress) -> io::Result<SwitchPort> {
        let stream = Stream::connect(address).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot reach the switch at {address}: {error}; is `understudy switch` running there?"),
            )
        })?;
        Ok(SwitchPort {
            stream,
            decoder: FrameDecoder::default(),
            queue: FrameQueue::new(SEND_QUEUE_LIMIT),
        })
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
        while !self.queue.is_empty() {
            match self.stream.write_now(self.queue.unwritten())? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(length) => self.queue.advance(length),
                None => break,
            }
        }
        Ok(())
    }

    /// Whether frames are kept: then poll for writing and call [`Self::flush`].
    pub fn wants_write(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next frame, `None` when none has arrived in full. Several frames may come with one read:
    /// either call until `None` or ask [`Self::has_frame`] before polling.
    ///
    /// `UnexpectedEof` when the switch closed the connection, `InvalidData` when it does not speak
    /// the protocol.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let next = self.decoder.next_frame();
            if let Some(frame) =
                next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            {
                return Ok(Some(frame.to_vec()));
            }
            match self.stream.read_now(self.decoder.space())? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(length) => self.decoder.filled(length),
                None => return Ok(None),
            }
        }
    }

    /// Whether [`Self::receive`] has a frame without reading from the socket, so that polling
    /// would not tell.
    pub fn has_frame(&self) -> bool {
        self.decoder.has_frame()
    }
}
