//! The fast path against the software: the same bits and flags on a seeded stream of operands.

use super::software::Format;
use super::*;

const CASES: usize = 1_000_000;

/// A seeded stream (SplitMix64) of operands of one format.
struct Operands {
    state: u64,
    exponent_bits: u32,
    fraction_bits: u32,
}

impl Operands {
    fn of<F: Format>() -> Self {
        Self {
            state: 0,
            exponent_bits: F::EXPONENT_BITS,
            fraction_bits: F::FRACTION_BITS,
        }
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Any encoding; or one of moderate exponent, so that three of them interact; or such a one
    /// with few significant bits, so that exact results are common.
    fn next(&mut self) -> u64 {
        let (bits, shape) = (self.bits(), self.bits());
        let encoding = bits >> (63 - self.exponent_bits - self.fraction_bits);
        let moderate_exponent =
            ((1 << (self.exponent_bits - 1)) - 16 + (shape >> 8) % 32) << self.fraction_bits;
        let exponent_mask = ((1 << self.exponent_bits) - 1) << self.fraction_bits;
        let moderate = encoding & !exponent_mask | moderate_exponent;
        match shape % 4 {
            0 => encoding,
            1 | 2 => moderate,
            _ => moderate >> (self.fraction_bits - 4) << (self.fraction_bits - 4),
        }
    }
}

#[track_caller]
fn check(
    operands: &[u64],
    rm: RoundingMode,
    public: impl Fn(&mut Flags) -> u64,
    software: impl Fn(&mut Flags) -> u64,
) {
    for raised in [Flags::NONE, Flags::INEXACT] {
        let (mut flags, mut expected_flags) = (raised, raised);
        let (result, expected) = (public(&mut flags), software(&mut expected_flags));
        assert_eq!(
            (result, flags),
            (expected, expected_flags),
            "{operands:x?} {rm:?} from {raised:?}: {result:x} for {expected:x}"
        );
    }
}

macro_rules! arithmetic_layers_agree {
    ($test:ident, $float:ident, $bits:ident, $add:ident, $mul:ident, $div:ident, $sqrt:ident, $fma:ident) => {
        #[test]
        fn $test() {
            let rm = RoundingMode::NearestEven;
            let mut operands = Operands::of::<$float>();
            for _ in 0..CASES {
                let wide @ [a, b, c] = [operands.next(), operands.next(), operands.next()];
                let [x, y, z] = wide.map(|bits| bits as $bits);
                check(
                    &wide,
                    rm,
                    |f| $add(x, y, rm, f).into(),
                    |f| software::add::<$float>(a, b, rm, f),
                );
                check(
                    &wide,
                    rm,
                    |f| $mul(x, y, rm, f).into(),
                    |f| software::mul::<$float>(a, b, rm, f),
                );
                check(
                    &wide,
                    rm,
                    |f| $div(x, y, rm, f).into(),
                    |f| software::div::<$float>(a, b, rm, f),
                );
                check(
                    &wide,
                    rm,
                    |f| $sqrt(x, rm, f).into(),
                    |f| software::sqrt::<$float>(a, rm, f),
                );
                check(
                    &wide,
                    rm,
                    |f| $fma(x, y, z, rm, f).into(),
                    |f| software::fma::<$float>(a, b, c, rm, f),
                );
            }
        }
    };
}

arithmetic_layers_agree!(
    single_arithmetic,
    f32,
    u32,
    add_f32,
    mul_f32,
    div_f32,
    sqrt_f32,
    fma_f32
);
arithmetic_layers_agree!(
    double_arithmetic,
    f64,
    u64,
    add_f64,
    mul_f64,
    div_f64,
    sqrt_f64,
    fma_f64
);

macro_rules! integer_layers_agree {
    ($float:ident, $bits:ident, $integer:ident, $to:ident, $from:ident) => {
        let mut operands = Operands::of::<$float>();
        for i in 0..CASES / 10 {
            let rm = RoundingMode::ALL[i % 5];
            let a = operands.next();
            check(
                &[a],
                rm,
                |f| i128::from($to(a as $bits, rm, f)) as u64,
                |f| {
                    let range = $integer::MIN.into()..=$integer::MAX.into();
                    software::to_integer::<$float>(a, range, rm, f) as u64
                },
            );
            let integer =
                operands.bits() as $integer >> (operands.bits() % u64::from($integer::BITS));
            check(
                &[integer as u64],
                rm,
                |f| $from(integer, rm, f).into(),
                |f| software::from_integer::<$float>(integer.into(), rm, f),
            );
        }
    };
}

#[test]
fn integer_conversions() {
    integer_layers_agree!(f32, u32, i32, f32_to_i32, i32_to_f32);
    integer_layers_agree!(f32, u32, u32, f32_to_u32, u32_to_f32);
    integer_layers_agree!(f32, u32, i64, f32_to_i64, i64_to_f32);
    integer_layers_agree!(f32, u32, u64, f32_to_u64, u64_to_f32);
    integer_layers_agree!(f64, u64, i32, f64_to_i32, i32_to_f64);
    integer_layers_agree!(f64, u64, u32, f64_to_u32, u32_to_f64);
    integer_layers_agree!(f64, u64, i64, f64_to_i64, i64_to_f64);
    integer_layers_agree!(f64, u64, u64, f64_to_u64, u64_to_f64);
}

#[test]
fn conversions_between_the_formats() {
    let mut doubles = Operands::of::<f64>();
    let mut singles = Operands::of::<f32>();
    for i in 0..CASES {
        let rm = RoundingMode::ALL[i % 5];
        let (a, b) = (doubles.next(), singles.next());
        check(
            &[a],
            rm,
            |f| f64_to_f32(a, rm, f).into(),
            |f| software::convert::<f64, f32>(a, rm, f),
        );
        check(
            &[b],
            rm,
            |f| f32_to_f64(b as u32, f),
            |f| software::convert::<f32, f64>(b, rm, f),
        );
    }
}

/// The borders of what the fast path accepts: results at the smallest normal number, exact and
/// rounded up to it, zeros exact and underflowed, the largest number and beyond.
#[test]
fn borders_of_the_fast_path() {
    let rm = RoundingMode::NearestEven;
    let corners = [
        0.0,
        f64::from_bits(1),
        f64::MIN_POSITIVE.next_down(),
        f64::MIN_POSITIVE,
        f64::MIN_POSITIVE.next_up(),
        f64::MIN_POSITIVE.sqrt(),
        0.5,
        1.0_f64.next_down(),
        1.0,
        1.0_f64.next_up(),
        2.0,
        2.0_f64.powi(970),
        // One and a half last places of the largest number: their difference overflows in 2Sum.
        1.5 * 2.0_f64.powi(971),
        f64::MAX,
        f64::INFINITY,
        f64::NAN,
    ]
    .map(f64::to_bits);
    let signed: Vec<u64> = corners
        .iter()
        .flat_map(|&bits| [bits, bits | f64::SIGN])
        .collect();
    for &a in &signed {
        for &b in &signed {
            check(
                &[a, b],
                rm,
                |f| add_f64(a, b, rm, f),
                |f| software::add::<f64>(a, b, rm, f),
            );
            check(
                &[a, b],
                rm,
                |f| mul_f64(a, b, rm, f),
                |f| software::mul::<f64>(a, b, rm, f),
            );
            check(
                &[a, b],
                rm,
                |f| div_f64(a, b, rm, f),
                |f| software::div::<f64>(a, b, rm, f),
            );
            for &c in &signed {
                check(
                    &[a, b, c],
                    rm,
                    |f| fma_f64(a, b, c, rm, f),
                    |f| software::fma::<f64>(a, b, c, rm, f),
                );
            }
        }
    }
}
