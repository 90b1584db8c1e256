//! Moves, conversions, exchanges, the stack.

use super::alu::{FromImmediate, FromMemory, FromRegister, Source, add, subtract};
use super::core::{Core, Raised};
use super::flags::{AF, CF, IF, IOPL, NT, OF, PF, RF, SF, Status, TF, VM, ZF};
use super::op::{Handler, Op};
use super::width::{Byte, Double, Quad, Width, Word, by_width};
use crate::cpu::Shadow;
use crate::fault::Fault;

fn move_to_register<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = S::get::<W>(core, op)?;
    W::set(&mut core.r, op.target, value);
    Ok(())
}

fn move_to_memory<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = S::get::<W>(core, op)?;
    core.store::<W>(core.address(op), value)
}

/// The handler of MOV, by what it reads and writes.
pub(super) fn mov(size: usize, form: super::alu::Form) -> Handler {
    use super::alu::Form;
    match form {
        Form::RegisterRegister => by_width!(size, W => move_to_register::<W, FromRegister>),
        Form::RegisterMemory => by_width!(size, W => move_to_register::<W, FromMemory>),
        Form::RegisterImmediate => by_width!(size, W => move_to_register::<W, FromImmediate>),
        Form::MemoryRegister => by_width!(size, W => move_to_memory::<W, FromRegister>),
        Form::MemoryImmediate => by_width!(size, W => move_to_memory::<W, FromImmediate>),
    }
}

fn load_absolute<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = core.load::<W>(absolute(core, op))?;
    W::set(&mut core.r, 0, value);
    Ok(())
}

fn store_absolute<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = W::get(&core.r, 0);
    core.store::<W>(absolute(core, op), value)
}

fn absolute(core: &Core<'_>, op: &Op) -> u64 {
    if op.segment > 3 {
        core.in_segment(op, op.immediate)
    } else {
        op.immediate
    }
}

/// The handler of MOV between rAX and an absolute address, in `immediate`.
pub(super) fn mov_absolute(size: usize, is_load: bool) -> Handler {
    if is_load {
        by_width!(size, W => load_absolute::<W>)
    } else {
        by_width!(size, W => store_absolute::<W>)
    }
}

fn extend<To: Width, From: Width, S: Source, const SIGNED: bool>(
    core: &mut Core<'_>,
    op: &Op,
) -> Result<(), Raised> {
    let mut value = S::get::<From>(core, op)?;
    if SIGNED {
        value = From::sign_extend(value) & To::MASK;
    }
    To::set(&mut core.r, op.target, value);
    Ok(())
}

/// The handler of MOVZX, MOVSX and MOVSXD.
pub(super) fn extending(to: usize, from: usize, is_memory: bool, is_signed: bool) -> Handler {
    macro_rules! pick {
        ($from:ty, $source:ty, $signed:expr) => {
            by_width!(to, W => extend::<W, $from, $source, $signed>)
        };
    }
    match (from, is_memory, is_signed) {
        (1, false, false) => pick!(Byte, FromRegister, false),
        (1, false, true) => pick!(Byte, FromRegister, true),
        (1, true, false) => pick!(Byte, FromMemory, false),
        (1, true, true) => pick!(Byte, FromMemory, true),
        (2, false, false) => pick!(Word, FromRegister, false),
        (2, false, true) => pick!(Word, FromRegister, true),
        (2, true, false) => pick!(Word, FromMemory, false),
        (2, true, true) => pick!(Word, FromMemory, true),
        (_, false, _) => pick!(Double, FromRegister, true),
        (_, true, _) => pick!(Double, FromMemory, true),
    }
}

fn lea<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let offset = core.offset(op);
    W::set(&mut core.r, op.target, offset);
    Ok(())
}

/// The handler of LEA.
pub(super) fn load_address(size: usize) -> Handler {
    by_width!(size, W => lea::<W>)
}

fn exchange_registers<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let a = W::get(&core.r, op.target);
    let b = W::get(&core.r, op.source);
    W::set(&mut core.r, op.target, b);
    W::set(&mut core.r, op.source, a);
    Ok(())
}

fn exchange_memory<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    let a = core.load_to_change::<W>(address)?;
    let b = W::get(&core.r, op.source);
    core.store::<W>(address, b)?;
    W::set(&mut core.r, op.source, a);
    Ok(())
}

