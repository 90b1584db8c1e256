//! The logging channel: messages on a connection.

use crate::peer_stream::BlockingPeer;
use crate::transport::Connection;
use replication::frame::FrameError;
use replication::message::{Message, MessageReader, MessageWriter};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

/// Whoever was not taken as a backup by then was none.
const ADMISSION_PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The network or the peer ended it.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// What came is no message.
    #[error("the peer sent garbage: {0}")]
    Garbage(#[from] FrameError),
}

/// Bytes that a thread reads at once.
const READ_BYTES: usize = 256 << 10;

/// A connection on which a joiner fetches the pieces of a snapshot, for the thread that sends them.
#[derive(Debug)]
pub struct Fetcher {
    /// The connection.
    pub stream: BlockingPeer,
    reader: MessageReader,
}

impl Fetcher {
    /// The next that comes; waits for it.
    ///
    /// # Errors
    /// The connection failed, or what comes is no message.
    pub fn receive(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.reader.next_message().map_err(io::Error::other)? {
                return Ok(message);
            }
            let room = self.reader.room(READ_BYTES);
            match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.reader.filled(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One connection of the logging channel.
#[derive(Debug)]
pub struct Channel {
    /// The connection under it.
    pub connection: Connection,
    /// Where the peer called from, if it did.
    pub from: Option<SocketAddr>,
    writer: MessageWriter,
    reader: MessageReader,
    encoded: Vec<u8>,
    /// Whether the core has to do with the peer. Until then it is a stranger, whatever it says.
    pub admitted: bool,
    opened_at: Duration,
}

impl Channel {
    /// On a connection that was made just now.
    pub fn new(connection: Connection, now: Duration) -> Channel {
        Channel {
            connection,
            from: None,
            writer: MessageWriter::default(),
            reader: MessageReader::new(),
            encoded: Vec::new(),
            admitted: false,
            opened_at: now,
        }
    }

    /// Sends a message, or keeps what the network does not take at once. Returns its bytes.
    pub fn send(&mut self, message: &Message) -> io::Result<usize> {
        self.encoded.clear();
        self.writer.write(&mut self.encoded, message);
        self.connection.send(&self.encoded)?;
        Ok(self.encoded.len())
    }

    /// For somebody who has a thread for it; `None` if the host does not let it wait.
    pub fn into_fetcher(mut self) -> Option<Fetcher> {
        // What was said before comes first; one that fails is noticed by whoever has it then.
        let _flushed = self.connection.flush();
        let stream = self.connection.into_blocking().ok()?;
        let reader = self.reader.goes_on_with_snapshot();
        Some(Fetcher { stream, reader })
    }

    /// When a stranger's time is up.
    pub fn admission_deadline(&self) -> Option<Duration> {
        (!self.admitted).then_some(self.opened_at + ADMISSION_PATIENCE)
    }

    /// Takes the messages that have arrived. With an error come those before it.
    pub fn receive(&mut self) -> (VecDeque<Message>, Result<(), ChannelError>) {
        let mut messages = VecDeque::new();
        let reader = &mut self.reader;
        let received = self.connection.receive(|bytes| reader.push(bytes));
        let result = loop {
            match self.reader.next_message() {
                Ok(Some(message)) => messages.push_back(message),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        let result = match (result, received) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(error.into()),
            (Ok(()), Ok(false)) => Err(ChannelError::Closed),
            (Ok(()), Ok(true)) => Ok(()),
        };
        (messages, result)
    }
}
