//! Instructions on the stack, apart from where their operands in memory are.

use core::cmp::Ordering;

use super::arithmetic::{self, Quotient};
use super::constants::{LN_2, LOG2_10, LOG2_E, LOG10_2, PI};
use super::conversion;
use super::environment::Environment;
use super::state::{C0, C1, C2, C3, X87State};
use super::transcendental::{self, Argument};
use crate::float::{self, DoubleExtended, Interchange, Operand, flags};

/// An operation on two values.
pub(super) type Binary = fn(&mut Environment, DoubleExtended, DoubleExtended) -> DoubleExtended;

/// FSUBR.
pub(super) fn subtract_reversed(
    e: &mut Environment,
    a: DoubleExtended,
    b: DoubleExtended,
) -> DoubleExtended {
    arithmetic::subtract(e, b, a)
}

/// FDIVR.
pub(super) fn divide_reversed(
    e: &mut Environment,
    a: DoubleExtended,
    b: DoubleExtended,
) -> DoubleExtended {
    arithmetic::divide(e, b, a)
}

/// An operand from memory.
#[derive(Clone, Copy)]
pub(super) struct Loaded {
    value: DoubleExtended,
    /// It was denormal in its own format.
    denormal: bool,
}

impl Loaded {
    pub fn interchange<F: Interchange>(bits: u64) -> Self {
        Self {
            value: conversion::widen::<F>(bits),
            denormal: F::is_denormal(bits),
        }
    }

    pub fn integer(integer: i64) -> Self {
        Self {
            value: conversion::from_integer(integer),
            denormal: false,
        }
    }
}

/// What goes to memory, and what the stack does once it is there.
pub(super) struct Store<T> {
    /// Nothing where an exception is not masked.
    pub value: Option<T>,
    effect: Effect,
}

enum Effect {
    Underflow,
    Done(Environment),
}

/// How a comparison treats NaNs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unordered {
    /// FCOM: every NaN is invalid.
    Signals,
    /// FUCOM: only a signaling NaN is.
    Quiet,
}

impl X87State {
    /// `destination` ← `operation`(`destination`, `source`), both on the stack.
    pub(super) fn binary(
        &mut self,
        operation: Binary,
        destination: usize,
        source: usize,
        pop: bool,
    ) {
        if self.is_empty(destination) || self.is_empty(source) {
            if self.underflow() {
                self.set(destination, DoubleExtended::INDEFINITE);
                self.pop_if(pop);
            }
            return;
        }
        let mut e = self.environment();
        let result = operation(&mut e, self.get(destination), self.get(source));
        if self.commit(&e) {
            self.set(destination, result);
            self.pop_if(pop);
        }
    }

    /// ST(0) ← `operation`(ST(0), `source`).
    pub(super) fn binary_memory(&mut self, operation: Binary, source: Loaded) {
        if self.is_empty(0) {
            if self.underflow() {
                self.set(0, DoubleExtended::INDEFINITE);
            }
            return;
        }
        let mut e = self.environment();
        let result = operation(&mut e, self.get(0), source.value);
        let a = self.get(0);
        let divided_by_zero = e.raised & flags::DIVIDE_BY_ZERO != 0;
        if source.denormal && !a.is_nan() && !a.is_unsupported() && !divided_by_zero {
            e.raise(flags::DENORMAL);
        }
        if self.commit(&e) {
            self.set(0, result);
        }
    }

    /// ST(0) ← `operation`(ST(0)).
    pub(super) fn unary(
        &mut self,
        operation: impl Fn(&mut Environment, DoubleExtended) -> DoubleExtended,
    ) {
        if self.is_empty(0) {
            if self.underflow() {
                self.set(0, DoubleExtended::INDEFINITE);
            }
            return;
        }
        let mut e = self.environment();
        let result = operation(&mut e, self.get(0));
        if self.commit(&e) {
            self.set(0, result);
        }
    }

    /// ST(1) ← `operation`(ST(1), ST(0)), and pops.
    pub(super) fn binary_pop(&mut self, operation: Binary) {
        self.binary(operation, 1, 0, true);
    }

    const fn pop_if(&mut self, pop: bool) {
        if pop {
            self.pop();
        }
    }

    /// Pushes what an instruction loads or makes.
    pub(super) fn load(&mut self, value: impl FnOnce(&mut Environment) -> DoubleExtended) {
        if !self.is_empty(7) {
            if self.overflow() {
                self.push(DoubleExtended::INDEFINITE);
            }
            return;
        }
        let mut e = self.environment();
        let value = value(&mut e);
        // A denormal operand is loaded even where its exception is not masked.
        let invalid = e.raised & !e.masks & flags::INVALID != 0;
        self.commit(&e);
        if !invalid {
            self.push(value);
        }
    }

