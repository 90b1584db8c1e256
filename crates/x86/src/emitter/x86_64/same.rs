//! Instructions that the host has, too: with other registers and another address.

use super::emitter::Emitter;
use super::layout::*;
use super::memory::Access;
use crate::emitter::piece::Step;
use dynasmrt::{DynamicLabel, DynasmApi, dynasm};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// 8-bit registers by number.
const BYTES: [Register; 16] = [
    Register::AL,
    Register::CL,
    Register::DL,
    Register::BL,
    Register::SPL,
    Register::BPL,
    Register::SIL,
    Register::DIL,
    Register::R8L,
    Register::R9L,
    Register::R10L,
    Register::R11L,
    Register::R12L,
    Register::R13L,
    Register::R14L,
    Register::R15L,
];

/// A general register by number and size.
fn general(number: Host, size: usize) -> Register {
    let number = u32::from(number);
    match size {
        1 => BYTES[number as usize],
        2 => Register::AX + number,
        4 => Register::EAX + number,
        _ => Register::RAX + number,
    }
}

/// The form of an instruction that takes any register, where the present one takes rAX only.
fn without_accumulator(code: Code) -> Code {
    macro_rules! forms {
        ($($from:ident $to:ident,)*) => {
            match code {
                $(Code::$from => Code::$to,)*
                other => other,
            }
        };
    }
    forms! {
        Add_AL_imm8 Add_rm8_imm8, Add_AX_imm16 Add_rm16_imm16,
        Add_EAX_imm32 Add_rm32_imm32, Add_RAX_imm32 Add_rm64_imm32,
        Or_AL_imm8 Or_rm8_imm8, Or_AX_imm16 Or_rm16_imm16,
        Or_EAX_imm32 Or_rm32_imm32, Or_RAX_imm32 Or_rm64_imm32,
        Adc_AL_imm8 Adc_rm8_imm8, Adc_AX_imm16 Adc_rm16_imm16,
        Adc_EAX_imm32 Adc_rm32_imm32, Adc_RAX_imm32 Adc_rm64_imm32,
        Sbb_AL_imm8 Sbb_rm8_imm8, Sbb_AX_imm16 Sbb_rm16_imm16,
        Sbb_EAX_imm32 Sbb_rm32_imm32, Sbb_RAX_imm32 Sbb_rm64_imm32,
        And_AL_imm8 And_rm8_imm8, And_AX_imm16 And_rm16_imm16,
        And_EAX_imm32 And_rm32_imm32, And_RAX_imm32 And_rm64_imm32,
        Sub_AL_imm8 Sub_rm8_imm8, Sub_AX_imm16 Sub_rm16_imm16,
        Sub_EAX_imm32 Sub_rm32_imm32, Sub_RAX_imm32 Sub_rm64_imm32,
        Xor_AL_imm8 Xor_rm8_imm8, Xor_AX_imm16 Xor_rm16_imm16,
        Xor_EAX_imm32 Xor_rm32_imm32, Xor_RAX_imm32 Xor_rm64_imm32,
        Cmp_AL_imm8 Cmp_rm8_imm8, Cmp_AX_imm16 Cmp_rm16_imm16,
        Cmp_EAX_imm32 Cmp_rm32_imm32, Cmp_RAX_imm32 Cmp_rm64_imm32,
        Test_AL_imm8 Test_rm8_imm8, Test_AX_imm16 Test_rm16_imm16,
        Test_EAX_imm32 Test_rm32_imm32, Test_RAX_imm32 Test_rm64_imm32,
        Xchg_r16_AX Xchg_rm16_r16, Xchg_r32_EAX Xchg_rm32_r32, Xchg_r64_RAX Xchg_rm64_r64,
    }
}

/// What an instruction does to its operand in memory.
pub(super) fn access(step: &Step) -> Access {
    if step.writes_memory() {
        Access::Write
    } else {
        Access::Read
    }
}

/// Whether an instruction writes its operand of this number, if that is a register.
fn writes(instruction: &Instruction, operand: u32) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt => false,
        Mnemonic::Xchg | Mnemonic::Xadd => true,
        _ => operand == 0,
    }
}

