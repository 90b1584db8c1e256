//! What kernels do at each way in and out: CLI and SWAPGS. At other privileges than the kernel's the
//! interpreter executes them.

use super::emitter::Emitter;
use super::layout::*;
use crate::cpu::GS;
use crate::interpreter::flags::IF;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

impl Emitter<'_> {
    /// Puts the core into `rax`. Gives the label behind the instruction.
    fn in_kernel(&mut self) -> DynamicLabel {
        self.save_flags();
        self.lose_flags();
        let outside = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64
            ; mov rax, [BYTE rsp + (CORE) as i8]
            ; cmp BYTE [rax + CORE_IS_USER], 0
            ; jne =>outside
        );
        self.call_back_from(outside)
    }

    /// CLI.
    pub(super) fn keep_out_interrupts(&mut self) {
        let back = self.in_kernel();
        dynasm!(self.asm; .arch x64; and DWORD [rax + CORE_FLAGS], !(IF as i32));
        self.come_back(back);
    }

    /// SWAPGS.
    pub(super) fn swap_gs(&mut self) {
        let back = self.in_kernel();
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
