//! Sequences that compilers write and that the JIT takes together: shifts by constants, words, runs
//! of accesses by one base, loops that use few registers much.

use super::assembler::register::ZERO;
use super::block::Emitter;
use riscv::isa::Op;

/// Computations of which each gives a sign-extended word, or keeps it one.
const WORD_OPS: &[Op] = &[
    Op::Addw,
    Op::Subw,
    Op::Mulw,
    Op::Sllw,
    Op::Srlw,
    Op::Sraw,
    Op::And,
    Op::Or,
    Op::Xor,
    Op::Slt,
    Op::Sltu,
    Op::Divuw,
];
const WORD_IMMEDIATE_OPS: &[Op] = &[Op::Addiw, Op::Andi, Op::Ori, Op::Xori, Op::Slti, Op::Sltiu];

impl Emitter<'_> {
    /// One of them.
    pub(super) fn idiom(&mut self) {
        match self.random.below(5) {
            0 => self.rotation(),
            1 => self.extension(),
            2 => self.scaled_addition(),
            3 => self.words(),
            _ => self.run_of_accesses(),
        }
    }

    /// What may stand between the instructions of an idiom.
    fn between(&mut self) {
        match self.random.below(6) {
            0 => self.access(),
            1 => self.computation(),
            2 => self.float(),
            _ => {}
        }
    }

    /// A register of a few that come again and again.
    fn familiar(&mut self) -> u8 {
        if self.familiar.is_empty() || self.random.once_in(40) {
            let count = 3 + self.random.below(5);
            self.familiar = (0..count).map(|_| self.target()).collect();
        }
        let register = self.random.pick(&self.familiar);
        if register == ZERO || self.may_write(register) {
            return register;
        }
        self.familiar.clear();
        self.target()
    }

    fn rotation(&mut self) {
        let (source, left, right) = (self.familiar(), self.familiar(), self.familiar());
        let target = self.familiar();
        let bits = self.random.pick(&[32, 64]);
        let amount = 1 + self.random.below(bits - 1) as i32;
        // Now and then nothing that is one rotation.
        let other = bits as i32 - amount - i32::from(self.random.once_in(10) && amount > 1);
        let other = other.max(0);
        let (shift_left, shift_right) = if bits == 32 {
            (Op::Slliw, Op::Srliw)
        } else {
            (Op::Slli, Op::Srli)
        };
        let mut shifts = [(shift_left, left, amount), (shift_right, right, other)];
        if self.random.once_in(2) {
            shifts.reverse();
        }
        for (op, rd, amount) in shifts {
            self.asm.i(op, rd, source, amount);
            self.between();
        }
        let op = self.random.pick(&[Op::Or, Op::Xor, Op::Add, Op::Addw]);
        self.asm.r(op, target, left, right);
    }

    fn extension(&mut self) {
        let (source, middle, target) = (self.familiar(), self.familiar(), self.familiar());
        let left = self.random.pick(&[32, 32, 48, 56, 40]);
        let right = match self.random.below(4) {
            0 => self.random.below(64) as i32,
            1 => left - 1 - self.random.below(4) as i32,
            _ => left,
        };
        self.asm.i(Op::Slli, middle, source, left);
        self.between();
        let op = self.random.pick(&[Op::Srli, Op::Srli, Op::Srai]);
        self.asm.i(op, target, middle, right);
    }

    fn scaled_addition(&mut self) {
        let (source, middle, other) = (self.familiar(), self.familiar(), self.familiar());
        let target = self.familiar();
        let amount = self.random.below(5) as i32;
        self.asm.i(Op::Slli, middle, source, amount);
        self.between();
        if self.random.once_in(2) {
            self.asm.r(Op::Add, target, middle, other);
        } else {
            self.asm.r(Op::Add, target, other, middle);
        }
    }

    fn words(&mut self) {
        for _ in 0..1 + self.random.below(6) {
            let (rd, rs1) = (self.familiar(), self.familiar());
            if self.random.once_in(3) {
                let op = self.random.pick(WORD_IMMEDIATE_OPS);
                let immediate = self.random.pick(&[0, 1, -1, 255, 2047, -2048]);
                self.asm.i(op, rd, rs1, immediate);
            } else {
                let op = self.random.pick(WORD_OPS);
                let rs2 = self.familiar();
                self.asm.r(op, rd, rs1, rs2);
            }
        }
    }

    fn run_of_accesses(&mut self) {
        let base = self.base();
        let start = self.random.below(64) as i32 - 32;
        let aligns = !self.random.once_in(4);
        for number in 0..2 + self.random.below(6) as i32 {
            let offset = start + 8 * number;
            let offset = if aligns { offset & !7 } else { offset };
            let is_store = self.random.once_in(3);
            if is_store {
                let value = self.familiar();
                let op = self.random.pick(&[Op::Sb, Op::Sh, Op::Sw, Op::Sd]);
                self.asm.store(op, value, base, offset);
            } else {
                let target = self.familiar();
                let op = self
                    .random
                    .pick(&[Op::Lb, Op::Lhu, Op::Lw, Op::Lwu, Op::Ld]);
                self.asm.i(op, target, base, offset);
            }
            if self.random.once_in(6) {
                self.float_access();
            }
        }
    }
}
