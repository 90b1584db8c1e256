//! What moves bits and rounds nothing: loads, stores, moves, sign injection.

use super::Format;
use super::kind::format;
use crate::emitter::x86_64::emitter::Emitter;
use crate::emitter::x86_64::layout::*;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

impl Emitter<'_> {
    /// `flw` or `fld`.
    pub(super) fn float_load(&mut self, op: DecodedOp) {
        self.require_float_dirty();
        let format = format(op.op);
        let target = self.float_target(op.rd, format);
        self.load_to(op, target);
        self.finish_float(op.rd, target, format);
    }

    /// `fsw` or `fsd`: the bits as they are.
    pub(super) fn float_store(&mut self, op: DecodedOp) {
        self.require_float_on();
        let base = self.source(op.rs1, RAX);
        let held = self.floats.find(op.rs2, self.index);
        match (op.op, held) {
            (Op::Fsw, Some((register, _))) => {
                dynasm!(self.asm; .arch x64; vmovd edx, Rx(register));
            }
            (Op::Fsw, None) => dynasm!(self.asm; .arch x64; mov edx, [rbp + f(op.rs2)]),
            (_, Some((register, Format::Double))) => {
                dynasm!(self.asm; .arch x64; vmovq rdx, Rx(register));
            }
            _ => dynasm!(self.asm; .arch x64; mov rdx, [rbp + f(op.rs2)]),
        }
        self.store_from(op, base, RDX);
    }

    /// Bits from an integer register, or to one.
    pub(super) fn move_bits(&mut self, op: DecodedOp) {
        self.require_float_dirty();
        if matches!(op.op, Op::FmvWX | Op::FmvDX) {
            let format = format(op.op);
            let target = self.float_target(op.rd, format);
            if op.rs1 == 0 {
                dynasm!(self.asm; .arch x64; vxorps Rx(target), Rx(target), Rx(target));
            } else {
                let source = self.source(op.rs1, RAX);
                dynasm!(self.asm; .arch x64; vmovq Rx(target), Rq(source));
            }
            self.finish_float(op.rd, target, format);
            return;
        }
        let target = self.target(op.rd);
        match (op.op, self.floats.find(op.rs1, self.index)) {
            (Op::FmvXW, Some((register, _))) => dynasm!(self.asm; .arch x64
                ; vmovd eax, Rx(register)
                ; movsxd Rq(target), eax
            ),
            (Op::FmvXW, None) => {
                dynasm!(self.asm; .arch x64; movsxd Rq(target), DWORD [rbp + f(op.rs1)]);
            }
            (_, Some((register, Format::Double))) => {
                dynasm!(self.asm; .arch x64; vmovq Rq(target), Rx(register));
            }
            _ => dynasm!(self.asm; .arch x64; mov Rq(target), [rbp + f(op.rs1)]),
        }
        self.finish(op.rd);
    }

    /// The first operand with the sign of the second, its opposite, or the product of both signs.
    pub(super) fn sign(&mut self, op: DecodedOp) {
        self.require_float_dirty();
        let format = format(op.op);
        let a = self.float_source(op.rs1, format);
        let b = self.float_source(op.rs2, format);
        let t = self.float_target(op.rd, format);
        let constants = &self.routines.constants;
        let (sign, magnitude) = match format {
            Format::Double => (constants.sign_double, constants.magnitude_double),
            Format::Single => (constants.sign_single, constants.magnitude_single),
        };
        match (op.op, a == b) {
            (Op::FsgnjS | Op::FsgnjD, true) if t == a => {}
            (Op::FsgnjS | Op::FsgnjD, true) => {
                dynasm!(self.asm; .arch x64; vmovaps Rx(t), Rx(a));
            }
            (Op::FsgnjnS | Op::FsgnjnD, true) => {
                dynasm!(self.asm; .arch x64; vxorps Rx(t), Rx(a), [extern sign]);
            }
            (Op::FsgnjxS | Op::FsgnjxD, true) => {
                dynasm!(self.asm; .arch x64; vandps Rx(t), Rx(a), [extern magnitude]);
            }
            (Op::FsgnjS | Op::FsgnjD, false) => dynasm!(self.asm; .arch x64
                ; vandps xmm0, Rx(b), [extern sign]
                ; vandps Rx(t), Rx(a), [extern magnitude]
                ; vorps Rx(t), Rx(t), xmm0
            ),
            (Op::FsgnjnS | Op::FsgnjnD, false) => dynasm!(self.asm; .arch x64
                ; vandnps xmm0, Rx(b), [extern sign]
                ; vandps Rx(t), Rx(a), [extern magnitude]
                ; vorps Rx(t), Rx(t), xmm0
            ),
            _ => dynasm!(self.asm; .arch x64
                ; vandps xmm0, Rx(b), [extern sign]
                ; vxorps Rx(t), Rx(a), xmm0
            ),
        }
        self.finish_float(op.rd, t, format);
    }
}
