//! Two-operand and one-operand arithmetic and logic.

use super::core::{Core, Raised};
use super::flags::Status;
use super::op::{Handler, Op};
use super::width::{Byte, Double, Quad, Width, Word, by_width};

/// Where an operand comes from.
pub(super) trait Source: 'static {
    fn get<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<u64, Raised>;
}

pub(super) struct FromRegister;
pub(super) struct FromMemory;
pub(super) struct FromImmediate;

impl Source for FromRegister {
    #[inline(always)]
    fn get<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<u64, Raised> {
        Ok(W::get(&core.r, op.source))
    }
}

impl Source for FromMemory {
    #[inline(always)]
    fn get<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<u64, Raised> {
        core.load::<W>(core.address(op))
    }
}

impl Source for FromImmediate {
    #[inline(always)]
    fn get<W: Width>(_: &mut Core<'_>, op: &Op) -> Result<u64, Raised> {
        Ok(op.immediate & W::MASK)
    }
}

/// An operation on two numbers.
pub(super) trait Binary: 'static {
    /// Whether the result goes anywhere (not for CMP and TEST).
    const STORES: bool = true;
    fn apply<W: Width>(status: &mut Status, a: u64, b: u64) -> u64;
}

pub(super) struct Add;
pub(super) struct Adc;
pub(super) struct Sub;
pub(super) struct Sbb;
pub(super) struct And;
pub(super) struct Or;
pub(super) struct Xor;
pub(super) struct Cmp;
pub(super) struct Test;

#[inline(always)]
pub(super) fn add<W: Width>(status: &mut Status, a: u64, b: u64, carry: u64) -> u64 {
    let result = a.wrapping_add(b).wrapping_add(carry) & W::MASK;
    let carries = a & b | (a | b) & !result;
    *status = Status::arithmetic(W::sign_extend(result), carries, W::BITS);
    result
}

#[inline(always)]
pub(super) fn subtract<W: Width>(status: &mut Status, a: u64, b: u64, borrow: u64) -> u64 {
    let result = a.wrapping_sub(b).wrapping_sub(borrow) & W::MASK;
    let borrows = !a & b | (!a | b) & result;
    *status = Status::arithmetic(W::sign_extend(result), borrows, W::BITS);
    result
}

impl Binary for Add {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, b: u64) -> u64 {
        add::<W>(status, a, b, 0)
    }
}

impl Binary for Adc {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, b: u64) -> u64 {
        let carry = u64::from(status.carry());
        add::<W>(status, a, b, carry)
    }
}

impl Binary for Sub {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, b: u64) -> u64 {
        subtract::<W>(status, a, b, 0)
    }
}

impl Binary for Sbb {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, b: u64) -> u64 {
        let borrow = u64::from(status.carry());
        subtract::<W>(status, a, b, borrow)
    }
}

impl Binary for Cmp {
    const STORES: bool = false;
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64, b: u64) -> u64 {
        subtract::<W>(status, a, b, 0)
    }
}

macro_rules! logic {
    ($name:ident, $stores:expr, $operator:tt) => {
        impl Binary for $name {
            const STORES: bool = $stores;
            #[inline(always)]
            fn apply<W: Width>(status: &mut Status, a: u64, b: u64) -> u64 {
                let result = a $operator b;
                *status = Status::logic(W::sign_extend(result));
                result
            }
        }
    };
}
logic!(And, true, &);
logic!(Or, true, |);
logic!(Xor, true, ^);
logic!(Test, false, &);

fn to_register<W: Width, O: Binary, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let b = S::get::<W>(core, op)?;
    let a = W::get(&core.r, op.target);
    let result = O::apply::<W>(&mut core.status, a, b);
    if O::STORES {
        W::set(&mut core.r, op.target, result);
    }
    Ok(())
}

fn to_memory<W: Width, O: Binary, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    let b = S::get::<W>(core, op)?;
    if O::STORES {
        let a = core.load_to_change::<W>(address)?;
        let mut status = core.status;
        let result = O::apply::<W>(&mut status, a, b);
        core.store::<W>(address, result)?;
        core.status = status;
    } else {
        let a = core.load::<W>(address)?;
        O::apply::<W>(&mut core.status, a, b);
    }
    Ok(())
}

/// Which operands a two-operand instruction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    RegisterRegister,
    RegisterMemory,
    MemoryRegister,
    RegisterImmediate,
    MemoryImmediate,
}

/// The handler of a two-operand instruction.
pub(super) fn binary<O: Binary>(size: usize, form: Form) -> Handler {
    match form {
        Form::RegisterRegister => by_width!(size, W => to_register::<W, O, FromRegister>),
        Form::RegisterMemory => by_width!(size, W => to_register::<W, O, FromMemory>),
        Form::RegisterImmediate => by_width!(size, W => to_register::<W, O, FromImmediate>),
        Form::MemoryRegister => by_width!(size, W => to_memory::<W, O, FromRegister>),
        Form::MemoryImmediate => by_width!(size, W => to_memory::<W, O, FromImmediate>),
    }
}

/// An operation on one number.
pub(super) trait Unary: 'static {
    fn apply<W: Width>(status: &mut Status, a: u64) -> u64;
}

pub(super) struct Inc;
pub(super) struct Dec;
pub(super) struct Neg;
pub(super) struct Not;

impl Unary for Inc {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64) -> u64 {
        let carry = status.carry();
        let result = add::<W>(status, a, 1, 0);
        *status = status.with_carry(carry);
        result
    }
}

impl Unary for Dec {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64) -> u64 {
        let carry = status.carry();
        let result = subtract::<W>(status, a, 1, 0);
        *status = status.with_carry(carry);
        result
    }
}

impl Unary for Neg {
    #[inline(always)]
    fn apply<W: Width>(status: &mut Status, a: u64) -> u64 {
        subtract::<W>(status, 0, a, 0)
    }
}

impl Unary for Not {
    #[inline(always)]
    fn apply<W: Width>(_: &mut Status, a: u64) -> u64 {
        !a & W::MASK
    }
}

fn unary_register<W: Width, O: Unary>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let a = W::get(&core.r, op.target);
    let result = O::apply::<W>(&mut core.status, a);
    W::set(&mut core.r, op.target, result);
    Ok(())
}

fn unary_memory<W: Width, O: Unary>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    let a = core.load_to_change::<W>(address)?;
    let mut status = core.status;
    let result = O::apply::<W>(&mut status, a);
    core.store::<W>(address, result)?;
    core.status = status;
    Ok(())
}

/// The handler of a one-operand instruction.
pub(super) fn unary<O: Unary>(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => unary_memory::<W, O>)
    } else {
        by_width!(size, W => unary_register::<W, O>)
    }
}
