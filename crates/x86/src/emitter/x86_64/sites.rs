//! An access in a loop, by RSP, or in a program's code remembers the page that it saw last, and what is to be added to a
//! linear address there: then its address does not wait for the slot of the TLB, which has to be computed from it. What a
//! site knows was in a slot; whoever empties slots makes all sites forget (`Frame::refresh`), and so does whoever enters
//! compiled code.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use super::memory::Access;
use super::routines::Assembler;
use crate::emitter::groups::Group;
use crate::emitter::piece::{BASES, SITES, SITES_OF_KIND};
use crate::interpreter::op::{Op, RIP, ZERO};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// How long the longest access may be that asks a site: of single accesses in loops, of those by a base, of groups in loops
/// and of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Single,
    Near,
    Far,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Single, Class::Near, Class::Far];

    /// In bytes.
    fn longest(self) -> i32 {
        match self {
            Class::Single => 16,
            Class::Near => 64,
            Class::Far => 128,
        }
    }

    /// Addresses, from the begin of its page, that a site answers: where all who may ask are in the page as a whole.
    fn limit(self) -> i32 {
        0x1000 - self.longest() + 1
    }
}

const RSP: u8 = 4;

/// The first of the stack's sites, and the first of the bases'.
const OF_STACK: usize = 4 * SITES_OF_KIND;
const OF_BASES: usize = OF_STACK + 2;
const _: () = assert!(SITES == OF_BASES + 2 * BASES);

/// A site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    number: usize,
    class: Class,
}

impl Site {
    /// That of all accesses by RSP, wherever they are: a stack seldom leaves its page.
    pub fn of_stack(is_write: bool) -> Site {
        Site {
            number: OF_STACK + usize::from(is_write),
            class: Class::Far,
        }
    }

    /// That of all accesses whose addresses have this base, outside of loops: a register, RIP, or (`ZERO`) a segment.
    fn of_base(base: u8, is_write: bool) -> Site {
        let place = match base {
            RIP => 16,
            ZERO => 17,
            guest => usize::from(guest & 15),
        };
        Site {
            number: OF_BASES + BASES * usize::from(is_write) + place,
            class: Class::Near,
        }
    }
}

