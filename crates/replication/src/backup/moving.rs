//! A member's part when the life moves to another arbiter. `docs/protocol.md`, "Another arbiter".

use super::{Backup, BackupAction, State};
use crate::message::Message;
use crate::succession::{
    BeaconName, Destination, Entry, Key, Kind, Outcome, Request, parse_arrival,
};
use crate::watch::beacon_holds;
use std::time::Duration;

/// A look at the arbiter to which the primary wants to move: is it the one in which the primary has just
/// written?
#[derive(Debug)]
pub(super) struct Look {
    to: Destination,
    nonce: u128,
    arrival: Key,
    beacon: BeaconName,
    asked: Request,
}

impl Look {
    fn elsewhere(to: &Destination, request: Request) -> Request {
        Request::Elsewhere {
            address: to.address.clone(),
            request: Box::new(request),
        }
    }

    /// What is asked first.
    fn new(to: Destination, nonce: u128, beacon: BeaconName) -> Look {
        let arrival = Key::arrival(&beacon.machine);
        let key = arrival.clone();
        let asked = Look::elsewhere(&to, Request::Read { key });
        Look {
            to,
            nonce,
            arrival,
            beacon,
            asked,
        }
    }

    /// What is to be asked next; or the end, and what is wrong if something is.
    fn answered(&mut self, outcome: &Outcome) -> Result<Request, String> {
        let address = &self.to.address;
        let asked_for_beacon = matches!(&self.asked, Request::Elsewhere { request, .. }
            if matches!(**request, Request::ReadBeacon { .. }));
        let other = Err(format!(
            "{address} is not the arbiter that the live host sees under this name"
        ));
        match outcome {
            Outcome::Holds(content) if asked_for_beacon => {
                match beacon_holds(&self.beacon, content, self.nonce) {
                    true => Err(String::new()),
                    false => other,
                }
            }
            Outcome::Holds(content)
                if parse_arrival(&self.arrival, content) == Some(self.to.arrival) =>
            {
                let beacon = self.beacon.clone();
                self.asked = Look::elsewhere(&self.to, Request::ReadBeacon { beacon });
                Ok(self.asked.clone())
            }
            Outcome::Unknown(why) => Err(format!("{address}: {why}")),
            _ => other,
        }
    }
}

impl<O> Backup<O> {
    /// The primary asks whether this host sees another arbiter.
    pub(super) fn asked_to_look(
        &mut self,
        to: Destination,
        nonce: u128,
    ) -> Result<(), &'static str> {
        let State::Following(follow) = &self.state else {
            return Ok(());
        };
        if !follow.has_begun() {
            return Err("another arbiter is for members to see");
        }
        let beacon = self.config.beacon(follow.opened().membership().primary.id);
        let look = Look::new(to, nonce, beacon);
        self.actions
            .push_back(BackupAction::Ask(look.asked.clone()));
        self.look = Some(look);
        Ok(())
    }

    /// An answer that may be one to what is asked there.
    pub(super) fn look_answered(&mut self, request: &Request, outcome: &Outcome) {
        if let (Request::Read { key }, Outcome::Holds(_)) = (request, outcome) {
            self.unread_move.take_if(|unread| unread == key);
        }
        let Some(look) = self.look.as_mut().filter(|look| look.asked == *request) else {
            return;
        };
        let (nonce, next) = (look.nonce, look.answered(outcome));
        match next {
            Ok(request) => self.actions.push_back(BackupAction::Ask(request)),
            Err(trouble) => {
                self.look = None;
                if let State::Following(follow) = &self.state {
                    let (connection, pairing) = (follow.connection(), follow.pairing());
                    let sees = Message::Sees {
                        pairing,
                        nonce,
                        trouble,
                    };
                    self.send(connection, sees);
                }
            }
        }
    }

    /// This replica is in the generation that `by` opened. If the life has moved by it, the key is read
    /// once: whoever leads to the arbiters follows what it reads.
    pub(super) fn arbiter_may_be_another(&mut self, now: Duration, by: &Entry) {
        if by.kind != Kind::Moved {
            return;
        }
        if let State::Following(follow) = &mut self.state {
            follow.look_at_beacons_anew(now);
        }
        self.unread_move = Some(by.key.clone());
        self.read_move();
    }

    /// Reads the key by which the life moved, if it was not read yet: now, and as often as it is looked
    /// whether the arbiter is the primary's.
    pub(super) fn read_move(&mut self) {
        if let Some(key) = self.unread_move.clone() {
            let request = Request::Read { key };
            self.actions.push_back(BackupAction::Ask(request));
        }
    }
}
