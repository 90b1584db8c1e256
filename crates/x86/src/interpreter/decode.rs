//! From bytes to [`Op`]s.

mod systems;
mod vectors;

#[cfg(jit)]
pub(crate) use vectors::needs;

use super::alu::{self, Form, binary, unary};
use super::core::IN_COMPATIBILITY;
use super::multiply::Wide;
use super::op::{Handler, Op, RIP, ZERO};
use super::string::{REPEAT, REPEAT_NOT_EQUAL, Which};
use super::vector::number;
use super::{bits, compatibility, control, data, multiply, port, shift, string, system};
use crate::cpu::SS;
use iced_x86::{
    Code, ConditionCode, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind,
    Register,
};

/// The machine has no TZCNT and LZCNT: their prefix means nothing, the opcode is that of BSF and BSR.
const OPTIONS: u32 =
    DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD | DecoderOptions::NO_WBNOINVD;

/// Where code is said to be when it is decoded: blocks know physical addresses only, and all that is
/// relative to RIP is relative to the next instruction.
const ORIGIN: u64 = 1 << 40;
/// The same for 32-bit code.
const COMPATIBILITY_ORIGIN: u64 = 1 << 30;

/// An instruction, and whether a block ends behind it.
pub(crate) struct Decoded {
    pub op: Op,
    pub ends_block: bool,
    #[cfg(jit)]
    pub instruction: Instruction,
}

/// As [`decode`], for the code of a mode.
pub(super) fn of_mode(is_compatibility: bool) -> fn(&[u8], usize) -> Option<Decoded> {
    if is_compatibility {
        decode_compatibility
    } else {
        decode
    }
}

/// Decodes the instruction of 64-bit code at the beginning of `bytes`, `offset` bytes into its page. `None`
/// if its bytes do not suffice.
pub(crate) fn decode(bytes: &[u8], offset: usize) -> Option<Decoded> {
    decode_by(
        Decoder::with_ip(64, bytes, ORIGIN, OPTIONS),
        bytes,
        offset,
        set_handler,
    )
}

/// The same for 32-bit code.
fn decode_compatibility(bytes: &[u8], offset: usize) -> Option<Decoded> {
    let decoder = Decoder::with_ip(32, bytes, COMPATIBILITY_ORIGIN, OPTIONS);
    let mut decoded = decode_by(decoder, bytes, offset, compatibility::set_handler)?;
    if decoded.op.segment > 3 {
        decoded.op.segment |= IN_COMPATIBILITY;
    }
    Some(decoded)
}

fn decode_by(
    mut decoder: Decoder,
    bytes: &[u8],
    offset: usize,
    set_handler: fn(&mut Op, &Instruction) -> bool,
) -> Option<Decoded> {
    let instruction = decoder.decode();
    if decoder.last_error() == DecoderError::NoMoreBytes && bytes.len() < 15 {
        return None;
    }
    let length = instruction.len().max(1);
    let mut op = Op {
        handler: data::undefined,
        immediate: 0,
        displacement: 0,
        next: (offset + length) as u16,
        length: length as u8,
        target: ZERO,
        source: ZERO,
        base: ZERO,
        index: ZERO,
        scale: 0,
        segment: 0,
        is_address_32: false,
        detail: 0,
        instruction: None,
    };
    let mut ends_block = true;
    if !instruction.is_invalid() {
        set_memory(&mut op, &instruction);
        ends_block = set_handler(&mut op, &instruction);
    }
    Some(Decoded {
        op,
        ends_block,
        #[cfg(jit)]
        instruction,
    })
}

fn set_memory(op: &mut Op, instruction: &Instruction) {
    if instruction.is_stack_instruction() {
        op.segment = SS as u8;
    }
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::Memory => {
                let base = instruction.memory_base();
                let index = instruction.memory_index();
                op.base = match base {
                    Register::None => ZERO,
                    Register::RIP | Register::EIP => RIP,
                    register => register.number() as u8,
                };
                if index != Register::None {
                    op.index = index.number() as u8;
                    op.scale = instruction.memory_index_scale().trailing_zeros() as u8;
                }
                let mut displacement = instruction.memory_displacement64();
                if op.base == RIP {
                    displacement = displacement.wrapping_sub(instruction.next_ip());
                }
                op.displacement = displacement as i32;
                op.segment = segment(instruction, base);
                op.is_address_32 = base.size() == 4
                    || index.size() == 4
                    || base == Register::None
                        && index == Register::None
                        && instruction.memory_displ_size() == 4;
            }
            OpKind::MemorySegRDI | OpKind::MemorySegRSI => {
                op.segment = segment(instruction, Register::None);
                if instruction.op_kind(operand) == OpKind::MemorySegRDI {
                    op.base = 7;
                }
            }
            OpKind::MemorySegEDI | OpKind::MemorySegESI => {
                op.segment = segment(instruction, Register::None);
                op.is_address_32 = true;
                if instruction.op_kind(operand) == OpKind::MemorySegEDI {
                    op.base = 7;
                }
            }
            OpKind::MemoryESEDI => op.is_address_32 = true,
            _ => {}
        }
    }
}

