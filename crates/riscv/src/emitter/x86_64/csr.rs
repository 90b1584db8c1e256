//! CSR instructions (unprivileged specification, 7.1) that are done without a call-back.

use super::emitter::Emitter;
use super::layout::*;
use crate::hart::Privilege;
use crate::hart::csr::{number, status};
use crate::hart::registers::SINK;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

/// How an instruction makes the new value of its CSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Write,
    Set,
    Clear,
}

impl Change {
    /// None for an instruction that only reads, or that is none of a CSR.
    pub(super) fn of(op: DecodedOp) -> Option<Change> {
        use Op::*;
        match op.op {
            Csrrw | Csrrwi => Some(Change::Write),
            Csrrs | Csrrsi if op.rs1 != 0 => Some(Change::Set),
            Csrrc | Csrrci if op.rs1 != 0 => Some(Change::Clear),
            _ => None,
        }
    }
}

/// Whether the source of a CSR instruction is five bits of itself.
pub(super) fn is_immediate(op: DecodedOp) -> bool {
    matches!(op.op, Op::Csrrwi | Op::Csrrsi | Op::Csrrci)
}

impl Emitter<'_> {
    /// A CSR instruction. False if it is not done here.
    pub(super) fn csr_access(&mut self, op: DecodedOp) -> bool {
        use Op::*;
        if !matches!(op.op, Csrrw | Csrrs | Csrrc | Csrrwi | Csrrsi | Csrrci) {
            return false;
        }
        match op.immediate as u16 {
            number::FFLAGS | number::FRM | number::FCSR => self.float_csr(op),
            number::SSTATUS => self.supervisor_status(op),
            number::SSCRATCH => self.supervisor_register(op, SSCRATCH),
            number::SEPC => self.supervisor_register(op, SEPC),
            number::SCAUSE => self.supervisor_register(op, SCAUSE),
            number::STVAL => self.supervisor_register(op, STVAL),
            _ => return false,
        }
        true
    }

    /// Leaves the instruction to the interpreter in U-mode. Within a piece the mode does not change.
    pub(super) fn require_supervisor(&mut self) {
        if !self.is_privileged {
            let from = self.asm.new_dynamic_label();
            dynasm!(self.asm; .arch x64
                ; cmp BYTE [rbp + PRIVILEGE], Privilege::Supervisor as i8
                ; jb =>from
            );
            self.interpret_from(from);
            self.is_privileged = true;
        }
    }

    /// A register of S-mode that is nothing but a number.
    fn supervisor_register(&mut self, op: DecodedOp, register: i32) {
        self.require_supervisor();
        dynasm!(self.asm; .arch x64; mov rax, [rbp + register]);
        if let Some(change) = Change::of(op) {
            self.new_csr_value(op, change);
            if register == SEPC {
                dynasm!(self.asm; .arch x64; and rcx, -2);
            }
            dynasm!(self.asm; .arch x64; mov [rbp + register], rcx);
        }
        self.finish_csr(op);
    }

    /// `sfence.vma`: every access behaves as if freshly walked, so nothing is left to do.
    pub(super) fn fence_translations(&mut self) {
        self.require_supervisor();
        let from = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64; test DWORD [rbp + STATUS], status::TVM as i32; jnz =>from);
        self.interpret_from(from);
    }

    /// The new value goes to `rcx`; the old one is in `rax`.
    pub(super) fn new_csr_value(&mut self, op: DecodedOp, change: Change) {
        if is_immediate(op) {
            let bits = i32::from(op.rs1);
            match change {
                Change::Write => dynasm!(self.asm; .arch x64; mov ecx, bits),
                Change::Set => dynasm!(self.asm; .arch x64; mov rcx, rax; or rcx, bits),
                Change::Clear => dynasm!(self.asm; .arch x64; mov rcx, rax; and rcx, !bits),
            }
            return;
        }
        let source = self.source(op.rs1, RCX);
        self.copy(RCX, source);
        match change {
            Change::Write => {}
            Change::Set => dynasm!(self.asm; .arch x64; or rcx, rax),
            Change::Clear => dynasm!(self.asm; .arch x64; not rcx; and rcx, rax),
        }
    }

    /// The old value is in `rax`.
    pub(super) fn finish_csr(&mut self, op: DecodedOp) {
        if op.rd != SINK {
            let target = self.target(op.rd);
            self.copy(target, RAX);
            self.finish(op.rd);
        }
    }
}
