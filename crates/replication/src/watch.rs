//! Looks at the arbiter while all is well: is it there, is it the same on both sides, and did
//! somebody leave our generation? `docs/protocol.md`, "The same arbiter".

use crate::event::Event;
use crate::line::{LineReader, LineWriter, parse_identity};
use crate::message::Message;
use crate::succession::{BeaconName, Entry, HostId, MAX_MEMBERS, Outcome, Request};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What is known about the two sides' arbiters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agreement {
    /// Nothing yet.
    #[default]
    Unknown,
    /// What one wrote the other read.
    Agreed,
    /// What one wrote the other did not find: two arbiters.
    Differs,
    /// One of them cannot reach it.
    Unreachable,
}

impl Agreement {
    /// What is wrong with the arbiters, for people; nothing while that is not known.
    pub fn trouble(self) -> Option<&'static str> {
        match self {
            Agreement::Unknown | Agreement::Agreed => None,
            Agreement::Differs => Some("the two hosts of a pair do not see the same one"),
            Agreement::Unreachable => {
                Some("one of the two hosts of a pair cannot reach it, or it is not what it was")
            }
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Agreement::Unknown => "not yet looked at",
            Agreement::Agreed => "the same on both hosts",
            Agreement::Differs => "NOT the same on both hosts",
            Agreement::Unreachable => "out of reach",
        })
    }
}

/// What a look at the key of our own generation said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing that was asked.
    None,
    /// As it should be.
    Well,
    /// Somebody left our generation.
    LeftBy(Box<Entry>),
    /// No useful answer.
    Unanswered(String),
}

impl Look {
    /// What is wrong, for people.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Look::None | Look::Well => None,
            Look::LeftBy(by) => Some(format!("somebody else has left this generation: {by}")),
            Look::Unanswered(why) => Some(why.clone()),
        }
    }
}

/// Reads two keys in turn, again and again: the one that opened our generation must be there, the one
/// of leaving it must not.
#[derive(Debug)]
pub(crate) struct KeyWatch {
    interval: Duration,
    due: Duration,
    /// Which of the two is next.
    opening_next: bool,
    /// The key that opened our generation was there when it was looked at last.
    opening_is_there: bool,
    asked: Option<Request>,
    asked_at: Duration,
    /// When it was asked last whether somebody left our generation, and nobody had.
    confirmed_at: Option<Duration>,
    fresh: Fresh,
}

/// A look that somebody waits for: nothing that was asked before tells how it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    NotWanted,
    /// It is asked when what is under way is answered.
    Wanted,
    Asked,
}

impl KeyWatch {
    pub fn new(now: Duration, interval: Duration) -> KeyWatch {
        KeyWatch {
            interval,
            due: now + interval,
            opening_next: true,
            opening_is_there: true,
            asked: None,
            asked_at: now,
            confirmed_at: None,
            fresh: Fresh::NotWanted,
        }
    }

    /// The generation was left by ourselves: what was asked about it says nothing any more.
    pub fn restart(&mut self, now: Duration) {
        self.asked = None;
        self.due = now + self.interval;
        if self.fresh != Fresh::NotWanted {
            self.look_afresh(now);
        }
    }

    /// Somebody wants to know how it is now.
    pub fn look_afresh(&mut self, now: Duration) {
        self.fresh = Fresh::Wanted;
        self.due = now;
    }

    /// Whether this answer, about to be given to [`KeyWatch::answer`], is that of the fresh look.
    pub fn is_fresh(&self, request: &Request) -> bool {
        self.fresh == Fresh::Asked && self.asked.as_ref() == Some(request)
    }

    /// A moment at which nobody had left our generation, as an answer said since.
    pub fn confirmed_at(&self) -> Option<Duration> {
        self.confirmed_at
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.asked.is_none().then_some(self.due)
    }

    /// `opened`: the key that opened our generation.
    pub fn poll(&mut self, now: Duration, opened: &Entry) -> Option<Request> {
        if self.asked.is_some() || now < self.due {
            return None;
        }
        if self.fresh == Fresh::Wanted {
            // An emptied store has no key by which somebody left, either: this one it must have.
            self.opening_next = true;
            self.fresh = Fresh::Asked;
        }
        let key = if self.opening_next {
            opened.key.clone()
        } else {
            opened.next_key()
        };
        self.opening_next = !self.opening_next;
        let request = Request::Read { key };
        self.asked = Some(request.clone());
        self.asked_at = now;
        Some(request)
    }

