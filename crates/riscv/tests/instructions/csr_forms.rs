//! The forms of Zicsr's instructions (unprivileged specification, 7.1), for tests of what lies behind
//! a CSR.

pub use crate::assembler::CSR_FORMS;
use crate::assembler::register::*;
use riscv::isa::Op;

/// Destination and source: with and without a register of the host, the same one, none.
pub const REGISTERS: [(u8, u8); 5] = [(A1, A2), (T3, T4), (ZERO, A2), (A2, A2), (T3, T3)];

/// Whether its source is five bits of the instruction.
pub fn is_immediate(op: Op) -> bool {
    matches!(op, Op::Csrrwi | Op::Csrrsi | Op::Csrrci)
}

/// What a form writes.
pub fn changed(op: Op, old: u64, source: u64) -> u64 {
    match op {
        Op::Csrrw | Op::Csrrwi => source,
        Op::Csrrs | Op::Csrrsi => old | source,
        _ => old & !source,
    }
}
