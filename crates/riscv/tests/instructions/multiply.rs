//! M: multiplication and division (unprivileged specification, 13).

use crate::guest::{Guest, guests};
use crate::operands::{register_table, signed, signed_word, wrap, wrap_word};
use riscv::isa::Op;

/// Table 13.1 of the specification, and what precedes it, in unbounded numbers.
fn result(op: Op, a: u64, b: u64) -> u64 {
    let (ua, ub) = (u128::from(a), u128::from(b));
    let (wa, wb) = (signed_word(a), signed_word(b));
    let (uwa, uwb) = (i128::from(a as u32), i128::from(b as u32));
    match op {
        Op::Mul => (ua * ub) as u64,
        Op::Mulh => wrap((signed(a) * signed(b)).div_euclid(1 << 64)),
        Op::Mulhu => (ua * ub / (1 << 64)) as u64,
        // a * b = (a mod 2^64) * b, less 2^64 * b for a negative a
        Op::Mulhsu => {
            ((ua * ub / (1 << 64)) as u64).wrapping_sub(if signed(a) < 0 { b } else { 0 })
        }
        Op::Div if b == 0 => u64::MAX,
        Op::Div => wrap(signed(a) / signed(b)),
        Op::Divu if b == 0 => u64::MAX,
        Op::Divu => (ua / ub) as u64,
        Op::Rem if b == 0 => a,
        Op::Rem => wrap(signed(a) % signed(b)),
        Op::Remu if b == 0 => a,
        Op::Remu => (ua % ub) as u64,
        Op::Mulw => wrap_word(wa * wb),
        Op::Divw if wb == 0 => u64::MAX,
        Op::Divw => wrap_word(wa / wb),
        Op::Divuw if uwb == 0 => u64::MAX,
        Op::Divuw => wrap_word(uwa / uwb),
        Op::Remw if wb == 0 => wrap_word(wa),
        Op::Remw => wrap_word(wa % wb),
        Op::Remuw if uwb == 0 => wrap_word(uwa),
        Op::Remuw => wrap_word(uwa % uwb),
        _ => unreachable!("{op:?} is in no table"),
    }
}

guests! {
    fn products_and_their_upper_halves(guest) {
        register_table(guest, &[Op::Mul, Op::Mulh, Op::Mulhsu, Op::Mulhu, Op::Mulw], result);
    }

    fn quotients_with_division_by_zero_and_overflow(guest) {
        register_table(guest, &[Op::Div, Op::Divu, Op::Divw, Op::Divuw], result);
    }

    fn remainders_with_division_by_zero_and_overflow(guest) {
        register_table(guest, &[Op::Rem, Op::Remu, Op::Remw, Op::Remuw], result);
    }
}
