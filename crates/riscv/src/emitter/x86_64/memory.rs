//! Loads and stores: a page cache of its own at each site, behind it the TLB, behind that a
//! call-back. Accesses of a [`Group`] have one site together.

use super::emitter::{Cold, Emitter};
use super::groups::{Group, log_size};
use super::layout::*;
use super::registers::Registers;
use super::routines::SlowHalves;
use crate::emitter::call_back::Place;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use std::num::NonZeroU32;

/// What a load or store moves.
#[derive(Clone, Copy)]
enum Moved {
    /// To a host register, or to an `xmm` register that holds an F register.
    To(HostRegister),
    From(HostRegister),
}

/// The slow half of a load or store.
pub(super) struct SlowHalf {
    from: DynamicLabel,
    back: DynamicLabel,
    /// Number of the instruction in the piece.
    index: usize,
    base: HostRegister,
    moved: Moved,
    site: usize,
    registers: Registers,
}

impl Emitter<'_> {
    /// An integer load.
    pub(super) fn load(&mut self, op: DecodedOp) {
        let target = self.target(op.rd);
        self.load_to(op, target);
        self.finish(op.rd);
    }

    /// Loads into a host register; into an `xmm` register for `flw` and `fld`.
    pub(super) fn load_to(&mut self, op: DecodedOp, target: HostRegister) {
        let base = self.source(op.rs1, RAX);
        self.access(op, base, Moved::To(target));
    }

    /// An integer store.
    pub(super) fn store(&mut self, op: DecodedOp) {
        let base = self.source(op.rs1, RAX);
        let value = self.source(op.rs2, RDX);
        self.store_from(op, base, value);
    }

    pub(super) fn store_from(&mut self, op: DecodedOp, base: HostRegister, value: HostRegister) {
        self.access(op, base, Moved::From(value));
    }

    fn access(&mut self, op: DecodedOp, base: HostRegister, moved: Moved) {
        let group = self.groups.group(self.index);
        let first = group.map_or(self.index, |(_, group)| group.first);
        let kept = self.kept(first);
        let addend = kept.map_or(RCX, |kept| kept.addend);
        if self.index != first {
            let site = group.map(|(number, _)| self.group_sites[number]);
            if let Some(site) = site.filter(|site| kept.is_none() && self.addend != Some(*site)) {
                dynasm!(self.asm; .arch x64; mov rcx, [extern site + 8]);
                self.addend = Some(site);
            }
            return self.access_site(op, base, addend, moved, None);
        }
        let site = kept.map_or_else(|| self.cache.add_site(), |kept| kept.site);
        let tag = kept.and_then(|kept| kept.tag);
        let from = self.asm.new_dynamic_label();
        self.addend = None;
        if let Some((number, group)) = group {
            self.group_sites[number] = site;
            self.check_group(base, &group, (site, tag), from);
            self.addend = kept.is_none().then_some(site);
        } else {
            self.check_site(base, op, (site, tag), from);
        }
        if kept.is_none() {
            dynasm!(self.asm; .arch x64; mov rcx, [extern site + 8]);
        }
        self.access_site(op, base, addend, moved, Some((from, site)));
    }

    /// `rcx` becomes the address.
    fn address_in_rcx(&mut self, base: HostRegister, offset: i32) {
        if offset == 0 {
            dynasm!(self.asm; .arch x64; mov rcx, Rq(base));
        } else if let Ok(offset) = i8::try_from(offset) {
            dynasm!(self.asm; .arch x64; lea rcx, [BYTE Rq(base) + offset]);
        } else {
            dynasm!(self.asm; .arch x64; lea rcx, [Rq(base) + offset]);
        }
    }

    /// Jumps to the slow half unless the site is right for an access. The site may have its tag in a
    /// host register.
    pub(super) fn check_site(
        &mut self,
        base: HostRegister,
        op: DecodedOp,
        site: (usize, Option<HostRegister>),
        slow: DynamicLabel,
    ) {
        let alignment = (1 << log_size(op.op).unwrap_or_default()) - 1;
        self.address_in_rcx(base, op.immediate);
        dynasm!(self.asm; .arch x64; and rcx, DWORD -4096 | alignment);
        self.compare_tag(site, slow);
    }

    /// As [`Emitter::check_site`] for all accesses of a group.
    fn check_group(
        &mut self,
        base: HostRegister,
        group: &Group,
        site: (usize, Option<HostRegister>),
        slow: DynamicLabel,
    ) {
        self.address_in_rcx(base, group.low);
        dynasm!(self.asm; .arch x64
            ; and ecx, 4095
            ; cmp ecx, 4096 - group.span
            ; ja =>slow
        );
        self.check_page(base, group, site, slow);
    }

    /// Jumps unless the site is right for the page of a group.
    fn check_page(
        &mut self,
        base: HostRegister,
        group: &Group,
        site: (usize, Option<HostRegister>),
        slow: DynamicLabel,
    ) {
        self.address_in_rcx(base, group.low);
        dynasm!(self.asm; .arch x64; and rcx, DWORD -4096);
        self.compare_tag(site, slow);
    }

    /// Jumps unless the tag of a site is `rcx`.
    fn compare_tag(&mut self, site: (usize, Option<HostRegister>), slow: DynamicLabel) {
        match site {
            (_, Some(tag)) => dynasm!(self.asm; .arch x64; cmp rcx, Rq(tag); jne =>slow),
            (site, None) => dynasm!(self.asm; .arch x64
                ; xor rcx, [rbp + SITE_KEY]
                ; cmp rcx, [extern site]
                ; jne =>slow
            ),
        }
    }

    /// Moves, with the addend in a host register.
    fn access_site(
        &mut self,
        op: DecodedOp,
        base: HostRegister,
        addend: HostRegister,
        moved: Moved,
        slow: Option<(DynamicLabel, usize)>,
    ) {
        let at = (base, addend);
        match (moved, i8::try_from(op.immediate)) {
            (Moved::To(target), Ok(offset)) => self.move_near(op.op, target, at, offset),
            (Moved::To(target), _) => self.move_far(op.op, target, at, op.immediate),
            (Moved::From(value), Ok(offset)) => self.put_near(op.op, value, at, offset),
            (Moved::From(value), _) => self.put_far(op.op, value, at, op.immediate),
        }
        let Some((from, site)) = slow else {
            return;
        };
        let back = self.asm.new_dynamic_label();
        dynasm!(self.asm; .arch x64; =>back);
        self.cold.push(Cold::Access(SlowHalf {
            from,
            back,
            index: self.index,
            base,
            moved,
            site,
            registers: self.registers,
        }));
    }
}

