//! MMX and SSE to SSE4.2, AES-NI, PCLMULQDQ, SHA and CRC32.
//!
//! [`execute`] takes the forms family by family, those that programs use most first. The files that
//! end the chain are pure functions on `u64` and `u128`: `integer`, `shuffle`, `crypto`, `strings`,
//! and `float` and `convert` for one lane of floating point.
//!
//! In the tables of forms, `m` is the unit with all that it reaches, `i` the instruction, `e` the
//! environment of one floating-point operation.

mod access;
mod bytewise;
mod convert;
mod crypto;
mod float;
mod floating;
mod integer;
mod moves;
mod mxcsr;
pub(crate) mod operations;
mod packed;
mod shuffle;
mod special;
mod strings;
mod unit;
mod vector;

use iced_x86::{Code, Instruction};
use serde::{Deserialize, Serialize};

use self::access::Outcome;
use self::unit::Unit;
use crate::fault::Fault;
use crate::operands::Operands;
use crate::x87::X87State;

/// XMM0 to XMM15 and MXCSR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorState {
    /// The registers; bit 0 is bit 0 of the lowest element.
    pub xmm: [u128; 16],
    /// Control and status.
    pub mxcsr: u32,
}

impl Default for VectorState {
    /// As after reset.
    fn default() -> VectorState {
        VectorState {
            xmm: [0; 16],
            mxcsr: 0x1f80,
        }
    }
}

/// Executes an MMX, SSE, AES, CLMUL or SHA instruction, FXSAVE and FXRSTOR among them.
///
/// # Errors
/// The fault that it ended in, with nothing changed but MXCSR's flags; #UD for what is not
/// announced.
pub fn execute(
    instruction: &Instruction,
    vector: &mut VectorState,
    x87: &mut X87State,
    operands: &mut impl Operands,
) -> Result<(), Fault> {
    let mut unit = Unit {
        vector,
        x87,
        operands,
    };
    let done = if touches_mmx(instruction) {
        mmx(&mut unit, instruction)?
    } else {
        sse(&mut unit, instruction)?
    };
    if done {
        Ok(())
    } else {
        Err(Fault::INVALID_OPCODE)
    }
}

/// Whether an instruction uses MMX registers, and so reports pending x87 exceptions.
#[inline]
fn touches_mmx(i: &Instruction) -> bool {
    i.op0_register().is_mm() || i.op1_register().is_mm() || i.code() == Code::Emms
}

fn sse<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    Ok(moves::whole(m, i)?
        || packed::sse(m, i)?
        || moves::partial(m, i)?
        || floating::arithmetic(m, i)?
        || floating::from_mmx(m, i)?
        || special::special(m, i)?
        || packed::operation(m, i)?)
}

fn mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    if m.x87.is_pending() {
        return Err(Fault::X87);
    }
    Ok(packed::mmx(m, i)?
        || moves::mmx(m, i)?
        || floating::to_mmx(m, i)?
        || floating::from_mmx(m, i)?)
}
