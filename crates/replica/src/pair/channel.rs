//! The logging channel: messages on a connection.

use crate::transport::Connection;
use replication::frame::FrameError;
use replication::message::{Message, MessageReader, MessageWriter};
use std::collections::VecDeque;
use std::io;
use thiserror::Error;

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
    /// Whether what comes is to be read; the peer waits otherwise.
    pub reads: bool,
    writer: MessageWriter,
    reader: MessageReader,
    encoded: Vec<u8>,
    greeted: bool,
}

impl Channel {
    /// On a new connection.
    pub fn new(connection: Connection) -> Channel {
        Channel {
            connection,
            reads: true,
            writer: MessageWriter::default(),
            reader: MessageReader::new(),
            encoded: Vec::new(),
            greeted: false,
        }
    }

    /// Sends a message, or keeps what the network does not take at once. Returns its bytes.
    pub fn send(&mut self, message: &Message) -> io::Result<usize> {
        self.encoded.clear();
        self.writer.write(&mut self.encoded, message);
        self.connection.send(&self.encoded)?;
        Ok(self.encoded.len())
    }

    /// Whether the peer has said anything that makes sense.
    pub fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// Takes the messages that have arrived. With an error come those before it.
    pub fn receive(&mut self) -> (VecDeque<Message>, Result<(), ChannelError>) {
        let mut messages = VecDeque::new();
        let reader = &mut self.reader;
        let received = self.connection.receive(|bytes| reader.push(bytes));
        let result = loop {
            match self.reader.next_message() {
                Ok(Some(message)) => {
                    self.greeted = true;
                    messages.push_back(message);
                }
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