/// Moves between a register and `[base + addend + offset]`.
macro_rules! moves {
    ($load:ident, $store:ident, $offset:ty, $($size:tt)?) => {
        impl Emitter<'_> {
            fn $load(
                &mut self,
                op: Op,
                t: HostRegister,
                (base, addend): (HostRegister, HostRegister),
                offset: $offset,
            ) {
                match op {
                    Op::Lb => dynasm!(self.asm; .arch x64
                        ; movsx Rq(t), BYTE [$($size)? Rq(base) + Rq(addend) + offset]),
                    Op::Lbu => dynasm!(self.asm; .arch x64
                        ; movzx Rd(t), BYTE [$($size)? Rq(base) + Rq(addend) + offset]),
                    Op::Lh => dynasm!(self.asm; .arch x64
                        ; movsx Rq(t), WORD [$($size)? Rq(base) + Rq(addend) + offset]),
                    Op::Lhu => dynasm!(self.asm; .arch x64
                        ; movzx Rd(t), WORD [$($size)? Rq(base) + Rq(addend) + offset]),
                    Op::Lw => dynasm!(self.asm; .arch x64
                        ; movsxd Rq(t), DWORD [$($size)? Rq(base) + Rq(addend) + offset]),
                    Op::Lwu => dynasm!(self.asm; .arch x64
                        ; mov Rd(t), [$($size)? Rq(base) + Rq(addend) + offset]),
                    Op::Flw => dynasm!(self.asm; .arch x64
                        ; vmovss Rx(t), [$($size)? Rq(base) + Rq(addend) + offset]),
                    Op::Fld => dynasm!(self.asm; .arch x64
                        ; vmovsd Rx(t), [$($size)? Rq(base) + Rq(addend) + offset]),
                    _ => dynasm!(self.asm; .arch x64
                        ; mov Rq(t), [$($size)? Rq(base) + Rq(addend) + offset]),
                }
            }

            fn $store(
                &mut self,
                op: Op,
                v: HostRegister,
                (base, addend): (HostRegister, HostRegister),
                offset: $offset,
            ) {
                match log_size(op) {
                    Some(0) => dynasm!(self.asm; .arch x64
                        ; mov [$($size)? Rq(base) + Rq(addend) + offset], Rb(v)),
                    Some(1) => dynasm!(self.asm; .arch x64
                        ; mov [$($size)? Rq(base) + Rq(addend) + offset], Rw(v)),
                    Some(2) => dynasm!(self.asm; .arch x64
                        ; mov [$($size)? Rq(base) + Rq(addend) + offset], Rd(v)),
                    _ => dynasm!(self.asm; .arch x64
                        ; mov [$($size)? Rq(base) + Rq(addend) + offset], Rq(v)),
                }
            }
        }
    };
}

moves!(move_near, put_near, i8, BYTE);
moves!(move_far, put_far, i32,);

