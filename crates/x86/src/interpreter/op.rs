//! Decoded instructions, as the interpreter keeps them.

use super::core::{Core, Raised};
use iced_x86::Instruction;

/// What executes an instruction.
pub(crate) type Handler = fn(&mut Core<'_>, &Op) -> Result<(), Raised>;

/// Register number that always reads as zero.
pub(crate) const ZERO: u8 = 16;
/// Register number of the address of the next instruction.
pub(crate) const RIP: u8 = 17;

/// One instruction. `base` + (`index` << `scale`) + `displacement` + the segment's base is its memory
/// operand, if it has one.
pub(crate) struct Op {
    pub handler: Handler,
    /// Immediate, sign-extended; a branch's displacement.
    pub immediate: u64,
    pub displacement: i32,
    /// Offset of the next instruction in the page of the first byte's.
    pub next: u16,
    pub length: u8,
    /// Register of the destination, or what the handler likes.
    pub target: u8,
    pub source: u8,
    pub base: u8,
    pub index: u8,
    pub scale: u8,
    /// Index in the segments.
    pub segment: u8,
    /// The address is cut to 32 bits.
    pub is_address_32: bool,
    /// REP prefixes, sizes: what the handler likes.
    pub detail: u8,
    /// For the handlers that need all of it.
    pub instruction: Option<Box<Instruction>>,
}
