//! Messages of one direction of a channel, of which some come packed.

use super::channel::MOST_BYTES;
use super::stream::{StreamError, StreamUnpacker};
use replication::frame::FrameError;
use replication::message::{Message, MessageReader};
use std::io;
use thiserror::Error;

/// Unpacked at once, in bytes.
const PIECE: usize = 64 << 10;

/// Why no more messages come.
#[derive(Debug, Error)]
pub enum MessageStreamError {
    /// What came is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came is no chunk.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It says again that it is packed.
    #[error("its stream says twice that it is packed")]
    Twice,
    /// This host has no memory for it.
    #[error("what it packed cannot be unpacked here: {0}")]
    Memory(#[from] io::Error),
}

/// Reads them.
#[derive(Debug, Default)]
pub struct MessageStream {
    reader: MessageReader,
    unpacking: Option<Box<Unpacking>>,
}

#[derive(Debug)]
struct Unpacking {
    unpacker: StreamUnpacker,
    piece: Vec<u8>,
}

impl MessageStream {
    /// Adds bytes as they came.
    ///
    /// # Errors
    /// They are no chunks, where the other end has said that it sends such.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let Some(unpacking) = &mut self.unpacking else {
            self.reader.push(bytes);
            return Ok(());
        };
        let mut rest = bytes;
        loop {
            let (taken, put) = unpacking.unpacker.unpack(rest, &mut unpacking.piece)?;
            if (taken, put) == (0, 0) {
                assert!(rest.is_empty(), "everything that came is taken");
                return Ok(());
            }
            rest = &rest[taken..];
            self.reader.push(&unpacking.piece[..put]);
        }
    }

    /// The next message, or `None` until more bytes come. After an error close the connection.
    ///
    /// # Errors
    /// What came is no message.
    pub fn next_message(&mut self) -> Result<Option<Message>, MessageStreamError> {
        Ok(self.reader.next_message()?)
    }

    /// The message that came last says that what follows is packed.
    ///
    /// # Errors
    /// It was said before, or what came is no chunk.
    pub fn goes_on_packed(&mut self) -> Result<(), MessageStreamError> {
        if self.is_packed() {
            return Err(MessageStreamError::Twice);
        }
        let rest = self.reader.take_rest();
        self.unpacking = Some(Box::new(Unpacking {
            unpacker: StreamUnpacker::new(MOST_BYTES)?,
            piece: vec![0; PIECE],
        }));
        Ok(self.push(&rest)?)
    }

    /// Whether the other end has said that what it sends is packed.
    pub fn is_packed(&self) -> bool {
        self.unpacking.is_some()
    }

    /// The bytes that came and are not part of a whole message: they are none of this reader's any more.
    pub fn take_rest(&mut self) -> Vec<u8> {
        assert!(
            !self.is_packed(),
            "what was unpacked is a channel's messages"
        );
        self.reader.take_rest()
    }

    /// The reader of a connection on which nothing is packed.
    pub fn into_reader(self) -> MessageReader {
        assert!(
            !self.is_packed(),
            "what was unpacked is a channel's messages"
        );
        self.reader
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChannelPacker, Compression};
    use super::*;
    use proptest::prelude::*;
    use replication::message::MessageWriter;
    use replication::succession::RecordNumber;

    fn heartbeat(pairing: u64) -> Message {
        Message::Compare {
            pairing,
            record: RecordNumber(pairing / 3),
        }
    }

    proptest! {
        #[test]
        fn messages_before_and_after_the_word_are_the_same_however_they_are_cut(
            before in 0u64..3,
            after in 0u64..200,
            cuts in prop::collection::vec(1usize..200, 1..5),
        ) {
            let mut writer = MessageWriter::default();
            let mut wire = Vec::new();
            (0..before).for_each(|n| writer.write(&mut wire, &heartbeat(n)));
            writer.write(&mut wire, &Message::Packed);
            let mut packer = ChannelPacker::new(Compression::Always);
            let mut batch = Vec::new();
            for n in before..before + after {
                writer.write(&mut batch, &heartbeat(n));
                if n % 16 == 0 || n + 1 == before + after {
                    packer.put(&batch, false, &mut wire).unwrap();
                    batch.clear();
                }
            }
            let mut stream = MessageStream::default();
            let (mut rest, mut cuts) = (&wire[..], cuts.iter().cycle());
            let mut came = 0;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                stream.push(now).unwrap();
                while let Some(message) = stream.next_message().unwrap() {
                    if message == Message::Packed {
                        stream.goes_on_packed().unwrap();
                        continue;
                    }
                    prop_assert_eq!(message, heartbeat(came));
                    came += 1;
                }
                rest = later;
            }
            prop_assert_eq!(came, before + after);
        }
    }

    #[test]
    fn the_word_is_said_once() {
        let (mut writer, mut wire) = (MessageWriter::default(), Vec::new());
        let mut packer = ChannelPacker::new(Compression::Never);
        writer.write(&mut wire, &Message::Packed);
        let mut again = Vec::new();
        writer.write(&mut again, &Message::Packed);
        packer.put(&again, false, &mut wire).unwrap();
        let mut stream = MessageStream::default();
        stream.push(&wire).unwrap();
        for is_first in [true, false] {
            assert_eq!(stream.next_message().unwrap(), Some(Message::Packed));
            assert_eq!(stream.goes_on_packed().is_ok(), is_first);
        }
        let error = stream.goes_on_packed().unwrap_err();
        assert!(matches!(error, MessageStreamError::Twice), "{error}");
    }
}
