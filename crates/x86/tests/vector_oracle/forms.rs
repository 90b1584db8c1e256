//! The instruction forms of the features that the machine announces, and encodings of each.

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Encoder, EncodingKind, Instruction, MemoryOperand,
    OpCodeOperandKind, Register,
};

use crate::values::Random;

/// Features whose forms `simd` and `x87` execute.
const FEATURES: [CpuidFeature; 15] = [
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::MMX,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::AES,
    CpuidFeature::PCLMULQDQ,
    CpuidFeature::SHA,
    CpuidFeature::FXSR,
    CpuidFeature::PREFETCHW,
];

/// Whether a form is of one of the features.
pub fn is_announced(code: Code) -> bool {
    code.cpuid_features().iter().any(|f| FEATURES.contains(f))
}

/// Every form that the decoder gives in 64-bit mode.
pub fn all() -> Vec<Code> {
    Code::values()
        .filter(|code| {
            code.op_code().encoding() == EncodingKind::Legacy
                && code.op_code().mode64()
                && is_announced(*code)
                && !with_wait(*code)
        })
        .collect()
}

/// Forms that the decoder gives as WAIT and another form.
fn with_wait(code: Code) -> bool {
    matches!(
        code,
        Code::Finit
            | Code::Fclex
            | Code::Feni
            | Code::Fdisi
            | Code::Fsetpm
            | Code::Fstcw_m2byte
            | Code::Fstsw_m2byte
            | Code::Fstsw_AX
            | Code::Fstenv_m14byte
            | Code::Fstenv_m28byte
            | Code::Fsave_m94byte
            | Code::Fsave_m108byte
    )
}

/// One encoding of a form.
pub struct Encoding {
    pub instruction: Instruction,
    pub bytes: Vec<u8>,
}

/// How many encodings of a form are tried: with every immediate byte where there is one.
pub fn encodings(code: Code) -> u64 {
    if code.op_code().op_kinds().contains(&OpCodeOperandKind::imm8) {
        256
    } else {
        6
    }
}

/// One of a form's encodings, with random registers; half of them prefer memory to a register.
pub fn encode(code: Code, number: u64, random: &mut Random) -> Encoding {
    let op_code = code.op_code();
    let memory = if encodings(code) == 256 {
        random.chance(2)
    } else {
        number.is_multiple_of(2)
    };
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for (n, &kind) in op_code.op_kinds().iter().enumerate() {
        let n = n as u32;
        let xmm = Register::XMM0 + random.below(16) as u32;
        let mm = Register::MM0 + random.below(8) as u32;
        let st = Register::ST0 + random.below(8) as u32;
        let general = random.below(3) as u32;
        let register = match kind {
            OpCodeOperandKind::xmm_reg | OpCodeOperandKind::xmm_rm => xmm,
            OpCodeOperandKind::mm_reg | OpCodeOperandKind::mm_rm => mm,
            OpCodeOperandKind::r32_reg | OpCodeOperandKind::r32_rm => Register::EAX + general,
            OpCodeOperandKind::r64_reg | OpCodeOperandKind::r64_rm => Register::RAX + general,
            OpCodeOperandKind::st0 => Register::ST0,
            OpCodeOperandKind::sti_opcode => st,
            OpCodeOperandKind::ax => Register::AX,
            OpCodeOperandKind::xmm_or_mem if !memory => xmm,
            OpCodeOperandKind::mm_or_mem if !memory => mm,
            OpCodeOperandKind::r8_or_mem if !memory => Register::AL + general,
            OpCodeOperandKind::r16_or_mem if !memory => Register::AX + general,
            OpCodeOperandKind::r32_or_mem if !memory => Register::EAX + general,
            OpCodeOperandKind::r64_or_mem if !memory => Register::RAX + general,
            OpCodeOperandKind::imm8 => {
                instruction.set_op_kind(n, iced_x86::OpKind::Immediate8);
                instruction.set_immediate8(number as u8);
                continue;
            }
            OpCodeOperandKind::seg_rDI => {
                instruction.set_op_kind(n, iced_x86::OpKind::MemorySegRDI);
                continue;
            }
            OpCodeOperandKind::mem
            | OpCodeOperandKind::xmm_or_mem
            | OpCodeOperandKind::mm_or_mem
            | OpCodeOperandKind::r8_or_mem
            | OpCodeOperandKind::r16_or_mem
            | OpCodeOperandKind::r32_or_mem
            | OpCodeOperandKind::r64_or_mem => {
                let operand = MemoryOperand::with_base(Register::RSI);
                instruction.set_op_kind(n, iced_x86::OpKind::Memory);
                instruction.set_memory_base(operand.base);
                continue;
            }
            other => panic!("{code:?}: operand {n} is {other:?}"),
        };
        instruction.set_op_kind(n, iced_x86::OpKind::Register);
        instruction.set_op_register(n, register);
    }
    let mut encoder = Encoder::new(64);
    encoder
        .encode(&instruction, 0)
        .unwrap_or_else(|error| panic!("{code:?}: {error}"));
    let bytes = encoder.take_buffer();
    let decoded = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
    assert_eq!(decoded.code(), code, "{bytes:02x?}");
    assert_eq!(decoded.len(), bytes.len(), "{code:?} {bytes:02x?}");
    Encoding {
        instruction: decoded,
        bytes,
    }
}
