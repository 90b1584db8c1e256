//! The contract: what whoever drives a machine may ask of it, of whatever architecture it is.

use crate::clock::TimeTurnsBack;
use crate::config::{BoardConfig, BootImages, MachineConfig, PanicPolicy};
use crate::debugging::Debuggable;
use crate::engine::Engine;
use crate::input::{ClockRecord, Input, InputError, InstructionCount};
use crate::memory::{Capture, Extent, OutsideRam, PageBatch, Region};
use crate::output::{DiskRequest, Finish, Output};
use crate::snapshot::{Snapshot, SnapshotError, SnapshotHead};
use std::error::Error;
use std::io::Read;
use thiserror::Error;

/// Why [`Machine::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The instruction count is the one asked for.
    Reached,
    /// Every hart waits for an interrupt: nothing happens before an input.
    Idle {
        /// Guest time, in nanoseconds, of the next timer, if one is set.
        wake_at_ns: Option<u64>,
    },
    /// An output waits that should not wait longer; collect it with [`Machine::outputs`].
    Output,
    /// The guest ended the machine. (One that resets begins anew instead, where the architecture can:
    /// see [`Machine::end_at_reset`].)
    Finished(Finish),
}

/// An input that cannot take effect. The machine is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InjectError {
    /// Guest time cannot turn back.
    #[error(transparent)]
    Clock(#[from] TimeTurnsBack),
    /// The device refused it.
    #[error(transparent)]
    Device(#[from] InputError),
}

/// Why an architecture cannot make a machine of a configuration: a sentence of its own.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A deterministic machine under some engine.
///
/// Given the same snapshot and the same inputs at the same instruction counts it is bit-identical at
/// every instruction count, on every host, under every engine. It touches nothing outside itself.
pub trait Machine: Send {
    /// Executes until the instruction count is `until`, or until something stops it before.
    fn run(&mut self, until: InstructionCount) -> Stop;

    /// A guest that resets ends its machine from here on, instead of beginning anew within
    /// [`Machine::run`], at the count of the instruction that asked for it. Machines that cannot begin
    /// anew always end. It is part of the state.
    fn end_at_reset(&mut self) {}

    /// What is done from here on when the guest's kernel panics. It is part of the state. False, and
    /// nothing changes, where the architecture's board has nothing by which a guest could say so.
    fn set_panic_policy(&mut self, policy: PanicPolicy) -> bool {
        policy == PanicPolicy::Report
    }

    /// Whether the guest's kernel panicked since it was booted.
    fn has_panicked(&self) -> bool {
        false
    }

    /// Whether it stands still, between [`Input::Pause`] and [`Input::Resume`]: [`Machine::run`] says
    /// [`Stop::Idle`] without a timer. It is part of the state.
    fn is_paused(&self) -> bool;

    /// Lets an input take effect exactly here.
    ///
    /// # Errors
    /// The machine expected no such input; it is as it was.
    fn inject(&mut self, input: &Input) -> Result<(), InjectError>;

    /// Takes what the machine wants the world to see or do, in order.
    fn outputs(&mut self) -> Vec<Output>;

    /// Frames and console bytes since power-on, collected or not.
    fn visible_outputs(&self) -> u64;

    /// Retired instructions since power-on, over all harts.
    fn instruction_count(&self) -> InstructionCount;

    /// Guest time, in nanoseconds since power-on.
    fn guest_time_ns(&self) -> u64;

    /// The last clock record.
    fn clock(&self) -> ClockRecord;

    /// Memory, harts and devices.
    fn board(&self) -> &BoardConfig;

    /// Unix time at power-on, in nanoseconds.
    fn unix_base_ns(&self) -> u64;

    /// As [`Architecture::configuration_hash`].
    fn configuration_hash(&self) -> u64;

    /// Disk requests without completion, oldest first for each disk: to be issued again by who goes
    /// live or restores a snapshot.
    fn open_disk_requests(&self) -> Vec<DiskRequest>;

    /// Copies the whole state, for which the guest stands still as long as its memory is large.
    fn snapshot(&self) -> Snapshot;

    /// Begins a snapshot of this moment that is taken while the machine runs on: everything but RAM.
    /// One that is under way ends without a result.
    fn begin_snapshot(&mut self, extent: Extent) -> SnapshotHead;

    /// Pages of RAM that were written since the last round of a copy began: what the next one holds.
    fn pages_changed(&self) -> usize;

    /// The RAM of the snapshot that was begun, as far as it was not taken yet; `None` when none is under
    /// way. The guest cannot see it.
    fn capture(&mut self) -> Option<Capture<'_>>;

    /// Checkpoints begin here: the next one ([`Extent::Checkpoint`]) holds the pages that are written from
    /// here on.
    fn begin_checkpoints(&mut self);

    /// Takes a checkpoint of this moment all at once: gives the state, as in its [`SnapshotHead`], and calls
    /// `page` for every page that was written since the one before.
    fn take_checkpoint(&mut self, page: &mut dyn FnMut(usize, &[u8])) -> Vec<u8>;

    /// The bytes of this page of RAM; `None` if there is none.
    fn page(&self, index: usize) -> Option<&[u8]>;

    /// Pages of RAM that the next checkpoint holds, so far.
    fn pages_since_checkpoint(&self) -> usize;

    /// The machine is from here on what another one was at a checkpoint: `state` is that of its
    /// [`SnapshotHead`], `pages` are those that were written since the checkpoint, or the snapshot, that this
    /// machine is of, and it has executed nothing since.
    ///
    /// # Errors
    /// The state or a page is no such machine's; this one is as it was.
    fn apply_checkpoint(&mut self, state: &[u8], pages: &[PageBatch]) -> Result<(), SnapshotError>;

    /// Pages of RAM in use, as last known: an estimate of what a snapshot holds.
    fn pages_in_use(&self) -> usize;

    /// A digest of the whole state: equal on two replicas if and only if their states are equal.
    fn digest(&mut self) -> u128;

    /// Chooses what executes instructions from here on, and says what it is on this host. At first
    /// (and after [`Architecture::restore`]) it is the interpreter.
    fn set_engine(&mut self, engine: Engine) -> Engine;

    /// What executes instructions.
    fn engine(&self) -> Engine;

    /// For tests: at places that depend on the seed only, the engine disturbs its own caches and
    /// changes what it compiles. The guest cannot see it.
    fn set_chaos(&mut self, seed: Option<u64>);

    /// Bytes of RAM at a guest physical address.
    ///
    /// # Errors
    /// Not all of them are RAM.
    fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam>;

    /// Which guest physical addresses are RAM, in their order: what [`Machine::read_memory`] reads.
    fn memory_regions(&self) -> Vec<Region>;

    /// The machine for debuggers, where its architecture has something for them.
    fn debuggable(&mut self) -> Option<&mut dyn Debuggable> {
        None
    }

    /// Where every hart is, for people who look for a fault.
    fn describe(&self) -> String;
}

/// An architecture: where machines come from.
pub trait Architecture: Send + Sync {
    /// Its name, for example `riscv64`: of 1 to 255 bytes. Snapshots carry it.
    fn name(&self) -> &'static str;

    /// Number of the semantics: what its machines compute from the same inputs. Two builds replay
    /// each other's logs only when it is equal; every change of an instruction, a device or the clock
    /// that a guest could see raises it.
    fn semantics_version(&self) -> u32;

    /// The engine that runs on this host where this one is asked for: the interpreter, if there is
    /// no JIT for it.
    fn available(&self, engine: Engine) -> Engine;

    /// Equal for machines that can replay each other's inputs: architecture, semantics, memory,
    /// harts, devices and features, but not the calendar at power-on.
    ///
    /// # Errors
    /// The architecture has no such feature.
    fn configuration_hash(&self, config: &MachineConfig) -> Result<u64, Failure>;

    /// A machine at power-on, its images loaded.
    ///
    /// # Errors
    /// There is no such board, or the images do not fit it.
    fn power_on(
        &self,
        config: &MachineConfig,
        images: &BootImages,
    ) -> Result<Box<dyn Machine>, Failure>;

    /// The machine as it was when the snapshot was taken.
    ///
    /// # Errors
    /// The snapshot is damaged, of another architecture or of other semantics.
    fn restore(&self, snapshot: &Snapshot) -> Result<Box<dyn Machine>, SnapshotError>;

    /// The same, made while the snapshot is read as [`Snapshot::write_to`] wrote it: its pages are
    /// nowhere but in the machine's memory.
    ///
    /// # Errors
    /// As [`Architecture::restore`], and when reading fails.
    fn restore_from(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, SnapshotError>;
}
