//! What RISC-V fixes where IEEE 754 leaves a choice, and what `fcsr` holds: one test for each rule
//! of the chapters "F" and "D".

use riscv::float::*;

const F32_SNAN: u32 = 0x7f80_0001;
const F32_QNAN: u32 = 0xffc1_2345;
const F64_SNAN: u64 = 0x7ff0_0000_0000_0001;
const F64_QNAN: u64 = 0xfff8_1234_5678_9abc;
const RNE: RoundingMode = RoundingMode::NearestEven;

/// The result and the flags that `operation` raises from none.
fn run<R>(operation: impl FnOnce(&mut Flags) -> R) -> (R, Flags) {
    let mut flags = Flags::NONE;
    (operation(&mut flags), flags)
}

fn single(value: f32) -> u32 {
    value.to_bits()
}

fn double(value: f64) -> u64 {
    value.to_bits()
}

#[test]
fn fcsr_encodes_rounding_modes_and_flags() {
    assert_eq!(RoundingMode::from_bits(0), Some(RoundingMode::NearestEven));
    assert_eq!(RoundingMode::from_bits(1), Some(RoundingMode::TowardZero));
    assert_eq!(RoundingMode::from_bits(2), Some(RoundingMode::Down));
    assert_eq!(RoundingMode::from_bits(3), Some(RoundingMode::Up));
    assert_eq!(
        RoundingMode::from_bits(4),
        Some(RoundingMode::NearestMaxMagnitude)
    );
    assert!((5..=255).all(|reserved| RoundingMode::from_bits(reserved).is_none()));
    let all = Flags::INEXACT
        | Flags::UNDERFLOW
        | Flags::OVERFLOW
        | Flags::DIVIDE_BY_ZERO
        | Flags::INVALID;
    assert_eq!(all.bits(), 0x1f);
    assert_eq!(Flags::from_bits(0xff), all);
    assert_eq!(Flags::INVALID.bits(), 16);
    assert_eq!(Flags::INEXACT.bits(), 1);
}

#[test]
fn flags_accrue() {
    let mut flags = Flags::DIVIDE_BY_ZERO;
    let _ = add_f64(double(1.0), double(f64::EPSILON / 4.0), RNE, &mut flags);
    assert_eq!(flags, Flags::DIVIDE_BY_ZERO | Flags::INEXACT);
    let _ = add_f64(double(1.0), double(1.0), RNE, &mut flags);
    assert_eq!(flags, Flags::DIVIDE_BY_ZERO | Flags::INEXACT);
}

#[test]
fn a_nan_result_is_canonical() {
    assert_eq!(
        run(|f| add_f32(F32_QNAN, single(1.0), RNE, f)),
        (CANONICAL_NAN_F32, Flags::NONE)
    );
    assert_eq!(
        run(|f| mul_f64(F64_QNAN, F64_QNAN, RNE, f)),
        (CANONICAL_NAN_F64, Flags::NONE)
    );
    assert_eq!(
        run(|f| sqrt_f64(double(-1.0), RNE, f)),
        (CANONICAL_NAN_F64, Flags::INVALID)
    );
    assert_eq!(
        run(|f| f32_to_f64(F32_QNAN, f)),
        (CANONICAL_NAN_F64, Flags::NONE)
    );
    assert_eq!(
        run(|f| f64_to_f32(F64_SNAN, RNE, f)),
        (CANONICAL_NAN_F32, Flags::INVALID)
    );
}

#[test]
fn fused_multiply_add_of_infinity_and_zero_is_invalid_even_with_a_quiet_nan() {
    let expected = (CANONICAL_NAN_F64, Flags::INVALID);
    assert_eq!(
        run(|f| fma_f64(double(f64::INFINITY), 0, F64_QNAN, RNE, f)),
        expected
    );
    assert_eq!(
        run(|f| fma_f64(0, double(f64::NEG_INFINITY), F64_QNAN, RNE, f)),
        expected
    );
    let quiet = run(|f| fma_f32(single(1.0), single(1.0), F32_QNAN, RNE, f));
    assert_eq!(quiet, (CANONICAL_NAN_F32, Flags::NONE));
}

