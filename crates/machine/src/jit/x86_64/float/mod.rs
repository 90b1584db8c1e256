//! The F and D extensions (unprivileged specification, 21 and 22).
//!
//! Compiled code runs with MXCSR as RISC-V wants it (nothing trapped, to nearest even, subnormals as
//! they are) and lets the host's flags accrue there; [`routines`](super::routines) adds them to
//! `fflags` before anybody else looks. The host's flags are RISC-V's for the same operation, tiny
//! after rounding included, but in a few cases, all left to the interpreter: too few flags at worst,
//! for a wrong one could not be taken back.

mod arithmetic;
mod conversion;
mod environment;
mod registers;
mod transfer;

pub use environment::{Constants, pop_floats, push_floats};
pub use registers::{FloatRegisters, Format};

use super::emitter::{Cold, Emitter};
use super::layout::*;
use crate::hart::csr::status;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// Rounding modes in an instruction (unprivileged specification, table "Rounding mode encoding").
mod rm {
    pub const RNE: i32 = 0;
    pub const RTZ: i32 = 1;
    pub const RMM: i32 = 4;
    pub const DYN: i32 = 7;
}

/// What is emitted behind the piece for floating point.
pub enum FloatCold {
    /// The interpreter executes the instruction, and the piece goes on.
    Rare {
        from: DynamicLabel,
        back: DynamicLabel,
        /// Number of the rare instruction.
        number: i32,
        place: i32,
        /// The `xmm` register and the F register that it writes, if it does.
        target: Option<(HostRegister, u8)>,
    },
    /// The result is a NaN.
    CanonicalNan {
        from: DynamicLabel,
        back: DynamicLabel,
        target: HostRegister,
        format: Format,
    },
    /// Two operands are equal: their bits are, or they are zeros.
    MinimumOfEqual {
        from: DynamicLabel,
        back: DynamicLabel,
        target: HostRegister,
        operands: (HostRegister, HostRegister),
        is_minimum: bool,
    },
}

