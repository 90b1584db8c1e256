//! Loops of one piece: what every round needs is checked and read once, before the first.
//!
//! Elsewhere nothing is known at the head of a piece, so that every round would check `mstatus` and
//! `frm` again, and a sum would go through memory from one round to the next.

use super::kind::{Kind, format};
use super::{FloatRegisters, Format};
use crate::emitter::x86_64::emitter::{Cold, Emitter};
use crate::emitter::x86_64::layout::f;
use crate::interpreter::block::{DecodedOp, writes_float};
use crate::isa::Op;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// Where the last instruction of a piece may jump if it leads to the first.
pub struct Loop {
    /// Before what is done once: nothing is known there.
    entry: DynamicLabel,
    /// Behind what is done once.
    top: DynamicLabel,
    /// What is known there.
    known: FloatRegisters,
}

impl Emitter<'_> {
    /// Begins the rounds of a loop behind the first.
    pub(in crate::emitter::x86_64) fn begin_loop(&mut self) {
        let (entry, top) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64; =>entry);
        self.check_before_loop();
        self.read_before_loop();
        self.lend_before_loop();
        self.keep_sites();
        dynasm!(self.asm; .arch x64; =>top);
        let known = self.floats.clone();
        self.looped = Some(Loop { entry, top, known });
    }

    /// Whether the last instruction may lead to the first.
    pub(in crate::emitter::x86_64) fn leads_to_itself(&self) -> bool {
        let (first, last) = (
            &self.piece.ops[0],
            &self.piece.ops[self.piece.ops.len() - 1],
        );
        is_branch(last.op) && i32::from(last.offset) + last.immediate == i32::from(first.offset)
    }

    /// If the present instruction, which leads to `target`, bytes from the begin of the page, closes
    /// a loop of this piece alone: makes true what is known at its top, and gives the label to jump
    /// to.
    pub(in crate::emitter::x86_64) fn close_loop(&mut self, target: i32) -> Option<DynamicLabel> {
        if self.rest() != 0 || target != i32::from(self.piece.ops[0].offset) {
            return None;
        }
        let looped = self.looped.take()?;
        if !self.floats.implies_facts(&looped.known) {
            self.leave();
            return Some(looped.entry);
        }
        self.perform_all(!0);
        self.extend_all(!0);
        for (register, guest, format) in looped.known.held() {
            if !self.floats.holds(register, guest, format) {
                dynasm!(self.asm; .arch x64; vmovsd Rx(register), [rbp + f(guest)]);
            }
        }
        Some(looped.top)
    }

    /// The instructions that every round executes.
    fn always_executed(&self) -> Vec<(Kind, DecodedOp)> {
        let ops = self.piece.ops.iter();
        ops.take_while(|op| !is_branch(op.op))
            .filter_map(|op| Some((Kind::of(op.op)?, *op)))
            .collect()
    }

    /// Leaves the first round to the interpreter if one of the instructions of every round would be.
    fn check_before_loop(&mut self) {
        let always = self.always_executed();
        let from = self.asm.new_dynamic_label();
        if always.iter().any(|(kind, op)| kind.rounds_dynamically(*op)) {
            self.check_dynamic_rounding(from);
        }
        if always.iter().any(|(kind, _)| *kind != Kind::Store) {
            self.check_float_is_dirty(from);
        } else if !always.is_empty() {
            self.check_float_is_on(from);
        }
        // The first access decides: what is written first is not read from before the loop.
        let mut seen = 0_u32;
        for (kind, op) in always {
            for guest in kind.sources(op) {
                if seen >> guest & 1 == 0 && format(op.op) == Format::Single {
                    self.check_boxed(guest, from);
                }
                seen |= 1 << guest;
            }
            if writes_float(op.op) {
                seen |= 1 << op.rd;
            }
        }
        // Nothing was subtracted from the instructions left yet.
        let offset = i32::from(self.piece.ops[0].offset);
        self.cold.push(Cold::Interpret {
            from,
            rest: 0,
            offset,
            registers: self.registers,
        });
    }

    /// Reads the F registers that are read in the loop before they are written.
    fn read_before_loop(&mut self) {
        let mut seen = 0_u32;
        for op in &self.piece.ops {
            let sources = Kind::of(op.op).map(|kind| kind.sources(*op));
            for guest in sources.into_iter().flatten() {
                let format = format(op.op);
                let may_be_read = format == Format::Double || self.floats.is_boxed(guest);
                if seen >> guest & 1 == 0 && may_be_read && self.floats.has_free() {
                    self.read(guest, format);
                }
                seen |= 1 << guest;
            }
            if writes_float(op.op) {
                seen |= 1 << op.rd;
            }
        }
    }
}

fn is_branch(op: Op) -> bool {
    use Op::*;
    matches!(op, Beq | Bne | Blt | Bge | Bltu | Bgeu)
}
