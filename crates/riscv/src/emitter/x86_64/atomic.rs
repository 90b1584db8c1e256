//! The A extension (unprivileged specification, 14): aligned data in a page that a store may go to
//! plainly (for `lr`, a load). Anything else is done by call-back.
//!
//! All harts share a thread, so nothing needs to be atomic on the host.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use super::registers::Registers;
use super::routines::{Assembler, fill, probe};
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use crate::isa::cache_block::BLOCK_BYTES;
use crate::memory::RAM_BASE;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// The site of an atomic does not know its page.
pub struct AtomicCold {
    from: DynamicLabel,
    /// The instruction.
    again: DynamicLabel,
    /// Behind it.
    back: DynamicLabel,
    base: HostRegister,
    shape: Shape,
    is_load: bool,
    site: usize,
    /// Number of the rare instruction.
    number: i32,
    place: i32,
    registers: Registers,
}

/// From an address to that of its cache block.
const BLOCK_MASK: i32 = -(BLOCK_BYTES as i32);

/// The place of the data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Four bytes, which must be aligned.
    Word,
    /// Eight bytes, which must be aligned.
    Double,
    /// The cache block that the address is in.
    Block,
}

/// Bytes from a guest physical address to its offset in RAM, negative: that fits 32 bits.
const TO_PHYSICAL: i32 = (RAM_BASE as i64).wrapping_neg() as i32;
const _: () = assert!(TO_PHYSICAL as i64 == -(RAM_BASE as i64));

/// Whether an atomic is of eight bytes; none if an instruction is no atomic.
fn is_double(op: Op) -> Option<bool> {
    use Op::*;
    match op {
        LrW | ScW | AmoswapW | AmoaddW | AmoxorW | AmoandW | AmoorW | AmominW | AmomaxW
        | AmominuW | AmomaxuW => Some(false),
        LrD | ScD | AmoswapD | AmoaddD | AmoxorD | AmoandD | AmoorD | AmominD | AmomaxD
        | AmominuD | AmomaxuD => Some(true),
        _ => None,
    }
}

/// Whether an instruction is one of the A extension.
pub fn is_atomic(op: Op) -> bool {
    is_double(op).is_some()
}

