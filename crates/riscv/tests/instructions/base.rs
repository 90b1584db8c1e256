//! RV64I: integer computation (unprivileged specification, 2.4 and 4.2).

use crate::assembler::register::*;
use crate::guest::{Guest, guests};
use crate::operands::{immediate_table, register_table, signed, signed_word, wrap, wrap_word};
use riscv::isa::Op;

/// What the specification says of the register-register instructions, in unbounded numbers.
fn register_result(op: Op, a: u64, b: u64) -> u64 {
    let power = |shift: u64| 1i128 << shift;
    let (shift, word_shift) = (b % 64, b % 32);
    match op {
        Op::Add => wrap(signed(a) + signed(b)),
        Op::Sub => wrap(signed(a) - signed(b)),
        Op::Sll => (u128::from(a) * (1u128 << shift)) as u64,
        Op::Slt => u64::from(signed(a) < signed(b)),
        Op::Sltu => u64::from(i128::from(a) < i128::from(b)),
        Op::Xor => (a | b) - (a & b),
        Op::Or => !(!a & !b),
        Op::And => !(!a | !b),
        Op::Srl => (u128::from(a) / (1u128 << shift)) as u64,
        Op::Sra => wrap(signed(a).div_euclid(power(shift))),
        Op::Addw => wrap_word(signed(a) + signed(b)),
        Op::Subw => wrap_word(signed(a) - signed(b)),
        Op::Sllw => wrap_word(signed_word(a) * power(word_shift)),
        Op::Srlw => wrap_word(i128::from(a & 0xffff_ffff) / power(word_shift)),
        Op::Sraw => wrap_word(signed_word(a).div_euclid(power(word_shift))),
        _ => unreachable!("{op:?} is in no table"),
    }
}

/// The register-immediate instructions do what their register forms do with the sign-extended
/// immediate.
fn immediate_result(op: Op, a: u64, immediate: i32) -> u64 {
    let register_form = match op {
        Op::Addi => Op::Add,
        Op::Slti => Op::Slt,
        Op::Sltiu => Op::Sltu,
        Op::Xori => Op::Xor,
        Op::Ori => Op::Or,
        Op::Andi => Op::And,
        Op::Slli => Op::Sll,
        Op::Srli => Op::Srl,
        Op::Srai => Op::Sra,
        Op::Addiw => Op::Addw,
        Op::Slliw => Op::Sllw,
        Op::Srliw => Op::Srlw,
        Op::Sraiw => Op::Sraw,
        _ => unreachable!("{op:?} is in no table"),
    };
    register_result(register_form, a, wrap(i128::from(immediate)))
}

const IMMEDIATES: &[i32] = &[0, 1, -1, 2047, -2048, 0x555, -0x556, 31, 32, 63];

guests! {
    fn arithmetic_and_logic_of_registers(guest) {
        let ops = [Op::Add, Op::Sub, Op::Slt, Op::Sltu, Op::Xor, Op::Or, Op::And];
        register_table(guest, &ops, register_result);
    }

    fn shifts_use_the_low_bits_of_rs2(guest) {
        register_table(guest, &[Op::Sll, Op::Srl, Op::Sra], register_result);
        register_table(guest, &[Op::Sllw, Op::Srlw, Op::Sraw], register_result);
    }

    fn words_ignore_the_upper_half_and_sign_extend(guest) {
        register_table(guest, &[Op::Addw, Op::Subw], register_result);
        immediate_table(guest, &[Op::Addiw], IMMEDIATES, immediate_result);
    }

    fn immediates_are_sign_extended(guest) {
        let ops = [Op::Addi, Op::Slti, Op::Sltiu, Op::Xori, Op::Ori, Op::Andi];
        immediate_table(guest, &ops, IMMEDIATES, immediate_result);
    }

    fn shifts_by_an_immediate(guest) {
        let ops = [Op::Slli, Op::Srli, Op::Srai];
        immediate_table(guest, &ops, &[0, 1, 31, 32, 63], immediate_result);
        let ops = [Op::Slliw, Op::Srliw, Op::Sraiw];
        immediate_table(guest, &ops, &[0, 1, 16, 31], immediate_result);
    }

    fn lui_sign_extends_and_auipc_adds_to_its_own_address(guest) {
        guest.tests(Op::Lui);
        guest.tests(Op::Auipc);
        for (immediate, value) in [
            (0, 0),
            (0x1000, 0x1000),
            (0x7fff_f000, 0x7fff_f000),
            (i32::MIN, 0xffff_ffff_8000_0000),
            (-0x1000, 0xffff_ffff_ffff_f000),
        ] {
            guest.asm.op(Op::Lui, A0, 0, 0, immediate);
            guest.check(A0, value, format!("lui {immediate:#x}"));
            guest.asm.op(Op::Lui, ZERO, 0, 0, immediate);
            guest.check(ZERO, 0, "lui to x0");
            let pc = guest.asm.here();
            guest.asm.op(Op::Auipc, A1, 0, 0, immediate);
            guest.check(A1, pc.wrapping_add(value), format!("auipc {immediate:#x} at {pc:#x}"));
        }
    }

    fn auipc_is_relative_to_its_page_whatever_its_place_in_it(guest) {
        guest.tests(Op::Auipc);
        for end in [0x1000, 0xffc, 0xff8] {
            guest.asm.align(4096);
            let page = guest.asm.here();
            let (target, code) = (guest.asm.label(), guest.asm.label());
            guest.asm.jal(ZERO, target);
            guest.asm.bind(code);
            guest.asm.skip_to(page + end - 4);
            guest.asm.bind(target);
            let pc = guest.asm.here();
            guest.asm.op(Op::Auipc, A0, 0, 0, 0x3000);
            guest.asm.op(Op::Auipc, A1, 0, 0, 0);
            guest.check(A0, pc + 0x3000, "the last of a page");
            guest.check(A1, pc + 4, "the one behind it");
        }
    }

    fn fence_changes_nothing(guest) {
        guest.tests(Op::Fence);
        guest.asm.li(A0, 5);
        // fence iorw, iorw; fence.tso; pause; reserved modes and registers are plain fences
        for (rd, rs1, immediate) in [(0, 0, 0xff), (0, 0, 0x833), (0, 0, 0x010), (A0, A0, 0xfff)] {
            guest.asm.op(Op::Fence, rd, rs1, 0, immediate);
        }
        guest.check(A0, 5, "the register that a reserved fence names");
    }
}
