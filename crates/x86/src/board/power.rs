//! Ending the machine: power-off through ACPI's sleep control register, reboot through the reset control
//! register or the keyboard controller, and an exit status for test programs.

use super::ports;
use machine::output::Finish;
use serde::{Deserialize, Serialize};

/// The sleep type of soft off, as `_S5` in the DSDT names it.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// What the FADT has written to the reset register: full reset (82371SB, RC register).
pub const RESET_VALUE: u8 = 0x06;

/// ACPI 6.5, section 4.8.3.7: sleep enable.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
/// RC register: the change from 0 to 1 resets the CPU.
const RESET_CPU: u8 = 1 << 2;
/// 8042: pulse the lowest output, which is the CPU's reset line.
const KEYBOARD_PULSE_RESET: u8 = 0xfe;

/// What has ended the machine, if anything has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    reset_control: u8,
    finish: Option<Finish>,
    /// The end has become an output.
    is_reported: bool,
}

impl Power {
    /// How the guest ended the machine.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// How the guest ended the machine, the first time that this is asked.
    pub fn take_new_finish(&mut self) -> Option<Finish> {
        let finish = self.finish.filter(|_| !self.is_reported)?;
        self.is_reported = true;
        Some(finish)
    }

    /// The CPU could not go on (triple fault): a PC resets.
    pub fn reset(&mut self) {
        self.end(Finish::Reset);
    }

    /// IN from one of these ports.
    pub fn read(&self, port: u16) -> u8 {
        match port {
            ports::RESET_CONTROL => self.reset_control,
            // Nothing to read, nothing to wait for: no keyboard.
            _ => 0,
        }
    }

    /// OUT to one of these ports.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            ports::SLEEP_CONTROL if is_soft_off(value) => self.end(Finish::PowerOff),
            ports::RESET_CONTROL => {
                let rises = value & !self.reset_control & RESET_CPU != 0;
                self.reset_control = value & 0x0e;
                if rises {
                    self.end(Finish::Reset);
                }
            }
            ports::KEYBOARD_COMMAND if value == KEYBOARD_PULSE_RESET => self.end(Finish::Reset),
            // As QEMU's isa-debug-exit, which test programs such as kvm-unit-tests end with.
            ports::EXIT => self.end(Finish::Fail(u16::from(value) << 1 | 1)),
            _ => {}
        }
    }

    fn end(&mut self, finish: Finish) {
        self.finish = self.finish.or(Some(finish));
    }
}

/// Sleep enable with the sleep type of soft off.
fn is_soft_off(value: u8) -> bool {
    value & SLEEP_ENABLE != 0 && value >> SLEEP_TYPE_SHIFT & 7 == SLEEP_TYPE_OFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acpi_section_4_8_3_7_only_soft_off_with_the_enable_bit_powers_off() {
        let mut power = Power::default();
        power.write(ports::SLEEP_CONTROL, 5 << 2);
        power.write(ports::SLEEP_CONTROL, 3 << 2 | 1 << 5);
        assert_eq!(power.finish(), None);
        power.write(ports::SLEEP_CONTROL, 5 << 2 | 1 << 5);
        assert_eq!(power.finish(), Some(Finish::PowerOff));
        power.write(ports::RESET_CONTROL, 6);
        assert_eq!(power.finish(), Some(Finish::PowerOff));
    }

    #[test]
    fn the_reset_control_register_resets_when_bit_2_rises() {
        let mut power = Power::default();
        power.write(ports::RESET_CONTROL, 0x02);
        assert_eq!(power.finish(), None);
        assert_eq!(power.read(ports::RESET_CONTROL), 0x02);
        power.write(ports::RESET_CONTROL, 0x06);
        assert_eq!(power.finish(), Some(Finish::Reset));
    }

    #[test]
    fn the_keyboard_controller_resets() {
        let mut power = Power::default();
        power.write(ports::KEYBOARD_COMMAND, 0xd1);
        assert_eq!(power.finish(), None);
        power.write(ports::KEYBOARD_COMMAND, 0xfe);
        assert_eq!(power.finish(), Some(Finish::Reset));
    }
}
