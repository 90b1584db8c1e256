//! Encodings that the assembler cannot parametrise.

use super::emitter::Emitter;
use super::layout::*;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// Instructions that do nothing, of one byte, of two, and so on (SDM volume 2, NOP).
const NOTHING: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

impl Emitter<'_> {
    /// `lea to, [base + index << scale + displacement]`, cut to 32 bits unless `is_wide`. No index is
    /// `rsp`.
    pub(super) fn lea(
        &mut self,
        to: Host,
        base: Option<Host>,
        index: Option<(Host, u8)>,
        displacement: i32,
        is_wide: bool,
    ) {
        self.writes(to);
        let (index_number, scale) = index.unwrap_or((4, 0));
        let base_number = base.unwrap_or(5);
        let rex = 0x40
            | u8::from(is_wide) << 3
            | (to >> 3) << 2
            | (index_number >> 3) << 1
            | if base.is_some() { base_number >> 3 } else { 0 };
        let needs_index = index.is_some() || base.is_none() || base_number & 7 == 4;
        let (mode, short) = match (base, displacement) {
            (None, _) => (0, false),
            (Some(base), 0) if base & 7 != 5 => (0, false),
            (Some(_), -128..=127) => (1, true),
            _ => (2, false),
        };
        let rm = if needs_index { 4 } else { base_number & 7 };
        self.asm.push(rex);
        self.asm.push(0x8d);
        self.asm.push(mode << 6 | (to & 7) << 3 | rm);
        if needs_index {
            self.asm
                .push(scale << 6 | (index_number & 7) << 3 | base_number & 7);
        }
        if short {
            self.asm.push(displacement as u8);
        } else if mode == 2 || base.is_none() {
            self.asm.push_i32(displacement);
        }
    }

    /// Goes on at an address that is a multiple of 16, by two instructions at most that do nothing: they are executed, too.
    pub(super) fn align(&mut self) {
        let mut bytes = self.asm.offset().0.wrapping_neg() % 16;
        while bytes > 0 {
            let taken = bytes.min(NOTHING.len());
            self.asm.extend(NOTHING[taken - 1]);
            bytes -= taken;
        }
    }

    /// Jcc by the number of its condition.
    pub(super) fn jump_if(&mut self, condition: u8, to: DynamicLabel) {
        match condition {
            0 => dynasm!(self.asm; .arch x64; jo =>to),
            1 => dynasm!(self.asm; .arch x64; jno =>to),
            2 => dynasm!(self.asm; .arch x64; jb =>to),
            3 => dynasm!(self.asm; .arch x64; jae =>to),
            4 => dynasm!(self.asm; .arch x64; je =>to),
            5 => dynasm!(self.asm; .arch x64; jne =>to),
            6 => dynasm!(self.asm; .arch x64; jbe =>to),
            7 => dynasm!(self.asm; .arch x64; ja =>to),
            8 => dynasm!(self.asm; .arch x64; js =>to),
            9 => dynasm!(self.asm; .arch x64; jns =>to),
            10 => dynasm!(self.asm; .arch x64; jp =>to),
            11 => dynasm!(self.asm; .arch x64; jnp =>to),
            12 => dynasm!(self.asm; .arch x64; jl =>to),
            13 => dynasm!(self.asm; .arch x64; jge =>to),
            14 => dynasm!(self.asm; .arch x64; jle =>to),
            _ => dynasm!(self.asm; .arch x64; jg =>to),
        }
    }

    /// The host register of a guest register, or `scratch` with its value.
    pub(super) fn source(&mut self, guest: u8, scratch: Host) -> Host {
        match self.homes[usize::from(guest & 15)] {
            Some(home) => home,
            None => {
                self.fetch(guest, scratch, 8);
                scratch
            }
        }
    }

    /// Copies at least `size` bytes of a guest register without a host register to `scratch`. What was written
    /// in part must not be read as a whole: the host would wait for the store.
    pub(super) fn fetch(&mut self, guest: u8, scratch: Host, size: usize) {
        self.writes(scratch);
        let at = self.spilled(guest) as i8;
        if size == 4 || self.narrow & 1 << guest != 0 {
            dynasm!(self.asm; .arch x64; mov Rd(scratch), [BYTE rsp + at]);
        } else {
            dynasm!(self.asm; .arch x64; mov Rq(scratch), [BYTE rsp + at]);
        }
    }

    /// A guest register was written by an instruction of this operand size.
    pub(super) fn wrote(&mut self, guest: u8, size: usize) {
        match size {
            8 => self.narrow &= !(1 << guest),
            4 => self.narrow |= 1 << guest,
            _ => {}
        }
    }

    /// A scratch register is about to be written.
    pub(super) fn writes(&mut self, scratch: Host) {
        if scratch == RAX {
            self.addend_in_rax = None;
        }
    }

    /// Copies a host register to a guest register.
    pub(super) fn put(&mut self, guest: u8, from: Host) {
        match self.homes[usize::from(guest & 15)] {
            Some(home) if home == from => {}
            Some(home) => dynasm!(self.asm; .arch x64; mov Rq(home), Rq(from)),
            None => {
                self.wrote(guest, 8);
                dynasm!(self.asm; .arch x64; mov [BYTE rsp + self.spilled(guest) as i8], Rq(from));
            }
        }
    }
}