#[test]
fn fused_multiply_add_rounds_once() {
    let a = double(1.0 + f64::EPSILON);
    let minus_square = double(-(1.0 + 2.0 * f64::EPSILON));
    let (result, flags) = run(|f| fma_f64(a, a, minus_square, RNE, f));
    assert_eq!(
        (f64::from_bits(result), flags),
        (f64::EPSILON * f64::EPSILON, Flags::NONE)
    );
}

#[test]
fn division_by_zero_is_flagged_for_finite_dividends_only() {
    let infinity = double(f64::INFINITY);
    let negative = double(f64::NEG_INFINITY);
    assert_eq!(
        run(|f| div_f64(double(-1.0), 0, RNE, f)),
        (negative, Flags::DIVIDE_BY_ZERO)
    );
    assert_eq!(
        run(|f| div_f64(infinity, 0, RNE, f)),
        (infinity, Flags::NONE)
    );
    assert_eq!(
        run(|f| div_f64(0, 0, RNE, f)),
        (CANONICAL_NAN_F64, Flags::INVALID)
    );
}

#[test]
fn tininess_is_detected_after_rounding() {
    // Below the smallest normal number by so little that even with an unbounded exponent it would
    // be rounded up to it: not tiny, though it was before rounding.
    let barely_below = run(|f| {
        let above_smallest = double(f64::MIN_POSITIVE.next_up());
        mul_f64(above_smallest, double(1.0 - f64::EPSILON), RNE, f)
    });
    assert_eq!(barely_below, (double(f64::MIN_POSITIVE), Flags::INEXACT));
    // Half of a subnormal's last place below it: an unbounded exponent would keep it there, so it is
    // tiny although the delivered result is normal.
    let half_a_subnormal_below = run(|f| {
        let below_two = double(2.0_f64.next_down());
        mul_f64(below_two, double(f64::MIN_POSITIVE / 2.0), RNE, f)
    });
    let expected = (double(f64::MIN_POSITIVE), Flags::INEXACT | Flags::UNDERFLOW);
    assert_eq!(half_a_subnormal_below, expected);
}

#[test]
fn a_subnormal_result_underflows_only_if_inexact() {
    let half = single(0.5);
    let (exact, flags) = run(|f| mul_f32(single(f32::MIN_POSITIVE), half, RNE, f));
    assert_eq!((exact, flags), (0x0040_0000, Flags::NONE));
    let (inexact, flags) = run(|f| mul_f32(1, half, RNE, f));
    assert_eq!((inexact, flags), (0, Flags::INEXACT | Flags::UNDERFLOW));
    let (up, flags) = run(|f| mul_f32(1, half, RoundingMode::Up, f));
    assert_eq!((up, flags), (1, Flags::INEXACT | Flags::UNDERFLOW));
}

#[test]
fn overflow_goes_to_infinity_or_the_largest_number_by_rounding_mode() {
    let (max, infinity) = (single(f32::MAX), single(f32::INFINITY));
    let flags = Flags::OVERFLOW | Flags::INEXACT;
    for (rm, positive, negative) in [
        (RoundingMode::NearestEven, infinity, infinity),
        (RoundingMode::TowardZero, max, max),
        (RoundingMode::Down, max, infinity),
        (RoundingMode::Up, infinity, max),
        (RoundingMode::NearestMaxMagnitude, infinity, infinity),
    ] {
        assert_eq!(
            run(|f| add_f32(max, max, rm, f)),
            (positive, flags),
            "{rm:?}"
        );
        let minus_max = single(f32::MIN);
        let expected = (negative | 1 << 31, flags);
        assert_eq!(
            run(|f| add_f32(minus_max, minus_max, rm, f)),
            expected,
            "{rm:?}"
        );
    }
}

