//! The status flags: in the host's, in the frame, to be computed again, or nowhere because nobody asks for them
//! any more.
//!
//! An access to memory loses the host's flags, and shows them to the guest if it faults. Most often nobody else
//! asks for them: so they are not saved before, but computed again where the access turns out not to be done by
//! compiled code, from what the instruction left that wrote them. That takes its operands to be what they were.

use super::emitter::Emitter;
use super::layout::*;
use crate::emitter::piece::{STATUS, Step};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Mnemonic, RflagsBits};

/// What has to be made of the host's OF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// It is right.
    Exact,
    /// It has to be clear.
    Clear,
    /// It has to be SF differing from CF.
    SignIsNotCarry,
}

impl Overflow {
    /// Behind a shift by a constant.
    pub fn of_shift(step: &Step) -> Overflow {
        match step.instruction.mnemonic() {
            _ if step.shift_count() == 1 => Overflow::Exact,
            Mnemonic::Shr | Mnemonic::Sar => Overflow::Clear,
            _ => Overflow::SignIsNotCarry,
        }
    }
}

/// Where the flags are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    /// The host's are right, but for what follows.
    pub host: bool,
    /// Those in the frame are right.
    pub frame: bool,
    pub overflow: Overflow,
    /// AF has to be clear, whatever the host's is.
    pub clears_adjust: bool,
    /// They can be computed again from what this instruction of the piece left.
    pub origin: Option<usize>,
}

impl Flags {
    /// In the frame: so at the begin of each piece.
    pub const IN_FRAME: Flags = Flags {
        host: false,
        frame: true,
        overflow: Overflow::Exact,
        clears_adjust: false,
        origin: None,
    };
    /// Nobody asks for them any more.
    pub const DEAD: Flags = Flags {
        host: false,
        frame: false,
        overflow: Overflow::Exact,
        clears_adjust: false,
        origin: None,
    };
}

impl Flags {
    /// The same when the host's are lost.
    pub fn without_host(self) -> Flags {
        Flags {
            host: false,
            ..self
        }
    }
}

impl Emitter<'_> {
    /// Sees to it that the flags are in the frame. Uses `rax`, and `rcx` perhaps.
    pub(super) fn save_flags(&mut self) {
        if self.flags.frame {
            return;
        }
        if !self.flags.host {
            let Some(origin) = self.flags.origin else {
                return;
            };
            self.compute_flags_again(origin);
        }
        self.writes(RAX);
        let mut keeps_host = true;
        match self.flags.overflow {
            Overflow::Exact => dynasm!(self.asm; .arch x64; lahf; seto al),
            Overflow::Clear => dynasm!(self.asm; .arch x64; lahf; mov al, 0),
            Overflow::SignIsNotCarry => {
                keeps_host = false;
                dynasm!(self.asm; .arch x64; lahf; sets al; setc cl; xor al, cl);
            }
        }
        if self.flags.clears_adjust {
            keeps_host = false;
            dynasm!(self.asm; .arch x64; and ah, 0xefu8 as i8);
        }
        dynasm!(self.asm; .arch x64; mov [BYTE rsp + (FLAGS) as i8], ax);
        self.flags = Flags {
            host: keeps_host && self.flags.overflow == Overflow::Exact,
            ..Flags::IN_FRAME
        };
    }

    /// The host's flags are about to be lost: sees to it that they are in the frame, unless they can be
    /// computed again. Uses what [`Emitter::save_flags`] does.
    pub(super) fn yield_flags(&mut self) {
        if self.flags.origin.is_none() {
            self.save_flags();
        }
    }

    /// Before an instruction is emitted behind which the flags could not be computed again any more: sees to
    /// it that they are somewhere, if anybody asks for them.
    pub(super) fn keep_origin(&mut self) {
        let Some(origin) = self.flags.origin else {
            return;
        };
        let step = self.present();
        let overwrites = step.writes == STATUS && step.reads == 0;
        if !overwrites && step.live != 0 && step.disturbs(self.step_at(origin)) {
            self.save_flags();
        }
    }

    /// Behind an instruction: whether the flags can still be computed again.
    pub(super) fn forget_origin(&mut self) {
        if let Some(origin) = self.flags.origin
            && origin != self.index
            && self.present().disturbs(self.step_at(origin))
        {
            self.flags.origin = None;
        }
    }

    /// The present instruction has written all flags: remembers that they can be computed again, if that is
    /// so for long enough to be of use.
    pub(super) fn remember_origin(&mut self) {
        if self.piece.flags_can_wait(self.index) {
            self.flags.origin = Some(self.index);
        }
    }

    /// Gives the host the flags of an instruction once more. Uses `rax`, and `rcx` perhaps.
    fn compute_flags_again(&mut self, origin: usize) {
        let step = self.step_at(origin);
        let instruction = step.instruction;
        let mnemonic = instruction.mnemonic();
        let clears_adjust = !matches!(
            mnemonic,
            Mnemonic::Cmp | Mnemonic::Add | Mnemonic::Sub | Mnemonic::Neg
        );
        self.encode_flags_of(&instruction)
            .expect("what was encoded once is encoded again");
        self.flags = Flags {
            host: true,
            frame: false,
            overflow: match step.is_shift() {
                true => Overflow::of_shift(step),
                false => Overflow::Exact,
            },
            clears_adjust,
            origin: Some(origin),
        };
    }

    /// Whether the host's flags of `mask` are right.
    pub(super) fn has_flags(&self, mask: u32) -> bool {
        let flags = self.flags;
        flags.host
            && (mask & RflagsBits::AF == 0 || !flags.clears_adjust)
            && (mask & RflagsBits::OF == 0 || flags.overflow == Overflow::Exact)
    }

    /// Sees to it that the flags of `mask` are in the host's. Uses `rax`, and `rcx` if they have to be
    /// put right.
    pub(super) fn load_flags(&mut self, mask: u32) {
        if mask == 0 || self.has_flags(mask) {
            return;
        }
        if let Some(origin) = self.flags.origin
            && !self.flags.host
            && !self.flags.frame
        {
            self.compute_flags_again(origin);
            if self.has_flags(mask) {
                return;
            }
        }
        self.save_flags();
        if self.flags.frame {
            self.load_flags_from_frame();
            self.flags = Flags {
                host: true,
                ..Flags::IN_FRAME
            };
        }
    }

    /// The instruction has written these flags in the host's; it had those that it leaves there.
    pub(super) fn wrote_flags(&mut self, writes: u32) {
        if writes == 0 {
            return;
        }
        let mut flags = Flags {
            host: true,
            frame: false,
            origin: None,
            ..self.flags
        };
        if writes & RflagsBits::OF != 0 {
            flags.overflow = Overflow::Exact;
        }
        if writes & RflagsBits::AF != 0 {
            flags.clears_adjust = false;
        }
        self.flags = flags;
    }

    pub(super) fn load_flags_from_frame(&mut self) {
        self.writes(RAX);
        dynasm!(self.asm; .arch x64; movzx eax, WORD [BYTE rsp + (FLAGS) as i8]; add al, 0x7f; sahf);
    }

    /// The host's flags are lost.
    pub(super) fn lose_flags(&mut self) {
        self.flags.host = false;
    }
}
