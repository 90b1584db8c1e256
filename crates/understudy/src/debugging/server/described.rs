//! Registers of whatever architecture, as its target description has them.

use gdbstub::arch::{Arch, RegId, Registers};
use std::num::NonZeroUsize;

/// Whatever architecture: its target description says which registers there are.
pub enum Described {}

impl Arch for Described {
    type Usize = u64;
    type Registers = RawRegisters;
    type BreakpointKind = usize;
    type RegId = RegisterNumber;
}

/// Registers as gdb gets them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawRegisters {
    program_counter: u64,
    bytes: Vec<u8>,
}

impl RawRegisters {
    /// These bytes.
    pub fn new(program_counter: u64, bytes: Vec<u8>) -> RawRegisters {
        RawRegisters {
            program_counter,
            bytes,
        }
    }
}

impl Registers for RawRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.program_counter
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

/// Number of a register in the target description. None is read alone.
#[derive(Debug)]
pub struct RegisterNumber;

impl RegId for RegisterNumber {
    fn from_raw_id(_: usize) -> Option<(RegisterNumber, Option<NonZeroUsize>)> {
        None
    }
}
