//! One piece of code: its head, its instructions, and behind them what is rarely reached.

use super::atomic::AtomicCold;
use super::float::{FloatCold, FloatRegisters, Loop};
use super::groups::Groups;
use super::integer::is_rare;
use super::kept_sites::KeptSite;
use super::layout::*;
use super::lending::{self, Lending};
use super::memory::SlowHalf;
use super::registers::{Registers, STANDARD};
use super::routines::Routines;
use crate::emitter::call_back::Place;
use crate::emitter::tier::Exit;
use crate::emitter::translate::{Piece, leaves};
use crate::interpreter::block::{DecodedOp, writes_float};
use crate::isa::Op;
use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use jit::code_cache::{CodeCache, Link};
use std::num::NonZeroU32;

/// Whether instructions are counted. Always, but for the build that measures what that costs.
pub(super) const COUNTS: bool = !cfg!(feature = "uncounted");

/// What is emitted behind the piece, out of the way.
pub(super) enum Cold {
    /// The slow half of a load or store.
    Access(SlowHalf),
    /// A branch that is taken before the end of the piece.
    Branch {
        from: DynamicLabel,
        /// Instructions of the piece that are not executed then.
        rest: i32,
        /// Where it leads, relative to the page.
        target: i32,
        registers: Registers,
    },
    /// What floating point rarely needs.
    Float(FloatCold),
    /// What atomics rarely need.
    Atomic(AtomicCold),
    /// A write of `sstatus` changes SUM, or is for `rare`.
    Sum {
        from: DynamicLabel,
        back: DynamicLabel,
        rare: DynamicLabel,
    },
    /// Gives up: the interpreter executes the instruction.
    Interpret {
        from: DynamicLabel,
        rest: i32,
        offset: i32,
        registers: Registers,
    },
    /// A jump within the page to what was not compiled yet.
    Link {
        from: DynamicLabel,
        number: usize,
        target: i32,
    },
}

/// Emits one piece.
pub struct Emitter<'a> {
    pub(super) asm: VecAssembler<X64Relocation>,
    pub(super) piece: &'a Piece,
    pub(super) cache: &'a mut CodeCache,
    pub(super) routines: &'a Routines,
    rare_ops: &'a mut Vec<DecodedOp>,
    pub(super) cold: Vec<Cold>,
    /// Offset of the piece in the code cache.
    start: usize,
    /// The instruction that is emitted.
    pub(super) index: usize,
    /// What is known of floating point here.
    pub(super) floats: FloatRegisters,
    /// Where the integer registers are here.
    pub(super) registers: Registers,
    /// What is to be lent when it is first needed.
    pub(super) lendings: Vec<Lending>,
    /// Loads and stores that have one check together.
    pub(super) groups: Groups,
    /// The sites of the groups.
    pub(super) group_sites: Vec<usize>,
    /// The site whose addend is in `rcx`.
    pub(super) addend: Option<usize>,
    /// What a loop keeps of its sites.
    pub(super) kept: Vec<KeptSite>,
    /// The mode is known to be S or M.
    pub(super) is_privileged: bool,
    /// Where the last instruction may jump if it leads to the first.
    pub(super) looped: Option<Loop>,
    /// In the first round of a loop: where the others are.
    pub(super) other_rounds: Option<DynamicLabel>,
}

