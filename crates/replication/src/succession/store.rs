//! What an arbiter's store is asked, and what it answers.

use super::names::{Generation, HostId, LifeNumber, MachineName};

/// The leaving of one generation of one life: created at most once, never changed, and never
/// removed while the machine lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The machine.
    pub machine: MachineName,
    /// Its life, from 1.
    pub life: LifeNumber,
    /// The generation that is left. Generation 0 is left by powering on.
    pub generation: Generation,
}

impl Key {
    /// The key of powering on for `life`.
    pub fn power_on(machine: &MachineName, life: LifeNumber) -> Key {
        Key {
            machine: machine.clone(),
            life,
            generation: Generation(0),
        }
    }

    /// By what a store is known to be the one that `machine` moves to. No life has its number.
    pub fn arrival(machine: &MachineName) -> Key {
        Key::power_on(machine, LifeNumber(0))
    }

    /// Whether it is that.
    pub fn is_arrival(&self) -> bool {
        self.life == LifeNumber(0)
    }

    /// The key of leaving `generation` of the same life.
    pub fn of(&self, generation: Generation) -> Key {
        Key {
            generation,
            ..self.clone()
        }
    }

    /// Why a store is not the right one that does not have this key.
    pub fn missing(&self) -> String {
        let name = self.object_name();
        format!("it does not have {name}: it is another arbiter, or was emptied")
    }

    /// The name of the file or object: letters, digits, `-`, `_` and `.`, at most 117 bytes.
    pub fn object_name(&self) -> String {
        let Key {
            machine,
            life,
            generation,
        } = self;
        if self.is_arrival() {
            return format!("arrival.{machine}");
        }
        format!("succession.{machine}.{life}.{generation}")
    }
}

/// A small object that its owner overwrites at will. No claim is ever read from one: they show
/// that two hosts see the same arbiter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BeaconName {
    /// The machine.
    pub machine: MachineName,
    /// Whose.
    pub host: HostId,
}

impl BeaconName {
    /// The name of the file or object: letters, digits, `-`, `_` and `.`, at most 104 bytes.
    pub fn object_name(&self) -> String {
        format!("beacon.{}.{}", self.machine, self.host)
    }
}

/// What to ask the store. Each request gets exactly one [`Outcome`], given back together with it;
/// a store that takes too long answers [`Outcome::Unknown`], and may still do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Create `key` with `content` if it does not exist, durably and as a whole:
    /// [`Outcome::Created`] or [`Outcome::NotCreated`]. If `after` is not there, in the very same
    /// store (the same open directory, the same transaction), nothing is created and the answer is
    /// [`Outcome::Unknown`] with [`Key::missing`].
    Create {
        /// The key.
        key: Key,
        /// The key without which it cannot be.
        after: Option<Key>,
        /// What it shall hold.
        content: Vec<u8>,
    },
    /// Say what `key` holds, never from before the last create of anybody that was answered:
    /// [`Outcome::Holds`] or [`Outcome::Absent`].
    Read {
        /// The key.
        key: Key,
    },
    /// Write a beacon, whatever it held: [`Outcome::Written`].
    WriteBeacon {
        /// Which.
        beacon: BeaconName,
        /// What it shall hold.
        content: Vec<u8>,
    },
    /// Say what a beacon holds: [`Outcome::Holds`] or [`Outcome::Absent`].
    ReadBeacon {
        /// Which.
        beacon: BeaconName,
    },
    /// Ask another arbiter, to which the machine may move. No store does; whoever leads to stores does.
    Elsewhere {
        /// Its address.
        address: String,
        /// What it is asked.
        request: Box<Request>,
    },
}

impl Request {
    /// What a store says to [`Request::Elsewhere`].
    pub fn knows_no_other() -> Outcome {
        Outcome::Unknown("a store knows no other store".into())
    }
}

/// What a store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The key did not exist and now holds what was asked, durably.
    Created,
    /// The store says that it did not create the key (it exists, or a conflict).
    NotCreated,
    /// It holds this.
    Holds(Vec<u8>),
    /// There is no such key or beacon.
    Absent,
    /// The beacon was written.
    Written,
    /// Nobody knows: no answer in time, an error, read-only.
    Unknown(String),
}
