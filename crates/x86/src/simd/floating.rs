//! The floating-point instructions of SSE: which form does what with which lanes.

use core::cmp::Ordering;

use iced_x86::{Code, Instruction};

use super::access::{
    Outcome, accumulate, in_memory, mmx_source, narrow, register, set_mmx, source,
};
use super::moves::general_source;
use super::mxcsr::Environment;
use super::shuffle::qwords;
use super::unit::Unit;
use super::vector::Vector;
use super::{convert, float};
use crate::bytes::StatusFlags;
use crate::fault::Fault;
use crate::float::{Interchange, Rounding};
use crate::operands::Operands;

/// An operation on one lane.
type Lane = fn(&mut Environment, u64, u64) -> u64;

/// Executes an arithmetic form. Tells whether it was one.
#[inline(always)]
pub(super) fn arithmetic<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Addps_xmm_xmmm128 => packed_single(m, i, float::add::<f32>),
        Code::Addpd_xmm_xmmm128 => packed_double(m, i, float::add::<f64>),
        Code::Addss_xmm_xmmm32 => scalar_single(m, i, float::add::<f32>),
        Code::Addsd_xmm_xmmm64 => scalar_double(m, i, float::add::<f64>),
        Code::Subps_xmm_xmmm128 => packed_single(m, i, float::subtract::<f32>),
        Code::Subpd_xmm_xmmm128 => packed_double(m, i, float::subtract::<f64>),
        Code::Subss_xmm_xmmm32 => scalar_single(m, i, float::subtract::<f32>),
        Code::Subsd_xmm_xmmm64 => scalar_double(m, i, float::subtract::<f64>),
        Code::Mulps_xmm_xmmm128 => packed_single(m, i, float::multiply::<f32>),
        Code::Mulpd_xmm_xmmm128 => packed_double(m, i, float::multiply::<f64>),
        Code::Mulss_xmm_xmmm32 => scalar_single(m, i, float::multiply::<f32>),
        Code::Mulsd_xmm_xmmm64 => scalar_double(m, i, float::multiply::<f64>),
        Code::Divps_xmm_xmmm128 => packed_single(m, i, float::divide::<f32>),
        Code::Divpd_xmm_xmmm128 => packed_double(m, i, float::divide::<f64>),
        Code::Divss_xmm_xmmm32 => scalar_single(m, i, float::divide::<f32>),
        Code::Divsd_xmm_xmmm64 => scalar_double(m, i, float::divide::<f64>),
        Code::Minps_xmm_xmmm128 => packed_single(m, i, float::minimum::<f32>),
        Code::Minpd_xmm_xmmm128 => packed_double(m, i, float::minimum::<f64>),
        Code::Minss_xmm_xmmm32 => scalar_single(m, i, float::minimum::<f32>),
        Code::Minsd_xmm_xmmm64 => scalar_double(m, i, float::minimum::<f64>),
        Code::Maxps_xmm_xmmm128 => packed_single(m, i, float::maximum::<f32>),
        Code::Maxpd_xmm_xmmm128 => packed_double(m, i, float::maximum::<f64>),
        Code::Maxss_xmm_xmmm32 => scalar_single(m, i, float::maximum::<f32>),
        Code::Maxsd_xmm_xmmm64 => scalar_double(m, i, float::maximum::<f64>),
        Code::Sqrtps_xmm_xmmm128 => packed_single(m, i, |e, _, b| float::square_root::<f32>(e, b)),
        Code::Sqrtpd_xmm_xmmm128 => packed_double(m, i, |e, _, b| float::square_root::<f64>(e, b)),
        Code::Sqrtss_xmm_xmmm32 => scalar_single(m, i, |e, _, b| float::square_root::<f32>(e, b)),
        Code::Sqrtsd_xmm_xmmm64 => scalar_double(m, i, |e, _, b| float::square_root::<f64>(e, b)),
        Code::Rcpps_xmm_xmmm128 => packed_single(m, i, |_, _, b| convert::reciprocal::<f32>(b)),
        Code::Rcpss_xmm_xmmm32 => scalar_single(m, i, |_, _, b| convert::reciprocal::<f32>(b)),
        Code::Rsqrtps_xmm_xmmm128 => {
            packed_single(m, i, |_, _, b| convert::reciprocal_square_root::<f32>(b))
        }
        Code::Rsqrtss_xmm_xmmm32 => {
            scalar_single(m, i, |_, _, b| convert::reciprocal_square_root::<f32>(b))
        }
        Code::Haddps_xmm_xmmm128 => horizontal_single(m, i, float::add::<f32>),
        Code::Haddpd_xmm_xmmm128 => horizontal_double(m, i, float::add::<f64>),
        Code::Hsubps_xmm_xmmm128 => horizontal_single(m, i, float::subtract::<f32>),
        Code::Hsubpd_xmm_xmmm128 => horizontal_double(m, i, float::subtract::<f64>),
        Code::Addsubps_xmm_xmmm128 => {
            alternating_single(m, i, float::subtract::<f32>, float::add::<f32>)
        }
        Code::Addsubpd_xmm_xmmm128 => {
            alternating_double(m, i, float::subtract::<f64>, float::add::<f64>)
        }
        _ => comparison(m, i),
    }
}

