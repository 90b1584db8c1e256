//! The logging channel: messages on a connection.

use crate::transport::Connection;
use replication::frame::FrameError;
use replication::message::{Message, MessageReader, MessageWriter};
use std::collections::VecDeque;
use std::io;
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
