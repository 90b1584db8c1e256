//! Zba, Zbb, Zbs, Zbc and Zicond (unprivileged specification, 30 and 12): the host has nearly all of them.

use super::emitter::Emitter;
use super::layout::*;
use crate::interpreter::block::DecodedOp;
use crate::isa::Op;
use dynasmrt::{DynasmApi, dynasm};

impl Emitter<'_> {
    /// An instruction of these extensions.
    pub(super) fn bit_manipulation(&mut self, op: DecodedOp) {
        use Op::*;
        match op.op {
            AddUw | Sh1add | Sh2add | Sh3add | Sh1addUw | Sh2addUw | Sh3addUw => {
                self.scaled_address(op);
            }
            Andn | Orn | Xnor => self.logical_with_complement(op),
            Max | Maxu | Min | Minu => self.choose(op),
            Rol | Ror | Rolw | Rorw => self.rotate_by_register(op),
            Bclr | Bext | Binv | Bset => self.single_bit(op),
            Bclri | Bexti | Binvi | Bseti => self.single_bit_immediate(op),
            Clmul | Clmulh | Clmulr => self.carry_less(op),
            _ => self.unary(op),
        }
    }

    /// `rs2 + (rs1 << n)`, all of rs1 or its low half.
    fn scaled_address(&mut self, op: DecodedOp) {
        use Op::*;
        let mut a = self.source(op.rs1, RCX);
        let b = self.source(op.rs2, RAX);
        if matches!(op.op, AddUw | Sh1addUw | Sh2addUw | Sh3addUw) {
            dynasm!(self.asm; .arch x64; mov ecx, Rd(a));
            a = RCX;
        }
        let t = self.target(op.rd);
        match op.op {
            AddUw => dynasm!(self.asm; .arch x64; lea Rq(t), [Rq(b) + Rq(a)]),
            Sh1add | Sh1addUw => dynasm!(self.asm; .arch x64; lea Rq(t), [Rq(b) + 2 * Rq(a)]),
            Sh2add | Sh2addUw => dynasm!(self.asm; .arch x64; lea Rq(t), [Rq(b) + 4 * Rq(a)]),
            _ => dynasm!(self.asm; .arch x64; lea Rq(t), [Rq(b) + 8 * Rq(a)]),
        }
        self.finish(op.rd);
    }

    fn logical_with_complement(&mut self, op: DecodedOp) {
        let is_word = self.registers.is_word(op.rs1) || self.registers.is_word(op.rs2);
        let a = self.source(op.rs1, RCX);
        let b = self.source(op.rs2, RAX);
        let t = self.target(op.rd);
        match op.op {
            Op::Andn => dynasm!(self.asm; .arch x64; andn Rq(t), Rq(b), Rq(a)),
            Op::Orn => {
                self.copy(RAX, b);
                dynasm!(self.asm; .arch x64; not rax; or rax, Rq(a));
                self.copy(t, RAX);
            }
            _ => {
                self.copy(RAX, b);
                dynasm!(self.asm; .arch x64; xor rax, Rq(a); not rax);
                self.copy(t, RAX);
            }
        }
        if is_word {
            self.finish_word(op.rd);
        } else {
            self.finish(op.rd);
        }
    }

    /// The smaller or the larger.
    fn choose(&mut self, op: DecodedOp) {
        let a = self.source(op.rs1, RAX);
        let b = self.source(op.rs2, RCX);
        self.copy(RAX, a);
        dynasm!(self.asm; .arch x64; cmp rax, Rq(b));
        match op.op {
            Op::Max => dynasm!(self.asm; .arch x64; cmovl rax, Rq(b)),
            Op::Maxu => dynasm!(self.asm; .arch x64; cmovb rax, Rq(b)),
            Op::Min => dynasm!(self.asm; .arch x64; cmovg rax, Rq(b)),
            _ => dynasm!(self.asm; .arch x64; cmova rax, Rq(b)),
        }
        self.finish_rax(op.rd);
    }

    fn rotate_by_register(&mut self, op: DecodedOp) {
        let a = self.source(op.rs1, RAX);
        self.copy(RAX, a);
        let count = self.source(op.rs2, RCX);
        self.copy(RCX, count);
        match op.op {
            Op::Rol => dynasm!(self.asm; .arch x64; rol rax, cl),
            Op::Ror => dynasm!(self.asm; .arch x64; ror rax, cl),
            Op::Rolw => dynasm!(self.asm; .arch x64; rol eax, cl; cdqe),
            _ => dynasm!(self.asm; .arch x64; ror eax, cl; cdqe),
        }
        self.finish_rax(op.rd);
    }

    /// Clears, reads, inverts or sets the bit that rs2 names; the host takes it modulo 64 too.
    fn single_bit(&mut self, op: DecodedOp) {
        let a = self.source(op.rs1, RAX);
        self.copy(RAX, a);
        let bit = self.source(op.rs2, RCX);
        match op.op {
            Op::Bclr => dynasm!(self.asm; .arch x64; btr rax, Rq(bit)),
            Op::Binv => dynasm!(self.asm; .arch x64; btc rax, Rq(bit)),
            Op::Bset => dynasm!(self.asm; .arch x64; bts rax, Rq(bit)),
            _ => dynasm!(self.asm; .arch x64; shrx rax, rax, Rq(bit); and eax, 1),
        }
        self.finish_rax(op.rd);
    }

    fn single_bit_immediate(&mut self, op: DecodedOp) {
        let bit = (op.immediate & 63) as i8;
        let t = self.target(op.rd);
        let a = self.source(op.rs1, t);
        self.copy(t, a);
        match op.op {
            Op::Bclri => dynasm!(self.asm; .arch x64; btr Rq(t), BYTE bit),
            Op::Binvi => dynasm!(self.asm; .arch x64; btc Rq(t), BYTE bit),
            Op::Bseti => dynasm!(self.asm; .arch x64; bts Rq(t), BYTE bit),
            _ => dynasm!(self.asm; .arch x64; shr Rq(t), bit; and Rd(t), 1),
        }
        self.finish(op.rd);
    }

    /// The low or high half of the product of polynomials, or its upper 64 bits of 127.
    fn carry_less(&mut self, op: DecodedOp) {
        let a = self.source(op.rs1, RAX);
        let b = self.source(op.rs2, RCX);
        dynasm!(self.asm; .arch x64
            ; vmovq xmm0, Rq(a)
            ; vmovq xmm1, Rq(b)
            ; vpclmulqdq xmm0, xmm0, xmm1, 0
        );
        match op.op {
            Op::Clmul => dynasm!(self.asm; .arch x64; vmovq rax, xmm0),
            Op::Clmulh => dynasm!(self.asm; .arch x64; vpextrq rax, xmm0, 1),
            _ => dynasm!(self.asm; .arch x64
                ; vmovq rcx, xmm0
                ; vpextrq rax, xmm0, 1
                ; shld rax, rcx, 1
            ),
        }
        self.finish_rax(op.rd);
    }

    /// Zicond: rs1, or zero where rs2 is or is not zero.
    pub(super) fn conditional(&mut self, op: DecodedOp) {
        let a = self.source(op.rs1, RAX);
        let b = self.source(op.rs2, RCX);
        self.copy(RAX, a);
        dynasm!(self.asm; .arch x64; xor edx, edx; test Rq(b), Rq(b));
        if op.op == Op::CzeroEqz {
            dynasm!(self.asm; .arch x64; cmovz rax, rdx);
        } else {
            dynasm!(self.asm; .arch x64; cmovnz rax, rdx);
        }
        self.finish_rax(op.rd);
    }

    fn unary(&mut self, op: DecodedOp) {
        use Op::*;
        let a = self.source(op.rs1, RAX);
        let t = self.target(op.rd);
        let amount = op.immediate as i8;
        match op.op {
            SlliUw => dynasm!(self.asm; .arch x64; mov Rd(t), Rd(a); shl Rq(t), amount & 63),
            Clz => dynasm!(self.asm; .arch x64; lzcnt Rq(t), Rq(a)),
            Ctz => dynasm!(self.asm; .arch x64; tzcnt Rq(t), Rq(a)),
            Cpop => dynasm!(self.asm; .arch x64; popcnt Rq(t), Rq(a)),
            Clzw => dynasm!(self.asm; .arch x64; lzcnt Rd(t), Rd(a)),
            Ctzw => dynasm!(self.asm; .arch x64; tzcnt Rd(t), Rd(a)),
            Cpopw => dynasm!(self.asm; .arch x64; popcnt Rd(t), Rd(a)),
            SextB => dynasm!(self.asm; .arch x64; movsx Rq(t), Rb(a)),
            SextH => dynasm!(self.asm; .arch x64; movsx Rq(t), Rw(a)),
            ZextH => dynasm!(self.asm; .arch x64; movzx Rd(t), Rw(a)),
            Rori => dynasm!(self.asm; .arch x64; rorx Rq(t), Rq(a), amount & 63),
            Roriw => {
                dynasm!(self.asm; .arch x64; rorx Rd(t), Rd(a), amount & 31);
                return self.finish_word(op.rd);
            }
            Rev8 => {
                self.copy(t, a);
                dynasm!(self.asm; .arch x64; bswap Rq(t));
            }
            // orc.b: all ones in each byte that is not zero.
            _ => dynasm!(self.asm; .arch x64
                ; vmovq xmm0, Rq(a)
                ; vpxor xmm1, xmm1, xmm1
                ; vpcmpeqb xmm0, xmm0, xmm1
                ; vmovq Rq(t), xmm0
                ; not Rq(t)
            ),
        }
        self.finish(op.rd);
    }
}