/// Comparisons, rounding and dot products.
#[inline(always)]
fn comparison<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Cmpps_xmm_xmmm128_imm8 => packed_single(m, i, |e, a, b| {
            mask_if(float::compare_predicate::<f32>(e, a, b, i.immediate8()))
        }),
        Code::Cmppd_xmm_xmmm128_imm8 => packed_double(m, i, |e, a, b| {
            mask_if(float::compare_predicate::<f64>(e, a, b, i.immediate8()))
        }),
        Code::Cmpss_xmm_xmmm32_imm8 => scalar_single(m, i, |e, a, b| {
            mask_if(float::compare_predicate::<f32>(e, a, b, i.immediate8()))
        }),
        Code::Cmpsd_xmm_xmmm64_imm8 => scalar_double(m, i, |e, a, b| {
            mask_if(float::compare_predicate::<f64>(e, a, b, i.immediate8()))
        }),
        Code::Roundps_xmm_xmmm128_imm8 => packed_single(m, i, |e, _, b| {
            float::round_to_integral::<f32>(e, b, i.immediate8())
        }),
        Code::Roundpd_xmm_xmmm128_imm8 => packed_double(m, i, |e, _, b| {
            float::round_to_integral::<f64>(e, b, i.immediate8())
        }),
        Code::Roundss_xmm_xmmm32_imm8 => scalar_single(m, i, |e, _, b| {
            float::round_to_integral::<f32>(e, b, i.immediate8())
        }),
        Code::Roundsd_xmm_xmmm64_imm8 => scalar_double(m, i, |e, _, b| {
            float::round_to_integral::<f64>(e, b, i.immediate8())
        }),
        Code::Ucomiss_xmm_xmmm32 => compare_flags::<O, f32, 4>(m, i, true),
        Code::Ucomisd_xmm_xmmm64 => compare_flags::<O, f64, 8>(m, i, true),
        Code::Comiss_xmm_xmmm32 => compare_flags::<O, f32, 4>(m, i, false),
        Code::Comisd_xmm_xmmm64 => compare_flags::<O, f64, 8>(m, i, false),
        Code::Dpps_xmm_xmmm128_imm8 => dot_product_single(m, i, i.immediate8()),
        Code::Dppd_xmm_xmmm128_imm8 => dot_product_double(m, i, i.immediate8()),
        _ => conversion(m, i),
    }
}

/// All ones where a comparison holds.
fn mask_if(holds: bool) -> u64 {
    if holds { u64::MAX } else { 0 }
}

/// Applies `f` to every pair of singles.
fn lanes_single(mut f: impl FnMut(usize) -> u64) -> u128 {
    let [a, b, c, d] = [f(0), f(1), f(2), f(3)].map(|lane| lane & u64::from(u32::MAX));
    qwords(a | b << 32, c | d << 32)
}

fn packed_single<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(&mut Environment, u64, u64) -> u64,
) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let result = lanes_single(|k| operation(&mut e, a.dword(k).into(), b.dword(k).into()));
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), result);
    Ok(true)
}

fn packed_double<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(&mut Environment, u64, u64) -> u64,
) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let low = operation(&mut e, a.qword(0), b.qword(0));
    let high = operation(&mut e, a.qword(1), b.qword(1));
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), qwords(low, high));
    Ok(true)
}

fn scalar_single<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(&mut Environment, u64, u64) -> u64,
) -> Outcome {
    let b = narrow::<O, 4>(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let low = operation(&mut e, u64::from(a as u32), b) as u32;
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), with_low_single(a, low.into()));
    Ok(true)
}

fn scalar_double<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: impl Fn(&mut Environment, u64, u64) -> u64,
) -> Outcome {
    let b = narrow::<O, 8>(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let low = operation(&mut e, a as u64, b);
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), qwords(low, a.qword(1)));
    Ok(true)
}

