//! One table of instructions, one file per extension: what both engines, the tests and the
//! disassembly decode and encode with.

pub mod atomic;
pub mod base;
pub mod bit_manipulation;
pub mod cache_block;
pub mod compressed;
pub mod conditional;
mod extension;
pub mod float;
pub mod format;
pub mod multiply;
pub mod system;

pub use extension::{Extension, Extensions};
pub use format::Format;

use std::sync::LazyLock;

/// What an instruction does. Compressed instructions are expanded to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
#[allow(missing_docs)] // the names are the specification's mnemonics
pub enum Op {
    // RV64I
    Lui, Auipc, Jal, Jalr, Beq, Bne, Blt, Bge, Bltu, Bgeu,
    Lb, Lh, Lw, Ld, Lbu, Lhu, Lwu, Sb, Sh, Sw, Sd,
    Addi, Slti, Sltiu, Xori, Ori, Andi, Slli, Srli, Srai,
    Add, Sub, Sll, Slt, Sltu, Xor, Srl, Sra, Or, And,
    Addiw, Slliw, Srliw, Sraiw, Addw, Subw, Sllw, Srlw, Sraw,
    Fence, Pause,
    // M
    Mul, Mulh, Mulhsu, Mulhu, Div, Divu, Rem, Remu, Mulw, Divw, Divuw, Remw, Remuw,
    // A
    LrW, ScW, AmoswapW, AmoaddW, AmoxorW, AmoandW, AmoorW, AmominW, AmomaxW, AmominuW, AmomaxuW,
    LrD, ScD, AmoswapD, AmoaddD, AmoxorD, AmoandD, AmoorD, AmominD, AmomaxD, AmominuD, AmomaxuD,
    // Zba
    AddUw, Sh1add, Sh2add, Sh3add, Sh1addUw, Sh2addUw, Sh3addUw, SlliUw,
    // Zbb
    Andn, Orn, Xnor, Clz, Ctz, Cpop, Clzw, Ctzw, Cpopw, Max, Maxu, Min, Minu,
    SextB, SextH, ZextH, Rol, Ror, Rori, Rolw, Rorw, Roriw, OrcB, Rev8,
    // Zbs
    Bclr, Bext, Binv, Bset, Bclri, Bexti, Binvi, Bseti,
    // Zbc
    Clmul, Clmulh, Clmulr,
    // Zicond
    CzeroEqz, CzeroNez,
    // Zicbom, Zicboz
    CboInval, CboClean, CboFlush, CboZero,
    // Zawrs
    WrsNto, WrsSto,
    // F
    Flw, Fsw, FmaddS, FmsubS, FnmsubS, FnmaddS, FaddS, FsubS, FmulS, FdivS, FsqrtS,
    FsgnjS, FsgnjnS, FsgnjxS, FminS, FmaxS, FcvtWS, FcvtWuS, FcvtLS, FcvtLuS, FmvXW,
    FeqS, FltS, FleS, FclassS, FcvtSW, FcvtSWu, FcvtSL, FcvtSLu, FmvWX,
    // D
    Fld, Fsd, FmaddD, FmsubD, FnmsubD, FnmaddD, FaddD, FsubD, FmulD, FdivD, FsqrtD,
    FsgnjD, FsgnjnD, FsgnjxD, FminD, FmaxD, FcvtSD, FcvtDS, FcvtWD, FcvtWuD, FcvtLD, FcvtLuD, FmvXD,
    FeqD, FltD, FleD, FclassD, FcvtDW, FcvtDWu, FcvtDL, FcvtDLu, FmvDX,
    // Zfhmin
    Flh, Fsh, FmvXH, FmvHX, FcvtSH, FcvtHS, FcvtDH, FcvtHD,
    // Zfa
    FliS, FminmS, FmaxmS, FroundS, FroundnxS, FltqS, FleqS,
    FliD, FminmD, FmaxmD, FroundD, FroundnxD, FltqD, FleqD, FcvtmodWD,
    // Zicsr, Zifencei, privileged
    Csrrw, Csrrs, Csrrc, Csrrwi, Csrrsi, Csrrci, FenceI,
    Ecall, Ebreak, Mret, Sret, Wfi, SfenceVma,
    // Svinval
    SinvalVma, SfenceWInval, SfenceInvalIr,
    /// Not an instruction of this machine; `immediate` holds the bits.
    Illegal,
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// Destination register, 0 where there is none.
    pub rd: u8,
    /// First source register, or the 5-bit immediate of `csrr*i`; 0 where there is none.
    pub rs1: u8,
    /// Second source register; 0 where there is none.
    pub rs2: u8,
    /// The immediate, sign-extended; the CSR's number; for floating point `rs3 << 8 | rm`; for
    /// atomics `aq << 1 | rl`; for `fence` its upper twelve bits; the bits of an illegal instruction.
    pub immediate: i32,
    /// Bytes: 2 or 4.
    pub length: u8,
}

