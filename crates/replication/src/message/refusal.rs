//! Why a primary does not take a backup.

use super::{spoken, tells_boot};
use crate::capacity::Shortfall;
use crate::configuration::Difference;
use crate::succession::{Host, MachineName};
use std::fmt;

/// The most differences that are told: all of two configurations with the same keys, and the semantics
/// version.
pub const MAX_DIFFERENCES: usize = crate::configuration::MAX_KEYS + 1;

/// Why a primary does not take a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is busy: try again later.
    NotNow(Busy),
    /// Another protocol version.
    ProtocolVersion {
        /// The newest that the primary speaks.
        ours: u32,
    },
    /// The two hosts' machines are not the same: another semantics version, another configuration.
    Differs {
        /// What the other host is called.
        host: String,
        /// What differs, one thing at least, as this host sees it.
        differences: Vec<Difference>,
    },
    /// Another virtual machine.
    Machine {
        /// The primary's name for it.
        ours: MachineName,
    },
    /// The two hosts have one identity: a state directory was copied.
    SameHost,
    /// As many protect the machine as are wanted, or those that are lacking are still awaited: come again
    /// later.
    NotNeeded,
    /// It lagged, was let go, and is taken again later: others protect the machine meanwhile.
    Lagged,
    /// Its host has not the memory for the machine.
    NoRoom(Shortfall),
    /// Its engine is slower than what the machine has needed lately, and this machine's policy lets nobody
    /// lag.
    TooSlow(Shortfall),
    /// The two hosts have one name: keys were copied.
    SameName {
        /// What both are called.
        name: String,
    },
    /// Another process with this name or identity is a member, or joins: try again when it has gone.
    NameInUse {
        /// What the one that came later is called.
        name: String,
    },
}

/// What a primary does that takes nobody now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// It has not said: its program, or this one, speaks a protocol from before 11.
    Untold,
    /// Another host joins: one does at a time.
    Joins,
    /// Its guest has ended.
    Ends,
    /// The machine is being handed over.
    HandsOver,
    /// A backup's machine differs from it.
    Differs,
    /// A backup is lost, perhaps, and the arbiter is asked to drop it.
    LosesMember,
    /// The life moves to another arbiter.
    Moves,
    /// The arbiter is asked for the key of the next generation.
    AsksArbiter,
    /// Its own disk is not synced and marked yet.
    Settles,
    /// A snapshot is taken for its journal.
    WritesSnapshot,
    /// The joiner's process before this one is not known to be gone.
    Before,
}

/// Those that are told, by their tags.
pub(super) const BUSY: [Busy; 10] = [
    Busy::Joins,
    Busy::Ends,
    Busy::HandsOver,
    Busy::Differs,
    Busy::LosesMember,
    Busy::Moves,
    Busy::AsksArbiter,
    Busy::Settles,
    Busy::WritesSnapshot,
    Busy::Before,
];

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Busy::Untold => "it does not say why",
            Busy::Joins => "another host is joining, and one does at a time",
            Busy::Ends => "its guest has ended",
            Busy::HandsOver => "the machine is being handed over",
            Busy::Differs => "a backup's machine differs from it, and it is being found out whose is right",
            Busy::LosesMember => "it has lost a backup, perhaps, and asks the arbiter to drop it",
            Busy::Moves => "the life is moving to another arbiter",
            Busy::AsksArbiter => "it is asking the arbiter for the key of the next generation",
            Busy::Settles => {
                "its own disk is not synced and marked yet (`trouble` in its status says why, if that fails)"
            }
            Busy::WritesSnapshot => "a snapshot is being taken for its journal",
            Busy::Before => {
                "the process of this host before this one is a backup still, as far as is known"
            }
        })
    }
}

impl Refusal {
    /// As it is said to a host that speaks this version: what that would not understand is left out.
    #[must_use]
    pub fn in_protocol(self, protocol: u32) -> Refusal {
        match self {
            Refusal::NotNow(_) if !tells_boot(protocol) => Refusal::NotNow(Busy::Untold),
            other => other,
        }
    }

    /// Whether it makes sense to come again with the same greeting.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Refusal::NotNow(_)
                | Refusal::NotNeeded
                | Refusal::Lagged
                | Refusal::NoRoom(_)
                | Refusal::TooSlow(_)
                | Refusal::NameInUse { .. }
        )
    }

    /// Whether the primary does well without whoever is refused so, or has no use for it: it comes again only
    /// now and then, and looks whether it is needed otherwise.
    pub fn puts_off(&self) -> bool {
        matches!(
            self,
            Refusal::NotNeeded | Refusal::Lagged | Refusal::NoRoom(_) | Refusal::TooSlow(_)
        )
    }

    /// As it is told to the host that is refused; `own` is the host that refuses.
    #[must_use]
    pub fn from_there(&self, own: &Host) -> Refusal {
        match self {
            Refusal::Differs { differences, .. } => Refusal::Differs {
                host: own.node().to_owned(),
                differences: differences.iter().map(Difference::from_there).collect(),
            },
            other => other.clone(),
        }
    }
}

/// What a peer said, for people.
pub(crate) fn printable(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(printable).collect()
}

/// The key under which another semantics version is told.
pub(crate) const SEMANTICS_VERSION: &str = "semantics version";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotNow(Busy::Untold) => write!(f, "the primary cannot take a backup now"),
            Refusal::NotNow(busy) => write!(f, "the primary cannot take a backup now: {busy}"),
            Refusal::ProtocolVersion { ours } => {
                write!(
                    f,
                    "it speaks protocol version {ours}, this host {}: install the same build on both",
                    spoken()
                )
            }
            Refusal::Differs { host, differences } => {
                let described: Vec<String> = differences
                    .iter()
                    .map(|difference| difference.describe(host))
                    .collect();
                let advice = match differences.first() {
                    Some(difference) if difference.key == SEMANTICS_VERSION => {
                        ": install the same build on both hosts"
                    }
                    _ => ": both hosts must say the same",
                };
                let described = printable(&described.join("; "));
                write!(f, "the two hosts' machines differ: {described}{advice}")
            }
            Refusal::Machine { ours } => {
                write!(f, "the primary runs another machine, \"{ours}\"")
            }
            Refusal::NotNeeded => write!(
                f,
                "as many hosts protect the machine as are wanted: this one is a spare until one is lacking"
            ),
            Refusal::Lagged => write!(
                f,
                "the primary let this host go because it lagged, and takes it again later, or when \
                 nobody else protects the machine"
            ),
            Refusal::NoRoom(shortfall) => write!(
                f,
                "this host has not the memory for the machine: {}; it is looked at again",
                shortfall.of_memory()
            ),
            Refusal::TooSlow(shortfall) => write!(
                f,
                "this host is too slow for the machine, and lag_policy lets nobody lag: {}; it is looked at \
                 again, and taken when the machine does less, or nobody else protects it",
                shortfall.of_speed()
            ),
            Refusal::SameHost => write!(
                f,
                "both hosts have the same identity: the state directory of one is a copy of the \
                 other's; give the host of the copy an empty one"
            ),
            Refusal::SameName { name } => write!(
                f,
                "two hosts are called {}: the keys of one were copied to the other; give each host its \
                 own (`understudy keys issue`) and name both in pair.members",
                printable(name)
            ),
            Refusal::NameInUse { name } => write!(
                f,
                "a host called {} is here already, by another process: were keys or a state directory \
                 copied, then give each host its own; a host that was set up anew is let in as soon as \
                 the one before has gone",
                printable(name)
            ),
        }
    }
}
