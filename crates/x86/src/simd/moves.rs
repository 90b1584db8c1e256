//! Moves: between registers and memory, with and without alignment, of parts of registers.

use iced_x86::{Code, Instruction};

use super::access::{
    Outcome, in_memory, mmx_source, narrow, register, set_mmx, source, source_unaligned,
};
use super::shuffle::{self, qwords};
use super::unit::Unit;
use super::vector::Vector;
use crate::fault::Fault;
use crate::operands::Operands;

/// Executes a move of whole registers. Tells whether it was one.
#[inline(always)]
pub(super) fn whole<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Movdqa_xmm_xmmm128
        | Code::Movaps_xmm_xmmm128
        | Code::Movapd_xmm_xmmm128
        | Code::Movntdqa_xmm_m128 => {
            let value = source(m, i, 1)?;
            m.set_xmm(register(i, 0), value);
        }
        Code::Movdqu_xmm_xmmm128
        | Code::Movups_xmm_xmmm128
        | Code::Movupd_xmm_xmmm128
        | Code::Lddqu_xmm_m128 => {
            let value = source_unaligned(m, i, 1)?;
            m.set_xmm(register(i, 0), value);
        }
        Code::Movdqa_xmmm128_xmm
        | Code::Movaps_xmmm128_xmm
        | Code::Movapd_xmmm128_xmm
        | Code::Movntdq_m128_xmm
        | Code::Movntps_m128_xmm
        | Code::Movntpd_m128_xmm => {
            let value = m.xmm(register(i, 1));
            if in_memory(i, 0) {
                m.store_aligned(value.to_le_bytes())?;
            } else {
                m.set_xmm(register(i, 0), value);
            }
        }
        Code::Movdqu_xmmm128_xmm | Code::Movups_xmmm128_xmm | Code::Movupd_xmmm128_xmm => {
            let value = m.xmm(register(i, 1));
            if in_memory(i, 0) {
                m.store(value.to_le_bytes())?;
            } else {
                m.set_xmm(register(i, 0), value);
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Executes a move of parts of registers. Tells whether it was one.
#[inline(always)]
pub(super) fn partial<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Movss_xmm_xmmm32 => {
            let low = narrow::<O, 4>(m, i, 1)?;
            merge(m, i, low, u32::MAX.into());
        }
        Code::Movsd_xmm_xmmm64 => {
            let low = narrow::<O, 8>(m, i, 1)?;
            merge(m, i, low, u64::MAX);
        }
        Code::Movss_xmmm32_xmm => {
            let low = m.xmm(register(i, 1)) as u32;
            if in_memory(i, 0) {
                m.store(low.to_le_bytes())?;
            } else {
                merge(m, i, low.into(), u32::MAX.into());
            }
        }
        Code::Movsd_xmmm64_xmm => {
            let low = m.xmm(register(i, 1)) as u64;
            if in_memory(i, 0) {
                m.store(low.to_le_bytes())?;
            } else {
                merge(m, i, low, u64::MAX);
            }
        }
        Code::Movq_xmm_xmmm64 => {
            let low = narrow::<O, 8>(m, i, 1)?;
            m.set_xmm(register(i, 0), low.into());
        }
        Code::Movq_xmmm64_xmm => {
            let low = m.xmm(register(i, 1)) as u64;
            if in_memory(i, 0) {
                m.store(low.to_le_bytes())?;
            } else {
                m.set_xmm(register(i, 0), low.into());
            }
        }
        Code::Movlps_m64_xmm | Code::Movlpd_m64_xmm => {
            let low = m.xmm(register(i, 1)).qword(0);
            m.store(low.to_le_bytes())?;
        }
        Code::Movhps_m64_xmm | Code::Movhpd_m64_xmm => {
            let high = m.xmm(register(i, 1)).qword(1);
            m.store(high.to_le_bytes())?;
        }
        Code::Movlps_xmm_m64 | Code::Movlpd_xmm_m64 => {
            let low = narrow::<O, 8>(m, i, 1)?;
            update(m, i, |a| qwords(low, a.qword(1)));
        }
        Code::Movhps_xmm_m64 | Code::Movhpd_xmm_m64 => {
            let high = narrow::<O, 8>(m, i, 1)?;
            update(m, i, |a| qwords(a.qword(0), high));
        }
        Code::Movhlps_xmm_xmm => {
            let b = m.xmm(register(i, 1));
            update(m, i, |a| qwords(b.qword(1), a.qword(1)));
        }
        Code::Movlhps_xmm_xmm => {
            let b = m.xmm(register(i, 1));
            update(m, i, |a| qwords(a.qword(0), b.qword(0)));
        }
        Code::Movsldup_xmm_xmmm128 => {
            let a = source(m, i, 1)?;
            m.set_xmm(register(i, 0), u128::build32(|k| a.dword(k & !1)));
        }
        Code::Movshdup_xmm_xmmm128 => {
            let a = source(m, i, 1)?;
            m.set_xmm(register(i, 0), u128::build32(|k| a.dword(k | 1)));
        }
        Code::Movddup_xmm_xmmm64 => {
            let a = narrow::<O, 8>(m, i, 1)?;
            m.set_xmm(register(i, 0), qwords(a, a));
        }
        Code::Movmskps_r32_xmm | Code::Movmskps_r64_xmm => {
            let mask = shuffle::movmskps(m.xmm(register(i, 1)));
            m.set_gpr(i.op0_register(), mask.into());
        }
        Code::Movmskpd_r32_xmm | Code::Movmskpd_r64_xmm => {
            let mask = shuffle::movmskpd(m.xmm(register(i, 1)));
            m.set_gpr(i.op0_register(), mask.into());
        }
        Code::Pmovmskb_r32_xmm | Code::Pmovmskb_r64_xmm => {
            let mask = shuffle::pmovmskb(m.xmm(register(i, 1)));
            m.set_gpr(i.op0_register(), mask.into());
        }
        Code::Maskmovdqu_rDI_xmm_xmm => {
            let value = m.xmm(register(i, 1));
            let mask = m.xmm(register(i, 2));
            masked(m, value, mask, 16)?;
        }
        _ => return general(m, i),
    }
    Ok(true)
}

