//! Compatibility mode: 32-bit code of programs, in flat segments (SDM volume 3, 5.8.5 and volume 2).
//!
//! Instructions that do the same as in 64-bit mode have the same handlers. The upper halves of registers are
//! zero meanwhile. ES, CS, SS and DS count as flat: they have no base, no limit and are never null.

use super::core::{COMPATIBILITY_MASK, Core, Raised};
use super::decode;
use super::op::{Handler, Op, RIP};
use super::width::{Double, Width};
use super::{control, data};
use crate::cpu::CS;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// As in 64-bit mode.
pub(super) fn set_handler(op: &mut Op, instruction: &Instruction) -> bool {
    if is_16_bit(instruction) {
        return true; // stays undefined
    }
    if let Some(handler) = own(op, instruction) {
        op.handler = handler;
        return true;
    }
    let ends_block = decode::set_handler(op, instruction);
    if instruction.near_branch_target() != 0 {
        // Near 4 GiB it wraps around.
        op.immediate = op.immediate as i32 as u64;
    }
    ends_block
}

/// Addresses and branches of 16 bits, which nothing uses in 32-bit segments.
fn is_16_bit(instruction: &Instruction) -> bool {
    let registers = [instruction.memory_base(), instruction.memory_index()];
    let by_memory = registers.iter().any(|register| register.size() == 2)
        || instruction.memory_displ_size() == 2;
    let by_kind = (0..instruction.op_count()).any(|operand| {
        matches!(
            instruction.op_kind(operand),
            OpKind::NearBranch16
                | OpKind::FarBranch16
                | OpKind::MemorySegSI
                | OpKind::MemorySegDI
                | OpKind::MemoryESDI
        )
    });
    let by_code = matches!(
        instruction.code(),
        Code::Jcxz_rel8_32
            | Code::Loop_rel8_32_CX
            | Code::Loope_rel8_32_CX
            | Code::Loopne_rel8_32_CX
            | Code::Call_rm16
            | Code::Jmp_rm16
            | Code::Retnw
            | Code::Retnw_imm16
    );
    by_memory || by_kind || by_code
}

/// What is otherwise than in 64-bit mode. All of it ends a block.
fn own(op: &mut Op, instruction: &Instruction) -> Option<Handler> {
    let with = |op: &mut Op, detail: u8, handler: Handler| {
        op.detail = detail;
        Some(handler)
    };
    if instruction.op_kind(0) == OpKind::FarBranch32 && instruction.op_count() == 1 {
        op.immediate = u64::from(instruction.far_branch32());
        op.displacement = i32::from(instruction.far_branch_selector());
        let is_call = instruction.mnemonic() == Mnemonic::Call;
        return Some(if is_call { far_call } else { far_jump });
    }
    match instruction.mnemonic() {
        Mnemonic::Call => {
            if matches!(instruction.code(), Code::Call_m1616 | Code::Call_m1632) {
                return None;
            }
            Some(match instruction.op_kind(0) {
                OpKind::Register => {
                    op.target = instruction.op_register(0).number() as u8;
                    call_register
                }
                OpKind::Memory => call_memory,
                _ => {
                    op.immediate = decode::branch(instruction);
                    call
                }
            })
        }
        Mnemonic::Jmp if instruction.code() == Code::Jmp_rm32 => {
            (instruction.op_kind(0) == OpKind::Memory).then_some(jump_memory as Handler)
        }
        Mnemonic::Ret => {
            if instruction.op_count() == 1 {
                op.immediate = u64::from(instruction.immediate16());
            }
            Some(ret)
        }
        Mnemonic::Pushfd => with(op, 4, data::push_flags),
        Mnemonic::Popfd => with(op, 4, data::pop_flags),
        Mnemonic::Leave if instruction.code() == Code::Leaved => with(op, 4, data::leave),
        Mnemonic::Enter if instruction.code() == Code::Enterd_imm16_imm8 => {
            op.immediate = u64::from(instruction.immediate16());
            op.source = instruction.immediate8_2nd() & 31;
            with(op, 4, data::enter)
        }
        Mnemonic::Pushad => Some(push_all),
        Mnemonic::Popad => Some(pop_all),
        Mnemonic::Les => Some(decode::far_load(op, instruction, Register::ES)),
        Mnemonic::Lds => Some(decode::far_load(op, instruction, Register::DS)),
        // They would store 8 bytes of a base, where programs have room for 4.
        Mnemonic::Sgdt | Mnemonic::Sidt => Some(data::undefined),
        _ => None,
    }
}

fn call_to(core: &mut Core<'_>, target: u64) -> Result<(), Raised> {
    core.push::<Double>(core.rip())?;
    core.r[usize::from(RIP)] = target & COMPATIBILITY_MASK;
    Ok(())
}

fn call(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    call_to(core, core.rip().wrapping_add(op.immediate))
}

fn call_register(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    call_to(core, core.r[usize::from(op.target & 15)])
}

fn call_memory(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let target = core.load::<Double>(core.address(op))?;
    call_to(core, target)
}

fn jump_memory(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let target = core.load::<Double>(core.address(op))?;
    core.jump(target)
}

fn ret(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let target = core.load::<Double>(core.r[4])?;
    core.jump(target)?;
    core.r[4] = (core.r[4] + 4 + (op.immediate & 0xffff)) & COMPATIBILITY_MASK;
    Ok(())
}

/// JMP ptr16:32; `displacement` is the selector.
fn far_jump(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let code = core.code_segment(op.displacement as u16, core.privilege())?;
    core.jump(op.immediate)?;
    core.set_code_segment(code);
    Ok(())
}

/// CALL ptr16:32.
fn far_call(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let code = core.code_segment(op.displacement as u16, core.privilege())?;
    let selector = u64::from(core.registers.segments[CS].selector);
    let (old, rip) = (core.r[4], core.rip());
    let pushed = core
        .push::<Double>(selector)
        .and_then(|()| core.push::<Double>(rip));
    if pushed.is_err() {
        core.r[4] = old;
        return pushed;
    }
    core.r[usize::from(RIP)] = op.immediate;
    core.set_code_segment(code);
    Ok(())
}

/// PUSHAD.
fn push_all(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    let old = core.r[4];
    core.check_store(old.wrapping_sub(32), 32)?;
    for register in 0..8 {
        let value = if register == 4 { old } else { core.r[register] };
        core.push::<Double>(value)?;
    }
    Ok(())
}

/// POPAD: ESP's own place is passed over.
fn pop_all(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    let mut values = [0; 8];
    for (index, value) in (0u64..).zip(&mut values) {
        *value = control::popped(core, 4, index)?;
    }
    let top = core.r[4].wrapping_add(32) & COMPATIBILITY_MASK;
    for (register, value) in values.into_iter().rev().enumerate() {
        Double::set(&mut core.r, register as u8, value);
    }
    core.r[4] = top;
    Ok(())
}
