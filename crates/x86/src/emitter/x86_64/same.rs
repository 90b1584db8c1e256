//! Instructions that the host has, too: with other registers and another address.

use super::emitter::Emitter;
use super::layout::*;
use super::memory::{Access, Place};
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

/// The form of ADD for that of SUB, and the other way round; any other as it is.
fn inverse(code: Code) -> Code {
    macro_rules! forms {
        ($($add:ident $sub:ident,)*) => {
            match code {
                $(Code::$add => Code::$sub, Code::$sub => Code::$add,)*
                other => other,
            }
        };
    }
    forms! {
        Add_rm8_r8 Sub_rm8_r8, Add_rm16_r16 Sub_rm16_r16, Add_rm32_r32 Sub_rm32_r32,
        Add_rm64_r64 Sub_rm64_r64, Add_r8_rm8 Sub_r8_rm8, Add_r16_rm16 Sub_r16_rm16,
        Add_r32_rm32 Sub_r32_rm32, Add_r64_rm64 Sub_r64_rm64, Add_rm8_imm8 Sub_rm8_imm8,
        Add_rm16_imm16 Sub_rm16_imm16, Add_rm32_imm32 Sub_rm32_imm32, Add_rm64_imm32 Sub_rm64_imm32,
        Add_rm16_imm8 Sub_rm16_imm8, Add_rm32_imm8 Sub_rm32_imm8, Add_rm64_imm8 Sub_rm64_imm8,
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

/// Whether an instruction writes all of its first operand, a register, whatever was there.
fn overwrites(instruction: &Instruction) -> bool {
    let is_whole = instruction.op_register(0).size() >= 4;
    is_whole
        && matches!(
            instruction.mnemonic(),
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd
        )
}

/// Whether it is the form whose first operand may be memory, and whose second is a register.
fn takes_memory_first(code: Code) -> bool {
    matches!(
        code,
        Code::Add_rm8_r8
            | Code::Add_rm16_r16
            | Code::Add_rm32_r32
            | Code::Add_rm64_r64
            | Code::Or_rm8_r8
            | Code::Or_rm16_r16
            | Code::Or_rm32_r32
            | Code::Or_rm64_r64
            | Code::Adc_rm8_r8
            | Code::Adc_rm16_r16
            | Code::Adc_rm32_r32
            | Code::Adc_rm64_r64
            | Code::Sbb_rm8_r8
            | Code::Sbb_rm16_r16
            | Code::Sbb_rm32_r32
            | Code::Sbb_rm64_r64
            | Code::And_rm8_r8
            | Code::And_rm16_r16
            | Code::And_rm32_r32
            | Code::And_rm64_r64
            | Code::Sub_rm8_r8
            | Code::Sub_rm16_r16
            | Code::Sub_rm32_r32
            | Code::Sub_rm64_r64
            | Code::Xor_rm8_r8
            | Code::Xor_rm16_r16
            | Code::Xor_rm32_r32
            | Code::Xor_rm64_r64
            | Code::Cmp_rm8_r8
            | Code::Cmp_rm16_r16
            | Code::Cmp_rm32_r32
            | Code::Cmp_rm64_r64
            | Code::Mov_rm8_r8
            | Code::Mov_rm16_r16
            | Code::Mov_rm32_r32
            | Code::Mov_rm64_r64
    )
}

/// A guest register without a host register that is in a scratch register for one instruction.
#[derive(Clone, Copy)]
struct Lent {
    guest: u8,
    host: Host,
    /// The size of the operand that is written, if one is.
    written: Option<usize>,
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
        if step.writes != 0 {
            self.remember_origin();
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
            self.encode(RAX, Place::HERE, &[RCX, RAX])?;
            return Ok(None);
        }
        if needs != 0 {
            self.save_flags(); // later there is no register for that
        }
        let (back, place) = self.indexed_operand(access(step))?;
        if needs == 0 {
            self.encode(RAX, place, &[RCX])?;
        } else {
            dynasm!(self.asm; .arch x64; mov rcx, rax);
            self.load_flags(needs);
            self.encode(RCX, place, &[RAX])?;
        }
        Ok(back)
    }

    /// The present instruction with its operand in memory at `base`; guest registers without a host
    /// register are in `scratches` meanwhile, or stay in the frame.
    pub(super) fn encode(
        &mut self,
        base: Host,
        place: Place,
        scratches: &[Host],
    ) -> Result<(), ()> {
        let mut instruction = self.present().instruction;
        instruction.set_code(without_accumulator(instruction.code()));
        instruction.set_has_lock_prefix(false); // one thread runs all
        instruction.set_has_rep_prefix(false);
        instruction.set_has_repne_prefix(false);
        if self.encode_in_frame(&instruction).is_ok() {
            return Ok(());
        }
        self.encode_in_scratches(instruction, base, place, scratches)
    }

    /// Emits what gives the host the flags of an instruction from what that left. Uses `rax`, and `rcx` perhaps.
    pub(super) fn encode_flags_of(&mut self, instruction: &Instruction) -> Result<(), ()> {
        let mut instruction = *instruction;
        instruction.set_code(without_accumulator(instruction.code()));
        let register = instruction.op_register(0);
        let size = register.size();
        match instruction.mnemonic() {
            Mnemonic::Cmp | Mnemonic::Test => {
                if self.encode_in_frame(&instruction).is_ok() {
                    return Ok(());
                }
                self.encode_in_scratches(instruction, RAX, Place::HERE, &[RCX, RAX])
            }
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => {
                let test = match size {
                    1 => Code::Test_rm8_r8,
                    2 => Code::Test_rm16_r16,
                    4 => Code::Test_rm32_r32,
                    _ => Code::Test_rm64_r64,
                };
                let test = Instruction::with2(test, register, register).map_err(|_| ())?;
                self.encode_in_scratches(test, RAX, Place::HERE, &[RAX])
            }
            Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar => {
                self.writes(RAX);
                dynasm!(self.asm; .arch x64; mov rax, [rsp + SHIFTED]);
                instruction.set_op_register(0, general(RAX, size));
                self.emit_encoded(&instruction)
            }
            mnemonic => {
                let guest_of = |register: Register| register.full_register().number() as u8;
                self.writes(RAX);
                let result = self.source(guest_of(register), RAX);
                if result != RAX {
                    dynasm!(self.asm; .arch x64; mov rax, Rq(result));
                }
                instruction.set_op_register(0, general(RAX, size));
                if mnemonic != Mnemonic::Neg && instruction.op_kind(1) == OpKind::Register {
                    let source = self.source(guest_of(instruction.op_register(1)), RCX);
                    instruction.set_op_register(1, general(source, size));
                }
                let mut back = instruction;
                back.set_code(inverse(instruction.code()));
                self.emit_encoded(&back)?;
                self.emit_encoded(&instruction)
            }
        }
    }

    /// Emits an instruction without an operand in memory, one register of which has no host register: that
    /// becomes an operand in memory, in the frame.
    fn encode_in_frame(&mut self, instruction: &Instruction) -> Result<(), ()> {
        let mut instruction = *instruction;
        let mut in_frame = None;
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Memory => return Err(()),
                OpKind::Register if instruction.op_register(operand).is_gpr() => {
                    let register = instruction.op_register(operand);
                    let guest = register.full_register().number() as u8;
                    match self.homes[usize::from(guest)] {
                        Some(home) => {
                            instruction.set_op_register(operand, general(home, register.size()));
                        }
                        None if in_frame.is_some() => return Err(()),
                        None => in_frame = Some((operand, guest, register.size())),
                    }
                }
                _ => {}
            }
        }
        let (operand, guest, size) = in_frame.ok_or(())?;
        let mnemonic = instruction.mnemonic();
        // Writing 32 bits clears the others, too.
        let is_written = writes(&instruction, operand);
        let is_narrow = self.narrow & 1 << guest != 0;
        if size == 4 && is_written && !is_narrow || mnemonic == Mnemonic::Xchg {
            return Err(());
        }
        // Of memory, some take bits beyond the operand, or write less than a register.
        let is_vector = (0..2).any(|operand| instruction.op_register(operand).is_xmm());
        let is_bit_test = matches!(
            mnemonic,
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
        );
        if is_bit_test || is_vector && is_written {
            return Err(());
        }
        if operand == 1 {
            match mnemonic {
                // The form with memory as its second operand comes four codes later.
                Mnemonic::Add
                | Mnemonic::Or
                | Mnemonic::Adc
                | Mnemonic::Sbb
                | Mnemonic::And
                | Mnemonic::Sub
                | Mnemonic::Xor
                | Mnemonic::Cmp
                | Mnemonic::Mov
                    if takes_memory_first(instruction.code()) =>
                {
                    let code = Code::try_from(instruction.code() as usize + 4);
                    instruction.set_code(code.map_err(|_| ())?);
                }
                Mnemonic::Test => {
                    instruction.set_op1_register(instruction.op0_register());
                    return self.encode_at_frame(instruction, 0, guest);
                }
                _ => {}
            }
        }
        self.encode_at_frame(instruction, operand, guest)?;
        if is_written {
            self.wrote(guest, size);
        }
        Ok(())
    }

    fn encode_at_frame(
        &mut self,
        instruction: Instruction,
        operand: u32,
        guest: u8,
    ) -> Result<(), ()> {
        let mut instruction = instruction;
        instruction.set_op_kind(operand, OpKind::Memory);
        instruction.set_memory_base(Register::RSP);
        instruction.set_memory_index(Register::None);
        instruction.set_memory_index_scale(1);
        instruction.set_memory_displacement64(self.spilled(guest) as u64);
        instruction.set_memory_displ_size(1);
        instruction.set_segment_prefix(Register::None);
        self.emit_encoded(&instruction)
    }

    fn encode_in_scratches(
        &mut self,
        instruction: Instruction,
        base: Host,
        place: Place,
        scratches: &[Host],
    ) -> Result<(), ()> {
        let mut instruction = instruction;
        let mut lent: [Option<Lent>; 2] = [None; 2];
        let mut free = scratches.iter();
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Memory => {
                    instruction.set_memory_base(general(base, 8));
                    let index = place
                        .index
                        .map_or((Register::None, 0), |(index, by)| (general(index, 8), by));
                    instruction.set_memory_index(index.0);
                    instruction.set_memory_index_scale(1 << index.1);
                    instruction.set_memory_displacement64(i64::from(place.displacement) as u64);
                    instruction.set_memory_displ_size(match place.displacement {
                        0 => 0,
                        -128..=127 => 1,
                        _ => 8, // a sign-extended double-word
                    });
                    instruction.set_segment_prefix(Register::None);
                }
                OpKind::Register if instruction.op_register(operand).is_gpr() => {
                    let register = instruction.op_register(operand);
                    let guest = register.full_register().number() as u8;
                    let is_written = writes(&instruction, operand);
                    let known = lent.iter_mut().flatten().find(|lent| lent.guest == guest);
                    let host = match (self.homes[usize::from(guest)], known) {
                        (Some(home), _) => home,
                        (None, Some(known)) => {
                            if is_written {
                                known.written = Some(register.size());
                            }
                            known.host
                        }
                        (None, None) => {
                            let scratch = *free.next().ok_or(())?;
                            self.writes(scratch);
                            let mut others = (operand + 1..instruction.op_count())
                                .filter(|&other| instruction.op_kind(other) == OpKind::Register)
                                .map(|other| instruction.op_register(other))
                                .filter(|other| other.full_register() == register.full_register())
                                .peekable();
                            let is_read = operand != 0
                                || !overwrites(&instruction)
                                || others.peek().is_some();
                            if is_read {
                                let is_narrow =
                                    register.size() == 4 && others.all(|other| other.size() == 4);
                                self.fetch(guest, scratch, if is_narrow { 4 } else { 8 });
                            }
                            let place = lent.iter_mut().find(|place| place.is_none());
                            *place.ok_or(())? = Some(Lent {
                                guest,
                                host: scratch,
                                written: is_written.then_some(register.size()),
                            });
                            scratch
                        }
                    };
                    instruction.set_op_register(operand, general(host, register.size()));
                }
                _ => {}
            }
        }
        self.emit_encoded(&instruction)?;
        for lent in lent.into_iter().flatten() {
            if let Some(size) = lent.written {
                let narrow = self.narrow;
                self.put(lent.guest, lent.host);
                self.narrow = narrow;
                self.wrote(lent.guest, size);
            }
        }
        Ok(())
    }

    /// An instruction with AH, CH, DH or BH: rAX stands for the register of that, rCX for another.
    pub(super) fn high_byte(&mut self) -> Result<(), ()> {
        let step = self.present();
        let kept = if step.writes == 0 {
            0
        } else {
            step.live & !step.writes
        };
        self.load_flags(step.reads | kept);
        let mut instruction = step.instruction;
        instruction.set_code(without_accumulator(instruction.code()));
        let guest_of = |register: Register| register.full_register().number() as u8;
        let is_high = |register: Register| (Register::AH..=Register::BH).contains(&register);
        let registers = 0..instruction.op_count();
        let high = registers
            .clone()
            .map(|operand| step.instruction.op_register(operand))
            .find(|&register| is_high(register))
            .map(guest_of)
            .ok_or(())?;
        let mut lent = [Some((high, RAX, false)), None];
        for operand in registers {
            if instruction.op_kind(operand) != OpKind::Register {
                continue;
            }
            let register = instruction.op_register(operand);
            let guest = guest_of(register);
            let (place, scratch) = if guest == high { (0, RAX) } else { (1, RCX) };
            let host = if is_high(register) {
                Register::AH
            } else {
                general(scratch, register.size())
            };
            let was_written = lent[place].is_some_and(|lent| lent.2);
            lent[place] = Some((guest, scratch, was_written || writes(&instruction, operand)));
            instruction.set_op_register(operand, host);
        }
        for (guest, scratch, _) in lent.into_iter().flatten() {
            let source = self.source(guest, scratch);
            if source != scratch {
                dynasm!(self.asm; .arch x64; mov Rq(scratch), Rq(source));
            }
        }
        self.emit_encoded(&instruction)?;
        for (guest, scratch, is_written) in lent.into_iter().flatten() {
            if is_written {
                self.put(guest, scratch);
            }
        }
        self.wrote_flags(step.writes);
        if matches!(
            step.instruction.mnemonic(),
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test
        ) {
            self.flags.clears_adjust = true;
        }
        Ok(())
    }

    /// MOV of AH, CH, DH or BH to memory.
    pub(super) fn store_high_byte(&mut self) -> Result<(), ()> {
        let register = self.present().instruction.op_register(1).full_register();
        let back = self.operand(Access::Write)?;
        let value = self.source(register.number() as u8, RCX);
        dynasm!(self.asm; .arch x64; mov rcx, Rq(value); mov [rax], ch);
        if let Some(back) = back {
            self.come_back(back);
        }
        Ok(())
    }

    fn emit_encoded(&mut self, instruction: &Instruction) -> Result<(), ()> {
        let encoded = self.encoder.encode(instruction, 0);
        // Of an instruction that has no encoding there may be something in the buffer.
        let bytes = self.encoder.take_buffer();
        encoded.map_err(|_| ())?;
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
        let to = self.homes[usize::from(guest)].unwrap_or(RAX);
        let is_wide = register.size() == 8 && !step.op.is_address_32;
        let (base, index, displacement) = self.parts(&step.op)?;
        self.lea(to, base, index, displacement, is_wide);
        self.put(guest, to);
        self.wrote(guest, register.size());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_with_memory_last_comes_four_codes_later() {
        for (first, last) in [
            (Code::Add_rm8_r8, Code::Add_r8_rm8),
            (Code::Or_rm16_r16, Code::Or_r16_rm16),
            (Code::Adc_rm32_r32, Code::Adc_r32_rm32),
            (Code::Sbb_rm64_r64, Code::Sbb_r64_rm64),
            (Code::And_rm8_r8, Code::And_r8_rm8),
            (Code::Sub_rm16_r16, Code::Sub_r16_rm16),
            (Code::Xor_rm32_r32, Code::Xor_r32_rm32),
            (Code::Cmp_rm64_r64, Code::Cmp_r64_rm64),
            (Code::Mov_rm8_r8, Code::Mov_r8_rm8),
            (Code::Mov_rm64_r64, Code::Mov_r64_rm64),
        ] {
            assert_eq!(Code::try_from(first as usize + 4).ok(), Some(last));
        }
    }
}
