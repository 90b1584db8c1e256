//! Jumps, calls, returns, and the ways between privileges.

use super::core::{Core, Raised};
use super::exception::Cause;
use super::flags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VM};
use super::op::{Op, RIP};
use super::width::{Double, Quad, Width, Word};
use crate::cpu::{CS, DS, ES, FS, GS, SS, Segment};
use crate::fault::{BREAKPOINT, Fault};
use crate::mmu::is_canonical;

const EFER_SCE: u64 = 1;

/// JMP relative.
pub(super) fn jump(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.jump(core.rip().wrapping_add(op.immediate))
}

/// Jcc; `detail` is the condition.
pub(super) fn jump_if(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    if core.status.holds(op.detail) {
        core.jump(core.rip().wrapping_add(op.immediate))
    } else {
        Ok(())
    }
}

/// JMP through a register.
pub(super) fn jump_register(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.jump(core.r[usize::from(op.target & 15)])
}

/// JMP through memory.
pub(super) fn jump_memory(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let target = core.load::<Quad>(core.address(op))?;
    core.jump(target)
}

fn call_to(core: &mut Core<'_>, target: u64) -> Result<(), Raised> {
    if !is_canonical(target) {
        return Err(core.general_protection());
    }
    core.push::<Quad>(core.rip())?;
    core.r[usize::from(RIP)] = target;
    Ok(())
}

/// CALL relative.
pub(super) fn call(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    call_to(core, core.rip().wrapping_add(op.immediate))
}

/// CALL through a register.
pub(super) fn call_register(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    call_to(core, core.r[usize::from(op.target & 15)])
}

/// CALL through memory.
pub(super) fn call_memory(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let target = core.load::<Quad>(core.address(op))?;
    call_to(core, target)
}

/// RET, with what it drops from the stack besides in `immediate`.
pub(super) fn ret(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let target = core.load::<Quad>(core.r[4])?;
    core.jump(target)?;
    core.r[4] = core.r[4].wrapping_add(8 + (op.immediate & 0xffff));
    Ok(())
}

fn count(core: &Core<'_>, op: &Op) -> u64 {
    if op.is_address_32 {
        core.r[1] & 0xffff_ffff
    } else {
        core.r[1]
    }
}

/// JRCXZ, JECXZ.
pub(super) fn jump_if_no_count(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    if count(core, op) == 0 {
        core.jump(core.rip().wrapping_add(op.immediate))
    } else {
        Ok(())
    }
}

/// LOOP, LOOPE, LOOPNE: `detail` 0, 1, 2.
pub(super) fn count_down(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let left = count(core, op).wrapping_sub(1);
    let condition = match op.detail {
        0 => true,
        1 => core.status.zero(),
        _ => !core.status.zero(),
    };
    let left = if op.is_address_32 {
        left & 0xffff_ffff
    } else {
        left
    };
    if left != 0 && condition {
        core.jump(core.rip().wrapping_add(op.immediate))?;
    }
    core.r[1] = left;
    Ok(())
}

/// INT n and INT3: `immediate` is the vector.
pub(super) fn interrupt(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.deliver(op.immediate as u8, None, Cause::Software)
}

/// INT1: a #DB that no gate's privilege stops.
pub(super) fn interrupt_debug(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.deliver(1, None, Cause::Trap)
}

/// Vector of INT3.
pub(super) const INT3: u64 = BREAKPOINT as u64;

/// SYSCALL.
pub(super) fn system_call(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    // Intel's processors have no SYSCALL in compatibility mode.
    if core.registers.efer & EFER_SCE == 0 || core.is_compatibility {
        return Err(core.raise(Fault::INVALID_OPCODE));
    }
    core.r[1] = core.rip();
    core.r[11] = core.rflags() & !RF;
    let flags = core.rflags() & !core.registers.fmask & !RF;
    core.r[usize::from(RIP)] = core.registers.lstar;
    let selector = (core.registers.star >> 32) as u16 & !3;
    core.set_stack_segment(Segment::flat_data(selector.wrapping_add(8), 0));
    core.set_code_segment(Segment::flat_code(selector, 0));
    core.set_rflags(flags);
    Ok(())
}

