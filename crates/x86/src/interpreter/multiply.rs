//! MUL, IMUL, DIV, IDIV.
//!
//! Undefined in the SDM, defined here: after a multiplication SF, ZF and PF are those of the low half and
//! AF is clear; a division leaves all flags.

use super::alu::{FromMemory, FromRegister, Source};
use super::core::{Core, Raised};
use super::flags::Status;
use super::op::{Handler, Op};
use super::width::{Byte, Double, Quad, Width, Word, by_width};
use crate::fault::Fault;

fn signed<W: Width>(value: u64) -> i128 {
    i128::from(W::sign_extend(value) as i64)
}

/// Writes a double-width number to AX or to rDX:rAX.
fn set_wide<W: Width>(registers: &mut [u64; 32], value: u128) {
    if W::BITS == 8 {
        Word::set(registers, 0, value as u64);
    } else {
        W::set(registers, 0, value as u64 & W::MASK);
        W::set(registers, 2, (value >> W::BITS) as u64 & W::MASK);
    }
}

fn wide<W: Width>(registers: &[u64; 32]) -> u128 {
    if W::BITS == 8 {
        u128::from(registers[0] & 0xffff)
    } else {
        u128::from(W::get(registers, 2)) << W::BITS | u128::from(W::get(registers, 0))
    }
}

fn mul<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let b = S::get::<W>(core, op)?;
    let product = u128::from(W::get(&core.r, 0)) * u128::from(b);
    set_wide::<W>(&mut core.r, product);
    let is_wide = product >> W::BITS != 0;
    core.status = Status::with(W::sign_extend(product as u64), is_wide, is_wide);
    Ok(())
}

fn truncates<W: Width>(product: i128) -> bool {
    product != signed::<W>(product as u64)
}

fn imul_wide<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let b = S::get::<W>(core, op)?;
    let product = signed::<W>(W::get(&core.r, 0)) * signed::<W>(b);
    set_wide::<W>(&mut core.r, product as u128);
    let is_wide = truncates::<W>(product);
    core.status = Status::with(W::sign_extend(product as u64), is_wide, is_wide);
    Ok(())
}

fn imul<W: Width, S: Source, const IMMEDIATE: bool>(
    core: &mut Core<'_>,
    op: &Op,
) -> Result<(), Raised> {
    let b = S::get::<W>(core, op)?;
    let a = if IMMEDIATE {
        op.immediate
    } else {
        W::get(&core.r, op.target)
    };
    let product = signed::<W>(a) * signed::<W>(b);
    W::set(&mut core.r, op.target, product as u64 & W::MASK);
    let is_wide = truncates::<W>(product);
    core.status = Status::with(W::sign_extend(product as u64), is_wide, is_wide);
    Ok(())
}

fn div<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let divisor = u128::from(S::get::<W>(core, op)?);
    let dividend = wide::<W>(&core.r);
    if divisor == 0 || dividend >> W::BITS >= divisor {
        return Err(core.raise(Fault::DIVIDE_ERROR));
    }
    let (quotient, remainder) = if dividend >> 64 == 0 {
        let (dividend, divisor) = (dividend as u64, divisor as u64);
        (
            u128::from(dividend / divisor),
            u128::from(dividend % divisor),
        )
    } else {
        (dividend / divisor, dividend % divisor)
    };
    set_wide::<W>(&mut core.r, remainder << W::BITS | quotient);
    Ok(())
}

fn idiv<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let divisor = signed::<W>(S::get::<W>(core, op)?);
    let shift = 128 - 2 * W::BITS;
    let dividend = ((wide::<W>(&core.r) << shift) as i128) >> shift;
    let quotient = match dividend.checked_div(divisor) {
        Some(quotient) if !truncates::<W>(quotient) => quotient,
        _ => return Err(core.raise(Fault::DIVIDE_ERROR)),
    };
    let remainder = dividend - quotient * divisor;
    let mask = u128::from(W::MASK);
    set_wide::<W>(
        &mut core.r,
        (remainder as u128 & mask) << W::BITS | quotient as u128 & mask,
    );
    Ok(())
}

/// What one of the group does with rAX.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wide {
    Mul,
    Imul,
    Div,
    Idiv,
}

/// The handler of a one-operand multiplication or division.
pub(super) fn one_operand(which: Wide, size: usize, is_memory: bool) -> Handler {
    match (which, is_memory) {
        (Wide::Mul, false) => by_width!(size, W => mul::<W, FromRegister>),
        (Wide::Mul, true) => by_width!(size, W => mul::<W, FromMemory>),
        (Wide::Imul, false) => by_width!(size, W => imul_wide::<W, FromRegister>),
        (Wide::Imul, true) => by_width!(size, W => imul_wide::<W, FromMemory>),
        (Wide::Div, false) => by_width!(size, W => div::<W, FromRegister>),
        (Wide::Div, true) => by_width!(size, W => div::<W, FromMemory>),
        (Wide::Idiv, false) => by_width!(size, W => idiv::<W, FromRegister>),
        (Wide::Idiv, true) => by_width!(size, W => idiv::<W, FromMemory>),
    }
}

/// The handler of IMUL with two or three operands.
pub(super) fn imul_to_register(size: usize, is_memory: bool, has_immediate: bool) -> Handler {
    match (is_memory, has_immediate) {
        (false, false) => by_width!(size, W => imul::<W, FromRegister, false>),
        (false, true) => by_width!(size, W => imul::<W, FromRegister, true>),
        (true, false) => by_width!(size, W => imul::<W, FromMemory, false>),
        (true, true) => by_width!(size, W => imul::<W, FromMemory, true>),
    }
}
