//! The arbiter: create-only keys, and everything that can go wrong on the way to them.

use replication::generation::{ClaimKey, ClaimOutcome, ClaimRequest};
use std::collections::BTreeMap;

/// How the arbiter and the way to it behave at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Answers within milliseconds.
    Well,
    /// Answers within seconds.
    Slow,
    /// Cannot be reached.
    Unreachable,
    /// Does what it is asked; the answer never comes.
    AnswersLost,
    /// Requests wander about for seconds after the asker gave up, then land.
    LandsLate,
    /// Cannot be written.
    ReadOnly,
}

/// The store.
#[derive(Debug, Default)]
pub struct Arbiter {
    keys: BTreeMap<ClaimKey, Vec<u8>>,
}

impl Arbiter {
    /// What the key holds.
    pub fn holder(&self, key: &ClaimKey) -> Option<&[u8]> {
        self.keys.get(key).map(Vec::as_slice)
    }

    /// Carries a request out.
    pub fn carry_out(&mut self, request: &ClaimRequest) -> ClaimOutcome {
        match request {
            ClaimRequest::Create { key, content } => {
                if self.keys.contains_key(key) {
                    return ClaimOutcome::NotCreated;
                }
                self.keys.insert(key.clone(), content.clone());
                ClaimOutcome::Created
            }
            ClaimRequest::ReadBack { key } => match self.keys.get(key) {
                Some(content) => ClaimOutcome::HeldBy(content.clone()),
                None => ClaimOutcome::Absent,
            },
        }
    }
}
