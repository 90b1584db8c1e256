//! The transcendental functions are the correctly rounded ones.

use iced_x86::{Code, Instruction};

use crate::machine::Machine;
use crate::references::CASES;
use crate::state::{MEMORY_BYTES, Registers};

/// Executes a function of ST(1) and ST(0) in a rounding mode.
fn execute(code: Code, st1: u128, st0: u128, mode: usize) -> Machine {
    let mut registers = Registers {
        fxsave: [0; 512],
        general: [0; 5],
        flags: 0,
    };
    let image = &mut registers.fxsave;
    image[0..2].copy_from_slice(&(0x037f | (mode as u16) << 10).to_le_bytes());
    // TOP is 4; ST(0) and ST(1) are full.
    image[2..4].copy_from_slice(&0x2000u16.to_le_bytes());
    image[4] = 0x30;
    image[32..42].copy_from_slice(&st0.to_le_bytes()[..10]);
    image[48..58].copy_from_slice(&st1.to_le_bytes()[..10]);
    let mut machine = Machine::new(&registers, 0, &[0; MEMORY_BYTES]);
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    assert_eq!(machine.execute(&instruction), None);
    let inexact = machine.x87.status & 0x3f;
    assert_eq!(inexact, 0x20, "{code:?} of {st1:020x} {st0:020x}");
    machine
}

#[test]
fn every_result_is_the_correctly_rounded_one_in_all_four_modes() {
    for &(code, st1, st0, expected) in CASES {
        for (mode, &expected) in expected.iter().enumerate() {
            let machine = execute(code, st1, st0, mode);
            // FPTAN pushes one.
            let place = if code == Code::Fptan { 1 } else { 0 };
            let result = machine.x87.get(place).to_bits();
            assert_eq!(
                result, expected,
                "{code:?} of {st1:020x} {st0:020x}, rounding {mode}: {result:020x}, not {expected:020x}"
            );
        }
    }
}

/// SDM volume 1, 8.3.8: FSINCOS is FSIN and FCOS. The host's may be further away, so both are asked for here.
#[test]
fn fsincos_leaves_the_results_of_fsin_and_fcos() {
    for &(code, st1, st0, expected) in CASES {
        let place = match code {
            Code::Fsin => 1,
            Code::Fcos => 0,
            _ => continue,
        };
        for (mode, &expected) in expected.iter().enumerate() {
            let machine = execute(Code::Fsincos, st1, st0, mode);
            let result = machine.x87.get(place).to_bits();
            assert_eq!(
                result, expected,
                "{code:?} by FSINCOS of {st0:020x}, rounding {mode}: {result:020x}, not {expected:020x}"
            );
        }
    }
}
