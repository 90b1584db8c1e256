//! Shifts and rotations (SDM volume 2, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).
//!
//! Undefined there, defined here: OF for counts other than 1 follows the formula for 1; AF is cleared by
//! shifts; CF of a count beyond the width is what shifting bit by bit gives.

use super::core::{Core, Raised};
use super::flags::Status;
use super::op::{Handler, Op};
use super::width::{Byte, Double, Quad, Width, Word, by_width};

/// A shift by a count that is already masked and not zero.
pub(super) trait Shift: 'static {
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64;
}

pub(super) struct Shl;
pub(super) struct Shr;
pub(super) struct Sar;
pub(super) struct Rol;
pub(super) struct Ror;
pub(super) struct Rcl;
pub(super) struct Rcr;

fn bit<W: Width>(value: u64, from_top: u32) -> bool {
    value >> (W::BITS - 1 - from_top) & 1 != 0
}

impl Shift for Shl {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64 {
        let wide = u128::from(a) << count;
        let result = wide as u64 & W::MASK;
        let carry = wide >> W::BITS & 1 != 0;
        let overflow = W::is_negative(result) != carry;
        *status = Status::with(W::sign_extend(result), carry, overflow);
        result
    }
}

impl Shift for Shr {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64 {
        let before = a >> (count - 1);
        let result = before >> 1;
        *status = Status::with(
            W::sign_extend(result),
            before & 1 != 0,
            W::is_negative(result << 1),
        );
        result
    }
}

impl Shift for Sar {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64 {
        let before = (W::sign_extend(a) as i64) >> (count - 1);
        let result = (before >> 1) as u64;
        *status = Status::with(result, before & 1 != 0, false);
        result & W::MASK
    }
}

impl Shift for Rol {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64 {
        let count = count % W::BITS;
        let result = if count == 0 {
            a
        } else {
            (a << count | a >> (W::BITS - count)) & W::MASK
        };
        let carry = result & 1 != 0;
        *status = status.with_carry_and_overflow(carry, carry != W::is_negative(result));
        result
    }
}

impl Shift for Ror {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64 {
        let count = count % W::BITS;
        let result = if count == 0 {
            a
        } else {
            (a >> count | a << (W::BITS - count)) & W::MASK
        };
        let carry = W::is_negative(result);
        *status = status.with_carry_and_overflow(carry, carry != bit::<W>(result, 1));
        result
    }
}

impl Shift for Rcl {
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64 {
        let count = count % (W::BITS + 1);
        if count == 0 {
            return a;
        }
        let wide = u128::from(status.carry()) << W::BITS | u128::from(a);
        let rotated = wide << count | wide >> (W::BITS + 1 - count);
        let result = rotated as u64 & W::MASK;
        let carry = rotated >> W::BITS & 1 != 0;
        *status = status.with_carry_and_overflow(carry, carry != W::is_negative(result));
        result
    }
}

impl Shift for Rcr {
    fn apply<W: Width>(status: &mut Status, a: u64, count: u32) -> u64 {
        let count = count % (W::BITS + 1);
        if count == 0 {
            return a;
        }
        let wide = u128::from(status.carry()) << W::BITS | u128::from(a);
        let rotated = wide >> count | wide << (W::BITS + 1 - count);
        let result = rotated as u64 & W::MASK;
        let carry = rotated >> W::BITS & 1 != 0;
        let overflow = W::is_negative(result) != bit::<W>(result, 1);
        *status = status.with_carry_and_overflow(carry, overflow);
        result
    }
}

/// Where a count comes from.
pub(super) trait Count: 'static {
    fn get(core: &Core<'_>, op: &Op) -> u64;
}

pub(super) struct ByImmediate;
pub(super) struct ByCl;

impl Count for ByImmediate {
    #[inline(always)]
    fn get(_: &Core<'_>, op: &Op) -> u64 {
        op.immediate
    }
}

impl Count for ByCl {
    #[inline(always)]
    fn get(core: &Core<'_>, _: &Op) -> u64 {
        core.r[1]
    }
}

