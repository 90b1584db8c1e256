//! Host registers are lent, within a piece, to guest registers that it uses more than their owners.

use super::emitter::Emitter;
use super::layout::*;
use super::operands::{destination, sources};
use super::registers::{Registers, STANDARD, is_in, members};
use crate::interpreter::block::DecodedOp;
use dynasmrt::{DynasmApi, dynasm};

/// Uses by which a borrower must exceed the owner: a host register is lent by a store and a load and
/// given back by others.
const MARGIN: u32 = 4;
/// The same for a loop, where that happens once for all rounds.
const LOOP_MARGIN: u32 = 2;

/// One host register that is lent.
#[derive(Clone, Copy, Debug)]
pub struct Lending {
    pub owner: u8,
    pub borrower: u8,
}

/// How often each register is read or written.
pub fn uses(ops: &[DecodedOp]) -> [u32; 32] {
    let mut uses = [0; 32];
    for op in ops {
        let read = sources(op).into_iter().flatten().map(|(guest, _)| guest);
        for guest in read.chain(destination(op)) {
            uses[usize::from(guest)] += 1;
        }
    }
    uses
}

/// What to lend in a piece.
pub fn plan(ops: &[DecodedOp], is_loop: bool) -> Vec<Lending> {
    let uses = uses(ops);
    let is_pinned = |guest: u8| STANDARD.home(guest).is_some();
    let mut owners: Vec<u8> = PINNED.iter().map(|(guest, _)| *guest).collect();
    owners.sort_by_key(|&guest| uses[usize::from(guest)]);
    let mut borrowers: Vec<u8> = (1..32).filter(|&guest| !is_pinned(guest)).collect();
    borrowers.sort_by_key(|&guest| std::cmp::Reverse(uses[usize::from(guest)]));
    let margin = if is_loop { LOOP_MARGIN } else { MARGIN };
    let pairs = owners.into_iter().zip(borrowers);
    pairs
        .map(|(owner, borrower)| Lending { owner, borrower })
        .take_while(|Lending { owner, borrower }| {
            uses[usize::from(*borrower)] >= uses[usize::from(*owner)] + margin
        })
        .collect()
}

impl Emitter<'_> {
    /// Before a loop whose rounds all find the registers alike: lends what is to be lent.
    pub(super) fn lend_before_loop(&mut self) {
        for lending in std::mem::take(&mut self.lendings) {
            self.lend(lending, true);
            // A later round finds there what an earlier one wrote.
            self.registers.stale |= 1 << lending.borrower;
        }
    }

    /// Makes the sources of the present instruction what it expects them to be, and sees to it that
    /// nobody needs what its destination holds.
    pub(super) fn prepare(&mut self, op: &DecodedOp) {
        let sources = sources(op);
        let destination = destination(op);
        self.lend_to(
            sources.map(|source| source.map(|(guest, _)| guest)),
            destination,
        );
        self.resolve(sources);
        if let Some(guest) = destination {
            self.perform_all(self.registers.shifts_of(guest));
        }
    }

    /// Lends a host register to each operand that is to have one.
    pub(super) fn lend_to(&mut self, sources: [Option<u8>; 2], destination: Option<u8>) {
        let mut index = 0;
        while let Some(&lending) = self.lendings.get(index) {
            let is_source = sources.contains(&Some(lending.borrower));
            if is_source || destination == Some(lending.borrower) {
                self.lendings.remove(index);
                self.lend(lending, is_source);
            } else {
                index += 1;
            }
        }
    }

    fn lend(&mut self, lending: Lending, is_read: bool) {
        let Lending { owner, borrower } = lending;
        self.perform_all(1 << owner);
        self.extend_all(1 << owner);
        let Some(host) = self.registers.home(owner) else {
            return;
        };
        dynasm!(self.asm; .arch x64; mov [BYTE rbp + x(owner)], Rq(host));
        // A shift in its own place is computed from what is in memory yet.
        if is_read || is_in(self.registers.waiting, borrower) {
            dynasm!(self.asm; .arch x64; mov Rq(host), [BYTE rbp + x(borrower)]);
        }
        self.registers.lend(owner, borrower);
    }

    /// Sign-extends the registers in `set` that have an undefined upper half.
    pub(super) fn extend_all(&mut self, set: u32) {
        for guest in members(self.registers.words & set) {
            if let Some(home) = self.registers.home(guest) {
                dynasm!(self.asm; .arch x64; movsxd Rq(home), Rd(home));
            }
        }
        self.registers.words &= !set;
    }

    /// All is as [`PINNED`] says from here on. Keeps `rax` and `rcx`.
    pub(super) fn leave(&mut self) {
        self.perform_all(!0);
        self.extend_all(!0);
        let registers = std::mem::replace(&mut self.registers, STANDARD);
        for guest in members(registers.lent & registers.stale) {
            if let Some(home) = registers.home(guest) {
                dynasm!(self.asm; .arch x64; mov [BYTE rbp + x(guest)], Rq(home));
            }
        }
        for (owner, host) in registers.owners() {
            dynasm!(self.asm; .arch x64; mov Rq(host), [BYTE rbp + x(owner)]);
        }
    }

    /// After [`Emitter::leave`]: lends again what was lent in `before`.
    pub(super) fn come_back(&mut self, before: &Registers) {
        self.registers = *before;
        self.registers.stale = 0;
        self.registers.words = 0;
        self.registers.waiting = 0;
        for guest in members(before.lent) {
            if let Some(home) = before.home(guest) {
                dynasm!(self.asm; .arch x64; mov Rq(home), [BYTE rbp + x(guest)]);
            }
        }
        self.load_kept();
    }

    /// Behind the piece: emits what `emit` does as if it were at a place where the registers are
    /// `registers`.
    pub(super) fn at<T>(&mut self, registers: &Registers, emit: impl FnOnce(&mut Self) -> T) -> T {
        let present = std::mem::replace(&mut self.registers, *registers);
        let result = emit(self);
        self.registers = present;
        result
    }
}
