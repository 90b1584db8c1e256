//! The logging channel: messages on a connection, or on several links.

use super::links::ChannelLinks;
use crate::packing::{ChannelPacker, Compression, MessageStream, MessageStreamError, StreamError};
use crate::peer_addresses::PeerAddresses;
use crate::peer_stream::{BlockingPeer, Membership};
use crate::random;
use crate::status::LinkLine;
use crate::transport::Connection;
use crate::wake::Waker;
use keys::HostName;
use replication::links::{LinkError, LinkId, LinkTimes};
use replication::message::{Message, MessageReader, MessageWriter, carries_links, unpacks};
use std::collections::{BTreeMap, VecDeque};
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
    Messages(#[from] MessageStreamError),
    /// What came is no chunk.
    #[error("the peer sent garbage: {0}")]
    Chunks(#[from] StreamError),
    /// What came on a link is none of its frames, or the other end takes nothing.
    #[error("the peer sent garbage: {0}")]
    Links(#[from] LinkError),
    /// It speaks of links, or says that it packs, where nobody may.
    #[error("the peer sent garbage: it speaks in a way that was not agreed on")]
    NotAgreed,
}

impl ChannelError {
    /// Whether no program of this kind does such a thing.
    pub fn is_garbage(&self) -> bool {
        match self {
            ChannelError::Io(_) | ChannelError::Closed => false,
            ChannelError::Chunks(_)
            | ChannelError::Messages(_)
            | ChannelError::Links(_)
            | ChannelError::NotAgreed => true,
        }
    }
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

/// The connection that was there first.
pub const FIRST: LinkId = LinkId(0);

/// What came over a channel: messages, those before an error among them.
pub type Received = (VecDeque<Message>, Result<(), ChannelError>);

/// One channel.
#[derive(Debug)]
pub struct Channel {
    /// The connections under it: one, or its links.
    connections: BTreeMap<LinkId, Connection>,
    links: Option<Box<ChannelLinks>>,
    /// When a link of it would be silent.
    times: LinkTimes,
    /// Where the peer called from, if it did.
    pub from: Option<SocketAddr>,
    /// Where the peer was called, if it was: that of the first connection in front.
    to: Option<PeerAddresses>,
    peer: Option<HostName>,
    /// In which version it was greeted here.
    greeted_in: Option<u32>,
    writer: MessageWriter,
    reader: MessageStream,
    /// When what is sent here is packed, and what packs it once the other end knows.
    compression: Compression,
    packer: Option<ChannelPacker>,
    chunk: Vec<u8>,
    /// The network did not take everything when it was last asked to.
    is_behind: bool,
    /// Something was heard already.
    has_heard: bool,
    encoded: Vec<u8>,
    /// Whether the core has to do with the peer. Until then it is a stranger, whatever it says.
    pub admitted: bool,
    opened_at: Duration,
    /// More waits for the peer than anybody keeps.
    is_full: bool,
}

impl Channel {
    /// On a connection that was made just now.
    pub fn new(
        connection: Connection,
        now: Duration,
        times: LinkTimes,
        compression: Compression,
    ) -> Channel {
        Channel {
            peer: connection.peer().cloned(),
            connections: BTreeMap::from([(FIRST, connection)]),
            links: None,
            times,
            from: None,
            to: None,
            greeted_in: None,
            writer: MessageWriter::default(),
            reader: MessageStream::default(),
            compression,
            packer: None,
            chunk: Vec::new(),
            is_behind: false,
            has_heard: false,
            encoded: Vec::new(),
            admitted: false,
            opened_at: now,
            is_full: false,
        }
    }

    /// The same, on a connection that this side has made to the first of these addresses.
    pub fn to(
        connection: Connection,
        now: Duration,
        times: LinkTimes,
        compression: Compression,
        to: PeerAddresses,
    ) -> Channel {
        Channel {
            to: Some(to),
            admitted: true,
            ..Channel::new(connection, now, times, compression)
        }
    }

    /// The host at the other end, as it proved.
    pub fn peer(&self) -> Option<&HostName> {
        self.peer.as_ref()
    }

    /// The connections that there are.
    pub fn connections(&self) -> impl Iterator<Item = (LinkId, &Connection)> {
        self.connections
            .iter()
            .map(|(link, connection)| (*link, connection))
    }

    /// Whether it goes over links, or is about to.
    pub fn has_links(&self) -> bool {
        self.links.is_some()
    }

    /// Sends a message, or keeps what the network does not take at once. Returns its bytes.
    pub fn send(&mut self, message: &Message) -> io::Result<usize> {
        if let Message::Hello { protocol, .. } = message {
            self.greeted_in = Some(*protocol);
        }
        // The machine is a backup's from here on, and by now both have said whether they speak of links.
        if matches!(message, Message::Begin { .. }) && self.may_pack() {
            self.send_as_it_is(&Message::Packed)?;
            self.packer = Some(ChannelPacker::new(self.compression));
        }
        self.send_as_it_is(message)
    }

    fn may_pack(&self) -> bool {
        self.compression != Compression::Never
            && self.packer.is_none()
            && self.greeted_in.is_some_and(unpacks)
    }

    /// So long takes a way there and back on this channel.
    pub fn measured(&mut self, round_trip: Duration) {
        if let Some(packer) = &mut self.packer {
            packer.measured(round_trip);
        }
    }

    /// The newest protocol that both ends speak, once they have greeted.
    pub fn greeted_in(&self) -> Option<u32> {
        self.greeted_in
    }

    fn send_as_it_is(&mut self, message: &Message) -> io::Result<usize> {
        self.encoded.clear();
        self.writer.write(&mut self.encoded, message);
        let connection = self.connections.get_mut(&FIRST);
        let mut bytes = &self.encoded;
        if let Some(packer) = &mut self.packer {
            self.chunk.clear();
            packer.put(&self.encoded, self.is_behind, &mut self.chunk)?;
            bytes = &self.chunk;
        }
        match (&mut self.links, connection) {
            (Some(links), _) => {
                let sent = links.state.send(bytes);
                self.is_full |= sent.is_err();
                sent.map_err(io::Error::other)?;
            }
            (None, Some(connection)) => connection.send(bytes)?,
            (None, None) => return Err(ErrorKind::NotConnected.into()),
        }
        Ok(bytes.len())
    }

    /// Writes what waits, as far as the network takes it. A connection that fails is noticed when it is read.
    pub fn flush(&mut self, now: Duration) {
        self.is_behind = false;
        for (link, connection) in &mut self.connections {
            let _flushed = connection.flush();
            self.is_behind |= connection.has_waiting();
            let Some(links) = &mut self.links else {
                continue;
            };
            while !connection.has_waiting() {
                self.encoded.clear();
                if !links.state.transmit(now, *link, &mut self.encoded) {
                    break;
                }
                let sent = connection
                    .send(&self.encoded)
                    .and_then(|()| connection.flush());
                if sent.is_err() {
                    break;
                }
            }
        }
    }

    /// What a poll says can be written on one of its connections is written.
    ///
    /// # Errors
    /// The channel has ended.
    pub fn writable(&mut self, now: Duration, link: LinkId) -> Result<(), ChannelError> {
        let connection = self.connections.get_mut(&link);
        match connection.map(Connection::flush) {
            Some(Err(error)) => self.ended(now, link, error.into()),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// For somebody who has a thread for it; `None` if the host does not let it wait.
    pub fn into_fetcher(mut self) -> Option<Fetcher> {
        let mut connection = self.connections.remove(&FIRST)?;
        // What was said before comes first; one that fails is noticed by whoever has it then.
        let _flushed = connection.flush();
        let stream = connection.into_blocking().ok()?;
        let reader = self.reader.into_reader().goes_on_with_snapshot();
        Some(Fetcher { stream, reader })
    }

    /// When a stranger's time is up.
    pub fn admission_deadline(&self) -> Option<Duration> {
        (!self.admitted).then_some(self.opened_at + ADMISSION_PATIENCE)
    }

    /// Takes the messages that have arrived on one of its connections. With an error come those before it.
    pub fn receive(&mut self, now: Duration, link: LinkId) -> Received {
        let mut messages = VecDeque::new();
        let Some(connection) = self.connections.get_mut(&link) else {
            return (messages, Ok(()));
        };
        let (reader, links) = (&mut self.reader, &mut self.links);
        let mut understood = Ok(());
        let received = connection.receive(|bytes| {
            understood = match links {
                Some(links) if links.hears => links.receive(now, link, bytes, reader),
                _ => reader.push(bytes).map_err(ChannelError::from),
            };
        });
        let result = understood.and_then(|()| self.take_messages(now, &mut messages));
        let result = match (result, received) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => self.ended(now, link, error.into()),
            (Ok(()), Ok(false)) => self.ended(now, link, ChannelError::Closed),
            (Ok(()), Ok(true)) => Ok(()),
        };
        (messages, result)
    }

    fn take_messages(
        &mut self,
        now: Duration,
        messages: &mut VecDeque<Message>,
    ) -> Result<(), ChannelError> {
        while let Some(message) = self.reader.next_message()? {
            let is_first = !std::mem::replace(&mut self.has_heard, true);
            match message {
                Message::Links { token } => self.told_of_links(now, token)?,
                // What follows is none of this reader's.
                Message::Packed if self.may_be_packed() => self.reader.goes_on_packed()?,
                Message::Packed => return Err(ChannelError::NotAgreed),
                Message::Link { .. } if is_first && self.to.is_none() => {
                    messages.push_back(message);
                    break;
                }
                Message::Link { .. } => return Err(ChannelError::NotAgreed),
                message => {
                    if let Message::Hello { protocol, .. } = &message {
                        self.greeted_in = Some(*protocol);
                    }
                    if matches!(message, Message::Welcome { .. }) {
                        self.offer_links(now)?;
                    }
                    messages.push_back(message);
                }
            }
        }
        Ok(())
    }

    fn may_be_packed(&self) -> bool {
        self.admitted && self.greeted_in.is_some_and(unpacks)
    }

    fn may_have_links(&self) -> bool {
        self.links.is_none()
            && !self.reader.is_packed()
            && self.admitted
            && self.greeted_in.is_some_and(carries_links)
    }

    /// The session stands: a peer that has several addresses, and a program that knows of links, is told of them.
    fn offer_links(&mut self, now: Duration) -> Result<(), ChannelError> {
        let to = self.to.as_ref().filter(|to| !to.is_one());
        let Some(to) = to.cloned().filter(|_| self.may_have_links()) else {
            return Ok(());
        };
        let token = random::number()?;
        self.send(&Message::Links { token })?;
        let links = ChannelLinks::that_dial(now, token, self.times, &to);
        self.links = Some(Box::new(links));
        Ok(())
    }

    /// The peer says that what it sends from here on is of links: it offers them, or answers.
    fn told_of_links(&mut self, now: Duration, token: u128) -> Result<(), ChannelError> {
        match &self.links {
            Some(links) if links.token == token && !links.hears && !self.reader.is_packed() => {}
            None if self.to.is_none() && self.may_have_links() => {
                self.send(&Message::Links { token })?;
                let from = self.from.map_or(String::new(), |from| from.to_string());
                let links = ChannelLinks::new(now, token, self.times, from);
                self.links = Some(Box::new(links));
            }
            _ => return Err(ChannelError::NotAgreed),
        }
        let rest = self.reader.take_rest();
        if let Some(links) = &mut self.links {
            links.hears = true;
            links.receive(now, FIRST, &rest, &mut self.reader)?;
        }
        Ok(())
    }

    /// One of its connections has ended: the channel has as well, unless another link is up.
    fn ended(
        &mut self,
        now: Duration,
        link: LinkId,
        why: ChannelError,
    ) -> Result<(), ChannelError> {
        self.connections.remove(&link);
        let Some(links) = &mut self.links else {
            return Err(why);
        };
        links.ended(now, link);
        match self.connections.is_empty() || links.state.is_over(now) {
            true => Err(why),
            false => Ok(()),
        }
    }

    /// Whether a connection of this host that names this token is a link of this channel.
    pub fn is_named(&self, token: u128, peer: Option<&HostName>) -> bool {
        let links = self.links.as_ref();
        self.to.is_none()
            && self.peer() == peer
            && links.is_some_and(|links| links.hears && links.token == token)
    }

    /// Takes a further link, which is the only connection of that channel so far; in place of the one of that number.
    pub fn attach(&mut self, now: Duration, link: LinkId, mut of: Channel) -> Received {
        let mut messages = VecDeque::new();
        let (rest, from) = (of.reader.take_rest(), of.from);
        let (Some(links), Some(connection)) = (&mut self.links, of.connections.remove(&FIRST))
        else {
            return (messages, Ok(()));
        };
        self.connections.insert(link, connection);
        links.opened(now, link, from.map(|from| from.to_string()));
        let understood = links.receive(now, link, &rest, &mut self.reader);
        let result = understood.and_then(|()| self.take_messages(now, &mut messages));
        (messages, result)
    }

    /// Sees to its links: what is silent is left, what has ended is opened again.
    ///
    /// # Errors
    /// The channel has ended.
    pub fn tend(
        &mut self,
        now: Duration,
        membership: &Membership,
        waker: &Waker,
    ) -> Result<(), ChannelError> {
        let Some(links) = &mut self.links else {
            return Ok(());
        };
        if self.is_full {
            return Err(LinkError::Full.into());
        }
        links.state.tick(now);
        if let Some(lost) = links.state.lost(now) {
            self.connections.remove(&lost);
            links.ended(now, lost);
        }
        for (link, connection) in links.dial(now, membership, waker) {
            // Whoever has taken the address over is another host, and no link leads there.
            if connection.peer() == self.peer.as_ref() {
                self.connections.insert(link, connection);
                links.opened(now, link, None);
            } else {
                links.ended(now, link);
            }
        }
        Ok(())
    }

    /// When [`Channel::tend`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.links.as_ref().map(|links| links.deadline())
    }

    /// What is new of its links: events' names and texts.
    pub fn news(&mut self, now: Duration) -> Vec<(&'static str, String)> {
        let host = self.peer.as_ref().map_or("the peer", HostName::as_str);
        let links = self.links.as_mut();
        links.map_or_else(Vec::new, |links| links.news(now, host))
    }

    /// Its links, if it has any.
    pub fn lines(&self) -> Option<Vec<LinkLine>> {
        self.links.as_ref().map(|links| links.lines())
    }
}