impl<'a> Emitter<'a> {
    /// An emitter for `piece`, which will be put into `cache` next.
    pub fn new(
        piece: &'a Piece,
        cache: &'a mut CodeCache,
        routines: &'a Routines,
        rare_ops: &'a mut Vec<DecodedOp>,
    ) -> Emitter<'a> {
        let address = cache.next_address();
        Emitter {
            asm: VecAssembler::new(address),
            piece,
            start: address - cache.base(),
            cache,
            routines,
            rare_ops,
            cold: Vec::new(),
            index: 0,
            floats: FloatRegisters::default(),
            registers: STANDARD,
            lendings: Vec::new(),
            groups: Groups::default(),
            group_sites: Vec::new(),
            addend: None,
            kept: Vec::new(),
            is_privileged: false,
            looped: None,
            other_rounds: None,
        }
    }

    /// The code. `known` gives the code at an offset of the same page, where there is some.
    pub fn emit(mut self, known: impl FnMut(i32) -> Option<NonZeroU32>) -> Vec<u8> {
        let mut known = known;
        self.groups = Groups::plan(&self.piece.ops, |op| !is_rare(op.op));
        self.other_rounds = self.leads_to_itself().then(|| self.asm.new_dynamic_label());
        self.instructions(false, &mut known);
        if let Some(other_rounds) = self.other_rounds.take() {
            dynasm!(self.asm; .arch x64; =>other_rounds);
            self.instructions(true, &mut known);
        }
        self.asm.finalize().expect("every label is bound")
    }

    /// All instructions, once or as the rounds of a loop, and what is behind them. What a loop does
    /// once for all rounds is done before the second: many loops have but one.
    fn instructions(
        &mut self,
        are_rounds: bool,
        known: &mut impl FnMut(i32) -> Option<NonZeroU32>,
    ) {
        let length = self.piece.ops.len() as i32;
        let budget = self.asm.new_dynamic_label();
        self.floats = FloatRegisters::default();
        self.registers = STANDARD;
        self.lendings = lending::plan(&self.piece.ops, are_rounds);
        self.group_sites = vec![0; self.groups.groups.len()];
        self.addend = None;
        self.is_privileged = false;
        if are_rounds {
            self.begin_loop();
        }
        let at_top = self.registers;
        self.count(length as i8, budget);
        for index in 0..self.piece.ops.len() {
            self.index = index;
            if index + 1 == self.piece.ops.len()
                && let Some(crossing) = self.piece.crossing
            {
                self.check_crossing(crossing);
            }
            self.instruction(self.piece.ops[index], known);
        }
        let last = self.piece.ops[self.index];
        if !matches!(last.op, Op::Jal | Op::Jalr) && !leaves(last.op) {
            self.jump(self.piece.end(), known);
        }
        let first = i32::from(self.piece.ops[0].offset);
        dynasm!(self.asm; .arch x64; =>budget);
        self.uncount(length);
        self.at(&at_top, Self::leave);
        dynasm!(self.asm; .arch x64
            ; mov ecx, first
            ; mov eax, Exit::Budget.number()
            ; jmp extern self.routines.exit_at
        );
        let mut next = 0;
        while next < self.cold.len() {
            for cold in self.cold.split_off(next) {
                self.cold(cold, known);
            }
            next = 0;
        }
    }

    fn cold(&mut self, cold: Cold, known: &mut impl FnMut(i32) -> Option<NonZeroU32>) {
        match cold {
            Cold::Access(half) => self.slow_half(half, known),
            Cold::Float(cold) => self.cold_float(cold),
            Cold::Atomic(cold) => self.cold_atomic(cold),
            Cold::Sum { from, back, rare } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.cold_sum(rare);
                dynasm!(self.asm; .arch x64; jmp =>back);
            }
            Cold::Branch {
                from,
                rest,
                target,
                registers,
            } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.uncount(rest);
                self.at(&registers, |emitter| emitter.jump(target, known));
            }
            Cold::Interpret {
                from,
                rest,
                offset,
                registers,
            } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.at(&registers, |emitter| emitter.interpret(rest, offset));
            }
            Cold::Link {
                from,
                number,
                target,
            } => dynasm!(self.asm; .arch x64
                ; =>from
                ; mov ecx, target
                ; mov eax, Exit::Link(number).number()
                ; jmp extern self.routines.exit_at
            ),
        }
    }

    /// Counts the instructions of the piece; jumps if fewer are left.
    fn count(&mut self, length: i8, budget: DynamicLabel) {
        if COUNTS {
            dynasm!(self.asm; .arch x64; sub r15, BYTE length; jl =>budget);
        }
    }

    /// Gives back what was counted and is not executed.
    pub(super) fn uncount(&mut self, rest: i32) {
        if COUNTS {
            dynasm!(self.asm; .arch x64; add r15, rest);
        }
    }

    /// Behind the piece, from a place where the registers are `registers`: lets the interpreter
    /// execute a rare instruction. The piece goes on.
    pub(super) fn execute_beside(&mut self, registers: &Registers, number: i32, place: i32) {
        self.at(registers, |emitter| {
            emitter.leave();
            dynasm!(emitter.asm; .arch x64
                ; mov eax, number
                ; mov ecx, place
                ; call extern emitter.routines.execute_float
            );
            emitter.come_back(registers);
        });
    }

    /// Leaves the piece for the interpreter; `rest` instructions from the one at `offset` on.
    pub(super) fn interpret(&mut self, rest: i32, offset: i32) {
        self.leave();
        self.uncount(rest);
        dynasm!(self.asm; .arch x64
            ; mov ecx, offset
            ; mov eax, Exit::Interpret.number()
            ; jmp extern self.routines.exit_at
        );
    }

    /// Instructions of the piece behind the present one.
    pub(super) fn rest(&self) -> i32 {
        (self.piece.ops.len() - self.index - 1) as i32
    }

    /// Where the present instruction is.
    pub(super) fn place(&self) -> Place {
        let op = &self.piece.ops[self.index];
        Place::new(self.piece.ops.len() - self.index, op.offset)
    }

    /// A jump within the page can be patched from here on: the last four bytes emitted are its
    /// relative address, and it leads to the label given meanwhile.
    pub(super) fn add_link(&mut self, target: i32, from: DynamicLabel) {
        let number = self.cache.next_link();
        let patch = (self.start + self.asm.offset().0 - 4) as u32;
        self.cache.add_link(Link { patch });
        self.cold.push(Cold::Link {
            from,
            number,
            target,
        });
    }

    /// Address of compiled code by its offset in the cache.
    pub(super) fn address(&self, code: NonZeroU32) -> usize {
        self.cache.base() + code.get() as usize
    }

    /// The number of `op` among the rare instructions.
    pub(super) fn add_rare(&mut self, op: DecodedOp) -> i32 {
        self.rare_ops.push(op);
        self.rare_ops.len() as i32 - 1
    }

    /// Lets the interpreter's `execute` do it.
    pub(super) fn rare(&mut self, op: DecodedOp) {
        let number = self.add_rare(op);
        let place = self.place().0 as i32;
        let routine = if is_csr_access(op.op) || leaves(op.op) {
            self.routines.execute_system // the CSRs of floating point are not rare
        } else {
            self.routines.execute
        };
        let before = self.registers;
        self.leave();
        dynasm!(self.asm; .arch x64
            ; mov eax, number
            ; mov ecx, place
            ; call extern routine
        );
        self.floats.forget_registers();
        if is_csr_access(op.op) {
            self.floats.forget_modes();
        }
        if writes_float(op.op) {
            self.floats.set_boxed(op.rd, false);
        }
        if leaves(op.op) {
            dynasm!(self.asm; .arch x64; mov rax, [rbp + PC]);
            self.dispatch();
        } else {
            self.come_back(&before);
        }
    }

    /// A host register that holds a guest register: its own, or `scratch`.
    pub(super) fn source(&mut self, guest: u8, scratch: HostRegister) -> HostRegister {
        if let Some(home) = self.registers.home(guest) {
            return home;
        }
        if guest == 0 {
            dynasm!(self.asm; .arch x64; xor Rd(scratch), Rd(scratch));
        } else {
            dynasm!(self.asm; .arch x64; mov Rq(scratch), [BYTE rbp + x(guest)]);
        }
        scratch
    }

    /// The host register in which a result is to be computed.
    pub(super) fn target(&self, guest: u8) -> HostRegister {
        self.registers.home(guest).unwrap_or(RAX)
    }

    /// A result is in [`Emitter::target`].
    pub(super) fn finish(&mut self, guest: u8) {
        if guest >= 32 {
            return;
        }
        if self.registers.home(guest).is_none() {
            dynasm!(self.asm; .arch x64; mov [BYTE rbp + x(guest)], rax);
        }
        self.registers.wrote(guest, false);
    }

    /// The low half of a result is in [`Emitter::target`]; its sign extends to the upper half.
    pub(super) fn finish_word(&mut self, guest: u8) {
        if self.registers.home(guest).is_some() {
            return self.registers.wrote(guest, true);
        }
        dynasm!(self.asm; .arch x64; movsxd rax, eax);
        self.finish(guest);
    }

    /// Copies one host register to another.
    pub(super) fn copy(&mut self, to: HostRegister, from: HostRegister) {
        if to != from {
            dynasm!(self.asm; .arch x64; mov Rq(to), Rq(from));
        }
    }
}