impl Emitter<'_> {
    /// `lr`, `sc` or an AMO. False if it is none of these.
    pub(super) fn atomic(&mut self, op: DecodedOp) -> bool {
        use Op::*;
        let Some(is_double) = is_double(op.op) else {
            return false;
        };
        let back = self.asm.new_dynamic_label();
        let shape = if is_double {
            Shape::Double
        } else {
            Shape::Word
        };
        self.locate(op, shape, back);
        match op.op {
            LrW | LrD => {
                self.load_located(is_double);
                dynasm!(self.asm; .arch x64
                    ; sub rcx, [rbp + RAM]
                    ; sub rcx, TO_PHYSICAL
                    ; mov [rbp + RESERVATION], rcx
                );
            }
            ScW | ScD => self.store_conditionally(op, is_double),
            AmoswapW | AmoswapD | AmoaddW | AmoaddD | AmoxorW | AmoxorD | AmoandW | AmoandD
            | AmoorW | AmoorD => self.exchange(op, is_double),
            _ => self.exchange_for_extreme(op, is_double),
        }
        let target = self.target(op.rd);
        self.copy(target, RAX);
        self.finish(op.rd);
        dynasm!(self.asm; .arch x64; =>back);
        true
    }

    /// `cbo.zero` (unprivileged specification, "Zicboz"), where it is allowed. False if the instruction
    /// is another one.
    pub(super) fn zero_block(&mut self, op: DecodedOp) -> bool {
        if op.op != Op::CboZero {
            return false;
        }
        let back = self.asm.new_dynamic_label();
        self.locate(op, Shape::Block, back);
        dynasm!(self.asm; .arch x64; vpxor xmm0, xmm0, xmm0);
        for offset in (0..BLOCK_BYTES as i8).step_by(16) {
            dynasm!(self.asm; .arch x64; vmovdqu [BYTE rcx + offset], xmm0);
        }
        dynasm!(self.asm; .arch x64; =>back);
        true
    }

    /// The host's address of the data goes to `rcx`; `rax` and `rdx` are free then. Where the site
    /// does not know the page, the instruction begins anew or ends at `back`.
    fn locate(&mut self, op: DecodedOp, shape: Shape, back: DynamicLabel) {
        let (again, from) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64; =>again);
        if shape == Shape::Block {
            dynasm!(self.asm; .arch x64; cmp BYTE [rbp + MAY_ZERO_BLOCKS], 0; je =>from);
        }
        let base = self.source(op.rs1, RAX);
        let access = DecodedOp {
            op: match shape {
                Shape::Word => Op::Sw,
                Shape::Double => Op::Sd,
                Shape::Block => Op::Sb, // wherever in the block
            },
            immediate: 0, // it holds aq and rl
            ..op
        };
        let site = self.cache.add_site();
        self.check_site(base, access, (site, None), from);
        if shape == Shape::Block {
            self.copy(RCX, base);
            dynasm!(self.asm; .arch x64; and rcx, BLOCK_MASK; add rcx, [extern site + 8]);
        } else {
            dynasm!(self.asm; .arch x64; mov rcx, [extern site + 8]; add rcx, Rq(base));
        }
        let number = self.add_rare(op);
        let place = self.place().0 as i32;
        self.cold.push(Cold::Atomic(AtomicCold {
            from,
            again,
            back,
            base,
            shape,
            is_load: matches!(op.op, Op::LrW | Op::LrD),
            site,
            number,
            place,
            registers: self.registers,
        }));
    }

    /// The data goes to `rax`, a word sign-extended.
    fn load_located(&mut self, is_double: bool) {
        if is_double {
            dynasm!(self.asm; .arch x64; mov rax, [rcx]);
        } else {
            dynasm!(self.asm; .arch x64; movsxd rax, DWORD [rcx]);
        }
    }

    fn store_located(&mut self, value: HostRegister, is_double: bool) {
        if is_double {
            dynasm!(self.asm; .arch x64; mov [rcx], Rq(value));
        } else {
            dynasm!(self.asm; .arch x64; mov [rcx], Rd(value));
        }
    }

    fn store_conditionally(&mut self, op: DecodedOp, is_double: bool) {
        let failed = self.asm.new_dynamic_label();
        let value = self.source(op.rs2, RDX);
        dynasm!(self.asm; .arch x64
            ; mov rax, rcx
            ; sub rax, [rbp + RAM]
            ; sub rax, TO_PHYSICAL
            ; cmp rax, [rbp + RESERVATION]
            ; mov QWORD [rbp + RESERVATION], -1
            ; mov eax, 1
            ; jne =>failed
        );
        self.store_located(value, is_double);
        dynasm!(self.asm; .arch x64; xor eax, eax; =>failed);
    }

    fn exchange(&mut self, op: DecodedOp, is_double: bool) {
        use Op::*;
        let value = self.source(op.rs2, RDX);
        self.load_located(is_double);
        match op.op {
            AmoswapW | AmoswapD => self.store_located(value, is_double),
            AmoaddW => dynasm!(self.asm; .arch x64; add [rcx], Rd(value)),
            AmoaddD => dynasm!(self.asm; .arch x64; add [rcx], Rq(value)),
            AmoxorW => dynasm!(self.asm; .arch x64; xor [rcx], Rd(value)),
            AmoxorD => dynasm!(self.asm; .arch x64; xor [rcx], Rq(value)),
            AmoandW => dynasm!(self.asm; .arch x64; and [rcx], Rd(value)),
            AmoandD => dynasm!(self.asm; .arch x64; and [rcx], Rq(value)),
            AmoorW => dynasm!(self.asm; .arch x64; or [rcx], Rd(value)),
            _ => dynasm!(self.asm; .arch x64; or [rcx], Rq(value)),
        }
    }

    /// The smaller or larger of both is stored.
    fn exchange_for_extreme(&mut self, op: DecodedOp, is_double: bool) {
        use Op::*;
        let value = self.source(op.rs2, RDX);
        self.copy(RDX, value);
        self.load_located(is_double);
        if is_double {
            dynasm!(self.asm; .arch x64; cmp rax, rdx);
        } else {
            dynasm!(self.asm; .arch x64; cmp eax, edx);
        }
        match op.op {
            AmominW | AmominD => dynasm!(self.asm; .arch x64; cmovl rdx, rax),
            AmomaxW | AmomaxD => dynasm!(self.asm; .arch x64; cmovg rdx, rax),
            AmominuW | AmominuD => dynasm!(self.asm; .arch x64; cmovb rdx, rax),
            _ => dynasm!(self.asm; .arch x64; cmova rdx, rax),
        }
        self.store_located(RDX, is_double);
    }

    /// What is behind the piece.
    pub(super) fn cold_atomic(&mut self, cold: AtomicCold) {
        let rare = self.asm.new_dynamic_label();
        let is_double = cold.shape != Shape::Word;
        let find = self.routines.find[usize::from(cold.is_load)][usize::from(is_double)];
        dynasm!(self.asm; .arch x64; =>cold.from);
        self.copy(RAX, cold.base);
        match cold.shape {
            Shape::Word => dynasm!(self.asm; .arch x64; test al, 3; jnz =>rare),
            Shape::Double => dynasm!(self.asm; .arch x64; test al, 7; jnz =>rare),
            Shape::Block => dynasm!(self.asm; .arch x64
                ; cmp BYTE [rbp + MAY_ZERO_BLOCKS], 0
                ; je =>rare
                ; and rax, BLOCK_MASK
            ),
        }
        dynasm!(self.asm; .arch x64
            ; lea rcx, [extern cold.site]
            ; push rcx
            ; call extern find
            ; pop rcx
            ; je =>cold.again
            ; =>rare
        );
        self.execute_beside(&cold.registers, cold.number, cold.place);
        dynasm!(self.asm; .arch x64; jmp =>cold.back);
    }
}

/// Fills the site whose address is on the stack for `rax`, which is aligned, if the TLB knows its
/// page: ZF says so.
pub(super) fn find(asm: &mut Assembler, is_load: bool, is_double: bool) {
    let miss = asm.new_dynamic_label();
    let table = if is_load { LOAD_TABLE } else { STORE_TABLE };
    let size = if is_double { 8 } else { 4 };
    // On the stack: two registers, return address, site.
    dynasm!(asm; .arch x64; push rsi; push rdi);
    probe(asm, table, size, miss);
    fill(asm, size, 24);
    dynasm!(asm; .arch x64
        ; pop rdi
        ; pop rsi
        ; cmp eax, eax
        ; ret
        ; =>miss
        ; pop rdi
        ; pop rsi
        ; test rsp, rsp
        ; ret
    );
}
