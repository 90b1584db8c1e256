//! Zba, Zbb and Zbs (unprivileged specification, 30).

use crate::assembler::{Label, register::*};
use crate::guest::{Guest, Mode, guests};
use crate::operands::{immediate_table, register_table, signed, wrap, wrap_word};
use riscv::isa::{self, Extension, Op};

fn bit(value: u64, index: u64) -> u64 {
    (u128::from(value) / (1u128 << index) % 2) as u64
}

/// The number whose bit `i` is `of(i)`.
fn bits(of: impl Fn(u64) -> u64) -> u64 {
    (0..64).map(|i| of(i) << i).sum()
}

/// The number whose byte `i` is `of` byte `i`.
fn bytes(of: impl Fn(usize) -> u8) -> u64 {
    u64::from_le_bytes(std::array::from_fn(of))
}

/// The low `width` bits of `value`, `places` to the left within them.
fn rotated_left(value: u64, width: u64, places: u64) -> u64 {
    (0..width)
        .map(|i| bit(value, i) << ((i + places) % width))
        .sum()
}

/// `value` with its bit `index` replaced.
fn with_bit(value: u64, index: u64, new: u64) -> u64 {
    bits(|i| if i == index { new } else { bit(value, i) })
}

/// What the specification says of the register-register instructions, bit by bit or in unbounded
/// numbers.
fn register_result(op: Op, a: u64, b: u64) -> u64 {
    let low = i128::from(a % (1 << 32));
    let word = |value: u64| wrap_word(value.into());
    match op {
        Op::AddUw => wrap(low + signed(b)),
        Op::Sh1add => wrap(signed(a) * 2 + signed(b)),
        Op::Sh2add => wrap(signed(a) * 4 + signed(b)),
        Op::Sh3add => wrap(signed(a) * 8 + signed(b)),
        Op::Sh1addUw => wrap(low * 2 + signed(b)),
        Op::Sh2addUw => wrap(low * 4 + signed(b)),
        Op::Sh3addUw => wrap(low * 8 + signed(b)),
        Op::Andn => bits(|i| u64::from(bit(a, i) == 1 && bit(b, i) == 0)),
        Op::Orn => bits(|i| u64::from(bit(a, i) == 1 || bit(b, i) == 0)),
        Op::Xnor => bits(|i| u64::from(bit(a, i) == bit(b, i))),
        Op::Max if signed(a) < signed(b) => b,
        Op::Min if signed(a) > signed(b) => b,
        Op::Maxu if i128::from(a) < i128::from(b) => b,
        Op::Minu if i128::from(a) > i128::from(b) => b,
        Op::Max | Op::Min | Op::Maxu | Op::Minu => a,
        Op::Rol => rotated_left(a, 64, b % 64),
        Op::Ror => rotated_left(a, 64, 64 - b % 64),
        Op::Rolw => word(rotated_left(a, 32, b % 32)),
        Op::Rorw => word(rotated_left(a, 32, 32 - b % 32)),
        Op::Bclr => with_bit(a, b % 64, 0),
        Op::Bext => bit(a, b % 64),
        Op::Binv => with_bit(a, b % 64, 1 - bit(a, b % 64)),
        Op::Bset => with_bit(a, b % 64, 1),
        _ => unreachable!("{op:?} is in no table"),
    }
}

/// The immediate is unsigned; the instructions do what their register forms do with it.
fn immediate_result(op: Op, a: u64, immediate: i32) -> u64 {
    let register_form = match op {
        Op::SlliUw => return wrap(i128::from(a % (1 << 32)) << immediate),
        Op::Rori => Op::Ror,
        Op::Roriw => Op::Rorw,
        Op::Bclri => Op::Bclr,
        Op::Bexti => Op::Bext,
        Op::Binvi => Op::Binv,
        Op::Bseti => Op::Bset,
        _ => unreachable!("{op:?} is in no table"),
    };
    register_result(register_form, a, immediate as u64)
}

/// Instructions of one operand.
fn unary_result(op: Op, a: u64, _: i32) -> u64 {
    let byte = |index: usize| a.to_le_bytes()[index];
    let ones = |width: u64| (0..width).filter(|&i| bit(a, i) == 1);
    let leading = |width: u64| ones(width).max().map_or(width, |top| width - 1 - top);
    let trailing = |width: u64| ones(width).min().unwrap_or(width);
    match op {
        Op::Clz => leading(64),
        Op::Clzw => leading(32),
        Op::Ctz => trailing(64),
        Op::Ctzw => trailing(32),
        Op::Cpop => ones(64).count() as u64,
        Op::Cpopw => ones(32).count() as u64,
        Op::SextB => bits(|i| bit(a, i.min(7))),
        Op::SextH => bits(|i| bit(a, i.min(15))),
        Op::ZextH => a % (1 << 16),
        Op::OrcB => bytes(|i| if byte(i) == 0 { 0 } else { 0xff }),
        Op::Rev8 => bytes(|i| byte(7 - i)),
        _ => unreachable!("{op:?} is in no table"),
    }
}

const PLACES: &[i32] = &[0, 1, 7, 31, 32, 33, 63];

