//! Why the program ends, as an exit status.

use machine::output::Finish;
use replica::new_life::NewLifeError;
use replica::state_directory::StateDirectoryError;
use replica::{Ended, ReplicaError};
use std::fmt;

/// The exit statuses of `understudy` (`docs/operations.md`). `understudy run` ends with the guest's
/// own status instead, when the guest gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// The guest powered off; of a command that does one thing: it did.
    Success,
    /// Something on this host failed: a socket, a file, a thread.
    Failure,
    /// Wrong usage, configuration, image or file.
    Usage,
    /// The machine's life is over: a new one is a person's word.
    LifeIsOver,
    /// The replay did not do what the recording says.
    Diverged,
    /// The peer is of another kind: semantics, guest, memory size.
    Refused,
    /// Another process uses the state directory.
    InUse,
    /// `status`: the machine runs, and no other replica could take over.
    NotProtected,
    /// `status`: the machine has a backup, and nobody could take over by its arbiter now.
    NoArbiter,
    /// `status`: no replica answers.
    NoReplica,
    /// `status`: this user may not ask.
    NotPermitted,
    /// A primary was asked to end, and handed its machine over.
    HandedOver,
    /// A replica was asked to end that had no live machine.
    Left,
    /// A primary was asked to end, nobody could take over: the machine ended as by a loss of power.
    Unplugged,
    /// A primary was asked to end, nobody could take over, and its guest powered off when it was asked
    /// to: the life stays open.
    PoweredOff,
    /// A primary was asked to end, nobody could take over: the machine goes on from its journal at the
    /// next start.
    InJournal,
    /// The guest's kernel panicked, and `on_panic` says to stop then.
    GuestPanicked,
    /// The guest gave this status through its finisher.
    Guest(u8),
}

impl ExitStatus {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Success => 0,
            ExitStatus::Failure => 1,
            ExitStatus::Usage => 2,
            ExitStatus::LifeIsOver => 3,
            ExitStatus::Diverged => 4,
            ExitStatus::Refused => 5,
            ExitStatus::InUse => 6,
            ExitStatus::NotProtected => 7,
            ExitStatus::NoReplica => 8,
            ExitStatus::NotPermitted => 9,
            ExitStatus::HandedOver => 10,
            ExitStatus::Left => 11,
            ExitStatus::Unplugged => 12,
            ExitStatus::GuestPanicked => 13,
            ExitStatus::PoweredOff => 14,
            ExitStatus::InJournal => 15,
            ExitStatus::NoArbiter => 16,
            ExitStatus::Guest(code) => code,
        }
    }
}

/// An error that ends the program, with the status that goes with it.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub status: ExitStatus,
    /// What is printed.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with this status.
    pub fn new(status: ExitStatus, error: impl Into<anyhow::Error>) -> Failure {
        Failure {
            status,
            error: error.into(),
        }
    }

    /// Wrong usage or a wrong file.
    pub fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure::new(ExitStatus::Usage, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most errors tell their cause themselves, and what is told once is enough.
        let mut told = String::new();
        for cause in self.error.chain() {
            let text = cause.to_string();
            if told.is_empty() {
                told = text;
            } else if !told.contains(&text) {
                told = format!("{told}: {text}");
            }
        }
        f.write_str(&told)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::new(ExitStatus::Failure, error)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Failure {
        let status = match &error {
            ReplicaError::StateDirectory(StateDirectoryError::InUse { .. }) => ExitStatus::InUse,
            ReplicaError::StateDirectory(StateDirectoryError::Unusable { .. })
            | ReplicaError::Control(_)
            | ReplicaError::Keys(_)
            | ReplicaError::AnotherHosts { .. }
            | ReplicaError::AnotherMachines { .. }
            | ReplicaError::HostName { .. }
            | ReplicaError::Address(_)
            | ReplicaError::Network(_)
            | ReplicaError::Disk(_)
            | ReplicaError::JournalDirectory(_)
            | ReplicaError::PowerOn(_) => ExitStatus::Usage,
            ReplicaError::LifeIsOver(_) => ExitStatus::LifeIsOver,
            ReplicaError::Refused(_) => ExitStatus::Refused,
            ReplicaError::Unusable(_)
            | ReplicaError::Journal(_)
            | ReplicaError::Restored(_)
            | ReplicaError::MachineFailed(_)
            | ReplicaError::Host(_) => ExitStatus::Failure,
        };
        Failure::new(status, error)
    }
}

impl From<NewLifeError> for Failure {
    fn from(error: NewLifeError) -> Failure {
        match error {
            NewLifeError::Replica(error) => error.into(),
            NewLifeError::Refused(_) => Failure::new(ExitStatus::Failure, error),
            NewLifeError::NotPlaced { .. } => Failure::new(ExitStatus::Failure, error),
            NewLifeError::NotMeant => Failure::usage(error),
        }
    }
}

impl From<Ended> for ExitStatus {
    fn from(ended: Ended) -> ExitStatus {
        match ended {
            Ended::Guest(finish) => finish.into(),
            Ended::AtThePrimary => ExitStatus::Success,
            Ended::HandedOver => ExitStatus::HandedOver,
            Ended::Left => ExitStatus::Left,
            Ended::Unplugged => ExitStatus::Unplugged,
            Ended::PoweredOff => ExitStatus::PoweredOff,
            Ended::InJournal => ExitStatus::InJournal,
        }
    }
}

impl From<Finish> for ExitStatus {
    fn from(finish: Finish) -> ExitStatus {
        match finish {
            Finish::PowerOff | Finish::Reset => ExitStatus::Success,
            Finish::Panicked => ExitStatus::GuestPanicked,
            Finish::Fail(code) => ExitStatus::Guest(match code.to_le_bytes() {
                // A code that the shell cannot see must not look like success.
                [0, _] => 1,
                [low, _] => low,
            }),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(ExitStatus::Failure, error)
    }
}
