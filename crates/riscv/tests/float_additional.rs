//! Zfhmin's conversions and Zfa (unprivileged specification, 24 and 25), against what the specification
//! says, computed otherwise: halves are looked up in the list of all of them, integral numbers are the
//! host's.

use riscv::float::*;

const MODES: [RoundingMode; 5] = [
    RoundingMode::NearestEven,
    RoundingMode::TowardZero,
    RoundingMode::Down,
    RoundingMode::Up,
    RoundingMode::NearestMaxMagnitude,
];
const SEED: u64 = 0x5eed;

/// The result and the flags that `operation` raises from none.
fn run<R>(operation: impl FnOnce(&mut Flags) -> R) -> (R, Flags) {
    let mut flags = Flags::NONE;
    (operation(&mut flags), flags)
}

/// The value of a half that is no NaN, by its definition (IEEE 754-2019, 3.4).
fn value(half: u16) -> f64 {
    let sign = if half >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 => sign * f64::INFINITY,
        _ => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

fn is_nan(half: u16) -> bool {
    half & 0x7fff > 0x7c00
}

/// Doubles near everything that matters to a half, and others.
fn doubles() -> Vec<f64> {
    let mut doubles = vec![
        0.0,
        f64::INFINITY,
        f64::MIN_POSITIVE,
        f64::MAX,
        65519.99,
        65520.0,
        65536.0,
    ];
    for half in (0..0x7c00u16).step_by(7) {
        let (a, b) = (value(half), value(half + 1).min(65536.0));
        let middle = (a + b) / 2.0;
        doubles.extend([a, middle, middle.next_up(), middle.next_down(), a.next_up()]);
    }
    let mut state = SEED;
    for _ in 0..20_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let exponent = 1023 - 30 + (state >> 58) % 50;
        doubles.push(f64::from_bits(exponent << 52 | state & 0xf_ffff_ffff_ffff));
    }
    let negative: Vec<f64> = doubles.iter().map(|x| -x).collect();
    [doubles, negative].concat()
}

/// A half by rounding as if there were halves of any size, from the list of all.
fn rounded(x: f64, rm: RoundingMode) -> (u16, Flags) {
    let sign = u16::from(x.is_sign_negative()) << 15;
    let magnitude = x.abs();
    let of = |half: u16| if half == 0x7c00 { 65536.0 } else { value(half) };
    // The largest half that is not above it; 0x7c00 stands for 65536, the next one there would be.
    let below = (0..=0x7c00u16)
        .collect::<Vec<_>>()
        .partition_point(|half| of(*half) <= magnitude) as u16
        - 1;
    if magnitude.is_infinite() {
        return (sign | 0x7c00, Flags::NONE);
    }
    let exact = below < 0x7c00 && of(below) == magnitude;
    if exact {
        return (sign | below, Flags::NONE);
    }
    let up = |below: u16, low: f64, high: f64| match rm {
        RoundingMode::TowardZero => false,
        RoundingMode::Down => sign != 0,
        RoundingMode::Up => sign == 0,
        RoundingMode::NearestMaxMagnitude => magnitude - low >= high - magnitude,
        RoundingMode::NearestEven => {
            let (down, up) = (magnitude - low, high - magnitude);
            down > up || down == up && below & 1 != 0
        }
    };
    let mut flags = Flags::INEXACT;
    if below >= 0x7c00 {
        flags |= Flags::OVERFLOW;
        let away = match rm {
            RoundingMode::TowardZero => false,
            RoundingMode::Down => sign != 0,
            RoundingMode::Up => sign == 0,
            _ => true,
        };
        return (sign | if away { 0x7c00 } else { 0x7bff }, flags);
    }
    let half = if up(below, of(below), of(below + 1)) {
        below + 1
    } else {
        below
    };
    if half == 0x7c00 {
        flags |= Flags::OVERFLOW;
    }
    // Tiny after rounding: with halves of any exponent it would stay below the smallest normal one.
    let smallest = value(0x400);
    let last = smallest - 2f64.powi(-25);
    if magnitude < smallest && (magnitude < last || !up(1, last, smallest)) {
        flags |= Flags::UNDERFLOW;
    }
    (sign | half, flags)
}

