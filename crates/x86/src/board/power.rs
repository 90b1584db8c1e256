//! Ending the machine: power-off through ACPI's sleep control register, reboot through the reset control
//! register or the keyboard controller, an exit status for test programs, and what a guest's panic entails.

use super::ports;
use devices::finisher::Finisher;
use devices::panic::PanicNotice;
use devices::pvpanic;
use machine::config::PanicPolicy;
use machine::output::{Finish, Outputs};
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

/// What has ended or reset the machine, if anything has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    reset_control: u8,
    finisher: Finisher,
    panic: PanicNotice,
}

impl Power {
    /// As after a reset: what is done at a panic stays.
    pub fn after_reset(&self) -> Power {
        Power {
            panic: self.panic.after_reset(),
            ..Power::default()
        }
    }

    /// How the guest ended the machine.
    pub fn finish(&self) -> Option<Finish> {
        self.finisher.finish()
    }

    /// Whether the machine has to begin anew before its next instruction.
    pub fn asks_for_reset(&self) -> bool {
        self.finisher.asks_for_reset()
    }

    /// From here on a reset is an end.
    pub fn end_at_reset(&mut self) {
        self.finisher.end_at_reset();
    }

    /// What is done when the guest's kernel panics.
    pub fn set_panic_policy(&mut self, policy: PanicPolicy) {
        self.panic.set_policy(policy);
    }

    /// Whether the guest's kernel panicked since it was booted.
    pub fn has_panicked(&self) -> bool {
        self.panic.panicked()
    }

    /// The CPU could not go on (triple fault): a PC resets.
    pub fn reset(&mut self, outputs: &mut Outputs) {
        self.ask(Finish::Reset, outputs);
    }

    /// IN from one of these ports.
    pub fn read(&self, port: u16) -> u8 {
        match port {
            ports::RESET_CONTROL => self.reset_control,
            ports::PANIC => pvpanic::read(0) as u8,
            // Nothing to read, nothing to wait for: no keyboard.
            _ => 0,
        }
    }

    /// OUT to one of these ports.
    pub fn write(&mut self, port: u16, value: u8, outputs: &mut Outputs) {
        match port {
            ports::SLEEP_CONTROL if is_soft_off(value) => self.ask(Finish::PowerOff, outputs),
            ports::RESET_CONTROL => {
                let rises = value & !self.reset_control & RESET_CPU != 0;
                self.reset_control = value & 0x0e;
                if rises {
                    self.reset(outputs);
                }
            }
            ports::KEYBOARD_COMMAND if value == KEYBOARD_PULSE_RESET => self.reset(outputs),
            // As QEMU's isa-debug-exit, which test programs such as kvm-unit-tests end with.
            ports::EXIT => self.ask(Finish::Fail(u16::from(value) << 1 | 1), outputs),
            ports::PANIC if pvpanic::says_panicked(0, value.into()) => {
                self.panic.panic(&mut self.finisher, outputs);
            }
            _ => {}
        }
    }

    fn ask(&mut self, finish: Finish, outputs: &mut Outputs) {
        if let Some(output) = self.finisher.ask(finish) {
            outputs.other(output);
        }
    }
}

/// Sleep enable with the sleep type of soft off.
fn is_soft_off(value: u8) -> bool {
    value & SLEEP_ENABLE != 0 && value >> SLEEP_TYPE_SHIFT & 7 == SLEEP_TYPE_OFF
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::output::{Output, Trouble};

    /// What comes of these writes.
    fn outputs_of(power: &mut Power, writes: &[(u16, u8)]) -> Vec<Output> {
        let mut outputs = Outputs::default();
        for &(port, value) in writes {
            power.write(port, value, &mut outputs);
        }
        outputs.take()
    }

    #[test]
    fn acpi_section_4_8_3_7_only_soft_off_with_the_enable_bit_powers_off() {
        let mut power = Power::default();
        let none = [
            (ports::SLEEP_CONTROL, 5 << 2),
            (ports::SLEEP_CONTROL, 3 << 2 | 1 << 5),
        ];
        assert_eq!(outputs_of(&mut power, &none), []);
        assert_eq!(power.finish(), None);
        let off = (ports::SLEEP_CONTROL, 5 << 2 | 1 << 5);
        let told = outputs_of(&mut power, &[off, (ports::RESET_CONTROL, 6)]);
        assert_eq!(told, [Output::Finish(Finish::PowerOff)]);
        assert_eq!(power.finish(), Some(Finish::PowerOff));
    }

    #[test]
    fn the_reset_control_register_resets_when_bit_2_rises() {
        let mut power = Power::default();
        assert_eq!(outputs_of(&mut power, &[(ports::RESET_CONTROL, 0x02)]), []);
        assert!(!power.asks_for_reset());
        assert_eq!(power.read(ports::RESET_CONTROL), 0x02);
        let told = outputs_of(&mut power, &[(ports::RESET_CONTROL, 0x06)]);
        assert_eq!(told, [Output::Reboot]);
        assert!(power.asks_for_reset() && power.finish().is_none());
        assert!(!power.after_reset().asks_for_reset());
    }

    #[test]
    fn the_keyboard_controller_resets() {
        let mut power = Power::default();
        power.end_at_reset();
        assert_eq!(
            outputs_of(&mut power, &[(ports::KEYBOARD_COMMAND, 0xd1)]),
            []
        );
        let told = outputs_of(&mut power, &[(ports::KEYBOARD_COMMAND, 0xfe)]);
        assert_eq!(told, [Output::Finish(Finish::Reset)]);
        assert_eq!(power.finish(), Some(Finish::Reset));
    }

    #[test]
    fn pvpanic_tells_a_panic_once_and_the_policy_is_carried_out() {
        let told = Output::Trouble(Trouble::Panicked);
        let panic = [(ports::PANIC, 1), (ports::PANIC, 1)];
        let mut power = Power::default();
        assert_eq!(power.read(ports::PANIC), 3);
        // A crash kernel goes on.
        assert_eq!(outputs_of(&mut power, &[(ports::PANIC, 2)]), []);
        assert_eq!(outputs_of(&mut power, &panic), vec![told.clone()]);
        let mut power = Power::default();
        power.set_panic_policy(PanicPolicy::Reboot);
        assert_eq!(outputs_of(&mut power, &panic), [told, Output::Reboot]);
        assert!(power.has_panicked() && !power.after_reset().has_panicked());
    }
}
