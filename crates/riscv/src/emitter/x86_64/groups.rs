//! Which loads and stores of a piece share one check of their page.
//!
//! A function that saves its registers, or code that reads the fields of a structure, goes several
//! times by one base register. The first of them checks that all are in one page and that the page is
//! known; the others only access.

use super::operands::destination;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use machine::memory::PAGE_SIZE;

/// Bytes that a group may span: the more, the more often it is in two pages.
const LARGEST_SPAN: i32 = PAGE_SIZE as i32 / 4;

/// Accesses by one base register, all loads or all stores.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub base: u8,
    is_store: bool,
    /// The least offset.
    pub low: i32,
    /// Bytes from there to the end of the last.
    pub span: i32,
    /// Number of the first instruction of the group in the piece.
    pub first: usize,
    /// Number of its last one.
    pub last: usize,
    is_open: bool,
}

/// The groups of a piece, and the number of the group of each instruction.
#[derive(Default)]
pub struct Groups {
    pub groups: Vec<Group>,
    pub of: Vec<Option<usize>>,
}

/// Logarithm of the bytes that a load or store moves; none for other instructions.
pub fn log_size(op: Op) -> Option<usize> {
    use Op::*;
    Some(match op {
        Lb | Lbu | Sb => 0,
        Lh | Lhu | Sh => 1,
        Lw | Lwu | Sw | Flw | Fsw => 2,
        Ld | Sd | Fld | Fsd => 3,
        _ => return None,
    })
}

/// Whether it is a store.
fn is_store(op: Op) -> bool {
    use Op::*;
    matches!(op, Sb | Sh | Sw | Sd | Fsw | Fsd)
}

impl Groups {
    /// The groups of `ops`; `keeps_translations` says of an instruction that translations are after
    /// it what they were before.
    pub fn plan(ops: &[DecodedOp], keeps_translations: impl Fn(&DecodedOp) -> bool) -> Groups {
        let mut planned = Groups {
            groups: Vec::new(),
            of: vec![None; ops.len()],
        };
        for (index, op) in ops.iter().enumerate() {
            if !keeps_translations(op) {
                planned
                    .groups
                    .iter_mut()
                    .for_each(|group| group.is_open = false);
            }
            if let Some(log_size) = log_size(op.op) {
                planned.add(index, op, 1 << log_size);
            }
            if let Some(written) = destination(op) {
                let groups = planned.groups.iter_mut();
                groups
                    .filter(|group| group.base == written)
                    .for_each(|group| group.is_open = false);
            }
        }
        for number in &mut planned.of {
            *number = number.filter(|&number| {
                let group = &planned.groups[number];
                group.first != group.last
            });
        }
        planned
    }

    fn add(&mut self, index: usize, op: &DecodedOp, size: i32) {
        let (low, end) = (op.immediate, op.immediate + size);
        for (number, group) in self.groups.iter_mut().enumerate() {
            if !group.is_open || group.base != op.rs1 || group.is_store != is_store(op.op) {
                continue;
            }
            let new_low = low.min(group.low);
            let span = end.max(group.low + group.span) - new_low;
            if span <= LARGEST_SPAN {
                (group.low, group.span, group.last) = (new_low, span, index);
                self.of[index] = Some(number);
                return;
            }
            group.is_open = false;
        }
        self.of[index] = Some(self.groups.len());
        self.groups.push(Group {
            base: op.rs1,
            is_store: is_store(op.op),
            low,
            span: size,
            first: index,
            last: index,
            is_open: true,
        });
    }

    /// The group of instruction `index`.
    pub fn group(&self, index: usize) -> Option<(usize, Group)> {
        let number = (*self.of.get(index)?)?;
        Some((number, self.groups[number]))
    }

    /// The groups that have instructions on both sides of the end of instruction `index`.
    pub fn around(&self, index: usize) -> impl Iterator<Item = (usize, Group)> {
        let groups = self.groups.iter().copied().enumerate();
        groups.filter(move |(_, group)| group.first <= index && index < group.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Extensions, decode};

    fn piece(words: &[u32]) -> Vec<DecodedOp> {
        let ops = words.iter().enumerate();
        ops.map(|(index, &bits)| DecodedOp::new(decode(bits, Extensions::ALL), 4 * index as u16))
            .collect()
    }

    #[test]
    fn accesses_by_an_unchanged_base_are_one_group() {
        // sd ra, 24(sp); sd s0, 16(sp); addi a0, a0, 1; sd s1, 8(sp)
        let ops = piece(&[0x0011_3c23, 0x0081_3823, 0x0015_0513, 0x0091_3423]);
        let groups = Groups::plan(&ops, |_| true);
        let (_, group) = groups.group(0).expect("a group");
        assert_eq!((group.low, group.span), (8, 24));
        assert_eq!((group.first, group.last), (0, 3));
        assert!(groups.group(2).is_none());
        assert_eq!(groups.around(1).count(), 1);
        assert_eq!(groups.around(3).count(), 0);
    }

    #[test]
    fn a_written_base_and_another_direction_end_a_group() {
        // ld a0, 0(a0); ld a1, 8(a0); sd a1, 16(a0)
        let ops = piece(&[0x0005_3503, 0x0085_3583, 0x00b5_3823]);
        let groups = Groups::plan(&ops, |_| true);
        assert!((0..3).all(|index| groups.group(index).is_none()));
    }

    #[test]
    fn what_may_change_translations_ends_a_group() {
        // ld a1, 0(a0); ecall; ld a2, 8(a0)
        let ops = piece(&[0x0005_3583, 0x0000_0073, 0x0085_3603]);
        let groups = Groups::plan(&ops, |op| op.op != Op::Ecall);
        assert!((0..3).all(|index| groups.group(index).is_none()));
    }
}