fn with_low_single(a: u128, low: u64) -> u128 {
    a & !u128::from(u32::MAX) | u128::from(low)
}

/// HADDPS and HSUBPS: neighbours of the destination, then of the source.
fn horizontal_single<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: Lane,
) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let result = lanes_single(|k| {
        let from = if k < 2 { a } else { b };
        let pair = 2 * (k & 1);
        operation(&mut e, from.dword(pair).into(), from.dword(pair + 1).into())
    });
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), result);
    Ok(true)
}

fn horizontal_double<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    operation: Lane,
) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let low = operation(&mut e, a.qword(0), a.qword(1));
    let high = operation(&mut e, b.qword(0), b.qword(1));
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), qwords(low, high));
    Ok(true)
}

/// ADDSUBPS: one operation for even lanes, another for odd ones.
fn alternating_single<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    even: Lane,
    odd: Lane,
) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let result = lanes_single(|k| {
        let operation = if k & 1 == 0 { even } else { odd };
        operation(&mut e, a.dword(k).into(), b.dword(k).into())
    });
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), result);
    Ok(true)
}

fn alternating_double<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    even: Lane,
    odd: Lane,
) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut e = m.mxcsr().environment();
    let low = even(&mut e, a.qword(0), b.qword(0));
    let high = odd(&mut e, a.qword(1), b.qword(1));
    accumulate(m, &e)?;
    m.set_xmm(register(i, 0), qwords(low, high));
    Ok(true)
}

/// COMISS and its like: ZF, PF and CF; the others are cleared.
fn compare_flags<O: Operands, F: Interchange, const N: usize>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    quiet: bool,
) -> Outcome {
    let b = narrow::<O, N>(m, i, 1)?;
    let a = m.xmm(register(i, 0)) as u64 & (u64::MAX >> (64 - F::BITS));
    let mut e = m.mxcsr().environment();
    let ordering = float::compare::<F>(&mut e, a, b, quiet);
    accumulate(m, &e)?;
    m.set_status_flags(StatusFlags {
        zero: matches!(ordering, None | Some(Ordering::Equal)),
        parity: ordering.is_none(),
        carry: matches!(ordering, None | Some(Ordering::Less)),
        ..StatusFlags::default()
    });
    Ok(true)
}

/// DPPS: products, then sums of pairs, then their sum. Each step ends in #XM by itself.
fn dot_product_single<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction, control: u8) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut step = Steps::new(m);
    let products = step.take(|e| {
        [0, 1, 2, 3].map(|k| {
            if control >> (4 + k) & 1 == 0 {
                return 0;
            }
            float::multiply::<f32>(e, a.dword(k).into(), b.dword(k).into())
        })
    })?;
    let [low, high] =
        step.take(|e| [0, 2].map(|k| float::add::<f32>(e, products[k], products[k + 1])))?;
    let sum = step.take(|e| float::add::<f32>(e, low, high))?;
    m.set_xmm(
        register(i, 0),
        lanes_single(|k| if control >> k & 1 != 0 { sum } else { 0 }),
    );
    Ok(true)
}

/// DPPD.
fn dot_product_double<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction, control: u8) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    let mut step = Steps::new(m);
    let [low, high] = step.take(|e| {
        [0, 1].map(|k| {
            if control >> (4 + k) & 1 == 0 {
                return 0;
            }
            float::multiply::<f64>(e, a.qword(k), b.qword(k))
        })
    })?;
    let sum = step.take(|e| float::add::<f64>(e, low, high))?;
    let lane = |k: usize| if control >> k & 1 != 0 { sum } else { 0 };
    m.set_xmm(register(i, 0), qwords(lane(0), lane(1)));
    Ok(true)
}

/// An instruction of several operations in a row.
struct Steps<'a, 'b, O>(&'a mut Unit<'b, O>);

impl<'a, 'b, O: Operands> Steps<'a, 'b, O> {
    fn new(m: &'a mut Unit<'b, O>) -> Self {
        Self(m)
    }

    fn take<T>(&mut self, operation: impl FnOnce(&mut Environment) -> T) -> Result<T, Fault> {
        let mut e = self.0.mxcsr().environment();
        let result = operation(&mut e);
        accumulate(self.0, &e)?;
        Ok(result)
    }
}

