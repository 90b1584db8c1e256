//! Checks the machine's floating point against Berkeley TestFloat's generator, which prints a test
//! case a line: the operands, the expected result and the expected flags, in hexadecimal.
//!
//! ```text
//! testfloat_gen -rmin -tininessafter -exact f64_mulAdd | cargo run --example float_testfloat -- f64_mulAdd min
//! ```
//!
//! The modes are TestFloat's: `near_even`, `minMag`, `min`, `max`, `near_maxMag`. The generator must
//! have been built with SoftFloat's RISC-V specialisation, for its NaNs and saturation. Each case is
//! tried with no flag raised and with inexact raised, which lets the host's arithmetic take part.

use std::io::BufRead;
use std::process::ExitCode;

use riscv::float::{self, Flags, RoundingMode};

/// An operation on encodings that all fit into 64 bits.
type Operation = fn(&[u64], RoundingMode, &mut Flags) -> u64;

fn main() -> ExitCode {
    match run() {
        Ok(cases) => {
            println!("{cases} cases agree");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u64, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [function, mode] = arguments.as_slice() else {
        return Err(
            "give a TestFloat function and a rounding mode, such as f64_add near_even".into(),
        );
    };
    let operation = operation(function).ok_or(format!("unknown function {function}"))?;
    let rm = rounding_mode(mode).ok_or(format!("unknown rounding mode {mode}"))?;
    let mut cases = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("cannot read standard input: {error}"))?;
        check(&line, operation, rm)
            .map_err(|reason| format!("{function} {mode}: {line}: {reason}"))?;
        cases += 1;
    }
    if cases == 0 {
        Err("no test cases on standard input".into())
    } else {
        Ok(cases)
    }
}

fn check(line: &str, operation: Operation, rm: RoundingMode) -> Result<(), String> {
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map(|field| u64::from_str_radix(field, 16).map_err(|error| format!("{field}: {error}")))
        .collect::<Result<_, _>>()?;
    let [operands @ .., expected, expected_flags] = fields.as_slice() else {
        return Err("fewer than two fields".into());
    };
    for raised in [Flags::NONE, Flags::INEXACT] {
        let mut flags = raised;
        let result = operation(operands, rm, &mut flags);
        let due = *expected_flags | u64::from(raised.bits());
        if result != *expected || u64::from(flags.bits()) != due {
            return Err(format!(
                "got {result:X} {:02X} from {raised:?}",
                flags.bits()
            ));
        }
    }
    Ok(())
}

fn rounding_mode(name: &str) -> Option<RoundingMode> {
    match name {
        "near_even" => Some(RoundingMode::NearestEven),
        "minMag" => Some(RoundingMode::TowardZero),
        "min" => Some(RoundingMode::Down),
        "max" => Some(RoundingMode::Up),
        "near_maxMag" => Some(RoundingMode::NearestMaxMagnitude),
        _ => None,
    }
}

fn operation(name: &str) -> Option<Operation> {
    let operation: Operation = match name {
        "f32_add" => |x, rm, f| float::add_f32(x[0] as u32, x[1] as u32, rm, f).into(),
        "f32_sub" => |x, rm, f| float::sub_f32(x[0] as u32, x[1] as u32, rm, f).into(),
        "f32_mul" => |x, rm, f| float::mul_f32(x[0] as u32, x[1] as u32, rm, f).into(),
        "f32_div" => |x, rm, f| float::div_f32(x[0] as u32, x[1] as u32, rm, f).into(),
        "f32_sqrt" => |x, rm, f| float::sqrt_f32(x[0] as u32, rm, f).into(),
        "f32_mulAdd" => {
            |x, rm, f| float::fma_f32(x[0] as u32, x[1] as u32, x[2] as u32, rm, f).into()
        }
        "f32_eq" => |x, _, f| float::eq_f32(x[0] as u32, x[1] as u32, f).into(),
        "f32_lt" => |x, _, f| float::lt_f32(x[0] as u32, x[1] as u32, f).into(),
        "f32_le" => |x, _, f| float::le_f32(x[0] as u32, x[1] as u32, f).into(),
        "f32_to_i32" => |x, rm, f| (float::f32_to_i32(x[0] as u32, rm, f) as u32).into(),
        "f32_to_ui32" => |x, rm, f| float::f32_to_u32(x[0] as u32, rm, f).into(),
        "f32_to_i64" => |x, rm, f| float::f32_to_i64(x[0] as u32, rm, f) as u64,
        "f32_to_ui64" => |x, rm, f| float::f32_to_u64(x[0] as u32, rm, f),
        "f32_to_f64" => |x, _, f| float::f32_to_f64(x[0] as u32, f),
        "i32_to_f32" => |x, rm, f| float::i32_to_f32(x[0] as i32, rm, f).into(),
        "ui32_to_f32" => |x, rm, f| float::u32_to_f32(x[0] as u32, rm, f).into(),
        "i64_to_f32" => |x, rm, f| float::i64_to_f32(x[0] as i64, rm, f).into(),
        "ui64_to_f32" => |x, rm, f| float::u64_to_f32(x[0], rm, f).into(),
        "f64_add" => |x, rm, f| float::add_f64(x[0], x[1], rm, f),
        "f64_sub" => |x, rm, f| float::sub_f64(x[0], x[1], rm, f),
        "f64_mul" => |x, rm, f| float::mul_f64(x[0], x[1], rm, f),
        "f64_div" => |x, rm, f| float::div_f64(x[0], x[1], rm, f),
        "f64_sqrt" => |x, rm, f| float::sqrt_f64(x[0], rm, f),
        "f64_mulAdd" => |x, rm, f| float::fma_f64(x[0], x[1], x[2], rm, f),
        "f64_eq" => |x, _, f| float::eq_f64(x[0], x[1], f).into(),
        "f64_lt" => |x, _, f| float::lt_f64(x[0], x[1], f).into(),
        "f64_le" => |x, _, f| float::le_f64(x[0], x[1], f).into(),
        "f64_to_i32" => |x, rm, f| (float::f64_to_i32(x[0], rm, f) as u32).into(),
        "f64_to_ui32" => |x, rm, f| float::f64_to_u32(x[0], rm, f).into(),
        "f64_to_i64" => |x, rm, f| float::f64_to_i64(x[0], rm, f) as u64,
        "f64_to_ui64" => |x, rm, f| float::f64_to_u64(x[0], rm, f),
        "f64_to_f32" => |x, rm, f| float::f64_to_f32(x[0], rm, f).into(),
        "i32_to_f64" => |x, rm, f| float::i32_to_f64(x[0] as i32, rm, f),
        "ui32_to_f64" => |x, rm, f| float::u32_to_f64(x[0] as u32, rm, f),
        "i64_to_f64" => |x, rm, f| float::i64_to_f64(x[0] as i64, rm, f),
        "ui64_to_f64" => |x, rm, f| float::u64_to_f64(x[0], rm, f),
        _ => return None,
    };
    Some(operation)
}