#[test]
fn an_exact_difference_of_zero_is_negative_only_when_rounding_down() {
    for rm in RoundingMode::ALL {
        let zero = if rm == RoundingMode::Down { -0.0 } else { 0.0 };
        assert_eq!(
            run(|f| sub_f64(double(1.5), double(1.5), rm, f)),
            (double(zero), Flags::NONE)
        );
        let minus_two = double(-2.0);
        let fused = run(|f| fma_f64(double(2.0), double(1.0), minus_two, rm, f));
        assert_eq!(fused, (double(zero), Flags::NONE));
        assert_eq!(
            run(|f| add_f64(double(-0.0), double(-0.0), rm, f)),
            (double(-0.0), Flags::NONE)
        );
    }
}

#[test]
fn ties_go_to_even_or_away_from_zero() {
    let half_place = double(f64::EPSILON / 2.0);
    let add = |rm| run(|f| add_f64(double(1.0), half_place, rm, f));
    assert_eq!(
        add(RoundingMode::NearestEven),
        (double(1.0), Flags::INEXACT)
    );
    let away = double(1.0 + f64::EPSILON);
    assert_eq!(
        add(RoundingMode::NearestMaxMagnitude),
        (away, Flags::INEXACT)
    );
}

#[test]
fn minimum_and_maximum_are_minimum_number_and_maximum_number() {
    let (minus_zero, zero, one) = (double(-0.0), 0, double(1.0));
    assert_eq!(
        run(|f| min_f64(zero, minus_zero, f)),
        (minus_zero, Flags::NONE)
    );
    assert_eq!(run(|f| max_f64(minus_zero, zero, f)), (zero, Flags::NONE));
    assert_eq!(
        run(|f| min_f64(double(-2.0), double(-1.0), f)),
        (double(-2.0), Flags::NONE)
    );
    assert_eq!(
        run(|f| max_f64(double(-2.0), double(-1.0), f)),
        (double(-1.0), Flags::NONE)
    );
    assert_eq!(
        run(|f| min_f64(double(f64::NEG_INFINITY), one, f)).0,
        double(f64::NEG_INFINITY)
    );
    assert_eq!(
        run(|f| max_f32(F32_QNAN, single(1.0), f)),
        (single(1.0), Flags::NONE)
    );
    assert_eq!(run(|f| min_f64(one, F64_SNAN, f)), (one, Flags::INVALID));
    assert_eq!(
        run(|f| max_f64(F64_QNAN, F64_QNAN, f)),
        (CANONICAL_NAN_F64, Flags::NONE)
    );
    assert_eq!(
        run(|f| max_f32(F32_QNAN, F32_SNAN, f)),
        (CANONICAL_NAN_F32, Flags::INVALID)
    );
}

#[test]
fn equality_is_quiet_and_order_signals() {
    let one = double(1.0);
    assert_eq!(run(|f| eq_f64(F64_QNAN, one, f)), (false, Flags::NONE));
    assert_eq!(run(|f| eq_f64(F64_SNAN, one, f)), (false, Flags::INVALID));
    assert_eq!(run(|f| lt_f64(F64_QNAN, one, f)), (false, Flags::INVALID));
    assert_eq!(
        run(|f| le_f32(single(1.0), F32_QNAN, f)),
        (false, Flags::INVALID)
    );
    assert_eq!(run(|f| eq_f64(double(-0.0), 0, f)), (true, Flags::NONE));
    assert_eq!(run(|f| lt_f64(double(-0.0), 0, f)), (false, Flags::NONE));
    assert_eq!(run(|f| le_f64(0, double(-0.0), f)), (true, Flags::NONE));
}

#[test]
fn fclass_sets_one_of_ten_bits() {
    let classes = [
        f64::NEG_INFINITY,
        -1.0,
        -f64::from_bits(1),
        -0.0,
        0.0,
        f64::from_bits(1),
        1.0,
        f64::INFINITY,
    ];
    for (bit, value) in classes.into_iter().enumerate() {
        assert_eq!(classify_f64(double(value)), 1 << bit, "{value}");
    }
    assert_eq!(classify_f64(F64_SNAN), 1 << 8);
    assert_eq!(classify_f64(F64_QNAN), 1 << 9);
    assert_eq!(classify_f32(F32_SNAN), 1 << 8);
    assert_eq!(classify_f32(single(-f32::MIN_POSITIVE)), 1 << 1);
    assert_eq!(classify_f32(0x807f_ffff), 1 << 2);
    assert_eq!(classify_f32(single(f32::INFINITY)), 1 << 7);
}

