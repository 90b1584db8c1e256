//! States to begin with.

use iced_x86::Code;

use crate::values::Random;

/// What an instruction sees and leaves: FXSAVE's image, a few general registers, the flags.
#[repr(C, align(16))]
#[derive(Clone)]
pub struct Registers {
    pub fxsave: [u8; 512],
    /// RAX, RCX, RDX, RSI, RDI.
    pub general: [u64; 5],
    pub flags: u64,
}

/// Bytes of memory that an instruction may reach from RSI or RDI.
pub const MEMORY_BYTES: usize = 1024;

/// Where RSI and RDI point within the memory.
pub const OPERAND: u64 = 64;

/// The string comparisons.
const IS_STRING: [Code; 6] = [
    Code::Pcmpestri_xmm_xmmm128_imm8,
    Code::Pcmpestri64_xmm_xmmm128_imm8,
    Code::Pcmpestrm_xmm_xmmm128_imm8,
    Code::Pcmpestrm64_xmm_xmmm128_imm8,
    Code::Pcmpistri_xmm_xmmm128_imm8,
    Code::Pcmpistrm_xmm_xmmm128_imm8,
];

fn some_vector(random: &mut Random, is_string: bool) -> u128 {
    if is_string {
        random.string()
    } else {
        random.vector()
    }
}

/// A state to begin with.
pub fn state(
    code: Code,
    random: &mut Random,
    base: u64,
    all_masked: bool,
) -> (Registers, [u8; MEMORY_BYTES]) {
    let is_string = IS_STRING.contains(&code);
    let mut registers = Registers {
        fxsave: [0; 512],
        general: [0; 5],
        flags: 0x202 | random.next() & crate::machine::STATUS,
    };
    let image = &mut registers.fxsave;
    let some = |random: &mut Random| match random.below(4) {
        0 => 0x3f,
        1 => 0,
        _ => random.next() & 0x3f,
    };
    // x87: any precision, rounding, flags and TOP; mostly few empty registers.
    let masks = if all_masked || random.chance(2) {
        0x3f
    } else {
        some(random)
    };
    let precision = [3, 3, 3, 0, 1, 2][random.below(6) as usize];
    let control = masks | precision << 8 | random.below(4) << 10 | 0x40;
    let mut raised = if random.chance(2) {
        0
    } else {
        random.next() & 0x7f
    };
    if random.chance(2) || all_masked {
        raised &= masks | 0x40;
    }
    let pending = raised & !masks & 0x3f != 0;
    let mut status = raised | random.next() & 0x7f00;
    if pending {
        status |= 0x8080;
    }
    image[0..2].copy_from_slice(&(control as u16).to_le_bytes());
    image[2..4].copy_from_slice(&(status as u16).to_le_bytes());
    image[4] = match random.below(4) {
        0 => random.next() as u8,
        1 => 0x0f,
        2 => 0xff,
        // Only what pushes finds empty.
        _ => !(1 << (((status >> 11) + 7) & 7)),
    };
    let top_exponent = random.chance(4);
    for i in 0..8 {
        let mut value = random.double_extended();
        if top_exponent {
            // An MMX register.
            value |= 0xffff << 64;
        }
        image[32 + 16 * i..42 + 16 * i].copy_from_slice(&value.to_le_bytes()[..10]);
    }
    // SSE.
    let masks = if all_masked || random.chance(2) {
        0x3f
    } else {
        some(random)
    };
    let raised = if random.chance(2) {
        0
    } else {
        random.next() & 0x3f
    };
    let mode = (random.next() & random.next() & 0x8040) | random.below(4) << 13;
    let mxcsr = (masks << 7 | raised | mode) as u32;
    image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    for i in 0..16 {
        image[160 + 16 * i..176 + 16 * i]
            .copy_from_slice(&some_vector(random, is_string).to_le_bytes());
    }
    let offset = if random.chance(8) {
        random.below(16)
    } else {
        0
    };
    let small = random.chance(2);
    for register in &mut registers.general[..3] {
        *register = if small {
            random.below(40).wrapping_sub(20)
        } else {
            random.next() >> random.below(64)
        };
    }
    registers.general[3] = base + OPERAND + offset;
    registers.general[4] = base + OPERAND + random.below(16);
    let mut memory = [0; MEMORY_BYTES];
    for chunk in memory.chunks_exact_mut(16) {
        chunk.copy_from_slice(&some_vector(random, is_string).to_le_bytes());
    }
    let operand = (OPERAND + offset) as usize;
    let value = if is_string {
        random.string()
    } else {
        random.memory()
    };
    memory[operand..operand + 16].copy_from_slice(&value.to_le_bytes());
    (registers, memory)
}

/// FXRSTOR, FRSTOR and FLDENV want an image, not numbers.
pub fn place_image(
    code: Code,
    random: &mut Random,
    base: u64,
    registers: &Registers,
    memory: &mut [u8],
) {
    let operand = (registers.general[3] - base) as usize;
    let (image, _) = state(code, random, base, false);
    match code {
        Code::Fxrstor_m512byte | Code::Fxrstor64_m512byte => {
            memory[operand..operand + 512].copy_from_slice(&image.fxsave);
            if random.chance(4) {
                memory[operand..operand + 6].copy_from_slice(&random.next().to_le_bytes()[..6]);
            }
            if random.chance(8) {
                memory[operand + 26] = 1;
            }
        }
        Code::Fldenv_m14byte | Code::Frstor_m94byte => {
            memory[operand..operand + 4].copy_from_slice(&image.fxsave[..4]);
            if random.chance(4) {
                memory[operand..operand + 6].copy_from_slice(&random.next().to_le_bytes()[..6]);
            }
        }
        Code::Fldenv_m28byte | Code::Frstor_m108byte => {
            memory[operand..operand + 2].copy_from_slice(&image.fxsave[..2]);
            memory[operand + 4..operand + 6].copy_from_slice(&image.fxsave[2..4]);
            if random.chance(4) {
                memory[operand..operand + 6].copy_from_slice(&random.next().to_le_bytes()[..6]);
            }
        }
        _ => {}
    }
}
