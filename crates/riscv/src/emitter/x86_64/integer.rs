//! The integer instructions, and the dispatch to all others.

use super::atomic::is_atomic;
use super::emitter::{Emitter, is_csr_access};
use super::float::is_emitted_float;
use super::groups::log_size;
use super::layout::*;
use crate::interpreter::block::DecodedOp;
use crate::isa::{Extension, Op};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use std::num::NonZeroU32;

/// `target = a OP b` for an instruction of the host with two operands.
macro_rules! two_operands {
    ($self:ident, $op:ident, $instruction:tt, $commutes:expr) => {{
        let (rs1, rs2) = if $commutes && $self.registers.home($op.rs1).is_none() {
            ($op.rs2, $op.rs1) // a register first, then memory
        } else {
            ($op.rs1, $op.rs2)
        };
        let is_word = $self.registers.is_word(rs1) || $self.registers.is_word(rs2);
        let target = $self.target($op.rd);
        match $self.registers.home(rs2) {
            Some(b) if b == target && rs1 != rs2 => {
                let a = $self.source(rs1, RCX);
                if $commutes {
                    dynasm!($self.asm; .arch x64; $instruction Rq(target), Rq(a));
                } else {
                    $self.copy(RAX, a);
                    dynasm!($self.asm; .arch x64; $instruction rax, Rq(b); mov Rq(target), rax);
                }
            }
            Some(b) => {
                let a = $self.source(rs1, target);
                $self.copy(target, a);
                dynasm!($self.asm; .arch x64; $instruction Rq(target), Rq(b));
            }
            None if rs2 == 0 => {
                let a = $self.source(rs1, target);
                $self.copy(target, a);
                dynasm!($self.asm; .arch x64; xor ecx, ecx; $instruction Rq(target), rcx);
            }
            None => {
                let a = $self.source(rs1, target);
                $self.copy(target, a);
                dynasm!($self.asm; .arch x64; $instruction Rq(target), [BYTE rbp + x(rs2)]);
            }
        }
        $self.finish_as($op.rd, is_word);
    }};
}

/// `target = sext(a OP b)` in 32 bits.
macro_rules! two_words {
    ($self:ident, $op:ident, $instruction:tt, $commutes:expr) => {{
        let (rs1, rs2) = if $commutes && $self.registers.home($op.rs1).is_none() {
            ($op.rs2, $op.rs1)
        } else {
            ($op.rs1, $op.rs2)
        };
        let target = $self.target($op.rd);
        match $self.registers.home(rs2) {
            Some(b) if b == target && rs1 != rs2 => {
                let a = $self.source(rs1, RAX);
                if $commutes {
                    dynasm!($self.asm; .arch x64; $instruction Rd(target), Rd(a));
                } else {
                    if a != RAX {
                        dynasm!($self.asm; .arch x64; mov eax, Rd(a));
                    }
                    dynasm!($self.asm; .arch x64; $instruction eax, Rd(b); mov Rd(target), eax);
                }
            }
            Some(b) => {
                let a = $self.source(rs1, target);
                $self.copy_word(target, a);
                dynasm!($self.asm; .arch x64; $instruction Rd(target), Rd(b));
            }
            None if rs2 == 0 => {
                let a = $self.source(rs1, target);
                $self.copy_word(target, a);
                dynasm!($self.asm; .arch x64; xor ecx, ecx; $instruction Rd(target), ecx);
            }
            None => {
                let a = $self.source(rs1, target);
                $self.copy_word(target, a);
                dynasm!($self.asm; .arch x64; $instruction Rd(target), [BYTE rbp + x(rs2)]);
            }
        }
        $self.finish_word($op.rd);
    }};
}

/// `target = a OP immediate`.
macro_rules! with_immediate {
    ($self:ident, $op:ident, $instruction:tt) => {{
        let is_word = $self.registers.is_word($op.rs1);
        let target = $self.target($op.rd);
        let a = $self.source($op.rs1, target);
        $self.copy(target, a);
        dynasm!($self.asm; .arch x64; $instruction Rq(target), $op.immediate);
        $self.finish_as($op.rd, is_word);
    }};
}

