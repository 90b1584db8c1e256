//! One attempt to leave a generation, from the question to the verdict.

use super::entry::Entry;
use super::names::Generation;
use super::store::{Key, Outcome, Request};
use crate::mutation::{Mutation, Mutations};
use std::time::Duration;

/// How long to wait between requests that got no useful answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPacing {
    /// After the first.
    pub first: Duration,
    /// At most; each wait is twice the one before.
    pub longest: Duration,
}

impl Default for ClaimPacing {
    fn default() -> ClaimPacing {
        ClaimPacing {
            first: Duration::from_millis(50),
            longest: Duration::from_secs(1),
        }
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet.
    Pending,
    /// The key holds what we wrote.
    Won,
    /// It holds this, which somebody else wrote.
    Lost(Box<Entry>),
}

/// When to ask what next, and how patient to be.
#[derive(Debug)]
pub(super) struct Pacer<S> {
    next: Option<(S, Duration)>,
    /// The request whose answer is awaited.
    asked: Option<Request>,
    wait: Duration,
    pacing: ClaimPacing,
    /// Requests that brought nothing.
    pub unanswered: u32,
    /// What the last of them said.
    pub trouble: String,
}

impl<S> Pacer<S> {
    pub fn new(now: Duration, step: S, pacing: ClaimPacing) -> Pacer<S> {
        Pacer {
            next: Some((step, now)),
            asked: None,
            wait: pacing.first,
            pacing,
            unanswered: 0,
            trouble: String::new(),
        }
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.next.as_ref().map(|(_, at)| *at)
    }

    pub fn take_due(&mut self, now: Duration) -> Option<S> {
        self.next
            .take_if(|(_, at)| *at <= now)
            .map(|(step, _)| step)
    }

    pub fn ask(&mut self, request: Request) -> Request {
        assert!(self.next.is_none(), "one request is under way at a time");
        self.asked = Some(request.clone());
        request
    }

    pub fn awaits(&self, request: &Request) -> bool {
        self.asked.as_ref() == Some(request)
    }

    /// Whether an answer to `request` is awaited; from here on it is not. An answer to anything else
    /// says nothing, not even when it is about the same key.
    pub fn take_asked(&mut self, request: &Request) -> bool {
        self.asked.take_if(|asked| asked == request).is_some()
    }

    pub fn at_once(&mut self, now: Duration, step: S) {
        self.next = Some((step, now));
    }

    pub fn after_pause(&mut self, now: Duration, step: S) {
        self.next = Some((step, now + self.wait));
        self.wait = (self.wait * 2).min(self.pacing.longest);
    }

    pub fn failed(&mut self, why: String) {
        self.unanswered += 1;
        self.trouble = why;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    ReadBack,
}

/// Asks until the key is ours or somebody else's. One request is under way at a time, and a claim
/// is never given up: what was asked once may land at any time.
///
/// The store is asked to create the key only after the one of the generation before. A store that does
/// not have that one is another, or was emptied (a mount point without its mount): there everybody
/// would win.
#[derive(Debug)]
pub struct Claim {
    entry: Entry,
    after: Option<Key>,
    content: Vec<u8>,
    pacer: Pacer<Step>,
    asked: Step,
    /// The store would not create the key, and why; it was not asked anything since.
    refused: Option<String>,
    mutations: Mutations,
}

impl Claim {
    /// A claim of `entry`'s key. Whoever claims must not claim the same key with anything else.
    /// `after`: for a key that powers on, the last one of the life before.
    pub fn new(
        now: Duration,
        entry: Entry,
        after: Option<Key>,
        pacing: ClaimPacing,
        mutations: Mutations,
    ) -> Claim {
        Claim {
            content: entry.content(),
            after,
            entry,
            pacer: Pacer::new(now, Step::Create, pacing),
            asked: Step::Create,
            refused: None,
            mutations,
        }
    }

    /// Which key.
    pub fn key(&self) -> &Key {
        &self.entry.key
    }

