//! What floating point needs of the routines: constants, the host's MXCSR, `xmm` registers around
//! calls.

use crate::emitter::x86_64::layout::*;
use crate::float::{CANONICAL_NAN_F32, CANONICAL_NAN_F64, Flags};
use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};

type Assembler = VecAssembler<X64Relocation>;

/// MXCSR: nothing traps, to nearest even, subnormals as they are, no flag raised.
const MXCSR: i32 = 0x1f80;
/// Its flags but for "denormal operand", which RISC-V does not have.
const MXCSR_FLAGS: i32 = 0x3d;
/// What each flag of MXCSR, from bit 0 on, is to RISC-V.
const FLAGS: [Flags; 6] = [
    Flags::INVALID,
    Flags::NONE,
    Flags::DIVIDE_BY_ZERO,
    Flags::OVERFLOW,
    Flags::UNDERFLOW,
    Flags::INEXACT,
];

/// Addresses of constants, each of 16 bytes.
#[derive(Clone, Copy, Default)]
pub struct Constants {
    mxcsr: usize,
    /// `fflags` for each value of MXCSR's flags.
    flags: usize,
    pub nan_single: usize,
    pub nan_double: usize,
    pub sign_single: usize,
    pub sign_double: usize,
    pub magnitude_single: usize,
    pub magnitude_double: usize,
}

impl Constants {
    /// Emits them; `base` is the address at which `asm` begins.
    pub fn emit(asm: &mut Assembler, base: usize) -> Constants {
        let mut constant = |low: u64, high: u64| {
            let address = base + asm.offset().0;
            dynasm!(asm; .arch x64; .u64 low; .u64 high);
            address
        };
        let sign_single = u64::from(1_u32 << 31);
        let sign_double = 1 << 63;
        let mut constants = Constants {
            mxcsr: constant(MXCSR as u64, 0),
            flags: 0,
            nan_single: constant(CANONICAL_NAN_F32.into(), 0),
            nan_double: constant(CANONICAL_NAN_F64, 0),
            sign_single: constant(sign_single, 0),
            sign_double: constant(sign_double, 0),
            magnitude_single: constant(sign_single - 1, 0),
            magnitude_double: constant(sign_double - 1, 0),
        };
        constants.flags = base + asm.offset().0;
        for host in 0..1 << FLAGS.len() {
            let raised = (0..FLAGS.len()).filter(|bit| host >> bit & 1 != 0);
            let flags = raised.fold(Flags::NONE, |flags, bit| flags | FLAGS[bit]);
            asm.push(flags.bits());
        }
        constants
    }

    /// No flag is raised in MXCSR: it is written only if one was, for that waits for all arithmetic.
    pub fn clear_flags(&self, asm: &mut Assembler) {
        let clear = asm.new_dynamic_label();
        dynasm!(asm; .arch x64
            ; vstmxcsr [rsp - 8]
            ; cmp DWORD [rsp - 8], MXCSR
            ; je =>clear
            ; vldmxcsr [extern self.mxcsr]
            ; =>clear
        );
    }

    /// MXCSR is in `eax`: leaves the flags that it holds there, as RISC-V has them. Uses `rcx`.
    pub fn map_flags(&self, asm: &mut Assembler) {
        dynasm!(asm; .arch x64
            ; and eax, MXCSR_FLAGS
            ; lea rcx, [extern self.flags]
            ; movzx eax, BYTE [rcx + rax]
        );
    }

    /// Adds the flags of MXCSR to `fflags`. Uses `rsi` and `rdi`.
    pub fn accrue_flags(&self, asm: &mut Assembler) {
        let none = asm.new_dynamic_label();
        dynasm!(asm; .arch x64
            ; vstmxcsr [rsp - 8]
            ; mov edi, [rsp - 8]
            ; and edi, MXCSR_FLAGS
            ; jz =>none
            ; lea rsi, [extern self.flags]
            ; mov sil, [rsi + rdi]
            ; or [rbp + FFLAGS], sil
            ; =>none
        );
    }
}

/// The `xmm` registers that hold F registers.
const HELD: std::ops::Range<u8> = 2..16;
/// Bytes of stack for them and MXCSR; a multiple of 16.
const STACK: i32 = 128;
const STACK_MXCSR: i32 = 120;

/// Saves MXCSR and the `xmm` registers that hold F registers on the stack.
pub fn push_floats(asm: &mut Assembler) {
    dynasm!(asm; .arch x64; sub rsp, STACK; vstmxcsr [rsp + STACK_MXCSR]);
    for (slot, register) in HELD.enumerate() {
        dynasm!(asm; .arch x64; vmovsd [rsp + 8 * slot as i32], Rx(register));
    }
}

/// The reverse. Uses `rcx`.
pub fn pop_floats(asm: &mut Assembler) {
    for (slot, register) in HELD.enumerate() {
        dynasm!(asm; .arch x64; vmovsd Rx(register), [rsp + 8 * slot as i32]);
    }
    put_flags_back(asm, STACK_MXCSR);
    dynasm!(asm; .arch x64; add rsp, STACK);
}

/// MXCSR becomes what was saved at `[rsp + slot]`, if a call has changed it: writing it waits for all
/// arithmetic. Uses `rcx`.
pub fn put_flags_back(asm: &mut Assembler, slot: i32) {
    let same = asm.new_dynamic_label();
    dynasm!(asm; .arch x64
        ; vstmxcsr [rsp - 8]
        ; mov ecx, [rsp - 8]
        ; cmp ecx, [rsp + slot]
        ; je =>same
        ; vldmxcsr [rsp + slot]
        ; =>same
    );
}
