//! How the instructions reach their operands.

use iced_x86::{Instruction, OpKind};

use super::mxcsr::Environment;
use super::unit::Unit;
use crate::fault::Fault;
use crate::operands::Operands;

/// Whether the instruction was one of those asked for, or the fault that it ended in.
pub(super) type Outcome = Result<bool, Fault>;

/// The number of operand `n`'s register.
#[inline]
pub(super) fn register(i: &Instruction, n: u32) -> usize {
    i.op_register(n).number()
}

/// Whether operand `n` is in memory.
#[inline]
pub(super) fn in_memory(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Memory
}

/// The 16 bytes of operand `n`, which in memory are aligned.
#[inline]
pub(super) fn source<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    n: u32,
) -> Result<u128, Fault> {
    if !in_memory(i, n) {
        return Ok(m.xmm(register(i, n)));
    }
    Ok(u128::from_le_bytes(m.load_aligned()?))
}

/// The 16 bytes of operand `n`, wherever they are.
#[inline]
pub(super) fn source_unaligned<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    n: u32,
) -> Result<u128, Fault> {
    if !in_memory(i, n) {
        return Ok(m.xmm(register(i, n)));
    }
    Ok(u128::from_le_bytes(m.load()?))
}

/// The low `N` bytes of operand `n`, an XMM register or memory, extended with zeros.
#[inline]
pub(super) fn narrow<O: Operands, const N: usize>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    n: u32,
) -> Result<u64, Fault> {
    let bytes: [u8; N] = if in_memory(i, n) {
        m.load()?
    } else {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&m.xmm(register(i, n)).to_le_bytes()[..N]);
        bytes
    };
    let mut value = [0; 8];
    value[..N].copy_from_slice(&bytes);
    Ok(u64::from_le_bytes(value))
}

/// The 8 bytes of operand `n`, an MMX register or memory, of which some forms read 4.
#[inline]
pub(super) fn mmx_source<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    n: u32,
) -> Result<u64, Fault> {
    if !in_memory(i, n) {
        return Ok(m.x87.mmx(register(i, n)));
    }
    if i.memory_size().size() == 4 {
        return Ok(u32::from_le_bytes(m.load()?).into());
    }
    Ok(u64::from_le_bytes(m.load()?))
}

/// Writes the MMX register of operand 0, which ends x87's use of the registers.
#[inline]
pub(super) fn set_mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction, value: u64) {
    m.x87.enter_mmx();
    m.x87.set_mmx(register(i, 0), value);
}

/// Destination and source, both 16 bytes.
#[inline]
pub(super) fn binary<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u128, u128) -> u128,
) -> Outcome {
    let b = source(m, i, 1)?;
    let destination = register(i, 0);
    let a = m.xmm(destination);
    m.set_xmm(destination, operation(a, b));
    Ok(true)
}

/// Source only.
#[inline]
pub(super) fn unary<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u128) -> u128,
) -> Outcome {
    let a = source(m, i, 1)?;
    m.set_xmm(register(i, 0), operation(a));
    Ok(true)
}

/// The destination alone.
#[inline]
pub(super) fn in_place<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u128) -> u128,
) -> Outcome {
    let destination = register(i, 0);
    let a = m.xmm(destination);
    m.set_xmm(destination, operation(a));
    Ok(true)
}

/// Destination, source, and XMM0.
#[inline]
pub(super) fn with_xmm0<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u128, u128, u128) -> u128,
) -> Outcome {
    let xmm0 = m.xmm(0);
    binary(m, i, |a, b| operation(a, b, xmm0))
}

/// A source of `N` bytes.
#[inline]
pub(super) fn extension<O: Operands, const N: usize>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u128) -> u128,
) -> Outcome {
    let a = narrow::<O, N>(m, i, 1)?;
    m.set_xmm(register(i, 0), operation(a.into()));
    Ok(true)
}

/// A shift by the low quadword of the source.
#[inline]
pub(super) fn shift<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u128, u64) -> u128,
) -> Outcome {
    binary(m, i, |a, count| operation(a, count as u64))
}

/// A shift by the immediate byte.
#[inline]
pub(super) fn shift_immediate<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u128, u64) -> u128,
) -> Outcome {
    in_place(m, i, |a| operation(a, i.immediate8().into()))
}

/// [`binary`] of MMX.
#[inline]
pub(super) fn mmx_binary<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u64, u64) -> u64,
) -> Outcome {
    let b = mmx_source(m, i, 1)?;
    let a = m.x87.mmx(register(i, 0));
    set_mmx(m, i, operation(a, b));
    Ok(true)
}

/// [`unary`] of MMX.
#[inline]
pub(super) fn mmx_unary<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u64) -> u64,
) -> Outcome {
    let a = mmx_source(m, i, 1)?;
    set_mmx(m, i, operation(a));
    Ok(true)
}

/// [`shift_immediate`] of MMX.
#[inline]
pub(super) fn mmx_shift_immediate<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(u64, u64) -> u64,
) -> Outcome {
    let a = m.x87.mmx(register(i, 0));
    set_mmx(m, i, operation(a, i.immediate8().into()));
    Ok(true)
}

/// Keeps what an instruction raised, or ends it in #XM before it wrote anything.
#[inline]
pub(super) fn accumulate<O: Operands>(m: &mut Unit<'_, O>, e: &Environment) -> Result<(), Fault> {
    let mut mxcsr = m.mxcsr();
    let outcome = mxcsr.accumulate(e);
    m.set_mxcsr(mxcsr);
    outcome.map_err(|_| Fault::SIMD)
}
