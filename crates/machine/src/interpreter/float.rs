//! The F and D extensions (unprivileged specification, 21 and 22), but for loads and stores.

use super::block::DecodedOp;
use crate::float::{self as ieee, Flags, RoundingMode, box_f32, unbox_f32};
use crate::hart::Hart;
use crate::isa::Op;

const SIGN_F32: u32 = 1 << 31;
const SIGN_F64: u64 = 1 << 63;

/// The rounding mode of an instruction; `None` if it is reserved.
fn rounding(hart: &Hart, op: &DecodedOp) -> Option<RoundingMode> {
    let rm = (op.immediate & 7) as u8;
    RoundingMode::from_bits(if rm == 7 { hart.csr.frm } else { rm })
}

/// Executes a floating-point instruction. False if it is illegal (a reserved rounding mode).
pub fn execute(hart: &mut Hart, op: &DecodedOp) -> bool {
    let mut flags = Flags::from_bits(hart.csr.fflags);
    let done = to_float_single(hart, op, &mut flags)
        .map(|value| value.map(|value| hart.f[op.rd as usize & 31] = box_f32(value)))
        .or_else(|| {
            to_float_double(hart, op, &mut flags)
                .map(|value| value.map(|value| hart.f[op.rd as usize & 31] = value))
        })
        .or_else(|| {
            to_integer(hart, op, &mut flags)
                .map(|value| value.map(|value| hart.x.set_mapped(op.rd, value)))
        });
    if !matches!(done, Some(Some(()))) {
        return false;
    }
    hart.csr.fflags = flags.bits();
    hart.csr.float_is_dirty();
    true
}

/// Results that are singles: outer `None` for other instructions, inner for reserved rounding.
#[inline]
fn to_float_single(hart: &Hart, op: &DecodedOp, flags: &mut Flags) -> Option<Option<u32>> {
    let a = || unbox_f32(hart.f[op.rs1 as usize & 31]);
    let b = || unbox_f32(hart.f[op.rs2 as usize & 31]);
    let c = || unbox_f32(hart.f[(op.immediate >> 8) as usize & 31]);
    let x = || hart.x.get(op.rs1);
    let rm = || rounding(hart, op);
    Some(match op.op {
        Op::FaddS => rm().map(|rm| ieee::add_f32(a(), b(), rm, flags)),
        Op::FsubS => rm().map(|rm| ieee::sub_f32(a(), b(), rm, flags)),
        Op::FmulS => rm().map(|rm| ieee::mul_f32(a(), b(), rm, flags)),
        Op::FdivS => rm().map(|rm| ieee::div_f32(a(), b(), rm, flags)),
        Op::FsqrtS => rm().map(|rm| ieee::sqrt_f32(a(), rm, flags)),
        Op::FmaddS => rm().map(|rm| ieee::fma_f32(a(), b(), c(), rm, flags)),
        Op::FmsubS => rm().map(|rm| ieee::fma_f32(a(), b(), c() ^ SIGN_F32, rm, flags)),
        Op::FnmsubS => rm().map(|rm| ieee::fma_f32(a() ^ SIGN_F32, b(), c(), rm, flags)),
        Op::FnmaddS => rm().map(|rm| ieee::fma_f32(a() ^ SIGN_F32, b(), c() ^ SIGN_F32, rm, flags)),
        Op::FsgnjS => Some(a() & !SIGN_F32 | b() & SIGN_F32),
        Op::FsgnjnS => Some(a() & !SIGN_F32 | !b() & SIGN_F32),
        Op::FsgnjxS => Some(a() ^ b() & SIGN_F32),
        Op::FminS => Some(ieee::min_f32(a(), b(), flags)),
        Op::FmaxS => Some(ieee::max_f32(a(), b(), flags)),
        Op::FcvtSW => rm().map(|rm| ieee::i32_to_f32(x() as i32, rm, flags)),
        Op::FcvtSWu => rm().map(|rm| ieee::u32_to_f32(x() as u32, rm, flags)),
        Op::FcvtSL => rm().map(|rm| ieee::i64_to_f32(x() as i64, rm, flags)),
        Op::FcvtSLu => rm().map(|rm| ieee::u64_to_f32(x(), rm, flags)),
        Op::FmvWX => Some(x() as u32),
        Op::FcvtSD => rm().map(|rm| ieee::f64_to_f32(hart.f[op.rs1 as usize & 31], rm, flags)),
        _ => return None,
    })
}

