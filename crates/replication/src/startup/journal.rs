//! What the journals on this host are worth to a start.

use crate::message::LifeId;
use crate::record::RecordNumber;
use crate::succession::{JournalId, LifeNumber};
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
    /// Nobody but this process adds anything to it any more.
    pub is_fenced: bool,
}

/// What reading them came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalWorth {
    /// The configuration names none.
    NotConfigured,
    /// It is not known yet.
    BeingRead,
    /// These are here, each whole, or why no machine can go on from it.
    Read {
        /// Where, for people.
        place: String,
        /// They.
        found: BTreeMap<JournalId, Result<FoundJournal, String>>,
    },
    /// They cannot be read, and why.
    Unusable(String),
}