/// Whether an instruction is one of Zicsr.
pub(super) fn is_csr_access(op: Op) -> bool {
    use Op::*;
    matches!(op, Csrrw | Csrrs | Csrrc | Csrrwi | Csrrsi | Csrrci)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emitter::translate::LONGEST;
    use crate::hart::registers::SINK;
    use jit::code_cache::LARGEST_PIECE;

    /// Loads and stores by all registers in turn: nearly all of them have to check all groups again.
    #[test]
    fn the_largest_piece_fits() {
        let ops = (0..LONGEST).map(|index| {
            let (op, rd) = [(Op::Ld, SINK), (Op::Fsd, 0)][index % 2];
            DecodedOp {
                op,
                rd,
                rs1: (1 + index / 2 % 31) as u8,
                rs2: (index % 32) as u8,
                immediate: 8 * (index / 62) as i32,
                offset: 4 * index as u16,
                length: 4,
            }
        });
        let piece = Piece {
            page_offset: 0,
            ops: ops.collect(),
            crossing: None,
        };
        let mut cache = CodeCache::new().expect("executable memory");
        let routines = Routines::emit(&mut cache);
        let mut rare_ops = Vec::new();
        let emitter = Emitter::new(&piece, &mut cache, &routines, &mut rare_ops);
        let code = emitter.emit(|_| None);
        assert!(code.len() > 32 << 10, "{} bytes", code.len());
        assert!(code.len() < LARGEST_PIECE / 2, "{} bytes", code.len());
    }
}
