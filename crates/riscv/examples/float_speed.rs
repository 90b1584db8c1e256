//! Nanoseconds per floating-point operation, with inexact raised (the host's arithmetic) and
//! without (the software).
//!
//! ```text
//! cargo run --release -p riscv --example float_speed
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement needs a clock"
)]

use std::hint::black_box;
use std::time::Instant;

use riscv::float::{self, Flags, RoundingMode};

const OPERATIONS: u32 = 4_000_000;
const OPERANDS: usize = 256;

/// Runs `operation` over `operands` and returns the nanoseconds that one took.
fn measure<T: Copy, R>(
    operands: &[T],
    raised: Flags,
    operation: impl Fn(T, T, &mut Flags) -> R,
) -> f64 {
    let start = Instant::now();
    for i in 0..OPERATIONS as usize {
        let mut flags = black_box(raised);
        let (a, b) = (operands[i % OPERANDS], operands[(i + 1) % OPERANDS]);
        black_box(operation(black_box(a), black_box(b), &mut flags));
        black_box(flags);
    }
    start.elapsed().as_nanos() as f64 / f64::from(OPERATIONS)
}

fn report<T: Copy, R>(name: &str, operands: &[T], operation: impl Fn(T, T, &mut Flags) -> R) {
    let host = measure(operands, Flags::INEXACT, &operation);
    let software = measure(operands, Flags::NONE, &operation);
    println!("{name:<12} {host:>6.1} {software:>6.1}");
}

fn main() {
    use RoundingMode::{NearestEven, TowardZero};
    let doubles: Vec<u64> = (0..OPERANDS)
        .map(|i| (i as f64 * 1.37 + 0.11).to_bits())
        .collect();
    let singles: Vec<u32> = (0..OPERANDS)
        .map(|i| (i as f32 * 1.37 + 0.11).to_bits())
        .collect();
    let integers: Vec<i64> = (0..OPERANDS)
        .map(|i| i as i64 * 0x0123_4567_89ab_cdef)
        .collect();

    println!("ns/operation   host    software");
    report("nothing", &doubles, |a, _, _| a);
    report("add_f64", &doubles, |a, b, f| {
        float::add_f64(a, b, NearestEven, f)
    });
    report("mul_f64", &doubles, |a, b, f| {
        float::mul_f64(a, b, NearestEven, f)
    });
    report("div_f64", &doubles, |a, b, f| {
        float::div_f64(a, b, NearestEven, f)
    });
    report("sqrt_f64", &doubles, |a, _, f| {
        float::sqrt_f64(a, NearestEven, f)
    });
    report("fma_f64", &doubles, |a, b, f| {
        float::fma_f64(a, b, a, NearestEven, f)
    });
    report("add_f32", &singles, |a, b, f| {
        float::add_f32(a, b, NearestEven, f)
    });
    report("mul_f32", &singles, |a, b, f| {
        float::mul_f32(a, b, NearestEven, f)
    });
    report("div_f32", &singles, |a, b, f| {
        float::div_f32(a, b, NearestEven, f)
    });
    report("sqrt_f32", &singles, |a, _, f| {
        float::sqrt_f32(a, NearestEven, f)
    });
    report("fma_f32", &singles, |a, b, f| {
        float::fma_f32(a, b, a, NearestEven, f)
    });
    report("min_f64", &doubles, float::min_f64);
    report("eq_f64", &doubles, float::eq_f64);
    report("lt_f64", &doubles, float::lt_f64);
    report("f64_to_i64", &doubles, |a, _, f| {
        float::f64_to_i64(a, TowardZero, f)
    });
    report("f64_to_i64 e", &doubles, |a, _, f| {
        float::f64_to_i64(a, NearestEven, f)
    });
    report("i64_to_f64", &integers, |a, _, f| {
        float::i64_to_f64(a, NearestEven, f)
    });
    report("f64_to_f32", &doubles, |a, _, f| {
        float::f64_to_f32(a, NearestEven, f)
    });
}
