//! Asks peers how they stand, at each of their addresses on a thread of its own.

use crate::events::EventLog;
use crate::host_time::monotonic;
use crate::peer_addresses::PeerAddresses;
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
    /// Those that were asked last.
    asked: Vec<Asked>,
    greeting: Greeting,
    membership: Membership,
    waker: Waker,
    round: u64,
    sender: Sender<Heard>,
    answers: Receiver<Heard>,
    /// Of whom it was told that no session comes about, and why.
    told: BTreeMap<String, String>,
}

/// What came of asking at one address.
#[derive(Debug)]
struct Heard {
    round: u64,
    peer: PeerId,
    /// The address's index.
    address: usize,
    answer: PeerAnswer,
}

/// A peer that was asked at all of its addresses. What it says at one of them counts, whatever becomes of the others;
/// that it says nothing is known when it did so at all.
#[derive(Debug)]
struct Asked {
    addresses: PeerAddresses,
    /// From so many of them there is nothing yet.
    outstanding: usize,
    /// It has answered, or is known not to.
    is_over: bool,
    /// The address at which it answered.
    answered_at: usize,
    /// The best that came of the others: whoever turns this host away is there at least.
    best: PeerAnswer,
}

impl Asked {
    fn new(addresses: PeerAddresses) -> Asked {
        let outstanding = addresses.iter().len();
        Asked {
            addresses,
            outstanding,
            is_over: false,
            answered_at: 0,
            best: PeerAnswer::Unreachable,
        }
    }

    /// What is known of the peer by what was heard at one address, once.
    fn heard(&mut self, address: usize, answer: PeerAnswer) -> Option<PeerAnswer> {
        self.outstanding -= 1;
        if self.is_over {
            return None;
        }
        match answer {
            PeerAnswer::Unreachable => {}
            // Of several the same in each round, whichever came first: it is told of when it is another.
            PeerAnswer::TurnedAway(_)
                if self.best != PeerAnswer::Unreachable && self.answered_at < address => {}
            PeerAnswer::TurnedAway(_) => (self.best, self.answered_at) = (answer, address),
            PeerAnswer::Standing(_) => {
                (self.is_over, self.answered_at) = (true, address);
                return Some(answer);
            }
        }
        self.is_over = self.outstanding == 0;
        self.is_over.then(|| self.best.clone())
    }
}

impl Peers {
    /// None was asked yet.
    pub fn new(greeting: Greeting, membership: Membership, waker: Waker) -> Peers {
        let (sender, answers) = mpsc::channel();
        Peers {
            asked: Vec::new(),
            greeting,
            membership,
            waker,
            round: 0,
            sender,
            answers,
            told: BTreeMap::new(),
        }
    }

    /// Asks these peers.
    pub fn ask(&mut self, peers: Vec<PeerAddresses>) {
        self.asked = peers.into_iter().map(Asked::new).collect();
        self.round += 1;
        for (index, asked) in self.asked.iter().enumerate() {
            let peer = PeerId(index as u8);
            for (index, address) in asked.addresses.iter().enumerate() {
                self.ask_at(peer, index, address);
            }
        }
    }

    fn ask_at(&self, peer: PeerId, index: usize, address: &str) {
        let heard = move |round, answer| Heard {
            round,
            peer,
            address: index,
            answer,
        };
        let (round, sender) = (self.round, self.sender.clone());
        let (address, greeting) = (address.to_owned(), self.greeting.clone());
        let (membership, waker) = (self.membership.clone(), self.waker.clone());
        let asking = environment::thread::Builder::new()
            .name("peer".into())
            .spawn(move || {
                let answer = ask(&address, greeting, &membership);
                // Nobody may want it any more.
                let _sent = sender.send(heard(round, answer));
                waker.wake();
            });
        if asking.is_err() {
            // Both ends are this object's.
            let _sent = self.sender.send(heard(self.round, PeerAnswer::Unreachable));
        }
    }