/// The handler of XCHG; a register operand of the memory form is the source.
pub(super) fn exchange(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => exchange_memory::<W>)
    } else {
        by_width!(size, W => exchange_registers::<W>)
    }
}

fn exchange_add_register<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let a = W::get(&core.r, op.target);
    let b = W::get(&core.r, op.source);
    let sum = add::<W>(&mut core.status, a, b, 0);
    W::set(&mut core.r, op.source, a);
    W::set(&mut core.r, op.target, sum);
    Ok(())
}

fn exchange_add_memory<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    let a = core.load_to_change::<W>(address)?;
    let b = W::get(&core.r, op.source);
    let mut status = core.status;
    let sum = add::<W>(&mut status, a, b, 0);
    core.store::<W>(address, sum)?;
    core.status = status;
    W::set(&mut core.r, op.source, a);
    Ok(())
}

/// The handler of XADD.
pub(super) fn exchange_add(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => exchange_add_memory::<W>)
    } else {
        by_width!(size, W => exchange_add_register::<W>)
    }
}

fn compare_exchange_register<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let expected = W::get(&core.r, 0);
    let found = W::get(&core.r, op.target);
    subtract::<W>(&mut core.status, expected, found, 0);
    if expected == found {
        let value = W::get(&core.r, op.source);
        W::set(&mut core.r, op.target, value);
    } else {
        // The destination is written with its own value; then rAX.
        W::set(&mut core.r, 0, found);
    }
    Ok(())
}

fn compare_exchange_memory<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    let expected = W::get(&core.r, 0);
    let found = core.load_to_change::<W>(address)?;
    let mut status = core.status;
    subtract::<W>(&mut status, expected, found, 0);
    if expected == found {
        let value = W::get(&core.r, op.source);
        core.store::<W>(address, value)?;
    } else {
        W::set(&mut core.r, 0, found);
    }
    core.status = status;
    Ok(())
}

/// The handler of CMPXCHG.
pub(super) fn compare_exchange(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => compare_exchange_memory::<W>)
    } else {
        by_width!(size, W => compare_exchange_register::<W>)
    }
}

/// CMPXCHG8B (`W` is [`Double`]) and CMPXCHG16B.
fn compare_exchange_pair<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    if W::BITS == 64 && address & 15 != 0 {
        return Err(core.general_protection());
    }
    let size = W::SIZE as u64;
    core.check_store(address, 2 * size)?;
    let low = core.load::<W>(address)?;
    let high = core.load::<W>(address.wrapping_add(size))?;
    let flags = core.status.to_flags() & !ZF;
    if low == W::get(&core.r, 0) && high == W::get(&core.r, 2) {
        let (new_low, new_high) = (W::get(&core.r, 3), W::get(&core.r, 1));
        core.store::<W>(address, new_low)?;
        core.store::<W>(address.wrapping_add(size), new_high)?;
        core.status = Status::from_flags(flags | ZF);
    } else {
        W::set(&mut core.r, 0, low);
        W::set(&mut core.r, 2, high);
        core.status = Status::from_flags(flags);
    }
    Ok(())
}

/// The handler of CMPXCHG8B and CMPXCHG16B, by the size of a half.
pub(super) fn compare_exchange_double(half: usize) -> Handler {
    if half == 4 {
        compare_exchange_pair::<Double>
    } else {
        compare_exchange_pair::<Quad>
    }
}

fn conditional_move<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = S::get::<W>(core, op)?;
    let value = if core.status.holds(op.detail) {
        value
    } else {
        W::get(&core.r, op.target)
    };
    W::set(&mut core.r, op.target, value);
    Ok(())
}

/// The handler of CMOVcc; `detail` is the condition.
pub(super) fn cmov(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => conditional_move::<W, FromMemory>)
    } else {
        by_width!(size, W => conditional_move::<W, FromRegister>)
    }
}

/// SETcc of a register.
pub(super) fn set_register(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = u64::from(core.status.holds(op.detail));
    Byte::set(&mut core.r, op.target, value);
    Ok(())
}

/// SETcc of a byte in memory.
pub(super) fn set_memory(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.store::<Byte>(core.address(op), u64::from(core.status.holds(op.detail)))
}

