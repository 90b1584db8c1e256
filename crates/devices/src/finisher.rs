//! The `sifive,test0` finisher, by which a guest powers off, reboots or reports a result.

use machine::output::{Finish, Output};
use serde::{Deserialize, Serialize};

const FINISHER_FAIL: u64 = 0x3333;
const FINISHER_PASS: u64 = 0x5555;
const FINISHER_RESET: u64 = 0x7777;

/// The finisher: remembers what the guest asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finisher {
    asked: Option<Finish>,
    ends_at_reset: bool,
}

impl Finisher {
    /// How the guest ended the machine, if it did.
    pub fn finish(&self) -> Option<Finish> {
        self.asked.filter(|_| !self.asks_for_reset())
    }

    /// Whether the machine has to begin anew before its next instruction.
    pub fn asks_for_reset(&self) -> bool {
        self.asked == Some(Finish::Reset) && !self.ends_at_reset
    }

    /// From here on a reset is an end.
    pub fn end_at_reset(&mut self) {
        self.ends_at_reset = true;
    }

    /// A write to the register: what leaves the machine, if this write is the one that ends or resets it.
    pub fn write(&mut self, offset: u64, value: u64) -> Option<Output> {
        if offset != 0 {
            return None;
        }
        let finish = match value & 0xffff {
            FINISHER_PASS => Finish::PowerOff,
            FINISHER_FAIL => Finish::Fail((value >> 16) as u16),
            FINISHER_RESET => Finish::Reset,
            _ => return None,
        };
        self.ask(finish)
    }

    /// Somebody ends or resets the machine: what leaves it, if nobody did before.
    pub fn ask(&mut self, finish: Finish) -> Option<Output> {
        if self.asked.is_some() {
            return None;
        }
        self.asked = Some(finish);
        Some(if self.asks_for_reset() {
            Output::Reboot
        } else {
            Output::Finish(finish)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_ends_the_machine_once() {
        let off = Output::Finish(Finish::PowerOff);
        assert_eq!(Finisher::default().write(0, 0x5555), Some(off));
        let mut finisher = Finisher::default();
        assert_eq!(finisher.write(0, 0x1234), None);
        assert_eq!(finisher.write(4, 0x5555), None);
        let failed = Output::Finish(Finish::Fail(7));
        assert_eq!(finisher.write(0, 0x0007_3333), Some(failed));
        assert_eq!(finisher.write(0, 0x5555), None);
        assert_eq!(finisher.finish(), Some(Finish::Fail(7)));
    }

    #[test]
    fn a_reset_is_an_end_only_where_it_was_made_one() {
        let mut finisher = Finisher::default();
        assert_eq!(finisher.write(0, 0x7777), Some(Output::Reboot));
        assert!(finisher.asks_for_reset());
        assert_eq!(finisher.finish(), None);
        let mut finisher = Finisher::default();
        finisher.end_at_reset();
        let reset = Output::Finish(Finish::Reset);
        assert_eq!(finisher.write(0, 0x7777), Some(reset));
        assert!(!finisher.asks_for_reset());
        assert_eq!(finisher.finish(), Some(Finish::Reset));
    }
}