/// Executes a move between a vector register and a general register or its size of memory. Tells
/// whether it was one.
#[inline(always)]
fn general<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Movd_xmm_rm32 => {
            let value = general_source::<O, 4>(m, i)?;
            m.set_xmm(register(i, 0), value.into());
        }
        Code::Movq_xmm_rm64 => {
            let value = general_source::<O, 8>(m, i)?;
            m.set_xmm(register(i, 0), value.into());
        }
        Code::Movd_rm32_xmm => {
            let value = m.xmm(register(i, 1)) as u32;
            general_destination(m, i, value.into(), value.to_le_bytes())?;
        }
        Code::Movq_rm64_xmm => {
            let value = m.xmm(register(i, 1)) as u64;
            general_destination(m, i, value, value.to_le_bytes())?;
        }
        Code::Movnti_m32_r32 => {
            let value = m.gpr(i.op1_register()) as u32;
            m.store(value.to_le_bytes())?;
        }
        Code::Movnti_m64_r64 => {
            let value = m.gpr(i.op1_register());
            m.store(value.to_le_bytes())?;
        }
        Code::Pinsrb_xmm_r32m8_imm8 | Code::Pinsrb_xmm_r64m8_imm8 => {
            let value = general_source::<O, 1>(m, i)? as u8;
            update(m, i, |a| {
                a.with_byte(usize::from(i.immediate8() & 15), value)
            });
        }
        Code::Pinsrw_xmm_r32m16_imm8 | Code::Pinsrw_xmm_r64m16_imm8 => {
            let value = general_source::<O, 2>(m, i)? as u16;
            update(m, i, |a| {
                a.with_word(usize::from(i.immediate8() & 7), value)
            });
        }
        Code::Pinsrd_xmm_rm32_imm8 => {
            let value = general_source::<O, 4>(m, i)? as u32;
            let place = usize::from(i.immediate8() & 3);
            update(m, i, |a| {
                u128::build32(|k| if k == place { value } else { a.dword(k) })
            });
        }
        Code::Pinsrq_xmm_rm64_imm8 => {
            let value = general_source::<O, 8>(m, i)?;
            update(m, i, |a| {
                if i.immediate8() & 1 == 0 {
                    qwords(value, a.qword(1))
                } else {
                    qwords(a.qword(0), value)
                }
            });
        }
        Code::Insertps_xmm_xmmm32_imm8 => {
            let value = if in_memory(i, 1) {
                narrow::<O, 4>(m, i, 1)? as u32
            } else {
                m.xmm(register(i, 1))
                    .dword(usize::from(i.immediate8() >> 6))
            };
            update(m, i, |a| shuffle::insertps(a, value, i.immediate8()));
        }
        Code::Pextrb_r32m8_xmm_imm8 | Code::Pextrb_r64m8_xmm_imm8 => {
            let value = m.xmm(register(i, 1)).byte(usize::from(i.immediate8() & 15));
            general_destination(m, i, value.into(), value.to_le_bytes())?;
        }
        Code::Pextrw_r32_xmm_imm8
        | Code::Pextrw_r64_xmm_imm8
        | Code::Pextrw_r32m16_xmm_imm8
        | Code::Pextrw_r64m16_xmm_imm8 => {
            let value = m.xmm(register(i, 1)).word(usize::from(i.immediate8() & 7));
            general_destination(m, i, value.into(), value.to_le_bytes())?;
        }
        Code::Pextrd_rm32_xmm_imm8
        | Code::Extractps_rm32_xmm_imm8
        | Code::Extractps_r64m32_xmm_imm8 => {
            let value = m.xmm(register(i, 1)).dword(usize::from(i.immediate8() & 3));
            general_destination(m, i, value.into(), value.to_le_bytes())?;
        }
        Code::Pextrq_rm64_xmm_imm8 => {
            let value = m.xmm(register(i, 1)).qword(usize::from(i.immediate8() & 1));
            general_destination(m, i, value, value.to_le_bytes())?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Executes a move of MMX registers. Tells whether it was one.
pub(super) fn mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    let control = usize::from(i.immediate8() & 3);
    match i.code() {
        Code::Movq_mm_mmm64 => {
            let value = mmx_source(m, i, 1)?;
            set_mmx(m, i, value);
        }
        Code::Movd_mm_rm32 => {
            let value = general_source::<O, 4>(m, i)?;
            set_mmx(m, i, value);
        }
        Code::Movq_mm_rm64 => {
            let value = general_source::<O, 8>(m, i)?;
            set_mmx(m, i, value);
        }
        Code::Movq_mmm64_mm | Code::Movntq_m64_mm => {
            let value = m.x87.mmx(register(i, 1));
            if in_memory(i, 0) {
                m.store(value.to_le_bytes())?;
                m.x87.enter_mmx();
            } else {
                set_mmx(m, i, value);
            }
        }
        Code::Movd_rm32_mm => {
            let value = m.x87.mmx(register(i, 1)) as u32;
            general_destination(m, i, value.into(), value.to_le_bytes())?;
            m.x87.enter_mmx();
        }
        Code::Movq_rm64_mm => {
            let value = m.x87.mmx(register(i, 1));
            general_destination(m, i, value, value.to_le_bytes())?;
            m.x87.enter_mmx();
        }
        Code::Movq2dq_xmm_mm => {
            let value = m.x87.mmx(register(i, 1));
            m.x87.enter_mmx();
            m.set_xmm(register(i, 0), value.into());
        }
        Code::Movdq2q_mm_xmm => {
            let value = m.xmm(register(i, 1)) as u64;
            set_mmx(m, i, value);
        }
        Code::Pinsrw_mm_r32m16_imm8 | Code::Pinsrw_mm_r64m16_imm8 => {
            let value = general_source::<O, 2>(m, i)? as u16;
            let a = m.x87.mmx(register(i, 0));
            set_mmx(m, i, a.with_word(control, value));
        }
        Code::Pextrw_r32_mm_imm8 | Code::Pextrw_r64_mm_imm8 => {
            let value = m.x87.mmx(register(i, 1)).word(control);
            m.x87.enter_mmx();
            m.set_gpr(i.op0_register(), value.into());
        }
        Code::Pmovmskb_r32_mm | Code::Pmovmskb_r64_mm => {
            let mask = shuffle::pmovmskb(m.x87.mmx(register(i, 1)).into());
            m.x87.enter_mmx();
            m.set_gpr(i.op0_register(), mask.into());
        }
        Code::Maskmovq_rDI_mm_mm => {
            let value = m.x87.mmx(register(i, 1));
            let mask = m.x87.mmx(register(i, 2));
            masked(m, value.into(), mask.into(), 8)?;
            m.x87.enter_mmx();
        }
        Code::Emms => m.x87.empty_mmx(),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Replaces the bits of `mask` in the destination where the source is a register; from memory the
/// rest becomes zero.
fn merge<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction, low: u64, mask: u64) {
    let from_memory = in_memory(i, 1);
    update(m, i, |a| {
        if from_memory {
            low.into()
        } else {
            a & !u128::from(mask) | u128::from(low)
        }
    });
}

fn update<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction, value: impl Fn(u128) -> u128) {
    let destination = register(i, 0);
    let a = m.xmm(destination);
    m.set_xmm(destination, value(a));
}

