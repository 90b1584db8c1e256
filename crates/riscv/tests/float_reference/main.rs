//! The machine's floating point against APFloat: every pair and triple of corner values, and a
//! seeded stream, in every rounding mode, with and without inexact raised beforehand (which decides
//! whether the host's arithmetic takes part).

mod corners;
mod oracle;

use riscv::float::{self, Flags, RoundingMode};
use rustc_apfloat::Float;
use rustc_apfloat::ieee::{Double, Single};

use corners::{DOUBLE, Layout, SINGLE, Stream};
use oracle::{Expected, Reference};

const RANDOM_OPERANDS: usize = 100_000;

/// Runs `operation` with and without inexact raised and compares both with `expected`.
fn check(
    name: &str,
    operands: &[u64],
    rm: RoundingMode,
    expected: Expected,
    operation: impl Fn(&mut Flags) -> u64,
) {
    for raised in [Flags::NONE, Flags::INEXACT] {
        let mut flags = raised;
        let result = operation(&mut flags);
        assert_eq!(
            (result, flags),
            (expected.0, expected.1 | raised),
            "{name} {operands:x?} {rm:?} from {raised:?}: {result:x} for {:x}",
            expected.0
        );
    }
}

/// All triples of corners, then random ones, in all rounding modes.
fn for_each_triple(layout: Layout, mut visit: impl FnMut([u64; 3], RoundingMode)) {
    let corners = layout.corners();
    for &a in &corners {
        for &b in &corners {
            for &c in &corners {
                RoundingMode::ALL
                    .iter()
                    .for_each(|&rm| visit([a, b, c], rm));
            }
        }
    }
    for_each_random_triple(layout, visit);
}

fn for_each_random_triple(layout: Layout, mut visit: impl FnMut([u64; 3], RoundingMode)) {
    let mut stream = Stream(u64::from(layout.fraction_bits));
    for _ in 0..RANDOM_OPERANDS {
        let a = stream.operand(layout, layout.infinity() / 2);
        let b = stream.operand(layout, a);
        let neighbour = if stream.next() & 1 == 0 { a } else { b };
        let c = stream.operand(layout, neighbour);
        RoundingMode::ALL
            .iter()
            .for_each(|&rm| visit([a, b, c], rm));
    }
}

fn for_each_pair(layout: Layout, mut visit: impl FnMut([u64; 2], RoundingMode)) {
    let corners = layout.corners();
    for &a in &corners {
        for &b in &corners {
            RoundingMode::ALL.iter().for_each(|&rm| visit([a, b], rm));
        }
    }
    for_each_random_triple(layout, |[a, b, _], rm| visit([a, b], rm));
}

#[test]
fn single_arithmetic_equals_apfloat() {
    for_each_pair(SINGLE, |operands @ [a, b], rm| {
        let (x, y) = (a as u32, b as u32);
        let check = |name, expected, operation: &dyn Fn(&mut Flags) -> u32| {
            check(name, &operands, rm, expected, |flags| {
                operation(flags).into()
            });
        };
        check("add", oracle::add::<Single>(a, b, rm), &|f| {
            float::add_f32(x, y, rm, f)
        });
        check("sub", oracle::sub::<Single>(a, b, rm), &|f| {
            float::sub_f32(x, y, rm, f)
        });
        check("mul", oracle::mul::<Single>(a, b, rm), &|f| {
            float::mul_f32(x, y, rm, f)
        });
        check("div", oracle::div::<Single>(a, b, rm), &|f| {
            float::div_f32(x, y, rm, f)
        });
    });
}

#[test]
fn double_arithmetic_equals_apfloat() {
    for_each_pair(DOUBLE, |operands @ [a, b], rm| {
        let check = |name, expected, operation: &dyn Fn(&mut Flags) -> u64| {
            check(name, &operands, rm, expected, operation);
        };
        check("add", oracle::add::<Double>(a, b, rm), &|f| {
            float::add_f64(a, b, rm, f)
        });
        check("sub", oracle::sub::<Double>(a, b, rm), &|f| {
            float::sub_f64(a, b, rm, f)
        });
        check("mul", oracle::mul::<Double>(a, b, rm), &|f| {
            float::mul_f64(a, b, rm, f)
        });
        check("div", oracle::div::<Double>(a, b, rm), &|f| {
            float::div_f64(a, b, rm, f)
        });
    });
}

#[test]
fn single_fused_multiply_add_equals_apfloat() {
    for_each_triple(SINGLE, |operands @ [a, b, c], rm| {
        check(
            "fma",
            &operands,
            rm,
            oracle::fma::<Single>(a, b, c, rm),
            |flags| float::fma_f32(a as u32, b as u32, c as u32, rm, flags).into(),
        );
    });
}

#[test]
fn double_fused_multiply_add_equals_apfloat() {
    for_each_triple(DOUBLE, |operands @ [a, b, c], rm| {
        check(
            "fma",
            &operands,
            rm,
            oracle::fma::<Double>(a, b, c, rm),
            |flags| float::fma_f64(a, b, c, rm, flags),
        );
    });
}

/// The operands of operations with one: corners, borders of integers, random ones.
fn single_operands(layout: Layout, random: usize) -> Vec<u64> {
    let mut stream = Stream(1);
    let mut operands = layout.corners();
    operands.extend(layout.integer_borders());
    operands.extend((0..random).map(|_| stream.operand(layout, layout.infinity() / 2)));
    operands
}