impl Emitter<'_> {
    /// The site of the present access, if it has one.
    pub(super) fn site(&mut self, access: Access) -> Option<Site> {
        let op = &self.present().op;
        if op.is_address_32 {
            return None;
        }
        let is_write = access == Access::Write;
        let is_on_stack = (op.base, op.index) == (RSP, ZERO) && op.segment <= 3;
        if is_on_stack {
            return Some(Site::of_stack(is_write));
        }
        self.site_of_loop(is_write, false)
            .or_else(|| self.site_of_base(base_of(op), is_write))
    }

    /// The site of the present access as the first of a group.
    pub(super) fn site_of_group(&mut self, group: &Group) -> Option<Site> {
        let bytes = group.high - group.low;
        if group.base == RSP && bytes <= Class::Far.longest() {
            return Some(Site::of_stack(group.is_write));
        }
        if bytes > Class::Far.longest() {
            return None;
        }
        let of_loop = self.site_of_loop(group.is_write, true);
        of_loop.or_else(|| {
            let site = self.site_of_base(group.base, group.is_write);
            site.filter(|_| bytes <= Class::Near.longest())
        })
    }

    /// The site of all accesses by a base, if the piece has such.
    pub(super) fn site_of_base(&self, base: u8, is_write: bool) -> Option<Site> {
        self.piece.is_sited.then(|| Site::of_base(base, is_write))
    }

    /// The same in all rounds of a loop. Loops share the sites, reads with reads, writes with writes, groups with groups.
    fn site_of_loop(&mut self, is_write: bool, is_group: bool) -> Option<Site> {
        if !self.piece.is_loop() {
            return None;
        }
        let kind = 2 * usize::from(is_write) + usize::from(is_group);
        let sited = &mut self.sited[kind];
        let known = sited.iter().position(|&index| index == self.index);
        let number = known.unwrap_or(sited.len());
        if number == SITES_OF_KIND {
            return None;
        }
        if known.is_none() {
            sited.push(self.index);
        }
        Some(Site {
            number: kind * SITES_OF_KIND + (self.first_op + number) % SITES_OF_KIND,
            class: if is_group { Class::Far } else { Class::Single },
        })
    }

    /// Looks at `size` bytes at the linear address in `rax`, by a site: what is to be added to it is in `rax` then, and
    /// where the site has it; or jumps to `miss`. Loses the host's flags.
    pub(super) fn ask_site(&mut self, site: Site, is_write: bool, size: i32, miss: DynamicLabel) {
        let [limit, page, addend] = super::layout::site(site.number);
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64
            ; sub rax, [rsp + page]
            ; cmp rax, [rsp + limit]
            ; jae =>from
            ; mov rax, [rsp + addend]
            ; =>back
        );
        self.later(Cold::Site {
            from,
            back,
            site,
            is_write,
            size,
            miss,
        });
        self.addend_in_rax = None;
        self.lose_flags();
    }

    /// The site does not know the page, or the access is near its end.
    pub(super) fn fill_site(
        &mut self,
        from: DynamicLabel,
        back: DynamicLabel,
        site: Site,
        is_write: bool,
        size: i32,
        miss: DynamicLabel,
    ) {
        if site.class == Class::Single {
            // In a loop it may be asked for another page in each round.
            return self.fill_site_here(from, back, site, is_write, size, miss);
        }
        let asked = (8 * site.number as i32) | ((0x1000 - size) << 16);
        let routine = self.routines.fill_site[usize::from(is_write)][site.class as usize];
        dynasm!(self.asm; .arch x64
            ; =>from
            ; mov ecx, asked
            ; call extern routine
            ; jc =>miss
            ; jmp =>back
        );
    }

    /// The same without the routine.
    fn fill_site_here(
        &mut self,
        from: DynamicLabel,
        back: DynamicLabel,
        site: Site,
        is_write: bool,
        size: i32,
        miss: DynamicLabel,
    ) {
        let [limit, page, addend] = super::layout::site(site.number);
        let table = if is_write { WRITES } else { READS };
        dynasm!(self.asm; .arch x64
            ; =>from
            ; add rax, [rsp + page]
            ; rorx ecx, eax, 8
            ; and ecx, 0x3ff0
            ; sub rax, [r14 + rcx + table]
            ; cmp rax, 0x1000 - size
            ; ja =>miss
            ; mov rax, [r14 + rcx + table]
            ; mov [rsp + page], rax
            ; mov rcx, [r14 + rcx + table + 8]
            ; sub rcx, rax
            ; mov [rsp + addend], rcx
            ; mov QWORD [rsp + limit], site.class.limit()
            ; mov rax, rcx
            ; jmp =>back
        );
    }
}

/// The base that an access goes by.
fn base_of(op: &Op) -> u8 {
    if op.segment > 3 { ZERO } else { op.base }
}

/// The routine that lets a site know a page, if the TLB does. In `rax` an address from the begin of the page that the site
/// knew, in `cx` eight times its number, above that the last place in a page where the access may begin. Gives what is to
/// be added to linear addresses of the page in `rax`, or the carry flag. Uses `rcx`.
pub(super) fn emit_fill(asm: &mut Assembler, is_write: bool, class: Class) {
    const DEPTH: i32 = 24; // the return address, and what is pushed
    const PAGES: i32 = SITES_AT + DEPTH;
    let table = if is_write { WRITES } else { READS };
    let miss = asm.new_dynamic_label();
    dynasm!(asm; .arch x64
        ; push rdx
        ; push rbx
        ; movzx edx, cx
        ; shr ecx, 16
        ; mov ebx, ecx
        ; add rax, [rsp + rdx * 2 + PAGES]
        ; rorx ecx, eax, 8
        ; and ecx, 0x3ff0
        ; sub rax, [r14 + rcx + table]
        ; cmp rax, rbx
        ; ja =>miss
        ; mov rax, [r14 + rcx + table]
        ; mov [rsp + rdx * 2 + PAGES], rax
        ; mov rcx, [r14 + rcx + table + 8]
        ; sub rcx, rax
        ; mov [rsp + rdx * 2 + PAGES + 8], rcx
        ; mov QWORD [rsp + rdx + SITE_LIMITS + DEPTH], class.limit()
        ; mov rax, rcx
        ; pop rbx
        ; pop rdx
        ; clc
        ; ret
        ; =>miss
        ; pop rbx
        ; pop rdx
        ; stc
        ; ret
    );
}
