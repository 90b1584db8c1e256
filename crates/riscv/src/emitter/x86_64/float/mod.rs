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
mod flags;
mod kind;
mod loops;
mod registers;
mod transfer;

pub use environment::{Constants, pop_floats, push_floats, put_flags_back};
pub use loops::Loop;
pub use registers::{FloatRegisters, Format};

use super::emitter::{Cold, Emitter};
use super::layout::*;
use super::registers::Registers;
use crate::hart::csr::status;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use kind::Kind;

/// Rounding modes in an instruction (unprivileged specification, table "Rounding mode encoding").
mod rm {
    pub const RNE: i32 = 0;
    pub const RTZ: i32 = 1;
    pub const RDN: i32 = 2;
    pub const RUP: i32 = 3;
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
        registers: Registers,
    },
    /// The result is a NaN.
    CanonicalNan {
        from: DynamicLabel,
        back: DynamicLabel,
        target: HostRegister,
        format: Format,
    },
    /// The flags, or all of `fcsr`, become what they are not.
    Flags {
        from: DynamicLabel,
        back: DynamicLabel,
        with_mode: bool,
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

/// Whether a floating-point instruction is emitted here.
pub fn is_emitted_float(op: Op) -> bool {
    Kind::of(op).is_some()
}

impl Emitter<'_> {
    /// A floating-point instruction. False if it is not done here.
    pub(super) fn float(&mut self, op: DecodedOp) -> bool {
        match Kind::of(op.op) {
            None => return false,
            Some(Kind::Load) => self.float_load(op),
            Some(Kind::Store) => self.float_store(op),
            Some(Kind::Binary) => return self.binary(op),
            Some(Kind::SquareRoot) => return self.square_root(op),
            Some(Kind::Fused) => return self.fused(op),
            Some(Kind::Minimum) => self.minimum(op),
            Some(Kind::Compare) => self.float_compare(op),
            Some(Kind::Sign) => self.sign(op),
            Some(Kind::Move) => self.move_bits(op),
            Some(Kind::BetweenFormats) => return self.between_formats(op),
            Some(Kind::FromInteger) => return self.convert_from_integer(op),
            Some(Kind::ToInteger) => return self.convert_to_integer(op),
        }
        true
    }

    /// Jumps if floating point is off.
    fn check_float_is_on(&mut self, to: DynamicLabel) {
        let mask = (status::FS >> 8) as i8;
        dynasm!(self.asm; .arch x64; test BYTE [rbp + STATUS + 1], mask; jz =>to);
        self.floats.is_on = true;
    }

    /// Jumps if `mstatus.FS` is not Dirty.
    fn check_float_is_dirty(&mut self, to: DynamicLabel) {
        let mask = status::FS as i32;
        dynasm!(self.asm; .arch x64
            ; mov eax, [rbp + STATUS]
            ; not eax
            ; test eax, mask
            ; jnz =>to
        );
        self.floats.is_on = true;
        self.floats.is_dirty = true;
    }

    /// Jumps unless `frm` is to nearest even.
    fn check_dynamic_rounding(&mut self, to: DynamicLabel) {
        dynasm!(self.asm; .arch x64; cmp BYTE [rbp + FRM], 0; jne =>to);
        self.floats.rounds_to_nearest = true;
    }

    /// Jumps if an F register is not NaN-boxed.
    fn check_boxed(&mut self, guest: u8, to: DynamicLabel) {
        dynasm!(self.asm; .arch x64; cmp DWORD [rbp + f(guest) + 4], -1; jne =>to);
        self.floats.set_boxed(guest, true);
    }

    /// Leaves the instruction to the interpreter if floating point is off.
    fn require_float_on(&mut self) {
        if !self.floats.is_on {
            let from = self.interpret_label();
            self.check_float_is_on(from);
        }
    }

    /// Leaves the instruction to the interpreter if `mstatus.FS` is not Dirty, as it will be after
    /// it: that is once in a while, after the guest's kernel has saved the registers.
    fn require_float_dirty(&mut self) {
        if !self.floats.is_dirty {
            let from = self.interpret_label();
            self.check_float_is_dirty(from);
        }
    }

    /// As [`Emitter::require_float_dirty`] for an instruction that rounds. False if it rounds in
    /// another way than to nearest even: nothing was emitted then.
    fn require_rounding(&mut self, op: DecodedOp) -> bool {
        match op.immediate & 7 {
            rm::RNE => {}
            rm::DYN => {
                if !self.floats.rounds_to_nearest {
                    let from = self.interpret_label();
                    self.check_dynamic_rounding(from);
                }
            }
            _ => return false,
        }
        self.require_float_dirty();
        true
    }

    /// A label at which the interpreter takes over with the present instruction.
    fn interpret_label(&mut self) -> DynamicLabel {
        let from = self.asm.new_dynamic_label();
        self.interpret_from(from);
        from
    }

    /// An `xmm` register with the F register `guest`. Before the instruction has done anything: a
    /// single that is not boxed leaves it to the interpreter.
    fn float_source(&mut self, guest: u8, format: Format) -> HostRegister {
        let is_single = format == Format::Single;
        if is_single && !self.floats.is_boxed(guest) {
            let from = self.interpret_label();
            self.check_boxed(guest, from);
        }
        match self.floats.find(guest, self.index) {
            Some((register, held)) if is_single || held == Format::Double => register,
            _ => self.read(guest, format),
        }
    }

    /// Reads an F register into an `xmm` register.
    fn read(&mut self, guest: u8, format: Format) -> HostRegister {
        let register = self.floats.assign(guest, format, self.index);
        match format {
            Format::Double => dynasm!(self.asm; .arch x64; vmovsd Rx(register), [rbp + f(guest)]),
            Format::Single => dynasm!(self.asm; .arch x64; vmovss Rx(register), [rbp + f(guest)]),
        }
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
    pub(super) fn rare_from(
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
            registers: self.registers,
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
                registers,
            } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.execute_beside(&registers, number, place);
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
            FloatCold::Flags {
                from,
                back,
                with_mode,
            } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.cold_flags(with_mode);
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
