//! How the life of a replica's process ends.

use crate::control::ControlError;
use crate::disk::DiskError;
use crate::journal::JournalDirectoryError;
use crate::outside::NetworkError;
use crate::snapshot_file::SnapshotFileError;
use crate::state_directory::StateDirectoryError;
use crate::transport::AddressError;
use machine::Failure;
use machine::output::Finish;
use replication::message::Refusal;
use replication::startup::Refusal as StartRefusal;
use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// An end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest ended the machine here.
    Guest(Finish),
    /// The guest ended the machine at the primary.
    AtThePrimary,
    /// Asked to end, the primary handed its machine over: the service goes on elsewhere.
    HandedOver,
    /// Asked to end while it had no machine that was live: a backup, or a replica that waited.
    Left,
    /// Asked to end while nobody could take over, the primary asked its guest to power off, and it did:
    /// the life stays open.
    PoweredOff,
    /// Asked to end while nobody could take over: the machine ended as by a loss of power, and its
    /// life stays open.
    Unplugged,
    /// Asked to end while nobody could take over: the machine goes on from its journal at the next
    /// start on this host, where the outside saw it last.
    InJournal,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Guest(Finish::PowerOff) => f.write_str("the guest powered off"),
            Ended::Guest(Finish::Reset) => f.write_str("the guest reset itself"),
            Ended::Guest(Finish::Panicked) => f.write_str("the guest's kernel panicked"),
            Ended::Guest(Finish::Fail(code)) => write!(f, "the guest ended with status {code}"),
            Ended::AtThePrimary => f.write_str("the guest ended at the primary"),
            Ended::HandedOver => f.write_str("asked to end: the machine was handed over"),
            Ended::Left => f.write_str("asked to end: nothing was live here"),
            Ended::PoweredOff => f.write_str(
                "asked to end: the guest powered off; its life stays open, the next start on this \
                 host begins from its disks",
            ),
            Ended::Unplugged => f.write_str(
                "asked to end, and nobody could take over: the machine was unplugged; the next \
                 start on this host begins from its disks",
            ),
            Ended::InJournal => f.write_str(
                "asked to end: the machine is in its journal, and goes on from there at the next start \
                 on this host",
            ),
        }
    }
}

/// An end that is none.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// Two uses of the state directory, or none possible.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The keys of this host.
    #[error("pair.keys: {0}")]
    Keys(#[from] keys::KeysError),
    /// The state directory is another host's.
    #[error(
        "the state directory is that of host {owner} ({}), and this host is {name} by its certificate: if \
         the directory was copied from {owner}, give this host an empty one; if this is the host that was \
         called {owner}, and nothing runs under that name any more, write {name} in its place in that file",
        path.display()
    )]
    AnotherHosts {
        /// The file that says so.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// What this host is called.
        name: String,
    },
    /// A marker is of another machine than the configuration.
    #[error(
        "the marker {place} is of machine \"{theirs}\", and the configuration says name = \"{name}\": if that is \
         a slip, write name = \"{theirs}\"; if {name} is another machine, give it disks and a state directory of its \
         own; if {theirs} is not wanted any more, remove {}",
        path.display()
    )]
    AnotherMachines {
        /// The marker.
        path: PathBuf,
        /// Beside what, or in what.
        place: String,
        /// The machine that it is of.
        theirs: String,
        /// What the configuration says.
        name: String,
    },
    /// The configuration calls this host otherwise than its certificate does.
    #[error(
        "pair.host: this host is called {name} by its certificate (pair.keys), and not {said}: leave \
         pair.host out, or give it the keys of {said}"
    )]
    HostName {
        /// What the configuration says.
        said: String,
        /// What the certificate says.
        name: String,
    },
    /// The address of the logging channel.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The guest's network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The directory of the journal.
    #[error(transparent)]
    JournalDirectory(#[from] JournalDirectoryError),
    /// The machine cannot go on from its journal.
    #[error("the machine cannot go on from its journal: {0}")]
    Journal(String),
    /// The machine cannot be powered on.
    #[error("{0}")]
    PowerOn(Failure),
    /// The snapshot that was restored is of no use.
    #[error(
        "the machine of the snapshot that was restored cannot be made: {0}. The next start begins from the disks alone; \
         or restore it again: `understudy restore --new-life`"
    )]
    Restored(#[from] SnapshotFileError),
    /// There is no life to take part in.
    #[error("{0}")]
    LifeIsOver(StartRefusal),
    /// The peer runs another machine.
    #[error("{0}")]
    Refused(Refusal),
    /// The primary's snapshot is of no use here.
    #[error("the primary's machine cannot be taken over here: {0}")]
    Unusable(String),
    /// The machine cannot go on on this host: a bug of this program, or the host failed it.
    #[error("the machine failed: {0}")]
    MachineFailed(String),
    /// A socket, a file, a thread.
    #[error(transparent)]
    Host(#[from] io::Error),
}