    /// FLD m32fp, FLD m64fp.
    pub(super) fn load_memory(&mut self, source: Loaded) {
        self.load(|e| {
            if source.denormal {
                e.raise(flags::DENORMAL);
            }
            if source.value.is_signaling() {
                e.raise(flags::INVALID);
                return source.value.quieted();
            }
            source.value
        });
    }

    /// FLD ST(i).
    pub(super) fn load_register(&mut self, i: usize) {
        if self.is_empty(i) {
            if self.underflow() {
                self.push(DoubleExtended::INDEFINITE);
            }
            return;
        }
        let value = self.get(i);
        self.load(|_| value);
    }

    /// FLDPI and its like: a constant rounded by the rounding control.
    pub(super) fn load_constant(&mut self, constant: Constant) {
        self.load(|e| {
            let mut rounding = Environment::new(0x037f);
            rounding.rounding = e.rounding;
            match constant {
                Constant::One => DoubleExtended::ONE,
                Constant::Zero => DoubleExtended::zero(false),
                Constant::Log2Of10 => rounding.finish(LOG2_10.to_number()),
                Constant::Log2OfE => rounding.finish(LOG2_E.to_number()),
                Constant::Pi => rounding.finish(PI.to_number()),
                Constant::Log10Of2 => rounding.finish(LOG10_2.to_number()),
                Constant::LnOf2 => rounding.finish(LN_2.to_number()),
            }
        });
    }

    /// Prepares to store ST(0): `convert` makes what goes to memory, `indefinite` is what a masked
    /// underflow of the stack stores.
    pub(super) fn store<T>(
        &mut self,
        indefinite: T,
        convert: impl FnOnce(&mut Environment, DoubleExtended) -> T,
    ) -> Store<T> {
        if self.is_empty(0) {
            let masked = self.control & flags::INVALID != 0;
            return Store {
                value: masked.then_some(indefinite),
                effect: Effect::Underflow,
            };
        }
        let mut e = self.environment();
        let value = convert(&mut e, self.get(0));
        let stops = flags::INVALID | flags::OVERFLOW | flags::UNDERFLOW;
        let stored = e.raised & stops & !e.masks == 0;
        Store {
            value: stored.then_some(value),
            effect: Effect::Done(e),
        }
    }

    /// Ends a store, once memory took it.
    pub(super) fn stored<T>(&mut self, store: &Store<T>, pop: bool) {
        match &store.effect {
            Effect::Underflow => {
                self.underflow();
            }
            Effect::Done(e) => {
                let mut e = e.clone();
                if store.value.is_none() {
                    // Nothing was rounded.
                    e.raised &= !flags::PRECISION;
                    e.away = false;
                }
                self.commit(&e);
            }
        }
        self.pop_if(pop && store.value.is_some());
    }

    /// FST ST(i), FSTP ST(i).
    pub(super) fn store_register(&mut self, i: usize, pop: bool) {
        let value = if self.is_empty(0) {
            if !self.underflow() {
                return;
            }
            DoubleExtended::INDEFINITE
        } else {
            self.set_conditions(C1, 0);
            self.get(0)
        };
        self.set(i, value);
        self.pop_if(pop);
    }

    /// FSTPNCE, an alias of 8087 times: FSTP without a stack fault.
    pub(super) fn store_register_without_fault(&mut self, i: usize) {
        if !self.is_empty(0) {
            self.set(i, self.get(0));
        }
        self.set_conditions(C1, 0);
        self.pop();
    }

    /// FFREE.
    pub(super) fn free_register(&mut self, i: usize) {
        self.free(i);
        self.set_conditions(C1, 0);
    }

    /// FXCH.
    pub(super) fn exchange(&mut self, i: usize) {
        if self.is_empty(0) || self.is_empty(i) {
            if !self.underflow() {
                return;
            }
            for j in [0, i] {
                if self.is_empty(j) {
                    self.set(j, DoubleExtended::INDEFINITE);
                }
            }
        } else {
            self.set_conditions(C1, 0);
        }
        let (a, b) = (self.get(0), self.get(i));
        self.set(0, b);
        self.set(i, a);
    }

    /// FCMOVcc.
    pub(super) fn conditional_move(&mut self, i: usize, condition: bool) {
        if self.is_empty(0) || self.is_empty(i) {
            if self.underflow() {
                self.set(0, DoubleExtended::INDEFINITE);
            }
            return;
        }
        if condition {
            self.set(0, self.get(i));
        }
    }

    /// FCHS and FABS.
    pub(super) fn change_sign(&mut self, sign: impl Fn(bool) -> bool) {
        self.unary(|_, a| a.with_sign(sign(a.negative())));
    }

