//! The logging channel's network between two nodes: connections of bytes in order, with delay,
//! limited speed, cuts in one direction or both, and damage.

use replication::ConnectionId;
use replication::message::{Message, MessageReader, MessageWriter};
use std::collections::{BTreeMap, VecDeque};

/// What travels.
#[derive(Debug)]
pub enum Segment {
    /// A piece of the stream.
    Bytes(Vec<u8>),
    /// The end of the stream.
    End,
}

/// One side of a connection.
#[derive(Debug)]
pub struct End {
    /// The node, or `None` for a ghost's.
    pub node: Option<usize>,
    /// The process that it belongs to.
    pub run: u64,
    /// This process still listens and speaks.
    pub open: bool,
    /// Encodes what this side says.
    pub writer: MessageWriter,
    /// Decodes what this side hears.
    pub reader: MessageReader,
    /// What travels from here to the other side, and when it arrives.
    pub outgoing: VecDeque<(u64, Segment)>,
    /// When the link is free for the next byte.
    free_at: u64,
    /// The other side does not exist any more: nothing of it will ever be answered.
    pub void: bool,
}

/// A connection between two ends.
#[derive(Debug)]
pub struct Connection {
    /// The one that dialled, then the one that was dialled.
    pub ends: [End; 2],
}

/// How a direction between two nodes behaves at present.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Nothing gets through.
    pub cut: bool,
    /// One way, in nanoseconds.
    pub delay: u64,
    /// Added at most, in nanoseconds.
    pub jitter: u64,
    /// Nanoseconds a byte.
    pub byte_time: u64,
}

/// All connections.
#[derive(Debug)]
pub struct Network {
    /// By number; closed ones are removed.
    pub connections: BTreeMap<u64, Connection>,
    /// From node (first index) to node.
    pub links: Vec<Vec<Link>>,
    next: u64,
}

impl End {
    fn new(node: Option<usize>, run: u64) -> End {
        End {
            node,
            run,
            open: true,
            writer: MessageWriter::default(),
            reader: MessageReader::new(),
            outgoing: VecDeque::new(),
            free_at: 0,
            void: false,
        }
    }
}

impl Network {
    /// A network where every direction is `link`.
    pub fn new(nodes: usize, link: Link) -> Network {
        Network {
            connections: BTreeMap::new(),
            links: vec![vec![link; nodes]; nodes],
            next: 1,
        }
    }

    /// Connects two ends; `from` dialled.
    pub fn connect(&mut self, from: (Option<usize>, u64), to: (usize, u64)) -> ConnectionId {
        let number = self.next;
        self.next += 1;
        let ends = [End::new(from.0, from.1), End::new(Some(to.0), to.1)];
        self.connections.insert(number, Connection { ends });
        ConnectionId(number)
    }

    /// Which side of the connection the process `run` is.
    pub fn side(&self, connection: ConnectionId, run: u64) -> Option<usize> {
        let connection = self.connections.get(&connection.0)?;
        connection
            .ends
            .iter()
            .position(|end| end.run == run && end.node.is_some())
    }

    /// Puts a segment on its way from `side`; gives the time at which it arrives if nothing cuts
    /// the link meanwhile.
    pub fn post(
        &mut self,
        now: u64,
        jitter: u64,
        connection: ConnectionId,
        side: usize,
        segment: Segment,
    ) -> Option<u64> {
        let links = &self.links;
        let connection = self.connections.get_mut(&connection.0)?;
        let to = connection.ends[1 - side].node.unwrap_or(0);
        let end = &mut connection.ends[side];
        let from = end.node.unwrap_or((to + 1) % links.len());
        let link = links[from][to];
        let length = match &segment {
            Segment::Bytes(bytes) => bytes.len() as u64,
            Segment::End => 0,
        };
        let start = end.free_at.max(now);
        end.free_at = start + length * link.byte_time;
        let before = end.outgoing.back().map_or(0, |(at, _)| *at);
        let arrives = (end.free_at + link.delay + jitter % (link.jitter + 1)).max(before);
        end.outgoing.push_back((arrives, segment));
        Some(arrives)
    }

    /// Encodes a message that `side` says.
    pub fn encode(
        &mut self,
        connection: ConnectionId,
        side: usize,
        message: &Message,
    ) -> Option<Vec<u8>> {
        let end = &mut self.connections.get_mut(&connection.0)?.ends[side];
        let mut bytes = Vec::new();
        if end.open {
            end.writer.write(&mut bytes, message);
        }
        Some(bytes)
    }

    /// Whether what `side` sends can arrive at present.
    pub fn flows(&self, connection: &Connection, side: usize) -> bool {
        match (connection.ends[side].node, connection.ends[1 - side].node) {
            (Some(from), Some(to)) => !self.links[from][to].cut,
            _ => true,
        }
    }
}