/// Results that are doubles.
#[inline]
fn to_float_double(hart: &Hart, op: &DecodedOp, flags: &mut Flags) -> Option<Option<u64>> {
    let a = || hart.f[op.rs1 as usize & 31];
    let b = || hart.f[op.rs2 as usize & 31];
    let c = || hart.f[(op.immediate >> 8) as usize & 31];
    let x = || hart.x.get(op.rs1);
    let rm = || rounding(hart, op);
    Some(match op.op {
        Op::FaddD => rm().map(|rm| ieee::add_f64(a(), b(), rm, flags)),
        Op::FsubD => rm().map(|rm| ieee::sub_f64(a(), b(), rm, flags)),
        Op::FmulD => rm().map(|rm| ieee::mul_f64(a(), b(), rm, flags)),
        Op::FdivD => rm().map(|rm| ieee::div_f64(a(), b(), rm, flags)),
        Op::FsqrtD => rm().map(|rm| ieee::sqrt_f64(a(), rm, flags)),
        Op::FmaddD => rm().map(|rm| ieee::fma_f64(a(), b(), c(), rm, flags)),
        Op::FmsubD => rm().map(|rm| ieee::fma_f64(a(), b(), c() ^ SIGN_F64, rm, flags)),
        Op::FnmsubD => rm().map(|rm| ieee::fma_f64(a() ^ SIGN_F64, b(), c(), rm, flags)),
        Op::FnmaddD => rm().map(|rm| ieee::fma_f64(a() ^ SIGN_F64, b(), c() ^ SIGN_F64, rm, flags)),
        Op::FsgnjD => Some(a() & !SIGN_F64 | b() & SIGN_F64),
        Op::FsgnjnD => Some(a() & !SIGN_F64 | !b() & SIGN_F64),
        Op::FsgnjxD => Some(a() ^ b() & SIGN_F64),
        Op::FminD => Some(ieee::min_f64(a(), b(), flags)),
        Op::FmaxD => Some(ieee::max_f64(a(), b(), flags)),
        Op::FcvtDW => rm().map(|rm| ieee::i32_to_f64(x() as i32, rm, flags)),
        Op::FcvtDWu => rm().map(|rm| ieee::u32_to_f64(x() as u32, rm, flags)),
        Op::FcvtDL => rm().map(|rm| ieee::i64_to_f64(x() as i64, rm, flags)),
        Op::FcvtDLu => rm().map(|rm| ieee::u64_to_f64(x(), rm, flags)),
        Op::FmvDX => Some(x()),
        Op::FcvtDS => {
            rm().map(|_| ieee::f32_to_f64(unbox_f32(hart.f[op.rs1 as usize & 31]), flags))
        }
        _ => return None,
    })
}

/// Results that are integers.
#[inline]
fn to_integer(hart: &Hart, op: &DecodedOp, flags: &mut Flags) -> Option<Option<u64>> {
    let raw = hart.f[op.rs1 as usize & 31];
    let single = || unbox_f32(raw);
    let other_single = || unbox_f32(hart.f[op.rs2 as usize & 31]);
    let other = || hart.f[op.rs2 as usize & 31];
    let rm = || rounding(hart, op);
    let word = |value: i32| value as i64 as u64;
    Some(match op.op {
        Op::FcvtWS => rm().map(|rm| word(ieee::f32_to_i32(single(), rm, flags))),
        Op::FcvtWuS => rm().map(|rm| word(ieee::f32_to_u32(single(), rm, flags) as i32)),
        Op::FcvtLS => rm().map(|rm| ieee::f32_to_i64(single(), rm, flags) as u64),
        Op::FcvtLuS => rm().map(|rm| ieee::f32_to_u64(single(), rm, flags)),
        Op::FcvtWD => rm().map(|rm| word(ieee::f64_to_i32(raw, rm, flags))),
        Op::FcvtWuD => rm().map(|rm| word(ieee::f64_to_u32(raw, rm, flags) as i32)),
        Op::FcvtLD => rm().map(|rm| ieee::f64_to_i64(raw, rm, flags) as u64),
        Op::FcvtLuD => rm().map(|rm| ieee::f64_to_u64(raw, rm, flags)),
        Op::FmvXW => Some(word(raw as i32)),
        Op::FmvXD => Some(raw),
        Op::FeqS => Some(ieee::eq_f32(single(), other_single(), flags).into()),
        Op::FltS => Some(ieee::lt_f32(single(), other_single(), flags).into()),
        Op::FleS => Some(ieee::le_f32(single(), other_single(), flags).into()),
        Op::FeqD => Some(ieee::eq_f64(raw, other(), flags).into()),
        Op::FltD => Some(ieee::lt_f64(raw, other(), flags).into()),
        Op::FleD => Some(ieee::le_f64(raw, other(), flags).into()),
        Op::FclassS => Some(ieee::classify_f32(single()).into()),
        Op::FclassD => Some(ieee::classify_f64(raw).into()),
        _ => return None,
    })
}
