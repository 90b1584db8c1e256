//! Jumps, calls, returns. Whatever is not known of a target is left to the interpreter, with the whole
//! instruction.

use super::emitter::{Cold, Emitter, is_in_page};
use super::layout::*;
use super::memory::Access;
use super::sites::Site;
use crate::emitter::jumps::ENTRIES;
use crate::interpreter::op::Op;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{ConditionCode, OpKind};

const _: () = assert!(ENTRIES.is_power_of_two());
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
        self.save_flags();
        let target = self.present().target();
        let miss = (!is_in_page(target)).then(|| self.leave_from());
        self.jump_to(target, miss);
    }

    /// JMP through a register or memory.
    pub(super) fn jump_indirect(&mut self) {
        let miss = self.begin_indirect();
        self.find(miss);
        self.enter_found();
    }

    /// Puts the target of an indirect jump into `rax`.
    fn begin_indirect(&mut self) -> DynamicLabel {
        self.save_flags();
        let step = self.present();
        let miss = self.leave_from();
        if step.instruction.op_kind(0) == OpKind::Register {
            let register = step.instruction.op_register(0).full_register();
            let target = self.source(register.number() as u8, RAX);
            if target != RAX {
                dynasm!(self.asm; .arch x64; mov rax, Rq(target));
            }
        } else if self.in_group(step.op.base, step.op.displacement) {
            dynasm!(self.asm; .arch x64; mov rax, [rax]);
        } else if self.address(&step.op).is_ok() {
            self.check(Access::Read, 8, miss);
            dynasm!(self.asm; .arch x64; mov rax, [rax]);
        } else {
            dynasm!(self.asm; .arch x64; jmp =>miss);
        }
        miss
    }

    /// CALL.
    pub(super) fn call(&mut self) {
        self.save_flags();
        let target = self.present().target();
        let miss = self.leave_from();
        if is_in_page(target) {
            self.push_return_address(miss);
            self.link(target as i32);
        } else {
            self.find_code(target, miss);
            self.call_found(miss);
        }
    }

    /// CALL through a register or memory.
    pub(super) fn call_indirect(&mut self) {
        let miss = self.begin_indirect();
        self.find(miss);
        self.call_found(miss);
    }

    /// Calls what [`Emitter::find`] has found.
    fn call_found(&mut self, miss: DynamicLabel) {
        dynasm!(self.asm; .arch x64
            ; mov rcx, [rcx + 8]
            ; and rax, -4096
            ; mov [rsp + TARGET], rcx
            ; mov [rsp + TARGET + 8], rax
        );
        self.push_return_address(miss);
        dynasm!(self.asm; .arch x64
            ; mov rax, [rsp + TARGET + 8]
            ; mov [BYTE rsp + (PAGE) as i8], rax
            ; jmp QWORD [rsp + TARGET]
        );
    }

    fn push_return_address(&mut self, miss: DynamicLabel) {
        let next = i32::from(self.present().op.next);
        if !self.in_group(RSP, -8) {
            self.lea(RAX, Some(GUEST_RSP), None, -8, true);
            self.check_by_site(Site::of_stack(true), Access::Write, 8, miss);
        }
        dynasm!(self.asm; .arch x64; mov rcx, [BYTE rsp + (PAGE) as i8]; add rcx, next; mov [rax], rcx);
        dynasm!(self.asm; .arch x64; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) - 8]);
    }

    /// RET.
    pub(super) fn return_(&mut self) {
        self.save_flags();
        let miss = self.leave_from();
        let dropped = dropped(&self.present().op);
        if !self.in_group(RSP, 0) {
            dynasm!(self.asm; .arch x64; mov rax, Rq(GUEST_RSP));
            self.check_by_site(Site::of_stack(false), Access::Read, 8, miss);
        }
        dynasm!(self.asm; .arch x64; mov rax, [rax]);
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
        dynasm!(self.asm; .arch x64
            ; rorx rcx, rax, 12
            ; xor ecx, eax
            ; and ecx, ENTRIES as i32 - 1
            ; shl ecx, 4
            ; add rcx, [BYTE rsp + (JUMPS) as i8]
            ; cmp rax, [rcx]
            ; jne =>miss
        );
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
