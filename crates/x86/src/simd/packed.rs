//! The packed integer instructions of MMX and SSE: which form does what.

use iced_x86::{Code, Instruction};

use super::access::{self, Outcome};
use super::unit::Unit;
use super::{crypto, integer, operations, shuffle};
use crate::operands::Operands;

/// Executes an MMX form of two registers or a register and memory. Tells whether it was one.
pub(super) fn mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    use access::{mmx_binary as binary, mmx_shift_immediate as shift_by};
    match i.code() {
        Code::Paddb_mm_mmm64 => binary(m, i, integer::paddb),
        Code::Paddw_mm_mmm64 => binary(m, i, integer::paddw),
        Code::Paddd_mm_mmm64 => binary(m, i, integer::paddd),
        Code::Paddq_mm_mmm64 => binary(m, i, integer::paddq),
        Code::Psubb_mm_mmm64 => binary(m, i, integer::psubb),
        Code::Psubw_mm_mmm64 => binary(m, i, integer::psubw),
        Code::Psubd_mm_mmm64 => binary(m, i, integer::psubd),
        Code::Psubq_mm_mmm64 => binary(m, i, integer::psubq),
        Code::Paddsb_mm_mmm64 => binary(m, i, integer::paddsb),
        Code::Paddsw_mm_mmm64 => binary(m, i, integer::paddsw),
        Code::Paddusb_mm_mmm64 => binary(m, i, integer::paddusb),
        Code::Paddusw_mm_mmm64 => binary(m, i, integer::paddusw),
        Code::Psubsb_mm_mmm64 => binary(m, i, integer::psubsb),
        Code::Psubsw_mm_mmm64 => binary(m, i, integer::psubsw),
        Code::Psubusb_mm_mmm64 => binary(m, i, integer::psubusb),
        Code::Psubusw_mm_mmm64 => binary(m, i, integer::psubusw),
        Code::Pavgb_mm_mmm64 => binary(m, i, integer::pavgb),
        Code::Pavgw_mm_mmm64 => binary(m, i, integer::pavgw),
        Code::Pminub_mm_mmm64 => binary(m, i, integer::pminub),
        Code::Pminsw_mm_mmm64 => binary(m, i, integer::pminsw),
        Code::Pmaxub_mm_mmm64 => binary(m, i, integer::pmaxub),
        Code::Pmaxsw_mm_mmm64 => binary(m, i, integer::pmaxsw),
        Code::Pcmpeqb_mm_mmm64 => binary(m, i, integer::pcmpeqb),
        Code::Pcmpeqw_mm_mmm64 => binary(m, i, integer::pcmpeqw),
        Code::Pcmpeqd_mm_mmm64 => binary(m, i, integer::pcmpeqd),
        Code::Pcmpgtb_mm_mmm64 => binary(m, i, integer::pcmpgtb),
        Code::Pcmpgtw_mm_mmm64 => binary(m, i, integer::pcmpgtw),
        Code::Pcmpgtd_mm_mmm64 => binary(m, i, integer::pcmpgtd),
        Code::Pmullw_mm_mmm64 => binary(m, i, integer::pmullw),
        Code::Pmulhw_mm_mmm64 => binary(m, i, integer::pmulhw),
        Code::Pmulhuw_mm_mmm64 => binary(m, i, integer::pmulhuw),
        Code::Pmulhrsw_mm_mmm64 => binary(m, i, integer::pmulhrsw),
        Code::Pmuludq_mm_mmm64 => binary(m, i, integer::pmuludq),
        Code::Psignb_mm_mmm64 => binary(m, i, integer::psignb),
        Code::Psignw_mm_mmm64 => binary(m, i, integer::psignw),
        Code::Psignd_mm_mmm64 => binary(m, i, integer::psignd),
        Code::Pabsb_mm_mmm64 => binary(m, i, integer::pabsb),
        Code::Pabsw_mm_mmm64 => binary(m, i, integer::pabsw),
        Code::Pabsd_mm_mmm64 => binary(m, i, integer::pabsd),
        Code::Pand_mm_mmm64 => binary(m, i, integer::pand),
        Code::Pandn_mm_mmm64 => binary(m, i, integer::pandn),
        Code::Por_mm_mmm64 => binary(m, i, integer::por),
        Code::Pxor_mm_mmm64 => binary(m, i, integer::pxor),
        Code::Pmaddwd_mm_mmm64 => binary(m, i, integer::pmaddwd),
        Code::Pmaddubsw_mm_mmm64 => binary(m, i, integer::pmaddubsw),
        Code::Psadbw_mm_mmm64 => binary(m, i, integer::psadbw),
        Code::Phaddw_mm_mmm64 => binary(m, i, integer::phaddw),
        Code::Phaddd_mm_mmm64 => binary(m, i, integer::phaddd),
        Code::Phaddsw_mm_mmm64 => binary(m, i, integer::phaddsw),
        Code::Phsubw_mm_mmm64 => binary(m, i, integer::phsubw),
        Code::Phsubd_mm_mmm64 => binary(m, i, integer::phsubd),
        Code::Phsubsw_mm_mmm64 => binary(m, i, integer::phsubsw),
        Code::Packsswb_mm_mmm64 => binary(m, i, shuffle::packsswb),
        Code::Packuswb_mm_mmm64 => binary(m, i, shuffle::packuswb),
        Code::Packssdw_mm_mmm64 => binary(m, i, shuffle::packssdw),
        Code::Punpcklbw_mm_mmm32 => binary(m, i, shuffle::punpcklbw),
        Code::Punpckhbw_mm_mmm64 => binary(m, i, shuffle::punpckhbw),
        Code::Punpcklwd_mm_mmm32 => binary(m, i, shuffle::punpcklwd),
        Code::Punpckhwd_mm_mmm64 => binary(m, i, shuffle::punpckhwd),
        Code::Punpckldq_mm_mmm32 => binary(m, i, shuffle::punpckldq),
        Code::Punpckhdq_mm_mmm64 => binary(m, i, shuffle::punpckhdq),
        Code::Pshufb_mm_mmm64 => binary(m, i, shuffle::pshufb),
        Code::Psllw_mm_mmm64 => binary(m, i, integer::psllw),
        Code::Psllw_mm_imm8 => shift_by(m, i, integer::psllw),
        Code::Pslld_mm_mmm64 => binary(m, i, integer::pslld),
        Code::Pslld_mm_imm8 => shift_by(m, i, integer::pslld),
        Code::Psllq_mm_mmm64 => binary(m, i, integer::psllq),
        Code::Psllq_mm_imm8 => shift_by(m, i, integer::psllq),
        Code::Psrlw_mm_mmm64 => binary(m, i, integer::psrlw),
        Code::Psrlw_mm_imm8 => shift_by(m, i, integer::psrlw),
        Code::Psrld_mm_mmm64 => binary(m, i, integer::psrld),
        Code::Psrld_mm_imm8 => shift_by(m, i, integer::psrld),
        Code::Psrlq_mm_mmm64 => binary(m, i, integer::psrlq),
        Code::Psrlq_mm_imm8 => shift_by(m, i, integer::psrlq),
        Code::Psraw_mm_mmm64 => binary(m, i, integer::psraw),
        Code::Psraw_mm_imm8 => shift_by(m, i, integer::psraw),
        Code::Psrad_mm_mmm64 => binary(m, i, integer::psrad),
        Code::Psrad_mm_imm8 => shift_by(m, i, integer::psrad),
        Code::Pshufw_mm_mmm64_imm8 => {
            access::mmx_unary(m, i, |a| shuffle::pshufw(a, i.immediate8()))
        }
        Code::Palignr_mm_mmm64_imm8 => {
            binary(m, i, |a, b| shuffle::palignr_mmx(a, b, i.immediate8()))
        }
        _ => Ok(false),
    }
}