    /// How ST(0) compares with `other`, in the environment; `None` is unordered.
    fn compare(
        e: &mut Environment,
        a: DoubleExtended,
        b: DoubleExtended,
        unordered: Unordered,
    ) -> Option<Ordering> {
        if a.is_unsupported() || b.is_unsupported() {
            e.raise(flags::INVALID);
            return None;
        }
        if a.is_nan() || b.is_nan() {
            if unordered == Unordered::Signals || a.is_signaling() || b.is_signaling() {
                e.raise(flags::INVALID);
            }
            return None;
        }
        e.denormal(a);
        e.denormal(b);
        let sign = |negative| {
            if negative {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        };
        Some(match (a.unpack(), b.unpack()) {
            (Operand::Finite(x), Operand::Finite(y)) => float::compare(x, y),
            (Operand::Zero { .. }, Operand::Zero { .. }) => Ordering::Equal,
            (Operand::Infinite { negative: x }, Operand::Infinite { negative: y }) if x == y => {
                Ordering::Equal
            }
            (Operand::Infinite { negative }, _) => sign(negative),
            (_, Operand::Infinite { negative }) => sign(!negative),
            (Operand::Zero { .. }, Operand::Finite(y)) => sign(!y.negative),
            (Operand::Finite(x), _) => sign(x.negative),
            (Operand::Nan, _) | (_, Operand::Nan) => return None,
        })
    }

    /// FCOM and its like, into the condition codes.
    pub(super) fn compare_conditions(
        &mut self,
        other: Option<Loaded>,
        unordered: Unordered,
        pops: usize,
    ) {
        let ordering = match self.comparison(other, unordered) {
            Some(ordering) => ordering,
            None => return,
        };
        let codes = match ordering {
            None => C3 | C2 | C0,
            Some(Ordering::Equal) => C3,
            Some(Ordering::Less) => C0,
            Some(Ordering::Greater) => 0,
        };
        self.set_conditions(C3 | C2 | C0, codes);
        for _ in 0..pops {
            self.pop();
        }
    }

    /// FCOMI and its like: ZF, PF and CF; nothing where an exception is not masked.
    pub(super) fn compare_flags(
        &mut self,
        i: usize,
        unordered: Unordered,
        pop: bool,
    ) -> Option<(bool, bool, bool)> {
        let other = (!self.is_empty(i)).then(|| Loaded {
            value: self.get(i),
            denormal: false,
        });
        let ordering = self.comparison(other, unordered)?;
        self.pop_if(pop);
        Some(match ordering {
            None => (true, true, true),
            Some(Ordering::Equal) => (true, false, false),
            Some(Ordering::Less) => (false, false, true),
            Some(Ordering::Greater) => (false, false, false),
        })
    }

    /// Compares ST(0) with `other`, an empty register where there is none. Nothing where an
    /// exception is not masked.
    fn comparison(
        &mut self,
        other: Option<Loaded>,
        unordered: Unordered,
    ) -> Option<Option<Ordering>> {
        let other = match other {
            Some(other) if !self.is_empty(0) => other,
            _ => return self.underflow().then_some(None),
        };
        let mut e = self.environment();
        let ordering = Self::compare(&mut e, self.get(0), other.value, unordered);
        if other.denormal && ordering.is_some() {
            e.raise(flags::DENORMAL);
        }
        self.commit(&e).then_some(ordering)
    }

    /// FCOM ST(i) and its like.
    pub(super) fn compare_register(&mut self, i: usize, unordered: Unordered, pops: usize) {
        let other = (!self.is_empty(i)).then(|| Loaded {
            value: self.get(i),
            denormal: false,
        });
        self.compare_conditions(other, unordered, pops);
    }

    /// FTST.
    pub(super) fn test(&mut self) {
        self.compare_conditions(Some(Loaded::integer(0)), Unordered::Signals, 0);
    }

    /// FXAM.
    pub(super) fn examine(&mut self) {
        let a = self.get(0);
        let class = if self.is_empty(0) {
            C3 | C0
        } else if a.is_unsupported() {
            0
        } else if a.is_nan() {
            C0
        } else if a.is_infinite() {
            C2 | C0
        } else if a.is_zero() {
            C3
        } else if a.is_denormal() {
            C3 | C2
        } else {
            C2
        };
        let sign = if a.negative() { C1 } else { 0 };
        self.set_conditions(C0 | C1 | C2 | C3, class | sign);
    }

    /// FPREM and FPREM1.
    pub(super) fn remainder(&mut self, nearest: bool) {
        if self.is_empty(0) || self.is_empty(1) {
            self.set_conditions(C2, 0);
            if self.underflow() {
                self.set(0, DoubleExtended::INDEFINITE);
            }
            return;
        }
        let mut e = self.environment();
        let result = arithmetic::remainder(&mut e, self.get(0), self.get(1), nearest);
        self.set_conditions(C2, 0);
        if !self.commit(&e) {
            return;
        }
        self.set(0, result.value);
        match result.quotient {
            Quotient::None => {}
            Quotient::Partial => self.set_conditions(C0 | C1 | C2 | C3, C2),
            Quotient::Complete(quotient) => {
                let bit = |i: u8, code| if quotient >> i & 1 != 0 { code } else { 0 };
                let codes = bit(2, C0) | bit(1, C3) | bit(0, C1);
                self.set_conditions(C0 | C1 | C2 | C3, codes);
            }
        }
    }

    /// FXTRACT.
    pub(super) fn extract(&mut self) {
        self.replace_and_push(|e, a| {
            let (exponent, significand) = arithmetic::extract(e, a);
            Some((exponent, significand))
        });
    }

    /// Replaces ST(0) by a first result and pushes a second; with none, C2 is set and the stack
    /// stays.
    fn replace_and_push(
        &mut self,
        operation: impl FnOnce(
            &mut Environment,
            DoubleExtended,
        ) -> Option<(DoubleExtended, DoubleExtended)>,
    ) {
        let indefinite = DoubleExtended::INDEFINITE;
        let fault = if self.is_empty(0) {
            Some(self.underflow())
        } else if !self.is_empty(7) {
            Some(self.overflow())
        } else {
            None
        };
        if let Some(masked) = fault {
            if masked {
                self.set(0, indefinite);
                self.push(indefinite);
            }
            return;
        }
        let mut e = self.environment();
        let results = operation(&mut e, self.get(0));
        if !self.commit(&e) {
            return;
        }
        if let Some((first, second)) = results {
            self.set(0, first);
            self.push(second);
        }
    }

    /// FSIN and FCOS.
    pub(super) fn sine_or_cosine(&mut self, cosine: bool) {
        self.set_conditions(C2, 0);
        if self.is_empty(0) {
            if self.underflow() {
                self.set(0, DoubleExtended::INDEFINITE);
            }
            return;
        }
        let mut e = self.environment();
        let result = match Argument::new(&mut e, self.get(0)) {
            Argument::Decided(result) => Some(result),
            Argument::OutOfRange => None,
            Argument::Zero(negative) => Some(if cosine {
                DoubleExtended::ONE
            } else {
                DoubleExtended::zero(negative)
            }),
            Argument::Angle(angle) => Some(if cosine {
                angle.cosine(&mut e)
            } else {
                angle.sine(&mut e)
            }),
        };
        if self.commit(&e) {
            match result {
                Some(result) => self.set(0, result),
                None => self.set_conditions(C2, C2),
            }
        }
    }

    /// FSINCOS.
    pub(super) fn sine_and_cosine(&mut self) {
        self.trigonometric_pair(|e, argument| match argument {
            Argument::Decided(result) => Some((result, result)),
            Argument::OutOfRange => None,
            Argument::Zero(negative) => Some((DoubleExtended::zero(negative), DoubleExtended::ONE)),
            Argument::Angle(angle) => {
                let cosine = angle.cosine(e);
                Some((angle.sine(e), cosine))
            }
        });
    }

    /// FPTAN, which pushes one.
    pub(super) fn tangent(&mut self) {
        self.trigonometric_pair(|e, argument| match argument {
            Argument::Decided(result) => Some((result, result)),
            Argument::OutOfRange => None,
            Argument::Zero(negative) => Some((DoubleExtended::zero(negative), DoubleExtended::ONE)),
            Argument::Angle(angle) => Some((angle.tangent(e), DoubleExtended::ONE)),
        });
    }

    fn trigonometric_pair(
        &mut self,
        evaluate: impl Fn(&mut Environment, Argument) -> Option<(DoubleExtended, DoubleExtended)>,
    ) {
        let mut out_of_range = false;
        self.replace_and_push(|e, a| {
            let argument = Argument::new(e, a);
            let results = evaluate(e, argument);
            out_of_range = results.is_none();
            results
        });
        self.set_conditions(C2, if out_of_range { C2 } else { 0 });
    }

    /// F2XM1.
    pub(super) fn power_minus_one(&mut self) {
        self.unary(transcendental::power_minus_one);
    }

    /// FINCSTP (1) and FDECSTP (7).
    pub(super) const fn rotate(&mut self, by: usize) {
        self.set_top(self.top() + by);
        self.set_conditions(C1, 0);
    }
}

/// What the constant-loading instructions load.
#[derive(Clone, Copy)]
pub(super) enum Constant {
    One,
    Zero,
    Log2Of10,
    Log2OfE,
    Pi,
    Log10Of2,
    LnOf2,
}