macro_rules! shift_immediate {
    ($self:ident, $op:ident, $instruction:tt) => {{
        let target = $self.target($op.rd);
        let a = $self.source($op.rs1, target);
        $self.copy(target, a);
        dynasm!($self.asm; .arch x64; $instruction Rq(target), ($op.immediate & 63) as i8);
        $self.finish($op.rd);
    }};
}

macro_rules! shift_word_immediate {
    ($self:ident, $op:ident, $instruction:tt) => {{
        let target = $self.target($op.rd);
        let a = $self.source($op.rs1, target);
        $self.copy_word(target, a);
        dynasm!($self.asm; .arch x64; $instruction Rd(target), ($op.immediate & 31) as i8);
        $self.finish_word($op.rd);
    }};
}

macro_rules! shift {
    ($self:ident, $op:ident, $instruction:tt) => {{
        let target = $self.target($op.rd);
        let a = $self.source($op.rs1, RAX);
        let count = $self.source($op.rs2, RCX);
        dynasm!($self.asm; .arch x64; $instruction Rq(target), Rq(a), Rq(count));
        $self.finish($op.rd);
    }};
}

macro_rules! shift_word {
    ($self:ident, $op:ident, $instruction:tt) => {{
        let target = $self.target($op.rd);
        let a = $self.source($op.rs1, RAX);
        let count = $self.source($op.rs2, RCX);
        dynasm!($self.asm; .arch x64; $instruction Rd(target), Rd(a), Rd(count));
        $self.finish_word($op.rd);
    }};
}

