//! What is neither a move nor arithmetic on lanes: string comparisons, CRC32, the control register,
//! the save area, fences and hints.

use iced_x86::{Code, CodeSize, Instruction, Register};

use super::access::{Outcome, register, source_unaligned};
use super::moves::general_source;
use super::mxcsr::Mxcsr;
use super::strings::{self, Comparison, Lengths};
use super::unit::Unit;
use super::{crypto, floating};
use crate::bytes::StatusFlags;
use crate::fault::Fault;
use crate::operands::Operands;

/// Executes a special form. Tells whether it was one.
pub(super) fn special<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Ptest_xmm_xmmm128 => floating::test(m, i),
        Code::Pcmpistri_xmm_xmmm128_imm8 => compare_strings(m, i, Lengths::Implicit, index),
        Code::Pcmpistrm_xmm_xmmm128_imm8 => compare_strings(m, i, Lengths::Implicit, mask),
        Code::Pcmpestri_xmm_xmmm128_imm8 => {
            let lengths = lengths32(m);
            compare_strings(m, i, lengths, index)
        }
        Code::Pcmpestrm_xmm_xmmm128_imm8 => {
            let lengths = lengths32(m);
            compare_strings(m, i, lengths, mask)
        }
        Code::Pcmpestri64_xmm_xmmm128_imm8 => {
            let lengths = lengths64(m);
            compare_strings(m, i, lengths, index)
        }
        Code::Pcmpestrm64_xmm_xmmm128_imm8 => {
            let lengths = lengths64(m);
            compare_strings(m, i, lengths, mask)
        }
        Code::Crc32_r32_rm8 | Code::Crc32_r64_rm8 => crc32::<O, 1>(m, i),
        Code::Crc32_r32_rm16 => crc32::<O, 2>(m, i),
        Code::Crc32_r32_rm32 => crc32::<O, 4>(m, i),
        Code::Crc32_r64_rm64 => crc32::<O, 8>(m, i),
        Code::Ldmxcsr_m32 => {
            let mxcsr = mxcsr(u32::from_le_bytes(m.load()?))?;
            m.set_mxcsr(mxcsr);
            Ok(true)
        }
        Code::Stmxcsr_m32 => {
            let bits = m.mxcsr().bits();
            m.store(bits.to_le_bytes())?;
            Ok(true)
        }
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => save(m, i),
        Code::Fxrstor_m512byte | Code::Fxrstor64_m512byte => restore(m, i),
        _ => Ok(is_hint(i.code())),
    }
}

fn mxcsr(bits: u32) -> Result<Mxcsr, Fault> {
    Mxcsr::new(bits).ok_or(Fault::GENERAL_PROTECTION)
}

/// PREFETCHh and fences do nothing: this machine has no caches, and stores are seen in order.
const fn is_hint(code: Code) -> bool {
    matches!(
        code,
        Code::Prefetch_m8
            | Code::Prefetchw_m8
            | Code::Prefetchreserved3_m8
            | Code::Prefetchreserved4_m8
            | Code::Prefetchreserved5_m8
            | Code::Prefetchreserved6_m8
            | Code::Prefetchreserved7_m8
            | Code::Prefetchnta_m8
            | Code::Prefetcht0_m8
            | Code::Prefetcht1_m8
            | Code::Prefetcht2_m8
            | Code::Lfence
            | Code::Lfence_E9
            | Code::Lfence_EA
            | Code::Lfence_EB
            | Code::Lfence_EC
            | Code::Lfence_ED
            | Code::Lfence_EE
            | Code::Lfence_EF
            | Code::Mfence
            | Code::Mfence_F1
            | Code::Mfence_F2
            | Code::Mfence_F3
            | Code::Mfence_F4
            | Code::Mfence_F5
            | Code::Mfence_F6
            | Code::Mfence_F7
            | Code::Sfence
            | Code::Sfence_F9
            | Code::Sfence_FA
            | Code::Sfence_FB
            | Code::Sfence_FC
            | Code::Sfence_FD
            | Code::Sfence_FE
            | Code::Sfence_FF
    )
}