/// Overrides with ES, CS, SS and DS are ignored in 64-bit mode: only the base says whether the stack is
/// meant (SDM volume 1, 3.7.4; what #SS and #GP depend on).
fn segment(instruction: &Instruction, base: Register) -> u8 {
    let segment = match instruction.memory_segment() {
        segment @ (Register::FS | Register::GS) => segment,
        _ if matches!(
            base,
            Register::RSP | Register::RBP | Register::ESP | Register::EBP
        ) =>
        {
            Register::SS
        }
        _ => Register::DS,
    };
    segment.number() as u8
}

fn size(instruction: &Instruction, operand: u32) -> usize {
    match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).size(),
        _ => instruction.memory_size().size(),
    }
}

fn is_register(instruction: &Instruction, operand: u32) -> bool {
    instruction.op_kind(operand) == OpKind::Register
}

fn is_memory(instruction: &Instruction, operand: u32) -> bool {
    instruction.op_kind(operand) == OpKind::Memory
}

fn register(instruction: &Instruction, operand: u32) -> u8 {
    number(instruction.op_register(operand))
}

/// Sets target, source and immediate for the first two operands, and says which they are.
fn two_operands(op: &mut Op, instruction: &Instruction) -> Form {
    let to_register = is_register(instruction, 0);
    if to_register {
        op.target = register(instruction, 0);
    }
    if is_register(instruction, 1) {
        op.source = register(instruction, 1);
        if to_register {
            Form::RegisterRegister
        } else {
            Form::MemoryRegister
        }
    } else if is_memory(instruction, 1) {
        Form::RegisterMemory
    } else {
        op.immediate = instruction.immediate(1);
        if to_register {
            Form::RegisterImmediate
        } else {
            Form::MemoryImmediate
        }
    }
}

/// Sets the register of a register-or-memory operand as source; true if it is memory.
fn source_or_memory(op: &mut Op, instruction: &Instruction, operand: u32) -> bool {
    if is_register(instruction, operand) {
        op.source = register(instruction, operand);
        false
    } else {
        true
    }
}

/// As [`source_or_memory`], for a target.
fn target_or_memory(op: &mut Op, instruction: &Instruction, operand: u32) -> bool {
    if is_register(instruction, operand) {
        op.target = register(instruction, operand);
        false
    } else {
        true
    }
}

/// The displacement of a near branch.
pub(super) fn branch(instruction: &Instruction) -> u64 {
    instruction
        .near_branch_target()
        .wrapping_sub(instruction.next_ip())
}

/// Chooses the handler. True if a block ends behind the instruction: it jumps, or changes what the next
/// instruction depends on.
pub(super) fn set_handler(op: &mut Op, instruction: &Instruction) -> bool {
    if instruction.is_string_instruction() {
        return set_string(op, instruction);
    }
    if let Some(handler) = arithmetic(op, instruction)
        .or_else(|| moves(op, instruction))
        .or_else(|| plain(op, instruction))
    {
        op.handler = handler;
        return false;
    }
    if let Some(handler) = jumps(op, instruction).or_else(|| systems::systems(op, instruction)) {
        op.handler = handler;
        return true;
    }
    if let Some(handler) = conditional(op, instruction) {
        op.handler = handler;
        return instruction.is_jcc_short_or_near();
    }
    vectors::set_vector(op, instruction)
}

fn set_string(op: &mut Op, instruction: &Instruction) -> bool {
    let which = match instruction.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => Which::Movs,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => Which::Stos,
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => Which::Lods,
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => Which::Cmps,
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => Which::Scas,
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => Which::Ins,
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => Which::Outs,
        _ => return true,
    };
    if instruction.has_rep_prefix() {
        op.detail |= REPEAT;
    }
    if instruction.has_repne_prefix() {
        op.detail |= REPEAT_NOT_EQUAL;
    }
    op.handler = string::string(which, instruction.memory_size().size());
    true
}

