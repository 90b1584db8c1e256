//! The transcendental functions are the correctly rounded ones.

use iced_x86::Instruction;

use crate::machine::Machine;
use crate::references::CASES;
use crate::state::{MEMORY_BYTES, Registers};

#[test]
fn every_result_is_the_correctly_rounded_one_in_all_four_modes() {
    for &(code, st1, st0, expected) in CASES {
        for (mode, &expected) in expected.iter().enumerate() {
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
            // FPTAN pushes one.
            let place = if code == iced_x86::Code::Fptan { 1 } else { 0 };
            let result = machine.x87.get(place).to_bits();
            assert_eq!(
                result, expected,
                "{code:?} of {st1:020x} {st0:020x}, rounding {mode}: {result:020x}, not {expected:020x}"
            );
            let inexact = machine.x87.status & 0x3f;
            assert_eq!(inexact, 0x20, "{code:?} of {st1:020x} {st0:020x}");
        }
    }
}
