//! What a replica answers when a peer asks how it stands.

use crate::marker::Worth;
use crate::message::LifeId;
use crate::succession::{Generation, Host, LifeNumber, MachineName};
use std::fmt;

/// What a replica is doing, as far as others need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It has no machine, and will have none without a new key.
    NoMachine,
    /// It is becoming a backup: it has not read Begin.
    Joining,
    /// It holds the log of the generation, and may take over.
    Following,
    /// It asks the arbiter, or has won and replays the rest.
    Claiming,
    /// It has won, and replays its journal.
    Recovering {
        /// How much of it is done, in hundredths.
        percent: u8,
    },
    /// It is live.
    Live,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Of which machine.
    pub machine: MachineName,
    /// Who answers.
    pub host: Host,
    /// What it is doing.
    pub stance: Stance,
    /// The life that it is in, or knows of; 0: none.
    pub life: LifeNumber,
    /// That life's identity.
    pub life_id: LifeId,
    /// The generation that it is in, or knows of.
    pub generation: Generation,
    /// What its disks are worth.
    pub worth: Worth,
}

impl fmt::Display for Stance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stance::Recovering { percent } => {
                return write!(
                    f,
                    "is going on from its journal, of which {percent}% are replayed"
                );
            }
            Stance::NoMachine => "has no machine",
            Stance::Joining => "is joining",
            Stance::Following => "follows",
            Stance::Claiming => "is taking over",
            Stance::Live => "is live",
        })
    }
}
