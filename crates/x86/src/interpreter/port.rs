//! IN and OUT, and who may (SDM volume 1, chapter 19).

use super::core::{Core, Raised};
use super::flags::IOPL;
use super::op::Op;
use super::width::{Byte, Double, Width, Word};
use crate::fault::Fault;

/// #GP(0) unless IOPL or the TSS's bit map allows the port.
pub(super) fn require(core: &mut Core<'_>, port: u16, size: usize) -> Result<(), Raised> {
    if u64::from(core.privilege()) <= (core.flags & IOPL) >> 12 {
        return Ok(());
    }
    let tr = core.registers.tr;
    let limit = u64::from(tr.limit);
    if limit < 0x67 {
        return Err(core.raise(Fault::GENERAL_PROTECTION));
    }
    let map = core.load_system(tr.base.wrapping_add(0x66), 2)?;
    let at = map + u64::from(port) / 8;
    if at + 1 > limit {
        return Err(core.raise(Fault::GENERAL_PROTECTION));
    }
    let bits = core.load_system(tr.base.wrapping_add(at), 2)?;
    let wanted = ((1u64 << size) - 1) << (port % 8);
    if bits & wanted != 0 {
        return Err(core.raise(Fault::GENERAL_PROTECTION));
    }
    Ok(())
}

/// Reads a port.
pub(super) fn read(core: &mut Core<'_>, port: u16, size: usize) -> u64 {
    core.touched_device = true;
    core.limit = 0;
    let now = core.now;
    u64::from(core.bus.read_port(core.ram, port, size, now))
}

/// Writes a port.
pub(super) fn write(core: &mut Core<'_>, port: u16, size: usize, value: u64) {
    core.touched_device = true;
    core.limit = 0;
    let now = core.now;
    core.bus.write_port(core.ram, port, size, value as u32, now);
}

fn number(core: &Core<'_>, op: &Op) -> u16 {
    if op.source == 1 {
        core.r[2] as u16
    } else {
        op.immediate as u16 & 0xff
    }
}

/// IN: `detail` is the size, `source` 1 for DX.
pub(super) fn input(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let port = number(core, op);
    let size = usize::from(op.detail);
    require(core, port, size)?;
    let value = read(core, port, size);
    match size {
        1 => Byte::set(&mut core.r, 0, value),
        2 => Word::set(&mut core.r, 0, value),
        _ => Double::set(&mut core.r, 0, value),
    }
    Ok(())
}

/// OUT: as [`input`].
pub(super) fn output(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let port = number(core, op);
    let size = usize::from(op.detail);
    require(core, port, size)?;
    let value = match size {
        1 => core.r[0] & 0xff,
        2 => core.r[0] & 0xffff,
        _ => core.r[0] & 0xffff_ffff,
    };
    write(core, port, size, value);
    Ok(())
}
