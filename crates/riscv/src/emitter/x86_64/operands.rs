//! Which integer registers an instruction that is emitted here reads and writes, and how much of them.

use super::float::is_emitted_float;
use crate::interpreter::block::{DecodedOp, writes_float};
use crate::isa::Op;

/// How much of a source counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// All 64 bits.
    Long,
    /// The low 32 bits at most.
    Word,
    /// All bits; but where each such source of the instruction is a sign-extended word, the low
    /// halves will do: the result has the low half then that it should have.
    Alike,
}

/// An integer register that is read.
pub type Source = (u8, Width);

/// The integer registers that `op` reads: rs1 and rs2.
pub fn sources(op: &DecodedOp) -> [Option<Source>; 2] {
    use Op::*;
    use Width::*;
    let (a, b) = match op.op {
        Lui | Auipc | Jal | Fence => (None, None),
        Lb | Lh | Lw | Ld | Lbu | Lhu | Lwu | Jalr | Flw | Fld | Fsw | Fsd => (Some(Long), None),
        Sb | Sh | Sw => (Some(Long), Some(Word)),
        Sd => (Some(Long), Some(Long)),
        Beq | Bne | Blt | Bge | Bltu | Bgeu | Slt | Sltu | Xor | Or | And => {
            (Some(Alike), Some(Alike))
        }
        Slti | Sltiu | Xori | Ori => (Some(Alike), None),
        // A positive mask leaves nothing of the upper half.
        Andi if op.immediate >= 0 => (Some(Word), None),
        Andi => (Some(Alike), None),
        Slli if op.immediate & 63 >= 32 => (Some(Word), None),
        Addi | Slli | Srli | Srai => (Some(Long), None),
        Addiw | Slliw | Srliw | Sraiw => (Some(Word), None),
        Addw | Subw | Mulw | Sllw | Srlw | Sraw | Divw | Divuw | Remw | Remuw => {
            (Some(Word), Some(Word))
        }
        Sll | Srl | Sra | Rol | Ror | Bclr | Bext | Binv | Bset => (Some(Long), Some(Word)),
        AddUw | Sh1addUw | Sh2addUw | Sh3addUw => (Some(Word), Some(Long)),
        Andn | Orn | Xnor => (Some(Alike), Some(Alike)),
        Rolw | Rorw => (Some(Word), Some(Word)),
        SlliUw | Clzw | Ctzw | Cpopw | SextB | SextH | ZextH | Roriw => (Some(Word), None),
        Clz | Ctz | Cpop | Rori | OrcB | Rev8 | Bclri | Bexti | Binvi | Bseti => (Some(Long), None),
        Csrrwi | Csrrsi | Csrrci => (None, None),
        Csrrw | Csrrs | Csrrc | LrW | LrD | CboZero => (Some(Long), None),
        _ if is_emitted_float(op.op) => (reads_integer(op.op).then_some(Long), None),
        _ => (Some(Long), Some(Long)),
    };
    let of = |width: Option<Width>, register| width.map(|width| (register, width));
    [of(a, op.rs1), of(b, op.rs2)].map(|source| source.filter(|(register, _)| *register != 0))
}

/// Floating-point instructions whose first source is an integer register.
fn reads_integer(op: Op) -> bool {
    use Op::*;
    matches!(
        op,
        FmvWX | FmvDX | FcvtSW | FcvtSWu | FcvtSL | FcvtSLu | FcvtDW | FcvtDWu | FcvtDL | FcvtDLu
    )
}

/// The integer register that `op` writes.
pub fn destination(op: &DecodedOp) -> Option<u8> {
    use Op::*;
    let is_none = matches!(
        op.op,
        Beq | Bne | Blt | Bge | Bltu | Bgeu | Sb | Sh | Sw | Sd | Fsw | Fsd | Fence | CboZero
    );
    (!is_none && !writes_float(op.op) && (1..32).contains(&op.rd)).then_some(op.rd)
}
