//! The status flags: in the host's, in the frame, or nowhere because nobody asks for them any more.

use super::emitter::Emitter;
use super::layout::*;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::RflagsBits;

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
}

impl Flags {
    /// In the frame: so at the begin of each piece.
    pub const IN_FRAME: Flags = Flags {
        host: false,
        frame: true,
        overflow: Overflow::Exact,
        clears_adjust: false,
    };
    /// Nobody asks for them any more.
    pub const DEAD: Flags = Flags {
        host: false,
        frame: false,
        overflow: Overflow::Exact,
        clears_adjust: false,
    };
}

impl Emitter<'_> {
    /// Sees to it that the flags are in the frame. Uses `rax`, and `rcx` perhaps.
    pub(super) fn save_flags(&mut self) {
        if self.flags.frame || !self.flags.host {
            return;
        }
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
        dynasm!(self.asm; .arch x64; movzx eax, WORD [BYTE rsp + (FLAGS) as i8]; add al, 0x7f; sahf);
    }

    /// The host's flags are lost.
    pub(super) fn lose_flags(&mut self) {
        self.flags.host = false;
    }
}
