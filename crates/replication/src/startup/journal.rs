//! What the journals on this host are worth to a start.

use crate::message::LifeId;
use crate::succession::{JournalId, LifeNumber, RecordNumber};
use std::collections::BTreeMap;

/// A journal that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundJournal {
    /// Of which life.
    pub life: LifeNumber,
    /// That life's identity.
    pub life_id: LifeId,
    /// The last record that it holds.
    pub last: RecordNumber,
}

/// What reading them came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalWorth {
    /// It is not known yet.
    BeingRead,
    /// These are here, each whole, or why no machine can go on from it.
    Read {
        /// The directory, for people.
        directory: String,
        /// They.
        found: BTreeMap<JournalId, Result<FoundJournal, String>>,
    },
    /// They cannot be read, and why.
    Unusable(String),
}

impl JournalWorth {
    /// Of a host whose configuration names none.
    pub fn not_configured() -> JournalWorth {
        JournalWorth::Unusable("the configuration has no section [journal]".to_owned())
    }
}
