//! F, D, Zfhmin and Zfa (unprivileged specification, 21, 22, 24 and 25), but for loads and stores.

use super::block::DecodedOp;
use crate::float::{self as ieee, Flags, RoundingMode, box_f16, box_f32, unbox_f16, unbox_f32};
use crate::hart::Hart;
use crate::isa::Op;

const SIGN_F32: u32 = 1 << 31;
const SIGN_F64: u64 = 1 << 63;

/// The rounding mode of an instruction; `None` if it is reserved.
#[inline(always)]
fn rounding(hart: &Hart, op: &DecodedOp) -> Option<RoundingMode> {
    let rm = (op.immediate & 7) as u8;
    RoundingMode::from_bits(if rm == 7 { hart.csr.frm } else { rm })
}

/// Executes a floating-point instruction. False if it is illegal (a reserved rounding mode).
pub fn execute(hart: &mut Hart, op: &DecodedOp) -> bool {
    let mut flags = Flags::from_bits(hart.csr.fflags);
    let legal = match op.op as u8 {
        single if single <= Op::FmvWX as u8 => execute_single(hart, op, &mut flags),
        double if double <= Op::FmvDX as u8 => execute_double(hart, op, &mut flags),
        _ => execute_additional(hart, op, &mut flags),
    };
    if legal.is_none() {
        return false;
    }
    hart.csr.fflags = flags.bits();
    hart.csr.float_is_dirty();
    true
}

/// The F extension. `None` if the rounding mode is reserved.
fn execute_single(hart: &mut Hart, op: &DecodedOp, flags: &mut Flags) -> Option<()> {
    let raw = hart.f[op.rs1 as usize & 31];
    let a = unbox_f32(raw);
    let b = unbox_f32(hart.f[op.rs2 as usize & 31]);
    let c = || unbox_f32(hart.f[(op.immediate >> 8) as usize & 31]);
    let x = hart.x.get(op.rs1);
    let rm = || rounding(hart, op);
    let single = match op.op {
        Op::FaddS => ieee::add_f32(a, b, rm()?, flags),
        Op::FsubS => ieee::sub_f32(a, b, rm()?, flags),
        Op::FmulS => ieee::mul_f32(a, b, rm()?, flags),
        Op::FdivS => ieee::div_f32(a, b, rm()?, flags),
        Op::FsqrtS => ieee::sqrt_f32(a, rm()?, flags),
        Op::FmaddS => ieee::fma_f32(a, b, c(), rm()?, flags),
        Op::FmsubS => ieee::fma_f32(a, b, c() ^ SIGN_F32, rm()?, flags),
        Op::FnmsubS => ieee::fma_f32(a ^ SIGN_F32, b, c(), rm()?, flags),
        Op::FnmaddS => ieee::fma_f32(a ^ SIGN_F32, b, c() ^ SIGN_F32, rm()?, flags),
        Op::FsgnjS => a & !SIGN_F32 | b & SIGN_F32,
        Op::FsgnjnS => a & !SIGN_F32 | !b & SIGN_F32,
        Op::FsgnjxS => a ^ b & SIGN_F32,
        Op::FminS => ieee::min_f32(a, b, flags),
        Op::FmaxS => ieee::max_f32(a, b, flags),
        Op::FcvtSW => ieee::i32_to_f32(x as i32, rm()?, flags),
        Op::FcvtSWu => ieee::u32_to_f32(x as u32, rm()?, flags),
        Op::FcvtSL => ieee::i64_to_f32(x as i64, rm()?, flags),
        Op::FcvtSLu => ieee::u64_to_f32(x, rm()?, flags),
        Op::FmvWX => x as u32,
        _ => {
            let integer = match op.op {
                Op::FcvtWS => word(ieee::f32_to_i32(a, rm()?, flags)),
                Op::FcvtWuS => word(ieee::f32_to_u32(a, rm()?, flags) as i32),
                Op::FcvtLS => ieee::f32_to_i64(a, rm()?, flags) as u64,
                Op::FcvtLuS => ieee::f32_to_u64(a, rm()?, flags),
                Op::FmvXW => word(raw as i32),
                Op::FeqS => ieee::eq_f32(a, b, flags).into(),
                Op::FltS => ieee::lt_f32(a, b, flags).into(),
                Op::FleS => ieee::le_f32(a, b, flags).into(),
                Op::FclassS => ieee::classify_f32(a).into(),
                other => unreachable!("{other:?} is not in the F extension"),
            };
            hart.x.set_mapped(op.rd, integer);
            return Some(());
        }
    };
    hart.f[op.rd as usize & 31] = box_f32(single);
    Some(())
}