fn arithmetic(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    macro_rules! two {
        ($operation:ty) => {{
            let form = two_operands(op, instruction);
            binary::<$operation>(size(instruction, 0), form)
        }};
    }
    macro_rules! one {
        ($operation:ty) => {{
            let is_memory = target_or_memory(op, instruction, 0);
            unary::<$operation>(size(instruction, 0), is_memory)
        }};
    }
    macro_rules! shift {
        ($operation:ty) => {{
            let is_memory = target_or_memory(op, instruction, 0);
            let by_cl = is_register(instruction, 1);
            if !by_cl {
                op.immediate = instruction.immediate(1);
            }
            shift::shift::<$operation>(size(instruction, 0), is_memory, by_cl)
        }};
    }
    let wide = |op: &mut Op, which| {
        let is_memory = source_or_memory(op, instruction, 0);
        multiply::one_operand(which, size(instruction, 0), is_memory)
    };
    Some(match instruction.mnemonic() {
        Mnemonic::Add => two!(alu::Add),
        Mnemonic::Or => two!(alu::Or),
        Mnemonic::Adc => two!(alu::Adc),
        Mnemonic::Sbb => two!(alu::Sbb),
        Mnemonic::And => two!(alu::And),
        Mnemonic::Sub => two!(alu::Sub),
        Mnemonic::Xor => two!(alu::Xor),
        Mnemonic::Cmp => two!(alu::Cmp),
        Mnemonic::Test => two!(alu::Test),
        Mnemonic::Inc => one!(alu::Inc),
        Mnemonic::Dec => one!(alu::Dec),
        Mnemonic::Neg => one!(alu::Neg),
        Mnemonic::Not => one!(alu::Not),
        Mnemonic::Shl | Mnemonic::Sal => shift!(shift::Shl),
        Mnemonic::Shr => shift!(shift::Shr),
        Mnemonic::Sar => shift!(shift::Sar),
        Mnemonic::Rol => shift!(shift::Rol),
        Mnemonic::Ror => shift!(shift::Ror),
        Mnemonic::Rcl => shift!(shift::Rcl),
        Mnemonic::Rcr => shift!(shift::Rcr),
        Mnemonic::Shld | Mnemonic::Shrd => double_shift(op, instruction),
        Mnemonic::Mul => wide(op, Wide::Mul),
        Mnemonic::Div => wide(op, Wide::Div),
        Mnemonic::Idiv => wide(op, Wide::Idiv),
        Mnemonic::Imul if instruction.op_count() == 1 => wide(op, Wide::Imul),
        Mnemonic::Imul => {
            op.target = register(instruction, 0);
            let is_memory = source_or_memory(op, instruction, 1);
            let has_immediate = instruction.op_count() == 3;
            if has_immediate {
                op.immediate = instruction.immediate(2);
            }
            multiply::imul_to_register(size(instruction, 0), is_memory, has_immediate)
        }
        Mnemonic::Bt => bit_test(op, instruction, 0),
        Mnemonic::Bts => bit_test(op, instruction, 1),
        Mnemonic::Btr => bit_test(op, instruction, 2),
        Mnemonic::Btc => bit_test(op, instruction, 3),
        Mnemonic::Bsf | Mnemonic::Bsr => {
            op.target = register(instruction, 0);
            let is_memory = source_or_memory(op, instruction, 1);
            let is_forward = instruction.mnemonic() == Mnemonic::Bsf;
            bits::bit_scan(size(instruction, 0), is_memory, is_forward)
        }
        Mnemonic::Popcnt => {
            op.target = register(instruction, 0);
            let is_memory = source_or_memory(op, instruction, 1);
            bits::population_count(size(instruction, 0), is_memory)
        }
        Mnemonic::Crc32 => {
            op.target = register(instruction, 0);
            let is_memory = source_or_memory(op, instruction, 1);
            bits::crc32(size(instruction, 1), is_memory)
        }
        _ => return None,
    })
}

fn double_shift(op: &mut Op, instruction: &Instruction) -> Handler {
    op.source = register(instruction, 1);
    if target_or_memory(op, instruction, 0) {
        op.detail |= 4;
    }
    if instruction.mnemonic() == Mnemonic::Shld {
        op.detail |= 1;
    }
    if is_register(instruction, 2) {
        op.detail |= 2;
    } else {
        op.immediate = instruction.immediate(2);
    }
    shift::double_precision(size(instruction, 0))
}

