//! `sstatus`: interrupts on and off, access to user memory for a moment, the modes of a trap.

use super::csr::{Change, is_immediate};
use super::emitter::{Cold, Emitter};
use super::layout::*;
use crate::hart::csr::status;
use crate::hart::registers::SINK;
use crate::interpreter::block::DecodedOp;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

/// What a write can change (privileged specification, 12.1.1).
const WRITABLE: i32 = status::SUPERVISOR as i32;
/// What loads and stores are translated by.
const TRANSLATION: i32 = (status::SUM | status::MXR) as i32;
const FS: i32 = status::FS as i32;
/// Bit numbers of UXL's upper bit and of SD.
const UXL_BIT: i8 = status::UXL.trailing_zeros() as i8;
const SD_BIT: u32 = status::SD.trailing_zeros();

impl Emitter<'_> {
    /// A CSR instruction on `sstatus`. Done by call-back: what may let an interrupt in, what changes
    /// MXR, and SUM where the keys of both its contexts are not known.
    pub(super) fn supervisor_status(&mut self, op: DecodedOp) {
        self.require_supervisor();
        let rare = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64; mov rax, [rbp + STATUS]);
        let change = Change::of(op);
        if let Some(change) = change {
            self.new_csr_value(op, change);
            dynasm!(self.asm; .arch x64; xor ecx, eax; and ecx, WRITABLE);
            if change != Change::Clear {
                dynasm!(self.asm; .arch x64
                    ; mov rdx, [rbp + INTERRUPTS_PENDING]
                    ; test rdx, [rbp + MIE]
                    ; jnz =>rare
                );
            }
            let sets_few = change != Change::Write && is_immediate(op);
            if !sets_few {
                self.change_translation(rare);
                self.floats.forget_modes();
            }
            dynasm!(self.asm; .arch x64; xor rcx, rax; mov [rbp + STATUS], rcx);
        }
        if op.rd != SINK {
            self.read_status();
            self.finish_csr(op);
        }
        if change.is_some() {
            let back = self.rare_from(op, rare, None);
            dynasm!(self.asm; .arch x64; =>back);
        }
    }

    /// The bits in `ecx` change: loads and stores are another context's if SUM is one of them. Keeps
    /// `rax` and `rcx`.
    fn change_translation(&mut self, rare: dynasmrt::DynamicLabel) {
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64; test ecx, TRANSLATION; jnz =>from; =>back);
        self.cold.push(Cold::Sum { from, back, rare });
    }

    /// SUM changes, or MXR does.
    pub(super) fn cold_sum(&mut self, rare: dynasmrt::DynamicLabel) {
        dynasm!(self.asm; .arch x64
            ; mov edx, ecx
            ; and edx, TRANSLATION
            ; cmp edx, status::SUM as i32
            ; jne =>rare
            ; mov rdx, [rbp + SUM_DIFFERENCE]
            ; test rdx, rdx
            ; jz =>rare
            ; xor [rbp + SITE_KEY], rdx
            ; mov rdx, [rbp + CONTEXT_DIFFERENCE]
            ; xor [rbp + DATA_CONTEXT], rdx
        );
    }

    /// `mstatus` is in `rax`: leaves there what is read as `sstatus`. Uses `rcx`.
    fn read_status(&mut self) {
        // FS + 1 carries into the bit above if it is Dirty.
        dynasm!(self.asm; .arch x64
            ; mov ecx, eax
            ; and ecx, FS
            ; add ecx, 1 << FS.trailing_zeros()
            ; shr ecx, FS.trailing_zeros() as i8 + 2
            ; shl rcx, SD_BIT as i8
            ; and eax, WRITABLE
            ; or rax, rcx
            ; bts rax, BYTE UXL_BIT
        );
    }
}