#[test]
fn every_half_widens_to_its_value_and_comes_back() {
    for half in 0..=u16::MAX {
        let ((single, flags), (double, _)) =
            (run(|f| f16_to_f32(half, f)), run(|f| f16_to_f64(half, f)));
        if is_nan(half) {
            let signals = half & 0x200 == 0;
            assert_eq!((single, double), (CANONICAL_NAN_F32, CANONICAL_NAN_F64));
            assert_eq!(flags == Flags::INVALID, signals, "{half:#x}");
            continue;
        }
        assert_eq!(flags, Flags::NONE);
        assert_eq!(
            f64::from_bits(double).to_bits(),
            value(half).to_bits(),
            "{half:#x}"
        );
        assert_eq!(
            f32::from_bits(single).to_bits(),
            (value(half) as f32).to_bits(),
            "{half:#x}"
        );
        for rm in MODES {
            assert_eq!(run(|f| f64_to_f16(double, rm, f)), (half, Flags::NONE));
            assert_eq!(run(|f| f32_to_f16(single, rm, f)), (half, Flags::NONE));
        }
    }
}

#[test]
fn doubles_and_singles_are_rounded_to_halves() {
    for x in doubles() {
        for rm in MODES {
            let found = run(|f| f64_to_f16(x.to_bits(), rm, f));
            assert_eq!(found, rounded(x, rm), "{x:e} {rm:?}");
            let single = x as f32;
            let found = run(|f| f32_to_f16(single.to_bits(), rm, f));
            assert_eq!(found, rounded(single.into(), rm), "{single:e} {rm:?}");
        }
    }
    for (nan, flags) in [
        (CANONICAL_NAN_F64, Flags::NONE),
        (0x7ff0_0000_0000_0001, Flags::INVALID),
    ] {
        let found = run(|f| f64_to_f16(nan, MODES[0], f));
        assert_eq!(found, (CANONICAL_NAN_F16, flags));
    }
}

/// Numbers around integers of all magnitudes.
fn near_integers() -> Vec<f64> {
    let mut numbers = vec![
        0.0,
        0.25,
        0.5,
        0.75,
        1e300,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        5e-324,
    ];
    for power in 0..66 {
        let x = 2f64.powi(power);
        numbers.extend([
            x,
            x + 0.5,
            x - 0.5,
            x + 1.5,
            x - 1.0,
            x.next_up(),
            x.next_down(),
        ]);
    }
    let mut state = SEED;
    for _ in 0..5000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let exponent = 1023 - 3 + (state >> 57) % 72;
        numbers.push(f64::from_bits(exponent << 52 | state & 0xf_ffff_ffff_ffff));
    }
    let negative: Vec<f64> = numbers.iter().map(|x| -x).collect();
    [numbers, negative].concat()
}

#[test]
fn numbers_are_rounded_to_integral_ones_of_their_sign() {
    for x in near_integers() {
        for rm in MODES {
            let integral = |x: f64| match rm {
                RoundingMode::NearestEven => x.round_ties_even(),
                RoundingMode::TowardZero => x.trunc(),
                RoundingMode::Down => x.floor(),
                RoundingMode::Up => x.ceil(),
                RoundingMode::NearestMaxMagnitude => x.round(),
            };
            let flags = |changed: bool| if changed { Flags::INEXACT } else { Flags::NONE };
            let bits = x.to_bits();
            let expected = integral(x).copysign(x).to_bits();
            assert_eq!(
                run(|f| round_f64(bits, rm, f)),
                (expected, Flags::NONE),
                "{x:e} {rm:?}"
            );
            let exact = run(|f| round_exact_f64(bits, rm, f));
            assert_eq!(exact, (expected, flags(expected != bits)), "{x:e} {rm:?}");
            let single = x as f32;
            let expected = (integral(single.into()) as f32).copysign(single).to_bits();
            let bits = single.to_bits();
            assert_eq!(
                run(|f| round_f32(bits, rm, f)),
                (expected, Flags::NONE),
                "{single:e} {rm:?}"
            );
            let exact = run(|f| round_exact_f32(bits, rm, f));
            assert_eq!(
                exact,
                (expected, flags(expected != bits)),
                "{single:e} {rm:?}"
            );
        }
    }
    let nan = 0x7ff4_0000_0000_0000;
    let expected = (CANONICAL_NAN_F64, Flags::INVALID);
    assert_eq!(run(|f| round_f64(nan, MODES[0], f)), expected);
    assert_eq!(run(|f| round_exact_f64(nan, MODES[0], f)), expected);
}