    /// What the key holds if the claim is won.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether this claim waits for the answer to `request`: that to anything else says nothing of it.
    pub fn awaits(&self, request: &Request) -> bool {
        self.pacer.awaits(request)
    }

    /// Requests that brought no verdict.
    pub fn unanswered(&self) -> u32 {
        self.pacer.unanswered
    }

    /// What the last request said that brought nothing, if there was one since `before`.
    pub fn trouble_since(&self, before: u32) -> Option<String> {
        (self.pacer.unanswered > before).then(|| self.pacer.trouble.clone())
    }

    /// Requests that brought no verdict, and what the last of them said.
    pub fn trouble(&self) -> Option<(u32, &str)> {
        let Pacer {
            unanswered,
            trouble,
            ..
        } = &self.pacer;
        (*unanswered > 0).then_some((*unanswered, trouble))
    }

    /// When [`poll`](Self::poll) has something to ask; `None` while an answer is awaited.
    pub fn deadline(&self) -> Option<Duration> {
        self.pacer.deadline()
    }

    /// What to ask now.
    pub fn poll(&mut self, now: Duration) -> Option<Request> {
        self.asked = self.pacer.take_due(now)?;
        let key = self.entry.key.clone();
        Some(self.pacer.ask(match self.asked {
            Step::Create => Request::Create {
                after: self.key_before(),
                key,
                content: self.content.clone(),
            },
            Step::ReadBack => Request::Read { key },
        }))
    }

    fn key_before(&self) -> Option<Key> {
        if self.mutations.active(Mutation::KeyBeforeNotRequired) {
            return None;
        }
        let key = &self.entry.key;
        match key.generation.0.checked_sub(1) {
            Some(before) => Some(key.of(Generation(before))),
            None => self.after.clone(),
        }
    }

    /// On anything but plain success the key is read back: ours, won; another's, lost; absent, ask
    /// again; anything that nobody would have written, read again.
    pub fn answer(&mut self, now: Duration, request: &Request, outcome: &Outcome) -> Verdict {
        if !self.pacer.take_asked(request) {
            return Verdict::Pending;
        }
        let refused = self.refused.take();
        match (outcome, self.asked) {
            (Outcome::Created, Step::Create) => return Verdict::Won,
            _ if self.mutations.active(Mutation::LostAnswerIsDefeat) => {
                return Verdict::Lost(Box::new(self.entry.clone()));
            }
            (Outcome::Holds(content), Step::ReadBack) => {
                match Entry::parse(&self.entry.key, content) {
                    _ if *content == self.content => return Verdict::Won,
                    Ok(entry) => return Verdict::Lost(Box::new(entry)),
                    Err(_) if self.mutations.active(Mutation::TornKeyIsDefeat) => {
                        return Verdict::Lost(Box::new(self.entry.clone()));
                    }
                    Err(error) => {
                        self.pacer
                            .failed(format!("the key cannot be read: {error}"));
                        self.pacer.after_pause(now, Step::ReadBack);
                    }
                }
            }
            // A key that exists was perhaps created by a request of ours whose answer got lost.
            (Outcome::NotCreated, Step::Create) => self.pacer.at_once(now, Step::ReadBack),
            (Outcome::Unknown(why), Step::Create) => {
                self.pacer.failed(why.clone());
                self.refused = Some(why.clone());
                self.pacer.at_once(now, Step::ReadBack);
            }
            (Outcome::Absent, Step::ReadBack) => {
                // That the key is not there is what was to be expected: the trouble goes on.
                if let Some(why) = refused {
                    self.pacer.failed(why);
                }
                self.pacer.after_pause(now, Step::Create);
            }
            (Outcome::Unknown(why), Step::ReadBack) => {
                self.pacer.failed(why.clone());
                self.pacer.after_pause(now, Step::ReadBack);
            }
            (other, step) => {
                self.pacer
                    .failed(format!("{other:?} is no answer to {step:?}"));
                self.pacer.after_pause(now, Step::ReadBack);
            }
        }
        Verdict::Pending
    }
}