impl Emitter<'_> {
    /// The slow half of a load or store.
    pub(super) fn slow_half(
        &mut self,
        half: SlowHalf,
        known: &mut impl FnMut(i32) -> Option<NonZeroU32>,
    ) {
        let op = self.piece.ops[half.index];
        let place = Place::new(self.piece.ops.len() - half.index, op.offset);
        let leads = self.groups.group(half.index);
        let around: Vec<(usize, Group)> = self.groups.around(half.index).collect();
        let returns = !around.is_empty() || !half.registers.is_standard();
        self.registers = half.registers;
        self.call_slow_half(&half, &op, place, returns);
        let given_up = self.asm.new_dynamic_label();
        if returns {
            dynasm!(self.asm; .arch x64; jc =>given_up);
        }
        self.take_result(op.op, half.moved);
        // What was known of pages may not be true any more.
        let stale = self.asm.new_dynamic_label();
        for (number, group) in &around {
            let (base, site) = (self.source(group.base, RDX), self.group_sites[*number]);
            match &leads {
                Some((leads, _)) if leads == number => {
                    self.check_group(base, group, (site, None), stale);
                }
                _ => self.check_page(base, group, (site, None), stale),
            }
        }
        self.load_kept();
        if let Some((number, _)) = leads {
            let site = self.group_sites[number];
            dynasm!(self.asm; .arch x64; mov rcx, [extern site + 8]);
        }
        dynasm!(self.asm; .arch x64; jmp =>half.back);
        if returns {
            dynasm!(self.asm; .arch x64; =>given_up);
            let rest = place.instructions_to_end() as i32;
            let offset = i32::from(op.offset);
            self.at(&half.registers, |emitter| emitter.interpret(rest, offset));
        }
        if !around.is_empty() {
            dynasm!(self.asm; .arch x64; =>stale);
            self.go_on_ungrouped(&half, &op, known);
        }
    }

    fn call_slow_half(&mut self, half: &SlowHalf, op: &DecodedOp, place: Place, returns: bool) {
        let halves: &SlowHalves = if returns {
            &self.routines.returning
        } else {
            &self.routines.leaving
        };
        let log_size = log_size(op.op).unwrap_or_default();
        let routine = match half.moved {
            Moved::To(_) => halves.load[log_size],
            Moved::From(_) => halves.store[log_size],
        };
        dynasm!(self.asm; .arch x64
            ; =>half.from
            ; lea rax, [Rq(half.base) + op.immediate]
        );
        if let Moved::From(value) = half.moved {
            self.copy(RDX, value);
        }
        dynasm!(self.asm; .arch x64
            ; lea rcx, [extern half.site]
            ; push rcx
            ; mov ecx, place.0 as i32
            ; call extern routine
            ; pop rcx // changes no flags
        );
    }

    /// Puts what a slow half loaded where the piece expects it.
    fn take_result(&mut self, op: Op, moved: Moved) {
        let Moved::To(target) = moved else {
            return;
        };
        match op {
            Op::Lb => dynasm!(self.asm; .arch x64; movsx Rq(target), al),
            Op::Lh => dynasm!(self.asm; .arch x64; movsx Rq(target), ax),
            Op::Lw => dynasm!(self.asm; .arch x64; movsxd Rq(target), eax),
            Op::Flw | Op::Fld => dynasm!(self.asm; .arch x64; vmovq Rx(target), rax),
            _ => self.copy(target, RAX),
        }
    }

    /// Leaves the piece behind a load or store whose slow half is done, for the piece that begins
    /// there.
    fn go_on_ungrouped(
        &mut self,
        half: &SlowHalf,
        op: &DecodedOp,
        known: &mut impl FnMut(i32) -> Option<NonZeroU32>,
    ) {
        match (half.moved, op.op) {
            (Moved::From(_), _) => {}
            (Moved::To(target), Op::Fld) => {
                dynasm!(self.asm; .arch x64; vmovsd [rbp + f(op.rd)], Rx(target));
            }
            (Moved::To(target), Op::Flw) => dynasm!(self.asm; .arch x64
                ; vmovss [rbp + f(op.rd)], Rx(target)
                ; mov DWORD [rbp + f(op.rd) + 4], -1
            ),
            (Moved::To(_), _) => self.finish(op.rd),
        }
        let rest = (self.piece.ops.len() - half.index - 1) as i32;
        self.uncount(rest);
        self.jump(i32::from(op.offset) + i32::from(op.length), known);
    }

    /// At the label, the interpreter takes over with the present instruction.
    pub(super) fn interpret_from(&mut self, from: DynamicLabel) {
        let offset = i32::from(self.piece.ops[self.index].offset);
        let rest = self.rest() + 1;
        let registers = self.registers;
        self.cold.push(Cold::Interpret {
            from,
            rest,
            offset,
            registers,
        });
    }
}
