//! Arithmetic and comparisons.

use super::kind::{format, rs3};
use super::{FloatCold, Format};
use crate::emitter::x86_64::emitter::{Cold, Emitter};
use crate::emitter::x86_64::layout::HostRegister;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

impl Emitter<'_> {
    /// Addition, subtraction, multiplication, division.
    pub(super) fn binary(&mut self, op: DecodedOp) -> bool {
        if !self.require_rounding(op) {
            return false;
        }
        let format = format(op.op);
        let a = self.float_source(op.rs1, format);
        let b = self.float_source(op.rs2, format);
        let t = self.float_target(op.rd, format);
        match op.op {
            Op::FaddD => dynasm!(self.asm; .arch x64; vaddsd Rx(t), Rx(a), Rx(b)),
            Op::FsubD => dynasm!(self.asm; .arch x64; vsubsd Rx(t), Rx(a), Rx(b)),
            Op::FmulD => dynasm!(self.asm; .arch x64; vmulsd Rx(t), Rx(a), Rx(b)),
            Op::FdivD => dynasm!(self.asm; .arch x64; vdivsd Rx(t), Rx(a), Rx(b)),
            Op::FaddS => dynasm!(self.asm; .arch x64; vaddss Rx(t), Rx(a), Rx(b)),
            Op::FsubS => dynasm!(self.asm; .arch x64; vsubss Rx(t), Rx(a), Rx(b)),
            Op::FmulS => dynasm!(self.asm; .arch x64; vmulss Rx(t), Rx(a), Rx(b)),
            _ => dynasm!(self.asm; .arch x64; vdivss Rx(t), Rx(a), Rx(b)),
        }
        self.canonical(t, format);
        self.finish_float(op.rd, t, format);
        true
    }

    pub(super) fn square_root(&mut self, op: DecodedOp) -> bool {
        if !self.require_rounding(op) {
            return false;
        }
        let format = format(op.op);
        let a = self.float_source(op.rs1, format);
        let t = self.float_target(op.rd, format);
        match format {
            Format::Double => dynasm!(self.asm; .arch x64; vsqrtsd Rx(t), Rx(a), Rx(a)),
            Format::Single => dynasm!(self.asm; .arch x64; vsqrtss Rx(t), Rx(a), Rx(a)),
        }
        self.canonical(t, format);
        self.finish_float(op.rd, t, format);
        true
    }

    /// Fused multiplication and addition. The host's variants negate the product and the addend
    /// before they round, as RISC-V's do. Infinity times zero plus a quiet NaN raises nothing on the
    /// host: every NaN is left to the interpreter.
    pub(super) fn fused(&mut self, op: DecodedOp) -> bool {
        if !self.require_rounding(op) {
            return false;
        }
        let format = format(op.op);
        let a = self.float_source(op.rs1, format);
        let b = self.float_source(op.rs2, format);
        let c = self.float_source(rs3(op), format);
        let t = self.float_target(op.rd, format);
        // The result replaces an operand: the addend (231), or else a factor (213).
        let (replaces_addend, factor) = match t {
            _ if t == c => (true, b),
            _ if t == a => (false, b),
            _ if t == b => (false, a),
            _ => {
                dynasm!(self.asm; .arch x64; vmovaps Rx(t), Rx(c));
                (true, b)
            }
        };
        if replaces_addend {
            self.fused_onto_addend(op.op, t, a, factor);
        } else {
            self.fused_onto_factor(op.op, t, factor, c);
        }
        let from = self.asm.new_dynamic_label();
        self.jump_if_nan(t, format, from);
        let back = self.rare_from(op, from, Some((t, op.rd)));
        self.finish_float(op.rd, t, format);
        dynasm!(self.asm; .arch x64; =>back);
        true
    }

    /// `t` = ±(`a` × `b`) ± `t`
    fn fused_onto_addend(&mut self, op: Op, t: HostRegister, a: HostRegister, b: HostRegister) {
        match op {
            Op::FmaddD => dynasm!(self.asm; .arch x64; vfmadd231sd Rx(t), Rx(a), Rx(b)),
            Op::FmsubD => dynasm!(self.asm; .arch x64; vfmsub231sd Rx(t), Rx(a), Rx(b)),
            Op::FnmsubD => dynasm!(self.asm; .arch x64; vfnmadd231sd Rx(t), Rx(a), Rx(b)),
            Op::FnmaddD => dynasm!(self.asm; .arch x64; vfnmsub231sd Rx(t), Rx(a), Rx(b)),
            Op::FmaddS => dynasm!(self.asm; .arch x64; vfmadd231ss Rx(t), Rx(a), Rx(b)),
            Op::FmsubS => dynasm!(self.asm; .arch x64; vfmsub231ss Rx(t), Rx(a), Rx(b)),
            Op::FnmsubS => dynasm!(self.asm; .arch x64; vfnmadd231ss Rx(t), Rx(a), Rx(b)),
            _ => dynasm!(self.asm; .arch x64; vfnmsub231ss Rx(t), Rx(a), Rx(b)),
        }
    }

    /// `t` = ±(`t` × `b`) ± `c`
    fn fused_onto_factor(&mut self, op: Op, t: HostRegister, b: HostRegister, c: HostRegister) {
        match op {
            Op::FmaddD => dynasm!(self.asm; .arch x64; vfmadd213sd Rx(t), Rx(b), Rx(c)),
            Op::FmsubD => dynasm!(self.asm; .arch x64; vfmsub213sd Rx(t), Rx(b), Rx(c)),
            Op::FnmsubD => dynasm!(self.asm; .arch x64; vfnmadd213sd Rx(t), Rx(b), Rx(c)),
            Op::FnmaddD => dynasm!(self.asm; .arch x64; vfnmsub213sd Rx(t), Rx(b), Rx(c)),
            Op::FmaddS => dynasm!(self.asm; .arch x64; vfmadd213ss Rx(t), Rx(b), Rx(c)),
            Op::FmsubS => dynasm!(self.asm; .arch x64; vfmsub213ss Rx(t), Rx(b), Rx(c)),
            Op::FnmsubS => dynasm!(self.asm; .arch x64; vfnmadd213ss Rx(t), Rx(b), Rx(c)),
            _ => dynasm!(self.asm; .arch x64; vfnmsub213ss Rx(t), Rx(b), Rx(c)),
        }
    }

    /// The smaller or the larger operand. The host's own instructions raise invalid for quiet NaNs
    /// too, so operands are compared first.
    pub(super) fn minimum(&mut self, op: DecodedOp) {
        self.require_float_dirty();
        let format = format(op.op);
        let a = self.float_source(op.rs1, format);
        let b = self.float_source(op.rs2, format);
        let t = self.float_target(op.rd, format);
        let is_minimum = matches!(op.op, Op::FminS | Op::FminD);
        let (nan, equal) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        let chosen = self.asm.new_dynamic_label();
        match format {
            Format::Double => dynasm!(self.asm; .arch x64; vucomisd Rx(a), Rx(b)),
            Format::Single => dynasm!(self.asm; .arch x64; vucomiss Rx(a), Rx(b)),
        }
        dynasm!(self.asm; .arch x64; jp =>nan; je =>equal);
        match (is_minimum, format) {
            (true, Format::Double) => dynasm!(self.asm; .arch x64; vminsd Rx(t), Rx(a), Rx(b)),
            (true, Format::Single) => dynasm!(self.asm; .arch x64; vminss Rx(t), Rx(a), Rx(b)),
            (false, Format::Double) => dynasm!(self.asm; .arch x64; vmaxsd Rx(t), Rx(a), Rx(b)),
            (false, Format::Single) => dynasm!(self.asm; .arch x64; vmaxss Rx(t), Rx(a), Rx(b)),
        }
        dynasm!(self.asm; .arch x64; =>chosen);
        self.cold.push(Cold::Float(FloatCold::MinimumOfEqual {
            from: equal,
            back: chosen,
            target: t,
            operands: (a, b),
            is_minimum,
        }));
        let back = self.rare_from(op, nan, Some((t, op.rd)));
        self.finish_float(op.rd, t, format);
        dynasm!(self.asm; .arch x64; =>back);
    }

    /// Comparisons; the flags of the host are as after one of unsigned integers, and all set if a
    /// NaN is among the operands.
    pub(super) fn float_compare(&mut self, op: DecodedOp) {
        self.require_float_dirty();
        let format = format(op.op);
        let a = self.float_source(op.rs1, format);
        let b = self.float_source(op.rs2, format);
        match (op.op, format) {
            (Op::FeqD, _) => dynasm!(self.asm; .arch x64; vucomisd Rx(a), Rx(b)),
            (Op::FeqS, _) => dynasm!(self.asm; .arch x64; vucomiss Rx(a), Rx(b)),
            (_, Format::Double) => dynasm!(self.asm; .arch x64; vcomisd Rx(b), Rx(a)),
            (_, Format::Single) => dynasm!(self.asm; .arch x64; vcomiss Rx(b), Rx(a)),
        }
        match op.op {
            Op::FeqD | Op::FeqS => {
                dynasm!(self.asm; .arch x64; sete al; setnp cl; and al, cl);
            }
            Op::FltD | Op::FltS => dynasm!(self.asm; .arch x64; seta al),
            _ => dynasm!(self.asm; .arch x64; setae al),
        }
        let target = self.target(op.rd);
        dynasm!(self.asm; .arch x64; movzx Rd(target), al);
        self.finish(op.rd);
    }
}
