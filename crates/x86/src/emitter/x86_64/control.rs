//! Jumps, calls, returns. Whatever is not known of a target is left to the interpreter, with the whole
//! instruction.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use super::links::is_in_page;
use super::memory::{Access, Place};
use super::sites::Site;
use crate::emitter::jumps::ENTRIES;
use crate::interpreter::op::Op;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{ConditionCode, OpKind};

const _: () = assert!(
    ENTRIES == 1 << 16,
    "the lower half of `eax` is the number of an entry"
);
const RSP: u8 = 4;

impl Emitter<'_> {
    /// Jcc.
    pub(super) fn branch(&mut self) {
        let step = self.present();
        self.load_flags(step.reads);
        let from = self.asm.new_dynamic_label();
        let condition = step.instruction.condition_code() as u8 - ConditionCode::o as u8;
        if let Some(next_round) = self.begins_again() {
            self.jump_if(condition, next_round);
            return;
        }
        self.jump_if(condition, from);
        self.later(Cold::Branch {
            from,
            index: self.index,
            flags: self.flags,
        });
    }

    /// Where the present branch leads, if the piece is a loop whose further rounds are emitted apart.
    fn begins_again(&mut self) -> Option<DynamicLabel> {
        let is_loop = self.present().target() == self.piece.start as i64;
        if self.index + 1 != self.piece.steps.len() || !is_loop {
            return None;
        }
        if self.flags.frame && !self.is_lent {
            return Some(self.head); // where it takes them to be
        }
        self.flags.origin?;
        let flags = self.flags.without_host();
        if self.loop_flags.is_some_and(|known| known != flags) {
            return None;
        }
        self.loop_flags = Some(flags);
        let label = self
            .next_round
            .unwrap_or_else(|| self.asm.new_dynamic_label());
        self.next_round = Some(label);
        Some(if self.is_next_round {
            label
        } else {
            self.first_of_rounds
        })
    }

    /// JMP.
    pub(super) fn jump(&mut self) {
        let target = self.present().target();
        if is_in_page(target) {
            return self.go_on(target as i32, 0);
        }
        self.save_flags();
        let miss = self.leave_from();
        self.find_code(target, miss);
        self.enter_found();
    }

    /// JMP through a register or memory.
    pub(super) fn jump_indirect(&mut self) {
        self.save_flags();
        let miss = self.leave_from();
        self.find_target(miss);
        self.enter_found();
    }

    /// Looks for the code that the present indirect jump leads to.
    fn find_target(&mut self, miss: DynamicLabel) {
        let step = self.present();
        if step.instruction.op_kind(0) == OpKind::Register {
            let register = step.instruction.op_register(0).full_register();
            let target = self.source(register.number() as u8, RAX);
            if target != RAX {
                dynasm!(self.asm; .arch x64; mov rax, Rq(target));
            }
        } else if self.in_group(step.op.base, step.op.displacement) {
            dynasm!(self.asm; .arch x64; mov rax, [rax]);
        } else if let Ok(place) = self.place(&step.op, Access::Read, 8, miss) {
            self.resolve(place);
            dynasm!(self.asm; .arch x64; mov rax, [rax]);
        } else {
            dynasm!(self.asm; .arch x64; jmp =>miss);
        }
        self.find(miss);
    }

    /// CALL.
    pub(super) fn call(&mut self) {
        let target = self.present().target();
        if is_in_page(target) {
            self.yield_flags();
            let miss = self.leave_from();
            let at = self.look_at_stack(-8, true, miss).displacement + self.stack_moved;
            let next = i32::from(self.present().op.next);
            dynasm!(self.asm; .arch x64
                ; mov rcx, [BYTE rsp + (PAGE) as i8]
                ; lea rcx, [rcx + next]
                ; mov [rax + Rq(GUEST_RSP) + at], rcx
            );
            self.stack_moved -= 8;
            self.settle_stack();
            self.go_on(target as i32, 0);
        } else {
            self.save_flags();
            let miss = self.leave_from();
            self.look_at_stack_of_call(miss);
            self.find_code(target, miss);
            self.call_found();
        }
    }

    /// CALL through a register or memory.
    pub(super) fn call_indirect(&mut self) {
        self.save_flags();
        let miss = self.leave_from();
        self.look_at_stack_of_call(miss);
        self.find_target(miss);
        self.call_found();
    }

    /// Sees whether 8 bytes at RSP and `offset` bytes more can be accessed: they are at the place then.
    fn look_at_stack(&mut self, offset: i32, is_write: bool, miss: DynamicLabel) -> Place {
        self.place_in_group(RSP, offset).unwrap_or_else(|| {
            self.lea(RAX, Some(GUEST_RSP), None, offset, true);
            self.ask_site(Site::of_stack(is_write), is_write, 8, miss);
            Place {
                index: Some((GUEST_RSP, 0)),
                displacement: offset,
            }
        })
    }

    /// The same for the return address, before the target is looked for.
    fn look_at_stack_of_call(&mut self, miss: DynamicLabel) {
        self.look_at_stack(-8, true, miss);
        dynasm!(self.asm; .arch x64; mov [rsp + TARGET + 8], rax);
    }

    /// Calls what [`Emitter::find`] has found.
    fn call_found(&mut self) {
        let next = i32::from(self.present().op.next);
        dynasm!(self.asm; .arch x64
            ; mov rcx, [rcx + 8]
            ; and rax, -4096
            ; mov [rsp + TARGET], rcx
            ; mov rcx, [BYTE rsp + (PAGE) as i8]
            ; mov [BYTE rsp + (PAGE) as i8], rax
            ; mov rax, [rsp + TARGET + 8]
            ; add rcx, next
            ; mov [rax + Rq(GUEST_RSP) - 8], rcx
            ; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) - 8]
            ; jmp QWORD [rsp + TARGET]
        );
    }

    /// RET.
    pub(super) fn return_(&mut self) {
        self.save_flags();
        let miss = self.leave_from();
        let dropped = dropped(&self.present().op);
        let at = self.look_at_stack(0, false, miss).displacement;
        dynasm!(self.asm; .arch x64; mov rax, [rax + Rq(GUEST_RSP) + at]);
        self.find(miss);
        dynasm!(self.asm; .arch x64; add Rq(GUEST_RSP), dropped);
        self.enter_found();
    }

    /// Looks for the code at an offset from the begin of the page.
    pub(super) fn find_code(&mut self, target: i64, miss: DynamicLabel) {
        let Ok(target) = i32::try_from(target) else {
            dynasm!(self.asm; .arch x64; jmp =>miss);
            return;
        };
        dynasm!(self.asm; .arch x64; mov rax, [BYTE rsp + (PAGE) as i8]; add rax, target);
        self.find(miss);
    }

    /// Looks for the code at the linear address in `rax`: its entry is at `rcx` then.
    fn find(&mut self, miss: DynamicLabel) {
        self.writes(RAX); // before, most often
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64
            ; movzx ecx, ax
            ; shl ecx, 4
            ; add rcx, [BYTE rsp + (JUMPS) as i8]
            ; cmp rax, [rcx]
            ; jne =>from
            ; =>back
        );
        self.later(Cold::SecondLook { from, back, miss });
    }

    /// Goes on with what [`Emitter::find`] has found.
    pub(super) fn enter_found(&mut self) {
        dynasm!(self.asm; .arch x64
            ; and rax, -4096
            ; mov [BYTE rsp + (PAGE) as i8], rax
            ; jmp QWORD [rcx + 8]
        );
    }
}

/// Bytes by which RET moves rSP.
fn dropped(op: &Op) -> i32 {
    8 + (op.immediate & 0xffff) as i32
}
