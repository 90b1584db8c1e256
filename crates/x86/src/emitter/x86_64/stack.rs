//! PUSH, POP, LEAVE.

use super::emitter::Emitter;
use super::layout::*;
use super::links::is_in_page;
use super::memory::{Access, Place};
use super::sites::Site;
use crate::emitter::piece::Kind;
use crate::interpreter::flags::{AF, CF, PF, RF, SF, VM, ZF};
use dynasmrt::{DynamicLabel, DynasmApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};

const RSP: u8 = 4;
const RBP: u8 = 5;

fn guest(register: Register) -> u8 {
    register.full_register().number() as u8
}

/// Whether an instruction names RSP.
fn names_stack(instruction: &Instruction) -> bool {
    let operands = (0..instruction.op_count()).map(|operand| instruction.op_register(operand));
    let address = [instruction.memory_base(), instruction.memory_index()];
    operands
        .chain(address)
        .any(|register| register.full_register() == Register::RSP)
}

impl Emitter<'_> {
    /// Where 8 bytes at RSP or RBP, and `offset` bytes more, are.
    fn stack(&mut self, at: u8, offset: i32, access: Access) -> (Option<DynamicLabel>, Place) {
        if let Some(place) = self.place_in_group(at, offset) {
            return (None, place);
        }
        self.yield_flags();
        let miss = self.asm.new_dynamic_label();
        let home = if at == RSP { GUEST_RSP } else { GUEST_RBP };
        self.lea(RAX, Some(home), None, offset, true);
        let is_write = access == Access::Write;
        let site = match at {
            RSP => Some(Site::of_stack(is_write)),
            _ => self.site_of_base(at, is_write),
        };
        let place = match site {
            Some(site) => {
                self.ask_site(site, is_write, 8, miss);
                Place {
                    index: Some((home, 0)),
                    displacement: offset,
                }
            }
            None => {
                self.check(access, 8, miss);
                Place::HERE
            }
        };
        (Some(self.call_back_from(miss)), place)
    }

    /// Whether RSP need not be what it is to the guest while the present instruction is executed: one that does not ask for
    /// it and cannot leave the piece, or one that is known to find its place on the stack.
    pub(super) fn stack_can_wait(&self) -> bool {
        let step = self.present();
        let is_known = self.piece.groups.follows(self.index);
        match step.kind {
            Kind::Nothing => true,
            Kind::Same | Kind::LoadAddress | Kind::ShiftByConstant => {
                !step.has_memory() && !names_stack(&step.instruction)
            }
            Kind::Push | Kind::PushFlags | Kind::Pop => is_known && !names_stack(&step.instruction),
            Kind::Call => is_known && is_in_page(step.target()),
            _ => false,
        }
    }

    /// Sees to it that RSP is what it is to the guest. Flags stay.
    pub(super) fn settle_stack(&mut self) {
        let by = std::mem::take(&mut self.stack_moved);
        if by != 0 {
            dynasm!(self.asm; .arch x64; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) + by]);
        }
    }

    /// PUSH of a register or a constant.
    pub(super) fn push(&mut self) {
        let instruction = &self.present().instruction;
        let (back, place) = self.stack(RSP, -8, Access::Write);
        let at = place.displacement + self.stack_moved;
        self.stack_moved -= 8;
        if instruction.op_kind(0) == OpKind::Register {
            let value = self.source(guest(instruction.op_register(0)), RCX);
            dynasm!(self.asm; .arch x64; mov [rax + Rq(GUEST_RSP) + at], Rq(value));
        } else {
            let value = instruction.immediate(0) as i32;
            dynasm!(self.asm; .arch x64; mov QWORD [rax + Rq(GUEST_RSP) + at], value);
        }
        if let Some(back) = back {
            self.settle_stack();
            self.come_back(back);
        }
    }

    /// PUSHFQ.
    pub(super) fn push_flags(&mut self) {
        self.save_flags();
        self.writes(RAX);
        dynasm!(self.asm; .arch x64
            ; movzx eax, BYTE [BYTE rsp + (FLAGS) as i8] // OF
            ; shl eax, 11
            ; movzx ecx, BYTE [BYTE rsp + (FLAGS + 1) as i8]
            ; and ecx, (SF | ZF | AF | PF | CF) as i32
            ; or ecx, eax
            ; mov rax, [BYTE rsp + (CORE) as i8]
            ; mov eax, [rax + CORE_FLAGS]
            ; and eax, !((RF | VM) as i32)
            ; or ecx, eax
            ; mov [rsp + TARGET], rcx
        );
        self.lose_flags();
        let (back, place) = self.stack(RSP, -8, Access::Write);
        let at = place.displacement + self.stack_moved;
        self.stack_moved -= 8;
        dynasm!(self.asm; .arch x64; mov rcx, [rsp + TARGET]; mov [rax + Rq(GUEST_RSP) + at], rcx);
        if let Some(back) = back {
            self.settle_stack();
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
        self.ask_site(Site::of_stack(true), true, 8, miss);
        self.share_call_back(miss, back);
        dynasm!(self.asm; .arch x64
            ; mov rcx, [rsp + TARGET]
            ; mov [rax + Rq(GUEST_RSP) - 8], rcx
            ; lea Rq(GUEST_RSP), [Rq(GUEST_RSP) - 8]
        );
        self.come_back(back);
        Ok(())
    }

    /// POP to a register.
    pub(super) fn pop(&mut self) {
        let to = guest(self.present().instruction.op_register(0));
        let (back, place) = self.stack(RSP, 0, Access::Read);
        let home = self.homes[usize::from(to)].unwrap_or(RCX);
        self.stack_moved += 8;
        if back.is_some() || home == GUEST_RSP {
            self.settle_stack();
        }
        let at = place.displacement - 8 + self.stack_moved;
        dynasm!(self.asm; .arch x64; mov Rq(home), [rax + Rq(GUEST_RSP) + at]);
        self.put(to, home);
        if let Some(back) = back {
            self.come_back(back);
        }
    }

    /// LEAVE.
    pub(super) fn leave_frame(&mut self) {
        let (back, place) = self.stack(RBP, 0, Access::Read);
        self.resolve(place);
        dynasm!(self.asm; .arch x64
            ; lea Rq(GUEST_RSP), [Rq(GUEST_RBP) + 8]
            ; mov Rq(GUEST_RBP), [rax]
        );
        if let Some(back) = back {
            self.come_back(back);
        }
    }
}
