//! Operand widths, as types: values are zero-extended to 64 bits.

/// Of 8, 16, 32 or 64 bits.
pub(crate) trait Width: 'static {
    const BITS: u32;
    const SIZE: usize = Self::BITS as usize / 8;
    const MASK: u64 = u64::MAX >> (64 - Self::BITS);

    #[inline(always)]
    fn sign_extend(value: u64) -> u64 {
        let shift = 64 - Self::BITS;
        (((value << shift) as i64) >> shift) as u64
    }

    #[inline(always)]
    fn is_negative(value: u64) -> bool {
        value >> (Self::BITS - 1) & 1 != 0
    }

    /// Register `register` of this width: 0 to 15, 8-bit ones from 24 on are AH, CH, DH and BH.
    fn get(registers: &[u64; 32], register: u8) -> u64;
    fn set(registers: &mut [u64; 32], register: u8, value: u64);
}

pub(crate) struct Byte;
pub(crate) struct Word;
pub(crate) struct Double;
pub(crate) struct Quad;

/// AH's number.
pub(crate) const HIGH_BYTES: u8 = 24;

impl Width for Byte {
    const BITS: u32 = 8;

    #[inline(always)]
    fn get(registers: &[u64; 32], register: u8) -> u64 {
        if register >= HIGH_BYTES {
            registers[usize::from(register & 3)] >> 8 & 0xff
        } else {
            registers[usize::from(register & 31)] & 0xff
        }
    }

    #[inline(always)]
    fn set(registers: &mut [u64; 32], register: u8, value: u64) {
        if register >= HIGH_BYTES {
            let register = &mut registers[usize::from(register & 3)];
            *register = *register & !0xff00 | (value & 0xff) << 8;
        } else {
            let register = &mut registers[usize::from(register & 31)];
            *register = *register & !0xff | value & 0xff;
        }
    }
}

impl Width for Word {
    const BITS: u32 = 16;

    #[inline(always)]
    fn get(registers: &[u64; 32], register: u8) -> u64 {
        registers[usize::from(register & 31)] & 0xffff
    }

    #[inline(always)]
    fn set(registers: &mut [u64; 32], register: u8, value: u64) {
        let register = &mut registers[usize::from(register & 31)];
        *register = *register & !0xffff | value & 0xffff;
    }
}

impl Width for Double {
    const BITS: u32 = 32;

    #[inline(always)]
    fn get(registers: &[u64; 32], register: u8) -> u64 {
        registers[usize::from(register & 31)] & 0xffff_ffff
    }

    #[inline(always)]
    fn set(registers: &mut [u64; 32], register: u8, value: u64) {
        registers[usize::from(register & 31)] = value & 0xffff_ffff;
    }
}

impl Width for Quad {
    const BITS: u32 = 64;

    #[inline(always)]
    fn get(registers: &[u64; 32], register: u8) -> u64 {
        registers[usize::from(register & 31)]
    }

    #[inline(always)]
    fn set(registers: &mut [u64; 32], register: u8, value: u64) {
        registers[usize::from(register & 31)] = value;
    }
}

/// The handler for an operand size in bytes: `by_width!(size, W => handler::<W>)`.
macro_rules! by_width {
    ($size:expr, $width:ident => $handler:expr) => {
        match $size {
            1 => {
                type $width = Byte;
                $handler
            }
            2 => {
                type $width = Word;
                $handler
            }
            4 => {
                type $width = Double;
                $handler
            }
            _ => {
                type $width = Quad;
                $handler
            }
        }
    };
}
pub(crate) use by_width;