/// SYSENTER (SDM volume 2): to 64-bit code, from either kind.
pub(super) fn system_enter(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    let [selector, rsp, rip] = core.registers.sysenter;
    let selector = selector as u16 & !3;
    if selector == 0 {
        return Err(core.general_protection());
    }
    if !is_canonical(rip) {
        return Err(core.general_protection());
    }
    let flags = core.rflags() & !(VM | IF | RF);
    core.set_stack_segment(Segment::flat_data(selector.wrapping_add(8), 0));
    core.set_code_segment(Segment::flat_code(selector, 0));
    core.r[4] = rsp;
    core.r[usize::from(RIP)] = rip;
    core.set_rflags(flags);
    Ok(())
}

/// SYSEXIT: `detail` is 8 to 64-bit code, 4 to 32-bit code.
pub(super) fn system_exit(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let selector = core.registers.sysenter[0] as u16 & !3;
    if selector == 0 {
        return Err(core.general_protection());
    }
    core.require_kernel()?;
    let (rip, rsp) = (core.r[2], core.r[1]);
    let is_long = op.detail == 8;
    if is_long && !(is_canonical(rip) && is_canonical(rsp)) {
        return Err(core.general_protection());
    }
    core.r[usize::from(RIP)] = rip;
    core.r[4] = rsp;
    let code = if is_long {
        Segment::flat_code(selector.wrapping_add(32) | 3, 3)
    } else {
        Segment::flat_compatibility_code(selector.wrapping_add(16) | 3, 3)
    };
    core.set_stack_segment(Segment::flat_data(code.selector.wrapping_add(8), 3));
    core.set_code_segment(code);
    core.check_interrupts = true;
    Ok(())
}

/// SYSRET: to 64-bit code if `detail` is 8, else to 32-bit code.
pub(super) fn system_return(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    if core.registers.efer & EFER_SCE == 0 {
        return Err(core.raise(Fault::INVALID_OPCODE));
    }
    core.require_kernel()?;
    let is_long = op.detail == 8;
    if is_long && !is_canonical(core.r[1]) {
        return Err(core.general_protection());
    }
    let flags = core.r[11] & (STATUS | TF | IF | DF | IOPL | NT | AC | ID);
    core.r[usize::from(RIP)] = core.r[1];
    let selector = (core.registers.star >> 48) as u16;
    core.set_stack_segment(Segment::flat_data(selector.wrapping_add(8) | 3, 3));
    core.set_code_segment(if is_long {
        Segment::flat_code(selector.wrapping_add(16) | 3, 3)
    } else {
        Segment::flat_compatibility_code(selector | 3, 3)
    });
    core.set_rflags(flags);
    Ok(())
}

pub(super) fn popped(core: &mut Core<'_>, size: u8, index: u64) -> Result<u64, Raised> {
    let address = core.r[4].wrapping_add(index * u64::from(size));
    match size {
        2 => core.load::<Word>(address),
        4 => core.load::<Double>(address),
        _ => core.load::<Quad>(address),
    }
}

/// A return to an outer privilege leaves no segment behind that is out of reach there.
fn forget_inner_segments(core: &mut Core<'_>, privilege: u8) {
    for index in [ES, DS, FS, GS] {
        let segment = &mut core.registers.segments[index];
        if segment.attributes != 0 && !segment.is_conforming() && segment.privilege() < privilege {
            *segment = Segment::default();
        }
    }
}

/// IRET, IRETD, IRETQ: `detail` is the operand size.
pub(super) fn interrupt_return(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    // SDM volume 3, 6.7.1: even if it faults.
    core.registers.blocks_nonmaskable = false;
    core.check_interrupts = true;
    if core.flags & NT != 0 {
        return Err(core.general_protection());
    }
    let size = op.detail;
    let rip = popped(core, size, 0)?;
    let selector = popped(core, size, 1)? as u16;
    let flags = popped(core, size, 2)?;
    let old = core.privilege();
    let privilege = (selector & 3) as u8;
    let (rsp, stack_selector) = if core.is_compatibility {
        // Only 64-bit code always has a stack pointer there; it goes to no outer privilege.
        let stays = core.r[4].wrapping_add(3 * u64::from(size));
        (stays, core.registers.segments[SS].selector)
    } else {
        (popped(core, size, 3)?, popped(core, size, 4)? as u16)
    };
    if privilege < old {
        return Err(core.selector_fault(selector));
    }
    let code = core.code_segment(selector, privilege)?;
    let stack = core.stack_segment(stack_selector, privilege)?;
    if !is_canonical(rip) {
        return Err(core.general_protection());
    }
    let mut mask = STATUS | TF | DF | NT | RF | AC | ID;
    if old == 0 {
        mask |= IOPL;
    }
    if u64::from(old) <= (core.flags & IOPL) >> 12 {
        mask |= IF;
    }
    if size == 2 {
        mask &= 0xffff;
    }
    let flags = core.rflags() & !mask & !VM | flags & mask;
    core.r[usize::from(RIP)] = rip;
    core.r[4] = rsp;
    core.set_stack_segment(stack);
    core.set_code_segment(code);
    if privilege > old {
        forget_inner_segments(core, privilege);
    }
    core.set_rflags(flags);
    Ok(())
}