/// Conversions between the formats and packed integers.
#[inline(always)]
fn conversion<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Cvtss2sd_xmm_xmmm32 => {
            let a = narrow::<O, 4>(m, i, 1)?;
            let low = with_environment(m, |e| convert::convert::<f32, f64>(e, a))?;
            let high = m.xmm(register(i, 0)).qword(1);
            m.set_xmm(register(i, 0), qwords(low, high));
        }
        Code::Cvtsd2ss_xmm_xmmm64 => {
            let a = narrow::<O, 8>(m, i, 1)?;
            let low = with_environment(m, |e| convert::convert::<f64, f32>(e, a))?;
            let old = m.xmm(register(i, 0));
            m.set_xmm(register(i, 0), with_low_single(old, low));
        }
        Code::Cvtps2pd_xmm_xmmm64 => {
            let a = u128::from(narrow::<O, 8>(m, i, 1)?);
            let [low, high] = with_environment(m, |e| {
                [0, 1].map(|k| convert::convert::<f32, f64>(e, a.dword(k).into()))
            })?;
            m.set_xmm(register(i, 0), qwords(low, high));
        }
        Code::Cvtpd2ps_xmm_xmmm128 => {
            let a = source(m, i, 1)?;
            let [low, high] = with_environment(m, |e| {
                [0, 1].map(|k| convert::convert::<f64, f32>(e, a.qword(k)))
            })?;
            m.set_xmm(register(i, 0), (low | high << 32).into());
        }
        Code::Cvtdq2ps_xmm_xmmm128 => {
            return packed_single(m, i, |e, _, b| {
                convert::from_integer::<f32>(e, (b as i32).into())
            });
        }
        Code::Cvtps2dq_xmm_xmmm128 => {
            return packed_single(m, i, |e, _, b| {
                convert::to_integer::<f32>(e, b, 32, e.rounding)
            });
        }
        Code::Cvttps2dq_xmm_xmmm128 => {
            return packed_single(m, i, |e, _, b| {
                convert::to_integer::<f32>(e, b, 32, Rounding::Zero)
            });
        }
        Code::Cvtdq2pd_xmm_xmmm64 => {
            let a = u128::from(narrow::<O, 8>(m, i, 1)?);
            let [low, high] = doubles_from_integers(m, a)?;
            m.set_xmm(register(i, 0), qwords(low, high));
        }
        Code::Cvtpd2dq_xmm_xmmm128 => return doubles_to_integers(m, i, false),
        Code::Cvttpd2dq_xmm_xmmm128 => return doubles_to_integers(m, i, true),
        _ => return scalar_conversion(m, i),
    }
    Ok(true)
}

fn with_environment<O: Operands, T>(
    m: &mut Unit<'_, O>,
    operation: impl FnOnce(&mut Environment) -> T,
) -> Result<T, Fault> {
    Steps::new(m).take(operation)
}

fn doubles_from_integers<O: Operands>(m: &mut Unit<'_, O>, a: u128) -> Result<[u64; 2], Fault> {
    with_environment(m, |e| {
        [0, 1].map(|k| convert::from_integer::<f64>(e, (a.dword(k) as i32).into()))
    })
}

fn doubles_to_integers<O: Operands>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    truncate: bool,
) -> Outcome {
    let a = source(m, i, 1)?;
    let result = packed_integers::<O, f64>(m, [a.qword(0), a.qword(1)], truncate)?;
    m.set_xmm(register(i, 0), result.into());
    Ok(true)
}

/// Two numbers as two doublewords.
fn packed_integers<O: Operands, F: Interchange>(
    m: &mut Unit<'_, O>,
    numbers: [u64; 2],
    truncate: bool,
) -> Result<u64, Fault> {
    let [low, high] = with_environment(m, |e| {
        let rounding = if truncate { Rounding::Zero } else { e.rounding };
        numbers.map(|number| convert::to_integer::<F>(e, number, 32, rounding))
    })?;
    Ok(low | high << 32)
}