fn bit_test(op: &mut Op, instruction: &Instruction, operation: u8) -> Handler {
    op.detail = operation;
    let is_memory = target_or_memory(op, instruction, 0);
    if is_register(instruction, 1) {
        op.source = register(instruction, 1);
    } else {
        op.immediate = instruction.immediate(1);
        op.detail |= 4;
    }
    bits::bit_test(size(instruction, 0), is_memory)
}

fn moves(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Mov => return mov(op, instruction),
        Mnemonic::Movnti => {
            let form = two_operands(op, instruction);
            data::mov(size(instruction, 0), form)
        }
        Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
            op.target = register(instruction, 0);
            let is_memory = source_or_memory(op, instruction, 1);
            let (to, from) = (size(instruction, 0), size(instruction, 1));
            if from == 2 && to == 2 {
                // MOVSXD of 16 bits is a move.
                let form = two_operands(op, instruction);
                return Some(data::mov(2, form));
            }
            let is_signed = instruction.mnemonic() != Mnemonic::Movzx;
            data::extending(to, from, is_memory, is_signed)
        }
        Mnemonic::Lea => {
            op.target = register(instruction, 0);
            data::load_address(size(instruction, 0))
        }
        Mnemonic::Xchg => {
            op.source = register(instruction, 1);
            let is_memory = target_or_memory(op, instruction, 0);
            data::exchange(size(instruction, 0), is_memory)
        }
        Mnemonic::Xadd => {
            op.source = register(instruction, 1);
            let is_memory = target_or_memory(op, instruction, 0);
            data::exchange_add(size(instruction, 0), is_memory)
        }
        Mnemonic::Cmpxchg => {
            op.source = register(instruction, 1);
            let is_memory = target_or_memory(op, instruction, 0);
            data::compare_exchange(size(instruction, 0), is_memory)
        }
        Mnemonic::Cmpxchg8b => data::compare_exchange_double(4),
        Mnemonic::Cmpxchg16b => data::compare_exchange_double(8),
        Mnemonic::Bswap => {
            op.target = register(instruction, 0);
            op.detail = size(instruction, 0) as u8;
            bits::byte_swap
        }
        Mnemonic::Push => return push(op, instruction),
        Mnemonic::Pop => {
            let size = instruction.stack_pointer_increment() as usize;
            if is_register(instruction, 0) && instruction.op_register(0).is_segment_register() {
                op.target = instruction.op_register(0).number() as u8;
                op.detail = size as u8;
                return Some(system::pop_segment);
            }
            let is_memory = target_or_memory(op, instruction, 0);
            data::pop(size, is_memory)
        }
        _ => return None,
    })
}

fn push(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let size = -instruction.stack_pointer_increment() as usize;
    Some(match instruction.op_kind(0) {
        OpKind::Register if instruction.op_register(0).is_segment_register() => {
            op.source = instruction.op_register(0).number() as u8;
            op.detail = size as u8;
            system::push_segment
        }
        OpKind::Register => {
            op.source = register(instruction, 0);
            data::push(size, Form::RegisterRegister)
        }
        OpKind::Memory => data::push(size, Form::RegisterMemory),
        _ => {
            op.immediate = instruction.immediate(0);
            data::push(size, Form::RegisterImmediate)
        }
    })
}

/// MOV of general registers; those of segment, control and debug registers are in `systems`.
fn mov(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    for operand in 0..2 {
        if is_register(instruction, operand) && !instruction.op_register(operand).is_gpr() {
            return None;
        }
    }
    let is_absolute = matches!(
        instruction.code(),
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    );
    let form = two_operands(op, instruction);
    if is_absolute {
        // 64 bits do not fit where displacements are kept.
        op.immediate = instruction.memory_displacement64();
        return Some(data::mov_absolute(
            size(instruction, 0),
            form == Form::RegisterMemory,
        ));
    }
    Some(data::mov(size(instruction, 0), form))
}

