//! Accesses to memory that need one look at the TLB together: by the same base register, near each other.

use super::piece::{Kind, Step};
use crate::interpreter::op::{RIP, ZERO};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// Groups that a piece may have: each has a place in the frame.
pub const MOST: usize = 6;
/// Bytes from the first to the last of a group: a group that is not in one page is of no use.
const LONGEST: i32 = 512;

/// An access to memory relative to a register, as it is before the instruction.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    pub base: u8,
    pub displacement: i32,
    pub size: i32,
    pub is_write: bool,
}

/// Accesses of a piece.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub base: u8,
    /// The instructions with the first and the last access.
    pub first: usize,
    pub last: usize,
    /// Where the lowest byte and the byte behind the highest are, from what the register is before the
    /// first instruction.
    pub low: i32,
    pub high: i32,
    pub is_write: bool,
    /// What was added to the register since, while the group grows.
    moved: i32,
    members: u32,
}

/// The groups of a piece, and to which each instruction belongs.
#[derive(Debug, Default)]
pub struct Groups {
    groups: Vec<Group>,
    of: Vec<Option<usize>>,
}

impl Groups {
    /// Finds them.
    pub fn of(steps: &[Step]) -> Groups {
        let mut groups: Vec<Group> = Vec::new();
        let mut of = vec![None; steps.len()];
        let mut open: [Option<usize>; 16] = [None; 16];
        for (index, step) in steps.iter().enumerate() {
            if let Some(near) = step.near() {
                let base = usize::from(near.base & 15);
                let joined = open[base].filter(|&number| groups[number].join(index, &near));
                let number = joined.unwrap_or_else(|| {
                    groups.push(Group::new(index, &near));
                    groups.len() - 1
                });
                open[base] = Some(number);
                of[index] = Some(number);
            }
            for (base, open) in open.iter_mut().enumerate() {
                let Some(number) = *open else { continue };
                match step.moves(base as u8) {
                    Some(by) => groups[number].moved = groups[number].moved.wrapping_add(by),
                    None => *open = None,
                }
            }
        }
        // One alone gains nothing.
        let mut places = vec![None; groups.len()];
        let mut kept = Vec::new();
        for (number, group) in groups.into_iter().enumerate() {
            if group.members > 1 && kept.len() < MOST {
                places[number] = Some(kept.len());
                kept.push(group);
            }
        }
        for place in &mut of {
            *place = place.and_then(|number| places[number]);
        }
        Groups { groups: kept, of }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The group of an instruction, and its number.
    pub fn find(&self, index: usize) -> Option<(usize, Group)> {
        let number = self.of.get(index).copied().flatten()?;
        Some((number, self.groups[number]))
    }

    /// Whether an instruction belongs to a group that another began.
    pub fn follows(&self, index: usize) -> bool {
        self.find(index)
            .is_some_and(|(_, group)| group.first != index)
    }

    /// The groups that were begun at an instruction or before, and go on behind it.
    pub fn around(&self, index: usize) -> impl Iterator<Item = (usize, Group)> {
        let groups = self.groups.iter().copied().enumerate();
        groups.filter(move |(_, group)| group.first <= index && group.last > index)
    }
}

impl Group {
    fn new(index: usize, near: &Near) -> Group {
        Group {
            base: near.base,
            first: index,
            last: index,
            low: near.displacement,
            high: near.displacement.wrapping_add(near.size),
            is_write: near.is_write,
            moved: 0,
            members: 1,
        }
    }

    fn join(&mut self, index: usize, near: &Near) -> bool {
        let Some(low) = self.moved.checked_add(near.displacement) else {
            return false;
        };
        let Some(high) = low.checked_add(near.size) else {
            return false;
        };
        let (low, high) = (low.min(self.low), high.max(self.high));
        if high.checked_sub(low).is_none_or(|bytes| bytes > LONGEST) {
            return false;
        }
        (self.low, self.high) = (low, high);
        self.is_write |= near.is_write;
        self.last = index;
        self.members += 1;
        true
    }

