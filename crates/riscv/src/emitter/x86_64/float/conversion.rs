//! Conversions.

use super::kind::format;
use super::{Format, rm};
use crate::emitter::x86_64::emitter::Emitter;
use crate::emitter::x86_64::layout::*;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

impl Emitter<'_> {
    /// `fcvt.d.s` and `fcvt.s.d`.
    pub(super) fn between_formats(&mut self, op: DecodedOp) -> bool {
        if !self.require_rounding(op) {
            return false;
        }
        let (from, to) = match op.op {
            Op::FcvtDS => (Format::Single, Format::Double),
            _ => (Format::Double, Format::Single),
        };
        let a = self.float_source(op.rs1, from);
        let t = self.float_target(op.rd, to);
        match to {
            Format::Double => dynasm!(self.asm; .arch x64; vcvtss2sd Rx(t), Rx(a), Rx(a)),
            Format::Single => dynasm!(self.asm; .arch x64; vcvtsd2ss Rx(t), Rx(a), Rx(a)),
        }
        self.canonical(t, to);
        self.finish_float(op.rd, t, to);
        true
    }

    /// From an integer register.
    pub(super) fn convert_from_integer(&mut self, op: DecodedOp) -> bool {
        use Op::*;
        if !self.require_exactness(op) {
            return false;
        }
        let format = format(op.op);
        let mut source = self.source(op.rs1, RAX);
        if matches!(op.op, FcvtSWu | FcvtDWu) {
            dynasm!(self.asm; .arch x64; mov eax, Rd(source));
            source = RAX;
        }
        let t = self.float_target(op.rd, format);
        let mut back = None;
        if matches!(op.op, FcvtSLu | FcvtDLu) {
            // The host's source is signed.
            let from = self.asm.new_dynamic_label();
            dynasm!(self.asm; .arch x64; test Rq(source), Rq(source); js =>from);
            back = Some(self.rare_from(op, from, Some((t, op.rd))));
        }
        // The host's instruction keeps the upper bits: without this it would wait for them.
        dynasm!(self.asm; .arch x64; vxorps Rx(t), Rx(t), Rx(t));
        match op.op {
            FcvtSW => dynasm!(self.asm; .arch x64; vcvtsi2ss Rx(t), Rx(t), Rd(source)),
            FcvtDW => dynasm!(self.asm; .arch x64; vcvtsi2sd Rx(t), Rx(t), Rd(source)),
            FcvtSWu | FcvtSL | FcvtSLu => {
                dynasm!(self.asm; .arch x64; vcvtsi2ss Rx(t), Rx(t), Rq(source));
            }
            _ => dynasm!(self.asm; .arch x64; vcvtsi2sd Rx(t), Rx(t), Rq(source)),
        }
        self.finish_float(op.rd, t, format);
        if let Some(back) = back {
            dynasm!(self.asm; .arch x64; =>back);
        }
        true
    }

    /// As [`Emitter::require_rounding`], but a double holds every word in any legal mode.
    fn require_exactness(&mut self, op: DecodedOp) -> bool {
        let is_exact = matches!(op.op, Op::FcvtDW | Op::FcvtDWu);
        if is_exact && (rm::RNE..=rm::RMM).contains(&(op.immediate & 7)) {
            self.require_float_dirty();
            return true;
        }
        self.require_rounding(op)
    }

    /// To an integer register. What does not fit is left to the interpreter, which saturates.
    pub(super) fn convert_to_integer(&mut self, op: DecodedOp) -> bool {
        use Op::*;
        let mode = op.immediate & 7;
        if (rm::RTZ..=rm::RUP).contains(&mode) {
            self.require_float_dirty();
        } else if !self.require_rounding(op) {
            return false;
        }
        let format = format(op.op);
        let a = self.float_source(op.rs1, format);
        let rare = self.asm.new_dynamic_label();
        match op.op {
            // The host gives the least integer for whatever does not fit.
            FcvtWS | FcvtWD => {
                self.round_to_word(a, format, mode);
                dynasm!(self.asm; .arch x64; cmp eax, i32::MIN; je =>rare; cdqe);
            }
            FcvtLS | FcvtLD => {
                self.round_to_long(a, format, mode);
                dynasm!(self.asm; .arch x64; mov rcx, rax; neg rcx; jo =>rare);
            }
            _ => {
                let is_word = matches!(op.op, FcvtWuS | FcvtWuD);
                self.check_unsigned_range(a, format, is_word, rare);
                self.round_to_long(a, format, mode);
                if is_word {
                    dynasm!(self.asm; .arch x64; cdqe);
                }
            }
        }
        if matches!(mode, rm::RDN | rm::RUP) {
            self.raise_inexact(a, format);
        }
        let target = self.target(op.rd);
        self.copy(target, RAX);
        self.finish(op.rd);
        let back = self.rare_from(op, rare, None);
        dynasm!(self.asm; .arch x64; =>back);
        true
    }

    /// Rounds `a` to a word in `eax`. Down and up raise no inexact: the number may not fit.
    fn round_to_word(&mut self, a: HostRegister, format: Format, mode: i32) {
        let (a, truncates) = self.round_to_integral(a, format, mode);
        match (format, truncates) {
            (Format::Double, true) => dynasm!(self.asm; .arch x64; vcvttsd2si eax, Rx(a)),
            (Format::Double, false) => dynasm!(self.asm; .arch x64; vcvtsd2si eax, Rx(a)),
            (Format::Single, true) => dynasm!(self.asm; .arch x64; vcvttss2si eax, Rx(a)),
            (Format::Single, false) => dynasm!(self.asm; .arch x64; vcvtss2si eax, Rx(a)),
        }
    }

    /// As [`Emitter::round_to_word`], to a double-word in `rax`.
    fn round_to_long(&mut self, a: HostRegister, format: Format, mode: i32) {
        let (a, truncates) = self.round_to_integral(a, format, mode);
        match (format, truncates) {
            (Format::Double, true) => dynasm!(self.asm; .arch x64; vcvttsd2si rax, Rx(a)),
            (Format::Double, false) => dynasm!(self.asm; .arch x64; vcvtsd2si rax, Rx(a)),
            (Format::Single, true) => dynasm!(self.asm; .arch x64; vcvttss2si rax, Rx(a)),
            (Format::Single, false) => dynasm!(self.asm; .arch x64; vcvtss2si rax, Rx(a)),
        }
    }

    /// For modes that the host's conversions do not have, rounds `a` first. Gives the number that is
    /// left to convert, and whether to truncate it.
    fn round_to_integral(
        &mut self,
        a: HostRegister,
        format: Format,
        mode: i32,
    ) -> (HostRegister, bool) {
        /// In the immediate of `vroundsd`: inexact is not raised; down, up.
        const DOWN: i8 = 8 | 1;
        const UP: i8 = 8 | 2;
        let direction = match mode {
            rm::RDN => DOWN,
            rm::RUP => UP,
            _ => return (a, mode == rm::RTZ),
        };
        match format {
            Format::Double => dynasm!(self.asm; .arch x64; vroundsd xmm0, Rx(a), Rx(a), direction),
            Format::Single => dynasm!(self.asm; .arch x64; vroundss xmm0, Rx(a), Rx(a), direction),
        }
        (0, true)
    }

    /// Raises inexact if `a`, which fits, is no integer: so does its conversion in any mode.
    fn raise_inexact(&mut self, a: HostRegister, format: Format) {
        match format {
            Format::Double => dynasm!(self.asm; .arch x64; vcvttsd2si rcx, Rx(a)),
            Format::Single => dynasm!(self.asm; .arch x64; vcvttss2si rcx, Rx(a)),
        }
    }

    /// Jumps unless a number is positive and surely fits, before its conversion could raise inexact
    /// where it has to raise invalid. Bits of positive numbers are in the order of the numbers; those
    /// of negative ones and NaNs are above.
    fn check_unsigned_range(
        &mut self,
        a: HostRegister,
        format: Format,
        is_word: bool,
        to: DynamicLabel,
    ) {
        const LARGEST_WORD: f64 = u32::MAX as f64;
        const TWO_TO_32: f32 = 4_294_967_296.0;
        const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
        match format {
            Format::Double => {
                let limit = if is_word { LARGEST_WORD } else { TWO_TO_63 };
                dynasm!(self.asm; .arch x64
                    ; vmovq rax, Rx(a)
                    ; mov rcx, QWORD limit.to_bits() as i64
                    ; cmp rax, rcx
                );
            }
            Format::Single => {
                let limit = if is_word { TWO_TO_32 } else { TWO_TO_63 as f32 };
                dynasm!(self.asm; .arch x64
                    ; vmovd eax, Rx(a)
                    ; cmp eax, limit.to_bits() as i32
                );
            }
        }
        dynasm!(self.asm; .arch x64; jae =>to);
    }
}