/// Instructions without or with fixed operands that only change registers.
fn plain(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let mut with = |detail: u8, handler: Handler| {
        op.detail = detail;
        Some(handler)
    };
    match instruction.mnemonic() {
        Mnemonic::Nop
        | Mnemonic::Reservednop
        | Mnemonic::Endbr64
        | Mnemonic::Endbr32
        | Mnemonic::Rdsspd
        | Mnemonic::Rdsspq
        | Mnemonic::Cldemote
        | Mnemonic::Lfence
        | Mnemonic::Mfence
        | Mnemonic::Sfence
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2 => with(0, data::nothing),
        Mnemonic::Pause => with(0, system::pause),
        Mnemonic::Clflush => with(0, data::flush_line),
        Mnemonic::Cbw => with(2, data::sign_extend_accumulator),
        Mnemonic::Cwde => with(4, data::sign_extend_accumulator),
        Mnemonic::Cdqe => with(8, data::sign_extend_accumulator),
        Mnemonic::Cwd => with(2, data::sign_to_data),
        Mnemonic::Cdq => with(4, data::sign_to_data),
        Mnemonic::Cqo => with(8, data::sign_to_data),
        Mnemonic::Sahf => with(0, data::store_ah),
        Mnemonic::Lahf => with(0, data::load_ah),
        Mnemonic::Clc => with(0, data::change_carry),
        Mnemonic::Stc => with(1, data::change_carry),
        Mnemonic::Cmc => with(2, data::change_carry),
        Mnemonic::Cld => with(0, data::change_direction),
        Mnemonic::Std => with(1, data::change_direction),
        Mnemonic::Xlatb => with(0, data::translate_byte),
        Mnemonic::Pushfq => with(8, data::push_flags),
        Mnemonic::Pushf => with(2, data::push_flags),
        Mnemonic::Leave => {
            let is_word = instruction.code() == Code::Leavew;
            with(if is_word { 2 } else { 8 }, data::leave)
        }
        Mnemonic::Enter => {
            op.immediate = u64::from(instruction.immediate16());
            op.source = instruction.immediate8_2nd() & 31;
            op.detail = if instruction.code() == Code::Enterw_imm16_imm8 {
                2
            } else {
                8
            };
            Some(data::enter)
        }
        Mnemonic::Cpuid => with(0, system::identify),
        Mnemonic::Rdtsc => with(0, system::read_time_stamp),
        Mnemonic::Rdtscp => with(1, system::read_time_stamp),
        Mnemonic::Rdpmc => with(0, system::read_performance_counter),
        Mnemonic::Swapgs => with(0, system::swap_gs),
        Mnemonic::Clac => with(0, system::change_alignment_check),
        Mnemonic::Stac => with(1, system::change_alignment_check),
        Mnemonic::Invlpg => with(0, system::invalidate_page),
        Mnemonic::Invd | Mnemonic::Wbinvd => with(0, system::write_back),
        Mnemonic::Clts => with(0, system::clear_task_switched),
        Mnemonic::Sgdt => with(0, system::store_table),
        Mnemonic::Sidt => with(1, system::store_table),
        Mnemonic::Rdfsbase => segment_base(op, instruction, 0),
        Mnemonic::Rdgsbase => segment_base(op, instruction, 1),
        Mnemonic::Wrfsbase => segment_base(op, instruction, 2),
        Mnemonic::Wrgsbase => segment_base(op, instruction, 3),
        Mnemonic::Str => store_selector(op, instruction, 7),
        Mnemonic::Sldt => store_selector(op, instruction, 6),
        Mnemonic::Smsw => store_selector(op, instruction, 8),
        Mnemonic::Lar | Mnemonic::Lsl => {
            op.target = register(instruction, 0);
            op.detail = size(instruction, 0) as u8;
            if instruction.mnemonic() == Mnemonic::Lsl {
                op.detail |= 0x80;
            }
            if source_or_memory(op, instruction, 1) {
                op.source = 255;
            }
            Some(system::look_at_segment)
        }
        Mnemonic::Verr | Mnemonic::Verw => {
            op.detail = u8::from(instruction.mnemonic() == Mnemonic::Verw);
            if source_or_memory(op, instruction, 0) {
                op.source = 255;
            }
            Some(system::verify_segment)
        }
        _ => None,
    }
}

fn segment_base(op: &mut Op, instruction: &Instruction, detail: u8) -> Option<Handler> {
    op.target = register(instruction, 0);
    op.detail = detail | if size(instruction, 0) == 8 { 4 } else { 0 };
    Some(system::segment_base)
}

fn store_selector(op: &mut Op, instruction: &Instruction, which: u8) -> Option<Handler> {
    op.source = which;
    if !target_or_memory(op, instruction, 0) {
        op.detail = size(instruction, 0) as u8;
    }
    Some(system::store_selector)
}