    pub fn answer(
        &mut self,
        now: Duration,
        opened: &Entry,
        request: &Request,
        outcome: &Outcome,
    ) -> Look {
        if self.asked.take_if(|asked| asked == request).is_none() {
            return Look::None;
        }
        self.due = now + self.interval;
        match self.fresh {
            Fresh::NotWanted => {}
            Fresh::Wanted => self.due = now,
            Fresh::Asked => self.fresh = Fresh::NotWanted,
        }
        let Request::Read { key } = request else {
            return Look::None;
        };
        let is_opening = *key == opened.key;
        let is_well = match outcome {
            Outcome::Absent => !is_opening,
            Outcome::Holds(content) => is_opening && *content == opened.content(),
            _ => false,
        };
        if is_opening {
            self.opening_is_there = is_well;
        }
        match outcome {
            // A store that was emptied has no key by which somebody left, either.
            _ if is_well && !self.opening_is_there => Look::None,
            _ if is_well => {
                if !is_opening {
                    self.confirmed_at = Some(self.asked_at);
                }
                Look::Well
            }
            Outcome::Absent => Look::Unanswered(key.missing()),
            Outcome::Holds(content) => match Entry::parse(key, content) {
                Ok(entry) if !is_opening => Look::LeftBy(Box::new(entry)),
                Ok(entry) => Look::Unanswered(format!("it is another life's arbiter: {entry}")),
                Err(error) => Look::Unanswered(format!("a key cannot be read: {error}")),
            },
            Outcome::Unknown(why) => Look::Unanswered(why.clone()),
            other => Look::Unanswered(format!("{other:?} is no answer to reading a key")),
        }
    }
}

/// The arbiter gives no useful answer: told at the first such answer, then at growing distances,
/// however long it lasts; and its end is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outage {
    began: Option<Began>,
}

#[derive(Clone, Debug)]
struct Began {
    since: Duration,
    /// What the newest such answer said.
    why: String,
    requests: u32,
    tell_next: Duration,
    spacing: Duration,
}

/// How long after the first word about an outage comes the second; each distance is twice the last.
const FIRST_SPACING: Duration = Duration::from_secs(10);
/// But no longer than this.
const LONGEST_SPACING: Duration = Duration::from_secs(3600);

impl Outage {
    /// Why the arbiter is of no use now, if it is not.
    pub fn why(&self) -> Option<&str> {
        self.began.as_ref().map(|began| &*began.why)
    }

    /// A request was answered, or brought nothing for this reason. What people should know.
    pub fn asked(&mut self, now: Duration, trouble: Option<String>) -> Option<Event> {
        let Some(why) = trouble else {
            let began = self.began.take()?;
            return Some(Event::ArbiterAnswers {
                requests: began.requests,
                outage: now.saturating_sub(began.since),
            });
        };
        let began = self.began.get_or_insert(Began {
            since: now,
            why: String::new(),
            requests: 0,
            tell_next: now,
            spacing: FIRST_SPACING,
        });
        began.why.clone_from(&why);
        began.requests += 1;
        if now < began.tell_next {
            return None;
        }
        began.tell_next = now + began.spacing;
        began.spacing = (began.spacing * 2).min(LONGEST_SPACING);
        Some(Event::ArbiterUnanswered {
            requests: began.requests,
            why,
        })
    }
}

pub(crate) fn beacon_content(beacon: &BeaconName, nonces: &BTreeMap<HostId, u128>) -> Vec<u8> {
    let nonces: Vec<String> = nonces.values().map(|n| format!("{n:032x}")).collect();
    LineWriter::new("understudy-beacon", 1)
        .field("machine", &beacon.machine)
        .field("host", beacon.host)
        .field("nonce", nonces.join(","))
        .finish()
}

/// Whether the beacon holds `nonce`.
pub(crate) fn beacon_holds(beacon: &BeaconName, content: &[u8], nonce: u128) -> bool {
    let nonces = || {
        let mut line = LineReader::open(content, "understudy-beacon", 1).ok()?;
        let machine = line.field("machine").ok()?;
        let host = line.identity("host").ok()?;
        let nonces = line.field("nonce").ok()?;
        (machine == beacon.machine.as_str() && host == beacon.host.0).then_some(nonces)
    };
    let of = |nonces: &str| nonces.split(',').any(|n| parse_identity(n) == Some(nonce));
    nonces().is_some_and(of)
}

