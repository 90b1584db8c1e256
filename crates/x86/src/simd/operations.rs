//! The SSE forms that are a function of two registers and nothing else.

use iced_x86::Code;

use super::{crypto, integer, shuffle};

/// What a form makes of its destination and its source.
pub(crate) type Operation = fn(u128, u128) -> u128;

/// The forms, in the order of their codes: all have an XMM register as destination, and one or 16
/// aligned bytes as source.
#[rustfmt::skip]
pub(crate) static OPERATIONS: [(Code, Operation); 98] = [
    (Code::Unpcklps_xmm_xmmm128, shuffle::punpckldq::<u128>),
    (Code::Unpcklpd_xmm_xmmm128, shuffle::punpcklqdq),
    (Code::Unpckhps_xmm_xmmm128, shuffle::punpckhdq::<u128>),
    (Code::Unpckhpd_xmm_xmmm128, shuffle::punpckhqdq),
    (Code::Andps_xmm_xmmm128, integer::pand::<u128>),
    (Code::Andpd_xmm_xmmm128, integer::pand::<u128>),
    (Code::Andnps_xmm_xmmm128, integer::pandn::<u128>),
    (Code::Andnpd_xmm_xmmm128, integer::pandn::<u128>),
    (Code::Orps_xmm_xmmm128, integer::por::<u128>),
    (Code::Orpd_xmm_xmmm128, integer::por::<u128>),
    (Code::Xorps_xmm_xmmm128, integer::pxor::<u128>),
    (Code::Xorpd_xmm_xmmm128, integer::pxor::<u128>),
    (Code::Punpcklbw_xmm_xmmm128, shuffle::punpcklbw::<u128>),
    (Code::Punpcklwd_xmm_xmmm128, shuffle::punpcklwd::<u128>),
    (Code::Punpckldq_xmm_xmmm128, shuffle::punpckldq::<u128>),
    (Code::Packsswb_xmm_xmmm128, shuffle::packsswb::<u128>),
    (Code::Pcmpgtb_xmm_xmmm128, integer::pcmpgtb::<u128>),
    (Code::Pcmpgtw_xmm_xmmm128, integer::pcmpgtw::<u128>),
    (Code::Pcmpgtd_xmm_xmmm128, integer::pcmpgtd::<u128>),
    (Code::Packuswb_xmm_xmmm128, shuffle::packuswb::<u128>),
    (Code::Punpckhbw_xmm_xmmm128, shuffle::punpckhbw::<u128>),
    (Code::Punpckhwd_xmm_xmmm128, shuffle::punpckhwd::<u128>),
    (Code::Punpckhdq_xmm_xmmm128, shuffle::punpckhdq::<u128>),
    (Code::Packssdw_xmm_xmmm128, shuffle::packssdw::<u128>),
    (Code::Punpcklqdq_xmm_xmmm128, shuffle::punpcklqdq),
    (Code::Punpckhqdq_xmm_xmmm128, shuffle::punpckhqdq),
    (Code::Pcmpeqb_xmm_xmmm128, integer::pcmpeqb::<u128>),
    (Code::Pcmpeqw_xmm_xmmm128, integer::pcmpeqw::<u128>),
    (Code::Pcmpeqd_xmm_xmmm128, integer::pcmpeqd::<u128>),
    (Code::Paddq_xmm_xmmm128, integer::paddq::<u128>),
    (Code::Pmullw_xmm_xmmm128, integer::pmullw::<u128>),
    (Code::Psubusb_xmm_xmmm128, integer::psubusb::<u128>),
    (Code::Psubusw_xmm_xmmm128, integer::psubusw::<u128>),
    (Code::Pminub_xmm_xmmm128, integer::pminub::<u128>),
    (Code::Pand_xmm_xmmm128, integer::pand::<u128>),
    (Code::Paddusb_xmm_xmmm128, integer::paddusb::<u128>),
    (Code::Paddusw_xmm_xmmm128, integer::paddusw::<u128>),
    (Code::Pmaxub_xmm_xmmm128, integer::pmaxub::<u128>),
    (Code::Pandn_xmm_xmmm128, integer::pandn::<u128>),
    (Code::Pavgb_xmm_xmmm128, integer::pavgb::<u128>),
    (Code::Pavgw_xmm_xmmm128, integer::pavgw::<u128>),
    (Code::Pmulhuw_xmm_xmmm128, integer::pmulhuw::<u128>),
    (Code::Pmulhw_xmm_xmmm128, integer::pmulhw::<u128>),
    (Code::Psubsb_xmm_xmmm128, integer::psubsb::<u128>),
    (Code::Psubsw_xmm_xmmm128, integer::psubsw::<u128>),
    (Code::Pminsw_xmm_xmmm128, integer::pminsw::<u128>),
    (Code::Por_xmm_xmmm128, integer::por::<u128>),
    (Code::Paddsb_xmm_xmmm128, integer::paddsb::<u128>),
    (Code::Paddsw_xmm_xmmm128, integer::paddsw::<u128>),
    (Code::Pmaxsw_xmm_xmmm128, integer::pmaxsw::<u128>),
    (Code::Pxor_xmm_xmmm128, integer::pxor::<u128>),
    (Code::Pmuludq_xmm_xmmm128, integer::pmuludq::<u128>),
    (Code::Pmaddwd_xmm_xmmm128, integer::pmaddwd::<u128>),
    (Code::Psadbw_xmm_xmmm128, integer::psadbw::<u128>),
    (Code::Psubb_xmm_xmmm128, integer::psubb::<u128>),
    (Code::Psubw_xmm_xmmm128, integer::psubw::<u128>),
    (Code::Psubd_xmm_xmmm128, integer::psubd::<u128>),
    (Code::Psubq_xmm_xmmm128, integer::psubq::<u128>),
    (Code::Paddb_xmm_xmmm128, integer::paddb::<u128>),
    (Code::Paddw_xmm_xmmm128, integer::paddw::<u128>),
    (Code::Paddd_xmm_xmmm128, integer::paddd::<u128>),
    (Code::Pshufb_xmm_xmmm128, shuffle::pshufb::<u128>),
    (Code::Phaddw_xmm_xmmm128, integer::phaddw::<u128>),
    (Code::Phaddd_xmm_xmmm128, integer::phaddd::<u128>),
    (Code::Phaddsw_xmm_xmmm128, integer::phaddsw::<u128>),
    (Code::Pmaddubsw_xmm_xmmm128, integer::pmaddubsw::<u128>),
    (Code::Phsubw_xmm_xmmm128, integer::phsubw::<u128>),
    (Code::Phsubd_xmm_xmmm128, integer::phsubd::<u128>),
    (Code::Phsubsw_xmm_xmmm128, integer::phsubsw::<u128>),
    (Code::Psignb_xmm_xmmm128, integer::psignb::<u128>),
    (Code::Psignw_xmm_xmmm128, integer::psignw::<u128>),
    (Code::Psignd_xmm_xmmm128, integer::psignd::<u128>),
    (Code::Pmulhrsw_xmm_xmmm128, integer::pmulhrsw::<u128>),
    (Code::Pabsb_xmm_xmmm128, integer::pabsb::<u128>),
    (Code::Pabsw_xmm_xmmm128, integer::pabsw::<u128>),
    (Code::Pabsd_xmm_xmmm128, integer::pabsd::<u128>),
    (Code::Pmuldq_xmm_xmmm128, integer::pmuldq::<u128>),
    (Code::Pcmpeqq_xmm_xmmm128, integer::pcmpeqq::<u128>),
    (Code::Packusdw_xmm_xmmm128, shuffle::packusdw::<u128>),
    (Code::Pcmpgtq_xmm_xmmm128, integer::pcmpgtq::<u128>),
    (Code::Pminsb_xmm_xmmm128, integer::pminsb::<u128>),
    (Code::Pminsd_xmm_xmmm128, integer::pminsd::<u128>),
    (Code::Pminuw_xmm_xmmm128, integer::pminuw::<u128>),
    (Code::Pminud_xmm_xmmm128, integer::pminud::<u128>),
    (Code::Pmaxsb_xmm_xmmm128, integer::pmaxsb::<u128>),
    (Code::Pmaxsd_xmm_xmmm128, integer::pmaxsd::<u128>),
    (Code::Pmaxuw_xmm_xmmm128, integer::pmaxuw::<u128>),
    (Code::Pmaxud_xmm_xmmm128, integer::pmaxud::<u128>),
    (Code::Pmulld_xmm_xmmm128, integer::pmulld::<u128>),
    (Code::Sha1nexte_xmm_xmmm128, crypto::sha1nexte),
    (Code::Sha1msg1_xmm_xmmm128, crypto::sha1msg1),
    (Code::Sha1msg2_xmm_xmmm128, crypto::sha1msg2),
    (Code::Sha256msg1_xmm_xmmm128, crypto::sha256msg1),
    (Code::Sha256msg2_xmm_xmmm128, crypto::sha256msg2),
    (Code::Aesenc_xmm_xmmm128, crypto::aesenc),
    (Code::Aesenclast_xmm_xmmm128, crypto::aesenclast),
    (Code::Aesdec_xmm_xmmm128, crypto::aesdec),
    (Code::Aesdeclast_xmm_xmmm128, crypto::aesdeclast),
];

/// Where a form is in [`OPERATIONS`].
pub(crate) fn find(code: Code) -> Option<usize> {
    OPERATIONS.binary_search_by_key(&code, |form| form.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found() {
        for (index, form) in OPERATIONS.iter().enumerate() {
            assert_eq!(find(form.0), Some(index));
        }
    }
}
