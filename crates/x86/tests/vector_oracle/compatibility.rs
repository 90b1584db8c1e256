//! Outside of 64-bit mode.

use iced_x86::{Decoder, DecoderOptions, Instruction};

use crate::machine::Machine;
use crate::state::{MEMORY_BYTES, Registers};

const BASE: u64 = 0x1000;

fn machine(memory: [u8; MEMORY_BYTES]) -> Machine {
    let mut registers = Registers {
        fxsave: [0; 512],
        general: [BASE; 5],
        flags: 0,
    };
    registers.fxsave[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    for i in 0..16 {
        registers.fxsave[160 + 16 * i] = i as u8 + 1;
    }
    Machine::new(&registers, BASE, &memory)
}

fn decode(bitness: u32, bytes: &[u8]) -> Instruction {
    Decoder::new(bitness, bytes, DecoderOptions::NONE).decode()
}

/// Volume 1, 10.5.1.2: the registers XMM8 to XMM15 are saved in 64-bit mode only.
#[test]
fn fxsave_leaves_the_upper_registers_alone_outside_of_64_bit_mode() {
    // FXSAVE [ESI], FXSAVE [RSI]
    for (bitness, ninth) in [(32, 0x55), (64, 9)] {
        let mut machine = machine([0x55; MEMORY_BYTES]);
        let fault = machine.execute(&decode(bitness, &[0x0f, 0xae, 0x06]));
        assert_eq!(fault, None);
        assert_eq!(machine.rest.memory[160 + 16 * 7], 8);
        assert_eq!(machine.rest.memory[160 + 16 * 8], ninth);
    }
}

/// Volume 1, 10.5.1.2: nor are they restored.
#[test]
fn fxrstor_leaves_the_upper_registers_alone_outside_of_64_bit_mode() {
    for (bitness, ninth) in [(32, 9), (64, 0)] {
        let mut machine = machine([0; MEMORY_BYTES]);
        let fault = machine.execute(&decode(bitness, &[0x0f, 0xae, 0x0e]));
        assert_eq!(fault, None);
        assert_eq!(machine.vector.xmm[7], 0);
        assert_eq!(machine.vector.xmm[8], ninth);
    }
}
