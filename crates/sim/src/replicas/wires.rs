//! What is said over the connections of a world: messages, whichever links their channel goes over.

use replica::packing::MessageStream;
use replication::links::{Incoming, LinkFrame, LinkFrameReader};
use replication::message::Message;
use std::collections::{BTreeMap, BTreeSet};

/// One direction of a connection.
enum Stream {
    Messages(MessageStream),
    /// A link of the channel that was told this token.
    Link(u128, LinkFrameReader),
    /// Of something else: the pieces of a snapshot, say.
    Other,
}

/// One direction of a channel that goes over links.
struct Linked {
    incoming: Incoming,
    reader: MessageStream,
}

/// The connections of a channel that goes over links.
struct Connections {
    /// By which others name the channel.
    first: u64,
    /// Ends that are not closed.
    open: BTreeSet<(u64, usize)>,
}

/// All directions of all connections, as they are written or as they arrive. Whoever calls is side 0, so the sides are the
/// same on all links of a channel.
#[derive(Default)]
pub struct Wires {
    streams: BTreeMap<(u64, usize), Stream>,
    linked: BTreeMap<(u128, usize), Linked>,
    connections: BTreeMap<u128, Connections>,
}

impl Wires {
    /// The messages that these bytes complete, in one direction of a connection.
    pub fn read(&mut self, (id, side): (u64, usize), bytes: &[u8]) -> Vec<Message> {
        let stream = self.streams.entry((id, side));
        let stream = stream.or_insert_with(|| Stream::Messages(MessageStream::default()));
        let mut messages = Vec::new();
        let reader = match stream {
            Stream::Other => return messages,
            Stream::Link(token, reader) => {
                let token = *token;
                reader.push(bytes);
                self.read_link((id, side), token, &mut messages);
                return messages;
            }
            Stream::Messages(reader) => reader,
        };
        if reader.push(bytes).is_err() {
            self.streams.insert((id, side), Stream::Other);
            return messages;
        }
        loop {
            match reader.next_message() {
                Ok(Some(Message::Links { token })) => {
                    let rest = reader.take_rest();
                    let linked = Linked {
                        incoming: Incoming::default(),
                        reader: std::mem::take(reader),
                    };
                    self.linked.insert((token, side), linked);
                    self.is_link(id, side, token, &rest);
                    self.read_link((id, side), token, &mut messages);
                    return messages;
                }
                Ok(Some(Message::Link { token, .. })) => {
                    let rest = reader.take_rest();
                    self.is_link(id, side, token, &rest);
                    self.is_link(id, 1 - side, token, &[]);
                    self.read_link((id, side), token, &mut messages);
                    return messages;
                }
                Ok(Some(Message::Packed)) => {
                    if reader.goes_on_packed().is_err() {
                        self.streams.insert((id, side), Stream::Other);
                        return messages;
                    }
                }
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return messages,
                Err(_) => {
                    self.streams.insert((id, side), Stream::Other);
                    return messages;
                }
            }
        }
    }

    fn is_link(&mut self, id: u64, side: usize, token: u128, rest: &[u8]) {
        let connections = self.connections.entry(token).or_insert(Connections {
            first: id,
            open: BTreeSet::new(),
        });
        connections.open.extend([(id, 0), (id, 1)]);
        let mut reader = LinkFrameReader::default();
        reader.push(rest);
        self.streams.insert((id, side), Stream::Link(token, reader));
    }

    fn read_link(&mut self, place: (u64, usize), token: u128, messages: &mut Vec<Message>) {
        let (Some(Stream::Link(_, reader)), Some(linked)) = (
            self.streams.get_mut(&place),
            self.linked.get_mut(&(token, place.1)),
        ) else {
            return;
        };
        let whole = &mut linked.reader;
        while let Ok(Some(frame)) = reader.next_frame() {
            if let LinkFrame::Segment { number, bytes } = frame {
                // What no program sends the replica notices itself.
                let _arrived = linked.incoming.arrived(number, bytes, |bytes| {
                    let _pushed = whole.push(bytes);
                });
            }
        }
        while let Ok(Some(message)) = whole.next_message() {
            match message {
                Message::Packed => {
                    let _packed = whole.goes_on_packed();
                }
                message => messages.push(message),
            }
        }
    }

    /// How the channel is called that this connection is of: as its first connection.
    pub fn channel_of(&self, id: u64) -> u64 {
        let mut all = self.connections.values();
        let of = all.find(|of| of.open.iter().any(|(open, _)| *open == id));
        of.map_or(id, |of| of.first)
    }

    /// An end of a connection is closed. Gives the channel whose last one it was at that side.
    pub fn end_closed(&mut self, id: u64, side: usize) -> Option<u64> {
        let mut all = self.connections.values_mut();
        let Some(of) = all.find(|of| of.open.contains(&(id, side))) else {
            return Some(id);
        };
        of.open.remove(&(id, side));
        let is_last = !of.open.iter().any(|(_, open)| *open == side);
        is_last.then_some(of.first)
    }

    /// A connection has no ends any more.
    pub fn closed(&mut self, id: u64) {
        for side in 0..2 {
            self.streams.remove(&(id, side));
        }
        let in_use = |token: &u128| {
            let mut streams = self.streams.values();
            streams.any(|stream| matches!(stream, Stream::Link(of, _) if of == token))
        };
        let gone: Vec<u128> = self.connections.keys().copied().collect();
        let gone: Vec<u128> = gone.into_iter().filter(|token| !in_use(token)).collect();
        for token in gone {
            self.connections.remove(&token);
            self.linked.retain(|(of, _), _| *of != token);
        }
    }
}