impl Emitter<'_> {
    /// A floating-point instruction but for loads and stores. False if it is not done here.
    pub(super) fn float(&mut self, op: DecodedOp) -> bool {
        use Op::*;
        match op.op {
            FaddS | FsubS | FmulS | FdivS | FaddD | FsubD | FmulD | FdivD => self.binary(op),
            FsqrtS | FsqrtD => self.square_root(op),
            FmaddS | FmsubS | FnmsubS | FnmaddS | FmaddD | FmsubD | FnmsubD | FnmaddD => {
                self.fused(op)
            }
            FminS | FmaxS | FminD | FmaxD => self.minimum(op),
            FeqS | FltS | FleS | FeqD | FltD | FleD => self.float_compare(op),
            FsgnjS | FsgnjnS | FsgnjxS | FsgnjD | FsgnjnD | FsgnjxD => self.sign(op),
            FmvXW | FmvXD | FmvWX | FmvDX => self.move_bits(op),
            FcvtDS | FcvtSD => self.between_formats(op),
            FcvtSW | FcvtSWu | FcvtSL | FcvtSLu | FcvtDW | FcvtDWu | FcvtDL | FcvtDLu => {
                self.from_integer(op)
            }
            FcvtWS | FcvtWuS | FcvtLS | FcvtLuS | FcvtWD | FcvtWuD | FcvtLD | FcvtLuD => {
                self.to_integer(op)
            }
            _ => false,
        }
    }

    /// Leaves the instruction to the interpreter if floating point is off.
    fn check_float_is_on(&mut self) {
        if self.floats.is_on {
            return;
        }
        self.floats.is_on = true;
        let from = self.asm.new_dynamic_label();
        let mask = (status::FS >> 8) as i8;
        dynasm!(self.asm; .arch x64; test BYTE [rbp + STATUS + 1], mask; jz =>from);
        self.interpret_from(from);
    }

    /// Leaves the instruction to the interpreter if `mstatus.FS` is not Dirty, as it will be after
    /// it: that is once in a while, after the guest's kernel has saved the registers.
    fn check_float_is_dirty(&mut self) {
        if self.floats.is_dirty {
            return;
        }
        self.floats.is_on = true;
        self.floats.is_dirty = true;
        let from = self.asm.new_dynamic_label();
        let mask = status::FS as i32;
        dynasm!(self.asm; .arch x64
            ; mov eax, [rbp + STATUS]
            ; not eax
            ; test eax, mask
            ; jnz =>from
        );
        self.interpret_from(from);
    }

    /// As [`Emitter::check_float_is_dirty`] for an instruction that rounds. False if it rounds in
    /// another way than to nearest even: nothing was emitted then.
    fn check_rounding(&mut self, op: DecodedOp) -> bool {
        match op.immediate & 7 {
            rm::RNE => {}
            rm::DYN => self.check_dynamic_rounding(),
            _ => return false,
        }
        self.check_float_is_dirty();
        true
    }

    /// Leaves the instruction to the interpreter unless `frm` is to nearest even.
    fn check_dynamic_rounding(&mut self) {
        if self.floats.rounds_to_nearest {
            return;
        }
        self.floats.rounds_to_nearest = true;
        let from = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64; cmp BYTE [rbp + FRM], 0; jne =>from);
        self.interpret_from(from);
    }

    /// An `xmm` register with the F register `guest`. Before the instruction has done anything: one
    /// that is not boxed leaves it to the interpreter.
    fn float_source(&mut self, guest: u8, format: Format) -> HostRegister {
        let held = self.floats.find(guest, self.index);
        if format == Format::Double {
            if let Some((register, Format::Double)) = held {
                return register;
            }
            let register = self.floats.assign(guest, format, self.index);
            dynasm!(self.asm; .arch x64; vmovsd Rx(register), [rbp + f(guest)]);
            return register;
        }
        if !self.floats.is_boxed(guest) {
            let from = self.asm.new_dynamic_label();
            dynasm!(self.asm; .arch x64; cmp DWORD [rbp + f(guest) + 4], -1; jne =>from);
            self.interpret_from(from);
            self.floats.set_boxed(guest, true);
        }
        if let Some((register, _)) = held {
            return register;
        }
        let register = self.floats.assign(guest, format, self.index);
        dynasm!(self.asm; .arch x64; vmovss Rx(register), [rbp + f(guest)]);
        register
    }

    /// The `xmm` register for the result `rd`. Operands were asked for before.
    fn float_target(&mut self, rd: u8, format: Format) -> HostRegister {
        self.floats.assign(rd, format, self.index)
    }

    /// The result is in [`Emitter::float_target`].
    fn finish_float(&mut self, rd: u8, target: HostRegister, format: Format) {
        match format {
            Format::Double => dynasm!(self.asm; .arch x64; vmovsd [rbp + f(rd)], Rx(target)),
            Format::Single => {
                dynasm!(self.asm; .arch x64; vmovss [rbp + f(rd)], Rx(target));
                if !self.floats.is_boxed(rd) {
                    dynasm!(self.asm; .arch x64; mov DWORD [rbp + f(rd) + 4], -1);
                }
            }
        }
        self.floats.set_boxed(rd, format == Format::Single);
    }

    /// At `from`, lets the interpreter do the present instruction, which writes the F register
    /// `target`, and goes on at the label given.
    fn rare_from(
        &mut self,
        op: DecodedOp,
        from: DynamicLabel,
        target: Option<(HostRegister, u8)>,
    ) -> DynamicLabel {
        let back = self.asm.new_dynamic_label();
        let number = self.add_rare(op);
        let place = self.place().0 as i32;
        self.cold.push(Cold::Float(FloatCold::Rare {
            from,
            back,
            number,
            place,
            target,
        }));
        back
    }

    /// Replaces a NaN in `target` by the canonical one.
    fn canonical(&mut self, target: HostRegister, format: Format) {
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        self.jump_if_nan(target, format, from);
        dynasm!(self.asm; .arch x64; =>back);
        self.cold.push(Cold::Float(FloatCold::CanonicalNan {
            from,
            back,
            target,
            format,
        }));
    }

    /// Jumps if a result is a NaN; it is no signaling one, so no flag is raised.
    fn jump_if_nan(&mut self, result: HostRegister, format: Format, to: DynamicLabel) {
        match format {
            Format::Double => dynasm!(self.asm; .arch x64; vucomisd Rx(result), Rx(result)),
            Format::Single => dynasm!(self.asm; .arch x64; vucomiss Rx(result), Rx(result)),
        }
        dynasm!(self.asm; .arch x64; jp =>to);
    }

    /// What is behind the piece.
    pub(super) fn cold_float(&mut self, cold: FloatCold) {
        match cold {
            FloatCold::Rare {
                from,
                back,
                number,
                place,
                target,
            } => {
                dynasm!(self.asm; .arch x64
                    ; =>from
                    ; mov eax, number
                    ; mov ecx, place
                    ; call extern self.routines.execute_float
                );
                if let Some((register, guest)) = target {
                    dynasm!(self.asm; .arch x64; vmovsd Rx(register), [rbp + f(guest)]);
                }
                dynasm!(self.asm; .arch x64; jmp =>back);
            }
            FloatCold::CanonicalNan {
                from,
                back,
                target,
                format,
            } => {
                dynasm!(self.asm; .arch x64; =>from);
                match format {
                    Format::Double => dynasm!(self.asm; .arch x64
                        ; vmovsd Rx(target), [extern self.routines.constants.nan_double]),
                    Format::Single => dynasm!(self.asm; .arch x64
                        ; vmovss Rx(target), [extern self.routines.constants.nan_single]),
                }
                dynasm!(self.asm; .arch x64; jmp =>back);
            }
            FloatCold::MinimumOfEqual {
                from,
                back,
                target,
                operands: (a, b),
                is_minimum,
            } => {
                dynasm!(self.asm; .arch x64; =>from);
                if is_minimum {
                    dynasm!(self.asm; .arch x64; vorps Rx(target), Rx(a), Rx(b));
                } else {
                    dynasm!(self.asm; .arch x64; vandps Rx(target), Rx(a), Rx(b));
                }
                dynasm!(self.asm; .arch x64; jmp =>back);
            }
        }
    }
}

/// The format of the operands, or of the result where those are integers.
fn format(op: Op) -> Format {
    if op as u8 <= Op::FmvWX as u8 {
        Format::Single
    } else {
        Format::Double
    }
}