#[test]
fn square_root_equals_its_definition() {
    for a in single_operands(SINGLE, 2_000) {
        for rm in RoundingMode::ALL {
            check("sqrt", &[a], rm, oracle::sqrt::<Single>(a, rm), |flags| {
                float::sqrt_f32(a as u32, rm, flags).into()
            });
        }
    }
    for a in single_operands(DOUBLE, 2_000) {
        for rm in RoundingMode::ALL {
            check("sqrt", &[a], rm, oracle::sqrt::<Double>(a, rm), |flags| {
                float::sqrt_f64(a, rm, flags)
            });
        }
    }
}

#[test]
fn conversions_between_the_formats_equal_apfloat() {
    let mut doubles = single_operands(DOUBLE, RANDOM_OPERANDS);
    // Around every class border of the narrower format, and halfway between its numbers.
    for single in SINGLE.corners().iter().chain(&SINGLE.integer_borders()) {
        let wide = f64::from(f32::from_bits(*single as u32)).to_bits();
        let last_place = 1 << (DOUBLE.fraction_bits - SINGLE.fraction_bits);
        for offset in [0, 1, last_place / 2 - 1, last_place / 2, last_place / 2 + 1] {
            doubles.extend([wide.wrapping_add(offset), wide.wrapping_sub(offset)]);
        }
    }
    for a in doubles {
        for rm in RoundingMode::ALL {
            check("narrow", &[a], rm, oracle::narrow(a, rm), |flags| {
                float::f64_to_f32(a, rm, flags).into()
            });
        }
    }
    for a in single_operands(SINGLE, RANDOM_OPERANDS) {
        let rm = RoundingMode::NearestEven;
        check("widen", &[a], rm, oracle::widen(a), |flags| {
            float::f32_to_f64(a as u32, flags)
        });
    }
}

/// Checks one conversion to an integer type and the one back.
macro_rules! check_integer_type {
    ($reference:ident, $bits:ident, $integer:ident, $to:ident, $from:ident) => {
        for a in single_operands($reference::LAYOUT, RANDOM_OPERANDS) {
            for rm in RoundingMode::ALL {
                let (min, max) = ($integer::MIN.into(), $integer::MAX.into());
                let (integer, flags) = oracle::to_integer::<$reference>(a, min, max, rm);
                check(
                    stringify!($to),
                    &[a],
                    rm,
                    (integer as u64, flags),
                    |flags| i128::from(float::$to(a as $bits, rm, flags)) as u64,
                );
            }
        }
        let mut stream = Stream(2);
        let mut integers: Vec<$integer> = vec![0, 1, $integer::MIN, $integer::MAX];
        for shift in 0..$integer::BITS {
            let power = (1 as $integer) << shift;
            integers.extend([
                power,
                power.wrapping_sub(1),
                power.wrapping_add(1),
                power.wrapping_neg(),
            ]);
            integers.extend((0..200).map(|_| (stream.next() as $integer) >> shift));
        }
        for integer in integers {
            for rm in RoundingMode::ALL {
                let expected = oracle::from_integer::<$reference>(integer.into(), rm);
                check(
                    stringify!($from),
                    &[integer as u64],
                    rm,
                    expected,
                    |flags| float::$from(integer, rm, flags).into(),
                );
            }
        }
    };
}

#[test]
fn conversions_to_and_from_integers_equal_apfloat() {
    check_integer_type!(Single, u32, i32, f32_to_i32, i32_to_f32);
    check_integer_type!(Single, u32, u32, f32_to_u32, u32_to_f32);
    check_integer_type!(Single, u32, i64, f32_to_i64, i64_to_f32);
    check_integer_type!(Single, u32, u64, f32_to_u64, u64_to_f32);
    check_integer_type!(Double, u64, i32, f64_to_i32, i32_to_f64);
    check_integer_type!(Double, u64, u32, f64_to_u32, u32_to_f64);
    check_integer_type!(Double, u64, i64, f64_to_i64, i64_to_f64);
    check_integer_type!(Double, u64, u64, f64_to_u64, u64_to_f64);
}

#[test]
fn comparisons_equal_apfloat() {
    let raised_by = |nan: bool| if nan { Flags::INVALID } else { Flags::NONE };
    for_each_pair(SINGLE, |operands @ [a, b], rm| {
        let (x, y): (Single, Single) = (oracle::number(a), oracle::number(b));
        let quiet = raised_by(x.is_signaling() || y.is_signaling());
        let signaling = raised_by(x.is_nan() || y.is_nan());
        let (a, b) = (a as u32, b as u32);
        check("eq", &operands, rm, ((x == y).into(), quiet), |f| {
            float::eq_f32(a, b, f).into()
        });
        check("lt", &operands, rm, ((x < y).into(), signaling), |f| {
            float::lt_f32(a, b, f).into()
        });
        check("le", &operands, rm, ((x <= y).into(), signaling), |f| {
            float::le_f32(a, b, f).into()
        });
    });
    for_each_pair(DOUBLE, |operands @ [a, b], rm| {
        let (x, y): (Double, Double) = (oracle::number(a), oracle::number(b));
        let quiet = raised_by(x.is_signaling() || y.is_signaling());
        let signaling = raised_by(x.is_nan() || y.is_nan());
        check("eq", &operands, rm, ((x == y).into(), quiet), |f| {
            float::eq_f64(a, b, f).into()
        });
        check("lt", &operands, rm, ((x < y).into(), signaling), |f| {
            float::lt_f64(a, b, f).into()
        });
        check("le", &operands, rm, ((x <= y).into(), signaling), |f| {
            float::le_f64(a, b, f).into()
        });
    });
}
