//! Asks peers how they stand, each on a thread of its own.

use crate::host_time::monotonic;
use crate::peer_stream::Membership;
use crate::transport;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, Sender};
use replication::message::{Greeting, Message, MessageReader, MessageWriter, PROTOCOL_VERSION};
use replication::startup::{PeerAnswer, PeerId};
use std::io::{Read, Write};
use std::time::Duration;

/// How long connecting, and then each read, may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// The peers of the configuration.
pub struct Peers {
    addresses: Vec<String>,
    greeting: Greeting,
    membership: Membership,
    waker: Waker,
    round: u64,
    sender: Sender<(u64, PeerId, PeerAnswer)>,
    answers: Receiver<(u64, PeerId, PeerAnswer)>,
}

impl Peers {
    /// None was asked yet.
    pub fn new(
        addresses: Vec<String>,
        greeting: Greeting,
        membership: Membership,
        waker: Waker,
    ) -> Peers {
        let (sender, answers) = mpsc::channel();
        Peers {
            addresses,
            greeting,
            membership,
            waker,
            round: 0,
            sender,
            answers,
        }
    }

    /// Asks all of them.
    pub fn ask(&mut self) {
        self.round += 1;
        for (index, address) in self.addresses.iter().enumerate() {
            let peer = PeerId(index as u8);
            let (round, sender) = (self.round, self.sender.clone());
            let (address, greeting) = (address.clone(), self.greeting.clone());
            let (membership, waker) = (self.membership.clone(), self.waker.clone());
            let asking = environment::thread::Builder::new()
                .name("peer".into())
                .spawn(move || {
                    let answer =
                        ask(&address, greeting, &membership).unwrap_or(PeerAnswer::Unreachable);
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

    /// An answer of the last round.
    pub fn answer(&mut self) -> Option<(PeerId, PeerAnswer)> {
        let round = self.round;
        let mut answers = self.answers.try_iter();
        answers
            .find(|(of, _, _)| *of == round)
            .map(|(_, peer, answer)| (peer, answer))
    }
}

fn ask(address: &str, greeting: Greeting, membership: &Membership) -> Option<PeerAnswer> {
    let mut stream = transport::connect_blocking(address, PATIENCE, membership).ok()?;
    stream.set_timeout(PATIENCE).ok()?;
    let mut bytes = Vec::new();
    let ask = Message::Ask {
        protocol: PROTOCOL_VERSION,
        greeting,
    };
    MessageWriter::default().write(&mut bytes, &ask);
    stream.write_all(&bytes).ok()?;
    let mut reader = MessageReader::new();
    let mut buffer = [0; 4096];
    let until = monotonic() + PATIENCE;
    while monotonic() < until {
        let length = stream.read(&mut buffer).ok()?;
        if length == 0 {
            return None;
        }
        reader.push(&buffer[..length]);
        match reader.next_message().ok()? {
            Some(Message::Standing(standing)) => return Some(PeerAnswer::Standing(standing)),
            Some(_) => return None,
            None => {}
        }
    }
    None
}