    /// Where a peer that was asked in the last round listens: first the address at which it answered.
    pub fn addresses(&self, peer: PeerId) -> Option<PeerAddresses> {
        let asked = self.asked.get(usize::from(peer.0))?;
        Some(asked.addresses.clone().beginning_with(asked.answered_at))
    }

    /// An answer of the last round.
    pub fn answer(&mut self) -> Option<(PeerId, PeerAnswer)> {
        while let Ok(heard) = self.answers.try_recv() {
            let asked = self.asked.get_mut(usize::from(heard.peer.0));
            let asked = asked.filter(|_| heard.round == self.round);
            if let Some(asked) = asked
                && let Some(answer) = asked.heard(heard.address, heard.answer)
            {
                return Some((heard.peer, answer));
            }
        }
        None
    }

    /// As [`Peers::answer`]. A peer that is there, and does not let this host in or is not let in, is told
    /// as an event: once, and again when it is for another reason.
    pub fn answer_told(&mut self, events: &mut EventLog) -> Option<(PeerId, PeerAnswer)> {
        let (peer, answer) = self.answer()?;
        let configured = self.asked.get(usize::from(peer.0));
        let address = configured.map_or(String::new(), |asked| asked.addresses.to_string());
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
        Err(AddressError::Unknown { .. } | AddressError::Listen { .. } | AddressError::All(_)) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use replication::marker::Worth;
    use replication::message::LifeId;
    use replication::startup::{Stance, Standing};
    use replication::succession::{Generation, Host, HostId, LifeNumber, MachineName};

    fn asked(addresses: usize) -> Asked {
        let addresses = (0..addresses).map(|n| format!("10.{n}.0.2:7400"));
        Asked::new(PeerAddresses::new(addresses.collect()).unwrap())
    }

    fn standing() -> PeerAnswer {
        PeerAnswer::Standing(Standing {
            machine: MachineName::new("vm").unwrap(),
            host: Host::new(HostId(7), "b"),
            stance: Stance::NoMachine,
            life: LifeNumber(0),
            life_id: LifeId(0),
            generation: Generation(0),
            worth: Worth::Fresh,
        })
    }

    fn turned_away(why: &str) -> PeerAnswer {
        PeerAnswer::TurnedAway(TurnedAway {
            host: None,
            why: why.into(),
        })
    }

    #[test]
    fn a_peer_with_a_dead_address_has_answered_as_soon_as_it_did_at_another() {
        let mut two = asked(2);
        assert_eq!(two.heard(0, PeerAnswer::Unreachable), None, "it may yet");
        let standing = standing();
        assert_eq!(two.heard(1, standing.clone()), Some(standing.clone()));
        assert_eq!(two.answered_at, 1);
        let mut two = asked(2);
        assert_eq!(two.heard(0, standing.clone()), Some(standing.clone()));
        assert_eq!(two.heard(1, standing), None, "once");
        assert_eq!(two.answered_at, 0);
    }

    #[test]
    fn a_peer_is_out_of_reach_when_it_is_so_at_every_address() {
        let mut one = asked(1);
        let unreachable = PeerAnswer::Unreachable;
        assert_eq!(one.heard(0, unreachable.clone()), Some(unreachable.clone()));
        let mut three = asked(3);
        assert_eq!(three.heard(2, unreachable.clone()), None);
        assert_eq!(three.heard(0, turned_away("no key")), None);
        let answer = three.heard(1, unreachable);
        assert_eq!(answer, Some(turned_away("no key")), "that says more");
    }

    /// Finding: the two addresses of a host with foreign keys took turns, and each was news.
    #[test]
    fn of_two_addresses_that_turn_this_host_away_the_first_is_told_of_whichever_answers_first() {
        for order in [[0, 1], [1, 0]] {
            let mut two = asked(2);
            let answers = order.map(|at| two.heard(at, turned_away(&format!("no key at {at}"))));
            assert_eq!(answers, [None, Some(turned_away("no key at 0"))]);
            assert_eq!(two.answered_at, 0);
        }
    }
}