/// `andn` at the end of a page, half of it in the next one: no block of the interpreter holds it.
fn across_a_page(guest: &mut Guest) -> Label {
    let pc = guest.asm.label();
    guest.asm.jal(ZERO, pc);
    guest.asm.align(4096);
    let page = guest.asm.here();
    guest.asm.skip_to(page + 4094);
    guest.asm.bind(pc);
    guest.asm.r(Op::Andn, A0, A1, A2);
    pc
}

guests! {
    fn address_generation_zero_extends_before_it_shifts(guest) {
        let ops = [
            Op::AddUw, Op::Sh1add, Op::Sh2add, Op::Sh3add, Op::Sh1addUw, Op::Sh2addUw, Op::Sh3addUw,
        ];
        register_table(guest, &ops, register_result);
        immediate_table(guest, &[Op::SlliUw], PLACES, immediate_result);
    }

    fn logic_with_an_inverted_operand(guest) {
        register_table(guest, &[Op::Andn, Op::Orn, Op::Xnor], register_result);
    }

    fn minimum_and_maximum_signed_and_unsigned(guest) {
        register_table(guest, &[Op::Max, Op::Maxu, Op::Min, Op::Minu], register_result);
    }

    fn counts_of_zero_are_the_width(guest) {
        let ops = [Op::Clz, Op::Ctz, Op::Cpop, Op::Clzw, Op::Ctzw, Op::Cpopw];
        immediate_table(guest, &ops, &[0], unary_result);
    }

    fn extensions_of_bytes_and_halves(guest) {
        immediate_table(guest, &[Op::SextB, Op::SextH, Op::ZextH], &[0], unary_result);
    }

    fn rotations_take_the_low_bits_of_rs2(guest) {
        register_table(guest, &[Op::Rol, Op::Ror, Op::Rolw, Op::Rorw], register_result);
        immediate_table(guest, &[Op::Rori], PLACES, immediate_result);
        immediate_table(guest, &[Op::Roriw], &[0, 1, 7, 16, 31], immediate_result);
    }

    fn bytes_are_combined_and_reversed(guest) {
        immediate_table(guest, &[Op::OrcB, Op::Rev8], &[0], unary_result);
        for (value, combined, reversed) in [
            (0x0001_8000_ff7f_1000u64, 0x00ff_ff00_ffff_ff00u64, 0x0010_7fff_0080_0100u64),
            (0x0100_0000_0000_0080, 0xff00_0000_0000_00ff, 0x8000_0000_0000_0001),
            (0x0080_4020_1008_0402, 0x00ff_ffff_ffff_ffff, 0x0204_0810_2040_8000),
        ] {
            guest.asm.li(A0, value);
            guest.asm.i(Op::OrcB, A1, A0, 0);
            guest.check(A1, combined, format!("orc.b of {value:#x}"));
            guest.asm.i(Op::Rev8, A1, A0, 0);
            guest.check(A1, reversed, format!("rev8 of {value:#x}"));
        }
    }

    fn single_bits_by_the_low_bits_of_rs2(guest) {
        register_table(guest, &[Op::Bclr, Op::Bext, Op::Binv, Op::Bset], register_result);
        let ops = [Op::Bclri, Op::Bexti, Op::Binvi, Op::Bseti];
        immediate_table(guest, &ops, PLACES, immediate_result);
    }

    fn an_instruction_across_two_pages(guest) {
        guest.asm.li(A1, 0b1100);
        guest.asm.li(A2, 0b1010);
        across_a_page(guest);
        guest.check(A0, 0b0100, "andn across two pages");
    }

    fn all_are_illegal_on_a_board_without_them(guest) {
        guest.without(Extension::BitManipulation);
        guest.also_restored_every(300);
        guest.asm.li(A0, 7);
        for row in isa::encodings().filter(|row| row.op.extension() == Some(Extension::BitManipulation)) {
            let word = row.bits | u32::from(A0) << 7 | u32::from(A0) << 15;
            for mode in [Mode::User, Mode::Supervisor, Mode::Machine] {
                let what = format!("{} in {mode:?}", row.name);
                guest.instruction_traps(mode, 2, u64::from(word), &what, |asm| asm.word(word));
            }
            guest.check(A0, 7, format!("the destination of {}", row.name));
        }
        let word = 0x40c5_f533; // andn a0, a1, a2
        guest.traps(Mode::Machine, 2, word, "across two pages", across_a_page);
    }
}

/// 43 instructions: what the names of the specification's list for RV64 say.
#[test]
fn the_table_holds_all_of_them() {
    let rows =
        isa::encodings().filter(|row| row.op.extension() == Some(Extension::BitManipulation));
    let names: Vec<_> = rows.map(|row| row.name).collect();
    let zba = "add.uw sh1add sh2add sh3add sh1add.uw sh2add.uw sh3add.uw slli.uw";
    let zbb = "andn orn xnor clz ctz cpop clzw ctzw cpopw max maxu min minu sext.b sext.h zext.h \
               rol ror rori rolw rorw roriw orc.b rev8";
    let zbs = "bclr bext binv bset bclri bexti binvi bseti";
    let expected: Vec<_> = [zba, zbb, zbs]
        .iter()
        .flat_map(|list| list.split(' '))
        .collect();
    assert_eq!(names, expected);
}
