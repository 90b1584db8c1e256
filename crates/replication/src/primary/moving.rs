//! Moving the life to another arbiter while the machine runs. `docs/protocol.md`, "Another arbiter".

use super::member::Member;
use super::{Primary, PrimaryAction, State};
use crate::message::Message;
use crate::succession::{
    ArrivalId, Destination, Generation, Key, Kind, LifeNumber, Outcome, Request, arrival_content,
    parse_arrival,
};
use crate::watch::beacon_content;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long everything before the key may take: each question to the new arbiter, and what the members say.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is being found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The new arbiter gets the machine's arrival key, unless it has one.
    CreateArrival,
    ReadArrival,
    /// It has no other machine of this name: its first key is none, or ours.
    ReadFirst,
    /// Nobody has left our generation there.
    ReadNext,
    WriteBeacon,
    /// The members look.
    Members,
    /// The old arbiter is asked for the key.
    Claiming,
}

/// A move that somebody asked for.
#[derive(Debug)]
pub(super) struct Moving {
    address: String,
    nonce: u128,
    /// For an arrival key, if there is none.
    proposed: ArrivalId,
    arrival: ArrivalId,
    /// What the first key of the machine holds at the old arbiter, once it was read.
    first: Option<Outcome>,
    /// In this generation, with these pairings.
    generation: Generation,
    pairings: BTreeSet<u64>,
    step: Step,
    asked: Option<Request>,
    /// Who has not said yet that it sees the new arbiter.
    waiting: BTreeSet<u64>,
    until: Duration,
}

impl Moving {
    fn request(&self, machine_key: &Key, next: Key, beacon: Request) -> Option<Request> {
        let elsewhere = |request| Request::Elsewhere {
            address: self.address.clone(),
            request: Box::new(request),
        };
        let arrival = Key::arrival(&machine_key.machine);
        let first = Key::power_on(&machine_key.machine, LifeNumber(1));
        Some(match self.step {
            Step::CreateArrival => elsewhere(Request::Create {
                content: arrival_content(&machine_key.machine, self.proposed),
                key: arrival,
                after: None,
            }),
            Step::ReadArrival => elsewhere(Request::Read { key: arrival }),
            Step::ReadFirst if self.first.is_none() => Request::Read { key: first },
            Step::ReadFirst => elsewhere(Request::Read { key: first }),
            Step::ReadNext => elsewhere(Request::Read { key: next }),
            Step::WriteBeacon => elsewhere(beacon),
            Step::Members | Step::Claiming => return None,
        })
    }

    /// What the answer leads to, or why the move is not made.
    fn answered(&mut self, outcome: &Outcome) -> Result<(), String> {
        let address = &self.address;
        let trouble = |why: &str| Err(format!("{address}: {why}"));
        match (self.step, outcome) {
            (_, Outcome::Unknown(why)) => return trouble(why),
            (Step::CreateArrival, Outcome::Created | Outcome::NotCreated) => {
                self.step = Step::ReadArrival;
            }
            (Step::ReadArrival, Outcome::Holds(content)) => {
                let key = self.asked_key();
                match key.and_then(|key| parse_arrival(&key, content)) {
                    Some(arrival) => self.arrival = arrival,
                    None => return trouble("its arrival key holds something else"),
                }
                self.step = Step::ReadFirst;
            }
            (Step::ReadFirst, outcome) => match &self.first {
                None => self.first = Some(outcome.clone()),
                Some(first) if *outcome == Outcome::Absent || outcome == first => {
                    self.step = Step::ReadNext;
                }
                Some(_) => {
                    return trouble(
                        "it has the keys of another machine of this name: choose another prefix, \
                         directory or bucket",
                    );
                }
            },
            (Step::ReadNext, Outcome::Absent) => self.step = Step::WriteBeacon,
            (Step::ReadNext, Outcome::Holds(_)) => {
                return trouble("it has a key by which this generation was left already");
            }
            (Step::WriteBeacon, Outcome::Written) => self.step = Step::Members,
            (_, other) => return trouble(&format!("{other:?} is no answer to what it was asked")),
        }
        Ok(())
    }