/// The D extension. `None` if the rounding mode is reserved.
fn execute_double(hart: &mut Hart, op: &DecodedOp, flags: &mut Flags) -> Option<()> {
    let a = hart.f[op.rs1 as usize & 31];
    let b = hart.f[op.rs2 as usize & 31];
    let c = || hart.f[(op.immediate >> 8) as usize & 31];
    let x = hart.x.get(op.rs1);
    let rm = || rounding(hart, op);
    let double = match op.op {
        Op::FaddD => ieee::add_f64(a, b, rm()?, flags),
        Op::FsubD => ieee::sub_f64(a, b, rm()?, flags),
        Op::FmulD => ieee::mul_f64(a, b, rm()?, flags),
        Op::FdivD => ieee::div_f64(a, b, rm()?, flags),
        Op::FsqrtD => ieee::sqrt_f64(a, rm()?, flags),
        Op::FmaddD => ieee::fma_f64(a, b, c(), rm()?, flags),
        Op::FmsubD => ieee::fma_f64(a, b, c() ^ SIGN_F64, rm()?, flags),
        Op::FnmsubD => ieee::fma_f64(a ^ SIGN_F64, b, c(), rm()?, flags),
        Op::FnmaddD => ieee::fma_f64(a ^ SIGN_F64, b, c() ^ SIGN_F64, rm()?, flags),
        Op::FsgnjD => a & !SIGN_F64 | b & SIGN_F64,
        Op::FsgnjnD => a & !SIGN_F64 | !b & SIGN_F64,
        Op::FsgnjxD => a ^ b & SIGN_F64,
        Op::FminD => ieee::min_f64(a, b, flags),
        Op::FmaxD => ieee::max_f64(a, b, flags),
        Op::FcvtDW => ieee::i32_to_f64(x as i32, rm()?, flags),
        Op::FcvtDWu => ieee::u32_to_f64(x as u32, rm()?, flags),
        Op::FcvtDL => ieee::i64_to_f64(x as i64, rm()?, flags),
        Op::FcvtDLu => ieee::u64_to_f64(x, rm()?, flags),
        Op::FmvDX => x,
        Op::FcvtDS => {
            rm()?; // always exact, but a reserved mode is illegal all the same
            ieee::f32_to_f64(unbox_f32(a), flags)
        }
        Op::FcvtSD => box_f32(ieee::f64_to_f32(a, rm()?, flags)),
        _ => {
            let integer = match op.op {
                Op::FcvtWD => word(ieee::f64_to_i32(a, rm()?, flags)),
                Op::FcvtWuD => word(ieee::f64_to_u32(a, rm()?, flags) as i32),
                Op::FcvtLD => ieee::f64_to_i64(a, rm()?, flags) as u64,
                Op::FcvtLuD => ieee::f64_to_u64(a, rm()?, flags),
                Op::FmvXD => a,
                Op::FeqD => ieee::eq_f64(a, b, flags).into(),
                Op::FltD => ieee::lt_f64(a, b, flags).into(),
                Op::FleD => ieee::le_f64(a, b, flags).into(),
                Op::FclassD => ieee::classify_f64(a).into(),
                other => unreachable!("{other:?} is not in the D extension"),
            };
            hart.x.set_mapped(op.rd, integer);
            return Some(());
        }
    };
    hart.f[op.rd as usize & 31] = double;
    Some(())
}

/// Zfhmin and Zfa. `None` if the rounding mode is reserved.
fn execute_additional(hart: &mut Hart, op: &DecodedOp, flags: &mut Flags) -> Option<()> {
    let a = hart.f[op.rs1 as usize & 31];
    let b = hart.f[op.rs2 as usize & 31];
    let (single_a, single_b) = (unbox_f32(a), unbox_f32(b));
    let half = unbox_f16(a);
    let rm = || rounding(hart, op);
    let result = match op.op {
        Op::FmvHX => box_f16(hart.x.get(op.rs1) as u16),
        // Always exact, but a reserved mode is illegal all the same.
        Op::FcvtSH => rm().map(|_| box_f32(ieee::f16_to_f32(half, flags)))?,
        Op::FcvtDH => rm().map(|_| ieee::f16_to_f64(half, flags))?,
        Op::FcvtHS => box_f16(ieee::f32_to_f16(single_a, rm()?, flags)),
        Op::FcvtHD => box_f16(ieee::f64_to_f16(a, rm()?, flags)),
        Op::FliS => box_f32(ieee::constant_f32(op.rs1)),
        Op::FliD => ieee::constant_f64(op.rs1),
        Op::FminmS => box_f32(ieee::min_or_nan_f32(single_a, single_b, flags)),
        Op::FmaxmS => box_f32(ieee::max_or_nan_f32(single_a, single_b, flags)),
        Op::FminmD => ieee::min_or_nan_f64(a, b, flags),
        Op::FmaxmD => ieee::max_or_nan_f64(a, b, flags),
        Op::FroundS => box_f32(ieee::round_f32(single_a, rm()?, flags)),
        Op::FroundnxS => box_f32(ieee::round_exact_f32(single_a, rm()?, flags)),
        Op::FroundD => ieee::round_f64(a, rm()?, flags),
        Op::FroundnxD => ieee::round_exact_f64(a, rm()?, flags),
        _ => {
            let integer = match op.op {
                Op::FmvXH => i64::from(a as i16) as u64,
                Op::FcvtmodWD => word(ieee::f64_to_i32_modular(a, flags)),
                Op::FltqS => ieee::lt_quiet_f32(single_a, single_b, flags).into(),
                Op::FleqS => ieee::le_quiet_f32(single_a, single_b, flags).into(),
                Op::FltqD => ieee::lt_quiet_f64(a, b, flags).into(),
                Op::FleqD => ieee::le_quiet_f64(a, b, flags).into(),
                other => unreachable!("{other:?} is in neither extension"),
            };
            hart.x.set_mapped(op.rd, integer);
            return Some(());
        }
    };
    hart.f[op.rd as usize & 31] = result;
    Some(())
}

/// A 32-bit result, sign-extended.
fn word(value: i32) -> u64 {
    i64::from(value) as u64
}
