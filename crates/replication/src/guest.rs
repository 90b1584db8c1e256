//! What the replication core needs of a machine.

use crate::record::InstructionCount;
use std::fmt;

/// Why a guest stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestStop {
    /// The instruction count that was asked for.
    Reached,
    /// All harts wait; only an input lets it go on.
    Idle,
    /// An output waits that should be collected now.
    Output,
    /// The guest ended the machine.
    Finished,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// It took effect.
    Done,
    /// It needs something of this host first (its own disk's completion): try again soon.
    NotYet,
}

/// An input that this guest cannot take: it is not the guest that recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectionError(pub String);

impl fmt::Display for InjectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InjectionError {}

const NO_CHECKPOINTS: &str = "a checkpoint, for a machine that executes";

/// A deterministic machine: the same inputs at the same instruction counts give the same outputs.
pub trait Guest {
    /// What it wants the world to see or do.
    type Output;

    /// Retired instructions since power-on.
    fn instruction_count(&self) -> InstructionCount;

    /// Runs until `until` (an instruction count, not before the present one), or stops before.
    fn run(&mut self, until: InstructionCount) -> GuestStop;

    /// Lets an input take effect here.
    fn inject(&mut self, input: &[u8]) -> Result<Injection, InjectionError>;

    /// Holds a piece of the next checkpoint: see [`RecordBody::Piece`](crate::record::RecordBody::Piece). Only a
    /// guest that is brought along by its state takes any.
    fn hold_piece(&mut self, _piece: &[u8]) -> Result<(), InjectionError> {
        Err(InjectionError(NO_CHECKPOINTS.into()))
    }

    /// Becomes what the pieces that are held make of it, at instruction count `count`, or stays what it was.
    fn apply_checkpoint(
        &mut self,
        _count: InstructionCount,
        _checkpoint: &[u8],
    ) -> Result<Injection, InjectionError> {
        Err(InjectionError(NO_CHECKPOINTS.into()))
    }

    /// A digest of what it has written to shared disks since the last call, or since it was restored, in order: see
    /// [`RecordBody::Written`](crate::record::RecordBody::Written). 0 where nothing was.
    fn take_written(&mut self) -> u128 {
        0
    }

    /// Takes the outputs that wait, in order.
    fn take_outputs(&mut self) -> Vec<Self::Output>;

    /// Frames and console bytes since power-on, including those that wait.
    fn visible_outputs(&self) -> u64;

    /// Equal on two replicas if and only if their states are equal.
    fn digest(&mut self) -> u128;
}
