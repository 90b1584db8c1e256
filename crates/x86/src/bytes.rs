//! Memory operands of any size, and the status flags by name, for the vector and x87 instructions.

use crate::fault::Fault;
use crate::operands::Operands;

/// The six status flags of RFLAGS.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StatusFlags {
    pub carry: bool,
    pub parity: bool,
    pub adjust: bool,
    pub zero: bool,
    pub sign: bool,
    pub overflow: bool,
}

const CARRY: u64 = 1;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const OVERFLOW: u64 = 1 << 11;

impl StatusFlags {
    const MASK: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

    pub const fn from_bits(flags: u64) -> Self {
        Self {
            carry: flags & CARRY != 0,
            parity: flags & PARITY != 0,
            adjust: flags & ADJUST != 0,
            zero: flags & ZERO != 0,
            sign: flags & SIGN != 0,
            overflow: flags & OVERFLOW != 0,
        }
    }

    fn bits(self) -> u64 {
        let mut flags = 0;
        let mut set = |flag, bit| {
            if flag {
                flags |= bit;
            }
        };
        set(self.carry, CARRY);
        set(self.parity, PARITY);
        set(self.adjust, ADJUST);
        set(self.zero, ZERO);
        set(self.sign, SIGN);
        set(self.overflow, OVERFLOW);
        flags
    }
}

/// Sizes that [`Operands`] takes at once, from the largest.
const SIZES: [usize; 6] = [16, 10, 8, 4, 2, 1];

/// The largest access that starts `left` bytes before the end.
fn step(left: usize) -> usize {
    SIZES.into_iter().find(|&size| size <= left).unwrap_or(1)
}

/// The memory operand, of any size, from its first byte on.
#[inline]
pub(crate) fn load<O: Operands, const N: usize>(operands: &mut O) -> Result<[u8; N], Fault> {
    if matches!(N, 1 | 2 | 4 | 8 | 10 | 16) {
        return Ok(first(operands.load(0, N)?));
    }
    load_in_steps(operands)
}

/// The low `N` bytes.
#[inline]
pub(crate) fn first<const N: usize>(bits: u128) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&bits.to_le_bytes()[..N]);
    bytes
}

fn load_in_steps<O: Operands, const N: usize>(operands: &mut O) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    if operands.load_at_once(&mut bytes) {
        return Ok(bytes);
    }
    let mut at = 0;
    while at < N {
        let size = step(N - at);
        let part = operands.load(at as u64, size)?;
        bytes[at..at + size].copy_from_slice(&part.to_le_bytes()[..size]);
        at += size;
    }
    Ok(bytes)
}

/// Stores the memory operand, all or nothing.
#[inline]
pub(crate) fn store<O: Operands, const N: usize>(
    operands: &mut O,
    bytes: [u8; N],
) -> Result<(), Fault> {
    if matches!(N, 1 | 2 | 4 | 8 | 10 | 16) {
        let mut value = [0; 16];
        value[..N].copy_from_slice(&bytes);
        return operands.store(0, N, u128::from_le_bytes(value));
    }
    if operands.store_at_once(&bytes) {
        return Ok(());
    }
    check_store::<O, N>(operands)?;
    each(N, |at, size| {
        let mut part = [0; 16];
        part[..size].copy_from_slice(&bytes[at..at + size]);
        operands.store(at as u64, size, u128::from_le_bytes(part))
    })
}

/// Faults as a store of `N` bytes would.
pub(crate) fn check_store<O: Operands, const N: usize>(operands: &mut O) -> Result<(), Fault> {
    each(N, |at, size| operands.check_store(at as u64, size))
}

fn each(
    bytes: usize,
    mut access: impl FnMut(usize, usize) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut at = 0;
    while at < bytes {
        let size = step(bytes - at);
        access(at, size)?;
        at += size;
    }
    Ok(())
}

/// The status flags of RFLAGS.
pub(crate) fn status_flags<O: Operands>(operands: &O) -> StatusFlags {
    StatusFlags::from_bits(operands.flags())
}

/// Replaces all six status flags.
pub(crate) fn set_status_flags<O: Operands>(operands: &mut O, flags: StatusFlags) {
    operands.set_flags(StatusFlags::MASK, flags.bits());
}