impl Emitter<'_> {
    /// The present instruction, done by the host's.
    pub(super) fn same(&mut self) -> Result<(), ()> {
        let step = self.present();
        let back = self.encode_present()?;
        self.wrote_flags(step.writes);
        if matches!(
            step.instruction.mnemonic(),
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test
        ) {
            self.flags.clears_adjust = true;
        }
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    /// Emits it, flags and memory looked after before; not yet what comes behind it.
    pub(super) fn encode_present(&mut self) -> Result<Option<DynamicLabel>, ()> {
        let step = self.present();
        let kept = if step.writes == 0 {
            0
        } else {
            step.live & !step.writes
        };
        let needs = step.reads | kept;
        if !step.has_memory() {
            self.load_flags(needs);
            self.encode(RAX, &[RCX, RAX])?;
            return Ok(None);
        }
        let back = self.operand(access(step))?;
        if needs == 0 {
            self.encode(RAX, &[RCX])?;
        } else {
            dynasm!(self.asm; .arch x64; mov rcx, rax);
            self.load_flags(needs);
            self.encode(RCX, &[RAX])?;
        }
        Ok(back)
    }

    /// The present instruction with its operand in memory at `base`; guest registers without a host
    /// register are in `scratches` meanwhile.
    pub(super) fn encode(&mut self, base: Host, scratches: &[Host]) -> Result<(), ()> {
        let mut instruction = self.present().instruction;
        instruction.set_code(without_accumulator(instruction.code()));
        instruction.set_has_lock_prefix(false); // one thread runs all
        instruction.set_has_rep_prefix(false);
        instruction.set_has_repne_prefix(false);
        let mut lent: [Option<(u8, Host, bool)>; 2] = [None; 2];
        let mut free = scratches.iter();
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Memory => {
                    instruction.set_memory_base(general(base, 8));
                    instruction.set_memory_index(Register::None);
                    instruction.set_memory_displacement64(0);
                    instruction.set_memory_displ_size(0);
                    instruction.set_segment_prefix(Register::None);
                }
                OpKind::Register if instruction.op_register(operand).is_gpr() => {
                    let register = instruction.op_register(operand);
                    let guest = register.full_register().number() as u8;
                    let is_written = writes(&instruction, operand);
                    let known = lent.iter_mut().flatten().find(|lent| lent.0 == guest);
                    let host = match (HOMES[usize::from(guest)], known) {
                        (Some(home), _) => home,
                        (None, Some(known)) => {
                            known.2 |= is_written;
                            known.1
                        }
                        (None, None) => {
                            let scratch = *free.next().ok_or(())?;
                            dynasm!(self.asm; .arch x64; mov Rq(scratch), [rsp + spilled(guest)]);
                            let place = lent.iter_mut().find(|place| place.is_none());
                            *place.ok_or(())? = Some((guest, scratch, is_written));
                            scratch
                        }
                    };
                    instruction.set_op_register(operand, general(host, register.size()));
                }
                _ => {}
            }
        }
        self.emit_encoded(&instruction)?;
        for (guest, host, is_written) in lent.into_iter().flatten() {
            if is_written {
                self.put(guest, host);
            }
        }
        Ok(())
    }

    fn emit_encoded(&mut self, instruction: &Instruction) -> Result<(), ()> {
        self.encoder.encode(instruction, 0).map_err(|_| ())?;
        let bytes = self.encoder.take_buffer();
        self.asm.extend(&bytes);
        Ok(())
    }

    /// LEA.
    pub(super) fn load_address(&mut self) -> Result<(), ()> {
        let step = self.present();
        let register = step.instruction.op_register(0);
        let guest = register.full_register().number() as u8;
        if register.size() == 2 {
            return Err(());
        }
        let to = HOMES[usize::from(guest)].unwrap_or(RAX);
        let is_wide = register.size() == 8 && !step.op.is_address_32;
        let (base, index, displacement) = self.parts(&step.op)?;
        self.lea(to, base, index, displacement, is_wide);
        self.put(guest, to);
        Ok(())
    }
}
