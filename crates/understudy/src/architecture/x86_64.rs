//! The x86-64 machine as a replica knows machines.

use crate::setup::SetupError;
use machine::boot::BootImages;
use machine::engine::Engine;
use machine::input::{ClockRecord, Input};
use machine::machine::{MachineConfig, Stop};
use machine::output::{DiskRequest, Output};
use machine::state::{Snapshot, SnapshotError};
use replica::machines::MachineError;
use std::io::Read;
use x86::machine::Machine;

/// A machine. Its engine is the interpreter, whatever the configuration asks for.
pub struct X86Machine(Machine);

impl X86Machine {
    /// At power-on.
    pub fn power_on(config: MachineConfig, images: BootImages) -> Result<X86Machine, SetupError> {
        if images.firmware.is_some() {
            return Err(SetupError::Firmware);
        }
        let images = x86::boot::BootImages {
            kernel: images.kernel.unwrap_or_default(),
            initrd: images.initrd,
            command_line: images.command_line,
        };
        Ok(X86Machine(Machine::new(config, &images)?))
    }

    /// As it was when the snapshot was taken.
    pub fn restore(snapshot: &Snapshot) -> Result<X86Machine, SnapshotError> {
        Ok(X86Machine(Machine::restore(snapshot)?))
    }

    /// The same, made while the snapshot is read.
    pub fn restore_from(snapshot: &mut dyn Read) -> Result<X86Machine, SnapshotError> {
        Ok(X86Machine(Machine::restore_from(snapshot)?))
    }
}

impl replica::Machine for X86Machine {
    fn engine(&self) -> Engine {
        Engine::Interpreter
    }

    fn instruction_count(&self) -> u64 {
        self.0.instruction_count()
    }

    fn guest_time_ns(&self) -> u64 {
        self.0.guest_time_ns()
    }

    fn clock(&self) -> ClockRecord {
        self.0.clock()
    }

    fn unix_base_ns(&self) -> u64 {
        self.0.config().unix_base_ns
    }

    fn visible_outputs(&self) -> u64 {
        self.0.visible_outputs()
    }

    fn memory_bytes(&self) -> u64 {
        self.0.config().board.memory_bytes
    }

    fn disk_sectors(&self) -> Vec<u64> {
        let disks = &self.0.config().board.disks;
        disks.iter().map(|disk| disk.sectors).collect()
    }

    fn configuration_hash(&self) -> u64 {
        x86::machine::configuration_hash(&self.0.config().board)
    }

    fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.0.open_disk_requests()
    }

    fn run(&mut self, until: u64) -> Stop {
        self.0.run(until)
    }

    fn inject(&mut self, input: &Input) -> Result<(), MachineError> {
        Ok(self.0.inject(input)?)
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.0.outputs()
    }

    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    fn digest(&mut self) -> u128 {
        self.0.digest()
    }
}
