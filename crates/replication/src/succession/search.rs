//! Finds the newest key of a machine by reads of single keys.
//!
//! A key exists only if all before it do, so galloping finds the last one in a number of reads that
//! grows with the logarithm of the distance from where it begins.

use super::claim::{ClaimPacing, Pacer};
use super::entry::{Entry, Kind};
use super::names::{Generation, LifeNumber, MachineName};
use super::store::{Key, Outcome, Request};
use std::time::Duration;

/// The newest key: what followed it was absent when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newest {
    /// There never was a life.
    NoLife,
    /// This key is the last.
    Key(Box<Entry>),
}

/// What came of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchVerdict {
    /// Not known yet.
    Pending,
    /// Found.
    Found(Newest),
}

/// Between a number whose key exists and one whose key does not.
#[derive(Clone, Copy, Debug)]
struct Gallop {
    /// The largest that exists.
    present: u64,
    /// The smallest that does not.
    absent: Option<u64>,
    stride: u64,
    /// Where to look first.
    guess: u64,
}

impl Gallop {
    fn new(present: u64, guess: u64) -> Gallop {
        Gallop {
            present,
            absent: None,
            stride: 1,
            guess,
        }
    }

    /// The next to look at; `None` when the border is found.
    fn next(&self) -> Option<u64> {
        match self.absent {
            Some(absent) if absent == self.present + 1 => None,
            Some(absent) => Some(self.present + (absent - self.present) / 2),
            None if self.guess > self.present => Some(self.guess),
            None => Some(self.present.saturating_add(self.stride)),
        }
    }

    fn found(&mut self, number: u64, exists: bool) {
        if exists {
            assert!(number > self.present, "it looks only above what exists");
            self.present = number;
            self.stride = self.stride.saturating_mul(2);
        } else {
            assert!(
                number > self.present,
                "a key exists only if all before it do"
            );
            self.absent = Some(number);
        }
    }
}

#[derive(Debug)]
enum Phase {
    Life(Gallop),
    Generation(LifeNumber, Gallop),
}

/// The search, as a state machine. One request is under way at a time.
#[derive(Debug)]
pub struct Search {
    machine: MachineName,
    guess: (LifeNumber, Generation),
    phase: Phase,
    /// What the largest existing key holds, if it makes sense.
    entry: Option<Entry>,
    /// The last key by which the life moved to another arbiter: what was absent before it was read, was
    /// absent at the one before.
    moved: Option<Key>,
    pacer: Pacer<()>,
}

impl Search {
    /// Looks for the newest key of `machine`, first near `guess`, which may be wrong.
    pub fn new(
        now: Duration,
        machine: MachineName,
        guess: (LifeNumber, Generation),
        pacing: ClaimPacing,
    ) -> Search {
        Search {
            machine,
            guess,
            phase: Phase::Life(Gallop::new(0, guess.0.0)),
            entry: None,
            moved: None,
            pacer: Pacer::new(now, (), pacing),
        }
    }

    /// Requests that brought nothing, and what the last of them said.
    pub fn trouble(&self) -> Option<(u32, &str)> {
        (self.pacer.unanswered > 0).then_some((self.pacer.unanswered, self.pacer.trouble.as_str()))
    }

    /// When [`poll`](Self::poll) has something to ask; `None` while an answer is awaited.
    pub fn deadline(&self) -> Option<Duration> {
        self.pacer.deadline()
    }

    /// What to ask now.
    pub fn poll(&mut self, now: Duration) -> Option<Request> {
        self.pacer.take_due(now)?;
        let key = self.key();
        Some(self.pacer.ask(Request::Read { key }))
    }

    /// The key to look at. When the border is found, but the last key made no sense, that again.
    fn key(&self) -> Key {
        let (life, generation) = match &self.phase {
            Phase::Life(gallop) => (gallop.next().unwrap_or(gallop.present), 0),
            Phase::Generation(life, gallop) => (life.0, gallop.next().unwrap_or(gallop.present)),
        };
        assert!(life > 0, "lives are numbered from 1");
        Key {
            machine: self.machine.clone(),
            life: LifeNumber(life),
            generation: Generation(generation),
        }
    }

    /// The answer to the request under way.
    pub fn answer(&mut self, now: Duration, request: &Request, outcome: &Outcome) -> SearchVerdict {
        let Request::Read { key } = request else {
            return SearchVerdict::Pending;
        };
        if !self.pacer.take_asked(request) {
            return SearchVerdict::Pending;
        }
        match outcome {
            Outcome::Holds(content) => {
                let parsed = Entry::parse(key, content);
                if let Err(error) = &parsed {
                    let name = key.object_name();
                    self.pacer
                        .failed(format!("the key {name} cannot be read: {error}"));
                }
                self.entry = parsed.ok();
                let has_moved = matches!(&self.entry, Some(entry) if entry.kind == Kind::Moved);
                if has_moved && self.moved.as_ref() < Some(key) {
                    self.begin_anew(now, key);
                    return SearchVerdict::Pending;
                }
                self.exists(key, true);
            }
            Outcome::Absent => self.exists(key, false),
            Outcome::Unknown(why) => {
                self.pacer.failed(why.clone());
                self.pacer.after_pause(now, ());
                return SearchVerdict::Pending;
            }
            other => {
                self.pacer
                    .failed(format!("{other:?} is no answer to reading a key"));
                self.pacer.after_pause(now, ());
                return SearchVerdict::Pending;
            }
        }
        self.advance(now)
    }

    /// From here on another arbiter is asked, which has all keys from the first one on.
    fn begin_anew(&mut self, now: Duration, moved: &Key) {
        self.moved = Some(moved.clone());
        self.entry = None;
        self.guess = self.guess.max((moved.life, moved.generation));
        self.phase = Phase::Life(Gallop::new(0, self.guess.0.0));
        self.pacer.at_once(now, ());
    }

    fn exists(&mut self, key: &Key, exists: bool) {
        match &mut self.phase {
            // The last key, read again because it made no sense.
            Phase::Generation(_, gallop) if key.generation.0 == gallop.present => {}
            Phase::Life(gallop) => gallop.found(key.life.0, exists),
            Phase::Generation(_, gallop) => gallop.found(key.generation.0, exists),
        }
    }

    fn advance(&mut self, now: Duration) -> SearchVerdict {
        if let Phase::Life(gallop) = &self.phase
            && gallop.next().is_none()
        {
            let life = LifeNumber(gallop.present);
            if life == LifeNumber(0) {
                return SearchVerdict::Found(Newest::NoLife);
            }
            let (guessed, generation) = self.guess;
            let guess = if guessed == life { generation.0 } else { 0 };
            self.phase = Phase::Generation(life, Gallop::new(0, guess));
        }
        match (&self.phase, self.entry.take()) {
            (Phase::Generation(_, gallop), Some(entry)) if gallop.next().is_none() => {
                assert!(
                    entry.key.generation.0 == gallop.present,
                    "the entry is that of the last key"
                );
                SearchVerdict::Found(Newest::Key(Box::new(entry)))
            }
            // Whoever may have written the last key, it is nobody's claim yet: looked at again.
            (Phase::Generation(_, gallop), None) if gallop.next().is_none() => {
                self.pacer.after_pause(now, ());
                SearchVerdict::Pending
            }
            (_, entry) => {
                self.entry = entry;
                self.pacer.at_once(now, ());
                SearchVerdict::Pending
            }
        }
    }
}
