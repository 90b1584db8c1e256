//! Branches and jumps.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use crate::emitter::tier::JUMP_ENTRIES;
use crate::emitter::translate::Crossing;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use crate::mmu::tlb::ENTRIES;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use machine::memory::PAGE_SIZE;
use std::num::NonZeroU32;

impl Emitter<'_> {
    /// Jumps to `target`, bytes from the begin of the page.
    pub(super) fn jump(&mut self, target: i32, known: &mut impl FnMut(i32) -> Option<NonZeroU32>) {
        self.leave();
        if !is_in_page(target) {
            dynasm!(self.asm; .arch x64; mov rax, [rbp + PAGE]; add rax, target);
            self.dispatch();
        } else if let Some(code) = known(target) {
            let address = self.address(code);
            dynasm!(self.asm; .arch x64; jmp extern address);
        } else {
            let from = self.asm.new_dynamic_label();
            dynasm!(self.asm; .arch x64; jmp =>from);
            self.add_link(target, from);
        }
    }

    /// Leaves an instruction that crosses a page to the interpreter, unless its second half is what it
    /// was when it was compiled.
    pub(super) fn check_crossing(&mut self, crossing: Crossing) {
        let from = self.asm.new_dynamic_label();
        self.addend = None;
        dynasm!(self.asm; .arch x64
            ; mov rax, [rbp + PAGE]
            ; shr rax, 12
            ; inc rax
            ; xor rax, [rbp + FETCH_CONTEXT]
            ; mov ecx, eax
            ; and ecx, ENTRIES as i32 - 1
            ; shl ecx, 4
            ; add rcx, [rbp + FETCH_TABLE]
            ; cmp rax, [rcx]
            ; jne =>from
            ; cmp QWORD [rcx + 8], crossing.page_offset
            ; jne =>from
            ; mov rax, [rbp + RAM]
            ; cmp WORD [rax + crossing.page_offset], crossing.half as i16
            ; jne =>from
        );
        self.interpret_from(from);
    }

    /// Jumps to the guest address in `rax`, by the jump cache.
    pub(super) fn dispatch(&mut self) {
        self.leave();
        dynasm!(self.asm; .arch x64
            ; mov ecx, eax
            ; shr ecx, 12
            ; xor ecx, eax
            ; and ecx, 2 * JUMP_ENTRIES as i32 - 2
            ; shl ecx, 4
            ; add rcx, [rbp + JUMP_CACHE]
            ; mov rdx, [rbp + JUMP_KEY]
            ; cmp rax, [rcx]
            ; jne extern self.routines.exit_to
            ; cmp rdx, [rcx + 8]
            ; jne extern self.routines.exit_to
            ; and rax, -(PAGE_SIZE as i32)
            ; mov [rbp + PAGE], rax
            ; jmp QWORD [rcx + 16]
        );
    }

    /// `jal` or `jalr`.
    pub(super) fn unconditional(
        &mut self,
        op: DecodedOp,
        known: &mut impl FnMut(i32) -> Option<NonZeroU32>,
    ) {
        let next = i32::from(op.offset) + i32::from(op.length);
        self.prepare(&op);
        if op.op == Op::Jalr {
            let base = self.source(op.rs1, RAX);
            dynasm!(self.asm; .arch x64; lea rax, [Rq(base) + op.immediate]; and rax, -2);
            self.link_register(op.rd, next);
            self.dispatch();
        } else {
            self.link_register(op.rd, next);
            self.jump(i32::from(op.offset) + op.immediate, known);
        }
    }

    /// `rd` becomes the address `next` bytes into the page. Keeps `rax`.
    fn link_register(&mut self, rd: u8, next: i32) {
        if rd >= 32 {
            return;
        }
        let target = self.registers.home(rd).unwrap_or(RCX);
        dynasm!(self.asm; .arch x64; mov Rq(target), [rbp + PAGE]; add Rq(target), next);
        if target == RCX {
            dynasm!(self.asm; .arch x64; mov [BYTE rbp + x(rd)], rcx);
        }
        self.registers.wrote(rd, false);
    }

    /// A conditional branch.
    pub(super) fn branch(
        &mut self,
        op: DecodedOp,
        known: &mut impl FnMut(i32) -> Option<NonZeroU32>,
    ) {
        let target = i32::from(op.offset) + op.immediate;
        if let Some(top) = self.close_loop(target) {
            self.compare(op.rs1, op.rs2);
            return self.jump_if(op.op, top);
        }
        let rest = self.rest();
        if rest == 0 {
            // Both ways lead out.
            self.leave();
        }
        self.prepare(&op);
        self.compare(op.rs1, op.rs2);
        if rest == 0
            && target == i32::from(self.piece.ops[0].offset)
            && let Some(other_rounds) = self.other_rounds
        {
            return self.jump_if(op.op, other_rounds);
        }
        if rest == 0 && is_in_page(target) {
            if let Some(code) = known(target) {
                let address = self.address(code);
                match op.op {
                    Op::Beq => dynasm!(self.asm; .arch x64; je extern address),
                    Op::Bne => dynasm!(self.asm; .arch x64; jne extern address),
                    Op::Blt => dynasm!(self.asm; .arch x64; jl extern address),
                    Op::Bge => dynasm!(self.asm; .arch x64; jge extern address),
                    Op::Bltu => dynasm!(self.asm; .arch x64; jb extern address),
                    _ => dynasm!(self.asm; .arch x64; jae extern address),
                }
                return;
            }
            let from = self.asm.new_dynamic_label();
            self.jump_if(op.op, from);
            self.add_link(target, from);
            return;
        }
        let from = self.asm.new_dynamic_label();
        self.jump_if(op.op, from);
        let registers = self.registers;
        self.cold.push(Cold::Branch {
            from,
            rest,
            target,
            registers,
        });
    }

    fn jump_if(&mut self, op: Op, to: dynasmrt::DynamicLabel) {
        match op {
            Op::Beq => dynasm!(self.asm; .arch x64; je =>to),
            Op::Bne => dynasm!(self.asm; .arch x64; jne =>to),
            Op::Blt => dynasm!(self.asm; .arch x64; jl =>to),
            Op::Bge => dynasm!(self.asm; .arch x64; jge =>to),
            Op::Bltu => dynasm!(self.asm; .arch x64; jb =>to),
            _ => dynasm!(self.asm; .arch x64; jae =>to),
        }
    }

    /// Compares two guest registers, which are prepared: if one is a word, both are, or zero.
    pub(super) fn compare(&mut self, rs1: u8, rs2: u8) {
        let a = self.source(rs1, RAX);
        let are_words = self.registers.is_word(rs1) || self.registers.is_word(rs2);
        match self.registers.home(rs2) {
            Some(b) if are_words => dynasm!(self.asm; .arch x64; cmp Rd(a), Rd(b)),
            None if are_words => dynasm!(self.asm; .arch x64; test Rd(a), Rd(a)), // rs2 is x0
            Some(b) => dynasm!(self.asm; .arch x64; cmp Rq(a), Rq(b)),
            None if rs2 == 0 => dynasm!(self.asm; .arch x64; test Rq(a), Rq(a)),
            None => dynasm!(self.asm; .arch x64; cmp Rq(a), [BYTE rbp + x(rs2)]),
        }
    }
}

/// Whether an offset from the begin of the page is in the page.
fn is_in_page(offset: i32) -> bool {
    (0..PAGE_SIZE as i32).contains(&offset)
}