fn jumps(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let is_far = matches!(
        instruction.code(),
        Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    );
    if is_far {
        op.detail = match instruction.code() {
            Code::Jmp_m1616 | Code::Call_m1616 => 2,
            Code::Jmp_m1632 | Code::Call_m1632 => 4,
            _ => 8,
        };
        return Some(if instruction.mnemonic() == Mnemonic::Jmp {
            control::far_jump
        } else {
            control::far_call
        });
    }
    Some(match instruction.mnemonic() {
        Mnemonic::Jmp | Mnemonic::Call => {
            let is_call = instruction.mnemonic() == Mnemonic::Call;
            match instruction.op_kind(0) {
                OpKind::Register => {
                    op.target = register(instruction, 0);
                    if is_call {
                        control::call_register
                    } else {
                        control::jump_register
                    }
                }
                OpKind::Memory if is_call => control::call_memory,
                OpKind::Memory => control::jump_memory,
                _ => {
                    op.immediate = branch(instruction);
                    if is_call {
                        control::call
                    } else {
                        control::jump
                    }
                }
            }
        }
        Mnemonic::Ret => {
            if instruction.op_count() == 1 {
                op.immediate = u64::from(instruction.immediate16());
            }
            control::ret
        }
        Mnemonic::Retf => {
            if instruction.op_count() == 1 {
                op.immediate = u64::from(instruction.immediate16());
            }
            op.detail = match instruction.code() {
                Code::Retfw | Code::Retfw_imm16 => 2,
                Code::Retfd | Code::Retfd_imm16 => 4,
                _ => 8,
            };
            control::far_return
        }
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            op.detail = match instruction.code() {
                Code::Iretw => 2,
                Code::Iretd => 4,
                _ => 8,
            };
            control::interrupt_return
        }
        Mnemonic::Jrcxz | Mnemonic::Jecxz => {
            op.immediate = branch(instruction);
            op.is_address_32 = instruction.mnemonic() == Mnemonic::Jecxz;
            control::jump_if_no_count
        }
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => {
            op.immediate = branch(instruction);
            op.detail = match instruction.mnemonic() {
                Mnemonic::Loop => 0,
                Mnemonic::Loope => 1,
                _ => 2,
            };
            op.is_address_32 = matches!(
                instruction.code(),
                Code::Loop_rel8_64_ECX
                    | Code::Loope_rel8_64_ECX
                    | Code::Loopne_rel8_64_ECX
                    | Code::Loop_rel8_32_ECX
                    | Code::Loope_rel8_32_ECX
                    | Code::Loopne_rel8_32_ECX
            );
            control::count_down
        }
        Mnemonic::Int => {
            op.immediate = u64::from(instruction.immediate8());
            control::interrupt
        }
        Mnemonic::Int3 => {
            op.immediate = control::INT3;
            control::interrupt
        }
        Mnemonic::Int1 => control::interrupt_debug,
        Mnemonic::Syscall => control::system_call,
        Mnemonic::Sysenter => control::system_enter,
        Mnemonic::Sysexit | Mnemonic::Sysexitq => {
            op.detail = if instruction.code() == Code::Sysexitq {
                8
            } else {
                4
            };
            control::system_exit
        }
        Mnemonic::Sysret | Mnemonic::Sysretq => {
            op.detail = if instruction.code() == Code::Sysretq {
                8
            } else {
                4
            };
            control::system_return
        }
        Mnemonic::Lss => return Some(far_load(op, instruction, Register::SS)),
        Mnemonic::Lfs => return Some(far_load(op, instruction, Register::FS)),
        Mnemonic::Lgs => return Some(far_load(op, instruction, Register::GS)),
        _ => return None,
    })
}

pub(super) fn far_load(op: &mut Op, instruction: &Instruction, segment: Register) -> Handler {
    op.target = register(instruction, 0);
    op.detail = size(instruction, 0) as u8;
    op.source = segment.number() as u8;
    control::load_far_pointer
}

/// Jcc, SETcc, CMOVcc.
fn conditional(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let condition = instruction.condition_code();
    if condition == ConditionCode::None {
        return None;
    }
    op.detail = condition as u8 - ConditionCode::o as u8;
    if instruction.is_jcc_short_or_near() {
        op.immediate = branch(instruction);
        return Some(control::jump_if);
    }
    if instruction.op_count() == 1 {
        return Some(if target_or_memory(op, instruction, 0) {
            data::set_memory
        } else {
            data::set_register
        });
    }
    if !instruction.op_register(0).is_gpr() {
        return None; // FCMOVcc
    }
    op.target = register(instruction, 0);
    let is_memory = source_or_memory(op, instruction, 1);
    Some(data::cmov(size(instruction, 0), is_memory))
}
