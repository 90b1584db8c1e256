//! The arbiter: create-only keys and beacons, and everything that can go wrong on the way to them.

use replication::succession::{BeaconName, Entry, Key, Outcome, Request};
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
    /// What is read is not whole yet.
    Torn,
}

/// The store.
#[derive(Debug, Default)]
pub struct Arbiter {
    keys: BTreeMap<Key, Vec<u8>>,
    beacons: BTreeMap<BeaconName, Vec<u8>>,
}

impl Arbiter {
    /// What the key holds.
    pub fn entry(&self, key: &Key) -> Option<Entry> {
        Entry::parse(key, self.keys.get(key)?).ok()
    }

    /// Whether there is such a key, whatever it holds.
    pub fn has(&self, key: &Key) -> bool {
        self.keys.contains_key(key)
    }

    /// The newest key.
    pub fn newest(&self) -> Option<Entry> {
        let (key, content) = self.keys.last_key_value()?;
        Entry::parse(key, content).ok()
    }

    /// Carries a request out.
    pub fn carry_out(&mut self, request: &Request) -> Outcome {
        let found = |content: Option<&Vec<u8>>| match content {
            Some(content) => Outcome::Holds(content.clone()),
            None => Outcome::Absent,
        };
        match request {
            Request::Create {
                key,
                after,
                content,
            } => {
                if let Some(after) = after
                    && !self.keys.contains_key(after)
                {
                    return Outcome::Unknown(after.missing());
                }
                if self.keys.contains_key(key) {
                    return Outcome::NotCreated;
                }
                self.keys.insert(key.clone(), content.clone());
                Outcome::Created
            }
            Request::Read { key } => found(self.keys.get(key)),
            Request::WriteBeacon { beacon, content } => {
                self.beacons.insert(beacon.clone(), content.clone());
                Outcome::Written
            }
            Request::ReadBeacon { beacon } => found(self.beacons.get(beacon)),
            Request::Elsewhere { .. } => Request::knows_no_other(),
        }
    }
}