impl Emitter<'_> {
    /// One instruction.
    pub(super) fn instruction(
        &mut self,
        op: DecodedOp,
        known: &mut impl FnMut(i32) -> Option<NonZeroU32>,
    ) {
        use Op::*;
        if log_size(op.op).is_none() {
            self.addend = None;
        }
        if self.fusion(&op) {
            return;
        }
        match op.op {
            Jal | Jalr => self.unconditional(op, known),
            Beq | Bne | Blt | Bge | Bltu | Bgeu => self.branch(op, known),
            Lb | Lh | Lw | Ld | Lbu | Lhu | Lwu => {
                self.prepare(&op);
                self.load(op);
            }
            Sb | Sh | Sw | Sd => {
                self.prepare(&op);
                self.store(op);
            }
            Fence => {}
            FenceI => self.jump(i32::from(op.offset) + i32::from(op.length), known),
            SfenceVma => self.fence_translations(),
            _ if is_integer(op.op) => {
                if op.rd < 32 {
                    self.prepare(&op);
                    match op.op.extension() {
                        Some(Extension::Zicond) => self.conditional(op),
                        Some(_) => self.bit_manipulation(op),
                        None => self.integer(op),
                    }
                }
            }
            _ if is_emitted_float(op.op) => {
                // Its rare cases execute what waits, which must do no harm a second time.
                self.perform_in_place();
                self.prepare(&op);
                if !self.float(op) {
                    self.rare(op);
                }
            }
            _ if is_csr_access(op.op) || is_atomic(op.op) || op.op == CboZero => {
                self.perform_in_place();
                self.prepare(&op);
                if !self.csr_access(op) && !self.atomic(op) && !self.zero_block(op) {
                    self.rare(op);
                }
            }
            _ => self.rare(op),
        }
    }

    /// An instruction that computes an integer register from others.
    fn integer(&mut self, op: DecodedOp) {
        use Op::*;
        match op.op {
            Lui => self.constant(op),
            Auipc => self.add_to_page(op),
            Addi => self.add_immediate(op),
            Addiw => self.add_immediate_word(op),
            Xori if op.immediate == -1 => {
                let is_word = self.registers.is_word(op.rs1);
                let target = self.target(op.rd);
                let a = self.source(op.rs1, target);
                self.copy(target, a);
                dynasm!(self.asm; .arch x64; not Rq(target));
                self.finish_as(op.rd, is_word);
            }
            Xori => with_immediate!(self, op, xor),
            Ori => with_immediate!(self, op, or),
            Andi => self.and_immediate(op),
            Slli => shift_immediate!(self, op, shl),
            Srli => shift_immediate!(self, op, shr),
            Srai => shift_immediate!(self, op, sar),
            Slliw => shift_word_immediate!(self, op, shl),
            // A word that was shifted to the right is not negative.
            Srliw if op.immediate & 31 != 0 => {
                let target = self.target(op.rd);
                let a = self.source(op.rs1, target);
                self.copy_word(target, a);
                dynasm!(self.asm; .arch x64; shr Rd(target), (op.immediate & 31) as i8);
                self.finish(op.rd);
            }
            Srliw => shift_word_immediate!(self, op, shr),
            Sraiw => shift_word_immediate!(self, op, sar),
            Add => self.add(op),
            Sub => two_operands!(self, op, sub, false),
            Xor => two_operands!(self, op, xor, true),
            Or => two_operands!(self, op, or, true),
            And => two_operands!(self, op, and, true),
            Mul => two_operands!(self, op, imul, true),
            Addw => self.add_words(op),
            Subw => two_words!(self, op, sub, false),
            Mulw => two_words!(self, op, imul, true),
            Sll => shift!(self, op, shlx),
            Srl => shift!(self, op, shrx),
            Sra => shift!(self, op, sarx),
            Sllw => shift_word!(self, op, shlx),
            Srlw => shift_word!(self, op, shrx),
            Sraw => shift_word!(self, op, sarx),
            Slt | Sltu | Slti | Sltiu => self.set_if_less(op),
            Mulh | Mulhu | Mulhsu => self.multiply_high(op),
            Div | Rem => self.divide(op),
            Divu | Remu => self.divide_unsigned(op),
            _ => self.divide_word(op),
        }
    }

    fn constant(&mut self, op: DecodedOp) {
        match self.registers.home(op.rd) {
            Some(target) if op.immediate == 0 => {
                dynasm!(self.asm; .arch x64; xor Rd(target), Rd(target));
            }
            Some(target) if op.immediate > 0 => {
                dynasm!(self.asm; .arch x64; mov Rd(target), op.immediate);
            }
            Some(target) => dynasm!(self.asm; .arch x64; mov Rq(target), op.immediate),
            None => dynasm!(self.asm; .arch x64; mov QWORD [BYTE rbp + x(op.rd)], op.immediate),
        }
        self.registers.wrote(op.rd, false);
    }

    fn add_to_page(&mut self, op: DecodedOp) {
        let target = self.target(op.rd);
        let offset = i32::from(op.offset);
        dynasm!(self.asm; .arch x64; mov Rq(target), [rbp + PAGE]);
        match op.immediate.checked_add(offset) {
            Some(sum) => dynasm!(self.asm; .arch x64; add Rq(target), sum),
            None => {
                dynasm!(self.asm; .arch x64; add Rq(target), op.immediate; add Rq(target), offset);
            }
        }
        self.finish(op.rd);
    }

    fn add_immediate_word(&mut self, op: DecodedOp) {
        let target = self.target(op.rd);
        let a = self.source(op.rs1, target);
        if op.immediate == 0 && a != target && !self.registers.is_word(op.rs1) {
            // As cheap as a copy.
            dynasm!(self.asm; .arch x64; movsxd Rq(target), Rd(a));
            return self.finish(op.rd);
        }
        if op.immediate == 0 {
            self.copy_word(target, a);
        } else if a == target {
            dynasm!(self.asm; .arch x64; add Rd(target), op.immediate);
        } else {
            dynasm!(self.asm; .arch x64; lea Rd(target), [Rq(a) + op.immediate]);
        }
        self.finish_word(op.rd);
    }

    fn add_words(&mut self, op: DecodedOp) {
        let target = self.target(op.rd);
        if let (Some(a), Some(b)) = (self.registers.home(op.rs1), self.registers.home(op.rs2))
            && target != a
            && target != b
        {
            dynasm!(self.asm; .arch x64; lea Rd(target), [Rq(a) + Rq(b)]);
            return self.finish_word(op.rd);
        }
        two_words!(self, op, add, true);
    }

    /// Copies the low half of one host register to another.
    fn copy_word(&mut self, to: HostRegister, from: HostRegister) {
        if to != from {
            dynasm!(self.asm; .arch x64; mov Rd(to), Rd(from));
        }
    }

    fn finish_as(&mut self, guest: u8, is_word: bool) {
        if is_word {
            self.finish_word(guest);
        } else {
            self.finish(guest);
        }
    }

    fn add_immediate(&mut self, op: DecodedOp) {
        if op.rs1 == 0 {
            return self.constant(op);
        }
        let target = self.target(op.rd);
        let a = self.source(op.rs1, target);
        if op.immediate == 0 {
            self.copy(target, a);
        } else if a == target {
            dynasm!(self.asm; .arch x64; add Rq(target), op.immediate);
        } else {
            dynasm!(self.asm; .arch x64; lea Rq(target), [Rq(a) + op.immediate]);
        }
        self.finish(op.rd);
    }

    fn and_immediate(&mut self, op: DecodedOp) {
        if op.immediate < 0 {
            with_immediate!(self, op, and);
            return;
        }
        let target = self.target(op.rd);
        let a = self.source(op.rs1, target);
        if op.immediate == 255 {
            dynasm!(self.asm; .arch x64; movzx Rd(target), Rb(a));
        } else {
            self.copy_word(target, a);
            dynasm!(self.asm; .arch x64; and Rd(target), op.immediate);
        }
        self.finish(op.rd);
    }

    fn add(&mut self, op: DecodedOp) {
        if op.rs1 == 0 || op.rs2 == 0 {
            let target = self.target(op.rd);
            let a = self.source(op.rs1 | op.rs2, target);
            self.copy(target, a);
            return self.finish(op.rd);
        }
        let target = self.target(op.rd);
        if let (Some(a), Some(b)) = (self.registers.home(op.rs1), self.registers.home(op.rs2))
            && target != a
            && target != b
        {
            dynasm!(self.asm; .arch x64; lea Rq(target), [Rq(a) + Rq(b)]);
            return self.finish(op.rd);
        }
        two_operands!(self, op, add, true);
    }

    fn set_if_less(&mut self, op: DecodedOp) {
        match op.op {
            Op::Slt | Op::Sltu => self.compare(op.rs1, op.rs2),
            _ => {
                let a = self.source(op.rs1, RAX);
                if self.registers.is_word(op.rs1) {
                    dynasm!(self.asm; .arch x64; cmp Rd(a), op.immediate);
                } else {
                    dynasm!(self.asm; .arch x64; cmp Rq(a), op.immediate);
                }
            }
        }
        match op.op {
            Op::Slt | Op::Slti => dynasm!(self.asm; .arch x64; setl al),
            _ => dynasm!(self.asm; .arch x64; setb al),
        }
        let target = self.target(op.rd);
        dynasm!(self.asm; .arch x64; movzx Rd(target), al);
        self.finish(op.rd);
    }

    fn multiply_high(&mut self, op: DecodedOp) {
        let b = self.source(op.rs2, RCX);
        let a = self.source(op.rs1, RAX);
        self.copy(RAX, a);
        match op.op {
            Op::Mulh => dynasm!(self.asm; .arch x64; imul Rq(b)),
            _ => dynasm!(self.asm; .arch x64; mul Rq(b)),
        }
        if op.op == Op::Mulhsu {
            // A negative first operand was taken as 2^64 more.
            let a = self.source(op.rs1, RAX);
            self.copy(RAX, a);
            dynasm!(self.asm; .arch x64; sar rax, 63; and rax, Rq(b); sub rdx, rax);
        }
        let target = self.target(op.rd);
        self.copy(target, RDX);
        self.finish(op.rd);
    }

    fn divide(&mut self, op: DecodedOp) {
        let (zero, minus_one, done) = (
            self.asm.new_dynamic_label(),
            self.asm.new_dynamic_label(),
            self.asm.new_dynamic_label(),
        );
        let is_quotient = op.op == Op::Div;
        self.operands(op);
        dynasm!(self.asm; .arch x64
            ; test rcx, rcx
            ; jz =>zero
            ; cmp rcx, -1
            ; je =>minus_one
            ; cqo
            ; idiv rcx
        );
        if !is_quotient {
            dynasm!(self.asm; .arch x64; mov rax, rdx);
        }
        dynasm!(self.asm; .arch x64; jmp =>done; =>minus_one);
        if is_quotient {
            dynasm!(self.asm; .arch x64; neg rax; jmp =>done; =>zero; mov rax, -1);
        } else {
            dynasm!(self.asm; .arch x64; xor eax, eax; =>zero);
        }
        dynasm!(self.asm; .arch x64; =>done);
        self.finish_rax(op.rd);
    }

    fn divide_unsigned(&mut self, op: DecodedOp) {
        let (zero, done) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        self.operands(op);
        dynasm!(self.asm; .arch x64; test rcx, rcx; jz =>zero; xor edx, edx; div rcx);
        if op.op == Op::Divu {
            dynasm!(self.asm; .arch x64; jmp =>done; =>zero; mov rax, -1; =>done);
        } else {
            dynasm!(self.asm; .arch x64; mov rax, rdx; =>zero; =>done);
        }
        self.finish_rax(op.rd);
    }

    fn divide_word(&mut self, op: DecodedOp) {
        let (zero, minus_one, done) = (
            self.asm.new_dynamic_label(),
            self.asm.new_dynamic_label(),
            self.asm.new_dynamic_label(),
        );
        let is_signed = matches!(op.op, Op::Divw | Op::Remw);
        let is_quotient = matches!(op.op, Op::Divw | Op::Divuw);
        self.operands(op);
        dynasm!(self.asm; .arch x64; test ecx, ecx; jz =>zero);
        if is_signed {
            dynasm!(self.asm; .arch x64; cmp ecx, -1; je =>minus_one; cdq; idiv ecx);
        } else {
            dynasm!(self.asm; .arch x64; xor edx, edx; div ecx);
        }
        if !is_quotient {
            dynasm!(self.asm; .arch x64; mov eax, edx);
        }
        dynasm!(self.asm; .arch x64; jmp =>done; =>minus_one);
        if is_quotient {
            dynasm!(self.asm; .arch x64; neg eax; jmp =>done; =>zero; mov eax, -1);
        } else {
            dynasm!(self.asm; .arch x64; xor eax, eax; =>zero);
        }
        dynasm!(self.asm; .arch x64; =>done; movsxd rax, eax);
        self.finish_rax(op.rd);
    }

    /// The first operand goes to `rax`, the second to `rcx`.
    fn operands(&mut self, op: DecodedOp) {
        let a = self.source(op.rs1, RAX);
        self.copy(RAX, a);
        let b = self.source(op.rs2, RCX);
        self.copy(RCX, b);
    }

    pub(super) fn finish_rax(&mut self, rd: u8) {
        let target = self.target(rd);
        self.copy(target, RAX);
        self.finish(rd);
    }
}