/// Conversions between one number and a general register.
#[inline(always)]
fn scalar_conversion<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Cvtsi2ss_xmm_rm32 => {
            let a = general_source::<O, 4>(m, i)? as i32;
            from_general::<O, f32>(m, i, a.into())
        }
        Code::Cvtsi2ss_xmm_rm64 => {
            let a = general_source::<O, 8>(m, i)?;
            from_general::<O, f32>(m, i, a as i64)
        }
        Code::Cvtsi2sd_xmm_rm32 => {
            let a = general_source::<O, 4>(m, i)? as i32;
            from_general::<O, f64>(m, i, a.into())
        }
        Code::Cvtsi2sd_xmm_rm64 => {
            let a = general_source::<O, 8>(m, i)?;
            from_general::<O, f64>(m, i, a as i64)
        }
        Code::Cvttss2si_r32_xmmm32 => to_general::<O, f32, 4>(m, i, 32, true),
        Code::Cvttss2si_r64_xmmm32 => to_general::<O, f32, 4>(m, i, 64, true),
        Code::Cvttsd2si_r32_xmmm64 => to_general::<O, f64, 8>(m, i, 32, true),
        Code::Cvttsd2si_r64_xmmm64 => to_general::<O, f64, 8>(m, i, 64, true),
        Code::Cvtss2si_r32_xmmm32 => to_general::<O, f32, 4>(m, i, 32, false),
        Code::Cvtss2si_r64_xmmm32 => to_general::<O, f32, 4>(m, i, 64, false),
        Code::Cvtsd2si_r32_xmmm64 => to_general::<O, f64, 8>(m, i, 32, false),
        Code::Cvtsd2si_r64_xmmm64 => to_general::<O, f64, 8>(m, i, 64, false),
        _ => Ok(false),
    }
}

fn from_general<O: Operands, F: Interchange>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    integer: i64,
) -> Outcome {
    let low = with_environment(m, |e| convert::from_integer::<F>(e, integer))?;
    let a = m.xmm(register(i, 0));
    let result = if F::BITS == 32 {
        with_low_single(a, low)
    } else {
        qwords(low, a.qword(1))
    };
    m.set_xmm(register(i, 0), result);
    Ok(true)
}

fn to_general<O: Operands, F: Interchange, const N: usize>(
    m: &mut Unit<'_, O>,
    i: &Instruction,
    bits: u32,
    truncate: bool,
) -> Outcome {
    let a = narrow::<O, N>(m, i, 1)?;
    let integer = with_environment(m, |e| {
        let rounding = if truncate { Rounding::Zero } else { e.rounding };
        convert::to_integer::<F>(e, a, bits, rounding)
    })?;
    m.set_gpr(i.op0_register(), integer);
    Ok(true)
}

/// Executes a conversion from an MMX register or its size of memory. Tells whether it was one.
pub(super) fn from_mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Cvtpi2ps_xmm_mmm64 => {
            let a = u128::from(mmx_source(m, i, 1)?);
            enter_mmx(m, i);
            let [low, high] = with_environment(m, |e| {
                [0, 1].map(|k| convert::from_integer::<f32>(e, (a.dword(k) as i32).into()))
            })?;
            let old = m.xmm(register(i, 0));
            m.set_xmm(register(i, 0), qwords(low | high << 32, old.qword(1)));
        }
        Code::Cvtpi2pd_xmm_mmm64 => {
            let a = u128::from(mmx_source(m, i, 1)?);
            enter_mmx(m, i);
            let [low, high] = doubles_from_integers(m, a)?;
            m.set_xmm(register(i, 0), qwords(low, high));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Executes a conversion to an MMX register. Tells whether it was one.
pub(super) fn to_mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Cvtps2pi_mm_xmmm64 => singles_to_mmx(m, i, false),
        Code::Cvttps2pi_mm_xmmm64 => singles_to_mmx(m, i, true),
        Code::Cvtpd2pi_mm_xmmm128 => doubles_to_mmx(m, i, false),
        Code::Cvttpd2pi_mm_xmmm128 => doubles_to_mmx(m, i, true),
        _ => Ok(false),
    }
}

/// CVTPI2PS and CVTPI2PD end x87's use of the registers where they read one; with an operand in
/// memory the registers stay its own.
fn enter_mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) {
    if !in_memory(i, 1) {
        m.x87.enter_mmx();
    }
}

fn singles_to_mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction, truncate: bool) -> Outcome {
    let a = u128::from(narrow::<O, 8>(m, i, 1)?);
    let numbers = [a.dword(0).into(), a.dword(1).into()];
    m.x87.enter_mmx();
    let result = packed_integers::<O, f32>(m, numbers, truncate)?;
    set_mmx(m, i, result);
    Ok(true)
}

fn doubles_to_mmx<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction, truncate: bool) -> Outcome {
    let a = source(m, i, 1)?;
    m.x87.enter_mmx();
    let result = packed_integers::<O, f64>(m, [a.qword(0), a.qword(1)], truncate)?;
    set_mmx(m, i, result);
    Ok(true)
}

/// PTEST: ZF where nothing of the source is in the destination, CF where nothing is outside it.
pub(super) fn test<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    let b = source(m, i, 1)?;
    let a = m.xmm(register(i, 0));
    m.set_status_flags(StatusFlags {
        zero: a & b == 0,
        carry: !a & b == 0,
        ..StatusFlags::default()
    });
    Ok(true)
}
