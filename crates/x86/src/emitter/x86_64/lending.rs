//! In the further rounds of a loop, guest registers that are in the frame change places with such as the loop uses
//! less. Whatever leaves the loop, and the interpreter, finds all where it always is.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use crate::emitter::piece::{Kind, Piece};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{OpKind, Register};

/// A register that lends its host register to one without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loan {
    pub lender: u8,
    pub borrower: u8,
}

/// The registers that no instruction names silently.
const LENDERS: [u8; 6] = [3, 6, 7, 8, 9, 12];

/// How often each register is named. None if the interpreter has a part in each round.
fn uses(piece: &Piece) -> Option<[u32; 16]> {
    let mut uses = [0; 16];
    for step in &piece.steps {
        if matches!(step.kind, Kind::CallBack | Kind::LastCallBack) {
            return None;
        }
        let instruction = &step.instruction;
        let mut count = |register: Register| {
            if register.is_gpr() {
                uses[register.full_register().number()] += 1;
            }
        };
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Register => count(instruction.op_register(operand)),
                OpKind::Memory => {
                    count(instruction.memory_base());
                    count(instruction.memory_index());
                }
                _ => {}
            }
        }
    }
    Some(uses)
}

/// What changes places in a piece that is a loop.
pub(super) fn loans(piece: &Piece) -> Vec<Loan> {
    let Some(uses) = uses(piece).filter(|_| piece.is_loop()) else {
        return Vec::new();
    };
    let used = |register: &u8| uses[usize::from(*register)];
    let (mut lenders, mut borrowers) = (LENDERS, SPILLED);
    lenders.sort_by_key(used);
    borrowers.sort_by_key(|register| std::cmp::Reverse(used(register)));
    let pairs = lenders.into_iter().zip(borrowers);
    pairs
        .take_while(|(lender, borrower)| used(borrower) > used(lender) + 1)
        .map(|(lender, borrower)| Loan { lender, borrower })
        .collect()
}

impl Emitter<'_> {
    /// Remembers what is emitted later, behind the piece.
    pub(super) fn later(&mut self, cold: Cold) {
        self.cold.push((self.is_lent, cold));
    }

    /// Where a guest register without a host register is in the frame.
    pub(super) fn spilled(&self, guest: u8) -> i32 {
        let loan = self.loans.iter().find(|loan| loan.lender == guest);
        match loan {
            Some(loan) if self.is_lent => spilled(loan.borrower),
            _ => spilled(guest),
        }
    }

    /// What is emitted from here on is executed with registers that have changed places, or not.
    pub(super) fn set_lent(&mut self, is_lent: bool) {
        self.is_lent = is_lent;
        self.homes = HOMES;
        if is_lent {
            for loan in &self.loans {
                self.homes[usize::from(loan.borrower)] = HOMES[usize::from(loan.lender)];
                self.homes[usize::from(loan.lender)] = None;
            }
        }
    }

    /// Lets them change places. Uses `rcx`; flags stay.
    pub(super) fn exchange(&mut self) {
        for loan in &self.loans {
            let at = spilled(loan.borrower) as i8;
            let home = HOMES[usize::from(loan.lender)].expect("a lender has a host register");
            dynasm!(self.asm; .arch x64
                ; mov rcx, [BYTE rsp + at]
                ; mov [BYTE rsp + at], Rq(home)
                ; mov Rq(home), rcx
            );
        }
    }

    /// Before the piece is left: all registers are where they always are. Whether they were not.
    pub(super) fn give_back(&mut self) -> bool {
        let was_lent = self.is_lent;
        if was_lent {
            self.exchange();
            self.set_lent(false);
        }
        was_lent
    }
}