    fn asked_key(&self) -> Option<Key> {
        match self.asked.as_ref()? {
            Request::Elsewhere { request, .. } => match &**request {
                Request::Read { key } => Some(key.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    fn destination(&self) -> Destination {
        Destination {
            address: self.address.clone(),
            arrival: self.arrival,
        }
    }
}

impl<O> Primary<O> {
    /// A person wants the life to go on at another arbiter. `nonce`: random, never used before. What comes
    /// of it is told by [`PrimaryAction::ArbiterMoved`], exactly once, unless
    /// [`PrimaryAction::Stop`] comes before.
    pub fn move_arbiter(&mut self, now: Duration, address: String, nonce: u128) {
        self.enter(now);
        match self.obstacle_to_moving(&address) {
            Some(why) => self.not_moved(why),
            None => {
                let pairings: BTreeSet<u64> = self.members.iter().map(Member::pairing).collect();
                self.moving = Some(Moving {
                    address,
                    nonce,
                    proposed: ArrivalId(nonce),
                    arrival: ArrivalId(nonce),
                    first: None,
                    generation: self.generation(),
                    waiting: pairings.clone(),
                    pairings,
                    step: Step::CreateArrival,
                    asked: None,
                    until: now + PATIENCE,
                });
            }
        }
        self.maintain(now);
    }

    fn obstacle_to_moving(&self, address: &str) -> Option<String> {
        let is_quiet = matches!(self.state, State::Running { .. })
            && self.leaving.is_none()
            && self.lost.is_empty()
            && !self.stands_still
            && !self.finishing
            && !self.disk_failed
            && !self.somebody_is_about_to_begin();
        if self.moving.is_some() {
            Some("it is being moved already".into())
        } else if !Destination::is_address(address) {
            Some("its address is too long, or has control characters".into())
        } else if !is_quiet || !self.members.iter().all(Member::protects) {
            Some("somebody is joining or leaving just now: ask again in a moment".into())
        } else {
            None
        }
    }

    fn not_moved(&mut self, why: String) {
        self.moving = None;
        let result = Err(why);
        self.actions.push_back(PrimaryAction::ArbiterMoved(result));
    }

    /// What is to be asked for the move, when nothing else is.
    pub(super) fn poll_moving(&mut self) -> Option<Request> {
        let own = self.config.greeting.host.id;
        let beacon = self.config.beacon(own);
        let moving = self.moving.as_mut().filter(|open| open.asked.is_none())?;
        let content = beacon_content(&beacon, &BTreeMap::from([(own, moving.nonce)]));
        let beacon = Request::WriteBeacon { beacon, content };
        let request = moving.request(&self.opened.key, self.opened.next_key(), beacon)?;
        moving.asked = Some(request.clone());
        Some(request)
    }

    /// An answer that may be one to what [`Primary::poll_moving`] asked.
    pub(super) fn moving_answered(&mut self, request: &Request, outcome: &Outcome) {
        let Some(moving) = &mut self.moving else {
            return;
        };
        if moving.asked.as_ref() != Some(request) {
            return;
        }
        let result = moving.answered(outcome);
        moving.asked = None;
        match result {
            Err(why) => self.not_moved(why),
            Ok(()) if moving.step == Step::Members => self.ask_members(),
            Ok(()) => {}
        }
    }

    fn ask_members(&mut self) {
        let Some(moving) = &self.moving else { return };
        let (to, nonce) = (moving.destination(), moving.nonce);
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let (connection, pairing) = (member.connection(), member.pairing());
            let to = to.clone();
            self.send(connection, Message::MoveTo { pairing, to, nonce });
        }
    }

    /// A member says whether it sees the new arbiter.
    pub(super) fn member_sees(&mut self, index: usize, nonce: u128, trouble: &str) {
        let member = &self.members[index];
        let (pairing, node) = (member.pairing(), member.host().node().to_owned());
        let Some(moving) = &mut self.moving else {
            return;
        };
        if moving.step != Step::Members || moving.nonce != nonce {
            return;
        }
        if trouble.is_empty() {
            moving.waiting.remove(&pairing);
        } else {
            self.not_moved(format!("{node}: {trouble}"));
        }
    }

    /// Goes on to the key when everybody sees the new arbiter; ends what is no longer what it was.
    pub(super) fn maintain_moving(&mut self, now: Duration) {
        let generation = self.generation();
        let pairings = self.members.iter().map(Member::pairing);
        let pairings: BTreeSet<u64> = pairings.collect();
        let Some(moving) = &self.moving else { return };
        if moving.step == Step::Claiming {
            // What was asked once may land at any time: it is won or lost.
            return;
        }
        let is_changed = generation != moving.generation
            || pairings != moving.pairings
            || self.leaving.is_some()
            || self.stands_still
            || self.finishing
            || self.disk_failed
            || self.somebody_is_about_to_begin();
        if is_changed {
            return self.not_moved(
                "somebody came, went or took over meanwhile: nothing was moved; ask again".into(),
            );
        }
        if now >= moving.until {
            return self.not_moved(match moving.step {
                Step::Members => "not every backup has said in time that it sees it".into(),
                _ => format!("{}: it does not answer in time", moving.address),
            });
        }
        if moving.step == Step::Members && moving.waiting.is_empty() {
            let to = moving.destination();
            self.claim_move(now, to);
        }
    }

    fn claim_move(&mut self, now: Duration, to: Destination) {
        let record = self.log.last().next();
        let entry = self.opened.moved(self.config.writer(), record, to);
        if let Some(moving) = &mut self.moving {
            moving.step = Step::Claiming;
        }
        self.leave_by(now, entry);
    }

    /// The key is there by which the life has moved.
    pub(super) fn moved(&mut self) {
        assert!(self.opened.kind == Kind::Moved, "it moves by its key");
        self.moving = None;
        self.tell_generation();
        self.actions.push_back(PrimaryAction::ArbiterMoved(Ok(())));
    }

    /// When the move is waited for no longer.
    pub(super) fn moving_deadline(&self) -> Option<Duration> {
        let moving = self.moving.as_ref();
        let moving = moving.filter(|moving| moving.step != Step::Claiming);
        moving.map(|moving| moving.until)
    }
}