/// RETF: `detail` is the operand size, `immediate` what is dropped besides.
pub(super) fn far_return(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let size = op.detail;
    let dropped = op.immediate & 0xffff;
    let rip = popped(core, size, 0)?;
    let selector = popped(core, size, 1)? as u16;
    let privilege = (selector & 3) as u8;
    let old = core.privilege();
    if privilege < old {
        return Err(core.selector_fault(selector));
    }
    let code = core.code_segment(selector, privilege)?;
    let top = core.r[4].wrapping_add(2 * u64::from(size) + dropped);
    if privilege == old {
        core.jump(rip)?;
        core.r[4] = top;
        core.set_code_segment(code);
        return Ok(());
    }
    let kept = core.r[4];
    core.r[4] = top;
    let outer = popped(core, size, 0).and_then(|rsp| Ok((rsp, popped(core, size, 1)? as u16)));
    core.r[4] = kept;
    let (rsp, stack_selector) = outer?;
    let stack = core.stack_segment(stack_selector, privilege)?;
    core.jump(rip)?;
    core.r[4] = rsp.wrapping_add(dropped);
    core.set_stack_segment(stack);
    core.set_code_segment(code);
    forget_inner_segments(core, privilege);
    Ok(())
}

fn far_pointer(core: &mut Core<'_>, op: &Op) -> Result<(u64, u16), Raised> {
    let address = core.address(op);
    let size = op.detail;
    let offset = match size {
        2 => core.load::<Word>(address)?,
        4 => core.load::<Double>(address)?,
        _ => core.load::<Quad>(address)?,
    };
    let selector = core.load::<Word>(address.wrapping_add(u64::from(size)))? as u16;
    Ok((offset, selector))
}

/// JMP through a far pointer in memory: `detail` is the size of its offset. Only to code segments.
pub(super) fn far_jump(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let (offset, selector) = far_pointer(core, op)?;
    let privilege = core.privilege();
    let code = core.code_segment(selector, privilege)?;
    core.jump(offset)?;
    core.set_code_segment(code);
    Ok(())
}

/// CALL through a far pointer in memory. Only to code segments.
pub(super) fn far_call(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let (offset, selector) = far_pointer(core, op)?;
    let privilege = core.privilege();
    let code = core.code_segment(selector, privilege)?;
    if !is_canonical(offset) {
        return Err(core.general_protection());
    }
    let old = core.r[4];
    let selector = u64::from(core.registers.segments[CS].selector);
    let rip = core.rip();
    let pushed = match op.detail {
        2 => core
            .push::<Word>(selector)
            .and_then(|()| core.push::<Word>(rip)),
        4 => core
            .push::<Double>(selector)
            .and_then(|()| core.push::<Double>(rip)),
        _ => core
            .push::<Quad>(selector)
            .and_then(|()| core.push::<Quad>(rip)),
    };
    if pushed.is_err() {
        core.r[4] = old;
        return pushed;
    }
    core.r[usize::from(RIP)] = offset;
    core.set_code_segment(code);
    Ok(())
}

/// LSS, LFS, LGS: `target` is the register, `source` the segment.
pub(super) fn load_far_pointer(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let (offset, selector) = far_pointer(core, op)?;
    super::system::load_segment(core, usize::from(op.source), selector)?;
    match op.detail {
        2 => Word::set(&mut core.r, op.target, offset),
        4 => Double::set(&mut core.r, op.target, offset),
        _ => Quad::set(&mut core.r, op.target, offset),
    }
    Ok(())
}
