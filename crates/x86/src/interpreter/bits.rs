//! BT, BTS, BTR, BTC, BSF, BSR, POPCNT, CRC32, BSWAP.
//!
//! Undefined in the SDM, defined here: BT and its kin leave all flags but CF; BSF and BSR leave all but
//! ZF, and leave the whole destination when the source is zero.

use super::alu::{FromMemory, FromRegister, Source};
use super::core::{Core, Raised};
use super::flags::{Status, ZF};
use super::op::{Handler, Op};
use super::width::{Byte, Double, Quad, Width, Word, by_width};

/// What happens to the bit that was tested: 0 nothing, 1 set, 2 reset, 3 complemented.
fn changed(value: u64, bit: u64, operation: u8) -> u64 {
    match operation {
        0 => value,
        1 => value | bit,
        2 => value & !bit,
        _ => value ^ bit,
    }
}

/// `detail`: the operation in bits 0 and 1, bit 2 an immediate index.
fn bit_register<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let index = if op.detail & 4 != 0 {
        op.immediate
    } else {
        W::get(&core.r, op.source)
    };
    let bit = 1u64 << (index & u64::from(W::BITS - 1));
    let value = W::get(&core.r, op.target);
    core.status = core.status.with_carry(value & bit != 0);
    if op.detail & 3 != 0 {
        W::set(&mut core.r, op.target, changed(value, bit, op.detail & 3));
    }
    Ok(())
}

fn bit_memory<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let mut offset = core.offset(op);
    let index = if op.detail & 4 != 0 {
        op.immediate
    } else {
        let index = W::sign_extend(W::get(&core.r, op.source));
        let units = (index as i64) >> W::BITS.trailing_zeros();
        offset = offset.wrapping_add((units as u64).wrapping_mul(W::SIZE as u64));
        if op.is_address_32 {
            offset &= 0xffff_ffff;
        }
        index
    };
    let address = offset.wrapping_add(core.address(op).wrapping_sub(core.offset(op)));
    let bit = 1u64 << (index & u64::from(W::BITS - 1));
    let value = if op.detail & 3 == 0 {
        core.load::<W>(address)?
    } else {
        let value = core.load_to_change::<W>(address)?;
        core.store::<W>(address, changed(value, bit, op.detail & 3))?;
        value
    };
    core.status = core.status.with_carry(value & bit != 0);
    Ok(())
}

/// The handler of BT, BTS, BTR and BTC.
pub(super) fn bit_test(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => bit_memory::<W>)
    } else {
        by_width!(size, W => bit_register::<W>)
    }
}

fn scan<W: Width, S: Source, const FORWARD: bool>(
    core: &mut Core<'_>,
    op: &Op,
) -> Result<(), Raised> {
    let value = S::get::<W>(core, op)?;
    let flags = core.status.to_flags();
    if value == 0 {
        core.status = Status::from_flags(flags | ZF);
        return Ok(());
    }
    core.status = Status::from_flags(flags & !ZF);
    let index = if FORWARD {
        value.trailing_zeros()
    } else {
        63 - value.leading_zeros()
    };
    W::set(&mut core.r, op.target, u64::from(index));
    Ok(())
}

/// The handler of BSF (forward) and BSR.
pub(super) fn bit_scan(size: usize, is_memory: bool, is_forward: bool) -> Handler {
    match (is_memory, is_forward) {
        (false, true) => by_width!(size, W => scan::<W, FromRegister, true>),
        (false, false) => by_width!(size, W => scan::<W, FromRegister, false>),
        (true, true) => by_width!(size, W => scan::<W, FromMemory, true>),
        (true, false) => by_width!(size, W => scan::<W, FromMemory, false>),
    }
}

fn count<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = S::get::<W>(core, op)?;
    core.status = Status::from_flags(if value == 0 { ZF } else { 0 });
    W::set(&mut core.r, op.target, u64::from(value.count_ones()));
    Ok(())
}

/// The handler of POPCNT.
pub(super) fn population_count(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => count::<W, FromMemory>)
    } else {
        by_width!(size, W => count::<W, FromRegister>)
    }
}

/// CRC-32C by one byte, reflected: the polynomial of CRC32.
fn crc_byte(crc: u32, byte: u8) -> u32 {
    let mut crc = crc ^ u32::from(byte);
    for _ in 0..8 {
        crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    }
    crc
}

fn crc<W: Width, S: Source>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = S::get::<W>(core, op)?;
    let mut crc = core.r[usize::from(op.target & 15)] as u32;
    for index in 0..W::SIZE {
        crc = crc_byte(crc, (value >> (8 * index)) as u8);
    }
    Double::set(&mut core.r, op.target, u64::from(crc));
    Ok(())
}

/// The handler of CRC32.
pub(super) fn crc32(size: usize, is_memory: bool) -> Handler {
    if is_memory {
        by_width!(size, W => crc::<W, FromMemory>)
    } else {
        by_width!(size, W => crc::<W, FromRegister>)
    }
}

/// BSWAP. Of 16 bits it is undefined: it clears them, as the hosts do.
pub(super) fn byte_swap(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    match op.detail {
        2 => Word::set(&mut core.r, op.target, 0),
        4 => {
            let value = Double::get(&core.r, op.target) as u32;
            Double::set(&mut core.r, op.target, u64::from(value.swap_bytes()));
        }
        _ => {
            let value = Quad::get(&core.r, op.target);
            Quad::set(&mut core.r, op.target, value.swap_bytes());
        }
    }
    Ok(())
}
