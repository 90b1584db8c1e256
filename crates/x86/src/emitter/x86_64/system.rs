//! What kernels do at each way in and out: CLI, STI, SWAPGS, CLAC and STAC. At other privileges than the kernel's the
//! interpreter executes them.

use super::emitter::Emitter;
use super::layout::*;
use crate::cpu::GS;
use crate::interpreter::flags::IF;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::Mnemonic;

impl Emitter<'_> {
    /// Puts the core into `rax`, if CPL is 0; loses `rcx`. Gives the label from which the interpreter executes the instruction, and that behind it.
    fn in_kernel(&mut self) -> (DynamicLabel, DynamicLabel) {
        self.save_flags();
        self.lose_flags();
        let outside = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64
            ; mov rax, [BYTE rsp + (CORE) as i8]
            ; mov rcx, [rax + CORE_REGISTERS]
            ; test BYTE [rcx + CODE_SELECTOR], 3
            ; jnz =>outside
        );
        let back = self.call_back_from(outside);
        (outside, back)
    }

    /// CLI.
    pub(super) fn keep_out_interrupts(&mut self) {
        let (_, back) = self.in_kernel();
        dynasm!(self.asm; .arch x64; and DWORD [rax + CORE_FLAGS], !(IF as i32));
        self.come_back(back);
    }

    /// STI, where no interrupt waits to be let in: what follows in the piece is executed in any case, so nobody sees that
    /// interrupts are kept out until behind it.
    pub(super) fn let_in_interrupts(&mut self) {
        if self.index + 1 == self.piece.steps.len() {
            return self.call_back();
        }
        let (outside, back) = self.in_kernel();
        dynasm!(self.asm; .arch x64
            ; cmp BYTE [rsp + INTERRUPT_WAITS], 0
            ; jne =>outside
            ; or DWORD [rax + CORE_FLAGS], IF as i32
        );
        self.come_back(back);
    }

    /// CLAC and STAC, where CR4.SMAP is on: other translations are meant from here on.
    pub(super) fn change_access(&mut self) {
        let (outside, back) = self.in_kernel();
        let is_set = self.present().instruction.mnemonic() == Mnemonic::Stac;
        let routine = self.routines.change_access[usize::from(is_set)];
        dynasm!(self.asm; .arch x64
            ; cmp BYTE [rsp + PREVENTS_ACCESS], 0
            ; je =>outside
            ; call extern routine
        );
        self.come_back(back);
    }

    /// SWAPGS.
    pub(super) fn swap_gs(&mut self) {
        let (_, back) = self.in_kernel();
        dynasm!(self.asm; .arch x64
            ; mov rax, [rax + CORE_REGISTERS]
            ; mov rcx, [rsp + segment_base(GS as u8)]
            ; mov [rsp + KEPT], rcx
            ; mov rcx, [rax + KERNEL_GS_BASE]
            ; mov [rsp + segment_base(GS as u8)], rcx
            ; mov [rax + GS_BASE], rcx
            ; mov rcx, [rsp + KEPT]
            ; mov [rax + KERNEL_GS_BASE], rcx
        );
        self.come_back(back);
    }
}