/// Operand 1: the low `N` bytes of a general register or of memory, extended with zeros.
pub(super) fn general_source<O: Operands, const N: usize>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
) -> Result<u64, Fault> {
    if in_memory(i, 1) {
        return narrow::<O, N>(m, i, 1);
    }
    let value = m.gpr(i.op1_register());
    Ok(value & (u64::MAX >> (64 - 8 * N)))
}

/// Writes operand 0: a general register, all of it, or memory.
fn general_destination<O: Operands, const N: usize>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    value: u64,
    bytes: [u8; N],
) -> Result<(), Fault> {
    if in_memory(i, 0) {
        return m.store(bytes);
    }
    m.set_gpr(i.op0_register(), value);
    Ok(())
}

/// MASKMOVDQU and MASKMOVQ: stores the bytes whose mask has its top bit set, from the lowest on. All
/// of the operand has to be writable.
fn masked<O: Operands>(
    m: &mut Unit<'_, O>,
    value: u128,
    mask: u128,
    bytes: usize,
) -> Result<(), Fault> {
    m.operands.check_store(0, bytes)?;
    for k in (0..bytes).filter(|&k| mask.byte(k) & 0x80 != 0) {
        m.operands.store(k as u64, 1, value.byte(k).into())?;
    }
    Ok(())
}
