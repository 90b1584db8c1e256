//! The numbers and names of a succession, each a type of its own: none can be taken for another.

use std::fmt;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Bytes that a machine's name may have.
const MAX_MACHINE_NAME: usize = 64;
/// Bytes of a node's name that go into a key: it is there for people.
const MAX_NODE_NAME: usize = 64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            pub fn next(self) -> $name {
                assert!(self.0 < u64::MAX, "no number follows {self}");
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Which life of a machine, from 1; 0 is "none yet".
    LifeNumber
}
number! {
    /// Which generation of a life, from 1. Generation 0 is the time before power-on, so that
    /// powering on is a leaving like any other.
    Generation
}
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

identity! {
    /// A host, as far as one machine is concerned: random, made once, kept in the state directory.
    HostId
}
identity! {
    /// One start of a process: random, new each time.
    RunId
}
identity! {
    /// One journal: a snapshot and all records after it, kept by one primary until it begins another.
    JournalId
}

identity! {
    /// A store to which a machine moves, or moved: random, kept in the store itself, so that no other one,
    /// and none that was emptied, is taken for it.
    ArrivalId
}

impl JournalId {
    /// The journal that this start of a process begins as its `attempt`th.
    pub fn of_run(run: RunId, attempt: u64) -> JournalId {
        JournalId(xxh3_128_with_seed(&run.0.to_le_bytes(), attempt))
    }
}

/// A host and what people call it. Only the identity counts.
#[derive(Clone, Debug, Eq)]
pub struct Host {
    /// Its identity.
    pub id: HostId,
    node: String,
}

impl Host {
    /// `node` is cut to 64 bytes.
    pub fn new(id: HostId, node: &str) -> Host {
        let node = &node[..node.floor_char_boundary(MAX_NODE_NAME)];
        Host {
            id,
            node: node.to_owned(),
        }
    }

    /// What people call it.
    pub fn node(&self) -> &str {
        &self.node
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Host) -> bool {
        self.id == other.id
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable = |c: char| if c.is_control() { '?' } else { c };
        self.node
            .chars()
            .try_for_each(|c| write!(f, "{}", printable(c)))
    }
}

/// A machine cannot have this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} cannot be a machine's name: 1 to 64 letters, digits, '-', '_' and '.', \
     not beginning with '.'"
)]
pub struct NameError(String);

/// A machine's name, such that every key made of it is a good file name and a good object name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineName(String);

impl MachineName {
    /// 1 to 64 letters, digits, `-`, `_` and `.`, not beginning with `.`.
    pub fn new(name: &str) -> Result<MachineName, NameError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_good = (1..=MAX_MACHINE_NAME).contains(&name.len())
            && !name.starts_with('.')
            && name.chars().all(is_plain);
        if is_good {
            Ok(MachineName(name.to_owned()))
        } else {
            Err(NameError(name.to_owned()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_hide_or_leave_a_directory_are_refused() {
        for name in ["", ".", "..", ".x", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(MachineName::new(name).is_err(), "{name:?}");
        }
        for name in ["x", "web.prod-1_a", "1", &"x".repeat(64)] {
            assert_eq!(MachineName::new(name).unwrap().as_str(), name);
        }
    }
}