/// A row of the table: the bits under `mask` equal `bits` in every encoding of `op`.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// The specification's mnemonic.
    pub name: &'static str,
    /// What it does.
    pub op: Op,
    /// Where its fields are.
    pub format: Format,
    /// The fixed bits.
    pub mask: u32,
    /// Their values.
    pub bits: u32,
}

/// All rows, extension by extension.
pub fn encodings() -> impl Iterator<Item = &'static Encoding> {
    [
        base::ROWS,
        multiply::ROWS,
        atomic::ROWS,
        atomic::WAITING,
        bit_manipulation::ADDRESS_GENERATION,
        bit_manipulation::BASIC,
        bit_manipulation::SINGLE_BIT,
        bit_manipulation::CARRY_LESS,
        conditional::ROWS,
        cache_block::ROWS,
        float::SINGLE,
        float::DOUBLE,
        float::HALF,
        float::ADDITIONAL,
        system::ROWS,
        system::INVALIDATION,
    ]
    .into_iter()
    .flatten()
}

/// The rows by the five bits above the two lowest (the major opcode).
static BY_OPCODE: LazyLock<Vec<Vec<Encoding>>> = LazyLock::new(|| {
    let mut rows = vec![Vec::new(); 32];
    for encoding in encodings() {
        rows[(encoding.bits >> 2 & 31) as usize].push(*encoding);
    }
    rows
});

/// Bytes of the instruction that begins with this half-word (unprivileged specification, 1.5).
#[inline]
pub fn length(first_half: u16) -> u8 {
    if first_half & 3 == 3 { 4 } else { 2 }
}

/// Decodes the instruction in the low bits of `bits`; one of an extension that is not among these is
/// illegal.
pub fn decode(bits: u32, extensions: Extensions) -> Instruction {
    if length(bits as u16) == 2 {
        let mut instruction = compressed::decode(bits as u16, extensions);
        instruction.length = 2;
        return instruction;
    }
    BY_OPCODE[(bits >> 2 & 31) as usize]
        .iter()
        .find(|row| bits & row.mask == row.bits)
        .filter(|row| extensions.include(row.op))
        .map_or_else(|| illegal(bits, 4), |row| row.format.decode(row.op, bits))
}

/// Encodes an instruction in its 32-bit form; `None` if a field does not fit or the instruction is
/// [`Op::Illegal`].
pub fn encode(instruction: &Instruction) -> Option<u32> {
    let row = encodings().find(|row| row.op == instruction.op)?;
    row.format.encode(row.bits, instruction)
}

pub(crate) const fn illegal(bits: u32, length: u8) -> Instruction {
    Instruction {
        op: Op::Illegal,
        rd: 0,
        rs1: 0,
        rs2: 0,
        immediate: bits as i32,
        length,
    }
}

const fn row(name: &'static str, op: Op, format: Format, mask: u32, bits: u32) -> Encoding {
    assert!(bits & !mask == 0, "a fixed bit is outside the mask");
    Encoding {
        name,
        op,
        format,
        mask,
        bits,
    }
}