fn push_value<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = S::get::<W>(core, op)?;
    core.push::<W>(value)
}

/// The handler of PUSH, of 2, 4 or 8 bytes; `form` names the source only.
pub(super) fn push(size: usize, form: super::alu::Form) -> Handler {
    use super::alu::Form;
    match (form, size) {
        (Form::RegisterRegister, 2) => push_value::<Word, FromRegister>,
        (Form::RegisterRegister, 4) => push_value::<Double, FromRegister>,
        (Form::RegisterRegister, _) => push_value::<Quad, FromRegister>,
        (Form::RegisterMemory, 2) => push_value::<Word, FromMemory>,
        (Form::RegisterMemory, 4) => push_value::<Double, FromMemory>,
        (Form::RegisterMemory, _) => push_value::<Quad, FromMemory>,
        (_, 2) => push_value::<Word, FromImmediate>,
        (_, 4) => push_value::<Double, FromImmediate>,
        (_, _) => push_value::<Quad, FromImmediate>,
    }
}

fn pop_to_register<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = core.load::<W>(core.r[4])?;
    core.r[4] = core.r[4].wrapping_add(W::SIZE as u64);
    W::set(&mut core.r, op.target, value);
    Ok(())
}

/// The address is computed after rSP has moved (SDM volume 2, POP).
fn pop_to_memory<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let old = core.r[4];
    let value = core.load::<W>(old)?;
    core.r[4] = old.wrapping_add(W::SIZE as u64);
    let address = core.address(op);
    let stored = core.store::<W>(address, value);
    if stored.is_err() {
        core.r[4] = old;
    }
    stored
}

/// The handler of POP, of 2, 4 or 8 bytes.
pub(super) fn pop(size: usize, is_memory: bool) -> Handler {
    match (is_memory, size) {
        (false, 2) => pop_to_register::<Word>,
        (false, 4) => pop_to_register::<Double>,
        (false, _) => pop_to_register::<Quad>,
        (true, 2) => pop_to_memory::<Word>,
        (true, 4) => pop_to_memory::<Double>,
        (true, _) => pop_to_memory::<Quad>,
    }
}

/// PUSHF, PUSHFD and PUSHFQ; `detail` is the size.
pub(super) fn push_flags(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let flags = core.rflags() & !(RF | VM);
    match op.detail {
        2 => core.push::<Word>(flags & 0xffff),
        4 => core.push::<Double>(flags),
        _ => core.push::<Quad>(flags),
    }
}

/// Flags that software can write at all.
const WRITABLE: u64 = super::flags::STATUS
    | TF
    | IF
    | super::flags::DF
    | IOPL
    | NT
    | super::flags::AC
    | super::flags::ID;

/// POPF, POPFD and POPFQ; `detail` is the size.
pub(super) fn pop_flags(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let (value, size, mut mask) = match op.detail {
        2 => (core.load::<Word>(core.r[4])?, 2, WRITABLE & 0xffff),
        4 => (core.load::<Double>(core.r[4])?, 4, WRITABLE),
        _ => (core.load::<Quad>(core.r[4])?, 8, WRITABLE),
    };
    if core.privilege() > 0 {
        mask &= !IOPL;
    }
    if u64::from(core.privilege()) > (core.flags & IOPL) >> 12 {
        mask &= !IF;
    }
    core.r[4] = core.r[4].wrapping_add(size);
    let flags = core.rflags() & !mask & !RF | value & mask;
    core.set_rflags(flags);
    core.limit = 0;
    Ok(())
}

/// CBW, CWDE, CDQE: `detail` is the size of the result.
pub(super) fn sign_extend_accumulator(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    match op.detail {
        2 => {
            let value = Byte::sign_extend(core.r[0]);
            Word::set(&mut core.r, 0, value);
        }
        4 => {
            let value = Word::sign_extend(core.r[0]);
            Double::set(&mut core.r, 0, value);
        }
        _ => core.r[0] = Double::sign_extend(core.r[0]),
    }
    Ok(())
}

/// CWD, CDQ, CQO: `detail` is the size of a half.
pub(super) fn sign_to_data(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let a = core.r[0];
    match op.detail {
        2 => Word::set(&mut core.r, 2, ((a as i16) >> 15) as u64),
        4 => Double::set(&mut core.r, 2, ((a as i32) >> 31) as u64),
        _ => core.r[2] = ((a as i64) >> 63) as u64,
    }
    Ok(())
}