/// The primary's half: writes into its beacon what it is challenged with, the newest of each member.
#[derive(Debug)]
pub(crate) struct BeaconWriter {
    beacon: BeaconName,
    newest: BTreeMap<HostId, u128>,
    /// Who challenged since the last write was asked for.
    waiting: BTreeMap<HostId, u128>,
    asked: Option<(Request, BTreeMap<HostId, u128>)>,
}

impl BeaconWriter {
    pub fn new(beacon: BeaconName) -> BeaconWriter {
        BeaconWriter {
            beacon,
            newest: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asked: None,
        }
    }

    pub fn challenge(&mut self, member: HostId, nonce: u128) {
        self.waiting.insert(member, nonce);
    }

    pub fn poll(&mut self) -> Option<Request> {
        if self.asked.is_some() || self.waiting.is_empty() {
            return None;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.newest.extend(&waiting);
        if self.newest.len() > MAX_MEMBERS {
            // Members came and went: who is still there challenges again.
            self.newest = waiting.clone();
        }
        let request = Request::WriteBeacon {
            beacon: self.beacon.clone(),
            content: beacon_content(&self.beacon, &self.newest),
        };
        self.asked = Some((request.clone(), waiting));
        Some(request)
    }

    /// The challenges that are met by now.
    pub fn answer(&mut self, request: &Request, outcome: &Outcome) -> BTreeMap<HostId, u128> {
        let asked = self.asked.take_if(|(asked, _)| asked == request);
        match asked {
            Some((_, challenges)) if *outcome == Outcome::Written => challenges,
            _ => BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
enum Step {
    Resting,
    /// The primary was asked to write.
    Challenged,
    /// Its beacon is being read.
    Reading(Request),
}

/// The backup's half: challenges the primary, and reads what it wrote.
#[derive(Debug)]
pub(crate) struct BeaconReader {
    beacon: BeaconName,
    interval: Duration,
    due: Duration,
    nonce: u128,
    step: Step,
    pub agreement: Agreement,
}

impl BeaconReader {
    /// `nonce`: random, so that no beacon of before can be taken for an answer.
    pub fn new(now: Duration, beacon: BeaconName, nonce: u128, interval: Duration) -> BeaconReader {
        BeaconReader {
            beacon,
            interval,
            due: now,
            nonce,
            step: Step::Resting,
            agreement: Agreement::Unknown,
        }
    }

    /// The arbiter is another one from here on: what was asked of the one before says nothing.
    pub fn restart(&mut self, now: Duration) {
        self.step = Step::Resting;
        self.agreement = Agreement::Unknown;
        self.due = now;
    }

    /// A challenge or a read may be due; while one is under way this is how long it may take.
    pub fn deadline(&self) -> Option<Duration> {
        match self.step {
            Step::Resting | Step::Challenged => Some(self.due),
            Step::Reading(_) => None,
        }
    }

    /// The challenge to send, if one is due. A primary that did not meet the last one cannot reach
    /// its arbiter.
    pub fn poll(&mut self, now: Duration, pairing: u64) -> Option<Message> {
        if now < self.due || matches!(self.step, Step::Reading(_)) {
            return None;
        }
        if matches!(self.step, Step::Challenged) {
            self.agreement = Agreement::Unreachable;
        }
        self.nonce = self.nonce.wrapping_add(1);
        self.step = Step::Challenged;
        self.due = now + self.interval;
        Some(Message::Challenge {
            pairing,
            nonce: self.nonce,
            agreement: self.agreement,
        })
    }

    /// The primary says that it wrote.
    pub fn met(&mut self, nonce: u128) -> Option<Request> {
        if nonce != self.nonce || !matches!(self.step, Step::Challenged) {
            return None;
        }
        let beacon = self.beacon.clone();
        let request = Request::ReadBeacon { beacon };
        self.step = Step::Reading(request.clone());
        Some(request)
    }

    pub fn answer(&mut self, request: &Request, outcome: &Outcome) {
        if !matches!(&self.step, Step::Reading(asked) if asked == request) {
            return;
        }
        self.step = Step::Resting;
        self.agreement = match outcome {
            Outcome::Holds(content) if beacon_holds(&self.beacon, content, self.nonce) => {
                Agreement::Agreed
            }
            Outcome::Holds(_) | Outcome::Absent => Agreement::Differs,
            _ => Agreement::Unreachable,
        };
    }
}
