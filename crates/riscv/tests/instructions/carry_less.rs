//! Zbc (unprivileged specification, 30.2.5) and Zicond (12).

use crate::assembler::register::*;
use crate::guest::{Guest, Mode, guests};
use crate::operands::register_table;
use riscv::isa::{self, Extension, Op};

/// The coefficient of `x^n` of the product of two polynomials over GF(2).
fn coefficient(a: u64, b: u64, n: u64) -> u64 {
    let bit = |value: u64, index: u64| value >> index & 1;
    (0..64)
        .filter(|i| (0..64).contains(&(n.wrapping_sub(*i))))
        .fold(0, |sum, i| sum ^ bit(a, i) & bit(b, n - i))
}

/// 64 coefficients of the product, from that of `x^first` on.
fn product(a: u64, b: u64, first: u64) -> u64 {
    (0..64).fold(0, |value, i| value | coefficient(a, b, first + i) << i)
}

fn result(op: Op, a: u64, b: u64) -> u64 {
    match op {
        Op::Clmul => product(a, b, 0),
        Op::Clmulr => product(a, b, 63),
        Op::Clmulh => product(a, b, 64),
        Op::CzeroEqz if b != 0 => a,
        Op::CzeroNez if b == 0 => a,
        Op::CzeroEqz | Op::CzeroNez => 0,
        _ => unreachable!("{op:?} is in no table"),
    }
}

guests! {
    fn products_of_polynomials(guest) {
        register_table(guest, &[Op::Clmul, Op::Clmulh, Op::Clmulr], result);
        // A product that is known from elsewhere: of x^63 + 1 and x^63 + x.
        guest.asm.li(A0, 1 << 63 | 1);
        guest.asm.li(A1, 1 << 63 | 2);
        guest.asm.r(Op::Clmul, A2, A0, A1);
        guest.check(A2, 1 << 63 | 2, "x^63 + x");
        guest.asm.r(Op::Clmulh, A2, A0, A1);
        guest.check(A2, 1 << 62 | 1, "x^126 + x^64");
        guest.asm.r(Op::Clmulr, A2, A0, A1);
        guest.check(A2, 1 << 63 | 3, "x^126 + x^64 + x^63");
    }

    fn zero_or_the_operand_by_a_condition(guest) {
        register_table(guest, &[Op::CzeroEqz, Op::CzeroNez], result);
    }

    fn they_are_illegal_on_a_board_without_them(guest) {
        guest.without(Extension::Zbc);
        guest.without(Extension::Zicond);
        guest.also_restored_every(300);
        guest.asm.li(A0, 7);
        let rows = isa::encodings().filter(|row| {
            matches!(row.op.extension(), Some(Extension::Zbc | Extension::Zicond))
        });
        for row in rows {
            let word = row.bits | u32::from(A0) << 7 | u32::from(A0) << 15;
            for mode in [Mode::User, Mode::Supervisor, Mode::Machine] {
                let what = format!("{} in {mode:?}", row.name);
                guest.instruction_traps(mode, 2, u64::from(word), &what, |asm| asm.word(word));
            }
            guest.check(A0, 7, format!("the destination of {}", row.name));
        }
    }
}
