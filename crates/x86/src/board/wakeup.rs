//! How the other CPUs start: the mailbox of ACPI's multiprocessor wakeup structure (ACPI 6.5, section 5.2.12.19).
//!
//! What is memory on other machines, polled by firmware, is a device here: a CPU that waits for its wakeup executes
//! nothing, and a command is carried out by the store that gives it.

use serde::{Deserialize, Serialize};

/// Where the mailbox is, behind the virtio slots.
pub const MAILBOX_BASE: u64 = 0xd000_8000;
/// Bytes of the mailbox. The first 16 are used.
pub const MAILBOX_SIZE: u64 = 0x1000;

/// Bytes 0 and 1: the command; 4 to 7: whom it is for; 8 to 15: where that CPU begins.
const USED: usize = 16;
const COMMAND_BYTES: u64 = 2;
const COMMAND_WAKE_UP: u16 = 1;
/// Does nothing but being taken: by that a kernel sees that the CPU is back.
const COMMAND_TEST: u16 = 2;

/// A CPU begins to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Which one.
    pub cpu: u8,
    /// Its first instruction, in 64-bit mode.
    pub address: u64,
}

/// The mailbox, and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    bytes: [u8; USED],
    /// CPUs of the machine.
    cpus: u8,
    /// A bit for each CPU that waits.
    waiting: u8,
    /// What the machine has to do before its next instruction.
    start: Option<Start>,
}

impl Mailbox {
    /// Of a machine with 1 to 8 CPUs, of which all but the first wait.
    ///
    /// # Panics
    /// There are more CPUs.
    pub fn new(cpus: u8) -> Mailbox {
        assert!((1..=8).contains(&cpus), "{cpus} CPUs");
        Mailbox {
            bytes: [0; USED],
            cpus,
            waiting: !1 & (0xff >> (8 - cpus)),
            start: None,
        }
    }

    /// Whether it is of a machine with so many CPUs, of which one at least runs.
    pub fn belongs_to(&self, cpus: u8) -> bool {
        let all = 0xff >> (8 - cpus.clamp(1, 8));
        self.cpus == cpus && self.waiting & !all == 0 && self.waiting != all && self.start.is_none()
    }

    /// Whether a CPU waits to be woken up.
    pub fn is_waiting(&self, cpu: usize) -> bool {
        self.waiting >> cpu & 1 != 0
    }

    /// Reads at an offset. Beyond what is used there is nothing but zero.
    pub fn read(&self, offset: u64, size: usize) -> u64 {
        (0..size as u64).rev().fold(0, |value, index| {
            let byte = self.bytes.get((offset + index) as usize);
            value << 8 | u64::from(byte.copied().unwrap_or(0))
        })
    }

    /// Writes at an offset. Who writes the command has written all else before: the CPU that is meant looks at it.
    pub fn write(&mut self, offset: u64, size: usize, value: u64) {
        for index in 0..size as u64 {
            if let Some(byte) = self.bytes.get_mut((offset + index) as usize) {
                *byte = (value >> (8 * index)) as u8;
            }
        }
        if offset < COMMAND_BYTES {
            self.look();
        }
    }

    /// A CPU executes nothing any more, until it is woken up. The last one cannot.
    pub fn wait(&mut self, cpu: usize) {
        let waiting = self.waiting | 1 << cpu;
        if waiting.count_ones() < self.cpus.into() {
            self.waiting = waiting;
            self.look();
        }
    }

    /// The CPU that has to begin, if one has.
    pub fn take_start(&mut self) -> Option<Start> {
        self.start.take()
    }

    /// Whether one has.
    pub fn has_start(&self) -> bool {
        self.start.is_some()
    }

    /// Carries the command out, if the CPU that it is for waits. Else it stays where it is.
    fn look(&mut self) {
        let command = self.read(0, 2) as u16;
        let number = self.read(4, 4);
        if number >= 8 || !self.is_waiting(number as usize) {
            return;
        }
        match command {
            COMMAND_WAKE_UP => {
                self.waiting &= !(1 << number);
                self.start = Some(Start {
                    cpu: number as u8,
                    address: self.read(8, 8),
                });
            }
            COMMAND_TEST => {}
            _ => return,
        }
        self.bytes[..2].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux does it: the command last.
    fn command(mailbox: &mut Mailbox, command: u16, cpu: u32, address: u64) {
        mailbox.write(4, 4, cpu.into());
        mailbox.write(8, 8, address);
        mailbox.write(0, 2, command.into());
    }

    #[test]
    fn a_cpu_that_waits_is_woken_once() {
        let mut mailbox = Mailbox::new(3);
        assert!(mailbox.is_waiting(1) && mailbox.is_waiting(2) && !mailbox.is_waiting(0));
        command(&mut mailbox, COMMAND_WAKE_UP, 2, 0x9_a000);
        assert_eq!(mailbox.read(0, 2), 0, "the command was taken");
        let (cpu, address) = (2, 0x9_a000);
        assert_eq!(mailbox.take_start(), Some(Start { cpu, address }));
        assert!(mailbox.is_waiting(1) && !mailbox.is_waiting(2));
        command(&mut mailbox, COMMAND_WAKE_UP, 2, 0x9_a000);
        assert_eq!(mailbox.read(0, 2), 1, "nobody takes it");
        assert_eq!(mailbox.take_start(), None);
    }

    #[test]
    fn commands_for_nobody_and_of_no_meaning_stay() {
        let mut mailbox = Mailbox::new(2);
        for (what, cpu) in [(1, 0), (1, 2), (1, 8), (1, u32::MAX), (3, 1), (0x101, 1)] {
            command(&mut mailbox, what, cpu, 0x1000);
            assert_eq!(mailbox.read(0, 2), what.into(), "{what} for {cpu}");
            assert_eq!(mailbox.take_start(), None);
            assert!(mailbox.is_waiting(1));
        }
    }

    /// `acpi_mp_cpu_die` in Linux: the command may be there before the CPU is.
    #[test]
    fn a_test_is_taken_as_soon_as_the_cpu_is_back() {
        let mut mailbox = Mailbox::new(2);
        command(&mut mailbox, COMMAND_TEST, 1, 0);
        assert_eq!(mailbox.read(0, 2), 0);
        assert!(mailbox.is_waiting(1));
        command(&mut mailbox, COMMAND_WAKE_UP, 1, 0x1000);
        assert!(mailbox.take_start().is_some());
        command(&mut mailbox, COMMAND_TEST, 1, 0);
        assert_eq!(mailbox.read(0, 2), 2);
        mailbox.wait(1);
        assert_eq!(mailbox.read(0, 2), 0);
    }

    /// Else the machine would be one that waits for nothing.
    #[test]
    fn the_last_cpu_does_not_leave() {
        for cpus in 1..=8 {
            let mut mailbox = Mailbox::new(cpus);
            mailbox.wait(0);
            assert!(!mailbox.is_waiting(0));
            assert!(mailbox.belongs_to(cpus));
        }
        assert!(!Mailbox::new(3).belongs_to(2));
        let nobody = Mailbox {
            waiting: 3,
            ..Mailbox::new(2)
        };
        assert!(!nobody.belongs_to(2));
    }

    #[test]
    fn beyond_the_command_there_is_nothing() {
        let mut mailbox = Mailbox::new(2);
        mailbox.write(12, 8, u64::MAX);
        mailbox.write(0x7f8, 8, u64::MAX);
        assert_eq!(mailbox.read(8, 8), 0xffff_ffff_0000_0000);
        assert_eq!(mailbox.read(12, 8), 0xffff_ffff);
        assert_eq!(mailbox.read(0x7f8, 8), 0);
    }
}