/// Whether an instruction is one for the interpreter.
pub fn is_rare(op: Op) -> bool {
    use Op::*;
    !is_integer(op)
        && !is_emitted_float(op)
        && log_size(op).is_none()
        && !matches!(op, Jal | Jalr | Beq | Bne | Blt | Bge | Bltu | Bgeu | Fence)
}

/// Whether an instruction computes an integer register from integer registers.
fn is_integer(op: Op) -> bool {
    use Op::*;
    if let Some(Extension::BitManipulation | Extension::Zbc | Extension::Zicond) = op.extension() {
        return true;
    }
    matches!(
        op,
        Lui | Auipc
            | Addi
            | Slti
            | Sltiu
            | Xori
            | Ori
            | Andi
            | Slli
            | Srli
            | Srai
            | Addiw
            | Slliw
            | Srliw
            | Sraiw
            | Add
            | Sub
            | Sll
            | Slt
            | Sltu
            | Xor
            | Srl
            | Sra
            | Or
            | And
            | Addw
            | Subw
            | Sllw
            | Srlw
            | Sraw
            | Mul
            | Mulh
            | Mulhsu
            | Mulhu
            | Div
            | Divu
            | Rem
            | Remu
            | Mulw
            | Divw
            | Divuw
            | Remw
            | Remuw
    )
}
