//! Shifts by constants wait for the instruction that uses them: two of them make a rotation, one
//! after another an extension, one before an addition nothing at all.
//!
//! Compilers for RV64GC write these sequences where the host has one instruction: indices of arrays
//! (`slli; add`), unsigned words (`slli; srli`), rotations of hashes and ciphers (`slliw; srliw; or`).

use super::emitter::Emitter;
use super::layout::*;
use super::operands::{Source, destination, sources};
use super::registers::{Shift, ShiftKind, members};
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynasmApi, dynasm};

/// How far to look for the instruction that makes use of a shift.
const REACH: usize = 24;

/// What two instructions or three do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fusion {
    /// rd = source rotated to the right.
    Rotation {
        source: u8,
        amount: u8,
        is_word: bool,
    },
    /// rd = the low `bits` of source, extended with zeros, times 2^`left`, or through 2^-`left`.
    Extension { source: u8, bits: u8, left: i8 },
    /// rd = source times 2^`amount` + other.
    ScaledAddition { source: u8, amount: u8, other: u8 },
}

/// The shift that `op` is, if it may wait.
fn shift(op: &DecodedOp) -> Option<Shift> {
    let kind = match op.op {
        Op::Slli => ShiftKind::Left,
        Op::Srli => ShiftKind::Right,
        Op::Slliw => ShiftKind::LeftWord,
        Op::Srliw => ShiftKind::RightWord,
        _ => return None,
    };
    let has_registers = op.rs1 != 0 && (1..32).contains(&op.rd);
    has_registers.then_some(Shift {
        kind,
        source: op.rs1,
        amount: op.immediate as u8 & 63,
    })
}

/// What `op` does if its sources are the shifts given.
fn fuse(op: &DecodedOp, a: Option<Shift>, b: Option<Shift>) -> Option<Fusion> {
    match (op.op, a, b) {
        (Op::Or | Op::Xor | Op::Add, Some(a), Some(b)) if rotation(a, b).is_some() => {
            rotation(a, b)
        }
        (Op::Addw, Some(a), Some(b)) => {
            rotation(a, b).filter(|fusion| matches!(fusion, Fusion::Rotation { is_word: true, .. }))
        }
        (Op::Add, Some(a), _) if scale(a) && op.rs1 != op.rs2 => Some(Fusion::ScaledAddition {
            source: a.source,
            amount: a.amount,
            other: op.rs2,
        }),
        (Op::Add, _, Some(b)) if scale(b) && op.rs1 != op.rs2 => Some(Fusion::ScaledAddition {
            source: b.source,
            amount: b.amount,
            other: op.rs1,
        }),
        (Op::Srli, Some(a), _) if a.kind == ShiftKind::Left => {
            let bits = 64 - a.amount;
            let left = a.amount as i8 - op.immediate as i8;
            let fits = bits == 32 || (bits == 16 || bits == 8) && left >= 0;
            fits.then_some(Fusion::Extension {
                source: a.source,
                bits,
                left,
            })
        }
        _ => None,
    }
}

fn scale(shift: Shift) -> bool {
    shift.kind == ShiftKind::Left && (1..=3).contains(&shift.amount)
}

fn rotation(a: Shift, b: Shift) -> Option<Fusion> {
    use ShiftKind::*;
    let (left, right) = match (a.kind, b.kind) {
        (Left, Right) | (LeftWord, RightWord) => (a, b),
        (Right, Left) | (RightWord, LeftWord) => (b, a),
        _ => return None,
    };
    let is_word = left.kind == LeftWord;
    let bits = if is_word { 32 } else { 64 };
    let is_rotation = left.source == right.source && left.amount + right.amount == bits;
    is_rotation.then_some(Fusion::Rotation {
        source: left.source,
        amount: right.amount,
        is_word,
    })
}