/// SAHF.
pub(super) fn store_ah(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    let given = SF | ZF | AF | PF | CF;
    let flags = core.status.to_flags() & OF | core.r[0] >> 8 & given;
    core.status = Status::from_flags(flags);
    Ok(())
}

/// LAHF.
pub(super) fn load_ah(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    let value = core.status.to_flags() & 0xff | 2;
    Byte::set(&mut core.r, super::width::HIGH_BYTES, value);
    Ok(())
}

/// CLC, STC and CMC: `detail` 0, 1, 2.
pub(super) fn change_carry(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let carry = match op.detail {
        0 => false,
        1 => true,
        _ => !core.status.carry(),
    };
    core.status = core.status.with_carry(carry);
    Ok(())
}

/// CLD and STD: `detail` 0, 1.
pub(super) fn change_direction(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.flags = core.flags & !super::flags::DF | u64::from(op.detail) << 10;
    Ok(())
}

/// CLI and STI: `detail` 0, 1. Both need CPL to be at most IOPL.
pub(super) fn change_interrupts(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    if u64::from(core.privilege()) > (core.flags & IOPL) >> 12 {
        return Err(core.general_protection());
    }
    if op.detail == 0 {
        core.flags &= !IF;
    } else if core.flags & IF == 0 {
        core.flags |= IF;
        core.registers.shadow = Shadow::Sti;
        core.check_interrupts = true;
    }
    Ok(())
}

/// XLAT: the operand's index is AL, which addresses know nothing of.
pub(super) fn translate_byte(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let mut offset = core.r[3].wrapping_add(core.r[0] & 0xff);
    if op.is_address_32 {
        offset &= 0xffff_ffff;
    }
    if op.segment > 3 {
        offset = core.in_segment(op, offset);
    }
    let value = core.load::<Byte>(offset)?;
    Byte::set(&mut core.r, 0, value);
    Ok(())
}

/// ENTER: `immediate` is the frame's size, `source` the nesting level, `detail` the operand size.
pub(super) fn enter(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    match op.detail {
        2 => enter_sized::<Word>(core, op),
        4 => enter_sized::<Double>(core, op),
        _ => enter_sized::<Quad>(core, op),
    }
}

fn enter_sized<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let size = W::SIZE as u64;
    let level = u64::from(op.source & 31);
    let old = core.r[4];
    let outcome = enter_frame::<W>(core, op.immediate & 0xffff, level, size);
    if outcome.is_err() {
        core.r[4] = old;
    }
    outcome
}

fn enter_frame<W: Width>(
    core: &mut Core<'_>,
    frame_size: u64,
    level: u64,
    size: u64,
) -> Result<(), Raised> {
    let base = core.r[5];
    core.push::<W>(base)?;
    let frame = core.r[4];
    if level > 0 {
        for index in 1..level {
            let outer = core.load::<W>(base.wrapping_sub(index * size))?;
            core.push::<W>(outer)?;
        }
        core.push::<W>(frame)?;
    }
    let rsp = core.r[4].wrapping_sub(frame_size);
    // The last thing that ENTER checks: that the new top could be written.
    core.check_store(rsp, size)?;
    W::set(&mut core.r, 5, frame);
    core.r[4] = rsp;
    Ok(())
}

/// LEAVE: `detail` is the operand size.
pub(super) fn leave(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let frame = core.r[5];
    match op.detail {
        2 => {
            let value = core.load::<Word>(frame)?;
            Word::set(&mut core.r, 5, value);
        }
        4 => core.r[5] = core.load::<Double>(frame)?,
        _ => core.r[5] = core.load::<Quad>(frame)?,
    }
    core.r[4] = frame.wrapping_add(u64::from(op.detail));
    Ok(())
}

/// NOP, PAUSE, the fences, prefetches, ENDBR64.
pub(super) fn nothing(_: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    Ok(())
}

/// CLFLUSH: a load that goes nowhere.
pub(super) fn flush_line(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.load::<Byte>(core.address(op)).map(|_| ())
}

/// UD0, UD1, UD2, and all that is not announced.
pub(super) fn undefined(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    Err(core.raise(Fault::INVALID_OPCODE))
}
