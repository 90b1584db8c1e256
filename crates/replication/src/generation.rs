//! Generations and claims: who may go on alone. `docs/protocol.md`, "Claims".

use crate::event::Event;
use crate::message::LifeId;
use crate::mutation::{Mutation, Mutations};
use std::time::Duration;

/// The arbiter's key for one generation: created at most once, never changed, never removed while
/// the machine lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimKey {
    /// The machine's name.
    pub vm: String,
    /// Its life.
    pub life: LifeId,
    /// The pairing, from 1.
    pub generation: u64,
}

/// What the claimant writes there: who it is. Compared byte by byte, so it is unique to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The node's name.
    pub node: String,
    /// Random, new for each start of the process.
    pub nonce: u128,
}

impl Claimant {
    /// The key's content: one line of text, so that people can read it.
    pub fn content(&self) -> Vec<u8> {
        let node: String = self
            .node
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        format!("claimed by {node} nonce {:032x}\n", self.nonce).into_bytes()
    }
}

/// How a request to the arbiter ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The key did not exist and now holds our content.
    Created,
    /// The store says that it did not create the key (it exists, or a conflict).
    NotCreated,
    /// Read back: the key holds this.
    HeldBy(Vec<u8>),
    /// Read back: there is no such key.
    Absent,
    /// Nobody knows: no answer in time, an error, read-only.
    Unknown(String),
}

/// What to ask the arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimRequest {
    /// Create `key` with `content` if it does not exist.
    Create {
        /// The key.
        key: ClaimKey,
        /// What it shall hold.
        content: Vec<u8>,
    },
    /// Say what `key` holds.
    ReadBack {
        /// The key.
        key: ClaimKey,
    },
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not known yet.
    Pending,
    /// The generation is ours.
    Won,
    /// It is another's; this is what the key holds.
    Lost(Vec<u8>),
}

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

/// So long a claim waits for one of a peer that said that it is making one, or was asked to. Were a
/// backup that had been stopped to ask at once, it could end a primary that is well.
pub(crate) const COURTESY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    ReadBack,
}

/// One claim, from the question to the verdict. One request is under way at a time.
#[derive(Debug)]
pub(crate) struct Claim {
    key: ClaimKey,
    content: Vec<u8>,
    pacing: ClaimPacing,
    wait: Duration,
    /// What to ask next, and when; `None` while an answer is awaited.
    next: Option<(Step, Duration)>,
    asked: Step,
    /// Requests that brought no verdict.
    unanswered: u32,
    outage: Option<Outage>,
    mutations: Mutations,
}

/// The arbiter gives no useful answer, and people were told.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Duration,
    tell_next: Duration,
    spacing: Duration,
}

/// How long after the first word about an outage comes the second; each distance is twice the last.
const FIRST_SPACING: Duration = Duration::from_secs(10);
/// But no longer than this.
const LONGEST_SPACING: Duration = Duration::from_secs(3600);

impl Claim {
    pub fn new(
        now: Duration,
        key: ClaimKey,
        claimant: &Claimant,
        pacing: ClaimPacing,
        mutations: Mutations,
    ) -> Claim {
        assert!(key.generation > 0, "generation 0 is nobody's to claim");
        Claim {
            key,
            content: claimant.content(),
            pacing,
            wait: pacing.first,
            next: Some((Step::Create, now)),
            asked: Step::Create,
            unanswered: 0,
            outage: None,
            mutations,
        }
    }

    pub fn generation(&self) -> u64 {
        self.key.generation
    }

    /// When [`poll`](Self::poll) has something to ask.
    pub fn deadline(&self) -> Option<Duration> {
        self.next.map(|(_, at)| at)
    }

    pub fn poll(&mut self, now: Duration) -> Option<ClaimRequest> {
        let (step, _) = self.next.take_if(|(_, at)| *at <= now)?;
        self.asked = step;
        let key = self.key.clone();
        Some(match step {
            Step::Create => ClaimRequest::Create {
                key,
                content: self.content.clone(),
            },
            Step::ReadBack => ClaimRequest::ReadBack { key },
        })
    }

    /// On anything but plain success the key is read back: ours, won; another's, lost; absent, ask
    /// again.
    pub fn answer(&mut self, now: Duration, outcome: &ClaimOutcome) -> Verdict {
        if self.next.is_some() {
            return Verdict::Pending; // not an answer to anything that is asked
        }
        match outcome {
            ClaimOutcome::Created => return Verdict::Won,
            _ if self.mutations.active(Mutation::LostAnswerIsDefeat) => {
                return Verdict::Lost(Vec::new());
            }
            ClaimOutcome::HeldBy(content) if *content == self.content => return Verdict::Won,
            ClaimOutcome::HeldBy(content) => return Verdict::Lost(content.clone()),
            // A key that exists was perhaps created by a request of ours whose answer got lost.
            ClaimOutcome::NotCreated if self.asked == Step::Create => {
                self.next = Some((Step::ReadBack, now));
            }
            ClaimOutcome::Unknown(_) if self.asked == Step::Create => {
                self.unanswered += 1;
                self.next = Some((Step::ReadBack, now));
            }
            ClaimOutcome::Absent => self.pause(now, Step::Create),
            ClaimOutcome::NotCreated | ClaimOutcome::Unknown(_) => {
                self.unanswered += 1;
                self.pause(now, Step::ReadBack);
            }
        }
        Verdict::Pending
    }

    /// What people should know of an answer that is of no use: at the first one, then at growing
    /// distances, however long the outage lasts.
    pub fn trouble_to_tell(&mut self, now: Duration, outcome: &ClaimOutcome) -> Option<Event> {
        let ClaimOutcome::Unknown(why) = outcome else {
            return None;
        };
        let outage = self.outage.get_or_insert(Outage {
            since: now,
            tell_next: now,
            spacing: FIRST_SPACING,
        });
        if now < outage.tell_next {
            return None;
        }
        outage.tell_next = now + outage.spacing;
        outage.spacing = (outage.spacing * 2).min(LONGEST_SPACING);
        Some(Event::ArbiterUnanswered {
            generation: self.key.generation,
            requests: self.unanswered,
            why: why.clone(),
        })
    }

    /// Whether this answer ends an outage.
    pub fn answers_again(&mut self, now: Duration, outcome: &ClaimOutcome) -> Option<Event> {
        if matches!(outcome, ClaimOutcome::Unknown(_)) {
            return None;
        }
        let outage = self.outage.take()?;
        Some(Event::ArbiterAnswers {
            generation: self.key.generation,
            requests: self.unanswered,
            outage: now.saturating_sub(outage.since),
        })
    }

    fn pause(&mut self, now: Duration, step: Step) {
        self.next = Some((step, now + self.wait));
        self.wait = (self.wait * 2).min(self.pacing.longest);
    }
}