impl Emitter<'_> {
    /// Emits the present instruction if it is one for this module.
    pub(super) fn fusion(&mut self, op: &DecodedOp) -> bool {
        if destination(op).is_none() {
            return false;
        }
        let (a, b) = (self.registers.shift(op.rs1), self.registers.shift(op.rs2));
        if let Some(fusion) = fuse(op, a, b) {
            self.emit_fusion(op.rd, fusion);
            return true;
        }
        let Some(shift) = shift(op) else {
            return false;
        };
        if !self.will_be_fused(shift, op.rd) {
            return false;
        }
        self.prepare(op);
        self.registers.wait(op.rd, shift);
        true
    }

    /// Whether the next instruction that reads `rd` makes something better of `shift`.
    fn will_be_fused(&self, shift: Shift, rd: u8) -> bool {
        let ops = &self.piece.ops;
        let behind = ops.iter().enumerate().skip(self.index + 1);
        for (index, op) in behind.take(REACH) {
            let reads = |guest| {
                let mut sources = sources(op).into_iter().flatten();
                sources.any(|(source, _)| source == guest)
            };
            if reads(rd) {
                let of = |guest| {
                    if guest == rd {
                        Some(shift)
                    } else {
                        self.shift_before(index, guest)
                    }
                };
                return destination(op).is_some() && fuse(op, of(op.rs1), of(op.rs2)).is_some();
            }
            let writes = destination(op);
            if writes == Some(rd) || writes == Some(shift.source) {
                return false;
            }
        }
        false
    }

    /// The shift that `guest` is before instruction `index`, if it is one.
    fn shift_before(&self, index: usize, guest: u8) -> Option<Shift> {
        let before = &self.piece.ops[..index];
        let writer = before
            .iter()
            .rposition(|op| destination(op) == Some(guest))?;
        let found = shift(&before[writer])?;
        let is_intact = before[writer..]
            .iter()
            .all(|op| destination(op) != Some(found.source));
        is_intact.then_some(found)
    }

    fn emit_fusion(&mut self, rd: u8, fusion: Fusion) {
        use super::operands::Width::*;
        // A source that is a shift itself is one in its own place: its host register holds what is
        // to be shifted.
        let sources: [Option<Source>; 2] = match fusion {
            Fusion::Rotation {
                source, is_word, ..
            } => [Some((source, if is_word { Word } else { Long })), None],
            Fusion::Extension { source, .. } => [Some((source, Word)), None],
            Fusion::ScaledAddition { source, other, .. } => {
                let other = Some((other, Long)).filter(|(guest, _)| *guest != 0);
                [other, Some((source, Long))]
            }
        };
        self.lend_to(
            sources.map(|source| source.map(|(guest, _)| guest)),
            Some(rd),
        );
        let (Fusion::Rotation { source, .. }
        | Fusion::Extension { source, .. }
        | Fusion::ScaledAddition { source, .. }) = fusion;
        let is_in_place = self.registers.shift(source).is_some();
        self.resolve(
            sources.map(|operand| operand.filter(|(guest, _)| !(is_in_place && *guest == source))),
        );
        self.perform_all(self.registers.shifts_of(rd));
        match fusion {
            Fusion::Rotation {
                source,
                amount,
                is_word,
            } => self.rotate(rd, source, amount as i8, is_word),
            Fusion::Extension { source, bits, left } => self.extend(rd, source, bits, left),
            Fusion::ScaledAddition {
                source,
                amount,
                other,
            } => self.add_scaled(rd, source, amount, other),
        }
    }

    fn rotate(&mut self, rd: u8, source: u8, amount: i8, is_word: bool) {
        let a = self.source(source, RAX);
        let target = self.target(rd);
        if is_word {
            dynasm!(self.asm; .arch x64; rorx Rd(target), Rd(a), amount);
            self.finish_word(rd);
        } else {
            dynasm!(self.asm; .arch x64; rorx Rq(target), Rq(a), amount);
            self.finish(rd);
        }
    }

    fn extend(&mut self, rd: u8, source: u8, bits: u8, left: i8) {
        let a = self.source(source, RAX);
        let target = self.target(rd);
        match bits {
            8 => dynasm!(self.asm; .arch x64; movzx Rd(target), Rb(a)),
            16 => dynasm!(self.asm; .arch x64; movzx Rd(target), Rw(a)),
            _ => dynasm!(self.asm; .arch x64; mov Rd(target), Rd(a)),
        }
        if left > 0 {
            dynasm!(self.asm; .arch x64; shl Rq(target), left);
        } else if left < 0 {
            dynasm!(self.asm; .arch x64; shr Rd(target), -left);
        }
        self.finish(rd);
    }

    fn add_scaled(&mut self, rd: u8, source: u8, amount: u8, other: u8) {
        let a = self.source(source, RCX);
        let b = self.source(other, RAX);
        let target = self.target(rd);
        match amount {
            1 => dynasm!(self.asm; .arch x64; lea Rq(target), [Rq(b) + 2 * Rq(a)]),
            2 => dynasm!(self.asm; .arch x64; lea Rq(target), [Rq(b) + 4 * Rq(a)]),
            _ => dynasm!(self.asm; .arch x64; lea Rq(target), [Rq(b) + 8 * Rq(a)]),
        }
        self.finish(rd);
    }

    /// Executes what waits among `sources` and extends what an instruction needs whole.
    pub(super) fn resolve(&mut self, sources: [Option<Source>; 2]) {
        use super::operands::Width;
        let all = sources.into_iter().flatten();
        let set = all.clone().fold(0, |set, (guest, _)| set | 1 << guest);
        self.perform_all(set);
        let alike_are_words = all
            .clone()
            .filter(|(_, width)| *width == Width::Alike)
            .all(|(guest, _)| self.registers.is_word(guest));
        let whole = all.filter(|(_, width)| match width {
            Width::Long => true,
            Width::Word => false,
            Width::Alike => !alike_are_words,
        });
        let whole = whole.fold(0, |set, (guest, _)| set | 1 << guest);
        self.extend_all(whole);
    }

    /// Executes the shifts in `set` that wait. Keeps `rax` and `rcx`.
    pub(super) fn perform_all(&mut self, set: u32) {
        for guest in members(self.registers.waiting & set) {
            if let Some(shift) = self.registers.shift(guest) {
                self.perform(guest, shift);
            }
        }
    }

    /// Executes the shifts that wait in their own place.
    pub(super) fn perform_in_place(&mut self) {
        let is_in_place = |&guest: &u8| {
            let shift = self.registers.shift(guest);
            shift.is_some_and(|shift| shift.source == guest)
        };
        let set = members(self.registers.waiting).filter(is_in_place);
        let set = set.fold(0, |set, guest| set | 1 << guest);
        self.perform_all(set);
    }

    fn perform(&mut self, guest: u8, shift: Shift) {
        let home = self.registers.home(guest);
        let target = home.unwrap_or(RDX);
        let source = self.source(shift.source, RDX);
        let amount = shift.amount as i8;
        let is_word = matches!(shift.kind, ShiftKind::LeftWord | ShiftKind::RightWord);
        if source != target && is_word {
            dynasm!(self.asm; .arch x64; mov Rd(target), Rd(source));
        } else {
            self.copy(target, source);
        }
        match shift.kind {
            ShiftKind::Left => dynasm!(self.asm; .arch x64; shl Rq(target), amount),
            ShiftKind::Right => dynasm!(self.asm; .arch x64; shr Rq(target), amount),
            ShiftKind::LeftWord => dynasm!(self.asm; .arch x64; shl Rd(target), amount),
            ShiftKind::RightWord => dynasm!(self.asm; .arch x64; shr Rd(target), amount),
        }
        // A word that was shifted to the right is not negative.
        let may_be_negative = is_word && (shift.kind == ShiftKind::LeftWord || amount == 0);
        if home.is_none() {
            if may_be_negative {
                dynasm!(self.asm; .arch x64; movsxd rdx, edx);
            }
            dynasm!(self.asm; .arch x64; mov [BYTE rbp + x(guest)], rdx);
        }
        self.registers
            .wrote(guest, may_be_negative && home.is_some());
    }
}
