//! Decoding for the vector and x87 units.

use super::{is_memory, two_operands};
use crate::interpreter::alu::Form;
use crate::interpreter::op::{Handler, Op};
use crate::interpreter::vector::{self, needs};
use crate::interpreter::width::{Double, Quad};
use crate::simd::operations;
use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic, Register};

/// What the vector and x87 units have; all else is undefined.
pub(super) fn set_vector(op: &mut Op, instruction: &Instruction) -> bool {
    if let Some(handler) =
        vector_move(op, instruction).or_else(|| vector_operation(op, instruction))
    {
        op.handler = handler;
        return false;
    }
    let Some(needs) = needs(instruction) else {
        return true;
    };
    op.detail = needs;
    op.instruction = Some(Box::new(*instruction));
    op.handler = vector::execute;
    false
}

/// The moves between XMM registers and memory, which are what copies are made of.
fn vector_move(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let mut alignment = 0;
    let is_whole = match instruction.code() {
        Code::Movdqa_xmm_xmmm128
        | Code::Movaps_xmm_xmmm128
        | Code::Movapd_xmm_xmmm128
        | Code::Movdqa_xmmm128_xmm
        | Code::Movaps_xmmm128_xmm
        | Code::Movapd_xmmm128_xmm => {
            alignment = 15;
            true
        }
        Code::Movdqu_xmm_xmmm128
        | Code::Movups_xmm_xmmm128
        | Code::Movupd_xmm_xmmm128
        | Code::Movdqu_xmmm128_xmm
        | Code::Movups_xmmm128_xmm
        | Code::Movupd_xmmm128_xmm => true,
        _ => false,
    };
    let handler: Handler = match instruction.code() {
        _ if is_whole => match two_operands(op, instruction) {
            Form::RegisterRegister => vector::move_register,
            Form::RegisterMemory => vector::move_load,
            _ => vector::move_store,
        },
        Code::Movss_xmm_xmmm32 | Code::Movd_xmm_rm32 if is_memory(instruction, 1) => {
            vector::move_load_low::<Double>
        }
        Code::Movsd_xmm_xmmm64 | Code::Movq_xmm_xmmm64 | Code::Movq_xmm_rm64
            if is_memory(instruction, 1) =>
        {
            vector::move_load_low::<Quad>
        }
        Code::Movss_xmmm32_xmm | Code::Movd_rm32_xmm if is_memory(instruction, 0) => {
            vector::move_store_low::<Double>
        }
        Code::Movsd_xmmm64_xmm
        | Code::Movq_xmmm64_xmm
        | Code::Movq_rm64_xmm
        | Code::Movlps_m64_xmm
        | Code::Movlpd_m64_xmm
            if is_memory(instruction, 0) =>
        {
            vector::move_store_low::<Quad>
        }
        _ => return None,
    };
    two_operands(op, instruction);
    op.immediate = alignment;
    Some(handler)
}

/// The operations that are a function of two registers and nothing else.
fn vector_operation(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let index = operations::find(instruction.code())?;
    let handler: Handler = match two_operands(op, instruction) {
        Form::RegisterRegister => vector::operate,
        _ => vector::operate_memory,
    };
    op.immediate = index as u64;
    Some(handler)
}

/// What a vector or x87 instruction needs to be set up; `None` for what is neither.
pub(crate) fn needs(instruction: &Instruction) -> Option<u8> {
    if instruction.mnemonic() == Mnemonic::Wait {
        // To the decoder it is the 8086's.
        return Some(needs::WAIT);
    }
    let mut needs = None;
    for feature in instruction.cpuid_features() {
        let by_feature = match feature {
            CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 => {
                return Some(needs::X87);
            }
            CpuidFeature::CMOV => continue,
            CpuidFeature::MMX => needs::MMX,
            CpuidFeature::SSE
            | CpuidFeature::SSE2
            | CpuidFeature::SSE3
            | CpuidFeature::SSSE3
            | CpuidFeature::SSE4_1
            | CpuidFeature::SSE4_2
            | CpuidFeature::AES
            | CpuidFeature::PCLMULQDQ
            | CpuidFeature::SHA => needs::SSE,
            CpuidFeature::FXSR => needs::FXSR,
            _ => return None,
        };
        needs = needs.max(Some(by_feature));
    }
    if needs == Some(needs::SSE) && is_mmx_only(instruction) {
        needs = Some(needs::MMX);
    }
    needs
}

/// CR4.OSFXSR is about XMM registers and MXCSR, whichever extension brought the instruction.
fn is_mmx_only(instruction: &Instruction) -> bool {
    let registers = || (0..3).map(|operand| instruction.op_register(operand));
    let converts = matches!(
        instruction.mnemonic(),
        Mnemonic::Cvtps2pi | Mnemonic::Cvttps2pi | Mnemonic::Cvtpd2pi | Mnemonic::Cvttpd2pi
    );
    registers().any(Register::is_mm) && !registers().any(Register::is_xmm) && !converts
}
