//! How a piece goes on: in its page by jumps that are patched, else by the table of jumps.
//!
//! Flags are in the frame at the head of each piece. But most often it is a comparison or a sum that comes before the
//! jump, and behind it somebody who overwrites them all before anybody could see them: then they are not saved. The jump
//! counts for the next piece, and leads behind its head. If that does not fit into what is left, the flags are computed
//! again, and the piece is left before the next.

use super::emitter::{Cold, Emitter};
use super::flags::Flags;
use crate::emitter::tier::Exit;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use jit::code_cache::Link;
use std::num::NonZeroU32;

/// Bytes of the head of a piece: what counts, and leaves it if that does not fit.
pub const HEAD_BYTES: u32 = 10;

/// What is known of the code in a piece's page.
#[derive(Clone, Copy)]
pub struct Neighbours<'a> {
    /// The compiled code at an offset.
    pub compiled: &'a dyn Fn(usize) -> Option<Compiled>,
    /// Whether the instructions at an offset overwrite all flags before anybody sees them.
    pub overwrites_flags: &'a dyn Fn(usize) -> bool,
    /// Whether the instruction at an offset goes on in the next page.
    pub crosses: &'a dyn Fn(usize) -> bool,
}

/// A compiled piece.
#[derive(Clone, Copy)]
pub struct Compiled {
    pub code: NonZeroU32,
    /// Its instructions, if it overwrites all flags before anybody sees them; else zero.
    pub bare: u8,
}

/// A jump without flags to what was not compiled yet.
#[derive(Clone, Copy, Debug)]
pub struct BareLink {
    /// The link that will lead there.
    pub link: usize,
    /// Where in the code cache the instructions are counted, and given back: a byte each.
    pub counted: u32,
    pub given_back: u32,
    /// How many were counted too much before.
    pub rest: i8,
}

/// A jump without flags, behind the piece.
pub(super) struct Bare {
    pub flags: Flags,
    pub target: i32,
    /// The next piece does not fit.
    pub budget: DynamicLabel,
    /// Its instructions, or zero if it was not compiled yet.
    pub length: i8,
    /// If so, where the jump leads until then.
    pub unknown: Option<(DynamicLabel, BareLink)>,
}

impl Emitter<'_> {
    /// Goes on at an offset in the page, `rest` instructions before the end of the piece.
    pub(super) fn go_on(&mut self, target: i32, rest: i32) {
        if (self.neighbours.crosses)(target as usize) {
            // Only the table knows it, by its linear address.
            self.save_flags();
            self.give_back();
            if rest != 0 {
                dynasm!(self.asm; .arch x64; add r15, rest);
            }
            return self.go_on_elsewhere(target.into());
        }
        let can_wait = !self.flags.frame && self.flags.origin.is_some();
        if can_wait && self.go_on_bare(target, rest as i8) {
            return;
        }
        self.save_flags();
        self.give_back();
        if rest != 0 {
            dynasm!(self.asm; .arch x64; add r15, rest);
        }
        self.link(target);
    }

    /// The same without flags, if nobody behind it sees them.
    fn go_on_bare(&mut self, target: i32, rest: i8) -> bool {
        let is_head = target as usize == self.piece.start;
        let compiled = (self.neighbours.compiled)(target as usize);
        let length = match compiled {
            _ if is_head && self.piece.overwrites_flags() => self.piece.steps.len() as u8,
            _ if is_head => return false,
            Some(compiled) if compiled.bare == 0 => return false,
            Some(compiled) => compiled.bare,
            None if (self.neighbours.overwrites_flags)(target as usize) => 0,
            None => return false,
        };
        self.give_back();
        let length = length as i8;
        let budget = self.asm.new_dynamic_label();
        let count = length - rest;
        dynasm!(self.asm; .arch x64; sub r15, BYTE count);
        let counted = self.offset() - 1;
        dynasm!(self.asm; .arch x64; jl =>budget);
        let mut unknown = None;
        match compiled {
            _ if is_head => {
                let body = self.body;
                dynasm!(self.asm; .arch x64; jmp =>body);
            }
            Some(compiled) => {
                let body = self.cache.base() + (compiled.code.get() + HEAD_BYTES) as usize;
                dynasm!(self.asm; .arch x64; jmp extern body);
            }
            None => {
                let from = self.asm.new_dynamic_label();
                dynasm!(self.asm; .arch x64; jmp =>from);
                let link = self.add_link();
                let bare = BareLink {
                    link,
                    counted,
                    given_back: 0,
                    rest,
                };
                unknown = Some((from, bare));
            }
        }
        self.later(Cold::Bare(Bare {
            flags: self.flags.without_host(),
            target,
            budget,
            length,
            unknown,
        }));
        true
    }

    /// What is behind the piece of a jump without flags.
    pub(super) fn behind_bare(&mut self, bare: Bare) {
        let budget = bare.budget;
        dynasm!(self.asm; .arch x64; =>budget; add r15, BYTE bare.length);
        let given_back = self.offset() - 1;
        self.flags = bare.flags;
        self.save_flags();
        dynasm!(self.asm; .arch x64
            ; mov ecx, bare.target
            ; mov eax, Exit::Budget.number()
            ; jmp extern self.routines.exit_at
        );
        if let Some((from, link)) = bare.unknown {
            dynasm!(self.asm; .arch x64; =>from);
            self.flags = bare.flags;
            self.save_flags();
            if let Some(with_flags) = self.link(bare.target) {
                let link = BareLink { given_back, ..link };
                self.bare_links.push((with_flags, link));
            }
        }
    }

    /// Goes on with the code of a linear address, or leaves the piece.
    pub(super) fn go_on_elsewhere(&mut self, target: i64) {
        let unknown = self.asm.new_dynamic_label();
        self.find_code(target, unknown);
        self.enter_found();
        dynasm!(self.asm; .arch x64
            ; =>unknown
            ; mov ecx, target as i32
            ; mov eax, Exit::Next.number()
            ; jmp extern self.routines.exit_at
        );
    }

    /// The jump that was emitted last can be patched from here on. Gives its number.
    pub(super) fn add_link(&mut self) -> usize {
        let number = self.cache.next_link();
        let patch = self.offset() - 4;
        self.cache.add_link(Link { patch });
        number
    }

    /// Where in the code cache the next instruction will be.
    fn offset(&self) -> u32 {
        (self.start + self.asm.offset().0) as u32
    }

    /// Jumps within the page; flags are in the frame. Gives the number of the link, if what is there was not compiled yet.
    pub(super) fn link(&mut self, target: i32) -> Option<usize> {
        if target as usize == self.piece.start {
            let head = self.head;
            dynasm!(self.asm; .arch x64; jmp =>head);
            return None;
        }
        if let Some(compiled) = (self.neighbours.compiled)(target as usize) {
            let address = self.cache.base() + compiled.code.get() as usize;
            dynasm!(self.asm; .arch x64; jmp extern address);
            return None;
        }
        let from = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64; jmp =>from);
        let number = self.add_link();
        self.later(Cold::Link {
            from,
            number,
            target,
        });
        Some(number)
    }
}

/// Whether an offset from the begin of the page is in the page.
pub(super) fn is_in_page(offset: i64) -> bool {
    (0..4096).contains(&offset)
}
