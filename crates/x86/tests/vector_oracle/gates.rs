//! What the control registers have to allow before a vector or x87 instruction (volume 3, 2.5 and
//! 10.1, tables 10-1 and 14-1 of the instructions' manual's exception classes).

use iced_x86::{Code, CpuidFeature, Mnemonic, OpCodeOperandKind};
use x86::fault::{DEVICE_NOT_AVAILABLE, INVALID_OPCODE, SIMD_FAULT};

use crate::native::{DATA, FxArea, State};
use crate::values::Random;
use crate::{forms, whole};

const MP: u64 = 1 << 1;
const EM: u64 = 1 << 2;
const TS: u64 = 1 << 3;
const OSFXSR: u64 = 1 << 9;
const OSXMMEXCPT: u64 = 1 << 10;

/// Kinds of instruction, to the control registers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    X87,
    Wait,
    Mmx,
    Sse,
    Fxsave,
    /// Without vector registers: fences, prefetches, MOVNTI, CRC32.
    Free,
}

fn kind(code: Code) -> Kind {
    let op_code = code.op_code();
    let names = |part: &str| {
        op_code
            .op_kinds()
            .iter()
            .any(|kind: &OpCodeOperandKind| format!("{kind:?}").starts_with(part))
    };
    let has = |feature| code.cpuid_features().contains(&feature);
    if code == Code::Wait {
        Kind::Wait
    } else if has(CpuidFeature::FPU) || has(CpuidFeature::FPU287) || has(CpuidFeature::FPU387) {
        Kind::X87
    } else if has(CpuidFeature::FXSR) {
        Kind::Fxsave
    } else if names("xmm") || matches!(code.mnemonic(), Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr) {
        Kind::Sse
    } else if names("mm") || code == Code::Emms {
        Kind::Mmx
    } else {
        Kind::Free
    }
}

/// The exception that the control registers make of it.
fn expected(kind: Kind, cr0: u64, cr4: u64) -> Option<u8> {
    let (em, ts, mp) = (cr0 & EM != 0, cr0 & TS != 0, cr0 & MP != 0);
    match kind {
        Kind::X87 | Kind::Fxsave if em || ts => Some(DEVICE_NOT_AVAILABLE),
        Kind::Wait if mp && ts => Some(DEVICE_NOT_AVAILABLE),
        Kind::Mmx | Kind::Sse if em => Some(INVALID_OPCODE),
        Kind::Sse if cr4 & OSFXSR == 0 => Some(INVALID_OPCODE),
        Kind::Mmx | Kind::Sse if ts => Some(DEVICE_NOT_AVAILABLE),
        _ => None,
    }
}

/// A state in which no form faults by itself.
fn quiet() -> State {
    let mut state = State::new();
    state.fx = FxArea::initial();
    state.gpr[6] = DATA + 64;
    state.gpr[7] = DATA + 64;
    // What FXRSTOR and LDMXCSR load.
    state.data[64..][..4].copy_from_slice(&0x037fu32.to_le_bytes());
    state.data[64 + 24..][..4].copy_from_slice(&0x1f80u32.to_le_bytes());
    state
}

#[test]
fn every_form_needs_what_its_kind_needs() {
    let mut machine = whole::Machine::new();
    let (cr0, cr4) = (machine.cpu.registers.cr0, machine.cpu.registers.cr4);
    let mut codes = forms::all();
    codes.push(Code::Wait);
    for code in codes {
        let mut random = Random::of(3, code, 0);
        let encoding = forms::encode(code, 0, &mut random);
        for case in 0..16 {
            let bit = |n: u32, mask: u64| if case >> n & 1 != 0 { mask } else { 0 };
            let registers = &mut machine.cpu.registers;
            registers.cr0 = cr0 & !(MP | EM | TS) | bit(0, MP) | bit(1, EM) | bit(2, TS);
            registers.cr4 = cr4 & !OSFXSR | bit(3, OSFXSR);
            let expected = expected(kind(code), registers.cr0, registers.cr4);
            let mut state = quiet();
            machine.execute(&encoding.bytes, &mut state);
            let raised = state.raised.map(|raised| raised.vector as u8);
            assert_eq!(
                raised,
                expected,
                "{code:?}, a {:?}, with CR0 {:x} and CR4 {:x}",
                kind(code),
                machine.cpu.registers.cr0,
                machine.cpu.registers.cr4
            );
        }
    }
}

/// CR4.OSXMMEXCPT: without it an SSE exception is #UD.
#[test]
fn an_sse_exception_is_an_invalid_opcode_where_the_system_does_not_know_it() {
    let mut machine = whole::Machine::new();
    let cr4 = machine.cpu.registers.cr4;
    for (known, expected) in [(OSXMMEXCPT, SIMD_FAULT), (0, INVALID_OPCODE)] {
        machine.cpu.registers.cr4 = cr4 & !OSXMMEXCPT | known;
        let mut state = quiet();
        state.fx.set_mxcsr(0);
        // DIVSS XMM0, XMM1: zero by zero.
        machine.execute(&[0xf3, 0x0f, 0x5e, 0xc1], &mut state);
        assert_eq!(
            state.raised.map(|raised| raised.vector as u8),
            Some(expected)
        );
        assert_eq!(state.fx.mxcsr(), 1);
    }
}
