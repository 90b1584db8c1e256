//! x86-64 as one of the architectures that a program may choose from.

use crate::boot;
use crate::emitter::Jit;
use crate::machine::{Machine, NAME, SEMANTICS_VERSION, configuration_hash};
use crate::ram;
use machine::config::{BoardConfig, BootImages, MachineConfig, PanicPolicy};
use machine::debugging::Debuggable;
use machine::engine::Engine;
use machine::input::{ClockRecord, Input, InstructionCount};
use machine::memory::{Capture, Extent, OutsideRam, PageBatch, Region};
use machine::output::{DiskRequest, Output};
use machine::snapshot::{Snapshot, SnapshotError, SnapshotHead};
use machine::{Architecture, Failure, InjectError, Stop};
use std::io::Read;
use thiserror::Error;

/// A PC without legacy devices.
pub const X86_64: &dyn Architecture = &X86;

/// What a configuration may ask for that there is not.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// A feature of the CPUs.
    #[error("{NAME} has no feature {0:?}: it has none that can be chosen")]
    Feature(String),
    /// Firmware loads its kernel from a disk.
    #[error(
        "firmware and {0}: on an x86-64 machine, firmware loads kernel, initrd and command line from a disk. \
         Give either the firmware or {0}"
    )]
    Beside(&'static str),
}

struct X86;

fn check_features(config: &MachineConfig) -> Result<(), Unsupported> {
    match config.features.first() {
        Some(feature) => Err(Unsupported::Feature(feature.clone())),
        None => Ok(()),
    }
}

/// A kernel beside firmware would never run.
fn check_beside_firmware(images: &BootImages) -> Result<(), Unsupported> {
    if images.firmware.is_none() {
        return Ok(());
    }
    let beside = [
        ("a kernel", images.kernel.is_some()),
        ("an initrd", images.initrd.is_some()),
        ("a kernel command line", !images.command_line.is_empty()),
    ];
    match beside.into_iter().find(|(_, is_given)| *is_given) {
        Some((what, _)) => Err(Unsupported::Beside(what)),
        None => Ok(()),
    }
}

impl Architecture for X86 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn semantics_version(&self) -> u32 {
        SEMANTICS_VERSION
    }

    fn available(&self, engine: Engine) -> Engine {
        match engine {
            Engine::Jit | Engine::Paranoid if Jit::new().is_some() => engine,
            _ => Engine::Interpreter,
        }
    }

    fn configuration_hash(&self, config: &MachineConfig) -> Result<u64, Failure> {
        check_features(config)?;
        Ok(configuration_hash(&config.board))
    }

    fn power_on(
        &self,
        config: &MachineConfig,
        images: &BootImages,
    ) -> Result<Box<dyn machine::Machine>, Failure> {
        check_features(config)?;
        check_beside_firmware(images)?;
        let images = boot::BootImages {
            firmware: images.firmware.clone(),
            kernel: images.kernel.clone().unwrap_or_default(),
            initrd: images.initrd.clone(),
            command_line: images.command_line.clone(),
        };
        Ok(Box::new(Machine::new(config.clone(), &images)?))
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<Box<dyn machine::Machine>, SnapshotError> {
        Ok(Box::new(Machine::restore(snapshot)?))
    }

    fn restore_from(
        &self,
        snapshot: &mut dyn Read,
    ) -> Result<Box<dyn machine::Machine>, SnapshotError> {
        Ok(Box::new(Machine::restore_from(snapshot)?))
    }
}

impl machine::Machine for Machine {
    fn run(&mut self, until: InstructionCount) -> Stop {
        self.run(until)
    }

    fn end_at_reset(&mut self) {
        self.end_at_reset();
    }

    fn set_panic_policy(&mut self, policy: PanicPolicy) -> bool {
        self.set_panic_policy(policy);
        true
    }

    fn has_panicked(&self) -> bool {
        self.has_panicked()
    }

    fn is_paused(&self) -> bool {
        self.is_paused()
    }

    fn inject(&mut self, input: &Input) -> Result<(), InjectError> {
        self.inject(input)
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.outputs()
    }

    fn visible_outputs(&self) -> u64 {
        self.visible_outputs()
    }

    fn instruction_count(&self) -> InstructionCount {
        self.instruction_count()
    }

    fn guest_time_ns(&self) -> u64 {
        self.guest_time_ns()
    }

    fn clock(&self) -> ClockRecord {
        self.clock()
    }

    fn board(&self) -> &BoardConfig {
        &self.config().board
    }

    fn unix_base_ns(&self) -> u64 {
        self.config().unix_base_ns
    }

    fn configuration_hash(&self) -> u64 {
        configuration_hash(&self.config().board)
    }

    fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.open_disk_requests()
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot()
    }

    fn begin_snapshot(&mut self, extent: Extent) -> SnapshotHead {
        self.begin_snapshot(extent)
    }

    fn pages_changed(&self) -> usize {
        self.pages_changed()
    }

    fn capture(&mut self) -> Option<Capture<'_>> {
        self.capture()
    }

    fn begin_checkpoints(&mut self) {
        self.begin_checkpoints();
    }

    fn take_checkpoint(&mut self, page: &mut dyn FnMut(usize, &[u8])) -> Vec<u8> {
        self.take_checkpoint(page)
    }

    fn page(&self, index: usize) -> Option<&[u8]> {
        self.page(index)
    }

    fn pages_since_checkpoint(&self) -> usize {
        self.pages_since_checkpoint()
    }

    fn apply_checkpoint(&mut self, state: &[u8], pages: &[PageBatch]) -> Result<(), SnapshotError> {
        self.apply_checkpoint(state, pages)
    }

    fn pages_in_use(&self) -> usize {
        self.pages_in_use()
    }

    fn digest(&mut self) -> u128 {
        self.digest()
    }

    fn set_engine(&mut self, engine: Engine) -> Engine {
        self.set_engine(engine)
    }

    fn engine(&self) -> Engine {
        self.engine()
    }

    fn set_chaos(&mut self, seed: Option<u64>) {
        self.set_chaos(seed);
    }

    fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        let length = buffer.len() as u64;
        let bytes = self.memory(address, length);
        buffer.copy_from_slice(bytes.ok_or(OutsideRam { address, length })?);
        Ok(())
    }

    fn memory_regions(&self) -> Vec<Region> {
        ram::guest_regions(self.config().board.memory_bytes)
    }

    fn debuggable(&mut self) -> Option<&mut dyn Debuggable> {
        Some(self)
    }

    fn describe(&self) -> String {
        self.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that never runs is no kernel of a guest.
    #[test]
    fn what_stands_beside_firmware_is_refused_by_name() {
        let firmware = Some(vec![0]);
        let with = |kernel: Option<Vec<u8>>, initrd, command_line: &str| BootImages {
            firmware: firmware.clone(),
            kernel,
            initrd,
            command_line: command_line.into(),
        };
        let one = || Some(vec![1]);
        assert_eq!(check_beside_firmware(&with(None, None, "")), Ok(()));
        for (images, what) in [
            (with(one(), None, ""), "a kernel"),
            (with(None, one(), ""), "an initrd"),
            (with(None, None, "quiet"), "a kernel command line"),
        ] {
            assert_eq!(
                check_beside_firmware(&images),
                Err(Unsupported::Beside(what))
            );
        }
        let kernel_only = BootImages {
            kernel: one(),
            ..BootImages::default()
        };
        assert_eq!(check_beside_firmware(&kernel_only), Ok(()));
    }
}