/// The table "Domains of float-to-integer conversions and behavior for invalid inputs".
#[test]
fn conversions_to_integers_saturate_and_take_a_nan_for_positive_infinity() {
    let rtz = RoundingMode::TowardZero;
    let (minus, plus) = (double(f64::NEG_INFINITY), double(f64::INFINITY));
    for (a, i32_, u32_, i64_, u64_) in [
        (minus, i32::MIN, 0, i64::MIN, 0),
        (double(-1e30), i32::MIN, 0, i64::MIN, 0),
        (double(1e30), i32::MAX, u32::MAX, i64::MAX, u64::MAX),
        (plus, i32::MAX, u32::MAX, i64::MAX, u64::MAX),
        (F64_QNAN, i32::MAX, u32::MAX, i64::MAX, u64::MAX),
        (F64_SNAN, i32::MAX, u32::MAX, i64::MAX, u64::MAX),
    ] {
        assert_eq!(run(|f| f64_to_i32(a, rtz, f)), (i32_, Flags::INVALID));
        assert_eq!(run(|f| f64_to_u32(a, rtz, f)), (u32_, Flags::INVALID));
        assert_eq!(run(|f| f64_to_i64(a, rtz, f)), (i64_, Flags::INVALID));
        assert_eq!(run(|f| f64_to_u64(a, rtz, f)), (u64_, Flags::INVALID));
    }
    // The ends of the valid ranges, by the value before rounding.
    assert_eq!(
        run(|f| f64_to_i32(double(2147483647.5), rtz, f)),
        (i32::MAX, Flags::INEXACT)
    );
    assert_eq!(
        run(|f| f64_to_i32(double(2147483647.5), RNE, f)),
        (i32::MAX, Flags::INVALID)
    );
    assert_eq!(
        run(|f| f64_to_i32(double(-2147483648.5), RNE, f)),
        (i32::MIN, Flags::INEXACT)
    );
    assert_eq!(
        run(|f| f64_to_i32(double(-2147483649.0), rtz, f)),
        (i32::MIN, Flags::INVALID)
    );
    assert_eq!(
        run(|f| f32_to_u32(single(-0.75), rtz, f)),
        (0, Flags::INEXACT)
    );
    assert_eq!(
        run(|f| f32_to_u32(single(-0.75), RNE, f)),
        (0, Flags::INVALID)
    );
    assert_eq!(run(|f| f32_to_u64(single(-0.0), rtz, f)), (0, Flags::NONE));
    assert_eq!(
        run(|f| f64_to_u64(double(-1.0), rtz, f)),
        (0, Flags::INVALID)
    );
}

#[test]
fn conversions_from_integers_round() {
    assert_eq!(
        run(|f| i64_to_f64(i64::MAX, RNE, f)),
        (double(2.0_f64.powi(63)), Flags::INEXACT)
    );
    let below = double(2.0_f64.powi(63).next_down());
    assert_eq!(
        run(|f| i64_to_f64(i64::MAX, RoundingMode::Down, f)),
        (below, Flags::INEXACT)
    );
    assert_eq!(
        run(|f| i64_to_f64(i64::MIN, RNE, f)),
        (double(-(2.0_f64.powi(63))), Flags::NONE)
    );
    assert_eq!(
        run(|f| u32_to_f64(u32::MAX, RNE, f)),
        (double(4294967295.0), Flags::NONE)
    );
    assert_eq!(
        run(|f| i32_to_f32(0, RoundingMode::Down, f)),
        (0, Flags::NONE)
    );
}

#[test]
fn the_square_root_of_minus_zero_is_minus_zero() {
    assert_eq!(
        run(|f| sqrt_f64(double(-0.0), RNE, f)),
        (double(-0.0), Flags::NONE)
    );
    assert_eq!(
        run(|f| sqrt_f32(single(2.0), RNE, f)),
        (single(2.0_f32.sqrt()), Flags::INEXACT)
    );
}
