//! A GPIO block whose pins lead out of the machine only: SiFive's, FU540-C000 manual, chapter 17. Nothing
//! drives its inputs, so that it interrupts nobody.

use serde::{Deserialize, Serialize};

const OUTPUT_ENABLE: u64 = 0x08;
const OUTPUT_VALUE: u64 = 0x0c;
const OUTPUT_XOR: u64 = 0x40;
/// Registers of 32 bits up to [`OUTPUT_XOR`].
const REGISTERS: usize = 17;
/// The interrupts that are pending, of which there are none.
const PENDING: [u64; 4] = [0x1c, 0x24, 0x2c, 0x34];

/// The block's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpio {
    registers: [u32; REGISTERS],
}

impl Gpio {
    /// The levels that the pins drive.
    pub fn outputs(&self) -> u32 {
        let register = |offset: u64| self.registers[offset as usize / 4];
        (register(OUTPUT_VALUE) ^ register(OUTPUT_XOR)) & register(OUTPUT_ENABLE)
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u64 {
        let register = self.registers.get(offset as usize / 4);
        u64::from(register.copied().unwrap_or(0))
    }

    /// Writes a register. The first one holds the inputs, and cannot be written.
    pub fn write(&mut self, offset: u64, value: u64) {
        if offset != 0
            && !PENDING.contains(&offset)
            && let Some(register) = self.registers.get_mut(offset as usize / 4)
        {
            *register = value as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fu540_17_a_pin_drives_its_value_where_its_output_is_enabled() {
        let mut gpio = Gpio::default();
        gpio.write(OUTPUT_VALUE, 3);
        assert_eq!(gpio.outputs(), 0);
        gpio.write(OUTPUT_ENABLE, 1);
        assert_eq!((gpio.outputs(), gpio.read(OUTPUT_VALUE)), (1, 3));
        gpio.write(OUTPUT_XOR, 1);
        assert_eq!(gpio.outputs(), 0);
    }

    #[test]
    fn inputs_and_pending_interrupts_are_zero_whatever_is_written_and_nothing_lies_beyond() {
        let mut gpio = Gpio::default();
        for offset in (0..0x80).step_by(4) {
            gpio.write(offset, 0xffff_ffff);
        }
        for offset in [0, 0x1c, 0x24, 0x2c, 0x34, 0x44, 0xffc] {
            assert_eq!(gpio.read(offset), 0, "{offset:#x}");
        }
        assert_eq!(gpio.read(0x18), 0xffff_ffff);
    }
}