fn lengths32<O: Operands>(m: &Unit<'_, O>) -> Lengths {
    Lengths::Explicit {
        first: i64::from(m.gpr(Register::EAX) as i32),
        second: i64::from(m.gpr(Register::EDX) as i32),
    }
}

fn lengths64<O: Operands>(m: &Unit<'_, O>) -> Lengths {
    Lengths::Explicit {
        first: m.gpr(Register::RAX) as i64,
        second: m.gpr(Register::RDX) as i64,
    }
}

/// PCMPxSTRx; its operand in memory need not be aligned.
fn compare_strings<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    lengths: Lengths,
    result: impl Fn(&mut Unit<'_, O>, &Comparison, u8),
) -> Outcome {
    let b = source_unaligned(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let control = i.immediate8();
    let comparison = strings::compare(a, b, lengths, control);
    result(m, &comparison, control);
    m.set_status_flags(StatusFlags {
        carry: comparison.carry,
        zero: comparison.zero,
        sign: comparison.sign,
        overflow: comparison.overflow,
        ..StatusFlags::default()
    });
    Ok(true)
}

fn index<O: Operands>(m: &mut Unit<'_, O>, comparison: &Comparison, control: u8) {
    m.set_gpr(Register::ECX, comparison.index(control).into());
}

fn mask<O: Operands>(m: &mut Unit<'_, O>, comparison: &Comparison, control: u8) {
    m.set_xmm(0, comparison.mask(control));
}

fn crc32<O: Operands, const N: usize>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    let value = general_source::<O, N>(m, i)?;
    let crc = m.gpr(i.op0_register()) as u32;
    let crc = crypto::crc32(crc, &value.to_le_bytes()[..N]);
    m.set_gpr(i.op0_register(), crc.into());
    Ok(true)
}

/// Where XMM0 is in the save area.
const XMM: usize = 160;
/// Bytes that FXSAVE writes: the rest of the area is software's, but has to be there.
const SAVED: usize = XMM + 256;
/// Bytes that it writes outside of 64-bit mode, which has eight registers.
const SAVED_32: usize = XMM + 128;
/// Bytes of the save area.
const AREA: usize = 512;

/// FXSAVE and FXSAVE64, which differ in pointers that are always zero here.
fn save<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    m.check_store_aligned::<AREA>()?;
    let mut image = [0; SAVED];
    let mut legacy = [0; XMM];
    m.x87.store_fxsave(&mut legacy);
    image[..XMM].copy_from_slice(&legacy);
    image[24..28].copy_from_slice(&m.mxcsr().bits().to_le_bytes());
    image[28..32].copy_from_slice(&Mxcsr::MASK.to_le_bytes());
    for (k, place) in image[XMM..].chunks_exact_mut(16).enumerate() {
        place.copy_from_slice(&m.xmm(k).to_le_bytes());
    }
    if i.code_size() == CodeSize::Code64 {
        m.store(image)?;
    } else {
        let mut narrow = [0; SAVED_32];
        narrow.copy_from_slice(&image[..SAVED_32]);
        m.store(narrow)?;
    }
    Ok(true)
}

/// FXRSTOR and FXRSTOR64.
fn restore<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    let image: [u8; AREA] = m.load_aligned()?;
    let mxcsr = mxcsr(u32::from_le_bytes([
        image[24], image[25], image[26], image[27],
    ]))?;
    let mut legacy = [0; XMM];
    legacy.copy_from_slice(&image[..XMM]);
    m.x87.load_fxsave(&legacy);
    m.set_mxcsr(mxcsr);
    let end = if i.code_size() == CodeSize::Code64 {
        SAVED
    } else {
        SAVED_32
    };
    for (k, place) in image[XMM..end].chunks_exact(16).enumerate() {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(place);
        m.set_xmm(k, u128::from_le_bytes(bytes));
    }
    Ok(true)
}
