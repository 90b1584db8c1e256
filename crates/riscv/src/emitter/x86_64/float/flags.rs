//! `fflags`, `frm` and `fcsr` (unprivileged specification, 21.2).
//!
//! What was raised is in the hart's `fflags` and in MXCSR together. Compilers put `frflags` and
//! `fsflags` around comparisons that must not raise anything: nearly every `fsflags` writes what is
//! there already. Reading MXCSR costs next to nothing, writing it waits for all arithmetic.

use super::FloatCold;
use crate::emitter::x86_64::csr::Change;
use crate::emitter::x86_64::emitter::{Cold, Emitter};
use crate::emitter::x86_64::layout::*;
use crate::hart::csr::number;
use crate::interpreter::block::DecodedOp;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

impl Emitter<'_> {
    /// A CSR instruction on `fflags`, `frm` or `fcsr`.
    pub(in crate::emitter::x86_64) fn float_csr(&mut self, op: DecodedOp) {
        let csr = op.immediate as u16;
        let change = Change::of(op);
        match change {
            None => self.require_float_on(),
            Some(_) => self.require_float_dirty(),
        }
        if csr == number::FRM {
            dynasm!(self.asm; .arch x64; movzx eax, BYTE [rbp + FRM]);
        } else {
            self.read_flags();
            if csr == number::FCSR {
                dynasm!(self.asm; .arch x64
                    ; movzx ecx, BYTE [rbp + FRM]
                    ; shl ecx, 5
                    ; or eax, ecx
                );
            }
        }
        if let Some(change) = change {
            self.new_csr_value(op, change);
            if csr == number::FRM {
                dynasm!(self.asm; .arch x64; and ecx, 7; mov [rbp + FRM], cl);
            } else {
                self.write_flags(csr == number::FCSR);
            }
            if csr != number::FFLAGS {
                self.floats.rounds_to_nearest = false;
            }
        }
        self.finish_csr(op);
    }

    /// What was raised goes to `eax`. Uses `rcx`.
    fn read_flags(&mut self) {
        let constants = self.routines.constants;
        dynasm!(self.asm; .arch x64; vstmxcsr [rsp - 8]; mov eax, [rsp - 8]);
        constants.map_flags(&mut self.asm);
        dynasm!(self.asm; .arch x64; or al, [rbp + FFLAGS]);
    }

    /// `ecx` is to become the flags, or all of `fcsr`; `eax` is what they are.
    fn write_flags(&mut self, with_mode: bool) {
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        let mask = if with_mode { 0xff } else { 0x1f };
        dynasm!(self.asm; .arch x64; and ecx, mask; cmp ecx, eax; jne =>from; =>back);
        self.cold.push(Cold::Float(FloatCold::Flags {
            from,
            back,
            with_mode,
        }));
    }

    /// Writes `ecx` to the flags, or to all of `fcsr`.
    pub(super) fn cold_flags(&mut self, with_mode: bool) {
        if with_mode {
            dynasm!(self.asm; .arch x64
                ; mov edx, ecx
                ; shr edx, 5
                ; mov [rbp + FRM], dl
                ; and ecx, 0x1f
            );
        }
        let constants = self.routines.constants;
        dynasm!(self.asm; .arch x64; mov [rbp + FFLAGS], cl);
        constants.clear_flags(&mut self.asm);
    }
}
