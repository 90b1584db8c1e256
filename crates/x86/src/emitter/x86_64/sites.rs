//! An access in a loop, or by RSP, remembers the page that it saw last, and what is to be added to a linear address there: then
//! its address does not wait for the slot of the TLB, which has to be computed from it. What a site knows was in a
//! slot; whoever empties slots makes all sites forget (`Frame::refresh`), and so does whoever enters compiled code.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use super::memory::Access;
use crate::emitter::groups::Group;
use crate::emitter::piece::SITES_OF_KIND;
use crate::interpreter::op::ZERO;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// Bytes of the longest access that may ask a site of a loop, a single one and a group, and of the stack.
const LONGEST_SINGLE: i32 = 16;
const LONGEST_GROUP: i32 = 64;
const LONGEST_ON_STACK: i32 = 128;

const RSP: u8 = 4;

/// A site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    number: usize,
    /// Bytes of the longest access that may ask.
    longest: i32,
}

impl Site {
    /// That of all accesses by RSP, wherever they are: a stack seldom leaves its page.
    pub fn of_stack(is_write: bool) -> Site {
        Site {
            number: 4 * SITES_OF_KIND + usize::from(is_write),
            longest: LONGEST_ON_STACK,
        }
    }

    /// Addresses, from the begin of its page, that it answers: where all who may ask are in the page as a whole.
    fn limit(self) -> i32 {
        0x1000 - self.longest + 1
    }

    /// Where it is in the frame: its limit, its page, what is to be added.
    fn place(self) -> [i32; 3] {
        site(self.number)
    }
}

fn table(is_write: bool) -> i32 {
    if is_write { WRITES } else { READS }
}

impl Emitter<'_> {
    /// The site of the present access, if it has one.
    pub(super) fn site(&mut self, access: Access) -> Option<Site> {
        let op = &self.present().op;
        let is_on_stack =
            (op.base, op.index) == (RSP, ZERO) && op.segment <= 3 && !op.is_address_32;
        if is_on_stack {
            return Some(Site::of_stack(access == Access::Write));
        }
        self.site_of_loop(access == Access::Write, false)
    }

    /// The site of the present access as the first of a group.
    pub(super) fn site_of_group(&mut self, group: &Group) -> Option<Site> {
        let bytes = group.high - group.low;
        if group.base == RSP && bytes <= LONGEST_ON_STACK {
            return Some(Site::of_stack(group.is_write));
        }
        if bytes > LONGEST_GROUP {
            return None;
        }
        self.site_of_loop(group.is_write, true)
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
            longest: if is_group {
                LONGEST_GROUP
            } else {
                LONGEST_SINGLE
            },
        })
    }

    /// As [`Emitter::check`], by a site.
    pub(super) fn check_by_site(
        &mut self,
        site: Site,
        access: Access,
        size: i32,
        miss: DynamicLabel,
    ) {
        let [limit, page, addend] = site.place();
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64
            ; mov rcx, rax
            ; sub rcx, [rsp + page]
            ; cmp rcx, [rsp + limit]
            ; jae =>from
            ; add rax, [rsp + addend]
            ; =>back
        );
        self.later(Cold::Site {
            from,
            back,
            site,
            access,
            size,
            miss,
        });
        self.addend_in_rax = None;
        self.lose_flags();
    }

    /// Looks the linear address in `rax` up in the TLB, and lets the site know its page.
    pub(super) fn fill_site(
        &mut self,
        from: DynamicLabel,
        back: DynamicLabel,
        site: Site,
        access: Access,
        size: i32,
        miss: DynamicLabel,
    ) {
        let [limit, page, addend] = site.place();
        let table = table(access == Access::Write);
        dynasm!(self.asm; .arch x64
            ; =>from
            ; mov [rsp + KEPT], rax
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
            ; mov QWORD [rsp + limit], site.limit()
            ; mov rax, [rsp + KEPT]
            ; add rax, rcx
            ; jmp =>back
        );
    }

    /// As [`Emitter::check_group`] for a group's first access, by a site.
    pub(super) fn check_group_by_site(
        &mut self,
        site: Site,
        number: usize,
        group: &Group,
        elsewhere: DynamicLabel,
    ) {
        let [limit, page, addend_of_site] = site.place();
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        let base = self.source(group.base, RAX);
        self.lea(RAX, Some(base), None, group.low, true);
        dynasm!(self.asm; .arch x64
            ; sub rax, [rsp + page]
            ; cmp rax, [rsp + limit]
            ; jae =>from
            ; mov rax, [rsp + addend_of_site]
            ; mov [rsp + addend(number)], rax
            ; =>back
        );
        self.later(Cold::GroupSite {
            from,
            back,
            site,
            number,
            group: *group,
            elsewhere,
        });
        self.addend_in_rax = None;
        self.lose_flags();
    }

    /// Looks up the page of a group, and lets the site know it.
    pub(super) fn fill_site_of_group(
        &mut self,
        from: DynamicLabel,
        back: DynamicLabel,
        site: Site,
        number: usize,
        group: &Group,
        elsewhere: DynamicLabel,
    ) {
        let [limit, page, addend] = site.place();
        let table = table(group.is_write);
        dynasm!(self.asm; .arch x64; =>from);
        self.check_group(number, group, 0, elsewhere);
        dynasm!(self.asm; .arch x64
            ; mov [rsp + addend], rax
            ; mov rcx, [r14 + rcx + table]
            ; mov [rsp + page], rcx
            ; mov QWORD [rsp + limit], site.limit()
            ; jmp =>back
        );
    }
}