    /// What was added to the register by the instructions from the first on to `index`, that with it.
    pub fn moved(&self, steps: &[Step], index: usize) -> i32 {
        let steps = &steps[self.first..=index];
        let moves = steps.iter().map(|step| step.moves(self.base).unwrap_or(0));
        moves.fold(0, i32::wrapping_add)
    }
}

fn register(instruction: &Instruction, operand: u32) -> Option<u8> {
    let register = instruction.op_register(operand);
    let is_one = instruction.op_kind(operand) == OpKind::Register && register.is_gpr();
    is_one.then(|| register.full_register().number() as u8)
}

const RSP: u8 = 4;
const RBP: u8 = 5;

impl Step {
    /// Its access to memory, if that is relative to one register.
    fn near(&self) -> Option<Near> {
        let stack = |base, displacement, is_write| Near {
            base,
            displacement,
            size: 8,
            is_write,
        };
        match self.kind {
            Kind::Push | Kind::PushFlags | Kind::Call => return Some(stack(RSP, -8, true)),
            Kind::Pop | Kind::Return => return Some(stack(RSP, 0, false)),
            Kind::Leave => return Some(stack(RBP, 0, false)),
            // Two accesses, or none that may be known before.
            Kind::CallBack
            | Kind::LastCallBack
            | Kind::CallIndirect
            | Kind::PushMemory
            | Kind::BitTestInMemory => return None,
            _ if !self.has_memory() => return None,
            _ => {}
        }
        let op = &self.op;
        let size = self.instruction.memory_size().size() as i32;
        let is_plain = op.index == ZERO
            && op.base != ZERO
            && op.base != RIP
            && op.segment <= 3
            && !op.is_address_32
            && matches!(size, 1 | 2 | 4 | 8 | 16);
        is_plain.then(|| Near {
            base: op.base,
            displacement: op.displacement,
            size,
            is_write: self.writes_memory(),
        })
    }

    /// Whether it may write its operand in memory.
    pub fn writes_memory(&self) -> bool {
        let instruction = &self.instruction;
        instruction.op_kind(0) == OpKind::Memory
            && !matches!(
                instruction.mnemonic(),
                Mnemonic::Cmp
                    | Mnemonic::Test
                    | Mnemonic::Bt
                    | Mnemonic::Jmp
                    | Mnemonic::Call
                    | Mnemonic::Mul
                    | Mnemonic::Imul
                    | Mnemonic::Div
                    | Mnemonic::Idiv
            )
    }

    /// What it adds to a register: nothing, most often. None if that is not known before.
    pub fn moves(&self, base: u8) -> Option<i32> {
        let instruction = &self.instruction;
        let first = register(instruction, 0) == Some(base);
        let second = register(instruction, 1) == Some(base);
        let unless = |is_written: bool| (!is_written).then_some(0);
        match self.kind {
            // Behind CLAC and STAC other pages may be accessed.
            Kind::CallBack | Kind::LastCallBack | Kind::ChangeAccess => None,
            Kind::Push | Kind::PushFlags | Kind::PushMemory | Kind::Call | Kind::CallIndirect
                if base == RSP =>
            {
                Some(-8)
            }
            Kind::Pop if first => None,
            Kind::Pop if base == RSP => Some(8),
            Kind::Return if base == RSP => None,
            Kind::Leave => unless(base == RSP || base == RBP),
            Kind::MultiplyWide | Kind::Divide | Kind::SignExtend => unless(base == 0 || base == 2),
            Kind::CompareExchange => unless(base == 0),
            Kind::LoadAddress if first => {
                let op = &self.op;
                let is_sum = instruction.op_register(0).size() == 8
                    && op.base == base
                    && op.index == ZERO
                    && !op.is_address_32;
                is_sum.then_some(op.displacement)
            }
            Kind::Same if first || second => {
                let is_wide = first && instruction.op_register(0).size() == 8;
                let has_constant = instruction.op_count() == 2
                    && !matches!(instruction.op_kind(1), OpKind::Register | OpKind::Memory);
                match instruction.mnemonic() {
                    Mnemonic::Cmp | Mnemonic::Test => Some(0),
                    Mnemonic::Xchg | Mnemonic::Xadd => None,
                    _ if !first => Some(0),
                    Mnemonic::Inc if is_wide => Some(1),
                    Mnemonic::Dec if is_wide => Some(-1),
                    Mnemonic::Add if is_wide && has_constant => {
                        i32::try_from(instruction.immediate(1) as i64).ok()
                    }
                    Mnemonic::Sub if is_wide && has_constant => {
                        let by = i32::try_from(instruction.immediate(1) as i64).ok()?;
                        by.checked_neg()
                    }
                    _ => None,
                }
            }
            // Written in part, but what that is to a register is not told.
            Kind::HighByte => unless(first || second),
            Kind::BitTest if instruction.mnemonic() == Mnemonic::Bt => Some(0),
            _ => unless(first),
        }
    }
}