/// Executes an SSE form whose source is a register or aligned memory. Tells whether it was one.
#[inline(always)]
pub(super) fn sse<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    use access::{shift, shift_immediate as shift_by};
    match i.code() {
        Code::Psllw_xmm_xmmm128 => shift(m, i, integer::psllw),
        Code::Psllw_xmm_imm8 => shift_by(m, i, integer::psllw),
        Code::Pslld_xmm_xmmm128 => shift(m, i, integer::pslld),
        Code::Pslld_xmm_imm8 => shift_by(m, i, integer::pslld),
        Code::Psllq_xmm_xmmm128 => shift(m, i, integer::psllq),
        Code::Psllq_xmm_imm8 => shift_by(m, i, integer::psllq),
        Code::Psrlw_xmm_xmmm128 => shift(m, i, integer::psrlw),
        Code::Psrlw_xmm_imm8 => shift_by(m, i, integer::psrlw),
        Code::Psrld_xmm_xmmm128 => shift(m, i, integer::psrld),
        Code::Psrld_xmm_imm8 => shift_by(m, i, integer::psrld),
        Code::Psrlq_xmm_xmmm128 => shift(m, i, integer::psrlq),
        Code::Psrlq_xmm_imm8 => shift_by(m, i, integer::psrlq),
        Code::Psraw_xmm_xmmm128 => shift(m, i, integer::psraw),
        Code::Psraw_xmm_imm8 => shift_by(m, i, integer::psraw),
        Code::Psrad_xmm_xmmm128 => shift(m, i, integer::psrad),
        Code::Psrad_xmm_imm8 => shift_by(m, i, integer::psrad),
        _ => sse_with_immediate(m, i),
    }
}

/// Executes a form of [`OPERATIONS`](super::operations::OPERATIONS). Tells whether it was one.
pub(super) fn operation<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match operations::find(i.code()) {
        Some(index) => access::binary(m, i, operations::OPERATIONS[index].1),
        None => Ok(false),
    }
}

