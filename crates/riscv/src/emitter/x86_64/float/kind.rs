//! What the instructions that are done here have in common.

use super::Format;
use super::rm;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;

/// Instructions that are emitted alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Load,
    Store,
    /// Addition, subtraction, multiplication, division.
    Binary,
    SquareRoot,
    /// Multiplication and addition.
    Fused,
    Minimum,
    Compare,
    /// Sign injection.
    Sign,
    /// Bits from an integer register or to one.
    Move,
    BetweenFormats,
    FromInteger,
    ToInteger,
}

impl Kind {
    /// The kind of an instruction; none if it is not done here.
    pub fn of(op: Op) -> Option<Kind> {
        use Op::*;
        Some(match op {
            Flw | Fld => Kind::Load,
            Fsw | Fsd => Kind::Store,
            FaddS | FsubS | FmulS | FdivS | FaddD | FsubD | FmulD | FdivD => Kind::Binary,
            FsqrtS | FsqrtD => Kind::SquareRoot,
            FmaddS | FmsubS | FnmsubS | FnmaddS | FmaddD | FmsubD | FnmsubD | FnmaddD => {
                Kind::Fused
            }
            FminS | FmaxS | FminD | FmaxD => Kind::Minimum,
            FeqS | FltS | FleS | FeqD | FltD | FleD => Kind::Compare,
            FsgnjS | FsgnjnS | FsgnjxS | FsgnjD | FsgnjnD | FsgnjxD => Kind::Sign,
            FmvXW | FmvXD | FmvWX | FmvDX => Kind::Move,
            FcvtDS | FcvtSD => Kind::BetweenFormats,
            FcvtSW | FcvtSWu | FcvtSL | FcvtSLu | FcvtDW | FcvtDWu | FcvtDL | FcvtDLu => {
                Kind::FromInteger
            }
            FcvtWS | FcvtWuS | FcvtLS | FcvtLuS | FcvtWD | FcvtWuD | FcvtLD | FcvtLuD => {
                Kind::ToInteger
            }
            _ => return None,
        })
    }

    /// Whether the instruction rounds by `frm`.
    pub fn rounds_dynamically(self, op: DecodedOp) -> bool {
        use Kind::*;
        matches!(
            self,
            Binary | SquareRoot | Fused | BetweenFormats | FromInteger | ToInteger
        ) && op.immediate & 7 == rm::DYN
    }

    /// How many of rs1, rs2 and rs3 it computes with.
    fn operands(self) -> usize {
        match self {
            Kind::Load | Kind::Store | Kind::Move | Kind::FromInteger => 0,
            Kind::SquareRoot | Kind::BetweenFormats | Kind::ToInteger => 1,
            Kind::Binary | Kind::Minimum | Kind::Compare | Kind::Sign => 2,
            Kind::Fused => 3,
        }
    }

    /// The F registers that it computes with.
    pub fn sources(self, op: DecodedOp) -> impl Iterator<Item = u8> {
        [op.rs1, op.rs2, rs3(op)].into_iter().take(self.operands())
    }
}

/// The third source.
pub fn rs3(op: DecodedOp) -> u8 {
    (op.immediate >> 8) as u8 & 31
}

/// The format of the sources, or of the result where those are integers.
pub fn format(op: Op) -> Format {
    if op as u8 <= Op::FmvWX as u8 || op == Op::FcvtDS {
        Format::Single
    } else {
        Format::Double
    }
}
