//! The packed integer instructions of MMX and SSE: which form does what.

use iced_x86::{Code, Instruction};

use super::access::{self, Outcome};
use super::unit::Unit;
use super::{crypto, integer, shuffle};
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
    use access::{binary, shift, shift_immediate as shift_by};
    match i.code() {
        Code::Paddb_xmm_xmmm128 => binary(m, i, integer::paddb),
        Code::Paddw_xmm_xmmm128 => binary(m, i, integer::paddw),
        Code::Paddd_xmm_xmmm128 => binary(m, i, integer::paddd),
        Code::Paddq_xmm_xmmm128 => binary(m, i, integer::paddq),
        Code::Psubb_xmm_xmmm128 => binary(m, i, integer::psubb),
        Code::Psubw_xmm_xmmm128 => binary(m, i, integer::psubw),
        Code::Psubd_xmm_xmmm128 => binary(m, i, integer::psubd),
        Code::Psubq_xmm_xmmm128 => binary(m, i, integer::psubq),
        Code::Paddsb_xmm_xmmm128 => binary(m, i, integer::paddsb),
        Code::Paddsw_xmm_xmmm128 => binary(m, i, integer::paddsw),
        Code::Paddusb_xmm_xmmm128 => binary(m, i, integer::paddusb),
        Code::Paddusw_xmm_xmmm128 => binary(m, i, integer::paddusw),
        Code::Psubsb_xmm_xmmm128 => binary(m, i, integer::psubsb),
        Code::Psubsw_xmm_xmmm128 => binary(m, i, integer::psubsw),
        Code::Psubusb_xmm_xmmm128 => binary(m, i, integer::psubusb),
        Code::Psubusw_xmm_xmmm128 => binary(m, i, integer::psubusw),
        Code::Pavgb_xmm_xmmm128 => binary(m, i, integer::pavgb),
        Code::Pavgw_xmm_xmmm128 => binary(m, i, integer::pavgw),
        Code::Pminub_xmm_xmmm128 => binary(m, i, integer::pminub),
        Code::Pminuw_xmm_xmmm128 => binary(m, i, integer::pminuw),
        Code::Pminud_xmm_xmmm128 => binary(m, i, integer::pminud),
        Code::Pminsb_xmm_xmmm128 => binary(m, i, integer::pminsb),
        Code::Pminsw_xmm_xmmm128 => binary(m, i, integer::pminsw),
        Code::Pminsd_xmm_xmmm128 => binary(m, i, integer::pminsd),
        Code::Pmaxub_xmm_xmmm128 => binary(m, i, integer::pmaxub),
        Code::Pmaxuw_xmm_xmmm128 => binary(m, i, integer::pmaxuw),
        Code::Pmaxud_xmm_xmmm128 => binary(m, i, integer::pmaxud),
        Code::Pmaxsb_xmm_xmmm128 => binary(m, i, integer::pmaxsb),
        Code::Pmaxsw_xmm_xmmm128 => binary(m, i, integer::pmaxsw),
        Code::Pmaxsd_xmm_xmmm128 => binary(m, i, integer::pmaxsd),
        Code::Pcmpeqb_xmm_xmmm128 => binary(m, i, integer::pcmpeqb),
        Code::Pcmpeqw_xmm_xmmm128 => binary(m, i, integer::pcmpeqw),
        Code::Pcmpeqd_xmm_xmmm128 => binary(m, i, integer::pcmpeqd),
        Code::Pcmpeqq_xmm_xmmm128 => binary(m, i, integer::pcmpeqq),
        Code::Pcmpgtb_xmm_xmmm128 => binary(m, i, integer::pcmpgtb),
        Code::Pcmpgtw_xmm_xmmm128 => binary(m, i, integer::pcmpgtw),
        Code::Pcmpgtd_xmm_xmmm128 => binary(m, i, integer::pcmpgtd),
        Code::Pcmpgtq_xmm_xmmm128 => binary(m, i, integer::pcmpgtq),
        Code::Pmullw_xmm_xmmm128 => binary(m, i, integer::pmullw),
        Code::Pmulhw_xmm_xmmm128 => binary(m, i, integer::pmulhw),
        Code::Pmulhuw_xmm_xmmm128 => binary(m, i, integer::pmulhuw),
        Code::Pmulhrsw_xmm_xmmm128 => binary(m, i, integer::pmulhrsw),
        Code::Pmulld_xmm_xmmm128 => binary(m, i, integer::pmulld),
        Code::Pmuludq_xmm_xmmm128 => binary(m, i, integer::pmuludq),
        Code::Pmuldq_xmm_xmmm128 => binary(m, i, integer::pmuldq),
        Code::Psignb_xmm_xmmm128 => binary(m, i, integer::psignb),
        Code::Psignw_xmm_xmmm128 => binary(m, i, integer::psignw),
        Code::Psignd_xmm_xmmm128 => binary(m, i, integer::psignd),
        Code::Pabsb_xmm_xmmm128 => binary(m, i, integer::pabsb),
        Code::Pabsw_xmm_xmmm128 => binary(m, i, integer::pabsw),
        Code::Pabsd_xmm_xmmm128 => binary(m, i, integer::pabsd),
        Code::Pand_xmm_xmmm128 => binary(m, i, integer::pand),
        Code::Pandn_xmm_xmmm128 => binary(m, i, integer::pandn),
        Code::Por_xmm_xmmm128 => binary(m, i, integer::por),
        Code::Pxor_xmm_xmmm128 => binary(m, i, integer::pxor),
        Code::Pmaddwd_xmm_xmmm128 => binary(m, i, integer::pmaddwd),
        Code::Pmaddubsw_xmm_xmmm128 => binary(m, i, integer::pmaddubsw),
        Code::Psadbw_xmm_xmmm128 => binary(m, i, integer::psadbw),
        Code::Phaddw_xmm_xmmm128 => binary(m, i, integer::phaddw),
        Code::Phaddd_xmm_xmmm128 => binary(m, i, integer::phaddd),
        Code::Phaddsw_xmm_xmmm128 => binary(m, i, integer::phaddsw),
        Code::Phsubw_xmm_xmmm128 => binary(m, i, integer::phsubw),
        Code::Phsubd_xmm_xmmm128 => binary(m, i, integer::phsubd),
        Code::Phsubsw_xmm_xmmm128 => binary(m, i, integer::phsubsw),
        Code::Packsswb_xmm_xmmm128 => binary(m, i, shuffle::packsswb),
        Code::Packuswb_xmm_xmmm128 => binary(m, i, shuffle::packuswb),
        Code::Packssdw_xmm_xmmm128 => binary(m, i, shuffle::packssdw),
        Code::Packusdw_xmm_xmmm128 => binary(m, i, shuffle::packusdw),
        Code::Punpcklbw_xmm_xmmm128 => binary(m, i, shuffle::punpcklbw),
        Code::Punpckhbw_xmm_xmmm128 => binary(m, i, shuffle::punpckhbw),
        Code::Punpcklwd_xmm_xmmm128 => binary(m, i, shuffle::punpcklwd),
        Code::Punpckhwd_xmm_xmmm128 => binary(m, i, shuffle::punpckhwd),
        Code::Punpckldq_xmm_xmmm128 => binary(m, i, shuffle::punpckldq),
        Code::Punpckhdq_xmm_xmmm128 => binary(m, i, shuffle::punpckhdq),
        Code::Pshufb_xmm_xmmm128 => binary(m, i, shuffle::pshufb),
        Code::Punpcklqdq_xmm_xmmm128 => binary(m, i, shuffle::punpcklqdq),
        Code::Punpckhqdq_xmm_xmmm128 => binary(m, i, shuffle::punpckhqdq),
        Code::Andps_xmm_xmmm128 => binary(m, i, integer::pand),
        Code::Andpd_xmm_xmmm128 => binary(m, i, integer::pand),
        Code::Andnps_xmm_xmmm128 => binary(m, i, integer::pandn),
        Code::Andnpd_xmm_xmmm128 => binary(m, i, integer::pandn),
        Code::Orps_xmm_xmmm128 => binary(m, i, integer::por),
        Code::Orpd_xmm_xmmm128 => binary(m, i, integer::por),
        Code::Xorps_xmm_xmmm128 => binary(m, i, integer::pxor),
        Code::Xorpd_xmm_xmmm128 => binary(m, i, integer::pxor),
        Code::Unpcklps_xmm_xmmm128 => binary(m, i, shuffle::punpckldq),
        Code::Unpckhps_xmm_xmmm128 => binary(m, i, shuffle::punpckhdq),
        Code::Unpcklpd_xmm_xmmm128 => binary(m, i, shuffle::punpcklqdq),
        Code::Unpckhpd_xmm_xmmm128 => binary(m, i, shuffle::punpckhqdq),
        Code::Aesenc_xmm_xmmm128 => binary(m, i, crypto::aesenc),
        Code::Aesenclast_xmm_xmmm128 => binary(m, i, crypto::aesenclast),
        Code::Aesdec_xmm_xmmm128 => binary(m, i, crypto::aesdec),
        Code::Aesdeclast_xmm_xmmm128 => binary(m, i, crypto::aesdeclast),
        Code::Sha1nexte_xmm_xmmm128 => binary(m, i, crypto::sha1nexte),
        Code::Sha1msg1_xmm_xmmm128 => binary(m, i, crypto::sha1msg1),
        Code::Sha1msg2_xmm_xmmm128 => binary(m, i, crypto::sha1msg2),
        Code::Sha256msg1_xmm_xmmm128 => binary(m, i, crypto::sha256msg1),
        Code::Sha256msg2_xmm_xmmm128 => binary(m, i, crypto::sha256msg2),
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
