//! What a replica needs of a machine, and where machines come from.

use crate::disk::Disk;
use machine::engine::Engine;
use machine::input::{ClockRecord, Input};
use machine::machine::Stop;
use machine::output::{DiskRequest, Output};
use machine::state::Snapshot;
use std::error::Error;
use std::io::Read;

/// Why there is no machine, or why it refuses an input.
pub type MachineError = Box<dyn Error + Send + Sync>;

/// A deterministic machine of some architecture, under some engine. Its own documentation is that of
/// [`machine::machine::Machine`].
pub trait Machine: Send {
    /// What executes the guest.
    fn engine(&self) -> Engine;
    /// Retired instructions since power-on.
    fn instruction_count(&self) -> u64;
    /// Guest time in nanoseconds since power-on.
    fn guest_time_ns(&self) -> u64;
    /// The last clock record.
    fn clock(&self) -> ClockRecord;
    /// The calendar at power-on, in nanoseconds since 1970 UTC.
    fn unix_base_ns(&self) -> u64;
    /// Frames and console bytes since power-on.
    fn visible_outputs(&self) -> u64;
    /// Bytes of RAM.
    fn memory_bytes(&self) -> u64;
    /// The disks' lengths, in sectors of 512 bytes.
    fn disk_sectors(&self) -> Vec<u64>;
    /// Everything of the configuration that the guest sees, as a hash.
    fn configuration_hash(&self) -> u64;
    /// Disk requests that were made and not completed.
    fn open_disk_requests(&self) -> Vec<DiskRequest>;
    /// Runs until `until`, or stops before.
    fn run(&mut self, until: u64) -> Stop;
    /// A guest that resets ends its machine from here on, instead of beginning anew. Some always do.
    fn end_at_reset(&mut self) {}
    /// Lets an input take effect here.
    ///
    /// # Errors
    /// The machine expected no such input.
    fn inject(&mut self, input: &Input) -> Result<(), MachineError>;
    /// Takes the outputs that wait, in order.
    fn outputs(&mut self) -> Vec<Output>;
    /// Copies the whole state.
    fn snapshot(&self) -> Snapshot;
    /// Equal on two replicas if and only if their states are equal.
    fn digest(&mut self) -> u128;
}

impl Machine for machine::machine::Machine {
    fn engine(&self) -> Engine {
        self.engine()
    }

    fn instruction_count(&self) -> u64 {
        self.instruction_count()
    }

    fn end_at_reset(&mut self) {
        self.end_at_reset();
    }

    fn guest_time_ns(&self) -> u64 {
        self.guest_time_ns()
    }

    fn clock(&self) -> ClockRecord {
        self.clock()
    }

    fn unix_base_ns(&self) -> u64 {
        self.config().unix_base_ns
    }

    fn visible_outputs(&self) -> u64 {
        self.visible_outputs()
    }

    fn memory_bytes(&self) -> u64 {
        self.config().board.memory_bytes
    }

    fn disk_sectors(&self) -> Vec<u64> {
        let disks = &self.config().board.disks;
        disks.iter().map(|disk| disk.sectors).collect()
    }

    fn configuration_hash(&self) -> u64 {
        self.configuration_hash()
    }

    fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.open_disk_requests()
    }

    fn run(&mut self, until: u64) -> Stop {
        self.run(until)
    }

    fn inject(&mut self, input: &Input) -> Result<(), MachineError> {
        Ok(self.inject(input)?)
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.outputs()
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot()
    }

    fn digest(&mut self) -> u128 {
        self.digest()
    }
}

/// Makes the machine of one configuration, under the engine that was chosen for this host. The
/// program implements it, and with it alone chooses the architecture.
pub trait Machines: Send + Sync {
    /// The number of the machine's semantics: replicas of different numbers do not pair.
    fn semantics_version(&self) -> u32;

    /// What two hosts must agree on before they pair, as a hash: everything of the configuration
    /// that the guest sees, but for the length of the disks, which the backup takes from the primary.
    fn configuration_hash(&self) -> u64;

    /// The machine at power-on, with these disks.
    ///
    /// # Errors
    /// An image cannot be read or does not fit, or the host has not so much memory.
    fn power_on(&self, disks: &[Disk]) -> Result<Box<dyn Machine>, MachineError>;

    /// The machine as it was when the snapshot was taken, made as the snapshot comes.
    ///
    /// # Errors
    /// The snapshot is damaged, or of another kind of machine.
    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, MachineError>;
}
