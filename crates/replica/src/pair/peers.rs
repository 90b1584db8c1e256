//! Asks peers how they stand, each on a thread of its own.

use crate::events::EventLog;
use crate::host_time::monotonic;
use crate::peer_stream::{BlockingPeer, Membership};
use crate::transport::{self, AddressError};
use crate::turned_away::turned_away;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, Sender};
use keys::HostName;
use replication::message::{
    Greeting, Message, MessageReader, MessageWriter, OLDEST_PROTOCOL_VERSION, Refusal,
    spoken_by_both,
};
use replication::startup::{PeerAnswer, PeerId, TurnedAway};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::Duration;

/// How long connecting, and then each read, may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// The peers, those of the configuration and others that are known.
pub struct Peers {
    /// Where they were asked last.
    addresses: Vec<String>,
    greeting: Greeting,
    membership: Membership,
    waker: Waker,
    round: u64,
    sender: Sender<(u64, PeerId, PeerAnswer)>,
    answers: Receiver<(u64, PeerId, PeerAnswer)>,
    /// Of whom it was told that no session comes about, and why.
    told: BTreeMap<String, String>,
}

impl Peers {
    /// None was asked yet.
    pub fn new(greeting: Greeting, membership: Membership, waker: Waker) -> Peers {
        let (sender, answers) = mpsc::channel();
        Peers {
            addresses: Vec::new(),
            greeting,
            membership,
            waker,
            round: 0,
            sender,
            answers,
            told: BTreeMap::new(),
        }
    }

    /// Asks whoever listens at these addresses.
    pub fn ask(&mut self, addresses: Vec<String>) {
        self.addresses = addresses;
        self.round += 1;
        for (index, address) in self.addresses.iter().enumerate() {
            let peer = PeerId(index as u8);
            let (round, sender) = (self.round, self.sender.clone());
            let (address, greeting) = (address.clone(), self.greeting.clone());
            let (membership, waker) = (self.membership.clone(), self.waker.clone());
            let asking = environment::thread::Builder::new()
                .name("peer".into())
                .spawn(move || {
                    let answer = ask(&address, greeting, &membership);
                    // Nobody may want it any more.
                    let _sent = sender.send((round, peer, answer));
                    waker.wake();
                });
            if asking.is_err() {
                let unreachable = (self.round, peer, PeerAnswer::Unreachable);
                // Both ends are this object's.
                let _sent = self.sender.send(unreachable);
            }
        }
    }

    /// Where a peer was asked in the last round.
    pub fn address(&self, peer: PeerId) -> &str {
        self.addresses
            .get(usize::from(peer.0))
            .map_or("", String::as_str)
    }

    /// An answer of the last round.
    pub fn answer(&mut self) -> Option<(PeerId, PeerAnswer)> {
        let round = self.round;
        let mut answers = self.answers.try_iter();
        answers
            .find(|(of, _, _)| *of == round)
            .map(|(_, peer, answer)| (peer, answer))
    }

    /// As [`Peers::answer`]. A peer that is there, and does not let this host in or is not let in, is told
    /// as an event: once, and again when it is for another reason.
    pub fn answer_told(&mut self, events: &mut EventLog) -> Option<(PeerId, PeerAnswer)> {
        let (peer, answer) = self.answer()?;
        let address = self.address(peer).to_owned();
        match &answer {
            PeerAnswer::TurnedAway(TurnedAway { why, .. }) => {
                if self.told.get(&address) != Some(why) {
                    events.add("connect_failed", 0, 0, why.clone());
                    self.told.insert(address, why.clone());
                }
            }
            PeerAnswer::Standing(_) => {
                self.told.remove(&address);
            }
            // For a moment, perhaps: then it is no news that it is as before.
            PeerAnswer::Unreachable => {}
        }
        Some((peer, answer))
    }
}

/// What came of a question.
enum Reply {
    Answer(PeerAnswer),
    /// It speaks no such protocol, but this one.
    InVersion(u32),
}

/// Asks in the oldest version that this program speaks, which every program understands with which it can pair but
/// a much newer one: that says what it speaks.
fn ask(address: &str, greeting: Greeting, membership: &Membership) -> PeerAnswer {
    let first = ask_in(OLDEST_PROTOCOL_VERSION, address, &greeting, membership);
    let answer = match first {
        Reply::InVersion(protocol) => ask_in(protocol, address, &greeting, membership),
        answer @ Reply::Answer(_) => answer,
    };
    match answer {
        Reply::Answer(answer) => answer,
        // It has changed its mind: it is asked again soon.
        Reply::InVersion(_) => PeerAnswer::Unreachable,
    }
}

fn ask_in(protocol: u32, address: &str, greeting: &Greeting, membership: &Membership) -> Reply {
    let connected = transport::connect_blocking(address, PATIENCE, membership);
    let (peer, error) = match connected {
        Ok(mut stream) => match question(&mut stream, protocol, greeting) {
            Ok(reply) => return reply,
            Err(error) => (stream.peer().cloned(), error),
        },
        Err(AddressError::Connect { source, .. }) => (None, source),
        Err(AddressError::Unknown { .. } | AddressError::Listen { .. }) => {
            return Reply::Answer(PeerAnswer::Unreachable);
        }
    };
    let turned_away = turned_away(&error, address, peer.as_ref(), membership);
    Reply::Answer(turned_away.map_or(PeerAnswer::Unreachable, PeerAnswer::TurnedAway))
}

/// Asks a peer with which there is a session. One that does not let this host in says so only now.
fn question(stream: &mut BlockingPeer, protocol: u32, greeting: &Greeting) -> io::Result<Reply> {
    stream.set_timeout(PATIENCE)?;
    let mut bytes = Vec::new();
    let ask = Message::Ask {
        protocol,
        greeting: greeting.clone(),
    };
    MessageWriter::default().write(&mut bytes, &ask);
    // A peer that has hung up has said why before.
    let written = stream.write_all(&bytes);
    let mut reader = MessageReader::new();
    let mut buffer = [0; 4096];
    let until = monotonic() + PATIENCE;
    while monotonic() < until {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        reader.push(&buffer[..length]);
        match reader.next_message() {
            // No program of this site speaks for another host than its own.
            Ok(Some(Message::Standing(standing)))
                if stream
                    .peer()
                    .is_none_or(|peer| peer.as_str() == standing.host.node()) =>
            {
                return Ok(Reply::Answer(PeerAnswer::Standing(standing)));
            }
            Ok(Some(Message::Refuse(refusal))) => {
                if let Refusal::ProtocolVersion { ours } = refusal
                    && let Some(common) = spoken_by_both(protocol, ours)
                {
                    return Ok(Reply::InVersion(common));
                }
                let host = stream.peer().map(HostName::to_string);
                let who = host.as_deref().unwrap_or("a peer");
                let why = format!("{who} answers, but does not say how it stands: {refusal}");
                let turned_away = TurnedAway { host, why };
                return Ok(Reply::Answer(PeerAnswer::TurnedAway(turned_away)));
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => break,
        }
    }
    written.map(|()| Reply::Answer(PeerAnswer::Unreachable))
}
