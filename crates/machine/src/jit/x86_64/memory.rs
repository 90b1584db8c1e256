//! Loads and stores: a page cache of its own at each site, behind it the TLB, behind that a
//! call-back.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

/// Logarithm of the bytes that a load or store moves.
fn log_size(op: Op) -> usize {
    use Op::*;
    match op {
        Lb | Lbu | Sb => 0,
        Lh | Lhu | Sh => 1,
        Lw | Lwu | Sw | Flw | Fsw => 2,
        _ => 3,
    }
}

impl Emitter<'_> {
    /// Leaves the addend in `rcx` or jumps to the slow half.
    pub(super) fn check_site(
        &mut self,
        base: HostRegister,
        op: DecodedOp,
        slow: dynasmrt::DynamicLabel,
    ) -> usize {
        let site = self.cache.add_site();
        let mask = -4096 | ((1 << log_size(op.op)) - 1);
        if op.immediate == 0 {
            dynasm!(self.asm; .arch x64; mov rcx, Rq(base));
        } else {
            dynasm!(self.asm; .arch x64; lea rcx, [Rq(base) + op.immediate]);
        }
        dynasm!(self.asm; .arch x64
            ; and rcx, DWORD mask
            ; xor rcx, [rbp + SITE_KEY]
            ; cmp rcx, [extern site]
            ; jne =>slow
            ; mov rcx, [extern site + 8]
        );
        site
    }

    /// An integer load.
    pub(super) fn load(&mut self, op: DecodedOp) {
        let target = Self::target(op.rd);
        let target = if op.rd >= 32 { RAX } else { target };
        self.load_to(op, target);
        self.finish(op.rd);
    }

    /// Loads into a host register; into an `xmm` register for `flw` and `fld`.
    pub(super) fn load_to(&mut self, op: DecodedOp, target: HostRegister) {
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        let base = self.source(op.rs1, RAX);
        let site = self.check_site(base, op, from);
        let offset = op.immediate;
        match op.op {
            Op::Lb => {
                dynasm!(self.asm; .arch x64; movsx Rq(target), BYTE [Rq(base) + rcx + offset])
            }
            Op::Lbu => {
                dynasm!(self.asm; .arch x64; movzx Rd(target), BYTE [Rq(base) + rcx + offset])
            }
            Op::Lh => {
                dynasm!(self.asm; .arch x64; movsx Rq(target), WORD [Rq(base) + rcx + offset])
            }
            Op::Lhu => {
                dynasm!(self.asm; .arch x64; movzx Rd(target), WORD [Rq(base) + rcx + offset])
            }
            Op::Lw => {
                dynasm!(self.asm; .arch x64; movsxd Rq(target), DWORD [Rq(base) + rcx + offset]);
            }
            Op::Lwu => {
                dynasm!(self.asm; .arch x64; mov Rd(target), [Rq(base) + rcx + offset]);
            }
            Op::Flw => dynasm!(self.asm; .arch x64; vmovss Rx(target), [Rq(base) + rcx + offset]),
            Op::Fld => dynasm!(self.asm; .arch x64; vmovsd Rx(target), [Rq(base) + rcx + offset]),
            _ => dynasm!(self.asm; .arch x64; mov Rq(target), [Rq(base) + rcx + offset]),
        }
        dynasm!(self.asm; .arch x64; =>back);
        let place = self.place();
        self.cold.push(Cold::Load {
            from,
            back,
            op: op.op,
            base,
            offset,
            target,
            site,
            place,
        });
    }

    /// An integer store.
    pub(super) fn store(&mut self, op: DecodedOp) {
        let base = self.source(op.rs1, RAX);
        let value = self.source(op.rs2, RDX);
        self.store_from(op, base, value);
    }

    pub(super) fn store_from(&mut self, op: DecodedOp, base: HostRegister, value: HostRegister) {
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        let site = self.check_site(base, op, from);
        let offset = op.immediate;
        let log_size = log_size(op.op);
        match log_size {
            0 => dynasm!(self.asm; .arch x64; mov [Rq(base) + rcx + offset], Rb(value)),
            1 => dynasm!(self.asm; .arch x64; mov [Rq(base) + rcx + offset], Rw(value)),
            2 => dynasm!(self.asm; .arch x64; mov [Rq(base) + rcx + offset], Rd(value)),
            _ => dynasm!(self.asm; .arch x64; mov [Rq(base) + rcx + offset], Rq(value)),
        }
        dynasm!(self.asm; .arch x64; =>back);
        let place = self.place();
        self.cold.push(Cold::Store {
            from,
            back,
            log_size,
            base,
            offset,
            value,
            site,
            place,
        });
    }

    /// The slow half of a load or store.
    pub(super) fn cold_access(&mut self, cold: Cold) {
        match cold {
            Cold::Load {
                from,
                back,
                op,
                base,
                offset,
                target,
                site,
                place,
            } => {
                let routine = self.routines.load[log_size(op)];
                dynasm!(self.asm; .arch x64
                    ; =>from
                    ; lea rax, [Rq(base) + offset]
                    ; lea rcx, [extern site]
                    ; push rcx
                    ; mov ecx, place.0 as i32
                    ; call extern routine
                    ; pop rcx
                );
                match op {
                    Op::Lb => dynasm!(self.asm; .arch x64; movsx Rq(target), al),
                    Op::Lh => dynasm!(self.asm; .arch x64; movsx Rq(target), ax),
                    Op::Lw => dynasm!(self.asm; .arch x64; movsxd Rq(target), eax),
                    Op::Flw | Op::Fld => dynasm!(self.asm; .arch x64; vmovq Rx(target), rax),
                    _ => self.copy(target, RAX),
                }
                dynasm!(self.asm; .arch x64; jmp =>back);
            }
            Cold::Store {
                from,
                back,
                log_size,
                base,
                offset,
                value,
                site,
                place,
            } => {
                let routine = self.routines.store[log_size];
                dynasm!(self.asm; .arch x64; =>from; lea rax, [Rq(base) + offset]);
                self.copy(RDX, value);
                dynasm!(self.asm; .arch x64
                    ; lea rcx, [extern site]
                    ; push rcx
                    ; mov ecx, place.0 as i32
                    ; call extern routine
                    ; pop rcx
                    ; jmp =>back
                );
            }
            _ => unreachable!("only loads and stores have a slow half"),
        }
    }

    /// At the label, the interpreter takes over with the present instruction.
    pub(super) fn interpret_from(&mut self, from: dynasmrt::DynamicLabel) {
        let offset = i32::from(self.piece.ops[self.index].offset);
        let rest = self.rest() + 1;
        self.cold.push(Cold::Interpret { from, rest, offset });
    }
}