/// The forms that take an immediate byte, or XMM0.
#[inline(always)]
fn sse_with_immediate<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    use access::{binary, unary};
    match i.code() {
        Code::Palignr_xmm_xmmm128_imm8 => {
            binary(m, i, |a, b| shuffle::palignr(a, b, i.immediate8()))
        }
        Code::Shufps_xmm_xmmm128_imm8 => binary(m, i, |a, b| shuffle::shufps(a, b, i.immediate8())),
        Code::Shufpd_xmm_xmmm128_imm8 => binary(m, i, |a, b| shuffle::shufpd(a, b, i.immediate8())),
        Code::Pblendw_xmm_xmmm128_imm8 => {
            binary(m, i, |a, b| shuffle::pblendw(a, b, i.immediate8()))
        }
        Code::Blendps_xmm_xmmm128_imm8 => {
            binary(m, i, |a, b| shuffle::blendps(a, b, i.immediate8()))
        }
        Code::Blendpd_xmm_xmmm128_imm8 => {
            binary(m, i, |a, b| shuffle::blendpd(a, b, i.immediate8()))
        }
        Code::Mpsadbw_xmm_xmmm128_imm8 => {
            binary(m, i, |a, b| integer::mpsadbw(a, b, i.immediate8()))
        }
        Code::Pclmulqdq_xmm_xmmm128_imm8 => {
            binary(m, i, |a, b| crypto::pclmulqdq(a, b, i.immediate8()))
        }
        Code::Sha1rnds4_xmm_xmmm128_imm8 => {
            binary(m, i, |a, b| crypto::sha1rnds4(a, b, i.immediate8()))
        }
        Code::Pshufd_xmm_xmmm128_imm8 => unary(m, i, |a| shuffle::pshufd(a, i.immediate8())),
        Code::Pshufhw_xmm_xmmm128_imm8 => unary(m, i, |a| shuffle::pshufhw(a, i.immediate8())),
        Code::Pshuflw_xmm_xmmm128_imm8 => unary(m, i, |a| shuffle::pshuflw(a, i.immediate8())),
        Code::Aeskeygenassist_xmm_xmmm128_imm8 => {
            unary(m, i, |a| crypto::aeskeygenassist(a, i.immediate8()))
        }
        Code::Pslldq_xmm_imm8 => access::in_place(m, i, |a| integer::pslldq(a, i.immediate8())),
        Code::Psrldq_xmm_imm8 => access::in_place(m, i, |a| integer::psrldq(a, i.immediate8())),
        Code::Phminposuw_xmm_xmmm128 => unary(m, i, integer::phminposuw),
        Code::Aesimc_xmm_xmmm128 => unary(m, i, crypto::aesimc),
        Code::Pblendvb_xmm_xmmm128 => access::with_xmm0(m, i, shuffle::pblendvb),
        Code::Blendvps_xmm_xmmm128 => access::with_xmm0(m, i, shuffle::blendvps),
        Code::Blendvpd_xmm_xmmm128 => access::with_xmm0(m, i, shuffle::blendvpd),
        Code::Sha256rnds2_xmm_xmmm128 => access::with_xmm0(m, i, crypto::sha256rnds2),
        Code::Pmovsxbw_xmm_xmmm64 => access::extension::<O, 8>(m, i, shuffle::pmovsxbw),
        Code::Pmovsxbd_xmm_xmmm32 => access::extension::<O, 4>(m, i, shuffle::pmovsxbd),
        Code::Pmovsxbq_xmm_xmmm16 => access::extension::<O, 2>(m, i, shuffle::pmovsxbq),
        Code::Pmovsxwd_xmm_xmmm64 => access::extension::<O, 8>(m, i, shuffle::pmovsxwd),
        Code::Pmovsxwq_xmm_xmmm32 => access::extension::<O, 4>(m, i, shuffle::pmovsxwq),
        Code::Pmovsxdq_xmm_xmmm64 => access::extension::<O, 8>(m, i, shuffle::pmovsxdq),
        Code::Pmovzxbw_xmm_xmmm64 => access::extension::<O, 8>(m, i, shuffle::pmovzxbw),
        Code::Pmovzxbd_xmm_xmmm32 => access::extension::<O, 4>(m, i, shuffle::pmovzxbd),
        Code::Pmovzxbq_xmm_xmmm16 => access::extension::<O, 2>(m, i, shuffle::pmovzxbq),
        Code::Pmovzxwd_xmm_xmmm64 => access::extension::<O, 8>(m, i, shuffle::pmovzxwd),
        Code::Pmovzxwq_xmm_xmmm32 => access::extension::<O, 4>(m, i, shuffle::pmovzxwq),
        Code::Pmovzxdq_xmm_xmmm64 => access::extension::<O, 8>(m, i, shuffle::pmovzxdq),
        _ => Ok(false),
    }
}