/// What no 32-bit integer is is taken modulo 2^32 and invalid; what is no number gives 0.
#[test]
fn the_modular_conversion_wraps() {
    for x in near_integers() {
        let truncated = x.trunc();
        let modulus = 4_294_967_296.0;
        let expected = if x.is_finite() {
            (truncated % modulus) as i64 as i32
        } else {
            0
        };
        let fits = (-2_147_483_648.0..2_147_483_648.0).contains(&truncated);
        let flags = match (fits, truncated == x) {
            (false, _) => Flags::INVALID,
            (true, true) => Flags::NONE,
            (true, false) => Flags::INEXACT,
        };
        let found = run(|f| f64_to_i32_modular(x.to_bits(), f));
        assert_eq!(found, (expected, flags), "{x:e}");
    }
    let nan = run(|f| f64_to_i32_modular(CANONICAL_NAN_F64, f));
    assert_eq!(nan, (0, Flags::INVALID));
}

#[test]
fn nans_win_minima_and_are_quietly_unordered() {
    let (quiet, signaling) = (f64::NAN.to_bits(), 0x7ff0_0000_0000_0001u64);
    let (minus_zero, zero, one) = ((-0.0f64).to_bits(), 0u64, 1f64.to_bits());
    let plain = Flags::NONE;
    for (a, b, min, max, lt, le) in [
        (minus_zero, zero, minus_zero, zero, false, true),
        (zero, minus_zero, minus_zero, zero, false, true),
        (zero, one, zero, one, true, true),
        (one, zero, zero, one, false, false),
        (one, one, one, one, false, true),
    ] {
        assert_eq!(run(|f| min_or_nan_f64(a, b, f)), (min, plain));
        assert_eq!(run(|f| max_or_nan_f64(a, b, f)), (max, plain));
        assert_eq!(run(|f| lt_quiet_f64(a, b, f)), (lt, plain));
        assert_eq!(run(|f| le_quiet_f64(a, b, f)), (le, plain));
    }
    for (nan, flags) in [(quiet, Flags::NONE), (signaling, Flags::INVALID)] {
        for (a, b) in [(nan, one), (one, nan), (nan, nan)] {
            assert_eq!(run(|f| min_or_nan_f64(a, b, f)), (CANONICAL_NAN_F64, flags));
            assert_eq!(run(|f| max_or_nan_f64(a, b, f)), (CANONICAL_NAN_F64, flags));
            assert_eq!(run(|f| lt_quiet_f64(a, b, f)), (false, flags));
            assert_eq!(run(|f| le_quiet_f64(a, b, f)), (false, flags));
        }
    }
    let single = 0x7f80_0001;
    assert_eq!(
        run(|f| min_or_nan_f32(single, 0, f)),
        (CANONICAL_NAN_F32, Flags::INVALID)
    );
    assert_eq!(
        run(|f| max_or_nan_f32(0, 0x7fc0_0000, f)),
        (CANONICAL_NAN_F32, Flags::NONE)
    );
    assert_eq!(run(|f| lt_quiet_f32(0, single, f)), (false, Flags::INVALID));
    assert_eq!(
        run(|f| le_quiet_f32(0, 0x8000_0000, f)),
        (true, Flags::NONE)
    );
}

#[test]
fn the_constants_are_those_of_the_table() {
    let numbers: [f64; 30] = [
        -1.0,
        0.0,
        1.0 / 65536.0,
        1.0 / 32768.0,
        1.0 / 256.0,
        1.0 / 128.0,
        0.0625,
        0.125,
        0.25,
        0.3125,
        0.375,
        0.4375,
        0.5,
        0.625,
        0.75,
        0.875,
        1.0,
        1.25,
        1.5,
        1.75,
        2.0,
        2.5,
        3.0,
        4.0,
        8.0,
        16.0,
        128.0,
        256.0,
        32768.0,
        65536.0,
    ];
    for (number, x) in (0..).zip(numbers).filter(|(number, _)| *number != 1) {
        assert_eq!(f64::from_bits(constant_f64(number)), x);
        assert_eq!(f64::from(f32::from_bits(constant_f32(number))), x);
    }
    assert_eq!((constant_f32(1), constant_f64(1)), (0x0080_0000, 1 << 52));
    assert_eq!(
        (constant_f32(30), constant_f64(30)),
        (0x7f80_0000, 0x7ff << 52)
    );
    assert_eq!(
        (constant_f32(31), constant_f64(31)),
        (CANONICAL_NAN_F32, CANONICAL_NAN_F64)
    );
}
