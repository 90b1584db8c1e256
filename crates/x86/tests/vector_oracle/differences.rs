//! Outcomes of the host that are not this machine's, but are open to it by the manuals: what is equal enough is made
//! equal, so that all else is compared.

use iced_x86::{Code, Instruction, OpKind};
use x86::fault::PAGE_FAULT;

use crate::host::Outcome;
use crate::state::{MEMORY_BYTES, Registers};
use crate::tolerance::Tolerance;

/// What an instruction began with.
pub struct Start<'a> {
    pub instruction: &'a Instruction,
    pub registers: &'a Registers,
    pub memory: &'a [u8; MEMORY_BYTES],
    /// Where the memory begins.
    pub base: u64,
}

impl Start<'_> {
    fn xmm(&self, register: usize) -> u128 {
        let at = 160 + 16 * register;
        let bytes = &self.registers.fxsave[at..at + 16];
        u128::from_le_bytes(bytes.try_into().unwrap())
    }

    /// The place of the operand of 16 bytes, from RSI.
    fn operand(&self) -> usize {
        (self.registers.general[3] - self.base) as usize
    }
}

/// Makes the outcomes equal where the tolerance lets them differ.
pub fn forgive(tolerance: &Tolerance, start: &Start<'_>, host: &mut Outcome, here: &mut Outcome) {
    if tolerance.chooses_a_nan() && host.fault.is_none() && here.fault.is_none() {
        forgive_choice_of_nan(start, host, here);
    }
    if here.fault.is_none_or(|fault| fault.0 != PAGE_FAULT) {
        return;
    }
    // The instruction starts again.
    if tolerance.changes_x87_before_a_fault() {
        here.registers.fxsave[..160].copy_from_slice(&host.registers.fxsave[..160]);
    }
    if tolerance.accesses_in_parts() {
        let operand = start.operand();
        host.memory[operand..].copy_from_slice(&start.memory[operand..]);
        forgive_address(host, here);
    }
    if tolerance.stores_by_mask() {
        forgive_masked_store(start, host, here);
    }
}

fn forgive_address(host: &mut Outcome, here: &mut Outcome) {
    for fault in [&mut host.fault, &mut here.fault].into_iter().flatten() {
        fault.1 &= !0xfff;
    }
}

/// MASKMOVDQU and MASKMOVQ, which fault here: the host may store selected bytes before it faults; it need not fault at
/// all if every selected byte is mapped, and then it stores them.
fn forgive_masked_store(start: &Start<'_>, host: &mut Outcome, here: &mut Outcome) {
    let is_mmx = start.instruction.code() == Code::Maskmovq_rDI_mm_mm;
    let register = |operand| {
        let number = start.instruction.op_register(operand).number();
        if is_mmx {
            let at = 32 + 16 * number;
            let bytes = &start.registers.fxsave[at..at + 8];
            u128::from(u64::from_le_bytes(bytes.try_into().unwrap()))
        } else {
            start.xmm(number)
        }
    };
    let (source, mask) = (register(1).to_le_bytes(), register(2).to_le_bytes());
    let to = (start.registers.general[4] - start.base) as usize;
    let selected = (0..16).filter(|&byte| mask[byte] & 0x80 != 0);
    let mut is_mapped = true;
    for byte in selected {
        match host.memory.get(to + byte) {
            Some(&stored) if stored == source[byte] => here.memory[to + byte] = stored,
            Some(_) if host.fault.is_some() => {}
            Some(_) | None => is_mapped = false,
        }
    }
    if host.fault.is_some() {
        forgive_address(host, here);
    } else if is_mapped {
        here.fault = None;
    }
}

/// DPPS and DPPD: the SDM says that at least one of several NaNs gets to the result, and not which ("horizontal
/// prioritization").
fn forgive_choice_of_nan(start: &Start<'_>, host: &mut Outcome, here: &mut Outcome) {
    let (a, b) = operands(start);
    let is_double = start.instruction.code() == Code::Dppd_xmm_xmmm128_imm8;
    let open = nans(a, b, start.instruction.immediate8(), is_double);
    let bytes = if is_double { 8 } else { 4 };
    let at = 160 + 16 * start.instruction.op0_register().number();
    for lane in (at..at + 16).step_by(bytes) {
        let value = |image: &[u8; 512]| {
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(&image[lane..lane + bytes]);
            u64::from_le_bytes(value)
        };
        let (theirs, ours) = (value(&host.registers.fxsave), value(&here.registers.fxsave));
        if open.contains(&theirs) && open.contains(&ours) {
            here.registers.fxsave[lane..lane + bytes]
                .copy_from_slice(&theirs.to_le_bytes()[..bytes]);
        }
    }
}

fn operands(start: &Start<'_>) -> (u128, u128) {
    let a = start.xmm(start.instruction.op0_register().number());
    let b = if start.instruction.op_kind(1) == OpKind::Memory {
        let operand = start.operand();
        u128::from_le_bytes(start.memory[operand..operand + 16].try_into().unwrap())
    } else {
        start.xmm(start.instruction.op1_register().number())
    };
    (a, b)
}

/// The NaNs that a dot product may end with: of each pair of elements that the immediate byte selects that of the
/// first, or else of the second, made quiet (SDM volume 1, table 4-7), and the one that is computed.
fn nans(a: u128, b: u128, control: u8, is_double: bool) -> Vec<u64> {
    let (count, width, quiet, infinity) = if is_double {
        (2, 64, 1 << 51, 0x7ff0_0000_0000_0000)
    } else {
        (4, 32, 1 << 22, 0x7f80_0000)
    };
    let ones = u64::MAX >> (64 - width);
    let computed = infinity | quiet | 1 << (width - 1);
    (0..count)
        .filter(|element| control >> (4 + element) & 1 != 0)
        .filter_map(|element| {
            let of = |operand: u128| (operand >> (width * element)) as u64 & ones;
            let is_nan = |value: &u64| value & ones >> 1 > infinity;
            [of(a), of(b)].into_iter().find(is_nan)
        })
        .map(|nan| nan | quiet)
        .chain([computed])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nans_of_a_dot_product_are_those_of_selected_elements() {
        // Elements 3 to 0: a number and a signalling NaN, a NaN and a NaN, two numbers, a NaN and a number.
        let a = 0x3f80_0000_7fc0_0003_3f80_0000_ffc0_0001u128;
        let b = 0x7f80_0004_7fc0_0013_4000_0000_3f80_0000u128;
        assert_eq!(
            nans(a, b, 0xf1, false),
            [0xffc0_0001, 0x7fc0_0003, 0x7fc0_0004, 0xffc0_0000]
        );
        assert_eq!(nans(a, b, 0x2f, false), [0xffc0_0000]);
        let (a, b) = (0x7ff0_0000_0000_0001u128, 0xfff8_0000_0000_0002u128 << 64);
        assert_eq!(
            nans(a, b, 0x31, true),
            [
                0x7ff8_0000_0000_0001,
                0xfff8_0000_0000_0002,
                0xfff8_0000_0000_0000
            ]
        );
    }
}
