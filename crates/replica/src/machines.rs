//! Where a replica's machines come from.

use crate::disk::Disk;
use machine::{Failure, Machine};
use replication::configuration::Configuration;
use std::io::Read;

/// Makes the machine of one configuration, under the engine that was chosen for this host. The
/// program implements it, and with it alone chooses the architecture.
pub trait Machines: Send + Sync {
    /// The number of the machine's semantics: replicas of different numbers do not pair.
    fn semantics_version(&self) -> u32;

    /// What two hosts must agree on before they pair, as a hash: everything of the configuration
    /// that the guest sees, but for the length of the disks, which the backup takes from the primary.
    fn configuration_hash(&self) -> u64;

    /// The same by key, so that a refusal can say what differs; the rest is
    /// [`Machines::configuration_hash`].
    fn configuration(&self) -> Configuration;

    /// How many instructions of a test program the engine that is chosen for this host executes in a second of
    /// a core's time. Takes some hundredths of a second of that: not for an event loop. `None`: it cannot be
    /// measured.
    fn speed(&self) -> Option<u64>;

    /// What decides the machine at power-on besides [`Machines::configuration`], and may differ between two hosts: its
    /// images, by a digest, and what else is said at power-on. Reads them: not for an event loop. Empty: not known.
    fn boot(&self) -> Configuration;

    /// Whether the files that the machine is made of can be read, its disks apart: looked at before
    /// the key is asked for by which it starts.
    ///
    /// # Errors
    /// The first that cannot be read.
    fn check(&self) -> Result<(), Failure>;

    /// The machine at power-on, with these disks.
    ///
    /// # Errors
    /// An image cannot be read or does not fit, or the host has not so much memory.
    fn power_on(&self, disks: &[Disk]) -> Result<Box<dyn Machine>, Failure>;

    /// The machine as it was when the snapshot was taken, made as the snapshot comes.
    ///
    /// # Errors
    /// The snapshot is damaged, or of another kind of machine.
    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, Failure>;
}