fn masked<W: Width>(count: u64) -> u32 {
    (count & if W::BITS == 64 { 63 } else { 31 }) as u32
}

fn shift_register<W: Width, O: Shift, C: Count>(
    core: &mut Core<'_>,
    op: &Op,
) -> Result<(), Raised> {
    let count = masked::<W>(C::get(core, op));
    let a = W::get(&core.r, op.target);
    let result = if count == 0 {
        a
    } else {
        O::apply::<W>(&mut core.status, a, count)
    };
    W::set(&mut core.r, op.target, result);
    Ok(())
}

fn shift_memory<W: Width, O: Shift, C: Count>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    let count = masked::<W>(C::get(core, op));
    let a = core.load_to_change::<W>(address)?;
    if count != 0 {
        let mut status = core.status;
        let result = O::apply::<W>(&mut status, a, count);
        core.store::<W>(address, result)?;
        core.status = status;
    }
    Ok(())
}

/// The handler of a shift or rotation.
pub(super) fn shift<O: Shift>(size: usize, is_memory: bool, by_cl: bool) -> Handler {
    match (is_memory, by_cl) {
        (false, false) => by_width!(size, W => shift_register::<W, O, ByImmediate>),
        (false, true) => by_width!(size, W => shift_register::<W, O, ByCl>),
        (true, false) => by_width!(size, W => shift_memory::<W, O, ByImmediate>),
        (true, true) => by_width!(size, W => shift_memory::<W, O, ByCl>),
    }
}

/// SHLD and SHRD of 16 bits by more than 16 go on with the destination's bits, as if it stood a second
/// time behind the source.
fn double_shift<W: Width>(status: &mut Status, a: u64, b: u64, count: u32, is_left: bool) -> u64 {
    let bits = W::BITS;
    let (result, carry) = if is_left {
        let wide = (u128::from(a) << bits | u128::from(b)) << 16
            | if bits == 16 { u128::from(a) } else { 0 };
        // Bits above the destination fall out; 128 bits are too few for 64-bit operands.
        if bits == 64 {
            (a << count | b >> (64 - count), a >> (64 - count) & 1 != 0)
        } else {
            let shifted = wide << count;
            (
                (shifted >> (bits + 16)) as u64 & W::MASK,
                shifted >> (2 * bits + 16) & 1 != 0,
            )
        }
    } else if bits == 64 {
        (a >> count | b << (64 - count), a >> (count - 1) & 1 != 0)
    } else {
        let wide = u128::from(a)
            | u128::from(b) << bits
            | if bits == 16 { u128::from(a) << 32 } else { 0 };
        (
            (wide >> count) as u64 & W::MASK,
            wide >> (count - 1) & 1 != 0,
        )
    };
    let overflow = W::is_negative(result ^ a);
    *status = Status::with(W::sign_extend(result), carry, overflow);
    result
}

fn double<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let count = masked::<W>(if op.detail & 2 != 0 {
        core.r[1]
    } else {
        op.immediate
    });
    let is_left = op.detail & 1 != 0;
    let b = W::get(&core.r, op.source);
    if op.detail & 4 != 0 {
        let address = core.address(op);
        let a = core.load_to_change::<W>(address)?;
        if count != 0 {
            let mut status = core.status;
            let result = double_shift::<W>(&mut status, a, b, count, is_left);
            core.store::<W>(address, result)?;
            core.status = status;
        }
    } else {
        let a = W::get(&core.r, op.target);
        let result = if count == 0 {
            a
        } else {
            double_shift::<W>(&mut core.status, a, b, count, is_left)
        };
        W::set(&mut core.r, op.target, result);
    }
    Ok(())
}

/// The handler of SHLD and SHRD: `detail` bit 0 is left, bit 1 by CL, bit 2 a memory destination.
pub(super) fn double_precision(size: usize) -> Handler {
    by_width!(size, W => double::<W>)
}
