//! PUSH, POP, LEAVE.

use super::emitter::Emitter;
use super::layout::*;
use super::memory::{Access, Place};
use super::sites::Site;
use dynasmrt::{DynamicLabel, DynasmApi, dynasm};
use iced_x86::{OpKind, Register};

const RSP: u8 = 4;
const RBP: u8 = 5;

fn guest(register: Register) -> u8 {
    register.full_register().number() as u8
}

impl Emitter<'_> {
    /// Puts the host's address of 8 bytes at a guest register, and `offset` bytes more, into `rax`.
    fn stack(&mut self, at: u8, offset: i32, access: Access) -> Option<DynamicLabel> {
        if self.in_group(at, offset) {
            return None;
        }
        self.yield_flags();
        let base = self.source(at, RAX);
        self.lea(RAX, Some(base), None, offset, true);
        let miss = self.asm.new_dynamic_label();
        if at == RSP {
            self.check_by_site(Site::of_stack(access == Access::Write), access, 8, miss);
        } else {
            self.check(access, 8, miss);
        }
        Some(self.call_back_from(miss))
    }

    /// PUSH of a register or a constant.
    pub(super) fn push(&mut self) {
        let instruction = &self.present().instruction;
        if let Some(Place {
            index: Some(index),
            displacement,
        }) = self.place_in_group(RSP, -8)
        {
            if instruction.op_kind(0) == OpKind::Register {
                let value = self.source(guest(instruction.op_register(0)), RCX);
                dynasm!(self.asm; .arch x64; mov [rax + Rq(index) + displacement], Rq(value));
            } else {
                let value = instruction.immediate(0) as i32;
                dynasm!(self.asm; .arch x64; mov QWORD [rax + Rq(index) + displacement], value);
            }
            dynasm!(self.asm; .arch x64; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) - 8]);
            return;
        }
        let back = self.stack(RSP, -8, Access::Write);
        if instruction.op_kind(0) == OpKind::Register {
            let value = self.source(guest(instruction.op_register(0)), RCX);
            dynasm!(self.asm; .arch x64; mov [rax], Rq(value));
        } else {
            let value = instruction.immediate(0) as i32;
            dynasm!(self.asm; .arch x64; mov QWORD [rax], value);
        }
        dynasm!(self.asm; .arch x64; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) - 8]);
        if let Some(back) = back {
            self.come_back(back);
        }
    }

    /// PUSH of an operand in memory.
    pub(super) fn push_memory(&mut self) -> Result<(), ()> {
        let Some(back) = self.operand(Access::Read)? else {
            return Err(()); // no group has it
        };
        dynasm!(self.asm; .arch x64; mov rax, [rax]; mov [rsp + TARGET], rax);
        self.lea(RAX, Some(GUEST_RSP), None, -8, true);
        let miss = self.asm.new_dynamic_label();
        self.check_by_site(Site::of_stack(true), Access::Write, 8, miss);
        self.share_call_back(miss, back);
        dynasm!(self.asm; .arch x64
            ; mov rcx, [rsp + TARGET]
            ; mov [rax], rcx
            ; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) - 8]
        );
        self.come_back(back);
        Ok(())
    }

    /// POP to a register.
    pub(super) fn pop(&mut self) {
        let to = guest(self.present().instruction.op_register(0));
        if let Some(Place {
            index: Some(index), ..
        }) = self.place_in_group(RSP, 0)
        {
            let home = self.homes[usize::from(to)].unwrap_or(RCX);
            dynasm!(self.asm; .arch x64
                ; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) + 8]
                ; mov Rq(home), [rax + Rq(index) - 8]
            );
            self.put(to, home);
            return;
        }
        let back = self.stack(RSP, 0, Access::Read);
        dynasm!(self.asm; .arch x64; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) + 8]);
        let home = self.homes[usize::from(to)].unwrap_or(RCX);
        dynasm!(self.asm; .arch x64; mov Rq(home), [rax]);
        self.put(to, home);
        if let Some(back) = back {
            self.come_back(back);
        }
    }

    /// LEAVE.
    pub(super) fn leave_frame(&mut self) {
        let back = self.stack(RBP, 0, Access::Read);
        dynasm!(self.asm; .arch x64
            ; lea Rq(GUEST_RSP), [Rq(GUEST_RBP) + 8]
            ; mov Rq(GUEST_RBP), [rax]
        );
        if let Some(back) = back {
            self.come_back(back);
        }
    }
}
